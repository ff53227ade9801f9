//! From an operation to dispatches: which shader, which constants, how many workgroups.

use crate::batch::DType;
use crate::graph::Tensor;

/// The type of the elements of a storage buffer, as a shader's alias names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// `f32`
    F32,
    /// `vec2<f32>`
    F32x2,
    /// `vec4<f32>`
    F32x4,
    /// `f16`
    F16,
    /// `vec2<f16>`
    F16x2,
    /// `vec4<f16>`
    F16x4,
}

impl Store {
    /// Elements of `dtype`, four at a time or one.
    ///
    /// # Panics
    /// When `dtype` is not a float.
    pub fn of(dtype: DType, four: bool) -> Self {
        match (dtype, four) {
            (DType::F32, false) => Store::F32,
            (DType::F32, true) => Store::F32x4,
            (DType::F16, false) => Store::F16,
            (DType::F16, true) => Store::F16x4,
            _ => panic!("{dtype:?} is not stored as floats"),
        }
    }

    /// Whether its elements have 16 bits.
    pub fn is_half(self) -> bool {
        matches!(self, Store::F16 | Store::F16x2 | Store::F16x4)
    }

    fn wgsl(self) -> &'static str {
        match self {
            Store::F32 => "f32",
            Store::F32x2 => "vec2<f32>",
            Store::F32x4 => "vec4<f32>",
            Store::F16 => "f16",
            Store::F16x2 => "vec2<f16>",
            Store::F16x4 => "vec4<f16>",
        }
    }
}

/// A shader: one operation, with the shared parts it needs placed before it, and what those leave open.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shader {
    /// The file's name in `shaders/`, without its ending.
    pub name: &'static str,
    /// Sources to concatenate: `shaders/shared/*.wgsl`, then the operation's own file.
    parts: Vec<&'static str>,
    /// Sizes that must be known when the shader is parsed, as those of private arrays.
    consts: Vec<(&'static str, u32)>,
    /// Types of storage.
    stores: Vec<(&'static str, Store)>,
    /// Language extensions besides `f16`.
    enables: Vec<&'static str>,
}

impl Shader {
    /// The shader called `name`, made of `parts`.
    pub fn new(name: &'static str, parts: Vec<&'static str>) -> Self {
        Self { name, parts, consts: vec![], stores: vec![], enables: vec![] }
    }

    /// Adds a part; their order does not matter.
    pub fn with_part(mut self, part: &'static str) -> Self {
        self.parts.push(part);
        self
    }

    /// Sets `const NAME = VALUEu;`.
    pub fn with_const(mut self, name: &'static str, value: u32) -> Self {
        self.consts.push((name, value));
        self
    }

    /// Sets `alias NAME = STORE;`.
    pub fn with_store(mut self, name: &'static str, store: Store) -> Self {
        self.stores.push((name, store));
        self
    }

    /// Sets `alias NAME = ..;` for each tensor, one element or `four` at a time.
    pub fn with_stores<const N: usize>(
        self,
        four: bool,
        tensors: [(&'static str, &Tensor); N],
    ) -> Self {
        tensors.into_iter().fold(self, |shader, (name, tensor)| {
            shader.with_store(name, Store::of(tensor.dtype, four))
        })
    }

    /// Sets `enable EXTENSION;`.
    pub fn with_extension(mut self, extension: &'static str) -> Self {
        self.enables.push(extension);
        self
    }

    /// The whole WGSL: extensions, aliases and constants, then the parts.
    pub fn source(&self) -> String {
        let mut head = String::new();
        if self.stores.iter().any(|(_, store)| store.is_half()) {
            head.push_str("enable f16;\n");
        }
        self.enables.iter().for_each(|name| head.push_str(&format!("enable {name};\n")));
        for (name, store) in &self.stores {
            head.push_str(&format!("alias {name} = {};\n", store.wgsl()));
        }
        for (name, value) in &self.consts {
            head.push_str(&format!("const {name} = {value}u;\n"));
        }
        self.parts.iter().for_each(|part| head.push_str(part));
        head
    }
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
    pub shader: Shader,
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
    /// Whether subgroups can multiply matrices of 16 by 16 f16 into f32.
    pub cooperative: bool,
}

/// An operation with the tensors it binds, as a lowering sees it.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// Inputs in binding order.
    pub inputs: &'a [&'a Tensor],
    /// Outputs in binding order.
    pub outputs: &'a [&'a Tensor],
}
