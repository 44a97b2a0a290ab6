//! What people see meanwhile, on standard error: a live line on a terminal, a plain line now and then
//! elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of a load or a run.
#[derive(Debug)]
pub struct Progress(Display);

#[derive(Debug)]
enum Display {
    Hidden,
    Bar(ProgressBar),
    Plain { total: usize, state: Mutex<Plain> },
}

#[derive(Debug)]
struct Plain {
    done: usize,
    last: Instant,
}

impl Progress {
    /// Progress over `units` units of a load.
    pub fn load(shown: bool, units: usize) -> Self {
        Self::new(shown, units, "{bar:40} {pos}/{len} {msg} [{elapsed_precise}, {eta} left]")
    }

    /// Progress of a run: a line of figures.
    pub fn run(shown: bool) -> Self {
        Self::new(shown, 0, "{spinner} {elapsed_precise} {msg}")
    }

    fn new(shown: bool, total: usize, template: &str) -> Self {
        if !shown {
            return Self(Display::Hidden);
        }
        if !std::io::stderr().is_terminal() {
            return Self(Display::Plain {
                total,
                state: Mutex::new(Plain { done: 0, last: Instant::now() }),
            });
        }
        let bar = ProgressBar::new(total as u64);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(Display::Bar(bar))
    }

    /// One unit more is done.
    pub fn advance(&self, message: &str) {
        match &self.0 {
            Display::Hidden => {}
            Display::Bar(bar) => {
                bar.set_message(message.to_owned());
                bar.inc(1);
            }
            Display::Plain { total, state } => {
                let mut plain = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                plain.done += 1;
                if plain.last.elapsed() >= PLAIN_INTERVAL || plain.done == *total {
                    plain.last = Instant::now();
                    eprintln!("{}/{total} {message}", plain.done);
                }
            }
        }
    }

    /// Figures that replace the ones before.
    pub fn update(&self, message: &str) {
        match &self.0 {
            Display::Hidden => {}
            Display::Bar(bar) => {
                bar.set_message(message.to_owned());
                bar.tick();
            }
            Display::Plain { state, .. } => {
                let mut plain = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if plain.last.elapsed() >= PLAIN_INTERVAL {
                    plain.last = Instant::now();
                    eprintln!("{message}");
                }
            }
        }
    }

    /// A new phase.
    pub fn note(&self, message: &str) {
        match &self.0 {
            Display::Hidden => {}
            Display::Bar(bar) => bar.set_message(message.to_owned()),
            Display::Plain { .. } => eprintln!("{message}"),
        }
    }

    /// Removes the live line.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
