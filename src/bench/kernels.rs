//! `bench kernels`: single operations at the sizes of squares and of the models' own steps, each checked
//! against its twin before it is timed.

use std::collections::HashSet;
use std::time::Instant;

use serde::Serialize;

use super::twin::Twin;
use super::{Bed, Ceilings, Options, Score, data, program};
use crate::batch::{DType, StepHeader};
use crate::error::Result;
use crate::framing::{FRAMED_SIDE_MAX, FRAMING_WORDS};
use crate::gpu::kernel::{Binding, Bound};
use crate::gpu::stopwatch::{Effort, Stopwatch, Trial, measure};
use crate::gpu::tune::{Choices, Task, Tuner};
use crate::graph::cost::Cost;
use crate::graph::op::{Activation, Op};
use crate::graph::plan::{Pass, Plan};
use crate::graph::{Role, Tensor};

/// Sides of the square products.
const SIDES: [usize; 5] = [256, 512, 1024, 2048, 4096];
/// The largest side of a quick run.
const QUICK_SIDE: usize = 1024;
/// The most operations that a twin is asked to repeat for a comparison; beyond, results need only be finite.
const COMPARED_FLOPS: u64 = 20_000_000_000;

/// An operation over tensors of certain shapes.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `operation/shape/type`.
    pub name: String,
    /// The model whose step it is of.
    pub model: Option<String>,
    op: Op,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

/// A line of the results.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `kernels`.
    pub suite: &'static str,
    /// `operation/shape/type`.
    pub name: String,
    /// The model whose step it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The tile that tuning chose, where it is not the one that follows from the shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tile: Option<String>,
    /// How long it took, and how that compares.
    #[serde(flatten)]
    pub score: Score,
}

/// What became of a kernel.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was timed.
    Timed(Row),
    /// It was left out: it does not fit the device, or its result is wrong.
    LeftOut {
        /// Which one.
        name: String,
        /// Why.
        why: String,
    },
}

/// Times all kernels, one after the other.
///
/// # Errors
/// When a model is not known, the device is lost, or `each` fails.
pub fn run(
    bed: &mut Bed,
    ceilings: &Ceilings,
    options: &Options,
    mut each: impl FnMut(Outcome) -> Result<()>,
) -> Result<()> {
    let kernels = list(options)?;
    let choices = match bed {
        Bed::Gpu(stopwatch) => {
            let tasks = kernels.iter().map(Kernel::task);
            Tuner::new(options.tune).tasks(tasks, stopwatch.context()).choices
        }
        Bed::Twins => Choices::default(),
    };
    for kernel in kernels {
        each(kernel.outcome(bed, ceilings, &choices, options.effort())?)?;
    }
    Ok(())
}

/// All kernels that a run times: square products, then what the models' steps consist of, each once.
///
/// # Errors
/// When a model is not known or does not fit.
pub fn list(options: &Options) -> Result<Vec<Kernel>> {
    let sides = SIDES.iter().filter(|&&side| !options.quick || side <= QUICK_SIDE);
    let mut kernels: Vec<Kernel> = Vec::new();
    for &side in sides {
        let all = [[false, false], [false, true], [true, false]];
        kernels.extend(all.map(|transposed| Kernel::square(side, transposed)));
    }
    for model in &options.models {
        kernels.extend(of_model(model, options)?);
    }
    let mut seen = HashSet::new();
    kernels.retain(|kernel| seen.insert(kernel.identity()));
    Ok(kernels)
}

/// The operations of a model's training step.
fn of_model(model: &str, options: &Options) -> Result<Vec<Kernel>> {
    let program = program(model, options)?;
    let plan = &program.plans[&Pass::Train];
    let kernels = plan.nodes.iter().map(|node| Kernel::of_node(model, plan, node));
    let with_variant = |kernel: Kernel| [kernel.augmented(), Some(kernel)];
    Ok(kernels.flat_map(with_variant).flatten().collect())
}

impl Kernel {
    fn square(side: usize, [transpose_a, transpose_b]: [bool; 2]) -> Self {
        let activation = Activation::Identity;
        let op = Op::MatMul { transpose_a, transpose_b, bias: false, activation };
        let matrix = || Tensor {
            name: String::new(),
            shape: vec![side, side],
            dtype: DType::F32,
            role: Role::Activation,
        };
        Self::new(None, op, vec![matrix(), matrix()], vec![matrix()])
    }

    fn of_node(model: &str, plan: &Plan, node: &crate::graph::Node) -> Self {
        let tensors = |ids: &[crate::graph::TensorId]| {
            ids.iter().map(|&id| plan.tensor(id).clone()).collect::<Vec<Tensor>>()
        };
        Self::new(Some(model), node.op, tensors(&node.inputs), tensors(&node.outputs))
    }

    /// The operation that a run with transforms on the device has in place of this one.
    fn augmented(&self) -> Option<Self> {
        let &[n, _, height, width] = &self.inputs[0].shape[..] else { return None };
        if self.op != Op::NormalizeU8 || height.max(width) > FRAMED_SIDE_MAX {
            return None;
        }
        let framings = Tensor {
            name: "framings".into(),
            shape: vec![n, FRAMING_WORDS],
            dtype: DType::U32,
            role: Role::Framing,
        };
        let inputs = self.inputs.iter().cloned().chain([framings]).collect();
        Some(Self::new(self.model.as_deref(), Op::AugmentU8, inputs, self.outputs.clone()))
    }

    fn new(model: Option<&str>, op: Op, inputs: Vec<Tensor>, outputs: Vec<Tensor>) -> Self {
        let name = name(&op, &inputs, &outputs);
        Self { name, model: model.map(String::from), op, inputs, outputs }
    }

    /// What makes two kernels the same.
    fn identity(&self) -> String {
        let shapes: Vec<_> = self.inputs.iter().chain(&self.outputs).map(|x| &x.shape).collect();
        format!("{} {:?} {shapes:?}", self.name, self.op)
    }

    /// What it costs at least.
    pub fn cost(&self) -> Cost {
        Cost::of(&self.op, &self.inputs.iter().collect::<Vec<_>>(), &refs(&self.outputs))
    }

    pub(super) fn task(&self) -> Task {
        let (inputs, outputs) = (self.inputs.clone(), self.outputs.clone());
        Task { op: self.op, inputs, outputs, times: 1 }
    }

    pub(super) fn outcome(
        &self,
        bed: &mut Bed,
        ceilings: &Ceilings,
        choices: &Choices,
        effort: Effort,
    ) -> Result<Outcome> {
        let timed = match self.ready(bed, choices) {
            Ok(Ok(mut ready)) => {
                measure(effort, |repetitions| ready.run(repetitions)).map_err(|e| e.to_string())
            }
            Ok(Err(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        };
        let lap = match timed {
            Ok(lap) => lap,
            Err(why) => {
                // What does not fit is no failure of the device, which must go on working.
                bed.check()?;
                return Ok(Outcome::LeftOut { name: self.name.clone(), why });
            }
        };
        let half = self.outputs.first().is_some_and(|y| y.dtype == DType::F16);
        let flops_per_s = ceilings.flops_per_s(half);
        let score = Score::new(self.cost(), lap, flops_per_s, ceilings.bytes_per_s);
        let (inputs, outputs) = (refs(&self.inputs), refs(&self.outputs));
        let bound = Bound { inputs: &inputs, outputs: &outputs };
        Ok(Outcome::Timed(Row {
            suite: "kernels",
            name: self.name.clone(),
            model: self.model.clone(),
            tile: choices.get(&self.op, bound).map(|tile| tile.to_string()),
            score,
        }))
    }

    /// The kernel on a device, after its result was found right; or what is wrong with it.
    ///
    /// # Errors
    /// When it does not fit, the driver refuses it, or the device is lost.
    pub fn ready<'b>(
        &self,
        bed: &'b mut Bed,
        choices: &Choices,
    ) -> Result<Result<Ready<'b>, String>> {
        match bed {
            Bed::Gpu(stopwatch) => self.on_gpu(stopwatch, choices),
            Bed::Twins => Ok(self.on_twins()),
        }
    }

    /// The header of a step with a full batch.
    fn header(&self) -> StepHeader {
        let count = self.inputs[0].shape[0] as u32;
        StepHeader { count, step: 1, lr: 1e-3, weight: 1.0, ..Default::default() }
    }

    fn twin(&self, inputs: &[Vec<u8>]) -> Twin {
        Twin::new(self.op, self.header(), &self.inputs, inputs, &self.outputs)
    }

    fn data(&self) -> Vec<Vec<u8>> {
        let header = self.header();
        let image = &self.inputs[0].shape;
        let each = |(i, x): (usize, &Tensor)| match x.role {
            Role::Framing => data::framings(x.shape[0], [image[2], image[3]]),
            _ => data::input(&self.op, i, x, &header),
        };
        self.inputs.iter().enumerate().map(each).collect()
    }

    fn on_gpu<'b>(
        &self,
        stopwatch: &'b mut Stopwatch,
        choices: &Choices,
    ) -> Result<Result<Ready<'b>, String>> {
        let (inputs, outputs) = (refs(&self.inputs), refs(&self.outputs));
        let rig = stopwatch.rig(&inputs, &outputs)?;
        let data = self.data();
        for (i, bytes) in data.iter().enumerate() {
            stopwatch.load(&rig, Binding::Input(i), bytes)?;
        }
        let bound = Bound { inputs: &inputs, outputs: &outputs };
        let lowered = choices.lower(&self.op, bound, &stopwatch.context().caps());
        let trial = stopwatch.prepare(&rig, &lowered)?;
        stopwatch.run(&trial, 1)?;
        let mut twin = (self.cost().flops <= COMPARED_FLOPS).then(|| self.twin(&data));
        if let Some(twin) = &mut twin {
            twin.run();
        }
        for (i, y) in self.outputs.iter().enumerate() {
            let found = data::numbers(y.dtype, &stopwatch.read(&rig, i)?);
            let expected = twin.as_ref().map(|twin| twin.numbers(i));
            let (found, expected) = match self.op {
                // Each device has partial sums of its own, whose sum is the same.
                Op::GradSquares => (sum(&found), expected.map(|x| sum(&x))),
                _ => (found, expected),
            };
            if let Some(why) = data::fault(y.dtype, &found, expected.as_deref()) {
                return Ok(Err(format!("its result {i} is wrong: {why}")));
            }
        }
        Ok(Ok(Ready::Gpu(stopwatch, Box::new(trial))))
    }

    /// The twin is itself the measure of what is right: its results need only be finite.
    fn on_twins(&self) -> Result<Ready<'static>, String> {
        let mut twin = self.twin(&self.data());
        twin.run();
        for (i, y) in self.outputs.iter().enumerate() {
            if let Some(why) = data::fault(y.dtype, &twin.numbers(i), None) {
                return Err(format!("its result {i} is wrong: {why}"));
            }
        }
        Ok(Ready::Twins(Box::new(twin)))
    }
}

/// A kernel that has been found right on a device, to be run as often as one likes.
#[derive(Debug)]
pub enum Ready<'b> {
    /// On an adapter.
    Gpu(&'b Stopwatch, Box<Trial>),
    /// On the processor.
    Twins(Box<Twin>),
}

impl Ready<'_> {
    /// Runs it so often in one pass, and returns the seconds of the pass.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn run(&mut self, repetitions: usize) -> Result<f64> {
        match self {
            Ready::Gpu(stopwatch, trial) => stopwatch.run(trial, repetitions),
            Ready::Twins(twin) => {
                let began = Instant::now();
                // In the pool, as a whole pass of the executor is.
                rayon::scope(|_| (0..repetitions).for_each(|_| twin.run()));
                Ok(began.elapsed().as_secs_f64())
            }
        }
    }
}

fn sum(numbers: &[f32]) -> Vec<f32> {
    vec![numbers.iter().map(|&x| f64::from(x)).sum::<f64>() as f32]
}

fn refs(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

/// `operation/shape/type`: for products rows × columns × sum, for convolutions image by weight, else the
/// shape of the largest tensor.
fn name(op: &Op, inputs: &[Tensor], outputs: &[Tensor]) -> String {
    let by = |shape: &[usize]| shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let strided = |geometry: &crate::graph::op::ConvGeometry| {
        let groups = if geometry.groups > 1 { format!("g{}", geometry.groups) } else { "".into() };
        let stride =
            if geometry.stride == [1, 1] { "".into() } else { format!("s{}", geometry.stride[0]) };
        format!("{stride}{groups}")
    };
    let largest = inputs.iter().chain(outputs).max_by_key(|x| x.len());
    let shape = match op {
        Op::MatMul { transpose_a, .. } => {
            let inner = inputs[0].shape[usize::from(!transpose_a)];
            format!("{}x{inner}", by(&outputs[0].shape))
        }
        Op::Conv2d { geometry, .. } => {
            format!("{}by{}{}", by(&inputs[0].shape), by(&inputs[1].shape), strided(geometry))
        }
        Op::Conv2dInputGrad { geometry } => {
            format!("{}by{}{}", by(&outputs[0].shape), by(&inputs[1].shape), strided(geometry))
        }
        Op::Conv2dWeightGrad { geometry } => {
            format!("{}by{}{}", by(&inputs[0].shape), by(&outputs[0].shape), strided(geometry))
        }
        _ => largest.map_or(String::new(), |x| by(&x.shape)),
    };
    let side = match op {
        Op::MatMul { transpose_a, transpose_b, .. } => match (transpose_a, transpose_b) {
            (false, false) => "",
            (false, true) => "_nt",
            (true, false) => "_tn",
            (true, true) => "_tt",
        },
        _ => "",
    };
    let dtype = outputs.first().map_or(DType::F32, |y| y.dtype);
    let dtype = format!("{dtype:?}").to_lowercase();
    format!("{}{side}{}/{shape}/{dtype}", op.name(), merged(op))
}

/// What fusion merged into an operation: `+bias+relu`.
fn merged(op: &Op) -> String {
    let mut words = String::new();
    let activation = match *op {
        Op::MatMul { bias, activation, .. } | Op::Conv2d { bias, activation, .. } => {
            words.push_str(if bias { "+bias" } else { "" });
            activation
        }
        Op::BatchNorm { residual, activation, .. }
        | Op::BatchNormTrain { residual, activation, .. } => {
            words.push_str(if residual { "+residual" } else { "" });
            activation
        }
        Op::BatchNormParamGrad { relu: true, .. }
        | Op::BatchNormInputGrad { relu: true, .. }
        | Op::BatchNormGrad { relu: true, .. } => Activation::Relu,
        _ => Activation::Identity,
    };
    words.push_str(match activation {
        Activation::Identity => "",
        Activation::Relu => "+relu",
        Activation::Gelu => "+gelu",
        Activation::GeluTanh => "+gelu_tanh",
    });
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Tune;

    fn options(models: &[&str]) -> Options {
        let models = models.iter().map(|&model| model.into()).collect();
        Options { quick: true, models, batch_size: 4, precision: "f32".into(), tune: Tune::Off }
    }

    const CEILINGS: Ceilings = Ceilings {
        bytes_per_s: 1e9,
        f32_flops_per_s: 1e9,
        f16_flops_per_s: None,
        matrix_flops_per_s: None,
    };

    #[test]
    fn the_list_holds_squares_and_each_operation_of_the_models_once() {
        let list = list(&options(&["mlp", "cnn"])).expect("both are known");
        let names: Vec<&str> = list.iter().map(|kernel| kernel.name.as_str()).collect();
        for name in [
            "matmul/256x256x256/f32",
            "matmul_tn/1024x1024x1024/f32",
            "matmul_nt+bias+relu/4x512x784/f32",
            "conv2d_weight_grad/4x1x28x28by16x1x3x3/f32",
            "max_pool2d/4x16x28x28/f32",
            "cross_entropy/4x10/f32",
            "optimizer_update/669760/f32",
        ] {
            assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{name} in {names:#?}");
        }
        assert!(!names.iter().any(|name| name.contains("4096")));
        assert!(super::list(&options(&["vgg"])).is_err());
    }

    fn time_all(bed: &mut Bed) {
        let effort = Effort { passes: 1, seconds: 0.0 };
        for kernel in of_model("cnn", &options(&[])).expect("known") {
            let outcome = kernel.outcome(bed, &CEILINGS, &Choices::default(), effort);
            match outcome.expect("runs") {
                Outcome::Timed(row) => {
                    assert!(row.score.lap.median_s > 0.0 && row.score.share > 0.0, "{row:?}");
                    assert_eq!(row.score.cost, kernel.cost());
                }
                Outcome::LeftOut { name, why } => panic!("{name}: {why}"),
            }
        }
    }

    #[test]
    fn every_kernel_of_a_model_is_timed_on_the_twins() {
        time_all(&mut Bed::Twins);
    }

    #[test]
    fn every_kernel_of_a_model_is_right_and_timed_on_an_adapter() {
        match Bed::open("llvmpipe") {
            Ok(mut bed) => time_all(&mut bed),
            Err(error) => {
                let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
                assert!(!required, "REQUIRE_GPU=1 and {error}");
                eprintln!("SKIPPED: no adapter to measure");
            }
        }
    }

    #[test]
    fn a_wrong_result_is_never_timed() {
        let mut kernel = Kernel::square(8, [false, false]);
        kernel.inputs[0].shape = vec![8, 8];
        // A factor beyond all numbers.
        kernel.op = Op::Scale { factor: f32::INFINITY };
        kernel.inputs.truncate(1);
        let effort = Effort { passes: 1, seconds: 0.0 };
        let outcome =
            kernel.outcome(&mut Bed::Twins, &CEILINGS, &Choices::default(), effort).expect("runs");
        assert!(matches!(&outcome, Outcome::LeftOut { why, .. } if why.contains("wrong")));
    }
}
