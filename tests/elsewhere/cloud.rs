//! Data behind HTTP and in S3, against servers on this machine that do what servers and networks do.
#![cfg(feature = "cloud")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use inflight::source::{DataConfig, Dataset, OpenOptions, open};
use inflight::{ErrorKind, Result};
use tempfile::{TempDir, tempdir};

/// What the server does with one request.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    Right,
    /// An error of the server.
    Status(u16),
    /// The connection ends in the middle of the body.
    Cut,
    /// Everything, whatever range is asked for.
    Whole,
    /// Another length and ETag than before.
    Changed,
    /// Another ETag, whatever condition is given.
    Other,
}

struct Seen {
    method: String,
    path: String,
    range: Option<(usize, usize)>,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    /// What happens to the next requests for a body; then all is right.
    plan: Vec<Answer>,
    always: Option<Answer>,
    seen: Vec<Seen>,
}

struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let files = files.iter().map(|(path, bytes)| (path.to_string(), bytes.clone())).collect();
        let state = Arc::new(Mutex::new(State { files, ..Default::default() }));
        let shared = state.clone();
        // Ends with the test's process: it waits for connections and owns nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || {
                    // The client may have gone: nothing to do about it here.
                    let _ = answer(&stream, &state);
                });
            }
        });
        Self { address, state }
    }

    fn plan(&self, answers: &[Answer]) {
        self.state.lock().unwrap().plan = answers.to_vec();
    }

    fn bodies(&self) -> usize {
        self.state.lock().unwrap().seen.iter().filter(|seen| seen.method == "GET").count()
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (mut range, mut condition) = (None, None);
    for line in lines.map_while(std::io::Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_lowercase();
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-').expect("a range");
            range = Some((from.parse().expect("a number"), to.parse().expect("a number")));
        }
        condition = line.strip_prefix("if-match: ").map(str::to_owned).or(condition);
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut state = state.lock().unwrap();
    state.seen.push(Seen { method: method.into(), path: path.into(), range });
    if query.contains("list-type=2") {
        return list(stream, &state, path, query);
    }
    let Some(body) = state.files.get(path).cloned() else {
        return status(stream, 404);
    };
    let plan = match (method, state.plan.is_empty()) {
        ("GET", false) => state.plan.remove(0),
        ("GET", true) => state.always.unwrap_or(Answer::Right),
        _ => Answer::Right,
    };
    drop(state);
    reply(stream, method, body, plan, range, condition)
}

fn status(mut stream: &TcpStream, code: u16) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {code} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

fn reply(
    mut stream: &TcpStream,
    method: &str,
    mut body: Vec<u8>,
    plan: Answer,
    range: Option<(usize, usize)>,
    condition: Option<String>,
) -> std::io::Result<()> {
    let mut tag = format!("\"{}\"", body.iter().map(|&byte| u64::from(byte)).sum::<u64>());
    if plan == Answer::Changed {
        (tag, body) = ("\"other\"".into(), [body, vec![0]].concat());
    }
    if plan == Answer::Other {
        tag = "\"other\"".into();
    } else if condition.is_some_and(|condition| condition != tag) {
        return status(stream, 412);
    }
    if let Answer::Status(code) = plan {
        return status(stream, code);
    }
    let range = range.filter(|_| plan != Answer::Whole);
    let whole = body.len();
    let part = match range {
        Some((from, to)) => {
            let to = to.min(whole - 1);
            write!(stream, "HTTP/1.1 206 Partial\r\ncontent-range: bytes {from}-{to}/{whole}\r\n")?;
            body[from..=to].to_vec()
        }
        None => {
            write!(stream, "HTTP/1.1 200 OK\r\n")?;
            body
        }
    };
    write!(
        stream,
        "etag: {tag}\r\nlast-modified: Sat, 28 Nov 2026 00:00:00 GMT\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        part.len()
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    let sent = if plan == Answer::Cut { part.len() / 2 } else { part.len() };
    stream.write_all(&part[..sent])
}

/// As S3 lists a bucket, in pages of two.
fn list(mut stream: &TcpStream, state: &State, path: &str, query: &str) -> std::io::Result<()> {
    let bucket = format!("{}/", path.trim_end_matches('/'));
    let part = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name));
        pair.unwrap_or("").replace("%2F", "/")
    };
    let (prefix, after) = (part("prefix="), part("continuation-token="));
    let mut keys: Vec<(&str, usize)> = state
        .files
        .iter()
        .filter_map(|(path, body)| Some((path.strip_prefix(&bucket)?, body.len())))
        .filter(|(key, _)| key.starts_with(&prefix) && *key > &after[..])
        .collect();
    keys.sort_unstable();
    let more = keys.len() > 2;
    keys.truncate(2);
    let contents: String = keys
        .iter()
        .map(|(key, size)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-28T00:00:00.000Z</LastModified>\
                 <ETag>\"{}\"</ETag><Size>{size}</Size></Contents>",
                state.files[&format!("{bucket}{key}")].iter().map(|&b| u64::from(b)).sum::<u64>()
            )
        })
        .collect();
    let next = match keys.last() {
        Some((key, _)) if more => format!("<NextContinuationToken>{key}</NextContinuationToken>"),
        _ => String::new(),
    };
    let xml = format!(
        "<ListBucketResult><IsTruncated>{more}</IsTruncated>{next}{contents}</ListBucketResult>"
    );
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{xml}",
        xml.len()
    )
}

/// IDX files of `count` images of 28 × 28 and their labels.
fn idx(count: u32) -> [Vec<u8>; 2] {
    let head = |magic: u32, sizes: &[u32]| {
        [&[magic], sizes].concat().iter().flat_map(|x| x.to_be_bytes()).collect::<Vec<u8>>()
    };
    let pixels = (0..count * 784).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    let images = head(0x803, &[count, 28, 28]).into_iter().chain(pixels).collect();
    let labels = head(0x801, &[count]).into_iter().chain((0..count).map(|i| (i % 10) as u8));
    [images, labels.collect()]
}

fn open_url(url: &str, cache: &TempDir, bytes: Option<u64>) -> Result<Dataset> {
    let data = DataConfig {
        cloud_cache_dir: Some(cache.path().into()),
        cloud_cache_bytes: bytes,
        ..Default::default()
    };
    open(url, &OpenOptions { data: Some(&data), ..Default::default() })
}

/// Both files of [`numbered`] by one URL.
fn bring(server: &Server, cache: &TempDir) -> Result<Dataset> {
    open_url(&format!("{}/pair/{{0..1}}-idx", server.address), cache, None)
}

/// A server with a pair of files under numbered names, as one URL can say.
fn numbered(images: u32) -> Server {
    let [images, labels] = idx(images);
    Server::start(&[("/pair/0-idx", images), ("/pair/1-idx", labels)])
}

fn error_of(result: Result<Dataset>) -> String {
    let error = result.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    error.to_string()
}

/// The files in a folder of the cache, by the ends of their names.
fn cached(cache: &TempDir) -> HashMap<String, Vec<u8>> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(cache.path()).expect("a cache").flatten() {
        for file in std::fs::read_dir(entry.path().join("files")).into_iter().flatten().flatten() {
            let name = file.file_name().into_string().expect("UTF-8");
            files.insert(name, std::fs::read(file.path()).expect("readable"));
        }
    }
    files
}

#[test]
fn files_come_in_parts_once_and_are_as_they_are_there() {
    let server = numbered(24_000);
    let cache = tempdir().expect("a folder");
    // Names as these are of no format, so opening fails after all is here.
    let error = error_of(bring(&server, &cache));
    assert!(error.contains("found a folder without data that can be read"), "{error}");
    let (files, [images, labels]) = (cached(&cache), idx(24_000));
    assert!(files["0-idx"] == images && files["1-idx"] == labels);
    {
        let state = server.state.lock().unwrap();
        let ranges: Vec<_> = state.seen.iter().filter_map(|seen| seen.range).collect();
        assert_eq!(ranges.len(), 3, "18.8 MB come in parts of 8 MiB");
        assert!(ranges.contains(&(0, (8 << 20) - 1)), "{ranges:?}");
        assert!(state.seen.iter().all(|seen| seen.path.starts_with("/pair/")));
    }
    let bodies = server.bodies();
    let _ = error_of(bring(&server, &cache));
    assert_eq!(server.bodies(), bodies, "what is here is not fetched again");
}

#[test]
fn what_fails_now_and_then_is_asked_for_again() {
    let server = numbered(12_000);
    let cache = tempdir().expect("a folder");
    server.plan(&[
        Answer::Status(500),
        Answer::Cut,
        Answer::Status(503),
        Answer::Right,
        Answer::Cut,
        Answer::Status(429),
    ]);
    let _ = error_of(bring(&server, &cache));
    let [images, labels] = idx(12_000);
    let files = cached(&cache);
    assert!(files["0-idx"] == images && files["1-idx"] == labels);
}

#[test]
fn a_server_without_ranges_sends_the_whole() {
    let server = numbered(12_000);
    server.state.lock().unwrap().always = Some(Answer::Whole);
    let cache = tempdir().expect("a folder");
    let _ = error_of(bring(&server, &cache));
    let files = cached(&cache);
    assert!(files["0-idx"] == idx(12_000)[0], "one request brings all of it");
}

#[test]
fn tries_are_bounded_and_told_of() {
    let server = numbered(10);
    server.state.lock().unwrap().always = Some(Answer::Status(500));
    let cache = tempdir().expect("a folder");
    let error = error_of(bring(&server, &cache));
    assert!(error.contains("/pair/") && error.contains("failed 6 times"), "{error}");
    assert!(error.contains("500"), "{error}");
    // Two files, six tries each at most; those of the other end with the first error.
    let bodies = server.bodies();
    assert!((6..=12).contains(&bodies), "{bodies} requests");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(server.bodies(), bodies, "nothing is asked for after the error");
    assert!(cached(&cache).is_empty());
}

#[test]
fn what_changes_meanwhile_and_what_is_not_there_is_told() {
    let server = numbered(12_000);
    server.state.lock().unwrap().always = Some(Answer::Changed);
    let cache = tempdir().expect("a folder");
    let error = error_of(bring(&server, &cache));
    assert!(error.contains("changed while it was fetched"), "{error}");
    // A server that knows no conditions sends another version of the same length.
    server.state.lock().unwrap().always = Some(Answer::Other);
    let error = error_of(bring(&server, &cache));
    assert!(error.contains("changed while it was fetched: found the ETag \"other\""), "{error}");
    assert!(cached(&cache).is_empty());
    let url = format!("{}/none.npz", server.address);
    let error = error_of(open_url(&url, &cache, None));
    assert!(error.contains(&format!("{url}: is not there")), "{error}");
}

#[test]
fn a_file_that_changed_since_is_fetched_again() {
    let server = numbered(10);
    let cache = tempdir().expect("a folder");
    let _ = error_of(bring(&server, &cache));
    let [mut images, _] = idx(10);
    images[100] ^= 0xff;
    server.state.lock().unwrap().files.insert("/pair/0-idx".into(), images.clone());
    let bodies = server.bodies();
    let _ = error_of(bring(&server, &cache));
    assert_eq!(server.bodies(), bodies + 1, "the other is as it was");
    assert!(cached(&cache)["0-idx"] == images);
}

#[test]
fn the_limit_of_the_cache_is_kept() {
    let server = numbered(100);
    let cache = tempdir().expect("a folder");
    let url = format!("{}/pair/{{0..1}}-idx", server.address);
    let error = error_of(open_url(&url, &cache, Some(50_000)));
    let expected = "found 2 objects of 78524 bytes in all, expected at most 50000";
    assert!(error.contains(expected), "{error}");
    assert_eq!(server.bodies(), 0, "nothing of it is fetched");
}

fn inflight(line: &str, server: &Server, dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inflight"))
        .args(line.split_whitespace())
        .current_dir(dir)
        .env("AWS_ENDPOINT", &server.address)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "here")
        .env("AWS_ACCESS_KEY_ID", "me")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .expect("starts")
}

#[test]
fn a_prefix_of_a_bucket_trains_as_the_folder_would() {
    let [images, labels] = idx(40);
    let server = Server::start(&[
        ("/bucket/data/train-images-idx3-ubyte", images.clone()),
        ("/bucket/data/train-labels-idx1-ubyte", labels.clone()),
        ("/bucket/data/classes.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n".to_vec()),
        ("/bucket/database/other", b"not below data/".to_vec()),
        // Some tools mark a folder by an empty object.
        ("/bucket/data/notes", Vec::new()),
        ("/bucket/data/notes/readme", b"of no format".to_vec()),
    ]);
    let dir = tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("data")).expect("a folder");
    std::fs::write(dir.path().join("data/train-images-idx3-ubyte"), images).expect("writes");
    std::fs::write(dir.path().join("data/train-labels-idx1-ubyte"), labels).expect("writes");
    let train = |data: &str, out: &str| {
        let line = format!(
            "train {data} --cloud-cache-dir c --model mlp --batch-size 8 --epochs 1 --device cpu --json --seed 4 --out {out}"
        );
        let output = inflight(&line, &server, dir.path());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        let last = String::from_utf8(output.stdout).expect("UTF-8");
        let last: serde_json::Value =
            serde_json::from_str(last.lines().last().expect("events")).expect("JSON");
        last["parameter_hash"].as_str().expect("a hash").to_owned()
    };
    let near = train("data", "near");
    assert_eq!(train("s3://bucket/data", "far"), near);
    let bodies = server.bodies();
    assert_eq!(train("s3://bucket/data", "again"), near);
    // The listing is asked for again, in three pages; no file is.
    let asked = server.bodies() - bodies;
    assert_eq!(asked, 3, "{asked} requests");
    let output = inflight("inspect s3://bucket/nothing --cloud-cache-dir c", &server, dir.path());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("s3://bucket/nothing: found no object of this name"), "{text}");
}
