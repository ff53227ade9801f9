//! Pipelines: each pair of a shader and its constants is compiled once, however many operations of
//! however many passes use it.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::kernel::{Binding, Dispatch, Shader};
use super::objects::Objects;
use super::pipeline_cache::PipelineCache;
use crate::error::{Error, Result};

/// What makes two dispatches share a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    shader: Shader,
    /// Names and bits of the values.
    constants: Vec<(&'static str, u64)>,
    guarded: bool,
    /// Which bindings are read only.
    layout: Vec<bool>,
}

impl Key {
    fn of(dispatch: &Dispatch) -> Self {
        Self {
            shader: dispatch.shader.clone(),
            constants: dispatch.constants.iter().map(|(name, x)| (*name, x.to_bits())).collect(),
            guarded: dispatch.guarded,
            layout: dispatch.bindings.iter().map(is_read_only).collect(),
        }
    }
}

fn is_read_only(binding: &Binding) -> bool {
    matches!(binding, Binding::Input(_) | Binding::ScratchRead(_))
}

/// A compiled pipeline with the layout of its bind groups.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// The pipelines of a program.
#[derive(Debug)]
pub(super) struct Pipelines {
    all: Vec<Pipeline>,
    index: HashMap<Key, usize>,
}

impl Pipelines {
    /// Compiles what `dispatches` need, on all threads of the pool, with what was kept on disk.
    ///
    /// # Errors
    /// When a shader binds more buffers than the device allows, or the driver refuses it.
    pub(super) fn compile<'a>(
        dispatches: impl Iterator<Item = &'a Dispatch>,
        objects: &mut Objects,
    ) -> Result<Self> {
        let cache = PipelineCache::open(&objects.context);
        let compiled = Self::compile_with(dispatches, objects, &cache)?;
        cache.save();
        Ok(compiled)
    }

    /// As [`Pipelines::compile`], with a cache that is open.
    ///
    /// # Errors
    /// As [`Pipelines::compile`].
    pub(super) fn compile_with<'a>(
        dispatches: impl Iterator<Item = &'a Dispatch>,
        objects: &mut Objects,
        cache: &PipelineCache,
    ) -> Result<Self> {
        let mut index: HashMap<Key, usize> = HashMap::new();
        let mut wanted: Vec<&Dispatch> = Vec::new();
        for dispatch in dispatches {
            index.entry(Key::of(dispatch)).or_insert_with(|| {
                wanted.push(dispatch);
                wanted.len() - 1
            });
        }
        let layouts = layouts(&wanted, objects)?;
        let modules = modules(&wanted, objects)?;
        let all = wanted
            .par_iter()
            .map(|dispatch| {
                let key = Key::of(dispatch);
                let module = &modules[&(&dispatch.shader, dispatch.guarded)];
                compile(dispatch, module, &layouts[&key.layout], objects, cache)
            })
            .collect::<Result<Vec<_>>>()?;
        objects.created += 2 * all.len();
        Ok(Self { all, index })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Where the pipeline of a dispatch stands, for [`Pipelines::get`].
    pub(super) fn position(&self, dispatch: &Dispatch) -> usize {
        self.index[&Key::of(dispatch)]
    }

    pub(super) fn get(&self, position: usize) -> &Pipeline {
        &self.all[position]
    }
}

fn layouts(
    wanted: &[&Dispatch],
    objects: &mut Objects,
) -> Result<HashMap<Vec<bool>, wgpu::BindGroupLayout>> {
    let limit = objects.context.device.limits().max_storage_buffers_per_shader_stage as usize;
    let mut layouts = HashMap::new();
    for dispatch in wanted {
        let pattern = Key::of(dispatch).layout;
        if pattern.len() > limit {
            let message = format!(
                "{} binds {} buffers, this device allows {limit} a shader",
                dispatch.shader.name,
                pattern.len()
            );
            return Err(objects.error(message).hint("another --device"));
        }
        layouts.entry(pattern).or_insert_with_key(|pattern| {
            objects.created += 1;
            layout(pattern, &objects.context.device)
        });
    }
    Ok(layouts)
}

fn layout(read_only: &[bool], device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entries: Vec<_> = (0..)
        .zip(read_only)
        .map(|(binding, &read_only)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    })
}

type Modules<'a> = HashMap<(&'a Shader, bool), wgpu::ShaderModule>;

fn modules<'a>(wanted: &[&'a Dispatch], objects: &mut Objects) -> Result<Modules<'a>> {
    let mut keys: Vec<(&'a Shader, bool)> = Vec::new();
    let mut seen = HashSet::new();
    keys.extend(wanted.iter().map(|d| (&d.shader, d.guarded)).filter(|key| seen.insert(*key)));
    objects.created += keys.len();
    let make = |&(shader, guarded): &(&'a Shader, bool)| {
        Ok(((shader, guarded), module(shader, guarded, objects)?))
    };
    keys.par_iter().map(make).collect()
}

fn module(shader: &Shader, guarded: bool, objects: &Objects) -> Result<wgpu::ShaderModule> {
    let source = shader.source();
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(shader.name),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    };
    let device = &objects.context.device;
    let made = objects.context.scoped(|| match guarded {
        // SAFETY: `guarded` is the promise of the one who wrote the shader and its dispatch, both of
        // this crate: every index is compared with the length of what it indexes or follows from
        // constants that the lowering took from the shapes of the bound tensors, every loop ends,
        // and no divisor is zero.
        true => unsafe {
            let checks = wgpu::ShaderRuntimeChecks::unchecked();
            device.create_shader_module_trusted(descriptor, checks)
        },
        false => device.create_shader_module(descriptor),
    });
    made.map_err(|cause| refused(shader, cause, objects))
}

fn compile(
    dispatch: &Dispatch,
    module: &wgpu::ShaderModule,
    layout: &wgpu::BindGroupLayout,
    objects: &Objects,
    cache: &PipelineCache,
) -> Result<Pipeline> {
    let device = &objects.context.device;
    let made = objects.context.scoped(|| {
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(dispatch.shader.name),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(dispatch.shader.name),
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &dispatch.constants,
                // Shaders write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            cache: cache.get(),
        })
    });
    let pipeline = made.map_err(|cause| refused(&dispatch.shader, cause, objects))?;
    Ok(Pipeline { pipeline, layout: layout.clone() })
}

fn refused(shader: &Shader, cause: wgpu::Error, objects: &Objects) -> Error {
    objects
        .error(format!("the driver does not take the shader {}", shader.name))
        .caused_by(cause)
        .hint("--device cpu, or a newer driver")
}
