//! Which columns of a file are used, and as what.

use std::collections::HashSet;

use super::block::{Kind, Wanted};
use super::fitted::{FeatureEncoding, Fitted, FittedTarget};
use super::head::{Column, Format, Head, Look};
use crate::error::{Error, Result};
use crate::source::config::{DataConfig, Task};

/// What is made of a file.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Its rows are the samples.
    Rows(RowPlan),
    /// It lists image files: the columns with paths and with labels.
    Files { path: usize, label: usize },
    /// It holds image files: the columns with their bytes and with labels.
    Images { image: usize, label: usize },
}

/// The columns that become samples.
#[derive(Debug)]
pub(crate) struct RowPlan {
    /// Whether the file names its columns.
    pub header: bool,
    /// What is read: the features, then the target where there is one.
    pub columns: Vec<Wanted>,
    /// How each feature is encoded.
    pub features: Vec<How>,
    /// What the target is; without one nothing but a prediction can be made.
    pub task: Option<Task>,
}

/// How a column is to be encoded, before anything is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Number,
    Buckets(usize),
    Category,
}

/// Names that a target has where none is asked for.
const TARGET_NAMES: [&str; 5] = ["target", "label", "labels", "class", "y"];

/// Buckets of a column at most.
const BUCKETS_MAX: usize = 1024;

/// Columns at most that an error lists.
const LISTED_MAX: usize = 40;

/// Chooses among the columns of a file, as the configuration says and as they look.
///
/// # Errors
/// When a column that is asked for is not there or cannot be used, or no target is to be told.
pub(crate) fn plan(head: &Head, data: &DataConfig) -> Result<Plan> {
    let first = |fits: &dyn Fn(&Look) -> bool| head.columns.iter().position(|c| fits(&c.look));
    if data.columns.is_empty() {
        if let Some(image) = first(&|look| *look == Look::Images) {
            if head.format != Format::Parquet {
                let message = format!(
                    "column {:?} holds images in Arrow IPC, expected such a table as Parquet",
                    head.columns[image].name
                );
                return Err(Error::data(head.path.display(), message)
                    .hint("dataset.to_parquet(\"images.parquet\")"));
            }
            return Ok(Plan::Images { image, label: label(head, data, image)? });
        }
        if let Some(path) = first(&|look| *look == Look::ImagePaths) {
            return Ok(Plan::Files { path, label: label(head, data, path)? });
        }
    }
    rows(head, data).map(Plan::Rows)
}

/// The column with the labels of images.
fn label(head: &Head, data: &DataConfig, image: usize) -> Result<usize> {
    let others: Vec<usize> = (0..head.columns.len()).filter(|&i| i != image).collect();
    match (&data.target, &others[..]) {
        (Some(target), _) => find(head, target, "--target"),
        (None, &[only]) => Ok(only),
        (None, _) => guess_target(head),
    }
}

fn guess_target(head: &Head) -> Result<usize> {
    let named = |column: &Column| TARGET_NAMES.contains(&&*column.name.to_lowercase());
    let found: Vec<usize> = (0..head.columns.len()).filter(|&i| named(&head.columns[i])).collect();
    match found[..] {
        [only] => Ok(only),
        _ => Err(Error::config(
            "--target",
            format!("is needed for {}, which has the columns {}", head.path.display(), list(head)),
        )
        .hint(format!("--target {}", head.columns.last().map_or("last", |column| &column.name)))),
    }
}

fn rows(head: &Head, data: &DataConfig) -> Result<RowPlan> {
    let target = match &data.target {
        Some(target) => find(head, target, "--target")?,
        None => guess_target(head)?,
    };
    let chosen = chosen(head, &data.columns, target)?;
    let as_text = all(head, &data.categorical, "--categorical")?;
    let buckets = buckets(head, &data.bucketize)?;
    let mut columns = Vec::new();
    let mut features = Vec::new();
    for position in chosen {
        let column = &head.columns[position];
        let bucketed = buckets.iter().find(|(at, _)| *at == position);
        let how = match (&column.look, bucketed) {
            (Look::Images, _) | (Look::Other(_), _) => {
                let found = match &column.look {
                    Look::Other(found) => found,
                    _ => "images",
                };
                let message = format!("holds {found}, expected numbers or text");
                let item = format!("{} column {}", head.path.display(), column.name);
                let hint = format!("--columns=-{}", column.name);
                return Err(Error::data(item, message).hint(hint));
            }
            (_, Some(&(_, buckets))) => How::Buckets(buckets),
            (Look::Numbers { .. }, None) if !as_text.contains(&position) => How::Number,
            _ => How::Category,
        };
        let kind = if how == How::Category { Kind::Text } else { Kind::Number };
        columns.push(Wanted { position, name: column.name.clone(), kind });
        features.push(how);
    }
    let column = &head.columns[target];
    let task = data.task.unwrap_or(match column.look {
        Look::Numbers { whole: false } => Task::Regress,
        _ => Task::Classify,
    });
    let kind = if task == Task::Classify { Kind::Text } else { Kind::Number };
    columns.push(Wanted { position: target, name: column.name.clone(), kind });
    Ok(RowPlan { header: head.header, columns, features, task: Some(task) })
}

/// The columns that go in: those that are listed, or all but the target and those that are listed with a minus.
fn chosen(head: &Head, list: &[String], target: usize) -> Result<Vec<usize>> {
    let (mut include, mut exclude) = (Vec::new(), vec![target]);
    for entry in list {
        // A name may itself begin with a minus.
        let whole = head.columns.iter().position(|column| column.name == *entry);
        match (whole, entry.strip_prefix('-')) {
            (Some(at), _) => include.push(at),
            (None, Some(name)) => exclude.push(find(head, name, "--columns")?),
            (None, None) => include.push(find(head, entry, "--columns")?),
        }
    }
    if include.is_empty() {
        // A column without a name is the number of the row, as pandas writes it.
        include = (0..head.columns.len()).filter(|&i| !head.columns[i].name.is_empty()).collect();
    }
    let mut seen = HashSet::new();
    include.retain(|at| !exclude.contains(at) && seen.insert(*at));
    if include.is_empty() {
        let message = format!("leaves no column of {}", head.path.display());
        return Err(Error::config("--columns", message).hint("columns other than the target"));
    }
    Ok(include)
}

fn all(head: &Head, list: &[String], flag: &str) -> Result<Vec<usize>> {
    list.iter().map(|name| find(head, name, flag)).collect()
}

/// Reads `age:10`.
fn buckets(head: &Head, list: &[String]) -> Result<Vec<(usize, usize)>> {
    let read = |entry: &String| {
        let (name, count) = entry.rsplit_once(':').unwrap_or((entry, ""));
        match count.parse() {
            Ok(count) if (2..=BUCKETS_MAX).contains(&count) => {
                Ok((find(head, name, "--bucketize")?, count))
            }
            _ => {
                let message =
                    format!("found {entry:?}, expected a column and 2 to {BUCKETS_MAX} buckets");
                Err(Error::config("--bucketize", message).hint("--bucketize age:10"))
            }
        }
    };
    list.iter().map(read).collect()
}

/// A column by its name, its number from 1 on, or `last`.
fn find(head: &Head, name: &str, flag: &str) -> Result<usize> {
    let count = head.columns.len();
    let named = head.columns.iter().position(|column| column.name == name);
    let numbered = || name.parse().ok().filter(|number| (1..=count).contains(number));
    let last = || Some(count).filter(|&count| name == "last" && count > 0);
    named.or_else(|| numbered().or_else(last).map(|number| number - 1)).ok_or_else(|| {
        let message = format!("found no column {name:?} in {}", head.path.display());
        Error::config(flag, message).hint(format!("one of {}", list(head)))
    })
}

/// The columns in words.
fn list(head: &Head) -> String {
    if !head.header {
        return format!("1 to {} (it does not name them)", head.columns.len());
    }
    let names: Vec<&str> = head.columns.iter().map(|column| &*column.name).collect();
    match names.len().checked_sub(LISTED_MAX) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..LISTED_MAX].join(", ")),
    }
}

/// The columns of a plan for the file `first` in another file of the same table, which may have them in another order.
/// Where `all` columns go in, it must not have more of them.
///
/// # Errors
/// When one is missing, is too many or holds something else.
pub(crate) fn columns_like(
    head: &Head,
    first: &Head,
    plan: &RowPlan,
    all: bool,
) -> Result<Vec<Wanted>> {
    let wrong = |column: &str, message: String| {
        Err(Error::data(format!("{} column {column}", head.path.display()), message)
            .hint("files of the same columns in a folder"))
    };
    let position = |head: &Head, name: &str| head.columns.iter().position(|c| c.name == name);
    let of_first = first.path.display();
    let extra = head.columns.iter().find(|column| position(first, &column.name).is_none());
    if let Some(extra) = extra.filter(|_| all) {
        return wrong(&extra.name, format!("is not in {of_first}, expected the same columns"));
    }
    let mut columns = plan.columns.clone();
    for column in &mut columns {
        let expected = &first.columns[column.position].look;
        let Some(at) = position(head, &column.name) else {
            return wrong(&column.name, format!("is missing, expected it as in {of_first}"));
        };
        let found = &head.columns[at].look;
        // Where they are read as numbers, whole ones are numbers too.
        let numbers = column.kind == Kind::Number
            && matches!((found, expected), (Look::Numbers { .. }, Look::Numbers { .. }));
        if found != expected && !numbers {
            let (found, expected) = (found.words(), expected.words());
            let message = format!("holds {found}, expected {expected} as in {of_first}");
            return wrong(&column.name, message);
        }
        column.position = at;
    }
    Ok(columns)
}

/// Finds the columns that a model was fitted to in another file. `target` says whether the target must be there too.
///
/// # Errors
/// When one is missing.
pub(crate) fn plan_as(head: &Head, fitted: &Fitted, target: bool) -> Result<RowPlan> {
    let position = |name: &str| {
        head.columns.iter().position(|column| column.name == name).ok_or_else(|| {
            let message = format!("found no column {name:?}, which the model was trained with");
            Error::data(head.path.display(), message)
                .hint(format!("one with it, besides {}", list(head)))
        })
    };
    let mut columns = Vec::new();
    let mut features = Vec::new();
    for feature in &fitted.features {
        let how = match &feature.encoding {
            FeatureEncoding::Number { .. } => How::Number,
            FeatureEncoding::Buckets { edges, .. } => How::Buckets(edges.len() + 1),
            FeatureEncoding::Categories { .. } => How::Category,
        };
        let kind = if how == How::Category { Kind::Text } else { Kind::Number };
        let (position, name) = (position(&feature.column)?, feature.column.clone());
        columns.push(Wanted { position, name, kind });
        features.push(how);
    }
    let mut task = None;
    if target {
        let (kind, found) = match &fitted.target {
            FittedTarget::Classes { .. } => (Kind::Text, Task::Classify),
            FittedTarget::Values { .. } => (Kind::Number, Task::Regress),
        };
        let name = fitted.target.column().to_string();
        columns.push(Wanted { position: position(&name)?, name, kind });
        task = Some(found);
    }
    Ok(RowPlan { header: head.header, columns, features, task })
}
