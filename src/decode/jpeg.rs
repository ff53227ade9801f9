//! JPEG: the head, read here since it decides what is decoded, and the pixels, by `zune-jpeg` or, in a build with it, by
//! libjpeg-turbo.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{JpegCodec, Method, Orientation, room};
use crate::error::{Error, Result};

/// What the head of a JPEG file says, up to the first scan.
pub(super) struct Head {
    /// Rows as stored.
    pub height: usize,
    /// Columns as stored.
    pub width: usize,
    /// Colour components: 1, 3 or 4.
    pub components: usize,
    /// How it has to be turned.
    pub orientation: Orientation,
    /// Where the file says how many rows there are, if rows can be left out: one sequential scan with everything.
    height_at: Option<usize>,
    /// Rows of a unit of coding.
    unit_rows: usize,
    /// Where the data of the first scan begin.
    scan_at: usize,
    /// Units of coding of a scan with all components.
    units: usize,
    /// Restart markers of the first scan, if it has all components.
    restarts: usize,
}

/// Markers that matter here (ITU-T T.81, table B.1).
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DRI: u8 = 0xdd;
const APP1: u8 = 0xe1;
const RST0: u8 = 0xd0;
/// Markers without a length: TEM and the restarts.
const BARE: [u8; 9] = [0x01, 0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7];

fn cut_short(at: usize) -> Error {
    Error::data("image", format!("found a JPEG that is cut short: it ends after {at} bytes"))
}

impl Head {
    /// Reads it.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut frame: Option<Self> = None;
        let mut orientation = Orientation::default();
        let mut interval = 0;
        let mut segments = Segments { bytes, at: 2 };
        loop {
            let (marker, start, body) = segments.next()?;
            match marker {
                // Start of frame; C4, C8 and CC are none.
                0xc0..=0xc2 => frame = Some(Self::of_frame(marker, start, body)?),
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    let message = format!(
                        "found a JPEG of process SOF{}, expected baseline or progressive",
                        marker & 15
                    );
                    return Err(Error::data("image", message));
                }
                APP1 => {
                    if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
                        orientation = Orientation::of_exif(exif);
                    }
                }
                DRI => {
                    let interval_bytes = body.first_chunk().copied().unwrap_or_default();
                    interval = usize::from(u16::from_be_bytes(interval_bytes));
                }
                SOS => {
                    let mut head = frame.ok_or_else(|| {
                        Error::data("image", "found a JPEG scan before the size of the image")
                    })?;
                    if body.first().map(|&n| usize::from(n)) != Some(head.components) {
                        head.height_at = None;
                    } else if interval > 0 {
                        head.restarts = head.units.div_ceil(interval).saturating_sub(1);
                    }
                    return Ok(Self { orientation, scan_at: start + body.len(), ..head });
                }
                SOI | EOI => return Err(cut_short(start)),
                _ => {}
            }
        }
    }

    /// Checks that the file has an end and all its restarts. What is gone might otherwise show as grey or in another
    /// place, or, if a crop does not need it, not at all.
    pub fn expect_whole(&self, bytes: &[u8]) -> Result<()> {
        let scan = &bytes[self.scan_at..];
        if !scan.windows(2).rev().any(|pair| pair == [0xff, EOI]) {
            return Err(cut_short(bytes.len()));
        }
        let mut markers = memchr::memchr_iter(0xff, scan)
            .filter_map(|at| scan.get(at + 1).copied())
            .filter(|marker| ![0, 0xff].contains(marker));
        for (i, expected) in (RST0..RST0 + 8).cycle().take(self.restarts).enumerate() {
            let found = markers.next();
            if found != Some(expected) {
                let found = found.map_or("none".into(), |marker| format!("FF{marker:02X}"));
                let message = format!(
                    "found a damaged JPEG: its restart marker {i} of {} is {found}, expected FF{expected:02X}",
                    self.restarts
                );
                return Err(Error::data("image", message));
            }
        }
        Ok(())
    }

    /// What a start of frame says; its body begins at `start`.
    fn of_frame(marker: u8, start: usize, body: &[u8]) -> Result<Self> {
        let &[bits, h1, h0, w1, w0, components, ref sampling @ ..] = body else {
            return Err(Error::data("image", "found a JPEG whose frame header is cut short"));
        };
        if bits != 8 || ![1, 3, 4].contains(&components) {
            let message = format!(
                "found a JPEG of {components} components of {bits} bits, expected 1, 3 or 4 of 8"
            );
            return Err(Error::data("image", message));
        }
        let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
        let (height, width) = (usize::from(height), usize::from(width));
        let sampling = sampling.chunks_exact(3).map(|component| component[1]);
        let most =
            |of: fn(u8) -> u8| usize::from(sampling.clone().map(of).max().unwrap_or(1).clamp(1, 4));
        let (unit_rows, unit_columns) = (8 * most(|both| both & 15), 8 * most(|both| both >> 4));
        // A scan of one component has units of one block, whatever its sampling.
        let unit = if components == 1 { [8, 8] } else { [unit_rows, unit_columns] };
        Ok(Self {
            height,
            width,
            components: usize::from(components),
            orientation: Orientation::default(),
            height_at: (marker != 0xc2).then_some(start + 1),
            unit_rows,
            scan_at: 0,
            units: height.div_ceil(unit[0]) * width.div_ceil(unit[1]),
            restarts: 0,
        })
    }

    /// How many rows to decode so that the first `rows` are right. The last row of a unit takes its colours from the
    /// next one too, so that one is decoded as well where it is needed.
    fn rows_to_decode(&self, rows: usize) -> usize {
        match self.height_at {
            Some(_) => ((rows + 2).div_ceil(self.unit_rows) * self.unit_rows).min(self.height),
            None => self.height,
        }
    }

    /// How often the pixels of this picture may be visited by scans.
    pub fn scans_max(&self) -> usize {
        (PIXEL_SCANS_MAX / (self.height * self.width).max(1)).clamp(1, SCANS_MAX)
    }
}

/// The segments of a head, one after the other.
struct Segments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Segments<'a> {
    /// The next marker, where its body begins, and the body.
    fn next(&mut self) -> Result<(u8, usize, &'a [u8])> {
        let short = || cut_short(self.bytes.len());
        loop {
            // What lies between segments is passed over, as is usual.
            let rest = self.bytes.get(self.at..).ok_or_else(short)?;
            self.at += rest.iter().position(|&byte| byte == 0xff).ok_or_else(short)?;
            let rest = &self.bytes[self.at..];
            let skip = rest.iter().position(|&byte| byte != 0xff).ok_or_else(short)?;
            let (marker, start) = (rest[skip], self.at + skip + 1);
            self.at = start;
            if marker == 0 || BARE.contains(&marker) {
                continue;
            }
            if marker == SOI || marker == EOI {
                return Ok((marker, start, &[]));
            }
            let &[high, low] = self.bytes.get(start..start + 2).ok_or_else(short)? else {
                return Err(short());
            };
            let len = usize::from(u16::from_be_bytes([high, low]));
            let body = self.bytes.get(start + 2..start + len.max(2)).ok_or_else(short)?;
            self.at = start + len.max(2);
            return Ok((marker, start + 2, body));
        }
    }
}

/// Scans of a progressive file at most, and how often pixels may be visited by scans altogether: a file of few bytes
/// can have a thousand scans that do nothing but take time.
const SCANS_MAX: usize = 100;
const PIXEL_SCANS_MAX: usize = 2_000_000_000;

/// See [`decode_rows`](super::decode_rows).
pub(super) fn decode_rows(
    bytes: &[u8],
    channels: usize,
    method: Method,
    rows: usize,
    pixels: &mut Vec<u8>,
) -> Result<usize> {
    let head = Head::read(bytes)?;
    match method.codec {
        JpegCodec::Zune => decode_by_zune(bytes, &head, channels, rows, pixels),
        #[cfg(feature = "turbojpeg")]
        JpegCodec::Turbo => {
            super::turbo::decode_rows(bytes, &head, channels, method.reduction, rows, pixels)
        }
    }
}

fn decode_by_zune(
    bytes: &[u8],
    head: &Head,
    channels: usize,
    rows: usize,
    pixels: &mut Vec<u8>,
) -> Result<usize> {
    let rows = head.rows_to_decode(rows);
    match head.height_at {
        // A file that says that it has fewer rows: decoding ends with them.
        Some(at) if rows < head.height => {
            let mut shorter = bytes.to_vec();
            shorter[at..at + 2].copy_from_slice(&(rows as u16).to_be_bytes());
            decode_all(&shorter, head, [rows, head.width], channels, pixels)?;
        }
        _ => decode_all(bytes, head, [head.height, head.width], channels, pixels)?,
    }
    Ok(rows)
}

fn decode_all(
    bytes: &[u8],
    head: &Head,
    [height, width]: [usize; 2],
    channels: usize,
    pixels: &mut Vec<u8>,
) -> Result<()> {
    let damaged = |e| Error::data("image", "found a damaged JPEG").caused_by(e);
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(head.scans_max())
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let brightness = channels == 1
        && matches!(decoder.input_colorspace(), Some(ColorSpace::YCbCr | ColorSpace::Luma));
    if brightness {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let len = height * width * if brightness { 1 } else { 3 };
    let into = room(pixels, len)?;
    decoder.decode_into(into).map_err(damaged)?;
    if channels == 1 && !brightness {
        super::other::to_grey(into);
    }
    Ok(())
}
