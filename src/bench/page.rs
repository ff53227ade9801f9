//! One self-contained page over results of several devices: bars for every workload, what each device is, what it can do at
//! best. No script, no network; the same style as the page of a run.

use maud::{Markup, html};

use super::results::{Results, Workload};
use crate::report::page::document;
use crate::report::plot::{self, Bar, Bars};
use crate::report::words::duration;

const TITLE: &str = "Devices beside each other";

/// The page of some results, each under its name.
pub fn page(all: &[(String, Results)]) -> String {
    let head = html! {
        header.top {
            h1 { (TITLE) }
            p.sub { (subtitle(all)) }
            (legend(all))
        }
    };
    let main = html! {
        (throughput(all, "train/", "Steps of models", "Batches in place; samples a second."))
        (throughput(all, "pipeline/", "The pipeline", "Preparing batches, and training with all of it; samples a second."))
        (ceilings(all))
        (kernels(all))
        (devices(all))
    };
    document(TITLE, head, main)
}

fn subtitle(all: &[(String, Results)]) -> String {
    let count = all.len();
    let versions: std::collections::BTreeSet<u32> =
        all.iter().map(|(_, results)| results.suite_version).collect();
    let versions: Vec<String> = versions.iter().map(u32::to_string).collect();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} result{plural} · suite {} · medians with 95 % intervals", versions.join(", "))
}

/// Which colour is which result.
fn legend(all: &[(String, Results)]) -> Markup {
    html! {
        div.legend {
            @for (i, (name, results)) in all.iter().enumerate() {
                span { i class={ "s" (i % 6 + 1) } {} (name) ": " (results.device.name) " (" (results.device.kind) ")" }
            }
        }
    }
}

/// All workloads of a part, in the order of the first result that has them.
fn ids<'a>(all: &'a [(String, Results)], part: &str) -> Vec<&'a str> {
    let mut ids: Vec<&str> = Vec::new();
    for workload in all.iter().flat_map(|(_, results)| &results.workloads) {
        if workload.id.starts_with(part) && !ids.contains(&workload.id.as_str()) {
            ids.push(&workload.id);
        }
    }
    ids
}

fn of<'a>(results: &'a Results, id: &str) -> Option<&'a Workload> {
    results.workloads.iter().find(|workload| workload.id == id)
}

/// A card for each workload of a part that has samples: a bar for each result.
fn throughput(all: &[(String, Results)], part: &str, title: &str, note: &str) -> Markup {
    let ids = ids(all, part);
    html! {
        @if !ids.is_empty() {
            h2 { (title) }
            p.note { (note) }
            div.grid {
                @for id in ids {
                    div.card { h3 { (id) } (rates(all, id).figure(plot::HALF[0])) }
                }
            }
        }
    }
}

/// Samples a second of a workload, a bar for each result.
fn rates(all: &[(String, Results)], id: &str) -> Bars {
    let bar = |(i, (name, results)): (usize, &(String, Results))| {
        let workload = of(results, id)?;
        let per_s = |seconds: f64| workload.samples as f64 / seconds;
        let value = per_s(workload.time_s.median);
        Some(Bar {
            name: name.clone(),
            value,
            // The shortest time is the highest rate.
            interval: Some((per_s(workload.time_s.high), per_s(workload.time_s.low))),
            text: plot::short(value),
            colour: i,
        })
    };
    let bars = all.iter().enumerate().filter_map(bar).collect();
    Bars { title: format!("samples a second of {id}"), bars, names_width: 120 }
}

/// What each device can do at best.
fn ceilings(all: &[(String, Results)]) -> Markup {
    let rows = [
        ("bytes_per_s", "Memory, bytes a second"),
        ("f32_flops_per_s", "Multiply-adds f32, operations a second"),
        ("f16_flops_per_s", "Multiply-adds f16, operations a second"),
        ("matrix_flops_per_s", "Matrix units, operations a second"),
    ];
    let bars = |key: &str, title: &str| {
        let bar = |(i, (name, results)): (usize, &(String, Results))| {
            let &value = results.ceilings.get(key)?;
            let text = format!("{:.1} G", value / 1e9);
            Some(Bar { name: name.clone(), value, interval: None, text, colour: i })
        };
        let bars = all.iter().enumerate().filter_map(bar).collect();
        Bars { title: title.into(), bars, names_width: 120 }
    };
    html! {
        h2 { "At best" }
        p.note { "Measured in the same run: a streaming copy, and multiply-adds in registers." }
        div.grid {
            @for (key, title) in rows {
                @let bars = bars(key, title);
                @if !bars.bars.is_empty() { div.card { h3 { (title) } (bars.figure(plot::HALF[0])) } }
            }
        }
    }
}

/// A table of all kernels: too many for bars.
fn kernels(all: &[(String, Results)]) -> Markup {
    let ids = ids(all, "kernels/");
    html! {
        @if !ids.is_empty() {
            h2 { "Kernels" }
            p.note { "Time of one run, and the share of what the device can do at best." }
            div.card.scroll {
                table.list {
                    tr { th.name { "kernel" } @for (name, _) in all { th { (name) } } }
                    @for id in ids {
                        tr {
                            td.name { (id.trim_start_matches("kernels/")) }
                            @for (_, results) in all { td { (cell(of(results, id))) } }
                        }
                    }
                }
            }
        }
    }
}

fn cell(workload: Option<&Workload>) -> String {
    let Some(workload) = workload else { return "–".into() };
    let share = workload.share.map(|share| format!(" · {:.0} %", 100.0 * share));
    format!("{}{}", duration(workload.time_s.median), share.unwrap_or_default())
}

/// What each result is of.
fn devices(all: &[(String, Results)]) -> Markup {
    html! {
        h2 { "What was measured" }
        div.grid {
            @for (name, results) in all {
                div.card {
                    h3 { (name) }
                    ul.plain {
                        li { (results.device.name) " · " (results.device.kind) " · " (results.device.backend) }
                        @if !results.device.driver.is_empty() { li { "driver " (results.device.driver) } }
                        @for key in ["processor", "cores", "kernel"] {
                            @if let Some(value) = results.host.get(key) { li { (key) " " (value) } }
                        }
                        li {
                            "inflight " (results.program.version) " · " (results.rounds) " rounds · "
                            (format!("{:.0} s", results.wall_s))
                            @if results.quick { " · quick" }
                        }
                        @for (key, before) in &results.before {
                            @if let Some(after) = results.after.get(key) {
                                li { (key) ": " (plot::short(*before)) " before, " (plot::short(*after)) " after" }
                            }
                        }
                        @for left in &results.left_out { li { "left out: " (left.id) ", " (left.why) } }
                        @for fault in results.faults() { li { "not for a public table: " (fault) } }
                    }
                }
            }
        }
    }
}
