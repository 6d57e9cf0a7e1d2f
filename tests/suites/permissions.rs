//! Permissions of every command and subcommand, generated from the command table: the same invocations under the same
//! rules must be allowed and denied as the real Valkey does, asked of ACL DRYRUN and by running them.

use std::fmt::Write;

use redis::Value;
use tests::server::{Options, Server, missing};
use tests::wire::{Wire, encode, show, show_command, split_line};

/// Requests sent before their replies are read.
const BATCH: usize = 200;
/// Differences that a failure shows at most.
const MAX_SHOWN: usize = 20;

/// Rules that every invocation is tried under. Keys of invocations are `k1`, `k2` ..., their channels `ch1`, `ch2`.
const RULES: [&str; 34] = [
    "+@all ~* &*",
    "+@all ~*",
    "+@all &*",
    "-@all ~* &*",
    "+@all &* ~k*",
    "+@all &* ~k1",
    "+@all &* ~k2",
    "+@all &* ~other*",
    "+@all &* %R~*",
    "+@all &* %W~*",
    "+@all &* %RW~*",
    "+@all &* %R~k1 %W~k2",
    "+@all &* %W~k1 %R~k2",
    "+@all &* %R~k* %W~other",
    "+@all &* %R~k1",
    "+@all &* %W~k1",
    "+@all ~* &ch1",
    "+@all ~* &ch*",
    "+@all ~* &other*",
    "+@all ~* &ch1 &ch2",
    "+@all ~* &* db=0",
    "+@all ~* &* db=1",
    "+@all ~* &* db=0,1",
    "+@all ~* &* db=2",
    "+@all ~* &* resetdbs",
    "+@all ~* &* resetdbs alldbs",
    "-@all (+@all ~k1 &*) (+@all ~k2 &ch1)",
    "-@all (+@all %R~* &*) (+@all %W~* &*)",
    "-@all (+@read ~*) (+@write ~k1) (+@connection)",
    "-@all +@read ~k1 (+@write ~k2 &ch2) (+@pubsub &ch1)",
    "-@all ~* (+@all ~* &* db=1) (+@read ~* db=0)",
    "+@all ~* &* -@write -@admin +set +config|get +select|0",
    "-@all ~* &* +@read -@slow +acl|whoami +client -client|kill",
    "nocommands allkeys allchannels +@dangerous -@admin -@keyspace",
];

const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Invocations beyond those that key specifications imply: options that move keys or change what is done with them.
const INVOCATIONS: [&str; 98] = [
    "SET k1 v GET",
    "SET k1 v NX",
    "SET k1 v IFEQ x",
    "GETEX k1 EX 100",
    "BITFIELD k1 GET u8 0",
    "BITFIELD k1 SET u8 0 1",
    "BITFIELD k1 GET u8 0 INCRBY u8 0 1",
    "BITFIELD k1 nonsense",
    "BITFIELD k1 OVERFLOW SAT GET u8 0",
    "BITFIELD k1 GET SET INCRBY",
    "BITFIELD k1 GET u8 0 GET u8",
    "BITOP AND k1 k2 k3",
    "MSET k1 v k2 v",
    "MSETNX k1 v k2 v",
    "MSETEX 2 k1 v k2 v EX 10",
    "MGET k1 k2",
    "DEL k1 k2",
    "DELIFEQ k1 v",
    "RENAME k1 k2",
    "COPY k1 k2",
    "COPY k1 k2 DB 1",
    "COPY k1 k2 DB 1 REPLACE",
    "COPY k1 k2 DB x",
    "MOVE k1 1",
    "MOVE k1 x",
    "SELECT 0",
    "SELECT 1",
    "SELECT x",
    "SWAPDB 0 1",
    "SWAPDB 1 2",
    "GEORADIUSBYMEMBER k1 m 1 m STOREDIST k3 STORE k2",
    "ZINTERSTORE k1 x k2",
    "SORT k1",
    "SORT k1 STORE k2",
    "SORT k1 STORE k2 STORE k3",
    "SORT k1 BY nosort GET # STORE k2",
    "SORT k1 BY k* GET k*",
    "SORT k1 BY other*",
    "SORT k1 GET other*",
    "SORT_RO k1 GET other*->f",
    "SORT_RO k1 BY other* GET #",
    "GEORADIUS k1 1 1 1 m",
    "GEORADIUS k1 1 1 1 m STORE k2",
    "GEORADIUS k1 1 1 1 m STOREDIST k2",
    "GEORADIUS k1 1 1 1 m STORE k2 STOREDIST k3",
    "GEORADIUSBYMEMBER k1 m 1 m STORE k2",
    "GEOSEARCHSTORE k1 k2 FROMMEMBER m BYRADIUS 1 m",
    "EVAL return 0",
    "EVAL \"return 1\" 0",
    "EVAL \"return 1\" 2 k1 k2",
    "EVAL \"return 1\" 9 k1 k2",
    "EVAL \"return 1\" -1 k1",
    "EVAL \"return 1\" x k1",
    "EVAL_RO \"return 1\" 1 k1",
    "EVALSHA 0000000000000000000000000000000000000000 1 k1",
    "FCALL f 1 k1",
    "FCALL_RO f 2 k1 k2",
    "XREAD STREAMS k1 0",
    "XREAD COUNT 1 STREAMS k1 k2 0 0",
    "XREAD COUNT 1 STREAMS k1 k2 0",
    "XREADGROUP GROUP g c STREAMS k1 >",
    "XREADGROUP GROUP STREAMS STREAMS STREAMS k1 >",
    "ZUNIONSTORE k1 2 k2 k3",
    "ZUNIONSTORE k1 0 k2",
    "ZUNIONSTORE k1 5 k2",
    "ZINTER 2 k1 k2 WITHSCORES",
    "ZDIFFSTORE k1 1 k2",
    "SINTERCARD 2 k1 k2",
    "LMPOP 2 k1 k2 LEFT",
    "ZMPOP 2 k1 k2 MIN",
    "BLMPOP 0.01 2 k1 k2 LEFT",
    "BZMPOP 0.01 1 k1 MIN",
    "BLPOP k1 k2 0.01",
    "BRPOP k1 k2 0.01",
    "BZPOPMIN k1 k2 0.01",
    "BZPOPMAX k1 0.01",
    "BLMOVE k1 k2 LEFT RIGHT 0.01",
    "BRPOPLPUSH k1 k2 0.01",
    "LMOVE k1 k2 LEFT RIGHT",
    "SUBSCRIBE ch1 ch2",
    "PSUBSCRIBE ch* ch1",
    "PSUBSCRIBE ch*",
    "SSUBSCRIBE ch1",
    "PUBLISH ch1 x",
    "PUBLISH ch2 x",
    "SPUBLISH ch2 x",
    "WATCH k1 k2",
    "OBJECT ENCODING k1",
    "OBJECT FREQ k1",
    "MEMORY USAGE k1 SAMPLES 0",
    "PFMERGE k1 k2 k3",
    "FLUSHALL ASYNC",
    "FLUSHDB",
    "MIGRATE 127.0.0.1 1 k1 0 10",
    "MIGRATE 127.0.0.1 1 \"\" 0 10 KEYS k1 k2",
    "MIGRATE 127.0.0.1 1 \"\" 0 10 COPY AUTH KEYS KEYS k1",
    "MIGRATE 127.0.0.1 1 \"\" 0 10",
    "NOSUCHCOMMAND k1",
];

/// Commands that end or change the connection or the server, or whose success is another one's business here: they are
/// asked of DRYRUN only.
const NOT_RUN: [&str; 31] = [
    "MIGRATE",
    "SHUTDOWN",
    "QUIT",
    "RESET",
    "AUTH",
    "HELLO",
    "MONITOR",
    "SYNC",
    "PSYNC",
    "REPLCONF",
    "REPLICAOF",
    "SLAVEOF",
    "FAILOVER",
    "DEBUG",
    "SUBSCRIBE",
    "PSUBSCRIBE",
    "SSUBSCRIBE",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "CLIENT",
    "ACL",
    "MULTI",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "WAIT",
    "WAITAOF",
    "CONFIG",
    "MODULE",
    "CLUSTER",
];

/// What cluster mode has beyond this server, and what the reference server has not.
const ABSENT: [&str; 4] = ["RESTORE-ASKING", "CLUSTER", "SENTINEL", "MEMORY|ADVICE"];

/// One server and what it said.
struct Side {
    wire: Wire,
}

impl Side {
    fn new(server: &Server) -> Side {
        Side {
            wire: server.connect(),
        }
    }

    /// Sends all requests and returns all replies.
    fn ask(&mut self, requests: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        for batch in requests.chunks(BATCH) {
            let mut bytes = Vec::new();
            batch.iter().for_each(|words| encode(words, &mut bytes));
            self.wire.send(&bytes);
            for words in batch {
                let reply = self.wire.reply();
                replies.push(reply.unwrap_or_else(|failure| {
                    panic!("a reply to {}: {failure}", show_command(words))
                }));
            }
        }
        replies
    }
}

/// Collects where the two servers differ.
#[derive(Default)]
struct Differences {
    count: usize,
    asked: usize,
    report: String,
}

impl Differences {
    fn note(&mut self, rules: &str, words: &[Vec<u8>], ours: &[u8], theirs: &[u8]) {
        self.asked += 1;
        if ours == theirs {
            return;
        }
        self.count += 1;
        if self.count <= MAX_SHOWN {
            let _ = writeln!(
                self.report,
                "{rules}\n  {}\n  ours   {}\n  Valkey {}",
                show_command(words),
                show(ours),
                show(theirs)
            );
        }
    }

    #[track_caller]
    fn assert_none(&self) {
        assert_eq!(
            self.count, 0,
            "{} of {} differ\n{}",
            self.count, self.asked, self.report
        );
    }
}

fn words(line: &str) -> Vec<Vec<u8>> {
    split_line(line)
}

/// The invocations with options, and one of every command and subcommand with keys where its specifications say.
fn invocations(server: &Server) -> Vec<Vec<Vec<u8>>> {
    let mut all: Vec<Vec<Vec<u8>>> = INVOCATIONS.iter().map(|line| words(line)).collect();
    let client =
        redis::Client::open(format!("redis://{}/", server.resp_address())).expect("an address");
    let mut connection = client.get_connection().expect("a connection");
    let table: Vec<Value> = redis::cmd("COMMAND")
        .query(&mut connection)
        .expect("COMMAND");
    for command in &table {
        for_each_sample(command, &mut all);
    }
    all
}

fn for_each_sample(command: &Value, all: &mut Vec<Vec<Vec<u8>>>) {
    let fields = items(command);
    let name = text(&fields[0]);
    if ABSENT
        .iter()
        .any(|absent| name.to_uppercase().starts_with(absent))
    {
        return;
    }
    let subcommands = items(&fields[9]);
    subcommands
        .iter()
        .for_each(|subcommand| for_each_sample(subcommand, all));
    if subcommands.is_empty() {
        all.push(sample(&name, number(&fields[1]), items(&fields[8])));
    }
}

/// The shortest invocation that has all keys of the command's specifications.
fn sample(name: &str, arity: i64, specifications: &[Value]) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = name
        .split('|')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    let least = arity.unsigned_abs() as usize;
    words.resize(words.len().max(least), b"1".to_vec());
    let mut keys = 0;
    for specification in specifications {
        let search = field(specification, "begin_search");
        let start = match text(field(search, "type")).as_str() {
            "index" => number(field(field(search, "spec"), "index")) as usize,
            "keyword" => {
                let keyword = text(field(field(search, "spec"), "keyword"));
                words.push(keyword.into_bytes());
                words.len()
            }
            _ => continue,
        };
        let find = field(specification, "find_keys");
        let spec = field(find, "spec");
        let mut put = |at: usize, words: &mut Vec<Vec<u8>>| {
            keys += 1;
            words.resize(words.len().max(at + 1), b"1".to_vec());
            words[at] = format!("k{keys}").into_bytes();
        };
        match text(field(find, "type")).as_str() {
            "range" => {
                let step = number(field(spec, "keystep")).max(1) as usize;
                let last = match number(field(spec, "lastkey")) {
                    last if last < 0 => (words.len() as i64 + last).max(start as i64) as usize,
                    last => start + last as usize,
                };
                (start..=last)
                    .step_by(step)
                    .for_each(|at| put(at, &mut words));
            }
            "keynum" => {
                let at = start + number(field(spec, "firstkey")) as usize;
                put(at, &mut words);
            }
            _ => {}
        }
    }
    words
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

fn text(value: &Value) -> String {
    redis::from_redis_value(value.clone()).unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    redis::from_redis_value(value.clone()).expect("a number")
}

/// A field of a map that is written as an array.
fn field<'v>(map: &'v Value, name: &str) -> &'v Value {
    let items = items(map);
    let found = items.chunks(2).find(|pair| text(&pair[0]) == name);
    found.map_or(&Value::Nil, |pair| &pair[1])
}

fn both() -> Option<(Server, Server)> {
    let Some(valkey) = Server::valkey(&Options::new()) else {
        missing("valkey-server");
        return None;
    };
    Some((Server::ferrite(&Options::new()), valkey))
}

fn set_user(rules: &str) -> Vec<Vec<u8>> {
    words(&format!("ACL SETUSER u reset on nopass {rules}"))
}

fn dry_run(invocation: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut request = words("ACL DRYRUN u");
    request.extend_from_slice(invocation);
    request
}

/// Asks DRYRUN of both servers under the rules.
fn compare(
    sides: &mut [Side; 2],
    rules: &str,
    invocations: &[Vec<Vec<u8>>],
    found: &mut Differences,
) {
    let mut requests = vec![set_user(rules)];
    requests.extend(invocations.iter().map(|invocation| dry_run(invocation)));
    let [ours, theirs] = sides.each_mut().map(|side| side.ask(&requests));
    for (at, request) in requests.iter().enumerate() {
        found.note(rules, request, &ours[at], &theirs[at]);
    }
}

#[test]
fn every_command_under_key_channel_database_and_selector_rules() {
    let Some((ferrite, valkey)) = both() else {
        return;
    };
    let invocations = invocations(&ferrite);
    let mut sides = [&ferrite, &valkey].map(Side::new);
    let mut found = Differences::default();
    for rules in RULES {
        compare(&mut sides, rules, &invocations, &mut found);
    }
    assert!(found.asked > 10_000, "{} were asked", found.asked);
    found.assert_none();
}

#[test]
fn every_command_under_every_category() {
    let Some((ferrite, valkey)) = both() else {
        return;
    };
    let invocations = invocations(&ferrite);
    let mut sides = [&ferrite, &valkey].map(Side::new);
    let mut found = Differences::default();
    for category in CATEGORIES {
        for rules in [
            format!("-@all +@{category} ~* &*"),
            format!("+@all -@{category} ~* &*"),
        ] {
            compare(&mut sides, &rules, &invocations, &mut found);
        }
    }
    found.assert_none();
}

#[test]
fn every_command_under_rules_for_itself_its_container_and_its_first_argument() {
    let Some((ferrite, valkey)) = both() else {
        return;
    };
    let mut sides = [&ferrite, &valkey].map(Side::new);
    let mut found = Differences::default();
    let mut requests = Vec::new();
    let mut kinds = Vec::new();
    for invocation in invocations(&ferrite) {
        let name = String::from_utf8_lossy(&invocation[0]).to_lowercase();
        let second = invocation.get(1).map(|word| String::from_utf8_lossy(word));
        let rule = second.map_or(name.clone(), |second| {
            format!("{name}|{}", second.to_lowercase())
        });
        for rules in [
            format!("-@all ~* &* +{name}"),
            format!("+@all ~* &* -{name}"),
            format!("-@all ~* &* +{rule}"),
            format!("+@all ~* &* -{rule}"),
            format!("-@all ~* &* +{name} -{rule}"),
            format!("-@all ~* &* (+{rule} ~k1) (+{name} ~* &ch1)"),
        ] {
            // First arguments with spaces are no rules.
            if rule.contains(' ') && rules.contains(&rule) {
                continue;
            }
            requests.push(set_user(&rules));
            requests.push(dry_run(&invocation));
            requests.push(words("ACL GETUSER u"));
            kinds.push(rules);
        }
    }
    let [ours, theirs] = sides.each_mut().map(|side| side.ask(&requests));
    for (at, request) in requests.iter().enumerate() {
        found.note(&kinds[at / 3], request, &ours[at], &theirs[at]);
    }
    found.assert_none();
}

#[test]
fn every_command_run_for_real_is_allowed_or_denied_as_valkey_does() {
    let Some((ferrite, valkey)) = both() else {
        return;
    };
    let run: Vec<_> = invocations(&ferrite)
        .into_iter()
        .filter(|words| {
            let name = String::from_utf8_lossy(&words[0]);
            // Those with options say how long to wait, the samples of the table do not.
            let waits = name.starts_with('b') && !name.starts_with("bit");
            !waits && !NOT_RUN.contains(&&*name.to_uppercase())
        })
        .collect();
    let mut found = Differences::default();
    for (number, rules) in RULES.iter().enumerate() {
        let setup = words(&format!("ACL SETUSER u{number} reset on nopass {rules}"));
        let auth = words(&format!("AUTH u{number} x"));
        let mut requests = vec![setup, auth];
        for invocation in &run {
            requests.push(invocation.clone());
        }
        let [ours, theirs] = [&ferrite, &valkey].map(|server| {
            let replies = Side::new(server).ask(&requests);
            replies.into_iter().map(verdict).collect::<Vec<_>>()
        });
        for (at, request) in requests.iter().enumerate() {
            found.note(rules, request, &ours[at], &theirs[at]);
        }
    }
    found.assert_none();
}

/// The denial, or that there was none.
fn verdict(reply: Vec<u8>) -> Vec<u8> {
    if reply.starts_with(b"-NOPERM") {
        reply
    } else {
        b"allowed".to_vec()
    }
}
