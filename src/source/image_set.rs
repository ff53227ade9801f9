//! What many image files have in common, found out from some of them.

use rayon::prelude::*;

use crate::decode;
use crate::error::Result;
use crate::source::{DataConfig, Source, Viewer};

/// Files whose heads are looked at.
const LOOKED_AT: usize = 64;

/// Images that mean and deviation are computed from: with 50,176 pixels each, more than enough.
const MEASURED: usize = 256;

/// Rows and columns of images without a size in common.
const SIDE: usize = 224;

/// So many samples of `len`, spread evenly.
fn spread(len: usize, most: usize) -> impl IndexedParallelIterator<Item = usize> {
    let count = len.min(most);
    (0..count).into_par_iter().map(move |i| i * len / count)
}

/// The shape `[channels, height, width]` in which a model sees images that `read` reads: as `data` says, else the size
/// that they have in common or 224 x 224, in colour unless all are grey.
///
/// # Errors
/// When a file cannot be read or is no image.
pub(crate) fn shape(
    len: usize,
    data: &DataConfig,
    read: impl Fn(usize, &mut Vec<u8>) -> Result<()> + Sync,
) -> Result<[usize; 3]> {
    if let (Some(side), Some(channels)) = (data.image_size, data.channels) {
        return Ok([channels, side, side]);
    }
    let headers: Vec<Result<decode::Header>> = spread(len, LOOKED_AT)
        .map(|index| {
            let mut bytes = Vec::new();
            read(index, &mut bytes)?;
            decode::header(&bytes).map_err(|e| e.within(format!("sample {index}")))
        })
        .collect();
    let headers = headers.into_iter().collect::<Result<Vec<_>>>()?;
    let grey = headers.iter().all(|header| header.grey);
    let [height, width] = match (data.image_size, &headers[..]) {
        (Some(side), _) => [side, side],
        (None, [first, others @ ..])
            if others.iter().all(|h| (h.height, h.width) == (first.height, first.width)) =>
        {
            [first.height, first.width]
        }
        _ => [SIDE, SIDE],
    };
    Ok([data.channels.unwrap_or(if grey { 1 } else { 3 }), height, width])
}

/// Mean and deviation of each channel of a source of images, in units of a full byte.
///
/// # Errors
/// When one of the images looked at cannot be read or decoded.
pub(crate) fn mean_and_std(source: &dyn Source) -> Result<(Vec<f32>, Vec<f32>)> {
    let channels = source.spec().input_shape[0];
    let sums: Vec<Result<Vec<[u64; 3]>>> = spread(source.len(), MEASURED)
        .map(|index| {
            let mut viewer = Viewer::default();
            let sample = viewer.read(source, index)?;
            let planes = sample.input.chunks_exact(sample.input.len() / channels);
            Ok(planes.map(plane_sums).collect())
        })
        .collect();
    let mut all = vec![[0; 3]; channels];
    for sums in sums {
        for (all, [count, sum, squares]) in all.iter_mut().zip(sums?) {
            *all = [all[0] + count, all[1] + sum, all[2] + squares];
        }
    }
    let moments = |[count, sum, squares]: [u64; 3]| {
        let mean = sum as f64 / count as f64;
        let variance = squares as f64 / count as f64 - mean * mean;
        // A channel that never changes carries nothing; a deviation of 1 leaves it at 0.
        let std = if variance > 0.0 { variance.sqrt() / 255.0 } else { 1.0 };
        ((mean / 255.0) as f32, std as f32)
    };
    Ok(all.into_iter().map(moments).unzip())
}

/// Number of the bytes, their sum, and the sum of their squares.
fn plane_sums(plane: &[u8]) -> [u64; 3] {
    let sum = plane.iter().map(|&byte| u64::from(byte)).sum();
    let squares = plane.iter().map(|&byte| u64::from(byte) * u64::from(byte)).sum();
    [plane.len() as u64, sum, squares]
}
