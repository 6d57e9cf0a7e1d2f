//! What each section of INFO says. Figures of what this server does not have are zero: nothing of it happened.

use std::{
    env, fs,
    sync::{Arc, atomic::Ordering},
};

use storage::alloc;

use super::{Facts, Human, Lines};
use crate::{
    commands::{advice, connection::REDIS_VERSION},
    config::VALKEY_VERSION,
    dispatch::table,
    metrics::process,
    persistence::loading::Progress,
    replication::{primary::Stage, replica::LinkState},
    server::{Server, now, random_word},
    session::registry::Client,
};

pub(super) fn nothing(_facts: &mut Facts<'_, '_>, _lines: &mut Lines) {}

pub(super) fn server(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = &facts.session.server;
    let settings = server.config.settings();
    let or = |given: &str, usual: &'static str| {
        if given.is_empty() {
            usual.to_owned()
        } else {
            given.to_owned()
        }
    };
    lines.add(
        "redis_version",
        or(&settings.announced_server_version, REDIS_VERSION),
    );
    lines.add("server_name", or(&settings.announced_server_name, "valkey"));
    lines.add("valkey_version", VALKEY_VERSION);
    lines.add("valkey_release_stage", "ga");
    lines.add("ferrite_version", env!("CARGO_PKG_VERSION"));
    lines.add("redis_git_sha1", "00000000");
    lines.add("redis_git_dirty", 0);
    lines.add("redis_build_id", "0");
    lines.add("server_mode", "standalone");
    lines.add(
        "os",
        format_args!(
            "{} {} {}",
            kernel("ostype"),
            kernel("osrelease"),
            env::consts::ARCH
        ),
    );
    lines.add("arch_bits", usize::BITS);
    lines.add("monotonic_clock", "POSIX clock_gettime");
    lines.add("multiplexing_api", "epoll");
    lines.add("gcc_version", "0.0.0");
    lines.add("process_id", std::process::id());
    lines.add("process_supervised", "no");
    lines.add("run_id", &server.run_id);
    lines.add("tcp_port", settings.port);
    let micros = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    lines.add("server_time_usec", micros);
    let uptime = server.started.elapsed().as_secs();
    lines.add("uptime_in_seconds", uptime);
    lines.add("uptime_in_days", uptime / 86_400);
    for name in ["hz", "configured_hz", "clients_hz"] {
        lines.add(name, settings.hz);
    }
    lines.add("lru_clock", now().seconds() & 0xff_ffff);
    let path = |path: Option<std::path::PathBuf>| {
        path.map(|path| path.display().to_string())
            .unwrap_or_default()
    };
    lines.add("executable", path(env::current_exe().ok()));
    let file = server
        .config
        .file()
        .and_then(|file| file.canonicalize().ok());
    lines.add("config_file", path(file));
    lines.add("io_threads_active", server.metrics.workers.len());
    lines.add("availability_zone", &settings.availability_zone);
    let deadline = server.shutdown.deadline_ms.load(Ordering::Relaxed);
    if deadline != 0 {
        let left = deadline - now().millis();
        lines.add("shutdown_in_milliseconds", left.max(0));
    }
    let addresses = |addresses: &[String]| {
        let bound: Vec<String> = addresses
            .iter()
            .map(|address| format!("bind={address}"))
            .collect();
        bound.join(",")
    };
    let mut listeners = Vec::new();
    for (name, bind, port) in [
        ("tcp", settings.bind.as_slice(), settings.port),
        (
            "memcached",
            settings.bind_of_memcached(),
            settings.memcached_port,
        ),
    ] {
        if port != 0 {
            listeners.push(format!("name={name},{},port={port}", addresses(bind)));
        }
    }
    for (name, path) in [
        ("unix", &settings.unixsocket),
        ("memcached-unix", &settings.memcached_unixsocket),
    ] {
        if !path.as_os_str().is_empty() {
            listeners.push(format!("name={name},bind={}", path.display()));
        }
    }
    for (number, listener) in listeners.iter().enumerate() {
        lines.add(format_args!("listener{number}"), listener);
    }
}

/// A fact about the kernel, by its name below `/proc/sys/kernel`.
fn kernel(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    text.trim().to_owned()
}

pub(super) fn tls(_facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    for kind in ["server", "client", "ca"] {
        lines.add(format_args!("tls_{kind}_cert_serial"), "none");
        lines.add(format_args!("tls_{kind}_cert_expires_in_seconds"), 0);
    }
}

pub(super) fn clients(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = &facts.session.server;
    let clients = server.clients.all();
    let is_replica = |client: &&Arc<Client>| client.is_replica.load(Ordering::Relaxed);
    let replicas = clients.iter().filter(is_replica).count();
    lines.add("connected_clients", clients.len() - replicas);
    lines.add("cluster_connections", 0);
    lines.add("maxclients", server.config.settings().maxclients);
    let largest = |bytes: fn(&Client) -> usize| {
        clients
            .iter()
            .map(|client| bytes(client))
            .max()
            .unwrap_or(0)
    };
    lines.add(
        "client_recent_max_input_buffer",
        largest(|client| client.input_bytes.load(Ordering::Relaxed)),
    );
    lines.add(
        "client_recent_max_output_buffer",
        largest(Client::unsent_bytes),
    );
    let waiting = server.waiting.load(Ordering::Relaxed);
    let held_back = server.held_back.load(Ordering::Relaxed);
    lines.add("blocked_clients", waiting + held_back);
    lines.add("tracking_clients", server.tracking.clients());
    let subscribed = clients.iter().filter(|client| client.subscriptions() > 0);
    lines.add("pubsub_clients", subscribed.count());
    let watching = clients
        .iter()
        .filter(|client| client.watched_keys.load(Ordering::Relaxed) > 0);
    lines.add("watching_clients", watching.count());
    lines.add("clients_in_timeout_table", 0);
    let (mut watched, mut awaited, mut awaited_missing) = (0, 0, 0);
    facts.each_shard(|shard| {
        watched += shard.watched.len();
        awaited += shard.waiting.len();
        awaited_missing += shard
            .waiting
            .iter()
            .filter(|(.., clients)| clients.iter().any(|client| client.wants_missing))
            .count();
    });
    lines.add("total_watched_keys", watched);
    lines.add("total_blocking_keys", awaited);
    lines.add("total_blocking_keys_on_nokey", awaited_missing);
    let now = now().millis();
    match server.pause.state(now) {
        None => {
            lines.add("paused_reason", "none");
            lines.add("paused_actions", "none");
            lines.add("paused_timeout_milliseconds", 0);
        }
        Some((reason, until, all)) => {
            lines.add("paused_reason", reason);
            lines.add("paused_actions", if all { "all" } else { "write" });
            lines.add("paused_timeout_milliseconds", (until - now).max(0));
        }
    }
}

pub(super) fn memory(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = facts.session.server.clone();
    let settings = server.config.settings();
    let mut tables = 0;
    facts.each_shard(|shard| {
        tables += shard
            .tables
            .iter()
            .map(|table| table.overhead_bytes())
            .sum::<usize>();
    });
    let used = alloc::allocated_bytes();
    let peak = server
        .metrics
        .memory_peak
        .fetch_max(used, Ordering::Relaxed)
        .max(used);
    let resident = process::resident_bytes();
    let startup = server.startup_bytes;
    let (normal, replicas) = server.clients.memory_bytes();
    let overhead = (startup + tables + normal + replicas).min(used);
    let dataset = used - overhead;
    let percent = |part: usize, whole: usize| part as f64 * 100.0 / whole.max(1) as f64;
    lines.size("used_memory", used);
    lines.size("used_memory_rss", resident);
    lines.size("used_memory_peak", peak);
    lines.add(
        "used_memory_peak_perc",
        format_args!("{:.2}%", percent(used, peak)),
    );
    lines.add("used_memory_overhead", overhead);
    lines.add("used_memory_startup", startup);
    lines.add("used_memory_dataset", dataset);
    let net = used.saturating_sub(startup);
    lines.add(
        "used_memory_dataset_perc",
        format_args!("{:.2}%", percent(dataset, net).min(100.0)),
    );
    lines.add("allocator_allocated", used);
    lines.add("allocator_active", resident);
    lines.add("allocator_resident", resident);
    lines.add("allocator_muzzy", 0);
    lines.size("total_system_memory", process::total_memory_bytes());
    lines.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    lines.add("used_memory_lua_human", Human(0));
    let (scripts, script_bytes) = facts.session.server.scripting.size();
    lines.add("used_memory_scripts_eval", script_bytes);
    lines.add("number_of_cached_scripts", scripts);
    let libraries = facts.session.server.scripting.functions.all();
    let functions: usize = libraries
        .iter()
        .map(|library| library.functions.len())
        .sum();
    lines.add("number_of_functions", functions);
    lines.add("number_of_libraries", libraries.len());
    lines.zeros(&["used_memory_vm_functions"]);
    lines.size("used_memory_vm_total", 0);
    lines.add("used_memory_functions", 0);
    lines.size("used_memory_scripts", script_bytes);
    let limit = settings
        .maxmemory
        .bytes_of(process::total_memory_bytes() as u64);
    lines.size("maxmemory", usize::try_from(limit).unwrap_or(usize::MAX));
    lines.add("maxmemory_policy", settings.maxmemory_policy.name());
    let ratio = resident as f64 / used.max(1) as f64;
    let wasted = resident as i64 - used as i64;
    lines.add("allocator_frag_ratio", format_args!("{ratio:.2}"));
    lines.add("allocator_frag_bytes", wasted);
    lines.add("allocator_rss_ratio", "1.00");
    lines.add("allocator_rss_bytes", 0);
    lines.add("rss_overhead_ratio", "1.00");
    lines.add("rss_overhead_bytes", 0);
    lines.add("mem_fragmentation_ratio", format_args!("{ratio:.2}"));
    lines.add("mem_fragmentation_bytes", wasted);
    lines.add("mem_not_counted_for_evict", 0);
    let backlog = server.replication.stream.lock().memory_bytes();
    lines.add("mem_replication_backlog", backlog);
    lines.add("mem_total_replication_buffers", backlog);
    lines.add("mem_replicas_repl_buffer", 0);
    lines.add("mem_clients_slaves", replicas);
    lines.add("mem_clients_normal", normal);
    lines.zeros(&[
        "mem_cluster_links",
        "mem_cluster_slot_import",
        "mem_cluster_slot_export",
    ]);
    lines.add("mem_aof_buffer", server.aof.buffered_bytes());
    lines.add("mem_allocator", "mimalloc");
    lines.zeros(&[
        "mem_overhead_db_hashtable_rehashing",
        "active_defrag_running",
    ]);
    let statistics = &server.keyspace.statistics;
    lines.add(
        "lazyfree_pending_objects",
        statistics.freeing.load(Ordering::Relaxed),
    );
    lines.add(
        "lazyfreed_objects",
        statistics.freed.load(Ordering::Relaxed),
    );
}

pub(super) fn advice(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let report = advice::report(facts.session);
    lines.add("advice_enabled", u8::from(report.is_some()));
    let Some(report) = report else { return };
    lines.add("advice_one_key_in", report.one_in);
    lines.add("advice_sampled_keys", report.keys);
    lines.add("advice_requests", report.requests);
    lines.add("advice_hit_ratio", format_args!("{:.4}", report.hit_ratio));
    for (ranking, ratios) in report.expected {
        let ratios: Vec<String> = advice::SCALE_NAMES
            .iter()
            .zip(ratios)
            .map(|(name, ratio)| format!("{name}={ratio:.4}"))
            .collect();
        let name = advice::policy_name(ranking).replace('-', "_");
        lines.add(format_args!("advice_{name}"), ratios.join(","));
    }
}

pub(super) fn persistence(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = &facts.session.server;
    let progress = server.loading.progress();
    let is_beside = server.loading.is_beside();
    lines.add("loading", u8::from(progress.is_some() || is_beside));
    lines.add("async_loading", u8::from(is_beside));
    let snapshots = &server.snapshots;
    let bytes = |bytes: &std::sync::atomic::AtomicUsize| bytes.load(Ordering::Relaxed);
    lines.add("current_cow_peak", bytes(&snapshots.peak_bytes));
    lines.add("current_cow_size", server.keyspace.snapshot_bytes());
    lines.add("current_cow_size_age", 0);
    lines.add("current_fork_perc", "0.00");
    let saving = snapshots.in_background.load(Ordering::Relaxed);
    let while_saving = |counter: &std::sync::atomic::AtomicU64| match saving {
        true => counter.load(Ordering::Relaxed),
        false => 0,
    };
    lines.add(
        "current_save_keys_processed",
        while_saving(&snapshots.keys_written),
    );
    lines.add(
        "current_save_keys_total",
        while_saving(&snapshots.keys_total),
    );
    lines.add(
        "rdb_changes_since_last_save",
        server.keyspace.statistics.dirty.load(Ordering::Relaxed),
    );
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let time = |time: &std::sync::atomic::AtomicI64| time.load(Ordering::Relaxed);
    // A full sync is one too, as where it is made by the same means.
    let copying = server.replication.is_copying();
    lines.add("rdb_bgsave_in_progress", u8::from(saving || copying));
    lines.add("rdb_last_save_time", time(&snapshots.last_save));
    let status = match snapshots.last_ok() {
        true => "ok",
        false => "err",
    };
    lines.add("rdb_last_bgsave_status", status);
    lines.add("rdb_last_bgsave_time_sec", time(&snapshots.last_seconds));
    let current = match saving {
        true => (now().millis() - time(&snapshots.started_ms)) / 1000,
        false => -1,
    };
    lines.add("rdb_current_bgsave_time_sec", current);
    lines.add("rdb_saves", read(&snapshots.saves));
    lines.add("rdb_last_cow_size", bytes(&snapshots.snapshot_peak_bytes));
    lines.add("rdb_last_load_keys_expired", read(&snapshots.keys_expired));
    lines.add("rdb_last_load_keys_loaded", read(&snapshots.keys_loaded));
    append_only_file(server, lines);
    lines.add("aof_last_cow_size", bytes(&snapshots.base_peak_bytes));
    lines.zeros(&[
        "module_fork_in_progress",
        "module_fork_last_cow_size",
        "slot_migration_fork_in_progress",
    ]);
    append_only_file_sizes(server, lines);
    if let Some(progress) = progress {
        loading(&progress, lines);
    }
}

fn loading(progress: &Progress, lines: &mut Lines) {
    lines.add("loading_start_time", progress.started_seconds);
    lines.add("loading_total_bytes", progress.total_bytes);
    lines.add("loading_rdb_used_mem", progress.used_memory);
    lines.add("loading_loaded_bytes", progress.loaded_bytes);
    let percentage = format!("{:.2}", progress.percentage());
    lines.add("loading_loaded_perc", percentage);
    lines.add("loading_eta_seconds", progress.eta_seconds);
}

fn append_only_file(server: &Server, lines: &mut Lines) {
    let aof = &server.aof;
    let status = &aof.status;
    let rewriting = status.rewriting.load(Ordering::Relaxed);
    let scheduled = status.rewrite_scheduled.load(Ordering::Relaxed);
    let word = |ok: &std::sync::atomic::AtomicBool| {
        if ok.load(Ordering::Relaxed) {
            "ok"
        } else {
            "err"
        }
    };
    lines.add("aof_enabled", u8::from(aof.is_enabled()));
    lines.add("aof_rewrite_in_progress", u8::from(rewriting));
    lines.add("aof_rewrite_scheduled", u8::from(scheduled));
    let last = status.last_rewrite_seconds.load(Ordering::Relaxed);
    lines.add("aof_last_rewrite_time_sec", last);
    let started = status.rewrite_started_ms.load(Ordering::Relaxed);
    let current = match rewriting {
        true => (now().millis() - started) / 1000,
        false => -1,
    };
    lines.add("aof_current_rewrite_time_sec", current);
    lines.add("aof_last_bgrewrite_status", word(&status.last_rewrite_ok));
    lines.add("aof_rewrites", status.rewrites.load(Ordering::Relaxed));
    let failures = status.rewrite_failures.load(Ordering::Relaxed);
    lines.add("aof_rewrites_consecutive_failures", failures);
    lines.add("aof_last_write_status", word(&status.last_write_ok));
}

/// What there is of a log that is written.
fn append_only_file_sizes(server: &Server, lines: &mut Lines) {
    let aof = &server.aof;
    let status = &aof.status;
    if !aof.is_enabled() {
        return;
    }
    let size = status.current_size.load(Ordering::Relaxed);
    lines.add("aof_current_size", size);
    lines.add("aof_base_size", status.base_size.load(Ordering::Relaxed));
    lines.add("aof_pending_rewrite", 0);
    lines.add("aof_buffer_length", aof.buffered_bytes());
    lines.add("aof_pending_bio_fsync", 0);
    let delayed = status.delayed_fsyncs.load(Ordering::Relaxed);
    lines.add("aof_delayed_fsync", delayed);
}

pub(super) fn stats(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = &facts.session.server;
    let metrics = &server.metrics;
    let statistics = &server.keyspace.statistics;
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    lines.add("total_connections_received", read(&metrics.connections));
    lines.add("total_commands_processed", metrics.commands());
    let rates = *metrics.instantaneous.lock();
    lines.add("instantaneous_ops_per_sec", rates.commands_per_second);
    lines.add(
        "total_net_input_bytes",
        metrics.sum(|worker| worker.bytes_in.get()),
    );
    lines.add(
        "total_net_output_bytes",
        metrics.sum(|worker| worker.bytes_out.get()),
    );
    lines.zeros(&[
        "total_net_repl_input_bytes",
        "total_net_repl_output_bytes",
        "total_net_cluster_slot_import_bytes",
        "total_net_cluster_slot_export_bytes",
    ]);
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    lines.add(
        "instantaneous_input_kbps",
        kilobytes(rates.input_bytes_per_second),
    );
    lines.add(
        "instantaneous_output_kbps",
        kilobytes(rates.output_bytes_per_second),
    );
    lines.add("instantaneous_input_repl_kbps", "0.00");
    lines.add("instantaneous_output_repl_kbps", "0.00");
    lines.add("rejected_connections", read(&metrics.rejected_connections));
    lines.add("sync_full", read(&metrics.full_syncs));
    lines.add("sync_partial_ok", read(&metrics.partial_syncs));
    lines.add("sync_partial_err", read(&metrics.refused_partial_syncs));
    lines.add("expired_keys", read(&statistics.expired));
    lines.add("expired_fields", read(&statistics.expired_fields));
    lines.add("expired_stale_perc", "0.00");
    lines.add("expired_keys_with_volatile_items_stale_perc", "0.00");
    lines.zeros(&[
        "expired_time_cap_reached_count",
        "expire_cycle_cpu_milliseconds",
    ]);
    lines.add("evicted_keys", read(&statistics.evicted));
    lines.add(
        "evicted_clients",
        read(&server.clients.limits.memory.evicted),
    );
    lines.add(
        "evicted_scripts",
        read(&facts.session.server.scripting.evicted),
    );
    lines.zeros(&[
        "total_eviction_exceeded_time",
        "current_eviction_exceeded_time",
    ]);
    lines.add("keyspace_hits", read(&statistics.hits));
    lines.add("keyspace_misses", read(&statistics.misses));
    lines.add("pubsub_channels", server.pubsub.channels.len());
    lines.add("pubsub_patterns", server.pubsub.patterns.len());
    lines.add("pubsubshard_channels", server.pubsub.shard_channels.len());
    lines.zeros(&[
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
    ]);
    lines.add("active_defrag_hits", read(&metrics.relocated));
    lines.zeros(&[
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    ]);
    lines.add("tracking_total_keys", server.tracking.keys());
    lines.add("tracking_total_items", server.tracking.items());
    lines.add("tracking_total_prefixes", server.tracking.prefixes());
    lines.zeros(&["unexpected_error_replies"]);
    let errors: u64 = metrics.errors.lock().values().sum();
    lines.add("total_error_replies", errors);
    lines.add("dump_payload_sanitizations", 0);
    let reads = metrics.sum(|worker| worker.reads.get());
    let writes = metrics.sum(|worker| worker.writes.get());
    lines.add("total_reads_processed", reads);
    lines.add("total_writes_processed", writes);
    // Every worker serves its connections from read to write: there are no threads beside them that only read or write.
    lines.zeros(&[
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
        "io_threaded_freed_objects",
        "io_threaded_accept_processed",
        "io_threaded_poll_processed",
        "io_threaded_total_prefetch_batches",
        "io_threaded_total_prefetch_entries",
    ]);
    lines.add(
        "client_query_buffer_limit_disconnections",
        read(&server.clients.limits.memory.query_limit_disconnections),
    );
    lines.add(
        "client_output_buffer_limit_disconnections",
        read(&server.clients.limits.output.disconnections),
    );
    lines.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    lines.add("eventloop_cycles", metrics.cycles());
    lines.add("eventloop_duration_sum", process::cpu_microseconds());
    let nanoseconds = metrics.sum(|worker| {
        worker
            .commands
            .iter()
            .map(|command| command.nanoseconds.get())
            .sum()
    });
    lines.add("eventloop_duration_cmd_sum", nanoseconds / 1000);
    lines.add(
        "instantaneous_eventloop_cycles_per_sec",
        rates.cycles_per_second,
    );
    lines.add(
        "instantaneous_eventloop_duration_usec",
        rates.cycle_microseconds,
    );
    lines.add("acl_access_denied_auth", read(&metrics.auth_denied));
    lines.add("acl_access_denied_cmd", read(&metrics.commands_denied));
    lines.add("acl_access_denied_key", read(&metrics.keys_denied));
    lines.add("acl_access_denied_channel", read(&metrics.channels_denied));
    lines.add("acl_access_denied_tls_cert", 0);
    lines.add("acl_access_denied_db", read(&metrics.databases_denied));
}

pub(super) fn replication(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = &facts.session.server;
    let replication = &server.replication;
    let now = now().millis();
    match replication.link() {
        None => lines.add("role", "master"),
        Some(link) => {
            let settings = server.config.settings();
            let is_up = link.is_up();
            let offset = replication.offset();
            lines.add("role", "slave");
            lines.add("master_host", &link.host);
            lines.add("master_port", link.port);
            lines.add("master_link_status", if is_up { "up" } else { "down" });
            let silent = match is_up {
                false => -1,
                true => (now - link.heard_ms()).max(0) / 1000,
            };
            lines.add("master_last_io_seconds_ago", silent);
            let syncing = link.state() == LinkState::Sync;
            lines.add("master_sync_in_progress", u8::from(syncing));
            lines.add("slave_read_repl_offset", offset.max(link.read_to()));
            lines.add("slave_repl_offset", offset);
            lines.add("replicas_repl_buffer_size", 0);
            lines.add("replicas_repl_buffer_peak", 0);
            if !is_up {
                let down = (now - link.down_since_ms()).max(0) / 1000;
                lines.add("master_link_down_since_seconds", down);
            }
            lines.add("slave_priority", settings.replica_priority);
            lines.add("slave_read_only", u8::from(settings.replica_read_only));
            lines.add("replica_announced", u8::from(settings.replica_announced));
        }
    }
    let settings = server.config.settings();
    let lag = i64::from(settings.min_replicas_max_lag);
    let good = replication.good_replicas(lag);
    let replicas = replication.replicas.lock();
    lines.add("connected_slaves", replicas.len());
    if settings.min_replicas_to_write > 0 && lag > 0 {
        lines.add("min_slaves_good_slaves", good);
    }
    for (index, replica) in replicas.iter().enumerate() {
        let (address, port) = replica.place();
        let state = match replica.stage() {
            Stage::Waiting => "wait_bgsave",
            Stage::Copying | Stage::Sending | Stage::Loading => "send_bulk",
            Stage::Online => "online",
        };
        lines.add(
            format_args!("slave{index}"),
            format_args!(
                "ip={address},port={port},state={state},offset={},lag={},type=replica",
                replica.acknowledged(),
                (now - replica.heard_ms()).max(0) / 1000
            ),
        );
    }
    drop(replicas);
    lines.add("replicas_waiting_psync", 0);
    lines.add("master_failover_state", replication.failover.name());
    let stream = replication.stream.lock();
    lines.add("master_replid", &stream.id);
    let (previous, second) = match &stream.previous {
        Some((id, offset)) => (id.clone(), *offset as i64 + 1),
        None => ("0".repeat(40), -1),
    };
    lines.add("master_replid2", previous);
    lines.add("master_repl_offset", stream.end());
    lines.add("second_repl_offset", second);
    lines.add("repl_backlog_active", u8::from(replication.is_active()));
    lines.add(
        "repl_backlog_size",
        server.config.settings().repl_backlog_size,
    );
    let (first, length) = match replication.is_active() {
        true => (stream.start() + 1, stream.end() - stream.start()),
        false => (0, 0),
    };
    lines.add("repl_backlog_first_byte_offset", first);
    lines.add("repl_backlog_histlen", length);
}

pub(super) fn cpu(_facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let mut times = |suffix: &str, (user, system): (f64, f64)| {
        lines.add(
            format_args!("used_cpu_sys{suffix}"),
            format_args!("{system:.6}"),
        );
        lines.add(
            format_args!("used_cpu_user{suffix}"),
            format_args!("{user:.6}"),
        );
    };
    times("", process::cpu_seconds());
    times("_children", (0.0, 0.0));
    let (user, system) = process::main_thread_cpu_seconds();
    times("_main_thread", (user, system));
    lines.add(
        "used_active_time_main_thread",
        format_args!("{:.6}", user + system),
    );
}

pub(super) fn modules(_facts: &mut Facts<'_, '_>, _lines: &mut Lines) {}

pub(super) fn cluster(_facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    lines.add("cluster_enabled", 0);
}

pub(super) fn scripting_engines(_facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    lines.add("engines_count", 1);
    lines.zeros(&["engines_total_used_memory", "engines_total_memory_overhead"]);
    lines.add(
        "engine_0",
        "name=LUA,module=built-in,abi_version=4,used_memory=0,memory_overhead=0",
    );
}

pub(super) fn command_stats(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    for registered in table::table().all() {
        let total = facts.session.server.metrics.command(registered.id);
        if total.calls + total.rejected + total.failed == 0 {
            continue;
        }
        let micros = total.nanoseconds / 1000;
        let per_call = total.nanoseconds as f64 / 1000.0 / total.calls.max(1) as f64;
        lines.add(
            format_args!("cmdstat_{}", registered.full_name),
            format_args!(
                "calls={},usec={micros},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                total.calls, total.rejected, total.failed
            ),
        );
    }
}

pub(super) fn error_stats(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let errors = facts.session.server.metrics.errors.lock();
    let mut sorted: Vec<(&String, &u64)> = errors.iter().collect();
    sorted.sort();
    for (code, count) in sorted {
        lines.add(
            format_args!("errorstat_{code}"),
            format_args!("count={count}"),
        );
    }
}

pub(super) fn latency_stats(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    let server = &facts.session.server;
    let settings = server.config.settings();
    if !settings.latency_tracking {
        return;
    }
    for registered in table::table().all() {
        let total = server.metrics.command(registered.id);
        if total.calls == 0 {
            continue;
        }
        let percentiles: Vec<String> = settings
            .latency_tracking_info_percentiles
            .iter()
            .map(|&percent| {
                let micros = total.percentile_nanoseconds(percent) / 1000.0;
                format!("p{percent}={micros:.3}")
            })
            .collect();
        lines.add(
            format_args!("latency_percentiles_usec_{}", registered.full_name),
            percentiles.join(","),
        );
    }
}

pub(super) fn keyspace(facts: &mut Facts<'_, '_>, lines: &mut Lines) {
    #[derive(Clone, Copy, Default)]
    struct Keys {
        keys: usize,
        deadlines: usize,
        field_deadlines: usize,
        sampled: i64,
        sampled_ttl_ms: i64,
    }
    let now = facts.db.now();
    let mut databases = vec![Keys::default(); facts.db.keyspace().databases()];
    facts.each_shard(|shard| {
        for (total, table) in databases.iter_mut().zip(&shard.tables) {
            total.keys += table.len();
            total.deadlines += table.deadlines();
            total.field_deadlines += table.field_deadlines();
            // One entry of each shard stands for all: a mean over hundreds of samples.
            if table.deadlines() > 0
                && let Some((_, entry)) = table.sample(random_word())
                && let Some(deadline) = entry.deadline()
            {
                total.sampled += 1;
                total.sampled_ttl_ms = total
                    .sampled_ttl_ms
                    .saturating_add(deadline.millis().saturating_sub(now.millis()).max(0));
            }
        }
    });
    for (index, total) in databases.iter().enumerate() {
        if total.keys > 0 {
            let ttl = total.sampled_ttl_ms / total.sampled.max(1);
            lines.add(
                format_args!("db{index}"),
                format_args!(
                    "keys={},expires={},avg_ttl={ttl},keys_with_volatile_items={}",
                    total.keys, total.deadlines, total.field_deadlines
                ),
            );
        }
    }
}
