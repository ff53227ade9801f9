//! Published weights of language models as those of a model here: other files leave out a prefix of the names, hold
//! buffers that nobody reads and the head once more, are of 16 bits, or have more positions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::Dtype;

use super::weights::Seen;
use crate::error::{Error, Result};

/// How the weights of an architecture are named.
struct Names {
    /// What Hugging Face's model with a head puts before all names, and the bare one does not.
    prefix: &'static str,
    /// The embedding, which may be the head as well.
    tokens: &'static str,
    /// Ends of the names of buffers.
    buffers: &'static [&'static str],
}

const GPT2: Names = Names {
    prefix: "transformer.",
    tokens: "transformer.wte.weight",
    buffers: &[".attn.bias", ".attn.masked_bias"],
};
const LLAMA: Names = Names {
    prefix: "model.",
    tokens: "model.embed_tokens.weight",
    buffers: &[".rotary_emb.inv_freq"],
};

const POSITIONS: &str = "transformer.wpe.weight";
const HEAD: &str = "lm_head.weight";

/// The tensors `found` in a file under the names of `expected`, where that is a language model; others stay as they are.
///
/// # Errors
/// When the file has a head that is not the embedding, and the model's is.
pub(super) fn adapt<'a>(
    file: &str,
    found: BTreeMap<Cow<'a, str>, Seen<'a>>,
    expected: &[(&str, &[usize])],
) -> Result<BTreeMap<Cow<'a, str>, Seen<'a>>> {
    let shape_of =
        |wanted: &str| expected.iter().find(|(name, _)| *name == wanted).map(|(_, shape)| *shape);
    let Some(names) = [GPT2, LLAMA].into_iter().find(|names| shape_of(names.tokens).is_some())
    else {
        return Ok(found);
    };
    let mut adapted = BTreeMap::new();
    for (name, mut seen) in found {
        if names.buffers.iter().any(|buffer| name.ends_with(buffer)) {
            continue;
        }
        if matches!(seen.dtype, Dtype::F16 | Dtype::BF16) {
            // The values were widened as they were read.
            seen.dtype = Dtype::F32;
        }
        let name = match name.starts_with(names.prefix) || name == HEAD {
            true => name,
            false => Cow::Owned(format!("{}{name}", names.prefix)),
        };
        if let (POSITIONS, Some(positions)) = (&*name, shape_of(POSITIONS)) {
            let fits = seen.shape.len() == 2 && seen.shape[1..] == positions[1..];
            if fits && seen.shape[0] > positions[0] {
                // A model of a shorter context uses the first positions.
                let len = positions.iter().product();
                seen.values = seen.values.get(..len).unwrap_or(seen.values);
                seen.shape = Cow::Owned(positions.to_vec());
            }
        }
        adapted.insert(name, seen);
    }
    if shape_of(HEAD).is_none()
        && let Some(head) = adapted.remove(HEAD)
        && adapted.get(names.tokens).is_some_and(|tokens| head.values != tokens.values)
    {
        let message =
            format!("{HEAD} is not {}, expected a head that is the embedding", names.tokens);
        return Err(Error::checkpoint(file, message).hint("weights of a model with tied weights"));
    }
    Ok(adapted)
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    const TOKENS: &str = GPT2.tokens;
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

    #[test]
    fn a_llama_of_16_bits_becomes_ours() {
        let seen = |dtype, shape: &'static [usize], values| Seen {
            dtype,
            shape: Cow::Borrowed(shape),
            values,
        };
        let other: &[f32] = &[0.5; 6];
        let found = BTreeMap::from([
            (Cow::Borrowed("embed_tokens.weight"), seen(Dtype::BF16, &[3, 2], TABLE)),
            (
                Cow::Borrowed("layers.0.self_attn.rotary_emb.inv_freq"),
                seen(Dtype::F32, &[1], other),
            ),
            (Cow::Borrowed(HEAD), seen(Dtype::BF16, &[3, 2], other)),
            (Cow::Borrowed("norm.weight"), seen(Dtype::I64, &[2], &[])),
        ]);
        let untied: [(&str, &[usize]); 2] = [(LLAMA.tokens, &[3, 2]), (HEAD, &[3, 2])];
        let adapted = adapt("w.safetensors", found.clone(), &untied).expect("fits");
        let names: Vec<(&str, Dtype)> =
            adapted.iter().map(|(n, seen)| (&**n, seen.dtype)).collect();
        let expected =
            [(HEAD, Dtype::F32), (LLAMA.tokens, Dtype::F32), ("model.norm.weight", Dtype::I64)];
        assert_eq!(names, expected);
        // A model whose head is the embedding takes no other one.
        let error = adapt("w.safetensors", found, &untied[..1]).err().expect("refused").to_string();
        assert!(error.contains("lm_head.weight is not model.embed_tokens.weight"), "{error}");
    }
}
