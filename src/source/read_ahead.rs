//! Reading ahead: threads that read what is announced, in its order, before a worker asks for it. They sleep in the
//! system while a disk or a network answers, so that more reads are under way than there are cores.
//!
//! Threads that read rather than `posix_fadvise`: advice needs an open file, and opening one of many small files is
//! itself what takes a disk its time; and it works for sources that are no files at all.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use super::owned::OwnedTarget;
use super::{Sample, Source, SourceInfo, Target};
use crate::batch::SampleSpec;
use crate::clock::Stamp;
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::prepare::TimeSum;

/// Buffers kept for reuse: more than readers and workers hold at a time.
const SPARE_BUFFERS_MAX: usize = 64;

/// Bytes that may be read ahead, by one source or by several together: the one that a run reads from now takes what the
/// others leave.
pub struct Room {
    bytes_max: usize,
    bytes: AtomicUsize,
    /// Whose readers may wait for room.
    desks: Mutex<Vec<Weak<Shared>>>,
}

impl Room {
    /// Room for so many bytes that nobody has asked for yet, and a sample a reader.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0), desks: Mutex::default() })
    }

    /// Bytes that wait for a worker.
    pub fn held(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    fn has_some(&self) -> bool {
        self.held() < self.bytes_max
    }

    /// Gives bytes back. No desk may be locked by the caller: readers of all of them may go on.
    fn give_back(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, SeqCst);
        if before < self.bytes_max || before - bytes >= self.bytes_max {
            // Either nobody waits for room, or there is still none.
            return;
        }
        for desk in self.desks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(desk) = desk.upgrade() {
                // Whoever has looked for room and found none waits by the time the lock is free.
                drop(desk.lock());
                desk.work.notify_all();
            }
        }
    }
}

/// A source whose announced samples are read by threads of its own.
pub struct ReadAhead {
    inner: Arc<dyn Source>,
    desk: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    desk: Mutex<Desk>,
    /// Readers wait here for something to read and room for it.
    work: Condvar,
    /// Workers wait here for a sample that is being read.
    ready: Condvar,
    room: Arc<Room>,
    /// No fewer than there are entries, so that with a cache that has all nobody locks to find none.
    entries: AtomicUsize,
    /// Readers reading, summed over them.
    busy: TimeSum,
}

#[derive(Default)]
struct Desk {
    /// What is to be read, in order: the entries that are queued, and no others.
    queue: VecDeque<usize>,
    entries: HashMap<usize, Entry>,
    /// Bytes that wait for a worker.
    bytes: usize,
    spare: Vec<Vec<u8>>,
    /// Reads that found their sample.
    hits: u64,
    over: bool,
    /// Readers that read; the others sleep.
    active: usize,
}

struct Entry {
    /// How often it is announced and not yet asked for.
    wanted: usize,
    state: State,
}

enum State {
    Queued,
    Reading,
    Ready(Held),
}

/// A sample in a buffer of its own.
#[derive(Clone)]
struct Held {
    buffer: Vec<u8>,
    input: Range<usize>,
    target: OwnedTarget,
}

impl ReadAhead {
    /// Starts `readers` threads over `inner`, which read for as long as there is `room`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(inner: Arc<dyn Source>, readers: usize, room: Arc<Room>) -> Result<Self> {
        let desk = Arc::new(Shared {
            desk: Mutex::new(Desk { active: readers, ..Desk::default() }),
            work: Condvar::new(),
            ready: Condvar::new(),
            room,
            entries: AtomicUsize::new(0),
            busy: TimeSum::default(),
        });
        let desks = &desk.room.desks;
        desks.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&desk));
        let mut ahead = Self { inner, desk, threads: Vec::with_capacity(readers) };
        for i in 0..readers {
            let (inner, desk) = (ahead.inner.clone(), ahead.desk.clone());
            let builder = std::thread::Builder::new().name(format!("reader-{i}"));
            let thread = builder.spawn(move || desk.read_all(i, &*inner)).map_err(|e| {
                let message = "the thread could not be started";
                Error::new(Stage::Source, ErrorKind::Device, "reader", message).caused_by(e)
            })?;
            ahead.threads.push(thread);
        }
        Ok(ahead)
    }

    /// Bytes that wait for a worker.
    pub fn held(&self) -> usize {
        self.desk.lock().bytes
    }

    /// Has so many readers read, of those that were started.
    pub fn set_readers(&self, readers: usize) {
        self.desk.lock().active = readers;
        self.desk.work.notify_all();
    }

    /// Readers that were started.
    pub fn readers_max(&self) -> usize {
        self.threads.len()
    }

    /// Seconds that readers have read, summed over them.
    pub fn busy_s(&self) -> f64 {
        self.desk.busy.seconds()
    }

    /// Reads that found their sample read ahead.
    pub fn hits(&self) -> u64 {
        self.desk.lock().hits
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.desk.lock().over = true;
        self.desk.work.notify_all();
        for thread in self.threads.drain(..) {
            // Its panics were caught.
            let _ = thread.join();
        }
        self.desk.forget();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader's life.
    fn read_all(&self, reader: usize, source: &dyn Source) {
        while let Some((index, buffer)) = self.next(reader) {
            // Whatever is wrong with a sample is told to the worker that asks for it, who reads it once more.
            let began = Stamp::now();
            let read = catch_unwind(AssertUnwindSafe(|| Held::read(source, index, buffer)));
            self.busy.add(began.elapsed());
            let held = read.ok().and_then(Result::ok);
            let mut desk = self.lock();
            match held {
                Some(held) => desk.enter(index, held, &self.room),
                None => drop(desk.remove(index)),
            }
            drop(desk);
            self.ready.notify_all();
        }
    }

    /// Waits for the next sample to read and for room; `None` when it is over.
    fn next(&self, reader: usize) -> Option<(usize, Vec<u8>)> {
        let mut desk = self.lock();
        loop {
            if desk.over {
                return None;
            }
            if reader < desk.active
                && self.room.has_some()
                && let Some(index) = desk.queue.pop_front()
            {
                let Desk { entries, spare, .. } = &mut *desk;
                if let Some(entry) = entries.get_mut(&index)
                    && matches!(entry.state, State::Queued)
                {
                    entry.state = State::Reading;
                    return Some((index, spare.pop().unwrap_or_default()));
                }
                continue;
            }
            desk = self.work.wait(desk).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn announce(&self, indices: &[usize]) {
        let mut desk = self.lock();
        let indices = if desk.active == 0 { &[] } else { indices };
        for &index in indices {
            let Desk { entries, queue, .. } = &mut *desk;
            let entry = entries.entry(index).or_insert_with(|| {
                queue.push_back(index);
                Entry { wanted: 0, state: State::Queued }
            });
            entry.wanted += 1;
        }
        self.entries.store(desk.entries.len(), SeqCst);
        drop(desk);
        self.work.notify_all();
    }

    /// Lets go of a sample that was announced and is not asked for.
    fn skip(&self, index: usize) {
        if self.entries.load(SeqCst) == 0 {
            return;
        }
        let mut desk = self.lock();
        let Some(entry) = desk.entries.get_mut(&index) else { return };
        if entry.wanted > 1 {
            entry.wanted -= 1;
            return;
        }
        let held = desk.remove(index);
        drop(desk);
        self.room.give_back(held.map_or(0, |held| held.bytes()));
    }

    /// The sample, if it was announced; waits for one that is being read, which takes no longer than reading it.
    fn take(&self, index: usize) -> Option<Held> {
        let mut desk = self.lock();
        loop {
            let entry = desk.entries.get_mut(&index)?;
            let last = entry.wanted <= 1;
            match &entry.state {
                State::Reading => {
                    desk = self.ready.wait(desk).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                State::Queued => {
                    entry.wanted -= 1;
                    if last {
                        desk.remove(index);
                    }
                    return None;
                }
                State::Ready(held) if !last => {
                    let held = held.clone();
                    entry.wanted -= 1;
                    desk.hits += 1;
                    return Some(held);
                }
                State::Ready(_) => {}
            }
            let held = desk.remove(index)?;
            desk.hits += 1;
            drop(desk);
            self.room.give_back(held.bytes());
            return Some(held);
        }
    }

    /// Forgets what is announced: nobody will ask for it.
    fn forget(&self) {
        let mut desk = self.lock();
        desk.queue.clear();
        // What is being read finds no entry when it is done.
        desk.entries.clear();
        let bytes = std::mem::take(&mut desk.bytes);
        drop(desk);
        self.room.give_back(bytes);
        self.ready.notify_all();
    }
}

impl Desk {
    fn enter(&mut self, index: usize, held: Held, room: &Room) {
        if let Some(entry) = self.entries.get_mut(&index)
            && matches!(entry.state, State::Reading)
        {
            self.bytes += held.bytes();
            room.bytes.fetch_add(held.bytes(), SeqCst);
            entry.state = State::Ready(held);
        }
    }

    /// Forgets a sample that nobody wants any more; what is held of it. What is being read finds no entry when it is done.
    fn remove(&mut self, index: usize) -> Option<Held> {
        match self.entries.remove(&index)?.state {
            State::Ready(held) => {
                self.bytes -= held.bytes();
                Some(held)
            }
            State::Queued => {
                // One of the first: what is announced first is asked for first.
                let at = self.queue.iter().position(|queued| *queued == index)?;
                self.queue.remove(at);
                None
            }
            State::Reading => None,
        }
    }
}

impl Held {
    /// Reads a sample. One that lies in the buffer stays there; what a source lends of its own memory is left to
    /// the worker, for whom that costs nothing either.
    fn read(source: &dyn Source, index: usize, mut buffer: Vec<u8>) -> Result<Self> {
        let sample = source.read(index, &mut buffer)?;
        let target = OwnedTarget::of(sample.target);
        let lent = sample.input.as_ptr_range();
        let (first, last) = (lent.start.addr(), lent.end.addr());
        let start = buffer.as_ptr().addr();
        if first < start || last > start + buffer.len() {
            return Err(Error::data(&source.info().name, "lends its own memory"));
        }
        Ok(Self { buffer, input: first - start..last - start, target })
    }

    fn bytes(&self) -> usize {
        self.buffer.capacity() + self.target.bytes()
    }
}

impl Source for ReadAhead {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn spec(&self) -> &SampleSpec {
        self.inner.spec()
    }

    fn info(&self) -> &SourceInfo {
        self.inner.info()
    }

    fn behind(&self) -> Option<&dyn Source> {
        Some(&*self.inner)
    }

    fn announce(&self, indices: &[usize]) {
        self.desk.announce(indices);
    }

    fn skip(&self, index: usize) {
        self.desk.skip(index);
    }

    fn close(&self) {
        self.inner.close();
        self.desk.forget();
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let Some(Held { buffer, input, target }) = self.desk.take(index) else {
            return self.inner.read(index, scratch);
        };
        let old = std::mem::replace(scratch, buffer);
        let mut desk = self.desk.lock();
        if desk.spare.len() < SPARE_BUFFERS_MAX {
            desk.spare.push(old);
        }
        drop(desk);
        Ok(lend(scratch, input, &target))
    }
}

/// A sample whose input lies in `scratch`; its target follows there, aligned.
pub(super) fn lend<'a>(
    scratch: &'a mut Vec<u8>,
    input: Range<usize>,
    target: &OwnedTarget,
) -> Sample<'a> {
    let bytes: &[u8] = match target {
        OwnedTarget::Class(class) => {
            return Sample { input: &scratch[input], target: Target::Class(*class) };
        }
        OwnedTarget::Values(values) => bytemuck::cast_slice(values),
        OwnedTarget::Tokens(tokens) => tokens,
    };
    // Nothing moves once there is room for the bytes and for what aligns them.
    scratch.reserve(bytes.len() + align_of::<f32>());
    let pad = scratch[scratch.len()..].as_ptr().align_offset(align_of::<f32>());
    scratch.resize(scratch.len() + pad, 0);
    let place = scratch.len()..scratch.len() + bytes.len();
    scratch.extend_from_slice(bytes);
    let (input, bytes) = (&scratch[input], &scratch[place]);
    let target = match target {
        OwnedTarget::Values(_) => Target::Values(bytemuck::cast_slice(bytes)),
        _ => Target::Tokens(bytes),
    };
    Sample { input, target }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, TargetSpec};
    use crate::source::Synthetic;

    #[test]
    fn what_workers_read_themselves_or_skip_is_no_longer_queued() {
        let target = TargetSpec::Class { classes: 2 };
        let spec = SampleSpec { input_shape: vec![4], input_dtype: DType::U8, target };
        let source = Arc::new(Synthetic::new(64, spec, 7).expect("can be made"));
        // Without room its reader reads nothing.
        let ahead = ReadAhead::start(source, 1, Room::new(0)).expect("a thread");
        let queued = || ahead.desk.lock().queue.iter().copied().collect::<Vec<_>>();
        let mut scratch = Vec::new();
        for _ in 0..3 {
            ahead.announce(&[3, 4, 5, 4]);
            ahead.read(3, &mut scratch).expect("a sample");
            ahead.skip(4);
            assert_eq!(queued(), [4, 5], "4 is wanted once more");
            ahead.read(5, &mut scratch).expect("a sample");
            ahead.skip(4);
            assert!(queued().is_empty());
            assert!(ahead.desk.lock().entries.is_empty());
        }
    }
}
