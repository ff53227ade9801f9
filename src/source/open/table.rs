//! Tables: CSV and its relatives, JSON lines, Parquet and Arrow IPC.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Candidate, Dataset, Format, OpenOptions};
use crate::error::{Error, Result};
use crate::source::table::{
    self, Asked, Files, Fitted, Head, Kind, LabelledImages, Labels, ListedFiles, Plan, RowPlan,
    Table, TabularSource, Wanted,
};
use crate::source::{DataConfig, Source, Task};

pub(super) const FORMAT: Format =
    Format { what: "a table (.csv, .tsv, .jsonl, .parquet, .arrow)", claims, open };

/// Ends of names of tables that are text, which by its content may be anything.
const TEXT_EXTENSIONS: [&str; 6] = [".csv", ".tsv", ".psv", ".jsonl", ".ndjson", ".data"];

fn claims(candidate: &Candidate) -> Result<bool> {
    if candidate.is_folder {
        return Ok(false);
    }
    let text = TEXT_EXTENSIONS.iter().any(|extension| {
        candidate.has_extension(extension) || candidate.has_extension(&format!("{extension}.gz"))
    });
    Ok(text || table::binary(&candidate.path, &candidate.head).is_some())
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    let name = path.display().to_string();
    let train = open_part(path, "train", options, options.fitted, None, None)?;
    let test = match options.data().test {
        // Brought by whoever opens data sets, whatever their format.
        Some(_) => None,
        None => test_beside(path),
    };
    let test = test
        .map(|test| open_part(&test, "test", options, train.fitted(), Some(&*train), None))
        .transpose()?;
    Ok(Dataset::new(name, path, train, test))
}

/// The file whose name says `test` where that of `path` says `train`, if there is one.
fn test_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let is_end = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    let stands_alone =
        |at: usize| is_end(name[..at].chars().next_back()) && is_end(name[at + 5..].chars().next());
    let (at, _) = name.match_indices("train").filter(|(at, _)| stands_alone(*at)).last()?;
    let test = path.with_file_name(format!("{}test{}", &name[..at], &name[at + 5..]));
    test.is_file().then_some(test)
}

/// One file as a source; encoded as `fitted` says, or else by what is fitted to it. Images take shape and classes of
/// `train`. There are so many `classes` where they have no names and the file does not say.
pub(super) fn open_part(
    path: &Path,
    part: &str,
    options: &OpenOptions<'_>,
    fitted: Option<&Arc<Fitted>>,
    train: Option<&dyn Source>,
    classes: Option<usize>,
) -> Result<Arc<dyn Source>> {
    let data = options.data();
    let name = format!("{} ({part})", path.display());
    if let Some(fitted) = fitted {
        return open_as(path, fitted, options, true, name);
    }
    let head = head(path, data.header, classes)?;
    match table::plan(&head, data)? {
        Plan::Rows(plan) => {
            let rows = table::read(&head, plan.columns.clone(), data.table_bytes())?;
            Ok(Arc::new(fitted_to(rows, plan, &head, data, name)?))
        }
        Plan::Files { path: column, label } => {
            let folder = || path.parent().unwrap_or(Path::new(".")).to_owned();
            let root = data.image_root.clone().unwrap_or_else(folder);
            let table = table::read(&head, texts(&head, [column, label]), data.table_bytes())?;
            let labels = labels(&table, 1, &head, data, train)?;
            images(ListedFiles::new(&table, root)?, labels, data, train, name)
        }
        Plan::Images { image, label } => {
            let table = table::read(&head, texts(&head, [label]), data.table_bytes())?;
            let labels = labels(&table, 0, &head, data, train)?;
            embedded(path, image, labels, data, train, name)
        }
    }
}

/// What columns a file has. Shards of earlier versions say nothing of classes without names, of which there are so many.
fn head(path: &Path, header: Option<bool>, classes: Option<usize>) -> Result<Head> {
    let mut head = table::head(path, header)?;
    if let Some(classes) = classes
        && head.class_names.iter().all(|(_, names)| names.is_empty())
    {
        head.class_names = vec![(None, table::class_numbers(classes))];
    }
    Ok(head)
}

/// Rows, encoded by what is fitted to them. A file that was written here says which classes there are.
fn fitted_to(
    rows: Table,
    plan: RowPlan,
    head: &Head,
    data: &DataConfig,
    name: String,
) -> Result<TabularSource> {
    let classes = data.classes.or(head.classes());
    let asked = data.task.is_some() || head.classes().is_some();
    TabularSource::fitted_to(rows, plan, classes, asked, name)
}

/// Several Parquet files of a folder, in this order, as one table, encoded as `fitted` says or else by what is fitted to
/// all of them. None if what they hold is images. For `classes` see [`open_part`].
pub(super) fn open_joined(
    folder: &Path,
    files: &[PathBuf],
    part: &str,
    options: &OpenOptions<'_>,
    fitted: Option<&Arc<Fitted>>,
    classes: Option<usize>,
) -> Result<Option<Arc<dyn Source>>> {
    let data = options.data();
    let heads = files.iter().map(|path| head(path, None, classes)).collect::<Result<Vec<_>>>()?;
    let Some(first) = heads.first() else { return Ok(None) };
    let plan = match fitted {
        Some(fitted) => table::plan_as(first, fitted, true)?,
        None => match table::plan(first, data)? {
            Plan::Rows(plan) => plan,
            Plan::Files { .. } | Plan::Images { .. } => return Ok(None),
        },
    };
    let all = fitted.is_none() && data.columns.is_empty();
    let columns =
        |head: &Head| Ok((head.path.clone(), table::columns_like(head, first, &plan, all)?));
    let columns = heads.iter().map(columns).collect::<Result<Vec<_>>>()?;
    let rows = table::read_joined(folder, columns, data.table_bytes())?;
    let name = format!("{} ({part})", folder.display());
    let source = match fitted {
        Some(fitted) => TabularSource::encoded_by(rows, plan, fitted.clone(), name)?,
        None => fitted_to(rows, plan, first, data, name)?,
    };
    Ok(Some(Arc::new(source)))
}

/// Columns that are read as text.
fn texts<const N: usize>(head: &Head, positions: [usize; N]) -> Vec<Wanted> {
    let wanted = |position: usize| {
        let name = head.columns[position].name.clone();
        Wanted { position, name, kind: Kind::Text }
    };
    positions.map(wanted).to_vec()
}

fn labels(
    table: &Table,
    column: usize,
    head: &Head,
    data: &DataConfig,
    train: Option<&dyn Source>,
) -> Result<Labels> {
    let asked = Asked {
        // Classes without an image have no name.
        count: None,
        classify: data.task == Some(Task::Classify),
        numbered: head.class_names_of(&table.columns[column].name),
        known: train.map(|train| &train.info().class_names[..]),
    };
    Labels::of(table, column, &asked)
}

fn images(
    files: impl Files + 'static,
    labels: Labels,
    data: &DataConfig,
    train: Option<&dyn Source>,
    name: String,
) -> Result<Arc<dyn Source>> {
    let like = train.map(|train| train.spec());
    Ok(Arc::new(LabelledImages::new(files, labels, data, like, name)?))
}

#[cfg(feature = "parquet")]
fn embedded(
    path: &Path,
    column: usize,
    labels: Labels,
    data: &DataConfig,
    train: Option<&dyn Source>,
    name: String,
) -> Result<Arc<dyn Source>> {
    let files = table::EmbeddedFiles::open(path, column, data.table_bytes())?;
    images(files, labels, data, train, name)
}

#[cfg(not(feature = "parquet"))]
fn embedded(
    _path: &Path,
    _column: usize,
    _labels: Labels,
    _data: &DataConfig,
    _train: Option<&dyn Source>,
    _name: String,
) -> Result<Arc<dyn Source>> {
    unreachable!("only Parquet has columns of images, and it was refused")
}

fn open_as(
    path: &Path,
    fitted: &Arc<Fitted>,
    options: &OpenOptions<'_>,
    target: bool,
    name: String,
) -> Result<Arc<dyn Source>> {
    let head = table::head(path, Some(fitted.header))?;
    let plan = table::plan_as(&head, fitted, target)?;
    let rows = table::read(&head, plan.columns.clone(), options.data().table_bytes())?;
    Ok(Arc::new(TabularSource::encoded_by(rows, plan, fitted.clone(), name)?))
}

/// The rows of a table that a model is to predict for, encoded as those that it was trained on. They need no target.
///
/// # Errors
/// When the file is no table, or a column that the model was trained with is missing or holds something else.
pub fn open_rows(
    path: &Path,
    fitted: &Arc<Fitted>,
    options: &OpenOptions<'_>,
) -> Result<Arc<dyn Source>> {
    if path.is_dir() {
        return Err(Error::data(path.display(), "is a folder, expected a table"));
    }
    open_as(path, fitted, options, false, path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_part_lies_beside_the_training_part() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let beside = |train: &str, test: &str| {
            std::fs::write(dir.path().join(test), "x").expect("writes");
            let found = test_beside(&dir.path().join(train));
            std::fs::remove_file(dir.path().join(test)).expect("removes");
            found.is_some()
        };
        assert!(beside("adult-train.csv", "adult-test.csv"));
        assert!(beside("train.csv.gz", "test.csv.gz"));
        assert!(beside("a_train.parquet", "a_test.parquet"));
        assert!(!beside("training.csv", "testing.csv"));
        assert!(!beside("train.csv", "test.tsv"));
        assert!(!beside("rows.csv", "test.csv"));
    }
}
