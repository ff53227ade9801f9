//! Samples read ahead: more reads at a time than there are workers, within a bound, and the same bytes.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use inflight::Error;
use inflight::pipeline::Preparation;
use inflight::source::cache::{self, Cached};
use inflight::source::supply::Supply;
use inflight::source::{ReadAhead, Room, Source};

use crate::bed::{Hooked, PATIENCE, agenda, preparation, run};

fn with_readers(source: Hooked, workers: usize, readers: usize, prefetch: usize) -> Preparation {
    let source = Arc::new(source.waiting());
    let supply = Supply { readers: Some(readers), prefetch: Some(prefetch), ..Supply::default() };
    Preparation { supply, ..preparation(source, 8, workers) }
}

#[test]
fn readers_read_at_the_same_time_whatever_the_number_of_workers() {
    // The first six reads end only together: with fewer readers than that none would.
    let barrier = Arc::new(Barrier::new(6));
    let begun = Arc::new(AtomicUsize::new(0));
    let source = Hooked::new(64).on_read(move |_| {
        if begun.fetch_add(1, SeqCst) < 6 {
            barrier.wait();
        }
        Ok(())
    });
    let arrived = run(agenda(64, 8, 16), with_readers(source, 1, 6, 4), 2, |_| ());
    assert_eq!((arrived.steps.len(), arrived.error), (16, None));
}

#[test]
fn readers_change_no_bit_and_every_sample_is_read_once() {
    let expected = run(agenda(60, 8, 30), preparation(Arc::new(Hooked::new(60)), 8, 1), 1, |_| ());
    for (workers, readers, prefetch) in [(1, 1, 1), (1, 5, 4), (3, 2, 0), (4, 8, 20)] {
        let reads = Arc::new(AtomicUsize::new(0));
        let counter = reads.clone();
        let source = Hooked::new(60).on_read(move |_| {
            counter.fetch_add(1, SeqCst);
            Ok(())
        });
        let arrived =
            run(agenda(60, 8, 30), with_readers(source, workers, readers, prefetch), 3, |_| ());
        assert_eq!(arrived, expected, "{workers} workers, {readers} readers, {prefetch} ahead");
        // A sample that is announced twice before it is asked for is read once for both.
        assert!(reads.load(SeqCst) <= 240, "{} reads", reads.load(SeqCst));
    }
}

#[test]
fn the_error_of_a_sample_read_ahead_comes_in_its_turn() {
    for (fails, message) in [(20, "error"), (20, "panic")] {
        let source = Hooked::new(64).on_read(move |index| match (index == fails, message) {
            (true, "error") => Err(Error::data("here", "fails")),
            (true, _) => panic!("planted"),
            _ => Ok(()),
        });
        let arrived = run(agenda(64, 8, 8), with_readers(source, 2, 4, 6), 3, |_| ());
        assert_eq!(arrived.steps, [0, 1]);
        let error = arrived.error.unwrap();
        assert!(error.starts_with("prepare: sample 20 of hooked"), "{error}");
    }
}

fn wait_until_held(ahead: &ReadAhead) {
    let began = std::time::Instant::now();
    while ahead.held() == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing is held");
        std::thread::yield_now();
    }
}

#[test]
fn readers_stop_at_their_bytes_and_begin_again() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let source = Hooked::new(1000).on_read(move |_| {
        counter.fetch_add(1, SeqCst);
        Ok(())
    });
    // Room for a single buffer: a second read begins only once the first sample is taken.
    let ahead = ReadAhead::start(Arc::new(source), 1, Room::new(1)).unwrap();
    let wait_for = |count: usize| {
        let began = std::time::Instant::now();
        while reads.load(SeqCst) < count && began.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        assert_eq!(reads.load(SeqCst), count);
    };
    ahead.announce(&[5, 6, 7]);
    wait_for(1);
    let mut scratch = Vec::new();
    for (i, index) in [5, 6, 7].into_iter().enumerate() {
        wait_for(i + 1);
        wait_until_held(&ahead);
        ahead.read(index, &mut scratch).unwrap();
    }
    assert_eq!((ahead.hits(), reads.load(SeqCst)), (3, 3));
    // What is announced and never asked for is forgotten when a run ends.
    ahead.announce(&[8]);
    wait_for(4);
    wait_until_held(&ahead);
    ahead.close();
    assert_eq!(ahead.held(), 0);
    drop(ahead);
}

#[test]
fn a_sample_that_is_wanted_twice_is_read_once_and_given_twice() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let source = Hooked::new(100).on_read(move |_| {
        counter.fetch_add(1, SeqCst);
        Ok(())
    });
    let room = Room::new(1 << 20);
    let ahead = ReadAhead::start(Arc::new(source), 2, room.clone()).unwrap();
    let mut scratch = Vec::new();
    let mut expected = Vec::new();
    let plain = Hooked::new(100);
    let expected = plain.read(9, &mut expected).unwrap();
    ahead.announce(&[9, 9]);
    wait_until_held(&ahead);
    for left in [1, 0] {
        assert_eq!(ahead.read(9, &mut scratch).unwrap(), expected);
        assert_eq!(ahead.held() > 0, left > 0, "{left} more times");
    }
    assert_eq!((ahead.hits(), reads.load(SeqCst), room.held()), (2, 1, 0));
    // It is nobody's any more, and read by whoever asks.
    assert_eq!(ahead.read(9, &mut scratch).unwrap(), expected);
    assert_eq!((ahead.hits(), reads.load(SeqCst)), (2, 2));
}

#[test]
fn a_sample_that_a_cache_has_meanwhile_gives_its_room_back() {
    let room = Room::new(1);
    let ahead = ReadAhead::start(Arc::new(Hooked::new(100)), 1, room.clone()).unwrap();
    let ahead = Arc::new(ahead);
    let cached = Cached::ram(ahead.clone(), cache::Budget::new(1 << 20)).unwrap();
    let mut scratch = Vec::new();
    // Both announcements come before the cache has it.
    cached.announce(&[5, 5]);
    wait_until_held(&ahead);
    cached.read(5, &mut scratch).unwrap();
    assert!(ahead.held() > 0, "it is wanted once more");
    cached.read(5, &mut scratch).unwrap();
    assert_eq!((ahead.held(), room.held(), cached.counts().hits), (0, 0, 1));
    // There is nothing to let go of now.
    cached.read(5, &mut scratch).unwrap();
    assert_eq!(cached.counts().hits, 2);
}

#[test]
fn several_sources_share_one_room() {
    let room = Room::new(1);
    let start = || ReadAhead::start(Arc::new(Hooked::new(100)), 1, room.clone()).unwrap();
    let (train, held_out) = (start(), start());
    train.announce(&[1]);
    wait_until_held(&train);
    // There is no room left, and its only reader would have to begin before it could hold anything.
    held_out.announce(&[7]);
    let mut scratch = Vec::new();
    assert_eq!((held_out.held(), room.held()), (0, train.held()));
    // What is taken from one is room for the other, whose reader is woken.
    train.read(1, &mut scratch).unwrap();
    wait_until_held(&held_out);
    assert_eq!((train.held(), room.held()), (0, held_out.held()));
    // So is what one has never been asked for.
    train.announce(&[2]);
    drop(held_out);
    wait_until_held(&train);
    drop(train);
    assert_eq!(room.held(), 0);
}
