//! Upload: the ring of slots, persistent mapped buffers that workers fill in place. A filled slot is
//! unmapped, copied into the device's batch buffer at the head of its step, and mapped again when the
//! copy is done. On adapters with a large BAR the worker's write is itself the transfer.

use std::ptr::NonNull;

use super::objects::Objects;
use crate::batch::Slot;
use crate::error::{Error, Result};

/// The buffers behind the slots.
#[derive(Debug)]
pub(super) struct Ring {
    buffers: Vec<wgpu::Buffer>,
}

/// What owns a slot's memory while it is out: the mapped view.
struct Lease {
    buffer: wgpu::Buffer,
    _view: wgpu::BufferViewMut,
}

impl Ring {
    /// So many slots of `slot_bytes` each, mapped and empty.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub(super) fn new(slots: usize, slot_bytes: usize, objects: &mut Objects) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let make = |_| objects.buffer("a slot", slot_bytes, usage, true);
        Ok(Self { buffers: (0..slots).map(make).collect::<Result<_>>()? })
    }

    /// How many slots there are.
    pub(super) fn len(&self) -> usize {
        self.buffers.len()
    }

    pub(super) fn buffer(&self, index: usize) -> &wgpu::Buffer {
        &self.buffers[index]
    }

    /// The slot of a buffer that is mapped and has no slot out.
    ///
    /// # Errors
    /// When the buffer is not mapped, because the device was lost.
    pub(super) fn lend(&self, index: usize) -> Result<Slot, wgpu::MapRangeError> {
        let buffer = self.buffers[index].clone();
        let mut view = buffer.get_mapped_range_mut(..)?;
        let len = view.len();
        let ptr: NonNull<u8> = view.slice(..).as_raw_element_ptr();
        let owner = Box::new(Lease { buffer, _view: view });
        // SAFETY: the view keeps its range of the mapped buffer valid and exclusive: wgpu gives out no
        // second view of it, and panics rather than unmap it while the view lives. Polling a device that
        // is lost would free it, which `Context::poll` does not do.
        Ok(unsafe { Slot::from_raw(index, ptr, len, owner) })
    }

    /// Takes a filled slot back and unmaps its buffer, whose index it returns.
    ///
    /// # Errors
    /// When the slot is not one of this ring.
    pub(super) fn take_back(&self, slot: Slot) -> Result<usize> {
        let index = slot.index;
        let lease = slot.into_owner().downcast::<Lease>().ok();
        let ours = self.buffers.get(index);
        match (lease, ours) {
            (Some(lease), Some(buffer)) if lease.buffer == *buffer => {
                drop(lease);
                buffer.unmap();
                Ok(index)
            }
            _ => Err(Error::device(format!("slot {index}"), "is not one of this executor's slots")
                .hint("submitting only slots that take_slots or collect gave")),
        }
    }
}
