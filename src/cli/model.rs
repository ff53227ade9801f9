//! `inflight model`: what a model consists of.

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::nn::describe::{ModelDescription, describe};
use inflight::{Error, Result};
use serde::Serialize;

use super::flags::model_config;
use super::print;
use super::train::open_dataset;

/// Show what a model consists of
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the modules and tensors of a model, with PyTorch's names
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A model's name (mlp, cnn, resnet18, resnet34, resnet50, vit-tiny, gpt-nano, gpt-mini, gpt2), or a TOML file with
    /// [[model.layers]] or [model.gpt]; a gpt without a data set is shown as GPT-2 has it, of 50,257 tokens and 1,024 positions
    #[arg(value_name = "M")]
    model: String,
    /// Shape it to the samples of this data set
    #[arg(long, value_name = "D", conflicts_with_all = ["input_shape", "classes"])]
    dataset: Option<String>,
    /// Shape it to inputs of this shape: channels, height, width
    #[arg(long, value_name = "C,H,W", value_delimiter = ',', default_value = "1,28,28")]
    input_shape: Vec<usize>,
    /// Shape it to so many classes
    #[arg(long, value_name = "N", default_value_t = 10)]
    classes: usize,
    /// Print the description as a line of JSON to stdout
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Event {
    event: &'static str,
    model: String,
    #[serde(flatten)]
    description: ModelDescription,
}

/// Shows a model.
pub fn run(args: Args) -> Result<()> {
    let Command::Show(args) = args.command;
    let config = model_config(&args.model)?;
    let spec = match (&args.dataset, config.language()) {
        (Some(name), _) => open_dataset(name, &Default::default(), None)?.train.spec().clone(),
        (None, Some(language)) => text_spec(language.positions().unwrap_or(GPT2_POSITIONS)),
        (None, None) => spec(&args)?,
    };
    let model = config.build(&spec)?;
    let description = describe(&model, &spec, 1)?;
    if args.json {
        return print::json(&Event { event: "model", model: args.model, description });
    }
    show(&args.model, &description);
    Ok(())
}

/// What GPT-2 was trained on.
const GPT2_POSITIONS: usize = 1024;
const GPT2_VOCABULARY: usize = 50_257;

fn text_spec(context: usize) -> SampleSpec {
    SampleSpec {
        input_shape: vec![context],
        input_dtype: DType::U16,
        target: TargetSpec::Tokens {
            len: context,
            vocabulary: GPT2_VOCABULARY,
            document_end: None,
        },
    }
}

/// Sizes at which products of them still fit: no tensor of 2^31 elements fits a binding anyway.
const ELEMENTS_MAX: usize = 1 << 31;

fn spec(args: &Show) -> Result<SampleSpec> {
    let fits = |len: usize| (1..=ELEMENTS_MAX).contains(&len);
    let elements = args.input_shape.iter().try_fold(1usize, |all, &len| all.checked_mul(len));
    if !elements.is_some_and(fits) || !fits(args.classes) {
        let message = format!("found {:?} and {} classes", args.input_shape, args.classes);
        return Err(Error::config("--input-shape", message + ", expected sizes of at least 1")
            .hint("--input-shape 1,28,28 --classes 10"));
    }
    Ok(SampleSpec {
        input_shape: args.input_shape.clone(),
        input_dtype: DType::U8,
        target: TargetSpec::Class { classes: args.classes },
    })
}

fn show(name: &str, description: &ModelDescription) {
    print::data(format!(
        "{name}: {} → {}",
        print::shape(&description.input_shape[1..]),
        print::shape(&description.output_shape[1..])
    ));
    for module in &description.modules {
        print::data(format!(
            "  {:10} {:12} {:>16} {:>12}",
            module.name,
            module.kind,
            print::shape(&module.output_shape[1..]),
            print::count(module.parameter_count)
        ));
    }
    print::data("tensors:");
    for tensor in &description.tensors {
        let kept = if tensor.trained { "" } else { "  not trained" };
        let (shape, count) = (print::shape(&tensor.shape), print::count(tensor.count));
        print::data(format!("  {:22} {shape:>16} {count:>12}{kept}", tensor.name));
    }
    let untrained = match description.state_count {
        0 => String::new(),
        count => format!(", {} not trained", print::count(count)),
    };
    print::data(format!("parameters: {}{untrained}", print::count(description.parameter_count)));
}
