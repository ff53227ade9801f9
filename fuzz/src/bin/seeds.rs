//! Writes a data set without faults of every format where `cargo fuzz` looks for seeds.

use inflight_fuzz::Format;

fn main() -> std::io::Result<()> {
    for format in Format::all() {
        let name = format!("{format:?}");
        let target = match format {
            Format::JsonLines => "json_lines".into(),
            _ => name.to_lowercase(),
        };
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("seed"), format.seed())?;
    }
    Ok(())
}
