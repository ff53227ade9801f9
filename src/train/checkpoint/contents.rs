//! Between arenas and named tensors: which stretch of which arena is which tensor of which file.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::executor::Snapshot;
use crate::graph::Arena;
use crate::graph::plan::{CONTROL_NAME, Program, Variable};
use crate::train::weights::{TensorBytes, Weights, arena_of, model_variables};

/// Prefix of what lies between the tensors of an arena. It is zeros, and then not saved; whatever else it
/// should ever be, a checkpoint keeps it, since a resumed run must have the same bits.
const GAP: &str = "gap.";

/// A tensor of `state.safetensors`, or one of `model.safetensors`, and where it lies.
struct Section<'a> {
    name: String,
    shape: &'a [usize],
    arena: Arena,
    range: Range<usize>,
}

fn model_sections(program: &Program) -> impl Iterator<Item = Section<'_>> {
    model_variables(program, program.weights_arena()).map(|(arena, variable)| Section {
        name: variable.name.clone(),
        shape: &variable.shape,
        arena,
        range: variable.range(),
    })
}

/// The moments, named after their parameters (`first.net.0.weight`), and the optimizer's control. Where the
/// model's weights are averages, the parameters that training goes on with are here too (`raw.net.0.weight`).
fn state_sections(program: &Program) -> impl Iterator<Item = Section<'_>> {
    let raw = program.averages().then_some((Arena::Params, "raw"));
    let moments = [(Arena::First, "first"), (Arena::Second, "second")]
        .into_iter()
        .filter(|(arena, _)| program.arenas.contains_key(arena))
        .chain(raw)
        .flat_map(move |(arena, prefix)| {
            // Matrices that Muon moves lie behind all second moments.
            let kept = move |parameter: &&Variable| parameter.range().end <= program.arenas[&arena];
            program.params.iter().filter(kept).map(move |parameter| Section {
                name: format!("{prefix}.{}", parameter.name),
                shape: &parameter.shape,
                arena,
                range: parameter.range(),
            })
        });
    let control = program.states.iter().filter(|state| state.name == CONTROL_NAME).map(|state| {
        let (name, range) = (state.name.clone(), state.range());
        Section { name, shape: &state.shape, arena: Arena::State, range }
    });
    moments.chain(control)
}

/// The tensors of `state.safetensors`: with the weights, all that the persistent arenas hold.
pub(super) fn state_tensors<'a>(
    program: &'a Program,
    snapshot: &'a Snapshot,
) -> Result<Vec<(String, TensorBytes<'a>)>> {
    let mut tensors = Vec::new();
    for section in state_sections(program) {
        let values = &arena_of(snapshot, section.arena)?[section.range];
        tensors.push((section.name, TensorBytes::floats(section.shape, values)));
    }
    for (arena, range) in gaps(program) {
        let values = &arena_of(snapshot, arena)?[range.clone()];
        if values.iter().any(|value| value.to_bits() != 0) {
            let name = format!("{GAP}{}.{}", arena_name(arena), range.start);
            tensors.push((name, TensorBytes::floats(&[range.len()], values)));
        }
    }
    Ok(tensors)
}

/// The arenas, put together again from both files.
///
/// # Errors
/// When the tensors are not exactly those of the program, with the difference.
pub(super) fn restore(program: &Program, model: &Weights, state: &Weights) -> Result<Snapshot> {
    let mut state = state.clone();
    let saved_gaps: BTreeMap<String, Vec<f32>> = state.split_off(GAP).into_iter().collect();
    let (in_model, in_state): (Vec<_>, Vec<_>) =
        (model_sections(program).collect(), state_sections(program).collect());
    model.expect(in_model.iter().map(|section| (section.name.as_str(), section.shape)))?;
    state.expect(in_state.iter().map(|section| (section.name.as_str(), section.shape)))?;
    let mut arenas: BTreeMap<Arena, Vec<f32>> = program
        .persistent_arenas()
        .map(|arena| (arena, vec![0.0; program.arenas[&arena]]))
        .collect();
    let mut put = |arena: Arena, range: Range<usize>, values: &[f32]| {
        arenas.get_mut(&arena).expect("sections lie in persistent arenas")[range]
            .copy_from_slice(values);
    };
    for (sections, weights) in [(in_model, model), (in_state, &state)] {
        for section in sections {
            put(section.arena, section.range, weights.values(&section.name));
        }
    }
    let mut left = saved_gaps.len();
    for (arena, range) in gaps(program) {
        let name = format!("{}.{}", arena_name(arena), range.start);
        if let Some(values) = saved_gaps.get(&name).filter(|values| values.len() == range.len()) {
            put(arena, range, values);
            left -= 1;
        }
    }
    if left > 0 {
        let message = "its arenas are laid out in another way";
        return Err(Error::checkpoint("state.safetensors", message)
            .hint("the version of inflight that wrote it"));
    }
    Ok(Snapshot { arenas: arenas.into_iter().collect() })
}

/// What no section covers, arena by arena in order.
fn gaps(program: &Program) -> Vec<(Arena, Range<usize>)> {
    let mut covered: BTreeMap<Arena, Vec<Range<usize>>> =
        program.persistent_arenas().map(|arena| (arena, Vec::new())).collect();
    for section in model_sections(program).chain(state_sections(program)) {
        covered.entry(section.arena).or_default().push(section.range);
    }
    let mut gaps = Vec::new();
    for (arena, mut ranges) in covered {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut at = 0;
        for range in ranges {
            gaps.push((arena, at..range.start));
            at = range.end;
        }
        gaps.push((arena, at..program.arenas[&arena]));
    }
    gaps.retain(|(_, range)| !range.is_empty());
    gaps
}

fn arena_name(arena: Arena) -> String {
    format!("{arena:?}").to_lowercase()
}
