//! `inflight predict` on tables: what each row is, by a model that was trained on rows like it.

use std::path::Path;
use std::sync::Arc;

use inflight::Result;
use inflight::source::table::{Fitted, FittedTarget};
use inflight::source::{OpenOptions, open_rows};
use inflight::train::evaluate::evaluate;
use serde::Serialize;

use super::predict::{Args, Guess, guesses};
use super::print;
use super::runs::{Run, Trained};

/// Rows predicted at once: enough that no device waits.
const BATCH_SIZE: usize = 1024;

#[derive(Serialize)]
struct Prediction<'a> {
    event: &'static str,
    file: &'a Path,
    /// From 1 on, the header not counted.
    row: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    classes: Vec<Guess>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
}

/// Predicts for each row of each file.
pub fn run(args: &Args, trained: &Trained, run: &Run, fitted: &Arc<Fitted>) -> Result<()> {
    let model = run.config.model.build(&run.inputs.spec)?;
    let options = args.device.options(BATCH_SIZE, true)?;
    let open = OpenOptions { data: Some(&run.config.data), ..Default::default() };
    for file in &args.files {
        let source = open_rows(file, fitted, &open)?;
        let evaluation = evaluate(&model, &trained.weights, source, &run.inputs.info, &options)?;
        print::note(format!("{} on {}", trained.path.display(), evaluation.device.name));
        let outputs = evaluation.outputs.chunks_exact(evaluation.output_width.max(1));
        for (row, output) in (1..).zip(outputs) {
            let (classes, value) = match fitted.target {
                FittedTarget::Classes { .. } => {
                    (guesses(output, args.top.max(1), &run.inputs), None)
                }
                FittedTarget::Values { .. } => {
                    (Vec::new(), Some(fitted.target.in_file_unit(output[0])))
                }
            };
            if args.json {
                print::json(&Prediction { event: "prediction", file, row, classes, value })?;
            } else {
                let words = value.map_or_else(|| Guess::words(&classes), |value| value.to_string());
                print::data(format!("{} row {row}: {words}", file.display()));
            }
        }
    }
    Ok(())
}
