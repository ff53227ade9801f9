//! Whole training steps through the whole pipeline, from the data set to the report on the host.
//!
//! - `step/DEVICE/MODEL/128`: the time a step takes in a full pipeline; 128 is the default batch.
//! - `overlap/…`: a source that sleeps as long as a step computes. `prepare` and `compute` are the two stages
//!   alone, `pipeline` both at once, `sync` both one after the other.
//!
//! Devices come from the environment variable `INFLIGHT_BENCH_DEVICES` (`cpu,llvmpipe`); by default `cpu`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use inflight::nn::models;
use inflight::source::{Cost, OpenOptions, Source, Synthetic, open};
use inflight::{RunConfig, Trainer};

const BATCH: usize = 128;

fn devices() -> Vec<String> {
    let list = std::env::var("INFLIGHT_BENCH_DEVICES").unwrap_or_else(|_| "cpu".into());
    list.split(',').map(String::from).collect()
}

fn config(device: &str) -> RunConfig {
    RunConfig {
        device: device.into(),
        batch_size: BATCH,
        // More than any benchmark runs.
        steps: Some(1 << 32),
        ..Default::default()
    }
}

fn trainer(model: &str, source: Arc<dyn Source>, config: RunConfig) -> Trainer {
    let model = models::by_name(model, source.spec()).expect("the model fits");
    let trainer = Trainer::builder(model, source).config(config).start().expect("it starts");
    run(&trainer, 5);
    trainer
}

/// Time from asking for `steps` steps at once until the last has answered.
fn run(trainer: &Trainer, steps: u64) -> Duration {
    let began = Instant::now();
    let mut left = steps;
    while left > 0 {
        // Fewer than the mailbox holds, so that asking never waits.
        let promises: Vec<_> = (0..left.min(512)).map(|_| trainer.step()).collect();
        left -= promises.len() as u64;
        for promise in promises {
            pollster::block_on(promise).expect("the step succeeds");
        }
    }
    began.elapsed()
}

fn step(criterion: &mut Criterion) {
    let options = OpenOptions { offline: true, ..Default::default() };
    let data = open("fashion-mnist-10k", &options).expect("lies in-tree");
    let mut group = criterion.benchmark_group("step");
    group.sample_size(10);
    for device in devices() {
        for model in ["mlp", "cnn"] {
            let trainer = trainer(model, data.train.clone(), config(&device));
            group.bench_function(format!("{device}/{model}/{BATCH}"), |bencher| {
                bencher.iter_custom(|steps| run(&trainer, steps));
            });
        }
    }
}

/// Sleeping takes no core, so many workers can sleep at once; each sleep is then long enough to be exact.
const SLEEPERS: usize = 16;

fn overlap(criterion: &mut Criterion) {
    let options = OpenOptions { offline: true, ..Default::default() };
    let spec = open("fashion-mnist-10k", &options).expect("lies in-tree").train.spec().clone();
    let source = |cost| -> Arc<dyn Source> {
        let synthetic = Synthetic::new(8192, spec.clone(), 1).expect("a usable spec");
        Arc::new(synthetic.cost(cost))
    };
    let mut group = criterion.benchmark_group("overlap");
    group.sample_size(10);
    for device in devices() {
        let compute = trainer("cnn", source(Cost::None), config(&device));
        let step = (0..3).map(|_| run(&compute, 20) / 20).min().expect("three runs");
        let cost = Cost::Sleep(step * SLEEPERS as u32 / BATCH as u32);
        let with = |sync| RunConfig { workers: SLEEPERS, sync, ..config(&device) };
        let pipeline = trainer("cnn", source(cost), with(false));
        let sync = trainer("cnn", source(cost), with(true));
        group.bench_function(format!("compute/{device}"), |bencher| {
            bencher.iter_custom(|steps| run(&compute, steps));
        });
        group.bench_function(format!("prepare/{device}"), |bencher| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(SLEEPERS).build().expect("a pool");
            let source = source(cost);
            let layout = inflight::batch::SlotLayout::new(source.spec(), BATCH);
            let mut slot = inflight::batch::Slot::host(0, layout.slot_bytes);
            let indices: Vec<usize> = (0..BATCH).collect();
            let times = Default::default();
            bencher.iter(|| {
                let keys = Default::default();
                let fill = || {
                    inflight::prepare::fill(
                        &mut slot,
                        &layout,
                        &*source,
                        &[],
                        &indices,
                        keys,
                        &times,
                    )
                };
                pool.install(fill).expect("synthetic samples are whole");
            });
        });
        group.bench_function(format!("pipeline/{device}"), |bencher| {
            bencher.iter_custom(|steps| run(&pipeline, steps));
        });
        group.bench_function(format!("sync/{device}"), |bencher| {
            bencher.iter_custom(|steps| run(&sync, steps));
        });
    }
}

criterion_group!(benches, step, overlap);
criterion_main!(benches);
