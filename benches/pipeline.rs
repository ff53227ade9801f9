//! How fast batches come out of the prepare half of the pipeline when samples cost unevenly, wait for a disk, or lie
//! in a cache. The device takes each batch at once.
//!
//! Ids are `stage/what/batch`. The batch is 64, as for photographs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::error::Result;
use inflight::graph::plan::Pass;
use inflight::pipeline::{Pipeline, Preparation, Split, Work};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::quarantine::Quarantine;
use inflight::source::{Sample, Source, SourceInfo, Target};

const BATCH: usize = 64;
const SLOTS: usize = 3;

/// Samples that take `mean` on average; one in `every` takes as long as all others together.
struct Uneven {
    spec: SampleSpec,
    info: SourceInfo,
    mean: Duration,
    every: usize,
    sleeps: bool,
}

impl Uneven {
    fn new(mean: Duration, every: usize, sleeps: bool) -> Self {
        let spec = SampleSpec {
            input_shape: vec![1024],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        };
        Self { spec, info: SourceInfo::default(), mean, every, sleeps }
    }

    fn cost(&self, index: usize) -> Duration {
        let half = self.mean * self.every as u32 / 2;
        // At places that a shuffle would give as well: neither first nor last in a batch.
        let place = (index.wrapping_mul(0x9e37_79b9) >> 7) % self.every;
        if self.every > 1 && place == 0 { half } else { half / (self.every as u32 - 1).max(1) }
    }
}

impl Source for Uneven {
    fn len(&self) -> usize {
        1 << 30
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let (began, cost) = (Instant::now(), self.cost(index));
        if self.sleeps {
            std::thread::sleep(cost);
        }
        while began.elapsed() < cost {
            std::hint::spin_loop();
        }
        scratch.resize(1024, 0);
        Ok(Sample { input: scratch, target: Target::Class(0) })
    }
}

fn batch(number: usize) -> Work {
    Work {
        pass: Pass::Train,
        split: Split::Train,
        epoch: 0,
        step: number as u64,
        micro_step: 0,
        weight: 1.0,
        indices: (number * BATCH..(number + 1) * BATCH).collect(),
        last: false,
        bad: 0,
    }
}

/// The time in which `batches` come out.
fn through(source: Arc<dyn Source>, workers: usize, batches: u64) -> Duration {
    let layout = SlotLayout::new(source.spec(), BATCH);
    let slots = (0..SLOTS).map(|i| Slot::host(i, layout.slot_bytes)).collect();
    let preparation = Preparation {
        train: source,
        validation: None,
        transforms: Vec::new(),
        held_out: Vec::new(),
        layout,
        seed: 0,
        workers,
        find: Default::default(),
        quarantine: Arc::new(Quarantine::errors()),
        supply: Default::default(),
    };
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let pipeline = Pipeline::start(slots, (0..).map(batch), preparation, move |ends| {
        // The ring is full and all workers are busy by then.
        let mut began = Instant::now();
        for i in 0..batches + SLOTS as u64 {
            let filled = ends.full.recv().expect("a batch").expect("no failure");
            if i + 1 == SLOTS as u64 {
                began = Instant::now();
            }
            let _ = ends.empty.send(filled.slot);
        }
        let _ = sender.send(began.elapsed());
    });
    let time = receiver.recv().expect("the device thread tells");
    drop(pipeline);
    time
}

/// One batch after the other, as it was before batches were prepared at once.
fn one_by_one(source: &dyn Source, workers: usize, batches: u64) -> Duration {
    let layout = SlotLayout::new(source.spec(), BATCH);
    let mut slot = Slot::host(0, layout.slot_bytes);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("a pool");
    let times = StageCounters::default();
    let began = Instant::now();
    for number in 0..batches as usize {
        let indices = batch(number).indices;
        let keys = Keys::default();
        let filled = pool.install(|| fill(&mut slot, &layout, source, &[], &indices, keys, &times));
        filled.expect("no failure");
    }
    began.elapsed()
}

fn batches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batches");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(500));
    let mean = Duration::from_micros(100);
    let cases = [("even", 1, false, 2), ("uneven", 32, false, 2), ("uneven-sleep", 32, true, 16)];
    for (name, every, sleeps, workers) in cases {
        let source = Arc::new(Uneven::new(mean, every, sleeps));
        group.bench_function(format!("{name}-one-by-one/{BATCH}"), |bencher| {
            bencher.iter_custom(|n| one_by_one(&*source, workers, n));
        });
        group.bench_function(format!("{name}-at-once/{BATCH}"), |bencher| {
            bencher.iter_custom(|n| through(source.clone(), workers, n));
        });
    }
    group.finish();
}

criterion_group!(benches, batches);
criterion_main!(benches);
