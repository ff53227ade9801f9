//! Every dense operation against a plain reference in f64, in both engines, at sizes that straddle
//! tiles, vectors and chunks.

use super::harness::{Gpu, Values};
use crate::graph::op::{Activation, ConvGeometry, Op};

/// A reference element: the value, and the sum of the terms' magnitudes, which bounds its rounding.
type Reference = (f64, f64);

/// Values in [-1, 1), the same every time.
fn values(shape: &[usize], salt: u32) -> Values {
    let len = shape.iter().product::<usize>() as u32;
    let value = |i: u32| {
        let mut x = (i + 1).wrapping_mul(0x9E37_79B9) ^ salt.wrapping_mul(0x85EB_CA6B);
        x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
        x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
        ((x ^ (x >> 16)) >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (shape.to_vec(), (0..len).map(value).collect())
}

/// Length, finiteness, then the distance to the reference: a sum of `terms` in f32 errs by about the
/// root of their number in units of the last place of its magnitude.
fn assert_close(found: &[f32], expected: &[Reference], terms: usize, case: &str) {
    assert_eq!(found.len(), expected.len(), "{case}: length");
    let rounding = f64::from(f32::EPSILON) * (4.0 + (terms as f64).sqrt());
    for (i, (&y, &(value, magnitude))) in found.iter().zip(expected).enumerate() {
        assert!(y.is_finite(), "{case}: element {i} is {y}, expected {value}");
        let distance = (f64::from(y) - value).abs();
        assert!(
            distance <= 1e-6 + rounding * magnitude,
            "{case}: element {i} is {y}, expected {value}"
        );
    }
}

/// Φ by the Maclaurin series of the error function, exact to f64 for the small arguments here.
fn normal_cdf(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        let n = f64::from(n);
        term *= -z * z / n;
        sum += term / (2.0 * n + 1.0);
    }
    0.5 + sum / std::f64::consts::PI.sqrt()
}

fn activate(activation: Activation, (value, magnitude): Reference) -> Reference {
    let value = match activation {
        Activation::Identity => value,
        Activation::Relu => value.max(0.0),
        Activation::Gelu => value * normal_cdf(value),
    };
    (value, magnitude)
}

fn sum(terms: impl Iterator<Item = (f32, f32)>) -> Reference {
    terms.fold((0.0, 0.0), |(value, magnitude), (a, b)| {
        let product = f64::from(a) * f64::from(b);
        (value + product, magnitude + product.abs())
    })
}

#[derive(Clone, Copy, Debug)]
struct MatMul {
    size: [usize; 3],
    transpose: [bool; 2],
    bias: bool,
    activation: Activation,
}

impl MatMul {
    fn plain(size: [usize; 3], transpose: [bool; 2]) -> Self {
        Self { size, transpose, bias: false, activation: Activation::Identity }
    }

    fn op(&self) -> Op {
        let [transpose_a, transpose_b] = self.transpose;
        Op::MatMul { transpose_a, transpose_b, bias: self.bias, activation: self.activation }
    }

    fn inputs(&self) -> Vec<Values> {
        let [m, n, k] = self.size;
        let [ta, tb] = self.transpose;
        let mut inputs = vec![
            values(&if ta { [k, m] } else { [m, k] }, 1),
            values(&if tb { [n, k] } else { [k, n] }, 2),
        ];
        inputs.extend(self.bias.then(|| values(&[n], 3)));
        inputs
    }

    fn reference(&self, inputs: &[Values]) -> Vec<Reference> {
        let [m, n, k] = self.size;
        let [ta, tb] = self.transpose;
        let (a, b) = (&inputs[0].1, &inputs[1].1);
        let a_at = |i: usize, l: usize| if ta { a[l * m + i] } else { a[i * k + l] };
        let b_at = |l: usize, j: usize| if tb { b[j * k + l] } else { b[l * n + j] };
        let element = |i: usize| {
            let (row, col) = (i / n, i % n);
            let bias = inputs.get(2).map(|bias| (bias.1[col], 1.0));
            let terms = (0..k).map(|l| (a_at(row, l), b_at(l, col)));
            activate(self.activation, sum(terms.chain(bias)))
        };
        (0..m * n).map(element).collect()
    }

    fn check(&self, gpu: &mut Gpu) {
        let [m, n, k] = self.size;
        let inputs = self.inputs();
        let expected = self.reference(&inputs);
        for caps in gpu.regimes() {
            let found = gpu.run(&self.op(), &inputs, &[m, n], &caps);
            assert_close(&found, &expected, k, &format!("{self:?}, software: {}", caps.software));
        }
    }
}

const TRANSPOSITIONS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

#[test]
fn matmul_of_any_size_in_all_transpositions() {
    let Some(mut gpu) = Gpu::open() else { return };
    // One, below, at and above the lanes, the tiles, and fours of each dimension.
    let sizes = [
        [1, 1, 1],
        [1, 9, 17],
        [7, 8, 3],
        [8, 7, 16],
        [9, 130, 4],
        [63, 65, 17],
        [64, 64, 64],
        [65, 63, 3],
        [130, 9, 20],
        [68, 36, 12],
    ];
    for transpose in TRANSPOSITIONS {
        for size in sizes {
            MatMul::plain(size, transpose).check(&mut gpu);
        }
    }
}

#[test]
fn matmul_of_large_tiles_and_many_workgroups() {
    let Some(mut gpu) = Gpu::open() else { return };
    for transpose in TRANSPOSITIONS {
        MatMul::plain([516, 516, 20], transpose).check(&mut gpu);
    }
    MatMul::plain([1030, 1029, 3], [false, false]).check(&mut gpu);
}

#[test]
fn matmul_with_a_long_sum_is_cut_and_added_up() {
    let Some(mut gpu) = Gpu::open() else { return };
    for size in [[5, 10, 1027], [32, 9, 4100], [40, 40, 2051]] {
        for transpose in [[true, false], [false, true]] {
            MatMul::plain(size, transpose).check(&mut gpu);
        }
    }
}

#[test]
fn matmul_with_bias_and_activation() {
    let Some(mut gpu) = Gpu::open() else { return };
    for activation in [Activation::Identity, Activation::Relu, Activation::Gelu] {
        for bias in [false, true] {
            for size in [[9, 10, 12], [33, 65, 7]] {
                let transpose = [false, true];
                MatMul { size, transpose, bias, activation }.check(&mut gpu);
            }
        }
    }
}

#[test]
fn an_infinity_reaches_exactly_the_row_or_column_it_belongs_to() {
    let Some(mut gpu) = Gpu::open() else { return };
    for (transpose, size) in
        TRANSPOSITIONS.into_iter().flat_map(|t| [(t, [9, 11, 6]), (t, [12, 12, 20])])
    {
        let [m, n, _] = size;
        let case = MatMul::plain(size, transpose);
        let mut inputs = case.inputs();
        // The last elements of both: what is read beyond the end of the sum must not repeat them,
        // for an infinity times a zero is no number.
        *inputs[0].1.last_mut().unwrap() = f32::INFINITY;
        *inputs[1].1.last_mut().unwrap() = f32::INFINITY;
        for caps in gpu.regimes() {
            let found = gpu.run(&case.op(), &inputs, &[m, n], &caps);
            for (i, y) in found.iter().enumerate() {
                let touched = i / n == m - 1 || i % n == n - 1;
                assert_eq!(y.is_infinite(), touched, "{case:?}, element {i}: {y}");
                assert_eq!(y.is_finite(), !touched, "{case:?}, element {i}: {y}");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Conv {
    images: usize,
    /// Channels, height, width.
    x: [usize; 3],
    outputs: usize,
    kernel: [usize; 2],
    geometry: ConvGeometry,
}

impl Conv {
    fn new(x: [usize; 3], outputs: usize, kernel: [usize; 2], geometry: [usize; 5]) -> Self {
        let [sy, sx, py, px, groups] = geometry;
        let geometry = ConvGeometry { stride: [sy, sx], padding: [py, px], groups };
        Self { images: 3, x, outputs, kernel, geometry }
    }

    fn x_shape(&self) -> [usize; 4] {
        [self.images, self.x[0], self.x[1], self.x[2]]
    }

    fn w_shape(&self) -> [usize; 4] {
        [self.outputs, self.x[0] / self.geometry.groups, self.kernel[0], self.kernel[1]]
    }

    fn y_shape(&self) -> [usize; 4] {
        let side = |i: usize| {
            let ConvGeometry { stride, padding, .. } = self.geometry;
            (self.x[1 + i] + 2 * padding[i] - self.kernel[i]) / stride[i] + 1
        };
        [self.images, self.outputs, side(0), side(1)]
    }

    /// Calls `term` with the places of all products of x and w in y, as flat indices x, w, y.
    fn terms(&self, mut term: impl FnMut(usize, usize, usize)) {
        let ([n, c, h, w], [o, cg, kh, kw]) = (self.x_shape(), self.w_shape());
        let [_, _, oh, ow] = self.y_shape();
        let ConvGeometry { stride, padding, groups } = self.geometry;
        for y in 0..n * o * oh * ow {
            let (image, output, row, col) =
                (y / (o * oh * ow), y / (oh * ow) % o, y / ow % oh, y % ow);
            for tap in 0..cg * kh * kw {
                let (channel, i, j) = (tap / (kh * kw), tap / kw % kh, tap % kw);
                let at_y = (row * stride[0] + i).wrapping_sub(padding[0]);
                let at_x = (col * stride[1] + j).wrapping_sub(padding[1]);
                if at_y < h && at_x < w {
                    let plane = image * c + output / (o / groups) * cg + channel;
                    term((plane * h + at_y) * w + at_x, output * cg * kh * kw + tap, y);
                }
            }
        }
    }

    fn check(&self, gpu: &mut Gpu, bias: bool, activation: Activation) {
        self.check_forward(gpu, bias, activation);
        let (x, w, dy) = self.operands();
        let geometry = self.geometry;
        let mut dx = vec![(0.0, 0.0); x.1.len()];
        let mut dw = vec![(0.0, 0.0); w.1.len()];
        let add = |to: &mut Reference, a: f32, b: f32| {
            let product = f64::from(a) * f64::from(b);
            *to = (to.0 + product, to.1 + product.abs());
        };
        self.terms(|at_x, at_w, at_y| {
            add(&mut dx[at_x], w.1[at_w], dy.1[at_y]);
            add(&mut dw[at_w], x.1[at_x], dy.1[at_y]);
        });
        for caps in gpu.regimes() {
            let case = format!("{self:?}, software: {}", caps.software);
            let inputs = [dy.clone(), w.clone()];
            let found = gpu.run(&Op::Conv2dInputGrad { geometry }, &inputs, &x.0, &caps);
            assert_close(&found, &dx, 9 * self.outputs, &format!("dx of {case}"));
            let inputs = [x.clone(), dy.clone()];
            let found = gpu.run(&Op::Conv2dWeightGrad { geometry }, &inputs, &w.0, &caps);
            assert_close(&found, &dw, dy.1.len(), &format!("dw of {case}"));
        }
    }

    fn operands(&self) -> (Values, Values, Values) {
        (values(&self.x_shape(), 4), values(&self.w_shape(), 5), values(&self.y_shape(), 6))
    }

    fn check_forward(&self, gpu: &mut Gpu, bias: bool, activation: Activation) {
        let (x, w, y) = self.operands();
        let mut inputs = vec![x, w];
        inputs.extend(bias.then(|| values(&[self.outputs], 7)));
        let plane = y.0[2] * y.0[3];
        let mut expected: Vec<Reference> = (0..y.1.len())
            .map(|i| inputs.get(2).map_or(0.0, |b| f64::from(b.1[i / plane % self.outputs])))
            .map(|bias| (bias, bias.abs()))
            .collect();
        self.terms(|at_x, at_w, at_y| {
            let product = f64::from(inputs[0].1[at_x]) * f64::from(inputs[1].1[at_w]);
            let (value, magnitude) = expected[at_y];
            expected[at_y] = (value + product, magnitude + product.abs());
        });
        let expected: Vec<Reference> =
            expected.into_iter().map(|element| activate(activation, element)).collect();
        let op = Op::Conv2d { geometry: self.geometry, bias, activation };
        for caps in gpu.regimes() {
            let found = gpu.run(&op, &inputs, &y.0, &caps);
            let case = format!("{self:?}, software: {}", caps.software);
            assert_close(&found, &expected, inputs[1].1.len() / self.outputs, &case);
        }
    }
}

#[test]
fn convolutions_of_every_geometry() {
    let Some(mut gpu) = Gpu::open() else { return };
    let cases = [
        // x, outputs, kernel, [stride y, x, padding y, x, groups]
        Conv::new([1, 8, 8], 16, [3, 3], [1, 1, 1, 1, 1]),
        Conv::new([3, 5, 7], 5, [1, 1], [1, 1, 0, 0, 1]),
        Conv::new([2, 9, 6], 33, [3, 3], [2, 2, 1, 1, 1]),
        Conv::new([4, 11, 8], 6, [5, 5], [1, 2, 2, 2, 2]),
        Conv::new([4, 7, 10], 8, [3, 1], [2, 1, 0, 2, 1]),
        Conv::new([20, 4, 4], 9, [2, 3], [1, 1, 1, 0, 1]),
        Conv::new([1, 3, 3], 1, [3, 3], [1, 1, 0, 0, 1]),
    ];
    for case in cases {
        case.check(&mut gpu, false, Activation::Identity);
    }
}

#[test]
fn convolutions_of_groups_and_depthwise() {
    let Some(mut gpu) = Gpu::open() else { return };
    Conv::new([6, 6, 5], 10, [3, 3], [1, 1, 1, 1, 2]).check(&mut gpu, true, Activation::Identity);
    Conv::new([6, 6, 8], 6, [3, 3], [2, 2, 1, 1, 6]).check(&mut gpu, true, Activation::Relu);
    Conv::new([3, 5, 5], 6, [1, 1], [1, 1, 0, 0, 3]).check(&mut gpu, false, Activation::Relu);
}

#[test]
fn convolutions_with_bias_and_activation() {
    let Some(mut gpu) = Gpu::open() else { return };
    for activation in [Activation::Identity, Activation::Relu, Activation::Gelu] {
        for bias in [false, true] {
            let case = Conv::new([2, 5, 6], 11, [3, 3], [1, 1, 1, 1, 1]);
            case.check_forward(&mut gpu, bias, activation);
        }
    }
}

#[test]
fn weight_gradients_over_many_pixels_are_cut_and_added_up() {
    let Some(mut gpu) = Gpu::open() else { return };
    for outputs in [4, 40] {
        let case = Conv::new([2, 23, 21], outputs, [3, 3], [1, 1, 1, 1, 1]);
        Conv { images: 5, ..case }.check(&mut gpu, false, Activation::Identity);
    }
}

#[test]
fn the_same_bits_come_out_twice() {
    let Some(mut gpu) = Gpu::open() else { return };
    let case = Conv { images: 5, ..Conv::new([2, 17, 19], 6, [3, 3], [1, 1, 1, 1, 1]) };
    let (x, _, dy) = case.operands();
    let op = Op::Conv2dWeightGrad { geometry: case.geometry };
    let matmul = MatMul::plain([20, 10, 1500], [true, false]);
    let inputs = matmul.inputs();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    for caps in gpu.regimes() {
        let mut dw = || bits(gpu.run(&op, &[x.clone(), dy.clone()], &case.w_shape(), &caps));
        assert_eq!(dw(), dw());
        let mut y = || bits(gpu.run(&matmul.op(), &inputs, &[20, 10], &caps));
        assert_eq!(y(), y());
    }
}
