//! Who is subscribed to which channel, and how a message gets to them.
//!
//! Publishing holds the channel's lock until every subscriber has the message in its mailbox, so that all of them see
//! the messages of one channel in one order. Channels are spread over several locks. Patterns are looked through for
//! every message, which costs as many comparisons as there are patterns.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::Mutex;
use protocol::resp::reply::ReplyWriter;

use crate::{
    glob::{self, Case},
    session::{mailbox::Message, registry::Client},
};

/// What one can subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    /// A channel that belongs to a hash slot, in a name space of its own.
    ShardChannel,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::ShardChannel];
}

/// Locks per kind; publishers on different channels rarely meet.
const PARTS: usize = 64;

/// All subscriptions of the server.
#[derive(Default)]
pub struct PubSub {
    pub channels: Subscribers,
    pub patterns: Subscribers,
    pub shard_channels: Subscribers,
}

/// Clients by the name that they are subscribed to.
pub struct Subscribers {
    parts: Box<[Mutex<Part>]>,
    names: AtomicUsize,
}

/// Clients by number, so that one of very many is removed quickly.
type Part = HashMap<Box<[u8]>, BTreeMap<u64, Arc<Client>>>;

impl Default for Subscribers {
    fn default() -> Self {
        Subscribers {
            parts: (0..PARTS).map(|_| Mutex::default()).collect(),
            names: AtomicUsize::new(0),
        }
    }
}

impl Subscribers {
    fn part(&self, name: &[u8]) -> &Mutex<Part> {
        &self.parts[storage::hash::hash(name) as usize % PARTS]
    }

    pub fn add(&self, name: &[u8], client: &Arc<Client>) {
        let mut part = self.part(name).lock();
        let clients = part.entry(name.into()).or_default();
        if clients.is_empty() {
            self.names.fetch_add(1, Ordering::Relaxed);
        }
        clients.insert(client.id, client.clone());
    }

    pub fn remove(&self, name: &[u8], client: u64) {
        let mut part = self.part(name).lock();
        let Some(clients) = part.get_mut(name) else {
            return;
        };
        clients.remove(&client);
        if clients.is_empty() {
            part.remove(name);
            self.names.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many names have subscribers.
    pub fn len(&self) -> usize {
        self.names.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many clients are subscribed to a name.
    pub fn count(&self, name: &[u8]) -> usize {
        self.part(name).lock().get(name).map_or(0, BTreeMap::len)
    }

    /// The clients that are subscribed to names that `picked` picks, once for every such name.
    pub fn clients_of_names(&self, picked: impl Fn(&[u8]) -> bool) -> Vec<Arc<Client>> {
        let mut clients = Vec::new();
        for part in &self.parts {
            for (name, subscribed) in part.lock().iter() {
                if picked(name) {
                    clients.extend(subscribed.values().cloned());
                }
            }
        }
        clients
    }

    /// The names that have subscribers and match a pattern.
    pub fn names(&self, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let mut names = Vec::new();
        for part in &self.parts {
            let part = part.lock();
            let wanted = part.keys().filter(|name| {
                pattern.is_none_or(|pattern| glob::matches(pattern, name, Case::Sensitive))
            });
            names.extend(wanted.cloned());
        }
        names
    }
}

impl PubSub {
    pub fn of(&self, kind: Kind) -> &Subscribers {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::ShardChannel => &self.shard_channels,
        }
    }

    /// Sends a message to a channel's subscribers and those of patterns that match it. Returns to how many.
    pub fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        if self.channels.is_empty() && self.patterns.is_empty() {
            return 0;
        }
        let part = self.channels.part(channel).lock();
        let direct = send(&part, b"message", channel, payload);
        // Under the channel's lock, so that these see the same order.
        direct + self.publish_to_patterns(channel, payload)
    }

    /// Sends a message to a shard channel's subscribers. Returns to how many.
    pub fn publish_to_shard(&self, channel: &[u8], payload: &[u8]) -> usize {
        let part = self.shard_channels.part(channel).lock();
        send(&part, b"smessage", channel, payload)
    }

    fn publish_to_patterns(&self, channel: &[u8], payload: &[u8]) -> usize {
        if self.patterns.is_empty() {
            return 0;
        }
        let mut receivers = 0;
        for part in &self.patterns.parts {
            for (pattern, clients) in part.lock().iter() {
                if !glob::matches(pattern, channel, Case::Sensitive) {
                    continue;
                }
                let message = Message::new(|writer: &mut ReplyWriter| {
                    writer.push(4);
                    writer.bulk(b"pmessage");
                    writer.bulk(pattern);
                    writer.bulk(channel);
                    writer.bulk(payload);
                });
                clients.values().for_each(|client| client.push(&message));
                receivers += clients.len();
            }
        }
        receivers
    }
}

fn send(part: &Part, kind: &[u8], channel: &[u8], payload: &[u8]) -> usize {
    let Some(clients) = part.get(channel) else {
        return 0;
    };
    let message = Message::new(|writer: &mut ReplyWriter| {
        writer.push(3);
        writer.bulk(kind);
        writer.bulk(channel);
        writer.bulk(payload);
    });
    clients.values().for_each(|client| client.push(&message));
    clients.len()
}
