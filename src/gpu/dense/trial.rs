//! For tests: one operation on a device, with a tile of the test's choice.

use std::sync::{Arc, OnceLock};

use super::{Tile, lower};
use crate::batch::DType;
use crate::gpu::Context;
use crate::gpu::kernel::{Binding, Bound, Lowered};
use crate::gpu::objects::Objects;
use crate::gpu::pipelines::Pipelines;
use crate::graph::op::Op;
use crate::graph::{Role, Tensor};
use crate::rng::Rng;

/// The software adapter; none where this machine has no Vulkan driver, an error with `REQUIRE_GPU=1`.
pub fn context() -> Option<Arc<Context>> {
    static CONTEXT: OnceLock<Option<Arc<Context>>> = OnceLock::new();
    let open = || {
        let device = std::env::var("INFLIGHT_TEST_DEVICE").unwrap_or_else(|_| "llvmpipe".into());
        Context::open(&device).unwrap_or_else(|error| {
            let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required, "REQUIRE_GPU=1 and {error}");
            eprintln!("SKIPPED: no adapter to run shaders on");
            None
        })
    };
    CONTEXT.get_or_init(open).clone()
}

/// An operation with its tensors.
pub struct Trial {
    pub op: Op,
    pub inputs: Vec<Tensor>,
    pub output: Tensor,
}

/// A tensor of this shape and type.
pub fn tensor(shape: &[usize], dtype: DType) -> Tensor {
    Tensor { name: "a tensor".into(), shape: shape.to_vec(), dtype, role: Role::Activation }
}

impl Trial {
    /// Calls `then` with what a lowering sees.
    pub fn with_bound<R>(&self, then: impl FnOnce(Bound) -> R) -> R {
        let inputs: Vec<&Tensor> = self.inputs.iter().collect();
        then(Bound { inputs: &inputs, outputs: &[&self.output] })
    }

    /// What the operation makes of standard normal inputs.
    pub fn run(&self, context: &Arc<Context>, tile: Option<Tile>) -> Vec<f32> {
        Run::new(self, Arc::clone(context), tile).output()
    }
}

/// A trial on its device.
pub struct Run {
    objects: Objects,
    lowered: Lowered,
    pipelines: Pipelines,
    groups: Vec<wgpu::BindGroup>,
    output: wgpu::Buffer,
    dtype: DType,
}

impl Run {
    pub fn new(trial: &Trial, context: Arc<Context>, tile: Option<Tile>) -> Self {
        use wgpu::BufferUsages as Usage;
        let lowered = trial.with_bound(|bound| lower(&trial.op, bound, &context.caps(), tile));
        let mut objects = Objects::new(context);
        let pipelines =
            Pipelines::compile(lowered.dispatches.iter(), &mut objects).expect("shaders");
        let mut buffer = |bytes| {
            let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
            objects.buffer("a trial", bytes, usage, false).expect("memory")
        };
        let bytes = |tensor: &Tensor| tensor.len() * tensor.dtype.bytes();
        let inputs: Vec<_> = trial.inputs.iter().map(|tensor| buffer(bytes(tensor))).collect();
        let output = buffer(bytes(&trial.output));
        let scratch: Vec<_> = lowered.scratch_bytes.iter().map(|&bytes| buffer(bytes)).collect();
        for ((key, tensor), buffer) in (0..).zip(&trial.inputs).zip(&inputs) {
            objects.context.queue.write_buffer(buffer, 0, &normal(key, tensor));
        }
        let group = |dispatch: &crate::gpu::kernel::Dispatch| {
            let bound = |binding: &Binding| match *binding {
                Binding::Input(i) => inputs[i].as_entire_binding(),
                Binding::Output(_) => output.as_entire_binding(),
                Binding::ScratchRead(i) | Binding::ScratchWrite(i) => {
                    scratch[i].as_entire_binding()
                }
            };
            let entries: Vec<_> = (0..)
                .zip(&dispatch.bindings)
                .map(|(slot, it)| wgpu::BindGroupEntry { binding: slot, resource: bound(it) })
                .collect();
            objects.context.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipelines.get(pipelines.position(dispatch)).layout,
                entries: &entries,
            })
        };
        let groups = lowered.dispatches.iter().map(group).collect();
        Self { objects, lowered, pipelines, groups, output, dtype: trial.output.dtype }
    }

    /// Runs the operation so many times and waits for it.
    pub fn repeat(&self, times: usize) {
        let context = &self.objects.context;
        let mut encoder = context.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for _ in 0..times {
            for (dispatch, group) in self.lowered.dispatches.iter().zip(&self.groups) {
                let [x, y, z] = dispatch.workgroups;
                let position = self.pipelines.position(dispatch);
                pass.set_pipeline(&self.pipelines.get(position).pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(x, y, z);
            }
        }
        drop(pass);
        context.queue.submit([encoder.finish()]);
        context.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device");
    }

    /// Runs the operation once; its result.
    pub fn output(&mut self) -> Vec<f32> {
        use wgpu::BufferUsages as Usage;
        self.repeat(1);
        let usage = Usage::MAP_READ | Usage::COPY_DST;
        let bytes = self.output.size() as usize;
        let read = self.objects.buffer("a trial", bytes, usage, false).expect("memory");
        let context = &self.objects.context;
        let mut encoder = context.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&self.output, 0, &read, 0, self.output.size());
        context.queue.submit([encoder.finish()]);
        read.map_async(wgpu::MapMode::Read, .., |mapped| mapped.expect("mapped"));
        context.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device");
        let bytes = read.get_mapped_range(..).expect("mapped").to_vec();
        context.check().expect("no fault");
        match self.dtype {
            DType::F16 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&pair| half::f16::from_le_bytes(pair).to_f32())
                .collect(),
            _ => bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect(),
        }
    }
}

/// Standard normal numbers in the type of a tensor, padded to whole words: such as f16 holds, so that
/// they are the same in either type.
fn normal(key: u64, tensor: &Tensor) -> Vec<u8> {
    let mut rng = Rng::keyed(&[key, 0x6e0]);
    let numbers = (0..tensor.len()).map(|_| half::f16::from_f64(rng.normal()).to_f32());
    let mut bytes: Vec<u8> = match tensor.dtype {
        DType::F16 => numbers.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => numbers.flat_map(f32::to_le_bytes).collect(),
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
