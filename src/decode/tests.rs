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

/// Every codec at every size that it decodes to.
fn methods() -> Vec<Method> {
    let every = |&codec: &JpegCodec| {
        let can_be =
            move |reduction: &Reduction| codec != JpegCodec::Zune || *reduction == Reduction::Whole;
        let reductions = Reduction::ALL.into_iter().filter(can_be);
        reductions.map(move |reduction| Method { codec, reduction })
    };
    JpegCodec::ALL.iter().flat_map(every).collect()
}

#[test]
fn rows_are_the_same_however_many_are_decoded() {
    for (name, method) in
        JPEGS.iter().flat_map(|name| methods().into_iter().map(move |m| (name, m)))
    {
        let bytes = file(name);
        let header = header(&bytes).expect("a JPEG");
        let [height, width] = header.decoded(method);
        for channels in [1, 3] {
            let mut whole = Vec::new();
            decode_rows(&bytes, &header, channels, method, height, &mut whole).expect("a JPEG");
            let mut fewer = 0;
            for rows in 1..=height {
                // Left over from another image, and too long.
                let mut part = vec![7; whole.len() + 100];
                let decoded = decode_rows(&bytes, &header, channels, method, rows, &mut part);
                let decoded = decoded.expect("a JPEG");
                assert!(decoded >= rows && decoded <= height, "{decoded} of {rows}");
                let len = rows * width * channels;
                assert!(part[..len] == whole[..len], "{name}, {method:?}, {rows} x {channels}");
                fewer += usize::from(decoded < height);
            }
            let sequential = !name.contains("progressive");
            assert!(fewer > 0 || !sequential || height < 20, "{name} is decoded whole: {method:?}");
        }
    }
}

/// The JPEGs by every method, and other files by the default one.
fn files(others: [&'static str; 4]) -> impl Iterator<Item = (&'static str, Method)> {
    let jpegs = JPEGS.into_iter().flat_map(|name| methods().into_iter().map(move |m| (name, m)));
    jpegs.chain(others.map(|name| (name, Method::default())))
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for (name, method) in files(["png-rgb.png", "gif.gif", "bmp-24.bmp", "webp-lossy.webp"]) {
        let bytes = file(name);
        let mut pixels = Vec::new();
        decode_by(&bytes, 3, method, &mut pixels).expect("whole");
        for len in (0..bytes.len() - 1).step_by(7).chain([bytes.len() - 2]) {
            // The last bytes of other formats than JPEG tell nothing about pixels.
            if !name.contains("jpg") && len + 16 > bytes.len() {
                continue;
            }
            let error = decode_by(&bytes[..len], 3, method, &mut pixels).map(|()| len);
            assert!(error.is_err(), "{name} cut to {len} of {} bytes: {method:?}", bytes.len());
        }
    }
}

/// Every byte changed in some way: an error or a picture of the right size, never a panic.
#[test]
fn damaged_files_do_not_panic() {
    for (name, method) in files(["png-palette.png", "gif.gif", "bmp-8.bmp", "webp-lossless.webp"]) {
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
                if decode_by(&bytes, 3, method, &mut pixels).is_ok() {
                    assert_eq!(pixels.len(), 3 * header.decoded(method).iter().product::<usize>());
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
    let bytes = file("jpeg-grey-progressive.jpg");
    let scan = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).expect("a scan");
    let is_marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0;
    let len = bytes[scan + 2..].windows(2).position(is_marker).expect("another marker") + 2;
    // The first scan again and again, each as if it gave all bits of the means, to which nothing is to be added.
    let mut again = bytes[scan..scan + len].to_vec();
    again[9] = 0;
    let bomb = |scans: usize| [&bytes[..scan], &again.repeat(scans), &[0xff, 0xd9]].concat();
    for method in methods() {
        decode_by(&bomb(1), 3, method, &mut Vec::new()).expect("a coarse picture");
        let error = decode_by(&bomb(1000), 3, method, &mut Vec::new()).expect_err("a bomb");
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let tells = cause.as_deref().is_some_and(|cause| cause.contains("scans"));
        assert!(tells, "{method:?}: {error}: {cause:?}");
    }
}

/// Where the file has its restart of a number.
fn restart(bytes: &[u8], number: u8) -> usize {
    let is_it = |pair: &[u8]| pair == [0xff, 0xd0 + number];
    bytes.windows(2).position(is_it).expect("a restart")
}

#[test]
fn a_restart_that_is_missing_is_told() {
    let whole = file("jpeg-restarts.jpg");
    // Decoders go on without it, with what follows in the wrong place.
    let without = |number| {
        let (from, to) = (restart(&whole, number), restart(&whole, number + 1));
        [&whole[..from], &whole[to..]].concat()
    };
    let error = |bytes: &[u8]| header(bytes).expect_err("damaged").to_string();
    let told = error(&without(2));
    assert!(told.contains("its restart marker 2 of"), "{told}");
    assert!(told.contains("is FFD3, expected FFD2"), "{told}");
    let mut last = whole.clone();
    let at = last.windows(2).rposition(|pair| pair[0] == 0xff && (0xd0..0xd8).contains(&pair[1]));
    last.drain(at.expect("the last restart")..last.len() - 2);
    assert!(error(&last).contains("is FFD9, expected FFD"), "{}", error(&last));
}

/// Damage in the middle of the data, which libjpeg-turbo passes over with a warning if it is let to, and zune-jpeg without.
#[test]
#[cfg(feature = "turbojpeg")]
fn what_a_codec_would_make_up_is_an_error() {
    let whole = file("jpeg-restarts.jpg");
    // Of the data between two restarts, half are gone.
    let (from, to) = (restart(&whole, 2), restart(&whole, 3));
    let bytes = [&whole[..from.midpoint(to)], &whole[to..]].concat();
    for reduction in Reduction::ALL {
        let method = Method { codec: JpegCodec::Turbo, reduction };
        let error = decode_by(&bytes, 3, method, &mut Vec::new()).expect_err("damaged").to_string();
        assert!(error.contains("found a damaged JPEG"), "{method:?}: {error}");
    }
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

/// A JPEG of one sequential scan a component, made of three grey ones.
fn of_separate_scans() -> Vec<u8> {
    let grey = |plane: usize| {
        let pixel = |i: usize| (i % 64 * (plane + 1) + i / 64 * 3 + i * i % 11) as u8;
        let pixels: Vec<u8> = (0..64 * 80).map(pixel).collect();
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90);
        encoder.encode(&pixels, 64, 80, image::ExtendedColorType::L8).expect("a JPEG");
        bytes
    };
    let place = |bytes: &[u8], marker: u8| {
        bytes.windows(2).position(|pair| pair == [0xff, marker]).expect("the segment")
    };
    let first = grey(0);
    let (frame, scan) = (place(&first, 0xc0), place(&first, 0xda));
    let size = &first[frame + 5..frame + 9];
    let components = [1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0];
    let mut all = first[..frame].to_vec();
    all.extend([&[0xff, 0xc0, 0, 17, 8], size, &[3], &components].concat());
    all.extend(&first[frame + 13..scan]);
    for plane in 0..3 {
        let bytes = grey(plane);
        let mut part = bytes[place(&bytes, 0xda)..bytes.len() - 2].to_vec();
        part[5] = plane as u8 + 1;
        all.extend(part);
    }
    all.extend([0xff, 0xd9]);
    all
}

#[test]
fn colours_in_scans_of_their_own_are_all_decoded() {
    let bytes = of_separate_scans();
    let header = header(&bytes).expect("a JPEG");
    for method in methods() {
        let [height, width] = header.decoded(method);
        let mut whole = Vec::new();
        decode_rows(&bytes, &header, 3, method, height, &mut whole).expect("a JPEG");
        assert!(whole.chunks_exact(3).any(|pixel| pixel[0].abs_diff(pixel[2]) > 50), "{method:?}");
        for rows in [1, 8, 30] {
            let mut part = Vec::new();
            decode_rows(&bytes, &header, 3, method, rows, &mut part).expect("a JPEG");
            let len = rows.min(height) * width * 3;
            assert!(part[..len] == whole[..len], "{method:?}, {rows} rows");
        }
    }
}
