//! Serving under load: so many clients at once, each with a prompt of 32 bytes and 64 tokens to come, over loopback. A line
//! each: tokens a second of all together, the wait for the first token, the time between two tokens, and the memory of the
//! process, which holds the clients as well.
//!
//! `cargo bench --features serve --bench serving`; MODEL names another model than gpt-nano, DEVICE another device than the
//! twins, SEQUENCES the texts at once, CLIENTS the numbers of clients. Weights are random: no text makes a step longer.

#[path = "../tests/serve/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../tests/common/language.rs"]
mod language;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use inflight::generate::{Generator, model_with};
use inflight::nn::language::LanguageConfig;
use inflight::report::memory::current_memory_bytes;
use inflight::serve::{ServeConfig, Server};
use inflight::tokenizer::Tokenizer;
use inflight::train::weights::Weights;
use serde_json::json;

const POSITIONS: usize = 256;
const TOKENS: usize = 64;
const ROUNDS: usize = 3;

/// What a client waited for.
struct Waits {
    first: Duration,
    between: Vec<Duration>,
}

/// Asks for a text and reads it to its end.
fn listen(address: SocketAddr, number: usize) -> Waits {
    let request = json!({
        "prompt": format!("{number:>32}"), "max_tokens": TOKENS, "seed": number, "stream": true,
    });
    let began = Instant::now();
    let body = request.to_string();
    let mut asked = client::ask(address, "POST", "/v1/completions", "", &body);
    assert_eq!(asked.status, 200);
    let (mut latest, mut first, mut between) = (began, None, Vec::with_capacity(TOKENS));
    while let Some(event) = asked.event() {
        if event == "[DONE]" {
            break;
        }
        let now = Instant::now();
        match first {
            None => first = Some(now - began),
            Some(_) => between.push(now - latest),
        }
        latest = now;
    }
    assert_eq!(between.len(), TOKENS - 1, "a token was lost");
    Waits { first: first.expect("a token"), between }
}

/// So many clients at once: how long they took together, and what each waited for.
fn round(address: SocketAddr, clients: usize) -> (Duration, Vec<Waits>) {
    let began = Instant::now();
    let thread = |number| {
        let builder = std::thread::Builder::new().stack_size(256 << 10);
        builder.spawn(move || listen(address, number)).expect("a thread")
    };
    let threads: Vec<_> = (0..clients).map(thread).collect();
    let waits = threads.into_iter().map(|thread| thread.join().expect("served")).collect();
    (began.elapsed(), waits)
}

/// The durations below which half of all and 99 of 100 are, in milliseconds.
fn percentiles(mut all: Vec<Duration>) -> [f64; 2] {
    all.sort_unstable();
    [0.5, 0.99].map(|share| 1e3 * all[((all.len() - 1) as f64 * share) as usize].as_secs_f64())
}

fn variable<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

fn main() {
    let name: String = variable("MODEL", "gpt-nano".to_string());
    let device: String = variable("DEVICE", "cpu".to_string());
    let sequences: usize = variable("SEQUENCES", 64);
    let clients: String = variable("CLIENTS", "1 8 64 1000".to_string());
    let config = LanguageConfig::by_name(&name).expect("a language model");
    let model = config.with_sizes(256, POSITIONS).expect("fits");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = language::random_weights(&model, POSITIONS, 0.02, 1, folder.path());
    let weights = Weights::open(path).expect("opens");
    let model = model_with(config, &weights).expect("a model");
    let generator = Generator::new(model, &weights, &device, sequences).expect("fits");
    println!("{name} on {}, {sequences} texts at once", generator.device().name);
    rlimit::increase_nofile_limit(4096).expect("enough files");
    let config = ServeConfig {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        queue: 1000,
        connections: 1100,
        ..ServeConfig::default()
    };
    let server = Server::start(config, generator, Tokenizer::Bytes).expect("starts");
    let address = server.address();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || server.run(async { drop(stopped.await) }));
    round(address, 2);
    for clients in clients.split(' ').filter_map(|count| count.parse().ok()) {
        for _ in 0..ROUNDS {
            let (took, waits) = round(address, clients);
            let rate = (clients * TOKENS) as f64 / took.as_secs_f64();
            let [first, late_first] = percentiles(waits.iter().map(|waits| waits.first).collect());
            let between = waits.into_iter().flat_map(|waits| waits.between).collect();
            let [between, late] = percentiles(between);
            let megabytes = current_memory_bytes().map_or(f64::NAN, |bytes| bytes as f64 / 1e6);
            println!(
                "{clients} clients: {rate:.0} tokens/s; first token p50 {first:.1} ms, p99 {late_first:.1} ms; between tokens \
                 p50 {between:.2} ms, p99 {late:.2} ms; {megabytes:.0} MB"
            );
        }
    }
    drop(stop);
    serving.join().expect("no panic").expect("no failure");
}
