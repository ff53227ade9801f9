//! Printing: the two streams, and how numbers look to people.

use std::error::Error as _;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use inflight::batch::DType;
use inflight::error::{in_one_line, written_out};
use inflight::report::words;
pub use inflight::report::words::{bytes, duration};
use inflight::{Error, Result};
use serde::Serialize;

/// Lines of data, to stdout. A reader that went away (`inflight … | head`) ends the program quietly.
pub fn data(lines: impl std::fmt::Display) {
    to_stdout(&plain(&lines.to_string()));
}

fn to_stdout(line: &str) {
    if !IS_UNREAD.load(Ordering::Relaxed) {
        written(writeln!(std::io::stdout(), "{line}"));
    }
}

/// Whether stdout failed in a program that goes on without it.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);

/// Whom to tell of an error.
type Told = Box<dyn Fn(&std::io::Error) + Send + Sync>;

/// Who is told when stdout fails, where the program is to go on without it.
static HEIR: OnceLock<Told> = OnceLock::new();

/// From now on the program does not end where its data cannot be written: `heir` is told once, and nothing more is written.
pub fn outlive_stdout(heir: impl Fn(&std::io::Error) + Send + Sync + 'static) {
    let _ = HEIR.set(Box::new(heir));
}

/// Ends the program where what it writes goes nowhere, quietly where nobody reads it any more; unless there is an heir.
fn written(outcome: std::io::Result<()>) {
    let Err(cause) = outcome else { return };
    if let Some(heir) = HEIR.get() {
        if !IS_UNREAD.swap(true, Ordering::Relaxed) {
            heir(&cause);
        }
        return;
    }
    if cause.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    error(&Error::config("stdout", "cannot be written").caused_by(cause));
    std::process::exit(i32::from(inflight::ErrorKind::Config.exit_code()));
}

/// A line of JSON, to stdout.
pub fn json(value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value)
        .map_err(|e| Error::config("--json", "a value cannot be written as JSON").caused_by(e))?;
    to_stdout(&plain_json(&line));
    Ok(())
}

/// A part of a text that a model makes, to stdout at once: as it is into a file or another program, [`plain`] onto a
/// terminal.
pub fn text(part: &str) {
    let mut out = std::io::stdout().lock();
    let part = if out.is_terminal() { &plain(part) } else { part };
    written(out.write_all(part.as_bytes()).and_then(|()| out.flush()));
}

/// Lines as a terminal may show them: what files say must not steer it.
fn plain(lines: &str) -> String {
    written_out(lines, &['\n', '\t'])
}

/// The same JSON, without the control characters that it may hold as they are: DEL, and those from U+0080 on.
fn plain_json(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        if c.is_control() {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether what people read is written as lines of JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Lines that a dashboard shows instead, while there is one.
static CAPTURED: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// How lines for people are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// As they are
    #[default]
    Text,
    /// Each as an object of JSON with time, level and message; epochs and checkpoints with their numbers
    Json,
}

impl LogFormat {
    /// From now on.
    pub fn apply(self) {
        JSON.store(self == LogFormat::Json, Ordering::Relaxed);
    }
}

/// Whether what people read is written as lines of JSON.
pub fn logs_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// A line for people, to stderr. Whoever closed stderr does not want it.
pub fn note(line: impl std::fmt::Display) {
    if logs_json() {
        return log_message("info", &line.to_string());
    }
    let line = plain(&line.to_string());
    if let Some(captured) = &mut *captive() {
        return captured.push(line);
    }
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn captive() -> MutexGuard<'static, Option<Vec<String>>> {
    CAPTURED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has lines for people wait for [`captured`] from now on, until [`release`].
#[cfg(feature = "tui")]
pub fn capture() {
    *captive() = Some(Vec::new());
}

/// The lines since the last call.
#[cfg(feature = "tui")]
pub fn captured() -> Vec<String> {
    captive().as_mut().map(std::mem::take).unwrap_or_default()
}

/// Writes lines for people again, those that still wait first.
#[cfg(feature = "tui")]
pub fn release() {
    let waiting = captive().take();
    waiting.into_iter().flatten().for_each(note);
}

/// Something with numbers for a log of JSON, to stderr.
pub fn log(value: &impl Serialize) -> Result<()> {
    #[derive(Serialize)]
    struct Entry<'a, T> {
        time: f64,
        level: &'static str,
        #[serde(flatten)]
        value: &'a T,
    }
    let line = serde_json::to_string(&Entry { time: now_s(), level: "info", value })
        .map_err(|e| Error::config("--log-format", "a value is no JSON").caused_by(e))?;
    let _ = writeln!(std::io::stderr(), "{}", plain_json(&line));
    Ok(())
}

fn log_message(level: &str, message: &str) {
    let entry = serde_json::json!({ "time": now_s(), "level": level, "message": message });
    let _ = writeln!(std::io::stderr(), "{}", plain_json(&entry.to_string()));
}

/// Seconds since 1970, to the millisecond.
fn now_s() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_millis() as f64 / 1e3)
}

/// An error with its causes, in one line, to stderr.
pub fn error(error: &Error) {
    let mut line = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    let line = in_one_line(&one_line(&line));
    match logs_json() {
        true => log_message("error", line.trim_start_matches("error: ")),
        false => note(line),
    }
}

/// Joins the lines of a message that lists things.
fn one_line(text: &str) -> String {
    let joined = text.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    joined.replace(":; ", ": ")
}

/// A whole number with its thousands apart: `60,000`.
pub fn count(number: impl TryInto<u64>) -> String {
    number.try_into().map_or_else(|_| "?".into(), words::count)
}

/// A rate, rounded to a whole number unless it is small.
pub fn rate(per_s: f64) -> String {
    if per_s < 100.0 { format!("{per_s:.1}") } else { count(per_s.round() as u64) }
}

/// A number with a unit and its prefix: `76.3 Gflop/s`.
pub fn amount(number: f64, unit: &str) -> String {
    let prefixes = ["", "k", "M", "G", "T", "P"];
    let mut shown = number;
    let mut prefix = 0;
    while shown >= 999.95 && prefix + 1 < prefixes.len() {
        shown /= 1e3;
        prefix += 1;
    }
    format!("{shown:.1} {}{unit}", prefixes[prefix])
}

/// A share in percent: `91.25 %`.
pub fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A shape: `1 × 28 × 28`.
pub fn shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ")
}

/// A type of elements, as in Rust: `u8`.
pub fn dtype(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [count(7u64), count(1_234u64), count(1_234_567u64)],
            ["7", "1,234", "1,234,567"]
        );
        assert_eq!(count(100_000usize), "100,000");
        assert_eq!([rate(3.06), rate(12_345.6)], ["3.1", "12,346"]);
        assert_eq!(
            [bytes(999), bytes(1_000), bytes(30_900_000), bytes(999_960_000), bytes(5_000_000_000)],
            ["999 bytes", "1.0 kB", "30.9 MB", "1.0 GB", "5.0 GB"]
        );
        assert_eq!([amount(7.26e10, "B/s"), amount(12.0, "x")], ["72.6 GB/s", "12.0 x"]);
        assert_eq!(amount(999_960.0, "flop/s"), "1.0 Mflop/s");
        assert_eq!(
            [duration(0.000_012_34), duration(0.999_6e-3), duration(0.25), duration(1.5)],
            ["12.3 µs", "1.00 ms", "250.00 ms", "1.500 s"]
        );
        assert_eq!(plain("a\u{1b}[2J\tb\n\u{9b}c\r"), "a\\u{1b}[2J\tb\n\\u{9b}c\\r");
        assert_eq!(plain_json("\"\u{7f}é\u{9b}\""), r#""\u007fé\u009b""#);
        assert_eq!(one_line("these differ:\n  a\n  b"), "these differ: a; b");
        assert_eq!(shape(&[1, 28, 28]), "1 × 28 × 28");
    }
}
