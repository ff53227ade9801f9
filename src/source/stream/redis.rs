//! Redis streams: messages of a consumer group, acknowledged once the step that used them was applied.
//!
//! `redis://HOST:PORT/STREAM?group=G&consumer=C` (both `inflight` by default). A message has the fields `input`, an image
//! file or with `--format raw` the bytes of an image, and `label`, the number of its class.
//!
//! What was delivered and not acknowledged comes again: to the same consumer when it starts, to any other of the
//! group after `claim_s` seconds (60). So each message is used at least once. It is acknowledged with its step, not
//! with the next checkpoint: a run that is killed and resumed goes back to its checkpoint, and what it had learnt
//! since from acknowledged messages is gone with it; `--checkpoint-every` bounds that.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, Value, cmd};

use super::store::{Item, Store};
use super::{Stream, StreamFormat, image_spec, shuffle::Shuffle};
use crate::error::{Error, Result};
use crate::rng::Rng;
use crate::source::{DataConfig, Encoding};

/// Messages asked for at a time.
const FETCH_MAX: usize = 128;

/// How long one question waits for new messages: acknowledgements and the end of the run wait for it as well.
const BLOCK: Duration = Duration::from_millis(100);

/// How long to wait for a connection, and for an answer beyond [`BLOCK`].
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Tries of one question, of which the pauses between take 21 s in all: longer than a server takes to start again.
const TRIES: u32 = 10;

/// The first pause; each doubles, up to [`PAUSE_MAX`], times 0.5 to 1.5.
const PAUSE: Duration = Duration::from_millis(100);

const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Seconds after which messages of another consumer, which may be dead, are taken over.
const CLAIM_S: u64 = 60;

/// Opens the stream that `url` names. Its group is made, at the beginning of the stream, where there is none.
///
/// # Errors
/// When the URL or `data` are not complete, or the server cannot be reached or refuses.
pub(super) fn open(url: &str, data: &DataConfig, seed: u64) -> Result<Stream> {
    let address = Address::parse(url)?;
    let encoding = match data.format {
        None => Encoding::Image,
        Some(StreamFormat::Raw) => Encoding::Raw,
        Some(_) => {
            let message = "found another format for a queue, expected raw, or none for image files";
            return Err(Error::config("--format", message));
        }
    };
    let name = address.name();
    let spec = image_spec(&name, data, encoding == Encoding::Raw)?;
    let mut stream = Stream::unstarted(&name, spec, encoding);
    stream.replays = false;
    let acknowledge: Acknowledge = Arc::default();
    let ids = acknowledge.clone();
    stream.on_applied = Some(Box::new(move |items| {
        let mut ids = ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.extend(items.iter().map(|item| item.origin.clone()));
    }));
    let mut link = Link::new(address, stream.store.clone())?;
    link.make_group()?;
    let mut reader = Reader {
        link,
        acknowledge,
        held: HashSet::new(),
        cursor: Some("0".into()),
        claim_at: Instant::now(),
        claim_from: FIRST_ID.into(),
        shuffle: Shuffle::new(data.shuffle_buffer, seed),
    };
    let store = stream.store.clone();
    stream.start("queue", move || {
        let end = reader.run();
        store.end(end);
    })?;
    Ok(stream)
}

/// Where a look at a group's messages begins, and what the server says at their end.
const FIRST_ID: &str = "0-0";

/// Origins of the messages that were applied and are not yet acknowledged.
type Acknowledge = Arc<Mutex<Vec<String>>>;

/// What a URL says.
struct Address {
    /// As the client takes it.
    server: String,
    /// Host and port, for people: no password.
    shown: String,
    stream: String,
    group: String,
    consumer: String,
    claim: Duration,
}

impl Address {
    fn parse(url: &str) -> Result<Self> {
        // Never the URL itself, which may hold a password.
        let wrong = |message: String| {
            Error::config("redis URL", message)
                .hint("redis://127.0.0.1:6379/STREAM?group=G&consumer=C")
        };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        if scheme != "redis" {
            return Err(wrong(format!("found {scheme}, which is not supported, expected redis")));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, stream) = place.split_once('/').unwrap_or((place, ""));
        if authority.is_empty() || stream.is_empty() {
            return Err(wrong("found no server or no stream, expected both".into()));
        }
        let shown = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let mut address = Self {
            server: format!("redis://{authority}/0"),
            shown: shown.into(),
            stream: stream.into(),
            group: "inflight".into(),
            consumer: "inflight".into(),
            claim: Duration::from_secs(CLAIM_S),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let number = |value: &str| {
                value.parse::<u64>().map_err(|_| wrong(format!("found {pair}, expected a number")))
            };
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("group", value) if !value.is_empty() => address.group = value.into(),
                ("consumer", value) if !value.is_empty() => address.consumer = value.into(),
                ("claim_s", value) => address.claim = Duration::from_secs(number(value)?),
                ("db", value) => {
                    address.server = format!("redis://{authority}/{}", number(value)?);
                }
                _ => {
                    let known = "group, consumer, claim_s and db";
                    return Err(wrong(format!("found {pair} after the stream, expected {known}")));
                }
            }
        }
        Ok(address)
    }

    fn name(&self) -> String {
        format!("redis://{}/{}", self.shown, self.stream)
    }
}

/// A connection that is made again when it breaks.
struct Link {
    address: Address,
    client: redis::Client,
    connection: Option<Connection>,
    store: Arc<Store>,
    /// Connections made so far: what was answered into a broken one is lost.
    connections: u32,
}

impl Link {
    fn new(address: Address, store: Arc<Store>) -> Result<Self> {
        let client = redis::Client::open(address.server.as_str())
            .map_err(|e| Error::config("redis URL", "cannot be understood").caused_by(e))?;
        Ok(Self { address, client, connection: None, store, connections: 0 })
    }

    fn make_group(&mut self) -> Result<()> {
        let Address { stream, group, .. } = &self.address;
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(stream).arg(group).arg("0").arg("MKSTREAM");
        match self.ask(&create, TRIES)? {
            Ok(_) => Ok(()),
            Err(e) if e.code() == Some("BUSYGROUP") => Ok(()),
            Err(e) => Err(self.refused(e)),
        }
    }

    /// The answer to a question; where the connection breaks, or the server asks for patience, it is asked again.
    fn answer(&mut self, question: &redis::Cmd) -> Result<Value> {
        self.ask(question, TRIES)?.map_err(|e| self.refused(e))
    }

    /// As [`Link::answer`], with the refusals of the server as such.
    fn ask(&mut self, question: &redis::Cmd, tries: u32) -> Result<RedisResult<Value>> {
        let mut pauses = Rng::keyed(&[u64::from(std::process::id())]);
        for attempt in 1.. {
            let failure = match self.try_ask(question) {
                Err(e) if is_passing(&e) => e,
                answer => return Ok(answer),
            };
            self.connection = None;
            if attempt >= tries || self.store.is_closed() {
                let message = format!("did not answer, {attempt} times");
                return Err(Error::data(self.address.name(), message)
                    .hint("whether the server runs there")
                    .caused_by(failure));
            }
            let pause = PAUSE.saturating_mul(1 << attempt.min(16)).min(PAUSE_MAX);
            self.store.pause(pause.mul_f64(pauses.range(0.5, 1.5)));
        }
        unreachable!("the last attempt returns")
    }

    fn try_ask(&mut self, question: &redis::Cmd) -> RedisResult<Value> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                let new = self.client.get_connection_with_timeout(ANSWER_WAIT_MAX)?;
                new.set_read_timeout(Some(ANSWER_WAIT_MAX + BLOCK))?;
                new.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
                self.connections += 1;
                self.connection.insert(new)
            }
        };
        question.query(connection)
    }

    fn refused(&self, error: redis::RedisError) -> Error {
        Error::data(self.address.name(), "the server refuses").caused_by(error)
    }
}

/// Whether an error may be gone the next time.
fn is_passing(error: &redis::RedisError) -> bool {
    let asks_for_patience = ["LOADING", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN", "BUSY"];
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_connection_refusal()
        || error.code().is_some_and(|code| asks_for_patience.contains(&code))
}

/// The `queue` thread.
struct Reader {
    link: Link,
    acknowledge: Acknowledge,
    /// Ids of messages that are here: not to be taken again.
    held: HashSet<String>,
    /// While there may be messages of an earlier run: the id after which to look for them.
    cursor: Option<String>,
    /// When to look next for messages of consumers that may be dead.
    claim_at: Instant,
    /// Where in the group's messages that look goes on: one question goes over some of them only.
    claim_from: String,
    shuffle: Shuffle,
}

impl Reader {
    fn run(&mut self) -> Result<()> {
        let mut connections = self.link.connections;
        while !self.link.store.is_closed() {
            self.flush(TRIES)?;
            // Those that wait to be shuffled are beside those in the store.
            let room = self.link.store.wait_for_room(BLOCK).min(FETCH_MAX);
            if room == 0 {
                continue;
            }
            let messages = self.fetch(room)?;
            if std::mem::replace(&mut connections, self.link.connections) != connections {
                // An answer may have been lost with the connection: what it held is waiting for this consumer.
                self.cursor = Some("0".into());
            }
            let none = messages.is_empty();
            for message in messages {
                self.pass(message);
            }
            // A queue that is silent keeps nothing back.
            if none && let Some(item) = self.shuffle.rest() {
                self.link.store.push(item, false);
            }
        }
        // The last steps were applied: one try is worth it, since what fails here only comes again.
        self.flush(1)
    }

    /// Acknowledges what was applied.
    fn flush(&mut self, tries: u32) -> Result<()> {
        let ids =
            std::mem::take(&mut *self.acknowledge.lock().unwrap_or_else(PoisonError::into_inner));
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = ids.iter().map(|origin| id_of(origin)).collect();
        let Address { stream, group, .. } = &self.link.address;
        let mut question = cmd("XACK");
        question.arg(stream).arg(group).arg(&ids);
        self.link.ask(&question, tries)?.map_err(|e| self.link.refused(e))?;
        for id in ids {
            self.held.remove(id);
        }
        Ok(())
    }

    /// The next messages: first those that an earlier run left, then now and then those of consumers that seem dead,
    /// and else new ones, for which it waits a little.
    fn fetch(&mut self, count: usize) -> Result<Vec<Message>> {
        if let Some(after) = self.cursor.clone() {
            let left = self.read(count, &after)?;
            self.cursor = left.last().map(|message| message.id.clone());
            return Ok(left);
        }
        if Instant::now() >= self.claim_at {
            let claimed = self.claim(count)?;
            let is_through = self.claim_from == FIRST_ID;
            let pause = if is_through { self.link.address.claim / 2 } else { Duration::ZERO };
            self.claim_at = Instant::now() + pause;
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
        self.read(count, ">")
    }

    fn read(&mut self, count: usize, after: &str) -> Result<Vec<Message>> {
        let Address { stream, group, consumer, .. } = &self.link.address;
        let mut question = cmd("XREADGROUP");
        question.arg("GROUP").arg(group).arg(consumer).arg("COUNT").arg(count);
        question.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        question.arg("STREAMS").arg(stream).arg(after);
        let answer = self.link.answer(&question)?;
        Ok(pairs(answer).into_iter().flat_map(|(_, messages)| Message::all(messages)).collect())
    }

    fn claim(&mut self, count: usize) -> Result<Vec<Message>> {
        let Address { stream, group, consumer, claim, .. } = &self.link.address;
        let mut question = cmd("XAUTOCLAIM");
        question.arg(stream).arg(group).arg(consumer).arg(claim.as_millis() as u64);
        question.arg(&self.claim_from).arg("COUNT").arg(count);
        let Value::Array(parts) = self.link.answer(&question)? else { return Ok(Vec::new()) };
        let mut parts = parts.into_iter();
        let next = parts.next().and_then(bytes).and_then(|id| String::from_utf8(id).ok());
        self.claim_from = next.unwrap_or_else(|| FIRST_ID.into());
        let messages = parts.next().map(Message::all).unwrap_or_default();
        // This consumer's own may be old as well.
        Ok(messages.into_iter().filter(|message| !self.held.contains(&message.id)).collect())
    }

    /// Hands a message on.
    fn pass(&mut self, message: Message) {
        if self.held.contains(&message.id) {
            return;
        }
        let origin = format!("message {}", message.id);
        let Some(fields) = message.fields else {
            // Deleted from the stream while it waited: there is nothing left to use.
            self.acknowledge.lock().unwrap_or_else(PoisonError::into_inner).push(origin);
            return;
        };
        let content = content(fields).map_err(|e| e.within(&origin));
        self.held.insert(message.id);
        if let Some(item) = self.shuffle.pass(Item { content, origin }) {
            self.link.store.push(item, false);
        }
    }
}

fn id_of(origin: &str) -> &str {
    origin.strip_prefix("message ").unwrap_or(origin)
}

struct Message {
    id: String,
    /// None once the message was deleted.
    fields: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Message {
    /// The messages in an answer: pairs of an id and fields.
    fn all(answer: Value) -> Vec<Self> {
        let Value::Array(messages) = answer else { return Vec::new() };
        let one = |message: Value| {
            let Value::Array(parts) = message else { return None };
            let mut parts = parts.into_iter();
            let id = String::from_utf8(bytes(parts.next()?)?).ok()?;
            let fields = match parts.next() {
                None | Some(Value::Nil) => None,
                Some(fields) => Some(
                    pairs(fields)
                        .into_iter()
                        .filter_map(|(key, value)| Some((bytes(key)?, bytes(value)?)))
                        .collect(),
                ),
            };
            Some(Self { id, fields })
        };
        messages.into_iter().filter_map(one).collect()
    }
}

/// The pairs of a map, which an older protocol sends as a flat list, and of streams as a list of pairs.
fn pairs(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Map(pairs) => pairs,
        Value::Array(values) => {
            let mut flat = Vec::new();
            for value in values {
                match value {
                    Value::Array(pair) if flat.len() % 2 == 0 && pair.len() == 2 => {
                        flat.extend(pair)
                    }
                    value => flat.push(value),
                }
            }
            let mut flat = flat.into_iter();
            std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
        }
        _ => Vec::new(),
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// Input and class of a message.
fn content(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(Vec<u8>, u32)> {
    let names: Vec<String> =
        fields.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
    let (mut input, mut label) = (None, None);
    for (key, value) in fields {
        match &key[..] {
            b"input" => input = Some(value),
            b"label" => label = Some(value),
            _ => {}
        }
    }
    let missing = |what: &str| {
        let message = format!("found the fields {}, expected input and label", names.join(", "));
        Error::data(what, message)
    };
    let label = label.ok_or_else(|| missing("label"))?;
    let input = input.ok_or_else(|| missing("input"))?;
    let text = String::from_utf8_lossy(&label);
    let class = text.trim().parse().map_err(|_| {
        let shown: String = text.chars().take(40).collect();
        Error::data("label", format!("found {shown:?}, expected the number of a class"))
    })?;
    Ok((input, class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_server_stream_and_group() {
        let address =
            Address::parse("redis://me:secret@host:7000/faces?group=g&consumer=c&claim_s=5&db=3")
                .expect("complete");
        let Address { server, stream, group, consumer, claim, .. } = &address;
        assert_eq!(server, "redis://me:secret@host:7000/3");
        assert_eq!([&stream[..], group, consumer], ["faces", "g", "c"]);
        assert_eq!(*claim, Duration::from_secs(5));
        assert_eq!(address.name(), "redis://host:7000/faces");
        for (url, part) in [
            ("rediss://host/s", "found rediss, which is not supported"),
            ("redis://host", "found no server or no stream"),
            ("redis://host/", "found no server or no stream"),
            ("redis://host/s?claim_s=soon", "found claim_s=soon, expected a number"),
            ("redis://host/s?room=5", "found room=5 after the stream"),
            ("redis://me:secret@host/s?room=5", "found room=5 after the stream"),
        ] {
            let error = Address::parse(url).err().expect(url).to_string();
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
    }
}
