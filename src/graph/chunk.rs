//! The head of a language model and its loss by chunks of rows, so that the logits of a batch are never all in memory: at a
//! vocabulary of 50,257 they are by far its largest tensors (Hsu et al., "Liger Kernel", 2024).
//!
//! Logits pass from the product that makes them through operations that treat each row by itself (the loss with its
//! gradient, the loss scale) to the products that end in gradients of the product's operands. A chunk runs all of these over
//! its rows before the next begins. What comes a row (losses, the gradient of the input) is written in its place; the
//! gradient of the weight is summed over chunks in their order. Nothing is computed twice.

use std::collections::{HashMap, HashSet};

use super::op::Op;
use super::{Graph, Node, Role, TensorId};
use crate::batch::DType;

/// Bytes of logits that a chunk may have, as `f32`.
const CHUNK_BYTES: usize = 64 << 20;

/// Chunks begin at multiples of so many rows, so that every part of a tensor, also one of a 16-bit number a row, begins where
/// devices can bind it.
const ROW_ALIGN: usize = 128;

/// Rows of a chunk of logits over `classes`.
pub fn rows_of(classes: usize) -> usize {
    (CHUNK_BYTES / (4 * classes.max(1))).max(1).next_multiple_of(ROW_ALIGN)
}

/// Has the logits of a cross-entropy made by chunks of `rows` rows (as many as 64 MiB of logits have, if `None`), where that
/// takes less memory and nothing in `keep` or elsewhere needs them. Only the order of the sums of the weight's gradient
/// changes.
pub fn chunk(graph: &mut Graph, keep: &[TensorId], rows: Option<usize>) {
    let Some(stretch) = Stretch::find(graph, keep) else { return };
    let step = rows.unwrap_or_else(|| rows_of(stretch.classes)).next_multiple_of(ROW_ALIGN);
    // Two tensors of logits shrink to chunks; beside them stand a chunk's part of the weight's gradient and, where that is no
    // parameter's own, all of it.
    let spare = (stretch.gradients * stretch.width).div_ceil(2);
    if stretch.rows > step + if rows.is_some() { 0 } else { spare } {
        stretch.divide(graph, step);
    }
}

/// The operations on logits, from the product that makes them on.
struct Stretch {
    /// Where they stand, in order.
    nodes: Vec<usize>,
    /// Everything of the logits' shape: these, and what is made of them row by row.
    wide: HashSet<TensorId>,
    rows: usize,
    classes: usize,
    /// Features of a row of the head's input.
    width: usize,
    /// Tensors of the weight's size that dividing takes.
    gradients: usize,
}

impl Stretch {
    fn find(graph: &Graph, keep: &[TensorId]) -> Option<Self> {
        let loss = graph.nodes.iter().find(|node| matches!(node.op, Op::CrossEntropy { .. }))?;
        let logits = loss.inputs[0];
        let kept = keep.iter().any(|&id| graph.root(id) == graph.root(logits));
        let head = graph.nodes.iter().position(|node| node.outputs.contains(&logits))?;
        let plain = matches!(graph.nodes[head].op, Op::MatMul { transpose_a: false, .. });
        let [rows, classes] = graph.shape(logits)[..] else { return None };
        if kept || !plain || graph.tensor(logits).role != Role::Activation {
            return None;
        }
        let width = graph.shape(graph.nodes[head].inputs[0])[1];
        let mut stretch = Self {
            nodes: vec![head],
            wide: HashSet::from([logits]),
            rows,
            classes,
            width,
            gradients: 0,
        };
        for (i, node) in graph.nodes.iter().enumerate().skip(head + 1) {
            if node.inputs.iter().any(|&x| stretch.wide.iter().any(|&y| graph.root(x) == y)) {
                stretch.take(graph, i, keep)?;
            }
        }
        Some(stretch)
    }

    /// Adds operation `i`, which reads something wide; nothing if it does not go by rows.
    fn take(&mut self, graph: &Graph, i: usize, keep: &[TensorId]) -> Option<()> {
        let node = &graph.nodes[i];
        let wide = |x: &TensorId| self.wide.contains(x);
        let by_rows = match node.op {
            Op::CrossEntropy { .. } | Op::LossScale | Op::Cast => wide(&node.inputs[0]),
            // To the gradient of the head's input, of which each row has its own.
            Op::MatMul { transpose_a: false, .. } => {
                wide(&node.inputs[0]) && node.inputs[1..].iter().all(|x| !wide(x))
            }
            // To the gradient of its weight, a sum over rows.
            Op::MatMul { transpose_a: true, transpose_b: false, bias: false, .. } => {
                wide(&node.inputs[0]) && !wide(&node.inputs[1])
            }
            _ => false,
        };
        let shape = [self.rows, self.classes];
        let made = node.outputs.iter().filter(|&&y| *graph.shape(y) == shape);
        let kept = made.clone().any(|&y| keep.iter().any(|&id| graph.root(id) == y));
        if !by_rows || kept || self.nodes.len() > MOST_NODES {
            return None;
        }
        if sums_rows(&node.op) {
            let own = graph.tensor(graph.root(node.outputs[0])).role != Role::Activation;
            self.gradients += if own { 1 } else { 2 };
        }
        self.wide.extend(made);
        self.nodes.push(i);
        Some(())
    }

    /// Replaces the operations by those of each chunk, one behind another. What stood between them and reads none of their
    /// results now comes before.
    fn divide(&self, graph: &mut Graph, step: usize) {
        let nodes = std::mem::take(&mut graph.nodes);
        let own: HashSet<usize> = self.nodes.iter().copied().collect();
        let last = self.nodes[self.nodes.len() - 1];
        let mut made: HashSet<TensorId> = HashSet::new();
        let (mut before, mut stretch, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for (i, node) in nodes.into_iter().enumerate() {
            let later = i > last || node.inputs.iter().any(|&x| made.contains(&graph.root(x)));
            let to = match (own.contains(&i), later) {
                (true, _) => &mut stretch,
                (false, true) => &mut after,
                (false, false) => &mut before,
            };
            if own.contains(&i) || later {
                made.extend(node.outputs.iter().map(|&y| graph.root(y)));
            }
            to.push(node);
        }
        graph.nodes = before;
        let mut first = 0;
        while first < self.rows {
            let rows = step.min(self.rows - first);
            self.push_chunk(graph, &stretch, first, rows);
            first += rows;
        }
        graph.nodes.extend(after);
    }

    /// The operations over `rows` rows from `first` on.
    fn push_chunk(&self, graph: &mut Graph, stretch: &[Node], first: usize, rows: usize) {
        let mut chunks: HashMap<TensorId, TensorId> = HashMap::new();
        for node in stretch {
            let mut node = node.clone();
            if let Op::CrossEntropy { first: begin, .. } = &mut node.op {
                *begin = first;
            }
            let sums = sums_rows(&node.op);
            for (i, x) in node.inputs.iter_mut().enumerate() {
                if let Some(&chunk) = chunks.get(x) {
                    *x = chunk;
                } else if has_rows(&node.op, i) {
                    *x = part(graph, *x, first, rows);
                }
            }
            let mut sum = None;
            for y in &mut node.outputs {
                let tensor = graph.tensor(*y).clone();
                let new = if self.wide.contains(y) {
                    let shape = [rows, self.classes];
                    graph.add_tensor(tensor.name, &shape, tensor.dtype, Role::Activation)
                } else if !sums {
                    part(graph, *y, first, rows)
                } else if first == 0 {
                    *y
                } else {
                    sum = Some(*y);
                    graph.add_tensor(tensor.name, &tensor.shape, DType::F32, Role::Activation)
                };
                chunks.insert(*y, new);
                *y = new;
            }
            let (scope, made) = (node.scope.clone(), node.outputs[0]);
            graph.nodes.push(node);
            if let Some(sum) = sum {
                let (op, inputs, outputs) = (Op::AddTo, vec![made], vec![sum]);
                graph.nodes.push(Node { op, inputs, outputs, scope });
            }
        }
    }
}

/// Operations on logits at most: the product, the loss, a loss scale, a cast and two gradients, with room.
const MOST_NODES: usize = 8;

/// Whether the result is a sum over rows, not one a row.
fn sums_rows(op: &Op) -> bool {
    matches!(op, Op::MatMul { transpose_a: true, .. })
}

/// Whether input `i` has a row for each of the logits.
fn has_rows(op: &Op, i: usize) -> bool {
    match op {
        Op::CrossEntropy { .. } => i < 2,
        Op::MatMul { transpose_a: true, .. } => i < 2,
        _ => i == 0,
    }
}

/// `rows` rows of `x` from `first` on.
fn part(graph: &mut Graph, x: TensorId, first: usize, rows: usize) -> TensorId {
    let tensor = graph.tensor(x).clone();
    let (mut shape, mut start) = (tensor.shape, first);
    shape[0] = rows;
    start *= shape[1..].iter().product::<usize>();
    graph.add_tensor(tensor.name, &shape, tensor.dtype, Role::Part(x, start))
}
