//! How a trainer is made: data, model and configuration become a program, an executor, an agenda and the
//! running pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::agenda::Agenda;
use super::book::{Book, Progress, Terms};
use super::checkpoint::{Checkpoint, Metric, checkpoints_dir};
use super::compile::{Blueprint, Training, compile_with};
use super::engine::{Engine, Sources};
use super::event::{FirstStep, Input};
use super::keeper::Saving;
use super::recovery::{OnNan, ROLLBACK_LR_FACTOR};
use super::run::Run;
use super::trainer::{MAILBOX_LEN, Parts, Trainer};
use super::units::{Operations, TextUnits};
use super::weights;
use super::witness::Witness;
use crate::batch::TargetSpec;
use crate::config::RunConfig;
use crate::decode::DecodeSize;
use crate::device;
use crate::error::{Error, Result};
use crate::executor::{DeviceInfo, Executor};
use crate::graph::Arena;
use crate::graph::plan::{Options, Program};
use crate::graph::precision::Precision;
use crate::nn::Module;
use crate::nn::init::initial_values;
use crate::nn::losses::Loss;
use crate::peaks;
use crate::pipeline::{Pipeline, Preparation};
use crate::quarantine::{OnBadSample, Quarantine};
use crate::report::folder::RunLock;
use crate::report::trace::Tracer;
use crate::report::verdict::Settings;
use crate::sampler::Sampler;
use crate::source::cache::CacheKind;
use crate::source::{ENDLESS, Encoding, Source, Viewer, no_stream};
use crate::transform::{self, Augment, Transform, TransformConfig, deferrable};

/// What opens a device of the caller's own.
type OpenDevice = Option<Box<dyn FnOnce(Arc<Program>, usize) -> Result<Box<dyn Executor>> + Send>>;

/// Describes a training; see [`Trainer::builder`].
pub struct TrainerBuilder {
    model: Arc<dyn Module>,
    train: Arc<dyn Source>,
    validation: Option<Arc<dyn Source>>,
    transforms: Vec<Box<dyn Transform>>,
    config: RunConfig,
    loss: Option<Loss>,
    run_dir: Option<PathBuf>,
    lock: Option<RunLock>,
    resume: Option<Checkpoint>,
    rollbacks: u32,
    traced_steps: Option<u64>,
    began: Instant,
    open_data: Duration,
    open_device: OpenDevice,
}

impl TrainerBuilder {
    pub(super) fn new(model: Arc<dyn Module>, train: Arc<dyn Source>) -> Self {
        Self {
            model,
            train,
            validation: None,
            transforms: Vec::new(),
            config: RunConfig::default(),
            loss: None,
            run_dir: None,
            lock: None,
            resume: None,
            rollbacks: 0,
            traced_steps: None,
            began: Instant::now(),
            open_data: Duration::ZERO,
            open_device: None,
        }
    }

    /// The part held out: evaluated after every epoch and at the end.
    pub fn validation(mut self, source: Arc<dyn Source>) -> Self {
        self.validation = Some(source);
        self
    }

    /// Adds a transform of training samples, after those of the configuration and those added before.
    pub fn transform(mut self, transform: impl Transform + 'static) -> Self {
        self.transforms.push(Box::new(transform));
        self
    }

    /// Batch size, optimizer, device and all other settings.
    pub fn config(mut self, config: RunConfig) -> Self {
        self.config = config;
        self.config.settle();
        self
    }

    /// The loss; by default cross-entropy for classes and mean squared error for values.
    pub fn loss(mut self, loss: Loss) -> Self {
        self.loss = Some(loss);
        self
    }

    /// Keeps metrics, verdict and checkpoints in this folder.
    pub fn run_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.run_dir = Some(dir.into());
        self
    }

    /// As [`run_dir`](Self::run_dir), with the folder of a lock that the caller holds: what is read there before the start,
    /// as the checkpoint to go on from, is then still what is there when the run begins.
    pub fn locked(mut self, lock: RunLock) -> Self {
        self.run_dir = Some(lock.path().to_path_buf());
        self.lock = Some(lock);
        self
    }

    /// Writes a trace of the first `steps` steps into the run folder, see [`trace`](crate::report::trace). They take longer
    /// than others.
    pub fn trace(mut self, steps: u64) -> Self {
        self.traced_steps = Some(steps);
        self
    }

    /// Goes on from a checkpoint, bit for bit, instead of from the start.
    pub fn resume(mut self, checkpoint: Checkpoint) -> Self {
        self.resume = Some(checkpoint);
        self
    }

    /// Goes on with a learning rate that was lowered so often since the run began, as
    /// [`Recovery`](super::recovery::Recovery) says; a checkpoint knows how often it was before it.
    pub fn rollbacks(mut self, rollbacks: u32) -> Self {
        self.rollbacks = rollbacks;
        self
    }

    /// When the run began and how long opening the data took, for the time to the first step.
    pub fn began(mut self, began: Instant, open_data: Duration) -> Self {
        (self.began, self.open_data) = (began, open_data);
        self
    }

    /// Runs on a device of the caller's own, which `open` makes for the program with a ring of so many slots, instead of
    /// on the one that the configuration names.
    pub fn on_device(
        mut self,
        open: impl FnOnce(Arc<Program>, usize) -> Result<Box<dyn Executor>> + Send + 'static,
    ) -> Self {
        self.open_device = Some(Box::new(open));
        self
    }

    /// How samples of text are counted, and the work for one.
    fn counted(
        &self,
        program: &Program,
        device: &DeviceInfo,
    ) -> Result<Option<(TextUnits, Operations)>> {
        let Some(text) = TextUnits::of(&program.spec) else { return Ok(None) };
        let half = self.config.precision()? == Precision::F16;
        let peak = peaks::file().ok().and_then(|file| peaks::known(&file, device));
        let peak = peak.map(|peak| if half { peak.f16_flops_per_s } else { peak.f32_flops_per_s });
        let work = match self.config.recompute {
            true => Operations::of(&self.planned(false)?, peak),
            false => Operations::of(program, peak),
        };
        Ok(Some((text, work)))
    }

    /// The program that would run, without opening a device.
    ///
    /// # Errors
    /// When the configuration is wrong or the model does not fit the data.
    pub fn program(&self) -> Result<Program> {
        self.planned(self.config.recompute)
    }

    fn planned(&self, recompute: bool) -> Result<Program> {
        self.config.validate()?;
        self.check_data()?;
        let config = &self.config;
        let spec = self.train.spec();
        let info = config.data.normalised(&*self.train)?;
        let loss = match (self.loss, &spec.target) {
            (Some(loss), _) => loss,
            (None, TargetSpec::Class { .. } | TargetSpec::Tokens { .. }) => {
                Loss::CrossEntropy { smoothing: config.label_smoothing }
            }
            (None, TargetSpec::Values { .. }) if config.label_smoothing > 0.0 => {
                let message = "smooths classes, and the data set has values";
                let hint = "leaving out --label-smoothing";
                return Err(Error::config("--label-smoothing", message).hint(hint));
            }
            (None, TargetSpec::Values { .. }) => Loss::MeanSquaredError,
        };
        loss.validate(spec)?;
        config.mixing().validate_for(spec)?;
        let options = Options { recompute, ..Options::default() };
        let blueprint = Blueprint {
            model: &*self.model,
            spec,
            batch_size: config.batch_size,
            mean: &info.mean,
            std: &info.std,
            loss,
            training: Some(Training {
                rule: config.optimizer.rule(),
                muon: config.optimizer.muon_rule(),
                decay_norms_and_biases: config.optimizer.decays_norms_and_biases(),
                clip_norm: config.clip_norm,
                accumulate: config.accumulate,
                ema: config.ema,
                mixing: config.mixing(),
                precision: config.precision()?,
                framed: self.frames(),
            }),
        };
        compile_with(&blueprint, options)
    }

    /// Whether the device does the transforms at the end of the list.
    fn frames(&self) -> bool {
        if self.config.augment == Augment::Workers {
            return false;
        }
        let configured = self.config.transforms.iter().filter_map(TransformConfig::build);
        let configured: Vec<Box<dyn Transform>> = configured.collect();
        deferrable(configured.iter().chain(&self.transforms), self.train.spec()) > 0
    }

    fn check_data(&self) -> Result<()> {
        transform::check(&self.config.transforms, &*self.train)?;
        transform::check(&self.config.eval_transforms, &*self.train)?;
        if self.train.len() == ENDLESS && self.config.steps.is_none() {
            let message = "found none, expected a number, since a stream has no epochs";
            return Err(Error::config("--steps", message).hint("--steps 1000"));
        }
        let replaces = self.config.sampling.on_bad_sample != OnBadSample::Error;
        if replaces && self.train.len() == ENDLESS {
            return Err(no_stream(&*self.train, "with --on-bad-sample"));
        }
        let Some(validation) = &self.validation else { return Ok(()) };
        if validation.len() == ENDLESS {
            return Err(no_stream(&**validation, "to validate with"));
        }
        let (train, held_out) = (self.train.spec(), validation.spec());
        if train != held_out {
            let message =
                format!("validation samples are {held_out:?}, but training samples are {train:?}");
            return Err(Error::data(&validation.info().name, message)
                .hint("a validation set of the same shape, type and classes"));
        }
        Ok(())
    }

    /// Compiles the model, opens the device, and starts preparing batches.
    ///
    /// # Errors
    /// When configuration, data, model, device or checkpoint do not fit.
    pub fn start(mut self) -> Result<Trainer> {
        if !self.config.eval {
            self.validation = None;
        }
        let _span = tracing::info_span!("start").entered();
        let planning = Instant::now();
        let program = Arc::new(self.program()?);
        let config = &self.config;
        let slots = config.ring(program.slot.slot_bytes)?;
        let agenda = self.agenda()?;
        let plan_s = planning.elapsed().as_secs_f64();
        let mut executor = match self.open_device.take() {
            Some(open) => open(program.clone(), slots)?,
            None => {
                device::open_tuned(&self.config.device, program.clone(), slots, self.config.tune)?
            }
        };
        let config = &self.config;
        let mut progress = self.load(&program, &mut *executor)?;
        if program.settles() {
            let state = executor.store(Arena::State)?;
            executor.load(Arena::Settled, 0, &state)?;
        }
        progress.rollbacks = progress.rollbacks.max(self.rollbacks);
        let device = executor.device();
        let (total_steps, steps_per_epoch) = (agenda.total_steps(), agenda.steps_per_epoch());
        let saving = self.run_dir.clone().map(|dir| self.saving(dir));
        let run = Run::open(program.clone(), config.seed, total_steps, saving, progress.step)?;
        // Its lines may be cut off only once the folder is this run's alone.
        let quarantine = Arc::new(self.quarantine()?);
        let waits = [Some(&self.train), self.validation.as_ref()]
            .into_iter()
            .flatten()
            .any(|part| part.waits());
        let run = run
            .input(Input::planned(config, slots, waits))
            .settings(self.settings(total_steps > steps_per_epoch, waits), waits)
            .quarantine(quarantine.clone())
            .watched(self.witness(&program));
        let lr = config.learning_rate(total_steps);
        // Times 1 changes no bit, and times a power of two no digit.
        let lowered = ROLLBACK_LR_FACTOR.powi(progress.rollbacks as i32);
        let lr = move |step| lowered * lr(step);
        let tracer = match (&self.run_dir, self.traced_steps) {
            (Some(dir), Some(steps)) => Some(Arc::new(Tracer::create(dir, steps)?)),
            _ => None,
        };
        let abandoned = Arc::new(AtomicBool::new(false));
        let terms = Terms {
            began: self.began,
            classifies: program.spec.classes().is_some(),
            text: self.counted(&program, &device)?,
            validates: self.validation.is_some(),
            scales_loss: config.precision()? == Precision::F16,
            skipped_max: if config.on_nan == OnNan::Stop { 1 } else { config.nan_limit },
            lr: Box::new(lr),
            abandoned: abandoned.clone(),
        };
        let book = Book::new(terms, &progress);
        let first = FirstStep {
            open_data_s: self.open_data.as_secs_f64(),
            plan_s,
            adapter_s: device.open_s,
            tune_s: device.tune_s,
            compile_s: device.compile_s,
            ..Default::default()
        };
        let (mailbox, messages) = bounded(MAILBOX_LEN);
        let configured = config.transforms.iter().filter_map(TransformConfig::build);
        let transforms = configured.chain(self.transforms).collect();
        let held_out = config.eval_transforms.iter().filter_map(TransformConfig::build).collect();
        let sources = Sources {
            train: self.train.clone(),
            validation: self.validation.clone(),
            waiting: Vec::new(),
        };
        let stream = self.train.clone();
        let agenda = agenda.while_steps(move |indices| stream.reaches(indices));
        let preparation = Preparation {
            train: self.train,
            validation: self.validation,
            transforms,
            held_out,
            layout: program.slot.clone(),
            seed: config.seed,
            workers: config.worker_count(),
            find: config.find(),
            quarantine,
            supply: config.supply(slots * program.slot.slot_bytes)?,
        };
        let ring = executor.take_slots()?;
        let pipeline = Pipeline::start_traced(ring, agenda, preparation, tracer, move |ends| {
            Engine::new(executor, ends, messages, book, run, sources, first).run();
        })?;
        Ok(Trainer::new(Parts {
            mailbox,
            abandoned,
            program,
            device,
            total_steps,
            steps_per_epoch,
            pipeline,
        }))
    }

    /// What advice depends on, of a run whose samples come again if it `recurs`.
    fn settings(&self, recurs: bool, waits: bool) -> Settings {
        let config = &self.config;
        let images = self.train.encoding() == Encoding::Image;
        let full = self.train.info().decode != DecodeSize::Reduced;
        let kept = config.cache != CacheKind::Off || self.train.len() == ENDLESS;
        let configured = config.transforms.iter().filter_map(TransformConfig::build);
        let configured: Vec<Box<dyn Transform>> = configured.collect();
        let framable = deferrable(configured.iter().chain(&self.transforms), self.train.spec()) > 0;
        Settings {
            batch_size: config.batch_size,
            readers_given: config.readers.is_some(),
            images,
            could_cache: recurs && !kept && full && (images || waits),
            could_frame: framable && config.augment == Augment::Workers,
            could_use_half: config.precision == "f32",
        }
    }

    /// Who watches for the page of the run. What the program adds to the transforms cannot be shown there.
    fn witness(&self, program: &Program) -> Witness {
        let config = &self.config;
        let viewer = |list: &[TransformConfig]| {
            Viewer::of(list.iter().filter_map(TransformConfig::build).collect(), config.seed)
        };
        let (train, held_out) = (viewer(&config.transforms), viewer(&config.eval_transforms));
        let mut witness = Witness::new(program, train, held_out);
        witness.lacks_transforms = !self.transforms.is_empty();
        witness
    }

    /// By what the best checkpoint is told, where there is a validation.
    fn metric(&self) -> Metric {
        self.validation.as_ref().map_or(Metric::Off, |_| self.config.keep_best)
    }

    /// Where and how often the run saves, and what stays.
    fn saving(&self, dir: PathBuf) -> Saving {
        let config = &self.config;
        let every = match self.train.len() {
            ENDLESS => config.checkpoint_every.of_stream(),
            _ => config.checkpoint_every,
        };
        // By their names alone a folder and a way around to it differ.
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.into());
        let resumes_here = self.resume.as_ref().is_some_and(|checkpoint| {
            real(&checkpoint.path).parent() == Some(&real(&checkpoints_dir(&dir)))
        });
        let lock = self.lock.clone().filter(|lock| real(lock.path()) == real(&dir));
        Saving { dir, lock, resumes_here, every, keep: config.keep, best: self.metric() }
    }

    fn quarantine(&self) -> Result<Quarantine> {
        let sampling = &self.config.sampling;
        let (on, budget) = (sampling.on_bad_sample, sampling.bad_sample_budget);
        let (train, validation) = (self.train.clone(), self.validation.clone());
        let mut quarantine = Quarantine::new(on, budget, train, validation);
        if sampling.balances() {
            quarantine = quarantine.within_classes();
        }
        match &self.run_dir {
            Some(dir) => quarantine.in_folder(dir, self.resume.is_some()),
            None => Ok(quarantine),
        }
    }

    fn agenda(&self) -> Result<Agenda> {
        let config = &self.config;
        let train = config.sampler(&*self.train)?;
        let validation = self.validation.as_ref();
        let validation = validation
            .map(|source| Sampler::new(source.len(), config.batch_size, config.seed, false, false))
            .transpose()?;
        let steps_per_epoch = train.steps_per_epoch().div_ceil(config.accumulate) as u64;
        let total_steps = config.total_steps(steps_per_epoch);
        let progress = self.resume.as_ref().map(|c| c.progress).unwrap_or_default();
        if progress.step > total_steps {
            let message =
                format!("has {} steps, but the run ends after {total_steps}", progress.step);
            return Err(Error::config("--resume", message).hint("more --epochs or --steps"));
        }
        Ok(Agenda::new(train, validation, config.accumulate, total_steps, &progress))
    }

    /// Fills the arenas: either the checkpoint, or the weights of `--init`, or fresh values.
    fn load(&self, program: &Program, executor: &mut dyn Executor) -> Result<Progress> {
        if let Some(checkpoint) = &self.resume {
            for (arena, values) in &checkpoint.restore(program)?.arenas {
                executor.load(*arena, 0, values)?;
            }
            return Ok(checkpoint.progress);
        }
        load_initial(program, executor, self.config.seed)?;
        if let Some(path) = &self.config.init {
            for (arena, variable, values) in weights::load(path, program)? {
                load_variable(program, executor, arena, variable.offset, &values)?;
            }
        }
        Ok(Progress::default())
    }
}

/// Loads the fresh values that a model begins with under this seed.
///
/// # Errors
/// When the device is lost.
pub(crate) fn load_initial(
    program: &Program,
    executor: &mut dyn Executor,
    seed: u64,
) -> Result<()> {
    for (arena, variables) in [(Arena::Params, &program.params), (Arena::State, &program.states)] {
        for variable in variables {
            let values = initial_values(variable, seed);
            load_variable(program, executor, arena, variable.offset, &values)?;
        }
    }
    Ok(())
}

/// Loads initial values; a moving average of parameters begins as the parameters.
fn load_variable(
    program: &Program,
    executor: &mut dyn Executor,
    arena: Arena,
    offset: usize,
    values: &[f32],
) -> Result<()> {
    if arena == Arena::Params && program.averages() {
        executor.load(Arena::Average, offset, values)?;
    }
    executor.load(arena, offset, values)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::Trainer;
    use crate::batch::{DType, SampleSpec};
    use crate::nn::models;
    use crate::source::{DataConfig, Stream, Synthetic};
    use crate::train::checkpoint::Cadence;

    #[test]
    fn smoothing_of_classes_is_not_passed_over_for_values() {
        let target = TargetSpec::Values { len: 2 };
        let spec = SampleSpec { input_shape: vec![3], input_dtype: DType::F32, target };
        let source: Arc<dyn Source> = Arc::new(Synthetic::new(8, spec, 0).expect("can be made"));
        let model = models::by_name("mlp", source.spec()).expect("fits");
        let program = |label_smoothing| {
            let config = RunConfig { label_smoothing, batch_size: 4, ..Default::default() };
            Trainer::builder(model.clone(), source.clone()).config(config).program().map(|_| ())
        };
        program(0.0).expect("nothing to smooth");
        let message = program(0.1).expect_err("no classes").to_string();
        assert!(message.contains("--label-smoothing: smooths classes"), "{message}");
    }

    #[test]
    fn a_run_over_a_stream_saves_before_its_end() {
        let line = "{\"input\": [1, 2], \"label\": 0}\n";
        let data = DataConfig { classes: Some(2), ..Default::default() };
        let stream = Stream::new("test", Cursor::new(line), &data, 0).expect("a stream");
        let model = models::by_name("mlp", stream.spec()).expect("fits");
        let every = |every: Cadence, source: Arc<dyn Source>| {
            let config = RunConfig { checkpoint_every: every, ..Default::default() };
            Trainer::builder(model.clone(), source).config(config).saving("run".into()).every
        };
        let stream: Arc<dyn Source> = Arc::new(stream);
        assert!(matches!(every(Cadence::Epoch, stream.clone()), Cadence::Time(_)));
        assert_eq!(every(Cadence::Steps(3), stream), Cadence::Steps(3));
    }
}
