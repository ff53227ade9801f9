//! Whether results differ: workload by workload, ratios of medians with bootstrap intervals, the test of Mann and Whitney
//! over the rounds, and false discoveries held down over all workloads. What is not comparable is refused, with the reason.

use serde::Serialize;

use super::results::Results;
use super::stats::{Estimate, discoveries, mann_whitney, median};
use crate::error::{Error, Result};

/// Expected share of false ones among the differences that are told.
const FALSE_SHARE: f64 = 0.05;

/// Differences below this share are not told: two runs on one machine differ by as much, for reasons that rounds within one
/// run do not show (where memory lies, which cores threads run on).
pub const MARGIN: f64 = 0.03;

/// How far apart the ceilings of a device may be before a machine is no longer taken for the same.
const CEILINGS_APART: f64 = 1.15;

/// One file of results beside the first one.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What the times are held against.
    pub base: String,
    /// Whose times they are.
    pub other: String,
    /// Workloads that both have.
    pub rows: Vec<Row>,
    /// The same of all workloads together, round by round.
    pub overall: Estimate,
    /// Whether all of it together is slower or faster.
    pub verdict: Difference,
    /// Workloads that only one of them has.
    pub only_one: Vec<String>,
    /// What should be known about them.
    pub notes: Vec<String>,
}

/// A workload in both.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which.
    pub id: String,
    /// Median seconds of the first.
    pub base_s: f64,
    /// And of the other.
    pub other_s: f64,
    /// The other's time by the first's: above 1 the other is slower.
    pub ratio: Estimate,
    /// Probability that rounds of the same speed differ as much.
    pub p: f64,
    /// What comes of it.
    pub difference: Difference,
}

/// How the other one is, beside the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// No difference that could be told.
    Same,
    /// It takes longer.
    Slower,
    /// It takes less time.
    Faster,
}

impl Difference {
    /// Beyond the margin with all of the interval, if it is a discovery at all.
    fn of(ratio: &Estimate, discovered: bool) -> Self {
        match () {
            () if discovered && ratio.low > 1.0 + MARGIN => Self::Slower,
            () if discovered && ratio.high < 1.0 / (1.0 + MARGIN) => Self::Faster,
            () => Self::Same,
        }
    }
}

/// Compares results with a first one, each under its name.
///
/// # Errors
/// When they are not comparable: of other versions of the suite, or of a debug build and a release build, or without a
/// workload in common.
pub fn compare(base: (&str, &Results), other: (&str, &Results)) -> Result<Comparison> {
    refuse(base, other)?;
    let ((base_name, base), (other_name, other)) = (base, other);
    let pairs: Vec<_> = base
        .workloads
        .iter()
        .filter_map(|a| Some((a, other.workloads.iter().find(|b| b.id == a.id)?)))
        .collect();
    let p: Vec<f64> = pairs.iter().map(|(a, b)| mann_whitney(&a.each_s, &b.each_s)).collect();
    let discovered = discoveries(&p, FALSE_SHARE);
    let rows: Vec<Row> = pairs
        .iter()
        .zip(p.iter().zip(&discovered))
        .map(|((a, b), (&p, &discovered))| {
            let ratio = Estimate::ratio(&a.each_s, &b.each_s);
            let difference = Difference::of(&ratio, discovered);
            let (base_s, other_s) = (a.time_s.median, b.time_s.median);
            Row { id: a.id.clone(), base_s, other_s, ratio, p, difference }
        })
        .collect();
    let times: Vec<(&[f64], &[f64])> =
        pairs.iter().map(|(a, b)| (&a.each_s[..], &b.each_s[..])).collect();
    let (base_rounds, other_rounds) = scores(&times);
    let overall = Estimate::ratio(&base_rounds, &other_rounds);
    let discovered = mann_whitney(&base_rounds, &other_rounds) < FALSE_SHARE;
    let has = |results: &Results, id: &str| results.workloads.iter().any(|w| w.id == id);
    let only = |a: &Results, b: &Results| -> Vec<String> {
        let ids = a.workloads.iter().map(|w| w.id.clone());
        ids.filter(|id| !has(b, id)).collect()
    };
    Ok(Comparison {
        base: base_name.into(),
        other: other_name.into(),
        verdict: Difference::of(&overall, discovered),
        only_one: [only(base, other), only(other, base)].concat(),
        notes: notes(base, other),
        rows,
        overall,
    })
}

/// How slow each round was, of either side: its median over all workloads, of which each is held against its own median over
/// both sides. What disturbs a machine for a while disturbs all workloads of a round, which are no independent witnesses.
fn scores(times: &[(&[f64], &[f64])]) -> (Vec<f64>, Vec<f64>) {
    let usual: Vec<f64> = times.iter().map(|(a, b)| median(&[*a, *b].concat())).collect();
    // Workloads that are done are left out of later rounds; those of less than half of them say nothing of all.
    let of_side = |side: &[&[f64]]| -> Vec<f64> {
        let slow = |round: usize| {
            let of = |(times, usual): (&&[f64], &f64)| Some(times.get(round)? / usual);
            side.iter().zip(&usual).filter_map(of).collect::<Vec<_>>()
        };
        let each = (0..).map(slow).take_while(|slow| 2 * slow.len() > side.len());
        each.map(|slow| median(&slow)).collect()
    };
    let (a, b): (Vec<&[f64]>, Vec<&[f64]>) = times.iter().copied().unzip();
    (of_side(&a), of_side(&b))
}

fn refuse(
    (base_name, base): (&str, &Results),
    (other_name, other): (&str, &Results),
) -> Result<()> {
    let wrong = |message: String, hint: &str| {
        Err(Error::config(format!("{base_name} and {other_name}"), message).hint(hint))
    };
    if base.suite_version != other.suite_version {
        let (a, b) = (base.suite_version, other.suite_version);
        let message = format!("found versions {a} and {b} of the suite, whose workloads differ");
        return wrong(message, "measuring both with the same version of inflight");
    }
    if base.program.profile != other.program.profile {
        let (a, b) = (&base.program.profile, &other.program.profile);
        let message = format!("found a {a} and a {b} build, expected two of one kind");
        return wrong(message, "cargo build --release for both");
    }
    if !base.workloads.iter().any(|a| other.workloads.iter().any(|b| a.id == b.id)) {
        return wrong("found no workload that both have".into(), "the same part of the suite");
    }
    Ok(())
}

fn notes(base: &Results, other: &Results) -> Vec<String> {
    let mut notes = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            notes.push(format!("{what}: {a}, {b}"));
        }
    };
    differ("devices", &base.device.name, &other.device.name);
    // The quick one times everything for a shorter while.
    let suite = |results: &Results| if results.quick { "quick" } else { "whole" };
    differ("suites", suite(base), suite(other));
    differ("backends", &base.device.backend, &other.device.backend);
    differ("drivers", &base.device.driver, &other.device.driver);
    differ("versions of inflight", &base.program.version, &other.program.version);
    differ("builds", &base.program.build, &other.program.build);
    let unknown = String::new();
    for key in ["processor", "cores", "kernel", "governor"] {
        let of = |results: &'_ Results| results.host.get(key).unwrap_or(&unknown).clone();
        differ(key, &of(base), &of(other));
    }
    if base.device.name == other.device.name {
        notes.extend(
            base.ceilings
                .iter()
                .filter_map(|(name, a)| ceiling(name, *a, *other.ceilings.get(name)?)),
        );
    }
    for (results, which) in [(base, "the first"), (other, "the other")] {
        if results.program.planted_slowdown != 1.0 {
            notes.push(format!("{which} is of a test build that lengthens all times"));
        }
    }
    notes
}

/// What one and the same device could do at best, where that differs: then something else used the machine, or slowed it.
fn ceiling(name: &str, a: f64, b: f64) -> Option<String> {
    let differ = a.max(b) > CEILINGS_APART * a.min(b);
    differ.then(|| {
        let per_cent = 100.0 * (b / a - 1.0);
        format!("{name} at best: {per_cent:+.0} %, on the same device; was something else at work?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::{Program, Workload};
    use crate::testing::normal;

    /// Results of a machine with 1 % of noise, all times longer by `slowdown`; `offset` for all rounds of a workload.
    fn results(key: u64, slowdown: f64) -> Results {
        let workload = |i: u64| {
            let offset = 1.0 + 0.004 * normal(key * 1000 + 500 + i, 1)[0];
            let times = normal(key * 1000 + i, 9);
            let each_s: Vec<f64> =
                times.iter().map(|x| slowdown * offset * 0.01 * (1.0 + 0.01 * x)).collect();
            let time_s = Estimate::of(&each_s);
            Workload { id: format!("kernels/{i}"), each_s, time_s, ..Default::default() }
        };
        Results {
            program: Program {
                profile: "release".into(),
                planted_slowdown: 1.0,
                ..Default::default()
            },
            workloads: (0..20).map(workload).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_machine_is_as_fast_as_itself_and_a_tenth_is_found() {
        for key in 0..20 {
            let (a, b) = (results(2 * key, 1.0), results(2 * key + 1, 1.0));
            let same = compare(("a", &a), ("b", &b)).expect("comparable");
            assert_eq!(same.verdict, Difference::Same, "{key}: {:?}", same.overall);
            let told: Vec<&Row> =
                same.rows.iter().filter(|row| row.difference != Difference::Same).collect();
            assert!(told.is_empty(), "{key}: {told:?}");
            let slow = results(2 * key + 1, 1.1);
            let found = compare(("a", &a), ("b", &slow)).expect("comparable");
            assert_eq!(found.verdict, Difference::Slower, "{key}: {:?}", found.overall);
            assert!((found.overall.median - 1.1).abs() < 0.02, "{:?}", found.overall);
            let slower = found.rows.iter().filter(|row| row.difference == Difference::Slower);
            assert!(slower.count() >= 18, "{key}");
            let back = compare(("b", &slow), ("a", &a)).expect("comparable");
            assert_eq!(back.verdict, Difference::Faster);
        }
    }

    #[test]
    fn a_disturbed_while_is_not_taken_for_a_difference() {
        let (a, mut b) = (results(1, 1.0), results(2, 1.0));
        // For some rounds all workloads run at half the speed, here for three of nine, there for six.
        let slow = |results: &mut Results, rounds: usize| {
            let times = results.workloads.iter_mut().flat_map(|w| &mut w.each_s[..rounds]);
            times.for_each(|s| *s *= 2.0);
        };
        let mut disturbed = a.clone();
        slow(&mut disturbed, 3);
        slow(&mut b, 6);
        let found = compare(("a", &disturbed), ("b", &b)).expect("comparable");
        assert_eq!(found.verdict, Difference::Same, "{:?}", found.overall);
    }

    #[test]
    fn a_machine_that_was_not_itself_is_told() {
        let with = |bytes_per_s: f64| Results {
            ceilings: [("bytes_per_s".to_string(), bytes_per_s)].into(),
            ..results(1, 1.0)
        };
        let notes = |a: f64, b: f64| {
            compare(("a", &with(a)), ("b", &with(b))).expect("comparable").notes.join(" ")
        };
        assert_eq!(notes(46e9, 50e9), "");
        assert!(notes(46e9, 87e9).starts_with("bytes_per_s at best: +89 %, on the same device"));
        assert!(notes(87e9, 46e9).starts_with("bytes_per_s at best: -47 %"));
    }

    #[test]
    fn a_quick_suite_beside_a_whole_one_is_told() {
        let whole = results(1, 1.0);
        let quick = Results { quick: true, ..results(2, 1.0) };
        let notes =
            |a: &Results, b: &Results| compare(("a", a), ("b", b)).expect("comparable").notes;
        assert_eq!(notes(&quick, &whole), ["suites: quick, whole"]);
        assert_eq!(notes(&whole, &quick), ["suites: whole, quick"]);
        assert!(notes(&quick, &quick).is_empty() && notes(&whole, &whole).is_empty());
    }

    #[test]
    fn one_workload_that_is_slower_is_found_among_others() {
        let (a, mut b) = (results(1, 1.0), results(2, 1.0));
        b.workloads[7].each_s.iter_mut().for_each(|s| *s *= 1.15);
        let found = compare(("a", &a), ("b", &b)).expect("comparable");
        let told: Vec<&str> = found
            .rows
            .iter()
            .filter(|row| row.difference == Difference::Slower)
            .map(|row| row.id.as_str())
            .collect();
        assert_eq!(told, ["kernels/7"]);
        assert_eq!(found.verdict, Difference::Same);
    }

    #[test]
    fn what_is_not_comparable_is_refused_with_the_reason() {
        let a = results(1, 1.0);
        let refused = |b: &Results, why: &str| {
            let error = compare(("a.json", &a), ("b.json", b)).expect_err(why).to_string();
            assert!(error.contains(why) && error.contains("a.json and b.json"), "{error}");
        };
        refused(&Results { suite_version: 9, ..a.clone() }, "versions 0 and 9 of the suite");
        let mut debug = a.clone();
        debug.program.profile = "debug".into();
        refused(&debug, "a release and a debug build");
        let mut other = a.clone();
        other.workloads.iter_mut().for_each(|w| w.id.insert(0, 'x'));
        refused(&other, "no workload that both have");
    }
}
