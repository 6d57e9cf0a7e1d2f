//! Statistics and administration.

use std::sync::atomic::Ordering;

use protocol::{
    memcache::{
        LruCrawler, Reply, Request, Words,
        response::{Answer, ItemFacts, ResponseWriter},
    },
    output::Output,
};
use storage::{alloc, db::Db, eviction, value::Type};

use super::{VERSION, item::Result};
use crate::{
    commands::keys,
    config::Settings,
    metrics::{Counter, process},
    server::Server,
    session::{Session, registry::Wire},
};

/// What is counted per worker, in the order `stats` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Counted {
    CmdGet,
    CmdSet,
    CmdFlush,
    CmdTouch,
    GetHits,
    GetMisses,
    DeleteMisses,
    DeleteHits,
    IncrMisses,
    IncrHits,
    DecrMisses,
    DecrHits,
    CasMisses,
    CasHits,
    CasBadval,
    TouchHits,
    TouchMisses,
}

/// The counters' names, in the order of [`Counted`].
const NAMES: [&str; 17] = [
    "cmd_get",
    "cmd_set",
    "cmd_flush",
    "cmd_touch",
    "get_hits",
    "get_misses",
    "delete_misses",
    "delete_hits",
    "incr_misses",
    "incr_hits",
    "decr_misses",
    "decr_hits",
    "cas_misses",
    "cas_hits",
    "cas_badval",
    "touch_hits",
    "touch_misses",
];

const _: () = assert!(NAMES.len() == Counted::TouchMisses as usize + 1);
const _: () = assert!(NAMES.len() <= crate::metrics::MEMCACHED_COUNTERS);

/// One worker's counters.
pub(super) struct Counters<'m>(pub(super) &'m [Counter]);

impl Counters<'_> {
    #[inline]
    pub(super) fn add(&self, counted: Counted) {
        self.0[counted as usize].add(1);
    }
}

/// `config get cluster` names this server alone, by this name.
const CLUSTER: &[u8] = b"cluster";

pub(super) fn run(
    session: &Session,
    db: &mut Db<'_>,
    settings: &Settings,
    counters: &Counters<'_>,
    request: Request<'_>,
    output: &mut Output,
) -> Result {
    let server = &*session.server;
    let mut answer = ResponseWriter::new(output);
    let reply = match request {
        Request::Version => {
            answer.version(VERSION);
            return Ok(());
        }
        Request::Verbosity { reply, .. } => reply,
        Request::FlushAll { delay, reply } => {
            if settings.memcached_disable_flush_all {
                answer.client_error("flush_all not allowed");
                return Ok(());
            }
            counters.add(Counted::CmdFlush);
            flush(db, delay);
            reply
        }
        Request::Stats { arguments } => {
            stats(server, db, settings, arguments, &mut answer);
            return Ok(());
        }
        Request::CacheMemlimit { mebibytes, reply } => {
            let limit = crate::config::MemoryLimit::Bytes(mebibytes.saturating_mul(1 << 20));
            server.config.change(|settings| settings.maxmemory = limit);
            server.apply_settings();
            reply
        }
        Request::LruCrawler { command, reply } => match command {
            LruCrawler::Metadump { .. } | LruCrawler::Mgdump { .. }
                if settings.memcached_disable_dumping =>
            {
                answer.line("ERROR metadump not allowed");
                return Ok(());
            }
            LruCrawler::Metadump { .. } => {
                dump(db, &mut answer, true);
                return Ok(());
            }
            LruCrawler::Mgdump { .. } => {
                dump(db, &mut answer, false);
                return Ok(());
            }
            _ => reply,
        },
        Request::ConfigGet { name } if name == CLUSTER => {
            let address = &session.client.local_address;
            let (ip, port) = match address {
                crate::session::registry::Address::Tcp(address) => {
                    (address.ip().to_string(), address.port())
                }
                crate::session::registry::Address::Unix(_) => {
                    ("127.0.0.1".to_owned(), settings.memcached_port)
                }
            };
            answer.config(name, format!("1\nlocalhost|{ip}|{port}\n").as_bytes());
            return Ok(());
        }
        // There are no slabs, segments, proxies, certificates or second configurations here.
        Request::Slabs { reply, .. } | Request::Lru { reply, .. } => reply,
        Request::Watch { .. } => {
            answer.client_error("watch commands not allowed");
            return Ok(());
        }
        _ => {
            answer.answer(Answer::Error);
            return Ok(());
        }
    };
    if reply == Reply::Wanted {
        answer.answer(Answer::Ok);
    }
    Ok(())
}

/// Empties database 0 now, or at a time that maintenance watches for.
fn flush(db: &mut Db<'_>, delay: i64) {
    match super::item::deadline(delay, db.now()) {
        Some(at) if at > db.now() => db.keyspace().set_flush_at(at.millis()),
        _ => {
            db.lock_all();
            keys::flush(db, Some(0));
            db.unlock();
        }
    }
}

fn stats(
    server: &Server,
    db: &mut Db<'_>,
    settings: &Settings,
    mut arguments: Words<'_>,
    answer: &mut ResponseWriter<'_>,
) {
    match arguments.next() {
        None => general(server, settings, answer),
        Some(b"settings") => settings_of(server, settings, answer),
        Some(b"reset") => {
            server.metrics.reset();
            for worker in &server.metrics.workers {
                worker.memcached.iter().for_each(Counter::reset);
            }
            answer.answer(Answer::Reset);
            return;
        }
        Some(b"items") => {
            answer.stat_number("items:1:number", server.keyspace.len(0) as u64);
            answer.stat_number("items:1:mem_requested", alloc::allocated_bytes() as u64);
        }
        Some(b"slabs") => {
            answer.stat_number("active_slabs", 1);
            answer.stat_number("total_malloced", alloc::allocated_bytes() as u64);
        }
        Some(b"sizes") => sizes(db, answer),
        Some(b"conns") => connections(server, db, answer),
        Some(b"detail") => {
            // Prefix statistics are not kept; a dump of none is empty.
            if arguments.next() != Some(b"dump") {
                answer.answer(Answer::Ok);
                return;
            }
        }
        Some(_) => {}
    }
    answer.answer(Answer::End);
}

fn general(server: &Server, settings: &Settings, answer: &mut ResponseWriter<'_>) {
    let metrics = &server.metrics;
    let (user, system) = process::cpu_seconds();
    answer.stat_number("pid", std::process::id().into());
    answer.stat_number("uptime", server.started.elapsed().as_secs());
    answer.stat_number("time", crate::server::now().seconds().max(0) as u64);
    answer.stat("version", VERSION);
    answer.stat("ferrite_version", env!("CARGO_PKG_VERSION"));
    answer.stat_number("pointer_size", usize::BITS.into());
    answer.stat("rusage_user", &format!("{user:.6}"));
    answer.stat("rusage_system", &format!("{system:.6}"));
    answer.stat_number("max_connections", settings.maxclients.into());
    let clients = server.clients.all();
    answer.stat_number(
        "curr_connections",
        clients
            .iter()
            .filter(|client| client.wire == Wire::Memcached)
            .count() as u64,
    );
    answer.stat_number(
        "total_connections",
        metrics.connections.load(Ordering::Relaxed),
    );
    answer.stat_number(
        "rejected_connections",
        metrics.rejected_connections.load(Ordering::Relaxed),
    );
    for (index, name) in NAMES.iter().enumerate() {
        answer.stat_number(name, metrics.sum(|worker| worker.memcached[index].get()));
    }
    answer.stat_number("bytes_read", metrics.sum(|worker| worker.bytes_in.get()));
    answer.stat_number(
        "bytes_written",
        metrics.sum(|worker| worker.bytes_out.get()),
    );
    answer.stat_number(
        "limit_maxbytes",
        settings
            .maxmemory
            .bytes_of(process::total_memory_bytes() as u64),
    );
    answer.stat_number("accepting_conns", 1);
    answer.stat_number("threads", metrics.workers.len() as u64);
    answer.stat_number("bytes", alloc::allocated_bytes() as u64);
    answer.stat_number("curr_items", server.keyspace.len(0) as u64);
    answer.stat_number(
        "evictions",
        server.keyspace.statistics.evicted.load(Ordering::Relaxed),
    );
    answer.stat_number(
        "reclaimed",
        server.keyspace.statistics.expired.load(Ordering::Relaxed),
    );
}

fn settings_of(server: &Server, settings: &Settings, answer: &mut ResponseWriter<'_>) {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" };
    answer.stat_number(
        "maxbytes",
        settings
            .maxmemory
            .bytes_of(process::total_memory_bytes() as u64),
    );
    answer.stat_number("maxconns", settings.maxclients.into());
    answer.stat_number("tcpport", settings.memcached_port.into());
    answer.stat_number("udpport", 0);
    answer.stat_number("num_threads", server.metrics.workers.len() as u64);
    answer.stat("cas_enabled", yes_no(!settings.memcached_no_cas));
    answer.stat(
        "flush_enabled",
        yes_no(!settings.memcached_disable_flush_all),
    );
    answer.stat("dump_enabled", yes_no(!settings.memcached_disable_dumping));
    answer.stat(
        "shutdown_command",
        yes_no(settings.memcached_allow_shutdown),
    );
    answer.stat_number("item_size_max", settings.memcached_item_size_max);
    let auth =
        !settings.requirepass.is_empty() || !settings.memcached_auth_file.as_os_str().is_empty();
    answer.stat("auth_enabled_ascii", yes_no(auth));
}

/// Items by size, in steps of 32 bytes.
fn sizes(db: &mut Db<'_>, answer: &mut ResponseWriter<'_>) {
    let mut counts = std::collections::BTreeMap::new();
    let _: Option<()> = db.each_shard(0, |_, shard| {
        shard.tables[0].traverse(0, usize::MAX, |_, entry| {
            *counts
                .entry(entry.own_bytes().next_multiple_of(32))
                .or_insert(0u64) += 1;
        });
        None
    });
    for (size, count) in counts {
        answer.stat_number(&size.to_string(), count);
    }
}

fn connections(server: &Server, db: &Db<'_>, answer: &mut ResponseWriter<'_>) {
    for client in server
        .clients
        .all()
        .iter()
        .filter(|client| client.wire == Wire::Memcached)
    {
        let id = client.descriptor;
        answer.stat(&format!("{id}:addr"), &format!("tcp:{}", client.address));
        answer.stat(
            &format!("{id}:listen_addr"),
            &format!("tcp:{}", client.local_address),
        );
        let idle = (db.now().millis() - client.last_active_ms()).max(0) as u64 / 1000;
        answer.stat_number(&format!("{id}:secs_since_last_cmd"), idle);
    }
}

/// Lists all items, one shard at a time.
fn dump(db: &mut Db<'_>, answer: &mut ResponseWriter<'_>, with_facts: bool) {
    let (now, keyspace) = (db.now(), db.keyspace());
    let _: Option<()> = db.each_shard(0, |_, shard| {
        shard.tables[0].traverse(0, usize::MAX, |_, entry| {
            if entry.is_expired(now) || entry.value_type() != Type::String {
                return;
            }
            if !with_facts {
                answer.mgdump(entry.key());
                return;
            }
            let item = entry.item().unwrap_or_default();
            let idle = eviction::idle_seconds(keyspace, entry.access(), now).unwrap_or_default();
            let facts = ItemFacts {
                exptime: entry.deadline().map(|deadline| deadline.seconds()),
                last_access: now.seconds() - i64::from(idle),
                cas: item.cas,
                fetched: entry.marks().fetched,
                class: 1,
                size: entry.memory_bytes(),
            };
            answer.metadump(entry.key(), &facts, item.flags);
        });
        None
    });
    answer.answer(Answer::End);
}
