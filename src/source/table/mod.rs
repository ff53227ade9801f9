//! Tables: files of rows with named columns, of which some become the samples and one the target.
//!
//! The way of a table: [`head`] says what columns a file has, by a look at its first rows or at its schema; [`plan`]
//! chooses among them; a reader, one file a format, brings the chosen ones into compact [`Block`]s; [`fit`] learns means
//! and categories from the training rows; [`TabularSource`] encodes rows by what was learned. A table may as well list
//! image files with their labels ([`files`]), or hold the images themselves ([`images`]).

#[cfg(feature = "parquet")]
mod arrow;
mod block;
mod cells;
mod delimited;
mod encode;
mod fit;
mod fitted;
mod head;
mod json_lines;
#[cfg(feature = "parquet")]
mod kept;
mod labels;
#[cfg(feature = "parquet")]
mod parquet;
mod pieces;
mod plan;
mod read;

pub use encode::TabularSource;
pub use fitted::{Feature, FeatureEncoding, Fitted, FittedTarget};
pub(crate) use head::{binary, head};
pub(crate) use plan::{Plan, plan, plan_as};
pub(crate) use read::read;
