//! A folder of very many tiny pictures: an epoch over them opens no file for longer than it reads it, and holds little
//! more than their names. A process of its own, since all its open files are counted. `benches/many_files.rs` takes a
//! million.

use std::path::Path;
use std::sync::Arc;

use inflight::batch::SlotLayout;
use inflight::graph::plan::Pass;
use inflight::pipeline::{Pipeline, Preparation, Split, Work};
use inflight::quarantine::Quarantine;
use inflight::sampler::Sampler;
use inflight::source::{OpenOptions, open};

const FILES: usize = 20_000;
const CLASSES: usize = 10;
const BATCH: usize = 256;

/// So many names of one file.
fn write(root: &Path) {
    let original = root.join("original");
    let picture = image::GrayImage::from_pixel(1, 1, image::Luma([7]));
    picture.save_with_format(&original, image::ImageFormat::Png).expect("saves");
    for class in 0..CLASSES {
        let dir = root.join(format!("pictures/class-{class}"));
        std::fs::create_dir_all(&dir).expect("a folder");
        for i in 0..FILES / CLASSES {
            std::fs::hard_link(&original, dir.join(format!("{i:06}.png"))).expect("links");
        }
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux tells").count()
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: usize = text.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}

#[cfg(target_os = "linux")]
#[test]
fn an_epoch_over_very_many_files_leaves_none_open_and_holds_their_names() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write(dir.path());
    let (files_before, bytes_before) = (open_files(), resident_bytes());
    let path = dir.path().join("pictures").display().to_string();
    let train = open(&path, &OpenOptions::default()).expect("opens").train;
    assert_eq!(train.len(), FILES);
    assert_eq!(open_files(), files_before, "opening leaves no file open");

    let layout = SlotLayout::new(train.spec(), BATCH);
    let slots = (0..3).map(|i| inflight::batch::Slot::host(i, layout.slot_bytes)).collect();
    let sampler = Sampler::new(FILES, BATCH, 1, true, false).expect("enough samples");
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
        workers: 4,
        quarantine: Arc::new(Quarantine::errors()),
        supply: Default::default(),
    };
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let pipeline = Pipeline::start(slots, (0..batches).map(work), preparation, move |ends| {
        let (mut samples, mut most_files) = (0, 0);
        while let Ok(filled) = ends.full.recv() {
            let filled = filled.expect("all files are good");
            samples += filled.work.indices.len();
            most_files = most_files.max(open_files());
            let _ = ends.empty.send(filled.slot);
        }
        sender.send((samples, most_files)).expect("somebody waits");
    })
    .expect("starts");
    let (samples, most_files) = receiver.recv().expect("ends");
    drop(pipeline);
    assert_eq!(samples, FILES);
    // One file a worker, and the folder that is being counted.
    assert!(most_files <= files_before + 8, "{most_files}, {files_before} before");
    assert_eq!(open_files(), files_before, "an epoch leaves no file open");
    // Names take some 20 bytes each; threads, slots and code that was not touched before take some megabytes.
    let grown = resident_bytes().saturating_sub(bytes_before);
    assert!(grown < 48 << 20, "{grown} bytes");
}
