//! How much longer a `tokenizer.json` may make a text before it cuts it into tokens: steps that each double it are a short file, and
//! no memory is enough for what they make of a page.

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::tokenizer::Tokenizer;

/// The most that is taken: published ones stay below a hundred.
const GROWTH_MAX: usize = 1024;

/// Bytes of UTF-8 that one becomes at most under compatibility decomposition, which makes no more of what it made
/// (<https://unicode.org/faq/normalization.html>).
const DECOMPOSED: usize = 18;

/// What is wrong with a tokenizer that makes texts much longer.
pub(super) fn check(tokenizer: &Tokenizer) -> Result<(), String> {
    let decomposed = tokenizer.get_normalizer().is_some_and(decomposes);
    let decomposed = if decomposed { DECOMPOSED } else { 1 };
    let normalized = tokenizer.get_normalizer().map_or(1, normalizer).saturating_mul(decomposed);
    let growth = normalized.saturating_mul(tokenizer.get_pre_tokenizer().map_or(1, pre_tokenizer));
    if growth > GROWTH_MAX {
        let growth = if growth == usize::MAX { "any number of".into() } else { growth.to_string() };
        return Err(format!(
            "makes a text up to {growth} times as long, expected at most {GROWTH_MAX}"
        ));
    }
    Ok(())
}

fn decomposes(step: &NormalizerWrapper) -> bool {
    match step {
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().any(decomposes),
        NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_)
        | NormalizerWrapper::BertNormalizer(_) => true,
        _ => false,
    }
}

/// Bytes that one of a text becomes at most, but for what decomposes.
fn normalizer(step: &NormalizerWrapper) -> usize {
    match step {
        NormalizerWrapper::Sequence(steps) => {
            steps.as_ref().iter().map(normalizer).fold(1, usize::saturating_mul)
        }
        // What matches nothing stands between any two characters.
        NormalizerWrapper::Replace(replace) => replace.content.len().saturating_add(1),
        NormalizerWrapper::Prepend(prepend) => prepend.prepend.len().saturating_add(1),
        // Spaces around Chinese characters, capital letters of several parts, bytes as characters.
        NormalizerWrapper::BertNormalizer(_)
        | NormalizerWrapper::Lowercase(_)
        | NormalizerWrapper::ByteLevel(_) => 2,
        NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_)
        | NormalizerWrapper::StripNormalizer(_)
        | NormalizerWrapper::StripAccents(_)
        | NormalizerWrapper::Nmt(_) => 1,
        // Its replacements are in a table of its own.
        NormalizerWrapper::Precompiled(_) => usize::MAX,
    }
}

/// The same of what cuts into words.
fn pre_tokenizer(step: &PreTokenizerWrapper) -> usize {
    match step {
        PreTokenizerWrapper::Sequence(steps) => {
            steps.as_ref().iter().map(pre_tokenizer).fold(1, usize::saturating_mul)
        }
        // Each byte is a character of up to two; a space may come before each word.
        PreTokenizerWrapper::ByteLevel(_) => 4,
        // A space is a character of up to four, and may come before each word.
        PreTokenizerWrapper::Metaspace(_) => 8,
        _ => 1,
    }
}
