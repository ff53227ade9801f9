//! Streams from standard input, and from any reader.

use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use inflight::source::{DataConfig, ENDLESS, Source, Stream, StreamFormat, Target, statistics};
use inflight::train::checkpoint;
use inflight::{ErrorKind, Result, RunConfig, Trainer};

use crate::common::{config, model};

/// A raw sample of 1 × 8 × 8 whose bytes and class follow from its number.
fn raw(number: u32) -> Vec<u8> {
    let class = number % 4;
    let mut bytes = class.to_le_bytes().to_vec();
    bytes.extend((0..64u32).map(|i| (number * 7 + i * (class + 1)) as u8));
    bytes
}

fn raw_stream(samples: u32) -> Vec<u8> {
    (0..samples).flat_map(raw).collect()
}

fn raw_data() -> DataConfig {
    DataConfig {
        classes: Some(4),
        image_size: Some(8),
        channels: Some(1),
        format: Some(StreamFormat::Raw),
        ..Default::default()
    }
}

fn open(bytes: Vec<u8>, data: &DataConfig) -> Result<Stream> {
    Stream::new("test", Cursor::new(bytes), data, 3)
}

/// All samples of a stream in order: their input and class, or the error of each.
fn read_all(stream: &Stream) -> Vec<Result<(Vec<u8>, u32), String>> {
    let mut all = Vec::new();
    let mut scratch = Vec::new();
    while stream.reaches(&[all.len()]) && stream.prefetch(&[all.len()]).is_ok() {
        let sample = stream.read(all.len(), &mut scratch).map_err(|e| e.to_string());
        all.push(sample.map(|sample| {
            let Target::Class(class) = sample.target else { panic!("a classifier") };
            (sample.input.to_vec(), class)
        }));
        stream.applied(&[all.len() - 1]);
    }
    all
}

fn train(bytes: Vec<u8>, data: &DataConfig, config: RunConfig) -> (u64, String) {
    let stream: Arc<dyn Source> = Arc::new(open(bytes, data).expect("a stream"));
    let trainer = Trainer::builder(model(stream.spec()), stream.clone())
        .config(config)
        .start()
        .expect("the run starts");
    let summary = pollster::block_on(trainer.fit()).expect("the run ends well");
    (summary.steps, summary.parameter_hash)
}

#[test]
fn a_stream_trains_as_many_steps_as_are_asked_for() {
    let config = RunConfig { batch_size: 4, steps: Some(5), ..config("cpu") };
    let (steps, hash) = train(raw_stream(100), &raw_data(), config.clone());
    assert_eq!(steps, 5);
    // Workers, slots and what comes after do not matter.
    let other = RunConfig { workers: 1, slots: Some(2), ..config };
    assert_eq!(train(raw_stream(20), &raw_data(), other), (5, hash));
}

#[test]
fn a_stream_that_ends_early_ends_the_run_after_the_last_full_batch() {
    let config = RunConfig { batch_size: 4, steps: Some(100), ..config("cpu") };
    let stream: Arc<dyn Source> = Arc::new(open(raw_stream(11), &raw_data()).expect("a stream"));
    assert_eq!(stream.len(), ENDLESS);
    let trainer =
        Trainer::builder(model(stream.spec()), stream).config(config).start().expect("starts");
    let events = trainer.queue(100);
    let summary = pollster::block_on(trainer.fit()).expect("the run ends well");
    assert_eq!((summary.steps, summary.samples, summary.stopped), (2, 8, false));
    assert!(summary.loss.is_some_and(f64::is_finite), "what there was of the epoch is told");
    assert!(events.try_iter().all(|event| event.is_ok()));
}

#[test]
fn without_steps_a_stream_has_no_length() {
    let config = RunConfig { steps: None, epochs: Some(2), ..config("cpu") };
    let stream: Arc<dyn Source> = Arc::new(open(raw_stream(11), &raw_data()).expect("a stream"));
    let refused = Trainer::builder(model(stream.spec()), stream).config(config).start();
    let error = refused.err().expect("no number of steps");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("--steps"), "{error}");
    let error = statistics(&open(raw_stream(11), &raw_data()).expect("a stream"));
    let error = error.expect_err("nobody knows how many").to_string();
    assert!(error.contains("found a stream to count, expected data of a known length"), "{error}");
}

#[test]
fn a_resumed_run_skips_what_it_has_used_of_a_stream_sent_again() {
    let data = DataConfig { shuffle_buffer: Some(7), ..raw_data() };
    let base = RunConfig { batch_size: 4, steps: Some(8), ..config("cpu") };
    let (_, whole) = train(raw_stream(50), &data, base.clone());
    let dir = tempfile::tempdir().expect("a folder");
    let run = |resume: Option<checkpoint::Checkpoint>| {
        let stream: Arc<dyn Source> = Arc::new(open(raw_stream(50), &data).expect("a stream"));
        let config = RunConfig { checkpoint_every: 3.into(), ..base.clone() };
        let mut builder =
            Trainer::builder(model(stream.spec()), stream).config(config).run_dir(dir.path());
        if let Some(checkpoint) = resume {
            builder = builder.resume(checkpoint);
        }
        builder.start().expect("starts")
    };
    let first = run(None);
    for _ in 0..5 {
        pollster::block_on(first.step()).expect("a step");
    }
    drop(first);
    let checkpoint = checkpoint::latest(dir.path()).expect("a checkpoint").checkpoint;
    assert_eq!(checkpoint.progress.step, 3);
    let summary = pollster::block_on(run(Some(checkpoint)).fit()).expect("ends well");
    assert_eq!(summary.parameter_hash, whole);
}

#[test]
fn a_shuffle_buffer_changes_the_order_and_loses_nothing() {
    let data = DataConfig { shuffle_buffer: Some(10), ..raw_data() };
    let shuffled = read_all(&open(raw_stream(40), &data).expect("a stream"));
    let plain = read_all(&open(raw_stream(40), &raw_data()).expect("a stream"));
    assert_ne!(shuffled, plain);
    assert_eq!(shuffled, read_all(&open(raw_stream(40), &data).expect("a stream")));
    let sorted = |samples: &[Result<(Vec<u8>, u32), String>]| {
        let mut samples = samples.to_vec();
        samples.sort();
        samples
    };
    assert_eq!(sorted(&shuffled), sorted(&plain));
    let expected: Vec<_> = (0..40).map(|i| Ok((raw(i)[4..].to_vec(), i % 4))).collect();
    assert_eq!(plain, expected);
}

#[test]
fn a_raw_stream_cut_in_a_sample_is_told() {
    let mut bytes = raw_stream(5);
    bytes.truncate(4 * 68 + 30);
    let stream = open(bytes, &raw_data()).expect("a stream");
    assert_eq!(read_all(&stream).len(), 4, "what came before is delivered");
    let error = stream.prefetch(&[4]).expect_err("cut").to_string();
    assert!(error.contains("test: sample 4: ends after 30 of 68 bytes"), "{error}");
}

#[test]
fn lines_of_json_are_samples() {
    let data = DataConfig { classes: Some(3), ..Default::default() };
    let text = "{\"input\": [1, 2.5], \"label\": 2}\n\n{\"label\": 0, \"input\": [3, -4]}\n";
    let stream = open(text.into(), &data).expect("a stream");
    assert_eq!(stream.spec().input_shape, [2]);
    let floats = |values: [f32; 2]| values.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(read_all(&stream), [Ok((floats([1.0, 2.5]), 2)), Ok((floats([3.0, -4.0]), 0))]);
    let bad = "{\"input\": [1, 2], \"label\": 2}\n{\"input\": [1], \"label\": 2}\n{\"input\": [1, 2]}\n[\n{\"input\": [5, 6], \"label\": 1}";
    let found = read_all(&open(bad.into(), &data).expect("a stream"));
    let error = |i: usize| found[i].as_ref().expect_err("a bad line").clone();
    assert!(error(1).contains("line 2 of the stream: input: found 1 numbers, expected 2"));
    assert!(error(2).contains("line 3") && error(2).contains("label"), "{}", error(2));
    assert!(error(3).contains("line 4") && error(3).contains("JSON"), "{}", error(3));
    assert_eq!(found[4], Ok((floats([5.0, 6.0]), 1)), "a bad line spoils no other");
}

/// A PNG of one colour.
fn png(side: u32, grey: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::GrayImage::from_pixel(side, side, image::Luma([grey]));
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
    bytes.into_inner()
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).expect("appends");
    }
    archive.into_inner().expect("ends")
}

#[test]
fn tar_archives_one_after_the_other_are_one_stream() {
    let (a, b, c) = (png(4, 1), png(4, 2), png(4, 3));
    let one = archive(&[("x/0.png", &a), ("x/0.cls", b"2\n"), ("x/1.cls", b"0"), ("x/1.png", &b)]);
    let two = archive(&[
        ("2.png", &c),
        ("2.json", b"{\"label\": 1}"),
        ("3.png", &c),
        ("4.cls", b"1"),
        ("5.png", &a),
        ("5.cls", b"cat"),
    ]);
    let data = DataConfig { classes: Some(3), image_size: Some(4), ..Default::default() };
    let found = read_all(&open([one, two].concat(), &data).expect("a stream"));
    assert_eq!(found[..3], [Ok((a, 2)), Ok((b, 0)), Ok((c, 1))]);
    let error = |i: usize| found[i].as_ref().expect_err("a bad sample").clone();
    assert!(error(3).contains("3 of the stream: found no label"), "{}", error(3));
    assert!(error(4).contains("4 of the stream: found no image"), "{}", error(4));
    assert!(error(5).contains("5.cls: label: found \"cat\""), "{}", error(5));
    assert_eq!(found.len(), 6);
}

#[test]
fn archives_that_are_damaged_are_told() {
    let image = png(4, 1);
    let whole = archive(&[("0.png", &image), ("0.cls", b"2"), ("1.png", &image), ("1.cls", b"1")]);
    let data = DataConfig { classes: Some(3), ..Default::default() };
    // In the image of the second sample: the first was not known to be whole before the second began.
    let cut = open(whole[..5 * 512 + 30].to_vec(), &data).expect("a stream");
    let found = read_all(&cut);
    assert_eq!(found.len(), 1, "{found:?}");
    let error = cut.prefetch(&[1]).expect_err("cut").to_string();
    assert!(error.contains("1.png: ends after 30 of"), "{error}");
    let mut garbage = whole;
    garbage[4 * 512 + 100] ^= 0xff;
    let damaged = open(garbage, &data).expect("a stream");
    let found = read_all(&damaged);
    let error = damaged.prefetch(&[found.len()]).expect_err("damaged").to_string();
    assert!(error.contains("archive: is damaged"), "{error}");
}

#[test]
fn what_is_no_stream_is_told() {
    let refusal = |bytes: &[u8], data: &DataConfig| {
        open(bytes.to_vec(), data).err().expect("no stream").to_string()
    };
    let plain = DataConfig::default();
    assert!(refusal(b"", &plain).contains("found nothing, expected samples"));
    assert!(refusal(&[7; 600], &plain).contains("--format webdataset, raw or jsonl"));
    assert!(refusal(b"{\"input\": [1], \"label\": 0}\n", &plain).contains("--classes"));
    assert!(
        refusal(b"{\"input\": 1}\n", &DataConfig { classes: Some(2), ..plain.clone() })
            .contains("JSON")
    );
    let raw = DataConfig { classes: Some(2), format: Some(StreamFormat::Raw), ..plain };
    assert!(refusal(b"abc", &raw).contains("--image-size"));
}

/// Gives one byte at a time, and panics after so many.
struct Trickle(Vec<u8>, usize);

impl Read for Trickle {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        assert!(self.1 < self.0.len(), "planted panic");
        into[0] = self.0[self.1];
        self.1 += 1;
        Ok(1)
    }
}

#[test]
fn a_reader_that_trickles_is_read_and_one_that_panics_ends_with_an_error() {
    let stream = Stream::new("test", Trickle(raw_stream(3), 0), &raw_data(), 0).expect("a stream");
    assert!(stream.reaches(&[0, 1]));
    assert!(stream.reaches(&[9]), "an error is told by what asks next");
    let error = stream.prefetch(&[9]).expect_err("the reader panics").to_string();
    assert!(error.contains("has panicked"), "{error}");
}

fn pipe(line: &str, dir: &Path, bytes: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_inflight"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // It may have seen enough before all was sent.
    let _ = child.stdin.take().expect("piped").write_all(bytes);
    child.wait_with_output().expect("ends")
}

#[test]
fn the_command_line_trains_on_standard_input() {
    let dir = tempfile::tempdir().expect("a folder");
    let images: Vec<Vec<u8>> = (0..12).map(|i| png(8, i * 20)).collect();
    let names: Vec<[String; 2]> =
        (0..12).map(|i| [format!("{i}.png"), format!("{i}.cls")]).collect();
    let members: Vec<(&str, &[u8])> = names
        .iter()
        .zip(&images)
        .flat_map(|([png, cls], image)| [(&png[..], &image[..]), (&cls[..], &b"1"[..])])
        .collect();
    let tar = archive(&members);
    let train = "train - --classes 2 --image-size 8 --channels 1 --model mlp --batch-size 4 --device cpu --json";
    let out = pipe(&format!("{train} --steps 2 --out a"), dir.path(), &tar);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let last = text(&out.stdout).lines().last().expect("events").to_owned();
    let done: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((&done["event"], &done["steps"]), (&"done".into(), &2.into()));
    let out = pipe(&format!("{train} --steps 9 --out b"), dir.path(), &tar);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("the stream ended after 3 of 9 steps"),
        "{}",
        text(&out.stderr)
    );
    let out = pipe(train, dir.path(), &tar);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("--steps"), "{}", text(&out.stderr));
    let out = pipe("inspect - --classes 2 --image-size 8 --channels 1", dir.path(), &tar);
    let shown = text(&out.stdout);
    assert!(shown.contains("standard input: a stream of 1 × 8 × 8 u8, 2 classes"), "{shown}");
    assert!(shown.contains("the first 8 samples:") && shown.contains("· class 1"), "{shown}");
}
