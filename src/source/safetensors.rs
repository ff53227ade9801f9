//! Arrays in a safetensors file: tensors named and shaped as [`arrays`](super::arrays) says.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensorError, SafeTensors};

use crate::error::{Error, Result};
use crate::source::arrays::{Array, Data, NamedArrays};
use crate::source::blob::{Blob, LocalFile};

/// The tensors of a file, which is read once and whole: all that it holds becomes samples.
pub struct Tensors {
    path: PathBuf,
    bytes: Vec<u8>,
    names: Vec<String>,
}

impl Tensors {
    /// Reads a file. Memory is bounded by its length: a header that claims more than that is refused.
    ///
    /// # Errors
    /// When it cannot be read, or is no valid safetensors file: cut short, a header that is too large or does not
    /// parse, tensors that overlap, leave the file, or whose shapes do not fit their bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let file = LocalFile::new(path)?;
        let bytes_max = usize::try_from(file.len()).map_err(|e| {
            Error::data(path.display(), "is larger than the memory can be").caused_by(e)
        })?;
        let mut bytes = Vec::new();
        file.read_at(0, bytes_max, &mut bytes)?;
        let names = parse(path, &bytes)?.names().into_iter().map(String::from).collect();
        let mut tensors = Self { path: path.into(), bytes, names };
        tensors.names.sort();
        Ok(tensors)
    }
}

impl NamedArrays for Tensors {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn read(&mut self, name: &str) -> Result<(String, Array)> {
        let item = format!("{}: {name}", self.path.display());
        let tensors = parse(&self.path, &self.bytes)?;
        let tensor =
            tensors.tensor(name).map_err(|e| Error::data(&item, "cannot be found").caused_by(e))?;
        let data = data(tensor.dtype(), tensor.data()).ok_or_else(|| {
            let found = format!("{:?}", tensor.dtype());
            Error::data(&item, format!("found {found} elements, expected U8, floats or integers"))
                .hint("tensor.float() before saving")
        })?;
        Ok((item, Array { shape: tensor.shape().to_vec(), data }))
    }
}

/// The header of a file, checked against its length.
fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|cause| {
        let found = match &cause {
            SafeTensorError::HeaderTooSmall => {
                format!("is cut short: found {} bytes, expected at least 8", bytes.len())
            }
            SafeTensorError::InvalidHeaderLength => {
                format!("is cut short: its {} bytes end within its header", bytes.len())
            }
            SafeTensorError::MetadataIncompleteBuffer => {
                format!("holds {} bytes, expected just those of its tensors", bytes.len())
            }
            _ => "is no valid safetensors file".into(),
        };
        Error::data(path.display(), found).hint("saving it again").caused_by(cause)
    })
}

/// Elements in one of the types that samples have; nothing for types that are no numbers of their own.
fn data(dtype: Dtype, bytes: &[u8]) -> Option<Data> {
    fn each<const N: usize, T>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|&element| value(element)).collect()
    }
    Some(match dtype {
        Dtype::U8 | Dtype::BOOL => Data::Bytes(bytes.to_vec()),
        Dtype::F32 => Data::Floats(each(bytes, f32::from_le_bytes)),
        Dtype::F64 => Data::Floats(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        Dtype::F16 => Data::Floats(each(bytes, |b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Data::Floats(each(bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
        Dtype::I8 => Data::Whole(each(bytes, |b| i8::from_le_bytes(b).into())),
        Dtype::I16 => Data::Whole(each(bytes, |b| i16::from_le_bytes(b).into())),
        Dtype::U16 => Data::Whole(each(bytes, |b| u16::from_le_bytes(b).into())),
        Dtype::I32 => Data::Whole(each(bytes, |b| i32::from_le_bytes(b).into())),
        Dtype::U32 => Data::Whole(each(bytes, |b| u32::from_le_bytes(b).into())),
        Dtype::I64 => Data::Whole(each(bytes, i64::from_le_bytes)),
        // Labels beyond i64 become the largest one, which no class count admits.
        Dtype::U64 => {
            Data::Whole(each(bytes, |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX)))
        }
        _ => return None,
    })
}
