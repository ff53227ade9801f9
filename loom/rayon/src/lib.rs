//! A scope whose tasks wait in a queue, for threads of a model to take.

use std::collections::VecDeque;

use loom::sync::{Condvar, Mutex};

type Task<'scope> = Box<dyn FnOnce(&ScopeFifo<'scope>) + Send + 'scope>;

/// Tasks in the order in which they were spawned.
pub struct ScopeFifo<'scope> {
    queue: Mutex<Queue<'scope>>,
    /// A task has come, or the scope is closed.
    news: Condvar,
}

struct Queue<'scope> {
    tasks: VecDeque<Task<'scope>>,
    closed: bool,
}

impl<'scope> ScopeFifo<'scope> {
    #[allow(clippy::new_without_default, reason = "loom's objects are made inside of a model only")]
    pub fn new() -> Self {
        let queue = Mutex::new(Queue { tasks: VecDeque::new(), closed: false });
        Self { queue, news: Condvar::new() }
    }

    pub fn spawn_fifo(&self, task: impl FnOnce(&ScopeFifo<'scope>) + Send + 'scope) {
        self.queue.lock().unwrap().tasks.push_back(Box::new(task));
        self.news.notify_one();
    }

    /// Nobody outside of a task spawns any more.
    pub fn close(&self) {
        self.queue.lock().unwrap().closed = true;
        self.news.notify_all();
    }

    /// Runs tasks until there are none.
    pub fn run(&self) {
        loop {
            let task = self.queue.lock().unwrap().tasks.pop_front();
            match task {
                Some(task) => task(self),
                None => return,
            }
        }
    }

    /// Runs tasks, and waits for more until the scope is closed.
    pub fn work(&self) {
        loop {
            let mut queue = self.queue.lock().unwrap();
            let task = loop {
                match queue.tasks.pop_front() {
                    Some(task) => break task,
                    None if queue.closed => return,
                    None => queue = self.news.wait(queue).unwrap(),
                }
            };
            drop(queue);
            task(self);
        }
    }
}
