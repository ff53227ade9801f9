//! `inflight predict`: what pictures show, or, with `predict_rows`, what the rows of a table are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inflight::batch::{DType, SampleSpec};
use inflight::source::resident::{Inputs as Pixels, Targets};
use inflight::source::{Encoding, Resident, Sample, Source, SourceInfo, Target, Viewer};
use inflight::train::checkpoint;
use inflight::train::evaluate::evaluate;
use inflight::transform::{Resize, Transform, TransformConfig};
use inflight::{Error, Result};
use serde::Serialize;

use super::eval::DeviceFlags;
use super::runs::{self, Inputs, Run, Trained};
use super::{predict_rows, print};

/// Tell what pictures show, or what the rows of a table are, with a trained model
///
/// A table needs the columns that the model was trained with; the target may be missing.
///
/// Each picture is converted to the channels that the model was trained on, and goes the way of the images that it was
/// evaluated with: through the run's eval_transforms, and fitted. A model of raw images, all of one size, gets the whole
/// picture resized to that first.
/// Fashion-MNIST and MNIST expect light things on a dark ground; --invert turns a photograph of a dark
/// thing on a light ground around.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Pictures; for a model of a table, files with rows
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The folder of a run, or a checkpoint of one [default: the newest run under runs/]
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Classes shown for each picture or row, the most probable first
    #[arg(long, value_name = "K", default_value_t = 3)]
    pub top: usize,
    /// Turn light into dark and dark into light first
    #[arg(long)]
    invert: bool,
    #[command(flatten)]
    pub device: DeviceFlags,
    /// Print a line of JSON for each picture or row to stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Prediction<'a> {
    event: &'static str,
    file: &'a Path,
    classes: Vec<Guess>,
}

/// A class, and how probable it is.
#[derive(Serialize)]
pub struct Guess {
    class: usize,
    name: String,
    probability: f64,
}

impl Guess {
    /// For people.
    pub fn words(guesses: &[Self]) -> String {
        let words = guesses.iter().map(|g| format!("{} {}", g.name, print::percent(g.probability)));
        words.collect::<Vec<_>>().join(" · ")
    }
}

/// Pictures predicted at once: more would only take memory.
const BATCH_SIZE_MAX: usize = 128;

/// Predicts.
pub fn run(args: Args) -> Result<()> {
    let options = args.device.options(args.files.len().min(BATCH_SIZE_MAX), true)?;
    let path = match &args.run {
        Some(path) => path.clone(),
        None => runs::newest("any model that was saved", |dir, _| {
            checkpoint::any(dir).unwrap_or(false)
        })?,
    };
    let trained = Trained::open(&path)?;
    let Some(run) = &trained.run else {
        let message = "is not in the folder of a run, which would say what the model expects";
        return Err(Error::config(trained.path.display(), message).hint("--run RUN"));
    };
    if let Some(fitted) = &run.inputs.fitted {
        return predict_rows::run(&args, &trained, run, &Arc::new(fitted.clone()));
    }
    let spec = &run.inputs.spec;
    let mut viewer = Viewer::of(transforms(run), run.config.seed);
    let source = Arc::new(read_all(&args.files, &run.inputs, &mut viewer, args.invert)?);
    let model = run.config.model.build(spec)?;
    let evaluation = evaluate(&model, &trained.weights, source, &run.inputs.info, &options)?;
    print::note(format!("{} on {}", trained.path.display(), evaluation.device.name));
    let outputs = evaluation.outputs.chunks_exact(evaluation.output_width.max(1));
    for (file, output) in args.files.iter().zip(outputs) {
        let classes = guesses(output, args.top.max(1), &run.inputs);
        if args.json {
            print::json(&Prediction { event: "prediction", file, classes })?;
        } else {
            print::data(format!("{}: {}", file.display(), Guess::words(&classes)));
        }
    }
    Ok(())
}

/// What is done to a picture before it is fitted to what the model expects.
fn transforms(run: &Run) -> Vec<Box<dyn Transform>> {
    // Samples that were raw had the model's size before any transform.
    let sized = (run.inputs.encoding == Encoding::Raw).then(Resize::default);
    let sized = sized.map(|resize| Box::new(resize) as Box<dyn Transform>);
    let held_out = run.config.eval_transforms.iter().filter_map(TransformConfig::build);
    sized.into_iter().chain(held_out).collect()
}

/// Picture files, as a source of images.
struct Pictures<'a> {
    files: &'a [PathBuf],
    inputs: &'a Inputs,
}

impl Source for Pictures<'_> {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn spec(&self) -> &SampleSpec {
        &self.inputs.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.inputs.info
    }

    fn encoding(&self) -> Encoding {
        Encoding::Image
    }

    fn origin(&self, index: usize) -> Option<String> {
        Some(self.files[index].display().to_string())
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        let file = &self.files[index];
        *scratch = std::fs::read(file)
            .map_err(|e| Error::data(file.display(), "cannot be read").caused_by(e))?;
        // What the pictures show is not known; the accuracy that comes of this is not shown.
        Ok(Sample { input: scratch, target: Target::Class(0) })
    }
}

/// The pictures as samples like those that were trained on.
fn read_all(
    files: &[PathBuf],
    inputs: &Inputs,
    viewer: &mut Viewer,
    invert: bool,
) -> Result<Resident> {
    let spec = &inputs.spec;
    let [1 | 3, _, _] = spec.input_shape[..] else {
        let message = format!("was trained on samples of shape {:?}", spec.input_shape);
        return Err(Error::config("--run", message).hint("a model of grey or colour images"));
    };
    if spec.input_dtype != DType::U8 || spec.classes().is_none() {
        let message = format!("was trained on {:?} for {:?}", spec.input_dtype, spec.target);
        return Err(Error::config("--run", message).hint("a classifier of images of bytes"));
    }
    let pictures = Pictures { files, inputs };
    let mut bytes = Vec::with_capacity(files.len() * spec.input_bytes());
    for index in 0..files.len() {
        bytes.extend_from_slice(viewer.read(&pictures, index)?.input);
    }
    if invert {
        bytes.iter_mut().for_each(|byte| *byte = 255 - *byte);
    }
    let labels = Targets::Classes(vec![0; files.len()]);
    Resident::new(spec.clone(), inputs.info.clone(), Pixels::Bytes(bytes), labels)
}

/// The most probable classes of an output, by softmax.
pub fn guesses(output: &[f32], top: usize, inputs: &Inputs) -> Vec<Guess> {
    let max = output.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = output.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let guess = |(class, power): (usize, f64)| Guess {
        class,
        name: inputs.class_name(class),
        probability: power / sum,
    };
    let mut all: Vec<Guess> = powers.into_iter().enumerate().map(guess).collect();
    all.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    all.truncate(top);
    all
}

#[cfg(test)]
mod tests {
    use inflight::batch::TargetSpec;

    use super::*;

    fn inputs(shape: [usize; 3]) -> Inputs {
        let (input_shape, input_dtype) = (shape.to_vec(), DType::U8);
        let target = TargetSpec::Class { classes: 3 };
        let info = SourceInfo { class_names: vec!["a".into(), "b".into()], ..Default::default() };
        let spec = SampleSpec { input_shape, input_dtype, target };
        Inputs {
            spec,
            info,
            encoding: Encoding::Raw,
            fitted: None,
            samples: None,
            trained_on: None,
        }
    }

    #[test]
    fn pictures_become_planes_of_the_right_size() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("red.png");
        image::RgbImage::from_pixel(9, 5, image::Rgb([250, 10, 20])).save(&file).expect("saves");
        let read = |shape, invert| {
            let inputs = inputs(shape);
            let mut viewer = Viewer::of(vec![Box::new(Resize::default())], 0);
            let source =
                read_all(std::slice::from_ref(&file), &inputs, &mut viewer, invert).expect("reads");
            let mut scratch = Vec::new();
            source.read(0, &mut scratch).expect("a sample").input.to_vec()
        };
        assert_eq!(read([3, 2, 1], false), [250, 250, 10, 10, 20, 20]);
        assert_eq!(read([3, 2, 1], true), [5, 5, 245, 245, 235, 235]);
        assert_eq!(read([1, 2, 2], false).len(), 4);
        std::fs::write(&file, b"\x89PNG\r\n\x1a\nno more").expect("writes");
        let grey = inputs([1, 2, 2]);
        let mut viewer = Viewer::default();
        let error = read_all(std::slice::from_ref(&file), &grey, &mut viewer, false).map(|_| ());
        let error = error.expect_err("is cut short");
        assert!(error.kind().exit_code() == 3 && error.to_string().contains("red.png"), "{error}");
    }

    #[test]
    fn the_most_probable_classes_come_first() {
        let found = guesses(&[1.0, 1000.0, 999.0], 2, &inputs([1, 1, 1]));
        let names: Vec<&str> = found.iter().map(|guess| guess.name.as_str()).collect();
        assert_eq!(names, ["b", "2"]);
        assert!((found[0].probability - 1.0 / (1.0 + (-1f64).exp())).abs() < 1e-12);
    }
}
