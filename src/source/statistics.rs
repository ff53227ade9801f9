//! Counts and moments of a source, computed in parallel and always the same.

use rayon::prelude::*;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::{ENDLESS, Source, Target, Viewer, no_stream};

/// What there is to know about a source's samples.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Statistics {
    /// Shape and type of every sample.
    pub spec: SampleSpec,
    /// Number of samples.
    pub samples: usize,
    /// Samples of each class; empty for regression.
    pub label_counts: Vec<u64>,
    /// Mean of each channel, after division by 255 for `u8`. Inputs `[c, h, w]` have `c` channels, all
    /// others one.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel over all elements (divided by n).
    pub std: Vec<f64>,
    /// Smallest element, in the unit of the mean.
    pub min: f64,
    /// Largest element.
    pub max: f64,
}

/// Samples a task takes at once; fixed, so that sums of floats do not depend on the number of threads.
const CHUNK: usize = 256;

/// Reads every sample once. Whole-number sums make the moments of `u8` exact; those of `f32` are summed in
/// `f64`, in an order that does not depend on the number of threads.
///
/// # Errors
/// When a sample cannot be read, or its length or label does not fit the source's specification.
pub fn statistics(source: &dyn Source) -> Result<Statistics> {
    if source.len() == ENDLESS {
        return Err(no_stream(source, "to count"));
    }
    let spec = source.spec();
    let starts: Vec<usize> = (0..source.len()).step_by(CHUNK).collect();
    let parts: Result<Vec<Moments>> = starts
        .into_par_iter()
        .map(|start| chunk(source, start..(start + CHUNK).min(source.len())))
        .collect();
    let mut all = Moments::new(spec);
    parts?.into_iter().for_each(|part| all.merge(&part));
    Ok(all.finish(spec, source.len()))
}

fn chunk(source: &dyn Source, range: std::ops::Range<usize>) -> Result<Moments> {
    let spec = source.spec();
    let mut moments = Moments::new(spec);
    let mut viewer = Viewer::default();
    for index in range {
        let sample = viewer.read(source, index)?;
        let item = || format!("sample {index} of {}", source.info().name);
        if sample.input.len() != spec.input_bytes() {
            return Err(Error::data(
                item(),
                format!("found {} bytes, expected {}", sample.input.len(), spec.input_bytes()),
            ));
        }
        if let Target::Class(label) = sample.target {
            let classes = moments.labels.len();
            let count = moments.labels.get_mut(label as usize).ok_or_else(|| {
                Error::data(
                    item(),
                    format!("found label {label}, expected a label below {classes}"),
                )
            })?;
            *count += 1;
        }
        moments.add(spec.input_dtype, sample.input);
    }
    Ok(moments)
}

/// Sums of one run of samples.
struct Moments {
    labels: Vec<u64>,
    channels: Vec<Sums>,
}

/// Sums of one channel: whole numbers for `u8`, floats for the rest.
#[derive(Clone)]
struct Sums {
    count: u64,
    whole: u64,
    whole_squares: u64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

const EMPTY: Sums = Sums {
    count: 0,
    whole: 0,
    whole_squares: 0,
    sum: 0.0,
    squares: 0.0,
    min: f64::INFINITY,
    max: f64::NEG_INFINITY,
};

impl Moments {
    fn new(spec: &SampleSpec) -> Self {
        let labels = match spec.target {
            TargetSpec::Class { classes } => vec![0; classes],
            TargetSpec::Values { .. } | TargetSpec::Tokens { .. } => Vec::new(),
        };
        let channels = match spec.input_shape[..] {
            [channels, _, _] => channels,
            _ => 1,
        };
        Self { labels, channels: vec![EMPTY; channels] }
    }

    fn add(&mut self, dtype: DType, input: &[u8]) {
        let plane = input.len() / self.channels.len();
        for (sums, bytes) in self.channels.iter_mut().zip(input.chunks_exact(plane)) {
            match dtype {
                DType::U8 => sums.add_bytes(bytes),
                DType::U16 => sums.add_numbers(bytes, |b| f64::from(u16::from_le_bytes(b))),
                DType::U32 => sums.add_numbers(bytes, |b| f64::from(u32::from_le_bytes(b))),
                DType::F16 => unreachable!("samples are bytes, integers or 32-bit floats"),
                DType::F32 => sums.add_numbers(bytes, |b| f64::from(f32::from_le_bytes(b))),
            }
        }
    }

    fn merge(&mut self, other: &Moments) {
        self.labels.iter_mut().zip(&other.labels).for_each(|(a, b)| *a += b);
        for (a, b) in self.channels.iter_mut().zip(&other.channels) {
            a.count += b.count;
            a.whole += b.whole;
            a.whole_squares += b.whole_squares;
            a.sum += b.sum;
            a.squares += b.squares;
            a.min = a.min.min(b.min);
            a.max = a.max.max(b.max);
        }
    }

    fn finish(self, spec: &SampleSpec, samples: usize) -> Statistics {
        let moments = |sums: &Sums| {
            let n = sums.count as f64;
            if sums.whole_squares > 0 {
                // Exact up to here: n · Σx² and (Σx)² as whole numbers, subtracted before any rounding.
                let spread = u128::from(sums.count) * u128::from(sums.whole_squares)
                    - u128::from(sums.whole) * u128::from(sums.whole);
                return (sums.whole as f64 / n / 255.0, (spread as f64).sqrt() / n / 255.0);
            }
            let mean = sums.sum / n;
            (mean, (sums.squares / n - mean * mean).max(0.0).sqrt())
        };
        let (mean, std) = self.channels.iter().map(moments).unzip();
        let unit = if spec.input_dtype == DType::U8 { 255.0 } else { 1.0 };
        let min = self.channels.iter().fold(f64::INFINITY, |m, s| m.min(s.min)) / unit;
        let max = self.channels.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.max)) / unit;
        Statistics { spec: spec.clone(), samples, label_counts: self.labels, mean, std, min, max }
    }
}

impl Sums {
    fn add_bytes(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        self.whole += bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
        self.whole_squares += bytes.iter().map(|&b| u64::from(b) * u64::from(b)).sum::<u64>();
        let (min, max) = bytes.iter().fold((u8::MAX, 0), |(lo, hi), &b| (lo.min(b), hi.max(b)));
        self.min = self.min.min(f64::from(min));
        self.max = self.max.max(f64::from(max));
    }

    fn add_numbers<const N: usize>(&mut self, bytes: &[u8], value: impl Fn([u8; N]) -> f64) {
        for &b in bytes.as_chunks().0 {
            let x = value(b);
            self.count += 1;
            self.sum += x;
            self.squares += x * x;
            self.min = self.min.min(x);
            self.max = self.max.max(x);
        }
    }
}
