//! What many image files have in common, found out from some of them, and what photographs are normalised by.

use crate::decode::Header;
use crate::error::{Error, Result};
use crate::source::DataConfig;

/// Rows and columns of images whose files do not agree on a size and for which none is asked for.
const IMAGE_SIZE: usize = 224;
/// Mean of each channel of ImageNet's photographs, which trained models expect (torchvision).
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Deviation of each channel of ImageNet's photographs.
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Files whose heads are looked at: enough to see that they differ, few enough for a disk that has to seek.
const HEADS: usize = 64;

/// What normalises photographs, mean and deviation of each channel: grey ones by the mean of the channels.
pub(crate) fn normalisation(channels: usize) -> (Vec<f32>, Vec<f32>) {
    let of = |values: [f32; 3]| match channels {
        3 => values.to_vec(),
        _ => vec![values.iter().sum::<f32>() / 3.0; channels],
    };
    (of(IMAGENET_MEAN), of(IMAGENET_STD))
}

/// `[channels, height, width]` where `data` asks for all of it, so that no file need be looked at.
pub(crate) fn asked_for(data: &DataConfig) -> Option<[usize; 3]> {
    let (size, channels) = (data.image_size?, data.channels?);
    Some([channels, size, size])
}

/// The shape `[channels, height, width]` in which a model sees `len` images whose heads `head` reads: as `data` says,
/// else the size that those looked at have in common or 224 x 224, in colour unless all are grey.
///
/// # Errors
/// The first one of `head` when none can be read; `none` says that there is nothing to read.
pub(crate) fn shape(
    len: usize,
    data: &DataConfig,
    head: impl FnMut(usize) -> Result<Header>,
    none: impl FnOnce() -> Error,
) -> Result<[usize; 3]> {
    let count = len.min(HEADS);
    // What cannot be read says nothing here; it is an error when its turn comes.
    let heads: Vec<Result<Header>> = (0..count).map(|i| i * len / count).map(head).collect();
    let good: Vec<&Header> = heads.iter().flatten().collect();
    let Some(first) = good.first() else {
        return Err(heads.into_iter().find_map(Result::err).unwrap_or_else(none));
    };
    let same = good.iter().all(|head| (head.height, head.width) == (first.height, first.width));
    let [height, width] = match (data.image_size, same) {
        (Some(size), _) => [size, size],
        (None, true) => [first.height, first.width],
        (None, false) => [IMAGE_SIZE, IMAGE_SIZE],
    };
    let grey = good.iter().all(|head| head.grey);
    Ok([data.channels.unwrap_or(if grey { 1 } else { 3 }), height, width])
}
