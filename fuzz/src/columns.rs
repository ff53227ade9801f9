//! Tables of columns without any fault, in the ways in which Parquet and Arrow write them.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray};
use arrow_array::{FixedSizeBinaryArray, Float32Array, Int64Array, RecordBatch};
use arrow_array::{LargeStringArray, NullArray, StringArray, StringViewArray, StructArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};

use super::png;

fn batch() -> RecordBatch {
    let age: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.5), None, Some(3.0)]));
    let label: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
    RecordBatch::try_from_iter([("age", age), ("label", label)]).expect("a batch")
}

/// More types of columns, with and without gaps.
fn mixed() -> RecordBatch {
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(7), Some(-1), None, Some(1 << 40)]));
    let flag: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, true]));
    let words: DictionaryArray<Int32Type> = vec!["x", "y", "x", "z"].into_iter().collect();
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 0, 1]));
    let columns: [(&str, ArrayRef); 4] =
        [("whole", whole), ("flag", flag), ("words", Arc::new(words)), ("label", label)];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

/// Pictures as Hugging Face keeps them.
fn pictures() -> RecordBatch {
    let files = [png(1), png(2), png(3)];
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(&files));
    let path: ArrayRef = Arc::new(StringArray::from(vec!["1.png", "2.png", "3.png"]));
    let image = StructArray::try_from(vec![("bytes", bytes), ("path", path)]).expect("a struct");
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0, 1, 0]));
    let columns: [(&str, ArrayRef); 2] = [("image", Arc::new(image)), ("label", label)];
    RecordBatch::try_from_iter(columns).expect("a batch")
}

/// Values of one length, and texts with gaps whose beginnings are those before; more of them than a block of lengths has.
fn fixed() -> RecordBatch {
    let price = Decimal128Array::from_iter((0..150).map(|i| (i % 7 > 0).then_some(i)));
    let price = price.with_precision_and_scale(30, 2).expect("fits");
    let texts = (0..150).map(|i| (i % 5 > 0).then(|| format!("a text like the other {}", i / 9)));
    let text: ArrayRef = Arc::new(StringArray::from_iter(texts));
    let label: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..150).map(|i| ["a", "bb"][i % 2])));
    RecordBatch::try_from_iter([("price", Arc::new(price) as _), ("text", text), ("label", label)])
        .expect("a batch")
}

/// Pictures that are all of one length.
fn fixed_pictures() -> RecordBatch {
    let image = FixedSizeBinaryArray::try_from_iter([png(1), png(1)].iter()).expect("one length");
    let label: ArrayRef = Arc::new(Int64Array::from(vec![0, 1]));
    RecordBatch::try_from_iter([("image", Arc::new(image) as _), ("label", label)])
        .expect("a batch")
}

/// A small one.
pub fn parquet() -> Vec<u8> {
    parquet_of(&batch(), None)
}

pub fn parquet_of(batch: &RecordBatch, properties: Option<WriterProperties>) -> Vec<u8> {
    let options = ArrowWriterOptions::new().with_properties(properties.unwrap_or_default());
    parquet_with(batch, options)
}

pub fn parquet_with(batch: &RecordBatch, options: ArrowWriterOptions) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).expect("a writer");
    writer.write(batch).expect("writes");
    writer.close().expect("closes");
    bytes
}

/// Each way of packing, both versions of pages, with and without dictionaries, more groups than one.
pub fn parquets() -> Vec<Vec<u8>> {
    let packed = |compression| WriterProperties::builder().set_compression(compression);
    let plain = || packed(Compression::UNCOMPRESSED).set_dictionary_enabled(false);
    let ways = [
        packed(Compression::SNAPPY),
        packed(Compression::LZ4_RAW).set_writer_version(WriterVersion::PARQUET_2_0),
        packed(Compression::ZSTD(ZstdLevel::default())).set_max_row_group_row_count(Some(2)),
        packed(Compression::GZIP(Default::default())),
        plain(),
        plain().set_writer_version(WriterVersion::PARQUET_2_0),
        plain().set_column_encoding("label".into(), Encoding::DELTA_BYTE_ARRAY),
    ];
    let mut all: Vec<_> =
        ways.into_iter().map(|way| parquet_of(&batch(), Some(way.build()))).collect();
    all.extend([parquet_of(&mixed(), None), parquet_of(&pictures(), None)]);
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for encoding in [Encoding::DELTA_BYTE_ARRAY, Encoding::DELTA_LENGTH_BYTE_ARRAY] {
            let way = plain().set_writer_version(version);
            let way = way.set_column_encoding("text".into(), encoding);
            let way = way.set_column_encoding("label".into(), encoding);
            all.push(parquet_of(&fixed(), Some(way.build())));
        }
    }
    all.push(parquet_of(&fixed_pictures(), None));
    all
}

/// A small one.
pub fn arrow() -> Vec<u8> {
    arrow_file(&batch(), None)
}

fn options(packed: Option<CompressionType>) -> IpcWriteOptions {
    IpcWriteOptions::default().try_with_compression(packed).expect("options")
}

/// A file of Arrow's, packed or not.
pub fn arrow_file(batch: &RecordBatch, packed: Option<CompressionType>) -> Vec<u8> {
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options(packed))
        .expect("a writer");
    writer.write(batch).expect("writes");
    writer.finish().expect("finishes");
    writer.into_inner().expect("ends")
}

/// The same as a stream.
pub fn arrow_stream(batch: &RecordBatch, packed: Option<CompressionType>) -> Vec<u8> {
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options(packed))
            .expect("a writer");
    writer.write(batch).expect("writes");
    writer.finish().expect("finishes");
    writer.into_inner().expect("ends")
}

/// Texts as views and with long offsets, and a column of nothing.
fn others() -> RecordBatch {
    let text = ["a text that is too long to lie in its view", "short", "a"];
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(text));
    let label: ArrayRef = Arc::new(LargeStringArray::from(vec!["a", "b", "a"]));
    let nothing: ArrayRef = Arc::new(NullArray::new(3));
    RecordBatch::try_from_iter([("text", views), ("nothing", nothing), ("label", label)])
        .expect("a batch")
}

/// Files and streams, packed or not.
pub fn arrows() -> Vec<Vec<u8>> {
    vec![
        arrow_file(&others(), None),
        arrow_stream(&others(), Some(CompressionType::ZSTD)),
        arrow_file(&batch(), Some(CompressionType::LZ4_FRAME)),
        arrow_file(&batch(), Some(CompressionType::ZSTD)),
        arrow_file(&mixed(), None),
        arrow_stream(&batch(), None),
        arrow_stream(&mixed(), None),
    ]
}
