//! Changes brightness, contrast, saturation and hue at random.

use serde::{Deserialize, Serialize};

use super::color::{adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation};
use super::settings::{Setting, Spread};
use super::{Image, Transform};
use crate::error::Result;
use crate::rng::Rng;

/// Changes the colours of every image by factors drawn evenly, in an order drawn anew for each (torchvision's
/// `ColorJitter`). What has no spread stays. Grey images have no saturation and hue to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ColorJitter {
    /// Factor of every byte: a number around 1, as 0.4, or `[least, most]`.
    pub brightness: Spread,
    /// Factor of the distance from the mean grey, likewise.
    pub contrast: Spread,
    /// Factor of the distance from a pixel's own grey, likewise.
    pub saturation: Spread,
    /// Shares of a turn around the circle of hues: a number around 0, at most 0.5, or `[least, most]`.
    pub hue: Spread,
}

/// What is done to one image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Adjustment {
    Brightness(f64),
    Contrast(f64),
    Saturation(f64),
    Hue(f64),
}

impl Adjustment {
    fn apply(self, image: &mut Image<'_>) -> Result<()> {
        match self {
            Adjustment::Brightness(factor) => adjust_brightness(image, factor),
            Adjustment::Contrast(factor) => adjust_contrast(image, factor),
            Adjustment::Saturation(factor) => adjust_saturation(image, factor),
            Adjustment::Hue(shift) => adjust_hue(image, shift),
        }
    }
}

impl ColorJitter {
    pub(super) fn validate(&self) -> Result<()> {
        let setting = |name| Setting("color_jitter", name);
        self.brightness.check(setting("brightness"), [0.0, f64::INFINITY])?;
        self.contrast.check(setting("contrast"), [0.0, f64::INFINITY])?;
        self.saturation.check(setting("saturation"), [0.0, f64::INFINITY])?;
        self.hue.check(setting("hue"), [-0.5, 0.5])
    }

    /// What is done to one image, in this order; none where there is no spread.
    fn draw(&self, rng: &mut Rng) -> [Option<Adjustment>; 4] {
        let mut number = |spread: Spread, middle: f64, least: f64| {
            let [low, high] = spread.bounds(middle);
            let low = low.max(least);
            let drawn = rng.range(low, high);
            (low != middle || high != middle).then_some(drawn)
        };
        let mut all = [
            number(self.brightness, 1.0, 0.0).map(Adjustment::Brightness),
            number(self.contrast, 1.0, 0.0).map(Adjustment::Contrast),
            number(self.saturation, 1.0, 0.0).map(Adjustment::Saturation),
            number(self.hue, 0.0, -0.5).map(Adjustment::Hue),
        ];
        // Every order is equally likely (Fisher and Yates, 1938).
        for last in (1..all.len()).rev() {
            all.swap(last, rng.below(last as u64 + 1) as usize);
        }
        all
    }
}

impl Transform for ColorJitter {
    fn name(&self) -> &str {
        "color_jitter"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        self.draw(rng).into_iter().flatten().try_for_each(|adjustment| adjustment.apply(image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_even_over_their_ranges() {
        let jitter = ColorJitter {
            brightness: Spread::Around(0.4),
            contrast: Spread::Between([0.5, 2.0]),
            saturation: Spread::Around(3.0),
            hue: Spread::Around(0.1),
        };
        let ranges = [[0.6, 1.4], [0.5, 2.0], [0.0, 4.0], [-0.1, 0.1]];
        let mut counts = [[0u32; 8]; 4];
        for key in 0..8000 {
            for adjustment in jitter.draw(&mut Rng::keyed(&[key])) {
                let (kind, drawn) = match adjustment.expect("all have a spread") {
                    Adjustment::Brightness(x) => (0, x),
                    Adjustment::Contrast(x) => (1, x),
                    Adjustment::Saturation(x) => (2, x),
                    Adjustment::Hue(x) => (3, x),
                };
                let [low, high] = ranges[kind];
                assert!((low..high).contains(&drawn), "{adjustment:?}");
                counts[kind][((drawn - low) / (high - low) * 8.0) as usize] += 1;
            }
        }
        counts.iter().for_each(|counts| crate::testing::assert_even(counts));
    }

    #[test]
    fn every_order_is_as_likely() {
        let some = Spread::Around(0.1);
        let jitter = ColorJitter { brightness: some, contrast: some, saturation: some, hue: some };
        let mut counts = std::collections::BTreeMap::new();
        for key in 0..12_000 {
            let order = jitter
                .draw(&mut Rng::keyed(&[key]))
                .map(|a| a.as_ref().map(std::mem::discriminant));
            *counts.entry(format!("{order:?}")).or_insert(0u32) += 1;
        }
        assert_eq!(counts.len(), 24);
        crate::testing::assert_even(&counts.into_values().collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_spread_stays() {
        let jitter = ColorJitter { contrast: Spread::Around(0.5), ..Default::default() };
        for key in 0..100 {
            let drawn = jitter.draw(&mut Rng::keyed(&[key]));
            let all: Vec<_> = drawn.into_iter().flatten().collect();
            assert!(matches!(all[..], [Adjustment::Contrast(_)]), "{all:?}");
        }
    }
}
