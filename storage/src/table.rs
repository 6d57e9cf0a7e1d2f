//! The hash table of one database in one shard: extendible hashing over small segments of tagged pointers.
//!
//! ```text
//! hash      [ shard | directory bits, spread ...    | home (10) | tag (8) ]
//! directory 2^depth words: segment address | size class
//! segment   64-byte header, then n buckets of 64 bytes, n = 7, 15, ... 63
//! bucket    [ 7 tags | overflow ][ slot ] x 7        one cache line
//! slot      [ 6 next directory bits | home (10) | entry address (48) ]
//! ```
//!
//! A lookup reads the directory word, one bucket and one entry. An entry whose home bucket is full sits in one of the
//! next few; each full bucket counts the entries that had to pass it, so a search ends where nobody passed and
//! deleting needs no tombstones.
//!
//! A segment that is full grows by eight buckets, and beyond the largest size splits in two: about 400 slots move,
//! and nothing ever rehashes as a whole. Slots carry the hash bits that growing and splitting need, so entries stay
//! untouched, except that every sixth level of splitting refills the directory bits from the keys.
//! The idea is F14's buckets (Facebook, 2019) in extendible hashing's segments (Fagin et al., 1979; Dash, 2020).
//!
//! [`Table::traverse`] is the one traversal: it walks hash prefixes, which splits only refine, so every entry that
//! stays is visited however the table changes between calls.

mod relocate;

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use crate::{
    entry::{Entry, EntryMut, EntryRef, Meta},
    hash,
    snapshot::Walk,
    time::Timestamp,
};

const LINE: usize = 64;
const SLOTS: usize = 7;
/// How many buckets an entry may be away from its home, plus one.
const PROBE: usize = 8;
/// The largest segment fills a 4 KiB block with its header. Sizes are 8 k - 1 buckets, k = 1 to 8.
const LARGEST_CLASS: usize = 7;
/// Random slots that [`Table::sample`] looks at before it takes what it finds.
const SAMPLE_TRIES: usize = 2000;
/// What a split starts its halves with: they hold about 220 of 273 slots.
const SPLIT_CLASS: usize = 4;

const HOME_BITS: u32 = 10;
const HOME_SHIFT: u32 = 8;
const HOME_MASK: u64 = (1 << HOME_BITS) - 1;
/// Directory bits that a slot carries.
const NEXT_BITS: u32 = 6;
const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
const NEXT_SHIFT: u32 = ADDRESS_BITS + HOME_BITS;

/// A traversal's cursor: prefix, position within the prefix's segment, and the depth both belong to.
const CURSOR_PREFIX_BITS: u32 = 24;
const CURSOR_HOME_BITS: u32 = 7;
const CURSOR_DEPTH_BITS: u32 = 5;
/// Bits that [`Table::traverse`] uses of a cursor, from the lowest.
pub const CURSOR_BITS: u32 = CURSOR_PREFIX_BITS + CURSOR_HOME_BITS + CURSOR_DEPTH_BITS;

/// Entries by key. Every method takes the key's hash, [`hash::hash`], as computed once by the caller.
pub struct Table {
    directory: Vec<Word>,
    depth: u32,
    /// High hash bits that picked the shard and tell nothing here.
    shard_bits: u32,
    len: usize,
    deadlines: usize,
    field_deadlines: usize,
    segment_bytes: usize,
    entry_bytes: usize,
    /// What the entries' snapshot bit means, and how far the running snapshot is.
    pub(crate) walk: Walk,
}

/// What an entry adds to the sums over a table.
struct Account {
    bytes: usize,
    deadline: Option<Timestamp>,
    field_deadline: Option<Timestamp>,
}

impl Account {
    #[inline]
    fn of(entry: EntryRef<'_>) -> Account {
        Account {
            bytes: entry.own_bytes(),
            deadline: entry.deadline(),
            field_deadline: entry.field_deadline(),
        }
    }
}

/// Where an entry is; valid until the table changes.
#[derive(Clone, Copy)]
pub struct Place {
    bucket: NonNull<Bucket>,
    slot: usize,
    segment: Word,
}

impl Table {
    pub const fn new(shard_bits: u32) -> Table {
        Table {
            directory: Vec::new(),
            depth: 0,
            shard_bits,
            len: 0,
            deadlines: 0,
            field_deadlines: 0,
            segment_bytes: 0,
            entry_bytes: 0,
            walk: Walk::new(false),
        }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the table holds memory, be it for entries that were.
    pub fn has_segments(&self) -> bool {
        !self.directory.is_empty()
    }

    /// How many entries have a deadline.
    pub fn deadlines(&self) -> usize {
        self.deadlines
    }

    /// How many entries are hashes with a deadline on a field.
    pub fn field_deadlines(&self) -> usize {
        self.field_deadlines
    }

    /// Bytes of directory, segments and entries, without what collections and long strings hold. O(1).
    pub fn memory_bytes(&self) -> usize {
        self.overhead_bytes() + self.entry_bytes
    }

    /// Bytes of directory and segments. O(1).
    pub fn overhead_bytes(&self) -> usize {
        self.segment_bytes + self.directory.capacity() * size_of::<Word>()
    }

    /// Slots that the segments have room for.
    pub fn capacity(&self) -> usize {
        self.segments()
            .map(|(_, segment)| segment.buckets() * SLOTS)
            .sum()
    }

    #[inline]
    pub fn get(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_>> {
        let place = self.find(hash, key)?;
        Some(self.entry(place))
    }

    /// The place of the key's entry. O(1), usually one bucket and one entry.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        let segment = self.segment(hash)?;
        let (tag, home) = (tag(hash), home(hash));
        let buckets = segment.buckets();
        let mut index = bucket_of(home, buckets);
        for _ in 0..PROBE.min(buckets) {
            let bucket = segment.bucket(index);
            // SAFETY: buckets live as long as their segment, which `self` owns.
            let look = unsafe { bucket.as_ref() };
            let mut matches = look.matches(tag);
            while matches != 0 {
                let slot = (matches.trailing_zeros() / 8) as usize;
                let word = look.slots[slot];
                if (word >> ADDRESS_BITS) & HOME_MASK == home {
                    // SAFETY: an occupied slot holds the address of an entry that the table owns.
                    let entry = unsafe { EntryRef::at((word & ADDRESS_MASK) as usize) };
                    if entry.key() == key {
                        return Some(Place {
                            bucket,
                            slot,
                            segment,
                        });
                    }
                }
                matches &= matches - 1;
            }
            if look.overflow() == 0 {
                return None;
            }
            index = if index + 1 == buckets { 0 } else { index + 1 };
        }
        None
    }

    #[inline]
    pub fn entry(&self, place: Place) -> EntryRef<'_> {
        // SAFETY: the place came from this table, unchanged since, so the slot holds an owned entry.
        unsafe { EntryRef::at(place.bucket.as_ref().address(place.slot)) }
    }

    #[inline]
    pub fn entry_mut(&mut self, place: Place) -> EntryMut<'_> {
        // SAFETY: as in `entry`, and `self` is borrowed exclusively.
        unsafe { EntryMut::at(place.bucket.as_ref().address(place.slot)) }
    }

    /// Puts `entry` in the place of one with the same key; returns the old one.
    pub fn replace(&mut self, place: Place, mut entry: Entry) -> Entry {
        entry.look_mut().set_in_snapshot(self.walk.mark);
        debug_assert!(self.entry(place).key() == entry.look().key());
        let old = self.swap_address(place, entry);
        self.account_removed(old.look());
        let account = Account::of(self.entry(place));
        self.account_added(place.segment, account);
        old
    }

    /// Makes the entry at `place` a string of these bytes without moving it. False, and nothing is changed, if it is not
    /// one of the same length with the same parts.
    #[inline]
    pub fn overwrite(&mut self, place: Place, bytes: &[u8], meta: Meta) -> bool {
        let mark = self.walk.mark;
        let mut entry = self.entry_mut(place);
        if !entry.overwrite(bytes, meta) {
            return false;
        }
        entry.set_in_snapshot(mark);
        if let Some(deadline) = meta.deadline {
            place.segment.header().note_deadline(deadline);
        }
        true
    }

    /// Rebuilds the entry at `place`, which may move it.
    pub fn rebuild(&mut self, place: Place, build: impl FnOnce(Entry) -> Entry) {
        // SAFETY: the slot holds an owned entry; it is taken out here and the built one put back below. A panic in
        // between would leave a freed address, so the slot is cleared first and filled after.
        let old = unsafe {
            let bucket = &mut *place.bucket.as_ptr();
            Entry::from_address(bucket.address(place.slot))
        };
        self.account_removed(old.look());
        let guard = AbortOnUnwind;
        let mut new = build(old);
        new.look_mut().set_in_snapshot(self.walk.mark);
        let account = Account::of(new.look());
        // SAFETY: as above.
        let bucket = unsafe { &mut *place.bucket.as_ptr() };
        bucket.slots[place.slot] =
            bucket.slots[place.slot] & !ADDRESS_MASK | new.into_address() as u64;
        std::mem::forget(guard);
        self.account_added(place.segment, account);
    }

    /// Adds an entry whose key is not there yet.
    pub fn insert(&mut self, hash: u64, mut entry: Entry) {
        entry.look_mut().set_in_snapshot(self.walk.mark);
        debug_assert!(self.find(hash, entry.look().key()).is_none());
        if self.directory.is_empty() {
            let segment = self.new_segment(0, 0);
            self.directory.push(segment);
        }
        let account = Account::of(entry.look());
        let address = entry.into_address() as u64;
        debug_assert!(address & !ADDRESS_MASK == 0, "user addresses have 47 bits");
        loop {
            let segment = self.segment(hash).expect("the directory was filled above");
            let bits = self.slot_bits(hash, segment);
            if segment.insert(tag(hash), bits | address) {
                self.len += 1;
                self.account_added(segment, account);
                return;
            }
            self.grow(hash, segment);
        }
    }

    /// Takes the entry out.
    pub fn remove(&mut self, place: Place) -> Entry {
        // SAFETY: the place came from this table, unchanged since.
        let word = unsafe { place.bucket.as_ref() }.slots[place.slot];
        place.segment.take_out(place.bucket, place.slot, word);
        // SAFETY: the slot owned the entry and was cleared.
        let entry = unsafe { Entry::from_address((word & ADDRESS_MASK) as usize) };
        self.len -= 1;
        self.account_removed(entry.look());
        entry
    }

    /// Sets a deadline on the entry, or takes it away.
    pub fn set_deadline(&mut self, place: Place, deadline: Option<Timestamp>) {
        if let Some(deadline) = deadline
            && self.entry_mut(place).move_deadline(deadline)
        {
            place.segment.header().note_deadline(deadline);
            return;
        }
        if self.entry(place).deadline() == deadline {
            return;
        }
        self.rebuild(place, |entry| {
            let meta = entry.look().meta();
            entry.with_meta(Meta { deadline, ..meta })
        });
    }

    /// The hash at `place` was changed in place; `had` says whether a field of it had a deadline before.
    pub fn fields_changed(&mut self, place: Place, had: bool) {
        let deadline = self.entry(place).field_deadline();
        self.field_deadlines -= usize::from(had);
        self.field_deadlines += usize::from(deadline.is_some());
        if let Some(deadline) = deadline {
            place.segment.header().note_deadline(deadline);
        }
    }

    /// Brings the bucket of a hash towards the cache, for a lookup soon.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(segment) = self.segment(hash) {
            prefetch(
                segment
                    .bucket(bucket_of(home(hash), segment.buckets()))
                    .as_ptr()
                    .cast(),
            );
        }
    }

    /// Brings the entries that a lookup may compare towards the cache; its bucket should be there already.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        let Some(segment) = self.segment(hash) else {
            return;
        };
        let bucket = segment.bucket(bucket_of(home(hash), segment.buckets()));
        // SAFETY: buckets live as long as their segment, which `self` owns.
        let look = unsafe { bucket.as_ref() };
        let mut matches = look.matches(tag(hash));
        while matches != 0 {
            let slot = (matches.trailing_zeros() / 8) as usize;
            prefetch(std::ptr::without_provenance(look.address(slot)));
            matches &= matches - 1;
        }
    }

    /// Visits entries from `cursor` on until at least `budget` were visited; returns the next cursor, 0 at the end.
    ///
    /// Start with 0. Every entry that is present from the first call to the last is visited, whatever is inserted or
    /// removed in between; one may be visited twice when segments split or merge between calls. O(budget).
    pub fn traverse<'a>(
        &'a self,
        cursor: u64,
        budget: usize,
        mut visit: impl FnMut(Place, EntryRef<'a>),
    ) -> u64 {
        let mut at = Cursor::decode(cursor);
        let mut visited = 0;
        while !self.directory.is_empty() {
            let segment = self.directory[at.index(self.depth)];
            let depth = segment.header().depth;
            // The segment the cursor was in has merged into a wider one: its other half may not have been visited.
            let home_from = if depth < at.depth { 0 } else { at.home };
            // It split: the cursor's prefix is that of the first part, and the parts that follow start from anew.
            let homes = (HOME_MASK + 1) >> (HOME_BITS - CURSOR_HOME_BITS);
            let step = ((budget.saturating_sub(visited)).max(1) as u64 / 4).clamp(1, homes);
            let home_to = (home_from + step).min(homes);
            segment.visit_homes(home_from, home_to, |bucket, slot| {
                visited += 1;
                let place = Place {
                    bucket,
                    slot,
                    segment,
                };
                visit(place, self.entry(place));
            });
            if home_to < homes {
                at = Cursor {
                    prefix: at.prefix_at(depth),
                    home: home_to,
                    depth,
                };
            } else {
                match at.after(depth) {
                    Some(next) => at = next,
                    None => return 0,
                }
            }
            if visited >= budget {
                return at.encode();
            }
        }
        0
    }

    /// Visits the segments that hold an expired entry or field, taking out what `visit` says, from directory position
    /// `from` on; returns the position to go on from, 0 at the end. Looks at no more than `budget` entries and
    /// `16 x budget` segment headers.
    pub fn sweep_expired(
        &mut self,
        from: usize,
        budget: usize,
        now: Timestamp,
        mut expired: impl FnMut(&mut Table, Place),
    ) -> usize {
        let mut index = from;
        let mut looked = 0;
        let mut headers = 0;
        while index < self.directory.len() {
            let segment = self.directory[index];
            let depth = segment.header().depth;
            if segment.header().earliest <= now.0 {
                looked += segment.buckets() * SLOTS / 2;
                self.sweep_segment(segment, now, &mut expired);
            }
            index = (index | ((1 << (self.depth - depth)) - 1)) + 1;
            headers += 1;
            if looked >= budget || headers >= 16 * budget {
                break;
            }
        }
        if index >= self.directory.len() {
            0
        } else {
            index
        }
    }

    fn sweep_segment(
        &mut self,
        segment: Word,
        now: Timestamp,
        expired: &mut impl FnMut(&mut Table, Place),
    ) {
        let mut due = Vec::new();
        let mut earliest = i64::MAX;
        segment.visit(|bucket, slot| {
            let place = Place {
                bucket,
                slot,
                segment,
            };
            let entry = self.entry(place);
            let next = entry.deadline().into_iter().chain(entry.field_deadline());
            match next.min() {
                Some(deadline) if deadline <= now => due.push(place),
                Some(deadline) => earliest = earliest.min(deadline.0),
                None => {}
            }
        });
        segment.header().earliest = earliest;
        for place in due {
            expired(self, place);
        }
    }

    /// An entry picked with `random` (any 64 bits): uniform over segments, then over the slots found from a random
    /// bucket on. `None` only when the table is empty. O(1) on average.
    pub fn sample(&self, random: u64) -> Option<(Place, EntryRef<'_>)> {
        if self.len == 0 {
            return None;
        }
        let mut random = random;
        // Sparse tables (just after mass deletion) may need more tries than these, and take the next best.
        for _ in 0..SAMPLE_TRIES {
            // As keys fall, not evenly over the directory.
            let segment = self.directory[self.directory_index(random)];
            let bucket = segment.bucket((random as u32 as usize) % segment.buckets());
            // SAFETY: buckets live as long as their segment, which `self` owns.
            let look = unsafe { bucket.as_ref() };
            let slot = (random >> 20) as usize % SLOTS;
            // Rejecting empty slots keeps entries of crowded and of sparse buckets equally likely.
            if look.is_occupied(slot) {
                let place = Place {
                    bucket,
                    slot,
                    segment,
                };
                return Some((place, self.entry(place)));
            }
            random = next_random(random);
        }
        let start = self.directory_index(random);
        let mut found = None;
        for offset in 0..self.directory.len() {
            let segment = self.directory[(start + offset) % self.directory.len()];
            segment.visit(|bucket, slot| {
                found = Some(Place {
                    bucket,
                    slot,
                    segment,
                })
            });
            if found.is_some() {
                break;
            }
        }
        found.map(|place| (place, self.entry(place)))
    }

    /// Visits up to `wanted` entries that have a deadline, from a random segment on (`random` is any 64 bits). O(1) where
    /// many have one; segments without any are passed over by their headers.
    pub fn visit_deadlines<'a>(
        &'a self,
        random: u64,
        wanted: usize,
        mut visit: impl FnMut(Place, EntryRef<'a>),
    ) {
        let mut left = wanted.min(self.deadlines);
        if left == 0 {
            return;
        }
        let segments = self.directory.len();
        let start = self.directory_index(random);
        let mut index = start;
        while left > 0 && index < start + segments {
            let segment = self.directory[index % segments];
            let span = 1usize << (self.depth - segment.header().depth);
            if segment.header().earliest != i64::MAX {
                // From a random bucket on, so that all of a segment's entries have their turn.
                let buckets = segment.buckets();
                let first = random as u32 as usize % buckets;
                for offset in 0..buckets {
                    segment.visit_bucket((first + offset) % buckets, &mut |bucket, slot| {
                        let place = Place {
                            bucket,
                            slot,
                            segment,
                        };
                        let entry = self.entry(place);
                        if left > 0 && entry.deadline().is_some() {
                            left -= 1;
                            visit(place, entry);
                        }
                    });
                }
            }
            index = (index | (span - 1)) + 1;
        }
        // The first segment may begin before the start; what lies there was visited with it.
    }

    /// Merges sparse segments with their siblings and shrinks sparse segments; looks at `budget` segments from
    /// directory position `from` on and returns the next position, 0 at the end.
    pub fn compact(&mut self, from: usize, budget: usize) -> usize {
        if self.len == 0 {
            self.release();
            return 0;
        }
        let mut index = from;
        for _ in 0..budget {
            if index >= self.directory.len() {
                return 0;
            }
            index = self.compact_segment(index);
        }
        if index >= self.directory.len() {
            0
        } else {
            index
        }
    }

    fn compact_segment(&mut self, index: usize) -> usize {
        let segment = self.directory[index];
        let depth = segment.header().depth;
        let span = 1usize << (self.depth - depth);
        let start = index & !(span - 1);
        let next = start + span;
        let used = segment.count();
        if depth > 0 {
            let sibling = self.directory[start ^ span];
            // Half of what a split leaves behind, so that merging and splitting do not alternate.
            if sibling.header().depth == depth && used + sibling.count() <= 110 {
                self.merge(start & !span, depth);
                return next;
            }
        }
        let class = segment.class();
        if class > 0 && used * 2 < segment.buckets() * SLOTS {
            let wanted = (0..class)
                .find(|&class| used * 10 <= buckets_of(class) * SLOTS * 7)
                .unwrap_or(class);
            if wanted < class {
                self.resize(start, span, segment, wanted);
            }
        }
        next
    }

    /// Merges the two segments of `depth` below the directory range that begins at `start`.
    fn merge(&mut self, start: usize, depth: u32) {
        let half = 1usize << (self.depth - depth);
        let (low, high) = (self.directory[start], self.directory[start + half]);
        let merged = self.new_segment(SPLIT_CLASS, depth - 1);
        if ![low, high]
            .iter()
            .all(|&part| self.move_all(part, merged, Some))
        {
            self.free_segment(merged);
            return;
        }
        merged.header().earliest = low.header().earliest.min(high.header().earliest);
        self.directory[start..start + 2 * half].fill(merged);
        self.free_segment(low);
        self.free_segment(high);
        // Slots carry all bits back to the last refill; further back, the keys tell them again.
        if depth.is_multiple_of(NEXT_BITS) {
            self.refill_next_bits(merged);
        }
    }

    /// Gives back everything but the entries' count, for a table that has none.
    fn release(&mut self) {
        debug_assert!(self.len == 0);
        let segments: Vec<Word> = self.segments().map(|(_, segment)| segment).collect();
        for segment in segments {
            self.free_segment(segment);
        }
        self.directory = Vec::new();
        self.depth = 0;
    }

    #[inline]
    fn segment(&self, hash: u64) -> Option<Word> {
        self.directory.get(self.directory_index(hash)).copied()
    }

    #[inline]
    fn directory_index(&self, hash: u64) -> usize {
        // Two shifts, since a shift by 64 (depth 0) would be one too far.
        (self.local(hash) >> 1 >> (63 - self.depth)) as usize
    }

    /// The hash with the shard's bits shifted out and the rest spread: its top bits are the directory's.
    #[inline]
    fn local(&self, hash: u64) -> u64 {
        spread(hash << self.shard_bits)
    }

    /// The bits beside the address in a slot of `segment`.
    #[inline]
    fn slot_bits(&self, hash: u64, segment: Word) -> u64 {
        let base = segment.header().depth / NEXT_BITS * NEXT_BITS;
        let next = (self.local(hash) << base) >> (64 - NEXT_BITS);
        next << NEXT_SHIFT | home(hash) << ADDRESS_BITS
    }

    /// Makes room in the segment of `hash`, which is full around its home.
    #[cold]
    fn grow(&mut self, hash: u64, segment: Word) {
        let depth = segment.header().depth;
        let span = 1usize << (self.depth - depth);
        let start = self.directory_index(hash) & !(span - 1);
        if segment.class() < LARGEST_CLASS {
            self.resize(start, span, segment, segment.class() + 1);
        } else {
            self.split(start, segment);
        }
    }

    /// Moves the segment's entries into a new one of `class`, or a larger one should they not fit.
    fn resize(&mut self, start: usize, span: usize, segment: Word, class: usize) {
        let depth = segment.header().depth;
        for class in class..=LARGEST_CLASS {
            let resized = self.new_segment(class, depth);
            if self.move_all(segment, resized, Some) {
                resized.header().earliest = segment.header().earliest;
                self.directory[start..start + span].fill(resized);
                self.free_segment(segment);
                return;
            }
            self.free_segment(resized);
        }
        // Not even the largest takes them: the place is too crowded, so split instead.
        self.split(start, segment);
    }

    fn split(&mut self, start: usize, segment: Word) {
        let depth = segment.header().depth;
        let mut start = start;
        if depth == self.depth {
            self.directory = self
                .directory
                .iter()
                .flat_map(|&word| [word, word])
                .collect();
            self.depth += 1;
            start *= 2;
        }
        let half = 1usize << (self.depth - depth - 1);
        let bit_shift = NEXT_SHIFT + NEXT_BITS - 1 - depth % NEXT_BITS;
        for bit in [0, 1] {
            let part = self.filled_part(segment, depth, |slot| (slot >> bit_shift) & 1 == bit);
            part.header().earliest = segment.header().earliest;
            let from = start + bit as usize * half;
            self.directory[from..from + half].fill(part);
            if (depth + 1).is_multiple_of(NEXT_BITS) {
                self.refill_next_bits(part);
            }
        }
        self.free_segment(segment);
    }

    /// A new segment one deeper with those of `segment`'s slots that `belongs` picks.
    fn filled_part(&mut self, segment: Word, depth: u32, belongs: impl Fn(u64) -> bool) -> Word {
        for class in SPLIT_CLASS..=LARGEST_CLASS {
            let part = self.new_segment(class, depth + 1);
            if self.move_all(segment, part, |slot| belongs(slot).then_some(slot)) {
                return part;
            }
            self.free_segment(part);
        }
        // Nearly all of a crowded segment belongs to one part, as when keys come in the order of their hashes, and what
        // found room in the order that it came finds none in another: so it keeps its places.
        let part = self.new_segment(segment.class(), depth + 1);
        part.copy_places(segment);
        let mut others = Vec::new();
        part.visit(|bucket, slot| {
            // SAFETY: `visit` hands out buckets of a live segment.
            let word = unsafe { bucket.as_ref() }.slots[slot];
            if !belongs(word) {
                others.push((bucket, slot, word));
            }
        });
        for (bucket, slot, word) in others {
            part.take_out(bucket, slot, word);
        }
        part
    }

    /// Copies the slots that `pick` returns into `to`; false if one did not fit.
    fn move_all(&self, from: Word, to: Word, pick: impl Fn(u64) -> Option<u64>) -> bool {
        let mut fits = true;
        from.visit(|bucket, slot| {
            // SAFETY: `visit` hands out buckets of a live segment.
            let look = unsafe { bucket.as_ref() };
            if let Some(word) = pick(look.slots[slot]) {
                fits &= to.insert(u64::from(look.tag(slot)), word);
            }
        });
        fits
    }

    /// Reads the next directory bits of all entries from their keys, after a split used up what the slots had.
    fn refill_next_bits(&mut self, segment: Word) {
        segment.visit(|bucket, slot| {
            // SAFETY: `visit` hands out buckets of a live segment.
            prefetch(std::ptr::without_provenance(
                unsafe { bucket.as_ref() }.address(slot),
            ));
        });
        segment.visit(|bucket, slot| {
            let place = Place {
                bucket,
                slot,
                segment,
            };
            let bits = self.slot_bits(hash::hash(self.entry(place).key()), segment);
            // SAFETY: as above; the table is borrowed exclusively and no reference to the bucket is alive.
            let bucket = unsafe { &mut *bucket.as_ptr() };
            bucket.slots[slot] = bucket.slots[slot] & ADDRESS_MASK | bits;
        });
    }

    fn swap_address(&mut self, place: Place, entry: Entry) -> Entry {
        // SAFETY: the place came from this table, unchanged since; the table is borrowed exclusively.
        let bucket = unsafe { &mut *place.bucket.as_ptr() };
        let old = bucket.address(place.slot);
        bucket.slots[place.slot] =
            bucket.slots[place.slot] & !ADDRESS_MASK | entry.into_address() as u64;
        // SAFETY: the slot owned the old entry, and holds the new one now.
        unsafe { Entry::from_address(old) }
    }

    #[inline]
    fn account_added(&mut self, segment: Word, account: Account) {
        self.entry_bytes += account.bytes;
        if let Some(deadline) = account.deadline {
            self.deadlines += 1;
            segment.header().note_deadline(deadline);
        }
        if let Some(deadline) = account.field_deadline {
            self.field_deadlines += 1;
            segment.header().note_deadline(deadline);
        }
    }

    #[inline]
    fn account_removed(&mut self, entry: EntryRef<'_>) {
        let account = Account::of(entry);
        self.entry_bytes -= account.bytes;
        self.deadlines -= usize::from(account.deadline.is_some());
        self.field_deadlines -= usize::from(account.field_deadline.is_some());
    }

    fn new_segment(&mut self, class: usize, depth: u32) -> Word {
        let layout = Word::layout(class);
        // SAFETY: the layout is not empty. Zeroes are valid: no tag is set, so no slot is looked at.
        let Some(block) = NonNull::new(unsafe { alloc_zeroed(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the block begins with room for a header.
        unsafe {
            block.cast::<Header>().write(Header {
                earliest: i64::MAX,
                depth,
            })
        };
        self.segment_bytes += layout.size();
        Word(block.as_ptr().expose_provenance() | class)
    }

    fn free_segment(&mut self, segment: Word) {
        let layout = Word::layout(segment.class());
        self.segment_bytes -= layout.size();
        // SAFETY: allocated in `new_segment` with this layout; callers have taken it out of the directory.
        unsafe { dealloc(segment.base().as_ptr(), layout) }
    }

    /// Each segment once, with the first directory position it stands at.
    fn segments(&self) -> impl Iterator<Item = (usize, Word)> + '_ {
        let mut index = 0;
        std::iter::from_fn(move || {
            let segment = *self.directory.get(index)?;
            let at = index;
            index += 1 << (self.depth - segment.header().depth);
            Some((at, segment))
        })
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        let segments: Vec<Word> = self.segments().map(|(_, segment)| segment).collect();
        for segment in segments {
            segment.visit(|bucket, slot| {
                // SAFETY: the table owns the entries; each is taken once, as the segment goes right after.
                drop(unsafe { Entry::from_address(bucket.as_ref().address(slot)) });
            });
            self.free_segment(segment);
        }
    }
}

// SAFETY: a table owns its segments and entries, which are `Send` and `Sync`; shared access only reads.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

/// A segment: its address with the size class in the low bits, as the directory keeps it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Word(usize);

#[repr(C, align(64))]
struct Header {
    /// No entry's deadline, nor that of a hash's field, is before this; `i64::MAX` when none has one. May be too early, never too late.
    earliest: i64,
    depth: u32,
}

impl Header {
    #[inline]
    fn note_deadline(&mut self, deadline: Timestamp) {
        self.earliest = self.earliest.min(deadline.0);
    }
}

#[repr(C, align(64))]
struct Bucket {
    /// Seven tags (0 = empty), then the number of entries that passed this bucket when it was full.
    control: u64,
    slots: [u64; SLOTS],
}

const _: () = assert!(size_of::<Bucket>() == LINE && size_of::<Header>() == LINE);

const fn buckets_of(class: usize) -> usize {
    8 * (class + 1) - 1
}

impl Word {
    fn layout(class: usize) -> Layout {
        Layout::from_size_align((buckets_of(class) + 1) * LINE, LINE).expect("at most 4 KiB")
    }

    #[inline]
    fn class(self) -> usize {
        self.0 & LARGEST_CLASS
    }

    #[inline]
    fn buckets(self) -> usize {
        buckets_of(self.class())
    }

    #[inline]
    fn base(self) -> NonNull<u8> {
        // SAFETY: the address of an allocation, without its class bits, is not null.
        unsafe {
            NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(self.0 & !(LINE - 1)))
        }
    }

    /// The header. Callers hold the shard's lock, and no reference outlives its statement.
    #[inline]
    #[expect(
        clippy::mut_from_ref,
        reason = "the word is a pointer, not the owner; the table is what is borrowed"
    )]
    fn header(&self) -> &mut Header {
        // SAFETY: a segment begins with its header. The references made here never overlap: each is used and dropped
        // within one expression, under the exclusive or shared borrow of the table, whose readers write no header.
        unsafe { self.base().cast::<Header>().as_mut() }
    }

    #[inline]
    fn bucket(self, index: usize) -> NonNull<Bucket> {
        debug_assert!(index < self.buckets());
        // SAFETY: a segment has `buckets()` buckets after its header.
        unsafe { self.base().cast::<Bucket>().add(1 + index) }
    }

    /// Puts a slot into the first free place from its home on. False if all within reach are full.
    #[inline]
    fn insert(self, tag: u64, word: u64) -> bool {
        let buckets = self.buckets();
        let home = bucket_of((word >> ADDRESS_BITS) & HOME_MASK, buckets);
        let mut index = home;
        for distance in 0..PROBE.min(buckets) {
            // SAFETY: buckets live as long as their segment; the caller holds the table exclusively.
            let bucket = unsafe { self.bucket(index).as_mut() };
            if let Some(slot) = bucket.free_slot() {
                bucket.fill(slot, tag, word);
                for passed in 0..distance {
                    // SAFETY: as above; another bucket than the one borrowed above, which is not used any more.
                    unsafe { self.bucket((home + passed) % buckets).as_mut() }.pass(1);
                }
                return true;
            }
            index = if index + 1 == buckets { 0 } else { index + 1 };
        }
        false
    }

    /// Fills all buckets as those of another segment of the same size are.
    fn copy_places(self, other: Word) {
        debug_assert_eq!(self.class(), other.class());
        for index in 0..self.buckets() {
            // SAFETY: buckets live as long as their segment; these are two segments, so that nothing overlaps.
            let (to, from) = unsafe { (self.bucket(index).as_mut(), other.bucket(index).as_ref()) };
            (to.control, to.slots) = (from.control, from.slots);
        }
    }

    /// Frees the place of an entry, whose slot this is; the entry is the caller's.
    #[inline]
    fn take_out(self, bucket: NonNull<Bucket>, slot: usize, word: u64) {
        // SAFETY: buckets live as long as their segment; the caller holds the table exclusively.
        unsafe { &mut *bucket.as_ptr() }.clear(slot);
        self.leave(bucket, (word >> ADDRESS_BITS) & HOME_MASK);
    }

    /// Tells the buckets between its home and `at` that an entry is gone.
    fn leave(self, at: NonNull<Bucket>, home: u64) {
        let buckets = self.buckets();
        let mut index = bucket_of(home, buckets);
        while self.bucket(index) != at {
            // SAFETY: buckets live as long as their segment; the caller holds the table exclusively.
            unsafe { self.bucket(index).as_mut() }.pass(-1);
            index = if index + 1 == buckets { 0 } else { index + 1 };
        }
    }

    fn visit(self, mut visit: impl FnMut(NonNull<Bucket>, usize)) {
        for index in 0..self.buckets() {
            self.visit_bucket(index, &mut visit);
        }
    }

    fn visit_bucket(self, index: usize, visit: &mut impl FnMut(NonNull<Bucket>, usize)) {
        let bucket = self.bucket(index);
        for slot in 0..SLOTS {
            // SAFETY: buckets live as long as their segment.
            if unsafe { bucket.as_ref() }.is_occupied(slot) {
                visit(bucket, slot);
            }
        }
    }

    /// Visits the entries whose home, in units of the cursor's resolution, is in `from..to`.
    fn visit_homes(self, from: u64, to: u64, mut visit: impl FnMut(NonNull<Bucket>, usize)) {
        let buckets = self.buckets();
        let unit = HOME_BITS - CURSOR_HOME_BITS;
        let first = bucket_of(from << unit, buckets);
        let last = bucket_of((to << unit) - 1, buckets);
        let reach = (last - first + PROBE).min(buckets);
        for offset in 0..reach {
            self.visit_bucket((first + offset) % buckets, &mut |bucket, slot| {
                // SAFETY: buckets live as long as their segment.
                let word = unsafe { bucket.as_ref() }.slots[slot];
                let home = (word >> ADDRESS_BITS) & HOME_MASK;
                if (from..to).contains(&(home >> unit)) {
                    visit(bucket, slot);
                }
            });
        }
    }

    fn count(self) -> usize {
        // SAFETY: buckets live as long as their segment.
        (0..self.buckets())
            .map(|index| unsafe { self.bucket(index).as_ref() }.count())
            .sum()
    }
}

impl Bucket {
    const TAGS: u64 = 0x00ff_ffff_ffff_ffff;
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    /// A bit at the top of each byte whose tag is `tag`; a false one is possible above a true one, and is told from
    /// it by the key.
    #[inline]
    fn matches(&self, tag: u64) -> u64 {
        let difference = self.control ^ (tag * Self::LOW);
        // A byte above a match can be reported falsely when it differs in its lowest bit only: still an occupied
        // slot unless its tag is 0, which `tag` xor 1 can only be for tag 1: the mask below drops those.
        difference.wrapping_sub(Self::LOW) & !difference & Self::HIGH & self.occupied()
    }

    /// A bit at the top of each byte whose tag is not 0.
    #[inline]
    fn occupied(&self) -> u64 {
        let tags = self.control & Self::TAGS;
        (((tags & !Self::HIGH) + !Self::HIGH) | tags) & Self::HIGH & Self::TAGS
    }

    #[inline]
    fn is_occupied(&self, slot: usize) -> bool {
        self.tag(slot) != 0
    }

    #[inline]
    fn tag(&self, slot: usize) -> u8 {
        (self.control >> (8 * slot)) as u8
    }

    #[inline]
    fn count(&self) -> usize {
        self.occupied().count_ones() as usize
    }

    #[inline]
    fn free_slot(&self) -> Option<usize> {
        let free = !self.occupied() & Self::HIGH & Self::TAGS;
        (free != 0).then(|| (free.trailing_zeros() / 8) as usize)
    }

    #[inline]
    fn fill(&mut self, slot: usize, tag: u64, word: u64) {
        self.control |= tag << (8 * slot);
        self.slots[slot] = word;
    }

    #[inline]
    fn clear(&mut self, slot: usize) {
        self.control &= !(0xff << (8 * slot));
        self.slots[slot] = 0;
    }

    #[inline]
    fn address(&self, slot: usize) -> usize {
        (self.slots[slot] & ADDRESS_MASK) as usize
    }

    #[inline]
    fn overflow(&self) -> u64 {
        self.control >> 56
    }

    /// At most 49 entries can have passed: seven from each of the seven homes before.
    fn pass(&mut self, by: i64) {
        self.control = self.control.wrapping_add((by << 56) as u64);
    }
}

/// A position in a traversal.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The top bits of the local hash.
    prefix: u64,
    home: u64,
    /// The depth of the segment that `home` was reached in.
    depth: u32,
}

impl Cursor {
    fn decode(cursor: u64) -> Cursor {
        let home = (cursor >> CURSOR_DEPTH_BITS) & ((1 << CURSOR_HOME_BITS) - 1);
        let prefix =
            (cursor >> (CURSOR_DEPTH_BITS + CURSOR_HOME_BITS)) & ((1 << CURSOR_PREFIX_BITS) - 1);
        let depth = (cursor & ((1 << CURSOR_DEPTH_BITS) - 1)) as u32;
        Cursor {
            prefix,
            home,
            depth: depth.min(CURSOR_PREFIX_BITS),
        }
    }

    fn encode(self) -> u64 {
        (self.prefix << CURSOR_HOME_BITS | self.home) << CURSOR_DEPTH_BITS | u64::from(self.depth)
    }

    fn index(self, depth: u32) -> usize {
        (self.prefix >> (CURSOR_PREFIX_BITS - depth)) as usize
    }

    /// The prefix of the segment of `depth` that this prefix lies in.
    fn prefix_at(self, depth: u32) -> u64 {
        self.prefix >> (CURSOR_PREFIX_BITS - depth) << (CURSOR_PREFIX_BITS - depth)
    }

    /// The start of the segment after the one of `depth` that the cursor is in.
    fn after(self, depth: u32) -> Option<Cursor> {
        let prefix = self.prefix_at(depth) + (1 << (CURSOR_PREFIX_BITS - depth));
        (prefix < 1 << CURSOR_PREFIX_BITS).then_some(Cursor {
            prefix,
            home: 0,
            depth: 0,
        })
    }
}

/// Ends the process rather than unwinding through a table whose slot points nowhere.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// Spiral storage (Martin, 1979): maps the fraction x of all hashes to 2^x - 1, so that prefixes are up to twice as dense
/// at one end as at the other.
///
/// Else all segments would be equally full, and grow and split in the same moment, one wave after another; what one size
/// class of the allocator gives back nobody takes then, up to 70 % more memory than the segments have. This way some grow
/// at any time, into what others leave. 2^x - 1 is a polynomial here whose coefficients add up to one and which never
/// falls: that is all that matters.
#[inline]
fn spread(hash: u64) -> u64 {
    const CUBIC: u64 = 0x13c9_eecb_fb15_b500;
    const SQUARE: u64 = 0x3a43_fe5c_91d1_4e00;
    const LINEAR: u64 = u64::MAX - SQUARE - CUBIC;
    let times = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
    times(hash, LINEAR + times(hash, SQUARE + times(hash, CUBIC)))
}

#[inline]
fn tag(hash: u64) -> u64 {
    // 0 marks an empty slot.
    (hash & 0xff).max(1)
}

#[inline]
fn home(hash: u64) -> u64 {
    (hash >> HOME_SHIFT) & HOME_MASK
}

#[inline]
fn bucket_of(home: u64, buckets: usize) -> usize {
    (home as usize * buckets) >> HOME_BITS
}

/// SplitMix64 (Steele et al., 2014): the next of a sequence of random numbers.
fn next_random(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[inline]
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it neither reads nor faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
