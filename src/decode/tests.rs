use std::path::PathBuf;

use super::*;

fn file(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pixels");
    std::fs::read(folder.join(name)).expect("a file in the tree")
}

const JPEGS: [&str; 12] = [
    "jpeg-444.jpg",
    "jpeg-440.jpg",
    "jpeg-422.jpg",
    "jpeg-420.jpg",
    "jpeg-411.jpg",
    "jpeg-grey.jpg",
    "jpeg-restarts.jpg",
    "jpeg-cmyk.jpg",
    "jpeg-ycck.jpg",
    "jpeg-rgb.jpg",
    "jpeg-progressive-420.jpg",
    "opencv-scenetext_word01.jpg",
];

#[test]
fn rows_are_the_same_however_many_are_decoded() {
    for name in JPEGS {
        let bytes = file(name);
        let header = header(&bytes).expect("a JPEG");
        let [height, width] = header.stored();
        for channels in [1, 3] {
            let mut whole = Vec::new();
            decode_rows(&bytes, &header, channels, height, &mut whole).expect("a JPEG");
            let mut fewer = 0;
            for rows in 1..=height {
                // Left over from another image, and too long.
                let mut part = vec![7; whole.len() + 100];
                let decoded = decode_rows(&bytes, &header, channels, rows, &mut part);
                let decoded = decoded.expect("a JPEG");
                assert!(decoded >= rows && decoded <= height, "{decoded} of {rows}");
                let len = rows * width * channels;
                assert!(part[..len] == whole[..len], "{name}, {rows} rows of {channels} channels");
                fewer += usize::from(decoded < height);
            }
            let sequential = !name.contains("progressive");
            assert!(fewer > 0 || !sequential || height < 20, "{name} is always decoded whole");
        }
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for name in JPEGS.into_iter().chain(["png-rgb.png", "gif.gif", "bmp-24.bmp", "webp-lossy.webp"])
    {
        let bytes = file(name);
        let mut pixels = Vec::new();
        decode(&bytes, 3, &mut pixels).expect("whole");
        for len in (0..bytes.len() - 1).step_by(7).chain([bytes.len() - 2]) {
            // The last bytes of other formats than JPEG tell nothing about pixels.
            if !name.contains("jpg") && len + 16 > bytes.len() {
                continue;
            }
            let error = decode(&bytes[..len], 3, &mut pixels).map(|()| len);
            assert!(error.is_err(), "{name} cut to {len} of {} bytes", bytes.len());
        }
    }
}

/// Every byte changed in some way: an error or a picture of the right size, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    for name in
        JPEGS.into_iter().chain(["png-palette.png", "gif.gif", "bmp-8.bmp", "webp-lossless.webp"])
    {
        let whole = file(name);
        for at in (0..whole.len()).step_by(3) {
            for change in [0xff, 0x00, whole[at] ^ 0x10] {
                let mut bytes = whole.clone();
                bytes[at] = change;
                let mut pixels = Vec::new();
                let Ok(header) = header(&bytes) else { continue };
                if header.width * header.height > 1 << 22 {
                    continue; // Allowed, but slow in a test.
                }
                if decode(&bytes, 3, &mut pixels).is_ok() {
                    assert_eq!(pixels.len(), 3 * header.width * header.height);
                }
            }
        }
    }
}

#[test]
fn what_claims_too_much_is_refused_before_it_is_decoded() {
    let refusal = |bytes: &[u8]| header(bytes).expect_err("claims too much").to_string();
    let mut jpeg = file("jpeg-420.jpg");
    let at = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame") + 5;
    jpeg[at..at + 4].copy_from_slice(&[0xff; 4]);
    assert!(refusal(&jpeg).contains("65535 x 65535 pixels, expected 1 to 100000000"));
    jpeg[at..at + 4].copy_from_slice(&[0x20, 0, 0x20, 0]);
    assert!(refusal(&jpeg).contains("expected at most 512 pixels a byte"), "{}", refusal(&jpeg));
    let mut png = file("png-rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0x20, 0, 0, 0, 0x20, 0]);
    // The header's checksum tells as well.
    refusal(&png);
    let mut bmp = file("bmp-24.bmp");
    bmp[18..26].copy_from_slice(&[0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0]);
    refusal(&bmp);
}

#[test]
fn a_thousand_scans_are_refused() {
    let bytes = file("jpeg-progressive-420.jpg");
    // The last scan, from its marker to the end of the file, again and again.
    let last = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).expect("a scan");
    let mut bomb = bytes[..bytes.len() - 2].to_vec();
    for _ in 0..1000 {
        bomb.extend_from_slice(&bytes[last..bytes.len() - 2]);
    }
    bomb.extend_from_slice(&[0xff, 0xd9]);
    let error = decode(&bomb, 3, &mut Vec::new()).expect_err("a bomb");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert!(cause.as_deref().is_some_and(|cause| cause.contains("scans")), "{error}: {cause:?}");
}

#[test]
fn what_is_no_image_is_told() {
    let error = |bytes: &[u8]| header(bytes).expect_err("no image").to_string();
    assert!(error(b"").contains("found an empty file, expected JPEG, PNG, WebP, GIF or BMP"));
    assert!(error(b"plain text").contains("found bytes of no known format"));
    assert!(error(b"II*\0 a TIFF file").contains("found Tiff"), "{}", error(b"II*\0 a TIFF"));
    let mut lossless = file("jpeg-420.jpg");
    let at = lossless.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    lossless[at + 1] = 0xc3;
    assert!(error(&lossless).contains("process SOF3"), "{}", error(&lossless));
}
