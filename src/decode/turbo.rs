//! The pixels of a JPEG, by libjpeg-turbo: the exact inverse DCT and smooth colours, as Pillow has them.

use std::ffi::CStr;

use turbojpeg_sys as sys;

use super::jpeg::Head;
use super::{Reduction, room};
use crate::error::{Error, Result};

/// See [`decode_rows`](super::decode_rows).
pub(super) fn decode_rows(
    bytes: &[u8],
    head: &Head,
    channels: usize,
    reduction: Reduction,
    rows: usize,
    pixels: &mut Vec<u8>,
) -> Result<usize> {
    let [height, width] = [head.height, head.width].map(|len| reduction.of(len));
    let mut decoder = Decoder::new()?;
    // What the library goes on after, having made something up, is damage too.
    decoder.set(sys::TJPARAM_TJPARAM_STOPONWARNING, 1)?;
    decoder.set(sys::TJPARAM_TJPARAM_SCANLIMIT, head.scans_max() as i32)?;
    decoder.read_head(bytes)?;
    // The library writes as much as its own reading of the head says.
    let says = [sys::TJPARAM_TJPARAM_JPEGHEIGHT, sys::TJPARAM_TJPARAM_JPEGWIDTH];
    let says = says.map(|parameter| decoder.get(parameter));
    if says != [head.height as i32, head.width as i32] {
        let message =
            format!("found a JPEG of {} x {} or {says:?} pixels", head.height, head.width);
        return Err(Error::data("image", message));
    }
    decoder.reduce(reduction)?;
    let rows = match decoder.is_partial_possible() {
        true if rows < height => rows.max(1),
        _ => height,
    };
    if rows < height {
        decoder.expect_rows(rows)?;
    }
    let decoded = [rows, width];
    match (decoder.get(sys::TJPARAM_TJPARAM_COLORSPACE) as sys::TJCS, channels) {
        (sys::TJCS_TJCS_CMYK | sys::TJCS_TJCS_YCCK, _) => {
            let mut inks = Vec::new();
            let inks = room(&mut inks, 4 * rows * width)?;
            decoder.run(bytes, sys::TJPF_TJPF_CMYK, decoded, inks)?;
            let into = room(pixels, 3 * rows * width)?;
            for (ink, pixel) in inks.as_chunks().0.iter().zip(into.as_chunks_mut().0) {
                *pixel = of_inks(*ink);
            }
        }
        (sys::TJCS_TJCS_GRAY | sys::TJCS_TJCS_YCbCr, 1) => {
            let into = room(pixels, rows * width)?;
            decoder.run(bytes, sys::TJPF_TJPF_GRAY, decoded, into)?;
            return Ok(rows);
        }
        _ => {
            let into = room(pixels, 3 * rows * width)?;
            decoder.run(bytes, sys::TJPF_TJPF_RGB, decoded, into)?;
        }
    }
    if channels == 1 {
        super::other::to_grey(&mut pixels[..3 * rows * width]);
    }
    Ok(rows)
}

/// The colour of four inks, stored as what they leave of the light, which is how all programs write them; rounded as
/// Pillow does.
fn of_inks(stored: [u8; 4]) -> [u8; 3] {
    let [cyan, magenta, yellow, black] = stored.map(u32::from);
    [cyan, magenta, yellow].map(|left| {
        let product = (255 - left) * black + 128;
        (black - ((product + (product >> 8)) >> 8).min(black)) as u8
    })
}

/// An instance of the library, for one picture.
struct Decoder(sys::tjhandle);

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the instance is ours, and is not used after this.
        unsafe { sys::tj3Destroy(self.0) }
    }
}

impl Decoder {
    fn new() -> Result<Self> {
        // SAFETY: takes nothing but a number; null, where there is no memory, is looked for.
        let handle = unsafe { sys::tj3Init(sys::TJINIT_TJINIT_DECOMPRESS as i32) };
        if handle.is_null() {
            return Err(Error::data("image", "libjpeg-turbo cannot be started"));
        }
        Ok(Self(handle))
    }

    /// What a function of the library returned, with its own words if that is a failure.
    fn check(&mut self, returned: i32) -> Result<()> {
        if returned == 0 {
            return Ok(());
        }
        // SAFETY: the library gives a text that ends with a zero and lives as long as the instance; it is copied here.
        let words = unsafe { CStr::from_ptr(sys::tj3GetErrorStr(self.0)) }.to_string_lossy();
        let cause = std::io::Error::other(words.into_owned());
        Err(Error::data("image", "found a damaged JPEG").caused_by(cause))
    }

    fn set(&mut self, parameter: sys::TJPARAM, value: i32) -> Result<()> {
        // SAFETY: the instance is alive.
        let returned = unsafe { sys::tj3Set(self.0, parameter as i32, value) };
        self.check(returned)
    }

    fn get(&self, parameter: sys::TJPARAM) -> i32 {
        // SAFETY: the instance is alive.
        unsafe { sys::tj3Get(self.0, parameter as i32) }
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<()> {
        // SAFETY: the library reads as many bytes as it is told that there are.
        let returned =
            unsafe { sys::tj3DecompressHeader(self.0, bytes.as_ptr(), bytes.len() as sys::size_t) };
        self.check(returned)
    }

    fn reduce(&mut self, reduction: Reduction) -> Result<()> {
        let factor = sys::tjscalingfactor { num: 1, denom: reduction.divisor() as i32 };
        // SAFETY: the instance is alive.
        let returned = unsafe { sys::tj3SetScalingFactor(self.0, factor) };
        self.check(returned)
    }

    /// Whether rows can be left out: the library refuses it for samplings that have no name.
    fn is_partial_possible(&self) -> bool {
        self.get(sys::TJPARAM_TJPARAM_SUBSAMP) != sys::TJSAMP_TJSAMP_UNKNOWN
    }

    /// Has decoding end after the first `rows` rows.
    fn expect_rows(&mut self, rows: usize) -> Result<()> {
        let region = sys::tjregion { x: 0, y: 0, w: 0, h: rows as i32 };
        // SAFETY: the instance is alive.
        let returned = unsafe { sys::tj3SetCroppingRegion(self.0, region) };
        self.check(returned)
    }

    /// Decodes `[height, width]` pixels, without any room between rows.
    fn run(
        &mut self,
        bytes: &[u8],
        format: sys::TJPF,
        [height, width]: [usize; 2],
        into: &mut [u8],
    ) -> Result<()> {
        let pixel_bytes = match format {
            sys::TJPF_TJPF_GRAY => 1,
            sys::TJPF_TJPF_RGB => 3,
            _ => 4,
        };
        assert_eq!(into.len(), height * width * pixel_bytes, "room for {height} x {width}");
        // SAFETY: the library reads as many bytes as it is told that there are, and writes `height` rows of `width`
        // pixels, for which there is room, as just checked: its reading of the head is known to be ours, and it was told
        // to end after `height` rows where there are more.
        let returned = unsafe {
            let (file, len) = (bytes.as_ptr(), bytes.len() as sys::size_t);
            sys::tj3Decompress8(self.0, file, len, into.as_mut_ptr(), 0, format)
        };
        self.check(returned)
    }
}
