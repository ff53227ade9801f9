//! Tensors put together, cut and turned.

use inflight::graph::op::Op;

use crate::bench::Bench;
use crate::{header, normal};

const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [3, 5, 7], [64, 2, 65], [2, 63, 64], [7, 130, 31]];

/// An operation with one result over normal numbers; copies are exact.
fn check(op: Op, inputs: &[[usize; 3]], y: [usize; 3]) {
    let mut bench = Bench::new(1, header(1));
    let values = |(shape, key): (&[usize; 3], u64)| normal(key, shape.iter().product());
    let inputs: Vec<_> = inputs.iter().zip(1..).map(|x| bench.f32(x.0, &values(x))).collect();
    let y = bench.output(&y);
    bench.push(op, &inputs, &[y]);
    bench.check(0.0, 0.0);
}

#[test]
fn concat() {
    for shape in SHAPES {
        for axis in 0..3 {
            let (mut other, mut y) = (shape, shape);
            other[axis] = 3;
            y[axis] += 3;
            check(Op::Concat { axis }, &[shape, other], y);
        }
    }
}

#[test]
fn slice_and_unslice() {
    for shape in SHAPES {
        for axis in 0..3 {
            let (start, mut y) = (shape[axis] / 3, shape);
            y[axis] = (shape[axis] - start).div_ceil(2);
            check(Op::Slice { axis, start, len: y[axis] }, &[shape], y);
            y[axis] = shape[axis] + 5;
            check(Op::Unslice { axis, start: 2, len: y[axis] }, &[shape], y);
        }
    }
}

#[test]
fn transpose() {
    for shape @ [n, a, b] in SHAPES {
        check(Op::Transpose, &[shape], [n, b, a]);
    }
}
