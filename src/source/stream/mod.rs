//! Streams: samples that come when they come, in one order, once; from standard input, any reader, or a queue.
//!
//! A thread receives them into a bounded store. The prepare thread waits there for those of the next batch, workers
//! read them from it, and they leave it when the step that used them was applied.

mod format;
#[cfg(feature = "queue")]
mod redis;
mod shuffle;
mod standard_input;
mod store;

use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use format::StreamFormat;
use format::line_width;
use shuffle::Shuffle;
use store::{Item, Store};

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::{
    DataConfig, Dataset, ENDLESS, Encoding, OpenOptions, Sample, Source, SourceInfo, Target,
};

/// Name of the data set that is standard input.
pub const STANDARD_INPUT: &str = "-";

/// Bytes read at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes that a format is told by.
const HEAD_BYTES: usize = 512;

/// Rows and columns of images where nothing else is said.
const SIDE: usize = 224;

/// Mean and deviation by which photographs are usually normalised (ImageNet's), since those of a stream are not known
/// before it has ended.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Called with each sample that was applied.
type OnApplied = Box<dyn Fn(&[Arc<Item>]) + Send + Sync>;

/// A source without an end that is known: [`Source::len`] is [`ENDLESS`]. It serves one training: when that ends, so
/// does the thread that receives.
pub struct Stream {
    spec: SampleSpec,
    info: SourceInfo,
    encoding: Encoding,
    store: Arc<Store>,
    /// Whether a stream opened again begins with what an earlier run has used.
    replays: bool,
    on_applied: Option<OnApplied>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// The samples that `reader` gives, called `name`; what cannot be told from the stream is in `data`. A resumed run
    /// expects them from the beginning, and skips those that it has used.
    ///
    /// `reader` is read on a thread of its own and should return now and then even if nothing comes: dropping the
    /// source waits for it.
    ///
    /// # Errors
    /// When the beginning of the stream cannot be read or understood, or `data` leaves something open.
    pub fn new(
        name: &str,
        reader: impl Read + Send + 'static,
        data: &DataConfig,
        seed: u64,
    ) -> Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        let (head, format) = head(name, &mut reader, data)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(head).chain(reader));
        let mut first = Vec::new();
        let (spec, encoding) = match format {
            StreamFormat::WebDataset => (image_spec(name, data, false)?, Encoding::Image),
            StreamFormat::Raw => (image_spec(name, data, true)?, Encoding::Raw),
            StreamFormat::JsonL => {
                first = first_line(&mut reader).map_err(|e| e.within(name))?;
                let width = line_width(&first).map_err(|e| e.within(name))?;
                let target = TargetSpec::Class { classes: classes(name, data)? };
                let spec = SampleSpec { input_shape: vec![width], input_dtype: DType::F32, target };
                (spec, Encoding::Raw)
            }
        };
        let mut stream = Self::unstarted(name, spec, encoding);
        let (store, item) = (stream.store.clone(), name.to_owned());
        let (input_bytes, buffer) = (stream.spec.input_bytes(), data.shuffle_buffer);
        stream.start("stream", move || {
            let mut shuffle = Shuffle::new(buffer, seed);
            let reader = Cursor::new(first).chain(reader);
            let end = format::read(format, input_bytes, reader, &mut |item| {
                shuffle.pass(item).is_none_or(|item| store.push(item, true))
            });
            // What still waits to be shuffled came before the end.
            while let Some(item) = shuffle.rest() {
                if !store.push(item, true) {
                    break;
                }
            }
            store.end(end.map_err(|e| e.within(&item)));
        })?;
        Ok(stream)
    }

    fn unstarted(name: &str, spec: SampleSpec, encoding: Encoding) -> Self {
        let mut info = SourceInfo { name: name.into(), ..Default::default() };
        if spec.input_dtype == DType::U8 {
            let grey = spec.input_shape[0] == 1;
            info.mean = if grey { vec![0.5] } else { MEAN.to_vec() };
            info.std = if grey { vec![0.25] } else { STD.to_vec() };
        }
        let store = Arc::new(Store::default());
        Self { spec, info, encoding, store, replays: true, on_applied: None, thread: None }
    }

    /// Starts the thread that receives; a panic ends the stream with an error.
    fn start(&mut self, thread: &str, body: impl FnOnce() + Send + 'static) -> Result<()> {
        let guard = EndGuard { store: self.store.clone(), name: self.info.name.clone() };
        let receive = move || {
            body();
            drop(guard);
        };
        let builder = std::thread::Builder::new().name(thread.into());
        self.thread = Some(builder.spawn(receive).map_err(|e| {
            Error::data(&self.info.name, "the thread that receives could not be started")
                .caused_by(e)
        })?);
        Ok(())
    }

    /// The data set of this stream alone.
    fn into_dataset(self) -> Dataset {
        let name = self.info.name.clone();
        Dataset {
            path: PathBuf::from(&name),
            name,
            train: Arc::new(self),
            validation: None,
            test: None,
        }
    }
}

/// Ends the stream however its thread ends.
struct EndGuard {
    store: Arc<Store>,
    name: String,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        // Does nothing if the thread has said how the stream ended.
        self.store.end(Err(Error::data(&self.name, "the thread that receives has panicked")));
    }
}

impl Source for Stream {
    fn len(&self) -> usize {
        ENDLESS
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn origin(&self, index: usize) -> Option<String> {
        self.store.get(index).map(|item| item.origin.clone())
    }

    fn reaches(&self, indices: &[usize]) -> bool {
        // After an error the samples do come, as far as anybody is told here: the error is told by what asks next.
        // Once nobody wants more, an error is only the reader's, who was stopped.
        self.store.reach(indices, self.replays)
            || (!self.store.is_closed() && self.store.failure().is_some())
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        if self.store.reach(indices, self.replays) {
            return Ok(());
        }
        Err(self.store.failure().unwrap_or_else(|| Error::data(&self.info.name, "has ended")))
    }

    fn applied(&self, indices: &[usize]) {
        let items = self.store.applied(indices);
        if let Some(tell) = &self.on_applied {
            tell(&items);
        }
    }

    fn close(&self) {
        self.store.close();
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let Some(item) = self.store.get(index) else {
            let message = format!(
                "sample {index} of the stream is not there: streams are read once, in order"
            );
            return Err(Error::data(&self.info.name, message));
        };
        match &item.content {
            Ok((input, label)) => {
                scratch.clear();
                scratch.extend_from_slice(input);
                Ok(Sample { input: scratch, target: Target::Class(*label) })
            }
            Err(error) => Err(error.clone()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.store.close();
        // Elsewhere a read of standard input cannot be interrupted: the thread then ends with the process.
        if let Some(thread) = self.thread.take().filter(|_| cfg!(unix)) {
            // A panic has become the error of the stream.
            let _ = thread.join();
        }
    }
}

/// Whether the data set of this name is a stream, which begins to be received once it is opened.
pub fn is_stream(dataset: &str) -> bool {
    dataset == STANDARD_INPUT || is_queue(dataset)
}

/// Whether a data set lies in a Redis stream.
pub(super) fn is_queue(dataset: &str) -> bool {
    dataset.starts_with("redis://") || dataset.starts_with("rediss://")
}

/// Opens standard input.
pub(super) fn open_standard_input(options: &OpenOptions<'_>) -> Result<Dataset> {
    let (reader, stop) = standard_input::reader()?;
    let stream = Stream::new("standard input", reader, options.data(), options.seed)?;
    // Whoever closes the store also ends the wait for bytes.
    stop.watch(&stream.store);
    Ok(stream.into_dataset())
}

/// Opens a Redis stream.
///
/// # Errors
/// When this build has no queues, or as the connection fails.
pub(super) fn open_queue(url: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    #[cfg(feature = "queue")]
    return Ok(redis::open(url, options.data(), options.seed)?.into_dataset());
    #[cfg(not(feature = "queue"))]
    {
        let _ = options;
        Err(Error::config(url, "this build reads no message queues")
            .hint("cargo install inflight --features queue"))
    }
}

/// The beginning of a stream, and the format that it or `data` tells. Reads no more than that takes, since what
/// follows may come late.
fn head(
    name: &str,
    reader: &mut impl BufRead,
    data: &DataConfig,
) -> Result<(Vec<u8>, StreamFormat)> {
    let mut head = Vec::new();
    loop {
        let found =
            reader.fill_buf().map_err(|e| Error::data(name, "cannot be read").caused_by(e))?;
        let (found, is_over) = (found.to_vec(), found.is_empty());
        reader.consume(found.len());
        head.extend(found);
        if head.is_empty() {
            return Err(Error::data(name, "found nothing, expected samples"));
        }
        if let Some(format) = data.format.or_else(|| StreamFormat::sniff(&head)) {
            return Ok((head, format));
        }
        if is_over || head.len() >= HEAD_BYTES {
            return Err(Error::data(name, "found bytes of no format that can be told from them")
                .hint("--format webdataset, raw or jsonl"));
        }
    }
}

fn first_line(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    loop {
        match format::next_line(reader)? {
            Some(line) if line.trim_ascii().is_empty() => {}
            Some(line) => return Ok(line),
            None => return Err(Error::data("JSON", "found no line, expected a sample")),
        }
    }
}

fn classes(name: &str, data: &DataConfig) -> Result<usize> {
    data.classes.ok_or_else(|| {
        let message = format!("found none, expected the number of classes: {name} does not say it");
        Error::config("--classes", message).hint("--classes 10")
    })
}

/// What images of a stream end as; raw ones must be of a size that is said.
fn image_spec(name: &str, data: &DataConfig, raw: bool) -> Result<SampleSpec> {
    let side = match data.image_size {
        None if raw => {
            let message =
                format!("found none, expected the rows and columns of the raw images of {name}");
            return Err(Error::config("--image-size", message).hint("--image-size 28"));
        }
        side => side.unwrap_or(SIDE),
    };
    Ok(SampleSpec {
        input_shape: vec![data.channels.unwrap_or(3), side, side],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: classes(name, data)? },
    })
}
