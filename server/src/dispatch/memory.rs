//! The memory limit: room is made before commands that may need some.
//!
//! What counts is everything the process has allocated. A worker over the limit evicts before it runs a command, one
//! shard locked at a time, for as long as `maxmemory-eviction-tenacity` allows; what is left over falls to the commands
//! that follow and to maintenance. Only where nothing may go are commands refused.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use storage::{
    db::Db,
    eviction::{self, Options, Outcome, Policy, Ranking, Scope},
};

use super::{
    args::Args,
    command::{Command, Flag, Group, Result, Run},
    error::Error,
};
use crate::{
    config::{EvictionPolicy, Settings},
    maintenance,
    metrics::process,
    server::Server,
    session::Session,
};

/// Evictions between two looks at the clock.
const EVICTIONS_PER_LOOK: usize = 16;
/// Tenacity up to which each point is worth [`POINT`]; beyond, each makes it longer by [`GROWTH`].
const LINEAR_TENACITY: u32 = 10;
const POINT: Duration = Duration::from_micros(50);
const GROWTH: f64 = 1.15;
/// At this tenacity evicting goes on until there is room.
const BOUNDLESS_TENACITY: u32 = 100;

/// What a write is taken to need beside twice its request.
const OVERHEAD: usize = 256;
/// Smaller limits get no advice, which takes memory of its own.
const ADVISED_FROM: u64 = 4 << 20;
/// What a batch may use between two looks at the limit.
const GRANT: usize = 32 * 1024;

/// What came of making room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// Not yet, but there is more to evict.
    Soon,
    /// And nothing may go.
    None,
}

/// Evicts until the limit is kept or `patience` is used up. Nothing may be locked.
pub fn make_room(server: &Server, db: &mut Db<'_>, patience: Option<Duration>) -> Room {
    let keyspace = &server.keyspace;
    // A replica follows what its primary evicts.
    if !keyspace.eviction.wants_room(keyspace) || !keyspace.deletes_expired() {
        return Room::Enough;
    }
    let started = Instant::now();
    let room = evict(server, db, started, patience);
    server.command_log.note_event("eviction-cycle", started);
    room
}

fn evict(server: &Server, db: &mut Db<'_>, started: Instant, patience: Option<Duration>) -> Room {
    let keyspace = &server.keyspace;
    for round in 1.. {
        match eviction::evict(db) {
            Outcome::Evicted => server.settle(&mut db.changes),
            Outcome::Busy => return Room::Soon,
            Outcome::Nothing if compacts(server) => {}
            // What the allocator wastes is no reason to refuse anybody.
            Outcome::Nothing if !keyspace.eviction.is_over_limit(keyspace) => return Room::Enough,
            Outcome::Nothing => return Room::None,
        }
        if !keyspace.eviction.wants_room(keyspace) {
            break;
        }
        let late = || patience.is_some_and(|patience| started.elapsed() > patience);
        if round % EVICTIONS_PER_LOOK == 0 && late() {
            return Room::Soon;
        }
    }
    Room::Enough
}

/// Keys have gone since, and the tables are as big as these needed them: makes them smaller.
fn compacts(server: &Server) -> bool {
    let evicted = server.keyspace.statistics.evicted.load(Ordering::Relaxed);
    let keys_went = server.compacted_after.swap(evicted, Ordering::Relaxed) != evicted;
    if keys_went {
        maintenance::compact(server);
    }
    keys_went
}

/// How long evicting may hold a command up; `None` for as long as it takes.
pub fn patience(settings: &Settings) -> Option<Duration> {
    let tenacity = settings.maxmemory_eviction_tenacity;
    if tenacity >= BOUNDLESS_TENACITY {
        return None;
    }
    let linear = POINT * tenacity.min(LINEAR_TENACITY);
    let beyond = tenacity.saturating_sub(LINEAR_TENACITY);
    Some(linear.mul_f64(GROWTH.powi(beyond as i32)))
}

/// Makes room before a command, where there is a limit.
///
/// Looking at what all threads have allocated costs more than a small command, so a batch of commands looks once and
/// then goes by the size of its requests.
///
/// # Errors
/// `OOM` if there is no room and the command, or the transaction it begins or joins, may need some.
pub(super) fn gate(
    session: &Session,
    db: &mut Db<'_>,
    command: &Command,
    args: &Args<'_>,
) -> Result {
    let transaction = session
        .transaction
        .as_ref()
        .filter(|_| session.flags.in_transaction);
    let needs_room = match command.run {
        Run::Exec => {
            transaction.is_some_and(|queue| queue.any(|command| command.has(Flag::DenyOom)))
        }
        // What is queued takes memory as well, but whoever wants to stop may.
        _ if transaction.is_some() => !["DISCARD", "QUIT", "RESET"].contains(&command.name),
        _ => command.has(Flag::DenyOom),
    };
    db.set_out_of_memory(false);
    // What a transaction or a script needs is not in its words.
    let runs_others = matches!(command.run, Run::Exec) || command.group == Group::Scripting;
    if !needs_room && !command.is_write() && !runs_others {
        return Ok(());
    }
    if !runs_others && db.spend_room(OVERHEAD + 2 * args.bytes()) {
        return Ok(());
    }
    let keyspace = db.keyspace();
    if !keyspace.eviction.wants_room(keyspace) {
        db.grant_room(GRANT);
        return Ok(());
    }
    let settings = session.server.config.settings();
    let room = make_room(&session.server, db, patience(&settings));
    db.set_out_of_memory(room == Room::None);
    match room {
        Room::None if needs_room => Err(Error::OUT_OF_MEMORY),
        _ => Ok(()),
    }
}

/// The settings that eviction keeps a copy of.
pub fn options(settings: &Settings) -> Options {
    let limit_bytes = settings
        .maxmemory
        .bytes_of(process::total_memory_bytes() as u64);
    Options {
        limit_bytes,
        policy: policy(settings.maxmemory_policy),
        samples: settings.maxmemory_samples as usize,
        log_factor: settings.lfu_log_factor,
        decay_minutes: settings.lfu_decay_time,
        advice: settings.maxmemory_advice && limit_bytes >= ADVISED_FROM,
    }
}

fn policy(named: EvictionPolicy) -> Option<Policy> {
    let (scope, ranking) = match named {
        EvictionPolicy::NoEviction => return None,
        EvictionPolicy::VolatileLru => (Scope::Volatile, Ranking::Lru),
        EvictionPolicy::VolatileLfu => (Scope::Volatile, Ranking::Lfu),
        EvictionPolicy::VolatileRandom => (Scope::Volatile, Ranking::Random),
        EvictionPolicy::VolatileTtl => (Scope::Volatile, Ranking::Ttl),
        EvictionPolicy::VolatileS3Fifo => (Scope::Volatile, Ranking::S3Fifo),
        EvictionPolicy::VolatileSieve => (Scope::Volatile, Ranking::Sieve),
        EvictionPolicy::VolatileTinyLfu => (Scope::Volatile, Ranking::TinyLfu),
        EvictionPolicy::AllkeysLru => (Scope::All, Ranking::Lru),
        EvictionPolicy::AllkeysLfu => (Scope::All, Ranking::Lfu),
        EvictionPolicy::AllkeysRandom => (Scope::All, Ranking::Random),
        EvictionPolicy::AllkeysS3Fifo => (Scope::All, Ranking::S3Fifo),
        EvictionPolicy::AllkeysSieve => (Scope::All, Ranking::Sieve),
        EvictionPolicy::AllkeysTinyLfu => (Scope::All, Ranking::TinyLfu),
    };
    Some(Policy { scope, ranking })
}
