//! A client of so many lines that says and hears exactly what a test wants.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// A request that is under way.
pub struct Asked {
    reader: BufReader<TcpStream>,
    pub status: u16,
    pub headers: HashMap<String, String>,
}

/// Sends a request; the answer is read later.
pub fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    // A test that hangs tells less than one that fails.
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).expect("sent");
    stream
}

/// Reads the head of an answer.
pub fn hear(stream: TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status");
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status line");
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a header");
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_string()),
            None => break,
        };
    }
    Asked { reader, status, headers }
}

pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Asked {
    hear(send(address, method, path, headers, body))
}

pub fn post(address: SocketAddr, path: &str, body: &Value) -> Asked {
    ask(address, "POST", path, "Content-Type: application/json\r\n", &body.to_string())
}

pub fn get(address: SocketAddr, path: &str) -> Asked {
    ask(address, "GET", path, "", "")
}

impl Asked {
    /// The next line of a body in chunks, without what HTTP puts between; none at the end.
    fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok().filter(|&size| size > 0)?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        Some(String::from_utf8(chunk).expect("UTF-8"))
    }

    /// The whole body.
    pub fn text(mut self) -> String {
        if self.headers.get("transfer-encoding").is_some_and(|how| how == "chunked") {
            return std::iter::from_fn(|| self.chunk()).collect();
        }
        let mut body = String::new();
        self.reader.read_to_string(&mut body).expect("a body");
        body
    }

    pub fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The next server-sent event; none at the end. Each comes as a chunk.
    pub fn event(&mut self) -> Option<String> {
        loop {
            let chunk = self.chunk()?;
            // Others are comments that keep the connection alive.
            if let Some(data) = chunk.strip_prefix("data: ") {
                return Some(data.trim_end().to_string());
            }
        }
    }

    /// All events but the last, which must say that it is.
    pub fn events(mut self) -> Vec<Value> {
        let mut events: Vec<String> = std::iter::from_fn(|| self.event()).collect();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
    }

    /// Leaves in the middle.
    pub fn leave(self) {
        self.reader.into_inner().shutdown(Shutdown::Both).expect("a connection");
    }
}

/// The text of all events of a completion.
pub fn joined(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect()
}
