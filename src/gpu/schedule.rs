//! The order of a pass's dispatches, and where the device waits between them.
//!
//! wgpu keeps one state a buffer, and puts a barrier before every dispatch that changes one: that reads a
//! buffer last bound for writing, or binds a buffer for writing that this pass has bound before, whichever
//! parts of it they touch. A barrier waits for everything before it. So dispatches run side by side where
//! those behind the first one write only buffers that were never bound, and read only what is bound for
//! reading already. This module puts such dispatches next to one another, as far as data allows: list
//! scheduling (Graham, 1969), by groups that wait once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use crate::graph::plan::Place;

/// A buffer as barriers see it: as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Whole {
    /// Where tensors lie.
    Place(Place),
    /// Scratch memory.
    Scratch(usize),
}

/// What a dispatch does with a part of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) buffer: Whole,
    /// In bytes.
    pub(super) range: Range<usize>,
    pub(super) writes: bool,
}

/// A dispatch in its new place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scheduled {
    /// Its number in the old order.
    pub(super) dispatch: usize,
    /// Buffers that are to be moved to reading before it, for dispatches that follow: so that these need no
    /// barrier of their own.
    pub(super) readied: Vec<Whole>,
    /// Whether it waits for all before it.
    pub(super) waits: bool,
}

/// Orders dispatches so that they wait seldom. Those that touch the same bytes, one of them writing, keep
/// their order, so that the results keep their bits.
pub(super) fn schedule(dispatches: &[Vec<Access>]) -> Vec<Scheduled> {
    let graph = Dependencies::new(dispatches);
    let mut missing: Vec<usize> = graph.before.iter().map(BTreeSet::len).collect();
    let mut ready: Vec<usize> = (0..dispatches.len()).filter(|&i| missing[i] == 0).collect();
    let mut states = States::default();
    let mut order: Vec<Scheduled> = Vec::with_capacity(dispatches.len());
    while !ready.is_empty() {
        ready.sort_by_key(|&i| (std::cmp::Reverse(graph.height[i]), i));
        let group = states.group(&ready, dispatches);
        ready.retain(|i| !group.iter().any(|scheduled| scheduled.dispatch == *i));
        for scheduled in &group {
            for &next in &graph.after[scheduled.dispatch] {
                missing[next] -= 1;
                if missing[next] == 0 {
                    ready.push(next);
                }
            }
        }
        order.extend(group);
    }
    order
}

/// The state of every buffer so far: whether it was last bound for writing.
#[derive(Debug, Default)]
struct States {
    written: HashMap<Whole, bool>,
}

impl States {
    /// The next dispatches that run side by side, of those that are ready: a first one, which may need any
    /// barrier, and all that then need none.
    fn group(&mut self, ready: &[usize], dispatches: &[Vec<Access>]) -> Vec<Scheduled> {
        let first = self.written.is_empty();
        // Who needs a barrier in any case goes first, since there is one anyway.
        let rebinds = |&&i: &&usize| {
            dispatches[i].iter().any(|a| a.writes && self.written.contains_key(&a.buffer))
        };
        let head = ready.iter().find(rebinds).unwrap_or(&ready[0]);
        let mut readied: BTreeSet<Whole> = BTreeSet::new();
        // What this group writes cannot be readied for it.
        let mut own: HashSet<Whole> = HashSet::new();
        let mut group = Vec::new();
        let others = ready.iter().filter(|&i| i != head);
        for &i in std::iter::once(head).chain(others) {
            let is_head = i == *head;
            let fits = dispatches[i].iter().all(|access| match access.writes {
                true => !self.written.contains_key(&access.buffer),
                false => !own.contains(&access.buffer),
            });
            if !is_head && !fits {
                continue;
            }
            for access in &dispatches[i] {
                let before = self.written.insert(access.buffer, access.writes);
                if access.writes {
                    own.insert(access.buffer);
                } else if before == Some(true) && !is_head {
                    readied.insert(access.buffer);
                }
            }
            group.push(Scheduled { dispatch: i, readied: vec![], waits: is_head && !first });
        }
        group[0].readied = readied.into_iter().collect();
        group
    }
}

/// Which dispatches must come before and after each, and how long a chain of them begins there.
#[derive(Debug)]
struct Dependencies {
    before: Vec<BTreeSet<usize>>,
    after: Vec<Vec<usize>>,
    height: Vec<usize>,
}

impl Dependencies {
    fn new(dispatches: &[Vec<Access>]) -> Self {
        let count = dispatches.len();
        let mut seen: HashMap<Whole, Vec<(usize, &Access)>> = HashMap::new();
        let mut before = vec![BTreeSet::new(); count];
        let mut after = vec![Vec::new(); count];
        for (i, accesses) in dispatches.iter().enumerate() {
            for access in accesses {
                let earlier = seen.entry(access.buffer).or_default();
                for (j, other) in earlier.iter().filter(|(j, other)| *j != i && other.meets(access))
                {
                    if (access.writes || other.writes) && before[i].insert(*j) {
                        after[*j].push(i);
                    }
                }
                earlier.push((i, access));
            }
        }
        let mut height = vec![1; count];
        for i in (0..count).rev() {
            height[i] += after[i].iter().map(|&next: &usize| height[next]).max().unwrap_or(0);
        }
        Self { before, after, height }
    }
}

impl Access {
    fn meets(&self, other: &Self) -> bool {
        self.range.start < other.range.end && other.range.start < self.range.end
    }
}

/// How many dispatches in this order wait for all before them, by wgpu's rule.
#[cfg(test)]
pub(super) fn barriers(dispatches: &[Vec<Access>], order: &[Scheduled]) -> usize {
    let mut written: HashMap<Whole, bool> = HashMap::new();
    let mut count = 0;
    for scheduled in order {
        let accesses = &dispatches[scheduled.dispatch];
        let moved = scheduled.readied.iter().any(|buffer| written.get(buffer) == Some(&true));
        written.extend(scheduled.readied.iter().map(|&buffer| (buffer, false)));
        let waits = |access: &Access| {
            written.get(&access.buffer).is_some_and(|&before| before || access.writes)
        };
        count += usize::from(moved || accesses.iter().any(waits));
        written.extend(accesses.iter().map(|access| (access.buffer, access.writes)));
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn buffer(i: usize) -> Whole {
        Whole::Place(Place::Activation(i))
    }

    fn dispatch(reads: &[usize], writes: &[usize]) -> Vec<Access> {
        let access = |writes| move |&i: &usize| Access { buffer: buffer(i), range: 0..4, writes };
        reads.iter().map(access(false)).chain(writes.iter().map(access(true))).collect()
    }

    fn in_order(dispatches: &[Vec<Access>]) -> Vec<Scheduled> {
        let plain = |dispatch| Scheduled { dispatch, readied: vec![], waits: false };
        (0..dispatches.len()).map(plain).collect()
    }

    #[test]
    fn whoever_touches_what_was_written_waits_and_readers_do_not() {
        let count = |dispatches: &[Vec<Access>]| barriers(dispatches, &in_order(dispatches));
        assert_eq!(count(&[dispatch(&[], &[0]), dispatch(&[], &[1]), dispatch(&[2], &[])]), 0);
        let chain = [dispatch(&[], &[0]), dispatch(&[0], &[1]), dispatch(&[0], &[2])];
        assert_eq!(count(&chain), 1);
        assert_eq!(count(&[dispatch(&[0], &[]), dispatch(&[0], &[]), dispatch(&[], &[0])]), 1);
        assert_eq!(count(&[dispatch(&[], &[0]), dispatch(&[], &[0])]), 1);
        // Waiting once for two buffers is one barrier, waiting for them one by one is two.
        let made = [dispatch(&[], &[0]), dispatch(&[], &[1])];
        assert_eq!(count(&[&made[..], &[dispatch(&[0, 1], &[])]].concat()), 1);
        assert_eq!(count(&[&made[..], &[dispatch(&[0], &[]), dispatch(&[1], &[])]].concat()), 2);
    }

    /// Two branches of three steps each: one after the other they wait at every step, side by side at
    /// every other.
    #[test]
    fn independent_branches_run_side_by_side_and_wait_once() {
        let branch = |first: usize| {
            [
                dispatch(&[], &[first]),
                dispatch(&[first], &[first + 1]),
                dispatch(&[first + 1], &[first + 2]),
            ]
        };
        let dispatches = [branch(0), branch(10)].concat();
        assert_eq!(barriers(&dispatches, &in_order(&dispatches)), 4);
        let order = schedule(&dispatches);
        assert_eq!(barriers(&dispatches, &order), 2);
        assert_eq!(order.iter().filter(|scheduled| scheduled.waits).count(), 2);
    }

    #[test]
    fn one_that_writes_a_shared_arena_leads_a_group() {
        // dy; from it dx and, into the arena 9, the gradient of a parameter; the same again from dx.
        let mut dispatches = vec![dispatch(&[], &[0])];
        for i in 0..4 {
            let mut gradient = dispatch(&[i], &[]);
            gradient.push(Access { buffer: buffer(9), range: 4 * i..4 * i + 4, writes: true });
            dispatches.push(dispatch(&[i], &[i + 1]));
            dispatches.push(gradient);
        }
        assert_eq!(barriers(&dispatches, &in_order(&dispatches)), 7);
        assert_eq!(barriers(&dispatches, &schedule(&dispatches)), 4);
    }

    /// Random programs: each dispatch once, what depends keeps its order, and no barrier but those foreseen.
    #[test]
    fn orders_keep_dependencies_and_foresee_every_barrier() {
        for seed in 0..200 {
            let mut rng = Rng::keyed(&[seed]);
            let access = |rng: &mut Rng, writes| {
                let start = rng.below(3) as usize;
                Access { buffer: buffer(rng.below(12) as usize), range: start..start + 2, writes }
            };
            let dispatches: Vec<Vec<Access>> = (0..40)
                .map(|_| {
                    let write = access(&mut rng, true);
                    let reads = (0..rng.below(3)).map(|_| access(&mut rng, false));
                    let mut all: Vec<Access> =
                        reads.filter(|read| read.buffer != write.buffer).collect();
                    all.push(write);
                    all
                })
                .collect();
            let order = schedule(&dispatches);
            let mut place = vec![None; dispatches.len()];
            for (at, scheduled) in order.iter().enumerate() {
                assert_eq!(place[scheduled.dispatch].replace(at), None, "runs twice");
            }
            assert_eq!(order.len(), dispatches.len());
            for (i, before) in Dependencies::new(&dispatches).before.iter().enumerate() {
                assert!(before.iter().all(|&j| place[j] < place[i]), "seed {seed}");
            }
            let foreseen = order.iter().filter(|scheduled| scheduled.waits).count();
            let found = barriers(&dispatches, &order);
            assert!(found <= foreseen, "seed {seed}: {found} where {foreseen} were foreseen");
            assert!(foreseen <= barriers(&dispatches, &in_order(&dispatches)), "seed {seed}");
        }
    }
}
