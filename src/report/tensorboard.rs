//! Event files for TensorBoard: records of protocol buffers, each framed by its length and checksums (TFRecord). Only the
//! few messages that scalars, pictures and texts take are written, by the field numbers of `tensorflow/core/util/event.proto`
//! and `tensorflow/core/framework/{summary,tensor,tensor_shape}.proto`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::gallery::{MISTAKES_SHEET, SAMPLES_SHEET};
use super::pulse::Pulse;
use crate::durable::read_file;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::train::event::{EpochReport, Event, StepReport, Summary};

/// The folder of event files, in the run folder.
pub const TENSORBOARD: &str = "tensorboard";

/// Bytes of a picture at most.
const PICTURE_BYTES_MAX: u64 = 16 << 20;

/// What a file begins with.
const FILE_VERSION: &str = "brain.Event:2";

/// Tells TensorBoard that a tensor of strings is a text.
const TEXT_PLUGIN: &str = "text";
/// `DT_STRING` of `tensorflow/core/framework/types.proto`.
const DT_STRING: i32 = 7;

mod proto {
    /// One record of an event file.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Event {
        #[prost(double, tag = "1")]
        pub wall_time: f64,
        #[prost(int64, tag = "2")]
        pub step: i64,
        #[prost(oneof = "What", tags = "3, 5")]
        pub what: Option<What>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum What {
        #[prost(string, tag = "3")]
        FileVersion(String),
        #[prost(message, tag = "5")]
        Summary(Summary),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(string, tag = "1")]
        pub tag: String,
        #[prost(message, optional, tag = "9")]
        pub metadata: Option<Metadata>,
        #[prost(oneof = "Content", tags = "2, 4, 8")]
        pub content: Option<Content>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Content {
        #[prost(float, tag = "2")]
        Simple(f32),
        #[prost(message, tag = "4")]
        Image(Image),
        #[prost(message, tag = "8")]
        Tensor(Tensor),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Image {
        #[prost(int32, tag = "1")]
        pub height: i32,
        #[prost(int32, tag = "2")]
        pub width: i32,
        /// 3 for RGB.
        #[prost(int32, tag = "3")]
        pub colorspace: i32,
        /// A PNG.
        #[prost(bytes = "vec", tag = "4")]
        pub encoded: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(message, optional, tag = "1")]
        pub plugin: Option<Plugin>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Plugin {
        #[prost(string, tag = "1")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        #[prost(int32, tag = "1")]
        pub dtype: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
        #[prost(bytes = "vec", repeated, tag = "8")]
        pub strings: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "2")]
        pub dims: Vec<Dim>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dim {
        #[prost(int64, tag = "1")]
        pub size: i64,
    }
}

use proto::{Content, Dim, Image, Metadata, Plugin, Shape, Tensor, Value, What};

/// Writes the events of a run for TensorBoard. Give it every [`Event`], in order.
#[derive(Debug)]
pub struct TensorBoard {
    run_dir: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    step: u64,
}

impl TensorBoard {
    /// A new event file in `tensorboard/` of the run folder; those of a run before stay. `config` is shown as a text.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(run_dir: &Path, config: &str) -> Result<Self> {
        let dir = run_dir.join(TENSORBOARD);
        fs::create_dir_all(&dir).map_err(|e| unwritable(&dir, e))?;
        let began = now_s() as u64;
        // TensorBoard reads the files of a folder in the order of their names.
        let named = |attempt: u32| format!("events.out.tfevents.{began:010}.{attempt:03}.inflight");
        let free = (0..1000).map(|attempt| dir.join(named(attempt))).find(|path| !path.exists());
        let path = free.unwrap_or_else(|| dir.join(named(0)));
        let file = File::create_new(&path).map_err(|e| unwritable(&path, e))?;
        let file = BufWriter::new(file);
        let mut board = Self { run_dir: run_dir.to_path_buf(), path, file, step: 0 };
        board.write(Some(What::FileVersion(FILE_VERSION.into())))?;
        // As a text, TensorBoard takes Markdown.
        board.summary(vec![text("config", &format!("```\n{config}\n```"))])?;
        Ok(board)
    }

    /// Where the events go.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what there is of an event.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Step(report) => self.on_step(report),
            Event::Epoch(report) => self.on_epoch(report),
            Event::Pulse(pulse) => self.pulse(pulse),
            Event::Checkpoint(_) => Ok(()),
            Event::Done(summary) => self.done(summary),
        }
    }

    fn on_step(&mut self, report: &StepReport) -> Result<()> {
        self.step = report.step;
        let mut values = vec![
            scalar("train/loss", report.loss),
            scalar("train/learning_rate", report.lr),
            scalar("train/gradient_norm", report.grad_norm),
        ];
        values.extend(report.accuracy.map(|accuracy| scalar("train/accuracy", accuracy)));
        self.summary(values)
    }

    fn on_epoch(&mut self, report: &EpochReport) -> Result<()> {
        let values = [
            ("epoch/loss", Some(report.loss)),
            ("epoch/accuracy", report.accuracy),
            ("validation/loss", report.val_loss),
            ("validation/accuracy", report.val_accuracy),
        ];
        let values = values.into_iter().filter_map(|(tag, value)| Some(scalar(tag, value?)));
        self.summary(values.collect())?;
        self.flush()
    }

    fn pulse(&mut self, pulse: &Pulse) -> Result<()> {
        let shares = Pulse::STAGES.iter().zip(pulse.shares());
        let mut values: Vec<Value> =
            shares.map(|(stage, share)| scalar(&format!("busy/{stage}"), share)).collect();
        values.push(scalar("pipeline/samples_per_s", pulse.samples_per_s()));
        values.push(scalar("pipeline/full_slots", pulse.full));
        values.push(scalar("pipeline/in_flight", pulse.in_flight));
        self.summary(values)
    }

    fn done(&mut self, summary: &Summary) -> Result<()> {
        let mut values = vec![text("verdict", &format!("```\n{}\n```", summary.verdict))];
        for (tag, file) in [("samples", SAMPLES_SHEET), ("worst mistakes", MISTAKES_SHEET)] {
            values.extend(picture(tag, &self.run_dir.join(file)));
        }
        self.summary(values)?;
        self.flush()
    }

    fn summary(&mut self, value: Vec<Value>) -> Result<()> {
        self.write(Some(What::Summary(proto::Summary { value })))
    }

    fn write(&mut self, what: Option<What>) -> Result<()> {
        let event = proto::Event { wall_time: now_s(), step: self.step as i64, what };
        let record = record(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|e| unwritable(&self.path, e))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| unwritable(&self.path, e))
    }
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Stage::Checkpoint, ErrorKind::Checkpoint, path.display(), "cannot be written")
        .hint("leaving out --tensorboard, or more room on the disk")
        .caused_by(error)
}

fn scalar(tag: &str, value: f64) -> Value {
    let content = Some(Content::Simple(value as f32));
    Value { tag: tag.into(), metadata: None, content }
}

fn text(tag: &str, text: &str) -> Value {
    let plugin = Some(Plugin { name: TEXT_PLUGIN.into() });
    let shape = Some(Shape { dims: vec![Dim { size: 1 }] });
    let tensor = Tensor { dtype: DT_STRING, shape, strings: vec![text.as_bytes().to_vec()] };
    Value {
        tag: tag.into(),
        metadata: Some(Metadata { plugin }),
        content: Some(Content::Tensor(tensor)),
    }
}

/// A picture of the run folder; none where there is none.
fn picture(tag: &str, path: &Path) -> Option<Value> {
    let encoded = read_file(path, PICTURE_BYTES_MAX).ok()?;
    let (width, height) =
        image::ImageReader::with_format(std::io::Cursor::new(&encoded), image::ImageFormat::Png)
            .into_dimensions()
            .ok()?;
    let (height, width) = (height as i32, width as i32);
    let content = Some(Content::Image(Image { height, width, colorspace: 3, encoded }));
    Some(Value { tag: tag.into(), metadata: None, content })
}

/// A record: its length, a checksum of that, the data, a checksum of those.
fn record(data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u64).to_le_bytes();
    let checksum = |bytes: &[u8]| masked(crc32c::crc32c(bytes)).to_le_bytes();
    [&len[..], &checksum(&len), data, &checksum(data)].concat()
}

/// How TFRecord keeps a checksum apart from one of data that holds checksums.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a file; every checksum must be right.
    fn events(mut bytes: &[u8]) -> Vec<proto::Event> {
        // Bit by bit, as RFC 3720 defines CRC-32C, so that the test does not trust the crate it tests.
        let crc = |bytes: &[u8]| {
            !bytes.iter().fold(!0u32, |crc, &byte| {
                (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                    (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
                })
            })
        };
        let expected = |bytes: &[u8]| {
            let crc = crc(bytes);
            crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
        };
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(12);
            assert_eq!(head[8..], expected(&head[..8]), "the checksum of a length");
            let len = u64::from_le_bytes(head[..8].try_into().expect("8 bytes")) as usize;
            let (data, rest) = rest.split_at(len);
            let (checksum, rest) = rest.split_at(4);
            assert_eq!(checksum, expected(data), "the checksum of a record");
            events.push(proto::Event::decode(data).expect("an event"));
            bytes = rest;
        }
        events
    }

    #[test]
    fn what_is_written_can_be_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        image::RgbImage::new(6, 4).save(dir.path().join(SAMPLES_SHEET)).expect("a picture");
        let mut board = TensorBoard::create(dir.path(), "lr = 0.1").expect("opens");
        let second = TensorBoard::create(dir.path(), "").expect("a second one beside it");
        assert!(second.path() > board.path());
        for step in 1..=3 {
            let loss = 1.0 / step as f64;
            let report = StepReport { step, loss, accuracy: Some(0.5), ..Default::default() };
            board.event(&Event::Step(report)).expect("writes");
        }
        let epoch = EpochReport { step: 3, val_loss: Some(0.25), ..Default::default() };
        board.event(&Event::Epoch(epoch)).expect("writes");
        let pulse = Pulse { over_s: 0.5, samples: 100, ..Default::default() };
        board.event(&Event::Pulse(Box::new(pulse))).expect("writes");
        board
            .summary(picture("samples", &dir.path().join(SAMPLES_SHEET)).into_iter().collect())
            .expect("writes");
        board.flush().expect("writes");
        let events = events(&std::fs::read(board.path()).expect("is there"));
        assert_eq!(events[0].what, Some(What::FileVersion(FILE_VERSION.into())));
        let mut found = Vec::new();
        for event in &events[1..] {
            let Some(What::Summary(summary)) = &event.what else { panic!("{event:?}") };
            found.extend(summary.value.iter().map(|value| (event.step, value)));
        }
        let scalar = |step, tag: &str| {
            let mut values = found.iter().filter(|(at, value)| *at == step && value.tag == tag);
            match values.next().and_then(|(_, value)| value.content.clone()) {
                Some(Content::Simple(x)) => Some(x),
                _ => None,
            }
        };
        assert_eq!(scalar(2, "train/loss"), Some(0.5));
        assert_eq!(scalar(3, "train/accuracy"), Some(0.5));
        assert_eq!(scalar(3, "validation/loss"), Some(0.25));
        assert_eq!(scalar(3, "validation/accuracy"), None);
        assert_eq!(scalar(3, "pipeline/samples_per_s"), Some(200.0));
        let content =
            |tag| found.iter().find(|(_, v)| v.tag == tag).and_then(|(_, v)| v.content.clone());
        let Some(Content::Tensor(config)) = content("config") else { panic!("no config") };
        assert_eq!(config.strings, [b"```\nlr = 0.1\n```".to_vec()]);
        let Some(Content::Image(sheet)) = content("samples") else { panic!("no picture") };
        assert_eq!((sheet.width, sheet.height, &sheet.encoded[1..4]), (6, 4, &b"PNG"[..]));
        assert!(events.iter().all(|event| event.wall_time > 1.7e9));
    }
}
