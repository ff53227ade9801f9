//! The graph of a model: tensors of known shape and the operations between them; reverse mode, fusion,
//! memory and the plan that an executor records.
//!
//! A [`Graph`] is built once by a model, [`grad`] adds the backward operations to it, [`fuse`] merges
//! what one kernel can do, [`precision`] chooses types, [`chunk`] divides the largest tensors, [`memory`] assigns buffers, and [`plan`] is what executors run.

pub mod attending;
pub mod choice;
pub mod chunk;
pub mod cost;
pub mod fuse;
pub mod grad;
mod infer;
pub mod memory;
pub mod op;
pub mod plan;
pub mod precision;
pub mod recompute;
mod shapes;

use crate::batch::DType;
use crate::error::Result;
use op::Op;

/// A tensor of a graph, by its place in [`Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// How a parameter or a state starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Every element the same.
    Constant(f32),
    /// Uniform in ±bound.
    Uniform {
        /// The bound.
        bound: f32,
    },
    /// Normal around 0.
    Normal {
        /// The standard deviation.
        std: f32,
    },
}

/// An arena: one buffer that holds many tensors of one kind for the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arena {
    /// The trained parameters.
    Params,
    /// Their gradients, each at its parameter's offset.
    Grads,
    /// Gradients summed over micro-steps, at the same offsets.
    GradSums,
    /// First moments (or momentum), at the same offsets.
    First,
    /// Second moments, at the same offsets.
    Second,
    /// The moving average of the parameters, at the same offsets; evaluation reads it where it is kept.
    Average,
    /// What a step changes besides parameters: running statistics, the optimizer's control.
    State,
    /// Constants, uploaded once.
    Consts,
    /// Results of a step on their way to the host.
    Metrics,
    /// Keys and values of tokens seen before, while text is generated.
    Cache,
    /// How often each text that is generated was given each token, where that is asked for.
    Counts,
    /// [`Arena::State`] as the last whole step left it, where passes that sum up gradients move running statistics.
    Settled,
}

/// What a tensor is for, which decides where it lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// The step's header, at the head of the slot (8 words).
    Header,
    /// The inputs in the slot.
    Input,
    /// The targets in the slot.
    Target,
    /// The framings in the slot.
    Framing,
    /// Whole numbers beside the targets in the slot, so many bytes behind the first of them, a multiple of
    /// [`SLOT_ALIGN_BYTES`](crate::batch::SLOT_ALIGN_BYTES).
    Beside(usize),
    /// A trained parameter.
    Param(Init),
    /// A running statistic or the optimizer's control: kept and saved, not trained.
    State(Init),
    /// A constant.
    Const(Vec<f32>),
    /// The gradient of a parameter.
    ParamGrad(TensorId),
    /// A stretch of a whole arena, for the optimizer: offset and the shape's length in elements.
    Stretch(Arena, usize),
    /// A stretch of the metrics arena that comes back to the host.
    Metrics,
    /// Lives only within a step.
    Activation,
    /// Another tensor's memory under a new shape.
    View(TensorId),
    /// Whole rows of another tensor, from this element on. Where they begin, devices can bind them: at a multiple of
    /// [`SLOT_ALIGN_BYTES`](crate::batch::SLOT_ALIGN_BYTES).
    Part(TensorId, usize),
}

/// A tensor: name, shape, type, and what it is for.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// For parameters and states PyTorch's name (`net.0.weight`), else for traces and errors.
    pub name: String,
    /// All dimensions, the batch first where there is one.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub dtype: DType,
    /// What it is for.
    pub role: Role,
}

impl Tensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One operation with what it binds.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Tensors it reads, in binding order.
    pub inputs: Vec<TensorId>,
    /// Tensors it writes, in binding order after the inputs.
    pub outputs: Vec<TensorId>,
    /// The module that asked for it, for errors and traces (`net.3`).
    pub scope: String,
}

/// Tensors and operations in the order in which they run.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// All operations, in order.
    pub nodes: Vec<Node>,
    scope: String,
    header: Option<TensorId>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the module whose operations follow; parameters made meanwhile are prefixed by it.
    pub fn set_scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// The module being built.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The tensor behind an id.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The shape behind an id.
    pub fn shape(&self, id: TensorId) -> &[usize] {
        &self.tensors[id.0].shape
    }

    /// Adds a tensor.
    pub fn add_tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        dtype: DType,
        role: Role,
    ) -> TensorId {
        self.tensors.push(Tensor { name: name.into(), shape: shape.to_vec(), dtype, role });
        TensorId(self.tensors.len() - 1)
    }

    /// Adds a trained parameter named `SCOPE.name`.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> TensorId {
        self.add_tensor(self.scoped(name), shape, DType::F32, Role::Param(init))
    }

    /// Adds a state named `SCOPE.name`: kept and saved with the parameters, not trained.
    pub fn state(&mut self, name: &str, shape: &[usize], init: Init) -> TensorId {
        self.add_tensor(self.scoped(name), shape, DType::F32, Role::State(init))
    }

    /// Adds a constant.
    pub fn constant(&mut self, name: &str, values: Vec<f32>) -> TensorId {
        let shape = [values.len()];
        self.add_tensor(self.scoped(name), &shape, DType::F32, Role::Const(values))
    }

    /// The header of the step: one tensor, made when first asked for.
    pub fn header(&mut self) -> TensorId {
        if let Some(header) = self.header {
            return header;
        }
        let header = self.add_tensor("header", &[8], DType::U32, Role::Header);
        self.header = Some(header);
        header
    }

    /// Adds an operation and makes its outputs.
    ///
    /// # Errors
    /// When the shapes or types of the inputs do not fit, naming the module.
    pub fn push(&mut self, op: Op, inputs: &[TensorId]) -> Result<Vec<TensorId>> {
        let tensors: Vec<&Tensor> = inputs.iter().map(|&id| self.tensor(id)).collect();
        let signatures =
            op.infer(&tensors).map_err(|message| infer::shape_error(&self.scope, message))?;
        let name = self.scoped(op.name());
        let outputs = signatures
            .into_iter()
            .map(|(shape, dtype)| self.add_tensor(name.clone(), &shape, dtype, Role::Activation))
            .collect::<Vec<_>>();
        self.push_into(op, inputs, &outputs);
        Ok(outputs)
    }

    /// Adds an operation with a single output.
    ///
    /// # Errors
    /// As [`Graph::push`].
    pub fn push_one(&mut self, op: Op, inputs: &[TensorId]) -> Result<TensorId> {
        Ok(self.push(op, inputs)?[0])
    }

    /// Adds an operation that writes into given tensors.
    pub fn push_into(&mut self, op: Op, inputs: &[TensorId], outputs: &[TensorId]) {
        let scope = self.scope.clone();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs: outputs.to_vec(), scope });
    }

    /// The same memory under another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&mut self, x: TensorId, shape: &[usize]) -> Result<TensorId> {
        let tensor = self.tensor(x);
        if tensor.len() != shape.iter().product::<usize>() {
            let message = format!("cannot view {:?} as {shape:?}", tensor.shape);
            return Err(infer::shape_error(&self.scope, message));
        }
        let dtype = tensor.dtype;
        let name = self.scoped("view");
        Ok(self.add_tensor(name, shape, dtype, Role::View(x)))
    }

    /// The tensor whose memory `id` really is: itself, or what it is a view of.
    pub fn root(&self, mut id: TensorId) -> TensorId {
        while let Role::View(of) | Role::Part(of, _) = self.tensor(id).role {
            id = of;
        }
        id
    }

    /// Where a tensor begins in its [root](Self::root), in elements.
    pub fn offset(&self, mut id: TensorId) -> usize {
        let mut offset = 0;
        loop {
            match self.tensor(id).role {
                Role::View(of) => id = of,
                Role::Part(of, start) => (id, offset) = (of, offset + start),
                _ => return offset,
            }
        }
    }

    fn scoped(&self, name: &str) -> String {
        if self.scope.is_empty() { name.to_string() } else { format!("{}.{name}", self.scope) }
    }
}
