//! Telling what commands did: keyspace notifications, which are published on channels named after the key and after
//! the event, and stale copies of keys, see [`crate::tracking`].

use storage::{
    changes::{Event, EventClass, Listeners, Notice},
    db::Db,
};

use crate::{config::KeyspaceEvents, server::Server};

/// Listens to events, or stops to, as `notify-keyspace-events` says.
pub fn configure(server: &Server, wanted: KeyspaceEvents) {
    let has_channel =
        wanted.contains(KeyspaceEvents::KEYSPACE) || wanted.contains(KeyspaceEvents::KEYEVENT);
    if has_channel {
        server.keyspace.add_listener(Listeners::EVENTS);
    } else {
        server.keyspace.remove_listener(Listeners::EVENTS);
    }
}

/// Tells of what happened, in that order. Nothing is locked.
#[cold]
pub fn tell(server: &Server, notices: &mut Vec<Notice>) {
    tell_each(server, notices, Teller::Command, |stale| match stale {
        Stale::Key(key, client) => server.tracking.invalidate_key(server, key, client),
        Stale::All => server.tracking.invalidate_all(server),
    });
}

/// As [`tell`], under the locks of all that changed: before a transaction reads it again, and before those are served
/// who waited for it.
#[cold]
pub fn tell_locked(server: &Server, db: &mut Db<'_>, notices: &mut Vec<Notice>, teller: Teller) {
    tell_each(server, notices, teller, |stale| match stale {
        Stale::Key(key, client) => server.tracking.invalidate_locked(server, db, key, client),
        Stale::All => server.tracking.invalidate_all_locked(server, db),
    });
}

/// Whose changes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    Command,
    /// Those who listen to prefixes are told of what their own scripts did, NOLOOP or not.
    Script,
}

/// Cached copies that are stale: a key's, by whom, or all.
enum Stale<'a> {
    Key(&'a [u8], u64),
    All,
}

fn tell_each(
    server: &Server,
    notices: &mut Vec<Notice>,
    teller: Teller,
    mut invalidate: impl FnMut(Stale<'_>),
) {
    let mut broadcasts = Vec::new();
    for notice in notices.drain(..) {
        match notice {
            Notice::Event(event) => publish(server, &event),
            Notice::Stale { key, client } => {
                invalidate(Stale::Key(&key, client));
                let changer = match teller {
                    Teller::Command => client,
                    Teller::Script => 0,
                };
                broadcasts.push((key, changer));
            }
            Notice::AllStale => invalidate(Stale::All),
        }
    }
    server.tracking.broadcast(server, broadcasts);
}

fn publish(server: &Server, event: &Event) {
    let wanted = server.config.settings().notify_keyspace_events;
    if !wanted.contains(class(event.class)) {
        return;
    }
    let name = event.name.as_bytes();
    if wanted.contains(KeyspaceEvents::KEYSPACE) {
        let channel = channel("keyspace", event.database, &event.key);
        server.pubsub.publish(&channel, name);
    }
    if wanted.contains(KeyspaceEvents::KEYEVENT) {
        let channel = channel("keyevent", event.database, name);
        server.pubsub.publish(&channel, &event.key);
    }
}

fn channel(kind: &str, database: usize, of: &[u8]) -> Vec<u8> {
    let mut channel = format!("__{kind}@{database}__:").into_bytes();
    channel.extend_from_slice(of);
    channel
}

/// What the setting calls a class of events.
const fn class(class: EventClass) -> KeyspaceEvents {
    match class {
        EventClass::Generic => KeyspaceEvents::GENERIC,
        EventClass::String => KeyspaceEvents::STRING,
        EventClass::List => KeyspaceEvents::LIST,
        EventClass::Set => KeyspaceEvents::SET,
        EventClass::Hash => KeyspaceEvents::HASH,
        EventClass::SortedSet => KeyspaceEvents::SORTED_SET,
        EventClass::Stream => KeyspaceEvents::STREAM,
        EventClass::Expired => KeyspaceEvents::EXPIRED,
        EventClass::Evicted => KeyspaceEvents::EVICTED,
        EventClass::KeyMiss => KeyspaceEvents::MISS,
        EventClass::New => KeyspaceEvents::NEW,
    }
}
