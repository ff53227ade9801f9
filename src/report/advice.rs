//! The one flag to change, and what would come of it.

use serde::{Deserialize, Serialize};

use super::bound::{Bounds, LEAST_S};
use super::verdict::StageTimes;
use crate::source::supply::READERS_MAX;

/// What to change on the command line of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The flag, as `--workers`.
    pub flag: String,
    /// Its value, where there is one to try.
    pub value: Option<String>,
    /// Why, in words.
    pub why: String,
    /// Samples a second with it, by those without: predicted, where the model can tell.
    pub speedup: Option<f64>,
}

impl Change {
    /// `--workers 4: decode holds the device up, and 2 of 4 cores prepare`.
    pub fn words(&self) -> String {
        format!("{}: {}", self.on_command_line(), self.why)
    }

    /// `--workers 4`.
    pub fn on_command_line(&self) -> String {
        let value = self.value.as_ref().map(|value| format!(" {value}")).unwrap_or_default();
        format!("{}{value}", self.flag)
    }

    fn new(flag: &str, value: Option<String>, why: impl Into<String>) -> Self {
        Self { flag: flag.into(), value, why: why.into(), speedup: None }
    }

    fn to(flag: &str, value: impl ToString, why: impl Into<String>) -> Self {
        Self::new(flag, Some(value.to_string()), why)
    }

    fn predicted(self, speedup: f64) -> Self {
        Self { speedup: Some(speedup), ..self }
    }
}

/// What can be said about a run: its times, the model over them, and how fast it would be if that were another one.
pub(super) struct Case<'a> {
    pub times: &'a StageTimes,
    pub bounds: &'a Bounds,
    /// The loop without the time that stages waited for each other.
    pub ideal_s: f64,
}

impl Case<'_> {
    /// How much faster the run would be under other bounds, where what is lost between stages stays as it is.
    pub fn speedup(&self, bounds: &Bounds) -> f64 {
        let lost_s = self.times.wall_s - self.ideal_s;
        (self.times.wall_s / (bounds.slowest_s() + lost_s).max(LEAST_S)).max(1.0)
    }

    /// As if all stages overlapped as they should.
    pub fn speedup_of_overlap(&self) -> f64 {
        (self.times.wall_s / self.ideal_s.max(LEAST_S)).max(1.0)
    }

    /// As if so many of the seconds before the loop were not there.
    pub fn speedup_of_start(&self, saved_s: f64) -> f64 {
        let all_s = self.times.compile_s + self.times.wall_s;
        all_s / (all_s - saved_s).max(LEAST_S)
    }

    /// The change to make for this bottleneck.
    pub fn change(&self, bottleneck: &str) -> Change {
        let times = self.times;
        match bottleneck {
            "compile" => self.start_sooner(),
            "overlap" if times.slots == 1 => {
                let why = "without it every stage waits for the one before";
                Change::new("--sync=false", None, why).predicted(self.speedup_of_overlap())
            }
            "overlap" => Change::to(
                "--slots",
                2 * times.slots,
                "no stage is always busy, and a longer ring evens out how they alternate",
            )
            .predicted(self.speedup_of_overlap()),
            "launch" => Change::to(
                "--batch-size",
                2 * times.settings.batch_size.max(1),
                "recording a step takes longer than computing it",
            )
            .predicted(self.speedup(&self.bounds.with("launch", 0.5))),
            "gpu" => self.compute_less(),
            "cores" => Change::new(
                "--device",
                None,
                "a GPU; preparing and computing share the cores, and these are always busy",
            ),
            "upload" if times.copy_s > times.upload_s => Change::new(
                "--image-size",
                None,
                "smaller samples; copying them up takes longer than computing on them",
            ),
            "disk" => self.read_faster(),
            stage => self.prepare_faster(stage),
        }
    }

    fn start_sooner(&self) -> Change {
        let times = self.times;
        if times.tune_s > 0.5 * times.compile_s {
            return Change::to("--tune", "off", "choosing kernels took longer than training")
                .predicted(self.speedup_of_start(times.tune_s));
        }
        let why = "opening the device and compiling took longer than training, once a run";
        Change::new("--epochs", None, why)
    }

    fn compute_less(&self) -> Change {
        if self.times.shared_cores {
            let why = "a GPU; the processor computes all the time, and preparation keeps up";
            return Change::new("--device", None, why);
        }
        if self.times.settings.could_use_half {
            let why = "it computes all the time, and 16-bit floats take half of its memory traffic";
            return Change::to("--precision", "f16", why);
        }
        let why = "a faster one; it computes all the time, and everything else keeps up";
        Change::new("--device", None, why)
    }

    fn read_faster(&self) -> Change {
        let (times, settings) = (self.times, self.times.settings);
        let reading = match times.readers {
            0 => times.workers.max(1),
            readers => readers,
        };
        if settings.readers_given && reading < READERS_MAX {
            let readers = (4 * reading).min(READERS_MAX);
            let all_s = if times.readers > 0 { times.readers_busy_s } else { times.disk_s };
            return Change::to("--readers", readers, "reads wait for the disk or the network")
                .predicted(self.speedup(&self.bounds.with_readers(all_s, readers)));
        }
        if settings.could_cache {
            let why = "every epoch reads all samples again, and the device waits for it";
            let mut kept = self.bounds.with("disk", 0.0);
            if settings.images {
                kept = kept.with("decode", 0.0);
            }
            return Change::to("--cache", "ram", why).predicted(self.speedup(&kept));
        }
        let why = "on a faster disk, or as shards (inflight convert); reads hold the device up";
        Change::new("DATASET", None, why)
    }

    fn prepare_faster(&self, stage: &str) -> Change {
        let (times, settings) = (self.times, self.times.settings);
        if times.workers < times.cores {
            let why = format!(
                "{stage} holds the device up, and {} of {} cores prepare",
                times.workers, times.cores
            );
            let share = times.workers.max(1) as f64 / times.cores as f64;
            return Change::to("--workers", times.cores, why)
                .predicted(self.speedup(&self.bounds.with_prepare(share)));
        }
        if stage == "decode" && settings.images && settings.could_cache {
            let kept = self.bounds.with("disk", 0.0).with("decode", 0.0);
            let why = "every epoch decodes all images again, and the device waits for it";
            return Change::to("--cache", "ram", why).predicted(self.speedup(&kept));
        }
        if stage == "augment" {
            if settings.could_frame {
                let why = "transforms hold the device up, and it can do the last of them itself";
                return Change::to("--augment", "device", why);
            }
            let why = "fewer or cheaper ones; they hold the device up on all cores";
            return Change::new("--transforms", None, why);
        }
        Change::new(
            "--workers",
            None,
            format!("more than {}; {stage} holds the device up", times.workers),
        )
    }
}
