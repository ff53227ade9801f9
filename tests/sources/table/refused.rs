//! Tables that are refused, and what is said of each.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use inflight::Error;
use inflight::source::DataConfig;

use super::{data, file, open_with};

/// Asserts what the error of opening a file says, where `{}` stands for its path.
#[track_caller]
fn assert_error(name: &str, content: impl AsRef<[u8]>, data: &DataConfig, expected: &str) -> Error {
    let (_dir, path) = file(name, content);
    let error = open_with(&path, data).err().unwrap_or_else(|| panic!("{name} opened"));
    let expected = expected.replace("{}", &path.display().to_string());
    assert!(error.to_string().contains(&expected), "{expected}\nis not in\n{error}");
    error
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
    let open_quote = format!("x,y\n1,\"{}", "a\n".repeat(9 << 20));
    assert_error(
        "quote.csv",
        open_quote,
        &y,
        "found a row of over 16777216 bytes at byte 4, expected shorter ones; try looking for a quote",
    );
    let huge_field = format!("x,y\n{many}{},a\n", "7".repeat(1 << 20));
    assert_error("huge.csv", huge_field, &y, "row 2001 column x: found \"7777");
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
    // A column of whole numbers with very many values is no class.
    let values: String = (0..2000).map(|i| format!("0.5,{i}\n")).collect();
    assert_error(
        "classes.csv",
        format!("x,y\n{values}"),
        &y,
        "{} column y: found 2000 different values, expected at most 1000 classes; try --task regress",
    );
}

#[test]
fn files_that_are_no_tables_are_refused() {
    let y = data("y");
    assert_error("empty.csv", "", &y, "{}: found an empty file");
    assert_error("blank.csv", "\n\n", &y, "{}: found an empty file");
    assert_error(
        "utf16.csv",
        b"\xff\xfex\0,\0y\0\n\0",
        &y,
        "{}: found UTF-16, expected UTF-8; try iconv",
    );
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01";
    assert_error("picture.csv", png, &y, "{}: found an image, expected a table as text");
    assert_error("binary.csv", [0u8; 64], &y, "{}: found binary data, expected a table as text");
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
}

#[test]
fn damaged_json_lines_are_refused() {
    let y = data("y");
    assert_error(
        "cut.jsonl",
        "{\"x\": 1, \"y\": \"a\"}\n{\"x\": 2, \"y",
        &y,
        "{} row 2: is not a JSON object",
    );
    assert_error(
        "pretty.jsonl",
        "{\n  \"x\": 1,\n  \"y\": \"a\"\n}\n",
        &y,
        "{} row 1: is not a JSON object: EOF while parsing an object at byte 1; try jq -c .",
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
