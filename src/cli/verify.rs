//! `inflight train --verify`: what the change that a verdict asks for really gives, over a few steps with it and without.

use std::time::Duration;

use clap::Parser;
use inflight::config::RunConfig;
use inflight::report::verdict::{Change, Verified};
use inflight::source::{Dataset, ENDLESS};
use inflight::train::event::Summary;
use inflight::train::rate::Rate;
use inflight::{Result, Trainer};

use super::flags::Flags;
use super::print;

/// Seconds for which each side is timed, about.
const TIMED: Duration = Duration::from_secs(4);
/// Steps that are timed at most, and at least where a run has them.
const STEPS_MAX: u64 = 400;
const STEPS_MIN: u64 = 10;

/// A flag that is to be changed, as it would stand on the command line.
#[derive(Parser)]
struct Changed {
    #[command(flatten)]
    flags: Flags,
}

/// Runs some steps as the run was set to and some with its change, and tells of both. `open` opens the data anew for each:
/// the run has closed its own. Nothing: the change is one that cannot be tried here, which is said.
pub fn verify(
    summary: &Summary,
    config: &RunConfig,
    open: impl Fn(&RunConfig) -> Result<Dataset>,
) -> Result<Option<Verified>> {
    let change = &summary.verdict.change;
    let base = as_it_was(summary, config);
    let Some(changed) = with(change, &base)? else {
        print::note(format!("verify: {} is nothing that a few steps here could show", change.flag));
        return Ok(None);
    };
    let step_s = summary.verdict.steps.p50_s.max(1e-6);
    let steps = ((TIMED.as_secs_f64() / step_s) as u64).clamp(STEPS_MIN, STEPS_MAX);
    print::note(format!(
        "verify: {steps} steps as they were, and {steps} with {}",
        change.on_command_line()
    ));
    let Some(before) = rate(base, steps, &open)? else { return Ok(None) };
    let Some(after) = rate(changed, steps, &open)? else { return Ok(None) };
    Ok(Some(Verified {
        change: change.on_command_line(),
        before_per_s: before.samples_per_s,
        after_per_s: after.samples_per_s,
        predicted: change.speedup,
        measured: after.samples_per_s / before.samples_per_s,
        steps: before.steps.min(after.steps),
    }))
}

/// The configuration with the numbers that the run found.
fn as_it_was(summary: &Summary, config: &RunConfig) -> RunConfig {
    let input = &summary.input;
    RunConfig {
        workers: input.workers.max(1),
        slots: if config.sync { config.slots } else { Some(input.slots.max(2)) },
        readers: input.readers.or(config.readers),
        // In another order than the run, whose samples may still be in the memory of the system.
        seed: config.seed ^ 2,
        eval: false,
        out: None,
        ..config.clone()
    }
}

/// The configuration with the change; nothing where it names no value to try, or one that shows only after an epoch.
fn with(change: &Change, base: &RunConfig) -> Result<Option<RunConfig>> {
    let known = change.value.is_some() || change.flag.contains('=');
    if !known || matches!(change.flag.as_str(), "--cache" | "--tune" | "--epochs") {
        return Ok(None);
    }
    let words = [Some("verify"), Some(&change.flag), change.value.as_deref()];
    let Ok(Changed { flags }) = Changed::try_parse_from(words.into_iter().flatten()) else {
        return Ok(None);
    };
    // Other samples come first, so that none is in the system's memory only because the first run has read it.
    let mut config = RunConfig { seed: base.seed ^ 1, ..base.clone() };
    if change.flag.starts_with("--sync") {
        config.slots = None;
    }
    flags.apply(&mut config)?;
    config.validate()?;
    Ok(Some(config))
}

fn rate(
    config: RunConfig,
    steps: u64,
    open: impl Fn(&RunConfig) -> Result<Dataset>,
) -> Result<Option<Rate>> {
    let dataset = open(&config)?;
    if dataset.train.len() == ENDLESS {
        print::note("verify: a stream does not come again");
        return Ok(None);
    }
    // Once through the ring, and a little more.
    let warm_up = 2 * config.slots.unwrap_or(6) as u64;
    let config = RunConfig { epochs: None, steps: Some(warm_up + steps + 1), ..config };
    let model = config.model.build(dataset.train.spec())?;
    let trainer = Trainer::builder(model, dataset.train).config(config).start()?;
    Rate::of(&trainer, warm_up, steps, TIMED).map(Some)
}
