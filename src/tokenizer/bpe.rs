//! Byte-pair encoding over bytes (Sennrich, Haddow and Birch, 2016; Radford et al., 2019), by the `tokenizers` crate.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rayon::prelude::*;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::Tokenizer;

use super::growth;
use crate::error::{Error, Result};

/// The merges of GPT-2 as published, from which its vocabulary follows.
const GPT2_MERGES: &str = include_str!("../../datasets/gpt2-bpe/vocab.bpe");

/// The token between documents of GPT-2.
pub(super) const GPT2_END: &str = "<|endoftext|>";

/// What tokens that end a text are called.
const ENDS: [&str; 4] = [GPT2_END, "<|end_of_text|>", "</s>", "<|im_end|>"];

/// Bytes of text that a task encodes.
pub(super) const PIECE_BYTES: usize = 1 << 18;

/// A tokenizer of byte pairs.
pub struct Bpe {
    inner: Tokenizer,
    /// The bytes of each token.
    bytes: Vec<Vec<u8>>,
    end: Option<u32>,
    /// Whether text may be cut before a line break that follows something visible: no token of GPT-2 goes on across it.
    cuts_at_lines: bool,
}

impl Bpe {
    /// GPT-2's: 256 bytes, 50,000 merges in their order, and the end of a text.
    ///
    /// # Errors
    /// Never for a released build, of which the merges are a part.
    pub fn gpt2() -> Result<Self> {
        let damaged = || Error::data("gpt2", "its merges are damaged");
        let lines = GPT2_MERGES.lines().skip(1).filter(|line| !line.is_empty());
        let merges: Vec<(String, String)> = lines
            .map(|line| line.split_once(' ').map(|(a, b)| (a.into(), b.into())))
            .collect::<Option<_>>()
            .ok_or_else(damaged)?;
        let bytes = alphabet().into_iter().map(|(_, c)| c.to_string());
        let tokens = bytes.chain(merges.iter().map(|(a, b)| format!("{a}{b}")));
        let vocabulary = tokens.chain([GPT2_END.to_string()]).zip(0u32..).collect();
        Self::of(BPE::new(vocabulary, merges), "gpt2", true)
    }

    /// That of a `tokenizer.json`, or of a folder with one or with a vocabulary and merges.
    ///
    /// # Errors
    /// When a file is missing, damaged, or not of byte pairs.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            return Self::json(path);
        }
        let json = path.join("tokenizer.json");
        if json.exists() {
            return Self::json(&json);
        }
        let names = [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]];
        let pairs = names.map(|pair| pair.map(|name| path.join(name)));
        let Some([vocabulary, merges]) = pairs.into_iter().find(|pair| pair[0].exists()) else {
            let message = "found no tokenizer.json, nor a vocab.json or encoder.json";
            return Err(Error::data(path.display(), message).hint("--tokenizer gpt2"));
        };
        if !merges.exists() {
            let message = "found no merges beside the vocabulary, expected this file";
            return Err(Error::data(merges.display(), message).hint("copying it there as well"));
        }
        let [vocabulary, merges] = [vocabulary, merges].map(|path| path.display().to_string());
        let bpe = guarded(&vocabulary, || {
            BPE::from_file(&vocabulary, &merges).build().map_err(|e| {
                Error::data(&vocabulary, format!("does not fit {merges}: {}", first_line(&e)))
            })
        })?;
        Self::of(bpe, &vocabulary, true)
    }

    fn json(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes =
            std::fs::read(path).map_err(|e| Error::data(&name, "cannot be read").caused_by(e))?;
        let inner = guarded(&name, || {
            Tokenizer::from_bytes(&bytes).map_err(|e| {
                Error::data(&name, format!("is no tokenizer.json: {}", first_line(&e)))
                    .hint("a file that Hugging Face's tokenizers saved")
            })
        })?;
        let kind = |message: &str| {
            Err(Error::data(&name, message).hint("a tokenizer as of GPT-2, Llama 3 or Qwen"))
        };
        let merges = match inner.get_model() {
            ModelWrapper::BPE(bpe) => bpe.get_vocab().len(),
            _ => return kind("found a tokenizer of another kind, expected byte-pair encoding"),
        };
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return kind("found pairs of something else than bytes, expected a byte-level decoder");
        }
        if let Err(message) = growth::check(&inner) {
            return kind(&message);
        }
        let cuts_at_lines = splits_as_gpt2(&inner);
        // A vocabulary without merges encodes every byte by itself, which nobody means.
        let json: serde_json::Value = serde_json::from_slice(&bytes)
            .map_err(|e| Error::data(&name, "is no JSON").caused_by(e))?;
        let is_empty = json["model"]["merges"].as_array().is_none_or(Vec::is_empty);
        if is_empty && merges > 256 {
            return Err(Error::data(&name, "found no merges, expected them in order")
                .hint("saving the tokenizer again"));
        }
        let inner = without_limits(inner)
            .map_err(|e| Error::data(&name, format!("cannot be used: {}", first_line(&e))))?;
        Self::of(inner, &name, cuts_at_lines)
    }

    fn of(inner: impl Into<Source>, name: &str, cuts_at_lines: bool) -> Result<Self> {
        let inner = match inner.into() {
            Source::Whole(tokenizer) => *tokenizer,
            Source::Model(bpe) => {
                let mut tokenizer = Tokenizer::new(*bpe);
                tokenizer.with_pre_tokenizer(Some(byte_level()));
                tokenizer.with_decoder(Some(byte_level()));
                tokenizer
            }
        };
        let of_char: HashMap<char, u8> = alphabet().into_iter().map(|(b, c)| (c, b)).collect();
        let spelled = |token: String| -> Vec<u8> {
            let bytes: Option<Vec<u8>> = token.chars().map(|c| of_char.get(&c).copied()).collect();
            // What was added beside the bytes is spelled as it is.
            bytes.unwrap_or_else(|| token.into_bytes())
        };
        // Numbers may have gaps: what counts is the highest. A short file must not ask for much memory by a high one.
        let numbers = inner.get_vocab(true).into_values();
        let limit = MAX_TOKENS.min(numbers.len() * GAP + 65_536);
        let Some(highest) = numbers.max() else {
            return Err(Error::data(name, "found no tokens"));
        };
        if highest as usize >= limit {
            let count = inner.get_vocab_size(true);
            let message =
                format!("found token {highest} of {count}, expected numbers below {limit}");
            return Err(Error::data(name, message).hint("numbering tokens from 0 on"));
        }
        let bytes = (0..=highest).map(|id| inner.id_to_token(id).map(spelled).unwrap_or_default());
        let bytes = bytes.collect();
        let end = ENDS.iter().find_map(|end| inner.token_to_id(end));
        Ok(Self { inner, bytes, end, cuts_at_lines })
    }

    /// The tokens of a text. What is spelled like a special token is text like any other for GPT-2's, and that token where a
    /// `tokenizer.json` lists it, as for Hugging Face.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded("text", || {
            self.inner.encode_fast(text, false).map_err(|e| {
                Error::data("text", format!("cannot be tokenized: {}", first_line(&e)))
            })
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Bpe::encode`], in pieces on all threads.
    pub fn encode_long(&self, text: &str) -> Result<Vec<u32>> {
        if !self.cuts_at_lines {
            return self.encode(text);
        }
        let pieces: Vec<Result<Vec<u32>>> =
            pieces(text, PIECE_BYTES).into_par_iter().map(|piece| self.encode(piece)).collect();
        let mut tokens = Vec::new();
        for piece in pieces {
            tokens.extend(piece?);
        }
        Ok(tokens)
    }

    /// The bytes of a token; none for one that there is not.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// One more than the highest token.
    pub fn vocabulary(&self) -> usize {
        self.bytes.len()
    }

    /// The whole tokenizer as JSON, which tells it from any other.
    ///
    /// # Errors
    /// Never for one that could be read.
    pub fn json_text(&self) -> Result<String> {
        let damaged = |e| Error::data("tokenizer", format!("is no JSON: {}", first_line(&e)));
        self.inner.to_string(false).map_err(damaged)
    }

    /// The token that ends a text.
    pub fn end(&self) -> Option<u32> {
        self.end
    }
}

/// Tokens at most, as for files of tokens.
pub(super) const MAX_TOKENS: usize = crate::source::tokens::VOCABULARY_MAX;

/// Numbers that a token may take up: those of published tokenizers follow each other but for some that are reserved.
const GAP: usize = 16;

/// Runs a reader of files that anybody may have written; a panic of it is an error.
fn guarded<T>(name: &str, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        let message = "cannot be read by this tokenizer: its files contradict themselves";
        Err(Error::data(name, message).hint("saving the tokenizer again"))
    })
}

/// What a tokenizer is made from.
enum Source {
    Whole(Box<Tokenizer>),
    Model(Box<BPE>),
}

impl From<Tokenizer> for Source {
    fn from(tokenizer: Tokenizer) -> Self {
        Source::Whole(Box::new(tokenizer))
    }
}

impl From<BPE> for Source {
    fn from(bpe: BPE) -> Self {
        Source::Model(Box::new(bpe))
    }
}

/// Without what a file may say of the length of texts, for models that read sentences, and of merges that are left out by chance: a
/// text is encoded whole, and every time the same.
fn without_limits(mut tokenizer: Tokenizer) -> tokenizers::Result<Tokenizer> {
    tokenizer.with_truncation(None)?.with_padding(None);
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(bpe);
    }
    Ok(tokenizer)
}

/// Words as GPT-2 cuts them, their bytes as visible characters.
pub(super) fn byte_level() -> ByteLevel {
    ByteLevel::new(false, true, true)
}

/// Whether a tokenizer cuts text into words as GPT-2 does and leaves it else as it is.
fn splits_as_gpt2(tokenizer: &Tokenizer) -> bool {
    let words = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(words)) => words.use_regex && !words.add_prefix_space,
        _ => false,
    };
    words && tokenizer.get_normalizer().is_none()
}

/// Bytes as the characters that stand for them in vocabularies, in the order of GPT-2's first 256 tokens: those that can
/// be seen are themselves, all others follow each other from 256 on.
fn alphabet() -> Vec<(u8, char)> {
    let visible = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (seen, unseen): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(visible);
    let seen = seen.into_iter().map(|byte| (byte, char::from(byte)));
    let unseen = unseen.into_iter().zip('\u{100}'..);
    seen.chain(unseen).collect()
}

/// A text in pieces of about `len` bytes, each but the first beginning with a line break after something visible.
pub(super) fn pieces(text: &str, len: usize) -> Vec<&str> {
    let bytes = text.as_bytes();
    let (mut pieces, mut first) = (Vec::new(), 0);
    while bytes.len() - first > len {
        let breaks = memchr::memchr_iter(b'\n', &bytes[first + len..]).map(|at| first + len + at);
        let visible = |&at: &usize| bytes[at - 1].is_ascii_graphic();
        let Some(next) = breaks.into_iter().find(visible) else { break };
        pieces.push(&text[first..next]);
        first = next;
    }
    pieces.push(&text[first..]);
    pieces
}

pub(super) fn first_line(error: &impl std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpt2_is_the_published_one() {
        let gpt2 = Bpe::gpt2().expect("in-tree");
        assert_eq!((gpt2.vocabulary(), gpt2.end()), (50_257, Some(50_256)));
        let encode = |text| gpt2.encode(text).expect("any text");
        // By the encoder that was published with the vocabulary, in JavaScript (npm's gpt-3-encoder 1.1.4).
        assert_eq!(encode("Hello world"), [15496, 995]);
        assert_eq!(encode("First Citizen:\nBefore we"), [5962, 22307, 25, 198, 8421, 356]);
        let mixed = " \n\n  don't café 日本 12345 😀";
        let tokens =
            [220, 628, 220, 836, 470, 40304, 10545, 245, 98, 17312, 105, 17031, 2231, 30325, 222];
        assert_eq!(encode(mixed), tokens);
        // Text, not the end of one.
        assert_eq!(encode("<|endoftext|>"), [27, 91, 437, 1659, 5239, 91, 29]);
        let spelled: Vec<u8> = tokens.iter().flat_map(|&id| gpt2.bytes(id).to_vec()).collect();
        assert_eq!(spelled, mixed.as_bytes());
        assert_eq!(gpt2.bytes(50_256), GPT2_END.as_bytes());
        assert!(gpt2.bytes(50_257).is_empty());
    }

    #[test]
    fn pieces_change_no_token() {
        let gpt2 = Bpe::gpt2().expect("in-tree");
        let text = include_str!("../../datasets/tinyshakespeare/input.txt");
        let text = &text[..40_000];
        let whole = gpt2.encode(text).expect("any text");
        for len in [1, 100, 7777] {
            let pieces = pieces(text, len);
            assert!(pieces.len() > 4 && pieces.concat() == text);
            let tokens: Vec<u32> =
                pieces.iter().flat_map(|piece| gpt2.encode(piece).expect("any text")).collect();
            assert!(tokens == whole, "pieces of {len}");
        }
    }

    #[test]
    fn a_folder_of_files_is_gpt2_again_and_what_lacks_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let gpt2 = Bpe::gpt2().expect("in-tree");
        let vocabulary = gpt2.inner.get_vocab(true);
        let path = folder.path().join("encoder.json");
        let refused = || Bpe::open(folder.path()).err().expect("refused").to_string();
        assert!(refused().contains("found no tokenizer.json"));
        std::fs::write(&path, serde_json::to_vec(&vocabulary).expect("JSON")).expect("writes");
        let error = refused();
        assert!(error.contains("vocab.bpe: found no merges beside the vocabulary"), "{error}");
        std::fs::write(folder.path().join("vocab.bpe"), GPT2_MERGES).expect("writes");
        let again = Bpe::open(folder.path()).expect("whole");
        let text = "Now is the winter of our discontent";
        assert_eq!(again.encode(text).expect("any"), gpt2.encode(text).expect("any"));
        // A vocabulary of something else does not fit the merges.
        std::fs::write(&path, "{\"a\":0,\"b\":1}").expect("writes");
        assert!(refused().contains("does not fit"), "{}", refused());
        // As one file.
        let json = folder.path().join("tokenizer.json");
        gpt2.inner.save(&json, false).expect("saves");
        let again = Bpe::open(&json).expect("whole");
        assert_eq!(again.encode(text).expect("any"), gpt2.encode(text).expect("any"));
        let mut value: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&json).expect("reads")).expect("JSON");
        value["model"]["merges"] = serde_json::json!([]);
        std::fs::write(&json, value.to_string()).expect("writes");
        assert!(refused().contains("found no merges"), "{}", refused());
        std::fs::write(&json, "{]").expect("writes");
        assert!(refused().contains("is no tokenizer.json"), "{}", refused());
    }
    #[test]
    fn a_text_is_encoded_whole_whatever_a_file_says_of_lengths_and_chance() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let encoded = |limits: &str, chance: &str| {
            let path = folder.path().join("tokenizer.json");
            let level = r#"{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#;
            let model = r#""vocab":{"a":0,"b":1,"ab":2,"abab":3},"merges":["a b","ab ab"]"#;
            let text = format!(
                r#"{{"version":"1.0",{limits}"pre_tokenizer":{level},"decoder":{level},"model":{{"type":"BPE",{chance}{model}}}}}"#
            );
            std::fs::write(&path, text).expect("writes");
            let tokenizer = Bpe::open(&path).expect("a tokenizer");
            (
                tokenizer.encode(&"abab".repeat(40)).expect("tokens"),
                tokenizer.json_text().expect("JSON"),
            )
        };
        let whole = encoded("", "");
        assert_eq!(whole.0, [3; 40]);
        let truncated = r#""truncation":{"direction":"Right","max_length":5,"strategy":"LongestFirst","stride":0},"#;
        let padded = r#""padding":{"strategy":{"Fixed":64},"direction":"Right","pad_to_multiple_of":null,"pad_id":1,"pad_type_id":0,"pad_token":"b"},"#;
        assert_eq!(encoded(truncated, ""), whole);
        assert_eq!(encoded(padded, ""), whole);
        assert_eq!(encoded("", r#""dropout":0.9,"#), whole);
    }

    #[test]
    fn what_makes_texts_much_longer_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokenizer.json");
        let gpt2 = Bpe::gpt2().expect("in-tree").json_text().expect("JSON");
        let opened = |part: &str, value: serde_json::Value| {
            let mut json: serde_json::Value = serde_json::from_str(&gpt2).expect("JSON");
            json[part] = value;
            std::fs::write(&path, json.to_string()).expect("a file");
            Bpe::open(&path).map_err(|e| e.to_string())
        };
        let replace = |content: &str| serde_json::json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
        let normalizers = |steps: Vec<serde_json::Value>| serde_json::json!({"type": "Sequence", "normalizers": steps});
        let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let cutters = |count| serde_json::json!({"type": "Sequence", "pretokenizers": vec![byte_level.clone(); count]});
        for (part, value) in [
            ("normalizer", replace(&"b".repeat(2_000))),
            ("normalizer", normalizers(vec![replace("aa"); 40])),
            ("normalizer", normalizers(vec![normalizers(vec![replace("aa"); 20]); 2])),
            ("pre_tokenizer", cutters(6)),
        ] {
            let refused = opened(part, value).err().expect("refused");
            assert!(refused.contains("times as long, expected at most 1024"), "{refused}");
        }
        let kept = opened(
            "normalizer",
            normalizers(vec![replace("bc"), serde_json::json!({"type": "NFKC"})]),
        );
        let plain = Bpe::gpt2().expect("in-tree").encode("bc");
        assert_eq!(kept.expect("opens").encode("a").expect("a text"), plain.expect("a text"));
        opened("pre_tokenizer", cutters(2)).expect("opens");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tokenizer.json");
        let refused = |model: &str| {
            let decoder = r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true}"#;
            let text = format!(r#"{{"decoder":{decoder},"model":{{"type":"BPE",{model}}}}}"#);
            std::fs::write(&path, text).expect("writes");
            let error = Bpe::open(&path).err().expect("refused").to_string();
            assert!(error.contains("tokenizer.json: "), "{error}");
            error
        };
        // A prefix longer than the token that it should be cut from, over which the crate panics.
        let model =
            r#""vocab":{"a":0,"b":1,"ab":2},"merges":["a b"],"continuing_subword_prefix":"more""#;
        assert!(refused(model).contains("its files contradict themselves"), "{}", refused(model));
        // A short file whose one high number would take hundreds of megabytes.
        let model = r#""vocab":{"a":0,"b":1,"ab":16000000},"merges":["a b"]"#;
        assert!(refused(model).contains("found token 16000000 of 3"), "{}", refused(model));
    }
}
