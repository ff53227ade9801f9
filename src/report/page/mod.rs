//! One self-contained page about a run: no script, no network, good on a phone, in print, light and dark.
//!
//! The same folder always gives the same bytes. What the folder lacks, or has damaged, is said in the place where it
//! would have been and once more at the end.

mod answers;
mod flow;
mod judgement;
mod learning;
mod record;
mod samples;

use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::error::Result;
use crate::nn::models::ModelConfig;
use crate::report::plot;
use crate::report::words::{self, bytes, count, percent, rate, seconds};
use record::{Found, Lack, Record};

const STYLE: &str = include_str!("style.css");

/// A page, and what it could not show.
#[derive(Clone, Debug)]
pub struct Page {
    /// The page.
    pub html: String,
    /// What is not there, in words.
    pub lacks: Vec<String>,
}

/// A whole page with this title, its style within it.
pub(crate) fn document(title: &str, head: Markup, main: Markup) -> String {
    let html = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // The page fetches nothing: it says so to the browser, which then refuses whatever could.
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
                title { (title) " · inflight" }
                style { (PreEscaped(STYLE)) (PreEscaped(plot::STYLE)) }
            }
            body {
                (head)
                main { (main) }
                footer { "inflight " (env!("CARGO_PKG_VERSION")) " · this page needs no network" }
            }
        }
    };
    html.into_string()
}

/// The page of the run in `dir`.
///
/// # Errors
/// When it is no folder, or has nothing of a run in it. What a run folder lacks is told on the page.
pub fn page(dir: &Path) -> Result<Page> {
    let record = Record::read(dir)?;
    let lacks = record.lacks();
    let main = html! {
        (judgement::section(&record))
        (learning::section(&record))
        (answers::section(&record))
        (samples::section(&record))
        (flow::section(&record))
        (config(&record))
        (missing(&lacks))
    };
    Ok(Page { html: document(&record.name, head(&record), main), lacks })
}

/// What the run is, and its most important numbers.
fn head(record: &Record) -> Markup {
    let config = record.config.as_ref().ok().map(|(_, config)| config);
    let summary = record.summary.as_ref().ok();
    let device = summary.map(|summary| &summary.device).filter(|device| !device.name.is_empty());
    let data = config
        .and_then(|config| config.dataset.clone())
        .or_else(|| record.inputs.as_ref().ok().map(|inputs| inputs.info.name.clone()));
    let model = config.map(|config| match &config.model {
        ModelConfig::Name(name) => name.clone(),
        ModelConfig::Layers(layers) => format!("{} layers", layers.layers.len()),
        ModelConfig::Gpt(table) => format!("gpt of {} layers", table.gpt.layers),
        ModelConfig::Llama(table) => format!("llama of {} layers", table.llama.layers),
    });
    let device = device.map(|device| {
        let parts = [&device.name, &device.kind, &device.backend];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", ")
    });
    let state = match summary {
        Some(summary) if summary.stopped => "stopped before its last step",
        Some(_) => "finished",
        None => "no end on record: under way, or cut off",
    };
    let line = [data, model, device, Some(state.into())];
    html! {
        header.top {
            h1 { (record.name) }
            p.sub { (line.into_iter().flatten().collect::<Vec<_>>().join(" · ")) }
            div.tiles { @for (value, name) in tiles(record) { div.tile { b { (value) } span { (name) } } } }
        }
    }
}

/// Numbers with their names.
fn tiles(record: &Record) -> Vec<(String, &'static str)> {
    let mut tiles = Vec::new();
    let last = record.epochs.as_ref().ok().and_then(|epochs| epochs.last());
    let mut add = |value: Option<String>, name| tiles.extend(value.map(|value| (value, name)));
    add(last.and_then(|e| e.val_accuracy).map(percent), "validation accuracy");
    add(last.and_then(|e| e.val_loss).map(words::number), "validation loss");
    add(last.map(|e| words::number(e.loss)), "training loss");
    if let Ok(steps) = &record.steps {
        add(Some(count(steps.last)), "steps");
    }
    let summary = record.summary.as_ref().ok();
    add(summary.and_then(|s| s.samples_per_s).map(rate), "samples/s");
    add(summary.and_then(|s| s.train_s).map(seconds), "of training");
    let first = summary.and_then(|s| s.first_step.get("total_s").copied());
    add(first.map(seconds), "to the first step");
    add(summary.and_then(|s| s.peak_memory_bytes).map(bytes), "peak memory");
    let device = summary.map(|s| s.device.allocated_bytes).filter(|&bytes| bytes > 0);
    add(device.map(bytes), "on the device");
    let bad = summary.map_or(record.quarantined, |s| s.bad_samples.max(record.quarantined));
    add((bad > 0).then(|| count(bad)), "bad samples");
    let skipped = summary.map_or(0, |s| s.skipped);
    add((skipped > 0).then(|| count(skipped)), "updates left out, not finite");
    tiles
}

fn config(record: &Record) -> Markup {
    html! {
        h2 { "Configuration" }
        @match &record.config {
            Ok((text, _)) => {
                div.card {
                    details open { summary { "config.toml" } pre { (text) } }
                    @if let Some(hash) = record.summary.as_ref().ok().and_then(|s| s.parameter_hash.as_ref()) {
                        p.note style="overflow-wrap:anywhere;margin-top:.6rem" { "SHA-256 of the parameters: " (hash) }
                    }
                }
            }
            Err(lack) => (lacking(lack)),
        }
    }
}

fn missing(lacks: &[String]) -> Markup {
    html! {
        @if !lacks.is_empty() {
            h2 { "Not on this page" }
            div.card.lack { ul.plain { @for lack in lacks { li { (lack) } } } }
        }
    }
}

/// The place of something that is not there.
fn lacking(lack: &Lack) -> Markup {
    html! { div.card.lack { p.note { (lack) } } }
}

/// A card with a chart, or the reason why there is none.
fn chart_card(title: &str, note: &str, chart: Found<plot::Chart>, size: [u32; 2]) -> Markup {
    let class = if size == plot::WHOLE { "card all" } else { "card" };
    match chart {
        Ok(chart) if chart.is_empty() => html! {},
        Ok(chart) => html! {
            div class=(class) {
                h3 { (title) }
                @if !note.is_empty() { p.note { (note) } }
                (chart.figure(size))
            }
        },
        Err(lack) => html! {
            div class=(class) { h3 { (title) } p.note { (lack) } }
        },
    }
}
