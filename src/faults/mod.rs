//! Faults on purpose, for tests: the one mechanism by which a full disk, a lost device, a NaN and their like come about
//! where they would in a real run. Without the feature `faults`, which no normal build has, nothing of it is compiled,
//! and every question below is answered with no.
//!
//! What is to fail is a plan, armed by a test or by `INFLIGHT_FAULTS` in the environment of the command line: faults
//! joined by commas, each `NAME@N`, and for some `NAME@NxTIMES`.
//!
//! | name | `N` counts from 1 | what happens, once or `TIMES` times |
//! |---|---|---|
//! | `full`, `io` | operations of `durable` | half of it is done, then the disk is full or fails |
//! | `unsynced` | syncs of files and folders | the sync fails |
//! | `kill` | operations of `durable` | the process is killed in the middle of it, as by SIGKILL |
//! | `open` | devices opened | it cannot be |
//! | `other` | devices opened | it is the twins, whatever was asked for |
//! | `memory` | buffers of a device | the device has no memory for it |
//! | `lost` | passes submitted | the device is lost |
//! | `hang` | passes submitted | it never comes back, and patience is short |
//! | `nan` | steps; from the `N`th on, for so many passes | the gradients of a run that accumulates are NaN |
//! | `panic` | the sample itself, always | a transform panics over it |
//! | `corrupt` | the sample itself, always | it cannot be decoded |

use std::io;
use std::path::Path;

#[cfg(feature = "faults")]
mod armed;
#[cfg(feature = "faults")]
pub mod journal;

#[cfg(feature = "faults")]
pub use armed::{Armed, arm};

/// What `durable` asks of the file system.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "faults"), expect(dead_code, reason = "nobody looks at it"))]
pub(crate) enum FileOp<'a> {
    CreateFolder(&'a Path),
    Create(&'a Path),
    Write(&'a Path, &'a [u8]),
    SyncFile(&'a Path),
    SyncFolder(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
}

/// Where something else than a file can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A device is about to be opened.
    Open,
    /// The same: are there only the twins?
    Other,
    /// A buffer is about to be made on a device.
    Buffer,
    /// A pass is about to be submitted: is the device lost?
    Submission,
    /// The same: does it hang?
    Hang,
    /// The gradients of this step, from 1.
    Gradient(u64),
    /// The transforms of this sample.
    Transform(usize),
    /// Decoding this sample.
    Sample(usize),
}

/// Whether the fault is due.
#[inline]
pub(crate) fn due(at: At) -> bool {
    #[cfg(feature = "faults")]
    return armed::due(at);
    #[cfg(not(feature = "faults"))]
    {
        let _ = at;
        false
    }
}

/// Whether anything is to fail in this process.
pub(crate) fn planned() -> bool {
    #[cfg(feature = "faults")]
    return armed::any();
    #[cfg(not(feature = "faults"))]
    false
}

/// Asked before every operation on a file: fails instead of it, if that is planned.
#[inline]
pub(crate) fn file(op: FileOp<'_>) -> io::Result<()> {
    #[cfg(feature = "faults")]
    return armed::file(op);
    #[cfg(not(feature = "faults"))]
    {
        let _ = op;
        Ok(())
    }
}
