//! Data sets without any fault in the ways in which a format can be written, for a fuzzer to begin with: what it has never seen
//! whole it seldom finds.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use super::{Format, joined, npy, npy_of, png};

/// Bytes of a file of `tests/pixels` at most: a fuzzer gets further with short ones.
const PICTURE_BYTES_MAX: usize = 6000;

impl Format {
    /// The [`seed`](Self::seed), and others that are written in another way.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        let mut all = vec![self.seed()];
        all.extend(match self {
            Self::Cifar => vec![],
            Self::Idx => vec![idx_packed()],
            Self::Npy => arrays().map(|[x, y]| joined(&x, &y)).into(),
            Self::Npz => arrays().map(|[x, y]| archive(&x, &y)).into(),
            Self::Image => pictures(),
            Self::Csv => delimited(),
            Self::JsonLines => json_lines(),
            Self::Safetensors => tensors(),
            Self::WebDataset => shards(),
            Self::Text => vec!["Ça, où?\r\n日本\u{1f600}\u{0}\n".repeat(3).into()],
            Self::Tokens => vec![of_llm_c(20_240_520, 1, 2), of_llm_c(20_240_801, 7, 4)],
            #[cfg(feature = "parquet")]
            Self::Parquet => super::columns::parquets(),
            #[cfg(feature = "parquet")]
            Self::Arrow => super::columns::arrows(),
            #[cfg(not(feature = "parquet"))]
            Self::Parquet | Self::Arrow => vec![],
        });
        all
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(bytes).expect("writes");
    packed.finish().expect("finishes")
}

/// The seed with both files packed.
fn idx_packed() -> Vec<u8> {
    let seed = Format::Idx.seed();
    let (images, labels) = super::split(&seed);
    joined(&gzip(images), &gzip(labels))
}

/// Inputs and targets of the types that arrays have, in each version of the format and both orders.
fn arrays() -> [[Vec<u8>; 2]; 5] {
    let floats = |bytes: usize| -> Vec<u8> {
        let number = |i: u8| f64::from(i) / 7.0;
        match bytes {
            4 => (0..24).flat_map(|i| (number(i) as f32).to_le_bytes()).collect(),
            _ => (0..24).flat_map(|i| number(i).to_le_bytes()).collect(),
        }
    };
    let labels = |bytes: usize| -> Vec<u8> {
        [0u64, 1, 2, 1].iter().flat_map(|label| label.to_le_bytes()[..bytes].to_vec()).collect()
    };
    [
        [npy("<f4", "4, 6", &floats(4)), npy("<i8", "4,", &labels(8))],
        [npy("<f8", "4, 1, 3, 2", &floats(8)), npy("<i4", "4, 1", &labels(4))],
        [npy_of(2, "<f4", true, "4, 3, 2", &floats(4)), npy("<u2", "4,", &labels(2))],
        [npy_of(3, "|u1", true, "4, 6", &[9; 24]), npy("<u8", "4,", &labels(8))],
        [npy("|u1", "4, 2, 3", &[3; 24]), npy("<f4", "4, 2", &floats(4)[..32])],
    ]
}

/// Arrays of an archive that is packed.
fn archive(x: &[u8], y: &[u8]) -> Vec<u8> {
    let packed = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("x.npy", x), ("y.npy", y)] {
        archive.start_file(name, packed).expect("starts");
        archive.write_all(bytes).expect("writes");
    }
    archive.finish().expect("finishes").into_inner()
}

/// A folder of the repository.
fn in_tree(folder: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if here.join("fuzz").is_dir() { here } else { here.parent().expect("is below it") };
    root.join(folder)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("is in-tree");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("reads").path()).collect();
    paths.sort();
    paths
}

/// What a fuzzer found once, each mended since.
pub fn found() -> Vec<(Format, Vec<u8>)> {
    let mut found = Vec::new();
    for folder in files(&in_tree("fuzz/found")) {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let format = Format::all().into_iter().find(|format| format.target() == name);
        let format = match format {
            Some(format) => format,
            // Without a feature some formats are not read.
            None if cfg!(not(feature = "parquet")) => continue,
            None => panic!("{name} is no format"),
        };
        let bytes = |path| std::fs::read(path).expect("reads");
        found.extend(files(&folder).into_iter().map(|path| (format, bytes(path))));
    }
    found
}

/// The short ones of `tests/pixels`: all formats, samplings, orientations and depths.
fn pictures() -> Vec<Vec<u8>> {
    let named = |path: &PathBuf| {
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        ["bmp", "gif", "jpg", "png", "webp"].contains(&&*extension)
    };
    let paths = files(&in_tree("tests/pixels")).into_iter().filter(named);
    let read = paths.map(|path| std::fs::read(path).expect("reads"));
    read.filter(|bytes| bytes.len() <= PICTURE_BYTES_MAX).collect()
}

fn delimited() -> Vec<Vec<u8>> {
    let plain =
        "age,job,income\n39,clerk,low\n50,,high\n-1.5e3,\"a \"\"b\"\"\nc\",low\nnan,clerk,high\n";
    let rows = "5.1;3.5;setosa\r\n4.9;3.0;setosa\r\n7.0;3.2;versicolor\r\n6.4;3.2;versicolor\r\n";
    let tabs = "name\twhen\ty\na\t2020-01-02\t1.5\nb\t\t2.5\n'c'\t2021-12-31\t-0.25\n";
    vec![
        plain.into(),
        format!("\u{feff}{plain}").into(),
        gzip(plain.as_bytes()),
        rows.into(),
        tabs.into(),
        rows.replace(';', "|").into(),
        "1,0\n2,1\n3,0\n4,1".into(),
    ]
}

fn json_lines() -> Vec<Vec<u8>> {
    let plain = concat!(
        "{\"a\":1.5e3,\"b\":\"\\u00e9\\\"\\n\",\"c\":true,\"y\":\"n\"}\n",
        "{\"b\":\"\\ud83d\\ude00\",\"a\":-0,\"y\":\"m\"}\r\n\n",
        "{\"a\":null,\"c\":false,\"b\":\"\",\"y\":\"n\"}"
    );
    let targets = "{\"x\":1,\"y\":0.5}\n{\"x\":2,\"y\":1.5}\n{\"x\":3,\"y\":-2}\n";
    vec![plain.into(), gzip(plain.as_bytes()), targets.into()]
}

fn tensors() -> Vec<Vec<u8>> {
    let file = |head: &str, data: &[u8]| {
        [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), data].concat()
    };
    let labels: Vec<u8> = [0i64, 1, 2, 1].iter().flat_map(|label| label.to_le_bytes()).collect();
    let of = |dtype: &str, bytes: usize| {
        let head = format!(
            r#"{{"__metadata__":{{"format":"pt"}},"y":{{"dtype":"I64","shape":[4],"data_offsets":[0,32]}},"x":{{"dtype":"{dtype}","shape":[4,6],"data_offsets":[32,{}]}}}}"#,
            32 + 24 * bytes
        );
        file(&head, &[&labels[..], &vec![0x3c; 24 * bytes]].concat())
    };
    vec![of("F16", 2), of("BF16", 2), of("F32", 4), of("F64", 8)]
}

/// Shards with long names, with attributes, and with other members.
fn shards() -> Vec<Vec<u8>> {
    let entry = |archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], gnu: bool| {
        let mut header = if gnu { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).expect("appends");
    };
    let shard = |prefix: &str, gnu: bool, members: &dyn Fn(u8) -> [(&'static str, Vec<u8>); 2]| {
        let mut archive = tar::Builder::new(Vec::new());
        for i in 0..3 {
            for (extension, bytes) in members(i) {
                if !gnu {
                    let comment = [("comment", &b"of no use"[..])];
                    archive.append_pax_extensions(comment).expect("appends");
                }
                entry(&mut archive, &format!("{prefix}{i}.{extension}"), &bytes, gnu);
            }
        }
        archive.into_inner().expect("finishes")
    };
    let long = "folder/".repeat(20);
    let json = |i| format!("{{\"label\": {i}, \"text\": \"caf\\u00e9\"}}").into_bytes();
    vec![
        shard(&long, true, &|i| [("png", png(i)), ("cls", vec![b'0' + i])]),
        shard("a", false, &|i| [("png", png(i)), ("cls", format!("{i}\n").into())]),
        shard("b", true, &|i| [("jpg", Format::Image.seed()), ("json", json(i))]),
    ]
}

/// Tokens with the header of llm.c.
fn of_llm_c(magic: u32, version: u32, width: usize) -> Vec<u8> {
    let mut words = vec![0; 256];
    words[..3].copy_from_slice(&[magic, version, 40]);
    let head: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    let tokens = (0..40u32).flat_map(|token| token.to_le_bytes()[..width].to_vec());
    head.into_iter().chain(tokens).collect()
}
