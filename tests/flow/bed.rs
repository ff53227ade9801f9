//! A pipeline with a device that only notes what arrives, and sources that wait for each other.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver;
use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::graph::plan::Pass;
use inflight::pipeline::{Filled, Pipeline, Preparation, Split, Work};
use inflight::quarantine::Quarantine;
use inflight::rng::Rng;
use inflight::source::{Sample, Source, SourceInfo, Target};
use inflight::{Error, Result};

/// Far longer than anything here takes, so that a hang fails a test instead of stopping it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Things that have happened, to be waited for.
#[derive(Default)]
pub struct Happened {
    keys: Mutex<HashSet<String>>,
    changed: Condvar,
}

impl Happened {
    pub fn note(&self, key: impl Into<String>) {
        self.keys.lock().unwrap().insert(key.into());
        self.changed.notify_all();
    }

    /// Waits until `key` is noted.
    pub fn wait_for(&self, key: &str) -> Result<()> {
        let keys = self.keys.lock().unwrap();
        let waited = self.changed.wait_timeout_while(keys, PATIENCE, |keys| !keys.contains(key));
        match waited.unwrap().1.timed_out() {
            false => Ok(()),
            true => Err(Error::data(key, "never happened")),
        }
    }
}

type Hook = Box<dyn Fn(usize) -> Result<()> + Send + Sync>;

/// Eight bytes a sample, which tell its number; each read and prefetch first runs a hook.
pub struct Hooked {
    spec: SampleSpec,
    info: SourceInfo,
    len: usize,
    /// What it says about itself: whether reads wait.
    waits: bool,
    pub on_read: Hook,
    /// Gets the first sample of the batch.
    pub on_prefetch: Hook,
}

impl Hooked {
    pub fn new(len: usize) -> Self {
        Self {
            spec: SampleSpec {
                input_shape: vec![8],
                input_dtype: DType::U8,
                target: TargetSpec::Class { classes: 1000 },
            },
            info: SourceInfo { name: "hooked".into(), ..Default::default() },
            len,
            waits: false,
            on_read: Box::new(|_| Ok(())),
            on_prefetch: Box::new(|_| Ok(())),
        }
    }

    /// Says that its reads wait, so that they are read ahead.
    pub fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }

    pub fn on_read(self, hook: impl Fn(usize) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { on_read: Box::new(hook), ..self }
    }

    pub fn on_prefetch(self, hook: impl Fn(usize) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { on_prefetch: Box::new(hook), ..self }
    }
}

impl Source for Hooked {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        (self.on_prefetch)(indices[0])
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        (self.on_read)(index)?;
        scratch.clear();
        scratch.extend_from_slice(&Rng::keyed(&[index as u64]).next_u64().to_le_bytes());
        Ok(Sample { input: scratch, target: Target::Class(index as u32 % 1000) })
    }
}

/// Batches of `batch_size` samples in order, as often as `batches` says.
pub fn agenda(len: usize, batch_size: usize, batches: usize) -> Vec<Work> {
    let work = |batch: usize| Work {
        pass: Pass::Train,
        split: Split::Train,
        epoch: (batch * batch_size / len) as u64,
        step: batch as u64,
        micro_step: 0,
        weight: 1.0,
        indices: (0..batch_size).map(|i| (batch * batch_size + i) % len).collect(),
        last: false,
        bad: 0,
    };
    (0..batches).map(work).collect()
}

pub fn preparation(source: Arc<dyn Source>, batch_size: usize, workers: usize) -> Preparation {
    Preparation {
        layout: SlotLayout::new(source.spec(), batch_size),
        train: source,
        validation: None,
        transforms: Vec::new(),
        held_out: Vec::new(),
        seed: 3,
        workers,
        find: Default::default(),
        quarantine: Arc::new(Quarantine::errors()),
        supply: Default::default(),
    }
}

pub fn ring(preparation: &Preparation, slots: usize) -> Vec<Slot> {
    (0..slots).map(|i| Slot::host(i, preparation.layout.slot_bytes)).collect()
}

/// What came out of a pipeline: the step and the bytes of each batch, and the error that ended it.
#[derive(Debug, Default, PartialEq)]
pub struct Arrived {
    pub steps: Vec<u64>,
    pub bytes: Vec<Vec<u8>>,
    pub error: Option<String>,
}

/// Runs all of `agenda`; `on_batch` is told of every batch that arrives, before its slot goes back.
pub fn run(
    agenda: Vec<Work>,
    preparation: Preparation,
    slots: usize,
    on_batch: impl Fn(&Filled) + Send + 'static,
) -> Arrived {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let pipeline =
        Pipeline::start(ring(&preparation, slots), agenda.into_iter(), preparation, move |ends| {
            let mut arrived = Arrived::default();
            while let Ok(result) = receive(&ends.full) {
                match result {
                    Ok(filled) => {
                        on_batch(&filled);
                        arrived.steps.push(filled.work.step);
                        arrived.bytes.push(filled.slot.bytes().unwrap().to_vec());
                        let _ = ends.empty.send(filled.slot);
                    }
                    Err(error) => {
                        arrived.error = Some(error.to_string());
                        break;
                    }
                }
            }
            let _ = sender.send(arrived);
        });
    let _pipeline = pipeline.unwrap();
    receiver.recv_timeout(PATIENCE).expect("the pipeline ends")
}

/// The next batch; `Err` at the end of all batches.
pub fn receive(full: &Receiver<Result<Filled>>) -> Result<Result<Filled>, ()> {
    match full.recv_timeout(PATIENCE) {
        Ok(result) => Ok(result),
        Err(crossbeam_channel::RecvTimeoutError::Disconnected) => Err(()),
        Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("no batch came"),
    }
}
