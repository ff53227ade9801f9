//! Damaged files of every format: each ends as samples or as an error of one line that names the file, whatever was cut
//! off, turned over or put in its place. The same readers are fuzzed without end by `fuzz/`.

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "the fuzz targets use the rest")]
mod formats;

use formats::{Format, joined, read};
use inflight::rng::Rng;

/// Damaged copies of each format's seed.
const DAMAGES: u64 = 150;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_seed_is_read_whole() {
    let dir = folder();
    for format in Format::all() {
        let read = read(format, &format.seed(), dir.path());
        assert!(read.as_ref().is_ok_and(|&samples| samples >= 2), "{format:?}: {read:?}");
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
        let seed = format.seed();
        for damage in 0..DAMAGES {
            let mut rng = Rng::keyed(&[number, damage]);
            let mut bytes = seed.clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(bytes.len() as u64) as usize;
                // Counts and lengths like extremes least.
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, rng.below(256) as u8][rng.below(6) as usize];
            }
            let _ = read(format, &bytes, dir.path());
        }
    }
}
