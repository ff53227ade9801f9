//! Which language model weights are of.

use crate::error::{Error, Result};
use crate::nn::gpt::GptConfig;
use crate::nn::language::{LanguageConfig, LanguageModel};
use crate::train::weights::Weights;

/// Features of a head of GPT-2, for weights that come without sizes.
const HEAD: usize = 64;

/// The sizes of the language model that `weights` are of, as far as shapes tell: heads of 64 features, as all of GPT-2's.
///
/// # Errors
/// When the weights are not those of such a model.
pub fn model_of(weights: &Weights) -> Result<LanguageModel> {
    let Tables { vocabulary, positions, width } = tables_of(weights)?;
    let layers =
        (0..).take_while(|i| shape_of(weights, &format!("h.{i}.ln_1.weight")).is_some()).count();
    if width == 0 || !width.is_multiple_of(HEAD) {
        let message = format!("found a width of {width}, which heads of {HEAD} do not divide");
        return Err(no_model(weights, message));
    }
    let config =
        GptConfig { layers, heads: width / HEAD, width, dropout: 0.0, positions: Some(positions) };
    LanguageConfig::from(config).with_sizes(vocabulary, positions)
}

/// The language model `config` with as many tokens and positions as `weights` have.
///
/// # Errors
/// When the weights have no tables of these.
pub fn model_with(config: impl Into<LanguageConfig>, weights: &Weights) -> Result<LanguageModel> {
    let Tables { vocabulary, positions, .. } = tables_of(weights)?;
    config.into().with_sizes(vocabulary, positions)
}

/// What the embeddings of weights tell.
struct Tables {
    vocabulary: usize,
    positions: usize,
    width: usize,
}

fn tables_of(weights: &Weights) -> Result<Tables> {
    let table = |name| shape_of(weights, name);
    match (table("wte.weight"), table("wpe.weight")) {
        (Some(&[vocabulary, width]), Some(&[positions, _])) => {
            Ok(Tables { vocabulary, positions, width })
        }
        _ => {
            let message = "found no wte.weight and wpe.weight of two dimensions";
            Err(no_model(weights, message.into()))
        }
    }
}

/// The shape of a tensor, whose name may have Hugging Face's prefix.
fn shape_of<'a>(weights: &'a Weights, wanted: &str) -> Option<&'a [usize]> {
    let mut shapes = weights.shapes();
    shapes.find(|(name, _)| name.trim_start_matches("transformer.") == wanted).map(|(_, s)| s)
}

fn no_model(weights: &Weights, message: String) -> Error {
    Error::checkpoint(weights.file(), message)
        .hint("--model M, or the weights of a GPT-2 under Hugging Face's names")
}
