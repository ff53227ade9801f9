//! Data sets in all formats: what a good one gives, and what each bad one says.

mod arrays;
mod cifar;
mod fetching;
mod idx;
mod named;
mod safetensors;
mod table;
mod tokens;
mod webdataset;

use std::path::Path;

use inflight::source::{Dataset, OpenOptions, Source, Target, open};
use inflight::{Error, ErrorKind};

/// Opens a path without ever fetching.
pub fn open_path(path: &Path) -> inflight::Result<Dataset> {
    open(
        path.to_str().expect("temporary paths are UTF-8"),
        &OpenOptions { offline: true, ..Default::default() },
    )
}

/// The error of opening a path, which must be one of data.
pub fn refusal(path: &Path) -> Error {
    let error = open_path(path).err().unwrap_or_else(|| panic!("{} opened", path.display()));
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    error
}

/// Asserts what the error of opening `path` says, where `{}` stands for the path of `file`.
#[track_caller]
pub fn assert_refusal(path: &Path, file: &Path, expected: &str) {
    let expected = format!("source: {}", expected.replace("{}", &file.display().to_string()));
    assert_eq!(refusal(path).to_string(), expected);
}

/// The inputs and classes of all samples.
pub fn read_all(source: &dyn Source) -> Vec<(Vec<u8>, u32)> {
    let mut scratch = Vec::new();
    let mut read = |i| {
        let sample = source.read(i, &mut scratch).expect("a readable sample");
        let Target::Class(class) = sample.target else { panic!("a classifier") };
        (sample.input.to_vec(), class)
    };
    (0..source.len()).map(&mut read).collect()
}
