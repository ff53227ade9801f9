//! Samples made from a seed: for tests, benchmarks, and to see what a pipeline does under a known cost.

use std::time::{Duration, Instant};

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::source::resident::no_such_sample;
use crate::source::{Sample, Source, SourceInfo, Target};

/// What each read costs on top of making the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Cost {
    /// Nothing.
    #[default]
    None,
    /// The thread sleeps, like one that waits for a disk.
    Sleep(Duration),
    /// The thread computes, like one that decodes.
    Spin(Duration),
}

/// A source whose samples are a pure function of (seed, index).
///
/// A sample is a mixture of fixed patterns plus noise. For classes it is the pattern of its class, for
/// values each target is the share of one pattern; either can be learned, unless
/// [`learnable`](Synthetic::learnable) is switched off.
pub struct Synthetic {
    spec: SampleSpec,
    info: SourceInfo,
    len: usize,
    first: usize,
    seed: u64,
    cost: Cost,
    learnable: bool,
    /// One pattern a class or value, elements in -1..1.
    patterns: Vec<Vec<f32>>,
    /// Targets of all samples where they are values: they must be lent.
    values: Vec<f32>,
}

/// Keys that keep the streams of patterns, of targets and of noise apart.
const PATTERN: u64 = 1;
const TARGET: u64 = 2;
const NOISE: u64 = 3;

impl Synthetic {
    /// `len` samples of `spec`, made from `seed`.
    ///
    /// # Errors
    /// When the input is empty or not `u8` or `f32`, or there is no class or value.
    pub fn new(len: usize, spec: SampleSpec, seed: u64) -> Result<Self> {
        let targets = match spec.target {
            TargetSpec::Class { classes } => classes,
            TargetSpec::Values { len } => len,
            // Refused by what follows.
            TargetSpec::Tokens { .. } => 0,
        };
        let elements: usize = spec.input_shape.iter().product();
        if elements == 0 || targets == 0 || ![DType::U8, DType::F32].contains(&spec.input_dtype) {
            return Err(Error::data(
                "synthetic",
                format!(
                    "found {spec:?}, expected u8 or f32 elements and at least one class or value"
                ),
            ));
        }
        let pattern = |target: usize| {
            let mut rng = Rng::keyed(&[seed, PATTERN, target as u64]);
            (0..elements).map(|_| rng.range(-1.0, 1.0) as f32).collect()
        };
        let patterns = (0..targets).map(pattern).collect();
        let channels = spec.input_shape[0];
        let mut info = SourceInfo { name: "synthetic".into(), ..Default::default() };
        if spec.input_dtype == DType::U8 {
            (info.mean, info.std) = (vec![0.5; channels], vec![0.25; channels]);
        }
        let source = Self {
            spec,
            info,
            len,
            first: 0,
            seed,
            cost: Cost::None,
            learnable: true,
            patterns,
            values: Vec::new(),
        };
        Ok(source.with_values())
    }

    /// Charges `cost` for each read.
    pub fn cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// Whether the target can be told from the input; true unless said otherwise.
    pub fn learnable(mut self, learnable: bool) -> Self {
        self.learnable = learnable;
        self
    }

    /// Starts at another sample: with the same seed, samples from `len` on are a test split.
    pub fn starting_at(mut self, first: usize) -> Self {
        self.first = first;
        self.with_values()
    }

    fn with_values(mut self) -> Self {
        if let TargetSpec::Values { len } = self.spec.target {
            let value = |i: usize| {
                let key = [self.seed, TARGET, (self.first + i / len) as u64, (i % len) as u64];
                Rng::keyed(&key).range(-1.0, 1.0) as f32
            };
            self.values = (0..self.len * len).map(value).collect();
        }
        self
    }

    fn class(&self, index: usize, classes: usize) -> u32 {
        Rng::keyed(&[self.seed, TARGET, (self.first + index) as u64]).below(classes as u64) as u32
    }

    /// The noiseless value of one element, in -1..1 or so.
    fn signal(&self, element: usize, target: Target<'_>) -> f32 {
        match target {
            _ if !self.learnable => 0.0,
            Target::Class(class) => self.patterns[class as usize][element],
            Target::Values(values) => {
                let share = |(value, pattern): (&f32, &Vec<f32>)| value * pattern[element];
                let sum: f32 = values.iter().zip(&self.patterns).map(share).sum();
                sum / (values.len() as f32).sqrt()
            }
            Target::Tokens(_) => unreachable!("refused when the source was made"),
        }
    }

    /// Makes the input of sample `index` in `scratch`.
    fn make(&self, index: usize, target: Target<'_>, scratch: &mut Vec<u8>) {
        let mut rng = Rng::keyed(&[self.seed, NOISE, (self.first + index) as u64]);
        scratch.clear();
        // One draw is the noise of eight elements: making a sample should cost little.
        let mut draw = 0u64;
        for element in 0..self.patterns[0].len() {
            if element % 8 == 0 {
                draw = rng.next_u64();
            }
            let noise = (draw & 0xff) as f32 / 127.5 - 1.0;
            draw >>= 8;
            let value = 0.5 * self.signal(element, target) + 0.5 * noise;
            match self.spec.input_dtype {
                DType::U8 => scratch.push((127.5 + 127.5 * value).clamp(0.0, 255.0) as u8),
                _ => scratch.extend_from_slice(&value.to_le_bytes()),
            }
        }
    }
}

impl Source for Synthetic {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn waits(&self) -> bool {
        matches!(self.cost, Cost::Sleep(_))
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index >= self.len {
            return Err(no_such_sample(&self.info.name, index, self.len));
        }
        let target = match self.spec.target {
            TargetSpec::Class { classes } => Target::Class(self.class(index, classes)),
            TargetSpec::Values { len } => {
                Target::Values(&self.values[index * len..(index + 1) * len])
            }
            TargetSpec::Tokens { .. } => unreachable!("refused when the source was made"),
        };
        self.make(index, target, scratch);
        match self.cost {
            Cost::None => {}
            Cost::Sleep(time) => std::thread::sleep(time),
            Cost::Spin(time) => {
                let start = Instant::now();
                while start.elapsed() < time {
                    std::hint::spin_loop();
                }
            }
        }
        Ok(Sample { input: scratch, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(target: TargetSpec) -> SampleSpec {
        SampleSpec { input_shape: vec![1, 8, 8], input_dtype: DType::U8, target }
    }

    /// The nearest pattern tells the class, if and only if the source is learnable.
    #[test]
    fn classes_can_be_told_from_images_unless_switched_off() {
        let hits = |source: &Synthetic| {
            let mut scratch = Vec::new();
            let hit = |i: &usize| {
                let sample = source.read(*i, &mut scratch).unwrap();
                let Target::Class(class) = sample.target else { panic!("a classifier") };
                let score = |pattern: &Vec<f32>| -> f32 {
                    pattern.iter().zip(sample.input).map(|(p, &x)| p * (f32::from(x) - 127.5)).sum()
                };
                let scores: Vec<f32> = source.patterns.iter().map(score).collect();
                scores.iter().all(|&s| s <= scores[class as usize])
            };
            (0..200).filter(hit).count()
        };
        let source = Synthetic::new(200, spec(TargetSpec::Class { classes: 10 }), 3).unwrap();
        assert!(hits(&source) > 190, "{}", hits(&source));
        // Bytes are brought to the range that floats have.
        assert_eq!((&source.info().mean[..], &source.info().std[..]), (&[0.5][..], &[0.25][..]));
        let floats = SampleSpec { input_dtype: DType::F32, ..source.spec().clone() };
        assert!(Synthetic::new(2, floats, 3).unwrap().info().mean.is_empty());
        let noise = source.learnable(false);
        assert!(hits(&noise) < 60, "{}", hits(&noise));
    }

    #[test]
    fn values_are_the_shares_of_the_patterns() {
        let source = Synthetic::new(50, spec(TargetSpec::Values { len: 2 }), 3).unwrap();
        let mut scratch = Vec::new();
        let mut agreement = 0.0;
        for i in 0..50 {
            let sample = source.read(i, &mut scratch).unwrap();
            let Target::Values(values) = sample.target else { panic!("values") };
            let pattern = source.patterns[0].iter();
            let share: f32 =
                pattern.zip(sample.input).map(|(p, &x)| p * (f32::from(x) - 127.5)).sum();
            agreement += share * values[0];
        }
        assert!(agreement > 0.0, "{agreement}");
    }

    #[test]
    fn a_later_start_is_the_same_stream() {
        let make = || Synthetic::new(20, spec(TargetSpec::Values { len: 3 }), 3).unwrap();
        let (all, later) = (make(), make().starting_at(5));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for i in 0..15 {
            assert_eq!(all.read(i + 5, &mut a).unwrap(), later.read(i, &mut b).unwrap());
        }
    }
}
