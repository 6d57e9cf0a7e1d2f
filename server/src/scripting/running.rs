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
use storage::keyspace::Shards;

use super::{problem::Killed, stack};
use crate::{
    dispatch::{args::Args, error::Error},
    server::Server,
};

/// How long a script that takes too long runs between the turns of others.
const SLICE: Duration = Duration::from_millis(5);
/// Commands of a script between two looks at the clock.
const CALLS_PER_LOOK: u32 = 16;
/// What is kept between scripts for the next command's words.
const WORDS_KEPT_BYTES: usize = 64 << 10;

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
    command: RefCell<Words>,
    wrote: Cell<bool>,
    /// Commands since the last look at the clock.
    calls: Cell<u32>,
    /// It ends by itself at the threshold.
    limited: Cell<bool>,
    slow: RefCell<Option<Arc<SlowScript>>>,
    /// The shards whose locks it has.
    shards: RefCell<Shards>,
    /// When others last had a turn.
    paused_at: Cell<Option<Instant>>,
}

impl Running {
    pub(super) fn begin(&self, threshold_ms: u64, function: Option<&[u8]>, shards: Shards) {
        self.started.set(Some(Instant::now()));
        self.threshold.set(Duration::from_millis(threshold_ms));
        *self.function.borrow_mut() = function.map(Box::from);
        *self.shards.borrow_mut() = shards;
        self.wrote.set(false);
        self.limited.set(false);
    }

    /// What runs now ends when it takes too long.
    pub(super) fn limit(&self) {
        self.limited.set(true);
    }

    /// Whether what runs, or ran last, is limited: a library is.
    pub(super) fn is_limited(&self) -> bool {
        self.limited.get()
    }

    /// Nothing runs any more; what ran was limited.
    pub(super) fn stop(&self) {
        self.started.set(None);
    }

    pub(super) fn set_command(&self, args: &Args<'_>) {
        self.command.borrow_mut().set(args);
    }

    /// From now on it cannot be ended.
    pub(super) fn note_write(&self) {
        if !self.wrote.replace(true)
            && let Some(slow) = &*self.slow.borrow()
        {
            slow.wrote.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn end(&self, server: &Server) {
        self.started.set(None);
        self.command.borrow_mut().shrink();
        if let Some(script) = self.slow.borrow_mut().take() {
            server.keyspace.set_held(&self.shards.borrow(), false);
            server.scripting.slow.remove(&script);
        }
    }

    /// Tells others once it takes too long, and makes way for them. What it is if it is to end.
    pub(super) fn look(&self, server: &Server) -> Option<Killed> {
        let started = self.started.get()?;
        if self.limited.get() {
            return (started.elapsed() > self.threshold.get()).then_some(Killed::Library);
        }
        if self.slow.borrow().is_none() {
            if self.threshold.get().is_zero() || started.elapsed() <= self.threshold.get() {
                return None;
            }
            self.tell(server, started);
        }
        let is_due = |at: Instant| at.elapsed() >= SLICE;
        if self.paused_at.get().is_none_or(is_due) {
            stack::pause();
            self.paused_at.set(Some(Instant::now()));
        }
        let slow = self.slow.borrow();
        let killed = |script: &&Arc<SlowScript>| script.kill.load(Ordering::Relaxed);
        let script = slow.as_ref().filter(killed)?;
        (!self.wrote.get()).then_some(match script.function {
            Some(_) => Killed::Function,
            None => Killed::Script,
        })
    }

    /// As [`Running::look`], at the script's commands, of which the interpreter does not know how long they take.
    #[inline]
    pub(super) fn look_at_call(&self, server: &Server) -> Option<Killed> {
        let calls = self.calls.get() + 1;
        if calls < CALLS_PER_LOOK {
            self.calls.set(calls);
            return None;
        }
        self.calls.set(0);
        self.look(server)
    }

    /// Makes it known that it takes too long.
    fn tell(&self, server: &Server, started: Instant) {
        let script = Arc::new(SlowScript {
            started,
            function: self.function.borrow().clone(),
            command: self.command.borrow().to_vec(),
            kill: AtomicBool::new(false),
            wrote: AtomicBool::new(self.wrote.get()),
        });
        server.scripting.slow.add(script.clone());
        server.keyspace.set_held(&self.shards.borrow(), true);
        *self.slow.borrow_mut() = Some(script);
        self.paused_at.set(None);
    }
}

/// The words of a command, in memory that the next one uses again.
#[derive(Default)]
struct Words {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn set(&mut self, args: &Args<'_>) {
        self.bytes.clear();
        self.ends.clear();
        for word in args.from(0) {
            self.bytes.extend_from_slice(word);
            self.ends.push(self.bytes.len());
        }
    }

    fn to_vec(&self) -> Vec<Box<[u8]>> {
        let mut start = 0;
        let word = |&end: &usize| self.bytes[std::mem::replace(&mut start, end)..end].into();
        self.ends.iter().map(word).collect()
    }

    fn shrink(&mut self) {
        if self.bytes.capacity() > WORDS_KEPT_BYTES {
            *self = Words::default();
        }
    }
}
