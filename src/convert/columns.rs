//! Shards as Parquet: images in a column, or a column for each number of a table.

use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::{ArrayRef, Float32Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::content::{Content, name};
use super::writer::{Failure, Hashing};
use crate::batch::TargetSpec;
use crate::error::Error;
use crate::source::table::class_numbers;
use crate::source::{Source, Target};

/// The key of the metadata with the names of the classes, a JSON list.
const CLASS_NAMES: &str = "inflight.class_names";

/// Bytes of inputs in a row group: small, so that a row can be read without reading much else.
const GROUP_BYTES: usize = 4 << 20;

/// Rows of a row group at most: numbers compress better with more of their like, up to here.
pub(super) const GROUP_ROWS: usize = 1 << 16;

/// Writes a shard: of each (place, index) the row of sample `index`.
///
/// # Errors
/// When a sample cannot be read, or the disk is full or fails.
pub(super) fn write(
    out: &mut Hashing,
    source: &dyn Source,
    samples: impl Iterator<Item = (usize, usize)>,
) -> Result<(), Failure> {
    let schema = Arc::new(schema(source));
    let properties = properties(&class_names(source));
    let mut writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(disk)?;
    let mut rows = Rows::new(source);
    let (mut scratch, mut made) = (Vec::new(), Vec::new());
    for (_, index) in samples {
        source.prefetch(&[index])?;
        rows.add(index, &mut scratch, &mut made).map_err(|e| e.within(name(source, index)))?;
        if rows.bytes >= GROUP_BYTES || rows.count == GROUP_ROWS {
            rows.flush(&mut writer, &schema)?;
        }
    }
    rows.flush(&mut writer, &schema)?;
    writer.close().map_err(disk)?;
    Ok(())
}

/// An error of the writer.
pub(super) fn disk(error: ParquetError) -> Failure {
    Failure::Disk(std::io::Error::other(error))
}

fn schema(source: &dyn Source) -> Schema {
    let spec = source.spec();
    let mut fields = match Content::of(source) {
        Content::Npy => numbered("x", spec.input_shape[0]),
        Content::Files | Content::Png => vec![Field::new("image", DataType::Binary, false)],
    };
    match &spec.target {
        TargetSpec::Values { len } => fields.extend(numbered("y", *len)),
        _ => fields.push(Field::new("label", DataType::Int64, false)),
    }
    Schema::new(fields)
}

/// Columns of floats: `x0`, `x1`, and so on.
fn numbered(name: &str, count: usize) -> Vec<Field> {
    (0..count).map(|i| Field::new(format!("{name}{i}"), DataType::Float32, false)).collect()
}

/// The names of the classes; of those without, the numbers: a shard seldom has a sample of every class, and must still say
/// how many there are.
fn class_names(source: &dyn Source) -> Vec<String> {
    match (&source.info().class_names[..], source.spec().classes()) {
        ([], Some(classes)) => class_numbers(classes),
        (names, _) => names.to_vec(),
    }
}

/// How columns are written, with the names of the classes in the file's metadata.
pub(super) fn properties(class_names: &[String]) -> WriterProperties {
    let names = serde_json::to_string(class_names).expect("names are JSON");
    let metadata = KeyValue::new(CLASS_NAMES.to_string(), names);
    let image = ColumnPath::from("image");
    WriterProperties::builder()
        // Row groups end where rows are flushed.
        .set_max_row_group_row_count(None)
        .set_created_by("inflight".into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Image files are compressed already, and no two are alike.
        .set_column_compression(image.clone(), Compression::UNCOMPRESSED)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_statistics_enabled(image, parquet::file::properties::EnabledStatistics::None)
        .set_key_value_metadata(Some(vec![metadata]))
        .build()
}

/// The rows of the row group under way.
struct Rows<'a> {
    source: &'a dyn Source,
    content: Content,
    images: BinaryBuilder,
    inputs: Vec<Vec<f32>>,
    labels: Vec<i64>,
    values: Vec<Vec<f32>>,
    count: usize,
    bytes: usize,
}

impl<'a> Rows<'a> {
    fn new(source: &'a dyn Source) -> Self {
        let (spec, content) = (source.spec(), Content::of(source));
        let columns = if content == Content::Npy { spec.input_shape[0] } else { 0 };
        let values = match spec.target {
            TargetSpec::Values { len } => len,
            _ => 0,
        };
        Self {
            source,
            content,
            images: BinaryBuilder::new(),
            inputs: vec![Vec::new(); columns],
            labels: Vec::new(),
            values: vec![Vec::new(); values],
            count: 0,
            bytes: 0,
        }
    }

    fn add(
        &mut self,
        index: usize,
        scratch: &mut Vec<u8>,
        made: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let spec = self.source.spec();
        let sample = self.source.read(index, scratch)?;
        let wrong = |what: &str| Error::data(what, "does not fit the data set's specification");
        match sample.target {
            Target::Class(class) if self.values.is_empty() => self.labels.push(class.into()),
            Target::Values(values) if values.len() == self.values.len() => {
                self.values.iter_mut().zip(values).for_each(|(column, &value)| column.push(value));
            }
            _ => return Err(wrong("target")),
        }
        if self.content == Content::Npy {
            let floats = sample.input.as_chunks::<4>().0;
            if floats.len() != self.inputs.len() {
                return Err(wrong("input"));
            }
            for (column, &value) in self.inputs.iter_mut().zip(floats) {
                column.push(f32::from_le_bytes(value));
            }
            self.bytes += sample.input.len();
        } else {
            let (bytes, _) = self.content.encode(spec, sample.input, made)?;
            self.images.append_value(bytes);
            self.bytes += bytes.len();
        }
        self.count += 1;
        Ok(())
    }

    /// Writes what has been added as a row group.
    fn flush(
        &mut self,
        writer: &mut ArrowWriter<&mut Hashing>,
        schema: &Arc<Schema>,
    ) -> Result<(), Failure> {
        if self.count == 0 {
            return Ok(());
        }
        let floats = |columns: &mut Vec<Vec<f32>>| -> Vec<ArrayRef> {
            let taken = columns.iter_mut().map(std::mem::take);
            taken.map(|column| Arc::new(Float32Array::from(column)) as ArrayRef).collect()
        };
        let mut columns = floats(&mut self.inputs);
        if self.content != Content::Npy {
            columns.push(Arc::new(self.images.finish()));
        }
        if self.values.is_empty() {
            columns.push(Arc::new(Int64Array::from(std::mem::take(&mut self.labels))));
        }
        columns.extend(floats(&mut self.values));
        let batch = RecordBatch::try_new(schema.clone(), columns)
            .map_err(|e| Failure::Disk(std::io::Error::other(e)))?;
        writer.write(&batch).map_err(disk)?;
        writer.flush().map_err(disk)?;
        (self.count, self.bytes) = (0, 0);
        Ok(())
    }
}
