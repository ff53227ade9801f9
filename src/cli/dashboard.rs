//! The dashboard of a training in a terminal: curves, what is busy, queues, and when it ends.

use std::collections::VecDeque;

use inflight::report::curve::Curve;
use inflight::report::plot::{Unit, short};
use inflight::report::pulse::Pulse;
use inflight::train::event::{EpochReport, Event, StepReport};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Sparkline};

use super::print;
use super::progress::{epoch_line, measures};

/// Lines that are kept: what fits on a tall terminal.
const LINES_MAX: usize = 200;
/// Pulses of the throughput that are kept: what fits on a wide terminal.
const RATES_MAX: usize = 400;
/// Weight of a new pulse in the speed that the end is estimated by.
const NEW_WEIGHT: f64 = 0.1;
/// Rows of the bars of stages and queues, with their border.
const PIPELINE_ROWS: u16 = 10;
/// Rows of the smallest chart that says anything.
const CHART_ROWS_MIN: u16 = 8;

/// What the dashboard shows.
pub struct Dashboard {
    title: String,
    steps: u64,
    epochs: u64,
    step: u64,
    loss: Curve,
    accuracy: Curve,
    val_loss: Vec<(f64, f64)>,
    val_accuracy: Vec<(f64, f64)>,
    last: Option<StepReport>,
    last_epoch: Option<EpochReport>,
    pulse: Pulse,
    rates: VecDeque<u64>,
    /// Steps a second, lately.
    speed: Option<f64>,
    lines: VecDeque<String>,
}

impl Dashboard {
    /// The dashboard of a run that goes on from `done` of `steps` steps.
    pub fn new(title: String, steps: u64, done: u64, epochs: u64) -> Self {
        Self {
            title,
            steps,
            epochs,
            step: done,
            loss: Curve::default(),
            accuracy: Curve::default(),
            val_loss: Vec::new(),
            val_accuracy: Vec::new(),
            last: None,
            last_epoch: None,
            pulse: Pulse::default(),
            rates: VecDeque::new(),
            speed: None,
            lines: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Step(report) => {
                let x = report.step as f64;
                self.loss.add(x, report.loss);
                report.accuracy.into_iter().for_each(|y| self.accuracy.add(x, y));
                self.step = report.step;
                self.last = Some(*report);
            }
            Event::Epoch(report) => {
                let x = report.step as f64;
                self.val_loss.extend(report.val_loss.map(|y| (x, y)));
                self.val_accuracy.extend(report.val_accuracy.map(|y| (x, y)));
                self.last_epoch = Some(*report);
            }
            Event::Pulse(pulse) => self.take_pulse(**pulse),
            Event::Checkpoint(saved) => {
                self.line(format!(
                    "saved step {} ({})",
                    print::count(saved.step),
                    print::bytes(saved.bytes)
                ));
            }
            Event::Done(_) => {}
        }
    }

    fn take_pulse(&mut self, pulse: Pulse) {
        if pulse.over_s <= 0.0 {
            return;
        }
        let steps = pulse.step.saturating_sub(self.pulse.step.min(pulse.step));
        // The first pulse of a resumed run begins with the steps before it.
        if self.pulse.over_s > 0.0 {
            let speed = steps as f64 / pulse.over_s;
            self.speed = Some(match self.speed {
                Some(before) => before + NEW_WEIGHT * (speed - before),
                None => speed,
            });
        }
        self.pulse = pulse;
        self.rates.push_back(pulse.samples_per_s() as u64);
        if self.rates.len() > RATES_MAX {
            self.rates.pop_front();
        }
    }

    /// What is said of an epoch.
    pub fn epoch_line(&self, report: &EpochReport) -> String {
        epoch_line(report, self.epochs)
    }

    /// The lines that were shown, in order.
    pub fn said(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }

    /// A line that stays until there are too many.
    pub fn line(&mut self, line: String) {
        self.lines.push_back(line);
        if self.lines.len() > LINES_MAX {
            self.lines.pop_front();
        }
    }

    /// Draws it all; small terminals get less.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let rows = frame.area().height;
        let pipeline = if rows >= PIPELINE_ROWS + CHART_ROWS_MIN + 4 { PIPELINE_ROWS } else { 0 };
        let lines = if rows >= 24 { (rows / 5).clamp(3, 8) } else { 2.min(rows / 8) };
        let [head, progress, charts, stages, tail] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(0),
            Constraint::Length(pipeline),
            Constraint::Length(lines),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        frame.render_widget(self.progress(), progress);
        self.draw_charts(frame, charts);
        if pipeline > 0 {
            let [left, right] =
                Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(stages);
            self.draw_stages(frame, left);
            self.draw_queues(frame, right);
        }
        self.draw_lines(frame, tail);
    }

    fn head(&self) -> Line<'_> {
        let mut parts = vec![Span::styled(&*self.title, Style::new().add_modifier(Modifier::BOLD))];
        if let Some(last) = &self.last {
            parts.push(format!("  {}", measures(Some(last.loss), last.accuracy)).into());
            parts.push(format!(" · lr {}", short(last.lr)).into());
        }
        Line::from(parts)
    }

    fn progress(&self) -> Gauge<'_> {
        let share = if self.steps > 0 { self.step as f64 / self.steps as f64 } else { 0.0 };
        let epoch = self.last.map_or(1, |last| last.epoch + 1);
        let left = self.left_s().map_or("…".into(), |s| format!("{} left", time(s)));
        let label = format!(
            "epoch {epoch}/{} · step {}/{} · {left}",
            self.epochs,
            print::count(self.step),
            print::count(self.steps)
        );
        Gauge::default()
            .ratio(share.clamp(0.0, 1.0))
            .label(label)
            // The label takes the two colours the other way round, and must be read on both.
            .gauge_style(Style::new().fg(Color::Cyan).bg(Color::Black))
    }

    /// Seconds until the last step, as fast as it went lately.
    fn left_s(&self) -> Option<f64> {
        let speed = self.speed.filter(|speed| *speed > 0.0)?;
        Some(self.steps.saturating_sub(self.step) as f64 / speed)
    }

    fn draw_charts(&self, frame: &mut Frame<'_>, area: Rect) {
        if area.height < 4 {
            return;
        }
        if self.accuracy.is_empty() || area.width < 72 {
            return draw_chart(frame, area, "loss", Unit::Number, &self.loss, &self.val_loss);
        }
        let [left, right] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
        draw_chart(frame, left, "loss", Unit::Number, &self.loss, &self.val_loss);
        draw_chart(frame, right, "accuracy", Unit::Share, &self.accuracy, &self.val_accuracy);
    }

    fn draw_stages(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = framed(" busy ".into());
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let bar_cells = usize::from(inner.width.saturating_sub(16));
        let shares = Pulse::STAGES.iter().zip(self.pulse.shares());
        let mut rows: Vec<Line<'_>> = shares
            .map(|(stage, share)| {
                let colour = match *stage {
                    "device" => Color::Yellow,
                    "launch" => Color::Magenta,
                    _ => Color::Cyan,
                };
                Line::from(vec![
                    format!(" {stage:<8}").into(),
                    Span::styled(bar(share, bar_cells), colour),
                    format!(" {:>4.0} %", 100.0 * share).into(),
                ])
            })
            .collect();
        rows.push(Line::from(""));
        let starved = self.pulse.starved_s / self.pulse.over_s.max(1e-9);
        rows.push(Line::from(format!(
            " device waits for batches {:>3.0} %",
            100.0 * starved.min(1.0)
        )));
        frame.render_widget(Paragraph::new(rows), inner);
    }

    fn draw_queues(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = framed(" flow ".into());
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let [text, spark] =
            Layout::vertical([Constraint::Length(6), Constraint::Min(0)]).areas(inner);
        let pulse = &self.pulse;
        let slots = pulse.slots as usize;
        let flying = (pulse.in_flight.round() as usize).min(slots);
        let full = (pulse.full.round() as usize).min(slots - flying);
        let empty = slots - flying - full;
        // A ring of hundreds of slots is only told.
        let ring = if slots <= 24 {
            vec![
                Span::styled("■ ".repeat(flying), Color::Yellow),
                Span::styled("■ ".repeat(full), Color::Cyan),
                Span::styled("□ ".repeat(empty), Color::DarkGray),
            ]
        } else {
            Vec::new()
        };
        let ring: Vec<Span<'_>> = std::iter::once(Span::from(" slots    ")).chain(ring).collect();
        let ahead = match pulse.ahead_bytes {
            0 => String::new(),
            bytes => format!(" · {} read ahead", print::bytes(bytes)),
        };
        let rows = vec![
            Line::from(ring),
            Line::from(format!(
                " on the device {:.1} · full {:.1} of {slots}",
                pulse.in_flight, pulse.full
            )),
            Line::from(format!(" workers {}{ahead}", pulse.workers)),
            Line::from(""),
            Line::from(format!(" {} samples/s", print::rate(pulse.samples_per_s()))),
        ];
        frame.render_widget(Paragraph::new(rows), text);
        let shown = self.rates.len().saturating_sub(usize::from(spark.width));
        let rates: Vec<u64> = self.rates.iter().skip(shown).copied().collect();
        frame.render_widget(Sparkline::default().data(rates).style(Color::Green), spark);
    }

    fn draw_lines(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = usize::from(area.height);
        if rows == 0 {
            return;
        }
        let shown = self.lines.len().saturating_sub(rows - 1);
        let mut lines: Vec<Line<'_>> =
            self.lines.iter().skip(shown).map(|line| Line::from(&**line)).collect();
        lines.resize(rows - 1, Line::default());
        let hint = "Ctrl-C ends the run after the step under way and saves it";
        lines.push(Line::styled(hint, Color::DarkGray));
        frame.render_widget(Paragraph::new(lines), area);
    }
}

/// A frame with a title that is brighter than itself.
fn framed(title: String) -> Block<'static> {
    let title = Span::styled(title, Color::White);
    Block::bordered().title(title).border_style(Color::DarkGray)
}

/// A bar of so many cells, to an eighth of a cell.
fn bar(share: f64, cells: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * 8.0 * cells as f64).round() as usize;
    let mut text = "█".repeat(eighths / 8);
    text.push_str(EIGHTHS[eighths % 8]);
    let used = text.chars().count();
    text.push_str(&" ".repeat(cells - used));
    text
}

fn draw_chart(
    frame: &mut Frame<'_>,
    area: Rect,
    name: &str,
    unit: Unit,
    train: &Curve,
    val: &[(f64, f64)],
) {
    let points = train.smooth();
    let all = || points.iter().chain(val).filter(|(_, y)| y.is_finite());
    let span = |of: fn(&(f64, f64)) -> f64| {
        all().map(of).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
    };
    let ((x0, x1), (y0, y1)) = (span(|p| p.0), span(|p| p.1));
    let title =
        if val.is_empty() { format!(" {name} ") } else { format!(" {name} · ● validation ") };
    let block = framed(title);
    if !x0.is_finite() || !y0.is_finite() {
        return frame
            .render_widget(Paragraph::new(" waiting for the first step").block(block), area);
    }
    let x1 = if x1 > x0 { x1 } else { x0 + 1.0 };
    let room = ((y1 - y0) * 0.05).max(y1.abs() * 1e-3).max(1e-9);
    let (y0, y1) = (y0 - room, y1 + room);
    let datasets = vec![
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Color::LightBlue)
            .data(&points),
        Dataset::default()
            .marker(Marker::Dot)
            .graph_type(GraphType::Scatter)
            .style(Color::LightRed)
            .data(val),
    ];
    let axis = |low: f64, high: f64, unit: Unit| {
        let labels = [low, (low + high) / 2.0, high].map(|x| Line::from(unit.label(x)));
        Axis::default().bounds([low, high]).labels(labels).style(Color::Gray)
    };
    let steps = Axis::default()
        .bounds([x0, x1])
        .labels([x0, x1].map(|x| Line::from(print::count(x as u64))))
        .style(Color::DarkGray);
    let chart = Chart::new(datasets).block(block).x_axis(steps).y_axis(axis(y0, y1, unit));
    frame.render_widget(chart, area);
}

/// A time that is left.
fn time(s: f64) -> String {
    let s = s.ceil() as u64;
    match s {
        s if s >= 3600 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        s if s >= 60 => format!("{} min {:02} s", s / 60, s % 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn run() -> Dashboard {
        let mut dashboard = Dashboard::new("faces · cnn · Radeon".into(), 400, 0, 4);
        for step in 1..=150u64 {
            let loss = 3.0 / (1.0 + step as f64 / 20.0);
            let accuracy = Some(1.0 - loss / 3.0);
            let report = StepReport {
                step,
                epoch: step / 100,
                loss,
                accuracy,
                lr: 0.01,
                ..Default::default()
            };
            dashboard.event(&Event::Step(report));
            if step % 5 == 0 {
                let pulse = Pulse {
                    step,
                    over_s: 0.2,
                    samples: 640,
                    decode_s: 0.3,
                    device_s: 0.1,
                    launch_s: 0.01,
                    starved_s: 0.05,
                    full: 2.0,
                    in_flight: 1.0,
                    slots: 6,
                    workers: 2,
                    ..Default::default()
                };
                dashboard.event(&Event::Pulse(Box::new(pulse)));
            }
        }
        let epoch = EpochReport {
            step: 100,
            val_loss: Some(1.0),
            val_accuracy: Some(0.7),
            ..Default::default()
        };
        dashboard.event(&Event::Epoch(epoch));
        dashboard.line("epoch 1/4: train loss 1.2".into());
        dashboard
    }

    fn screen(dashboard: &Dashboard, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| dashboard.draw(frame)).expect("draws");
        terminal.backend().to_string()
    }

    #[test]
    fn shows_curves_stages_queues_and_the_end() {
        let text = screen(&run(), 100, 32);
        for part in [
            "faces · cnn · Radeon",
            "loss 0.3529",
            "lr 0.01",
            "epoch 2/4 · step 150/400",
            // 25 steps a second, 250 to go.
            "10 s left",
            " loss · ● validation ",
            " accuracy · ● validation ",
            "decode",
            "75 %",
            "device waits for batches  25 %",
            "■ ■ ■ □ □ □",
            "on the device 1.0 · full 2.0 of 6",
            "workers 2",
            "3,200 samples/s",
            "epoch 1/4: train loss 1.2",
            "Ctrl-C",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        // Braille dots and the points of the validation.
        assert!(text.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
        assert!(text.contains('•') || text.contains('●'), "{text}");
    }

    #[test]
    fn draws_at_any_size_and_before_the_first_step() {
        let (empty, full) = (Dashboard::new("new".into(), 0, 0, 1), run());
        for width in [1, 20, 40, 71, 80, 200] {
            for height in [1, 2, 5, 10, 24, 60] {
                screen(&empty, width, height);
                screen(&full, width, height);
            }
        }
        assert!(screen(&empty, 80, 24).contains("waiting for the first step"));
    }

    #[test]
    fn bars_are_as_long_as_their_share() {
        assert_eq!([bar(0.0, 4), bar(0.5, 4), bar(1.0, 4)], ["    ", "██  ", "████"]);
        assert_eq!(bar(0.28, 4), "█▏  ");
        assert_eq!([time(9.2), time(61.0), time(3725.0)], ["10 s", "1 min 01 s", "1 h 02 min"]);
    }
}
