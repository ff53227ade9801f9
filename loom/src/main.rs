//! Tries every order in which threads can run through the synchronisation that is written by hand: `src/assembly.rs`,
//! which puts batches together, the slot in `src/batch.rs` that several workers fill, and `src/ring.rs`, through which slots
//! come back. They are the project's own files; what they stand on is either loom's, or the little below that they ask for.
//!
//! ```sh
//! cargo run --release --manifest-path loom/Cargo.toml
//! ```
#![allow(dead_code)]

#[path = "../../src/assembly.rs"]
mod assembly;
#[path = "../../src/batch.rs"]
mod batch;
#[path = "../../src/framing.rs"]
mod framing;
#[path = "../../src/ring.rs"]
mod ring;
mod stand_ins;

use loom::sync::Arc;
use loom::thread;
use rayon::ScopeFifo;
use stand_ins::{clock, error, gauges, pipeline, prepare, quarantine, sync};

use assembly::Assembly;
use batch::{DType, SampleSpec, SharedSlot, Slot, SlotLayout, TargetSpec};
use gauges::Gauges;
use pipeline::{Filled, Work};
use prepare::Filler;
use quarantine::Quarantine;
use ring::Ring;

fn layout(batch_size: usize) -> SlotLayout {
    let spec = SampleSpec {
        input_shape: vec![1],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 2 },
    };
    SlotLayout::new(&spec, batch_size)
}

/// Runs a model and tells how many orders there were.
fn model(name: &str, preemptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = orders.clone();
    // Before: a model that fails may take the process with it.
    println!("{name}");
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        run();
    });
    let orders = orders.load(std::sync::atomic::Ordering::Relaxed);
    let bound = preemptions.map_or("all".into(), |n| format!("all with up to {n} preemptions"));
    println!("    {orders} orders ({bound})");
}

/// Every row of a slot is taken once, by whomever.
fn rows_are_taken_once() {
    model("rows of a shared slot", None, || {
        let layout = layout(3);
        let shared = Arc::new(SharedSlot::new(Slot::host(0, layout.slot_bytes), &layout, 3));
        let take = |shared: &SharedSlot| {
            let mut rows = Vec::new();
            while let Some((first, windows)) = shared.take(2) {
                for (row, mut window) in (first..).zip(windows) {
                    window.input.fill(row as u8 + 1);
                    rows.push(row);
                }
            }
            rows
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || take(&shared))
        };
        let mut rows = take(&shared);
        rows.extend(other.join().unwrap());
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2]);
        assert!(!shared.is_open());
        let Ok(shared) = Arc::try_unwrap(shared) else { panic!("it is held") };
        let slot = shared.into_slot();
        let bytes = slot.bytes().expect("host memory");
        assert_eq!(&bytes[layout.input_offset..layout.input_offset + 3], [1, 2, 3]);
    });
}

/// Batches of two samples go through an assembly with so many workers; samples of which `fails` says so are bad.
/// Whatever the order: batches leave in theirs, whole, up to the first one with a bad sample, and nothing is left.
fn assembled(batches: u64, workers: usize, fails: fn(u64, usize) -> bool) {
    let layout = layout(2);
    let (full, arrived) = crossbeam_channel::bounded(batches as usize + 1);
    {
        let (gauges, quarantine) = (Gauges::of(workers), Quarantine);
        // A model's threads are not scoped, so that what they share lives as long as the program: a small leak an order.
        let full = Box::leak(Box::new(full));
        let (gauges, quarantine) = (Box::leak(Box::new(gauges)), Box::leak(Box::new(quarantine)));
        let assembly: &'static Assembly<'static> =
            Box::leak(Box::new(Assembly::new(workers, full, gauges, quarantine)));
        let scope: &'static ScopeFifo<'static> = Box::leak(Box::new(ScopeFifo::new()));
        let add = move |number: u64| {
            if assembly.begin() {
                let work = Work { step: number, indices: vec![0, 1], bad: 0 };
                let lifetime = std::marker::PhantomData;
                let filler = Filler { number, layout: layout.clone(), fails, lifetime };
                let slot = Slot::host(number as usize, layout.slot_bytes);
                assembly.add(scope, number, work, slot, filler);
            }
        };
        add(0);
        let threads: Vec<_> = (1..workers).map(|_| thread::spawn(|| scope.run())).collect();
        // The thread that prepares goes on while workers are at it.
        (1..batches).for_each(add);
        scope.run();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        // A task that was started when the others had ended is still there.
        scope.run();
    }
    let mut next = 0;
    let first_bad = (0..batches).find(|&batch| (0..2).any(|sample| fails(batch, sample)));
    while let Ok(result) = arrived.try_recv() {
        match result {
            Ok(Filled { work, slot }) => {
                assert_eq!((work.step, slot.index as u64), (next, next), "in order");
                let bytes = slot.bytes().expect("host memory");
                let expected = [work.step as u8 * 2 + 1, work.step as u8 * 2 + 2];
                assert_eq!(&bytes[256..258], expected, "whole");
                next += 1;
            }
            Err(error) => {
                let bad = first_bad.expect("a bad sample");
                let sample = (0..2).find(|&sample| fails(bad, sample)).expect("one");
                assert_eq!(error.0, format!("{bad}/{sample}"), "the first bad sample");
                assert_eq!(next, bad, "after all batches before it");
                next += 1;
                assert!(arrived.try_recv().is_err(), "nothing after an error");
            }
        }
    }
    assert_eq!(next, first_bad.map_or(batches, |bad| bad + 1), "nothing is missing");
}

/// The memory of a slot, which tells when it is given up.
struct Owned(Vec<u128>, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A slot whose end is counted.
fn counted(
    index: usize,
    bytes: usize,
    ended: std::sync::Arc<std::sync::atomic::AtomicUsize>,
) -> Slot {
    let mut owner = Box::new(Owned(vec![0; bytes.div_ceil(16)], ended));
    let ptr = std::ptr::NonNull::from(owner.0.as_mut_slice()).cast();
    // SAFETY: the vector has that many bytes, stays where it is as the box moves, and is touched by nobody else.
    unsafe { Slot::from_raw(index, ptr, bytes, owner) }
}

/// Four batches go round a ring of two slots, of which `in_play` are wanted as each is asked for: a thread that prepares, a
/// worker, and a device that takes so many batches and then is gone. Whatever the order: no send waits for room, all threads
/// end, batches arrive in order, all of them where the device stays, and no slot is lost; `fails` as in [`assembled`].
fn around_the_ring(in_play: [usize; 4], takes: u64, fails: fn(u64, usize) -> bool) {
    let layout = layout(2);
    let (empty_in, empty_out) = crossbeam_channel::bounded(2);
    let (full_in, full_out) = crossbeam_channel::bounded(3);
    let first_bad = (0..4).find(|&batch| (0..2).any(|sample| fails(batch, sample)));
    let device = thread::spawn(move || {
        let mut next = 0;
        while next < takes {
            let Ok(result) = full_out.recv() else { break };
            let Ok(Filled { work, slot }) = result else {
                assert_eq!(Some(next), first_bad, "after all batches before it");
                return;
            };
            assert_eq!(work.step, next, "in order");
            next += 1;
            empty_in.send(slot).expect("the ring is there until the device is gone");
        }
        assert_eq!(next, takes.min(first_bad.unwrap_or(4)), "nothing is missing");
    });
    let (gauges, quarantine) = (Gauges::of(1), Quarantine);
    // As in `assembled`: a small leak an order.
    let full: &'static _ = Box::leak(Box::new(full_in));
    let (gauges, quarantine) = (Box::leak(Box::new(gauges)), Box::leak(Box::new(quarantine)));
    let assembly: &'static Assembly<'static> =
        Box::leak(Box::new(Assembly::new(1, full, gauges, quarantine)));
    let scope: &'static ScopeFifo<'static> = Box::leak(Box::new(ScopeFifo::new()));
    let worker = thread::spawn(|| scope.work());
    let wanted = sync::AtomicUsize::new(0);
    let ended = std::sync::Arc::default();
    let slots = (0..2)
        .map(|index| counted(index, layout.slot_bytes, std::sync::Arc::clone(&ended)))
        .collect();
    let mut ring = Ring::new(slots, &empty_out, &wanted);
    for (number, in_play) in (0..).zip(in_play) {
        wanted.store(in_play, sync::Ordering::Relaxed);
        let Some(slot) = ring.next() else {
            assembly.stop();
            break;
        };
        if !assembly.begin() {
            break;
        }
        let work = Work { step: number, indices: vec![0, 1], bad: 0 };
        let lifetime = std::marker::PhantomData;
        let filler = Filler { number, layout: layout.clone(), fails, lifetime };
        assembly.add(scope, number, work, slot, filler);
    }
    scope.close();
    worker.join().unwrap();
    full.leave();
    device.join().unwrap();
    let ended = || ended.load(std::sync::atomic::Ordering::Relaxed);
    if takes >= 4 && first_bad.is_none() {
        assert_eq!(ended(), 0, "all slots are there");
    }
    drop(ring);
    drop(empty_out);
    assert_eq!(ended(), 2, "none is held");
}

fn main() {
    rows_are_taken_once();
    model("two batches, two workers", Some(3), || assembled(2, 2, |_, _| false));
    model("a bad sample in the first batch", Some(3), || assembled(2, 2, |batch, _| batch == 0));
    model("a bad sample in the second", Some(3), || assembled(2, 2, |b, s| (b, s) == (1, 1)));
    model("bad samples in both", Some(3), || assembled(2, 2, |_, sample| sample == 1));
    model("three workers", Some(2), || assembled(2, 3, |_, _| false));
    let all = |in_play| move || around_the_ring(in_play, u64::MAX, |_, _| false);
    model("round the ring, both slots in play", Some(3), all([2; 4]));
    model("one, then both, then one", Some(3), all([1, 2, 2, 1]));
    model("both, then one, then both", Some(3), all([2, 1, 1, 2]));
    model("a device that is gone at once", Some(3), || around_the_ring([2; 4], 0, |_, _| false));
    model("after a batch", Some(3), || around_the_ring([2, 2, 1, 1], 1, |_, _| false));
    model("after three", Some(3), || around_the_ring([2, 1, 2, 1], 3, |_, _| false));
    model("a bad sample on the way", Some(3), || {
        around_the_ring([2; 4], 9, |b, s| (b, s) == (2, 0))
    });
}
