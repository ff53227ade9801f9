//! How a training is shown while it goes on: as a bar with lines, as a dashboard, or as lines of JSON.

use inflight::Result;
use inflight::train::event::Event;

#[cfg(feature = "tui")]
use super::dashboard::Dashboard;
use super::interrupt::Interrupt;
use super::print;
use super::progress::TrainProgress;
#[cfg(feature = "tui")]
use super::screen::Screen;

/// What is shown of a run.
pub struct Shown {
    /// Steps of the whole run, and those done before.
    pub steps: u64,
    pub done: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Whether stdout holds events, so that nothing else is to be seen of them.
    pub json: bool,
    /// The name of the run for a dashboard, where one is wanted.
    pub dashboard: Option<String>,
}

/// A run being shown.
pub enum View {
    /// A bar on a terminal, and a line an epoch.
    Bar(TrainProgress),
    /// A line of JSON for every epoch and checkpoint.
    Log,
    /// A dashboard.
    #[cfg(feature = "tui")]
    Dashboard(Box<Dashboard>, Screen),
}

impl View {
    /// The view that fits. A dashboard needs a terminal; without one there are lines.
    pub fn new(shown: Shown) -> Result<Self> {
        let Shown { steps, done, epochs, json, dashboard } = shown;
        if print::logs_json() {
            return Ok(Self::Log);
        }
        #[cfg(feature = "tui")]
        if let Some(title) = dashboard {
            if let Some(screen) = Screen::take()? {
                print::capture();
                let dashboard = Dashboard::new(title, steps, done, epochs);
                return Ok(Self::Dashboard(Box::new(dashboard), screen));
            }
            print::note("--tui: stderr is no terminal, so there are lines");
        }
        #[cfg(not(feature = "tui"))]
        drop(dashboard);
        Ok(Self::Bar(TrainProgress::new(steps, done, epochs, json)))
    }

    /// Something happened.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        match self {
            Self::Bar(progress) => match event {
                Event::Step(report) => progress.step(report),
                Event::Epoch(report) => progress.epoch(report),
                Event::Checkpoint(_) | Event::Pulse(_) | Event::Done(_) => {}
            },
            Self::Log => match event {
                Event::Epoch(_) | Event::Checkpoint(_) | Event::Done(_) => print::log(event)?,
                Event::Step(_) | Event::Pulse(_) => {}
            },
            #[cfg(feature = "tui")]
            Self::Dashboard(dashboard, _) => {
                dashboard.event(event);
                if let Event::Epoch(report) = event {
                    print::note(dashboard.epoch_line(report));
                }
            }
        }
        Ok(())
    }

    /// A line that stays.
    pub fn line(&self, line: String) {
        match self {
            Self::Bar(progress) => progress.line(line),
            Self::Log => print::note(line),
            #[cfg(feature = "tui")]
            Self::Dashboard(..) => print::note(line),
        }
    }

    /// Between two events, and after each: looks for keys, and draws.
    pub fn tick(&mut self, interrupt: &Interrupt) {
        match self {
            // A signal comes to the program by itself.
            Self::Bar(_) | Self::Log => _ = interrupt,
            #[cfg(feature = "tui")]
            Self::Dashboard(dashboard, screen) => {
                if !screen.is_due() {
                    return;
                }
                if screen.interrupted() {
                    interrupt.press();
                }
                print::captured().into_iter().for_each(|line| dashboard.line(line));
                screen.draw(|frame| dashboard.draw(frame));
            }
        }
    }

    /// Takes the view away; what it said stays.
    pub fn finish(self) {
        match self {
            Self::Bar(progress) => progress.finish(),
            Self::Log => {}
            #[cfg(feature = "tui")]
            Self::Dashboard(dashboard, screen) => {
                drop(screen);
                print::release();
                dashboard.said().for_each(print::note);
            }
        }
    }
}
