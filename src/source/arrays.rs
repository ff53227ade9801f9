//! Inputs and targets in named arrays, whatever kind of file they lie in.
//!
//! Inputs are `x`, targets `y` (see [`TRAIN`]); a test split is `x_test`, `y_test`. Images as `[n, h, w]`,
//! `[n, c, h, w]` or `[n, h, w, c]` become `[c, h, w]`, like those of every other source. Whole numbers
//! are labels, floats are values for regression.

use std::path::Path;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::source::SourceInfo;
use crate::source::resident::{Inputs, Resident, Targets, check_labels};

/// The names of inputs and of targets of one split, tried in order.
pub type Names = (&'static [&'static str], &'static [&'static str]);

/// The names of the training split's arrays.
pub const TRAIN: Names = (
    &["x_train", "x", "images_train", "train_images", "images"],
    &["y_train", "y", "labels_train", "train_labels", "labels"],
);
/// The names of the test split's arrays.
pub const TEST: Names =
    (&["x_test", "images_test", "test_images"], &["y_test", "labels_test", "test_labels"]);

/// Arrays with names, of which some are the inputs and the targets of a split.
pub(crate) trait NamedArrays {
    /// The file or folder they are from.
    fn path(&self) -> &Path;

    /// All names.
    fn names(&self) -> &[String];

    /// Reads the array `name`, which is one of [`names`](Self::names); also tells what to call it in errors.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or of a type that cannot be read.
    fn read(&mut self, name: &str) -> Result<(String, Array)>;

    /// Whether there is an array of inputs for this split.
    fn has(&self, names: &Names) -> bool {
        self.find(names.0).is_some()
    }

    /// The first of `names` that is there.
    fn find(&self, names: &[&str]) -> Option<String> {
        names.iter().find(|&&name| self.names().iter().any(|n| n == name)).map(|s| s.to_string())
    }

    /// Reads the first array of `names` that is there.
    ///
    /// # Errors
    /// As [`read`](Self::read), and when there is none.
    fn load(&mut self, names: &[&str], what: &str) -> Result<(String, Array)> {
        let Some(name) = self.find(names) else {
            return Err(Error::data(
                self.path().display(),
                format!(
                    "found arrays [{}], expected {what} named one of [{}]",
                    self.names().join(", "),
                    names.join(", ")
                ),
            ));
        };
        self.read(&name)
    }

    /// Reads one split. `classes` says how many there are; without it they are those of the labels.
    ///
    /// # Errors
    /// When an array is missing, damaged, of an unknown type, claims more than its size can hold, when
    /// inputs and targets differ in number, or when a label is out of range.
    fn split(
        &mut self,
        names: &Names,
        classes: Option<usize>,
        info: SourceInfo,
    ) -> Result<Resident> {
        let (x_item, x) = self.load(names.0, "inputs")?;
        let (y_item, y) = self.load(names.1, "targets")?;
        let count = x.shape.first().copied().unwrap_or(0);
        if count == 0 || x.shape.contains(&0) {
            return Err(Error::data(
                x_item,
                format!("found shape {:?}, expected [samples, …] with at least one", x.shape),
            ));
        }
        if y.shape.first() != Some(&count) {
            return Err(Error::data(
                y_item,
                format!(
                    "found shape {:?}, expected {count} targets, one for each sample of {x_item}",
                    y.shape
                ),
            ));
        }
        let (targets, target) = targets(&y_item, y, classes)?;
        let (inputs, input_shape, input_dtype) = inputs(&x_item, x)?;
        Resident::new(SampleSpec { input_shape, input_dtype, target }, info, inputs, targets)
    }
}

/// An array in row-major order.
pub(crate) struct Array {
    pub shape: Vec<usize>,
    pub data: Data,
}

/// The elements of an array, in the few types that samples have.
pub(crate) enum Data {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
    Whole(Vec<i64>),
}

/// Labels, or values for regression.
fn targets(item: &str, y: Array, classes: Option<usize>) -> Result<(Targets, TargetSpec)> {
    let count = y.shape[0];
    let whole = match y.data {
        Data::Floats(values) => {
            let len = values.len() / count;
            if len == 0 {
                return Err(Error::data(item, format!("found shape {:?}, it is empty", y.shape)));
            }
            return Ok((Targets::Values(values), TargetSpec::Values { len }));
        }
        Data::Bytes(bytes) => bytes.into_iter().map(i64::from).collect::<Vec<_>>(),
        Data::Whole(whole) => whole,
    };
    if whole.len() != count {
        return Err(Error::data(
            item,
            format!("found labels of shape {:?}, expected [{count}] or [{count}, 1]", y.shape),
        ));
    }
    let mut labels = Vec::with_capacity(count);
    for (i, &label) in whole.iter().enumerate() {
        labels.push(u32::try_from(label).map_err(|_| {
            Error::data(item, format!("found label {label} at sample {i}, expected one from 0 on"))
        })?);
    }
    let classes = match classes {
        Some(classes) => classes,
        None => infer_classes(item, &labels)?,
    };
    check_labels(item, &labels, classes)?;
    Ok((Targets::Classes(labels), TargetSpec::Class { classes }))
}

/// One more than the highest label, if every class below it occurs: a gap is more likely a wrong label
/// than a class without a sample.
pub(crate) fn infer_classes(item: &str, labels: &[u32]) -> Result<usize> {
    let mut seen = vec![false; labels.len()];
    for &label in labels {
        if let Some(class) = seen.get_mut(label as usize) {
            *class = true;
        }
    }
    let classes = seen.iter().position(|&s| !s).unwrap_or(seen.len());
    match labels.iter().position(|&label| label as usize >= classes) {
        None => {}
        Some(i) => {
            return Err(Error::data(
                item,
                format!("found label {} at sample {i}, but no label {classes}", labels[i]),
            )
            .hint("a file `classes.txt` beside it, with one class name a line"));
        }
    }
    Ok(classes)
}

/// Inputs with the shape of one sample; images become planar.
pub(crate) fn inputs(item: &str, x: Array) -> Result<(Inputs, Vec<usize>, DType)> {
    let channels = |c: usize| matches!(c, 1 | 3 | 4);
    let planar = |shape: &[usize]| match *shape {
        [_, h, w] => vec![1, h, w],
        [_] => vec![1],
        _ => shape[1..].to_vec(),
    };
    let interleaved = match x.shape[..] {
        [_, c, h, w] if channels(w) && !channels(c) => Some((c, h, w)),
        _ => None,
    };
    let shape = match interleaved {
        Some((h, w, c)) => vec![c, h, w],
        None => planar(&x.shape),
    };
    match x.data {
        Data::Bytes(bytes) => {
            let bytes = match interleaved {
                Some(hwc) => deinterleave(&bytes, hwc),
                None => bytes,
            };
            Ok((Inputs::Bytes(bytes), shape, DType::U8))
        }
        Data::Floats(floats) => {
            let floats = match interleaved {
                Some(hwc) => deinterleave(&floats, hwc),
                None => floats,
            };
            Ok((Inputs::Floats(floats), shape, DType::F32))
        }
        Data::Whole(_) => Err(Error::data(item, "found integers as inputs, expected u1, f4 or f8")
            .hint("array.astype(np.uint8) for images, array.astype(np.float32) for tables")),
    }
}

/// `[n, h, w, c]` to `[n, c, h, w]`.
fn deinterleave<T: Copy>(pixels: &[T], (h, w, c): (usize, usize, usize)) -> Vec<T> {
    let mut planar = Vec::with_capacity(pixels.len());
    for image in pixels.chunks_exact(h * w * c) {
        for channel in 0..c {
            planar.extend(image.iter().skip(channel).step_by(c));
        }
    }
    planar
}
