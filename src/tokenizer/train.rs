//! Training of byte-pair encoding on the user's own text (Sennrich, Haddow and Birch, 2016), by the `tokenizers` crate.

use std::path::Path;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::tokenizer::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString};
use tokenizers::tokenizer::{PreTokenizer, Tokenizer, Trainer};

use super::bpe::{GPT2_END, PIECE_BYTES, byte_level, first_line, pieces};
use crate::error::{Error, Result};

/// Tokens that there are before anything is learned: the bytes, and the end of a text.
pub const LEAST_TOKENS: usize = 257;

/// How often two tokens must stand beside each other to become one, as in Hugging Face's `ByteLevelBPETokenizer`.
const LEAST_PAIRS: u64 = 2;

/// Learns `tokens` tokens, or as many as there are pairs of, from texts that come one after the other: token 0 ends a
/// text, then come the 256 bytes, then the merges in their order, as Hugging Face's trainer numbers them. Writes the file
/// `out` (a `tokenizer.json`).
///
/// The texts are pulled as they are counted, so that only those being counted are in memory, and the counts of all
/// different words. The result depends on nothing but the texts, whatever the threads.
///
/// # Errors
/// When the number is out of range, a text is an error, there is none, or `out` cannot be written.
pub fn train(
    texts: impl Iterator<Item = Result<String>> + Send,
    tokens: usize,
    out: &Path,
) -> Result<()> {
    let most = super::bpe::MAX_TOKENS;
    if !(LEAST_TOKENS..=most).contains(&tokens) {
        let message = format!(
            "found {tokens}, expected {LEAST_TOKENS} (256 bytes and the end of a text) to {most}"
        );
        return Err(Error::config("--train-bpe", message).hint("--train-bpe 4096"));
    }
    let wrong = |e: tokenizers::Error| {
        Error::data("text", format!("cannot be learned from: {}", first_line(&e)))
    };
    let mut trainer = BpeTrainer::builder()
        .vocab_size(tokens)
        .min_frequency(LEAST_PAIRS)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(GPT2_END, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    // The trainer takes no errors from what it pulls: the first one ends the texts, and is told afterwards.
    let (mut failed, mut bytes) = (None, 0);
    let whole = texts.map_while(|text| match text {
        Ok(text) => {
            bytes += text.len();
            Some(text)
        }
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    let cut = whole.flat_map(|text| {
        let parts: Vec<String> = pieces(&text, PIECE_BYTES).into_iter().map(Into::into).collect();
        parts
    });
    let words = byte_level();
    let fed = trainer.feed(cut, |text| {
        let mut text = PreTokenizedString::from(text);
        words.pre_tokenize(&mut text)?;
        let words = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(words.into_iter().map(|(word, ..)| word.to_string()).collect())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    fed.map_err(wrong)?;
    if bytes == 0 {
        return Err(Error::data("text", "found nothing to learn tokens from, expected text"));
    }
    let mut model = BPE::default();
    let special = trainer.train(&mut model).map_err(wrong)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(byte_level()));
    tokenizer.with_decoder(Some(byte_level()));
    tokenizer.add_special_tokens(&special);
    let json = tokenizer.to_string(true).map_err(wrong)?;
    crate::durable::replace_file(out, json.as_bytes())
}
