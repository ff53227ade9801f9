//! WebDataset shards.

use std::fs::{self, File};
use std::path::Path;

use inflight::batch::{DType, TargetSpec};
use inflight::source::{DataConfig, Encoding, OpenOptions, Source, Target, Viewer, open};
use ndarray::Array2;
use ndarray_npy::WriteNpyExt;
use tar::{Builder, EntryType, Header};
use tempfile::{TempDir, tempdir};

use crate::{assert_refusal, open_path, refusal};

/// A picture of one grey, as a PNG file.
fn png(grey: u8, [height, width]: [u32; 2]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::GrayImage::from_pixel(width, height, image::Luma([grey]));
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
    bytes.into_inner()
}

fn header(size: u64, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header
}

fn shard(path: &Path, members: &[(&str, Vec<u8>)]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("makes the folder");
    let mut tar = Builder::new(File::create(path).expect("creates"));
    for (name, bytes) in members {
        let mut header = header(bytes.len() as u64, EntryType::Regular);
        tar.append_data(&mut header, name, &bytes[..]).expect("appends");
    }
    tar.into_inner().expect("ends");
}

/// The members of samples `range`: an image whose grey tells its number, and a label.
fn samples(
    range: std::ops::Range<u8>,
    label: impl Fn(u8) -> (&'static str, String),
) -> Vec<(String, Vec<u8>)> {
    let members = range.flat_map(|i| {
        let (extension, text) = label(i);
        [(format!("a/{i:04}.png"), png(i, [6, 5])), (format!("a/{i:04}.{extension}"), text.into())]
    });
    members.collect()
}

fn borrowed(members: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect()
}

fn cls(i: u8) -> (&'static str, String) {
    ("cls", format!("{}\n", i % 3))
}

/// A folder with two shards of three samples.
fn folder() -> TempDir {
    let dir = tempdir().expect("a folder");
    shard(&dir.path().join("s-000.tar"), &borrowed(&samples(0..3, cls)));
    shard(&dir.path().join("s-001.tar"), &borrowed(&samples(3..6, cls)));
    dir
}

/// The grey of each image and its class.
fn greys(source: &dyn Source) -> Vec<(u8, u32)> {
    let mut viewer = Viewer::default();
    let mut read = |i| {
        let sample = viewer.read(source, i).expect("a sample");
        assert!(sample.input.iter().all(|byte| *byte == sample.input[0]));
        let Target::Class(class) = sample.target else { panic!("a classifier") };
        assert_eq!(source.class(i), Some(class));
        (sample.input[0], class)
    };
    (0..source.len()).map(&mut read).collect()
}

const SIX: [(u8, u32); 6] = [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 2)];

#[test]
fn files_with_one_key_are_a_sample() {
    let dir = folder();
    let pattern = dir.path().join("s-{000..001}.tar");
    for path in [dir.path(), &pattern] {
        let dataset = open_path(path).unwrap();
        let train = &*dataset.train;
        assert_eq!(train.encoding(), Encoding::Image);
        assert_eq!(train.spec().input_shape, [1, 6, 5]);
        assert_eq!(train.spec().classes(), Some(3));
        assert_eq!(greys(train), SIX);
        assert_eq!(train.info().mean, [(0.485 + 0.456 + 0.406) / 3.0]);
        let origin = train.origin(4).unwrap();
        assert!(origin.ends_with("s-001.tar: a/0004.png at byte 2560"), "{origin}");
        assert!(dataset.test.is_none() && dataset.validation.is_none());
    }
    // The bytes are those of the file, read in any order.
    let one = open_path(&dir.path().join("s-001.tar")).unwrap().train;
    let mut scratch = Vec::new();
    for i in [2, 0, 1, 0] {
        assert_eq!(one.read(i, &mut scratch).unwrap().input, png(i as u8 + 3, [6, 5]));
    }
}

#[test]
fn names_and_folders_are_splits() {
    let dir = tempdir().unwrap();
    for (split, range) in [("train", 0..3), ("val", 3..5), ("test", 5..6)] {
        shard(&dir.path().join(split).join("0.tar"), &borrowed(&samples(range.clone(), cls)));
        shard(&dir.path().join(format!("flat/set-{split}-0.tar")), &borrowed(&samples(range, cls)));
    }
    for folder in [dir.path().to_owned(), dir.path().join("flat")] {
        let dataset = open_path(&folder).unwrap();
        assert_eq!(greys(&*dataset.train), SIX[..3]);
        assert_eq!(greys(&**dataset.validation.as_ref().unwrap()), SIX[3..5]);
        assert_eq!(greys(&**dataset.test.as_ref().unwrap()), SIX[5..]);
        assert_eq!(dataset.test.unwrap().info().mean, dataset.train.info().mean);
    }
}

#[test]
fn labels_are_numbers_or_names_in_any_of_three_files() {
    let names = ["owl", "cat", "dog"];
    let name = |i: u8| names[i as usize % 3].to_string();
    type Label = fn(u8, &dyn Fn(u8) -> String) -> (&'static str, String);
    let labels: [Label; 3] = [
        |i, name| ("cls", name(i)),
        |i, name| ("txt", name(i)),
        |i, name| ("json", format!(r#"{{"width": 5, "label": "{}"}}"#, name(i))),
    ];
    for label in labels {
        let dir = tempdir().unwrap();
        shard(&dir.path().join("a.tar"), &borrowed(&samples(0..2, |i| label(i, &name))));
        shard(&dir.path().join("b.tar"), &borrowed(&samples(2..6, |i| label(i, &name))));
        let train = open_path(dir.path()).unwrap().train;
        assert_eq!(train.info().class_names, ["cat", "dog", "owl"]);
        let classes: Vec<u32> = greys(&*train).into_iter().map(|(_, class)| class).collect();
        assert_eq!(classes, [2, 0, 1, 2, 0, 1]);
        // A list of names beside the shards gives them their order.
        fs::write(dir.path().join("classes.txt"), "owl\ncat\ndog\nyak\n").unwrap();
        let train = open_path(dir.path()).unwrap().train;
        assert_eq!((greys(&*train), train.spec().classes()), (SIX.to_vec(), Some(4)));
        fs::write(dir.path().join("classes.txt"), "owl\ncat\n").unwrap();
        let error = refusal(dir.path()).to_string();
        assert!(error.contains("b.tar: found label dog, expected one of the 2 classes"), "{error}");
    }
    let dir = tempdir().unwrap();
    let json = |i: u8| ("json", format!(r#"{{"cls": {}}}"#, i % 3));
    shard(&dir.path().join("a.tar"), &borrowed(&samples(0..6, json)));
    assert_eq!(greys(&*open_path(dir.path()).unwrap().train), SIX);
    // A caption beside the label is no label.
    let mut members = samples(0..6, cls);
    members.insert(1, ("a/0000.txt".into(), b"a picture of nothing".to_vec()));
    shard(&dir.path().join("a.tar"), &borrowed(&members));
    assert_eq!(greys(&*open_path(dir.path()).unwrap().train), SIX);
}

#[test]
fn arrays_are_samples_too() {
    let dir = tempdir().unwrap();
    let array = |n: usize| {
        let mut bytes = Vec::new();
        Array2::from_shape_fn((2, 3), |(y, x)| (n + 3 * y + x) as f32)
            .write_npy(&mut bytes)
            .unwrap();
        bytes
    };
    let path = dir.path().join("a.tar");
    let good = [
        ("0.npy", array(7)),
        ("0.cls", b"1".to_vec()),
        ("1.npy", array(9)),
        ("1.cls", b"0".to_vec()),
    ];
    shard(&path, &good);
    let train = open_path(&path).unwrap().train;
    let target = TargetSpec::Class { classes: 2 };
    let spec = train.spec();
    assert_eq!(
        (&spec.input_shape[..], spec.input_dtype, &spec.target),
        (&[1, 2, 3][..], DType::F32, &target)
    );
    let mut scratch = Vec::new();
    let sample = train.read(1, &mut scratch).unwrap();
    assert_eq!(sample.input, [9.0f32, 10.0, 11.0, 12.0, 13.0, 14.0].map(f32::to_le_bytes).concat());
    let mut other = Vec::new();
    Array2::<u8>::zeros((2, 3)).write_npy(&mut other).unwrap();
    shard(&path, &[good[0].clone(), good[1].clone(), ("1.npy", other), good[3].clone()]);
    let error = open_path(&path).unwrap().train.read(1, &mut scratch).unwrap_err().to_string();
    assert!(
        error.contains("1.npy at byte")
            && error.contains("found U8[1, 2, 3], expected F32[1, 2, 3]"),
        "{error}"
    );
}

/// The index files in a folder.
fn indexes(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".inflight-index-"))
        .collect()
}

#[test]
fn an_index_is_made_once_and_again_for_shards_that_changed() {
    let dir = folder();
    open_path(dir.path()).unwrap();
    let [index] = &indexes(dir.path())[..] else { panic!("one index") };
    let first = fs::read(index).unwrap();
    // What the second start knows is from the index: with another label in it, it is that one that is read.
    open_path(dir.path()).unwrap();
    assert_eq!(fs::read(index).unwrap(), first);
    // One shard is written anew; its samples change, the others stay.
    shard(&dir.path().join("s-001.tar"), &borrowed(&samples(9..12, cls)));
    let read = greys(&*open_path(dir.path()).unwrap().train);
    assert_eq!(read, [(0, 0), (1, 1), (2, 2), (9, 0), (10, 1), (11, 2)]);
    assert_ne!(fs::read(index).unwrap(), first);
    // A damaged index is as good as none.
    let whole = fs::read(index).unwrap();
    for at in [0, 9, 20, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        fs::write(index, flipped).unwrap();
        assert_eq!(greys(&*open_path(dir.path()).unwrap().train), read);
        assert_eq!(fs::read(index).unwrap(), whole, "made again");
        fs::write(index, &whole[..at]).unwrap();
        assert_eq!(greys(&*open_path(dir.path()).unwrap().train), read);
    }
}

#[test]
fn the_second_start_does_not_scan() {
    let dir = folder();
    let path = dir.path().join("s-000.tar");
    open_path(&path).unwrap();
    // Damage that only a scan would see, hidden behind the old time of change.
    let meta = fs::metadata(&path).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[..512].fill(0xff);
    fs::write(&path, bytes).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(meta.modified().unwrap())
        .unwrap();
    assert_eq!(greys(&*open_path(&path).unwrap().train), SIX[..3]);
    fs::remove_file(&indexes(dir.path())[0]).unwrap();
    refusal(&path);
}

#[test]
fn where_shards_cannot_be_written_to_the_cache_folder_keeps_the_index() {
    let (dir, cache) = (folder(), tempdir().unwrap());
    // A folder in the place of the index: neither read nor replaced.
    open_path(dir.path()).unwrap();
    let [index] = &indexes(dir.path())[..] else { panic!("one index") };
    fs::remove_file(index).unwrap();
    fs::create_dir_all(index.join("full")).unwrap();
    let options =
        OpenOptions { offline: true, cache_dir: Some(cache.path()), ..Default::default() };
    let open = || greys(&*open(dir.path().to_str().unwrap(), &options).unwrap().train);
    assert_eq!(open(), SIX);
    assert_eq!(fs::read_dir(cache.path().join("indexes")).unwrap().count(), 1);
    assert_eq!(open(), SIX);
}

#[test]
fn a_shard_that_changes_during_the_run_is_told() {
    let dir = folder();
    let path = dir.path().join("s-000.tar");
    let train = open_path(&path).unwrap().train;
    let mut scratch = Vec::new();
    train.read(0, &mut scratch).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..700]).unwrap();
    let error = train.read(1, &mut scratch).unwrap_err().to_string();
    assert!(error.contains("s-000.tar") && error.contains("changed during the run"), "{error}");
}

#[test]
fn cut_off_shards_name_shard_and_byte() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.tar");
    shard(&path, &borrowed(&samples(0..2, cls)));
    let whole = fs::read(&path).unwrap();
    // Each member takes a header and a block; the archive ends with two blocks of zeros.
    assert_eq!(whole.len(), 4 * 1024 + 1024);
    let again = "; try making the shard again";
    fs::write(&path, &whole[..1024 + 512 + 1]).unwrap();
    assert_refusal(
        &path,
        &path,
        &format!(
            "{{}}: found a member of 2 bytes where the shard has 1 left: it is cut short (a/0000.cls at byte 1024){again}"
        ),
    );
    fs::write(&path, &whole[..2048]).unwrap();
    assert_refusal(
        &path,
        &path,
        &format!(
            "{{}}: ends at byte 2048, expected more members or an end{again}: it is cut short"
        ),
    );
    fs::write(&path, &whole[..2048 + 100]).unwrap();
    assert_refusal(
        &path,
        &path,
        &format!("{{}}: is damaged at byte 2048, expected the header of a member{again}"),
    );
    fs::write(&path, b"").unwrap();
    refusal(&path);
    // Wherever it is cut, it is an error or whole; never a panic, never fewer samples.
    fs::write(&path, &whole).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    for len in (0..whole.len()).rev() {
        file.set_len(len as u64).unwrap();
        if let Ok(dataset) = open_path(&path) {
            assert_eq!(dataset.train.len(), 2, "cut at {len}");
        }
    }
}

#[test]
fn hostile_archives_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let raw = |name: &[u8], kind: EntryType, size: u64, content: &[u8]| {
        let mut header = header(size, kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        fs::write(&path, bytes).unwrap();
    };
    let leaves =
        |name: &str| format!("{{}}: found a name that leaves its folder ({name} at byte 0)");
    raw(b"../up.png", EntryType::Regular, 4, b"abcd");
    assert_refusal(&path, &path, &leaves("../up.png"));
    raw(b"/etc/up.png", EntryType::Regular, 4, b"abcd");
    assert_refusal(&path, &path, &leaves("/etc/up.png"));
    for (kind, what) in [
        (EntryType::Symlink, "Symlink"),
        (EntryType::Link, "Link"),
        (EntryType::Fifo, "Fifo"),
        (EntryType::Char, "Char"),
    ] {
        raw(b"0.png", kind, 0, b"");
        assert_refusal(
            &path,
            &path,
            &format!("{{}}: found a {what}, expected only files and folders (0.png at byte 0)"),
        );
    }
    raw(b"0.png", EntryType::Regular, 1 << 40, b"abcd");
    assert_refusal(
        &path,
        &path,
        "{}: found a member of 1099511627776 bytes where the shard has 1536 left: it is cut short (0.png at byte 0); try making the shard again",
    );
    // A size that leads into the middle of another member.
    let mut bytes = Vec::new();
    for (name, size) in [("0.png", 512u64), ("1.png", 2048)] {
        let mut header = header(size, EntryType::Regular);
        header.set_path(name).unwrap();
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend([7; 2048]);
    }
    bytes.extend([0; 1024]);
    fs::write(&path, &bytes).unwrap();
    assert_refusal(
        &path,
        &path,
        "{}: is damaged at byte 1024, expected the header of a member; try making the shard again",
    );
    // A second archive behind the first would be left out in silence.
    shard(&path, &borrowed(&samples(0..2, cls)));
    let twice = fs::read(&path).unwrap().repeat(2);
    fs::write(&path, twice).unwrap();
    assert_refusal(
        &path,
        &path,
        "{}: found data at byte 5120 behind the end of the archive at byte 4096; try one archive a shard",
    );
}

#[test]
fn samples_without_a_part_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let adjacent = "; try members of a sample next to each other: tar --sort=name";
    let image = || png(1, [6, 5]);
    type Members<'a> = Vec<(&'a str, Vec<u8>)>;
    let cases: Vec<(Members<'_>, String)> = vec![
        (
            vec![("0.png", image()), ("1.png", image()), ("0.cls", b"0".to_vec())],
            format!("found no label, expected a .cls, .json or .txt file beside it (sample 0 at byte 0){adjacent}"),
        ),
        (
            vec![("0.cls", b"0".to_vec()), ("1.png", image())],
            format!("found a label without an image or .npy file beside it (sample 0 at byte 0){adjacent}"),
        ),
        (
            vec![("0.png", image()), ("0.jpg", image()), ("0.cls", b"0".to_vec())],
            "found a second input of the same sample (0.jpg at byte 1024)".into(),
        ),
        (
            vec![("0.png", image()), ("0.cls", b"-3".to_vec())],
            "found label -3, expected a whole number from 0 on (0.cls at byte 1024)".into(),
        ),
        (
            vec![("0.png", image()), ("0.cls", b"3".to_vec()), ("1.png", image()), ("1.cls", b"cat".to_vec())],
            "found both numbers and names as labels, expected one of them (sample 1 at byte 2048)".into(),
        ),
        (
            vec![("0.png", image()), ("0.cls", b"1".to_vec())],
            "found label 1 at sample 0, but no label 0; try a file `classes.txt` beside it, with one class name a line".into(),
        ),
        (
            vec![("README", b"hello".to_vec())],
            "found no samples, expected files as 0001.jpg with 0001.cls beside it".into(),
        ),
    ];
    for (members, message) in cases {
        shard(&path, &members);
        assert_refusal(&path, &path, &format!("{{}}: {message}"));
    }
    let data = DataConfig { classes: Some(1), ..Default::default() };
    shard(&path, &[("0.png", image()), ("0.cls", b"1".to_vec())]);
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    let error = open(path.to_str().unwrap(), &options).err().unwrap().to_string();
    assert!(error.contains("found label 1 at sample 0, expected a label below 1"), "{error}");
    // What claims to be an image and is none is told with its place.
    shard(&path, &[("0.png", b"no image".to_vec()), ("0.cls", b"0".to_vec())]);
    let error = refusal(&path).to_string();
    assert!(error.contains("sample 0") && error.contains("no known format"), "{error}");
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = folder();
    let missing = dir.path().join("s-{000..002}.tar");
    let error = refusal(&missing).to_string();
    assert!(error.contains("s-002.tar") && error.contains("not found"), "{error}");
    let error = refusal(&dir.path().join("s-{000..}.tar")).to_string();
    assert!(error.contains("found {000..}, expected whole numbers"), "{error}");
    let packed = dir.path().join("p.tar.gz");
    fs::write(&packed, [0x1f, 0x8b, 8, 0, 0]).unwrap();
    assert_refusal(
        &packed,
        &packed,
        "{}: is compressed, expected a plain .tar that can be read in any order; try unpacking it to a .tar",
    );
    let text = dir.path().join("t.tar");
    fs::write(&text, "this is text").unwrap();
    refusal(&text);
}
