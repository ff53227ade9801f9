//! How the batches flowed: throughput, what was busy when, how full the queues were, and the start.

use maud::{Markup, html};

use super::record::Record;
use super::{chart_card, lacking};
use crate::report::curve::Curve;
use crate::report::plot::{Bar, Bars, Chart, Line, Strips, Stroke, Unit, WHOLE};
use crate::report::pulse::Pulse;
use crate::report::words;

/// Columns of cells in the timeline at most.
const COLUMNS_MAX: usize = 150;

/// Throughput, timeline, queues and start.
pub fn section(record: &Record) -> Markup {
    html! {
        h2 { "The pipeline" }
        @match &record.timeline {
            Ok(pulses) => { (timeline(pulses)) }
            Err(lack) => {
                (lacking(lack))
                // Steps tell the throughput as well, only less evenly.
                @if let Ok(steps) = &record.steps {
                    div.grid style="margin-top:.8rem" {
                        (chart_card("Throughput", "samples/s", Ok(over_time("samples a second", vec![
                            line("", steps.samples_per_s.smooth(), 0),
                        ])), WHOLE))
                    }
                }
            }
        }
        @if let Ok(summary) = &record.summary { (start(&summary.first_step)) }
    }
}

fn timeline(pulses: &[Pulse]) -> Markup {
    let columns = joined(pulses);
    let curve = |of: fn(&Pulse) -> f64| {
        let mut curve = Curve::default();
        columns.iter().for_each(|pulse| curve.add(pulse.elapsed_s, of(pulse)));
        curve.points()
    };
    let throughput = vec![line("", curve(Pulse::samples_per_s), 0)];
    let mut queues = vec![
        line("full slots that wait for the device", curve(|p| p.full), 0),
        line("passes on the device", curve(|p| p.in_flight), 1),
        line("slots in play", curve(|p| p.slots as f64), 3),
    ];
    queues[2].stroke = Stroke::Faint;
    let ahead = curve(|p| p.ahead_bytes as f64 / 1e6);
    let reads_ahead = ahead.iter().any(|(_, y)| *y > 0.0);
    html! {
        div.grid {
            (chart_card("Throughput", "training samples/s; validation counts as time without any",
                Ok(over_time("samples a second", throughput)), WHOLE))
            div.card.all {
                h3 { "What was busy when" }
                p.note {
                    "Each cell is as dark as its stage was busy; read to upload are the workers, launch is recording \
                    and submitting, device is computing."
                }
                (strips(&columns).figure([WHOLE[0], 190]))
            }
            (chart_card("Queues", "on average over passes", Ok(over_time("slots and passes", queues)), WHOLE))
            @if reads_ahead {
                (chart_card("Read ahead", "MB of samples that wait for a worker",
                    Ok(over_time("megabytes read ahead", vec![line("", ahead, 2)])), WHOLE))
            }
        }
    }
}

/// Pulses put together until they fit into the columns of the timeline.
fn joined(pulses: &[Pulse]) -> Vec<Pulse> {
    let over_s: f64 = pulses.iter().map(|pulse| pulse.over_s).sum();
    let least_s = over_s / COLUMNS_MAX as f64;
    let mut columns: Vec<Pulse> = Vec::with_capacity(COLUMNS_MAX + 1);
    for pulse in pulses {
        match columns.last_mut() {
            Some(last) if last.over_s < least_s => *last = last.and(*pulse),
            _ => columns.push(*pulse),
        }
    }
    columns
}

fn strips(columns: &[Pulse]) -> Strips {
    let shares: Vec<[f64; 6]> = columns.iter().map(Pulse::shares).collect();
    let colours = [2, 2, 4, 5, 3, 1];
    let rows = Pulse::STAGES.iter().zip(colours).enumerate();
    let row = |(at, (name, colour)): (usize, (&&str, usize))| {
        ((*name).to_string(), colour, shares.iter().map(|shares| shares[at]).collect())
    };
    let start = columns.first().map_or(0.0, |first| (first.elapsed_s - first.over_s).max(0.0));
    Strips {
        title: "share of the time in which each stage was busy".into(),
        edges: columns.iter().map(|pulse| pulse.elapsed_s).collect(),
        start,
        rows: rows.map(row).collect(),
    }
}

fn over_time(title: &str, lines: Vec<Line>) -> Chart {
    Chart {
        title: format!("{title} over time"),
        x_unit: Unit::Seconds,
        x_label: "since the run began".into(),
        y_unit: Unit::Number,
        log: false,
        from_zero: true,
        lines,
    }
}

fn line(name: &str, points: Vec<(f64, f64)>, colour: usize) -> Line {
    Line { name: name.into(), points, colour, stroke: Stroke::Line }
}

/// Where the time to the first step went.
fn start(first: &std::collections::BTreeMap<String, f64>) -> Markup {
    let parts = [
        ("open_data_s", "open data"),
        ("plan_s", "plan"),
        ("adapter_s", "open device"),
        ("tune_s", "tune"),
        ("compile_s", "compile"),
        ("first_batch_s", "first batch"),
        ("first_result_s", "first result"),
    ];
    let bar = |(key, name): (&str, &str)| {
        let value = *first.get(key)?;
        let text = words::seconds(value);
        Some(Bar { name: name.into(), value, interval: None, text, colour: 0 })
    };
    let bars: Vec<Bar> = parts.into_iter().filter_map(bar).collect();
    let title = "seconds to the first step".into();
    html! {
        @if !bars.is_empty() {
            div.card style="margin-top:.8rem" {
                h3 { "To the first step" }
                (Bars { title, bars, names_width: 90 }.figure(WHOLE[0]))
            }
        }
    }
}
