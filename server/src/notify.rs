//! Keyspace notifications: what happens to keys, published on channels named after the key and after the event.

use storage::changes::{Event, EventClass, Listeners};

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

/// Publishes events in the order they happened. Nothing is locked.
#[cold]
pub fn publish(server: &Server, events: Vec<Event>) {
    let wanted = server.config.settings().notify_keyspace_events;
    for event in events {
        if !wanted.contains(class(event.class)) {
            continue;
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
