//! Every gradient, as reverse mode composes it from the twins, against finite differences in `f64`.

use std::collections::BTreeSet;
use std::time::Duration;

use inflight::batch::{DType, SampleSpec, Slot, StepHeader, TargetSpec};
use inflight::cpu;
use inflight::executor::{Executor as _, Wants};
use inflight::graph::grad::backward;
use inflight::graph::op::{
    Activation, Attending, ConvGeometry, METRICS_LEN, MIX_QUANTILES, MixKind, Op, PoolGeometry,
    Reduction,
};
use inflight::graph::plan::{Pass, Program, ProgramBuilder};
use inflight::graph::{Arena, Graph, Init, Role, TensorId};
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::nn::layers::Layer;
use inflight::nn::llama::{Llama, LlamaConfig};
use inflight::nn::sequential::Sequential;
use inflight::nn::{Mode, Module};
use inflight::testing::{assert_close, finite_difference, normal};

const BATCH: usize = 4;
/// One row is padding, which must not count.
const COUNT: usize = 3;

/// The loss that a case ends in.
#[derive(Clone, Copy)]
enum End {
    /// Mean squared error of the output, seen as one row a sample.
    Squares,
    /// Cross-entropy of the output, which is logits.
    Classes,
    /// Cross-entropy of the output, which is logits, against classes mixed as by mixup.
    Mixed,
    /// Cross-entropy of the output, which is logits of [`TOKENS`] tokens a sample.
    Tokens,
}

/// Tokens of a sample: as many of two bytes as lie in the input of a sample.
const TOKENS: usize = 2;

/// Adds a parameter, as which all tensors that gradients are checked for are given.
fn param(g: &mut Graph, name: &str, shape: &[usize]) -> TensorId {
    g.param(name, shape, Init::Constant(0.0))
}

/// The program of a case: forward, loss, backward, no optimizer.
fn program(build: &dyn Fn(&mut Graph) -> TensorId, end: End) -> (Program, BTreeSet<&'static str>) {
    let mut g = Graph::new();
    let y = build(&mut g);
    let width = g.tensor(y).len() / BATCH;
    let shape = match end {
        End::Tokens => [BATCH * TOKENS, width / TOKENS],
        _ => [BATCH, width],
    };
    let y = g.reshape(y, &shape).unwrap();
    let header = g.header();
    let (target, shape, dtype, loss) = match end {
        End::Squares => {
            let loss = Op::MeanSquaredError { gradient: true };
            (TargetSpec::Values { len: width }, vec![BATCH, width], DType::F32, loss)
        }
        End::Classes => {
            let loss = Op::CrossEntropy { smoothing: 0.1, gradient: true, per_sample: 1, first: 0 };
            (TargetSpec::Class { classes: width }, vec![BATCH], DType::U32, loss)
        }
        End::Tokens => {
            let loss =
                Op::CrossEntropy { smoothing: 0.0, gradient: true, per_sample: TOKENS, first: 0 };
            let vocabulary = width / TOKENS;
            let target = TargetSpec::Tokens { len: TOKENS, vocabulary, document_end: None };
            (target, vec![BATCH * TOKENS], DType::U32, loss)
        }
        End::Mixed => {
            let loss = Op::SoftCrossEntropy { gradient: true };
            (TargetSpec::Class { classes: width }, vec![BATCH], DType::U32, loss)
        }
    };
    let spec = SampleSpec { input_shape: vec![1], input_dtype: DType::F32, target };
    let target = g.add_tensor("target", &shape, dtype, Role::Target);
    let target = match end {
        End::Mixed => {
            let table = g.constant("table", vec![0.3; MIX_QUANTILES]);
            let draw = Op::MixDraw { kind: MixKind::Mixup, height: 1, width: 1 };
            let mix = g.push_one(draw, &[header, table]).unwrap();
            let soften = Op::SoftTarget { smoothing: 0.1, classes: width };
            g.push_one(soften, &[target, mix, header]).unwrap()
        }
        End::Squares | End::Classes | End::Tokens => target,
    };
    let [loss, dy] = g.push(loss, &[y, target, header]).unwrap()[..] else { panic!("two outputs") };
    let metrics = g.add_tensor("metrics", &[METRICS_LEN], DType::F32, Role::Metrics);
    let per_sample = if matches!(end, End::Tokens) { TOKENS } else { 1 };
    g.push_into(Op::StepMetrics { accuracy: false, per_sample }, &[loss, header], &[metrics]);
    let covered = g.nodes.iter().map(|node| node.op.name()).collect();
    backward(&mut g, y, dy).unwrap();
    let mut builder = ProgramBuilder::new(&spec, BATCH);
    builder.add(Pass::Train, g, &[]).unwrap();
    (builder.build(y), covered)
}

/// A slot with random targets.
fn fill(slot: &mut Slot, program: &Program) {
    let header = StepHeader { count: COUNT as u32, step: 3, seed_low: 11, ..Default::default() };
    slot.write_header(&header);
    let targets = normal(99, BATCH * program.slot.target_bytes / 4);
    let row = program.slot.target_bytes / 4;
    for (i, (mut input, mut target)) in slot.samples(&program.slot).into_iter().enumerate() {
        // Two ids, for operations that take such: some come twice, others never.
        let ids = [i as u16 % 2, 3 * i as u16 % 4];
        input.copy_from_slice(bytemuck::cast_slice(&ids));
        match program.spec.target {
            TargetSpec::Class { classes } => {
                target.copy_from_slice(&((i * 2 % classes) as u32).to_le_bytes());
            }
            TargetSpec::Tokens { len, vocabulary, .. } => {
                let tokens = (0..len).map(|j| ((i + 2 * j) % vocabulary) as u32);
                target.copy_from_slice(bytemuck::cast_slice(&tokens.collect::<Vec<_>>()));
            }
            TargetSpec::Values { .. } => {
                let values: Vec<f32> =
                    targets[i * row..][..row].iter().map(|&x| x as f32).collect();
                target.copy_from_slice(bytemuck::cast_slice(&values));
            }
        }
    }
}

/// Compares the gradients of all parameters of a case; returns the operations it covers.
fn check(name: &str, end: End, build: &dyn Fn(&mut Graph) -> TensorId) -> BTreeSet<&'static str> {
    let (program, covered) = program(build, end);
    let mut executor = cpu::Executor::<f64>::in_precision(program.clone(), 1).unwrap();
    let mut slot = executor.take_slots().unwrap().pop();
    fill(slot.as_mut().unwrap(), &program);
    let mut loss = |executor: &mut cpu::Executor<f64>, parameters: &[f64]| {
        executor.arena_mut(Arena::Params).copy_from_slice(parameters);
        executor.submit(Pass::Train, slot.take().unwrap(), Wants::default()).unwrap();
        slot = executor.collect(Duration::ZERO).unwrap().map(|done| done.slot);
        executor.arena(Arena::Metrics)[0] / COUNT as f64
    };
    let parameters = normal(name.len() as u64, executor.arena(Arena::Params).len());
    loss(&mut executor, &parameters);
    let gradients = executor.arena(Arena::Grads).to_vec();
    let expected = finite_difference(&parameters, |parameters| loss(&mut executor, parameters));
    assert!(!program.params.is_empty());
    for variable in &program.params {
        let expected = &expected[variable.range()];
        assert!(expected.iter().any(|g| g.abs() > 1e-4), "{name}: {} plays no part", variable.name);
        println!("{name}: {}", variable.name);
        assert_close(&gradients[variable.range()], expected, 1e-7, 1e-6);
    }
    covered
}

/// Checks an operation over parameters of the given shapes.
fn check_op(op: Op, shapes: &[&[usize]]) -> BTreeSet<&'static str> {
    check(op.name(), End::Squares, &|g| {
        let inputs: Vec<TensorId> =
            shapes.iter().enumerate().map(|(i, shape)| param(g, &format!("p{i}"), shape)).collect();
        g.push(op, &inputs).unwrap()[0]
    })
}

fn matmul(transpose_a: bool, transpose_b: bool, bias: bool, activation: Activation) -> Op {
    Op::MatMul { transpose_a, transpose_b, bias, activation }
}

#[test]
fn matrix_products() {
    let identity = Activation::Identity;
    check_op(matmul(false, false, false, identity), &[&[4, 5], &[5, 3]]);
    check_op(matmul(false, true, true, Activation::Relu), &[&[4, 5], &[3, 5], &[3]]);
    check_op(matmul(true, false, true, identity), &[&[5, 4], &[5, 3], &[3]]);
    check_op(matmul(true, true, false, Activation::Relu), &[&[5, 4], &[3, 5]]);
}

#[test]
fn convolutions() {
    let conv = |stride, padding, groups, activation| Op::Conv2d {
        geometry: ConvGeometry { stride, padding, groups },
        bias: true,
        activation,
    };
    let op = conv([1, 1], [1, 1], 1, Activation::Relu);
    check_op(op, &[&[4, 2, 4, 5], &[3, 2, 3, 3], &[3]]);
    let op = conv([2, 1], [0, 1], 2, Activation::Identity);
    check_op(op, &[&[4, 4, 5, 4], &[6, 2, 3, 2], &[6]]);
    let op = conv([2, 2], [0, 0], 1, Activation::Identity);
    check_op(op, &[&[4, 3, 5, 4], &[2, 3, 1, 1], &[2]]);
}

#[test]
fn pooling() {
    for geometry in [
        PoolGeometry { kernel: [2, 2], stride: [2, 2], padding: [0, 0] },
        PoolGeometry { kernel: [3, 2], stride: [1, 2], padding: [1, 0] },
    ] {
        check_op(Op::MaxPool2d { geometry }, &[&[4, 2, 4, 6]]);
        check_op(Op::AvgPool2d { geometry }, &[&[4, 2, 4, 6]]);
    }
}

#[test]
fn elementwise() {
    for op in [Op::Relu, Op::Gelu, Op::GeluTanh, Op::Scale { factor: -0.5 }] {
        check_op(op, &[&[4, 7]]);
    }
    for op in [Op::Add, Op::Mul, Op::SwiGlu] {
        check_op(op, &[&[4, 7], &[4, 7]]);
    }
    check_op(Op::Bias, &[&[4, 3, 2, 2], &[3]]);
}

#[test]
fn reductions() {
    for reduction in [Reduction::Sum, Reduction::Mean] {
        for axis in [1, 2] {
            check_op(Op::Reduce { reduction, axis }, &[&[4, 3, 5]]);
        }
    }
    for axis in [0, 1, 2] {
        check_op(Op::Broadcast { axis, len: 4, factor: 0.5 }, &[&[4, 3]]);
    }
}

#[test]
fn rearrangements() {
    for axis in [0, 1, 2] {
        let mut other = [4, 3, 5];
        other[axis] = 4;
        check_op(Op::Concat { axis }, &[&[4, 3, 5], &other]);
        check_op(Op::Slice { axis, start: 0, len: 4.min([4, 3, 5][axis]) }, &[&[4, 3, 5]]);
        check_op(Op::Unslice { axis, start: 2, len: 8 }, &[&[4, 3, 5]]);
    }
    check_op(Op::Transpose, &[&[4, 3, 5]]);
}

/// A parameter that only a stretch of is used has a gradient of zeros elsewhere.
#[test]
fn slices_leave_the_rest_alone() {
    check("slice", End::Squares, &|g| {
        let x = param(g, "x", &[BATCH, 5, 2]);
        let y = g.push_one(Op::Slice { axis: 1, start: 1, len: 3 }, &[x]).unwrap();
        let z = g.push_one(Op::Slice { axis: 1, start: 2, len: 3 }, &[x]).unwrap();
        g.push_one(Op::Mul, &[y, z]).unwrap()
    });
}

/// The ids that [`fill`] writes.
fn ids(g: &mut Graph) -> TensorId {
    g.add_tensor("ids", &[BATCH, TOKENS], DType::U16, Role::Input)
}

#[test]
fn embeddings() {
    check("embedding", End::Squares, &|g| {
        let (ids, table) = (ids(g), param(g, "table", &[5, 3]));
        g.push_one(Op::Embedding, &[ids, table]).unwrap()
    });
}

/// All of a language model, whose first table is the head as well.
#[test]
fn a_language_model() {
    let config = GptConfig { positions: Some(3), ..GptConfig::of(2, 2, 4) };
    let model = Gpt::with_sizes(config, 5, 3).unwrap();
    let covered = check("a language model", End::Tokens, &|g| {
        let ids = ids(g);
        model.build(g, ids, Mode::Train).unwrap()
    });
    assert!(covered.contains("gelu_tanh") && covered.contains("embedding"), "{covered:?}");
}

/// All of a LLaMA, with heads that share keys and values, within documents, with a head of its own and with the embedding.
#[test]
fn a_llama() {
    for (tied, document_end) in [(false, None), (true, Some(0))] {
        let config = LlamaConfig { tied, hidden: Some(3), ..LlamaConfig::of(2, 4, 2, 8) };
        let spec = SampleSpec {
            input_shape: vec![TOKENS],
            input_dtype: DType::U16,
            target: TargetSpec::Tokens { len: TOKENS, vocabulary: 5, document_end },
        };
        let model = Llama::new(config, &spec).unwrap();
        let covered = check("a llama", End::Tokens, &|g| {
            let ids = ids(g);
            model.build(g, ids, Mode::Train).unwrap()
        });
        for name in ["rms_norm", "rotary", "swiglu"] {
            assert!(covered.contains(name), "{covered:?}");
        }
        assert_eq!(covered.contains("document_starts"), document_end.is_some());
    }
}

#[test]
fn attention() {
    for causal in [false, true] {
        check_op(Op::Attention(Attending::new(2, causal)), &[&[4, 3, 12]]);
    }
    check_op(Op::Attention(Attending { kv_heads: 2, ..Attending::new(4, true) }), &[&[4, 3, 16]]);
    // Within documents, whose ends are among the ids, with weights that are dropped, and with both.
    for (documents, dropout) in [(true, 0.0), (false, 0.4), (true, 0.4)] {
        let how = Attending { kv_heads: 1, documents, dropout, salt: 9, ..Attending::new(2, true) };
        check("attention", End::Squares, &|g| {
            let mut inputs = vec![param(g, "qkv", &[BATCH, TOKENS, 12])];
            if documents {
                let ids = ids(g);
                inputs.push(g.push(Op::DocumentStarts { end: 0 }, &[ids]).unwrap()[0]);
            }
            if dropout > 0.0 {
                inputs.push(g.header());
            }
            g.push(Op::Attention(how), &inputs).unwrap()[0]
        });
    }
}

#[test]
fn rotary() {
    let table: Vec<f32> = normal(7, 5 * 4).iter().map(|&x| x as f32).collect();
    for positions in [false, true] {
        check("rotary", End::Squares, &|g| {
            let [q, k, v] = [("q", 8), ("k", 4), ("v", 4)]
                .map(|(name, width)| param(g, name, &[BATCH, TOKENS, width]));
            let table = g.constant("table", table.clone());
            let mut inputs = vec![q, k, v, g.reshape(table, &[5, 4]).unwrap()];
            if positions {
                let ids = ids(g);
                inputs.push(g.push(Op::DocumentStarts { end: 0 }, &[ids]).unwrap()[1]);
            }
            g.push_one(Op::Rotary { positions }, &inputs).unwrap()
        });
    }
}

#[test]
fn norms() {
    let cases = [Activation::Identity, Activation::Relu].map(|a| [(a, false), (a, true)]);
    for (activation, residual) in cases.into_iter().flatten() {
        check("batch_norm", End::Squares, &|g| {
            let x = param(g, "x", &[BATCH, 3, 2, 2]);
            // Statistics read x too and give it no gradient, which reverse mode expects of no parameter.
            let x = g.push_one(Op::Scale { factor: 1.0 }, &[x]).unwrap();
            let [gamma, beta] = ["gamma", "beta"].map(|name| param(g, name, &[3]));
            let stats = ["running_mean", "running_var"]
                .map(|name| g.state(name, &[3], Init::Constant(0.0)));
            let header = g.header();
            let [mean, var] =
                ["mean", "var"].map(|name| g.add_tensor(name, &[3], DType::F32, Role::Activation));
            let outputs = [mean, var, stats[0], stats[1]];
            g.push_into(Op::BatchNormStats { momentum: 0.1 }, &[x, header], &outputs);
            let mut inputs = vec![x, gamma, beta, mean, var];
            if residual {
                inputs.push(param(g, "residual", &[BATCH, 3, 2, 2]));
            }
            let op = Op::BatchNorm { eps: 1e-3, activation, residual };
            g.push_one(op, &inputs).unwrap()
        });
    }
    check_op(Op::LayerNorm { eps: 1e-3, residual: false }, &[&[4, 6], &[6], &[6]]);
    check_op(Op::RmsNorm { eps: 1e-3, residual: false }, &[&[4, 6], &[6]]);
}

/// As in the blocks of transformers: a norm reads a sum, which goes on beside it.
#[test]
fn norms_of_sums() {
    for is_rms in [false, true] {
        let build = |g: &mut Graph| {
            let [x, other] = ["x", "other"].map(|name| param(g, name, &[BATCH, 6]));
            let sum = g.push_one(Op::Add, &[x, other]).unwrap();
            let gamma = param(g, "gamma", &[6]);
            let norm = match is_rms {
                true => g.push(Op::RmsNorm { eps: 1e-3, residual: false }, &[sum, gamma]).unwrap(),
                false => {
                    let beta = param(g, "beta", &[6]);
                    let op = Op::LayerNorm { eps: 1e-3, residual: false };
                    g.push(op, &[sum, gamma, beta]).unwrap()
                }
            };
            let y = g.push_one(Op::Scale { factor: 0.5 }, &[norm[0]]).unwrap();
            g.push_one(Op::Add, &[sum, y]).unwrap()
        };
        let (program, _) = program(&build, End::Squares);
        let names = program.plans[&Pass::Train].nodes.iter().map(|node| node.op);
        let merged = |op: Op| {
            matches!(
                op,
                Op::LayerNorm { residual: true, .. }
                    | Op::RmsNorm { residual: true, .. }
                    | Op::LayerNormInputGrad { residual: true }
                    | Op::RmsNormInputGrad { residual: true }
            )
        };
        assert_eq!(names.filter(|&op| merged(op)).count(), 2, "forward and backward");
        check("norm_of_sum", End::Squares, &build);
    }
}

#[test]
fn dropout() {
    check("dropout", End::Squares, &|g| {
        let x = param(g, "x", &[BATCH, 9]);
        let header = g.header();
        g.push_one(Op::Dropout { p: 0.4, salt: 5 }, &[x, header]).unwrap()
    });
}

#[test]
fn cross_entropy() {
    check("cross_entropy", End::Classes, &|g| {
        let x = param(g, "x", &[BATCH, 5]);
        // One use only, through another operation: the loss gives the gradient of its input.
        g.push_one(Op::Scale { factor: 1.5 }, &[x]).unwrap()
    });
}

#[test]
fn soft_cross_entropy() {
    let covered = check("soft_cross_entropy", End::Mixed, &|g| {
        let x = param(g, "x", &[BATCH, 5]);
        g.push_one(Op::Scale { factor: 1.5 }, &[x]).unwrap()
    });
    assert!(covered.contains("soft_target"), "{covered:?}");
}

#[test]
fn what_is_used_twice_gets_both_gradients() {
    check("shared", End::Squares, &|g| {
        let w = param(g, "w", &[4, 4]);
        let y = g.push_one(matmul(false, true, false, Activation::Identity), &[w, w]).unwrap();
        let y = g.push_one(Op::Mul, &[y, w]).unwrap();
        let half = g.push_one(Op::Scale { factor: 0.5 }, &[y]).unwrap();
        g.push_one(Op::Add, &[y, half]).unwrap()
    });
}

/// A whole model of the layers that users name, and the list of all operations it must cover.
#[test]
fn a_model_of_every_layer() {
    let layers = vec![
        Layer::conv2d(3, 3, 1),
        Layer::relu(),
        Layer::batch_norm(),
        Layer::max_pool2d(2),
        Layer::conv2d(4, 3, 1),
        Layer::gelu(),
        Layer::avg_pool2d(2),
        Layer::dropout(0.2),
        Layer::flatten(),
        Layer::linear(6),
        Layer::layer_norm(),
        Layer::relu(),
        Layer::classes(),
    ];
    let spec = SampleSpec {
        input_shape: vec![2, 4, 4],
        input_dtype: DType::F32,
        target: TargetSpec::Class { classes: 3 },
    };
    let model = Sequential::new(layers, &spec).unwrap();
    let covered = check("model", End::Classes, &|g| {
        let x = param(g, "x", &[BATCH, 2, 4, 4]);
        model.build(g, x, Mode::Train).unwrap()
    });
    for op in ["conv2d", "batch_norm", "max_pool2d", "avg_pool2d", "dropout", "gelu", "layer_norm"]
    {
        assert!(covered.contains(op), "{op} is not in {covered:?}");
    }
}
