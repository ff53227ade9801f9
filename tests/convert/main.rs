//! `inflight convert`: the shards hold what the data set held, whatever happened on the way.

#[cfg(feature = "parquet")]
mod columns;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::convert::{Config, ShardSize, Summary, convert};
use inflight::source::shard_manifest::ShardManifest;
use inflight::source::{
    Dataset, OpenOptions, Resident, Source, SourceInfo, Target, Viewer, open, resident,
};
use inflight::{Error, Result};
use serde_json::Value;
use tempfile::tempdir;

fn open_path(path: &Path) -> Result<Dataset> {
    let options = OpenOptions { offline: true, ..Default::default() };
    open(path.to_str().expect("UTF-8"), &options)
}

fn fashion() -> Dataset {
    let options = OpenOptions { offline: true, ..Default::default() };
    open("fashion-mnist-10k", &options).expect("in-tree")
}

fn of(samples: usize) -> Config {
    Config { size: ShardSize::Samples(samples), workers: 2, ..Config::default() }
}

fn run(dataset: &Dataset, out: &Path, config: &Config) -> Result<Summary> {
    convert(dataset, out, config, &|_, _| ())
}

/// Input and class of every sample as they reach a slot.
fn viewed(source: &dyn Source) -> Vec<(Vec<u8>, u32)> {
    let mut viewer = Viewer::default();
    let mut view = |i| {
        let sample = viewer.read(source, i).expect("a sample");
        let Target::Class(class) = sample.target else { panic!("a classifier") };
        (sample.input.to_vec(), class)
    };
    (0..source.len()).map(&mut view).collect()
}

/// All files under a folder with their bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let walk = walkdir::WalkDir::new(folder).into_iter().map(|entry| entry.expect("readable"));
    walk.filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry.path().strip_prefix(folder).expect("inside").to_owned();
            (name, fs::read(entry.path()).expect("readable"))
        })
        .collect()
}

/// The inputs of a WebDataset's samples as they lie in the shards.
fn stored(source: &dyn Source) -> Vec<Vec<u8>> {
    let mut scratch = Vec::new();
    (0..source.len())
        .map(|i| source.read(i, &mut scratch).expect("a sample").input.to_vec())
        .collect()
}

#[test]
fn raw_images_come_back_bit_for_bit() {
    let dir = tempdir().unwrap();
    let (out, dataset) = (dir.path().join("shards"), fashion());
    let summary = run(&dataset, &out, &of(1000)).unwrap();
    let shards = dataset.train.len().div_ceil(1000)
        + dataset.test.as_ref().map_or(0, |test| test.len().div_ceil(1000));
    assert_eq!((summary.shards, summary.kept, summary.samples), (shards, 0, 10_000));
    let manifest = ShardManifest::load(&out).unwrap().unwrap();
    assert_eq!(manifest.class_names, dataset.train.info().class_names);
    manifest.verify(&out, &|_| ()).unwrap();
    let back = open_path(&out).unwrap();
    assert_eq!(back.train.spec(), dataset.train.spec());
    let (found, expected) = (back.train.info(), dataset.train.info());
    assert_eq!(found.class_names, expected.class_names);
    assert_eq!((&found.mean, &found.std), (&expected.mean, &expected.std));
    assert_eq!(viewed(&*back.train), viewed(&*dataset.train));
    assert_eq!(viewed(&**back.test.as_ref().unwrap()), viewed(&**dataset.test.as_ref().unwrap()));
    // Once more finds everything there, and so does every other number of threads.
    assert_eq!(run(&dataset, &out, &of(1000)).unwrap(), Summary { kept: shards, ..summary });
    let other = dir.path().join("one-thread");
    run(&dataset, &other, &Config { workers: 1, ..of(1000) }).unwrap();
    let mut here = files(&out);
    here.retain(|name, _| !name.to_string_lossy().contains(".inflight-index-"));
    assert_eq!(here, files(&other));
}

#[test]
fn arrays_of_bytes_keep_mean_and_deviation() {
    let dir = tempdir().unwrap();
    // Four channels are no picture.
    let spec = SampleSpec {
        input_shape: vec![4, 2, 2],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 2 },
    };
    let (mean, std) = (vec![0.1, 0.2, 0.3, 0.4], vec![0.5, 0.6, 0.7, 0.8]);
    let info = SourceInfo { mean, std, ..Default::default() };
    let inputs = resident::Inputs::Bytes((0..48).collect());
    let targets = resident::Targets::Classes(vec![1, 0, 1]);
    let source = Resident::new(spec, info, inputs, targets).unwrap();
    let dataset = Dataset::new("arrays", "arrays", std::sync::Arc::new(source), None);
    let out = dir.path().join("out");
    run(&dataset, &out, &of(2)).unwrap();
    let back = open_path(&out).unwrap().train;
    assert_eq!(back.spec(), dataset.train.spec());
    let (found, expected) = (back.info(), dataset.train.info());
    assert_eq!((&found.mean, &found.std), (&expected.mean, &expected.std));
    assert_eq!(viewed(&*back), viewed(&*dataset.train));
}

#[test]
fn files_are_copied_unchanged() {
    let dir = tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    run(&fashion(), &first, &of(4000)).unwrap();
    // Shards of image files are a data set of image files: what is made of them holds the same files.
    let files = open_path(&first).unwrap();
    run(&files, &second, &of(700)).unwrap();
    assert_eq!(stored(&*open_path(&second).unwrap().train), stored(&*files.train));
}

/// The loss of each step of a short training.
fn losses(dataset: &str, folder: &Path) -> Vec<f64> {
    let line = "--model mlp --batch-size 50 --steps 6 --device cpu --seed 5 --no-eval --json --out";
    let output = Command::new(env!("CARGO_BIN_EXE_inflight"))
        .args(["train", dataset])
        .args(line.split(' '))
        .arg(folder)
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let events = String::from_utf8(output.stdout).expect("UTF-8");
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.filter(|event| event["event"] == "step").map(|e| e["loss"].as_f64().unwrap()).collect()
}

#[test]
fn training_from_shards_has_the_losses_of_training_from_their_source() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    run(&fashion(), &out, &of(3000)).unwrap();
    let expected = losses("fashion-mnist-10k", &dir.path().join("a"));
    assert_eq!(expected.len(), 6);
    assert_eq!(losses(out.to_str().unwrap(), &dir.path().join("b")), expected);
}

/// Samples of Fashion-MNIST as files in the folders of their classes; returns their paths in order.
fn image_folder(root: &Path, split: &str, source: &dyn Source, count: usize) -> Vec<PathBuf> {
    let mut viewer = Viewer::default();
    let mut paths = Vec::new();
    for i in 0..count {
        let sample = viewer.read(source, i).unwrap();
        let Target::Class(class) = sample.target else { panic!("a classifier") };
        let picture = image::GrayImage::from_raw(28, 28, sample.input.to_vec()).unwrap();
        // Some are JPEG, whatever their name says.
        let (mut bytes, jpeg) = (std::io::Cursor::new(Vec::new()), i % 3 == 0);
        let format = if jpeg { image::ImageFormat::Jpeg } else { image::ImageFormat::Png };
        picture.write_to(&mut bytes, format).unwrap();
        let path = root.join(split).join(format!("class {class}")).join(format!("{i:05}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes.into_inner()).unwrap();
        paths.push(path);
    }
    paths.sort();
    paths
}

#[test]
fn a_folder_of_images_becomes_shards_with_the_same_files_and_losses() {
    let dir = tempdir().unwrap();
    let (root, out) = (dir.path().join("images"), dir.path().join("out"));
    let fashion = fashion();
    let train = image_folder(&root, "train", &*fashion.train, 400);
    let test = image_folder(&root, "test", &**fashion.test.as_ref().unwrap(), 100);
    let folder = open_path(&root).unwrap();
    assert_eq!((folder.train.len(), folder.test.as_ref().unwrap().len()), (400, 100));
    run(&folder, &out, &of(150)).unwrap();
    let shards = open_path(&out).unwrap();
    let bytes = |paths: &[PathBuf]| -> Vec<Vec<u8>> {
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    };
    assert_eq!(stored(&*shards.train), bytes(&train));
    assert_eq!(stored(&**shards.test.as_ref().unwrap()), bytes(&test));
    assert_eq!(shards.train.spec(), folder.train.spec());
    let names = &shards.train.info().class_names;
    assert_eq!((names, names.len()), (&folder.train.info().class_names, 10));
    let classes =
        |source: &dyn Source| (0..source.len()).map(|i| source.class(i)).collect::<Vec<_>>();
    assert_eq!(classes(&*shards.train), classes(&*folder.train));
    let expected = losses(root.to_str().unwrap(), &dir.path().join("a"));
    assert_eq!(losses(out.to_str().unwrap(), &dir.path().join("b")), expected);
    // A file that changes makes another data set, which is not what was begun.
    fs::write(&train[7], fs::read(&train[8]).unwrap()).unwrap();
    let changed = open_path(&root).unwrap();
    let error = run(&changed, &out, &of(150)).unwrap_err().to_string();
    assert!(error.contains("holds shards of other data or settings"), "{error}");
}

#[test]
fn a_shuffle_is_drawn_once_and_holds_every_sample() {
    let dir = tempdir().unwrap();
    let dataset = fashion();
    let shuffled = |name: &str, seed| {
        let out = dir.path().join(name);
        let config = Config { shuffle_seed: Some(seed), ..of(1500) };
        run(&dataset, &out, &config).unwrap();
        viewed(&*open_path(&out).unwrap().train)
    };
    let (one, again, two) = (shuffled("1", 1), shuffled("1b", 1), shuffled("2", 2));
    assert_eq!(one, again);
    assert_ne!(one, two);
    let sorted = |mut samples: Vec<(Vec<u8>, u32)>| {
        samples.sort();
        samples
    };
    let plain = viewed(&*dataset.train);
    assert_ne!(one, plain);
    assert_eq!(sorted(one), sorted(plain));
}

#[test]
fn shards_are_about_as_large_as_asked() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let config = Config { size: ShardSize::Bytes(1 << 20), ..Config::default() };
    run(&fashion(), &out, &config).unwrap();
    let manifest = ShardManifest::load(&out).unwrap().unwrap();
    let train = &manifest.splits["train"];
    let (last, whole) = train.split_last().unwrap();
    assert!(whole.len() > 4);
    let near = |bytes: u64| (700_000..1_400_000).contains(&bytes);
    assert!(whole.iter().all(|shard| near(shard.bytes)), "{whole:?}");
    assert!(last.bytes < 1_400_000);
}

#[test]
fn what_is_not_its_own_is_left_alone() {
    let dir = tempdir().unwrap();
    let dataset = fashion();
    let refused = |out: &Path, config: &Config, part: &str| {
        let error: Error = run(&dataset, out, config).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "years of work").unwrap();
    refused(&foreign, &of(5000), "holds something else, expected a new or empty folder");
    assert_eq!(files(&foreign).len(), 1);
    let out = dir.path().join("out");
    run(&dataset, &out, &of(5000)).unwrap();
    let before = files(&out);
    refused(&out, &of(4000), "holds shards of other data or settings");
    refused(&out, &Config { shuffle_seed: Some(1), ..of(5000) }, "holds shards of other data");
    assert_eq!(files(&out), before);
    // What is converted must not lie around what is made of it.
    let shards = open_path(&out).unwrap();
    let error = run(&shards, &out.join("again"), &of(10)).unwrap_err().to_string();
    assert!(error.contains("which is what is converted"), "{error}");
    assert!(!out.join("again").exists());
}

/// Writes a file anew. Its time becomes a later one for certain, since it may be told in coarse steps.
fn overwrite(path: &Path, bytes: &[u8]) {
    let later = fs::metadata(path).unwrap().modified().unwrap() + Duration::from_secs(1);
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(later).unwrap();
}

/// Converts what lies at `path`, changes `file`, and expects that the shards are no longer those of the same data.
fn refused_after_change(path: &Path, file: &Path, bytes: &[u8], out: &Path) {
    let open = || open_path(path).unwrap();
    let made = run(&open(), out, &of(2)).unwrap();
    assert_eq!(run(&open(), out, &of(2)).unwrap().kept, made.shards);
    overwrite(file, bytes);
    let error = run(&open(), out, &of(2)).unwrap_err().to_string();
    assert!(error.contains("holds shards of other data"), "{}: {error}", file.display());
}

#[test]
fn files_beside_what_is_converted_are_part_of_it() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let idx = |kind: u8, dims: &[u32], data: &[u8]| -> Vec<u8> {
        let dims = dims.iter().flat_map(|dim| dim.to_be_bytes());
        [0, 0, 8, kind].into_iter().chain(dims).chain(data.iter().copied()).collect()
    };
    let (images, labels) = (path("a-images-idx3-ubyte"), path("a-labels-idx1-ubyte"));
    fs::write(&images, idx(3, &[4, 2, 2], &[7; 16])).unwrap();
    fs::write(&labels, idx(1, &[4], &[0, 1, 2, 1])).unwrap();
    refused_after_change(&images, &labels, &idx(1, &[4], &[0, 1, 2, 2]), &path("of-labels"));
    // Images of a test part from elsewhere, of the same length, with the same labels and the same mean.
    let elsewhere = path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let test = elsewhere.join("b-images-idx3-ubyte");
    let mut pixels: [u8; 16] = std::array::from_fn(|i| i as u8);
    fs::write(&test, idx(3, &[4, 2, 2], &pixels)).unwrap();
    fs::write(elsewhere.join("b-labels-idx1-ubyte"), idx(1, &[4], &[0, 1, 2, 1])).unwrap();
    let both = || {
        let test = Some(open_path(&test).unwrap().train);
        Dataset { test, ..open_path(&images).unwrap() }
    };
    run(&both(), &path("of-both"), &of(2)).unwrap();
    run(&both(), &path("of-both"), &of(2)).unwrap();
    pixels.swap(0, 1);
    overwrite(&test, &idx(3, &[4, 2, 2], &pixels));
    let error = run(&both(), &path("of-both"), &of(2)).unwrap_err().to_string();
    assert!(error.contains("holds shards of other data"), "{error}");
    // A list, whose own file stays as it is.
    let bmp = |grey: u8| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let picture = image::GrayImage::from_pixel(2, 2, image::Luma([grey]));
        picture.write_to(&mut bytes, image::ImageFormat::Bmp).unwrap();
        bytes.into_inner()
    };
    let mut list = String::from("path,label\n");
    for i in 0..4 {
        fs::write(path(&format!("{i}.bmp")), bmp(i)).unwrap();
        list += &format!("{i}.bmp,{}\n", ["cat", "dog"][usize::from(i % 2)]);
    }
    fs::write(path("list.csv"), list).unwrap();
    refused_after_change(&path("list.csv"), &path("2.bmp"), &bmp(9), &path("of-list"));
    // Shards that a pattern stands for.
    let shards = path("of-list").join("train");
    let pattern = shards.join("shard-{000000..000001}.tar");
    let shard = shards.join("shard-000001.tar");
    let bytes = fs::read(&shard).unwrap();
    refused_after_change(&pattern, &shard, &bytes, &path("of-pattern"));
}

#[test]
fn the_reader_holds_shards_against_the_manifest() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    run(&fashion(), &out, &of(1000)).unwrap();
    let shard = out.join("train/shard-000001.tar");
    let whole = fs::read(&shard).unwrap();
    // Another byte in a picture: only a hash can tell.
    let mut flipped = whole.clone();
    flipped[600] ^= 1;
    fs::write(&shard, &flipped).unwrap();
    open_path(&out).unwrap();
    let manifest = ShardManifest::load(&out).unwrap().unwrap();
    let error = manifest.verify(&out, &|_| ()).unwrap_err().to_string();
    assert!(error.contains("shard-000001.tar: found sha256"), "{error}");
    fs::write(&shard, &whole[..whole.len() - 512]).unwrap();
    for path in [&out, &out.join("train"), &shard] {
        let error = open_path(path).err().expect("too short").to_string();
        assert!(
            error.contains("shard-000001.tar: found") && error.contains("that manifest.json says"),
            "{error}"
        );
    }
    fs::remove_file(&shard).unwrap();
    let error = open_path(&out).err().expect("a shard is gone").to_string();
    assert!(error.contains("shard-000001.tar: not found"), "{error}");
    fs::write(&shard, &whole).unwrap();
    // A manifest that is cut off is damaged, not missing; one of another program is left alone.
    let manifest = out.join("manifest.json");
    let text = fs::read(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    for path in [&out, &out.join("train"), &shard] {
        let error = open_path(path).err().expect("damaged").to_string();
        assert!(
            error.contains("manifest.json: is damaged; try making the shards again"),
            "{error}"
        );
    }
    fs::write(&manifest, r#"{"name": "#).unwrap();
    open_path(&out).unwrap();
    fs::write(&manifest, r#"{"inflight_shards": 2}"#).unwrap();
    let error = open_path(&out).err().expect("of the future").to_string();
    assert!(error.contains("found version 2 of shards, expected 1"), "{error}");
}

/// The program's own output of a conversion.
fn command(source: &str, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflight"));
    command.args(["convert", source]).arg(out).args(more).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn a_conversion_that_is_killed_goes_on_to_the_same_bytes() {
    let dir = tempdir().unwrap();
    let whole = dir.path().join("whole");
    let more = ["--samples-per-shard", "250", "--workers", "2", "--shuffle", "--seed", "3"];
    let output = command("fashion-mnist-10k", &whole, &more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = files(&whole);
    let out = dir.path().join("killed");
    let (mut killed, mut wait_ms) = (0, 20);
    // Each start may run a little longer, so that there is an end to it on any machine.
    loop {
        let mut child = command("fashion-mnist-10k", &out, &more).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait_ms));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        killed += 1;
        wait_ms += 40;
    }
    assert!(killed > 3, "killed {killed} times");
    assert_eq!(files(&out), expected);
}

#[test]
fn half_and_damaged_shards_are_made_again() {
    let dir = tempdir().unwrap();
    let (dataset, out, whole) = (fashion(), dir.path().join("out"), dir.path().join("whole"));
    run(&dataset, &whole, &of(1000)).unwrap();
    let expected = files(&whole);
    // A conversion that fails at a shard, because there is a folder in its place, keeps those before it.
    fs::create_dir_all(out.join("train/shard-000003.tar/x")).unwrap();
    fs::create_dir_all(out.join(".convert")).unwrap();
    let refused = run(&dataset, &out, &of(1000)).unwrap_err().to_string();
    assert!(refused.contains("holds something else"), "{refused}");
    fs::remove_dir_all(&out).unwrap();
    let stop = |done: u64, _: u64| assert!(done < 4500, "stop here");
    let config = Config { workers: 1, ..of(1000) };
    let stopped = catch_unwind(AssertUnwindSafe(|| convert(&dataset, &out, &config, &stop)));
    stopped.expect_err("the callback panics");
    // One finished shard is damaged, another gone, a third half there under its other name.
    let record = fs::read_to_string(out.join(".convert/train-shard-000001.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&record).unwrap()["samples"], 1000);
    let damaged = out.join("train/shard-000001.tar");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[700] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    fs::remove_file(out.join("train/shard-000002.tar")).unwrap();
    fs::write(out.join("train/.shard-000004.tar.part"), "half").unwrap();
    let summary = run(&dataset, &out, &config).unwrap();
    assert_eq!(summary.kept, 2, "of four finished ones");
    assert_eq!(files(&out), expected);
}

#[test]
fn the_command_tells_what_it_did() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let output = command("fashion-mnist-10k", &out, &["--json", "--shard-size", "2000000"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&done["event"], &done["samples"], &done["kept"]),
        (&"done".into(), &10_000.into(), &0.into())
    );
    let inspect = |more: &[&str], code: i32| {
        let output = Command::new(env!("CARGO_BIN_EXE_inflight"))
            .arg("inspect")
            .arg(&out)
            .args(more)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&if code == 0 { output.stdout } else { output.stderr }).into_owned()
    };
    let found: Value = serde_json::from_str(&inspect(&["--verify", "--json"], 0)).unwrap();
    assert_eq!(found["verified_bytes"], done["bytes"]);
    let train = fashion().train;
    assert_eq!(found["splits"][0]["samples"], train.len());
    let counts: u64 = found["splits"][0]["label_counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(counts, train.len() as u64);
    let shard = out.join("train/shard-000000.tar");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[600] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let error = inspect(&["--verify"], 3);
    assert!(error.contains("shard-000000.tar: found sha256"), "{error}");
    let exit = |source: &str, out: &Path, more: &[&str]| {
        command(source, out, more).output().unwrap().status.code()
    };
    assert_eq!(exit("fashion-mnist-10k", &out, &["--samples-per-shard", "0"]), Some(2));
    assert_eq!(exit("fashion-mnist-10k", &out, &["--format", "zip"]), Some(2));
    let few = dir.path().join("few");
    let output = command("fashion-mnist-10k", &few, &["--samples-per-shard", "3000"]).output();
    let output = output.unwrap();
    assert_eq!(output.stdout, format!("{}\n", few.display()).as_bytes());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("10,000 samples in 4 shards"), "{told}");
    assert_eq!(exit("nosuch", &dir.path().join("new"), &[]), Some(3));
}
