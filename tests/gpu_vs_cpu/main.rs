//! Every operation's shader against its CPU twin, at sizes that straddle the edges of workgroups, with
//! full and partial batches. Without an adapter these tests skip aloud; `REQUIRE_GPU=1` makes that a
//! failure.

mod attention;
mod bench;
mod cached_attention;
mod choose_token;
mod dense;
mod elementwise;
mod embedding;
mod executor;
mod header;
mod losses;
mod mix;
mod norms;
mod optimizer;
mod pooling;
mod rearrange;
mod sums;

use inflight::batch::StepHeader;
use inflight::rng::Rng;

/// Around a workgroup's size, and large enough for several.
const SIZES: [usize; 6] = [1, 63, 64, 65, 1000, 20_011];

/// Standard normal numbers, the same for the same key.
fn normal(key: u64, len: usize) -> Vec<f32> {
    let mut rng = Rng::keyed(&[key, 0x6e0]);
    (0..len).map(|_| rng.normal() as f32).collect()
}

/// Uniform integers below a bound, the same for the same key.
fn below(key: u64, bound: u64, len: usize) -> Vec<u32> {
    let mut rng = Rng::keyed(&[key, 0xb10]);
    (0..len).map(|_| rng.below(bound) as u32).collect()
}

/// The header of a step with so many valid rows.
fn header(count: usize) -> StepHeader {
    StepHeader {
        count: count as u32,
        step: 5,
        seed_low: 0xdead_beef,
        seed_high: 17,
        lr: 0.01,
        micro_step: 1,
        weight: 0.25,
        ..StepHeader::default()
    }
}

/// A full batch, half of one, and a single sample.
fn counts(batch: usize) -> Vec<usize> {
    let mut counts = vec![batch, batch.div_ceil(2), 1];
    counts.dedup();
    counts
}
