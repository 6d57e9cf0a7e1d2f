//! Many entries of a stream, counted and written in slices from a clone after the locks are released.

use protocol::resp::reply::ReplyWriter;
use storage::value::stream::{Id, Stream, next_id, previous_id};

use super::write_entry;
use crate::dispatch::command::Later;

/// Entries that are written at once; more are written in slices.
pub(super) const DIRECT: usize = 1000;
/// Entries written per slice.
const SLICE: usize = 256;
/// Entries counted per slice.
const COUNTED: usize = 2048;

/// The order in which entries are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Ascending,
    Descending,
}

/// Entries of a range of IDs.
#[derive(Clone, Copy)]
pub(super) struct IdRange {
    pub start: Id,
    pub end: Id,
    pub order: Order,
    /// How many at most.
    pub most: usize,
}

impl IdRange {
    /// How many there are, if they are to be written at once.
    pub(super) fn direct_len(self, stream: &Stream) -> Option<usize> {
        let most = self.most.min(DIRECT + 1);
        let len = self.visit(stream, most, |_| {});
        (len <= DIRECT).then_some(len)
    }

    /// Writes the first `count`.
    pub(super) fn write(self, stream: &Stream, count: usize, writer: &mut ReplyWriter) {
        self.visit(stream, count, |entry| write_entry(writer, entry));
    }

    /// Visits up to `most`. Returns how many there were.
    fn visit(
        self,
        stream: &Stream,
        most: usize,
        mut visit: impl FnMut(&storage::value::stream::Entry<'_>),
    ) -> usize {
        let mut visited = 0;
        let mut visit = |entry| {
            visit(&entry);
            visited += 1;
        };
        match self.order {
            Order::Ascending => stream
                .range(self.start, self.end)
                .take(most)
                .for_each(&mut visit),
            Order::Descending => stream
                .range_back(self.start, self.end)
                .take(most)
                .for_each(&mut visit),
        }
        visited
    }

    /// What follows an entry; none if nothing can.
    fn after(mut self, id: Id) -> Option<IdRange> {
        match self.order {
            Order::Ascending => self.start = next_id(id)?,
            Order::Descending => self.end = previous_id(id)?,
        }
        Some(self)
    }
}

/// See the module's description.
pub(super) struct Slices {
    stream: Stream,
    range: IdRange,
    /// Where counting or writing goes on.
    rest: Option<IdRange>,
    counted: usize,
    /// How many are still to be written, once they are counted.
    left: Option<usize>,
}

impl Slices {
    pub(super) fn new(stream: &Stream, range: IdRange) -> Slices {
        Slices {
            stream: stream.clone(),
            range,
            rest: Some(range),
            counted: 0,
            left: None,
        }
    }

    /// Passes over up to `count` entries. Returns how many there were.
    fn go_on(
        &mut self,
        count: usize,
        mut visit: impl FnMut(&storage::value::stream::Entry<'_>),
    ) -> usize {
        let Some(rest) = self.rest else {
            return 0;
        };
        let mut last = None;
        let visited = rest.visit(&self.stream, count, |entry| {
            visit(entry);
            last = Some(entry.id);
        });
        self.rest = last.and_then(|last| rest.after(last));
        visited
    }
}

impl Later for Slices {
    fn write(&mut self, writer: &mut ReplyWriter) -> bool {
        let Some(left) = self.left else {
            let count = COUNTED.min(self.range.most - self.counted);
            let counted = self.go_on(count, |_| {});
            self.counted += counted;
            if counted < COUNTED {
                writer.array(self.counted);
                self.rest = Some(self.range);
                self.left = Some(self.counted);
            }
            return false;
        };
        let written = self.go_on(SLICE.min(left), |entry| write_entry(writer, entry));
        self.left = Some(left - written);
        left == written
    }
}
