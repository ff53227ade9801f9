//! Matrix products and convolutions, at sizes that straddle tiles, lanes, fours and chunks.

use inflight::graph::TensorId;
use inflight::graph::op::{Activation, ConvGeometry, Op};

use crate::bench::Bench;
use crate::{header, normal};

const TRANSPOSITIONS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];
const ACTIVATIONS: [Activation; 4] =
    [Activation::Identity, Activation::Relu, Activation::Gelu, Activation::GeluTanh];

fn input(bench: &mut Bench, key: u64, shape: &[usize]) -> TensorId {
    bench.f32(shape, &normal(key, shape.iter().product()))
}

/// Expects the same from shader and twin up to the rounding of sums of so many standard normal
/// products: their partial sums grow with the root of the number, and so do the roundings in all.
#[track_caller]
fn check(bench: &Bench, terms: usize) {
    bench.check(1e-6 + 1e-7 * terms as f64, 1e-6);
}

/// Adds a matrix product without bias and activation.
fn matmul(bench: &mut Bench, [m, n, k]: [usize; 3], [ta, tb]: [bool; 2]) {
    let a = input(bench, 1, &if ta { [k, m] } else { [m, k] });
    let b = input(bench, 2, &if tb { [n, k] } else { [k, n] });
    let y = bench.output(&[m, n]);
    bench.push(plain(ta, tb), &[a, b], &[y]);
}

fn plain(transpose_a: bool, transpose_b: bool) -> Op {
    Op::MatMul { transpose_a, transpose_b, bias: false, activation: Activation::Identity }
}

#[test]
fn matmul_of_any_size_in_all_transpositions() {
    // One, below, at and above the lanes, the tiles, and fours, in each dimension.
    let sizes = [
        [1, 1, 1],
        [1, 9, 17],
        [7, 8, 3],
        [9, 130, 4],
        [63, 65, 17],
        [64, 64, 64],
        [130, 7, 20],
        [68, 36, 12],
    ];
    for size in sizes {
        let mut bench = Bench::new(1, header(1));
        for transpose in TRANSPOSITIONS {
            matmul(&mut bench, size, transpose);
        }
        check(&bench, size[2]);
    }
}

#[test]
fn matmul_of_many_workgroups() {
    let mut bench = Bench::new(1, header(1));
    for transpose in TRANSPOSITIONS {
        matmul(&mut bench, [516, 516, 20], transpose);
    }
    matmul(&mut bench, [1030, 1029, 3], [false, false]);
    check(&bench, 20);
}

#[test]
fn matmul_with_a_long_sum() {
    let mut bench = Bench::new(1, header(1));
    for transpose in [[true, false], [false, true]] {
        for size in [[5, 10, 1027], [32, 9, 4100], [40, 40, 2051]] {
            matmul(&mut bench, size, transpose);
        }
    }
    check(&bench, 4100);
}

#[test]
fn matmul_with_bias_and_activation() {
    let mut bench = Bench::new(1, header(1));
    for activation in ACTIVATIONS {
        for bias in [false, true] {
            // The last one's sum is cut.
            for [m, n, k] in [[9, 10, 12], [33, 68, 7], [9, 20, 600]] {
                let mut inputs = vec![input(&mut bench, 1, &[m, k]), input(&mut bench, 2, &[n, k])];
                inputs.extend(bias.then(|| input(&mut bench, 3, &[n])));
                let y = bench.output(&[m, n]);
                let op = Op::MatMul { transpose_a: false, transpose_b: true, bias, activation };
                bench.push(op, &inputs, &[y]);
            }
        }
    }
    check(&bench, 601);
}

#[test]
fn an_infinity_reaches_exactly_the_row_or_column_it_belongs_to() {
    for [m, n, k] in [[9, 11, 6], [12, 12, 20]] {
        let mut bench = Bench::new(1, header(1));
        for [ta, tb] in TRANSPOSITIONS {
            // The last elements of both: whatever reads beyond the end of the sum must not repeat
            // them, for an infinity times the zero beside it is not a number.
            let [mut a, mut b] = [normal(1, m * k), normal(2, k * n)];
            a[m * k - 1] = f32::INFINITY;
            b[k * n - 1] = f32::INFINITY;
            let a = bench.f32(&if ta { [k, m] } else { [m, k] }, &a);
            let b = bench.f32(&if tb { [n, k] } else { [k, n] }, &b);
            let y = bench.output(&[m, n]);
            bench.push(plain(ta, tb), &[a, b], &[y]);
        }
        for y in bench.on_both().iter().flatten() {
            for (i, y) in y.iter().enumerate() {
                let touched = i / n == m - 1 || i % n == n - 1;
                assert!(if touched { y.is_infinite() } else { y.is_finite() }, "element {i}: {y}");
            }
        }
    }
}

/// A convolution: images `[n, c, h, w]`, output channels, kernel.
#[derive(Clone, Copy)]
struct Conv {
    x: [usize; 4],
    outputs: usize,
    kernel: [usize; 2],
    geometry: ConvGeometry,
}

impl Conv {
    const fn new(x: [usize; 4], outputs: usize, kernel: [usize; 2]) -> Self {
        let geometry = ConvGeometry { stride: [1, 1], padding: [0, 0], groups: 1 };
        Self { x, outputs, kernel, geometry }
    }

    const fn with(mut self, stride: [usize; 2], padding: [usize; 2], groups: usize) -> Self {
        self.geometry = ConvGeometry { stride, padding, groups };
        self
    }

    fn w(&self) -> [usize; 4] {
        [self.outputs, self.x[1] / self.geometry.groups, self.kernel[0], self.kernel[1]]
    }

    fn y(&self) -> [usize; 4] {
        let ConvGeometry { stride, padding, .. } = self.geometry;
        let side = |i: usize| (self.x[2 + i] + 2 * padding[i] - self.kernel[i]) / stride[i] + 1;
        [self.x[0], self.outputs, side(0), side(1)]
    }

    fn forward(&self, bench: &mut Bench, bias: bool, activation: Activation) {
        let mut inputs = vec![input(bench, 1, &self.x), input(bench, 2, &self.w())];
        inputs.extend(bias.then(|| input(bench, 3, &[self.outputs])));
        let y = bench.output(&self.y());
        bench.push(Op::Conv2d { geometry: self.geometry, bias, activation }, &inputs, &[y]);
    }

    fn gradients(&self, bench: &mut Bench) {
        let geometry = self.geometry;
        let [x, w, dy] = [(1, self.x), (2, self.w()), (4, self.y())];
        let [x, w, dy] = [x, w, dy].map(|(key, shape)| input(bench, key, &shape));
        let [dx, dw] = [self.x, self.w()].map(|shape| bench.output(&shape));
        bench.push(Op::Conv2dInputGrad { geometry }, &[dy, w], &[dx]);
        bench.push(Op::Conv2dWeightGrad { geometry }, &[x, dy], &[dw]);
    }
}

/// Every kind of geometry: strides, padding, uneven kernels and images, planes and kernels of a
/// multiple of four and not, one tap, one pixel, groups, depthwise.
const CONVOLUTIONS: [Conv; 19] = [
    Conv::new([3, 1, 8, 8], 16, [3, 3]).with([1, 1], [1, 1], 1),
    Conv::new([2, 3, 5, 7], 5, [1, 1]),
    Conv::new([3, 2, 9, 6], 33, [3, 3]).with([2, 2], [1, 1], 1),
    Conv::new([1, 4, 11, 8], 6, [5, 5]).with([1, 2], [2, 2], 2),
    Conv::new([2, 4, 7, 10], 8, [3, 1]).with([2, 1], [0, 2], 1),
    Conv::new([3, 20, 4, 4], 9, [2, 3]).with([1, 1], [1, 0], 1),
    Conv::new([1, 1, 3, 3], 1, [3, 3]),
    Conv::new([3, 6, 6, 5], 10, [3, 3]).with([1, 1], [1, 1], 2),
    Conv::new([2, 6, 6, 8], 6, [3, 3]).with([2, 2], [1, 1], 6),
    Conv::new([3, 3, 5, 5], 6, [1, 1]).with([1, 1], [0, 0], 3),
    // Pixel by pixel: planes and channels of a multiple of four and not, one past a tile, in groups.
    Conv::new([2, 36, 6, 6], 65, [1, 1]),
    Conv::new([3, 129, 3, 4], 6, [1, 1]),
    Conv::new([5, 8, 7, 7], 33, [1, 1]),
    Conv::new([2, 8, 4, 5], 12, [1, 1]).with([1, 1], [0, 0], 2),
    Conv::new([2, 4, 5, 4], 4, [1, 1]).with([1, 1], [0, 1], 1),
    // Each channel a group of its own, with one output and with two.
    Conv::new([2, 70, 7, 9], 70, [3, 3]).with([1, 1], [1, 1], 70),
    Conv::new([5, 4, 23, 31], 8, [5, 3]).with([2, 1], [2, 0], 4),
    // Pixels that no window, and taps that few pixels reach.
    Conv::new([2, 5, 7, 6], 4, [1, 1]).with([2, 2], [0, 0], 1),
    Conv::new([2, 3, 9, 8], 6, [2, 3]).with([3, 2], [1, 2], 1),
];

#[test]
fn conv2d() {
    for case in CONVOLUTIONS {
        let mut bench = Bench::new(1, header(1));
        case.forward(&mut bench, false, Activation::Identity);
        check(&bench, 180);
    }
}

#[test]
fn conv2d_gradients() {
    for case in CONVOLUTIONS {
        let mut bench = Bench::new(1, header(1));
        case.gradients(&mut bench);
        check(&bench, 300);
    }
}

#[test]
fn conv2d_with_bias_and_activation() {
    let mut bench = Bench::new(1, header(1));
    for activation in ACTIVATIONS {
        for bias in [false, true] {
            let case = Conv::new([3, 2, 5, 6], 11, [3, 3]).with([1, 1], [1, 1], 1);
            case.forward(&mut bench, bias, activation);
        }
    }
    Conv::new([2, 6, 6, 5], 4, [3, 3]).with([1, 1], [1, 1], 2).forward(
        &mut bench,
        true,
        Activation::Relu,
    );
    check(&bench, 30);
}

#[test]
fn conv2d_weight_gradients_over_many_pixels() {
    let mut bench = Bench::new(1, header(1));
    for outputs in [4, 40] {
        Conv::new([5, 2, 23, 21], outputs, [3, 3]).with([1, 1], [1, 1], 1).gradients(&mut bench);
    }
    check(&bench, 5 * 23 * 21);
}

/// Enough channels and tiles for Winograd's transforms: heights of whole tiles and not, tiles by fours and
/// not.
const WIDE: [Conv; 2] = [
    Conv::new([16, 32, 8, 8], 36, [3, 3]).with([1, 1], [1, 1], 1),
    Conv::new([11, 36, 9, 8], 32, [3, 3]).with([1, 1], [1, 1], 1),
];

#[test]
fn conv2d_of_many_channels() {
    for case in WIDE {
        let mut bench = Bench::new(1, header(1));
        case.forward(&mut bench, true, Activation::Relu);
        case.gradients(&mut bench);
        // Winograd's transforms round more than sums do: results are up to about 100 here.
        bench.check(2e-3, 1e-5);
    }
}

#[test]
fn the_same_bits_come_out_twice() {
    let mut bench = Bench::new(1, header(1));
    matmul(&mut bench, [20, 10, 1500], [true, false]);
    Conv::new([5, 2, 17, 19], 6, [3, 3]).with([1, 1], [1, 1], 1).gradients(&mut bench);
    let bits = |results: Vec<Vec<Vec<f32>>>| -> Vec<u32> {
        results.into_iter().flatten().flatten().map(f32::to_bits).collect()
    };
    assert_eq!(bits(bench.on_both()), bits(bench.on_both()));
}
