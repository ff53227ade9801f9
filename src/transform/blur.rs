//! Smooths images with a Gaussian.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use super::pad_crop::reflect;
use super::settings::{Setting, Spread, round_to_byte};
use super::{Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// Smooths every image with a Gaussian whose deviation is drawn evenly (torchvision's `GaussianBlur`). Beyond the edge
/// the image is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blur {
    /// From 0 (never) to 1 (always).
    pub probability: f64,
    /// Pixels that are averaged along each side: an odd number.
    pub kernel: usize,
    /// Deviation in pixels: a number, or `[least, most]`.
    pub sigma: Spread,
}

/// Side of the kernel at most: far beyond recipes (23 for 224 pixels), and a bound for its cost.
const KERNEL_MAX: usize = 255;

impl Default for Blur {
    fn default() -> Self {
        Self { probability: 1.0, kernel: 5, sigma: Spread::Between([0.1, 2.0]) }
    }
}

impl Blur {
    pub(super) fn validate(&self) -> Result<()> {
        let setting = |name| Setting("blur", name);
        setting("probability").probability(self.probability)?;
        let good = self.kernel % 2 == 1 && self.kernel <= KERNEL_MAX;
        setting("kernel").expect(good, self.kernel, format!("an odd number up to {KERNEL_MAX}"))?;
        setting("sigma").ordered(self.sigmas(), [f64::MIN_POSITIVE, f64::INFINITY])
    }

    fn sigmas(&self) -> [f64; 2] {
        match self.sigma {
            Spread::Around(sigma) => [sigma; 2],
            Spread::Between(bounds) => bounds,
        }
    }
}

impl Transform for Blur {
    fn name(&self) -> &str {
        "blur"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        if rng.uniform() >= self.probability {
            return Ok(());
        }
        let [low, high] = self.sigmas();
        blur(image, self.kernel, rng.range(low, high))
    }
}

thread_local! {
    // A worker's sums, kept from image to image.
    static SUMS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Smooths an image with a Gaussian of `kernel` x `kernel` pixels and a deviation of `sigma` pixels.
///
/// # Errors
/// When the image cannot be decoded.
///
/// # Panics
/// If `kernel` is even or above 255.
pub fn blur(image: &mut Image<'_>, kernel: usize, sigma: f64) -> Result<()> {
    assert!(kernel % 2 == 1 && kernel <= KERNEL_MAX, "a kernel of {kernel}");
    let mut weights = [0.0; KERNEL_MAX];
    let weights = &mut weights[..kernel];
    gaussian(weights, sigma);
    let shape @ [channels, height, width] = image.shape();
    let mut sums = SUMS.take();
    let row = channels * width;
    // One row of sums down the columns, with room for what is mirrored at both ends, and one of sums along it.
    let margin = kernel / 2;
    sums.clear();
    sums.resize(2 * row + 2 * margin * channels, 0.0);
    let done = image.redraw(shape, |old, new| {
        let (sums, line) = sums.split_at_mut(row + 2 * margin * channels);
        for y in 0..height {
            let middle = &mut sums[margin * channels..][..row];
            middle.fill(0.0);
            for (i, &weight) in weights.iter().enumerate() {
                let from = reflect((y + i) as isize - margin as isize, height) * row;
                for (sum, &byte) in middle.iter_mut().zip(&old[from..from + row]) {
                    *sum += weight * f32::from(byte);
                }
            }
            mirror_ends(sums, margin, channels, width);
            line.fill(0.0);
            for (i, &weight) in weights.iter().enumerate() {
                for (total, &sum) in line.iter_mut().zip(&sums[i * channels..][..row]) {
                    *total += weight * sum;
                }
            }
            for (byte, &total) in new[y * row..][..row].iter_mut().zip(&*line) {
                *byte = round_to_byte(total);
            }
        }
    });
    SUMS.set(sums);
    done
}

/// Writes the weights of a Gaussian; their sum is 1.
fn gaussian(weights: &mut [f32], sigma: f64) {
    let middle = (weights.len() / 2) as f64;
    let weight = |i: usize| (-0.5 * ((i as f64 - middle) / sigma).powi(2)).exp();
    let sum: f64 = (0..weights.len()).map(weight).sum();
    weights.iter_mut().enumerate().for_each(|(i, w)| *w = (weight(i) / sum) as f32);
}

/// Fills `margin` pixels on both sides of a row of `width` pixels with its mirror image.
fn mirror_ends(sums: &mut [f32], margin: usize, channels: usize, width: usize) {
    for x in (0..margin).chain(margin + width..2 * margin + width) {
        let from = margin + reflect(x as isize - margin as isize, width);
        sums.copy_within(from * channels..(from + 1) * channels, x * channels);
    }
}
