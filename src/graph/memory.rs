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
    pub fn assign(&mut self, graph: &Graph, keep: &[TensorId]) -> HashMap<TensorId, usize> {
        let last_use = last_uses(graph, keep);
        let mut free: Vec<usize> = (0..self.buffers.len()).collect();
        let mut assigned = HashMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            for &y in &node.outputs {
                let root = graph.root(y);
                if graph.tensor(root).role == Role::Activation && !assigned.contains_key(&root) {
                    assigned.insert(root, self.take(graph, root, &mut free));
                }
            }
            // Only now are the inputs given back, so that an output never lands on one of them.
            let mut ended: Vec<TensorId> =
                node.inputs.iter().chain(&node.outputs).map(|&x| graph.root(x)).collect();
            ended.sort();
            ended.dedup();
            for root in ended {
                if last_use.get(&root) == Some(&i)
                    && let Some(&buffer) = assigned.get(&root)
                {
                    free.push(buffer);
                }
            }
        }
        assigned
    }

    /// The smallest free buffer that fits, else the largest one grown, else a new one.
    fn take(&mut self, graph: &Graph, id: TensorId, free: &mut Vec<usize>) -> usize {
        let tensor = graph.tensor(id);
        let (len, dtype) = (tensor.len(), tensor.dtype);
        let same = |&&i: &&usize| self.buffers[i].dtype == dtype;
        let best = free
            .iter()
            .filter(same)
            .filter(|&&i| self.buffers[i].len >= len)
            .min_by_key(|&&i| self.buffers[i].len)
            .or_else(|| free.iter().filter(same).max_by_key(|&&i| self.buffers[i].len))
            .copied();
        match best {
            Some(buffer) => {
                free.retain(|&i| i != buffer);
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

/// The last operation that touches each root tensor; tensors to keep have none.
fn last_uses(graph: &Graph, keep: &[TensorId]) -> HashMap<TensorId, usize> {
    let mut last = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for &x in node.inputs.iter().chain(&node.outputs) {
            last.insert(graph.root(x), i);
        }
    }
    for &id in keep {
        last.remove(&graph.root(id));
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::DType;
    use crate::graph::op::Op;

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
