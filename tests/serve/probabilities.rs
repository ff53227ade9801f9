//! Probabilities of tokens and penalties, as the library has them, in the shapes of OpenAI's endpoints.

use inflight::generate::{Alternative, Sampling, Token};
use serde_json::{Value, json};

use super::client::post;
use super::{Serving, alone, generator};

fn tokens(prompt: &str, sampling: Sampling) -> Vec<Token> {
    let prompt = prompt.bytes().map(u32::from).collect();
    let mut generator = generator(1);
    let made = generator.generate(vec![prompt], sampling).expect("starts");
    made.collect::<Result<_, _>>().expect("no failure")
}

/// A byte as completions tell it.
fn text(id: u32) -> String {
    if id < 128 { char::from(id as u8).to_string() } else { format!("bytes:\\x{id:02x}") }
}

/// All lists of the same name in several answers, one after another.
fn joined(parts: &[&Value], list: &str) -> Vec<Value> {
    parts.iter().flat_map(|part| part[list].as_array().expect("a list").clone()).collect()
}

#[test]
fn completions_tell_as_many_alternatives_as_they_are_asked_for() {
    let serving = Serving::plain(2);
    let sampling = Sampling { tokens: 24, seed: 4, temperature: 1.0, ..Sampling::default() };
    let made = tokens("To be", Sampling { alternatives: 5, ..sampling });
    let request = json!({
        "prompt": "To be", "max_tokens": 24, "seed": 4, "logprobs": 5, "echo": true,
    });
    let body = post(serving.address, "/v1/completions", &request).json();
    let (found, whole) = (&body["choices"][0]["logprobs"], body["choices"][0]["text"].as_str());
    let whole: Vec<char> = whole.expect("a text").chars().collect();
    let expected: Vec<String> = made.iter().map(|token| text(token.id)).collect();
    assert_eq!(found["tokens"], json!(expected));
    let expected: Vec<f64> = made.iter().map(|token| token.log_probability).collect();
    assert_eq!(found["token_logprobs"], json!(expected));
    let (mut beside, mut checked) = (0, 0);
    for (i, token) in made.iter().enumerate() {
        let top = found["top_logprobs"][i].as_object().expect("an object");
        let has = token.alternatives.iter().any(|other| other.id == token.id);
        beside += usize::from(!has);
        assert_eq!(top.len(), if has { 5 } else { 6 });
        assert_eq!(top[&text(token.id)], token.log_probability);
        for Alternative { id, log_probability } in &token.alternatives {
            assert_eq!(top[&text(*id)], *log_probability);
        }
        // A character that is a token by itself is found where it is said to begin.
        if token.id < 128 {
            let at = found["text_offset"][i].as_u64().expect("a number") as usize;
            assert_eq!(whole[at], char::from(token.id as u8));
            checked += 1;
        }
    }
    assert!(beside > 0 && checked > 4, "{beside} {checked}");
    assert_eq!(found["text_offset"][0], "To be".len());

    let mut streamed = request.clone();
    streamed["stream"] = true.into();
    let events = post(serving.address, "/v1/completions", &streamed).events();
    let parts: Vec<&Value> = events[1..].iter().map(|e| &e["choices"][0]["logprobs"]).collect();
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(joined(&parts, list), *found[list].as_array().expect("a list"), "{list}");
    }
    // Of 0 there are none, but the probability of the token is told.
    let mut few = request.clone();
    few["logprobs"] = 0.into();
    let body = post(serving.address, "/v1/completions", &few).json();
    let logprobs = &body["choices"][0]["logprobs"];
    assert!(logprobs["top_logprobs"].is_null());
    assert_eq!(logprobs["token_logprobs"], found["token_logprobs"]);
    // Without echo the first token is where the text begins; beside texts that ask for nothing it stays the same.
    let mut two = request;
    two["echo"] = false.into();
    two["n"] = 2.into();
    let body = post(serving.address, "/v1/completions", &two).json();
    assert_eq!(body["choices"][0]["logprobs"]["top_logprobs"], found["top_logprobs"]);
    assert_eq!(body["choices"][1]["logprobs"]["text_offset"][0], 0);
}

#[test]
fn chats_tell_as_many_alternatives_as_they_are_asked_for() {
    let serving = Serving::plain(2);
    let made = tokens("user: Hi\nassistant:", Sampling { alternatives: 20, ..Sampling::greedy(6) });
    let request = json!({
        "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 6, "temperature": 0,
        "logprobs": true, "top_logprobs": 20,
    });
    let token = |id: u32, log_probability: f64| {
        let text = text(id);
        let text = text.strip_prefix("bytes:").unwrap_or(&text);
        json!({ "token": text, "logprob": log_probability, "bytes": [id] })
    };
    let expected = made.iter().map(|made| {
        let mut said = token(made.id, made.log_probability);
        let others = made.alternatives.iter();
        said["top_logprobs"] = others.map(|other| token(other.id, other.log_probability)).collect();
        said
    });
    let expected: Vec<Value> = expected.collect();
    let body = post(serving.address, "/v1/chat/completions", &request).json();
    assert_eq!(body["choices"][0]["logprobs"]["content"], json!(expected));
    let mut streamed = request.clone();
    streamed["stream"] = true.into();
    let events = post(serving.address, "/v1/chat/completions", &streamed).events();
    let parts: Vec<&Value> = events[1..].iter().map(|e| &e["choices"][0]["logprobs"]).collect();
    assert_eq!(joined(&parts, "content"), expected);
    // Without a number there are none, and without being asked nothing is told.
    let mut plain = request.clone();
    plain["top_logprobs"] = Value::Null;
    let body = post(serving.address, "/v1/chat/completions", &plain).json();
    let content = &body["choices"][0]["logprobs"]["content"];
    assert_eq!(content[5]["top_logprobs"], json!([]));
    assert_eq!(content[5]["logprob"], made[5].log_probability);
    plain["logprobs"] = Value::Null;
    let body = post(serving.address, "/v1/chat/completions", &plain).json();
    assert!(body["choices"][0]["logprobs"].is_null());
}

#[test]
fn penalties_are_the_librarys() {
    let serving = Serving::plain(3);
    let greedy = Sampling::greedy(20);
    let penalties = [(0.0, 0.0), (2.0, 0.0), (0.0, 1.5), (-0.5, 0.75)];
    let mut texts: Vec<String> = Vec::new();
    for (presence_penalty, frequency_penalty) in penalties {
        let sampling = Sampling { presence_penalty, frequency_penalty, ..greedy };
        let expected = alone(&mut generator(1), "To be", sampling);
        let request = json!({
            "prompt": ["To be", "To be"], "max_tokens": 20, "temperature": 0,
            "presence_penalty": presence_penalty, "frequency_penalty": frequency_penalty,
        });
        let body = post(serving.address, "/v1/completions", &request).json();
        assert_eq!(body["choices"][0]["text"], expected);
        assert_eq!(body["choices"][1]["text"], expected);
        assert!(!texts.contains(&expected), "{presence_penalty}, {frequency_penalty}: {expected}");
        texts.push(expected);
    }
}

#[test]
fn what_is_out_of_range_is_told_by_its_name() {
    let serving = Serving::plain(1);
    let completion = |name: &str, value: Value| {
        let mut request = json!({ "prompt": "a", "max_tokens": 1 });
        request[name] = value;
        post(serving.address, "/v1/completions", &request)
    };
    let chat = |name: &str, value: Value| {
        let messages = json!([{ "role": "user", "content": "Hi" }]);
        let mut request = json!({ "messages": messages, "max_tokens": 1, "logprobs": true });
        request[name] = value;
        post(serving.address, "/v1/chat/completions", &request)
    };
    let cases = [
        (completion("logprobs", json!(6)), "logprobs", "found 6, expected 0 to 5"),
        (completion("logprobs", json!(-1)), "logprobs", "found -1, expected 0 to 5"),
        (chat("top_logprobs", json!(21)), "top_logprobs", "found 21, expected 0 to 20"),
        (chat("top_logprobs", json!(-3)), "top_logprobs", "found -3, expected 0 to 20"),
        (
            completion("presence_penalty", json!(2.5)),
            "presence_penalty",
            "found 2.5, expected -2 to 2",
        ),
        (
            chat("frequency_penalty", json!(-2.01)),
            "frequency_penalty",
            "found -2.01, expected -2 to 2",
        ),
    ];
    for (answer, param, words) in cases {
        assert_eq!(answer.status, 400, "{param}");
        let body = answer.json();
        assert_eq!(body["error"]["param"], param, "{body}");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["message"], format!("{param}: {words}"));
    }
    let unasked = json!({
        "messages": [{ "role": "user", "content": "Hi" }], "top_logprobs": 2, "max_tokens": 1,
    });
    let body = post(serving.address, "/v1/chat/completions", &unasked).json();
    let message = "top_logprobs: found 2 without logprobs, expected logprobs: true";
    assert_eq!(body["error"]["message"], message);
    // The ends of what is allowed.
    for (name, value) in [("presence_penalty", -2.0), ("frequency_penalty", 2.0), ("logprobs", 5.0)]
    {
        let value = if name == "logprobs" { json!(5) } else { json!(value) };
        assert_eq!(completion(name, value).status, 200, "{name}");
    }
    assert_eq!(chat("top_logprobs", json!(0)).status, 200);
}
