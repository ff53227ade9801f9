//! A sample as the bytes that a shard holds: an image file as it is, raw pixels as PNG, other arrays as NPY.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageFormat};
use ndarray::{ArrayViewD, IxDyn};
use ndarray_npy::WriteNpyExt;

use super::Format;
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::blob::Stamp;
use crate::source::{Encoding, Source};

/// What the inputs of a source become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Content {
    /// The files themselves, bit for bit.
    Files,
    /// PNG files, grey or in colour.
    Png,
    /// NPY arrays.
    Npy,
}

impl Content {
    /// What the inputs of `source` become.
    pub fn of(source: &dyn Source) -> Self {
        let spec = source.spec();
        match (source.encoding(), &spec.input_shape[..], spec.input_dtype) {
            (Encoding::Image, ..) => Self::Files,
            (Encoding::Raw, [1 | 3, _, _], DType::U8) => Self::Png,
            (Encoding::Raw | Encoding::Pixels, ..) => Self::Npy,
        }
    }

    /// The bytes of a sample's input, for which `made` is memory, and the extension of their file.
    ///
    /// # Errors
    /// When the input is no image of a known format, or does not fit the source's specification.
    pub fn encode<'a>(
        self,
        spec: &SampleSpec,
        input: &'a [u8],
        made: &'a mut Vec<u8>,
    ) -> Result<(&'a [u8], &'static str)> {
        if self == Self::Files {
            return Ok((input, extension(input)?));
        }
        if input.len() != spec.input_bytes() {
            let message = format!("found {} bytes, expected {}", input.len(), spec.input_bytes());
            return Err(Error::data("input", message));
        }
        made.clear();
        if self == Self::Png {
            png(&spec.input_shape, input, made)?;
            return Ok((made, "png"));
        }
        npy(spec, input, made)?;
        Ok((made, "npy"))
    }
}

fn extension(bytes: &[u8]) -> Result<&'static str> {
    Ok(match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => "jpg",
        Ok(ImageFormat::Png) => "png",
        Ok(ImageFormat::WebP) => "webp",
        Ok(ImageFormat::Gif) => "gif",
        Ok(ImageFormat::Bmp) => "bmp",
        _ => {
            let message = "found bytes of no known format, expected JPEG, PNG, WebP, GIF or BMP";
            return Err(Error::data("image", message));
        }
    })
}

/// Planes of `[channels, height, width]` as a PNG file; lossless, so that reading it gives them back.
fn png(shape: &[usize], planes: &[u8], into: &mut Vec<u8>) -> Result<()> {
    let &[channels, height, width] = shape else { unreachable!("checked when content was chosen") };
    let plane = height * width;
    let pixels: Vec<u8> =
        (0..plane).flat_map(|at| (0..channels).map(move |c| planes[c * plane + at])).collect();
    let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    PngEncoder::new_with_quality(into, CompressionType::Default, FilterType::Adaptive)
        .write_image(&pixels, width as u32, height as u32, colour)
        .map_err(|e| Error::data("image", "cannot be written as PNG").caused_by(e))
}

fn npy(spec: &SampleSpec, input: &[u8], into: &mut Vec<u8>) -> Result<()> {
    let unwritable = |e: ndarray_npy::WriteNpyError| {
        Error::data("input", "cannot be written as NPY").caused_by(e)
    };
    let shape = IxDyn(&spec.input_shape);
    if spec.input_dtype == DType::U8 {
        let array = ArrayViewD::from_shape(shape, input).expect("the length was checked");
        return array.write_npy(into).map_err(unwritable);
    }
    let floats: Vec<f32> = input.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    let array = ArrayViewD::from_shape(shape, &floats).expect("the length was checked");
    array.write_npy(into).map_err(unwritable)
}

/// Checks that samples of this kind can be written in a format.
///
/// # Errors
/// When they cannot; says what can.
pub(super) fn check(source: &dyn Source, format: Format) -> Result<()> {
    let (spec, name) = (source.spec(), &source.info().name);
    if source.table().is_none() && source.fitted().is_some() {
        let message = "found a part of a table, expected all rows of a file";
        return Err(Error::config(name, message).hint("converting the table before it is split"));
    }
    if source.table().is_some() {
        // Its rows are written as they are in the file, not as they are encoded.
        return match format {
            Format::Parquet => Ok(()),
            Format::WebDataset => {
                let message = "found a table, which WebDataset has no files for";
                Err(Error::config(name, message).hint("--format parquet"))
            }
        };
    }
    match &spec.target {
        TargetSpec::Class { .. } => {}
        TargetSpec::Values { .. } if format == Format::Parquet => {}
        TargetSpec::Values { .. } => {
            let message = "found values as targets, which WebDataset has no files for";
            return Err(Error::config(name, message).hint("--format parquet"));
        }
        TargetSpec::Tokens { .. } => {
            let message = "found tokens, which are read in any order from the files they are in";
            return Err(Error::config(name, message).hint("training from them as they are"));
        }
    }
    let known = matches!(spec.input_dtype, DType::U8 | DType::F32);
    let flat = spec.input_shape.len() == 1 && spec.input_dtype == DType::F32;
    if !known || (format == Format::Parquet && Content::of(source) == Content::Npy && !flat) {
        let (dtype, shape) = (spec.input_dtype, &spec.input_shape);
        let message =
            format!("found samples {dtype:?}{shape:?}, expected images or rows of floats");
        return Err(Error::config(name, message).hint("--format webdataset"));
    }
    Ok(())
}

/// Samples whose size is looked at.
const MEASURED: usize = 64;

/// About how many bytes of a shard a sample takes: the mean of some that are spread evenly.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn mean_bytes(source: &dyn Source, format: Format) -> Result<u64> {
    if let Some(table) = source.table() {
        return Ok(Stamp::look(table)?.len() / source.len().max(1) as u64);
    }
    let content = Content::of(source);
    let (mut scratch, mut made, mut total) = (Vec::new(), Vec::new(), 0);
    let count = source.len().min(MEASURED);
    let indices: Vec<usize> = (0..count).map(|i| i * source.len() / count).collect();
    source.prefetch(&indices)?;
    for index in indices {
        let sample = source.read(index, &mut scratch)?;
        let (bytes, _) = content.encode(source.spec(), sample.input, &mut made)?;
        total += match format {
            // A header and whole blocks for the input, and two blocks for the label.
            Format::WebDataset => 512 + bytes.len().next_multiple_of(512) + 1024,
            Format::Parquet if content == Content::Npy => sample.input.len() + 8,
            Format::Parquet => bytes.len() + 12,
        };
    }
    Ok((total / count.max(1)) as u64)
}

/// Names the sample in an error.
pub(super) fn name(source: &dyn Source, index: usize) -> String {
    let name = &source.info().name;
    match source.origin(index) {
        Some(origin) => format!("sample {index} of {name}: {origin}"),
        None => format!("sample {index} of {name}"),
    }
}
