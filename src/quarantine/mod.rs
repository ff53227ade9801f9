//! Samples that cannot be used: what is done about them, within which budget, and the books that are kept.
//!
//! While a batch is filled, [`prepare`](crate::prepare) puts another sample in the place of a bad one, along a sequence
//! that is a pure function of (seed, epoch, sample), and notes what it met ([`Faults`]). Batches are then settled in
//! their order: what is new is entered into the ledger and counted against the budget. What was bad before is tried again
//! each time: it may be mended, or good by another draw of its transforms, and neither threads nor a resume change a batch.

mod budget;
mod ledger;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

pub use budget::{Budget, OnBadSample};
pub use ledger::{Entry, LEDGER_FILE};

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::permutation::Permutation;
use crate::pipeline::{Split, Work};
use crate::prepare::{Keys, guarded};
use crate::source::Source;
use ledger::Ledger;

/// Keeps the choice of stand-ins apart from all other randomness of the same seed.
const STAND_IN: u64 = u64::from_le_bytes(*b"stand in");

/// Bad samples that an error names.
const NAMED: usize = 3;

/// What was met while a batch was filled.
#[derive(Debug, Default)]
pub struct Faults {
    /// Bad samples that were tried, and why they are bad.
    pub bad: Vec<(usize, Error)>,
    /// Samples of the batch that others stand in for.
    pub replaced: usize,
    /// Samples of the batch that are to be left out of it.
    pub left_out: Vec<usize>,
}

impl Faults {
    /// Samples of the batch that are not in it.
    pub fn missing(&self) -> usize {
        self.replaced + self.left_out.len()
    }
}

/// The bad samples of one part of a data set.
pub struct BadSamples {
    on: OnBadSample,
    split: Split,
    /// None where every bad sample is an error.
    source: Option<Arc<dyn Source>>,
    /// Whether another sample must be of the same class.
    within_classes: bool,
    /// How many it may have.
    most: usize,
    met: RwLock<Met>,
}

/// The bad samples met so far.
#[derive(Default)]
struct Met {
    /// By this process: no more than the budget, and those of one batch.
    samples: HashSet<usize>,
    /// These, and those that the ledger had when the run went on.
    entered: HashSet<usize>,
    /// Where the first ones are from.
    origins: Vec<String>,
}

impl BadSamples {
    /// A part where every bad sample is an error.
    pub fn errors() -> Self {
        Self::new(OnBadSample::Error, Budget::default(), Split::Train, None)
    }

    fn new(on: OnBadSample, budget: Budget, split: Split, source: Option<Arc<dyn Source>>) -> Self {
        let most = source.as_ref().map_or(0, |source| {
            // One sample at least must be good.
            budget.samples(source.len()).min(source.len().saturating_sub(1))
        });
        Self { on, split, source, within_classes: false, most, met: RwLock::default() }
    }

    /// Whether a bad sample is less than an error.
    pub fn tolerates(&self) -> bool {
        self.on != OnBadSample::Error
    }

    /// Whether another sample takes the place of a bad one. What is held out must stay what it is: there a bad sample
    /// is left out.
    pub fn replaces(&self) -> bool {
        self.split == Split::Train
    }

    /// Whether a sample was bad before, in this process or as the ledger says.
    pub fn has_met(&self, sample: usize) -> bool {
        self.met().entered.contains(&sample)
    }

    /// Which samples may stand in for one that is bad, in order: all others, or those of its class, each once.
    pub fn stand_ins(&self, keys: Keys, sample: usize) -> impl Iterator<Item = usize> + use<'_> {
        let len = self.source.as_ref().map_or(0, |source| source.len());
        let order = Permutation::keyed(len, &[keys.seed, keys.epoch, sample as u64, STAND_IN]);
        let class = |index| self.source.as_ref().and_then(|source| source.class(index));
        let fits = move |&stand_in: &usize| {
            stand_in != sample && (!self.within_classes || class(stand_in) == class(sample))
        };
        (0..len).map(move |i| order.apply(i)).filter(fits)
    }

    /// Whether these bad samples of a batch, together with all met before, are more than there may be: the run will
    /// end when the batch is settled, so that it need not be filled.
    pub fn exceeds(&self, bad: &[(usize, Error)]) -> bool {
        let met = self.met();
        let samples = bad.iter().map(|(sample, _)| *sample);
        let fresh: HashSet<usize> =
            samples.filter(|sample| !met.samples.contains(sample)).collect();
        met.samples.len() + fresh.len() > self.most
    }

    /// Bad samples so far, with those in the ledger of a run that goes on.
    pub fn count(&self) -> usize {
        self.met().entered.len()
    }

    /// Enters what was met; what the ledger lacks comes back with its origin, in ascending order.
    ///
    /// # Errors
    /// When the source panics over an origin.
    fn enter(&self, mut bad: Vec<(usize, Error)>) -> Result<Vec<(usize, String, Error)>> {
        let mut met = self.met.write().unwrap_or_else(PoisonError::into_inner);
        bad.sort_by_key(|(sample, _)| *sample);
        bad.retain(|(sample, _)| met.samples.insert(*sample));
        let told = |(sample, error): (usize, Error)| {
            let name = format_args!("sample {sample} of {}", self.name());
            Ok((sample, guarded(name, || Ok(self.origin(sample)))?, error))
        };
        let mut fresh = bad.into_iter().map(told).collect::<Result<Vec<_>>>()?;
        let room = NAMED.saturating_sub(met.origins.len());
        met.origins.extend(fresh.iter().take(room).map(|(_, origin, _)| origin.clone()));
        fresh.retain(|(sample, ..)| met.entered.insert(*sample));
        Ok(fresh)
    }

    /// Enters a line of the ledger, unless its number has since become that of another sample.
    fn recall(&self, entry: &Entry) {
        let exists = self.source.as_ref().is_some_and(|source| entry.sample < source.len());
        let origin = || guarded(self.name(), || Ok(self.origin(entry.sample)));
        if exists && origin().is_ok_and(|origin| origin == entry.origin) {
            let mut met = self.met.write().unwrap_or_else(PoisonError::into_inner);
            met.entered.insert(entry.sample);
        }
    }

    fn origin(&self, sample: usize) -> String {
        let origin = self.source.as_ref().and_then(|source| source.origin(sample));
        origin.unwrap_or_else(|| format!("sample {sample} of {}", self.name()))
    }

    fn name(&self) -> &str {
        self.source.as_ref().map_or("", |source| &source.info().name)
    }

    /// Whether there are not more than there may be.
    fn check(&self, ledger: Option<&Path>) -> Result<()> {
        let met = self.met();
        let (found, most) = (met.samples.len(), self.most);
        if found <= most || !self.tolerates() {
            return Ok(());
        }
        let len = self.source.as_ref().map_or(0, |source| source.len());
        let more = if found > met.origins.len() { ", …" } else { "" };
        let listed = ledger.map(|path| format!("; all are in {}", path.display()));
        let message = format!(
            "found {found} bad samples of {len}, expected at most {most} (--bad-sample-budget): {}{more}{}",
            met.origins.join(", "),
            listed.unwrap_or_default(),
        );
        Err(Error::new(Stage::Prepare, ErrorKind::Data, self.name(), message)
            .hint("mending the data, or a larger --bad-sample-budget"))
    }

    fn met(&self) -> RwLockReadGuard<'_, Met> {
        self.met.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bad samples of a run.
pub struct Quarantine {
    train: BadSamples,
    validation: BadSamples,
    ledger: Option<Mutex<Ledger>>,
    ledger_path: Option<PathBuf>,
}

impl Quarantine {
    /// Books for a training part and one that is held out, each with the same budget of its own.
    pub fn new(
        on: OnBadSample,
        budget: Budget,
        train: Arc<dyn Source>,
        validation: Option<Arc<dyn Source>>,
    ) -> Self {
        let train = BadSamples::new(on, budget, Split::Train, Some(train));
        let validation = BadSamples::new(on, budget, Split::Validation, validation);
        Self { train, validation, ledger: None, ledger_path: None }
    }

    /// The same, and samples of the same class alone stand in for bad ones that are trained on: so many of each are drawn as
    /// are asked for, and none of a class that is left out.
    pub fn within_classes(mut self) -> Self {
        self.train.within_classes = true;
        self
    }

    /// Books in which every bad sample is an error.
    pub fn errors() -> Self {
        let (train, validation) = (BadSamples::errors(), BadSamples::errors());
        Self { train, validation, ledger: None, ledger_path: None }
    }

    /// Keeps the ledger in the folder of a run, if bad samples are quarantined. If the run goes on, what the ledger
    /// holds is not entered again; it counts against the budget once it is met again.
    ///
    /// # Errors
    /// When the ledger cannot be read or written.
    pub fn in_folder(mut self, run_dir: &Path, goes_on: bool) -> Result<Self> {
        if self.train.on != OnBadSample::Quarantine {
            return Ok(self);
        }
        let (ledger, entries) = Ledger::open(run_dir, goes_on)?;
        entries.iter().for_each(|entry| self.part(entry.split).recall(entry));
        self.ledger_path = Some(ledger.path().to_path_buf());
        self.ledger = Some(Mutex::new(ledger));
        Ok(self)
    }

    /// The books of one part.
    pub fn part(&self, split: Split) -> &BadSamples {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }

    /// Bad samples of both parts so far.
    pub fn count(&self) -> usize {
        self.train.count() + self.validation.count()
    }

    /// The ledger, where there is one.
    pub fn ledger_path(&self) -> Option<&Path> {
        self.ledger_path.as_deref()
    }

    /// Enters what was met while a batch was filled. Batches are settled in their order.
    ///
    /// # Errors
    /// When there are more bad samples than there may be, the ledger cannot be written, or the source panics over where
    /// a sample is from.
    pub fn settle(&self, work: &Work, faults: Faults) -> Result<()> {
        if faults.bad.is_empty() {
            return Ok(());
        }
        let part = self.part(work.split);
        let fresh = part.enter(faults.bad)?;
        if let Some(ledger) = &self.ledger {
            let entry = |(sample, origin, error): (usize, String, Error)| Entry {
                event: "quarantine".into(),
                split: work.split,
                sample,
                origin,
                reason: reason(&error),
                epoch: work.epoch,
                step: work.step,
            };
            let entries: Vec<Entry> = fresh.into_iter().map(entry).collect();
            ledger.lock().unwrap_or_else(PoisonError::into_inner).add(&entries)?;
        }
        part.check(self.ledger_path())
    }
}

/// An error and its causes in one line.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
