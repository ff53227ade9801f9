//! A server with a small model of bytes, asked over real connections.
#![cfg(feature = "serve")]

#[path = "../common/browser.rs"]
mod browser;
mod client;
mod clients;
#[path = "../common/language.rs"]
mod language;
mod limits;
mod probabilities;
mod requests;

use std::net::SocketAddr;
use std::thread::JoinHandle;

use inflight::Result;
use inflight::generate::{Generator, Sampling, TextPieces, model_with};
use inflight::nn::gpt::{Gpt, GptConfig};
use inflight::serve::{ServeConfig, Server};
use inflight::tokenizer::Tokenizer;
use inflight::train::weights::Weights;

/// Positions of the model.
const POSITIONS: usize = 32;

/// The weights of a model of one small block.
fn weights(std: f32) -> (GptConfig, Weights) {
    let config = GptConfig {
        layers: 1,
        heads: 2,
        width: 16,
        dropout: 0.0,
        attention_dropout: 0.0,
        positions: Some(POSITIONS),
    };
    let model = Gpt::with_sizes(config, 256, POSITIONS).expect("fits");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    language::write_weights(&model, POSITIONS, std, 7, "transformer.", &path);
    (config, Weights::open(path).expect("opens"))
}

fn generator(sequences: usize) -> Generator {
    let (config, weights) = weights(0.4);
    let model = model_with(config, &weights).expect("a model");
    Generator::new(model, &weights, "cpu", sequences).expect("fits")
}

/// What the library makes of a prompt alone.
fn alone(generator: &mut Generator, prompt: &str, sampling: Sampling) -> String {
    let prompt = prompt.bytes().map(u32::from).collect();
    let (mut pieces, mut text) = (TextPieces::default(), String::new());
    for token in generator.generate(vec![prompt], sampling).expect("starts") {
        text.push_str(&pieces.push(Tokenizer::Bytes.bytes(token.expect("made").id)));
    }
    text + &pieces.finish()
}

/// A server on a thread, which ends with this.
struct Serving {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Serving {
    fn start(config: ServeConfig, generator: Generator) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ServeConfig { address, model: "small".into(), ..config };
        let server = Server::start(config, generator, Tokenizer::Bytes).expect("starts");
        let address = server.address();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let run = move || server.run(async { drop(stopped.await) });
        Self { address, stop: Some(stop), thread: Some(std::thread::spawn(run)) }
    }

    /// One of so many texts at once, with everything else as usual.
    fn plain(sequences: usize) -> Self {
        Self::start(ServeConfig::default(), generator(sequences))
    }

    /// Begins to stop.
    fn stop(&mut self) {
        self.stop = None;
    }

    /// Stops, and tells how it ended.
    fn end(mut self) -> Result<()> {
        self.stop();
        self.thread.take().expect("not ended yet").join().expect("no panic")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("no panic").expect("no failure");
            }
        }
    }
}
