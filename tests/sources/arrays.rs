//! NPY and NPZ.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use inflight::batch::{DType, TargetSpec};
use inflight::source::{DataConfig, OpenOptions, Target, open};
use ndarray::{Array, Array1, Array2, Array3, Array4, ShapeBuilder};
use ndarray_npy::{NpzWriter, WriteNpyExt, write_npy};
use tempfile::{TempDir, tempdir};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::{assert_refusal, open_path, read_all, refusal};

fn labels() -> Array1<i64> {
    Array1::from(vec![2, 0, 1, 1])
}

fn images() -> Array3<u8> {
    Array3::from_shape_fn((4, 2, 3), |(n, y, x)| (10 * n + 3 * y + x) as u8)
}

fn folder() -> TempDir {
    let dir = tempdir().unwrap();
    write_npy(dir.path().join("x.npy"), &images()).unwrap();
    write_npy(dir.path().join("y.npy"), &labels()).unwrap();
    dir
}

#[test]
fn a_folder_and_an_archive_give_the_same_images() {
    let dir = folder();
    let npz = dir.path().join("all.npz");
    for compressed in [false, true] {
        let file = File::create(&npz).unwrap();
        let mut writer =
            if compressed { NpzWriter::new_compressed(file) } else { NpzWriter::new(file) };
        writer.add_array("x_train", &images()).unwrap();
        writer.add_array("y_train", &labels()).unwrap();
        writer.add_array("x_test", &images()).unwrap();
        writer.add_array("y_test", &labels().mapv(|l| l as u8)).unwrap();
        writer.finish().unwrap();
        let (a, b) = (open_path(dir.path()).unwrap(), open_path(&npz).unwrap());
        assert_eq!(a.train.spec().input_shape, [1, 2, 3]);
        assert_eq!(a.train.spec(), b.train.spec());
        assert_eq!(a.train.spec().classes(), Some(3));
        assert_eq!(read_all(&*a.train), read_all(&*b.train));
        assert_eq!(read_all(&*a.train)[3], (vec![30, 31, 32, 33, 34, 35], 1));
        assert!(a.test.is_none());
        assert_eq!(read_all(&*b.test.unwrap()), read_all(&*b.train));
    }
}

#[test]
fn interleaved_and_column_major_images_become_planar() {
    let planar =
        Array4::from_shape_fn((2, 3, 5, 4), |(n, c, y, x)| (100 * n + 30 * c + 4 * y + x) as u8);
    let interleaved = planar.view().permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
    let mut column_major = Array::zeros(planar.dim().f());
    column_major.assign(&planar);
    for array in [planar.clone(), interleaved, column_major] {
        let dir = tempdir().unwrap();
        write_npy(dir.path().join("images.npy"), &array).unwrap();
        write_npy(dir.path().join("labels.npy"), &Array1::from(vec![0u8, 1])).unwrap();
        let dataset = open_path(dir.path()).unwrap();
        assert_eq!(dataset.train.spec().input_shape, [3, 5, 4]);
        let read: Vec<u8> = read_all(&*dataset.train).into_iter().flat_map(|s| s.0).collect();
        assert_eq!(read, planar.as_slice().unwrap());
    }
}

#[test]
fn floats_are_values_and_doubles_become_floats() {
    let dir = tempdir().unwrap();
    write_npy(
        dir.path().join("x.npy"),
        &Array2::from_shape_fn((3, 2), |(n, i)| n as f64 + 0.25 * i as f64),
    )
    .unwrap();
    write_npy(dir.path().join("y.npy"), &Array2::from_shape_fn((3, 1), |(n, _)| -(n as f32)))
        .unwrap();
    let dataset = open_path(dir.path()).unwrap();
    let spec = dataset.train.spec();
    assert_eq!((spec.input_dtype, &spec.target), (DType::F32, &TargetSpec::Values { len: 1 }));
    let sample = dataset
        .train
        .read(2, &mut Vec::new())
        .map(|s| (s.input.to_vec(), s.target == Target::Values(&[-2.0])));
    let expected: Vec<u8> = [2.0f32, 2.25].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_eq!(sample.unwrap(), (expected, true));
    assert!(dataset.train.info().mean.is_empty(), "floats are taken as they are");
}

#[test]
fn labels_are_checked() {
    let dir = folder();
    let y = dir.path().join("y.npy");
    let write = |labels: Vec<i64>| write_npy(&y, &Array1::from(labels)).unwrap();
    write(vec![0, 1, 4, 2]);
    let hint = "; try a file `classes.txt` beside it, with one class name a line";
    assert_refusal(
        dir.path(),
        &y,
        &format!("{{}}: found label 4 at sample 2, but no label 3{hint}"),
    );
    write(vec![0, 1, -1, 2]);
    assert_refusal(dir.path(), &y, "{}: found label -1 at sample 2, expected one from 0 on");
    write(vec![0, 1, 2, i64::MAX]);
    assert_refusal(
        dir.path(),
        &y,
        "{}: found label 9223372036854775807 at sample 3, expected one from 0 on",
    );
    write(vec![0, 1, 2]);
    let message = format!(
        "{{}}: found shape [3], expected 4 targets, one for each sample of {}",
        dir.path().join("x.npy").display()
    );
    assert_refusal(dir.path(), &y, &message);
    write(vec![0, 1, 4, 2]);
    let data = DataConfig { classes: Some(5), ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    assert_eq!(
        open(dir.path().to_str().unwrap(), &options).unwrap().train.spec().classes(),
        Some(5)
    );
}

#[test]
fn test_labels_are_held_to_the_classes_of_training() {
    let dir = folder();
    write_npy(dir.path().join("x_test.npy"), &images()).unwrap();
    let y = dir.path().join("y_test.npy");
    write_npy(&y, &Array1::from(vec![0u8, 1, 2, 3])).unwrap();
    assert_refusal(dir.path(), &y, "{}: found label 3 at sample 3, expected a label below 3");
}

#[test]
fn a_missing_array_lists_what_there_is() {
    let dir = folder();
    fs::remove_file(dir.path().join("y.npy")).unwrap();
    assert_refusal(
        dir.path(),
        dir.path(),
        "{}: found arrays [x], expected targets named one of [y_train, y, labels_train, train_labels, labels]",
    );
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Padded as NumPy pads it, so that the data begins at a multiple of 64.
fn dict(descr: &str, shape: &str) -> String {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    format!("{text:117}\n")
}

#[test]
fn damaged_and_hostile_arrays_are_refused() {
    let dir = folder();
    let x = dir.path().join("x.npy");
    let again = "; try saving it again with np.save";
    let cases: Vec<(Vec<u8>, String)> = vec![
        (b"hello".to_vec(), format!("{{}}: is not an array of NumPy (versions 1 to 3){again}")),
        (npy(&dict("|u1", "(4, 6)"), &[0; 20]), "{}: is cut short: 4 bytes fewer than its shape needs".into()),
        (npy(&dict("|u1", "(4, 6)"), &[0; 25]), "{}: found 1 bytes after its data, expected none".into()),
        (
            npy(&dict("<f4", "(99999999999, 99999999999)"), &[0; 25]),
            "{}: found a shape whose size overflows, expected one that fits the file".into(),
        ),
        (
            npy(&dict("|u1", "(999999999999,)"), &[0; 4]),
            "{}: is cut short: 999999999995 bytes fewer than its shape needs".into(),
        ),
        (
            npy(&"(".repeat(9000), &[]),
            format!("{{}}: found a header nested deeper than any of NumPy's{again}"),
        ),
        (
            npy(&" ".repeat(20_000), &[]),
            format!("{{}}: found a header of 20000 bytes, expected at most 10000{again}"),
        ),
        (
            npy(&dict("<c8", "(4,)"), &[0; 32]),
            "{}: found element type '<c8', expected u1, f4, f8 or integers; try array.astype(np.float32)".into(),
        ),
        (
            npy(&dict(">f4", "(4,)"), &[0; 16]),
            "{}: found big-endian elements, expected little-endian; try array.astype('<f4')".into(),
        ),
        (
            npy(&dict("|u1", "(0, 6)"), &[]),
            "{}: found shape [0, 6], expected [samples, …] with at least one".into(),
        ),
        (
            npy(&dict("<i8", "(4,)"), &[0; 32]),
            "{}: found integers as inputs, expected u1, f4 or f8; try array.astype(np.uint8) for images, \
             array.astype(np.float32) for tables"
                .into(),
        ),
    ];
    for (bytes, message) in cases {
        fs::write(&x, bytes).unwrap();
        assert_refusal(dir.path(), &x, &message);
    }
    fs::write(&x, b"\x93NUMPY\x01\x00\xff\xff{}").unwrap();
    assert!(refusal(dir.path()).to_string().contains("its header is longer"));
    // Whatever the parser makes of it: an error, not a panic.
    for header in ["{}", "{'descr': '|u1'}", "[1, 2", "", "\u{0}\u{ff}"] {
        fs::write(&x, npy(header, &[0; 4])).unwrap();
        refusal(dir.path());
    }
}

fn write_zip(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut zip = ZipWriter::new(File::create(path).unwrap());
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

#[test]
fn archives_that_unpack_to_far_more_than_their_size_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("bomb.npz");
    let mut y = Vec::new();
    Array1::<u8>::zeros(1).write_npy(&mut y).unwrap();
    let x = npy(&dict("|u1", "(1, 134217728)"), &vec![0; 128 << 20]);
    write_zip(&path, &[("x.npy", x), ("y.npy", y)]);
    let text = refusal(&path).to_string();
    assert!(
        text.contains("bomb.npz: x.npy: claims 1342178")
            && text.contains("expected at most 67108864 from"),
        "{text}"
    );
}

#[test]
fn damaged_archives_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.npz");
    let member = |array: &[u8]| npy(&dict("|u1", &format!("({},)", array.len())), array);
    write_zip(&path, &[("x.npy", member(&[1, 2])), ("y.npy", member(&[0, 1]))]);
    assert_eq!(open_path(&path).unwrap().train.len(), 2);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_refusal(&path, &path, "{}: is not an .npz archive; try np.savez");
    // A flipped bit anywhere is an error or leaves the samples as they are; never a panic.
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        if let Ok(dataset) = open_path(&path) {
            assert_eq!(read_all(&*dataset.train), [(vec![1], 0), (vec![2], 1)], "byte {at}");
        }
    }
}
