//! A run that goes on: what it goes on with is held against what it began with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use inflight::config::RunConfig;
use inflight::source::Source;
use inflight::source::table::Fitted;
use inflight::{Error, Result};
use serde_json::Value;

use super::print;
use super::runs::{Inputs, samples};

/// A value of a setting that is longer is not shown when it changes.
const SHOWN_CHARS_MAX: usize = 40;

/// The run to go on with, as its folder describes it.
pub struct Resumed {
    /// Its folder.
    pub dir: PathBuf,
    /// The configuration that it began with, or last went on with.
    pub config: RunConfig,
    /// What its inputs were, unless it ended before it had saved them.
    inputs: Option<Inputs>,
}

impl Resumed {
    /// Reads it from the folder of a run.
    pub fn load(dir: PathBuf) -> Result<Self> {
        let config = RunConfig::load(&dir.join("config.toml"))?;
        let inputs = Inputs::of_run(&dir)?;
        Ok(Self { dir, config, inputs })
    }

    /// What the encoding of its table was fitted to.
    pub fn fitted(&self) -> Option<Arc<Fitted>> {
        self.inputs.as_ref()?.fitted.clone().map(Arc::new)
    }

    /// Whether it can go on with `config` and `source`; lines for people where it goes on otherwise than it would have.
    ///
    /// # Errors
    /// When samples are others than those of the run, in shape, in type, or in what their classes are; or when it would
    /// be validated with samples that it was trained on.
    pub fn check(&self, config: &RunConfig, source: &dyn Source) -> Result<Vec<String>> {
        self.check_split(config, source)?;
        let data = self.inputs.as_ref().map(|inputs| check_data(inputs, source)).transpose()?;
        Ok(data.flatten().into_iter().chain(self.changed_settings(config)).collect())
    }

    /// What is held out is drawn by the seed from all samples: another share or seed, or other samples, hold out what was
    /// trained on.
    fn check_split(&self, config: &RunConfig, source: &dyn Source) -> Result<()> {
        // A run that ended before it had saved its inputs was trained on nothing that is kept.
        let Some(inputs) = &self.inputs else { return Ok(()) };
        let split =
            |config: &RunConfig| config.sampling.val_split.map(|share| (share, config.seed));
        let (before, now) = (split(&self.config), split(config));
        if now.is_none() {
            return Ok(());
        }
        if now == before {
            return inputs.check_held_out(source);
        }
        let words = |split: Option<(f64, u64)>| match split {
            Some((share, seed)) => format!("--val-split {share} --seed {seed}"),
            None => "no --val-split".into(),
        };
        let message = format!(
            "found {}, the run had {}: it would be validated with samples it was trained on",
            words(now),
            words(before)
        );
        Err(Error::config("--resume", message).hint("share and seed of the run, or a new run"))
    }

    fn changed_settings(&self, config: &RunConfig) -> Option<String> {
        let (before, now) = (settings(&self.config), settings(config));
        let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        let changed = names.into_iter().filter(|&name| before.get(name) != now.get(name));
        let shown = |name: &String| {
            let values = [&before, &now]
                .map(|settings| settings.get(name).map_or("unset".into(), Value::to_string));
            match values.iter().all(|value| value.chars().count() <= SHOWN_CHARS_MAX) {
                true => format!("{name} {} (was {})", values[1], values[0]),
                false => name.clone(),
            }
        };
        let changed: Vec<String> = changed.map(shown).collect();
        let line = || format!("the run goes on with other settings: {}", changed.join(", "));
        (!changed.is_empty()).then(line)
    }
}

fn check_data(inputs: &Inputs, source: &dyn Source) -> Result<Option<String>> {
    inputs.check_classes(source)?;
    inputs.check_tokens(source)?;
    let info = source.info();
    let name = &info.name;
    if inputs.spec != *source.spec() {
        let message = format!("found {:?}, the run had {:?}", source.spec(), inputs.spec);
        return Err(Error::data(name, message).hint("the data that the run began with"));
    }
    let changed = match (inputs.samples, samples(source)) {
        (Some(before), Some(now)) if before != now => {
            format!("{} samples instead of {}", print::count(now), print::count(before))
        }
        _ if (&inputs.info.mean, &inputs.info.std) != (&info.mean, &info.std) => {
            "another mean or deviation".into()
        }
        _ => return Ok(None),
    };
    Ok(Some(format!(
        "{name} has {changed}: the run goes on, but not as it would have with what it began with"
    )))
}

/// All settings by their names, those of tables as `table.name`.
fn settings(config: &RunConfig) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let value = serde_json::to_value(config).expect("a configuration is plain data");
    flatten(String::new(), value, &mut all);
    all
}

fn flatten(name: String, value: Value, all: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(name, value, all);
            }
        }
        value => {
            all.insert(name, value);
        }
    }
}
