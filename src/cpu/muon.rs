//! Muon: the momentum of a matrix, its way to an orthogonal one, and the update; the products between are ordinary ones.

use super::call::Call;
use super::optimizer::update;
use super::parallel::{map, map2};
use super::real::Real;
use crate::graph::op::{MUON_EPS, NEWTON_SCHULZ, Op};

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::MuonMomentum { momentum, nesterov } => {
            let (direction, average) = (call.out(0), call.out(1));
            muon_momentum(call.real(0), call.real(1), momentum, nesterov, [direction, average]);
        }
        Op::MuonNormalize => muon_normalize(call.real(0), call.real(1)[0], call.out(0)),
        Op::NewtonSchulz => {
            newton_schulz(call.real(0), call.real(1), call.input_shapes[0][0], call.out(0));
        }
        Op::MuonUpdate { weight_decay, scale } => {
            let lr = call.header.lr;
            muon_update(call.real(0), call.real(1), [lr, weight_decay, scale], call.out(0));
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Moves the average of gradients towards these, unless `control` says that the update is skipped, and tells the direction
/// of the update.
pub fn muon_momentum<T: Real>(
    gradients: &[T],
    control: &[T],
    momentum: f32,
    nesterov: bool,
    [direction, average]: [&mut [T]; 2],
) {
    if control[6] == T::ZERO {
        return map(average, direction, |m| m);
    }
    let (keep, factor) = (T::of(f64::from(momentum)), control[5]);
    update(gradients, average, |g, m| *m += (T::ONE - keep) * (factor * g - *m));
    if !nesterov {
        return map(average, direction, |m| m);
    }
    map2(gradients, average, direction, |g, m| factor * g + keep * (m - factor * g));
}

/// y = x / max(√squares, [`MUON_EPS`]).
pub fn muon_normalize<T: Real>(x: &[T], squares: T, y: &mut [T]) {
    let (norm, least) = (squares.sqrt(), T::of(f64::from(MUON_EPS)));
    let norm = if norm > least { norm } else { least };
    map(x, y, |x| x / norm);
}

/// a I + b gram + c square, of `n` rows and columns.
pub fn newton_schulz<T: Real>(gram: &[T], square: &[T], n: usize, polynomial: &mut [T]) {
    let [a, b, c] = NEWTON_SCHULZ.map(|factor| T::of(f64::from(factor)));
    map2(gram, square, polynomial, |gram, square| b * gram + c * square);
    polynomial.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal += a);
}

/// parameters = (1 - lr · decay) parameters - lr · scale · direction, unless `control` says to skip.
pub fn muon_update<T: Real>(
    direction: &[T],
    control: &[T],
    [lr, decay, scale]: [f32; 3],
    parameters: &mut [T],
) {
    if control[6] == T::ZERO {
        return;
    }
    let [lr, decay, scale] = [lr, decay, scale].map(|x| T::of(f64::from(x)));
    let (keep, rate) = (T::ONE - lr * decay, lr * scale);
    update(direction, parameters, |d, p| *p = keep * *p - rate * d);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::Matrix;
    use crate::cpu::matmul::matmul;
    use crate::cpu::testing::{convert, in_pools};
    use crate::graph::op::{Activation, MUON_STEPS};
    use crate::testing::{assert_close, normal};

    /// Control words of an update whose gradients are halved, applied or not.
    fn control<T: Real>(apply: f64) -> Vec<T> {
        convert(&[0.1, 0.001, 2.0, 0.0, 2.0, 0.5, apply, 0.0, 0.0, 0.0])
    }

    #[test]
    fn momentum_is_the_average_of_scaled_gradients() {
        let len = 10_001;
        let (g, m) = (normal(1, len), normal(2, len));
        for nesterov in [false, true] {
            let mut average = convert::<f32>(&m);
            let mut direction = vec![f32::NAN; len];
            let outputs = [&mut direction[..], &mut average[..]];
            muon_momentum(&convert(&g), &control(1.0), 0.75, nesterov, outputs);
            let moved = |i: usize| 0.75 * m[i] + 0.25 * 0.5 * g[i];
            let expected: Vec<f64> = (0..len).map(moved).collect();
            assert_close(&average, &expected, 1e-6, 1e-6);
            let ahead = |i: usize| 0.25 * 0.5 * g[i] + 0.75 * moved(i);
            let expected: Vec<f64> =
                (0..len).map(|i| if nesterov { ahead(i) } else { moved(i) }).collect();
            assert_close(&direction, &expected, 1e-6, 1e-6);
        }
    }

    #[test]
    fn a_skipped_update_moves_neither_momentum_nor_parameters() {
        let before = convert::<f32>(&normal(2, 100));
        let nan = [f32::NAN; 100];
        let (mut average, mut direction) = (before.clone(), vec![f32::NAN; 100]);
        let outputs = [&mut direction[..], &mut average[..]];
        muon_momentum(&nan, &control(0.0), 0.9, true, outputs);
        assert_eq!([&average, &direction], [&before, &before]);
        muon_update(&nan, &control(0.0), [0.1, 0.1, 1.0], &mut average);
        assert_eq!(average, before);
    }

    #[test]
    fn parameters_decay_and_go_against_the_direction() {
        let (direction, before) = (normal(1, 77), normal(2, 77));
        let mut parameters = convert::<f64>(&before);
        muon_update(&direction, &control(1.0), [0.5, 0.25, 2.0], &mut parameters);
        let expected: Vec<f64> =
            direction.iter().zip(&before).map(|(d, p)| 0.875 * p - d).collect();
        assert_close(&parameters, &expected, 1e-14, 1e-14);
    }

    /// x after all steps, of `rows` rows, which are not more than its columns.
    fn orthogonal(x: &[f64], rows: usize) -> Vec<f64> {
        let columns = x.len() / rows;
        let squares = x.iter().map(|x| x * x).sum();
        let mut y = vec![f64::NAN; x.len()];
        muon_normalize(x, squares, &mut y);
        let product = |a: Matrix<'_, f64>, b: Matrix<'_, f64>| {
            let mut y = vec![f64::NAN; a.rows() * b.columns()];
            matmul(a, b, None, Activation::Identity, &mut y);
            y
        };
        for _ in 0..MUON_STEPS {
            let of = |x, rows, columns| Matrix::new(x, rows, columns);
            let gram = product(of(&y, rows, columns), of(&y, rows, columns).transposed());
            let square = product(of(&gram, rows, rows), of(&gram, rows, rows));
            let mut polynomial = vec![f64::NAN; rows * rows];
            newton_schulz(&gram, &square, rows, &mut polynomial);
            y = product(of(&polynomial, rows, rows), of(&y, rows, columns));
        }
        y
    }

    /// The iteration changes singular values alone: those of a matrix with orthogonal rows are the norms of its rows.
    #[test]
    fn singular_values_come_near_one_and_directions_stay() {
        let (rows, columns) = (3, 8);
        let norms = [1.0, 0.1, 0.02];
        let mut x = vec![0.0; rows * columns];
        for (row, norm) in norms.iter().enumerate() {
            for i in 0..4 {
                let sign = if row == 1 && i % 2 == 1 { -1.0 } else { 1.0 };
                x[row * columns + i + if row == 2 { 4 } else { 0 }] = sign * norm / 2.0;
            }
        }
        let y = orthogonal(&x, rows);
        for row in 0..rows {
            let (before, after) = (&x[row * columns..][..columns], &y[row * columns..][..columns]);
            let scale = after.iter().map(|y| y * y).sum::<f64>().sqrt() / norms[row];
            assert!((0.65..1.25).contains(&(scale * norms[row])), "{scale} of row {row}");
            let expected: Vec<f64> = before.iter().map(|x| scale * x).collect();
            assert_close(after, &expected, 1e-12, 1e-9);
        }
    }

    #[test]
    fn a_matrix_of_zeros_stays_one() {
        assert_eq!(orthogonal(&[0.0; 6], 2), [0.0; 6]);
    }

    #[test]
    fn threads_change_no_bit() {
        let n = 200;
        let [g, m] = [1, 2].map(|key| convert::<f32>(&normal(key, n * n)));
        in_pools(|| {
            let (mut average, mut direction) = (m.clone(), vec![f32::NAN; n * n]);
            let outputs = [&mut direction[..], &mut average[..]];
            muon_momentum(&g, &control(1.0), 0.9, true, outputs);
            let mut polynomial = vec![f32::NAN; n * n];
            newton_schulz(&direction, &average, n, &mut polynomial);
            let mut parameters = m.clone();
            muon_update(&polynomial, &control(1.0), [0.1, 0.1, 0.2], &mut parameters);
            parameters
        });
    }
}
