//! CIFAR-10's binary version (Krizhevsky, 2009): records of one label byte and 3 × 32 × 32 planar bytes.

use std::path::{Path, PathBuf};

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::SourceInfo;
use crate::source::file::{Input, zeroed};
use crate::source::resident::{Inputs, Resident, Targets, check_labels};

/// Number of classes.
pub const CLASSES: usize = 10;
/// Bytes of one image: 3 channels of 32 × 32.
pub const IMAGE_BYTES: usize = 3 * 32 * 32;
/// Bytes of one record: the label, then the image.
pub const RECORD_BYTES: usize = 1 + IMAGE_BYTES;

/// Reads the files of one split, one after the other; samples are `u8[3, 32, 32]`.
///
/// # Errors
/// When a file is missing, not a whole number of records, or holds a label that is not below 10.
pub fn open(files: &[PathBuf], info: SourceInfo) -> Result<Resident> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        read(path, &mut pixels, &mut labels)?;
    }
    let spec = SampleSpec {
        input_shape: vec![3, 32, 32],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: CLASSES },
    };
    Resident::new(spec, info, Inputs::Bytes(pixels), Targets::Classes(labels))
}

fn read(path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    let mut input = Input::open(path)?;
    let found = input.file_bytes;
    if found == 0 || !found.is_multiple_of(RECORD_BYTES as u64) || input.compressed {
        return Err(Error::data(
            path.display(),
            format!(
                "found {found} bytes, expected a multiple of {RECORD_BYTES}, the size of a record"
            ),
        )
        .hint("fetching it again"));
    }
    let mut records = zeroed(path, found as usize)?;
    let filled = input.fill(path, &mut records)?;
    if filled < records.len() {
        return Err(Error::data(
            path.display(),
            format!("is cut short: found {filled} bytes, expected {found}"),
        ));
    }
    let first = labels.len();
    pixels.reserve_exact(records.len() / RECORD_BYTES * IMAGE_BYTES);
    for record in records.chunks_exact(RECORD_BYTES) {
        labels.push(u32::from(record[0]));
        pixels.extend_from_slice(&record[1..]);
    }
    check_labels(&path.display().to_string(), &labels[first..], CLASSES)
}
