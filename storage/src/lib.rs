//! The storage engine: keys, values, time and memory, without sockets, files, runtime or clock.
//!
//! A [`Keyspace`](keyspace::Keyspace) is many [`Shard`](shard::Shard)s behind a lock each; commands see it through a
//! [`Db`](db::Db), the view of one database in the shards that are locked for the command.
//!
//! `unsafe` is confined to these modules, each with a safe interface: [`alloc`] (the allocator's C calls), [`entry`]
//! (one allocation per key), [`table`] (segments of tagged pointers), and in [`value`] `thin_buffer` and `small_or_boxed`
//! (one word per small collection), [`lent`] (a borrowed closure behind a slot), with the casts from a buffer to what it holds in [`value::packed`] and
//! [`value::int_set`].

pub mod alloc;
pub mod changes;
pub mod clock;
pub mod db;
pub mod effects;
pub mod entry;
pub mod error;
pub mod eviction;
pub mod hash;
pub mod huge_pages;
pub mod item_note;
pub mod keyspace;
pub mod lent;
pub mod rdb;
pub mod removal;
pub mod shard;
pub mod snapshot;
pub mod table;
pub mod time;
pub mod value;

pub use error::{Error, Held};
