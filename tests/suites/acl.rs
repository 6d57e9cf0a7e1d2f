//! Users and rules: every command is allowed or denied as the rules say, on both ports.

use tests::server::{Options, Server, missing};
use tests::wire::{encode, show, show_command};

fn server() -> Server {
    Server::start(&Options::new())
}

/// Sends the lines over one connection; each must answer as it says, up to the line's end.
fn check(server: &Server, exchange: &[(&str, &str)]) {
    let mut connection = server.connect();
    for (line, expected) in exchange {
        let reply = connection.line(line);
        assert!(reply.starts_with(expected), "{line}: {reply}");
    }
}

const NO_KEY: &str = "-NOPERM No permissions to access a key\r\n";
const NO_CHANNEL: &str = "-NOPERM No permissions to access a channel\r\n";
const NO_DATABASE: &str = "-NOPERM No permissions to access database\r\n";

#[test]
fn keys_are_read_and_written_as_patterns_say() {
    check(
        &server(),
        &[
            ("ACL SETUSER e on nopass ~a* %R~r* %W~w* +@all", "+OK"),
            ("AUTH e x", "+OK"),
            ("SET a1 1", "+OK"),
            ("SET r1 1", NO_KEY),
            ("GET r1", "$-1"),
            ("GETSET r1 x", NO_KEY),
            ("SET w1 x", "+OK"),
            ("SET w1 x GET", NO_KEY),
            ("GET w1", NO_KEY),
            ("INCR w2", NO_KEY),
            ("DEL w1", ":1"),
            ("COPY r1 w1", ":0"),
            ("COPY r1 c", NO_KEY),
            ("MGET a1 z", NO_KEY),
        ],
    );
}

#[test]
fn commands_subcommands_and_first_arguments() {
    check(
        &server(),
        &[
            (
                "ACL SETUSER c on nopass -@all +@read -get +config|get +select|3 ~*",
                "+OK",
            ),
            ("AUTH c x", "+OK"),
            ("STRLEN a", ":0"),
            (
                "GET a",
                "-NOPERM User c has no permissions to run the 'get' command",
            ),
            (
                "SET a 1",
                "-NOPERM User c has no permissions to run the 'set' command",
            ),
            ("CONFIG GET port", "*2"),
            (
                "CONFIG SET port 1",
                "-NOPERM User c has no permissions to run the 'config|set'",
            ),
            ("SELECT 3", "+OK"),
            (
                "SELECT 4",
                "-NOPERM User c has no permissions to run the 'select' command",
            ),
            ("MULTI", "-NOPERM"),
        ],
    );
}

#[test]
fn selectors_databases_and_channels() {
    check(
        &server(),
        &[
            (
                "ACL SETUSER s on nopass ~a* +get (~b* +set) db=0 &ok* +publish +select +flushall",
                "+OK",
            ),
            ("ACL SETUSER d on nopass ~* +@all db=0", "+OK"),
            ("AUTH s x", "+OK"),
            ("GET a", "$-1"),
            ("SET b 1", "+OK"),
            ("GET b", NO_KEY),
            ("SET a 1", NO_KEY),
            ("PUBLISH ok1 x", ":0"),
            ("PUBLISH other x", NO_CHANNEL),
            (
                "SELECT 1",
                "-NOPERM User s has no permissions to run the 'select' command",
            ),
            (
                "FLUSHALL",
                "-NOPERM User s has no permissions to run the 'flushall' command",
            ),
            ("AUTH d x", "+OK"),
            ("SELECT 1", NO_DATABASE),
            ("FLUSHALL", NO_DATABASE),
        ],
    );
}

#[test]
fn rules_that_change_are_looked_at_again_by_exec() {
    check(
        &server(),
        &[
            ("ACL SETUSER m on nopass ~* +@all", "+OK"),
            ("AUTH m x", "+OK"),
            ("MULTI", "+OK"),
            ("ACL SETUSER m -set", "+QUEUED"),
            ("SET a 1", "+QUEUED"),
            ("EXEC", "*2\r\n+OK\r\n-NOPERM ACLs rules changed"),
        ],
    );
}

#[test]
fn denials_are_logged_with_what_and_who() {
    let server = server();
    check(
        &server,
        &[
            ("ACL SETUSER l on nopass ~a +get", "+OK"),
            ("AUTH l x", "+OK"),
            ("GET b", NO_KEY),
            ("GET b", NO_KEY),
        ],
    );
    let log = server.connect().line("ACL LOG");
    for part in [
        "count\r\n:2\r\n",
        "reason\r\n$3\r\nkey",
        "object\r\n$1\r\nb",
        "username\r\n$1\r\nl",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn memcached_users_have_the_same_rights() {
    let server = Server::ferrite(&Options::new().set("requirepass", "secret"));
    check(
        &server,
        &[
            ("AUTH secret", "+OK"),
            ("ACL SETUSER m on >pw ~a* +get +set", "+OK"),
        ],
    );
    let mut connection = server.connect_memcached();
    let mut ask = |request: &[u8], expected: &str| {
        connection.send(request);
        let line = connection.until(b"\r\n").expect("a line");
        assert_eq!(String::from_utf8_lossy(&line), expected);
    };
    ask(b"get a1\r\n", "CLIENT_ERROR unauthenticated\r\n");
    ask(
        b"set x 0 0 5\r\nm bad\r\n",
        "CLIENT_ERROR authentication failure\r\n",
    );
    ask(b"set x 0 0 4\r\nm pw\r\n", "STORED\r\n");
    ask(b"set a1 0 0 1\r\n1\r\n", "STORED\r\n");
    ask(
        b"set b1 0 0 1\r\n1\r\n",
        "CLIENT_ERROR NOPERM No permissions to access a key\r\n",
    );
    ask(
        b"delete a1\r\n",
        "CLIENT_ERROR NOPERM User m has no permissions to run the 'del' command\r\n",
    );
    ask(
        b"mg b1 v\r\n",
        "CLIENT_ERROR NOPERM User m has no permissions to run the 'getex' command\r\n",
    );
}

#[test]
fn users_survive_in_the_acl_file() {
    let directory = tests::server::new_directory();
    let file = directory.join("users.acl");
    std::fs::write(&file, "user default on nopass ~* &* +@all\n").expect("a writable directory");
    let options = Options::new().set("aclfile", &file.display().to_string());
    let first = Server::start(&options);
    check(
        &first,
        &[("ACL SETUSER u on >pw ~x +get", "+OK"), ("ACL SAVE", "+OK")],
    );
    drop(first);
    let second = Server::start(&options);
    check(
        &second,
        &[
            ("AUTH u pw", "+OK"),
            ("GET x", "$-1"),
            ("GET y", NO_KEY),
            ("ACL LOAD", "-NOPERM"),
        ],
    );
    let _ = std::fs::remove_dir_all(&directory);
}

/// Words of SETUSER: each kind of rule, whole and broken.
const RULES: [&[u8]; 133] = [
    b"on",
    b"ON",
    b"off",
    b"on\0x",
    b"on ",
    b"nopass",
    b"resetpass",
    b"reset",
    b"sanitize-payload",
    b"clearselectors",
    b"allkeys",
    b"allkeys ",
    b"resetkeys",
    b"allchannels",
    b"resetchannels",
    b"alldbs",
    b"resetdbs",
    b"allcommands",
    b"nocommands",
    b"~",
    b"~*",
    b"~k*",
    b"~a b",
    b"~a\0b",
    b"~\xff",
    b"~*\0",
    b"%",
    b"%R",
    b"%W",
    b"%RW",
    b"%WR",
    b"%RR",
    b"%k",
    b"%~k",
    b"%X~k",
    b"%R~",
    b"%R~k",
    b"%w~k",
    b"%RW~k",
    b"%RR~k",
    b"%RX~k",
    b"%R~*",
    b"%R k",
    b"%R~a b",
    b"&",
    b"&*",
    b"&ch",
    b"&ch*",
    b"&a b",
    b"&\xff",
    b"+",
    b"-",
    b"+@",
    b"-@",
    b"+@all",
    b"-@all",
    b"+@read",
    b"+@READ",
    b"-@dangerous",
    b"+@nosuch",
    b"-@nosuch",
    b"+@read|x",
    b"+@read\0",
    b"+get",
    b"+GET",
    b"-get",
    b"+get ",
    b"+get\0",
    b"+nosuch",
    b"-nosuch",
    b"+nosuch|x",
    b"+config|get",
    b"-config|get",
    b"+config|nosuch",
    b"-config|nosuch",
    b"+config|",
    b"-config|",
    b"+config|get|x",
    b"+config|get|",
    b"+client|nosuch|x",
    b"+|",
    b"+|get",
    b"-|",
    b"+get|x",
    b"-get|x",
    b"+get|",
    b"+get||",
    b"+get|a|b",
    b"+select|0",
    b"-select|0",
    b"+acl",
    b"-acl",
    b"db",
    b"db=",
    b"db=0",
    b"db=1,2",
    b"db=3,2,1,1",
    b"db=+0",
    b"db=-0",
    b"db= 0",
    b"db=\t1",
    b"db=\x0b1",
    b"db=0 ",
    b"db=0, 1",
    b"db=00",
    b"db=,",
    b"db=0,",
    b"db=,0",
    b"db=x",
    b"db=0x1",
    b"db=-1",
    b"db=-1x",
    b"db=2147483647",
    b"db=2147483648",
    b"db=99999999999999999999",
    b"db=0\x001",
    b">pw",
    b"<pw",
    b"#abc",
    b"!abc",
    b"(",
    b")",
    b"()",
    b"(+get",
    b"+get)",
    b"((+get))",
    b"(+get ~k)",
    b"(on)",
    b"(%R)",
    b"(db=x)",
    b"(~'a')",
    b"(~\"a b\")",
    b"(+get)x",
];

/// Rules that others are tried behind and before.
const NEIGHBOURS: [&[u8]; 8] = [
    b"on",
    b"~k",
    b"allkeys",
    b"allchannels",
    b"+@all",
    b"db=1",
    b"(+get)",
    b"(~a",
];

#[test]
fn rules_are_read_as_valkey_reads_them_wherever_they_stand() {
    let Some(valkey) = Server::valkey(&Options::new()) else {
        return missing("valkey-server");
    };
    let ferrite = Server::ferrite(&Options::new());
    let mut lists: Vec<Vec<&[u8]>> = RULES.iter().map(|&rule| vec![rule]).collect();
    for &rule in &RULES {
        for &neighbour in &NEIGHBOURS {
            lists.push(vec![neighbour, rule]);
            lists.push(vec![rule, neighbour]);
            lists.push(vec![neighbour, rule, b"+set"]);
        }
    }
    let mut requests = Vec::new();
    for list in &lists {
        let set = [&[&b"ACL"[..], b"SETUSER", b"u"], list.as_slice()].concat();
        encode(&set, &mut requests);
        encode(&["ACL", "GETUSER", "u"], &mut requests);
        encode(&["ACL", "LIST"], &mut requests);
        encode(&["ACL", "DELUSER", "u"], &mut requests);
    }
    let ask = |server: &Server| {
        let mut connection = server.connect();
        connection.send(&requests);
        let replies = (0..lists.len() * 4).map(|_| connection.reply().expect("a reply"));
        replies.collect::<Vec<_>>()
    };
    let (ours, theirs) = (ask(&ferrite), ask(&valkey));
    let both = ours.chunks(4).zip(theirs.chunks(4));
    for (list, (ours, theirs)) in lists.iter().zip(both) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(show(ours), show(theirs), "{}", show_command(list));
        }
    }
}

/// Waits until the server counts so many clients that wait.
fn await_blocked(server: &Server, blocked: usize) {
    let wanted = format!("blocked_clients:{blocked}\r\n");
    let mut observer = server.connect();
    while !observer.line("INFO clients").contains(&wanted) {}
}

#[test]
fn subscribers_lose_their_connection_with_the_permission() {
    let server = server();
    let mut admin = server.connect();
    admin.line("ACL SETUSER u on nopass resetchannels &a &b* &c +@all");
    let subscriber = |line: &str| {
        let mut wire = server.connect();
        wire.line("AUTH u x");
        wire.send_command(&line.split(' ').collect::<Vec<_>>());
        wire.reply().expect("a confirmation");
        wire
    };
    let mut gone = ["SUBSCRIBE a", "PSUBSCRIBE b*", "SSUBSCRIBE c"].map(subscriber);
    let mut kept = subscriber("SUBSCRIBE b1");
    // What is added ends nothing, nor does what is taken from others.
    for rules in [
        "u &d",
        "v on nopass resetchannels &x +@all",
        "v resetchannels",
    ] {
        assert_eq!(admin.line(&format!("ACL SETUSER {rules}")), "+OK\r\n");
    }
    assert_eq!(admin.line("PUBLISH a x"), ":1\r\n");
    gone[0].reply().expect("the message");
    // A pattern must be allowed literally, a channel by any pattern.
    admin.line("ACL SETUSER u resetchannels &b?");
    for wire in &mut gone {
        assert_eq!(wire.until_closed().expect("the end"), b"");
    }
    assert_eq!(admin.line("PUBLISH b1 x"), ":1\r\n");
    kept.reply().expect("the message");
}

#[test]
fn a_waiting_command_is_refused_if_its_user_may_not_run_it_any_more() {
    let server = server();
    let (mut admin, mut waiting) = (server.connect(), server.connect());
    admin.line("ACL SETUSER u on nopass +@all ~*");
    waiting.line("AUTH u x");
    admin.line("CONFIG RESETSTAT");
    waiting.send_command(&["BLPOP", "l", "0"]);
    await_blocked(&server, 1);
    admin.line("ACL SETUSER u resetkeys");
    admin.line("RPUSH l a");
    assert_eq!(
        show(&waiting.reply().expect("a reply")),
        show(NO_KEY.as_bytes())
    );
    assert_eq!(admin.line("LLEN l"), ":1\r\n");
    let counted = admin.line("INFO commandstats");
    let counted = counted.lines().find(|line| line.contains("_blpop:"));
    let counted = counted.expect("BLPOP is counted");
    assert!(counted.contains("calls=0,"), "{counted}");
    assert!(
        counted.ends_with("rejected_calls=1,failed_calls=0"),
        "{counted}"
    );
    assert!(admin.line("ACL LOG").contains("cmd=blpop"));
}

#[test]
fn a_denial_shows_the_client_with_the_command_denied() {
    let server = server();
    let mut admin = server.connect();
    let mut denied = server.connect();
    admin.line("ACL SETUSER u on nopass +@all -get ~*");
    denied.line("AUTH u x");
    denied.line("GET x");
    assert!(admin.line("ACL LOG").contains("cmd=get"));
    denied.line("MULTI");
    denied.line("INCR x");
    admin.line("ACL SETUSER u -incr");
    denied.line("EXEC");
    assert!(admin.line("ACL LOG").contains("cmd=exec"));
}

#[test]
fn files_are_looked_for_below_dir() {
    let directory = tests::server::new_directory();
    std::fs::write(directory.join("users.acl"), "user u on nopass ~* +@all\n").expect("a file");
    let options = Options::new()
        .set("dir", &directory.display().to_string())
        .set("aclfile", "users.acl")
        .set("pidfile", "a.pid");
    let server = Server::start(&options);
    check(
        &server,
        &[
            ("AUTH u x", "+OK"),
            ("ACL SAVE", "+OK"),
            ("ACL LOAD", "+OK"),
        ],
    );
    assert!(directory.join("a.pid").exists());
    drop(server);
    let _ = std::fs::remove_dir_all(&directory);
}

#[test]
fn the_default_user_of_the_configuration_has_what_is_said_there() {
    let options = Options::new()
        .set("acl-pubsub-default", "resetchannels")
        .set("user", "default on nopass +@all ~*");
    check(&Server::start(&options), &[("SUBSCRIBE x", NO_CHANNEL)]);
}
