//! Multi-head attention and its gradient. Neither form keeps a weight in memory: the softmax goes along with
//! the keys, and the gradient makes the weights again, once for the queries and once for keys and values,
//! because adding to them from many workgroups would take float atomics.

use super::{Constants, SOFTWARE_TURNS, WORKGROUP, dispatch, fold, part, row_lanes, shader};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered, Shader};
use crate::graph::op::{Attending, Op};

/// Invocations of a workgroup along a side, as in `shaders/shared/attention_tiles.wgsl`.
const SIDE: usize = 8;

/// Rows and columns of an invocation, largest first: more are faster, if workgroup memory holds them.
const EACH: [usize; 3] = [4, 2, 1];

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match *op {
        Op::Attention(how) => forward(Attention::of(&bound.inputs[0].shape, how), bound, caps),
        Op::AttentionGrad(how) => gradient(Attention::of(&bound.inputs[1].shape, how), bound, caps),
        Op::CachedAttention { heads, kv_heads } => cached(heads, heads / kv_heads, bound, caps),
        _ => unreachable!("not attention: {}", op.name()),
    }
}

/// First the cache takes the keys and values of all rows, then each row and head looks at its part of the cache.
fn cached(heads: usize, group: usize, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let (y, cache) = (bound.outputs[0], bound.outputs[1]);
    let &[rows, width] = y.shape.as_slice() else { unreachable!("two dimensions") };
    let &[_, capacity, kept] = cache.shape.as_slice() else { unreachable!("three dimensions") };
    let sizes = || -> Constants {
        let sizes = [("ROWS", rows), ("WIDTH", width), ("KEPT", kept), ("CAPACITY", capacity)];
        sizes.map(|(name, size)| (name, size as f64)).to_vec()
    };
    let stores = [("StoreCache", cache)];
    let keep = shader!("cached_attention_keep", "dispatch", "cached_attention");
    let keep = keep.with_stores(false, stores);
    let bindings = vec![Input(0), Input(1), Output(1)];
    let keep = dispatch(keep, sizes(), bindings, rows * kept, caps);
    let head = width / heads;
    let is_long = caps.software && capacity * (2 * head + 1) > SOFTWARE_TURNS;
    let lanes = if is_long { WORKGROUP } else { row_lanes(capacity, caps) };
    let mut constants = sizes();
    constants.extend([
        ("HEADS", heads as f64),
        ("GROUP", group as f64),
        ("SCALE", 1.0 / ((width / heads) as f64).sqrt()),
        ("LANES", f64::from(lanes)),
    ]);
    let attend = shader!("cached_attention", "dispatch", "rows", "cached_attention")
        .with_stores(false, stores)
        .with_const("HEAD", (width / heads) as u32);
    let bindings = vec![Input(0), Input(1), Output(1), Output(0)];
    let invocations = rows * heads * lanes as usize;
    let attend = dispatch(attend, constants, bindings, invocations, caps);
    Lowered { dispatches: vec![keep, attend], scratch_bytes: vec![] }
}

fn forward(attention: Attention, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let stores = [("StoreQkv", bound.inputs[0]), ("StoreY", bound.outputs[0])];
    let bindings = vec![Input(0), Output(0), Output(1)];
    let masked = |shader: Shader| attention.masked(shader.with_stores(false, stores), bindings, 1);
    let dispatch = match attention.each(2, caps) {
        Some(each) => {
            let shader = shader!("attention_tiled", "dispatch", "attention", "attention_tiles");
            let (shader, bindings) = masked(shader);
            attention.tiled(shader, each, 2, bindings, attention.pairs, caps)
        }
        None => {
            let (shader, bindings) = masked(shader!("attention", "dispatch", "attention"));
            attention.by_token(shader, bindings, attention.pairs, caps)
        }
    };
    Lowered { dispatches: vec![dispatch], scratch_bytes: vec![] }
}

fn gradient(attention: Attention, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let mean = shader!("attention_mean", "dispatch", "attention")
        .with_stores(false, [("StoreDy", bound.inputs[0]), ("StoreY", bound.inputs[2])]);
    let bindings = vec![Input(0), Input(2), ScratchWrite(0)];
    let mean = mean.with_const("HEAD", attention.head as u32);
    let invocations = attention.pairs * attention.tokens;
    let mean = dispatch(mean, attention.constants(), bindings, invocations, caps);
    let [dy, qkv] = [bound.inputs[0], bound.inputs[1]];
    let stores = [("StoreDy", dy), ("StoreQkv", qkv), ("StoreDqkv", bound.outputs[0])];
    let bindings = || vec![Input(0), Input(1), Input(3), ScratchRead(0), Output(0)];
    let masked =
        |shader: Shader| attention.masked(shader.with_stores(false, stores), bindings(), 4);
    // The shaders that write queries, and those that write keys and values, which heads of queries share.
    macro_rules! shaders {
        ($queries:literal, $keys:literal $(, $part:literal)*) => {
            [
                (shader!($queries, $($part),*), attention.pairs),
                (shader!($keys, $($part),*), attention.pairs / attention.how.group()),
            ]
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
        .map(|(shader, pairs)| {
            let (shader, bindings) = masked(shader);
            attention.tiled(shader, each, 3, bindings, pairs, caps)
        }),
        None => shaders!("attention_query_grad", "attention_key_grad", "dispatch", "attention")
            .map(|(shader, pairs)| {
                let (shader, bindings) = masked(shader);
                attention.by_token(shader, bindings, pairs, caps)
            }),
    };
    let scratch_bytes = vec![4 * attention.pairs * attention.tokens];
    Lowered { dispatches: vec![mean, queries, keys], scratch_bytes }
}

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct Attention {
    tokens: usize,
    /// Pairs of sample and head of queries.
    pairs: usize,
    /// Features of a head.
    head: usize,
    how: Attending,
}

impl Attention {
    fn of(qkv: &[usize], how: Attending) -> Self {
        let head = qkv[2] / (how.heads + 2 * how.kv_heads);
        Self { tokens: qkv[1], pairs: qkv[0] * how.heads, head, how }
    }

    fn constants(&self) -> Constants {
        vec![
            ("T", self.tokens as f64),
            ("HEADS", self.how.heads as f64),
            ("KV_HEADS", self.how.kv_heads as f64),
            ("PAIRS", self.pairs as f64),
            ("SCALE", 1.0 / (self.head as f64).sqrt()),
            ("CAUSAL", f64::from(u8::from(self.how.causal))),
        ]
    }

    /// Adds to a shader what is masked besides what is to come, with what that reads: inputs from `input` on.
    fn masked(
        &self,
        mut shader: Shader,
        mut bindings: Vec<Binding>,
        mut input: usize,
    ) -> (Shader, Vec<Binding>) {
        let mut bind = |shader: Shader, name| {
            let shader = shader.with_const(name, bindings.len() as u32);
            bindings.push(Input(input));
            input += 1;
            shader
        };
        shader = match self.how.documents {
            true => bind(shader, "STARTS").with_part(part!("attention_documents")),
            false => shader.with_part(part!("attention_samples")),
        };
        shader = match self.how.dropout > 0.0 {
            true => bind(shader, "HEADER")
                .with_part(part!("header"))
                .with_part(part!("rng"))
                .with_part(part!("attention_dropout")),
            false => shader.with_part(part!("attention_whole")),
        };
        (shader, bindings)
    }

    /// The constants of a masked shader.
    fn masked_constants(&self) -> Constants {
        let mut constants = self.constants();
        if self.how.dropout > 0.0 {
            let p = f64::from(self.how.dropout);
            constants.extend([
                ("THRESHOLD", f64::from((p * 4_294_967_296.0) as u32)),
                ("KEPT_FACTOR", 1.0 / (1.0 - p)),
                ("SALT", f64::from(self.how.salt)),
            ]);
        }
        constants
    }

    /// An invocation for each token of so many pairs.
    fn by_token(
        &self,
        shader: Shader,
        bindings: Vec<Binding>,
        pairs: usize,
        caps: &DeviceCaps,
    ) -> Dispatch {
        let shader = shader.with_const("HEAD", self.head as u32);
        dispatch(shader, self.masked_constants(), bindings, pairs * self.tokens, caps)
    }

    /// A workgroup for each block of tokens of so many pairs.
    fn tiled(
        &self,
        shader: Shader,
        each: usize,
        tiles: usize,
        bindings: Vec<Binding>,
        pairs: usize,
        caps: &DeviceCaps,
    ) -> Dispatch {
        let shader = shader
            .with_const("HEAD", self.head as u32)
            .with_const("EACH", each as u32)
            .with_const("TILES", tiles as u32);
        let workgroups = fold(pairs * self.tokens.div_ceil(SIDE * each), caps);
        let constants = self.masked_constants();
        Dispatch { shader, constants, bindings, workgroups, guarded: true }
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
        // Of keys that several heads share, an invocation goes over the queries of all.
        let queries = self.how.group() * self.tokens;
        let is_short = queries * (4 * self.head + 1) <= SOFTWARE_TURNS;
        if caps.software && is_short { None } else { EACH.into_iter().find(fits) }
    }
}
