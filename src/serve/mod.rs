//! A language model over HTTP, with the endpoints of OpenAI's API: completions and chat, whole or as server-sent events.
//!
//! The `serve` thread owns the model. Texts join and leave it between any two steps (continuous batching): what is asked
//! waits in a queue of bounded length, and whoever is gone takes no further step. All else runs on a small pool of `http`
//! threads.
//!
//! ```text
//! connection ─▶ request ─▶ jobs ─▶ queue ─▶ texts, a step at a time ─▶ replies ─▶ events
//!   bounded      checked    keyed   bounded, else 429                             or one answer
//! ```

mod api;
mod chat;
mod desk;
mod events;
mod http;
mod measures;
mod probabilities;
mod routes;
mod write_timeout;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::generate::Generator;
use crate::tokenizer::Tokenizer;
use chat::ChatTemplate;
use desk::{Desk, Job};
use measures::Measures;

/// Threads that speak HTTP: they only parse, and hand on what the model makes.
const HTTP_THREADS: usize = 2;

/// What a server allows.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where it listens; port 0 takes any that is free.
    pub address: SocketAddr,
    /// The name of the model.
    pub model: String,
    /// What clients must send as `Authorization: Bearer KEY`, if anything.
    pub api_key: Option<String>,
    /// Texts that wait for a place at most; whoever comes then is told to come again (429).
    pub queue: usize,
    /// Connections at once; others wait to be accepted.
    pub connections: usize,
    /// Tokens of a text at most.
    pub tokens_max: usize,
    /// How long a request may take, with its wait for a place.
    pub timeout: Duration,
    /// How long a client may take nothing of what it is sent before its connection is cut.
    pub write_timeout: Duration,
    /// How long requests under way may go on after the server was told to stop.
    pub drain: Duration,
    /// A Jinja template that makes a prompt of the messages of a chat; without one each becomes `role: content`.
    pub chat_template: Option<String>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            model: "inflight".into(),
            api_key: None,
            queue: 256,
            connections: 1024,
            tokens_max: 2048,
            timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            chat_template: None,
        }
    }
}

impl ServeConfig {
    fn validate(&self) -> Result<()> {
        let at_least_one = [
            ("--queue", self.queue),
            ("--connections", self.connections),
            ("--tokens-max", self.tokens_max),
        ];
        if let Some((flag, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(Error::config(flag, "found 0, expected at least 1"));
        }
        if self.api_key.as_ref().is_some_and(String::is_empty) {
            return Err(Error::config("--api-key", "found an empty key"));
        }
        if !self.address.ip().is_loopback() && self.api_key.is_none() {
            let message = format!(
                "found {}, which others can reach, but no key that would keep them out",
                self.address.ip()
            );
            return Err(Error::config("--host", message).hint("--api-key KEY"));
        }
        Ok(())
    }
}

/// What all parts of a server share.
struct Shared {
    config: ServeConfig,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    /// Tokens that the model sees at once, and how many different ones there are.
    positions: usize,
    vocabulary: usize,
    sequences: usize,
    /// A permit for each text that may wait.
    waiting: Arc<Semaphore>,
    jobs: crossbeam_channel::Sender<Job>,
    measures: Measures,
    /// Seconds since 1970 when it began.
    began: u64,
    requests: AtomicU64,
    /// What a text took from its beginning to its end, lately, in microseconds.
    text_us: AtomicUsize,
    /// Whether it still takes requests.
    is_open: AtomicBool,
}

impl Shared {
    /// A number that no other request of this server has.
    fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// How long whoever found the queue full had better stay away, in whole seconds.
    fn retry_after_s(&self) -> u64 {
        let waiting = self.config.queue - self.waiting.available_permits().min(self.config.queue);
        let rounds = waiting.div_ceil(self.sequences);
        let us = rounds as u64 * self.text_us.load(Ordering::Relaxed) as u64;
        us.div_ceil(1_000_000).clamp(1, 60)
    }
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    desk: JoinHandle<Result<()>>,
}

impl Server {
    /// Starts to listen, with a model and the tokenizer that it was trained with. As many texts are made at once as the
    /// generator has sequences.
    ///
    /// # Errors
    /// When a setting is out of range, the template is none, the address is taken, or a thread cannot be started.
    pub fn start(config: ServeConfig, generator: Generator, tokenizer: Tokenizer) -> Result<Self> {
        config.validate()?;
        let template = ChatTemplate::new(config.chat_template.as_deref(), &tokenizer)?;
        let taken = |e| {
            Error::config(config.address, "cannot be listened at").caused_by(e).hint("--port 0")
        };
        let listener = TcpListener::bind(config.address).map_err(taken)?;
        listener.set_nonblocking(true).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        // Each connection is a file; where no more are allowed, accepting waits for some to close.
        let _ = rlimit::increase_nofile_limit(config.connections as u64 + FILES_BESIDE);
        let (jobs, asked) = crossbeam_channel::unbounded();
        let model = generator.model();
        let (positions, vocabulary) = (model.positions(), model.vocabulary());
        let shared = Arc::new(Shared {
            waiting: Arc::new(Semaphore::new(config.queue)),
            tokenizer,
            template,
            positions,
            vocabulary,
            sequences: generator.sequences(),
            jobs,
            measures: Measures::new()?,
            began: since_1970().as_secs(),
            requests: AtomicU64::new(0),
            text_us: AtomicUsize::new(1_000_000),
            is_open: AtomicBool::new(true),
            config,
        });
        let desk = Desk::new(shared.clone(), asked);
        let desk = std::thread::Builder::new().name("serve".into()).spawn(move || {
            let mut generator = generator;
            desk.run(&mut generator)
        });
        let desk = desk
            .map_err(|e| Error::device("serve", "its thread could not be started").caused_by(e))?;
        Ok(Self { listener, address, shared, desk })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then finishes what is under way, within bounds. Blocks.
    ///
    /// # Errors
    /// When the device is lost, or the model is not finite.
    pub fn run(self, stop: impl Future<Output = ()> + Send) -> Result<()> {
        let failed = |e| Error::device("serve", "its threads could not be started").caused_by(e);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(HTTP_THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(failed)?;
        let Self { listener, shared, desk, .. } = self;
        let served = runtime.block_on(http::serve(listener, shared.clone(), stop));
        // Whatever is still under way has nobody left to read it.
        runtime.shutdown_timeout(Duration::from_secs(1));
        shared.is_open.store(false, Ordering::Relaxed);
        drop(shared);
        let made =
            desk.join().unwrap_or_else(|_| Err(Error::device("serve", "its thread panicked")));
        made.and(served)
    }
}

/// Files that a server holds besides connections, generously.
const FILES_BESIDE: u64 = 64;

/// How long ago 1970 began.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
