//! Language models: training and making text as PyTorch does, prompts that share a device, and what is refused.
//!
//! `parity/gpt_reference.json` and `parity/llama_reference.json` hold what PyTorch found; `parity/make_gpt_reference.py` and
//! `parity/make_llama_reference.py` make them.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use common::devices;
use inflight::batch::{DType, SampleSpec, StepHeader, TargetSpec};
use inflight::executor::{Tune, Wants};
use inflight::generate::{Finish, Generator, Sampling, Token, model_of, model_with};
use inflight::graph::plan::{Pass, Variable};
use inflight::graph::precision::Precision;
use inflight::graph::{Arena, Init};
use inflight::nn::Module;
use inflight::nn::describe::describe;
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::nn::init::initial_values;
use inflight::nn::language::LanguageConfig;
use inflight::nn::llama::{Llama, LlamaConfig};
use inflight::nn::losses::Loss;
use inflight::nn::models::by_name;
use inflight::nn::optimizers::OptimizerConfig;
use inflight::source::{self, DataConfig, OpenOptions};
use inflight::testing::assert_close;
use inflight::train::compile::{Blueprint, compile};
use inflight::train::event::Event;
use inflight::train::weights::Weights;
use inflight::{Error, RunConfig, Trainer};
use safetensors::tensor::{Dtype, TensorView};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference<M = Making> {
    seed: u64,
    training: Training,
    making: M,
}

#[derive(Deserialize)]
struct Training {
    context: usize,
    batch_size: usize,
    lr: f64,
    beta2: f64,
    weight_decay: f64,
    losses: Vec<f64>,
}

#[derive(Deserialize)]
struct Making {
    layers: usize,
    heads: usize,
    width: usize,
    positions: usize,
    std: f32,
    prompt: String,
    tokens: Vec<u32>,
    log_probabilities: Vec<f64>,
}

#[derive(Deserialize)]
struct LlamaMaking {
    /// As the `config.json` of Hugging Face.
    config: serde_json::Value,
    positions: usize,
    std: f32,
    prompt: String,
    tokens: Vec<u32>,
    log_probabilities: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("parity/gpt_reference.json")).expect("the reference is valid")
}

fn llama_reference() -> Reference<LlamaMaking> {
    let text = include_str!("parity/llama_reference.json");
    serde_json::from_str(text).expect("the reference is valid")
}

/// Trains a model as the reference did and returns each step's loss.
fn train<M>(model: &str, reference: &Reference<M>, device: &str) -> Vec<f64> {
    let Training { context, batch_size, lr, beta2, weight_decay, ref losses } = reference.training;
    let data = DataConfig { context: Some(context), ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    let text = source::open("tinyshakespeare", &options).expect("the text is in-tree").train;
    let config = RunConfig {
        device: device.into(),
        steps: Some(losses.len() as u64),
        seed: reference.seed,
        batch_size,
        lr: Some(lr),
        optimizer: OptimizerConfig::AdamW {
            beta1: 0.9,
            beta2,
            eps: 1e-8,
            weight_decay,
            decay_norms_and_biases: false,
        },
        shuffle: false,
        tune: Tune::Off,
        ..Default::default()
    };
    let model = by_name(model, text.spec()).expect("it takes text");
    let trainer = Trainer::builder(model, text).config(config).start().expect("starts");
    let events = trainer.queue(losses.len() + 8);
    pollster::block_on(trainer.fit()).expect("the run succeeds");
    let losses = events.iter().filter_map(|event| match event.expect("no failure") {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    losses.collect()
}

#[test]
fn training_follows_pytorch() {
    training_follows("gpt-nano", &reference());
}

#[test]
fn training_a_llama_follows_pytorch() {
    training_follows("llama-nano", &llama_reference());
}

fn training_follows<M>(model: &str, reference: &Reference<M>) {
    assert_eq!(reference.training.losses.len(), 50);
    for (device, tolerance) in devices().into_iter().zip([1e-4, 1e-3]) {
        let losses = train(model, reference, device);
        let expected = &reference.training.losses;
        let apart = losses.iter().zip(expected).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        eprintln!("{model} on {device}: {apart:.1e} over {} steps", losses.len());
        assert_close(&losses, expected, 0.0, tolerance);
    }
}

impl Making {
    fn config(&self) -> GptConfig {
        let Self { layers, heads, width, positions, .. } = *self;
        GptConfig { positions: Some(positions), ..GptConfig::of(layers, heads, width) }
    }

    fn model(&self) -> Gpt {
        Gpt::with_sizes(self.config(), 256, self.positions).expect("the sizes are sound")
    }

    /// A file with the weights of the reference, under the names of a published GPT-2.
    fn weights(&self, seed: u64, folder: &Path) -> PathBuf {
        let file = folder.join("model.safetensors");
        write_weights(&self.model(), self.positions, self.std, seed, "transformer.", &file);
        file
    }
}

/// Samples of so many tokens, which are bytes.
fn text_spec(len: usize, document_end: Option<u32>) -> SampleSpec {
    SampleSpec {
        input_shape: vec![len],
        input_dtype: DType::U16,
        target: TargetSpec::Tokens { len, vocabulary: 256, document_end },
    }
}

/// Writes a file with weights that are as large as `std`, those of norms around 1, without a prefix of their names.
fn write_weights(
    model: &dyn Module,
    positions: usize,
    std: f32,
    seed: u64,
    prefix: &str,
    file: &Path,
) {
    let tensors = describe(model, &text_spec(positions, None), 1).expect("builds").tensors;
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|tensor| {
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            let init = Init::Normal { std };
            let variable = Variable { name: name.clone(), shape, offset: 0, init };
            let mut values = initial_values(&variable, seed);
            if tensor.shape.len() == 1 && name.ends_with("weight") {
                values.iter_mut().for_each(|x| *x += 1.0);
            }
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.trim_start_matches(prefix).to_string(), tensor.shape, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("lengths fit"))
    });
    safetensors::serialize_to_file(views, None, file).expect("writes");
}

impl LlamaMaking {
    fn key(&self, name: &str) -> usize {
        self.config[name].as_u64().expect("a number") as usize
    }

    /// What its `config.json` says, read by hand.
    fn llama(&self) -> Llama {
        let config = LlamaConfig {
            hidden: Some(self.key("intermediate_size")),
            theta: self.config["rope_theta"].as_f64().expect("a number"),
            eps: self.config["rms_norm_eps"].as_f64().expect("a number"),
            positions: Some(self.positions),
            ..LlamaConfig::of(
                self.key("num_hidden_layers"),
                self.key("num_attention_heads"),
                self.key("num_key_value_heads"),
                self.key("hidden_size"),
            )
        };
        Llama::with_sizes(config, 256, self.positions).expect("the sizes are sound")
    }

    /// A folder as Hugging Face has it.
    fn save(&self, seed: u64, folder: &Path) -> PathBuf {
        let file = folder.join("model.safetensors");
        write_weights(&self.llama(), self.positions, self.std, seed, "", &file);
        std::fs::write(folder.join("config.json"), self.config.to_string()).expect("writes");
        file
    }
}

fn prompt(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// A generator on `device` for so many sequences, and what it should make.
fn generator(device: &str, sequences: usize) -> (Generator, Making) {
    let Reference { seed, making, .. } = reference();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = Weights::open(making.weights(seed, folder.path())).expect("opens");
    (Generator::new(making.model(), &weights, device, sequences).expect("fits"), making)
}

fn all(generator: &mut Generator, prompts: Vec<Vec<u32>>, sampling: Sampling) -> Vec<Token> {
    let tokens = generator.generate(prompts, sampling).expect("starts");
    tokens.collect::<Result<_, _>>().expect("no failure")
}

#[test]
fn greedy_text_is_pytorchs() {
    for device in devices() {
        let (mut generator, making) = generator(device, 1);
        let count = making.tokens.len();
        // The window moves on several times.
        assert!(count == 200 && making.positions < count / 2);
        let made = all(&mut generator, vec![prompt(&making.prompt)], Sampling::greedy(count));
        let ids: Vec<u32> = made.iter().map(|token| token.id).collect();
        assert_eq!(ids, making.tokens, "on {device}");
        let log_probabilities: Vec<f64> = made.iter().map(|token| token.log_probability).collect();
        assert_close(&log_probabilities, &making.log_probabilities, 1e-3, 1e-3);
        assert_eq!(made[count - 1].finish, Some(Finish::Length));
        assert!(made[..count - 1].iter().all(|token| token.finish.is_none()));
    }
}

#[test]
fn greedy_text_of_a_published_llama_is_pytorchs() {
    let Reference { seed, making, .. } = llama_reference();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = Weights::open(making.save(seed, folder.path())).expect("opens");
    let model = model_of(&weights).expect("config.json tells");
    assert_eq!(model, making.llama().into());
    for device in devices() {
        let mut generator = Generator::new(model, &weights, device, 2).expect("fits");
        let prompts = vec![prompt(&making.prompt), prompt("And")];
        let made = all(&mut generator, prompts, Sampling::greedy(200));
        let made: Vec<Token> = made.into_iter().filter(|token| token.prompt == 0).collect();
        let ids: Vec<u32> = made.iter().map(|token| token.id).collect();
        assert_eq!(ids, making.tokens, "on {device}");
        let log_probabilities: Vec<f64> = made.iter().map(|token| token.log_probability).collect();
        assert_close(&log_probabilities, &making.log_probabilities, 1e-3, 1e-3);
    }
    // Without the file nothing tells its heads, unless somebody says.
    std::fs::remove_file(folder.path().join("config.json")).expect("is there");
    let error = model_of(&weights).expect_err("refused").to_string();
    assert!(error.contains("found a LLaMA without the config.json"), "{error}");
    let config = LlamaConfig { tied: true, ..making.llama().config() };
    let tied = model_with(config, &weights).expect("sound");
    let error = Generator::new(tied, &weights, "cpu", 1).err().expect("refused").to_string();
    assert!(error.contains("lm_head.weight is not model.embed_tokens.weight"), "{error}");
}

#[test]
fn a_cache_of_16_bits_makes_nearly_the_same() {
    let Reference { seed, making, .. } = llama_reference();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights = Weights::open(making.save(seed, folder.path())).expect("opens");
    for device in devices() {
        let made = |precision| {
            let model = making.llama();
            let generator = Generator::with_cache(model, &weights, device, 1, precision);
            let mut generator = generator.expect("fits");
            let bytes = generator.device().allocated_bytes;
            (all(&mut generator, vec![prompt(&making.prompt)], Sampling::greedy(12)), bytes)
        };
        let (half, half_bytes) = made(Precision::F16);
        let (full, full_bytes) = made(Precision::F32);
        let ids = |made: &[Token]| made.iter().map(|token| token.id).collect::<Vec<_>>();
        assert_eq!(ids(&half), making.tokens[..12], "on {device}");
        let found =
            |made: &[Token]| made.iter().map(|token| token.log_probability).collect::<Vec<_>>();
        assert_close(&found(&half), &found(&full), 2e-2, 2e-2);
        assert_ne!(found(&half), found(&full), "16 bits show on {device}");
        assert!(device == "cpu" || half_bytes < full_bytes, "{half_bytes} {full_bytes}");
    }
}

/// The logits of a sample of tokens, by a model with weights of `making`'s size.
fn logits(model: &dyn Module, spec: &SampleSpec, ids: &[u16], device: &str) -> Vec<f32> {
    let loss = Loss::for_target(spec);
    let blueprint =
        Blueprint { model, spec, batch_size: 1, mean: &[], std: &[], loss, training: None };
    let program = Arc::new(compile(&blueprint).expect("compiles"));
    let mut executor = inflight::device::open(device, program.clone(), 1).expect("opens");
    for variable in &program.params {
        let init = Init::Normal { std: 0.3 };
        let values = initial_values(&Variable { init, ..variable.clone() }, 5);
        executor.load(Arena::Params, variable.offset, &values).expect("loads");
    }
    let mut slot = executor.take_slots().expect("slots").remove(0);
    slot.write_header(&StepHeader { count: 1, ..StepHeader::default() });
    slot.write_at(program.slot.input_offset, bytemuck::cast_slice(ids));
    let wants = Wants { output: true, ..Wants::default() };
    executor.submit(Pass::Eval, slot, wants).expect("submits");
    let done = executor.collect(Duration::from_secs(60)).expect("collects").expect("ends");
    done.output.expect("is wanted")
}

#[test]
fn a_document_that_is_packed_is_as_if_it_were_alone() {
    const END: u16 = 7;
    let [first, second] = [&[3, 9, 200, 4, 4, 31, END][..], &[50, 3, 9, 8, 201, 9, 4, 77, 50]];
    let packed = [first, second].concat();
    let gpt = LanguageConfig::from(GptConfig { positions: Some(20), ..GptConfig::of(2, 2, 16) });
    let llama = LlamaConfig { positions: Some(20), ..LlamaConfig::of(2, 4, 2, 16) }.into();
    for device in devices() {
        for config in [gpt, llama] {
            let run = |ids: &[u16], document_end| {
                let spec = text_spec(ids.len(), document_end);
                let model = config.model(&spec).expect("sound");
                logits(&model, &spec, ids, device)
            };
            let alone = [run(first, None), run(second, None)].concat();
            let alone: Vec<f64> = alone.into_iter().map(f64::from).collect();
            let found = run(&packed, Some(END.into()));
            assert_close(&found, &alone, 1e-4, 1e-4);
            // Without the mask the second one is another.
            let mixed = run(&packed, None);
            let at = 256 * first.len();
            let apart = mixed[at..].iter().zip(&alone[at..]);
            let apart = apart.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(apart > 0.1, "{apart}");
        }
    }
}

/// Tokens of each prompt.
fn by_prompt(made: &[Token], prompts: usize) -> Vec<Vec<u32>> {
    let of = |prompt| made.iter().filter(move |token| token.prompt == prompt).map(|token| token.id);
    (0..prompts).map(|prompt| of(prompt).collect()).collect()
}

#[test]
fn prompts_that_share_a_device_do_not_mix() {
    let long = "To be, or not to be, that is the question: whether 'tis nobler".to_string();
    let texts = ["A", "First Citizen:\nBefore", &long, "Speak", "\n"];
    let prompts: Vec<Vec<u32>> = texts.iter().map(|text| prompt(text)).collect();
    let sampling = Sampling { tokens: 40, temperature: 1.0, seed: 3, ..Sampling::default() };
    for device in devices() {
        let (mut one, _) = generator(device, 1);
        // Which tokens are drawn depends on the number of the prompt, so all are made one after the other.
        let expected = by_prompt(&all(&mut one, prompts.clone(), sampling), prompts.len());
        assert!(expected.iter().all(|tokens| tokens.len() == 40));
        let (mut several, _) = generator(device, 3);
        let made = all(&mut several, prompts.clone(), sampling);
        assert_eq!(by_prompt(&made, prompts.len()), expected, "on {device}");
        // The caches of a generator are free again.
        let again = all(&mut several, prompts.clone(), sampling);
        assert_eq!(again, made);
    }
}

#[test]
fn a_prompt_that_is_finished_makes_room() {
    let (mut generator, _) = generator("cpu", 2);
    let prompts = ["a", "b", "c"].map(prompt).to_vec();
    let alone = by_prompt(&all(&mut generator, prompts.clone(), Sampling::greedy(20)), 3);
    let mut made = Vec::new();
    let mut tokens = generator.generate(prompts, Sampling::greedy(20)).expect("starts");
    while let Some(token) = tokens.next() {
        let token = token.expect("no failure");
        made.push(token);
        if made.iter().filter(|token| token.prompt == 0).count() == 5 {
            tokens.finish(0);
        }
    }
    let found = by_prompt(&made, 3);
    assert_eq!(found[0], alone[0][..5]);
    assert_eq!(found[1..], alone[1..]);
}

#[test]
fn a_token_can_end_a_text() {
    let (mut generator, making) = generator("cpu", 1);
    let end = making.tokens[7];
    let first = making.tokens.iter().position(|&token| token == end).expect("it is there");
    let sampling = Sampling { end: Some(end), ..Sampling::greedy(50) };
    let made = all(&mut generator, vec![prompt(&making.prompt)], sampling);
    assert_eq!(made.len(), first + 1);
    assert_eq!(made[first].finish, Some(Finish::Stop));
}

#[test]
fn a_stream_brings_the_same_tokens_and_ends_when_dropped() {
    let (mut generator, making) = self::generator("cpu", 1);
    let prompts = vec![prompt(&making.prompt)];
    let expected = all(&mut generator, prompts.clone(), Sampling::greedy(30));
    let stream = generator.stream(prompts.clone(), Sampling::greedy(30)).expect("starts");
    assert_eq!(stream.collect::<Result<Vec<_>, _>>().expect("no failure"), expected);
    let (generator, _) = self::generator("cpu", 1);
    let mut stream = generator.stream(prompts, Sampling::greedy(usize::MAX)).expect("starts");
    assert_eq!(stream.next().expect("a token").expect("no failure"), expected[0]);
    // It would go on for ever.
    drop(stream);
    let (generator, _) = self::generator("cpu", 1);
    let mut stream = generator.stream(vec![vec![]], Sampling::greedy(1)).expect("starts");
    assert!(stream.next().expect("an answer").is_err() && stream.next().is_none());
}

#[test]
fn what_does_not_fit_is_refused() {
    let Reference { seed, making, .. } = reference();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = making.weights(seed, folder.path());
    let weights = Weights::open(&path).expect("opens");
    let (mut generator, _) = generator("cpu", 1);
    let mut refused = |prompt: Vec<u32>| {
        let tokens = generator.generate(vec![prompt], Sampling::greedy(1));
        tokens.err().expect("refused").to_string()
    };
    assert_eq!(
        refused(vec![1; 65]),
        "config: prompt 1: --prompt: found 65 tokens, expected at most the 64 that the model sees at once; try a \
         shorter prompt"
    );
    assert!(refused(vec![]).contains("found no tokens"));
    assert!(refused(vec![3, 256]).contains("found token 256, expected tokens below 256"));
    let another = GptConfig { layers: 3, ..making.config() };
    let another = Gpt::with_sizes(another, 256, making.positions).expect("sound");
    let error: Error = Generator::new(another, &weights, "cpu", 1).err().expect("refused");
    assert_eq!(error.kind().exit_code(), 6);
    let text = error.to_string();
    assert!(text.contains("does not fit the model, 12 tensors differ"), "{text}");
    assert!(text.contains("transformer.h.2.ln_1.weight: missing, expected F32 [32]"), "{text}");
    // Shapes alone do not tell heads of 16 features.
    let error = model_of(&weights).expect_err("refused").to_string();
    assert!(error.contains("found a width of 32, which heads of 64 do not divide"), "{error}");
    assert!(error.contains("--model M"), "{error}");
}

fn inflight(folder: &Path, line: &str, last: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflight"));
    command.current_dir(folder).args(line.split_whitespace()).args(last);
    command.output().expect("runs")
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn train_eval_and_generate_work_together() {
    for device in devices() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = "the quick brown fox jumps over the lazy dog. ".repeat(40);
        std::fs::write(folder.path().join("fox.txt"), text).expect("writes");
        let line = format!(
            "train fox.txt --model gpt-nano --context 16 --batch-size 8 --steps 30 --lr 0.01 --val-split 0.2 \
             --device {device} --tune off --out run --workers 1 --sample-every 15 --sample-tokens 7 \
             --keep 9"
        );
        let trained = inflight(folder.path(), &line, &["--sample-prompt", "a quick"]);
        let told = words(&trained.stderr);
        assert!(told.contains("sample after step 15: a quick"), "{told}");
        assert!(told.contains("sample after step 30: a quick"), "{told}");
        assert!(trained.status.success(), "{told}");
        assert!(told.contains("perplexity") && told.contains("bits a byte"), "{told}");
        assert!(told.contains("tokens/s"), "{told}");
        let line = format!("eval run --device {device} --json");
        let evaluated = inflight(folder.path(), &line, &[]);
        let event: serde_json::Value =
            serde_json::from_slice(&evaluated.stdout).expect("a line of JSON");
        let loss = event["loss"].as_f64().expect("a loss");
        // Without learning anything it would be 5.5.
        assert!(loss < 4.0, "it has learned something: {loss}");
        assert!((event["perplexity"].as_f64().expect("is told") - loss.exp()).abs() < 1e-9);
        let bits = event["bits_per_byte"].as_f64().expect("is told");
        assert!((bits - loss / std::f64::consts::LN_2).abs() < 1e-9);
        let line = format!("generate run --device {device} --tokens 20 --temperature 0");
        let made = inflight(folder.path(), &line, &["--prompt", "the quick"]);
        assert!(made.status.success(), "{}", words(&made.stderr));
        let found = words(&made.stdout);
        assert!(found.starts_with("the quick") && found.len() > "the quick".len() + 20, "{found}");
    }
}

#[test]
fn a_llama_is_trained_within_documents_and_makes_text() {
    for device in devices() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = "the quick brown fox jumps over the lazy dog. ".repeat(40);
        std::fs::write(folder.path().join("fox.txt"), text).expect("writes");
        let line = format!(
            "train fox.txt --model llama-nano --context 16 --batch-size 8 --steps 30 --lr 0.01 --val-split 0.2 \
             --device {device} --tune off --workers 1 --dropout 0.05 --attention-dropout 0.1 --document-mask"
        );
        // Bytes have no end.
        let refused = inflight(folder.path(), &line, &[]);
        assert_eq!(refused.status.code(), Some(2));
        let told = words(&refused.stderr);
        assert!(told.contains("found tokens of which none is known to end"), "{told}");
        let line = format!("{line} --out run --document-end 46");
        let trained = inflight(folder.path(), &line, &[]);
        assert!(trained.status.success(), "{}", words(&trained.stderr));
        let line = format!("eval run --device {device} --json");
        let evaluated = inflight(folder.path(), &line, &[]);
        let event: serde_json::Value =
            serde_json::from_slice(&evaluated.stdout).expect("a line of JSON");
        assert!(event["loss"].as_f64().expect("a loss") < 4.0, "{event}");
        let line = format!("generate run --device {device} --tokens 20 --temperature 0");
        let made = inflight(folder.path(), &line, &["--prompt", "the quick"]);
        assert!(made.status.success(), "{}", words(&made.stderr));
        let text = words(&made.stdout);
        assert!(text.len() > "the quick".len() + 20);
        // As other programs have it, it is the same model.
        let exported = inflight(folder.path(), "model export run --out published", &[]);
        assert!(exported.status.success(), "{}", words(&exported.stderr));
        let again = line.replace("generate run", "generate published/model.safetensors");
        let again = inflight(folder.path(), &again, &["--prompt", "the quick"]);
        assert_eq!(words(&again.stdout), text, "{}", words(&again.stderr));
        let exported = inflight(folder.path(), "model export run --out published", &[]);
        assert_eq!(exported.status.code(), Some(2), "the folder is there already");
    }
}

#[test]
fn generate_speaks_json_and_stops_where_asked() {
    let Reference { seed, making, .. } = reference();
    let folder = tempfile::tempdir().expect("a temporary folder");
    making.weights(seed, folder.path());
    let sizes = format!(
        "[model.gpt]\nlayers = {}\nheads = {}\nwidth = {}",
        making.layers, making.heads, making.width
    );
    std::fs::write(folder.path().join("sizes.toml"), sizes).expect("writes");
    let line = "generate model.safetensors --model sizes.toml --device cpu --temperature 0 --tokens 9 --json";
    let made = inflight(folder.path(), line, &["--prompt", &making.prompt]);
    assert!(made.status.success(), "{}", words(&made.stderr));
    let event: serde_json::Value = serde_json::from_slice(&made.stdout).expect("a line of JSON");
    assert_eq!(event["tokens"], serde_json::json!(making.tokens[..9]));
    assert_eq!((&event["event"], &event["finish"]), (&"text".into(), &"length".into()));
    let found = event["log_probabilities"][8].as_f64().expect("a number");
    assert_close(&[found], &making.log_probabilities[8..9], 1e-3, 1e-3);
    // Up to the first 'B', which token 66 is; as pieces with --stream.
    let at = making.tokens.iter().position(|&token| token == 66).expect("comes");
    let line = line.replace("--tokens 9", "--tokens 100 --stream --stop B");
    let made = inflight(folder.path(), &line, &["--prompt", &making.prompt]);
    let lines: Vec<serde_json::Value> =
        words(&made.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), at + 2);
    assert_eq!(lines[at + 1]["finish"], "stop");
    // Of a file of prompts each is answered, and what comes is what comes alone.
    std::fs::write(folder.path().join("prompts.txt"), "To be\n\nor not\n").expect("writes");
    let line = "generate model.safetensors --model sizes.toml --device cpu --prompts prompts.txt --json --temperature 0";
    let made = inflight(folder.path(), line, &[]);
    let made = words(&made.stdout);
    assert_eq!(made.lines().count(), 2);
    assert!(made.contains("\"prompt\":\"To be\"") && made.contains("\"prompt\":\"or not\""));
    let refused = |line: &str, last: &[&str], code: i32| {
        let output = inflight(folder.path(), line, last);
        assert_eq!(output.status.code(), Some(code), "{}", words(&output.stderr));
        words(&output.stderr)
    };
    let base = "generate model.safetensors --device cpu --model sizes.toml";
    let long = "x".repeat(65);
    assert!(refused(base, &["--prompt", &long], 2).contains("found 65 tokens, expected at most"));
    let error = refused("generate model.safetensors --device cpu", &["--prompt", "a"], 6);
    assert!(error.contains("heads of 64 do not divide"), "{error}");
    let error =
        refused("generate model.safetensors --model gpt-nano --device cpu", &["--prompt", "a"], 6);
    assert!(error.contains("does not fit the model"), "{error}");
    std::fs::write(folder.path().join("latin.txt"), b"caf\xe9\n").expect("writes");
    let error = refused(&format!("{base} --prompts latin.txt"), &[], 3);
    assert!(error.contains("found no UTF-8 at byte 3"), "{error}");
}

#[cfg(feature = "tokenizers")]
#[test]
fn tinyshakespeare_has_as_many_gpt2_tokens_as_published() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/datasets/tinyshakespeare/input.txt");
    let made = inflight(folder.path(), "tokenize --out tokens --val-share 0.1 --json", &[text]);
    assert!(made.status.success(), "{}", words(&made.stderr));
    let event: serde_json::Value = serde_json::from_slice(&made.stdout).expect("a line of JSON");
    // As nanoGPT's data/shakespeare/readme.md says.
    assert_eq!((&event["train_tokens"], &event["val_tokens"]), (&301_966.into(), &36_059.into()));
    let data = DataConfig { context: Some(64), ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    let tokens = folder.path().join("tokens");
    let dataset = source::open(tokens.to_str().expect("UTF-8"), &options).expect("opens");
    let spec = dataset.train.spec();
    let expected = |document_end| TargetSpec::Tokens { len: 64, vocabulary: 50_257, document_end };
    assert_eq!(spec.target, expected(None));
    assert_eq!(dataset.train.len(), (301_966 - 1) / 64);
    assert_eq!(dataset.held_out().map(|source| source.len()), Some((36_059 - 1) / 64));
    assert_eq!(dataset.train.info().tokenizer.as_deref(), Some("gpt2"));
    // The tokenizer says what ends a document.
    let data = DataConfig { context: Some(64), document_mask: true, ..Default::default() };
    let options = OpenOptions { data: Some(&data), offline: true, ..Default::default() };
    let masked = source::open(tokens.to_str().expect("UTF-8"), &options).expect("opens");
    assert_eq!(masked.train.spec().target, expected(Some(50_256)));
    // Two documents with the end of a text between them; and what is no text.
    std::fs::write(folder.path().join("a.txt"), "Hello world").expect("writes");
    let line = "tokenize a.txt a.txt --out two --json";
    let made = inflight(folder.path(), line, &[]);
    assert!(made.status.success(), "{}", words(&made.stderr));
    let bin = std::fs::read(folder.path().join("two/train-00000.bin")).expect("is there");
    let found: Vec<u16> = bin.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect();
    assert_eq!(found, [15496, 995, 50256, 15496, 995]);
    std::fs::write(folder.path().join("b.txt"), b"ab\xff").expect("writes");
    let made = inflight(folder.path(), "tokenize a.txt b.txt --out three", &[]);
    assert_eq!(made.status.code(), Some(3));
    let error = words(&made.stderr);
    assert!(error.contains("b.txt: found byte 0xff at 2, expected UTF-8"), "{error}");
    let made = inflight(folder.path(), line, &[]);
    assert_eq!(made.status.code(), Some(2), "the folder is there already");
}
