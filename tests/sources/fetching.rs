//! Fetching, against a server on this machine that does what servers and networks do.
#![cfg(feature = "fetch")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use inflight::ErrorKind;
use inflight::source::fetch::fetch_manifest;
use inflight::source::manifest::Manifest;
use sha2::{Digest, Sha256};
use tempfile::tempdir;

/// What the server does with a request.
#[derive(Clone)]
enum Answer {
    /// The whole, or the range asked for.
    Whole(Vec<u8>),
    /// As `Whole`, but the connection ends after so many bytes of body.
    Cut(Vec<u8>, usize),
    /// The whole, whatever range is asked for.
    NoRanges(Vec<u8>),
    Status(u16),
}

/// Path, and where the range asked for begins.
type Request = (String, Option<u64>);

/// Serves answers by path; each path takes its answers in order and stays with the last.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answers: &[(&str, Vec<Answer>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let mut answers: HashMap<String, Vec<Answer>> =
            answers.iter().map(|(path, answers)| (path.to_string(), answers.clone())).collect();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        // Ends with the test's process: it waits for connections and owns nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some((path, from)) = read_request(&stream) else { continue };
                log.lock().unwrap().push((path.clone(), from));
                let answer = match answers.get_mut(&path) {
                    Some(queue) if queue.len() > 1 => queue.remove(0),
                    Some(queue) => queue[0].clone(),
                    None => Answer::Status(404),
                };
                // The client may have gone: nothing to do about it here.
                let _ = reply(stream, &answer, from);
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut from = None;
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(range) = line.to_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    Some((path, from))
}

fn reply(mut stream: TcpStream, answer: &Answer, from: Option<u64>) -> std::io::Result<()> {
    let (body, from, sent) = match answer {
        Answer::Status(status) => {
            return write!(
                stream,
                "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
        Answer::Whole(body) => (body, from, usize::MAX),
        Answer::Cut(body, sent) => (body, from, *sent),
        Answer::NoRanges(body) => (body, None, usize::MAX),
    };
    let rest = &body[from.unwrap_or(0) as usize..];
    match from {
        None => write!(stream, "HTTP/1.1 200 OK\r\n")?,
        Some(from) => write!(
            stream,
            "HTTP/1.1 206 Partial\r\ncontent-range: bytes {from}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        )?,
    }
    write!(stream, "content-length: {}\r\nconnection: close\r\n\r\n", rest.len())?;
    stream.write_all(&rest[..rest.len().min(sent)])
}

fn data() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A data set of one file, from these addresses.
fn manifest(urls: &[String], bytes: usize, hash: &str, members: &str) -> Manifest {
    let sources: Vec<String> = urls
        .iter()
        .map(|url| format!("{{ url = \"{url}\", bytes = {bytes}, sha256 = \"{hash}\" }}"))
        .collect();
    Manifest::parse(&format!(
        "name = \"tiny\"\ndescription = \"\"\nhomepage = \"\"\nlicence = \"\"\nformat = \"idx\"\nclasses = []\n\
         mean = []\nstd = []\nsplits = {{ train = {{ files = [\"a\"] }} }}\n\
         [[files]]\npath = \"a\"\nmembers = [{members}]\nsources = [{}]\n",
        sources.join(", ")
    ))
    .unwrap()
}

fn simple(urls: &[String]) -> Manifest {
    manifest(urls, data().len(), &sha256(&data()), "")
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_downloaded_once_and_put_in_place_whole() {
    let server = Server::start(&[("/a", vec![Answer::Whole(data())])]);
    let cache = tempdir().unwrap();
    let manifest = simple(&[format!("{}/a", server.address)]);
    let last = Mutex::new((0, 0));
    for _ in 0..2 {
        let report = |p: &inflight::source::fetch::Progress<'_>| {
            *last.lock().unwrap() = (p.done_bytes, p.total_bytes);
        };
        let dir = fetch_manifest(&manifest, cache.path(), &report).unwrap();
        assert_eq!(fs::read(dir.join("a")).unwrap(), data());
        assert_eq!(names(&dir), [".lock", "a"]);
    }
    assert_eq!(*last.lock().unwrap(), (300_000, 300_000));
    assert_eq!(server.requests(), [("/a".into(), None)]);
}

#[test]
fn a_damaged_file_is_fetched_again() {
    let server = Server::start(&[("/a", vec![Answer::Whole(data())])]);
    let cache = tempdir().unwrap();
    let manifest = simple(&[format!("{}/a", server.address)]);
    let dir = fetch_manifest(&manifest, cache.path(), &|_| ()).unwrap();
    let mut damaged = data();
    damaged[1000] ^= 1;
    fs::write(dir.join("a"), damaged).unwrap();
    fetch_manifest(&manifest, cache.path(), &|_| ()).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), data());
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_server_that_never_finishes_is_given_up() {
    // Each answer ends before the last byte, and every other one starts over.
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(Answer::Cut(data(), 200_000));
        answers.push(Answer::Status(416));
    }
    let server = Server::start(&[("/a", answers)]);
    let cache = tempdir().unwrap();
    let error = fetch_manifest(&simple(&[format!("{}/a", server.address)]), cache.path(), &|_| ());
    assert!(error.unwrap_err().to_string().contains("a: "));
    assert!(server.requests().len() < 10, "{:?}", server.requests());
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let cut =
        vec![Answer::Cut(data(), 100_000), Answer::Cut(data(), 50_000), Answer::Whole(data())];
    let server = Server::start(&[("/a", cut)]);
    let cache = tempdir().unwrap();
    let manifest = simple(&[format!("{}/a", server.address)]);
    let dir = fetch_manifest(&manifest, cache.path(), &|_| ()).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), data());
    let from: Vec<Option<u64>> = server.requests().into_iter().map(|r| r.1).collect();
    assert_eq!(from, [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_partial_file_of_an_earlier_run_is_continued() {
    let server = Server::start(&[("/a", vec![Answer::Whole(data())])]);
    let cache = tempdir().unwrap();
    let dir = cache.path().join("tiny");
    fs::create_dir(&dir).unwrap();
    let part = format!(".{}.part", sha256(&data()));
    fs::write(dir.join(part), &data()[..1234]).unwrap();
    let manifest = simple(&[format!("{}/a", server.address)]);
    fetch_manifest(&manifest, cache.path(), &|_| ()).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), data());
    assert_eq!(server.requests(), [("/a".into(), Some(1234))]);
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let answers = vec![Answer::Cut(data(), 100_000), Answer::NoRanges(data())];
    let server = Server::start(&[("/a", answers)]);
    let cache = tempdir().unwrap();
    let manifest = simple(&[format!("{}/a", server.address)]);
    let dir = fetch_manifest(&manifest, cache.path(), &|_| ()).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), data());
}

#[test]
fn each_place_is_tried_and_its_answer_reported() {
    let mut wrong = data();
    wrong[7] ^= 1;
    let longer = [data(), vec![0]].concat();
    let server = Server::start(&[
        ("/wrong", vec![Answer::Whole(wrong.clone())]),
        ("/longer", vec![Answer::Whole(longer)]),
        ("/broken", vec![Answer::Cut(data(), 0)]),
        ("/busy", vec![Answer::Status(503), Answer::Whole(data())]),
    ]);
    let url = |path: &str| format!("{}{path}", server.address);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/a", listener.local_addr().unwrap())
    };
    let bad = [closed.clone(), url("/none"), url("/wrong"), url("/longer"), url("/broken")];
    let cache = tempdir().unwrap();
    let error = fetch_manifest(&simple(&bad), cache.path(), &|_| ()).unwrap_err();
    assert_eq!((error.kind(), error.item()), (ErrorKind::Data, "tiny: a"));
    let text = error.to_string();
    for part in [
        format!("fetch: tiny: a: could not be fetched ({closed}: "),
        format!("{}: answered 404", url("/none")),
        format!("{}: found sha256 {}, expected {}", url("/wrong"), sha256(&wrong), sha256(&data())),
        format!("{}: sent more than the 300000 bytes expected", url("/longer")),
        format!("{}: broke off", url("/broken")),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    assert!(!cache.path().join("tiny/a").exists());

    let good = [bad.as_slice(), &[url("/busy")]].concat();
    let dir = fetch_manifest(&simple(&good), cache.path(), &|_| ()).unwrap();
    assert_eq!(fs::read(dir.join("a")).unwrap(), data());
}

/// Name, kind and content.
type Entry = (&'static str, tar::EntryType, &'static [u8]);

/// A `.tar.gz` of these entries, whose names and kinds are written as they are.
fn archive(entries: &[Entry]) -> Vec<u8> {
    zipped(&tape(entries))
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    zip.write_all(bytes).unwrap();
    zip.finish().unwrap()
}

/// The archive before it is compressed.
fn tape(entries: &[Entry]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn fetch_archive(bytes: &[u8], cache: &Path) -> inflight::Result<()> {
    let server = Server::start(&[("/a.tgz", vec![Answer::Whole(bytes.to_vec())])]);
    let members = "{ path = \"in/x\", bytes = 5 }, { path = \"in/y\", bytes = 3 }";
    let url = format!("{}/a.tgz", server.address);
    let manifest = manifest(&[url], bytes.len(), &sha256(bytes), members);
    fetch_manifest(&manifest, cache, &|_| ()).map(|_| ())
}

#[test]
fn an_archive_gives_its_members_and_nothing_else() {
    use tar::EntryType::{Directory, Regular};
    let cache = tempdir().unwrap();
    let bytes = archive(&[
        ("in/", Directory, b""),
        ("in/y", Regular, b"123"),
        ("in/readme", Regular, b"hello"),
        ("in/x", Regular, b"12345"),
    ]);
    fetch_archive(&bytes, cache.path()).unwrap();
    let dir = cache.path().join("tiny");
    assert_eq!(names(&dir), [".lock", "in"]);
    assert_eq!(names(&dir.join("in")), ["x", "y"]);
    assert_eq!(fs::read(dir.join("in/x")).unwrap(), b"12345");
}

#[test]
fn an_archive_that_reaches_outside_is_refused() {
    use tar::EntryType::{Link, Regular, Symlink};
    let good: [Entry; 2] = [("in/x", Regular, b"12345"), ("in/y", Regular, b"123")];
    let cases: [(&[Entry], &str); 6] = [
        (&[("../evil", Regular, b"1")], "found a path that leaves its folder (../evil)"),
        (&[("/tmp/evil", Regular, b"1")], "found a path that leaves its folder (/tmp/evil)"),
        (&[("in", Symlink, b"")], "found a Symlink (in)"),
        (&[("in/z", Link, b"")], "found a Link (in/z)"),
        (&[("in/x", Regular, b"123456")], "found in/x of 6 bytes, expected 5"),
        (&[("in/z", Regular, b"1")], "has no in/"),
    ];
    for (bad, message) in cases {
        let cache = tempdir().unwrap();
        let last = message.starts_with("has no");
        let entries: Vec<_> = bad.iter().chain(good.iter().filter(|_| !last)).copied().collect();
        let error = fetch_archive(&archive(&entries), cache.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{message} is not in {error}");
        assert_eq!(names(cache.path()), ["tiny"], "nothing is written outside");
        assert!(!cache.path().join("tiny/in").exists());
    }
    let whole = archive(&good);
    let cache = tempdir().unwrap();
    let error = fetch_archive(&whole[..whole.len() / 2], cache.path()).unwrap_err().to_string();
    assert!(error.contains("archive") || error.contains("unpack"), "{error}");
    // Compressed whole, and cut before that: in the middle of a member, which begins with a header of 512 bytes.
    let cut = zipped(&tape(&good)[..512 + 2]);
    let error = fetch_archive(&cut, cache.path()).unwrap_err().to_string();
    assert!(error.contains("is cut short in in/x"), "{error}");
    assert!(!cache.path().join("tiny/in").exists());
}
