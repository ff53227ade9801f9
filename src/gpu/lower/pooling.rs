//! Pooling and its gradients.

use super::{Constants, shader, single};
use crate::batch::DType;
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Store};
use crate::graph::op::{Op, PoolGeometry};

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let first_in = bound.inputs[0].shape.as_slice();
    let first_out = bound.outputs[0].shape.as_slice();
    let (shader, image, windows, geometry) = match op {
        Op::MaxPool2d { geometry } => {
            (shader!("max_pool2d", "dispatch", "pool"), first_in, first_out, geometry)
        }
        Op::MaxPool2dGrad { geometry } if tiles_by_two(first_out, first_in, geometry) => {
            let pair = match bound.outputs[0].dtype {
                DType::F16 => Store::F16x2,
                _ => Store::F32x2,
            };
            let shader = shader!("max_pool2d_grad_tiled", "dispatch", "pool")
                .with_stores(false, [("StoreDy", bound.inputs[0])])
                .with_store("StorePair", pair);
            let constants = constants(first_out, first_in, geometry);
            return single(shader, constants, bound, bound.inputs[0].len(), caps);
        }
        Op::MaxPool2dGrad { geometry } => {
            (shader!("max_pool2d_grad", "dispatch", "pool"), first_out, first_in, geometry)
        }
        Op::AvgPool2d { geometry } => {
            (shader!("avg_pool2d", "dispatch", "pool"), first_in, first_out, geometry)
        }
        Op::AvgPool2dGrad { geometry } => {
            (shader!("avg_pool2d_grad", "dispatch", "pool"), first_out, first_in, geometry)
        }
        _ => unreachable!("not a pooling operation: {}", op.name()),
    };
    let (x, y) = match op {
        Op::MaxPool2d { .. } | Op::AvgPool2d { .. } => ("StoreX", "StoreY"),
        _ => ("StoreDy", "StoreDx"),
    };
    let shader = shader.with_stores(false, [(x, bound.inputs[0]), (y, bound.outputs[0])]);
    single(shader, constants(image, windows, geometry), bound, bound.outputs[0].len(), caps)
}

/// Whether the windows are two wide and cover every element exactly once.
fn tiles_by_two(image: &[usize], windows: &[usize], geometry: &PoolGeometry) -> bool {
    let PoolGeometry { kernel, stride, padding } = geometry;
    let tiles = (0..2).all(|i| image[2 + i] == windows[2 + i] * kernel[i]);
    tiles && kernel == stride && *padding == [0, 0] && kernel[1] == 2
}

fn constants(image: &[usize], windows: &[usize], geometry: &PoolGeometry) -> Constants {
    let PoolGeometry { kernel, stride, padding } = geometry;
    [
        ("H", image[2]),
        ("W", image[3]),
        ("OH", windows[2]),
        ("OW", windows[3]),
        ("KH", kernel[0]),
        ("KW", kernel[1]),
        ("SH", stride[0]),
        ("SW", stride[1]),
        ("PH", padding[0]),
        ("PW", padding[1]),
    ]
    .map(|(name, value)| (name, value as f64))
    .to_vec()
}
