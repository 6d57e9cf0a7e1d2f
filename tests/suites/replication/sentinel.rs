//! The stock Sentinel in charge: three of them watch a primary with two replicas and appoint another when it dies.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{ask, eventually, follow, in_step, is_up, options};
use tests::{
    server::{Server, free_port, locate_peer, missing, new_directory},
    wire::{Wire, encode, parts},
};

/// How soon a silent primary counts as dead.
const DOWN_AFTER_MS: u64 = 2500;
/// Between two writes of one writer.
const PAUSE: Duration = Duration::from_micros(300);
/// How much of what was acknowledged before the end may be lost: replication does not wait.
const LOSS_WINDOW: Duration = Duration::from_millis(500);
const WRITERS: usize = 2;

/// One sentinel process; dropping it ends it.
struct Sentinel {
    child: Child,
    port: u16,
    directory: PathBuf,
}

impl Sentinel {
    fn start(program: &PathBuf, primary: u16) -> Sentinel {
        // In memory where there is such a place: a sentinel whose disk is slow takes the others for dead.
        let port = free_port();
        let memory = Path::new("/dev/shm").join(format!("ferrite-sentinel-{port}"));
        let directory = match fs::create_dir_all(&memory) {
            Ok(()) => memory,
            Err(_) => new_directory(),
        };
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor main 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds main {DOWN_AFTER_MS}\n\
             sentinel failover-timeout main 6000\n\
             sentinel parallel-syncs main 2\n",
            directory.display()
        );
        let file = directory.join("sentinel.conf");
        fs::write(&file, configuration).expect("the temporary directory is writable");
        let log = File::create(directory.join("log")).expect("the directory is writable");
        let child = Command::new(program)
            .arg(&file)
            // What the program called sentinel is.
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("sentinel can be run");
        let sentinel = Sentinel {
            child,
            port,
            directory,
        };
        eventually("the sentinel listens", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        sentinel
    }

    fn ask(&self, line: &str) -> String {
        Wire::connect(([127, 0, 0, 1], self.port).into()).line(line)
    }

    /// The port of the server that this sentinel takes for the primary.
    fn primary(&self) -> u16 {
        primary_by(self.port)
    }

    /// Whether it knows the other sentinels and the replicas.
    fn knows_all(&self) -> bool {
        let view = self.ask("SENTINEL MASTER main");
        let field = |name: &str, value: &str| {
            let wanted = format!("{name}\r\n${}\r\n{value}\r\n", value.len());
            view.contains(&wanted)
        };
        field("num-slaves", "2") && field("num-other-sentinels", "2")
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            eprintln!("--- log of the sentinel ---\n{log}");
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn primary_by(sentinel: u16) -> u16 {
    let mut wire = Wire::connect(([127, 0, 0, 1], sentinel).into());
    let reply = wire.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
    let (_, words) = parts(&reply);
    let port = words.get(1).map(|word| String::from_utf8_lossy(word));
    port.and_then(|word| word.split("\r\n").nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// Writes that were acknowledged, and when.
type Acknowledged = Arc<Mutex<Vec<(String, Instant)>>>;

/// Sets one key after the other on whoever is the primary, as an application does that asks a sentinel after an error.
fn write(number: usize, sentinel: u16, stop: &AtomicBool, acknowledged: &Acknowledged) {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let primary = primary_by(sentinel);
        if std::net::TcpStream::connect(("127.0.0.1", primary)).is_err() {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        let mut wire = Wire::connect(([127, 0, 0, 1], primary).into());
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            let key = format!("w{number}:{count}");
            let mut request = Vec::new();
            encode(&["SET", &key, &count.to_string()], &mut request);
            wire.send(&request);
            let reply = wire.reply().unwrap_or_default();
            if reply != b"+OK\r\n" {
                break;
            }
            let mut all = acknowledged.lock().expect("no writer panics");
            all.push((key, Instant::now()));
            drop(all);
            thread::sleep(PAUSE);
        }
    }
}

/// Acknowledged writes that the server does not have, each with when it was acknowledged.
fn lost(server: &Server, acknowledged: &Acknowledged) -> Vec<(String, Instant)> {
    let mut wire = server.connect();
    let all = acknowledged.lock().expect("no writer panics").clone();
    all.into_iter()
        .filter(|(key, _)| wire.command(&["EXISTS", key]) != b":1\r\n")
        .collect()
}

fn check(program: &str, servers: &mut [Server]) {
    let Some(program) = locate_peer(program) else {
        missing(program);
        return;
    };
    let first = servers[0].resp_address().port();
    for replica in &servers[1..] {
        follow(replica, &servers[0]);
        eventually("the link is up", || is_up(replica));
    }
    let sentinels: Vec<_> = (0..3).map(|_| Sentinel::start(&program, first)).collect();
    eventually("the sentinels know each other and the replicas", || {
        sentinels.iter().all(Sentinel::knows_all)
    });
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Acknowledged::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            let sentinel = sentinels[0].port;
            thread::spawn(move || write(number, sentinel, &stop, &acknowledged))
        })
        .collect();
    let written = || acknowledged.lock().expect("no writer panics").len();
    eventually("writes go on", || written() > 2000);

    servers[0].kill();
    let killed = Instant::now();
    let before = written();
    eventually("another is the primary", || {
        sentinels.iter().all(|sentinel| sentinel.primary() != first)
    });
    eventually("writes go on at the new primary", || {
        written() > before + 2000
    });
    let interruption = {
        let all = acknowledged.lock().expect("no writer panics");
        let next = all[before..]
            .iter()
            .find(|(_, at)| *at > killed + Duration::from_millis(100));
        next.expect("writes went on").1 - killed
    };

    // The dead one comes back, as the replica that the sentinels make of it.
    servers[0].restart();
    eventually("the old primary follows the new one", || {
        let replication = ask(&servers[0], "INFO replication");
        let second = sentinels[0].primary();
        replication.contains(&format!("master_port:{second}\r\n"))
            && replication.contains("master_link_status:up")
    });
    let second = sentinels[0].primary();
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.join().expect("a writer that goes on");
    }
    let (primary, replicas): (Vec<&Server>, Vec<&Server>) = servers
        .iter()
        .partition(|server| server.resp_address().port() == second);
    for replica in replicas {
        in_step(primary[0], replica);
    }
    let lost = lost(primary[0], &acknowledged);
    println!(
        "sentinel failover: {} writes acknowledged, {} of them lost, {} ms without writes",
        written(),
        lost.len(),
        interruption.as_millis()
    );
    for (key, at) in &lost {
        let age = killed.saturating_duration_since(*at);
        assert!(
            age < LOSS_WINDOW,
            "{key} was acknowledged {age:?} before the end and is lost"
        );
    }
}

#[test]
fn valkey_sentinels_appoint_another_ferrite_when_the_primary_dies() {
    let mut servers: Vec<_> = (0..3).map(|_| Server::ferrite(&options())).collect();
    check("valkey-server", &mut servers);
}

#[test]
fn redis_sentinels_appoint_another_ferrite_when_the_primary_dies() {
    let mut servers: Vec<_> = (0..3).map(|_| Server::ferrite(&options())).collect();
    check("redis-server", &mut servers);
}
