//! Image files that a table lists by their paths.

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::block::{Block, Table};
use super::images::Files;
use crate::error::{Error, Result};
use crate::source::blob::Stamp;

/// Bytes of an image file at most: far above any photograph, below what would fill the memory of a worker.
const FILE_BYTES_MAX: u64 = 1 << 29;

/// The files that the first column of a table names.
pub(crate) struct ListedFiles {
    list: PathBuf,
    root: PathBuf,
    /// All paths, one after the other, and where each ends.
    paths: String,
    ends: Vec<usize>,
    /// How each file was when it was first read, from which on it must not change.
    stamps: Vec<OnceLock<Stamp>>,
}

impl ListedFiles {
    /// The files of `table`, below `root`.
    ///
    /// # Errors
    /// When a row has no path, or one that leads out of `root`, or the first file is not there.
    pub fn new(table: &Table, root: PathBuf) -> Result<Self> {
        let (mut paths, mut ends) = (String::new(), Vec::with_capacity(table.rows()));
        for number in 0..table.blocks() {
            let block: &Block = &*table.block(number)?;
            for code in block.codes(0) {
                let cell = || table.cell(ends.len(), 0);
                let path = block.text(0, code).ok_or_else(|| {
                    Error::data(cell(), "found no path, expected one in every row")
                })?;
                let inside = inside(&root, path).ok_or_else(|| {
                    let message = format!("found {path:?}, which leads out of {}", root.display());
                    Error::data(cell(), message)
                        .hint("--image-root with a folder that holds all files")
                })?;
                paths.push_str(inside);
                ends.push(paths.len());
            }
        }
        paths.shrink_to_fit();
        let mut stamps = Vec::new();
        stamps.resize_with(ends.len(), OnceLock::new);
        let listed = Self { list: table.path.clone(), root, paths, ends, stamps };
        // Paths that are relative to another folder are told at once, not by the first batch.
        if let (Err(e), true) = (Stamp::look(&listed.path(0)), listed.len() > 0) {
            return Err(e
                .within(table.cell(0, 0))
                .hint("--image-root with the folder that paths are relative to"));
        }
        Ok(listed)
    }

    fn path(&self, row: usize) -> PathBuf {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.root.join(&self.paths[start..self.ends[row]])
    }
}

/// The path below `root`, unless it leads out of it by what it says. What links do is the business of who made them.
fn inside<'a>(root: &Path, path: &'a str) -> Option<&'a str> {
    let path = match Path::new(path).strip_prefix(root) {
        Ok(below) if Path::new(path).is_absolute() => below.to_str()?,
        _ => path,
    };
    let mut depth = 0usize;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth = depth.checked_sub(1)?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (depth > 0).then_some(path)
}

impl Files for ListedFiles {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn origin(&self, index: usize) -> String {
        format!("{} row {} ({})", self.list.display(), index + 1, self.path(index).display())
    }

    fn file_of(&self, index: usize) -> (PathBuf, u64) {
        (self.path(index), 0)
    }

    fn read(&self, index: usize, into: &mut Vec<u8>) -> Result<()> {
        let path = self.path(index);
        let stamp = match self.stamps[index].get() {
            Some(stamp) => stamp,
            None => {
                let found = Stamp::look(&path)?;
                if found.len() > FILE_BYTES_MAX {
                    let message = format!(
                        "found {} bytes, expected an image of at most {FILE_BYTES_MAX}",
                        found.len()
                    );
                    return Err(Error::data(path.display(), message));
                }
                self.stamps[index].get_or_init(|| found)
            }
        };
        stamp.read(&path, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_their_folder() {
        let root = Path::new("/data/set");
        let inside = |path| inside(root, path);
        assert_eq!(inside("a/b.png"), Some("a/b.png"));
        assert_eq!(inside("./a/../b.png"), Some("./a/../b.png"));
        assert_eq!(inside("/data/set/a.png"), Some("a.png"));
        for out in [
            "../a.png",
            "a/../../b.png",
            "/etc/passwd",
            "/data/setting/a.png",
            ".",
            "/data/set/../a.png",
        ] {
            assert_eq!(inside(out), None, "{out}");
        }
    }
}
