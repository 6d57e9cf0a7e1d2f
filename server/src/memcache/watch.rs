//! `watch`: clients that are shown what others do, a line for each thing.
//!
//! ```text
//! ts=1795604111.889251 gid=3 type=item_store key=a status=stored cmd=set ttl=0 clsid=1 cfd=27 size=2
//! ```
//!
//! A watcher runs no more commands. What it does not read in time is left out, and the next line it does get is
//! preceded by how many are missing, so that a slow watcher costs nobody anything. While nobody watches, a request
//! costs one load.

use std::{
    fmt::{self, Display, Write},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::RwLock;
use protocol::{
    memcache::{Request, Words},
    resp::reply::ReplyWriter,
};
use storage::{
    changes::{Evicted, Listeners},
    db::Db,
    eviction,
    keyspace::{Key, Keyspace},
};

use super::item;
use crate::{
    server::{self, Server},
    session::{
        mailbox::Message,
        registry::{Address, Client},
    },
};

/// Watchers at a time, as in memcached.
const MAX_WATCHERS: usize = 20;
/// Bytes unsent to one watcher; memcached's `watcher_logbuf_size`.
const BUFFER_BYTES: usize = 256 * 1024;

/// Kinds of lines, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logs(u32);

impl Logs {
    const FETCHERS: Logs = Logs(1);
    const MUTATIONS: Logs = Logs(1 << 1);
    const DELETIONS: Logs = Logs(1 << 2);
    const EVICTIONS: Logs = Logs(1 << 3);
    const CONNECTIONS: Logs = Logs(1 << 4);
    /// What there is nothing to say of: crawlers, slabs, proxies.
    const NOTHING: Logs = Logs(1 << 5);

    /// In the order in which a name's beginning is looked for.
    const NAMES: [(&str, Logs); 10] = [
        ("rawcmds", Logs::NOTHING),
        ("evictions", Logs::EVICTIONS),
        ("fetchers", Logs::FETCHERS),
        ("mutations", Logs::MUTATIONS),
        ("sysevents", Logs::NOTHING),
        ("connevents", Logs::CONNECTIONS),
        ("proxyreqs", Logs::NOTHING),
        ("proxyevents", Logs::NOTHING),
        ("proxyuser", Logs::NOTHING),
        ("deletions", Logs::DELETIONS),
    ];

    /// The words after `watch`; fetchers if there are none. A name may be cut short. `None` for an unknown one.
    pub(super) fn named(words: Words<'_>) -> Option<Logs> {
        let mut logs = Logs::default();
        for word in words {
            let (_, log) = Logs::NAMES
                .iter()
                .find(|(name, _)| name.as_bytes().starts_with(word))?;
            logs.0 |= log.0;
        }
        Some(if logs == Logs::default() {
            Logs::FETCHERS
        } else {
            logs
        })
    }

    fn contains(self, other: Logs) -> bool {
        self.0 & other.0 != 0
    }
}

/// Those who watch, and what.
#[derive(Default)]
pub struct Watchers {
    /// What anybody watches.
    logs: AtomicU32,
    list: RwLock<Vec<Watcher>>,
    /// Lines so far, which puts those of several workers in order.
    lines: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) skipped: AtomicU64,
}

struct Watcher {
    client: Arc<Client>,
    logs: Logs,
    /// Lines left out since the last one sent.
    skipped: AtomicU64,
}

impl Watchers {
    /// Whether anybody wants such lines.
    #[inline]
    fn wants(&self, logs: Logs) -> bool {
        // Relaxed: a request that runs while a watcher joins may go unseen.
        Logs(self.logs.load(Ordering::Relaxed)).contains(logs)
    }

    /// False if there are too many already.
    pub(super) fn add(&self, keyspace: &Keyspace, client: &Arc<Client>, logs: Logs) -> bool {
        let mut list = self.list.write();
        if list.len() >= MAX_WATCHERS {
            return false;
        }
        list.push(Watcher {
            client: client.clone(),
            logs,
            skipped: AtomicU64::new(0),
        });
        self.settle(keyspace, &list);
        true
    }

    pub(super) fn remove(&self, keyspace: &Keyspace, client: &Client) {
        let mut list = self.list.write();
        list.retain(|watcher| watcher.client.id != client.id);
        self.settle(keyspace, &list);
    }

    fn settle(&self, keyspace: &Keyspace, list: &[Watcher]) {
        let logs = Logs(list.iter().fold(0, |logs, watcher| logs | watcher.logs.0));
        self.logs.store(logs.0, Ordering::Relaxed);
        if logs.contains(Logs::EVICTIONS) {
            keyspace.add_listener(Listeners::EVICTIONS);
        } else {
            keyspace.remove_listener(Listeners::EVICTIONS);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.list.read().len()
    }

    pub(super) fn includes(&self, client: &Client) -> bool {
        self.list
            .read()
            .iter()
            .any(|watcher| watcher.client.id == client.id)
    }

    /// Lines that were made for somebody.
    pub(super) fn written(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Shows what was evicted.
    #[cold]
    pub fn evicted(&self, keyspace: &Keyspace, evicted: Vec<Evicted>) {
        let now = server::now();
        for item in evicted {
            let fetched = if item.fetched { "yes" } else { "no" };
            let ttl = item
                .deadline
                .map_or(-1, |deadline| deadline.seconds() - now.seconds());
            let idle = eviction::idle_seconds(keyspace, item.access, now).unwrap_or_default();
            let (key, size) = (Encoded(&item.key), item.len);
            self.tell(
                Logs::EVICTIONS,
                format_args!(
                    "type=eviction key={key} fetch={fetched} ttl={ttl} la={idle} clsid=1 size={size}"
                ),
            );
        }
    }

    /// Shows that a client came, or went for this reason.
    #[inline]
    pub(super) fn connection(&self, client: &Client, left: Option<&str>) {
        if self.wants(Logs::CONNECTIONS) {
            self.tell_connection(client, left);
        }
    }

    #[cold]
    fn tell_connection(&self, client: &Client, left: Option<&str>) {
        let (ip, port, transport) = match &client.address {
            Address::Tcp(address) => (address.ip().to_string(), address.port(), "tcp"),
            Address::Unix(_) => ("unix".to_owned(), 0, "local"),
        };
        let descriptor = client.descriptor;
        match left {
            None => self.tell(
                Logs::CONNECTIONS,
                format_args!(
                    "type=conn_new rip={ip} rport={port} transport={transport} cfd={descriptor}"
                ),
            ),
            Some(reason) => self.tell(
                Logs::CONNECTIONS,
                format_args!(
                    "type=conn_close rip={ip} rport={port} transport={transport} reason={reason} cfd={descriptor}"
                ),
            ),
        }
    }

    /// Leaves a line for all who want such.
    #[cold]
    fn tell(&self, logs: Logs, text: fmt::Arguments<'_>) {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let number = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
        // As memcached writes it, microseconds have no leading zeros.
        let line = format!(
            "ts={}.{} gid={number} {text}\n",
            since.as_secs(),
            since.subsec_micros()
        );
        let message = Message::new(|writer: &mut ReplyWriter| writer.raw(line.as_bytes()));
        for watcher in self
            .list
            .read()
            .iter()
            .filter(|one| one.logs.contains(logs))
        {
            watcher.tell(&message, self);
        }
    }
}

impl Watcher {
    fn tell<F: Fn(&mut ReplyWriter)>(&self, line: &Message<F>, watchers: &Watchers) {
        let client = &self.client;
        let unsent = client.mailbox.len_bytes() + client.output_bytes.load(Ordering::Relaxed);
        if unsent > BUFFER_BYTES {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            watchers.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let skipped = self.skipped.swap(0, Ordering::Relaxed);
        if skipped > 0 {
            let text = format!("skipped={skipped}\n");
            client.push(&Message::new(|writer: &mut ReplyWriter| {
                writer.raw(text.as_bytes());
            }));
        }
        client.push(line);
        watchers.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// How storing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Yes,
    No,
    Exists,
    NotFound,
    TooLarge,
    NoMemory,
}

impl Stored {
    fn name(self) -> &'static str {
        match self {
            Stored::Yes => "stored",
            Stored::No => "not_stored",
            Stored::Exists => "exists",
            Stored::NotFound => "not_found",
            Stored::TooLarge => "too_large",
            Stored::NoMemory => "no_memory",
        }
    }
}

/// What one connection's requests tell the watchers and the statistics of prefixes.
#[derive(Clone, Copy)]
pub(super) struct Log<'s> {
    pub(super) server: &'s Server,
    pub(super) descriptor: i32,
}

impl Log<'_> {
    /// Whether anything a request does is of interest.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        let of_requests = Logs(Logs::FETCHERS.0 | Logs::MUTATIONS.0 | Logs::DELETIONS.0);
        self.server.watchers.wants(of_requests) || self.server.prefixes.is_on()
    }

    /// Shows which items a request is about to look at. To be called before it runs, if the log is on.
    #[cold]
    pub(super) fn looks(&self, db: &mut Db<'_>, request: &Request<'_>) {
        match request {
            Request::Get { keys, .. } | Request::GetAndTouch { keys, .. } => {
                for key in *keys {
                    let found = self.look(db, key);
                    self.server.prefixes.note_get(key, found);
                }
            }
            Request::Store { key, .. } => {
                self.look(db, key);
                self.server.prefixes.note_set(key);
            }
            Request::Delete { key, .. } => {
                self.look(db, key);
                self.server.prefixes.note_delete(key);
            }
            Request::Increment { key, .. }
            | Request::Decrement { key, .. }
            | Request::Touch { key, .. } => {
                self.look(db, key);
            }
            // Their prefixes are not counted.
            Request::MetaGet { key, .. }
            | Request::MetaSet { key, .. }
            | Request::MetaDelete { key, .. }
            | Request::MetaArithmetic { key, .. } => {
                self.look(db, &key.bytes);
            }
            _ => {}
        }
    }

    /// Whether the item is there.
    fn look(&self, db: &mut Db<'_>, key: &[u8]) -> bool {
        let name = Key::new(key);
        let Ok(len) = item::locked(self.server, db, name, |db| Ok(item::len(db, name))) else {
            // The request itself will be refused.
            return false;
        };
        if self.server.watchers.wants(Logs::FETCHERS) {
            let (status, class) = match len {
                Some(_) => ("found", 1),
                None => ("not_found", 0),
            };
            let (key, size, descriptor) = (Encoded(key), len.unwrap_or(0), self.descriptor);
            self.server.watchers.tell(
                Logs::FETCHERS,
                format_args!(
                    "type=item_get key={key} status={status} clsid={class} cfd={descriptor} size={size}"
                ),
            );
        }
        len.is_some()
    }

    /// Shows how a value was stored, or was not. `ttl` is in seconds, 0 for an item that stays.
    #[inline]
    pub(super) fn stored(&self, key: &[u8], how: Stored, verb: &str, ttl: u64, len: usize) {
        if self.server.watchers.wants(Logs::MUTATIONS) {
            let (key, status, descriptor) = (Encoded(key), how.name(), self.descriptor);
            self.server.watchers.tell(
                Logs::MUTATIONS,
                format_args!(
                    "type=item_store key={key} status={status} cmd={verb} ttl={ttl} clsid=1 cfd={descriptor} size={len}"
                ),
            );
        }
    }

    /// The length of the value that is about to be deleted, if that is of interest. Its shard is locked.
    #[inline]
    pub(super) fn doomed(&self, db: &Db<'_>, key: Key<'_>) -> usize {
        if !self.server.watchers.wants(Logs::DELETIONS) {
            return 0;
        }
        item::len(db, key).unwrap_or(0)
    }

    /// Shows that an item was deleted.
    #[inline]
    pub(super) fn deleted(&self, key: &[u8], verb: &str, len: usize) {
        if self.server.watchers.wants(Logs::DELETIONS) {
            let key = Encoded(key);
            self.server.watchers.tell(
                Logs::DELETIONS,
                format_args!("type=deleted key={key} cmd={verb} clsid=1 size={len}"),
            );
        }
    }
}

/// A key as in an URI, so that it is one word.
pub(super) struct Encoded<'k>(pub(super) &'k [u8]);

impl Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &byte in self.0 {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    f.write_char(byte.into())?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}
