//! What a file says of its own size takes no memory that it does not pay for. Alone in its file, and so in its process: the
//! allocator counts, and what other tests take would count as well.

#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "the fuzz targets use the rest")]
mod formats;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use formats::{ALL, Format, Kept, found, read, read_kept};

/// Counts what is taken, and the most that was at the same time.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn take(bytes: usize) {
    MOST.fetch_max(TAKEN.fetch_add(bytes, Relaxed) + bytes, Relaxed);
}

// SAFETY: everything is the system's allocator's; counting touches no memory of others.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the system's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a reader may take for a file of some kilobytes: its own tables and buffers.
const BYTES_MAX: usize = 2 << 20;

/// The same for one that is packed, or a picture: that much any may unpack to.
const PACKED_BYTES_MAX: usize = 80 << 20;

/// Reads a file of `what`, which may take no more than `bound` beyond what is there before; the bytes that it took.
fn within<T>(
    what: &dyn std::fmt::Debug,
    bound: usize,
    bytes: &[u8],
    read: impl FnOnce() -> T,
) -> usize {
    let before = TAKEN.load(Relaxed);
    MOST.store(before, Relaxed);
    drop(read());
    let taken = MOST.load(Relaxed).saturating_sub(before);
    let start = &bytes[..bytes.len().min(1 << 10)];
    assert!(taken <= bound, "{what:?}: {taken} bytes for {start:02x?}");
    taken
}

/// Copies of a file with large numbers in the place of what is there, all over it.
fn damaged(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let numbers: [&[u8]; 5] = [
        &[0xff; 8],
        &[0xff, 0xff, 0xff, 0x3f],
        &[0x3f, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0x10, 0, 0, 0],
        b"99999999",
    ];
    let places = (0..seed.len()).step_by((seed.len() / 24).max(1));
    places.flat_map(move |at| {
        numbers.map(|number| {
            let mut bytes = seed.to_vec();
            let end = (at + number.len()).min(seed.len());
            bytes[at..end].copy_from_slice(&number[..end - at]);
            bytes
        })
    })
}

fn is_packed(format: Format, seed: &[u8]) -> bool {
    matches!(format, Format::Npz | Format::Image) || seed.starts_with(&[0x1f, 0x8b])
}

#[test]
fn a_short_file_takes_little_memory_whatever_it_says() {
    // Looking for names of functions in a panic that a reader catches takes a hundred times as much as the file.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let folder = tempfile::tempdir().expect("a temporary folder");
    // What is made once is not the file's.
    Format::all().iter().for_each(|format| drop(read(*format, &format.seed(), folder.path())));
    for format in Format::all() {
        for seed in format.seeds() {
            let bound = if is_packed(format, &seed) { PACKED_BYTES_MAX } else { BYTES_MAX };
            let taken = damaged(&seed).map(|bytes| {
                within(&format, bound, &bytes, || read(format, &bytes, folder.path()))
            });
            println!("{format:?}: {} bytes at most", taken.max().unwrap_or(0));
        }
    }
    for (format, bytes) in found() {
        within(&format, PACKED_BYTES_MAX, &bytes, || read(format, &bytes, folder.path()));
    }
    #[cfg(feature = "parquet")]
    for (format, files) in [
        (Format::Parquet, formats::claims::parquet_claims()),
        (Format::Arrow, formats::claims::arrow_claims()),
    ] {
        for (number, (bytes, said)) in files.into_iter().enumerate() {
            // What may be unpacked, and the file.
            let bound = PACKED_BYTES_MAX.max(250 * bytes.len());
            within(&(format, number), bound, &bytes, || {
                let refused = read(format, &bytes, folder.path()).expect_err("claims too much");
                assert!(refused.contains(said), "{format:?} {number}: {refused}");
            });
        }
    }
    // Rows of nothing, behind one of five thousand columns.
    let keys: Vec<String> = (0..5_000).map(|key| format!("\"{key}\":1")).collect();
    let bytes = format!("{{\"age\":1,\"label\":2,{}}}\n{}", keys.join(","), "{}\n".repeat(20_000));
    within(&Format::JsonLines, PACKED_BYTES_MAX, bytes.as_bytes(), || {
        let refused =
            read(Format::JsonLines, bytes.as_bytes(), folder.path()).expect_err("is short");
        assert!(refused.contains("claims 20001 rows"), "{refused}");
    });
    let bytes = formats::kept::long_name();
    within(&Kept::Archive, PACKED_BYTES_MAX, &bytes, || {
        read_kept(Kept::Archive, &bytes, folder.path()).expect_err("has no end")
    });
    drop(bytes);
    for &kept in ALL {
        for seed in kept.seeds() {
            drop(read_kept(kept, &seed, folder.path()));
            let taken = damaged(&seed).map(|bytes| {
                within(&kept, BYTES_MAX, &bytes, || read_kept(kept, &bytes, folder.path()))
            });
            println!("{kept:?}: {} bytes at most", taken.max().unwrap_or(0));
        }
    }
}
