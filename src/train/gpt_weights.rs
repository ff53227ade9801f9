//! Published weights of GPT-2 as those of a language model here: other files leave out a prefix of the names, hold masks
//! that nobody reads and the head once more, or have more positions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::weights::Seen;
use crate::error::{Error, Result};

/// What Hugging Face's model with a head puts before all names, and the bare one does not.
const PREFIX: &str = "transformer.";

/// The embedding, which is the head as well.
const TOKENS: &str = "transformer.wte.weight";
const POSITIONS: &str = "transformer.wpe.weight";
const HEAD: &str = "lm_head.weight";

/// Buffers with the causal mask, at the end of the names.
const MASKS: [&str; 2] = [".attn.bias", ".attn.masked_bias"];

/// The tensors `found` in a file under the names of `expected`, where that is a language model; others stay as they are.
///
/// # Errors
/// When the file has a head that is not the embedding.
pub(super) fn adapt<'a>(
    file: &str,
    found: BTreeMap<Cow<'a, str>, Seen<'a>>,
    expected: &[(&str, &[usize])],
) -> Result<BTreeMap<Cow<'a, str>, Seen<'a>>> {
    let shape_of = |wanted: &str| expected.iter().find(|(name, _)| *name == wanted);
    let (Some(_), Some((_, positions))) = (shape_of(TOKENS), shape_of(POSITIONS)) else {
        return Ok(found);
    };
    let mut adapted = BTreeMap::new();
    let mut head = None;
    for (name, mut seen) in found {
        if MASKS.iter().any(|mask| name.ends_with(mask)) {
            continue;
        }
        if name == HEAD {
            head = Some(seen);
            continue;
        }
        let name = match name.starts_with(PREFIX) {
            true => name,
            false => Cow::Owned(format!("{PREFIX}{name}")),
        };
        let fits = seen.shape.len() == 2 && seen.shape[1..] == positions[1..];
        if name == POSITIONS && fits && seen.shape[0] > positions[0] {
            // A model of a shorter context uses the first positions.
            let len = positions.iter().product();
            seen.values = seen.values.get(..len).unwrap_or(seen.values);
            seen.shape = Cow::Owned(positions.to_vec());
        }
        adapted.insert(name, seen);
    }
    if let (Some(head), Some(tokens)) = (head, adapted.get(TOKENS))
        && head.values != tokens.values
    {
        let message = format!("{HEAD} is not {TOKENS}, expected a head that is the embedding");
        return Err(Error::checkpoint(file, message).hint("weights of a model with tied weights"));
    }
    Ok(adapted)
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    const EXPECTED: [(&str, &[usize]); 3] =
        [(TOKENS, &[3, 2]), (POSITIONS, &[2, 2]), ("transformer.h.0.attn.c_attn.bias", &[6])];

    /// Name, shape and values.
    type Row = (String, Vec<usize>, Vec<f32>);

    fn adapted(
        names: &[(&'static str, &[usize], &'static [f32])],
        expected: &[(&str, &[usize])],
    ) -> Result<Vec<Row>> {
        let found = names.iter().map(|&(name, shape, values)| {
            let seen = Seen { dtype: Dtype::F32, shape: Cow::Borrowed(shape), values };
            (Cow::Borrowed(name), seen)
        });
        let adapted = adapt("w.safetensors", found.collect(), expected)?;
        let row = |(name, seen): (Cow<'_, str>, Seen<'_>)| {
            (name.into_owned(), seen.shape.into_owned(), seen.values.to_vec())
        };
        Ok(adapted.into_iter().map(row).collect())
    }

    const TABLE: &[f32] = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    #[test]
    fn published_names_become_ours() {
        let file: [(&str, &[usize], &[f32]); 6] = [
            ("wte.weight", &[3, 2], TABLE),
            ("wpe.weight", &[3, 2], TABLE),
            ("h.0.attn.c_attn.bias", &[6], TABLE),
            ("h.0.attn.bias", &[1, 1, 2, 3], TABLE),
            ("h.0.attn.masked_bias", &[], &[-1e4]),
            ("lm_head.weight", &[3, 2], TABLE),
        ];
        let found = adapted(&file, &EXPECTED).expect("fits");
        let expected = [
            ("transformer.h.0.attn.c_attn.bias", vec![6], TABLE.to_vec()),
            (POSITIONS, vec![2, 2], TABLE[..4].to_vec()),
            (TOKENS, vec![3, 2], TABLE.to_vec()),
        ];
        assert_eq!(found, expected.map(|(name, shape, values)| (name.to_string(), shape, values)));
    }

    #[test]
    fn names_of_other_models_stay() {
        let found = adapted(&[("net.0.attn.bias", &[6], TABLE)], &[("net.0.attn.bias", &[6])]);
        assert_eq!(found.expect("stays")[0].0, "net.0.attn.bias");
    }

    #[test]
    fn a_head_of_its_own_is_refused() {
        let other: &[f32] = &[0.0; 6];
        let file: [(&str, &[usize], &[f32]); 2] =
            [(TOKENS, &[3, 2], TABLE), (HEAD, &[3, 2], other)];
        let error = adapted(&file, &EXPECTED).expect_err("refused").to_string();
        assert!(error.contains("w.safetensors: lm_head.weight is not"), "{error}");
    }
}
