//! ACL LOG: what was denied lately.

use std::collections::VecDeque;

use super::check::Reason;

/// Denials of one kind within this time are one entry.
const SAME_MS: i64 = 60_000;

#[derive(Clone, Debug)]
pub struct Entry {
    pub id: u64,
    pub count: u64,
    pub reason: Reason,
    pub context: &'static str,
    /// The command, key, channel or database.
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    pub client: String,
    pub created_ms: i64,
    pub updated_ms: i64,
}

/// The latest denials, newest first.
#[derive(Default)]
pub struct AclLog {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl AclLog {
    /// Notes a denial; `entry` has no number and count yet.
    pub fn add(&mut self, mut entry: Entry, limit: usize) {
        let same = self.entries.iter().position(|known| {
            known.reason == entry.reason
                && known.context == entry.context
                && known.object == entry.object
                && known.user == entry.user
                && entry.updated_ms - known.updated_ms <= SAME_MS
        });
        if let Some(mut known) = same.and_then(|at| self.entries.remove(at)) {
            known.count += 1;
            known.updated_ms = entry.updated_ms;
            known.client = entry.client;
            self.entries.push_front(known);
            return;
        }
        entry.id = self.next_id;
        entry.count = 1;
        self.next_id += 1;
        self.entries.push_front(entry);
        self.entries.truncate(limit);
    }

    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
