//! Convolution as a matrix product: one sample's windows as the columns of a matrix, and back
//! (Chellapilla, Puri and Simard, 2006).

use std::ops::Range;

use super::real::Real;

/// How windows move along one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Length of the input.
    pub len: usize,
    /// Length of the window.
    pub kernel: usize,
    /// Step between windows.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
    /// Number of windows.
    pub windows: usize,
}

impl Axis {
    /// The windows whose element `k` is not padding.
    pub fn inside(&self, k: usize) -> Range<usize> {
        let first = self.padding.saturating_sub(k).div_ceil(self.stride);
        let room = (self.len + self.padding).saturating_sub(k);
        let end = room.div_ceil(self.stride).min(self.windows);
        first.min(end)..end
    }

    /// The place in the input of element `k` of window `o`, which must be inside.
    pub fn at(&self, o: usize, k: usize) -> usize {
        o * self.stride + k - self.padding
    }

    /// Windows stand side by side and there are as many as elements.
    fn keeps_length(&self) -> bool {
        self.stride == 1 && self.windows == self.len
    }
}

/// The windows of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Channels of the sample, or of one of its groups.
    pub channels: usize,
    /// Down.
    pub y: Axis,
    /// Across.
    pub x: Axis,
}

impl Windows {
    /// Rows of the matrix: elements of a window.
    pub fn rows(&self) -> usize {
        self.channels * self.y.kernel * self.x.kernel
    }

    /// Columns of the matrix: windows.
    pub fn columns(&self) -> usize {
        self.y.windows * self.x.windows
    }

    /// Elements of an input plane.
    pub fn plane(&self) -> usize {
        self.y.len * self.x.len
    }

    /// Whether the matrix is the sample itself.
    pub fn is_identity(&self) -> bool {
        let identity = |axis: Axis| axis.kernel == 1 && axis.stride == 1 && axis.padding == 0;
        identity(self.y) && identity(self.x)
    }

    /// Each row of the matrix: its index, channel, and place in the window.
    fn each_row(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> + use<> {
        let (kh, kw) = (self.y.kernel, self.x.kernel);
        (0..self.rows()).map(move |row| (row, row / (kh * kw), row / kw % kh, row % kw))
    }
}

/// Writes the matrix \[rows, columns\] of the windows of `x` \[channels, h, w\].
#[inline(always)]
pub fn im2col<T: Real>(x: &[T], windows: &Windows, matrix: &mut [T]) {
    let Windows { y: down, x: across, .. } = *windows;
    let (plane, columns) = (windows.plane(), windows.columns());
    for (row, channel, i, j) in windows.each_row() {
        let x = &x[channel * plane..][..plane];
        let to = &mut matrix[row * columns..][..columns];
        let (inside_y, inside_x) = (down.inside(i), across.inside(j));
        if inside_y.is_empty() || inside_x.is_empty() {
            to.fill(T::ZERO);
            continue;
        }
        to[..inside_y.start * across.windows].fill(T::ZERO);
        to[inside_y.end * across.windows..].fill(T::ZERO);
        if across.keeps_length() && down.stride == 1 {
            shift_in(x, windows, (i, j), inside_y, inside_x, to);
            continue;
        }
        for oy in inside_y {
            let to = &mut to[oy * across.windows..][..across.windows];
            let from = &x[down.at(oy, i) * across.len..][..across.len];
            to[..inside_x.start].fill(T::ZERO);
            to[inside_x.end..].fill(T::ZERO);
            let from = &from[across.at(inside_x.start, j)..];
            for (to, &from) in
                to[inside_x.clone()].iter_mut().zip(from.iter().step_by(across.stride))
            {
                *to = from;
            }
        }
    }
}

/// A row of the matrix where rows of windows are as long as rows of the input: all of them in one piece,
/// shifted, and then zeros where that took an element from the neighbouring row.
#[inline(always)]
fn shift_in<T: Real>(
    x: &[T],
    windows: &Windows,
    (i, j): (usize, usize),
    inside_y: Range<usize>,
    inside_x: Range<usize>,
    to: &mut [T],
) {
    let w = windows.x.len;
    let first = inside_y.start * w + inside_x.start;
    let end = (inside_y.end - 1) * w + inside_x.end;
    let from = windows.y.at(inside_y.start, i) * w + windows.x.at(inside_x.start, j);
    to[first..end].copy_from_slice(&x[from..from + end - first]);
    for row in to.chunks_exact_mut(w).take(inside_y.end).skip(inside_y.start) {
        row[..inside_x.start].fill(T::ZERO);
        row[inside_x.end..].fill(T::ZERO);
    }
}

/// Adds each element of the matrix to the element of `x` that it is a window's view of. The matrix is
/// used up.
#[inline(always)]
pub fn col2im<T: Real>(matrix: &mut [T], windows: &Windows, x: &mut [T]) {
    let Windows { y: down, x: across, .. } = *windows;
    let (plane, columns) = (windows.plane(), windows.columns());
    for (row, channel, i, j) in windows.each_row() {
        let x = &mut x[channel * plane..][..plane];
        let from = &mut matrix[row * columns..][..columns];
        let (inside_y, inside_x) = (down.inside(i), across.inside(j));
        if inside_y.is_empty() || inside_x.is_empty() {
            continue;
        }
        if across.keeps_length() && down.stride == 1 {
            shift_out(from, windows, (i, j), inside_y, inside_x, x);
            continue;
        }
        for oy in inside_y {
            let from = &from[oy * across.windows..][inside_x.clone()];
            let to = &mut x[down.at(oy, i) * across.len..][..across.len];
            let to = &mut to[across.at(inside_x.start, j)..];
            for (to, &from) in to.iter_mut().step_by(across.stride).zip(from) {
                *to += from;
            }
        }
    }
}

/// The opposite of [`shift_in`].
#[inline(always)]
fn shift_out<T: Real>(
    from: &mut [T],
    windows: &Windows,
    (i, j): (usize, usize),
    inside_y: Range<usize>,
    inside_x: Range<usize>,
    x: &mut [T],
) {
    let w = windows.x.len;
    for row in from.chunks_exact_mut(w).take(inside_y.end).skip(inside_y.start) {
        row[..inside_x.start].fill(T::ZERO);
        row[inside_x.end..].fill(T::ZERO);
    }
    let first = inside_y.start * w + inside_x.start;
    let end = (inside_y.end - 1) * w + inside_x.end;
    let to = windows.y.at(inside_y.start, i) * w + windows.x.at(inside_x.start, j);
    x[to..to + end - first].iter_mut().zip(&from[first..end]).for_each(|(x, &from)| *x += from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, dot, normal};

    fn axis(len: usize, kernel: usize, stride: usize, padding: usize) -> Axis {
        let windows = (len + 2 * padding - kernel) / stride + 1;
        Axis { len, kernel, stride, padding, windows }
    }

    fn cases() -> Vec<Windows> {
        let windows = |channels, y, x| Windows { channels, y, x };
        vec![
            windows(1, axis(1, 1, 1, 0), axis(1, 1, 1, 0)),
            windows(2, axis(5, 3, 1, 1), axis(7, 3, 1, 1)),
            windows(2, axis(6, 3, 1, 0), axis(5, 3, 1, 1)),
            windows(1, axis(9, 5, 1, 2), axis(4, 5, 1, 2)),
            windows(3, axis(8, 3, 2, 1), axis(7, 3, 2, 1)),
            windows(1, axis(7, 2, 3, 0), axis(8, 4, 1, 2)),
            // Padding so wide that whole windows see nothing else.
            windows(1, axis(2, 1, 1, 2), axis(2, 3, 1, 4)),
            windows(1, axis(1, 3, 1, 1), axis(1, 3, 1, 1)),
        ]
    }

    #[test]
    fn im2col_matches_plain_indexing() {
        for windows in cases() {
            let Windows { channels, y, x } = windows;
            let data = normal(1, channels * y.len * x.len);
            let mut expected = Vec::new();
            for row in 0..windows.rows() {
                let (c, i, j) =
                    (row / (y.kernel * x.kernel), row / x.kernel % y.kernel, row % x.kernel);
                for column in 0..windows.columns() {
                    let iy = column / x.windows * y.stride + i;
                    let ix = column % x.windows * x.stride + j;
                    let inside = (y.padding..y.padding + y.len).contains(&iy)
                        && (x.padding..x.padding + x.len).contains(&ix);
                    expected.push(match inside {
                        true => data[(c * y.len + iy - y.padding) * x.len + ix - x.padding],
                        false => 0.0,
                    });
                }
            }
            let mut matrix = vec![f64::NAN; windows.rows() * windows.columns()];
            im2col(&data, &windows, &mut matrix);
            assert_close(&matrix, &expected, 0.0, 0.0);
        }
    }

    /// ⟨im2col(x), m⟩ = ⟨x, col2im(m)⟩ for all x and m.
    #[test]
    fn col2im_is_the_adjoint() {
        for windows in cases() {
            let x = normal(1, windows.channels * windows.plane());
            let len = windows.rows() * windows.columns();
            let (matrix, mut columns) = (normal(2, len), vec![0.0; len]);
            im2col(&x, &windows, &mut columns);
            let mut back = vec![0.0; x.len()];
            col2im(&mut matrix.clone(), &windows, &mut back);
            assert_close(&[dot(&columns, &matrix)], &[dot(&x, &back)], 1e-12, 1e-12);
        }
    }
}
