//! Text as it lies in files, and its tokens kept from one run to the next.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::Tokenizer;
use super::shards::{self, MANIFEST, Shard, ShardOptions, TokenManifest};
use crate::error::{Error, Result, Stage};
use crate::kept::{self, Unfinished};
use crate::lock::Lock;
use crate::source::shard_manifest::hex;

/// A document: a file or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The file.
    pub path: PathBuf,
    /// Bytes before it.
    pub skip: u64,
    /// Its bytes; without it all that follow.
    pub take: Option<u64>,
}

impl Text {
    /// All of a file.
    pub fn whole(path: &Path) -> Self {
        Self { path: path.into(), skip: 0, take: None }
    }

    /// How many bytes it has.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn bytes(&self) -> Result<u64> {
        let len = std::fs::metadata(&self.path).map_err(|e| io_error(&self.path, e))?.len();
        Ok(len.saturating_sub(self.skip).min(self.take.unwrap_or(u64::MAX)))
    }

    /// Its content.
    ///
    /// # Errors
    /// When it cannot be read or is no UTF-8.
    pub fn read(&self) -> Result<String> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.skip))?;
            let mut bytes = Vec::new();
            file.take(self.take.unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|e| io_error(&self.path, e))?;
        String::from_utf8(bytes).map_err(|e| {
            let within = e.utf8_error().valid_up_to();
            let (byte, at) = (e.as_bytes()[within], self.skip + within as u64);
            let message = format!("found byte {byte:#04x} at {at}, expected UTF-8");
            Error::data(self.path.display(), message)
                .hint("iconv -t UTF-8, or --tokenizer bytes for training on it as it is")
        })
    }
}

pub(super) fn io_error(path: &Path, error: std::io::Error) -> Error {
    Error::data(path.display(), "cannot be read or written").caused_by(error)
}

/// Bytes that the tokens of all texts together may take where they are kept.
pub const KEPT_BYTES: u64 = 4 << 30;

/// In a folder of tokens: held, shared, by whoever uses them.
const LOCK: &str = "lock";

/// Shards that nobody removes for as long as this is there.
#[derive(Debug)]
pub struct KeptShards {
    /// The files.
    pub files: Vec<PathBuf>,
    /// None where nothing can be written, so that they are read as they are.
    pub(crate) in_use: Option<Arc<Lock>>,
}

/// The shards of `texts`, which lie below `root` in a folder of their own: made now, or by an earlier call with the same
/// texts and tokenizer. They are the same as [`shards::write`] makes of the same texts, and as little is in memory at once.
/// Before new ones are made, those of other texts are removed that were used the longest ago, until they take no more than
/// `bytes_max`; those in use stay.
///
/// # Errors
/// When a text cannot be read or is no UTF-8, or the folder cannot be written.
pub fn kept_shards(
    texts: &[Text],
    tokenizer: &Tokenizer,
    root: &Path,
    bytes_max: u64,
) -> Result<KeptShards> {
    let dir = root.join(key(texts, tokenizer)?);
    let in_use = match find(root, &dir) {
        Some(in_use) => in_use,
        None => make(texts, tokenizer, root, &dir, bytes_max)?,
    };
    let manifest = dir.join(MANIFEST);
    // When it was used last is a matter of tidiness alone.
    let _ = File::options()
        .append(true)
        .open(&manifest)
        .and_then(|f| f.set_modified(SystemTime::now()));
    let files = whole(&dir)?.into_iter().map(|shard| dir.join(shard.file)).collect();
    Ok(KeptShards { files, in_use: in_use.map(Arc::new) })
}

/// The shards in `dir`, each with all of its tokens.
fn whole(dir: &Path) -> Result<Vec<Shard>> {
    let path = dir.join(MANIFEST);
    let json = std::fs::read(&path).map_err(|e| io_error(&path, e))?;
    let manifest: TokenManifest = serde_json::from_slice(&json)
        .map_err(|e| Error::data(path.display(), "is damaged").caused_by(e))?;
    let mut shards = manifest.shards.iter();
    let checked = shards.try_for_each(|shard| shard.check(dir));
    checked.map(|()| manifest.shards).map_err(|e| e.hint("removing its folder"))
}

/// Finds the tokens in `dir`, all of them, and keeps them from being removed.
fn find(root: &Path, dir: &Path) -> Option<Option<Lock>> {
    // Where nothing is, nothing is to be made for looking.
    dir.join(MANIFEST).is_file().then_some(())?;
    let _order = kept::order(root);
    whole(dir).is_ok().then(|| hold(dir))
}

/// Makes tokens in `dir`, and keeps them from being removed.
fn make(
    texts: &[Text],
    tokenizer: &Tokenizer,
    root: &Path,
    dir: &Path,
    bytes_max: u64,
) -> Result<Option<Lock>> {
    let used = |dir: &Path| std::fs::metadata(dir.join(MANIFEST)).ok()?.modified().ok();
    // Folders of earlier versions have no such file until somebody asks for it.
    let is_free = |lock: Lock| lock.is_certain();
    let free = |dir: &Path| Lock::hold(&dir.join(LOCK)).is_ok_and(|lock| lock.is_some_and(is_free));
    if dir.exists() {
        // Tokens that are only partly there make room for all of them, unless somebody has them open.
        let partly = |other: &Path| other == dir && whole(other).is_err();
        kept::remove_oldest(root, 0, |dir| partly(dir).then_some(SystemTime::UNIX_EPOCH), free);
    }
    if dir.exists() {
        // In use as they are, or made by another process meanwhile.
        whole(dir)?;
    }
    kept::remove_oldest(root, bytes_max, used, free);
    let new = Unfinished::begin(dir)
        .map_err(|e| e.at(Stage::Source).hint("INFLIGHT_DATA set to a folder with space"))?;
    shards::fill(texts, tokenizer, None, new.path(), ShardOptions::default())?;
    match new.finish() {
        Ok(_order) => Ok(hold(dir)),
        // Another process was faster.
        Err(e) => find(root, dir).ok_or_else(|| io_error(dir, e)),
    }
}

/// Says that a folder is in use, while folders are kept in order so that nobody removes it meanwhile.
fn hold(dir: &Path) -> Option<Lock> {
    Lock::share(&dir.join(LOCK)).ok().flatten()
}

/// A name for the tokens of texts: they change with the files' paths, lengths and times, and with the tokenizer.
fn key(texts: &[Text], tokenizer: &Tokenizer) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update("tokens 1");
    hash.update(Sha256::digest(tokenizer.identity()?));
    for text in texts {
        let path = std::path::absolute(&text.path).map_err(|e| io_error(&text.path, e))?;
        let metadata = std::fs::metadata(&path).map_err(|e| io_error(&path, e))?;
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = modified.unwrap_or_default();
        let path = path.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        let numbers = [
            text.skip,
            text.take.unwrap_or(u64::MAX),
            metadata.len(),
            modified.as_secs(),
            u64::from(modified.subsec_nanos()),
        ];
        numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
    }
    Ok(hex(&hash.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_use_stay() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().join("tokens");
        let tokenizer = Tokenizer::open("bytes").expect("is known");
        let made = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, name.repeat(5_000)).expect("writes");
            kept_shards(&[Text::whole(&path)], &tokenizer, &root, 0).expect("tokens")
        };
        let is_there = |shards: &KeptShards| shards.files.iter().all(|file| file.is_file());
        // The tokens of a data set's training part, then those of the part that it is validated with.
        let [train, held] = ["train", "held"].map(made);
        assert!(is_there(&train) && is_there(&held));
        // Found again, they are in use as those that were made.
        let text = [Text::whole(&dir.path().join("train"))];
        let again = kept_shards(&text, &tokenizer, &root, 0).expect("tokens");
        assert_eq!(again.files, train.files);
        drop((train, held));
        let other = made("other");
        assert!(is_there(&again) && is_there(&other));
        // A folder of an earlier version has no file that could be held, and nobody uses it.
        let folder = |shards: &KeptShards| shards.files[0].parent().map(Path::to_path_buf);
        let [again, other] = [again, other].map(|shards| folder(&shards).expect("a folder"));
        std::fs::remove_file(other.join(LOCK)).expect("is there");
        let last = made("last");
        assert!(is_there(&last) && !again.exists() && !other.exists());
    }

    #[test]
    fn tokens_that_are_only_partly_there_are_made_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (root, path) = (dir.path().join("tokens"), dir.path().join("text"));
        let tokenizer = Tokenizer::open("bytes").expect("is known");
        std::fs::write(&path, "text ".repeat(100)).expect("writes");
        let kept = || kept_shards(&[Text::whole(&path)], &tokenizer, &root, KEPT_BYTES);
        let in_use = kept().expect("tokens");
        let shard = in_use.files[0].clone();
        let whole = std::fs::read(&shard).expect("reads");
        std::fs::write(&shard, &whole[..whole.len() - 2]).expect("writes");
        // Nobody takes them from under somebody's feet.
        let error = kept().expect_err("they are in use").to_string();
        let expected = "found 499 tokens, expected the 500 that manifest.json says";
        assert!(error.contains(&shard.display().to_string()), "{error}");
        assert!(error.contains(expected), "{error}");
        drop(in_use);
        let again = || {
            assert_eq!(kept().expect("tokens").files, std::slice::from_ref(&shard));
            assert!(std::fs::read(&shard).expect("is there") == whole);
        };
        again();
        std::fs::remove_file(&shard).expect("removes");
        again();
        std::fs::write(shard.with_file_name(MANIFEST), "{").expect("writes");
        again();
    }

    #[test]
    fn tokens_used_the_longest_ago_make_room() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().join("tokens");
        let tokenizer = Tokenizer::open("bytes").expect("is known");
        let made = |name: &str, bytes_max| {
            let path = dir.path().join(name);
            if !path.exists() {
                std::fs::write(&path, name.repeat(5_000)).expect("writes");
            }
            let shards = kept_shards(&[Text::whole(&path)], &tokenizer, &root, bytes_max);
            shards.expect("tokens").files.remove(0)
        };
        // Folders of other things are left alone.
        std::fs::create_dir_all(root.join("mine")).expect("writes");
        std::fs::write(root.join("mine/file"), [0; 50_000]).expect("writes");
        let [a, b, c] = ["aa", "bb", "cc"].map(|name| {
            let shard = made(name, 100_000);
            std::thread::sleep(std::time::Duration::from_millis(20));
            shard
        });
        assert!([&a, &b, &c].iter().all(|shard| shard.is_file()));
        // Used again, the first is the newest; of what there is, two have room.
        assert_eq!(made("aa", 100_000), a);
        let d = made("dd", 45_000);
        assert_eq!([&a, &b, &c, &d].map(|shard| shard.is_file()), [true, false, true, true]);
        assert!(root.join("mine/file").is_file());
        // What a killed process had begun goes, what another one is at stays.
        let (left, begun) = (root.join("left.tmp-1"), Unfinished::begin(&root.join("ff")));
        std::fs::create_dir(&left).expect("a folder");
        std::fs::write(left.join(".making"), "").expect("writes");
        std::fs::write(left.join("train-00000.bin"), [0; 100]).expect("writes");
        assert_eq!(made("bb", 0), b);
        assert_eq!([&a, &b, &c, &d].map(|shard| shard.is_file()), [false, true, false, false]);
        let begun = begun.expect("begins");
        assert_eq!([left.exists(), begun.path().exists()], [false, true]);
        // So does a folder that nobody had got as far as holding.
        let bare = root.join(".gg.tmp-2");
        std::fs::create_dir(&bare).expect("a folder");
        assert_eq!(made("aa", 0), a);
        assert!(!bare.exists() && begun.path().exists());
        begun.finish().expect("ends");
        assert!(root.join("ff").read_dir().expect("is there").next().is_none());
    }
}
