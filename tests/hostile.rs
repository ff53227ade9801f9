//! Damaged files of every format: each ends as samples or as an error of one line that names the file, whatever was cut
//! off, turned over or put in its place. The same readers are fuzzed without end by `fuzz/`.

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "the fuzz targets use the rest")]
mod formats;

use formats::{ALL, Format, found, joined, read, read_kept};
use inflight::rng::Rng;

/// Damaged copies of each format's seeds at least.
const DAMAGES: u64 = 150;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_seed_is_read_whole() {
    let dir = folder();
    for format in Format::all() {
        for (number, seed) in format.seeds().iter().enumerate() {
            let read = read(format, seed, dir.path());
            assert!(
                read.as_ref().is_ok_and(|&samples| samples >= 2),
                "{format:?} {number}: {read:?}"
            );
        }
    }
}

/// What the fuzzer found, each mended since; it goes on from these as well. What took too much memory is in `bounded.rs`.
#[test]
fn what_was_found_once_is_refused_or_read() {
    let (dir, found) = (folder(), found());
    assert!(!found.is_empty());
    for (format, bytes) in found {
        let _ = read(format, &bytes, dir.path());
    }
}

#[test]
fn nothing_at_all_is_refused() {
    let dir = folder();
    for format in Format::all() {
        for bytes in [Vec::new(), joined(&[], &[])] {
            if bytes.is_empty() || matches!(format, Format::Idx | Format::Npy) {
                assert!(read(format, &bytes, dir.path()).is_err(), "{format:?}");
            }
        }
    }
}

#[test]
fn what_is_of_another_format_is_refused() {
    let dir = folder();
    let picture = Format::Image.seed();
    for format in Format::all() {
        // A picture is a run of tokens and, by its name, a picture; text is what its bytes say.
        if !matches!(format, Format::Image | Format::Tokens | Format::Text) {
            let found = read(format, &joined(&picture, &picture), dir.path());
            assert!(found.is_err(), "{format:?}: {found:?}");
        }
    }
}

#[test]
fn what_is_cut_short_is_refused_or_is_less() {
    let dir = folder();
    for format in Format::all() {
        let seed = format.seed();
        let whole = read(format, &seed, dir.path()).expect("no fault");
        let mut refused = 0;
        let step = (seed.len() / 60).max(1);
        for len in (0..seed.len()).step_by(step) {
            match read(format, &seed[..len], dir.path()) {
                Ok(samples) => assert!(samples <= whole, "{format:?} cut at {len}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "{format:?}: nothing was refused");
    }
}

#[test]
fn bytes_turned_over_do_no_harm() {
    let dir = folder();
    for (number, format) in (0..).zip(Format::all()) {
        let seeds = format.seeds();
        for damage in 0..DAMAGES.max(20 * seeds.len() as u64) {
            let mut rng = Rng::keyed(&[number, damage]);
            let mut bytes = seeds[damage as usize % seeds.len()].clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                // Counts and lengths like extremes least.
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, rng.below(256) as u8][rng.below(6) as usize];
            }
            let _ = read(format, &bytes, dir.path());
        }
    }
}

#[test]
fn what_is_kept_is_whole_or_refused_whatever_was_damaged() {
    let dir = folder();
    for (number, &kept) in (100..).zip(ALL) {
        let seeds = kept.seeds();
        for (number, seed) in seeds.iter().enumerate() {
            read_kept(kept, seed, dir.path()).unwrap_or_else(|e| panic!("{kept:?} {number}: {e}"));
        }
        let mut refused = 0;
        for damage in 0..2 * DAMAGES {
            let mut rng = Rng::keyed(&[number, damage]);
            let mut bytes = seeds[damage as usize % seeds.len()].clone();
            if rng.below(4) == 0 {
                bytes.truncate(rng.below(bytes.len() as u64) as usize);
            }
            for _ in 0..=rng.below(3) {
                if !bytes.is_empty() {
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] =
                        [0, b'9', b'-', 0x80, 0xff, rng.below(256) as u8][rng.below(6) as usize];
                }
            }
            refused += u64::from(read_kept(kept, &bytes, dir.path()).is_err());
        }
        assert!(refused > DAMAGES, "{kept:?}: only {refused} were refused");
    }
}

#[cfg(feature = "parquet")]
mod arrow {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float32Array, RecordBatch, StringArray};
    use arrow_ipc::{CompressionType, root_as_footer};

    use super::formats::columns::{arrow_file, arrow_stream};
    use super::*;

    fn batch() -> RecordBatch {
        let x: ArrayRef =
            Arc::new(Float32Array::from_iter_values((0..600).map(|i| (i % 2) as f32)));
        let label: ArrayRef =
            Arc::new(StringArray::from_iter_values((0..600).map(|i| ["a", "b"][i % 2])));
        RecordBatch::try_from_iter([("x", x), ("label", label)]).expect("a batch")
    }

    /// A file and a stream, packed or not.
    fn written(packed: Option<CompressionType>) -> [Vec<u8>; 2] {
        [arrow_file(&batch(), packed), arrow_stream(&batch(), packed)]
    }

    fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        let at = bytes.windows(from.len()).position(|window| window == from).expect("is there");
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        let found = read(Format::Arrow, bytes, folder().path());
        found.expect_err("claims more than there is")
    }

    #[test]
    fn a_block_is_no_longer_than_its_file() {
        let [file, _] = written(None);
        let end = file.len() - 10;
        let footer_len = u32::from_le_bytes(file[end..end + 4].try_into().expect("four")) as usize;
        let footer = root_as_footer(&file[end - footer_len..end]).expect("a footer");
        let block = footer.recordBatches().expect("blocks").get(0).0;
        for claimed in [file.len() as i64, 20 << 30, i64::MAX, -1] {
            let mut longer = block;
            longer[16..].copy_from_slice(&claimed.to_le_bytes());
            let error = refusal(&replaced(&file, &block, &longer));
            assert!(error.contains("claims a block"), "{error}");
        }
        let trailer = [&(1u32 << 30).to_le_bytes(), &b"ARROW1"[..]].concat();
        let error = refusal(&[&file[..end], &trailer].concat());
        assert!(error.contains("claims a footer"), "{error}");
    }

    #[test]
    fn a_packed_buffer_holds_no_more_than_it_can() {
        for packed in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            for bytes in written(Some(packed)) {
                let read = read(Format::Arrow, &bytes, folder().path());
                assert!(read.as_ref().is_ok_and(|&read| read > 0), "{packed:?}: {read:?}");
                let len = 2400i64.to_le_bytes();
                for claimed in [1i64 << 42, i64::MAX] {
                    let error = refusal(&replaced(&bytes, &len, &claimed.to_le_bytes()));
                    assert!(error.contains("claims a buffer"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_batch_has_no_more_rows_than_bits() {
        for bytes in written(None) {
            let rows = 600i64.to_le_bytes();
            let error = refusal(&replaced(&bytes, &rows, &(1i64 << 40).to_le_bytes()));
            assert!(error.contains("claims 1099511627776 rows"), "{error}");
        }
    }
}
