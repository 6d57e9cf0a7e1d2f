//! Servers that are killed while clients write, on machines that lose their power with them: of the files only that is left
//! which was forced to disk.
//!
//! `FERRITE_CRASH_ROUNDS=2000 cargo test -p tests --test suites always` kills as many servers.

use std::{
    fs,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use tests::{
    random::Random,
    server::{Options, Server, in_ci, new_directory},
    wire::Wire,
};

use crate::disk::{cut_power, unreliable_server};

const CLIENTS: usize = 16;
/// What `everysec` may lose beyond a second: the time of an fsync, and of a thread that wakes late on a busy machine.
const GRACE: Duration = Duration::from_millis(500);

/// How often a server is killed: few times as one works, often in CI, and as often as `FERRITE_CRASH_ROUNDS` says.
pub(crate) fn rounds(quick: usize, ci: usize) -> usize {
    match std::env::var("FERRITE_CRASH_ROUNDS") {
        Ok(text) => text.parse().expect("FERRITE_CRASH_ROUNDS is a number"),
        Err(_) if in_ci() => ci,
        Err(_) => quick,
    }
}

/// When each count was acknowledged, per client.
type Acknowledged = Vec<Mutex<Vec<(Instant, u64)>>>;

/// Counts up keys of their own on many connections, as fast as they are acknowledged, until the server is killed.
fn count_until_killed(
    server: &mut Server,
    acknowledged: &Acknowledged,
    pause: Duration,
) -> Instant {
    thread::scope(|scope| {
        for (number, mine) in acknowledged.iter().enumerate() {
            let mut connection = server.connect();
            scope.spawn(move || {
                let name = format!("counter:{number}");
                connection.send_command(&["INCR", &name]);
                while let Ok(reply) = connection.reply() {
                    let text = String::from_utf8_lossy(&reply);
                    let count = text.trim_start_matches(':').trim().parse();
                    let count = count.expect("a count");
                    mine.lock()
                        .expect("nobody panics with it")
                        .push((Instant::now(), count));
                    connection.send_command(&["INCR", &name]);
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_empty =
            |mine: &Mutex<Vec<_>>| mine.lock().expect("nobody panics with it").is_empty();
        while acknowledged.iter().any(is_empty) {
            assert!(Instant::now() < deadline, "each client is served in time");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(pause);
        server.signal("KILL");
        let killed = Instant::now();
        assert!(server.wait(Duration::from_secs(5)).is_some());
        killed
    })
}

fn count(wire: &mut Wire, number: usize) -> u64 {
    let reply = wire.line(&format!("GET counter:{number}"));
    let text = reply.lines().nth(1).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// One life of a server, and a look at what its successor finds. Counts that were acknowledged longer than `window` before
/// the end must be there.
fn check_round(directory: &Path, fsync: &str, pause: Duration, window: Duration, rewrites: bool) {
    let settings = [
        ("appendonly", "yes"),
        ("appendfsync", fsync),
        ("auto-aof-rewrite-percentage", "0"),
    ];
    let Some(mut server) = unreliable_server(directory, &settings) else {
        return;
    };
    let acknowledged: Acknowledged = (0..CLIENTS).map(|_| Mutex::default()).collect();
    if rewrites {
        server.connect().line("BGREWRITEAOF");
    }
    let killed = count_until_killed(&mut server, &acknowledged, pause);
    cut_power(directory, &directory.join("appendonlydir"));
    let options = Options::new()
        .set("appendonly", "yes")
        .set("dir", &directory.display().to_string());
    let server = Server::ferrite(&options);
    let mut wire = server.connect();
    for (number, mine) in acknowledged.iter().enumerate() {
        let mine = mine.lock().expect("nobody panics with it");
        let must = mine
            .iter()
            .rev()
            .find(|(at, _)| killed.saturating_duration_since(*at) > window || window.is_zero());
        let found = count(&mut wire, number);
        let must = must.map_or(0, |&(_, count)| count);
        assert!(found >= must, "{fsync}: {found} of {must} counts are there");
    }
}

#[test]
fn always_loses_nothing_when_the_power_fails() {
    let rounds = rounds(8, 200);
    let mut random = Random::new(Random::seed_of_this_run());
    let directory = new_directory();
    for round in 0..rounds {
        let pause = Duration::from_micros(random.between(20_000, 80_000) as u64);
        check_round(&directory, "always", pause, Duration::ZERO, round % 4 == 3);
    }
    let _ = fs::remove_dir_all(&directory);
}

#[test]
fn everysec_loses_a_second_at_most_when_the_power_fails() {
    let rounds = rounds(2, 12);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut random = Random::new(Random::seed_of_this_run());
                let directory = new_directory();
                for round in 0..rounds {
                    let pause = Duration::from_millis(random.between(1500, 3500) as u64);
                    let window = Duration::from_secs(1) + GRACE;
                    check_round(&directory, "everysec", pause, window, round % 4 == 1);
                }
                let _ = fs::remove_dir_all(&directory);
            });
        }
    });
}
