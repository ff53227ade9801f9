//! What held the run up, and what to change: the verdict, who was busy and who waited.

use maud::{Markup, html};

use super::lacking;
use super::record::{Record, Verdict};
use crate::report::histogram::Quantiles;
use crate::report::plot::{Bar, Bars, WHOLE};
use crate::report::verdict::{Busy, Queue, Verified, stage_name, times_faster};
use crate::report::words::{percent, rate, seconds};

/// Stages in the order of a run: before the loop, then as the data goes.
const STAGES: [&str; 8] =
    ["open", "compile", "disk", "decode", "augment", "upload", "launch", "gpu"];

/// The verdict in words, times of stages, and a table of who waited for whom.
pub fn section(record: &Record) -> Markup {
    let verdict = match &record.verdict {
        Ok(verdict) => verdict,
        Err(lack) => return html! { h2 { "Verdict" } (lacking(lack)) },
    };
    html! {
        h2 { "Verdict" }
        (words(verdict))
        @if !verdict.time_s.is_empty() {
            div.card style="margin-top:.8rem" {
                h3 { "Where the time went" }
                p.note { "Stages overlap, so these do not add up; workers' times are divided by their number." }
                (bars(verdict).figure(WHOLE[0]))
            }
        }
        @if !verdict.stages.is_empty() || !verdict.queues.is_empty() {
            div.grid style="margin-top:.8rem" {
                (stages(&verdict.stages))
                (queues(&verdict.queues))
            }
        }
    }
}

fn words(verdict: &Verdict) -> Markup {
    html! {
        div.card.verdict {
            @if let (Some(actual_s), Some(ideal_s), Some(share)) =
                (verdict.actual_s, verdict.ideal_s, verdict.efficiency)
            {
                p {
                    "The loop took " b { (seconds(actual_s)) } "; its slowest stage alone would take "
                    b { (seconds(ideal_s)) } " (" (percent(share)) ")."
                }
            }
            @if let Some(bottleneck) = &verdict.bottleneck {
                p {
                    "Held up by " b { (stage_name(bottleneck)) }
                    @if let Some(speedup) = verdict.speedup_without_bottleneck.filter(|s| s.is_finite()) {
                        ", without it " (times_faster(speedup))
                    }
                    "."
                }
            }
            @if let Some(advice) = &verdict.advice { p.advice { b { "To go faster: " } (advice) } }
            @if let Some(verified) = &verdict.verified { (tried(verified)) }
            @if let Some(steps) = verdict.steps.filter(|steps| steps.count > 0) { (quantiles(steps)) }
        }
    }
}

fn tried(verified: &Verified) -> Markup {
    html! {
        p {
            "Tried over " (verified.steps) " steps each, " code { (verified.change) } ": "
            (rate(verified.before_per_s)) " samples/s before, " (rate(verified.after_per_s)) " with it, "
            b { (times_faster(verified.measured)) }
            @if let Some(predicted) = verified.predicted { "; predicted " (times_faster(predicted)) }
            "."
        }
    }
}

fn quantiles(steps: Quantiles) -> Markup {
    html! {
        p {
            "A step took " (seconds(steps.p50_s)) " in the median; 95 % took at most "
            (seconds(steps.p95_s)) ", 99 % at most " (seconds(steps.p99_s)) "."
        }
    }
}

fn bars(verdict: &Verdict) -> Bars {
    // What another version adds comes last.
    let place =
        |name: &String| STAGES.iter().position(|stage| stage == name).unwrap_or(STAGES.len());
    let mut times: Vec<(&String, &f64)> = verdict.time_s.iter().collect();
    times.sort_by_key(|(name, _)| place(name));
    let bars = times.into_iter().map(|(name, &value)| Bar {
        name: stage_name(name).into(),
        value,
        interval: None,
        text: seconds(value),
        colour: usize::from(Some(name) == verdict.bottleneck.as_ref()),
    });
    Bars { title: "seconds of each stage".into(), bars: bars.collect(), names_width: 70 }
}

fn stages(stages: &[Busy]) -> Markup {
    let row = |stage: &Busy| {
        [
            busy_name(&stage.name).to_string(),
            stage.threads.to_string(),
            seconds(stage.busy_s),
            seconds(stage.waiting_s),
            percent(stage.busy_s / (stage.busy_s + stage.waiting_s)),
        ]
    };
    let heads = ["stage", "threads", "busy", "waiting", "share"];
    table("Who was busy", heads, stages.iter().map(row))
}

fn queues(queues: &[Queue]) -> Markup {
    let row = |queue: &Queue| {
        [
            queue_name(&queue.name).to_string(),
            queue.capacity.to_string(),
            format!("{:.1}", queue.depth_mean),
            queue.depth_max.to_string(),
            seconds(queue.waited_s),
        ]
    };
    let heads = ["queue", "room", "mean", "most", "waited for"];
    table("What lay between them", heads, queues.iter().map(row))
}

/// A card with a table whose first column are names.
fn table(title: &str, heads: [&str; 5], rows: impl Iterator<Item = [String; 5]>) -> Markup {
    let [name, numbers @ ..] = heads;
    html! {
        div.card.scroll {
            h3 { (title) }
            table.list {
                tr { th.name { (name) } @for number in numbers { th { (number) } } }
                @for [name, numbers @ ..] in rows {
                    tr { td.name { (name) } @for number in numbers { td { (number) } } }
                }
            }
        }
    }
}

/// Those who are busy, in the words of the page.
fn busy_name(name: &str) -> &str {
    match name {
        "disk" => "readers",
        "prepare" => "workers",
        "launch" => "device thread",
        "gpu" => "device",
        other => other,
    }
}

/// Queues by who waits for them.
fn queue_name(name: &str) -> &str {
    match name {
        "empty" => "empty slots, for workers",
        "full" => "full slots, for the device",
        "in_flight" => "passes on the device",
        other => other,
    }
}
