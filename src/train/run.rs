//! What a run keeps: its folder with metrics and checkpoints, and the summary at its end.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::book::{Book, Progress};
use super::checkpoint;
use super::engine::{DeviceTimes, Sources};
use super::event::{CheckpointReport, EpochReport, FirstStep, Input, StepReport, Summary};
use super::keeper::{Keeper, Saving};
use super::units::TextMeasures;
use super::witness::Witness;
use crate::error::Result;
use crate::executor::{DeviceInfo, Done, Snapshot};
use crate::gauges::Gauges;
use crate::graph::Arena;
use crate::graph::plan::Program;
use crate::pipeline::Work;
use crate::quarantine::Quarantine;
use crate::report::folder::{RunFolder, RunLock};
use crate::report::memory::{peak_memory_bytes, processor_time_s};
use crate::report::pulse::Pulse;
use crate::report::verdict::{Settings, StageTimes, Verdict};
use crate::source::shard_manifest::hex;
use crate::tuner::Sizes;

/// The run folder of a run that keeps one.
struct Kept {
    folder: RunFolder,
    witness: Option<Witness>,
    keeper: Keeper,
}

/// What stays the same over a run, and what it writes.
pub(super) struct Run {
    pub seed: u64,
    /// The arenas that a checkpoint holds.
    pub arenas: Vec<Arena>,
    program: Arc<Program>,
    input: Input,
    settings: Settings,
    /// Whether samples come from a disk or a network while the run goes on.
    reads_wait: bool,
    quarantine: Arc<Quarantine>,
    /// Processor time of the process when the run was opened, where the system tells it.
    processor_began_s: Option<f64>,
    kept: Option<Kept>,
}

/// What the summary is made from.
pub(super) struct Closing<'a> {
    pub book: &'a Book,
    pub device: DeviceInfo,
    pub times: DeviceTimes,
    pub gauges: Option<&'a Gauges>,
    pub first: FirstStep,
    pub wall_s: f64,
    pub parameter_hash: String,
    pub stopped: bool,
}

impl Run {
    /// Opens the run folder, where there is to be one; metrics after `first_step` are cut off, checkpoints of later steps
    /// set aside. A run that nobody locked the folder for does it here.
    pub fn open(
        program: Arc<Program>,
        seed: u64,
        total_steps: u64,
        saving: Option<Saving>,
        first_step: u64,
    ) -> Result<Self> {
        let kept = saving
            .map(|saving| -> Result<Kept> {
                let lock = match saving.lock.clone() {
                    Some(lock) => lock,
                    None => RunLock::hold(&saving.dir)?,
                };
                let folder = RunFolder::open_locked(lock, first_step)?;
                checkpoint::settle(&saving.dir, first_step)?;
                let program = program.clone();
                let keeper = Keeper::start(&saving, program, seed, total_steps, first_step)?;
                Ok(Kept { folder, witness: None, keeper })
            })
            .transpose()?;
        let arenas = program.persistent_arenas().collect();
        let processor_began_s = processor_time_s();
        let quarantine = Arc::new(Quarantine::errors());
        Ok(Self {
            seed,
            arenas,
            program,
            input: Input::default(),
            settings: Settings::default(),
            reads_wait: false,
            quarantine,
            processor_began_s,
            kept,
        })
    }

    /// Has somebody watch for what the page of the run shows, where the run has a folder.
    pub fn watched(mut self, witness: Witness) -> Self {
        if let Some(kept) = &mut self.kept {
            kept.witness = Some(witness);
        }
        self
    }

    /// Has the summary tell of bad samples.
    pub fn quarantine(mut self, quarantine: Arc<Quarantine>) -> Self {
        self.quarantine = quarantine;
        self
    }

    /// Notes what prepares the batches.
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Notes what advice depends on, and whether reads wait for a disk or a network.
    pub fn settings(mut self, settings: Settings, reads_wait: bool) -> Self {
        (self.settings, self.reads_wait) = (settings, reads_wait);
        self
    }

    /// Whether a snapshot is to be taken right after this work, which completes a step.
    pub fn due(&mut self, work: &Work, asked: bool) -> bool {
        self.kept.as_mut().is_some_and(|kept| kept.keeper.is_due(work, asked))
    }

    pub fn record(&mut self, report: &StepReport) -> Result<()> {
        self.kept.as_mut().map_or(Ok(()), |kept| kept.folder.record(report))
    }

    pub fn record_epoch(&mut self, report: &EpochReport) -> Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.folder.record_epoch(report)?;
        kept.keeper.judge(report, &kept.folder)
    }

    pub fn record_pulse(&mut self, pulse: Pulse) -> Result<()> {
        self.kept.as_mut().map_or(Ok(()), |kept| kept.folder.record_pulse(pulse))
    }

    /// Hands all lines so far to the operating system.
    pub fn flush(&mut self) -> Result<()> {
        self.kept.as_mut().map_or(Ok(()), |kept| kept.folder.flush())
    }

    fn witness(&mut self) -> Option<&mut Witness> {
        self.kept.as_mut()?.witness.as_mut()
    }

    /// Whether the output of a pass that is about to be submitted is wanted.
    pub fn submitting(&mut self, work: &Work) -> bool {
        self.witness().is_some_and(|witness| witness.submitting(work))
    }

    /// Looks at a pass that has come back.
    pub fn finished(&mut self, work: &Work, done: &Done, sources: &Sources) {
        if let Some(witness) = self.witness() {
            witness.finished(work, done, sources);
        }
    }

    /// Writes what was seen of the data into the run folder, at the end of a run.
    pub fn testify(&mut self, sources: &Sources) -> Result<()> {
        match &mut self.kept {
            Some(Kept { folder, witness: Some(witness), .. }) => {
                witness.testify(folder.path(), sources, &self.quarantine)
            }
            _ => Ok(()),
        }
    }

    /// Hands a snapshot to the checkpoint thread; waits only if the one before is still being written.
    pub fn save(&mut self, snapshot: Snapshot, progress: Progress) -> Result<()> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.folder.flush()?;
        kept.keeper.take(snapshot, progress, &kept.folder)
    }

    /// The checkpoint at the end of a run.
    pub fn save_last(&mut self, snapshot: Snapshot, progress: Progress) -> Result<()> {
        let Some(kept) = self.kept.as_mut().filter(|_| progress.step > 0) else { return Ok(()) };
        kept.folder.flush()?;
        kept.keeper.save(snapshot, progress, &kept.folder)
    }

    /// See [`Program::settles`].
    pub fn settles(&self) -> bool {
        self.program.settles()
    }

    /// The checkpoints that have reached the disk since the last call.
    pub fn saved(&mut self, wait: bool) -> Result<Vec<CheckpointReport>> {
        self.kept.as_mut().map_or(Ok(Vec::new()), |kept| kept.keeper.saved(wait))
    }

    /// SHA-256 over all parameters in order: names, then values as little-endian bytes.
    pub fn parameter_hash(&self, snapshot: &Snapshot) -> String {
        let mut hash = Sha256::new();
        let params = snapshot.arenas.iter().find(|(arena, _)| *arena == Arena::Params);
        for variable in &self.program.params {
            hash.update(variable.name.as_bytes());
            if let Some((_, values)) = params {
                hash.update(bytemuck::cast_slice::<f32, u8>(&values[variable.range()]));
            }
        }
        hex(&hash.finalize())
    }

    /// The summary, which is also written into the run folder.
    pub fn summary(&mut self, closing: Closing<'_>) -> Result<Summary> {
        if let Some(gauges) = closing.gauges {
            self.note_at_work(gauges);
        }
        let Closing { book, device, times, gauges, first, wall_s, parameter_hash, stopped } =
            closing;
        let stages = StageTimes {
            open_s: first.open_data_s,
            steps: book.step_times.quantiles(),
            ..self.stage_times(&device, times, gauges, wall_s)
        };
        let bad_samples = self.quarantine.count() as u64;
        let verdict = Verdict { bad_samples, ..Verdict::new(&stages) };
        let last = book.last_epoch;
        let samples_per_s =
            if book.train_s > 0.0 { book.samples as f64 / book.train_s } else { 0.0 };
        let (text, utilisation) = book.terms.measures(None, samples_per_s);
        let of_epoch = last.map(|epoch| epoch.text).unwrap_or_default();
        let summary = Summary {
            steps: book.steps,
            samples: book.samples,
            train_s: book.train_s,
            samples_per_s,
            text: TextMeasures { tokens_per_s: text.tokens_per_s, ..of_epoch },
            utilisation,
            loss: last.map(|epoch| epoch.loss),
            val_loss: last.and_then(|epoch| epoch.val_loss),
            val_accuracy: last.and_then(|epoch| epoch.val_accuracy),
            skipped: book.skipped,
            bad_samples,
            replaced_samples: book.bad,
            quarantine: self.quarantine.ledger_path().map(Into::into),
            loss_scale: book.loss_scale,
            device,
            run_dir: self.kept.as_ref().map(|kept| kept.folder.path().to_path_buf()),
            time_to_first_step_s: first.total_s,
            first_step: first,
            slot_bytes: (self.input.ring * self.program.slot.slot_bytes) as u64,
            input: self.input.clone(),
            peak_memory_bytes: peak_memory_bytes(),
            parameter_hash,
            stopped,
            verdict,
        };
        if let Some(kept) = &mut self.kept {
            kept.folder.finish(&summary)?;
        }
        Ok(summary)
    }

    /// Enters what was at work at the end, and what came of it.
    fn note_at_work(&mut self, gauges: &Gauges) {
        let Sizes { readers, slots, workers } = gauges.at_work.sizes();
        (self.input.workers, self.input.slots) = (workers, slots);
        self.input.ahead_hits = gauges.stores.ahead_hits();
        self.input.readers = self.input.ahead_hits.map(|_| readers);
        self.input.cache = gauges.stores.cache_counts();
    }

    fn stage_times(
        &self,
        device: &DeviceInfo,
        times: DeviceTimes,
        gauges: Option<&Gauges>,
        wall_s: f64,
    ) -> StageTimes {
        let shared_cores = device.shares_cores();
        let busy_s = if times.busy_s > 0.0 { times.busy_s } else { times.wait_s };
        let mut stages = StageTimes {
            wall_s,
            // The twins compute within the submit itself, and a software adapter holds it up meanwhile.
            launch_s: times.launch_s - if shared_cores { busy_s.min(times.launch_s) } else { 0.0 },
            device_wait_s: times.wait_s,
            device_busy_s: busy_s,
            copy_s: times.copied_s,
            compile_s: device.open_s + device.tune_s + device.compile_s,
            tune_s: device.tune_s,
            workers: self.input.workers,
            slots: self.input.ring,
            passes: times.passes,
            processor_s: processor_time_s()
                .zip(self.processor_began_s)
                .map_or(0.0, |(now, began)| now - began),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            shared_cores,
            queues: times.queues,
            settings: Settings {
                could_use_half: self.settings.could_use_half && device.half,
                ..self.settings
            },
            ..Default::default()
        };
        if let Some(gauges) = gauges {
            let (counted, fetching_s) = (&gauges.stages, gauges.fetching.seconds());
            stages.prepare_busy_s = (gauges.busy.seconds() + fetching_s).min(wall_s);
            stages.prepare_wait_s = gauges.idle.seconds();
            stages.starved_s = gauges.starved.seconds();
            // While the prepare thread waits for samples, all workers do.
            let fetching_s = fetching_s * self.input.workers as f64;
            let (disk_s, made_s) = match self.reads_wait {
                true => (counted.read_s(), 0.0),
                false => (0.0, counted.read_s()),
            };
            stages.disk_s = disk_s + fetching_s;
            stages.decode_s = made_s + counted.decode_s();
            stages.augment_s = counted.augment_s();
            stages.upload_s = counted.write_s();
            stages.prepare_cpu_s = counted.cpu_s();
            stages.readers = self.input.readers.unwrap_or(0);
            stages.readers_busy_s = gauges.stores.readers_busy_s();
        }
        stages
    }
}
