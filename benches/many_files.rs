//! A million tiny pictures in a folder: how long opening it takes, how many samples a second an epoch prepares, and
//! what of memory and files it needs. Run alone: `cargo bench --bench many_files`; FILES sets another number, and
//! MANY_FILES_DIR a folder that is kept from run to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use inflight::batch::{Slot, SlotLayout};
use inflight::graph::plan::Pass;
use inflight::pipeline::{Pipeline, Preparation, Split, Work};
use inflight::quarantine::Quarantine;
use inflight::report::memory::peak_memory_bytes;
use inflight::sampler::Sampler;
use inflight::source::{OpenOptions, open};

const BATCH: usize = 256;
const CLASSES: usize = 100;
/// Names of one file: below what common file systems allow.
const LINKS: usize = 10_000;

fn write(root: &Path, files: usize) {
    if root.join("pictures").exists() {
        return;
    }
    let picture = image::GrayImage::from_pixel(1, 1, image::Luma([7]));
    let originals = root.join("originals");
    std::fs::create_dir_all(&originals).expect("a folder");
    let being_made = root.join("being-made");
    for i in 0..files {
        let original = originals.join((i / LINKS).to_string());
        if i % LINKS == 0 {
            picture.save_with_format(&original, image::ImageFormat::Png).expect("saves");
        }
        let dir = being_made.join(format!("class-{:02}", i % CLASSES));
        if i < CLASSES {
            std::fs::create_dir_all(&dir).expect("a folder");
        }
        std::fs::hard_link(&original, dir.join(format!("{i:07}.png"))).expect("links");
    }
    std::fs::rename(being_made, root.join("pictures")).expect("renames");
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn main() {
    let files = std::env::var("FILES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let kept = std::env::var_os("MANY_FILES_DIR").map(PathBuf::from);
    let root = kept.unwrap_or_else(|| temporary.path().to_path_buf());
    write(&root, files);
    let megabytes = || peak_memory_bytes().map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
    let (files_before, megabytes_before) = (open_files(), megabytes());

    let began = Instant::now();
    let path = root.join("pictures").display().to_string();
    let train = open(&path, &OpenOptions::default()).expect("opens").train;
    let open_s = began.elapsed().as_secs_f64();
    println!(
        "open: {} files in {open_s:.3} s, peak memory {:.0} MB ({megabytes_before:.0} before)",
        train.len(),
        megabytes()
    );

    let layout = SlotLayout::new(train.spec(), BATCH);
    let slots = (0..3).map(|i| Slot::host(i, layout.slot_bytes)).collect();
    let sampler = Sampler::new(train.len(), BATCH, 1, true, false).expect("enough samples");
    let batches = sampler.steps_per_epoch();
    let work = move |batch| Work {
        pass: Pass::Train,
        split: Split::Train,
        epoch: 0,
        step: batch as u64,
        micro_step: 0,
        weight: 1.0,
        indices: sampler.indices(0, batch).collect(),
        last: false,
        bad: 0,
    };
    let preparation = Preparation {
        train,
        validation: None,
        transforms: Vec::new(),
        held_out: Vec::new(),
        layout,
        seed: 1,
        workers: std::thread::available_parallelism().map_or(1, usize::from),
        quarantine: Arc::new(Quarantine::errors()),
        supply: Default::default(),
    };
    let began = Instant::now();
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let pipeline = Pipeline::start(slots, (0..batches).map(work), preparation, move |ends| {
        let mut samples = 0;
        while let Ok(filled) = ends.full.recv() {
            let filled = filled.expect("all files are good");
            samples += filled.work.indices.len();
            let _ = ends.empty.send(filled.slot);
        }
        sender.send(samples).expect("somebody waits");
    });
    let samples: usize = receiver.recv().expect("ends");
    drop(pipeline);
    let epoch_s = began.elapsed().as_secs_f64();
    println!(
        "epoch: {samples} samples in {epoch_s:.1} s, {:.0} samples/s, peak memory {:.0} MB, {} open files ({files_before} before)",
        samples as f64 / epoch_s,
        megabytes(),
        open_files(),
    );
}
