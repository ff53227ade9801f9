//! Rotary positions (Su et al., "RoFormer", 2021): queries and keys turned by angles that grow with the position, so that
//! their products depend on how far tokens are apart.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::min_items;
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::Rotary { positions } => {
            let positions = positions.then(|| call.indices(4));
            let angles = Angles::of(call.real(3), call.shape(3), call.shape(0)[1], positions);
            let widths = [0, 1, 2].map(|i| call.shape(i)[2]);
            let [q, k, v] = [0, 1, 2].map(|i| call.real(i));
            join(&angles, widths, [q, k, v], call.out(0));
        }
        Op::RotaryGrad { positions } => {
            let positions = positions.then(|| call.indices(2));
            let angles = Angles::of(call.real(1), call.shape(1), call.shape(0)[1], positions);
            let widths = [0, 1, 2].map(|i| call.out_shape(i)[2]);
            let outputs = [call.out(0), call.out(1), call.out(2)];
            divide(&angles, widths, call.real(0), outputs);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// The angles of each token.
struct Angles<'a, T> {
    table: &'a [T],
    /// Features of a head.
    len: usize,
    /// Tokens of a sample.
    tokens: usize,
    positions: Option<&'a [u32]>,
}

impl<'a, T: Real> Angles<'a, T> {
    fn of(table: &'a [T], shape: &[usize], tokens: usize, positions: Option<&'a [u32]>) -> Self {
        Self { table, len: shape[1], tokens, positions }
    }

    /// Cosines and sines of a token.
    fn row(&self, token: usize) -> (&'a [T], &'a [T]) {
        let position = self.positions.map_or(token % self.tokens, |all| all[token] as usize);
        let row = position.min(self.table.len() / self.len - 1) * self.len;
        self.table[row..row + self.len].split_at(self.len / 2)
    }

    /// Turns each head of a row, forwards or backwards.
    fn turn(&self, token: usize, x: &[T], y: &mut [T], direction: T) {
        let (cosines, sines) = self.row(token);
        for (x, y) in x.chunks_exact(self.len).zip(y.chunks_exact_mut(self.len)) {
            let (x1, x2) = x.split_at(self.len / 2);
            let (y1, y2) = y.split_at_mut(self.len / 2);
            for i in 0..self.len / 2 {
                let (cosine, sine) = (cosines[i], direction * sines[i]);
                y1[i] = x1[i] * cosine - x2[i] * sine;
                y2[i] = x2[i] * cosine + x1[i] * sine;
            }
        }
    }
}

/// Rows of turned queries, turned keys, and values.
fn join<T: Real>(
    angles: &Angles<'_, T>,
    [q_len, k_len, v_len]: [usize; 3],
    [q, k, v]: [&[T]; 3],
    qkv: &mut [T],
) {
    let width = q_len + k_len + v_len;
    let inputs = q.par_chunks(q_len).zip(k.par_chunks(k_len).zip(v.par_chunks(v_len)));
    let rows = qkv.par_chunks_mut(width).zip(inputs).enumerate();
    rows.with_min_len(min_items(width)).for_each(|(token, (row, (q, (k, v))))| {
        let (queries, rest) = row.split_at_mut(q_len);
        let (keys, values) = rest.split_at_mut(k_len);
        angles.turn(token, q, queries, T::ONE);
        angles.turn(token, k, keys, T::ONE);
        values.copy_from_slice(v);
    });
}

/// The gradients of all three, from that of [`join`].
fn divide<T: Real>(
    angles: &Angles<'_, T>,
    [q_len, k_len, v_len]: [usize; 3],
    dqkv: &[T],
    [dq, dk, dv]: [&mut [T]; 3],
) {
    let width = q_len + k_len + v_len;
    let outputs = dq.par_chunks_mut(q_len);
    let outputs = outputs.zip(dk.par_chunks_mut(k_len).zip(dv.par_chunks_mut(v_len)));
    let rows = dqkv.par_chunks(width).zip(outputs).enumerate();
    rows.with_min_len(min_items(width)).for_each(|(token, (row, (dq, (dk, dv))))| {
        angles.turn(token, &row[..q_len], dq, -T::ONE);
        angles.turn(token, &row[q_len..q_len + k_len], dk, -T::ONE);
        dv.copy_from_slice(&row[q_len + k_len..]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::StepHeader;
    use crate::cpu::testing::run_op_with;
    use crate::testing::{assert_close, dot, finite_difference, normal};

    /// Samples, tokens, heads, heads of keys, features of a head, rows of the table.
    const CASES: [[usize; 6]; 3] = [[1, 1, 1, 1, 2, 1], [2, 3, 4, 2, 6, 5], [1, 70, 3, 1, 4, 70]];

    /// Runs an operation whose last input, where there is one, is positions.
    fn run_with<T: Real>(
        op: Op,
        inputs: &[(&[f64], Vec<usize>)],
        positions: Option<(&[u32], Vec<usize>)>,
        outputs: &[Vec<usize>],
    ) -> Vec<Vec<T>> {
        let (reals, mut shapes): (Vec<&[f64]>, Vec<Vec<usize>>) = inputs.iter().cloned().unzip();
        let positions = positions.map(|(positions, shape)| {
            shapes.push(shape);
            positions
        });
        run_op_with(op, &reals, positions, &shapes, outputs, &StepHeader::default())
    }

    /// Complex numbers times e^(iφ), feature by feature.
    fn naive(x: &[f64], heads: usize, len: usize, rows: &[usize], table: &[f64]) -> Vec<f64> {
        let mut y = Vec::new();
        for (i, &value) in x.iter().enumerate() {
            let (token, feature) = (i / (heads * len), i % len);
            let angle = feature % (len / 2);
            let cosine = table[rows[token] * len + angle];
            let sine = table[rows[token] * len + len / 2 + angle];
            y.push(match feature < len / 2 {
                true => value * cosine - x[i + len / 2] * sine,
                false => value * cosine + x[i - len / 2] * sine,
            });
        }
        y
    }

    #[test]
    fn turns_queries_and_keys_and_keeps_values() {
        for [n, t, heads, kv_heads, len, rows] in CASES {
            let (q_len, k_len) = (heads * len, kv_heads * len);
            let [q, k, v] =
                [(1, q_len), (2, k_len), (3, k_len)].map(|(key, w)| normal(key, n * t * w));
            let table = normal(4, rows * len);
            // One of them is beyond the table.
            let positions: Vec<u32> = (0..n * t).map(|i| [0, 3, u32::MAX, 1][i % 4]).collect();
            for given in [false, true] {
                let row = |i: usize| match given {
                    true => (positions[i] as usize).min(rows - 1),
                    false => (i % t).min(rows - 1),
                };
                let at: Vec<usize> = (0..n * t).map(row).collect();
                let [q_turned, k_turned] =
                    [(&q, heads), (&k, kv_heads)].map(|(x, h)| naive(x, h, len, &at, &table));
                let mut expected: Vec<f64> = Vec::new();
                for i in 0..n * t {
                    expected.extend(&q_turned[i * q_len..(i + 1) * q_len]);
                    expected.extend(&k_turned[i * k_len..(i + 1) * k_len]);
                    expected.extend(&v[i * k_len..(i + 1) * k_len]);
                }
                let inputs = [
                    (&q[..], vec![n, t, q_len]),
                    (&k[..], vec![n, t, k_len]),
                    (&v[..], vec![n, t, k_len]),
                    (&table[..], vec![rows, len]),
                ];
                let positions = given.then(|| (&positions[..], vec![n, t]));
                let op = Op::Rotary { positions: given };
                let outputs = [vec![n, t, q_len + 2 * k_len]];
                let found = run_with::<f64>(op, &inputs, positions.clone(), &outputs);
                assert_close(&found[0], &expected, 1e-12, 1e-12);
                let found = run_with::<f32>(op, &inputs, positions, &outputs);
                assert_close(&found[0], &expected, 1e-6, 1e-6);
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let [n, t, heads, kv_heads, len, rows] = [2, 3, 4, 2, 6, 5];
        let (q_len, k_len) = (heads * len, kv_heads * len);
        let (table, dy) = (normal(4, rows * len), normal(5, n * t * (q_len + 2 * k_len)));
        let positions: Vec<u32> = vec![0, 4, 2, 9, 1, 3];
        let outputs = [q_len, k_len, k_len].map(|width| vec![n, t, width]);
        let joined = vec![n, t, q_len + 2 * k_len];
        let given = [1, 2, 3].map(|key| normal(key, n * t * outputs[key as usize - 1][2]));
        let at = || Some((&positions[..], vec![n, t]));
        let grads = run_with::<f64>(
            Op::RotaryGrad { positions: true },
            &[(&dy, joined.clone()), (&table, vec![rows, len])],
            at(),
            &outputs,
        );
        for i in 0..3 {
            let expected = finite_difference(&given[i], |x| {
                let mut all = given.each_ref().map(|x| &x[..]);
                all[i] = x;
                let mut inputs: Vec<_> =
                    all.iter().zip(&outputs).map(|(x, shape)| (*x, shape.clone())).collect();
                inputs.push((&table, vec![rows, len]));
                let op = Op::Rotary { positions: true };
                let y = run_with::<f64>(op, &inputs, at(), std::slice::from_ref(&joined));
                dot(&y[0], &dy)
            });
            assert_close(&grads[i], &expected, 1e-8, 1e-8);
        }
    }
}
