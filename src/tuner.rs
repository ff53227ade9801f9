//! How many readers, slots and workers are at work, where nobody says: one number at a time is tried for as long as
//! what it is for shows, and kept if more samples come of it. What comes out of the pipeline never depends on any of
//! them, only when.

/// Share of the workers' time in reads above which more readers are tried: below it, all reads together cost no more
/// than a tenth.
const READ_SHARE: f64 = 0.1;

/// Share of the time that the device and the preparation must both have waited for each other: a longer ring evens
/// out how they alternate, and does nothing where one of them is always the slower.
const WAIT_SHARE: f64 = 0.05;

/// Share of the time that preparation must have waited for a slot before it is tried with fewer workers: they gain
/// nothing but by leaving cores to a device that computes on the same ones.
const IDLE_SHARE: f64 = 0.5;

/// Share of the time without a batch above which all workers come back.
const STARVED_SHARE: f64 = 0.1;

/// Slots in play at first: one being filled, one queued, one computing.
pub(crate) const SLOTS_FIRST: usize = 3;

/// What a step must gain to be kept: above what one window differs from the next.
const GAIN: f64 = 1.05;

/// How often a step may gain nothing before it is not tried again: now and then a window is disturbed.
const TRIES: u32 = 2;

/// How many are at work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Threads that read ahead.
    pub readers: usize,
    /// Slots in play.
    pub slots: usize,
    /// Threads that decode, transform and write into slots.
    pub workers: usize,
}

/// Which numbers are to be found, and the most that there can be of each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Free {
    /// Readers, where their number is not given.
    pub readers: Option<usize>,
    /// As `readers`.
    pub slots: Option<usize>,
    /// As `readers`.
    pub workers: Option<usize>,
}

/// What was seen over a while.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Samples prepared a second.
    pub samples_per_s: f64,
    /// Share of the workers' time that reads took.
    pub read_share: f64,
    /// Share of the time that the device had nothing to do for want of a full slot.
    pub starved: f64,
    /// Share of the time that no batch was prepared for want of an empty slot.
    pub idle: f64,
}

/// One of the numbers: the levels it is tried at, in order.
#[derive(Debug)]
struct Climb {
    levels: Vec<usize>,
    at: usize,
    /// How often the next level has gained nothing.
    refused: u32,
}

/// Climbs from level to level, and stays where the next one, tried twice, gains nothing.
#[derive(Debug)]
pub(crate) struct Tuner {
    /// Readers, slots, workers.
    climbs: [Climb; 3],
    /// The one that was changed last, and the rate before, while the change is on trial.
    trial: Option<(usize, f64)>,
}

const READERS: usize = 0;
const SLOTS: usize = 1;
const WORKERS: usize = 2;

impl Climb {
    fn new(levels: Vec<usize>) -> Self {
        Self { levels, at: 0, refused: 0 }
    }

    fn now(&self) -> usize {
        self.levels[self.at]
    }

    fn can_climb(&self) -> bool {
        self.refused < TRIES && self.at + 1 < self.levels.len()
    }
}

impl Tuner {
    /// Begins with `given`, and where a number is free without readers (the workers read themselves), with three
    /// slots, and with all workers. Each level then doubles what a disk is asked for at the same time, lengthens the
    /// ring by a slot, and halves the workers.
    pub fn new(given: Sizes, free: Free) -> Self {
        let readers = match free.readers {
            Some(most) => {
                let doubled =
                    std::iter::successors(Some(2 * given.workers.max(1)), |n| Some(2 * n));
                std::iter::once(0).chain(doubled.take_while(|&n| n <= most)).collect()
            }
            None => vec![given.readers],
        };
        let slots = match free.slots {
            Some(most) => (SLOTS_FIRST.min(most)..=most).collect(),
            None => vec![given.slots],
        };
        let workers = match free.workers {
            Some(most) => {
                std::iter::successors(Some(most), |&n| (n > 1).then_some(n / 2)).collect()
            }
            None => vec![given.workers],
        };
        Self { climbs: [readers, slots, workers].map(Climb::new), trial: None }
    }

    /// The numbers now.
    pub fn sizes(&self) -> Sizes {
        let [readers, slots, workers] = [READERS, SLOTS, WORKERS].map(|i| self.climbs[i].now());
        Sizes { readers, slots, workers }
    }

    /// The numbers from now on.
    pub fn next(&mut self, seen: Seen) -> Sizes {
        let gained = |before: f64| seen.samples_per_s >= GAIN * before;
        if let Some((i, before)) = self.trial.take() {
            if !gained(before) {
                self.climbs[i].at -= 1;
                self.climbs[i].refused += 1;
                return self.sizes();
            }
            self.climbs[i].refused = 0;
        }
        let workers = &mut self.climbs[WORKERS];
        if workers.at > 0 && seen.starved > STARVED_SHARE {
            (workers.at, workers.refused) = (0, TRIES);
            return self.sizes();
        }
        let wanted = [
            seen.read_share > READ_SHARE,
            seen.starved > WAIT_SHARE && seen.idle > WAIT_SHARE,
            seen.idle > IDLE_SHARE,
        ];
        let next = (0..wanted.len()).find(|&i| wanted[i] && self.climbs[i].can_climb());
        if let Some(i) = next {
            self.climbs[i].at += 1;
            self.trial = Some((i, seen.samples_per_s));
        }
        self.sizes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine gives where a read takes `read_s`, of which `parallel` are answered at a time, and `workers`
    /// take `decode_s` a sample.
    fn machine(
        readers: usize,
        read_s: f64,
        parallel: usize,
        decode_s: f64,
        workers: usize,
    ) -> Seen {
        let decoded = workers as f64 / decode_s;
        let answered = |readers: usize| readers.min(parallel) as f64 / read_s;
        let samples_per_s = match readers {
            0 => (workers as f64 / (read_s + decode_s)).min(answered(workers)),
            _ => decoded.min(answered(readers)),
        };
        Seen { samples_per_s, read_share: 1.0 - samples_per_s / decoded, ..Default::default() }
    }

    const GIVEN: Sizes = Sizes { readers: 0, slots: 3, workers: 2 };

    #[test]
    fn readers_end_within_a_tenth_of_the_best_level_and_stay() {
        for read_s in [0.00002, 0.0005, 0.005, 0.1] {
            for parallel in [1, 4, 100] {
                for decode_s in [0.0001, 0.002, 0.02] {
                    let at = |readers| machine(readers, read_s, parallel, decode_s, 2);
                    let free = Free { readers: Some(32), ..Default::default() };
                    let mut tuner = Tuner::new(GIVEN, free);
                    let mut readers = 0;
                    let mut chosen = Vec::new();
                    for _ in 0..30 {
                        readers = tuner.next(at(readers)).readers;
                        chosen.push(readers);
                    }
                    let best = (0..=32).map(|n| at(n).samples_per_s).fold(0.0, f64::max);
                    let found = at(readers).samples_per_s;
                    let case =
                        format!("read {read_s} of {parallel}, decode {decode_s}: {chosen:?}");
                    assert!(found > 0.9 * best, "{found} of {best}, {case}");
                    assert!(chosen[10..].iter().all(|&n| n == readers), "{case}");
                }
            }
        }
    }

    #[test]
    fn it_stays_within_what_there_is() {
        let given = Sizes { workers: 1, ..GIVEN };
        let free = Free { readers: Some(5), slots: Some(4), workers: None };
        let mut tuner = Tuner::new(given, free);
        let slow = |i: u32| Seen {
            samples_per_s: f64::from(2u32.pow(i)),
            read_share: 0.9,
            starved: 0.3,
            idle: 0.6,
        };
        let found: Vec<Sizes> = (0..6).map(|i| tuner.next(slow(i))).collect();
        assert_eq!(found.iter().map(|sizes| sizes.readers).collect::<Vec<_>>(), [2, 4, 4, 4, 4, 4]);
        assert_eq!(found.iter().map(|sizes| sizes.slots).collect::<Vec<_>>(), [3, 3, 4, 4, 4, 4]);
        assert!(found.iter().all(|sizes| sizes.workers == 1), "{found:?}");
    }

    #[test]
    fn a_longer_ring_is_kept_only_where_it_gains() {
        let free = Free { slots: Some(6), ..Default::default() };
        let alternating =
            |samples_per_s| Seen { samples_per_s, starved: 0.2, idle: 0.2, ..Default::default() };
        let mut tuner = Tuner::new(GIVEN, free);
        let rates = [100.0, 120.0, 121.0, 120.0, 121.0, 120.0, 200.0];
        let found = rates.map(|rate| tuner.next(alternating(rate)).slots);
        assert_eq!(found, [4, 5, 4, 5, 4, 4, 4]);
        let mut tuner = Tuner::new(GIVEN, free);
        let device_bound = Seen { starved: 0.0, idle: 0.9, ..alternating(100.0) };
        assert_eq!(tuner.next(device_bound).slots, 3);
    }

    #[test]
    fn a_disturbed_window_decides_nothing() {
        let free = Free { readers: Some(32), ..Default::default() };
        let slow = |samples_per_s| Seen { samples_per_s, read_share: 0.8, ..Default::default() };
        let mut tuner = Tuner::new(GIVEN, free);
        // The first window with readers has something else at work beside it, and one after they were kept, too.
        let rates = [100.0, 60.0, 100.0, 200.0, 150.0, 200.0, 380.0, 380.0, 380.0];
        let found = rates.map(|rate| tuner.next(slow(rate)).readers);
        assert_eq!(found, [4, 0, 4, 8, 4, 8, 16, 8, 16]);
    }

    #[test]
    fn workers_leave_cores_to_the_device_until_it_starves() {
        let free = Free { workers: Some(8), ..Default::default() };
        let idle = |samples_per_s| Seen { samples_per_s, idle: 0.8, ..Default::default() };
        let mut tuner = Tuner::new(Sizes { workers: 8, ..GIVEN }, free);
        let found = [100.0, 110.0, 130.0, 130.0].map(|rate| tuner.next(idle(rate)).workers);
        assert_eq!(found, [4, 2, 1, 2]);
        let starved = Seen { samples_per_s: 90.0, starved: 0.3, ..Default::default() };
        assert_eq!(tuner.next(starved).workers, 8);
        assert_eq!(tuner.next(idle(130.0)).workers, 8, "it was tried once");
    }

    #[test]
    fn a_rate_that_is_no_number_keeps_nothing() {
        let free = Free { workers: Some(8), ..Default::default() };
        let mut tuner = Tuner::new(Sizes { workers: 8, ..GIVEN }, free);
        let idle = |samples_per_s| Seen { samples_per_s, idle: 0.8, ..Default::default() };
        assert_eq!([100.0, f64::NAN].map(|rate| tuner.next(idle(rate)).workers), [4, 8]);
    }
}
