//! **inflight** trains neural networks on any GPU, with no CUDA and no Python, through a pipeline that never waits: while
//! the device runs step *n*, workers prepare the batches after it, and the loss of the step before comes back.
//!
//! ```
//! use inflight::{RunConfig, Trainer, nn::models, source};
//!
//! # fn main() -> inflight::Result<()> {
//! let data = source::open("fashion-mnist-10k", &Default::default())?;
//! let model = models::by_name("mlp", data.train.spec())?;
//! let config = RunConfig { steps: Some(20), device: "cpu".into(), ..Default::default() };
//! let trainer = Trainer::builder(model, data.train).config(config).start()?;
//!
//! let first = pollster::block_on(trainer.step())?.expect("there are 20 steps");
//! let summary = pollster::block_on(trainer.fit())?;
//! assert_eq!(summary.steps, 20);
//! println!("loss {:.3}, then {:.0} samples/s", first.loss, summary.samples_per_s);
//! # Ok(())
//! # }
//! ```
//!
//! A training loop has five shapes on one engine, see [`Trainer`]: promises, a whole run, callbacks, a stream of events,
//! message queues. Data comes from a [`source::Source`], models are [`nn::Module`]s that build a [`graph::Graph`], and an
//! [`executor::Executor`] runs the compiled [`graph::plan::Program`] on a GPU ([`gpu`]) or on the CPU ([`cpu`]).
//!
//! [`guide`] goes from a first run to a model of your own; `docs/architecture.md` in the repository shows the whole on one
//! page.

mod assembly;
pub mod batch;
pub mod bench;
mod clock;
pub mod config;
pub mod convert;
pub mod cpu;
pub mod decode;
pub mod device;
pub mod durable;
pub mod error;
pub mod executor;
#[cfg_attr(not(feature = "faults"), doc(hidden))]
pub mod faults;
mod foresight;
pub mod framing;
pub mod gauges;
pub mod generate;
pub mod gpu;
pub mod graph;
pub mod guide;
mod kept;
mod lock;
pub mod nn;
pub mod peaks;
pub mod permutation;
pub mod pipeline;
pub mod prepare;
pub mod quarantine;
pub mod report;
mod ring;
pub mod rng;
pub mod sampler;
#[cfg(feature = "serve")]
pub mod serve;
pub mod source;
mod sync;
#[doc(hidden)]
pub mod testing;
pub mod tokenizer;
pub mod train;
pub mod transform;
mod tuner;

pub use config::RunConfig;
pub use error::{Error, ErrorKind, Result, Stage};
pub use train::Trainer;

/// The README's program, compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
