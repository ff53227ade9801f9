//! Shape 4, a stream of events: `futures_core::Stream` for async code, an `Iterator` for the rest.
//!
//! `cargo run --release --example stream`

use std::future::poll_fn;
use std::pin::Pin;

use futures_core::Stream;
use inflight::train::event::Event;
use inflight::{RunConfig, Trainer, nn::models, source};

fn main() -> inflight::Result<()> {
    let data = source::open("fashion-mnist-10k", &Default::default())?;
    let model = models::by_name("mlp", data.train.spec())?;
    let config = RunConfig { steps: Some(30), ..Default::default() };
    let trainer = Trainer::builder(model, data.train).config(config).start()?;

    pollster::block_on(async {
        let mut events = trainer.events();
        let finished = trainer.fit();
        while let Some(event) = poll_fn(|cx| Pin::new(&mut events).poll_next(cx)).await {
            match event? {
                Event::Step(step) => println!("step {:>3}  loss {:.4}", step.step, step.loss),
                Event::Done(summary) => println!("parameters {}", summary.parameter_hash),
                _ => {}
            }
        }
        finished.await?;
        Ok(())
    })
}
