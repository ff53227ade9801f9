//! Matrix products and convolutions.

use inflight::graph::op::{Activation, ConvGeometry, Op};

use crate::bench::Bench;
use crate::{header, normal};

#[test]
fn matmul() {
    let sizes = [(1, 1, 1), (63, 65, 64), (64, 64, 64), (65, 63, 130), (128, 10, 300), (3, 200, 7)];
    let forms = [
        (false, false, false, Activation::Identity),
        (false, true, true, Activation::Relu),
        (true, false, false, Activation::Identity),
        (true, true, true, Activation::Gelu),
    ];
    for (m, n, k) in sizes {
        for (transpose_a, transpose_b, bias, activation) in forms {
            let mut bench = Bench::new(1, header(1));
            let a = bench.f32(&if transpose_a { [k, m] } else { [m, k] }, &normal(1, m * k));
            let b = bench.f32(&if transpose_b { [n, k] } else { [k, n] }, &normal(2, k * n));
            let mut inputs = vec![a, b];
            inputs.extend(bias.then(|| bench.f32(&[n], &normal(3, n))));
            let y = bench.output(&[m, n]);
            bench.push(Op::MatMul { transpose_a, transpose_b, bias, activation }, &inputs, &[y]);
            bench.check(1e-4, 1e-4);
        }
    }
}

/// Images [n, c, h, w], output channels, windows, and how they move: as in `cnn`, with groups, strides,
/// uneven sides, and a window as large as the image.
const CONVOLUTIONS: [([usize; 4], usize, [usize; 2], ConvGeometry); 6] = [
    ([1, 1, 1, 1], 1, [1, 1], geometry([1, 1], [0, 0], 1)),
    ([3, 1, 28, 28], 16, [3, 3], geometry([1, 1], [1, 1], 1)),
    ([2, 16, 14, 14], 32, [3, 3], geometry([1, 1], [1, 1], 1)),
    ([2, 6, 9, 7], 4, [3, 2], geometry([2, 1], [1, 0], 2)),
    ([1, 8, 8, 11], 8, [3, 3], geometry([2, 3], [1, 1], 8)),
    ([65, 3, 5, 4], 2, [5, 4], geometry([1, 1], [0, 0], 1)),
];

const fn geometry(stride: [usize; 2], padding: [usize; 2], groups: usize) -> ConvGeometry {
    ConvGeometry { stride, padding, groups }
}

#[test]
fn conv2d_and_its_gradients() {
    for (image, out, window, geometry) in CONVOLUTIONS {
        for (bias, activation) in [(false, Activation::Identity), (true, Activation::Relu)] {
            let side = |i: usize| {
                (image[2 + i] + 2 * geometry.padding[i] - window[i]) / geometry.stride[i] + 1
            };
            let result = [image[0], out, side(0), side(1)];
            let weight = [out, image[1] / geometry.groups, window[0], window[1]];
            let len = |shape: [usize; 4]| shape.iter().product();
            let mut bench = Bench::new(1, header(1));
            let x = bench.f32(&image, &normal(1, len(image)));
            let w = bench.f32(&weight, &normal(2, len(weight)));
            let dy = bench.f32(&result, &normal(3, len(result)));
            let mut inputs = vec![x, w];
            inputs.extend(bias.then(|| bench.f32(&[out], &normal(4, out))));
            let y = bench.output(&result);
            let dx = bench.output(&image);
            let dw = bench.output(&weight);
            bench.push(Op::Conv2d { geometry, bias, activation }, &inputs, &[y]);
            bench.push(Op::Conv2dInputGrad { geometry }, &[dy, w], &[dx]);
            bench.push(Op::Conv2dWeightGrad { geometry }, &[x, dy], &[dw]);
            bench.check(1e-4, 1e-4);
        }
    }
}
