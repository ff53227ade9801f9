//! Writes a data set without faults of every format, and what is kept besides, where `cargo fuzz` looks for seeds.

use inflight_fuzz::{ALL, Format};

fn main() -> std::io::Result<()> {
    for format in Format::all() {
        let name = format!("{format:?}");
        let target = match format {
            Format::JsonLines => "json_lines".into(),
            _ => name.to_lowercase(),
        };
        write(&target, &format.seed())?;
    }
    ALL.iter().try_for_each(|kept| write(&format!("{kept:?}").to_lowercase(), &kept.seed()))
}

fn write(target: &str, seed: &[u8]) -> std::io::Result<()> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("seed"), seed)
}
