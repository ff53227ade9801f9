//! The stopwatch: times lowered operations on a device, each in memory of its own, by the device's clock
//! around whole passes. Nothing of a run is touched, and what does not fit is left out, not tried.

use std::sync::Arc;
use std::time::Instant;

use super::context::{Context, HANG_TIMEOUT};
use super::kernel::{Binding, Dispatch, Lowered};
use super::objects::Objects;
use super::pipeline_cache::PipelineCache;
use super::pipelines::Pipelines;
use super::readback::{Arrivals, map_on_submit};
use super::timestamps::Pairs;
use crate::batch::DType;
use crate::error::Result;
use crate::graph::Tensor;

/// What a measured pass should take at least, so that the clock's own grain and the beginning and end of a
/// pass do not count: a short operation is recorded so often in a row.
const PASS_S: f64 = 1e-3;
/// Most repetitions in a pass: what they take to record must stay small.
const REPETITIONS_MAX: usize = 200;
/// Bytes of the pattern that private buffers are filled with by copying.
const PATTERN_BYTES: usize = 1 << 20;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Passes to take the median of.
    pub passes: usize,
    /// Seconds after which no further pass is begun, if there are three.
    pub seconds: f64,
}

/// What a measurement found, in seconds for one run of the operation.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Lap {
    /// The median of all passes.
    pub median_s: f64,
    /// The shortest.
    pub low_s: f64,
    /// The longest.
    pub high_s: f64,
}

impl Lap {
    /// The median and the extremes of some times in seconds.
    ///
    /// # Panics
    /// When there is none.
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let (low_s, high_s) = (times[0], times[times.len() - 1]);
        let middle = times.len() / 2;
        let median_s = match times.len() % 2 {
            1 => times[middle],
            _ => (times[middle - 1] + times[middle]) / 2.0,
        };
        Self { median_s, low_s, high_s }
    }
}

/// Measures passes of `run`, which takes how often to repeat the operation in a pass and returns the pass's
/// seconds, until `effort` is spent.
///
/// # Errors
/// Those of `run`.
pub fn measure(effort: Effort, mut run: impl FnMut(usize) -> Result<f64>) -> Result<Lap> {
    let began = Instant::now();
    // The first run compiles, where the driver compiles late, and fills the caches.
    run(1)?;
    let once = run(1)?.max(1e-9);
    let repetitions = ((PASS_S / once).ceil() as usize).clamp(1, REPETITIONS_MAX);
    let mut times = Vec::with_capacity(effort.passes);
    while times.len() < effort.passes.max(1) {
        let spent = began.elapsed().as_secs_f64() > effort.seconds;
        if spent && times.len() >= 3.min(effort.passes) {
            break;
        }
        times.push(run(repetitions)? / repetitions as f64);
    }
    Ok(Lap::of(times))
}

/// Times operations on a device.
#[derive(Debug)]
pub struct Stopwatch {
    objects: Objects,
    clock: Option<Clock>,
}

/// Private memory for the tensors of an operation.
#[derive(Debug)]
pub struct Rig {
    inputs: Vec<wgpu::Buffer>,
    outputs: Vec<wgpu::Buffer>,
    /// Exact sizes in bytes, inputs and then outputs.
    bytes: [Vec<usize>; 2],
}

/// A lowered operation, compiled and bound to a rig.
#[derive(Debug)]
pub struct Trial {
    pipelines: Arc<Pipelines>,
    steps: Vec<(usize, wgpu::BindGroup, [u32; 3])>,
}

impl Stopwatch {
    /// A stopwatch for a device. Where it has no timestamps, the time on the host counts, from the
    /// submission of a pass to its end.
    ///
    /// # Errors
    /// When there is no memory for a few bytes.
    pub fn new(context: Arc<Context>) -> Result<Self> {
        let mut objects = Objects::new(context);
        let clock = Clock::new(&mut objects)?;
        Ok(Self { objects, clock })
    }

    /// The device.
    pub fn context(&self) -> &Arc<Context> {
        &self.objects.context
    }

    /// Buffers for these tensors, filled with zeros.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn rig(&mut self, inputs: &[&Tensor], outputs: &[&Tensor]) -> Result<Rig> {
        let bytes = |tensors: &[&Tensor]| {
            tensors.iter().map(|x| x.len() * x.dtype.bytes()).collect::<Vec<_>>()
        };
        let bytes = [bytes(inputs), bytes(outputs)];
        let mut make = |sizes: &[usize]| {
            sizes.iter().map(|&size| self.buffer(size)).collect::<Result<Vec<_>>>()
        };
        Ok(Rig { inputs: make(&bytes[0])?, outputs: make(&bytes[1])?, bytes })
    }

    fn buffer(&mut self, bytes: usize) -> Result<wgpu::Buffer> {
        use wgpu::BufferUsages as Usage;
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        self.objects.check_binding("a tensor", bytes as u64)?;
        self.objects.buffer("a tensor being measured", bytes, usage, false)
    }

    /// Fills the floats among the inputs with numbers around 0, of which none is 0, and leaves the rest.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn fill(&mut self, rig: &Rig, inputs: &[&Tensor]) -> Result<()> {
        let mut encoder = self.context().device.create_command_encoder(&Default::default());
        for (buffer, tensor) in rig.inputs.iter().zip(inputs) {
            let pattern = pattern(tensor.dtype, (buffer.size() as usize).min(PATTERN_BYTES));
            let Some(pattern) = pattern else { continue };
            let source = self.buffer(pattern.len())?;
            self.write(&source, &pattern)?;
            for at in (0..buffer.size()).step_by(PATTERN_BYTES) {
                let len = (buffer.size() - at).min(source.size());
                encoder.copy_buffer_to_buffer(&source, 0, buffer, at, Some(len));
            }
        }
        self.finish(encoder, &Arc::new(Arrivals::default()))
    }

    /// Puts bytes into an input or an output.
    ///
    /// # Errors
    /// When there is no memory for the transfer.
    pub fn load(&self, rig: &Rig, binding: Binding, bytes: &[u8]) -> Result<()> {
        let mut padded;
        let bytes = match bytes.len().is_multiple_of(4) {
            true => bytes,
            false => {
                padded = bytes.to_vec();
                padded.resize(bytes.len().next_multiple_of(4), 0);
                &padded
            }
        };
        self.write(rig.buffer(binding), bytes)
    }

    fn write(&self, buffer: &wgpu::Buffer, bytes: &[u8]) -> Result<()> {
        let context = self.context();
        context.scoped(|| context.queue.write_buffer(buffer, 0, bytes)).map_err(|cause| {
            self.objects.error(format!("{} bytes cannot be uploaded", bytes.len())).caused_by(cause)
        })
    }

    /// The bytes of an output.
    ///
    /// # Errors
    /// When there is no memory for the transfer, or the device is lost.
    pub fn read(&mut self, rig: &Rig, output: usize) -> Result<Vec<u8>> {
        let from = rig.buffer(Binding::Output(output));
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let to = self.objects.buffer("reading back", from.size() as usize, usage, false)?;
        let mut encoder = self.context().device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, &to, 0, Some(from.size()));
        let arrivals = Arc::new(Arrivals::default());
        map_on_submit(&encoder, &to, wgpu::MapMode::Read, &arrivals);
        self.finish(encoder, &arrivals)?;
        let view = to.get_mapped_range(..).map_err(|error| self.context().broken(error))?;
        Ok(view[..rig.bytes[1][output]].to_vec())
    }

    /// Compiles `lowered` and binds it to the buffers of `rig`.
    ///
    /// # Errors
    /// When the driver refuses a shader, or scratch memory does not fit.
    pub fn prepare(&mut self, rig: &Rig, lowered: &Lowered) -> Result<Trial> {
        let ways = std::slice::from_ref(lowered);
        let pipelines = Arc::new(self.compile(ways)?);
        let scratch = self.scratch(ways)?;
        self.trial(rig, lowered, &scratch, pipelines)
    }

    /// As [`Stopwatch::prepare`], of several ways to do the same, compiled side by side; none for what the
    /// driver refuses or has no memory for.
    pub fn prepare_all(&mut self, rig: &Rig, ways: &[Lowered]) -> Vec<Option<Trial>> {
        let all = self.compile(ways).and_then(|pipelines| Ok((pipelines, self.scratch(ways)?)));
        match all {
            Ok((pipelines, scratch)) => {
                let pipelines = Arc::new(pipelines);
                let trial = |way| self.trial(rig, way, &scratch, Arc::clone(&pipelines)).ok();
                ways.iter().map(trial).collect()
            }
            // One of them cannot be; the others may still do.
            Err(_) => ways.iter().map(|lowered| self.prepare(rig, lowered).ok()).collect(),
        }
    }

    fn compile(&mut self, ways: &[Lowered]) -> Result<Pipelines> {
        // What is only tried is not worth a place on the disk.
        let cache = PipelineCache::default();
        let dispatches = ways.iter().flat_map(|lowered| &lowered.dispatches);
        Pipelines::compile_with(dispatches, &mut self.objects, &cache)
    }

    /// Scratch memory that does for any of these, which run one after the other.
    fn scratch(&mut self, ways: &[Lowered]) -> Result<Vec<wgpu::Buffer>> {
        let count = ways.iter().map(|way| way.scratch_bytes.len()).max().unwrap_or(0);
        let size = |i| ways.iter().filter_map(|way| way.scratch_bytes.get(i).copied()).max();
        (0..count).map(|i| self.buffer(size(i).unwrap_or(0))).collect()
    }

    fn trial(
        &self,
        rig: &Rig,
        lowered: &Lowered,
        scratch: &[wgpu::Buffer],
        pipelines: Arc<Pipelines>,
    ) -> Result<Trial> {
        let bind = |dispatch| self.bind(rig, lowered, dispatch, scratch, &pipelines);
        let steps = lowered.dispatches.iter().map(bind).collect::<Result<_>>()?;
        Ok(Trial { pipelines, steps })
    }

    fn bind(
        &self,
        rig: &Rig,
        lowered: &Lowered,
        dispatch: &Dispatch,
        scratch: &[wgpu::Buffer],
        pipelines: &Pipelines,
    ) -> Result<(usize, wgpu::BindGroup, [u32; 3])> {
        let entries: Vec<_> = (0..)
            .zip(&dispatch.bindings)
            .map(|(slot, &binding)| {
                let (buffer, bytes) = match binding {
                    Binding::ScratchRead(i) | Binding::ScratchWrite(i) => {
                        (&scratch[i], lowered.scratch_bytes[i] as u64)
                    }
                    _ => (rig.buffer(binding), rig.size(binding)),
                };
                let size = wgpu::BufferSize::new(bytes.next_multiple_of(4));
                let resource = wgpu::BufferBinding { buffer, offset: 0, size };
                wgpu::BindGroupEntry {
                    binding: slot,
                    resource: wgpu::BindingResource::Buffer(resource),
                }
            })
            .collect();
        let pipeline = pipelines.position(dispatch);
        let descriptor = wgpu::BindGroupDescriptor {
            label: Some(dispatch.shader.name),
            layout: &pipelines.get(pipeline).layout,
            entries: &entries,
        };
        let context = self.context();
        let made = context.scoped(|| context.device.create_bind_group(&descriptor));
        let group = made.map_err(|cause| {
            let message = format!("{} cannot be bound", dispatch.shader.name);
            self.objects.error(message).caused_by(cause)
        })?;
        Ok((pipeline, group, dispatch.workgroups))
    }

    /// Runs a trial in passes until `effort` is spent.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn time(&self, trial: &Trial, effort: Effort) -> Result<Lap> {
        measure(effort, |repetitions| self.run(trial, repetitions))
    }

    /// Runs a trial so often in one pass, and returns the seconds that the pass took.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn run(&self, trial: &Trial, repetitions: usize) -> Result<f64> {
        let context = self.context();
        let mut encoder = context.device.create_command_encoder(&Default::default());
        self.record(trial, repetitions, &mut encoder);
        let arrivals = Arc::new(Arrivals::default());
        if let Some(clock) = &self.clock {
            clock.pair.resolve(1, &mut encoder, &arrivals);
        }
        let began = Instant::now();
        self.finish(encoder, &arrivals)?;
        let elapsed = began.elapsed().as_secs_f64();
        match &self.clock {
            Some(clock) => Ok(clock.seconds(context)?.unwrap_or(elapsed)),
            None => Ok(elapsed),
        }
    }

    /// Records a pass without submitting it.
    pub fn record(&self, trial: &Trial, repetitions: usize, encoder: &mut wgpu::CommandEncoder) {
        let timestamp_writes = self.clock.as_ref().map(|clock| clock.pair.writes(0));
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut pass = encoder.begin_compute_pass(&descriptor);
        for _ in 0..repetitions {
            for (pipeline, group, [x, y, z]) in &trial.steps {
                pass.set_pipeline(&trial.pipelines.get(*pipeline).pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
        }
    }

    /// Submits, and waits for the end and for the mappings asked for.
    fn finish(&self, encoder: wgpu::CommandEncoder, arrivals: &Arrivals) -> Result<()> {
        let context = &self.objects.context;
        let submission = context.queue.submit([encoder.finish()]);
        context.finish(submission, arrivals, HANG_TIMEOUT)
    }
}

impl Rig {
    fn buffer(&self, binding: Binding) -> &wgpu::Buffer {
        match binding {
            Binding::Input(i) => &self.inputs[i],
            Binding::Output(i) => &self.outputs[i],
            _ => panic!("scratch memory is no tensor"),
        }
    }

    /// As much as a shader binds, in words.
    fn size(&self, binding: Binding) -> u64 {
        let bytes = match binding {
            Binding::Input(i) => self.bytes[0][i],
            Binding::Output(i) => self.bytes[1][i],
            _ => panic!("scratch memory is no tensor"),
        };
        (bytes as u64).next_multiple_of(4)
    }
}

/// Numbers from -1 to 1 as bytes of a type of floats.
fn pattern(dtype: DType, bytes: usize) -> Option<Vec<u8>> {
    let number = |i: usize| ((i * 7919 % 2039) as f32 - 1019.5) / 1020.0;
    let bytes = match dtype {
        DType::F32 => (0..bytes / 4).flat_map(|i| number(i).to_le_bytes()).collect(),
        DType::F16 => {
            (0..bytes / 2).flat_map(|i| half::f16::from_f32(number(i)).to_le_bytes()).collect()
        }
        DType::U8 | DType::U16 | DType::U32 => return None,
    };
    Some(bytes)
}

/// The device's clock at the beginning and the end of a pass.
#[derive(Debug)]
struct Clock {
    pair: Pairs,
    /// Nanoseconds of a tick.
    period_ns: f32,
}

impl Clock {
    /// Where the device has one.
    fn new(objects: &mut Objects) -> Result<Option<Self>> {
        if !objects.context.has_timestamps() {
            return Ok(None);
        }
        let period_ns = objects.context.queue.get_timestamp_period();
        Ok(Some(Self { pair: Pairs::new(1, objects)?, period_ns }))
    }

    /// The time between the two, once mapped; none where the clock ran backwards.
    fn seconds(&self, context: &Context) -> Result<Option<f64>> {
        let pairs = self.pair.read().map_err(|error| context.broken(error))?;
        let ticks = pairs[0][1].checked_sub(pairs[0][0]);
        Ok(ticks.map(|ticks| ticks as f64 * f64::from(self.period_ns) * 1e-9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lap_is_the_median_between_the_extremes() {
        let lap = Lap::of(vec![5.0, 1.0, 2.0]);
        assert_eq!(lap, Lap { median_s: 2.0, low_s: 1.0, high_s: 5.0 });
        assert_eq!(Lap::of(vec![4.0, 1.0, 2.0, 3.0]).median_s, 2.5);
    }

    #[test]
    fn short_operations_are_repeated_and_long_ones_are_not() {
        let effort = Effort { passes: 5, seconds: 1e9 };
        let mut asked = Vec::new();
        let lap = measure(effort, |repetitions| {
            asked.push(repetitions);
            Ok(1e-5 * repetitions as f64)
        });
        assert!((lap.expect("measures").median_s - 1e-5).abs() < 1e-12);
        assert_eq!(asked, [1, 1, 100, 100, 100, 100, 100]);
        asked.clear();
        measure(Effort { passes: 9, seconds: 0.0 }, |repetitions| {
            asked.push(repetitions);
            Ok(0.5)
        })
        .expect("measures");
        assert_eq!(asked, [1; 5], "two to warm up, then three, since no time is left");
    }

    #[test]
    fn patterns_are_finite_and_hold_no_zero() {
        let bytes = pattern(DType::F16, 4096).expect("floats");
        let bits: Vec<u16> = bytemuck::pod_collect_to_vec(&bytes);
        let mut halves = bits.iter().map(|&x| half::f16::from_bits(x).to_f32());
        assert!(halves.all(|x| x.abs() <= 1.0 && x != 0.0));
        let bytes = pattern(DType::F32, 8192).expect("floats");
        let floats: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        assert!(floats.iter().any(|x| *x > 0.9) && floats.iter().any(|x| *x < -0.9));
        assert!(floats.iter().all(|x| x.abs() <= 1.0 && *x != 0.0));
        assert_eq!(pattern(DType::U32, 64), None);
    }
}
