//! Text and tokens.

use std::fs;
use std::path::Path;

use inflight::batch::{DType, Slot, SlotLayout, TargetSpec};
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::source::tokens::token_statistics;
use inflight::source::{DataConfig, Dataset, OpenOptions, Source, Target, open};
use inflight::tokenizer::Tokenizer;
use inflight::tokenizer::shards::{Shard, ShardOptions, TokenManifest, write};
use inflight::{ErrorKind, RunConfig, Stage, Trainer};
use ndarray::{Array1, Array2};
use ndarray_npy::write_npy;
use tempfile::tempdir;

use crate::{assert_refusal, open_path};

const TEXT: &str = "To be, or not to be, that is the question";

fn open_with(path: &Path, context: usize, stride: Option<usize>) -> inflight::Result<Dataset> {
    let data = DataConfig { context: Some(context), stride, ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    open(path.to_str().unwrap(), &options)
}

/// Input and target of a window, as numbers.
fn window(source: &dyn Source, index: usize) -> (Vec<u32>, Vec<u32>) {
    let mut scratch = vec![9; 3];
    let sample = source.read(index, &mut scratch).expect("a window");
    let Target::Tokens(target) = sample.target else { panic!("tokens") };
    let words = |bytes: &[u8]| -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
    };
    let input = match source.spec().input_dtype {
        DType::U16 => {
            sample.input.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b).into()).collect()
        }
        _ => words(sample.input),
    };
    (input, words(target))
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|&token| char::from(token as u8)).collect()
}

fn u16s(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// Samples of so many tokens.
fn target(len: usize, vocabulary: usize) -> TargetSpec {
    TargetSpec::Tokens { len, vocabulary, document_end: None }
}

#[test]
fn the_bytes_of_a_text_are_tokens() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("hamlet.txt");
    fs::write(&path, TEXT).unwrap();
    let train = open_with(&path, 8, None).unwrap().train;
    let spec = train.spec();
    assert_eq!((&spec.input_shape[..], spec.input_dtype), (&[8][..], DType::U16));
    assert_eq!(spec.target, target(8, 256));
    // 41 bytes hold five windows of nine that share an end.
    assert_eq!(train.len(), 5);
    let (input, target) = window(&*train, 1);
    assert_eq!([text(&input), text(&target)], [&TEXT[8..16], &TEXT[9..17]]);
    assert_eq!(text(&window(&*train, 4).1), &TEXT[33..41]);
    assert!(train.origin(1).unwrap().ends_with("hamlet.txt token 8"));
    let found = token_statistics(&*train).unwrap().unwrap();
    assert_eq!((found.tokens, found.vocabulary, found.context), (41, 256, 8));
    assert_eq!(found.highest, u32::from(b'u'));
    assert_eq!(found.excerpt.as_deref(), Some(&TEXT[..9]));
}

#[test]
fn a_stride_of_one_begins_windows_anywhere() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("hamlet.txt");
    fs::write(&path, TEXT).unwrap();
    let train = open_with(&path, 8, Some(1)).unwrap().train;
    assert_eq!(train.len(), 41 - 8);
    for i in [0, 7, 32] {
        assert_eq!(text(&window(&*train, i).1), &TEXT[i + 1..i + 9]);
    }
    assert_eq!(open_with(&path, 40, None).unwrap().train.len(), 1);
    let error = open_with(&path, 41, None).err().unwrap().to_string();
    assert!(error.contains("found 41 tokens, expected at least 42 for a window of context 41; try a smaller --context"), "{error}");
}

#[test]
fn files_of_a_split_are_one_sequence() {
    let dir = tempdir().unwrap();
    // An empty file between others is no gap.
    for (name, range) in [("a", 0..5), ("b", 5..5), ("c", 5..12), ("d", 12..41)] {
        fs::write(dir.path().join(format!("{name}.txt")), &TEXT[range]).unwrap();
    }
    let whole = dir.path().join("whole");
    fs::create_dir(&whole).unwrap();
    fs::write(whole.join("one.txt"), TEXT).unwrap();
    for stride in [1, 3, 8] {
        let parts = open_with(dir.path(), 8, Some(stride)).unwrap().train;
        let one = open_with(&whole, 8, Some(stride)).unwrap().train;
        assert_eq!(parts.len(), one.len());
        for i in 0..one.len() {
            assert_eq!(window(&*parts, i), window(&*one, i), "window {i}, stride {stride}");
        }
    }
}

#[test]
fn names_tell_the_splits_of_tokens() {
    let dir = tempdir().unwrap();
    let tokens: Vec<u16> = (0..20).collect();
    fs::write(dir.path().join("train.bin"), u16s(&tokens)).unwrap();
    fs::write(dir.path().join("val.bin"), u16s(&[30, 31, 32, 33, 34])).unwrap();
    let dataset = open_with(dir.path(), 4, Some(1)).unwrap();
    // Without a header the vocabulary is what occurs in any split.
    assert_eq!(dataset.train.spec().target, target(4, 35));
    let validation = dataset.validation.unwrap();
    assert_eq!(window(&*validation, 0), (vec![30, 31, 32, 33], vec![31, 32, 33, 34]));
    assert_eq!(window(&*dataset.train, 15), (vec![15, 16, 17, 18], vec![16, 17, 18, 19]));
    fs::write(dir.path().join("manifest.json"), r#"{"vocabulary": 50257}"#).unwrap();
    let dataset = open_with(dir.path(), 4, None).unwrap();
    assert_eq!(dataset.train.spec().target, target(4, 50_257));
}

/// Shards of tokens as `inflight tokenize` writes them, three to train on, in the folder `out`.
fn shards(dir: &Path, out: &Path) -> TokenManifest {
    let files = ["a", "b", "c"].map(|name| {
        let path = dir.join(name);
        fs::write(&path, name.repeat(300)).unwrap();
        path
    });
    let options = ShardOptions { val_share: 0.1, shard_tokens: 100 };
    let tokenizer = Tokenizer::open("bytes").unwrap();
    let made = write(&files, &tokenizer, "bytes", out, options).unwrap();
    assert_eq!(made.shards.len(), 4, "{made:?}");
    made
}

#[test]
fn a_folder_of_tokens_that_is_only_partly_there_is_no_smaller_data_set() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let made = shards(dir.path(), &out);
    for Shard { file, tokens } in &made.shards {
        open_with(&out, 8, None).unwrap();
        let shard = out.join(file);
        let whole = fs::read(&shard).unwrap();
        fs::write(&shard, &whole[..whole.len() - 2]).unwrap();
        let message = format!(
            "{{}}: found {} tokens, expected the {tokens} that manifest.json says; try tokenizing or copying it again",
            tokens - 1
        );
        assert_refusal(&out, &shard, &message);
        assert_refusal(&shard, &shard, &message);
        fs::remove_file(&shard).unwrap();
        assert_refusal(&out, &shard, "{}: not found; try tokenizing or copying it again");
        fs::write(&shard, whole).unwrap();
    }
    // What another program calls so is something else.
    for listed in [r#"["a.bin"]"#, "7", r#"[{"file": "a.bin"}]"#] {
        let told = format!(r#"{{"vocabulary": 300, "shards": {listed}}}"#);
        fs::write(out.join("manifest.json"), told).unwrap();
        let dataset = open_with(&out, 8, None).unwrap();
        assert_eq!(dataset.train.spec().target, target(8, 300));
    }
}

#[test]
fn a_manifest_of_tokens_that_is_cut_off_is_damaged() {
    let dir = tempdir().unwrap();
    let out = dir.path().join("out");
    let made = shards(dir.path(), &out);
    let manifest = out.join("manifest.json");
    let text = fs::read(&manifest).unwrap();
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    for path in [&out, &out.join(&made.shards[0].file)] {
        let message = "{}: is damaged; try tokenizing or copying it again";
        assert_refusal(path, &manifest, message);
    }
    // That of another program, damaged or not, tells nothing.
    for text in [r#"{"files": ["#, r#"{"vocabulary": "large"}"#] {
        fs::write(&manifest, text).unwrap();
        let dataset = open_with(&out, 8, None).unwrap();
        assert_eq!(dataset.train.spec().target, target(8, 100));
    }
}

/// A file as llm.c writes it.
fn llm_c(magic: u32, version: u32, tokens: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [magic, version, tokens].iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.resize(1024, 0);
    bytes.extend(data);
    bytes
}

#[test]
fn headers_and_arrays_of_tokens_are_known() {
    let dir = tempdir().unwrap();
    let (bin, npy) = (dir.path().join("a.bin"), dir.path().join("b.npy"));
    fs::write(&bin, llm_c(20_240_520, 1, 5, &u16s(&[50_256, 1, 2, 3, 4]))).unwrap();
    let train = open_with(&bin, 4, None).unwrap().train;
    assert_eq!(train.spec().target, target(4, 50_257));
    assert_eq!(window(&*train, 0), (vec![50_256, 1, 2, 3], vec![1, 2, 3, 4]));
    let wide: Vec<u8> = [128_000u32, 7, 9].iter().flat_map(|t| t.to_le_bytes()).collect();
    fs::write(&bin, llm_c(20_240_801, 7, 3, &wide)).unwrap();
    let train = open_with(&bin, 2, None).unwrap().train;
    assert_eq!(train.spec().input_dtype, DType::U32);
    assert_eq!(window(&*train, 0), (vec![128_000, 7], vec![7, 9]));
    write_npy(&npy, &Array1::from(vec![5u16, 6, 7])).unwrap();
    let train = open_with(&npy, 2, None).unwrap().train;
    assert_eq!(window(&*train, 0), (vec![5, 6], vec![6, 7]));
    assert_eq!(train.spec().target, target(2, 8));
    write_npy(&npy, &Array1::from(vec![5u32, 70_000, 7])).unwrap();
    assert_eq!(
        window(&*open_with(&npy, 2, None).unwrap().train, 0),
        (vec![5, 70_000], vec![70_000, 7])
    );
}

#[test]
fn damaged_and_wrong_files_are_refused() {
    let dir = tempdir().unwrap();
    let bin = dir.path().join("a.bin");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            vec![],
            "{} (train): found 0 tokens, expected at least 257 for a window of context 256; try a smaller --context",
        ),
        (
            vec![0; 1001],
            "{}: found 1001 bytes of tokens, expected a multiple of 2; try tokens as little-endian u16, or llm.c's header before others",
        ),
        (
            llm_c(20_240_520, 1, 6, &[0; 10]),
            "{}: found 1034 bytes, expected 1036 for the 6 tokens that its header says; try tokenizing or copying it again",
        ),
        (
            llm_c(20_240_520, 1, u32::MAX, &[0; 10]),
            "{}: found 1034 bytes, expected 8589935614 for the 4294967295 tokens that its header says; try tokenizing or copying it again",
        ),
        (
            llm_c(20_240_520, 9, 5, &[0; 10]),
            "{}: found llm.c's magic 20240520 with version 9, expected 20240520 with 1 or 20240801 with 7",
        ),
        (
            llm_c(20_240_520, 1, 5, &[0; 10])[..9].to_vec(),
            "{}: found 9 bytes, expected 1024 for the 0 tokens that its header says; try tokenizing or copying it again",
        ),
    ];
    for (bytes, message) in cases {
        fs::write(&bin, bytes).unwrap();
        assert_refusal(&bin, &bin, message);
    }
    let npy = dir.path().join("b.npy");
    write_npy(&npy, &Array2::<u16>::zeros((2, 3))).unwrap();
    assert!(open_path(&npy).is_err());
    write_npy(&npy, &Array1::from(vec![5u16; 300])).unwrap();
    let whole = fs::read(&npy).unwrap();
    fs::write(&npy, &whole[..whole.len() - 2]).unwrap();
    let error = open_path(&npy).err().unwrap().to_string();
    assert!(
        error.contains("b.npy: found") && error.contains("expected 300 tokens from byte 128"),
        "{error}"
    );
    write_npy(&npy, &Array1::from(vec![u32::MAX; 300])).unwrap();
    let error = open_path(&npy).err().unwrap().to_string();
    assert!(error.contains("found token 4294967295, expected below 16777216"), "{error}");
    // Files of one split must have tokens of one width.
    let mixed = dir.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    fs::write(mixed.join("0.bin"), llm_c(20_240_520, 1, 5, &[0; 10])).unwrap();
    fs::write(mixed.join("1.bin"), llm_c(20_240_801, 7, 5, &[0; 20])).unwrap();
    let error = open_path(&mixed).err().unwrap().to_string();
    assert!(
        error.contains("1.bin: found tokens of 4 bytes, expected 2 as in the first file"),
        "{error}"
    );
}

#[test]
fn tokens_lie_in_slots_and_are_held_to_their_vocabulary() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("a.bin");
    fs::write(&path, u16s(&[1, 2, 3, 4, 5, 6, 7, 8, 9])).unwrap();
    let train = open_with(&path, 2, None).unwrap().train;
    let layout = SlotLayout::new(train.spec(), 3);
    let mut slot = Slot::host(0, layout.slot_bytes);
    let times = StageCounters::default();
    fill(&mut slot, &layout, &*train, &[], &[2, 0], Keys::default(), &times).unwrap();
    let bytes = slot.bytes().unwrap();
    assert_eq!(bytes[layout.input_offset..][..12], u16s(&[5, 6, 1, 2, 0, 0]));
    let target: Vec<u8> = [6u32, 7, 2, 3, 0, 0].iter().flat_map(|t| t.to_le_bytes()).collect();
    assert_eq!(bytes[layout.target_offset..][..24], target);
    // A vocabulary that is too small for the tokens is found before anything goes up, also where only the last target
    // is beyond it.
    for (vocabulary, bad) in [(6, 2), (5, 1)] {
        let data =
            DataConfig { context: Some(2), vocabulary: Some(vocabulary), ..Default::default() };
        let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
        let train = open(path.to_str().unwrap(), &options).unwrap().train;
        let mut fill =
            |index| fill(&mut slot, &layout, &*train, &[], &[index], Keys::default(), &times);
        fill(0).unwrap();
        let error = fill(bad).unwrap_err();
        assert_eq!(error.stage(), Stage::Prepare);
        let found = format!("found token {vocabulary}, expected tokens below {vocabulary}");
        let text = error.to_string();
        assert!(text.contains(&format!("sample {bad} of")) && text.contains(&found), "{text}");
    }
}

#[test]
fn only_language_models_take_tokens() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("hamlet.txt");
    fs::write(&path, TEXT).unwrap();
    let train = open_with(&path, 8, None).unwrap().train;
    let config = RunConfig::default();
    let error = config.model.build(train.spec()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    let expected = "graph: cnn: takes numbers, found samples of tokens; try --model gpt-nano, gpt-mini, gpt2, llama-nano or llama-mini";
    assert_eq!(error.to_string(), expected);
    // A model of one's own that takes numbers gets no further.
    let spec = inflight::batch::SampleSpec {
        input_shape: vec![8],
        input_dtype: DType::F32,
        target: TargetSpec::Class { classes: 3 },
    };
    let model = RunConfig { model: "mlp".into(), ..config.clone() }.model.build(&spec).unwrap();
    Trainer::builder(model, train.clone()).program().expect_err("refused");
    let model = RunConfig { model: "gpt-nano".into(), ..config }.model.build(train.spec()).unwrap();
    Trainer::builder(model, train).program().expect("a language model takes them");
}
