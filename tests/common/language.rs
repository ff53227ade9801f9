//! Language models with random weights, as files.

use std::path::{Path, PathBuf};

use inflight::batch::{DType, SampleSpec, TargetSpec};
use inflight::graph::Init;
use inflight::graph::plan::Variable;
use inflight::nn::Module;
use inflight::nn::describe::describe;
use inflight::nn::init::initial_values;
use safetensors::tensor::{Dtype, TensorView};

/// Saves a model of bytes whose weights have this spread, and whose norms begin at 1.
pub fn random_weights(
    model: &dyn Module,
    positions: usize,
    std: f32,
    seed: u64,
    folder: &Path,
) -> PathBuf {
    let spec = SampleSpec {
        input_shape: vec![positions],
        input_dtype: DType::U16,
        target: TargetSpec::Tokens { len: positions, vocabulary: 256, document_end: None },
    };
    let tensors = describe(model, &spec, 1).expect("builds").tensors;
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|tensor| {
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            let variable =
                Variable { name: name.clone(), shape, offset: 0, init: Init::Normal { std } };
            let mut values = initial_values(&variable, seed);
            if name.contains(".ln_") && name.ends_with("weight") {
                values.iter_mut().for_each(|x| *x += 1.0);
            }
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name.trim_start_matches("transformer.").to_string(), tensor.shape, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("lengths fit"))
    });
    let path = folder.join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).expect("writes");
    path
}
