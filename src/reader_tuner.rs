//! How many readers are at work, where nobody says: more are tried for as long as workers wait for reads and more
//! samples come of it. What comes out of the pipeline never depends on it, only when.

/// Share of the workers' time in reads above which more readers are tried: below it, all reads together cost no more
/// than a tenth.
const READ_SHARE: f64 = 0.1;

/// What a step must gain to be kept: above what one window differs from the next.
const GAIN: f64 = 1.05;

/// What was seen over a while.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Samples prepared a second.
    pub samples_per_s: f64,
    /// Share of the workers' time that reads took.
    pub read_share: f64,
}

/// Climbs from level to level, and stays where the next one gains nothing.
#[derive(Debug)]
pub(crate) struct ReaderTuner {
    /// Numbers of readers, in order.
    levels: Vec<usize>,
    level: usize,
    /// The rate before the last step, while it is on trial.
    before: Option<f64>,
    settled: bool,
}

impl ReaderTuner {
    /// Begins without readers, where the workers read themselves. Each level then doubles what a disk is asked for at
    /// the same time, up to `readers_max`.
    pub fn new(workers: usize, readers_max: usize) -> Self {
        let doubled = std::iter::successors(Some(2 * workers.max(1)), |n| Some(2 * n));
        let up_to_most = doubled.take_while(|&n| n <= readers_max);
        let levels = std::iter::once(0).chain(up_to_most).collect();
        Self { levels, level: 0, before: None, settled: false }
    }

    /// The number of readers from now on.
    pub fn next(&mut self, seen: Seen) -> usize {
        if !self.settled {
            match self.before.take() {
                Some(before) if seen.samples_per_s < GAIN * before => {
                    self.level -= 1;
                    self.settled = true;
                }
                _ if seen.read_share > READ_SHARE && self.level + 1 < self.levels.len() => {
                    self.before = Some(seen.samples_per_s);
                    self.level += 1;
                }
                _ => {}
            }
        }
        self.levels[self.level]
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
        Seen { samples_per_s, read_share: 1.0 - samples_per_s / decoded }
    }

    #[test]
    fn it_ends_within_a_tenth_of_the_best_level_and_stays() {
        for read_s in [0.00002, 0.0005, 0.005, 0.1] {
            for parallel in [1, 4, 100] {
                for decode_s in [0.0001, 0.002, 0.02] {
                    let at = |readers| machine(readers, read_s, parallel, decode_s, 2);
                    let mut tuner = ReaderTuner::new(2, 32);
                    let mut readers = 0;
                    let mut chosen = Vec::new();
                    for _ in 0..30 {
                        readers = tuner.next(at(readers));
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
        let mut tuner = ReaderTuner::new(1, 5);
        let slow = |i: u32| Seen { samples_per_s: f64::from(2u32.pow(i)), read_share: 0.9 };
        let found: Vec<usize> = (0..6).map(|i| tuner.next(slow(i))).collect();
        assert_eq!(found, [2, 4, 4, 4, 4, 4]);
    }
}
