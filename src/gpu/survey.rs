//! What a program becomes on a device, found by lowering it: nothing is compiled or allocated for it.

use std::collections::{BTreeMap, HashMap};

use super::context::Context;
use super::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered};
use super::tune::Choices;
use crate::graph::plan::{Pass, Place, Plan, Program};
use crate::graph::{Node, Tensor, TensorId};

/// What a program asks of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// What each pass is.
    pub passes: BTreeMap<Pass, Counts>,
}

/// How much a pass asks of the device's front end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Dispatches.
    pub dispatches: usize,
    /// Dispatches that wait for all before them, by wgpu's rule: a buffer that is bound for writing by a
    /// dispatch or by the last one that bound it forces a barrier, whichever parts of it they touch.
    pub barriers: usize,
}

impl Survey {
    /// Finds out what `program` would be on a device.
    pub fn new(program: &Program, context: &Context) -> Self {
        Lowering::new(program, &Choices::default(), &context.caps()).survey(program)
    }
}

/// A program lowered for a device.
#[derive(Debug)]
pub(super) struct Lowering {
    /// What each operation of each plan became.
    pub(super) passes: BTreeMap<Pass, Vec<Lowered>>,
    /// Sizes of the scratch buffers, by their place in [`Lowered::scratch_bytes`].
    pub(super) scratch_bytes: Vec<usize>,
}

impl Lowering {
    /// Lowers every operation of every plan, by the tile chosen for it where there is one.
    pub(super) fn new(program: &Program, choices: &Choices, caps: &DeviceCaps) -> Self {
        let mut passes: BTreeMap<Pass, Vec<Lowered>> = BTreeMap::new();
        let mut scratch_bytes: Vec<usize> = Vec::new();
        for (&pass, plan) in &program.plans {
            let nodes = plan.nodes.iter();
            let nodes: Vec<Lowered> = nodes
                .map(|node| with_bound(plan, node, |bound| choices.lower(&node.op, bound, caps)))
                .collect();
            for bytes in nodes.iter().map(|lowered| &lowered.scratch_bytes) {
                scratch_bytes.resize(scratch_bytes.len().max(bytes.len()), 0);
                let sizes = scratch_bytes.iter_mut().zip(bytes);
                sizes.for_each(|(most, &bytes)| *most = bytes.max(*most));
            }
            passes.insert(pass, nodes);
        }
        Self { passes, scratch_bytes }
    }

    /// Counts what there is.
    pub(super) fn survey(&self, program: &Program) -> Survey {
        let count = |(pass, nodes): (&Pass, &Vec<Lowered>)| {
            let plan = &program.plans[pass];
            let nodes = plan.nodes.iter().zip(nodes);
            let dispatches =
                nodes.flat_map(|(node, lowered)| lowered.dispatches.iter().map(move |d| (node, d)));
            let uses: Vec<_> =
                dispatches.map(|(node, dispatch)| uses(plan, node, dispatch)).collect();
            (*pass, Counts { dispatches: uses.len(), barriers: barriers(&uses) })
        };
        Survey { passes: self.passes.iter().map(count).collect() }
    }
}

fn with_bound<R>(plan: &Plan, node: &Node, then: impl FnOnce(Bound) -> R) -> R {
    let tensors =
        |ids: &[TensorId]| ids.iter().map(|&id| plan.tensor(id)).collect::<Vec<&Tensor>>();
    let (inputs, outputs) = (tensors(&node.inputs), tensors(&node.outputs));
    then(Bound { inputs: &inputs, outputs: &outputs })
}

/// A buffer as barriers see it: as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whole {
    Place(Place),
    Scratch(usize),
}

/// A buffer that a dispatch binds, and whether for writing.
type Use = (Whole, bool);

fn uses(plan: &Plan, node: &Node, dispatch: &Dispatch) -> Vec<Use> {
    let place = |id: TensorId| Whole::Place(plan.location(id).place);
    let bindings = dispatch.bindings.iter();
    bindings
        .map(|binding| match *binding {
            Binding::Input(i) => (place(node.inputs[i]), false),
            Binding::Output(i) => (place(node.outputs[i]), true),
            Binding::ScratchRead(i) => (Whole::Scratch(i), false),
            Binding::ScratchWrite(i) => (Whole::Scratch(i), true),
        })
        .collect()
}

/// How many of these dispatches wait for all before them.
fn barriers(dispatches: &[Vec<Use>]) -> usize {
    let mut written: HashMap<Whole, bool> = HashMap::new();
    let mut count = 0;
    for uses in dispatches {
        let waits =
            |&(buffer, writes): &Use| written.get(&buffer).is_some_and(|&before| before || writes);
        count += usize::from(uses.iter().any(waits));
        written.extend(uses.iter().copied());
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_touches_what_was_written_waits_and_readers_do_not() {
        let [a, b, c] = [0, 1, 2].map(|i| Whole::Place(Place::Activation(i)));
        let (read, write) = (false, true);
        // Independent buffers; a second reader; a writer after readers; a writer after a writer.
        assert_eq!(barriers(&[vec![(a, write)], vec![(b, write)], vec![(c, read)]]), 0);
        let chain = [vec![(a, write)], vec![(a, read), (b, write)], vec![(a, read), (c, write)]];
        assert_eq!(barriers(&chain), 1);
        assert_eq!(barriers(&[vec![(a, read)], vec![(a, read)], vec![(a, write)]]), 1);
        assert_eq!(barriers(&[vec![(a, write)], vec![(a, write)], vec![(a, write)]]), 2);
        // Waiting once for two buffers is one barrier, waiting for them one by one is two.
        let both = [vec![(a, write)], vec![(b, write)], vec![(a, read), (b, read)]];
        assert_eq!(barriers(&both), 1);
        let each = [vec![(a, write)], vec![(b, write)], vec![(a, read)], vec![(b, read)]];
        assert_eq!(barriers(&each), 2);
    }
}
