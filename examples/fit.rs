//! Shape 2, the whole run in one future: `fit().await`.
//!
//! `cargo run --release --example fit`

use inflight::{RunConfig, Trainer, nn::models, source};

fn main() -> inflight::Result<()> {
    let data = source::open("fashion-mnist-10k", &Default::default())?;
    let model = models::by_name("cnn", data.train.spec())?;
    let config = RunConfig { epochs: Some(1), ..Default::default() };
    let mut builder = Trainer::builder(model, data.train).config(config);
    if let Some(test) = data.test {
        builder = builder.validation(test);
    }
    let trainer = builder.start()?;

    let summary = pollster::block_on(trainer.fit())?;
    println!("{} steps at {:.0} samples/s", summary.steps, summary.samples_per_s);
    println!("validation accuracy {:.1} %", 100.0 * summary.val_accuracy.unwrap_or(f64::NAN));
    println!("{}", summary.verdict.advice);
    Ok(())
}
