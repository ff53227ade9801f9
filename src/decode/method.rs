//! Which codec decodes a picture, and at what size.

use serde::{Deserialize, Serialize};

/// At what size image files are decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodeSize {
    /// As they are stored.
    #[default]
    Full,
    /// A JPEG whose first crop is made smaller by half or more is decoded at 1/2, 1/4 or 1/8 of its size, so that the
    /// crop still has at least as many pixels as are wanted of it: Pillow's `Image.draft`. Pixels are then not those of
    /// decoding in full.
    Reduced,
}

impl std::str::FromStr for DecodeSize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "full" => Ok(Self::Full),
            "reduced" => Ok(Self::Reduced),
            _ => Err(format!("found {name:?}, expected full or reduced")),
        }
    }
}

/// How a picture is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Method {
    /// Who decodes it, if it is a JPEG.
    pub codec: JpegCodec,
    /// How much smaller it becomes.
    pub reduction: Reduction,
}

/// Who decodes a JPEG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JpegCodec {
    /// `zune-jpeg`, which is always there.
    #[cfg_attr(not(feature = "turbojpeg"), default)]
    Zune,
    /// libjpeg-turbo, whose pixels are those of Pillow to the bit.
    #[cfg(feature = "turbojpeg")]
    #[default]
    Turbo,
}

impl JpegCodec {
    /// Those of this build.
    pub const ALL: &[Self] = &[
        Self::Zune,
        #[cfg(feature = "turbojpeg")]
        Self::Turbo,
    ];
}

/// How much smaller than it is stored a picture is decoded: each side is divided, and rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Not at all.
    #[default]
    Whole = 1,
    /// By 2.
    Half = 2,
    /// By 4.
    Quarter = 4,
    /// By 8.
    Eighth = 8,
}

impl Reduction {
    /// All, the smallest pictures first.
    pub const ALL: [Self; 4] = [Self::Eighth, Self::Quarter, Self::Half, Self::Whole];

    /// What sides are divided by.
    pub fn divisor(self) -> usize {
        self as usize
    }

    /// Pixels that are left of `len`.
    pub fn of(self, len: usize) -> usize {
        len.div_ceil(self.divisor())
    }

    /// The greatest after which a part of `[height, width]` is still at least as large as `size`.
    pub fn down_to(part: [f64; 2], size: [usize; 2]) -> Self {
        let suffices = |reduction: &Self| {
            let divisor = reduction.divisor() as f64;
            part.into_iter().zip(size).all(|(part, size)| part / divisor >= size as f64)
        };
        Self::ALL.into_iter().find(suffices).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_leave_as_many_pixels_as_are_wanted() {
        let of = |part, size| Reduction::down_to(part, [size; 2]);
        assert_eq!(of([3000.0, 4000.0], 224), Reduction::Eighth);
        assert_eq!(of([1792.0, 1792.0], 224), Reduction::Eighth);
        assert_eq!(of([1792.0, 1791.5], 224), Reduction::Quarter);
        assert_eq!(of([895.0, 4000.0], 224), Reduction::Half);
        assert_eq!(of([447.0, 448.0], 224), Reduction::Whole);
        assert_eq!(of([10.0, 20.0], 224), Reduction::Whole);
        assert_eq!(Reduction::ALL.map(|reduction| reduction.of(61)), [8, 16, 31, 61]);
    }
}
