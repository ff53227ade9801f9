//! Compute: a plan lowered to dispatches with pipelines and bind groups made once; a step only encodes
//! them, all in one pass.

use std::collections::BTreeMap;

use super::kernel::{Binding, Dispatch};
use super::lowering::{LoweredNode, Lowering};
use super::objects::Objects;
use super::pipelines::Pipelines;
use super::schedule::Whole;
use crate::error::{Error, Result};
use crate::graph::plan::{ActivationBuffer, Pass, Place, Plan, Program};
use crate::graph::{Arena, Node, TensorId};

/// The device memory of a program.
#[derive(Debug)]
pub(super) struct Memory {
    /// The batch of the current step, copied from its slot.
    pub(super) batch: wgpu::Buffer,
    pub(super) arenas: BTreeMap<Arena, wgpu::Buffer>,
    activations: Vec<wgpu::Buffer>,
    scratch: Vec<wgpu::Buffer>,
}

impl Memory {
    fn new(program: &Program, scratch_bytes: &[usize], objects: &mut Objects) -> Result<Self> {
        use wgpu::BufferUsages as Usage;
        let batch_usage = Usage::STORAGE | Usage::COPY_DST;
        let batch = objects.buffer("the batch", program.slot.slot_bytes, batch_usage, false)?;
        let arena_usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let mut arenas = BTreeMap::new();
        for (&arena, &len) in program.arenas.iter().filter(|(_, len)| **len > 0) {
            let what = format!("the arena {arena:?}");
            arenas.insert(arena, objects.buffer(&what, 4 * len, arena_usage, false)?);
        }
        let usage = Usage::STORAGE | Usage::COPY_SRC;
        let mut several = |what, sizes: &mut dyn Iterator<Item = usize>| {
            sizes.map(|bytes| objects.buffer(what, bytes, usage, false)).collect::<Result<Vec<_>>>()
        };
        let activations =
            several("an activation", &mut program.activations.iter().map(ActivationBuffer::bytes))?;
        let scratch = several("scratch", &mut scratch_bytes.iter().copied())?;
        Ok(Self { batch, arenas, activations, scratch })
    }

    fn whole(&self, buffer: Whole) -> Option<&wgpu::Buffer> {
        match buffer {
            Whole::Place(place) => self.buffer(place),
            Whole::Scratch(i) => self.scratch.get(i),
        }
    }

    /// The buffer behind a place, if the program has it.
    pub(super) fn buffer(&self, place: Place) -> Option<&wgpu::Buffer> {
        match place {
            Place::Slot => Some(&self.batch),
            Place::Arena(arena) => self.arenas.get(&arena),
            Place::Activation(index) => self.activations.get(index),
        }
    }
}

/// One recorded dispatch.
#[derive(Debug)]
struct Step {
    pipeline: usize,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
    /// What it is, for a trace.
    name: String,
    /// Moved to reading before it, so that dispatches that follow need no barrier for them.
    readied: Vec<wgpu::Buffer>,
}

/// A whole program, ready to be encoded.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) memory: Memory,
    pub(super) pipelines: Pipelines,
    passes: BTreeMap<Pass, Vec<Step>>,
}

impl Compiled {
    /// Allocates, compiles and binds everything that a lowered program needs.
    ///
    /// # Errors
    /// When the device lacks memory or a limit, or the driver refuses a shader.
    pub(super) fn new(lowering: Lowering, objects: &mut Objects) -> Result<Self> {
        let program = &lowering.program;
        let memory = Memory::new(program, &lowering.scratch_bytes, objects)?;
        let nodes = lowering.passes.values().flat_map(|pass| &pass.nodes);
        let pipelines =
            Pipelines::compile(nodes.flat_map(|node| &node.lowered.dispatches), objects)?;
        let mut passes = BTreeMap::new();
        for (&pass, lowered) in &lowering.passes {
            let plan = &program.plans[&pass];
            let mut steps = Vec::with_capacity(lowered.order.len());
            for (at, dispatch, scheduled) in &lowered.order {
                let (node, lowered) = (&plan.nodes[*at], &lowered.nodes[*at]);
                let binder = Binder { plan, node, lowered, memory: &memory };
                let dispatch = &lowered.lowered.dispatches[*dispatch];
                let mut step = binder.step(dispatch, &pipelines, objects)?;
                let readied = scheduled.readied.iter().filter_map(|&buffer| memory.whole(buffer));
                step.readied = readied.cloned().collect();
                steps.push(step);
            }
            passes.insert(pass, steps);
        }
        Ok(Self { memory, pipelines, passes })
    }

    /// Encodes a pass; `timestamps` are written at its beginning and end.
    ///
    /// # Errors
    /// When the program has no such pass.
    pub(super) fn encode(
        &self,
        pass: Pass,
        encoder: &mut wgpu::CommandEncoder,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites>,
    ) -> Result<()> {
        let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
        let mut recording = encoder.begin_compute_pass(&descriptor);
        self.record(self.steps(pass)?, &mut recording);
        Ok(())
    }

    /// Encodes a pass with a compute pass for each of the first `timed` dispatches, with its timestamps, and one for the
    /// others.
    ///
    /// # Errors
    /// When the program has no such pass.
    pub(super) fn encode_apart<'a>(
        &self,
        pass: Pass,
        encoder: &mut wgpu::CommandEncoder,
        timed: usize,
        writes: impl Fn(usize) -> wgpu::ComputePassTimestampWrites<'a>,
    ) -> Result<()> {
        let (timed, rest) = self.steps(pass)?.split_at(timed);
        for (at, step) in timed.iter().enumerate() {
            let timestamp_writes = Some(writes(at));
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            self.record(std::slice::from_ref(step), &mut encoder.begin_compute_pass(&descriptor));
        }
        if !rest.is_empty() {
            self.record(rest, &mut encoder.begin_compute_pass(&Default::default()));
        }
        Ok(())
    }

    /// The names of the dispatches of each pass.
    pub(super) fn names(&self) -> BTreeMap<Pass, Vec<String>> {
        let names = |steps: &Vec<Step>| steps.iter().map(|step| step.name.clone()).collect();
        self.passes.iter().map(|(&pass, steps)| (pass, names(steps))).collect()
    }

    fn steps(&self, pass: Pass) -> Result<&[Step]> {
        self.passes.get(&pass).map(Vec::as_slice).ok_or_else(|| {
            Error::graph(format!("{pass:?}"), "the program has no plan for this pass")
        })
    }

    fn record(&self, steps: &[Step], recording: &mut wgpu::ComputePass<'_>) {
        let mut current = None;
        for step in steps {
            if current != Some(step.pipeline) {
                recording.set_pipeline(&self.pipelines.get(step.pipeline).pipeline);
                current = Some(step.pipeline);
            }
            if !step.readied.is_empty() {
                let state = wgpu::BufferUses::STORAGE_READ_ONLY;
                let readied = step.readied.iter();
                recording.transition_resources(
                    readied.map(|buffer| wgpu::BufferTransition { buffer, state }),
                    std::iter::empty(),
                );
            }
            recording.set_bind_group(0, &step.bind_group, &[]);
            let [x, y, z] = step.workgroups;
            recording.dispatch_workgroups(x, y, z);
        }
    }
}

/// Binds the dispatches of one node.
struct Binder<'a> {
    plan: &'a Plan,
    node: &'a Node,
    lowered: &'a LoweredNode,
    memory: &'a Memory,
}

impl<'a> Binder<'a> {
    fn step(
        &self,
        dispatch: &Dispatch,
        pipelines: &Pipelines,
        objects: &mut Objects,
    ) -> Result<Step> {
        let pipeline = pipelines.position(dispatch);
        let mut entries = Vec::with_capacity(dispatch.bindings.len());
        for (slot, &binding) in (0..).zip(&dispatch.bindings) {
            let buffer = self.resolve(binding)?;
            let what =
                || format!("binding {slot} of {} in {}", dispatch.shader.name, self.node.scope);
            objects.check_binding(&what(), buffer.size.map_or(0, wgpu::BufferSize::get))?;
            entries.push(wgpu::BindGroupEntry {
                binding: slot,
                resource: wgpu::BindingResource::Buffer(buffer),
            });
        }
        let descriptor = wgpu::BindGroupDescriptor {
            label: Some(dispatch.shader.name),
            layout: &pipelines.get(pipeline).layout,
            entries: &entries,
        };
        let context = &objects.context;
        let bind_group =
            context.scoped(|| context.device.create_bind_group(&descriptor)).map_err(|cause| {
                let message = format!("{} cannot be bound", dispatch.shader.name);
                Error::device(&self.node.scope, message).caused_by(cause)
            })?;
        objects.created += 1;
        let name = format!("{} {}", dispatch.shader.name, self.node.scope).trim_end().to_string();
        Ok(Step { pipeline, bind_group, workgroups: dispatch.workgroups, name, readied: vec![] })
    }

    fn resolve(&self, binding: Binding) -> Result<wgpu::BufferBinding<'a>> {
        let scratch = |i: usize| {
            let buffer = &self.memory.scratch[self.lowered.scratch[i]];
            (buffer, 0, self.lowered.lowered.scratch_bytes[i])
        };
        let (buffer, offset, bytes) = match binding {
            Binding::Input(i) => self.tensor(self.node.inputs[i])?,
            Binding::Output(i) => self.tensor(self.node.outputs[i])?,
            Binding::ScratchRead(i) | Binding::ScratchWrite(i) => scratch(i),
        };
        // Bytes are read as words; sections of a slot are padded, so the last word is there.
        let size = wgpu::BufferSize::new((bytes as u64).next_multiple_of(4));
        Ok(wgpu::BufferBinding { buffer, offset: offset as u64, size })
    }

    fn tensor(&self, id: TensorId) -> Result<(&'a wgpu::Buffer, usize, usize)> {
        let tensor = self.plan.tensor(id);
        let location = self.plan.location(id);
        let buffer = self.memory.buffer(location.place).ok_or_else(|| {
            Error::graph(&tensor.name, format!("the program has no memory at {location:?}"))
        })?;
        let bytes = tensor.len() * tensor.dtype.bytes();
        match bytes {
            0 => Err(Error::graph(&tensor.name, "a tensor without elements cannot be bound")),
            _ => Ok((buffer, location.offset_bytes, bytes)),
        }
    }
}
