//! The kernels that a step spends its time in, and what a step costs the host.
//!
//! - `kernel/DEVICE/NAME`: one operation, by the device's own clock; the names are those of `inflight bench
//!   kernels`. Throughput counts a multiply-add as two operations, so that criterion's "elem/s" reads as
//!   FLOP/s; operations that are no products count bytes.
//! - `record/DEVICE/MODEL/128` and `submit/DEVICE/MODEL/128`: what a step costs the host before the device can begin,
//!   apart from computing it: recording it anew, and handing it to the driver. Twins need neither.
//!
//! Devices come from the environment variable `INFLIGHT_BENCH_DEVICES` (`cpu,llvmpipe`); by default `cpu`.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inflight::bench::train::{Road, StepTimes};
use inflight::bench::{Bed, Options, kernels};
use inflight::executor::Tune;
use inflight::gpu::tune::Choices;

fn devices() -> Vec<String> {
    let list = std::env::var("INFLIGHT_BENCH_DEVICES").unwrap_or_else(|_| "cpu".into());
    list.split(',').map(String::from).collect()
}

/// Squares of up to 1024, and the operations of the small models at the default batch. Not tuned, so that
/// runs compare.
fn options() -> Options {
    Options {
        quick: true,
        models: vec!["mlp".into(), "cnn".into()],
        batch_size: 128,
        precision: "f32".into(),
        tune: Tune::Off,
    }
}

fn kernel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernel");
    for device in devices() {
        let mut bed = Bed::open(&device).expect("the device opens");
        for kernel in kernels::list(&options()).expect("the models are known") {
            let cost = kernel.cost();
            group.throughput(match cost.flops {
                0 => Throughput::Bytes(cost.bytes),
                flops => Throughput::Elements(flops),
            });
            let ready = kernel.ready(&mut bed, &Choices::default()).expect("it fits the device");
            let mut ready = ready.expect("its result is right");
            group.bench_function(format!("{device}/{}", kernel.name), |bencher| {
                bencher.iter_custom(|repetitions| {
                    let seconds = ready.run(repetitions as usize).expect("the device answers");
                    Duration::from_secs_f64(seconds)
                });
            });
        }
    }
    group.finish();
}

/// What is taken from the times of a step.
type Seconds = fn(&StepTimes) -> f64;

fn host(criterion: &mut Criterion) {
    let measures: [(&str, Seconds); 2] =
        [("record", |step| step.record_s), ("submit", |step| step.submit_s)];
    for device in devices().iter().filter(|device| *device != "cpu") {
        let bed = Bed::open(device).expect("the device opens");
        for model in options().models {
            let mut road = Road::open(&bed, &model, &options()).expect("the model fits");
            for (what, seconds) in measures {
                let mut group = criterion.benchmark_group(what);
                group.bench_function(format!("{device}/{model}/128"), |bencher| {
                    bencher.iter_custom(|count| {
                        let steps = road.steps(count as usize, f64::INFINITY);
                        let steps = steps.expect("the device answers");
                        Duration::from_secs_f64(steps.iter().map(seconds).sum())
                    });
                });
                group.finish();
            }
        }
    }
}

criterion_group! {
    name = benches;
    // Short: each call takes milliseconds at most and the machine is shared.
    config = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(1));
    targets = kernel, host
}
criterion_main!(benches);
