//! Text to tokens and back: bytes, or byte-pair encoding (feature `tokenizers`): GPT-2's, or that of a `tokenizer.json`.

#[cfg(feature = "tokenizers")]
mod bpe;
#[cfg(feature = "tokenizers")]
mod growth;
pub mod shards;
pub mod text;
#[cfg(feature = "tokenizers")]
mod train;

use std::path::Path;

use crate::error::{Error, Result};

/// What turns text into tokens and tokens into bytes of text.
pub enum Tokenizer {
    /// Every byte is a token.
    Bytes,
    /// Byte-pair encoding.
    #[cfg(feature = "tokenizers")]
    Bpe(Box<bpe::Bpe>),
}

impl Tokenizer {
    /// The tokenizer that `name` means: `bytes`, `gpt2`, or a path to a `tokenizer.json`, or to a folder with one or with
    /// a vocabulary and merges (`vocab.json` and `merges.txt`, or `encoder.json` and `vocab.bpe`).
    ///
    /// # Errors
    /// When this build has no byte-pair encoding, or the files are missing, damaged or of another kind.
    pub fn open(name: &str) -> Result<Self> {
        if name == "bytes" {
            return Ok(Self::Bytes);
        }
        if name != "gpt2" && !Path::new(name).exists() {
            let message = "found no such file or folder, expected bytes, gpt2 or a path";
            return Err(Error::config(name, message).hint("--tokenizer gpt2"));
        }
        #[cfg(feature = "tokenizers")]
        return Ok(Self::Bpe(Box::new(match name {
            "gpt2" => bpe::Bpe::gpt2()?,
            path => bpe::Bpe::open(Path::new(path))?,
        })));
        #[cfg(not(feature = "tokenizers"))]
        Err(Error::config(name, "this build knows only the tokenizer of bytes")
            .hint("cargo install inflight --features tokenizers"))
    }

    /// The tokens of a text.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Bytes => Ok(text.bytes().map(u32::from).collect()),
            #[cfg(feature = "tokenizers")]
            Self::Bpe(bpe) => bpe.encode(text),
        }
    }

    /// As [`encode`](Self::encode), on all threads where the text can be cut without changing a token.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_long(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Bytes => self.encode(text),
            #[cfg(feature = "tokenizers")]
            Self::Bpe(bpe) => bpe.encode_long(text),
        }
    }

    /// What tells this tokenizer from any other.
    ///
    /// # Errors
    /// Never for one that was opened.
    pub fn identity(&self) -> Result<String> {
        match self {
            Self::Bytes => Ok("bytes".into()),
            #[cfg(feature = "tokenizers")]
            Self::Bpe(bpe) => bpe.json_text(),
        }
    }

    /// The bytes of a token; none for one that there is not.
    pub fn bytes(&self, token: u32) -> &[u8] {
        static BYTES: [[u8; 1]; 256] = {
            let mut bytes = [[0]; 256];
            let mut i = 0;
            while i < 256 {
                bytes[i] = [i as u8];
                i += 1;
            }
            bytes
        };
        match self {
            Self::Bytes => BYTES.get(token as usize).map_or(&[], |byte| &byte[..]),
            #[cfg(feature = "tokenizers")]
            Self::Bpe(bpe) => bpe.bytes(token),
        }
    }

    /// Number of different tokens.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Bytes => 256,
            #[cfg(feature = "tokenizers")]
            Self::Bpe(bpe) => bpe.vocabulary(),
        }
    }

    /// The token that ends a text, where there is one.
    pub fn end(&self) -> Option<u32> {
        match self {
            Self::Bytes => None,
            #[cfg(feature = "tokenizers")]
            Self::Bpe(bpe) => bpe.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_tokens_of_their_own() {
        let bytes = Tokenizer::open("bytes").expect("always there");
        assert_eq!(bytes.encode("é!").expect("any text"), [0xc3, 0xa9, 0x21]);
        assert_eq!(
            [bytes.bytes(0xc3), bytes.bytes(255), bytes.bytes(256)],
            [&[0xc3][..], &[255], &[]]
        );
        assert_eq!((bytes.vocabulary(), bytes.end()), (256, None));
    }

    #[test]
    fn a_name_that_means_nothing_is_refused() {
        let error = Tokenizer::open("gpt-9").err().expect("refused").to_string();
        assert!(error.contains("gpt-9: found no such file or folder"), "{error}");
    }
}
