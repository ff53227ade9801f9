//! Text files to shards of tokens that training reads: `train-00000.bin`, `val-00000.bin`, ..., little-endian `u16` (or
//! `.npy` of `u32`, where the vocabulary has more), and a `manifest.json` that says what they are.
//!
//! Every file is a document. Between two documents stands the token that ends a text, where the tokenizer has one.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Tokenizer;
use super::text::{Text, io_error};
use crate::durable::{self, replace_file};
use crate::error::{Error, Result};
use crate::lock::{self, Lock};
use crate::source::tokens::TokenFile;

/// The file that says what the shards are.
pub const MANIFEST: &str = "manifest.json";

/// The file of a tokenizer beside shards.
const TOKENIZER: &str = "tokenizer.json";

/// Bytes of text that are in memory at once, beside the longest single file.
const GROUP_BYTES: u64 = 64 << 20;

/// How text is cut into shards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShardOptions {
    /// The share at the end of every document that is held out for validation.
    pub val_share: f64,
    /// Tokens of a shard, after which a document is the last in it.
    pub shard_tokens: u64,
}

impl Default for ShardOptions {
    fn default() -> Self {
        Self { val_share: 0.0, shard_tokens: 100_000_000 }
    }
}

/// What a folder of shards holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenManifest {
    /// The tokenizer as it was asked for, or the file beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// Number of different tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<usize>,
    /// Documents.
    #[serde(default)]
    pub documents: u64,
    /// Bytes of all text.
    #[serde(default)]
    pub text_bytes: u64,
    /// Tokens to train on.
    #[serde(default)]
    pub train_tokens: u64,
    /// Tokens held out.
    #[serde(default)]
    pub val_tokens: u64,
    /// The shards, in order.
    #[serde(default)]
    pub shards: Vec<Shard>,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its file.
    pub file: String,
    /// Tokens in it.
    pub tokens: u64,
}

impl Shard {
    /// Checks that it is there, in `folder`, with all of its tokens.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn check(&self, folder: &Path) -> Result<()> {
        let path = folder.join(&self.file);
        let (found, expected) = (TokenFile::open(&path)?.tokens(), self.tokens);
        if found == expected {
            return Ok(());
        }
        let message = format!("found {found} tokens, expected the {expected} that {MANIFEST} says");
        Err(Error::data(path.display(), message))
    }
}

/// Writes the tokens of `files` into the new folder `out`; `name` is the tokenizer's.
///
/// # Errors
/// When a file cannot be read or is no UTF-8, a setting is out of range, or `out` holds something or cannot be written.
pub fn write(
    files: &[PathBuf],
    tokenizer: &Tokenizer,
    name: &str,
    out: &Path,
    options: ShardOptions,
) -> Result<TokenManifest> {
    let making = prepare(out, options)?;
    let name = Some(kept(name, out)?);
    let manifest = fill(&whole(files), tokenizer, name, out, options)?;
    finish(making, out)?;
    Ok(manifest)
}

/// Learns a byte-pair encoding of `tokens` tokens from what `files` hold for training, leaves it as `tokenizer.json` in the
/// new folder `out`, and writes the tokens of the files beside it.
///
/// # Errors
/// As [`write`]; when there are too few tokens or no text, and in a build without the feature `tokenizers`.
pub fn write_with_new_bpe(
    files: &[PathBuf],
    tokens: usize,
    out: &Path,
    options: ShardOptions,
) -> Result<TokenManifest> {
    #[cfg(feature = "tokenizers")]
    {
        let making = prepare(out, options)?;
        let texts = whole(files);
        let kept = out.join(TOKENIZER);
        let learned = texts.iter().map(|text| {
            let mut whole = text.read()?;
            whole.truncate(cut(&whole, options.val_share));
            Ok(whole)
        });
        super::train::train(learned, tokens, &kept)?;
        let tokenizer = Tokenizer::open(&kept.display().to_string())?;
        let manifest = fill(&texts, &tokenizer, Some(TOKENIZER.into()), out, options)?;
        finish(making, out)?;
        Ok(manifest)
    }
    #[cfg(not(feature = "tokenizers"))]
    {
        let _ = (files, tokens, out, options);
        Err(Error::config("--train-bpe", "this build knows only the tokenizer of bytes")
            .hint("cargo install inflight --features tokenizers"))
    }
}

/// In a folder that is being written: what is there without it is whole.
pub(crate) const MAKING: &str = ".tokenize";

/// Checks the settings and makes the folder, which must hold nothing but what an earlier call had begun.
fn prepare(out: &Path, options: ShardOptions) -> Result<Lock> {
    if !(0.0..1.0).contains(&options.val_share) {
        let message = format!("found {}, expected 0 up to, not including, 1", options.val_share);
        return Err(Error::config("--val-share", message));
    }
    let making = out.join(MAKING);
    if lock::is_free(&making) {
        durable::remove(out).map_err(|e| io_error(out, e))?;
    }
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let found = if making.exists() { "what is being written" } else { "something already" };
        let message = format!("{} holds {found}", out.display());
        return Err(Error::config("--out", message).hint("a folder of another name"));
    }
    std::fs::create_dir_all(out).map_err(|e| io_error(out, e))?;
    let lock = Lock::hold(&making).map_err(|e| io_error(&making, e))?;
    lock.ok_or_else(|| Error::config("--out", format!("{} is being written", out.display())))
}

/// Lets the folder be opened.
fn finish(making: Lock, out: &Path) -> Result<()> {
    let path = out.join(MAKING);
    drop(making);
    std::fs::remove_file(&path).map_err(|e| io_error(&path, e))
}

fn whole(files: &[PathBuf]) -> Vec<Text> {
    files.iter().map(|path| Text::whole(path)).collect()
}

/// Writes shards of `texts` and the manifest into the folder `out`, which is there.
pub(super) fn fill(
    texts: &[Text],
    tokenizer: &Tokenizer,
    name: Option<String>,
    out: &Path,
    options: ShardOptions,
) -> Result<TokenManifest> {
    let wide = tokenizer.vocabulary() > 1 << 16;
    let writer = |split| Writer::new(out, split, wide, options.shard_tokens);
    let (mut train, mut val) = (writer("train"), writer("val"));
    let mut manifest = TokenManifest {
        tokenizer: name,
        vocabulary: Some(tokenizer.vocabulary()),
        ..TokenManifest::default()
    };
    for group in groups(texts)? {
        let documents: Vec<Result<Document>> = group
            .par_iter()
            .map(|text| Document::read(text, tokenizer, options.val_share))
            .collect();
        for document in documents {
            let Document { text_bytes, train: tokens, val: held_out } = document?;
            manifest.documents += 1;
            manifest.text_bytes += text_bytes;
            train.document(&tokens, tokenizer.end())?;
            val.document(&held_out, tokenizer.end())?;
        }
    }
    (manifest.train_tokens, manifest.val_tokens) = (train.tokens, val.tokens);
    manifest.shards = [train.finish()?, val.finish()?].concat();
    let json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| Error::data(MANIFEST, "cannot be written as JSON").caused_by(e))?;
    // Last, so that a folder with one is whole.
    replace_file(&out.join(MANIFEST), &json)?;
    Ok(manifest)
}

/// The name of the tokenizer for the manifest; a file of one is copied, so that the folder can be moved.
fn kept(name: &str, out: &Path) -> Result<String> {
    let file = match Path::new(name) {
        path if path.is_dir() && path.join(TOKENIZER).exists() => path.join(TOKENIZER),
        path => path.to_path_buf(),
    };
    if ["bytes", "gpt2"].contains(&name) || !file.is_file() {
        return Ok(name.into());
    }
    let copy = out.join(TOKENIZER);
    std::fs::copy(&file, &copy).map_err(|e| io_error(&copy, e))?;
    Ok(TOKENIZER.into())
}

/// Texts together as long as they are short.
fn groups(texts: &[Text]) -> Result<Vec<&[Text]>> {
    let (mut groups, mut first, mut bytes) = (Vec::new(), 0, 0);
    for (i, text) in texts.iter().enumerate() {
        let len = text.bytes()?;
        if bytes + len > GROUP_BYTES && i > first {
            groups.push(&texts[first..i]);
            (first, bytes) = (i, 0);
        }
        bytes += len;
    }
    groups.push(&texts[first..]);
    Ok(groups)
}

/// A text in tokens.
struct Document {
    text_bytes: u64,
    train: Vec<u32>,
    val: Vec<u32>,
}

impl Document {
    fn read(text: &Text, tokenizer: &Tokenizer, val_share: f64) -> Result<Self> {
        let whole = text.read()?;
        let named = |error: Error| error.within(text.path.display());
        let encode = |text: &str| tokenizer.encode_long(text).map_err(named);
        let (train, val) = whole.split_at(cut(&whole, val_share));
        Ok(Self { text_bytes: whole.len() as u64, train: encode(train)?, val: encode(val)? })
    }
}

/// Where what is held out begins, between two characters.
fn cut(text: &str, val_share: f64) -> usize {
    let mut cut = (text.len() as f64 * (1.0 - val_share)) as usize;
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    cut
}

/// Writes the shards of a split.
struct Writer<'a> {
    out: &'a Path,
    split: &'static str,
    /// Whether a token takes four bytes.
    wide: bool,
    shard_tokens: u64,
    shards: Vec<Shard>,
    file: Option<BufWriter<File>>,
    /// Tokens of all shards.
    tokens: u64,
}

impl<'a> Writer<'a> {
    fn new(out: &'a Path, split: &'static str, wide: bool, shard_tokens: u64) -> Self {
        Self { out, split, wide, shard_tokens, shards: Vec::new(), file: None, tokens: 0 }
    }

    /// Adds a document, after the end of the one before.
    fn document(&mut self, tokens: &[u32], end: Option<u32>) -> Result<()> {
        if tokens.is_empty() {
            return Ok(());
        }
        if self.shards.last().is_none_or(|shard| shard.tokens >= self.shard_tokens) {
            self.close()?;
            let extension = if self.wide { "npy" } else { "bin" };
            let file = format!("{}-{:05}.{extension}", self.split, self.shards.len());
            let path = self.out.join(&file);
            let mut open = BufWriter::new(File::create(&path).map_err(|e| io_error(&path, e))?);
            if self.wide {
                // The number of tokens is known at the end.
                open.write_all(&npy_header(0)).map_err(|e| io_error(&path, e))?;
            }
            self.file = Some(open);
            self.shards.push(Shard { file, tokens: 0 });
        }
        let end = end.filter(|_| self.tokens > 0);
        let bytes: Vec<u8> = match self.wide {
            true => end.iter().chain(tokens).flat_map(|token| token.to_le_bytes()).collect(),
            false => {
                end.iter().chain(tokens).flat_map(|&token| (token as u16).to_le_bytes()).collect()
            }
        };
        let count = tokens.len() as u64 + u64::from(end.is_some());
        if let (Some(file), Some(shard)) = (&mut self.file, self.shards.last_mut()) {
            file.write_all(&bytes).map_err(|e| io_error(&self.out.join(&shard.file), e))?;
            shard.tokens += count;
        }
        self.tokens += count;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let (Some(mut file), Some(shard)) = (self.file.take(), self.shards.last()) else {
            return Ok(());
        };
        let path = self.out.join(&shard.file);
        let header = self.wide.then(|| npy_header(shard.tokens));
        let write = || -> std::io::Result<()> {
            file.flush()?;
            if let Some(header) = header {
                use std::io::Seek;
                file.rewind()?;
                file.write_all(&header)?;
                file.flush()?;
            }
            file.get_ref().sync_all()
        };
        write().map_err(|e| io_error(&path, e))
    }

    fn finish(mut self) -> Result<Vec<Shard>> {
        self.close()?;
        Ok(self.shards)
    }
}

/// The header of an `.npy` file with one dimension of `u32`, always 128 bytes long.
fn npy_header(tokens: u64) -> Vec<u8> {
    let text = format!("{{'descr': '<u4', 'fortran_order': False, 'shape': ({tokens},), }}");
    let mut header = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    header.extend(format!("{text:<117}\n").into_bytes());
    header
}
