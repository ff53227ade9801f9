//! One file over HTTP: bounded waits, few retries, and a cut download goes on where it ended.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use ureq::Agent;

/// Long enough for a slow network, short enough to go on to the next place.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Silence for this long ends an attempt.
const READ_WAIT_MAX: Duration = Duration::from_secs(30);
/// Attempts in a row that get no further than any before, until a place is given up.
const FRUITLESS_MAX: u32 = 3;
/// Pause before the next attempt; doubles each time.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a download did not succeed.
pub(crate) enum Failure {
    /// The host was not found or did not accept a connection.
    Unreachable(String),
    /// The host answered that it will not.
    Refused(String),
    /// The transfer broke, again and again.
    Broken(String),
}

/// Downloads `url` to `part`, which may hold the beginning from an earlier attempt; stops at `bytes`.
pub(crate) fn download(
    url: &str,
    bytes: u64,
    part: &Path,
    report: &dyn Fn(u64),
) -> Result<(), Failure> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(CONNECT_WAIT_MAX))
        .timeout_connect(Some(CONNECT_WAIT_MAX))
        .timeout_recv_response(Some(READ_WAIT_MAX))
        .timeout_per_read(Some(READ_WAIT_MAX))
        .build()
        .into();
    let local =
        |e: std::io::Error| Failure::Broken(format!("cannot write {}: {e}", part.display()));
    let options = File::options().read(true).write(true).create(true).truncate(false).clone();
    let mut file = options.open(part).map_err(local)?;
    let (mut fruitless, mut furthest) = (0, 0);
    loop {
        let have = file.metadata().map_err(local)?.len();
        if have == bytes {
            return Ok(());
        }
        if have > bytes {
            file.set_len(0).map_err(local)?;
            continue;
        }
        match attempt(&agent, url, bytes, &mut file, have, report) {
            Ok(()) => {}
            Err(Failure::Broken(why)) => {
                let reached = file.metadata().map_err(local)?.len();
                // Not merely further than this attempt began: a server that starts over each time, or
                // goes on from the wrong place, could keep that up for ever.
                fruitless = if reached > furthest.max(have) { 0 } else { fruitless + 1 };
                furthest = furthest.max(reached);
                if fruitless == FRUITLESS_MAX {
                    return Err(Failure::Broken(why));
                }
                std::thread::sleep(PAUSE * 2u32.pow(fruitless));
            }
            Err(final_failure) => return Err(final_failure),
        }
    }
}

/// One request for what is missing after `have` bytes.
fn attempt(
    agent: &Agent,
    url: &str,
    bytes: u64,
    file: &mut File,
    have: u64,
    report: &dyn Fn(u64),
) -> Result<(), Failure> {
    let mut request = agent.get(url).header("accept-encoding", "identity");
    if have > 0 {
        request = request.header("range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(classify)?;
    let status = response.status().as_u16();
    let from = match status {
        200 => 0,
        206 if range_start(&response) == Some(have) => have,
        // The host cannot go on from there: begin anew.
        206 | 416 if have > 0 => {
            file.set_len(0).map_err(|e| Failure::Broken(e.to_string()))?;
            return Err(Failure::Broken(format!("answered {status} without the range asked for")));
        }
        408 | 425 | 429 | 500.. => return Err(Failure::Broken(format!("answered {status}"))),
        _ => return Err(Failure::Refused(format!("answered {status}"))),
    };
    let local = |e: std::io::Error| Failure::Broken(e.to_string());
    file.set_len(from).and_then(|()| file.seek(SeekFrom::Start(from))).map_err(local)?;
    let mut body = response.body_mut().as_reader();
    let (mut done, mut buffer) = (from, vec![0; 1 << 16]);
    loop {
        let n = body.read(&mut buffer).map_err(|e| Failure::Broken(format!("broke off: {e}")))?;
        if n == 0 {
            break;
        }
        done += n as u64;
        if done > bytes {
            let why = format!("sent more than the {bytes} bytes expected");
            file.set_len(0).map_err(local)?;
            return Err(Failure::Refused(why));
        }
        file.write_all(&buffer[..n]).map_err(local)?;
        report(done);
    }
    if done < bytes {
        return Err(Failure::Broken(format!("broke off after {done} of {bytes} bytes")));
    }
    Ok(())
}

/// Where the bytes of a partial answer begin: `content-range: bytes 100-199/200`.
fn range_start(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Sorts the errors of a request that brought no answer. A connection that was made and then broke may
/// work the next time; a name or address that leads nowhere will not.
fn classify(error: ureq::Error) -> Failure {
    use std::io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof,
    };
    use ureq::{Error, Timeout};
    let why = error.to_string();
    match error {
        Error::HostNotFound | Error::ConnectionFailed | Error::BadUri(_) => {
            Failure::Unreachable(why)
        }
        Error::Timeout(Timeout::Resolve | Timeout::Connect) => Failure::Unreachable(why),
        Error::Io(e) => match e.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof => {
                Failure::Broken(why)
            }
            _ => Failure::Unreachable(why),
        },
        Error::Timeout(_) | Error::Protocol(_) => Failure::Broken(why),
        _ => Failure::Refused(why),
    }
}
