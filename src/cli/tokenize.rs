//! `inflight tokenize`: text files to tokens that training reads.

use std::path::PathBuf;
use std::time::Instant;

use inflight::Result;
use inflight::tokenizer::Tokenizer;
use inflight::tokenizer::shards::{self, ShardOptions, TokenManifest};
use serde::Serialize;

use super::print;

/// Turn text files into tokens for training
///
/// Every file is a document; between two stands the token that ends a text. The folder opens as a data set, whose manifest
/// says which tokenizer made it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight tokenize book.txt --tokenizer gpt2 --out book --val-share 0.1
  inflight tokenize texts/*.txt --tokenizer tokenizer.json --out tokens
  inflight tokenize texts/*.txt --train-bpe 4096 --out tokens
  inflight train book --model gpt-mini --context 128")]
pub struct Args {
    /// Text files, in UTF-8
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The new folder
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// bytes, gpt2, or a tokenizer.json or its folder
    #[arg(long, value_name = "T", default_value = "gpt2")]
    tokenizer: String,
    /// Learn a new byte-pair encoding of so many tokens from these files, and use that; it stays in the folder
    #[arg(long, value_name = "N", conflicts_with = "tokenizer")]
    train_bpe: Option<usize>,
    /// Hold out this share at the end of every file, as 0.1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, allow_negative_numbers = true)]
    val_share: f64,
    /// Tokens of a shard
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    shard_tokens: u64,
    /// Print the result as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    #[serde(flatten)]
    manifest: &'a TokenManifest,
}

/// Tokenizes.
pub fn run(args: Args) -> Result<()> {
    let options = ShardOptions { val_share: args.val_share, shard_tokens: args.shard_tokens };
    let began = Instant::now();
    let (files, out) = (&args.files, &args.out);
    let manifest = match args.train_bpe {
        Some(tokens) => shards::write_with_new_bpe(files, tokens, out, options)?,
        None => {
            let tokenizer = Tokenizer::open(&args.tokenizer)?;
            shards::write(files, &tokenizer, &args.tokenizer, out, options)?
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        return print::json(&Event { event: "tokenize", manifest: &manifest });
    }
    // Of a short text fewer are learned than were asked for.
    let learned = match (args.train_bpe, manifest.vocabulary) {
        (Some(_), Some(found)) => format!("{} different tokens learned, ", print::count(found)),
        _ => String::new(),
    };
    print::data(format!(
        "{}: {}{} tokens to train on, {} held out, of {} in {} files · {}/s",
        args.out.display(),
        learned,
        print::count(manifest.train_tokens),
        print::count(manifest.val_tokens),
        print::bytes(manifest.text_bytes),
        print::count(manifest.documents),
        print::bytes((manifest.text_bytes as f64 / seconds) as u64),
    ));
    Ok(())
}
