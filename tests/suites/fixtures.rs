//! What test fixtures of client libraries rely on when they start servers and play with them.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tests::server::{Options, Program, Server, locate};

const MEMCACHED_PORT: &str = "11211";

/// Starts Ferrite without a RESP port and asks it to end once it is ready; whether it was, and its log.
fn start_and_stop(socket: &Path, arguments: &[&str]) -> (bool, String) {
    let log = socket.with_extension("log");
    let output = fs::File::create(&log).expect("the temporary directory is writable");
    let mut child = Command::new(locate(Program::Ferrite).expect("ferrite is built on demand"))
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(socket)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a file can be shared"))
        .stderr(output)
        .spawn()
        .expect("ferrite can be run");
    let text = || fs::read_to_string(&log).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(30);
    let ready = loop {
        if text().contains("Ready to accept connections") {
            break true;
        }
        if matches!(child.try_wait(), Ok(Some(_))) {
            break false;
        }
        assert!(Instant::now() < deadline, "neither ready nor gone");
        thread::sleep(Duration::from_millis(5));
    };
    let _ = child.kill();
    let _ = child.wait();
    (ready, text())
}

#[test]
fn servers_start_side_by_side_and_beside_a_memcached() {
    // Whoever has the port, it is taken from now on.
    let taken = TcpListener::bind("127.0.0.1:11211");
    let directory = std::env::temp_dir().join(format!("ferrite-fixtures-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory is writable");
    let socket = directory.join("socket");

    let (ready, log) = start_and_stop(&socket, &["--bind", "127.0.0.1"]);
    assert!(ready, "{log}");
    assert!(log.contains("Port 11211 is taken"), "{log}");

    let asked_for = ["--bind", "127.0.0.1", "--memcached-port", MEMCACHED_PORT];
    let (ready, log) = start_and_stop(&socket, &asked_for);
    assert!(!ready, "{log}");
    assert!(log.contains("Failed listening on port 11211"), "{log}");

    drop(taken);
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn debug_sleep_stops_the_whole_server() {
    let server = Server::start(&Options::new().set("enable-debug-command", "yes"));
    let slept = Duration::from_secs(1);
    // More than there are workers, so that each has some.
    let longest_waits: Vec<Duration> = thread::scope(|scope| {
        let others: Vec<_> = (0..8).map(|_| server.connect()).collect();
        let mut sleeper = server.connect();
        sleeper.send(b"DEBUG SLEEP 1\r\n");
        let ends = Instant::now() + slept;
        let threads: Vec<_> = others
            .into_iter()
            .map(|mut other| {
                scope.spawn(move || {
                    let mut longest = Duration::ZERO;
                    while Instant::now() < ends {
                        let asked = Instant::now();
                        assert_eq!(other.line("PING"), "+PONG\r\n");
                        longest = longest.max(asked.elapsed());
                    }
                    longest
                })
            })
            .collect();
        assert_eq!(
            sleeper.reply().expect("the server wakes up"),
            b"+OK\r\n".to_vec()
        );
        threads
            .into_iter()
            .map(|thread| thread.join().expect("every PING is answered"))
            .collect()
    });
    assert!(
        longest_waits.iter().all(|waited| *waited >= slept / 2),
        "{longest_waits:?}"
    );
}
