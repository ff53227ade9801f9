//! The element type of the twins: `f32` to train, `f64` to check gradients by finite differences.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::Simd;

use super::special;

/// Numbers that are rounded at a time, on the stack.
const HALF_CHUNK: usize = 256;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A floating-point number that the twins compute with: `f32` or `f64`.
pub trait Real:
    sealed::Sealed
    + bytemuck::Pod
    + Default
    + Debug
    + PartialOrd
    + Send
    + Sync
    + Into<f64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Below every finite number.
    const NEG_INFINITY: Self;

    /// A register of vector instructions.
    type Lanes<S: Simd>: bytemuck::Pod;
    /// The same number in all lanes.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Lanes<S>;
    /// a · b + c, lane by lane.
    fn multiply_add<S: Simd>(simd: S, abc: [Self::Lanes<S>; 3]) -> Self::Lanes<S>;
    /// The sum of all lanes.
    fn total<S: Simd>(simd: S, lanes: Self::Lanes<S>) -> Self;

    /// The nearest number to an `f64`.
    fn of(x: f64) -> Self;
    /// The nearest `f32`.
    fn to_f32(self) -> f32;
    /// √x.
    fn sqrt(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// Rounds each to the nearest 16-bit float, ties to even; beyond the largest becomes infinite.
    fn round_to_half(x: &mut [Self]);

    /// Room for `len` numbers converted from a slot; none where they are read in place.
    fn staging(len: usize) -> Vec<Self>;
    /// Converts the `f32` in `bytes` into the first of `staged`, where they are not read in place.
    fn stage(bytes: &[u8], staged: &mut [Self]);
    /// The numbers that `bytes` hold as `f32`: in place, or as staged before.
    fn staged<'a>(bytes: &'a [u8], staged: &'a [Self]) -> &'a [Self];

    /// max(x, 0); NaN stays NaN, as in PyTorch.
    #[inline(always)]
    fn relu(self) -> Self {
        if self <= Self::ZERO { Self::ZERO } else { self }
    }
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;

    type Lanes<S: Simd> = S::f32s;
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f32) -> S::f32s {
        simd.splat_f32s(x)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, [a, b, c]: [S::f32s; 3]) -> S::f32s {
        simd.mul_add_e_f32s(a, b, c)
    }
    #[inline(always)]
    fn total<S: Simd>(simd: S, lanes: S::f32s) -> f32 {
        simd.reduce_sum_f32s(lanes)
    }

    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f32 {
        special::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn erf(self) -> f32 {
        special::erf(self)
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }

    fn round_to_half(x: &mut [f32]) {
        let mut half = [f16::ZERO; HALF_CHUNK];
        for x in x.chunks_mut(HALF_CHUNK) {
            let half = &mut half[..x.len()];
            half.convert_from_f32_slice(x);
            half.convert_to_f32_slice(x);
        }
    }

    fn staging(_: usize) -> Vec<f32> {
        Vec::new()
    }
    fn stage(_: &[u8], _: &mut [f32]) {}
    fn staged<'a>(bytes: &'a [u8], _: &'a [f32]) -> &'a [f32] {
        bytemuck::cast_slice(bytes)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;

    type Lanes<S: Simd> = S::f64s;
    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f64) -> S::f64s {
        simd.splat_f64s(x)
    }
    #[inline(always)]
    fn multiply_add<S: Simd>(simd: S, [a, b, c]: [S::f64s; 3]) -> S::f64s {
        simd.mul_add_e_f64s(a, b, c)
    }
    #[inline(always)]
    fn total<S: Simd>(simd: S, lanes: S::f64s) -> f64 {
        simd.reduce_sum_f64s(lanes)
    }

    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }

    fn round_to_half(x: &mut [f64]) {
        x.iter_mut().for_each(|x| *x = f16::from_f64(*x).to_f64());
    }

    fn staging(len: usize) -> Vec<f64> {
        vec![0.0; len]
    }
    fn stage(bytes: &[u8], staged: &mut [f64]) {
        let values: &[f32] = bytemuck::cast_slice(bytes);
        staged.iter_mut().zip(values).for_each(|(to, &x)| *to = f64::from(x));
    }
    fn staged<'a>(_: &'a [u8], staged: &'a [f64]) -> &'a [f64] {
        staged
    }
}
