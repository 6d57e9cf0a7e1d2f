//! Periodic work: deleting what has expired, giving back sparse segments, sampling rates.
//!
//! It runs on the main thread and takes one shard's lock at a time, for a bounded amount of work each. Shards that a
//! script holds for long are passed over.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use storage::{
    alloc::allocated_bytes, clock, db::Db, eviction::refresh::Walk, huge_pages::HugePages,
    keyspace::Key, shard::Shard, time::Timestamp,
};

use crate::{
    dispatch::{call::release, memory},
    memcache::item,
    metrics::{Instantaneous, process},
    persistence::{aof, snapshot},
    postponed::Postponed,
    reclaim::{self, Reclaim},
    replication,
    server::{self, Server},
    session::memory as memory_of_clients,
};

/// How often each part of the keyspace is looked at for expired entries.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Entries looked at under one lock.
const SWEEP_BUDGET: usize = 1000;
/// Expired fields removed from a hash under one lock, and how many times in a row. What is left waits for the next sweep.
const FIELD_BUDGET: usize = 500;
const FIELD_ROUNDS: usize = 100;
/// Segments looked at for compaction per shard, database and second.
const COMPACT_BUDGET: usize = 16;

/// How long evicting may take at a time.
const EVICT_TIME: Duration = Duration::from_millis(10);

/// Works until the program ends.
pub async fn run(server: Arc<Server>) {
    let mut timer = tokio::time::interval(SWEEP_PERIOD);
    let mut last = Totals::default();
    let mut ticks = 0u64;
    let mut walk = Walk::default();
    let mut huge_pages = HugePages::default();
    let mut reclaim = Reclaim::default();
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            () = server.clients.limits.memory.over_limit() => {
                memory_of_clients::evict(&server);
                continue;
            }
            () = tokio::time::sleep(reclaim::HASTE), if reclaim.is_pressed => {
                reclaim.step(&server);
                evict(&server, server::now());
                continue;
            }
        }
        ticks += 1;
        server.metrics.rounds.fetch_add(1, Ordering::Relaxed);
        let memory = allocated_bytes();
        server.keyspace.note_memory(memory);
        huge_pages.follow(memory, may_have_huge_pages(&server));
        if ticks.is_multiple_of(10) {
            huge_pages.repeat();
        }
        Postponed::retry(&server);
        server.follow_pause();
        server.tracking.enforce_limit(&server);
        if server.loading.is_active() {
            // Nothing expires, is evicted or saved before all of it is there.
            if ticks.is_multiple_of(10) {
                last = sample_rates(&server, last);
                close_idle_clients(&server, server::now());
            }
            continue;
        }
        if server.active_expire.load(Ordering::Relaxed) && server.keyspace.deletes_expired() {
            let began = Instant::now();
            sweep(&server, server::now());
            server.command_log.note_event("expire-cycle", began);
        }
        if server.active_expire.load(Ordering::Relaxed) && server.replication.is_replica() {
            let own = &server.replication.own_keys;
            own.sweep(&server, server::now());
        }
        flush_when_due(&server, server::now());
        replication::enforce_limits(&server);
        reclaim.step(&server);
        evict(&server, server::now());
        replay(&server, server::now());
        if ticks.is_multiple_of(10) {
            clock::compare();
            compact(&server);
            walk.step(&server.keyspace, server::now());
            last = sample_rates(&server, last);
            close_idle_clients(&server, server::now());
            aof::rewrite_when_grown(&server);
            replication::maintain(&server, ticks / 10);
            for client in server.clients.all() {
                client.enforce_output_limit();
                client.account();
            }
            snapshot::save_when_due(&server);
        }
    }
}

/// Huge pages that hold little cannot be given back, so where memory is limited there are none, unless they are asked for.
fn may_have_huge_pages(server: &Server) -> bool {
    server.keyspace.eviction.limit_bytes() == 0 || !server.config.settings().disable_thp
}

/// Deletes entries whose deadline has passed, and expired fields of hashes.
fn sweep(server: &Server, now: Timestamp) {
    let mut db = Db::new(&server.keyspace, 0, now);
    let mut due: Vec<(usize, Box<[u8]>)> = Vec::new();
    for shard in 0..server.keyspace.shard_count() {
        find_expired(server, shard, now, &mut due);
        for (database, key) in due.drain(..) {
            db.select(database);
            let key = Key::new(&key);
            for _ in 0..FIELD_ROUNDS {
                if db.try_lock(key.hash).is_err() {
                    break;
                }
                // Looking deletes the entry, if it is still expired; what lives may be a hash.
                let removed = db.expire_fields(key, FIELD_BUDGET);
                release(server, &mut db);
                if removed < FIELD_BUDGET {
                    break;
                }
            }
        }
    }
}

/// Collects expired keys, and hashes with expired fields, of all databases in a shard, under one lock and for a bounded amount of work.
fn find_expired(server: &Server, shard: usize, now: Timestamp, due: &mut Vec<(usize, Box<[u8]>)>) {
    let Ok(mut locked) = server.keyspace.try_lock(shard) else {
        return;
    };
    let Shard {
        tables, sweep_at, ..
    } = &mut *locked;
    for (database, (table, at)) in tables.iter_mut().zip(sweep_at.iter_mut()).enumerate() {
        if table.deadlines() > 0 || table.field_deadlines() > 0 {
            *at = table.sweep_expired(*at, SWEEP_BUDGET, now, |table, place| {
                due.push((database, table.entry(place).key().into()));
            });
        }
    }
}

/// Goes on evicting what commands left over.
fn evict(server: &Server, now: Timestamp) {
    if server.keyspace.eviction.is_limited() {
        let mut db = Db::new(&server.keyspace, 0, now);
        memory::make_room(server, &mut db, Some(EVICT_TIME));
    }
}

/// Tells the advisor of what was used, and what room there is for keys.
fn replay(server: &Server, now: Timestamp) {
    let eviction = &server.keyspace.eviction;
    if !eviction.advice.is_on() {
        return;
    }
    let (clients, replicas) = server.clients.memory_bytes();
    let others = server.startup_bytes + clients + replicas;
    let capacity = eviction.limit_bytes().saturating_sub(others as u64);
    let statistics = &server.keyspace.statistics;
    let (hits, misses) = (&statistics.hits, &statistics.misses);
    eviction.advice.replay(
        capacity,
        hits.load(Ordering::Relaxed),
        misses.load(Ordering::Relaxed),
        now,
    );
}

pub fn compact(server: &Server) {
    for shard in 0..server.keyspace.shard_count() {
        let Ok(mut locked) = server.keyspace.try_lock(shard) else {
            continue;
        };
        let Shard {
            tables, compact_at, ..
        } = &mut *locked;
        for (table, at) in tables.iter_mut().zip(compact_at.iter_mut()) {
            if table.has_segments() {
                *at = table.compact(*at, COMPACT_BUDGET);
            }
        }
    }
}

/// memcached's `flush_all` with a delay.
fn flush_when_due(server: &Server, now: Timestamp) {
    let at = server.keyspace.flush_at();
    if at != 0 && at <= now.millis() {
        let mut db = Db::new(&server.keyspace, 0, now);
        if item::flush(server, &mut db).is_ok() {
            server.keyspace.set_flush_at(0);
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Totals {
    commands: u64,
    bytes_in: u64,
    bytes_out: u64,
    cycles: u64,
    cpu_microseconds: u64,
}

fn sample_rates(server: &Server, last: Totals) -> Totals {
    let metrics = &server.metrics;
    metrics
        .memory_peak
        .fetch_max(allocated_bytes(), Ordering::Relaxed);
    let totals = Totals {
        commands: metrics.commands(),
        bytes_in: metrics.sum(|worker| worker.bytes_in.get()),
        bytes_out: metrics.sum(|worker| worker.bytes_out.get()),
        cycles: metrics.cycles(),
        cpu_microseconds: process::cpu_microseconds(),
    };
    let cycles = totals.cycles.saturating_sub(last.cycles);
    let used = totals
        .cpu_microseconds
        .saturating_sub(last.cpu_microseconds);
    *metrics.instantaneous.lock() = Instantaneous {
        commands_per_second: totals.commands.saturating_sub(last.commands),
        input_bytes_per_second: totals.bytes_in.saturating_sub(last.bytes_in),
        output_bytes_per_second: totals.bytes_out.saturating_sub(last.bytes_out),
        cycles_per_second: cycles,
        cycle_microseconds: used / cycles.max(1),
    };
    totals
}

/// Closes clients that said nothing for longer than `timeout`.
fn close_idle_clients(server: &Server, now: Timestamp) {
    let timeout = server.config.settings().timeout;
    if timeout == 0 {
        return;
    }
    let limit = i64::from(timeout) * 1000;
    for client in server.clients.all() {
        let waits = client.subscriptions() > 0 || client.is_blocked();
        // Links between servers have a timeout of their own.
        let waits = waits || client.is_primary() || client.is_replica.load(Ordering::Relaxed);
        if !waits && now.millis() - client.last_active_ms() > limit {
            client.kill();
        }
    }
}
