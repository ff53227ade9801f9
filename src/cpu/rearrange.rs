//! Tensors put together, cut and turned: copies, element for element.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::min_items;
use super::real::Real;
use crate::graph::op::Op;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let (x, y) = (call.real(0), call.out(0));
    let tail = |shape: &[usize], axis: usize| shape[axis..].iter().product();
    match *call.op {
        Op::Concat { axis } => {
            let rows = [tail(call.shape(0), axis), tail(call.shape(1), axis)];
            concat(x, call.real(1), rows, y);
        }
        Op::Slice { axis, start, .. } => {
            let whole = tail(call.shape(0), axis);
            let inner: usize = tail(call.shape(0), axis + 1);
            slice(x, whole, start * inner, tail(call.out_shape(0), axis), y);
        }
        Op::Unslice { axis, start, .. } => {
            let whole = tail(call.out_shape(0), axis);
            let inner: usize = tail(call.shape(0), axis + 1);
            unslice(x, tail(call.shape(0), axis), start * inner, whole, y);
        }
        Op::Transpose => {
            let &[_, a, b] = call.shape(0) else { unreachable!("three dimensions") };
            transpose(x, a, b, y);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Rows of `y` are a row of `a` and a row of `b`, of the given lengths.
pub fn concat<T: Real>(a: &[T], b: &[T], [a_len, b_len]: [usize; 2], y: &mut [T]) {
    let len = a_len + b_len;
    let rows = y.par_chunks_mut(len.max(1)).enumerate();
    rows.with_min_len(min_items(len)).for_each(|(i, y)| {
        let (first, second) = y.split_at_mut(a_len);
        first.copy_from_slice(&a[i * a_len..][..a_len]);
        second.copy_from_slice(&b[i * b_len..][..b_len]);
    });
}

/// Rows of `y` are `len` elements from `start` on of rows of `x`, which are `whole` long.
pub fn slice<T: Real>(x: &[T], whole: usize, start: usize, len: usize, y: &mut [T]) {
    let rows = y.par_chunks_mut(len.max(1)).zip(x.par_chunks(whole.max(1)));
    rows.with_min_len(min_items(len)).for_each(|(y, x)| {
        y.copy_from_slice(&x[start..start + len]);
    });
}

/// Rows of `y`, `whole` long, are rows of `x` from `start` on, and zeros around them.
pub fn unslice<T: Real>(x: &[T], len: usize, start: usize, whole: usize, y: &mut [T]) {
    let rows = y.par_chunks_mut(whole.max(1)).enumerate();
    rows.with_min_len(min_items(whole)).for_each(|(i, y)| {
        y[..start].fill(T::ZERO);
        y[start..start + len].copy_from_slice(&x[i * len..][..len]);
        y[start + len..].fill(T::ZERO);
    });
}

/// y\[n, b, a\] = x\[n, a, b\].
pub fn transpose<T: Real>(x: &[T], a: usize, b: usize, y: &mut [T]) {
    let columns = y.par_chunks_mut(a.max(1)).enumerate();
    columns.with_min_len(min_items(a)).for_each(|(i, y)| {
        let column = x[i / b * a * b + i % b..].iter().step_by(b);
        y.iter_mut().zip(column).for_each(|(y, &x)| *y = x);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::run_op;
    use crate::testing::normal;

    /// Element `i` of a tensor of some shape, as an index in each dimension.
    fn index(mut i: usize, shape: &[usize]) -> Vec<usize> {
        let mut index = vec![0; shape.len()];
        for (at, &len) in index.iter_mut().zip(shape).rev() {
            (*at, i) = (i % len, i / len);
        }
        index
    }

    fn at(x: &[f64], shape: &[usize], index: &[usize]) -> f64 {
        x[index.iter().zip(shape).fold(0, |flat, (&i, &len)| flat * len + i)]
    }

    /// What an operation gives must be what `expected` gives for each index of the result.
    fn check(op: Op, shapes: &[Vec<usize>], y: Vec<usize>, expected: impl Fn(&[usize]) -> f64) {
        let inputs: Vec<Vec<f64>> =
            shapes.iter().zip(1..).map(|(s, key)| normal(key, s.iter().product())).collect();
        let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        let found = run_op::<f64>(op, &inputs, shapes, std::slice::from_ref(&y));
        let len = y.iter().product();
        let expected: Vec<f64> = (0..len).map(|i| expected(&index(i, &y))).collect();
        assert_eq!(found[0], expected, "{op:?} of {shapes:?}");
    }

    const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [3, 5, 2], [2, 1, 70], [70, 33, 5]];

    #[test]
    fn concat_matches_indexing() {
        for shape in SHAPES {
            for axis in 0..3 {
                let mut other = shape;
                other[axis] += 2;
                let (a, b) = (normal(1, shape.iter().product()), normal(2, other.iter().product()));
                let mut y = shape.to_vec();
                y[axis] += other[axis];
                check(Op::Concat { axis }, &[shape.to_vec(), other.to_vec()], y, |i| {
                    let mut i = i.to_vec();
                    if i[axis] < shape[axis] {
                        return at(&a, &shape, &i);
                    }
                    i[axis] -= shape[axis];
                    at(&b, &other, &i)
                });
            }
        }
    }

    #[test]
    fn slices_and_their_opposites_match_indexing() {
        for shape in SHAPES {
            let x = normal(1, shape.iter().product());
            for axis in 0..3 {
                let start = shape[axis] / 3;
                let len = (shape[axis] - start).div_ceil(2);
                let mut y = shape.to_vec();
                y[axis] = len;
                check(Op::Slice { axis, start, len }, &[shape.to_vec()], y, |i| {
                    let mut i = i.to_vec();
                    i[axis] += start;
                    at(&x, &shape, &i)
                });
                let len = shape[axis] + 4;
                let mut y = shape.to_vec();
                y[axis] = len;
                check(Op::Unslice { axis, start: 3, len }, &[shape.to_vec()], y, |i| {
                    let mut i = i.to_vec();
                    match i[axis].checked_sub(3) {
                        Some(inside) if inside < shape[axis] => {
                            i[axis] = inside;
                            at(&x, &shape, &i)
                        }
                        _ => 0.0,
                    }
                });
            }
        }
    }

    #[test]
    fn transpose_matches_indexing() {
        for shape @ [n, a, b] in SHAPES {
            let x = normal(1, n * a * b);
            check(Op::Transpose, &[shape.to_vec()], vec![n, b, a], |i| {
                at(&x, &shape, &[i[0], i[2], i[1]])
            });
        }
    }
}
