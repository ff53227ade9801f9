//! Fetching objects: parts of them in parallel, each a few times, each checked against what was listed.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use object_store::{GetOptions, GetRange, ObjectStore};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::address::Address;
use super::cache::{Cache, Landing};
use super::listing::Object;
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::source::fetch::{OnProgress, Progress};
use crate::source::manifest::Place;

/// Bytes of a request: large enough that its round trip does not count, small enough to be asked for again.
const PART_BYTES: u64 = 8 << 20;

/// Requests under way at most: what one connection of a store gives, times enough to fill a fast network.
pub(super) const REQUESTS_MAX: usize = 16;

/// Tries of one request.
const TRIES: u32 = 6;

/// After this long no other try is begun.
const TRYING_MAX: Duration = Duration::from_secs(120);

/// The first pause; each doubles, times 0.5 to 1.5.
const PAUSE: Duration = Duration::from_millis(100);

/// The tries of one request.
pub(super) struct Attempts {
    url: String,
    tries: u32,
    began: Instant,
    rng: Rng,
}

impl Attempts {
    pub fn new(url: String) -> Self {
        let process = u64::from(std::process::id());
        let key: Vec<u64> = url.bytes().map(u64::from).chain([process]).collect();
        Self { url, tries: 0, began: Instant::now(), rng: Rng::keyed(&key) }
    }

    /// Waits before the next try; an error if there is none.
    pub async fn failed(&mut self, error: object_store::Error) -> Result<()> {
        use object_store::Error as Store;
        self.tries += 1;
        let final_message = match &error {
            Store::NotFound { .. } => Some("is not there"),
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
                Some("the server refuses access")
            }
            Store::Precondition { .. } => Some(CHANGED),
            Store::NotSupported { .. } | Store::NotImplemented { .. } => {
                Some("the server cannot do what is needed")
            }
            _ => None,
        };
        if let Some(message) = final_message {
            return Err(Error::data(&self.url, message).caused_by(error));
        }
        self.pause(&error.to_string()).await
    }

    /// As [`Attempts::failed`], for an answer that was not as it should be.
    pub async fn pause(&mut self, found: &str) -> Result<()> {
        if self.tries >= TRIES || self.began.elapsed() >= TRYING_MAX {
            let message = format!("failed {} times, at last with: {}", self.tries, found.trim());
            return Err(Error::data(&self.url, message).hint("again later"));
        }
        let pause = PAUSE.saturating_mul(1 << self.tries.min(16));
        tokio::time::sleep(pause.mul_f64(self.rng.range(0.5, 1.5))).await;
        Ok(())
    }
}

const CHANGED: &str = "changed while it was fetched";

/// An object under way.
struct Fetching {
    object: Object,
    url: String,
    landing: Landing,
    /// Parts that are not here yet.
    missing: AtomicUsize,
    /// Set once the server has said that it sends no parts.
    whole: AtomicBool,
}

/// One request.
struct Part {
    of: Arc<Fetching>,
    range: Range<u64>,
    /// Whether to ask for the range, rather than for everything.
    ranged: bool,
}

enum Outcome {
    /// The part is written, so many bytes; with the last one the object is complete.
    Written(u64, Option<Arc<Fetching>>),
    /// The server sends no parts: everything is to be asked for at once.
    Whole(Arc<Fetching>),
    /// Somebody else has found that.
    Dropped,
}

/// Fetches objects into the cache.
///
/// # Errors
/// The first of any: everything else that is under way then ends.
pub(super) fn fetch(
    runtime: &Runtime,
    address: &Address,
    cache: &Cache,
    objects: Vec<Object>,
    on_progress: Option<OnProgress<'_>>,
) -> Result<()> {
    let total_bytes = objects.iter().map(|object| object.bytes).sum();
    let place = Place::Url { url: address.base.clone() };
    let mut done_bytes = 0;
    let mut parts = objects.into_iter().flat_map(|object| split(address, cache, object));
    runtime.block_on(async {
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < REQUESTS_MAX
                && let Some(part) = parts.next()
            {
                under_way.spawn(request(address.store.clone(), part?));
            }
            let Some(outcome) = under_way.join_next().await else { return Ok(()) };
            let outcome =
                outcome.map_err(|e| Error::data(&address.base, "a task ended").caused_by(e))??;
            match outcome {
                Outcome::Dropped => {}
                Outcome::Whole(of) => {
                    let range = 0..of.object.bytes;
                    under_way
                        .spawn(request(address.store.clone(), Part { of, range, ranged: false }));
                }
                Outcome::Written(bytes, complete) => {
                    done_bytes += bytes;
                    if let Some(of) = complete {
                        of.landing.finish(&of.object)?;
                    }
                    if let Some(tell) = on_progress {
                        tell(&Progress {
                            file: &address.base,
                            place: &place,
                            done_bytes,
                            total_bytes,
                        });
                    }
                }
            }
        }
    })
}

/// The requests for one object.
fn split(address: &Address, cache: &Cache, object: Object) -> Vec<Result<Part>> {
    let landing = match cache.landing(&object) {
        Ok(landing) => landing,
        Err(e) => return vec![Err(e)],
    };
    let bytes = object.bytes;
    let count = bytes.div_ceil(PART_BYTES).max(1);
    let of = Arc::new(Fetching {
        url: address.url(&object.path),
        object,
        landing,
        missing: AtomicUsize::new(count as usize),
        whole: AtomicBool::new(false),
    });
    let part = |i: u64| {
        let range = i * PART_BYTES..((i + 1) * PART_BYTES).min(bytes);
        Ok(Part { of: of.clone(), range, ranged: count > 1 })
    };
    (0..count).map(part).collect()
}

async fn request(store: Arc<dyn ObjectStore>, part: Part) -> Result<Outcome> {
    let Part { of, range, ranged } = part;
    let mut attempts = Attempts::new(of.url.clone());
    loop {
        if ranged && of.whole.load(Ordering::Relaxed) {
            return Ok(Outcome::Dropped);
        }
        match receive(&*store, &of, &range, ranged).await {
            Ok(()) => break,
            Err(Failure::Store(object_store::Error::NotSupported { .. })) if ranged => {
                let first = !of.whole.swap(true, Ordering::Relaxed);
                return Ok(if first { Outcome::Whole(of) } else { Outcome::Dropped });
            }
            Err(Failure::Store(e)) => attempts.failed(e).await?,
            Err(Failure::Wrong(found)) => {
                attempts.tries += 1;
                attempts.pause(&found).await?;
            }
            Err(Failure::Final(error)) => return Err(error),
        }
    }
    let last = !ranged || of.missing.fetch_sub(1, Ordering::AcqRel) == 1;
    Ok(Outcome::Written(range.end - range.start, last.then_some(of)))
}

/// Why an attempt failed.
enum Failure {
    /// As the store says.
    Store(object_store::Error),
    /// The answer was not as it should be; another may be.
    Wrong(String),
    /// No other attempt will help.
    Final(Error),
}

/// One attempt at a part, written to its place as it comes.
async fn receive(
    store: &dyn ObjectStore,
    of: &Fetching,
    range: &Range<u64>,
    ranged: bool,
) -> Result<(), Failure> {
    let options = GetOptions {
        if_match: of.object.e_tag.clone(),
        range: ranged.then(|| GetRange::Bounded(range.clone())),
        ..Default::default()
    };
    let answer = store.get_opts(&of.object.path, options).await.map_err(Failure::Store)?;
    // A server may not know conditions.
    let same_tag = answer.meta.e_tag == of.object.e_tag || answer.meta.e_tag.is_none();
    if !same_tag || answer.meta.size != of.object.bytes {
        let tag = |tag: &Option<String>| tag.clone().unwrap_or_else(|| "none".into());
        let message = format!(
            "{CHANGED}: found the ETag {} and {} bytes, expected {} and {}",
            tag(&answer.meta.e_tag),
            answer.meta.size,
            tag(&of.object.e_tag),
            of.object.bytes
        );
        let hint = "starting again, once nobody writes to it";
        return Err(Failure::Final(Error::data(&of.url, message).hint(hint)));
    }
    let mut stream = answer.into_stream();
    let mut at = range.start;
    while let Some(bytes) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        let bytes = bytes.map_err(Failure::Store)?;
        if at + bytes.len() as u64 > range.end {
            return Err(Failure::Wrong(format!(
                "more than the {} bytes asked for",
                range.end - range.start
            )));
        }
        of.landing.write(at, &bytes).map_err(Failure::Final)?;
        at += bytes.len() as u64;
    }
    if at != range.end {
        let (found, expected) = (at - range.start, range.end - range.start);
        return Err(Failure::Wrong(format!("{found} of {expected} bytes")));
    }
    Ok(())
}
