//! Muon: which parameters it moves, and the operations of their update.

use std::collections::HashSet;

use crate::batch::DType;
use crate::error::Result;
use crate::graph::op::{Activation, MUON_STEPS, MuonRule, Op, Reduction};
use crate::graph::plan::Variable;
use crate::graph::{Arena, Graph, Role, TensorId};

/// The parameters that Muon moves, of a graph that ends in the loss: the weights of products and convolutions, each output a
/// row. Not those of the last of them, which makes the output, nor tables that are looked up, nor convolutions in groups,
/// whose rows have nothing to be orthogonal to; nor what has one dimension (Jordan et al., 2024).
pub(super) fn matrices(graph: &Graph) -> HashSet<TensorId> {
    let mut found: HashSet<TensorId> = HashSet::new();
    let mut head = None;
    for node in &graph.nodes {
        let multiplies = match node.op {
            Op::MatMul { .. } => true,
            Op::Conv2d { geometry, .. } => geometry.groups == 1,
            _ => false,
        };
        let Some(weight) = node.inputs.get(1).map(|&id| graph.root(id)) else { continue };
        if multiplies && matches!(graph.tensor(weight).role, Role::Param(_)) {
            found.insert(weight);
            head = Some(weight);
        }
    }
    let looked_up = graph.nodes.iter().filter(|node| node.op == Op::Embedding);
    for table in looked_up.map(|node| graph.root(node.inputs[1])).chain(head) {
        found.remove(&table);
    }
    found
}

/// Adds the update of one matrix by its gradients, which lie in the arena `from`.
///
/// The learning rate is scaled so that updates are about as large as Adam's, and one rate does for both (Liu et al., "Muon is
/// Scalable for LLM Training", 2025; `adjust_lr_fn="match_rms_adamw"` of PyTorch).
pub(super) fn update(
    graph: &mut Graph,
    rule: MuonRule,
    matrix: &Variable,
    from: Arena,
    control: TensorId,
) -> Result<()> {
    let rows = matrix.shape[0];
    let shape = [rows, matrix.range().len() / rows];
    let in_arena = |graph: &mut Graph, arena| {
        let role = Role::Stretch(arena, matrix.offset);
        graph.add_tensor(format!("{arena:?}.{}", matrix.name), &shape, DType::F32, role)
    };
    let [gradients, momentum, parameters] =
        [from, Arena::First, Arena::Params].map(|arena| in_arena(graph, arena));
    let name = format!("direction.{}", matrix.name);
    let direction = graph.add_tensor(name, &shape, DType::F32, Role::Activation);
    let MuonRule { momentum: keep, nesterov, weight_decay } = rule;
    let op = Op::MuonMomentum { momentum: keep, nesterov };
    graph.push_into(op, &[gradients, control], &[direction, momentum]);
    let direction = orthogonal(graph, direction)?;
    let header = graph.header();
    let scale = 0.2 * (shape[0].max(shape[1]) as f32).sqrt();
    let op = Op::MuonUpdate { weight_decay, scale };
    graph.push_into(op, &[direction, control, header], &[parameters]);
    Ok(())
}

/// A matrix about as `x` whose singular values are all near 1.
fn orthogonal(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    let squares = graph.push_one(Op::GradSquares, &[x])?;
    let len = graph.shape(squares)[0];
    let squares = graph.reshape(squares, &[1, len])?;
    let sum = Op::Reduce { reduction: Reduction::Sum, axis: 1 };
    let squares = graph.push_one(sum, &[squares])?;
    let mut x = graph.push_one(Op::MuonNormalize, &[x, squares])?;
    let [rows, columns] = graph.shape(x)[..] else { unreachable!("a matrix") };
    let is_tall = rows > columns;
    for _ in 0..MUON_STEPS {
        // The smaller of the two products of the matrix with itself.
        let gram = graph.push_one(product(is_tall, !is_tall), &[x, x])?;
        let square = graph.push_one(product(false, false), &[gram, gram])?;
        let polynomial = graph.push_one(Op::NewtonSchulz, &[gram, square])?;
        let factors = if is_tall { [x, polynomial] } else { [polynomial, x] };
        x = graph.push_one(product(false, false), &factors)?;
    }
    Ok(x)
}

fn product(transpose_a: bool, transpose_b: bool) -> Op {
    Op::MatMul { transpose_a, transpose_b, bias: false, activation: Activation::Identity }
}
