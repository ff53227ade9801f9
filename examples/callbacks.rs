//! Shape 3, callbacks: called on the device thread as things happen.
//!
//! `cargo run --release --example callbacks`

use inflight::{RunConfig, Trainer, nn::models, source};

fn main() -> inflight::Result<()> {
    let data = source::open("fashion-mnist-10k", &Default::default())?;
    let model = models::by_name("mlp", data.train.spec())?;
    let config = RunConfig { epochs: Some(2), ..Default::default() };
    let folder = tempfile::tempdir().map_err(|e| {
        inflight::Error::checkpoint("temporary folder", "cannot be made").caused_by(e)
    })?;
    let trainer = Trainer::builder(model, data.train)
        .config(config)
        .run_dir(folder.path().join("run"))
        .start()?;

    let mut best = f64::INFINITY;
    trainer.on_step(move |step| {
        if step.loss < best {
            best = step.loss;
            println!("step {:>3}  best loss so far {best:.4}", step.step);
        }
    });
    trainer.on_epoch(|epoch| println!("epoch {} ended with loss {:.4}", epoch.epoch, epoch.loss));
    trainer.on_checkpoint(|saved| println!("saved {} bytes at step {}", saved.bytes, saved.step));
    pollster::block_on(trainer.fit())?;
    Ok(())
}
