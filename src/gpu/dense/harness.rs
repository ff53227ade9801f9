//! Runs one lowered operation on an adapter, for the tests of this module.

use crate::batch::DType;
use crate::gpu::kernel::{Binding, Bound, DeviceCaps, Dispatch, Lowered, Shader};
use crate::graph::op::Op;
use crate::graph::{Role, Tensor};
use std::collections::HashMap;

/// A device for tests, with its compiled pipelines.
pub(super) struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    caps: DeviceCaps,
    modules: HashMap<&'static Shader, wgpu::ShaderModule>,
}

/// An operand: its shape and values.
pub(super) type Values = (Vec<usize>, Vec<f32>);

impl Gpu {
    /// The first adapter. Without one, says so and gives none, unless `REQUIRE_GPU=1`.
    pub fn open() -> Option<Self> {
        let gpu = pollster::block_on(Self::open_first());
        if gpu.is_none() {
            let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required, "REQUIRE_GPU=1, but there is no adapter");
            eprintln!("SKIPPED: no adapter for the GPU tests");
        }
        gpu
    }

    async fn open_first() -> Option<Self> {
        let descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        let instance = wgpu::Instance::new(descriptor);
        let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let adapter = adapters.into_iter().next()?;
        let info = adapter.get_info();
        let limits = adapter.limits();
        let subgroups = adapter.features() & wgpu::Features::SUBGROUP;
        let fixed = !subgroups.is_empty() && info.subgroup_min_size == info.subgroup_max_size;
        let caps = DeviceCaps {
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            software: info.device_type == wgpu::DeviceType::Cpu,
            subgroup_size: if fixed { info.subgroup_min_size } else { 0 },
        };
        let descriptor = wgpu::DeviceDescriptor {
            required_features: subgroups,
            required_limits: limits,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.ok()?;
        Some(Self { device, queue, caps, modules: HashMap::new() })
    }

    /// What to lower for: the adapter as it is, and as if it were a GPU.
    pub fn regimes(&self) -> Vec<DeviceCaps> {
        let mut regimes = vec![DeviceCaps { software: false, subgroup_size: 0, ..self.caps }];
        if self.caps.software {
            regimes.push(self.caps);
        }
        regimes
    }

    /// Runs an operation with a single output of the given shape.
    pub fn run(
        &mut self,
        op: &Op,
        inputs: &[Values],
        output: &[usize],
        caps: &DeviceCaps,
    ) -> Vec<f32> {
        let tensors: Vec<Tensor> = inputs.iter().map(|(shape, _)| tensor(shape)).collect();
        let bound_inputs: Vec<&Tensor> = tensors.iter().collect();
        let y = tensor(output);
        let lowered = super::lower(op, Bound { inputs: &bound_inputs, outputs: &[&y] }, caps);
        let ins: Vec<wgpu::Buffer> = inputs.iter().map(|(_, v)| self.upload(v)).collect();
        // What a kernel forgets to write stays NaN.
        let out = self.upload(&vec![f32::NAN; y.len()]);
        self.submit(&lowered, &ins, &out);
        self.download(&out)
    }

    fn submit(&mut self, lowered: &Lowered, inputs: &[wgpu::Buffer], output: &wgpu::Buffer) {
        let scratch: Vec<wgpu::Buffer> = lowered
            .scratch_bytes
            .iter()
            .map(|bytes| self.upload(&vec![f32::NAN; bytes / size_of::<f32>()]))
            .collect();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for dispatch in &lowered.dispatches {
            let pipeline = self.pipeline(dispatch);
            let entries: Vec<wgpu::BindGroupEntry> = (0..)
                .zip(&dispatch.bindings)
                .map(|(binding, memory)| {
                    let buffer = match *memory {
                        Binding::Input(i) => &inputs[i],
                        Binding::Output(_) => output,
                        Binding::ScratchRead(i) | Binding::ScratchWrite(i) => &scratch[i],
                    };
                    wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }
                })
                .collect();
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(dispatch.shader.name),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
        self.queue.submit([encoder.finish()]);
    }

    fn pipeline(&mut self, dispatch: &Dispatch) -> wgpu::ComputePipeline {
        let shader = dispatch.shader;
        let module = self.modules.entry(shader).or_insert_with(|| {
            let source = wgpu::ShaderSource::Wgsl(shader.parts.concat().into());
            let label = Some(shader.name);
            let checks = wgpu::ShaderRuntimeChecks::unchecked();
            assert!(dispatch.guarded);
            // Safe because the shader guards every index itself, which is what these tests are about.
            unsafe {
                let descriptor = wgpu::ShaderModuleDescriptor { label, source };
                self.device.create_shader_module_trusted(descriptor, checks)
            }
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(shader.name),
            layout: None,
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &dispatch.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        })
    }

    fn upload(&self, values: &[f32]) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let size = size_of_val(values) as u64;
        let descriptor =
            wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let buffer = self.device.create_buffer(&descriptor);
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        buffer
    }

    fn download(&self, buffer: &wgpu::Buffer) -> Vec<f32> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let size = buffer.size();
        let descriptor =
            wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        let staging = self.device.create_buffer(&descriptor);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, size);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |result| result.expect("staging buffer maps"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("device is alive");
        let range = staging.get_mapped_range(..).expect("staging buffer is mapped");
        bytemuck::cast_slice(&range).to_vec()
    }
}

fn tensor(shape: &[usize]) -> Tensor {
    let role = Role::Activation;
    Tensor { name: String::new(), shape: shape.to_vec(), dtype: DType::F32, role }
}
