//! Passing over values without reading them: how a file is split for several threads to read.
//!
//! Only lengths are looked at. Whatever else is wrong is found by whoever reads the value.

use std::io::Read;

use super::{Error, REDIS_VERSION, VALKEY_VERSION, kind, reader::Reader};

/// Bytes of a stream's ID in lists of pending entries, and of a time.
const RAW_ID: u64 = 16;
const RAW_TIME: u64 = 8;

/// Passes over the value behind a type byte. `version` is that of the file.
///
/// # Errors
/// If the input ends, a length is none, or the type is not known or a module's.
pub(super) fn pass_value<R: Read>(
    reader: &mut Reader<R>,
    kind: u8,
    version: u32,
) -> Result<(), Error> {
    match kind {
        kind::STRING
        | kind::HASH_ZIPMAP
        | kind::LIST_ZIPLIST
        | kind::SET_INTSET
        | kind::SORTED_SET_ZIPLIST
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::SORTED_SET_LISTPACK
        | kind::SET_LISTPACK
        | kind::HASH_LISTPACK_DEADLINES_OLD => reader.skip_string(),
        kind::HASH_LISTPACK_DEADLINES => {
            reader.skip(RAW_TIME)?;
            reader.skip_string()
        }
        kind::LIST | kind::SET | kind::LIST_QUICKLIST => each(reader, Reader::skip_string),
        kind::LIST_QUICKLIST_2 => each(reader, |reader| {
            reader.length()?;
            reader.skip_string()
        }),
        kind::SORTED_SET => each(reader, |reader| {
            reader.skip_string()?;
            // From there on the byte is the score itself.
            let len = reader.byte()?;
            reader.skip(if len < 253 { u64::from(len) } else { 0 })
        }),
        kind::SORTED_SET_2 => each(reader, |reader| {
            reader.skip_string()?;
            reader.skip(size_of::<f64>() as u64)
        }),
        kind::HASH => each(reader, |reader| {
            reader.skip_string()?;
            reader.skip_string()
        }),
        kind::HASH_DEADLINES if (REDIS_VERSION..VALKEY_VERSION).contains(&version) => {
            pass_hash_with_deadlines_first(reader)
        }
        kind::HASH_DEADLINES => each(reader, |reader| {
            reader.skip_string()?;
            reader.skip_string()?;
            reader.skip(RAW_TIME)
        }),
        kind::HASH_RELATIVE_DEADLINES => {
            reader.skip(RAW_TIME)?;
            pass_hash_with_deadlines_first(reader)
        }
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 => pass_stream(reader, kind),
        kind::MODULE | kind::MODULE_2 => Err(Error::Module(reader.length()?)),
        unknown => Err(Error::UnknownType(unknown)),
    }
}

/// Passes over as many elements as a length says.
fn each<R: Read>(
    reader: &mut Reader<R>,
    mut pass: impl FnMut(&mut Reader<R>) -> Result<(), Error>,
) -> Result<(), Error> {
    for _ in 0..reader.length()? {
        pass(reader)?;
    }
    Ok(())
}

fn pass_hash_with_deadlines_first<R: Read>(reader: &mut Reader<R>) -> Result<(), Error> {
    each(reader, |reader| {
        reader.length()?;
        reader.skip_string()?;
        reader.skip_string()
    })
}

fn pass_stream<R: Read>(reader: &mut Reader<R>, kind: u8) -> Result<(), Error> {
    each(reader, |reader| {
        reader.skip_string()?;
        reader.skip_string()
    })?;
    // The number of entries and the last ID; then the first ID, the largest deleted one and the number ever added.
    let lengths = if kind == kind::STREAM { 3 } else { 8 };
    pass_lengths(reader, lengths)?;
    each(reader, |reader| {
        reader.skip_string()?;
        pass_lengths(reader, if kind == kind::STREAM { 2 } else { 3 })?;
        each(reader, |reader| {
            reader.skip(RAW_ID + RAW_TIME)?;
            pass_lengths(reader, 1)
        })?;
        each(reader, |reader| {
            reader.skip_string()?;
            let times = if kind == kind::STREAM_3 { 2 } else { 1 };
            reader.skip(times * RAW_TIME)?;
            each(reader, |reader| reader.skip(RAW_ID))
        })
    })
}

fn pass_lengths<R: Read>(reader: &mut Reader<R>, count: u32) -> Result<(), Error> {
    for _ in 0..count {
        reader.length()?;
    }
    Ok(())
}
