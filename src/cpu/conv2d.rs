//! Convolution: forward, and the gradients of its input and of its weight.
//!
//! Each sample is a matrix product over its windows, see `im2col.rs`. Samples are divided
//! among the threads. Convolutions by 3 × 3 with many channels go through `winograd.rs` instead, and those with a filter
//! for each channel through `depthwise.rs`.

use rayon::prelude::*;

use super::call::{Call, Scratch, ScratchLen};
use super::depthwise::Depthwise;
use super::gemm::{Matrix, Write, gemm};
use super::im2col::{Axis, Windows, col2im, im2col};
use super::matmul::activate;
use super::parallel::{CHUNK, vectorized};
use super::real::Real;
use super::winograd::Winograd;
use crate::graph::op::{Activation, ConvGeometry, Op};

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    groups: usize,
    /// Output channels of one group.
    outputs: usize,
    /// Windows over the channels of one group.
    windows: Windows,
}

impl Convolution {
    /// Of `x [n, c, h, w]` by `weight [o, c/groups, kh, kw]` to `y [n, o, oh, ow]`.
    pub fn new(x: &[usize], weight: &[usize], y: &[usize], geometry: ConvGeometry) -> Self {
        let ConvGeometry { stride, padding, groups } = geometry;
        let axis = |i: usize| Axis {
            len: x[2 + i],
            kernel: weight[2 + i],
            stride: stride[i],
            padding: padding[i],
            windows: y[2 + i],
        };
        let windows = Windows { channels: weight[1], y: axis(0), x: axis(1) };
        Self { groups, outputs: weight[0] / groups, windows }
    }

    /// The same in fewer multiplications, where that pays.
    fn winograd(&self) -> Option<Winograd> {
        if self.groups == 1 { Winograd::new(&self.windows, self.outputs) } else { None }
    }

    /// The same channel by channel, where every channel has a filter of its own.
    fn depthwise(&self) -> Option<Depthwise> {
        let Self { groups, outputs, windows } = *self;
        let alone = outputs == 1 && windows.channels == 1 && groups > 1;
        alone.then_some(Depthwise { windows, channels: groups })
    }

    /// Elements of the input of one group of one sample.
    fn group_input(&self) -> usize {
        self.windows.channels * self.windows.y.len * self.windows.x.len
    }

    /// Elements of the output of one group of one sample.
    fn group_output(&self) -> usize {
        self.outputs * self.windows.columns()
    }

    /// Elements of the weight of one group.
    fn group_weight(&self) -> usize {
        self.outputs * self.windows.rows()
    }

    /// Elements of a sample's input.
    fn sample_input(&self) -> usize {
        self.groups * self.group_input()
    }

    /// Elements of a sample's output.
    fn sample_output(&self) -> usize {
        self.groups * self.group_output()
    }

    /// Elements of the weight.
    fn weight(&self) -> usize {
        self.groups * self.group_weight()
    }

    /// Elements of the matrix of one group's windows.
    fn matrix(&self) -> usize {
        self.windows.rows() * self.windows.columns()
    }

    /// Into how many parts the weight's gradient divides the batch: enough for many threads, fewer for
    /// large weights, of which each part keeps its own sum. Never by the number of threads, which would
    /// change the order of the sum.
    fn parts(&self, samples: usize) -> usize {
        let affordable = (1 << 22) / self.weight().max(1);
        samples.min(affordable.clamp(8, 32))
    }

    /// The working memory for a batch: a matrix of windows for each thread, and for the weight's gradient a
    /// sum for each part of the batch.
    pub fn scratch_len(&self, samples: usize) -> ScratchLen {
        ScratchLen { thread: self.matrix(), shared: self.parts(samples) * self.weight() }
    }

    /// The matrix of one group's windows, in `scratch` unless it is the input itself.
    fn matrix_of<'a, T: Real>(&self, x: &'a [T], scratch: &'a mut [T]) -> Matrix<'a, T> {
        let (rows, columns) = (self.windows.rows(), self.windows.columns());
        if self.windows.is_identity() {
            return Matrix::new(x, rows, columns);
        }
        vectorized(
            #[inline(always)]
            || im2col(x, &self.windows, scratch),
        );
        Matrix::new(scratch, rows, columns)
    }
}

/// What a convolution of these shapes needs.
pub(super) fn scratch_len(op: &Op, inputs: &[Vec<usize>], outputs: &[Vec<usize>]) -> ScratchLen {
    let convolution = of_op(op, inputs, outputs);
    if convolution.depthwise().is_some() {
        return ScratchLen::default();
    }
    let needed = convolution.scratch_len(inputs[0][0]);
    match (op, convolution.winograd()) {
        (Op::Conv2d { .. }, Some(winograd)) => winograd.forward_scratch(),
        (Op::Conv2dInputGrad { .. }, Some(winograd)) => winograd.input_grad_scratch(),
        (Op::Conv2dWeightGrad { .. }, Some(winograd)) => winograd.weight_grad_scratch(),
        (Op::Conv2dWeightGrad { .. }, None) => needed,
        _ => ScratchLen { shared: 0, ..needed },
    }
}

fn of_op(op: &Op, inputs: &[Vec<usize>], outputs: &[Vec<usize>]) -> Convolution {
    match *op {
        Op::Conv2d { geometry, .. } => {
            Convolution::new(&inputs[0], &inputs[1], &outputs[0], geometry)
        }
        Op::Conv2dInputGrad { geometry } => {
            Convolution::new(&outputs[0], &inputs[1], &inputs[0], geometry)
        }
        Op::Conv2dWeightGrad { geometry } => {
            Convolution::new(&inputs[0], &outputs[0], &inputs[1], geometry)
        }
        _ => unreachable!("dispatched by family"),
    }
}

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let convolution = of_op(call.op, call.input_shapes, call.output_shapes);
    let (first, second, y) = (call.real(0), call.real(1), call.out(0));
    match *call.op {
        Op::Conv2d { bias, activation, .. } => {
            let bias = bias.then(|| call.real(2));
            conv2d(first, second, bias, activation, convolution, call.scratch, y);
        }
        Op::Conv2dInputGrad { .. } => {
            conv2d_input_grad(first, second, convolution, call.scratch, y);
        }
        Op::Conv2dWeightGrad { .. } => {
            conv2d_weight_grad(first, second, convolution, call.scratch, y);
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// y = activation(x ⋆ weight + bias).
pub fn conv2d<T: Real>(
    x: &[T],
    weight: &[T],
    bias: Option<&[T]>,
    activation: Activation,
    convolution: Convolution,
    scratch: &Scratch<T>,
    y: &mut [T],
) {
    let Convolution { outputs, windows, .. } = convolution;
    if let Some(winograd) = convolution.winograd() {
        return winograd.forward(x, weight, bias, activation, scratch, y);
    }
    if let Some(depthwise) = convolution.depthwise() {
        return depthwise.forward(x, weight, bias, activation, y);
    }
    let samples = y.par_chunks_mut(convolution.sample_output());
    samples.zip(x.par_chunks(convolution.sample_input())).for_each(|(y, x)| {
        let mut scratch = scratch.thread();
        let groups = y
            .chunks_mut(convolution.group_output())
            .zip(x.chunks(convolution.group_input()))
            .zip(weight.chunks(convolution.group_weight()));
        for ((y, x), weight) in groups {
            let matrix = convolution.matrix_of(x, &mut scratch[..convolution.matrix()]);
            gemm(Matrix::new(weight, outputs, windows.rows()), matrix, y, Write::Replace);
        }
        if let Some(bias) = bias {
            vectorized(
                #[inline(always)]
                || {
                    for (y, &bias) in y.chunks_mut(windows.columns()).zip(bias) {
                        y.iter_mut().for_each(|y| *y += bias);
                    }
                },
            );
        }
        activate(y, activation);
    });
}

/// dx: each dy times the weight, at the place of its window.
pub fn conv2d_input_grad<T: Real>(
    dy: &[T],
    weight: &[T],
    convolution: Convolution,
    scratch: &Scratch<T>,
    dx: &mut [T],
) {
    let Convolution { outputs, windows, .. } = convolution;
    if let Some(winograd) = convolution.winograd() {
        return winograd.input_grad(dy, weight, scratch, dx);
    }
    if let Some(depthwise) = convolution.depthwise() {
        return depthwise.input_grad(dy, weight, dx);
    }
    let samples = dx.par_chunks_mut(convolution.sample_input());
    samples.zip(dy.par_chunks(convolution.sample_output())).for_each(|(dx, dy)| {
        let mut scratch = scratch.thread();
        let groups = dx
            .chunks_mut(convolution.group_input())
            .zip(dy.chunks(convolution.group_output()))
            .zip(weight.chunks(convolution.group_weight()));
        for ((dx, dy), weight) in groups {
            let weight = Matrix::new(weight, outputs, windows.rows()).transposed();
            let dy = Matrix::new(dy, outputs, windows.columns());
            if windows.is_identity() {
                gemm(weight, dy, dx, Write::Replace);
                continue;
            }
            let matrix = &mut scratch[..convolution.matrix()];
            gemm(weight, dy, matrix, Write::Replace);
            dx.fill(T::ZERO);
            vectorized(
                #[inline(always)]
                || col2im(matrix, &windows, dx),
            );
        }
    });
}

/// dw: the sum over the batch of each dy times its window.
pub fn conv2d_weight_grad<T: Real>(
    x: &[T],
    dy: &[T],
    convolution: Convolution,
    scratch: &Scratch<T>,
    dw: &mut [T],
) {
    if let Some(winograd) = convolution.winograd() {
        return winograd.weight_grad(x, dy, scratch, dw);
    }
    if let Some(depthwise) = convolution.depthwise() {
        return depthwise.weight_grad(x, dy, dw);
    }
    let samples = x.len() / convolution.sample_input();
    let part = samples.div_ceil(convolution.parts(samples));
    let parts = samples.div_ceil(part);
    let weight = convolution.weight();
    let mut shared = scratch.shared();
    let partials = &mut shared[..parts * weight];
    partials
        .par_chunks_mut(weight)
        .zip(x.par_chunks(part * convolution.sample_input()))
        .zip(dy.par_chunks(part * convolution.sample_output()))
        .for_each(|((dw, x), dy)| {
            weight_grad_of_part(x, dy, convolution, &mut scratch.thread(), dw);
        });
    let partials = &*partials;
    dw.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, dw)| {
        dw.fill(T::ZERO);
        for partial in partials.chunks(weight) {
            let partial = &partial[chunk * CHUNK..][..dw.len()];
            dw.iter_mut().zip(partial).for_each(|(dw, &partial)| *dw += partial);
        }
    });
}

/// The weight's gradient over some samples, one after the other.
fn weight_grad_of_part<T: Real>(
    x: &[T],
    dy: &[T],
    convolution: Convolution,
    scratch: &mut [T],
    dw: &mut [T],
) {
    let Convolution { outputs, windows, .. } = convolution;
    let samples = x.chunks(convolution.sample_input()).zip(dy.chunks(convolution.sample_output()));
    for (i, (x, dy)) in samples.enumerate() {
        let write = if i == 0 { Write::Replace } else { Write::Add };
        let groups = dw
            .chunks_mut(convolution.group_weight())
            .zip(x.chunks(convolution.group_input()))
            .zip(dy.chunks(convolution.group_output()));
        for ((dw, x), dy) in groups {
            let matrix = convolution.matrix_of(x, &mut scratch[..convolution.matrix()]);
            let dy = Matrix::new(dy, outputs, windows.columns());
            gemm(dy, matrix.transposed(), dw, write);
        }
    }
}

#[cfg(test)]
mod tests;
