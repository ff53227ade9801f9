//! Arrays of NumPy: `.npy` files in a folder, or one `.npz` archive.
//!
//! What the arrays are called and what becomes of their shapes is said in [`arrays`](super::arrays).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use ndarray::ArrayViewD;
use ndarray_npy::{ViewNpyError, ViewNpyExt};
use zip::ZipArchive;

use crate::error::{Error, Result};
use crate::source::arrays::{Array, Data, NamedArrays};
use crate::source::file::{Input, io_error, unpack_bytes_max};

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
        let mut names = Vec::new();
        for file in archive.file_names() {
            let file = file.map_err(|e| {
                let message = "holds a name that cannot be read";
                Error::data(path.display(), message).hint("np.savez").caused_by(e)
            })?;
            names.extend(file.strip_suffix(".npy").map(String::from));
        }
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
}

impl NamedArrays for Arrays {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn read(&mut self, name: &str) -> Result<(String, Array)> {
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

/// An array in the bytes of an `.npy` file, which `item` names in errors.
///
/// # Errors
/// When they are no such array, or of a type that cannot be read.
pub(super) fn array(item: &str, bytes: &[u8]) -> Result<Array> {
    let mut aligned = Aligned::zeroed(item, bytes.len())?;
    aligned.bytes_mut().copy_from_slice(bytes);
    parse(item, &aligned)
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
