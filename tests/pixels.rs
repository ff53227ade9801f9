//! Decoded and resized pixels beside Pillow's: `tests/pixels/` has small images of every kind, and what Pillow sees in them.
//!
//! All but JPEG must be the same to the bit, and is. JPEG leaves rounding and the interpolation of its coarser colours to
//! the decoder: the bounds say how far apart two good decoders were found to be.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use inflight::decode::{self, header};
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

/// Largest and mean distance from Pillow (libjpeg-turbo) that a kind of file may have.
fn bounds(name: &str) -> (u8, f64) {
    match name {
        // Colours at the edge of what RGB can hold, where a difference of one in each component adds up.
        "opencv-messi_face.jpg" => (8, 0.4),
        // Both decoders interpolate coarser colours by the same weights, and round at other places.
        _ if name.ends_with(".jpg") => (4, 0.15),
        _ => (0, 0.0),
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
        decode::decode(&bytes, channels, &mut pixels).unwrap_or_else(|e| panic!("{name}: {e}"));
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

#[test]
fn parts_are_resized_as_pillow_does() {
    let references = references();
    let file = File::open(folder().join("reference.npz")).expect("a file in the tree");
    let crops: ndarray::Array2<f64> =
        NpzReader::new(file).and_then(|mut npz| npz.by_name("crops")).expect("crops");
    let bytes = bytes_of("png-rgb.png");
    assert!(crops.nrows() >= 8);
    for (i, crop) in crops.rows().into_iter().enumerate() {
        let &[top, left, height, width, new_height, new_width] = crop.as_slice().expect("a row")
        else {
            panic!("six numbers a crop")
        };
        let expected = &references[&format!("crop/{i}")];
        let expected = expected.as_slice().expect("contiguous");
        let mut memory = ImageMemory::default();
        let mut image = Image::encoded(&bytes, [3, 8, 8], &mut memory).expect("a PNG");
        let size = [new_height as usize, new_width as usize];
        image.crop_resize(Crop { top, left, height, width }, size).expect("inside");
        let (max, mean) = distance(image.pixels().expect("resized"), expected);
        println!("crop {i}: at most {max}, in the mean {mean:.4}");
        assert!(max <= 1, "crop {i}: {max}, in the mean {mean}");
    }
}

/// Any folder of JPEGs beside Pillow: `make_reference.py --folder DIR OUT` writes what Pillow sees as OUT/*.rgb, and then
/// `PIXELS=OUT cargo test --test pixels -- --ignored --nocapture`.
#[test]
#[ignore = "needs a folder that make_reference.py has written"]
fn a_whole_folder_is_decoded_as_pillow_does() {
    let out = PathBuf::from(std::env::var_os("PIXELS").expect("PIXELS names the folder"));
    let list = std::fs::read_to_string(out.join("list.txt")).expect("a list of paths");
    let (mut images, mut worst, mut total, mut above) = (0, 0, 0.0, 0);
    for (i, path) in list.lines().enumerate() {
        let mut pixels = Vec::new();
        let bytes = std::fs::read(path).expect("a file");
        decode::decode(&bytes, 3, &mut pixels).unwrap_or_else(|e| panic!("{path}: {e}"));
        let expected = std::fs::read(out.join(format!("{i}.rgb"))).expect("a reference");
        let (max, mean) = distance(&pixels, &expected);
        if max > 4 {
            println!("{path}: at most {max}, in the mean {mean:.4}");
            above += 1;
        }
        (images, worst, total) = (images + 1, worst.max(max), total + mean);
    }
    println!(
        "{images} images: at most {worst}, in the mean {:.4}, {above} above 4",
        total / f64::from(images)
    );
    assert!(images > 0);
}
