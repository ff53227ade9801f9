//! The terminal while a dashboard has it: taken over, drawn on, and given back whatever happens.

use std::io::{IsTerminal, Stderr, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, terminal};
use inflight::{Error, Result};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

/// Time at least between two looks at the keys, each with a drawing.
const REFRESH: Duration = Duration::from_millis(100);
/// How long a look for keys may take when there are none; with no time at all it finds none that are there.
const LOOK: Duration = Duration::from_millis(1);

/// Whether the terminal is taken over.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal, taken over until this is dropped.
pub struct Screen {
    /// There until this is dropped.
    terminal: Option<Terminal<CrosstermBackend<Stderr>>>,
    drawn: Option<Instant>,
}

impl Screen {
    /// Takes the terminal over; none where stderr is none.
    pub fn take() -> Result<Option<Self>> {
        if !stderr().is_terminal() {
            return Ok(None);
        }
        let failed = |e| Error::config("--tui", "the terminal cannot be drawn on").caused_by(e);
        // A panic is told on the terminal as it was before.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                before(info);
            }));
        });
        terminal::enable_raw_mode().map_err(failed)?;
        TAKEN.store(true, Ordering::SeqCst);
        let entered = execute!(stderr(), terminal::EnterAlternateScreen, cursor::Hide);
        let terminal = entered.and_then(|()| Terminal::new(CrosstermBackend::new(stderr())));
        match terminal {
            Ok(terminal) => Ok(Some(Self { terminal: Some(terminal), drawn: None })),
            Err(error) => {
                restore();
                Err(failed(error))
            }
        }
    }

    /// Whether it is long enough ago that the terminal was looked at.
    pub fn is_due(&self) -> bool {
        self.drawn.is_none_or(|drawn| drawn.elapsed() >= REFRESH)
    }

    /// Draws. Whoever closed the terminal does not want to see it.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) {
        self.drawn = Some(Instant::now());
        let _ = self.terminal.as_mut().map(|terminal| terminal.draw(draw));
    }

    /// Whether Ctrl-C was pressed, which a terminal in this state does not turn into a signal. A terminal that is
    /// gone, also while it is looked at, has no keys.
    pub fn interrupted(&self) -> bool {
        let mut interrupted = false;
        while event::poll(LOOK).unwrap_or(false) {
            let Ok(event) = event::read() else { break };
            let Event::Key(key) = event else { continue };
            interrupted |= key.kind == KeyEventKind::Press
                && key.code == KeyCode::Char('c')
                && key.modifiers.contains(KeyModifiers::CONTROL);
        }
        interrupted
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let terminal = self.terminal.take();
        if !stderr().is_terminal() {
            // Dropped without a terminal it would print an error, and panic over that.
            std::mem::forget(terminal);
        }
        restore();
    }
}

/// Gives the terminal back, if it is taken over; may be called at any moment.
pub fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = terminal::disable_raw_mode();
        let _ = execute!(stderr(), terminal::LeaveAlternateScreen, cursor::Show);
    }
}
