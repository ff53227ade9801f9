//! Many clients at once, and clients that others wrote: a thousand connections, OpenAI's library, a browser.

use std::process::Command;

use inflight::generate::Sampling;
use inflight::serve::ServeConfig;
use serde_json::json;

use super::browser::{chromium, dump};
use super::client::{hear, joined, send};
use super::{Serving, alone, generator};

/// Connections of a client that is no single one.
const MANY: usize = 1000;

#[test]
fn a_thousand_at_once_each_get_their_own_text() {
    // Both ends of each connection are files of this process.
    let files = rlimit::increase_nofile_limit(2 * MANY as u64 + 200).expect("a limit");
    assert!(files > 2 * MANY as u64 + 64, "{files} files are too few");
    let config = ServeConfig { queue: MANY, connections: MANY + 8, ..ServeConfig::default() };
    let serving = Serving::start(config, generator(24));
    let settings = |i: usize| (format!("client {i}"), 4 + i % 13);
    let streams: Vec<_> = (0..MANY)
        .map(|i| {
            let (prompt, tokens) = settings(i);
            let request = json!({
                "prompt": prompt, "max_tokens": tokens, "seed": i, "temperature": 1.0, "stream": true,
            });
            send(serving.address, "POST", "/v1/completions", "", &request.to_string())
        })
        .collect();
    let mut library = generator(1);
    for (i, stream) in streams.into_iter().enumerate() {
        let (prompt, tokens) = settings(i);
        let asked = hear(stream);
        assert_eq!(asked.status, 200, "client {i}");
        let sampling = Sampling { tokens, temperature: 1.0, seed: i as u64, ..Sampling::default() };
        let events = asked.events();
        assert_eq!(events.len(), tokens);
        assert_eq!(joined(&events), alone(&mut library, &prompt, sampling), "client {i}");
    }
}

#[test]
fn connections_beyond_the_limit_wait_for_others_to_close() {
    let config = ServeConfig { connections: 2, ..ServeConfig::default() };
    let serving = Serving::start(config, generator(1));
    let idle: Vec<_> =
        (0..2).map(|_| std::net::TcpStream::connect(serving.address).expect("accepted")).collect();
    let third = send(serving.address, "GET", "/health", "", "");
    let mut byte = [0];
    third.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
    assert!(third.peek(&mut byte).is_err(), "it was answered beyond the limit");
    drop(idle);
    third.set_read_timeout(None).expect("no timeout");
    assert_eq!(hear(third).status, 200);
}

/// The official client library, where this machine has it; `REQUIRE_OPENAI=1` makes its absence a failure, and
/// `INFLIGHT_TEST_PYTHON` names the Python that has it.
#[test]
fn openais_own_client_is_served() {
    let python = std::env::var("INFLIGHT_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python).args(["-c", "import openai"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        let required = std::env::var_os("REQUIRE_OPENAI").is_some_and(|value| value == "1");
        assert!(!required, "REQUIRE_OPENAI is set, but {python} has no openai");
        eprintln!("skipped: {python} has no openai");
        return;
    }
    let config = ServeConfig { api_key: Some("secret".into()), ..ServeConfig::default() };
    let serving = Serving::start(config, generator(4));
    let expected = alone(&mut generator(1), "To be", Sampling::greedy(12));
    let output = Command::new(&python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/openai_client.py"))
        .args([format!("http://{}/v1", serving.address), "secret".into(), expected])
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all as expected", "{told}");
}

#[test]
fn the_page_writes_a_text_in_a_browser() {
    let Some(chromium) = chromium() else { return };
    let serving = Serving::plain(2);
    let expected = alone(&mut generator(1), "To be", Sampling::greedy(12));
    assert!(expected.is_ascii() || !expected.is_empty());
    let page = format!("http://{}/?prompt=To%20be&tokens=12&temperature=0&go=1", serving.address);
    let found = dump(&chromium, &page);
    let text = found
        .split_once("<span id=\"made\">")
        .and_then(|(_, rest)| rest.split_once("</span>"))
        .unwrap_or_else(|| panic!("no text in {found}"))
        .0;
    let escaped =
        expected.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "");
    assert_eq!(text.replace('\r', ""), escaped);
    assert!(found.contains("12 tokens") && found.contains("done"), "{found}");
    assert!(found.contains("small</small>"), "the model's name is shown");
}
