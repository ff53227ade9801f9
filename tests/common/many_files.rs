//! Folders of very many tiny pictures, and an epoch over one; shared by `tests/many_files.rs` and `benches/many_files.rs`.

use std::path::Path;
use std::sync::Arc;

use inflight::batch::{Slot, SlotLayout};
use inflight::graph::plan::Pass;
use inflight::pipeline::{Pipeline, Preparation, Split, Work};
use inflight::quarantine::Quarantine;
use inflight::sampler::Sampler;
use inflight::source::Source;

const BATCH: usize = 256;
const CLASSES: usize = 100;
/// Names of one file: below what common file systems allow.
const LINKS: usize = 10_000;

/// Makes `root/pictures` with so many names of a few files of one pixel, in the folders of a hundred classes.
pub fn write(root: &Path, files: usize) {
    let picture = image::GrayImage::from_pixel(1, 1, image::Luma([7]));
    let (originals, pictures) = (root.join("originals"), root.join("pictures"));
    std::fs::create_dir_all(&originals).expect("a folder");
    for i in 0..files {
        let original = originals.join((i / LINKS).to_string());
        if i % LINKS == 0 {
            picture.save_with_format(&original, image::ImageFormat::Png).expect("saves");
        }
        let dir = pictures.join(format!("class-{:02}", i % CLASSES));
        if i < CLASSES {
            std::fs::create_dir_all(&dir).expect("a folder");
        }
        std::fs::hard_link(&original, dir.join(format!("{i:07}.png"))).expect("links");
    }
}

/// Open files of this process, and one for the folder that tells.
pub fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Prepares an epoch; the number of samples, and the most files that were open after a batch.
pub fn epoch(train: Arc<dyn Source>, workers: usize) -> (usize, usize) {
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
        workers,
        find: Default::default(),
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
    let found = receiver.recv().expect("ends");
    drop(pipeline);
    found
}
