//! Data sets to shards: files that are read from the first byte to the last, in parallel, with a manifest of hashes.
//!
//! A conversion can be killed at any moment and started again. Each shard is written under another name, synced, and
//! only then given its own; what it is to hold depends on the data and the settings alone, never on threads or on
//! where a conversion was interrupted. So the bytes are the same however often it was.

#[cfg(feature = "parquet")]
mod columns;
mod content;
mod plan;
#[cfg(feature = "parquet")]
mod table;
mod tar;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

pub use plan::{Config, Format, ShardSize};

use crate::durable::replace_file;
use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::source::shard_manifest::{self, ShardEntry, ShardManifest};
use crate::source::{Dataset, Source};
pub(crate) use plan::WORK;
use plan::{Folder, Plan, SplitPlan, State};
#[cfg(feature = "parquet")]
use table::RawTable;

/// What a conversion came to.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Summary {
    /// Samples in the shards.
    pub samples: usize,
    /// Shards there are.
    pub shards: usize,
    /// Shards that were there already, from a conversion that was interrupted.
    pub kept: usize,
    /// Bytes of all shards.
    pub bytes: u64,
}

/// Told the samples that are in shards, and how many there will be.
pub type OnProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Keeps the order of shards apart from all other randomness of the same seed.
const CONVERT: u64 = u64::from_le_bytes(*b"convert.");

/// Writes all splits of a data set to shards under `out`, which is made, and goes on where an earlier conversion of
/// the same data with the same settings was interrupted.
///
/// # Errors
/// When the samples cannot be written in this format, `out` holds something else, a sample cannot be read, or the
/// disk is full or fails. Shards that were finished stay.
pub fn convert(
    dataset: &Dataset,
    out: &Path,
    config: &Config,
    on_progress: OnProgress<'_>,
) -> Result<Summary> {
    let plan = Plan::new(dataset, out, config)?;
    let folder = match Folder::open(out, &plan)? {
        State::Finished(manifest) => return Ok(summary(&manifest, manifest.shards().count())),
        State::Open(folder) => folder,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(config.workers)
        .thread_name(|i| format!("convert-{i}"))
        .build()
        .map_err(|e| Error::config("--workers", "threads cannot be started").caused_by(e))?;
    let total = plan.splits.values().map(|split| split.samples as u64).sum();
    let done = AtomicU64::new(0);
    let (splits, kept) = pool.install(|| {
        let tables = tables(dataset, &plan)?;
        let (plan, folder, done) = (&plan, &folder, &done);
        Job { dataset, tables, plan, folder, done, total, on_progress }.run()
    })?;
    let manifest = plan.manifest(splits);
    folder.finish(&manifest)?;
    Ok(summary(&manifest, kept))
}

fn summary(manifest: &ShardManifest, kept: usize) -> Summary {
    Summary {
        samples: manifest.shards().map(|shard| shard.samples).sum(),
        shards: manifest.shards().count(),
        kept,
        bytes: manifest.shards().map(|shard| shard.bytes).sum(),
    }
}

/// The tables that splits are, with the fields as they are written. Their files are read once more, and must still be those
/// of the plan.
#[cfg(feature = "parquet")]
fn tables(dataset: &Dataset, plan: &Plan) -> Result<BTreeMap<&'static str, RawTable>> {
    let tables = plan::splits(dataset).filter_map(|(split, source)| {
        let path = source.table()?;
        let header = source.fitted().is_some_and(|fitted| fitted.header);
        let rows = plan.splits[split].samples;
        Some(RawTable::open(path, header, rows).map(|table| (split, table)))
    });
    let tables: BTreeMap<_, _> = tables.collect::<Result<_>>()?;
    if !tables.is_empty() {
        plan.expect_unchanged(dataset)?;
    }
    Ok(tables)
}

/// Without Parquet there is no format for tables, and none gets here.
#[cfg(not(feature = "parquet"))]
fn tables(_: &Dataset, _: &Plan) -> Result<BTreeMap<&'static str, RawTable>> {
    Ok(BTreeMap::new())
}

/// Stands for what there is only with Parquet.
#[cfg(not(feature = "parquet"))]
struct RawTable;

/// What all shards of a conversion share.
struct Job<'a> {
    dataset: &'a Dataset,
    /// Of splits that are tables, the tables as they are in their files.
    #[cfg_attr(not(feature = "parquet"), expect(dead_code))]
    tables: BTreeMap<&'static str, RawTable>,
    plan: &'a Plan,
    folder: &'a Folder,
    done: &'a AtomicU64,
    total: u64,
    on_progress: OnProgress<'a>,
}

/// One shard to be written.
struct Unit<'a> {
    split: &'a str,
    number: usize,
    of: &'a SplitPlan,
    source: &'a dyn Source,
}

impl Job<'_> {
    /// Makes all shards, in parallel; returns them by split, and how many were there already. Of several errors it is
    /// that of the first shard.
    fn run(&self) -> Result<(BTreeMap<String, Vec<ShardEntry>>, usize)> {
        let units: Vec<Unit<'_>> = plan::splits(self.dataset)
            .flat_map(|(split, source)| {
                let of = &self.plan.splits[split];
                let count = of.samples.div_ceil(of.samples_per_shard);
                (0..count).map(move |number| Unit { split, number, of, source: &**source })
            })
            .collect();
        let failed_at = AtomicUsize::new(usize::MAX);
        let made: Vec<Option<Result<(ShardEntry, bool)>>> = units
            .par_iter()
            .enumerate()
            .map(|(at, unit)| {
                // Shards after a failed one need not be made, all before it must: theirs is the earlier error.
                (at < failed_at.load(Relaxed)).then(|| {
                    self.shard(unit).inspect_err(|_| {
                        failed_at.fetch_min(at, Relaxed);
                    })
                })
            })
            .collect();
        let (mut splits, mut kept) = (BTreeMap::<_, Vec<_>>::new(), 0);
        for (unit, made) in units.iter().zip(made.into_iter().flatten()) {
            let (entry, was_there) = made?;
            kept += usize::from(was_there);
            splits.entry(unit.split.to_string()).or_default().push(entry);
        }
        Ok((splits, kept))
    }

    /// Makes a shard, unless it is there; tells whether it was.
    fn shard(&self, unit: &Unit<'_>) -> Result<(ShardEntry, bool)> {
        let per_shard = unit.of.samples_per_shard;
        let first = unit.number * per_shard;
        let places = first..(first + per_shard).min(unit.of.samples);
        let file = self.plan.file(unit.split, unit.number);
        if let Some(entry) = self.folder.finished(&file) {
            self.progress(entry.samples as u64);
            return Ok((entry, true));
        }
        let order = self.plan.shuffle_seed.map(|seed| {
            Permutation::keyed(unit.of.samples, &[seed, CONVERT, unit.source.len() as u64])
        });
        let index = |place: usize| order.as_ref().map_or(place, |order| order.apply(place));
        let samples = places.clone().map(|place| {
            self.progress(1);
            (place, index(place))
        });
        let path = self.folder.path(&file);
        let (bytes, sha256) = writer::write_whole(&path, |out| match self.plan.format {
            Format::WebDataset => tar::write(out, unit.source, samples),
            #[cfg(feature = "parquet")]
            Format::Parquet => match self.tables.get(unit.split) {
                Some(table) => table.write(out, samples),
                None => columns::write(out, unit.source, samples),
            },
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => unreachable!("refused when the plan was made"),
        })?;
        let entry = ShardEntry { file, samples: places.len(), bytes, sha256 };
        self.folder.record(&entry)?;
        Ok((entry, false))
    }

    fn progress(&self, samples: u64) {
        let done = self.done.fetch_add(samples, Relaxed) + samples;
        (self.on_progress)(done, self.total);
    }
}

/// Where the manifest of finished shards lies.
pub fn manifest_path(out: &Path) -> PathBuf {
    out.join(shard_manifest::FILE)
}

/// Writes a value as JSON, whole or not at all.
fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::data(path.display(), "cannot be written as JSON").caused_by(e))?;
    json.push(b'\n');
    replace_file(path, &json).map_err(|e| writer::unwritable(path).caused_by(e))
}
