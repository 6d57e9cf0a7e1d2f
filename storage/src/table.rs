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
mod resize;
mod segment;
mod walk;

use std::{
    alloc::{alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use self::segment::{
    ADDRESS_BITS, ADDRESS_MASK, Bucket, HOME_MASK, Header, NEXT_BITS, NEXT_SHIFT, PROBE, SLOTS,
    Word, bucket_of, home, tag,
};
pub use self::walk::CURSOR_BITS;

use crate::{
    entry::{Entry, EntryMut, EntryRef, Meta},
    snapshot::Walk,
    time::Timestamp,
};

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

    /// As [`Table::prefetch`], with what else adding an entry reads and writes.
    #[inline]
    pub fn prefetch_place(&self, hash: u64) {
        if let Some(segment) = self.segment(hash) {
            prefetch(segment.base().as_ptr());
            self.prefetch(hash);
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
fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it neither reads nor faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
