//! Which objects there are, how long each is, and how it can be told whether one has changed.

use std::future::poll_fn;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::address::{Address, Target};
use super::download::{Attempts, REQUESTS_MAX};
use crate::error::{Error, Result};

/// Objects of one URL at most.
const OBJECTS_MAX: usize = 1_000_000;

/// An object as it is there.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    pub path: Path,
    /// Where it lies below what was asked for: `cat/7.jpg`.
    pub name: String,
    pub bytes: u64,
    /// What changes when it changes: its ETag, or where a server has none, its time of change.
    pub tag: String,
    /// Its ETag, to ask for it alone.
    pub e_tag: Option<String>,
}

/// The objects that an address means, in the order of their names.
pub(super) async fn list(address: &Address) -> Result<Vec<Object>> {
    let mut objects = match &address.target {
        Target::Files(paths) => heads(address, paths).await?,
        Target::Path(path) => object_or_folder(address, path).await?,
    };
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    // Some tools write an empty object for each folder.
    let folders: Vec<String> = objects
        .windows(2)
        .filter(|pair| {
            pair[0].bytes == 0 && pair[1].name.starts_with(&format!("{}/", pair[0].name))
        })
        .map(|pair| pair[0].name.clone())
        .collect();
    objects.retain(|object| !folders.contains(&object.name));
    Ok(objects)
}

/// Asks for each file, several at a time.
async fn heads(address: &Address, paths: &[Path]) -> Result<Vec<Object>> {
    let limit = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut heads = JoinSet::new();
    let folder = common_folder(paths);
    for path in paths {
        let path = path.clone();
        let name: Vec<String> =
            path.parts().skip(folder).map(|part| part.as_ref().to_owned()).collect();
        let (limit, store, url) = (limit.clone(), address.store.clone(), address.url(&path));
        heads.spawn(async move {
            let _place = limit.acquire_owned().await.expect("never closed");
            let mut attempts = Attempts::new(url);
            loop {
                match head(&*store, &path).await {
                    Ok(meta) => return object(meta, &name.join("/")),
                    Err(e) => attempts.failed(e).await?,
                }
            }
        });
    }
    let mut objects = Vec::with_capacity(paths.len());
    while let Some(head) = heads.join_next().await {
        objects.push(head.map_err(|e| Error::data(&address.base, "a task ended").caused_by(e))??);
    }
    Ok(objects)
}

/// Parts of the paths' folders that all have in common.
fn common_folder(paths: &[Path]) -> usize {
    let Some((first, others)) = paths.split_first() else { return 0 };
    let folder = first.parts_count().saturating_sub(1);
    let common = |other: &Path| {
        let shared = first.parts().zip(other.parts()).take_while(|(a, b)| a == b).count();
        shared.min(other.parts_count().saturating_sub(1))
    };
    others.iter().map(common).fold(folder, usize::min)
}

/// What a store says about an object.
async fn head(store: &dyn ObjectStore, path: &Path) -> Result<ObjectMeta, object_store::Error> {
    let options = GetOptions { head: true, ..Default::default() };
    store.get_opts(path, options).await.map(|answer| answer.meta)
}

/// The object of this path, or else those below it.
async fn object_or_folder(address: &Address, path: &Path) -> Result<Vec<Object>> {
    let mut attempts = Attempts::new(address.url(path));
    while !path.as_ref().is_empty() {
        match head(&*address.store, path).await {
            // An empty one may stand for a folder.
            Ok(meta) if meta.size > 0 => {
                return Ok(vec![object(meta, path.filename().unwrap_or("object"))?]);
            }
            Ok(_) | Err(object_store::Error::NotFound { .. }) => break,
            Err(e) => attempts.failed(e).await?,
        }
    }
    loop {
        match below(address, path).await? {
            Ok(objects) if objects.is_empty() => {
                let message = "found no object of this name, and none below it";
                return Err(Error::data(address.url(path), message));
            }
            Ok(objects) => return Ok(objects),
            Err(e) => attempts.failed(e).await?,
        }
    }
}

/// One attempt at a listing.
async fn below(address: &Address, path: &Path) -> Result<Result<Vec<Object>, object_store::Error>> {
    let prefix = (!path.as_ref().is_empty()).then_some(path);
    let mut stream = address.store.list(prefix);
    let mut objects = Vec::new();
    while let Some(meta) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        let meta = match meta {
            Ok(meta) => meta,
            Err(e) => return Ok(Err(e)),
        };
        let Some(parts) = meta.location.prefix_match(path) else { continue };
        let parts: Vec<String> = parts.map(|part| part.as_ref().to_owned()).collect();
        if parts.is_empty() {
            continue;
        }
        objects.push(object(meta, &parts.join("/"))?);
        if objects.len() > OBJECTS_MAX {
            let message = format!("found more than {OBJECTS_MAX} objects");
            return Err(Error::data(address.url(path), message).hint("shards of many samples each"));
        }
    }
    Ok(Ok(objects))
}

fn object(meta: ObjectMeta, name: &str) -> Result<Object> {
    let unsafe_part = |part: &str| {
        matches!(part, "" | "." | "..")
            || part.contains(['\\', '\0'])
            || (cfg!(windows) && part.contains(':'))
    };
    if name.split('/').any(unsafe_part) {
        return Err(Error::data(name, "is a name that no file here can have"));
    }
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    let ObjectMeta { location: path, size: bytes, e_tag, .. } = meta;
    Ok(Object { path, name: name.into(), bytes, tag, e_tag })
}
