//! CSV and its relatives, JSON lines, Parquet and Arrow IPC: what good ones give, and what each bad one says.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use inflight::batch::{DType, TargetSpec};
use inflight::source::table::{FeatureEncoding, Fitted, FittedTarget};
use inflight::source::{DataConfig, Dataset, OpenOptions, Source, Target, Task, open, open_rows};
use inflight::{Error, ErrorKind};
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

/// Asserts what the error of opening a file says, where `{}` stands for its path.
#[track_caller]
fn assert_error(name: &str, content: impl AsRef<[u8]>, data: &DataConfig, expected: &str) -> Error {
    let (_dir, path) = file(name, content);
    let error = open_with(&path, data).err().unwrap_or_else(|| panic!("{name} opened"));
    let expected = expected.replace("{}", &path.display().to_string());
    assert!(error.to_string().contains(&expected), "{expected}\nis not in\n{error}");
    error
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
fn damaged_and_hostile_tables_are_refused() {
    let y = data("y");
    assert_error(
        "ragged.csv",
        "x,y\n1,a\n2\n3,b\n",
        &y,
        "{} row 2: found 1 fields, expected 2; try",
    );
    let many: String = (0..2000).map(|i| format!("{i},a\n")).collect();
    let late = format!("x,y\n{many}oops,b\n");
    assert_error(
        "late.csv",
        late,
        &y,
        "{} row 2001 column x: found \"oops\", expected a number; try correcting or emptying it, or --categorical x",
    );
    // Nor does it make the column one of categories where it stands among the rows that are looked at first.
    let early = format!("x,y\n1,a\noops,b\n{many}");
    assert_error("early.csv", early, &y, "{} row 2 column x: found \"oops\", expected a number");
    let prices: String = (0..50).map(|i| format!("{i},{}\n", i % 30 * 1000)).collect();
    assert_error(
        "prices.csv",
        format!("x,y\n{prices}"),
        &y,
        "{} column y: found 30 different values in 50 rows, expected classes that come again; try --task regress",
    );
    assert_error("inf.csv", format!("x,y\n{many}inf,b\n"), &y, "row 2001 column x: found \"inf\"");
    assert_error("empty.csv", "", &y, "{}: found an empty file");
    assert_error("blank.csv", "\n\n", &y, "{}: found an empty file");
    assert_error(
        "header.csv",
        "x,y\n",
        &DataConfig { header: Some(true), ..data("y") },
        "{}: found no row",
    );
    assert_error(
        "no-target.csv",
        "x,y\n1,a\n2,\n",
        &y,
        "{} row 2 column y: found no value, expected a target in every row",
    );
    assert_error("twice.csv", "x,x,y\n1,2,a\n", &y, "{}: found two columns called \"x\"");
    assert_error(
        "latin1.csv",
        b"x,y\n1,caf\xe9\n",
        &y,
        "{} row 1 column y: found bytes that are not UTF-8",
    );
    assert_error(
        "utf16.csv",
        b"\xff\xfex\0,\0y\0\n\0",
        &y,
        "{}: found UTF-16, expected UTF-8; try iconv",
    );
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01";
    assert_error("picture.csv", png, &y, "{}: found an image, expected a table as text");
    assert_error("binary.csv", [0u8; 64], &y, "{}: found binary data, expected a table as text");
    let open_quote = format!("x,y\n1,\"{}", "a\n".repeat(9 << 20));
    assert_error(
        "quote.csv",
        open_quote,
        &y,
        "found a row of over 16777216 bytes at byte 4, expected shorter ones; try looking for a quote",
    );
    let huge_field = format!("x,y\n{many}{},a\n", "7".repeat(1 << 20));
    assert_error("huge.csv", huge_field, &y, "row 2001 column x: found \"7777");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(late_rows().as_bytes()).unwrap();
    let packed = gzip.finish().unwrap();
    assert_error(
        "cut.csv.gz",
        &packed[..packed.len() / 2],
        &y,
        "{}: is damaged or cut short: not valid gzip data",
    );
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    let rows = "1,a\n".repeat(1 << 18);
    bomb.write_all(b"x,y\n").unwrap();
    (0..80).for_each(|_| bomb.write_all(rows.as_bytes()).unwrap());
    assert_error("bomb.csv.gz", bomb.finish().unwrap(), &y, "{}: unpacks to over 67108864 bytes");
    // JSON lines.
    assert_error(
        "cut.jsonl",
        "{\"x\": 1, \"y\": \"a\"}\n{\"x\": 2, \"y",
        &y,
        "{} row 2: is not a JSON object",
    );
    assert_error(
        "type.jsonl",
        json_rows("{\"x\": [1], \"y\": \"a\"}"),
        &y,
        "row 1501 column x: found a list or an object",
    );
    assert_error(
        "text.jsonl",
        json_rows("{\"x\": \"one\", \"y\": \"a\"}"),
        &y,
        "row 1501 column x: found \"one\", expected a number",
    );
    assert_error(
        "list.jsonl",
        "[{\"x\": 1, \"y\": \"a\"}]",
        &y,
        "{}: begins with \"[{\\\"x\\\": 1, \\\"y\\\": \\\"a\\\"}]\", expected a JSON object in every line; try jq -c",
    );
    assert_error(
        "fields.ndjson",
        "x,y\n1,a\n",
        &y,
        "expected a JSON object in every line; try a name",
    );
    assert_error("number.jsonl", json_rows("7"), &y, "row 1501: is not a JSON object");
    // A column of whole numbers with very many values is no class.
    let many: String = (0..2000).map(|i| format!("0.5,{i}\n")).collect();
    assert_error(
        "classes.csv",
        format!("x,y\n{many}"),
        &y,
        "{} column y: found 2000 different values, expected at most 1000 classes; try --task regress",
    );
}

/// Rows that compress badly, so that half of them is not nothing.
fn late_rows() -> String {
    let mut state = 1u32;
    let mut row = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{state},a\n")
    };
    format!("x,y\n{}", (0..20_000).map(&mut row).collect::<String>())
}

fn json_rows(last: &str) -> String {
    "{\"x\": 1, \"y\": \"a\"}\n".repeat(1500) + last
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

#[cfg(not(feature = "parquet"))]
#[test]
fn formats_that_are_not_built_in_say_so() {
    assert_error(
        "a.parquet",
        b"PAR1",
        &data("y"),
        "{}: found Parquet, which this build does not read; try cargo build --features parquet",
    );
    assert_error(
        "a.arrow",
        b"ARROW1\0\0",
        &data("y"),
        "{}: found Arrow IPC, which this build does not read",
    );
}

#[cfg(feature = "parquet")]
mod columnar {
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
        let age: ArrayRef = Arc::new(Float64Array::from(repeat(&[
            Some(1.0),
            Some(3.0),
            Some(5.0),
            None,
            Some(3.0),
        ])));
        let weight: ArrayRef = Arc::new(Float64Array::from(repeat(&[
            Some(4.0),
            None,
            Some(8.0),
            Some(12.0),
            Some(8.0),
        ])));
        let colour = ["black", "white", "black", "red", "black"].repeat(times);
        let colour: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter(colour));
        let pet: ArrayRef =
            Arc::new(StringArray::from(["cat", "cat", "dog", "dog", "cat"].repeat(times)));
        let columns = [("age", age), ("weight", weight), ("colour", colour), ("pet", pet)];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)))
            .unwrap()
    }

    fn write(path: &Path, batch: &RecordBatch, group_rows: usize, names: Option<&str>) {
        let pairs = names
            .map(|names| vec![KeyValue::new("inflight.class_names".into(), names.to_string())]);
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
    fn groups_that_are_read_as_needed_are_those_that_were_in_memory() {
        let dir = tempdir().unwrap();
        let path = dir.path().join("many.parquet");
        write(&path, &pets(1000), 700, None);
        let all = open_with(&path, &data("pet")).unwrap();
        let some =
            open_with(&path, &DataConfig { table_bytes: Some(30_000), ..data("pet") }).unwrap();
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
        assert!(
            error.contains("b.parquet column weight: is missing, expected it as in "),
            "{error}"
        );
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
            [&whole[..at], &[0x4c, 0x15, 0xfe, 0xff, 0xff, 0xff, 0xf, 0x15], &whole[at + 4..]]
                .concat();
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
        let columns: [(&str, ArrayRef); 2] =
            [("image", Arc::new(images)), ("label", Arc::new(label))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        write(&path, &batch, 2, Some("[\"dark\", \"light\", \"none\"]"));
        let dataset = open_with(&path, &DataConfig::default()).unwrap();
        assert_eq!(dataset.train.spec().input_shape, [1, 2, 3]);
        assert_eq!(dataset.train.spec().classes(), Some(3));
        assert_eq!(dataset.train.info().class_names, ["dark", "light", "none"]);
        let mut viewer = inflight::source::Viewer::default();
        for (i, class) in [0, 1, 1, 0, 1].into_iter().enumerate() {
            let sample = viewer.read(&*dataset.train, i).unwrap();
            assert_eq!(
                (sample.input, sample.target),
                (&[10 * i as u8; 6][..], Target::Class(class))
            );
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
}
