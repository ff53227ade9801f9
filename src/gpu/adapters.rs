//! The adapters of this machine: what they are, and which one a selector means.

use serde::Serialize;

use super::context::USED;
use crate::error::{Error, Result};

/// An adapter, for people and tools.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterSummary {
    /// Its place in the list: `gpu:K` selects it.
    pub index: usize,
    /// The adapter's name; any part of it selects it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `other`.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Device memory in bytes, where it can be told.
    pub memory_bytes: Option<u64>,
    /// Smallest and largest number of invocations in a subgroup.
    pub subgroup_sizes: [u32; 2],
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Largest part of a buffer that a shader can bind, in bytes.
    pub max_binding_bytes: u64,
    /// Most buffers that a shader can bind.
    pub max_bindings: u32,
    /// Memory that a workgroup can share, in bytes.
    pub workgroup_bytes: u32,
    /// Most invocations of a workgroup.
    pub max_invocations: u32,
    /// Features that are used where they exist, and exist here.
    pub features: Vec<String>,
}

/// All adapters of this machine, in the order that `gpu:K` counts.
pub fn adapters() -> Vec<AdapterSummary> {
    enumerate().iter().enumerate().map(|(index, adapter)| summary(index, adapter)).collect()
}

pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

fn summary(index: usize, adapter: &wgpu::Adapter) -> AdapterSummary {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = (adapter.features() & USED).iter_names().map(|(name, _)| name.to_lowercase());
    AdapterSummary {
        index,
        backend: info.backend.to_string(),
        kind: kind_name(info.device_type).to_string(),
        driver: [info.driver.as_str(), info.driver_info.as_str()].join(" ").trim().to_string(),
        memory_bytes: super::memory_size::device_memory_bytes(adapter),
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_bindings: limits.max_storage_buffers_per_shader_stage,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        features: features.collect(),
        name: info.name,
    }
}

pub(super) fn kind_name(kind: wgpu::DeviceType) -> &'static str {
    match kind {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

/// The index of the adapter that `selector` means; none where `auto` finds no GPU.
pub(super) fn choose(selector: &str, infos: &[wgpu::AdapterInfo]) -> Result<Option<usize>> {
    let selector = selector.trim();
    if let Some(index) = selector.strip_prefix("gpu:") {
        return match index.parse::<usize>() {
            Ok(index) if index < infos.len() => Ok(Some(index)),
            _ => Err(not_found(selector, infos)),
        };
    }
    match selector {
        "auto" => Ok(best_gpu(infos)),
        "gpu" => best_gpu(infos).map(Some).ok_or_else(|| not_found(selector, infos)),
        "" => Err(not_found(selector, infos)),
        name => {
            let name = name.to_lowercase();
            let found = infos.iter().position(|info| info.name.to_lowercase().contains(&name));
            found.map(Some).ok_or_else(|| not_found(selector, infos))
        }
    }
}

/// The first discrete GPU, else the first integrated, else the first virtual one.
fn best_gpu(infos: &[wgpu::AdapterInfo]) -> Option<usize> {
    use wgpu::DeviceType::{DiscreteGpu, IntegratedGpu, VirtualGpu};
    [DiscreteGpu, IntegratedGpu, VirtualGpu]
        .into_iter()
        .find_map(|kind| infos.iter().position(|info| info.device_type == kind))
}

fn not_found(selector: &str, infos: &[wgpu::AdapterInfo]) -> Error {
    let item = format!("--device {selector}");
    if infos.is_empty() {
        return Error::device(item, "no adapter found on this machine").hint(
            "--device cpu, or installing a Vulkan driver (Mesa's llvmpipe is one in software)",
        );
    }
    let found: Vec<String> = infos
        .iter()
        .enumerate()
        .map(|(i, info)| format!("gpu:{i} `{}` ({})", info.name, kind_name(info.device_type)))
        .collect();
    Error::device(item, format!("no adapter fits, found {}", found.join(", ")))
        .hint("--device cpu, gpu:K, or a part of one of these names")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu};

    fn infos(list: &[(&str, wgpu::DeviceType)]) -> Vec<wgpu::AdapterInfo> {
        list.iter()
            .map(|(name, kind)| {
                let mut info = wgpu::AdapterInfo::new(*kind, wgpu::Backend::Vulkan);
                info.name = (*name).to_string();
                info
            })
            .collect()
    }

    #[test]
    fn auto_prefers_discrete_then_integrated_and_never_software() {
        let all = infos(&[("llvmpipe", Cpu), ("Iris", IntegratedGpu), ("RTX", DiscreteGpu)]);
        assert_eq!(choose("auto", &all).unwrap(), Some(2));
        assert_eq!(choose("auto", &all[..2]).unwrap(), Some(1));
        assert_eq!(choose("auto", &all[..1]).unwrap(), None);
        assert_eq!(choose("gpu", &all).unwrap(), Some(2));
        assert!(choose("gpu", &all[..1]).is_err());
    }

    #[test]
    fn names_and_indices_select_any_adapter() {
        let all = infos(&[("llvmpipe (LLVM 15)", Cpu), ("GeForce RTX", DiscreteGpu)]);
        assert_eq!(choose("LLVMpipe", &all).unwrap(), Some(0));
        assert_eq!(choose("rtx", &all).unwrap(), Some(1));
        assert_eq!(choose("gpu:1", &all).unwrap(), Some(1));
    }

    #[test]
    fn what_does_not_fit_is_answered_with_what_was_found() {
        let all = infos(&[("llvmpipe", Cpu)]);
        for selector in ["gpu", "gpu:1", "gpu:x", "radeon", ""] {
            let error = choose(selector, &all).unwrap_err();
            assert_eq!(error.kind().exit_code(), 4);
            assert!(error.to_string().contains("gpu:0 `llvmpipe` (software)"), "{error}");
        }
        assert!(choose("gpu", &[]).unwrap_err().to_string().contains("no adapter found"));
    }
}
