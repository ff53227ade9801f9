//! A model of your own: anything that adds operations to a graph. Here two branches whose results are added,
//! which a list of layers cannot say. The gradient, fusion and memory follow by themselves.
//!
//! `cargo run --release --example custom_model`

use inflight::graph::op::{Activation, Op};
use inflight::graph::{Graph, Init, TensorId};
use inflight::nn::{Mode, Module};
use inflight::{Result, RunConfig, Trainer, source};

/// y = head(relu(wide(x)) · gelu(gate(x))), a gated network.
struct Gated {
    width: usize,
    classes: usize,
}

impl Gated {
    fn linear(graph: &mut Graph, name: &str, x: TensorId, out: usize) -> Result<TensorId> {
        graph.set_scope(name);
        let inputs = graph.shape(x)[1];
        let bound = 1.0 / (inputs as f32).sqrt();
        let weight = graph.param("weight", &[out, inputs], Init::Uniform { bound });
        let bias = graph.param("bias", &[out], Init::Uniform { bound });
        let product = Op::MatMul {
            transpose_a: false,
            transpose_b: true,
            bias: true,
            activation: Activation::Identity,
        };
        graph.push_one(product, &[x, weight, bias])
    }
}

impl Module for Gated {
    fn build(&self, graph: &mut Graph, x: TensorId, _mode: Mode) -> Result<TensorId> {
        let batch = graph.shape(x)[0];
        let len = graph.shape(x)[1..].iter().product();
        let x = graph.reshape(x, &[batch, len])?;
        let wide = Self::linear(graph, "wide", x, self.width)?;
        let wide = graph.push_one(Op::Relu, &[wide])?;
        let gate = Self::linear(graph, "gate", x, self.width)?;
        let gate = graph.push_one(Op::Gelu, &[gate])?;
        let both = graph.push_one(Op::Mul, &[wide, gate])?;
        Self::linear(graph, "head", both, self.classes)
    }
}

fn main() -> Result<()> {
    let data = source::open("fashion-mnist-10k", &Default::default())?;
    let model = Gated { width: 128, classes: data.train.spec().classes().unwrap_or(10) };
    let config = RunConfig { epochs: Some(2), ..Default::default() };
    let trainer = Trainer::builder(model, data.train).config(config).start()?;
    trainer.on_epoch(|epoch| println!("epoch {}: loss {:.4}", epoch.epoch, epoch.loss));
    pollster::block_on(trainer.fit())?;
    for parameter in pollster::block_on(trainer.parameters())? {
        println!("{:<12} {:?}", parameter.name, parameter.shape);
    }
    Ok(())
}
