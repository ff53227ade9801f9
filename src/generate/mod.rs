//! Making text with a language model, token by token, for many prompts at once.
//!
//! A [`Generator`] holds a model's weights and the caches of so many sequences on a device. A [`Generation`] is an iterator
//! over tokens as they are made; [`Generator::stream`] is the same as a `Stream`, made on a thread of its own. Prompts
//! beyond the number of sequences wait, and each takes the place of one that has ended.
//!
//! Where a sequence fills all positions of the model, it goes on with the later half of them as its beginning.

mod model;
mod program;
mod sampling;
mod stream;
mod text;

pub use model::{model_of, model_with};
pub use sampling::Sampling;
pub use stream::TokenStream;
pub use text::TextPieces;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Slot, StepHeader};
use crate::device;
use crate::error::{Error, Result};
use crate::executor::{DeviceInfo, Executor, Wants};
use crate::graph::plan::{Pass, Program};
use crate::nn::language::LanguageModel;
use crate::train::weights::Weights;
use program::Layout;

/// Tokens of a stretch at most: enough for products to pay, few enough for short prompts not to wait for padding.
const STRETCH: usize = 64;

/// Sequences at once at most: beyond it caches fill the memory of most devices.
const SEQUENCES_MAX: usize = 4096;

/// How long a device is asked before it is asked again.
const PATIENCE: Duration = Duration::from_millis(100);

/// A token that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// The prompt that it belongs to, counted from 0.
    pub prompt: usize,
    /// The token.
    pub id: u32,
    /// The logarithm of its probability to the model, whatever the settings of the choice.
    pub log_probability: f64,
    /// Why it is the last of its prompt, if it is.
    pub finish: Option<Finish>,
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
        let model = model.into();
        if !(1..=SEQUENCES_MAX).contains(&sequences) {
            let message = format!("found {sequences}, expected 1 to {SEQUENCES_MAX}");
            return Err(Error::config("--sequences", message));
        }
        let layout = Layout { sequences, stretch: STRETCH.min(model.positions()) };
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
        let lanes = (0..self.layout.sequences).map(|_| None).collect();
        let waiting = prompts.into_iter().enumerate().collect();
        Ok(Generation {
            generator: self,
            sampling,
            waiting,
            lanes,
            made: VecDeque::new(),
            failed: false,
        })
    }

    fn check(&self, prompt: &[u32]) -> Result<()> {
        let (positions, vocabulary) = (self.model.positions(), self.model.vocabulary());
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

    /// Runs a pass over what `fill` writes, and returns the logits of all sequences.
    fn run(&mut self, pass: Pass, [ids, positions, last]: [&[u32]; 3]) -> Result<Vec<f32>> {
        let gone = || Error::device("generator", "its only slot did not come back");
        let mut slot = self.slot.take().ok_or_else(gone)?;
        let layout = &self.program.slot;
        slot.write_header(&StepHeader {
            count: self.layout.sequences as u32,
            ..StepHeader::default()
        });
        slot.write_at(layout.input_offset, bytemuck::cast_slice(ids));
        slot.write_at(layout.target_offset, bytemuck::cast_slice(positions));
        let last_at = layout.target_offset + self.layout.last_offset();
        slot.write_at(last_at, bytemuck::cast_slice(last));
        self.executor.submit(pass, slot, Wants { output: true, ..Wants::default() })?;
        loop {
            if let Some(done) = self.executor.collect(PATIENCE)? {
                self.slot = Some(done.slot);
                return done.output.ok_or_else(gone);
            }
        }
    }
}

/// A sequence under way.
struct Sequence {
    prompt: usize,
    /// The tokens that the model sees: the prompt and what was made of it, or the later part.
    window: Vec<u32>,
    /// How many of them are in the cache.
    fed: usize,
    /// Tokens made so far.
    made: usize,
}

impl Sequence {
    /// Tokens that are not in the cache yet.
    fn pending(&self) -> usize {
        self.window.len() - self.fed
    }

    /// Adds a token; a full window goes on with its later half.
    fn push(&mut self, token: u32, positions: usize) {
        if self.window.len() == positions {
            self.window.drain(..positions - positions / 2);
            self.fed = 0;
        }
        self.window.push(token);
        self.made += 1;
    }
}

/// Tokens of all prompts as they are made, see [`Generator::generate`]. It ends when every prompt has ended, or after an
/// error.
pub struct Generation<'a> {
    generator: &'a mut Generator,
    sampling: Sampling,
    waiting: VecDeque<(usize, Vec<u32>)>,
    lanes: Vec<Option<Sequence>>,
    /// Made and not yet handed out.
    made: VecDeque<Token>,
    failed: bool,
}

impl Generation<'_> {
    /// Makes no more tokens of this prompt; its place is free from the next step on.
    pub fn finish(&mut self, prompt: usize) {
        self.made.retain(|token| token.prompt != prompt);
        self.waiting.retain(|(waiting, _)| *waiting != prompt);
        for lane in &mut self.lanes {
            if lane.as_ref().is_some_and(|sequence| sequence.prompt == prompt) {
                *lane = None;
            }
        }
    }

    /// Whether anything is left to be made.
    fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.lanes.iter().all(Option::is_none)
    }

    /// One pass: a stretch where any sequence has several tokens to take in, else a token of each.
    fn pass(&mut self) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_none()) {
            let waiting = self.waiting.pop_front();
            *lane = waiting.map(|(prompt, window)| Sequence { prompt, window, fed: 0, made: 0 });
        }
        let several = self.lanes.iter().flatten().any(|sequence| sequence.pending() > 1);
        let (pass, stretch) = match several {
            true => (Pass::Eval, self.generator.layout.stretch),
            false => (Pass::Decode, 1),
        };
        let tokens = self.lanes.len() * stretch;
        let (mut ids, mut positions) = (vec![0; tokens], vec![u32::MAX; tokens]);
        let mut last = vec![0; self.lanes.len()];
        for (lane, sequence) in self.lanes.iter_mut().enumerate() {
            let Some(sequence) = sequence else { continue };
            let count = sequence.pending().min(stretch);
            for i in 0..count {
                ids[lane * stretch + i] = sequence.window[sequence.fed + i];
                positions[lane * stretch + i] = (sequence.fed + i) as u32;
            }
            last[lane] = (lane * stretch + count - 1) as u32;
            sequence.fed += count;
        }
        let logits = self.generator.run(pass, [&ids, &positions, &last])?;
        let vocabulary = self.generator.model.vocabulary();
        for (lane, logits) in self.lanes.iter_mut().zip(logits.chunks_exact(vocabulary)) {
            let Some(sequence) = lane.as_mut().filter(|sequence| sequence.pending() == 0) else {
                continue;
            };
            let key = [sequence.prompt as u64, sequence.made as u64];
            let (id, log_probability) = self.sampling.choose(logits, &sequence.window, key)?;
            sequence.push(id, self.generator.model.positions());
            let finish = match () {
                () if self.sampling.end == Some(id) => Some(Finish::Stop),
                () if sequence.made >= self.sampling.tokens => Some(Finish::Length),
                () => None,
            };
            let prompt = sequence.prompt;
            self.made.push_back(Token { prompt, id, log_probability, finish });
            if finish.is_some() {
                *lane = None;
            }
        }
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
            if self.failed || self.is_over() {
                return None;
            }
            if let Err(error) = self.pass() {
                self.failed = true;
                return Some(Err(error));
            }
        }
    }
}
