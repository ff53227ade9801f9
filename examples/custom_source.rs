//! A source and a transform of your own: a source lends bytes, a transform changes a worker's copy of them.
//! Both are called by many threads at once.
//!
//! `cargo run --release --example custom_source`

use std::sync::Arc;

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::nn::models;
use inflight::rng::Rng;
use inflight::source::{Sample, Source, SourceInfo, Target};
use inflight::transform::{Image, Transform};
use inflight::{Result, RunConfig, Trainer};

/// Pictures of a bright bar: in the upper half class 0, in the lower half class 1.
struct Bars {
    spec: SampleSpec,
    info: SourceInfo,
}

impl Source for Bars {
    fn len(&self) -> usize {
        4096
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let mut rng = Rng::keyed(&[index as u64]);
        let row = rng.below(16) as usize;
        scratch.clear();
        scratch.extend((0..16 * 16).map(|_| rng.below(128) as u8));
        scratch[row * 16..(row + 1) * 16].fill(255);
        Ok(Sample { input: scratch, target: Target::Class(u32::from(row >= 8)) })
    }
}

/// Adds the same random brightness to every pixel.
struct Brightness;

impl Transform for Brightness {
    fn name(&self) -> &str {
        "brightness"
    }

    fn apply(&self, image: &mut Image<'_>, rng: &mut Rng) -> Result<()> {
        let more = rng.below(64) as u8;
        for byte in image.pixels_mut()? {
            *byte = byte.saturating_add(more);
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let bars = Arc::new(Bars {
        spec: SampleSpec {
            input_shape: vec![1, 16, 16],
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: 2 },
        },
        info: SourceInfo { name: "bars".into(), ..Default::default() },
    });
    let model = models::by_name("cnn", &bars.spec)?;
    let config = RunConfig { epochs: Some(3), batch_size: 64, ..Default::default() };
    let trainer = Trainer::builder(model, bars).transform(Brightness).config(config).start()?;
    trainer.on_epoch(|epoch| println!("epoch {}: loss {:.4}", epoch.epoch, epoch.loss));
    pollster::block_on(trainer.fit())?;
    Ok(())
}
