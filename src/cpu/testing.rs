//! What the twins' unit tests share.

use std::array;

use super::call::{Call, Input, MAX_BINDINGS, Output, Scratch};
use super::real::Real;
use super::{run, scratch_len};
use crate::batch::StepHeader;
use crate::graph::op::Op;

/// The same numbers in the precision under test.
pub fn convert<T: Real>(x: &[f64]) -> Vec<T> {
    x.iter().map(|&x| T::of(x)).collect()
}

/// Runs `work` in pools of 1, 2 and 5 threads and expects the same bits from each.
#[track_caller]
pub fn in_pools(work: impl Fn() -> Vec<f32> + Sync) {
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&work).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let one = bits(1);
    assert!(one.iter().any(|&x| x != 0), "a result to compare");
    assert!(one == bits(2) && one == bits(5), "results differ between numbers of threads");
}

/// Runs an operation whose tensors are all numbers, on a full batch, as [`run_op_at`].
pub fn run_op<T: Real>(
    op: Op,
    inputs: &[&[f64]],
    input_shapes: &[Vec<usize>],
    output_shapes: &[Vec<usize>],
) -> Vec<Vec<T>> {
    let count = input_shapes[0].first().copied().unwrap_or(1);
    run_op_at(op, inputs, input_shapes, output_shapes, count)
}

/// Runs an operation whose tensors are all numbers, with `count` valid samples. Outputs start at 0.5, and
/// scratch at NaN, so that what a twin forgets to write shows.
pub fn run_op_at<T: Real>(
    op: Op,
    inputs: &[&[f64]],
    input_shapes: &[Vec<usize>],
    output_shapes: &[Vec<usize>],
    count: usize,
) -> Vec<Vec<T>> {
    let header = StepHeader { count: count as u32, ..StepHeader::default() };
    run_op_with(op, inputs, None, input_shapes, output_shapes, &header)
}

/// Runs an operation whose tensors are all numbers but for `index`, the input behind them, at the step of `header`.
pub fn run_op_with<T: Real>(
    op: Op,
    inputs: &[&[f64]],
    index: Option<&[u32]>,
    input_shapes: &[Vec<usize>],
    output_shapes: &[Vec<usize>],
    header: &StepHeader,
) -> Vec<Vec<T>> {
    let converted: Vec<Vec<T>> = inputs.iter().map(|x| convert(x)).collect();
    let mut bound: [Input<'_, T>; MAX_BINDINGS] =
        array::from_fn(|i| converted.get(i).map_or(Input::None, |x| Input::Real(x)));
    if let Some(index) = index {
        bound[inputs.len()] = Input::Index(index);
    }
    let mut results: Vec<Vec<T>> =
        output_shapes.iter().map(|shape| vec![T::of(0.5); shape.iter().product()]).collect();
    let scratch_len = scratch_len(&op, input_shapes, output_shapes);
    let scratch = Scratch::filled(scratch_len, rayon::current_num_threads(), T::of(f64::NAN));
    let mut outputs = results.iter_mut();
    run(Call {
        op: &op,
        inputs: bound,
        outputs: array::from_fn(|_| outputs.next().map_or(Output::None, |y| Output::Real(y))),
        input_shapes,
        output_shapes,
        header,
        scratch: &scratch,
        half_outputs: &[],
    });
    results
}
