//! Losses: what a model's output is held against.

use serde::{Deserialize, Serialize};

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::graph::op::Op;
use crate::graph::{Graph, TensorId};

/// A loss, as the mean over the samples of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// `torch.nn.CrossEntropyLoss`: softmax and cross-entropy in one, for classes.
    CrossEntropy {
        /// Share of the target spread evenly over all classes (Szegedy et al., 2016).
        #[serde(default)]
        smoothing: f64,
    },
    /// `torch.nn.MSELoss`, for values.
    MeanSquaredError,
}

/// What a loss adds to a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossTensors {
    /// The loss of each row, `f32[n]`; 0 in padding.
    pub row_loss: TensorId,
    /// The gradient of the mean loss with respect to the output, in its shape, if asked for.
    pub output_gradient: Option<TensorId>,
    /// 1 in rows whose prediction is right, `f32[n]`, for classes.
    pub row_correct: Option<TensorId>,
}

impl Loss {
    /// What fits the target: cross-entropy for classes, mean squared error for values.
    pub fn for_target(spec: &SampleSpec) -> Self {
        match spec.target {
            TargetSpec::Class { .. } | TargetSpec::Tokens { .. } => {
                Loss::CrossEntropy { smoothing: 0.0 }
            }
            TargetSpec::Values { .. } => Loss::MeanSquaredError,
        }
    }

    /// Checks the settings, and that the loss is one for the target of `spec`.
    ///
    /// # Errors
    /// Naming the key.
    pub fn validate(&self, spec: &SampleSpec) -> Result<()> {
        match (self, &spec.target) {
            (
                Loss::CrossEntropy { smoothing },
                TargetSpec::Class { .. } | TargetSpec::Tokens { .. },
            ) => {
                if (0.0..1.0).contains(smoothing) {
                    return Ok(());
                }
                let message = format!("found {smoothing}, expected 0 up to, not including, 1");
                Err(Error::config("loss.smoothing", message))
            }
            (Loss::MeanSquaredError, TargetSpec::Values { .. }) => Ok(()),
            (Loss::CrossEntropy { .. }, TargetSpec::Values { .. }) => Err(Error::config(
                "loss",
                "cross_entropy is for classes, and the data set has values",
            )
            .hint("mean_squared_error")),
            (Loss::MeanSquaredError, TargetSpec::Class { .. } | TargetSpec::Tokens { .. }) => {
                Err(Error::config(
                    "loss",
                    "mean_squared_error is for values, and the data set has classes",
                )
                .hint("cross_entropy"))
            }
        }
    }

    /// Adds the loss of `output` (`f32[n, d]`) against `target` (`u32[n]` for cross-entropy, else
    /// `f32[n, d]`) under the scope `loss`; `gradient` asks for the gradient of the mean as well. Of text, each of a
    /// sample's so many `tokens` has a row of its own, and nothing is asked about which of them are right.
    ///
    /// # Errors
    /// When shapes or types do not fit.
    pub fn build(
        &self,
        graph: &mut Graph,
        output: TensorId,
        target: TensorId,
        header: TensorId,
        gradient: bool,
        tokens: Option<usize>,
    ) -> Result<LossTensors> {
        let outer = graph.scope().to_string();
        graph.set_scope("loss");
        let inputs = [output, target, header];
        let tensors = self.build_scoped(graph, inputs, gradient, tokens);
        graph.set_scope(outer);
        tensors
    }

    /// As [`Loss::build`], of a batch that was mixed as `mix` says ([`Op::MixDraw`](crate::graph::op::Op::MixDraw)).
    /// Right is a prediction that meets the sample's own class, as if nothing had been mixed.
    ///
    /// # Errors
    /// When shapes or types do not fit, and for values, which cannot be mixed.
    pub fn build_mixed(
        &self,
        graph: &mut Graph,
        output: TensorId,
        target: TensorId,
        mix: TensorId,
        header: TensorId,
        gradient: bool,
    ) -> Result<LossTensors> {
        let Loss::CrossEntropy { smoothing } = *self else {
            let message = "mixing takes cross_entropy, found mean_squared_error";
            return Err(Error::graph("loss", message));
        };
        let outer = graph.scope().to_string();
        graph.set_scope("loss");
        let classes = graph.shape(output).last().copied().unwrap_or(0);
        let soften = Op::SoftTarget { smoothing: smoothing as f32, classes };
        let soft = graph.push_one(soften, &[target, mix, header])?;
        let outputs = graph.push(Op::SoftCrossEntropy { gradient }, &[output, soft, header])?;
        let row_correct = Some(graph.push_one(Op::Accuracy, &[output, target, header])?);
        graph.set_scope(outer);
        let output_gradient = outputs.get(1).copied();
        Ok(LossTensors { row_loss: outputs[0], output_gradient, row_correct })
    }

    fn build_scoped(
        &self,
        graph: &mut Graph,
        [output, target, header]: [TensorId; 3],
        gradient: bool,
        tokens: Option<usize>,
    ) -> Result<LossTensors> {
        let (op, dtype) = match *self {
            Loss::CrossEntropy { smoothing } => {
                let (smoothing, per_sample) = (smoothing as f32, tokens.unwrap_or(1));
                (Op::CrossEntropy { smoothing, gradient, per_sample, first: 0 }, DType::U32)
            }
            Loss::MeanSquaredError => (Op::MeanSquaredError { gradient }, DType::F32),
        };
        let found = graph.tensor(target).dtype;
        if found != dtype {
            let message = format!("{} takes targets of {dtype:?}, found {found:?}", op.name());
            return Err(Error::graph("loss", message));
        }
        let outputs = graph.push(op, &[output, target, header])?;
        let row_correct = match self {
            Loss::CrossEntropy { .. } if tokens.is_none() => {
                Some(graph.push_one(Op::Accuracy, &[output, target, header])?)
            }
            Loss::CrossEntropy { .. } | Loss::MeanSquaredError => None,
        };
        let output_gradient = outputs.get(1).copied();
        Ok(LossTensors { row_loss: outputs[0], output_gradient, row_correct })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Role;

    fn build(
        loss: Loss,
        output: &[usize],
        target: (&[usize], DType),
        gradient: bool,
    ) -> Result<(Graph, LossTensors)> {
        let mut graph = Graph::new();
        let output = graph.add_tensor("output", output, DType::F32, Role::Activation);
        let target = graph.add_tensor("target", target.0, target.1, Role::Target);
        let header = graph.header();
        let tensors = loss.build(&mut graph, output, target, header, gradient, None)?;
        Ok((graph, tensors))
    }

    #[test]
    fn classes_get_loss_accuracy_and_gradient() {
        let loss = Loss::CrossEntropy { smoothing: 0.1 };
        let (graph, tensors) = build(loss, &[4, 10], (&[4], DType::U32), true).expect("fits");
        assert_eq!(graph.shape(tensors.row_loss), [4]);
        assert_eq!(graph.shape(tensors.output_gradient.expect("asked for")), [4, 10]);
        assert_eq!(graph.shape(tensors.row_correct.expect("classes")), [4]);
        assert_eq!(graph.scope(), "");
        let (graph, tensors) = build(loss, &[4, 10], (&[4], DType::U32), false).expect("fits");
        assert_eq!((tensors.output_gradient, graph.nodes.len()), (None, 2));
    }

    #[test]
    fn values_get_loss_and_gradient() {
        let (_, tensors) =
            build(Loss::MeanSquaredError, &[4, 3], (&[4, 3], DType::F32), true).expect("fits");
        assert!(tensors.output_gradient.is_some() && tensors.row_correct.is_none());
    }

    #[test]
    fn tokens_get_rows_of_their_own_and_no_accuracy() {
        let mut graph = Graph::new();
        let output = graph.add_tensor("output", &[6, 10], DType::F32, Role::Activation);
        let target = graph.add_tensor("target", &[6], DType::U32, Role::Target);
        let header = graph.header();
        let loss = Loss::CrossEntropy { smoothing: 0.0 };
        let tensors = loss.build(&mut graph, output, target, header, true, Some(3)).expect("fits");
        assert_eq!((graph.shape(tensors.row_loss), tensors.row_correct), (&[6][..], None));
        let op = Op::CrossEntropy { smoothing: 0.0, gradient: true, per_sample: 3, first: 0 };
        assert_eq!(graph.nodes.last().map(|node| node.op), Some(op));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |loss, output: &[usize], target| {
            build(loss, output, target, true).expect_err("must be refused").to_string()
        };
        let entropy = Loss::CrossEntropy { smoothing: 0.0 };
        assert!(error(entropy, &[4, 10], (&[5], DType::U32)).starts_with("graph: loss: "));
        assert!(error(entropy, &[4, 10], (&[4], DType::F32)).contains("targets of U32, found F32"));
        let spec = SampleSpec {
            input_shape: vec![3],
            input_dtype: DType::F32,
            target: TargetSpec::Values { len: 2 },
        };
        assert_eq!(Loss::for_target(&spec), Loss::MeanSquaredError);
        assert!(entropy.validate(&spec).is_err());
        let classes = SampleSpec { target: TargetSpec::Class { classes: 2 }, ..spec };
        assert!(
            entropy.validate(&classes).is_ok()
                && Loss::MeanSquaredError.validate(&classes).is_err()
        );
        assert!(Loss::CrossEntropy { smoothing: f64::NAN }.validate(&classes).is_err());
        assert!(Loss::CrossEntropy { smoothing: 1.0 }.validate(&classes).is_err());
    }
}
