//! Writes a data set without faults of every format, what is kept besides, and what was found once, where `cargo fuzz` looks
//! for seeds.

use std::path::Path;

use inflight_fuzz::{ALL, Format};

fn main() -> std::io::Result<()> {
    for format in Format::all() {
        let name = format!("{format:?}");
        let target = match format {
            Format::JsonLines => "json_lines".into(),
            _ => name.to_lowercase(),
        };
        for (number, seed) in format.seeds().iter().enumerate() {
            write(&target, &format!("seed-{number}"), seed)?;
        }
        write_found(&target)?;
    }
    ALL.iter().try_for_each(|kept| write(&format!("{kept:?}").to_lowercase(), "seed", &kept.seed()))
}

fn write(target: &str, name: &str, seed: &[u8]) -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join(name), seed)
}

fn write_found(target: &str) -> std::io::Result<()> {
    let Ok(found) =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target))
    else {
        return Ok(());
    };
    for file in found {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write(target, &name, &std::fs::read(&path)?)?;
    }
    Ok(())
}
