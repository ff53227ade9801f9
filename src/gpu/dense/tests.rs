//! What holds across tiles. That results are right is tested beside the other shaders, in
//! `tests/gpu_vs_cpu`.

use super::candidates;
use super::trial::{Trial, context, tensor};
use crate::batch::DType;
use crate::graph::op::{Activation, ConvGeometry, Op};

fn matmul([m, n, k]: [usize; 3], [transpose_a, transpose_b]: [bool; 2]) -> Trial {
    let a = if transpose_a { [k, m] } else { [m, k] };
    let b = if transpose_b { [n, k] } else { [k, n] };
    let op = Op::MatMul { transpose_a, transpose_b, bias: false, activation: Activation::Identity };
    let inputs = vec![tensor(&a, DType::F32), tensor(&b, DType::F32)];
    Trial { op, inputs, output: tensor(&[m, n], DType::F32) }
}

/// A convolution of images `x`, and the gradients of its image and its weights.
fn convolutions(x: [usize; 4], outputs: usize, geometry: ConvGeometry) -> [Trial; 3] {
    let ConvGeometry { stride, padding, groups } = geometry;
    let side = |i: usize| (x[2 + i] + 2 * padding[i] - 3) / stride[i] + 1;
    let [x, w, y] =
        [x, [outputs, x[1] / groups, 3, 3], [x[0], outputs, side(0), side(1)]].map(|shape| shape);
    let trial = |op, inputs: [[usize; 4]; 2], output: [usize; 4]| Trial {
        op,
        inputs: inputs.iter().map(|shape| tensor(shape, DType::F32)).collect(),
        output: tensor(&output, DType::F32),
    };
    let forward = Op::Conv2d { geometry, bias: false, activation: Activation::Identity };
    [
        trial(forward, [x, w], y),
        trial(Op::Conv2dInputGrad { geometry }, [y, w], x),
        trial(Op::Conv2dWeightGrad { geometry }, [x, y], w),
    ]
}

/// Expects the same bits from all tiles of either engine.
fn expect_the_same_bits(trial: &Trial) {
    let Some(context) = context() else { return };
    for context in [context.as_hardware(), context] {
        let tiles = trial.with_bound(|bound| candidates(&trial.op, bound, &context.caps()));
        let first = trial.run(&context, Some(tiles[0]));
        assert!(first.iter().all(|y| y.is_finite()));
        for &tile in &tiles[1..] {
            let other = trial.run(&context, Some(tile));
            let differ = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            let at = first.iter().zip(&other).position(differ);
            assert_eq!(at, None, "{:?}: {tile} differs from {} there", trial.op, tiles[0]);
        }
    }
}

#[test]
fn a_tile_never_changes_a_bit_of_a_matrix_product() {
    for transpose in [[false, false], [false, true], [true, false], [true, true]] {
        // Beyond a tile's edge, and with a cut sum.
        expect_the_same_bits(&matmul([67, 65, 515], transpose));
    }
}

#[test]
fn a_tile_never_changes_a_bit_of_a_convolution() {
    let plain = ConvGeometry { stride: [1, 1], padding: [1, 1], groups: 1 };
    for (x, outputs, geometry) in [
        ([2, 20, 8, 8], 68, plain),
        ([2, 8, 11, 10], 66, ConvGeometry { stride: [2, 2], padding: [0, 1], groups: 2 }),
    ] {
        convolutions(x, outputs, geometry).iter().for_each(expect_the_same_bits);
    }
}
