//! `bench train`: whole steps of models on samples that are in place, through an executor alone.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::ring::Ring;
use super::{Bed, Ceilings, Options, Score, program, samples};
use crate::error::Result;
use crate::executor::{Executor, Wants};
use crate::gpu::stopwatch::Lap;
use crate::gpu::survey::Survey;
use crate::gpu::tune::Tuner;
use crate::graph::cost::Cost;
use crate::graph::plan::{Pass, Program};
use crate::source::Source;
use crate::{cpu, gpu, prepare};

/// Slots: one computing, one waiting to, as in a run whose batches are always ready, and one between.
const SLOTS: usize = 3;
/// Steps before those that count.
const WARM_UP: usize = 2;

/// A line of the results.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `train`.
    pub suite: &'static str,
    /// `model/batch/type`.
    pub name: String,
    /// How long a step took, and how that compares.
    #[serde(flatten)]
    pub score: Score,
    /// Steps a second.
    pub steps_per_s: f64,
    /// Samples a second.
    pub samples_per_s: f64,
    /// Seconds that a step takes at least: operations ÷ peak.
    pub compute_floor_s: f64,
    /// Seconds that a step takes at least: bytes ÷ bandwidth.
    pub bandwidth_floor_s: f64,
    /// What a step asks of an adapter's front end.
    #[serde(flatten)]
    pub launch: Option<Launch>,
    /// Share of the time that the device waited for the host while every batch was ready, where it can be told.
    pub idle_share: Option<f64>,
    /// Where the time to the first step went.
    pub first_step: FirstStep,
}

/// What a step asks of an adapter's front end, and what that costs the host.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Launch {
    /// Dispatches of a step.
    pub dispatches: usize,
    /// Those that wait for all before them.
    pub barriers: usize,
    /// Seconds spent recording a step, the median.
    pub record_s: f64,
    /// Seconds spent handing it to the driver, the median; a software adapter may compute meanwhile.
    pub submit_s: f64,
}

/// Where the time to the first step went, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct FirstStep {
    /// Opening the device.
    pub adapter_s: f64,
    /// Building the graph and the plan.
    pub plan_s: f64,
    /// Choosing among variants.
    pub tune_s: f64,
    /// How many were timed for it.
    pub tuned: usize,
    /// Compiling shaders and creating pipelines.
    pub compile_s: f64,
    /// From the first submission to its result.
    pub result_s: f64,
    /// All of it.
    pub total_s: f64,
}

/// Times steps of all models, one model after the other.
///
/// # Errors
/// When a model is not known or does not fit the device, or `each` fails.
pub fn run(
    bed: &Bed,
    ceilings: &Ceilings,
    options: &Options,
    mut each: impl FnMut(Row) -> Result<()>,
) -> Result<()> {
    for model in &options.models {
        each(steps(bed, ceilings, options, model)?)?;
    }
    Ok(())
}

fn steps(bed: &Bed, ceilings: &Ceilings, options: &Options, model: &str) -> Result<Row> {
    let planning = Instant::now();
    let program = Arc::new(program(model, options)?);
    let plan_s = planning.elapsed().as_secs_f64();
    let mut road = Road::build(bed, &program, options, &*samples(model)?)?;
    let begun = Instant::now();
    road.submit()?;
    road.0.collect()?;
    let result_s = begun.elapsed().as_secs_f64();
    let (most, seconds) = if options.quick { (30, 1.0) } else { (300, 10.0) };
    let seen = Seen::of(&road.steps(most, seconds)?);
    let device = road.0.executor.device();
    let first_step = FirstStep {
        adapter_s: device.open_s,
        plan_s,
        tune_s: device.tune_s,
        tuned: device.tuned,
        compile_s: device.compile_s,
        result_s,
        total_s: device.open_s + plan_s + device.tune_s + device.compile_s + result_s,
    };
    let cost = Cost::of_plan(&program.plans[&Pass::Train]);
    let flops_per_s = ceilings.flops_per_s(options.precision == "f16");
    let score = Score::new(cost, seen.lap, flops_per_s, ceilings.bytes_per_s);
    Ok(Row {
        suite: "train",
        name: format!("{model}/{}/{}", options.batch_size, options.precision),
        steps_per_s: 1.0 / seen.mean_s,
        samples_per_s: options.batch_size as f64 / seen.mean_s,
        compute_floor_s: cost.flops as f64 / flops_per_s,
        bandwidth_floor_s: cost.bytes as f64 / ceilings.bytes_per_s,
        launch: launch(bed, &program, &seen),
        idle_share: seen.idle_share,
        first_step,
        score,
    })
}

fn launch(bed: &Bed, program: &Arc<Program>, seen: &Seen) -> Option<Launch> {
    let Bed::Gpu(stopwatch) = bed else { return None };
    let counts = Survey::new(program, stopwatch.context(), SLOTS).passes[&Pass::Train];
    Some(Launch {
        dispatches: counts.dispatches,
        barriers: counts.barriers,
        record_s: seen.record_s,
        submit_s: seen.submit_s,
    })
}

/// The times of one step, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct StepTimes {
    /// From the result before to its own: what a step takes where every slot is always in use.
    pub interval_s: f64,
    /// The device's own time, where it can be told.
    pub busy_s: Option<f64>,
    /// Recording, on the host.
    pub record_s: f64,
    /// Handing over to the driver.
    pub submit_s: f64,
}

/// What was seen of many steps.
struct Seen {
    lap: Lap,
    /// The mean of the intervals: what counts for a rate.
    mean_s: f64,
    record_s: f64,
    submit_s: f64,
    idle_share: Option<f64>,
}

impl Seen {
    fn of(steps: &[StepTimes]) -> Self {
        let lap = |time: fn(&StepTimes) -> f64| Lap::of(steps.iter().map(time).collect());
        let all: f64 = steps.iter().map(|step| step.interval_s).sum();
        let busy: Option<f64> = steps.iter().map(|step| step.busy_s).sum();
        Self {
            lap: lap(|step| step.interval_s),
            mean_s: all / steps.len() as f64,
            record_s: lap(|step| step.record_s).median_s,
            submit_s: lap(|step| step.submit_s).median_s,
            idle_share: busy.map(|busy| (1.0 - busy / all).max(0.0)),
        }
    }
}

/// A model under way: slots that go round, each filled once, and steps over them.
pub struct Road(Ring);

impl Road {
    /// Compiles the model of this name and fills the slots.
    ///
    /// # Errors
    /// When it is not known or does not fit the device.
    pub fn open(bed: &Bed, model: &str, options: &Options) -> Result<Self> {
        Self::build(bed, &Arc::new(program(model, options)?), options, &*samples(model)?)
    }

    fn build(
        bed: &Bed,
        program: &Arc<Program>,
        options: &Options,
        samples: &dyn Source,
    ) -> Result<Self> {
        let executor: Box<dyn Executor> = match bed {
            Bed::Gpu(stopwatch) => {
                let (context, tuner) = (stopwatch.context().clone(), Tuner::new(options.tune));
                Box::new(gpu::Executor::tuned(context, program.clone(), SLOTS, &tuner)?)
            }
            Bed::Twins => Box::new(cpu::Executor::new(program.clone(), SLOTS)?),
        };
        let mut ring = Ring::new(executor, program, 0, 1e-3)?;
        let layout = &program.slot;
        for (i, slot) in ring.free.iter_mut().enumerate() {
            let indices: Vec<usize> =
                (0..layout.batch_size).map(|k| (i + k) % samples.len()).collect();
            let (keys, times) = Default::default();
            prepare::fill(slot, layout, samples, &[], &indices, keys, &times)?;
        }
        Ok(Self(ring))
    }

    fn submit(&mut self) -> Result<()> {
        self.0.submit(Wants::default())
    }

    /// Times at most `count` steps with every slot in use; fewer, but at least three, once `seconds` are over.
    ///
    /// # Errors
    /// When the device is lost or does not answer.
    pub fn steps(&mut self, count: usize, seconds: f64) -> Result<Vec<StepTimes>> {
        let mut steps = Vec::with_capacity(count);
        for _ in 0..SLOTS {
            self.submit()?;
        }
        let (mut began, mut last) = (Instant::now(), Instant::now());
        for i in 0.. {
            let step = self.0.collect()?;
            let now = Instant::now();
            match i < WARM_UP {
                true => began = now,
                false => {
                    let interval_s = (now - last).as_secs_f64();
                    steps.push(StepTimes { interval_s, ..step });
                }
            }
            last = now;
            let late = (now - began).as_secs_f64() > seconds && steps.len() >= 3;
            if late || steps.len() >= count {
                break;
            }
            self.submit()?;
        }
        self.0.drain()?;
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Tune;

    #[test]
    fn steps_are_timed_on_the_twins_and_their_parts_add_up() {
        let options = Options {
            quick: true,
            models: vec!["mlp".into()],
            batch_size: 4,
            precision: "f32".into(),
            tune: Tune::Off,
        };
        let ceilings = Ceilings {
            bytes_per_s: 1e12,
            f32_flops_per_s: 1e15,
            f16_flops_per_s: None,
            matrix_flops_per_s: None,
        };
        let mut rows = Vec::new();
        let each = |row| {
            rows.push(row);
            Ok(())
        };
        run(&Bed::Twins, &ceilings, &options, each).expect("runs");
        let [row] = &rows[..] else { panic!("one row a model, found {}", rows.len()) };
        assert_eq!(row.name, "mlp/4/f32");
        assert!((row.samples_per_s / row.steps_per_s - 4.0).abs() < 1e-9);
        assert!(row.score.share > 0.0 && row.score.share < 1.0, "{row:?}");
        assert!(row.idle_share.is_some_and(|share| (0.0..1.0).contains(&share)), "{row:?}");
        assert_eq!(row.launch, None, "twins launch nothing");
        let first = row.first_step;
        assert!(first.result_s > 0.0 && first.total_s >= first.plan_s + first.result_s);
        let json = serde_json::to_value(row).expect("JSON");
        for key in ["median_s", "low_s", "high_s", "flops", "bytes", "achieved", "ceiling", "share"]
        {
            assert!(json[key].is_number(), "{key} in {json}");
        }
    }
}
