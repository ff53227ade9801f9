//! Out-of-order completion inside, in-order delivery outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use inflight::Error;
use inflight::pipeline::{Find, Pipeline, Preparation, Split};
use inflight::quarantine::{Budget, OnBadSample, Quarantine};
use inflight::source::Source;

use crate::bed::{Arrived, Happened, Hooked, PATIENCE, agenda, preparation, receive, ring, run};

#[test]
fn a_later_batch_is_filled_while_an_earlier_one_waits() {
    let happened = Arc::new(Happened::default());
    let hook = {
        let happened = happened.clone();
        move |index: usize| {
            happened.note(format!("read {index}"));
            // The first sample of all waits for the last one of the batch after.
            if index == 0 { happened.wait_for("read 15") } else { Ok(()) }
        }
    };
    let source: Arc<dyn Source> = Arc::new(Hooked::new(64).on_read(hook));
    let arrived = run(agenda(64, 8, 8), preparation(source, 8, 2), 3, |_| ());
    assert_eq!((arrived.error, arrived.steps), (None, (0..8).collect()));
}

#[test]
fn other_batches_are_filled_while_the_gaps_of_one_are_closed() {
    let happened = Happened::default();
    let reads = AtomicUsize::new(0);
    let hook = move |index: usize| match index {
        0 => Err(Error::data("here", "is bad")),
        // The second time it is read into the place of sample 0, which waits for what another worker can only come to
        // if it is free to take samples meanwhile.
        7 if reads.fetch_add(1, SeqCst) == 1 => {
            happened.note("a gap is closed");
            happened.wait_for("read 10")
        }
        9 => happened.wait_for("a gap is closed"),
        10 => {
            happened.note("read 10");
            Ok(())
        }
        _ => Ok(()),
    };
    let source: Arc<dyn Source> = Arc::new(Hooked::new(64).on_read(hook));
    let mut agenda = agenda(64, 8, 8);
    agenda.iter_mut().for_each(|work| work.split = Split::Validation);
    let (budget, held_out) = (Budget::Samples(1), Some(source.clone()));
    let books = Quarantine::new(OnBadSample::Skip, budget, source.clone(), held_out.clone());
    let quarantine = Arc::new(books);
    let preparation = Preparation { validation: held_out, quarantine, ..preparation(source, 8, 2) };
    let arrived = run(agenda, preparation, 3, |filled| {
        assert_eq!(filled.work.bad, usize::from(filled.work.step == 0));
    });
    assert_eq!((arrived.error, arrived.steps), (None, (0..8).collect()));
}

#[test]
fn a_stream_that_waits_does_not_hold_finished_batches_back() {
    let happened = Arc::new(Happened::default());
    let (waits, tells) = (happened.clone(), happened);
    // The samples of the third batch only come once the first two have reached the device.
    let hook = move |first: usize| if first == 16 { waits.wait_for("batch 1") } else { Ok(()) };
    let source: Arc<dyn Source> = Arc::new(Hooked::new(64).on_prefetch(hook));
    for workers in [1, 3] {
        let tells = tells.clone();
        let preparation = preparation(source.clone(), 8, workers);
        let arrived = run(agenda(64, 8, 8), preparation, 3, move |filled| {
            tells.note(format!("batch {}", filled.work.step));
        });
        assert_eq!((arrived.error, arrived.steps), (None, (0..8).collect()));
    }
}

#[test]
fn the_error_of_the_earliest_batch_wins() {
    let happened = Arc::new(Happened::default());
    let hook = move |index: usize| {
        let fails = || Err(Error::data("here", "fails"));
        match index {
            // Batch 1 fails only after batch 2 did, and at its sample 12 only after its sample 13.
            12 => happened.wait_for("13 fails").and_then(|()| fails()),
            13 => {
                let waited = happened.wait_for("20 fails");
                happened.note("13 fails");
                waited.and_then(|()| fails())
            }
            20 => {
                happened.note("20 fails");
                fails()
            }
            _ => Ok(()),
        }
    };
    let source: Arc<dyn Source> = Arc::new(Hooked::new(64).on_read(hook));
    let arrived = run(agenda(64, 8, 8), preparation(source, 8, 4), 3, |_| ());
    assert_eq!(arrived.steps, [0]);
    let expected = "prepare: sample 12 of hooked: here: fails";
    assert_eq!(arrived.error.as_deref(), Some(expected));
}

#[test]
fn an_error_of_a_stream_leaves_in_its_turn() {
    for workers in [1, 2] {
        let hook = |first: usize| match first {
            16 => Err(Error::data("the queue", "is gone")),
            24 => panic!("never asked for"),
            _ => Ok(()),
        };
        let source: Arc<dyn Source> = Arc::new(Hooked::new(64).on_prefetch(hook));
        let arrived = run(agenda(64, 8, 8), preparation(source, 8, workers), 5, |_| ());
        assert_eq!(arrived.steps, [0, 1]);
        assert_eq!(arrived.error.as_deref(), Some("source: the queue: is gone"));
    }
    let source = Hooked::new(64).on_prefetch(|_| panic!("no such queue"));
    let arrived = run(agenda(64, 8, 8), preparation(Arc::new(source), 8, 1), 2, |_| ());
    assert_eq!(arrived.error.as_deref(), Some("prepare: hooked: panicked: no such queue"));
}

/// Every seventh sample takes many times as long as the others, so that later batches are often done first.
fn uneven(index: usize) -> Result<(), Error> {
    if index.is_multiple_of(7) {
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
    Ok(())
}

#[test]
fn workers_and_slots_change_no_bit() {
    let source: Arc<dyn Source> = Arc::new(Hooked::new(100).on_read(uneven));
    let with = |workers, slots, batch| {
        run(agenda(100, batch, 40), preparation(source.clone(), batch, workers), slots, |_| ())
    };
    for batch in [1, 2, 16] {
        let one = with(1, 1, batch);
        assert_eq!((one.steps.len(), &one.error), (40, &None));
        for (workers, slots) in [(1, 4), (2, 2), (3, 5), (8, 1), (8, 20)] {
            assert_eq!(with(workers, slots, batch), one, "{workers} workers, {slots} slots");
        }
    }
}

#[test]
fn numbers_that_change_meanwhile_change_no_bit() {
    let source: Arc<dyn Source> = Arc::new(Hooked::new(100).on_read(uneven));
    let one = run(agenda(100, 2, 600), preparation(source.clone(), 2, 1), 1, |_| ());
    let preparation = preparation(source, 2, 4);
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let ring = ring(&preparation, 6);
    let pipeline =
        Pipeline::start(ring, agenda(100, 2, 600).into_iter(), preparation, move |ends| {
            let mut arrived = Arrived::default();
            while let Ok(filled) = receive(&ends.full) {
                let filled = filled.expect("no errors here");
                let step = filled.work.step as usize;
                ends.gauges.at_work.workers.store(1 + step % 4, SeqCst);
                ends.gauges.at_work.slots.store(1 + step * 5 % 6, SeqCst);
                arrived.steps.push(filled.work.step);
                arrived.bytes.push(filled.slot.bytes().unwrap().to_vec());
                let _ = ends.empty.send(filled.slot);
            }
            let _ = sender.send(arrived);
        });
    let _pipeline = pipeline.unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).expect("the pipeline ends"), one);
}

#[test]
fn slots_beyond_the_wanted_ones_are_not_in_play() {
    // What is found begins with three slots; the others are not in play.
    for (find, in_play) in
        [(Find { workers: true, slots: true }, 3), (Find { workers: true, slots: false }, 5)]
    {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let preparation = Preparation { find, ..preparation(Arc::new(Hooked::new(64)), 8, 4) };
        let ring = ring(&preparation, 5);
        let pipeline =
            Pipeline::start(ring, agenda(64, 8, 8).into_iter(), preparation, move |ends| {
                let filled: Vec<_> = (0..in_play).map(|_| receive(&ends.full)).collect();
                let workers = ends.gauges.at_work.workers.load(SeqCst);
                let more = ends.full.recv_timeout(std::time::Duration::from_millis(50)).is_ok();
                let _ = sender.send((filled.iter().filter(|f| f.is_ok()).count(), workers, more));
            });
        let _pipeline = pipeline.unwrap();
        let found = receiver.recv_timeout(PATIENCE).expect("the pipeline ends");
        assert_eq!(found, (in_play, 4, false), "{find:?}");
    }
}

#[test]
fn no_more_workers_are_at_work_than_are_wanted() {
    let most = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = most.clone();
    let source = Hooked::new(64).on_read(move |_| {
        let now = seen.0.fetch_add(1, SeqCst) + 1;
        seen.1.fetch_max(now, SeqCst);
        std::thread::yield_now();
        seen.0.fetch_sub(1, SeqCst);
        Ok(())
    });
    let preparation = preparation(Arc::new(source), 8, 4);
    let (sender, receiver) = crossbeam_channel::bounded(1);
    let ring = ring(&preparation, 4);
    let pipeline = Pipeline::start(ring, agenda(64, 8, 40).into_iter(), preparation, move |ends| {
        let mut batches = 0;
        while let Ok(filled) = receive(&ends.full) {
            batches += 1;
            ends.gauges.at_work.workers.store(1, SeqCst);
            if batches == 12 {
                // What was begun with more workers is done by now.
                most.1.store(0, SeqCst);
            }
            let _ = ends.empty.send(filled.expect("no errors here").slot);
        }
        let _ = sender.send((batches, most.1.load(SeqCst)));
    });
    let _pipeline = pipeline.unwrap();
    assert_eq!(receiver.recv_timeout(PATIENCE).expect("the pipeline ends"), (40, 1));
}

#[test]
fn one_slot_is_one_batch_at_a_time() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let source = Hooked::new(64).on_read(move |_| {
        counter.fetch_add(1, SeqCst);
        Ok(())
    });
    let arrived = run(agenda(64, 8, 8), preparation(Arc::new(source), 8, 4), 1, move |filled| {
        // Nothing of the next batch is read before the slot is given back.
        assert_eq!(reads.load(SeqCst) as u64, 8 * (filled.work.step + 1));
    });
    assert_eq!(arrived.steps.len(), 8);
}

#[test]
fn a_device_that_goes_away_ends_all_reading() {
    for (workers, slots, taken) in [(1, 2, 0), (1, 5, 1), (2, 3, 2), (4, 8, 0), (4, 8, 5)] {
        let reads = Arc::new(AtomicUsize::new(0));
        let counter = reads.clone();
        let source = Hooked::new(1 << 20).on_read(move |_| {
            counter.fetch_add(1, SeqCst);
            std::thread::sleep(std::time::Duration::from_micros(20));
            Ok(())
        });
        let preparation = preparation(Arc::new(source), 64, workers);
        let work = agenda(1 << 20, 64, 10_000);
        let pipeline = Pipeline::start(
            ring(&preparation, slots),
            work.into_iter(),
            preparation,
            move |ends| {
                for _ in 0..taken {
                    let filled = receive(&ends.full).unwrap().unwrap();
                    let _ = ends.empty.send(filled.slot);
                }
            },
        );
        drop(pipeline.unwrap());
        // All threads are joined: nothing reads any more. At most the ring and what was taken were begun.
        let read = reads.load(SeqCst);
        assert!(read <= 64 * (slots + taken), "{read} reads");
        std::thread::sleep(std::time::Duration::from_millis(3));
        assert_eq!(reads.load(SeqCst), read);
    }
}
