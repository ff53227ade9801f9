//! Transforms as a configuration names them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::settings::Setting;
use super::{
    Blur, CenterCrop, ColorJitter, Cutout, Fill, Grayscale, HorizontalFlip, Normalize, PadCrop,
    RandAugment, RandomErasing, RandomResizedCrop, Resize, Rotation, Transform, VerticalFlip,
};
use crate::batch::DType;
use crate::error::{Error, Result};
use crate::source::{Encoding, Source};

/// A transform and its settings: a name alone, or a table with `type`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum TransformConfig {
    /// [`Blur`].
    Blur(Blur),
    /// [`CenterCrop`].
    CenterCrop(CenterCrop),
    /// [`ColorJitter`].
    ColorJitter(ColorJitter),
    /// [`Cutout`].
    Cutout(Cutout),
    /// [`Grayscale`].
    Grayscale(Grayscale),
    /// [`HorizontalFlip`].
    HorizontalFlip(HorizontalFlip),
    /// [`Normalize`].
    Normalize(Normalize),
    /// [`PadCrop`].
    PadCrop(PadCrop),
    /// [`RandAugment`].
    RandAugment(RandAugment),
    /// [`RandomErasing`].
    RandomErasing(RandomErasing),
    /// [`RandomResizedCrop`].
    RandomResizedCrop(RandomResizedCrop),
    /// [`Resize`].
    Resize(Resize),
    /// [`Rotation`].
    Rotation(Rotation),
    /// [`VerticalFlip`].
    VerticalFlip(VerticalFlip),
}

/// Names of all transforms.
const NAMES: [&str; 14] = [
    "blur",
    "center_crop",
    "color_jitter",
    "cutout",
    "grayscale",
    "horizontal_flip",
    "normalize",
    "pad_crop",
    "rand_augment",
    "random_erasing",
    "random_resized_crop",
    "resize",
    "rotation",
    "vertical_flip",
];

impl TransformConfig {
    /// The transform itself; none for [`Normalize`], which the device does.
    pub fn build(&self) -> Option<Box<dyn Transform>> {
        Some(match *self {
            Self::Normalize(_) => return None,
            Self::Blur(transform) => Box::new(transform),
            Self::CenterCrop(transform) => Box::new(transform),
            Self::ColorJitter(transform) => Box::new(transform),
            Self::Cutout(transform) => Box::new(transform),
            Self::Grayscale(transform) => Box::new(transform),
            Self::HorizontalFlip(transform) => Box::new(transform),
            Self::PadCrop(transform) => Box::new(transform),
            Self::RandAugment(transform) => Box::new(transform),
            Self::RandomErasing(transform) => Box::new(transform),
            Self::RandomResizedCrop(transform) => Box::new(transform),
            Self::Resize(transform) => Box::new(transform),
            Self::Rotation(transform) => Box::new(transform),
            Self::VerticalFlip(transform) => Box::new(transform),
        })
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Naming transform and setting, what was found and what is expected.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Normalize(_) => Ok(()), // Checked where it is moved to.
            Self::Blur(transform) => transform.validate(),
            Self::CenterCrop(transform) => transform.validate(),
            Self::ColorJitter(transform) => transform.validate(),
            Self::Cutout(transform) => transform.validate(),
            Self::Grayscale(transform) => transform.validate(),
            Self::HorizontalFlip(transform) => transform.validate(),
            Self::PadCrop(transform) => transform.validate(),
            Self::RandAugment(transform) => transform.validate(),
            Self::RandomErasing(transform) => transform.validate(),
            Self::RandomResizedCrop(transform) => transform.validate(),
            Self::Resize(transform) => transform.validate(),
            Self::Rotation(transform) => transform.validate(),
            Self::VerticalFlip(transform) => transform.validate(),
        }
    }

    /// Its name in a configuration.
    fn name(&self) -> &'static str {
        match self {
            Self::Blur(_) => "blur",
            Self::CenterCrop(_) => "center_crop",
            Self::ColorJitter(_) => "color_jitter",
            Self::Cutout(_) => "cutout",
            Self::Grayscale(_) => "grayscale",
            Self::HorizontalFlip(_) => "horizontal_flip",
            Self::Normalize(_) => "normalize",
            Self::PadCrop(_) => "pad_crop",
            Self::RandAugment(_) => "rand_augment",
            Self::RandomErasing(_) => "random_erasing",
            Self::RandomResizedCrop(_) => "random_resized_crop",
            Self::Resize(_) => "resize",
            Self::Rotation(_) => "rotation",
            Self::VerticalFlip(_) => "vertical_flip",
        }
    }

    /// What it paints new pixels with.
    fn fill(&self) -> Option<Fill> {
        match self {
            Self::Cutout(Cutout { fill, .. })
            | Self::PadCrop(PadCrop { fill, .. })
            | Self::RandAugment(RandAugment { fill, .. })
            | Self::RandomErasing(RandomErasing { fill, .. })
            | Self::Rotation(Rotation { fill, .. }) => Some(*fill),
            _ => None,
        }
    }

    /// Checks it against images of `channels` channels and, where all have one, of `size`; gives their size after it.
    fn fits(
        &self,
        channels: usize,
        size: Option<[usize; 2]>,
        target: [usize; 2],
    ) -> Result<Option<[usize; 2]>> {
        let setting = |name| Setting(self.name(), name);
        let of_colours =
            matches!(self, Self::ColorJitter(_) | Self::Grayscale(_) | Self::RandAugment(_));
        if of_colours {
            let expected = "1 (grey) or 3 (colour)";
            setting("channels").expect([1, 3].contains(&channels), channels, expected)?;
        }
        if let Some(fill) = self.fill() {
            fill.check(setting("fill"), channels)?;
        }
        let within = |[h, w]: [usize; 2], asked: [usize; 2]| {
            let good = asked[0] <= h && asked[1] <= w;
            let found = format!("{} x {}", asked[0], asked[1]);
            setting("size").expect(good, found, format!("at most the images' {h} x {w}"))
        };
        match (self, size) {
            (Self::Resize(resize), size) => {
                // Only in proportion to an image does a size depend on it.
                let known = size.or((!resize.is_in_proportion()).then_some([1, 1]));
                return Ok(known.map(|size| resize.size_after(size, target)));
            }
            (Self::RandomResizedCrop(_), _) => return Ok(Some(target)),
            (Self::CenterCrop(crop), size) => {
                let asked = crop.size_after(target);
                size.map_or(Ok(()), |size| within(size, asked))?;
                return Ok(Some(asked));
            }
            (Self::Cutout(cutout), Some(size)) => within(size, cutout.size.square())?,
            _ => {}
        }
        Ok(size)
    }

    /// Reads a list as flags give it: `random-resized-crop:scale=[0.3,1],horizontal-flip`.
    ///
    /// # Errors
    /// Naming `flag` and the transform that is not known, or whose settings are wrong.
    pub fn parse_list(flag: &str, list: &str) -> Result<Vec<Self>> {
        split_list(list).map(|text| Self::parse(text, &format!("{flag} {text}"))).collect()
    }

    /// Reads `name` or `name:key=value:key=value`; `item` stands in errors.
    fn parse(text: &str, item: &str) -> Result<Self> {
        let wrong = |message: String| Error::config(item, message);
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().trim().replace('-', "_");
        if !NAMES.contains(&&*name) {
            return Err(wrong(format!("found {name}, expected one of {}", NAMES.join(", "))));
        }
        let mut toml = format!("type = {name:?}\n");
        parts.for_each(|setting| toml.extend([&quoted(setting), "\n"]));
        toml::from_str(&toml).map_err(|e| wrong(e.message().replace('\n', ", ")))
    }
}

/// Checks the transforms of a list, in their order, against the samples of a source.
///
/// # Errors
/// When they are not images of bytes, have channels that a transform cannot work on, or are smaller than a part that
/// is to be cut out of them.
pub fn check(transforms: &[TransformConfig], source: &dyn Source) -> Result<()> {
    let Some(first) = transforms.first() else { return Ok(()) };
    let spec = source.spec();
    let (&[channels, height, width], DType::U8) = (&spec.input_shape[..], spec.input_dtype) else {
        let (name, shape) = (&source.info().name, &spec.input_shape);
        let message = format!(
            "found samples {:?}{shape:?} in {name}, expected images U8[channels, height, width]",
            spec.input_dtype
        );
        return Err(Error::config(format!("transform {}", first.name()), message));
    };
    let target = [height, width];
    // Image files differ in size; what is raw has the size of the specification.
    let mut size = (source.encoding() == Encoding::Raw).then_some(target);
    for transform in transforms {
        size = transform.fits(channels, size, target)?;
    }
    Ok(())
}

/// Splits at commas outside of brackets.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = list.split(move |c| {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty())
}

/// A word needs no quotes in a list: `mode=reflect`.
fn quoted(setting: &str) -> String {
    let Some((key, value)) = setting.split_once('=') else { return setting.into() };
    let value = value.trim();
    let is_word = value.starts_with(|c: char| c.is_ascii_alphabetic())
        && !matches!(value, "true" | "false" | "inf" | "nan");
    if is_word { format!("{key} = {value:?}") } else { setting.into() }
}

impl FromStr for TransformConfig {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text, &format!("transform {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_names_and_settings() {
        let found = TransformConfig::parse_list(
            "--transforms",
            "random-resized-crop:scale=[0.3,1], horizontal_flip:probability=0.25,pad-crop:padding=4",
        );
        let expected = vec![
            TransformConfig::RandomResizedCrop(RandomResizedCrop {
                scale: [0.3, 1.0],
                ..Default::default()
            }),
            TransformConfig::HorizontalFlip(HorizontalFlip { probability: 0.25 }),
            TransformConfig::PadCrop(PadCrop::default()),
        ];
        assert_eq!(found.expect("all are known"), expected);
    }

    #[test]
    fn what_is_not_known_is_named() {
        let message = |list| {
            TransformConfig::parse_list("--transforms", list).expect_err("is wrong").to_string()
        };
        let unknown = message("flip");
        assert!(unknown.contains("found flip") && unknown.contains("horizontal_flip"), "{unknown}");
        let setting = message("pad-crop:paddding=4");
        assert!(setting.contains("paddding"), "{setting}");
    }
}
