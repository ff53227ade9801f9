//! The first samples as the model saw them.

use maud::{Markup, html};

use super::answers::picture;
use super::lacking;
use super::record::Record;
use crate::report::gallery::{Samples, Shown};
use crate::report::plot::short;

/// The section; nothing where no sample was kept.
pub fn section(record: &Record) -> Markup {
    let samples = match &record.samples {
        Ok(samples) if samples.samples.is_empty() => return html! {},
        Ok(samples) => samples,
        Err(lack) => {
            return html! { @if lack.damaged { h2 { "Samples" } (lacking(lack)) } };
        }
    };
    let pictures = record.pictures.as_deref().unwrap_or_default();
    let mixes = record.config.as_ref().is_ok_and(|(_, c)| c.mixup.is_some() || c.cutmix.is_some());
    html! {
        h2 { "Samples as the model saw them" }
        p.note {
            "The beginning of the first batch, in epoch " (samples.epoch + 1) ", after its transforms; normalising "
            @if mixes { "and mixing come" } @else { "comes" } " after that, on the device."
            @if samples.lacks_transforms { " Transforms that the program added itself are not applied here." }
        }
        @if pictures.len() == samples.samples.len() {
            div.pictures {
                @for (shown, png) in samples.samples.iter().zip(pictures) {
                    figure title=(origin(shown)) { (picture(png, &name(record, shown))) (name(record, shown)) }
                }
            }
        } @else {
            @match &record.pictures { Err(lack) if lack.damaged => { (lacking(lack)) } _ => {} }
            (rows(record, samples))
        }
    }
}

fn rows(record: &Record, samples: &Samples) -> Markup {
    let numbers = |values: &[f32]| {
        let words: Vec<String> = values.iter().map(|&x| short(f64::from(x))).collect();
        words.join("  ")
    };
    html! {
        div.card.scroll { table.list {
            tr { th.name { "sample" } th.name { "target" } th.name { "its first numbers" } }
            @for shown in &samples.samples {
                tr {
                    td.name { (origin(shown)) }
                    td.name {
                        @if shown.label.is_some() { (name(record, shown)) } @else { (numbers(&shown.target)) }
                    }
                    td.name { (numbers(&shown.values)) }
                }
            }
        } }
    }
}

fn name(record: &Record, shown: &Shown) -> String {
    shown.label.map_or_else(|| format!("sample {}", shown.index), |label| record.class_name(label))
}

fn origin(shown: &Shown) -> String {
    shown.origin.clone().unwrap_or_else(|| format!("sample {}", shown.index))
}
