//! Streams in their RDB form: listpacks of entries, then counters, groups, pending entries and consumers.
//!
//! ```text
//! node:   first ID, 16 bytes big-endian | listpack:
//!           count | deleted | fields n | field... | 0                              the node's own fields
//!           flags | ms | seq | value... | n + 3                                    an entry with the node's fields
//!           flags | ms | seq | fields m | (field value)... | 2m + 4                an entry with its own
//! flags:  1 deleted, 2 the node's fields; ms and seq relative to the first ID
//! ```
//!
//! [`StreamImage`] is what a stream consists of apart from how it is held: nodes stay as they came, checked entry by entry.

use std::io::{self, Read};

use super::{Error, kind, listpack, reader::Reader, writer::Writer};
use crate::value::{element::Element, stream};

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// Things that room is made for on an announcement alone.
const TRUSTED_COUNT: usize = 1024;

const BAD_NODE: Error = Error::Corrupt("stream node");
const BAD_GROUP: Error = Error::Corrupt("stream group");

pub use crate::value::stream::Id;

/// Everything that makes up a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamImage {
    pub nodes: Vec<Node>,
    /// Entries that are not deleted.
    pub len: u64,
    pub last_id: Id,
    pub first_id: Id,
    pub max_deleted_id: Id,
    pub entries_added: u64,
    pub groups: Vec<Group>,
}

/// A run of entries, sound as far as [`Node::entries`] goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    first: Id,
    listpack: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: Vec<u8>,
    pub last_id: Id,
    /// None if that cannot be told.
    pub entries_read: Option<u64>,
    /// By ID.
    pub pending: Vec<Pending>,
    pub consumers: Vec<Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pending {
    pub id: Id,
    pub delivered_ms: i64,
    pub deliveries: u64,
    /// Index of its consumer in the group.
    pub consumer: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Consumer {
    pub name: Vec<u8>,
    pub seen_ms: i64,
    /// None if it never got an entry.
    pub active_ms: Option<i64>,
}

/// Reads a stream and checks all of it.
///
/// # Errors
/// [`Error`], with the input left somewhere inside.
pub fn read_image<R: Read>(reader: &mut Reader<R>, kind: u8) -> Result<StreamImage, Error> {
    let mut image = StreamImage::default();
    let (nodes, bounds) = read_nodes(reader)?;
    image.nodes = nodes;
    image.len = reader.length()?;
    image.last_id = read_id(reader)?;
    if image.len != bounds.len || bounds.last.is_some_and(|last| last > image.last_id) {
        return Err(Error::Corrupt("stream length or last ID"));
    }
    if kind == kind::STREAM {
        image.first_id = bounds.first.unwrap_or_default();
        image.entries_added = image.len;
    } else {
        image.first_id = read_id(reader)?;
        image.max_deleted_id = read_id(reader)?;
        image.entries_added = reader.length()?;
        // What is first can be told; old writers left zero where nothing is.
        image.first_id = bounds.first.unwrap_or_default();
    }
    let count = reader.length()?;
    for _ in 0..count {
        let mut group = read_group(reader, kind)?;
        if kind == kind::STREAM {
            group.entries_read = image.entries_until(group.last_id);
        }
        if image.groups.iter().any(|other| other.name == group.name) {
            return Err(BAD_GROUP);
        }
        image.groups.push(group);
    }
    Ok(image)
}

/// What the nodes of a stream add up to.
#[derive(Default)]
struct Bounds {
    len: u64,
    /// The first and last entry that are not deleted.
    first: Option<Id>,
    last: Option<Id>,
}

fn read_nodes<R: Read>(reader: &mut Reader<R>) -> Result<(Vec<Node>, Bounds), Error> {
    let count = reader.length()?;
    let mut nodes = Vec::with_capacity(trusted(count));
    let mut bounds = Bounds::default();
    let mut after = None;
    for _ in 0..count {
        let id = reader.owned_string()?;
        let first = id_from_key(&id).ok_or(BAD_NODE)?;
        let node = Node {
            first,
            listpack: reader.owned_string()?,
        };
        if after.is_some_and(|after| first <= after) {
            return Err(BAD_NODE);
        }
        let mut entries = node.entries()?;
        while let Some(id) = entries.read_next()? {
            bounds.len += 1;
            bounds.first.get_or_insert(id);
            bounds.last = Some(id);
        }
        after = entries.previous;
        nodes.push(node);
    }
    Ok((nodes, bounds))
}

fn read_group<R: Read>(reader: &mut Reader<R>, kind: u8) -> Result<Group, Error> {
    let name = reader.owned_string()?;
    let last_id = read_id(reader)?;
    // Minus one says that it cannot be told; the oldest form says nothing.
    let entries_read = if kind == kind::STREAM {
        None
    } else {
        Some(reader.length()?).filter(|&read| read <= i64::MAX as u64)
    };

    let count = reader.length()?;
    let mut pending = Vec::with_capacity(trusted(count));
    for _ in 0..count {
        pending.push(Pending {
            id: read_raw_id(reader)?,
            delivered_ms: reader.i64_le()?,
            deliveries: reader.length()?,
            consumer: usize::MAX,
        });
    }
    pending.sort_unstable_by_key(|pending| pending.id);
    if !pending.is_sorted_by(|one, next| one.id < next.id) {
        return Err(BAD_GROUP);
    }

    let count = reader.length()?;
    let mut consumers = Vec::with_capacity(trusted(count));
    let mut names = hashbrown::HashSet::new();
    for index in 0..count {
        let consumer = read_consumer(reader, kind, index as usize, &mut pending)?;
        if !names.insert(consumer.name.clone()) {
            return Err(BAD_GROUP);
        }
        consumers.push(consumer);
    }
    if pending.iter().any(|pending| pending.consumer == usize::MAX) {
        return Err(BAD_GROUP);
    }
    Ok(Group {
        name,
        last_id,
        entries_read,
        pending,
        consumers,
    })
}

/// Reads a consumer and makes it the owner of its pending entries, which must have none yet.
fn read_consumer<R: Read>(
    reader: &mut Reader<R>,
    kind: u8,
    index: usize,
    pending: &mut [Pending],
) -> Result<Consumer, Error> {
    let name = reader.owned_string()?;
    let seen_ms = reader.i64_le()?;
    let active_ms = if kind == kind::STREAM_3 {
        Some(reader.i64_le()?).filter(|&at| at != -1)
    } else {
        Some(seen_ms)
    };
    for _ in 0..reader.length()? {
        let id = read_raw_id(reader)?;
        let at = pending
            .binary_search_by_key(&id, |pending| pending.id)
            .map_err(|_| BAD_GROUP)?;
        if pending[at].consumer != usize::MAX {
            return Err(BAD_GROUP);
        }
        pending[at].consumer = index;
    }
    Ok(Consumer {
        name,
        seen_ms,
        active_ms,
    })
}

impl StreamImage {
    /// How many entries a group has read whose last one is `id`, if that can be told where nothing is known of entries
    /// that are gone.
    fn entries_until(&self, id: Id) -> Option<u64> {
        if self.len == 0 || id < self.first_id {
            Some(0)
        } else if id == self.last_id {
            Some(self.len)
        } else {
            (id == self.first_id).then_some(1)
        }
    }

    /// The stream, with its blocks as the nodes were.
    ///
    /// # Errors
    /// If a node is not sound; not for images that were read.
    pub fn into_stream(self) -> Result<stream::Stream, Error> {
        let mut value = stream::Stream::new();
        for node in &self.nodes {
            let mut entries = node.entries()?;
            let mut begins_block = true;
            while let Some(id) = entries.read_next()? {
                let pairs: Vec<_> = entries
                    .pairs()
                    .chunks_exact(2)
                    .map(|pair| (pair[0], pair[1]))
                    .collect();
                value.push(id, &pairs, begins_block);
                begins_block = false;
            }
        }
        value.last_id = self.last_id;
        value.max_deleted_id = self.max_deleted_id;
        value.entries_added = self.entries_added;
        for group in self.groups {
            value.create_group(&group.name, group.to_group());
        }
        Ok(value)
    }
}

impl Group {
    fn to_group(&self) -> stream::Group {
        let mut group = stream::Group::new(self.last_id, self.entries_read);
        for consumer in &self.consumers {
            group.create_consumer(&consumer.name, consumer.seen_ms);
            group.set_times(&consumer.name, consumer.seen_ms, consumer.active_ms);
        }
        for pending in &self.pending {
            let consumer = &self.consumers[pending.consumer].name;
            group.assign(
                pending.id,
                consumer,
                pending.delivered_ms,
                pending.deliveries,
            );
        }
        group
    }
}

/// Writes a stream in the newest form, a block at a time.
///
/// # Errors
/// The sink's.
pub fn write_stream<W: io::Write>(
    value: &stream::Stream,
    writer: &mut Writer<W>,
) -> io::Result<()> {
    let blocks = value
        .block_entries()
        .filter_map(|mut entries| entries.next());
    writer.length(blocks.count() as u64)?;
    let mut builder = NodeBuilder::new(usize::MAX, usize::MAX);
    let mut pairs = Vec::new();
    for entries in value.block_entries() {
        for entry in entries {
            pairs.clear();
            entry
                .pairs()
                .for_each(|(field, value)| pairs.extend([field, value]));
            builder.push(entry.id, &pairs);
        }
        if let Some(node) = builder.finish() {
            write_node(&node, writer)?;
        }
    }
    writer.length(value.len() as u64)?;
    write_id(value.last_id, writer)?;
    write_id(value.first_id(), writer)?;
    write_id(value.max_deleted_id, writer)?;
    writer.length(value.entries_added)?;
    writer.length(value.groups_len() as u64)?;
    for (name, group) in value.groups() {
        write_group(&image_of_group(name, group), writer)?;
    }
    Ok(())
}

fn image_of_group(name: &[u8], group: &stream::Group) -> Group {
    let numbers: hashbrown::HashMap<&[u8], usize> = group
        .consumers()
        .enumerate()
        .map(|(number, (name, _))| (&name[..], number))
        .collect();
    Group {
        name: name.to_vec(),
        last_id: group.last_id,
        entries_read: group.entries_read,
        pending: group
            .pending_from(stream::MIN_ID)
            .map(|(id, pending)| Pending {
                id,
                delivered_ms: pending.delivered_ms,
                deliveries: pending.deliveries,
                consumer: numbers[&pending.consumer[..]],
            })
            .collect(),
        consumers: group
            .consumers()
            .map(|(name, consumer)| Consumer {
                name: name.to_vec(),
                seen_ms: consumer.seen_ms,
                active_ms: consumer.active_ms,
            })
            .collect(),
    }
}

/// Writes a stream in the newest form.
///
/// # Errors
/// The sink's.
pub fn write_image<W: io::Write>(image: &StreamImage, writer: &mut Writer<W>) -> io::Result<()> {
    writer.length(image.nodes.len() as u64)?;
    for node in &image.nodes {
        write_node(node, writer)?;
    }
    writer.length(image.len)?;
    write_id(image.last_id, writer)?;
    write_id(image.first_id, writer)?;
    write_id(image.max_deleted_id, writer)?;
    writer.length(image.entries_added)?;
    writer.length(image.groups.len() as u64)?;
    image
        .groups
        .iter()
        .try_for_each(|group| write_group(group, writer))
}

/// # Errors
/// The sink's.
pub fn write_node<W: io::Write>(node: &Node, writer: &mut Writer<W>) -> io::Result<()> {
    writer.length(16)?;
    writer.bytes(&raw_id(node.first))?;
    writer.string(&node.listpack)
}

/// # Errors
/// The sink's.
pub fn write_group<W: io::Write>(group: &Group, writer: &mut Writer<W>) -> io::Result<()> {
    writer.string(&group.name)?;
    write_id(group.last_id, writer)?;
    writer.length(group.entries_read.unwrap_or(u64::MAX))?;
    writer.length(group.pending.len() as u64)?;
    for pending in &group.pending {
        writer.bytes(&raw_id(pending.id))?;
        writer.bytes(&pending.delivered_ms.to_le_bytes())?;
        writer.length(pending.deliveries)?;
    }
    let mut owned = vec![Vec::new(); group.consumers.len()];
    for pending in &group.pending {
        owned[pending.consumer].push(pending.id);
    }
    writer.length(group.consumers.len() as u64)?;
    for (consumer, owned) in group.consumers.iter().zip(owned) {
        writer.string(&consumer.name)?;
        writer.bytes(&consumer.seen_ms.to_le_bytes())?;
        writer.bytes(&consumer.active_ms.unwrap_or(-1).to_le_bytes())?;
        writer.length(owned.len() as u64)?;
        for id in owned {
            writer.bytes(&raw_id(id))?;
        }
    }
    Ok(())
}

/// # Errors
/// The sink's.
pub fn write_id<W: io::Write>((ms, seq): Id, writer: &mut Writer<W>) -> io::Result<()> {
    writer.length(ms)?;
    writer.length(seq)
}

fn read_id<R: Read>(reader: &mut Reader<R>) -> Result<Id, Error> {
    Ok((reader.length()?, reader.length()?))
}

fn read_raw_id<R: Read>(reader: &mut Reader<R>) -> Result<Id, Error> {
    Ok((
        u64::from_be_bytes(reader.array()?),
        u64::from_be_bytes(reader.array()?),
    ))
}

fn id_from_key(key: &[u8]) -> Option<Id> {
    let (ms, seq) = <&[u8; 16]>::try_from(key).ok()?.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*ms),
        u64::from_be_bytes(*seq.first_chunk()?),
    ))
}

fn raw_id((ms, seq): Id) -> [u8; 16] {
    (u128::from(ms) << 64 | u128::from(seq)).to_be_bytes()
}

fn trusted(count: u64) -> usize {
    usize::try_from(count).map_or(TRUSTED_COUNT, |count| count.min(TRUSTED_COUNT))
}

impl Node {
    /// The entries that are not deleted.
    ///
    /// # Errors
    /// If the node's head is not sound; not for nodes of an image.
    pub fn entries(&self) -> Result<Entries<'_>, Error> {
        let mut listpack = listpack::Entries::new(&self.listpack)?;
        let count = count_from(listpack.require_integer()?)?;
        let deleted = count_from(listpack.require_integer()?)?;
        let fields = count_from(listpack.require_integer()?)?;
        let mut own_fields = Vec::with_capacity(trusted(fields));
        for _ in 0..fields {
            own_fields.push(listpack.require()?);
        }
        if listpack.require_integer()? != 0 {
            return Err(BAD_NODE);
        }
        Ok(Entries {
            listpack,
            first: self.first,
            own_fields,
            count,
            deleted,
            previous: None,
            pairs: Vec::new(),
        })
    }
}

/// Goes through the entries of a node.
pub struct Entries<'n> {
    listpack: listpack::Entries<'n>,
    first: Id,
    own_fields: Vec<Element<'n>>,
    /// Entries still to come, and deleted ones.
    count: u64,
    deleted: u64,
    previous: Option<Id>,
    pairs: Vec<Element<'n>>,
}

impl<'n> Entries<'n> {
    /// Fields and values, in turns, of the entry last read.
    pub fn pairs(&self) -> &[Element<'n>] {
        &self.pairs
    }

    /// Reads the next entry that is not deleted.
    ///
    /// # Errors
    /// If the node is not sound; not for nodes of an image.
    pub fn read_next(&mut self) -> Result<Option<Id>, Error> {
        while let Some(flags) = self.listpack.next() {
            let flags = flags?.integer().ok_or(BAD_NODE)?;
            if flags & !(DELETED | SAME_FIELDS) != 0 {
                return Err(BAD_NODE);
            }
            let id = self.read_id()?;
            self.read_pairs(flags & SAME_FIELDS != 0)?;
            let left = if flags & DELETED != 0 {
                &mut self.deleted
            } else {
                &mut self.count
            };
            *left = left.checked_sub(1).ok_or(BAD_NODE)?;
            if flags & DELETED == 0 {
                return Ok(Some(id));
            }
        }
        if self.count == 0 && self.deleted == 0 {
            Ok(None)
        } else {
            Err(BAD_NODE)
        }
    }

    fn read_id(&mut self) -> Result<Id, Error> {
        let ms = self
            .first
            .0
            .wrapping_add(self.listpack.require_integer()? as u64);
        let seq = self
            .first
            .1
            .wrapping_add(self.listpack.require_integer()? as u64);
        let id = (ms, seq);
        if id < self.first || self.previous.is_some_and(|previous| id <= previous) || id == (0, 0) {
            return Err(BAD_NODE);
        }
        self.previous = Some(id);
        Ok(id)
    }

    fn read_pairs(&mut self, same_fields: bool) -> Result<(), Error> {
        self.pairs.clear();
        let elements = if same_fields {
            for &field in &self.own_fields {
                self.pairs.extend([field, self.listpack.require()?]);
            }
            self.own_fields.len() as u64 + 3
        } else {
            let fields = count_from(self.listpack.require_integer()?)?;
            for _ in 0..fields {
                self.pairs
                    .extend([self.listpack.require()?, self.listpack.require()?]);
            }
            fields * 2 + 4
        };
        if self.listpack.require_integer()?.try_into() == Ok(elements) {
            Ok(())
        } else {
            Err(BAD_NODE)
        }
    }
}

/// A count, which a listpack cannot have more of than bytes.
fn count_from(integer: i64) -> Result<u64, Error> {
    u32::try_from(integer).map(u64::from).map_err(|_| BAD_NODE)
}

/// Builds nodes of entries in order.
pub struct NodeBuilder {
    max_len: usize,
    max_count: usize,
    first: Id,
    own_fields: Vec<Vec<u8>>,
    count: usize,
    /// The entries without the node's own fields.
    entries: listpack::Builder,
}

impl NodeBuilder {
    /// Nodes of about so many bytes and entries at most.
    pub fn new(max_len: usize, max_count: usize) -> Self {
        Self {
            max_len,
            max_count,
            first: (0, 0),
            own_fields: Vec::new(),
            count: 0,
            entries: listpack::Builder::new(),
        }
    }

    /// Adds an entry, its fields and values in turns. A node that has become full before is returned.
    pub fn push(&mut self, id: Id, pairs: &[Element<'_>]) -> Option<Node> {
        let entry_len = pairs
            .iter()
            .map(|&element| listpack::entry_len(element))
            .sum::<usize>();
        let is_full = self.count >= self.max_count || self.entries.len() + entry_len > self.max_len;
        let full = if is_full { self.finish() } else { None };
        if self.count == 0 {
            self.first = id;
            self.own_fields = pairs
                .iter()
                .step_by(2)
                .map(|field| field.to_vec())
                .collect();
        }
        self.count += 1;
        let fields = pairs.iter().step_by(2);
        let same_fields = fields.len() == self.own_fields.len()
            && fields
                .zip(&self.own_fields)
                .all(|(field, own)| *field == Element::new(own));
        let entries = &mut self.entries;
        entries.push_integer(if same_fields { SAME_FIELDS } else { 0 });
        entries.push_integer(id.0.wrapping_sub(self.first.0) as i64);
        entries.push_integer(id.1.wrapping_sub(self.first.1) as i64);
        let fields = (pairs.len() / 2) as i64;
        if same_fields {
            pairs
                .iter()
                .skip(1)
                .step_by(2)
                .for_each(|&value| entries.push(value));
            entries.push_integer(fields + 3);
        } else {
            entries.push_integer(fields);
            pairs.iter().for_each(|&element| entries.push(element));
            entries.push_integer(fields * 2 + 4);
        }
        full
    }

    /// The node that was being built, if there is one.
    pub fn finish(&mut self) -> Option<Node> {
        if self.count == 0 {
            return None;
        }
        let mut head = listpack::Builder::new();
        head.push_integer(self.count as i64);
        head.push_integer(0);
        head.push_integer(self.own_fields.len() as i64);
        self.own_fields
            .iter()
            .for_each(|field| head.push(Element::new(field)));
        head.push_integer(0);
        head.append(&mut self.entries);
        self.count = 0;
        Some(Node {
            first: self.first,
            listpack: head.finish(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_group_of_an_old_file_has_read_is_told_by_its_last_id() {
        let image = StreamImage {
            len: 2,
            first_id: (5, 0),
            last_id: (6, 0),
            entries_added: 2,
            ..StreamImage::default()
        };
        let read = |id| image.entries_until(id);
        assert_eq!(read((0, 0)), Some(0));
        assert_eq!(read((5, 0)), Some(1));
        assert_eq!(read((5, 1)), None);
        assert_eq!(read((6, 0)), Some(2));
        assert_eq!(read((7, 0)), None);
        assert_eq!(StreamImage::default().entries_until((9, 9)), Some(0));
    }

    fn image_of(entries: &[(Id, Vec<String>)]) -> StreamImage {
        let mut image = StreamImage {
            len: entries.len() as u64,
            ..StreamImage::default()
        };
        let mut builder = NodeBuilder::new(300, 5);
        for (id, pairs) in entries {
            let elements: Vec<Element<'_>> = pairs
                .iter()
                .map(|text| Element::new(text.as_bytes()))
                .collect();
            image.nodes.extend(builder.push(*id, &elements));
        }
        image.nodes.extend(builder.finish());
        image.first_id = entries.first().map(|entry| entry.0).unwrap_or_default();
        image.last_id = entries.last().map(|entry| entry.0).unwrap_or_default();
        image.entries_added = image.len;
        image
    }

    fn write(image: &StreamImage) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), true);
        write_image(image, &mut writer).unwrap();
        writer.into_sink().unwrap()
    }

    fn read(bytes: &[u8], kind: u8) -> Result<StreamImage, Error> {
        read_image(&mut Reader::from_slice(bytes), kind)
    }

    fn entries_of(image: &StreamImage) -> Vec<(Id, Vec<String>)> {
        let mut all = Vec::new();
        for node in &image.nodes {
            let mut entries = node.entries().unwrap();
            while let Some(id) = entries.read_next().unwrap() {
                let pairs = entries
                    .pairs()
                    .iter()
                    .map(|element| String::from_utf8(element.to_vec()).unwrap());
                all.push((id, pairs.collect()));
            }
        }
        all
    }

    fn grouped() -> StreamImage {
        let mut image = image_of(&[
            ((1, 1), vec!["f".into(), "v".into()]),
            ((2, 1), vec!["f".into(), "v2".into()]),
        ]);
        image.groups.push(Group {
            name: b"g".to_vec(),
            last_id: (1, 1),
            entries_read: Some(1),
            pending: vec![
                Pending {
                    id: (1, 1),
                    delivered_ms: 1000,
                    deliveries: 1,
                    consumer: 1,
                },
                Pending {
                    id: (2, 1),
                    delivered_ms: 2000,
                    deliveries: 7,
                    consumer: 0,
                },
            ],
            consumers: vec![
                Consumer {
                    name: b"a".to_vec(),
                    seen_ms: 5,
                    active_ms: Some(6),
                },
                Consumer {
                    name: b"b".to_vec(),
                    seen_ms: 5,
                    active_ms: None,
                },
            ],
        });
        image
    }

    #[test]
    fn a_stream_of_the_reference_server_is_read() {
        let bytes = b"\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01))\0\0\0\x0f\0\x02\x01\0\x01\x01\x01\x81f\x02\0\x01\x02\x01\0\x01\0\x01\
            \x81v\x02\x04\x01\x02\x01\x01\x01\0\x01\x82v2\x03\x04\x01\xff\x02\x02\x01\x01\x01\0\0\x02\x01\x01g\x01\x01\x01\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\
            \x01\xd0\xd9&\x08\xa2\x01\0\0\x01\x01\x02c1\xd0\xd9&\x08\xa2\x01\0\0\xd0\xd9&\x08\xa2\x01\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01";
        let image = read(bytes, kind::STREAM_3).unwrap();
        let fields = |value: &str| vec!["f".to_owned(), value.to_owned()];
        assert_eq!(
            entries_of(&image),
            [((1, 1), fields("v")), ((2, 1), fields("v2"))]
        );
        assert_eq!(image.groups[0].pending[0].id, (1, 1));
        assert_eq!(image.groups[0].consumers[0].name, b"c1");
        assert_eq!(write(&image), bytes);
    }

    #[test]
    fn groups_survive() {
        let image = grouped();
        assert_eq!(read(&write(&image), kind::STREAM_3).unwrap(), image);
    }

    #[test]
    fn pending_entries_belong_to_exactly_one_consumer() {
        let sound = grouped();
        for break_it in [
            |group: &mut Group| group.pending[0].id = group.pending[1].id,
            |group: &mut Group| group.consumers[0].name = b"b".to_vec(),
        ] {
            let mut image = sound.clone();
            break_it(&mut image.groups[0]);
            assert_eq!(read(&write(&image), kind::STREAM_3), Err(BAD_GROUP));
        }
        // The last consumer's only entry: once missing, once the other's, once unknown.
        let bytes = write(&sound);
        let at = bytes.len() - 17;
        let without = [&bytes[..at], b"\0"].concat();
        let shared = [&bytes[..at + 1], &raw_id((2, 1))].concat();
        let unknown = [&bytes[..at + 1], &raw_id((3, 1))].concat();
        for bytes in [without, shared, unknown] {
            assert_eq!(read(&bytes, kind::STREAM_3), Err(BAD_GROUP));
        }
    }

    #[test]
    fn counters_must_agree_with_the_entries() {
        for break_it in [
            |image: &mut StreamImage| image.len += 1,
            |image: &mut StreamImage| image.last_id = (1, 1),
            |image: &mut StreamImage| image.nodes.push(image.nodes[0].clone()),
            |image: &mut StreamImage| image.nodes[0].first = (u64::MAX, 0),
            |image: &mut StreamImage| image.groups.push(image.groups[0].clone()),
        ] {
            let mut image = grouped();
            break_it(&mut image);
            assert!(read(&write(&image), kind::STREAM_3).is_err());
        }
    }

    proptest! {
        #[test]
        fn entries_survive_in_nodes(
            steps in proptest::collection::vec((0u64..3, 0u64..1000, proptest::collection::vec(("[ab]", "[a-z0-9]{0,30}"), 1..4)), 0..40),
        ) {
            let mut id = (1, 0);
            let mut entries = Vec::new();
            for (ms, seq, pairs) in steps {
                id = if ms == 0 { (id.0, id.1 + seq + 1) } else { (id.0 + ms, seq) };
                entries.push((id, pairs.into_iter().flat_map(|(field, value)| [field, value]).collect()));
            }
            let image = image_of(&entries);
            prop_assert_eq!(entries_of(&image), entries);
            prop_assert_eq!(read(&write(&image), kind::STREAM_3), Ok(image));
        }

        #[test]
        fn no_change_of_bytes_makes_it_panic(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4), cut: proptest::sample::Index) {
            let mut bytes = write(&grouped());
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            for kind in [kind::STREAM, kind::STREAM_2, kind::STREAM_3] {
                let _ = read(&bytes, kind);
            }
            bytes.truncate(cut.index(bytes.len()));
            let _ = read(&bytes, kind::STREAM_3);
        }
    }
}
