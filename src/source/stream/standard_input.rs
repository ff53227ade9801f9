//! Standard input as a reader that can be told to stop.

use std::fs::File;
use std::io::{Error, Read, Result};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::store::Store;

/// How long a read waits before it looks whether anybody still wants it, in milliseconds.
#[cfg(unix)]
const PATIENCE_MS: i32 = 50;

/// The store whose closing ends the wait for bytes.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<Mutex<Weak<Store>>>);

impl Stop {
    /// Stops reading when this store is closed or gone.
    pub fn watch(&self, store: &Arc<Store>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(store);
    }

    fn is_asked(&self) -> bool {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        store.is_some_and(|store| store.is_closed())
    }
}

/// A file that is waited for in pieces.
pub(super) struct Patient {
    file: File,
    stop: Stop,
}

/// Standard input; past the buffer of the standard library, which nothing else here uses.
pub(super) fn reader() -> crate::Result<(Patient, Stop)> {
    let cannot = |e| crate::Error::data("standard input", "cannot be opened").caused_by(e);
    let file = duplicate().map_err(cannot)?;
    let stop = Stop::default();
    Ok((Patient { file, stop: stop.clone() }, stop))
}

#[cfg(unix)]
fn duplicate() -> Result<File> {
    use std::os::fd::AsFd;
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn duplicate() -> Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(std::io::stdin().as_handle().try_clone_to_owned()?.into())
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            if self.stop.is_asked() {
                return Err(Error::other("nobody reads any more"));
            }
            if is_ready(&self.file)? {
                return self.file.read(into);
            }
        }
    }
}

/// Whether a read would return at once; waits a little for it.
#[cfg(unix)]
fn is_ready(file: &File) -> Result<bool> {
    use std::os::fd::AsRawFd;
    let mut asked = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call, of a descriptor that `file` keeps open.
    let ready = unsafe { libc::poll(&mut asked, 1, PATIENCE_MS) };
    match ready {
        0 => Ok(false),
        1.. => Ok(true),
        _ => {
            let error = Error::last_os_error();
            if error.kind() == std::io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
        }
    }
}

#[cfg(not(unix))]
fn is_ready(_file: &File) -> Result<bool> {
    Ok(true)
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::source::{DataConfig, Source, Stream};

    #[test]
    fn a_silent_stream_ends_when_it_is_dropped() {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let stop = Stop::default();
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        let patient = Patient { file, stop: stop.clone() };
        let data = DataConfig { classes: Some(2), ..Default::default() };
        writer.write_all(b"{\"input\": [1], \"label\": 0}\n").expect("room");
        let stream = Stream::new("pipe", patient, &data, 0).expect("a first line");
        stop.watch(&stream.store);
        assert!(stream.reaches(&[0]));
        std::thread::scope(|scope| {
            // The writer stays open and silent: only closing ends this wait.
            let waits = scope.spawn(|| stream.reaches(&[1]));
            stream.close();
            assert!(!waits.join().expect("no panic"));
        });
        drop(stream);
        drop(writer);
    }
}
