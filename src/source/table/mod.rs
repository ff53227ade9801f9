//! Tables: files of rows with named columns, of which some become the samples and one the target.
//!
//! The way of a table: `head` says what columns a file has, by a look at its first rows or at its schema; `plan`
//! chooses among them; a reader, one file a format, brings the chosen ones into compact blocks; `fit` learns means
//! and categories from the training rows; [`TabularSource`] encodes rows by what was learned. A table may as well list
//! image files with their labels (`listed`), or hold the images themselves (`embedded`).

#[cfg(feature = "parquet")]
mod arrow;
mod block;
mod cells;
#[cfg(feature = "parquet")]
mod claims;
mod delimited;
#[cfg(feature = "parquet")]
mod embedded;
mod encode;
mod fit;
mod fitted;
#[cfg(feature = "parquet")]
mod footer;
mod head;
mod images;
mod json_lines;
#[cfg(feature = "parquet")]
mod kept;
mod labels;
#[cfg(feature = "parquet")]
mod lengths;
mod listed;
#[cfg(feature = "parquet")]
mod pages;
#[cfg(feature = "parquet")]
mod parquet;
mod pieces;
mod plan;
mod read;
#[cfg(feature = "parquet")]
mod thrift;

#[cfg(feature = "parquet")]
pub(crate) use block::Block;
pub(crate) use block::{Kind, Table, Wanted};
#[cfg(feature = "parquet")]
pub(crate) use embedded::EmbeddedFiles;
pub use encode::TabularSource;
pub use fitted::{Feature, FeatureEncoding, Fitted, FittedTarget};
#[cfg(feature = "parquet")]
pub(crate) use head::Format;
pub(crate) use head::{Head, binary, head};
pub(crate) use images::{Files, LabelledImages};
pub(crate) use labels::{Asked, Labels, class_numbers};
pub(crate) use listed::ListedFiles;
pub(crate) use plan::{Plan, RowPlan, columns_like, plan, plan_as};
pub(crate) use read::{read, read_joined};
