//! Arrow IPC, as files and as streams; and Arrow's arrays as blocks.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_ipc::reader::{FileReader, FileReaderBuilder, StreamReader};
use arrow_schema::{ArrowError, DataType, Schema};
use rayon::prelude::*;

use super::block::{Block, Kind, MISSING, Table, Wanted};
use super::cells::{is_missing, number, shown};
use super::claims;
use super::head::{Column, Format, Head, Look};
use crate::error::{Error, Result};
use crate::source::file::{io_error, unpack_bytes_max};

/// The error of a file that Arrow's readers refuse.
fn damaged(path: &Path, error: ArrowError) -> Error {
    Error::data(path.display(), "is damaged, cut short or no Arrow IPC").caused_by(error)
}

/// Runs a reader of files that anybody may have written; a panic of it is an error.
pub(super) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(Error::data(path.display(), "is damaged: its reader gave up").hint("writing it again"))
    })
}

/// Says what columns a file has.
pub(super) fn head(path: &Path, format: Format) -> Result<Head> {
    let schema = guarded(path, || {
        claims::check(path, format)?;
        let file = File::open(path).map_err(|e| io_error(path, e))?;
        let schema = match format {
            Format::ArrowFile => FileReader::try_new_buffered(file, None).map(|r| r.schema()),
            _ => StreamReader::try_new_buffered(file, None).map(|r| r.schema()),
        };
        schema.map_err(|e| damaged(path, e))
    })?;
    let (path, columns) = (path.into(), columns(&schema));
    Ok(Head { path, format, header: true, columns, class_names: Vec::new() })
}

/// The columns of a schema.
pub(super) fn columns(schema: &Schema) -> Vec<Column> {
    let column = |field: &std::sync::Arc<arrow_schema::Field>| {
        let name = field.name().clone();
        let look = match field.data_type() {
            DataType::Struct(fields) if fields.iter().any(|f| f.name() == "bytes") => Look::Images,
            data_type if data_type.is_binary() && name == "image" => Look::Images,
            data_type => look(data_type),
        };
        Column { name, look }
    };
    schema.fields().iter().map(column).collect()
}

fn look(data_type: &DataType) -> Look {
    match data_type {
        DataType::Dictionary(_, values) => look(values),
        DataType::Boolean => Look::Text,
        t if t.is_string() => Look::Text,
        t if t.is_integer() => Look::Numbers { whole: true },
        t if t.is_floating() || t.is_decimal() || t.is_temporal() => Look::Numbers { whole: false },
        DataType::Null => Look::Numbers { whole: false },
        other => Look::Other(other.to_string()),
    }
}

/// Reads a file or stream.
pub(super) fn read(head: &Head, wanted: Vec<Wanted>, memory_bytes: usize) -> Result<Table> {
    let path = &head.path;
    if head.format == Format::ArrowStream {
        let blocks = guarded(path, || stream(path, &wanted))?;
        return resident(path, wanted, blocks);
    }
    let batches = guarded(path, || Ok(file_reader(path, &wanted)?.num_batches()))?;
    let bytes = bytes(path)?;
    let room = Room::of(bytes);
    if bytes > memory_bytes as u64 {
        return loaded(path, wanted, batches, memory_bytes);
    }
    // Each task opens the file for itself and reads a run of batches.
    let run = batches.div_ceil(rayon::current_num_threads()).max(1);
    let starts: Vec<usize> = (0..batches).step_by(run).collect();
    let runs: Result<Vec<Vec<Block>>> = starts
        .into_par_iter()
        .map(|start| {
            guarded(path, || {
                let mut reader = file_reader(path, &wanted)?;
                reader.set_index(start).map_err(|e| damaged(path, e))?;
                let batches = reader.take(run.min(batches - start));
                let numbered = (start..).zip(batches);
                // How many rows the batches before have is known to whoever reads those.
                let convert = |(number, batch)| {
                    let block = converted(path, batch, &wanted, 0);
                    let block = block.and_then(|block| room.take(path, block));
                    block.map_err(|e| e.within(format!("batch {number}")))
                };
                numbered.map(convert).collect()
            })
        })
        .collect();
    let blocks = runs?.into_iter().flatten().collect();
    resident(path, wanted, blocks)
}

fn bytes(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).map_err(|e| io_error(path, e))?.len())
}

/// What the texts of a file's blocks may take: each block may have all those of a dictionary that the file holds once.
struct Room {
    bytes: u64,
    taken: AtomicU64,
}

impl Room {
    fn of(file_bytes: u64) -> Self {
        Self { bytes: unpack_bytes_max(file_bytes), taken: AtomicU64::new(0) }
    }

    fn take(&self, path: &Path, block: Block) -> Result<Block> {
        let bytes = block.text_bytes() as u64;
        if self.taken.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.bytes {
            let message = format!(
                "claims texts of over {} bytes, more than a file of its length may",
                self.bytes
            );
            return Err(Error::data(path.display(), message).hint("larger batches"));
        }
        Ok(block)
    }
}

fn resident(path: &Path, wanted: Vec<Wanted>, mut blocks: Vec<Block>) -> Result<Table> {
    blocks.retain(|block| block.rows() > 0);
    if blocks.is_empty() {
        return Err(Error::data(path.display(), "found no row, expected at least one"));
    }
    Ok(Table::resident(path.into(), wanted, blocks))
}

/// A table that is too large for memory. How many rows each batch has is not known before it was read once.
fn loaded(path: &Path, wanted: Vec<Wanted>, batches: usize, memory_bytes: usize) -> Result<Table> {
    let rows: Vec<usize> = guarded(path, || {
        let reader = file_reader(path, &wanted[..1])?;
        let rows = |batch: Result<RecordBatch, ArrowError>| {
            batch.map(|batch| batch.num_rows()).map_err(|e| damaged(path, e))
        };
        reader.map(rows).collect()
    })?;
    if rows.len() != batches || rows.contains(&0) {
        return Err(Error::data(path.display(), "found an empty batch, expected rows in each"));
    }
    let largest = rows.iter().max().copied().unwrap_or(1);
    let most = memory_bytes / (4 * largest * wanted.len()).max(1);
    let (path_again, columns, counts) = (path.to_owned(), wanted.clone(), rows.clone());
    let load = move |number: usize| {
        guarded(&path_again, || {
            let mut reader = file_reader(&path_again, &columns)?;
            reader.set_index(number).map_err(|e| damaged(&path_again, e))?;
            let batch =
                reader.next().unwrap_or_else(|| Err(ArrowError::ParseError("no batch".into())));
            converted(&path_again, batch, &columns, counts[..number].iter().sum())
        })
    };
    Ok(Table::loaded(path.into(), wanted, rows, most.max(2), load))
}

fn file_reader(path: &Path, wanted: &[Wanted]) -> Result<FileReader<BufReader<File>>> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    FileReaderBuilder::new()
        .with_projection(positions(wanted))
        .build(BufReader::new(file))
        .map_err(|e| damaged(path, e))
}

fn stream(path: &Path, wanted: &[Wanted]) -> Result<Vec<Block>> {
    let file = File::open(path).map_err(|e| io_error(path, e))?;
    let reader = StreamReader::try_new_buffered(file, Some(positions(wanted)))
        .map_err(|e| damaged(path, e))?;
    let (mut rows, room) = (0, Room::of(bytes(path)?));
    let convert = |batch| {
        let block = room.take(path, converted(path, batch, wanted, rows)?)?;
        rows += block.rows();
        Ok(block)
    };
    reader.map(convert).collect()
}

fn converted(
    path: &Path,
    batch: Result<RecordBatch, ArrowError>,
    wanted: &[Wanted],
    first_row: usize,
) -> Result<Block> {
    block(&batch.map_err(|e| damaged(path, e))?, wanted, path, first_row)
}

/// The places of the wanted columns in the file, ascending: the order in which a reader delivers them.
pub(super) fn positions(wanted: &[Wanted]) -> Vec<usize> {
    let mut positions: Vec<usize> = wanted.iter().map(|column| column.position).collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// The wanted columns of a batch that holds just these, in the order of the file.
///
/// # Errors
/// When a value is not what its column holds; `first_row` is the number of the first row, from 0.
pub(super) fn block(
    batch: &RecordBatch,
    wanted: &[Wanted],
    path: &Path,
    first_row: usize,
) -> Result<Block> {
    let positions = positions(wanted);
    let (width, rows) = (wanted.len(), batch.num_rows());
    let mut block = Block { width, cells: vec![0; rows * width], vocabularies: Vec::new() };
    for (at, column) in wanted.iter().enumerate() {
        let array = batch.column(positions.partition_point(|&p| p < column.position));
        let mut cells = block.cells.iter_mut().skip(at).step_by(width);
        let mut set = |cell: u32| *cells.next().expect("a cell a row") = cell;
        let item = || format!("{} column {}", path.display(), column.name);
        let vocabulary = match column.kind {
            Kind::Number => {
                numbers(array, first_row, &mut set).map_err(|e| e.within(item()))?;
                Vec::new()
            }
            Kind::Text => texts(array, &mut set).map_err(|e| e.within(item()))?,
        };
        block.vocabularies.push(vocabulary);
    }
    Ok(block)
}

fn to(array: &dyn Array, data_type: &DataType) -> Result<ArrayRef> {
    cast(array, data_type).map_err(|e| {
        let message = format!("found {}, which does not become {data_type}", array.data_type());
        Error::data("values", message).caused_by(e)
    })
}

/// A column as numbers.
fn numbers(array: &ArrayRef, first_row: usize, set: &mut impl FnMut(u32)) -> Result<()> {
    let refuse = |row: usize, found: String| {
        let message = format!("found {found}, expected a number");
        Err(Error::data(format!("row {}", first_row + row + 1), message).hint("--categorical"))
    };
    let data_type = array.data_type();
    let is_text =
        |t: &DataType| matches!(t, DataType::Dictionary(_, v) if v.is_string()) || t.is_string();
    if is_text(data_type) {
        return each_text(array, |row, text| {
            let text = text.trim_ascii().as_bytes();
            match number(text) {
                Some(number) => set(number.to_bits()),
                None if is_missing(text) => set(f32::NAN.to_bits()),
                None => return refuse(row, shown(text)),
            }
            Ok(())
        });
    }
    // Times are counted from 1970 in their own unit.
    let array =
        if data_type.is_temporal() { to(array, &time_as(data_type))? } else { array.clone() };
    let array = to(&array, &DataType::Float32)?;
    for (row, number) in array.as_primitive::<Float32Type>().iter().enumerate() {
        let number = number.unwrap_or(f32::NAN);
        if number.is_infinite() {
            return refuse(row, number.to_string());
        }
        set(number.to_bits());
    }
    Ok(())
}

/// Calls `f` with the row and the text of each value; nothing where there is none. One that stands in a dictionary is not copied
/// for each of its rows.
fn each_text(array: &ArrayRef, mut f: impl FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let Some(dictionary) = array.as_any_dictionary_opt() else {
        let array = utf8(array)?;
        let texts = array.as_string::<i32>().iter().enumerate();
        return texts.into_iter().try_for_each(|(row, text)| f(row, text.unwrap_or_default()));
    };
    let (keys, values) = (dictionary.keys(), utf8(dictionary.values())?);
    let values = values.as_string::<i32>();
    let codes = if values.is_empty() { vec![0; keys.len()] } else { dictionary.normalized_keys() };
    codes.into_iter().enumerate().try_for_each(|(row, code)| {
        let is_there = keys.is_valid(row) && values.is_valid(code);
        f(row, if is_there { values.value(code) } else { "" })
    })
}

/// Values as texts that lie one behind the other.
fn utf8(array: &ArrayRef) -> Result<ArrayRef> {
    if let Some(views) = array.as_string_view_opt() {
        // Any number of views may be of the same bytes.
        let most = unpack_bytes_max(views.get_buffer_memory_size() as u64);
        if views.total_bytes_len() as u64 > most {
            let message = format!("claims texts of over {most} bytes, more than their bytes may");
            return Err(Error::data("values", message).hint("writing them as Utf8"));
        }
    }
    to(array, &DataType::Utf8)
}

/// What a time is cast to first.
fn time_as(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Date32 | DataType::Time32(_) => DataType::Int32,
        _ => DataType::Int64,
    }
}

/// A column as texts: their vocabulary.
fn texts(array: &ArrayRef, set: &mut impl FnMut(u32)) -> Result<Vec<String>> {
    match array.data_type() {
        DataType::Dictionary(_, values) if values.is_string() => {
            let keys = DataType::Dictionary(Box::new(DataType::Int32), values.clone());
            let array = to(array, &keys)?;
            let array = array.as_dictionary::<Int32Type>();
            let values = utf8(array.values())?;
            let values = values.as_string::<i32>();
            if array.len() < values.len() {
                // Only those that occur.
                let text = |key: i32| values.value(key as usize).trim_ascii();
                let is_there =
                    |key: i32| values.is_valid(key as usize) && !is_missing(text(key).as_bytes());
                let keys = array.keys().iter().map(|key| key.filter(|&key| is_there(key)));
                return Ok(coded(keys, |key| text(key).to_string(), set));
            }
            let trimmed = |value: Option<&str>| value.unwrap_or("").trim_ascii().to_string();
            let values: Vec<String> = values.iter().map(trimmed).collect();
            let codes: Vec<u32> = (0..)
                .zip(&values)
                .map(|(code, value)| if is_missing(value.as_bytes()) { MISSING } else { code })
                .collect();
            for key in array.keys() {
                set(key.and_then(|key| codes.get(key as usize)).copied().unwrap_or(MISSING));
            }
            Ok(values)
        }
        t if t.is_integer() => {
            let array = to(array, &DataType::Int64)?;
            Ok(coded(array.as_primitive::<Int64Type>().iter(), |number| number.to_string(), set))
        }
        _ => {
            let array = utf8(array)?;
            let texts = array.as_string::<i32>().iter();
            let present = texts
                .map(|text| text.map(str::trim_ascii).filter(|text| !is_missing(text.as_bytes())));
            Ok(coded(present, str::to_string, set))
        }
    }
}

/// Gives each different value a code, in the order in which they first occur.
fn coded<T: Copy + Eq + Hash>(
    values: impl Iterator<Item = Option<T>>,
    text: impl Fn(T) -> String,
    set: &mut impl FnMut(u32),
) -> Vec<String> {
    let mut vocabulary = Vec::new();
    let mut codes: HashMap<T, u32, foldhash::fast::RandomState> = HashMap::default();
    for value in values {
        let Some(value) = value else {
            set(MISSING);
            continue;
        };
        set(*codes.entry(value).or_insert_with(|| {
            vocabulary.push(text(value));
            vocabulary.len() as u32 - 1
        }));
    }
    vocabulary
}
