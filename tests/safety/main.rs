//! What must survive: runs of the real command line that are killed, stopped, cut off from their terminal, or meet a
//! fault that was planned (see `inflight::faults`), and what is left of their work. `docs/reliability.md` lists what
//! each of these is for.
#![cfg(unix)]

mod crash;
#[cfg(feature = "faults")]
mod device;
#[cfg(feature = "faults")]
mod disk;
#[cfg(feature = "faults")]
mod gradients;
#[path = "../common/program.rs"]
mod program;
#[cfg(feature = "faults")]
mod samples;
mod signals;
#[cfg(feature = "tui")]
mod terminal;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use inflight::train::checkpoint;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a small data set and the configuration of a run over it, and the command line in it.
struct Desk {
    dir: TempDir,
}

/// Samples of the training part, three classes of 6 x 6 pixels.
const SAMPLES: usize = 96;

/// A model with batch norm, so that more than parameters must come back; 12 steps an epoch.
const CONFIG: &str = "
dataset = 'idx'
batch_size = 8
device = 'cpu'
lr = 0.01
workers = 2
tune = 'off'
model.layers = [
    { type = 'conv2d', out = 3, kernel = 3 }, { type = 'batch_norm' }, { type = 'relu' }, { type = 'flatten' },
    { type = 'dropout', p = 0.1 }, { type = 'linear', out = 'classes' },
]
";

/// In memory where the system has a file system there: what is killed here are processes, not the system, and nothing
/// is to wait for a disk.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    tempfile::tempdir_in(place).expect("a temporary folder")
}

/// Whatever has a checkpoint's name is whole.
#[track_caller]
fn assert_whole(run: &Path, what: &str) {
    for listed in checkpoint::survey(run).expect("readable") {
        if let Err(error) = listed.verify() {
            panic!("{what}: a torn checkpoint has a name: {error}");
        }
    }
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: folder() };
        let idx = desk.path("idx");
        std::fs::create_dir(&idx).expect("a folder");
        for (name, count) in [("train", SAMPLES), ("t10k", 24)] {
            let mut rng = inflight::rng::Rng::keyed(&[count as u64]);
            let (mut images, mut labels) = (Vec::new(), Vec::new());
            for _ in 0..count {
                let class = rng.below(3) as u8;
                images.extend(
                    (0..36u8).map(|pixel| rng.below(90) as u8 + 80 * u8::from(pixel / 12 == class)),
                );
                labels.push(class);
            }
            let size = |n: usize| (n as u32).to_be_bytes();
            let images = [&[0, 0, 8, 3], &size(count)[..], &size(6), &size(6), &images].concat();
            let labels = [&[0, 0, 8, 1], &size(count)[..], &labels].concat();
            std::fs::write(idx.join(format!("{name}-images-idx3-ubyte")), images).expect("writes");
            std::fs::write(idx.join(format!("{name}-labels-idx1-ubyte")), labels).expect("writes");
        }
        std::fs::write(desk.path("run.toml"), CONFIG).expect("writes");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        program::command(self.dir.path(), line)
    }

    /// Runs a command line that may meet `faults`, to its end.
    #[track_caller]
    fn run(&self, line: &str, faults: &str, code: i32) -> Ended {
        let mut command = self.command(line);
        if !faults.is_empty() {
            command.env("INFLIGHT_FAULTS", faults);
        }
        let ended = Ended::of(command.output().expect("starts"));
        assert_eq!(ended.code, Some(code), "{line} with {faults:?}\n{ended:?}");
        ended
    }

    /// Trains a new run of this name, with events.
    #[track_caller]
    fn train(&self, out: &str, more: &str, faults: &str, code: i32) -> Ended {
        self.run(&format!("train run.toml --out {out} --json {more}"), faults, code)
    }

    fn checkpoints(&self, run: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(run).join("checkpoints"));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn has_no_leftovers(&self, run: &str) -> bool {
        self.checkpoints(run).iter().all(|name| !name.starts_with('.') && !name.ends_with(".old"))
    }
}

/// What a command left.
struct Ended {
    code: Option<i32>,
    events: Vec<Value>,
    stderr: String,
}

/// What a failed test shows of it.
impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} after {} events: {}", self.code, self.events.len(), self.stderr)
    }
}

impl Ended {
    fn of(output: Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let events = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), events, stderr }
    }

    fn all(&self, event: &str) -> Vec<&Value> {
        self.events.iter().filter(|value| value["event"] == event).collect()
    }

    #[track_caller]
    fn hash(&self) -> &str {
        let done = self.all("done");
        done.first().and_then(|done| done["parameter_hash"].as_str()).expect("the run ended")
    }

    /// The last line, which is the error.
    fn error(&self) -> &str {
        self.stderr.lines().last().unwrap_or_default()
    }
}

/// The loss of every step as it stands in a run's folder, in order: a run is the same only if these are.
#[track_caller]
fn losses(run: &Path) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        (value["step"].as_u64().expect("a step"), value["loss"].as_f64().expect("a loss").to_bits())
    };
    text.lines().map(line).collect()
}
