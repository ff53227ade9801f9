//! The dense operations: matrix products, and convolutions as matrix products whose operands are
//! gathered as they are read (Chellapilla, Puri and Simard, 2006, without the copy).
//!
//! `product.rs` cuts the work, `shaders.rs` puts the WGSL together: an operand part a side, a bias part,
//! an output part, and one of two engines, for GPUs or for a software adapter. All dense shaders bind
//! `a, b, y, [bias]`, where `a` holds the rows and `b` the columns of the product.

mod conv;
mod product;
mod shaders;

use self::product::{Epilogue, Product};
use self::shaders::Layout;
use super::kernel::{Binding, Bound, DeviceCaps, Lowered};
use crate::graph::op::{Activation, Op};

/// The dispatches of a matrix product, a convolution or a gradient of one.
///
/// # Panics
/// When given any other operation.
pub fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::MatMul { transpose_a, transpose_b, bias, activation } => {
            matmul([transpose_a, transpose_b], bias, activation, bound, caps)
        }
        Op::Conv2d { geometry, bias, activation } => {
            conv::forward(geometry, bias, activation, bound, caps)
        }
        Op::Conv2dInputGrad { geometry } => conv::input_grad(geometry, bound, caps),
        Op::Conv2dWeightGrad { geometry } => conv::weight_grad(geometry, bound, caps),
        _ => panic!("{} is not a dense operation", op.name()),
    }
}

fn matmul(
    [transpose_a, transpose_b]: [bool; 2],
    bias: bool,
    activation: Activation,
    bound: Bound,
    caps: &DeviceCaps,
) -> Lowered {
    let [a_shape, b_shape] = [&bound.inputs[0].shape, &bound.inputs[1].shape];
    let [rows, inner] =
        if transpose_a { [a_shape[1], a_shape[0]] } else { [a_shape[0], a_shape[1]] };
    let cols = b_shape[usize::from(!transpose_b)];
    let a = Layout { transposed: transpose_a, fours: a_shape[1].is_multiple_of(4) };
    let b = Layout { transposed: transpose_b, fours: b_shape[1].is_multiple_of(4) };
    let product = Product {
        groups: 1,
        rows,
        cols,
        inner,
        operands: [Binding::Input(0), Binding::Input(1)],
        a_along_inner: !transpose_a,
        cut: true,
        epilogue: Epilogue { bias: bias.then_some(Binding::Input(2)), activation },
        constants: vec![],
    };
    product.lower(|tile, bias| shaders::matmul(a, b, bias, cols.is_multiple_of(4), tile), caps)
}
