//! The plan of what is to fail, and what has happened of it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use super::{At, FileOp, journal};
use crate::error::{Error, Result};

/// The variable in which the command line finds its plan.
const VARIABLE: &str = "INFLIGHT_FAULTS";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Full,
    Io,
    Unsynced,
    Kill,
    Open,
    Other,
    Memory,
    Lost,
    Hang,
    Nan,
    Panic,
    Corrupt,
}

const NAMES: [(&str, Fault); 12] = [
    ("full", Fault::Full),
    ("io", Fault::Io),
    ("unsynced", Fault::Unsynced),
    ("kill", Fault::Kill),
    ("open", Fault::Open),
    ("other", Fault::Other),
    ("memory", Fault::Memory),
    ("lost", Fault::Lost),
    ("hang", Fault::Hang),
    ("nan", Fault::Nan),
    ("panic", Fault::Panic),
    ("corrupt", Fault::Corrupt),
];

/// One fault of a plan.
#[derive(Clone, Copy, Debug)]
struct Planned {
    fault: Fault,
    at: u64,
    times: u64,
    /// How often it could have happened.
    seen: u64,
}

/// What is to fail.
#[derive(Debug, Default)]
struct Plan(Vec<Planned>);

static PLAN: Mutex<Plan> = Mutex::new(Plan(Vec::new()));
static ANY: AtomicBool = AtomicBool::new(false);
/// One armed test of a process at a time, since faults are the process's.
static TURN: Mutex<()> = Mutex::new(());

/// A plan that holds until this is dropped.
#[derive(Debug)]
pub struct Armed {
    _turn: MutexGuard<'static, ()>,
}

/// Arms a plan, in the words of [`faults`](super); waits until no other one is. An empty one keeps others out.
///
/// # Errors
/// When it is none.
pub fn arm(plan: &str) -> Result<Armed> {
    let plan = Plan::parse(plan)?;
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    set(plan);
    Ok(Armed { _turn: turn })
}

impl Drop for Armed {
    fn drop(&mut self) {
        set(Plan::default());
    }
}

fn set(planned: Plan) {
    // From here on the environment no longer counts.
    FROM_ENVIRONMENT.call_once(|| {});
    let mut plan = plan();
    ANY.store(!planned.0.is_empty(), Ordering::Relaxed);
    *plan = planned;
}

fn plan() -> MutexGuard<'static, Plan> {
    PLAN.lock().unwrap_or_else(PoisonError::into_inner)
}

static FROM_ENVIRONMENT: Once = Once::new();

/// Whether anything is planned at all.
pub(super) fn any() -> bool {
    FROM_ENVIRONMENT.call_once(|| {
        let text = std::env::var(VARIABLE).unwrap_or_default();
        let planned = Plan::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        ANY.store(!planned.0.is_empty(), Ordering::Relaxed);
        *plan() = planned;
    });
    ANY.load(Ordering::Relaxed)
}

impl Plan {
    fn parse(plan: &str) -> Result<Self> {
        let parse_one = |text: &str| {
            let (name, when) = text.split_once('@')?;
            let (at, times) = when.split_once('x').unwrap_or((when, "1"));
            let fault = NAMES.iter().find(|(known, _)| *known == name)?.1;
            Some(Planned { fault, at: at.parse().ok()?, times: times.parse().ok()?, seen: 0 })
        };
        let words = plan.split(',').map(str::trim).filter(|text| !text.is_empty());
        let planned = words.map(|text| {
            let message = format!("found {text:?}, expected NAME@N or NAME@NxTIMES");
            parse_one(text).ok_or_else(|| Error::config(VARIABLE, message))
        });
        Ok(Self(planned.collect::<Result<_>>()?))
    }

    /// Counts an occasion for `fault`; whether it happens.
    fn counted(&mut self, fault: Fault) -> bool {
        let mut happens = false;
        for planned in self.0.iter_mut().filter(|planned| planned.fault == fault) {
            planned.seen += 1;
            happens |= planned.seen >= planned.at && planned.seen < planned.at + planned.times;
        }
        happens
    }

    fn is_planned(&self, fault: Fault, index: usize) -> bool {
        self.0.iter().any(|planned| planned.fault == fault && planned.at == index as u64)
    }

    fn due(&mut self, at: At) -> bool {
        match at {
            At::Open => self.counted(Fault::Open),
            At::Other => self.counted(Fault::Other),
            At::Buffer => self.counted(Fault::Memory),
            At::Submission => self.counted(Fault::Lost),
            At::Hang => self.counted(Fault::Hang),
            At::Gradient(step) => {
                let planned = self.0.iter_mut().find(|planned| {
                    let is_its_turn = step >= planned.at && planned.seen < planned.times;
                    planned.fault == Fault::Nan && is_its_turn
                });
                planned.map(|planned| planned.seen += 1).is_some()
            }
            At::Transform(index) => self.is_planned(Fault::Panic, index),
            At::Sample(index) => self.is_planned(Fault::Corrupt, index),
        }
    }
}

pub(super) fn due(at: At) -> bool {
    any() && plan().due(at)
}

pub(super) fn file(op: FileOp<'_>) -> io::Result<()> {
    if any() {
        let is_sync = matches!(op, FileOp::SyncFile(_) | FileOp::SyncFolder(_));
        if plan().counted(Fault::Full) {
            half(op);
            // What the system says of a full disk.
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let fails = plan().counted(Fault::Io);
        if fails || (is_sync && plan().counted(Fault::Unsynced)) {
            half(op);
            return Err(io::Error::other("input/output error"));
        }
        if plan().counted(Fault::Kill) {
            half(op);
            kill();
        }
    }
    journal::enter(op);
    Ok(())
}

/// What is done of an operation in the middle of which the disk fails or the process ends.
fn half(op: FileOp<'_>) {
    match op {
        FileOp::Write(path, bytes) => {
            let _ = std::fs::write(path, &bytes[..bytes.len() / 2]);
        }
        // A folder goes file by file.
        FileOp::Remove(path) => {
            let first = std::fs::read_dir(path).ok().and_then(|mut entries| entries.next());
            if let Some(Ok(entry)) = first {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        _ => {}
    }
}

#[cfg(unix)]
fn kill() {
    // SAFETY: both calls take and return plain numbers.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

#[cfg(not(unix))]
fn kill() {
    std::process::abort();
}

/// Where a path lies below `folder`, for those who write such things down.
pub(super) fn below<'a>(path: &'a Path, folder: &Path) -> Option<&'a Path> {
    path.strip_prefix(folder).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_happens_when_it_says() {
        let mut plan = Plan::parse("lost@2x2, nan@5x2,corrupt@7").expect("a plan");
        let lost: Vec<bool> = (0..5).map(|_| plan.due(At::Submission)).collect();
        assert_eq!(lost, [false, true, true, false, false]);
        let nan: Vec<bool> = (3..8).map(|step| plan.due(At::Gradient(step))).collect();
        assert_eq!(nan, [false, false, true, true, false]);
        assert!(plan.due(At::Sample(7)) && plan.due(At::Sample(7)) && !plan.due(At::Sample(6)));
        assert!(!plan.due(At::Transform(7)) && !plan.due(At::Buffer));
        for wrong in ["lost", "lost@", "lots@1", "lost@1x", "lost@-1"] {
            assert!(Plan::parse(wrong).is_err(), "{wrong}");
        }
    }
}
