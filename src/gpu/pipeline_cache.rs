//! Compiled pipelines kept on disk, so that the next run need not compile them. Only where the backend
//! can (Vulkan); a cache that cannot be read or written is as good as none.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::context::Context;

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
        let before = file.as_ref().and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("inflight"),
            data: (!before.is_empty()).then_some(before.as_slice()),
            fallback: true,
        };
        // SAFETY: the data was written by `save` below under a name that holds the adapter's key and
        // our version; wgpu and the driver check its header besides. That nobody else wrote to the
        // user's cache folder cannot be known, as wgpu's documentation concedes.
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
            let _unwritten = write_atomically(file, &data);
        }
    }
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
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(data)?;
    temporary.persist(file)?;
    Ok(())
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
}
