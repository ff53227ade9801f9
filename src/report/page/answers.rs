//! What a classifier answered: the confusion matrix and the worst mistakes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};

use super::lacking;
use super::record::Record;
use crate::report::answers::{Answers, Mistake};
use crate::report::words::{count, number, percent};

/// Classes up to which the whole matrix is shown; of more, only what is mistaken most.
const MATRIX_MAX: usize = 20;
/// Rows of the lists.
const ROWS_MAX: usize = 12;

/// The section; nothing for a run that was no classifier's.
pub fn section(record: &Record) -> Markup {
    match &record.answers {
        Ok(answers) => html! {
            h2 { "Answers" }
            p.note {
                "Validation after epoch " (answers.epoch + 1) ", " (count(answers.samples)) " samples, "
                (percent(answers.accuracy())) " right."
            }
            div.grid {
                @if answers.classes <= MATRIX_MAX {
                    div.card.all.scroll { h3 { "What was taken for what" } (matrix(record, answers)) }
                }
                div.card { h3 { "Mistaken most often" } (pairs(record, answers)) }
                div.card { h3 { "Classes found least" } (weakest(record, answers)) }
            }
            (mistakes(record, answers))
        },
        Err(lack) if lack.damaged => html! { h2 { "Answers" } (lacking(lack)) },
        Err(_) => html! {},
    }
}

/// How many samples each class has.
fn totals(answers: &Answers) -> BTreeMap<u32, u64> {
    let mut totals = BTreeMap::new();
    for (label, _, n) in &answers.counts {
        *totals.entry(*label).or_default() += n;
    }
    totals
}

fn matrix(record: &Record, answers: &Answers) -> Markup {
    let counts: BTreeMap<(u32, u32), u64> =
        answers.counts.iter().map(|&(label, answer, n)| ((label, answer), n)).collect();
    let totals = totals(answers);
    let classes = 0..answers.classes as u32;
    let cell = |label: u32, answer: u32| {
        let n = counts.get(&(label, answer)).copied().unwrap_or(0);
        let of = totals.get(&label).copied().unwrap_or(0).max(1);
        let share = n as f64 / of as f64;
        // Mistakes are rare, and should be seen all the same.
        let dark = if label == answer { 0.85 * share } else { share.sqrt().min(1.0) };
        let mut class = String::from(if label == answer { "right" } else { "wrong" });
        class.push_str(if dark > 0.55 { " deep" } else { "" });
        class.push_str(if n == 0 { " zero" } else { "" });
        let title = format!(
            "{} taken for {}: {n} of {of}",
            record.class_name(label),
            record.class_name(answer)
        );
        html! { td class=(class) style={ "--v:" (format!("{dark:.3}")) } title=(title) { (n) } }
    };
    html! {
        p.note { "A row is a class, a column what the model said." }
        table.matrix {
            tr {
                th {}
                @for answer in classes.clone() { th.answer { span { (record.class_name(answer)) } } }
                th { "found" }
            }
            @for label in classes.clone() {
                tr {
                    th.label { (record.class_name(label)) }
                    @for answer in classes.clone() { (cell(label, answer)) }
                    th { (recall(&counts, &totals, label)) }
                }
            }
        }
    }
}

fn recall(counts: &BTreeMap<(u32, u32), u64>, totals: &BTreeMap<u32, u64>, label: u32) -> String {
    let Some(&of) = totals.get(&label).filter(|&&of| of > 0) else { return "—".into() };
    percent(counts.get(&(label, label)).copied().unwrap_or(0) as f64 / of as f64)
}

fn pairs(record: &Record, answers: &Answers) -> Markup {
    let totals = totals(answers);
    let mut wrong: Vec<_> = answers.counts.iter().filter(|(a, b, _)| a != b).collect();
    wrong.sort_by_key(|&&(label, answer, n)| (std::cmp::Reverse(n), label, answer));
    wrong.truncate(ROWS_MAX);
    html! {
        @if wrong.is_empty() { p.note { "No mistakes." } } @else {
            div.scroll { table.list {
                tr { th.name { "class" } th.name { "taken for" } th { "times" } th { "of the class" } }
                @for &&(label, answer, n) in &wrong {
                    tr {
                        td.name { (record.class_name(label)) }
                        td.name { (record.class_name(answer)) }
                        td { (count(n)) }
                        td { (percent(n as f64 / totals[&label].max(1) as f64)) }
                    }
                }
            } }
        }
    }
}

fn weakest(record: &Record, answers: &Answers) -> Markup {
    let (mut right, mut said) = (BTreeMap::new(), BTreeMap::new());
    for &(label, answer, n) in &answers.counts {
        *said.entry(answer).or_insert(0u64) += n;
        if label == answer {
            right.insert(label, n);
        }
    }
    let of = |map: &BTreeMap<u32, u64>, class| map.get(&class).copied().unwrap_or(0);
    let mut classes: Vec<(u32, u64, f64)> = totals(answers)
        .into_iter()
        .map(|(class, n)| (class, n, of(&right, class) as f64 / n.max(1) as f64))
        .collect();
    classes.sort_by(|a, b| a.2.total_cmp(&b.2).then(a.0.cmp(&b.0)));
    classes.truncate(ROWS_MAX);
    let precise = |class| match of(&said, class) {
        0 => "—".into(),
        n => percent(of(&right, class) as f64 / n as f64),
    };
    html! {
        div.scroll { table.list {
            tr { th.name { "class" } th { "samples" } th { "found" } th { "right when said" } }
            @for &(class, n, recall) in &classes {
                tr {
                    td.name { (record.class_name(class)) }
                    td { (count(n)) } td { (percent(recall)) } td { (precise(class)) }
                }
            }
        } }
    }
}

fn mistakes(record: &Record, answers: &Answers) -> Markup {
    let pictures = record.mistakes.as_deref().unwrap_or_default();
    let words = |mistake: &Mistake| {
        html! {
            span.no { (record.class_name(mistake.answer)) " " (format!("{:.0} %", 100.0 * mistake.probability)) }
            br;
            span.yes { "is " (record.class_name(mistake.label)) }
            br;
            span.yes { "loss " (format!("{:.2}", mistake.loss)) }
        }
    };
    html! {
        @if !answers.worst.is_empty() {
            h2 { "Worst mistakes" }
            p.note { "Those with the highest loss: what the model said and how sure it was, and what it is." }
            @match &record.mistakes {
                Err(lack) if lack.damaged => { (lacking(lack)) }
                _ => {}
            }
            @if pictures.len() == answers.worst.len() {
                div.pictures {
                    @for (mistake, png) in answers.worst.iter().zip(pictures) {
                        figure title=(origin(mistake)) {
                            (picture(png, &format!("{} taken for {}",
                                record.class_name(mistake.label), record.class_name(mistake.answer))))
                            (words(mistake))
                        }
                    }
                }
            } @else {
                div.card.scroll { table.list {
                    tr { th.name { "sample" } th.name { "said" } th { "sure" } th.name { "is" } th { "loss" } }
                    @for mistake in &answers.worst {
                        tr {
                            td.name { (origin(mistake)) }
                            td.name { (record.class_name(mistake.answer)) }
                            td { (percent(mistake.probability)) }
                            td.name { (record.class_name(mistake.label)) }
                            td { (number(mistake.loss)) }
                        }
                    }
                } }
            }
        }
    }
}

fn origin(mistake: &Mistake) -> String {
    mistake.origin.clone().unwrap_or_else(|| format!("sample {}", mistake.index))
}

/// A picture within the page.
pub fn picture(png: &[u8], alt: &str) -> Markup {
    html! { img alt=(alt) src={ "data:image/png;base64," (BASE64_STANDARD.encode(png)) }; }
}
