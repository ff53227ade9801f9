//! Runs whose bottleneck is known, because it was planted: a source, a transform and a device that take the time they
//! are told to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{DType, SampleSpec, Slot, TargetSpec};
use crate::error::Result;
use crate::executor::{DeviceInfo, Done, Executor, Wants};
use crate::graph::Arena;
use crate::graph::plan::{Pass, Program};
use crate::report::trace::Tracer;
use crate::rng::Rng;
use crate::source::pictures::Pictures;
use crate::source::{Cost, Source, Synthetic};
use crate::train::event::Summary;
use crate::transform::{Image, Transform};
use crate::{RunConfig, Trainer, cpu};

/// What each stage takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plants {
    /// Waiting for the disk, a sample.
    pub read: Duration,
    /// Making the sample where that computes, a sample.
    pub make: Duration,
    /// Side of a JPEG that is decoded for each sample; 0 for raw ones.
    pub picture: u32,
    /// A transform, a sample.
    pub augment: Duration,
    /// Copying a slot on the device.
    pub copy: Duration,
    /// Computing a pass on the device.
    pub compute: Duration,
    /// Recording a pass on the host.
    pub launch: Duration,
    /// Compiling.
    pub compile: Duration,
}

/// Samples in an epoch.
const SAMPLES: usize = 512;

/// A configuration for such runs: a model that takes no time, batches of 16, two workers.
///
/// # Panics
/// If the one written here is wrong.
pub fn config(steps: u64) -> RunConfig {
    let layers = "[[model.layers]]\ntype = \"flatten\"\n\
                  [[model.layers]]\ntype = \"linear\"\nout = \"classes\"";
    let config = RunConfig::parse(layers, "planted").expect("a model");
    RunConfig {
        steps: Some(steps),
        batch_size: 16,
        workers: 2,
        slots: Some(3),
        readers: Some(0),
        ..config
    }
}

/// Trains to the end and returns its summary.
///
/// # Errors
/// When the configuration is wrong.
pub fn run(plants: &Plants, config: &RunConfig) -> Result<Summary> {
    pollster::block_on(trainer(plants, config)?.fit())
}

/// A trainer over planted stages.
///
/// # Errors
/// When the configuration is wrong.
pub fn trainer(plants: &Plants, config: &RunConfig) -> Result<Trainer> {
    let spec = SampleSpec {
        input_shape: vec![1, 8, 8],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 2 },
    };
    let source: Arc<dyn Source> = match plants.picture {
        0 => {
            let cost = match plants.read.is_zero() {
                true => Cost::Spin(plants.make),
                false => Cost::Sleep(plants.read),
            };
            Arc::new(Synthetic::new(SAMPLES, spec.clone(), 1)?.cost(cost))
        }
        side => Arc::new(Pictures::new("picture", SAMPLES, spec.clone(), vec![picture(side)])),
    };
    let model = config.model.build(&spec)?;
    let planted = *plants;
    let mut builder = Trainer::builder(model, source).config(config.clone());
    if !plants.augment.is_zero() {
        builder = builder.transform(Sleeping(plants.augment));
    }
    builder
        .on_device(move |program, slots| Ok(Box::new(Planted::new(program, slots, planted)?)))
        .start()
}

/// A grey JPEG of this side.
fn picture(side: u32) -> Vec<u8> {
    let picture = image::GrayImage::from_fn(side, side, |x, y| {
        image::Luma([(x.wrapping_mul(7) ^ y.wrapping_mul(13)) as u8])
    });
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Jpeg).expect("memory can be written");
    file.into_inner()
}

/// A transform that changes nothing and takes its time.
struct Sleeping(Duration);

impl Transform for Sleeping {
    fn name(&self) -> &str {
        "sleeping"
    }

    fn apply(&self, _image: &mut Image<'_>, _rng: &mut Rng) -> Result<()> {
        std::thread::sleep(self.0);
        Ok(())
    }
}

/// A device that computes one pass after the other beside the host, as a GPU does.
struct Planted {
    inner: cpu::Executor,
    plants: Plants,
    /// Passes that are computed, and when the device is done with each.
    flying: VecDeque<(Done, Instant)>,
    free_at: Instant,
}

impl Planted {
    fn new(program: Arc<Program>, slots: usize, plants: Plants) -> Result<Self> {
        std::thread::sleep(plants.compile);
        let inner = cpu::Executor::new(program, slots)?.with_threads(1)?;
        Ok(Self { inner, plants, flying: VecDeque::new(), free_at: Instant::now() })
    }
}

impl Executor for Planted {
    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: "planted".into(),
            kind: "discrete".into(),
            compile_s: self.plants.compile.as_secs_f64(),
            ..self.inner.device()
        }
    }

    fn take_slots(&mut self) -> Result<Vec<Slot>> {
        self.inner.take_slots()
    }

    fn submit(&mut self, pass: Pass, slot: Slot, wants: Wants) -> Result<()> {
        if !self.plants.launch.is_zero() {
            std::thread::sleep(self.plants.launch);
        }
        self.inner.submit(pass, slot, wants)?;
        let done = self.inner.collect(Duration::ZERO)?.expect("the twins are done at once");
        let Plants { copy, compute, .. } = self.plants;
        self.free_at = self.free_at.max(Instant::now()) + copy + compute;
        let done = Done { device_busy: Some(compute), copied: Some(copy), ..done };
        self.flying.push_back((done, self.free_at));
        Ok(())
    }

    fn collect(&mut self, patience: Duration) -> Result<Option<Done>> {
        let Some((_, ready)) = self.flying.front() else { return Ok(None) };
        let left = ready.saturating_duration_since(Instant::now());
        std::thread::sleep(left.min(patience));
        let is_ready = left <= patience;
        Ok(is_ready.then(|| self.flying.pop_front()).flatten().map(|(done, _)| done))
    }

    fn in_flight(&self) -> usize {
        self.flying.len()
    }

    fn load(&mut self, arena: Arena, offset: usize, values: &[f32]) -> Result<()> {
        self.inner.load(arena, offset, values)
    }

    fn store(&mut self, arena: Arena) -> Result<Vec<f32>> {
        self.inner.store(arena)
    }

    fn objects_created(&self) -> usize {
        self.inner.objects_created()
    }

    fn trace(&mut self, _tracer: Arc<Tracer>) -> Result<()> {
        Ok(())
    }
}
