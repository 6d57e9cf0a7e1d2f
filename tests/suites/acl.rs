//! Users and rules: every command is allowed or denied as the rules say, on both ports.

use tests::server::{Options, Server};

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
