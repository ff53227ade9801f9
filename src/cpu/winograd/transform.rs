//! The one-dimensional transforms of F(4, 3): four windows of three elements by six multiplications.
//!
//! A polynomial product is exact at six points: 0, ±√½, ±√2 and ∞. These points keep the error in `f32` close to
//! that of the direct sum, where the usual 0, ±1, ±2 lose two more bits (Barabasz, Anderson, Soodhalter and Gregg,
//! 2020, who choose points by measuring); and since they come in pairs of opposite sign, even and odd parts are
//! computed once for both.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::cpu::real::Real;

/// Windows of a tile along one dimension.
pub const WINDOWS: usize = 4;
/// Elements of a window.
pub const TAPS: usize = 3;
/// Elements of the input that a tile sees, and points.
pub const POINTS: usize = WINDOWS + TAPS - 1;

/// Bᵀ d: six elements of the input at the six points.
#[inline(always)]
pub fn input<T: Real>([d0, d1, d2, d3, d4, d5]: [T; POINTS]) -> [T; POINTS] {
    let [a, b, half, two] = [FRAC_1_SQRT_2, SQRT_2, 0.5, 2.0].map(T::of);
    let middle = T::of(2.5);
    let (even_a, odd_a) = (d4 - two * d2, a * (d3 - two * d1));
    let (even_b, odd_b) = (d4 - half * d2, b * (d3 - half * d1));
    [
        d0 - middle * d2 + d4,
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        d1 - middle * d3 + d5,
    ]
}

/// G g: the weights of a window at the six points.
#[inline(always)]
pub fn weight<T: Real>([g0, g1, g2]: [T; TAPS]) -> [T; POINTS] {
    let [third, sixth] = [1.0 / 3.0, 1.0 / 6.0].map(T::of);
    let two = T::of(2.0);
    let (even_a, odd_a) = (-third * (two * g0 + g2), T::of(-SQRT_2 / 3.0) * g1);
    let (even_b, odd_b) = (sixth * (g0 + two * g2), T::of(SQRT_2 / 6.0) * g1);
    [g0, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g2]
}

/// Gᵀ u, the adjoint of [`weight`].
#[inline(always)]
pub fn weight_grad<T: Real>([u0, u1, u2, u3, u4, u5]: [T; POINTS]) -> [T; TAPS] {
    let [third, sixth] = [1.0 / 3.0, 1.0 / 6.0].map(T::of);
    let two = T::of(2.0);
    let (even_a, odd_a) = (-third * (u1 + u2), T::of(-SQRT_2 / 3.0) * (u1 - u2));
    let (even_b, odd_b) = (sixth * (u3 + u4), T::of(SQRT_2 / 6.0) * (u3 - u4));
    [u0 + two * even_a + even_b, odd_a + odd_b, even_a + two * even_b + u5]
}

/// Aᵀ m: the four windows from their products at the six points.
#[inline(always)]
pub fn output<T: Real>([m0, m1, m2, m3, m4, m5]: [T; POINTS]) -> [T; WINDOWS] {
    let [a, b, half, two] = [FRAC_1_SQRT_2, SQRT_2, 0.5, 2.0].map(T::of);
    let (even_a, odd_a) = (m1 + m2, a * (m1 - m2));
    let (even_b, odd_b) = (m3 + m4, b * (m3 - m4));
    [
        m0 + even_a + even_b,
        odd_a + odd_b,
        half * even_a + two * even_b,
        half * odd_a + two * odd_b + m5,
    ]
}

/// A y, the adjoint of [`output`].
#[inline(always)]
pub fn output_grad<T: Real>([y0, y1, y2, y3]: [T; WINDOWS]) -> [T; POINTS] {
    let [a, b, half, two] = [FRAC_1_SQRT_2, SQRT_2, 0.5, 2.0].map(T::of);
    let (even_a, odd_a) = (y0 + half * y2, a * (y1 + half * y3));
    let (even_b, odd_b) = (y0 + two * y2, b * (y1 + two * y3));
    [y0, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, y3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, normal};

    fn six(key: u64) -> [f64; 6] {
        normal(key, 6).try_into().unwrap()
    }

    #[test]
    fn six_products_make_four_windows() {
        let (d, g) = (six(1), [0.5, -1.25, 2.0]);
        let (points, weights) = (input(d), weight(g));
        let y = output(std::array::from_fn(|p| points[p] * weights[p]));
        let expected: [f64; 4] = std::array::from_fn(|o| dot(&d[o..o + 3], &g));
        assert_close(&y, &expected, 1e-14, 1e-14);
    }

    /// ⟨f(x), y⟩ = ⟨x, f*(y)⟩.
    #[test]
    fn gradients_are_adjoint() {
        let (x, y) = (six(2), six(3));
        let (g, w) = ([x[0], x[1], x[2]], [x[0], x[1], x[2], x[3]]);
        assert_close(&[dot(&weight(g), &y)], &[dot(&g, &weight_grad(y))], 1e-14, 1e-14);
        assert_close(&[dot(&output(y), &w)], &[dot(&y, &output_grad(w))], 1e-14, 1e-14);
    }
}
