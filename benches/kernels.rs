//! The twins that a step spends its time in, at the sizes of `mlp` and `cnn` with 128 samples a batch.
//!
//! Ids are `operation/size`. Throughput counts a multiplication and an addition as two operations, so
//! that criterion's "elem/s" reads as FLOP/s.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inflight::cpu::call::Scratch;
use inflight::cpu::conv2d::{Convolution, conv2d, conv2d_input_grad, conv2d_weight_grad};
use inflight::cpu::gemm::Matrix;
use inflight::cpu::matmul::matmul;
use inflight::cpu::optimizer::{Memory, optimizer_update};
use inflight::graph::op::{Activation, ConvGeometry, UpdateRule};

const BATCH: usize = 128;

/// Numbers of both signs, none of them subnormal.
fn data(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7 % 23) as f32 / 11.0 - 1.01).collect()
}

/// y\[m, n\] = op(a) op(b), with the layer that asks for it.
fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("matmul");
    for (id, m, n, k, transpose_a, transpose_b) in [
        ("mlp.0 forward 128x512x784", BATCH, 512, 784, false, true),
        ("mlp.0 weight gradient 512x784x128", 512, 784, BATCH, true, false),
        // An inner stride of a power of two, hard on the cache.
        ("mlp.2 forward 128x512x512", BATCH, 512, 512, false, true),
        ("mlp.2 input gradient 128x512x512", BATCH, 512, 512, false, false),
        // Too narrow for more than one tile.
        ("mlp.4 forward 128x10x512", BATCH, 10, 512, false, true),
        ("cnn.7 forward 128x128x1568", BATCH, 128, 1568, false, true),
    ] {
        let (a, b, bias) = (data(m * k), data(k * n), data(n));
        let a = match transpose_a {
            true => Matrix::new(&a, k, m).transposed(),
            false => Matrix::new(&a, m, k),
        };
        let b = match transpose_b {
            true => Matrix::new(&b, n, k).transposed(),
            false => Matrix::new(&b, k, n),
        };
        let mut y = vec![0.0; m * n];
        group.throughput(Throughput::Elements(2 * (m * n * k) as u64));
        group.bench_function(id, |bench| {
            bench.iter(|| matmul(black_box(a), b, Some(&bias), Activation::Relu, &mut y));
        });
    }
    group.finish();
}

/// The convolutions of `cnn`: 3 × 3, one pixel of padding.
fn convolutions(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    for (id, channels, outputs, side) in
        [("cnn.0 1>16 28x28", 1, 16, 28), ("cnn.3 16>32 14x14", 16, 32, 14)]
    {
        let (xs, ys) = ([BATCH, channels, side, side], [BATCH, outputs, side, side]);
        let ws = [outputs, channels, 3, 3];
        let geometry = ConvGeometry { stride: [1, 1], padding: [1, 1], groups: 1 };
        let convolution = Convolution::new(&xs, &ws, &ys, geometry);
        let len = |shape: [usize; 4]| shape.iter().product::<usize>();
        let (x, w, dy, bias) = (data(len(xs)), data(len(ws)), data(len(ys)), data(outputs));
        let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), w.clone());
        let matrix = channels * 9 * side * side;
        let scratch = Scratch::new(convolution.scratch_len(BATCH), rayon::current_num_threads());
        group.throughput(Throughput::Elements(2 * (BATCH * outputs * matrix) as u64));
        group.bench_function(format!("{id} forward"), |bench| {
            bench.iter(|| {
                let relu = Activation::Relu;
                conv2d(black_box(&x), &w, Some(&bias), relu, convolution, &scratch, &mut y);
            });
        });
        group.bench_function(format!("{id} input gradient"), |bench| {
            bench.iter(|| conv2d_input_grad(black_box(&dy), &w, convolution, &scratch, &mut dx));
        });
        group.bench_function(format!("{id} weight gradient"), |bench| {
            bench.iter(|| conv2d_weight_grad(black_box(&x), &dy, convolution, &scratch, &mut dw));
        });
    }
    group.finish();
}

/// AdamW over all parameters of `mlp`; the throughput is what memory has to carry.
fn update(c: &mut Criterion) {
    const PARAMETERS: usize = 669_706;
    let rule = UpdateRule::Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
    };
    // Control as after a first step, without clipping.
    let control = [0.1, 0.001, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0];
    let gradients = data(PARAMETERS);
    let (mut parameters, mut first, mut second) =
        (data(PARAMETERS), data(PARAMETERS), data(PARAMETERS));
    second.iter_mut().for_each(|v| *v = v.abs());
    let mut group = c.benchmark_group("optimizer_update");
    group.throughput(Throughput::Bytes(7 * 4 * PARAMETERS as u64));
    group.bench_function("adamw mlp 669706", |bench| {
        bench.iter(|| {
            let memory = Memory {
                gradients: black_box(&gradients),
                parameters: &mut parameters,
                first: Some(&mut first),
                second: Some(&mut second),
            };
            optimizer_update(rule, &control, 1e-3, memory);
        });
    });
    group.finish();
}

criterion_group! {
    name = kernels;
    // Short: each call takes milliseconds at most and the machine is shared.
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    targets = products, convolutions, update
}
criterion_main!(kernels);
