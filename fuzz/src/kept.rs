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
use inflight::nn::models::ModelConfig;
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

fn tokens() -> SampleSpec {
    SampleSpec {
        input_shape: vec![4],
        input_dtype: DType::U16,
        target: TargetSpec::Tokens { len: 4, vocabulary: 256, document_end: None },
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
            Self::Archive => archived(false),
            Self::Tokenizer => TOKENIZER.into(),
            Self::Vocabulary => joined(VOCABULARY, b"#version: 0.2\nT o\nb e\n\xc4\xa0 be\n"),
        }
    }

    /// As [`Self::seed`], in the ways in which it is written.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        let others = match self {
            Self::Config => {
                let dir = tempfile::tempdir().expect("a folder");
                let model = ModelConfig::Name("mlp".into());
                let config = RunConfig { model, seed: 7, ..Default::default() };
                config.save(dir.path()).expect("saves");
                let saved = fs::read(dir.path().join("config.toml")).expect("is there");
                CONFIGS.iter().map(|text| text.as_bytes().to_vec()).chain([saved]).collect()
            }
            Self::Archive => vec![archived(true)],
            Self::Tokenizer => TOKENIZERS.map(|text| text.into()).into(),
            Self::Checkpoint | Self::Weights | Self::Vocabulary => Vec::new(),
        };
        [vec![self.seed()], others].concat()
    }
}

/// A tar archive of what is wanted; with `more` as GNU's tar writes it, the names in headers of their own, among folders, a
/// comment and files that nobody wants.
fn archived(more: bool) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let header = |kind: tar::EntryType, size: usize| {
        let mut header = if more { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o644);
        header
    };
    if more {
        let mut folder = header(tar::EntryType::Directory, 0);
        archive.append_data(&mut folder, "in/", &[][..]).expect("appends");
        let mut other = header(tar::EntryType::Regular, 700);
        archive.append_data(&mut other, "in/".repeat(60) + "z", &[1; 700][..]).expect("appends");
    }
    for (name, bytes) in WANTED {
        if more {
            // The name that counts is the one before it.
            archive.append_pax_extensions([("path", name.as_bytes())]).expect("appends");
        }
        let mut header = header(tar::EntryType::Regular, bytes.len());
        let short = if more { "short" } else { name };
        archive.append_data(&mut header, short, bytes).expect("appends");
    }
    archive.into_inner().expect("finishes")
}

/// An archive whose first name has no end.
pub fn long_name() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(150 << 20);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(150 << 20, b'a');
    bytes
}

/// Every layer, transform, optimizer and schedule, and language models.
const CONFIGS: [&str; 5] = [
    "augment = 'device'\nschedule = { type = 'warmup', steps = 3, then = { type = 'one_cycle', peak = 0.5 } }\n\
     optimizer = { type = 'adamw', beta1 = 0.8, beta2 = 0.9, eps = 1e-6, weight_decay = 0.1, decay_norms_and_biases = false }\n\
     transforms = [{ type = 'blur', kernel = 3, sigma = [0.1, 2.0] }, { type = 'center_crop', size = [2, 3] },\n\
     { type = 'color_jitter', brightness = 0.1, hue = [-0.1, 0.1] }, { type = 'cutout', size = 2, fill = [1, 2, 3] },\n\
     { type = 'normalize', mean = [0.5], std = [0.2] }, { type = 'pad_crop', padding = 2, mode = 'reflect' }, 'grayscale',\n\
     { type = 'rand_augment', operations = 2, magnitude = 9, interpolation = 'bilinear', fill = 7 }, 'vertical_flip',\n\
     { type = 'random_erasing', scale = [0.02, 0.3], ratio = [0.3, 3.3] }, { type = 'rotation', degrees = [-3.0, 5.0] },\n\
     { type = 'random_resized_crop', scale = [0.1, 1.0] }]\neval_transforms = ['resize']\nmodel = 'mlp'\n",
    "batch_size = 7\nsteps = 9\nschedule = { type = 'step', every = 7, gamma = 0.5 }\nmodel = { layers = [\n\
     { type = 'conv2d', out = 4, kernel = [2, 1], stride = 1, padding = [1, 0], groups = 1, bias = false, name = 'a' },\n\
     { type = 'batch_norm', momentum = 0.2, eps = 1e-3 }, { type = 'relu' }, { type = 'gelu' },\n\
     { type = 'max_pool2d', kernel = 2, stride = 1, padding = 1 }, { type = 'avg_pool2d', kernel = 1 }, { type = 'dropout', p = 0.1 },\n\
     { type = 'flatten' }, { type = 'layer_norm', eps = 1e-4 }, { type = 'linear', out = 3 }, { type = 'linear' }] }\n\
     [sampling]\nval_split = 0.1\nrank = 1\nworld = 2\nbad_sample_budget = '1%'\n\
     [sampling.class_weights]\na = 2.0\n",
    "optimizer = { type = 'muon', momentum = 0.9 }\nclip_norm = 1.0\nema = 0.9\naccumulate = 2\nsampling.shuffle_block = 8\nprecision = 'f16'\n\
     [data]\ncontext = 4\ntokenizer = 'bytes'\ndocument_mask = true\n\
     [model.gpt]\nlayers = 2\nheads = 2\nwidth = 4\ndropout = 0.1\nattention_dropout = 0.1\npositions = 8\n",
    "optimizer = { type = 'adam' }\nrecompute = true\n[model.llama]\nlayers = 1\nheads = 2\nwidth = 8\nkv_heads = 1\nhidden = 12\n\
     theta = 1e4\neps = 1e-5\ntied = true\npositions = 4\n",
    "model = 'resnet18'\nmixup = 0.2\nlabel_smoothing = 0.1\ncheckpoint_every = 'epoch'\non_nan = 'skip'\ncache = 'ram'\n\
     [data]\ncolumns = ['a', 'b']\ncategorical = ['a']\nbucketize = ['b']\nmean = [0.5]\nstd = [0.2]\ntask = 'regress'\n",
];

/// As smaller ones are saved, with merges as pairs; and with parts that other kinds of tokenizers have.
const TOKENIZERS: [&str; 2] = [
    r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":
{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"post_processor":null,"decoder":
{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","dropout":null,
"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,
"ignore_merges":true,"vocab":{"T":0,"o":1,"b":2,"e":3,"\u0120":4,"To":5,"be":6},"merges":[["T","o"],["b","e"]]}}"#,
    r#"{"version":"1.0","truncation":{"direction":"Right","max_length":5,"strategy":"LongestFirst","stride":1},"padding":
{"strategy":{"Fixed":7},"direction":"Left","pad_to_multiple_of":2,"pad_id":1,"pad_type_id":0,"pad_token":"o"},
"added_tokens":[{"id":8,"content":"be","single_word":true,"lstrip":true,"rstrip":true,"normalized":true,"special":false}],
"normalizer":{"type":"Sequence","normalizers":[{"type":"Lowercase"},{"type":"StripAccents"},{"type":"NFKD"},
{"type":"Prepend","prepend":"T"},{"type":"Strip","strip_left":true,"strip_right":true},{"type":"BertNormalizer",
"clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}]},"pre_tokenizer":{"type":"Sequence",
"pretokenizers":[{"type":"Whitespace"},{"type":"Punctuation","behavior":"MergedWithNext"},{"type":"ByteLevel",
"add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},"post_processor":{"type":"TemplateProcessing",
"single":[{"SpecialToken":{"id":"be","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":
{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"be":{"id":"be","ids":[8],"tokens":["be"]}}},
"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE",
"dropout":0.5,"unk_token":"o","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,
"byte_fallback":true,"ignore_merges":false,"vocab":{"t":0,"o":1,"b":2,"e":3,"\u0120":4,"to":5,"be":6},
"merges":["t o","b e"]}}"#,
];

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
            let spec = if config.model.language().is_some() { tokens() } else { spec() };
            config.model.build(&spec).map(drop).map_err(message)
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
