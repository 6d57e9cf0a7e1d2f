//! What the command log says of a key that went without a client's DEL: UNLINK where the settings let its readers free
//! the value in the background, else DEL.

use std::sync::atomic::{AtomicBool, Ordering};

/// Why a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    Expired,
    Evicted,
    /// By a command that is not there for deleting.
    Implicit,
}

/// Which removals are freed in the background.
#[derive(Debug)]
pub struct Removals([AtomicBool; 3]);

impl Removals {
    pub fn set_lazy(&self, why: Removal, lazy: bool) {
        self.0[why as usize].store(lazy, Ordering::Relaxed);
    }

    /// The command that removes a key as this did.
    pub fn command(&self, why: Removal) -> &'static [u8] {
        match self.0[why as usize].load(Ordering::Relaxed) {
            true => b"UNLINK",
            false => b"DEL",
        }
    }
}

impl Default for Removals {
    fn default() -> Removals {
        Removals([const { AtomicBool::new(true) }; 3])
    }
}
