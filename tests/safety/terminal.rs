//! The dashboard on a terminal of its own: given back in a panic, at Ctrl-C, and a run whose terminal goes away.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Desk;

/// What the dashboard sends to take a terminal over, and to give it back.
const ENTER: &str = "\u{1b}[?1049h";
const LEAVE: &str = "\u{1b}[?1049l";
const SHOW_CURSOR: &str = "\u{1b}[?25h";

/// For what is not expected to take that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal, of which a program has one end.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
    seen: Arc<Mutex<String>>,
    /// Whether whoever looks at it is to go away, and with it the last copy of our end.
    gone: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    fn open() -> Self {
        let size = libc::winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let (mut ours, mut theirs) = (0, 0);
        // SAFETY: the pointers are to locals, or null where that is allowed.
        let opened = unsafe {
            libc::openpty(&mut ours, &mut theirs, std::ptr::null_mut(), std::ptr::null(), &size)
        };
        assert_eq!(opened, 0, "a terminal");
        for fd in [ours, theirs] {
            // SAFETY: the descriptor was just opened. Programs must not inherit it but by being given it.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: both were just opened, and belong to nobody else.
        let (ours, theirs) = unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        let seen = Arc::new(Mutex::new(String::new()));
        let gone = Arc::new(AtomicBool::new(false));
        let (mut reading, into) = (ours.try_clone().expect("a copy"), seen.clone());
        let leaving = gone.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !leaving.load(Ordering::Relaxed) {
                let mut asked =
                    libc::pollfd { fd: reading.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one descriptor that is open, and a pointer to a local.
                if unsafe { libc::poll(&mut asked, 1, 5) } == 0 {
                    continue;
                }
                // It ends with an error when the other end is closed.
                let Ok(len @ 1..) = reading.read(&mut bytes) else { return };
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
        });
        Self { ours, theirs, seen, gone, reader: Some(reader) }
    }

    /// The program's end.
    fn end(&self) -> Stdio {
        self.theirs.try_clone().expect("a copy").into()
    }

    /// Starts a program on this terminal.
    fn show(&self, mut command: Command, stdin: Stdio) -> Child {
        command.stdin(stdin).stdout(self.end()).stderr(self.end()).spawn().expect("starts")
    }

    /// Starts a program whose terminal this is, in a session of its own, so that it is told when the terminal goes.
    fn start(&self, mut command: Command, stdin: Stdio) -> Child {
        let take = || {
            // SAFETY: both calls only concern the process that is about to run the program.
            let taken = unsafe { libc::setsid() != -1 && libc::ioctl(2, libc::TIOCSCTTY, 0) != -1 };
            if taken { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: what runs between fork and exec is two system calls that may be made there.
        unsafe { command.pre_exec(take) };
        self.show(command, stdin)
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        let began = Instant::now();
        while !self.seen().contains(text) {
            assert!(began.elapsed() < PATIENCE, "{text:?} does not come: {:?}", self.seen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether lines are edited and echoed, as a shell wants it.
    fn is_cooked(&self) -> bool {
        // SAFETY: plain numbers, all of which may be zero.
        let mut state: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and the pointer is to a local.
        let got = unsafe { libc::tcgetattr(self.theirs.as_raw_fd(), &mut state) };
        assert_eq!(got, 0, "a terminal");
        state.c_lflag & (libc::ICANON | libc::ECHO) == libc::ICANON | libc::ECHO
    }

    /// Waits until a step was drawn: only then is there an accuracy.
    #[track_caller]
    fn wait_for_a_step(&self) {
        self.wait_for(ENTER);
        self.wait_for("accuracy");
    }

    /// Goes away: with the last copy of our end the system hangs up.
    fn leave(self) {
        let Self { ours, theirs, gone, reader, .. } = self;
        gone.store(true, Ordering::Relaxed);
        reader.map(JoinHandle::join);
        drop((ours, theirs));
    }

    /// All that was written, once the program has ended.
    fn close(self) -> String {
        let Self { ours, theirs, seen, reader, .. } = self;
        drop(theirs);
        reader.map(JoinHandle::join);
        drop(ours);
        let seen = seen.lock().unwrap();
        seen.clone()
    }
}

/// The code that a program ended with; one that does not end is ended, and fails the test.
#[track_caller]
fn ended(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code();
        }
        if began.elapsed() > PATIENCE {
            child.kill().expect("a child");
            panic!("the program does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Checks that the terminal was taken over and given back, and returns what was written afterwards.
#[track_caller]
fn after_leaving(terminal: Terminal) -> String {
    assert!(terminal.is_cooked(), "the terminal is left raw");
    let seen = terminal.close();
    let (entered, left) = (seen.find(ENTER), seen.rfind(LEAVE));
    assert!(entered.is_some() && entered < left, "{seen:?}");
    let after = seen[left.unwrap_or(0)..].to_owned();
    assert!(after.contains(SHOW_CURSOR), "{after:?}");
    after
}

const RUN: &str = "train run.toml --no-shuffle --tui --no-eval";

#[cfg(feature = "faults")]
#[test]
fn a_panic_gives_the_terminal_back() {
    let desk = Desk::new();
    let terminal = Terminal::open();
    let mut command = desk.command(&format!("{RUN} --out out --steps 100"));
    // The last sample of an epoch is prepared when the dashboard is there: only some batches are before that.
    command.env("INFLIGHT_FAULTS", "panic@95");
    let mut child = terminal.start(command, terminal.end());
    let code = ended(&mut child);
    let after = after_leaving(terminal);
    assert!(matches!(code, Some(2..=6)), "{code:?}");
    assert!(after.contains("error: ") && after.contains("sample 95"), "{after:?}");
}

#[track_caller]
fn ctrl_c_ends_the_run(stdin: impl FnOnce(&Terminal) -> Stdio) {
    let desk = Desk::new();
    let terminal = Terminal::open();
    let command = desk.command(&format!("{RUN} --out out --steps 1000000"));
    let mut child = terminal.start(command, stdin(&terminal));
    terminal.wait_for_a_step();
    (&terminal.ours).write_all(b"\x03").expect("typed");
    let code = ended(&mut child);
    let after = after_leaving(terminal);
    assert_eq!(code, Some(75), "{after}");
    desk.run("checkpoint verify out", "", 0);
}

#[test]
fn ctrl_c_saves_and_gives_the_terminal_back() {
    ctrl_c_ends_the_run(Terminal::end);
}

#[test]
fn ctrl_c_is_heard_where_standard_input_is_no_terminal() {
    ctrl_c_ends_the_run(|_| Stdio::null());
}

#[test]
fn a_terminal_that_goes_away_ends_the_run_with_75_and_a_checkpoint() {
    let desk = Desk::new();
    let terminal = Terminal::open();
    let command = desk.command(&format!("{RUN} --out out --steps 1000000"));
    let mut child = terminal.start(command, terminal.end());
    terminal.wait_for_a_step();
    terminal.leave();
    assert_eq!(ended(&mut child), Some(75));
    let steps = desk.checkpoints("out");
    let steps = steps.iter().filter_map(|name| name.strip_prefix("step-")?.parse::<u64>().ok());
    let step = steps.max().expect("a checkpoint");
    let resumed = desk.run(&format!("train --resume out --steps {} --json", step + 5), "", 0);
    let whole = format!("--steps {} --no-eval --no-shuffle", step + 5);
    assert_eq!(resumed.hash(), desk.train("whole", &whole, "", 0).hash());
}

#[test]
fn a_terminal_that_goes_away_unnoticed_does_not_hold_the_run_up() {
    let desk = Desk::new();
    let terminal = Terminal::open();
    let command = desk.command(&format!("{RUN} --out out --steps 5000"));
    let mut child = terminal.show(command, terminal.end());
    terminal.wait_for_a_step();
    terminal.leave();
    // Keys are looked for all the time, and there is nobody left to press one.
    assert_eq!(ended(&mut child), Some(0));
}
