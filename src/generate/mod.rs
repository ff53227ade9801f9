//! Making text with a language model, token by token, for many prompts at once.
//!
//! A [`Generator`] holds a model's weights and the caches of so many sequences on a device. A [`Generation`] is an iterator
//! over tokens as they are made; [`Generator::stream`] is the same as a `Stream`, made on a thread of its own. Prompts
//! beyond the number of sequences wait, and each takes the place of one that has ended. [`Texts`] is what both stand on:
//! texts join and leave between two steps.
//!
//! Where a sequence fills all positions of the model, it goes on with the later half of them as its beginning.

mod model;
mod program;
mod sampling;
mod stream;
mod text;
mod texts;

pub use model::{model_config_json, model_of, model_with};
pub use sampling::Sampling;
pub use stream::TokenStream;
pub use text::TextPieces;
pub use texts::Texts;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{DType, Slot, SlotLayout, StepHeader};
use crate::device;
use crate::error::{Error, Result};
use crate::executor::{DeviceInfo, Executor, Wants};
use crate::graph::plan::{Pass, Program};
use crate::graph::precision::Precision;
use crate::nn::language::LanguageModel;
use crate::train::weights::Weights;
use program::Layout;

/// Sequences at once at most: beyond it caches fill the memory of most devices.
const SEQUENCES_MAX: usize = 4096;

/// How long a device is asked before it is asked again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A token that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The prompt that it belongs to, counted from 0, or the name that a text joined under.
    pub prompt: usize,
    /// The token.
    pub id: u32,
    /// The logarithm of its probability to the model, whatever the settings of the choice.
    pub log_probability: f64,
    /// The most probable tokens to the model, in their order, as many as [`Sampling::alternatives`] asks for: with the token
    /// itself, if it is one of them.
    pub alternatives: Vec<Alternative>,
    /// Why it is the last of its prompt, if it is.
    pub finish: Option<Finish>,
}

/// A token that could have been made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alternative {
    /// The token.
    pub id: u32,
    /// The logarithm of its probability to the model, whatever the settings of the choice.
    pub log_probability: f64,
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// As many tokens as were asked for.
    Length,
    /// The token that ends a text, or a string that was to stop it.
    Stop,
}

/// A language model on a device, ready to make text.
pub struct Generator {
    executor: Box<dyn Executor>,
    program: Arc<Program>,
    model: LanguageModel,
    layout: Layout,
    slot: Option<Slot>,
}

impl Generator {
    /// Brings `weights` onto a device, with room for so many `sequences` at once.
    ///
    /// # Errors
    /// When the weights are not those of the model, or the device is not there or too small.
    pub fn new(
        model: impl Into<LanguageModel>,
        weights: &Weights,
        device: &str,
        sequences: usize,
    ) -> Result<Self> {
        Self::with_cache(model, weights, device, sequences, Precision::F32)
    }

    /// As [`Generator::new`], with keys and values kept in this precision. In 16 bits they take half the memory, and half of
    /// it has to be read for each token, but on the twins, which hold them rounded.
    ///
    /// # Errors
    /// As [`Generator::new`], and when the shaders of the device have no 16-bit floats.
    pub fn with_cache(
        model: impl Into<LanguageModel>,
        weights: &Weights,
        device: &str,
        sequences: usize,
        cache: Precision,
    ) -> Result<Self> {
        let model = model.into();
        if !(1..=SEQUENCES_MAX).contains(&sequences) {
            let message = format!("found {sequences}, expected 1 to {SEQUENCES_MAX}");
            return Err(Error::config("--sequences", message));
        }
        let cache = match cache {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
        };
        let layout = Layout { cache, ..Layout::new(&model, sequences) };
        let program = Arc::new(layout.program(&model)?);
        // Held against the model before anything is allocated.
        let placed = weights.place(&program)?;
        let mut executor = device::open(device, program.clone(), 1)?;
        for (arena, variable, values) in placed {
            executor.load(arena, variable.offset, &values)?;
        }
        let slot = executor.take_slots()?.pop();
        Ok(Self { executor, program, model, layout, slot })
    }

    /// What it runs on.
    pub fn device(&self) -> DeviceInfo {
        self.executor.device()
    }

    /// The model.
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// Sequences that are made at once.
    pub fn sequences(&self) -> usize {
        self.layout.sequences
    }

    /// Continues all `prompts`.
    ///
    /// # Errors
    /// When a setting is out of range, or a prompt is empty, longer than the model has positions, or has a token that
    /// the model does not know.
    pub fn generate(
        &mut self,
        prompts: Vec<Vec<u32>>,
        sampling: Sampling,
    ) -> Result<Generation<'_>> {
        sampling.validate()?;
        for (i, prompt) in prompts.iter().enumerate() {
            self.check(prompt).map_err(|error| error.within(format!("prompt {}", i + 1)))?;
        }
        let waiting = prompts.into_iter().enumerate().collect();
        Ok(Generation {
            texts: Texts::new(self),
            sampling,
            waiting,
            made: VecDeque::new(),
            failed: false,
        })
    }

    /// Continues texts that join and leave between any two steps.
    pub fn texts(&mut self) -> Texts<'_> {
        Texts::new(self)
    }

    fn check(&self, prompt: &[u32]) -> Result<()> {
        check_prompt(prompt, self.model.positions(), self.model.vocabulary())
    }

    /// Runs a pass over what `fill` writes into a slot, and returns the tokens and their probabilities.
    fn run(&mut self, pass: Pass, fill: impl FnOnce(&mut Slot, &SlotLayout)) -> Result<Vec<f32>> {
        let gone = || Error::device("generator", "its only slot did not come back");
        let mut slot = self.slot.take().ok_or_else(gone)?;
        slot.write_header(&StepHeader { count: 1, ..StepHeader::default() });
        fill(&mut slot, &self.program.slot);
        self.executor.submit(pass, slot, Wants { output: true, ..Wants::default() })?;
        loop {
            if let Some(done) = self.executor.collect(PATIENCE)? {
                self.slot = Some(done.slot);
                return done.output.ok_or_else(gone);
            }
        }
    }
}

/// Whether a model of so many positions and tokens can continue a prompt.
///
/// # Errors
/// When it is empty, longer than the model has positions, or has a token that the model does not know.
pub fn check_prompt(prompt: &[u32], positions: usize, vocabulary: usize) -> Result<()> {
    if prompt.is_empty() {
        let message = "found no tokens, expected at least one";
        return Err(Error::config("--prompt", message).hint("a prompt of a line break"));
    }
    if prompt.len() > positions {
        let message = format!(
            "found {} tokens, expected at most the {positions} that the model sees at once",
            prompt.len()
        );
        return Err(Error::config("--prompt", message).hint("a shorter prompt"));
    }
    match prompt.iter().find(|&&token| token as usize >= vocabulary) {
        Some(token) => {
            let message = format!("found token {token}, expected tokens below {vocabulary}");
            Err(Error::config("--prompt", message)
                .hint("--tokenizer, the one that the model was trained with"))
        }
        None => Ok(()),
    }
}

/// Tokens of all prompts as they are made, see [`Generator::generate`]. It ends when every prompt has ended, or after an
/// error.
pub struct Generation<'a> {
    texts: Texts<'a>,
    sampling: Sampling,
    waiting: VecDeque<(usize, Vec<u32>)>,
    /// Made and not yet handed out.
    made: VecDeque<Token>,
    failed: bool,
}

impl Generation<'_> {
    /// Makes no more tokens of this prompt; its place is free from the next step on.
    pub fn finish(&mut self, prompt: usize) {
        self.made.retain(|token| token.prompt != prompt);
        self.waiting.retain(|(waiting, _)| *waiting != prompt);
        self.texts.leave(prompt);
    }

    fn step(&mut self) -> Result<()> {
        while !self.texts.is_full()
            && let Some((prompt, tokens)) = self.waiting.pop_front()
        {
            self.texts.join(prompt, prompt as u64, tokens, self.sampling)?;
        }
        self.made.extend(self.texts.step()?);
        Ok(())
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(token) = self.made.pop_front() {
                return Some(Ok(token));
            }
            if self.failed || (self.waiting.is_empty() && self.texts.is_empty()) {
                return None;
            }
            if let Err(error) = self.step() {
                self.failed = true;
                return Some(Err(error));
            }
        }
    }
}
