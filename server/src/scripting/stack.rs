//! The stack that scripts run on, which can be left before they are done.
//!
//! A script that runs for too long must not keep its worker from serving others, but it is in the middle of C code,
//! and holds locks that are this thread's. So a connection whose commands run scripts takes its turns on a stack of its
//! own: [`pause`] switches back to the worker's event loop, and the connection's next turn goes on behind the pause.
//! The locks stay held meanwhile. A worker keeps one such stack ready; switching costs some nanoseconds per turn.
//!
//! What threads keep for the turn that runs is put aside during a pause.

use std::{
    cell::{Cell, RefCell},
    mem,
    task::{Context, Waker},
};

use generator::{Generator, Gn};

use crate::{
    net::connection::{Progress, Turns},
    persistence::aof,
    runtime::{self, STACK_BYTES},
    tracking,
};

/// Where this thread's code runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a thread that serves nobody: it may be kept busy.
    Elsewhere,
    /// On a worker's own stack.
    Worker,
    /// On one that can be left.
    Stack,
}

thread_local! {
    static PLACE: Cell<Place> = const { Cell::new(Place::Elsewhere) };
    static IDLE: RefCell<Option<Stack>> = const { RefCell::new(None) };
}

/// A connection that takes its turns on a stack, and who is to be woken for the next ones.
pub struct Errand {
    pub connection: Box<dyn Turns>,
    pub waker: Waker,
}

/// What the code on a stack hands back when it is left: the connection after its turns, or nothing in a pause.
type Handed = Option<(Box<dyn Turns>, Progress)>;

/// A stack on which connections take their turns.
pub struct Stack(Generator<'static, Errand, Handed>);

/// How a stack was left.
pub enum Left {
    /// The turns are over.
    Done(Box<dyn Turns>, Progress),
    /// A script makes way for others, and is to go on soon.
    Paused(Stack),
}

/// From now on this thread is a worker, whose scripts need a stack.
pub fn begin_worker() {
    PLACE.set(Place::Worker);
}

/// Whether a script has to go to another stack than this one.
#[inline]
pub fn is_missing() -> bool {
    PLACE.get() == Place::Worker
}

/// Lets the worker's event loop have its turn. Does nothing on threads that are no workers.
#[cold]
#[expect(
    deprecated,
    reason = "a hook of Lua has no handle to the stack that it runs on"
)]
pub fn pause() {
    if PLACE.get() != Place::Stack {
        return;
    }
    let (broadcasts, appended) = (tracking::put_aside(), aof::put_aside());
    generator::yield_with::<Handed>(None);
    tracking::take_up(broadcasts);
    aof::take_up(appended);
}

/// Takes a connection's turns on a stack that is free.
pub fn run(errand: Errand) -> Left {
    let stack = IDLE.take().unwrap_or_else(Stack::new);
    stack.switch(Some(errand))
}

impl Stack {
    fn new() -> Stack {
        Stack(Gn::new_opt(STACK_BYTES / size_of::<usize>(), serve))
    }

    /// Goes on behind the pause.
    pub fn resume(self) -> Left {
        self.switch(None)
    }

    fn switch(mut self, errand: Option<Errand>) -> Left {
        let place = OnStack::enter();
        let handed = self.0.raw_send(errand).flatten();
        drop(place);
        match handed {
            Some((connection, progress)) => {
                IDLE.set(Some(self));
                Left::Done(connection, progress)
            }
            None => Left::Paused(self),
        }
    }

    /// Gives up what is paused on it. The locks that it holds are never released: this is for the end of the program.
    pub fn abandon(self) {
        mem::forget(self);
    }
}

/// While this lives, the thread's code runs on a stack that can be left.
struct OnStack;

impl OnStack {
    fn enter() -> OnStack {
        PLACE.set(Place::Stack);
        OnStack
    }
}

impl Drop for OnStack {
    fn drop(&mut self) {
        PLACE.set(Place::Worker);
    }
}

/// What runs on a stack: one connection's turns after another's.
#[expect(
    deprecated,
    reason = "the rest of this interface goes with `yield_with`"
)]
fn serve() -> Handed {
    while let Some(errand) = generator::get_yield::<Errand>() {
        let Errand {
            mut connection,
            waker,
        } = errand;
        let mut worker = runtime::take_worker();
        let progress = connection.run(&mut worker, &mut Context::from_waker(&waker));
        runtime::put_worker(worker);
        generator::yield_with::<Handed>(Some((connection, progress)));
    }
    None
}
