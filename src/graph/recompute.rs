//! Recomputation: less memory for more arithmetic (Chen, Xu, Zhang and Guestrin, "Training Deep Nets with
//! Sublinear Memory Cost", 2016).
//!
//! The forward operations are cut into segments. What passes from one segment to the next is kept; what only
//! the backward operations of a segment read again is forgotten, and made anew by clones of its operations
//! just before. Clones read the same and compute the same bits: dropout follows counters, and statistics,
//! which also move running averages, are small and kept.

use std::collections::{HashMap, HashSet};

use super::memory::Pool;
use super::op::Op;
use super::plan::ActivationBuffer;
use super::{Graph, Node, Role, TensorId};

/// What takes no more than this is kept: statistics, logits, masks of a few rows.
const SMALL_BYTES: usize = 1 << 16;

/// Rewrites a training graph so that its activations take the least memory that some number of segments gives.
/// A graph without a loss's gradient, and one that gains nothing, stay as they are.
pub fn recompute(graph: &mut Graph, keep: &[TensorId]) {
    let Some(forward) = graph.nodes.iter().position(|node| gives_gradient(&node.op)) else {
        return;
    };
    // Memory falls and rises again with the number of segments, with its least around the root of the
    // number of operations.
    let most = 2 * forward.isqrt() + 2;
    let candidates = (2..=most).map(|segments| {
        let cuts = cuts(graph, forward, segments);
        segmented(graph, forward, &cuts, keep)
    });
    let best = candidates.min_by_key(|graph| (activation_bytes(graph, keep), graph.nodes.len()));
    if let Some(best) = best
        && activation_bytes(&best, keep) < activation_bytes(graph, keep)
    {
        *graph = best;
    }
}

fn gives_gradient(op: &Op) -> bool {
    matches!(
        op,
        Op::CrossEntropy { gradient: true, .. }
            | Op::SoftCrossEntropy { gradient: true }
            | Op::MeanSquaredError { gradient: true }
    )
}

/// What the activations of a graph take where they share buffers.
fn activation_bytes(graph: &Graph, keep: &[TensorId]) -> usize {
    let mut pool = Pool::default();
    pool.assign(graph, keep);
    pool.buffers.iter().map(ActivationBuffer::bytes).sum()
}

fn bytes(graph: &Graph, id: TensorId) -> usize {
    let tensor = graph.tensor(id);
    tensor.len() * tensor.dtype.bytes()
}

/// The last of the first `forward` operations that touches each root.
fn last_forward_uses(graph: &Graph, forward: usize) -> HashMap<TensorId, usize> {
    let mut last = HashMap::new();
    for (i, node) in graph.nodes[..forward].iter().enumerate() {
        let touched = node.inputs.iter().chain(&node.outputs);
        last.extend(touched.map(|&id| (graph.root(id), i)));
    }
    last
}

/// Whether running an operation again changes nothing but its outputs.
fn is_pure(graph: &Graph, node: &Node) -> bool {
    node.outputs.iter().all(|&y| graph.tensor(y).role == Role::Activation)
}

/// Where to cut the first `forward` operations into `segments` that write about the same number of bytes:
/// near the even cut, where the least passes from one side to the other.
fn cuts(graph: &Graph, forward: usize, segments: usize) -> Vec<usize> {
    let last = last_forward_uses(graph, forward);
    let written = |node: &Node| node.outputs.iter().map(|&y| bytes(graph, y)).sum::<usize>();
    let (mut before, mut total) = (Vec::with_capacity(forward), 0);
    // What passes each place between two operations.
    let mut passing = vec![0; forward + 1];
    for (i, node) in graph.nodes[..forward].iter().enumerate() {
        before.push(total);
        total += written(node);
        for &y in &node.outputs {
            let end = last.get(&graph.root(y)).copied().unwrap_or(i);
            passing[i + 1..=end].iter_mut().for_each(|sum| *sum += bytes(graph, y));
        }
    }
    let reach = forward / (2 * segments);
    let cut = |i: usize| {
        let even = before.partition_point(|&sum| sum < i * total / segments);
        let near = even.saturating_sub(reach).max(1)..=(even + reach).min(forward - 1);
        near.min_by_key(|&at| (passing[at], at.abs_diff(even)))
    };
    let mut cuts: Vec<usize> = (1..segments).filter_map(cut).collect();
    cuts.dedup();
    cuts
}

/// The graph with all segments but the last made anew before their gradients.
fn segmented(graph: &Graph, forward: usize, cuts: &[usize], keep: &[TensorId]) -> Graph {
    let mut result = graph.clone();
    let rest = result.nodes.split_off(forward);
    let mut segments = forgotten(graph, forward, cuts, keep);
    let mut renewed: HashMap<TensorId, TensorId> = HashMap::new();
    for mut node in rest {
        for i in 0..node.inputs.len() {
            let root = graph.root(node.inputs[i]);
            if let Some(at) = segments.iter().position(|segment| segment.tensors.contains(&root)) {
                let segment = segments.swap_remove(at);
                clone_nodes(&mut result, graph, &segment, &mut renewed);
            }
            node.inputs[i] = renew(&mut result, node.inputs[i], &renewed);
        }
        result.nodes.push(node);
    }
    result
}

/// What a segment forgets: the roots, and the operations that make them, in order.
struct Forgotten {
    tensors: HashSet<TensorId>,
    nodes: Vec<usize>,
}

/// What the gradients read of each segment's inside, with what is needed to make it.
fn forgotten(graph: &Graph, forward: usize, cuts: &[usize], keep: &[TensorId]) -> Vec<Forgotten> {
    let last = last_forward_uses(graph, forward);
    let kept: HashSet<TensorId> = keep.iter().map(|&id| graph.root(id)).collect();
    let read_again: HashSet<TensorId> = graph.nodes[forward..]
        .iter()
        .flat_map(|node| &node.inputs)
        .map(|&x| graph.root(x))
        .collect();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let segment = |(start, &end): (usize, &usize)| {
        let inside = |y: TensorId| last[&y] < end && !kept.contains(&y);
        let mut needed: HashSet<TensorId> = HashSet::new();
        let mut nodes = Vec::new();
        for i in (start..end).rev() {
            let node = &graph.nodes[i];
            let large = node.outputs.iter().any(|&y| bytes(graph, y) > SMALL_BYTES);
            let forgettable =
                large && is_pure(graph, node) && node.outputs.iter().all(|&y| inside(y));
            let wanted = |y: &TensorId| needed.contains(y) || read_again.contains(y);
            if forgettable && node.outputs.iter().any(wanted) {
                nodes.push(i);
                needed.extend(node.inputs.iter().map(|&x| graph.root(x)));
            }
        }
        nodes.reverse();
        let tensors = nodes.iter().flat_map(|&i| &graph.nodes[i].outputs).copied().collect();
        Forgotten { tensors, nodes }
    };
    starts.zip(cuts).map(segment).collect()
}

/// Appends clones of a segment's operations; `renewed` learns what now stands for which root.
fn clone_nodes(
    result: &mut Graph,
    graph: &Graph,
    segment: &Forgotten,
    renewed: &mut HashMap<TensorId, TensorId>,
) {
    for &i in &segment.nodes {
        let mut node = graph.nodes[i].clone();
        node.inputs.iter_mut().for_each(|x| *x = renew(result, *x, renewed));
        for y in &mut node.outputs {
            let super::Tensor { name, shape, dtype, .. } = graph.tensor(*y).clone();
            let again = result.add_tensor(name, &shape, dtype, Role::Activation);
            renewed.insert(*y, again);
            *y = again;
        }
        result.nodes.push(node);
    }
}

/// What stands for `id` now.
fn renew(graph: &mut Graph, id: TensorId, renewed: &HashMap<TensorId, TensorId>) -> TensorId {
    let root = graph.root(id);
    match renewed.get(&root) {
        Some(&again) if root == id => again,
        Some(&again) => {
            let super::Tensor { name, shape, dtype, role } = graph.tensor(id).clone();
            let role = match role {
                Role::Part(..) => Role::Part(again, graph.offset(id)),
                _ => Role::View(again),
            };
            graph.add_tensor(name, &shape, dtype, role)
        }
        None => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::DType;
    use crate::graph::Init;
    use crate::graph::grad::backward;

    const ROWS: usize = 64;
    const WIDTH: usize = 1024;

    /// So many layers that each keep their input for the gradient, and the loss.
    fn chain(layers: usize) -> Graph {
        let mut g = Graph::new();
        let w = g.param("w", &[WIDTH], Init::Constant(1.0));
        let x = g.add_tensor("x", &[ROWS, WIDTH], DType::F32, Role::Input);
        let mut y = g.push_one(Op::Bias, &[x, w]).unwrap();
        for _ in 0..layers {
            y = g.push_one(Op::Gelu, &[y]).unwrap();
        }
        let target = g.add_tensor("target", &[ROWS], DType::U32, Role::Target);
        let header = g.header();
        let loss = Op::CrossEntropy { smoothing: 0.0, gradient: true, per_sample: 1, first: 0 };
        let dy = g.push(loss, &[y, target, header]).unwrap()[1];
        backward(&mut g, y, dy).unwrap();
        g
    }

    #[test]
    fn a_chain_takes_about_the_root_of_its_memory() {
        let mut g = chain(64);
        let (nodes, before) = (g.nodes.len(), activation_bytes(&g, &[]));
        recompute(&mut g, &[]);
        let after = activation_bytes(&g, &[]);
        let layer = 4 * ROWS * WIDTH;
        assert!(before > 64 * layer, "{before}");
        // Eight kept, eight made anew, and what is under way.
        assert!(after < 21 * layer, "{} layers", after / layer);
        assert!(g.nodes.len() <= nodes + 64, "each layer is made twice at most");
    }

    #[test]
    fn everything_is_written_before_it_is_read_and_once() {
        let mut g = chain(20);
        recompute(&mut g, &[]);
        let mut written = HashSet::new();
        for node in &g.nodes {
            for &x in &node.inputs {
                let root = g.root(x);
                let given = g.tensor(root).role != Role::Activation;
                assert!(given || written.contains(&root), "{}", node.op.name());
            }
            let activations =
                node.outputs.iter().filter(|&&y| g.tensor(y).role == Role::Activation);
            activations.for_each(|&y| assert!(written.insert(y), "{} twice", node.op.name()));
        }
    }

    #[test]
    fn what_has_no_gradient_or_gains_nothing_stays() {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[ROWS, WIDTH], DType::F32, Role::Input);
        g.push_one(Op::Relu, &[x]).unwrap();
        recompute(&mut g, &[]);
        assert_eq!(g.nodes.len(), 1);
        let mut g = chain(1);
        let before = g.nodes.clone();
        recompute(&mut g, &[]);
        assert_eq!(g.nodes, before);
    }
}
