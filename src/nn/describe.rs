//! What a model consists of, as data: its modules with their output shapes, and its weights.

use serde::Serialize;

use super::sequential::sample_input;
use super::{Mode, Module};
use crate::batch::SampleSpec;
use crate::error::Result;
use crate::graph::op::Op;
use crate::graph::{Graph, Role, TensorId};

/// A model laid out for one batch size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelDescription {
    /// Shape of the input, the batch first.
    pub input_shape: Vec<usize>,
    /// Shape of the output, the batch first.
    pub output_shape: Vec<usize>,
    /// The modules in the order in which data passes them.
    pub modules: Vec<ModuleRow>,
    /// Parameters and states as a weights file lists them, in the model's order.
    pub tensors: Vec<TensorRow>,
    /// Trained elements.
    pub parameter_count: usize,
    /// Elements that are kept but not trained (running statistics).
    pub state_count: usize,
}

#[cfg(test)]
impl ModelDescription {
    /// Name and shape of each tensor, as lists of published models have them.
    pub fn tensor_lines(&self) -> Vec<String> {
        self.tensors.iter().map(|tensor| format!("{} {:?}", tensor.name, tensor.shape)).collect()
    }
}

/// One module.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModuleRow {
    /// PyTorch's module path.
    pub name: String,
    /// What it computes: `linear`, `conv2d`, `flatten` …
    pub kind: &'static str,
    /// Shape of its output, the batch first.
    pub output_shape: Vec<usize>,
    /// Trained elements in it.
    pub parameter_count: usize,
}

/// One tensor of a weights file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorRow {
    /// PyTorch's name.
    pub name: String,
    /// Shape in PyTorch's layout.
    pub shape: Vec<usize>,
    /// Number of elements.
    pub count: usize,
    /// Whether it is trained; a running statistic is not.
    pub trained: bool,
}

/// Lays `model` out for batches of `batch` samples of `spec`.
///
/// # Errors
/// When the model does not fit the samples.
pub fn describe(model: &dyn Module, spec: &SampleSpec, batch: usize) -> Result<ModelDescription> {
    let mut graph = Graph::new();
    let x = sample_input(&mut graph, spec, batch);
    let y = model.build(&mut graph, x, Mode::Train)?;
    let tensors: Vec<TensorRow> = graph
        .tensors
        .iter()
        .filter_map(|tensor| {
            let trained = match tensor.role {
                Role::Param(_) => true,
                Role::State(_) => false,
                _ => return None,
            };
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            Some(TensorRow { name, shape, count: tensor.len(), trained })
        })
        .collect();
    let count = |trained| tensors.iter().filter(|t| t.trained == trained).map(|t| t.count).sum();
    Ok(ModelDescription {
        input_shape: graph.shape(x).to_vec(),
        output_shape: graph.shape(y).to_vec(),
        modules: modules(&graph, &tensors),
        parameter_count: count(true),
        state_count: count(false),
        tensors,
    })
}

/// A module is a scope; its output is what it wrote last, be it an operation's result or a view.
fn modules(graph: &Graph, tensors: &[TensorRow]) -> Vec<ModuleRow> {
    let mut rows: Vec<ModuleRow> = Vec::new();
    for (index, tensor) in graph.tensors.iter().enumerate() {
        let Some((scope, _)) = tensor.name.rsplit_once('.') else { continue };
        if !matches!(tensor.role, Role::Activation | Role::View(_)) {
            continue;
        }
        let producer =
            graph.nodes.iter().find(|node| node.outputs.first() == Some(&TensorId(index)));
        let kind = match (&tensor.role, producer) {
            (Role::View(_), _) => None,
            (_, Some(node)) => Some(kind_of(&node.op)),
            // A second output, such as the positions of max pooling.
            (_, None) => continue,
        };
        match rows.last_mut().filter(|row| row.name == scope) {
            Some(row) => {
                row.output_shape.clone_from(&tensor.shape);
                row.kind = kind.unwrap_or(row.kind);
            }
            None => rows.push(ModuleRow {
                name: scope.to_string(),
                kind: kind.unwrap_or("flatten"),
                output_shape: tensor.shape.clone(),
                parameter_count: tensors
                    .iter()
                    .filter(|t| {
                        t.trained && t.name.rsplit_once('.').is_some_and(|(of, _)| of == scope)
                    })
                    .map(|t| t.count)
                    .sum(),
            }),
        }
    }
    rows
}

fn kind_of(op: &Op) -> &'static str {
    match op {
        Op::MatMul { .. } => "linear",
        op => op.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, TargetSpec};
    use crate::nn::layers::Layer;
    use crate::nn::models::by_name;
    use crate::nn::sequential::Sequential;

    fn spec() -> SampleSpec {
        SampleSpec {
            input_shape: vec![1, 28, 28],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        }
    }

    #[test]
    fn cnn_is_listed_module_by_module() {
        let model = by_name("cnn", &spec()).expect("cnn fits");
        let description = describe(&model, &spec(), 128).expect("cnn fits");
        let rows: Vec<_> = description
            .modules
            .iter()
            .map(|row| (row.name.as_str(), row.kind, row.parameter_count))
            .collect();
        assert_eq!(
            rows,
            [
                ("net.0", "conv2d", 160),
                ("net.1", "relu", 0),
                ("net.2", "max_pool2d", 0),
                ("net.3", "conv2d", 4640),
                ("net.4", "relu", 0),
                ("net.5", "max_pool2d", 0),
                ("net.6", "flatten", 0),
                ("net.7", "linear", 200_832),
                ("net.8", "relu", 0),
                ("net.9", "linear", 1290),
            ]
        );
        assert_eq!(description.modules[2].output_shape, [128, 16, 14, 14]);
        assert_eq!(description.modules[6].output_shape, [128, 1568]);
        assert_eq!((description.parameter_count, description.state_count), (206_922, 0));
        assert_eq!(description.output_shape, [128, 10]);
    }

    #[test]
    fn states_count_apart_from_parameters() {
        let layers = vec![
            Layer::batch_norm(),
            Layer::layer_norm(),
            Layer::flatten(),
            Layer::classes().named("head"),
        ];
        let model = Sequential::new(layers, &spec()).expect("fits");
        let description = describe(&model, &spec(), 4).expect("fits");
        let kinds: Vec<_> = description.modules.iter().map(|row| row.kind).collect();
        assert_eq!(kinds, ["batch_norm", "layer_norm", "flatten", "linear"]);
        assert_eq!(description.modules[1].output_shape, [4, 1, 28, 28]);
        assert_eq!(description.state_count, 2);
        let names: Vec<_> =
            description.tensors.iter().map(|t| (t.name.as_str(), t.trained)).collect();
        assert_eq!(names[2..4], [("net.0.running_mean", false), ("net.0.running_var", false)]);
        assert_eq!(names[6], ("head.weight", true));
    }
}
