//! Arrays of NumPy: `.npy` files in a folder, or one `.npz` archive.
//!
//! Inputs are `x`, targets `y` (see [`TRAIN`]); a test split is `x_test`, `y_test`. Images as `[n, h, w]`,
//! `[n, c, h, w]` or `[n, h, w, c]` become `[c, h, w]`, like those of every other source. Whole numbers
//! are labels, floats are values for regression.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ndarray::ArrayViewD;
use ndarray_npy::{ViewNpyError, ViewNpyExt};
use zip::ZipArchive;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::SourceInfo;
use crate::source::file::{Input, io_error, unpack_bytes_max};
use crate::source::resident::{Inputs, Resident, Targets, check_labels};

/// The names of inputs and of targets of one split, tried in order.
pub type Names = (&'static [&'static str], &'static [&'static str]);

/// The names of the training split's arrays.
pub const TRAIN: Names = (
    &["x_train", "x", "images_train", "train_images", "images"],
    &["y_train", "y", "labels_train", "train_labels", "labels"],
);
/// The names of the test split's arrays.
pub const TEST: Names =
    (&["x_test", "images_test", "test_images"], &["y_test", "labels_test", "test_labels"]);

/// NumPy's own limit for the text of a header; it also bounds the work of parsing it.
const HEADER_BYTES_MAX: usize = 10_000;
/// `{'shape': (1, 2)}` nests two deep; a much deeper one would exhaust the parser's stack.
const HEADER_DEPTH_MAX: usize = 4;

/// A folder of `.npy` files or an `.npz` archive.
pub struct Arrays {
    path: PathBuf,
    names: Vec<String>,
    archive: Option<ZipArchive<BufReader<File>>>,
}

impl Arrays {
    /// Lists the arrays of an `.npz` archive.
    ///
    /// # Errors
    /// When the file cannot be read or is not a zip archive.
    pub fn archive(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|e| {
            Error::data(path.display(), "is not an .npz archive").hint("np.savez").caused_by(e)
        })?;
        let mut names: Vec<String> =
            archive.file_names().filter_map(|n| n.strip_suffix(".npy")).map(Into::into).collect();
        names.sort();
        Ok(Self { path: path.into(), names, archive: Some(archive) })
    }

    /// Lists the `.npy` files of a folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn folder(path: &Path) -> Result<Self> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| io_error(path, e))? {
            let file = entry.map_err(|e| io_error(path, e))?.file_name();
            names.extend(file.to_str().and_then(|n| n.strip_suffix(".npy")).map(String::from));
        }
        names.sort();
        Ok(Self { path: path.into(), names, archive: None })
    }

    /// Whether there is an array of inputs for this split.
    pub fn has(&self, names: &Names) -> bool {
        self.find(names.0).is_some()
    }

    /// Reads one split. `classes` says how many there are; without it they are those of the labels.
    ///
    /// # Errors
    /// When an array is missing, damaged, of an unknown type, claims more than its size can hold, when
    /// inputs and targets differ in number, or when a label is out of range.
    pub fn split(
        &mut self,
        names: &Names,
        classes: Option<usize>,
        info: SourceInfo,
    ) -> Result<Resident> {
        let (x_item, x) = self.load(names.0, "inputs")?;
        let (y_item, y) = self.load(names.1, "targets")?;
        let count = x.shape.first().copied().unwrap_or(0);
        if count == 0 || x.shape.contains(&0) {
            return Err(Error::data(
                x_item,
                format!("found shape {:?}, expected [samples, …] with at least one", x.shape),
            ));
        }
        if y.shape.first() != Some(&count) {
            return Err(Error::data(
                y_item,
                format!(
                    "found shape {:?}, expected {count} targets, one for each sample of {x_item}",
                    y.shape
                ),
            ));
        }
        let (targets, target) = targets(&y_item, y, classes)?;
        let (inputs, input_shape, input_dtype) = inputs(&x_item, x)?;
        Resident::new(SampleSpec { input_shape, input_dtype, target }, info, inputs, targets)
    }

    fn find(&self, names: &[&str]) -> Option<String> {
        names.iter().find(|&&name| self.names.iter().any(|n| n == name)).map(|s| s.to_string())
    }

    /// Reads the first array that is there; also tells what to call it in errors.
    fn load(&mut self, names: &[&str], what: &str) -> Result<(String, Array)> {
        let Some(name) = self.find(names) else {
            return Err(Error::data(
                self.path.display(),
                format!(
                    "found arrays [{}], expected {what} named one of [{}]",
                    self.names.join(", "),
                    names.join(", ")
                ),
            ));
        };
        let file = format!("{name}.npy");
        let (item, bytes) = match &mut self.archive {
            Some(archive) => {
                let item = format!("{}: {file}", self.path.display());
                let bytes = read_member(archive, &self.path, &file, &item)?;
                (item, bytes)
            }
            None => {
                let path = self.path.join(&file);
                (path.display().to_string(), read_file(&path)?)
            }
        };
        let array = parse(&item, &bytes)?;
        Ok((item, array))
    }
}

/// The bytes of a file, aligned for every element type.
struct Aligned {
    words: Vec<u64>,
    len: usize,
}

impl Aligned {
    fn zeroed(item: &str, len: usize) -> Result<Self> {
        let mut words = Vec::new();
        words.try_reserve_exact(len.div_ceil(8)).map_err(|e| {
            Error::data(item, format!("needs {len} bytes of memory, more than there is"))
                .caused_by(e)
        })?;
        words.resize(len.div_ceil(8), 0);
        Ok(Self { words, len })
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

fn read_file(path: &Path) -> Result<Aligned> {
    let mut input = Input::open(path)?;
    let mut bytes = Aligned::zeroed(&path.display().to_string(), input.file_bytes as usize)?;
    // A file that shrinks meanwhile leaves zeros, which the length check of `parse` cannot see.
    if input.compressed || input.fill(path, bytes.bytes_mut())? < bytes.len {
        return Err(Error::data(path.display(), "cannot be read as a plain file of fixed length"));
    }
    Ok(bytes)
}

fn read_member(
    archive: &mut ZipArchive<BufReader<File>>,
    path: &Path,
    file: &str,
    item: &str,
) -> Result<Aligned> {
    let damaged = |e: zip::result::ZipError| Error::data(item, "cannot be unpacked").caused_by(e);
    let file_bytes = std::fs::metadata(path).map_err(|e| io_error(path, e))?.len();
    let mut member = archive.by_name(file).map_err(damaged)?;
    let most = unpack_bytes_max(member.compressed_size().min(file_bytes));
    if member.size() > most {
        return Err(Error::data(
            item,
            format!(
                "claims {} bytes, expected at most {most} from {} compressed ones",
                member.size(),
                member.compressed_size()
            ),
        )
        .hint("unpacking it first, if it is to be trusted"));
    }
    let mut bytes = Aligned::zeroed(item, member.size() as usize)?;
    let unpacked = member.read_exact(bytes.bytes_mut()).and_then(|()| member.read(&mut [0]));
    match unpacked {
        Ok(0) => Ok(bytes),
        Ok(_) => Err(Error::data(
            item,
            format!("holds more than the {} bytes that the archive says", bytes.len),
        )),
        Err(e) => Err(Error::data(item, "cannot be unpacked").caused_by(e)),
    }
}

/// An array in row-major order.
struct Array {
    shape: Vec<usize>,
    data: Data,
}

enum Data {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
    Whole(Vec<i64>),
}

/// Reads an array as the element type that its header names. Nothing is allocated before header and
/// length agree.
fn parse(item: &str, bytes: &Aligned) -> Result<Array> {
    let bytes = bytes.bytes();
    check_header(item, bytes)?;
    macro_rules! read_as {
        ($element:ty, $variant:ident, $convert:expr) => {
            match ArrayViewD::<$element>::view_npy(bytes) {
                Ok(view) => {
                    let data = Data::$variant(view.iter().map($convert).collect());
                    return Ok(Array { shape: view.shape().to_vec(), data });
                }
                Err(ViewNpyError::WrongDescriptor(_)) => {}
                Err(e) => return Err(unreadable(item, e)),
            }
        };
    }
    read_as!(u8, Bytes, |&v| v);
    read_as!(f32, Floats, |&v| v);
    read_as!(f64, Floats, |&v| v as f32);
    read_as!(i64, Whole, |&v| v);
    read_as!(i32, Whole, |&v| v.into());
    read_as!(u32, Whole, |&v| v.into());
    read_as!(i16, Whole, |&v| v.into());
    read_as!(u16, Whole, |&v| v.into());
    read_as!(i8, Whole, |&v| v.into());
    // Labels beyond i64 become the largest one, which no class count admits.
    read_as!(u64, Whole, |&v| i64::try_from(v).unwrap_or(i64::MAX));
    Err(Error::data(item, format!("found {}, expected u1, f4, f8 or integers", descriptor(bytes)))
        .hint("array.astype(np.float32)"))
}

/// Refuses headers that are not NumPy's, too long, or nested so deep that parsing them could overflow
/// the stack.
fn check_header(item: &str, bytes: &[u8]) -> Result<()> {
    let refuse = |why: String| Err(Error::data(item, why).hint("saving it again with np.save"));
    let text = match bytes {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, text @ ..] => {
            text.get(..u16::from_le_bytes([*a, *b]).into())
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, text @ ..] => {
            text.get(..u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => return refuse("is not an array of NumPy (versions 1 to 3)".into()),
    };
    let Some(text) = text else {
        return refuse(format!("is cut short: found {} bytes, its header is longer", bytes.len()));
    };
    if text.len() > HEADER_BYTES_MAX {
        return refuse(format!(
            "found a header of {} bytes, expected at most {HEADER_BYTES_MAX}",
            text.len()
        ));
    }
    let mut depth = 0usize;
    for byte in text {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > HEADER_DEPTH_MAX {
            return refuse("found a header nested deeper than any of NumPy's".into());
        }
    }
    Ok(())
}

fn unreadable(item: &str, error: ViewNpyError) -> Error {
    match error {
        ViewNpyError::MissingBytes(n) => {
            Error::data(item, format!("is cut short: {n} bytes fewer than its shape needs"))
        }
        ViewNpyError::ExtraBytes(n) => {
            Error::data(item, format!("found {n} bytes after its data, expected none"))
        }
        ViewNpyError::NonNativeEndian => {
            Error::data(item, "found big-endian elements, expected little-endian")
                .hint("array.astype('<f4')")
        }
        ViewNpyError::LengthOverflow => {
            Error::data(item, "found a shape whose size overflows, expected one that fits the file")
        }
        other => Error::data(item, "is not a readable array").caused_by(other),
    }
}

/// What the header says about the element type, for an error.
fn descriptor(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).into_owned();
    let descr = text.split("'descr':").nth(1).and_then(|rest| rest.split(',').next());
    format!("element type {}", descr.unwrap_or("unknown").trim())
}

/// Labels, or values for regression.
fn targets(item: &str, y: Array, classes: Option<usize>) -> Result<(Targets, TargetSpec)> {
    let count = y.shape[0];
    let whole = match y.data {
        Data::Floats(values) => {
            let len = values.len() / count;
            if len == 0 {
                return Err(Error::data(item, format!("found shape {:?}, it is empty", y.shape)));
            }
            return Ok((Targets::Values(values), TargetSpec::Values { len }));
        }
        Data::Bytes(bytes) => bytes.into_iter().map(i64::from).collect::<Vec<_>>(),
        Data::Whole(whole) => whole,
    };
    if whole.len() != count {
        return Err(Error::data(
            item,
            format!("found labels of shape {:?}, expected [{count}] or [{count}, 1]", y.shape),
        ));
    }
    let mut labels = Vec::with_capacity(count);
    for (i, &label) in whole.iter().enumerate() {
        labels.push(u32::try_from(label).map_err(|_| {
            Error::data(item, format!("found label {label} at sample {i}, expected one from 0 on"))
        })?);
    }
    let classes = match classes {
        Some(classes) => classes,
        None => infer_classes(item, &labels)?,
    };
    check_labels(item, &labels, classes)?;
    Ok((Targets::Classes(labels), TargetSpec::Class { classes }))
}

/// One more than the highest label, if every class below it occurs: a gap is more likely a wrong label
/// than a class without a sample.
fn infer_classes(item: &str, labels: &[u32]) -> Result<usize> {
    let mut seen = vec![false; labels.len()];
    for &label in labels {
        if let Some(class) = seen.get_mut(label as usize) {
            *class = true;
        }
    }
    let classes = seen.iter().position(|&s| !s).unwrap_or(seen.len());
    match labels.iter().position(|&label| label as usize >= classes) {
        None => {}
        Some(i) => {
            return Err(Error::data(
                item,
                format!("found label {} at sample {i}, but no label {classes}", labels[i]),
            )
            .hint("a file `classes.txt` beside it, with one class name a line"));
        }
    }
    Ok(classes)
}

/// Inputs with the shape of one sample; images become planar.
fn inputs(item: &str, x: Array) -> Result<(Inputs, Vec<usize>, DType)> {
    let channels = |c: usize| matches!(c, 1 | 3 | 4);
    let planar = |shape: &[usize]| match *shape {
        [_, h, w] => vec![1, h, w],
        [_] => vec![1],
        _ => shape[1..].to_vec(),
    };
    let interleaved = match x.shape[..] {
        [_, c, h, w] if channels(w) && !channels(c) => Some((c, h, w)),
        _ => None,
    };
    let shape = match interleaved {
        Some((h, w, c)) => vec![c, h, w],
        None => planar(&x.shape),
    };
    match x.data {
        Data::Bytes(bytes) => {
            let bytes = match interleaved {
                Some(hwc) => deinterleave(&bytes, hwc),
                None => bytes,
            };
            Ok((Inputs::Bytes(bytes), shape, DType::U8))
        }
        Data::Floats(floats) => {
            let floats = match interleaved {
                Some(hwc) => deinterleave(&floats, hwc),
                None => floats,
            };
            Ok((Inputs::Floats(floats), shape, DType::F32))
        }
        Data::Whole(_) => Err(Error::data(item, "found integers as inputs, expected u1, f4 or f8")
            .hint("array.astype(np.uint8) for images, array.astype(np.float32) for tables")),
    }
}

/// `[n, h, w, c]` to `[n, c, h, w]`.
fn deinterleave<T: Copy>(pixels: &[T], (h, w, c): (usize, usize, usize)) -> Vec<T> {
    let mut planar = Vec::with_capacity(pixels.len());
    for image in pixels.chunks_exact(h * w * c) {
        for channel in 0..c {
            planar.extend(image.iter().skip(channel).step_by(c));
        }
    }
    planar
}
