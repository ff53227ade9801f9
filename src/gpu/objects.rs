//! Buffers and bind groups, made once and counted: what a step must not create.

use std::sync::Arc;

use super::context::Context;
use crate::error::{Error, Result};
use crate::faults::{self, At};

/// Bytes of a buffer that holds `bytes`: copies and mappings go in units of 4, and none may be empty.
pub(super) fn allocated(bytes: usize) -> u64 {
    (bytes.max(4) as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT)
}

/// Makes device objects, counts them, and turns a refusal into an error that says what to lower.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) context: Arc<Context>,
    /// Device objects made so far.
    pub(super) created: usize,
    /// Bytes of all buffers made so far.
    pub(super) allocated_bytes: u64,
}

impl Objects {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, created: 0, allocated_bytes: 0 }
    }

    /// A buffer of at least `bytes` for `what`.
    ///
    /// # Errors
    /// When the device cannot hold it.
    pub(super) fn buffer(
        &mut self,
        what: &str,
        bytes: usize,
        usage: wgpu::BufferUsages,
        mapped_at_creation: bool,
    ) -> Result<wgpu::Buffer> {
        let size = allocated(bytes);
        let limit = self.context.device.limits().max_buffer_size;
        if size > limit {
            return Err(self.too_large(what, size, "the largest buffer", limit));
        }
        let descriptor =
            wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation };
        let made = match faults::due(At::Buffer) {
            true => Err(wgpu::Error::OutOfMemory { source: "planned by a test".into() }),
            false => self.context.scoped(|| self.context.device.create_buffer(&descriptor)),
        };
        let buffer = made.map_err(|cause| {
            let message = format!(
                "{size} bytes for {what} cannot be allocated, beside {} bytes that are",
                self.allocated_bytes
            );
            self.error(message).caused_by(cause).hint("a smaller --batch-size, or fewer --slots")
        })?;
        self.created += 1;
        self.allocated_bytes += size;
        Ok(buffer)
    }

    /// Checks that a shader can bind so many bytes of `what`.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn check_binding(&self, what: &str, bytes: u64) -> Result<()> {
        let limit = self.context.device.limits().max_storage_buffer_binding_size;
        match bytes > limit {
            true => Err(self.too_large(what, bytes, "the largest binding", limit)),
            false => Ok(()),
        }
    }

    fn too_large(&self, what: &str, bytes: u64, limited: &str, limit: u64) -> Error {
        let message = format!("{what} takes {bytes} bytes, {limited} of this device is {limit}");
        self.error(message).hint("a smaller --batch-size, or another --device")
    }

    pub(super) fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::device(self.context.name(), message)
    }
}
