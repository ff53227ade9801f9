//! What the page of a run shows of its data: the beginning of the first batch as the model saw it, in `samples.json`,
//! and pictures of it and of the worst mistakes, in `samples.png` and `mistakes.png`.

use std::path::Path;
use std::time::{Duration, Instant};

use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use super::folder::write_json;
use crate::batch::DType;
use crate::durable::{self, replace_file};
use crate::error::{Error, Result};
use crate::source::{Look, Source, Target, Viewer};

/// The samples of the first batch, in the run folder.
pub const SAMPLES: &str = "samples.json";
/// Their pictures.
pub const SAMPLES_SHEET: &str = "samples.png";
/// Pictures of the worst mistakes, in the order of [`Answers::worst`](super::answers::Answers::worst).
pub const MISTAKES_SHEET: &str = "mistakes.png";

/// Samples of the first batch that are kept.
pub const SAMPLES_MAX: usize = 16;
/// Pixels of the longer side of a picture.
const TILE_MAX: u32 = 128;
/// Pictures in a row of a sheet.
const COLUMNS: u32 = 8;
/// Numbers that are kept of a sample that is no picture.
const VALUES_MAX: usize = 24;
/// Reading samples once more must not hold up the end of a run whose data are far away.
const PATIENCE: Duration = Duration::from_secs(3);

/// The beginning of the first batch of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// The epoch they were drawn in, from 0.
    pub epoch: u64,
    /// Whether transforms were left out that only the program knew.
    pub lacks_transforms: bool,
    /// The samples, in order.
    pub samples: Vec<Shown>,
}

/// One sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shown {
    /// Its number in its part of the data.
    pub index: usize,
    /// Where it is from, if its source says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Its class, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<u32>,
    /// The first numbers of its input, if it is no picture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<f32>,
    /// The first numbers of its target, if that is no class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target: Vec<f32>,
}

/// Writes what `viewer` gives of the samples `indices` of `source`. Samples that cannot be read, or not in time, are
/// left out.
///
/// # Errors
/// When the disk is full or fails.
pub(crate) fn keep_samples(
    dir: &Path,
    source: &dyn Source,
    viewer: &mut Viewer,
    (epoch, indices): (u64, &[usize]),
    lacks_transforms: bool,
) -> Result<()> {
    let began = Instant::now();
    let look = Look::new(source.spec(), TILE_MAX);
    let (mut samples, mut tiles) = (Vec::new(), Vec::new());
    for &index in &indices[..indices.len().min(SAMPLES_MAX)] {
        if began.elapsed() > PATIENCE {
            break;
        }
        let Ok(sample) = viewer.draw(source, index, epoch) else { continue };
        let mut shown = Shown { index, origin: source.origin(index), ..Default::default() };
        match sample.target {
            Target::Class(class) => shown.label = Some(class),
            Target::Values(values) => {
                shown.target = values.iter().take(VALUES_MAX).copied().collect();
            }
            Target::Tokens(tokens) => shown.target = numbers(DType::U32, tokens),
        }
        match &look {
            Some(look) => tiles.push(look.tile(sample.input)),
            None => shown.values = numbers(source.spec().input_dtype, sample.input),
        }
        samples.push(shown);
    }
    remove_sheet(dir, SAMPLES_SHEET)?;
    write_json(&dir.join(SAMPLES), &Samples { epoch, lacks_transforms, samples })?;
    write_sheet(&dir.join(SAMPLES_SHEET), &tiles)
}

/// Removes the sheet that an earlier part of a run left, before that which its pictures are of is written anew: at no
/// moment do pictures lie beside the names of other samples.
///
/// # Errors
/// When the disk fails.
pub(crate) fn remove_sheet(dir: &Path, sheet: &str) -> Result<()> {
    let path = dir.join(sheet);
    if std::fs::symlink_metadata(&path).is_err() {
        return Ok(());
    }
    durable::remove(&path).map_err(|cause| durable::io_error(&path, "cannot be removed", cause))?;
    durable::sync_folder(dir)
}

/// Writes pictures of the samples `indices` of `source`, as far as they are pictures; false where they are not, or not
/// all of them could be read in time, and nothing is written.
///
/// # Errors
/// When the disk is full or fails.
pub(crate) fn keep_mistakes(
    dir: &Path,
    source: &dyn Source,
    viewer: &mut Viewer,
    indices: &[usize],
) -> Result<bool> {
    let began = Instant::now();
    let Some(look) = Look::new(source.spec(), TILE_MAX) else { return Ok(false) };
    let mut tiles = Vec::with_capacity(indices.len());
    for &index in indices {
        match viewer.draw(source, index, 0) {
            Ok(sample) if began.elapsed() < PATIENCE => tiles.push(look.tile(sample.input)),
            _ => return Ok(false),
        }
    }
    write_sheet(&dir.join(MISTAKES_SHEET), &tiles)?;
    Ok(!tiles.is_empty())
}

/// The first numbers of a sample.
fn numbers(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let wide = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let number = |bytes: &[u8]| match dtype {
        DType::U8 => f32::from(bytes[0]),
        DType::U16 => f32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        DType::F16 => half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        DType::U32 => wide(bytes) as f32,
        DType::F32 => f32::from_bits(wide(bytes)),
    };
    bytes.chunks_exact(dtype.bytes()).take(VALUES_MAX).map(number).collect()
}

/// Writes tiles of one size into a sheet, [`COLUMNS`] in a row; nothing where there is none.
fn write_sheet(path: &Path, tiles: &[RgbImage]) -> Result<()> {
    let Some(first) = tiles.first() else { return Ok(()) };
    let (width, height) = first.dimensions();
    let count = tiles.len() as u32;
    let mut sheet = RgbImage::new(COLUMNS.min(count) * width, count.div_ceil(COLUMNS) * height);
    for (at, tile) in (0u32..).zip(tiles) {
        let [x, y] = [at % COLUMNS * width, at / COLUMNS * height];
        image::imageops::replace(&mut sheet, tile, x.into(), y.into());
    }
    let mut png = std::io::Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|e| Error::checkpoint(path.display(), "cannot be written as PNG").caused_by(e))?;
    replace_file(path, png.get_ref())
}

/// The `count` tiles of a sheet, each as a PNG; `png` is the file's contents.
///
/// # Errors
/// When the file is damaged, or not a sheet of so many tiles.
pub(crate) fn tiles(path: &Path, png: &[u8], count: usize) -> Result<Vec<Vec<u8>>> {
    let damaged = |message: String| Error::checkpoint(path.display(), message);
    let mut reader = image::ImageReader::with_format(std::io::Cursor::new(png), ImageFormat::Png);
    let mut limits = image::Limits::default();
    let [rows, columns] = [(count as u32).div_ceil(COLUMNS), COLUMNS.min(count as u32)];
    // A sheet is never larger than its tiles, whatever a damaged head says.
    limits.max_image_width = Some(columns * TILE_MAX);
    limits.max_image_height = Some(rows * TILE_MAX);
    reader.limits(limits);
    let sheet = reader.decode().map_err(|e| damaged("is damaged".into()).caused_by(e))?.to_rgb8();
    let (width, height) = sheet.dimensions();
    if count == 0 || !width.is_multiple_of(columns) || !height.is_multiple_of(rows) {
        return Err(damaged(format!("found {width} x {height} pixels, expected {count} pictures")));
    }
    let [tile_w, tile_h] = [width / columns, height / rows];
    let tile = |at: u32| {
        let [x, y] = [at % COLUMNS * tile_w, at / COLUMNS * tile_h];
        let tile = image::imageops::crop_imm(&sheet, x, y, tile_w, tile_h).to_image();
        let mut png = std::io::Cursor::new(Vec::new());
        let written = tile.write_to(&mut png, ImageFormat::Png);
        written.map_err(|e| damaged("cannot be cut into pictures".into()).caused_by(e))?;
        Ok(png.into_inner())
    };
    (0..count as u32).map(tile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{SampleSpec, TargetSpec};
    use crate::source::Synthetic;

    fn source(shape: Vec<usize>, dtype: DType) -> Synthetic {
        let target = TargetSpec::Class { classes: 3 };
        let spec = SampleSpec { input_shape: shape, input_dtype: dtype, target };
        Synthetic::new(40, spec, 0).expect("a source")
    }

    #[test]
    fn pictures_come_back_as_they_are() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = source(vec![3, 40, 30], DType::U8);
        let indices: Vec<usize> = (3..14).collect();
        let kept = keep_mistakes(dir.path(), &source, &mut Viewer::default(), &indices);
        assert!(kept.expect("writes"));
        let path = dir.path().join(MISTAKES_SHEET);
        let png = std::fs::read(&path).expect("is there");
        let tiles = tiles(&path, &png, indices.len()).expect("a sheet");
        let look = Look::new(source.spec(), TILE_MAX).expect("pictures");
        let mut viewer = Viewer::default();
        for (tile, &index) in tiles.iter().zip(&indices) {
            let found = image::load_from_memory(tile).expect("a picture").to_rgb8();
            let sample = viewer.read(&source, index).expect("made");
            assert!(found == look.tile(sample.input), "picture of sample {index}");
        }
        for (bytes, count) in [(&png[..], 24), (&png[..png.len() / 2], 11), (&b"no"[..], 11)] {
            assert!(super::tiles(&path, bytes, count).is_err());
        }
    }

    #[test]
    fn what_is_no_picture_is_kept_as_numbers() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let source = source(vec![30], DType::F32);
        let mut viewer = Viewer::default();
        keep_samples(dir.path(), &source, &mut viewer, (2, &[5, 1]), true).expect("writes");
        assert!(!keep_mistakes(dir.path(), &source, &mut viewer, &[1]).expect("nothing to write"));
        assert!(!dir.path().join(SAMPLES_SHEET).exists());
        let json = std::fs::read(dir.path().join(SAMPLES)).expect("is there");
        let found: Samples = serde_json::from_slice(&json).expect("as written");
        assert_eq!((found.epoch, found.lacks_transforms), (2, true));
        let [first, second] = &found.samples[..] else { panic!("{found:?}") };
        assert_eq!((first.index, second.index), (5, 1));
        let sample = viewer.read(&source, 5).expect("made");
        let values = numbers(DType::F32, sample.input);
        assert_eq!((values.len(), &first.values), (VALUES_MAX, &values));
        assert!(matches!(sample.target, Target::Class(class) if Some(class) == first.label));
    }
}
