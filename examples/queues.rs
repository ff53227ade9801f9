//! Shape 5, bounded message queues: commands in, events out, each from a thread of its own. Here a controller
//! lets the run go ten steps at a time and stops it when the loss is low enough.
//!
//! `cargo run --release --example queues`

use inflight::train::event::Event;
use inflight::{RunConfig, Trainer, nn::models, source};

fn main() -> inflight::Result<()> {
    let data = source::open("fashion-mnist-10k", &Default::default())?;
    let model = models::by_name("mlp", data.train.spec())?;
    let config = RunConfig { epochs: Some(5), ..Default::default() };
    let trainer = Trainer::builder(model, data.train).config(config).start()?;
    let (commands, events) = (trainer.commands(), trainer.queue(64));

    let controller = std::thread::spawn(move || -> inflight::Result<()> {
        commands.steps(10);
        for event in events {
            match event? {
                Event::Step(step) if step.loss < 0.6 => {
                    println!("loss {:.4} after {} steps is enough", step.loss, step.step);
                    commands.stop();
                }
                Event::Step(step) if step.step % 10 == 0 => {
                    println!("step {:>3}  loss {:.4}", step.step, step.loss);
                    commands.steps(10);
                }
                Event::Done(summary) => println!("{} steps in all", summary.steps),
                _ => {}
            }
        }
        Ok(())
    });
    controller.join().expect("the controller does not panic")
}
