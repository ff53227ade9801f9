//! Short files of columns that claim to hold much more than they do, or hold one thing many times.

use std::sync::Arc;

use ::parquet::arrow::arrow_writer::ArrowWriterOptions;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::data_type::{FixedLenByteArrayType, Int64Type};
use ::parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, TrackedWrite};
use ::parquet::schema::parser::parse_message_type;
use arrow_array::builder::StringViewBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::{DictionaryTracker, FileWriter};
use arrow_ipc::{CompressionType, MetadataVersion, root_as_footer};
use flatbuffers::FlatBufferBuilder;

use super::columns::{arrow_file, parquet_of, parquet_with};

/// Such files of Parquet's, and what is said of each.
pub fn parquet_claims() -> Vec<(Vec<u8>, &'static str)> {
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
    let images_packed = images(1, 100 << 20, Compression::ZSTD(ZstdLevel::default()));
    let columns = "claims columns that its footer does not hold";
    vec![
        (lengths(Encoding::DELTA_LENGTH_BYTE_ARRAY, 0), "lengths"),
        (lengths(Encoding::DELTA_BYTE_ARRAY, 0), "lengths"),
        (lengths(Encoding::DELTA_BYTE_ARRAY, 1), "lengths"),
        (long_values(), "claims values of 1073741824 bytes"),
        (images(1 << 15, 30_000, Compression::UNCOMPRESSED), "unpacks to over"),
        (images_packed, "claims a page of"),
        (groups_in_groups(), columns),
        (many_children(), columns),
        (long_names(), columns),
        (many_groups(), "claims columns of"),
    ]
}

/// A file of nothing but a footer, with a schema of such elements.
fn parquet_schema(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut footer = vec![0x15, 2, 0x19, 0xfc];
    varint(&mut footer, elements.len() as u64);
    footer.extend(elements.concat());
    footer.extend([0x16, 0, 0x19, 0x0c, 0]);
    [b"PAR1", &footer[..], &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat()
}

/// An element with so many in it; a column of numbers if there are none.
fn element(name: &str, children: u64) -> Vec<u8> {
    let mut bytes = if children > 0 { vec![0x35, 0] } else { vec![0x15, 2, 0x25, 0] };
    bytes.push(0x18);
    varint(&mut bytes, name.len() as u64);
    bytes.extend(name.bytes());
    if children > 0 {
        bytes.push(0x15);
        varint(&mut bytes, 2 * children);
    }
    bytes.push(0);
    bytes
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Groups that lie in each other, deeper than any stack.
fn groups_in_groups() -> Vec<u8> {
    let mut elements = vec![element("g", 1); 100_000];
    elements.push(element("age", 0));
    parquet_schema(&elements)
}

/// A group that claims two billion columns.
fn many_children() -> Vec<u8> {
    parquet_schema(&[element("root", (1 << 31) - 1), element("age", 0)])
}

/// A long name of a group, which each column in it has in its own.
fn long_names() -> Vec<u8> {
    let mut elements = vec![element("root", 1), element(&"g".repeat(100_000), 5_000)];
    elements.extend(vec![element("", 0); 5_000]);
    parquet_schema(&elements)
}

/// Groups of the same rows, again and again.
fn many_groups() -> Vec<u8> {
    let label: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(100_000)]));
    let age: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("age", age), ("label", label)]).expect("a batch");
    let mut bytes = parquet_of(&batch, None);
    let tail = bytes.len() - 8;
    let footer = u32::from_le_bytes(bytes[tail..tail + 4].try_into().expect("four bytes"));
    let start = tail - footer as usize;
    let metadata = ParquetMetaDataReader::decode_metadata(&bytes[start..tail]).expect("a footer");
    let group = metadata.row_group(0).clone();
    let metadata = metadata.into_builder().set_row_groups(vec![group; 2_000]).build();
    bytes.truncate(start);
    let writer = TrackedWrite::new(&mut bytes);
    ParquetMetaDataWriter::new_with_tracked(writer, &metadata).finish().expect("writes");
    bytes
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

/// Such files of Arrow's, and what is said of each.
pub fn arrow_claims() -> Vec<(Vec<u8>, &'static str)> {
    let long = "a".repeat(100_000);
    let text = |len| table(Arc::new(StringArray::from(vec!["a".repeat(len)])));
    let file = arrow_file(&text(100_000), None);
    vec![
        (fields_in_fields(), "parts that are more than a head"),
        (many_blocks(&file), "claims blocks of"),
        (buffers_in_one_place(file), "claims buffers of"),
        (many_batches(&long), "claims texts of over"),
        (many_views(&long), "claims texts of over"),
        (arrow_file(&text(100 << 20), Some(CompressionType::ZSTD)), "claims buffers of"),
        (arrow_file(&truths(1 << 25), Some(CompressionType::ZSTD)), "claims 33554432 rows"),
    ]
}

/// A table with a number and a label in each row.
fn table(label: ArrayRef) -> RecordBatch {
    let age: ArrayRef = Arc::new(Int64Array::from(vec![1; label.len()]));
    RecordBatch::try_from_iter([("age", age), ("label", label)]).expect("a batch")
}

/// Rows that take a bit in each column.
fn truths(rows: usize) -> RecordBatch {
    let column: ArrayRef = Arc::new(BooleanArray::from(vec![true; rows]));
    RecordBatch::try_from_iter([("age", column.clone()), ("label", column)]).expect("a batch")
}

/// The same file, whose first buffer says that it is as long as the last.
fn buffers_in_one_place(mut file: Vec<u8>) -> Vec<u8> {
    let number = [0u64, 8].map(u64::to_le_bytes).concat();
    let at = file.windows(16).position(|bytes| bytes == number).expect("the buffer of a number");
    file[at + 8..at + 16].copy_from_slice(&100_000u64.to_le_bytes());
    file
}

/// A stream whose schema has a field with 50 fields, each of which has 50 fields with 50, all of them the same.
fn fields_in_fields() -> Vec<u8> {
    let mut head = FlatBufferBuilder::new();
    let number = arrow_ipc::IntBuilder::new(&mut head).finish();
    let name = head.create_string("f");
    let mut field = arrow_ipc::FieldBuilder::new(&mut head);
    field.add_name(name);
    field.add_type_type(arrow_ipc::Type::Int);
    field.add_type_(number.as_union_value());
    let mut field = field.finish();
    for _ in 0..3 {
        let children = head.create_vector(&[field; 50]);
        let fields = arrow_ipc::Struct_Builder::new(&mut head).finish();
        let mut above = arrow_ipc::FieldBuilder::new(&mut head);
        above.add_name(name);
        above.add_type_type(arrow_ipc::Type::Struct_);
        above.add_type_(fields.as_union_value());
        above.add_children(children);
        field = above.finish();
    }
    let fields = head.create_vector(&[field]);
    let mut schema = arrow_ipc::SchemaBuilder::new(&mut head);
    schema.add_fields(fields);
    let schema = schema.finish();
    let mut message = arrow_ipc::MessageBuilder::new(&mut head);
    message.add_version(MetadataVersion::V5);
    message.add_header_type(arrow_ipc::MessageHeader::Schema);
    message.add_header(schema.as_union_value());
    let message = message.finish();
    head.finish(message, None);
    let len = head.finished_data().len().next_multiple_of(8);
    let mut bytes = [&[0xff; 4][..], &(len as u32).to_le_bytes(), head.finished_data()].concat();
    bytes.resize(8 + len, 0);
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

/// The same file, whose footer lists its batch two thousand times.
fn many_blocks(file: &[u8]) -> Vec<u8> {
    let (file, trailer) = file.split_at(file.len() - 10);
    let len = i32::from_le_bytes(trailer[..4].try_into().expect("four bytes"));
    let (file, footer) = file.split_at(file.len() - len as usize);
    let footer = root_as_footer(footer).expect("a footer");
    let schema = arrow_ipc::convert::try_fb_to_schema(footer.schema().expect("a schema"));
    let schema = schema.expect("a schema");
    let block = *footer.recordBatches().expect("batches").get(0);
    let mut head = FlatBufferBuilder::new();
    let mut tracker = DictionaryTracker::new(true);
    let mut encoder = IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker);
    let schema = encoder.schema_to_fb_offset(&mut head, &schema);
    let blocks = head.create_vector(&[block; 2_000]);
    let mut footer = arrow_ipc::FooterBuilder::new(&mut head);
    footer.add_version(MetadataVersion::V5);
    footer.add_schema(schema);
    footer.add_recordBatches(blocks);
    let footer = footer.finish();
    head.finish(footer, None);
    let footer = head.finished_data();
    [file, footer, &(footer.len() as u32).to_le_bytes(), b"ARROW1"].concat()
}

/// A thousand batches of a row, each with a long text of the same dictionary.
fn many_batches(long: &str) -> Vec<u8> {
    let label: DictionaryArray<Int32Type> = vec![long].into_iter().collect();
    let batch = table(Arc::new(label));
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).expect("a writer");
    (0..1_000).for_each(|_| writer.write(&batch).expect("writes"));
    writer.finish().expect("finishes");
    writer.into_inner().expect("ends")
}

/// Rows that all show the same long text.
fn many_views(long: &str) -> Vec<u8> {
    let mut views = StringViewBuilder::new();
    let block = views.append_block(long.as_bytes().into());
    (0..4_000).for_each(|_| {
        views.try_append_view(block, 0, long.len() as u32).expect("a view of the block");
    });
    arrow_file(&table(Arc::new(views.finish())), None)
}
