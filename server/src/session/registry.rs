//! All connected clients, as other clients and the server see them.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        },
    },
    task::Waker,
};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use storage::shard::WatchMark;

use super::{
    mailbox::{Mailbox, OutputGuard, Post},
    memory::{ClientMemory, Held, Settled},
};
use crate::{acl::DEFAULT_USER, dispatch::blocking::Waiter, tracking::Tracking};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Resp,
    Memcached,
    /// RESP the other way round: the stream of the primary that this server follows.
    Primary,
}

/// What a client tells of itself with CLIENT SETNAME and SETINFO.
#[derive(Clone, Debug, Default)]
pub struct Details {
    pub name: Vec<u8>,
    pub library_name: Vec<u8>,
    pub library_version: Vec<u8>,
    pub user: Vec<u8>,
    /// What becomes of the keys that it watches.
    pub watch: Option<Arc<WatchMark>>,
}

impl Details {
    /// The user whose rights it has.
    pub fn user(&self) -> &[u8] {
        match self.user.as_slice() {
            b"" => DEFAULT_USER,
            name => name,
        }
    }
}

/// Whether a client waits for replicas, the disk or the end of a pause, and how others ended that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WaitState {
    None,
    Waits,
    TimedOut,
    Interrupted,
    /// CLIENT PAUSE holds its command back.
    Paused,
}

/// A client as others see it. Its worker keeps the numbers current with relaxed stores; nothing hangs on their order.
pub struct Client {
    pub id: u64,
    pub wire: Wire,
    pub address: Address,
    pub local_address: Arc<Address>,
    pub descriptor: i32,
    pub connected_at_ms: i64,
    last_active_ms: AtomicI64,
    last_command: AtomicU32,
    database: AtomicU32,
    commands: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    pub resp3: AtomicBool,
    pub no_evict: AtomicBool,
    pub no_touch: AtomicBool,
    /// READONLY.
    pub readonly: AtomicBool,
    /// CLIENT IMPORT-SOURCE.
    pub import_source: AtomicBool,
    /// CLIENT CAPA REDIRECT.
    pub can_redirect: AtomicBool,
    pub in_transaction: AtomicBool,
    /// Commands queued by MULTI, -1 before the first MULTI or WATCH.
    pub queued: AtomicI32,
    pub watched_keys: AtomicU32,
    pub input_bytes: AtomicUsize,
    pub output_bytes: AtomicUsize,
    /// Channels, patterns and shard channels it is subscribed to.
    pub channels: AtomicU32,
    pub patterns: AtomicU32,
    pub shard_channels: AtomicU32,
    /// It is sent the command log.
    pub is_replica: AtomicBool,
    /// What others have for it.
    pub mailbox: Mailbox,
    waiter: Mutex<Option<Arc<Waiter>>>,
    /// What it waits for beside keys: a [`WaitState`].
    patience: AtomicU8,
    pub is_monitor: AtomicBool,
    tracking: Mutex<Option<Arc<Tracking>>>,
    pub(super) post: Arc<Post>,
    pub(super) limits: Arc<ClientLimits>,
    pub held: Held,
    pub(super) settled: Mutex<Settled>,
    killed: AtomicBool,
    details: Mutex<Option<Box<Details>>>,
    waker: Mutex<Option<Waker>>,
}

/// `last_command` before the first.
const NO_COMMAND: u32 = u32::MAX;

/// A connection as it is when it begins.
pub struct Arrival {
    pub wire: Wire,
    pub address: Address,
    pub local_address: Address,
    pub descriptor: i32,
    pub now_ms: i64,
    /// The way to the worker that it lives on.
    pub post: Arc<Post>,
}

impl Client {
    fn new(
        id: u64,
        arrival: Arrival,
        local_address: Arc<Address>,
        limits: Arc<ClientLimits>,
    ) -> Client {
        let Arrival {
            wire,
            address,
            local_address: _,
            descriptor,
            now_ms,
            post,
        } = arrival;
        Client {
            id,
            wire,
            address,
            local_address,
            descriptor,
            connected_at_ms: now_ms,
            last_active_ms: AtomicI64::new(now_ms),
            last_command: AtomicU32::new(NO_COMMAND),
            database: AtomicU32::new(0),
            commands: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            resp3: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            readonly: AtomicBool::new(false),
            import_source: AtomicBool::new(false),
            can_redirect: AtomicBool::new(false),
            in_transaction: AtomicBool::new(false),
            queued: AtomicI32::new(-1),
            watched_keys: AtomicU32::new(0),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            channels: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            is_replica: AtomicBool::new(false),
            mailbox: Mailbox::default(),
            waiter: Mutex::new(None),
            patience: AtomicU8::new(WaitState::None as u8),
            is_monitor: AtomicBool::new(false),
            tracking: Mutex::new(None),
            post,
            limits,
            held: Held::default(),
            settled: Mutex::default(),
            killed: AtomicBool::new(false),
            details: Mutex::new(None),
            waker: Mutex::new(None),
        }
    }

    /// The server as its own client: in no registry, on no socket.
    pub(crate) fn internal(now_ms: i64) -> Client {
        let nowhere = Address::Unix("".into());
        let local_address = Arc::new(nowhere.clone());
        let arrival = Arrival {
            wire: Wire::Resp,
            address: nowhere.clone(),
            local_address: nowhere,
            descriptor: -1,
            now_ms,
            post: Arc::default(),
        };
        Client::new(0, arrival, local_address, Arc::default())
    }

    /// Notes a turn: so many bytes read and written, so many commands run in all, the last of them this.
    #[inline]
    pub fn note_turn(
        &self,
        now_ms: i64,
        bytes_in: usize,
        bytes_out: usize,
        commands: u32,
        last_command: Option<usize>,
    ) {
        self.last_active_ms.store(now_ms, Ordering::Relaxed);
        add(&self.bytes_in, bytes_in as u64);
        add(&self.bytes_out, bytes_out as u64);
        self.note_commands(commands);
        if let Some(command) = last_command {
            self.last_command.store(command as u32, Ordering::Relaxed);
        }
    }

    /// Whether this server follows it.
    pub fn is_primary(&self) -> bool {
        self.wire == Wire::Primary
    }

    /// Counts bytes written outside of a turn.
    pub fn note_output(&self, bytes: usize) {
        add(&self.bytes_out, bytes as u64);
    }

    /// Channels of all kinds and patterns it is subscribed to.
    pub fn subscriptions(&self) -> usize {
        [&self.channels, &self.patterns, &self.shard_channels]
            .into_iter()
            .map(|count| count.load(Ordering::Relaxed) as usize)
            .sum()
    }

    /// The command that it waits with.
    pub fn waiter(&self) -> Option<Arc<Waiter>> {
        self.waiter.lock().clone()
    }

    pub fn set_waiter(&self, waiter: Option<Arc<Waiter>>) {
        *self.waiter.lock() = waiter;
    }

    /// How its reads are tracked, if they are.
    pub fn tracking(&self) -> Option<Arc<Tracking>> {
        self.tracking.lock().clone()
    }

    pub fn set_tracking(&self, tracking: Option<Arc<Tracking>>) {
        *self.tracking.lock() = tracking;
    }

    /// The client that its invalidations go to: 0 for itself, -1 when it does not track.
    pub fn redirection(&self) -> i64 {
        self.tracking().map_or(-1, |tracking| {
            tracking.redirect.map_or(0, |redirect| redirect as i64)
        })
    }

    /// Whether it waits for a key, for replicas, for the disk or for the end of a pause.
    pub fn is_blocked(&self) -> bool {
        self.waiter.lock().is_some()
            || self.patience.load(Ordering::Relaxed) != WaitState::None as u8
    }

    pub fn begin_patience(&self) {
        self.patience
            .store(WaitState::Waits as u8, Ordering::Relaxed);
    }

    pub fn set_paused(&self, paused: bool) {
        let state = match paused {
            true => WaitState::Paused,
            false => WaitState::None,
        };
        self.patience.store(state as u8, Ordering::Relaxed);
    }

    pub fn end_patience(&self) {
        self.patience
            .store(WaitState::None as u8, Ordering::Relaxed);
    }

    /// Whether the waiting for replicas or the disk was ended this way.
    pub fn patience_is(&self, state: WaitState) -> bool {
        self.patience.load(Ordering::Relaxed) == state as u8
    }

    /// Ends its waiting for replicas or the disk. False if it does not wait for them.
    pub fn end_patience_as(&self, state: WaitState) -> bool {
        let waits = WaitState::Waits as u8;
        let ended = self.patience.compare_exchange(
            waits,
            state as u8,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if ended.is_ok() {
            self.wake();
        }
        ended.is_ok()
    }

    /// The running command, so that CLIENT LIST can show it.
    pub fn note_command(&self, command: usize) {
        self.last_command.store(command as u32, Ordering::Relaxed);
    }

    /// The client sent what is no command.
    pub fn note_no_command(&self) {
        self.last_command.store(NO_COMMAND, Ordering::Relaxed);
    }

    /// How many commands have run in all, modulo 2^32.
    pub fn note_commands(&self, commands: u32) {
        let before = self.commands.load(Ordering::Relaxed);
        let more = commands.wrapping_sub(before as u32);
        self.commands
            .store(before + u64::from(more), Ordering::Relaxed);
    }

    pub fn last_active_ms(&self) -> i64 {
        self.last_active_ms.load(Ordering::Relaxed)
    }

    /// The number of the last command, as the command table counts.
    pub fn last_command(&self) -> Option<usize> {
        let command = self.last_command.load(Ordering::Relaxed);
        (command != NO_COMMAND).then_some(command as usize)
    }

    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    pub fn database(&self) -> u32 {
        self.database.load(Ordering::Relaxed)
    }

    pub fn set_database(&self, database: usize) {
        self.database.store(database as u32, Ordering::Relaxed);
    }

    pub fn details(&self) -> Details {
        self.details.lock().as_deref().cloned().unwrap_or_default()
    }

    /// Changes what the client tells of itself.
    pub fn set_details(&self, change: impl FnOnce(&mut Details)) {
        change(self.details.lock().get_or_insert_default());
    }

    /// Back to what a new client has.
    pub fn reset(&self) {
        for flag in [
            &self.resp3,
            &self.no_evict,
            &self.no_touch,
            &self.readonly,
            &self.in_transaction,
        ] {
            flag.store(false, Ordering::Relaxed);
        }
        self.watched_keys.store(0, Ordering::Relaxed);
        if let Some(details) = self.details.lock().as_mut() {
            details.name.clear();
            details.user.clear();
        }
    }

    /// Remembers how to wake the connection. Once, at its first turn: a task's waker stays good for its life.
    pub fn set_waker(&self, waker: &Waker) {
        *self.waker.lock() = Some(waker.clone());
    }

    /// How to wake the connection, once it has had a turn.
    pub fn waker(&self) -> Option<Waker> {
        self.waker.lock().clone()
    }

    /// Makes the connection take a turn, to see what was left for it.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.lock().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends the connection at its next turn, which is now.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake();
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
}

/// Adds to a number that only one thread writes.
#[inline]
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// All clients by number. Numbers are never reused.
#[derive(Default)]
pub struct Registry {
    clients: RwLock<HashMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
    /// Addresses of this server that clients connected to lately, of which all of them share one.
    local_addresses: Mutex<Vec<Arc<Address>>>,
    pub limits: Arc<ClientLimits>,
}

/// What clients are held to.
#[derive(Default)]
pub struct ClientLimits {
    pub output: OutputGuard,
    pub memory: ClientMemory,
}

/// Local addresses that are remembered.
const LOCAL_ADDRESSES: usize = 16;

impl Registry {
    /// Admits a client, unless `limit` are connected already.
    pub fn add(&self, limit: usize, arrival: Arrival) -> Option<Arc<Client>> {
        let mut clients = self.clients.write();
        if clients.len() >= limit {
            return None;
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let local_address = self.share(&arrival.local_address);
        let client = Arc::new(Client::new(id, arrival, local_address, self.limits.clone()));
        client.account();
        clients.insert(id, client.clone());
        Some(client)
    }

    fn share(&self, address: &Address) -> Arc<Address> {
        let mut shared = self.local_addresses.lock();
        if let Some(known) = shared.iter().find(|known| ***known == *address) {
            return known.clone();
        }
        if shared.len() == LOCAL_ADDRESSES {
            shared.clear();
        }
        let address = Arc::new(address.clone());
        shared.push(address.clone());
        address
    }

    pub fn remove(&self, id: u64) {
        let removed = self.clients.write().remove(&id);
        if let Some(client) = removed {
            client.leave_memory();
        }
    }

    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.clients.read().get(&id).cloned()
    }

    pub fn len(&self) -> usize {
        self.clients.read().len()
    }

    /// What clients hold, and what replicas do.
    pub fn memory_bytes(&self) -> (usize, usize) {
        let (mut normal, mut replicas) = (0, 0);
        for client in self.clients.read().values() {
            let sum = match client.is_replica.load(Ordering::Relaxed) {
                true => &mut replicas,
                false => &mut normal,
            };
            *sum += client.memory_bytes();
        }
        (normal, replicas)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All clients, in the order they came, without those that are killed and about to go.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self
            .clients
            .read()
            .values()
            .filter(|client| !client.is_killed())
            .cloned()
            .collect();
        all.sort_unstable_by_key(|client| client.id);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_fills_its_size_class() {
        // With the counters of its `Arc` the allocator's class of 320 bytes.
        assert!(size_of::<Client>() <= 304, "{}", size_of::<Client>());
    }

    #[test]
    fn a_connection_fills_its_size_class() {
        type Connection = crate::net::connection::Task<crate::net::resp::Resp>;
        // With what the runtime adds, the allocator's class of 384 bytes.
        assert!(
            size_of::<Connection>() <= 280,
            "{}",
            size_of::<Connection>()
        );
    }

    #[test]
    fn connections_to_one_address_share_it() {
        let registry = Registry::default();
        let address = |port| Address::Tcp(SocketAddr::from(([127, 0, 0, 1], port)));
        let first = registry.share(&address(1));
        assert!(Arc::ptr_eq(&first, &registry.share(&address(1))));
        (2..100).for_each(|port| assert_eq!(*registry.share(&address(port)), address(port)));
        assert!(registry.local_addresses.lock().len() <= LOCAL_ADDRESSES);
    }
}
