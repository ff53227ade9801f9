//! Which language model a command works with, and its tokenizer.

use std::path::PathBuf;
use std::str::FromStr;

use inflight::generate::{Generator, model_of, model_with};
use inflight::graph::precision::Precision;
use inflight::nn::language::LanguageModel;
use inflight::tokenizer::Tokenizer;
use inflight::{Error, Result};

use super::flags::model_config;
use super::runs::{Run, Trained};

/// The model, and what it runs on.
#[derive(Clone, Debug, clap::Args)]
pub struct LanguageFlags {
    /// The folder of a run (its newest checkpoint), a checkpoint, or a .safetensors file
    #[arg(value_name = "RUN|WEIGHTS")]
    pub path: PathBuf,
    /// bytes, gpt2, or a tokenizer.json or its folder [default: the one of the run]
    #[arg(long, value_name = "T")]
    tokenizer: Option<String>,
    /// The model that the weights are for [default: the one of the run, what config.json beside them says, or a GPT-2 of
    /// the weights' shapes]
    #[arg(long, short, value_name = "M")]
    model: Option<String>,
    /// Tokens that the model sees at once [default: all that it can]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// How keys and values of tokens before are kept: f32, or f16 in half the memory of a GPU
    #[arg(long, value_name = "P", default_value = "f32", value_parser = Precision::from_str)]
    cache: Precision,
    /// auto, cpu, gpu, gpu:K, or a part of an adapter's name (see `inflight devices`)
    #[arg(long, short, value_name = "D", default_value = "auto")]
    device: String,
}

/// The tokenizer that may lie beside weights.
const TOKENIZER_FILE: &str = "tokenizer.json";

impl LanguageFlags {
    /// Opens the weights and what belongs to them.
    ///
    /// # Errors
    /// When one of them is missing or damaged, or they do not fit each other.
    pub fn open(&self) -> Result<Language> {
        let trained = Trained::open(&self.path)?;
        let tokenizer = Tokenizer::open(&self.tokenizer_name(&trained))?;
        let model = self.with_context(self.model_of(&trained)?)?;
        if tokenizer.vocabulary() > model.vocabulary() {
            let message = format!(
                "found a tokenizer of {} tokens, expected at most the {} of the model",
                tokenizer.vocabulary(),
                model.vocabulary()
            );
            return Err(
                Error::config("--tokenizer", message).hint("the one that it was trained with")
            );
        }
        let (device, cache) = (self.device.clone(), self.cache);
        Ok(Language { trained, tokenizer, model, device, cache })
    }

    /// The model with as many positions as are asked for.
    fn with_context(&self, model: LanguageModel) -> Result<LanguageModel> {
        match self.context {
            None => Ok(model),
            Some(context) if (1..=model.positions()).contains(&context) => {
                model.with_positions(context)
            }
            Some(context) => {
                let most = model.positions();
                let message = format!("found {context}, expected 1 to the model's {most}");
                Err(Error::config("--context", message))
            }
        }
    }

    /// The tokenizer that is asked for, or the one of the run, or one beside weights that are of none.
    fn tokenizer_name(&self, trained: &Trained) -> String {
        let of_run = |run: &Run| run.inputs.info.tokenizer.clone();
        self.tokenizer
            .clone()
            .or_else(|| trained.run.as_ref().and_then(of_run))
            .or_else(|| {
                let beside = self.path.with_file_name(TOKENIZER_FILE);
                let is_there = trained.run.is_none() && beside.is_file();
                is_there.then(|| beside.display().to_string())
            })
            .unwrap_or_else(|| "bytes".into())
    }

    fn model_of(&self, trained: &Trained) -> Result<LanguageModel> {
        let asked = self.model.as_deref().map(model_config).transpose()?;
        let config = match (&asked, &trained.run) {
            (Some(config), _) => config,
            (None, Some(run)) => &run.config.model,
            (None, None) => return model_of(&trained.weights),
        };
        let language = config.language().ok_or_else(|| {
            let message = "found a model that makes no text, expected a gpt or llama";
            Error::config(trained.path.display(), message).hint("a run with --model gpt-nano")
        })?;
        match &trained.run {
            Some(run) => language.model(&run.inputs.spec),
            None => model_with(language, &trained.weights),
        }
    }
}

/// A trained language model.
pub struct Language {
    trained: Trained,
    /// What turns text into its tokens.
    pub tokenizer: Tokenizer,
    model: LanguageModel,
    device: String,
    cache: Precision,
}

impl Language {
    /// Brings it onto its device, with room for so many texts at once.
    ///
    /// # Errors
    /// When the device is not there or too small.
    pub fn generator(&self, sequences: usize) -> Result<Generator> {
        let weights = &self.trained.weights;
        Generator::with_cache(self.model, weights, &self.device, sequences, self.cache)
    }
}
