//! The stream commands.

mod entries;
mod group;
mod id;
mod info;
mod pending;
mod read;
mod slices;

use protocol::resp::reply::ReplyWriter;
use storage::value::{
    element::Element,
    stream::{Entry, Id, Stream},
};

use crate::dispatch::{
    command::{Command, Result},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &entries::XADD,
    &entries::XLEN,
    &entries::XRANGE,
    &entries::XREVRANGE,
    &entries::XDEL,
    &entries::XTRIM,
    &entries::XSETID,
    &read::XREAD,
    &read::XREADGROUP,
    &pending::XACK,
    &pending::XPENDING,
    &pending::XCLAIM,
    &pending::XAUTOCLAIM,
    &group::XGROUP,
    &info::XINFO,
];

fn write_id(writer: &mut ReplyWriter, id: Id) {
    writer.bulk(&id::text(id));
}

/// An entry as replies have it: its ID, and fields and values in turns.
fn write_entry(writer: &mut ReplyWriter, entry: &Entry<'_>) {
    writer.array(2);
    write_id(writer, entry.id);
    writer.array(2 * entry.len());
    for (field, value) in entry.pairs() {
        write_element(writer, field);
        write_element(writer, value);
    }
}

fn write_element(writer: &mut ReplyWriter, element: Element<'_>) {
    match element {
        Element::Text(text) => writer.bulk(text),
        Element::Integer(integer) => writer.bulk_integer(integer),
    }
}

fn no_group(key: &[u8], group: &[u8]) -> Error {
    named(
        b"NOGROUP No such key '",
        key,
        b"' or consumer group '",
        group,
    )
}

fn no_group_for_key(group: &[u8], key: &[u8]) -> Error {
    named(
        b"NOGROUP No such consumer group '",
        group,
        b"' for key name '",
        key,
    )
}

fn named(before: &[u8], one: &[u8], between: &[u8], other: &[u8]) -> Error {
    Error::new([before, one, between, other, b"'"].concat())
}

/// The error of a subcommand whose options make no sense.
fn subcommand_syntax(container: &str, name: &[u8]) -> Error {
    let mut text = b"unknown subcommand or wrong number of arguments for '".to_vec();
    text.extend_from_slice(&name[..name.len().min(128)]);
    text.extend_from_slice(format!("'. Try {container} HELP.").as_bytes());
    Error::general(text)
}

/// What the key must hold for `group` to be used.
fn require_group<'s>(stream: Option<&'s Stream>, key: &[u8], group: &[u8]) -> Result<&'s Stream> {
    stream
        .filter(|stream| stream.group(group).is_some())
        .ok_or_else(|| no_group(key, group))
}
