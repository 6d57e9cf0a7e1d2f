//! What was observed of the original, as data: errors, normalised values, files before and after a rewrite.

use proptest::prelude::*;

use super::rewrite::updated;
use super::*;

/// The outcome of `CONFIG SET name value`: the value then shown, or the reason of the error.
fn set(config: &Config, name: &str, value: &str) -> Result<String, String> {
    match config.set(&[(name.as_bytes(), value.as_bytes())], Peer::Elsewhere) {
        Ok(_) => Ok(shown(config, name)),
        Err(SetError::Failed { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

fn shown(config: &Config, name: &str) -> String {
    String::from_utf8(config.get(&[name.as_bytes()]).remove(0).1).unwrap()
}

fn load(text: &str) -> Config {
    Config::from_text(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Line number and reason.
fn load_error(text: &str) -> (usize, String) {
    match Config::from_text(text.as_bytes()).err() {
        Some(LoadError::Line { number, reason, .. }) => (number, reason),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_name_of_the_original_is_known() {
    let config = load("");
    let all = config.get(&[b"*"]);
    let expected = include_str!("known_names.txt")
        .lines()
        .map(|line| line.split_once('=').unwrap());
    let mut count = 0;
    for (name, value) in expected {
        let own = all
            .iter()
            .find(|(own, _)| own == name)
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(String::from_utf8_lossy(&own.1), value, "{name}");
        count += 1;
    }
    // `dir` and `io-threads` depend on the machine.
    assert_eq!(count, 235);
    assert!(all.is_sorted());
}

#[test]
fn initial_values_fit_their_fields_and_their_own_rules() {
    for directive in DIRECTIVES {
        let settings = Settings::default();
        let mut again = Settings::default();
        read_lines(directive, &settings, &mut again)
            .unwrap_or_else(|error| panic!("{}: {error:?}", directive.name));
        assert!((directive.equal)(&settings, &again), "{}", directive.name);
    }
}

#[test]
fn names_are_unique() {
    assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(
        NAMES
            .iter()
            .all(|(name, _)| *name == name.to_ascii_lowercase())
    );
}

#[test]
fn values_are_normalised_as_the_original_shows_them() {
    let cases = [
        ("timeout", "2147483647", "2147483647"),
        ("maxmemory", "1KB", "1024"),
        ("maxmemory", "50%", "50%"),
        ("maxmemory-clients", "1KB", "1024"),
        ("maxmemory-clients", "0%", "0"),
        ("maxmemory-clients", "100%", "100%"),
        ("maxmemory-clients", "", "0"),
        ("slot-migration-max-failover-repl-bytes", "-1", "-1"),
        ("slot-migration-max-failover-repl-bytes", "1kb", "1024"),
        ("slot-migration-max-failover-repl-bytes", "", "0"),
        ("activerehashing", "YES", "yes"),
        ("activerehashing", "No", "no"),
        ("loglevel", "NOTICE", "notice"),
        ("shutdown-on-sigterm", "now nosave", "nosave now"),
        ("shutdown-on-sigterm", "force now save", "save now force"),
        ("shutdown-on-sigterm", "default now", "now"),
        ("shutdown-on-sigterm", "default", "default"),
        ("shutdown-on-sigterm", "safe force NOW", "now force safe"),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("notify-keyspace-events", "KE$", "$KE"),
        ("notify-keyspace-events", "g$lshzxeKE", "g$lshzxeKE"),
        ("notify-keyspace-events", "Kn", "nK"),
        ("notify-keyspace-events", "mKE", "KEm"),
        ("notify-keyspace-events", "dnKE", "dnKE"),
        ("notify-keyspace-events", "KEAmdn", "AKEm"),
        ("notify-keyspace-events", "$lshzxetdg", "A"),
        ("latency-tracking-info-percentiles", "", ""),
        ("latency-tracking-info-percentiles", "99.9 50", "99.9 50"),
        (
            "latency-tracking-info-percentiles",
            "50.0 99.9000001",
            "50 99.9",
        ),
        ("latency-tracking-info-percentiles", "0.0 1e1", "0 10"),
        (
            "latency-tracking-info-percentiles",
            "33.333333333",
            "33.333333",
        ),
        ("latency-tracking-info-percentiles", "1e-5", "0.00001"),
        ("save", "", ""),
        ("save", "900 1 300 10", "900 1 300 10"),
        ("save", "1 0", "1 0"),
        ("save", "+1 +1", "1 1"),
        ("save", "010 1", "10 1"),
        (
            "client-output-buffer-limit",
            "replica 1mb 2kb 3",
            "normal 0 0 0 slave 1048576 2048 3 pubsub 33554432 8388608 60",
        ),
        (
            "client-output-buffer-limit",
            "NORMAL 0 0 0",
            "normal 0 0 0 slave 1048576 2048 3 pubsub 33554432 8388608 60",
        ),
        (
            "client-output-buffer-limit",
            "",
            "normal 0 0 0 slave 1048576 2048 3 pubsub 33554432 8388608 60",
        ),
        ("oom-score-adj-values", "+1 2 -2000", "1 2 -2000"),
        ("oom-score-adj", "relative", "yes"),
        ("oom-score-adj", "absolute", "absolute"),
        ("hz", "0", "1"),
        ("hz", "501", "500"),
        ("bind", "127.0.0.1 -::1", "127.0.0.1 -::1"),
        ("bind", "", ""),
        (
            "proc-title-template",
            "{title} {port} {{",
            "{title} {port} {{",
        ),
        ("proc-title-template", "abc", "abc"),
        ("locale-collate", "POSIX", "POSIX"),
        ("tls-auth-clients-user", "cn", "CN"),
        ("appendfsync", "ALWAYS", "always"),
        ("requirepass", "\"x\"", "\"x\""),
        ("maxmemory-policy", "ALLKEYS-LRU", "allkeys-lru"),
        ("slave-priority", "5", "5"),
        (
            "cluster-blacklist-ttl",
            "-9223372036854775808",
            "-9223372036854775808",
        ),
        ("lua-time-limit", "7", "7"),
    ];
    let config = load("");
    for (name, value, expected) in cases {
        assert_eq!(
            set(&config, name, value).as_deref(),
            Ok(expected),
            "{name} {value}"
        );
    }
    assert_eq!(shown(&config, "busy-reply-threshold"), "7");
}

#[test]
fn wrong_values_are_refused_in_the_originals_words() {
    const INTEGER: &str = "argument couldn't be parsed into an integer";
    const SIZE: &str = "argument must be a memory value";
    const PERCENT: &str = "argument must be a memory or percent value";
    const SAVE: &str = "Invalid save parameters";
    const LIMITS: &str =
        "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
    const GROUPS: &str = "Wrong number of arguments in buffer limit configuration.";
    const CLASS: &str = "Invalid client class specified in buffer limit configuration.";
    const OOM: &str = "Invalid oom-score-adj-values, elements must be between -2000 and 2000.";
    const TITLE: &str = "template format is invalid or contains unknown variables";
    const SHUTDOWN: &str = "argument(s) must be one of the following: default, save, nosave, now, force, safe, failover";
    let cases = [
        ("timeout", " 5", INTEGER),
        ("timeout", "+5", INTEGER),
        ("timeout", "05", INTEGER),
        ("timeout", "-0", INTEGER),
        ("timeout", "", INTEGER),
        ("timeout", "99999999999999999999", INTEGER),
        (
            "timeout",
            "-1",
            "argument must be between 0 and 2147483647 inclusive",
        ),
        (
            "timeout",
            "2147483648",
            "argument must be between 0 and 2147483647 inclusive",
        ),
        (
            "port",
            "65536",
            "argument must be between 0 and 65535 inclusive",
        ),
        (
            "list-max-listpack-size",
            "-99999999999",
            "argument must be between -2147483648 and 2147483647 inclusive",
        ),
        (
            "slowlog-log-slower-than",
            "-2",
            "argument must be between -1 and 9223372036854775807 inclusive",
        ),
        (
            "maxclients",
            "0",
            "argument must be between 1 and 4294967295 inclusive",
        ),
        ("maxmemory", "1.5gb", SIZE),
        ("maxmemory", "18446744073709551616", SIZE),
        ("maxmemory", "-1", SIZE),
        ("hash-max-listpack-value", "-1", SIZE),
        (
            "hash-max-listpack-value",
            "9223372036854775808",
            "argument must be between 0 and 9223372036854775807 inclusive",
        ),
        (
            "proto-max-bulk-len",
            "",
            "argument must be between 1048576 and 9223372036854775807 inclusive",
        ),
        (
            "maxmemory-clients",
            "101%",
            "percentage argument must be less or equal to 100",
        ),
        (
            "maxmemory-clients",
            "9223372036854775808",
            "percentage argument must be less or equal to 100",
        ),
        ("maxmemory-clients", "-5%", PERCENT),
        ("maxmemory-clients", "%", PERCENT),
        ("maxmemory-clients", "05%", PERCENT),
        ("maxmemory-clients", "99999999999999999999%", PERCENT),
        (
            "slot-migration-max-failover-repl-bytes",
            "-2",
            "argument must be between -1 and 9223372036854775807 inclusive",
        ),
        ("slot-migration-max-failover-repl-bytes", "-1kb", SIZE),
        ("activerehashing", "true", "argument must be 'yes' or 'no'"),
        (
            "loglevel",
            "",
            "argument(s) must be one of the following: debug, verbose, notice, warning, nothing",
        ),
        ("shutdown-on-sigterm", "", SHUTDOWN),
        ("shutdown-on-sigterm", " now", SHUTDOWN),
        (
            "shutdown-on-sigterm",
            "save nosave",
            "shutdown options SAVE and NOSAVE can't be used simultaneously",
        ),
        (
            "notify-keyspace-events",
            "K E",
            "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
        ),
        (
            "latency-tracking-info-percentiles",
            "100.1",
            "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
        ),
        (
            "latency-tracking-info-percentiles",
            "inf",
            "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
        ),
        (
            "latency-tracking-info-percentiles",
            "nan",
            "Invalid latency-tracking-info-percentiles parameters",
        ),
        (
            "latency-tracking-info-percentiles",
            "50  60",
            "Invalid latency-tracking-info-percentiles parameters",
        ),
        ("save", "900", SAVE),
        ("save", "0 1", SAVE),
        ("save", "1 -1", SAVE),
        ("save", " 900 1", SAVE),
        ("save", "900 1  300 10", SAVE),
        ("save", "0x10 1", SAVE),
        ("client-output-buffer-limit", "normal 0 0", GROUPS),
        ("client-output-buffer-limit", " normal 0 0 0", GROUPS),
        ("client-output-buffer-limit", "master 0 0 0", CLASS),
        (
            "client-output-buffer-limit",
            "normal 0 0 5 foo 1 1 1",
            CLASS,
        ),
        ("client-output-buffer-limit", "normal -1 0 0", LIMITS),
        (
            "client-output-buffer-limit",
            "normal 0 0 9223372036854775807",
            LIMITS,
        ),
        ("client-output-buffer-limit", "normal 10% 0 0", LIMITS),
        ("oom-score-adj-values", "0 1", "wrong number of arguments"),
        ("oom-score-adj-values", "", "wrong number of arguments"),
        ("oom-score-adj-values", "a b c", OOM),
        ("oom-score-adj-values", "0 0 2001", OOM),
        ("proc-title-template", "", TITLE),
        ("proc-title-template", "{bad}", TITLE),
        ("proc-title-template", "{title", TITLE),
        ("locale-collate", "nosuch", "Invalid locale name"),
        (
            "cluster-announce-client-ipv4",
            "1.2.3",
            "Invalid IPv4 address",
        ),
        (
            "cluster-announce-client-ipv6",
            "1.2.3.4",
            "Invalid IPv6 address",
        ),
        (
            "cluster-announce-ip",
            "a b",
            "cluster-announce-ip contains invalid character",
        ),
        (
            "cluster-announce-hostname",
            "a_b",
            "Hostnames may only contain alphanumeric characters, hyphens or dots",
        ),
        (
            "cluster-announce-human-nodename",
            "host 1",
            "Announced human node name contained invalid character",
        ),
        ("rdma-port", "1", "No RDMA building support."),
        ("rdma-bind", "1.2.3.4", "No RDMA building support."),
        (
            "tls-port",
            "1",
            "Unable to update TLS configuration. Check server logs.",
        ),
        ("dbfilename", "x", "can't set protected config"),
        ("dir", "/", "can't set protected config"),
        ("databases", "1", "can't set immutable config"),
        ("replicaof", "no one", "can't set immutable config"),
        ("enable-debug-command", "yes", "can't set immutable config"),
        (
            "user",
            "x",
            "Unknown option or number of arguments for CONFIG SET - 'user'",
        ),
        (
            "io-threads-do-reads",
            "x",
            "Unknown option or number of arguments for CONFIG SET - 'io-threads-do-reads'",
        ),
    ];
    let config = load("");
    for (name, value, expected) in cases {
        assert_eq!(
            set(&config, name, value),
            Err(expected.to_owned()),
            "{name} {value:?}"
        );
    }
    let addresses = ["127.0.0.1"; 17].join(" ");
    assert_eq!(
        set(&config, "bind", &addresses),
        Err("Too many bind addresses specified.".to_owned())
    );
    let name = "a".repeat(256);
    assert_eq!(
        set(&config, "cluster-announce-hostname", &name),
        Err("Hostnames must be less than 256 characters".to_owned())
    );
}

#[test]
fn protected_directives_follow_their_permission() {
    for (permission, peer, allowed) in [
        ("no", Peer::ThisMachine, false),
        ("local", Peer::ThisMachine, true),
        ("local", Peer::Elsewhere, false),
        ("yes", Peer::Elsewhere, true),
    ] {
        let config = load(&format!("enable-protected-configs {permission}"));
        let outcome = config.set(&[(b"dbfilename", b"x.rdb")], peer);
        assert_eq!(outcome.is_ok(), allowed, "{permission} {peer:?}");
    }
    let config = load("enable-protected-configs yes");
    let cases = [
        (
            "dbfilename",
            "a/b",
            "dbfilename can't be a path, just a filename",
        ),
        ("dbfilename", "", "dbfilename can't be empty"),
        ("dir", "/nosuch", "No such file or directory"),
        ("dir", "", "dir can't be empty"),
        ("dir", "/etc/passwd", "Not a directory"),
    ];
    for (name, value, reason) in cases {
        assert_eq!(set(&config, name, value), Err(reason.to_owned()));
    }
    assert_eq!(set(&config, "dir", "/usr/.."), Ok("/".to_owned()));
    assert_eq!(set(&config, "dir", "usr"), Ok("/usr".to_owned()));
}

#[test]
fn config_set_is_all_or_nothing() {
    let config = load("");
    let error = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(&[u8], &[u8])> = pairs
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
            .collect();
        config
            .set(&pairs, Peer::Elsewhere)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let failed = |name: &str, reason: &str| {
        format!("CONFIG SET failed (possibly related to argument '{name}') - {reason}")
    };
    let unknown =
        |name: &str| format!("Unknown option or number of arguments for CONFIG SET - '{name}'");
    const INTEGER: &str = "argument couldn't be parsed into an integer";
    const IMMUTABLE: &str = "can't set immutable config";
    assert_eq!(
        error(&[("timeout", "7"), ("tcp-keepalive", "x")]),
        failed("tcp-keepalive", INTEGER)
    );
    assert_eq!(
        error(&[("timeout", "7"), ("nosuch", "2")]),
        unknown("nosuch")
    );
    assert_eq!(
        error(&[("timeout", "x"), ("nosuch", "1")]),
        unknown("nosuch")
    );
    assert_eq!(error(&[("timeout", "0"), ("", "x")]), unknown(""));
    assert_eq!(
        error(&[("databases", "1"), ("nosuch", "2")]),
        failed("databases", IMMUTABLE)
    );
    assert_eq!(
        error(&[("timeout", "x"), ("DATABASES", "1")]),
        failed("DATABASES", IMMUTABLE)
    );
    assert_eq!(
        error(&[("timeout", "x"), ("tcp-keepalive", "y")]),
        failed("timeout", INTEGER)
    );
    assert_eq!(error(&[("TimeOut", "x")]), failed("timeout", INTEGER));
    assert_eq!(
        error(&[("timeout", "1"), ("TIMEOUT", "2")]),
        failed("TIMEOUT", "duplicate parameter")
    );
    assert_eq!(
        error(&[("timeout", "1"), ("timeout", "x"), ("nosuch", "y")]),
        failed("timeout", "duplicate parameter")
    );
    assert_eq!(shown(&config, "timeout"), "0");
    assert_eq!(
        error(&[("slave-priority", "1"), ("replica-priority", "2")]),
        ""
    );
    assert_eq!(shown(&config, "slave-priority"), "2");
}

#[test]
fn changes_name_what_changed_and_can_be_taken_back() {
    let config = load("timeout 5");
    let mut snapshot = Snapshot::new(&config);
    let pairs: [(&[u8], &[u8]); 3] = [
        (b"timeout", b"5"),
        (b"slave-priority", b"7"),
        (b"maxclients", b"9"),
    ];
    let changes = config.set(&pairs, Peer::Elsewhere).unwrap();
    assert_eq!(
        changes.names().collect::<Vec<_>>(),
        ["maxclients", "replica-priority"]
    );
    assert!(changes.contains("maxclients") && !changes.contains("timeout"));
    assert_eq!(snapshot.latest().maxclients, 10_000);
    assert_eq!(snapshot.current(&config).maxclients, 9);
    config.change(|settings| settings.timeout = 8);
    config.rollback(&changes);
    let settings = snapshot.current(&config);
    assert_eq!(
        (
            settings.maxclients,
            settings.replica_priority,
            settings.timeout
        ),
        (10_000, 100, 8)
    );
}

#[test]
fn config_get_answers_names_as_spelled_and_patterns_once() {
    let config = load("");
    let names = |patterns: &[&str]| -> Vec<String> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        config
            .get(&patterns)
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    };
    assert_eq!(names(&["save", "port", "save"]), ["port", "save"]);
    assert_eq!(
        names(&["SLAVE-priority", "replica-priority"]),
        ["SLAVE-priority", "replica-priority"]
    );
    assert_eq!(
        names(&["TIMEOUT", "nosuch", "port", "TCP-keepalive"]),
        ["TCP-keepalive", "TIMEOUT", "port"]
    );
    assert_eq!(names(&["MAXMEMORY", "maxmemory"]), ["MAXMEMORY"]);
    assert_eq!(
        names(&["*policy", "MAXMEMORY*", "[t]imeout", "tim?out", "\\timeout"]),
        [
            "maxmemory",
            "maxmemory-advice",
            "maxmemory-clients",
            "maxmemory-eviction-tenacity",
            "maxmemory-policy",
            "maxmemory-samples",
            "timeout"
        ]
    );
    assert_eq!(
        names(&["KEY-load-delay", "key-load-delay"]),
        ["KEY-load-delay"]
    );
    assert!(names(&["key-load-delay*", ""]).is_empty());
}

#[test]
fn lines_of_a_file_add_up_or_win() {
    let cases = [
        ("save 900 1\nsave 300 10", "save", "900 1 300 10"),
        ("save 900 1\nsave \"\"", "save", ""),
        ("save 900 1\nsave \"\"\nsave 5 5", "save", "5 5"),
        ("save", "save", ""),
        ("save \"60 1 300 10\"", "save", "60 1 300 10"),
        ("timeout 1\nTIMEOUT 2", "timeout", "2"),
        ("unixsocketperm 0700", "unixsocketperm", "700"),
        ("unixsocketperm \"\"", "unixsocketperm", "0"),
        ("slaveof 127.0.0.1 6379", "replicaof", "127.0.0.1 6379"),
        ("replicaof 127.0.0.1 6379\nreplicaof no one", "slaveof", ""),
        ("replicaof \"127.0.0.1 6379\"", "slaveof", "127.0.0.1 6379"),
        (
            "shutdown-on-sigint nosave now",
            "shutdown-on-sigint",
            "nosave now",
        ),
        (
            "client-output-buffer-limit normal 1 1 1\nclient-output-buffer-limit pubsub 2 2 2",
            "client-output-buffer-limit",
            "normal 1 1 1 slave 268435456 67108864 60 pubsub 2 2 2",
        ),
        ("bind 127.0.0.1 -::1\nbind 127.0.0.1", "bind", "127.0.0.1"),
        ("dir /\ndir usr", "dir", "/usr"),
        (
            "#\n\ntimeout 1\r\n\r\n  # c\n\tmaxmemory 5   \r\n\t\n",
            "maxmemory",
            "5",
        ),
        (
            "dynamic-hz yes\nio-threads-do-reads yes\nlist-max-ziplist-entries 5",
            "hz",
            "10",
        ),
        ("aof_rewrite_cpulist 1-2", "aof-rewrite-cpulist", "1-2"),
    ];
    for (text, name, expected) in cases {
        assert_eq!(shown(&load(text), name), expected, "{text}");
    }
}

#[test]
fn wrong_lines_stop_the_start_in_the_originals_words() {
    const UNKNOWN: &str = "Bad directive or wrong number of arguments";
    const NUMBER: &str = "wrong number of arguments";
    const INTEGER: &str = "argument couldn't be parsed into an integer";
    const OCTAL: &str = "argument couldn't be parsed as an octal number";
    const MODE: &str = "argument must be between 0 and 777 inclusive";
    let cases = [
        ("bogus-directive x", 1, UNKNOWN),
        ("#c\n\n   \n  port   abc  \n", 4, INTEGER),
        ("port", 1, NUMBER),
        ("port 1 # comment", 1, NUMBER),
        ("port \"12", 1, "Unbalanced quotes in configuration line"),
        ("include", 1, UNKNOWN),
        ("include a b", 1, UNKNOWN),
        ("user", 1, UNKNOWN),
        ("rename-command A", 1, UNKNOWN),
        ("loadmodule", 1, UNKNOWN),
        ("dynamic-hz", 1, UNKNOWN),
        ("sanitize-dump-payload x y", 1, UNKNOWN),
        (
            "sentinel monitor x",
            1,
            "sentinel directive while not in sentinel mode",
        ),
        ("save 900", 1, "Invalid save parameters"),
        (
            "bind a a a a a a a a a a a a a a a a a",
            1,
            "Too many bind addresses specified.",
        ),
        ("notify-keyspace-events K E", 1, NUMBER),
        ("replicaof 127.0.0.1 65536", 1, "Invalid primary port"),
        ("replicaof a", 1, NUMBER),
        ("dir /nosuch", 1, "No such file or directory"),
        ("unixsocketperm 778", 1, OCTAL),
        ("unixsocketperm 777a", 1, OCTAL),
        ("unixsocketperm 1000", 1, MODE),
        ("unixsocketperm -1", 1, MODE),
        (
            "io-threads 300",
            1,
            "argument must be between 1 and 256 inclusive",
        ),
        (
            "appendfilename a/b",
            1,
            "appendfilename can't be a path, just a filename",
        ),
        (
            "appenddirname a/b",
            1,
            "appenddirname can't be a path, just a dirname",
        ),
        (
            "cluster-config-file \"\"",
            1,
            "cluster-config-file can't be empty",
        ),
        (
            "supervised x",
            1,
            "argument(s) must be one of the following: upstart, systemd, auto, no",
        ),
    ];
    for (text, number, reason) in cases {
        assert_eq!(load_error(text), (number, reason.to_owned()), "{text}");
    }
    let error = Config::from_text(b"\n  port   abc ")
        .err()
        .unwrap()
        .to_string();
    let expected = "\n*** FATAL CONFIG FILE ERROR (Version 9.1.2) ***\n\
                    Reading the configuration file, at line 2\n>>> 'port   abc'\n\
                    argument couldn't be parsed into an integer\n";
    assert_eq!(error, expected);
    let error = Config::from_text(b"cluster-enabled yes\nreplicaof a 1")
        .err()
        .unwrap()
        .to_string();
    let expected = "\n*** FATAL CONFIG FILE ERROR (Version 9.1.2) ***\nreplicaof directive not allowed in cluster mode\n";
    assert_eq!(error, expected);
}

#[test]
fn what_is_set_without_effect_is_known() {
    let config = load("cluster-node-timeout 5\ntimeout 5\nhz 10");
    let names: Vec<&str> = config.without_effect().map(|(name, _)| name).collect();
    assert_eq!(names, ["cluster-node-timeout"]);
}

#[test]
fn users_and_renamed_commands_are_handed_on() {
    let config = load("user alice on\nrename-command DEBUG \"\"\nuser bob off >x\n");
    let users: Vec<_> = config
        .users()
        .iter()
        .map(|line| (line.number, line.words.len()))
        .collect();
    assert_eq!(users, [(1, 3), (3, 4)]);
    assert_eq!(
        config.renamed_commands()[0].words,
        [&b"rename-command"[..], b"DEBUG", b""]
    );
    let error = LoadError::at(
        &config.renamed_commands()[0],
        "No such command in rename-command",
    )
    .to_string();
    assert!(error.ends_with(
        "at line 2\n>>> 'rename-command DEBUG \"\"'\nNo such command in rename-command\n"
    ));
}

#[test]
fn files_are_included_where_they_are_named() {
    let directory = TempDir::new();
    let write = |name: &str, text: &str| std::fs::write(directory.path.join(name), text).unwrap();
    write("i1.conf", "timeout 5\nmaxmemory 7\n");
    write("i2.conf", "\n\ntimeout x\n");
    write("self.conf", "include self.conf\n");
    let dir = directory.path.display();
    assert_eq!(
        shown(
            &load(&format!("dir {dir}\ninclude i1.conf\nmaxmemory 8")),
            "maxmemory"
        ),
        "8"
    );
    assert_eq!(
        shown(
            &load(&format!("maxmemory 8\ninclude {dir}/i1.c*")),
            "maxmemory"
        ),
        "7"
    );
    assert_eq!(
        shown(
            &load(&format!("timeout 3\ninclude {dir}/nosuch*")),
            "timeout"
        ),
        "3"
    );
    assert_eq!(
        load_error(&format!("timeout 1\ninclude {dir}/i2.conf")).0,
        3
    );
    assert_eq!(load_error(&format!("include {dir}/i[12].conf")).0, 5);
    assert_eq!(
        load_error(&format!("dir {dir}\ninclude self.conf")).1,
        "Files are included too deeply"
    );
    let error = Config::from_text(b"include /nosuch.conf")
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        "Fatal error, can't open config file '/nosuch.conf': No such file or directory\n"
    );
}

#[test]
fn a_rewrite_keeps_comments_and_order() {
    let old = "# hello\n\nport 1\nTIMEOUT 5\n  save 900 1\nsave 300 10\n# timeout 7\nmaxmemory 100mb\n\
               slave-priority 50\nuser alice on\ninclude i1.conf\nlua-time-limit 7\nrename-command A \"\"\n\
               notify-keyspace-events \"\"\nunixsocketperm 0700";
    let config = load(&old.replace("include i1.conf\n", ""));
    for (name, value) in [
        ("timeout", "9"),
        ("maxmemory", "5000"),
        ("tcp-keepalive", "20"),
        ("save", ""),
        ("requirepass", "x\"y\n"),
    ] {
        set(&config, name, value).unwrap();
    }
    config.change(|settings| settings.dir = "/tmp/a b".into());
    let new = String::from_utf8(updated(old.as_bytes(), &config.settings(), None)).unwrap();
    let expected = "# hello\n\nport 1\ntimeout 9\nsave \"\"\n# timeout 7\nmaxmemory 5000\n\
                    replica-priority 50\nuser alice on\ninclude i1.conf\nbusy-reply-threshold 7\nrename-command A \"\"\n\
                    notify-keyspace-events \"\"\nunixsocketperm 700\n\
                    # Generated by CONFIG REWRITE\ntcp-keepalive 20\ndir \"/tmp/a b\"\nrequirepass \"x\\\"y\\n\"\n";
    assert_eq!(new, expected);
    // Doing it again changes nothing; users can be replaced.
    assert_eq!(
        updated(new.as_bytes(), &config.settings(), None),
        new.as_bytes()
    );
    let users = [b"bob off".to_vec(), b"carol on".to_vec()];
    let new = String::from_utf8(updated(new.as_bytes(), &config.settings(), Some(&users))).unwrap();
    assert!(
        new.contains("\nuser bob off\n")
            && new.ends_with("\nuser carol on\n")
            && !new.contains("alice")
    );
}

#[test]
fn a_rewrite_replaces_the_file_whole() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = TempDir::new();
    let path = directory.path.join("a.conf");
    std::fs::write(&path, "timeout 5\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let link = directory.path.join("link.conf");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let mut config = load("timeout 5");
    assert_eq!(
        config.rewrite(None).unwrap_err().to_string(),
        "The server is running without a config file"
    );
    config.file = Some(link.clone());
    set(&config, "timeout", "6").unwrap();
    config.rewrite(None).unwrap();
    assert!(
        std::fs::read_to_string(&path)
            .unwrap()
            .starts_with("timeout 6\n# Generated by CONFIG REWRITE\ndir \"")
    );
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_dir(&directory.path).unwrap().count(), 2);
}

/// Reads the lines that a rewrite would write for the directive.
fn read_lines(
    directive: &Directive,
    from: &Settings,
    into: &mut Settings,
) -> Result<(), Rejection> {
    for (index, line) in (directive.lines)(from).iter().enumerate() {
        let words = words::split(line).expect("written lines can be read");
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let source = if index == 0 {
            Source::FirstLine
        } else {
            Source::LaterLine
        };
        (directive.update)(into, &words, source)?;
    }
    Ok(())
}

/// Texts of which many are values of some directive.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let number = any::<i64>().prop_map(|number| number.to_string());
    let small = (0..2000i64).prop_map(|number| number.to_string());
    let size =
        (0..100_000u64, "[kKmMgG]?[bB]?").prop_map(|(number, unit)| format!("{number}{unit}"));
    let names = prop::sample::select(
        DIRECTIVES
            .iter()
            .flat_map(|directive| {
                (directive.describe)()
                    .split(", ")
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<_>>(),
    );
    let text = prop_oneof![
        number,
        small,
        size,
        names,
        "[KEg$lshzxetdnmA]{0,8}",
        (0u8..110).prop_map(|percent| format!("{percent}%")),
        "(yes|no|YES|No)",
        "[1-9][0-9]{0,4} [0-9]{1,3}( [1-9][0-9]{0,4} [0-9]{1,3}){0,2}",
        "(normal|replica|pubsub) [0-9]{1,5}k?b? [0-9]{1,4} [0-9]{1,3}",
        "-?[0-9]{1,3} -?[0-9]{1,4} -?[0-9]{1,4}",
        "[0-9]{1,2}\\.[0-9]{1,8}( [0-9]{1,2}){0,2}",
        "[a-z0-9.:*-]{1,12}( [a-z0-9.:*-]{1,12}){0,2}",
        "(save|nosave|now|force|safe|failover)( (now|force|safe))?",
        "[0-7]{1,3}",
        ".{0,12}",
        "/|/tmp|\\.|usr",
    ];
    prop_oneof![8 => text.prop_map(String::into_bytes), 1 => any::<Vec<u8>>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_directive_accepts_reads_back_as_written(
        index in 0..DIRECTIVES.len(),
        value in value(),
    ) {
        let directive = &DIRECTIVES[index];
        let mut settings = Settings::default();
        if (directive.update)(&mut settings, &[&value], Source::RunTime).is_ok() {
            let mut again = Settings::default();
            prop_assert_eq!(read_lines(directive, &settings, &mut again), Ok(()), "{}", directive.name);
            prop_assert!((directive.equal)(&settings, &again), "{}", directive.name);
        }
    }
}

proptest! {
    #[test]
    fn any_text_loads_or_is_refused(text: Vec<u8>) {
        let _ = Config::from_text(&text);
    }

    #[test]
    fn a_rewritten_file_gives_the_same_settings(values in prop::collection::vec(value(), DIRECTIVES.len())) {
        let mut settings = Settings::default();
        for (directive, value) in DIRECTIVES.iter().zip(&values) {
            let _ = (directive.update)(&mut settings, &[value], Source::RunTime);
        }
        settings.cluster_enabled = false;
        let text = updated(b"", &settings, None);
        let loaded = Config::from_text(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        for directive in DIRECTIVES {
            prop_assert!((directive.equal)(&settings, &loaded.settings()), "{}", directive.name);
        }
    }
}

struct TempDir {
    path: PathBuf,
}

impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("ferrite-config-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir {
            path: path.canonicalize().unwrap(),
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
