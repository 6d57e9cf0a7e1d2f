//! An end for threads that go on until they are told.

use std::sync::atomic::{AtomicBool, Ordering};

/// Tells threads to stop when it goes, by a failed assertion too: a scope waits for its threads before it fails.
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
