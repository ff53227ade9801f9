//! By what it shows, without reading them, that samples are others than they were: what is kept of them is then of no use,
//! and what was held out is no longer what is.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::{ENDLESS, Source};
use crate::source::blob::Stamp;
use crate::source::shard_manifest::hex;

/// Adds to a hash which samples a source has, in their order: where each lies, its class, and the stamps of the files that
/// they lie in. Where `path` is a folder, files below it are added without a stamp, since who calls this looks at all of
/// them. Their names are those from there on, so that it does not matter how the path is written.
pub(crate) fn add_samples(source: &dyn Source, path: &Path, add: &mut impl FnMut(&[u8])) {
    let len = source.len();
    add(&(len as u64).to_le_bytes());
    if len == ENDLESS {
        return;
    }
    let is_folder = path.is_dir();
    let folder = if is_folder { Some(path) } else { path.parent() };
    let mut last = None;
    for index in 0..len {
        add(&source.class(index).unwrap_or(u32::MAX).to_le_bytes());
        let Some((file, at)) = source.file_of(index) else {
            add(source.origin(index).unwrap_or_default().as_bytes());
            continue;
        };
        add(&at.to_le_bytes());
        // Of the many samples of one file, the first tells its name.
        if last.as_ref() == Some(&file) {
            continue;
        }
        let inside = folder.and_then(|folder| file.strip_prefix(folder).ok());
        let absolute = std::path::absolute(&file);
        let name = inside.or(absolute.as_deref().ok()).unwrap_or(&file);
        add(name.as_os_str().as_encoded_bytes());
        if !is_folder || inside.is_none() {
            // One that is gone has none, which is a change as well.
            let stamp = Stamp::look(&file).ok();
            add(&serde_json::to_vec(&stamp).expect("plain data are JSON"));
        }
        last = Some(file);
    }
}

/// SHA-256 over which samples a source has, in their order: of each its class, the name of its file and where it lies
/// there. Not over what is in them, nor over the folders, which may be moved. `None` of a stream.
pub fn fingerprint(source: &dyn Source) -> Option<String> {
    let mut hash = Sha256::new();
    for index in (source.len() != ENDLESS).then(|| 0..source.len())? {
        hash.update(source.class(index).unwrap_or(u32::MAX).to_le_bytes());
        if let Some((file, at)) = source.file_of(index) {
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            // No name holds this one.
            hash.update([0]);
            hash.update(at.to_le_bytes());
        }
    }
    Some(hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::folder::Folder;
    use crate::source::{DataConfig, Subset};
    use std::sync::Arc;

    /// All that is added for the samples of `source`.
    fn added(source: &dyn Source, path: &Path) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        add_samples(source, path, &mut |part: &[u8]| parts.push(part.to_vec()));
        parts
    }

    #[test]
    fn other_samples_of_the_same_files_are_told_apart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = dir.path().join("photos");
        std::fs::create_dir_all(root.join("a")).expect("a folder");
        for name in ["1.png", "2.png", "3.png"] {
            image::GrayImage::new(2, 2).save(root.join("a").join(name)).expect("writes");
        }
        let data = DataConfig::default();
        let folder = Folder::open(&root, &["a".into()], &data, "photos".into()).expect("opens");
        let folder: Arc<dyn Source> = Arc::new(folder);
        let rows = |rows: &[u32]| Subset::of_rows(folder.clone(), rows.into(), "s").expect("rows");
        let (first, other) = (rows(&[0, 1]), rows(&[0, 2]));
        assert_ne!(added(&first, &root), added(&other, &root));
        assert_eq!(added(&first, &root), added(&rows(&[0, 1]), &root));
        // A file elsewhere is known by its stamp, one below the path by its name.
        let elsewhere = dir.path().join("list.csv");
        let before = [&root, &elsewhere].map(|path| added(&first, path));
        let file = std::fs::File::options().write(true).open(root.join("a/2.png")).expect("opens");
        file.set_modified(std::time::UNIX_EPOCH).expect("a time");
        let after = [&root, &elsewhere].map(|path| added(&first, path));
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1], after[1]);
        // Which samples there are does not depend on where they lie and when they were written.
        let prints = [&first, &other].map(|rows| fingerprint(rows));
        assert!(prints[0].is_some() && prints[0] != prints[1], "{prints:?}");
        let moved = dir.path().join("moved");
        std::fs::rename(&root, &moved).expect("renames");
        let folder = Folder::open(&moved, &["a".into()], &data, "moved".into()).expect("opens");
        let first = Subset::of_rows(Arc::new(folder), vec![0, 1], "s").expect("rows");
        assert_eq!(fingerprint(&first), prints[0]);
    }
}
