//! Loss and the other curves over steps.

use maud::{Markup, html};

use super::chart_card;
use super::record::{Found, Record, Steps};
use crate::report::curve::Curve;
use crate::report::plot::{Chart, HALF, Line, Stroke, Unit};
use crate::report::words;
use crate::train::event::EpochReport;

/// Loss, accuracy, learning rate, norm of the gradients, and a table of epochs.
pub fn section(record: &Record) -> Markup {
    let steps = record.steps.as_ref().map_err(Clone::clone);
    let epochs = record.epochs.as_deref().unwrap_or_default();
    let val = |of: fn(&EpochReport) -> Option<f64>| {
        let points = epochs.iter().filter_map(|e| Some((e.step as f64, of(e)?)));
        points.filter(|(_, y)| y.is_finite()).collect::<Vec<_>>()
    };
    let loss = steps.clone().map(|steps| {
        let log = steps.loss.points().iter().all(|(_, y)| *y > 0.0);
        chart("loss", Unit::Number, log, &steps.loss, val(|e| e.val_loss))
    });
    let accuracy = steps.clone().map(|steps| {
        chart("accuracy", Unit::Share, false, &steps.accuracy, val(|e| e.val_accuracy))
    });
    let plain = |name, curve: fn(&Steps) -> &Curve, log: bool| {
        steps.clone().map(|steps| Chart {
            from_zero: !log,
            lines: vec![line("", curve(steps).points(), 3, Stroke::Line)],
            ..chart(name, Unit::Number, log, &Curve::default(), Vec::new())
        })
    };
    let not_finite = record.steps.as_ref().map_or(0, |steps| steps.not_finite);
    html! {
        h2 { "Learning" }
        div.grid {
            (chart_card("Loss", "", loss, HALF))
            (optional("Accuracy", accuracy))
            (optional("Learning rate", plain("learning rate", |s| &s.lr, false)))
            (optional("Norm of the gradients", plain("norm of the gradients", |s| &s.grad_norm, true)))
        }
        @if not_finite > 0 {
            p.note { (words::count(not_finite)) " steps had a loss that is not finite; they are not drawn." }
        }
        (table(epochs))
    }
}

/// A card only where there is something to show: that steps are missing is said once.
fn optional(title: &str, chart: Found<Chart>) -> Markup {
    chart.map_or_else(|_| html! {}, |chart| chart_card(title, "", Ok(chart), HALF))
}

/// A curve of training with its smooth line, and the points of validations.
fn chart(title: &str, y_unit: Unit, log: bool, train: &Curve, val: Vec<(f64, f64)>) -> Chart {
    Chart {
        title: format!("{title} over steps"),
        x_unit: Unit::Number,
        x_label: "step".into(),
        y_unit,
        log,
        from_zero: false,
        lines: vec![
            line("", train.points(), 0, Stroke::Faint),
            line("training", train.smooth(), 0, Stroke::Line),
            line(if val.is_empty() { "" } else { "validation" }, val, 1, Stroke::Dots),
        ],
    }
}

fn line(name: &str, points: Vec<(f64, f64)>, colour: usize, stroke: Stroke) -> Line {
    Line { name: name.into(), points, colour, stroke }
}

/// Epochs in the table; of more, the first and the last ones.
const ROWS_MAX: usize = 24;

fn table(epochs: &[EpochReport]) -> Markup {
    let shown = |at: usize| {
        epochs.len() <= ROWS_MAX || at < ROWS_MAX / 2 || at >= epochs.len() - ROWS_MAX / 2
    };
    let validated = epochs.iter().any(|e| e.val_loss.is_some());
    let classifies = epochs.iter().any(|e| e.accuracy.is_some());
    let optional = |x: Option<f64>, words: fn(f64) -> String| x.map_or("—".into(), words);
    html! {
        @if !epochs.is_empty() {
            div.card.scroll style="margin-top:.8rem" {
                table.list {
                    tr {
                        th.name { "epoch" } th { "step" } th { "loss" }
                        @if classifies { th { "accuracy" } }
                        @if validated { th { "val loss" } }
                        @if validated && classifies { th { "val accuracy" } }
                        th { "samples/s" } th { "at" }
                    }
                    @for (at, e) in epochs.iter().enumerate() {
                        @if shown(at) {
                            tr {
                                td.name { (e.epoch + 1) }
                                td { (words::count(e.step)) }
                                td { (words::number(e.loss)) }
                                @if classifies { td { (optional(e.accuracy, words::percent)) } }
                                @if validated { td { (optional(e.val_loss, words::number)) } }
                                @if validated && classifies { td { (optional(e.val_accuracy, words::percent)) } }
                                td { (words::rate(e.samples_per_s)) }
                                td { (words::seconds(e.elapsed_s)) }
                            }
                        } @else if at == ROWS_MAX / 2 {
                            tr { td.name colspan="8" { "… " (epochs.len() - ROWS_MAX) " more" } }
                        }
                    }
                }
            }
        }
    }
}
