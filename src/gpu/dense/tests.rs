//! What holds across tiles. That results are right is tested beside the other shaders, in
//! `tests/gpu_vs_cpu`.

use wgpu::naga;

use super::trial::{Trial, context, tensor};
use super::{candidates, lower};
use crate::batch::DType;
use crate::gpu::kernel::{DeviceCaps, Dispatch};
use crate::graph::op::{Activation, ConvGeometry, Op};

const TRANSPOSITIONS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

/// A matrix product with a bias.
fn matmul([m, n, k]: [usize; 3], [transpose_a, transpose_b]: [bool; 2]) -> Trial {
    let a = if transpose_a { vec![k, m] } else { vec![m, k] };
    let b = if transpose_b { vec![n, k] } else { vec![k, n] };
    let op = Op::MatMul { transpose_a, transpose_b, bias: true, activation: Activation::Identity };
    let inputs = [a, b, vec![n]].map(|shape| tensor(&shape, DType::F32)).to_vec();
    Trial { op, inputs, output: tensor(&[m, n], DType::F32) }
}

/// The same trial with other types of inputs and output.
fn with_types(mut trial: Trial, inputs: &[DType], output: DType) -> Trial {
    trial.inputs.iter_mut().zip(inputs).for_each(|(tensor, dtype)| tensor.dtype = *dtype);
    trial.output.dtype = output;
    trial
}

/// A convolution of images `x` by a square kernel, and the gradients of its image and its weights.
fn convolutions(
    x: [usize; 4],
    outputs: usize,
    kernel: usize,
    geometry: ConvGeometry,
) -> [Trial; 3] {
    let ConvGeometry { stride, padding, groups } = geometry;
    let side = |i: usize| (x[2 + i] + 2 * padding[i] - kernel) / stride[i] + 1;
    let w = [outputs, x[1] / groups, kernel, kernel];
    let y = [x[0], outputs, side(0), side(1)];
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
    // Beyond a tile's edge, and with a cut sum.
    for transpose in [[false, false], [true, true]] {
        expect_the_same_bits(&matmul([67, 65, 515], transpose));
    }
}

#[test]
fn a_tile_never_changes_a_bit_of_a_convolution() {
    let geometry = ConvGeometry { stride: [2, 1], padding: [0, 1], groups: 2 };
    convolutions([2, 8, 11, 10], 66, 3, geometry).iter().for_each(expect_the_same_bits);
}

const POINTWISE: ConvGeometry = ConvGeometry { stride: [1, 1], padding: [0, 0], groups: 1 };

#[test]
fn a_tile_never_changes_a_bit_of_a_pointwise_convolution() {
    for x in [[2, 68, 6, 6], [3, 9, 5, 5]] {
        convolutions(x, 65, 1, POINTWISE).iter().for_each(expect_the_same_bits);
    }
}

#[test]
fn pointwise_convolutions_have_shaders_of_their_own() {
    let name_of = |trial: &Trial| {
        let lowered = trial.with_bound(|bound| lower(&trial.op, bound, &UNITS, None));
        let names: Vec<&str> = lowered.dispatches.iter().map(|d| d.shader.name).collect();
        names.join(" ")
    };
    let names = |x, geometry| convolutions(x, 8, 1, geometry).map(|trial| name_of(&trial));
    // Planes of a multiple of four: weights are read as they are, nothing is packed.
    let own = ["pointwise", "pointwise", "pointwise_weight_grad"];
    assert_eq!(names([2, 16, 8, 8], POINTWISE), own);
    let odd = ["pointwise", "pointwise", "conv2d_weight_grad"];
    assert_eq!(names([2, 16, 7, 7], POINTWISE), odd);
    // Weights of 6 channels do not come by fours.
    let packed = ["conv2d_pack pointwise", "conv2d_pack pointwise", "pointwise_weight_grad"];
    assert_eq!(names([2, 6, 8, 8], POINTWISE), packed);
    for other in [
        ConvGeometry { stride: [2, 1], ..POINTWISE },
        ConvGeometry { padding: [0, 1], ..POINTWISE },
    ] {
        assert!(names([2, 16, 8, 8], other).iter().all(|name| !name.contains("pointwise")));
    }
}

const MIXES: [([DType; 3], DType); 4] = [
    ([DType::F16, DType::F32, DType::F32], DType::F16),
    ([DType::F32, DType::F16, DType::F16], DType::F32),
    ([DType::F16; 3], DType::F16),
    ([DType::F32; 3], DType::F16),
];

/// Expects of f16 tensors what f32 tensors with the same numbers give, up to the rounding of the result.
fn expect_the_same_of_halves(plain: impl Fn() -> Trial) {
    let Some(context) = context() else { return };
    for context in [context.as_hardware(), context] {
        let expected = plain().run(&context, None);
        for (inputs, output) in MIXES {
            let found = with_types(plain(), &inputs, output).run(&context, None);
            let tolerance = if output == DType::F16 { 1e-3 } else { 0.0 };
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let near = (found - expected).abs() <= tolerance * expected.abs().max(1e-3);
                assert!(near, "{inputs:?} {output:?}, element {at}: {found} for {expected}");
            }
        }
    }
}

#[test]
fn matrix_products_of_halves() {
    for (size, transpose) in [
        ([36, 40, 44], TRANSPOSITIONS[1]),
        // With a cut sum.
        ([9, 7, 1027], TRANSPOSITIONS[2]),
    ] {
        expect_the_same_of_halves(|| matmul(size, transpose));
    }
}

#[test]
fn convolutions_of_halves() {
    let geometry = ConvGeometry { stride: [2, 1], padding: [1, 1], groups: 1 };
    for (kernel, geometry) in [(3, geometry), (1, POINTWISE)] {
        for op in 0..3 {
            expect_the_same_of_halves(|| {
                let trials = convolutions([2, 4, 7, 8], 9, kernel, geometry);
                trials.into_iter().nth(op).expect("one of three")
            });
        }
    }
}

/// What a GPU with matrix units reports.
const UNITS: DeviceCaps = DeviceCaps {
    max_workgroups: 65535,
    workgroup_bytes: 48 * 1024,
    max_invocations: 1024,
    software: false,
    subgroup_size: 32,
    cooperative: true,
};

/// Takes a shader through all that happens to it before the driver sees it.
fn expect_valid(dispatch: &Dispatch) {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let source = dispatch.shader.source();
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(&source)));
    let constants = dispatch.constants.iter().map(|&(name, x)| (name.into(), x)).collect();
    let entry = Some((naga::ShaderStage::Compute, "main"));
    naga::back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .unwrap_or_else(|error| panic!("{error} in {source}"));
}

#[test]
fn every_shader_for_gpus_is_valid() {
    let plain = ConvGeometry { stride: [1, 1], padding: [1, 1], groups: 1 };
    let conv = |op: usize, kernel, channels, outputs| {
        let geometry = if kernel == 1 { POINTWISE } else { plain };
        let trials = convolutions([2, channels, 8, 8], outputs, kernel, geometry);
        trials.into_iter().nth(op).expect("one of three")
    };
    let mut trials: Vec<Trial> = Vec::new();
    for half in [false, true] {
        let dtype = if half { DType::F16 } else { DType::F32 };
        for transpose in TRANSPOSITIONS {
            for size in [[132, 136, 4100], [131, 133, 515]] {
                trials.push(with_types(matmul(size, transpose), &[dtype, DType::F32], dtype));
            }
        }
        for op in 0..3 {
            for channels in [68, 63] {
                for kernel in [1, 3] {
                    trials.push(with_types(conv(op, kernel, channels, 70), &[dtype, dtype], dtype));
                }
            }
        }
    }
    let mut engines = std::collections::BTreeSet::new();
    for caps in [UNITS, DeviceCaps { workgroup_bytes: 16 * 1024, cooperative: false, ..UNITS }] {
        for trial in &trials {
            trial.with_bound(|bound| {
                for tile in candidates(&trial.op, bound, &caps) {
                    engines.insert(tile.engine);
                    let lowered = lower(&trial.op, bound, &caps, Some(tile));
                    lowered.dispatches.iter().for_each(expect_valid);
                }
            });
        }
    }
    assert_eq!(engines.len(), 2);
}
