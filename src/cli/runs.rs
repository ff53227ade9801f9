//! The folders of runs: where a new one goes, which one is meant, and what it was trained on.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use inflight::batch::SampleSpec;
use inflight::config::RunConfig;
use inflight::durable::{create_folders, replace_file, sync_folder};
use inflight::nn::models::ModelConfig;
use inflight::report::folder::{EPOCHS, METRICS, TIMELINE};
use inflight::source::table::Fitted;
use inflight::source::{ENDLESS, Encoding, Source, SourceInfo, fingerprint};
use inflight::tokenizer::Tokenizer;
use inflight::train::checkpoint;
use inflight::train::weights::Weights;
use inflight::{Error, Result};
use serde::{Deserialize, Serialize};

use super::print;

/// Where runs lie unless `--out` says otherwise.
const RUNS: &str = "runs";

/// Runs of one data set and model that a folder is looked for; beyond it somebody should tidy up.
const RUNS_MAX: usize = 100_000;

/// What a run writes over or removes besides its configuration and metrics.
const WRITTEN: [&str; 5] = ["checkpoints", EPOCHS, TIMELINE, "inputs.json", TOKENIZER_FILE];

/// The copy of the tokenizer's file in the folder of a run.
const TOKENIZER_FILE: &str = "tokenizer.json";

/// What the inputs of a run were, so that its model can be used without its data set.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Shape and type of a sample.
    pub spec: SampleSpec,
    /// Names of the classes, and the statistics that inputs are normalised by.
    pub info: SourceInfo,
    /// What the encoding of a table was fitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted: Option<Fitted>,
    /// Whether samples were image files, of any size, or raw, of one.
    #[serde(default)]
    pub encoding: Encoding,
    /// Samples of the training part, where it has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<usize>,
    /// Which ones they are, see [`fingerprint`], where others were held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<String>,
}

impl Inputs {
    /// Those of a source, of which a share was held out or nothing.
    pub fn of(source: &dyn Source, holds_out: bool) -> Self {
        Self {
            samples: samples(source),
            trained_on: holds_out.then(|| fingerprint(source)).flatten(),
            spec: source.spec().clone(),
            info: source.info().clone(),
            encoding: source.encoding(),
            fitted: source.fitted().map(|fitted| (**fitted).clone()),
        }
    }

    /// Saves them as `inputs.json` in the folder of a run.
    pub fn save(&self, run_dir: &Path) -> Result<()> {
        let path = run_dir.join("inputs.json");
        let json = serde_json::to_vec_pretty(self).map_err(|e| {
            Error::checkpoint(path.display(), "cannot be written as JSON").caused_by(e)
        })?;
        replace_file(&path, &json)
    }

    /// Has the file of a tokenizer copied into the folder of a run, so that the run needs nothing else; it is called by
    /// its name alone, so that the folder may be moved.
    pub fn keep_tokenizer(&mut self, run_dir: &Path) -> Result<()> {
        let tokenizer = self.info.tokenizer.as_ref().map(Path::new);
        let Some(path) = tokenizer.filter(|path| path.is_file()) else { return Ok(()) };
        let file = std::fs::read(path)
            .map_err(|e| Error::data(path.display(), "cannot be read").caused_by(e))?;
        replace_file(&run_dir.join(TOKENIZER_FILE), &file)?;
        self.info.tokenizer = Some(TOKENIZER_FILE.into());
        Ok(())
    }

    fn load(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join("inputs.json");
        let text = std::fs::read(&path)
            .map_err(|e| Error::checkpoint(path.display(), "cannot be read").caused_by(e))?;
        let mut inputs: Self = serde_json::from_slice(&text)
            .map_err(|e| Error::checkpoint(path.display(), "is damaged").caused_by(e))?;
        // Runs of earlier versions name their copy by where it was.
        let copy = run_dir.join(TOKENIZER_FILE);
        let is_copied = |name: &String| Path::new(name).file_name() == copy.file_name();
        if copy.is_file() && inputs.info.tokenizer.as_ref().is_some_and(is_copied) {
            inputs.info.tokenizer = Some(copy.display().to_string());
        }
        Ok(inputs)
    }

    /// Loads those of the run in a folder; nothing where it has not got as far as saving them.
    pub fn of_run(run_dir: &Path) -> Result<Option<Self>> {
        run_dir.join("inputs.json").exists().then(|| Self::load(run_dir)).transpose()
    }

    /// Whether the classes of `source` are those of the run, as far as both have names for them.
    ///
    /// # Errors
    /// When a class has another name than in the run: the model takes it for something else.
    pub fn check_classes(&self, source: &dyn Source) -> Result<()> {
        let (of_run, found) = (&self.info.class_names, &source.info().class_names);
        if of_run.is_empty() || found.is_empty() || of_run == found {
            return Ok(());
        }
        let differs = |&class: &usize| of_run.get(class) != found.get(class);
        let class = (0..of_run.len().max(found.len())).find(differs).unwrap_or_default();
        let name = |names: &[String]| names.get(class).map_or("none".into(), |n| format!("{n:?}"));
        let message =
            format!("found {} as class {class}, the run had {}", name(found), name(of_run));
        Err(Error::data(&source.info().name, message)
            .hint("data with the classes of the run, all of them and in their order"))
    }

    /// Whether tokens mean to the run what they mean to `source`, as far as both tell.
    ///
    /// # Errors
    /// When they are of another tokenizer: the model takes them for something else.
    pub fn check_tokens(&self, source: &dyn Source) -> Result<()> {
        let (Some(of_run), Some(found)) = (&self.info.tokenizer, &source.info().tokenizer) else {
            return Ok(());
        };
        let identity = |name: &str| Tokenizer::open(name).and_then(|t| t.identity()).ok();
        let known = || identity(of_run).zip(identity(found));
        if of_run == found || known().is_none_or(|(of_run, found)| of_run == found) {
            return Ok(());
        }
        let message = format!("found tokens of {found}, the run had others, of {of_run}");
        Err(Error::data(&source.info().name, message)
            .hint(format!("inflight tokenize --tokenizer {of_run}")))
    }

    /// Whether `train`, of which a share was held out, is what the run was trained on: where samples were added, removed
    /// or moved to another class, others are held out.
    ///
    /// # Errors
    /// When they are others, as far as the run tells: those of earlier versions tell less.
    pub fn check_held_out(&self, train: &dyn Source) -> Result<()> {
        let found = match (self.samples, samples(train)) {
            (Some(before), Some(now)) if before != now => {
                let (before, now) = (print::count(before), print::count(now));
                format!("found {now} samples beside those held out, the run had {before}")
            }
            _ if self.trained_on.is_some() && self.trained_on != fingerprint(train) => {
                "found other samples beside those held out than the run had, or other classes of them".into()
            }
            _ => return Ok(()),
        };
        let message = format!("{found}: it was trained on some that are held out now");
        Err(Error::data(&train.info().name, message)
            .hint("the data that the run began with, or other data and a new run"))
    }

    /// The name of a class.
    pub fn class_name(&self, class: usize) -> String {
        self.info.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }
}

/// How many samples there are, where they have an end.
pub fn samples(source: &dyn Source) -> Option<usize> {
    Some(source.len()).filter(|&len| len != ENDLESS)
}

/// A trained model: its weights, and what belongs to them.
pub struct Trained {
    /// The file or folder that the weights are from.
    pub path: PathBuf,
    /// The weights.
    pub weights: Weights,
    /// The run they are from, where they are from one.
    pub run: Option<Run>,
}

/// What a run's folder says about the run.
pub struct Run {
    /// Its configuration.
    pub config: RunConfig,
    /// What its inputs were.
    pub inputs: Inputs,
}

impl Run {
    /// Reads it from the folder of a run.
    pub fn load(run_dir: &Path) -> Result<Self> {
        let config = RunConfig::load(&run_dir.join("config.toml"))?;
        Ok(Self { config, inputs: Inputs::load(run_dir)? })
    }
}

impl Trained {
    /// Opens a run (its newest checkpoint), a checkpoint, or a safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_file() {
            let run = path.parent().map(run_of_checkpoint).transpose()?.flatten();
            return Ok(Self { path: path.into(), weights: Weights::open(path)?, run });
        }
        let latest = checkpoint::find(path)?;
        tell_damaged(&latest.damaged);
        let checkpoint = latest.checkpoint;
        let run = run_of_checkpoint(&checkpoint.path)?;
        Ok(Self { path: checkpoint.path, weights: checkpoint.weights, run })
    }

    /// The model of the run, unless another one is asked for.
    pub fn model(&self, asked: Option<ModelConfig>) -> Result<ModelConfig> {
        asked.or_else(|| self.run.as_ref().map(|run| run.config.model.clone())).ok_or_else(|| {
            let message = "is not in the folder of a run, which would say what model it is for";
            Error::config(self.path.display(), message).hint("--model M")
        })
    }
}

/// Newer checkpoints that could not be used are worth a line each.
pub fn tell_damaged(damaged: &[Error]) {
    for error in damaged {
        print::note(format!("skipped a damaged checkpoint: {error}"));
    }
}

/// `RUN/checkpoints/step-N` lies in `RUN`.
fn run_of_checkpoint(checkpoint: &Path) -> Result<Option<Run>> {
    let absolute = std::path::absolute(checkpoint).unwrap_or_else(|_| checkpoint.into());
    let run_dir = absolute.ancestors().nth(2).filter(|dir| dir.join("config.toml").exists());
    run_dir.map(Run::load).transpose()
}

/// The newest run under `runs/` that fits, by the time its configuration was written.
///
/// # Errors
/// When there is none; `what` says what was looked for.
pub fn newest(what: &str, fits: impl Fn(&Path, &RunConfig) -> bool) -> Result<PathBuf> {
    let entries = std::fs::read_dir(RUNS).into_iter().flatten().flatten();
    let written = |entry: std::fs::DirEntry| {
        let dir = entry.path();
        let time = dir.join("config.toml").metadata().and_then(|meta| meta.modified()).ok()?;
        Some((time, dir))
    };
    let mut runs: Vec<(SystemTime, PathBuf)> = entries.filter_map(written).collect();
    runs.sort();
    let fitting =
        |dir: &PathBuf| RunConfig::load(&dir.join("config.toml")).is_ok_and(|c| fits(dir, &c));
    runs.into_iter().rev().map(|(_, dir)| dir).find(fitting).ok_or_else(|| {
        Error::config(RUNS, format!("found no run of {what} there, expected one"))
            .hint("inflight train first, or the folder of a run elsewhere")
    })
}

/// Makes the folder of a new run, whose name is then on the disk: `out`, which must not hold a run yet, or the next free one
/// under `runs/`.
pub fn create(config: &RunConfig) -> Result<PathBuf> {
    let made = |made: Result<()>| made.map_err(|e| e.hint("--out DIR"));
    if let Some(out) = &config.out {
        if out.join("config.toml").exists() || out.join(METRICS).exists() {
            return Err(Error::config("--out", format!("{} already holds a run", out.display()))
                .hint(format!("--resume {}, or another folder", out.display())));
        }
        if let Some(name) = WRITTEN.iter().find(|name| out.join(name).exists()) {
            let message = format!("{} already holds {name}, which a run writes", out.display());
            return Err(Error::config("--out", message).hint("another folder"));
        }
        return made(create_folders(out)).map(|()| out.clone());
    }
    let name = run_name(config);
    made(create_folders(Path::new(RUNS)))?;
    for number in 1..RUNS_MAX {
        let dir = Path::new(RUNS).join(format!("{name}-{number}"));
        match std::fs::create_dir(&dir) {
            Ok(()) => return made(sync_folder(Path::new(RUNS))).map(|()| dir),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                let error = Error::checkpoint(dir.display(), "cannot be created");
                return Err(error.hint("--out DIR").caused_by(e));
            }
        }
    }
    Err(Error::config(
        RUNS,
        format!("found {RUNS_MAX} runs called {name}, expected room for another"),
    )
    .hint("--out DIR"))
}

/// Takes the folder of a run that could not start away again; with anything in it, it stays.
pub fn discard(run_dir: &Path) {
    if std::fs::remove_dir(run_dir).is_ok() && run_dir.parent() == Some(Path::new(RUNS)) {
        // Fails where there are other runs, as it should.
        let _ = std::fs::remove_dir(RUNS);
    }
}

/// `DATASET-MODEL`, of a data set by path its last part.
fn run_name(config: &RunConfig) -> String {
    let dataset = match config.dataset.as_deref().unwrap_or("run") {
        "-" => "stream",
        // Of a URL, what follows its place is no part of a name.
        url if url.contains("://") => url.split(['?', '#']).next().unwrap_or("run"),
        path => path,
    };
    let stem = Path::new(dataset).file_stem().map_or("run".into(), |stem| stem.to_string_lossy());
    let model = match &config.model {
        ModelConfig::Name(name) => name,
        ModelConfig::Layers(_) => "layers",
        ModelConfig::Gpt(_) => "gpt",
        ModelConfig::Llama(_) => "llama",
    };
    format!("{stem}-{model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_after_data_and_model() {
        let name = |dataset: &str| {
            run_name(&RunConfig { dataset: Some(dataset.into()), ..Default::default() })
        };
        assert_eq!(name("fashion-mnist"), "fashion-mnist-cnn");
        assert_eq!(name("/data/pictures.npz"), "pictures-cnn");
        assert_eq!(name("/"), "run-cnn");
        assert_eq!(name("-"), "stream-cnn");
        assert_eq!(name("redis://me:secret@host/faces?group=g"), "faces-cnn");
    }

    #[test]
    fn a_folder_with_a_run_is_not_written_over() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = RunConfig { out: Some(dir.path().join("a/b")), ..Default::default() };
        let made = create(&config).expect("a new folder");
        config.save(&made).expect("saves");
        let error = create(&config).expect_err("it holds a run now").to_string();
        assert!(error.contains("already holds a run; try --resume"), "{error}");
        // Nor are checkpoints of others, among which it would take the newest for its own.
        std::fs::remove_file(made.join("config.toml")).expect("removes");
        create(&config).expect("nothing there");
        std::fs::create_dir_all(made.join("checkpoints/step-9")).expect("a folder");
        let error = create(&config).expect_err("it holds checkpoints").to_string();
        assert!(error.contains("already holds checkpoints, which a run writes"), "{error}");
    }

    #[cfg(feature = "faults")]
    #[test]
    fn the_name_of_a_new_run_is_on_the_disk() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = RunConfig { out: Some(dir.path().join("run")), ..Default::default() };
        let armed = inflight::faults::arm("io@2").expect("a plan");
        let error = create(&config).expect_err("the folder is not synced").to_string();
        drop(armed);
        assert!(error.contains("cannot be synced"), "{error}");
    }

    #[test]
    fn a_run_that_was_moved_has_its_tokenizer_with_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (before, after) = (dir.path().join("before"), dir.path().join("after"));
        std::fs::create_dir(&before).expect("a folder");
        let file = dir.path().join("mine.json");
        std::fs::write(&file, "{}").expect("writes");
        let source = inflight::source::Synthetic::new(2, sample_spec(), 0).expect("a source");
        let mut inputs = Inputs::of(&source, false);
        inputs.info.tokenizer = Some(file.display().to_string());
        inputs.keep_tokenizer(&before).expect("copies");
        inputs.save(&before).expect("saves");
        std::fs::rename(&before, &after).expect("moves");
        std::fs::remove_file(&file).expect("removes");
        let expected = Some(after.join("tokenizer.json").display().to_string());
        assert_eq!(Inputs::load(&after).expect("loads").info.tokenizer, expected);
        // As earlier versions wrote it down.
        inputs.info.tokenizer = Some(before.join("tokenizer.json").display().to_string());
        inputs.save(&after).expect("saves");
        assert_eq!(Inputs::load(&after).expect("loads").info.tokenizer, expected);
        // A name is no file.
        inputs.info.tokenizer = Some("gpt2".into());
        inputs.save(&after).expect("saves");
        assert_eq!(Inputs::load(&after).expect("loads").info.tokenizer, Some("gpt2".into()));
    }

    fn sample_spec() -> SampleSpec {
        use inflight::batch::{DType, TargetSpec};
        let (input_shape, input_dtype) = (vec![1, 2, 2], DType::U8);
        SampleSpec { input_shape, input_dtype, target: TargetSpec::Class { classes: 2 } }
    }
}
