//! A command as COMMAND INFO shows it: arity, flags, where its keys are, ACL categories, tips, subcommands.

use super::tips;
use crate::dispatch::{
    command::{Access, Arity, Category, Command, Flag, Group, Keys, Place, Reply, Run},
    table::Registered,
};

/// Writes the ten facts about a command.
pub(super) fn write(registered: &Registered, reply: &mut Reply) {
    let command = registered.command;
    reply.array(10);
    reply.bulk(registered.full_name.as_bytes());
    reply.integer(command.arity.signed());
    write_set(reply, &flags(command));
    for number in range(command) {
        reply.integer(number);
    }
    let categories = categories(command);
    reply.set(categories.len());
    for category in categories {
        reply.simple(&format!("@{}", category_name(category)));
    }
    let tips = tips::of(&registered.full_name);
    reply.array(tips.len());
    for tip in tips {
        reply.bulk(tip.as_bytes());
    }
    let specifications: Vec<&Keys> = specifications(command).collect();
    reply.set(specifications.len());
    for (number, keys) in specifications.into_iter().enumerate() {
        let note = note(&registered.full_name, number);
        write_specification(command, keys, note, reply);
    }
    reply.array(registered.subcommands.len());
    for subcommand in &registered.subcommands {
        write(subcommand, reply);
    }
}

fn write_set(reply: &mut Reply, names: &[&str]) {
    reply.set(names.len());
    for name in names {
        reply.simple(name);
    }
}

/// Flags in the order they are shown.
const FLAGS: &[(Flag, &str)] = &[
    (Flag::Write, "write"),
    (Flag::ReadOnly, "readonly"),
    (Flag::DenyOom, "denyoom"),
    (Flag::Admin, "admin"),
    (Flag::PubSub, "pubsub"),
    (Flag::NoScript, "noscript"),
    (Flag::Blocking, "blocking"),
    (Flag::Loading, "loading"),
    (Flag::Stale, "stale"),
    (Flag::SkipMonitor, "skip_monitor"),
    (Flag::SkipSlowlog, "skip_commandlog"),
    (Flag::Asking, "asking"),
    (Flag::Fast, "fast"),
    (Flag::NoAuth, "no_auth"),
    (Flag::NoMandatoryKeys, "no_mandatory_keys"),
    (Flag::NoAsyncLoading, "no_async_loading"),
    (Flag::NoMulti, "no_multi"),
    (Flag::MovableKeys, "movablekeys"),
    (Flag::AllowBusy, "allow_busy"),
];

fn flags(command: &Command) -> Vec<&'static str> {
    let movable = specifications(command).any(|keys| span(keys.place).is_none());
    FLAGS
        .iter()
        .filter(|(flag, _)| command.has(*flag) || *flag == Flag::MovableKeys && movable)
        .map(|(_, name)| *name)
        .collect()
}

/// Categories in the order they are shown.
pub(crate) const CATEGORIES: &[(Category, &str)] = &[
    (Category::Keyspace, "keyspace"),
    (Category::Read, "read"),
    (Category::Write, "write"),
    (Category::Set, "set"),
    (Category::SortedSet, "sortedset"),
    (Category::List, "list"),
    (Category::Hash, "hash"),
    (Category::String, "string"),
    (Category::Bitmap, "bitmap"),
    (Category::HyperLogLog, "hyperloglog"),
    (Category::Geo, "geo"),
    (Category::Stream, "stream"),
    (Category::PubSub, "pubsub"),
    (Category::Admin, "admin"),
    (Category::Fast, "fast"),
    (Category::Slow, "slow"),
    (Category::Blocking, "blocking"),
    (Category::Dangerous, "dangerous"),
    (Category::Connection, "connection"),
    (Category::Transaction, "transaction"),
    (Category::Scripting, "scripting"),
];

/// What a category is called.
pub(crate) fn category_name(category: Category) -> &'static str {
    CATEGORIES
        .iter()
        .find(|(known, _)| *known == category)
        .map_or("", |(_, name)| *name)
}

/// The category of this name, in any case.
pub(crate) fn category(name: &[u8]) -> Option<Category> {
    CATEGORIES
        .iter()
        .find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(name))
        .map(|(category, _)| *category)
}

/// All ACL categories of a command: what its group and flags imply, and what it declares beyond.
pub(crate) fn categories(command: &Command) -> Vec<Category> {
    let container = matches!(command.run, Run::Container);
    // Generic commands that concern the connection (WAIT) or some types (SORT) are not in the category of all keys.
    let elsewhere = command.group == Group::Generic
        && [Category::Connection, Category::List]
            .iter()
            .any(|category| command.categories.contains(category));
    let group = group_category(command.group).filter(|_| !container && !elsewhere);
    let implied = |category: Category| {
        let script = command.group == Group::Scripting;
        match category {
            Category::Write => command.has(Flag::Write),
            Category::Read => command.has(Flag::ReadOnly) && !script,
            Category::Admin | Category::Dangerous => command.has(Flag::Admin),
            Category::Fast => command.has(Flag::Fast),
            Category::Slow => !command.has(Flag::Fast),
            Category::Blocking => command.has(Flag::Blocking),
            Category::PubSub => command.has(Flag::PubSub),
            _ => false,
        }
    };
    CATEGORIES
        .iter()
        .map(|(category, _)| *category)
        .filter(|&category| {
            group == Some(category) || implied(category) || command.categories.contains(&category)
        })
        .collect()
}

fn group_category(group: Group) -> Option<Category> {
    Some(match group {
        Group::Bitmap => Category::Bitmap,
        Group::Connection => Category::Connection,
        Group::Generic => Category::Keyspace,
        Group::Geo => Category::Geo,
        Group::Hash => Category::Hash,
        Group::HyperLogLog => Category::HyperLogLog,
        Group::List => Category::List,
        Group::Scripting => Category::Scripting,
        Group::Set => Category::Set,
        Group::SortedSet => Category::SortedSet,
        Group::Stream => Category::Stream,
        Group::String => Category::String,
        Group::Transactions => Category::Transaction,
        // The flag tells for publishing and subscribing: PUBSUB HELP is of the group, not of the category.
        Group::Cluster | Group::PubSub | Group::Server => return None,
    })
}

/// Where keys are, but for commands that work on every shard whatever their words say.
pub(super) fn specifications(command: &Command) -> impl Iterator<Item = &'static Keys> + use<> {
    let keys = match (command.has(Flag::NotKey), command.arity) {
        (true, Arity::Exactly(_)) => ONE_CHANNEL,
        (true, Arity::AtLeast(_)) => CHANNELS,
        (false, _) => command.keys,
    };
    keys.iter().filter(|keys| keys.place != Place::AllShards)
}

/// Channels of a shard, which are shown where keys are; the access is not.
const ONE_CHANNEL: &[Keys] = &[Keys::at(1, Access::Inspect)];
const CHANNELS: &[Keys] = &[Keys::all(1, Access::Inspect)];

/// First word, last word (counted from the end if negative) and step of keys at fixed places.
fn span(place: Place) -> Option<[i64; 3]> {
    match place {
        Place::At(index) => Some([index as i64, index as i64, 1]),
        Place::Migrated { listed: false } => Some([3, 3, 1]),
        Place::Pair { first } => Some([first as i64, first as i64 + 1, 1]),
        Place::Range { first, last, step } => Some([first as i64, -1 - last as i64, step as i64]),
        _ => None,
    }
}

/// First key, last key and step, as far as the keys' places are fixed and follow each other.
fn range(command: &Command) -> [i64; 3] {
    let mut spans = specifications(command).filter_map(|keys| span(keys.place));
    let Some([first, mut last, step]) = spans.next() else {
        return [0; 3];
    };
    for [next, end, next_step] in spans {
        if last < 0 || next != last + 1 || next_step != step {
            break;
        }
        last = end;
    }
    [first, last, step]
}

/// Writes what a command does with a key.
pub(super) fn write_access(access: Access, reply: &mut Reply) {
    let names: &[&str] = match access {
        Access::Read => &["RO", "access"],
        Access::Inspect => &["RO"],
        Access::Update => &["RW", "access", "update"],
        Access::Alter => &["RW", "update"],
        Access::Repack => &["RW", "access"],
        Access::Merge => &["RW", "access", "insert"],
        Access::Insert => &["RW", "insert"],
        Access::Delete => &["RW", "delete"],
        Access::Take => &["RW", "access", "delete"],
        Access::Overwrite => &["OW", "update"],
        Access::Create => &["OW", "insert"],
        Access::Remove => &["RM", "delete"],
    };
    write_set(reply, names);
}

/// What a specification says in words about the access it declares.
fn note(command: &str, specification: usize) -> Option<&'static str> {
    let note = match command {
        "sort" | "sort_ro" if specification == 1 => {
            return Some(
                "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort",
            );
        }
        "sort" if specification == 2 => {
            return Some(
                "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array",
            );
        }
        "pfcount" => {
            "RW because it may change the internal representation of the key, and propagate to replicas"
        }
        "bitfield" => "This command allows both access and modification of the key",
        "eval" | "fcall" => {
            "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE"
        }
        "eval_ro" | "fcall_ro" => {
            "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS"
        }
        "getex" => "RW and UPDATE because it changes the TTL",
        "set" => "RW and ACCESS due to the optional `GET` argument",
        "xadd" => "UPDATE instead of INSERT because of the optional trimming feature",
        _ => return None,
    };
    (specification == 0).then_some(note)
}

/// How the keys of a place are found.
enum Find {
    Range { last: i64, step: i64, limit: i64 },
    Count { step: i64 },
}

fn write_specification(command: &Command, keys: &Keys, note: Option<&str>, reply: &mut Reply) {
    let (begin, keyword, find) = match keys.place {
        Place::At(index) => {
            let find = Find::Range {
                last: 0,
                step: 1,
                limit: 0,
            };
            (index as i64, None, find)
        }
        Place::Pair { first } => {
            let find = Find::Range {
                last: 1,
                step: 1,
                limit: 0,
            };
            (first as i64, None, find)
        }
        Place::Range { first, last, step } => {
            let find = Find::Range {
                last: -1 - last as i64,
                step: step as i64,
                limit: 0,
            };
            (first as i64, None, find)
        }
        Place::Count { at } => (at as i64, None, Find::Count { step: 1 }),
        Place::CountPairs { at } => (at as i64, None, Find::Count { step: 2 }),
        Place::Streams { from } => {
            let find = Find::Range {
                last: -1,
                step: 1,
                limit: 2,
            };
            (from as i64, Some("STREAMS"), find)
        }
        Place::After { keyword, from } => {
            let find = Find::Range {
                last: 0,
                step: 1,
                limit: 0,
            };
            (from as i64, Some(keyword), find)
        }
        Place::Migrated { listed } => {
            let find = Find::Range {
                last: if listed { -1 } else { 0 },
                step: 1,
                limit: 0,
            };
            match listed {
                true => (-2, Some("KEYS"), find),
                false => (3, None, find),
            }
        }
        Place::SortPatterns | Place::SortStore => {
            reply.map(3 + usize::from(note.is_some()));
            if let Some(note) = note {
                reply.bulk(b"notes");
                reply.bulk(note.as_bytes());
            }
            reply.bulk(b"flags");
            write_access(keys.access, reply);
            for name in ["begin_search", "find_keys"] {
                reply.bulk(name.as_bytes());
                write_kind(reply, "unknown", 0);
            }
            return;
        }
        Place::AllShards => {
            reply.map(0);
            return;
        }
    };
    reply.map(3 + usize::from(note.is_some()));
    if let Some(note) = note {
        reply.bulk(b"notes");
        reply.bulk(note.as_bytes());
    }
    reply.bulk(b"flags");
    match command.name {
        _ if command.has(Flag::NotKey) => write_set(reply, &["not_key"]),
        // The options tell what they really do.
        "SET" | "BITFIELD" => write_set(reply, &["RW", "access", "update", "variable_flags"]),
        "MIGRATE" if keys.place == (Place::Migrated { listed: true }) => {
            write_set(reply, &["RW", "access", "delete", "incomplete"]);
        }
        "GEORADIUS" | "GEORADIUSBYMEMBER" if keys.access == Access::Overwrite => {
            write_set(reply, &["OW", "update", "variable_flags"]);
        }
        _ => write_access(keys.access, reply),
    }
    reply.bulk(b"begin_search");
    match keyword {
        None => {
            write_kind(reply, "index", 1);
            write_number(reply, "index", begin);
        }
        Some(keyword) => {
            write_kind(reply, "keyword", 2);
            reply.bulk(b"keyword");
            reply.bulk(keyword.as_bytes());
            write_number(reply, "startfrom", begin);
        }
    }
    reply.bulk(b"find_keys");
    match find {
        Find::Range { last, step, limit } => {
            write_kind(reply, "range", 3);
            write_number(reply, "lastkey", last);
            write_number(reply, "keystep", step);
            write_number(reply, "limit", limit);
        }
        Find::Count { step } => {
            write_kind(reply, "keynum", 3);
            write_number(reply, "keynumidx", 0);
            write_number(reply, "firstkey", 1);
            write_number(reply, "keystep", step);
        }
    }
}

/// The type of a search and the header of its `len` numbers.
fn write_kind(reply: &mut Reply, kind: &str, len: usize) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(len);
}

fn write_number(reply: &mut Reply, name: &str, number: i64) {
    reply.bulk(name.as_bytes());
    reply.integer(number);
}
