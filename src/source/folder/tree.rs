//! The names of many files in little memory: a million files take some 30 MB.

use std::ffi::{OsStr, OsString};
use std::fs::ReadDir;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::source::file::io_error;

/// How names of image files end, in small letters.
const EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp"];
/// Folders within folders at most, far more than anyone has; what is deeper leads back into itself in some way that
/// does not show.
const DEPTH_MAX: usize = 64;
/// Entries that are looked at to find out whether there is any image.
const LOOK_MAX: usize = 10_000;

/// Image files, ordered by class; within a folder by name, and before those of the folders in it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    folders: Vec<PathBuf>,
    /// The class of each folder.
    classes: Vec<u32>,
    /// The folder of each file.
    folder_of: Vec<u32>,
    /// Where the name of each file ends in `names`.
    ends: Vec<usize>,
    /// All names, one after the other, as the system encodes them.
    names: Vec<u8>,
}

impl Tree {
    /// All images in `root/CLASS` and below, for each of the `classes`; a class may have no folder.
    pub fn read(root: &Path, classes: &[String]) -> Result<Self> {
        let parts: Result<Vec<Self>> = classes
            .par_iter()
            .enumerate()
            .map(|(class, name)| {
                let mut part = Self::default();
                let folder = root.join(name);
                if folder.exists() {
                    part.walk(&folder, class as u32, &mut Vec::new())?;
                }
                Ok(part)
            })
            .collect();
        let mut all = Self::default();
        parts?.into_iter().for_each(|part| all.append(part));
        Ok(all)
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where a file lies.
    pub fn path(&self, index: usize) -> PathBuf {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let name = &self.names[start..self.ends[index]];
        // SAFETY: these are all bytes that `as_encoded_bytes` gave for one name, in this process.
        let name = unsafe { OsStr::from_encoded_bytes_unchecked(name) };
        self.folders[self.folder_of[index] as usize].join(name)
    }

    /// The class of a file.
    pub fn class(&self, index: usize) -> u32 {
        self.classes[self.folder_of[index] as usize]
    }

    /// Whether there is a file of a class.
    pub fn has_class(&self, class: u32) -> bool {
        self.classes.contains(&class)
    }

    fn append(&mut self, part: Self) {
        let (folders, names) = (self.folders.len() as u32, self.names.len());
        self.folders.extend(part.folders);
        self.classes.extend(part.classes);
        self.folder_of.extend(part.folder_of.iter().map(|folder| folder + folders));
        self.ends.extend(part.ends.iter().map(|end| end + names));
        self.names.extend(part.names);
    }

    /// Adds the images of a folder and then those of the folders in it. `above` are the folders that lead here.
    fn walk(&mut self, folder: &Path, class: u32, above: &mut Vec<Identity>) -> Result<()> {
        let identity = Identity::of(folder)?;
        if above.contains(&identity) || above.len() >= DEPTH_MAX {
            return Err(Error::data(
                folder.display(),
                "found a folder that leads back into itself, by a symbolic link",
            )
            .hint("removing the link"));
        }
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in read_dir(folder)? {
            let entry = entry.map_err(|e| io_error(folder, e))?;
            let name = entry.file_name();
            if is_hidden(&name) {
                continue;
            }
            let kind = entry.file_type().map_err(|e| io_error(&entry.path(), e))?;
            let (is_image, is_link) = (is_image_name(&name), kind.is_symlink());
            if kind.is_dir() || (is_link && entry.path().is_dir()) {
                folders.push(name);
            } else if is_image && (kind.is_file() || is_link) {
                files.push(name);
            }
        }
        files.sort_unstable();
        folders.sort_unstable();
        if !files.is_empty() {
            self.add(folder, class, &files)?;
        }
        drop(files);
        above.push(identity);
        for name in folders {
            self.walk(&folder.join(name), class, above)?;
        }
        above.pop();
        Ok(())
    }

    fn add(&mut self, folder: &Path, class: u32, files: &[OsString]) -> Result<()> {
        let index = u32::try_from(self.folders.len()).map_err(|e| {
            Error::data(folder.display(), "found more folders than can be counted").caused_by(e)
        })?;
        self.folders.push(folder.into());
        self.classes.push(class);
        for name in files {
            self.names.extend_from_slice(name.as_encoded_bytes());
            self.ends.push(self.names.len());
            self.folder_of.push(index);
        }
        Ok(())
    }
}

/// What tells a folder from all others, whatever path leads to it.
#[derive(PartialEq)]
struct Identity(#[cfg(unix)] (u64, u64), #[cfg(not(unix))] PathBuf);

impl Identity {
    #[cfg(unix)]
    fn of(folder: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(folder).map_err(|e| io_error(folder, e))?;
        Ok(Self((meta.dev(), meta.ino())))
    }

    #[cfg(not(unix))]
    fn of(folder: &Path) -> Result<Self> {
        Ok(Self(folder.canonicalize().map_err(|e| io_error(folder, e))?))
    }
}

fn read_dir(folder: &Path) -> Result<ReadDir> {
    std::fs::read_dir(folder).map_err(|e| io_error(folder, e))
}

/// Names that begin with a dot: what desktops and archives leave behind, some of it named like an image.
fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a file of this name should be an image. What it is, its content tells.
fn is_image_name(name: &OsStr) -> bool {
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    extension.is_some_and(|found| EXTENSIONS.iter().any(|e| found.eq_ignore_ascii_case(e)))
}

/// The names of the folders in a folder, in their order.
pub(in crate::source) fn subfolders(folder: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in read_dir(folder)? {
        let entry = entry.map_err(|e| io_error(folder, e))?;
        if !is_hidden(&entry.file_name()) && entry.path().is_dir() {
            names.push(entry.file_name());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether there is a file named like an image in a folder or below it, among the first ten thousand entries.
pub(in crate::source) fn has_images(folder: &Path) -> bool {
    let entries = walkdir::WalkDir::new(folder).follow_links(true).max_depth(DEPTH_MAX).into_iter();
    // What cannot be read is told when it is opened.
    let mut entries = entries.filter_map(std::result::Result::ok).take(LOOK_MAX);
    entries.any(|entry| {
        entry.file_type().is_file()
            && !is_hidden(entry.file_name())
            && is_image_name(entry.file_name())
    })
}
