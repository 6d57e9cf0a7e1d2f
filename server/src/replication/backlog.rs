//! The latest part of the stream, by offset, and the names it goes by.

use std::collections::VecDeque;

/// The stream's tail. Offsets count bytes from the beginning of the stream, the first being 0.
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    end: u64,
    size: usize,
    /// What replicas still need, kept beyond `size` up to this many bytes.
    limit: usize,
    /// Where the slowest replica is.
    needed_from: Option<u64>,
    /// The database that the stream's last effect was in.
    pub(crate) database: Option<usize>,
    /// 40 hexadecimal digits that name the history.
    pub(crate) id: String,
    /// The history before this one, which it shares up to an offset.
    pub(crate) previous: Option<(String, u64)>,
}

/// Bytes kept for replicas that are behind, beyond the backlog's size: the hard limit of their class by default.
const BEHIND_LIMIT: usize = 256 << 20;

impl Backlog {
    pub(crate) fn new(id: String) -> Backlog {
        Backlog {
            bytes: VecDeque::new(),
            end: 0,
            size: 1 << 20,
            limit: BEHIND_LIMIT,
            needed_from: None,
            database: None,
            id,
            previous: None,
        }
    }

    pub(crate) fn set_size(&mut self, size: usize) {
        self.size = size;
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Says how far back replicas need the stream; `None` if there are none.
    pub(crate) fn set_needed_from(&mut self, from: Option<u64>) {
        self.needed_from = from;
        self.trim();
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.end += bytes.len() as u64;
        self.trim();
    }

    fn trim(&mut self) {
        let needed = self
            .needed_from
            .map_or(0, |from| self.end.saturating_sub(from));
        let kept = usize::try_from(needed)
            .unwrap_or(usize::MAX)
            .min(self.limit)
            .max(self.size);
        if self.bytes.len() > kept {
            let surplus = self.bytes.len() - kept;
            self.bytes.drain(..surplus);
        }
    }

    /// Copies what follows `from`, at most `max` bytes. `None` if that is not there any more, or not yet.
    pub(crate) fn read(&self, from: u64, max: usize, into: &mut Vec<u8>) -> Option<()> {
        if from < self.start() || from > self.end {
            return None;
        }
        let skip = (from - self.start()) as usize;
        let len = (self.bytes.len() - skip).min(max);
        let (front, back) = self.bytes.as_slices();
        into.clear();
        if skip < front.len() {
            let part = &front[skip..front.len().min(skip + len)];
            into.extend_from_slice(part);
        }
        let rest = len - into.len();
        if rest > 0 {
            let at = (skip + into.len()) - front.len();
            into.extend_from_slice(&back[at..at + rest]);
        }
        Some(())
    }

    /// Whether a replica that has the history `id` up to `offset` can go on from there.
    pub(crate) fn continues(&self, id: &str, offset: u64) -> bool {
        let known = id == self.id
            || self
                .previous
                .as_ref()
                .is_some_and(|(previous, until)| id == previous && offset <= *until);
        known && offset >= self.start() && offset <= self.end
    }

    /// The stream goes on under another name.
    pub(crate) fn rename(&mut self, id: String) {
        let old = std::mem::replace(&mut self.id, id);
        self.previous = Some((old, self.end));
        self.database = None;
    }

    /// Another history begins at this offset, as a full sync brings it.
    pub(crate) fn restart(&mut self, id: String, end: u64) {
        self.bytes.clear();
        self.end = end;
        self.id = id;
        self.previous = None;
        self.database = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_kept_and_nothing_else() {
        let mut backlog = Backlog::new("a".into());
        backlog.set_size(10);
        for number in 0..10u8 {
            backlog.push(&[number; 3]);
        }
        let mut bytes = Vec::new();
        assert_eq!((backlog.start(), backlog.end()), (20, 30));
        assert!(backlog.read(19, 100, &mut bytes).is_none());
        assert!(backlog.read(31, 100, &mut bytes).is_none());
        assert!(backlog.read(20, 100, &mut bytes).is_some());
        assert_eq!(bytes, [6, 7, 7, 7, 8, 8, 8, 9, 9, 9]);
        assert!(backlog.read(28, 1, &mut bytes).is_some());
        assert_eq!(bytes, [9]);
    }

    #[test]
    fn what_a_replica_needs_is_kept_beyond_the_size() {
        let mut backlog = Backlog::new("a".into());
        backlog.set_size(4);
        backlog.set_needed_from(Some(0));
        backlog.push(&[1; 100]);
        assert_eq!(backlog.start(), 0);
        backlog.set_needed_from(Some(90));
        assert_eq!(backlog.start(), 90);
        backlog.set_needed_from(None);
        assert_eq!(backlog.start(), 96);
    }

    #[test]
    fn a_renamed_history_continues_up_to_where_it_was() {
        let mut backlog = Backlog::new("a".into());
        backlog.push(&[1; 10]);
        backlog.rename("b".into());
        backlog.push(&[2; 10]);
        assert!(backlog.continues("b", 20) && backlog.continues("a", 10));
        assert!(!backlog.continues("a", 11) && !backlog.continues("c", 5));
        assert!(!backlog.continues("b", 21));
    }
}
