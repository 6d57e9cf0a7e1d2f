//! The table behind large sets and hashes: extendible hashing over segments that hold their elements.
//!
//! A [segment](segment) has a few hundred slots of three bytes, an 8-bit tag and a 16-bit offset, and an arena with the
//! elements packed one after another, so an element costs little more than its text: about 5 bytes for its slot, one or
//! two for its length, and what is free in the arena's last block. A [directory](directory) finds the segment by the hash's top
//! bits. A full segment splits in two, sparse neighbours join, holes that deletions leave are closed once they make up
//! half of an arena: every step is bounded by the size of a segment, and nothing ever rehashes as a whole.
//!
//! Segments and directories are counted by references and copied when written while shared: cloning a table is O(1), a
//! first write after it copies the root, one chunk of the directory and one segment, and the clone never changes.
//!
//! Small tables make do with a single segment for 21 or 75 entries. Pairs may carry a deadline, at no cost to those that do
//! not: it is stored inside the entry, and segments, chunks and the table know the earliest of theirs.

mod arena;
mod bucket;
mod directory;
mod entry;
mod segment;

use triomphe::Arc;

use self::{
    bucket::Slots,
    directory::{CHUNK_SLOTS, Chunk, Root, next_range},
    entry::{Key, NEVER},
    segment::{FULL_LIVE_MAX, FullSegment, Segment, SmallSegment, TinySegment},
};
use super::element::Element;
use crate::time::Timestamp;

pub use self::entry::{Entry, Shape};

/// Scan cursors are the top bits of a hash, few enough for every client's number type.
const CURSOR_BITS: u32 = 48;
/// Rejected draws after which a random entry is counted out instead.
const DRAWS: usize = 200;
/// Distinct seeded hashes that agree on more top bits than this do not occur.
const DEPTH_MAX: u8 = 40;
/// A lone segment with fewer entries than these becomes one with fewer slots.
const SMALL_BELOW: usize = 32;
const TINY_BELOW: usize = 8;
/// ... unless its entries take more bytes than this.
const SMALL_BYTES: usize = 8 * 1024;
/// Of how many removals in a segment one looks whether the segment became too sparse.
const JOIN_EVERY: usize = 8;
/// Segments that one call of `expire` looks into at most, besides those it finds something in.
const EXPIRE_SEGMENTS: usize = 1024;

/// See the module's description.
#[derive(Clone)]
pub struct ArenaTable {
    body: Body,
    shape: Shape,
    len: usize,
    expiring: usize,
    /// Bytes of all segments.
    segment_bytes: usize,
    /// No entry expires before this.
    earliest: i64,
}

#[derive(Clone)]
enum Body {
    Tiny(Arc<TinySegment>),
    Small(Arc<SmallSegment>),
    Large(Arc<Root>),
}

impl ArenaTable {
    /// An empty table.
    pub fn new(shape: Shape) -> Self {
        let segment = TinySegment::new(shape, 0);
        let mut table = ArenaTable {
            segment_bytes: 0,
            body: Body::Tiny(Arc::new(segment)),
            shape,
            len: 0,
            expiring: 0,
            earliest: NEVER,
        };
        table.segment_bytes = table.segment(0).memory_bytes();
        table
    }

    /// Number of entries, expired ones included. O(1).
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the heap, without those of the table itself. O(1).
    pub fn memory_bytes(&self) -> usize {
        match &self.body {
            Body::Large(root) => self.segment_bytes + root.memory_bytes(),
            _ => self.segment_bytes,
        }
    }

    /// Whether neither was changed since one was cloned from the other. O(1); may deny it where nothing differs.
    pub fn is_same_version(&self, other: &ArenaTable) -> bool {
        match (&self.body, &other.body) {
            (Body::Tiny(one), Body::Tiny(other)) => Arc::ptr_eq(one, other),
            (Body::Small(one), Body::Small(other)) => Arc::ptr_eq(one, other),
            (Body::Large(one), Body::Large(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Number of entries with a deadline. O(1).
    pub fn expiring(&self) -> usize {
        self.expiring
    }

    /// A time before which no entry expires; none if no entry has a deadline. O(1).
    ///
    /// It may lie before the earliest deadline, when that entry was removed: [`ArenaTable::expire`] then corrects it.
    pub fn earliest_deadline(&self) -> Option<Timestamp> {
        (self.earliest != NEVER).then_some(Timestamp(self.earliest))
    }

    /// The entry of `field`. O(1).
    #[inline]
    pub fn get(&self, field: Element<'_>) -> Option<Entry<'_>> {
        let key = Key::new(field);
        let segment = self.segment(key.hash);
        segment.find(&key).map(|place| segment.entry(place))
    }

    /// Whether there is an entry of `field`. O(1).
    #[inline]
    pub fn contains(&self, field: Element<'_>) -> bool {
        let key = Key::new(field);
        self.segment(key.hash).find(&key).is_some()
    }

    /// Adds a member, if it is not there. Whether it was added. O(1), at worst a segment's split.
    pub fn add(&mut self, member: Element<'_>) -> bool {
        self.insert(member, Element::Text(b""), None)
    }

    /// Gives `field` this value and deadline. Whether it is new. O(1), at worst a segment's split.
    pub fn insert(
        &mut self,
        field: Element<'_>,
        value: Element<'_>,
        deadline: Option<Timestamp>,
    ) -> bool {
        let key = Key::new(field);
        let deadline = deadline.map_or(NEVER, stored_deadline);
        loop {
            let place = self.segment(key.hash).find(&key);
            if self.shape == Shape::Members && place.is_some() {
                return false;
            }
            let done = self.change(key.hash, |segment| match place {
                Some(place) => segment.update(place, value, deadline),
                None => segment.insert(&key, value, deadline),
            });
            if done.is_ok() {
                return place.is_none();
            }
            self.grow(key.hash);
        }
    }

    /// Gives the entry of `field` this deadline, or none. Whether there is such an entry. O(1).
    pub fn set_deadline(&mut self, field: Element<'_>, deadline: Option<Timestamp>) -> bool {
        debug_assert!(self.shape == Shape::Pairs);
        let key = Key::new(field);
        let deadline = deadline.map_or(NEVER, stored_deadline);
        loop {
            let Some(place) = self.segment(key.hash).find(&key) else {
                return false;
            };
            if self
                .change(key.hash, |segment| segment.set_deadline(place, deadline))
                .is_ok()
            {
                return true;
            }
            self.grow(key.hash);
        }
    }

    /// Removes the entry of `field`. Whether there was one. O(1), at worst the joining of segments.
    pub fn remove(&mut self, field: Element<'_>) -> bool {
        let key = Key::new(field);
        let Some(place) = self.segment(key.hash).find(&key) else {
            return false;
        };
        let left = self.change(key.hash, |segment| {
            segment.remove(place, key.hash);
            segment.len()
        });
        if left.is_multiple_of(JOIN_EVERY) {
            self.shrink(key.hash);
        }
        true
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> Iter<'_> {
        let mut iter = Iter {
            chunks: [].iter(),
            segments: [].iter(),
            current: None,
            remaining: self.len,
        };
        match &self.body {
            Body::Tiny(segment) => iter.enter(&**segment),
            Body::Small(segment) => iter.enter(&**segment),
            Body::Large(root) => iter.chunks = root.chunks.slots().iter(),
        }
        iter
    }

    /// Visits about `budget` entries from `cursor` on, and gives the cursor to go on from: 0 when all were visited.
    ///
    /// Entries come in the order of their hashes and the cursor is a hash's top bits, so an entry that is there from the
    /// start of a traversal to its end is visited exactly once, however the table changes in between. O(budget and the
    /// size of a segment).
    pub fn scan(&self, cursor: u64, budget: usize, mut visit: impl FnMut(Entry<'_>)) -> u64 {
        const SHIFT: u32 = u64::BITS - CURSOR_BITS;
        let mut position = cursor;
        let mut left = budget.max(1);
        while position >> CURSOR_BITS == 0 {
            let segment = self.segment(position << SHIFT);
            let mut entries: Vec<(u64, usize)> = segment
                .slots()
                .map(|(_, offset)| (segment.hash_at(offset) >> SHIFT, offset))
                .filter(|&(order, _)| order >= position)
                .collect();
            if left < entries.len() {
                // Of more than can be visited only the first, and those that cannot be told apart from them, matter.
                let first_left_out = entries.select_nth_unstable(left).1.0;
                entries.retain(|&(order, _)| order <= first_left_out);
            }
            entries.sort_unstable();
            let mut last = None;
            for (order, offset) in entries {
                // Entries that the cursor cannot tell apart are visited together.
                if left == 0 && last != Some(order) {
                    return position;
                }
                visit(segment.entry_at(offset));
                left = left.saturating_sub(1);
                last = Some(order);
                position = order + 1;
            }
            position = end_of_range(
                position.saturating_sub(u64::from(last.is_some())),
                segment.depth,
            );
            if left == 0 {
                break;
            }
            // A segment costs something even if it is empty.
            left = left.saturating_sub(usize::from(last.is_none()));
        }
        if position >> CURSOR_BITS == 0 {
            position
        } else {
            0
        }
    }

    /// A random entry, each with the same probability; none if the table is empty. O(1) expected.
    ///
    /// `random` gives 64 random bits each time.
    pub fn random(&self, random: &mut impl FnMut() -> u64) -> Option<Entry<'_>> {
        match &self.body {
            Body::Tiny(segment) => random_of(&**segment, random()),
            Body::Small(segment) => random_of(&**segment, random()),
            Body::Large(root) => (0..DRAWS).find_map(|_| draw(root, random())).or_else(|| {
                let index = scale(random(), self.len);
                self.iter().nth(index)
            }),
        }
    }

    /// Removes up to `limit` expired entries after showing each to `visit`; how many.
    ///
    /// Looks only into segments with an entry that may be expired, and into a bounded number of them: if
    /// [`ArenaTable::earliest_deadline`] has still passed afterwards, there may be more.
    pub fn expire(
        &mut self,
        now: Timestamp,
        limit: usize,
        mut visit: impl FnMut(Entry<'_>),
    ) -> usize {
        if self.earliest > now.millis() {
            return 0;
        }
        let mut removed = 0;
        let mut segments = 0;
        let mut next = Some(0);
        while let Some(position) = next
            && self.earliest <= now.millis()
            && removed < limit
            && segments < EXPIRE_SEGMENTS
        {
            if let Body::Large(root) = &self.body
                && root.chunk(position).earliest > now.millis()
            {
                next = root.after_chunk(position);
                continue;
            }
            let segment = self.segment(position);
            let (depth, earliest) = (segment.depth, segment.earliest);
            if earliest <= now.millis() {
                removed += self.change(position, |segment| {
                    segment.expire(now, limit - removed, &mut visit)
                });
                self.shrink(position);
            }
            segments += 1;
            next = next_range(position, u32::from(depth));
            if let Body::Large(root) = &mut self.body
                && root.after_chunk(position) == next
            {
                Arc::make_mut(root).settle_chunk(position);
            }
        }
        self.find_earliest();
        removed
    }

    #[inline]
    fn segment(&self, hash: u64) -> &Segment {
        match &self.body {
            Body::Tiny(segment) => &**segment,
            Body::Small(segment) => &**segment,
            Body::Large(root) => root.segment(hash),
        }
    }

    /// Changes the segment of `hash`, after copying it if it is shared, and keeps the table's sums.
    #[inline]
    fn change<R>(&mut self, hash: u64, change: impl FnOnce(&mut Segment) -> R) -> R {
        let (before, after, result) = match &mut self.body {
            Body::Tiny(segment) => {
                let before = Sums::of(&**segment);
                let segment = Arc::make_mut(segment);
                let result = change(segment);
                (before, Sums::of(segment), result)
            }
            Body::Small(segment) => {
                let before = Sums::of(&**segment);
                let segment = Arc::make_mut(segment);
                let result = change(segment);
                (before, Sums::of(segment), result)
            }
            Body::Large(root) => {
                let chunk = Arc::make_mut(root).chunk_mut(hash);
                let segment = chunk.segment_arc(hash);
                let before = Sums::of(&**segment);
                let segment = Arc::make_mut(segment);
                let result = change(segment);
                let after = Sums::of(segment);
                chunk.earliest = chunk.earliest.min(after.earliest);
                (before, after, result)
            }
        };
        self.len = self.len - before.len + after.len;
        self.expiring = self.expiring - before.expiring + after.expiring;
        self.segment_bytes = self.segment_bytes - before.bytes + after.bytes;
        self.earliest = if self.expiring == 0 {
            NEVER
        } else {
            self.earliest.min(after.earliest)
        };
        result
    }

    /// Makes room in the segment of `hash`: more slots, or two segments instead of it.
    #[cold]
    fn grow(&mut self, hash: u64) {
        match &mut self.body {
            Body::Tiny(segment) => {
                let larger = SmallSegment::gathered(&[&**segment], 0);
                self.segment_bytes = larger.memory_bytes();
                self.body = Body::Small(Arc::new(larger));
            }
            Body::Small(segment) => {
                let larger = FullSegment::gathered(&[&**segment], 0);
                self.segment_bytes = larger.memory_bytes();
                self.body = Body::Large(Arc::new(Root::with_segment(larger)));
            }
            Body::Large(root) => {
                let depth = root.segment(hash).depth;
                assert!(
                    depth < DEPTH_MAX,
                    "a seeded 64-bit hash tells a few hundred fields apart"
                );
                let root = Arc::make_mut(root);
                self.segment_bytes -= root.segment(hash).memory_bytes();
                root.split_segment(hash);
                // The halves differ in the bit after those they share.
                let bit = 1 << (63 - depth);
                for half in [hash & !bit, hash | bit] {
                    self.segment_bytes += root.segment(half).memory_bytes();
                }
            }
        }
    }

    /// Joins the segment of `hash` with its buddy if both are sparse, or gives a lone one fewer slots.
    fn shrink(&mut self, hash: u64) {
        let few = |segment: &Segment, below| {
            segment.len() <= below && segment.live_bytes() <= SMALL_BYTES
        };
        match &mut self.body {
            Body::Tiny(_) => {}
            Body::Small(segment) => {
                if few(&**segment, TINY_BELOW) {
                    let smaller = TinySegment::gathered(&[&**segment], 0);
                    self.segment_bytes = smaller.memory_bytes();
                    self.body = Body::Tiny(Arc::new(smaller));
                }
            }
            Body::Large(root) => {
                if let Some(segment) = root.only_segment() {
                    if few(segment, SMALL_BELOW) {
                        let smaller = SmallSegment::gathered(&[segment], 0);
                        self.segment_bytes = smaller.memory_bytes();
                        self.body = Body::Small(Arc::new(smaller));
                    }
                } else if root.can_join_segment(hash) {
                    let bit = 1 << (64 - u32::from(root.segment(hash).depth));
                    for half in [hash & !bit, hash | bit] {
                        self.segment_bytes -= root.segment(half).memory_bytes();
                    }
                    let root = Arc::make_mut(root);
                    root.join_segment(hash);
                    self.segment_bytes += root.segment(hash).memory_bytes();
                }
            }
        }
    }

    /// Takes the earliest deadline from what the segment or the chunks know.
    fn find_earliest(&mut self) {
        self.earliest = match &self.body {
            Body::Tiny(segment) => segment.earliest,
            Body::Small(segment) => segment.earliest,
            Body::Large(root) => {
                let chunks = root.chunks.slots().iter().flatten();
                chunks.map(|chunk| chunk.earliest).min().unwrap_or(NEVER)
            }
        };
        if self.expiring == 0 {
            self.earliest = NEVER;
        }
    }
}

/// What a table sums up over its segments.
struct Sums {
    len: usize,
    expiring: usize,
    bytes: usize,
    earliest: i64,
}

impl Sums {
    #[inline]
    fn of(segment: &Segment) -> Self {
        Sums {
            len: segment.len(),
            expiring: segment.expiring(),
            bytes: segment.memory_bytes(),
            earliest: segment.earliest,
        }
    }
}

/// Walks all entries of a table.
#[derive(Clone)]
pub struct Iter<'a> {
    chunks: std::slice::Iter<'a, Option<Arc<Chunk>>>,
    segments: std::slice::Iter<'a, Option<Arc<FullSegment>>>,
    current: Option<(&'a Segment, Slots<'a>)>,
    remaining: usize,
}

impl<'a> Iter<'a> {
    fn enter(&mut self, segment: &'a Segment) {
        self.current = Some((segment, segment.slots()));
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            if let Some((segment, slots)) = &mut self.current
                && let Some((_, offset)) = slots.next()
            {
                self.remaining -= 1;
                return Some(segment.entry_at(offset));
            }
            if let Some(slot) = self.segments.next() {
                if let Some(segment) = slot {
                    self.enter(&**segment);
                }
                continue;
            }
            let chunk = self.chunks.find_map(Option::as_ref)?;
            self.segments = chunk.segments.slots().iter();
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// One draw of a random entry: a slot of the root, of a chunk and of a segment. Where one is empty the draw is rejected,
/// so that every entry has the same chance.
fn draw(root: &Root, random: u64) -> Option<Entry<'_>> {
    let chunks = root.chunks.slots();
    let chunk = chunks[(random >> 40) as usize & (chunks.len() - 1)].as_ref()?;
    let segments = chunk.segments.slots();
    let drawn = if chunks.len() == 1 {
        segments.len()
    } else {
        CHUNK_SLOTS
    };
    let segment = segments
        .get((random >> 32) as usize & (drawn - 1))?
        .as_ref()?;
    let index = scale(random << 32, FULL_LIVE_MAX);
    segment.nth(index).map(|place| segment.entry(place))
}

fn random_of(segment: &Segment, random: u64) -> Option<Entry<'_>> {
    segment
        .nth(scale(random, segment.len()))
        .map(|place| segment.entry(place))
}

/// Random bits as a number below `bound`; 0 if that is 0.
pub(super) fn scale(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

fn stored_deadline(deadline: Timestamp) -> i64 {
    // The last millisecond stands for "never", which it is as good as.
    deadline.millis().min(NEVER - 1)
}

/// The cursor behind all that share the top `depth` bits with cursor `position`.
fn end_of_range(position: u64, depth: u8) -> u64 {
    let shift = CURSOR_BITS - u32::from(depth);
    ((position >> shift) + 1) << shift
}

#[cfg(test)]
mod tests;
