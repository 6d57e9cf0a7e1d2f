//! The latest part of the stream, by offset, and the names it goes by.

use std::collections::VecDeque;

/// Bytes of one piece of the stream.
const PIECE: usize = 64 * 1024;

/// The stream's tail. Offsets count bytes from the beginning of the stream, the first being 0.
///
/// Kept in pieces, so that neither growing nor shrinking copies anything.
pub(crate) struct Backlog {
    /// All but the last are full; the first begins at or before `start`, at a multiple of [`PIECE`] before the last's.
    pieces: VecDeque<Vec<u8>>,
    /// The first byte that is kept.
    start: u64,
    end: u64,
    size: u64,
    /// What replicas still need, kept beyond `size` up to this many bytes.
    limit: u64,
    /// Where the slowest replica is.
    needed_from: Option<u64>,
    /// The database that the stream's last effect was in.
    pub(crate) database: Option<usize>,
    /// 40 hexadecimal digits that name the history.
    pub(crate) id: String,
    /// The history before this one, which it shares up to an offset.
    pub(crate) previous: Option<(String, u64)>,
    /// The server ends: nothing is added any more.
    pub(crate) ended: bool,
    /// Where the last effect ended; pings and the like may follow.
    data_end: u64,
}

impl Backlog {
    pub(crate) fn new(id: String) -> Backlog {
        Backlog {
            pieces: VecDeque::new(),
            start: 0,
            end: 0,
            size: 1 << 20,
            limit: u64::MAX,
            needed_from: None,
            database: None,
            id,
            previous: None,
            ended: false,
            data_end: 0,
        }
    }

    /// Keeps so many bytes, and up to `limit` for replicas that are behind.
    pub(crate) fn set_size(&mut self, size: u64, limit: u64) {
        self.size = size;
        self.limit = limit.max(size);
        self.trim();
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Whoever has the stream up to here lacks no data.
    pub(crate) fn data_end(&self) -> u64 {
        self.data_end
    }

    /// Bytes of memory that the stream takes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.pieces.len() * PIECE
    }

    /// Says how far back replicas need the stream; `None` if there are none.
    pub(crate) fn set_needed_from(&mut self, from: Option<u64>) {
        self.needed_from = from;
        self.trim();
    }

    /// A replica needs the stream from here, beside the others that need it.
    pub(crate) fn keep_from(&mut self, from: u64) {
        self.needed_from = Some(self.needed_from.map_or(from, |needed| needed.min(from)));
    }

    /// Adds what changed data.
    pub(crate) fn push_effects(&mut self, bytes: &[u8]) {
        self.push(bytes);
        self.data_end = self.end;
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = self.pieces.back().map_or(0, |last| PIECE - last.len());
            if room == 0 {
                self.pieces.push_back(Vec::with_capacity(PIECE));
            }
            let last = self.pieces.back_mut().expect("one with room is there");
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - last.len()));
            last.extend_from_slice(now);
            bytes = later;
        }
        self.trim();
    }

    fn trim(&mut self) {
        let needed = self
            .needed_from
            .map_or(0, |from| self.end.saturating_sub(from));
        let kept = needed.min(self.limit).max(self.size);
        self.start = self.start.max(self.end.saturating_sub(kept));
        while self
            .pieces
            .front()
            .is_some_and(|first| self.first_piece_at() + first.len() as u64 <= self.start)
        {
            self.pieces.pop_front();
        }
    }

    /// The offset of the first piece's first byte.
    fn first_piece_at(&self) -> u64 {
        let last = self.pieces.back().map_or(0, Vec::len);
        let before = self.pieces.len().saturating_sub(1) * PIECE;
        self.end - (before + last) as u64
    }

    /// Copies what follows `from`, at most `max` bytes. `None` if that is not there any more, or not yet.
    pub(crate) fn read(&self, from: u64, max: usize, into: &mut Vec<u8>) -> Option<()> {
        if from < self.start || from > self.end {
            return None;
        }
        into.clear();
        let skip = (from - self.first_piece_at()) as usize;
        let mut at = skip % PIECE;
        for piece in self.pieces.range((skip / PIECE).min(self.pieces.len())..) {
            let len = (piece.len() - at).min(max - into.len());
            into.extend_from_slice(&piece[at..at + len]);
            at = 0;
            if into.len() == max {
                break;
            }
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
        known && offset >= self.start && offset <= self.end
    }

    /// Whether it is this history's name, or that of the one before.
    pub(crate) fn knows(&self, id: &str) -> bool {
        id == self.id
            || self
                .previous
                .as_ref()
                .is_some_and(|(previous, _)| id == previous)
    }

    /// The stream goes on under another name.
    pub(crate) fn rename(&mut self, id: String) {
        let old = std::mem::replace(&mut self.id, id);
        self.previous = Some((old, self.end));
    }

    /// Another history begins at this offset, as a full sync brings it.
    pub(crate) fn restart(&mut self, id: String, end: u64) {
        self.pieces.clear();
        self.start = end;
        self.end = end;
        self.data_end = end;
        self.id = id;
        self.previous = None;
        self.database = None;
    }

    /// Another history was left at this offset, before this server started: its own goes on from there.
    pub(crate) fn go_on_from(&mut self, id: String, offset: u64) {
        let own = self.id.clone();
        self.restart(own, offset);
        self.previous = Some((id, offset));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_kept_and_nothing_else() {
        let mut backlog = Backlog::new("a".into());
        backlog.set_size(10, 10);
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
        assert!(backlog.read(30, 1, &mut bytes).is_some());
        assert!(bytes.is_empty());
    }

    /// Against a plain vector of all bytes ever pushed.
    #[test]
    fn pieces_hold_what_was_pushed() {
        let (mut backlog, mut all) = (Backlog::new("a".into()), Vec::new());
        backlog.set_size(3 * PIECE as u64 + 17, 5 * PIECE as u64);
        let mut seed = 7u64;
        for round in 0..400u64 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
            let len = (seed >> 33) as usize % (2 * PIECE);
            let chunk: Vec<u8> = (0..len).map(|at| (at as u64 ^ round) as u8).collect();
            backlog.push(&chunk);
            all.extend_from_slice(&chunk);
            if round % 7 == 0 {
                let behind = (seed >> 20) % (8 * PIECE as u64);
                backlog.set_needed_from(
                    (round % 2 == 0).then(|| backlog.end().saturating_sub(behind)),
                );
            }
            assert_eq!(backlog.end(), all.len() as u64);
            let kept = backlog.end() - backlog.start();
            assert!(backlog.memory_bytes() as u64 <= kept + 2 * PIECE as u64);
            let from = backlog.start() + (seed >> 13) % (kept + 1);
            let max = (seed >> 5) as usize % (3 * PIECE);
            let mut bytes = Vec::new();
            backlog.read(from, max, &mut bytes).expect("it is kept");
            let expected = &all[from as usize..];
            assert_eq!(bytes, expected[..max.min(expected.len())]);
        }
    }

    #[test]
    fn what_a_replica_needs_is_kept_beyond_the_size_up_to_a_limit() {
        let mut backlog = Backlog::new("a".into());
        backlog.set_size(4, 150);
        backlog.set_needed_from(Some(0));
        backlog.push(&[1; 100]);
        assert_eq!(backlog.start(), 0);
        backlog.push(&[1; 100]);
        assert_eq!(backlog.start(), 50);
        backlog.set_needed_from(Some(190));
        assert_eq!(backlog.start(), 190);
        backlog.set_needed_from(None);
        assert_eq!(backlog.start(), 196);
    }

    #[test]
    fn a_replica_more_takes_nothing_from_the_others() {
        let mut backlog = Backlog::new("a".into());
        backlog.set_size(4, 1000);
        backlog.set_needed_from(Some(0));
        backlog.push(&[1; 100]);
        backlog.keep_from(98);
        backlog.push(&[1; 100]);
        assert_eq!(backlog.start(), 0);
        backlog.set_needed_from(None);
        backlog.keep_from(198);
        backlog.push(&[1; 100]);
        assert_eq!(backlog.start(), 198);
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

    #[test]
    fn a_history_from_before_the_start_continues_where_it_ended_and_nowhere_else() {
        let mut backlog = Backlog::new("b".into());
        backlog.go_on_from("a".into(), 10);
        assert!(backlog.continues("a", 10) && backlog.continues("b", 10));
        assert!(!backlog.continues("a", 9) && !backlog.continues("a", 11));
        backlog.push(&[2; 10]);
        assert!(backlog.continues("a", 10) && !backlog.continues("a", 12));
    }
}
