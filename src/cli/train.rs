//! `inflight train`: from flags and files to a run, its events, and its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use inflight::config::RunConfig;
use inflight::executor::DeviceInfo;
use inflight::nn::schedules::Schedule;
use inflight::report::folder::{RunLock, SUMMARY, rewrite_summary};
use inflight::report::tensorboard::TensorBoard;
use inflight::source::table::Fitted;
use inflight::source::{self, DataConfig, Dataset, ENDLESS, OpenOptions, Source};
use inflight::train::TrainerBuilder;
use inflight::train::checkpoint;
use inflight::train::event::{Event, Summary};
use inflight::train::recovery::{Recovery, Resumption, TRIES_MAX};
use inflight::{Error, ErrorKind, Result, Stage, Trainer};

use super::flags::Flags;
use super::interrupt::Interrupt;
use super::progress::{FetchProgress, measures, text_measures, utilised};
use super::resumed::Resumed;
use super::runs::{self, Inputs};
use super::samples::{SampleFlags, Samples};
use super::verify::verify;
use super::view::{Shown, View};
use super::{plan, print};

/// Steps of a trace if nobody says how many.
const TRACED_STEPS: &str = "100";

/// Train a model on a data set
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight train fashion-mnist-10k                       the defaults: cnn, 5 epochs, the best device
  inflight train photos/ --model resnet18 --image-size 224 --transforms random-resized-crop,horizontal-flip
  inflight train table.csv --target price --model mlp --epochs 20
  inflight train photos/ --dry-run                       what would run, and what it would take
  inflight train photos/ --steps 200 --verify            what holds it up, and does the advice help?
  inflight train --resume                                go on with what was stopped
  inflight train runs/NAME/config.toml                   the same once more

Every run ends with a verdict: where the time went, what held it up, and the one flag to change.")]
pub struct Args {
    /// A data set's name, a path, or a TOML config: a path ending in .toml, such as RUN/config.toml
    #[arg(value_name = "DATASET", required_unless_present = "resume")]
    dataset: Option<String>,
    #[command(flatten)]
    flags: Flags,
    /// Go on with a stopped run: its folder, or else the newest one under runs/ of DATASET and --model
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "what clap derives an optional value from")]
    resume: Option<Option<PathBuf>>,
    /// Show what would run, and stop
    #[arg(long)]
    dry_run: bool,
    /// At the end, run some steps more with the change that the verdict asks for, and tell what it gives
    #[arg(long)]
    verify: bool,
    /// Write a trace of the first STEPS steps, for Perfetto (ui.perfetto.dev) or about:tracing: trace.json in the folder of
    /// the run; these steps take longer [default STEPS: 100]
    #[arg(long, value_name = "STEPS", num_args = 0..=1, require_equals = true, default_missing_value = TRACED_STEPS)]
    trace: Option<u64>,
    /// Write event files for TensorBoard: tensorboard/ in the folder of the run
    #[arg(long)]
    tensorboard: bool,
    /// Show a dashboard on the terminal: curves, what is busy, queues, and when it ends
    #[cfg(feature = "tui")]
    #[arg(long, conflicts_with = "json")]
    tui: bool,
    /// Let Prometheus scrape the run at http://ADDR/metrics [default ADDR: 127.0.0.1:9464]
    #[cfg(feature = "prometheus")]
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = "127.0.0.1:9464")]
    prometheus: Option<std::net::SocketAddr>,
    #[command(flatten)]
    samples: SampleFlags,
    /// Print every event as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

/// Trains.
pub fn run(args: Args) -> Result<()> {
    let began = Instant::now();
    let (mut config, resumed) = configure(&args)?;
    config.validate()?;
    let fitted = resumed.as_ref().and_then(Resumed::fitted);
    let dataset = open(&config, fitted.as_ref())?;
    let open_data = began.elapsed();
    let train = &dataset.train;
    let steps_per_epoch = steps_per_epoch(&config, &**train)?;
    let total_steps = config.total_steps(steps_per_epoch);
    args.flags.apply_schedule(&mut config, total_steps)?;
    config.validate()?;
    let changes = resumed.as_ref().map(|before| before.check(&config, &**train)).transpose()?;
    changes.iter().flatten().for_each(print::note);
    let resumed = resumed.map(|before| before.dir);
    let model = config.model.build(train.spec())?;
    let samples = args.samples.samples(&mut config, &**train)?;
    let make_builder = || {
        let builder = Trainer::builder(model.clone(), train.clone()).config(config.clone());
        match dataset.held_out().filter(|_| config.eval) {
            Some(held_out) => builder.validation(held_out.clone()),
            None => builder,
        }
    };
    if args.dry_run {
        let program = make_builder().program()?;
        return plan::print(&config, &dataset, &model, program, steps_per_epoch, args.json);
    }
    let run_dir = match &resumed {
        Some(dir) => dir.clone(),
        None => runs::create(&config)?,
    };
    // From before its checkpoint is read, so that no other process goes on with it meanwhile.
    let lock = resumed.as_deref().map(RunLock::hold).transpose()?;
    let make_builder = || match &lock {
        Some(lock) => make_builder().locked(lock.clone()),
        None => make_builder().run_dir(&run_dir),
    };
    let mut builder = make_builder().began(began, open_data);
    if let Some(steps) = args.trace {
        builder = builder.trace(steps);
    }
    let mut recovery = Recovery::new(config.on_nan);
    let done_steps;
    (builder, done_steps) = resume(builder, resumed.as_deref(), &mut recovery)?;
    if resumed.is_some()
        && done_steps == total_steps
        && let Some(summary) = finished(&run_dir, total_steps)
    {
        return tell_finished(&run_dir, summary, &args);
    }
    let trainer = builder.start().inspect_err(|_| runs::discard(&run_dir))?;
    config.save(&run_dir)?;
    let mut inputs = Inputs::of(&**train, config.sampling.val_split.is_some());
    inputs.keep_tokenizer(&run_dir)?;
    inputs.save(&run_dir)?;
    introduce(&config, &dataset, &trainer, &run_dir, done_steps);
    let steps = trainer.steps().0;
    // A stream is not sent again.
    let again = (train.len() != ENDLESS).then_some(make_builder);
    let watchers = Watchers { samples, ..Watchers::new(&args, &run_dir)? };
    let mut summary = run_to_end(trainer, done_steps, &args, &run_dir, watchers, recovery, again)?;
    let verified = match args.verify && !summary.stopped {
        true => verify(&summary, &config, |config| open(config, fitted.as_ref()))?,
        false => None,
    };
    if verified.is_some() {
        summary.verdict.verified = verified;
        rewrite_summary(&run_dir, &summary)?;
    }
    if args.json {
        print::json(&Event::Done(Box::new(summary.clone())))?;
    }
    conclude(&summary, &dataset, &run_dir, steps)
}

/// The configuration, and the run to go on with.
fn configure(args: &Args) -> Result<(RunConfig, Option<Resumed>)> {
    let dataset = args.dataset.as_deref();
    let (mut config, resumed) = match &args.resume {
        Some(dir) => {
            if let Some(path) = dataset.filter(|path| is_toml(path)) {
                let message = format!("found {path} with --resume, which goes on by the run's own");
                return Err(Error::config("DATASET", message)
                    .hint("leaving it out, and flags for what is to change"));
            }
            let dir = match dir {
                Some(dir) => dir.clone(),
                None => newest(dataset, args.flags.model())?,
            };
            let before = Resumed::load(dir)?;
            (before.config.clone(), Some(before))
        }
        None => match dataset.filter(|path| is_toml(path)) {
            Some(path) => (RunConfig::load(Path::new(path))?, None),
            None => (RunConfig::default(), None),
        },
    };
    args.flags.apply(&mut config)?;
    if resumed.is_some() && args.flags.has_out() {
        return Err(Error::config("--out", "a resumed run goes on in its own folder")
            .hint("leaving out --out"));
    }
    if let Some(given) = dataset.filter(|path| !is_toml(path)) {
        let given = absolute(given)?;
        if let (Some(_), Some(before)) = (&resumed, config.dataset.as_ref())
            && *before != given
        {
            let message = format!("found {given}, but the run to go on with is of {before}");
            return Err(Error::config("DATASET", message).hint("leaving it out"));
        }
        config.dataset = Some(given);
    }
    Ok((config, resumed))
}

fn is_toml(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "toml")
}

/// A known name stays; a path becomes absolute, so that a saved configuration means the same everywhere.
pub fn absolute(dataset: &str) -> Result<String> {
    if source::manifest::by_name(dataset)?.is_some() || !Path::new(dataset).exists() {
        return Ok(dataset.into());
    }
    let path = std::path::absolute(dataset)
        .map_err(|e| Error::data(dataset, "its absolute path is not known").caused_by(e))?;
    Ok(path.to_string_lossy().into_owned())
}

/// The newest run under `runs/` of this data set and model, where they are given.
fn newest(dataset: Option<&str>, model: Option<&str>) -> Result<PathBuf> {
    let dataset = dataset.map(absolute).transpose()?;
    let model = model.map(super::flags::model_config).transpose()?;
    let what = dataset.clone().unwrap_or_else(|| "anything".into());
    runs::newest(&what, |_, config| {
        dataset.as_ref().is_none_or(|dataset| config.dataset.as_ref() == Some(dataset))
            && model.as_ref().is_none_or(|model| config.model == *model)
    })
}

/// Opens the data set of a configuration, with a bar where it must be fetched first.
pub fn open(config: &RunConfig, fitted: Option<&Arc<Fitted>>) -> Result<Dataset> {
    let name = config.dataset.as_deref().ok_or_else(|| {
        Error::config("dataset", "the configuration names none").hint("dataset = \"fashion-mnist\"")
    })?;
    config.sampling.split(open_seeded(name, &config.data, fitted, config.seed)?, config.seed)
}

/// Opens a data set by name or path, with a bar where it must be fetched first; a table is encoded as `fitted` says.
pub fn open_dataset(
    name: &str,
    data: &DataConfig,
    fitted: Option<&Arc<Fitted>>,
) -> Result<Dataset> {
    open_seeded(name, data, fitted, 0)
}

/// As [`open_dataset`]; a stream is shuffled by `seed`.
fn open_seeded(
    name: &str,
    data: &DataConfig,
    fitted: Option<&Arc<Fitted>>,
    seed: u64,
) -> Result<Dataset> {
    let progress = FetchProgress::new();
    let update = |fetching: &source::fetch::Progress<'_>| progress.update(fetching);
    let options = OpenOptions {
        on_progress: Some(&update),
        data: Some(data),
        fitted,
        seed,
        ..Default::default()
    };
    let dataset = source::open(name, &options);
    progress.finish();
    dataset
}

fn steps_per_epoch(config: &RunConfig, train: &dyn Source) -> Result<u64> {
    Ok(config.sampler(train)?.steps_per_epoch().div_ceil(config.accumulate) as u64)
}

/// Has the run go on from its newest checkpoint; a run that was stopped before its first one starts over.
fn resume(
    builder: TrainerBuilder,
    run_dir: Option<&Path>,
    recovery: &mut Recovery,
) -> Result<(TrainerBuilder, u64)> {
    let Some(run_dir) = run_dir else { return Ok((builder, 0)) };
    if !checkpoint::any(run_dir)? {
        print::note("the run has no checkpoint yet: starting from the beginning");
        return Ok((builder.rollbacks(recovery.rollbacks()), 0));
    }
    let latest = checkpoint::latest(run_dir)?;
    runs::tell_damaged(&latest.damaged);
    let progress = latest.checkpoint.progress;
    recovery.seen(progress.rollbacks);
    Ok((builder.resume(latest.checkpoint).rollbacks(recovery.rollbacks()), progress.step))
}

/// The summary of a run that has come to its end, after so many steps.
fn finished(run_dir: &Path, steps: u64) -> Option<serde_json::Value> {
    let text = std::fs::read(run_dir.join(SUMMARY)).ok()?;
    let summary: serde_json::Value = serde_json::from_slice(&text).ok()?;
    (summary["steps"] == steps && summary["stopped"] == false).then_some(summary)
}

/// There is nothing to do: what was measured when there was stays.
fn tell_finished(run_dir: &Path, mut summary: serde_json::Value, args: &Args) -> Result<()> {
    let (run, steps) = (run_dir.display(), &summary["steps"]);
    print::note(format!(
        "{run} is finished after {steps} steps; to go on, more --epochs or --steps"
    ));
    if args.json {
        summary["event"] = "done".into();
        print::json(&summary)?;
    }
    Ok(())
}

fn introduce(config: &RunConfig, dataset: &Dataset, trainer: &Trainer, run_dir: &Path, done: u64) {
    print::note(plan::dataset_line(dataset));
    let program = trainer.program();
    let parameters: usize = program.params.iter().map(|v| v.range().len()).sum();
    let (steps, per_epoch) = trainer.steps();
    print::note(format!(
        "training: {} parameters · {} steps of {} samples{} · {}, lr {} {}",
        print::count(parameters),
        print::count(steps),
        print::count(config.batch_size * config.accumulate),
        match dataset.train.len() {
            ENDLESS => String::new(),
            _ => format!(", {} an epoch", print::count(per_epoch)),
        },
        config.optimizer.name(),
        config.base_lr(),
        schedule_words(&config.schedule()),
    ));
    let sides = plan::TransformsBySide::new(config, dataset.train.spec(), &program.slot);
    sides.line().into_iter().for_each(print::note);
    let device = trainer.device();
    print::note(format!("device: {} ({}, {})", device.name, device.kind, device.backend));
    let verb =
        if done > 0 { format!("goes on after step {}", print::count(done)) } else { "new".into() };
    print::note(format!("run: {} ({verb})", run_dir.display()));
}

fn schedule_words(schedule: &Schedule) -> &'static str {
    match schedule {
        Schedule::Constant {} => "constant",
        Schedule::Step { .. } => "in steps",
        Schedule::Cosine { .. } => "down a cosine",
        Schedule::OneCycle { .. } => "in one cycle",
        Schedule::Warmup { .. } => "after a warm-up",
    }
}

/// Those that are told of every event besides whoever looks at the terminal.
struct Watchers {
    board: Option<TensorBoard>,
    samples: Option<Samples>,
    #[cfg(feature = "prometheus")]
    scraped: Option<inflight::report::prometheus::Endpoint>,
}

impl Watchers {
    fn new(args: &Args, run_dir: &Path) -> Result<Self> {
        let board = || {
            let config = std::fs::read_to_string(run_dir.join("config.toml")).unwrap_or_default();
            TensorBoard::create(run_dir, &config)
        };
        let board = args.tensorboard.then(board).transpose()?;
        if let Some(board) = &board {
            print::note(format!("tensorboard: {}", board.path().display()));
        }
        #[cfg(feature = "prometheus")]
        let scraped =
            args.prometheus.map(inflight::report::prometheus::Endpoint::open).transpose()?;
        #[cfg(feature = "prometheus")]
        if let Some(address) = args.prometheus {
            print::note(format!("prometheus: http://{address}/metrics"));
        }
        Ok(Self {
            board,
            samples: None,
            #[cfg(feature = "prometheus")]
            scraped,
        })
    }

    /// Tells them of an event; a line for people where one fails, who is then told no more: the run goes on.
    fn event(&mut self, event: &Event) -> Option<String> {
        #[cfg(feature = "prometheus")]
        if let Some(scraped) = &self.scraped {
            scraped.event(event);
        }
        let error = self.board.as_mut()?.event(event).err()?;
        self.board = None;
        Some(format!("{error}: the run goes on without it"))
    }
}

/// Events that may wait for whoever shows them, before the run is held up.
const EVENTS_MAX: usize = 1024;

/// How long a view waits for an event before it draws again.
const TICK: Duration = Duration::from_millis(100);

/// A run goes on from here: steps after this one come again.
#[derive(serde::Serialize)]
struct Restart<'a> {
    event: &'a str,
    step: u64,
    cause: String,
    how: Resumption,
}

/// Runs to the end, with new trainers from `again` if the device is lost or the run diverges.
fn run_to_end(
    mut trainer: Trainer,
    mut done_steps: u64,
    args: &Args,
    run_dir: &Path,
    mut watchers: Watchers,
    mut recovery: Recovery,
    again: Option<impl Fn() -> TrainerBuilder>,
) -> Result<Summary> {
    let interrupt = Interrupt::default();
    interrupt.listen()?;
    let device = trainer.device().clone();
    loop {
        interrupt.steer(trainer.commands());
        let followed = follow(&trainer, done_steps, args, &mut watchers, run_dir, &interrupt);
        // What it holds of device and memory is needed by whoever comes next, and its last save must be done.
        drop(trainer);
        let error = match (followed, &again) {
            (Err(error), Some(_)) if !interrupt.was_pressed() => error,
            (followed, _) => return followed,
        };
        // A device may need a while to come back; what happened first is what is told at last.
        let mut cause = error.clone();
        trainer = loop {
            let Some((how, again)) = recovery.after(&cause).zip(again.as_ref()) else {
                print::note(cause);
                return Err(error);
            };
            let resumed = resume(again(), Some(run_dir), &mut recovery);
            let (builder, step) = resumed.inspect_err(|_| print::note(&cause))?;
            tell_restart(&cause, step, how, args.json)?;
            done_steps = step;
            pause(how.pause(), &interrupt);
            match builder.start().and_then(|trainer| on_the_same(trainer, &device)) {
                Ok(trainer) => break trainer,
                Err(failed) if failed.kind() == ErrorKind::Device => cause = failed,
                Err(failed) => return Err(failed),
            }
        };
    }
}

/// Waits for so long, but no longer once the run is to end.
fn pause(length: Duration, interrupt: &Interrupt) {
    let began = Instant::now();
    while began.elapsed() < length && !interrupt.was_pressed() {
        std::thread::sleep(TICK);
    }
}

/// Lets a trainer go again that was started on another device, as `auto` does where the one before is not listed yet: the run
/// would go on with other bits, and nobody would know.
fn on_the_same(trainer: Trainer, device: &DeviceInfo) -> Result<Trainer> {
    let found = trainer.device();
    if found.is_same(device) {
        return Ok(trainer);
    }
    let told = |it: &DeviceInfo| format!("{} ({}, {}) {}", it.name, it.kind, it.backend, it.driver);
    let (found, before) = (told(found), told(device));
    let message = format!("is not there any more, found {}", found.trim());
    Err(Error::device(before.trim(), message)
        .hint("--resume once it is back, or --resume with the --device to go on with"))
}

fn tell_restart(error: &Error, step: u64, how: Resumption, json: bool) -> Result<()> {
    print::note(error);
    let (what, number) = match how {
        Resumption::Rebuilt(number) => ("opening the device again", number),
        Resumption::RolledBack(number) => ("halving the learning rate", number),
    };
    let step_shown = print::count(step);
    print::note(format!("{what} ({number} of {TRIES_MAX}), going on after step {step_shown}"));
    match json {
        true => print::json(&Restart { event: "restart", step, cause: error.to_string(), how }),
        false => Ok(()),
    }
}

/// Follows a run to its end, showing what happens.
fn follow(
    trainer: &Trainer,
    done_steps: u64,
    args: &Args,
    watchers: &mut Watchers,
    run_dir: &Path,
    interrupt: &Interrupt,
) -> Result<Summary> {
    let (steps, per_epoch) = trainer.steps();
    let events = trainer.queue(EVENTS_MAX);
    #[cfg(feature = "tui")]
    let dashboard = args.tui.then(|| format!("{} · {}", run_dir.display(), trainer.device().name));
    #[cfg(not(feature = "tui"))]
    let dashboard = None::<&Path>.map(|_| run_dir.display().to_string());
    let epochs = steps.div_ceil(per_epoch);
    let mut view =
        View::new(Shown { steps, done: done_steps, epochs, json: args.json, dashboard })?;
    let fit = trainer.fit();
    let mut watch = || -> Result<()> {
        loop {
            match events.recv_timeout(TICK) {
                Ok(event) => {
                    let event = event?;
                    // Pulses are for whoever looks on, and the end may still be verified.
                    if args.json && !matches!(event, Event::Pulse(_) | Event::Done(_)) {
                        print::json(&event)?;
                    }
                    let lost = watchers.event(&event);
                    view.event(&event)?;
                    lost.into_iter().for_each(|line| view.line(line));
                    if let (Some(samples), Event::Checkpoint(saved)) = (&watchers.samples, &event)
                        && let Some(line) = samples.after(saved, args.json)
                    {
                        view.line(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            view.tick(interrupt);
        }
    };
    let watched = watch();
    view.finish();
    watched?;
    pollster::block_on(fit)
}

/// The last lines: how good, how fast, where the time went; an error if the run was stopped.
fn conclude(summary: &Summary, dataset: &Dataset, run_dir: &Path, steps: u64) -> Result<()> {
    if !summary.stopped && summary.steps < steps {
        let (done, steps) = (print::count(summary.steps), print::count(steps));
        print::note(format!(
            "the stream ended after {done} of {steps} steps; what was left filled no batch"
        ));
    }
    let measured = measures(summary.val_loss, summary.val_accuracy);
    if !measured.is_empty() {
        let part = if dataset.validation.is_some() { "val" } else { "test" };
        let text = text_measures(&summary.text);
        print::note(format!("{part} {measured}{text}"));
    }
    let first = &summary.first_step;
    let duration = |s: f64| format!("{s:.3} s");
    print::note(format!(
        "{} samples in {:.1} s of training: {} samples/s{} · first step after {:.2} s (open data {}, plan {}, \
         adapter {}, tune {}, compile {}, first batch {}, first result {})",
        print::count(summary.samples),
        summary.train_s,
        print::rate(summary.samples_per_s),
        summary.text.tokens_per_s.map_or(String::new(), |rate| {
            format!(", {} tokens/s{}", print::rate(rate), utilised(&summary.utilisation))
        }),
        summary.time_to_first_step_s,
        duration(first.open_data_s),
        duration(first.plan_s),
        duration(first.adapter_s),
        duration(first.tune_s),
        duration(first.compile_s),
        duration(first.first_batch_s),
        duration(first.first_result_s),
    ));
    let peak = summary.peak_memory_bytes.map(|peak| format!("peak {} · ", print::bytes(peak)));
    print::note(format!(
        "memory: {}ring of slots {} · device {}",
        peak.unwrap_or_default(),
        print::bytes(summary.slot_bytes),
        print::bytes(summary.device.allocated_bytes),
    ));
    let budget = print::bytes(summary.input.memory_budget as u64);
    print::note(format!("input: {} · budget {budget}", summary.input));
    if summary.skipped > 0 {
        let skipped = print::count(summary.skipped);
        print::note(format!("{skipped} steps were skipped: their gradients were not finite"));
    }
    if summary.bad_samples > 0 {
        let ledger = summary.quarantine.as_ref().map(|path| format!(": {}", path.display()));
        print::note(format!(
            "{} bad samples, replaced or left out {} times{}",
            print::count(summary.bad_samples),
            print::count(summary.replaced_samples),
            ledger.unwrap_or_default(),
        ));
    }
    if let Some(scale) = summary.loss_scale {
        print::note(format!("loss scale {scale} at the end"));
    }
    print::note(&summary.verdict);
    summary.verdict.verified.iter().for_each(print::note);
    if !summary.stopped {
        print::note(format!("saved in {}", run_dir.display()));
        return Ok(());
    }
    let message = match summary.steps {
        0 => "stopped before its first step".into(),
        step => format!("stopped, saved at step {step}"),
    };
    Err(Error::new(Stage::Checkpoint, ErrorKind::Stopped, run_dir.display(), message)
        .hint(format!("inflight train --resume {}", run_dir.display())))
}
