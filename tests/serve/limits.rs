//! What a server does when there is too much to do, when clients are gone, and when it ends.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use inflight::generate::{Generator, Sampling, model_with};
use inflight::serve::{ServeConfig, Server};
use inflight::tokenizer::Tokenizer;
use serde_json::{Value, json};

use super::client::{Asked, ask, get, hear, joined, post, send};
use super::{Serving, alone, generator, weights};

/// So many tokens that a text is never done while a test waits for others.
const ENDLESS: usize = 100_000_000;

/// The server of one place and of so many who may wait.
fn narrow(queue: usize) -> Serving {
    let config = ServeConfig {
        queue,
        tokens_max: ENDLESS,
        drain: Duration::from_millis(100),
        ..ServeConfig::default()
    };
    Serving::start(config, generator(1))
}

/// A text without end, of which the first token has come.
fn endless(address: SocketAddr) -> Asked {
    let request = json!({ "prompt": "a", "max_tokens": ENDLESS, "stream": true });
    let mut asked = post(address, "/v1/completions", &request);
    assert_eq!(asked.status, 200);
    asked.event().expect("a first token");
    asked
}

/// Requests whose answers, of 6 kB each, are more than any system keeps of what nobody reads.
const PAGES: usize = 16_000;

/// A client that asks and asks and reads no answer.
fn unread(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_write_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    // It may be cut off while it still asks.
    let _ = stream.write_all(request.repeat(PAGES).as_bytes());
    stream
}

fn short() -> Value {
    json!({ "prompt": "b", "max_tokens": 3, "temperature": 0 })
}

fn queue_short(address: SocketAddr) -> TcpStream {
    send(address, "POST", "/v1/completions", "", &short().to_string())
}

/// Waits until a measure has a value.
fn until(address: SocketAddr, line: &str) {
    let has = || get(address, "/metrics").text().lines().any(|found| found == line);
    while !has() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whoever_is_gone_frees_the_place_and_whoever_waits_gets_it() {
    let serving = narrow(4);
    let endless = endless(serving.address);
    let waiting = queue_short(serving.address);
    until(serving.address, "inflight_texts_waiting 1");
    endless.leave();
    // It would wait for ever if the place were not free.
    let body = hear(waiting).json();
    assert_eq!(body["choices"][0]["text"], alone(&mut generator(1), "b", Sampling::greedy(3)));
    until(serving.address, "inflight_texts_left_total 1");
    // So it is for those who do not stream.
    let request = json!({ "prompt": "a", "max_tokens": ENDLESS });
    let whole = send(serving.address, "POST", "/v1/completions", "", &request.to_string());
    until(serving.address, "inflight_texts_running 1");
    drop(whole);
    assert_eq!(post(serving.address, "/v1/completions", &short()).status, 200);
}

#[test]
fn a_full_queue_sends_away_and_says_for_how_long() {
    let serving = narrow(2);
    let endless = endless(serving.address);
    let waiting: Vec<TcpStream> = (0..2).map(|_| queue_short(serving.address)).collect();
    until(serving.address, "inflight_texts_waiting 2");
    let refused = post(serving.address, "/v1/completions", &short());
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.headers["retry-after"].parse().expect("seconds");
    assert!((1..=60).contains(&wait));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    endless.leave();
    for waiting in waiting {
        assert_eq!(hear(waiting).status, 200);
    }
    // Two at once fit, three never would.
    let of = |n: usize| json!({ "prompt": "b", "max_tokens": 3, "n": n });
    assert_eq!(post(serving.address, "/v1/completions", &of(2)).status, 200);
    assert_eq!(post(serving.address, "/v1/completions", &of(3)).status, 429);
}

#[test]
fn what_takes_too_long_is_given_up() {
    let config = ServeConfig {
        timeout: Duration::from_millis(300),
        tokens_max: ENDLESS,
        ..ServeConfig::default()
    };
    let serving = Serving::start(config, generator(1));
    let request = json!({ "prompt": "a", "max_tokens": ENDLESS, "stream": true });
    let mut asked = post(serving.address, "/v1/completions", &request);
    let mut last = String::new();
    while let Some(event) = asked.event() {
        last = event;
    }
    assert!(last.contains("the request took too long"), "{last}");
    let whole =
        post(serving.address, "/v1/completions", &json!({ "prompt": "a", "max_tokens": ENDLESS }));
    assert_eq!(whole.status, 503);
    assert_eq!(post(serving.address, "/v1/completions", &short()).status, 200);
}

#[test]
fn whoever_reads_nothing_is_cut_off_and_whoever_waits_gets_the_place() {
    let config = ServeConfig {
        connections: 1,
        write_timeout: Duration::from_millis(200),
        ..ServeConfig::default()
    };
    let serving = Serving::start(config, generator(1));
    let unread = unread(serving.address);
    // It would wait for ever if the connection were kept.
    assert_eq!(get(serving.address, "/health").status, 200);
    drop(unread);
}

#[test]
fn only_who_knows_the_key_is_served() {
    let config = ServeConfig { api_key: Some("secret".into()), ..ServeConfig::default() };
    let serving = Serving::start(config, generator(1));
    let with = |headers: &str| {
        ask(serving.address, "POST", "/v1/completions", headers, &short().to_string())
    };
    for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: secret\r\n"] {
        let refused = with(headers);
        assert_eq!((refused.status, refused.headers["www-authenticate"].as_str()), (401, "Bearer"));
        assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    }
    assert_eq!(with("Authorization: Bearer secret\r\n").status, 200);
    assert_eq!(get(serving.address, "/v1/models").status, 401);
    assert_eq!(get(serving.address, "/health").status, 200);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |config: ServeConfig| {
        let started = Server::start(config, generator(1), Tokenizer::Bytes);
        started.err().expect("refused").to_string()
    };
    let open = SocketAddr::from(([0, 0, 0, 0], 0));
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let plain = ServeConfig { address: local, ..ServeConfig::default() };
    let message = refused(ServeConfig { address: open, ..plain.clone() });
    assert!(message.contains("--host: found 0.0.0.0, which others can reach"), "{message}");
    let message = refused(ServeConfig { queue: 0, ..plain.clone() });
    assert!(message.contains("--queue: found 0"), "{message}");
    let message = refused(ServeConfig { api_key: Some(String::new()), ..plain.clone() });
    assert!(message.contains("--api-key"), "{message}");
    let message = refused(ServeConfig { chat_template: Some("{% if %}".into()), ..plain.clone() });
    assert!(message.contains("--chat-template"), "{message}");
    let taken = Serving::plain(1);
    let message = refused(ServeConfig { address: taken.address, ..plain });
    assert!(message.contains("cannot be listened at"), "{message}");
}

#[test]
fn a_server_that_stops_finishes_what_is_under_way() {
    let config = ServeConfig { drain: Duration::from_secs(100), ..ServeConfig::default() };
    let mut serving = Serving::start(config, generator(1));
    let request = json!({ "prompt": "a", "max_tokens": 2000, "seed": 3, "stream": true });
    let mut asked = post(serving.address, "/v1/completions", &request);
    let first: Value = serde_json::from_str(&asked.event().expect("a token")).expect("JSON");
    serving.stop();
    let rest = asked.events();
    assert_eq!(rest.len(), 1999);
    let sampling = Sampling { tokens: 2000, temperature: 1.0, seed: 3, ..Sampling::default() };
    let expected = alone(&mut generator(1), "a", sampling);
    assert_eq!(joined(&[first]) + &joined(&rest), expected);
    let address = serving.address;
    serving.end().expect("no failure");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_server_that_stops_does_not_wait_for_ever() {
    let serving = narrow(1);
    let mut asked = endless(serving.address);
    serving.end().expect("no failure");
    // The connection is cut without the last event.
    while let Some(event) = asked.event() {
        assert!(event != "[DONE]");
    }
}

#[test]
fn a_model_that_is_not_finite_ends_the_server_and_everybody_hears_of_it() {
    let (config, weights) = weights(f32::INFINITY);
    let model = model_with(config, &weights).expect("a model");
    let broken = Generator::new(model, &weights, "cpu", 1).expect("fits");
    let mut serving = Serving::start(ServeConfig::default(), broken);
    let answer = post(serving.address, "/v1/completions", &short());
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["error"]["message"], "the model has failed");
    // It ends by itself.
    let ended = serving.thread.take().expect("a thread").join().expect("no panic");
    assert_eq!(ended.expect_err("the reason").kind().exit_code(), 5);
}
