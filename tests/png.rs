//! PNG files that are made here, since no common program writes them: interlaced ones, and bombs.

use std::io::Write;

use inflight::decode::decode;
use inflight::report::memory::peak_memory_bytes;

/// A part of a PNG file.
fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut crc = crc32fast::Hasher::new();
    [&kind[..], body].iter().for_each(|bytes| crc.update(bytes));
    [&(body.len() as u32).to_be_bytes(), &kind[..], body, &crc.finalize().to_be_bytes()].concat()
}

fn deflated<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    parts.into_iter().for_each(|bytes| packed.write_all(bytes).expect("to memory"));
    packed.finish().expect("to memory")
}

/// A grey PNG of `side` x `side` pixels with more parts before its data, which are `rows` packed.
fn png(side: u32, interlaced: bool, more: &[Vec<u8>], rows: &[u8]) -> Vec<u8> {
    let side = side.to_be_bytes();
    let head = [&side[..], &side, &[8, 0, 0, 0, u8::from(interlaced)]].concat();
    let parts = [chunk(b"IHDR", &head), more.concat(), chunk(b"IDAT", &deflated([rows]))].concat();
    [b"\x89PNG\r\n\x1a\n", &parts[..], &chunk(b"IEND", &[])].concat()
}

/// What each text becomes when it is unpacked.
const UNPACKED_BYTES: usize = 256 << 20;

/// The seven passes of Adam7: first column and row, and steps (PNG, section 8.2).
const ADAM7: [[usize; 4]; 7] = [
    [0, 0, 8, 8],
    [4, 0, 8, 8],
    [0, 4, 4, 8],
    [2, 0, 4, 4],
    [0, 2, 2, 4],
    [1, 0, 2, 2],
    [0, 1, 1, 2],
];

#[test]
fn interlaced_pictures_are_put_together_and_bounded() {
    let side = 11;
    let grey = |row: usize, column: usize| (row * 16 + column) as u8;
    let mut rows = Vec::new();
    for [x, y, dx, dy] in ADAM7 {
        for row in (y..side).step_by(dy) {
            rows.push(0);
            rows.extend((x..side).step_by(dx).map(|column| grey(row, column)));
        }
    }
    let file = png(side as u32, true, &[], &rows);
    let mut pixels = Vec::new();
    decode(&file, 1, &mut pixels).expect("a PNG");
    let expected: Vec<u8> = (0..side * side).map(|i| grey(i / side, i % side)).collect();
    assert_eq!(pixels, expected);
    let short = png(side as u32, true, &[], &rows[..rows.len() / 2]);
    assert!(decode(&short, 1, &mut pixels).is_err(), "half of it is not there");
    let bomb = png(9000, true, &[], &rows);
    let error = decode(&bomb, 1, &mut pixels).expect_err("claims too much").to_string();
    assert!(error.contains("pixels a byte"), "{error}");
}

/// Alone with a test that takes next to nothing, and so in a process whose memory tells.
#[test]
fn texts_in_pictures_are_not_unpacked() {
    let Some(before) = peak_memory_bytes() else {
        eprintln!("SKIPPED: this system does not tell the most memory that a process held");
        return;
    };
    let zeros = deflated(std::iter::repeat_n(&[0; 1 << 16][..], UNPACKED_BYTES >> 16));
    let compressed = chunk(b"zTXt", &[b"Comment\0\0", &zeros[..]].concat());
    let international = chunk(b"iTXt", &[b"Comment\0\x01\0\0\0", &zeros[..]].concat());
    let profile = chunk(b"iCCP", &[b"Profile\0\0", &zeros[..]].concat());
    for bomb in [compressed, international, profile] {
        let file = png(1, false, &[bomb], &[0, 77]);
        let mut pixels = Vec::new();
        decode(&file, 1, &mut pixels).expect("a PNG");
        assert_eq!(pixels, [77]);
    }
    let taken = peak_memory_bytes().expect("as before") - before;
    assert!(taken < UNPACKED_BYTES as u64 / 4, "took {taken} bytes");
}
