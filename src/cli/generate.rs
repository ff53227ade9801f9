//! `inflight generate`: text by a language model, token by token.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::builder::NonEmptyStringValueParser;
use inflight::generate::{Alternative, Finish, Generator, Sampling, TextPieces};
use inflight::tokenizer::Tokenizer;
use inflight::{Error, Result};
use serde::Serialize;

use super::language::LanguageFlags;
use super::print;

/// Continue texts with a language model
///
/// One prompt is shown with what follows it, as it is made with --stream. Of several, each is shown when it is done.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight generate runs/tinyshakespeare-gpt-nano-1 --prompt 'ROMEO:' --stream
  inflight generate gpt2.safetensors --tokenizer gpt2 --prompt 'Hello, I am' --temperature 0
  inflight generate runs/NAME --prompts prompts.txt --json")]
pub struct Args {
    #[command(flatten)]
    language: LanguageFlags,
    /// The text to continue
    #[arg(long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Option<String>,
    /// A file with a prompt a line
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Show text as it is made
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    sampling: SamplingFlags,
    /// End a text before this string; may be given several times
    #[arg(long, value_name = "STR", value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Prompts that are continued at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    sequences: usize,
    /// Print a line of JSON a prompt to stdout, with the logarithms of probabilities; with --stream one a token as well
    #[arg(long)]
    json: bool,
    /// Tell the N most probable tokens beside each one that is made, at most 20
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        requires = "json"
    )]
    alternatives: usize,
}

/// How tokens are chosen.
#[derive(Clone, Debug, clap::Args)]
pub struct SamplingFlags {
    /// Tokens made for each prompt
    #[arg(long, value_name = "N", default_value_t = 200)]
    tokens: usize,
    /// What logits are divided by; 0 takes the most probable token
    #[arg(long, value_name = "X", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f64,
    /// Only so many of the most probable tokens [default: all]
    #[arg(long, value_name = "K", default_value_t = 0, hide_default_value = true)]
    top_k: usize,
    /// Only the most probable tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f64,
    /// Only tokens of at least this share of the highest probability
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f64,
    /// Make tokens that were there before less probable, as 1.2
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true)]
    repetition_penalty: f64,
    /// Make tokens that were made before less probable, by as much however often; -2 to 2
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f64,
    /// Make tokens that were made before less probable, by as much for each time; -2 to 2
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f64,
    /// Seed of what is drawn
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
}

impl SamplingFlags {
    fn sampling(&self, alternatives: usize, end: Option<u32>) -> Sampling {
        let Self { tokens, temperature, top_k, top_p, min_p, repetition_penalty, .. } = *self;
        let Self { presence_penalty, frequency_penalty, seed, .. } = *self;
        Sampling {
            tokens,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            alternatives,
            seed,
            end,
        }
    }
}

/// A text that is done.
#[derive(Serialize)]
struct Made<'a> {
    event: &'static str,
    prompt: &'a str,
    text: String,
    tokens: Vec<u32>,
    log_probabilities: Vec<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<Vec<Other>>,
    finish: Finish,
}

/// A token of a text under way.
#[derive(Serialize)]
struct Piece<'a> {
    event: &'static str,
    prompt: usize,
    token: u32,
    log_probability: f64,
    #[serde(skip_serializing_if = "<[Other]>::is_empty")]
    alternatives: &'a [Other],
    text: &'a str,
}

/// A token that could have been made.
#[derive(Serialize)]
struct Other {
    token: u32,
    text: String,
    log_probability: f64,
}

impl Other {
    fn new(told: &Alternative, tokenizer: &Tokenizer) -> Self {
        let text = String::from_utf8_lossy(tokenizer.bytes(told.id)).into_owned();
        Self { token: told.id, text, log_probability: told.log_probability }
    }
}

/// What was made of a prompt so far.
struct Text {
    pieces: TextPieces,
    text: String,
    tokens: Vec<u32>,
    log_probabilities: Vec<f64>,
    alternatives: Vec<Vec<Other>>,
}

impl Text {
    fn made(self, prompt: &str, finish: Finish) -> Made<'_> {
        let Self { text, tokens, log_probabilities, alternatives, .. } = self;
        Made { event: "text", prompt, text, tokens, log_probabilities, alternatives, finish }
    }
}

/// Generates.
pub fn run(args: Args) -> Result<()> {
    let prompts = prompts(&args)?;
    let language = args.language.open()?;
    let mut generator = language.generator(args.sequences.min(prompts.len()))?;
    let tokenizer = &language.tokenizer;
    let name = generator.device().name;
    let encode = |prompt: &String| tokenizer.encode_long(prompt);
    let tokens = prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;
    let sampling = args.sampling.sampling(args.alternatives, tokenizer.end());
    let began = Instant::now();
    let count = write(&args, &prompts, tokens, &mut generator, tokenizer, sampling)?;
    let seconds = began.elapsed().as_secs_f64();
    print::note(format!(
        "{} tokens in {seconds:.2} s: {} tokens/s on {name}",
        print::count(count),
        print::rate(count as f64 / seconds),
    ));
    Ok(())
}

fn prompts(args: &Args) -> Result<Vec<String>> {
    let Some(path) = &args.prompts else { return Ok(args.prompt.iter().cloned().collect()) };
    let text = std::fs::read(path)
        .map_err(|e| Error::data(path.display(), "cannot be read").caused_by(e))?;
    let text = String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::data(path.display(), format!("found no UTF-8 at byte {at}"))
    })?;
    let prompts: Vec<String> =
        text.lines().filter(|line| !line.is_empty()).map(Into::into).collect();
    if prompts.is_empty() {
        return Err(Error::data(path.display(), "found no prompts, expected one a line"));
    }
    Ok(prompts)
}

/// Writes what is made; returns how many tokens that were.
fn write(
    args: &Args,
    prompts: &[String],
    tokens: Vec<Vec<u32>>,
    generator: &mut Generator,
    tokenizer: &Tokenizer,
    sampling: Sampling,
) -> Result<u64> {
    // With several prompts pieces of different texts would mix.
    let shows = args.stream && !args.json && prompts.len() == 1;
    if shows {
        print::text(&prompts[0]);
    }
    let mut texts: HashMap<usize, Text> = HashMap::new();
    let mut generation = generator.generate(tokens, sampling)?;
    let mut count = 0;
    while let Some(token) = generation.next() {
        let token = token?;
        count += 1;
        let text = texts.entry(token.prompt).or_insert_with(|| Text {
            pieces: TextPieces::new(args.stop.clone()),
            text: String::new(),
            tokens: Vec::new(),
            log_probabilities: Vec::new(),
            alternatives: Vec::new(),
        });
        text.tokens.push(token.id);
        text.log_probabilities.push(token.log_probability);
        let others: Vec<_> =
            token.alternatives.iter().map(|told| Other::new(told, tokenizer)).collect();
        let (piece, finish) = text.pieces.take_token(&token, tokenizer);
        text.text.push_str(&piece);
        if shows {
            print::text(&piece);
        }
        if args.stream && args.json {
            print::json(&Piece {
                event: "token",
                prompt: token.prompt,
                token: token.id,
                log_probability: token.log_probability,
                alternatives: &others,
                text: &piece,
            })?;
        }
        if !others.is_empty() {
            text.alternatives.push(others);
        }
        if let Some(finish) = finish
            && let Some(text) = texts.remove(&token.prompt)
        {
            generation.finish(token.prompt);
            let prompt = &prompts[token.prompt];
            match (args.json, shows) {
                (true, _) => print::json(&text.made(prompt, finish))?,
                (false, true) => print::text("\n"),
                (false, false) => print::text(&format!("{prompt}{}\n", text.text)),
            }
        }
    }
    Ok(count)
}
