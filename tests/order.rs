//! What lies in a slot is a function of source, indices and keys: never of threads, and never of luck.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::rng::Rng;
use inflight::sampler::Sampler;
use inflight::source::{Cost, OpenOptions, Sample, Source, SourceInfo, Synthetic, Target, open};
use inflight::transform::{HorizontalFlip, Image, PadCrop, Transform};
use inflight::{Error, Result, Stage};

fn transforms() -> Vec<Box<dyn Transform>> {
    vec![
        Box::new(PadCrop { padding: 3, ..Default::default() }),
        Box::new(HorizontalFlip::default()),
    ]
}

/// Fills one slot, full of other bytes before, in a pool of so many threads.
fn fill_with(
    threads: usize,
    source: &dyn Source,
    transforms: &[Box<dyn Transform>],
    batch_size: usize,
    indices: &[usize],
    keys: Keys,
) -> Result<Vec<u8>> {
    let layout = SlotLayout::new(source.spec(), batch_size);
    let mut slot = Slot::host(0, layout.slot_bytes);
    for (mut input, mut target) in slot.samples(&layout) {
        input.fill(0xaa);
        target.fill(0xaa);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let times = StageCounters::default();
    pool.install(|| fill(&mut slot, &layout, source, transforms, indices, keys, &times))?;
    Ok(slot.bytes().unwrap().to_vec())
}

const KEYS: Keys = Keys { seed: 1, epoch: 0 };

fn images(len: usize) -> Synthetic {
    let spec = SampleSpec {
        input_shape: vec![2, 9, 7],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 10 },
    };
    Synthetic::new(len, spec, 7).unwrap()
}

#[test]
fn any_number_of_threads_fills_the_same_bytes() {
    let source = open("fashion-mnist-10k", &OpenOptions { offline: true, ..Default::default() })
        .unwrap()
        .train;
    let sampler = Sampler::new(source.len(), 100, 3, true, false).unwrap();
    for (batch_size, count) in [(100, 100), (100, 37), (101, 100), (128, 1)] {
        let indices: Vec<usize> = sampler.indices(2, 5).take(count).collect();
        let keys = Keys { seed: 3, epoch: 2 };
        let fill = |threads| {
            fill_with(threads, &*source, &transforms(), batch_size, &indices, keys).unwrap()
        };
        let one = fill(1);
        assert_eq!(one, fill(2));
        assert_eq!(one, fill(5));
    }
}

#[test]
fn plain_samples_arrive_as_they_are_and_padding_is_zero() {
    let source = images(50);
    let indices = [49, 3, 3, 17];
    let bytes = fill_with(2, &source, &[], 6, &indices, KEYS).unwrap();
    let layout = SlotLayout::new(source.spec(), 6);
    let mut scratch = Vec::new();
    for (row, &index) in indices.iter().enumerate() {
        let sample = source.read(index, &mut scratch).unwrap();
        let at = layout.input_offset + row * layout.input_bytes;
        assert_eq!(&bytes[at..at + layout.input_bytes], sample.input);
        let at = layout.target_offset + row * layout.target_bytes;
        let label = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(Target::Class(label), sample.target);
    }
    for row in 4..6 {
        let at = layout.input_offset + row * layout.input_bytes;
        assert!(bytes[at..at + layout.input_bytes].iter().all(|&b| b == 0));
        let at = layout.target_offset + row * layout.target_bytes;
        assert!(bytes[at..at + layout.target_bytes].iter().all(|&b| b == 0));
    }
}

#[test]
fn values_arrive_as_floats() {
    let spec = SampleSpec {
        input_shape: vec![4],
        input_dtype: DType::F32,
        target: TargetSpec::Values { len: 3 },
    };
    let source = Synthetic::new(10, spec, 7).unwrap();
    let bytes = fill_with(2, &source, &[], 2, &[4, 9], KEYS).unwrap();
    let layout = SlotLayout::new(source.spec(), 2);
    let sample_values = |index| match source.read(index, &mut Vec::new()).unwrap().target {
        Target::Values(values) => values.to_vec(),
        Target::Class(_) | Target::Tokens(_) => panic!("values"),
    };
    let written: Vec<f32> = bytes[layout.target_offset..][..24]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(written, [sample_values(4), sample_values(9)].concat());
}

#[test]
fn augmentation_depends_on_seed_epoch_and_sample_but_not_on_place() {
    let source = images(50);
    let layout = SlotLayout::new(source.spec(), 8);
    let image = |bytes: &[u8], row: usize| {
        bytes[layout.input_offset + row * layout.input_bytes..][..layout.input_bytes].to_vec()
    };
    let fill =
        |indices: &[usize], keys| fill_with(2, &source, &transforms(), 8, indices, keys).unwrap();
    let a = fill(&[1, 2, 3, 4, 5, 6, 7, 8], KEYS);
    let b = fill(&[8, 7, 6, 5, 4, 3, 2, 1], KEYS);
    for row in 0..8 {
        assert_eq!(image(&a, row), image(&b, 7 - row));
    }
    assert_ne!(a, fill(&[1, 2, 3, 4, 5, 6, 7, 8], Keys { epoch: 1, ..KEYS }));
    assert_ne!(a, fill(&[1, 2, 3, 4, 5, 6, 7, 8], Keys { seed: 2, ..KEYS }));
}

/// Delivers what it should not at chosen samples.
struct Faulty {
    inner: Synthetic,
    fault: FaultAt,
    reads: AtomicUsize,
}

/// The fault of a sample, if it has one.
type FaultAt = fn(usize) -> Option<Fault>;

enum Fault {
    Panic,
    Error,
    Label,
    Short,
    Values,
}

impl Faulty {
    fn new(fault: FaultAt) -> Self {
        Self { inner: images(100), fault, reads: AtomicUsize::new(0) }
    }
}

impl Source for Faulty {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.inner.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.inner.info()
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        self.reads.fetch_add(1, Relaxed);
        let sample = self.inner.read(index, scratch)?;
        match (self.fault)(index) {
            None => Ok(sample),
            Some(Fault::Panic) => panic!("no such thing as sample {index}"),
            Some(Fault::Error) => {
                Err(Error::data("images.bin", "cannot be read").hint("another disk"))
            }
            Some(Fault::Label) => Ok(Sample { target: Target::Class(10), ..sample }),
            Some(Fault::Short) => Ok(Sample { input: &sample.input[1..], ..sample }),
            Some(Fault::Values) => Ok(Sample { target: Target::Values(&[0.5]), ..sample }),
        }
    }
}

#[test]
fn each_fault_is_an_error_that_names_the_sample() {
    let cases: [(FaultAt, &str); 5] = [
        (|i| (i == 40).then_some(Fault::Panic), "source: panicked: no such thing as sample 40"),
        (|i| (i == 40).then_some(Fault::Error), "images.bin: cannot be read; try another disk"),
        (
            |i| (i == 40).then_some(Fault::Label),
            "target: found label 10, expected a label below 10",
        ),
        (|i| (i == 40).then_some(Fault::Short), "input: found 125 bytes of input, expected 126"),
        (
            |i| (i == 40).then_some(Fault::Values),
            "target: found Values([0.5]), expected Class { classes: 10 }",
        ),
    ];
    let indices: Vec<usize> = (20..70).collect();
    for (fault, message) in cases {
        let error = fill_with(2, &Faulty::new(fault), &[], 64, &indices, KEYS).unwrap_err();
        assert_eq!(error.stage(), Stage::Prepare);
        assert_eq!(error.to_string(), format!("prepare: sample 40 of synthetic: {message}"));
    }
}

#[test]
fn of_several_faults_the_first_in_the_batch_is_reported() {
    let fault = |i: usize| {
        (i % 7 == 3).then_some(if i.is_multiple_of(2) { Fault::Panic } else { Fault::Error })
    };
    let indices: Vec<usize> = (0..100).rev().collect();
    for threads in [1, 2, 5] {
        for _ in 0..20 {
            let error =
                fill_with(threads, &Faulty::new(fault), &[], 100, &indices, KEYS).unwrap_err();
            assert!(error.item().starts_with("sample 94 of synthetic"), "{threads}: {error}");
        }
    }
}

#[test]
fn what_comes_after_a_fault_is_left_alone() {
    let source = Faulty::new(|i| (i == 0).then_some(Fault::Error));
    let indices: Vec<usize> = (0..100).collect();
    fill_with(1, &source, &[], 100, &indices, KEYS).unwrap_err();
    assert_eq!(source.reads.load(Relaxed), 1);
}

struct Panicking;

impl Transform for Panicking {
    fn name(&self) -> &str {
        "panicking"
    }

    fn apply(&self, image: &mut Image<'_>, _rng: &mut Rng) -> Result<()> {
        assert!(image.pixels()?.is_empty(), "an image too far");
        Ok(())
    }
}

struct Shrink;

impl Transform for Shrink {
    fn name(&self) -> &str {
        "shrink"
    }

    fn apply(&self, image: &mut Image<'_>, _rng: &mut Rng) -> Result<()> {
        let [channels, height, width] = image.shape();
        image.redraw([channels - 1, height, width], |_, _| ())
    }
}

#[test]
fn faulty_transforms_are_errors_too() {
    let fails = |transform: Box<dyn Transform>| {
        fill_with(2, &images(10), &[transform], 4, &[5, 6], KEYS).unwrap_err().to_string()
    };
    assert_eq!(
        fails(Box::new(Panicking)),
        "prepare: sample 5 of synthetic: panicking: panicked: an image too far"
    );
    assert_eq!(
        fails(Box::new(Shrink)),
        "prepare: sample 5 of synthetic: image: found an image of shape [1, 9, 7], expected [2, 9, 7] (126 bytes)"
    );
    let spec = SampleSpec {
        input_shape: vec![4],
        input_dtype: DType::F32,
        target: TargetSpec::Class { classes: 2 },
    };
    let table = Synthetic::new(10, spec, 7).unwrap();
    assert_eq!(
        fill_with(2, &table, &transforms(), 4, &[5], KEYS).unwrap_err().to_string(),
        "config: transform pad_crop: found samples F32[4] in synthetic, expected images U8[channels, height, width]"
    );
}

/// A source whose read itself uses the pool, so that a worker meets another chunk while in one.
struct Nested(Synthetic);

impl Source for Nested {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.0.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.0.info()
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let sum = |n: u64| (0..n).map(|x| x * x).fold(0, u64::wrapping_add);
        let (a, b) = rayon::join(|| sum(20_000), || sum(20_000));
        assert_eq!(a, b);
        self.0.read(index, scratch)
    }
}

#[test]
fn a_source_may_use_the_pool_itself() {
    let indices: Vec<usize> = (0..100).collect();
    for threads in [1, 2, 5] {
        let nested =
            fill_with(threads, &Nested(images(100)), &transforms(), 100, &indices, KEYS).unwrap();
        assert_eq!(nested, fill_with(1, &images(100), &transforms(), 100, &indices, KEYS).unwrap());
    }
}

#[test]
fn time_is_counted_where_it_is_spent() {
    let source = images(64).cost(Cost::Sleep(std::time::Duration::from_millis(1)));
    let layout = SlotLayout::new(source.spec(), 64);
    let mut slot = Slot::host(0, layout.slot_bytes);
    let times = StageCounters::default();
    let indices: Vec<usize> = (0..64).collect();
    fill(&mut slot, &layout, &source, &transforms(), &indices, KEYS, &times).unwrap();
    // 64 sleeps of at least 1 ms, whatever else the machine does.
    assert!(times.read_s() >= 0.064 * 0.9, "{times:?}");
    assert!(times.augment_s() > 0.0 && times.write_s() > 0.0, "{times:?}");
    assert!(times.read_s() > times.augment_s() + times.write_s(), "{times:?}");
}
