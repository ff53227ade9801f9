//! What the encoding of a table was fitted to: kept with a model, so that other rows are encoded alike.

use serde::{Deserialize, Serialize};

use crate::batch::{DType, SampleSpec, TargetSpec};

/// The encoding of a table's rows as samples: which columns become which elements of the vector that a model sees,
/// and what the target is. Means, deviations, edges and vocabularies are those of the training part alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Whether the file named its columns; without names they are called `1`, `2`, and so on.
    pub header: bool,
    /// The columns that go in, in order.
    pub features: Vec<Feature>,
    /// What is predicted.
    pub target: FittedTarget,
}

/// A column that goes in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// The name of the column.
    pub column: String,
    /// How its values become elements.
    pub encoding: FeatureEncoding,
}

/// How the values of a column become elements of the vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FeatureEncoding {
    /// A number, as `(x - mean) / std`; a missing one becomes the mean, 0.
    Number {
        /// Mean of the training part.
        mean: f64,
        /// Standard deviation of the training part (divided by n); 1 where the column never changes.
        std: f64,
        /// Whether another element says that the number is missing; only if some were in the training part.
        missing: bool,
    },
    /// A number, as the one of `edges.len() + 1` buckets that it falls into.
    Buckets {
        /// Ascending; a number equal to an edge falls above it.
        edges: Vec<f32>,
        /// As for [`FeatureEncoding::Number`].
        missing: bool,
    },
    /// A category, as one element that is 1 among others that are 0. What has no element of its own leaves all at 0.
    Categories {
        /// Those with an element of their own, the most frequent first.
        values: Vec<String>,
        /// Elements that all others share, by a hash of their bytes; 0: none were left in the training part.
        shared: usize,
        /// Whether missing values have an element of their own; only if some were in the training part.
        missing: bool,
    },
}

/// What is predicted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FittedTarget {
    /// One of these classes.
    Classes {
        /// The name of the column.
        column: String,
        /// The classes, as they stand in the file: whole numbers in their order, names in that of their bytes.
        names: Vec<String>,
    },
    /// A number. The model learns `(x - mean) / std`, so that no target is too large for it; its mean squared error
    /// is then the share of the variance that it leaves unexplained.
    Values {
        /// The name of the column.
        column: String,
        /// Mean of the training part.
        mean: f64,
        /// Standard deviation of the training part.
        std: f64,
    },
}

impl FeatureEncoding {
    /// Elements of the vector.
    pub fn width(&self) -> usize {
        match self {
            Self::Number { missing, .. } => 1 + usize::from(*missing),
            Self::Buckets { edges, missing } => edges.len() + 1 + usize::from(*missing),
            Self::Categories { values, shared, missing } => {
                values.len() + shared + usize::from(*missing)
            }
        }
    }
}

impl FittedTarget {
    /// The name of the target's column.
    pub fn column(&self) -> &str {
        match self {
            Self::Classes { column, .. } | Self::Values { column, .. } => column,
        }
    }

    /// A prediction in the unit of the file; of a class it is the number as it is.
    pub fn in_file_unit(&self, predicted: f32) -> f64 {
        match self {
            Self::Classes { .. } => predicted.into(),
            Self::Values { mean, std, .. } => f64::from(predicted) * std + mean,
        }
    }
}

impl Fitted {
    /// Shape and type of the samples: `f32[features]`.
    pub fn spec(&self) -> SampleSpec {
        let width = self.features.iter().map(|feature| feature.encoding.width()).sum();
        let target = match &self.target {
            FittedTarget::Classes { names, .. } => TargetSpec::Class { classes: names.len() },
            FittedTarget::Values { .. } => TargetSpec::Values { len: 1 },
        };
        SampleSpec { input_shape: vec![width], input_dtype: DType::F32, target }
    }

    /// The names of the classes; none for a number.
    pub fn class_names(&self) -> &[String] {
        match &self.target {
            FittedTarget::Classes { names, .. } => names,
            FittedTarget::Values { .. } => &[],
        }
    }
}
