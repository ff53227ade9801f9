//! Memory stands still after the first epoch. Alone in its file, and so in its process: what other tests take
//! would count as well.

mod common;

use std::sync::{Arc, Mutex};

use common::{config, devices, model, rows};
use inflight::report::memory::current_memory_bytes;
use inflight::{RunConfig, Trainer};

#[test]
fn memory_is_steady_after_the_first_epoch() {
    if current_memory_bytes().is_none() {
        eprintln!("SKIPPED: this system does not tell resident memory");
        return;
    }
    for name in devices() {
        let source = rows(512);
        let config = RunConfig { epochs: Some(8), steps: None, ..config(name) };
        let trainer =
            Trainer::builder(model(source.spec()), source).config(config).start().expect("starts");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let memory = seen.clone();
        trainer.on_epoch(move |_| memory.lock().expect("no panic").extend(current_memory_bytes()));
        pollster::block_on(trainer.fit()).expect("the run succeeds");
        let seen = seen.lock().expect("no panic").clone();
        let (second, last) = (seen[1], seen[7]);
        // The allocator may take a piece for later, once: 256 kB. A leak takes one after the other.
        let jump =
            seen[1..].windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
        // Six epochs of 32 steps: a leak of one slot a step would be 410 kB more, of one pass's buffers 9 MB.
        assert!(last < second + jump + 128 * 1024, "{name}: {seen:?} bytes after each epoch");
    }
}
