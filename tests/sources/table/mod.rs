//! CSV and its relatives, JSON lines, Parquet and Arrow IPC: what good ones give, and what each bad one says.

#[cfg(feature = "parquet")]
mod columnar;
mod refused;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use inflight::ErrorKind;
use inflight::batch::{DType, TargetSpec};
use inflight::source::table::{FeatureEncoding, Fitted, FittedTarget};
use inflight::source::{DataConfig, Dataset, OpenOptions, Source, Target, Task, open, open_rows};
use tempfile::{TempDir, tempdir};

fn data(target: &str) -> DataConfig {
    DataConfig { target: Some(target.into()), ..Default::default() }
}

fn open_with(path: &Path, data: &DataConfig) -> inflight::Result<Dataset> {
    let options = OpenOptions { data: Some(data), offline: true, ..Default::default() };
    open(path.to_str().expect("temporary paths are UTF-8"), &options)
}

/// A file in a folder of its own.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    (dir, path)
}

fn vectors(source: &dyn Source) -> Vec<Vec<f32>> {
    let mut scratch = Vec::new();
    let mut read = |i| {
        let sample = source.read(i, &mut scratch).expect("a readable sample");
        bytemuck::pod_collect_to_vec(sample.input)
    };
    (0..source.len()).map(&mut read).collect()
}

fn classes(source: &dyn Source) -> Vec<u32> {
    let mut scratch = Vec::new();
    let mut class = |i| match source.read(i, &mut scratch).expect("a readable sample").target {
        Target::Class(class) => class,
        other => panic!("{other:?}"),
    };
    (0..source.len()).map(&mut class).collect()
}

fn fitted(dataset: &Dataset) -> Fitted {
    (**dataset.train.fitted().expect("a table")).clone()
}

const PETS: &str = "age,weight,colour,pet\n\
                    1,4.0,black,cat\n\
                    3,?,white,cat\n\
                    5,8.0,black,dog\n\
                    ,12.0,red,dog\n\
                    3,8.0,black,cat\n";

#[test]
fn numbers_are_standardised_and_categories_one_hot() {
    let (_dir, path) = file("pets.csv", PETS);
    let dataset = open_with(&path, &data("pet")).unwrap();
    let spec = dataset.train.spec();
    assert_eq!((spec.input_dtype, &spec.target), (DType::F32, &TargetSpec::Class { classes: 2 }));
    assert_eq!(dataset.train.info().class_names, ["cat", "dog"]);
    assert_eq!(classes(&*dataset.train), [0, 0, 1, 1, 0]);
    // age and whether it is missing; weight and whether it is missing; black, and what white and red share.
    let deviation = 2f32.sqrt();
    let weight = 8f32.sqrt();
    let expected = [
        [-2.0 / deviation, 0.0, -4.0 / weight, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        [2.0 / deviation, 0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 1.0, 4.0 / weight, 0.0, 0.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    ];
    let found = vectors(&*dataset.train);
    assert_eq!((found.len(), found[0].len()), (5, 6));
    for (found, expected) in found.iter().zip(expected) {
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() < 1e-6, "{found:?} and {expected:?}");
        }
    }
    assert_eq!(dataset.train.origin(3), Some(format!("{} row 4", path.display())));
}

#[test]
fn columns_are_chosen_bucketed_and_called_categories() {
    let (_dir, path) = file("pets.csv", PETS);
    let fit = |data: DataConfig| fitted(&open_with(&path, &data).unwrap());
    let names = |fitted: &Fitted| {
        fitted.features.iter().map(|feature| feature.column.clone()).collect::<Vec<_>>()
    };
    let list = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let only = fit(DataConfig { columns: list(&["colour", "1"]), ..data("last") });
    assert_eq!(names(&only), ["colour", "age"]);
    let twice = list(&["colour", "age", "colour", "1"]);
    let once = fit(DataConfig { columns: twice, ..data("last") });
    assert_eq!(names(&once), ["colour", "age"]);
    let without = fit(DataConfig { columns: list(&["-colour"]), ..data("pet") });
    assert_eq!(names(&without), ["age", "weight"]);
    let other = fit(DataConfig {
        columns: list(&["age", "weight"]),
        categorical: list(&["age"]),
        bucketize: list(&["weight:2"]),
        ..data("pet")
    });
    let FeatureEncoding::Categories { values, shared: 1, missing: true } =
        &other.features[0].encoding
    else {
        panic!("{:?}", other.features[0])
    };
    assert_eq!(values, &["3"]);
    let expected = FeatureEncoding::Buckets { edges: vec![8.0], missing: true };
    assert_eq!(other.features[1].encoding, expected);
    let error = open_with(&path, &data("legs")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().ends_with("try one of age, weight, colour, pet"), "{error}");
    let error = open_with(&path, &DataConfig::default()).err().unwrap().to_string();
    assert!(
        error.contains("--target: is needed") && error.ends_with("try --target pet"),
        "{error}"
    );
}

#[test]
fn numbers_are_targets_in_units_of_their_deviation() {
    let (_dir, path) = file("line.csv", "x,y\n1,10.5\n2,20.5\n3,30.5\n");
    let dataset = open_with(&path, &data("y")).unwrap();
    assert_eq!(dataset.train.spec().target, TargetSpec::Values { len: 1 });
    let target = fitted(&dataset).target;
    let FittedTarget::Values { mean, std, .. } = &target else { panic!("{target:?}") };
    assert!((mean - 20.5).abs() < 1e-9 && (std - (200.0f64 / 3.0).sqrt()).abs() < 1e-6);
    let mut scratch = Vec::new();
    let Target::Values(&[value]) = dataset.train.read(2, &mut scratch).unwrap().target else {
        panic!("a number")
    };
    assert!((target.in_file_unit(value) - 30.5).abs() < 1e-5);
    // A whole number is a class unless it is said to be a number.
    let (_dir, path) = file("whole.csv", "x,y\n1,10\n2,20\n3,30\n");
    assert_eq!(open_with(&path, &data("y")).unwrap().train.spec().classes(), Some(3));
    let regress = DataConfig { task: Some(Task::Regress), ..data("y") };
    assert_eq!(open_with(&path, &regress).unwrap().train.spec().classes(), None);
}

#[test]
fn the_same_rows_are_the_same_samples_however_they_are_written() {
    let (_dir, path) = file("a.csv", PETS);
    let expected = open_with(&path, &data("pet")).unwrap();
    let same = |name: &str, content: Vec<u8>, target: &str| {
        let (_dir, path) = file(name, content);
        let found = open_with(&path, &data(target)).unwrap();
        assert_eq!(vectors(&*found.train), vectors(&*expected.train), "{name}");
        assert_eq!(classes(&*found.train), classes(&*expected.train), "{name}");
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    same("crlf.csv", bytes(&PETS.replace('\n', "\r\n")), "pet");
    same("bom.csv", bytes(&format!("\u{feff}{PETS}")), "pet");
    same("semicolons.csv", bytes(&PETS.replace(',', ";")), "pet");
    same("tabs.tsv", bytes(&PETS.replace(',', "\t")), "pet");
    same("spaces.csv", bytes(&PETS.replace(',', " , ")), "pet");
    same("no-last-line-end.csv", bytes(PETS.trim_end()), "pet");
    same("blank-lines.csv", bytes(&format!("{PETS}\n\n")), "pet");
    same("quoted.csv", bytes(&PETS.replace("black", "\"black\"")), "pet");
    let lines = PETS.split_once('\n').unwrap().1;
    same("no-header.csv", bytes(lines), "4");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(PETS.as_bytes()).unwrap();
    same("packed.csv.gz", gzip.finish().unwrap(), "pet");
    let json: Vec<String> = lines.lines().map(json_of).collect();
    same("rows.jsonl", bytes(&json.join("\n")), "pet");
    // What it is, its content tells.
    same("called.csv", bytes(&json.join("\n")), "pet");
}

fn json_of(row: &str) -> String {
    let number =
        |field: &str| if ["", "?"].contains(&field) { "null".into() } else { field.to_string() };
    let fields: Vec<&str> = row.split(',').collect();
    let (age, weight) = (number(fields[0]), number(fields[1]));
    let (colour, pet) = (fields[2], fields[3]);
    format!(
        "{{\"age\": {age}, \"weight\": {weight}, \"colour\": \"{colour}\", \"pet\": \"{pet}\"}}"
    )
}

#[test]
fn quotes_hide_delimiters_line_ends_and_quotes() {
    let text = "name,x,y\n\"a, b\",1,u\n\"two\nlines\",2,v\n\"says \"\"hi\"\"\",3,u\n\"a, b\",1,u\n\"two\nlines\",2,v\n";
    let (_dir, path) = file("quoted.csv", text);
    let dataset = open_with(&path, &data("y")).unwrap();
    assert_eq!(dataset.train.len(), 5);
    let FeatureEncoding::Categories { values, shared, .. } =
        &fitted(&dataset).features[0].encoding.clone()
    else {
        panic!("a category")
    };
    assert_eq!((&values[..], *shared), (&["a, b".to_string(), "two\nlines".into()][..], 1));
}

#[test]
fn what_is_fitted_comes_from_the_training_part_alone() {
    let dir = tempdir().unwrap();
    let (train, test) = (dir.path().join("x-train.csv"), dir.path().join("x-test.csv"));
    fs::write(&train, "a,c,y\n0,p,no\n2,p,yes\n4,q,no\n6,q,yes\n").unwrap();
    // A number far off, a category and a missing value that the training part does not know, and labels of the census.
    fs::write(&test, "a,c,y\n300,new,no.\n,p,yes.\n").unwrap();
    let mut dataset = open_with(&train, &data("y")).unwrap();
    let scale = 5f32.sqrt();
    let found = vectors(&**dataset.test.as_ref().unwrap());
    assert!((found[0][0] - 297.0 / scale).abs() < 1e-4, "{found:?}");
    assert_eq!((&found[0][1..], &found[1][..]), (&[0.0, 0.0][..], &[0.0, 1.0, 0.0][..]));
    assert_eq!(classes(&**dataset.test.as_ref().unwrap()), [0, 1]);
    // Only rows 0 and 1 are trained on: mean 1, deviation 1, and q is not known.
    dataset.fit_on(&[1, 0]).unwrap();
    let kept = fitted(&dataset);
    let number = FeatureEncoding::Number { mean: 1.0, std: 1.0, missing: false };
    assert_eq!(kept.features[0].encoding, number);
    let category = |values: &[&str]| FeatureEncoding::Categories {
        values: values.iter().map(|value| value.to_string()).collect(),
        shared: 0,
        missing: false,
    };
    assert_eq!(kept.features[1].encoding, category(&["p"]));
    assert_eq!(vectors(&*dataset.train)[3], [5.0, 0.0]);
    assert_eq!(vectors(&**dataset.test.as_ref().unwrap())[0], [299.0, 0.0]);
    // A source that is told something about goes the same way.
    let told = DataConfig { decode: Some(inflight::decode::DecodeSize::Full), ..data("y") };
    let mut told = open_with(&train, &told).unwrap();
    told.fit_on(&[1, 0]).unwrap();
    assert_eq!(fitted(&told), kept);
    assert_eq!(vectors(&**told.test.as_ref().unwrap())[0], [299.0, 0.0]);
    // What came with a model stays.
    let fitted = Arc::new(kept);
    let data = data("y");
    let options = OpenOptions { data: Some(&data), fitted: Some(&fitted), ..Default::default() };
    let mut again = open(train.to_str().unwrap(), &options).unwrap();
    again.fit_on(&[2, 3]).unwrap();
    assert_eq!(again.train.fitted(), Some(&fitted));
    // Rows to predict for need no target, but every column that goes in.
    let rows = dir.path().join("rows.csv");
    fs::write(&rows, "c,a\np,2\n").unwrap();
    let source = open_rows(&rows, &fitted, &options).unwrap();
    assert_eq!(vectors(&*source), [[1.0, 1.0]]);
    fs::write(&rows, "c,b\np,2\nq,3\n").unwrap();
    let error = open_rows(&rows, &fitted, &options).err().unwrap().to_string();
    assert!(error.contains("found no column \"a\"") && error.contains("besides c, b"), "{error}");
    fs::write(&rows, "c,a\np,2\nq,three\n").unwrap();
    let error = open_rows(&rows, &fitted, &options).err().unwrap().to_string();
    assert!(error.contains("row 2 column a: found \"three\", expected a number"), "{error}");
}

#[test]
fn numbers_of_a_table_are_not_normalised_twice() {
    let (_dir, path) = file("a.csv", "a,c,y\n0,p,no\n2,p,yes\n4,q,no\n6,q,yes\n");
    let given = DataConfig { mean: Some(vec![0.5]), std: Some(vec![0.5]), ..data("y") };
    let error = open_with(&path, &given).err().expect("a table has its own").to_string();
    assert!(error.contains("--mean: found samples of F32, expected bytes"), "{error}");
}

#[test]
fn a_test_part_can_be_named_for_every_format() {
    let dir = tempdir().unwrap();
    let (a, b) = (dir.path().join("a.csv"), dir.path().join("b.csv"));
    fs::write(&a, PETS).unwrap();
    fs::write(&b, "pet,colour,weight,age\ncat,red,4,1\n").unwrap();
    let named = DataConfig { test: Some(b.clone()), ..data("pet") };
    let dataset = open_with(&a, &named).unwrap();
    let (train, test) = (vectors(&*dataset.train), vectors(&**dataset.test.as_ref().unwrap()));
    assert_eq!((test.len(), test[0].len()), (1, 6));
    assert_eq!(test[0][0], train[0][0]);
    fs::write(&b, "pet,colour,weight,age\nfish,red,4,1\n").unwrap();
    let error = open_with(&a, &named).err().unwrap().to_string();
    assert!(
        error.contains("row 1 column pet: found class \"fish\", expected one of cat, dog"),
        "{error}"
    );
}

#[test]
fn large_tables_are_the_same_as_small_ones() {
    // Several pieces, and a quoted line end in each row.
    let rows = 120_000;
    let mut text = String::from("x,note,y\n");
    for i in 0..rows {
        text.push_str(&format!("{i},\"a note of\n{} words\",{}\n", i % 3, ["u", "v"][i % 2]));
    }
    let (_dir, path) = file("large.csv", text);
    let dataset = open_with(&path, &data("y")).unwrap();
    assert_eq!(dataset.train.len(), rows);
    let FeatureEncoding::Number { mean, std, .. } = fitted(&dataset).features[0].encoding else {
        panic!("a number")
    };
    let n = rows as f64;
    assert!(
        (mean - (n - 1.0) / 2.0).abs() < 1e-6 && (std - ((n * n - 1.0) / 12.0).sqrt()).abs() < 1e-6
    );
    let mut scratch = Vec::new();
    for i in [0, 1, 54_321, rows - 1] {
        let sample = dataset.train.read(i, &mut scratch).unwrap();
        assert_eq!(sample.target, Target::Class((i % 2) as u32));
        let found: Vec<f32> = bytemuck::pod_collect_to_vec(sample.input);
        assert!((f64::from(found[0]) - (i as f64 - mean) / std).abs() < 1e-5, "{i}: {found:?}");
        assert_eq!(found.iter().filter(|&&x| x == 1.0).count(), 1, "{i}: {found:?}");
    }
    let error = dataset.train.read(rows, &mut scratch).err().unwrap().to_string();
    assert!(error.contains("found index 120000, expected below 120000"), "{error}");
}

fn png(grey: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::GrayImage::from_pixel(3, 2, image::Luma([grey]))
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[test]
fn lists_of_image_files_are_images() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    for (name, grey) in [("in/a.png", 10), ("in/b.png", 20)] {
        fs::write(dir.path().join(name), png(grey)).unwrap();
    }
    let list = dir.path().join("list.csv");
    fs::write(&list, "file,label\nin/a.png,dark\nin/b.png,light\nin/a.png,dark\n").unwrap();
    let dataset = open_with(&list, &DataConfig::default()).unwrap();
    assert_eq!(dataset.train.spec().input_shape, [1, 2, 3]);
    assert_eq!(dataset.train.info().class_names, ["dark", "light"]);
    let mut viewer = inflight::source::Viewer::default();
    let sample = viewer.read(&*dataset.train, 1).unwrap();
    assert_eq!((sample.input, sample.target), (&[20u8; 6][..], Target::Class(1)));
    let origin = dataset.train.origin(1).unwrap();
    assert!(origin.contains("list.csv row 2 (") && origin.ends_with("in/b.png)"), "{origin}");
    let error = |rows: &str| {
        fs::write(&list, format!("file,label\n{rows}")).unwrap();
        open_with(&list, &DataConfig::default()).err().unwrap().to_string()
    };
    let out = error("in/a.png,x\n../b.png,y\n");
    assert!(out.contains("row 2 column file: found \"../b.png\", which leads out of"), "{out}");
    assert!(error("/etc/a.png,x\n").contains("row 1 column file: found \"/etc/a.png\""));
    assert!(
        error("a.png,x\n").contains("not found") && error("a.png,x\n").contains("--image-root")
    );
    fs::write(&list, "a.png,dark\nb.png,light\n").unwrap();
    let root = DataConfig { image_root: Some(dir.path().join("in")), ..Default::default() };
    assert_eq!(open_with(&list, &root).unwrap().train.len(), 2);
}
