//! What many image files have in common, found out from some of them.

use crate::decode::{self, Header};
use crate::error::{Error, Result};
use crate::source::DataConfig;

/// Files whose heads are looked at: enough to see that they differ, few enough for a disk that has to seek.
const HEADS: usize = 64;

/// Rows and columns of images without a size in common.
const SIDE: usize = 224;

/// The shape `[channels, height, width]` in which a model sees the `len` images that `read` reads: as `data` says,
/// else the size that they have in common or 224 x 224, in colour unless all are grey.
///
/// # Errors
/// When none of the images looked at can be read.
pub(crate) fn shape(
    len: usize,
    data: &DataConfig,
    read: impl Fn(usize, &mut Vec<u8>) -> Result<()>,
) -> Result<[usize; 3]> {
    if let (Some(side), Some(channels)) = (data.image_size, data.channels) {
        return Ok([channels, side, side]);
    }
    let (count, mut bytes) = (len.min(HEADS), Vec::new());
    let mut head = |i: usize| {
        read(i * len / count, &mut bytes)?;
        decode::header(&bytes).map_err(|e| e.within(format!("sample {}", i * len / count)))
    };
    // What cannot be read says nothing here; it is an error when its turn comes.
    let heads: Vec<Result<Header>> = (0..count).map(&mut head).collect();
    let good: Vec<&Header> = heads.iter().flatten().collect();
    let Some(first) = good.first() else {
        let none = || Error::data("images", "found none, expected some");
        return Err(heads.into_iter().find_map(Result::err).unwrap_or_else(none));
    };
    let same = good.iter().all(|head| (head.height, head.width) == (first.height, first.width));
    let [height, width] = match (data.image_size, same) {
        (Some(side), _) => [side, side],
        (None, true) => [first.height, first.width],
        (None, false) => [SIDE, SIDE],
    };
    let grey = good.iter().all(|head| head.grey);
    Ok([data.channels.unwrap_or(if grey { 1 } else { 3 }), height, width])
}
