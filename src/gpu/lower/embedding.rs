//! Rows of a table by their numbers. The gradient links the places of each id in their order and adds up along the
//! links, because adding from many workgroups would take float atomics. Software adapters do so in chunks of places, one
//! after the other, which changes no sum's order.

use super::{SOFTWARE_TURNS, by_four, dispatch, element_shader, elements, shader, single};
use crate::gpu::kernel::Binding::{Input, Output, ScratchRead, ScratchWrite};
use crate::gpu::kernel::{Bound, DeviceCaps, Lowered, Shader, Store};
use crate::graph::Tensor;
use crate::graph::op::Op;

pub(super) fn lower(op: &Op, bound: Bound, caps: &DeviceCaps) -> Lowered {
    match op {
        Op::Embedding => forward(bound, caps),
        Op::EmbeddingGrad => gradient(bound, caps),
        _ => unreachable!("not an embedding: {}", op.name()),
    }
}

/// Where the document of each token begins.
pub(super) fn document_starts(end: u32, bound: Bound, caps: &DeviceCaps) -> Lowered {
    let ids = bound.inputs[0];
    let constants = vec![
        id_bits(ids),
        ("COUNT", ids.len() as f64),
        ("T", ids.shape[1] as f64),
        ("END", f64::from(end)),
    ];
    single(shader!("document_starts", "dispatch", "ids"), constants, bound, ids.len(), caps)
}

fn id_bits(ids: &Tensor) -> (&'static str, f64) {
    ("ID_BITS", 8.0 * ids.dtype.bytes() as f64)
}

fn forward(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let ([ids, table], y) = ([bound.inputs[0], bound.inputs[1]], bound.outputs[0]);
    let &[rows, width] = table.shape.as_slice() else { unreachable!("a table has two dimensions") };
    let four = by_four(width);
    let constants = vec![id_bits(ids), ("ROWS", rows as f64), ("WIDTH", elements(width) as f64)];
    let shader = element_shader!(four, "embedding", "dispatch", "ids")
        .with_stores(four, [("StoreTable", table), ("StoreY", y)]);
    single(shader, constants, bound, y.len() / width * elements(width), caps)
}

fn gradient(bound: Bound, caps: &DeviceCaps) -> Lowered {
    let ([dy, ids], dtable) = ([bound.inputs[0], bound.inputs[1]], bound.outputs[0]);
    let &[rows, width] = dtable.shape.as_slice() else { unreachable!("as its table") };
    let (count, four) = (ids.len(), by_four(width));
    // An invocation goes over a whole chunk at most, once in either shader.
    let chunk = if caps.software { count.min(SOFTWARE_TURNS) } else { count };
    let zero = shader!("zero", "dispatch").with_store("YStore", Store::of(dtable.dtype, four));
    let len = rows * elements(width);
    let zero = dispatch(zero, vec![("LEN", len as f64)], vec![Output(0)], len, caps);
    let links = dispatch(
        shader!("embedding_links", "dispatch", "ids"),
        vec![id_bits(ids), ("COUNT", count as f64), ("CHUNK", chunk as f64)],
        vec![Input(1), ScratchWrite(0)],
        count,
        caps,
    );
    let sums: Shader = element_shader!(four, "embedding_grad", "dispatch", "ids")
        .with_stores(four, [("StoreDy", dy), ("StoreDtable", dtable)]);
    let sums = (0..count).step_by(chunk).map(|from| {
        let end = count.min(from + chunk);
        let constants = vec![
            id_bits(ids),
            ("FROM", from as f64),
            ("END", end as f64),
            ("ROWS", rows as f64),
            ("WIDTH", elements(width) as f64),
        ];
        let bindings = vec![Input(0), Input(1), ScratchRead(0), Output(0)];
        dispatch(sums.clone(), constants, bindings, (end - from) * elements(width), caps)
    });
    let dispatches = [zero, links].into_iter().chain(sums).collect();
    Lowered { dispatches, scratch_bytes: vec![4 * count] }
}
