//! What several transforms are made of: sizes, fills and ranges, their checks, and rounding.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Side of an image in pixels at most.
const SIDE_MAX: usize = 16_384;

/// A size in pixels: a side, or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number of pixels or [height, width]")]
pub enum Size {
    /// One side; what it means stands with the transform.
    Side(usize),
    /// Rows and columns.
    Exact([usize; 2]),
}

impl Size {
    /// `[height, width]`, where a side alone is both.
    pub fn square(self) -> [usize; 2] {
        match self {
            Size::Side(side) => [side; 2],
            Size::Exact(size) => size,
        }
    }

    pub(super) fn check(self, setting: Setting<'_>) -> Result<()> {
        let good = self.square().iter().all(|side| (1..=SIDE_MAX).contains(side));
        setting.expect(good, format!("{self}"), format!("1 to {SIDE_MAX} pixels"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Side(side) => write!(f, "{side}"),
            Size::Exact([height, width]) => write!(f, "[{height}, {width}]"),
        }
    }
}

/// What new pixels are painted with: bytes, as in the image itself, before any normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a byte (0 to 255) or a list of three, one a channel")]
pub enum Fill {
    /// The same byte in every channel.
    Same(u8),
    /// A byte for each of three channels.
    Each([u8; 3]),
}

impl Default for Fill {
    fn default() -> Self {
        Fill::Same(0)
    }
}

impl Fill {
    /// The byte of a channel.
    pub fn channel(self, channel: usize) -> u8 {
        match self {
            Fill::Same(byte) => byte,
            Fill::Each(bytes) => bytes[channel % 3],
        }
    }

    /// As a [`Framing`](crate::framing::Framing) has it: a byte a channel, the lowest first.
    pub(super) fn word(self) -> u32 {
        let bytes = match self {
            Fill::Same(byte) => [byte; 4],
            Fill::Each([red, green, blue]) => [red, green, blue, 0],
        };
        u32::from_le_bytes(bytes)
    }

    /// Paints pixels of `channels` channels.
    pub(super) fn paint(self, pixels: &mut [u8], channels: usize) {
        match self {
            Fill::Same(byte) => pixels.fill(byte),
            Fill::Each(bytes) => {
                let one = &bytes[..channels.min(3)];
                pixels.chunks_exact_mut(channels).for_each(|pixel| pixel.copy_from_slice(one));
            }
        }
    }

    /// Checks that there is a byte for each of `channels` channels.
    pub(super) fn check(self, setting: Setting<'_>, channels: usize) -> Result<()> {
        let good = matches!(self, Fill::Same(_)) || channels == 3;
        setting.expect(good, "three bytes", format!("one, since images have {channels} channels"))
    }
}

/// How far a number is drawn around its middle, or between which bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or [low, high]")]
pub enum Spread {
    /// Up to so much below and above the middle.
    Around(f64),
    /// From the first to the second.
    Between([f64; 2]),
}

impl Spread {
    /// `[low, high]`, for a number drawn around `middle`.
    pub fn bounds(self, middle: f64) -> [f64; 2] {
        match self {
            Spread::Around(by) => [middle - by, middle + by],
            Spread::Between(bounds) => bounds,
        }
    }

    /// Checks that the bounds lie within `least..=most`, in order.
    pub(super) fn check(self, setting: Setting<'_>, [least, most]: [f64; 2]) -> Result<()> {
        match self {
            // What reaches below the least is cut off there.
            Spread::Around(by) => {
                let good = by >= 0.0 && by.is_finite() && by <= most;
                setting.expect(good, by, words([0.0, most]))
            }
            Spread::Between(bounds) => setting.ordered(bounds, [least, most]),
        }
    }
}

impl Default for Spread {
    fn default() -> Self {
        Spread::Around(0.0)
    }
}

/// The setting that is being checked: which transform's, and its name.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a>(pub &'a str, pub &'a str);

impl Setting<'_> {
    /// Refuses what is not good.
    pub fn expect(
        self,
        good: bool,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Result<()> {
        if good {
            return Ok(());
        }
        let Setting(transform, setting) = self;
        let message = format!("found {found}, expected {expected}");
        Err(Error::config(format!("transform {transform}: {setting}"), message))
    }

    /// A share or a probability.
    pub fn probability(self, found: f64) -> Result<()> {
        self.expect((0.0..=1.0).contains(&found), found, "0 to 1")
    }

    /// Two numbers in order, within bounds.
    pub fn ordered(self, [low, high]: [f64; 2], [least, most]: [f64; 2]) -> Result<()> {
        let good = least <= low && low <= high && high <= most && high.is_finite();
        let found = format!("[{low}, {high}]");
        self.expect(good, found, format!("[low, high] with low <= high, {}", words([least, most])))
    }
}

fn words([least, most]: [f64; 2]) -> String {
    match (least, most) {
        (_, f64::INFINITY) if least == f64::MIN_POSITIVE => "above 0".into(),
        (least, f64::INFINITY) => format!("at least {least}"),
        (least, most) if least == f64::MIN_POSITIVE => format!("above 0, up to {most}"),
        (least, most) => format!("{least} to {most}"),
    }
}

/// The nearest byte to a number from 0 to 255, halves to the even one. Adding 1.5 · 2²³ leaves no room for fractions;
/// `f32::round_ties_even` is a call where processors differ.
pub(super) fn round_to_byte(x: f32) -> u8 {
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT) - SHIFT) as u8
}
