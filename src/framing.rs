//! How an image stands in its frame: which of its pixels each place shows, as cheap transforms leave it. Workers draw a
//! [`Framing`] a sample and write it into the slot; the device moves the pixels while it normalises them
//! ([`Op::AugmentU8`](crate::graph::op::Op::AugmentU8)).

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

/// Length of a [`Framing`] in words.
pub const FRAMING_WORDS: usize = size_of::<Framing>() / 4;
/// Sides of an image at most, so that a long list of shifts stays within 32 bits.
pub const FRAMED_SIDE_MAX: usize = 1 << 15;

/// Which pixel of an image every place shows: within the cover its fill; else within the window the pixel
/// `[row + row_step · y, column + column_step · x]`; else the margin's fill. All zeros is an image of zeros. Shaders read
/// it as `Framing` in `shaders/shared/framing.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Framing {
    /// The image's row that row 0 shows or would show.
    pub row: i32,
    /// 1, or -1 where rows are mirrored.
    pub row_step: i32,
    /// The image's column that column 0 shows or would show.
    pub column: i32,
    /// 1, or -1 where columns are mirrored.
    pub column_step: i32,
    /// First row of the window.
    pub top: i32,
    /// End of its rows.
    pub bottom: i32,
    /// Its first column.
    pub left: i32,
    /// End of its columns.
    pub right: i32,
    /// First row of the cover.
    pub cover_top: i32,
    /// End of its rows; none are covered where it is no larger than the first.
    pub cover_bottom: i32,
    /// Its first column.
    pub cover_left: i32,
    /// End of its columns.
    pub cover_right: i32,
    /// What the cover shows, a byte a channel, the lowest first; channels from the fifth on take them again.
    pub cover: u32,
    /// What is shown outside of the window, likewise.
    pub margin: u32,
}

const _: () = assert!(size_of::<Framing>() == 56);

impl Framing {
    /// An image of `height` x `width` as it is.
    pub fn whole([height, width]: [usize; 2]) -> Self {
        Self {
            row_step: 1,
            column_step: 1,
            bottom: side(height),
            right: side(width),
            ..Self::default()
        }
    }

    /// Then mirrored top to bottom, in a frame of `height` rows.
    pub fn mirror_rows(&mut self, height: usize) {
        let height = side(height);
        self.row += self.row_step * (height - 1);
        self.row_step = -self.row_step;
        (self.top, self.bottom) = (height - self.bottom, height - self.top);
        (self.cover_top, self.cover_bottom) = (height - self.cover_bottom, height - self.cover_top);
    }

    /// Then mirrored left to right, in a frame of `width` columns.
    pub fn mirror_columns(&mut self, width: usize) {
        let width = side(width);
        self.column += self.column_step * (width - 1);
        self.column_step = -self.column_step;
        (self.left, self.right) = (width - self.right, width - self.left);
        (self.cover_left, self.cover_right) = (width - self.cover_right, width - self.cover_left);
    }

    /// Then moved so that place `[y, x]` shows what `[y + rows, x + columns]` did, and the margin where that is outside of
    /// the frame of `height` x `width`. Whatever margins there are show the same, `margin` as [`Framing::margin`].
    pub fn shift(&mut self, [rows, columns]: [i64; 2], [height, width]: [usize; 2], margin: u32) {
        let (height, width) = (side(height), side(width));
        // Farther than its own size an image is out of sight, and stays so.
        let rows = rows.clamp(-i64::from(height), i64::from(height)) as i32;
        let columns = columns.clamp(-i64::from(width), i64::from(width)) as i32;
        self.margin = margin;
        self.row += self.row_step * rows;
        self.column += self.column_step * columns;
        for edge in [&mut self.top, &mut self.bottom, &mut self.cover_top, &mut self.cover_bottom] {
            *edge = (*edge - rows).clamp(0, height);
        }
        for edge in [&mut self.left, &mut self.right, &mut self.cover_left, &mut self.cover_right] {
            *edge = (*edge - columns).clamp(0, width);
        }
    }

    /// Then covered by a box; `fill` as [`Framing::cover`].
    ///
    /// # Panics
    /// If something is covered already: there is room for one box.
    pub fn cover_by(&mut self, rows: Range<usize>, columns: Range<usize>, fill: u32) {
        if rows.is_empty() || columns.is_empty() {
            return;
        }
        assert!(self.covered().is_none(), "an image can be covered by one box only");
        (self.cover_top, self.cover_bottom) = (side(rows.start), side(rows.end));
        (self.cover_left, self.cover_right) = (side(columns.start), side(columns.end));
        self.cover = fill;
    }

    /// Rows and columns of the cover, where there is one.
    pub fn covered(&self) -> Option<(Range<usize>, Range<usize>)> {
        let rows = self.cover_top as usize..self.cover_bottom as usize;
        let columns = self.cover_left as usize..self.cover_right as usize;
        (!rows.is_empty() && !columns.is_empty()).then_some((rows, columns))
    }
}

/// The byte of a channel in a [`cover`](Framing::cover) or [`margin`](Framing::margin).
pub fn fill_byte(fill: u32, channel: usize) -> u8 {
    fill.to_le_bytes()[channel % 4]
}

fn side(pixels: usize) -> i32 {
    assert!(
        pixels <= FRAMED_SIDE_MAX,
        "images to frame have at most {FRAMED_SIDE_MAX} rows and columns"
    );
    pixels as i32
}
