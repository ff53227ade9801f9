//! Tables: files of rows with named columns, of which some become the samples and one the target.

mod fitted;

pub use fitted::{Feature, FeatureEncoding, Fitted, FittedTarget};
