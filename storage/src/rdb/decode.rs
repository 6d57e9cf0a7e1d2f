//! Values from their RDB forms.
//!
//! Each form is read front to back into the value's own type, which finds duplicates as it grows. O(n log n) for sorted sets, O(n) for
//! the others.

use std::io::Read;

use super::{
    Error, Limits, REDIS_VERSION, VALKEY_VERSION, kind,
    legacy::{Ziplist, intset, zipmap},
    listpack,
    reader::Reader,
    stream,
};
use crate::{
    time::Timestamp,
    value::{
        Value,
        element::{Element, Scratch},
        hash::{FieldDeadline, Hash},
        list::{End, List},
        number,
        set::Set,
        sorted_set::{BuildError, SortedSet},
    },
};

/// Entries that room is made for on an announcement alone.
const TRUSTED_COUNT: usize = 4096;

/// In a node of a list: one element, or a listpack.
const PLAIN_NODE: u64 = 1;
const PACKED_NODE: u64 = 2;

/// Reads the value behind a type byte. `version` is that of the payload or file.
///
/// Fields of hashes that have expired at `now` are left out; [`Timestamp::MIN`] keeps all.
///
/// # Errors
/// [`Error`], with the input left somewhere inside; for [`Error::Empty`], right behind the value.
pub fn read_value<R: Read>(
    reader: &mut Reader<R>,
    kind: u8,
    version: u32,
    limits: &Limits,
    now: Timestamp,
) -> Result<Value, Error> {
    let value = match kind {
        kind::STRING => return read_string(reader),
        kind::LIST | kind::LIST_ZIPLIST | kind::LIST_QUICKLIST | kind::LIST_QUICKLIST_2 => {
            let list = read_list(reader, kind, limits)?;
            (!list.is_empty()).then_some(Value::List(list))
        }
        kind::SET | kind::SET_INTSET | kind::SET_LISTPACK => {
            let set = read_set(reader, kind, limits)?;
            (!set.is_empty()).then_some(Value::Set(set))
        }
        kind::SORTED_SET
        | kind::SORTED_SET_2
        | kind::SORTED_SET_ZIPLIST
        | kind::SORTED_SET_LISTPACK => {
            let set = read_sorted_set(reader, kind, limits)?;
            (!set.is_empty()).then_some(Value::SortedSet(set))
        }
        kind::HASH
        | kind::HASH_ZIPMAP
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::HASH_DEADLINES
        | kind::HASH_LISTPACK_DEADLINES_OLD
        | kind::HASH_RELATIVE_DEADLINES
        | kind::HASH_LISTPACK_DEADLINES => {
            let hash = read_hash(reader, kind, version, limits, now)?;
            (!hash.is_empty()).then_some(Value::Hash(hash))
        }
        kind::STREAM | kind::STREAM_2 | kind::STREAM_3 => {
            let image = stream::read_image(reader, kind)?;
            return Ok(Value::Stream(Box::new(image.into_stream()?)));
        }
        kind::MODULE | kind::MODULE_2 => return Err(Error::Module(reader.length()?)),
        unknown => return Err(Error::UnknownType(unknown)),
    };
    value.ok_or(Error::Empty)
}

fn read_string<R: Read>(reader: &mut Reader<R>) -> Result<Value, Error> {
    let text = reader.owned_string()?;
    Ok(match number::parse_i64(&text) {
        Some(number) => Value::Int(number),
        None => Value::String(text),
    })
}

fn read_list<R: Read>(reader: &mut Reader<R>, kind: u8, limits: &Limits) -> Result<List, Error> {
    let mut list = Pushing {
        list: List::new(),
        limits,
        scratch: Scratch::new(),
    };
    let mut text = Vec::new();
    match kind {
        kind::LIST => {
            for _ in 0..reader.length()? {
                reader.string(&mut text)?;
                list.push(&text);
            }
        }
        kind::LIST_ZIPLIST => {
            reader.string(&mut text)?;
            list.push_all(Ziplist::new(&text)?)?;
        }
        kind::LIST_QUICKLIST => {
            for _ in 0..reader.length()? {
                reader.string(&mut text)?;
                list.push_all(Ziplist::new(&text)?)?;
            }
        }
        _ => {
            for _ in 0..reader.length()? {
                let container = reader.length()?;
                reader.string(&mut text)?;
                match container {
                    PLAIN_NODE if text.is_empty() => return Err(Error::Corrupt("list node")),
                    PLAIN_NODE => list.push(&text),
                    PACKED_NODE => list.push_all(listpack::Entries::new(&text)?)?,
                    _ => return Err(Error::Corrupt("list node")),
                }
            }
        }
    }
    Ok(list.list)
}

/// A list that grows at its back.
struct Pushing<'l> {
    list: List,
    limits: &'l Limits,
    scratch: Scratch,
}

impl Pushing<'_> {
    fn push(&mut self, text: &[u8]) {
        self.list.push(End::Back, text, self.limits.list);
    }

    fn push_all<'e>(
        &mut self,
        elements: impl Iterator<Item = Result<Element<'e>, Error>>,
    ) -> Result<(), Error> {
        for element in elements {
            let text = element?.bytes(&mut self.scratch);
            self.list.push(End::Back, text, self.limits.list);
        }
        Ok(())
    }
}

fn read_set<R: Read>(reader: &mut Reader<R>, kind: u8, limits: &Limits) -> Result<Set, Error> {
    const DUPLICATE: Error = Error::Corrupt("set: a member occurs twice");
    let limits = &limits.set;
    let add = |set: &mut Set, member: Element<'_>| {
        if set.add(member, limits) {
            Ok(())
        } else {
            Err(DUPLICATE)
        }
    };
    let mut text = Vec::new();
    match kind {
        kind::SET => {
            let count = reader.length()?;
            let is_large = usize::try_from(count).map_or(true, |count| {
                count > limits.max_intset_entries && count > limits.max_listpack_entries
            });
            let mut set = if is_large {
                Set::new_table()
            } else {
                Set::new()
            };
            for _ in 0..count {
                reader.string(&mut text)?;
                add(&mut set, Element::new(&text))?;
            }
            Ok(set)
        }
        kind::SET_INTSET => {
            reader.string(&mut text)?;
            let mut set = Set::new();
            intset(&text)?.try_for_each(|member| add(&mut set, member.into()))?;
            Ok(set)
        }
        _ => {
            reader.string(&mut text)?;
            let mut set = Set::new_packed();
            listpack::Entries::new(&text)?.try_for_each(|member| add(&mut set, member?))?;
            Ok(set)
        }
    }
}

fn read_sorted_set<R: Read>(
    reader: &mut Reader<R>,
    kind: u8,
    limits: &Limits,
) -> Result<SortedSet, Error> {
    let mut text = Vec::new();
    let entries = match kind {
        kind::SORTED_SET | kind::SORTED_SET_2 => {
            let count = reader.length()?;
            let mut entries = Vec::with_capacity(trusted(count));
            for _ in 0..count {
                let member = reader.owned_string()?.into_boxed_slice();
                let score = if kind == kind::SORTED_SET_2 {
                    reader.double()?
                } else {
                    reader.text_double()?
                };
                entries.push((member, score));
            }
            entries
        }
        kind::SORTED_SET_ZIPLIST => {
            reader.string(&mut text)?;
            scored(Ziplist::new(&text)?)?
        }
        _ => {
            reader.string(&mut text)?;
            scored(listpack::Entries::new(&text)?)?
        }
    };
    SortedSet::build(&entries, &limits.sorted_set).map_err(|error| match error {
        BuildError::DuplicateMember => Error::Corrupt("sorted set: a member occurs twice"),
        BuildError::NotANumber => Error::Corrupt("sorted set: a score is not a number"),
    })
}

/// A member and its score.
type Scored = (Box<[u8]>, f64);

/// Members and scores that stand in turns.
fn scored<'e>(
    elements: impl Iterator<Item = Result<Element<'e>, Error>>,
) -> Result<Vec<Scored>, Error> {
    const BAD: Error = Error::Corrupt("sorted set: a score is not a number");
    pairs(elements)
        .map(|pair| {
            let (member, score) = pair?;
            let score = match score {
                Element::Integer(number) => number as f64,
                Element::Text(b"") => return Err(BAD),
                Element::Text(text) => number::parse_score_bound(text).ok_or(BAD)?,
            };
            Ok((member.to_vec().into_boxed_slice(), score))
        })
        .collect()
}

/// Elements two by two; an error for an odd one at the end.
fn pairs<'e>(
    mut elements: impl Iterator<Item = Result<Element<'e>, Error>>,
) -> impl Iterator<Item = Result<(Element<'e>, Element<'e>), Error>> {
    std::iter::from_fn(move || {
        let first = elements.next()?;
        let second = elements
            .next()
            .unwrap_or(Err(Error::Corrupt("pairs: one half is missing")));
        Some(first.and_then(|first| Ok((first, second?))))
    })
}

fn read_hash<R: Read>(
    reader: &mut Reader<R>,
    kind: u8,
    version: u32,
    limits: &Limits,
    now: Timestamp,
) -> Result<Hash, Error> {
    let mut hash = Filling {
        hash: Hash::new(),
        limits,
        now,
    };
    match kind {
        kind::HASH => {
            let count = reader.length()?;
            hash.prepare(count);
            let (mut field, mut value) = (Vec::new(), Vec::new());
            for _ in 0..count {
                reader.string(&mut field)?;
                reader.string(&mut value)?;
                hash.set(Element::new(&field), Element::new(&value), None)?;
            }
        }
        kind::HASH_DEADLINES if (REDIS_VERSION..VALKEY_VERSION).contains(&version) => {
            read_hash_with_deadlines_first(reader, &mut hash, None)?;
        }
        kind::HASH_DEADLINES => read_hash_with_deadlines(reader, &mut hash)?,
        kind::HASH_RELATIVE_DEADLINES => {
            let earliest = reader.i64_le()?;
            read_hash_with_deadlines_first(reader, &mut hash, Some(earliest))?;
        }
        kind::HASH_LISTPACK_DEADLINES | kind::HASH_LISTPACK_DEADLINES_OLD => {
            if kind == kind::HASH_LISTPACK_DEADLINES {
                // The earliest deadline, which the fields tell as well.
                reader.i64_le()?;
            }
            let text = reader.owned_string()?;
            let mut entries = listpack::Entries::new(&text)?;
            while let Some(field) = entries.next() {
                let (field, value) = (field?, entries.require()?);
                let deadline = deadline(entries.require_integer()?)?;
                hash.set(field, value, deadline)?;
            }
        }
        kind::HASH_ZIPMAP => {
            let text = reader.owned_string()?;
            for (field, value) in zipmap(&text)? {
                hash.set(Element::new(field), Element::new(value), None)?;
            }
        }
        kind::HASH_ZIPLIST => {
            let text = reader.owned_string()?;
            hash.set_all(pairs(Ziplist::new(&text)?))?;
        }
        _ => {
            let text = reader.owned_string()?;
            hash.set_all(pairs(listpack::Entries::new(&text)?))?;
        }
    }
    Ok(hash.hash)
}

/// Valkey's form: field, value, deadline or -1.
fn read_hash_with_deadlines<R: Read>(
    reader: &mut Reader<R>,
    hash: &mut Filling<'_>,
) -> Result<(), Error> {
    let (mut field, mut value) = (Vec::new(), Vec::new());
    for _ in 0..reader.length()? {
        reader.string(&mut field)?;
        reader.string(&mut value)?;
        let deadline = match reader.i64_le()? {
            -1 => None,
            millis => Some(millis),
        };
        if deadline.is_some_and(|millis| millis < 0) {
            return Err(Error::Corrupt("hash: deadline"));
        }
        hash.set(
            Element::new(&field),
            Element::new(&value),
            deadline.map(Timestamp),
        )?;
    }
    Ok(())
}

/// Redis' form: deadline or 0, field, value. With an `earliest` deadline, 1 stands for that and so on.
fn read_hash_with_deadlines_first<R: Read>(
    reader: &mut Reader<R>,
    hash: &mut Filling<'_>,
    earliest: Option<i64>,
) -> Result<(), Error> {
    const BAD: Error = Error::Corrupt("hash: deadline");
    let (mut field, mut value) = (Vec::new(), Vec::new());
    for _ in 0..reader.length()? {
        let written = i64::try_from(reader.length()?).map_err(|_| BAD)?;
        let deadline = match (written, earliest) {
            (0, _) => None,
            (_, None) => Some(written),
            (_, Some(earliest)) => Some(earliest.checked_add(written - 1).ok_or(BAD)?),
        };
        if deadline.is_some_and(|millis| millis < 0) {
            return Err(BAD);
        }
        reader.string(&mut field)?;
        reader.string(&mut value)?;
        hash.set(
            Element::new(&field),
            Element::new(&value),
            deadline.map(Timestamp),
        )?;
    }
    Ok(())
}

/// A deadline for which 0 says that there is none.
fn deadline(millis: i64) -> Result<Option<Timestamp>, Error> {
    match millis {
        ..0 => Err(Error::Corrupt("hash: deadline")),
        0 => Ok(None),
        millis => Ok(Some(Timestamp(millis))),
    }
}

/// A hash that is being read.
struct Filling<'l> {
    hash: Hash,
    limits: &'l Limits,
    now: Timestamp,
}

impl Filling<'_> {
    fn prepare(&mut self, count: u64) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.hash.prepare(count, 0, &self.limits.hash);
    }

    fn set(
        &mut self,
        field: Element<'_>,
        value: Element<'_>,
        deadline: Option<Timestamp>,
    ) -> Result<(), Error> {
        let deadline = match deadline {
            Some(deadline) if deadline <= self.now => return Ok(()),
            Some(deadline) => FieldDeadline::At(deadline),
            None => FieldDeadline::Clear,
        };
        let is_new = self
            .hash
            .set(field, value, deadline, Timestamp::MIN, &self.limits.hash);
        if is_new {
            Ok(())
        } else {
            Err(Error::Corrupt("hash: a field occurs twice"))
        }
    }

    fn set_all<'e>(
        &mut self,
        mut pairs: impl Iterator<Item = Result<(Element<'e>, Element<'e>), Error>>,
    ) -> Result<(), Error> {
        pairs.try_for_each(|pair| {
            let (field, value) = pair?;
            self.set(field, value, None)
        })
    }
}

fn trusted(count: u64) -> usize {
    usize::try_from(count).map_or(TRUSTED_COUNT, |count| count.min(TRUSTED_COUNT))
}
