//! Any bytes in the place of what is kept besides data sets: checkpoints, weights, configurations, archives that were
//! fetched, tokenizers. The outcome is something whole, or an error of one line a difference.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::executor::Snapshot;
use inflight::graph::plan::Program;
use inflight::nn::layers::Layer;
use inflight::nn::sequential::Sequential;
use inflight::source::Synthetic;
use inflight::testing::unpack_archive;
use inflight::tokenizer::Tokenizer;
use inflight::train::book::Progress;
use inflight::train::checkpoint;
use inflight::train::weights::Weights;
use inflight::{RunConfig, Trainer};
use sha2::{Digest, Sha256};

use super::{joined, split};

/// Something that is kept in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A manifest, weights and state, see [`joined`]; also with hashes made to fit, so that what follows them is read.
    Checkpoint,
    /// A safetensors file for a small model.
    Weights,
    /// The TOML of a run.
    Config,
    /// A tar archive out of which two files are wanted; it is compressed before it is read.
    Archive,
    /// A `tokenizer.json`.
    Tokenizer,
    /// A `vocab.json` and the merges to it, see [`joined`].
    Vocabulary,
}

/// All that this build reads.
pub const ALL: &[Kept] = &[
    Kept::Checkpoint,
    Kept::Weights,
    Kept::Config,
    Kept::Archive,
    #[cfg(feature = "tokenizers")]
    Kept::Tokenizer,
    #[cfg(feature = "tokenizers")]
    Kept::Vocabulary,
];

const FILES: [&str; 3] = ["manifest.json", "model.safetensors", "state.safetensors"];

fn spec() -> SampleSpec {
    SampleSpec {
        input_shape: vec![1, 2, 2],
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: 2 },
    }
}

fn program() -> &'static Program {
    static PROGRAM: OnceLock<Program> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Arc::new(Synthetic::new(4, spec(), 0).expect("a source"));
        let layers = vec![Layer::batch_norm(), Layer::flatten(), Layer::classes()];
        let model = Sequential::new(layers, &spec()).expect("fits");
        let config = RunConfig { batch_size: 2, device: "cpu".into(), ..Default::default() };
        Trainer::builder(model, source).config(config).program().expect("compiles")
    })
}

impl Kept {
    /// One without any fault.
    pub fn seed(self) -> Vec<u8> {
        match self {
            Self::Checkpoint => {
                let [manifest, model, state] = saved();
                joined(&manifest, &joined(&model, &state))
            }
            Self::Weights => saved()[1].clone(),
            Self::Config => concat!(
                "dataset = 'x.csv'\nepochs = 3\nlr = 0.1\noptimizer = 'sgd'\nschedule = 'cosine'\n",
                "checkpoint_every = '30s'\nkeep_best = 'val_accuracy'\non_nan = 'rollback'\n",
                "transforms = ['horizontal_flip', { type = 'resize', size = 4 }]\n",
                "[data]\ntarget = 'y'\n[[model.layers]]\ntype = 'flatten'\n",
                "[[model.layers]]\ntype = 'linear'\nout = 'classes'\n"
            )
            .into(),
            Self::Archive => {
                let mut archive = tar::Builder::new(Vec::new());
                for (name, bytes) in WANTED {
                    let mut header = tar::Header::new_ustar();
                    header.set_size(bytes.len() as u64);
                    header.set_mode(0o644);
                    archive.append_data(&mut header, name, bytes).expect("appends");
                }
                archive.into_inner().expect("finishes")
            }
            Self::Tokenizer => TOKENIZER.into(),
            Self::Vocabulary => joined(VOCABULARY, b"#version: 0.2\nT o\nb e\n\xc4\xa0 be\n"),
        }
    }
}

const VOCABULARY: &[u8] =
    br#"{"T":0,"o":1,"b":2,"e":3,"\u0120":4,"To":5,"be":6,"\u0120be":7,"<|endoftext|>":9}"#;

/// With a part of every kind that byte-level tokenizers are saved with.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":9,
"content":"<|endoftext|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"String":"'"},"content":"o"}]},
"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"'s|\\p{L}+| ?\\d{1,3}|\\s+(?!\\S)"},
"behavior":"Isolated","invert":false},{"type":"Digits","individual_digits":true},{"type":"ByteLevel",
"add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},"post_processor":{"type":"ByteLevel",
"add_prefix_space":true,"trim_offsets":false,"use_regex":true},"decoder":{"type":"ByteLevel","add_prefix_space":true,
"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,"unk_token":"o",
"continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"T":0,"o":1,"b":2,"e":3,"\u0120":4,"To":5,"be":6,"\u0120be":7},"merges":["T o","b e","\u0120 be"]}}"#;

/// What tokenizers are tried on: words, numbers, signs of several bytes, blanks, something that looks like the end.
const TEXT: &str =
    "To be, or not  to be: 12345 caf\u{e9}s \u{65e5}\u{672c}\n\n\u{1f600}'s \0 <|endoftext|>\t";

/// Opens a tokenizer and tokenizes a text; every token must be one of the vocabulary.
fn tokenize(path: &Path) -> Result<(), String> {
    let name = path.to_string_lossy();
    let tokenizer = Tokenizer::open(&name).map_err(|error| {
        let message = error.to_string();
        assert!(message.contains(&*name) && !message.contains('\n'), "{message:?} names no file");
        message
    })?;
    let count = tokenizer.vocabulary();
    for token in tokenizer.encode(TEXT).map_err(|error| error.to_string())? {
        assert!((token as usize) < count, "token {token} of {count}");
    }
    assert!(tokenizer.bytes(count as u32).is_empty(), "there is no such token");
    assert!(tokenizer.end().is_none_or(|end| (end as usize) < count), "{:?}", tokenizer.end());
    Ok(())
}

const WANTED: [(&str, &[u8]); 2] = [("in/x", b"12345"), ("in/y", b"123")];

/// The files of a checkpoint of the program.
fn saved() -> [Vec<u8>; 3] {
    let (dir, program) = (tempfile::tempdir().expect("a folder"), program());
    let arenas =
        program.persistent_arenas().map(|arena| (arena, vec![0.5; program.arenas[&arena]]));
    let snapshot = Snapshot { arenas: arenas.collect() };
    let progress = Progress { step: 3, ..Default::default() };
    let report = checkpoint::save(dir.path(), program, 1, &snapshot, progress, 2).expect("saves");
    FILES.map(|file| fs::read(report.path.join(file)).expect("is there"))
}

/// Reads `bytes` as `kept` in the empty folder `dir`.
///
/// # Errors
/// When they are refused.
///
/// # Panics
/// When something was written outside of where it belongs, or what is accepted is not what it claims to be.
pub fn read_kept(kept: Kept, bytes: &[u8], dir: &Path) -> Result<(), String> {
    let message = |error: inflight::Error| error.to_string();
    // What one leaves is not in the way of another.
    let dir = &dir.join(format!("{kept:?}"));
    fs::create_dir_all(dir).expect("makes a folder");
    match kept {
        Kept::Checkpoint => {
            let (manifest, rest) = split(bytes);
            let (model, state) = split(rest);
            let outcome = read_checkpoint([manifest, model, state], dir).map_err(message);
            match with_hashes(manifest, model, state) {
                Some(manifest) => read_checkpoint([&manifest, model, state], dir).map_err(message),
                None => outcome,
            }
        }
        Kept::Weights => Weights::parse("weights", bytes)
            .and_then(|weights| weights.place(program()))
            .map(drop)
            .map_err(message),
        Kept::Config => {
            let text = String::from_utf8_lossy(bytes);
            let config = RunConfig::parse(&text, "run.toml").map_err(message)?;
            config.validate().map_err(message)?;
            config.save(dir).map_err(message)?;
            let again = RunConfig::load(&dir.join("config.toml")).expect("what was saved is read");
            again.validate().expect("and as good as it was");
            // Sizes that are not checked before a model is built are caught there.
            config.model.build(&spec()).map(drop).map_err(message)
        }
        Kept::Archive => {
            let (file, into) = (dir.join("archive"), dir.join("into"));
            fs::create_dir_all(&into).expect("makes a folder");
            fs::write(&file, zipped(bytes)).expect("writes");
            let wanted = WANTED.map(|(name, bytes)| (name, bytes.len() as u64));
            let outcome = unpack_archive(&file, &wanted, &into).map_err(message);
            let mut names: Vec<_> = fs::read_dir(dir)
                .expect("lists")
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            names.sort();
            assert_eq!(names, ["archive", "into"], "something lies outside");
            if outcome.is_ok() {
                for (name, len) in wanted {
                    assert_eq!(fs::metadata(into.join(name)).expect("is there").len(), len);
                }
            }
            fs::remove_dir_all(&into).expect("removes");
            outcome
        }
        Kept::Tokenizer => {
            let path = dir.join("tokenizer.json");
            fs::write(&path, bytes).expect("writes");
            tokenize(&path)
        }
        Kept::Vocabulary => {
            let (vocabulary, merges) = split(bytes);
            fs::write(dir.join("vocab.json"), vocabulary).expect("writes");
            fs::write(dir.join("merges.txt"), merges).expect("writes");
            tokenize(dir)
        }
    }
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zip.write_all(bytes).expect("writes");
    zip.finish().expect("finishes")
}

fn read_checkpoint(files: [&[u8]; 3], run: &Path) -> inflight::Result<()> {
    let folder = run.join("checkpoints").join("step-3");
    fs::create_dir_all(&folder).expect("makes folders");
    for (file, bytes) in FILES.iter().zip(files) {
        fs::write(folder.join(file), bytes).expect("writes");
    }
    let listed = checkpoint::survey(run)?;
    let verified = listed[0].verify();
    let latest = checkpoint::latest(run);
    assert_eq!(verified.is_ok(), latest.is_ok(), "{verified:?} {latest:?}");
    latest?.checkpoint.restore(program()).map(drop)
}

/// The manifest with the hashes of what lies beside it, if it is one of any kind.
fn with_hashes(manifest: &[u8], model: &[u8], state: &[u8]) -> Option<Vec<u8>> {
    let sha256 = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let mut value: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    for (file, bytes) in [(FILES[1], model), (FILES[2], state)] {
        let entry = value.get_mut("files")?.get_mut(file)?;
        *entry = serde_json::json!({ "bytes": bytes.len(), "sha256": sha256(bytes) });
    }
    let zeros = "0".repeat(64);
    *value.get_mut("sha256")? = zeros.clone().into();
    let text = serde_json::to_string(&value).ok()?;
    let at = text.rfind(&zeros)?;
    Some([&text[..at], &sha256(text.as_bytes()), &text[at + 64..]].concat().into_bytes())
}
