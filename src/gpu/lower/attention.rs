//! Multi-head attention and its gradient. Neither form keeps a weight in memory: the softmax goes along with
//! the keys, and the gradient makes the weights again, once for the queries and once for keys and values,
//! because adding to them from many workgroups would take float atomics.

use super::{Constants, SOFTWARE_TURNS, WORKGROUP, dispatch, fold, row_lanes, shader};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered, Shader};
use crate::graph::op::Op;

/// Invocations of a workgroup along a side, as in `shaders/shared/attention_tiles.wgsl`.
const SIDE: usize = 8;

/// Rows and columns of an invocation, largest first: more are faster, if workgroup memory holds them.
const EACH: [usize; 3] = [4, 2, 1];

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::Attention { heads, causal } => {
            forward(Attention::of(&bound.inputs[0].shape, heads, causal), bound, caps)
        }
        Op::AttentionGrad { heads, causal } => {
            gradient(Attention::of(&bound.inputs[1].shape, heads, causal), bound, caps)
        }
        Op::CachedAttention { heads } => cached(heads, bound, caps),
        _ => unreachable!("not attention: {}", op.name()),
    }
}

/// First the cache takes the keys and values of all rows, then each row and head looks at its part of the cache.
fn cached(heads: usize, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let (qkv, cache) = (&bound.inputs[0].shape, &bound.outputs[1].shape);
    let (rows, width, capacity) = (qkv[0], qkv[1] / 3, cache[1]);
    let sizes = || -> Constants {
        let sizes = [("ROWS", rows), ("WIDTH", width), ("CAPACITY", capacity)];
        sizes.map(|(name, size)| (name, size as f64)).to_vec()
    };
    let keep = shader!("cached_attention_keep", "dispatch", "cached_attention");
    let bindings = vec![Input(0), Input(1), Output(1)];
    let keep = dispatch(keep, sizes(), bindings, rows * 2 * width, caps);
    let head = width / heads;
    let is_long = caps.software && capacity * (2 * head + 1) > SOFTWARE_TURNS;
    let lanes = if is_long { WORKGROUP } else { row_lanes(capacity, caps) };
    let mut constants = sizes();
    constants.extend([
        ("HEADS", heads as f64),
        ("SCALE", 1.0 / ((width / heads) as f64).sqrt()),
        ("LANES", f64::from(lanes)),
    ]);
    let attend = shader!("cached_attention", "dispatch", "rows", "cached_attention")
        .with_const("HEAD", (width / heads) as u32);
    let bindings = vec![Input(0), Input(1), Output(1), Output(0)];
    let invocations = rows * heads * lanes as usize;
    let attend = dispatch(attend, constants, bindings, invocations, caps);
    Lowered { dispatches: vec![keep, attend], scratch_bytes: vec![] }
}

fn forward(attention: Attention, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let stores = [("StoreQkv", bound.inputs[0]), ("StoreY", bound.outputs[0])];
    let bindings = vec![Input(0), Output(0), Output(1)];
    let dispatch = match attention.each(2, caps) {
        Some(each) => {
            let shader = shader!("attention_tiled", "dispatch", "attention", "attention_tiles");
            attention.tiled(shader.with_stores(false, stores), each, 2, bindings, caps)
        }
        None => {
            let shader = shader!("attention", "dispatch", "attention");
            attention.by_token(shader.with_stores(false, stores), bindings, caps)
        }
    };
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}

fn gradient(attention: Attention, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let mean = attention.by_token(
        shader!("attention_mean", "dispatch", "attention")
            .with_stores(false, [("StoreDy", bound.inputs[0]), ("StoreY", bound.inputs[2])]),
        vec![Input(0), Input(2), ScratchWrite(0)],
        caps,
    );
    let [dy, qkv] = [bound.inputs[0], bound.inputs[1]];
    let stores = [("StoreDy", dy), ("StoreQkv", qkv), ("StoreDqkv", bound.outputs[0])];
    let bindings = || vec![Input(0), Input(1), Input(3), ScratchRead(0), Output(0)];
    // The shaders that write queries, and those that write keys and values.
    macro_rules! shaders {
        ($queries:literal, $keys:literal $(, $part:literal)*) => {
            [shader!($queries, $($part),*), shader!($keys, $($part),*)]
        };
    }
    let [queries, keys] = match attention.each(3, caps) {
        Some(each) => shaders!(
            "attention_query_grad_tiled",
            "attention_key_grad_tiled",
            "dispatch",
            "attention",
            "attention_tiles",
            "attention_grad_tiles"
        )
        .map(|shader| {
            attention.tiled(shader.with_stores(false, stores), each, 3, bindings(), caps)
        }),
        None => shaders!("attention_query_grad", "attention_key_grad", "dispatch", "attention")
            .map(|shader| attention.by_token(shader.with_stores(false, stores), bindings(), caps)),
    };
    let scratch_bytes = vec![4 * attention.pairs * attention.tokens];
    Lowered { dispatches: vec![mean, queries, keys], scratch_bytes }
}

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct Attention {
    tokens: usize,
    heads: usize,
    /// Pairs of sample and head.
    pairs: usize,
    /// Features of a head.
    head: usize,
    causal: bool,
}

impl Attention {
    fn of(qkv: &[usize], heads: usize, causal: bool) -> Self {
        let head = qkv[2] / 3 / heads;
        Self { tokens: qkv[1], heads, pairs: qkv[0] * heads, head, causal }
    }

    fn constants(&self) -> Constants {
        vec![
            ("T", self.tokens as f64),
            ("HEADS", self.heads as f64),
            ("PAIRS", self.pairs as f64),
            ("SCALE", 1.0 / (self.head as f64).sqrt()),
            ("CAUSAL", f64::from(u8::from(self.causal))),
        ]
    }

    /// An invocation for each token of each pair.
    fn by_token(&self, shader: Shader, bindings: Vec<Binding>, caps: &DeviceCaps) -> Dispatch {
        let shader = shader.with_const("HEAD", self.head as u32);
        dispatch(shader, self.constants(), bindings, self.pairs * self.tokens, caps)
    }

    /// A workgroup for each block of tokens of each pair.
    fn tiled(
        &self,
        shader: Shader,
        each: usize,
        tiles: usize,
        bindings: Vec<Binding>,
        caps: &DeviceCaps,
    ) -> Dispatch {
        let shader = shader
            .with_const("HEAD", self.head as u32)
            .with_const("EACH", each as u32)
            .with_const("TILES", tiles as u32);
        let workgroups = fold(self.pairs * self.tokens.div_ceil(SIDE * each), caps);
        Dispatch { shader, constants: self.constants(), bindings, workgroups, guarded: true }
    }

    /// Rows and columns of an invocation of a kernel with so many tiles; none for heads that workgroup memory cannot hold, and
    /// on software adapters, where a barrier is a switch between coroutines, as long as an invocation may go over all keys.
    fn each(&self, tiles: usize, caps: &DeviceCaps) -> Option<usize> {
        let quads = self.head.div_ceil(4);
        let pitch_bytes = 16 * (quads + 1 - quads % 2);
        let bytes = |each: usize| {
            let block = SIDE * each;
            block * (tiles * pitch_bytes + 4 * (block + 1) + 4)
        };
        let fits = |each: &usize| bytes(*each) <= caps.workgroup_bytes as usize;
        let is_short = self.tokens * (4 * self.head + 1) <= SOFTWARE_TURNS;
        if caps.software && is_short { None } else { EACH.into_iter().find(fits) }
    }
}
