//! Mixup and cutmix: the draw, the mixing of samples and of their targets.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{map2, min_items};
use super::real::Real;
use crate::batch::StepHeader;
use crate::graph::op::{MIX_QUANTILES, MIX_SALT, MixKind, Op};
use crate::rng::pcg3d;

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    let valid = call.header.count as usize;
    match *call.op {
        Op::MixDraw { kind, height, width } => {
            mix_draw(kind, [height, width], call.real(1), call.header, call.out(0));
        }
        Op::Mix => {
            let rows = call.shape(0)[0];
            let [height, width] = plane(call.shape(0));
            mix(call.real(0), call.real(1), rows, [height, width], valid, call.out(0));
        }
        Op::SoftTarget { smoothing, classes } => {
            let smoothing = T::of(f64::from(smoothing));
            soft_target(call.indices(0), call.real(1), classes, smoothing, valid, call.out(0));
        }
        _ => unreachable!("dispatched by family"),
    }
}

/// Height and width of images; what is no image is one line, whose width no box can reach.
fn plane(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [_, _, height, width] => [height, width],
        _ => [1, shape[1..].iter().product()],
    }
}

/// Draws how a batch is mixed; see [`Op::MixDraw`] for the words of `mix`.
pub fn mix_draw<T: Real>(
    kind: MixKind,
    [height, width]: [usize; 2],
    table: &[T],
    header: &StepHeader,
    mix: &mut [T],
) {
    let step = header.step.wrapping_add(header.seed_high);
    let stream = header.seed_low ^ MIX_SALT ^ header.micro_step.wrapping_mul(0x9e37_79b9);
    let [coin, place, _] = pcg3d([0, step, stream]);
    let centre = pcg3d([1, step, stream]);
    let entry = (place >> 22) as usize;
    mix.fill(T::ZERO);
    let cut = match kind {
        MixKind::Mixup => false,
        MixKind::Cutmix => true,
        MixKind::Either => coin < 1 << 31,
    };
    if !cut {
        mix[0] = table[entry];
        return;
    }
    let sides = if kind == MixKind::Either { &table[MIX_QUANTILES..] } else { table };
    let side: f64 = sides[entry].into();
    let cut = |length: usize, random: u32| {
        let (length, half) = (length as u32, (length as u32 * side as u32) >> 17);
        let middle = ((random >> 16) * length) >> 16;
        [middle.saturating_sub(half), (middle + half).min(length)]
    };
    let [y0, y1] = cut(height, centre[0]);
    let [x0, x1] = cut(width, centre[1]);
    let (all, pasted) = ((height * width) as f64, (y1 - y0) * (x1 - x0));
    mix[0] = T::of(all - f64::from(pasted)) * T::of(1.0 / all);
    mix[1] = T::ONE;
    let corners = mix[2..6].iter_mut().zip([y0, y1, x0, x1]);
    corners.for_each(|(word, corner)| *word = T::of(f64::from(corner)));
}

/// Mixes each of the first `valid` rows with the one that mirrors it; the others are copied.
pub fn mix<T: Real>(
    x: &[T],
    mix: &[T],
    rows: usize,
    [height, width]: [usize; 2],
    valid: usize,
    y: &mut [T],
) {
    let row = x.len() / rows;
    let share = mix[0];
    let boxed = mix[1] != T::ZERO;
    let [y0, y1, x0, x1] = [mix[2], mix[3], mix[4], mix[5]].map(|word| word.to_f32() as usize);
    let outputs = y.par_chunks_mut(row).with_min_len(min_items(row)).enumerate();
    outputs.for_each(|(i, y)| {
        let own = &x[i * row..][..row];
        if i >= valid {
            return y.copy_from_slice(own);
        }
        let other = &x[(valid - 1 - i) * row..][..row];
        if !boxed {
            return map2(own, other, y, |a, b| share * a + (T::ONE - share) * b);
        }
        y.copy_from_slice(own);
        let planes = y.chunks_mut(height * width).zip(other.chunks(height * width));
        for (y, other) in planes {
            for line in y0..y1 {
                let pasted = line * width + x0..line * width + x1;
                y[pasted.clone()].copy_from_slice(&other[pasted]);
            }
        }
    });
}

/// The probabilities of the classes that mixed rows aim at; 0 in rows of padding.
pub fn soft_target<T: Real>(
    target: &[u32],
    mix: &[T],
    classes: usize,
    smoothing: T,
    valid: usize,
    probabilities: &mut [T],
) {
    let (share, spread) = (mix[0], smoothing / T::of(classes as f64));
    for (i, row) in probabilities.chunks_mut(classes).enumerate() {
        if i >= valid {
            row.fill(T::ZERO);
            continue;
        }
        row.fill(spread);
        for (class, share) in [(target[i], share), (target[valid - 1 - i], T::ONE - share)] {
            if let Some(probability) = row.get_mut(class as usize) {
                *probability += (T::ONE - smoothing) * share;
            }
        }
    }
}

#[cfg(test)]
mod tests;
