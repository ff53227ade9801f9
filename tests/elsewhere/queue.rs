//! Redis streams, against a real server on this machine: what was applied is acknowledged, what was not comes again.
#![cfg(feature = "queue")]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use inflight::source::{DataConfig, OpenOptions, Source, StreamFormat, Target, open};
use tempfile::TempDir;

/// A server with a folder of its own, ended with the test.
struct Server {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Server {
    /// Starts one; `None`, aloud, where there is none to start.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        match Self::spawn(dir.path(), port) {
            Ok(child) => {
                let server = Self { child, port, _dir: dir };
                server.wait();
                Some(server)
            }
            Err(e) => {
                assert!(std::env::var("REQUIRE_REDIS").is_err(), "REQUIRE_REDIS is set: {e}");
                eprintln!("SKIPPED: redis-server cannot be started: {e}");
                None
            }
        }
    }

    fn spawn(dir: &Path, port: u16) -> std::io::Result<Child> {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
    }

    fn connection(&self) -> Option<redis::Connection> {
        redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).ok()?.get_connection().ok()
    }

    fn wait(&self) {
        let began = Instant::now();
        while self.connection().is_none() {
            assert!(began.elapsed() < Duration::from_secs(20), "the server does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask<T: redis::FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split_whitespace();
        let mut question = redis::cmd(words.next().expect("a command"));
        for word in words {
            question.arg(word);
        }
        question.query(&mut self.connection().expect("connects")).expect(line)
    }

    /// Adds messages with raw images of 8 × 8 whose bytes all are their number.
    fn add(&self, numbers: std::ops::Range<u8>) {
        let mut connection = self.connection().expect("connects");
        for number in numbers {
            let input = vec![number; 64];
            let label = (number % 4).to_string();
            let _: String = redis::cmd("XADD")
                .arg("s")
                .arg("*")
                .arg("input")
                .arg(input)
                .arg("label")
                .arg(label)
                .query(&mut connection)
                .expect("adds");
        }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/s", self.port)
    }

    /// Delivered messages that nobody has acknowledged.
    fn pending(&self) -> usize {
        let (count, ..): (usize, redis::Value, redis::Value, redis::Value) =
            self.ask("XPENDING s inflight");
        count
    }

    fn await_pending(&self, expected: usize) {
        let began = Instant::now();
        while self.pending() != expected {
            let pending = self.pending();
            assert!(began.elapsed() < Duration::from_secs(20), "{pending} are pending");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn data() -> DataConfig {
    DataConfig {
        classes: Some(4),
        image_size: Some(8),
        channels: Some(1),
        format: Some(StreamFormat::Raw),
        ..Default::default()
    }
}

fn source(url: &str) -> Arc<dyn Source> {
    let data = data();
    open(url, &OpenOptions { data: Some(&data), ..Default::default() }).expect("opens").train
}

fn number(source: &dyn Source, index: usize) -> u8 {
    assert!(source.reaches(&[index]));
    source.prefetch(&[index]).expect("comes");
    let mut scratch = Vec::new();
    let sample = source.read(index, &mut scratch).expect("readable");
    assert_eq!(sample.target, Target::Class(u32::from(sample.input[0] % 4)));
    sample.input[0]
}

/// As [`number`], of a source that is closed then; an error if it does not come.
fn number_in_time(source: &Arc<dyn Source>, index: usize) -> Result<u8, RecvTimeoutError> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiting = source.clone();
    std::thread::spawn(move || sender.send(number(&*waiting, index)));
    let found = receiver.recv_timeout(Duration::from_secs(20));
    source.close();
    found
}

#[test]
fn messages_are_acknowledged_when_applied_and_else_come_again() {
    let Some(server) = Server::start() else { return };
    server.add(0..6);
    let first = source(&server.url());
    let seen: Vec<u8> = (0..4).map(|i| number(&*first, i)).collect();
    assert_eq!(seen, [0, 1, 2, 3]);
    server.await_pending(6);
    first.applied(&[0, 1]);
    server.await_pending(4);
    first.close();
    drop(first);
    assert_eq!(server.pending(), 4, "reading alone acknowledges nothing");
    // The same consumer again: what it had not acknowledged comes first, then what is new.
    server.add(6..8);
    let second = source(&server.url());
    let seen: Vec<u8> = (40..46).map(|i| number(&*second, i)).collect();
    assert_eq!(seen, [2, 3, 4, 5, 6, 7]);
    second.applied(&[40, 41, 42, 43, 44, 45]);
    drop(second);
    assert_eq!(server.pending(), 0, "what was applied last is acknowledged before the end");
}

#[test]
fn messages_of_a_consumer_that_died_are_taken_over() {
    let Some(server) = Server::start() else { return };
    server.add(0..3);
    let dead = source(&format!("{}?consumer=a", server.url()));
    number(&*dead, 2);
    drop(dead);
    let other = source(&format!("{}?consumer=b&claim_s=0", server.url()));
    let seen: BTreeSet<u8> = (0..3).map(|i| number(&*other, i)).collect();
    assert_eq!(seen, BTreeSet::from([0, 1, 2]));
    other.applied(&[0, 1, 2]);
    drop(other);
    assert_eq!(server.pending(), 0);
}

#[test]
fn messages_of_a_dead_consumer_are_found_behind_many_of_a_living_one() {
    let Some(server) = Server::start() else { return };
    let mut messages = redis::pipe();
    for _ in 0..2000 {
        messages
            .cmd("XADD")
            .arg("s")
            .arg("*")
            .arg("input")
            .arg(vec![0u8; 64])
            .arg("label")
            .arg("0");
    }
    messages.exec(&mut server.connection().expect("connects")).expect("adds");
    server.add(9..10);
    let _: redis::Value = server.ask("XGROUP CREATE s inflight 0");
    let _: redis::Value = server.ask("XREADGROUP GROUP inflight living COUNT 2000 STREAMS s >");
    let _: redis::Value = server.ask("XREADGROUP GROUP inflight dead COUNT 1 STREAMS s >");
    let (_, _, last, _): (usize, String, String, redis::Value) = server.ask("XPENDING s inflight");
    let _: redis::Value = server.ask(&format!("XCLAIM s inflight dead 0 {last} IDLE 3600000"));
    let source = source(&server.url());
    assert_eq!(number_in_time(&source, 0), Ok(9));
    assert_eq!(server.pending(), 2001, "what the living one has is left to it");
}

#[test]
fn a_server_that_restarts_is_waited_for() {
    let Some(mut server) = Server::start() else { return };
    server.add(0..2);
    let source = source(&server.url());
    assert_eq!([number(&*source, 0), number(&*source, 1)], [0, 1]);
    server.child.kill().expect("kills");
    server.child.wait().expect("ends");
    source.applied(&[0]);
    server.child = Server::spawn(server._dir.path(), server.port).expect("starts again");
    server.wait();
    server.add(2..4);
    assert_eq!([number(&*source, 2), number(&*source, 3)], [2, 3]);
    // Message 0 was applied; 1, 2 and 3 were not.
    server.await_pending(3);
}

#[test]
fn what_a_broken_connection_was_to_bring_is_asked_for_again() {
    let Some(server) = Server::start() else { return };
    server.add(0..2);
    // Another consumer has the first message, so that the source begins with the second.
    let _: redis::Value = server.ask("XGROUP CREATE s inflight 0");
    let read = "XREADGROUP GROUP inflight other COUNT 1 STREAMS s >";
    let _: redis::Value = server.ask(read);
    let source = source(&server.url());
    assert_eq!(number(&*source, 0), 1);
    // The first is delivered to the source in an answer that it never sees.
    let (_, id, ..): (usize, String, redis::Value, redis::Value) =
        server.ask("XPENDING s inflight");
    let _: redis::Value = server.ask(&format!("XCLAIM s inflight inflight 0 {id}"));
    let _: redis::Value = server.ask("CLIENT KILL TYPE normal SKIPME yes");
    assert_eq!(number_in_time(&source, 1), Ok(0));
}

#[test]
fn bad_messages_are_named_and_spoil_no_other() {
    let Some(server) = Server::start() else { return };
    let id: String = server.ask("XADD s * picture abc label 1");
    let _: String = server.ask("XADD s * input abc label cat");
    let _: String = server.ask("XADD s * input abc label 3");
    let source = source(&server.url());
    assert!(source.reaches(&[0, 1, 2]));
    let mut scratch = Vec::new();
    let error = source.read(0, &mut scratch).expect_err("no input").to_string();
    let expected =
        format!("message {id}: input: found the fields picture, label, expected input and label");
    assert!(error.contains(&expected), "{error}");
    let error = source.read(1, &mut scratch).expect_err("a bad label").to_string();
    assert!(error.contains("label: found \"cat\", expected the number of a class"), "{error}");
    assert_eq!(source.read(2, &mut scratch).expect("fine here").input, b"abc");
    assert_eq!(source.origin(0), Some(format!("message {id}")));
}

#[test]
fn nobody_there_and_other_refusals_are_told() {
    let options_data = data();
    let refusal = |url: &str| {
        let options = OpenOptions { data: Some(&options_data), ..Default::default() };
        open(url, &options).err().expect("refused").to_string()
    };
    let error = refusal("redis://127.0.0.1:1/s?room=9");
    assert!(error.contains("found room=9"), "{error}");
    let Some(server) = Server::start() else { return };
    let _: String = server.ask("SET s text");
    let error = refusal(&server.url());
    assert!(error.contains("the server refuses"), "{error}");
}

fn train(server: &Server, dir: &Path, more: &str) -> Command {
    let line = format!(
        "train {} --format raw --classes 4 --image-size 8 --channels 1 --model mlp --batch-size 8 \
         --device cpu --json --seed 1 {more}",
        server.url()
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_inflight"));
    command.args(line.split_whitespace()).current_dir(dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ids of the messages that are delivered and not acknowledged, and of those not delivered at all.
fn not_acknowledged(server: &Server) -> usize {
    let groups: Vec<std::collections::HashMap<String, redis::Value>> = server.ask("XINFO GROUPS s");
    let lag = match &groups[0]["lag"] {
        redis::Value::Int(lag) => *lag as usize,
        other => panic!("found {other:?}"),
    };
    lag + server.pending()
}

#[test]
fn a_trainer_killed_in_the_middle_loses_no_message() {
    let Some(server) = Server::start() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    server.add(0..200);
    // It asks for more steps than there are messages, so it is still running whenever it is killed.
    let mut child = train(&server, dir.path(), "--steps 1000 --out a").spawn().expect("starts");
    let mut steps = 0;
    let out = child.stdout.take().expect("piped");
    for line in std::io::BufRead::lines(std::io::BufReader::new(out)) {
        steps += usize::from(line.expect("text").contains("\"event\":\"step\""));
        if steps == 5 {
            break;
        }
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    let left = not_acknowledged(&server);
    // Steps went on until the kill; each acknowledges 8, and no message without its step.
    let acknowledged = 200 - left;
    assert!(acknowledged.is_multiple_of(8), "{acknowledged} are acknowledged");
    assert!(acknowledged <= 200, "{acknowledged}");
    // The second run has exactly as many full batches as are left.
    let out = train(&server, dir.path(), &format!("--steps {} --out b", left.div_ceil(8)))
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    assert_eq!(not_acknowledged(&server), 0, "every message was applied");
}
