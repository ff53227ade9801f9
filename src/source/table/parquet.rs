//! Parquet: row groups in parallel, only the columns that are wanted, and one group at a time where all are too large.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use rayon::prelude::*;

use super::arrow::{block, columns, guarded, positions};
use super::block::{Block, Growing, Kind, Table, Wanted, check_rows};
use super::claims::refusal;
use super::head::{Format, Head};
use super::lengths::Unpacked;
use super::pages::damaged;
use super::{footer, pages};
use crate::error::{Error, Result};
use crate::source::blob::{Blob, LocalFile, Stamp};
use crate::source::file::{io_error, unpack_bytes_max};

/// Rows decoded at a time at most, whatever a row group claims to hold.
const BATCH_ROWS_MAX: usize = 1 << 20;

/// So many batches at least make up all that a file may unpack to.
const BATCHES_MIN: u64 = 16;

/// The key of the file's metadata with a JSON list of the names of classes.
const CLASS_NAMES_KEY: &str = "inflight.class_names";

/// The key of what Hugging Face says about columns.
const HUGGING_FACE_KEY: &str = "huggingface";

/// A file whose footer was read.
pub(super) struct Groups {
    path: PathBuf,
    stamp: Stamp,
    metadata: ArrowReaderMetadata,
    /// Rows of all groups.
    rows: u64,
}

impl Groups {
    /// Reads the footer. Text in `as_codes` comes as the dictionary that most files hold it as.
    pub fn open(path: &Path, as_codes: &[usize]) -> Result<Self> {
        guarded(path, || {
            let stamp = Stamp::look(path)?;
            footer::check(path)?;
            let file = File::open(path).map_err(|e| io_error(path, e))?;
            let load = |options| ArrowReaderMetadata::load(&file, options);
            // The types of the file itself, not those of whatever wrote it.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let plain = load(options).map_err(|e| damaged(path).caused_by(e))?;
            let coded =
                load(ArrowReaderOptions::new().with_schema(coded(plain.schema(), as_codes)));
            let metadata = coded.unwrap_or(plain);
            let mut groups = Self { path: path.into(), stamp, metadata, rows: 0 };
            let rows = (0..groups.len()).map(|group| groups.rows(group) as u64);
            groups.rows = rows.fold(0, u64::saturating_add);
            groups.check_all()?;
            Ok(groups)
        })
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of a group, unpacked, as the footer says.
    pub fn bytes(&self, group: usize) -> usize {
        let bytes = self.metadata.metadata().row_group(group).total_byte_size();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Rows of a group.
    pub fn rows(&self, group: usize) -> usize {
        usize::try_from(self.metadata.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    /// Checks that the columns of all groups are no more than the file, and its rows no more than one of its length may have.
    fn check_all(&self) -> Result<()> {
        let columns =
            self.metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
        let bytes = columns.map(|column| column.byte_range().1).fold(0, u64::saturating_add);
        let most = self.stamp.len();
        if bytes > most {
            return Err(refusal(&self.path, most, format_args!("columns of {bytes} bytes"), most));
        }
        check_rows(&self.path, most, self.rows, 1)
    }

    /// A reader of some columns of a group.
    pub fn reader(&self, group: usize, positions: Vec<usize>) -> Result<ParquetRecordBatchReader> {
        let path = &self.path;
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        if Stamp::of(&file.metadata().map_err(|e| io_error(path, e))?) != self.stamp {
            let message = "was changed while it was in use, expected it as it was opened";
            return Err(Error::data(path.display(), message).hint("starting again"));
        }
        let mask = self.mask(&positions);
        let batch_rows = self.check(group, &mask)?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(batch_rows)
            .build()
            .map_err(|e| damaged(path).caused_by(e).within(format!("row group {group}")))
    }

    /// The wanted columns; of those with fields, which hold images, the bytes alone.
    fn mask(&self, positions: &[usize]) -> ProjectionMask {
        let schema = self.metadata.parquet_schema();
        let is_wanted = |&leaf: &usize| {
            let column = schema.column(leaf);
            let is_of_image = column.path().parts().get(1).is_none_or(|field| field == "bytes");
            positions.contains(&schema.get_column_root_idx(leaf)) && is_of_image
        };
        ProjectionMask::leaves(schema, (0..schema.num_columns()).filter(is_wanted))
    }

    /// The most bytes that values of this file may take together.
    pub fn bytes_max(&self) -> u64 {
        unpack_bytes_max(self.stamp.len())
    }

    /// Holds what a group claims against the length of the file, before memory is taken for it; how many rows may be decoded at
    /// a time.
    fn check(&self, group: usize, mask: &ProjectionMask) -> Result<usize> {
        let (path, metadata) = (&self.path, self.metadata.metadata().row_group(group));
        let file = LocalFile::new(path)?;
        let columns = metadata.columns().iter().enumerate();
        let columns: Vec<_> = columns.filter(|(leaf, _)| mask.leaf_included(*leaf)).collect();
        check_rows(path, file.len(), self.rows, columns.len())?;
        let (rows, mut most) = (self.rows(group), BATCH_ROWS_MAX as u64);
        for (_, column) in columns {
            if column.column_descr().max_rep_level() > 0 {
                let message = format!("found lists in {}", column.column_path());
                return Err(Error::data(path.display(), message).hint("leaving the column out"));
            }
            let pages = pages::check(&file, path, column)?;
            let unpacked = || Unpacked::open(path, column, rows);
            if pages.has_deltas {
                unpacked()?.check_deltas()?;
            }
            let longest =
                if pages.has_dictionary { unpacked()?.longest_in_dictionary()? } else { 0 };
            let value_bytes = pages.value_bytes.max(longest);
            most = most.min(self.bytes_max() / BATCHES_MIN / value_bytes);
        }
        Ok(rows.min(most as usize).max(1))
    }

    /// The wanted columns of a group, whose first row is row `first_row` of the file.
    fn block(&self, group: usize, first_row: usize, wanted: &[Wanted]) -> Result<Block> {
        let path = &self.path;
        guarded(path, || {
            let mut all = Growing::default();
            for batch in self.reader(group, positions(wanted))? {
                let batch = batch.map_err(|e| {
                    let message = format!("row group {group} is damaged");
                    Error::data(path.display(), message).caused_by(e)
                })?;
                let rows = first_row + all.rows();
                all.append(block(&batch, wanted, path, rows)?);
            }
            let (found, expected) = (all.rows(), self.rows(group));
            if found != expected {
                let message =
                    format!("found {found} rows in row group {group}, expected {expected}");
                return Err(Error::data(path.display(), message));
            }
            Ok(all.finish())
        })
        .map_err(|e| e.within(format!("row group {group}")))
    }
}

/// The schema with some columns of text as dictionaries.
fn coded(schema: &Schema, as_codes: &[usize]) -> Arc<Schema> {
    let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let field = |(i, field): (usize, &Arc<Field>)| match field.data_type() {
        DataType::Utf8 if as_codes.contains(&i) => {
            Arc::new(field.as_ref().clone().with_data_type(kind.clone()))
        }
        _ => field.clone(),
    };
    let fields: Vec<Arc<Field>> = schema.fields().iter().enumerate().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Says what columns a file has.
pub(super) fn head(path: &Path) -> Result<Head> {
    let groups = Groups::open(path, &[])?;
    let file = groups.metadata.metadata().file_metadata();
    let columns = columns(groups.metadata.schema());
    let value = |key: &str| {
        let pairs = file.key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.as_deref()
    };
    let own = value(CLASS_NAMES_KEY).and_then(|names| serde_json::from_str(names).ok());
    // A file that is written here has one column of classes.
    let own = own.map(|names| vec![(None, names)]);
    let class_names = own.or_else(|| value(HUGGING_FACE_KEY).and_then(hugging_face_names));
    Ok(Head {
        path: path.into(),
        format: Format::Parquet,
        header: true,
        columns,
        class_names: class_names.unwrap_or_default(),
    })
}

/// The names of all columns of classes, as Hugging Face writes them.
fn hugging_face_names(text: &str) -> Option<Vec<(Option<String>, Vec<String>)>> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let features = value.get("info")?.get("features")?.as_object()?;
    let names = |(column, feature): (&String, &serde_json::Value)| {
        let names = serde_json::from_value(feature.get("names")?.clone()).ok()?;
        Some((Some(column.clone()), names))
    };
    Some(features.iter().filter_map(names).collect())
}

/// Reads the wanted columns: all of them into memory if they fit, else group by group as they are needed.
pub(super) fn read(head: &Head, wanted: Vec<Wanted>, memory_bytes: usize) -> Result<Table> {
    read_joined(&head.path, vec![(head.path.clone(), wanted)], memory_bytes)
}

/// As [`read`], of several files, one after the other; the columns wanted of each have the same names and kinds, wherever
/// they stand in it. `path` stands for all of them.
pub(crate) fn read_joined(
    path: &Path,
    files: Vec<(PathBuf, Vec<Wanted>)>,
    memory_bytes: usize,
) -> Result<Table> {
    let open = |(path, wanted): (PathBuf, Vec<Wanted>)| {
        let text = wanted.iter().filter(|column| column.kind == Kind::Text);
        let positions: Vec<usize> = text.map(|column| column.position).collect();
        Ok((Groups::open(&path, &positions)?, wanted))
    };
    let files = files.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    let columns = files[0].1.clone();
    let (mut groups, mut rows, mut firsts, mut total) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (file, (found, _)) in files.iter().enumerate() {
        let first = total;
        firsts.push((first, found.path().to_owned()));
        for group in 0..found.len() {
            groups.push((file, group, total - first));
            rows.push(found.rows(group));
            total = usize::saturating_add(total, found.rows(group));
        }
    }
    if total == 0 {
        return Err(Error::data(path.display(), "found no row, expected at least one"));
    }
    let row_bytes = 4 * columns.len();
    let load = move |(file, group, first_row): (usize, usize, usize)| {
        let (found, wanted) = &files[file];
        found.block(group, first_row, wanted)
    };
    if total.saturating_mul(row_bytes) > memory_bytes {
        let largest = rows.iter().max().copied().unwrap_or(1);
        let most = memory_bytes / largest.saturating_mul(row_bytes).max(1);
        // A group is decoded for each worker that wants one at least.
        let most = most.max(2);
        let load = move |block: usize| load(groups[block]);
        return Ok(Table::loaded(path.into(), columns, rows, most, load).of_files(firsts));
    }
    let blocks: Result<Vec<Block>> = groups.into_par_iter().map(load).collect();
    let mut blocks = blocks?;
    blocks.retain(|block| block.rows() > 0);
    Ok(Table::resident(path.into(), columns, blocks).of_files(firsts))
}
