//! What a person sees of a run: a bar on a terminal, else a line an epoch.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use inflight::source::fetch::Progress as Fetching;
use inflight::train::event::{EpochReport, StepReport};
use inflight::train::units::{TextMeasures, Utilisation};

use super::print;

/// Redraws a second: a person does not read faster, and a step can take less than a millisecond.
const DRAWS_PER_S: u8 = 10;

/// The bar of a training.
pub struct TrainProgress {
    bar: ProgressBar,
    epochs: u64,
    /// When the loss was last put beside the bar.
    drawn: Instant,
    /// Samples and time since then.
    samples: u64,
}

impl TrainProgress {
    /// A bar from `done` of `steps` steps; it shows on a terminal, unless `hidden`.
    pub fn new(steps: u64, done: u64, epochs: u64, hidden: bool) -> Self {
        let bar = bar(steps, hidden);
        bar.set_style(style("{prefix} [{bar:30}] step {human_pos}/{human_len} {msg} · {eta} left"));
        bar.set_position(done);
        bar.reset_eta();
        bar.set_prefix(format!("epoch 1/{epochs}"));
        bar.tick();
        Self { bar, epochs, drawn: Instant::now(), samples: 0 }
    }

    /// A step was applied.
    pub fn step(&mut self, report: &StepReport) {
        self.bar.set_position(report.step);
        self.samples += report.samples;
        let passed = self.drawn.elapsed();
        if self.bar.is_hidden() || passed < Duration::from_secs(1) / u32::from(DRAWS_PER_S) {
            return;
        }
        let accuracy = report.accuracy.map(|a| format!(" acc {}", print::percent(a)));
        self.bar.set_prefix(format!("epoch {}/{}", report.epoch + 1, self.epochs));
        self.bar.set_message(format!(
            "loss {:.4}{} · {} samples/s",
            report.loss,
            accuracy.unwrap_or_default(),
            print::rate(self.samples as f64 / passed.as_secs_f64())
        ));
        (self.drawn, self.samples) = (Instant::now(), 0);
    }

    /// An epoch ended: a line that stays.
    pub fn epoch(&self, report: &EpochReport) {
        self.line(epoch_line(report, self.epochs));
    }

    /// A line that stays above the bar.
    pub fn line(&self, line: String) {
        self.bar.suspend(|| print::note(line));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// What is said of an epoch of `epochs`.
pub fn epoch_line(report: &EpochReport, epochs: u64) -> String {
    let train = measures(Some(report.loss), report.accuracy);
    let test = match report.val_loss {
        Some(_) => format!(" · test {}", measures(report.val_loss, report.val_accuracy)),
        None => String::new(),
    };
    let text = text_measures(&report.text);
    let rate = match report.text.tokens_per_s {
        Some(tokens_per_s) => {
            let tokens_per_s = print::rate(tokens_per_s);
            format!("{tokens_per_s} tokens/s{}", utilised(&report.utilisation))
        }
        None => format!("{} samples/s", print::rate(report.samples_per_s)),
    };
    format!(
        "epoch {}/{epochs}: train {train}{test}{text} · {rate} · {:.1} s",
        report.epoch + 1,
        report.elapsed_s,
    )
}

/// `, perplexity 5.21, 2.381 bits a byte`, of text; else nothing.
pub fn text_measures(text: &TextMeasures) -> String {
    let perplexity = text.perplexity.map(|x| format!(", perplexity {x:.2}"));
    let bits = text.bits_per_byte.map(|x| format!(", {x:.3} bits a byte"));
    [perplexity, bits].into_iter().flatten().collect()
}

/// ` (41 % of the device)`, where it is known how much the device can do; else nothing.
pub fn utilised(found: &Utilisation) -> String {
    found.mfu.map_or(String::new(), |mfu| format!(" ({:.0} % of the device)", 100.0 * mfu))
}

/// `loss 0.2954, accuracy 89.41 %`.
pub fn measures(loss: Option<f64>, accuracy: Option<f64>) -> String {
    let loss = loss.map(|loss| format!("loss {loss:.4}"));
    let accuracy = accuracy.map(|accuracy| format!("accuracy {}", print::percent(accuracy)));
    [loss, accuracy].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The bar of a fetch: one for each file, with where it comes from.
pub struct FetchProgress {
    bar: ProgressBar,
}

impl FetchProgress {
    /// A bar that shows on a terminal, as soon as something is fetched.
    pub fn new() -> Self {
        let bar = bar(0, false);
        bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} · {eta} left"));
        Self { bar }
    }

    /// Bytes have arrived.
    pub fn update(&self, fetching: &Fetching<'_>) {
        self.bar.set_length(fetching.total_bytes);
        self.bar.set_position(fetching.done_bytes);
        self.bar.set_message(format!("{} from {}", fetching.file, fetching.place));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The bar of a conversion.
pub struct ConvertProgress {
    bar: ProgressBar,
}

impl ConvertProgress {
    /// A bar that shows on a terminal.
    pub fn new() -> Self {
        let bar = bar(0, false);
        bar.set_style(style("[{bar:30}] sample {human_pos}/{human_len} · {per_sec} · {eta} left"));
        Self { bar }
    }

    /// So many samples of `total` are in shards.
    pub fn update(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn bar(length: u64, hidden: bool) -> ProgressBar {
    let target = if hidden || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S)
    };
    ProgressBar::with_draw_target(Some(length), target)
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants: a slip in one shows in every run, and then as the plain bar.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
