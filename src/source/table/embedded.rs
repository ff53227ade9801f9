//! Image files that a Parquet table holds, in a column of bytes or of structs with a field `bytes`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, LargeBinaryArray};
use arrow_cast::cast;
use arrow_schema::DataType;

use super::arrow::guarded;
use super::images::Files;
use super::kept::Kept;
use super::parquet::Groups;
use crate::error::{Error, Result};

/// Row groups in memory at most where nothing is known of their size: one a worker and one to come.
const GROUPS_MIN: usize = 2;

/// The images in a column of a file, row group by row group as they are needed.
pub(crate) struct EmbeddedFiles {
    path: PathBuf,
    /// The first row of each group, and the number of rows.
    starts: Vec<usize>,
    groups: Kept<Group>,
}

/// The images of a row group, in one or more arrays.
struct Group(Vec<LargeBinaryArray>);

impl EmbeddedFiles {
    /// The images in a column; as many row groups stay in memory as `memory_bytes` holds.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path, position: usize, memory_bytes: usize) -> Result<Self> {
        let file = Arc::new(Groups::open(path, &[])?);
        let mut starts = vec![0];
        (0..file.len()).for_each(|group| starts.push(starts[group] + file.rows(group)));
        let largest = (0..file.len()).map(|group| file.bytes(group)).max().unwrap_or(1);
        let most = (memory_bytes / largest.max(1)).max(GROUPS_MIN);
        let groups = Kept::new(most, move |group| read(&file, group, position));
        Ok(Self { path: path.into(), starts, groups })
    }
}

/// Reads the images of a row group.
fn read(file: &Groups, group: usize, position: usize) -> Result<Group> {
    let path = file.path();
    guarded(path, || {
        let (mut arrays, mut taken) = (Vec::new(), 0);
        for batch in file.reader(group, vec![position])? {
            let damaged = |e| {
                let message = format!("row group {group} is damaged");
                Error::data(path.display(), message).caused_by(e)
            };
            let batch = batch.map_err(damaged)?;
            let column = batch.column(0);
            let bytes = match column.as_struct_opt() {
                Some(fields) => {
                    fields.column_by_name("bytes").cloned().unwrap_or_else(|| column.clone())
                }
                None => column.clone(),
            };
            // Casting what is binary copies only where each value ends.
            let array = cast(&bytes, &DataType::LargeBinary).map_err(damaged)?;
            let array = array.as_binary::<i64>().clone();
            // One value can stand in a dictionary for all rows.
            taken += array.get_array_memory_size() as u64;
            if taken > file.bytes_max() {
                let message = format!(
                    "row group {group} unpacks to over {} bytes, more than a file of its length may",
                    file.bytes_max()
                );
                return Err(Error::data(path.display(), message).hint("smaller row groups"));
            }
            arrays.push(array);
        }
        Ok(Group(arrays))
    })
}

impl Files for EmbeddedFiles {
    fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn origin(&self, index: usize) -> String {
        format!("{} row {}", self.path.display(), index + 1)
    }

    fn file_of(&self, index: usize) -> (PathBuf, u64) {
        (self.path.clone(), index as u64)
    }

    fn read(&self, index: usize, into: &mut Vec<u8>) -> Result<()> {
        let group = self.starts.partition_point(|&start| start <= index) - 1;
        let mut row = index - self.starts[group];
        let images = self.groups.get(group)?;
        let array = images.0.iter().find(|array| {
            let here = row < array.len();
            row -= if here { 0 } else { array.len() };
            here
        });
        match array {
            Some(array) if array.is_valid(row) => {
                into.clear();
                into.extend_from_slice(array.value(row));
                Ok(())
            }
            Some(_) => {
                Err(Error::data(self.origin(index), "found no image, expected one in every row"))
            }
            None => {
                Err(Error::data(self.origin(index), "found fewer rows than its row group says"))
            }
        }
    }
}
