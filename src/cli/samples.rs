//! Samples of text while a language model is trained: what its newest checkpoint makes of a prompt.

use inflight::config::RunConfig;
use inflight::generate::{Generator, Sampling, TextPieces, check_prompt};
use inflight::nn::language::LanguageModel;
use inflight::source::Source;
use inflight::tokenizer::Tokenizer;
use inflight::train::checkpoint::Cadence;
use inflight::train::event::CheckpointReport;
use inflight::{Error, Result};
use serde::Serialize;

use super::print;
use super::runs::Trained;

/// Which samples of text a training shows.
#[derive(Clone, Debug, clap::Args)]
pub struct SampleFlags {
    /// Show what the model makes of this text whenever a checkpoint is saved
    #[arg(long, value_name = "TEXT")]
    sample_prompt: Option<String>,
    /// Save a checkpoint and show a sample every so many steps [default: as --checkpoint-every]
    #[arg(long, value_name = "STEPS")]
    sample_every: Option<u64>,
    /// Tokens of a sample
    #[arg(long, value_name = "N", default_value_t = 100)]
    sample_tokens: usize,
}

/// What a sample begins with if nobody says.
const PROMPT: &str = "\n";

impl SampleFlags {
    /// What makes samples, where any are asked for; their steps become those of checkpoints.
    pub fn samples(&self, config: &mut RunConfig, train: &dyn Source) -> Result<Option<Samples>> {
        if self.sample_prompt.is_none() && self.sample_every.is_none() {
            return Ok(None);
        }
        let language = config.model.language().ok_or_else(|| {
            Error::config("--sample-prompt", "found it with a model that makes no text")
                .hint("--model gpt-nano")
        })?;
        if let Some(every) = self.sample_every {
            config.checkpoint_every = Cadence::steps(every);
        }
        let name = train.info().tokenizer.clone().unwrap_or_else(|| "bytes".into());
        let prompt = self.sample_prompt.clone().unwrap_or_else(|| PROMPT.into());
        let model = language.model(train.spec())?;
        let tokenizer = Tokenizer::open(&name)?;
        let wrong = |flag: &str, e: &Error| Error::config(flag, e.message());
        check_prompt(&tokenizer.encode(&prompt)?, model.positions(), model.vocabulary())
            .map_err(|e| wrong("--sample-prompt", &e))?;
        let sampling = Sampling { tokens: self.sample_tokens, ..Sampling::default() };
        sampling.validate().map_err(|e| wrong("--sample-tokens", &e))?;
        let (device, tokens) = (config.device.clone(), self.sample_tokens);
        Ok(Some(Samples { prompt, tokens, tokenizer, model, device, seed: config.seed }))
    }
}

/// Makes samples.
pub struct Samples {
    prompt: String,
    tokens: usize,
    tokenizer: Tokenizer,
    model: LanguageModel,
    device: String,
    seed: u64,
}

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    step: u64,
    prompt: &'a str,
    text: &'a str,
}

impl Samples {
    /// What the model of a checkpoint makes of the prompt: a line of JSON on stdout, or a line for people. The training goes
    /// on where nothing comes of it.
    pub fn after(&self, saved: &CheckpointReport, json: bool) -> Option<String> {
        let step = print::count(saved.step);
        match self.text(saved) {
            Ok(text) if json => {
                let (step, prompt, text) = (saved.step, self.prompt.as_str(), text.as_str());
                print::json(&Event { event: "sample", step, prompt, text })
                    .err()
                    .map(|e| e.to_string())
            }
            Ok(text) => Some(format!("sample after step {step}: {}{text}", self.prompt)),
            // Only the newest checkpoints stay, and steps may be quicker than samples.
            Err(_) if !saved.path.exists() => {
                let what = "its checkpoint had to make room for newer ones";
                Some(format!("no sample after step {step}: {what}"))
            }
            Err(error) => Some(format!("no sample after step {step}: {error}")),
        }
    }

    fn text(&self, saved: &CheckpointReport) -> Result<String> {
        let trained = Trained::open(&saved.path)?;
        let mut generator = Generator::new(self.model, &trained.weights, &self.device, 1)?;
        let prompt = self.tokenizer.encode(&self.prompt)?;
        let end = self.tokenizer.end();
        let sampling =
            Sampling { tokens: self.tokens, seed: self.seed, end, ..Sampling::default() };
        let (mut pieces, mut text) = (TextPieces::default(), String::new());
        for token in generator.generate(vec![prompt], sampling)? {
            text.push_str(&pieces.take_token(&token?, &self.tokenizer).0);
        }
        Ok(text)
    }
}
