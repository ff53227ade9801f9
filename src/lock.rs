//! Files by which processes keep out of each other's way: one holds such a file, or several share it, until they let go
//! of it or end, however they do.
//!
//! Some file systems know no locks. Whoever asks there gets one that is not certain: work is possible all the same, but
//! nothing is removed on the strength of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Result;
use std::path::Path;
#[cfg(feature = "cloud")]
use std::time::SystemTime;
use std::time::{Duration, Instant};

/// The longest wait for what another process makes and this one needs, as a data set that is being fetched.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(600);

/// Between two tries to get a lock.
const PAUSE: Duration = Duration::from_millis(100);

/// A file that is locked until this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Closing it lets go of the lock.
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "only held"))]
    file: File,
    is_certain: bool,
}

impl Lock {
    /// Holds the file, which is made if needed; `None` while somebody else has it.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn hold(path: &Path) -> Result<Option<Self>> {
        Ok(Self::of(open(path)?, File::try_lock))
    }

    /// As [`Lock::hold`], where several may share it: `None` while somebody holds it alone.
    ///
    /// # Errors
    /// As for [`Lock::hold`].
    pub fn share(path: &Path) -> Result<Option<Self>> {
        Ok(Self::of(open(path)?, File::try_lock_shared))
    }

    /// As [`Lock::hold`], but waits for it: `None` when somebody else has it for all of [`WAIT_MAX`].
    ///
    /// # Errors
    /// As for [`Lock::hold`].
    pub fn wait(path: &Path) -> Result<Option<Self>> {
        Self::wait_for(path, WAIT_MAX)
    }

    fn wait_for(path: &Path, longest: Duration) -> Result<Option<Self>> {
        let began = Instant::now();
        loop {
            match Self::hold(path)? {
                None if began.elapsed() < longest => std::thread::sleep(PAUSE),
                lock => return Ok(lock),
            }
        }
    }

    /// Whether nobody else can have it.
    pub fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Lets the file's time say that it is in use now.
    ///
    /// # Errors
    /// When the file system refuses.
    #[cfg(feature = "cloud")]
    pub fn touch(&self) -> Result<()> {
        self.file.set_modified(SystemTime::now())
    }

    fn of(
        file: File,
        lock: impl Fn(&File) -> std::result::Result<(), TryLockError>,
    ) -> Option<Self> {
        match lock(&file) {
            Ok(()) => Some(Self { file, is_certain: true }),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Self { file, is_certain: false }),
        }
    }
}

/// Whether the file is there and nobody has it, for certain.
pub(crate) fn is_free(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_a_file_or_several_share_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("lock");
        assert!(!is_free(&path), "it is not there");
        let held = Lock::hold(&path).expect("opens").expect("nobody has it");
        assert!(held.is_certain() && !is_free(&path));
        assert!(Lock::hold(&path).expect("opens").is_none());
        assert!(Lock::share(&path).expect("opens").is_none());
        drop(held);
        assert!(is_free(&path));
        let shared = [Lock::share(&path), Lock::share(&path)]
            .map(|lock| lock.expect("opens").expect("they share it"));
        assert!(shared.iter().all(Lock::is_certain));
        assert!(Lock::hold(&path).expect("opens").is_none() && !is_free(&path));
        drop(shared);
        assert!(Lock::hold(&path).expect("opens").is_some());
        assert!(Lock::hold(dir.path()).is_err(), "a folder cannot be written");
    }

    #[test]
    fn a_lock_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("lock");
        let held = Lock::hold(&path).expect("opens").expect("nobody has it");
        assert!(Lock::wait_for(&path, Duration::ZERO).expect("opens").is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(PAUSE / 2);
                drop(held);
            });
            assert!(Lock::wait(&path).expect("opens").is_some());
        });
    }

    #[test]
    fn where_there_are_no_locks_everybody_gets_one_that_is_not_certain() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = open(&dir.path().join("lock")).expect("opens");
        let unsupported = |_: &File| {
            Err(TryLockError::Error(std::io::Error::from(std::io::ErrorKind::Unsupported)))
        };
        let lock = Lock::of(file, unsupported).expect("work is possible all the same");
        assert!(!lock.is_certain());
    }
}
