//! Channels, biases, and sums over dimensions. Long ones go in two passes: many invocations make partial sums, a second
//! dispatch sums those. There are no atomics, so the order of every sum is fixed.

use super::tiles::{self, Tiles};
use super::{
    Constants, by_four, channels, dispatch, element_shader, elements, fold, shader, single,
};
use crate::batch::DType;
use crate::gpu::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered, Store};
use crate::graph::op::{Op, Reduction};

/// Invocations that share one sum, at most: enough to fill a GPU with few channels, few enough for one
/// invocation to sum their results.
const SHARES: usize = 256;

/// Sums of fewer elements than this are made in one pass.
const ONE_PASS: usize = 512;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::Bias => bias(bound, caps),
        Op::BiasGrad => bias_grad(bound, caps),
        Op::Reduce { reduction, axis } => {
            let shape = &bound.inputs[0].shape;
            let outer = shape[..axis].iter().product();
            let inner = shape[axis + 1..].iter().product();
            let factor = match reduction {
                Reduction::Sum => 1.0,
                Reduction::Mean => 1.0 / shape[axis] as f64,
            };
            let stores = [bound.inputs[0], bound.outputs[0]].map(|x| Store::of(x.dtype, false));
            reduce_in_passes([outer, shape[axis], inner], factor, stores, caps)
        }
        _ => unreachable!("not a sum: {}", op.name()),
    }
}

/// How the elements of a channel of `x[rows, channels, plane]` are shared among invocations: see
/// `shaders/shared/channels.wgsl`.
#[derive(Clone, Copy)]
pub(super) struct Shares {
    dims: [usize; 3],
    row_splits: usize,
    plane_lanes: usize,
    /// Whether an element is four numbers.
    pub(super) four: bool,
}

impl Shares {
    /// The shares for a sum over a tensor of this shape: one if a channel has few elements.
    pub(super) fn of(shape: &[usize], caps: &DeviceCaps) -> Self {
        let [rows, channels, plane] = channels(shape);
        let four = by_four(plane);
        let dims @ [_, _, elements] = [rows, channels, self::elements(plane)];
        if rows * plane < ONE_PASS {
            return Self { dims, row_splits: 1, plane_lanes: 1, four };
        }
        let plane_lanes = elements.min(lanes(caps));
        let row_splits = (SHARES / plane_lanes).clamp(1, rows);
        Self { dims, row_splits, plane_lanes, four }
    }

    /// The shares for a map over a tensor of this shape: on GPUs few elements each, so that there are many;
    /// on software adapters as for a sum, since there a loop is cheaper than an invocation.
    pub(super) fn of_map(shape: &[usize], caps: &DeviceCaps) -> Self {
        let shares = Self::of(shape, caps);
        let [rows, _, elements] = shares.dims;
        match caps.software {
            true => shares,
            false => Self { row_splits: rows, plane_lanes: elements.min(lanes(caps)), ..shares },
        }
    }

    /// The shares of the invocations of a workgroup, a power of two, that has a channel to itself.
    pub(super) fn of_workgroup(shape: &[usize], lanes: u32) -> Self {
        let [rows, channels, plane] = channels(shape);
        let dims @ [_, _, elements] = [rows, channels, self::elements(plane)];
        let lanes = lanes as usize;
        let plane_lanes = elements.next_power_of_two().min(lanes);
        Self { dims, row_splits: lanes / plane_lanes, plane_lanes, four: by_four(plane) }
    }

    /// Turns of its loops by the longest of the shares.
    pub(super) fn turns(self) -> usize {
        let [rows, _, elements] = self.dims;
        rows.div_ceil(self.row_splits) * (1 + elements.div_ceil(self.plane_lanes))
    }

    /// How many channels there are.
    pub(super) fn channels(self) -> usize {
        self.dims[1]
    }

    /// One share a channel over the partial results of these.
    fn of_partials(self) -> Self {
        let dims = [self.row_splits, self.dims[1], self.plane_lanes];
        Self { dims, row_splits: 1, plane_lanes: 1, four: false }
    }

    /// How many invocations, and how many partial results.
    pub(super) fn len(self) -> usize {
        self.row_splits * self.dims[1] * self.plane_lanes
    }

    /// Whether each channel has only one, so that no second pass is needed.
    fn is_single(self) -> bool {
        self.len() == self.dims[1]
    }

    pub(super) fn constants(self) -> Constants {
        let [rows, channels, plane] = self.dims;
        [
            ("ROWS", rows),
            ("CHANNELS", channels),
            ("PLANE", plane),
            ("ROW_SPLITS", self.row_splits),
            ("PLANE_LANES", self.plane_lanes),
            ("NUMBERS", if self.four { 4 } else { 1 }),
        ]
        .map(|(name, value)| (name, value as f64))
        .to_vec()
    }
}

/// Invocations that walk a plane side by side: a workgroup on GPUs; on software adapters a vector, so that
/// each vector reads on from where it is, as processors fetch ahead.
fn lanes(caps: &DeviceCaps) -> usize {
    if caps.software { 8 } else { 64 }
}

fn bias(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shares = Shares::of_map(&bound.inputs[0].shape, caps);
    let shader = element_shader!(shares.four, "bias", "dispatch", "channels")
        .with_stores(shares.four, [("StoreX", bound.inputs[0]), ("StoreY", bound.outputs[0])]);
    single(shader, shares.constants(), bound, shares.len(), caps)
}

fn bias_grad(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let shape = &bound.inputs[0].shape;
    let dtype = bound.inputs[0].dtype;
    if let Some(tiles) = Tiles::of(shape, caps) {
        return in_parts(tiles.count, shape[1], caps, |sums| {
            let shader =
                element_shader!(tiles.four, "bias_grad_tiles", "dispatch", "rows", "channel_tiles");
            let shader = shader.with_store("StoreDy", Store::of(dtype, tiles.four));
            tiles.dispatch(shader, vec![], vec![Binding::Input(0), sums], caps)
        });
    }
    let [rows, channels, plane] = channels(shape);
    if plane == 1 && !caps.software && caps.max_invocations >= tiles::WORKGROUP {
        let splits = rows.div_ceil(ROWS_EACH * COLUMN_LANES);
        return in_parts(splits, channels, caps, |sums| {
            columns([rows, channels, splits], Store::of(dtype, false), sums, caps)
        });
    }
    let shares = Shares::of(shape, caps);
    let pass = |shares: Shares, from, dtype, to| {
        let shader = element_shader!(shares.four, "bias_grad", "dispatch", "channels")
            .with_store("StoreDy", Store::of(dtype, shares.four));
        dispatch(shader, shares.constants(), vec![from, to], shares.len(), caps)
    };
    if shares.is_single() {
        let dispatches = vec![pass(shares, Binding::Input(0), dtype, Binding::Output(0))];
        return Lowered { dispatches, scratch_bytes: vec![] };
    }
    Lowered {
        dispatches: vec![
            pass(shares, Binding::Input(0), dtype, Binding::ScratchWrite(0)),
            pass(shares.of_partials(), Binding::ScratchRead(0), DType::F32, Binding::Output(0)),
        ],
        scratch_bytes: vec![4 * shares.len()],
    }
}

/// One dispatch into the result or, for several parts, into partial sums that a second one adds up.
fn in_parts(
    parts: usize,
    channels: usize,
    caps: &DeviceCaps,
    partial: impl Fn(Binding) -> Dispatch,
) -> Lowered {
    if parts == 1 {
        return Lowered { dispatches: vec![partial(Binding::Output(0))], scratch_bytes: vec![] };
    }
    let bindings = [Binding::ScratchRead(0), Binding::Output(0)];
    let total = reduce([1, parts, channels], 1, 1.0, bindings, [Store::F32; 2], caps);
    let partial = partial(Binding::ScratchWrite(0));
    Lowered { dispatches: vec![partial, total], scratch_bytes: vec![4 * parts * channels] }
}

/// Columns of a workgroup of `bias_grad_columns`, and invocations of each.
const COLUMNS: usize = 32;
const COLUMN_LANES: usize = 8;
/// Rows of a matrix that an invocation sums, about: few enough to wait for their loads only shortly.
const ROWS_EACH: usize = 32;

/// The sums of a matrix's columns, over `splits` interleaved parts of its rows.
fn columns(
    [rows, channels, splits]: [usize; 3],
    store: Store,
    sums: Binding,
    caps: &DeviceCaps,
) -> Dispatch {
    let constants = vec![
        ("ROWS", rows as f64),
        ("CHANNELS", channels as f64),
        ("SPLITS", splits as f64),
        ("WORKGROUP_SIZE", (COLUMNS * COLUMN_LANES) as f64),
    ];
    let shader = shader!("bias_grad_columns", "dispatch").with_store("StoreDy", store);
    let workgroups = fold(splits * channels.div_ceil(COLUMNS), caps);
    let bindings = vec![Binding::Input(0), sums];
    Dispatch { shader, constants, bindings, workgroups, guarded: true }
}

fn reduce_in_passes(
    [outer, len, inner]: [usize; 3],
    factor: f64,
    [x, y]: [Store; 2],
    caps: &DeviceCaps,
) -> Lowered {
    let outputs = outer * inner;
    // With many outputs there are enough invocations without sharing a sum.
    let splits = (SHARES * 64 / outputs).clamp(1, SHARES).min(len);
    if splits == 1 || len < ONE_PASS {
        let dims = [outer, len, inner];
        let once = reduce(dims, 1, factor, [Binding::Input(0), Binding::Output(0)], [x, y], caps);
        return Lowered { dispatches: vec![once], scratch_bytes: vec![] };
    }
    let [partial, total] = [
        reduce(
            [outer, len, inner],
            splits,
            1.0,
            [Binding::Input(0), Binding::ScratchWrite(0)],
            [x, Store::F32],
            caps,
        ),
        reduce(
            [1, splits, outputs],
            1,
            factor,
            [Binding::ScratchRead(0), Binding::Output(0)],
            [Store::F32, y],
            caps,
        ),
    ];
    Lowered { dispatches: vec![partial, total], scratch_bytes: vec![4 * splits * outputs] }
}

/// Sums `from[outer, len, inner]` over the middle, times `factor`, into `to[splits, outer, inner]`; both are
/// stored as `x` and `y` say.
pub(super) fn reduce(
    [outer, len, inner]: [usize; 3],
    splits: usize,
    factor: f64,
    [from, to]: [Binding; 2],
    [x, y]: [Store; 2],
    caps: &DeviceCaps,
) -> Dispatch {
    let constants = vec![
        ("OUTER", outer as f64),
        ("LEN", len as f64),
        ("INNER", inner as f64),
        ("SPLITS", splits as f64),
        ("FACTOR", factor),
    ];
    let shader = shader!("reduce", "dispatch").with_store("StoreX", x).with_store("StoreY", y);
    dispatch(shader, constants, vec![from, to], splits * outer * inner, caps)
}
