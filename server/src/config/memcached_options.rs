//! `ferrite memcached -p 11211 -m 64 ...`: memcached's own options, turned into configuration text.
//!
//! In this form the server listens for memcached clients only, keeps nothing on disk, and has memcached's defaults:
//! 64 MB, 1024 connections, evicting what was used least recently. Options that size or tune memcached's insides are
//! accepted and change nothing; those that would promise something that is not there are refused.

use super::command_line::Answer;
use super::words;

/// The release whose options and behaviour these are.
const MEMCACHED_VERSION: &str = "1.6.45";

/// Exit code for a usage error, as `sysexits.h` has it.
const EX_USAGE: u8 = 64;
const MB: u64 = 1 << 20;

const HELP: &str = "\
Usage: ferrite memcached [options]

-p, --port=<num>            TCP port (default: 11211; 0 does not listen)
-s, --unix-socket=<file>    Unix socket, instead of TCP
-a, --unix-mask=<mask>      permissions of the Unix socket, octal (default: 700)
-l, --listen=<addr>[,...]   addresses to listen on (default: all, and without -l
                            only this machine is served)
-m, --memory-limit=<num>    megabytes for items (default: 64; 0 is no limit)
-M, --disable-evictions     answer an error instead of evicting
-c, --conn-limit=<num>      connections at once (default: 1024)
-t, --threads=<num>         threads that serve (default: 4)
-I, --max-item-size=<num>   largest item, k and m being units (default: 1m)
-b, --listen-backlog=<num>  connections the system holds (default: 1024)
-A, --enable-shutdown       let clients stop the server
-C, --disable-cas           no CAS values
-F, --disable-flush-all     refuse flush_all
-X, --disable-dumping       refuse commands that list keys
-W, --disable-watch         refuse watch
-Y, --auth-file=<file>      lines of user:password
-d, --daemon                go to the background
-P, --pidfile=<file>        write the process's number there
-v, --verbose               log more; -vv and -vvv even more
-o, --extended=<list>       idle_timeout=<seconds>; others change nothing
-h, --help                  this text
-V, --version               the version

Accepted without effect: -B ascii -D -f -k -L -n -N -r -R -u -U 0
";

/// One option of memcached.
struct Opt {
    short: u8,
    long: &'static str,
    value: Value,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    None,
    Needed,
}

const fn flag(short: u8, long: &'static str) -> Opt {
    Opt {
        short,
        long,
        value: Value::None,
    }
}

const fn with_value(short: u8, long: &'static str) -> Opt {
    Opt {
        short,
        long,
        value: Value::Needed,
    }
}

const OPTIONS: &[Opt] = &[
    with_value(b'p', "port"),
    with_value(b'U', "udp-port"),
    with_value(b's', "unix-socket"),
    with_value(b'a', "unix-mask"),
    flag(b'A', "enable-shutdown"),
    with_value(b'l', "listen"),
    flag(b'd', "daemon"),
    flag(b'r', "enable-coredumps"),
    with_value(b'u', "user"),
    with_value(b'm', "memory-limit"),
    flag(b'M', "disable-evictions"),
    with_value(b'c', "conn-limit"),
    flag(b'k', "lock-memory"),
    flag(b'v', "verbose"),
    flag(b'h', "help"),
    flag(b'i', "license"),
    flag(b'V', "version"),
    with_value(b'P', "pidfile"),
    with_value(b'f', "slab-growth-factor"),
    with_value(b'n', "slab-min-size"),
    flag(b'L', "enable-largepages"),
    with_value(b'D', ""),
    with_value(b't', "threads"),
    with_value(b'R', "max-reqs-per-event"),
    flag(b'C', "disable-cas"),
    with_value(b'b', "listen-backlog"),
    with_value(b'B', "protocol"),
    with_value(b'I', "max-item-size"),
    flag(b'S', "enable-sasl"),
    flag(b'F', "disable-flush-all"),
    flag(b'X', "disable-dumping"),
    flag(b'W', "disable-watch"),
    with_value(b'Y', "auth-file"),
    with_value(b'e', "memory-file"),
    flag(b'Z', "enable-ssl"),
    with_value(b'o', "extended"),
    with_value(b'N', "napi_ids"),
];

/// Extended options that tune memcached's insides. A `no_` before them is fine.
const TUNING: &[&str] = &[
    "maxconns_fast",
    "hashpower",
    "tail_repair_time",
    "hash_algorithm",
    "lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "read_buf_mem_limit",
    "lru_maintainer",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temporary_ttl",
    "slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_automove_freeratio",
    "slab_reassign",
    "slab_chunk_max",
    "slab_sizes",
    "watcher_logbuf_size",
    "worker_logbuf_size",
    "track_sizes",
    "hashexpand",
    "inline_ascii_resp",
    "chunked_items",
    "drop_privileges",
    "relaxed_privileges",
    "resp_obj_mem_limit",
    "modern",
    "sock_cookie_id",
];

/// Turns the options into configuration text, or says what to print instead.
pub(super) fn parse(arguments: &[Vec<u8>]) -> Result<Vec<u8>, Answer> {
    let mut settings = Settings::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_slice() {
            b"--" => break,
            [b'-', b'-', long @ ..] => {
                let (option, value) = long_option(long)?;
                let value = match (option.value, value) {
                    (Value::None, _) => &[][..],
                    (Value::Needed, Some(value)) => value,
                    (Value::Needed, None) => rest.next().ok_or_else(|| lacks_value(option))?,
                };
                settings.apply(option.short, value)?;
            }
            [b'-', cluster @ ..] => {
                let mut cluster = cluster;
                while let Some((short, after)) = cluster.split_first() {
                    let option = short_option(*short)?;
                    cluster = after;
                    let value = match option.value {
                        Value::None => &[][..],
                        Value::Needed if !after.is_empty() => std::mem::take(&mut cluster),
                        Value::Needed => rest.next().ok_or_else(|| lacks_value(option))?,
                    };
                    settings.apply(option.short, value)?;
                }
            }
            // Arguments that are no options are passed over, as getopt does.
            _ => {}
        }
    }
    Ok(settings.into_text())
}

/// What the options said so far.
struct Settings {
    port: u16,
    socket: Option<Vec<u8>>,
    socket_mode: Vec<u8>,
    listen: Vec<Vec<u8>>,
    megabytes: u64,
    evicts: bool,
    verbosity: u32,
    /// Lines whose order does not matter.
    lines: Vec<u8>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 11211,
            socket: None,
            socket_mode: b"700".to_vec(),
            listen: Vec::new(),
            megabytes: 64,
            evicts: true,
            verbosity: 0,
            lines: b"port 0\nsave \"\"\nappendonly no\nmaxclients 1024\nio-threads 4\ntcp-backlog 1024\n".to_vec(),
        }
    }
}

impl Settings {
    fn apply(&mut self, option: u8, value: &[u8]) -> Result<(), Answer> {
        match option {
            b'h' => return Err(Answer::success(HELP.to_owned())),
            b'V' | b'i' => return Err(Answer::success(version())),
            b'p' => {
                let port = leading_number(value);
                self.port = u16::try_from(port)
                    .map_err(|_| usage(format!("ERROR: Invalid port number {port}.\n")))?;
            }
            b's' => self.socket = Some(value.to_vec()),
            b'a' => self.socket_mode = value.to_vec(),
            b'l' => self.listen_on(value)?,
            b'm' => self.megabytes = leading_number(value),
            b'M' => self.evicts = false,
            b'v' => self.verbosity += 1,
            b'c' => match leading_number(value) {
                0 => return Err(failure("Maximum connections must be greater than 0\n")),
                connections => self.line("maxclients", connections.to_string()),
            },
            b't' => match leading_number(value) {
                0 => return Err(failure("Number of threads must be greater than 0\n")),
                threads => self.line("io-threads", threads.to_string()),
            },
            b'I' => self.line("memcached-item-size-max", item_size(value)?.to_string()),
            b'b' => self.line("tcp-backlog", leading_number(value).to_string()),
            b'A' => self.line("memcached-allow-shutdown", "yes"),
            b'C' => self.line("memcached-no-cas", "yes"),
            b'F' => self.line("memcached-disable-flush-all", "yes"),
            b'X' => self.line("memcached-disable-dumping", "yes"),
            b'W' => self.line("memcached-disable-watch", "yes"),
            b'Y' => self.line("memcached-auth-file", value),
            b'P' => self.line("pidfile", value),
            b'd' => self.line("daemonize", "yes"),
            b'o' => self.extended(value)?,
            b'U' if leading_number(value) != 0 => return Err(usage("UDP is not served.\n")),
            b'B' if value == b"binary" => {
                return Err(usage("The binary protocol is not served.\n"));
            }
            b'B' if value != b"ascii" && value != b"auto" => {
                let value = String::from_utf8_lossy(value);
                return Err(usage(format!(
                    "Invalid value for binding protocol: {value}\n -- should be one of auto, binary, or ascii\n"
                )));
            }
            b'S' => {
                return Err(usage(
                    "SASL needs the binary protocol, which is not served; use -Y.\n",
                ));
            }
            b'Z' => return Err(usage("This server is not built with TLS\n")),
            b'e' => return Err(usage("Restartable caches are not supported.\n")),
            _ => {}
        }
        Ok(())
    }

    /// Takes addresses apart: `host`, `host:port`, `[v6]:port`, any number with commas between.
    fn listen_on(&mut self, value: &[u8]) -> Result<(), Answer> {
        for entry in value
            .split(|byte| *byte == b',')
            .filter(|entry| !entry.is_empty())
        {
            let colons = entry.iter().filter(|byte| **byte == b':').count();
            let (host, port) = match entry {
                [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
                    Some(end) => (&rest[..end], rest[end + 1..].strip_prefix(b":")),
                    None => (entry, None),
                },
                _ if colons == 1 => {
                    let colon = entry
                        .iter()
                        .position(|byte| *byte == b':')
                        .unwrap_or(entry.len());
                    (&entry[..colon], Some(&entry[colon + 1..]))
                }
                _ => (entry, None),
            };
            if let Some(port) = port {
                self.apply(b'p', port)?;
            }
            self.listen.push(host.to_vec());
        }
        Ok(())
    }

    fn extended(&mut self, value: &[u8]) -> Result<(), Answer> {
        for entry in value
            .split(|byte| *byte == b',')
            .filter(|entry| !entry.is_empty())
        {
            let mut parts = entry.splitn(2, |byte| *byte == b'=');
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            let argument = parts.next().unwrap_or_default();
            let tuning = TUNING.contains(&name.strip_prefix("no_").unwrap_or(&name));
            match name.as_str() {
                "idle_timeout" => self.line("timeout", leading_number(argument).to_string()),
                _ if tuning => {}
                _ if name.starts_with("ext_") => {
                    return Err(usage("External storage is not supported.\n"));
                }
                _ if name.starts_with("proxy_") => {
                    return Err(usage("The proxy is not supported.\n"));
                }
                _ if name.starts_with("ssl_") => {
                    return Err(usage("This server is not built with TLS\n"));
                }
                _ => return Err(failure(format!("Illegal suboption \"{name}\"\n"))),
            }
        }
        Ok(())
    }

    fn line(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.lines.extend(name.as_bytes());
        self.lines.push(b' ');
        words::quote(value.as_ref(), &mut self.lines);
        self.lines.push(b'\n');
    }

    fn into_text(mut self) -> Vec<u8> {
        match self.socket.take() {
            Some(socket) => {
                self.line("memcached-port", "0");
                self.line("memcached-unixsocket", socket);
                let mode = std::mem::take(&mut self.socket_mode);
                self.line("memcached-unixsocketperm", mode);
            }
            None => self.line("memcached-port", self.port.to_string()),
        }
        if !self.listen.is_empty() {
            let addresses = self.listen.join(&b' ');
            self.line("memcached-bind", addresses);
            // Who names an address means it to be reached there.
            self.line("protected-mode", "no");
        }
        self.line("maxmemory", format!("{}mb", self.megabytes));
        self.line(
            "maxmemory-policy",
            if self.evicts {
                "allkeys-lru"
            } else {
                "noeviction"
            },
        );
        match self.verbosity {
            0 => {}
            1 => self.line("loglevel", "verbose"),
            _ => self.line("loglevel", "debug"),
        }
        self.lines
    }
}

/// A name, or the beginning of one that fits no other, with what follows `=`.
fn long_option(text: &[u8]) -> Result<(&'static Opt, Option<&[u8]>), Answer> {
    let mut parts = text.splitn(2, |byte| *byte == b'=');
    let name = parts.next().unwrap_or_default();
    let exact = OPTIONS.iter().find(|option| option.long.as_bytes() == name);
    let mut starting = OPTIONS
        .iter()
        .filter(|option| option.long.as_bytes().starts_with(name));
    let only = starting.next().filter(|_| starting.next().is_none());
    match exact.or(only).filter(|_| !name.is_empty()) {
        Some(option) => Ok((option, parts.next())),
        None => {
            let name = String::from_utf8_lossy(name);
            Err(failure(format!(
                "memcached: unrecognized option '--{name}'\nIllegal argument \"?\"\n"
            )))
        }
    }
}

fn short_option(short: u8) -> Result<&'static Opt, Answer> {
    OPTIONS
        .iter()
        .find(|option| option.short == short)
        .ok_or_else(|| {
            let short = char::from(short).escape_default();
            failure(format!(
                "memcached: invalid option -- '{short}'\nIllegal argument \"?\"\n"
            ))
        })
}

fn lacks_value(option: &Opt) -> Answer {
    let short = char::from(option.short);
    failure(format!(
        "memcached: option requires an argument -- '{short}'\nIllegal argument \"?\"\n"
    ))
}

/// Bytes, with `k` or `m` as a unit.
fn item_size(value: &[u8]) -> Result<u64, Answer> {
    let unit = match value.last() {
        Some(b'k' | b'K') => 1 << 10,
        Some(b'm' | b'M') => MB,
        _ => 1,
    };
    match leading_number(value).saturating_mul(unit) {
        ..1024 => Err(usage("Item max size cannot be less than 1024 bytes.\n")),
        size if size > 1024 * MB => Err(usage("Cannot set item size limit higher than 1024m.\n")),
        size => Ok(size),
    }
}

/// The number the text starts with, 0 if there is none, as C's `atoi` has it.
fn leading_number(text: &[u8]) -> u64 {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number: u64, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    })
}

fn failure(text: impl Into<String>) -> Answer {
    Answer::failure(text.into(), 1)
}

fn usage(text: impl Into<String>) -> Answer {
    Answer::failure(text.into(), EX_USAGE)
}

fn version() -> String {
    format!(
        "memcached {MEMCACHED_VERSION} ferrite={}\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EvictionPolicy, LogLevel, MemoryLimit};

    fn arguments(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace()
            .map(|word| word.as_bytes().to_vec())
            .collect()
    }

    fn settings(line: &str) -> std::sync::Arc<crate::config::Settings> {
        Config::from_text(&parse(&arguments(line)).unwrap())
            .unwrap()
            .settings()
    }

    #[test]
    fn without_options_the_defaults_are_memcacheds() {
        let settings = settings("");
        assert_eq!((settings.port, settings.memcached_port), (0, 11211));
        assert_eq!(settings.maxmemory, MemoryLimit::Bytes(64 << 20));
        assert_eq!(settings.maxmemory_policy, EvictionPolicy::AllkeysLru);
        assert_eq!((settings.maxclients, settings.io_threads), (1024, 4));
        assert!(settings.save.is_empty() && settings.protected_mode);
    }

    #[test]
    fn options_may_be_clustered_joined_and_long() {
        let settings = settings(
            "-vvMp 11311 -m128 --threads=2 --conn-limit 77 -l 127.0.0.1,::1 -I 2m -AFC -U 0",
        );
        assert_eq!(settings.memcached_port, 11311);
        assert_eq!(settings.maxmemory, MemoryLimit::Bytes(128 << 20));
        assert_eq!(settings.maxmemory_policy, EvictionPolicy::NoEviction);
        assert_eq!((settings.io_threads, settings.maxclients), (2, 77));
        assert_eq!(settings.memcached_bind, ["127.0.0.1", "::1"]);
        assert_eq!(settings.memcached_item_size_max, 2 << 20);
        assert!(settings.memcached_allow_shutdown && settings.memcached_disable_flush_all);
        assert!(settings.memcached_no_cas && !settings.protected_mode);
        assert_eq!(settings.loglevel, LogLevel::Debug);
    }

    #[test]
    fn a_unix_socket_replaces_the_port() {
        let settings =
            settings("-s /tmp/m.sock -a 770 -o idle_timeout=30,no_lru_crawler,hashpower=20");
        assert_eq!(settings.memcached_port, 0);
        assert_eq!(
            settings.memcached_unixsocket,
            std::path::Path::new("/tmp/m.sock")
        );
        assert_eq!(
            (settings.memcached_unixsocketperm, settings.timeout),
            (0o770, 30)
        );
    }

    #[test]
    fn an_address_may_bring_its_port() {
        assert_eq!(settings("-l 127.0.0.1:4000").memcached_port, 4000);
        assert_eq!(settings("-l [::1]:4000").memcached_bind, ["::1"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_memcached_says_it() {
        let cases = [
            (
                "-p",
                "memcached: option requires an argument -- 'p'\nIllegal argument \"?\"\n",
                1,
            ),
            (
                "--nosuch",
                "memcached: unrecognized option '--nosuch'\nIllegal argument \"?\"\n",
                1,
            ),
            ("-t abc", "Number of threads must be greater than 0\n", 1),
            ("-c 0", "Maximum connections must be greater than 0\n", 1),
            (
                "-I 1",
                "Item max size cannot be less than 1024 bytes.\n",
                64,
            ),
            ("-p 70000", "ERROR: Invalid port number 70000.\n", 64),
            ("-o nosuch", "Illegal suboption \"nosuch\"\n", 1),
            ("-U 5", "UDP is not served.\n", 64),
        ];
        for (line, text, exit_code) in cases {
            let answer = parse(&arguments(line)).unwrap_err();
            assert_eq!(
                (answer.text.as_str(), answer.exit_code),
                (text, exit_code),
                "{line}"
            );
        }
        assert!(
            parse(&arguments("-V"))
                .unwrap_err()
                .text
                .starts_with("memcached 1.6.45")
        );
    }
}
