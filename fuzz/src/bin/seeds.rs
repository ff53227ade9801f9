//! Writes data sets without faults of every format, what is kept besides, and what was found once, where `cargo fuzz` looks
//! for seeds.

use std::path::Path;

use inflight_fuzz::{ALL, Format, found};

fn main() -> std::io::Result<()> {
    for format in Format::all() {
        for (number, seed) in format.seeds().iter().enumerate() {
            write(&format.target(), &format!("seed-{number}"), seed)?;
        }
    }
    for (number, (format, bytes)) in found().iter().enumerate() {
        write(&format.target(), &format!("found-{number}"), bytes)?;
    }
    for kept in ALL {
        for (number, seed) in kept.seeds().iter().enumerate() {
            write(&format!("{kept:?}").to_lowercase(), &format!("seed-{number}"), seed)?;
        }
    }
    Ok(())
}

fn write(target: &str, name: &str, seed: &[u8]) -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(name), seed)
}
