//! Client-side caching: which clients may hold copies of which keys, and telling them when these are stale.
//!
//! A client that tracks by default is noted with every key that it reads, in the key's shard under the read's lock;
//! the first change of the key tells it and forgets it. One in broadcast mode is told of every changed key that begins
//! with one of its prefixes. Messages go out after the change's locks are released: a copy made in between is told
//! about once too often, never too little.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;
use protocol::resp::reply::ReplyWriter;
use storage::{Held, changes::Listeners, db::Db, keyspace::Key, shard::Shard};

use crate::{
    dispatch::{
        args::Args,
        command::{Command, Flag},
        keys::each_key,
    },
    server::Server,
    session::{Session, mailbox::Message, registry::Client},
};

/// Keys of a shard that are forgotten under one lock when there are too many.
const FORGOTTEN_AT_ONCE: usize = 256;

/// Keys are tracked by name alone, whichever database they are in.
const ANY_DATABASE: usize = 0;

/// How one client is tracked.
#[derive(Default)]
pub struct Tracking {
    pub mode: Mode,
    pub no_loop: bool,
    /// The client that is told instead.
    pub redirect: Option<u64>,
    pub broken_redirect: AtomicBool,
    /// Of broadcast mode.
    pub prefixes: Vec<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Default,
    /// Reads after CLIENT CACHING YES only.
    OptIn,
    /// Reads but those after CLIENT CACHING NO.
    OptOut,
    Broadcast,
}

/// What all clients together track.
#[derive(Default)]
pub struct TrackingTable {
    clients: AtomicUsize,
    keys: AtomicUsize,
    items: AtomicUsize,
    prefixes: RwLock<BTreeMap<Box<[u8]>, ById>>,
}

type ById = BTreeMap<u64, Arc<Client>>;

impl TrackingTable {
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Keys that somebody may hold a copy of.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// The same, counted once per client.
    pub fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    pub fn prefixes(&self) -> usize {
        self.prefixes.read().len()
    }

    /// Notes that a client may hold a copy. Returns who is to be told of another key, which had to make room.
    fn remember(
        &self,
        shard: &mut Shard,
        key: &[u8],
        client: u64,
        limit: u64,
    ) -> Option<(Box<[u8]>, Vec<u64>)> {
        let known = shard.tracked.get(ANY_DATABASE, key);
        if known.contains(&client) {
            return None;
        }
        let keys = if known.is_empty() {
            self.keys.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.keys()
        };
        shard.tracked.add(ANY_DATABASE, key, client);
        self.items.fetch_add(1, Ordering::Relaxed);
        if limit == 0 || keys as u64 <= limit {
            return None;
        }
        let (_, evicted, _) = shard.tracked.iter().next()?;
        let evicted: Box<[u8]> = evicted.into();
        let told = self.forget(shard, &evicted);
        Some((evicted, told))
    }

    /// Takes out those who may hold a copy of a key.
    fn forget(&self, shard: &mut Shard, key: &[u8]) -> Vec<u64> {
        let clients = shard.tracked.take(ANY_DATABASE, key).to_vec();
        if !clients.is_empty() {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            self.items.fetch_sub(clients.len(), Ordering::Relaxed);
        }
        clients
    }

    /// Forgets keys beyond the limit, some hundred of each shard at a time, and tells those who may hold copies. Nothing is
    /// locked.
    pub fn enforce_limit(&self, server: &Server) {
        let limit = server.config.settings().tracking_table_max_keys;
        let is_over = || limit > 0 && self.keys() as u64 > limit;
        if !is_over() {
            return;
        }
        for number in 0..server.keyspace.shard_count() {
            let Ok(mut shard) = server.keyspace.try_lock(number) else {
                continue;
            };
            let tracked = shard.tracked.iter().take(FORGOTTEN_AT_ONCE);
            let keys: Vec<Box<[u8]>> = tracked.map(|(_, key, _)| key.into()).collect();
            let mut told = Vec::new();
            for key in keys {
                if !is_over() {
                    break;
                }
                let clients = self.forget(&mut shard, &key);
                told.push((key, clients));
            }
            drop(shard);
            for (key, clients) in told {
                tell_each(server, &key, &clients, 0);
            }
        }
    }

    /// Tells of a key that changed. Nothing is locked.
    pub fn invalidate_key(&self, server: &Server, key: &[u8], changer: u64) {
        let shard = server.keyspace.shard_of(Key::new(key).hash);
        match server.keyspace.try_lock(shard) {
            Ok(mut shard) => {
                let clients = self.forget(&mut shard, key);
                drop(shard);
                tell_each(server, key, &clients, changer);
            }
            Err(Held) => {
                let key = Box::<[u8]>::from(key);
                server
                    .postponed
                    .add(move |server| server.tracking.invalidate_key(server, &key, changer));
            }
        }
    }

    /// As [`TrackingTable::invalidate_key`], for a key whose lock is held.
    pub fn invalidate_locked(&self, server: &Server, db: &mut Db<'_>, key: &[u8], changer: u64) {
        let clients = self.forget(db.shard_mut(Key::new(key).hash), key);
        tell_each(server, key, &clients, changer);
    }

    /// Tells those who listen to the prefixes that there are now, or leaves that to the end of the turn, see
    /// [`collect_broadcasts`].
    pub fn broadcast(&self, server: &Server, keys: Vec<(Box<[u8]>, u64)>) {
        let prefixes = self.prefixes.read();
        if keys.is_empty() || prefixes.is_empty() {
            return;
        }
        let mut found = Broadcasts::new();
        COLLECTED.with_borrow_mut(|collected| {
            let into = collected.as_mut().unwrap_or(&mut found);
            for (key, changer) in keys {
                for prefix in prefixes.keys().filter(|prefix| key.starts_with(prefix)) {
                    let keys = into.entry(prefix.clone()).or_default();
                    keys.insert(key.clone(), changer);
                }
            }
        });
        drop(prefixes);
        self.send(server, &found);
    }

    /// One message per prefix and client, with all keys in their order.
    fn send(&self, server: &Server, broadcasts: &Broadcasts) {
        for (prefix, keys) in broadcasts {
            let clients: Vec<Arc<Client>> = match self.prefixes.read().get(prefix) {
                Some(clients) => clients.values().cloned().collect(),
                None => continue,
            };
            for client in clients {
                let Some(tracking) = client.tracking() else {
                    continue;
                };
                let told: Vec<&[u8]> = keys
                    .iter()
                    .filter(|(_, changer)| !(tracking.no_loop && client.id == **changer))
                    .map(|(key, _)| &**key)
                    .collect();
                if !told.is_empty() {
                    tell(server, &client, &tracking, Some(&told));
                }
            }
        }
    }

    /// Tells everybody that all copies are stale. Nothing is locked.
    pub fn invalidate_all(&self, server: &Server) {
        for shard in 0..server.keyspace.shard_count() {
            self.forget_all(server, shard);
        }
        self.tell_all(server);
    }

    /// As [`TrackingTable::invalidate_all`], when all shards are locked.
    pub fn invalidate_all_locked(&self, server: &Server, db: &mut Db<'_>) {
        let walked = db.each_shard(0, |_, shard| {
            self.forget_shard(shard);
            None::<()>
        });
        debug_assert!(walked.is_ok(), "nobody else holds what is locked");
        self.tell_all(server);
    }

    fn tell_all(&self, server: &Server) {
        for client in server.clients.all() {
            if let Some(tracking) = client.tracking() {
                tell(server, &client, &tracking, None);
            }
        }
    }
}

impl TrackingTable {
    /// Forgets who may hold copies of a shard's keys. They have been told already.
    fn forget_all(&self, server: &Server, number: usize) {
        let Ok(mut shard) = server.keyspace.try_lock(number) else {
            server
                .postponed
                .add(move |server| server.tracking.forget_all(server, number));
            return;
        };
        self.forget_shard(&mut shard);
    }

    fn forget_shard(&self, shard: &mut Shard) {
        let (keys, items) = shard
            .tracked
            .iter()
            .fold((0, 0), |(keys, items), (.., clients)| {
                (keys + 1, items + clients.len())
            });
        shard.tracked.clear();
        self.keys.fetch_sub(keys, Ordering::Relaxed);
        self.items.fetch_sub(items, Ordering::Relaxed);
    }
}

/// By prefix, the keys that changed, each with the client that changed it last.
pub type Broadcasts = BTreeMap<Box<[u8]>, BTreeMap<Box<[u8]>, u64>>;

thread_local! {
    /// What this thread has to broadcast at the end of its turn; `None` outside of turns.
    static COLLECTED: RefCell<Option<Broadcasts>> = const { RefCell::new(None) };
}

/// Collects what is to be broadcast until the turn ends: keys that several commands of a pipeline change make one
/// message, as those of one pass of Valkey's event loop do. Goes on with what an earlier turn has left.
pub fn collect_broadcasts() {
    COLLECTED.with_borrow_mut(|collected| {
        collected.get_or_insert_default();
    });
}

/// Takes away what the turn has collected, while others have theirs on this thread.
pub fn put_aside() -> Option<Broadcasts> {
    COLLECTED.take()
}

/// Goes on with what was put aside.
pub fn take_up(collected: Option<Broadcasts>) {
    COLLECTED.set(collected);
}

/// Ends the turn and sends what was collected. Nothing is locked.
#[inline]
pub fn send_broadcasts(server: &Server) {
    if let Some(collected) = COLLECTED.take()
        && !collected.is_empty()
    {
        server.tracking.send(server, &collected);
    }
}

/// Tells clients, by number, that their copies of a key are stale.
fn tell_each(server: &Server, key: &[u8], clients: &[u64], changer: u64) {
    for &id in clients {
        let Some(client) = server.clients.get(id) else {
            continue;
        };
        let Some(tracking) = client.tracking() else {
            continue;
        };
        let own = tracking.no_loop && id == changer;
        if tracking.mode != Mode::Broadcast && !own {
            tell(server, &client, &tracking, Some(&[key]));
        }
    }
}

/// The channel on which a RESP2 client is told on behalf of another.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// Tells one client, or the one that it named for this, that keys are stale; `None` stands for all keys.
fn tell(server: &Server, client: &Arc<Client>, tracking: &Tracking, keys: Option<&[&[u8]]>) {
    let write_keys = |writer: &mut ReplyWriter| match keys {
        Some(keys) => {
            writer.array(keys.len());
            keys.iter().for_each(|key| writer.bulk(key));
        }
        None => writer.null(),
    };
    let write_push = |writer: &mut ReplyWriter| {
        writer.push(2);
        writer.bulk(b"invalidate");
        write_keys(writer);
    };
    let Some(redirect) = tracking.redirect else {
        if client.resp3.load(Ordering::Relaxed) {
            client.push(&Message::new(write_push));
        }
        return;
    };
    let Some(target) = server.clients.get(redirect) else {
        tracking.broken_redirect.store(true, Ordering::Relaxed);
        if client.resp3.load(Ordering::Relaxed) {
            client.push(&Message::new(|writer: &mut ReplyWriter| {
                writer.push(2);
                writer.bulk(b"tracking-redir-broken");
                writer.integer(redirect as i64);
            }));
        }
        return;
    };
    if target.resp3.load(Ordering::Relaxed) {
        target.push(&Message::new(write_push));
    } else if target.subscriptions() > 0 {
        target.push(&Message::new(|writer: &mut ReplyWriter| {
            writer.push(3);
            writer.bulk(b"message");
            writer.bulk(CHANNEL);
            write_keys(writer);
        }));
    }
}

/// Whether the keys that a command reads are noted for the client. `asked`: CLIENT CACHING was said before it.
pub fn is_wanted(client: &Client, command: &Command, asked: bool) -> bool {
    let mode = client.tracking().map(|tracking| tracking.mode);
    let wanted = match mode {
        Some(Mode::Default) => true,
        Some(Mode::OptIn) => asked,
        Some(Mode::OptOut) => !asked,
        Some(Mode::Broadcast) | None => false,
    };
    wanted && command.has(Flag::ReadOnly)
}

/// Notes the keys that a command just read if its client tracks them. They are locked.
#[cold]
pub fn remember(session: &Session, db: &mut Db<'_>, command: &Command, args: &Args<'_>) {
    let (server, client) = (&session.server, &session.client);
    if is_wanted(client, command, session.flags.caching) {
        remember_for(server, client.id, db, command, args);
    }
}

/// Notes the keys that a command just read for a client. They are locked.
#[cold]
pub fn remember_for(
    server: &Server,
    client: u64,
    db: &mut Db<'_>,
    command: &Command,
    args: &Args<'_>,
) {
    let limit = server.config.settings().tracking_table_max_keys;
    each_key(command, args, |index, _| {
        let key = args.key(index);
        if !db.holds(key.hash) {
            return;
        }
        let shard = db.shard_mut(key.hash);
        if let Some((evicted, told)) = server.tracking.remember(shard, key.bytes, client, limit) {
            tell_each(server, &evicted, &told, 0);
        }
    });
}

impl Session {
    /// Tracks from now on, or as said anew.
    pub fn start_tracking(&mut self, mut tracking: Tracking) {
        let before = self.client.tracking();
        if tracking.mode == Mode::Broadcast && tracking.prefixes.is_empty() {
            // All keys, also beside prefixes from before.
            tracking.prefixes.push(Box::default());
        }
        if let Some(before) = &before {
            // Prefixes only ever add up.
            tracking.prefixes.extend(before.prefixes.iter().cloned());
            tracking.prefixes.sort_unstable();
            tracking.prefixes.dedup();
        }
        self.flags.tracks_reads = tracking.mode != Mode::Broadcast;
        let prefixes = tracking.prefixes.clone();
        self.client.set_tracking(Some(Arc::new(tracking)));
        let table = &self.server.tracking;
        let mut known = table.prefixes.write();
        if before.is_none() {
            table.clients.fetch_add(1, Ordering::Relaxed);
            self.server.keyspace.add_listener(Listeners::TRACKING);
        }
        for prefix in prefixes {
            let clients = known.entry(prefix.clone()).or_default();
            let client = self.client.clone();
            if clients.insert(client.id, client).is_none() {
                self.client.held.add_name(&prefix);
            }
        }
        self.client.account();
    }

    /// Tracks no longer. Keys noted for it are forgotten when they change.
    pub fn stop_tracking(&mut self) {
        let Some(tracking) = self.client.tracking() else {
            return;
        };
        self.flags.tracks_reads = false;
        self.flags.caching = false;
        self.client.set_tracking(None);
        let table = &self.server.tracking;
        let mut known = table.prefixes.write();
        for prefix in &tracking.prefixes {
            if let Some(clients) = known.get_mut(prefix) {
                if clients.remove(&self.client.id).is_some() {
                    self.client.held.remove_name(prefix);
                }
                if clients.is_empty() {
                    known.remove(prefix);
                }
            }
        }
        // Under the lock, so that nobody begins in between.
        if table.clients.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.server.keyspace.remove_listener(Listeners::TRACKING);
        }
    }
}
