//! Texts that are continued together: each may join and leave between any two steps (Yu et al., "Orca", 2022).

use bytemuck::{bytes_of, cast_slice};

use super::program::Layout;
use super::{Alternative, Finish, Generator, Sampling, Token};
use crate::batch::{Slot, SlotLayout};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::graph::choice::{CHOICE_LEN, CHOSEN_LEN, TokenChoice};
use crate::graph::plan::Pass;

/// Texts under way on a device, see [`Generator::texts`]. What becomes of a text does not depend on those beside it, beyond
/// rounding.
pub struct Texts<'a> {
    generator: &'a mut Generator,
    /// The text in the place of each sequence.
    places: Vec<Option<Text>>,
    /// Texts that have joined so far.
    joined: u64,
}

/// A text under way.
struct Text {
    name: usize,
    /// How many had joined before it.
    order: u64,
    /// What its draws are keyed by, besides the seed.
    key: u64,
    sampling: Sampling,
    /// The tokens that the model sees: the prompt and what was made of it, or the later part.
    window: Vec<u32>,
    /// How many of them are in the cache.
    fed: usize,
    /// Tokens made so far.
    made: usize,
}

impl Text {
    /// Tokens that are not in the cache yet.
    fn pending(&self) -> usize {
        self.window.len() - self.fed
    }

    /// A bit for each token that it has.
    fn seen(&self, words: usize) -> Vec<u32> {
        let mut seen = vec![0; words];
        for &token in &self.window {
            seen[token as usize / 32] |= 1 << (token % 32);
        }
        seen
    }

    /// Adds a token; a full window goes on with its later half. Returns why it is the last one, if it is.
    fn push(&mut self, token: u32, positions: usize) -> Option<Finish> {
        if self.window.len() == positions {
            self.window.drain(..positions - positions / 2);
            self.fed = 0;
        }
        self.window.push(token);
        self.made += 1;
        match () {
            () if self.sampling.end == Some(token) => Some(Finish::Stop),
            () if self.made >= self.sampling.tokens => Some(Finish::Length),
            () => None,
        }
    }
}

impl<'a> Texts<'a> {
    pub(super) fn new(generator: &'a mut Generator) -> Self {
        let places = (0..generator.layout.sequences).map(|_| None).collect();
        Self { generator, places, joined: 0 }
    }

    /// Texts under way.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no other text fits.
    pub fn is_full(&self) -> bool {
        self.places.iter().all(Option::is_some)
    }

    /// The generator that they are made by.
    pub fn generator(&self) -> &Generator {
        self.generator
    }

    /// Continues `prompt` from the next step on; its tokens bear its name, which no other text under way may have. What is
    /// drawn depends on the seed, the key and how many tokens were made before.
    ///
    /// # Errors
    /// As [`Generator::generate`], and where all places are taken.
    pub fn join(
        &mut self,
        name: usize,
        key: u64,
        prompt: Vec<u32>,
        sampling: Sampling,
    ) -> Result<()> {
        sampling.validate()?;
        self.generator.check(&prompt)?;
        let places = self.places.len();
        let Some(place) = self.places.iter_mut().find(|place| place.is_none()) else {
            let message = format!("found no place for another text beside {places}");
            return Err(Error::config("--sequences", message));
        };
        let order = self.joined;
        *place = Some(Text { name, order, key, sampling, window: prompt, fed: 0, made: 0 });
        self.joined += 1;
        Ok(())
    }

    /// Makes no more tokens of a text, if it is still under way; its place is free at once.
    pub fn leave(&mut self, name: usize) {
        for place in &mut self.places {
            if place.as_ref().is_some_and(|text| text.name == name) {
                *place = None;
            }
        }
    }

    /// One pass over the device: every text whose prompt is in the cache gets a token, and as much of the other prompts
    /// goes into the cache as fits beside them. A text that ends leaves.
    ///
    /// # Errors
    /// When the device is lost, or the model is not finite.
    pub fn step(&mut self) -> Result<Vec<Token>> {
        let rows = self.rows();
        if rows.ids.is_empty() {
            return Ok(Vec::new());
        }
        let layout = self.generator.layout;
        let size = layout.size(rows.ids.len());
        let places = &self.places;
        let chosen = self.generator.run(Pass::Decode(size), |slot, at| {
            rows.write(&layout, size, slot, at);
            let choice_at = |i| at.target_offset + layout.choice(i).start;
            // What stood there before could count a token for the text that is now in its place.
            for i in rows.ends.len()..layout.texts(size) {
                slot.write_at(choice_at(i), bytes_of(&TokenChoice::default()));
            }
            for (i, &(place, _)) in rows.ends.iter().enumerate() {
                let Some(text) = &places[place] else { continue };
                let at = choice_at(i);
                slot.write_at(at, bytes_of(&text.sampling.choice(text.key, text.made, place)));
                if text.sampling.repetition_penalty != 1.0 {
                    let seen = text.seen(layout.choice_len - CHOICE_LEN);
                    slot.write_at(at + size_of::<TokenChoice>(), cast_slice(&seen));
                }
            }
        })?;
        self.take(&rows, &chosen)
    }

    /// What the next pass is over. First the texts under way, then prompts in the order in which they joined.
    fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        let mut prompts = Vec::new();
        for (place, text) in self.places.iter().enumerate() {
            match text {
                Some(text) if text.pending() == 1 => rows.add(place, text, 1),
                Some(text) => prompts.push((text.order, place, text)),
                None => {}
            }
        }
        prompts.sort_unstable_by_key(|&(order, ..)| order);
        for (_, place, text) in prompts {
            let room = self.generator.layout.rows - rows.ids.len();
            rows.add(place, text, text.pending().min(room));
        }
        rows
    }

    /// Gives each text what was chosen for it.
    fn take(&mut self, rows: &Rows, chosen: &[f32]) -> Result<Vec<Token>> {
        for &(place, count) in &rows.fed {
            if let Some(text) = &mut self.places[place] {
                text.fed += count;
            }
        }
        let positions = self.generator.model.positions();
        let mut tokens = Vec::with_capacity(rows.ends.len());
        for (&(place, _), chosen) in rows.ends.iter().zip(chosen.chunks_exact(CHOSEN_LEN)) {
            let Some(text) = &mut self.places[place] else { continue };
            if chosen[0].is_nan() || chosen[0] < 0.0 {
                let message = "found logits that are not finite";
                return Err(Error::new(Stage::Compute, ErrorKind::Diverged, "model", message)
                    .hint("weights of a training that did not diverge"));
            }
            let (first, others) = chosen.split_at(2);
            let Alternative { id, log_probability } = alternative(first);
            let others = others.chunks_exact(2).take(text.sampling.alternatives);
            // A small vocabulary has fewer than may be asked for.
            let alternatives = others.filter(|told| told[0] >= 0.0).map(alternative).collect();
            let prompt = text.name;
            let finish = text.push(id, positions);
            tokens.push(Token { prompt, id, log_probability, alternatives, finish });
            if finish.is_some() {
                self.places[place] = None;
            }
        }
        Ok(tokens)
    }
}

/// A token and the logarithm of its probability, as a device tells them.
fn alternative(told: &[f32]) -> Alternative {
    Alternative { id: told[0] as u32, log_probability: f64::from(told[1]) }
}

/// The rows of a step.
#[derive(Default)]
struct Rows {
    ids: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<u32>,
    /// How many rows each place has.
    fed: Vec<(usize, usize)>,
    /// The places whose text gets a token, with the row of its last one.
    ends: Vec<(usize, u32)>,
}

impl Rows {
    /// The next `count` tokens of a text.
    fn add(&mut self, place: usize, text: &Text, count: usize) {
        for at in text.fed..text.fed + count {
            self.ids.push(text.window[at]);
            self.positions.push(at as u32);
            self.sequences.push(place as u32);
        }
        self.fed.push((place, count));
        if count > 0 && count == text.pending() {
            self.ends.push((place, self.ids.len() as u32 - 1));
        }
    }

    /// Writes them for a pass of `size` rows, of which the last ones may be padding.
    fn write(&self, layout: &Layout, size: usize, slot: &mut Slot, at: &SlotLayout) {
        let padded = |words: &[u32], size: usize, with: u32| {
            let mut words = words.to_vec();
            words.resize(size, with);
            words
        };
        slot.write_at(at.input_offset, cast_slice(&padded(&self.ids, size, 0)));
        let mut places = padded(&self.positions, size, u32::MAX);
        places.extend(padded(&self.sequences, size, 0));
        slot.write_at(at.target_offset, cast_slice(&places));
        let last: Vec<u32> = self.ends.iter().map(|&(_, row)| row).collect();
        let last = padded(&last, layout.texts(size), 0);
        slot.write_at(at.target_offset + layout.last_offset(), cast_slice(&last));
    }
}
