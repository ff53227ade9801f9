//! Pooling.

use inflight::batch::DType;
use inflight::graph::op::{Op, PoolGeometry};

use crate::bench::Bench;
use crate::{below, header, normal};

/// Images and windows: exact tilings, leftovers, overlaps, padding, one window, uneven sides.
const CASES: [([usize; 4], PoolGeometry); 8] = [
    ([1, 1, 2, 2], geometry([2, 2], [2, 2], [0, 0])),
    ([3, 2, 8, 8], geometry([2, 2], [2, 2], [0, 0])),
    ([2, 3, 7, 9], geometry([2, 2], [2, 2], [0, 0])),
    ([2, 3, 6, 4], geometry([3, 2], [3, 2], [0, 0])),
    ([2, 2, 9, 7], geometry([3, 3], [2, 2], [1, 1])),
    ([1, 5, 6, 6], geometry([3, 2], [1, 1], [1, 0])),
    ([2, 65, 4, 4], geometry([4, 4], [4, 4], [0, 0])),
    ([1, 2, 10, 11], geometry([2, 3], [3, 4], [1, 1])),
];

const fn geometry(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> PoolGeometry {
    PoolGeometry { kernel, stride, padding }
}

fn windows(image: [usize; 4], g: PoolGeometry) -> [usize; 4] {
    let side = |i: usize| (image[2 + i] + 2 * g.padding[i] - g.kernel[i]) / g.stride[i] + 1;
    [image[0], image[1], side(0), side(1)]
}

#[test]
fn max_pool2d_and_its_gradient() {
    for (image, geometry) in CASES {
        let out = windows(image, geometry);
        let mut bench = Bench::new(1, header(1));
        // Few different values, so that windows hold several maxima, of which the first must count.
        let values: Vec<f32> =
            below(3, 5, image.iter().product()).iter().map(|&x| x as f32).collect();
        let x = bench.f32(&image, &values);
        let dy = bench.f32(&out, &normal(4, out.iter().product()));
        let index = bench.between(&out, DType::U32);
        let y = bench.output(&out);
        let dx = bench.output(&image);
        bench.push(Op::MaxPool2d { geometry }, &[x], &[y, index]);
        bench.push(Op::MaxPool2dGrad { geometry }, &[dy, index], &[dx]);
        bench.check(1e-6, 1e-6);
    }
}

#[test]
fn max_pool2d_of_negative_values_never_chooses_the_padding() {
    let geometry = geometry([3, 3], [2, 2], [1, 1]);
    let mut bench = Bench::new(1, header(1));
    let values: Vec<f32> = normal(1, 36).iter().map(|x| -1.0 - x.abs()).collect();
    let x = bench.f32(&[1, 1, 6, 6], &values);
    let y = bench.output(&[1, 1, 3, 3]);
    let index = bench.between(&[1, 1, 3, 3], DType::U32);
    bench.push(Op::MaxPool2d { geometry }, &[x], &[y, index]);
    bench.check(0.0, 0.0);
}

#[test]
fn avg_pool2d() {
    for (image, geometry) in CASES {
        let out = windows(image, geometry);
        let mut bench = Bench::new(1, header(1));
        let x = bench.f32(&image, &normal(1, image.iter().product()));
        let y = bench.output(&out);
        bench.push(Op::AvgPool2d { geometry }, &[x], &[y]);
        bench.check(1e-6, 1e-6);
    }
}

#[test]
fn avg_pool2d_grad() {
    for (image, geometry) in CASES {
        let out = windows(image, geometry);
        let mut bench = Bench::new(1, header(1));
        let dy = bench.f32(&out, &normal(1, out.iter().product()));
        let dx = bench.output(&image);
        bench.push(Op::AvgPool2dGrad { geometry }, &[dy], &[dx]);
        bench.check(1e-6, 1e-6);
    }
}
