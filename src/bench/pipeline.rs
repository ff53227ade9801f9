//! `bench pipeline`: the preparation of batches alone, as a run does it, into slots that nobody computes on; beside it,
//! in the same run and by turns, what decoding and resizing take on one thread.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::loader::{agenda, preparation};
use super::stats::median;

use crate::batch::{Slot, SlotLayout};
use crate::decode::DecodeSize;
use crate::error::{Error, Result};
use crate::gpu::stopwatch::Lap;
use crate::pipeline::{DeviceEnds, Pipeline};
use crate::report::memory::peak_memory_bytes;
use crate::rng::Rng;
use crate::sampler::Sampler;
use crate::source::{ENDLESS, Encoding, Source, no_stream};
use crate::transform::{Image, ImageMemory, RandomResizedCrop, Transform, TransformConfig};

/// What to prepare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is done to images, in order.
    pub transforms: Vec<TransformConfig>,
    /// Preparing threads; 0 means one a core.
    pub workers: usize,
    /// Samples a batch.
    pub batch_size: usize,
    /// Times that all samples are prepared, each timed alone; small data sets are gone through several times for each.
    pub epochs: u64,
    /// Slots of the ring.
    pub slots: usize,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `pipeline`.
    pub suite: &'static str,
    /// `name/shape/batch`.
    pub name: String,
    /// Seconds of an epoch.
    #[serde(flatten)]
    pub lap: Lap,
    /// Samples a second in the median epoch.
    pub samples_per_s: f64,
    /// The same, where samples are images.
    pub images_per_s: Option<f64>,
    /// Of each epoch, in their order.
    pub samples_per_s_each: Vec<f64>,
    /// Images a second that one thread decodes and resizes, their files in memory, the median; for image files.
    pub one_thread_images_per_s: Option<f64>,
    /// That times the number of threads: `images_per_s` at best.
    pub ceiling: Option<f64>,
    /// `images_per_s` ÷ `ceiling`.
    pub share: Option<f64>,
    /// Samples of an epoch.
    pub samples: usize,
    /// Samples a batch.
    pub batch_size: usize,
    /// Preparing threads.
    pub workers: usize,
    /// Slots of the ring.
    pub slots: usize,
    /// Bytes written to memory for each image, from its file to the slot; 0 where samples are no image files.
    pub copied_bytes_per_image: f64,
    /// Highest resident memory of the process before the files of the ceiling were read into it.
    pub peak_bytes: Option<u64>,
    /// Where the workers' time went: seconds of all passes, summed over threads.
    pub read_s: f64,
    /// Decoding.
    pub decode_s: f64,
    /// Transforms.
    pub augment_s: f64,
    /// Checks and writes into slots.
    pub write_s: f64,
}

/// Seconds that an epoch is timed for at least; a small data set is gone through several times for it, so that the
/// beginning and the end of a pipeline, which a run has once, do not count for more than they are.
const EPOCH_S_MIN: f64 = 2.0;
/// Passes of an epoch at most.
const PASSES_MAX: u64 = 4096;
/// Bytes of files that the ceiling is measured with at most.
const CEILING_BYTES_MAX: usize = 64 << 20;

/// Prepares all samples of `source`, an epoch at a time, each after a measurement of the ceiling.
///
/// # Errors
/// When a setting is out of range, the source is a stream, or a sample cannot be prepared.
pub fn run(source: &Arc<dyn Source>, options: &Options) -> Result<Row> {
    if source.len() == ENDLESS {
        return Err(no_stream(&**source, "whose samples would have to come several times"));
    }
    let at_least_one = |flag: &str, found: u64| match found {
        0 => Err(Error::config(flag, "found 0, expected at least 1")),
        _ => Ok(()),
    };
    at_least_one("--epochs", options.epochs)?;
    at_least_one("--batch-size", options.batch_size as u64)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if options.workers == 0 { cores } else { options.workers };
    // Once to warm caches up, and to know how much memory it takes before files are held for the ceiling.
    let mut warm = Found::default();
    epoch(source, options, workers, 0..1, &mut warm)?;
    let passes = ((EPOCH_S_MIN / warm.epochs_s[0]).ceil() as u64).clamp(1, PASSES_MAX);
    let peak_bytes = peak_memory_bytes();
    let images = source.encoding() == Encoding::Image;
    let files = if images { Some(Files::read(&**source)?) } else { None };
    let (mut found, mut ceilings) = (Found::default(), Vec::new());
    for i in 1..=options.epochs {
        if let Some(files) = &files {
            ceilings.push(files.images_per_s(options, i)?);
        }
        epoch(source, options, workers, i * passes..(i + 1) * passes, &mut found)?;
    }
    let lap = Lap::of(found.epochs_s.clone());
    let samples_per_s = source.len() as f64 / lap.median_s;
    let one_thread = files.is_some().then(|| median(&ceilings));
    // More threads than cores decode no faster.
    let ceiling = one_thread.map(|one| one * workers.min(cores) as f64);
    let shape: Vec<String> = source.spec().input_shape.iter().map(ToString::to_string).collect();
    Ok(Row {
        suite: "pipeline",
        name: format!("{}/{}/{}", source.info().name, shape.join("x"), options.batch_size),
        samples_per_s,
        images_per_s: images.then_some(samples_per_s),
        samples_per_s_each: found.epochs_s.iter().map(|s| source.len() as f64 / s).collect(),
        one_thread_images_per_s: one_thread,
        ceiling,
        share: ceiling.map(|ceiling| samples_per_s / ceiling),
        samples: source.len(),
        batch_size: options.batch_size,
        workers,
        slots: options.slots.max(2),
        copied_bytes_per_image: found.copied_bytes as f64
            / (source.len() as u64 * passes) as f64
            / options.epochs as f64,
        peak_bytes,
        read_s: found.read_s,
        decode_s: found.decode_s,
        augment_s: found.augment_s,
        write_s: found.write_s,
        lap,
    })
}

/// Sums over epochs.
#[derive(Default)]
struct Found {
    epochs_s: Vec<f64>,
    copied_bytes: u64,
    read_s: f64,
    decode_s: f64,
    augment_s: f64,
    write_s: f64,
}

/// Prepares all samples once a pass, through a pipeline of its own, whose device gives every slot back at once.
fn epoch(
    source: &Arc<dyn Source>,
    options: &Options,
    workers: usize,
    passes: Range<u64>,
    found: &mut Found,
) -> Result<()> {
    let sampler = Sampler::new(source.len(), options.batch_size, 0, true, false)?;
    let layout = SlotLayout::new(source.spec(), options.batch_size);
    let slots = (0..options.slots.max(2)).map(|i| Slot::host(i, layout.slot_bytes)).collect();
    let agenda = agenda(sampler, passes.clone());
    let preparation = preparation(source, &options.transforms, layout, workers);
    let (told, hear) = crossbeam_channel::bounded(1);
    let began = Instant::now();
    let pipeline = Pipeline::start(slots, agenda, preparation, move |ends| {
        // Whoever waits is gone only if this thread is, too.
        let _ = told.send(drain(&ends).map(|()| ends.gauges));
    })?;
    let gauges = hear.recv().map_err(|e| {
        Error::device("bench", "the pipeline ended without a result").caused_by(e)
    })??;
    found.epochs_s.push(began.elapsed().as_secs_f64() / (passes.end - passes.start) as f64);
    drop(pipeline);
    let stages = &gauges.stages;
    found.copied_bytes += stages.copied_bytes();
    found.read_s += stages.read_s();
    found.decode_s += stages.decode_s();
    found.augment_s += stages.augment_s();
    found.write_s += stages.write_s();
    Ok(())
}

/// Takes filled slots and gives them back, to the last one.
fn drain(ends: &DeviceEnds) -> Result<()> {
    for filled in &ends.full {
        let filled = filled?;
        if filled.work.last {
            break;
        }
        // The prepare thread is gone once it has filled the last slot.
        let _ = ends.empty.send(filled.slot);
    }
    Ok(())
}

/// Image files in memory.
struct Files {
    shape: [usize; 3],
    files: Vec<Vec<u8>>,
    /// The size that the workers decode at.
    decode: DecodeSize,
}

impl Files {
    /// As many of a source's files as fit, evenly apart.
    fn read(source: &dyn Source) -> Result<Self> {
        let &[channels, height, width] = &source.spec().input_shape[..] else {
            let message = format!("found image files for samples {:?}", source.spec().input_shape);
            return Err(Error::data(&source.info().name, message));
        };
        let (mut files, mut bytes) = (Vec::new(), Vec::new());
        let mut held = 0;
        // A stride that is odd goes through all classes before it comes back to the first.
        for i in 0..source.len() {
            let index = (i * 7919) % source.len();
            held += source.read(index, &mut bytes)?.input.len();
            if held > CEILING_BYTES_MAX && !files.is_empty() {
                break;
            }
            files.push(source.read(index, &mut bytes)?.input.to_vec());
        }
        Ok(Self { shape: [channels, height, width], files, decode: source.info().decode })
    }

    /// How many images this thread alone decodes and resizes in a second, and nothing else; the same parts of them
    /// are cut as transforms would.
    fn images_per_s(&self, options: &Options, epoch: u64) -> Result<f64> {
        let crop = options.transforms.iter().find_map(|transform| match transform {
            TransformConfig::RandomResizedCrop(crop) => Some(crop),
            _ => None,
        });
        let mut memory = ImageMemory::default();
        self.decode_all(crop, epoch, &mut memory, self.files.len().min(32))?;
        let began = Instant::now();
        self.decode_all(crop, epoch, &mut memory, self.files.len())?;
        Ok(self.files.len() as f64 / began.elapsed().as_secs_f64())
    }

    fn decode_all(
        &self,
        crop: Option<&RandomResizedCrop>,
        epoch: u64,
        memory: &mut ImageMemory,
        count: usize,
    ) -> Result<()> {
        for (i, file) in self.files.iter().take(count).enumerate() {
            let mut image = Image::encoded(file, self.shape, memory)?.decoded_at(self.decode);
            match crop {
                Some(crop) => crop.apply(&mut image, &mut Rng::keyed(&[epoch, i as u64]))?,
                None => image.fit()?,
            }
            std::hint::black_box(image.pixels()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{DataConfig, Stream};
    use crate::transform::HorizontalFlip;

    #[test]
    fn images_and_raw_samples_are_prepared_and_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        for class in ["a", "b"] {
            std::fs::create_dir(dir.path().join(class)).expect("a folder");
            for i in 0..5u8 {
                let picture = image::RgbImage::from_fn(40, 30, |x, y| {
                    image::Rgb([i * 20, (x * 5) as u8, (y * 5) as u8])
                });
                picture.save(dir.path().join(format!("{class}/{i}.jpg"))).expect("saves");
            }
        }
        let path = dir.path().to_str().expect("UTF-8");
        let images = crate::source::open(path, &crate::source::OpenOptions::default());
        let options = Options {
            transforms: vec![
                TransformConfig::RandomResizedCrop(RandomResizedCrop::default()),
                TransformConfig::HorizontalFlip(HorizontalFlip::default()),
            ],
            workers: 2,
            batch_size: 4,
            epochs: 2,
            slots: 2,
        };
        let row = run(&images.expect("a folder of images").train, &options).expect("runs");
        assert_eq!((row.samples, row.samples_per_s_each.len()), (10, 2));
        assert_eq!(row.images_per_s, Some(row.samples_per_s));
        assert!(row.share.is_some_and(|share| share > 0.0), "{row:?}");
        assert!(row.decode_s > 0.0 && row.read_s > 0.0 && row.write_s > 0.0, "{row:?}");
        // The file, at least its part of 30 x 40 pixels, the resized image, and the slot.
        assert!(row.copied_bytes_per_image > 2.0 * 30.0 * 40.0 * 3.0, "{row:?}");
        let raw = crate::bench::samples("mlp").expect("synthetic");
        let row = run(&raw, &Options { transforms: Vec::new(), epochs: 1, ..options });
        let row = row.expect("runs");
        assert_eq!((row.samples, row.images_per_s, row.ceiling), (1024, None, None));
    }

    #[test]
    fn a_stream_is_refused() {
        let data = DataConfig { classes: Some(2), ..DataConfig::default() };
        let lines = "{\"input\":[1,2],\"label\":0}\n".repeat(8);
        let stream = Stream::new("lines", std::io::Cursor::new(lines), &data, 0).expect("a stream");
        let stream: Arc<dyn Source> = Arc::new(stream);
        let options =
            Options { transforms: Vec::new(), workers: 1, batch_size: 4, epochs: 1, slots: 2 };
        let error = run(&stream, &options).expect_err("refused").to_string();
        assert!(
            error.contains("lines: found a stream whose samples would have to come"),
            "{error}"
        );
    }
}
