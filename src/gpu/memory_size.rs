//! How much memory an adapter has: the one question that wgpu does not answer itself.

/// Bytes of device-local memory, where the backend tells.
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub(super) fn device_memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// `VK_MEMORY_HEAP_DEVICE_LOCAL_BIT`.
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the handles are only used for a query while the adapter is borrowed, and not destroyed.
    let heaps = unsafe {
        let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = vulkan.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(vulkan.raw_physical_device())
    };
    heaps.memory_heaps[..heaps.memory_heap_count as usize]
        .iter()
        .filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0)
        .map(|heap| heap.size)
        .max()
}

/// Bytes of device-local memory, where the backend tells.
#[cfg(not(any(target_os = "linux", target_os = "windows")))]
pub(super) fn device_memory_bytes(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}
