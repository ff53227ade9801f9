//! How long a batch takes to prepare: the host's half of a step, without any device.
//!
//! Ids are `prepare/what/batch`; 128 is the default batch of Fashion-MNIST. `augment-SIDE-WHERE` shifts and mirrors colour
//! images in memory: all on the workers, or left to the device, which gets a framing each. 32 pixels are CIFAR's,
//! 224 ImageNet's. `transform/NAME/side` are one image each.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::rng::Rng;
use inflight::sampler::Sampler;
use inflight::source::resident::{Inputs, Targets};
use inflight::source::{OpenOptions, Resident, Source, open};
use inflight::transform::{
    HorizontalFlip, Image, ImageMemory, PadCrop, Transform, TransformConfig,
};

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

/// One transform on one colour image of 224 x 224, the size of the common recipes.
fn transforms(criterion: &mut Criterion) {
    const SIDE: usize = 224;
    let mut rng = Rng::keyed(&[1]);
    // Soft gradients with some noise: what branches on pixels must not find them all alike.
    let wave = |i: usize| 128 + (i % SIDE) as i64 / 2 - (i / SIDE % SIDE) as i64 / 3;
    let mut byte = |i: usize| (wave(i) + rng.below(40) as i64).clamp(0, 255) as u8;
    let planes: Vec<u8> = (0..3 * SIDE * SIDE).map(&mut byte).collect();
    let all = [
        ("resize", "resize:size=160"),
        ("center_crop", "center-crop:size=200"),
        ("random_resized_crop", "random-resized-crop"),
        ("pad_crop", "pad-crop:padding=28"),
        ("horizontal_flip", "horizontal-flip:probability=1"),
        ("vertical_flip", "vertical-flip:probability=1"),
        ("rotation_nearest", "rotation:degrees=30"),
        ("rotation_bilinear", "rotation:degrees=30:interpolation=bilinear"),
        ("brightness", "color-jitter:brightness=0.4"),
        ("contrast", "color-jitter:contrast=0.4"),
        ("saturation", "color-jitter:saturation=0.4"),
        ("hue", "color-jitter:hue=0.1"),
        ("color_jitter", "color-jitter:brightness=0.4:contrast=0.4:saturation=0.4:hue=0.1"),
        ("grayscale", "grayscale:probability=1"),
        ("blur_5", "blur:kernel=5"),
        ("blur_23", "blur:kernel=23"),
        ("cutout", "cutout:size=64"),
        ("random_erasing", "random-erasing:probability=1"),
        ("rand_augment", "rand-augment"),
    ];
    let mut group = criterion.benchmark_group("transform");
    group.throughput(Throughput::Elements(1));
    for (name, list) in all {
        let list = TransformConfig::parse_list("--transforms", list).expect("known");
        let transform = list[0].build().expect("does something");
        let mut memory = ImageMemory::default();
        let mut key = 0;
        group.bench_function(format!("{name}/{SIDE}"), |bencher| {
            bencher.iter(|| {
                key += 1;
                let mut image = Image::raw([3, SIDE, SIDE], &planes, &mut memory);
                transform.apply(&mut image, &mut Rng::keyed(&[key])).expect("whole");
                black_box(image.pixels().expect("whole").len())
            });
        });
    }
    // What every row above also pays: from planes to pixels.
    let mut memory = ImageMemory::default();
    group.bench_function(format!("none/{SIDE}"), |bencher| {
        bencher.iter(|| {
            let mut image = Image::raw([3, SIDE, SIDE], &planes, &mut memory);
            black_box(image.pixels().expect("whole").len())
        });
    });
    group.finish();
}

criterion_group!(benches, prepare, augment, transforms);
criterion_main!(benches);
