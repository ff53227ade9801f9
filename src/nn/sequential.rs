//! Layers one after the other, checked against the data they will see.

use super::build::within;
use super::layers::{Features, Layer};
use super::{Mode, Module};
use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::graph::{Graph, Role, TensorId};

/// Layers one after the other, as `torch.nn.Sequential`; layer `i` is the module `net.{i}` unless it
/// has a name of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequential {
    layers: Vec<Layer>,
}

impl Sequential {
    /// A model of `layers` for samples of `spec`: widths that were left open become the number of
    /// classes, and the whole is built once to see that it fits.
    ///
    /// # Errors
    /// Naming the layer (`net.7`), when there are no layers, two share a name, a setting is out of range, or a
    /// shape does not fit the data.
    pub fn new(layers: Vec<Layer>, spec: &SampleSpec) -> Result<Self> {
        if layers.is_empty() {
            return Err(Error::graph("model", "it has no layers, expected at least one")
                .hint("[[model.layers]] with type = \"linear\""));
        }
        let model = Self { layers: resolve(layers, spec)? };
        model.expect_distinct_names()?;
        model.expect_fit(spec)?;
        Ok(model)
    }

    /// The layers, in order, with all widths known.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The module path of layer `index`.
    pub fn module_name(&self, index: usize) -> String {
        module_name(&self.layers, index)
    }

    fn expect_distinct_names(&self) -> Result<()> {
        let mut names: Vec<String> = (0..self.layers.len()).map(|i| self.module_name(i)).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(Error::graph(&pair[0], "two layers have this name").hint("names that differ"))
            }
            None => Ok(()),
        }
    }

    fn expect_fit(&self, spec: &SampleSpec) -> Result<()> {
        let mut graph = Graph::new();
        let x = sample_input(&mut graph, spec, 2);
        let y = self.build(&mut graph, x, Mode::Train)?;
        let width = target_width(spec);
        if graph.shape(y) == [2, width] {
            return Ok(());
        }
        let what = match spec.target {
            TargetSpec::Class { .. } => "classes",
            TargetSpec::Values { .. } => "target values",
            TargetSpec::Tokens { .. } => "tokens",
        };
        let message = format!(
            "its output is {:?} a sample, expected [{width}] for {width} {what}",
            &graph.shape(y)[1..]
        );
        Err(Error::graph(self.module_name(self.layers.len() - 1), message)
            .hint("a last linear layer with out = \"classes\""))
    }
}

impl Module for Sequential {
    fn build(&self, graph: &mut Graph, x: TensorId, mode: Mode) -> Result<TensorId> {
        let mut y = x;
        for (index, layer) in self.layers.iter().enumerate() {
            let name = self.module_name(index);
            y = within(graph, &name, |graph| layer.build(graph, y, mode))?;
        }
        Ok(y)
    }
}

/// The input that a model sees of a batch: `[batch, ..input_shape]`, already `f32` on the device, or tokens as they are.
pub(super) fn sample_input(graph: &mut Graph, spec: &SampleSpec, batch: usize) -> TensorId {
    let shape = [&[batch], spec.input_shape.as_slice()].concat();
    let dtype = match spec.target {
        TargetSpec::Tokens { .. } => spec.input_dtype,
        TargetSpec::Class { .. } | TargetSpec::Values { .. } => DType::F32,
    };
    graph.add_tensor("input", &shape, dtype, Role::Activation)
}

/// Values that a model puts out for a sample: as many as classes, or as the target has.
pub(super) fn target_width(spec: &SampleSpec) -> usize {
    match spec.target {
        TargetSpec::Class { classes } => classes,
        TargetSpec::Values { len } => len,
        TargetSpec::Tokens { vocabulary, .. } => vocabulary,
    }
}

fn module_name(layers: &[Layer], index: usize) -> String {
    layers[index].name().map_or_else(|| format!("net.{index}"), str::to_string)
}

/// Replaces the open width of the last linear layer; elsewhere an open width is most likely a slip.
fn resolve(mut layers: Vec<Layer>, spec: &SampleSpec) -> Result<Vec<Layer>> {
    let last = layers.iter().rposition(|layer| matches!(layer, Layer::Linear { .. }));
    for index in 0..layers.len() {
        let name = module_name(&layers, index);
        if let Layer::Linear { out: out @ Features::OfTarget(_), .. } = &mut layers[index] {
            if Some(index) != last {
                return Err(Error::graph(
                    name,
                    "out is left to the data in a layer before the last linear one",
                )
                .hint("out = N"));
            }
            *out = Features::Count(target_width(spec));
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Op;

    fn spec(input_shape: &[usize]) -> SampleSpec {
        SampleSpec {
            input_shape: input_shape.to_vec(),
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 10 },
        }
    }

    fn refusal(layers: Vec<Layer>, input_shape: &[usize]) -> String {
        Sequential::new(layers, &spec(input_shape)).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_layer_that_does_not_fit_is_named_with_found_expected_and_hint() {
        let images = [1, 8, 8];
        assert_eq!(
            refusal(vec![Layer::conv2d(4, 3, 1), Layer::classes()], &images),
            "graph: net.1: linear takes [n, features], found an input of shape [2, 4, 8, 8]; \
             try a flatten layer before it"
        );
        assert!(
            refusal(vec![Layer::conv2d(4, 3, 1)], &[64])
                .contains("found an input of shape [2, 64]")
        );
        assert!(
            refusal(vec![Layer::conv2d(4, 9, 0)], &images).contains("graph: net.0: a window of 9")
        );
        assert!(
            refusal(vec![Layer::flatten()], &images)
                .contains("its output is [64] a sample, expected [10]")
        );
        assert!(refusal(vec![], &images).contains("it has no layers"));
        let dropout = vec![Layer::dropout(f64::NAN), Layer::flatten(), Layer::classes()];
        assert!(refusal(dropout, &images).contains("net.0: p: found NaN, expected 0 up to"));
        let twice = vec![Layer::flatten().named("a"), Layer::classes().named("a")];
        assert!(refusal(twice, &images).contains("graph: a: two layers have this name"));
        let open = vec![Layer::flatten(), Layer::classes(), Layer::classes()];
        assert!(refusal(open, &images).contains("net.1: out is left to the data"));
        let huge = vec![Layer::flatten(), Layer::linear(usize::MAX), Layer::classes()];
        assert!(refusal(huge, &images).contains("net.1: a weight of shape"));
        let groups = vec![Layer::Conv2d {
            name: None,
            out: 4,
            kernel: 3.into(),
            stride: 1.into(),
            padding: 0.into(),
            groups: 3,
            bias: true,
        }];
        assert!(refusal(groups, &images).contains("cannot be divided into 3 groups"));
    }

    fn operations(
        layers: Vec<Layer>,
        input_shape: &[usize],
        mode: Mode,
    ) -> Vec<(String, &'static str)> {
        let spec = spec(input_shape);
        let model = Sequential::new(layers, &spec).expect("the model fits");
        let mut graph = Graph::new();
        let x = sample_input(&mut graph, &spec, 2);
        model.build(&mut graph, x, mode).expect("the model fits");
        graph.nodes.iter().map(|node| (node.scope.clone(), node.op.name())).collect()
    }

    #[test]
    fn modes_differ_in_dropout_and_batch_norm_only() {
        let layers = || {
            vec![
                Layer::flatten(),
                Layer::batch_norm(),
                Layer::gelu(),
                Layer::dropout(0.5),
                Layer::layer_norm(),
                Layer::classes(),
            ]
        };
        let named = |list: &[(&str, &'static str)]| {
            list.iter().map(|&(scope, op)| (scope.to_string(), op)).collect::<Vec<_>>()
        };
        assert_eq!(
            operations(layers(), &[1, 4, 4], Mode::Train),
            named(&[
                ("net.1", "batch_norm_stats"),
                ("net.1", "batch_norm"),
                ("net.2", "gelu"),
                ("net.3", "dropout"),
                ("net.4", "layer_norm"),
                ("net.5", "matmul"),
            ])
        );
        assert_eq!(
            operations(layers(), &[1, 4, 4], Mode::Eval),
            named(&[
                ("net.1", "batch_norm"),
                ("net.2", "gelu"),
                ("net.4", "layer_norm"),
                ("net.5", "matmul"),
            ])
        );
    }

    #[test]
    fn dropout_layers_do_not_share_their_masks() {
        let spec = spec(&[64]);
        let layers = vec![Layer::dropout(0.5), Layer::dropout(0.5), Layer::classes()];
        let model = Sequential::new(layers, &spec).expect("the model fits");
        let mut graph = Graph::new();
        let x = sample_input(&mut graph, &spec, 2);
        model.build(&mut graph, x, Mode::Train).expect("the model fits");
        let salts: Vec<u32> = graph
            .nodes
            .iter()
            .filter_map(|node| match node.op {
                Op::Dropout { salt, .. } => Some(salt),
                _ => None,
            })
            .collect();
        assert_eq!(salts.len(), 2);
        assert_ne!(salts[0], salts[1]);
    }

    #[test]
    fn layer_norm_of_images_works_on_rows() {
        let layers = vec![Layer::layer_norm(), Layer::flatten(), Layer::classes()];
        assert_eq!(operations(layers, &[2, 3, 4], Mode::Eval).len(), 2);
    }
}
