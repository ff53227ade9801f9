//! The `serve` thread: it owns the model, takes jobs as places become free, and gives each text its tokens.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use super::probabilities::Told;
use crate::error::Result;
use crate::generate::{Finish, Generator, Sampling, TextPieces, Texts, Token};

/// How often an idle thread looks whether the server has ended.
const IDLE: Duration = Duration::from_millis(200);

/// A text that somebody asks for.
pub(super) struct Job {
    /// The tokens it begins with.
    pub prompt: Vec<u32>,
    pub sampling: Sampling,
    /// What its draws are keyed by, besides the seed.
    pub key: u64,
    /// Strings that end it.
    pub stops: Vec<String>,
    /// Which of the texts of its request it is.
    pub choice: usize,
    /// Where its tokens go. A text has a bounded number of them, so that whoever reads slowly holds nobody up.
    pub reply: UnboundedSender<Reply>,
    /// Its place in the queue.
    pub permit: OwnedSemaphorePermit,
    pub asked: Instant,
    pub deadline: Instant,
}

/// What whoever asked for texts hears.
pub(super) enum Reply {
    /// A token of one of them.
    Token(Made),
    /// There will be no more.
    Failed(Failure),
}

/// A token of a text.
pub(super) struct Made {
    pub choice: usize,
    /// What is certain of the text since the token before.
    pub text: String,
    pub told: Told,
    pub finish: Option<Finish>,
}

/// Why there will be no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It took too long.
    TimedOut,
    /// The device or the model failed.
    Broken,
}

/// A text under way.
struct Served {
    choice: usize,
    reply: UnboundedSender<Reply>,
    pieces: TextPieces,
    asked: Instant,
    began: Instant,
    deadline: Instant,
    /// When its newest token was made.
    latest: Option<Instant>,
}

/// What the thread works with.
pub(super) struct Desk {
    shared: Arc<Shared>,
    asked: Receiver<Job>,
    waiting: VecDeque<Job>,
    served: HashMap<usize, Served>,
    /// The name of the next text.
    next: usize,
}

impl Desk {
    pub fn new(shared: Arc<Shared>, asked: Receiver<Job>) -> Self {
        Self { shared, asked, waiting: VecDeque::new(), served: HashMap::new(), next: 0 }
    }

    /// Makes texts until the server has ended and nobody waits for one.
    ///
    /// # Errors
    /// When the device is lost, or the model is not finite; whoever waits hears of it.
    pub fn run(mut self, generator: &mut Generator) -> Result<()> {
        let mut texts = generator.texts();
        let made = self.make(&mut texts);
        if made.is_err() {
            self.shared.is_open.store(false, Ordering::Relaxed);
            for served in self.served.values() {
                let _ = served.reply.send(Reply::Failed(Failure::Broken));
            }
            for job in self.waiting.drain(..).chain(self.asked.try_iter()) {
                let _ = job.reply.send(Reply::Failed(Failure::Broken));
            }
        }
        made
    }

    fn make(&mut self, texts: &mut Texts<'_>) -> Result<()> {
        loop {
            if !self.listen(texts.is_empty()) {
                return Ok(());
            }
            self.sweep(texts);
            while !texts.is_full()
                && let Some(job) = self.waiting.pop_front()
            {
                self.begin(job, texts)?;
            }
            self.shared.measures.under_way(texts.len(), self.waiting.len());
            let began = Instant::now();
            let tokens = texts.step()?;
            if !tokens.is_empty() {
                self.shared.measures.stepped(began.elapsed(), tokens.len());
            }
            for token in tokens {
                self.hand_out(token, texts);
            }
            self.shared.measures.under_way(texts.len(), self.waiting.len());
        }
    }

    /// Takes what was asked for meanwhile; waits if there is nothing else to do. False once there is nothing left to do.
    fn listen(&mut self, is_idle: bool) -> bool {
        if is_idle && self.waiting.is_empty() {
            match self.asked.recv_timeout(IDLE) {
                Ok(job) => self.waiting.push_back(job),
                // The server holds a sender of its own as long as this thread does.
                Err(RecvTimeoutError::Timeout) if Arc::strong_count(&self.shared) > 1 => {}
                Err(_) => return false,
            }
        }
        loop {
            match self.asked.try_recv() {
                Ok(job) => self.waiting.push_back(job),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
            }
        }
    }

    /// Lets go of whoever is gone or has waited too long.
    fn sweep(&mut self, texts: &mut Texts<'_>) {
        let now = Instant::now();
        let is_over = |reply: &UnboundedSender<Reply>, deadline: Instant| {
            if now >= deadline {
                let _ = reply.send(Reply::Failed(Failure::TimedOut));
            }
            now >= deadline || reply.is_closed()
        };
        self.waiting.retain(|job| !is_over(&job.reply, job.deadline));
        self.served.retain(|&name, served| {
            let stays = !is_over(&served.reply, served.deadline);
            if !stays {
                texts.leave(name);
                self.shared.measures.left();
            }
            stays
        });
    }

    fn begin(&mut self, job: Job, texts: &mut Texts<'_>) -> Result<()> {
        let Job { prompt, sampling, key, stops, choice, reply, permit, asked, deadline } = job;
        let name = self.next;
        self.next += 1;
        texts.join(name, key, prompt, sampling)?;
        drop(permit);
        let served = Served {
            choice,
            reply,
            pieces: TextPieces::new(stops),
            asked,
            began: Instant::now(),
            deadline,
            latest: None,
        };
        self.served.insert(name, served);
        Ok(())
    }

    fn hand_out(&mut self, token: Token, texts: &mut Texts<'_>) {
        let Some(served) = self.served.get_mut(&token.prompt) else { return };
        let now = Instant::now();
        match served.latest.replace(now) {
            None => self.shared.measures.first_token(now - served.asked),
            Some(before) => self.shared.measures.next_token(now - before),
        }
        let name = token.prompt;
        let offset = served.pieces.offset(self.shared.tokenizer.bytes(token.id));
        let (text, finish) = served.pieces.take_token(&token, &self.shared.tokenizer);
        let told = Told::new(token, offset);
        let made = Made { choice: served.choice, text, told, finish };
        // Whoever is gone is swept away before the next step.
        let _ = served.reply.send(Reply::Token(made));
        if finish.is_some() {
            texts.leave(name);
            let took = served.began.elapsed().as_micros() as usize;
            let lately = self.shared.text_us.load(Ordering::Relaxed);
            self.shared.text_us.store((7 * lately + took) / 8, Ordering::Relaxed);
            self.served.remove(&name);
        }
    }
}
