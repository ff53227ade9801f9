//! The optimizer: norm of the gradients, the decision to apply them, the update of all parameters in one
//! pass, and their sum over micro-steps.

use rayon::prelude::*;

use super::call::Call;
use super::parallel::{CHUNK, map, sum, vectorized};
use super::real::Real;
use crate::graph::op::{
    GRAD_PARTIALS, LOSS_SCALE_GROWTH_INTERVAL, LOSS_SCALE_LOG2, LOSS_SCALE_LOG2_MAX,
    LOSS_SCALE_LOG2_MIN, Op, UpdateRule,
};

pub(super) fn run<T: Real>(call: &mut Call<'_, '_, T>) {
    match *call.op {
        Op::GradSquares => grad_squares(call.real(0), call.out(0)),
        Op::LossScale => {
            let scale = loss_scale(call.real(1)[8]);
            map(call.real(0), call.out(0), |x| x * scale);
        }
        Op::OptimizerControl { max_norm, beta1, beta2, scaled } => {
            optimizer_control(call.real(0), max_norm, [beta1, beta2], scaled, call.out(0));
        }
        Op::OptimizerUpdate { rule } => {
            let first = (rule.moments() > 0).then(|| call.out(1));
            let second = (rule.moments() > 1).then(|| call.out(2));
            let memory = Memory { gradients: call.real(0), parameters: call.out(0), first, second };
            optimizer_update(rule, call.real(1), call.header.lr, memory);
        }
        Op::GradAccumulate => {
            let weight = T::of(f64::from(call.header.weight));
            let first = call.header.micro_step == 0;
            grad_accumulate(call.real(0), weight, first, call.out(0));
        }
        Op::AddTo => update(call.real(0), call.out(0), |x, sum| *sum += x),
        _ => unreachable!("dispatched by family"),
    }
}

/// Sums of squares of equal stretches of the gradients, one a partial.
pub fn grad_squares<T: Real>(gradients: &[T], partials: &mut [T]) {
    let stretch = gradients.len().div_ceil(GRAD_PARTIALS);
    partials.par_iter_mut().with_min_len(CHUNK.div_ceil(stretch.max(1))).enumerate().for_each(
        |(i, partial)| {
            let first = (i * stretch).min(gradients.len());
            let end = (first + stretch).min(gradients.len());
            *partial = vectorized(
                #[inline(always)]
                || sum(&gradients[first..end], |g| g * g),
            );
        },
    );
}

/// The loss scale, of which `moved` (word 8 of control) says how many powers of two it went from its start.
pub fn loss_scale<T: Real>(moved: T) -> T {
    T::of(f64::from(moved.to_f32() + LOSS_SCALE_LOG2 as f32).exp2())
}

/// Decides on the update; see [`Op::OptimizerControl`] for the ten words of `control`.
pub fn optimizer_control<T: Real>(
    partials: &[T],
    max_norm: f32,
    betas: [f32; 2],
    scaled: bool,
    control: &mut [T],
) {
    let scale = if scaled { loss_scale(control[8]) } else { T::ONE };
    let norm = sum(partials, |x| x).sqrt() / scale;
    control[4] = norm;
    if scaled {
        move_loss_scale(norm.is_finite(), control);
    }
    if !norm.is_finite() {
        control[3] += T::ONE;
        control[5] = T::ONE;
        control[6] = T::ZERO;
        control[7] += T::ONE;
        return;
    }
    // 1 - βᵗ by its recurrence, which unlike the power loses nothing where βᵗ is near 1.
    for (correction, beta) in control.iter_mut().zip(betas.map(|beta| T::of(f64::from(beta)))) {
        *correction = *correction * beta + (T::ONE - beta);
    }
    control[2] += T::ONE;
    // As `torch.nn.utils.clip_grad_norm_`.
    let factor = T::of(f64::from(max_norm)) / (norm + T::of(1e-6));
    control[5] = if factor < T::ONE { factor } else { T::ONE } / scale;
    control[6] = T::ONE;
    control[7] = T::ZERO;
}

/// Halves the loss scale after an overflow, doubles it after many updates without one.
fn move_loss_scale<T: Real>(is_finite: bool, control: &mut [T]) {
    let moved = |to: i32| T::of(f64::from(to - LOSS_SCALE_LOG2));
    if !is_finite {
        let less = control[8] - T::ONE;
        let least = moved(LOSS_SCALE_LOG2_MIN);
        control[8] = if less < least { least } else { less };
        control[9] = T::ZERO;
        return;
    }
    control[9] += T::ONE;
    if control[9] >= T::of(f64::from(LOSS_SCALE_GROWTH_INTERVAL)) {
        let more = control[8] + T::ONE;
        let most = moved(LOSS_SCALE_LOG2_MAX);
        control[8] = if more > most { most } else { more };
        control[9] = T::ZERO;
    }
}

/// What an update reads and writes, all of one length.
#[derive(Debug)]
pub struct Memory<'a, T> {
    /// The gradients.
    pub gradients: &'a [T],
    /// The parameters.
    pub parameters: &'a mut [T],
    /// First moments or momentum, where the rule keeps them.
    pub first: Option<&'a mut [T]>,
    /// Second moments, where the rule keeps them.
    pub second: Option<&'a mut [T]>,
}

/// Moves all parameters by the rule, unless `control` says to skip; the formulas are those of `torch.optim`.
///
/// # Panics
/// When a moment that the rule keeps is missing.
pub fn optimizer_update<T: Real>(rule: UpdateRule, control: &[T], lr: f32, memory: Memory<'_, T>) {
    if control[6] == T::ZERO {
        return;
    }
    let (lr, factor) = (T::of(f64::from(lr)), control[5]);
    let of = |x: f32| T::of(f64::from(x));
    let Memory { gradients, parameters, first, second } = memory;
    match rule {
        UpdateRule::Sgd { momentum, nesterov, weight_decay } => {
            let (momentum, decay) = (of(momentum), of(weight_decay));
            let Some(first) = first else {
                return update(gradients, parameters, |g, p| *p -= lr * (factor * g + decay * *p));
            };
            update_with_first(gradients, parameters, first, |g, p, buffer| {
                let g = factor * g + decay * *p;
                *buffer = momentum * *buffer + g;
                *p -= lr * if nesterov { g + momentum * *buffer } else { *buffer };
            });
        }
        UpdateRule::Adam { beta1, beta2, eps, weight_decay, decoupled } => {
            let (beta1, beta2, eps, decay) = (of(beta1), of(beta2), of(eps), of(weight_decay));
            let keep = if decoupled { T::ONE - lr * decay } else { T::ONE };
            let penalty = if decoupled { T::ZERO } else { decay };
            let step = lr / control[0];
            let root = control[1].sqrt();
            let (first, second) = first.zip(second).expect("Adam keeps two moments");
            update_with_both(gradients, parameters, first, second, |g, p, m, v| {
                let g = factor * g + penalty * *p;
                *m = beta1 * *m + (T::ONE - beta1) * g;
                *v = beta2 * *v + (T::ONE - beta2) * g * g;
                *p = keep * *p - step * *m / (v.sqrt() / root + eps);
            });
        }
    }
}

/// Calls `f` with every element of `gradients` and of `parameters`.
pub(super) fn update<T: Real>(gradients: &[T], parameters: &mut [T], f: impl Fn(T, &mut T) + Sync) {
    parameters.par_chunks_mut(CHUNK).zip(gradients.par_chunks(CHUNK)).for_each(|(p, g)| {
        vectorized(
            #[inline(always)]
            || p.iter_mut().zip(g).for_each(|(p, &g)| f(g, p)),
        );
    });
}

fn update_with_first<T: Real>(
    gradients: &[T],
    parameters: &mut [T],
    first: &mut [T],
    f: impl Fn(T, &mut T, &mut T) + Sync,
) {
    let moments = first.par_chunks_mut(CHUNK);
    let chunks = parameters.par_chunks_mut(CHUNK).zip(moments).zip(gradients.par_chunks(CHUNK));
    chunks.for_each(|((p, m), g)| {
        vectorized(
            #[inline(always)]
            || p.iter_mut().zip(m).zip(g).for_each(|((p, m), &g)| f(g, p, m)),
        );
    });
}

fn update_with_both<T: Real>(
    gradients: &[T],
    parameters: &mut [T],
    first: &mut [T],
    second: &mut [T],
    f: impl Fn(T, &mut T, &mut T, &mut T) + Sync,
) {
    let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
    let chunks = parameters.par_chunks_mut(CHUNK).zip(moments).zip(gradients.par_chunks(CHUNK));
    chunks.for_each(|((p, (m, v)), g)| {
        vectorized(
            #[inline(always)]
            || {
                for ((p, (m, v)), &g) in p.iter_mut().zip(m.iter_mut().zip(v)).zip(g) {
                    f(g, p, m, v);
                }
            },
        );
    });
}

/// sum = weight · g for the first micro-step, else sum + weight · g.
pub fn grad_accumulate<T: Real>(gradients: &[T], weight: T, first: bool, sum: &mut [T]) {
    if first {
        return map(gradients, sum, |g| weight * g);
    }
    update(gradients, sum, |g, sum| *sum += weight * g);
}

#[cfg(test)]
mod tests;
