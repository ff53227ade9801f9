//! Muon: which parameters it moves, and the operations of their update.

use std::collections::HashSet;

use crate::batch::DType;
use crate::error::Result;
use crate::graph::op::{Activation, MUON_STEPS, MuonRule, Op, Reduction};
use crate::graph::plan::Variable;
use crate::graph::{Arena, Graph, Role, TensorId};

/// The parameters that Muon moves, of a graph that ends in the loss: the weights of products and convolutions, each output a
/// row. Not those of the last of them, which makes the output, nor tables that are looked up, nor convolutions in groups,
/// whose rows have nothing to be orthogonal to; nor what has one dimension (Jordan et al., 2024).
pub(super) fn matrices(graph: &Graph) -> HashSet<TensorId> {
    let mut found: HashSet<TensorId> = HashSet::new();
    let mut head = None;
    for node in &graph.nodes {
        let multiplies = match node.op {
            Op::MatMul { .. } => true,
            Op::Conv2d { geometry, .. } => geometry.groups == 1,
            _ => false,
        };
        let Some(weight) = node.inputs.get(1).map(|&id| graph.root(id)) else { continue };
        if multiplies && matches!(graph.tensor(weight).role, Role::Param(_)) {
            found.insert(weight);
            head = Some(weight);
        }
    }
    let looked_up = graph.nodes.iter().filter(|node| node.op == Op::Embedding);
    for table in looked_up.map(|node| graph.root(node.inputs[1])).chain(head) {
        found.remove(&table);
    }
    found
}

/// Adds the update of one matrix by its gradients, which lie in the arena `from`.
///
/// The learning rate is scaled so that updates are about as large as Adam's, and one rate does for both (Liu et al., "Muon is
/// Scalable for LLM Training", 2025; `adjust_lr_fn="match_rms_adamw"` of PyTorch).
pub(super) fn update(
    graph: &mut Graph,
    rule: MuonRule,
    matrix: &Variable,
    from: Arena,
    control: TensorId,
) -> Result<()> {
    let rows = matrix.shape[0];
    let shape = [rows, matrix.range().len() / rows];
    let in_arena = |graph: &mut Graph, arena| {
        let role = Role::Stretch(arena, matrix.offset);
        graph.add_tensor(format!("{arena:?}.{}", matrix.name), &shape, DType::F32, role)
    };
    let [gradients, momentum, parameters] =
        [from, Arena::First, Arena::Params].map(|arena| in_arena(graph, arena));
    let name = format!("direction.{}", matrix.name);
    let direction = graph.add_tensor(name, &shape, DType::F32, Role::Activation);
    let MuonRule { momentum: keep, nesterov, weight_decay } = rule;
    let op = Op::MuonMomentum { momentum: keep, nesterov };
    graph.push_into(op, &[gradients, control], &[direction, momentum]);
    let direction = orthogonal(graph, direction)?;
    let header = graph.header();
    let scale = 0.2 * (shape[0].max(shape[1]) as f32).sqrt();
    let op = Op::MuonUpdate { weight_decay, scale };
    graph.push_into(op, &[direction, control, header], &[parameters]);
    Ok(())
}

/// A matrix about as `x` whose singular values are all near 1.
fn orthogonal(graph: &mut Graph, x: TensorId) -> Result<TensorId> {
    let squares = graph.push_one(Op::GradSquares, &[x])?;
    let len = graph.shape(squares)[0];
    let squares = graph.reshape(squares, &[1, len])?;
    let sum = Op::Reduce { reduction: Reduction::Sum, axis: 1 };
    let squares = graph.push_one(sum, &[squares])?;
    let mut x = graph.push_one(Op::MuonNormalize, &[x, squares])?;
    let [rows, columns] = graph.shape(x)[..] else { unreachable!("a matrix") };
    let is_tall = rows > columns;
    for _ in 0..MUON_STEPS {
        // The smaller of the two products of the matrix with itself.
        let gram = graph.push_one(product(is_tall, !is_tall), &[x, x])?;
        let square = graph.push_one(product(false, false), &[gram, gram])?;
        let polynomial = graph.push_one(Op::NewtonSchulz, &[gram, square])?;
        let factors = if is_tall { [x, polynomial] } else { [polynomial, x] };
        x = graph.push_one(product(false, false), &factors)?;
    }
    Ok(x)
}

fn product(transpose_a: bool, transpose_b: bool) -> Op {
    Op::MatMul { transpose_a, transpose_b, bias: false, activation: Activation::Identity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{SampleSpec, TargetSpec};
    use crate::graph::plan::{Pass, Program};
    use crate::nn::losses::Loss;
    use crate::nn::models::by_name;
    use crate::nn::optimizers::OptimizerConfig;
    use crate::train::compile::{Blueprint, Training, compile};
    use crate::train::units::Operations;

    fn text() -> SampleSpec {
        SampleSpec {
            input_shape: vec![16],
            input_dtype: DType::U8,
            target: TargetSpec::Tokens { len: 16, vocabulary: 256, document_end: None },
        }
    }

    fn images() -> SampleSpec {
        let target = TargetSpec::Class { classes: 10 };
        SampleSpec { input_shape: vec![3, 32, 32], input_dtype: DType::U8, target }
    }

    fn program(model: &str, spec: &SampleSpec, optimizer: OptimizerConfig) -> Program {
        let training = Training { muon: optimizer.muon_rule(), ..Training::new(optimizer.rule()) };
        compile(&Blueprint {
            model: &*by_name(model, spec).expect("the model fits"),
            spec,
            batch_size: 2,
            mean: &[],
            std: &[],
            loss: Loss::for_target(spec),
            training: Some(training),
        })
        .expect("compiles")
    }

    /// The names of the parameters that Muon moves.
    fn moved(program: &Program) -> Vec<&str> {
        let plan = &program.plans[&Pass::Train];
        let updates = plan.nodes.iter().filter(|node| matches!(node.op, Op::MuonUpdate { .. }));
        let name = |id: TensorId| plan.tensor(id).name.trim_start_matches("Params.");
        updates.map(|node| name(node.outputs[0])).collect()
    }

    #[test]
    fn hidden_matrices_are_moved_and_neither_tables_nor_heads_nor_norms() {
        let of = |model, spec: &SampleSpec| {
            let program = program(model, spec, OptimizerConfig::muon());
            moved(&program).iter().map(|name| (*name).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("mlp", &images()), ["net.0.weight", "net.2.weight"]);
        assert_eq!(of("cnn", &images()), ["net.0.weight", "net.3.weight", "net.7.weight"]);
        let gpt = of("gpt-nano", &text());
        let expected = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];
        let expected = (0..3).flat_map(|layer| {
            expected.iter().map(move |name| format!("transformer.h.{layer}.{name}.weight"))
        });
        assert_eq!(gpt, expected.collect::<Vec<_>>());
        let llama = of("llama-nano", &text());
        assert!(llama.iter().all(|name| name.contains(".self_attn.") || name.contains(".mlp.")));
        assert_eq!(llama.len() % 7, 0);
        let vit = of("vit-tiny", &images());
        assert_eq!(vit.len(), 1 + 12 * 4);
        assert!(vit.iter().all(|name| !name.starts_with("head") && !name.contains("embed.w")));
    }

    #[test]
    fn they_keep_no_second_moments_and_their_products_are_none_of_the_models() {
        let adamw = program("gpt-nano", &text(), OptimizerConfig::adamw());
        let muon = program("gpt-nano", &text(), OptimizerConfig::muon());
        let len = |program: &Program, arena| program.arenas[&arena];
        assert_eq!(len(&muon, Arena::First), len(&adamw, Arena::First));
        let matrices: usize = {
            let names = moved(&muon);
            let of_muon = muon.params.iter().filter(|param| names.contains(&param.name.as_str()));
            of_muon.map(|param| param.range().len()).sum()
        };
        // 3 layers of 12 · 48² weights.
        assert_eq!(matrices, 3 * 12 * 48 * 48);
        assert_eq!(len(&muon, Arena::Second), len(&adamw, Arena::Second) - matrices);
        let flops = |program| Operations::of(program, None).flops;
        assert_eq!(flops(&muon), flops(&adamw));
    }
}
