//! What the server says of itself: counters, INFO, CLIENT LIST, compared with the real Valkey wherever that can be done
//! automatically.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tests::server::{Options, Server, missing};
use tests::wire::{Wire, encode, parts, show, show_raw};

/// Conditions are waited for that long at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Both servers, or nothing to compare with.
fn both(options: &Options) -> Option<[Server; 2]> {
    let Some(valkey) = Server::valkey(options) else {
        missing("valkey-server");
        return None;
    };
    Some([Server::ferrite(options), valkey])
}

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// INFO's lines `name:value` of some sections.
fn info(connection: &mut Wire, sections: &str) -> Vec<(String, String)> {
    let text = connection.line(&format!("INFO {sections}"));
    let fields = text.lines().filter(|line| !line.starts_with('#'));
    fields
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn figure(connection: &mut Wire, section: &str, name: &str) -> i64 {
    let fields = info(connection, section);
    let field = fields.iter().find(|(known, _)| known == name);
    let (_, value) = field.unwrap_or_else(|| panic!("{name} in INFO {section}"));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} is a number: {value}"))
}

/// Makes a key of each type.
const KEYS: [&str; 13] = [
    "SET s abc",
    "SET t x",
    "SET n 5",
    "RPUSH l a b c d e f",
    "SADD st a b c d",
    "HSET h f v g w n 1",
    "ZADD z 1 a 2 b 3 c 4 d 5 e",
    "GEOADD g 13.361389 38.115556 p 15 37 q",
    "PFADD hl a b",
    "XADD x 1-1 a b",
    "XGROUP CREATE x gr 0",
    "XADD x 2-1 a b",
    "XREADGROUP GROUP gr c COUNT 1 STREAMS x >",
];

/// Commands that look at keys, or look before they change them. `m` is never there.
const LOOKS: &str = "GET s|GET l|STRLEN s|GETRANGE s 0 1|SUBSTR s 0 1|GETBIT s 1|BITCOUNT s|BITPOS s 1|BITFIELD_RO s GET u8 0|\
    BITFIELD s GET u8 0|BITFIELD s SET u8 0 1|MGET s m|LCS s m|TTL s|PTTL s|EXPIRETIME s|PEXPIRETIME s|TYPE s|\
    EXISTS s m s|TOUCH m s|OBJECT ENCODING s|OBJECT REFCOUNT s|OBJECT IDLETIME s|OBJECT FREQ s|OBJECT ENCODING m|DUMP s|\
    MEMORY USAGE s|GETEX s|GETEX s PERSIST|GETSET s v|SET s v GET|SET s v|SET s v NX|SETNX s v|GETDEL t|DEL t m|APPEND s x|\
    INCR n|INCRBYFLOAT n 1|SETRANGE s 0 a|SETBIT s 0 1|SETEX s 100 v|EXPIRE s 100|PERSIST s|RENAME s s2|RENAMENX s t|\
    COPY s s3|COPY s t REPLACE|MOVE s 1|UNLINK s|MSET s 1 t 2|MSETNX s 1|DELIFEQ t x|SET s v IFEQ abc|LRANGE l 0 -1|LLEN l|\
    LINDEX l 0|LPOS l a|LPUSH l z|RPUSHX l z|LPOP l|RPOP l 1|LSET l 0 q|LREM l 1 a|LINSERT l BEFORE a b|LTRIM l 0 2|\
    LMOVE l l LEFT RIGHT|RPOPLPUSH l l2|LMPOP 2 m l LEFT|BLPOP l 1|BLMPOP 1 1 l LEFT|BLMOVE l l2 LEFT LEFT 1|SORT l ALPHA|\
    SORT_RO l ALPHA|SORT l BY nosort GET s GET #|SORT l BY w_* ALPHA|SORT l ALPHA STORE d|SMEMBERS st|SISMEMBER st a|\
    SMISMEMBER st a b|SCARD st|SRANDMEMBER st|SRANDMEMBER st 2|SSCAN st 0|SINTER st m|SINTER m st|SUNION st m|SDIFF st m|\
    SINTERCARD 2 st st|SINTERSTORE d st st|SUNIONSTORE d st m|SADD st q|SREM st a|SPOP st|SPOP st 1|SMOVE st st2 a|HGET h f|\
    HGET h x|HMGET h f x|HGETALL h|HKEYS h|HVALS h|HLEN h|HEXISTS h f|HSTRLEN h f|HRANDFIELD h|HRANDFIELD h 2|HSCAN h 0|\
    HTTL h FIELDS 1 f|HPEXPIRETIME h FIELDS 1 f|HSET h a b|HSETNX h f v|HDEL h f|HINCRBY h n 1|HGETEX h FIELDS 1 f|\
    HGETDEL h FIELDS 1 g|HEXPIRE h 100 FIELDS 1 f|HPERSIST h FIELDS 1 f|HSETEX h FIELDS 1 f v|ZRANGE z 0 -1|ZREVRANGE z 0 -1|\
    ZRANGEBYSCORE z 0 10|ZREVRANGEBYSCORE z 10 0|ZRANGEBYLEX z - +|ZCARD z|ZCOUNT z 0 10|ZLEXCOUNT z - +|ZSCORE z a|\
    ZMSCORE z a x|ZRANK z a|ZREVRANK z x|ZRANDMEMBER z|ZRANDMEMBER z 2|ZSCAN z 0|ZINTER 2 z m|ZUNION 2 z m|ZDIFF 2 z m|\
    ZINTERCARD 2 z z|ZINTERSTORE d 2 z z|ZUNIONSTORE d 2 z m|ZDIFFSTORE d 2 z m|ZRANGESTORE d z 0 -1|ZADD z 1 a|\
    ZINCRBY z 1 a|ZREM z q|ZREMRANGEBYSCORE z 1 2|ZREMRANGEBYRANK z 0 1|ZREMRANGEBYLEX z - +|ZPOPMIN z|ZPOPMAX z 1|\
    ZMPOP 2 m z MIN|BZPOPMIN z 1|BZMPOP 1 1 z MIN|GEOADD g 13.3 38.1 p|GEOPOS g p|GEODIST g p q|GEOHASH g p|\
    GEOSEARCH g FROMMEMBER p BYRADIUS 1 km|GEORADIUS g 13 38 100 km|GEORADIUS_RO g 13 38 100 km|\
    GEORADIUSBYMEMBER_RO g p 1 km|GEOSEARCHSTORE d g FROMMEMBER p BYRADIUS 1 km|GEORADIUS g 13 38 100 km STORE d|PFADD hl a|\
    PFCOUNT hl|PFCOUNT hl m|PFMERGE d hl|PFDEBUG ENCODING hl|PFDEBUG GETREG hl|PFDEBUG DECODE hl|XLEN x|XRANGE x - +|\
    XREVRANGE x + -|XREAD STREAMS x 0|XREAD STREAMS x m 0 0|XREAD STREAMS x $|XREAD BLOCK 1 STREAMS x 0|XINFO STREAM x|\
    XINFO STREAM x FULL|XINFO GROUPS x|XINFO CONSUMERS x gr|XPENDING x gr|XPENDING x gr - + 10|\
    XREADGROUP GROUP gr c STREAMS x >|XREADGROUP GROUP gr c STREAMS x 0|XADD x * a b|XACK x gr 1-1|XDEL x 1-1|\
    XTRIM x MAXLEN 1|XSETID x 9-9|XGROUP CREATE x g2 0|XGROUP CREATECONSUMER x gr c2|XGROUP DELCONSUMER x gr c|\
    XGROUP SETID x gr 0|XGROUP DESTROY x gr|XCLAIM x gr c 0 1-1|XAUTOCLAIM x gr c 0 0|BITOP AND d s s|BITOP OR d s m|KEYS *|\
    RANDOMKEY|SCAN 0|DBSIZE|WATCH s|LLEN s|HGET s f|SINTER s st|PFCOUNT l|LPUSH s a|GETDEL l|MGET l s";

#[test]
fn hits_and_misses_are_counted_as_valkey_counts_them() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let mut connections = servers.each_ref().map(Server::connect);
    for line in LOOKS.split('|') {
        for is_there in [true, false] {
            let counted = connections.each_mut().map(|connection| {
                connection.line("FLUSHALL");
                for setup in KEYS.iter().filter(|_| is_there) {
                    connection.line(setup);
                }
                connection.line("CONFIG RESETSTAT");
                connection.line(line);
                let count = |connection: &mut Wire, name| figure(connection, "stats", name);
                (
                    count(connection, "keyspace_hits"),
                    count(connection, "keyspace_misses"),
                )
            });
            let [ours, theirs] = counted;
            assert_eq!(
                ours, theirs,
                "hits and misses of {line}, keys there: {is_there}"
            );
        }
    }
}

/// Names that Valkey's INFO has and Ferrite's lacks.
const ABSENT_FIELDS: [&str; 7] = [
    // There are no modules, also not the one that is Valkey's Lua.
    "Modules/module",
    // Figures of the event loop that Valkey shows to its developers with `INFO debug` only.
    "Debug/eventloop_duration_aof_sum",
    "Debug/eventloop_duration_cron_sum",
    "Debug/eventloop_duration_max",
    "Debug/eventloop_cmd_per_cycle_max",
    "Debug/io_threaded_reads_pending",
    "Debug/io_threaded_writes_pending",
];

/// Names that only Ferrite's INFO has, but for those of its section `advice`.
const OWN_FIELDS: [&str; 1] = ["Server/ferrite_version"];

/// Sections and fields in their order, as `section/field`. Statistics of commands are sorted: in Valkey their order is
/// that of a hash table.
fn names(connection: &mut Wire, sections: &str) -> Vec<String> {
    let text = connection.line(&format!("INFO {sections}"));
    let (mut section, mut names, mut sorted) = (String::new(), Vec::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            names.extend(std::mem::take(&mut sorted));
            title.clone_into(&mut section);
            names.push(format!("{section}/"));
        } else if let Some((name, _)) = line.split_once(':') {
            let name = format!("{section}/{name}");
            match section.ends_with("stats") && section != "Stats" {
                true => drop(sorted.insert(name)),
                false => names.push(name),
            }
        }
    }
    names.extend(sorted);
    names
}

/// Compares the names of all sections, asked for in all ways.
#[track_caller]
fn compare_names(connections: &mut [Wire; 2]) {
    let sections = "|all|everything|default|server|clients|memory|persistence|stats|replication|cpu|modules|commandstats|\
                    errorstats|latencystats|cluster|cluster_info|tls|scriptingengines|keyspace|module_list|debug|nosuch|\
                    server server|keyspace server|default commandstats|all nosuch";
    for sections in sections.split('|') {
        let [ours, theirs] = connections
            .each_mut()
            .map(|connection| names(connection, sections));
        let own =
            |name: &String| OWN_FIELDS.contains(&name.as_str()) || name.starts_with("Advice/");
        let absent = |name: &String| {
            ABSENT_FIELDS.contains(&name.as_str()) || sections == "debug" && name == "Debug/"
        };
        let ours: Vec<_> = ours.into_iter().filter(|name| !own(name)).collect();
        let theirs: Vec<_> = theirs.into_iter().filter(|name| !absent(name)).collect();
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            let missing = one.iter().filter(|name| !other.contains(name));
            missing.cloned().collect()
        };
        let differences = (only(&ours, &theirs), only(&theirs, &ours));
        assert_eq!(
            differences,
            (Vec::new(), Vec::new()),
            "only ours and only theirs in INFO {sections}"
        );
        assert_eq!(ours, theirs, "the order of INFO {sections}");
    }
}

#[test]
fn info_has_the_sections_and_fields_of_valkey_in_its_order() {
    // A listener more would be a field more.
    let options = Options::new().set("memcached-port", "0");
    let Some(servers) = both(&options) else {
        return;
    };
    let mut connections = servers.each_ref().map(Server::connect);
    for connection in &mut connections {
        // Who asked while the server started may have been told that it loads.
        connection.line("CONFIG RESETSTAT");
    }
    compare_names(&mut connections);
    let work = "SET a b|GET a|EVAL \"return redis.call('get','a')\" 0|NOSUCH|CONFIG GET port|SADD s 1|LPUSH s 1|EXPIRE a 100|\
                SELECT 3|SET c d|FUNCTION LOAD \"#!lua name=l\\nredis.register_function('f', function() return 1 end)\"|\
                CONFIG SET maxmemory 1gb|CONFIG SET maxmemory-policy allkeys-lru|CONFIG SET appendonly yes|\
                CONFIG SET min-replicas-to-write 1|CONFIG SET latency-tracking-info-percentiles \"50 99\"|\
                CLIENT PAUSE 100000 WRITE";
    for line in work.split('|') {
        for connection in &mut connections {
            connection.line(line);
        }
    }
    for connection in &mut connections {
        wait_until("the log is written", || {
            figure(connection, "persistence", "aof_rewrite_in_progress") == 0
                && figure(connection, "persistence", "aof_rewrite_scheduled") == 0
        });
    }
    compare_names(&mut connections);
    for connection in &mut connections {
        connection.line("CONFIG SET latency-tracking no");
        connection.line("CONFIG RESETSTAT");
    }
    compare_names(&mut connections);
}

#[test]
fn info_of_primary_and_replica_has_the_fields_of_valkey() {
    let Some(primaries) = both(&Options::new()) else {
        return;
    };
    let of = |primary: &Server| {
        let options = Options::new().set(
            "replicaof",
            &format!("127.0.0.1 {}", primary.resp_address().port()),
        );
        match primary.program() {
            tests::server::Program::Ferrite => Server::ferrite(&options),
            _ => Server::valkey(&options).expect("it is installed"),
        }
    };
    let replicas = primaries.each_ref().map(of);
    let mut to_replicas = replicas.each_ref().map(Server::connect);
    let mut to_primaries = primaries.each_ref().map(Server::connect);
    for connection in &mut to_replicas {
        wait_until("the link is up", || {
            connection
                .line("INFO replication")
                .contains("master_link_status:up")
        });
    }
    for connection in &mut to_primaries {
        wait_until("the replica is online", || {
            connection.line("INFO replication").contains("state=online")
        });
    }
    for connections in [&mut to_replicas, &mut to_primaries] {
        let [ours, theirs] = connections
            .each_mut()
            .map(|connection| names(connection, "replication"));
        assert_eq!(ours, theirs);
    }
}

/// Fields of CLIENT LIST that depend on time, on addresses or on how memory is laid out.
const PASSING_FIELDS: [&str; 20] = [
    "id",
    "addr",
    "laddr",
    "fd",
    "age",
    "idle",
    "qbuf",
    "qbuf-free",
    "argv-mem",
    "multi-mem",
    "rbs",
    "rbp",
    "obl",
    "oll",
    "omem",
    "tot-mem",
    "events",
    "tot-net-in",
    "tot-net-out",
    "redir",
];

/// What one connection does, step by step; after each its line is compared. Lines of one step are separated by `;`.
const STAGES: &str = "PING|CLIENT SETNAME foo|CLIENT SETINFO lib-name lib;CLIENT SETINFO lib-ver 1.0|SELECT 3|WATCH a b c|UNWATCH|\
    MULTI|SET a b|SET a b;GET a|CLIENT INFO|EXEC|MULTI;SET a b;DISCARD|WATCH a|MULTI|DISCARD|WATCH q;MULTI;NOSUCH|EXEC|MULTI;GET|\
    CLIENT NOSUCH|EXEC|HELLO 3|HELLO 2|CLIENT TRACKING on|CLIENT TRACKING off|CLIENT TRACKING on BCAST PREFIX x|\
    CLIENT TRACKING off|CLIENT TRACKING on OPTIN|CLIENT CACHING yes|CLIENT TRACKING off|CLIENT TRACKING on OPTOUT NOLOOP|\
    CLIENT TRACKING off|CLIENT NO-EVICT on|CLIENT NO-EVICT off|CLIENT NO-TOUCH on|CLIENT NO-TOUCH off|CLIENT CAPA redirect|\
    READONLY|READWRITE|READONLY|ACL SETUSER bob on nopass +@all ~* &*|AUTH bob x|CLIENT GETNAME|CLIENT REPLY ON|\
    CLIENT IMPORT-SOURCE on|CONFIG SET import-mode yes;CLIENT IMPORT-SOURCE on|CLIENT IMPORT-SOURCE off;CONFIG SET import-mode no|\
    EVAL \"return redis.call('get',KEYS[1])\" 1 a|EVAL \"redis.pcall('nosuch') redis.pcall('get') redis.call('get','a')\" 0|\
    CONFIG NOSUCH|CONFIG GET port|XNOSUCH|GET|OBJECT ENCODING a|CLIENT|CLIENT NOSUCH|CLIENT SETNAME \"a b\"|BLPOP nokey 0.01|\
    WAIT 0 0|WAIT 1 1|CLIENT TRACKING on REDIRECT 99999|SUBSCRIBE a|SUBSCRIBE b|UNSUBSCRIBE a|UNSUBSCRIBE b|PSUBSCRIBE p*|\
    SSUBSCRIBE s1|PUNSUBSCRIBE|SUNSUBSCRIBE|RESET|HELLO 3 AUTH bob x SETNAME zz|SUBSCRIBE a;GET a|PING|RESET|MULTI;RESET|\
    SET x 1;LPUSH x 1|CLIENT SETNAME \"\"|CLIENT SETINFO lib-name \"\"|AUTH nobody x";

/// What CLIENT LIST says of a client, without what passes.
fn client_fields(observer: &mut Wire, id: &str) -> BTreeMap<String, String> {
    let line = observer.line(&format!("CLIENT LIST ID {id}"));
    let fields = line
        .split_whitespace()
        .filter_map(|field| field.split_once('='));
    fields
        .filter(|(name, _)| !PASSING_FIELDS.contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn id_of(connection: &mut Wire) -> String {
    connection
        .line("CLIENT ID")
        .trim_start_matches(':')
        .trim_end()
        .to_owned()
}

#[test]
fn client_list_says_at_every_stage_what_valkey_says() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let mut observers = servers.each_ref().map(Server::connect);
    let mut clients = servers.each_ref().map(Server::connect);
    let ids = clients.each_mut().map(id_of);
    for stage in STAGES.split('|') {
        for client in &mut clients {
            for line in stage.split(';') {
                client.line(line);
            }
        }
        let [ours, theirs] = [0, 1].map(|side| client_fields(&mut observers[side], &ids[side]));
        assert_eq!(ours, theirs, "after {stage}");
    }
}

#[test]
fn client_list_names_its_fields_in_valkeys_order() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let names = servers.each_ref().map(|server| {
        let text = server.connect().line("CLIENT INFO");
        let fields = text
            .split_whitespace()
            .filter_map(|field| field.split_once('='));
        fields.map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    });
    let [ours, theirs] = names;
    assert_eq!(ours, theirs);
}

#[test]
fn client_list_says_of_those_who_wait_and_watch_what_valkey_says() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let mut observers = servers.each_ref().map(Server::connect);
    let waiting = "BLPOP nokey 0|BLMOVE a b LEFT RIGHT 0|XREAD BLOCK 0 STREAMS x $|BZPOPMIN z 0|WAIT 1 0|SUBSCRIBE x|MONITOR|PING";
    let mut open = Vec::new();
    for line in waiting.split('|') {
        let mut ids = Vec::new();
        for server in &servers {
            let mut client = server.connect();
            ids.push(id_of(&mut client));
            let mut request = Vec::new();
            encode(&line.split(' ').collect::<Vec<_>>(), &mut request);
            client.send(&request);
            open.push(client);
        }
        let command = line
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let blocks = !["subscribe", "monitor", "ping"].contains(&command.as_str());
        let [ours, theirs] = [0, 1].map(|side| {
            let mut fields = BTreeMap::new();
            wait_until(line, || {
                fields = client_fields(&mut observers[side], &ids[side]);
                fields["cmd"] == command && (!blocks || fields["flags"].contains('b'))
            });
            fields
        });
        assert_eq!(ours, theirs, "during {line}");
    }
}

/// Of CLIENT LIST's filters: how many clients they find, or the error.
const FILTERS: &str = "TYPE normal|TYPE pubsub|TYPE master|TYPE replica|TYPE x|TYPE|ID|ID x|ID 0|ID -1|USER default|USER nobody|\
    USER|NOSUCH x|MAXAGE 0|MAXAGE x|SKIPME yes|SKIPME no|SKIPME x|NAME foo|FLAGS N|FLAGS x|FLAGS z|FLAGS PN|DB 3|DB 99|DB x|\
    IDLE -1|IDLE x|LIB-NAME lib|LIB-VER 1|NOT-TYPE normal|NOT-USER default|ADDR x|LADDR x|IP x|CAPA r|CAPA x|NOT-CAPA r|\
    USER default TYPE normal|TYPE normal TYPE pubsub|TYPE pubsub TYPE normal|NAME a NAME foo|DB 3 DB 0|NOT-FLAGS P|NOT-NAME foo|\
    NOT-LIB-NAME lib|NOT-LIB-VER lib|NOT-DB 0|NOT-IP 127.0.0.1|IP 127.0.0.1|NOT-ADDR x|NOT-LADDR x|NOT-SKIPME yes|\
    FLAGS N NOT-FLAGS N|TYPE normal NOT-TYPE normal";

#[test]
fn client_list_filters_find_whom_valkeys_find() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let mut observers = servers.each_ref().map(Server::connect);
    let setups = [
        "CLIENT SETNAME foo",
        "SUBSCRIBE x",
        "SELECT 3",
        "CLIENT SETINFO lib-name lib",
        "CLIENT CAPA redirect",
        "WATCH a",
    ];
    let mut open = Vec::new();
    for server in &servers {
        for setup in setups {
            let mut client = server.connect();
            client.line(setup);
            open.push(client);
        }
        // Those who asked whether the server is up are gone.
        let mut observer = server.connect();
        wait_until("only these clients", || {
            observer.line("CLIENT LIST").matches("addr=").count() == 2 * (setups.len() + 2)
        });
    }
    for filter in FILTERS.split('|') {
        let found = observers.each_mut().map(|observer| {
            let reply = observer.line(&format!("CLIENT LIST {filter}"));
            match reply.starts_with('-') {
                true => reply,
                false => reply.matches(" laddr=").count().to_string(),
            }
        });
        let [ours, theirs] = found;
        assert_eq!(ours, theirs, "CLIENT LIST {filter}");
    }
}

/// Requests, separated by `;`, after which the statistics are compared.
const COUNTED: &str = r##"GET a|GET|NOSUCH|CONFIG NOSUCH|CONFIG|CONFIG GET|OBJECT NOSUCH|OBJECT ENCODING|LPUSH s x|SET s 1;LPUSH s x|
EVAL "return redis.call('get','a')" 0|EVAL "return redis.call('set','a','b')" 0|EVAL "return redis.call('nosuch')" 0|
EVAL "return redis.pcall('nosuch')" 0|EVAL "redis.pcall('nosuch') return 1" 0|EVAL "return redis.call('get')" 0|
EVAL "return redis.pcall('get')" 0|EVAL "redis.pcall('get') return 1" 0|SET s 1;EVAL "return redis.call('lpush','s','x')" 0|
SET s 1;EVAL "return redis.pcall('lpush','s','x')" 0|SET s 1;EVAL "redis.pcall('lpush','s','x') return 1" 0|
SET s 1;EVAL "local e = redis.pcall('lpush','s','x') return {err=e.err}" 0|EVAL "local ok,e=pcall(redis.call,'get') return 1" 0|
EVAL "error(redis.pcall('get'))" 0|EVAL "local ok,e=pcall(redis.call,'get') error(e)" 0|EVAL "error({err='Q x'})" 0|
EVAL "return redis.error_reply('MY error')" 0|EVAL "return {err='MY2 error'}" 0|EVAL "error('x')" 0|EVAL "syntax error" 0|
EVALSHA abc 0|EVAL_RO "return redis.call('set','a','b')" 0|EVAL_RO "return redis.pcall('set','a','b')" 0|
EVAL "return redis.call('config','get','port')" 0|EVAL "return redis.call('object','encoding','a')" 0|
EVAL "return redis.call('object','nosuch','a')" 0|EVAL "return redis.call('subscribe','a')" 0|
EVAL "for i=1,5 do redis.call('incr','n') end" 0|EVAL "return redis.call('blpop','q','0')" 0|EVAL|EVAL "return 1" x|
EVAL "redis.pcall('eval','return 1','0') return 1" 0|MULTI;GET a;EXEC|MULTI;GET;EXEC|MULTI;NOSUCH;EXEC|MULTI;CONFIG NOSUCH;EXEC|
MULTI;SET s 1;LPUSH s 1;EXEC|MULTI;EVAL "return redis.call('get','a')" 0;EXEC|MULTI;EVAL "return redis.call('get')" 0;EXEC|EXEC|
DISCARD|MULTI;MULTI;DISCARD|MULTI;WATCH a;EXEC|AUTH x y|AUTH|HELLO 9|SELECT 99|BLPOP nokey 0.01|BLPOP nokey x|
SET s 1;BLPOP s 0.01|WAIT 0 0|WAIT 1 5|WAIT x 5|XREAD BLOCK 5 STREAMS nokey $|FCALL nosuch 0|
FUNCTION LOAD "#!lua name=lib\nredis.register_function('fn', function() return redis.call('get','x') end)";FCALL fn 0|
FUNCTION NOSUCH|SCRIPT LOAD "return 1"|SCRIPT NOSUCH|SET s abc;INCR s|
ACL SETUSER u on nopass -@all +get +auth ~k*;AUTH u x;SET a b;GET z;GET k;PING;AUTH default x|
ACL SETUSER v on nopass +@all -set ~k*;AUTH v x;EVAL "return redis.call('set','k','b')" 0;EVAL "return redis.call('get','z')" 0;EVAL "return redis.pcall('get','z')" 0;EVAL "redis.pcall('get','z') return 1" 0;AUTH default x|
CLIENT SETNAME "a b"|CONFIG SET nosuch x|CONFIG SET maxmemory x|
CONFIG SET maxmemory 1;SET a b;EVAL "return redis.call('set','a','b')" 0;EVAL "return redis.pcall('set','a','b')" 0;CONFIG SET maxmemory 0|
RESTORE a 0 x|OBJECT FREQ a|SORT s BY|PING a b|ECHO|COMMAND NOSUCH|LATENCY NOSUCH|XGROUP CREATE a b c|XINFO STREAM nokey|
SETEX a -1 b|WATCH w;SET w 1;MULTI;GET w;EXEC"##;

/// The statistics of commands without times, of errors, the commands in all, and which commands have latencies.
fn statistics(connection: &mut Wire) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for (name, value) in info(connection, "commandstats errorstats") {
        let parts = value.split(',').filter(|part| !part.starts_with("usec"));
        fields.insert(name, parts.collect::<Vec<_>>().join(","));
    }
    let latencies = info(connection, "latencystats").into_iter();
    fields.extend(latencies.map(|(name, _)| (name, String::new())));
    for name in ["total_commands_processed", "total_error_replies"] {
        let value = figure(connection, "stats", name);
        fields.insert(name.to_owned(), value.to_string());
    }
    fields
}

#[test]
fn commands_and_errors_are_counted_as_valkey_counts_them() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let mut observers = servers.each_ref().map(Server::connect);
    for requests in COUNTED.split('|') {
        let counted = [0, 1].map(|side| {
            let observer = &mut observers[side];
            for line in [
                "FLUSHALL",
                "FUNCTION FLUSH",
                "SCRIPT FLUSH",
                "CONFIG RESETSTAT",
            ] {
                observer.line(line);
            }
            let mut client = servers[side].connect();
            let replies: Vec<String> = requests
                .trim()
                .split(';')
                .map(|line| client.line(line))
                .collect();
            (replies, statistics(observer))
        });
        let [ours, theirs] = counted;
        assert_eq!(ours, theirs, "{requests}");
    }
}

#[test]
fn waiting_commands_are_counted_when_they_end() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let mut observers = servers.each_ref().map(Server::connect);
    let ends = [
        "LPUSH q a",
        "CLIENT UNBLOCK ID TIMEOUT",
        "CLIENT UNBLOCK ID ERROR",
        "CLIENT KILL ID ID",
    ];
    for end in ends {
        let counted = [0, 1].map(|side| {
            let observer = &mut observers[side];
            observer.line("FLUSHALL");
            let mut client = servers[side].connect();
            let id = id_of(&mut client);
            observer.line("CONFIG RESETSTAT");
            client.send_command(&["BLPOP", "q", "0"]);
            wait_until("the client waits", || {
                figure(observer, "clients", "blocked_clients") == 1
            });
            let of_blpop = |observer: &mut Wire| {
                let fields = info(observer, "commandstats errorstats").into_iter();
                let fields = fields
                    .filter(|(name, _)| name == "cmdstat_blpop" || name == "errorstat_UNBLOCKED");
                let without_times = fields.map(|(name, value)| {
                    let parts = value.split(',').filter(|part| !part.starts_with("usec"));
                    format!("{name}:{}", parts.collect::<Vec<_>>().join(","))
                });
                without_times.collect::<Vec<_>>()
            };
            let before = of_blpop(observer);
            observer.line(&end.replace("ID", &id).replacen(
                &id,
                "ID",
                usize::from(end.contains("KILL")),
            ));
            wait_until("the waiting ended", || {
                figure(observer, "clients", "blocked_clients") == 0
            });
            let replied = client.reply().unwrap_or_else(|_| Vec::new());
            (before, of_blpop(observer), show(&replied))
        });
        let [ours, theirs] = counted;
        assert_eq!(ours, theirs, "{end}");
    }
}

#[test]
fn a_wait_whose_client_hangs_up_is_over() {
    let server = Server::start(&Options::new());
    let mut observer = server.connect();
    for line in ["WAIT 1 0", "WAIT 1 100000000", "WAITAOF 0 1 0"] {
        let mut client = server.connect();
        let id = id_of(&mut client);
        client.send_command(&line.split(' ').collect::<Vec<_>>());
        wait_until("the client waits", || {
            figure(&mut observer, "clients", "blocked_clients") == 1
        });
        drop(client);
        wait_until("the waiter is gone", || {
            figure(&mut observer, "clients", "blocked_clients") == 0
                && !observer.line("CLIENT LIST").contains(&format!("id={id} "))
        });
    }
}

#[test]
fn a_wait_is_ended_by_unblock_and_followed_by_what_was_sent_behind_it() {
    let server = Server::start(&Options::new());
    let mut observer = server.connect();
    let mut client = server.connect();
    let id = id_of(&mut client);
    for (line, end, expected) in [
        ("WAIT 1 0", "TIMEOUT", ":0\r\n"),
        (
            "WAIT 1 0",
            "ERROR",
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
        ),
        ("WAITAOF 0 1 0", "TIMEOUT", "*2\r\n:0\r\n:0\r\n"),
        (
            "WAITAOF 0 1 0",
            "ERROR",
            "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
        ),
    ] {
        client.send_command(&line.split(' ').collect::<Vec<_>>());
        wait_until("the client waits", || {
            figure(&mut observer, "clients", "blocked_clients") == 1
        });
        client.send_command(&["PING"]);
        assert_eq!(
            observer.line(&format!("CLIENT UNBLOCK {id} {end}")),
            ":1\r\n"
        );
        assert_eq!(
            show_raw(&client.reply().expect("a reply")),
            expected,
            "{line} {end}"
        );
        assert_eq!(show_raw(&client.reply().expect("a reply")), "+PONG\r\n");
        assert_eq!(observer.line(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    }
    let reply = observer.command(&["INFO", "errorstats"]);
    assert!(parts(&reply).1.is_empty() && show_raw(&reply).contains("errorstat_UNBLOCKED:count=2"));
}

/// Commands that a log of slow commands shows, or whose words it hides.
const LOGGED: &str = "PING|ACL SETUSER u on >secret|ACL GETUSER u|ACL DELUSER u v|ACL WHOAMI|CONFIG SET masteruser x|\
    CONFIG SET primaryuser \"\"|CONFIG SET requirepass \"\" maxclients 100|AUTH x y|HELLO 3 AUTH a b|EVAL \"return redis.call('SET', KEYS[1], 1)\" 1 k|\
    EVAL \"return redis.pcall('NOSUCH')\" 0|MULTI|GET k|EXEC|SPOP nokey|BLPOP nokey 0.01|RPUSH l a|BLPOP l 0";

#[test]
fn the_log_of_slow_commands_holds_what_valkeys_holds() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let [ours, theirs] = servers.each_ref().map(|server| {
        let mut connection = server.connect();
        connection.line("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 100");
        // A log without room counts nothing.
        connection.line("CONFIG SET slowlog-max-len 0");
        connection.line("PING");
        connection.line("CONFIG SET slowlog-max-len 100");
        connection.line("SLOWLOG RESET");
        for line in LOGGED.split('|') {
            connection.line(line);
        }
        let kept = connection.command(&["SLOWLOG", "GET", "-1"]);
        let (_, entries) = parts(&kept);
        let entries: Vec<String> = entries
            .iter()
            .map(|entry| {
                let (_, fields) = parts(entry);
                format!("{} {}", show(fields[0]), show(fields[3]))
            })
            .collect();
        // A command that waits has its place when its waiting ends.
        let mut blocked = server.connect();
        blocked.send_command(&["BLPOP", "q", "0"]);
        wait_until("the client waits", || {
            figure(&mut connection, "clients", "blocked_clients") == 1
        });
        let is_there = |connection: &mut Wire| {
            let log = connection.line("SLOWLOG GET -1");
            log.contains("BLPOP\r\n$1\r\nq\r\n")
        };
        assert!(!is_there(&mut connection), "it has not ended");
        connection.line("RPUSH q a");
        blocked.reply().expect("the element");
        wait_until("it is there", || is_there(&mut connection));
        entries
    });
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn latency_events_are_drawn() {
    let server = Server::start(&Options::new().set("enable-debug-command", "yes"));
    let mut connection = server.connect();
    connection.line("CONFIG SET latency-monitor-threshold 10");
    connection.line("DEBUG SLEEP 0.02");
    let graph = connection.line("LATENCY GRAPH command");
    let line = "-".repeat(80);
    assert!(graph.contains("command - high "), "{graph}");
    assert!(graph.contains(" ms, low "), "{graph}");
    assert!(graph.contains(&line), "{graph}");
    assert!(graph.ends_with("s\n\r\n"), "the age: {graph}");
}

#[test]
fn errors_that_scripts_invent_are_counted_together_beyond_some() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let [ours, theirs] = servers.each_ref().map(|server| {
        let mut connection = server.connect();
        connection.line("CONFIG RESETSTAT");
        for number in 0..140 {
            connection.line(&format!("EVAL \"return {{err = 'E{number} x'}}\" 0"));
        }
        connection.line("EVAL \"return {err = 'E1 x'}\" 0");
        connection.line("LPUSH");
        connection.line("SET a 1");
        connection.line("LPUSH a 1");
        statistics(&mut connection)
    });
    let errors = |all: BTreeMap<String, String>| {
        let errors = all
            .into_iter()
            .filter(|(name, _)| name.starts_with("errorstat"));
        errors.collect::<Vec<_>>()
    };
    assert_eq!(errors(ours), errors(theirs));
}

#[test]
fn commands_held_back_by_a_pause_count_as_waiting_and_nothing_expires() {
    let server = Server::start(&Options::new());
    let mut admin = server.connect();
    for line in [
        "SET k v",
        "PUBLISH c m",
        "PFCOUNT h",
        "EVAL \"return 1\" 0",
        "EVAL \"#!lua\nreturn 1\" 0",
    ] {
        admin.line("SET e 1 PX 10");
        admin.line("CLIENT PAUSE 100000 WRITE");
        let expired = figure(&mut admin, "stats", "expired_keys");
        let mut held = server.connect();
        let mut request = Vec::new();
        encode(&tests::wire::split_line(line), &mut request);
        held.send(&request);
        wait_until(line, || {
            figure(&mut admin, "clients", "blocked_clients") == 1
        });
        assert!(admin.line("CLIENT LIST").contains(" flags=b "));
        // What only reads goes on, scripts that say so included.
        let mut reader = server.connect();
        assert_eq!(
            reader.line("EVAL \"#!lua flags=no-writes\nreturn 1\" 0"),
            ":1\r\n"
        );
        assert_eq!(reader.line("EVAL_RO \"return 1\" 0"), ":1\r\n");
        wait_until("the key is gone for readers", || {
            reader.line("GET e") == "$-1\r\n"
        });
        assert_eq!(figure(&mut admin, "stats", "expired_keys"), expired);
        admin.line("CLIENT UNPAUSE");
        held.reply().expect("the reply");
        assert_eq!(figure(&mut admin, "clients", "blocked_clients"), 0);
        reader.line("GET e");
        assert_eq!(figure(&mut admin, "stats", "expired_keys"), expired + 1);
    }
}

#[test]
fn client_list_tells_whose_watched_keys_have_changed() {
    let server = Server::start(&Options::new());
    let (mut watcher, mut writer) = (server.connect(), server.connect());
    let id = id_of(&mut watcher);
    let mut flags = |after: &str, wire: &mut Wire| {
        wire.line(after);
        client_fields(&mut writer, &id)["flags"].clone()
    };
    assert_eq!(flags("WATCH k", &mut watcher), "N");
    assert_eq!(flags("SET k v", &mut server.connect()), "d");
    assert_eq!(flags("UNWATCH", &mut watcher), "N");
}

#[test]
fn debug_where_it_is_not_allowed_is_a_rejected_call() {
    let Some(servers) = both(&Options::new()) else {
        return;
    };
    let [ours, theirs] = servers.each_ref().map(|server| {
        let mut connection = server.connect();
        connection.line("CONFIG RESETSTAT");
        connection.line("DEBUG SLEEP 0");
        statistics(&mut connection)
    });
    assert_eq!(ours, theirs);
}

#[test]
fn what_an_event_loop_does_is_measured() {
    let server = Server::start(&Options::new());
    let mut connection = server.connect();
    let names = ["eventloop_cycles", "eventloop_duration_sum"];
    let before = names.map(|name| figure(&mut connection, "stats", name));
    connection.line("PING");
    wait_until("all of it grows", || {
        let now = names.map(|name| figure(&mut connection, "stats", name));
        now[0] > before[0] && now[1] > before[1]
    });
    let rates = [
        "instantaneous_eventloop_cycles_per_sec",
        "instantaneous_eventloop_duration_usec",
    ];
    wait_until("there are rates", || {
        let rates = rates.map(|name| figure(&mut connection, "stats", name));
        rates.iter().all(|rate| *rate > 0)
    });
}

#[test]
fn the_kernel_is_told_how_early_the_server_may_go() {
    let server = Server::start(&Options::new());
    let mut connection = server.connect();
    let adjustment = || {
        let path = format!("/proc/{}/oom_score_adj", server.pid());
        let text = std::fs::read_to_string(path).expect("the kernel tells");
        text.trim().parse::<i32>().expect("a number")
    };
    let base = adjustment();
    let set = |connection: &mut Wire, line: &str| {
        assert_eq!(connection.line(line), "+OK\r\n", "{line}");
    };
    set(
        &mut connection,
        "CONFIG SET oom-score-adj-values \"10 20 30\"",
    );
    assert_eq!(adjustment(), base);
    set(&mut connection, "CONFIG SET oom-score-adj yes");
    assert_eq!(adjustment(), base + 10);
    set(&mut connection, "REPLICAOF 127.0.0.1 1");
    assert_eq!(adjustment(), base + 20);
    set(&mut connection, "REPLICAOF NO ONE");
    set(
        &mut connection,
        "CONFIG SET oom-score-adj-values \"15 20 30\"",
    );
    assert_eq!(adjustment(), base + 15);
    set(&mut connection, "CONFIG SET oom-score-adj absolute");
    assert_eq!(adjustment(), 15);
    set(&mut connection, "CONFIG SET oom-score-adj no");
    assert_eq!(adjustment(), base);
}
