//! Reverse mode: adds to a graph the operations that compute the gradient of every parameter.
//!
//! Walks the forward operations backwards and adds, for each, the operations that turn the gradient of
//! its output into those of its inputs (Griewank and Walther, "Evaluating Derivatives", chapter 3).

use std::collections::{HashMap, HashSet};

use super::op::{Activation, Op, Reduction};
use super::{Graph, Node, Role, TensorId};
use crate::batch::DType;
use crate::error::{Error, Result};

/// Adds the backward operations: from `gradient`, the gradient of the loss with respect to `output`,
/// to a [`Role::ParamGrad`] tensor for every parameter that `output` depends on.
///
/// # Errors
/// When an operation on the way has no gradient.
pub fn backward(graph: &mut Graph, output: TensorId, gradient: TensorId) -> Result<()> {
    let forward = graph.nodes.clone();
    let depends = depends_on_params(graph, &forward);
    let uses = parameter_uses(graph, &forward, output);
    let mut backward = Backward { graph, depends, uses, gradients: HashMap::new() };
    backward.contribute(output, gradient)?;
    for node in forward.iter().rev() {
        let Some(&dy) = node.outputs.first().and_then(|y| backward.gradients.get(y)) else {
            continue;
        };
        if node.outputs.iter().any(|y| backward.depends.contains(y)) {
            backward.graph.set_scope(node.scope.clone());
            backward.node(node, dy)?;
        }
    }
    backward.graph.set_scope("");
    Ok(())
}

/// Roots of all tensors whose value depends on a parameter.
fn depends_on_params(graph: &Graph, forward: &[Node]) -> HashSet<TensorId> {
    let mut depends: HashSet<TensorId> = (0..graph.tensors.len())
        .map(TensorId)
        .filter(|&id| matches!(graph.tensor(id).role, Role::Param(_)))
        .collect();
    for node in forward {
        if node.inputs.iter().any(|&x| depends.contains(&graph.root(x))) {
            depends.extend(node.outputs.iter().map(|&y| graph.root(y)));
        }
    }
    depends
}

/// How many times each parameter is read on a way to `output` along which a gradient comes back. Reads on
/// other ways (a branch that nothing uses, statistics) contribute nothing and must not be waited for.
fn parameter_uses(graph: &Graph, forward: &[Node], output: TensorId) -> HashMap<TensorId, usize> {
    let mut reached = HashSet::from([graph.root(output)]);
    let mut uses = HashMap::new();
    for node in forward.iter().rev() {
        let statistics = matches!(node.op, Op::BatchNormStats { .. });
        if statistics || !node.outputs.iter().any(|&y| reached.contains(&graph.root(y))) {
            continue;
        }
        for root in node.inputs.iter().map(|&x| graph.root(x)) {
            reached.insert(root);
            if matches!(graph.tensor(root).role, Role::Param(_)) {
                *uses.entry(root).or_default() += 1;
            }
        }
    }
    uses
}

struct Backward<'g> {
    graph: &'g mut Graph,
    depends: HashSet<TensorId>,
    /// Uses of each parameter whose contribution is still to come.
    uses: HashMap<TensorId, usize>,
    /// The gradient of each root tensor so far.
    gradients: HashMap<TensorId, TensorId>,
}

impl Backward<'_> {
    fn wanted(&self, x: TensorId) -> bool {
        self.depends.contains(&self.graph.root(x))
    }

    /// Runs `op` so that its outputs contribute to the gradients of `targets`.
    fn push_to(&mut self, op: Op, inputs: &[TensorId], targets: &[TensorId]) -> Result<()> {
        let outputs: Vec<TensorId> = targets.iter().map(|&x| self.destination(x)).collect();
        self.graph.push_into(op, inputs, &outputs);
        targets.iter().zip(outputs).try_for_each(|(&x, dx)| self.contribute(x, dx))
    }

    /// The tensor an operation should write a contribution to the gradient of `x` into: the parameter's
    /// own gradient where nothing else contributes to it, else a new activation.
    fn destination(&mut self, x: TensorId) -> TensorId {
        let shape = self.graph.shape(x).to_vec();
        let root = self.graph.root(x);
        if self.uses.get(&root) == Some(&1) && !self.gradients.contains_key(&root) {
            let own = self.param_grad(root);
            if self.graph.shape(own) == shape {
                return own;
            }
            return self.graph.add_tensor("view", &shape, DType::F32, Role::View(own));
        }
        let name = format!("{}.grad", self.graph.tensor(x).name);
        self.graph.add_tensor(name, &shape, DType::F32, Role::Activation)
    }

    fn param_grad(&mut self, param: TensorId) -> TensorId {
        let tensor = self.graph.tensor(param).clone();
        let name = format!("{}.grad", tensor.name);
        self.graph.add_tensor(name, &tensor.shape, DType::F32, Role::ParamGrad(param))
    }

    /// Adds `dx` to the gradient of `x`.
    fn contribute(&mut self, x: TensorId, dx: TensorId) -> Result<()> {
        let root = self.graph.root(x);
        let dx = match self.graph.shape(root).to_vec() {
            shape if self.graph.shape(dx) == shape => dx,
            shape => self.graph.reshape(dx, &shape)?,
        };
        let is_param = matches!(self.graph.tensor(root).role, Role::Param(_));
        let last = is_param && {
            let left = self.uses.entry(root).or_insert(1);
            *left -= 1;
            *left == 0
        };
        let sum = match self.gradients.get(&root).copied() {
            Some(before) if last => {
                let own = self.param_grad(root);
                self.graph.push_into(Op::Add, &[before, dx], &[own]);
                own
            }
            Some(before) => self.graph.push_one(Op::Add, &[before, dx])?,
            None if last && !self.is_param_grad(dx) => {
                let own = self.param_grad(root);
                self.graph.push_into(Op::Scale { factor: 1.0 }, &[dx], &[own]);
                own
            }
            None => dx,
        };
        self.gradients.insert(root, sum);
        Ok(())
    }

    fn is_param_grad(&self, id: TensorId) -> bool {
        matches!(self.graph.tensor(self.graph.root(id)).role, Role::ParamGrad(_))
    }

    /// Adds the backward operations of one node whose first output has gradient `dy`.
    fn node(&mut self, node: &Node, dy: TensorId) -> Result<()> {
        let x = node.inputs[0];
        let y = node.outputs[0];
        match node.op {
            Op::MatMul { transpose_a, transpose_b, bias, activation } => {
                let dy = self.before_activation(activation, dy, y)?;
                self.matmul(&node.inputs, dy, transpose_a, transpose_b)?;
                self.bias(bias.then(|| node.inputs[2]), dy)
            }
            Op::Conv2d { geometry, bias, activation } => {
                let dy = self.before_activation(activation, dy, y)?;
                let w = node.inputs[1];
                if self.wanted(w) {
                    self.push_to(Op::Conv2dWeightGrad { geometry }, &[x, dy], &[w])?;
                }
                if self.wanted(x) {
                    self.push_to(Op::Conv2dInputGrad { geometry }, &[dy, w], &[x])?;
                }
                self.bias(bias.then(|| node.inputs[2]), dy)
            }
            Op::MaxPool2d { geometry } => {
                self.push_to(Op::MaxPool2dGrad { geometry }, &[dy, node.outputs[1]], &[x])
            }
            Op::AvgPool2d { geometry } => self.push_to(Op::AvgPool2dGrad { geometry }, &[dy], &[x]),
            Op::Bias => {
                if self.wanted(x) {
                    self.contribute(x, dy)?;
                }
                self.bias(Some(node.inputs[1]), dy)
            }
            Op::Relu => self.push_to(Op::ReluGrad, &[dy, y], &[x]),
            Op::Gelu => self.push_to(Op::GeluGrad, &[dy, x], &[x]),
            Op::GeluTanh => self.push_to(Op::GeluTanhGrad, &[dy, x], &[x]),
            Op::Add => {
                let wanted: Vec<_> =
                    node.inputs.iter().copied().filter(|&x| self.wanted(x)).collect();
                wanted.into_iter().try_for_each(|x| self.contribute(x, dy))
            }
            Op::Mul => {
                for (x, other) in [(x, node.inputs[1]), (node.inputs[1], x)] {
                    if self.wanted(x) {
                        self.push_to(Op::Mul, &[dy, other], &[x])?;
                    }
                }
                Ok(())
            }
            Op::Scale { factor } => self.push_to(Op::Scale { factor }, &[dy], &[x]),
            Op::Reduce { reduction, axis } => {
                let len = self.graph.shape(x)[axis];
                let factor = match reduction {
                    Reduction::Sum => 1.0,
                    Reduction::Mean => 1.0 / len as f32,
                };
                self.push_to(Op::Broadcast { axis, len, factor }, &[dy], &[x])
            }
            Op::Broadcast { axis, factor, .. } => {
                let reduce = Op::Reduce { reduction: Reduction::Sum, axis };
                let sum = self.graph.push_one(reduce, &[dy])?;
                self.push_to(Op::Scale { factor }, &[sum], &[x])
            }
            Op::Concat { axis } => self.concat(&node.inputs, dy, axis),
            Op::Slice { axis, start, .. } => {
                let len = self.graph.shape(x)[axis];
                self.push_to(Op::Unslice { axis, start, len }, &[dy], &[x])
            }
            Op::Unslice { axis, start, .. } => {
                let len = self.graph.shape(x)[axis];
                self.push_to(Op::Slice { axis, start, len }, &[dy], &[x])
            }
            Op::Transpose => self.push_to(Op::Transpose, &[dy], &[x]),
            Op::Embedding => self.push_to(Op::EmbeddingGrad, &[dy, x], &[node.inputs[1]]),
            Op::SwiGlu => {
                let up = node.inputs[1];
                self.push_to(Op::SwiGluGrad, &[dy, x, up], &[x, up])
            }
            Op::Rotary { positions } => {
                let inputs = [&[dy], &node.inputs[3..]].concat();
                self.push_to(Op::RotaryGrad { positions }, &inputs, &node.inputs[..3])
            }
            Op::Attention(how) => {
                let inputs = [&[dy, x, y, node.outputs[1]], &node.inputs[1..]].concat();
                self.push_to(Op::AttentionGrad(how), &inputs, &[x])
            }
            Op::BatchNorm { eps, activation, .. } => {
                let dy = self.before_activation(activation, dy, y)?;
                self.batch_norm(node, dy, eps)
            }
            Op::LayerNorm { residual: false, .. } => self.layer_norm(node, dy),
            Op::RmsNorm { residual: false, .. } => {
                let (gamma, rstd) = (node.inputs[1], node.outputs[1]);
                self.push_to(Op::RmsNormParamGrad, &[dy, x, rstd], &[gamma])?;
                match self.wanted(x) {
                    true => {
                        let op = Op::RmsNormInputGrad { residual: false };
                        self.push_to(op, &[dy, x, gamma, rstd], &[x])
                    }
                    false => Ok(()),
                }
            }
            Op::LayerNorm { residual: true, .. } | Op::RmsNorm { residual: true, .. } => {
                Err(Error::graph(&node.scope, "a sum inside a norm cannot be differentiated")
                    .hint("a separate addition, which the compiler fuses where it can"))
            }
            Op::Dropout { .. } => self.push_to(node.op, &[dy, node.inputs[1]], &[x]),
            // The statistics' own gradient is part of `batch_norm_input_grad`.
            Op::BatchNormStats { .. } => Ok(()),
            ref op => Err(Error::graph(&node.scope, format!("{} has no gradient", op.name()))),
        }
    }

    /// The gradient before an activation that the kernel applied to its result.
    fn before_activation(
        &mut self,
        act: Activation,
        dy: TensorId,
        y: TensorId,
    ) -> Result<TensorId> {
        match act {
            Activation::Identity => Ok(dy),
            Activation::Relu => self.graph.push_one(Op::ReluGrad, &[dy, y]),
            Activation::Gelu | Activation::GeluTanh => Err(Error::graph(
                self.graph.scope(),
                "a gelu inside a kernel cannot be differentiated",
            )
            .hint("a separate gelu operation, which the compiler fuses where it can")),
        }
    }

    fn bias(&mut self, bias: Option<TensorId>, dy: TensorId) -> Result<()> {
        match bias {
            Some(bias) if self.wanted(bias) => self.push_to(Op::BiasGrad, &[dy], &[bias]),
            _ => Ok(()),
        }
    }

    /// For y = op(a) op(b): the gradients of `a` and `b` as stored, transposed or not.
    fn matmul(&mut self, inputs: &[TensorId], dy: TensorId, ta: bool, tb: bool) -> Result<()> {
        let (a, b) = (inputs[0], inputs[1]);
        let product = |transpose_a, transpose_b| Op::MatMul {
            transpose_a,
            transpose_b,
            bias: false,
            activation: Activation::Identity,
        };
        if self.wanted(b) {
            match tb {
                false => self.push_to(product(!ta, false), &[a, dy], &[b])?,
                true => self.push_to(product(true, ta), &[dy, a], &[b])?,
            }
        }
        if self.wanted(a) {
            match ta {
                false => self.push_to(product(false, !tb), &[dy, b], &[a])?,
                true => self.push_to(product(tb, true), &[b, dy], &[a])?,
            }
        }
        Ok(())
    }

    /// Each of the two gets its stretch of the gradient.
    fn concat(&mut self, inputs: &[TensorId], dy: TensorId, axis: usize) -> Result<()> {
        let mut start = 0;
        for &x in inputs {
            let len = self.graph.shape(x)[axis];
            if self.wanted(x) {
                self.push_to(Op::Slice { axis, start, len }, &[dy], &[x])?;
            }
            start += len;
        }
        Ok(())
    }

    fn batch_norm(&mut self, node: &Node, dy: TensorId, eps: f32) -> Result<()> {
        let [x, gamma, beta, mean, var, ref residual @ ..] = node.inputs[..] else {
            unreachable!("at least five inputs")
        };
        if matches!(self.graph.tensor(mean).role, Role::State(_)) {
            return Err(Error::graph(
                &node.scope,
                "batch norm over running statistics has no gradient here",
            )
            .hint("building the model with Mode::Train"));
        }
        let outputs = [self.destination(gamma), self.destination(beta)];
        let op = Op::BatchNormParamGrad { eps, relu: false };
        self.graph.push_into(op, &[dy, x, gamma, beta, mean, var], &outputs);
        let [dgamma, dbeta] = outputs;
        if self.wanted(x) {
            let header = self.graph.header();
            let inputs = [dy, x, gamma, beta, mean, var, dgamma, dbeta, header];
            self.push_to(Op::BatchNormInputGrad { eps, relu: false }, &inputs, &[x])?;
        }
        self.contribute(gamma, dgamma)?;
        self.contribute(beta, dbeta)?;
        let mut residual = residual.iter().filter(|&&x| self.depends.contains(&self.graph.root(x)));
        residual.next().map_or(Ok(()), |&x| self.contribute(x, dy))
    }

    fn layer_norm(&mut self, node: &Node, dy: TensorId) -> Result<()> {
        let [x, gamma, beta] = node.inputs[..] else { unreachable!("three inputs") };
        let (mean, rstd) = (node.outputs[1], node.outputs[2]);
        self.push_to(Op::LayerNormParamGrad, &[dy, x, mean, rstd], &[gamma, beta])?;
        if self.wanted(x) {
            let op = Op::LayerNormInputGrad { residual: false };
            self.push_to(op, &[dy, x, gamma, mean, rstd], &[x])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Init;

    fn names(graph: &Graph) -> Vec<&'static str> {
        graph.nodes.iter().map(|node| node.op.name()).collect()
    }

    #[test]
    fn a_parameter_used_once_is_written_straight_into_its_gradient() {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[4, 3], DType::F32, Role::Input);
        let w = g.param("w", &[2, 3], Init::Constant(1.0));
        let op = Op::MatMul {
            transpose_a: false,
            transpose_b: true,
            bias: false,
            activation: Activation::Identity,
        };
        let y = g.push_one(op, &[x, w]).unwrap();
        let dy = g.add_tensor("dy", &[4, 2], DType::F32, Role::Activation);
        backward(&mut g, y, dy).unwrap();
        // No gradient of the input, one of the weight, no copy.
        assert_eq!(names(&g), ["matmul", "matmul"]);
        let dw = g.nodes[1].outputs[0];
        assert_eq!(g.tensor(dw).role, Role::ParamGrad(w));
        assert_eq!(g.shape(dw), [2, 3]);
    }

    #[test]
    fn gradients_of_a_shared_parameter_are_added() {
        let mut g = Graph::new();
        let w = g.param("w", &[5], Init::Constant(1.0));
        let a = g.push_one(Op::Scale { factor: 2.0 }, &[w]).unwrap();
        let y = g.push_one(Op::Mul, &[a, w]).unwrap();
        let dy = g.add_tensor("dy", &[5], DType::F32, Role::Activation);
        backward(&mut g, y, dy).unwrap();
        assert_eq!(names(&g), ["scale", "mul", "mul", "mul", "scale", "add"]);
        let last = g.nodes.last().unwrap().outputs[0];
        assert_eq!(g.tensor(last).role, Role::ParamGrad(w));
    }

    #[test]
    fn a_branch_that_nothing_uses_does_not_keep_a_gradient_back() {
        let mut g = Graph::new();
        let w = g.param("w", &[5], Init::Constant(1.0));
        g.push_one(Op::Relu, &[w]).unwrap();
        let y = g.push_one(Op::Scale { factor: 2.0 }, &[w]).unwrap();
        let dy = g.add_tensor("dy", &[5], DType::F32, Role::Activation);
        backward(&mut g, y, dy).unwrap();
        let last = g.nodes.last().unwrap().outputs[0];
        assert_eq!(g.tensor(last).role, Role::ParamGrad(w));
    }

    #[test]
    fn an_operation_without_gradient_is_named() {
        let mut g = Graph::new();
        g.set_scope("net.4");
        let w = g.param("w", &[5, 2], Init::Constant(1.0));
        let y = g.push_one(Op::BiasGrad, &[w]).unwrap();
        let dy = g.add_tensor("dy", &[2], DType::F32, Role::Activation);
        let error = backward(&mut g, y, dy).unwrap_err();
        assert_eq!(error.to_string(), "graph: net.4: bias_grad has no gradient");
    }
}
