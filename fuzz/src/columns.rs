//! Tables of columns without any fault, in the ways in which Parquet and Arrow write them.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::data_type::{FixedLenByteArrayType, Int64Type};
use ::parquet::file::properties::{WriterProperties, WriterVersion};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray};
use arrow_array::{FixedSizeBinaryArray, Float32Array, Int32Array, Int64Array, RecordBatch};
use arrow_array::{StringArray, StructArray};
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

fn parquet_of(batch: &RecordBatch, properties: Option<WriterProperties>) -> Vec<u8> {
    let options = ArrowWriterOptions::new().with_properties(properties.unwrap_or_default());
    parquet_with(batch, options)
}

fn parquet_with(batch: &RecordBatch, options: ArrowWriterOptions) -> Vec<u8> {
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

/// Short files that claim to hold much more than they do, or hold one thing many times.
pub fn parquet_claims() -> Vec<Vec<u8>> {
    let lengths = |encoding, list| {
        let label: ArrayRef = Arc::new(StringArray::from(vec![""; LENGTHS]));
        let batch = RecordBatch::try_from_iter([("age", label.clone()), ("label", label)]);
        let way = WriterProperties::builder().set_dictionary_enabled(false);
        let way = way.set_encoding(encoding).build();
        let mut bytes = parquet_of(&batch.expect("a batch"), Some(way));
        // 16,400 lengths in blocks of 128 and four parts.
        let head = [0x80, 1, 4, 0x90, 0x80, 1];
        let heads = bytes.windows(head.len()).enumerate().filter(|(_, bytes)| *bytes == head);
        let at = heads.map(|(at, _)| at + 3).nth(list).expect("a list of lengths");
        bytes[at..at + 3].copy_from_slice(&[0xff, 0xff, 0x7f]);
        bytes
    };
    vec![
        lengths(Encoding::DELTA_LENGTH_BYTE_ARRAY, 0),
        lengths(Encoding::DELTA_BYTE_ARRAY, 0),
        lengths(Encoding::DELTA_BYTE_ARRAY, 1),
        long_values(),
        images(1 << 15, 30_000, Compression::UNCOMPRESSED),
        images(1, 100 << 20, Compression::ZSTD(ZstdLevel::default())),
    ]
}

/// So many take three bytes to write.
const LENGTHS: usize = 16_400;

/// Four values of a gigabyte, all of them missing.
fn long_values() -> Vec<u8> {
    let schema =
        "message m { optional fixed_len_byte_array(1073741824) image; required int64 label; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Default::default()).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    let mut column = group.next_column().expect("a column").expect("the first");
    let missing = column.typed::<FixedLenByteArrayType>().write_batch(&[], Some(&[0; 4]), None);
    missing.expect("writes");
    column.close().expect("closes");
    let mut column = group.next_column().expect("a column").expect("the second");
    column.typed::<Int64Type>().write_batch(&[0, 1, 0, 1], None, None).expect("writes");
    column.close().expect("closes");
    group.close().expect("closes");
    writer.close().expect("closes");
    bytes
}

/// The same bytes as the image of every row.
fn images(rows: usize, len: usize, packed: Compression) -> Vec<u8> {
    let image: ArrayRef = Arc::new(BinaryArray::from_iter_values([vec![7; len]]));
    let image = DictionaryArray::new(Int32Array::from(vec![0; rows]), image);
    let label: ArrayRef = Arc::new(Int64Array::from(vec![1; rows]));
    let batch = RecordBatch::try_from_iter([("image", Arc::new(image) as _), ("label", label)]);
    let way = WriterProperties::builder().set_compression(packed).build();
    let options = ArrowWriterOptions::new().with_properties(way).with_skip_arrow_metadata(true);
    parquet_with(&batch.expect("a batch"), options)
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

/// Files and streams, packed or not.
pub fn arrows() -> Vec<Vec<u8>> {
    vec![
        arrow_file(&batch(), Some(CompressionType::LZ4_FRAME)),
        arrow_file(&batch(), Some(CompressionType::ZSTD)),
        arrow_file(&mixed(), None),
        arrow_stream(&batch(), None),
        arrow_stream(&mixed(), None),
    ]
}
