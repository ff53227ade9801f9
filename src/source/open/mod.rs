//! From a name or a path to a data set: finds the files, fetches what is missing, tells the format.

mod arrays;
mod cifar;
mod folder;
mod idx;
mod named;
mod parquet_shards;
mod safetensors;
mod splits;
mod table;
mod tokens;
mod webdataset;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use crate::batch::DType;
use crate::convert::WORK;
use crate::error::{Error, Result};
#[cfg(feature = "cloud")]
use crate::source::cloud;
use crate::source::fetch::OnProgress;
use crate::source::file::io_error;
use crate::source::resident::Resident;
use crate::source::table::Fitted;
use crate::source::{DataConfig, Source, SourceInfo, WithInfo, statistics, stream};
use crate::source::{manifest, shard_manifest};
use crate::tokenizer::shards::MAKING;

pub use named::open_manifest;
pub use table::open_rows;

/// A data set that is open: what to train on, and what to validate with.
#[derive(Clone)]
pub struct Dataset {
    /// Its name, or the path it was opened by.
    pub name: String,
    /// Where its files lie.
    pub path: PathBuf,
    /// The training split.
    pub train: Arc<dyn Source>,
    /// What [`split`](Self::split) held out of the training part.
    pub validation: Option<Arc<dyn Source>>,
    /// The test split, where there is one.
    pub test: Option<Arc<dyn Source>>,
}

impl Dataset {
    /// A data set with a training part and perhaps one to test with.
    pub fn new(
        name: impl Into<String>,
        path: impl Into<PathBuf>,
        train: Arc<dyn Source>,
        test: Option<Arc<dyn Source>>,
    ) -> Self {
        let (name, path) = (name.into(), path.into());
        Self { name, path, train, validation: None, test }
    }

    /// What a training is validated with: what was held out for that, else the test part.
    pub fn held_out(&self) -> Option<&Arc<dyn Source>> {
        self.validation.as_ref().or(self.test.as_ref())
    }

    /// Has what is fitted to training samples (the means and categories of a table) fitted to the samples `kept` alone,
    /// before the others are held out. The test split follows.
    ///
    /// # Errors
    /// When the samples cannot be read.
    pub fn fit_on(&mut self, kept: &[usize]) -> Result<()> {
        let Some(train) = self.train.fit_on(kept)? else { return Ok(()) };
        if let (Some(fitted), Some(test)) = (train.fitted(), &self.test)
            && let Some(test) = test.encoded_as(fitted)?
        {
            self.test = Some(test);
        }
        self.train = train;
        Ok(())
    }
}

/// How to open a data set.
#[derive(Clone, Copy, Default)]
pub struct OpenOptions<'a> {
    /// Never fetch: a data set that is not here is an error.
    pub offline: bool,
    /// Where fetched data sets lie; without it, [`default_cache_dir`](crate::source::fetch::default_cache_dir).
    pub cache_dir: Option<&'a Path>,
    /// How to read it, where its files leave a choice.
    pub data: Option<&'a DataConfig>,
    /// Seed of the order in which a stream is shuffled.
    pub seed: u64,
    /// What the encoding of a table was fitted to when a model was trained; it is then encoded alike.
    pub fitted: Option<&'a Arc<Fitted>>,
    /// Told about the progress of a fetch.
    pub on_progress: Option<OnProgress<'a>>,
}

impl OpenOptions<'_> {
    /// How to read the data set.
    pub fn data(&self) -> &DataConfig {
        static DEFAULT: LazyLock<DataConfig> = LazyLock::new(DataConfig::default);
        self.data.unwrap_or(&DEFAULT)
    }
}

/// The file with one class name a line that may lie beside data without a manifest.
const CLASS_NAMES_FILE: &str = "classes.txt";

/// A way to read what lies at a path. The first that claims a path opens it.
struct Format {
    /// What it is called in errors: `a folder with IDX files`.
    what: &'static str,
    /// Whether the path is of this format, by content rather than by name where the content tells.
    claims: fn(&Candidate) -> Result<bool>,
    /// Opens it.
    open: fn(&Candidate, &OpenOptions<'_>) -> Result<Dataset>,
}

/// All formats, the most certain ones first.
// One a line, since they grow.
#[rustfmt::skip]
const FORMATS: &[Format] = &[
    idx::FORMAT,
    cifar::FORMAT,
    arrays::FORMAT,
    safetensors::FORMAT,
    webdataset::FORMAT,
    parquet_shards::FORMAT,
    table::FORMAT,
    folder::FORMAT,
    tokens::FORMAT,
];

/// A path that exists, looked at once for all formats.
struct Candidate {
    path: PathBuf,
    /// Whether it is a folder.
    is_folder: bool,
    /// The first bytes of a file.
    head: Vec<u8>,
}

/// Bytes that formats may look at: the magic of a tar archive lies at 257.
const HEAD_BYTES: u64 = 4096;

impl Candidate {
    fn look(path: &Path, is_folder: bool) -> Result<Self> {
        let mut head = Vec::new();
        if !is_folder {
            let file = File::open(path).map_err(|e| io_error(path, e))?;
            file.take(HEAD_BYTES).read_to_end(&mut head).map_err(|e| io_error(path, e))?;
        }
        Ok(Self { path: path.into(), is_folder, head })
    }

    /// Whether the file's name ends like this, in small letters and with the dot.
    fn has_extension(&self, extension: &str) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        !self.is_folder && name.ends_with(extension)
    }
}

/// Opens a data set by its name or path. A known name that is not on this machine is fetched first.
///
/// # Errors
/// When there is no such name or path, a fetch fails, or a file is damaged or does not fit the others.
pub fn open(dataset: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    options.data().validate()?;
    let mut dataset = open_with_test(dataset, options)?;
    if options.data().mean.is_some() || options.data().decode.is_some() {
        let told = |source: Arc<dyn Source>| -> Result<Arc<dyn Source>> {
            let info = options.data().normalised(&*source)?;
            Ok(Arc::new(WithInfo::new(source, info)))
        };
        dataset.train = told(dataset.train)?;
        dataset.validation = dataset.validation.map(told).transpose()?;
        dataset.test = dataset.test.map(told).transpose()?;
    }
    Ok(dataset)
}

/// Opens a data set, its test part from elsewhere where that is asked for.
fn open_with_test(dataset: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    let Some(test) = &options.data().test else { return open_whole(dataset, options) };
    let mut found = open_whole(dataset, options)?;
    let data = DataConfig { test: None, ..options.data().clone() };
    let fitted = found.train.fitted().cloned();
    let as_train = OpenOptions { data: Some(&data), fitted: fitted.as_ref(), ..*options };
    let name = test.to_string_lossy();
    let test = open_whole(&name, &as_train)?.train;
    let (expected, actual) = (found.train.spec(), test.spec());
    let (classes, names) = (&found.train.info().class_names, &test.info().class_names);
    if actual != expected || names != classes {
        let message = format!(
            "found test samples {actual:?} of classes {names:?}, expected those of the training part, {expected:?} of {classes:?}"
        );
        return Err(Error::data(name, message).hint("--image-size, --channels or --classes"));
    }
    found.test = Some(test);
    Ok(found)
}

/// Opens a data set as it is, without a test part from elsewhere.
fn open_whole(dataset: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    if dataset == stream::STANDARD_INPUT {
        return stream::open_standard_input(options);
    }
    if stream::is_queue(dataset) {
        return stream::open_queue(dataset, options);
    }
    if dataset.contains("://") {
        return open_url(dataset, options);
    }
    if let Some(manifest) = manifest::by_name(dataset)? {
        let dir = named::find_or_fetch(&manifest, options)?;
        return open_manifest(&manifest, &dir, options);
    }
    let path = Path::new(dataset);
    match std::fs::metadata(path) {
        Ok(meta) => open_path(path, meta.is_dir(), options),
        Err(_) if dataset.contains('{') && dataset.ends_with(".tar") => {
            webdataset::open_pattern(dataset, options)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::data(
            dataset,
            format!(
                "found neither a file or folder of this name nor a known data set ({})",
                manifest::names().join(", ")
            ),
        )
        .hint(format!("a path to {}", formats()))),
        Err(e) => Err(io_error(path, e)),
    }
}

/// Opens data that lie elsewhere, once they were brought here.
fn open_url(url: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    #[cfg(feature = "cloud")]
    return cloud::open(url, options, |path| open_path(path, path.is_dir(), options));
    #[cfg(not(feature = "cloud"))]
    {
        let _ = options;
        Err(Error::config(url, "this build reads no data over the network")
            .hint("cargo install inflight --features cloud"))
    }
}

fn open_path(path: &Path, is_folder: bool, options: &OpenOptions<'_>) -> Result<Dataset> {
    refuse_unfinished(path)?;
    let candidate = Candidate::look(path, is_folder)?;
    for format in FORMATS {
        if (format.claims)(&candidate)? {
            return (format.open)(&candidate, options);
        }
    }
    let found = match (is_folder, candidate.head.is_empty()) {
        (true, _) => "a folder without data that can be read",
        (false, true) => "an empty file",
        (false, false) => "a file of no format that can be read",
    };
    Err(Error::data(path.display(), format!("found {found}, expected {}", formats())))
}

/// Refuses what a conversion or tokenization has begun and not finished: it would look like a smaller data set. Its mark lies
/// in the folder, or where one split or one shard is asked for, above it.
fn refuse_unfinished(path: &Path) -> Result<()> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for folder in absolute.ancestors().take(3) {
        for (mark, command) in [(WORK, "convert"), (MAKING, "tokenize")] {
            // What is left of a mark beside what is finished is no mark.
            if folder.join(mark).exists() && !folder.join(shard_manifest::FILE).exists() {
                let message = format!("holds what an inflight {command} has not finished");
                return Err(Error::data(folder.display(), message)
                    .hint("the same command once more, which finishes it"));
            }
        }
    }
    Ok(())
}

/// All formats in words.
fn formats() -> String {
    let names: Vec<&str> = FORMATS.iter().map(|format| format.what).collect();
    let (last, first) = names.split_last().expect("there are formats");
    format!("{}, or {last}", first.join(", "))
}

/// Gives both splits the mean and deviation of the training split's images; arrays of floats are taken
/// as they are.
fn with_statistics(path: &Path, train: Resident, test: Option<Resident>) -> Result<Dataset> {
    if let Some(test) = &test
        && test.spec().input_shape != train.spec().input_shape
    {
        return Err(Error::data(
            path.display(),
            format!(
                "found test samples of shape {:?}, expected those of the training split, {:?}",
                test.spec().input_shape,
                train.spec().input_shape
            ),
        ));
    }
    let (mut mean, mut std) = (Vec::new(), Vec::new());
    if train.spec().input_dtype == DType::U8 {
        let found = statistics(&train)?;
        // A channel that never changes carries nothing; a deviation of 1 leaves it at 0.
        let safe = |s: &f64| if *s > 0.0 { *s as f32 } else { 1.0 };
        mean = found.mean.iter().map(|&m| m as f32).collect();
        std = found.std.iter().map(safe).collect();
        // What is no image has one mean, which holds for each of its elements.
        let channels = train.spec().input_shape[0];
        mean.resize(channels, mean[0]);
        std.resize(channels, std[0]);
    }
    let named = |source: Resident| {
        let info = SourceInfo { mean: mean.clone(), std: std.clone(), ..source.info().clone() };
        Arc::new(source.with_info(info)) as Arc<dyn Source>
    };
    Ok(Dataset::new(path.display().to_string(), path, named(train), test.map(named)))
}

fn info(path: &Path, split: &str, class_names: &[String]) -> SourceInfo {
    SourceInfo {
        name: format!("{} ({split})", path.display()),
        class_names: class_names.to_vec(),
        ..Default::default()
    }
}

/// The names in `classes.txt`, if there is one.
fn class_names(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(CLASS_NAMES_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            Ok(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(Into::into).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io_error(&path, e)),
    }
}

/// The files of a folder whose names fit, in the order of their names.
fn files_with(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| io_error(folder, e))? {
        let path = entry.map_err(|e| io_error(folder, e))?.path();
        if path.file_name().and_then(|n| n.to_str()).is_some_and(&fits) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
