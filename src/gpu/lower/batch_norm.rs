//! Batch norm, in as few dispatches as suit the device. A workgroup that goes over a channel in little time makes its
//! statistics, or the sums of its gradients, and applies them: one dispatch. On GPUs a longer channel is cut into tiles, and
//! each workgroup of the dispatch that applies their partial results merges them itself. What only makes statistics or sums
//! of tiles merges them in a dispatch of its own.

use super::sums::Shares;
use super::tiles::{self, Tiles};
use super::{
    Constants, SOFTWARE_TURNS, WORKGROUP, activation_code, by, dispatch, element_shader, fold,
    inputs_and_outputs, part, shader, single,
};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered, Shader};
use crate::graph::Tensor;
use crate::graph::op::{Activation, Op};

/// Tiles of a channel, at most, that one workgroup of a GPU goes over: about as long as a barrier between two dispatches takes.
const ALONE_TILES: usize = 4;

/// Workgroups of a GPU that merge partial results and apply them, about: enough to fill it, few enough to merge seldom.
const MERGING_GROUPS: usize = 1024;

/// Invocations of a workgroup that has a channel to itself on a software adapter: a vector. Barriers between several cost much.
const VECTOR: u32 = 8;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::BatchNormStats { momentum } => stats(momentum, bound, caps),
        Op::BatchNorm { eps, activation, residual } => {
            norm(Forward { eps, activation, residual }, bound, caps)
        }
        Op::BatchNormTrain { momentum, eps, activation, residual } => {
            train(momentum, Forward { eps, activation, residual }, bound, caps)
        }
        Op::BatchNormParamGrad { eps, relu } => param_grad(Backward { eps, relu }, bound, caps),
        Op::BatchNormInputGrad { eps, relu } => input_grad(Backward { eps, relu }, bound, caps),
        Op::BatchNormGrad { eps, relu } => grad(Backward { eps, relu }, bound, caps),
        _ => unreachable!("not a batch norm: {}", op.name()),
    }
}

/// Who goes over a channel.
enum Way {
    /// A workgroup of so many invocations.
    Alone(u32, Shares),
    /// A workgroup a tile.
    Tiled(Tiles),
}

impl Way {
    fn over(shape: &[usize], caps: &DeviceCaps) -> Self {
        match Tiles::of(shape, caps).filter(|tiles| tiles.count > ALONE_TILES) {
            Some(tiles) => Way::Tiled(tiles),
            None => {
                let lanes = lanes(shape, caps);
                Way::Alone(lanes, Shares::of_workgroup(shape, lanes))
            }
        }
    }
}

/// Invocations of a workgroup that has a channel to itself; more on a software adapter where they would go on for too long.
fn lanes(shape: &[usize], caps: &DeviceCaps) -> u32 {
    let most = 1 << caps.max_invocations.ilog2();
    if !caps.software {
        return most.min(tiles::WORKGROUP);
    }
    // At most three times over it.
    let goes_on = |lanes: u32| 3 * Shares::of_workgroup(shape, lanes).turns() > SOFTWARE_TURNS;
    let mut lanes = VECTOR;
    while goes_on(lanes) && lanes < most {
        lanes *= 2;
    }
    lanes
}

/// An operation of one dispatch with a workgroup a channel.
fn alone(
    shader: Shader,
    (lanes, shares): (u32, Shares),
    own: Constants,
    bound: Bound,
    caps: &DeviceCaps,
) -> Lowered {
    let lanes = [("WORKGROUP_SIZE", f64::from(lanes)), ("LANES", f64::from(lanes))];
    let constants = [shares.constants(), own, lanes.to_vec()].concat();
    single(shader, constants, bound, shares.channels() * WORKGROUP as usize, caps)
}

/// An operation of two dispatches, one that makes partial results of tiles and one that uses them.
fn in_halves(tiles: Tiles, first: Dispatch, second: Dispatch) -> Lowered {
    Lowered { dispatches: vec![first, second], scratch_bytes: vec![4 * tiles.total(); 2] }
}

/// The second half of an operation, by a workgroup for each of some parts of a channel; it binds the partial results last.
fn merging(
    shader: Shader,
    tiles: Tiles,
    own: Constants,
    bound: Bound,
    caps: &DeviceCaps,
) -> Dispatch {
    let parts = tiles.count.min((MERGING_GROUPS / tiles.channels()).max(1));
    let constants = [own, vec![("PARTS", parts as f64)]].concat();
    let mut bindings = inputs_and_outputs(bound);
    bindings.extend([ScratchRead(0), ScratchRead(1)]);
    let workgroups = fold(parts * tiles.channels(), caps);
    Dispatch { workgroups, ..tiles.dispatch(shader, constants, bindings, caps) }
}

/// The second half of an operation that only merges, by a workgroup a channel.
fn only_merging(
    shader: Shader,
    tiles: Tiles,
    own: Constants,
    bindings: Vec<Binding>,
    caps: &DeviceCaps,
) -> Dispatch {
    let lanes = vec![("LANES", f64::from(WORKGROUP))];
    let constants = [tiles.constants(), own, lanes].concat();
    dispatch(shader, constants, bindings, tiles.channels() * WORKGROUP as usize, caps)
}

/// What a norm does by the statistics.
#[derive(Clone, Copy)]
struct Forward {
    eps: f32,
    activation: Activation,
    residual: bool,
}

impl Forward {
    fn constants(self) -> Constants {
        vec![("EPS", f64::from(self.eps)), ("ACTIVATION", activation_code(self.activation))]
    }

    /// A shader of `x, .., [residual] | y, ..` with what follows from that.
    fn finish(self, shader: Shader, four: bool, bound: Bound) -> Shader {
        let shader = shader
            .with_part(part!("gelu"))
            .with_part(part!("activation"))
            .with_part(by(four, part!("activation1"), part!("activation4")))
            .with_part(part!("batch_norm_value"))
            .with_const("OUTPUTS", bound.inputs.len() as u32)
            .with_stores(four, [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])]);
        match (self.residual, bound.inputs.last()) {
            (true, Some(residual)) => shader
                .with_part(part!("batch_norm_residual"))
                .with_stores(four, [("StoreResidual", residual)]),
            _ => shader.with_part(part!("batch_norm_plain")),
        }
    }
}

/// The first half of finding statistics; `x` and the header are inputs 0 and `header`.
fn tile_moments(tiles: Tiles, header: usize, bound: Bound, caps: &DeviceCaps) -> Dispatch {
    let shader = element_shader!(
        tiles.four,
        "batch_norm_stats_tiles",
        "dispatch",
        "header",
        "rows",
        "channel_tiles"
    )
    .with_stores(tiles.four, [("StoreX", bound.inputs[0])]);
    let bindings = vec![Input(0), Input(header), ScratchWrite(0), ScratchWrite(1)];
    tiles.dispatch(shader, vec![], bindings, caps)
}

fn stats(momentum: f32, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let x = bound.inputs[0];
    let mut own = vec![("MOMENTUM", f64::from(momentum))];
    match Way::over(&x.shape, caps) {
        Way::Alone(lanes, shares) => {
            let shader = element_shader!(
                shares.four,
                "batch_norm_stats",
                "dispatch",
                "header",
                "rows",
                "channels",
                "batch_norm_moments",
                "batch_norm_keep"
            )
            .with_stores(shares.four, [("StoreX", x)]);
            alone(shader, (lanes, shares), own, bound, caps)
        }
        Way::Tiled(tiles) => {
            own.push(("TILE_NUMBERS", tiles::NUMBERS as f64));
            let shader = shader!(
                "batch_norm_stats_merge",
                "dispatch",
                "header",
                "rows",
                "batch_norm_merge",
                "batch_norm_keep"
            );
            let outputs = (0..4).map(Output);
            let bindings = [ScratchRead(0), ScratchRead(1), Input(1)].into_iter().chain(outputs);
            let merge = only_merging(shader, tiles, own, bindings.collect(), caps);
            in_halves(tiles, tile_moments(tiles, 1, bound, caps), merge)
        }
    }
}

fn norm(forward: Forward, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shares = Shares::of_map(&bound.outputs[0].shape, caps);
    let shader =
        element_shader!(shares.four, "batch_norm", "dispatch", "channels", "batch_norm_apply");
    let shader = forward.finish(shader, shares.four, bound);
    let constants = [shares.constants(), forward.constants()].concat();
    single(shader, constants, bound, shares.len(), caps)
}

fn train(momentum: f32, forward: Forward, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let mut own = forward.constants();
    own.push(("MOMENTUM", f64::from(momentum)));
    match Way::over(&bound.inputs[0].shape, caps) {
        Way::Alone(lanes, shares) => {
            let shader = element_shader!(
                shares.four,
                "batch_norm_train",
                "dispatch",
                "header",
                "rows",
                "channels",
                "batch_norm_train",
                "batch_norm_moments",
                "batch_norm_apply",
                "batch_norm_keep"
            );
            let shader = forward.finish(shader, shares.four, bound);
            alone(shader, (lanes, shares), own, bound, caps)
        }
        Way::Tiled(tiles) => {
            own.push(("TILE_NUMBERS", tiles::NUMBERS as f64));
            let shader = element_shader!(
                tiles.four,
                "batch_norm_train_merge",
                "dispatch",
                "header",
                "rows",
                "channel_tiles",
                "batch_norm_train",
                "batch_norm_merge",
                "batch_norm_keep"
            );
            let shader = forward.finish(shader, tiles.four, bound);
            let merge = merging(shader, tiles, own, bound, caps);
            in_halves(tiles, tile_moments(tiles, 3, bound, caps), merge)
        }
    }
}

/// What the gradients of a norm need to know of it.
#[derive(Clone, Copy)]
struct Backward {
    eps: f32,
    relu: bool,
}

impl Backward {
    fn constants(self) -> Constants {
        vec![("EPS", f64::from(self.eps)), ("RELU", f64::from(u8::from(self.relu)))]
    }
}

/// A shader of `dy, x, gamma, beta, mean, var, ..` with what follows from that.
fn of_gradient(shader: Shader, four: bool, bound: Bound) -> Shader {
    shader
        .with_part(part!("batch_norm_value"))
        .with_part(part!("batch_norm_gradient"))
        .with_stores(four, [("StoreDy", bound.inputs[0]), ("StoreX", bound.inputs[1])])
}

/// As [`of_gradient`], of a shader that writes `dx` and reads the header.
fn passing_on(shader: Shader, four: bool, dx: &Tensor, bound: Bound) -> Shader {
    of_gradient(shader, four, bound)
        .with_part(part!("header"))
        .with_part(part!("batch_norm_through"))
        .with_stores(four, [("StoreDx", dx)])
}

/// The first half of making gradients.
fn tile_sums(tiles: Tiles, backward: Backward, bound: Bound, caps: &DeviceCaps) -> Dispatch {
    let shader = element_shader!(
        tiles.four,
        "batch_norm_param_grad_tiles",
        "dispatch",
        "rows",
        "channel_tiles"
    );
    let shader = of_gradient(shader, tiles.four, bound);
    let bindings = (0..6).map(Input).chain([ScratchWrite(0), ScratchWrite(1)]).collect();
    tiles.dispatch(shader, backward.constants(), bindings, caps)
}

fn param_grad(backward: Backward, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match Way::over(&bound.inputs[1].shape, caps) {
        Way::Alone(lanes, shares) => {
            let shader = element_shader!(
                shares.four,
                "batch_norm_param_grad",
                "dispatch",
                "rows",
                "channels",
                "batch_norm_sums"
            );
            let shader = of_gradient(shader, shares.four, bound);
            alone(shader, (lanes, shares), backward.constants(), bound, caps)
        }
        Way::Tiled(tiles) => {
            let shader =
                shader!("batch_norm_param_grad_merge", "dispatch", "rows", "batch_norm_merge_sums");
            let bindings = vec![ScratchRead(0), ScratchRead(1), Input(5), Output(0), Output(1)];
            let own = vec![("EPS", f64::from(backward.eps))];
            let merge = only_merging(shader, tiles, own, bindings, caps);
            in_halves(tiles, tile_sums(tiles, backward, bound, caps), merge)
        }
    }
}

fn input_grad(backward: Backward, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let dx = bound.outputs[0];
    let shares = Shares::of_map(&dx.shape, caps);
    let shader = element_shader!(
        shares.four,
        "batch_norm_input_grad",
        "dispatch",
        "channels",
        "batch_norm_pass"
    );
    let shader = passing_on(shader, shares.four, dx, bound);
    let constants = [shares.constants(), backward.constants()].concat();
    single(shader, constants, bound, shares.len(), caps)
}

fn grad(backward: Backward, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let dx = bound.outputs[0];
    match Way::over(&dx.shape, caps) {
        Way::Alone(lanes, shares) => {
            let shader = element_shader!(
                shares.four,
                "batch_norm_grad",
                "dispatch",
                "rows",
                "channels",
                "batch_norm_sums",
                "batch_norm_pass"
            );
            let shader = passing_on(shader, shares.four, dx, bound);
            alone(shader, (lanes, shares), backward.constants(), bound, caps)
        }
        Way::Tiled(tiles) => {
            let shader = element_shader!(
                tiles.four,
                "batch_norm_grad_merge",
                "dispatch",
                "rows",
                "channel_tiles",
                "batch_norm_merge_sums"
            );
            let shader = passing_on(shader, tiles.four, dx, bound);
            let merge = merging(shader, tiles, backward.constants(), bound, caps);
            in_halves(tiles, tile_sums(tiles, backward, bound, caps), merge)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::DType;
    use crate::graph::Role;

    const SOFTWARE: DeviceCaps = DeviceCaps {
        max_workgroups: 65535,
        workgroup_bytes: 16384,
        max_invocations: 256,
        software: true,
        subgroup_size: 0,
        cooperative: false,
    };
    const HARDWARE: DeviceCaps = DeviceCaps { software: false, ..SOFTWARE };

    fn lowered(op: Op, shape: &[usize], caps: &DeviceCaps) -> Lowered {
        let tensor = |shape: &[usize]| Tensor {
            name: String::new(),
            shape: shape.to_vec(),
            dtype: DType::F32,
            role: Role::Activation,
        };
        let (x, channel, header) = (tensor(shape), tensor(&shape[1..2]), tensor(&[8]));
        let (inputs, outputs) = match op {
            Op::BatchNormTrain { .. } => {
                (vec![&x, &channel, &channel, &header], [&[&x][..], &[&channel; 4]].concat())
            }
            _ => {
                ([&[&x; 2][..], &[&channel; 4], &[&header]].concat(), vec![&x, &channel, &channel])
            }
        };
        lower(&op, Bound { inputs: &inputs, outputs: &outputs }, caps)
    }

    #[test]
    fn a_channel_that_a_workgroup_goes_over_takes_one_dispatch_and_no_scratch_and_a_longer_one_two()
    {
        let train = Op::BatchNormTrain {
            momentum: 0.1,
            eps: 1e-5,
            activation: Activation::Relu,
            residual: false,
        };
        for op in [train, Op::BatchNormGrad { eps: 1e-5, relu: true }] {
            for (shape, caps, dispatches) in [
                ([128, 64, 28, 28], SOFTWARE, 1),
                ([128, 256, 7, 7], HARDWARE, 1),
                ([64, 8, 16, 16], HARDWARE, 1),
                ([65, 8, 16, 16], HARDWARE, 2),
                ([128, 64, 28, 28], HARDWARE, 2),
                // Planes so small that tiles would read far apart.
                ([4096, 64, 3, 3], HARDWARE, 1),
            ] {
                let lowered = lowered(op, &shape, &caps);
                assert_eq!(lowered.dispatches.len(), dispatches, "{shape:?}");
                assert_eq!(lowered.scratch_bytes.is_empty(), dispatches == 1, "{shape:?}");
                let groups = lowered.dispatches[dispatches - 1].workgroups;
                let parts = groups.iter().product::<u32>() as usize / shape[1];
                assert_eq!(parts > 1, dispatches == 2, "{shape:?}");
            }
        }
    }

    #[test]
    fn a_software_adapter_gets_more_invocations_where_one_would_go_on_for_too_long() {
        for (shape, expected) in
            [([8, 64, 28, 28], 8), ([2, 1, 1250, 1000], 32), ([64, 1, 4096, 4096], 256)]
        {
            assert_eq!(lanes(&shape, &SOFTWARE), expected, "{shape:?}");
        }
    }
}
