//! What clients hold: unread requests, unsent replies, queued commands, names they watch and subscribe to. Where it is
//! more than `maxmemory-clients` for all together, those that hold most are closed.
//!
//! A client's figure is brought up to date by whoever changes one of its parts. The sum says when to look; maintenance
//! then adds the clients up one by one, so that the sum need not be exact to the byte.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::registry::Client;
use crate::{
    config::{MemoryLimit, Settings},
    log,
    metrics::process,
    server::Server,
};

/// What a connection takes without any buffers.
pub const CONNECTION_BYTES: usize = 1000;
/// What a name that is watched, or subscribed to, takes beside itself, here and in the tables it is found by.
pub const NAME_BYTES: usize = 160;

/// What all clients hold.
#[derive(Default)]
pub struct ClientMemory {
    total_bytes: AtomicUsize,
    /// 0 is no limit.
    limit_bytes: AtomicU64,
    over_limit: Notify,
    /// Clients that were closed to save memory.
    pub evicted: AtomicU64,
    /// Clients that were closed since a request was too big.
    pub query_limit_disconnections: AtomicU64,
}

impl ClientMemory {
    pub fn configure(&self, settings: &Settings) {
        let machine = process::total_memory_bytes() as u64;
        let limit = match settings.maxmemory_clients {
            MemoryLimit::Bytes(bytes) => bytes,
            share @ MemoryLimit::Percent(_) => share.bytes_of(settings.maxmemory.bytes_of(machine)),
        };
        self.limit_bytes.store(limit, Ordering::Relaxed);
        self.look();
    }

    /// Waits until the clients seem to hold too much.
    pub async fn over_limit(&self) {
        self.over_limit.notified().await;
    }

    fn replace(&self, before: usize, after: usize) {
        // Wrapping on purpose: the sum of all differences is what is held now.
        let difference = after.wrapping_sub(before);
        self.total_bytes.fetch_add(difference, Ordering::Relaxed);
        self.look();
    }

    fn look(&self) {
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        if limit > 0 && self.total_bytes.load(Ordering::Relaxed) as u64 > limit {
            self.over_limit.notify_one();
        }
    }
}

/// The parts of a client's memory that nothing else counts.
#[derive(Default)]
pub struct Held {
    /// Room of the buffer of unread requests.
    pub input_capacity: AtomicUsize,
    /// Commands queued by MULTI.
    pub queued_bytes: AtomicUsize,
    /// Watched keys, channels, patterns and prefixes.
    pub names_bytes: AtomicUsize,
    /// What the sum of all clients has of this one.
    counted: AtomicUsize,
}

/// Whether a client still counts.
#[derive(Default, PartialEq)]
pub(super) enum Settled {
    #[default]
    Open,
    Gone,
}

impl Held {
    pub fn add_name(&self, name: &[u8]) {
        let bytes = name.len() + NAME_BYTES;
        self.names_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn remove_name(&self, name: &[u8]) {
        let bytes = name.len() + NAME_BYTES;
        self.names_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Client {
    /// Bytes of replies that are not sent yet.
    pub fn unsent_bytes(&self) -> usize {
        self.output_bytes.load(Ordering::Relaxed) + self.mailbox.len_bytes()
    }

    /// What the client holds in all.
    pub fn memory_bytes(&self) -> usize {
        CONNECTION_BYTES
            + self
                .input_bytes()
                .max(self.held.input_capacity.load(Ordering::Relaxed))
            + self.unsent_bytes()
            + self.held.queued_bytes.load(Ordering::Relaxed)
            + self.held.names_bytes.load(Ordering::Relaxed)
    }

    fn input_bytes(&self) -> usize {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// Notes how much of its requests waits, in a buffer of which size.
    pub fn note_input(&self, input: &Vec<u8>) {
        self.input_bytes.store(input.len(), Ordering::Relaxed);
        self.held
            .input_capacity
            .store(input.capacity(), Ordering::Relaxed);
        self.account();
    }

    /// Notes how much of its replies waits beside what others left for it.
    pub fn note_unsent(&self, bytes: usize) {
        self.output_bytes.store(bytes, Ordering::Relaxed);
        self.account();
    }

    /// Brings the sum of all clients up to date.
    #[inline]
    pub fn account(&self) {
        if self.memory_bytes() != self.held.counted.load(Ordering::Relaxed) {
            self.recount();
        }
    }

    #[cold]
    fn recount(&self) {
        let settled = self.settled.lock();
        // What a replica holds is limited by its own setting.
        let left = *settled == Settled::Gone || self.is_replica.load(Ordering::Relaxed);
        let now = if left { 0 } else { self.memory_bytes() };
        let before = self.held.counted.swap(now, Ordering::Relaxed);
        self.limits.memory.replace(before, now);
    }

    /// Counts no longer.
    pub(super) fn leave_memory(&self) {
        *self.settled.lock() = Settled::Gone;
        self.recount();
    }
}

/// Closes the clients that hold most until the others keep within `maxmemory-clients`. What clients hold that may not be
/// closed counts all the same.
pub fn evict(server: &Server) {
    let memory = &server.clients.limits.memory;
    let limit = memory.limit_bytes.load(Ordering::Relaxed);
    if limit == 0 {
        return;
    }
    let clients = server.clients.all();
    let mut held: Vec<(usize, &Client)> = clients
        .iter()
        .filter(|client| !client.is_replica.load(Ordering::Relaxed))
        .filter(|client| !client.is_primary())
        .map(|client| (client.memory_bytes(), &**client))
        .collect();
    let mut total: usize = held.iter().map(|(bytes, _)| bytes).sum();
    held.sort_unstable_by_key(|(bytes, client)| (std::cmp::Reverse(*bytes), client.id));
    for (bytes, client) in held {
        if total as u64 <= limit {
            break;
        }
        if client.no_evict.load(Ordering::Relaxed) {
            continue;
        }
        log::notice(format!(
            "Closing client id={} addr={} to save {bytes} bytes",
            client.id, client.address
        ));
        client.kill();
        memory.evicted.fetch_add(1, Ordering::Relaxed);
        total -= bytes;
    }
}
