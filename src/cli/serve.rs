//! `inflight serve`: a language model over HTTP.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use inflight::serve::{ServeConfig, Server};
use inflight::{Error, Result};
use serde_json::json;

use super::language::LanguageFlags;
use super::print;

/// Serve a language model over HTTP, with the endpoints of OpenAI's API
///
/// /v1/completions and /v1/chat/completions, whole or streamed; /v1/models, /health, /metrics for Prometheus, and a page to
/// try it at /. Texts are made together: each joins and leaves between two steps. Ctrl-C finishes what is under way.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inflight serve runs/tinyshakespeare-gpt-nano-1
  inflight serve gpt2.safetensors --tokenizer gpt2 --device gpu --sequences 64 --port 9000
  curl localhost:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{\"prompt\": \"ROMEO:\", \"max_tokens\": 100, \"stream\": true}'")]
pub struct Args {
    #[command(flatten)]
    language: LanguageFlags,
    /// Where to listen; beyond this machine only with a key
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen at; 0 takes one that is free
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// What clients must send as `Authorization: Bearer KEY`
    #[arg(long, value_name = "KEY", env = "INFLIGHT_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// What clients call the model [default: the name of the run or file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Texts that are made at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    sequences: usize,
    /// Texts that wait at most; whoever comes then is told to come again
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 1024)]
    connections: usize,
    /// Tokens of a text at most
    #[arg(long, value_name = "N", default_value_t = 2048)]
    tokens_max: usize,
    /// Seconds that a request may take, with its wait
    #[arg(long, value_name = "S", default_value_t = 300)]
    timeout: u64,
    /// Seconds that requests under way may still take after Ctrl-C
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain: u64,
    /// A Jinja template that makes prompts of chats, as Hugging Face's chat_template [default: a line `role: content` each]
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Print a line of JSON to stdout once it listens
    #[arg(long)]
    json: bool,
}

/// Serves.
pub fn run(args: Args) -> Result<()> {
    let template = args.chat_template.as_ref().map(|path| {
        std::fs::read_to_string(path)
            .map_err(|e| Error::config(path.display(), "cannot be read").caused_by(e))
    });
    let config = ServeConfig {
        address: SocketAddr::new(args.host, args.port),
        model: args.name.clone().unwrap_or_else(|| name_of(&args)),
        api_key: args.api_key,
        queue: args.queue,
        connections: args.connections,
        tokens_max: args.tokens_max,
        timeout: Duration::from_secs(args.timeout),
        drain: Duration::from_secs(args.drain),
        chat_template: template.transpose()?,
        ..ServeConfig::default()
    };
    let language = args.language.open()?;
    let generator = language.generator(args.sequences)?;
    let device = generator.device().name;
    let model = config.model.clone();
    let server = Server::start(config, generator, language.tokenizer)?;
    let url = format!("http://{}", server.address());
    match args.json {
        true => print::json(&json!({
            "event": "listening", "url": url, "model": model, "device": device,
        }))?,
        false => print::note(format!("{model} on {device}: {url}/ (Ctrl-C to stop)")),
    }
    server.run(stopped())
}

/// The last part of the path, without what says that it is a file.
fn name_of(args: &Args) -> String {
    let path = &args.language.path;
    let name = std::path::absolute(path).ok();
    let name = name.as_deref().unwrap_or(path).file_stem();
    name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

/// Ready when somebody wants this process to end; a second time it ends at once.
async fn stopped() {
    signalled().await;
    print::note("finishing what is under way; again to stop at once".to_string());
    tokio::spawn(async {
        signalled().await;
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signalled() {
    let _ = tokio::signal::ctrl_c().await;
}
