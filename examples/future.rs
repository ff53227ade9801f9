//! Shape 1, promises: `step()` returns a future. Asking for several steps before awaiting the first keeps the
//! pipeline full, and leaves the program free to do anything between them.
//!
//! `cargo run --release --example future`

use inflight::{RunConfig, Trainer, nn::models, source};

fn main() -> inflight::Result<()> {
    let data = source::open("fashion-mnist-10k", &Default::default())?;
    let model = models::by_name("mlp", data.train.spec())?;
    let config = RunConfig { steps: Some(40), ..Default::default() };
    let trainer = Trainer::builder(model, data.train).config(config).start()?;

    pollster::block_on(async {
        let promises: Vec<_> = (0..40).map(|_| trainer.step()).collect();
        for promise in promises {
            if let Some(report) = promise.await? {
                println!("step {:>3}  loss {:.4}", report.step, report.loss);
            }
        }
        Ok(())
    })
}
