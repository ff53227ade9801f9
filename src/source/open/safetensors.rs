//! Safetensors files with arrays of inputs and targets.

use std::path::Path;

use super::arrays::open_arrays;
use super::{Candidate, Dataset, Format, OpenOptions, files_with};
use crate::error::{Error, Result};
use crate::source::safetensors::Tensors;

pub(super) const FORMAT: Format =
    Format { what: "a .safetensors file with tensors x and y, or a folder with one", claims, open };

const EXTENSION: &str = ".safetensors";

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        return Ok(candidate.has_extension(EXTENSION));
    }
    Ok(files_with(&candidate.path, |name| name.ends_with(EXTENSION))?.len() == 1)
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    if !candidate.is_folder {
        let folder = path.parent().unwrap_or(Path::new("."));
        return open_arrays(path, folder, Tensors::open(path)?, options);
    }
    match &files_with(path, |name| name.ends_with(EXTENSION))?[..] {
        [file] => open_arrays(file, path, Tensors::open(file)?, options),
        _ => Err(Error::data(path.display(), "found no safetensors file any more")),
    }
}
