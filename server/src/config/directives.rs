//! The table of directives: one row per setting, from which everything else about it is derived.
//!
//! A row gives the field of [`Settings`], its type and form, the names the configuration files have for it, when it
//! can change, and what it does. Names, defaults, ranges and forms are those of Valkey 9.1; what is our own stands in
//! sections of its own. `docs/configuration.md` is written from this table.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;

use super::checks;
use super::choices::*;
use super::form::*;
use super::memory_size::MemoryLimit;
use super::schema::Change::{AtRunTime, AtStart, Protected};
use super::schema::Effect::{self, AcceptedWithoutEffect, Effective};
use super::schema::directives;

const INT_MAX: i64 = i32::MAX as i64;
const UINT_MAX: i64 = u32::MAX as i64;
const PORT_MAX: i64 = u16::MAX as i64;
const LONG_MAX: u64 = i64::MAX as u64;
const MB: u64 = 1 << 20;

// What whole groups of rows do: a group becomes effective in one line.
const REPLICATION: Effect = AcceptedWithoutEffect(
    "a full sync needs neither file nor delay, and loads beside the old data",
);
const CLUSTER: Effect = AcceptedWithoutEffect("there is no cluster mode");
const TLS: Effect = AcceptedWithoutEffect("connections are not encrypted");
const NO_TLS: &str = "Unable to update TLS configuration. Check server logs.";
const SCRIPTING: Effect = AcceptedWithoutEffect("the interface is the one that is not deprecated");
const RDMA: Effect = AcceptedWithoutEffect("there is no RDMA transport");
const DEFRAGMENTATION: Effect =
    AcceptedWithoutEffect("keys move out of sparse pages when `maxmemory` asks for it");
const BACKGROUND_FREEING: Effect =
    AcceptedWithoutEffect("big values are always freed in the background");
const PROCESS_TITLE: Effect = AcceptedWithoutEffect("the process keeps its title");
const SYSLOG: Effect = AcceptedWithoutEffect("the log goes to its file or to the standard output");
const CPU_LISTS: Effect = AcceptedWithoutEffect("threads are placed by the system; use taskset");
const DEBUGGING: Effect = AcceptedWithoutEffect("it tests the original's insides");

directives! {
    "Network" {
        /// Addresses to listen on for RESP clients; `-` before one lets it be missing on this machine.
        bind: Vec<String> = addresses(&["*", "-::*"]), "bind", AtRunTime, Effective;
        /// Refuses clients from other machines while the default user has no password.
        protected_mode: bool = yes_no(true), "protected-mode", AtRunTime, Effective;
        /// TCP port for RESP clients; 0 does not listen.
        port: u16 = integer(6379, 0, PORT_MAX), "port", AtRunTime, Effective;
        /// How many connections the system may hold before they are accepted.
        tcp_backlog: u32 = integer(511, 0, INT_MAX), "tcp-backlog", AtStart, Effective;
        /// Path of a Unix socket for RESP clients; empty does not listen.
        unixsocket: PathBuf = path(), "unixsocket", AtStart, Effective;
        /// Permissions of the Unix socket; 0 leaves them to the umask.
        unixsocketperm: u32 = octal(0o777), "unixsocketperm", AtStart, Effective;
        /// Group that owns the Unix socket.
        unixsocketgroup: String = text(""), "unixsocketgroup", AtStart,
            AcceptedWithoutEffect("the socket belongs to the server's group");
        /// Seconds after which an idle client is closed; 0 never closes one.
        timeout: u32 = integer(0, 0, INT_MAX), "timeout", AtRunTime, Effective;
        /// Seconds between probes of an idle connection by the system; 0 sends none.
        tcp_keepalive: u32 = integer(300, 0, INT_MAX), "tcp-keepalive", AtRunTime, Effective;
        /// How many clients may be connected at once.
        maxclients: u32 = integer(10_000, 1, UINT_MAX), "maxclients", AtRunTime, Effective;
        /// How many connections are accepted in one turn.
        max_new_connections_per_cycle: u32 = integer(10, 1, 1000), "max-new-connections-per-cycle", AtRunTime,
            AcceptedWithoutEffect("accepting never holds up other clients");
        /// How many TLS connections are accepted in one turn.
        max_new_tls_connections_per_cycle: u32 = integer(1, 1, 1000), "max-new-tls-connections-per-cycle", AtRunTime,
            TLS;
        /// Address from which outgoing connections are made.
        bind_source_addr: String = text(""), "bind-source-addr", AtRunTime, Effective;
        /// Mark that the system's packet filter sees on the server's packets.
        socket_mark_id: u32 = integer(0, 0, UINT_MAX), "socket-mark-id", AtStart,
            AcceptedWithoutEffect("sockets are not marked");
        /// Listens with multipath TCP.
        mptcp: bool = yes_no(false), "mptcp", AtStart, AcceptedWithoutEffect("TCP has one path");
        /// Addresses to listen on with RDMA.
        rdma_bind: Vec<String> = addresses(&[]).refused("No RDMA building support."), "rdma-bind", AtRunTime, RDMA;
        /// Port to listen on with RDMA.
        rdma_port: u16 = integer(0, 0, PORT_MAX).zero_only("No RDMA building support."), "rdma-port", AtRunTime, RDMA;
        /// Bytes received into at once with RDMA.
        rdma_rx_size: u32 = integer(1 << 20, 1 << 16, 1 << 24), "rdma-rx-size", AtStart, RDMA;
        /// Completion vector of RDMA.
        rdma_completion_vector: i32 = integer(-1, -1, 1024), "rdma-completion-vector", AtStart, RDMA;
    }

    "Memcached" {
        /// TCP port for memcached clients; 0 does not listen.
        memcached_port: u16 = integer(11211, 0, PORT_MAX), "memcached-port", AtRunTime, Effective;
        /// Addresses to listen on for memcached clients; empty means those of `bind`.
        memcached_bind: Vec<String> = addresses(&[]), "memcached-bind", AtRunTime, Effective;
        /// Path of a Unix socket for memcached clients; empty does not listen.
        memcached_unixsocket: PathBuf = path(), "memcached-unixsocket", AtStart, Effective;
        /// Permissions of the memcached Unix socket; 0 leaves them to the umask.
        memcached_unixsocketperm: u32 = octal(0o777), "memcached-unixsocketperm", AtStart, Effective;
        /// Largest item a memcached client may store.
        memcached_item_size_max: u64 = memory(MB, 1024, 1 << 30), "memcached-item-size-max", AtRunTime, Effective;
        /// File of `user:password` lines with which memcached clients authenticate; empty asks for none.
        memcached_auth_file: PathBuf = path(), "memcached-auth-file", AtStart, Effective;
        /// Refuses `flush_all`.
        memcached_disable_flush_all: bool = yes_no(false), "memcached-disable-flush-all", AtRunTime, Effective;
        /// Refuses commands that list keys: `stats cachedump`, `stats detail`, `lru_crawler metadump`.
        memcached_disable_dumping: bool = yes_no(false), "memcached-disable-dumping", AtRunTime, Effective;
        /// Refuses `watch`.
        memcached_disable_watch: bool = yes_no(false), "memcached-disable-watch", AtRunTime, Effective;
        /// Lets memcached clients stop the server with `shutdown`.
        memcached_allow_shutdown: bool = yes_no(false), "memcached-allow-shutdown", AtStart, Effective;
        /// Goes without CAS values.
        memcached_no_cas: bool = yes_no(false), "memcached-no-cas", AtStart,
            AcceptedWithoutEffect("items have none until somebody asks for one");
        /// What `config get cluster` tells clients: `host|ip|port` of each node, separated by spaces; empty tells them of
        /// this server alone.
        memcached_cluster_nodes: String = text("").checked(checks::cluster_nodes), "memcached-cluster-nodes", AtRunTime,
            Effective;
    }

    "General" {
        /// Number of threads that serve clients.
        io_threads: u32 = integer(1, 1, 256).computed(cores, "the number of cores"), "io-threads", AtStart, Effective;
        /// Number of parts of the keyspace that are locked independently, rounded up to a power of two; 0 chooses one.
        shards: u32 = integer(0, 0, 65_536), "shards", AtStart, Effective;
        /// Number of databases that SELECT knows.
        databases: u32 = integer(16, 1, INT_MAX), "databases", AtStart, Effective;
        /// Goes to the background after the start.
        daemonize: bool = yes_no(false), "daemonize", AtStart,
            AcceptedWithoutEffect("the server stays in the foreground");
        /// File to which the process's number is written.
        pidfile: PathBuf = path(), "pidfile", AtStart, Effective;
        /// The least important lines that are logged.
        loglevel: LogLevel = choice(LogLevel::Notice), "loglevel", AtRunTime, Effective;
        /// File to log to; empty is the standard output.
        logfile: PathBuf = path(), "logfile", AtStart, Effective;
        /// Shape of a log line.
        log_format: LogFormat = choice(LogFormat::Legacy), "log-format", AtRunTime, Effective;
        /// Shape of the time in a log line.
        log_timestamp_format: LogTimestampFormat = choice(LogTimestampFormat::Legacy), "log-timestamp-format",
            AtRunTime, Effective;
        /// Keeps keys and values out of the log.
        hide_user_data_from_log: bool = yes_no(true), "hide-user-data-from-log", AtRunTime,
            AcceptedWithoutEffect("keys and values are never logged");
        /// Shows the logo in the log at start.
        always_show_logo: bool = yes_no(false), "always-show-logo", AtStart, Effective;
        /// Directory of the files the server keeps, and what relative paths start from.
        dir: PathBuf = directory(), "dir", Protected, Effective;
        /// Options of SHUTDOWN that SIGINT has.
        shutdown_on_sigint: ShutdownOptions = shutdown_options(), "shutdown-on-sigint", AtRunTime, Effective;
        /// Options of SHUTDOWN that SIGTERM has.
        shutdown_on_sigterm: ShutdownOptions = shutdown_options(), "shutdown-on-sigterm", AtRunTime, Effective;
        /// Seconds a shutdown waits for replicas that are behind.
        shutdown_timeout: u32 = integer(10, 0, INT_MAX), "shutdown-timeout", AtRunTime, Effective;
        /// Service manager that is told when the server is ready.
        supervised: Supervised = choice(Supervised::No), "supervised", AtStart,
            AcceptedWithoutEffect("no manager is notified");
        /// Logs to the system's log as well.
        syslog_enabled: bool = yes_no(false), "syslog-enabled", AtStart, SYSLOG;
        /// Name in the system's log.
        syslog_ident: String = text("valkey"), "syslog-ident", AtStart, SYSLOG;
        /// Facility of the system's log.
        syslog_facility: SyslogFacility = choice(SyslogFacility::Local0), "syslog-facility", AtStart, SYSLOG;
        /// Shows the server's state in the process's title.
        set_proc_title: bool = yes_no(true), "set-proc-title", AtStart, PROCESS_TITLE;
        /// What the process's title shows.
        proc_title_template: String = text("{title} {listen-addr} {server-mode}").checked(checks::title_template),
            "proc-title-template", AtRunTime, PROCESS_TITLE;
        /// Collation of SORT with ALPHA.
        locale_collate: String = text("").checked(checks::locale), "locale-collate", AtRunTime,
            AcceptedWithoutEffect("strings are ordered by their bytes");
        /// Frequency of background work.
        hz: u32 = integer(10, 0, INT_MAX).clamped(1, 500), "hz", AtRunTime,
            AcceptedWithoutEffect("background work paces itself");
        /// Warnings about the system that do not stop the start.
        ignore_warnings: String = text(""), "ignore-warnings", AtRunTime,
            AcceptedWithoutEffect("warnings never stop the start");
        /// Where this server runs, for clients that prefer near ones.
        availability_zone: String = text(""), "availability-zone", AtRunTime, Effective;
        /// Answers with the name and version of Redis instead of Valkey.
        extended_redis_compatibility: bool = yes_no(false), "extended-redis-compatibility", AtRunTime, Effective;
        /// Name of the server that HELLO and INFO announce; empty announces the usual one.
        announced_server_name: String = text("").checked(checks::one_word), "announced-server-name", AtRunTime,
            Effective;
        /// Version of the server that HELLO and INFO announce; empty announces the usual one.
        announced_server_version: String = text("").checked(checks::one_word), "announced-server-version", AtRunTime,
            Effective;
        /// CPUs of the serving threads.
        server_cpulist: String = text(""), "server-cpulist" | "server_cpulist", AtStart, CPU_LISTS;
        /// CPUs of the background threads.
        bio_cpulist: String = text(""), "bio-cpulist" | "bio_cpulist", AtStart, CPU_LISTS;
        /// CPUs that rewrite the append-only file.
        aof_rewrite_cpulist: String = text(""), "aof-rewrite-cpulist" | "aof_rewrite_cpulist", AtStart, CPU_LISTS;
        /// CPUs that save snapshots.
        bgsave_cpulist: String = text(""), "bgsave-cpulist" | "bgsave_cpulist", AtStart, CPU_LISTS;
        /// How the kernel's out-of-memory score is adjusted.
        oom_score_adj: OomScoreAdjust = choice(OomScoreAdjust::No), "oom-score-adj", AtRunTime, Effective;
        /// Adjustments for a primary, a replica and a child process, of which there are none.
        oom_score_adj_values: [i32; 3] = oom_adjustments([0, 200, 800]), "oom-score-adj-values", AtRunTime, Effective;
        /// Keeps the system from giving the process huge pages while there is a `maxmemory`.
        disable_thp: bool = yes_no(true), "disable-thp", AtStart, Effective;
        /// Logs where the server was when it crashed.
        crash_log_enabled: bool = yes_no(true), "crash-log-enabled", AtRunTime,
            AcceptedWithoutEffect("a panic is always logged");
        /// Tests the memory after a crash.
        crash_memcheck_enabled: bool = yes_no(true), "crash-memcheck-enabled", AtRunTime,
            AcceptedWithoutEffect("memory is tested with --test-memory only");
    }

    "Security" {
        /// Password of the default user; empty asks for none.
        requirepass: Vec<u8> = secret(), "requirepass", AtRunTime, Effective;
        /// File of users; empty keeps them in the configuration file.
        aclfile: PathBuf = path(), "aclfile", AtStart, Effective;
        /// Channels a new user may use.
        acl_pubsub_default: PubsubDefault = choice(PubsubDefault::ResetChannels), "acl-pubsub-default", AtRunTime,
            Effective;
        /// How many refusals ACL LOG keeps.
        acllog_max_len: u64 = integer(128, 0, i64::MAX), "acllog-max-len", AtRunTime, Effective;
        /// Who may set protected directives with CONFIG SET.
        enable_protected_configs: Permission = choice(Permission::No), "enable-protected-configs", AtStart, Effective;
        /// Who may use DEBUG.
        enable_debug_command: Permission = choice(Permission::No), "enable-debug-command", AtStart, Effective;
        /// Who may use MODULE.
        enable_module_command: Permission = choice(Permission::No), "enable-module-command", AtStart,
            AcceptedWithoutEffect("native modules are never loaded");
        /// Seed that makes hashing the same on every start; empty chooses one at random.
        hash_seed: String = text(""), "hash-seed", AtStart,
            AcceptedWithoutEffect("the seed is random, against hash flooding");
    }

    "Clients" {
        /// Limits of unsent replies per class of clients: hard limit, soft limit and the seconds it may be passed.
        client_output_buffer_limit: OutputLimits = output_limits(OUTPUT_LIMITS), "client-output-buffer-limit",
            AtRunTime, Effective;
        /// Most bytes of requests that are held for one client.
        client_query_buffer_limit: u64 = memory(1024 * MB, MB, LONG_MAX), "client-query-buffer-limit", AtRunTime,
            Effective;
        /// Most bytes that all clients' buffers may have together, or their share of `maxmemory`; 0 is no limit.
        maxmemory_clients: MemoryLimit =
            memory_or_percent(0, LONG_MAX, "argument must be a memory or percent value"),
            "maxmemory-clients", AtRunTime, Effective;
        /// Longest string in a request.
        proto_max_bulk_len: u64 = memory(512 * MB, MB, LONG_MAX), "proto-max-bulk-len", AtRunTime, Effective;
        /// How many keys the server remembers for clients that cache them.
        tracking_table_max_keys: u64 = integer(1_000_000, 0, i64::MAX), "tracking-table-max-keys", AtRunTime,
            Effective;
        /// Which changes of keys are published, and on which channels.
        notify_keyspace_events: KeyspaceEvents = keyspace_events(), "notify-keyspace-events", AtRunTime, Effective;
        /// How many commands of a pipeline have their keys fetched from memory together.
        prefetch_batch_max_size: u32 = integer(16, 0, 128), "prefetch-batch-max-size", AtRunTime,
            AcceptedWithoutEffect("the batch follows the pipeline");
    }

    "Memory and eviction" {
        /// Most memory the data may use, in bytes or as a share of the machine's; 0 is no limit.
        maxmemory: MemoryLimit = memory_or_percent(0, u64::MAX, "argument must be a memory value"), "maxmemory",
            AtRunTime, Effective;
        /// What goes when the memory is used up.
        maxmemory_policy: EvictionPolicy = choice(EvictionPolicy::NoEviction), "maxmemory-policy", AtRunTime, Effective;
        /// Finds out, while there is a limit of 4 MB or more, what hit ratio other policies and limits would give: see MEMORY ADVICE.
        maxmemory_advice: bool = yes_no(true), "maxmemory-advice", AtRunTime, Effective;
        /// How many keys compete for being evicted.
        maxmemory_samples: u32 = integer(5, 1, 64), "maxmemory-samples", AtRunTime, Effective;
        /// How long evicting may hold up other work, from 0 to 100.
        maxmemory_eviction_tenacity: u32 = integer(10, 0, 100), "maxmemory-eviction-tenacity", AtRunTime, Effective;
        /// How much harder it gets to raise a key's frequency.
        lfu_log_factor: u32 = integer(10, 0, INT_MAX), "lfu-log-factor", AtRunTime, Effective;
        /// Minutes after which an unused key's frequency falls.
        lfu_decay_time: u32 = integer(1, 0, INT_MAX), "lfu-decay-time", AtRunTime, Effective;
        /// How eagerly expired keys are looked for, from 1 to 10.
        active_expire_effort: u32 = integer(1, 1, 10), "active-expire-effort", AtRunTime, Effective;
        /// Keeps expired keys while data is imported.
        import_mode: bool = yes_no(false), "import-mode", AtRunTime,
            AcceptedWithoutEffect("expired keys always go");
        /// Says UNLINK instead of DEL of evicted keys to replicas and the append-only file.
        lazyfree_lazy_eviction: bool = yes_no(true), "lazyfree-lazy-eviction", AtRunTime, Effective;
        /// Says UNLINK instead of DEL of expired keys to replicas and the append-only file.
        lazyfree_lazy_expire: bool = yes_no(true), "lazyfree-lazy-expire", AtRunTime, Effective;
        /// Says UNLINK instead of DEL to replicas and the append-only file of keys that SPOP emptied and RESTORE found expired.
        lazyfree_lazy_server_del: bool = yes_no(true), "lazyfree-lazy-server-del", AtRunTime, Effective;
        /// Frees what DEL deletes in the background.
        lazyfree_lazy_user_del: bool = yes_no(true), "lazyfree-lazy-user-del", AtRunTime, BACKGROUND_FREEING;
        /// Frees what FLUSHALL and FLUSHDB delete in the background.
        lazyfree_lazy_user_flush: bool = yes_no(true), "lazyfree-lazy-user-flush", AtRunTime, BACKGROUND_FREEING;
        /// Moves values together to return memory.
        activedefrag: bool = yes_no(false), "activedefrag", AtRunTime, DEFRAGMENTATION;
        /// Most CPU for defragmentation, in percent.
        active_defrag_cycle_max: u32 = integer(25, 1, 99), "active-defrag-cycle-max", AtRunTime, DEFRAGMENTATION;
        /// Least CPU for defragmentation, in percent.
        active_defrag_cycle_min: u32 = integer(1, 1, 99), "active-defrag-cycle-min", AtRunTime, DEFRAGMENTATION;
        /// Microseconds of one turn of defragmentation.
        active_defrag_cycle_us: u32 = integer(500, 0, 100_000), "active-defrag-cycle-us", AtRunTime, DEFRAGMENTATION;
        /// Wasted bytes below which nothing is defragmented.
        active_defrag_ignore_bytes: u64 = memory(100 * MB, 1, LONG_MAX), "active-defrag-ignore-bytes", AtRunTime,
            DEFRAGMENTATION;
        /// Most fields of a value that are defragmented at once.
        active_defrag_max_scan_fields: u64 = integer(1000, 1, i64::MAX), "active-defrag-max-scan-fields", AtRunTime,
            DEFRAGMENTATION;
        /// Percentage of waste from which defragmentation starts.
        active_defrag_threshold_lower: u32 = integer(10, 0, 1000), "active-defrag-threshold-lower", AtRunTime,
            DEFRAGMENTATION;
        /// Percentage of waste from which defragmentation takes the most CPU.
        active_defrag_threshold_upper: u32 = integer(100, 0, 1000), "active-defrag-threshold-upper", AtRunTime,
            DEFRAGMENTATION;
        /// Lets the allocator return memory in a thread of its own.
        jemalloc_bg_thread: bool = yes_no(true), "jemalloc-bg-thread", AtRunTime,
            AcceptedWithoutEffect("the allocator is another one");
        /// Grows hash tables in the background.
        activerehashing: bool = yes_no(true), "activerehashing", AtRunTime,
            AcceptedWithoutEffect("tables never rehash as a whole");
    }

    "Encodings" {
        /// Most fields of a hash that is one packed buffer.
        hash_max_listpack_entries: u64 = integer(512, 0, i64::MAX),
            "hash-max-listpack-entries" | "hash-max-ziplist-entries", AtRunTime, Effective;
        /// Longest field or value of a hash that is one packed buffer.
        hash_max_listpack_value: u64 = memory(64, 0, LONG_MAX), "hash-max-listpack-value" | "hash-max-ziplist-value",
            AtRunTime, Effective;
        /// Most elements of one node of a list, or, negative, its size: -1 to -5 are 4, 8, 16, 32 and 64 KiB.
        list_max_listpack_size: i32 = integer(-2, i32::MIN as i64, INT_MAX),
            "list-max-listpack-size" | "list-max-ziplist-size", AtRunTime, Effective;
        /// How many nodes at each end of a list stay uncompressed; 0 compresses none.
        list_compress_depth: u32 = integer(0, 0, INT_MAX), "list-compress-depth", AtRunTime,
            AcceptedWithoutEffect("lists are not compressed");
        /// Most members of a set of integers that is one packed buffer.
        set_max_intset_entries: u64 = integer(512, 0, i64::MAX), "set-max-intset-entries", AtRunTime, Effective;
        /// Most members of a set that is one packed buffer.
        set_max_listpack_entries: u64 = integer(128, 0, i64::MAX), "set-max-listpack-entries", AtRunTime, Effective;
        /// Longest member of a set that is one packed buffer.
        set_max_listpack_value: u64 = integer(64, 0, i64::MAX), "set-max-listpack-value", AtRunTime, Effective;
        /// Most members of a sorted set that is one packed buffer.
        zset_max_listpack_entries: u64 = integer(128, 0, i64::MAX),
            "zset-max-listpack-entries" | "zset-max-ziplist-entries", AtRunTime, Effective;
        /// Longest member of a sorted set that is one packed buffer.
        zset_max_listpack_value: u64 = memory(64, 0, LONG_MAX), "zset-max-listpack-value" | "zset-max-ziplist-value",
            AtRunTime, Effective;
        /// Largest HyperLogLog in its sparse form.
        hll_sparse_max_bytes: u64 = memory(3000, 0, LONG_MAX), "hll-sparse-max-bytes", AtRunTime, Effective;
        /// Largest block of a stream; 0 is no limit.
        stream_node_max_bytes: u64 = memory(4096, 0, LONG_MAX), "stream-node-max-bytes", AtRunTime, Effective;
        /// Most entries in a block of a stream; 0 is no limit.
        stream_node_max_entries: u64 = integer(100, 0, i64::MAX), "stream-node-max-entries", AtRunTime, Effective;
    }

    "Observation" {
        /// Microseconds from which a command is kept in the log of slow ones; -1 keeps none.
        commandlog_execution_slower_than: i64 = integer(10_000, -1, i64::MAX),
            "commandlog-execution-slower-than" | "slowlog-log-slower-than", AtRunTime, Effective;
        /// How many slow commands are kept.
        commandlog_slow_execution_max_len: u64 = integer(128, 0, i64::MAX),
            "commandlog-slow-execution-max-len" | "slowlog-max-len", AtRunTime, Effective;
        /// Bytes from which a request is kept in the log of large ones; -1 keeps none.
        commandlog_request_larger_than: i64 = integer(1 << 20, -1, i64::MAX), "commandlog-request-larger-than",
            AtRunTime, Effective;
        /// How many large requests are kept.
        commandlog_large_request_max_len: u64 = integer(128, 0, i64::MAX), "commandlog-large-request-max-len",
            AtRunTime, Effective;
        /// Bytes from which a reply is kept in the log of large ones; -1 keeps none.
        commandlog_reply_larger_than: i64 = integer(1 << 20, -1, i64::MAX), "commandlog-reply-larger-than", AtRunTime,
            Effective;
        /// How many large replies are kept.
        commandlog_large_reply_max_len: u64 = integer(128, 0, i64::MAX), "commandlog-large-reply-max-len", AtRunTime,
            Effective;
        /// Milliseconds from which an event is kept for LATENCY; 0 keeps none.
        latency_monitor_threshold: u64 = integer(0, 0, i64::MAX), "latency-monitor-threshold", AtRunTime, Effective;
        /// Counts how long each command takes.
        latency_tracking: bool = yes_no(true), "latency-tracking", AtRunTime, Effective;
        /// Percentiles of commands' durations that INFO shows.
        latency_tracking_info_percentiles: Vec<f64> = percentiles(&[50.0, 99.0, 99.9]),
            "latency-tracking-info-percentiles", AtRunTime, Effective;
    }

    "Snapshots" {
        /// Saves after that many seconds if that many changes happened; empty never saves by itself.
        save: Vec<SavePoint> = save_points(SAVE_POINTS), "save", AtRunTime, Effective;
        /// Name of the snapshot file in `dir`.
        dbfilename: String = text("dump.rdb").checked(checks::snapshot_name), "dbfilename", Protected, Effective;
        /// Refuses writes while the last snapshot failed.
        stop_writes_on_bgsave_error: bool = yes_no(true), "stop-writes-on-bgsave-error", AtRunTime, Effective;
        /// Compresses strings in snapshots.
        rdbcompression: bool = yes_no(true), "rdbcompression", AtRunTime, Effective;
        /// Ends snapshots with a checksum.
        rdbchecksum: bool = yes_no(true), "rdbchecksum", AtStart, Effective;
        /// Whether snapshots of later versions are refused.
        rdb_version_check: RdbVersionCheck = choice(RdbVersionCheck::Strict), "rdb-version-check", AtRunTime,
            Effective;
        /// Deletes snapshots that were made for replicas only.
        rdb_del_sync_files: bool = yes_no(false), "rdb-del-sync-files", AtRunTime, REPLICATION;
        /// Forces a snapshot to disk in steps while it is written.
        rdb_save_incremental_fsync: bool = yes_no(true), "rdb-save-incremental-fsync", AtRunTime, Effective;
    }

    "Append-only file" {
        /// Logs every change to the append-only file.
        appendonly: bool = yes_no(false), "appendonly", AtRunTime, Effective;
        /// First part of the append-only files' names.
        appendfilename: String = text("appendonly.aof").checked(checks::append_name), "appendfilename", AtStart,
            Effective;
        /// Directory of the append-only files, in `dir`.
        appenddirname: String = text("appendonlydir").checked(checks::append_directory), "appenddirname", AtStart,
            Effective;
        /// When the append-only file is forced to disk.
        appendfsync: AppendFsync = choice(AppendFsync::EverySecond), "appendfsync", AtRunTime, Effective;
        /// Forces nothing to disk while a snapshot or rewrite runs.
        no_appendfsync_on_rewrite: bool = yes_no(false), "no-appendfsync-on-rewrite", AtRunTime,
            AcceptedWithoutEffect("a rewrite does not slow down the log, which is always forced to disk as appendfsync says");
        /// Growth in percent from which the append-only file is rewritten; 0 never rewrites it.
        auto_aof_rewrite_percentage: u32 = integer(100, 0, INT_MAX), "auto-aof-rewrite-percentage", AtRunTime,
            Effective;
        /// Size below which the append-only file is not rewritten.
        auto_aof_rewrite_min_size: u64 = memory(64 * MB, 0, LONG_MAX), "auto-aof-rewrite-min-size", AtRunTime,
            Effective;
        /// Loads a file whose last record is torn, without that record.
        aof_load_truncated: bool = yes_no(true), "aof-load-truncated", AtRunTime, Effective;
        /// Whether a rewritten append-only file begins with a snapshot, or with commands.
        aof_use_rdb_preamble: bool = yes_no(true), "aof-use-rdb-preamble", AtRunTime, Effective;
        /// Notes times in the append-only file.
        aof_timestamp_enabled: bool = yes_no(false), "aof-timestamp-enabled", AtRunTime, Effective;
        /// Forces a rewritten file to disk in steps.
        aof_rewrite_incremental_fsync: bool = yes_no(true), "aof-rewrite-incremental-fsync", AtRunTime,
            AcceptedWithoutEffect("a rewritten file is forced to disk once, on a thread that nobody waits for");
        /// Keeps files of the append-only log that are no longer needed.
        aof_disable_auto_gc: bool = yes_no(false), "aof-disable-auto-gc", AtRunTime, DEBUGGING, Hidden;
    }

    "Replication" {
        /// Host and port of the primary this server follows.
        replicaof: Option<(String, u16)> = replica_of(), "replicaof" | "slaveof", AtStart, Effective;
        /// Password for the primary.
        primaryauth: Vec<u8> = secret(), "primaryauth" | "masterauth", AtRunTime, Effective;
        /// User for the primary.
        primaryuser: String = text(""), "primaryuser" | "masteruser", AtRunTime, Effective;
        /// Answers from old data while the primary is away.
        replica_serve_stale_data: bool = yes_no(true), "replica-serve-stale-data" | "slave-serve-stale-data",
            AtRunTime, Effective;
        /// Refuses writes of clients on a replica.
        replica_read_only: bool = yes_no(true), "replica-read-only" | "slave-read-only", AtRunTime, Effective;
        /// Leaves eviction to the primary.
        replica_ignore_maxmemory: bool = yes_no(true), "replica-ignore-maxmemory" | "slave-ignore-maxmemory",
            AtRunTime, REPLICATION;
        /// Drops a replica's old data in the background before a full sync.
        replica_lazy_flush: bool = yes_no(true), "replica-lazy-flush" | "slave-lazy-flush", AtRunTime,
            BACKGROUND_FREEING;
        /// Rank of this replica when a new primary is chosen; 0 never becomes one.
        replica_priority: u32 = integer(100, 0, INT_MAX), "replica-priority" | "slave-priority", AtRunTime,
            Effective;
        /// Lets Sentinels see this replica.
        replica_announced: bool = yes_no(true), "replica-announced", AtRunTime, Effective;
        /// Address a replica announces.
        replica_announce_ip: String = text(""), "replica-announce-ip" | "slave-announce-ip", AtRunTime, Effective;
        /// Port a replica announces; 0 is the real one.
        replica_announce_port: u16 = integer(0, 0, PORT_MAX), "replica-announce-port" | "slave-announce-port",
            AtRunTime, Effective;
        /// Goes on applying the primary's writes when the disk fails.
        replica_ignore_disk_write_errors: bool = yes_no(false), "replica-ignore-disk-write-errors", AtRunTime,
            AcceptedWithoutEffect("a replica goes on in any case");
        /// Fewest replicas in reach for writes to be accepted.
        min_replicas_to_write: u32 = integer(0, 0, INT_MAX), "min-replicas-to-write" | "min-slaves-to-write",
            AtRunTime, Effective;
        /// Seconds a replica may be silent and still count as in reach.
        min_replicas_max_lag: u32 = integer(10, 0, INT_MAX), "min-replicas-max-lag" | "min-slaves-max-lag", AtRunTime,
            Effective;
        /// Bytes of changes kept for replicas whose link breaks.
        repl_backlog_size: u64 = memory(10 * MB, 1, LONG_MAX).raised_to(16 << 10), "repl-backlog-size", AtRunTime,
            Effective;
        /// Seconds the changes are kept when no replica is left; 0 keeps them.
        repl_backlog_ttl: u64 = integer(3600, 0, i64::MAX), "repl-backlog-ttl", AtRunTime, Effective;
        /// Gathers small packets to replicas.
        repl_disable_tcp_nodelay: bool = yes_no(false), "repl-disable-tcp-nodelay", AtRunTime, REPLICATION;
        /// How a replica takes over a full sync.
        repl_diskless_load: DisklessLoad = choice(DisklessLoad::Disabled), "repl-diskless-load", AtRunTime,
            REPLICATION;
        /// Sends a full sync straight to the socket.
        repl_diskless_sync: bool = yes_no(true), "repl-diskless-sync", AtRunTime, REPLICATION;
        /// Seconds to wait for more replicas before a full sync starts.
        repl_diskless_sync_delay: u32 = integer(5, 0, INT_MAX), "repl-diskless-sync-delay", AtRunTime, REPLICATION;
        /// Replicas with which a full sync starts at once; 0 waits.
        repl_diskless_sync_max_replicas: u32 = integer(0, 0, INT_MAX), "repl-diskless-sync-max-replicas", AtRunTime,
            REPLICATION;
        /// Sends changes on a second connection during a full sync.
        dual_channel_replication_enabled: bool = yes_no(false), "dual-channel-replication-enabled", AtRunTime,
            REPLICATION;
        /// Seconds between pings to replicas.
        repl_ping_replica_period: u32 = integer(10, 1, INT_MAX), "repl-ping-replica-period" | "repl-ping-slave-period",
            AtRunTime, Effective;
        /// Seconds of silence after which a replication link counts as broken.
        repl_timeout: u32 = integer(60, 1, INT_MAX), "repl-timeout", AtRunTime, Effective;
        /// Replicates over multipath TCP.
        repl_mptcp: bool = yes_no(false), "repl-mptcp", AtStart, AcceptedWithoutEffect("TCP has one path");
        /// Whether a replica ends when a command of its primary's fails; what is said of it is logged in any case.
        propagation_error_behavior: PropagationError = choice(PropagationError::Ignore), "propagation-error-behavior",
            AtRunTime, Effective;
    }

    "Cluster" {
        /// Makes this server a node of a cluster.
        cluster_enabled: bool = yes_no(false), "cluster-enabled", AtStart, CLUSTER;
        /// File in which a node keeps the cluster's state.
        cluster_config_file: String = text("nodes.conf").checked(checks::cluster_file), "cluster-config-file", AtStart,
            CLUSTER;
        /// What a node does when its state cannot be saved.
        cluster_config_save_behavior: ClusterSaveBehavior = choice(ClusterSaveBehavior::Sync),
            "cluster-config-save-behavior", AtRunTime, CLUSTER;
        /// Number of databases in cluster mode.
        cluster_databases: u32 = integer(1, 1, INT_MAX), "cluster-databases", AtStart, CLUSTER;
        /// Port of the cluster bus; 0 is `port` plus 10000.
        cluster_port: u16 = integer(0, 0, PORT_MAX), "cluster-port", AtStart, CLUSTER;
        /// Milliseconds of silence after which a node counts as failed.
        cluster_node_timeout: u64 = integer(15_000, 0, i64::MAX), "cluster-node-timeout", AtRunTime, CLUSTER;
        /// Milliseconds between pings of the cluster bus.
        cluster_ping_interval: u64 = integer(0, 0, i64::MAX), "cluster-ping-interval", AtRunTime, DEBUGGING, Hidden;
        /// Percentage of nodes gossiped about in a message.
        cluster_message_gossip_perc: u32 = integer(10, 1, 100), "cluster-message-gossip-perc", AtRunTime, DEBUGGING,
            Hidden;
        /// Seconds a forgotten node stays forgotten.
        cluster_blacklist_ttl: i64 = integer(60, i64::MIN, i64::MAX), "cluster-blacklist-ttl", AtRunTime, CLUSTER;
        /// Milliseconds a manual failover may take.
        cluster_manual_failover_timeout: u32 = integer(5000, 1, INT_MAX), "cluster-manual-failover-timeout",
            AtRunTime, CLUSTER;
        /// Replicas a primary keeps when others have none.
        cluster_migration_barrier: u32 = integer(1, 0, INT_MAX), "cluster-migration-barrier", AtRunTime, CLUSTER;
        /// Lets replicas move to primaries that have none.
        cluster_allow_replica_migration: bool = yes_no(true), "cluster-allow-replica-migration", AtRunTime, CLUSTER;
        /// Keeps a replica from taking over by itself.
        cluster_replica_no_failover: bool = yes_no(false), "cluster-replica-no-failover" | "cluster-slave-no-failover",
            AtRunTime, CLUSTER;
        /// How old a replica's data may be for it to take over, in node timeouts; 0 is any age.
        cluster_replica_validity_factor: u32 = integer(10, 0, INT_MAX),
            "cluster-replica-validity-factor" | "cluster-slave-validity-factor", AtRunTime, CLUSTER;
        /// Refuses commands while a slot has no node.
        cluster_require_full_coverage: bool = yes_no(true), "cluster-require-full-coverage", AtRunTime, CLUSTER;
        /// Answers reads while the cluster is down.
        cluster_allow_reads_when_down: bool = yes_no(false), "cluster-allow-reads-when-down", AtRunTime, CLUSTER;
        /// Serves sharded channels while the cluster is down.
        cluster_allow_pubsubshard_when_down: bool = yes_no(true), "cluster-allow-pubsubshard-when-down", AtRunTime,
            CLUSTER;
        /// Most bytes waiting on one link of the cluster bus; 0 is no limit.
        cluster_link_sendbuf_limit: u64 = memory(0, 0, u64::MAX), "cluster-link-sendbuf-limit", AtRunTime, CLUSTER;
        /// How redirections name nodes.
        cluster_preferred_endpoint_type: EndpointType = choice(EndpointType::Ip), "cluster-preferred-endpoint-type",
            AtRunTime, CLUSTER;
        /// Address a node announces.
        cluster_announce_ip: String = text("").checked(checks::announced_ip), "cluster-announce-ip", AtRunTime,
            CLUSTER;
        /// Port a node announces; 0 is the real one.
        cluster_announce_port: u16 = integer(0, 0, PORT_MAX), "cluster-announce-port", AtRunTime, CLUSTER;
        /// TLS port a node announces; 0 is the real one.
        cluster_announce_tls_port: u16 = integer(0, 0, PORT_MAX), "cluster-announce-tls-port", AtRunTime, CLUSTER;
        /// Bus port a node announces; 0 is the real one.
        cluster_announce_bus_port: u16 = integer(0, 0, PORT_MAX), "cluster-announce-bus-port", AtRunTime, CLUSTER;
        /// IPv4 address a node announces to clients.
        cluster_announce_client_ipv4: String = text("").checked(checks::ipv4), "cluster-announce-client-ipv4",
            AtRunTime, CLUSTER;
        /// IPv6 address a node announces to clients.
        cluster_announce_client_ipv6: String = text("").checked(checks::ipv6), "cluster-announce-client-ipv6",
            AtRunTime, CLUSTER;
        /// Port a node announces to clients; 0 is the real one.
        cluster_announce_client_port: u16 = integer(0, 0, PORT_MAX), "cluster-announce-client-port", AtRunTime,
            CLUSTER;
        /// TLS port a node announces to clients; 0 is the real one.
        cluster_announce_client_tls_port: u16 = integer(0, 0, PORT_MAX), "cluster-announce-client-tls-port",
            AtRunTime, CLUSTER;
        /// Host name a node announces.
        cluster_announce_hostname: String = text("").checked(checks::hostname), "cluster-announce-hostname",
            AtRunTime, CLUSTER;
        /// Name by which people know a node.
        cluster_announce_human_nodename: String = text("").checked(checks::human_name),
            "cluster-announce-human-nodename", AtRunTime, CLUSTER;
        /// Counts keys, traffic and CPU per slot.
        cluster_slot_stats_enabled: bool = yes_no(false), "cluster-slot-stats-enabled", AtRunTime, CLUSTER;
        /// How many slot migrations are remembered.
        cluster_slot_migration_log_max_len: u64 = integer(1000, 0, i64::MAX), "cluster-slot-migration-log-max-len",
            AtRunTime, CLUSTER;
        /// Bytes still to send with which a slot may change hands; -1 is any number.
        slot_migration_max_failover_repl_bytes: i64 = signed_memory(0, -1), "slot-migration-max-failover-repl-bytes",
            AtRunTime, CLUSTER;
    }

    "Scripts" {
        /// Milliseconds after which a script that runs may be killed and others are told so.
        busy_reply_threshold: u64 = integer(5000, 0, i64::MAX), "busy-reply-threshold" | "lua-time-limit", AtRunTime, Effective;
        /// Gives scripts what the original took away for safety.
        lua_enable_insecure_api: bool = yes_no(false), "lua-enable-insecure-api", AtRunTime,
            AcceptedWithoutEffect("the safe interface is the only one"), Hidden;
        /// Gives scripts what the original deprecates.
        lua_enable_deprecated_api: bool = yes_no(false), "lua-enable-deprecated-api", AtRunTime, SCRIPTING, Hidden;
    }

    "TLS" {
        /// TCP port for RESP clients over TLS; 0 does not listen.
        tls_port: u16 = integer(0, 0, PORT_MAX).zero_only(NO_TLS), "tls-port", AtRunTime, TLS;
        /// Certificate of the server.
        tls_cert_file: PathBuf = path(), "tls-cert-file", AtRunTime, TLS;
        /// Private key of the server.
        tls_key_file: PathBuf = path(), "tls-key-file", AtRunTime, TLS;
        /// Passphrase of the private key.
        tls_key_file_pass: Vec<u8> = secret(), "tls-key-file-pass", AtRunTime, TLS;
        /// Certificate for outgoing connections.
        tls_client_cert_file: PathBuf = path(), "tls-client-cert-file", AtRunTime, TLS;
        /// Private key for outgoing connections.
        tls_client_key_file: PathBuf = path(), "tls-client-key-file", AtRunTime, TLS;
        /// Passphrase of the private key for outgoing connections.
        tls_client_key_file_pass: Vec<u8> = secret(), "tls-client-key-file-pass", AtRunTime, TLS;
        /// File of trusted authorities.
        tls_ca_cert_file: PathBuf = path(), "tls-ca-cert-file", AtRunTime, TLS;
        /// Directory of trusted authorities.
        tls_ca_cert_dir: PathBuf = path(), "tls-ca-cert-dir", AtRunTime, TLS;
        /// Parameters of the Diffie-Hellman key exchange.
        tls_dh_params_file: PathBuf = path(), "tls-dh-params-file", AtRunTime, TLS;
        /// Whether clients need a certificate.
        tls_auth_clients: TlsAuthClients = choice(TlsAuthClients::Yes), "tls-auth-clients", AtRunTime, TLS;
        /// Part of a client's certificate that names its user.
        tls_auth_clients_user: TlsUserField = choice(TlsUserField::Off), "tls-auth-clients-user", AtRunTime, TLS;
        /// Seconds between looks for changed certificates; 0 never looks.
        tls_auto_reload_interval: u32 = integer(0, 0, INT_MAX), "tls-auto-reload-interval", AtRunTime, TLS;
        /// Replicates over TLS.
        tls_replication: bool = yes_no(false).never_yes(NO_TLS), "tls-replication", AtRunTime, TLS;
        /// Runs the cluster bus over TLS.
        tls_cluster: bool = yes_no(false).never_yes(NO_TLS), "tls-cluster", AtRunTime, TLS;
        /// Versions of TLS that are spoken.
        tls_protocols: String = text(""), "tls-protocols", AtRunTime, TLS;
        /// Ciphers up to TLS 1.2.
        tls_ciphers: String = text(""), "tls-ciphers", AtRunTime, TLS;
        /// Ciphers of TLS 1.3.
        tls_ciphersuites: String = text(""), "tls-ciphersuites", AtRunTime, TLS;
        /// Lets the server's order of ciphers win.
        tls_prefer_server_ciphers: bool = yes_no(false), "tls-prefer-server-ciphers", AtRunTime, TLS;
        /// Lets clients resume sessions.
        tls_session_caching: bool = yes_no(true), "tls-session-caching", AtRunTime, TLS;
        /// How many sessions can be resumed; 0 is no limit.
        tls_session_cache_size: u32 = integer(20_480, 0, INT_MAX), "tls-session-cache-size", AtRunTime, TLS;
        /// Seconds for which a session can be resumed.
        tls_session_cache_timeout: u32 = integer(300, 0, INT_MAX), "tls-session-cache-timeout", AtRunTime, TLS;
    }

    "Debugging" {
        /// Milliseconds after which a stuck server logs where it is.
        watchdog_period: u32 = integer(0, 0, INT_MAX), "watchdog-period", AtRunTime, DEBUGGING, Hidden;
        /// Exits after a panic instead of aborting.
        use_exit_on_panic: bool = yes_no(false), "use-exit-on-panic", AtRunTime, DEBUGGING, Hidden;
        /// Checks expensive assertions.
        enable_debug_assert: bool = yes_no(false), "enable-debug-assert", AtStart, DEBUGGING, Hidden;
        /// Text that is put into a crash report.
        debug_context: String = text(""), "debug-context", AtRunTime, DEBUGGING, Hidden;
        /// Delay per key of loading.
        key_load_delay: i32 = integer(0, i32::MIN as i64, INT_MAX), "key-load-delay", AtRunTime, Effective, Hidden;
        /// Delay per key of saving.
        rdb_key_save_delay: i32 = integer(0, i32::MIN as i64, INT_MAX), "rdb-key-save-delay", AtRunTime, Effective,
            Hidden;
        /// Bytes of loading after which clients are served.
        loading_process_events_interval_bytes: u32 = integer(2 << 20, 1024, INT_MAX),
            "loading-process-events-interval-bytes", AtRunTime, DEBUGGING, Hidden;
        /// Uses all threads even under light load.
        io_threads_always_active: bool = yes_no(false), "io-threads-always-active", AtRunTime, DEBUGGING, Hidden;
        /// Threads from which replies are sent without copying.
        min_io_threads_avoid_copy_reply: u32 = integer(7, 0, INT_MAX), "min-io-threads-avoid-copy-reply", AtRunTime,
            DEBUGGING, Hidden;
        /// Length from which a string is sent without copying.
        min_string_size_avoid_copy_reply: u32 = integer(16_384, 0, INT_MAX), "min-string-size-avoid-copy-reply",
            AtRunTime, DEBUGGING, Hidden;
        /// Length from which a string is sent without copying by other threads.
        min_string_size_avoid_copy_reply_threaded: u32 = integer(65_536, 0, INT_MAX),
            "min-string-size-avoid-copy-reply-threaded", AtRunTime, DEBUGGING, Hidden;
    }
}

const SAVE_POINTS: &[SavePoint] = &[
    SavePoint {
        seconds: 3600,
        changes: 1,
    },
    SavePoint {
        seconds: 300,
        changes: 100,
    },
    SavePoint {
        seconds: 60,
        changes: 10_000,
    },
];

const OUTPUT_LIMITS: OutputLimits = OutputLimits {
    normal: OutputLimit {
        hard_bytes: 0,
        soft_bytes: 0,
        soft_seconds: 0,
    },
    replica: OutputLimit {
        hard_bytes: 256 * MB,
        soft_bytes: 64 * MB,
        soft_seconds: 60,
    },
    pubsub: OutputLimit {
        hard_bytes: 32 * MB,
        soft_bytes: 8 * MB,
        soft_seconds: 60,
    },
};

fn cores() -> i64 {
    thread::available_parallelism().map_or(1, |cores| {
        i64::try_from(NonZero::get(cores)).unwrap_or(i64::MAX)
    })
}
