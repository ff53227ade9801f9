//! How long a batch takes to prepare: the host's half of a step, without any device.
//!
//! Ids are `prepare/what/batch`; 128 is the default batch of Fashion-MNIST. `augment-SIDE-WHERE` shifts and mirrors colour
//! images in memory: all on the workers, or left to the device, which gets a framing each. 32 pixels are CIFAR's,
//! 224 ImageNet's.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::sampler::Sampler;
use inflight::source::resident::{Inputs, Targets};
use inflight::source::{OpenOptions, Resident, Source, open};
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

/// Colour images of `side` pixels, in memory.
fn pictures(side: usize, len: usize) -> Resident {
    let input_shape = vec![3, side, side];
    let target = TargetSpec::Class { classes: 2 };
    let spec = SampleSpec { input_shape, input_dtype: DType::U8, target };
    let bytes = (0..len * spec.input_bytes()).map(|i| (i * 31 % 251) as u8).collect();
    let targets = Targets::Classes(vec![0; len]);
    Resident::new(spec, Default::default(), Inputs::Bytes(bytes), targets).expect("it fits")
}

fn augment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("prepare");
    for (side, batch) in [(32, 128), (224, 32)] {
        let source = pictures(side, batch);
        let transforms: Vec<Box<dyn Transform>> =
            vec![Box::new(PadCrop::default()), Box::new(HorizontalFlip::default())];
        let on_workers = SlotLayout::new(source.spec(), batch);
        let on_device = on_workers.clone().with_framings();
        let indices: Vec<usize> = (0..batch).collect();
        group.throughput(Throughput::Elements(batch as u64));
        for (place, layout) in [("workers", on_workers), ("device", on_device)] {
            let mut slot = Slot::host(0, layout.slot_bytes);
            let times = StageCounters::default();
            let mut epoch = 0;
            group.bench_function(format!("augment-{side}-{place}/{batch}"), |bencher| {
                bencher.iter(|| {
                    epoch += 1;
                    let keys = Keys { seed: 1, epoch };
                    fill(&mut slot, &layout, &source, &transforms, &indices, keys, &times)
                        .expect("nothing is wrong");
                    black_box(&slot);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, prepare, augment);
criterion_main!(benches);
