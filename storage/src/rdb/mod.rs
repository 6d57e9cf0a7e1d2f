//! The format in which values travel: DUMP payloads, snapshot files, full synchronisations.
//!
//! ```text
//! payload:  type | value | version u16 | checksum u64                       little-endian
//! file:     "REDIS" or "VALKEY", version in digits | records | 0xff | checksum u64     see `file`
//! ```
//!
//! Every type that Redis 2.6 to 8 and Valkey 7.2 to 9.1 write is read ([`kind`]); what is written is what the oldest servers in use
//! understand, so that payloads and files go both ways. Only field deadlines in hashes have no common form: [`Dialect`] chooses.
//!
//! Whatever is read may be hostile. Nothing is believed: not lengths, counts, order, uniqueness nor the checksum's blessing. Memory
//! stays proportional to the bytes that arrived (compressed strings expand at most 88-fold), and nothing panics.

pub mod crc64;
mod decode;
mod encode;
pub mod file;
mod legacy;
mod listpack;
pub mod lzf;
mod pass;
pub mod reader;
pub mod stream;
pub mod writer;

use std::{fmt, io, sync::atomic::Ordering};

pub use decode::read_value;
pub use encode::{kind_of, write_value};

use self::{crc64::crc64, reader::Reader, writer::Writer};
use crate::{
    time::Timestamp,
    value::{Settings, Value, ValueRef, hash, list::ListLimits, set, sorted_set},
};

/// Type bytes of values.
pub mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    /// Scores as text.
    pub const SORTED_SET: u8 = 3;
    pub const HASH: u8 = 4;
    /// Scores as eight bytes.
    pub const SORTED_SET_2: u8 = 5;
    pub const MODULE: u8 = 6;
    pub const MODULE_2: u8 = 7;
    pub const HASH_ZIPMAP: u8 = 9;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTSET: u8 = 11;
    pub const SORTED_SET_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    /// Nodes are ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const SORTED_SET_LISTPACK: u8 = 17;
    /// Nodes are listpacks or single elements.
    pub const LIST_QUICKLIST_2: u8 = 18;
    /// With the first ID, the largest deleted one and the number of entries ever added.
    pub const STREAM_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    /// With the consumers' last activity.
    pub const STREAM_3: u8 = 21;
    /// Valkey 9: deadlines after the values. In files of Redis 7.4 release candidates: deadlines before the fields.
    pub const HASH_DEADLINES: u8 = 22;
    /// Redis 7.4 release candidates: a listpack of fields, values and deadlines.
    pub const HASH_LISTPACK_DEADLINES_OLD: u8 = 23;
    /// Redis 7.4: the earliest deadline, then deadlines relative to it before the fields.
    pub const HASH_RELATIVE_DEADLINES: u8 = 24;
    /// Redis 7.4: the earliest deadline, then a listpack of fields, values and deadlines.
    pub const HASH_LISTPACK_DEADLINES: u8 = 25;
}

/// The newest version that both Redis 7.2 and Valkey read.
pub const COMMON_VERSION: u32 = 11;
/// The version of Redis 7.4 and 8.
pub const REDIS_VERSION: u32 = 12;
/// The version of Valkey 9.
pub const VALKEY_VERSION: u32 = 80;
/// Between these nothing of Valkey's was ever written.
const FIRST_VALKEY_VERSION: u32 = 80;

/// Why something could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The input ended too soon.
    Truncated,
    /// The input could not be read.
    Io(io::ErrorKind),
    /// The named part is not sound.
    Corrupt(&'static str),
    /// No known type or record.
    UnknownType(u8),
    /// A value of a module, of the type with this number.
    Module(u64),
    /// More than was to be kept of the input: not the input's fault.
    Overlong,
    /// A collection without elements, which cannot be a key's value.
    Empty,
    /// Written by a version that is not known.
    Version(u32),
    /// Bytes changed on the way.
    Checksum,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("unexpected end"),
            Error::Io(kind) => write!(f, "cannot read: {kind}"),
            Error::Corrupt(part) => write!(f, "corrupt {part}"),
            Error::UnknownType(kind) => write!(f, "unknown type {kind}"),
            Error::Module(number) => write!(
                f,
                "values of modules are not supported: type '{}' of version {}",
                module_type_name(*number),
                number & MODULE_VERSION_MASK
            ),
            Error::Overlong => f.write_str("too long"),
            Error::Empty => f.write_str("collection without elements"),
            Error::Version(version) => write!(f, "unknown version {version}"),
            Error::Checksum => f.write_str("wrong checksum"),
        }
    }
}

impl std::error::Error for Error {}

/// The low bits of a module type's number are its version; above them are nine letters of six bits.
const MODULE_VERSION_MASK: u64 = 0x3ff;

fn module_type_name(number: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |index: u32| char::from(LETTERS[(number >> (10 + 6 * index) & 63) as usize]);
    (0..9).rev().map(letter).collect()
}

/// Whose types are used where they differ: for hashes in which fields have deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Valkey 9 and later.
    Valkey,
    /// Redis 7.4 and later.
    Redis,
}

/// When collections change their encoding, as the settings say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub hash: hash::Limits,
    pub list: ListLimits,
    pub set: set::Limits,
    pub sorted_set: sorted_set::Limits,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        let entries = |setting: &std::sync::atomic::AtomicU64| {
            usize::try_from(setting.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
        };
        Limits {
            hash: hash::Limits {
                max_listpack_entries: entries(&settings.hash_max_listpack_entries),
                max_listpack_value: entries(&settings.hash_max_listpack_value),
            },
            list: ListLimits::new(settings.list_max_listpack_size.load(Ordering::Relaxed)),
            set: set::Limits {
                max_intset_entries: entries(&settings.set_max_intset_entries),
                max_listpack_entries: entries(&settings.set_max_listpack_entries),
                max_listpack_value: entries(&settings.set_max_listpack_value),
            },
            sorted_set: sorted_set::Limits {
                max_listpack_entries: entries(&settings.zset_max_listpack_entries),
                max_listpack_value: entries(&settings.zset_max_listpack_value),
            },
        }
    }
}

/// Which versions are let in, `rdb-version-check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionCheck {
    /// Those whose types are known.
    Strict,
    /// Any; types that are not known still fail.
    Relaxed,
}

impl VersionCheck {
    /// # Errors
    /// [`Error::Version`].
    pub fn check(self, version: u32) -> Result<(), Error> {
        let known = matches!(version, 1..=REDIS_VERSION | FIRST_VALKEY_VERSION..=VALKEY_VERSION);
        if known || self == VersionCheck::Relaxed {
            Ok(())
        } else {
            Err(Error::Version(version))
        }
    }
}

/// The payload of DUMP for a value, with the oldest version that will do.
pub fn dump(value: ValueRef<'_>, dialect: Dialect) -> Vec<u8> {
    const INFALLIBLE: &str = "writing to a vector succeeds";
    let kind = kind_of(value, dialect);
    let mut writer = Writer::new(Vec::new(), true);
    writer.bytes(&[kind]).expect(INFALLIBLE);
    write_value(value, kind, &mut writer).expect(INFALLIBLE);
    writer
        .bytes(&(version_of(kind) as u16).to_le_bytes())
        .expect(INFALLIBLE);
    let checksum = writer.checksum();
    writer.bytes(&checksum.to_le_bytes()).expect(INFALLIBLE);
    writer.into_sink().expect(INFALLIBLE)
}

/// The value of a DUMP payload. Fields of hashes that have expired at `now` are left out.
///
/// # Errors
/// [`Error::Version`] and [`Error::Checksum`] before anything else is looked at, then whatever is wrong inside.
pub fn restore(
    payload: &[u8],
    limits: &Limits,
    now: Timestamp,
    versions: VersionCheck,
) -> Result<Value, Error> {
    let (body, checksum) = payload.split_last_chunk().ok_or(Error::Truncated)?;
    let (body, version) = body.split_last_chunk().ok_or(Error::Truncated)?;
    let version = u32::from(u16::from_le_bytes(*version));
    versions.check(version)?;
    let checksum = u64::from_le_bytes(*checksum);
    if checksum != crc64(&payload[..payload.len() - size_of_val(&checksum)]) {
        return Err(Error::Checksum);
    }
    let mut reader = Reader::unsummed(body);
    let kind = reader.byte()?;
    let value = read_value(&mut reader, kind, version, limits, now)?;
    if reader.is_at_end()? {
        Ok(value)
    } else {
        Err(Error::Corrupt("payload's end"))
    }
}

/// The payload with the checksum that its other bytes have.
pub fn seal(payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    if let Some((body, checksum)) = payload.split_last_chunk_mut() {
        *checksum = crc64(body).to_le_bytes();
    }
    payload
}

/// The oldest version that has this type.
fn version_of(kind: u8) -> u32 {
    match kind {
        kind::STRING
        | kind::LIST
        | kind::SET
        | kind::SORTED_SET
        | kind::HASH
        | kind::SET_INTSET => 6,
        kind::SORTED_SET_2 => 8,
        kind::STREAM => 9,
        kind::HASH_LISTPACK
        | kind::SORTED_SET_LISTPACK
        | kind::LIST_QUICKLIST_2
        | kind::STREAM_2 => 10,
        kind::SET_LISTPACK | kind::STREAM_3 => COMMON_VERSION,
        kind::HASH_DEADLINES => VALKEY_VERSION,
        _ => REDIS_VERSION,
    }
}

#[cfg(test)]
mod tests;
