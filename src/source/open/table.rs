//! Tables: CSV and its relatives, JSON lines, Parquet and Arrow IPC.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Candidate, Dataset, Format, OpenOptions};
use crate::error::{Error, Result};
use crate::source::Source;
use crate::source::table::{self, Fitted, Plan, TabularSource};

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
    let train = open_part(path, "train", options, options.fitted)?;
    let test = match options.data().test {
        // Brought by whoever opens data sets, whatever their format.
        Some(_) => None,
        None => test_beside(path),
    };
    let test = test.map(|test| open_part(&test, "test", options, train.fitted())).transpose()?;
    Ok(Dataset { name, path: path.clone(), train, test })
}

/// The file whose name says `test` where that of `path` says `train`, if there is one.
fn test_beside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let is_end = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    let stands_alone = |at: usize| {
        is_end(name[..at].chars().next_back()) && is_end(name[at + 5..].chars().next())
    };
    let (at, _) = name.match_indices("train").filter(|(at, _)| stands_alone(*at)).last()?;
    let test = path.with_file_name(format!("{}test{}", &name[..at], &name[at + 5..]));
    test.is_file().then_some(test)
}

/// One file as a source; encoded as `fitted` says, or else by what is fitted to it.
fn open_part(
    path: &Path,
    part: &str,
    options: &OpenOptions<'_>,
    fitted: Option<&Arc<Fitted>>,
) -> Result<Arc<dyn Source>> {
    let data = options.data();
    let name = format!("{} ({part})", path.display());
    if let Some(fitted) = fitted {
        return open_as(path, fitted, options, true, name);
    }
    let head = table::head(path, data.header)?;
    match table::plan(&head, data)? {
        Plan::Rows(plan) => {
            let rows = table::read(&head, plan.columns.clone(), data.table_bytes())?;
            let asked = data.task.is_some();
            let source = TabularSource::fitted_to(rows, plan, data.classes, asked, name)?;
            Ok(Arc::new(source))
        }
        _ => todo!(),
    }
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
