//! Parquet and Arrow IPC: the same samples as CSV, and what is refused.

use std::fs::File;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::*;

/// The rows of [`PETS`], `times` over, with types as other tools write them.
fn pets(times: usize) -> RecordBatch {
    let repeat = |values: &[Option<f64>]| values.repeat(times);
    let age: ArrayRef =
        Arc::new(Float64Array::from(repeat(&[Some(1.0), Some(3.0), Some(5.0), None, Some(3.0)])));
    let weight: ArrayRef =
        Arc::new(Float64Array::from(repeat(&[Some(4.0), None, Some(8.0), Some(12.0), Some(8.0)])));
    let colour = ["black", "white", "black", "red", "black"].repeat(times);
    let colour: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter(colour));
    let pet: ArrayRef =
        Arc::new(StringArray::from(["cat", "cat", "dog", "dog", "cat"].repeat(times)));
    let columns = [("age", age), ("weight", weight), ("colour", colour), ("pet", pet)];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn write(path: &Path, batch: &RecordBatch, group_rows: usize, names: Option<&str>) {
    write_with(path, batch, group_rows, names.map(|names| ("inflight.class_names", names)));
}

/// Writes a file with an entry in its metadata.
fn write_with(path: &Path, batch: &RecordBatch, group_rows: usize, entry: Option<(&str, &str)>) {
    let pairs = entry.map(|(key, value)| vec![KeyValue::new(key.into(), value.to_string())]);
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_key_value_metadata(pairs)
        .build();
    let file = File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn numbers_without_end_are_refused_by_row() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("inf.parquet");
    let x: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, f64::INFINITY, 3.0]));
    let wide: ArrayRef = Arc::new(Float64Array::from(vec![1e300, 0.0, 0.0, 0.0]));
    let y: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a", "b"]));
    for (column, row) in [(&x, 3), (&wide, 1)] {
        let columns = [("x", column.clone()), ("y", y.clone())];
        write(&path, &RecordBatch::try_from_iter(columns).unwrap(), 2, None);
        let error = open_with(&path, &data("y")).err().expect("not finite").to_string();
        assert!(error.contains(&format!("column x: row {row}: found inf")), "{error}");
    }
    let path = dir.path().join("inf.arrow");
    let batches = [[1.0, 2.0], [f64::INFINITY, 3.0]].map(|x| {
        let x: ArrayRef = Arc::new(Float64Array::from(x.to_vec()));
        let y: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        RecordBatch::try_from_iter([("x", x), ("y", y)]).unwrap()
    });
    let schema = batches[0].schema();
    let told = |expected: &str| {
        let error = open_with(&path, &data("y")).err().expect("not finite").to_string();
        assert!(error.contains(expected), "{error}");
    };
    let file = File::create(&path).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    told("column x: row 1: found inf");
    told("batch 1: ");
    let file = File::create(&path).unwrap();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(file, &schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    told("column x: row 3: found inf");
}

#[test]
fn parquet_and_arrow_are_the_same_samples_as_csv() {
    let (dir, path) = file("a.csv", PETS);
    let expected = open_with(&path, &data("pet")).unwrap();
    let same = |path: &Path, data: &DataConfig| {
        let found = open_with(path, data).unwrap();
        assert_eq!(found.train.fitted(), expected.train.fitted(), "{}", path.display());
        assert_eq!(vectors(&*found.train), vectors(&*expected.train), "{}", path.display());
        assert_eq!(classes(&*found.train), classes(&*expected.train), "{}", path.display());
    };
    let path = dir.path().join("a.parquet");
    write(&path, &pets(1), 2, None);
    same(&path, &data("pet"));
    // Not in memory: three row groups, of which two stay.
    same(&path, &DataConfig { table_bytes: Some(1), ..data("pet") });
    let path = dir.path().join("a.arrow");
    let batch = pets(1);
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new(File::create(&path).unwrap(), &batch.schema())
            .unwrap();
    writer.write(&batch.slice(0, 2)).unwrap();
    writer.write(&batch.slice(2, 3)).unwrap();
    writer.finish().unwrap();
    same(&path, &data("pet"));
    same(&path, &DataConfig { table_bytes: Some(1), ..data("pet") });
    let path = dir.path().join("stream.arrow");
    let mut writer =
        arrow_ipc::writer::StreamWriter::try_new(File::create(&path).unwrap(), &batch.schema())
            .unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    same(&path, &data("pet"));
}

#[test]
fn texts_of_dictionaries_are_trimmed_as_those_of_csv() {
    let colours = [" red", "red", "red ", " ?", "black", "black"];
    let pets = ["cat", "dog", " cat", "dog ", "cat", "dog"];
    let rows: Vec<String> =
        colours.iter().zip(pets).map(|(colour, pet)| format!("{colour},{pet}\n")).collect();
    let (dir, path) = file("a.csv", format!("colour,pet\n{}", rows.concat()));
    let expected = open_with(&path, &data("pet")).unwrap();
    let same = |path: &Path| {
        let found = open_with(path, &data("pet")).unwrap();
        assert_eq!(found.train.fitted(), expected.train.fitted(), "{}", path.display());
        assert_eq!(vectors(&*found.train), vectors(&*expected.train), "{}", path.display());
        assert_eq!(classes(&*found.train), classes(&*expected.train), "{}", path.display());
    };
    let column = |texts: [&'static str; 6]| {
        Arc::new(DictionaryArray::<Int32Type>::from_iter(texts)) as ArrayRef
    };
    let columns = [("colour", column(colours)), ("pet", column(pets))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = dir.path().join("a.parquet");
    write(&path, &batch, 6, None);
    same(&path);
    // A dictionary of fewer values than rows, and one of more.
    for (name, rows) in [("whole.arrow", 6), ("pieces.arrow", 2)] {
        let path = dir.path().join(name);
        let file = File::create(&path).unwrap();
        let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
        for start in (0..6).step_by(rows) {
            writer.write(&batch.slice(start, rows)).unwrap();
        }
        writer.finish().unwrap();
        same(&path);
    }
}

#[test]
fn groups_that_are_read_as_needed_are_those_that_were_in_memory() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("many.parquet");
    write(&path, &pets(1000), 700, None);
    let all = open_with(&path, &data("pet")).unwrap();
    let some = open_with(&path, &DataConfig { table_bytes: Some(30_000), ..data("pet") }).unwrap();
    assert_eq!(all.train.fitted(), some.train.fitted());
    assert_eq!(all.train.len(), 5000);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for i in 0..5000 {
        let i = i * 7919 % 5000;
        assert_eq!(all.train.read(i, &mut a).unwrap(), some.train.read(i, &mut b).unwrap());
    }
    // A file that is replaced meanwhile is no longer what was opened.
    write(&path, &pets(900), 700, None);
    let error = (0..5000).find_map(|i| some.train.read(i, &mut b).err()).unwrap().to_string();
    assert!(error.contains("was changed while it was in use"), "{error}");
}

/// Some rows of [`pets`], with the columns in another order.
fn turned(rows: std::ops::Range<usize>) -> RecordBatch {
    pets(1).project(&[3, 2, 1, 0]).unwrap().slice(rows.start, rows.len())
}

#[test]
fn several_files_are_one_table() {
    let (dir, path) = file("a.csv", PETS);
    let expected = open_with(&path, &data("pet")).unwrap();
    let folder = dir.path().join("pets");
    fs::create_dir(&folder).unwrap();
    write(&folder.join("b-2.parquet"), &turned(2..5), 2, None);
    write(&folder.join("b-1.parquet"), &pets(1).slice(0, 2), 2, None);
    write(&folder.join("test-1.parquet"), &turned(3..5), 2, None);
    write(&folder.join("test-2.parquet"), &pets(1).slice(0, 1), 2, None);
    // In memory, and of three row groups two.
    for table_bytes in [None, Some(1)] {
        let data = DataConfig { table_bytes, ..data("pet") };
        let mut found = open_with(&folder, &data).unwrap();
        assert_eq!(found.train.fitted(), expected.train.fitted());
        assert_eq!(vectors(&*found.train), vectors(&*expected.train));
        assert_eq!(classes(&*found.train), classes(&*expected.train));
        let origin = |row| found.train.origin(row).unwrap();
        assert!(origin(1).ends_with("b-1.parquet row 2"), "{}", origin(1));
        assert!(origin(2).ends_with("b-2.parquet row 1"), "{}", origin(2));
        assert!(origin(4).ends_with("b-2.parquet row 3"), "{}", origin(4));
        let test = vectors(&**found.test.as_ref().unwrap());
        let all = vectors(&*expected.train);
        assert_eq!(test, [&all[3], &all[4], &all[0]].map(Vec::clone));
        // A part that is held out is spread over all files, and not fitted to.
        found.fit_on(&[0, 4]).unwrap();
        let mut again = open_with(&path, &super::data("pet")).unwrap();
        again.fit_on(&[0, 4]).unwrap();
        assert_eq!(found.train.fitted(), again.train.fitted());
        assert_ne!(found.train.fitted(), expected.train.fitted());
        assert_eq!(vectors(&*found.train), vectors(&*again.train));
    }
}

#[test]
fn names_of_files_tell_their_part() {
    let dir = tempdir().unwrap();
    for (name, rows) in [
        ("train.parquet", 0..5),
        ("testing.parquet", 3..5),
        ("Test1.parquet", 0..1),
        ("validation-0.parquet", 2..3),
    ] {
        write(&dir.path().join(name), &turned(rows), 10, None);
    }
    let found = open_with(dir.path(), &data("pet")).unwrap();
    let len = |part: Option<Arc<dyn Source>>| part.map(|part| part.len());
    assert_eq!((found.train.len(), len(found.validation), len(found.test)), (5, Some(1), Some(3)));
}

#[test]
fn files_that_do_not_fit_the_first_are_refused() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("a.parquet"), &pets(1), 10, None);
    let second = dir.path().join("b.parquet");
    let refusal = |batch: &RecordBatch, data: &DataConfig| {
        write(&second, batch, 10, None);
        open_with(dir.path(), data).err().expect("does not fit").to_string()
    };
    let missing = pets(1).project(&[0, 2, 3]).unwrap();
    let error = refusal(&missing, &data("pet"));
    assert!(error.contains("b.parquet column weight: is missing, expected it as in "), "{error}");
    let mut columns: Vec<(String, ArrayRef)> = pets(1)
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .zip(pets(1).columns().iter().cloned())
        .collect();
    columns.push(("name".into(), columns[3].1.clone()));
    let more = RecordBatch::try_from_iter(columns.clone()).unwrap();
    let error = refusal(&more, &data("pet"));
    assert!(error.contains("b.parquet column name: is not in "), "{error}");
    // Where columns are chosen, others do not matter.
    let chosen = DataConfig { columns: vec!["age".into()], ..data("pet") };
    assert_eq!(open_with(dir.path(), &chosen).unwrap().train.len(), 10);
    columns[1].1 = columns[3].1.clone();
    let text = RecordBatch::try_from_iter(columns[..4].to_vec()).unwrap();
    let error = refusal(&text, &data("pet"));
    assert!(error.contains("b.parquet column weight: holds text, expected numbers"), "{error}");
    fs::rename(dir.path().join("a.parquet"), dir.path().join("test.parquet")).unwrap();
    fs::remove_file(&second).unwrap();
    let error = open_with(dir.path(), &data("pet")).err().unwrap().to_string();
    assert!(error.contains("found no files to train on"), "{error}");
}

#[test]
fn damaged_files_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    write(&path, &pets(200), 300, None);
    let whole = fs::read(&path).unwrap();
    for cut in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = open_with(&path, &data("pet")).err().expect("is cut").to_string();
        assert!(
            error.contains("a.parquet") && error.contains("found an empty") == (cut == 0),
            "{error}"
        );
    }
    fs::write(&path, "age,pet\n1,cat\n").unwrap();
    let error = open_with(&path, &data("pet")).err().unwrap().to_string();
    assert!(error.contains("a.parquet: is damaged, cut short or no Parquet"), "{error}");
    // A flipped bit anywhere is an error or other values; never a panic that ends the program.
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        if let Err(error) = open_with(&path, &data("pet")) {
            assert!(error.to_string().contains("a.parquet"), "{error}");
        }
    }
    // What heads of pages claim is held against the file before it is believed: here the three values of a dictionary.
    write(&path, &pets(200), 1000, None);
    let whole = fs::read(&path).unwrap();
    let head = [0x4c, 0x15, 6, 0x15];
    let at = whole.windows(4).position(|bytes| bytes == head).expect("a dictionary");
    let claimed =
        [&whole[..at], &[0x4c, 0x15, 0xfe, 0xff, 0xff, 0xff, 0xf, 0x15], &whole[at + 4..]].concat();
    fs::write(&path, claimed).unwrap();
    let error = open_with(&path, &data("pet")).err().expect("is refused").to_string();
    assert!(
        error.contains("claims a dictionary of 2147483647 values at byte 4, expected at most"),
        "{error}"
    );
    let error = {
        write(&path, &pets(1), 10, None);
        open_with(&path, &data("legs")).err().unwrap().to_string()
    };
    assert!(error.ends_with("try one of age, weight, colour, pet"), "{error}");
    for name in ["a.arrow", "stream.arrow"] {
        let path = dir.path().join(name);
        fs::write(
            &path,
            if name == "a.arrow" {
                &b"ARROW1\0\0cut"[..]
            } else {
                b"\xff\xff\xff\xff\x10\0\0\0cut"
            },
        )
        .unwrap();
        let error = open_with(&path, &data("pet")).err().unwrap().to_string();
        assert!(error.contains("is damaged, cut short or no Arrow IPC"), "{error}");
    }
}

#[test]
fn tables_of_images_are_images() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("images.parquet");
    let images: Vec<Vec<u8>> = (0..5).map(|i| png(10 * i)).collect();
    let images = BinaryArray::from_iter_values(images);
    let label = Int64Array::from(vec![0, 1, 1, 0, 1]);
    let columns: [(&str, ArrayRef); 2] = [("image", Arc::new(images)), ("label", Arc::new(label))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    write(&path, &batch, 2, Some("[\"dark\", \"light\", \"none\"]"));
    let dataset = open_with(&path, &DataConfig::default()).unwrap();
    assert_eq!(dataset.train.spec().input_shape, [1, 2, 3]);
    assert_eq!(dataset.train.spec().classes(), Some(3));
    assert_eq!(dataset.train.info().class_names, ["dark", "light", "none"]);
    let mut viewer = inflight::source::Viewer::default();
    for (i, class) in [0, 1, 1, 0, 1].into_iter().enumerate() {
        let sample = viewer.read(&*dataset.train, i).unwrap();
        assert_eq!((sample.input, sample.target), (&[10 * i as u8; 6][..], Target::Class(class)));
    }
    // Of Arrow's own format only rows are read, not pictures.
    let path = dir.path().join("images.arrow");
    let file = File::create(&path).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).and_then(|()| writer.finish()).unwrap();
    let Err(error) = open_with(&path, &DataConfig::default()) else { panic!("is refused") };
    let error = error.to_string();
    let expected = format!(
        "source: {}: column \"image\" holds images in Arrow IPC, expected such a table as Parquet; try ",
        path.display()
    );
    assert!(error.starts_with(&expected), "{error}");
}

/// What Hugging Face says about columns of classes.
fn features(columns: &[(&str, &[&str])]) -> String {
    let feature = |(column, names): &(&str, &[&str])| {
        format!("{column:?}: {{\"names\": {names:?}, \"_type\": \"ClassLabel\"}}")
    };
    let features: Vec<String> = columns.iter().map(feature).collect();
    format!("{{\"info\": {{\"features\": {{{}}}}}}}", features.join(", "))
}

/// Pictures with numbers of classes in some columns.
fn labelled(columns: &[(&str, &[i64])]) -> RecordBatch {
    let images = (0..columns[0].1.len()).map(|i| png(10 * i as u8));
    let images: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
    let labels = columns
        .iter()
        .map(|(name, numbers)| (*name, Arc::new(Int64Array::from(numbers.to_vec())) as ArrayRef));
    RecordBatch::try_from_iter([("image", images)].into_iter().chain(labels)).unwrap()
}

#[test]
fn names_of_classes_are_those_of_the_target() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("pets.parquet");
    let batch = labelled(&[("breed", &[2, 0, 1]), ("pet", &[1, 0, 0])]);
    let text = features(&[("breed", &["birman", "persian", "pug"]), ("pet", &["cat", "dog"])]);
    write_with(&path, &batch, 10, Some(("huggingface", &text)));
    for (target, names, numbers) in [
        ("pet", &["cat", "dog"][..], [1, 0, 0]),
        ("breed", &["birman", "persian", "pug"], [2, 0, 1]),
    ] {
        let train = open_with(&path, &data(target)).unwrap().train;
        assert_eq!(train.info().class_names, names);
        assert_eq!(train.spec().classes(), Some(names.len()));
        assert_eq!(classes(&*train), numbers);
    }
}

#[test]
fn a_part_may_number_its_classes_in_its_own_order() {
    let dir = tempdir().unwrap();
    let write = |name: &str, numbers: &[i64], names: &[&str]| {
        let text = features(&[("label", names)]);
        let path = dir.path().join(name);
        write_with(&path, &labelled(&[("label", numbers)]), 10, Some(("huggingface", &text)));
        path
    };
    let path = write("train.parquet", &[0, 1, 1], &["cat", "dog"]);
    write("test.parquet", &[0, 1, 1], &["dog", "cat"]);
    // The file beside it, and the part of a folder.
    for path in [&*path, dir.path()] {
        let found = open_with(path, &data("label")).unwrap();
        assert_eq!(classes(&*found.train), [0, 1, 1]);
        assert_eq!(classes(&**found.test.as_ref().unwrap()), [1, 0, 0], "{}", path.display());
    }
    // Another shard of the same part, which comes first.
    write("train-2.parquet", &[1, 0], &["dog", "cat"]);
    let train = open_with(dir.path(), &data("label")).unwrap().train;
    assert_eq!(train.info().class_names, ["dog", "cat"]);
    assert_eq!(classes(&*train), [1, 0, 1, 0, 0]);
    // A class that the training part does not have.
    write("test.parquet", &[0, 1], &["dog", "bird"]);
    let error = open_with(&path, &data("label")).err().expect("no bird was seen").to_string();
    assert!(error.contains("found class \"1\" (bird), expected one of"), "{error}");
}
