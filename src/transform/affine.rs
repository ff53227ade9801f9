//! Affine maps of an image: rotation, shear and translation, with the arithmetic of torchvision's
//! `transforms.v2.functional` on tensors of bytes.

use serde::{Deserialize, Serialize};

use super::Image;
use super::settings::{Fill, round_to_byte};
use crate::error::Result;

/// How a pixel is made from those around the place that it shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest one.
    #[default]
    Nearest,
    /// The mean of the four nearest, weighted by how near they are.
    Bilinear,
}

/// From a pixel of the new image to the place in the old one that it shows, both measured from the centre:
/// `x' = m[0] x + m[1] y + m[2]`, `y' = m[3] x + m[4] y + m[5]`.
pub type Matrix = [f64; 6];

/// An affine map as torchvision describes it; the defaults leave everything where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine {
    /// Degrees clockwise.
    pub angle: f64,
    /// Pixels to the right and down.
    pub translate: [f64; 2],
    /// Degrees of shear along x and y.
    pub shear: [f64; 2],
    /// The point that stays, from the top left corner as `[x, y]`; without it, the centre.
    pub center: Option<[f64; 2]>,
}

impl Affine {
    /// The map back, for an image of `height` x `width`.
    pub fn matrix(&self, height: usize, width: usize) -> Matrix {
        let [cx, cy] = self
            .center
            .map_or([0.0; 2], |[x, y]| [x - width as f64 * 0.5, y - height as f64 * 0.5]);
        let [tx, ty] = self.translate;
        let rotation = self.angle.to_radians();
        let [sx, sy] = self.shear.map(f64::to_radians);
        // Rotation · shear along y · shear along x: [[a, b], [c, d]], of determinant 1.
        let a = (rotation - sy).cos() / sy.cos();
        let b = -(a * sx.tan() + rotation.sin());
        let c = (rotation - sy).sin() / sy.cos();
        let d = rotation.cos() - c * sx.tan();
        let x = cx - d * (cx + tx) + b * (cy + ty);
        let y = cy + c * (cx + tx) - a * (cy + ty);
        [d, -b, x, -c, a, y]
    }
}

/// Moves the pixels of an image as `map` says; what comes from outside of it is painted with `fill`.
///
/// # Errors
/// When the image cannot be decoded.
pub fn affine(
    image: &mut Image<'_>,
    map: &Affine,
    interpolation: Interpolation,
    fill: Fill,
) -> Result<()> {
    let [_, height, width] = image.shape();
    warp(image, map.matrix(height, width), interpolation, fill)
}

/// Turns an image by `angle` degrees counter-clockwise around its centre; what comes from outside of it is painted
/// with `fill`.
///
/// # Errors
/// When the image cannot be decoded.
pub fn rotate(
    image: &mut Image<'_>,
    angle: f64,
    interpolation: Interpolation,
    fill: Fill,
) -> Result<()> {
    // Quarter turns have rounding errors in their sines; whole pixels must stay whole.
    if angle.rem_euclid(360.0) == 0.0 {
        return Ok(());
    }
    affine(image, &Affine { angle: -angle, ..Default::default() }, interpolation, fill)
}

/// Draws every pixel of an image from the place that `matrix` says.
///
/// # Errors
/// When the image cannot be decoded.
pub fn warp(
    image: &mut Image<'_>,
    matrix: Matrix,
    interpolation: Interpolation,
    fill: Fill,
) -> Result<()> {
    let shape @ [channels, height, width] = image.shape();
    image.redraw(shape, |old, new| {
        let [xx, xy, x0, yx, yy, y0] = matrix;
        let (half_w, half_h) = ((width as f64 - 1.0) * 0.5, (height as f64 - 1.0) * 0.5);
        for (row, line) in new.chunks_exact_mut(width * channels).enumerate() {
            let y = row as f64 - half_h;
            let start = [xy * y + x0 + half_w, yy * y + y0 + half_h];
            let place = |column: usize| {
                let x = column as f64 - half_w;
                [xx * x + start[0], yx * x + start[1]]
            };
            let old = Grid { bytes: old, channels, height, width };
            match (interpolation, channels) {
                (Interpolation::Nearest, 1) => nearest::<1>(old, line, place, fill),
                (Interpolation::Nearest, 3) => nearest::<3>(old, line, place, fill),
                (Interpolation::Nearest, _) => nearest::<0>(old, line, place, fill),
                (Interpolation::Bilinear, _) => bilinear(old, line, place, fill),
            }
        }
    })
}

/// The old image.
#[derive(Clone, Copy)]
struct Grid<'a> {
    bytes: &'a [u8],
    channels: usize,
    height: usize,
    width: usize,
}

/// Nearest pixels of one line; `C` is the number of channels where it is known, else 0.
fn nearest<const C: usize>(
    old: Grid<'_>,
    line: &mut [u8],
    place: impl Fn(usize) -> [f64; 2],
    fill: Fill,
) {
    let channels = if C > 0 { C } else { old.channels };
    let (last_x, last_y) = (old.width as f64 - 1.0, old.height as f64 - 1.0);
    for (column, pixel) in line.chunks_exact_mut(channels).enumerate() {
        let [x, y] = place(column).map(round_ties_even);
        if x >= 0.0 && x <= last_x && y >= 0.0 && y <= last_y {
            let at = (y as usize * old.width + x as usize) * channels;
            pixel.copy_from_slice(&old.bytes[at..at + channels]);
        } else {
            pixel.iter_mut().enumerate().for_each(|(c, byte)| *byte = fill.channel(c));
        }
    }
}

/// Rounds to the nearest whole number, halves to the even one: adding and taking away 1.5 · 2⁵² leaves no room for
/// fractions. For numbers below 2⁵¹; a call into the C library would take longer than all the rest.
fn round_ties_even(x: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    (x + SHIFT) - SHIFT
}

/// Weighted means of one line. As in torchvision, a pixel at the edge, of which a share lies inside, is
/// `fill + share · (mean - fill)` with a mean in which what lies outside counts as zero.
fn bilinear(old: Grid<'_>, line: &mut [u8], place: impl Fn(usize) -> [f64; 2], fill: Fill) {
    let Grid { bytes, channels, height, width } = old;
    for (column, pixel) in line.chunks_exact_mut(channels).enumerate() {
        let [x, y] = place(column);
        let (left, top) = (x.floor(), y.floor());
        let (fx, fy) = ((x - left) as f32, (y - top) as f32);
        let inside = |v: f64, len: usize| v >= 0.0 && v < len as f64;
        // The four neighbours: their weights, 0 outside, and where their bytes begin.
        let corner = |dx: f64, dy: f64, weight: f32| {
            let (x, y) = (left + dx, top + dy);
            match inside(x, width) && inside(y, height) {
                true => (weight, (y as usize * width + x as usize) * channels),
                false => (0.0, 0),
            }
        };
        let corners = [
            corner(0.0, 0.0, (1.0 - fx) * (1.0 - fy)),
            corner(1.0, 0.0, fx * (1.0 - fy)),
            corner(0.0, 1.0, (1.0 - fx) * fy),
            corner(1.0, 1.0, fx * fy),
        ];
        let share: f32 = corners.iter().map(|(weight, _)| weight).sum();
        for (c, byte) in pixel.iter_mut().enumerate() {
            let mean: f32 = corners.iter().map(|&(w, at)| w * f32::from(bytes[at + c])).sum();
            let fill = f32::from(fill.channel(c));
            *byte = round_to_byte((mean - fill) * share + fill);
        }
    }
}
