//! Decoded and resized pixels beside Pillow's: `tests/pixels/` has small images of every kind, and what Pillow sees in them.
//!
//! All but JPEG must be the same to the bit, and is. JPEG leaves rounding and the interpolation of its coarser colours to
//! the decoder: that of Pillow is libjpeg-turbo, which must give the same, at reduced sizes too; the bounds of the other
//! one say how far apart two good decoders were found to be.
//!
//! `make_reference.py --folder DIR OUT` writes what Pillow sees in a folder of JPEGs, and `PIXELS=OUT cargo test --test
//! pixels -- --ignored --nocapture` then looks at those as well.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

use inflight::decode::{self, JpegCodec, Method, header};
#[cfg(feature = "turbojpeg")]
use inflight::decode::{DecodeSize, Reduction};
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
fn references(archive: &str) -> BTreeMap<String, ArrayD<u8>> {
    let file = File::open(folder().join(archive)).expect("a file in the tree");
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
fn bounds(name: &str, codec: JpegCodec) -> (u8, f64) {
    match name {
        _ if codec != JpegCodec::Zune => (0, 0.0),
        // Colours at the edge of what RGB can hold, where a difference of one in each component adds up.
        "opencv-messi_face.jpg" => (8, 0.4),
        // Both decoders interpolate coarser colours by the same weights, and round at other places.
        _ if name.ends_with(".jpg") => (4, 0.15),
        _ => (0, 0.0),
    }
}

/// Decodes a file by a method, and says what is wrong where it is further from Pillow than `allowed`.
fn compare(
    (name, bytes): (&str, &[u8]),
    channels: usize,
    method: Method,
    expected: &[u8],
    (max_allowed, mean_allowed): (u8, f64),
) -> Option<String> {
    let mut pixels = Vec::new();
    decode::decode_by(bytes, channels, method, &mut pixels)
        .unwrap_or_else(|e| panic!("{name}, {method:?}: {e}"));
    let (max, mean) = distance(&pixels, expected);
    let found = format!("{name}, {method:?}: at most {max}, in the mean {mean:.4}");
    println!("{found}");
    (max > max_allowed || mean > mean_allowed)
        .then(|| format!("{found}, expected {max_allowed}, {mean_allowed}"))
}

#[test]
fn decoded_pixels_are_those_of_pillow() {
    let references = references("reference.npz");
    assert!(references.len() > 50, "found {}", references.len());
    let mut wrong = Vec::new();
    for (name, expected) in references.iter().filter(|(name, _)| !name.starts_with("crop/")) {
        let (file, channels) = match name.strip_suffix("/grey") {
            Some(file) => (file, 1),
            None => (&**name, 3),
        };
        let bytes = bytes_of(file);
        let head = header(&bytes).expect("an image");
        assert_eq!([head.height, head.width], expected.shape()[..2], "{name}");
        let expected = expected.as_slice().expect("contiguous");
        for &codec in JpegCodec::ALL {
            let method = Method { codec, ..Default::default() };
            let mut allowed = bounds(file, codec);
            if channels == 1 && file.ends_with(".jpg") {
                // The file's own brightness, where Pillow was asked to compute it from the colours.
                allowed = bounds(file, JpegCodec::Zune);
            }
            wrong.extend(compare((name, &bytes), channels, method, expected, allowed));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// At half, a quarter and an eighth of their size files are what Pillow's `Image.draft` sees in them.
#[test]
#[cfg(feature = "turbojpeg")]
fn pixels_at_reduced_size_are_those_of_pillow() {
    let drafts = references("drafts.npz");
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, expected) in drafts.iter().filter(|(name, _)| !name.starts_with("crop/")) {
        let (file, divisor) = name.split_once('/').expect("NAME/DIVISOR");
        let by = |reduction: &Reduction| reduction.divisor().to_string() == divisor;
        let reduction = Reduction::ALL.into_iter().find(by).expect("2, 4 or 8");
        let method = Method { reduction, ..Default::default() };
        let expected = expected.as_slice().expect("contiguous");
        wrong.extend(compare((name, &bytes_of(file)), 3, method, expected, (0, 0.0)));
        compared += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared >= 3 * 24, "found {compared}");
}

/// Parts of files that are decoded at a reduced size, however they are turned.
#[test]
#[cfg(feature = "turbojpeg")]
fn parts_at_reduced_size_are_resized_as_pillow_does() {
    let drafts = references("drafts.npz");
    let crops = crops("drafts.npz");
    let mut compared = 0;
    for (name, expected) in drafts.iter().filter(|(name, _)| name.starts_with("crop/")) {
        let [_, i, file] = name.splitn(3, '/').collect::<Vec<_>>()[..] else {
            panic!("crop/I/NAME")
        };
        let &[top, left, height, width, new_height, new_width] =
            crops.row(i.parse().expect("a number")).as_slice().expect("a row")
        else {
            panic!("six numbers a crop")
        };
        let bytes = bytes_of(file);
        let (crop, size) =
            (Crop { top, left, height, width }, [new_height as usize, new_width as usize]);
        let pixels = |size_to_decode| {
            let mut memory = ImageMemory::default();
            let image = Image::encoded(&bytes, [3, 8, 8], &mut memory).expect("a JPEG");
            let mut image = image.decoded_at(size_to_decode);
            image.crop_resize(crop, size).expect("inside");
            image.pixels().expect("resized").to_vec()
        };
        let expected = expected.as_slice().expect("contiguous");
        let reduced = pixels(DecodeSize::Reduced);
        let (max, mean) = distance(&reduced, expected);
        println!("{name}: at most {max}, in the mean {mean:.4}");
        assert!(max <= 1, "{name}: {max}, in the mean {mean}");
        assert_ne!(reduced, pixels(DecodeSize::Full), "{name} was decoded in full");
        compared += 1;
    }
    assert!(compared >= 12, "found {compared}");
}

/// The parts that Pillow cut out, a row each.
fn crops(archive: &str) -> ndarray::Array2<f64> {
    let file = File::open(folder().join(archive)).expect("a file in the tree");
    NpzReader::new(file).and_then(|mut npz| npz.by_name("crops")).expect("crops")
}

#[test]
fn parts_are_resized_as_pillow_does() {
    let references = references("reference.npz");
    let crops = crops("reference.npz");
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

/// The JPEGs of the folder that PIXELS names, if it does: photographs of any kind, so the bounds are wide.
#[test]
#[ignore = "needs PIXELS, a folder that make_reference.py wrote"]
fn other_files_are_decoded_as_pillow_does() {
    let out = PathBuf::from(std::env::var_os("PIXELS").expect("PIXELS is a folder"));
    let list = std::fs::read_to_string(out.join("list.txt")).expect("a list of paths");
    let mut wrong = Vec::new();
    for (i, path) in list.lines().enumerate() {
        let bytes = std::fs::read(path).expect("a file");
        let expected = std::fs::read(out.join(format!("{i}.rgb"))).expect("a reference");
        for &codec in JpegCodec::ALL {
            let method = Method { codec, ..Default::default() };
            let allowed = if codec == JpegCodec::Zune { (32, 1.0) } else { (0, 0.0) };
            wrong.extend(compare((path, &bytes), 3, method, &expected, allowed));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
