//! Memory: activations whose lives do not overlap share a buffer.

use std::collections::HashMap;

use super::plan::{ActivationBuffer, Place, Program};
use super::{Graph, Role, TensorId};

/// The shared activation buffers. All passes of a program use the same pool, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// The buffers, as large as any pass needs them.
    pub buffers: Vec<ActivationBuffer>,
}

impl Pool {
    /// Assigns a buffer to every activation of `graph`: no two that are alive at the same time get the
    /// same one, nor do an operation's inputs and outputs. Those in `keep` stay alive to the end.
    ///
    /// The largest are placed first, each into the smallest buffer that has room for it and is free while
    /// it lives ("greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    /// Inference", 2020).
    pub fn assign(&mut self, graph: &Graph, keep: &[TensorId]) -> HashMap<TensorId, usize> {
        let mut lives = lives(graph, keep);
        lives.sort_by_key(|life| (std::cmp::Reverse(graph.tensor(life.root).len()), life.first));
        let mut taken: Vec<Vec<Life>> = vec![Vec::new(); self.buffers.len()];
        let mut assigned = HashMap::new();
        for life in lives {
            let buffer = self.choose(graph, &life, &taken);
            taken.resize_with(self.buffers.len(), Vec::new);
            assigned.insert(life.root, buffer);
            taken[buffer].push(life);
        }
        assigned
    }

    /// The smallest free buffer that fits, else the largest one grown, else a new one.
    fn choose(&mut self, graph: &Graph, life: &Life, taken: &[Vec<Life>]) -> usize {
        let tensor = graph.tensor(life.root);
        let (len, dtype) = (tensor.len(), tensor.dtype);
        let free = || {
            let same = |&i: &usize| self.buffers[i].dtype == dtype;
            let is_free = |&i: &usize| !taken[i].iter().any(|other| life.meets(other));
            (0..taken.len()).filter(same).filter(is_free)
        };
        let fitting = free().filter(|&i| self.buffers[i].len >= len);
        let best = fitting.min_by_key(|&i| self.buffers[i].len);
        match best.or_else(|| free().max_by_key(|&i| self.buffers[i].len)) {
            Some(buffer) => {
                self.buffers[buffer].len = self.buffers[buffer].len.max(len);
                buffer
            }
            None => {
                self.buffers.push(ActivationBuffer { len, dtype });
                self.buffers.len() - 1
            }
        }
    }
}

/// From the first to the last operation that touches a root.
#[derive(Clone, Copy, Debug)]
struct Life {
    root: TensorId,
    first: usize,
    last: usize,
}

impl Life {
    fn meets(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The lives of all activations that are written, in the order in which they begin; those to keep have no end.
fn lives(graph: &Graph, keep: &[TensorId]) -> Vec<Life> {
    let mut lives: Vec<Life> = Vec::new();
    let mut known: HashMap<TensorId, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for root in node.inputs.iter().map(|&x| graph.root(x)) {
            if let Some(&at) = known.get(&root) {
                lives[at].last = i;
            }
        }
        for root in node.outputs.iter().map(|&y| graph.root(y)) {
            if graph.tensor(root).role == Role::Activation {
                let at = *known.entry(root).or_insert_with(|| {
                    lives.push(Life { root, first: i, last: i });
                    lives.len() - 1
                });
                lives[at].last = i;
            }
        }
    }
    for id in keep {
        if let Some(&at) = known.get(&graph.root(*id)) {
            lives[at].last = usize::MAX;
        }
    }
    lives
}

/// The same program with activations that share no buffer within a pass: more memory, for a device that runs
/// operations side by side where they do not touch the same buffers. Passes still share.
pub fn apart(program: &Program) -> Program {
    let mut program = program.clone();
    let mut buffers: Vec<ActivationBuffer> = Vec::new();
    for plan in program.plans.values_mut() {
        let mut taken = vec![false; buffers.len()];
        let mut places: HashMap<TensorId, usize> = HashMap::new();
        for &y in plan.nodes.iter().flat_map(|node| &node.outputs) {
            let root = plan.root(y);
            let tensor = plan.tensor(root);
            let Place::Activation(_) = plan.location(root).place else { continue };
            if places.contains_key(&root) {
                continue;
            }
            let (len, dtype) = (tensor.len(), tensor.dtype);
            let fits = |&i: &usize| !taken[i] && buffers[i].dtype == dtype && buffers[i].len >= len;
            let found = (0..buffers.len()).filter(fits).min_by_key(|&i| buffers[i].len);
            let buffer = found.unwrap_or_else(|| {
                buffers.push(ActivationBuffer { len, dtype });
                taken.push(false);
                buffers.len() - 1
            });
            taken[buffer] = true;
            places.insert(root, buffer);
        }
        for i in 0..plan.tensors.len() {
            if let Some(&buffer) = places.get(&plan.root(TensorId(i))) {
                plan.locations[i].place = Place::Activation(buffer);
            }
        }
    }
    program.activations = buffers;
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::graph::op::{Op, Reduction};
    use crate::graph::plan::{Pass, ProgramBuilder};
    use std::collections::HashSet;

    #[test]
    fn a_chain_needs_two_buffers_and_neighbours_never_share() {
        let mut g = Graph::new();
        let mut x = g.add_tensor("x", &[100], DType::F32, Role::Input);
        for _ in 0..6 {
            x = g.push_one(Op::Relu, &[x]).unwrap();
        }
        let mut pool = Pool::default();
        let assigned = pool.assign(&g, &[x]);
        assert_eq!(pool.buffers.len(), 2);
        for node in &g.nodes[1..] {
            assert_ne!(assigned[&node.inputs[0]], assigned[&node.outputs[0]]);
        }
    }

    #[test]
    fn what_is_alive_together_lies_apart_even_through_views() {
        let mut g = Graph::new();
        let x = g.add_tensor("x", &[6], DType::F32, Role::Input);
        let a = g.push_one(Op::Relu, &[x]).unwrap();
        let view = g.reshape(a, &[2, 3]).unwrap();
        let b = g.push_one(Op::Relu, &[x]).unwrap();
        let c = g.push_one(Op::Relu, &[b]).unwrap();
        let d = g.push_one(Op::Relu, &[view]).unwrap();
        let assigned = Pool::default().assign(&g, &[]);
        assert_ne!(assigned[&a], assigned[&b]);
        assert_ne!(assigned[&a], assigned[&c]);
        assert_ne!(assigned[&a], assigned[&d]);
    }

    /// Small ones that come first do not take the places that large ones need later.
    #[test]
    fn large_tensors_share_with_large_ones() {
        let mut g = Graph::new();
        let mut x = g.add_tensor("x", &[4, 100], DType::F32, Role::Input);
        for _ in 0..5 {
            let small =
                g.push_one(Op::Reduce { reduction: Reduction::Sum, axis: 1 }, &[x]).unwrap();
            x = g.push_one(Op::Broadcast { axis: 1, len: 100, factor: 1.0 }, &[small]).unwrap();
        }
        let mut pool = Pool::default();
        pool.assign(&g, &[x]);
        let mut sizes: Vec<usize> = pool.buffers.iter().map(|buffer| buffer.len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [4, 400]);
    }

    #[test]
    fn apart_no_two_of_a_pass_share_and_passes_do() {
        let spec = SampleSpec {
            input_shape: vec![6],
            input_dtype: DType::F32,
            target: TargetSpec::Class { classes: 2 },
        };
        let mut builder = ProgramBuilder::new(&spec, 1);
        let mut output = TensorId(0);
        for pass in [Pass::Train, Pass::Eval] {
            let mut g = Graph::new();
            let mut x = g.add_tensor("x", &[6], DType::F32, Role::Input);
            for _ in 0..4 {
                x = g.push_one(Op::Relu, &[x]).unwrap();
            }
            output = g.reshape(x, &[2, 3]).unwrap();
            builder.add(pass, g, &[output]).unwrap();
        }
        let program = builder.build(output);
        assert_eq!(program.activations.len(), 2);
        let apart = apart(&program);
        assert_eq!(apart.activations.len(), 4);
        for plan in apart.plans.values() {
            let places: HashSet<_> =
                plan.nodes.iter().map(|node| plan.location(node.outputs[0]).place).collect();
            assert_eq!(places.len(), 4);
            // A view lies where its root does.
            let root = plan.root(output);
            assert_eq!(plan.location(output), plan.location(root));
        }
    }

    #[test]
    fn a_second_pass_reuses_and_grows_the_pool() {
        let chain = |len| {
            let mut g = Graph::new();
            let x = g.add_tensor("x", &[len], DType::F32, Role::Input);
            let y = g.push_one(Op::Relu, &[x]).unwrap();
            (g, y)
        };
        let mut pool = Pool::default();
        let (small, y) = chain(10);
        pool.assign(&small, &[y]);
        let (large, y) = chain(50);
        pool.assign(&large, &[y]);
        assert_eq!(pool.buffers, [ActivationBuffer { len: 50, dtype: DType::F32 }]);
    }
}
