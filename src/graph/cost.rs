//! What operations cost at least: the arithmetic they ask for, and the bytes they must move. Both follow
//! from the shapes alone, so they are the floor that a measured time is compared with: the roofline of
//! Williams, Waterman and Patterson (2009).

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use super::op::Op;
use super::plan::Plan;
use super::{Node, Tensor, TensorId};

/// Operations and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// Floating-point operations of products and convolutions, a multiply-add being two. Windows of a
    /// convolution that reach into its padding count in full. Everything else counts 0, as in PyTorch's
    /// `FlopCounterMode`: it is bounded by its bytes.
    pub flops: u64,
    /// Bytes between memory and processor, if each input is read once and each output written once; what
    /// is updated in place counts both ways.
    pub bytes: u64,
}

impl Cost {
    /// The cost of an operation over tensors in binding order.
    pub fn of(op: &Op, inputs: &[&Tensor], outputs: &[&Tensor]) -> Self {
        let size = |tensors: &[&Tensor]| tensors.iter().map(|x| bytes(x)).sum::<u64>();
        let written = size(outputs);
        if *op == Op::Embedding {
            // Of the table, the rows that are named.
            return Self { flops: 0, bytes: bytes(inputs[0]) + 2 * written };
        }
        if *op == Op::ChooseToken {
            // Counts are for those who ask for them.
            return Self { flops: 0, bytes: size(inputs) + bytes(outputs[0]) };
        }
        let read_again = if updates(op) { written } else { 0 };
        Self { flops: flops(op, inputs, outputs), bytes: size(inputs) + written + read_again }
    }

    /// The cost of a node of a plan.
    pub fn of_node(plan: &Plan, node: &Node) -> Self {
        let tensors = |ids: &[TensorId]| ids.iter().map(|&x| plan.tensor(x)).collect::<Vec<_>>();
        Self::of(&node.op, &tensors(&node.inputs), &tensors(&node.outputs))
    }

    /// The cost of a whole pass.
    pub fn of_plan(plan: &Plan) -> Self {
        plan.nodes.iter().map(|node| Self::of_node(plan, node)).sum()
    }

    /// Seconds that a device needs at least, which computes `flops_per_s` and moves `bytes_per_s`, both at
    /// the same time.
    pub fn floor_s(&self, flops_per_s: f64, bytes_per_s: f64) -> f64 {
        (self.flops as f64 / flops_per_s).max(self.bytes as f64 / bytes_per_s)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { flops: self.flops + other.flops, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.len() * tensor.dtype.bytes()) as u64
}

fn flops(op: &Op, inputs: &[&Tensor], outputs: &[&Tensor]) -> u64 {
    let per_window = |weight: &Tensor| weight.shape[1..].iter().product::<usize>();
    let multiply_adds = match op {
        Op::MatMul { transpose_a, .. } => {
            outputs[0].len() * inputs[0].shape[usize::from(!transpose_a)]
        }
        Op::Conv2d { .. } => outputs[0].len() * per_window(inputs[1]),
        Op::Conv2dInputGrad { .. } => inputs[0].len() * per_window(inputs[1]),
        Op::Conv2dWeightGrad { .. } => inputs[1].len() * per_window(outputs[0]),
        // Two products forward; backward the scores again and two gradients of each.
        Op::Attention { .. } => 2 * attention_products(outputs[0]),
        Op::AttentionGrad { .. } => 5 * attention_products(inputs[0]),
        // As if the cache were full.
        Op::CachedAttention { .. } => 2 * outputs[0].len() * outputs[1].shape[1],
        _ => 0,
    };
    2 * multiply_adds as u64
}

/// Multiply-adds of one product between all tokens of each sample, whatever a mask leaves out; `y` is the result.
fn attention_products(y: &Tensor) -> usize {
    y.len() * y.shape[1]
}

/// Whether an operation reads what it writes.
fn updates(op: &Op) -> bool {
    matches!(
        op,
        Op::OptimizerUpdate { .. }
            | Op::MuonUpdate { .. }
            | Op::MovingAverage { .. }
            | Op::GradAccumulate
            | Op::AddTo
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::graph::Role;
    use crate::graph::op::{Activation, ConvGeometry, PoolGeometry, UpdateRule};
    use crate::graph::plan::Pass;
    use crate::nn::losses::Loss;
    use crate::nn::models;
    use crate::train::compile::{Blueprint, Training, compile};

    const ADAM: UpdateRule = UpdateRule::Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        decoupled: true,
    };

    fn cost(op: Op, inputs: &[(&[usize], DType)], outputs: &[(&[usize], DType)]) -> Cost {
        let tensors = |list: &[(&[usize], DType)]| -> Vec<Tensor> {
            let tensor = |(shape, dtype): &(&[usize], DType)| Tensor {
                name: String::new(),
                shape: shape.to_vec(),
                dtype: *dtype,
                role: Role::Activation,
            };
            list.iter().map(tensor).collect()
        };
        let (inputs, outputs) = (tensors(inputs), tensors(outputs));
        Cost::of(&op, &inputs.iter().collect::<Vec<_>>(), &outputs.iter().collect::<Vec<_>>())
    }

    #[test]
    fn products_count_two_for_each_multiply_add() {
        use DType::{F16, F32};
        for (transpose_a, a) in [(false, [3, 5]), (true, [5, 3])] {
            let op = Op::MatMul {
                transpose_a,
                transpose_b: false,
                bias: true,
                activation: Activation::Relu,
            };
            let found = cost(op, &[(&a, F32), (&[5, 7], F16), (&[7], F32)], &[(&[3, 7], F32)]);
            let bytes = 4 * 15 + 2 * 35 + 4 * 7 + 4 * 21;
            assert_eq!(found, Cost { flops: 2 * 3 * 5 * 7, bytes });
        }
    }

    #[test]
    fn a_convolution_and_its_gradients_count_the_same_operations() {
        // Two groups, stride 2: [2, 4, 9, 9] by [6, 2, 3, 3] gives [2, 6, 5, 5] with padding 1.
        let geometry = ConvGeometry { stride: [2, 2], padding: [1, 1], groups: 2 };
        let x: (&[usize], DType) = (&[2, 4, 9, 9], DType::F32);
        let w: (&[usize], DType) = (&[6, 2, 3, 3], DType::F32);
        let y: (&[usize], DType) = (&[2, 6, 5, 5], DType::F32);
        let forward = Op::Conv2d { geometry, bias: false, activation: Activation::Identity };
        let flops = 2 * (2 * 6 * 5 * 5) * (2 * 3 * 3);
        let bytes = 4 * (2 * 4 * 81 + 6 * 2 * 9 + 2 * 6 * 25);
        let expected = Cost { flops, bytes };
        assert_eq!(cost(forward, &[x, w], &[y]), expected);
        assert_eq!(cost(Op::Conv2dInputGrad { geometry }, &[y, w], &[x]), expected);
        assert_eq!(cost(Op::Conv2dWeightGrad { geometry }, &[x, y], &[w]), expected);
    }

    #[test]
    fn other_operations_cost_what_they_read_and_write() {
        use DType::{F32, U8, U32};
        let found = cost(
            Op::NormalizeU8,
            &[(&[2, 3, 4], U8), (&[3], F32), (&[3], F32)],
            &[(&[2, 3, 4], F32)],
        );
        assert_eq!(found, Cost { flops: 0, bytes: 24 + 12 + 12 + 96 });
        let geometry = PoolGeometry { kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
        let small: &[usize] = &[1, 1, 2, 2];
        let found = cost(
            Op::MaxPool2d { geometry },
            &[(&[1, 1, 4, 4], F32)],
            &[(small, F32), (small, U32)],
        );
        assert_eq!(found.bytes, 64 + 16 + 16);
        // Gradients, control and header once; parameters and both moments there and back.
        let len: &[usize] = &[1000];
        let found = cost(
            Op::OptimizerUpdate { rule: ADAM },
            &[(len, F32), (&[8], F32), (&[8], U32)],
            &[(len, F32), (len, F32), (len, F32)],
        );
        assert_eq!(found.bytes, 7 * 4000 + 64);
    }

    fn step(model: &str) -> Cost {
        let spec = SampleSpec {
            input_shape: vec![1, 28, 28],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        };
        let program = compile(&Blueprint {
            model: &models::by_name(model, &spec).expect("the model fits"),
            spec: &spec,
            batch_size: 128,
            mean: &[],
            std: &[],
            loss: Loss::for_target(&spec),
            training: Some(Training::new(ADAM)),
        });
        Cost::of_plan(&program.expect("compiles").plans[&Pass::Train])
    }

    #[test]
    fn steps_of_the_named_models_cost_what_was_reckoned_by_hand() {
        let [first, second, third] = [784 * 512, 512 * 512, 512 * 10];
        // Forward and weight gradients everywhere, input gradients everywhere but at the data.
        let mlp = 2 * 128 * (2 * first + 3 * second + 3 * third);
        assert_eq!((step("mlp").flops, mlp / 1_000_000), (mlp, 410));
        let [first, second] = [16 * 784 * 9, 32 * 196 * 16 * 9];
        let [third, fourth] = [1568 * 128, 128 * 10];
        let cnn = 2 * 128 * (2 * first + 3 * (second + third + fourth));
        assert_eq!((step("cnn").flops, cnn / 1_000_000), (cnn, 906));
    }

    #[test]
    fn the_floor_is_the_slower_of_computing_and_moving() {
        let cost = Cost { flops: 600, bytes: 100 };
        assert_eq!(cost.floor_s(100.0, 100.0), 6.0);
        assert_eq!(cost.floor_s(100.0, 10.0), 10.0);
    }
}
