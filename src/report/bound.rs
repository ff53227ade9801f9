//! The model of a pipeline's bound: what each stage would take alone, which of them is the slowest, and what the run would
//! take without one of them.
//!
//! Readers (`disk`), the workers (`disk` where nobody reads ahead, `decode`, `augment` and `upload`, one after the other
//! for each sample), the device thread
//! (`launch`) and the device (`upload`, where it copies slots, and `gpu`) overlap, so a run cannot take less than the
//! slowest of them alone. Where they share the same cores (the CPU twins, a software adapter) they cannot overlap beyond
//! those either: all the processor time of the run, divided by the cores, is another bound. Time that a stage sleeps or
//! waits for a disk takes no core, and so is not in that bound; time that a stage waits for a core is in its own times,
//! and is taken out of them.

use super::verdict::StageTimes;

/// What the workers do, in the order in which they do it.
pub(super) const PARTS: [&str; 4] = ["disk", "decode", "augment", "upload"];
const DISK: usize = 0;
const UPLOAD: usize = 3;

/// Share of the run that the device must have starved for the workers to be what it waited for. Then the time in which
/// batches were under way is what preparation takes; else it is at most that, since a full ring keeps workers waiting.
const STARVED_MIN: f64 = 0.2;

/// Share of the cores' time above which stages wait for a core.
const SATURATED: f64 = 0.8;

/// Share of the processor time that preparation and device each must take for the cores to be named, and not one of them.
const SHARING: f64 = 0.2;

/// How much beyond the slowest stage the cores must be the bound to be named before it.
const BEYOND: f64 = 1.1;

/// Seconds below which a quotient would be noise.
pub(super) const LEAST_S: f64 = 1e-6;

/// What each stage takes alone, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The workers, all together, by what they do.
    parts_s: [f64; 4],
    /// Those who read ahead of them, all together.
    readers_s: f64,
    launch_s: f64,
    /// The device's copies of slots, and its computing: one after the other.
    copy_s: f64,
    gpu_s: f64,
    /// Processor time by the cores, where all stages share these.
    cores_s: f64,
    /// Of that, the parts of preparation, and the device.
    parts_cores_s: [f64; 4],
    gpu_cores_s: f64,
    /// Whether cores are shared and both sides take a good deal of them.
    sharing: bool,
}

impl Bounds {
    pub fn new(times: &StageTimes) -> Self {
        let mut threads_s = [times.disk_s, times.decode_s, times.augment_s, times.upload_s];
        let shared = times.shared_cores && times.cores > 0;
        let cores = times.cores.max(1) as f64;
        let cores_s = if shared { times.processor_s / cores } else { 0.0 };
        let starved = times.starved_s > STARVED_MIN * times.wall_s;
        let saturated = shared && cores_s > SATURATED * times.wall_s;
        let computing_s: f64 = threads_s[DISK + 1..].iter().sum();
        if saturated && !starved && times.prepare_cpu_s > 0.0 {
            // The rest of it was spent waiting for a core.
            let share = (times.prepare_cpu_s / computing_s.max(LEAST_S)).min(1.0);
            threads_s[DISK + 1..].iter_mut().for_each(|s| *s *= share);
        }
        let sum_s: f64 = threads_s.iter().sum();
        let alone_s = sum_s / times.workers.max(1) as f64;
        let prepare_s =
            if starved { times.prepare_busy_s } else { times.prepare_busy_s.min(alone_s) };
        let parts_s = threads_s.map(|s| prepare_s * s / sum_s.max(LEAST_S));
        let parts_cores_s = match shared {
            true => cores_of_parts(times, cores),
            false => [0.0; 4],
        };
        let gpu_cores_s = (cores_s - parts_cores_s.iter().sum::<f64>()).max(0.0);
        let sharing = saturated
            && times.prepare_cpu_s > 0.0
            && gpu_cores_s.min(cores_s - gpu_cores_s) > SHARING * cores_s;
        Self {
            parts_s,
            readers_s: times.readers_busy_s / times.readers.max(1) as f64,
            launch_s: times.launch_s,
            copy_s: times.copy_s,
            gpu_s: times.device_busy_s,
            cores_s,
            parts_cores_s,
            gpu_cores_s,
            sharing,
        }
    }

    fn prepare_s(&self) -> f64 {
        self.parts_s.iter().sum()
    }

    /// The slowest stage alone, in seconds.
    pub fn slowest_s(&self) -> f64 {
        let prepare_s = self.prepare_s().max(self.readers_s);
        let stages = [prepare_s, self.launch_s, self.copy_s + self.gpu_s, self.cores_s];
        stages.into_iter().fold(0.0, f64::max)
    }

    /// Its name. A stage by name goes before the cores that it shares, since it can be changed.
    pub fn slowest(&self) -> &'static str {
        let device_s = self.copy_s + self.gpu_s;
        let named_s = device_s.max(self.launch_s).max(self.prepare_s()).max(self.readers_s);
        if self.sharing || self.cores_s > BEYOND * named_s {
            return "cores";
        }
        if named_s == device_s {
            return if self.copy_s > self.gpu_s { "upload" } else { "gpu" };
        }
        if named_s == self.launch_s {
            return "launch";
        }
        if named_s == self.readers_s {
            return PARTS[DISK];
        }
        let (mut slowest, mut most_s) = (PARTS[0], self.parts_s[0]);
        for (name, s) in PARTS.into_iter().zip(self.parts_s) {
            if s > most_s {
                (slowest, most_s) = (name, s);
            }
        }
        slowest
    }

    /// As they would be if `stage` took `share` of its time.
    pub fn with(mut self, stage: &str, share: f64) -> Self {
        let saved = 1.0 - share;
        match stage {
            "gpu" => {
                self.gpu_s *= share;
                self.cores_s -= saved * self.gpu_cores_s;
            }
            "launch" => self.launch_s *= share,
            // On a device of its own.
            "cores" => self.cores_s = 0.0,
            _ => {}
        }
        if stage == PARTS[UPLOAD] {
            self.copy_s *= share;
        }
        if stage == PARTS[DISK] {
            self.readers_s *= share;
        }
        if let Some(part) = PARTS.iter().position(|&name| name == stage) {
            self.parts_s[part] *= share;
            self.cores_s -= saved * self.parts_cores_s[part];
            if self.sharing && self.cores_s > 0.0 {
                // The device gets the cores that are free now.
                let had = self.gpu_cores_s / (self.cores_s + saved * self.parts_cores_s[part]);
                let has = self.gpu_cores_s / self.cores_s;
                self.gpu_s *= had / has.max(had);
            }
        }
        self
    }

    /// As they would be if reading, which takes `all_s` in one thread, were left to so many readers.
    pub fn with_readers(mut self, all_s: f64, readers: usize) -> Self {
        self.parts_s[DISK] = 0.0;
        self.readers_s = all_s / readers.max(1) as f64;
        self
    }

    /// As they would be if preparation took `share` of its time.
    pub fn with_prepare(mut self, share: f64) -> Self {
        self.parts_s.iter_mut().for_each(|s| *s *= share);
        self
    }
}

/// What the parts of preparation take of the cores' time.
fn cores_of_parts(times: &StageTimes, cores: f64) -> [f64; 4] {
    let computing = [0.0, times.decode_s, times.augment_s, times.upload_s];
    let sum_s: f64 = computing.iter().sum();
    let all_s = match times.prepare_cpu_s {
        // Not known: as if these did nothing but compute.
        0.0 => sum_s.min(times.processor_s),
        known_s => known_s.min(times.processor_s),
    };
    computing.map(|s| all_s * s / sum_s.max(LEAST_S) / cores)
}
