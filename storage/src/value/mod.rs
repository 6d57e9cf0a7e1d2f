//! The values a key can hold, and the pure algorithms on them.

pub mod arena_table;
mod chunk;
pub mod element;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod int_set;
pub mod lcs;
pub mod list;
mod listpack_size;
pub mod number;
mod ordered;
pub mod packed;
pub mod set;
mod small_or_boxed;
pub mod sorted_set;
pub mod stream;
mod thin_buffer;
mod tree;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use triomphe::Arc;

use self::{hash::Hash, list::List, set::Set, sorted_set::SortedSet, stream::Stream};
use crate::entry::{EntryMut, EntryRef};

/// The types as clients know them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Type {
    String,
    List,
    Set,
    Hash,
    SortedSet,
    Stream,
}

impl Type {
    /// The name that TYPE answers.
    pub const fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Set => "set",
            Type::Hash => "hash",
            Type::SortedSet => "zset",
            Type::Stream => "stream",
        }
    }
}

/// An owned value.
#[derive(Clone)]
pub enum Value {
    String(Vec<u8>),
    Int(i64),
    /// A long string, shared with replies that are still being sent.
    Shared(Arc<Vec<u8>>),
    List(List),
    Set(Set),
    Hash(Hash),
    SortedSet(SortedSet),
    Stream(Box<Stream>),
}

impl Value {
    /// Bytes that the value holds. O(1), or O(elements) of a small one.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Value::String(bytes) => bytes.capacity(),
            Value::Int(_) => 0,
            Value::Shared(buffer) => ValueRef::Shared(buffer).memory_bytes(),
            Value::List(list) => list.memory_bytes(),
            Value::Set(set) => set.memory_bytes(),
            Value::Hash(hash) => hash.memory_bytes(),
            Value::SortedSet(set) => set.memory_bytes(),
            Value::Stream(stream) => ValueRef::Stream(stream).memory_bytes(),
        }
    }

    pub fn look(&self) -> ValueRef<'_> {
        match self {
            Value::String(bytes) => ValueRef::Bytes(bytes),
            Value::Int(number) => ValueRef::Int(*number),
            Value::Shared(buffer) => ValueRef::Shared(buffer),
            Value::List(list) => ValueRef::List(list),
            Value::Set(set) => ValueRef::Set(set),
            Value::Hash(hash) => ValueRef::Hash(hash),
            Value::SortedSet(set) => ValueRef::SortedSet(set),
            Value::Stream(stream) => ValueRef::Stream(stream),
        }
    }

    /// About how many allocations dropping it frees.
    pub fn free_effort(&self) -> usize {
        match self {
            Value::String(_) | Value::Int(_) => 1,
            // Unmapping a megabyte costs as much as freeing some dozens of small blocks.
            Value::Shared(buffer) => 1 + buffer.len() / (1 << 14),
            Value::List(list) => list.chunk_count(),
            Value::Set(set) => set.len(),
            Value::Hash(hash) => hash.len(),
            Value::SortedSet(set) => set.len(),
            Value::Stream(stream) => stream.block_count() + stream.groups_len(),
        }
    }
}

/// A look at a value.
#[derive(Clone, Copy)]
pub enum ValueRef<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    Shared(&'a Arc<Vec<u8>>),
    List(&'a List),
    Set(&'a Set),
    Hash(&'a Hash),
    SortedSet(&'a SortedSet),
    Stream(&'a Stream),
}

impl ValueRef<'_> {
    /// Bytes that the value holds outside its entry.
    pub fn memory_bytes(self) -> usize {
        match self {
            ValueRef::Bytes(_) | ValueRef::Int(_) => 0,
            ValueRef::Shared(buffer) => buffer.capacity() + size_of::<Vec<u8>>() + 8,
            ValueRef::List(list) => list.memory_bytes(),
            ValueRef::Set(set) => set.memory_bytes(),
            ValueRef::Hash(hash) => hash.memory_bytes(),
            ValueRef::SortedSet(set) => set.memory_bytes(),
            ValueRef::Stream(stream) => stream.memory_bytes() + size_of::<Stream>(),
        }
    }

    /// A copy that shares what can be shared: cheap for big values.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Bytes(bytes) => Value::String(bytes.to_vec()),
            ValueRef::Int(number) => Value::Int(number),
            ValueRef::Shared(buffer) => Value::Shared(buffer.clone()),
            ValueRef::List(list) => Value::List(list.clone()),
            ValueRef::Set(set) => Value::Set(set.clone()),
            ValueRef::Hash(hash) => Value::Hash(hash.clone()),
            ValueRef::SortedSet(set) => Value::SortedSet(set.clone()),
            ValueRef::Stream(stream) => Value::Stream(Box::new(stream.clone())),
        }
    }
}

/// A string as it is held.
#[derive(Clone, Copy)]
pub enum Text<'a> {
    Bytes(&'a [u8]),
    Int(i64),
    Shared(&'a Arc<Vec<u8>>),
}

impl<'a> Text<'a> {
    /// The entry's value, if it is a string.
    #[inline(always)]
    pub fn of_entry(entry: EntryRef<'a>) -> Option<Text<'a>> {
        match entry.inline_text() {
            Some(bytes) => Some(Text::Bytes(bytes)),
            None => Text::of(entry.value()),
        }
    }

    pub fn of(value: ValueRef<'a>) -> Option<Text<'a>> {
        match value {
            ValueRef::Bytes(bytes) => Some(Text::Bytes(bytes)),
            ValueRef::Int(number) => Some(Text::Int(number)),
            ValueRef::Shared(buffer) => Some(Text::Shared(buffer)),
            _ => None,
        }
    }

    /// The bytes; an integer is written into `buffer`.
    pub fn as_bytes<'b>(&self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Text::Bytes(bytes) => bytes,
            Text::Int(number) => buffer.format(number).as_bytes(),
            Text::Shared(shared) => shared,
        }
    }

    pub fn len(&self) -> usize {
        self.as_bytes(&mut itoa::Buffer::new()).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A type that holds elements and is deleted when it has none (streams excepted).
pub trait Collection: Clone + Sized {
    const TYPE: Type;

    fn of(value: ValueRef<'_>) -> Option<&Self>;
    fn of_mut<'a>(entry: EntryMut<'a>) -> Option<&'a mut Self>;
    fn into_value(self) -> Value;
    /// Whether the key goes away now.
    fn is_gone(&self) -> bool;
}

/// The five collections differ by name only.
macro_rules! collection {
    ($type:ident, $variant:ident, $accessor:ident, $into:expr, $gone:expr) => {
        impl Collection for $type {
            const TYPE: Type = Type::$variant;

            #[inline]
            fn of(value: ValueRef<'_>) -> Option<&Self> {
                match value {
                    ValueRef::$variant(value) => Some(value),
                    _ => None,
                }
            }

            #[inline]
            fn of_mut<'a>(entry: EntryMut<'a>) -> Option<&'a mut Self> {
                entry.$accessor()
            }

            fn into_value(self) -> Value {
                Value::$variant($into(self))
            }

            #[inline]
            fn is_gone(&self) -> bool {
                $gone(self)
            }
        }
    };
}

collection!(
    List,
    List,
    into_list,
    std::convert::identity,
    List::is_empty
);
collection!(Set, Set, into_set, std::convert::identity, Set::is_empty);
collection!(
    Hash,
    Hash,
    into_hash,
    std::convert::identity,
    Hash::is_empty
);
collection!(
    SortedSet,
    SortedSet,
    into_sorted_set,
    std::convert::identity,
    SortedSet::is_empty
);
collection!(Stream, Stream, into_stream, Box::new, |_: &Stream| false);

/// Limits that decide how values are held, changed at run time by CONFIG SET; the names are the directives'.
#[derive(Debug)]
pub struct Settings {
    pub hash_max_listpack_entries: AtomicU64,
    pub hash_max_listpack_value: AtomicU64,
    pub list_max_listpack_size: AtomicI64,
    pub set_max_intset_entries: AtomicU64,
    pub set_max_listpack_entries: AtomicU64,
    pub set_max_listpack_value: AtomicU64,
    pub zset_max_listpack_entries: AtomicU64,
    pub zset_max_listpack_value: AtomicU64,
    pub stream_node_max_bytes: AtomicU64,
    pub stream_node_max_entries: AtomicU64,
    pub hll_sparse_max_bytes: AtomicU64,
    pub proto_max_bulk_len: AtomicU64,
    /// RESTORE lets payloads of versions in that it does not know.
    pub rdb_version_check_relaxed: AtomicBool,
    /// RESTORE does not look at checksums, for tests. Not copied with the others, as it is no setting of theirs.
    pub skip_checksums: AtomicBool,
}

impl Settings {
    /// Takes over the values of other settings.
    pub fn copy_from(&self, other: &Settings) {
        self.hash_max_listpack_entries.store(
            other.hash_max_listpack_entries.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.hash_max_listpack_value.store(
            other.hash_max_listpack_value.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.list_max_listpack_size.store(
            other.list_max_listpack_size.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.set_max_intset_entries.store(
            other.set_max_intset_entries.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.set_max_listpack_entries.store(
            other.set_max_listpack_entries.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.set_max_listpack_value.store(
            other.set_max_listpack_value.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.zset_max_listpack_entries.store(
            other.zset_max_listpack_entries.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.zset_max_listpack_value.store(
            other.zset_max_listpack_value.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.stream_node_max_bytes.store(
            other.stream_node_max_bytes.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.stream_node_max_entries.store(
            other.stream_node_max_entries.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.hll_sparse_max_bytes.store(
            other.hll_sparse_max_bytes.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.proto_max_bulk_len.store(
            other.proto_max_bulk_len.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
        self.rdb_version_check_relaxed.store(
            other.rdb_version_check_relaxed.load(Ordering::Relaxed),
            Ordering::Relaxed,
        );
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            hash_max_listpack_entries: AtomicU64::new(512),
            hash_max_listpack_value: AtomicU64::new(64),
            list_max_listpack_size: AtomicI64::new(-2),
            set_max_intset_entries: AtomicU64::new(512),
            set_max_listpack_entries: AtomicU64::new(128),
            set_max_listpack_value: AtomicU64::new(64),
            zset_max_listpack_entries: AtomicU64::new(128),
            zset_max_listpack_value: AtomicU64::new(64),
            stream_node_max_bytes: AtomicU64::new(4096),
            stream_node_max_entries: AtomicU64::new(100),
            hll_sparse_max_bytes: AtomicU64::new(3000),
            proto_max_bulk_len: AtomicU64::new(512 << 20),
            rdb_version_check_relaxed: AtomicBool::new(false),
            skip_checksums: AtomicBool::new(false),
        }
    }
}
