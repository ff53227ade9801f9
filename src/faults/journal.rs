//! What was asked of the file system, written down, and what a power failure can leave of it.
//!
//! The model is the strictest that file systems keep to: what a file holds is certain once the file was synced, and a
//! name (new, renamed or removed) once its folder was. Everything else may have reached the disk or not: the changes of
//! the names in a folder each as a whole, whatever came of those before, and the bytes of a file up to any length.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::FileOp;
use super::armed::below;
use crate::rng::Rng;

/// An operation below a folder, with paths from there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Entry {
    CreateFolder(PathBuf),
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

static OPEN: Mutex<Vec<(PathBuf, Vec<Entry>)>> = Mutex::new(Vec::new());

/// Writes down what happens below a folder, until [`Journal::close`].
#[derive(Debug)]
pub struct Journal(PathBuf);

impl Journal {
    /// Begins.
    pub fn open(folder: &Path) -> Self {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.push((folder.into(), Vec::new()));
        Self(folder.into())
    }

    /// Everything since then, in order.
    pub fn close(self) -> Vec<Entry> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(folder, _)| *folder == self.0);
        at.map(|at| open.swap_remove(at).1).unwrap_or_default()
    }
}

/// Writes an operation down, where somebody wants that.
pub(super) fn enter(op: FileOp<'_>) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    for (folder, entries) in open.iter_mut() {
        let relative = |path| below(path, folder).map(Path::to_path_buf);
        let entry = match op {
            FileOp::CreateFolder(path) => relative(path).map(Entry::CreateFolder),
            FileOp::Create(path) => relative(path).map(Entry::Create),
            FileOp::Write(path, bytes) => relative(path).map(|p| Entry::Write(p, bytes.to_vec())),
            FileOp::SyncFile(path) => relative(path).map(Entry::SyncFile),
            FileOp::SyncFolder(path) => relative(path).map(Entry::SyncFolder),
            FileOp::Rename(from, to) => {
                relative(from).zip(relative(to)).map(|(from, to)| Entry::Rename(from, to))
            }
            FileOp::Remove(path) => relative(path).map(Entry::Remove),
        };
        entries.extend(entry);
    }
}

/// What of that which is not certain reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// All of it, as when a process is killed and the system goes on.
    All,
    /// Nothing of it.
    None,
    /// All names, and no bytes: files are there and empty.
    NamesOnly,
    /// As this seed draws: each change of a name or not, and bytes up to any length.
    Drawn(u64),
}

/// A file or a folder, apart from its name.
#[derive(Clone, Debug)]
enum Node {
    File { now: Vec<u8>, synced: Vec<u8> },
    Folder { now: Names, synced: Names, changes: Vec<Change> },
}

type Names = BTreeMap<std::ffi::OsString, usize>;

/// A change of the names in a folder: what goes, and what comes.
#[derive(Clone, Debug)]
struct Change {
    gone: Option<std::ffi::OsString>,
    new: Option<(std::ffi::OsString, usize)>,
}

impl Change {
    fn apply(&self, names: &mut Names) {
        self.gone.as_ref().map(|gone| names.remove(gone));
        names.extend(self.new.clone());
    }
}

fn empty_folder() -> Node {
    Node::Folder { now: Names::new(), synced: Names::new(), changes: Vec::new() }
}

/// A small file system that remembers what is certain.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: Vec<Node>,
}

impl Disk {
    /// With all that is in `folder`, and all of it certain.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(folder: &Path) -> std::io::Result<Self> {
        let mut disk = Self { nodes: vec![empty_folder()] };
        disk.take_in(0, folder)?;
        Ok(disk)
    }

    fn take_in(&mut self, at: usize, folder: &Path) -> std::io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let number = self.nodes.len();
            if entry.file_type()?.is_dir() {
                self.nodes.push(empty_folder());
                self.take_in(number, &entry.path())?;
            } else {
                let bytes = fs::read(entry.path())?;
                self.nodes.push(Node::File { now: bytes.clone(), synced: bytes });
            }
            if let Node::Folder { now, synced, .. } = &mut self.nodes[at] {
                now.insert(entry.file_name(), number);
                synced.insert(entry.file_name(), number);
            }
        }
        Ok(())
    }

    /// Does one operation.
    ///
    /// # Panics
    /// When it could not have succeeded: the journal lacks something.
    pub fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::CreateFolder(path) => self.add(path, empty_folder()),
            Entry::Create(path) => self.add(path, Node::File { now: vec![], synced: vec![] }),
            Entry::Write(path, bytes) => match self.node(path) {
                Node::File { now, .. } => now.extend_from_slice(bytes),
                Node::Folder { .. } => panic!("{} is a folder", path.display()),
            },
            Entry::SyncFile(path) => {
                if let Node::File { now, synced } = self.node(path) {
                    synced.clone_from(now);
                }
            }
            Entry::SyncFolder(path) => {
                if let Node::Folder { now, synced, changes } = self.node(path) {
                    synced.clone_from(now);
                    changes.clear();
                }
            }
            Entry::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "nothing moves to another folder");
                let new = Some((name(to).into(), self.number(from)));
                self.change(from, Change { gone: Some(name(from).into()), new });
            }
            Entry::Remove(path) => {
                if let Node::Folder { now, .. } = self.node(path) {
                    // A folder goes file by file.
                    let inside: Vec<PathBuf> = now.keys().map(|name| path.join(name)).collect();
                    inside.into_iter().for_each(|path| self.apply(&Entry::Remove(path)));
                }
                self.change(path, Change { gone: Some(name(path).into()), new: None });
            }
        }
    }

    fn add(&mut self, path: &Path, node: Node) {
        let number = self.nodes.len();
        self.nodes.push(node);
        self.change(path, Change { gone: None, new: Some((name(path).into(), number)) });
    }

    /// Changes the names of the folder that `path` lies in.
    fn change(&mut self, path: &Path, change: Change) {
        match self.node(path.parent().unwrap_or(Path::new(""))) {
            Node::Folder { now, changes, .. } => {
                change.apply(now);
                changes.push(change);
            }
            Node::File { .. } => panic!("{} lies in a file", path.display()),
        }
    }

    fn number(&self, path: &Path) -> usize {
        path.components().fold(0, |at, part| match &self.nodes[at] {
            Node::Folder { now, .. } => now[part.as_os_str()],
            Node::File { .. } => panic!("{} lies in a file", path.display()),
        })
    }

    fn node(&mut self, path: &Path) -> &mut Node {
        let number = self.number(path);
        &mut self.nodes[number]
    }

    /// Writes what a power failure now leaves into an empty folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn fail(&self, luck: Luck, into: &Path) -> std::io::Result<()> {
        let seed = if let Luck::Drawn(seed) = luck { seed } else { 0 };
        self.write(0, luck, &mut Rng::keyed(&[seed]), into)
    }

    fn write(&self, at: usize, luck: Luck, rng: &mut Rng, path: &Path) -> std::io::Result<()> {
        match &self.nodes[at] {
            Node::File { now, synced } => {
                let len = match luck {
                    Luck::All => now.len(),
                    Luck::None | Luck::NamesOnly => synced.len(),
                    Luck::Drawn(_) => {
                        synced.len() + rng.below((now.len() - synced.len()) as u64 + 1) as usize
                    }
                };
                fs::write(path, &now[..len])
            }
            Node::Folder { now, synced, changes } => {
                fs::create_dir_all(path)?;
                let mut names = synced.clone();
                match luck {
                    Luck::None => {}
                    Luck::All | Luck::NamesOnly => names.clone_from(now),
                    Luck::Drawn(_) => {
                        let lucky = changes.iter().filter(|_| rng.below(2) == 0);
                        lucky.for_each(|change| change.apply(&mut names));
                    }
                }
                names.iter().try_for_each(|(name, &n)| self.write(n, luck, rng, &path.join(name)))
            }
        }
    }
}

fn name(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}
