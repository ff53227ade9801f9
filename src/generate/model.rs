//! Which language model weights are of: what the `config.json` beside them says, as Hugging Face has it, or else their
//! shapes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::durable;
use crate::error::{Error, Result};
use crate::nn::gpt::GptConfig;
use crate::nn::language::{LanguageConfig, LanguageModel};
use crate::nn::llama::LlamaConfig;
use crate::train::weights::Weights;

/// Features of a head of GPT-2, for weights that come without sizes.
const HEAD: usize = 64;

/// The file that tells sizes and settings.
const CONFIG_FILE: &str = "config.json";
/// Its size at most: those that are published have some hundred bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Tokens that a LLaMA sees at once, if nobody says.
const LLAMA_POSITIONS: usize = 2048;

/// The language model that `weights` are of, as the `config.json` in their folder says. Without one it is a GPT-2, as far as
/// shapes tell: with heads of 64 features, as all that were published.
///
/// # Errors
/// When the weights are not those of such a model, or the configuration asks for what there is not here.
pub fn model_of(weights: &Weights) -> Result<LanguageModel> {
    let path = Path::new(weights.file()).with_file_name(CONFIG_FILE);
    if let Some(config) = HuggingFace::open(&path)? {
        return config.model(weights);
    }
    let Tables { vocabulary, positions, width } = gpt_tables(weights)?;
    let layers =
        (0..).take_while(|i| shape_of(weights, &format!("h.{i}.ln_1.weight")).is_some()).count();
    if width == 0 || !width.is_multiple_of(HEAD) {
        let message = format!("found a width of {width}, which heads of {HEAD} do not divide");
        return Err(no_model(weights, message));
    }
    let config =
        GptConfig { positions: Some(positions), ..GptConfig::of(layers, width / HEAD, width) };
    LanguageConfig::from(config).with_sizes(vocabulary, positions)
}

/// The language model `config` with as many tokens, and learned positions, as `weights` have.
///
/// # Errors
/// When the weights have no tables of these.
pub fn model_with(config: impl Into<LanguageConfig>, weights: &Weights) -> Result<LanguageModel> {
    let config = config.into();
    let (vocabulary, positions) = match config {
        LanguageConfig::Gpt(_) => {
            let Tables { vocabulary, positions, .. } = gpt_tables(weights)?;
            (vocabulary, positions)
        }
        LanguageConfig::Llama(llama) => {
            (llama_vocabulary(weights)?, llama.positions.unwrap_or(LLAMA_POSITIONS))
        }
    };
    config.with_sizes(vocabulary, positions)
}

/// What the `config.json` of a model says, for the libraries of Hugging Face.
pub fn model_config_json(model: &LanguageModel) -> Value {
    let (vocabulary, positions) = (model.vocabulary(), model.positions());
    match model {
        LanguageModel::Gpt(gpt) => {
            let GptConfig { layers, heads, width, dropout, attention_dropout, .. } = gpt.config();
            serde_json::json!({
                "architectures": ["GPT2LMHeadModel"],
                "model_type": "gpt2",
                "vocab_size": vocabulary,
                "n_positions": positions,
                "n_embd": width,
                "n_layer": layers,
                "n_head": heads,
                "activation_function": "gelu_new",
                "layer_norm_epsilon": 1e-5,
                "embd_pdrop": dropout,
                "resid_pdrop": dropout,
                "attn_pdrop": attention_dropout,
                "tie_word_embeddings": true,
            })
        }
        LanguageModel::Llama(llama) => {
            let config = llama.config();
            serde_json::json!({
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "vocab_size": vocabulary,
                "max_position_embeddings": positions,
                "hidden_size": config.width,
                "intermediate_size": config.hidden(),
                "num_hidden_layers": config.layers,
                "num_attention_heads": config.heads,
                "num_key_value_heads": config.kv_heads.unwrap_or(config.heads),
                "hidden_act": "silu",
                "rms_norm_eps": config.eps,
                "rope_theta": config.theta,
                "attention_dropout": config.attention_dropout,
                "attention_bias": false,
                "mlp_bias": false,
                "tie_word_embeddings": config.tied,
            })
        }
    }
}

/// What the embeddings of a GPT-2 tell.
struct Tables {
    vocabulary: usize,
    positions: usize,
    width: usize,
}

fn gpt_tables(weights: &Weights) -> Result<Tables> {
    let table = |name| shape_of(weights, name);
    match (table("wte.weight"), table("wpe.weight")) {
        (Some(&[vocabulary, width]), Some(&[positions, _])) => {
            Ok(Tables { vocabulary, positions, width })
        }
        _ if table("embed_tokens.weight").is_some() => {
            let message = "found a LLaMA without the config.json that tells its heads";
            let hint = "that file beside the weights, or --model M";
            Err(Error::checkpoint(weights.file(), message).hint(hint))
        }
        _ => {
            let message = "found no wte.weight and wpe.weight of two dimensions";
            Err(no_model(weights, message.into()))
        }
    }
}

fn llama_vocabulary(weights: &Weights) -> Result<usize> {
    match shape_of(weights, "embed_tokens.weight") {
        Some(&[vocabulary, _]) => Ok(vocabulary),
        _ => {
            let message = "found no embed_tokens.weight of two dimensions";
            Err(no_model(weights, message.into()))
        }
    }
}

/// The shape of a tensor, whose name may have Hugging Face's prefix.
fn shape_of<'a>(weights: &'a Weights, wanted: &str) -> Option<&'a [usize]> {
    let bare = |name: &'a str| {
        let name = name.strip_prefix("transformer.").unwrap_or(name);
        name.strip_prefix("model.").unwrap_or(name)
    };
    weights.shapes().find(|(name, _)| bare(name) == wanted).map(|(_, shape)| shape)
}

fn no_model(weights: &Weights, message: String) -> Error {
    Error::checkpoint(weights.file(), message)
        .hint("--model M, or the weights of a GPT-2 or LLaMA under Hugging Face's names")
}

/// A `config.json` with the file that it is from.
struct HuggingFace {
    path: PathBuf,
    kind: Kind,
    config: Value,
}

/// What all of them say.
#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    model_type: Option<String>,
}

/// The keys of `LlamaConfig` that matter here, and those of its relatives that ask for more.
#[derive(Deserialize)]
struct LlamaKeys {
    num_hidden_layers: usize,
    num_attention_heads: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<RopeKeys>,
    sliding_window: Option<Value>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

/// What newer versions call `rope_theta` and `rope_scaling`.
#[derive(Deserialize)]
struct RopeKeys {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

/// The keys of `GPT2Config` that matter here.
#[derive(Deserialize)]
struct GptKeys {
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    activation_function: Option<String>,
    layer_norm_epsilon: Option<f64>,
    tie_word_embeddings: Option<bool>,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
}

impl HuggingFace {
    /// Reads it; nothing where there is none, or a file of that name says nothing about a model.
    fn open(path: &Path) -> Result<Option<Self>> {
        match std::fs::metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let bytes = durable::read_file(path, CONFIG_BYTES_MAX)?;
        let invalid = |e: serde_json::Error| {
            Error::checkpoint(path.display(), "no valid JSON of a model").caused_by(e)
        };
        let config: Value = serde_json::from_slice(&bytes).map_err(invalid)?;
        let kind = Kind::deserialize(&config).map_err(invalid)?;
        Ok(kind.model_type.is_some().then(|| Self { path: path.into(), kind, config }))
    }

    fn model(&self, weights: &Weights) -> Result<LanguageModel> {
        match self.kind.model_type.as_deref() {
            // Without a sliding window a Mistral is a LLaMA.
            Some("llama" | "mistral") => {
                let config = self.llama()?;
                let positions = config.positions.unwrap_or(LLAMA_POSITIONS);
                LanguageConfig::from(config).with_sizes(llama_vocabulary(weights)?, positions)
            }
            Some("gpt2") => {
                let config = self.gpt()?;
                let Tables { vocabulary, positions, .. } = gpt_tables(weights)?;
                LanguageConfig::from(config).with_sizes(vocabulary, positions)
            }
            kind => {
                Err(self.refuse("model_type", kind.unwrap_or("none"), "llama, mistral or gpt2"))
            }
        }
        .map_err(|error| error.within(self.path.display()))
    }

    fn llama(&self) -> Result<LlamaConfig> {
        let keys: LlamaKeys = self.keys()?;
        let LlamaKeys { num_hidden_layers, num_attention_heads: heads, hidden_size: width, .. } =
            keys;
        let refuse =
            |key, found: &dyn std::fmt::Display, expected| Err(self.refuse(key, found, expected));
        let rope = keys.rope_parameters.as_ref();
        let rope_type = rope.and_then(|rope| rope.rope_type.as_deref()).unwrap_or("default");
        if let Some(scaling) = keys.rope_scaling.filter(|scaling| !scaling.is_null()) {
            return refuse("rope_scaling", &scaling, "none, since positions are not scaled here");
        }
        if rope_type != "default" {
            let expected = "default, since positions are not scaled here";
            return refuse("rope_parameters.rope_type", &rope_type, expected);
        }
        if let Some(window) = keys.sliding_window.filter(|window| !window.is_null()) {
            return refuse("sliding_window", &window, "none: all tokens before are attended to");
        }
        if keys.attention_bias || keys.mlp_bias {
            return refuse("attention_bias or mlp_bias", &true, "false");
        }
        if let Some(act) = keys.hidden_act.filter(|act| act != "silu") {
            return refuse("hidden_act", &act, "silu");
        }
        if let Some(len) = keys.head_dim.filter(|len| len.checked_mul(heads) != Some(width)) {
            return refuse("head_dim", &len, "hidden_size / num_attention_heads");
        }
        let theta = keys.rope_theta.or(rope.and_then(|rope| rope.rope_theta));
        Ok(LlamaConfig {
            hidden: Some(keys.intermediate_size),
            theta: theta.unwrap_or(10_000.0),
            eps: keys.rms_norm_eps.unwrap_or(1e-6),
            tied: keys.tie_word_embeddings,
            positions: keys.max_position_embeddings,
            ..LlamaConfig::of(
                num_hidden_layers,
                heads,
                keys.num_key_value_heads.unwrap_or(heads),
                width,
            )
        })
    }

    fn gpt(&self) -> Result<GptConfig> {
        let keys: GptKeys = self.keys()?;
        if let Some(act) = keys.activation_function.filter(|act| act != "gelu_new") {
            return Err(self.refuse("activation_function", act, "gelu_new"));
        }
        if let Some(eps) = keys.layer_norm_epsilon.filter(|&eps| eps != 1e-5) {
            return Err(self.refuse("layer_norm_epsilon", eps, "0.00001"));
        }
        if keys.tie_word_embeddings == Some(false) {
            return Err(self.refuse("tie_word_embeddings", false, "true"));
        }
        if keys.scale_attn_weights == Some(false) {
            return Err(self.refuse("scale_attn_weights", false, "true"));
        }
        if keys.scale_attn_by_inverse_layer_idx == Some(true) {
            return Err(self.refuse("scale_attn_by_inverse_layer_idx", true, "false"));
        }
        Ok(GptConfig::of(keys.n_layer, keys.n_head, keys.n_embd))
    }

    fn keys<'a, K: Deserialize<'a>>(&'a self) -> Result<K> {
        K::deserialize(&self.config).map_err(|e| {
            Error::checkpoint(self.path.display(), "lacks or garbles a key").caused_by(e)
        })
    }

    fn refuse(&self, key: &str, found: impl std::fmt::Display, expected: &str) -> Error {
        let message = format!("{key}: found {found}, expected {expected}");
        Error::checkpoint(self.path.display(), message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that says `config`, with `more` keys that replace or add some.
    fn file(mut config: Value, more: Value) -> HuggingFace {
        let Value::Object(more) = more else { panic!("keys") };
        config.as_object_mut().expect("keys").extend(more);
        let kind = Kind::deserialize(&config).expect("a kind");
        HuggingFace { path: "m/config.json".into(), kind, config }
    }

    /// What is understood of a LLaMA's file.
    fn llama(more: Value) -> Result<LlamaConfig> {
        let config = serde_json::json!({
            "model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32,
            "intermediate_size": 40, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, "rope_theta": 300.0, "rope_scaling": null, "tie_word_embeddings": true,
            "head_dim": 8, "hidden_act": "silu", "torch_dtype": "bfloat16", "sliding_window": null
        });
        file(config, more).llama()
    }

    /// The same of a GPT-2's.
    fn gpt(more: Value) -> Result<GptConfig> {
        let config = serde_json::json!({
            "model_type": "gpt2", "n_layer": 2, "n_head": 4, "n_embd": 32, "n_ctx": 64, "n_positions": 64,
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": true,
            "scale_attn_by_inverse_layer_idx": false, "reorder_and_upcast_attn": false
        });
        file(config, more).gpt()
    }

    #[test]
    fn a_configuration_is_hugging_faces() {
        let expected = LlamaConfig {
            hidden: Some(40),
            theta: 300.0,
            eps: 1e-5,
            tied: true,
            positions: Some(64),
            ..LlamaConfig::of(2, 4, 2, 32)
        };
        assert_eq!(llama(serde_json::json!({})).expect("fits"), expected);
        // As newer versions write it; and what is left out.
        let found = llama(serde_json::json!({
            "rope_theta": null, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
            "num_key_value_heads": null, "rms_norm_eps": null
        }));
        let expected = LlamaConfig { theta: 500.0, eps: 1e-6, kv_heads: Some(4), ..expected };
        assert_eq!(found.expect("fits"), expected);
    }

    #[test]
    fn what_there_is_not_here_is_refused_by_its_key() {
        for (more, expected) in [
            (serde_json::json!({"rope_scaling": {"rope_type": "llama3"}}), "rope_scaling: found {"),
            (
                serde_json::json!({"rope_parameters": {"rope_type": "yarn"}}),
                "rope_parameters.rope_type: found yarn, expected default",
            ),
            (serde_json::json!({"sliding_window": 4096}), "sliding_window: found 4096"),
            (serde_json::json!({"attention_bias": true}), "attention_bias or mlp_bias: found true"),
            (serde_json::json!({"hidden_act": "gelu"}), "hidden_act: found gelu, expected silu"),
            (serde_json::json!({"head_dim": 16}), "head_dim: found 16, expected hidden_size"),
            (serde_json::json!({"hidden_size": "wide"}), "lacks or garbles a key"),
            (serde_json::json!({"num_hidden_layers": null}), "lacks or garbles a key"),
        ] {
            let error = llama(more).expect_err("refused").to_string();
            assert!(error.starts_with("checkpoint: m/config.json: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_gpt_2_has_not_is_refused_by_its_key() {
        let expected = GptConfig::of(2, 4, 32);
        assert_eq!(gpt(serde_json::json!({})).expect("fits"), expected);
        // As older versions write it, without what is as usual; and as null.
        let null = serde_json::json!({
            "scale_attn_weights": null, "scale_attn_by_inverse_layer_idx": null,
            "activation_function": null, "layer_norm_epsilon": null
        });
        assert_eq!(gpt(null).expect("fits"), expected);
        for (more, expected) in [
            (
                serde_json::json!({"scale_attn_by_inverse_layer_idx": true}),
                "scale_attn_by_inverse_layer_idx: found true, expected false",
            ),
            (
                serde_json::json!({"scale_attn_weights": false}),
                "scale_attn_weights: found false, expected true",
            ),
            (
                serde_json::json!({"activation_function": "relu"}),
                "activation_function: found relu, expected gelu_new",
            ),
            (serde_json::json!({"layer_norm_epsilon": 0.5}), "layer_norm_epsilon: found 0.5"),
            (serde_json::json!({"tie_word_embeddings": false}), "tie_word_embeddings: found false"),
            (serde_json::json!({"n_layer": "many"}), "lacks or garbles a key"),
        ] {
            let error = gpt(more).expect_err("refused").to_string();
            assert!(error.starts_with("checkpoint: m/config.json: "), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
}
