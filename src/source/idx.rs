//! IDX, the format of MNIST and Fashion-MNIST: a big-endian header and unsigned bytes, plain or gzip.
//!
//! Layout as on Yann LeCun's MNIST page: `00 00 08 D`, then `D` dimensions of 4 bytes, then the data.

use std::path::Path;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::file::{Input, zeroed};
use crate::source::resident::{Inputs, Resident, Targets, check_labels};
use crate::source::{Source, SourceInfo};

/// The classes of MNIST and of the data sets made in its image.
pub const CLASSES: usize = 10;

/// Reads a pair of image and label files; samples are `u8[1, height, width]`.
///
/// # Errors
/// When a file is missing, cut short, too long, not IDX, claims more than its size can hold, when the
/// two hold different numbers of samples, or when a label is not below `classes`.
pub fn open(images: &Path, labels: &Path, classes: usize, info: SourceInfo) -> Result<Resident> {
    let (shape, pixels) = read(images, 3, "images")?;
    let (_, label_bytes) = read(labels, 1, "labels")?;
    let [count, height, width] = shape[..] else { unreachable!("three dimensions were asked for") };
    if label_bytes.len() != count {
        return Err(Error::data(
            labels.display(),
            format!(
                "found {} labels, expected {count}, one for each image of {}",
                label_bytes.len(),
                images.display()
            ),
        )
        .hint("a pair of files that belong together"));
    }
    let label_values: Vec<u32> = label_bytes.iter().copied().map(u32::from).collect();
    check_labels(&labels.display().to_string(), &label_values, classes)
        .map_err(|e| e.hint("a file `classes.txt` beside it, with one class name a line"))?;
    let spec = SampleSpec {
        input_shape: vec![1, height, width],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes },
    };
    let source = Resident::new(spec, info, Inputs::Bytes(pixels), Targets::Classes(label_values))?;
    debug_assert_eq!(source.len(), count);
    Ok(source)
}

/// Reads one IDX file of unsigned bytes with `dims` dimensions: its shape and its data.
fn read(path: &Path, dims: usize, what: &str) -> Result<(Vec<usize>, Vec<u8>)> {
    let mut input = Input::open(path)?;
    let shape = read_header(&mut input, path, dims)?;
    let data_bytes = claimed_bytes(&input, path, &shape, what)?;
    let mut data = zeroed(path, data_bytes)?;
    let found = input.fill(path, &mut data)?;
    if found < data_bytes {
        return Err(cut_short(path, found, data_bytes, what, &shape));
    }
    input.expect_end(path, &format!("{data_bytes} bytes of {what} for shape {shape:?}"))?;
    Ok((shape, data))
}

fn cut_short(path: &Path, found: usize, expected: usize, what: &str, shape: &[usize]) -> Error {
    Error::data(
        path.display(),
        format!(
            "is cut short: found {found} bytes of {what}, expected {expected} for shape {shape:?}"
        ),
    )
    .hint("fetching it again")
}

/// Reads magic number and dimensions.
fn read_header(input: &mut Input, path: &Path, dims: usize) -> Result<Vec<usize>> {
    let mut header = vec![0; 4 + 4 * dims];
    let found = input.fill(path, &mut header)?;
    let expected = [0, 0, 8, dims as u8];
    if found >= 4 && header[..4] != expected {
        return Err(wrong_magic(path, &header[..4], &expected));
    }
    if found < header.len() {
        return Err(Error::data(
            path.display(),
            format!("is cut short: found {found} bytes, expected a header of {}", header.len()),
        )
        .hint("fetching it again"));
    }
    let dimension = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize;
    Ok(header[4..].chunks_exact(4).map(dimension).collect())
}

fn wrong_magic(path: &Path, found: &[u8], expected: &[u8]) -> Error {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    let error = Error::data(
        path.display(),
        format!(
            "found magic number {}, expected {} (IDX, unsigned bytes, {} dimension{})",
            hex(found),
            hex(expected),
            expected[3],
            if expected[3] == 1 { "" } else { "s" }
        ),
    );
    match found {
        [0, 0, 8, 1] | [0, 0, 8, 3] => error.hint("the other file: images and labels are swapped"),
        _ => error.hint("fetching it again"),
    }
}

/// The data that the header promises, if a file of this size can hold it.
fn claimed_bytes(input: &Input, path: &Path, shape: &[usize], what: &str) -> Result<usize> {
    let claimed = shape.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
    let most = input.claim_bytes_max();
    match claimed {
        Some(0) => Err(Error::data(
            path.display(),
            format!("found shape {shape:?}, expected at least one sample of one byte"),
        )),
        Some(bytes) if input.compressed && bytes as u64 > most => Err(Error::data(
            path.display(),
            format!(
                "claims {bytes} bytes for shape {shape:?}, expected at most {most} from {} bytes of gzip",
                input.file_bytes
            ),
        )
        .hint("unpacking it first, if it is to be trusted")),
        // A plain file that is too short for its header: said here, before memory is taken for it.
        Some(bytes) if bytes as u64 > most => {
            let found = most - (4 + 4 * shape.len() as u64);
            Err(cut_short(path, found as usize, bytes, what, shape))
        }
        Some(bytes) => Ok(bytes),
        None => Err(Error::data(
            path.display(),
            format!("found shape {shape:?}, expected one whose size fits in memory"),
        )
        .hint("fetching it again")),
    }
}
