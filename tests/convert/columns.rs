//! Shards of Parquet, and tables.

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use inflight::convert::Format;

use super::*;

/// The image files of a data set, and shards of Parquet with them.
fn files_in_parquet(dataset: &Dataset, folder: &Path) -> (Dataset, PathBuf) {
    let [tar, out] = ["tar", "parquet"].map(|name| folder.join(name));
    run(dataset, &tar, &of(4000)).unwrap();
    let files = open_path(&tar).unwrap();
    run(&files, &out, &Config { format: Format::Parquet, ..of(3000) }).unwrap();
    (files, out)
}

#[test]
fn images_become_a_column_of_files() {
    let dir = tempdir().unwrap();
    let dataset = fashion();
    let (files, out) = files_in_parquet(&dataset, dir.path());
    let manifest = ShardManifest::load(&out).unwrap().unwrap();
    manifest.verify(&out, &|_| ()).unwrap();
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for shard in &manifest.splits["train"] {
        let file = fs::File::open(out.join(&shard.file)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let metadata = reader.metadata().file_metadata().key_value_metadata().unwrap();
        let names = metadata.iter().find(|pair| pair.key == "inflight.class_names").unwrap();
        let names: Vec<String> = serde_json::from_str(names.value.as_ref().unwrap()).unwrap();
        assert_eq!(names, dataset.train.info().class_names);
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let column = batch.column_by_name("image").unwrap().as_binary::<i32>();
            images.extend(column.iter().map(|image| image.unwrap().to_vec()));
            let column = batch.column_by_name("label").unwrap().as_primitive::<Int64Type>();
            labels.extend(column.values().iter().map(|&label| label as u32));
        }
    }
    assert_eq!(images, stored(&*files.train));
    let expected: Vec<u32> = viewed(&*dataset.train).into_iter().map(|s| s.1).collect();
    assert_eq!(labels, expected);
}

#[test]
fn rows_of_floats_become_columns() {
    let dir = tempdir().unwrap();
    let spec = SampleSpec {
        input_shape: vec![2],
        input_dtype: DType::F32,
        target: TargetSpec::Values { len: 1 },
    };
    let inputs = resident::Inputs::Floats(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let targets = resident::Targets::Values(vec![0.5, 1.5, 2.5]);
    let source = Resident::new(spec, SourceInfo::default(), inputs, targets).unwrap();
    let dataset = Dataset::new("rows", "rows", std::sync::Arc::new(source), None);
    let out = dir.path().join("out");
    let error = run(&dataset, &out, &of(2)).unwrap_err().to_string();
    assert!(error.contains("--format parquet") && !out.exists(), "{error}");
    run(&dataset, &out, &Config { format: Format::Parquet, ..of(2) }).unwrap();
    let file = fs::File::open(out.join("train/shard-000000.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    let column = |name: &str| {
        batch.column_by_name(name).unwrap().as_primitive::<Float32Type>().values().to_vec()
    };
    assert_eq!([column("x0"), column("x1"), column("y0")], [[1.0, 3.0], [2.0, 4.0], [0.5, 1.5]]);
}

#[test]
fn image_shards_are_opened_as_one_data_set() {
    let dir = tempdir().unwrap();
    let dataset = fashion();
    let (_, out) = files_in_parquet(&dataset, dir.path());
    let back = open_path(&out).unwrap();
    assert_eq!(viewed(&*back.train), viewed(&*dataset.train));
    let (test, back_test) = (dataset.test.as_ref().unwrap(), back.test.as_ref().unwrap());
    assert_eq!(viewed(&**back_test), viewed(&**test));
    for (found, expected) in [(&back.train, &dataset.train), (back_test, test)] {
        let (found, expected) = (found.info(), expected.info());
        assert_eq!(found.class_names, expected.class_names);
        assert_eq!((&found.mean, &found.std), (&expected.mean, &expected.std));
    }
    let origin = back.train.origin(3001).unwrap();
    assert!(origin.contains("shard-000001.parquet"), "{origin}");
    let shard = out.join("train/shard-000001.parquet");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, [&whole[..], b"PAR1"].concat()).unwrap();
    let error = open_path(&out).err().expect("too long").to_string();
    assert!(error.contains("shard-000001.parquet: found"), "{error}");
    assert!(error.contains("that manifest.json says"), "{error}");
}

/// All samples as they go into a slot.
fn rows(source: &dyn Source) -> Vec<(Vec<u8>, Option<u32>)> {
    let mut scratch = Vec::new();
    let read = |i| (source.read(i, &mut scratch).unwrap().input.to_vec(), source.class(i));
    (0..source.len()).map(read).collect()
}

#[test]
fn whole_numbers_stay_classes_whatever_their_sign_and_length() {
    let targets = [
        ["+1", "-1"],
        ["-0", "+3"],
        // The same double.
        ["18446744073709551614", "18446744073709551615"],
    ];
    for [one, other] in targets {
        let dir = tempdir().unwrap();
        let path = dir.path().join("rows.csv");
        let mut text = String::from("x,large,y\n");
        for i in 0..40 {
            let target = if i % 3 == 0 { one } else { other };
            // Beside a fraction a long number is one.
            let large = if i % 2 == 0 { "0.5" } else { "18446744073709551615" };
            text.push_str(&format!("{:+},{large},{target}\n", 20 - i));
        }
        fs::write(&path, text).unwrap();
        let csv = open_path(&path).unwrap().train;
        assert_eq!(csv.spec().classes(), Some(2), "{one} and {other}");
        let out = dir.path().join("out");
        let dataset = Dataset::new("rows", &path, csv.clone(), None);
        run(&dataset, &out, &Config { format: Format::Parquet, ..of(40) }).unwrap();
        let back = open_path(&out).unwrap().train;
        assert_eq!(back.spec(), csv.spec(), "{one} and {other}");
        assert_eq!(rows(&*back), rows(&*csv), "{one} and {other}");
    }
}

#[test]
fn a_table_that_has_other_rows_by_now_is_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("rows.csv");
    let text = |rows: usize| -> String {
        let rows = (0..rows).map(|i| format!("{},{}\n", i, i % 2));
        std::iter::once("x,y\n".to_string()).chain(rows).collect()
    };
    for rows in [30, 80] {
        fs::write(&path, text(60)).unwrap();
        let dataset = open_path(&path).unwrap();
        fs::write(&path, text(rows)).unwrap();
        let out = dir.path().join(format!("of-{rows}"));
        let config = Config { format: Format::Parquet, ..of(20) };
        let error = run(&dataset, &out, &config).unwrap_err().to_string();
        let expected = format!("rows.csv: found {rows} rows, expected the 60");
        assert!(error.contains(&expected), "{error}");
    }
}

/// Samples of 10 classes without names, of which these few occur.
fn unnamed(labels: &[u32], is_picture: bool) -> std::sync::Arc<dyn Source> {
    let count = labels.len() as u8;
    let (input_shape, input_dtype, inputs) = match is_picture {
        true => (vec![1, 2, 2], DType::U8, resident::Inputs::Bytes((0..4 * count).collect())),
        false => {
            let floats = (0..2 * count).map(f32::from).collect();
            (vec![2], DType::F32, resident::Inputs::Floats(floats))
        }
    };
    let target = TargetSpec::Class { classes: 10 };
    let spec = SampleSpec { input_shape, input_dtype, target };
    let targets = resident::Targets::Classes(labels.to_vec());
    let source = Resident::new(spec, SourceInfo::default(), inputs, targets).unwrap();
    std::sync::Arc::new(source)
}

/// Has shards say nothing of classes without names, as those of earlier versions do.
fn forget_classes(out: &Path) {
    let key = b"inflight.class_names";
    for (name, mut bytes) in files(&out.join("train")) {
        let at = bytes.windows(key.len()).position(|found| found == key).unwrap();
        bytes[at] = b'I';
        fs::write(out.join("train").join(name), bytes).unwrap();
    }
}

#[test]
fn classes_without_names_keep_their_numbers() {
    let classes =
        |source: &dyn Source| (0..source.len()).map(|i| source.class(i)).collect::<Vec<_>>();
    // Sorted by class, so that no shard has all of those that occur.
    let labels = [1, 1, 1, 3, 3, 7];
    for (is_picture, samples) in [(true, 6), (true, 3), (false, 6), (false, 3)] {
        let dir = tempdir().unwrap();
        let (train, test) = (unnamed(&labels, is_picture), unnamed(&[9, 0], is_picture));
        let dataset = Dataset::new("unnamed", "unnamed", train, Some(test));
        let out = dir.path().join("out");
        run(&dataset, &out, &Config { format: Format::Parquet, ..of(samples) }).unwrap();
        let check = || {
            let back = open_path(&out).unwrap();
            assert_eq!(back.train.spec(), dataset.train.spec());
            assert_eq!(classes(&*back.train), labels.map(Some));
            assert_eq!(classes(&**back.test.as_ref().unwrap()), [Some(9), Some(0)]);
            back.train.info().class_names.clone()
        };
        // Rows are fitted to what stands in their column.
        let names: Vec<String> = (0..10).map(|class| class.to_string()).collect();
        let expected = if is_picture { Vec::new() } else { names };
        assert_eq!(check(), expected);
        // Even a shard by itself tells how many there are.
        let shard = out.join("train/shard-000000.parquet");
        let first = open_path(&shard).unwrap().train;
        assert_eq!(first.spec(), dataset.train.spec());
        assert_eq!(classes(&*first), labels.map(Some)[..samples]);
        forget_classes(&out);
        assert_eq!(check(), expected);
    }
}

#[test]
fn tables_keep_their_columns() {
    let dir = tempdir().unwrap();
    let table = dir.path().join("people-train.csv");
    let mut text = String::from("age,work,zip,weight,target\n");
    for i in 0..200 {
        let work = ["private", "state", "?"][i % 3];
        let (weight, target) = (i as f64 / 8.0, ["<=50K", ">50K"][i / 7 % 2]);
        text.push_str(&format!("{},{work},{:05},{weight},{target}\n", 20 + i % 50, i % 4));
    }
    fs::write(&table, &text).unwrap();
    fs::write(dir.path().join("people-test.csv"), &text[..text.len() / 2 + 9]).unwrap();
    let cut = fs::read_to_string(dir.path().join("people-test.csv")).unwrap();
    let whole_lines = cut.rsplit_once('\n').unwrap().0.to_string() + "\n";
    fs::write(dir.path().join("people-test.csv"), whole_lines).unwrap();
    let csv = open_path(&table).unwrap();
    let out = dir.path().join("out");
    let error = run(&csv, &out, &of(1000)).unwrap_err().to_string();
    assert!(error.contains("--format parquet") && !out.exists(), "{error}");
    run(&csv, &out, &Config { format: Format::Parquet, ..of(1000) }).unwrap();
    let file = fs::File::open(out.join("train/shard-000000.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let types: Vec<String> = reader
        .schema()
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    // What is missing stays missing, and codes with zeros before them stay text.
    assert_eq!(types, ["age Int64", "work Utf8", "zip Utf8", "weight Float64", "target Utf8"]);
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column_by_name("work").unwrap().null_count(), 66);
    assert_eq!(batch.column_by_name("zip").unwrap().as_string::<i32>().value(3), "00003");
    let back = open_path(&out).unwrap();
    assert_eq!(rows(&*back.train).len(), 200);
    assert_eq!(back.train.info().class_names, csv.train.info().class_names);
    let labels =
        |source: &dyn Source| (0..source.len()).map(|i| source.class(i)).collect::<Vec<_>>();
    assert_eq!(labels(&*back.train), labels(&*csv.train));
    assert_eq!(labels(&**back.test.as_ref().unwrap()), labels(&**csv.test.as_ref().unwrap()));
}
