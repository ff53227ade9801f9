//! A bounded channel as crossbeam's tells what it does: a lock, and one thing to wait for, so that every order in which its two
//! sides can meet is tried. In the pipeline no send ever waits; here a send that would is a fault.

use std::collections::VecDeque;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex, MutexGuard};

/// Nobody receives any more; what was to be sent comes back.
#[derive(Debug)]
pub struct SendError<T>(pub T);

/// There is no message, and nobody is left to send one.
#[derive(Debug)]
pub struct RecvError;

struct State<T> {
    messages: VecDeque<T>,
    senders: usize,
    receivers: usize,
}

struct Shared<T> {
    room: usize,
    state: Mutex<State<T>>,
    /// A message has come, or the last sender has gone.
    news: Condvar,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap()
    }
}

pub struct Sender<T>(Arc<Shared<T>>);

pub struct Receiver<T>(Arc<Shared<T>>);

/// A channel with room for so many messages.
pub fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let state = Mutex::new(State { messages: VecDeque::new(), senders: 1, receivers: 1 });
    let shared = Arc::new(Shared { room, state, news: Condvar::new() });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    /// # Panics
    /// Where there is no room.
    pub fn try_send(&self, message: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state();
        if state.receivers == 0 {
            return Err(SendError(message));
        }
        assert!(state.messages.len() < self.0.room, "a send that has to wait");
        state.messages.push_back(message);
        self.0.news.notify_one();
        Ok(())
    }

    /// As [`try_send`](Self::try_send): nobody sends what there is no room for.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.try_send(message)
    }

    /// Sends no more: what its end does, for one that is borrowed for as long as the program lives.
    pub fn leave(&self) {
        self.0.state().senders -= 1;
        self.0.news.notify_all();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T> Receiver<T> {
    /// Waits for a message.
    pub fn recv(&self) -> Result<T, RecvError> {
        let mut state = self.0.state();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Ok(message);
            }
            if state.senders == 0 {
                return Err(RecvError);
            }
            state = self.0.news.wait(state).unwrap();
        }
    }

    /// A message, if there is one.
    pub fn try_recv(&self) -> Result<T, RecvError> {
        self.0.state().messages.pop_front().ok_or(RecvError)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.receivers -= 1;
        // Nobody will take these; their own ends may need the channel.
        let messages = std::mem::take(&mut state.messages);
        drop(state);
        drop(messages);
    }
}
