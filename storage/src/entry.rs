//! One key with its value and metadata, in a single allocation behind one thin pointer.
//!
//! ```text
//! byte  0      kind           what the value is and how it is held
//! byte  1      flags          which optional parts follow, and marks
//! bytes 2-3    access         the eviction policy's bits
//! byte  4      key length     255: a four-byte length precedes the key
//! bytes 5-7    small          inline string: its length; small integer: its value
//!              deadline       8 bytes, if flagged: milliseconds since the epoch
//!              item           12 bytes, if flagged: memcached client flags and CAS
//!              key length     4 bytes, if the key is 255 bytes or longer
//!              key bytes
//!              value          inline: the bytes; integer: 8 bytes; else the value's handle, 8-byte aligned
//! ```
//!
//! A counter up to 8 million costs its key and 8 bytes; a short string its key, its bytes and 8.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU16, Ordering},
};

use triomphe::Arc;

use crate::{
    time::Timestamp,
    value::{
        Type, Value, ValueRef, hash::Hash, list::List, set::Set, sorted_set::SortedSet,
        stream::Stream,
    },
};

/// Strings up to this many bytes live inside the entry, longer ones in a shared buffer of their own.
pub const INLINE_MAX: usize = 4096;

const HEADER: usize = 8;
const DEADLINE: usize = 8;
const ITEM: usize = 12;
const LONG_KEY: usize = 4;
/// Key lengths from here on are stored in four bytes of their own.
const LONG_KEY_MIN: usize = 255;
const SMALL_INT_MAX: i64 = (1 << 23) - 1;
const SMALL_INT_MIN: i64 = -(1 << 23);
const ALIGN: usize = 8;

/// How the value is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Inline,
    SmallInt,
    Int,
    Shared,
    List,
    Set,
    Hash,
    SortedSet,
    Stream,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Inline,
        Kind::SmallInt,
        Kind::Int,
        Kind::Shared,
        Kind::List,
        Kind::Set,
        Kind::Hash,
        Kind::SortedSet,
        Kind::Stream,
    ];

    const fn value_type(self) -> Type {
        match self {
            Kind::Inline | Kind::SmallInt | Kind::Int | Kind::Shared => Type::String,
            Kind::List => Type::List,
            Kind::Set => Type::Set,
            Kind::Hash => Type::Hash,
            Kind::SortedSet => Type::SortedSet,
            Kind::Stream => Type::Stream,
        }
    }

    /// Bytes and alignment of the value part, given the length of an inline string.
    const fn value_layout(self, inline_len: usize) -> (usize, usize) {
        match self {
            Kind::Inline => (inline_len, 1),
            Kind::SmallInt => (0, 1),
            Kind::Int => (8, 1),
            Kind::Shared => (size_of::<Arc<Vec<u8>>>(), ALIGN),
            Kind::List => (size_of::<List>(), ALIGN),
            Kind::Set => (size_of::<Set>(), ALIGN),
            Kind::Hash => (size_of::<Hash>(), ALIGN),
            Kind::SortedSet => (size_of::<SortedSet>(), ALIGN),
            Kind::Stream => (size_of::<Box<Stream>>(), ALIGN),
        }
    }
}

const _: () = assert!(
    align_of::<List>() <= ALIGN && align_of::<Set>() <= ALIGN && align_of::<Hash>() <= ALIGN
);
const _: () = assert!(align_of::<SortedSet>() <= ALIGN && align_of::<Stream>() <= ALIGN);

mod flag {
    pub(super) const DEADLINE: u8 = 1;
    pub(super) const ITEM: u8 = 2;
    /// A string that was edited in place: clients see the encoding `raw` whatever its length.
    pub(super) const RAW: u8 = 4;
    /// Visited by the running snapshot's walk, or born after its cut; what value says so alternates.
    pub(super) const SNAPSHOT: u8 = 8;
    /// memcached: invalidated but still served as stale.
    pub(super) const STALE: u8 = 16;
    /// memcached: the right to recache was handed out.
    pub(super) const WON: u8 = 32;
    /// memcached: fetched since it was stored.
    pub(super) const FETCHED: u8 = 64;
}

/// memcached's view of an item: what a plain string does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Item {
    /// Opaque to the server, returned with the value.
    pub flags: u32,
    /// Changes with every write; 0 when nobody has asked yet.
    pub cas: u64,
}

/// Marks that only memcached's meta commands read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ItemMarks {
    pub stale: bool,
    pub won: bool,
    pub fetched: bool,
}

/// Everything about a key but its name and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    pub deadline: Option<Timestamp>,
    pub item: Option<Item>,
    pub access: u16,
}

/// An owned entry.
pub struct Entry(Raw);

/// A shared look at an entry.
#[derive(Clone, Copy)]
pub struct EntryRef<'a>(Raw, PhantomData<&'a Entry>);

/// An exclusive look at an entry, for changes that do not move it.
pub struct EntryMut<'a>(Raw, PhantomData<&'a mut Entry>);

// SAFETY: an entry owns its bytes and its value, and every value type is `Send` and `Sync`; the access bits are atomic.
unsafe impl Send for Entry {}
// SAFETY: as above: shared looks only read, but for the atomic access bits.
unsafe impl Sync for Entry {}

impl Entry {
    /// An entry holding `value`. Strings are stored in their smallest form: integers as such when canonical.
    pub fn new(key: &[u8], value: Value, meta: Meta) -> Entry {
        match value {
            Value::String(bytes) => Entry::from_vec(key, bytes, meta),
            Value::Shared(buffer) => Entry::with_handle(key, Kind::Shared, meta, buffer),
            Value::Int(number) => Entry::integer(key, number, meta),
            Value::List(list) => Entry::with_handle(key, Kind::List, meta, list),
            Value::Set(set) => Entry::with_handle(key, Kind::Set, meta, set),
            Value::Hash(hash) => Entry::with_handle(key, Kind::Hash, meta, hash),
            Value::SortedSet(set) => Entry::with_handle(key, Kind::SortedSet, meta, set),
            Value::Stream(stream) => Entry::with_handle(key, Kind::Stream, meta, stream),
        }
    }

    /// A string entry; `bytes` are copied once. Not turned into an integer.
    #[inline]
    pub fn string(key: &[u8], bytes: &[u8], meta: Meta) -> Entry {
        if bytes.len() > INLINE_MAX {
            return Entry::with_handle(key, Kind::Shared, meta, Arc::new(bytes.to_vec()));
        }
        let raw = Raw::allocate(key, Kind::Inline, meta, bytes.len());
        // SAFETY: `allocate` made room for `bytes.len()` value bytes at the value's offset.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), raw.value_ptr(), bytes.len()) };
        Entry(raw)
    }

    /// A string entry from an owned buffer, which long strings keep.
    pub fn from_vec(key: &[u8], bytes: Vec<u8>, meta: Meta) -> Entry {
        if bytes.len() > INLINE_MAX {
            Entry::with_handle(key, Kind::Shared, meta, Arc::new(bytes))
        } else {
            Entry::string(key, &bytes, meta)
        }
    }

    /// An entry holding an integer, which reads as its decimal string.
    #[inline]
    pub fn integer(key: &[u8], number: i64, meta: Meta) -> Entry {
        if (SMALL_INT_MIN..=SMALL_INT_MAX).contains(&number) {
            let raw = Raw::allocate(key, Kind::SmallInt, meta, 0);
            raw.set_small(number as u32 & 0xff_ffff);
            return Entry(raw);
        }
        let raw = Raw::allocate(key, Kind::Int, meta, 0);
        // SAFETY: `allocate` made room for 8 value bytes.
        unsafe { raw.value_ptr().cast::<i64>().write_unaligned(number) };
        Entry(raw)
    }

    fn with_handle<T>(key: &[u8], kind: Kind, meta: Meta, handle: T) -> Entry {
        let raw = Raw::allocate(key, kind, meta, 0);
        // SAFETY: callers pair `kind` with its handle type, for which `allocate` made aligned room.
        unsafe { raw.value_ptr().cast::<T>().write(handle) };
        Entry(raw)
    }

    /// The same key and metadata with another value of whatever type; the old value is dropped.
    pub fn with_value(&self, value: Value) -> Entry {
        let look = self.look();
        Entry::new(look.key(), value, look.meta())
    }

    /// The same entry with other metadata, in a new allocation if the optional parts differ.
    pub fn with_meta(self, meta: Meta) -> Entry {
        let raw = self.0;
        if raw.has(flag::DEADLINE) == meta.deadline.is_some()
            && raw.has(flag::ITEM) == meta.item.is_some()
        {
            raw.write_meta(meta);
            return self;
        }
        let moved = Raw::allocate(raw.key(), raw.kind(), meta, raw.inline_len());
        moved.set_small(raw.small());
        let marks = flag::RAW | flag::SNAPSHOT | flag::STALE | flag::WON | flag::FETCHED;
        moved.set_flags(moved.flags() | raw.flags() & marks);
        let (len, _) = raw.kind().value_layout(raw.inline_len());
        // SAFETY: both values have the same layout; the old one is forgotten below, so handles move.
        unsafe { ptr::copy_nonoverlapping(raw.value_ptr(), moved.value_ptr(), len) };
        raw.free();
        std::mem::forget(self);
        Entry(moved)
    }

    /// Whether the value lies inside the entry, so that dropping it is one free.
    #[inline]
    pub fn is_plain(&self) -> bool {
        matches!(self.0.kind(), Kind::Inline | Kind::SmallInt | Kind::Int)
    }

    /// Takes the value out, for keys that are renamed or freed elsewhere.
    pub fn into_value(self) -> Value {
        let entry = ManuallyDrop::new(self);
        let value = entry.0.take_value();
        entry.0.free();
        value
    }

    #[inline]
    pub fn look(&self) -> EntryRef<'_> {
        EntryRef(self.0, PhantomData)
    }

    #[inline]
    pub fn look_mut(&mut self) -> EntryMut<'_> {
        EntryMut(self.0, PhantomData)
    }

    /// The address, for the table to keep; [`Entry::from_address`] takes it back.
    #[inline]
    pub(crate) fn into_address(self) -> usize {
        let address = self.0.0.as_ptr().expose_provenance();
        std::mem::forget(self);
        address
    }

    /// The same entry in another allocation.
    pub(crate) fn relocated(self) -> Entry {
        let raw = self.0;
        std::mem::forget(self);
        Entry(raw.relocate())
    }

    /// # Safety
    /// - `address` came from [`Entry::into_address`] and is taken back once.
    #[inline]
    pub(crate) unsafe fn from_address(address: usize) -> Entry {
        // SAFETY: the caller's duty; addresses of allocations are not null.
        Entry(Raw(unsafe {
            NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address))
        }))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_plain() {
            drop(self.0.take_value());
        }
        self.0.free();
    }
}

impl<'a> EntryRef<'a> {
    /// # Safety
    /// - `address` came from [`Entry::into_address`], and the entry outlives `'a` unchanged but for its access bits.
    #[inline]
    pub(crate) unsafe fn at(address: usize) -> EntryRef<'a> {
        // SAFETY: the caller's duty.
        EntryRef(
            Raw(unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }),
            PhantomData,
        )
    }

    #[inline]
    pub fn key(self) -> &'a [u8] {
        self.0.key()
    }

    #[inline]
    pub fn value_type(self) -> Type {
        self.0.kind().value_type()
    }

    #[inline]
    pub fn value(self) -> ValueRef<'a> {
        let raw = self.0;
        // SAFETY: the kind says what the value part holds; it lives as long as the entry.
        unsafe {
            match raw.kind() {
                Kind::Inline => ValueRef::Bytes(std::slice::from_raw_parts(
                    raw.value_ptr(),
                    raw.inline_len(),
                )),
                Kind::SmallInt => ValueRef::Int(raw.small_int()),
                Kind::Int => ValueRef::Int(raw.value_ptr().cast::<i64>().read_unaligned()),
                Kind::Shared => ValueRef::Shared(&*raw.value_ptr().cast()),
                Kind::List => ValueRef::List(&*raw.value_ptr().cast()),
                Kind::Set => ValueRef::Set(&*raw.value_ptr().cast()),
                Kind::Hash => ValueRef::Hash(&*raw.value_ptr().cast()),
                Kind::SortedSet => ValueRef::SortedSet(&*raw.value_ptr().cast()),
                Kind::Stream => ValueRef::Stream(&*raw.value_ptr().cast::<Box<Stream>>()),
            }
        }
    }

    /// The bytes of a string that is held within the entry, as most values are.
    #[inline(always)]
    pub fn inline_text(self) -> Option<&'a [u8]> {
        let raw = self.0;
        if raw.byte(0) != Kind::Inline as u8 {
            return None;
        }
        let key = raw.key();
        // SAFETY: such a string follows the key; it lives as long as the entry.
        Some(unsafe {
            std::slice::from_raw_parts(key.as_ptr().add(key.len()), raw.small() as usize)
        })
    }

    /// A string that was edited in place, which clients see as `raw`.
    pub fn is_raw(self) -> bool {
        self.0.has(flag::RAW)
    }

    #[inline]
    pub fn deadline(self) -> Option<Timestamp> {
        self.0.deadline()
    }

    /// A time before which no field expires, if the value is a hash with a deadline on a field.
    #[inline]
    pub fn field_deadline(self) -> Option<Timestamp> {
        if self.0.kind() != Kind::Hash {
            return None;
        }
        match self.value() {
            ValueRef::Hash(hash) if hash.expiring() > 0 => hash.earliest_deadline(),
            _ => None,
        }
    }

    /// Whether the deadline has passed. A key lives up to its deadline and not in the millisecond itself.
    #[inline]
    pub fn is_expired(self, now: Timestamp) -> bool {
        self.0.has(flag::DEADLINE) && self.0.deadline().is_some_and(|deadline| deadline <= now)
    }

    pub fn item(self) -> Option<Item> {
        self.0.item()
    }

    pub fn marks(self) -> ItemMarks {
        ItemMarks {
            stale: self.0.has(flag::STALE),
            won: self.0.has(flag::WON),
            fetched: self.0.has(flag::FETCHED),
        }
    }

    pub fn meta(self) -> Meta {
        Meta {
            deadline: self.0.deadline(),
            item: self.0.item(),
            access: self.access(),
        }
    }

    /// The eviction policy's bits.
    #[inline]
    pub fn access(self) -> u16 {
        self.0.access_bits().load(Ordering::Relaxed)
    }

    /// Sets the eviction policy's bits; a hint, so readers may do it.
    #[inline]
    pub fn set_access(self, bits: u16) {
        self.0.access_bits().store(bits, Ordering::Relaxed);
    }

    /// A copy that shares what can be shared: cheap for big values.
    pub fn to_entry(self) -> Entry {
        let (key, meta) = (self.key(), self.meta());
        match self.value() {
            ValueRef::Bytes(bytes) => Entry::string(key, bytes, meta),
            value => Entry::new(key, value.to_value(), meta),
        }
    }

    /// The bit that says whether a snapshot has this entry; what its value means alternates, see
    /// [`snapshot`](crate::snapshot).
    pub fn in_snapshot(self) -> bool {
        self.0.has(flag::SNAPSHOT)
    }

    /// Bytes of the entry's own allocation and of what its value holds.
    pub fn memory_bytes(self) -> usize {
        self.0.layout().size() + self.value().memory_bytes()
    }

    /// Bytes of the entry's own allocation alone. O(1).
    pub fn own_bytes(self) -> usize {
        self.0.layout().size()
    }
}

impl<'a> EntryMut<'a> {
    /// # Safety
    /// - `address` came from [`Entry::into_address`], and nothing else looks at the entry during `'a`.
    #[inline]
    pub(crate) unsafe fn at(address: usize) -> EntryMut<'a> {
        // SAFETY: the caller's duty.
        EntryMut(
            Raw(unsafe { NonNull::new_unchecked(ptr::with_exposed_provenance_mut(address)) }),
            PhantomData,
        )
    }

    #[inline]
    pub fn look(&self) -> EntryRef<'_> {
        EntryRef(self.0, PhantomData)
    }

    /// Makes an inline string of the same length and with the same optional parts another. False if it is none.
    #[inline]
    pub fn overwrite(&mut self, bytes: &[u8], meta: Meta) -> bool {
        let raw = self.0;
        if raw.kind() != Kind::Inline
            || raw.inline_len() != bytes.len()
            || raw.has(flag::DEADLINE) != meta.deadline.is_some()
            || raw.has(flag::ITEM) != meta.item.is_some()
        {
            return false;
        }
        raw.set_flags(raw.flags() & (flag::DEADLINE | flag::ITEM | flag::SNAPSHOT));
        raw.write_meta(meta);
        // SAFETY: the value part has room for `inline_len()` bytes, which is how many there are.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), raw.value_ptr(), bytes.len()) };
        true
    }

    /// Overwrites a string of the same length, or an integer that fits the place. False if it does not fit: the
    /// caller then replaces the entry.
    #[inline]
    pub fn set_integer(&mut self, number: i64) -> bool {
        match self.0.kind() {
            Kind::SmallInt if (SMALL_INT_MIN..=SMALL_INT_MAX).contains(&number) => {
                self.0.set_small(number as u32 & 0xff_ffff);
                true
            }
            Kind::Int if !(SMALL_INT_MIN..=SMALL_INT_MAX).contains(&number) => {
                // SAFETY: an `Int` has 8 value bytes.
                unsafe { self.0.value_ptr().cast::<i64>().write_unaligned(number) };
                true
            }
            _ => false,
        }
    }

    /// The bytes of an inline string, to change in place.
    pub fn inline_bytes(&mut self) -> Option<&mut [u8]> {
        // SAFETY: an `Inline` value has `inline_len` initialised bytes, borrowed exclusively with `self`.
        (self.0.kind() == Kind::Inline).then(|| unsafe {
            std::slice::from_raw_parts_mut(self.0.value_ptr(), self.0.inline_len())
        })
    }

    /// The buffer of a long string.
    pub fn into_shared(self) -> Option<&'a mut Arc<Vec<u8>>> {
        self.into_handle(Kind::Shared)
    }

    /// Moves the bytes of a long string that nobody else reads to another allocation, if `pick` says so of the one they
    /// are in. Whether they moved.
    pub(crate) fn relocate_buffer(self, pick: impl Fn(*const u8) -> bool) -> bool {
        match self.into_shared().and_then(Arc::get_mut) {
            Some(bytes) if pick(bytes.as_ptr()) => {
                *bytes = bytes.clone();
                true
            }
            _ => false,
        }
    }

    pub fn into_list(self) -> Option<&'a mut List> {
        self.into_handle(Kind::List)
    }

    pub fn into_set(self) -> Option<&'a mut Set> {
        self.into_handle(Kind::Set)
    }

    pub fn into_hash(self) -> Option<&'a mut Hash> {
        self.into_handle(Kind::Hash)
    }

    pub fn into_sorted_set(self) -> Option<&'a mut SortedSet> {
        self.into_handle(Kind::SortedSet)
    }

    pub fn into_stream(self) -> Option<&'a mut Stream> {
        self.into_handle::<Box<Stream>>(Kind::Stream)
            .map(|stream| &mut **stream)
    }

    fn into_handle<T>(self, kind: Kind) -> Option<&'a mut T> {
        // SAFETY: the accessors above pair each kind with the type that `with_handle` wrote for it; the entry is
        // borrowed exclusively for `'a`, and this look at it ends here.
        (self.0.kind() == kind).then(|| unsafe { &mut *self.0.value_ptr().cast::<T>() })
    }

    /// Changes a deadline that is already there. False if there is none.
    pub fn move_deadline(&mut self, deadline: Timestamp) -> bool {
        let has = self.0.has(flag::DEADLINE);
        if has {
            self.0.write_deadline(deadline);
        }
        has
    }

    /// Changes the memcached part that is already there. False if there is none.
    pub fn set_item(&mut self, item: Item) -> bool {
        let has = self.0.has(flag::ITEM);
        if has {
            self.0.write_item(item);
        }
        has
    }

    pub fn set_marks(&mut self, marks: ItemMarks) {
        self.0.put(flag::STALE, marks.stale);
        self.0.put(flag::WON, marks.won);
        self.0.put(flag::FETCHED, marks.fetched);
    }

    /// From now on clients see the encoding `raw`.
    pub fn mark_raw(&mut self) {
        self.0.put(flag::RAW, true);
    }

    pub fn set_in_snapshot(&mut self, mark: bool) {
        self.0.put(flag::SNAPSHOT, mark);
    }
}

/// The pointer and the layout behind it.
#[derive(Clone, Copy)]
struct Raw(NonNull<u8>);

impl Raw {
    /// Room for an entry, with everything written but the value.
    #[inline]
    fn allocate(key: &[u8], kind: Kind, meta: Meta, inline_len: usize) -> Raw {
        let flags = if meta.deadline.is_some() {
            flag::DEADLINE
        } else {
            0
        } | if meta.item.is_some() { flag::ITEM } else { 0 };
        let layout = Raw::layout_of(flags, kind, key.len(), inline_len);
        // SAFETY: the layout is at least a header long.
        let Some(block) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let raw = Raw(block);
        let key_byte = if key.len() < LONG_KEY_MIN {
            key.len()
        } else {
            LONG_KEY_MIN
        } as u64;
        let header = kind as u64
            | u64::from(flags) << 8
            | u64::from(meta.access) << 16
            | key_byte << 32
            | (inline_len as u64) << 40;
        // SAFETY: all writes lie within `layout`: the header, then the optional parts and the key in front of the value.
        unsafe {
            block.cast::<u64>().write(header.to_le());
            if let Some(deadline) = meta.deadline {
                raw.write_deadline(deadline);
            }
            if let Some(item) = meta.item {
                raw.write_item(item);
            }
            let mut offset = raw.key_length_offset();
            if key.len() >= LONG_KEY_MIN {
                block
                    .add(offset)
                    .cast::<u32>()
                    .write_unaligned(key.len() as u32);
                offset += LONG_KEY;
            }
            ptr::copy_nonoverlapping(key.as_ptr(), block.add(offset).as_ptr(), key.len());
        }
        raw
    }

    #[inline]
    fn layout_of(flags: u8, kind: Kind, key_len: usize, inline_len: usize) -> Layout {
        let (value_len, value_align) = kind.value_layout(inline_len);
        let end = (Raw::key_end(flags, key_len)).next_multiple_of(value_align) + value_len;
        Layout::from_size_align(end, ALIGN).expect("keys are at most 512 MiB, inline values a page")
    }

    #[inline]
    fn key_end(flags: u8, key_len: usize) -> usize {
        Raw::parts(flags) + if key_len >= LONG_KEY_MIN { LONG_KEY } else { 0 } + key_len
    }

    /// Where the optional parts end: the header, the deadline and the item.
    #[inline]
    fn parts(flags: u8) -> usize {
        HEADER
            + if flags & flag::DEADLINE != 0 {
                DEADLINE
            } else {
                0
            }
            + if flags & flag::ITEM != 0 { ITEM } else { 0 }
    }

    #[inline]
    fn layout(self) -> Layout {
        Raw::layout_of(
            self.flags(),
            self.kind(),
            self.key().len(),
            self.inline_len(),
        )
    }

    #[inline]
    fn key_length_offset(self) -> usize {
        Raw::parts(self.flags())
    }

    #[inline]
    fn byte(self, index: usize) -> u8 {
        debug_assert!(index < HEADER);
        // SAFETY: the header has 8 initialised bytes.
        unsafe { self.0.add(index).read() }
    }

    #[inline]
    fn kind(self) -> Kind {
        Kind::ALL[self.byte(0) as usize]
    }

    #[inline]
    fn flags(self) -> u8 {
        self.byte(1)
    }

    #[inline]
    fn has(self, bit: u8) -> bool {
        self.flags() & bit != 0
    }

    fn set_flags(self, flags: u8) {
        // SAFETY: the header's second byte; callers hold the entry exclusively.
        unsafe { self.0.add(1).write(flags) }
    }

    fn put(self, bit: u8, on: bool) {
        self.set_flags(if on {
            self.flags() | bit
        } else {
            self.flags() & !bit
        });
    }

    #[inline]
    fn access_bits<'a>(self) -> &'a AtomicU16 {
        // SAFETY: bytes 2 and 3 are aligned, live as long as the entry and are only ever accessed atomically once the
        // entry is shared.
        unsafe { self.0.add(2).cast::<AtomicU16>().as_ref() }
    }

    /// The 24 bits at the end of the header.
    #[inline]
    fn small(self) -> u32 {
        // SAFETY: bytes 4 to 7 of the header, aligned to 4.
        u32::from_le(unsafe { self.0.add(4).cast::<u32>().read() }) >> 8
    }

    fn set_small(self, bits: u32) {
        let word = bits << 8 | u32::from(self.byte(4));
        // SAFETY: as in `small`; callers hold the entry exclusively.
        unsafe { self.0.add(4).cast::<u32>().write(word.to_le()) }
    }

    #[inline]
    fn small_int(self) -> i64 {
        // Shifting up and back extends the sign of the 24 bits.
        i64::from((self.small() << 8) as i32 >> 8)
    }

    #[inline]
    fn inline_len(self) -> usize {
        if self.kind() == Kind::Inline {
            self.small() as usize
        } else {
            0
        }
    }

    #[inline]
    fn key<'a>(self) -> &'a [u8] {
        let mut offset = self.key_length_offset();
        let mut len = self.byte(4) as usize;
        // SAFETY: `allocate` wrote the length and the key at these offsets.
        unsafe {
            if len == LONG_KEY_MIN {
                len = self.0.add(offset).cast::<u32>().read_unaligned() as usize;
                offset += LONG_KEY;
            }
            std::slice::from_raw_parts(self.0.add(offset).as_ptr(), len)
        }
    }

    #[inline]
    fn value_ptr(self) -> *mut u8 {
        let (_, align) = self.kind().value_layout(0);
        let offset = Raw::key_end(self.flags(), self.key().len()).next_multiple_of(align);
        // SAFETY: the value's offset lies within (or one past) the allocation, by `layout_of`.
        unsafe { self.0.add(offset).as_ptr() }
    }

    #[inline]
    fn deadline(self) -> Option<Timestamp> {
        // SAFETY: the flag says that 8 bytes of deadline follow the header, aligned.
        self.has(flag::DEADLINE)
            .then(|| Timestamp(unsafe { self.0.add(HEADER).cast::<i64>().read() }))
    }

    fn write_deadline(self, deadline: Timestamp) {
        debug_assert!(self.has(flag::DEADLINE));
        // SAFETY: as in `deadline`; callers hold the entry exclusively.
        unsafe { self.0.add(HEADER).cast::<i64>().write(deadline.0) }
    }

    fn item_offset(self) -> usize {
        HEADER
            + if self.has(flag::DEADLINE) {
                DEADLINE
            } else {
                0
            }
    }

    fn item(self) -> Option<Item> {
        // SAFETY: the flag says that 12 bytes of item follow header and deadline.
        self.has(flag::ITEM).then(|| unsafe {
            let part = self.0.add(self.item_offset());
            Item {
                flags: part.cast::<u32>().read_unaligned(),
                cas: part.add(4).cast::<u64>().read_unaligned(),
            }
        })
    }

    fn write_item(self, item: Item) {
        debug_assert!(self.has(flag::ITEM));
        // SAFETY: as in `item`; callers hold the entry exclusively.
        unsafe {
            let part = self.0.add(self.item_offset());
            part.cast::<u32>().write_unaligned(item.flags);
            part.add(4).cast::<u64>().write_unaligned(item.cas);
        }
    }

    /// Writes metadata whose optional parts are those the entry already has.
    fn write_meta(self, meta: Meta) {
        if let Some(deadline) = meta.deadline {
            self.write_deadline(deadline);
        }
        if let Some(item) = meta.item {
            self.write_item(item);
        }
        self.access_bits().store(meta.access, Ordering::Relaxed);
    }

    /// Moves the value out; the caller must not look at it again and frees the allocation.
    fn take_value(self) -> Value {
        let place = self.value_ptr();
        // SAFETY: the kind says which handle was written; it is read out once, by the owner.
        unsafe {
            match self.kind() {
                Kind::Inline => {
                    Value::String(std::slice::from_raw_parts(place, self.inline_len()).to_vec())
                }
                Kind::SmallInt => Value::Int(self.small_int()),
                Kind::Int => Value::Int(place.cast::<i64>().read_unaligned()),
                Kind::Shared => Value::Shared(place.cast::<Arc<Vec<u8>>>().read()),
                Kind::List => Value::List(place.cast::<List>().read()),
                Kind::Set => Value::Set(place.cast::<Set>().read()),
                Kind::Hash => Value::Hash(place.cast::<Hash>().read()),
                Kind::SortedSet => Value::SortedSet(place.cast::<SortedSet>().read()),
                Kind::Stream => Value::Stream(place.cast::<Box<Stream>>().read()),
            }
        }
    }

    /// A copy of all bytes in another allocation, in whose favour the old one is given back.
    fn relocate(self) -> Raw {
        let layout = self.layout();
        // SAFETY: the layout is at least a header long.
        let Some(block) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        // SAFETY: both are allocations of that layout. The value moves with its bytes: what was there is freed, not dropped.
        unsafe { ptr::copy_nonoverlapping(self.0.as_ptr(), block.as_ptr(), layout.size()) };
        self.free();
        Raw(block)
    }

    /// Gives the allocation back, not the value.
    fn free(self) {
        // SAFETY: allocated in `allocate` with the layout that the header still describes.
        unsafe { dealloc(self.0.as_ptr(), self.layout()) }
    }
}
