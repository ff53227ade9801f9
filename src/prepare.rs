//! From samples to a filled slot: read, augment, check, and write each sample into its own window.
//!
//! [`fill`] runs inside a rayon pool and never blocks it on anything but the source. What it writes is a
//! function of the source, the indices and the keys: the number of threads changes nothing.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Display;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use crate::batch::{DType, Slot, SlotLayout, TargetSpec, Window, WriteOnly};
use crate::clock::{Stamp, thread_time};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::faults::{self, At};
use crate::framing::Framing;
use crate::quarantine::{BadSamples, Faults};
use crate::report::trace::Tracer;
use crate::rng::Rng;
use crate::source::{Encoding, Source, Target, cache};
use crate::transform::{Effort, Image, ImageMemory, Transform, apply_all, deferrable};

/// What the randomness of a batch is keyed by, together with the index of each sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
}

/// A sum of times, in nanoseconds.
#[derive(Debug, Default)]
pub struct TimeSum(AtomicU64);

impl TimeSum {
    /// Seconds so far.
    pub fn seconds(&self) -> f64 {
        self.0.load(Relaxed) as f64 * 1e-9
    }

    pub(crate) fn add(&self, spent: Duration) {
        self.0.fetch_add(spent.as_nanos() as u64, Relaxed);
    }
}

/// Where the workers' time went, summed over threads; read at any moment.
#[derive(Debug, Default)]
pub struct StageCounters {
    read: TimeSum,
    decode: TimeSum,
    copied_bytes: AtomicU64,
    augment: TimeSum,
    write: TimeSum,
    cpu: TimeSum,
}

impl StageCounters {
    /// Seconds spent reading, and making what is not read.
    pub fn read_s(&self) -> f64 {
        self.read.seconds()
    }

    /// Seconds spent decoding images.
    pub fn decode_s(&self) -> f64 {
        self.decode.seconds()
    }

    /// Bytes that were written to memory on the way of image files into slots, the files themselves included.
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Relaxed)
    }

    /// Seconds spent in transforms.
    pub fn augment_s(&self) -> f64 {
        self.augment.seconds()
    }

    /// Seconds spent checking samples and writing them into slots.
    pub fn write_s(&self) -> f64 {
        self.write.seconds()
    }

    /// Processor time of the threads meanwhile, in seconds; 0 where the system does not tell it.
    pub fn cpu_s(&self) -> f64 {
        self.cpu.seconds()
    }

    /// Seconds of all these together.
    pub fn all_s(&self) -> f64 {
        self.read_s() + self.decode_s() + self.augment_s() + self.write_s()
    }

    fn add(&self, laps: Laps) {
        self.read.add(laps.read);
        self.decode.add(laps.decode);
        self.augment.add(laps.augment);
        self.write.add(laps.write);
    }
}

/// A thread takes about this many chunks of a batch, so that slow samples even out.
const CHUNKS_PER_THREAD: usize = 4;

/// Samples that a thread takes at a time from a batch of `len` that `threads` fill.
pub(crate) fn chunk_len(len: usize, threads: usize) -> usize {
    len.div_ceil(CHUNKS_PER_THREAD * threads.max(1)).max(1)
}

/// One sample of so many is timed in detail, since a clock costs as much as a small sample. The first of
/// a chunk always is; a chunk's whole time is then shared out in the proportions found.
const TIMED_EVERY: usize = 16;

/// Fills `slot` with the samples `indices` of `source`, in order, and the rows after them with zeros.
/// Transforms run in their order, on images of bytes only; image files are decoded, and what has another shape than
/// the source's specification after the transforms is fitted to it. Where the layout has framings, the transforms that
/// the device can do are only drawn, unless an image comes to them in another shape. To be called inside a rayon pool.
///
/// # Errors
/// When a sample cannot be read, a source or transform panics, or a sample does not fit the layout or
/// its label the classes. The error names the sample; of several it is that of the first in the batch.
///
/// # Panics
/// If there are more indices than rows, or the slot is smaller than the layout.
pub fn fill(
    slot: &mut Slot,
    layout: &SlotLayout,
    source: &dyn Source,
    transforms: &[Box<dyn Transform>],
    indices: &[usize],
    keys: Keys,
    times: &StageCounters,
) -> Result<()> {
    assert!(indices.len() <= layout.batch_size, "a batch has a row for every index");
    let filler = Filler::new(layout.clone(), source, transforms, keys)?;
    let chunk = chunk_len(indices.len(), rayon::current_num_threads());
    let mut windows = slot.windows(layout);
    let (filled, padding) = windows.split_at_mut(indices.len());
    padding.iter_mut().for_each(Window::clear);
    // Samples after a failed one need not be read, all before it must: theirs is the earlier error.
    let failed_at = AtomicUsize::new(usize::MAX);
    let error = filled
        .par_chunks_mut(chunk)
        .zip(indices.par_chunks(chunk))
        .enumerate()
        .filter(|(i, _)| i * chunk < failed_at.load(Relaxed))
        .filter_map(|(i, (windows, indices))| {
            let (at, error) = filler.fill_chunk(windows, indices, times, None).err()?;
            failed_at.fetch_min(i * chunk + at, Relaxed);
            Some((i * chunk + at, error))
        })
        .min_by_key(|(at, _)| *at);
    error.map_or(Ok(()), |(_, error)| Err(error))
}

/// The shape in which images leave for the slot, if samples have to go through an [`Image`] at all.
fn image_shape(
    source: &dyn Source,
    transforms: &[Box<dyn Transform>],
) -> Result<Option<[usize; 3]>> {
    let spec = source.spec();
    let needed = match (source.encoding(), transforms.first()) {
        (Encoding::Raw, None) => return Ok(None),
        (_, Some(transform)) => format!("transform {}", transform.name()),
        (Encoding::Image | Encoding::Pixels, None) => "image files".into(),
    };
    match (&spec.input_shape[..], spec.input_dtype) {
        (&[channels, height, width], DType::U8) => Ok(Some([channels, height, width])),
        (shape, dtype) => Err(Error::config(
            needed,
            format!(
                "found samples {dtype:?}{shape:?} in {}, expected images U8[channels, height, width]",
                source.info().name
            ),
        )),
    }
}

/// What all samples of a batch share.
pub(crate) struct Filler<'a> {
    layout: SlotLayout,
    source: &'a dyn Source,
    transforms: &'a [Box<dyn Transform>],
    /// How many of them are the workers'; those after them are left to the device.
    kept: usize,
    image_shape: Option<[usize; 3]>,
    keys: Keys,
    /// None: every bad sample is an error.
    bad: Option<&'a BadSamples>,
    faults: Mutex<Faults>,
}

/// Time of one or more samples, by phase.
#[derive(Clone, Copy, Default)]
struct Laps {
    read: Duration,
    decode: Duration,
    augment: Duration,
    write: Duration,
}

impl Laps {
    /// Stretches these times so that they add up to `total`.
    fn stretched_to(self, total: Duration) -> Self {
        let sum = (self.read + self.decode + self.augment + self.write).as_secs_f64();
        let factor = if sum > 0.0 { total.as_secs_f64() / sum } else { 0.0 };
        let stretch = |lap: Duration| lap.mul_f64(factor);
        Self {
            read: stretch(self.read),
            decode: stretch(self.decode),
            augment: stretch(self.augment),
            write: stretch(self.write),
        }
    }

    /// Takes the time of decoding, which is known to the image alone, out of those of augmenting and writing.
    fn with(mut self, effort: Effort) -> Self {
        self.decode = effort.decode;
        let rest = effort.decode.saturating_sub(self.augment);
        self.augment = self.augment.saturating_sub(effort.decode);
        self.write = self.write.saturating_sub(rest);
        self
    }
}

/// A worker's memory, kept from sample to sample and from batch to batch.
#[derive(Default)]
struct Scratch {
    source: Vec<u8>,
    image: ImageMemory,
}

thread_local! {
    // Taken out while in use: a source that itself uses the pool may run another chunk on this thread.
    static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
}

impl<'a> Filler<'a> {
    /// What fills batches of `layout` from `source`.
    ///
    /// # Errors
    /// When its samples are no images and yet there are transforms.
    pub(crate) fn new(
        layout: SlotLayout,
        source: &'a dyn Source,
        transforms: &'a [Box<dyn Transform>],
        keys: Keys,
    ) -> Result<Self> {
        let image_shape = image_shape(source, transforms)?;
        let frames = layout.framing_bytes > 0;
        let deferred = if frames { deferrable(transforms, source.spec()) } else { 0 };
        let kept = transforms.len() - deferred;
        let faults = Mutex::default();
        Ok(Self { layout, source, transforms, kept, image_shape, keys, bad: None, faults })
    }

    /// How the batches lie in their slots.
    pub(crate) fn layout(&self) -> &SlotLayout {
        &self.layout
    }

    /// Has bad samples replaced, left out, or told of as errors, as `bad` says.
    pub(crate) fn tolerating(self, bad: &'a BadSamples) -> Self {
        Self { bad: Some(bad).filter(|bad| bad.tolerates()), ..self }
    }

    /// What was met while the batch was filled. The gaps of samples that are left out are closed first: the last ones
    /// take their places, and the rows after them become zeros. To be called when all samples are filled.
    ///
    /// # Errors
    /// When a sample that takes another place cannot be read any more, and that is an error.
    pub(crate) fn finish(self, slot: &mut Slot, indices: &mut Vec<usize>) -> Result<Faults> {
        if !self.faults().left_out.is_empty() {
            self.close_gaps(slot.windows(&self.layout), indices)?;
        }
        Ok(self.faults.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a sample is not there.
enum Failure {
    /// It is bad itself: it cannot be read or decoded, or its target does not fit.
    Bad(Error),
    /// Something else failed: a panic is a mistake in a program.
    Other(Error),
}

impl Failure {
    fn of(error: Error) -> Self {
        if error.kind() == ErrorKind::Data { Self::Bad(error) } else { Self::Other(error) }
    }
}

impl Filler<'_> {
    /// Fills a run of windows of the batch that is `traced`, if any; an error comes with its place in the run.
    pub(crate) fn fill_chunk(
        &self,
        windows: &mut [Window<'_>],
        indices: &[usize],
        times: &StageCounters,
        traced: Option<(&Tracer, u64)>,
    ) -> Result<(), (usize, Error)> {
        let (start, cpu) = (Stamp::now(), thread_time());
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let mut laps = Laps::default();
        let mut filled = Ok(());
        for (at, (window, &index)) in windows.iter_mut().zip(indices).enumerate() {
            let timed = at.is_multiple_of(TIMED_EVERY).then_some(&mut laps);
            // A source may panic over a sample's name, too.
            let name = format_args!("sample {index} of {}", self.source.info().name);
            let fill = || self.fill_window(window, index, &mut scratch, timed);
            if let Err(error) = guarded(name, fill) {
                filled = Err((at, error));
                break;
            }
        }
        let effort = scratch.image.take_effort();
        SCRATCH.set(Some(scratch));
        let end = Stamp::now();
        let laps = laps.stretched_to(start.until(end)).with(effort);
        times.add(laps);
        if let Some((before, now)) = cpu.zip(thread_time()) {
            times.cpu.add(now.saturating_sub(before));
        }
        if let Some((tracer, batch)) = traced
            && let (Some(start), Some(end)) = (start.instant(), end.instant())
        {
            let parts = [laps.read, laps.decode, laps.augment, laps.write];
            tracer.chunk(batch, indices.len(), [start, end], parts);
        }
        times.copied_bytes.fetch_add(effort.bytes, Relaxed);
        filled
    }

    /// Fills one window, with the sample or one that stands in for it; or notes that it is to be left out.
    fn fill_window(
        &self,
        window: &mut Window<'_>,
        index: usize,
        scratch: &mut Scratch,
        laps: Option<&mut Laps>,
    ) -> Result<()> {
        let named = |e: Error, i| e.within(self.name(i)).at(Stage::Prepare);
        let Some(bad) = self.bad else {
            let filled = self.fill_guarded(window, index, scratch, laps);
            return filled
                .map_err(|(Failure::Bad(error) | Failure::Other(error))| named(error, index));
        };
        // Once they are too many, the run ends when the batch is settled: what is in it no longer matters.
        let is_over = || bad.exceeds(&self.faults().bad);
        let others = bad.stand_ins(self.keys, index).take_while(|_| bad.replaces() && !is_over());
        let mut laps = laps;
        for (i, tried) in std::iter::once(index).chain(others).enumerate() {
            if i == 1 {
                self.faults().replaced += 1;
            }
            match self.fill_guarded(window, tried, scratch, laps.take()) {
                Ok(()) => return Ok(()),
                Err(Failure::Bad(error)) => self.faults().bad.push((tried, error)),
                Err(Failure::Other(error)) => return Err(named(error, tried)),
            }
        }
        match bad.replaces() {
            false => self.faults().left_out.push(index),
            true if is_over() => {}
            true => {
                let message = "found no good sample in its place, expected at least one";
                return Err(named(Error::data("data", message), index));
            }
        }
        Ok(())
    }

    /// Puts the last samples of a batch into the places of those that are left out.
    fn close_gaps(&self, mut windows: Vec<Window<'_>>, indices: &mut Vec<usize>) -> Result<()> {
        let filled = indices.len();
        let mut scratch = Scratch::default();
        let is_left_out = |index: &usize| self.faults().left_out.contains(index);
        while let Some(row) = indices.iter().position(is_left_out) {
            indices.swap_remove(row);
            if let Some(&last) = indices.get(row).filter(|index| !is_left_out(index)) {
                self.fill_window(&mut windows[row], last, &mut scratch, None)?;
            }
        }
        windows[indices.len()..filled].iter_mut().for_each(Window::clear);
        Ok(())
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills one window with one sample; a panic becomes an error.
    fn fill_guarded(
        &self,
        window: &mut Window<'_>,
        index: usize,
        scratch: &mut Scratch,
        laps: Option<&mut Laps>,
    ) -> Result<(), Failure> {
        let phase = Cell::new("source");
        // After a panic the scratch holds any bytes, which the next sample overwrites; nothing else is shared.
        let caught = catch_unwind(AssertUnwindSafe(|| {
            self.fill_sample(window, index, scratch, laps, &phase)
        }));
        match caught {
            Ok(filled) => filled.map_err(Failure::of),
            Err(panic) => Err(Failure::Other(panicked(phase.get(), &*panic))),
        }
    }

    fn fill_sample<'a>(
        &'a self,
        window: &mut Window<'_>,
        index: usize,
        scratch: &mut Scratch,
        laps: Option<&mut Laps>,
        phase: &Cell<&'a str>,
    ) -> Result<()> {
        let clock = || laps.is_some().then(Stamp::now);
        let begun = clock();
        let sample = self.source.read(index, &mut scratch.source)?;
        if faults::due(At::Sample(index)) {
            return Err(Error::data(self.name(index), "cannot be decoded, as planned by a test"));
        }
        let read = clock();
        assert!(!faults::due(At::Transform(index)), "a panic planned by a test");
        let mut framing = Framing::default();
        let mut image = match self.image_shape {
            None => None,
            Some(shape) => {
                let memory = &mut scratch.image;
                let mut image = self.augment(shape, index, sample.input, memory, phase)?;
                if !window.framing.is_empty() {
                    framing = self.frame(&mut image, index, phase)?;
                }
                image.fit()?;
                Some(image)
            }
        };
        let augmented = clock();
        match &mut image {
            None => self.write(window, sample.input, sample.target)?,
            Some(image) => {
                self.write_target(&mut window.target, &[], sample.target)?;
                image.write(&mut window.input)?;
            }
        }
        if !window.framing.is_empty() {
            window.framing.copy_from_slice(bytemuck::bytes_of(&framing));
        }
        let written = clock();
        if let (Some(laps), Some(begun), Some(read), Some(augmented), Some(written)) =
            (laps, begun, read, augmented, written)
        {
            laps.read += begun.until(read);
            laps.augment += read.until(augmented);
            laps.write += augmented.until(written);
        }
        Ok(())
    }

    /// Runs the workers' transforms on an image, in the worker's memory.
    fn augment<'a, 'b>(
        &'a self,
        shape: [usize; 3],
        index: usize,
        input: &'b [u8],
        memory: &'b mut ImageMemory,
        phase: &Cell<&'a str>,
    ) -> Result<Image<'b>> {
        let mut image = match self.source.encoding() {
            Encoding::Image => {
                Image::encoded(input, shape, memory)?.decoded_at(self.source.info().decode)
            }
            Encoding::Pixels => {
                let (pixels, size) = cache::pixels(input, shape[0])?;
                Image::decoded(pixels, size, shape, memory)
            }
            Encoding::Raw => {
                expect_bytes(input, shape.iter().product(), "before the transforms")?;
                Image::raw(shape, input, memory)
            }
        };
        self.apply(0..self.kept, &mut image, index, phase)?;
        Ok(image)
    }

    /// Runs a part of the list on an image.
    fn apply<'a>(
        &'a self,
        places: Range<usize>,
        image: &mut Image<'_>,
        index: usize,
        phase: &Cell<&'a str>,
    ) -> Result<()> {
        let key = [self.keys.seed, self.keys.epoch, index as u64];
        apply_all(self.transforms, places, image, key, |name| phase.set(name))?;
        phase.set("image");
        Ok(())
    }

    /// What the device is to do to an image, of which all that it cannot do is done.
    fn frame<'a>(
        &'a self,
        image: &mut Image<'_>,
        index: usize,
        phase: &Cell<&'a str>,
    ) -> Result<Framing> {
        let [_, height, width] = image.target();
        let mut framing = Framing::whole([height, width]);
        let deferred = self.kept..self.transforms.len();
        if image.shape() != image.target() {
            // The order of resizing and the rest matters.
            self.apply(deferred, image, index, phase)?;
            return Ok(framing);
        }
        for place in deferred {
            let transform = &self.transforms[place];
            phase.set(transform.name());
            let key = [self.keys.seed, self.keys.epoch, index as u64, place as u64];
            transform.reframe(&mut framing, [height, width], &mut Rng::keyed(&key));
        }
        phase.set("image");
        Ok(framing)
    }

    /// Checks a sample and writes it.
    fn write(
        &self,
        Window { input, target, .. }: &mut Window<'_>,
        bytes: &[u8],
        found: Target<'_>,
    ) -> Result<()> {
        expect_bytes(bytes, self.layout.input_bytes, "of input")?;
        self.write_target(target, bytes, found)?;
        input.copy_from_slice(bytes);
        Ok(())
    }

    /// Checks a target against the input, raw bytes of which it may depend on, and writes it.
    fn write_target(
        &self,
        target: &mut WriteOnly<'_>,
        bytes: &[u8],
        found: Target<'_>,
    ) -> Result<()> {
        match (found, &self.source.spec().target) {
            (Target::Class(label), TargetSpec::Class { classes })
                if (label as usize) < *classes =>
            {
                target.copy_from_slice(&label.to_le_bytes());
            }
            (Target::Class(label), TargetSpec::Class { classes }) => {
                return Err(Error::data(
                    "target",
                    format!("found label {label}, expected a label below {classes}"),
                ));
            }
            (Target::Values(values), TargetSpec::Values { len }) if values.len() == *len => {
                target.copy_from_slice(bytemuck::cast_slice(values));
            }
            (Target::Tokens(tokens), TargetSpec::Tokens { len, vocabulary, .. })
                if tokens.len() == 4 * len =>
            {
                expect_tokens(bytes, self.source.spec().input_dtype, *vocabulary)?;
                expect_tokens(tokens, DType::U32, *vocabulary)?;
                target.copy_from_slice(tokens);
            }
            (found, expected) => {
                return Err(Error::data(
                    "target",
                    format!("found {found:?}, expected {expected:?}"),
                ));
            }
        }
        Ok(())
    }

    fn name(&self, index: usize) -> String {
        let name = &self.source.info().name;
        match self.source.origin(index) {
            Some(origin) => format!("sample {index} of {name}: {origin}"),
            None => format!("sample {index} of {name}"),
        }
    }
}

fn expect_bytes(bytes: &[u8], expected: usize, what: &str) -> Result<()> {
    if bytes.len() == expected {
        return Ok(());
    }
    Err(Error::data("input", format!("found {} bytes {what}, expected {expected}", bytes.len())))
}

/// Has a panic in `run` become an error of `what`. Whoever waits for a batch is then told, where a thread that panics
/// would leave it waiting, or take the end of its channel for the end of the data.
pub(crate) fn guarded<T>(what: impl Display, run: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic leaves half done is a batch, which ends with this error.
    let caught = catch_unwind(AssertUnwindSafe(run));
    caught.unwrap_or_else(|panic| Err(panicked(what, &*panic)))
}

/// The error that a panic in `what` becomes.
fn panicked(what: impl Display, panic: &(dyn Any + Send)) -> Error {
    let message = format!("panicked: {}", panic_message(panic));
    Error::new(Stage::Prepare, ErrorKind::Data, what, message)
}

/// Checks that every token is below the vocabulary.
fn expect_tokens(bytes: &[u8], dtype: DType, vocabulary: usize) -> Result<()> {
    let highest = match dtype {
        DType::U16 => {
            bytes.as_chunks().0.iter().map(|&token| u32::from(u16::from_le_bytes(token))).max()
        }
        _ => bytes.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token)).max(),
    };
    match highest {
        Some(token) if token as usize >= vocabulary => Err(Error::data(
            "tokens",
            format!("found token {token}, expected tokens below {vocabulary}"),
        )
        .hint("a larger --vocabulary")),
        _ => Ok(()),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
