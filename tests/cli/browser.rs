//! The page of a run in a real Chromium: at the width of a desktop and of a phone, in the dark, and on paper. Without
//! one the test skips aloud; `REQUIRE_CHROMIUM=1` makes that a failure.

use std::path::Path;

use image::{Rgb, RgbImage};

use super::chromium::{self, chromium};
use super::{Desk, SMALL};

/// Has the browser make `out` of `page`.
fn browse(chromium: &Path, desk: &Desk, page: &str, flags: &[&str], out: &str) -> Vec<u8> {
    let address = format!("file://{}", desk.path(page).display());
    let output = chromium::browse(chromium, &address, flags, desk.dir.path());
    let told = String::from_utf8_lossy(&output.stderr);
    std::fs::read(desk.path(out)).unwrap_or_else(|e| panic!("{out}: {e}\n{told}"))
}

fn screenshot(chromium: &Path, desk: &Desk, page: &str, size: [u32; 2], dark: bool) -> RgbImage {
    let window = format!("--window-size={},{}", size[0], size[1]);
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
    let flags = [window.as_str(), &scheme, "--screenshot=shot.png"];
    let png = browse(chromium, desk, page, &flags, "shot.png");
    let shot = image::load_from_memory(&png).expect("a picture").to_rgb8();
    assert_eq!(shot.dimensions(), (size[0], size[1]));
    shot
}

/// Pixels of about this colour.
fn count(shot: &RgbImage, colour: [u8; 3]) -> usize {
    let near = |p: &Rgb<u8>| p.0.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 24);
    shot.pixels().filter(|p| near(p)).count()
}

/// Nothing may reach over the edge of the page: the last columns are its ground.
fn margin_is_free(shot: &RgbImage, ground: [u8; 3]) {
    let (width, height) = shot.dimensions();
    for x in width - 6..width {
        let free = (0..height).all(|y| shot.get_pixel(x, y).0 == ground);
        assert!(free, "something reaches column {x} of {width}");
    }
}

const PAPER: [u8; 3] = [0xfb, 0xfb, 0xfa];
const DARK_PAPER: [u8; 3] = [0x15, 0x16, 0x1a];
/// The first two colours of charts.
const BLUE: [u8; 3] = [0x24, 0x63, 0xc8];
const DARK_BLUE: [u8; 3] = [0x76, 0xa9, 0xff];

#[test]
fn the_page_is_drawn_on_desktop_phone_and_paper() {
    let Some(chromium) = chromium() else { return };
    let desk = Desk::new();
    desk.json(&format!("train fashion-mnist-10k {SMALL} --epochs 2 --val-split 0.5 --out run"), 0);
    desk.ok("report run --out page.html");
    let desktop = screenshot(&chromium, &desk, "page.html", [1200, 4800], false);
    margin_is_free(&desktop, PAPER);
    assert!(count(&desktop, BLUE) > 2000, "{}", count(&desktop, BLUE));
    let dark = screenshot(&chromium, &desk, "page.html", [1200, 4800], true);
    margin_is_free(&dark, DARK_PAPER);
    assert!(count(&dark, DARK_BLUE) > 2000 && count(&dark, BLUE) < 500, "the charts are dark too");
    // A window is never narrower than 500 pixels; a frame in it is.
    let frame = "<body style='margin:0'><iframe src='page.html' style='border:0;width:390px;height:7000px'>";
    std::fs::write(desk.path("phone.html"), frame).expect("writes");
    let wide = screenshot(&chromium, &desk, "phone.html", [500, 7000], false);
    let phone = image::imageops::crop_imm(&wide, 0, 0, 390, 7000).to_image();
    margin_is_free(&phone, PAPER);
    assert!(count(&phone, BLUE) > 2000, "{}", count(&phone, BLUE));
    let pdf = browse(&chromium, &desk, "page.html", &["--print-to-pdf=page.pdf"], "page.pdf");
    assert!(pdf.starts_with(b"%PDF-"));
    let pages = pdf.windows(11).filter(|bytes| bytes == b"/Type /Page").count();
    assert!((2..=9).contains(&pages), "{pages} pages");
}
