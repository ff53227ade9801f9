//! Tokens as a stream, made on a thread of their own.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use futures_core::Stream;

use super::{Generator, Sampling, Token};
use crate::error::{Error, Result};

/// Tokens that wait for whoever reads them, before the making of more waits.
const WAITING_MAX: usize = 256;

/// Tokens of all prompts as they are made, see [`Generator::stream`]; outside of async code, an iterator that blocks.
/// Dropping it ends the making and joins the thread.
pub struct TokenStream {
    tokens: Option<Pin<Box<async_channel::Receiver<Result<Token>>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// As [`Generator::generate`], as a stream whose tokens are made on a thread called `generate`. What cannot be
    /// generated is the stream's only item.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn stream(mut self, prompts: Vec<Vec<u32>>, sampling: Sampling) -> Result<TokenStream> {
        let (sender, receiver) = async_channel::bounded(WAITING_MAX);
        let make = move || match self.generate(prompts, sampling) {
            // Whoever dropped the stream wants no more.
            Ok(mut tokens) => {
                while let Some(Ok(())) = tokens.next().map(|t| sender.send_blocking(t)) {}
            }
            Err(error) => drop(sender.send_blocking(Err(error))),
        };
        let thread = std::thread::Builder::new().name("generate".into()).spawn(make);
        let thread = thread.map_err(|e| {
            Error::device("generate", "its thread could not be started").caused_by(e)
        })?;
        Ok(TokenStream { tokens: Some(Box::pin(receiver)), thread: Some(thread) })
    }
}

impl Stream for TokenStream {
    type Item = Result<Token>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.tokens {
            Some(tokens) => tokens.as_mut().poll_next(context),
            None => Poll::Ready(None),
        }
    }
}

impl Iterator for TokenStream {
    type Item = Result<Token>;

    fn next(&mut self) -> Option<Self::Item> {
        self.tokens.as_ref()?.recv_blocking().ok()
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.tokens = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the stream already.
            let _ = thread.join();
        }
    }
}
