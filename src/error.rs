//! The one error of the crate: which stage failed, on which item, why, and what to try.

use std::fmt;
use std::sync::Arc;

/// Where in the way of a batch an error arose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Flags, config files and their combination.
    Config,
    /// Opening and reading a data set.
    Source,
    /// Decoding, augmenting and collating a batch.
    Prepare,
    /// Building and compiling the graph of a model.
    Graph,
    /// Finding and opening an adapter, creating buffers and pipelines.
    Device,
    /// Running steps.
    Compute,
    /// Saving and loading runs, checkpoints and weights.
    Checkpoint,
    /// Fetching data sets.
    Fetch,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Config => "config",
            Stage::Source => "source",
            Stage::Prepare => "prepare",
            Stage::Graph => "graph",
            Stage::Device => "device",
            Stage::Compute => "compute",
            Stage::Checkpoint => "checkpoint",
            Stage::Fetch => "fetch",
        })
    }
}

/// What kind of failure it is; decides the exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A flag, a config key or their combination is wrong (exit code 2).
    Config,
    /// A data set is missing, damaged or does not fit (3).
    Data,
    /// No adapter, too small limits, out of memory, device lost (4).
    Device,
    /// The loss or the gradients stopped being finite (5).
    Diverged,
    /// A checkpoint or a weights file cannot be written, read or trusted (6).
    Checkpoint,
    /// Stopped on request after a checkpoint was saved (75).
    Stopped,
}

impl ErrorKind {
    /// The exit code of the command line.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Config => 2,
            ErrorKind::Data => 3,
            ErrorKind::Device => 4,
            ErrorKind::Diverged => 5,
            ErrorKind::Checkpoint => 6,
            ErrorKind::Stopped => 75,
        }
    }
}

/// An error of any stage. Cheap to clone, since one failure answers every promise in flight.
///
/// Shown as `stage: item: message; try hint`; the cause, where there is one, is in
/// [`source`](std::error::Error::source).
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    stage: Stage,
    kind: ErrorKind,
    item: String,
    message: String,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error; `item` names the file, tensor, flag or sample, `message` says found and expected.
    pub fn new(
        stage: Stage,
        kind: ErrorKind,
        item: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Self {
        Self(Arc::new(Inner {
            stage,
            kind,
            item: in_one_line(&item.to_string()),
            message: in_one_line(&message.to_string()),
            hint: None,
            source: None,
        }))
    }

    /// A wrong flag or config key.
    pub fn config(item: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(Stage::Config, ErrorKind::Config, item, message)
    }

    /// A missing, damaged or unfitting data set.
    pub fn data(item: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(Stage::Source, ErrorKind::Data, item, message)
    }

    /// A model that cannot be built: shapes that do not fit, unknown layers.
    pub fn graph(item: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(Stage::Graph, ErrorKind::Config, item, message)
    }

    /// An adapter, a limit, a buffer or a pipeline.
    pub fn device(item: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(Stage::Device, ErrorKind::Device, item, message)
    }

    /// A checkpoint or weights file.
    pub fn checkpoint(item: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(Stage::Checkpoint, ErrorKind::Checkpoint, item, message)
    }

    /// Adds what to try.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        Arc::make_mut(&mut self.0).hint = Some(in_one_line(&hint.to_string()));
        self
    }

    /// Adds lines to the message, one for each of what it counts.
    pub fn listing(mut self, lines: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        let message = &mut Arc::make_mut(&mut self.0).message;
        message.push(':');
        for line in lines {
            message.push_str("\n  ");
            message.push_str(&in_one_line(&line.to_string()));
        }
        self
    }

    /// Adds the cause.
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// Moves the error to another stage, for example a read failure met while preparing.
    pub fn at(mut self, stage: Stage) -> Self {
        Arc::make_mut(&mut self.0).stage = stage;
        self
    }

    /// Prefixes the item, for example with the sample that was being read.
    pub fn within(mut self, item: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.item = format!("{}: {}", in_one_line(&item.to_string()), inner.item);
        self
    }

    /// Where it arose.
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file, tensor, flag or sample.
    pub fn item(&self) -> &str {
        &self.0.item
    }

    /// What was found and what was expected.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { stage, item, message, hint, .. } = &*self.0;
        write!(f, "{stage}: {item}: {message}")?;
        match hint {
            Some(hint) => write!(f, "; try {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

/// The text with control characters written out, ends of lines too: what files say must not steer a terminal, nor
/// take a line of its own.
pub fn in_one_line(text: &str) -> String {
    written_out(text, &[])
}

/// The text with all control characters written out but `kept`.
pub fn written_out(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !kept.contains(&c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_say_does_not_steer_a_terminal() {
        let error =
            Error::data("a\u{1b}[2J.csv column b\nc", "column \u{9b}31m\0é\n b").hint("\rrm");
        let error = error.within("sample\u{7}\n").listing(["x\n", "\u{1b}y"]);
        let expected = "source: sample\\u{7}\\n: a\\u{1b}[2J.csv column b\\nc: column \\u{9b}31m\\u{0}é\\n b:\n  x\\n\n  \\u{1b}y; try \\rrm";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn shows_stage_item_message_and_hint() {
        let error =
            Error::config("--lr", "found nan, expected a finite number above 0").hint("--lr 0.001");
        assert_eq!(
            error.to_string(),
            "config: --lr: found nan, expected a finite number above 0; try --lr 0.001"
        );
        assert_eq!(error.kind().exit_code(), 2);
    }

    #[test]
    fn keeps_the_cause_in_source() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::data("x.idx", "cannot be read").caused_by(io).within("sample 3");
        assert_eq!(error.item(), "sample 3: x.idx");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause.as_deref(), Some("disk on fire"));
    }
}
