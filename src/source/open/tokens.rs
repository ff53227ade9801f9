//! Text files and files of token ids, for language models.

use std::path::Path;
use std::sync::Arc;

use memchr::memmem;
use serde::Deserialize;

use super::splits::Splits;
use super::{CLASS_NAMES_FILE, Candidate, Dataset, Format, OpenOptions};
use crate::error::{Error, Result};
use crate::source::fetch::default_cache_dir;
use crate::source::file::io_error;
use crate::source::manifest::{Manifest, Split};
use crate::source::tokens::{self, TokenFile, Tokens, VOCABULARY_MAX, Windows, npy_header};
use crate::source::{DataConfig, Source, SourceInfo};
use crate::tokenizer::Tokenizer;
use crate::tokenizer::shards::Shard;
use crate::tokenizer::text::{KEPT_BYTES, Text, kept_shards};

pub(super) const FORMAT: Format = Format {
    what: "text (.txt) or tokens (.bin or .npy of u16, or a folder of them)",
    claims,
    open,
};

/// The file that may lie beside tokens, with the size of their vocabulary.
const MANIFEST_FILE: &str = "manifest.json";

fn claims(candidate: &Candidate) -> Result<bool> {
    if !candidate.is_folder {
        let npy = candidate.has_extension(".npy") && npy_header(&candidate.head).is_some();
        return Ok(npy || candidate.has_extension(".txt") || candidate.has_extension(".bin"));
    }
    Ok(find(&candidate.path)?.is_some())
}

/// The files of a folder that are of the first kind found: tokens, or else text.
fn find(folder: &Path) -> Result<Option<Splits>> {
    for extension in [".bin", ".npy", ".txt"] {
        let fits = |name: &str| name.ends_with(extension) && name != CLASS_NAMES_FILE;
        let splits = Splits::find(folder, fits)?;
        let Some(first) = splits.all().next() else { continue };
        // Arrays of something else are no tokens.
        if extension != ".npy" || TokenFile::open(first).is_ok() {
            return Ok(Some(splits));
        }
    }
    Ok(None)
}

fn open(candidate: &Candidate, options: &OpenOptions<'_>) -> Result<Dataset> {
    let path = &candidate.path;
    let splits = if candidate.is_folder {
        find(path)?.ok_or_else(|| Error::data(path.display(), "found no text any more"))?
    } else {
        Splits { train: vec![path.clone()], ..Default::default() }
    };
    let splits = splits.with_training_part();
    let files = [&splits.train, &splits.validation, &splits.test];
    let files = files.map(|paths| paths.iter().map(|path| Text::whole(path)).collect());
    let told = told(path, candidate.is_folder)?;
    dataset(path.display().to_string(), path, files, told, options)
}

/// Opens the text that a manifest describes: each split is a file or a part of one.
pub(super) fn open_manifest(
    manifest: &Manifest,
    dir: &Path,
    options: &OpenOptions<'_>,
) -> Result<Dataset> {
    let texts = |split: &Split| -> Result<Vec<Text>> {
        let [path] = &manifest.locate(dir, &split.files)[..] else {
            let message = format!("found {} files in a split, expected one", split.files.len());
            return Err(Error::data(&manifest.name, message));
        };
        let take = split.take.map(|take| take as u64);
        Ok(vec![Text { path: path.clone(), skip: split.skip as u64, take }])
    };
    let test = manifest.splits.test.as_ref().map(texts).transpose()?.unwrap_or_default();
    let files = [texts(&manifest.splits.train)?, Vec::new(), test];
    dataset(manifest.name.clone(), dir, files, Told::default(), options)
}

/// The files of each split as tokens: as they are, or of text by the tokenizer that is asked for.
fn files_of(
    splits: [Vec<Text>; 3],
    told: &mut Told,
    options: &OpenOptions<'_>,
) -> Result<[Vec<TokenFile>; 3]> {
    let as_they_are = |text: Text| Ok(TokenFile::open(&text.path)?.part(text.skip, text.take));
    let each = |texts: Vec<Text>| texts.into_iter().map(as_they_are).collect::<Result<Vec<_>>>();
    let plain = |[train, validation, test]: [Vec<Text>; 3]| -> Result<[Vec<TokenFile>; 3]> {
        Ok([each(train)?, each(validation)?, each(test)?])
    };
    let Some(name) = &options.data().tokenizer else { return plain(splits) };
    let is_text = |text: &Text| text.path.extension().is_none_or(|e| e != "bin" && e != "npy");
    if let Some(tokens) = splits.iter().flatten().find(|text| !is_text(text)) {
        let message = format!("found {}, which is tokens already", tokens.path.display());
        return Err(Error::config("--tokenizer", message).hint("leaving it out"));
    }
    let tokenizer = Tokenizer::open(name)?;
    told.tokenizer = Some(name.clone());
    told.vocabulary = Some(tokenizer.vocabulary());
    if matches!(tokenizer, Tokenizer::Bytes) {
        return plain(splits);
    }
    let root = match options.cache_dir {
        Some(dir) => dir.to_owned(),
        None => default_cache_dir()?,
    };
    let root = root.join("tokens");
    let kept = |texts: Vec<Text>| -> Result<Vec<TokenFile>> {
        match texts.is_empty() {
            true => Ok(Vec::new()),
            false => {
                let shards = kept_shards(&texts, &tokenizer, &root, KEPT_BYTES)?;
                let files = tokens::open_files(&shards.files)?.into_iter();
                Ok(files.map(|file| file.used_by(shards.in_use.clone())).collect())
            }
        }
    };
    let [train, validation, test] = splits;
    Ok([kept(train)?, kept(validation)?, kept(test)?])
}

/// Windows over the files of each split, of which a manifest may have `told`.
fn dataset(
    name: String,
    path: &Path,
    splits: [Vec<Text>; 3],
    mut told: Told,
    options: &OpenOptions<'_>,
) -> Result<Dataset> {
    let data = options.data();
    let [train, validation, test] = files_of(splits, &mut told, options)?;
    let held_out = [validation, test];
    let context = data.context.unwrap_or(tokens::CONTEXT);
    let windows = Windows { context, stride: data.stride.unwrap_or(context) };
    let vocabulary = match (data.vocabulary, told.vocabulary) {
        (Some(vocabulary), _) | (None, Some(vocabulary)) => vocabulary,
        (None, None) => tokens::vocabulary(train.iter().chain(held_out.iter().flatten()))?,
    };
    let document_end = document_end(&told, data)?;
    let source =
        |files: Vec<TokenFile>, split: &str, windows: Windows| -> Result<Arc<dyn Source>> {
            let info = SourceInfo {
                name: format!("{name} ({split})"),
                tokenizer: told.tokenizer.clone(),
                ..Default::default()
            };
            let tokens = Tokens::new(files, windows, vocabulary, info)?;
            Ok(Arc::new(match document_end {
                Some(end) => tokens.with_document_end(end),
                None => tokens,
            }))
        };
    // What is held out is looked at once, whatever the stride of training.
    let apart = Windows { context, stride: context };
    let [validation, test] = held_out;
    let held = |files: Vec<TokenFile>, split: &str| {
        (!files.is_empty()).then(|| source(files, split, apart)).transpose()
    };
    let (validation, test) = (held(validation, "val")?, held(test, "test")?);
    let train = source(train, "train", windows)?;
    let dataset = Dataset::new(&name, path, train, test);
    Ok(Dataset { validation, ..dataset })
}

/// The token that ends a document, where tokens are to attend only to those of their own.
fn document_end(told: &Told, data: &DataConfig) -> Result<Option<u32>> {
    if !data.document_mask {
        return Ok(None);
    }
    let of_tokenizer = |name: &String| Ok(Tokenizer::open(name)?.end());
    let end = match data.document_end {
        Some(end) => Some(end),
        None => told.tokenizer.as_ref().map(of_tokenizer).transpose()?.flatten(),
    };
    end.map(Some).ok_or_else(|| {
        let message = "found tokens of which none is known to end a document";
        Error::config("--document-mask", message)
            .hint("--document-end TOKEN, or tokens of inflight tokenize --tokenizer gpt2")
    })
}

/// Keys of a manifest: what holds one of them and is no JSON was one.
const KEYS: [&str; 2] = ["\"vocabulary\"", "\"shards\""];

/// What `manifest.json` beside the files tells.
#[derive(Default, Deserialize)]
struct Told {
    vocabulary: Option<usize>,
    tokenizer: Option<String>,
    /// The shards as `inflight tokenize` lists them. Other programs may call something else so.
    #[serde(default)]
    shards: serde_json::Value,
}

impl Told {
    /// Checks that all shards are there as they are listed, or of a file that is opened by itself that one.
    fn check_shards(&self, folder: &Path, file: Option<&Path>) -> Result<()> {
        let Ok(shards) = Vec::<Shard>::deserialize(&self.shards) else { return Ok(()) };
        let is_asked = |shard: &&Shard| file.is_none_or(|file| folder.join(&shard.file) == file);
        let mut asked = shards.iter().filter(is_asked);
        let checked = asked.try_for_each(|shard| shard.check(folder));
        checked.map_err(|e| e.hint("tokenizing or copying it again"))
    }
}

/// What `manifest.json` beside the files tells: `{"vocabulary": 50257, "tokenizer": "gpt2"}`.
fn told(path: &Path, is_folder: bool) -> Result<Told> {
    let (folder, file) = match is_folder {
        true => (path, None),
        false => (path.parent().unwrap_or(Path::new("")), Some(path)),
    };
    let path = folder.join(MANIFEST_FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Told::default()),
        Err(e) => return Err(io_error(&path, e)),
    };
    // Of all that other programs call `manifest.json`, only these keys are meant.
    let is_ours = || KEYS.iter().any(|key| memmem::find(&text, key.as_bytes()).is_some());
    let mut told: Told = match serde_json::from_slice(&text) {
        Err(e) if !e.is_data() && is_ours() => {
            return Err(Error::data(path.display(), "is damaged")
                .hint("tokenizing or copying it again")
                .caused_by(e));
        }
        told => told.unwrap_or_default(),
    };
    told.check_shards(folder, file)?;
    // A file of a tokenizer lies beside the tokens.
    if let Some(tokenizer) = &mut told.tokenizer
        && folder.join(&*tokenizer).is_file()
    {
        *tokenizer = folder.join(&*tokenizer).display().to_string();
    }
    match told.vocabulary {
        Some(vocabulary) if !(1..=VOCABULARY_MAX).contains(&vocabulary) => {
            let message = format!("found vocabulary {vocabulary}, expected 1 to {VOCABULARY_MAX}");
            Err(Error::data(path.display(), message))
        }
        _ => Ok(told),
    }
}
