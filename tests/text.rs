//! Text: a tokenizer of one's own, text that is tokenized as it is opened, and losses whose logits are never all there.
//!
//! `parity/bpe_reference.json` holds what Hugging Face's `tokenizers` found; `parity/make_bpe_reference.py` makes it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::devices;
use inflight::batch::{DType, SampleSpec, StepHeader, TargetSpec};
use inflight::executor::{Executor, Wants};
use inflight::graph::Arena;
use inflight::graph::op::UpdateRule;
use inflight::graph::plan::{Options, Pass, Program};
use inflight::graph::precision::Precision;
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::nn::init::initial_values;
use inflight::nn::losses::Loss;
use inflight::rng::Rng;
use inflight::testing::assert_close;
use inflight::train::compile::{Blueprint, Training, compile_with};
use inflight::{cpu, device};
use serde_json::Value;

const SHAKESPEARE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tinyshakespeare/input.txt");

fn inflight(folder: &Path, threads: &str, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflight"));
    command.current_dir(folder).env("INFLIGHT_DATA", folder.join("cache"));
    command.env("RAYON_NUM_THREADS", threads).args(line.split_whitespace());
    command.output().expect("runs")
}

/// The line of JSON that a command ends in.
fn done(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().expect("a line")).expect("JSON")
}

fn refused(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    errors
}

#[cfg(feature = "tokenizers")]
mod tokens {
    use inflight::source::{self, DataConfig, Dataset, OpenOptions, Source, Target};
    use inflight::tokenizer::Tokenizer;
    use inflight::tokenizer::text::{Text, kept_shards};

    use super::*;

    #[test]
    fn a_new_bpe_is_hugging_faces_whatever_the_threads() {
        let reference: Value =
            serde_json::from_str(include_str!("parity/bpe_reference.json")).expect("valid");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = fs::read_to_string(SHAKESPEARE).expect("is in-tree");
        let bytes = reference["bytes"].as_u64().expect("a number") as usize;
        fs::write(folder.path().join("a.txt"), &text[..bytes]).expect("writes");
        let read = |name: &str| fs::read(folder.path().join(name)).expect("is there");
        for threads in ["1", "3"] {
            let line = format!("tokenize a.txt --train-bpe 600 --out t{threads} --json");
            let event = done(&inflight(folder.path(), threads, &line));
            assert_eq!(
                (&event["vocabulary"], &event["tokenizer"]),
                (&600.into(), &"tokenizer.json".into())
            );
        }
        assert!(read("t1/tokenizer.json") == read("t3/tokenizer.json"));
        assert!(read("t1/train-00000.bin") == read("t3/train-00000.bin"));
        let json: Value = serde_json::from_slice(&read("t1/tokenizer.json")).expect("JSON");
        assert_eq!(json["model"]["merges"], reference["merges"]);
        let path = folder.path().join("t1/tokenizer.json");
        let tokenizer = Tokenizer::open(path.to_str().expect("UTF-8")).expect("opens");
        assert_eq!((tokenizer.vocabulary(), tokenizer.end()), (600, Some(0)));
        let texts = reference["texts"].as_array().expect("a list");
        for (text, tokens) in texts.iter().zip(reference["tokens"].as_array().expect("a list")) {
            let text = text.as_str().expect("text");
            let found = tokenizer.encode(text).expect("any text");
            assert_eq!(&serde_json::json!(found), tokens, "{text:?}");
        }
        // Any text is made of its tokens again, and cut on many threads it has the same ones.
        let mut rng = Rng::keyed(&[3]);
        let wild: String =
            (0..50_000).filter_map(|_| char::from_u32(rng.below(0x3000) as u32)).collect();
        for text in [wild, text[200_000..1_100_000].to_string()] {
            let tokens = tokenizer.encode(&text).expect("any text");
            let spelled: Vec<u8> =
                tokens.iter().flat_map(|&id| tokenizer.bytes(id).to_vec()).collect();
            assert!(spelled == text.as_bytes());
            assert!(tokenizer.encode_long(&text).expect("any text") == tokens);
        }
    }

    #[test]
    fn what_is_held_out_teaches_no_tokens_and_bad_text_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, bytes: &[u8]| {
            fs::write(folder.path().join(name), bytes).expect("writes");
        };
        write("half.txt", format!("{}{}", "ab".repeat(500), "xy".repeat(500)).as_bytes());
        let run = |line: &str| inflight(folder.path(), "2", line);
        done(&run("tokenize half.txt --train-bpe 300 --val-share 0.5 --out half --json"));
        let json = fs::read_to_string(folder.path().join("half/tokenizer.json")).expect("is there");
        let json: Value = serde_json::from_str(&json).expect("JSON");
        let vocabulary = json["model"]["vocab"].as_object().expect("names");
        assert!(vocabulary.contains_key("ab") && !vocabulary.contains_key("xy"));
        write("empty.txt", b"");
        write("latin.txt", b"caf\xe9");
        let error = refused(&run("tokenize half.txt --train-bpe 256 --out a"), 2);
        assert!(error.contains("--train-bpe: found 256, expected 257"), "{error}");
        let error = refused(&run("tokenize empty.txt --train-bpe 300 --out b"), 3);
        assert!(error.contains("found nothing to learn tokens from"), "{error}");
        let error = refused(&run("tokenize half.txt latin.txt --train-bpe 300 --out c"), 3);
        assert!(error.contains("latin.txt: found byte 0xe9 at 3, expected UTF-8"), "{error}");
        let error = refused(&run("tokenize half.txt --train-bpe 300 --out half"), 2);
        assert!(error.contains("holds something already"), "{error}");
    }

    #[test]
    fn a_run_on_a_new_bpe_writes_text_by_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = |line: &str| inflight(folder.path(), "2", line);
        done(&run(&format!("tokenize {SHAKESPEARE} --train-bpe 500 --out data --json")));
        let told = done(&run(
            "train data --model gpt-nano --context 16 --batch-size 4 --steps 3 --device cpu --out run --json",
        ));
        // Nobody measured what this device can do, so nothing is said of its use.
        assert!(told["flops_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{told}");
        assert_eq!(told.get("mfu"), None);
        let made =
            run("generate run --device cpu --tokens 5 --prompt First --temperature 0 --json");
        let made = done(&made);
        assert_eq!(made["tokens"].as_array().map(Vec::len), Some(5));
        let tokenizer = folder.path().join("run/tokenizer.json");
        let tokenizer = Tokenizer::open(tokenizer.to_str().expect("UTF-8")).expect("is kept");
        let ids = made["tokens"].as_array().expect("a list").iter();
        let bytes: Vec<u8> = ids
            .flat_map(|id| tokenizer.bytes(id.as_u64().expect("a number") as u32).to_vec())
            .collect();
        assert_eq!(made["text"].as_str(), Some(&*String::from_utf8_lossy(&bytes)));
        // Weights find the tokenizer that lies beside them.
        let exported = run("model export run --out published");
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let line = "generate published/model.safetensors --device cpu --tokens 5 --prompt First --temperature 0 --json";
        assert_eq!(done(&run(line)), made);
        // From the folder that holds them as well; and without one, as with that of bytes, a token is a byte.
        let published = folder.path().join("published");
        let line = line.replace("published/", "");
        assert_eq!(done(&inflight(&published, "2", &line)), made);
        let bytes = done(&inflight(&published, "2", &format!("{line} --tokenizer bytes")));
        assert_ne!(bytes["log_probabilities"], made["log_probabilities"]);
        fs::remove_file(published.join("tokenizer.json")).expect("was there");
        assert_eq!(done(&inflight(&published, "2", &line)), bytes);
        // One that cannot be read is not passed over.
        fs::write(published.join("tokenizer.json"), "{}").expect("writes");
        let output = inflight(&published, "2", &line);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains("tokenizer.json"), "{error}");
    }

    fn open(path: &Path, tokenizer: Option<&str>, cache: &Path) -> inflight::Result<Dataset> {
        let tokenizer = tokenizer.map(Into::into);
        let data = DataConfig { context: Some(32), tokenizer, ..Default::default() };
        let options = OpenOptions {
            data: Some(&data),
            offline: true,
            cache_dir: Some(cache),
            ..Default::default()
        };
        source::open(path.to_str().expect("UTF-8"), &options)
    }

    /// Everything a source hands out.
    fn windows(source: &dyn Source) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut scratch = Vec::new();
        let mut window = |i| {
            let sample = source.read(i, &mut scratch).expect("a window");
            let Target::Tokens(target) = sample.target else { panic!("tokens") };
            (sample.input.to_vec(), target.to_vec())
        };
        (0..source.len()).map(&mut window).collect()
    }

    #[test]
    fn tokens_stay_as_long_as_a_data_set_is_open() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cache, texts) = (folder.path().join("cache"), folder.path().join("texts"));
        fs::create_dir(&texts).expect("creates");
        let text = fs::read_to_string(SHAKESPEARE).expect("is in-tree");
        let other = folder.path().join("other.txt");
        for (path, range) in [
            (texts.join("train.txt"), 0..6000),
            (texts.join("val.txt"), 6000..9000),
            (other.clone(), 9000..12_000),
        ] {
            fs::write(path, &text[range]).expect("writes");
        }
        let opened = open(&texts, Some("gpt2"), &cache).expect("opens");
        let all = || {
            [&opened.train, opened.validation.as_ref().expect("is held out")]
                .map(|source| windows(&**source))
        };
        let before = all();
        let gpt2 = Tokenizer::open("gpt2").expect("in-tree");
        let root = cache.join("tokens");
        kept_shards(&[Text::whole(&other)], &gpt2, &root, 0).expect("tokens");
        assert!(all() == before);
    }

    #[test]
    fn text_without_shards_gives_the_samples_that_shards_give() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = folder.path().join("cache");
        let texts = folder.path().join("texts");
        fs::create_dir(&texts).expect("creates");
        let text = fs::read_to_string(SHAKESPEARE).expect("is in-tree");
        for (name, range) in [("a", 0..3000), ("b", 3000..9000), ("val", 9000..12_000)] {
            fs::write(texts.join(format!("{name}.txt")), &text[range]).expect("writes");
        }
        for (line, out) in [("a.txt texts/b.txt", "train"), ("val.txt", "val")] {
            let line = format!("tokenize texts/{line} --out {out} --json");
            done(&inflight(folder.path(), "2", &line));
        }
        let opened = open(&texts, Some("gpt2"), &cache).expect("opens");
        let shards =
            |name: &str| open(&folder.path().join(name), None, &cache).expect("opens").train;
        let train = shards("train");
        assert_eq!(opened.train.spec(), train.spec());
        assert_eq!(opened.train.info().tokenizer.as_deref(), Some("gpt2"));
        assert!(train.len() > 50 && windows(&*opened.train) == windows(&*train));
        assert!(
            windows(&**opened.validation.as_ref().expect("is held out"))
                == windows(&*shards("val"))
        );
        // What was tokenized once is there; what has changed is tokenized anew.
        let kept = || -> Vec<PathBuf> {
            let entries = fs::read_dir(cache.join("tokens")).expect("is there");
            entries.map(|entry| entry.expect("reads").path()).filter(|path| path.is_dir()).collect()
        };
        let before = kept();
        assert_eq!(before.len(), 2);
        // Of a file of tokens: the manifest's time tells when they were used last.
        let modified = |path: &PathBuf| {
            let files = fs::read_dir(path).expect("is there").map(|entry| entry.expect("reads"));
            let mut shards = files.filter(|file| file.path().extension() == Some("bin".as_ref()));
            shards.next().expect("a shard").metadata().and_then(|metadata| metadata.modified())
        };
        let times: Vec<_> = before.iter().map(|path| modified(path).expect("is there")).collect();
        open(&texts, Some("gpt2"), &cache).expect("opens");
        let again: Vec<_> = kept().iter().map(|path| modified(path).expect("is there")).collect();
        assert_eq!(times, again);
        fs::write(texts.join("a.txt"), "Once more unto the breach. ".repeat(40)).expect("writes");
        let opened = open(&texts, Some("gpt2"), &cache).expect("opens");
        assert_eq!(kept().len(), 3);
        let gpt2 = Tokenizer::open("gpt2").expect("in-tree");
        let first: Vec<u8> = gpt2
            .encode("Once more")
            .expect("any")
            .iter()
            .flat_map(|&t| (t as u16).to_le_bytes())
            .collect();
        assert!(windows(&*opened.train)[0].0.starts_with(&first));
        // A part of a file, as a manifest has it; bytes are the text itself.
        let named = open(Path::new("tinyshakespeare"), Some("gpt2"), &cache).expect("opens");
        assert!(windows(&*named.train)[0].0.starts_with(&windows(&*train)[0].0));
        let bytes = open(&texts, Some("bytes"), &cache).expect("opens");
        assert!(
            windows(&*bytes.train) == windows(&*open(&texts, None, &cache).expect("opens").train)
        );
        let error =
            open(&folder.path().join("train"), Some("gpt2"), &cache).err().expect("refused");
        assert!(error.to_string().contains("which is tokens already"), "{error}");
        fs::write(texts.join("b.txt"), b"\xff").expect("writes");
        let error = open(&texts, Some("gpt2"), &cache).err().expect("refused").to_string();
        assert!(error.contains("b.txt: found byte 0xff at 0, expected UTF-8"), "{error}");
    }
}

const TOKENS: usize = 65;
const SAMPLES: usize = 6;
const VOCABULARY: usize = 77;

fn program(rows: Option<usize>, recompute: bool, training: Training) -> Program {
    let spec = SampleSpec {
        input_shape: vec![TOKENS],
        input_dtype: DType::U16,
        target: TargetSpec::Tokens { len: TOKENS, vocabulary: VOCABULARY, document_end: None },
    };
    let config = GptConfig { layers: 2, heads: 2, width: 10, ..GptConfig::NANO };
    let blueprint = Blueprint {
        model: &Gpt::new(config, &spec).expect("fits"),
        spec: &spec,
        batch_size: SAMPLES,
        mean: &[],
        std: &[],
        loss: Loss::CrossEntropy { smoothing: 0.1 },
        training: Some(training),
    };
    let options = Options { recompute, loss_rows: rows, ..Options::default() };
    compile_with(&blueprint, options).expect("compiles")
}

/// Trains for some steps, the last sample being padding, and evaluates: all losses, and what was learned.
fn train(program: &Program, executor: &mut dyn Executor) -> (Vec<f32>, Vec<f32>) {
    for variable in &program.params {
        let mut values = initial_values(variable, 3);
        values.iter_mut().for_each(|x| *x *= 2.0);
        executor.load(Arena::Params, variable.offset, &values).expect("loads");
    }
    let mut slot = executor.take_slots().expect("slots").pop();
    let mut rng = Rng::keyed(&[7]);
    let mut losses = Vec::new();
    for step in 0..7u32 {
        let mut filled = slot.take().expect("the slot");
        for (mut input, mut target) in filled.samples(&program.slot) {
            let tokens: Vec<u32> =
                (0..=TOKENS).map(|_| rng.below(VOCABULARY as u64) as u32).collect();
            let shorts: Vec<u8> =
                tokens[..TOKENS].iter().flat_map(|&t| (t as u16).to_le_bytes()).collect();
            let words: Vec<u8> = tokens[1..].iter().flat_map(|t| t.to_le_bytes()).collect();
            input.copy_from_slice(&shorts);
            target.copy_from_slice(&words);
        }
        let (pass, micro_step) = match (step, program.plans.contains_key(&Pass::Accumulate)) {
            (0 | 6, _) => (Pass::Eval, 0),
            (1 | 3, true) => (Pass::Accumulate, 0),
            (_, several) => (Pass::Train, u32::from(several)),
        };
        let count = SAMPLES as u32 - 1;
        let header = StepHeader {
            count,
            step,
            seed_low: 5,
            lr: 0.05,
            micro_step,
            weight: 0.5,
            ..Default::default()
        };
        filled.write_header(&header);
        executor.submit(pass, filled, Wants::default()).expect("submits");
        let done = executor.collect(Duration::from_secs(60)).expect("collects").expect("is done");
        slot = Some(done.slot);
        losses.push(done.metrics[0] / count as f32);
    }
    (losses, executor.store(Arena::Params).expect("reads"))
}

#[test]
fn logits_by_chunks_change_nothing_but_memory() {
    let rule = UpdateRule::Sgd { momentum: 0.9, nesterov: false, weight_decay: 0.01 };
    let plain = Training::new(rule);
    let cases = [
        (plain, false),
        (plain, true),
        (Training { accumulate: 2, clip_norm: Some(1.0), ..plain }, false),
        (Training { precision: Precision::F16, ..plain }, false),
    ];
    let logits = SAMPLES * TOKENS * VOCABULARY;
    for (training, recompute) in cases {
        let whole = program(None, recompute, training);
        let chunks = program(Some(128), recompute, training);
        let largest = |program: &Program| program.activations.iter().map(|buffer| buffer.len).max();
        assert_eq!(largest(&whole), Some(logits));
        assert!(largest(&chunks).is_some_and(|len| len < logits), "{:?}", chunks.activations);
        assert!(chunks.device_bytes() < whole.device_bytes());
        let half = training.precision == Precision::F16;
        let (mut losses, mut learned) =
            train(&whole, &mut cpu::Executor::new(whole.clone(), 1).expect("opens"));
        for device in devices() {
            let mut executor = match device {
                "cpu" => Box::new(cpu::Executor::new(chunks.clone(), 1).expect("opens"))
                    as Box<dyn Executor>,
                name => device::open(name, std::sync::Arc::new(chunks.clone()), 1).expect("opens"),
            };
            let found = train(&chunks, &mut *executor);
            if device != "cpu" && half {
                // Another device rounds 16-bit numbers elsewhere; so it is compared with itself.
                let mut executor =
                    device::open(device, std::sync::Arc::new(whole.clone()), 1).expect("opens");
                (losses, learned) = train(&whole, &mut *executor);
            }
            assert!(losses[0] > 3.0 && losses[6] != losses[0], "{losses:?}");
            let tolerance = if half { 2e-3 } else { 2e-5 };
            assert_close(
                &found.0,
                &losses.iter().map(|&x| x.into()).collect::<Vec<f64>>(),
                tolerance,
                tolerance,
            );
            assert_close(
                &found.1,
                &learned.iter().map(|&x| x.into()).collect::<Vec<f64>>(),
                tolerance,
                tolerance,
            );
        }
    }
}
