//! Fusion: what one kernel can do in one pass over its result is merged into it.
//!
//! Merged here: a bias, and an activation, into the matrix product, convolution or batch norm before it.
//! Softmax is one with cross-entropy, and the update of all parameters one with itself, by their making.

use std::collections::HashMap;

use super::op::{Activation, Op};
use super::{Graph, Role, TensorId};

/// Merges operations; the graph computes the same.
pub fn fuse(graph: &mut Graph) {
    let mut readers: HashMap<TensorId, usize> = HashMap::new();
    for &x in graph.nodes.iter().flat_map(|node| &node.inputs) {
        *readers.entry(graph.root(x)).or_default() += 1;
    }
    let mut producer: HashMap<TensorId, usize> = HashMap::new();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for i in 0..graph.nodes.len() {
        let x = graph.nodes[i].inputs.first().copied();
        let before = x
            .filter(|x| readers.get(x) == Some(&1) && graph.tensor(*x).role == Role::Activation)
            .and_then(|x| producer.get(&x).copied());
        let merged = before.and_then(|b| merge(&graph.nodes[b].op, &graph.nodes[i].op));
        let target = match (before, merged) {
            (Some(before), Some(op)) => {
                let extra = graph.nodes[i].inputs[1..].to_vec();
                let outputs = graph.nodes[i].outputs.clone();
                let node = &mut graph.nodes[before];
                node.op = op;
                node.inputs.extend(extra);
                node.outputs = outputs;
                kept.push(false);
                before
            }
            _ => {
                kept.push(true);
                i
            }
        };
        if let [y] = graph.nodes[target].outputs[..] {
            producer.insert(y, target);
        }
    }
    let mut kept = kept.into_iter();
    graph.nodes.retain(|_| kept.next().unwrap_or(true));
}

/// The one operation that does `first` and then `second`, if there is one.
fn merge(first: &Op, second: &Op) -> Option<Op> {
    let mut merged = *first;
    match (&mut merged, second) {
        (
            Op::MatMul { bias: bias @ false, activation: Activation::Identity, .. }
            | Op::Conv2d { bias: bias @ false, activation: Activation::Identity, .. },
            Op::Bias,
        ) => *bias = true,
        (
            Op::MatMul { activation: activation @ Activation::Identity, .. }
            | Op::Conv2d { activation: activation @ Activation::Identity, .. }
            | Op::BatchNorm { activation: activation @ Activation::Identity, .. },
            Op::Relu | Op::Gelu,
        ) => *activation = if *second == Op::Relu { Activation::Relu } else { Activation::Gelu },
        _ => return None,
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::DType;
    use crate::graph::Init;

    fn product(g: &mut Graph) -> TensorId {
        let x = g.add_tensor("x", &[4, 3], DType::F32, Role::Input);
        let w = g.param("w", &[3, 2], Init::Constant(1.0));
        let op = Op::MatMul {
            transpose_a: false,
            transpose_b: false,
            bias: false,
            activation: Activation::Identity,
        };
        g.push_one(op, &[x, w]).unwrap()
    }

    #[test]
    fn bias_and_activation_go_into_the_product() {
        let mut g = Graph::new();
        let y = product(&mut g);
        let bias = g.param("b", &[2], Init::Constant(0.0));
        let y = g.push_one(Op::Bias, &[y, bias]).unwrap();
        let y = g.push_one(Op::Relu, &[y]).unwrap();
        fuse(&mut g);
        assert_eq!(g.nodes.len(), 1);
        assert!(matches!(
            g.nodes[0].op,
            Op::MatMul { bias: true, activation: Activation::Relu, .. }
        ));
        assert_eq!(g.nodes[0].inputs.len(), 3);
        assert_eq!(g.nodes[0].outputs, [y]);
    }

    #[test]
    fn a_result_that_something_else_reads_is_kept() {
        let mut g = Graph::new();
        let y = product(&mut g);
        let z = g.push_one(Op::Gelu, &[y]).unwrap();
        g.push_one(Op::GeluGrad, &[z, y]).unwrap();
        fuse(&mut g);
        assert_eq!(g.nodes.len(), 3);
    }
}
