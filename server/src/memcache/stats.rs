//! Statistics and administration.

use std::{net::Ipv4Addr, sync::atomic::Ordering};

use protocol::{
    memcache::{
        Limits, LruCrawler, Reply, Request, Words,
        response::{Answer, ResponseWriter},
    },
    output::Output,
};
use storage::{alloc, db::Db};

use super::{
    VERSION, dump,
    item::{self, Result},
    watch::Log,
};
use crate::{
    config::Settings,
    metrics::{Counter, process},
    server::Server,
    session::{
        Session,
        registry::{Address, Wire},
    },
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
    CmdMeta,
    StoreTooLarge,
    StoreNoMemory,
    AuthCmds,
    TotalItems,
}

/// The counters' names, in the order of [`Counted`].
const NAMES: [&str; 22] = [
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
    "cmd_meta",
    "store_too_large",
    "store_no_memory",
    "auth_cmds",
    "total_items",
];

const _: () = assert!(NAMES.len() == Counted::TotalItems as usize + 1);
const _: () = assert!(NAMES.len() <= crate::metrics::MEMCACHED_COUNTERS);

/// What requests run with: the server, one worker's counters, how large items may be, and who is shown what they do.
pub(super) struct Counters<'m> {
    pub(super) server: &'m Server,
    pub(super) counters: &'m [Counter],
    pub(super) limits: &'m Limits,
    pub(super) log: Log<'m>,
}

impl Counters<'_> {
    #[inline]
    pub(super) fn add(&self, counted: Counted) {
        self.counters[counted as usize].add(1);
    }

    /// A look at an item: by `get` and its like, or by one that touches it, which counts as that alone.
    #[inline]
    pub(super) fn look(&self, touches: bool, found: bool) {
        let [command, hits, misses] = match touches {
            false => [Counted::CmdGet, Counted::GetHits, Counted::GetMisses],
            true => [Counted::CmdTouch, Counted::TouchHits, Counted::TouchMisses],
        };
        self.add(command);
        self.add(if found { hits } else { misses });
    }
}

/// What clients that look for nodes by themselves ask `config get` for.
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
            flush(server, db, delay)?;
            reply
        }
        Request::Stats { arguments } => {
            return stats(session, db, settings, arguments, &mut answer);
        }
        Request::CacheMemlimit { mebibytes, reply } => {
            let limit = crate::config::MemoryLimit::Bytes(mebibytes.saturating_mul(1 << 20));
            server.config.change(|settings| settings.maxmemory = limit);
            server.apply_settings();
            reply
        }
        Request::LruCrawler { command, reply } => match command {
            LruCrawler::Crawl { classes } if dump::includes_items(classes).is_none() => {
                answer.line("BADCLASS invalid class id");
                return Ok(());
            }
            _ => reply,
        },
        Request::ConfigGet { name } if name == CLUSTER => {
            let version = server.config.generation() + 1;
            let nodes = nodes(session, settings);
            answer.config(name, format!("{version}\n{nodes}\n").as_bytes());
            return Ok(());
        }
        Request::RefreshCerts => {
            answer.line("Error TLS not enabled");
            return Ok(());
        }
        // There are no slabs, segments, proxies or second configurations here.
        Request::Slabs { reply, .. } | Request::Lru { reply, .. } => reply,
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

/// The nodes that clients are to use, as `host|ip|port` with spaces between them.
fn nodes(session: &Session, settings: &Settings) -> String {
    if !settings.memcached_cluster_nodes.is_empty() {
        return settings.memcached_cluster_nodes.clone();
    }
    let (ip, port) = match &*session.client.local_address {
        Address::Tcp(address) => (address.ip().to_canonical(), address.port()),
        Address::Unix(_) => (Ipv4Addr::LOCALHOST.into(), settings.memcached_port),
    };
    // The address that the client reached is a name that it can reach.
    format!("{ip}|{ip}|{port}")
}

/// Empties database 0 now, or at a time that maintenance watches for.
fn flush(server: &Server, db: &mut Db<'_>, delay: i64) -> Result {
    match item::deadline(delay, db.now()) {
        Some(at) if at > db.now() => db.keyspace().set_flush_at(at.millis()),
        _ => item::flush(server, db)?,
    }
    Ok(())
}

fn stats(
    session: &Session,
    db: &mut Db<'_>,
    settings: &Settings,
    mut arguments: Words<'_>,
    answer: &mut ResponseWriter<'_>,
) -> Result {
    let (server, asking) = (&*session.server, session.client.id);
    match arguments.next() {
        None => general(server, settings, answer)?,
        Some(b"settings") => settings_of(server, settings, answer),
        Some(b"reset") => {
            server.metrics.reset();
            for worker in &server.metrics.workers {
                worker.memcached.iter().for_each(Counter::reset);
            }
            answer.answer(Answer::Reset);
            return Ok(());
        }
        Some(b"items") => items(server, answer)?,
        Some(b"slabs") => slabs(server, answer),
        Some(b"sizes") => sizes(db, answer)?,
        Some(b"conns") => connections(server, asking, db, answer),
        Some(b"cachedump") if settings.memcached_disable_dumping => {
            answer.client_error("stats cachedump not allowed");
            return Ok(());
        }
        Some(b"cachedump") => {
            return dump::cachedump(db, arguments.next(), arguments.next(), answer);
        }
        Some(b"detail") => match arguments.next() {
            Some(b"on") => {
                server.prefixes.turn(true);
                answer.answer(Answer::Ok);
                return Ok(());
            }
            Some(b"off") => {
                server.prefixes.turn(false);
                answer.answer(Answer::Ok);
                return Ok(());
            }
            Some(b"dump") => server.prefixes.dump(answer),
            _ => {
                answer.client_error("usage: stats detail on|off|dump");
                return Ok(());
            }
        },
        // There is no disk behind the memory, and no proxy.
        Some(b"extstore" | b"proxy" | b"proxyfuncs" | b"proxybe") => {}
        Some(_) => {
            answer.answer(Answer::Error);
            return Ok(());
        }
    }
    answer.answer(Answer::End);
    Ok(())
}

/// All items are of one class, and always of its last list.
fn items(server: &Server, answer: &mut ResponseWriter<'_>) -> Result {
    let number = server.keyspace.len(0)? as u64;
    if number == 0 {
        return Ok(());
    }
    let statistics = &server.keyspace.statistics;
    let facts = [
        ("number", number),
        ("number_cold", number),
        ("mem_requested", alloc::allocated_bytes() as u64),
        ("evicted", statistics.evicted.load(Ordering::Relaxed)),
        ("reclaimed", statistics.expired.load(Ordering::Relaxed)),
        (
            "hits_to_cold",
            server
                .metrics
                .sum(|worker| worker.memcached[Counted::GetHits as usize].get()),
        ),
    ];
    for name in ITEM_NAMES {
        let value = facts.iter().find(|(fact, _)| *fact == name);
        answer.stat_number(
            &format!("items:1:{name}"),
            value.map_or(0, |(_, value)| *value),
        );
    }
    Ok(())
}

/// What `stats items` says of a class. Those that stay 0 are of lists and crawlers that are not needed here.
const ITEM_NAMES: [&str; 28] = [
    "number",
    "number_hot",
    "number_warm",
    "number_cold",
    "age_hot",
    "age_warm",
    "age",
    "mem_requested",
    "evicted",
    "evicted_nonzero",
    "evicted_time",
    "outofmemory",
    "tailrepairs",
    "reclaimed",
    "expired_unfetched",
    "evicted_unfetched",
    "evicted_active",
    "crawler_reclaimed",
    "crawler_items_checked",
    "lrutail_reflocked",
    "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
    "direct_reclaims",
    "hits_to_hot",
    "hits_to_warm",
    "hits_to_cold",
    "hits_to_temp",
];

/// Bytes of what memcached calls a page.
const PAGE: u64 = 1 << 20;

/// Memory is not cut into chunks; told as one class whose chunks are bytes.
fn slabs(server: &Server, answer: &mut ResponseWriter<'_>) {
    let used = alloc::allocated_bytes() as u64;
    let pages = used.div_ceil(PAGE);
    let count = |counted: Counted| {
        let count = server
            .metrics
            .sum(|worker| worker.memcached[counted as usize].get());
        (NAMES[counted as usize], count)
    };
    let facts = [
        ("chunk_size", 1),
        ("chunks_per_page", PAGE),
        ("total_pages", pages),
        ("total_chunks", pages * PAGE),
        ("used_chunks", used),
        ("free_chunks", pages * PAGE - used),
        ("free_chunks_end", 0),
        count(Counted::GetHits),
        count(Counted::CmdSet),
        count(Counted::DeleteHits),
        count(Counted::IncrHits),
        count(Counted::DecrHits),
        count(Counted::CasHits),
        count(Counted::CasBadval),
        count(Counted::TouchHits),
    ];
    for (name, value) in facts {
        answer.stat_number(&format!("1:{name}"), value);
    }
    answer.stat_number("active_slabs", 1);
    answer.stat_number("total_malloced", pages * PAGE);
}

/// What clients and exporters look for in `stats`, in memcached's order. Those with no value here stay 0.
const GENERAL_NAMES: &[&str] = &[
    "pid",
    "uptime",
    "time",
    "version",
    "ferrite_version",
    "pointer_size",
    "rusage_user",
    "rusage_system",
    "max_connections",
    "curr_connections",
    "total_connections",
    "rejected_connections",
    "connection_structures",
    "response_obj_oom",
    "response_obj_count",
    "response_obj_bytes",
    "read_buf_count",
    "read_buf_bytes",
    "read_buf_bytes_free",
    "read_buf_oom",
    "reserved_fds",
    "cmd_get",
    "cmd_set",
    "cmd_flush",
    "cmd_touch",
    "cmd_meta",
    "get_hits",
    "get_misses",
    "get_expired",
    "get_flushed",
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
    "store_too_large",
    "store_no_memory",
    "auth_cmds",
    "auth_errors",
    "bytes_read",
    "bytes_written",
    "limit_maxbytes",
    "accepting_conns",
    "listen_disabled_num",
    "time_in_listen_disabled_us",
    "threads",
    "conn_yields",
    "hash_power_level",
    "hash_bytes",
    "hash_is_expanding",
    "slab_reassign_rescues",
    "slab_reassign_chunk_rescues",
    "slab_reassign_inline_reclaim",
    "slab_reassign_busy_items",
    "slab_reassign_busy_deletes",
    "slab_reassign_busy_nomem",
    "slab_reassign_last_busy_status",
    "slab_reassign_running",
    "slabs_moved",
    "lru_crawler_running",
    "lru_crawler_starts",
    "lru_maintainer_juggles",
    "malloc_fails",
    "log_worker_dropped",
    "log_worker_written",
    "log_watcher_skipped",
    "log_watcher_sent",
    "log_watchers",
    "unexpected_napi_ids",
    "round_robin_fallback",
    "bytes",
    "curr_items",
    "total_items",
    "slab_global_page_pool",
    "expired_unfetched",
    "evicted_unfetched",
    "evicted_active",
    "evictions",
    "reclaimed",
    "crawler_reclaimed",
    "crawler_items_checked",
    "lrutail_reflocked",
    "moves_to_cold",
    "moves_to_warm",
    "moves_within_lru",
    "direct_reclaims",
    "lru_bumps_dropped",
];

fn general(server: &Server, settings: &Settings, answer: &mut ResponseWriter<'_>) -> Result {
    let metrics = &server.metrics;
    let statistics = &server.keyspace.statistics;
    let limit = settings
        .maxmemory
        .bytes_of(process::total_memory_bytes() as u64);
    let clients = server.clients.all();
    let connected = clients
        .iter()
        .filter(|client| client.wire == Wire::Memcached)
        .count() as u64;
    let loaded = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let facts = [
        ("pid", std::process::id().into()),
        ("uptime", server.started.elapsed().as_secs()),
        ("time", crate::server::now().seconds().max(0) as u64),
        ("pointer_size", usize::BITS.into()),
        ("max_connections", settings.maxclients.into()),
        ("curr_connections", connected),
        ("total_connections", loaded(&metrics.connections)),
        (
            "rejected_connections",
            loaded(&metrics.rejected_connections),
        ),
        ("connection_structures", connected),
        ("auth_errors", loaded(&metrics.auth_denied)),
        ("bytes_read", metrics.sum(|worker| worker.bytes_in.get())),
        (
            "bytes_written",
            metrics.sum(|worker| worker.bytes_out.get()),
        ),
        ("limit_maxbytes", limit),
        ("accepting_conns", 1),
        ("threads", metrics.workers.len() as u64),
        ("log_worker_written", server.watchers.written()),
        ("log_watcher_skipped", loaded(&server.watchers.skipped)),
        ("log_watcher_sent", loaded(&server.watchers.sent)),
        ("log_watchers", server.watchers.count() as u64),
        ("bytes", alloc::allocated_bytes() as u64),
        ("curr_items", server.keyspace.len(0)? as u64),
        ("evictions", loaded(&statistics.evicted)),
        ("reclaimed", loaded(&statistics.expired)),
    ];
    let (user, system) = process::cpu_seconds();
    for &name in GENERAL_NAMES {
        match name {
            "version" => answer.stat(name, VERSION),
            "ferrite_version" => answer.stat(name, env!("CARGO_PKG_VERSION")),
            "rusage_user" => answer.stat(name, &format!("{user:.6}")),
            "rusage_system" => answer.stat(name, &format!("{system:.6}")),
            "slab_reassign_last_busy_status" => answer.stat(name, "none"),
            _ => {
                let counted = NAMES.iter().position(|counted| *counted == name);
                let counted =
                    counted.map(|index| metrics.sum(|worker| worker.memcached[index].get()));
                let fact = facts.iter().find(|(fact, _)| *fact == name);
                let value = counted.or(fact.map(|(_, value)| *value));
                answer.stat_number(name, value.unwrap_or(0));
            }
        }
    }
    Ok(())
}

/// What memcached says of its settings. Those without a directive are told as they would be set there to have what is
/// done here.
fn settings_of(server: &Server, settings: &Settings, answer: &mut ResponseWriter<'_>) {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
    let number = |number: u64| number.to_string();
    let limit = settings
        .maxmemory
        .bytes_of(process::total_memory_bytes() as u64);
    let addresses = if settings.memcached_bind.is_empty() {
        &settings.bind
    } else {
        &settings.memcached_bind
    };
    let path = &settings.memcached_unixsocket;
    let socket = if path.as_os_str().is_empty() {
        "NULL".to_owned()
    } else {
        path.to_string_lossy().into_owned()
    };
    let threads = server.metrics.workers.len() as u64;
    let auth =
        !settings.requirepass.is_empty() || !settings.memcached_auth_file.as_os_str().is_empty();
    let rows = [
        ("maxbytes", number(limit)),
        ("maxconns", number(settings.maxclients.into())),
        ("tcpport", number(settings.memcached_port.into())),
        ("udpport", "0".to_owned()),
        ("inter", addresses.join(",")),
        ("verbosity", "0".to_owned()),
        ("oldest", "0".to_owned()),
        (
            "evictions",
            on_off(server.keyspace.eviction.policy().is_some()),
        ),
        ("domain_socket", socket),
        ("umask", format!("{:o}", settings.memcached_unixsocketperm)),
        (
            "shutdown_command",
            yes_no(settings.memcached_allow_shutdown),
        ),
        ("growth_factor", "1.00".to_owned()),
        ("chunk_size", "1".to_owned()),
        ("num_threads", number(threads)),
        ("num_threads_per_udp", number(threads)),
        ("stat_key_prefix", ":".to_owned()),
        ("detail_enabled", yes_no(server.prefixes.is_on())),
        ("reqs_per_event", "20".to_owned()),
        ("cas_enabled", yes_no(true)),
        ("tcp_backlog", number(settings.tcp_backlog.into())),
        ("binding_protocol", "ascii".to_owned()),
        ("auth_enabled_sasl", "no".to_owned()),
        ("auth_enabled_ascii", yes_no(auth)),
        ("item_size_max", number(settings.memcached_item_size_max)),
        ("maxconns_fast", "yes".to_owned()),
        ("hashpower_init", "0".to_owned()),
        ("slab_reassign", "no".to_owned()),
        ("slab_automove", "0".to_owned()),
        ("slab_automove_ratio", "0.80".to_owned()),
        ("slab_automove_window", "10".to_owned()),
        ("slab_chunk_max", "1048576".to_owned()),
        ("lru_crawler", "no".to_owned()),
        ("lru_crawler_sleep", "100".to_owned()),
        ("lru_crawler_tocrawl", "0".to_owned()),
        ("tail_repair_time", "0".to_owned()),
        (
            "flush_enabled",
            yes_no(!settings.memcached_disable_flush_all),
        ),
        ("dump_enabled", yes_no(!settings.memcached_disable_dumping)),
        ("hash_algorithm", "siphash".to_owned()),
        ("lru_maintainer_thread", "no".to_owned()),
        ("lru_segmented", "no".to_owned()),
        ("hot_lru_pct", "20".to_owned()),
        ("warm_lru_pct", "40".to_owned()),
        ("hot_max_factor", "0.20".to_owned()),
        ("warm_max_factor", "2.00".to_owned()),
        ("temp_lru", "no".to_owned()),
        ("temporary_ttl", "61".to_owned()),
        ("idle_timeout", number(settings.timeout.into())),
        ("watcher_logbuf_size", "262144".to_owned()),
        ("worker_logbuf_size", "65536".to_owned()),
        ("read_buf_mem_limit", "0".to_owned()),
        ("track_sizes", "no".to_owned()),
        ("inline_ascii_response", "no".to_owned()),
        ("ext_item_size", "512".to_owned()),
        ("ext_item_age", "4294967295".to_owned()),
        ("ext_low_ttl", "0".to_owned()),
        ("ext_recache_rate", "2000".to_owned()),
        ("ext_wbuf_size", "4194304".to_owned()),
        ("ext_compact_under", "0".to_owned()),
        ("ext_drop_under", "0".to_owned()),
        ("ext_max_sleep", "1000000".to_owned()),
        ("ext_max_frag", "0.80".to_owned()),
        ("slab_automove_freeratio", "0.010".to_owned()),
        ("ext_drop_unread", "no".to_owned()),
        ("ssl_enabled", "no".to_owned()),
        ("ssl_chain_cert", "(null)".to_owned()),
        ("ssl_key", "(null)".to_owned()),
        ("ssl_verify_mode", "0".to_owned()),
        ("ssl_keyformat", "1".to_owned()),
        ("ssl_ciphers", "NULL".to_owned()),
        ("ssl_ca_cert", "NULL".to_owned()),
        ("ssl_wbuf_size", "16384".to_owned()),
        ("ssl_session_cache", "no".to_owned()),
        ("ssl_kernel_tls", "no".to_owned()),
        ("ssl_min_version", "tlsv1.2".to_owned()),
        ("proxy_enabled", "no".to_owned()),
        ("proxy_uring_enabled", "no".to_owned()),
        ("num_napi_ids", "0".to_owned()),
        ("memory_file", "(null)".to_owned()),
        ("client_flags_size", "4".to_owned()),
    ];
    for (name, value) in rows {
        answer.stat(name, &value);
    }
}

/// Items by size, in steps of 32 bytes.
fn sizes(db: &mut Db<'_>, answer: &mut ResponseWriter<'_>) -> Result {
    let mut counts = std::collections::BTreeMap::new();
    let _: Option<()> = db.each_shard(0, |_, shard| {
        shard.tables[0].traverse(0, usize::MAX, |_, entry| {
            *counts
                .entry(entry.own_bytes().next_multiple_of(32))
                .or_insert(0u64) += 1;
        });
        None
    })?;
    for (size, count) in counts {
        answer.stat_number(&size.to_string(), count);
    }
    Ok(())
}

fn connections(server: &Server, asking: u64, db: &Db<'_>, answer: &mut ResponseWriter<'_>) {
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
        let state = if server.watchers.includes(client) {
            "conn_watch"
        } else if client.id == asking {
            "conn_parse_cmd"
        } else {
            "conn_read"
        };
        answer.stat(&format!("{id}:state"), state);
        let idle = (db.now().millis() - client.last_active_ms()).max(0) as u64 / 1000;
        answer.stat_number(&format!("{id}:secs_since_last_cmd"), idle);
    }
}
