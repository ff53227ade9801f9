//! What a device can do at best; here for the processor. For adapters see [`gpu::ceilings`](crate::gpu::ceilings).

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Result;
use crate::executor::DeviceInfo;
use crate::gpu::stopwatch::{Effort, measure};
use crate::peaks::{self, Peak};

/// The ceilings of a device, measured on it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ceilings {
    /// Bytes a second that a streaming copy reads and writes.
    pub bytes_per_s: f64,
    /// Operations a second of multiply-adds in registers, in `f32`.
    pub f32_flops_per_s: f64,
    /// The same in `f16`, where the device has it.
    pub f16_flops_per_s: Option<f64>,
    /// Operations a second of the matrix units, `f16` squares added up in `f32`, where the device has them.
    pub matrix_flops_per_s: Option<f64>,
}

impl Ceilings {
    /// Operations a second at best; of `half` precision the faster of the ways that the device has.
    pub fn flops_per_s(&self, half: bool) -> f64 {
        let halves = [self.f16_flops_per_s, self.matrix_flops_per_s];
        let halves = halves.into_iter().flatten().filter(|_| half);
        halves.fold(self.f32_flops_per_s, f64::max)
    }

    /// Keeps them for runs that tell how much of the device they make use of. A place that cannot be written is no reason
    /// to fail: such runs then tell nothing.
    pub fn keep(&self, device: &DeviceInfo) {
        let [f32_flops_per_s, f16_flops_per_s] = [false, true].map(|half| self.flops_per_s(half));
        let peak = Peak { f32_flops_per_s, f16_flops_per_s };
        if let Err(error) = peaks::file().and_then(|file| peaks::keep(&file, device, peak)) {
            tracing::warn!(%error, "what the device can do is not kept");
        }
    }
}

/// Floats of each side of the copy: beyond the caches of common processors.
const COPY_LEN: usize = 32 << 20;
/// Floats that a thread copies at a time.
const COPY_CHUNK: usize = 1 << 18;
/// Sums that do not wait for one another: two units with a latency of four or five.
const CHAINS: usize = 12;
/// Multiply-adds of each sum in a task.
const ROUNDS: usize = 1 << 20;

/// The ceilings of the processor, on all threads of the pool.
///
/// # Errors
/// None so far; as on devices.
pub(super) fn of_twins(effort: Effort) -> Result<Ceilings> {
    let x = vec![1.0f32; COPY_LEN];
    let mut y = vec![0.0f32; COPY_LEN];
    let copy = measure(effort, |repetitions| {
        let began = Instant::now();
        for _ in 0..repetitions {
            let chunks = y.par_chunks_mut(COPY_CHUNK).zip(x.par_chunks(COPY_CHUNK));
            chunks.for_each(|(y, x)| y.copy_from_slice(x));
            black_box(&mut y);
        }
        Ok(began.elapsed().as_secs_f64())
    })?;
    let mut lanes = 0;
    let arithmetic = measure(effort, |repetitions| {
        let began = Instant::now();
        for _ in 0..repetitions {
            let found = rayon::broadcast(|_| Arch::new().dispatch(MultiplyAdd));
            lanes = found.iter().map(|(lanes, _)| lanes).sum();
            black_box(found);
        }
        Ok(began.elapsed().as_secs_f64())
    })?;
    Ok(Ceilings {
        bytes_per_s: (2 * size_of_val(&x[..])) as f64 / copy.low_s,
        f32_flops_per_s: (2 * lanes * CHAINS * ROUNDS) as f64 / arithmetic.low_s,
        f16_flops_per_s: None,
        matrix_flops_per_s: None,
    })
}

/// Multiply-adds that never leave the registers.
struct MultiplyAdd;

impl WithSimd for MultiplyAdd {
    /// Lanes of a register, and the sum of all sums.
    type Output = (usize, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        // The factors come from memory, so that no compiler can know the result; sums stay near 2.
        let factor = simd.splat_f32s(black_box(0.75));
        let term = simd.splat_f32s(black_box(0.5));
        // Each begins as another number, so that none is computed only once for several.
        let mut sums =
            std::array::from_fn::<_, CHAINS, _>(|i| simd.splat_f32s(black_box(i as f32)));
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, term);
            }
        }
        let total = sums.into_iter().reduce(|a, b| simd.add_f32s(a, b)).unwrap_or(term);
        (size_of::<S::f32s>() / size_of::<f32>(), simd.reduce_sum_f32s(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiply_adds_are_all_done() {
        // Each sum converges to 0.5 / (1 - 0.75).
        let (lanes, total) = Arch::new().dispatch(MultiplyAdd);
        crate::testing::assert_close(&[total], &[(2 * CHAINS * lanes) as f32], 0.0, 1e-5);
    }
}
