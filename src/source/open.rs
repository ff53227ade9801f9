//! From a name or a path to a data set: finds the files, fetches what is missing, tells the format.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::DType;
use crate::error::{Error, Result};
use crate::source::fetch::{OnProgress, default_cache_dir, fetch_manifest};
use crate::source::file::io_error;
use crate::source::manifest::{self, Format, Manifest, Split};
use crate::source::npy::{self, Arrays};
use crate::source::resident::Resident;
use crate::source::{Source, SourceInfo, Subset, cifar, idx, statistics};

/// A data set that is open: what to train on, and what to validate with.
#[derive(Clone)]
pub struct Dataset {
    /// Its name, or the path it was opened by.
    pub name: String,
    /// Where its files lie.
    pub path: PathBuf,
    /// The training split.
    pub train: Arc<dyn Source>,
    /// The test split, where there is one.
    pub test: Option<Arc<dyn Source>>,
}

/// How to open a data set.
#[derive(Clone, Copy, Default)]
pub struct OpenOptions<'a> {
    /// Never fetch: a data set that is not here is an error.
    pub offline: bool,
    /// Where fetched data sets lie; without it, [`default_cache_dir`].
    pub cache_dir: Option<&'a Path>,
    /// Number of classes, for files that do not say.
    pub classes: Option<usize>,
    /// Told about the progress of a fetch.
    pub on_progress: Option<OnProgress<'a>>,
}

/// The file with one class name a line that may lie beside data without a manifest.
const CLASS_NAMES_FILE: &str = "classes.txt";

/// Opens a data set by its name or path. A path is a folder with IDX, CIFAR-10 or NPY files, an `.npz`
/// archive, or an IDX images file. A known name that is not on this machine is fetched first.
///
/// # Errors
/// When there is no such name or path, a fetch fails, or a file is damaged or does not fit the others.
pub fn open(dataset: &str, options: &OpenOptions<'_>) -> Result<Dataset> {
    if let Some(manifest) = manifest::by_name(dataset)? {
        let dir = find_or_fetch(&manifest, options)?;
        return open_manifest(&manifest, &dir);
    }
    let path = Path::new(dataset);
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => open_folder(path, options),
        Ok(_) => open_file(path, options),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::data(
            dataset,
            format!(
                "found neither a file or folder of this name nor a known data set ({})",
                manifest::names().join(", ")
            ),
        )
        .hint("a path to a folder with IDX, CIFAR-10 or NPY files, or to an .npz file")),
        Err(e) => Err(io_error(path, e)),
    }
}

/// Opens the data set that `manifest` describes, whose files lie in `dir`.
///
/// # Errors
/// When a file is missing, damaged, or does not fit the others.
pub fn open_manifest(manifest: &Manifest, dir: &Path) -> Result<Dataset> {
    let test = manifest.splits.test.as_ref();
    let train = &manifest.splits.train;
    let read = |split: &Split, name| read_split(manifest, dir, split, name);
    let (train_source, test_source) = match test {
        Some(test) if test.files == train.files => {
            let source = read(train, "train")?;
            (source.clone(), Some(source))
        }
        Some(test) => {
            let (a, b) = rayon::join(|| read(train, "train"), || read(test, "test"));
            (a?, Some(b?))
        }
        None => (read(train, "train")?, None),
    };
    let test_source = match (test_source, test) {
        (Some(source), Some(split)) => Some(take(source, split, manifest, "test")?),
        _ => None,
    };
    Ok(Dataset {
        name: manifest.name.clone(),
        path: dir.into(),
        train: take(train_source, train, manifest, "train")?,
        test: test_source,
    })
}

/// The folder that holds the data set's files: in-tree, in the cache, or fetched now.
fn find_or_fetch(manifest: &Manifest, options: &OpenOptions<'_>) -> Result<PathBuf> {
    let cache_dir = match options.cache_dir {
        Some(dir) => dir.to_owned(),
        None => default_cache_dir()?,
    };
    let candidates = [
        Path::new("datasets").join(&manifest.name),
        Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets").join(&manifest.name),
        cache_dir.join(&manifest.name),
    ];
    if let Some(dir) = candidates.iter().find(|dir| manifest.is_complete(dir)) {
        return Ok(dir.clone());
    }
    if options.offline {
        let [.., cached] = &candidates;
        return Err(Error::data(
            &manifest.name,
            format!("is not on this machine (looked in {})", cached.display()),
        )
        .hint(format!("inflight fetch {}", manifest.name)));
    }
    fetch_manifest(manifest, &cache_dir, options.on_progress.unwrap_or(&|_| ()))
}

fn read_split(
    manifest: &Manifest,
    dir: &Path,
    split: &Split,
    name: &str,
) -> Result<Arc<dyn Source>> {
    let files = manifest.locate(dir, &split.files);
    let info = manifest.info(name);
    let source = match (manifest.format, &files[..]) {
        (Format::Idx, [images, labels]) => idx::open(images, labels, manifest.classes.len(), info)?,
        (Format::Idx, _) => {
            return Err(Error::data(
                &manifest.name,
                format!("found {} files in split {name}, expected images and labels", files.len()),
            ));
        }
        (Format::Cifar10, files) => cifar::open(files, info)?,
    };
    Ok(Arc::new(source))
}

/// The part of `source` that `split` asks for.
fn take(
    source: Arc<dyn Source>,
    split: &Split,
    manifest: &Manifest,
    name: &str,
) -> Result<Arc<dyn Source>> {
    if split.skip == 0 && split.take.is_none() {
        return Ok(source);
    }
    let end = split.take.map_or(source.len(), |take| split.skip.saturating_add(take));
    let subset = Subset::new(source, split.skip..end, manifest.info(name).name)?;
    Ok(Arc::new(subset))
}

fn open_file(path: &Path, options: &OpenOptions<'_>) -> Result<Dataset> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new("."));
    if path.extension().is_some_and(|e| e == "npz") {
        return open_arrays(path, folder, Arrays::archive(path)?, options);
    }
    match idx_pairs(folder)?.into_iter().find(|pair| pair.images == path) {
        Some(pair) => open_pairs(path, &[pair], options),
        None => Err(Error::data(
            path.display(),
            format!("found a file called {name}, expected an .npz archive or an IDX images file"),
        )
        .hint("the folder it lies in")),
    }
}

fn open_folder(path: &Path, options: &OpenOptions<'_>) -> Result<Dataset> {
    let pairs = idx_pairs(path)?;
    if !pairs.is_empty() {
        return open_pairs(path, &pairs, options);
    }
    for dir in [path.to_owned(), path.join("cifar-10-batches-bin")] {
        let (train, test) = cifar_files(&dir)?;
        if !train.is_empty() || test.is_some() {
            return open_cifar(path, train, test);
        }
    }
    let arrays = Arrays::folder(path)?;
    if arrays.has(&npy::TRAIN) || arrays.has(&npy::TEST) {
        return open_arrays(path, path, arrays, options);
    }
    if let [npz] = &files_with(path, |name| name.ends_with(".npz"))?[..] {
        return open_arrays(npz, path, Arrays::archive(npz)?, options);
    }
    Err(Error::data(
        path.display(),
        "found no data that can be read, expected IDX files (train-images-idx3-ubyte, …), CIFAR-10 \
         batches (data_batch_1.bin, …), x.npy and y.npy, or one .npz archive",
    ))
}

/// An images file, and the labels file that belongs to it.
struct Pair {
    images: PathBuf,
    labels: PathBuf,
    prefix: String,
}

/// All pairs of IDX files in a folder, in the order of their names.
fn idx_pairs(folder: &Path) -> Result<Vec<Pair>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let split = |name: &str| {
        let stem = name.strip_suffix(".gz").unwrap_or(name);
        let prefix = stem.strip_suffix("idx3-ubyte")?.strip_suffix(['-', '.'])?;
        Some(prefix.strip_suffix("-images")?.to_owned())
    };
    let mut pairs: Vec<Pair> = Vec::new();
    for images in files_with(folder, |name| split(name).is_some())? {
        let name = images.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let prefix = split(&name).unwrap_or_default();
        if pairs.iter().any(|pair| pair.prefix == prefix) {
            continue; // The same file plain and compressed: the first will do.
        }
        let labels_name = name.replace("-images", "-labels").replace("idx3", "idx1");
        let plain = labels_name.strip_suffix(".gz").unwrap_or(&labels_name).to_owned();
        let choices = [labels_name, plain.clone(), format!("{plain}.gz")];
        let labels = choices.iter().map(|name| folder.join(name)).find(|path| path.exists());
        let Some(labels) = labels else {
            return Err(Error::data(
                images.display(),
                format!("found no labels beside it, expected {plain} or {plain}.gz"),
            ));
        };
        pairs.push(Pair { images, labels, prefix });
    }
    Ok(pairs)
}

/// Opens pairs of IDX files: `t10k` or `test` is the test split, the other one is trained on.
fn open_pairs(path: &Path, pairs: &[Pair], options: &OpenOptions<'_>) -> Result<Dataset> {
    let is_test = |pair: &&Pair| pair.prefix.contains("t10k") || pair.prefix.contains("test");
    let test = pairs.iter().find(is_test);
    let (train, test) = match pairs.iter().find(|pair| !is_test(pair)) {
        Some(train) => (train, test),
        // A test split alone is still something to train on.
        None => (&pairs[0], None),
    };
    let folder = train.images.parent().unwrap_or(Path::new("."));
    let class_names = class_names(folder)?;
    let named = (!class_names.is_empty()).then_some(class_names.len());
    let classes = options.classes.or(named).unwrap_or(idx::CLASSES);
    let read = |pair: &Pair, split: &str| {
        idx::open(&pair.images, &pair.labels, classes, info(path, split, &class_names))
    };
    let (train, test) = (read(train, "train")?, test.map(|t| read(t, "test")).transpose()?);
    with_statistics(path, train, test)
}

/// The batches of a folder: those to train on, in order, and the one to test with.
fn cifar_files(folder: &Path) -> Result<(Vec<PathBuf>, Option<PathBuf>)> {
    if !folder.is_dir() {
        return Ok((Vec::new(), None));
    }
    let train = files_with(folder, |n| n.starts_with("data_batch_") && n.ends_with(".bin"))?;
    let test = folder.join("test_batch.bin");
    Ok((train, test.exists().then_some(test)))
}

fn open_cifar(path: &Path, train: Vec<PathBuf>, test: Option<PathBuf>) -> Result<Dataset> {
    let (train, test) = match (train.is_empty(), test) {
        (true, Some(test)) => (vec![test], None),
        (_, test) => (train, test),
    };
    let names = manifest::by_name("cifar-10")?.map(|m| m.classes).unwrap_or_default();
    let train = cifar::open(&train, info(path, "train", &names))?;
    let test = test.map(|test| cifar::open(&[test], info(path, "test", &names))).transpose()?;
    with_statistics(path, train, test)
}

fn open_arrays(
    path: &Path,
    folder: &Path,
    mut arrays: Arrays,
    options: &OpenOptions<'_>,
) -> Result<Dataset> {
    let class_names = class_names(folder)?;
    let named = (!class_names.is_empty()).then_some(class_names.len());
    let classes = options.classes.or(named);
    let train = arrays.split(&npy::TRAIN, classes, info(path, "train", &class_names))?;
    let test = if arrays.has(&npy::TEST) {
        let classes = classes.or(train.spec().classes());
        let test = arrays.split(&npy::TEST, classes, info(path, "test", &class_names))?;
        if test.spec() != train.spec() {
            return Err(Error::data(
                path.display(),
                format!(
                    "found a test split of {:?}, expected the same as the training split, {:?}",
                    test.spec(),
                    train.spec()
                ),
            ));
        }
        Some(test)
    } else {
        None
    };
    with_statistics(path, train, test)
}

/// Gives both splits the mean and deviation of the training split's images; arrays of floats are taken
/// as they are.
fn with_statistics(path: &Path, train: Resident, test: Option<Resident>) -> Result<Dataset> {
    if let Some(test) = &test
        && test.spec().input_shape != train.spec().input_shape
    {
        return Err(Error::data(
            path.display(),
            format!(
                "found test samples of shape {:?}, expected those of the training split, {:?}",
                test.spec().input_shape,
                train.spec().input_shape
            ),
        ));
    }
    let (mut mean, mut std) = (Vec::new(), Vec::new());
    if train.spec().input_dtype == DType::U8 {
        let found = statistics(&train)?;
        // A channel that never changes carries nothing; a deviation of 1 leaves it at 0.
        let safe = |s: &f64| if *s > 0.0 { *s as f32 } else { 1.0 };
        mean = found.mean.iter().map(|&m| m as f32).collect();
        std = found.std.iter().map(safe).collect();
        // What is no image has one mean, which holds for each of its elements.
        let channels = train.spec().input_shape[0];
        mean.resize(channels, mean[0]);
        std.resize(channels, std[0]);
    }
    let named = |source: Resident| {
        let info = SourceInfo { mean: mean.clone(), std: std.clone(), ..source.info().clone() };
        Arc::new(source.with_info(info)) as Arc<dyn Source>
    };
    Ok(Dataset {
        name: path.display().to_string(),
        path: path.into(),
        train: named(train),
        test: test.map(named),
    })
}

fn info(path: &Path, split: &str, class_names: &[String]) -> SourceInfo {
    SourceInfo {
        name: format!("{} ({split})", path.display()),
        class_names: class_names.to_vec(),
        ..Default::default()
    }
}

/// The names in `classes.txt`, if there is one.
fn class_names(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(CLASS_NAMES_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            Ok(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(Into::into).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(io_error(&path, e)),
    }
}

/// The files of a folder whose names fit, in the order of their names.
fn files_with(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| io_error(folder, e))? {
        let path = entry.map_err(|e| io_error(folder, e))?.path();
        if path.file_name().and_then(|n| n.to_str()).is_some_and(&fits) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
