//! Element by element: relu, both gelus, add, multiply, scale, cast, and the gradients of the first two.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use super::call::Call;
use super::parallel::{map, map2, map3};
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    if *call.op == Op::SwiGluGrad {
        let [dy, gate, up] = [0, 1, 2].map(|i| call.real(i));
        map3([dy, gate, up], call.out(0), |dy, gate, up| dy * up * silu_slope(gate));
        return map2(dy, gate, call.out(1), |dy, gate| dy * silu_of(gate));
    }
    let (a, y) = (call.real(0), call.out(0));
    match *call.op {
        Op::SwiGlu => map2(a, call.real(1), y, |gate, up| silu_of(gate) * up),
        Op::Relu => map(a, y, T::relu),
        Op::ReluGrad => relu_grad(a, call.real(1), y),
        Op::Gelu => map(a, y, gelu_of),
        Op::GeluGrad => map2(a, call.real(1), y, |dy, x| dy * gelu_slope(x)),
        Op::GeluTanh => map(a, y, gelu_tanh_of),
        Op::GeluTanhGrad => map2(a, call.real(1), y, |dy, x| dy * gelu_tanh_slope(x)),
        Op::Add => map2(a, call.real(1), y, |a, b| a + b),
        Op::AddReluGrad => add_relu_grad([a, call.real(1)], call.real(2), y),
        Op::Mul => map2(a, call.real(1), y, |a, b| a * b),
        // The executor rounds what it writes into a tensor of 16 bits.
        Op::Cast => map(a, y, |x| x),
        Op::Scale { factor } => {
            let factor = T::of(f64::from(factor));
            map(a, y, |x| factor * x);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// dx = dy where y > 0, else 0.
pub fn relu_grad<T: Real>(dy: &[T], y: &[T], dx: &mut [T]) {
    map2(dy, y, dx, |dy, y| if y > T::ZERO { dy } else { T::ZERO });
}

/// dx = a + b where y > 0, else 0.
pub fn add_relu_grad<T: Real>([a, b]: [&[T]; 2], y: &[T], dx: &mut [T]) {
    map3([a, b, y], dx, |a, b, y| if y > T::ZERO { a + b } else { T::ZERO });
}

/// Φ(x), the distribution function of the standard normal.
fn normal_cdf<T: Real>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(FRAC_1_SQRT_2)).erf())
}

/// x Φ(x) (Hendrycks and Gimpel, 2016).
pub fn gelu_of<T: Real>(x: T) -> T {
    x * normal_cdf(x)
}

/// The derivative of [`gelu_of`]: Φ(x) + x φ(x).
pub fn gelu_slope<T: Real>(x: T) -> T {
    let density = T::of(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2) * (T::of(-0.5) * x * x).exp();
    normal_cdf(x) + x * density
}

/// √(2/π) and the cubic share of the approximation of gelu by a tanh.
const TANH_SCALE: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
const TANH_CUBIC: f64 = 0.044_715;

/// σ(2u) = ½ (1 + tanh u), where u = √(2/π) (x + 0.044715 x³). Where the exponential is infinite, it is 0.
#[inline(always)]
fn gelu_tanh_gate<T: Real>(x: T) -> T {
    let u = T::of(TANH_SCALE) * (x + T::of(TANH_CUBIC) * x * x * x);
    T::ONE / (T::ONE + (T::of(-2.0) * u).exp())
}

/// x σ(2u): gelu as GPT-2 approximates it.
#[inline(always)]
pub fn gelu_tanh_of<T: Real>(x: T) -> T {
    x * gelu_tanh_gate(x)
}

/// The derivative of [`gelu_tanh_of`]: g + x g (1 - g) 2u', with the gate g = σ(2u).
#[inline(always)]
pub fn gelu_tanh_slope<T: Real>(x: T) -> T {
    let gate = gelu_tanh_gate(x);
    let slope = T::of(2.0 * TANH_SCALE) * (T::ONE + T::of(3.0 * TANH_CUBIC) * x * x);
    gate + x * gate * (T::ONE - gate) * slope
}

/// σ(x). Where the exponential is infinite, it is 0.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// x σ(x), which is also called swish (Ramachandran, Zoph and Le, 2017).
#[inline(always)]
pub fn silu_of<T: Real>(x: T) -> T {
    x * sigmoid(x)
}

/// The derivative of [`silu_of`].
#[inline(always)]
pub fn silu_slope<T: Real>(x: T) -> T {
    let gate = sigmoid(x);
    gate * (T::ONE + x * (T::ONE - gate))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{convert, run_op};
    use crate::testing::{assert_close, finite_difference, normal};

    /// Runs an operation on vectors in both precisions and compares with `expected`.
    fn check(op: Op, inputs: &[&[f64]], expected: impl Fn(usize) -> f64) {
        let len = inputs[0].len();
        let expected: Vec<f64> = (0..len).map(expected).collect();
        let shapes = vec![vec![len]; inputs.len()];
        let y = run_op::<f64>(op, inputs, &shapes, &[vec![len]]);
        assert_close(&y[0], &expected, 1e-12, 1e-12);
        let y = run_op::<f32>(op, inputs, &shapes, &[vec![len]]);
        assert_close(&y[0], &expected, 1e-6, 1e-6);
    }

    #[test]
    fn match_their_formulas() {
        for len in [1, 31, 8192, 8193] {
            let (a, b) = (normal(1, len), normal(2, len));
            check(Op::Relu, &[&a], |i| a[i].max(0.0));
            check(Op::ReluGrad, &[&a, &b], |i| if b[i] > 0.0 { a[i] } else { 0.0 });
            check(Op::Add, &[&a, &b], |i| a[i] + b[i]);
            let y = normal(3, len);
            check(Op::AddReluGrad, &[&a, &b, &y], |i| if y[i] > 0.0 { a[i] + b[i] } else { 0.0 });
            check(Op::Mul, &[&a, &b], |i| a[i] * b[i]);
            check(Op::Scale { factor: 0.25 }, &[&a], |i| 0.25 * a[i]);
            check(Op::Cast, &[&a], |i| a[i]);
        }
    }

    /// Values of x Φ(x) from tables of the normal distribution.
    #[test]
    fn gelu_is_the_one_with_the_error_function() {
        let x = [-4.0, -1.0, -0.1, 0.0, 0.5, 2.0, 10.0];
        let expected = [
            -1.2668496733227323e-4,
            -0.15865525393145707,
            -0.0460172162722971,
            0.0,
            0.34573123063700656,
            1.9544997361036416,
            10.0,
        ];
        check(Op::Gelu, &[&x], |i| expected[i]);
    }

    /// Values of PyTorch's `F.gelu(x, approximate="tanh")` in f64.
    #[test]
    fn gelu_tanh_is_pytorchs() {
        let x = [-4.0, -1.0, -0.1, 0.0, 0.5, 2.0, 10.0];
        let expected = [
            -7.024594819227126e-5,
            -0.15880800939172324,
            -0.04601724895456484,
            0.0,
            0.34571400982514394,
            1.954597694087775,
            10.0,
        ];
        check(Op::GeluTanh, &[&x], |i| expected[i]);
        // Beyond what an exponential holds it is 0 or x.
        let mut y = [f32::NAN; 2];
        map(&[-200.0, 200.0], &mut y, gelu_tanh_of);
        assert_eq!(y, [0.0, 200.0]);
        let x = normal(6, 40);
        let slope = finite_difference(&x, |x| x.iter().map(|&x| gelu_tanh_of(x)).sum());
        let ones = vec![1.0; 40];
        check(Op::GeluTanhGrad, &[&ones, &x], |i| gelu_tanh_slope(x[i]));
        let found: Vec<f64> = x.iter().map(|&x| gelu_tanh_slope(x)).collect();
        assert_close(&found, &slope, 1e-8, 1e-8);
    }

    #[test]
    fn slopes_match_finite_differences() {
        let x = normal(5, 40);
        let slope = finite_difference(&x, |x| x.iter().map(|&x| gelu_of(x)).sum());
        let ones = vec![1.0; 40];
        check(Op::GeluGrad, &[&ones, &x], |i| gelu_slope(x[i]));
        assert_close(&x.iter().map(|&x| gelu_slope(x)).collect::<Vec<_>>(), &slope, 1e-8, 1e-8);
        let mut dx = vec![0.0; 40];
        relu_grad(&ones, &x, &mut dx);
        let slope = finite_difference(&x, |x| x.iter().map(|x| x.max(0.0)).sum());
        assert_close(&dx, &slope, 1e-8, 0.0);
    }

    /// Values of PyTorch's `F.silu` in f64.
    #[test]
    fn swiglu_is_pytorchs_silu_of_a_gate_times_up() {
        let gate = [-4.0, -1.0, -0.1, 0.0, 0.5, 2.0, 10.0];
        let silu = [
            -0.07194483984836623,
            -0.2689414213699951,
            -0.04750208125210601,
            0.0,
            0.31122966560092729,
            1.7615941559557649,
            9.999546021312976,
        ];
        let up = normal(3, gate.len());
        check(Op::SwiGlu, &[&gate, &up], |i| silu[i] * up[i]);
        let mut y = [f32::NAN; 2];
        map(&[-200.0, 200.0], &mut y, silu_of);
        assert_eq!(y, [0.0, 200.0]);
    }

    #[test]
    fn gradients_of_swiglu_match_finite_differences() {
        for len in [1, 40, 8193] {
            let [dy, gate, up] = [1, 2, 3].map(|key| normal(key, len));
            let shapes = vec![vec![len]; 3];
            let inputs = [&dy[..], &gate, &up];
            let found = run_op::<f64>(Op::SwiGluGrad, &inputs, &shapes, &shapes[..2]);
            let step = 1e-6;
            let at = |i: usize, by: [f64; 2]| {
                let (gate, up) = (gate[i] + by[0], up[i] + by[1]);
                dy[i] * gate / (1.0 + (-gate).exp()) * up
            };
            for (found, by) in found.iter().zip([[step, 0.0], [0.0, step]]) {
                let slope = |i| (at(i, by) - at(i, by.map(|x| -x))) / (2.0 * step);
                let expected: Vec<f64> = (0..len).map(slope).collect();
                assert_close(found, &expected, 1e-8, 1e-7);
            }
            let single = run_op::<f32>(Op::SwiGluGrad, &inputs, &shapes, &shapes[..2]);
            for (single, double) in single.iter().zip(&found) {
                assert_close(single, double, 1e-5, 1e-5);
            }
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        let mut y = convert::<f32>(&[0.0]);
        map(&[f32::NAN], &mut y, f32::relu);
        assert!(Real::relu(f32::NAN).is_nan());
    }
}
