//! The plan: what an executor records once and then runs every step.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::chunk::chunk;
use super::fuse::{fuse, fuse_last};
use super::memory::Pool;
use super::precision::{Precision, store_half};
use super::recompute::recompute;
use super::{Arena, Graph, Init, Node, Role, Tensor, TensorId};
use crate::batch::{DType, SLOT_ALIGN_BYTES, SampleSpec, SlotLayout};
use crate::error::{Error, Result};

/// Which memory a tensor lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// The slot of the current batch; on a GPU its copy in device memory.
    Slot,
    /// One of the arenas.
    Arena(Arena),
    /// One of the shared activation buffers, [`Program::activations`].
    Activation(usize),
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// In which memory.
    pub place: Place,
    /// Offset in bytes, a multiple of [`SLOT_ALIGN_BYTES`].
    pub offset_bytes: usize,
}

/// The operations of one pass over a batch, in order, with every tensor placed.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// Where each tensor lies; the same index as `tensors`.
    pub locations: Vec<Location>,
    /// The operations, in order.
    pub nodes: Vec<Node>,
}

impl Plan {
    /// The tensor behind an id.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The tensor whose memory `id` really is: itself, or what it is a view of.
    pub fn root(&self, mut id: TensorId) -> TensorId {
        while let Role::View(of) | Role::Part(of, _) = self.tensor(id).role {
            id = of;
        }
        id
    }

    /// Where a tensor lies.
    pub fn location(&self, id: TensorId) -> Location {
        self.locations[id.0]
    }
}

/// A parameter or state that lives in an arena for the whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// PyTorch's name.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Offset in its arena, in elements.
    pub offset: usize,
    /// How it starts.
    pub init: Init,
}

impl Variable {
    /// Its elements in the arena.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.iter().product::<usize>()
    }
}

/// One of the buffers that activations share over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationBuffer {
    /// Number of elements.
    pub len: usize,
    /// `F32`, `F16` or `U32`.
    pub dtype: DType,
}

impl ActivationBuffer {
    /// Its size in whole words, as devices bind it.
    pub fn bytes(&self) -> usize {
        (self.len * self.dtype.bytes()).next_multiple_of(4)
    }
}

/// The passes over a batch that a program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    /// Forward, backward and update.
    Train,
    /// Forward and backward; the gradients are added up (gradient accumulation).
    Accumulate,
    /// Forward and metrics only.
    Eval,
    /// So many rows of text that is generated, each a token of any of the sequences.
    Decode(usize),
}

impl Pass {
    /// Whether it makes the model's output alone.
    pub fn infers(self) -> bool {
        matches!(self, Pass::Eval | Pass::Decode(_))
    }
}

/// Everything an executor needs: the plans and the memory they share.
#[derive(Clone, Debug)]
pub struct Program {
    /// What one sample is.
    pub spec: SampleSpec,
    /// How a batch lies in a slot.
    pub slot: SlotLayout,
    /// Words of each arena that is used: elements, since all are `f32` but what a cache may hold.
    pub arenas: BTreeMap<Arena, usize>,
    /// The shared activation buffers.
    pub activations: Vec<ActivationBuffer>,
    /// Parameters in [`Arena::Params`], in their order there: that in which the model made them, but for those that
    /// were reserved first.
    pub params: Vec<Variable>,
    /// States in [`Arena::State`].
    pub states: Vec<Variable>,
    /// Contents of [`Arena::Consts`].
    pub consts: Vec<f32>,
    /// The plan of each pass.
    pub plans: BTreeMap<Pass, Plan>,
    /// The model's output in the first plan that infers, or, where a language model is trained, whose logits need never be
    /// there all at once, the loss of each token; in all of them it lies in the same place.
    pub output: TensorId,
    /// Where [`Op::OptimizerControl`](super::op::Op::OptimizerControl) keeps its 8 words in [`Arena::State`]
    /// (in elements), where the program trains.
    pub control_offset: Option<usize>,
    /// Whether it was made to take little memory, see [`Options::recompute`].
    pub frugal: bool,
}

impl Program {
    /// The arenas that a checkpoint must hold to go on bit for bit.
    pub fn persistent_arenas(&self) -> impl Iterator<Item = Arena> + '_ {
        [Arena::Params, Arena::First, Arena::Second, Arena::Average, Arena::State]
            .into_iter()
            .filter(|arena| self.arenas.get(arena).is_some_and(|&len| len > 0))
    }

    /// The arena whose weights are evaluated and saved as the model: the moving average, where one is kept.
    pub fn weights_arena(&self) -> Arena {
        if self.averages() { Arena::Average } else { Arena::Params }
    }

    /// Whether a moving average of the parameters is kept.
    pub fn averages(&self) -> bool {
        self.arenas.contains_key(&Arena::Average)
    }

    /// Whether any tensor has 16 bits.
    pub fn stores_half(&self) -> bool {
        let mut tensors = self.plans.values().flat_map(|plan| &plan.tensors);
        tensors.any(|tensor| tensor.dtype == DType::F16)
    }

    /// The plan that [`Program::output`] belongs to, where one infers.
    pub fn output_plan(&self) -> Option<&Plan> {
        self.plans.iter().find(|(pass, _)| pass.infers()).map(|(_, plan)| plan)
    }

    /// Whether passes that sum up gradients change what a checkpoint holds, so that a step that is not finished must be
    /// taken back.
    pub fn settles(&self) -> bool {
        self.arenas.contains_key(&Arena::Settled)
    }

    /// Elements of the model's output for one sample.
    pub fn output_width(&self) -> usize {
        let outputs = self.output_plan().map(|plan| plan.tensor(self.output).len());
        outputs.unwrap_or(0) / self.slot.batch_size
    }

    /// Bytes of device memory that arenas, activations and one batch take.
    pub fn device_bytes(&self) -> usize {
        let arenas: usize = self.arenas.values().sum();
        let activations: usize = self.activations.iter().map(ActivationBuffer::bytes).sum();
        4 * arenas + activations + self.slot.slot_bytes
    }
}

/// Places the tensors of several passes' graphs into one program.
#[derive(Debug)]
pub struct ProgramBuilder {
    spec: SampleSpec,
    slot: SlotLayout,
    precision: Precision,
    params: Table,
    states: Table,
    consts: Vec<f32>,
    /// Where each constant begins.
    const_offsets: Vec<usize>,
    pool: Pool,
    /// Elements of the metrics arena in use.
    metrics: usize,
    /// Elements of the other arenas that a graph reaches by stretches.
    stretched: BTreeMap<Arena, usize>,
    plans: BTreeMap<Pass, Plan>,
    options: Options,
}

/// What is done to a graph before it becomes a plan. None of it changes a result beyond rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether operations that one kernel can do are merged.
    pub fuse: bool,
    /// Whether activations are made again for the gradients instead of kept.
    pub recompute: bool,
    /// Rows of logits that are made at a time; `None` divides only large ones, see [`chunk`].
    pub loss_rows: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { fuse: true, recompute: false, loss_rows: None }
    }
}

/// Variables of one arena, in order of first appearance.
#[derive(Debug, Default)]
struct Table {
    variables: Vec<Variable>,
    len: usize,
}

/// Arena offsets are multiples of this many elements, so that every tensor can be bound on its own.
const ALIGN: usize = SLOT_ALIGN_BYTES / 4;

impl Table {
    /// The offset of a variable, which is added if it is new.
    fn offset(&mut self, tensor: &Tensor, init: Init) -> Result<usize> {
        if let Some(known) = self.variables.iter().find(|v| v.name == tensor.name) {
            if known.shape != tensor.shape {
                let message = format!(
                    "has shape {:?} in one mode and {:?} in another",
                    known.shape, tensor.shape
                );
                return Err(Error::graph(&tensor.name, message)
                    .hint("giving every parameter its own name and the same shape in both modes"));
            }
            return Ok(known.offset);
        }
        let offset = self.len;
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        self.variables.push(Variable { name, shape, offset, init });
        self.len += tensor.len().next_multiple_of(ALIGN);
        Ok(offset)
    }
}

impl ProgramBuilder {
    /// A program for batches of `batch_size` samples of `spec`.
    pub fn new(spec: &SampleSpec, batch_size: usize) -> Self {
        Self {
            spec: spec.clone(),
            slot: SlotLayout::new(spec, batch_size),
            precision: Precision::F32,
            params: Table::default(),
            states: Table::default(),
            consts: Vec::new(),
            const_offsets: Vec::new(),
            pool: Pool::default(),
            metrics: 0,
            stretched: BTreeMap::new(),
            plans: BTreeMap::new(),
            options: Options::default(),
        }
    }

    /// Builds plans with other options than the default ones.
    pub fn with_options(self, options: Options) -> Self {
        Self { options, ..self }
    }

    /// The same, with a framing a sample in every slot; see [`Op::AugmentU8`](super::op::Op::AugmentU8).
    pub fn with_framings(self) -> Self {
        Self { slot: self.slot.with_framings(), ..self }
    }

    /// The same, storing activations in this precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Makes room for the parameters of `graph` and returns how many elements the parameter arena then
    /// has, which the optimizer's operations need to know.
    ///
    /// # Errors
    /// When two parameters share a name and differ, or a graph names one twice.
    pub fn reserve_params(&mut self, graph: &Graph) -> Result<usize> {
        self.reserve_params_if(graph, |_| true)?;
        Ok(self.params.len)
    }

    /// As [`ProgramBuilder::reserve_params`], for those parameters alone that `first` holds for: the first time they
    /// come to lie before all others. Returns where they end.
    ///
    /// # Errors
    /// As [`ProgramBuilder::reserve_params`].
    pub fn reserve_params_if(
        &mut self,
        graph: &Graph,
        first: impl Fn(&Tensor) -> bool,
    ) -> Result<usize> {
        let (mut seen, mut end) = (HashSet::new(), 0);
        for tensor in &graph.tensors {
            if let Role::Param(init) = tensor.role {
                if !seen.insert(&tensor.name) {
                    return Err(Error::graph(&tensor.name, "two parameters have this name")
                        .hint("giving each layer its own name"));
                }
                if first(tensor) {
                    let offset = self.params.offset(tensor, init)?;
                    end = end.max((offset + tensor.len()).next_multiple_of(ALIGN));
                }
            }
        }
        Ok(end)
    }

    /// The parameters that have a place.
    pub fn params(&self) -> &[Variable] {
        &self.params.variables
    }

    /// Adds a pass; `keep` are tensors that must still hold their value when it ends. [`Pass::Eval`] reads the
    /// moving average of the parameters where a pass that was added before keeps one.
    ///
    /// # Errors
    /// As [`ProgramBuilder::reserve_params`].
    pub fn add(&mut self, pass: Pass, mut graph: Graph, keep: &[TensorId]) -> Result<()> {
        self.reserve_params(&graph)?;
        if self.options.fuse {
            fuse(&mut graph, keep);
        }
        if self.precision == Precision::F16 {
            store_half(&mut graph, keep);
        }
        chunk(&mut graph, keep, self.options.loss_rows);
        if self.options.recompute {
            recompute(&mut graph, keep);
        }
        if self.options.fuse {
            fuse_last(&mut graph, keep);
        }
        let assigned = self.pool.assign(&graph, keep);
        let mut locations = Vec::with_capacity(graph.tensors.len());
        for i in 0..graph.tensors.len() {
            let (root, within) = (graph.root(TensorId(i)), graph.offset(TensorId(i)));
            let mut location = self.place(pass, &graph, root, &assigned)?;
            location.offset_bytes += within * graph.tensors[i].dtype.bytes();
            locations.push(location);
        }
        self.plans.insert(pass, Plan { tensors: graph.tensors, locations, nodes: graph.nodes });
        Ok(())
    }

    fn place(
        &mut self,
        pass: Pass,
        graph: &Graph,
        root: TensorId,
        assigned: &HashMap<TensorId, usize>,
    ) -> Result<Location> {
        let tensor = graph.tensor(root);
        let arena = |arena, offset: usize| Location {
            place: Place::Arena(arena),
            offset_bytes: 4 * offset,
        };
        let slot = |offset_bytes| Location { place: Place::Slot, offset_bytes };
        Ok(match &tensor.role {
            Role::Header => slot(0),
            Role::Input => slot(self.slot.input_offset),
            Role::Target => slot(self.slot.target_offset),
            Role::Framing => slot(self.slot.framing_offset),
            Role::Beside(offset) => slot(self.slot.target_offset + offset),
            Role::Param(init) => {
                let averaged = pass == Pass::Eval && self.stretched.contains_key(&Arena::Average);
                let weights = if averaged { Arena::Average } else { Arena::Params };
                arena(weights, self.params.offset(tensor, *init)?)
            }
            Role::State(init) => arena(Arena::State, self.states.offset(tensor, *init)?),
            Role::ParamGrad(param) => {
                let offset = self.params.offset(graph.tensor(*param), Init::Constant(0.0))?;
                self.stretched.insert(Arena::Grads, self.params.len);
                arena(Arena::Grads, offset)
            }
            Role::Const(values) => arena(Arena::Consts, self.const_offset(values)),
            Role::Stretch(of, offset) => {
                let words = (tensor.len() * tensor.dtype.bytes()).div_ceil(4);
                let end = (offset + words).next_multiple_of(ALIGN);
                let len = self.stretched.entry(*of).or_default();
                *len = (*len).max(end);
                arena(*of, *offset)
            }
            Role::Metrics => {
                self.metrics = self.metrics.max(tensor.len().next_multiple_of(ALIGN));
                arena(Arena::Metrics, 0)
            }
            Role::Activation => Location {
                // A tensor that nothing writes is never bound either.
                place: Place::Activation(assigned.get(&root).copied().unwrap_or(0)),
                offset_bytes: 0,
            },
            Role::View(_) | Role::Part(..) => unreachable!("a root is no view"),
        })
    }

    /// Where a constant lies: where the same one of an earlier pass does, or behind all others.
    fn const_offset(&mut self, values: &[f32]) -> usize {
        let same = |offset: usize| {
            let there = self.consts.get(offset..offset + values.len());
            let bits = |x: &f32| x.to_bits();
            there.is_some_and(|there| there.iter().map(bits).eq(values.iter().map(bits)))
        };
        if let Some(offset) = self.const_offsets.iter().copied().find(|&offset| same(offset)) {
            return offset;
        }
        let offset = self.consts.len();
        self.const_offsets.push(offset);
        self.consts.extend(values);
        self.consts.resize(self.consts.len().next_multiple_of(ALIGN), 0.0);
        offset
    }

    /// The program; `output` is the model's output in the first plan that infers.
    pub fn build(self, output: TensorId) -> Program {
        let mut arenas = self.stretched;
        let metrics = self.metrics.max(arenas.get(&Arena::Metrics).copied().unwrap_or(0));
        arenas.insert(Arena::Params, self.params.len);
        arenas.insert(Arena::State, self.states.len);
        arenas.insert(Arena::Consts, self.consts.len());
        arenas.insert(Arena::Metrics, metrics);
        let moves = self.states.variables.iter().any(|state| state.name != CONTROL_NAME);
        if moves && self.plans.contains_key(&Pass::Accumulate) {
            arenas.insert(Arena::Settled, self.states.len);
        }
        arenas.retain(|_, len| *len > 0);
        let control_offset =
            self.states.variables.iter().find(|v| v.name == CONTROL_NAME).map(|v| v.offset);
        Program {
            spec: self.spec,
            slot: self.slot,
            arenas,
            activations: self.pool.buffers,
            params: self.params.variables,
            states: self.states.variables,
            consts: self.consts,
            plans: self.plans,
            output,
            control_offset,
            frugal: self.options.recompute,
        }
    }
}

/// The name of the state that holds the optimizer's control words.
pub const CONTROL_NAME: &str = "optimizer.control";
