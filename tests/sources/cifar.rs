//! CIFAR-10 in its binary version.

use std::fs;

use tempfile::tempdir;

use crate::{assert_refusal, open_path, read_all};

fn record(label: u8, fill: u8) -> Vec<u8> {
    let mut bytes = vec![label];
    bytes.extend((0..3072u32).map(|i| fill.wrapping_add((i / 1024) as u8)));
    bytes
}

#[test]
fn batches_follow_each_other_and_stay_planar() {
    let dir = tempdir().unwrap();
    let batches = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&batches).unwrap();
    fs::write(batches.join("data_batch_2.bin"), record(2, 20)).unwrap();
    fs::write(batches.join("data_batch_1.bin"), [record(1, 10), record(9, 90)].concat()).unwrap();
    fs::write(batches.join("test_batch.bin"), record(5, 50)).unwrap();
    for path in [dir.path(), &batches] {
        let dataset = open_path(path).unwrap();
        assert_eq!(dataset.train.spec().input_shape, [3, 32, 32]);
        let train = read_all(&*dataset.train);
        let classes: Vec<u32> = train.iter().map(|(_, class)| *class).collect();
        assert_eq!(classes, [1, 9, 2]);
        assert_eq!((train[1].0[0], train[1].0[1024], train[1].0[3071]), (90, 91, 92));
        assert_eq!(read_all(&*dataset.test.unwrap())[0].1, 5);
        assert_eq!(dataset.train.info().class_names[9], "truck");
        assert_eq!(dataset.train.info().mean.len(), 3);
    }
}

#[test]
fn a_torn_record_and_a_wrong_label_are_refused() {
    let dir = tempdir().unwrap();
    let file = dir.path().join("data_batch_1.bin");
    fs::write(&file, &record(1, 0)[..3000]).unwrap();
    assert_refusal(
        dir.path(),
        &file,
        "{}: found 3000 bytes, expected a multiple of 3073, the size of a record; try fetching it again",
    );
    fs::write(&file, [record(1, 0), record(10, 0)].concat()).unwrap();
    assert_refusal(dir.path(), &file, "{}: found label 10 at sample 1, expected a label below 10");
    fs::write(&file, []).unwrap();
    assert_refusal(
        dir.path(),
        &file,
        "{}: found 0 bytes, expected a multiple of 3073, the size of a record; try fetching it again",
    );
}
