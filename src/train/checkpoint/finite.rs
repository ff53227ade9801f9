//! A model that is not finite is never saved: whoever goes on from it is lost, and the one before would be removed for it.

use crate::error::{Error, ErrorKind, Result, Stage};
use crate::executor::Snapshot;
use crate::graph::Arena;
use crate::graph::plan::Program;
use crate::train::weights::{arena_of, model_variables};

/// Checks the weights, their average, and what else makes up the model.
///
/// # Errors
/// Naming the first tensor with a value that is infinite or NaN, as a run that diverged.
pub(super) fn check(program: &Program, snapshot: &Snapshot, step: u64) -> Result<()> {
    let averages = program.averages().then_some(Arena::Average);
    for weights in std::iter::once(Arena::Params).chain(averages) {
        for (arena, variable) in model_variables(program, weights) {
            let values = &arena_of(snapshot, arena)?[variable.range()];
            let bad = values.iter().filter(|value| !value.is_finite()).count();
            if bad > 0 {
                let message = format!(
                    "{bad} of its {} values are not finite at step {step}, which is not saved",
                    values.len()
                );
                let (stage, kind) = (Stage::Checkpoint, ErrorKind::Diverged);
                return Err(Error::new(stage, kind, &variable.name, message)
                    .hint("a lower --lr, or --clip-norm 1; the checkpoint before is still there"));
            }
        }
    }
    Ok(())
}
