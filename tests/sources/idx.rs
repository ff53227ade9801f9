//! IDX, plain and gzip.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use inflight::source::Source;
use tempfile::{TempDir, tempdir};

use crate::{assert_refusal, open_path, read_all, refusal};

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

fn header(kind: u8, dims: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, kind];
    dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes
}

/// Five images of 2 × 3 pixels, 0 to 29.
fn images() -> Vec<u8> {
    [header(3, &[5, 2, 3]), (0..30).collect()].concat()
}

fn labels() -> Vec<u8> {
    [header(1, &[5]), vec![3, 1, 4, 1, 5]].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A folder with these two files, under these endings.
fn folder(images: &[u8], labels: &[u8], ending: &str) -> (TempDir, PathBuf, PathBuf) {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(format!("{name}{ending}"));
    fs::write(path(IMAGES), images).unwrap();
    fs::write(path(LABELS), labels).unwrap();
    let (images, labels) = (path(IMAGES), path(LABELS));
    (dir, images, labels)
}

fn check(source: &dyn Source) {
    assert_eq!(source.spec().input_shape, [1, 2, 3]);
    assert_eq!(source.spec().classes(), Some(10));
    let expected: Vec<(Vec<u8>, u32)> =
        (0..5).map(|i| ((6 * i..6 * i + 6).collect(), [3, 1, 4, 1, 5][usize::from(i)])).collect();
    assert_eq!(read_all(source), expected);
}

#[test]
fn plain_and_gzip_give_the_same_samples() {
    for (images, labels, ending) in [
        (images(), labels(), ""),
        (gzip(&images()), gzip(&labels()), ".gz"),
        (gzip(&images()), gzip(&labels()), ""),
    ] {
        let (dir, path, _) = folder(&images, &labels, ending);
        let dataset = open_path(dir.path()).unwrap();
        check(&*dataset.train);
        assert!(dataset.test.is_none());
        check(&*open_path(&path).unwrap().train);
    }
}

#[test]
fn statistics_of_the_training_split_normalise_both() {
    let (dir, ..) = folder(&images(), &labels(), "");
    fs::write(
        dir.path().join("t10k-images-idx3-ubyte"),
        [header(3, &[1, 2, 3]), vec![9; 6]].concat(),
    )
    .unwrap();
    fs::write(dir.path().join("t10k-labels-idx1-ubyte"), [header(1, &[1]), vec![7]].concat())
        .unwrap();
    let dataset = open_path(dir.path()).unwrap();
    let test = dataset.test.expect("t10k is the test split");
    assert_eq!(read_all(&*test), [(vec![9; 6], 7)]);
    for info in [dataset.train.info(), test.info()] {
        assert!((info.mean[0] - 14.5 / 255.0).abs() < 1e-6, "{info:?}");
        // The variance of 0..n is (n² − 1) / 12.
        assert!((info.std[0] - (899f32 / 12.0).sqrt() / 255.0).abs() < 1e-6, "{info:?}");
    }
}

/// Adds a pair of files with images of one shade, one for each label.
fn add_pair(folder: &Path, name: &str, shade: u8, labels: &[u8]) {
    let count = labels.len() as u32;
    let images = [header(3, &[count, 2, 3]), vec![shade; 6 * labels.len()]].concat();
    fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
    let labels = [header(1, &[count]), labels.to_vec()].concat();
    fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
}

#[test]
fn names_tell_the_split_of_a_pair() {
    let dir = tempdir().unwrap();
    add_pair(dir.path(), "latest", 1, &[1, 2, 3]);
    add_pair(dir.path(), "t10k", 2, &[4]);
    add_pair(dir.path(), "my-Validation", 3, &[5, 6]);
    let found = open_path(dir.path()).unwrap();
    let shades = |source: &dyn Source| {
        let samples = read_all(source);
        (samples[0].0[0], samples.len())
    };
    assert_eq!(shades(&*found.train), (1, 3));
    assert_eq!(shades(&**found.test.as_ref().unwrap()), (2, 1));
    let validation = found.validation.expect("a part to validate with");
    assert_eq!(shades(&*validation), (3, 2));
    assert_eq!(validation.info().mean, found.train.info().mean);
    // One file alone is still opened alone.
    let path = dir.path().join("my-Validation-images-idx3-ubyte");
    assert_eq!(shades(&*open_path(&path).unwrap().train), (3, 2));
}

#[test]
fn a_second_pair_of_a_split_is_refused() {
    let dir = tempdir().unwrap();
    add_pair(dir.path(), "emnist-letters-train", 1, &[1, 2]);
    add_pair(dir.path(), "emnist-digits-train", 1, &[1, 2]);
    let path = |name: &str| dir.path().join(format!("emnist-{name}-train-images-idx3-ubyte"));
    let message = format!(
        "{{}}: found a second pair of files of the train split beside {}, expected one; \
         try a folder for each data set, or the path of one images file",
        path("digits").display()
    );
    assert_refusal(dir.path(), &path("letters"), &message);
    assert_eq!(open_path(&path("letters")).unwrap().train.len(), 2);
}

#[test]
fn a_file_cut_short_is_refused() {
    let (dir, images_path, _) = folder(&images()[..40], &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: is cut short: found 24 bytes of images, expected 30 for shape [5, 2, 3]; try fetching it again",
    );
    let short = [header(3, &[500, 2, 3]), vec![0; 30]].concat();
    let (dir, images_path, _) = folder(&short, &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: is cut short: found 30 bytes of images, expected 3000 for shape [500, 2, 3]; try fetching it again",
    );
    let (dir, images_path, _) = folder(&images()[..9], &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: is cut short: found 9 bytes, expected a header of 16; try fetching it again",
    );
    let whole = gzip(&images());
    for cut in [3, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        let (dir, images_path, _) = folder(&whole[..cut], &gzip(&labels()), ".gz");
        let error = refusal(dir.path());
        assert_eq!(error.item(), images_path.display().to_string());
        let text = error.to_string();
        assert!(text.contains("cut short") || text.contains("not valid gzip"), "{cut}: {text}");
    }
}

#[test]
fn a_wrong_magic_number_is_refused() {
    let (dir, images_path, _) = folder(&labels(), &images(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: found magic number 00 00 08 01, expected 00 00 08 03 (IDX, unsigned bytes, 3 dimensions); \
         try the other file: images and labels are swapped",
    );
    let (dir, images_path, _) = folder(b"<!DOCTYPE html><html>", &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: found magic number 3c 21 44 4f, expected 00 00 08 03 (IDX, unsigned bytes, 3 dimensions); \
         try fetching it again",
    );
}

#[test]
fn bytes_after_the_data_are_refused() {
    let message = "{}: found more bytes after its data, expected 30 bytes of images for shape [5, 2, 3]; \
                   try fetching it again";
    let longer = [images(), vec![0]].concat();
    let (dir, images_path, _) = folder(&longer, &labels(), "");
    assert_refusal(dir.path(), &images_path, message);
    let (dir, images_path, _) = folder(&gzip(&longer), &labels(), "");
    assert_refusal(dir.path(), &images_path, message);
}

#[test]
fn images_and_labels_must_be_as_many() {
    let four = [header(1, &[4]), vec![3, 1, 4, 1]].concat();
    let (dir, images_path, labels_path) = folder(&images(), &four, "");
    let message = format!(
        "{{}}: found 4 labels, expected 5, one for each image of {}; try a pair of files that belong together",
        images_path.display()
    );
    assert_refusal(dir.path(), &labels_path, &message);
}

#[test]
fn a_label_out_of_range_names_its_sample() {
    let mut wrong = labels();
    wrong[8 + 2] = 10;
    let (dir, _, labels_path) = folder(&images(), &wrong, "");
    let message = "{}: found label 10 at sample 2, expected a label below 10; \
                   try a file `classes.txt` beside it, with one class name a line";
    assert_refusal(dir.path(), &labels_path, message);
    fs::write(dir.path().join("classes.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n").unwrap();
    let dataset = open_path(dir.path()).unwrap();
    assert_eq!(dataset.train.spec().classes(), Some(11));
    assert_eq!(dataset.train.info().class_names[10], "k");
}

#[test]
fn headers_that_claim_too_much_are_refused_before_memory_is_taken() {
    let huge = header(3, &[u32::MAX, u32::MAX, u32::MAX]);
    let (dir, images_path, _) = folder(&huge, &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: found shape [4294967295, 4294967295, 4294967295], expected one whose size fits in memory; \
         try fetching it again",
    );
    let bomb = gzip(&header(3, &[1 << 20, 1 << 10, 1 << 4]));
    let (dir, images_path, _) = folder(&bomb, &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        &format!(
            "{{}}: claims 17179869184 bytes for shape [1048576, 1024, 16], expected at most 67108864 from {} \
             bytes of gzip; try unpacking it first, if it is to be trusted",
            bomb.len()
        ),
    );
    let (dir, images_path, _) = folder(&header(3, &[0, 28, 28]), &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: found shape [0, 28, 28], expected at least one sample of one byte",
    );
}

#[test]
fn a_damaged_gzip_is_refused() {
    let mut bytes = gzip(&images());
    let middle = bytes.len() - 6; // in the checksum
    bytes[middle] ^= 1;
    let (dir, images_path, _) = folder(&bytes, &labels(), "");
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: is damaged: not valid gzip data; try fetching it again",
    );
}

#[test]
fn missing_files_are_named() {
    let (dir, images_path, labels_path) = folder(&images(), &labels(), "");
    fs::remove_file(&labels_path).unwrap();
    assert_refusal(
        dir.path(),
        &images_path,
        "{}: found no labels beside it, expected train-labels-idx1-ubyte or train-labels-idx1-ubyte.gz",
    );
    let nowhere = dir.path().join("nowhere");
    let error = refusal(&nowhere).to_string();
    let expected = format!(
        "source: {}: found neither a file or folder of this name nor a known data set (fashion-mnist, \
         fashion-mnist-10k, mnist, cifar-10, tinyshakespeare); try a path to a folder with IDX files",
        nowhere.display()
    );
    assert!(error.starts_with(&expected), "{error}");
    fs::remove_file(&images_path).unwrap();
    let error = refusal(dir.path()).to_string();
    assert!(error.contains("found a folder without data that can be read"), "{error}");
    let other = dir.path().join("notes.odt");
    fs::write(&other, "hello").unwrap();
    let error = refusal(&other).to_string();
    assert!(error.contains("notes.odt: found a file of no format that can be read"), "{error}");
}

#[test]
fn a_file_that_cannot_be_opened_says_why() {
    let missing = Path::new("no-such-folder/images");
    let error =
        inflight::source::idx::open(missing, missing, 10, Default::default()).err().unwrap();
    assert_eq!(error.to_string(), "source: no-such-folder/images: not found");
    assert!(std::error::Error::source(&error).is_some());
}
