//! The state that all workers share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use storage::{
    changes::Changes,
    keyspace::{Garbage, Keyspace},
    removal::Removal,
    time::Timestamp,
};
use tokio::sync::{Notify, watch};

use crate::{
    acl::Acl,
    config::{Config, RdbVersionCheck, ShutdownOptions},
    dispatch::{blocking, memory},
    log,
    memcache::{prefixes::Prefixes, watch::Watchers},
    metrics::{Metrics, command_log::CommandLog},
    migration::Migrations,
    monitor::Monitors,
    net::listener::Listeners,
    notify,
    oom_score::OomScore,
    persistence::{aof::Aof, loading::Loading, snapshot::Snapshots, trouble::Trouble},
    postponed::Postponed,
    propagation::Propagation,
    pubsub::PubSub,
    replication::Replication,
    scripting::Scripting,
    session::registry::{Client, Registry},
    tracking::TrackingTable,
};

/// Shards per worker; with 256 at least, two workers rarely want the same one.
const SHARDS_PER_WORKER: usize = 16;
const MIN_SHARDS: usize = 256;

/// Everything that is not one connection's.
pub struct Server {
    pub config: Config,
    pub keyspace: Keyspace,
    pub clients: Registry,
    pub listeners: Listeners,
    pub migrations: Migrations,
    pub metrics: Metrics,
    pub command_log: CommandLog,
    pub aof: Arc<Aof>,
    pub replication: Arc<Replication>,
    pub acl: Acl,
    pub pubsub: PubSub,
    pub snapshots: Snapshots,
    pub loading: Loading,
    pub monitors: Monitors,
    pub watchers: Watchers,
    pub prefixes: Prefixes,
    pub tracking: TrackingTable,
    /// How many clients wait for keys.
    pub waiting: AtomicUsize,
    pub oom_score: OomScore,
    /// Clients that wait for replicas or the disk.
    pub patient: Mutex<Vec<Arc<Client>>>,
    /// How many clients CLIENT PAUSE holds back.
    pub held_back: AtomicUsize,
    /// How many keys had been evicted when the tables were compacted for want of room.
    pub compacted_after: AtomicU64,
    pub scripting: Scripting,
    pub postponed: Postponed,
    pub pause: Pause,
    /// Until when DEBUG SLEEP stops the workers, each of which watches it, and the links of replication.
    pub asleep_until: watch::Sender<Instant>,
    pub shutdown: Shutdown,
    /// Whether maintenance deletes expired keys; DEBUG SET-ACTIVE-EXPIRE turns it off.
    pub active_expire: AtomicBool,
    pub started: Instant,
    pub started_at: Timestamp,
    /// 40 hexadecimal digits, different at every start.
    pub run_id: String,
    /// Bytes allocated before the first key.
    pub startup_bytes: usize,
    /// Wakes the workers to take back what others have freed of their memory.
    pub collect: Notify,
}

/// Which commands wait, and until when: for CLIENT PAUSE, and for reasons of the server's own.
#[derive(Default)]
pub struct Pause {
    until_ms: AtomicI64,
    all_commands: AtomicBool,
    /// Bits of [`PauseReason`], during which what writes waits.
    reasons: AtomicU32,
}

/// Why commands that write wait without a client's wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PauseReason {
    Failover = 1,
    Shutdown = 2,
}

/// A request to end the program.
#[derive(Default)]
pub struct Shutdown {
    requested: Mutex<Option<ShutdownRequest>>,
    notify: Notify,
    /// How many requests could not be met: who made them goes on.
    failures: AtomicU64,
    /// Until when the end waits for replicas, in milliseconds since the epoch; 0 when it does not.
    pub deadline_ms: AtomicI64,
}

/// How to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownRequest {
    /// SHUTDOWN SAVE or NOSAVE; `None` leaves it to the save points.
    pub save: Option<bool>,
    pub now: bool,
    pub force: bool,
}

impl From<ShutdownOptions> for ShutdownRequest {
    fn from(options: ShutdownOptions) -> ShutdownRequest {
        ShutdownRequest {
            save: (options.save || options.nosave).then_some(options.save),
            now: options.now,
            force: options.force,
        }
    }
}

impl Server {
    /// The reason to hold commands back is gone: those that wait are looked at again.
    pub fn resume(&self, reason: PauseReason) {
        let reasons = &self.pause.reasons;
        reasons.fetch_and(!(reason as u32), Ordering::Relaxed);
        self.clients.all().iter().for_each(|client| client.wake());
    }

    /// Stops this thread for as long as DEBUG SLEEP wants.
    pub fn sleep_when_told(&self) {
        let until = *self.asleep_until.borrow();
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    pub fn new(config: Config) -> Arc<Server> {
        let settings = config.settings();
        let workers = settings.io_threads.max(1) as usize;
        let shards = match settings.shards {
            0 => (workers * SHARDS_PER_WORKER).max(MIN_SHARDS),
            shards => shards as usize,
        };
        let (freer, garbage) = std::sync::mpsc::channel();
        let server = Arc::new(Server {
            keyspace: Keyspace::new(shards, settings.databases as usize, Some(freer)),
            clients: Registry::default(),
            listeners: Listeners::default(),
            migrations: Migrations::default(),
            metrics: Metrics::new(workers),
            command_log: CommandLog::default(),
            aof: Arc::default(),
            replication: Arc::default(),
            acl: Acl::default(),
            pubsub: PubSub::default(),
            snapshots: Snapshots::default(),
            loading: Loading::default(),
            monitors: Monitors::default(),
            watchers: Watchers::default(),
            prefixes: Prefixes::default(),
            tracking: TrackingTable::default(),
            waiting: AtomicUsize::new(0),
            patient: Mutex::default(),
            oom_score: OomScore::default(),
            held_back: AtomicUsize::new(0),
            compacted_after: AtomicU64::new(0),
            scripting: Scripting::default(),
            postponed: Postponed::default(),
            pause: Pause::default(),
            asleep_until: watch::Sender::new(Instant::now()),
            shutdown: Shutdown::default(),
            active_expire: AtomicBool::new(true),
            started: Instant::now(),
            started_at: now(),
            run_id: random_hex(),
            startup_bytes: storage::alloc::allocated_bytes(),
            collect: Notify::new(),
            config,
        });
        server.keyspace.set_log(Box::new(Propagation {
            aof: server.aof.clone(),
            replication: server.replication.clone(),
        }));
        // Microseconds: no number of an earlier run, which a client may still hold, and none that anybody guesses.
        server.keyspace.note_cas(server.started_at.0 as u64 * 1_000);
        server.apply_settings();
        start_freeing(&server, garbage);
        server
    }

    /// Hands the settings to those who keep a copy: the keyspace and the log.
    pub fn apply_settings(&self) {
        let from = self.config.settings();
        let to = &self.keyspace.settings;
        for (target, value) in [
            (
                &to.hash_max_listpack_entries,
                from.hash_max_listpack_entries,
            ),
            (&to.hash_max_listpack_value, from.hash_max_listpack_value),
            (&to.set_max_intset_entries, from.set_max_intset_entries),
            (&to.set_max_listpack_entries, from.set_max_listpack_entries),
            (&to.set_max_listpack_value, from.set_max_listpack_value),
            (
                &to.zset_max_listpack_entries,
                from.zset_max_listpack_entries,
            ),
            (&to.zset_max_listpack_value, from.zset_max_listpack_value),
            (&to.stream_node_max_bytes, from.stream_node_max_bytes),
            (&to.stream_node_max_entries, from.stream_node_max_entries),
            (&to.hll_sparse_max_bytes, from.hll_sparse_max_bytes),
            (&to.proto_max_bulk_len, from.proto_max_bulk_len),
        ] {
            target.store(value, Ordering::Relaxed);
        }
        to.list_max_listpack_size
            .store(from.list_max_listpack_size.into(), Ordering::Relaxed);
        to.rdb_version_check_relaxed.store(
            from.rdb_version_check == RdbVersionCheck::Relaxed,
            Ordering::Relaxed,
        );
        for (why, lazy) in [
            (Removal::Expired, from.lazyfree_lazy_expire),
            (Removal::Evicted, from.lazyfree_lazy_eviction),
            (Removal::Implicit, from.lazyfree_lazy_server_del),
        ] {
            self.keyspace.removals.set_lazy(why, lazy);
        }
        self.keyspace.eviction.configure(memory::options(&from));
        self.command_log.configure(&from);
        self.scripting
            .busy_reply_threshold
            .store(from.busy_reply_threshold, Ordering::Relaxed);
        notify::configure(self, from.notify_keyspace_events);
        self.aof.configure(&from);
        self.replication.configure(&from);
        let limits = &self.clients.limits;
        limits
            .output
            .configure(&from.client_output_buffer_limit, from.repl_backlog_size);
        limits.memory.configure(&from);
        log::set_level(from.loglevel.into());
    }

    /// Adjusts how early the kernel ends the process, after settings or the server's part have changed.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn adjust_oom_score(&self) -> Result<(), String> {
        let is_replica = self.replication.is_replica();
        self.oom_score.follow(&self.config.settings(), is_replica)
    }

    /// Makes those look again who wait for replicas or the disk.
    pub fn wake_patient(&self) {
        self.patient.lock().iter().for_each(|client| client.wake());
    }

    /// Whether any client waits for a key.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        // Relaxed: whoever waits for a key of a shard counted itself before it released that shard's lock.
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Holds back commands until `until_ms`, and meanwhile deletes nothing that has expired.
    pub fn begin_pause(&self, until_ms: i64, all_commands: bool) {
        self.pause.begin(until_ms, all_commands);
        self.follow_pause();
    }

    /// Lets those go on who were held back.
    pub fn end_pause(&self) {
        self.pause.end();
        self.follow_pause();
        self.clients.all().iter().for_each(|client| client.wake());
    }

    /// Deletes what has expired again once a pause is over.
    pub fn follow_pause(&self) {
        let paused = self.pause.state(now().millis()).is_some();
        self.keyspace.set_deletions_paused(paused);
    }

    /// Whether the server is in no state in which some commands may not run now, or are shown to others.
    #[inline]
    pub fn is_calm(&self) -> bool {
        // Without shortcuts: all of it nearly always holds.
        !(self.loading.is_active()
            | self.loading.is_beside()
            | self.scripting.slow.any()
            | self.pause.is_on()
            | self.replication.concerns_writes()
            | self.monitors.is_on())
            && Trouble::now(self).is_none()
    }

    /// What follows a command's changes once its locks are released: those who listen are told, and those served whom the
    /// locks did not allow for.
    pub fn settle(&self, changes: &mut Changes) {
        if !changes.notices.is_empty() {
            notify::tell(self, &mut changes.notices);
        }
        if !changes.ready.is_empty() {
            blocking::serve_later(self, changes);
            notify::tell(self, &mut changes.notices);
        }
        if !changes.evicted.is_empty() {
            self.watchers
                .evicted(&self.keyspace, std::mem::take(&mut changes.evicted));
        }
    }
}

impl Pause {
    /// CLIENT PAUSE: holds commands back until `until_ms`; a pause in force is only ever made longer and stronger.
    pub fn begin(&self, until_ms: i64, all_commands: bool) {
        self.until_ms.fetch_max(until_ms, Ordering::Relaxed);
        self.all_commands.fetch_or(all_commands, Ordering::Relaxed);
    }

    /// Ends what CLIENT PAUSE began.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Relaxed);
        self.all_commands.store(false, Ordering::Relaxed);
    }

    /// Holds back what writes for as long as the reason lasts, until [`Server::resume`].
    pub fn hold(&self, reason: PauseReason) {
        self.reasons.fetch_or(reason as u32, Ordering::Relaxed);
    }

    /// Whether a pause was begun and has not been seen to end.
    #[inline]
    pub fn is_on(&self) -> bool {
        // Without a shortcut: both nearly always are 0.
        (self.until_ms.load(Ordering::Relaxed) != 0) | (self.reasons.load(Ordering::Relaxed) != 0)
    }

    /// The time to wait for, if commands (those that write, or all) are held back now.
    #[inline]
    pub fn until(&self, now_ms: i64, writes: bool) -> Option<i64> {
        if writes && self.reasons.load(Ordering::Relaxed) != 0 {
            return Some(i64::MAX);
        }
        let until = self.until_ms.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        if until <= now_ms {
            self.end();
            return None;
        }
        (writes || self.all_commands.load(Ordering::Relaxed)).then_some(until)
    }

    /// Why, until when, and whether all commands wait, for INFO.
    pub fn state(&self, now_ms: i64) -> Option<(&'static str, i64, bool)> {
        let until = self.until(now_ms, true)?;
        if let Some(until) = self.until(now_ms, false) {
            return Some(("client_pause", until, true));
        }
        let reasons = self.reasons.load(Ordering::Relaxed);
        let reason = if reasons & PauseReason::Failover as u32 != 0 {
            "failover_in_progress"
        } else if reasons != 0 {
            "shutdown_in_progress"
        } else {
            "client_pause"
        };
        Some((reason, until, false))
    }
}

impl Shutdown {
    pub fn request(&self, request: ShutdownRequest) {
        *self.requested.lock() = Some(request);
        self.notify.notify_one();
    }

    /// The request that is being met.
    pub fn current(&self) -> Option<ShutdownRequest> {
        *self.requested.lock()
    }

    /// How many requests have failed so far.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The request cannot be met. False if there is none.
    pub fn fail(&self) -> bool {
        let taken = self.requested.lock().take().is_some();
        if taken {
            self.deadline_ms.store(0, Ordering::Relaxed);
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Waits for a request.
    pub async fn requested(&self) -> ShutdownRequest {
        loop {
            if let Some(request) = *self.requested.lock() {
                return request;
            }
            self.notify.notified().await;
        }
    }
}

/// The time now.
#[inline]
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(since.as_millis() as i64)
}

/// 40 random hexadecimal digits.
pub fn random_hex() -> String {
    (0..5)
        .map(|_| format!("{:08x}", random_word() as u32))
        .collect()
}

/// 64 random bits, good for names and sampling, not for secrets.
pub fn random_word() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // Each `RandomState` has keys of its own, derived from the system's randomness.
    RandomState::new().build_hasher().finish()
}

/// Big values and flushed tables are dropped on a thread of their own, so that no client waits for it.
fn start_freeing(server: &Arc<Server>, garbage: Receiver<Garbage>) {
    let server = Arc::downgrade(server);
    let work = move || {
        for piece in garbage {
            let bytes = piece.memory_bytes();
            drop(piece);
            if let Some(server) = server.upgrade() {
                server
                    .keyspace
                    .statistics
                    .freeing
                    .fetch_sub(1, Ordering::Relaxed);
                server
                    .keyspace
                    .statistics
                    .freeing_bytes
                    .fetch_sub(bytes, Ordering::Relaxed);
                server
                    .keyspace
                    .statistics
                    .freed
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::Builder::new()
        .name("freeing".into())
        .spawn(work)
        .expect("the system can start a thread");
}
