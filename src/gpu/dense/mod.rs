//! The dense operations: matrix products, and convolutions as matrix products whose operands are
//! gathered as they are read (Chellapilla, Puri and Simard, 2006, without the copy).
//!
//! `product.rs` cuts the work, `tile.rs` names the ways to, `shaders.rs` puts the WGSL together: an
//! operand part a side, a bias part, an output part, and an engine: for GPUs, for their matrix units, or
//! for a software adapter.
//! All dense shaders bind `a, b, y, [bias]`, where `a` holds the rows and `b` the columns of the
//! product.

mod conv;
mod depthwise;
mod product;
mod shaders;
pub mod tile;
mod winograd;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;

use self::product::{Epilogue, Product, Work};
use self::shaders::{Layout, Types, Variant};
pub use self::tile::Tile;
use super::kernel::{Binding, Bound, DeviceCaps, Lowered};
use crate::batch::DType;
use crate::graph::op::{Activation, Op};

/// The tiles worth trying for an operation on a device, the one that [`lower`] takes by itself first;
/// none for what is not a dense operation or leaves no choice. They differ in time, never in a bit of
/// the result.
pub fn candidates(op: &Op, bound: Bound, caps: &DeviceCaps) -> Vec<Tile> {
    work(op, bound, caps).map_or_else(Vec::new, |work| work.candidates(caps))
}

/// The dispatches of a matrix product, a convolution or a gradient of one, with `tile` if that is one
/// of its [`candidates`], else with the first of them.
///
/// # Panics
/// When given any other operation.
pub fn lower(op: &Op, bound: Bound, caps: &DeviceCaps, tile: Option<Tile>) -> Lowered {
    match work(op, bound, caps) {
        Some(work) => work.lower(tile, caps),
        None => panic!("{} is not a dense operation", op.name()),
    }
}

/// What a dense operation comes down to.
fn work(op: &Op, bound: Bound, caps: &DeviceCaps) -> Option<Work> {
    match *op {
        Op::MatMul { transpose_a, transpose_b, bias, activation } => {
            Some(matmul([transpose_a, transpose_b], bias, activation, bound).into())
        }
        Op::Conv2d { geometry, bias, activation } => {
            Some(conv::forward(geometry, bias, activation, bound, caps))
        }
        Op::Conv2dInputGrad { geometry } => Some(conv::input_grad(geometry, bound, caps)),
        Op::Conv2dWeightGrad { geometry } => Some(conv::weight_grad(geometry, bound, caps)),
        _ => None,
    }
}

fn matmul(
    [transpose_a, transpose_b]: [bool; 2],
    bias: bool,
    activation: Activation,
    bound: Bound,
) -> Product {
    let [a_shape, b_shape] = [&bound.inputs[0].shape, &bound.inputs[1].shape];
    let [rows, inner] =
        if transpose_a { [a_shape[1], a_shape[0]] } else { [a_shape[0], a_shape[1]] };
    let cols = b_shape[usize::from(!transpose_b)];
    let a = Layout { transposed: transpose_a, fours: a_shape[1].is_multiple_of(4) };
    let b = Layout { transposed: transpose_b, fours: b_shape[1].is_multiple_of(4) };
    Product {
        groups: 1,
        rows,
        cols,
        inner,
        operands: [Binding::Input(0), Binding::Input(1)],
        output: Binding::Output(0),
        a_along_inner: !transpose_a,
        cut: true,
        epilogue: Epilogue { bias: bias.then_some(Binding::Input(2)), activation },
        constants: vec![],
        variant: Variant::matmul(a, b, types(bound, [0, 1]), cols.is_multiple_of(4)),
    }
}

/// The types of an operation's bindings, with the inputs that a and b are.
fn types(bound: Bound, [a, b]: [usize; 2]) -> Types {
    let [a, b] = [a, b].map(|input| bound.inputs[input].dtype);
    let bias = bound.inputs.get(2).map_or(DType::F32, |bias| bias.dtype);
    Types { a, b, y: bound.outputs[0].dtype, bias }
}
