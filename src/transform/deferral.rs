//! What need not run on the workers: transforms that only move and cover pixels, at the end of the list. Workers draw
//! their numbers as ever, and leave the pixels to the device, which touches them anyway to normalise them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::batch::{DType, SampleSpec};
use crate::error::{Error, Result};
use crate::framing::FRAMED_SIDE_MAX;
use crate::transform::Transform;

/// Where the transforms run that both sides can do. The result is the same to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// Where it costs least.
    #[default]
    Auto,
    /// On the workers.
    Workers,
    /// On the device; what it cannot do still runs on the workers.
    Device,
}

impl FromStr for Augment {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "auto" => Ok(Self::Auto),
            "workers" => Ok(Self::Workers),
            "device" => Ok(Self::Device),
            _ => {
                let message = format!("found {name:?}, expected auto, workers or device");
                Err(Error::config("--augment", message))
            }
        }
    }
}

/// How the device can do a transform instead of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// Not at all.
    Never,
    /// It moves pixels, and leaves the image's size as it is.
    Moves,
    /// It does, and shows this beside the image, a byte a channel; all transforms of a list that do must show the same.
    Pads(u32),
    /// It covers a box of pixels; one transform of a list can.
    Covers,
}

/// How many transforms at the end of a list the device can do for samples of `spec`.
pub fn deferrable<'t>(
    transforms: impl IntoIterator<Item = &'t Box<dyn Transform>, IntoIter: DoubleEndedIterator>,
    spec: &SampleSpec,
) -> usize {
    let frameable = match (&spec.input_shape[..], spec.input_dtype) {
        (&[_, height, width], DType::U8) => height.max(width) <= FRAMED_SIDE_MAX,
        _ => false,
    };
    if !frameable {
        return 0;
    }
    let (mut covered, mut margin) = (false, None);
    let deferrals = transforms.into_iter().rev().map(|transform| transform.deferral());
    let can = |deferral: &Deferral| match *deferral {
        Deferral::Never => false,
        Deferral::Moves => true,
        Deferral::Pads(fill) => *margin.get_or_insert(fill) == fill,
        Deferral::Covers => !std::mem::replace(&mut covered, true),
    };
    deferrals.take_while(can).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::TargetSpec;
    use crate::framing::Framing;
    use crate::rng::Rng;
    use crate::testing::framed;
    use crate::transform::{
        Cutout, Fill, HorizontalFlip, Image, ImageMemory, PadCrop, PadMode, RandomErasing,
        RandomResizedCrop, Size, VerticalFlip,
    };

    fn spec(shape: &[usize]) -> SampleSpec {
        SampleSpec {
            input_shape: shape.to_vec(),
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 2 },
        }
    }

    #[test]
    fn the_end_of_a_list_is_deferred() {
        let crop = || Box::new(RandomResizedCrop::default()) as Box<dyn Transform>;
        let flip = || Box::new(HorizontalFlip::default()) as Box<dyn Transform>;
        let pad = || Box::new(PadCrop::default()) as Box<dyn Transform>;
        let covers = || Box::new(Cutout::default()) as Box<dyn Transform>;
        let white = || {
            Box::new(PadCrop { fill: Fill::Same(255), ..Default::default() }) as Box<dyn Transform>
        };
        let edge = || {
            Box::new(PadCrop { mode: PadMode::Edge, ..Default::default() }) as Box<dyn Transform>
        };
        let images = spec(&[3, 32, 32]);
        for (list, expected) in [
            (vec![], 0),
            (vec![flip(), pad()], 2),
            (vec![crop(), flip()], 1),
            (vec![flip(), crop()], 0),
            (vec![flip(), covers(), pad(), covers(), flip()], 3),
            (vec![white(), flip(), white()], 3),
            (vec![white(), flip(), pad()], 2),
            (vec![flip(), edge(), flip()], 1),
        ] {
            assert_eq!(deferrable(&list, &images), expected);
        }
        let list = vec![flip()];
        assert_eq!(deferrable(&list, &spec(&[3072])), 0);
        assert_eq!(deferrable(&list, &spec(&[3, FRAMED_SIDE_MAX + 1, 1])), 0);
        assert_eq!(deferrable(&list, &spec(&[3, 1, FRAMED_SIDE_MAX + 1])), 0);
        let floats = SampleSpec { input_dtype: DType::F32, ..images };
        assert_eq!(deferrable(&list, &floats), 0);
    }

    /// A list at random of everything that can be deferred, for images of so many channels.
    fn random_list(channels: usize, rng: &mut Rng) -> Vec<Box<dyn Transform>> {
        let fill = |rng: &mut Rng| match (channels, rng.below(2)) {
            (3, 0) => Fill::Each([rng.below(256) as u8, 7, 250]),
            _ => Fill::Same(rng.below(256) as u8),
        };
        let margin = fill(rng);
        let mut room = true;
        let mut covers = || std::mem::replace(&mut room, false);
        (0..rng.below(6))
            .map(|_| -> Box<dyn Transform> {
                match rng.below(6) {
                    0 => Box::new(HorizontalFlip::default()),
                    1 => Box::new(VerticalFlip::default()),
                    2 => Box::new(PadCrop {
                        padding: rng.below(4) as usize,
                        fill: margin,
                        ..Default::default()
                    }),
                    3 => Box::new(PadCrop { padding: 100, fill: margin, ..Default::default() }),
                    4 if covers() => {
                        let size = Size::Exact([(); 2].map(|()| 1 + rng.below(20) as usize));
                        Box::new(Cutout { probability: 0.8, size, fill: fill(rng) })
                    }
                    5 if covers() => {
                        Box::new(RandomErasing { fill: fill(rng), ..Default::default() })
                    }
                    _ => Box::new(HorizontalFlip { probability: 1.0 }),
                }
            })
            .collect()
    }

    #[test]
    fn framings_show_what_the_transforms_make() {
        let sides = [1, 2, 5, 7, 63, 64, 65];
        for key in 0..2000 {
            let mut rng = Rng::keyed(&[key, 0xf4a]);
            let side = |rng: &mut Rng| sides[rng.below(sides.len() as u64) as usize];
            let shape = [[1, 3][rng.below(2) as usize], side(&mut rng), side(&mut rng)];
            let list = random_list(shape[0], &mut rng);
            assert_eq!(deferrable(&list, &spec(&shape)), list.len());
            let planes: Vec<u8> =
                (0..shape.iter().product()).map(|_| 1 + rng.below(255) as u8).collect();
            let (mut memory, mut spare) = (ImageMemory::default(), Vec::new());
            let mut image = Image::raw(shape, &planes, &mut memory);
            let size = [shape[1], shape[2]];
            let mut framing = Framing::whole(size);
            for (i, transform) in list.iter().enumerate() {
                let drawn = Rng::keyed(&[key, i as u64]);
                transform.apply(&mut image, &mut drawn.clone()).expect("raw");
                transform.reframe(&mut framing, size, &mut drawn.clone());
            }
            let names: Vec<&str> = list.iter().map(|transform| transform.name()).collect();
            let applied = image.planes(&mut spare).expect("raw");
            assert!(framed(&planes, shape, &framing) == applied, "{names:?} of {shape:?}");
        }
    }
}
