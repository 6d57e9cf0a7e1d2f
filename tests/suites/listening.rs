//! Ports and addresses that change while the server runs.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::server::{Options, Program, Server, free_port, locate, missing};
use tests::wire::{Wire, show_raw};

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

/// Whether somebody listens on a port of this machine.
fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[test]
fn ports_and_addresses_change_while_old_connections_stay() {
    let options = Options::new().set("bind", "127.0.0.1");
    let Some(servers) = both(&options) else {
        return;
    };
    for server in &servers {
        let first = server.resp_address().port();
        let mut old = server.connect();
        old.line("CONFIG SET proto-max-bulk-len 1mb");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let taken = taken.local_addr().map(|address| (address.port(), taken));
        let (taken_port, _taken) = taken.expect("a bound socket has an address");
        let second = free_port();
        let unable = "-ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check server logs.\r\n";
        let failed = "-ERR CONFIG SET failed (possibly related to argument 'bind') - Failed to bind to specified addresses.\r\n";
        let immutable = "-ERR CONFIG SET failed (possibly related to argument 'NAME') - can't set immutable config\r\n";
        for (line, expected, open) in [
            (format!("CONFIG SET port {taken_port}"), unable, Some(first)),
            (
                format!("CONFIG SET maxclients 77 port {taken_port}"),
                unable,
                Some(first),
            ),
            ("CONFIG SET bind 203.0.113.7".into(), failed, Some(first)),
            (
                "CONFIG SET bind \"127.0.0.1 203.0.113.7\"".into(),
                failed,
                Some(first),
            ),
            ("CONFIG SET bind nosuch.invalid".into(), failed, Some(first)),
            (
                "CONFIG SET bind \"127.0.0.1 -203.0.113.7\"".into(),
                "+OK\r\n",
                Some(first),
            ),
            ("CONFIG SET bind *".into(), "+OK\r\n", Some(first)),
            ("CONFIG SET bind 127.0.0.1".into(), "+OK\r\n", Some(first)),
            (format!("CONFIG SET port {second}"), "+OK\r\n", Some(second)),
            (
                format!("CONFIG SET port {first} bind \"* -::*\""),
                "+OK\r\n",
                Some(first),
            ),
            ("CONFIG SET port 0".into(), "+OK\r\n", None),
            (
                format!("CONFIG SET port {second} bind \"\""),
                "+OK\r\n",
                None,
            ),
            ("CONFIG SET bind 127.0.0.1".into(), "+OK\r\n", Some(second)),
            (
                "CONFIG SET unixsocket /tmp/x".into(),
                &immutable.replace("NAME", "unixsocket"),
                Some(second),
            ),
            (
                "CONFIG SET unixsocketperm 700".into(),
                &immutable.replace("NAME", "unixsocketperm"),
                Some(second),
            ),
        ] {
            assert_eq!(old.line(&line), expected, "{line}");
            for port in [first, second] {
                assert_eq!(
                    listens(port),
                    open == Some(port),
                    "port {port} after {line}"
                );
            }
        }
        assert!(old.line("CONFIG GET maxclients").contains("10000"));
        assert!(
            old.line("INFO server")
                .contains(&format!("tcp_port:{second}"))
        );
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, second));
        assert_eq!(Wire::connect(address).line("PING"), "+PONG\r\n");
    }
}

#[test]
fn the_memcached_port_changes_as_well_and_rewriting_keeps_it() {
    let directory = tests::server::new_directory();
    let file = directory.join("ferrite.conf");
    let (resp, first, second) = (free_port(), free_port(), free_port());
    let text = format!(
        "bind 127.0.0.1\nport {resp}\nmemcached-port {first}\nsave \"\"\ndir {}\n",
        directory.display()
    );
    std::fs::write(&file, text).expect("a writable directory");
    let start = || {
        let program = locate(Program::Ferrite).expect("it is built");
        let started = Command::new(program)
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Running(started.expect("ferrite can be run"))
    };
    let server = start();
    wait_until("it is up", || listens(resp) && listens(first));
    let mut connection = Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, resp)));
    let mut old = Wire::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, first)));
    assert_eq!(
        connection.line(&format!("CONFIG SET memcached-port {second}")),
        "+OK\r\n"
    );
    assert!(listens(second) && !listens(first));
    let refused = connection.line(&format!("CONFIG SET memcached-port {resp}"));
    assert!(
        refused
            .starts_with("-ERR CONFIG SET failed (possibly related to argument 'memcached-port')"),
        "{refused}"
    );
    assert!(listens(second) && listens(resp));
    old.send(b"set a 0 0 1\r\n1\r\n");
    assert_eq!(show_raw(&old.until(b"\r\n").expect("a line")), "STORED\r\n");
    assert_eq!(connection.line("CONFIG REWRITE"), "+OK\r\n");
    drop(server);
    let _server = start();
    wait_until("it is up again", || listens(resp) && listens(second));
    assert!(!listens(first));
    let _ = std::fs::remove_dir_all(&directory);
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
