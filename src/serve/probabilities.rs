//! What is told of the probabilities of tokens, in the two shapes that OpenAI's endpoints have for it.

use serde_json::{Map, Value, json};

use crate::generate::{Alternative, Token};
use crate::tokenizer::Tokenizer;

/// A token that was made, and what else was probable.
pub(super) struct Told {
    made: Alternative,
    /// The most probable ones, in their order.
    alternatives: Vec<Alternative>,
    /// The number of the character of the text that it begins in.
    offset: usize,
}

impl Told {
    pub fn new(token: Token, offset: usize) -> Self {
        let Token { id, log_probability, alternatives, .. } = token;
        Self { made: Alternative { id, log_probability }, alternatives, offset }
    }
}

/// As completions have it: a list a kind. Where alternatives are asked for, the token that was made is always one of them.
/// Of several with the same text the most probable one is told.
pub(super) fn of_completion(tokens: &[Told], echoed: usize, tokenizer: &Tokenizer) -> Value {
    let text = |token: &Alternative| text_of(token.id, "bytes:", tokenizer);
    let top = |told: &Told| {
        let mut top = Map::new();
        for token in told.alternatives.iter().chain([&told.made]) {
            top.entry(text(token)).or_insert(token.log_probability.into());
        }
        top
    };
    let has_others = tokens.iter().any(|told| !told.alternatives.is_empty());
    json!({
        "tokens": tokens.iter().map(|told| text(&told.made)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|told| told.made.log_probability).collect::<Vec<_>>(),
        "top_logprobs": has_others.then(|| tokens.iter().map(top).collect::<Vec<_>>()),
        "text_offset": tokens.iter().map(|told| echoed + told.offset).collect::<Vec<_>>(),
    })
}

/// As chats have it: an object a token.
pub(super) fn of_chat(tokens: &[Told], tokenizer: &Tokenizer) -> Value {
    let token = |token: &Alternative| {
        json!({
            "token": text_of(token.id, "", tokenizer),
            "logprob": token.log_probability,
            "bytes": tokenizer.bytes(token.id),
        })
    };
    let content = tokens.iter().map(|told| {
        let mut content = token(&told.made);
        content["top_logprobs"] = told.alternatives.iter().map(token).collect();
        content
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

/// A token by itself. One that is part of a character is told byte by byte, behind a prefix, so that no two look the same.
fn text_of(id: u32, prefix: &str, tokenizer: &Tokenizer) -> String {
    let bytes = tokenizer.bytes(id);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes.iter().fold(prefix.into(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Vec<Told> {
        let token = |id, log_probability| Alternative { id, log_probability };
        let told = |made, alternatives, offset| Told { made, alternatives, offset };
        vec![
            told(token(97, -1.0), vec![token(98, -0.5), token(97, -1.0)], 0),
            told(token(0xe2, -3.0), vec![token(98, -0.25), token(0x82, -2.0)], 1),
        ]
    }

    #[test]
    fn completions_have_a_list_a_kind() {
        let found = of_completion(&told(), 4, &Tokenizer::Bytes);
        let expected = json!({
            "tokens": ["a", "bytes:\\xe2"],
            "token_logprobs": [-1.0, -3.0],
            "top_logprobs": [
                { "b": -0.5, "a": -1.0 },
                { "b": -0.25, "bytes:\\x82": -2.0, "bytes:\\xe2": -3.0 },
            ],
            "text_offset": [4, 5],
        });
        assert_eq!(found, expected);
        let mut plain = told();
        plain.iter_mut().for_each(|told| told.alternatives.clear());
        assert!(of_completion(&plain, 0, &Tokenizer::Bytes)["top_logprobs"].is_null());
        // Two tokens that spell nothing have the same text.
        let nothing = |id, log_probability| Alternative { id, log_probability };
        let alternatives = vec![nothing(300, -0.5), nothing(301, -2.0)];
        let twice = [Told { made: nothing(301, -2.0), alternatives, offset: 0 }];
        let found = of_completion(&twice, 0, &Tokenizer::Bytes);
        assert_eq!(found["top_logprobs"], json!([{ "": -0.5 }]));
    }

    #[test]
    fn chats_have_an_object_a_token() {
        let found = of_chat(&told(), &Tokenizer::Bytes);
        let token = |text: &str, log_probability: f64, byte: u8| json!({ "token": text, "logprob": log_probability, "bytes": [byte] });
        let mut expected = [token("a", -1.0, 97), token("\\xe2", -3.0, 0xe2)];
        expected[0]["top_logprobs"] = json!([token("b", -0.5, 98), token("a", -1.0, 97)]);
        expected[1]["top_logprobs"] = json!([token("b", -0.25, 98), token("\\x82", -2.0, 0x82)]);
        assert_eq!(found, json!({ "content": expected, "refusal": null }));
    }
}
