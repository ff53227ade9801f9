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
    let tokenizer = Tokenizer::open(&args.tokenizer)?;
    let options = ShardOptions { val_share: args.val_share, shard_tokens: args.shard_tokens };
    let began = Instant::now();
    let manifest = shards::write(&args.files, &tokenizer, &args.tokenizer, &args.out, options)?;
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        return print::json(&Event { event: "tokenize", manifest: &manifest });
    }
    print::data(format!(
        "{}: {} tokens to train on, {} held out, of {} in {} files · {}/s",
        args.out.display(),
        print::count(manifest.train_tokens),
        print::count(manifest.val_tokens),
        print::bytes(manifest.text_bytes),
        print::count(manifest.documents),
        print::bytes((manifest.text_bytes as f64 / seconds) as u64),
    ));
    Ok(())
}
