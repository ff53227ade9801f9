//! `quarantine.jsonl`: a line for every bad sample of a run.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::pipeline::Split;

/// Its name in the folder of a run.
pub const LEDGER_FILE: &str = "quarantine.jsonl";

/// A bad sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Always `quarantine`.
    pub event: String,
    /// The part that it is of.
    pub split: Split,
    /// Its number there, from 0.
    pub sample: usize,
    /// Where it is from.
    pub origin: String,
    /// Why it is bad.
    pub reason: String,
    /// The epoch in which it was met first, from 0.
    pub epoch: u64,
    /// Steps completed before the one that met it.
    pub step: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Opens the ledger in the folder of a run, with what it holds if the run goes on; else it begins empty. A line
    /// that a crash has torn is cut off.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(run_dir: &Path, goes_on: bool) -> Result<(Self, Vec<Entry>)> {
        let path = run_dir.join(LEDGER_FILE);
        let failed = |e| unwritable(&path, e);
        std::fs::create_dir_all(run_dir).map_err(failed)?;
        let options = OpenOptions::new().read(true).append(true).create(true).clone();
        let file = options.open(&path).map_err(failed)?;
        let (mut entries, mut kept_bytes) = (Vec::new(), 0);
        if goes_on {
            let mut lines = BufReader::new(&file);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).map_err(failed)? > 0 {
                let whole = line.strip_suffix(b"\n").and_then(|l| serde_json::from_slice(l).ok());
                let Some(entry) = whole else { break };
                entries.push(entry);
                kept_bytes += line.len() as u64;
                line.clear();
            }
        }
        file.set_len(kept_bytes).map_err(failed)?;
        Ok((Self { path, file }, entries))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds entries, at once.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn add(&mut self, entries: &[Entry]) -> Result<()> {
        let failed = |e| unwritable(&self.path, e);
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry).map_err(|e| failed(e.into()))?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).map_err(|e| unwritable(&self.path, e))
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Stage::Checkpoint, ErrorKind::Checkpoint, path.display(), "cannot be written")
        .hint("another --out, or more room on the disk")
        .caused_by(error)
}
