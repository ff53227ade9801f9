//! Any bytes, opened as a data set of some format and read through: the outcome is samples, or an error that names the
//! file. Shared by the fuzz targets and by `tests/hostile.rs`, which damages each format's [`seed`](Format::seed).

#[cfg(feature = "parquet")]
pub mod claims;
#[cfg(feature = "parquet")]
pub mod columns;
pub mod kept;
mod seeds;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

pub use kept::{ALL, Kept, read_kept};
pub use seeds::found;

use inflight::source::{DataConfig, ENDLESS, OpenOptions, Source, Viewer, open};

/// A format that data sets come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Images and labels, see [`joined`].
    Idx,
    /// CIFAR-10 batches.
    Cifar,
    /// Two arrays, see [`joined`].
    Npy,
    /// An archive of arrays.
    Npz,
    /// An image in a folder of classes.
    Image,
    /// Comma-separated values, the target last.
    Csv,
    /// A table, a JSON object a line.
    JsonLines,
    /// A Parquet table.
    Parquet,
    /// An Arrow IPC table.
    Arrow,
    /// Tensors.
    Safetensors,
    /// A tar archive of samples.
    WebDataset,
    /// Text, whose bytes are tokens.
    Text,
    /// Token files of 16 bits.
    Tokens,
}

/// Samples read at most: more of the same tell nothing new.
const SAMPLES_MAX: usize = 64;

impl Format {
    /// All formats that this build reads.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Idx,
            Self::Cifar,
            Self::Npy,
            Self::Npz,
            Self::Image,
            Self::Csv,
            Self::JsonLines,
            Self::Safetensors,
            Self::WebDataset,
            Self::Text,
            Self::Tokens,
        ];
        if cfg!(feature = "parquet") {
            all.extend([Self::Parquet, Self::Arrow]);
        }
        all
    }

    /// The name of its fuzz target, and of its folders of seeds.
    pub fn target(self) -> String {
        match self {
            Self::JsonLines => "json_lines".into(),
            _ => format!("{self:?}").to_lowercase(),
        }
    }

    /// Writes `bytes` as a data set of this format into an empty folder; returns what to open.
    fn write(self, bytes: &[u8], dir: &Path) -> PathBuf {
        let put = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("makes folders");
            fs::write(&path, bytes).expect("writes");
            path
        };
        let (first, second) = split(bytes);
        match self {
            Self::Idx => {
                put("train-images-idx3-ubyte", first);
                put("train-labels-idx1-ubyte", second);
                dir.into()
            }
            Self::Npy => {
                put("x.npy", first);
                put("y.npy", second);
                dir.into()
            }
            Self::Cifar => {
                put("data_batch_1.bin", bytes);
                dir.into()
            }
            Self::Image => {
                put("a/1.jpg", bytes);
                put("b/1.png", &png(3));
                dir.into()
            }
            Self::Npz => put("data.npz", bytes),
            Self::Csv => put("data.csv", bytes),
            Self::JsonLines => put("data.jsonl", bytes),
            Self::Parquet => put("data.parquet", bytes),
            Self::Arrow => put("data.arrow", bytes),
            Self::Safetensors => put("data.safetensors", bytes),
            Self::WebDataset => put("data.tar", bytes),
            Self::Text => put("data.txt", bytes),
            Self::Tokens => put("data.bin", bytes),
        }
    }

    fn config(self) -> DataConfig {
        let mut config = DataConfig::default();
        match self {
            Self::Csv | Self::JsonLines | Self::Parquet | Self::Arrow => {
                config.target = Some("last".into());
            }
            Self::Image | Self::WebDataset => {
                (config.image_size, config.channels) = (Some(8), Some(3));
            }
            Self::Text | Self::Tokens => config.context = Some(4),
            _ => {}
        }
        config
    }

    /// A small data set of this format without any fault.
    pub fn seed(self) -> Vec<u8> {
        match self {
            Self::Idx => {
                let head = |dims: &[u32]| {
                    let mut head = vec![0, 0, 8, dims.len() as u8];
                    head.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
                    head
                };
                let images = [head(&[4, 3, 2]), (0..24).collect()].concat();
                joined(&images, &[head(&[4]), vec![0, 1, 2, 1]].concat())
            }
            Self::Cifar => (0..4).flat_map(|i| [vec![i], vec![i * 9; 3072]].concat()).collect(),
            Self::Npy => joined(&npy("|u1", "4, 3, 2", &[7; 24]), &npy("|u1", "4,", &[0, 1, 2, 1])),
            Self::Npz => {
                let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
                let arrays =
                    [("x.npy", npy("|u1", "4, 3, 2", &[7; 24])), ("y.npy", npy("|u1", "4,", &[0, 1, 2, 1]))];
                for (name, bytes) in arrays {
                    archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("starts");
                    archive.write_all(&bytes).expect("writes");
                }
                archive.finish().expect("finishes").into_inner()
            }
            Self::Image => {
                let mut bytes = std::io::Cursor::new(Vec::new());
                let picture = image::RgbImage::from_fn(20, 12, |x, y| image::Rgb([x as u8 * 9, y as u8 * 20, 7]));
                picture.write_to(&mut bytes, image::ImageFormat::Jpeg).expect("encodes");
                bytes.into_inner()
            }
            Self::Csv => b"age,job,income\n39,clerk,low\n50,,high\n?,\"farm, er\",low\n28,clerk,high\n".to_vec(),
            Self::JsonLines => {
                b"{\"age\":39,\"job\":\"clerk\",\"label\":\"a\"}\n{\"age\":null,\"job\":\"x\",\"label\":\"b\"}\n".to_vec()
            }
            #[cfg(feature = "parquet")]
            Self::Parquet => columns::parquet(),
            #[cfg(feature = "parquet")]
            Self::Arrow => columns::arrow(),
            #[cfg(not(feature = "parquet"))]
            Self::Parquet | Self::Arrow => Vec::new(),
            Self::Safetensors => {
                let head = r#"{"x":{"dtype":"U8","shape":[4,3,2],"data_offsets":[0,24]},"y":{"dtype":"U8","shape":[4],"data_offsets":[24,28]}}"#;
                let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
                bytes.extend_from_slice(head.as_bytes());
                bytes.extend([vec![5; 24], vec![0, 1, 2, 1]].concat());
                bytes
            }
            Self::WebDataset => {
                let mut archive = tar::Builder::new(Vec::new());
                for i in 0..3u8 {
                    for (extension, bytes) in [("png", png(i)), ("cls", vec![b'0' + i])] {
                        let mut header = tar::Header::new_ustar();
                        header.set_size(bytes.len() as u64);
                        header.set_mode(0o644);
                        let name = format!("{i}.{extension}");
                        archive.append_data(&mut header, name, &bytes[..]).expect("appends");
                    }
                }
                archive.into_inner().expect("finishes")
            }
            Self::Text => b"To be, or not to be, that is the question.\n".repeat(3),
            Self::Tokens => (0..60u16).flat_map(|i| (i % 17).to_le_bytes()).collect(),
        }
    }
}

/// Two files as one run of bytes: the length of the first in four bytes, then both.
pub fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    [&(first.len() as u32).to_le_bytes(), first, second].concat()
}

fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return (bytes, &[]) };
    rest.split_at(rest.len().min(u32::from_le_bytes(*len) as usize))
}

/// A file of NumPy, format 1.0, in C's order.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy_of(1, descr, false, shape, data)
}

/// A file of NumPy, of a version of the format and an order of dimensions.
fn npy_of(version: u8, descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let fortran = if fortran { "True" } else { "False" };
    let head = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({shape}), }}");
    // Data begin at a multiple of 64 bytes.
    let width = if version == 1 { 117 } else { 115 };
    let head = format!("{head:<width$}\n");
    let len = (head.len() as u32).to_le_bytes();
    let len = if version == 1 { &len[..2] } else { &len[..] };
    [&b"\x93NUMPY"[..], &[version, 0], len, head.as_bytes(), data].concat()
}

fn png(grey: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_pixel(9, 8, image::Rgb([grey * 40; 3]));
    picture.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
    bytes.into_inner()
}

/// Opens `bytes` as `format` in the empty folder `dir` and reads its samples; how many were read.
///
/// # Errors
/// In one line, when they are refused.
///
/// # Panics
/// When the error does not name a file below `dir`.
pub fn read(format: Format, bytes: &[u8], dir: &Path) -> Result<usize, String> {
    let path = format.write(bytes, dir);
    let found = read_through(&path, &format.config(), dir);
    for entry in fs::read_dir(dir).expect("lists the folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .expect("removes");
    }
    found.map_err(|error| {
        let message = error.to_string();
        let named = message.contains(&*dir.to_string_lossy());
        assert!(
            named && !message.contains('\n'),
            "{format:?}: {message:?} names no file below {dir:?}"
        );
        message
    })
}

fn read_through(path: &Path, data: &DataConfig, cache: &Path) -> inflight::Result<usize> {
    let options = OpenOptions {
        offline: true,
        data: Some(data),
        cache_dir: Some(cache),
        ..Default::default()
    };
    let dataset = open(&path.to_string_lossy(), &options)?;
    let mut read = 0;
    for source in [Some(dataset.train), dataset.test].into_iter().flatten() {
        read += read_samples(&*source)?;
    }
    Ok(read)
}

fn read_samples(source: &dyn Source) -> inflight::Result<usize> {
    assert_ne!(source.len(), ENDLESS, "files have an end");
    let mut viewer = Viewer::default();
    let count = source.len().min(SAMPLES_MAX);
    for index in 0..count {
        let sample = viewer.read(source, index)?;
        assert_eq!(sample.input.len(), source.spec().input_bytes(), "sample {index}");
    }
    Ok(count)
}

/// What a fuzz target does with its input: everything in memory, where the system has a file system there.
pub fn fuzz(format: Format, bytes: &[u8]) {
    // Both are outcomes; what must not happen is everything else.
    let _ = in_memory(|dir| read(format, bytes, dir));
}

/// As [`fuzz`], of what is kept besides data sets.
pub fn fuzz_kept(kept: Kept, bytes: &[u8]) {
    let _ = in_memory(|dir| read_kept(kept, bytes, dir));
}

fn in_memory<T>(act: impl FnOnce(&Path) -> T) -> T {
    thread_local! {
        static DIR: tempfile::TempDir = {
            let memory = Path::new("/dev/shm");
            let place = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
            tempfile::tempdir_in(place).expect("a temporary folder")
        };
    }
    static HOOK: Once = Once::new();
    // The fuzzer's hook ends the process in every panic, also in one that a reader catches and turns into its error.
    // Without it a panic that nobody catches still ends the process, a little later.
    HOOK.call_once(|| drop(std::panic::take_hook()));
    DIR.with(|dir| act(dir.path()))
}
