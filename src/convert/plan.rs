//! What a conversion is to make, written down before the first shard, so that another start goes on with the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::{content, manifest_path, write_json, writer};
use crate::durable;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::source::blob::Stamp;
use crate::source::identity::add_samples;
use crate::source::shard_manifest::{BYTES_MAX, ShardEntry, ShardManifest, VERSION, hex};
use crate::source::{Dataset, Encoding, Source, SourceInfo, Target};

/// How shards are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tar archives as WebDataset has them: `000000017.jpg` with its label in `000000017.cls`.
    #[default]
    WebDataset,
    /// Parquet: images in a column `image` and their classes in `label`, or the columns of a table.
    Parquet,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "webdataset" => Ok(Self::WebDataset),
            "parquet" => Ok(Self::Parquet),
            _ => Err(format!("found {name}, expected webdataset or parquet")),
        }
    }
}

/// How large shards are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardSize {
    /// About so many bytes: as many samples as their mean size, estimated from some of them, fits into it.
    Bytes(u64),
    /// Exactly so many samples; the last shard may hold fewer.
    Samples(usize),
}

/// The settings of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How shards are written.
    pub format: Format,
    /// How large they are.
    pub size: ShardSize,
    /// The seed of an order in which samples are written, drawn once; without one it is that of the source.
    pub shuffle_seed: Option<u64>,
    /// Threads; 0 means one a core.
    pub workers: usize,
}

impl Default for Config {
    /// WebDataset shards of about 128 MiB in the order of the source: large enough to be read from the first byte to
    /// the last at full speed, small enough that a killed conversion loses little.
    fn default() -> Self {
        Self {
            format: Format::WebDataset,
            size: ShardSize::Bytes(128 << 20),
            shuffle_seed: None,
            workers: 0,
        }
    }
}

/// A conversion as it was begun: another start with the same plan goes on with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plan {
    pub inflight_shards: u32,
    pub format: Format,
    pub source: String,
    /// The SHA-256 of names, lengths and times of change of all files of the data set, and of what it is.
    pub inputs: String,
    pub shuffle_seed: Option<u64>,
    pub class_names: Vec<String>,
    pub classes: Option<usize>,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    pub splits: BTreeMap<String, SplitPlan>,
}

/// How a split is parted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitPlan {
    pub samples: usize,
    pub samples_per_shard: usize,
}

/// The splits of a data set with their names, as folders of shards are called.
pub(super) fn splits(dataset: &Dataset) -> impl Iterator<Item = (&'static str, &Arc<dyn Source>)> {
    let others = [("val", &dataset.validation), ("test", &dataset.test)];
    let others = others.into_iter().filter_map(|(name, split)| Some((name, split.as_ref()?)));
    std::iter::once(("train", &dataset.train)).chain(others)
}

impl Plan {
    /// Looks at the data set, and at some samples of each split.
    ///
    /// # Errors
    /// When samples cannot be read, or not be written in this format; when `out` lies in the data set's folder.
    pub fn new(dataset: &Dataset, out: &Path, config: &Config) -> Result<Self> {
        if config.format == Format::Parquet && cfg!(not(feature = "parquet")) {
            let message = "found parquet, which this build has not (feature `parquet`)";
            return Err(Error::config("--format", message).hint("--format webdataset"));
        }
        expect_outside(dataset, out)?;
        let mut plans = BTreeMap::new();
        for (name, source) in splits(dataset) {
            content::check(&**source, config.format)?;
            let samples_per_shard = match config.size {
                ShardSize::Samples(0) | ShardSize::Bytes(0) => {
                    return Err(Error::config("shard size", "found 0, expected at least 1"));
                }
                ShardSize::Samples(samples) => samples,
                ShardSize::Bytes(bytes) => {
                    let mean = content::mean_bytes(&**source, config.format)?;
                    usize::try_from(bytes / mean.max(1)).unwrap_or(usize::MAX).max(1)
                }
            };
            if source.is_empty() {
                let message = format!("found no samples in the {name} split, expected some");
                return Err(Error::data(&dataset.name, message));
            }
            let samples = source.len();
            let samples_per_shard = samples_per_shard.min(samples);
            plans.insert(name.to_string(), SplitPlan { samples, samples_per_shard });
        }
        let info = dataset.train.info();
        Ok(Self {
            inflight_shards: VERSION,
            format: config.format,
            source: source_name(dataset),
            inputs: fingerprint(dataset)?,
            shuffle_seed: config.shuffle_seed,
            class_names: info.class_names.clone(),
            mean: info.mean.clone(),
            std: info.std.clone(),
            classes: dataset.train.spec().classes(),
            splits: plans,
        })
    }

    /// Checks that the data set is as it was when this was planned.
    ///
    /// # Errors
    /// When a file of it was changed since.
    #[cfg(feature = "parquet")]
    pub fn expect_unchanged(&self, dataset: &Dataset) -> Result<()> {
        if fingerprint(dataset)? == self.inputs {
            return Ok(());
        }
        let message = "was changed while it was in use, expected it as it was opened";
        Err(Error::data(&dataset.name, message).hint("starting again"))
    }

    /// The file of a shard, from the folder of the conversion on.
    pub fn file(&self, split: &str, number: usize) -> String {
        let extension = match self.format {
            Format::WebDataset => "tar",
            Format::Parquet => "parquet",
        };
        format!("{split}/shard-{number:06}.{extension}")
    }

    /// The manifest of the finished shards.
    pub fn manifest(&self, splits: BTreeMap<String, Vec<ShardEntry>>) -> ShardManifest {
        ShardManifest {
            inflight_shards: VERSION,
            format: match self.format {
                Format::WebDataset => "webdataset".into(),
                Format::Parquet => "parquet".into(),
            },
            source: self.source.clone(),
            plan: self.hash(),
            shuffle_seed: self.shuffle_seed,
            class_names: self.class_names.clone(),
            classes: self.classes,
            mean: self.mean.clone(),
            std: self.std.clone(),
            splits,
        }
    }

    fn hash(&self) -> String {
        hex(&Sha256::digest(serde_json::to_vec(self).expect("plain data are JSON")))
    }
}

/// The name of a known data set, or the whole path of another.
fn source_name(dataset: &Dataset) -> String {
    match dataset.path.canonicalize() {
        Ok(path) if Path::new(&dataset.name) == dataset.path => path.display().to_string(),
        _ => dataset.name.clone(),
    }
}

/// Shards in the folder that they are made from would be samples of the next conversion.
fn expect_outside(dataset: &Dataset, out: &Path) -> Result<()> {
    let absolute = std::path::absolute(out).unwrap_or_else(|_| out.into());
    let known = absolute.ancestors().find_map(|folder| folder.canonicalize().ok());
    if let (Ok(source), Some(out)) = (dataset.path.canonicalize(), known)
        && source.is_dir()
        && (out == source || out.starts_with(&source))
    {
        let message = format!("lies in {}, which is what is converted", source.display());
        return Err(Error::config(out.display(), message).hint("a folder outside of it"));
    }
    Ok(())
}

/// Adds the samples of a source that lie in memory: files that they came from, as labels beside images, are not known any
/// more.
fn add_memory(source: &dyn Source, add: &mut impl FnMut(&[u8])) -> Result<()> {
    if source.encoding() != Encoding::Raw || source.waits() {
        return Ok(());
    }
    let mut scratch = Vec::new();
    for index in (0..source.len()).filter(|&index| source.file_of(index).is_none()) {
        let sample = source.read(index, &mut scratch)?;
        add(sample.input);
        if let Target::Values(values) = sample.target {
            values.iter().for_each(|value| add(&value.to_le_bytes()));
        }
    }
    Ok(())
}

/// A hash of what the data set is: its samples, and of its files the names, lengths and times of change.
fn fingerprint(dataset: &Dataset) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for (name, source) in splits(dataset) {
        add(name.as_bytes());
        add_samples(&**source, &dataset.path, &mut add);
        add_memory(&**source, &mut add)?;
        add(&serde_json::to_vec(source.spec()).expect("plain data are JSON"));
        // Not the name: the same path can be written in several ways.
        let SourceInfo { class_names, mean, std, .. } = source.info();
        add(&serde_json::to_vec(&(class_names, mean, std)).expect("plain data are JSON"));
        add(&(source.len() as u64).to_le_bytes());
    }
    // A data set that is no path, or on another machine, is known by its name alone.
    if !dataset.path.exists() {
        add(dataset.path.as_os_str().as_encoded_bytes());
        return Ok(hex(&hash.finalize()));
    }
    // Hidden files are no data, and indexes come and go.
    let visible = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    let walk = WalkDir::new(&dataset.path).follow_links(true).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(visible) {
        let unreadable = |e: walkdir::Error| {
            Error::data(dataset.path.display(), "cannot be walked through").caused_by(e)
        };
        let entry = entry.map_err(unreadable)?;
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(&dataset.path).unwrap_or(entry.path());
            add(name.as_os_str().as_encoded_bytes());
            let stamp = Stamp::of(&entry.metadata().map_err(unreadable)?);
            add(&serde_json::to_vec(&stamp).expect("plain data are JSON"));
        }
    }
    Ok(hex(&hash.finalize()))
}

/// The folder that shards are written to.
pub(super) struct Folder {
    out: PathBuf,
    /// Held while a conversion runs, so that two do not write the same shards.
    _lock: Lock,
}

/// How a conversion finds the folder.
pub(super) enum State {
    /// All that is to be made is there.
    Finished(ShardManifest),
    /// There is something to do.
    Open(Folder),
}

/// What a conversion keeps for itself until it is finished: its plan, and a line on each shard that is.
pub(crate) const WORK: &str = ".convert";

impl Folder {
    /// Makes the folder, or finds there what a conversion by the same plan has left.
    ///
    /// # Errors
    /// When it holds anything else, or another process is at it.
    pub fn open(out: &Path, plan: &Plan) -> Result<State> {
        let refuse = |message: &str| {
            Err(Error::config(out.display(), message).hint("another folder, or removing this one"))
        };
        if let Some(manifest) = ShardManifest::load(out)? {
            if manifest.plan != plan.hash() {
                return refuse("holds shards of other data or settings, expected a new folder");
            }
            manifest.check_lengths(out)?;
            let _ = durable::remove(&out.join(WORK));
            return Ok(State::Finished(manifest));
        }
        let (work, plan_path) = (out.join(WORK), out.join(WORK).join("plan.json"));
        if plan_path.exists() {
            let found = std::fs::read(&plan_path).ok();
            let found = found.and_then(|text| serde_json::from_slice::<Plan>(&text).ok());
            if found.as_ref() != Some(plan) {
                return refuse("holds an unfinished conversion of other data or settings");
            }
        } else {
            let mut entries = std::fs::read_dir(out).into_iter().flatten().flatten();
            if out.exists() && (!out.is_dir() || entries.any(|entry| entry.file_name() != WORK)) {
                return refuse("holds something else, expected a new or empty folder");
            }
        }
        std::fs::create_dir_all(&work).map_err(|e| writer::unwritable(&work).caused_by(e))?;
        let lock_path = work.join("lock");
        let lock =
            Lock::hold(&lock_path).map_err(|e| writer::unwritable(&lock_path).caused_by(e))?;
        let Some(lock) = lock else {
            return Err(Error::config(out.display(), "another conversion is writing there")
                .hint("waiting for that one, or another folder"));
        };
        write_json(&plan_path, plan)?;
        for split in plan.splits.keys() {
            let folder = out.join(split);
            std::fs::create_dir_all(&folder)
                .map_err(|e| writer::unwritable(&folder).caused_by(e))?;
        }
        Ok(State::Open(Self { out: out.into(), _lock: lock }))
    }

    /// Where a file lies.
    pub fn path(&self, file: &str) -> PathBuf {
        self.out.join(file)
    }

    /// A shard that is there as an earlier conversion left it, by its hash.
    pub fn finished(&self, file: &str) -> Option<ShardEntry> {
        let text = std::fs::read(self.record_path(file)).ok()?;
        let entry: ShardEntry = serde_json::from_slice(&text).ok()?;
        (entry.file == file && entry.verify(&self.out).is_ok()).then_some(entry)
    }

    /// Notes that a shard is finished.
    pub fn record(&self, entry: &ShardEntry) -> Result<()> {
        write_json(&self.record_path(&entry.file), entry)
    }

    fn record_path(&self, file: &str) -> PathBuf {
        self.out.join(WORK).join(file.replace('/', "-")).with_extension("json")
    }

    /// Writes the manifest, with which the conversion is finished, and clears up.
    pub fn finish(self, manifest: &ShardManifest) -> Result<()> {
        let work = self.out.join(WORK);
        // Written where half of it would be cleared up with the rest, then moved.
        let (made, path) = (work.join("manifest.json"), manifest_path(&self.out));
        write_json(&made, manifest)?;
        let bytes = Stamp::look(&made)?.len();
        if bytes > BYTES_MAX {
            let message = format!("comes to {bytes} bytes, expected at most {BYTES_MAX}");
            return Err(Error::config(path.display(), message).hint("larger shards"));
        }
        std::fs::rename(&made, &path)
            .and_then(|()| durable::sync_folder(&self.out).map_err(std::io::Error::other))
            .map_err(|e| writer::unwritable(&path).caused_by(e))?;
        durable::remove(&work).map_err(|e| writer::unwritable(&work).caused_by(e))
    }
}

#[cfg(all(test, feature = "parquet"))]
mod tests {
    use super::*;
    use crate::source::{OpenOptions, open};

    #[test]
    fn a_table_that_is_written_to_meanwhile_is_told() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("rows.csv");
        std::fs::write(&path, "x,y\n1,a\n2,b\n3,a\n").expect("writes");
        let name = path.to_str().expect("temporary paths are UTF-8");
        let dataset = open(name, &OpenOptions::default()).expect("opens");
        let config = Config { format: Format::Parquet, ..Config::default() };
        let plan = Plan::new(&dataset, &dir.path().join("out"), &config).expect("a plan");
        plan.expect_unchanged(&dataset).expect("nobody wrote to it");
        let file = std::fs::File::options().write(true).open(&path).expect("opens");
        file.set_modified(std::time::UNIX_EPOCH).expect("a time");
        let error = plan.expect_unchanged(&dataset).expect_err("written to").to_string();
        assert!(error.contains("rows.csv: was changed while it was in use"), "{error}");
    }
}
