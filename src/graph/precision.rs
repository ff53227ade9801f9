//! Mixed precision: which tensors a pass keeps in 16 bits (Micikevicius et al., "Mixed Precision
//! Training", ICLR 2018).
//!
//! Activations and their gradients are stored as `f16`; everything is computed in `f32`, products sum in
//! `f32`, and parameters, their gradients, statistics, losses and the optimizer stay `f32`. So memory and
//! traffic about halve, and products can use the matrix units of a device. [`takes`] says for each
//! binding of each operation what it can be; the rest follows.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;

use super::op::Op;
use super::{Graph, Node, Role, TensorId};
use crate::batch::DType;

/// How a program stores activations and their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats, with a loss that is scaled (see [`Op::LossScale`]) so that small gradients do not
    /// vanish.
    F16,
}

impl FromStr for Precision {
    type Err = String;

    /// `f32` or `f16`; the error says what is expected.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
            _ => Err("f32 or f16".into()),
        }
    }
}

/// What a binding for floats can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `f32` only.
    Full,
    /// `f32` or `f16`, whatever the tensor is.
    Either,
    /// `f16` in mixed precision, so that all operands of a product are of one type: a tensor that is not
    /// gets a copy that is.
    Half,
}

/// One side of an operation, and the place of a binding on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Input of that index.
    Input(usize),
    /// Output of that index.
    Output(usize),
}

/// What a binding of `op` takes. Bindings of integers and of the header are not asked for.
pub fn takes(op: &Op, side: Side) -> Takes {
    use Side::{Input, Output};
    use Takes::{Either, Full, Half};
    match (op, side) {
        // Elements to elements, and moves of them.
        (
            Op::Relu
            | Op::ReluGrad
            | Op::Gelu
            | Op::GeluGrad
            | Op::GeluTanh
            | Op::GeluTanhGrad
            | Op::SwiGlu
            | Op::SwiGluGrad
            | Op::Add
            | Op::AddReluGrad
            | Op::Mul
            | Op::Scale { .. }
            | Op::Cast
            | Op::Dropout { .. }
            | Op::Reduce { .. }
            | Op::Broadcast { .. }
            | Op::NewtonSchulz
            | Op::Concat { .. }
            | Op::Slice { .. }
            | Op::Unslice { .. }
            | Op::Transpose
            | Op::MaxPool2d { .. }
            | Op::MaxPool2dGrad { .. }
            | Op::AvgPool2d { .. }
            | Op::AvgPool2dGrad { .. },
            _,
        ) => Either,
        // Products: both operands alike; a bias is a parameter.
        (
            Op::MatMul { .. }
            | Op::Conv2d { .. }
            | Op::Conv2dInputGrad { .. }
            | Op::Conv2dWeightGrad { .. },
            Input(0 | 1),
        ) => Half,
        (
            Op::MatMul { .. }
            | Op::Conv2d { .. }
            | Op::Conv2dInputGrad { .. }
            | Op::Conv2dWeightGrad { .. },
            Output(0),
        ) => Either,
        // Images and their gradients; whatever is one number a channel or a row stays full.
        (Op::NormalizeU8 | Op::AugmentU8 | Op::LossScale, Output(0))
        | (Op::Mix, Input(0) | Output(0)) => Either,
        (Op::Bias, Input(0) | Output(0)) | (Op::BiasGrad, Input(0)) => Either,
        (Op::Embedding, Output(0)) | (Op::EmbeddingGrad, Input(0)) => Either,
        (Op::BatchNormStats { .. }, Input(0)) => Either,
        (Op::BatchNorm { .. }, Input(0 | 5) | Output(0)) => Either,
        (Op::BatchNormTrain { .. }, Input(0 | 4) | Output(0)) => Either,
        (
            Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::Attention { .. },
            Input(0) | Output(0),
        ) => Either,
        // A residual, and what it makes with the input.
        (Op::LayerNorm { .. }, Input(3) | Output(3)) => Either,
        (Op::RmsNorm { .. }, Input(2) | Output(2)) => Either,
        // Queries, keys and values; the table of angles stays full.
        (Op::Rotary { .. }, Input(0..=2) | Output(0)) => Either,
        (Op::RotaryGrad { .. }, Input(0) | Output(0..=2)) => Either,
        (Op::AttentionGrad { .. }, Input(0..=2) | Output(0)) => Either,
        (
            Op::BatchNormParamGrad { .. } | Op::LayerNormParamGrad | Op::RmsNormParamGrad,
            Input(0 | 1),
        ) => Either,
        (
            Op::BatchNormInputGrad { .. }
            | Op::BatchNormGrad { .. }
            | Op::LayerNormInputGrad { .. }
            | Op::RmsNormInputGrad { .. },
            Input(0 | 1) | Output(0),
        ) => Either,
        (Op::LayerNormInputGrad { .. }, Input(5)) | (Op::RmsNormInputGrad { .. }, Input(4)) => {
            Either
        }
        // A matrix on its way to an orthogonal one; its singular values are at most about 1.
        (Op::MuonNormalize, Output(0)) | (Op::MuonUpdate { .. }, Input(0)) => Either,
        // Losses, metrics, the optimizer.
        _ => Full,
    }
}

/// Turns activations that every operation around them takes as `f16` into `f16`, and adds the casts that
/// operands of products need. Those in `keep` stay as they are, as do sums on their way to a parameter's
/// gradient.
pub fn store_half(graph: &mut Graph, keep: &[TensorId]) {
    let full = stay_full(graph, keep);
    for i in 0..graph.tensors.len() {
        let root = graph.root(TensorId(i));
        let activation = graph.tensor(root).role == Role::Activation && !full.contains(&root);
        if activation && graph.tensors[i].dtype == DType::F32 {
            graph.tensors[i].dtype = DType::F16;
        }
    }
    cast_operands(graph);
}

/// Roots of the tensors that stay `f32`.
fn stay_full(graph: &Graph, keep: &[TensorId]) -> HashSet<TensorId> {
    let mut full: HashSet<TensorId> = keep.iter().map(|&id| graph.root(id)).collect();
    // Sums of a parameter's gradients, found from their end.
    let mut gradients: HashSet<TensorId> = HashSet::new();
    for node in graph.nodes.iter().rev() {
        let is_gradient =
            node.outputs.iter().map(|&y| graph.root(y)).any(|y| {
                gradients.contains(&y) || matches!(graph.tensor(y).role, Role::ParamGrad(_))
            });
        let summed = match node.op {
            Op::Add | Op::Scale { .. } => &node.inputs[..],
            Op::LayerNormInputGrad { residual: true } => &node.inputs[5..],
            Op::RmsNormInputGrad { residual: true } => &node.inputs[4..],
            _ => &[],
        };
        if is_gradient {
            gradients.extend(summed.iter().map(|&x| graph.root(x)));
        }
        let in_full = bindings(node).filter(|&(side, _)| takes(&node.op, side) == Takes::Full);
        full.extend(in_full.map(|(_, id)| graph.root(id)));
    }
    full.extend(gradients);
    full
}

fn bindings(node: &Node) -> impl Iterator<Item = (Side, TensorId)> + '_ {
    let inputs = node.inputs.iter().enumerate().map(|(i, &x)| (Side::Input(i), x));
    inputs.chain(node.outputs.iter().enumerate().map(|(i, &y)| (Side::Output(i), y)))
}

/// Gives every operand that must be `f16` and is not, as a parameter, a copy made before its first use.
fn cast_operands(graph: &mut Graph) {
    let mut copies: HashMap<TensorId, TensorId> = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        for (i, x) in node.inputs.iter_mut().enumerate() {
            let tensor = graph.tensor(*x);
            if takes(&node.op, Side::Input(i)) != Takes::Half || tensor.dtype != DType::F32 {
                continue;
            }
            let (name, shape) = (format!("{}.f16", tensor.name), tensor.shape.clone());
            *x = *copies.entry(*x).or_insert_with(|| {
                let copy = graph.add_tensor(name, &shape, DType::F16, Role::Activation);
                let (inputs, outputs) = (vec![*x], vec![copy]);
                let scope = node.scope.clone();
                graph.nodes.push(Node { op: Op::Cast, inputs, outputs, scope });
                copy
            });
        }
        graph.nodes.push(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Init;
    use crate::graph::fuse::fuse;
    use crate::graph::grad::backward;
    use crate::graph::op::Activation;

    const PRODUCT: Op = Op::MatMul {
        transpose_a: false,
        transpose_b: false,
        bias: false,
        activation: Activation::Identity,
    };

    fn dtype(graph: &Graph, id: TensorId) -> DType {
        graph.tensor(id).dtype
    }

    fn names(graph: &Graph) -> Vec<&'static str> {
        graph.nodes.iter().map(|node| node.op.name()).collect()
    }

    /// Two products with a relu between them, and a loss.
    fn network() -> (Graph, [TensorId; 4]) {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[4, 3], DType::F32, Role::Input);
        let target = g.add_tensor("target", &[4], DType::U32, Role::Target);
        let header = g.header();
        let (v, w) = (
            g.param("v", &[3, 5], Init::Constant(1.0)),
            g.param("w", &[5, 2], Init::Constant(1.0)),
        );
        let h = g.push_one(PRODUCT, &[x, v]).unwrap();
        let h = g.push_one(Op::Relu, &[h]).unwrap();
        let logits = g.push_one(PRODUCT, &[h, w]).unwrap();
        let loss = Op::CrossEntropy { smoothing: 0.0, gradient: true, per_sample: 1, first: 0 };
        let outputs = g.push(loss, &[logits, target, header]).unwrap();
        (g, [h, logits, outputs[0], outputs[1]])
    }

    #[test]
    fn activations_are_half_and_losses_parameters_and_their_gradients_are_full() {
        let (mut g, [h, logits, loss, dlogits]) = network();
        let control = g.state("control", &[10], Init::Constant(0.0));
        let dy = g.push_one(Op::LossScale, &[dlogits, control]).unwrap();
        backward(&mut g, logits, dy).unwrap();
        store_half(&mut g, &[]);
        assert_eq!([h, dy].map(|id| dtype(&g, id)), [DType::F16; 2]);
        assert_eq!([logits, loss, dlogits].map(|id| dtype(&g, id)), [DType::F32; 3]);
        // One copy of the input and of each parameter, before its first use, for all its readers.
        let casts = ["cast", "cast", "matmul", "relu", "cast", "matmul", "cross_entropy"];
        assert_eq!(names(&g)[..7], casts);
        assert_eq!(names(&g)[7..], ["loss_scale", "matmul", "matmul", "relu_grad", "matmul"]);
        for node in &g.nodes {
            for (side, id) in bindings(node) {
                let tensor = g.tensor(id);
                match takes(&node.op, side) {
                    Takes::Half => assert_eq!(tensor.dtype, DType::F16, "{}", tensor.name),
                    Takes::Full => assert_ne!(tensor.dtype, DType::F16, "{}", tensor.name),
                    Takes::Either => {}
                }
            }
            for &y in &node.outputs {
                let gradient = matches!(g.tensor(y).role, Role::ParamGrad(_));
                assert!(!gradient || dtype(&g, y) == DType::F32);
            }
        }
    }

    #[test]
    fn views_follow_and_what_is_kept_stays() {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[2, 3], DType::F32, Role::Input);
        let y = g.push_one(Op::Relu, &[x]).unwrap();
        let view = g.reshape(y, &[3, 2]).unwrap();
        let z = g.push_one(Op::Relu, &[view]).unwrap();
        store_half(&mut g, &[z]);
        assert_eq!([y, view].map(|id| dtype(&g, id)), [DType::F16; 2]);
        assert_eq!([x, z].map(|id| dtype(&g, id)), [DType::F32; 2]);
        assert_eq!(names(&g), ["relu", "relu"]);
    }

    #[test]
    fn sums_on_the_way_to_a_gradient_of_a_parameter_stay_full() {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[4, 4], DType::F32, Role::Input);
        let w = g.param("w", &[4, 4], Init::Constant(1.0));
        let mut y = g.push_one(PRODUCT, &[x, w]).unwrap();
        for _ in 0..2 {
            y = g.push_one(PRODUCT, &[y, w]).unwrap();
        }
        let dy = g.add_tensor("dy", &[4, 4], DType::F32, Role::Activation);
        let forward = g.nodes.len();
        backward(&mut g, y, dy).unwrap();
        let sums: Vec<TensorId> = g.nodes[forward..]
            .iter()
            .filter(|node| node.op == Op::Add)
            .flat_map(|node| node.inputs.clone())
            .collect();
        assert_eq!(sums.len(), 4);
        store_half(&mut g, &[]);
        assert!(sums.iter().all(|&id| dtype(&g, id) == DType::F32));
        assert_eq!(dtype(&g, y), DType::F16);
    }

    #[test]
    fn sums_that_gradients_of_norms_add_on_the_way_to_a_parameter_stay_full_too() {
        let mut g = Graph::new();
        let [w, gamma] = [("w", &[4, 4][..]), ("gamma", &[4])]
            .map(|(name, shape)| g.param(name, shape, Init::Constant(1.0)));
        let norm = Op::RmsNorm { eps: 1e-5, residual: false };
        let normed = [(); 3].map(|()| g.push(norm, &[w, gamma]).unwrap()[0]);
        let y = g.push_one(Op::Mul, &[normed[0], normed[1]]).unwrap();
        let y = g.push_one(Op::Mul, &[y, normed[2]]).unwrap();
        let dy = g.add_tensor("dy", &[4, 4], DType::F32, Role::Activation);
        backward(&mut g, y, dy).unwrap();
        fuse(&mut g, &[]);
        store_half(&mut g, &[]);
        let of = |residual| {
            let sums =
                g.nodes.iter().filter(move |node| node.op == Op::RmsNormInputGrad { residual });
            sums.map(|node| dtype(&g, node.outputs[0])).collect::<Vec<_>>()
        };
        assert_eq!((of(false), of(true)), (vec![DType::F32], vec![DType::F32; 2]));
        assert_eq!(dtype(&g, normed[0]), DType::F16);
    }

    #[test]
    fn precisions_have_names() {
        assert_eq!("f16".parse(), Ok(Precision::F16));
        assert_eq!("f32".parse(), Ok(Precision::F32));
        assert_eq!("f8".parse::<Precision>(), Err("f32 or f16".to_string()));
    }
}
