//! Weights in and out: safetensors with the names, shapes and layouts that the same model has in PyTorch.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use safetensors::{Dtype, SafeTensors, View};

use super::language_weights;
use crate::durable;
use crate::error::{Error, Result};
use crate::executor::Snapshot;
use crate::graph::Arena;
use crate::graph::plan::{CONTROL_NAME, Program, Variable};

/// What PyTorch's batch norm counts beside its running statistics: an `i64` scalar that nothing here reads.
const BATCH_COUNTER: &str = "num_batches_tracked";

/// Named tensors read from a file, not yet held against a model.
#[derive(Clone)]
pub struct Weights {
    file: String,
    tensors: BTreeMap<String, Stored>,
}

/// One tensor as it was stored; values only where it was stored as floats of 32 or 16 bits.
#[derive(Clone)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Stored {
    fn seen(&self) -> Seen<'_> {
        Seen { dtype: self.dtype, shape: Cow::Borrowed(&self.shape), values: &self.values }
    }
}

/// A tensor of a file, as it is looked at.
#[derive(Clone)]
pub(super) struct Seen<'a> {
    pub dtype: Dtype,
    pub shape: Cow<'a, [usize]>,
    /// Empty unless it was stored as floats of 32 or 16 bits.
    pub values: &'a [f32],
}

/// Without the values, which nobody could read.
impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weights({}, {} tensors)", self.file, self.tensors.len())
    }
}

impl Weights {
    /// Reads a safetensors file.
    ///
    /// # Errors
    /// When it cannot be read, or is no valid safetensors file: truncated, a header that is too large or does not
    /// parse, tensors that overlap or leave the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(path.display(), &durable::read_file(path, u64::MAX)?)
    }

    /// Reads the bytes of a safetensors file; `file` names it in errors.
    ///
    /// # Errors
    /// As [`Weights::open`], except for those of the file system.
    pub fn parse(file: impl fmt::Display, bytes: &[u8]) -> Result<Self> {
        let file = file.to_string();
        let parsed = SafeTensors::deserialize(bytes).map_err(|cause| {
            Error::checkpoint(&file, format!("no valid safetensors file: {cause}"))
        })?;
        let tensors = parsed.iter().map(|(name, view)| {
            let values = match view.dtype() {
                Dtype::F32 => floats(view.data()),
                Dtype::F16 => halves(view.data(), |bits| half::f16::from_bits(bits).to_f32()),
                Dtype::BF16 => halves(view.data(), |bits| half::bf16::from_bits(bits).to_f32()),
                _ => Vec::new(),
            };
            let stored = Stored { dtype: view.dtype(), shape: view.shape().to_vec(), values };
            (name.to_string(), stored)
        });
        Ok(Self { tensors: tensors.collect(), file })
    }

    /// Where each tensor of `program`'s model goes: its arena, its variable, and the values.
    ///
    /// # Errors
    /// When the tensors are not exactly those of the model; the error lists the difference.
    pub fn place(&self, program: &Program) -> Result<Vec<(Arena, Variable, Vec<f32>)>> {
        let variables: Vec<_> = model_variables(program, Arena::Params).collect();
        let expected: Vec<_> =
            variables.iter().map(|(_, v)| (v.name.as_str(), v.shape.as_slice())).collect();
        let found = self.seen_by(&expected)?;
        expect(&self.file, found.iter().map(|(name, seen)| (&**name, seen.clone())), &expected)?;
        let place = |(arena, variable): (Arena, &Variable)| {
            (arena, variable.clone(), found[variable.name.as_str()].values.to_vec())
        };
        Ok(variables.into_iter().map(place).collect())
    }

    /// The shapes of all tensors by their names.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.shape.as_slice()))
    }

    /// The file that they are from.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The tensors as a model of these variables knows them: a language model takes published ones, see
    /// [`language_weights`](super::language_weights).
    fn seen_by(&self, expected: &[(&str, &[usize])]) -> Result<BTreeMap<Cow<'_, str>, Seen<'_>>> {
        let seen = self.tensors.iter().map(|(name, t)| (Cow::Borrowed(name.as_str()), t.seen()));
        language_weights::adapt(&self.file, seen.collect(), expected)
    }

    /// The names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor, if it is there.
    pub(super) fn tensor(&self, name: &str) -> Option<Seen<'_>> {
        self.tensors.get(name).map(Stored::seen)
    }

    /// The values of a tensor that is known to be there.
    pub(super) fn values(&self, name: &str) -> &[f32] {
        &self.tensors[name].values
    }

    /// Takes out the tensors whose names begin with `prefix`, without it.
    pub(super) fn split_off(&mut self, prefix: &str) -> Vec<(String, Vec<f32>)> {
        let (taken, left) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(prefix));
        self.tensors = left;
        taken.into_iter().map(|(name, t)| (name[prefix.len()..].to_string(), t.values)).collect()
    }

    /// Holds names, shapes and types against what is expected; PyTorch's batch counters may be there or not.
    ///
    /// # Errors
    /// When they differ, with one line a tensor.
    pub(super) fn expect<'a>(
        &self,
        expected: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<()> {
        let found = self.tensors.iter().map(|(name, stored)| (name.as_str(), stored.seen()));
        expect(&self.file, found, &expected.collect::<Vec<_>>())
    }
}

fn expect<'a>(
    file: &str,
    found: impl Iterator<Item = (&'a str, Seen<'a>)>,
    expected: &[(&str, &[usize])],
) -> Result<()> {
    let mut unexpected: BTreeMap<&str, Seen<'_>> = found.collect();
    unexpected.retain(|name, _| !is_batch_counter(name));
    let mut differences = Vec::new();
    for (name, shape) in expected {
        match unexpected.remove(name) {
            None => differences.push(format!("{name}: missing, expected F32 {shape:?}")),
            Some(found) if found.dtype != Dtype::F32 || *found.shape != **shape => {
                let Seen { dtype, shape: found, .. } = found;
                differences
                    .push(format!("{name}: found {dtype:?} {found:?}, expected F32 {shape:?}"));
            }
            Some(_) => {}
        }
    }
    differences.extend(unexpected.into_iter().map(|(name, found)| {
        format!("{name}: unexpected, found {:?} {:?}", found.dtype, found.shape)
    }));
    if differences.is_empty() {
        return Ok(());
    }
    let count = differences.len();
    let tensors = if count == 1 { "1 tensor differs" } else { &format!("{count} tensors differ") };
    let message = format!("does not fit the model, {tensors}");
    Err(Error::checkpoint(file, message).listing(differences))
}

/// Reads the weights of `program`'s model: arena, variable and values of each tensor.
///
/// # Errors
/// When the file cannot be read or trusted, or does not hold exactly the model's tensors.
pub fn load(path: impl AsRef<Path>, program: &Program) -> Result<Vec<(Arena, Variable, Vec<f32>)>> {
    Weights::open(path)?.place(program)
}

/// Writes the weights of `program`'s model, averaged where it keeps an average, whole or not at all. `batches` is what PyTorch's batch norm will
/// find as the number of batches seen.
///
/// # Errors
/// When the file cannot be written; what was there before is then still there.
pub fn save(
    path: impl AsRef<Path>,
    program: &Program,
    snapshot: &Snapshot,
    batches: u64,
) -> Result<()> {
    let path = path.as_ref();
    let bytes = encode(&model_tensors(program, snapshot, batches)?)
        .map_err(|error| error.within(path.display()))?;
    durable::replace_file(path, &bytes)
}

/// The variables that make up the model: all but the optimizer's control. The weights are those in `weights`,
/// [`Arena::Params`] or the moving average.
pub(super) fn model_variables(
    program: &Program,
    weights: Arena,
) -> impl Iterator<Item = (Arena, &Variable)> {
    let states = program.states.iter().filter(|variable| variable.name != CONTROL_NAME);
    let params = program.params.iter().map(move |variable| (weights, variable));
    params.chain(states.map(|variable| (Arena::State, variable)))
}

/// The tensors of a weights file, with the counters that PyTorch's batch norm expects.
pub(super) fn model_tensors<'a>(
    program: &'a Program,
    snapshot: &'a Snapshot,
    batches: u64,
) -> Result<Vec<(String, TensorBytes<'a>)>> {
    let mut tensors = Vec::new();
    for (arena, variable) in model_variables(program, program.weights_arena()) {
        let values = &arena_of(snapshot, arena)?[variable.range()];
        tensors.push((variable.name.clone(), TensorBytes::floats(&variable.shape, values)));
        if let Some(module) = variable.name.strip_suffix("running_mean") {
            let bytes = Cow::Owned((batches as i64).to_le_bytes().to_vec());
            let counter = TensorBytes { dtype: Dtype::I64, shape: Vec::new(), bytes };
            tensors.push((format!("{module}{BATCH_COUNTER}"), counter));
        }
    }
    Ok(tensors)
}

/// The contents of an arena.
pub(super) fn arena_of(snapshot: &Snapshot, arena: Arena) -> Result<&[f32]> {
    let found = snapshot.arenas.iter().find(|(found, _)| *found == arena);
    found.map(|(_, values)| values.as_slice()).ok_or_else(|| {
        Error::checkpoint("snapshot", format!("the device brought no {arena:?} arena back"))
    })
}

/// One tensor on its way into a file.
pub(super) struct TensorBytes<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> TensorBytes<'a> {
    /// A tensor of floats; their bits are kept, those of NaNs too.
    pub fn floats(shape: &[usize], values: &'a [f32]) -> Self {
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            Cow::Owned(values.iter().flat_map(|value| value.to_le_bytes()).collect())
        };
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

impl View for &TensorBytes<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// A safetensors file as bytes. The metadata is what Hugging Face's loaders ask for.
pub(super) fn encode(tensors: &[(String, TensorBytes<'_>)]) -> Result<Vec<u8>> {
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    safetensors::serialize(tensors, Some(metadata))
        .map_err(|cause| Error::checkpoint("weights", format!("cannot be serialised: {cause}")))
}

fn is_batch_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some(BATCH_COUNTER)
}

/// Tensors in a file need not be aligned.
fn floats(bytes: &[u8]) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

fn halves(bytes: &[u8], widen: impl Fn(u16) -> f32) -> Vec<f32> {
    let (words, _) = bytes.as_chunks::<2>();
    words.iter().map(|&word| widen(u16::from_le_bytes(word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{DType, SampleSpec, TargetSpec};
    use crate::nn::layers::Layer;
    use crate::nn::losses::Loss;
    use crate::nn::sequential::Sequential;
    use crate::train::compile::{Blueprint, compile};

    fn program() -> Program {
        let spec = SampleSpec {
            input_shape: vec![4],
            input_dtype: DType::F32,
            target: TargetSpec::Class { classes: 3 },
        };
        let layers = vec![Layer::batch_norm(), Layer::classes()];
        compile(&Blueprint {
            model: &Sequential::new(layers, &spec).expect("the model fits"),
            spec: &spec,
            batch_size: 2,
            mean: &[],
            std: &[],
            loss: Loss::CrossEntropy { smoothing: 0.0 },
            training: None,
        })
        .expect("the program compiles")
    }

    fn counting(program: &Program) -> Snapshot {
        let arena = |arena| (arena, (0..program.arenas[&arena]).map(|i| i as f32).collect());
        Snapshot { arenas: vec![arena(Arena::Params), arena(Arena::State)] }
    }

    fn file_with(tensors: &[(&str, &[usize], &[f32])]) -> Vec<u8> {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, shape, values)| (name.to_string(), TensorBytes::floats(shape, values)))
            .collect();
        encode(&tensors).expect("serialises")
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        let error = result.expect_err("must be refused");
        assert_eq!(error.kind().exit_code(), 6);
        error.to_string()
    }

    #[test]
    fn what_is_saved_is_loaded_with_pytorchs_names() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (path, program) = (dir.path().join("sub/w.safetensors"), program());
        let snapshot = counting(&program);
        for batches in [7, 8] {
            save(&path, &program, &snapshot, batches).expect("saves, then replaces");
        }
        let bytes = std::fs::read(&path).expect("readable");
        let parsed = SafeTensors::deserialize(&bytes).expect("valid");
        let mut names = parsed.names();
        names.sort_unstable();
        let expected = [
            "net.0.bias",
            "net.0.num_batches_tracked",
            "net.0.running_mean",
            "net.0.running_var",
            "net.0.weight",
            "net.1.bias",
            "net.1.weight",
        ];
        assert_eq!(names, expected);
        let counter = parsed.tensor("net.0.num_batches_tracked").expect("is there");
        assert_eq!((counter.dtype(), counter.shape().len()), (Dtype::I64, 0));
        assert_eq!(counter.data(), 8i64.to_le_bytes());
        for (arena, variable, values) in load(&path, &program).expect("loads") {
            let saved = arena_of(&snapshot, arena).expect("saved");
            assert_eq!(values, saved[variable.range()], "{}", variable.name);
        }
        assert_eq!(std::fs::read_dir(dir.path().join("sub")).expect("a folder").count(), 1);
    }

    #[test]
    fn another_model_is_refused_tensor_by_tensor() {
        let program = program();
        let bytes = file_with(&[
            ("net.0.weight", &[4], &[1.0; 4]),
            ("net.0.bias", &[5], &[1.0; 5]),
            ("net.0.running_mean", &[4], &[0.0; 4]),
            ("net.0.running_var", &[4], &[1.0; 4]),
            ("net.1.weight", &[3, 4], &[1.0; 12]),
            ("fc.bias", &[2], &[1.0; 2]),
        ]);
        let weights = Weights::parse("w.safetensors", &bytes).expect("valid");
        assert_eq!(
            message(weights.place(&program)),
            "checkpoint: w.safetensors: does not fit the model, 3 tensors differ:\n  \
             net.0.bias: found F32 [5], expected F32 [4]\n  \
             net.1.bias: missing, expected F32 [3]\n  \
             fc.bias: unexpected, found F32 [2]"
        );
    }

    #[test]
    fn another_type_is_refused() {
        let half = TensorBytes { dtype: Dtype::F16, shape: vec![4], bytes: vec![0; 8].into() };
        let bytes = encode(&[("net.0.weight".to_string(), half)]).expect("serialises");
        let weights = Weights::parse("w.safetensors", &bytes).expect("valid");
        let message = message(weights.place(&program()));
        assert!(message.contains("net.0.weight: found F16 [4], expected F32 [4]"), "{message}");
    }

    #[test]
    fn hostile_files_are_refused() {
        let with_header = |header: &str, data: usize| {
            let len = (header.len() as u64).to_le_bytes();
            [&len[..], header.as_bytes(), &vec![0; data]].concat()
        };
        let tensor = |shape: &str, from: u64, to: u64| {
            format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
        };
        let one = |shape, from, to| format!(r#"{{"a":{}}}"#, tensor(shape, from, to));
        let whole = file_with(&[("a", &[4], &[1.0; 4])]);
        let hostile = [
            ("empty", Vec::new()),
            ("huge header", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
            ("header past the end", [&1000u64.to_le_bytes()[..], b"{}"].concat()),
            ("no JSON", with_header("[[[[", 0)),
            (
                "overlap",
                with_header(
                    &format!(r#"{{"a":{},"b":{}}}"#, tensor("[2]", 0, 8), tensor("[2]", 4, 12)),
                    12,
                ),
            ),
            ("hole", with_header(&one("[1]", 4, 8), 8)),
            ("past the end", with_header(&one("[4]", 0, 16), 8)),
            ("wrong size", with_header(&one("[3]", 0, 8), 8)),
            ("overflow", with_header(&one("[4294967296,4294967296,4]", 0, 8), 8)),
            ("truncated", whole[..whole.len() - 1].to_vec()),
            ("trailing", [&whole[..], b"x"].concat()),
        ];
        for (what, bytes) in hostile {
            let error = message(Weights::parse("w.safetensors", &bytes));
            assert!(error.contains("w.safetensors: no valid safetensors file"), "{what}: {error}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(message(Weights::open(dir.path())).contains("is not a regular file"));
        assert!(message(Weights::open(dir.path().join("none"))).contains("cannot be read"));
    }
}
