//! How far a long study is, on one line of the terminal that is written over; nothing where there is no terminal.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Between two updates.
const PERIOD: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

pub(crate) struct Progress {
    total: usize,
    started: Instant,
    /// Steps done, and when that was shown last.
    state: Mutex<(usize, Option<Instant>)>,
    visible: bool,
}

impl Progress {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total: total.max(1),
            started: Instant::now(),
            state: Mutex::new((0, None)),
            visible: std::io::stderr().is_terminal(),
        }
    }

    /// One step more is done, of which `what` may say something.
    pub(crate) fn step(&self, what: &str) {
        self.advance(1, what);
    }

    pub(crate) fn advance(&self, steps: usize, what: &str) {
        // A thread that panicked left nothing half done here.
        let mut state = self.state.lock().unwrap_or_else(|error| error.into_inner());
        state.0 += steps;
        let due = state.1.is_none_or(|shown| shown.elapsed() > PERIOD);
        if self.visible && (due || state.0 >= self.total) {
            state.1 = Some(Instant::now());
            self.show(state.0, what);
        }
    }

    fn show(&self, done: usize, what: &str) {
        let filled = (WIDTH * done / self.total).min(WIDTH);
        let left = self
            .started
            .elapsed()
            .mul_f64(self.total.saturating_sub(done) as f64 / done.max(1) as f64);
        eprint!(
            "\r[{}{}] {done}/{}  {} s left  {what}\x1b[K",
            "#".repeat(filled),
            "-".repeat(WIDTH - filled),
            self.total,
            left.as_secs()
        );
        // It is decoration: where it cannot be shown it is not.
        let _ = std::io::stderr().flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.visible {
            eprint!("\r\x1b[K");
        }
    }
}
