//! Work on big values, outside the locks, for commands that store what comes of it.
//!
//! Such a command runs more than once. The first time it clones its sources under the locks, which is cheap, and leaves
//! the work that is to be done. The connection does it in slices without locks, then runs the command again, from its
//! beginning. If the sources are what they were, the result is stored under the same locks: as if all had happened at
//! that moment. What they were is told by addresses, since writing to a value that a clone shares makes another one of
//! it. Else it begins anew, but not for ever: beside a client that keeps changing the sources the last attempt works
//! under the locks, as transactions and scripts, which nobody may see the middle of, always do.

use std::any::Any;

use super::command::Reply;

/// Sources of fewer elements are worked on under the locks.
const WORKED_ON_HERE: usize = 1000;
/// How often the work is done without the locks before it is done under them.
const ATTEMPTS: u8 = 3;

/// Work of a command on clones of its sources, which it holds.
pub trait Work: Any + Send {
    /// What comes of it.
    type Outcome
    where
        Self: Sized;

    /// About how many elements it has to look at.
    fn effort(&self) -> usize;

    /// Does some more, about some dozen microseconds' worth. True when it is done.
    fn advance(&mut self) -> bool;

    /// What came of it. Called once, when it is done.
    fn outcome(&mut self) -> Self::Outcome
    where
        Self: Sized;

    /// Whether work that has just been begun would come to the same, since the sources are the same.
    fn has_sources_of(&self, begun: &Self) -> bool
    where
        Self: Sized;
}

/// Work that a command left to be done before it runs again.
pub struct Preparation {
    work: Box<dyn Work>,
    attempts: u8,
    is_done: bool,
}

impl Preparation {
    /// Does some more of the work. True when it is done.
    pub fn advance(&mut self) -> bool {
        self.is_done = self.is_done || self.work.advance();
        self.is_done
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }
}

impl Reply {
    /// Finishes work that the command has begun, with what was prepared or at once. None if it is to be prepared: then
    /// the command answers nothing and has changed nothing, and will run again.
    pub fn finish<W: Work>(&mut self, mut begun: W) -> Option<W::Outcome> {
        let mut attempts = 0;
        if let Some(preparation) = self.preparation.take() {
            attempts = preparation.attempts;
            let work: Box<dyn Any + Send> = preparation.work;
            if let Ok(mut done) = work.downcast::<W>() {
                let outcome = done.has_sources_of(&begun).then(|| done.outcome());
                self.discarded = Some(done);
                if outcome.is_some() {
                    return outcome;
                }
            }
        }
        if self.may_prepare && attempts < ATTEMPTS && begun.effort() > WORKED_ON_HERE {
            self.preparation = Some(Box::new(Preparation {
                work: Box::new(begun),
                attempts: attempts + 1,
                is_done: false,
            }));
            return None;
        }
        while !begun.advance() {}
        Some(begun.outcome())
    }

    /// Whether there is work that was done or is to be done.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.preparation.is_some() || self.discarded.is_some()
    }

    /// Whether the command has left work to be done before it runs again.
    #[inline]
    pub(super) fn wants_preparation(&self) -> bool {
        let preparation = self.preparation.as_ref();
        preparation.is_some_and(|preparation| !preparation.is_done)
    }
}
