//! An operation on its twin, over memory of its own.

use std::array;

use super::data;
use crate::batch::{DType, StepHeader};
use crate::cpu;
use crate::cpu::call::{Call, Input, Output, Scratch};
use crate::graph::op::Op;
use crate::graph::{Role, Tensor};

/// Memory of one tensor.
#[derive(Debug)]
enum Memory {
    None,
    Real(Vec<f32>),
    Index(Vec<u32>),
    Bytes(Vec<u8>),
    Shorts(Vec<u16>),
}

impl Memory {
    /// `bytes` as the twins hold them, which know no `f16`.
    fn of(tensor: &Tensor, bytes: &[u8]) -> Self {
        match tensor.dtype {
            _ if tensor.role == Role::Header => Memory::None,
            DType::U8 => Memory::Bytes(bytes.to_vec()),
            DType::U16 => Memory::Shorts(bytemuck::pod_collect_to_vec(bytes)),
            DType::U32 => Memory::Index(bytemuck::pod_collect_to_vec(bytes)),
            DType::F32 | DType::F16 => Memory::Real(data::numbers(tensor.dtype, bytes)),
        }
    }

    fn input(&self) -> Input<'_, f32> {
        match self {
            Memory::None => Input::None,
            Memory::Real(x) => Input::Real(x),
            Memory::Index(x) => Input::Index(x),
            Memory::Bytes(x) => Input::Bytes(x),
            Memory::Shorts(x) => Input::Shorts(x),
        }
    }

    fn output(&mut self) -> Output<'_, f32> {
        match self {
            Memory::Real(y) => Output::Real(y),
            Memory::Index(y) => Output::Index(y),
            Memory::None | Memory::Bytes(_) | Memory::Shorts(_) => Output::None,
        }
    }
}

/// An operation with the memory it works on.
#[derive(Debug)]
pub struct Twin {
    op: Op,
    header: StepHeader,
    inputs: Vec<Memory>,
    outputs: Vec<Memory>,
    shapes: [Vec<Vec<usize>>; 2],
    scratch: Scratch<f32>,
}

impl Twin {
    /// The twin of `op` over these inputs; results begin as zeros.
    pub fn new(
        op: Op,
        header: StepHeader,
        inputs: &[Tensor],
        bytes: &[Vec<u8>],
        outputs: &[Tensor],
    ) -> Self {
        let shapes = [inputs, outputs]
            .map(|tensors| tensors.iter().map(|x| x.shape.clone()).collect::<Vec<_>>());
        let [input_shapes, output_shapes] = &shapes;
        let scratch = cpu::scratch_len(&op, input_shapes, output_shapes);
        let zeros = |tensor: &Tensor| vec![0; tensor.len() * tensor.dtype.bytes()];
        Self {
            op,
            header,
            inputs: inputs.iter().zip(bytes).map(|(x, bytes)| Memory::of(x, bytes)).collect(),
            outputs: outputs.iter().map(|y| Memory::of(y, &zeros(y))).collect(),
            scratch: Scratch::new(scratch, rayon::current_num_threads()),
            shapes,
        }
    }

    /// Computes the results.
    pub fn run(&mut self) {
        let [input_shapes, output_shapes] = &self.shapes;
        let mut outputs = self.outputs.iter_mut();
        cpu::run(Call {
            op: &self.op,
            inputs: array::from_fn(|i| self.inputs.get(i).map_or(Input::None, Memory::input)),
            outputs: array::from_fn(|_| outputs.next().map_or(Output::None, Memory::output)),
            input_shapes,
            output_shapes,
            header: &self.header,
            scratch: &self.scratch,
            half_outputs: &[],
        });
    }

    /// The numbers of a result.
    pub fn numbers(&self, output: usize) -> Vec<f32> {
        match &self.outputs[output] {
            Memory::Real(y) => y.clone(),
            Memory::Index(y) => y.iter().map(|&x| x as f32).collect(),
            Memory::None | Memory::Bytes(_) | Memory::Shorts(_) => Vec::new(),
        }
    }
}
