//! What tokens are chosen from, and what is told of the choice, against plain arithmetic over all logits of the model.

mod common;
#[path = "common/language.rs"]
mod language;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use common::devices;
use inflight::batch::{DType, SampleSpec, StepHeader, TargetSpec};
use inflight::executor::Wants;
use inflight::generate::{Generator, Sampling, Token};
use inflight::graph::plan::Pass;
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::nn::losses::Loss;
use inflight::train::compile::{Blueprint, compile};
use inflight::train::weights::Weights;
use serde_json::{Value, json};

const VOCABULARY: usize = 256;

/// What logits that were computed in another order may differ by.
const ROUNDING: f64 = 1e-3;

fn model(positions: usize) -> Gpt {
    let config = GptConfig { positions: Some(positions), ..GptConfig::of(2, 2, 16) };
    Gpt::with_sizes(config, VOCABULARY, positions).expect("sound")
}

fn save(model: &Gpt, folder: &Path) -> PathBuf {
    let file = folder.join("model.safetensors");
    let positions = model.config().positions.expect("is told");
    language::write_weights(model, positions, 0.3, 11, "transformer.", &file);
    file
}

fn weights(model: &Gpt) -> Weights {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Weights::open(save(model, folder.path())).expect("opens")
}

fn tokens(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// The logits that follow each token of a text, all of it in one pass without a cache.
fn logits(model: &Gpt, weights: &Weights, text: &[u32]) -> Vec<Vec<f64>> {
    let len = text.len();
    let spec = SampleSpec {
        input_shape: vec![len],
        input_dtype: DType::U16,
        target: TargetSpec::Tokens { len, vocabulary: VOCABULARY, document_end: None },
    };
    let loss = Loss::for_target(&spec);
    let blueprint =
        Blueprint { model, spec: &spec, batch_size: 1, mean: &[], std: &[], loss, training: None };
    let program = Arc::new(compile(&blueprint).expect("compiles"));
    let mut executor = inflight::device::open("cpu", program.clone(), 1).expect("opens");
    for (arena, variable, values) in weights.place(&program).expect("fits") {
        executor.load(arena, variable.offset, &values).expect("loads");
    }
    let mut slot = executor.take_slots().expect("slots").remove(0);
    slot.write_header(&StepHeader { count: 1, ..StepHeader::default() });
    let shorts: Vec<u16> = text.iter().map(|&token| token as u16).collect();
    slot.write_at(program.slot.input_offset, bytemuck::cast_slice(&shorts));
    executor.submit(Pass::Eval, slot, Wants { output: true, ..Wants::default() }).expect("submits");
    let done = executor.collect(Duration::from_secs(60)).expect("collects").expect("ends");
    let all = done.output.expect("is wanted");
    all.chunks(VOCABULARY).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}

/// The logarithms of probabilities.
fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let total = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
    logits.iter().map(|x| x - total).collect()
}

/// The logits of the next token of a text, once what was there before is penalised.
fn penalised(logits: &[f64], seen: &[u32], made: &[u32], sampling: &Sampling) -> Vec<f64> {
    let each = logits.iter().enumerate().map(|(token, &logit)| {
        let factor = sampling.repetition_penalty;
        let logit = match seen.contains(&(token as u32)) {
            true if logit > 0.0 => logit / factor,
            true => logit * factor,
            false => logit,
        };
        let count = made.iter().filter(|&&other| other as usize == token).count() as f64;
        let present = f64::from(u8::from(count > 0.0));
        logit - present * sampling.presence_penalty - count * sampling.frequency_penalty
    });
    each.collect()
}

/// Expects that a token is the first by these numbers, or would be but for rounding.
#[track_caller]
fn expect_first(token: u32, numbers: &[f64]) {
    let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let first = numbers.iter().position(|&x| x == most).expect("there is one");
    let found = numbers[token as usize];
    assert!(found >= most - ROUNDING, "found {token} at {found}, expected {first} at {most}");
}

fn of_prompt(made: &[Token], prompt: usize) -> Vec<Token> {
    made.iter().filter(|token| token.prompt == prompt).cloned().collect()
}

fn ids(made: &[Token]) -> Vec<u32> {
    made.iter().map(|token| token.id).collect()
}

#[test]
fn alternatives_are_the_most_probable_of_all_tokens() {
    let model = model(64);
    let weights = weights(&model);
    let prompts = ["A", "First Citizen:", "Speak", "\n"].map(tokens).to_vec();
    // Whatever the choice is made from, probabilities are the model's.
    let sampling = Sampling {
        tokens: 20,
        temperature: 1.3,
        top_k: 40,
        repetition_penalty: 1.4,
        presence_penalty: 0.7,
        alternatives: 20,
        ..Sampling::default()
    };
    for device in devices() {
        let mut generator = Generator::new(model, &weights, device, 3).expect("fits");
        let mut all = |sampling: Sampling| -> Vec<Token> {
            let made = generator.generate(prompts.clone(), sampling).expect("starts");
            made.collect::<Result<_, _>>().expect("no failure")
        };
        let made = all(sampling);
        let mut first = 0;
        for (i, prompt) in prompts.iter().enumerate() {
            let made = of_prompt(&made, i);
            let text = [prompt.clone(), ids(&made)].concat();
            let rows = logits(&model, &weights, &text);
            for (token, row) in made.iter().zip(&rows[prompt.len() - 1..]) {
                let expected = log_softmax(row);
                let told = &token.alternatives;
                assert_eq!(told.len(), 20);
                first += usize::from(told[0].id == token.id);
                let mut sorted = expected.clone();
                sorted.sort_by(|a, b| b.total_cmp(a));
                for (rank, told) in told.iter().enumerate() {
                    let found = told.log_probability;
                    assert!((found - expected[told.id as usize]).abs() < ROUNDING, "{told:?}");
                    assert!((found - sorted[rank]).abs() < ROUNDING, "{told:?}, rank {rank}");
                }
                let mut different: Vec<u32> = told.iter().map(|told| told.id).collect();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), 20, "{told:?}");
                assert!((token.log_probability - expected[token.id as usize]).abs() < ROUNDING);
            }
        }
        assert!(first > 0 && first < made.len(), "{first}: it is the first one now and then");
        // Whoever asks for fewer gets the same ones and the same text.
        for fewer in [0, 3] {
            let few = all(Sampling { alternatives: fewer, ..sampling });
            assert_eq!(ids(&few), ids(&made));
            let told = |token: &Token| token.alternatives[..fewer].to_vec();
            assert!(few.iter().zip(&made).all(|(few, made)| few.alternatives == told(made)));
        }
    }
}

#[test]
fn penalties_are_those_of_a_plain_loop_whoever_joins_and_leaves() {
    let model = model(64);
    let weights = weights(&model);
    let plain = Sampling::greedy(30);
    let presence = Sampling { presence_penalty: 2.0, ..plain };
    let frequency = Sampling { frequency_penalty: 0.9, ..plain };
    let texts = [
        ("A", plain),
        ("First", presence),
        // Drawn, but from one token.
        ("Speak", Sampling { temperature: 0.7, top_k: 1, ..frequency }),
        ("To be", Sampling { presence_penalty: -0.4, frequency_penalty: 1.3, ..plain }),
        ("or not", Sampling { frequency_penalty: 1.1, repetition_penalty: 1.2, ..presence }),
        ("to be", frequency),
    ];
    for device in devices() {
        let mut generator = Generator::new(model, &weights, device, 4).expect("fits");
        let mut under_way = generator.texts();
        let join = |under_way: &mut inflight::generate::Texts<'_>, name: usize| {
            let (prompt, sampling) = texts[name];
            under_way.join(name, 0, tokens(prompt), sampling).expect("fits");
        };
        (0..4).for_each(|name| join(&mut under_way, name));
        let mut made = Vec::new();
        for step in 0.. {
            match step {
                // Three texts in a pass of four rows, of which the last one is stale.
                7 => under_way.leave(1),
                12 => join(&mut under_way, 4),
                20 => join(&mut under_way, 5),
                _ if step > 20 && under_way.is_empty() => break,
                _ => {}
            }
            if step == 20 {
                assert!(under_way.is_full());
            }
            if step == 19 {
                under_way.leave(2);
            }
            made.extend(under_way.step().expect("no failure"));
        }
        let mut repeated = 0;
        for (name, (prompt, sampling)) in texts.iter().enumerate() {
            let prompt = tokens(prompt);
            let made = ids(&of_prompt(&made, name));
            assert!(made.len() == 30 || [1, 2].contains(&name) && made.len() > 5);
            let text = [prompt.clone(), made.clone()].concat();
            let rows = logits(&model, &weights, &text);
            for (i, &token) in made.iter().enumerate() {
                let seen = &text[..prompt.len() + i];
                let numbers = penalised(&rows[seen.len() - 1], seen, &made[..i], sampling);
                expect_first(token, &numbers);
                repeated += usize::from(made[..i].contains(&token));
            }
        }
        assert!(repeated > 20, "{repeated}: tokens come again");
    }
}

#[test]
fn tokens_count_when_the_model_no_longer_sees_them() {
    let model = model(8);
    let weights = weights(&model);
    let sampling = Sampling { frequency_penalty: 0.8, ..Sampling::greedy(60) };
    let prompt = tokens("To");
    let mut generator = Generator::new(model, &weights, "cpu", 1).expect("fits");
    let made = generator.generate(vec![prompt.clone()], sampling).expect("starts");
    let made = ids(&made.collect::<Result<Vec<_>, _>>().expect("no failure"));
    let mut window = prompt;
    let mut forgotten = 0;
    for (i, &token) in made.iter().enumerate() {
        let rows = logits(&model, &weights, &window);
        let row = &rows[window.len() - 1];
        expect_first(token, &penalised(row, &window, &made[..i], &sampling));
        let seen = i.saturating_sub(window.len());
        // Were they forgotten, another one would follow.
        let numbers = penalised(row, &window, &made[seen..i], &sampling);
        forgotten += usize::from(numbers.iter().any(|&x| x > numbers[token as usize] + ROUNDING));
        if window.len() == 8 {
            window.drain(..4);
        }
        window.push(token);
    }
    assert!(forgotten > 0);
}

fn inflight(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflight"));
    command.current_dir(folder).args(line.split_whitespace()).output().expect("runs")
}

/// A model whose sizes are in a file beside its weights, and a folder for both.
fn folder(model: &Gpt) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    save(model, folder.path());
    let sizes = "[model.gpt]\nlayers = 2\nheads = 2\nwidth = 16\n";
    std::fs::write(folder.path().join("sizes.toml"), sizes).expect("writes");
    folder
}

const GENERATE: &str = "generate model.safetensors --model sizes.toml --device cpu";

/// All lines that a command prints.
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(words), "{told}");
}

#[test]
fn the_command_tells_alternatives_and_penalises() {
    let model = model(64);
    let folder = folder(&model);
    let run = |more: &str| inflight(folder.path(), &format!("{GENERATE} --prompt To {more}"));
    let weights = Weights::open(folder.path().join("model.safetensors")).expect("opens");
    let mut generator = Generator::new(model, &weights, "cpu", 1).expect("fits");
    let mut made = |sampling: Sampling| -> Vec<Token> {
        let made = generator.generate(vec![tokens("To")], sampling).expect("starts");
        made.collect::<Result<_, _>>().expect("no failure")
    };
    let expected = made(Sampling { alternatives: 2, ..Sampling::greedy(5) });
    let others = expected.iter().map(|token| {
        let other = |told: &inflight::generate::Alternative| {
            let text = String::from_utf8_lossy(&[told.id as u8]).into_owned();
            json!({ "token": told.id, "text": text, "log_probability": told.log_probability })
        };
        token.alternatives.iter().map(other).collect::<Value>()
    });
    let others: Vec<Value> = others.collect();
    let found = lines(&run("--temperature 0 --tokens 5 --json --stream --alternatives 2"));
    assert_eq!(found.len(), 6);
    assert_eq!(found[5]["alternatives"], json!(others));
    for (line, others) in found.iter().zip(&others) {
        assert_eq!(&line["alternatives"], others);
    }
    let plain = lines(&run("--temperature 0 --tokens 5 --json"));
    assert!(plain[0].get("alternatives").is_none(), "{plain:?}");
    assert_eq!(plain[0]["tokens"], json!(ids(&expected)));
    let penalties =
        Sampling { presence_penalty: -0.5, frequency_penalty: 1.5, ..Sampling::greedy(30) };
    let flags =
        "--temperature 0 --tokens 30 --json --presence-penalty -0.5 --frequency-penalty 1.5";
    let expected = ids(&made(penalties));
    assert_eq!(lines(&run(flags))[0]["tokens"], json!(expected));
    assert_ne!(expected, ids(&made(Sampling::greedy(30))));
    refused(&run("--alternatives 3"), "--json");
    refused(&run("--json --alternatives 21"), "--alternatives: found 21, expected at most 20");
    let words = "--presence-penalty: found 2.5, expected -2 to 2";
    refused(&run("--presence-penalty 2.5"), words);
    let words = "--frequency-penalty: found -3, expected -2 to 2";
    refused(&run("--frequency-penalty -3"), words);
}

#[test]
fn a_shorter_context_is_a_model_of_fewer_positions() {
    let model = model(32);
    let folder = folder(&model);
    let run = |more: &str| inflight(folder.path(), &format!("{GENERATE} --prompt To {more}"));
    let greedy = "--temperature 0 --tokens 30 --json";
    let short = lines(&run(&format!("{greedy} --context 6")));
    // By hand: the later half of what is full.
    let weights = Weights::open(folder.path().join("model.safetensors")).expect("opens");
    let ids: Vec<u32> = serde_json::from_value(short[0]["tokens"].clone()).expect("tokens");
    let mut window = tokens("To");
    for &token in &ids {
        let rows = logits(&model, &weights, &window);
        expect_first(token, &rows[window.len() - 1]);
        if window.len() == 6 {
            window.drain(..3);
        }
        window.push(token);
    }
    let whole = lines(&run(greedy));
    assert_ne!(whole[0]["tokens"], short[0]["tokens"], "the context matters");
    assert_eq!(lines(&run(&format!("{greedy} --context 32")))[0], whole[0]);
    let long = inflight(folder.path(), &format!("{GENERATE} --prompt 1234567 --context 6"));
    refused(&long, "found 7 tokens, expected at most the 6 that the model sees at once");
    refused(&run("--context 33"), "--context: found 33, expected 1 to the model's 32");
    refused(&run("--context 0"), "--context: found 0, expected 1 to the model's 32");
}
