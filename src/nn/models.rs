//! The models by name, and how a config says which model it wants.

use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Module;
use super::gpt::GptConfig;
use super::language::LanguageConfig;
use super::layers::Layer;
use super::llama::LlamaConfig;
use super::resnet::{Depth, ResNet};
use super::sequential::Sequential;
use super::vit::{Size, VisionTransformer};
use crate::batch::{SampleSpec, TargetSpec};
use crate::error::{Error, Result};

/// The models that have a name.
pub const NAMES: [&str; 11] = [
    "mlp",
    "cnn",
    "resnet18",
    "resnet34",
    "resnet50",
    "vit-tiny",
    "gpt-nano",
    "gpt-mini",
    "gpt2",
    "llama-nano",
    "llama-mini",
];

/// The model of a config: a name (`model = "cnn"`), a list of layers (`[[model.layers]]`), or the sizes of a language
/// model (`[model.gpt]`, `[model.llama]`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ModelConfig {
    /// One of [`NAMES`].
    Name(String),
    /// A list of layers.
    Layers(LayerList),
    /// A language model of GPT-2's architecture.
    Gpt(GptTable),
    /// A language model of LLaMA's.
    Llama(LlamaTable),
}

/// The table `[model.gpt]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptTable {
    /// Its sizes and settings.
    pub gpt: GptConfig,
}

/// The table `[model.llama]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaTable {
    /// Its sizes and settings.
    pub llama: LlamaConfig,
}

/// The table behind `[[model.layers]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerList {
    /// In order; layer `i` is `net.{i}` unless it has a name.
    pub layers: Vec<Layer>,
}

impl ModelConfig {
    /// The model for samples of `spec`.
    ///
    /// # Errors
    /// As [`by_name`] and [`Sequential::new`].
    pub fn build(&self, spec: &SampleSpec) -> Result<Arc<dyn Module>> {
        Ok(match self {
            ModelConfig::Name(name) => by_name(name, spec)?,
            ModelConfig::Layers(list) => {
                expect_no_tokens("layers", spec)?;
                Arc::new(Sequential::new(list.layers.clone(), spec)?)
            }
            ModelConfig::Gpt(table) => Arc::new(LanguageConfig::from(table.gpt).model(spec)?),
            ModelConfig::Llama(table) => Arc::new(LanguageConfig::from(table.llama).model(spec)?),
        })
    }

    /// The sizes and settings of a language model; none for others.
    pub fn language(&self) -> Option<LanguageConfig> {
        match self {
            ModelConfig::Name(name) => LanguageConfig::by_name(name),
            ModelConfig::Gpt(table) => Some(table.gpt.into()),
            ModelConfig::Llama(table) => Some(table.llama.into()),
            ModelConfig::Layers(_) => None,
        }
    }
}

/// What is made for images or rows of a table does not take text.
fn expect_no_tokens(model: &str, spec: &SampleSpec) -> Result<()> {
    match spec.target {
        TargetSpec::Tokens { .. } => {
            Err(Error::graph(model, "takes numbers, found samples of tokens")
                .hint("--model gpt-nano, gpt-mini, gpt2, llama-nano or llama-mini"))
        }
        _ => Ok(()),
    }
}

/// By hand, because serde's untagged enums hide what is wrong inside a layer.
impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            layers: Option<Vec<Layer>>,
            gpt: Option<GptConfig>,
            llama: Option<LlamaConfig>,
        }

        struct NameOrLayers;

        impl<'de> Visitor<'de> for NameOrLayers {
            type Value = ModelConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model's name, a list of layers, or the sizes of a gpt or llama")
            }

            fn visit_str<E>(self, name: &str) -> Result<ModelConfig, E> {
                Ok(ModelConfig::Name(name.to_string()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelConfig, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                match (table.layers, table.gpt, table.llama) {
                    (Some(layers), None, None) => Ok(ModelConfig::Layers(LayerList { layers })),
                    (None, Some(gpt), None) => Ok(gpt.into()),
                    (None, None, Some(llama)) => Ok(llama.into()),
                    _ => Err(A::Error::custom("expected either `layers`, `gpt` or `llama`")),
                }
            }
        }

        deserializer.deserialize_any(NameOrLayers)
    }
}

impl From<&str> for ModelConfig {
    fn from(name: &str) -> Self {
        ModelConfig::Name(name.to_string())
    }
}

impl From<GptConfig> for ModelConfig {
    fn from(gpt: GptConfig) -> Self {
        ModelConfig::Gpt(GptTable { gpt })
    }
}

impl From<LlamaConfig> for ModelConfig {
    fn from(llama: LlamaConfig) -> Self {
        ModelConfig::Llama(LlamaTable { llama })
    }
}

impl From<LanguageConfig> for ModelConfig {
    fn from(config: LanguageConfig) -> Self {
        match config {
            LanguageConfig::Gpt(gpt) => gpt.into(),
            LanguageConfig::Llama(llama) => llama.into(),
        }
    }
}

impl From<Vec<Layer>> for ModelConfig {
    fn from(layers: Vec<Layer>) -> Self {
        ModelConfig::Layers(LayerList { layers })
    }
}

/// A model by name for samples of `spec`.
///
/// `mlp`: flatten · linear 512 · relu · linear 512 · relu · linear, its modules `net.0`, `net.2` and
/// `net.4`. `cnn`: two of conv 3×3 (16, then 32 channels) · relu · max-pool 2, then flatten · linear
/// 128 · relu · linear, its modules `net.0`, `net.3`, `net.7` and `net.9`.
///
/// `resnet18`, `resnet34` and `resnet50`: see [`ResNet`]. `vit-tiny`: see [`VisionTransformer`]. `gpt-nano`, `gpt-mini`
/// and `gpt2`: see [`Gpt`](super::gpt::Gpt). `llama-nano` and `llama-mini`: see [`Llama`](super::llama::Llama).
///
/// # Errors
/// For a name that is not one of [`NAMES`], and for data that the model does not fit.
pub fn by_name(name: &str, spec: &SampleSpec) -> Result<Arc<dyn Module>> {
    if let Some(config) = LanguageConfig::by_name(name) {
        return config.model(spec).map(shared).map_err(|error| error.within(name));
    }
    if NAMES.contains(&name) {
        expect_no_tokens(name, spec)?;
    }
    let layers = |layers| Sequential::new(layers, spec).map(shared);
    let resnet = |depth| ResNet::new(depth, spec).map(shared);
    let model = match name {
        "mlp" => layers(mlp()),
        "cnn" => {
            expect_images(spec)?;
            layers(cnn())
        }
        "resnet18" => resnet(Depth::ResNet18),
        "resnet34" => resnet(Depth::ResNet34),
        "resnet50" => resnet(Depth::ResNet50),
        "vit-tiny" => VisionTransformer::new(Size::TINY, spec).map(shared),
        _ => {
            let known = NAMES.join(", ");
            return Err(Error::config("model", format!("found {name:?}, expected one of {known}"))
                .hint("a list of layers, [[model.layers]], for a model of your own"));
        }
    };
    model.map_err(|error| error.within(name))
}

fn shared(model: impl Module + 'static) -> Arc<dyn Module> {
    Arc::new(model)
}

/// The flatten has no number in DESIGN's names: it belongs to how the input is read.
fn mlp() -> Vec<Layer> {
    vec![
        Layer::flatten().named("flatten"),
        Layer::linear(512).named("net.0"),
        Layer::relu().named("net.1"),
        Layer::linear(512).named("net.2"),
        Layer::relu().named("net.3"),
        Layer::classes().named("net.4"),
    ]
}

fn cnn() -> Vec<Layer> {
    vec![
        Layer::conv2d(16, 3, 1),
        Layer::relu(),
        Layer::max_pool2d(2),
        Layer::conv2d(32, 3, 1),
        Layer::relu(),
        Layer::max_pool2d(2),
        Layer::flatten(),
        Layer::linear(128),
        Layer::relu(),
        Layer::classes(),
    ]
}

/// Two max-pools by 2 need four pixels a side.
fn expect_images(spec: &SampleSpec) -> Result<()> {
    match *spec.input_shape.as_slice() {
        [_, height, width] if height >= 4 && width >= 4 => Ok(()),
        _ => {
            let message = format!(
                "takes images [channels, height, width] of at least 4 × 4 pixels, found samples of shape {:?}",
                spec.input_shape
            );
            Err(Error::graph("cnn", message).hint("--model mlp"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::DType;
    use crate::graph::{Graph, Role};
    use crate::nn::Mode;
    use crate::nn::sequential::sample_input;

    fn spec(input_shape: &[usize]) -> SampleSpec {
        SampleSpec {
            input_shape: input_shape.to_vec(),
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        }
    }

    fn variables(model: &dyn Module, spec: &SampleSpec, mode: Mode) -> Vec<(String, Vec<usize>)> {
        let mut graph = Graph::new();
        let x = sample_input(&mut graph, spec, 3);
        let y = model.build(&mut graph, x, mode).expect("the model fits");
        assert_eq!(graph.shape(y), [3, 10]);
        let kept = |role: &Role| matches!(role, Role::Param(_) | Role::State(_));
        let kept = graph.tensors.into_iter().filter(|tensor| kept(&tensor.role));
        kept.map(|tensor| (tensor.name, tensor.shape)).collect()
    }

    #[test]
    fn named_models_have_pytorchs_names_and_shapes() {
        let spec = spec(&[1, 28, 28]);
        let mlp = by_name("mlp", &spec).expect("mlp fits");
        let expected = [
            ("net.0.weight", vec![512, 784]),
            ("net.0.bias", vec![512]),
            ("net.2.weight", vec![512, 512]),
            ("net.2.bias", vec![512]),
            ("net.4.weight", vec![10, 512]),
            ("net.4.bias", vec![10]),
        ];
        assert_eq!(variables(&mlp, &spec, Mode::Train), expected.map(|(n, s)| (n.into(), s)));
        let cnn = by_name("cnn", &spec).expect("cnn fits");
        let expected = [
            ("net.0.weight", vec![16, 1, 3, 3]),
            ("net.0.bias", vec![16]),
            ("net.3.weight", vec![32, 16, 3, 3]),
            ("net.3.bias", vec![32]),
            ("net.7.weight", vec![128, 1568]),
            ("net.7.bias", vec![128]),
            ("net.9.weight", vec![10, 128]),
            ("net.9.bias", vec![10]),
        ];
        assert_eq!(variables(&cnn, &spec, Mode::Eval), expected.map(|(n, s)| (n.into(), s)));
    }

    #[test]
    fn what_does_not_fit_is_one_clear_line() {
        let message = |name: &str, shape: &[usize]| {
            by_name(name, &spec(shape)).err().expect("must not fit").to_string()
        };
        assert_eq!(
            message("cnn", &[784]),
            "graph: cnn: takes images [channels, height, width] of at least 4 × 4 pixels, found samples of \
             shape [784]; try --model mlp"
        );
        assert!(message("cnn", &[1, 2, 2]).contains("found samples of shape [1, 2, 2]"));
        assert!(message("vgg", &[1, 28, 28]).contains("found \"vgg\", expected one of mlp, cnn"));
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Config {
        model: ModelConfig,
    }

    #[test]
    fn a_config_names_a_model_or_lists_layers() {
        let named: Config = toml::from_str("model = \"cnn\"").expect("a name");
        assert_eq!(named.model, "cnn".into());
        let text = r#"
            [[model.layers]]
            type = "conv2d"
            out = 4
            kernel = [3, 5]
            [[model.layers]]
            type = "batch_norm"
            name = "norm"
            [[model.layers]]
            type = "max_pool2d"
            kernel = 2
            [[model.layers]]
            type = "flatten"
            [[model.layers]]
            type = "dropout"
            [[model.layers]]
            type = "linear"
            out = "classes"
        "#;
        let listed: Config = toml::from_str(text).expect("a list of layers");
        let again = toml::to_string(&listed).expect("writes");
        assert_eq!(toml::from_str::<Config>(&again).expect("reads back"), listed);
        let spec = spec(&[3, 8, 8]);
        let model = listed.model.build(&spec).expect("fits");
        let train = variables(&model, &spec, Mode::Train);
        let names: Vec<&str> = train.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "net.0.weight",
                "net.0.bias",
                "norm.weight",
                "norm.bias",
                "norm.running_mean",
                "norm.running_var",
                "net.5.weight",
                "net.5.bias"
            ]
        );
        assert_eq!(train, variables(&model, &spec, Mode::Eval));
    }

    #[test]
    fn a_config_gives_the_sizes_of_a_gpt() {
        let text = "[model.gpt]\nlayers = 2\nheads = 3\nwidth = 12\ndropout = 0.1";
        let found: Config = toml::from_str(text).expect("sizes");
        let gpt = GptConfig { dropout: 0.1, ..GptConfig::of(2, 3, 12) };
        assert_eq!(found.model, gpt.into());
        let again = toml::to_string(&found).expect("writes");
        assert_eq!(toml::from_str::<Config>(&again).expect("reads back"), found);
        let error = toml::from_str::<Config>("[model]").expect_err("neither").to_string();
        assert!(error.contains("either `layers`, `gpt` or `llama`"), "{error}");
        let text = "[model.llama]\nlayers = 2\nheads = 4\nwidth = 16\nkv_heads = 2\ntied = true";
        let llama: Config = toml::from_str(text).expect("sizes");
        let expected = LlamaConfig { tied: true, ..LlamaConfig::of(2, 4, 2, 16) };
        assert_eq!(llama.model, expected.into());
        let again = toml::to_string(&llama).expect("writes");
        assert_eq!(toml::from_str::<Config>(&again).expect("reads back"), llama);
        let both = format!("{text}\n[model.gpt]\nlayers = 1\nheads = 1\nwidth = 2");
        assert!(toml::from_str::<Config>(&both).is_err());
        let images = spec(&[1, 28, 28]);
        let message = found.model.build(&images).err().expect("images").to_string();
        assert!(message.contains("takes tokens, found samples of shape [1, 28, 28]"), "{message}");
    }

    #[test]
    fn a_slip_in_a_layer_is_named() {
        let message = |layer: &str| {
            let text = format!("[[model.layers]]\n{layer}");
            toml::from_str::<Config>(&text).expect_err("must be refused").to_string()
        };
        assert!(message("type = \"conv2d\"\nout = 4\nkernel = 3\nstrid = 2").contains("`strid`"));
        assert!(message("type = \"conv3d\"").contains("unknown variant `conv3d`"));
        assert!(message("type = \"linear\"\nout = \"clases\"").contains("\"classes\""));
    }
}
