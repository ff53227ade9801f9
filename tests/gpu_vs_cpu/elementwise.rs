//! Elements to elements.

use inflight::batch::DType;
use inflight::framing::{FRAMING_WORDS, Framing};
use inflight::gpu::Executor;
use inflight::graph::op::Op;
use inflight::rng::Rng;

use crate::bench::{Bench, context};
use crate::{SIZES, below, header, normal};

fn check(op: Op, operands: usize, atol: f64) {
    for n in SIZES {
        let mut bench = Bench::new(1, header(1));
        let inputs: Vec<_> =
            (0..operands).map(|i| bench.f32(&[n], &normal(n as u64 + 7 * i as u64, n))).collect();
        let y = bench.output(&[n]);
        bench.push(op, &inputs, &[y]);
        bench.check(atol, 1e-6);
    }
}

#[test]
fn relu() {
    check(Op::Relu, 1, 0.0);
}

#[test]
fn relu_grad() {
    check(Op::ReluGrad, 2, 0.0);
}

#[test]
fn gelu() {
    check(Op::Gelu, 1, 1e-6);
}

#[test]
fn gelu_grad() {
    check(Op::GeluGrad, 2, 2e-6);
}

#[test]
fn gelu_tanh() {
    check(Op::GeluTanh, 1, 1e-6);
}

#[test]
fn gelu_tanh_grad() {
    check(Op::GeluTanhGrad, 2, 2e-6);
}

#[test]
fn swiglu() {
    check(Op::SwiGlu, 2, 1e-6);
}

#[test]
fn swiglu_grad() {
    for n in SIZES {
        let mut bench = Bench::new(1, header(1));
        let inputs = [1, 2, 3].map(|key| bench.f32(&[n], &normal(key, n)));
        let outputs = [(); 2].map(|()| bench.output(&[n]));
        bench.push(Op::SwiGluGrad, &inputs, &outputs);
        bench.check(2e-6, 2e-6);
    }
}

#[test]
fn swiglu_of_large_gates_is_up_times_gate_or_zero() {
    let mut bench = Bench::new(1, header(1));
    let gate = bench.f32(&[6], &[-1e4, -90.0, -6.0, 6.0, 90.0, 1e4]);
    let up = bench.f32(&[6], &[0.5, 1.0, -2.0, 3.0, 1.0, 0.5]);
    let y = bench.output(&[6]);
    bench.push(Op::SwiGlu, &[gate, up], &[y]);
    bench.check(1e-6, 1e-5);
}

#[test]
fn gelu_tanh_of_large_values_is_the_identity_or_zero() {
    let mut bench = Bench::new(1, header(1));
    let x = bench.f32(&[6], &[-1e4, -30.0, -6.0, 6.0, 30.0, 1e4]);
    let y = bench.output(&[6]);
    bench.push(Op::GeluTanh, &[x], &[y]);
    bench.check(1e-7, 1e-5);
}

#[test]
fn gelu_of_large_values_is_the_identity_or_zero() {
    let mut bench = Bench::new(1, header(1));
    let x = bench.f32(&[6], &[-1e4, -30.0, -6.0, 6.0, 30.0, 1e4]);
    let y = bench.output(&[6]);
    bench.push(Op::Gelu, &[x], &[y]);
    bench.check(1e-7, 1e-5);
}

#[test]
fn add() {
    check(Op::Add, 2, 0.0);
}

#[test]
fn add_relu_grad() {
    check(Op::AddReluGrad, 3, 0.0);
}

#[test]
fn mul() {
    check(Op::Mul, 2, 0.0);
}

#[test]
fn scale() {
    check(Op::Scale { factor: -0.75 }, 1, 0.0);
}

#[test]
fn cast() {
    check(Op::Cast, 1, 0.0);
}

#[test]
fn what_is_too_large_for_16_bits_becomes_infinite_and_nan_stays() {
    let mut bench = Bench::new(1, header(1));
    let values = [65504.0, 65520.0, -65520.0, 1e6, -1e30, f32::INFINITY, f32::NAN, 6e-8, 1e-9];
    let x = bench.f32(&[values.len()], &values);
    let half = bench.between(&[values.len()], DType::F16);
    let y = bench.output(&[values.len()]);
    bench.push(Op::Cast, &[x], &[half]);
    bench.push(Op::Cast, &[half], &[y]);
    for results in bench.on_both().into_iter().chain([bench.on_cpu()]) {
        let y = &results[0];
        assert_eq!(y[0], 65504.0);
        assert_eq!(
            [y[1], y[2], y[3], y[4], y[5]],
            [1.0, -1.0, 1.0, -1.0, 1.0].map(|x: f32| x / 0.0)
        );
        assert!(y[6].is_nan());
        // The least number of 16 bits, 2^-24, and below half of it.
        assert_eq!(y[7..], [f32::exp2(-24.0), 0.0]);
    }
}

#[test]
fn a_device_without_16_bits_says_so() {
    let mut bench = Bench::new(1, header(1));
    let x = bench.f32(&[4], &[1.0; 4]);
    let half = bench.between(&[4], DType::F16);
    bench.push(Op::Cast, &[x], &[half]);
    let Some(context) = context() else { return };
    let error = Executor::new(context.without_half(), bench.program(), 1).expect_err("refused");
    let message = error.to_string();
    assert!(message.contains("16-bit floats") && message.contains("--precision f32"), "{message}");
}

#[test]
fn a_tensor_with_itself() {
    let mut bench = Bench::new(1, header(1));
    let x = bench.f32(&[65], &normal(1, 65));
    let y = bench.output(&[65]);
    bench.push(Op::Mul, &[x, x], &[y]);
    bench.check(0.0, 1e-6);
}

#[test]
fn normalize_u8() {
    for (n, c, plane) in [(1, 1, 1), (3, 1, 21), (2, 3, 11), (5, 3, 64), (65, 1, 784)] {
        let mut bench = Bench::new(n, header(n));
        let bytes: Vec<u8> =
            below(n as u64, 256, n * c * plane).into_iter().map(|x| x as u8).collect();
        let x = bench.u8(&[n, c, plane], &bytes);
        let scale = bench.f32(&[c], &normal(1, c));
        let shift = bench.f32(&[c], &normal(2, c));
        let y = bench.output(&[n, c, plane]);
        bench.push(Op::NormalizeU8, &[x, scale, shift], &[y]);
        bench.check(1e-4, 1e-6);
    }
}

/// A framing at random: mirrored, shifted out of sight at times, covered.
fn framing(size @ [height, width]: [usize; 2], rng: &mut Rng) -> Framing {
    let mut framing = Framing::whole(size);
    for _ in 0..rng.below(4) {
        match rng.below(3) {
            0 => framing.mirror_rows(height),
            1 => framing.mirror_columns(width),
            _ => framing.shift([(); 2].map(|()| rng.below(13) as i64 - 6), size, 0x30_20_10),
        }
    }
    if rng.below(2) == 0 {
        let mut range = |side: usize| {
            let [a, b] = [(); 2].map(|()| rng.below(side as u64 + 1) as usize);
            a.min(b)..a.max(b)
        };
        framing.cover_by(range(height), range(width), 0x00_ff_80);
    }
    framing
}

#[test]
fn augment_u8() {
    let shapes = [
        [1, 1, 1, 1],
        [3, 1, 1, 7],
        [5, 3, 7, 1],
        [9, 3, 7, 7],
        [4, 1, 63, 65],
        [3, 3, 65, 64],
        [33, 1, 28, 28],
        [16, 2, 8, 4],
    ];
    for shape @ [n, c, height, width] in shapes {
        let mut rng = Rng::keyed(&[n as u64, width as u64]);
        // The last sample is padding.
        let mut framings: Vec<Framing> =
            (1..n).map(|_| framing([height, width], &mut rng)).collect();
        framings.push(Framing::default());
        let mut bench = Bench::new(n, header(n));
        let bytes: Vec<u8> =
            below(n as u64, 256, n * c * height * width).into_iter().map(|x| x as u8).collect();
        let x = bench.u8(&shape, &bytes);
        let scale = bench.f32(&[c], &normal(1, c));
        let shift = bench.f32(&[c], &normal(2, c));
        let framings = bench.u32(&[n, FRAMING_WORDS], bytemuck::cast_slice(&framings));
        let y = bench.output(&shape);
        bench.push(Op::AugmentU8, &[x, scale, shift, framings], &[y]);
        bench.check(1e-4, 1e-6);
    }
}

#[test]
fn bias() {
    for shape in [&[1, 1][..], &[3, 65], &[7, 10], &[2, 3, 5, 7], &[64, 16, 8, 8]] {
        let len = shape.iter().product();
        let mut bench = Bench::new(1, header(1));
        let x = bench.f32(shape, &normal(1, len));
        let bias = bench.f32(&shape[1..2], &normal(2, shape[1]));
        let y = bench.output(shape);
        bench.push(Op::Bias, &[x, bias], &[y]);
        bench.check(0.0, 1e-6);
    }
}

#[test]
fn broadcast() {
    for (shape, axis, len) in [(&[7][..], 0, 65), (&[63], 1, 3), (&[4, 5], 1, 6), (&[4, 5], 2, 64)]
    {
        let mut bench = Bench::new(1, header(1));
        let x = bench.f32(shape, &normal(1, shape.iter().product()));
        let mut repeated = shape.to_vec();
        repeated.insert(axis, len);
        let y = bench.output(&repeated);
        bench.push(Op::Broadcast { axis, len, factor: 0.3 }, &[x], &[y]);
        bench.check(0.0, 1e-6);
    }
}

#[test]
fn dropout_drops_the_same_elements() {
    for n in SIZES {
        for (p, salt) in [(0.0, 1), (0.5, 0), (0.9, u32::MAX)] {
            let mut bench = Bench::new(1, header(1));
            let x = bench.f32(&[n], &normal(n as u64, n));
            let h = bench.header();
            let y = bench.output(&[n]);
            bench.push(Op::Dropout { p, salt }, &[x, h], &[y]);
            bench.check(0.0, 1e-6);
        }
    }
}

#[test]
fn dropout_keeps_the_share_it_should() {
    let n = 20_000;
    let mut bench = Bench::new(1, header(1));
    let x = bench.f32(&[n], &vec![1.0; n]);
    let h = bench.header();
    let y = bench.output(&[n]);
    bench.push(Op::Dropout { p: 0.25, salt: 3 }, &[x, h], &[y]);
    let Some(results) = bench.on_gpu() else { return };
    let dropped = results[0].iter().filter(|&&y| y == 0.0).count() as f64 / n as f64;
    // Four standard deviations.
    assert!((dropped - 0.25).abs() < 0.0123, "{dropped}");
}
