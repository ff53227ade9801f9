//! What ends a training before its time: signals, Ctrl-C, and nobody reading its events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inflight::train::Commands;
use inflight::{Error, Result};

use super::print;

/// Exit code of a second Ctrl-C, as shells report a program ended by it.
const INTERRUPTED: i32 = 130;

/// The first signal ends the run after the steps in flight and a checkpoint, the second one at once.
#[derive(Clone, Default)]
pub struct Interrupt {
    /// Of the trainer at work.
    commands: Arc<Mutex<Option<Commands>>>,
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// As a signal does, or Ctrl-C where it is none.
    pub fn press(&self) {
        if self.asked.swap(true, Ordering::SeqCst) {
            #[cfg(feature = "tui")]
            super::screen::restore();
            std::process::exit(INTERRUPTED);
        }
        print::note("stopping after the step under way; again to stop at once");
        self.stop();
    }

    /// From now on it is this trainer that a signal ends; at once, if one came before.
    pub fn steer(&self, commands: Commands) {
        *self.commands() = Some(commands);
        if self.was_pressed() {
            self.stop();
        }
    }

    /// As a first signal does, where nobody hears any more what the run tells.
    fn leave(&self, cause: &std::io::Error) {
        if !self.asked.swap(true, Ordering::SeqCst) && self.stop() {
            print::note(format!("stdout: {cause}: stopping after the step under way"));
        }
    }

    /// Whether there is a run to stop.
    fn stop(&self) -> bool {
        self.commands().as_ref().is_some_and(Commands::stop)
    }

    /// Whether it is to end.
    pub fn was_pressed(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn commands(&self) -> MutexGuard<'_, Option<Commands>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has signals end the run, and a pipe or file that takes its events no longer.
    pub fn listen(&self) -> Result<()> {
        let interrupt = self.clone();
        print::outlive_stdout(move |cause| interrupt.leave(cause));
        let interrupt = self.clone();
        let is_nohup = hangup_is_ignored();
        ctrlc::set_handler(move || interrupt.press()).map_err(|e| {
            Error::config("signals", "the handler of Ctrl-C cannot be installed").caused_by(e)
        })?;
        if is_nohup {
            ignore_hangup();
        }
        Ok(())
    }
}

/// Whether this program was started to outlive its terminal, as `nohup` does.
fn hangup_is_ignored() -> bool {
    #[cfg(unix)]
    {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action the call only writes the one there is, for which there is room.
        let status =
            unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeros are such an action, and so is what the call wrote.
        status == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
    }
    #[cfg(not(unix))]
    false
}

fn ignore_hangup() {
    #[cfg(unix)]
    // SAFETY: no handler is installed.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}
