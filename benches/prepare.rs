//! How long a batch takes to prepare: the host's half of a step, without any device.
//!
//! Ids are `prepare/what/batch`; 128 is the default batch of Fashion-MNIST.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inflight::batch::{Slot, SlotLayout};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::sampler::Sampler;
use inflight::source::{OpenOptions, open};
use inflight::transform::{HorizontalFlip, PadCrop, Transform};

const BATCH: usize = 128;

fn prepare(criterion: &mut Criterion) {
    let options = OpenOptions { offline: true, ..Default::default() };
    let dataset = open("fashion-mnist-10k", &options).expect("lies in-tree");
    let layout = SlotLayout::new(dataset.train.spec(), BATCH);
    let sampler =
        Sampler::new(dataset.train.len(), BATCH, 1, true, true).expect("8,000 samples are enough");
    let mut slot = Slot::host(0, layout.slot_bytes);
    let mut group = criterion.benchmark_group("prepare");
    group.throughput(Throughput::Elements(BATCH as u64));
    let augmented: Vec<Box<dyn Transform>> = vec![
        Box::new(PadCrop { padding: 2, ..Default::default() }),
        Box::new(HorizontalFlip::default()),
    ];
    for (name, transforms) in [("plain", Vec::new()), ("augmented", augmented)] {
        let times = StageCounters::default();
        let mut step = 0;
        group.bench_function(format!("fashion-mnist-{name}/{BATCH}"), |bencher| {
            bencher.iter(|| {
                let keys = Keys { seed: 1, epoch: 0 };
                let batch = step % sampler.steps_per_epoch();
                let indices: Vec<usize> = sampler.indices(keys.epoch, batch).collect();
                step += 1;
                fill(&mut slot, &layout, &*dataset.train, &transforms, &indices, keys, &times)
                    .expect("in-tree data is whole");
                black_box(&slot);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, prepare);
criterion_main!(benches);
