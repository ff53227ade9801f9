//! From an operation to dispatches: which shader, which constants, how many workgroups.

use crate::graph::Tensor;

/// A shader: one operation, with the shared parts it needs placed before it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// The file's name in `shaders/`, without its ending.
    pub name: &'static str,
    /// Sources to concatenate: `shaders/shared/*.wgsl`, then the operation's own file.
    pub parts: &'static [&'static str],
}

/// Which memory a binding of a dispatch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The operation's input of that index; bound `read`.
    Input(usize),
    /// The operation's output of that index; bound `read_write`.
    Output(usize),
    /// A scratch buffer of the operation, bound `read`.
    ScratchRead(usize),
    /// A scratch buffer of the operation, bound `read_write`.
    ScratchWrite(usize),
}

/// One dispatch of one pipeline.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// What runs; its entry point is `main`.
    pub shader: &'static Shader,
    /// Pipeline-overridable constants.
    pub constants: Vec<(&'static str, f64)>,
    /// In the order of `@binding(i)` in group 0.
    pub bindings: Vec<Binding>,
    /// Number of workgroups in x, y, z.
    pub workgroups: [u32; 3],
    /// Whether every index in the shader is guarded by the shader itself, so that it may be created
    /// without the runtime's own checks.
    pub guarded: bool,
}

/// What an operation becomes on the GPU: dispatches in order, and scratch memory between them.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// The dispatches.
    pub dispatches: Vec<Dispatch>,
    /// Sizes of the scratch buffers, in bytes.
    pub scratch_bytes: Vec<usize>,
}

/// What a lowering may ask of the device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCaps {
    /// Most workgroups in one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Most invocations in a workgroup.
    pub max_invocations: u32,
    /// Whether the adapter is a software one (llvmpipe), where a workgroup is a loop on one core.
    pub software: bool,
    /// Invocations of every subgroup, where shaders may use subgroups and their size is fixed; else 0.
    pub subgroup_size: u32,
}

/// An operation with the tensors it binds, as a lowering sees it.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Inputs in binding order.
    pub inputs: &'a [&'a Tensor],
    /// Outputs in binding order.
    pub outputs: &'a [&'a Tensor],
}
