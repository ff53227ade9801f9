//! Fusion: what one kernel can do in one pass over its data is merged into it.
//!
//! Each rule looks at one operation and its neighbours, and says what stands in their place. Softmax is one
//! with cross-entropy, and the update of all parameters one with itself, by their making.

use super::op::{Activation, Op};
use super::{Graph, Node, Role, TensorId};

/// Merges operations; the graph computes the same, up to the order of an addition. The tensors in `keep` are
/// still made.
pub fn fuse(graph: &mut Graph, keep: &[TensorId]) {
    for rule in RULES {
        while sweep(graph, keep, rule) {}
    }
}

/// Merges what is to be apart until [`recompute`](super::recompute) has chosen what is made again: a norm can be, from a sum
/// or statistics that are kept, but not by an operation that makes these too.
pub fn fuse_last(graph: &mut Graph, keep: &[TensorId]) {
    for rule in [norm_of_sum, norm_with_statistics, norm_gradients] {
        while sweep(graph, keep, rule) {}
    }
}

/// In this order: what comes first is preferred where two rules fit.
const RULES: [Rule; 6] =
    [residual, residual_gradient, epilogue, epilogue_gate, pooled_gate, sum_gate];

/// What stands in the place of the node at the given position and some before it, if the rule fits there.
type Rule = fn(&mut Graph, &Links, usize) -> Option<Rewrite>;

/// A change of the graph.
#[derive(Debug, Default)]
struct Rewrite {
    /// Positions of nodes that go.
    removed: Vec<usize>,
    /// Positions and what stands there instead.
    replaced: Vec<(usize, Node)>,
}

impl Rewrite {
    fn touches(&self) -> impl Iterator<Item = usize> + '_ {
        self.removed.iter().copied().chain(self.replaced.iter().map(|(at, _)| *at))
    }
}

/// Who writes and who reads each tensor, by their positions.
struct Links {
    writer: Vec<Option<usize>>,
    readers: Vec<Vec<usize>>,
    kept: Vec<bool>,
}

impl Links {
    fn new(graph: &Graph, keep: &[TensorId]) -> Self {
        let count = graph.tensors.len();
        let (mut writer, mut readers) = (vec![None; count], vec![Vec::new(); count]);
        for (i, node) in graph.nodes.iter().enumerate() {
            node.outputs.iter().for_each(|y| writer[y.0] = Some(i));
            node.inputs.iter().for_each(|&x| readers[graph.root(x).0].push(i));
        }
        let mut kept = vec![false; count];
        keep.iter().for_each(|&id| kept[graph.root(id).0] = true);
        Self { writer, readers, kept }
    }

    /// The readers of `x`, where it lives only between these: nobody misses it if they do without it.
    fn readers_of_passing(&self, graph: &Graph, x: TensorId) -> Option<&[usize]> {
        let passing = graph.tensor(x).role == Role::Activation && !self.kept[x.0];
        passing.then(|| self.readers[x.0].as_slice())
    }

    /// The node that makes `x` for one reader alone.
    fn sole_maker<'g>(&self, graph: &'g Graph, x: TensorId) -> Option<(usize, &'g Node)> {
        let alone = self.readers_of_passing(graph, x)?.len() == 1;
        let writer = self.writer[x.0].filter(|_| alone)?;
        Some((writer, &graph.nodes[writer]))
    }

    /// Who makes both of two tensors that nobody reads before the node at `i` does.
    fn maker_of_both_for(&self, i: usize, both: [TensorId; 2]) -> Option<usize> {
        let [at, other] = both.map(|x| self.writer[x.0]);
        let first = both.iter().all(|x| self.readers[x.0].first() == Some(&i));
        at.filter(|_| first && at == other)
    }

    fn maker<'g>(&self, graph: &'g Graph, x: TensorId) -> Option<&'g Node> {
        self.writer[x.0].map(|writer| &graph.nodes[writer])
    }
}

/// Applies a rule wherever it fits and no other change of this sweep touches; whether it did anywhere.
fn sweep(graph: &mut Graph, keep: &[TensorId], rule: Rule) -> bool {
    let links = Links::new(graph, keep);
    let mut touched = vec![false; graph.nodes.len()];
    let mut gone = vec![false; graph.nodes.len()];
    for i in 0..graph.nodes.len() {
        let rewrite =
            rule(graph, &links, i).filter(|rewrite| !rewrite.touches().any(|at| touched[at]));
        let Some(rewrite) = rewrite else { continue };
        rewrite.touches().for_each(|at| touched[at] = true);
        rewrite.removed.iter().for_each(|&at| gone[at] = true);
        rewrite.replaced.into_iter().for_each(|(at, node)| graph.nodes[at] = node);
    }
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
    touched.contains(&true)
}

/// A bias or an activation goes into the product, the convolution or the batch norm before it.
fn epilogue(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let (at, maker) = links.sole_maker(graph, *node.inputs.first()?)?;
    let op = with_epilogue(maker.op, &node.op)?;
    let inputs = [&maker.inputs, &node.inputs[1..]].concat();
    Some(merged(at, maker, i, Node { op, inputs, ..node.clone() }))
}

/// The one operation that does `first` and then `second`, if there is one.
fn with_epilogue(mut first: Op, second: &Op) -> Option<Op> {
    match (&mut first, second) {
        (
            Op::MatMul { bias: bias @ false, activation: Activation::Identity, .. }
            | Op::Conv2d { bias: bias @ false, activation: Activation::Identity, .. },
            Op::Bias,
        ) => *bias = true,
        (
            Op::MatMul { activation: activation @ Activation::Identity, .. }
            | Op::Conv2d { activation: activation @ Activation::Identity, .. }
            | Op::BatchNorm { activation: activation @ Activation::Identity, .. },
            Op::Relu | Op::Gelu | Op::GeluTanh,
        ) => {
            *activation = match second {
                Op::Relu => Activation::Relu,
                Op::Gelu => Activation::Gelu,
                _ => Activation::GeluTanh,
            }
        }
        _ => return None,
    }
    Some(first)
}

/// What is added to a batch norm becomes its residual: bn(x) + y.
fn residual(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let &[a, b] = node.inputs.as_slice() else { return None };
    let fits = |norm: TensorId, other: TensorId| {
        let (at, maker) = links.sole_maker(graph, norm)?;
        let mut op = maker.op;
        match &mut op {
            Op::BatchNorm {
                activation: Activation::Identity, residual: residual @ false, ..
            } => {
                *residual = true;
            }
            _ => return None,
        }
        let inputs = [&maker.inputs[..], &[other]].concat();
        Some(merged(at, maker, i, Node { op, inputs, ..node.clone() }))
    };
    (node.op == Op::Add).then(|| fits(a, b).or_else(|| fits(b, a))).flatten()
}

/// The gradient that comes to a sum by its norm is added to the one that comes along the residual.
fn residual_gradient(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let (Op::Add, &[a, b]) = (&node.op, node.inputs.as_slice()) else { return None };
    let fits = |gradient: TensorId, other: TensorId| {
        let root = graph.root(gradient);
        let (at, maker) = links.sole_maker(graph, root)?;
        let mut op = maker.op;
        match &mut op {
            Op::LayerNormInputGrad { residual: residual @ false }
            | Op::RmsNormInputGrad { residual: residual @ false } => *residual = true,
            _ => return None,
        }
        let inputs = [&maker.inputs[..], &[other]].concat();
        same_len(graph, root, node.outputs[0])
            .then(|| merged(at, maker, i, Node { op, inputs, ..node.clone() }))
    };
    fits(b, a).or_else(|| fits(a, b))
}

/// What two tensors add up to is added by the norm that reads the sum first, and writes it for all others too.
fn norm_of_sum(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let mut op = node.op;
    match &mut op {
        Op::LayerNorm { residual: residual @ false, .. }
        | Op::RmsNorm { residual: residual @ false, .. } => *residual = true,
        _ => return None,
    }
    let sum = graph.root(node.inputs[0]);
    let at = links.writer[sum.0].filter(|_| links.readers[sum.0].first() == Some(&i))?;
    let (Op::Add, &[x, other]) = (&graph.nodes[at].op, graph.nodes[at].inputs.as_slice()) else {
        return None;
    };
    let inputs = [&[x], &node.inputs[1..], &[other]].concat();
    let outputs = [&node.outputs[..], &[sum]].concat();
    let norm = Node { op, inputs, outputs, scope: node.scope.clone() };
    same_len(graph, node.inputs[0], sum)
        .then(|| Rewrite { removed: vec![at], replaced: vec![(i, norm)] })
}

/// A batch norm finds the statistics itself that it is the first to read.
fn norm_with_statistics(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let (Op::BatchNorm { eps, activation, residual }, &[x, gamma, beta, mean, var, ..]) =
        (node.op, node.inputs.as_slice())
    else {
        return None;
    };
    let at = links.maker_of_both_for(i, [mean, var])?;
    let stats = &graph.nodes[at];
    let Op::BatchNormStats { momentum } = stats.op else { return None };
    let header = stats.inputs[1];
    let op = Op::BatchNormTrain { momentum, eps, activation, residual };
    let inputs = [&[x, gamma, beta, header], &node.inputs[5..]].concat();
    let outputs = [&node.outputs[..], &stats.outputs[..]].concat();
    let merged = merged(at, stats, i, Node { op, inputs, outputs, ..node.clone() });
    (stats.inputs[0] == x && stats.outputs[..2] == [mean, var]).then_some(merged)
}

/// The gradients of a batch norm's parameters are made with that of its input, which is the first to read them.
fn norm_gradients(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let Op::BatchNormInputGrad { eps, relu } = node.op else { return None };
    let (over, params, header) = (&node.inputs[..6], &node.inputs[6..8], node.inputs[8]);
    let at = links.maker_of_both_for(i, [params[0], params[1]])?;
    let maker = &graph.nodes[at];
    let fits = maker.op == Op::BatchNormParamGrad { eps, relu }
        && maker.inputs == over
        && maker.outputs == params;
    let op = Op::BatchNormGrad { eps, relu };
    let inputs = [over, &[header]].concat();
    let outputs = [&node.outputs[..], params].concat();
    fits.then(|| merged(at, maker, i, Node { op, inputs, outputs, ..node.clone() }))
}

/// Whether two tensors over the same memory are all of it. Norms go by the rows of their weight, whatever the shape.
fn same_len(graph: &Graph, x: TensorId, y: TensorId) -> bool {
    graph.tensor(x).len() == graph.tensor(y).len()
}

/// `node` at `i` also does what the maker at `at` did, in whose name it runs.
fn merged(at: usize, maker: &Node, i: usize, node: Node) -> Rewrite {
    let node = Node { scope: maker.scope.clone(), ..node };
    Rewrite { removed: vec![at], replaced: vec![(i, node)] }
}

/// The gradient behind a relu that is a batch norm's epilogue goes into that norm's gradients as it is: they
/// compute the norm's output again from what they read anyway.
fn epilogue_gate(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let (Op::ReluGrad, &[dy, y]) = (&node.op, node.inputs.as_slice()) else { return None };
    let norm = links.maker(graph, y)?;
    let Op::BatchNorm { activation: Activation::Relu, residual: false, .. } = norm.op else {
        return None;
    };
    let readers = links.readers_of_passing(graph, node.outputs[0])?;
    let replaced = readers.iter().map(|&at| {
        let mut reader = graph.nodes[at].clone();
        match &mut reader.op {
            Op::BatchNormParamGrad { relu, .. } | Op::BatchNormInputGrad { relu, .. } => {
                *relu = true
            }
            _ => return None,
        }
        let gated = std::mem::replace(&mut reader.inputs[0], dy);
        let over_the_same = gated == node.outputs[0] && reader.inputs[1..6] == norm.inputs[..5];
        over_the_same.then_some((at, reader))
    });
    Some(Rewrite { removed: vec![i], replaced: replaced.collect::<Option<_>>()? })
}

/// Where relu(x) is max-pooled, the gradient passes the relu before it is spread over the windows: the
/// maximum of a window is above 0 where the element it came from is.
fn pooled_gate(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = graph.nodes[i].clone();
    let (Op::ReluGrad, &[dx, x]) = (&node.op, node.inputs.as_slice()) else { return None };
    let (at, spread) = links.sole_maker(graph, dx)?;
    let (Op::MaxPool2dGrad { .. }, &[dy, index]) = (&spread.op, spread.inputs.as_slice()) else {
        return None;
    };
    let pool = links.maker(graph, index).filter(|pool| pool.inputs == [x])?;
    let (y, spread) = (pool.outputs[0], spread.clone());
    let gated = graph.tensor(dy).clone();
    let gated = graph.add_tensor(gated.name, &gated.shape, gated.dtype, Role::Activation);
    let gate = Node { inputs: vec![dy, y], outputs: vec![gated], ..node.clone() };
    let spread = Node { inputs: vec![gated, index], outputs: node.outputs, ..spread };
    Some(Rewrite { removed: vec![], replaced: vec![(at, gate), (i, spread)] })
}

/// The gradients of two branches are added as they pass the relu before the fork.
fn sum_gate(graph: &mut Graph, links: &Links, i: usize) -> Option<Rewrite> {
    let node = &graph.nodes[i];
    let (Op::ReluGrad, &[dy, y]) = (&node.op, node.inputs.as_slice()) else { return None };
    let (at, sum) = links.sole_maker(graph, dy).filter(|(_, sum)| sum.op == Op::Add)?;
    let inputs = vec![sum.inputs[0], sum.inputs[1], y];
    let node = Node { op: Op::AddReluGrad, inputs, ..node.clone() };
    Some(Rewrite { removed: vec![at], replaced: vec![(i, node)] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::graph::Init;
    use crate::graph::grad::backward;
    use crate::graph::op::{PoolGeometry, UpdateRule};
    use crate::graph::plan::Pass;
    use crate::nn::losses::Loss;
    use crate::nn::models;
    use crate::train::compile::{Blueprint, Training, compile};

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
        fuse(&mut g, &[]);
        assert_eq!(g.nodes.len(), 1);
        assert!(matches!(
            g.nodes[0].op,
            Op::MatMul { bias: true, activation: Activation::Relu, .. }
        ));
        assert_eq!(g.nodes[0].inputs.len(), 3);
        assert_eq!(g.nodes[0].outputs, [y]);
    }

    fn batch_norm(g: &mut Graph, x: TensorId) -> TensorId {
        let c = g.shape(x)[1];
        let [gamma, beta] = ["gamma", "beta"].map(|name| g.param(name, &[c], Init::Constant(1.0)));
        let [mean, var] =
            ["mean", "var"].map(|name| g.add_tensor(name, &[c], DType::F32, Role::Activation));
        let op = Op::BatchNorm { eps: 1e-5, activation: Activation::Identity, residual: false };
        g.push_one(op, &[x, gamma, beta, mean, var]).unwrap()
    }

    /// The names of all operations after fusion, of a graph with a gradient of its last tensor.
    fn fused(mut g: Graph, y: TensorId) -> Vec<&'static str> {
        let shape = g.shape(y).to_vec();
        let dy = g.add_tensor("dy", &shape, DType::F32, Role::Activation);
        backward(&mut g, y, dy).unwrap();
        fuse(&mut g, &[]);
        g.nodes.iter().map(|node| node.op.name()).collect()
    }

    #[test]
    fn a_sum_with_a_batch_norm_is_its_residual_wherever_it_is_made() {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[2, 3, 4, 4], DType::F32, Role::Input);
        let norm = batch_norm(&mut g, x);
        // Made after the norm, which must wait for it.
        let other = g.push_one(Op::Scale { factor: 2.0 }, &[x]).unwrap();
        let sum = g.push_one(Op::Add, &[other, norm]).unwrap();
        let y = g.push_one(Op::Relu, &[sum]).unwrap();
        fuse(&mut g, &[]);
        let [scale, norm] = &g.nodes[..] else { panic!("{:?}", g.nodes) };
        assert_eq!(scale.outputs, [other]);
        let activation = Activation::Relu;
        assert_eq!(norm.op, Op::BatchNorm { eps: 1e-5, activation, residual: true });
        assert_eq!((norm.inputs[0], norm.inputs[5], norm.outputs[0]), (x, other, y));
    }

    #[test]
    fn the_gate_behind_a_batch_norm_goes_into_its_gradients() {
        let mut g = Graph::new();
        let x = g.param("x", &[2, 3, 4, 4], Init::Constant(1.0));
        let norm = batch_norm(&mut g, x);
        let y = g.push_one(Op::Relu, &[norm]).unwrap();
        let expected = ["batch_norm", "batch_norm_param_grad", "batch_norm_input_grad"];
        assert_eq!(fused(g, y), expected);
    }

    #[test]
    fn behind_a_residual_the_gate_stays_since_the_branch_reads_it_too() {
        let mut g = Graph::new();
        let [x, other] = ["x", "other"].map(|name| g.param(name, &[2, 3], Init::Constant(1.0)));
        let norm = batch_norm(&mut g, x);
        let sum = g.push_one(Op::Add, &[norm, other]).unwrap();
        let y = g.push_one(Op::Relu, &[sum]).unwrap();
        let names = fused(g, y);
        assert_eq!(names[..2], ["batch_norm", "relu_grad"], "{names:?}");
    }

    #[test]
    fn a_gradient_passes_the_relu_before_it_is_spread_over_windows() {
        let mut g = Graph::new();
        let x = g.param("x", &[2, 3, 4, 4], Init::Constant(1.0));
        let y = g.push_one(Op::Relu, &[x]).unwrap();
        let geometry = PoolGeometry { kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
        let y = g.push_one(Op::MaxPool2d { geometry }, &[y]).unwrap();
        assert_eq!(fused(g, y), ["relu", "max_pool2d", "relu_grad", "max_pool2d_grad"]);
    }

    #[test]
    fn gradients_of_two_branches_are_added_as_they_pass_the_relu() {
        let mut g = Graph::new();
        let x = g.param("x", &[2, 3], Init::Constant(1.0));
        let y = g.push_one(Op::Relu, &[x]).unwrap();
        let half = g.push_one(Op::Scale { factor: 0.5 }, &[y]).unwrap();
        let y = g.push_one(Op::Mul, &[half, y]).unwrap();
        let names = fused(g, y);
        assert_eq!(names, ["relu", "scale", "mul", "mul", "mul", "scale", "add_relu_grad"]);
    }

    /// A batch norm of x by its own statistics, which also come back.
    fn trained_norm(g: &mut Graph, x: TensorId) -> (TensorId, [TensorId; 2]) {
        let y = batch_norm(g, x);
        let norm = g.nodes.pop().expect("it was pushed");
        let statistics = [norm.inputs[3], norm.inputs[4]];
        let running =
            ["running_mean", "running_var"].map(|name| g.state(name, &[3], Init::Constant(1.0)));
        let header = g.header();
        let outputs = [statistics, running].concat();
        g.push_into(Op::BatchNormStats { momentum: 0.1 }, &[x, header], &outputs);
        g.nodes.push(norm);
        (y, statistics)
    }

    #[test]
    fn a_batch_norm_makes_its_statistics_and_both_its_gradients() {
        let mut g = Graph::new();
        let x = g.param("x", &[2, 3, 4], Init::Constant(1.0));
        let other = g.add_tensor("other", &[2, 3, 4], DType::F32, Role::Input);
        let (norm, [mean, var]) = trained_norm(&mut g, x);
        let sum = g.push_one(Op::Add, &[norm, other]).unwrap();
        let dy = g.add_tensor("dy", &[2, 3, 4], DType::F32, Role::Activation);
        backward(&mut g, sum, dy).unwrap();
        fuse(&mut g, &[]);
        let names = |g: &Graph| g.nodes.iter().map(|node| node.op.name()).collect::<Vec<_>>();
        let apart =
            ["batch_norm_stats", "batch_norm", "batch_norm_param_grad", "batch_norm_input_grad"];
        assert_eq!(names(&g)[..4], apart, "left for whoever makes activations again");
        let (before, header) = (g.nodes.clone(), g.header());
        fuse_last(&mut g, &[]);
        assert_eq!(names(&g)[..2], ["batch_norm_train", "batch_norm_grad"]);
        let [train, grad] = &g.nodes[..2] else { unreachable!("two were compared") };
        assert_eq!(train.inputs[..], [x, before[1].inputs[1], before[1].inputs[2], header, other]);
        assert_eq!(train.outputs[..3], [sum, mean, var]);
        assert_eq!(train.outputs[1..], before[0].outputs[..]);
        assert_eq!(grad.inputs[..], [&before[3].inputs[..6], &[header]].concat());
        assert_eq!(grad.outputs, [&before[3].outputs[..], &before[2].outputs[..]].concat());
    }

    #[test]
    fn statistics_that_are_read_before_their_norm_or_of_another_tensor_stay() {
        for before in [false, true] {
            let mut g = Graph::new();
            let [x, other] =
                ["x", "other"].map(|name| g.param(name, &[2, 3, 4], Init::Constant(1.0)));
            let (_, [mean, _]) = trained_norm(&mut g, x);
            let norm = g.nodes.pop().expect("the norm");
            if before {
                g.push_one(Op::Relu, &[mean]).unwrap();
            }
            g.nodes.push(norm);
            if !before {
                g.nodes[1].inputs[0] = other;
            }
            let nodes = g.nodes.clone();
            fuse_last(&mut g, &[]);
            assert_eq!(g.nodes, nodes);
        }
    }

    #[test]
    fn of_two_norms_by_the_same_statistics_the_first_makes_them() {
        let mut g = Graph::new();
        let x = g.param("x", &[2, 3, 4], Init::Constant(1.0));
        trained_norm(&mut g, x);
        let mut again = g.nodes[1].clone();
        again.outputs = vec![g.add_tensor("again", &[2, 3, 4], DType::F32, Role::Activation)];
        g.nodes.push(again);
        fuse_last(&mut g, &[]);
        let names: Vec<_> = g.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(names, ["batch_norm_train", "batch_norm"]);
    }

    /// A norm of a view of a sum, which is read again beside it.
    fn block(g: &mut Graph) -> [TensorId; 4] {
        let [x, other] = ["x", "other"].map(|name| g.param(name, &[2, 3, 4], Init::Constant(1.0)));
        let [gamma, beta] = ["gamma", "beta"].map(|name| g.param(name, &[4], Init::Constant(1.0)));
        let sum = g.push_one(Op::Add, &[x, other]).unwrap();
        let flat = g.reshape(sum, &[6, 4]).unwrap();
        let norm = Op::LayerNorm { eps: 1e-5, residual: false };
        let y = g.push(norm, &[flat, gamma, beta]).unwrap()[0];
        let y = g.reshape(y, &[2, 3, 4]).unwrap();
        [x, other, sum, g.push_one(Op::Mul, &[sum, y]).unwrap()]
    }

    #[test]
    fn what_is_added_before_a_norm_is_added_by_it_and_its_gradient_by_the_norms() {
        let mut g = Graph::new();
        let [x, other, sum, y] = block(&mut g);
        let dy = g.add_tensor("dy", &[2, 3, 4], DType::F32, Role::Activation);
        backward(&mut g, y, dy).unwrap();
        fuse(&mut g, &[]);
        assert_eq!(g.nodes[0].op, Op::Add, "left for whoever makes activations again");
        fuse_last(&mut g, &[]);
        let norm = &g.nodes[0];
        assert_eq!(norm.op, Op::LayerNorm { eps: 1e-5, residual: true });
        assert_eq!((norm.inputs[0], norm.inputs[3]), (x, other));
        assert_eq!((norm.outputs.len(), norm.outputs[3]), (4, sum));
        // The norm's input gradient and the one of the product are summed, for both parameters.
        let names: Vec<_> = g.nodes[1..].iter().map(|node| node.op.name()).collect();
        let norm_grads = ["layer_norm_param_grad", "layer_norm_input_grad"];
        assert_eq!(names, [&["mul"; 3][..], &norm_grads, &["scale"; 2]].concat());
        let gradient = &g.nodes[5];
        assert_eq!(gradient.op, Op::LayerNormInputGrad { residual: true });
        assert_eq!(gradient.inputs.len(), 6);
        assert_eq!(g.shape(gradient.outputs[0]), [2, 3, 4]);
    }

    #[test]
    fn a_sum_that_is_read_before_its_norm_stays() {
        let mut g = Graph::new();
        let [x, other] = ["x", "other"].map(|name| g.param(name, &[6, 4], Init::Constant(1.0)));
        let gamma = g.param("gamma", &[4], Init::Constant(1.0));
        let sum = g.push_one(Op::Add, &[x, other]).unwrap();
        g.push_one(Op::Relu, &[sum]).unwrap();
        g.push(Op::RmsNorm { eps: 1e-5, residual: false }, &[sum, gamma]).unwrap();
        let before = g.nodes.clone();
        fuse_last(&mut g, &[]);
        assert_eq!(g.nodes, before);
    }

    /// How many sums norms make, and how many sums of gradients their gradients make, in a training step.
    fn merged_sums(model: &str, spec: &SampleSpec) -> [usize; 2] {
        let rule = UpdateRule::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 };
        let program = compile(&Blueprint {
            model: &models::by_name(model, spec).expect("the model fits"),
            spec,
            batch_size: 2,
            mean: &[],
            std: &[],
            loss: Loss::for_target(spec),
            training: Some(Training::new(rule)),
        });
        let plan = &program.expect("compiles").plans[&Pass::Train];
        for (i, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.op == Op::Add) {
            let reads = |other: &&Node| {
                other.inputs.iter().any(|&x| plan.root(x) == plan.root(node.outputs[0]))
            };
            let next = plan.nodes[i + 1..].iter().find(reads).map_or("", |next| next.op.name());
            assert!(!["layer_norm", "rms_norm"].contains(&next), "{model}: {}", node.scope);
        }
        let count = |of: fn(&Op) -> bool| plan.nodes.iter().filter(|node| of(&node.op)).count();
        let forward = count(|op| {
            matches!(op, Op::LayerNorm { residual: true, .. } | Op::RmsNorm { residual: true, .. })
        });
        let backward = count(|op| {
            let (layer, rms) = (
                Op::LayerNormInputGrad { residual: true },
                Op::RmsNormInputGrad { residual: true },
            );
            *op == layer || *op == rms
        });
        [forward, backward]
    }

    #[test]
    fn transformers_add_nothing_beside_their_norms() {
        let text = SampleSpec {
            input_shape: vec![8],
            input_dtype: DType::U16,
            target: TargetSpec::Tokens { len: 8, vocabulary: 20, document_end: None },
        };
        // Two sums a block.
        assert_eq!(merged_sums("gpt-nano", &text), [6, 6]);
        assert_eq!(merged_sums("llama-nano", &text), [6, 6]);
        let images = SampleSpec {
            input_shape: vec![3, 8, 8],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        };
        // The last sum is cut before its norm.
        assert_eq!(merged_sums("vit-tiny", &images), [23, 24]);
    }

    #[test]
    fn what_must_be_kept_is_still_made() {
        let mut g = Graph::new();
        let y = product(&mut g);
        let z = g.push_one(Op::Relu, &[y]).unwrap();
        fuse(&mut g, &[y]);
        assert_eq!(g.nodes.len(), 2);
        fuse(&mut g, &[z]);
        assert_eq!(g.nodes.len(), 1);
    }

    #[test]
    fn a_result_that_something_else_reads_is_kept() {
        let mut g = Graph::new();
        let y = product(&mut g);
        let z = g.push_one(Op::Gelu, &[y]).unwrap();
        g.push_one(Op::GeluGrad, &[z, y]).unwrap();
        fuse(&mut g, &[]);
        assert_eq!(g.nodes.len(), 3);
    }
}
