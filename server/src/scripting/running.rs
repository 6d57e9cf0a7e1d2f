//! Scripts that run for long: others are told, and may end them.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::dispatch::error::Error;

/// Scripts that passed `busy-reply-threshold`.
#[derive(Default)]
pub struct Slow {
    count: AtomicUsize,
    scripts: Mutex<Vec<Arc<SlowScript>>>,
}

/// One of them.
pub struct SlowScript {
    pub started: Instant,
    /// The function's name; `None` for EVAL.
    pub function: Option<Box<[u8]>>,
    /// The command that began it.
    pub command: Vec<Box<[u8]>>,
    kill: AtomicBool,
    wrote: AtomicBool,
}

/// What came of the wish to end a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    Killed,
    NoneRuns,
    /// It changed data already.
    Wrote,
    /// SCRIPT KILL for a function, or the other way round.
    OtherKind,
}

impl Slow {
    /// Whether a script runs for too long.
    #[inline]
    pub fn any(&self) -> bool {
        // Relaxed: a command that comes a little before others learn of it waits as it would have.
        self.count.load(Ordering::Relaxed) > 0
    }

    /// The script that runs longest.
    pub fn first(&self) -> Option<Arc<SlowScript>> {
        self.scripts.lock().first().cloned()
    }

    /// What others are told meanwhile.
    pub fn busy(&self) -> Error {
        let function = self.first().is_some_and(|script| script.function.is_some());
        Error::from_static(if function {
            "BUSY Valkey is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE."
        } else {
            "BUSY Valkey is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
        })
    }

    /// Ends the scripts that may be ended.
    pub fn kill(&self, functions: bool) -> Kill {
        let scripts = self.scripts.lock();
        let mut outcome = Kill::NoneRuns;
        for script in scripts.iter() {
            if script.function.is_some() != functions {
                outcome = Kill::OtherKind;
            } else if script.wrote.load(Ordering::Relaxed) {
                outcome = Kill::Wrote;
            } else {
                script.kill.store(true, Ordering::Relaxed);
                return Kill::Killed;
            }
        }
        outcome
    }

    fn add(&self, script: Arc<SlowScript>) {
        self.scripts.lock().push(script);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn remove(&self, script: &Arc<SlowScript>) {
        self.scripts
            .lock()
            .retain(|known| !Arc::ptr_eq(known, script));
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The script that an interpreter runs now; looked at every so many instructions.
#[derive(Default)]
pub(super) struct Running {
    started: Cell<Option<Instant>>,
    threshold: Cell<Duration>,
    function: RefCell<Option<Box<[u8]>>>,
    command: RefCell<Vec<Box<[u8]>>>,
    wrote: Cell<bool>,
    /// It ends by itself at the threshold.
    limited: Cell<bool>,
    slow: RefCell<Option<Arc<SlowScript>>>,
}

impl Running {
    pub(super) fn begin(&self, threshold_ms: u64, function: Option<&[u8]>) {
        self.started.set(Some(Instant::now()));
        self.threshold.set(Duration::from_millis(threshold_ms));
        *self.function.borrow_mut() = function.map(Box::from);
        self.wrote.set(false);
        self.limited.set(false);
    }

    /// What runs now ends when it takes too long.
    pub(super) fn limit(&self) {
        self.limited.set(true);
    }

    /// Nothing runs any more; what ran was limited.
    pub(super) fn stop(&self) {
        self.started.set(None);
    }

    pub(super) fn set_command(&self, command: Vec<Box<[u8]>>) {
        *self.command.borrow_mut() = command;
    }

    /// From now on it cannot be ended.
    pub(super) fn note_write(&self) {
        if !self.wrote.replace(true)
            && let Some(slow) = &*self.slow.borrow()
        {
            slow.wrote.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn end(&self, slow: &Slow) {
        self.started.set(None);
        if let Some(script) = self.slow.borrow_mut().take() {
            slow.remove(&script);
        }
    }

    /// Tells others once it takes too long. True if it is to end.
    pub(super) fn must_end(&self, slow: &Slow) -> bool {
        let Some(started) = self.started.get() else {
            return false;
        };
        if self.limited.get() {
            return started.elapsed() > self.threshold.get();
        }
        if let Some(script) = &*self.slow.borrow() {
            return script.kill.load(Ordering::Relaxed) && !self.wrote.get();
        }
        if !self.threshold.get().is_zero() && started.elapsed() > self.threshold.get() {
            let script = Arc::new(SlowScript {
                started,
                function: self.function.borrow().clone(),
                command: self.command.borrow().clone(),
                kill: AtomicBool::new(false),
                wrote: AtomicBool::new(self.wrote.get()),
            });
            slow.add(script.clone());
            *self.slow.borrow_mut() = Some(script);
        }
        false
    }
}
