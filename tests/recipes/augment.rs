//! Transforms on the device: the same training as with all of them on the workers.

use std::io::Cursor;
use std::sync::Arc;

use inflight::batch::{DType, SampleSpec, Slot, SlotLayout, TargetSpec};
use inflight::framing::Framing;
use inflight::nn::layers::Layer;
use inflight::nn::sequential::Sequential;
use inflight::prepare::{Keys, StageCounters, fill};
use inflight::rng::Rng;
use inflight::source::{Encoding, Sample, Source, SourceInfo, Target};
use inflight::testing::{assert_close, framed};
use inflight::train::event::{Event, Summary};
use inflight::transform::{Augment, Transform, TransformConfig};
use inflight::{Result, RunConfig, Trainer};

use crate::common::{CLASSES, config, devices};

/// Images at random: bytes of the shape that the model sees, or PNG files of other sizes.
struct Pictures {
    len: usize,
    spec: SampleSpec,
    info: SourceInfo,
    files: Option<Vec<Vec<u8>>>,
}

impl Pictures {
    fn raw(len: usize, shape: [usize; 3]) -> Self {
        let spec = SampleSpec {
            input_shape: shape.to_vec(),
            input_dtype: DType::U8,
            target: TargetSpec::Class { classes: CLASSES },
        };
        let info = SourceInfo {
            name: "pictures".into(),
            mean: vec![0.5, 0.4, 0.3][..shape[0]].to_vec(),
            std: vec![0.25, 0.3, 0.2][..shape[0]].to_vec(),
            ..Default::default()
        };
        Self { len, spec, info, files: None }
    }

    /// Files in colour: every other one has the size that the model sees.
    fn encoded(len: usize, [height, width]: [usize; 2]) -> Self {
        let file = |i: usize| {
            let mut rng = Rng::keyed(&[i as u64, 3]);
            let (w, h) =
                if i.is_multiple_of(2) { (width, height) } else { (width + 5, height + 3) };
            let mut pixel = |_, _| image::Rgb([(); 3].map(|()| rng.below(256) as u8));
            let picture = image::RgbImage::from_fn(w as u32, h as u32, &mut pixel);
            let mut file = Cursor::new(Vec::new());
            picture.write_to(&mut file, image::ImageFormat::Png).expect("encodes");
            file.into_inner()
        };
        Self { files: Some((0..len).map(file).collect()), ..Self::raw(len, [3, height, width]) }
    }
}

impl Source for Pictures {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn encoding(&self) -> Encoding {
        if self.files.is_some() { Encoding::Image } else { Encoding::Raw }
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let target = Target::Class((index % CLASSES) as u32);
        if let Some(files) = &self.files {
            return Ok(Sample { input: &files[index], target });
        }
        let mut rng = Rng::keyed(&[index as u64]);
        scratch.clear();
        scratch.extend((0..self.spec.input_bytes()).map(|_| rng.below(256) as u8));
        Ok(Sample { input: scratch, target })
    }
}

fn list(list: &str) -> Vec<TransformConfig> {
    TransformConfig::parse_list("--transforms", list).expect("all are known")
}

/// What happened, the summary, and whether the device had framings.
fn run(source: &Arc<Pictures>, config: &RunConfig) -> (Vec<Event>, Summary, bool) {
    let layers = vec![
        Layer::conv2d(4, 3, 1),
        Layer::relu(),
        Layer::flatten(),
        Layer::linear(16),
        Layer::relu(),
        Layer::classes(),
    ];
    let model = Sequential::new(layers, source.spec()).expect("any image fits");
    let held_out =
        Arc::new(Pictures::raw(9, source.spec.input_shape[..].try_into().expect("three")));
    let builder = Trainer::builder(model, source.clone()).validation(held_out);
    let trainer = builder.config(config.clone()).start().expect("the run starts");
    let framed = trainer.program().slot.framing_bytes > 0;
    let events = trainer.queue(1000);
    let summary = pollster::block_on(trainer.fit()).expect("the run succeeds");
    let events = events.iter().map(|event| event.expect("no failure"));
    (events.collect(), summary, framed)
}

/// Each step's loss, the summary, and whether the device had framings.
fn losses(source: &Arc<Pictures>, config: &RunConfig) -> (Vec<f64>, Summary, bool) {
    let (events, summary, framed) = run(source, config);
    let losses = events.iter().filter_map(|event| match event {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    (losses.collect(), summary, framed)
}

/// Expects the same run from both sides, bit for bit on the twins.
fn check(source: &Arc<Pictures>, config: &RunConfig, tolerance: f64) {
    let what =
        format!("{:?} {:?} on {}", source.spec.input_shape, config.transforms, config.device);
    let on = |augment| losses(source, &RunConfig { augment, ..config.clone() });
    let (by_workers, workers, framed) = on(Augment::Workers);
    assert!(!framed, "{what}");
    let (by_device, device, framed) = on(Augment::Device);
    assert!(framed, "{what}");
    if config.device == "cpu" {
        assert_eq!(by_workers, by_device, "{what}");
        assert_eq!(workers.parameter_hash, device.parameter_hash, "{what}");
        assert_eq!(workers.val_loss, device.val_loss, "{what}");
    } else {
        assert_close(&by_device, &by_workers, 0.0, tolerance);
    }
    let without = RunConfig { transforms: vec![], augment: Augment::Device, ..config.clone() };
    let (plain, _, framed) = losses(source, &without);
    assert!(!framed, "{what}");
    assert_ne!(plain, by_device, "{what}: the transforms did nothing");
}

#[test]
fn every_shape_trains_the_same_on_both_sides() {
    for device in devices() {
        for shape in [[1, 8, 8], [3, 7, 9], [3, 1, 63], [1, 65, 64], [2, 32, 32]] {
            // Two full batches and a partial one an epoch.
            let source = Arc::new(Pictures::raw(37, shape));
            let transforms = list("pad-crop:padding=2, horizontal-flip, random-erasing");
            check(&source, &RunConfig { transforms, steps: Some(6), ..config(device) }, 1e-5);
        }
    }
}

#[test]
fn what_follows_on_the_device_finds_the_same_images() {
    let source = Arc::new(Pictures::raw(37, [3, 9, 7]));
    for device in devices() {
        let transforms = list("vertical-flip, pad-crop, horizontal-flip, cutout:size=3:fill=200");
        // What is held out never gets a framing, whatever is done to it.
        let eval_transforms = list("vertical-flip:probability=1");
        let config = RunConfig { transforms, eval_transforms, steps: Some(6), ..config(device) };
        let mixed = RunConfig { mixup: Some(0.4), cutmix: Some(1.0), ..config.clone() };
        check(&source, &mixed, 1e-5);
        check(&source, &RunConfig { precision: "f16".into(), ..config.clone() }, 2e-3);
        check(&source, &RunConfig { recompute: true, ..config.clone() }, 1e-5);
        check(&source, &RunConfig { accumulate: 2, ema: Some(0.9), ..config }, 1e-5);
    }
}

#[test]
fn what_is_held_out_is_the_same_in_every_epoch() {
    let source = Arc::new(Pictures::raw(37, [3, 9, 7]));
    // At such a rate no parameter changes, so only what is drawn could change the loss.
    let still = RunConfig { lr: Some(1e-30), steps: Some(9), ..config("cpu") };
    let validated = |eval_transforms: &str| {
        let config = RunConfig { eval_transforms: list(eval_transforms), ..still.clone() };
        let epochs = run(&source, &config).0.into_iter().filter_map(|event| match event {
            Event::Epoch(epoch) => epoch.val_loss,
            _ => None,
        });
        epochs.collect::<Vec<f64>>()
    };
    let drawn = validated("horizontal-flip");
    assert_eq!(drawn, [drawn[0]; 3]);
    assert_ne!(drawn, validated("horizontal-flip:probability=0"), "nothing was drawn");
}

#[test]
fn images_of_any_size_train_the_same_on_both_sides() {
    let source = Arc::new(Pictures::encoded(37, [9, 7]));
    for device in devices() {
        for transforms in
            ["random-resized-crop, horizontal-flip, pad-crop", "pad-crop, horizontal-flip"]
        {
            let transforms = list(transforms);
            check(&source, &RunConfig { transforms, steps: Some(6), ..config(device) }, 1e-5);
        }
    }
}

/// Inputs of a batch as workers write them, and framings where there are some.
fn filled(source: &Pictures, layout: &SlotLayout, transforms: &[Box<dyn Transform>]) -> Slot {
    let mut slot = Slot::host(0, layout.slot_bytes);
    let indices: Vec<usize> = (0..source.len).collect();
    let keys = Keys { seed: 5, epoch: 2 };
    let times = StageCounters::default();
    fill(&mut slot, layout, source, transforms, &indices, keys, &times).expect("nothing is wrong");
    slot
}

#[test]
fn framings_do_what_workers_do() {
    let mut rng = Rng::keyed(&[11]);
    let names =
        ["horizontal-flip", "pad-crop:padding=1", "pad-crop:padding=9", "random-resized-crop"];
    for round in 0..60 {
        let side = |rng: &mut Rng| [1, 7, 8, 33][rng.below(4) as usize];
        let [height, width] = [side(&mut rng), side(&mut rng)];
        let source = match rng.below(3) {
            0 => Pictures::raw(10, [1, height, width]),
            1 => Pictures::raw(10, [3, height, width]),
            _ => Pictures::encoded(10, [height, width]),
        };
        let names: Vec<&str> =
            (0..1 + rng.below(4)).map(|_| names[rng.below(names.len() as u64) as usize]).collect();
        let transforms: Vec<Box<dyn Transform>> =
            list(&names.join(",")).iter().filter_map(TransformConfig::build).collect();
        let plain = SlotLayout::new(source.spec(), 12);
        let layout = plain.clone().with_framings();
        let (whole, parts) =
            (filled(&source, &plain, &transforms), filled(&source, &layout, &transforms));
        let [whole, parts] = [&whole, &parts].map(|slot| slot.bytes().expect("host memory"));
        assert_eq!(whole[plain.target_offset..], parts[plain.target_offset..layout.framing_offset]);
        let shape = source.spec.input_shape[..].try_into().expect("three");
        for i in 0..layout.batch_size {
            let input = |slot: &[u8]| {
                slot[layout.input_offset + i * layout.input_bytes..][..layout.input_bytes].to_vec()
            };
            let framing =
                &parts[layout.framing_offset + i * layout.framing_bytes..][..layout.framing_bytes];
            let framing: Framing = bytemuck::pod_read_unaligned(framing);
            assert!(
                framed(&input(parts), shape, &framing) == input(whole),
                "round {round}, sample {i} of {shape:?}: {names:?}"
            );
        }
    }
}
