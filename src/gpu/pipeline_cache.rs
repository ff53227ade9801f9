//! Compiled pipelines kept on disk, so that the next run need not compile them. Only where the backend
//! can (Vulkan); a cache that cannot be read or written is as good as none.
//!
//! The file is a checksum and what the driver gave. Drivers trust what they are given back, so nothing damaged is; and they
//! only ever add to it, so that one too large is begun anew.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::context::Context;

/// A larger file is not read: it is read and written back as a whole at every start.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What a file is called until it is whole begins so.
const UNFINISHED: &str = ".tmp";
/// An unfinished file that is older was left by a process that was killed: writing takes moments.
const UNFINISHED_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The driver's cache and the file it came from.
#[derive(Debug, Default)]
pub(super) struct PipelineCache {
    cache: Option<wgpu::PipelineCache>,
    file: Option<PathBuf>,
    /// What the file held.
    before: Vec<u8>,
}

impl PipelineCache {
    /// The cache of this device, filled from disk where there is something.
    pub(super) fn open(context: &Context) -> Self {
        if !context.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return Self::default();
        }
        let file = wgpu::util::pipeline_cache_key(&context.info)
            .and_then(|key| Some(folder()?.join(format!("{key}-{}", env!("CARGO_PKG_VERSION")))));
        let before = file.as_deref().and_then(load).unwrap_or_default();
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("inflight"),
            data: (!before.is_empty()).then_some(before.as_slice()),
            fallback: true,
        };
        // SAFETY: the data was written by `save` below under a name that holds the adapter's key and
        // our version, and its checksum is right; wgpu and the driver check its header besides. That
        // nobody else wrote to the user's cache folder cannot be known, as wgpu's documentation concedes.
        let made = context.scoped(|| unsafe { context.device.create_pipeline_cache(&descriptor) });
        Self { cache: made.ok(), file, before }
    }

    pub(super) fn get(&self) -> Option<&wgpu::PipelineCache> {
        self.cache.as_ref()
    }

    /// Writes the cache back if it has grown; that it cannot be written is no reason to fail.
    pub(super) fn save(&self) {
        let (Some(cache), Some(file)) = (&self.cache, &self.file) else { return };
        if let Some(data) = cache.get_data().filter(|data| *data != self.before) {
            let _unwritten = write_atomically(file, &with_checksum(&data));
        }
    }
}

fn with_checksum(data: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(data).to_le_bytes(), data].concat()
}

/// What a file holds after its checksum; nothing if it is too large, damaged, or cannot be read.
fn load(file: &Path) -> Option<Vec<u8>> {
    if std::fs::metadata(file).ok()?.len() > FILE_BYTES_MAX {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    let (checksum, data) = bytes.split_first_chunk()?;
    (*checksum == crc32fast::hash(data).to_le_bytes()).then(|| data.to_vec())
}

/// Where caches go: `$XDG_CACHE_HOME/inflight`, else `~/.cache/inflight`.
pub(super) fn folder() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    base.map(|base| base.join("inflight"))
}

pub(super) fn write_atomically(file: &Path, data: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    sweep(folder);
    let mut temporary = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    temporary.write_all(data)?;
    temporary.persist(file)?;
    Ok(())
}

/// Removes unfinished files that nobody is at work on any more; that one stays is no reason to fail.
fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|it| it.modified()).map(|time| time.elapsed());
        let is_old = matches!(age, Ok(Ok(age)) if age > UNFINISHED_AGE_MAX);
        if is_old && entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _left = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("inflight").join("cache");
        write_atomically(&file, b"old and longer").unwrap();
        write_atomically(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_damaged_or_too_large_is_not_handed_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cache");
        let whole = with_checksum(b"pipelines");
        std::fs::write(&file, &whole).unwrap();
        assert_eq!(load(&file).as_deref(), Some(&b"pipelines"[..]));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&file, flipped).unwrap();
            assert_eq!(load(&file), None, "byte {at}");
            // One that was cut off, down to less than a checksum.
            std::fs::write(&file, &whole[..at]).unwrap();
            assert_eq!(load(&file), None, "{at} bytes");
        }
        // Sound but for its size; what is not written of it reads as zeros.
        let zeros = vec![0; FILE_BYTES_MAX as usize + 1 - 4];
        std::fs::write(&file, &with_checksum(&zeros)[..4]).unwrap();
        let opened = std::fs::File::options().write(true).open(&file).unwrap();
        opened.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert_eq!(load(&file), None);
        assert_eq!(load(&folder.path().join("none")), None);
    }

    #[test]
    fn files_of_killed_processes_go_and_those_of_others_at_work_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new, other] =
            [".tmpOLD", ".tmpNEW", "other"].map(|name| folder.path().join(name));
        for path in [&old, &new, &other] {
            std::fs::write(path, b"half").unwrap();
        }
        let long_ago = std::time::SystemTime::now() - 2 * UNFINISHED_AGE_MAX;
        for path in [&old, &other] {
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_modified(long_ago)
                .unwrap();
        }
        write_atomically(&folder.path().join("cache"), b"whole").unwrap();
        assert_eq!([old, new, other].map(|path| path.exists()), [false, true, true]);
    }
}
