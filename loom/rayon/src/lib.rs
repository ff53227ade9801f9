//! A scope whose tasks wait in a queue, for threads of a model to take.

use std::collections::VecDeque;

use loom::sync::Mutex;

type Task<'scope> = Box<dyn FnOnce(&ScopeFifo<'scope>) + Send + 'scope>;

/// Tasks in the order in which they were spawned.
pub struct ScopeFifo<'scope>(Mutex<VecDeque<Task<'scope>>>);

impl<'scope> ScopeFifo<'scope> {
    #[allow(clippy::new_without_default, reason = "loom's objects are made inside of a model only")]
    pub fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    pub fn spawn_fifo(&self, task: impl FnOnce(&ScopeFifo<'scope>) + Send + 'scope) {
        self.0.lock().unwrap().push_back(Box::new(task));
    }

    /// Runs tasks until there are none.
    pub fn run(&self) {
        loop {
            let task = self.0.lock().unwrap().pop_front();
            match task {
                Some(task) => task(self),
                None => return,
            }
        }
    }
}
