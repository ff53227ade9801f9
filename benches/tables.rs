//! How many rows of a table a second are opened, and how many go through an epoch of batches.
//!
//! `cargo bench --bench tables --features parquet -- FILE TARGET [COLUMNS]` measures a file: the median of five
//! openings with least and most, and of five shuffled epochs in batches of 1024. Without a file it is one with 200,000
//! rows that is made for this: enough that opening takes some milliseconds.

use std::path::Path;
use std::time::Instant;

use inflight::batch::{Slot, SlotLayout};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::sampler::Sampler;
use inflight::source::{DataConfig, Dataset, OpenOptions, open};

/// Samples a batch: rows are small.
const BATCH: usize = 1024;

/// Repetitions of each measurement.
const TIMES: usize = 5;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (path, target, columns) = match &arguments[..] {
        [path, target] => (path.clone(), target.clone(), Vec::new()),
        [path, target, columns] => {
            (path.clone(), target.clone(), columns.split(',').map(String::from).collect())
        }
        _ => (made(&folder.path().join("rows.csv")), "y".into(), Vec::new()),
    };
    let data = DataConfig { target: Some(target), columns, ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    let opened = || open(&path, &options).expect("a table with this target");
    let rows = opened().train.len();
    tell("open", rows, &mut (|| drop(opened())));
    let dataset = opened();
    let mut epoch = 0;
    tell("epoch", rows, &mut (|| run_epoch(&dataset, &mut epoch)));
}

/// Fills batches with all samples once.
fn run_epoch(dataset: &Dataset, epoch: &mut u64) {
    let sampler = Sampler::new(dataset.train.len(), BATCH, 1, true, false).expect("some rows");
    let layout = SlotLayout::new(dataset.train.spec(), BATCH);
    let mut slot = Slot::host(0, layout.slot_bytes);
    let times = StageCounters::default();
    let keys = Keys { seed: 1, epoch: *epoch };
    for batch in 0..sampler.steps_per_epoch() {
        let indices: Vec<usize> = sampler.indices(*epoch, batch).collect();
        fill(&mut slot, &layout, &*dataset.train, &[], &indices, keys, &times)
            .expect("a whole file");
    }
    *epoch += 1;
}

/// Runs once to warm up, then several times.
fn tell(what: &str, rows: usize, run: &mut dyn FnMut()) {
    run();
    let mut seconds: Vec<f64> = (0..TIMES)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let (median, low, high) = (seconds[TIMES / 2], seconds[0], seconds[TIMES - 1]);
    let rate = rows as f64 / median / 1e6;
    println!(
        "tables/{what}: {rows} rows, median {median:.3} s ({low:.3} to {high:.3} s), {rate:.2} million rows/s"
    );
}

/// Writes a table with numbers and categories.
fn made(path: &Path) -> String {
    let mut text = String::from("a,b,c,d,y\n");
    for i in 0..200_000usize {
        let (b, c) = (i * 7919 % 10_007, ["red", "green", "blue"][i % 3]);
        text.push_str(&format!("{i},{:.3},{c},{},{}\n", b as f64 / 7.0, i % 50, ["u", "v"][i % 2]));
    }
    std::fs::write(path, text).expect("room for a temporary file");
    path.to_string_lossy().into_owned()
}
