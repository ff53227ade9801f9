//! Tokens of text for language models: the bytes of text files, or files of token ids.
//!
//! A sample is a window of `context + 1` tokens: the input is all but the last, the target all but the first. The
//! files of a split are one sequence, in the order of their names. Window `i` begins at token `i * stride`: with a stride of the
//! context every token is seen once an epoch; with a stride of 1 the sampler's order draws windows from anywhere, each
//! at most once. Either way the order is a function of (seed, epoch, index), and nothing is read but the windows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use crate::batch::{DType, SampleSpec, TargetSpec};
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::source::blob::{Blob, LocalFile};
use crate::source::resident::no_such_sample;
use crate::source::{Sample, Source, SourceInfo, Target};

/// Tokens of a window unless a configuration says otherwise.
pub const CONTEXT: usize = 256;

/// Tokens of a vocabulary at most: far above those in use, far below what a slip of four bytes comes to.
pub const VOCABULARY_MAX: usize = 1 << 24;

/// How a token lies in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A byte of text.
    U8,
    /// Two bytes, as nanoGPT and llm.c write GPT-2's tokens.
    U16,
    /// Four bytes, as llm.c writes Llama 3's.
    U32,
}

impl Width {
    /// Size of a token in a file.
    pub fn bytes(self) -> usize {
        match self {
            Width::U8 => 1,
            Width::U16 => 2,
            Width::U32 => 4,
        }
    }
}

/// A file of tokens.
#[derive(Debug)]
pub struct TokenFile {
    file: LocalFile,
    /// Where the first token begins.
    offset: u64,
    /// How many there are.
    tokens: u64,
    width: Width,
    /// Number of different tokens, where the file says.
    vocabulary: Option<usize>,
    /// Keeps the file from being removed, where it is one that can be made again.
    _in_use: Option<Arc<Lock>>,
}

/// How long the header of llm.c's files is.
const LLM_C_HEADER_BYTES: u64 = 1024;

/// What the header of an `.npy` file may take here; it names one dimension.
const NPY_HEADER_BYTES_MAX: usize = 1024;

impl TokenFile {
    /// Opens a file: `.npy` with one dimension of `u2` or `u4`, `.bin` as llm.c writes it (magic 20240520 for GPT-2,
    /// 20240801 for Llama 3) or, without such a header, as `u16`; anything else is text.
    ///
    /// # Errors
    /// When it cannot be read, or its length is not what its header or the width of a token says.
    pub fn open(path: &Path) -> Result<Self> {
        let file = LocalFile::new(path)?;
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_lowercase);
        match extension.as_deref() {
            Some("npy") => Self::npy(file),
            Some("bin") => Self::bin(file),
            _ => Ok(Self {
                offset: 0,
                tokens: file.len(),
                width: Width::U8,
                vocabulary: Some(256),
                _in_use: None,
                file,
            }),
        }
    }

    /// How many tokens it has.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// `take` tokens from `skip` on, or all that follow; fewer where the file has no more.
    pub fn part(mut self, skip: u64, take: Option<u64>) -> Self {
        let skip = skip.min(self.tokens);
        self.offset += skip * self.width.bytes() as u64;
        self.tokens = (self.tokens - skip).min(take.unwrap_or(u64::MAX));
        self
    }

    /// The same file, which `in_use` keeps where it is for as long as this is there.
    pub(crate) fn used_by(self, in_use: Option<Arc<Lock>>) -> Self {
        Self { _in_use: in_use, ..self }
    }

    fn bin(file: LocalFile) -> Result<Self> {
        let mut head = Vec::new();
        file.read_at(0, file.len().min(12) as usize, &mut head)?;
        let word =
            |at: usize| head.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        // What llm.c's `dev/data/data_common.py` writes: magic, version, number of tokens.
        let (width, vocabulary) = match (word(0), word(4)) {
            (Some(20_240_520), Some(1)) => (Width::U16, 50_257),
            (Some(20_240_801), Some(7)) => (Width::U32, 128_256),
            (Some(magic @ (20_240_520 | 20_240_801)), version) => {
                let message = format!(
                    "found llm.c's magic {magic} with version {}, expected 20240520 with 1 or 20240801 with 7",
                    version.map_or("none".into(), |version| version.to_string())
                );
                return Err(Error::data(file.name(), message));
            }
            _ => return Self::plain(file, 0, Width::U16),
        };
        let tokens = u64::from(word(8).unwrap_or(0));
        let expected = LLM_C_HEADER_BYTES + tokens * width.bytes() as u64;
        if file.len() != expected {
            let message = format!(
                "found {} bytes, expected {expected} for the {tokens} tokens that its header says",
                file.len()
            );
            return Err(Error::data(file.name(), message).hint("tokenizing or copying it again"));
        }
        let (offset, vocabulary) = (LLM_C_HEADER_BYTES, Some(vocabulary));
        Ok(Self { file, offset, tokens, width, vocabulary, _in_use: None })
    }

    /// Tokens and nothing else from `offset` on.
    fn plain(file: LocalFile, offset: u64, width: Width) -> Result<Self> {
        let (bytes, size) = (file.len() - offset, width.bytes() as u64);
        if !bytes.is_multiple_of(size) {
            let message = format!("found {bytes} bytes of tokens, expected a multiple of {size}");
            return Err(Error::data(file.name(), message)
                .hint("tokens as little-endian u16, or llm.c's header before others"));
        }
        let tokens = bytes / size;
        Ok(Self { tokens, file, offset, width, vocabulary: None, _in_use: None })
    }

    fn npy(file: LocalFile) -> Result<Self> {
        let mut head = Vec::new();
        file.read_at(0, file.len().min(NPY_HEADER_BYTES_MAX as u64) as usize, &mut head)?;
        let Some((width, tokens, offset)) = npy_header(&head) else {
            let message = "found an .npy file of another kind, expected one dimension of u2 or u4";
            return Err(Error::data(file.name(), message).hint("tokens.astype(np.uint16)"));
        };
        let expected = tokens.checked_mul(width.bytes() as u64).and_then(|b| b.checked_add(offset));
        if expected != Some(file.len()) {
            let message =
                format!("found {} bytes, expected {tokens} tokens from byte {offset}", file.len());
            return Err(Error::data(file.name(), message).hint("saving it again with np.save"));
        }
        Ok(Self { file, offset, tokens, width, vocabulary: None, _in_use: None })
    }
}

/// What the header of an `.npy` file with one dimension of tokens says: their width and number, and where they begin.
pub fn npy_header(head: &[u8]) -> Option<(Width, u64, u64)> {
    let (text_at, len): (usize, usize) = match head {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => {
            (10, usize::from(u16::from_le_bytes([*a, *b])))
        }
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d, ..] => {
            (12, u32::from_le_bytes([*a, *b, *c, *d]) as usize)
        }
        _ => return None,
    };
    let text = std::str::from_utf8(head.get(text_at..text_at.checked_add(len)?)?).ok()?;
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let width = match text.split_once("'descr':'")?.1.get(..3)? {
        "<u2" => Width::U16,
        "<u4" => Width::U32,
        _ => return None,
    };
    let shape = text.split_once("'shape':(")?.1.split_once(')')?.0;
    let tokens = shape.strip_suffix(',')?.parse().ok()?;
    Some((width, tokens, (text_at + len) as u64))
}

/// How windows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Tokens of an input.
    pub context: usize,
    /// From the beginning of a window to that of the next.
    pub stride: usize,
}

/// Windows over the tokens of files, which are one sequence.
pub struct Tokens {
    files: Vec<TokenFile>,
    /// The place of the first token of each file, and last the number of all.
    starts: Vec<u64>,
    width: Width,
    windows: Windows,
    len: usize,
    spec: SampleSpec,
    info: SourceInfo,
}

impl Tokens {
    /// Windows over `files`, whose tokens are below `vocabulary`.
    ///
    /// # Errors
    /// When the files differ in the width of their tokens, or all together have no window.
    pub fn new(
        files: Vec<TokenFile>,
        windows: Windows,
        vocabulary: usize,
        info: SourceInfo,
    ) -> Result<Self> {
        let width = width_of(&files, &info.name)?;
        let mut starts = vec![0];
        for file in &files {
            starts.push(starts[starts.len() - 1] + file.tokens);
        }
        let (tokens, Windows { context, stride }) = (starts[starts.len() - 1], windows);
        if tokens <= context as u64 {
            let message = format!(
                "found {tokens} tokens, expected at least {} for a window of context {context}",
                context + 1
            );
            return Err(Error::data(&info.name, message).hint("a smaller --context"));
        }
        let len = ((tokens - context as u64 - 1) / stride as u64 + 1) as usize;
        let input_dtype = if width == Width::U32 { DType::U32 } else { DType::U16 };
        let target = TargetSpec::Tokens { len: context, vocabulary, document_end: None };
        let spec = SampleSpec { input_shape: vec![context], input_dtype, target };
        Ok(Self { files, starts, width, windows, len, spec, info })
    }

    /// The same for models whose tokens attend only to those of their own document, each of which ends with this token.
    pub fn with_document_end(mut self, end: u32) -> Self {
        if let TargetSpec::Tokens { document_end, .. } = &mut self.spec.target {
            *document_end = Some(end);
        }
        self
    }

    /// Number of tokens in all files.
    pub fn tokens(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Replaces what is in `into` by `count` tokens from token `from` on, as they lie in the files.
    fn gather(&self, from: u64, count: usize, into: &mut Vec<u8>) -> Result<()> {
        let width = self.width.bytes();
        let mut part = self.starts.partition_point(|&start| start <= from) - 1;
        let (mut at, mut left) = (from, count as u64);
        let mut next = Vec::new();
        while left > 0 {
            let file = &self.files[part];
            let inside = at - self.starts[part];
            let here = left.min(file.tokens - inside);
            if here > 0 {
                let offset = file.offset + inside * width as u64;
                // Nearly every window lies in one file; only another one needs memory of its own.
                if left == count as u64 {
                    file.file.read_at(offset, here as usize * width, into)?;
                } else {
                    file.file.read_at(offset, here as usize * width, &mut next)?;
                    into.extend_from_slice(&next);
                }
            }
            (at, left, part) = (at + here, left - here, part + 1);
        }
        Ok(())
    }

    /// The file and token that a window begins at.
    fn place(&self, index: usize) -> (usize, u64) {
        let from = index as u64 * self.windows.stride as u64;
        let part = self.starts.partition_point(|&start| start <= from) - 1;
        (part, from - self.starts[part])
    }
}

fn width_of(files: &[TokenFile], name: &str) -> Result<Width> {
    let Some(first) = files.first() else {
        return Err(Error::data(name, "found no files of tokens any more"));
    };
    match files.iter().find(|file| file.width != first.width) {
        None => Ok(first.width),
        Some(other) => Err(Error::data(
            other.file.name(),
            format!(
                "found tokens of {} bytes, expected {} as in the first file",
                other.width.bytes(),
                first.width.bytes()
            ),
        )),
    }
}

/// Number of different tokens: what the files themselves say, or one more than the highest token in any of them, for
/// which they are read once.
///
/// # Errors
/// When a file cannot be read, or a token is above what any vocabulary has.
pub fn vocabulary<'a>(files: impl Iterator<Item = &'a TokenFile>) -> Result<usize> {
    let mut most = 0;
    for file in files {
        let found = match file.vocabulary {
            Some(vocabulary) => vocabulary,
            None => highest(file)?.map_or(0, |token| token as usize + 1),
        };
        if found > VOCABULARY_MAX {
            let message = format!("found token {}, expected below {VOCABULARY_MAX}", found - 1);
            return Err(Error::data(file.file.name(), message).hint("tokens as u16 or u32"));
        }
        most = most.max(found);
    }
    Ok(most)
}

/// Bytes of a file that a task reads at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// The highest token of a file.
fn highest(file: &TokenFile) -> Result<Option<u32>> {
    let begin = file.offset;
    let end = begin + file.tokens * file.width.bytes() as u64;
    let chunks = (end - begin).div_ceil(CHUNK_BYTES);
    let highest = (0..chunks).into_par_iter().map_init(Vec::new, |bytes, chunk| {
        let at = begin + chunk * CHUNK_BYTES;
        file.file.read_at(at, (end - at).min(CHUNK_BYTES) as usize, bytes)?;
        Ok(match file.width {
            Width::U8 => bytes.iter().map(|&b| u32::from(b)).max(),
            Width::U16 => bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b).into()).max(),
            Width::U32 => bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).max(),
        })
    });
    let highest: Vec<Result<Option<u32>>> = highest.collect();
    highest.into_iter().try_fold(None, |most, found| Ok(most.max(found?)))
}

impl Source for Tokens {
    fn len(&self) -> usize {
        self.len
    }

    fn spec(&self) -> &SampleSpec {
        &self.spec
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn origin(&self, index: usize) -> Option<String> {
        let (part, token) = (index < self.len).then(|| self.place(index))?;
        Some(format!("{} token {token}", self.files[part].file.name()))
    }

    fn prefetch(&self, indices: &[usize]) -> Result<()> {
        let width = self.width.bytes() as u64;
        for &index in indices.iter().filter(|&&index| index < self.len) {
            let (part, token) = self.place(index);
            let file = &self.files[part];
            let from = file.offset + token * width;
            let to = (from + (self.windows.context as u64 + 1) * width).min(file.file.len());
            file.file.prefetch(std::slice::from_ref(&(from..to)))?;
        }
        Ok(())
    }

    fn read<'a>(&'a self, index: usize, scratch: &'a mut Vec<u8>) -> Result<Sample<'a>> {
        if index >= self.len {
            return Err(no_such_sample(&self.info.name, index, self.len));
        }
        let Windows { context, stride } = self.windows;
        self.gather(index as u64 * stride as u64, context + 1, scratch)?;
        let raw = scratch.len();
        // Behind the tokens as they lie in the file: bytes as tokens, if it is text, and then the targets.
        if self.width == Width::U8 {
            scratch.reserve(6 * context);
            for i in 0..context {
                let token = u16::from(scratch[i]);
                scratch.extend(token.to_le_bytes());
            }
        } else {
            scratch.reserve(4 * context);
        }
        let targets = scratch.len();
        for i in 1..=context {
            let token: u32 = match self.width {
                Width::U8 => scratch[i].into(),
                Width::U16 => u16::from_le_bytes([scratch[2 * i], scratch[2 * i + 1]]).into(),
                Width::U32 => {
                    let token = &scratch[4 * i..];
                    u32::from_le_bytes([token[0], token[1], token[2], token[3]])
                }
            };
            scratch.extend(token.to_le_bytes());
        }
        let input = match self.width {
            Width::U8 => raw..targets,
            Width::U16 | Width::U32 => 0..context * self.width.bytes(),
        };
        Ok(Sample { input: &scratch[input], target: Target::Tokens(&scratch[targets..]) })
    }
}

/// What a source of tokens holds.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TokenStatistics {
    /// Windows there are.
    pub samples: usize,
    /// Tokens of a window's input.
    pub context: usize,
    /// Tokens that all windows cover, if the stride is the context.
    pub tokens: usize,
    /// Number of tokens that there can be.
    pub vocabulary: usize,
    /// How many of them occur.
    pub distinct: usize,
    /// The highest that occurs.
    pub highest: u32,
    /// The first tokens.
    pub first: Vec<u32>,
    /// The first tokens as text, where they are bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// Tokens that are shown.
const SHOWN: usize = 160;

/// Looks at all tokens that the windows of a source cover; nothing if its samples are no tokens.
///
/// # Errors
/// When a window cannot be read, or a token is not below the vocabulary.
pub fn token_statistics(source: &dyn Source) -> Result<Option<TokenStatistics>> {
    let spec = source.spec();
    let TargetSpec::Tokens { len: context, vocabulary, .. } = spec.target else {
        return Ok(None);
    };
    let (mut scratch, mut seen, mut first) = (Vec::new(), vec![false; vocabulary], Vec::new());
    for index in 0..source.len() {
        let sample = source.read(index, &mut scratch)?;
        let Target::Tokens(targets) = sample.target else { continue };
        let targets = targets.as_chunks().0.iter().map(|&token| u32::from_le_bytes(token));
        let head = match spec.input_dtype {
            DType::U16 => sample.input.first_chunk().map(|&b| u16::from_le_bytes(b).into()),
            _ => sample.input.first_chunk().map(|&b| u32::from_le_bytes(b)),
        };
        for token in head.into_iter().chain(targets) {
            let Some(seen) = seen.get_mut(token as usize) else {
                let item = source.origin(index).unwrap_or_else(|| source.info().name.clone());
                let message = format!("found token {token}, expected tokens below {vocabulary}");
                return Err(Error::data(item, message).hint("a larger --vocabulary"));
            };
            *seen = true;
            if index == 0 && first.len() < SHOWN {
                first.push(token);
            }
        }
    }
    let bytes: Option<Vec<u8>> = first.iter().map(|&token| u8::try_from(token).ok()).collect();
    let excerpt = bytes.filter(|_| vocabulary == 256);
    Ok(Some(TokenStatistics {
        samples: source.len(),
        context,
        tokens: source.len() * context + 1,
        vocabulary,
        distinct: seen.iter().filter(|&&seen| seen).count(),
        highest: seen.iter().rposition(|&seen| seen).unwrap_or(0) as u32,
        first,
        excerpt: excerpt.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }))
}

/// Files of tokens by their paths.
///
/// # Errors
/// As [`TokenFile::open`].
pub fn open_files(paths: &[PathBuf]) -> Result<Vec<TokenFile>> {
    paths.iter().map(|path| TokenFile::open(path)).collect()
}
