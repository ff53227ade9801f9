//! `inflight model`: what a model consists of, and a trained one for other programs.

use std::path::{Path, PathBuf};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::durable::replace_file;
use inflight::generate::model_config_json;
use inflight::nn::describe::{ModelDescription, describe};
use inflight::{Error, Result};
use serde::Serialize;

use super::flags::model_config;
use super::print;
use super::runs::Trained;
use super::train::open_dataset;

/// The weights, in a checkpoint and where they are exported to.
const MODEL_FILE: &str = "model.safetensors";

/// Show what a model consists of, or export a trained one
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the modules and tensors of a model, with PyTorch's names
    Show(Show),
    /// Write a trained language model as Hugging Face's libraries read it: weights, config.json and the tokenizer
    Export(Export),
}

#[derive(Debug, clap::Args)]
struct Export {
    /// The folder of a run (its newest checkpoint), or a checkpoint
    #[arg(value_name = "RUN")]
    path: PathBuf,
    /// The new folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A model's name (mlp, cnn, resnet18, resnet34, resnet50, vit-tiny, gpt-nano, gpt-mini, gpt2, llama-nano, llama-mini), or a
    /// TOML file with [[model.layers]], [model.gpt] or [model.llama]; a language model without a data set is shown with the
    /// 50,257 tokens and 1,024 positions of GPT-2
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

/// Shows or exports a model.
pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Show(args) => show_model(args),
        Command::Export(args) => export(args),
    }
}

fn export(args: Export) -> Result<()> {
    let Export { path, out } = args;
    let trained = Trained::open(&path)?;
    let run = trained.run.as_ref().ok_or_else(|| {
        Error::config(path.display(), "is not in the folder of a run, which would say its sizes")
    })?;
    let language = run.config.model.language().ok_or_else(|| {
        Error::config(path.display(), "found a model of no language, expected a gpt or llama")
    })?;
    let config = model_config_json(&language.model(&run.inputs.spec)?);
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let message = format!("{} holds something already", out.display());
        return Err(Error::config("--out", message).hint("a folder of another name"));
    }
    let weights = match trained.path.is_dir() {
        true => trained.path.join(MODEL_FILE),
        false => trained.path.clone(),
    };
    copy(&weights, &out.join(MODEL_FILE))?;
    if let Some(tokenizer) = run.inputs.info.tokenizer.as_deref().map(Path::new)
        && tokenizer.is_file()
    {
        copy(tokenizer, &out.join("tokenizer.json"))?;
    }
    let json = serde_json::to_vec_pretty(&config)
        .map_err(|e| Error::checkpoint("config.json", "cannot be written as JSON").caused_by(e))?;
    replace_file(&out.join("config.json"), &json)?;
    print::note(format!("wrote {}", out.display()));
    Ok(())
}

/// Copies a file into a folder that is made if needed; then it is on the disk, or else not there at all.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from)
        .map_err(|e| Error::checkpoint(from.display(), "cannot be read").caused_by(e))?;
    replace_file(to, &bytes)
}

fn show_model(args: Show) -> Result<()> {
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

#[cfg(all(test, unix, feature = "faults"))]
mod tests {
    use inflight::faults::journal::{Entry, Journal};

    use super::*;

    #[test]
    fn what_is_exported_is_on_the_disk() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (from, out) = (dir.path().join("from"), dir.path().join("out"));
        std::fs::write(&from, "weights").expect("writes");
        // Other tests of this process fail on purpose.
        let _armed = inflight::faults::arm("").expect("a plan");
        let journal = Journal::open(dir.path());
        copy(&from, &out.join(MODEL_FILE)).expect("copies");
        let entries = journal.close();
        let at = |is: &dyn Fn(&Entry) -> bool| entries.iter().position(is).expect("in the journal");
        let wrote = at(&|e| matches!(e, Entry::Write(_, bytes) if bytes == b"weights"));
        let synced = at(&|e| matches!(e, Entry::SyncFile(_)));
        let named = at(&|e| matches!(e, Entry::Rename(_, to) if to.ends_with(MODEL_FILE)));
        let certain = entries.iter().rposition(|e| *e == Entry::SyncFolder("out".into()));
        assert!(wrote < synced && synced < named && Some(named) < certain, "{entries:?}");
        assert_eq!(std::fs::read(out.join(MODEL_FILE)).expect("is there"), b"weights");
    }
}
