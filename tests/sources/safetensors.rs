//! Safetensors.

use std::fs;
use std::path::Path;

use inflight::batch::{DType, TargetSpec};
use inflight::source::Target;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use tempfile::tempdir;

use crate::{assert_refusal, open_path, read_all, refusal};

/// Writes a file of tensors.
fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("a tensor"))
    });
    fs::write(path, serialize(views, None).expect("serializes")).expect("writes");
}

fn longs(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn images_and_labels_are_those_that_were_saved() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("digits.safetensors");
    let pixels: Vec<u8> = (0..24).collect();
    write(
        &path,
        &[
            ("x_train", Dtype::U8, &[4, 2, 3], pixels.clone()),
            ("y_train", Dtype::I64, &[4], longs(&[2, 0, 1, 1])),
            ("x_test", Dtype::U8, &[1, 2, 3], vec![7; 6]),
            ("y_test", Dtype::U8, &[1], vec![2]),
        ],
    );
    for path in [&path, dir.path()] {
        let dataset = open_path(path).unwrap();
        assert_eq!(dataset.train.spec().input_shape, [1, 2, 3]);
        assert_eq!(dataset.train.spec().classes(), Some(3));
        let all = read_all(&*dataset.train);
        assert_eq!(all[3], (pixels[18..].to_vec(), 1));
        assert_eq!(read_all(&*dataset.test.unwrap()), [(vec![7; 6], 2)]);
    }
    // Interleaved images become planar by the rules of every other array.
    let planar: Vec<u8> = (0..2 * 3 * 5 * 4).collect();
    let plane = |c: usize| planar[..60].iter().copied().skip(c).step_by(3).collect::<Vec<u8>>();
    write(
        &path,
        &[
            ("images", Dtype::U8, &[2, 5, 4, 3], planar.clone()),
            ("labels", Dtype::U8, &[2], vec![0, 1]),
        ],
    );
    let dataset = open_path(&path).unwrap();
    assert_eq!(dataset.train.spec().input_shape, [3, 5, 4]);
    assert_eq!(read_all(&*dataset.train)[0].0, [plane(0), plane(1), plane(2)].concat());
}

#[test]
fn halves_become_floats() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("table.safetensors");
    let halves = [0.5f32, -2.0, 3.25, 0.0].map(half::f16::from_f32);
    let halves: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
    let values: Vec<u8> = [1.5f32, -1.5].iter().flat_map(|v| v.to_le_bytes()).collect();
    write(&path, &[("x", Dtype::F16, &[2, 2], halves), ("y", Dtype::F32, &[2, 1], values)]);
    let train = open_path(&path).unwrap().train;
    let spec = train.spec();
    assert_eq!((spec.input_dtype, &spec.target), (DType::F32, &TargetSpec::Values { len: 1 }));
    let mut scratch = Vec::new();
    let sample = train.read(1, &mut scratch).unwrap();
    assert_eq!(sample.input, [3.25f32, 0.0].map(f32::to_le_bytes).concat());
    assert_eq!(sample.target, Target::Values(&[-1.5]));
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

#[test]
fn damaged_and_hostile_files_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let again = "; try saving it again";
    let one = |dtype: &str, shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let xy = |x: String, y: String| format!(r#"{{"x":{x},"y":{y}}}"#);
    let good = xy(one("U8", "[4,2]", 0, 8), one("U8", "[4]", 8, 12));
    let invalid = format!("{{}}: is no valid safetensors file{again}");
    let huge = u64::MAX.to_le_bytes().to_vec();
    let cases: Vec<(Vec<u8>, String)> = vec![
        (vec![], format!("{{}}: is cut short: found 0 bytes, expected at least 8{again}")),
        (b"{}".to_vec(), format!("{{}}: is cut short: found 2 bytes, expected at least 8{again}")),
        (b"hello, this is text".to_vec(), invalid.clone()),
        (huge, invalid.clone()),
        (
            file(&good, 12)[..40].to_vec(),
            format!("{{}}: is cut short: its 40 bytes end within its header{again}"),
        ),
        (
            file(&good, 11),
            format!(
                "{{}}: holds {} bytes, expected just those of its tensors{again}",
                8 + good.len() + 11
            ),
        ),
        (file(&xy(one("U8", "[4,2]", 0, 8), one("U8", "[4]", 4, 8)), 8), invalid.clone()),
        (file(&xy(one("U8", "[4,3]", 0, 8), one("U8", "[4]", 8, 12)), 12), invalid.clone()),
        (
            file(&xy(one("U8", "[4611686018427387904,8]", 0, 8), one("U8", "[4]", 8, 12)), 12),
            invalid.clone(),
        ),
        (file(&"[".repeat(100_000), 0), invalid),
        (
            file(&xy(one("C64", "[4]", 0, 32), one("U8", "[4]", 32, 36)), 36),
            "{}: x: found C64 elements, expected U8, floats or integers; try tensor.float() before saving"
                .into(),
        ),
        (
            file(&xy(one("U8", "[4,2]", 0, 8), one("U8", "[3]", 8, 11)), 11),
            "{}: y: found shape [3], expected 4 targets, one for each sample of {}: x".into(),
        ),
        (
            file(&format!(r#"{{"weight":{}}}"#, one("U8", "[4]", 0, 4)), 4),
            "{}: found arrays [weight], expected inputs named one of [x_train, x, images_train, \
             train_images, images]"
                .into(),
        ),
    ];
    for (bytes, message) in cases {
        fs::write(&path, bytes).unwrap();
        assert_refusal(&path, &path, &message);
    }
    // A flipped bit anywhere is an error or another sample; never a panic.
    let whole = file(&good, 12);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        if open_path(&path).is_err() {
            refusal(&path);
        }
    }
}
