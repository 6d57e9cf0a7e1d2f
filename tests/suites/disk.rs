//! When the disk is full, slow or broken: clients are told, memory stays bounded, the old files stay good, and all goes on
//! once the disk does.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tests::{
    server::{Options, Server, missing, new_directory},
    wire::Wire,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn options(directory: &Path) -> Options {
    Options::new().set("dir", &directory.display().to_string())
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} in time");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Lets files of a process grow to so many bytes only, which is what a full disk does to it; `None` lifts the limit.
fn limit_files(server: &Server, bytes: Option<u64>) -> bool {
    let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let status = Command::new("prlimit")
        .args(["--pid", &server.pid().to_string()])
        .arg(format!("--fsize={limit}:unlimited"))
        .status();
    status.is_ok_and(|status| status.success())
}

fn status(wire: &mut Wire, line: &str) -> bool {
    wire.line("INFO persistence")
        .contains(&format!("{line}\r\n"))
}

const LOG_TROUBLE: &str = "-MISCONF Errors writing to the AOF file: ";

#[test]
fn a_full_disk_stops_what_the_log_cannot_take_and_nothing_else() {
    for fsync in ["everysec", "no"] {
        let directory = new_directory();
        let logged = options(&directory)
            .set("appendonly", "yes")
            .set("appendfsync", fsync);
        let server = Server::ferrite(&logged);
        let mut wire = server.connect();
        assert_eq!(wire.line("SET before 1"), "+OK\r\n");
        if !limit_files(&server, Some(64 * 1024)) {
            missing("prlimit");
            return;
        }
        let value = "x".repeat(1000);
        let mut accepted = 0;
        wait_for("writes are refused", || {
            let reply = wire.line(&format!("SET key:{accepted} {value}"));
            if reply == "+OK\r\n" {
                accepted += 1;
                return false;
            }
            assert!(reply.starts_with(LOG_TROUBLE), "{reply}");
            assert!(reply.contains("File too large"), "{reply}");
            true
        });
        assert!(status(&mut wire, "aof_last_write_status:err"));
        assert!(wire.line("PING").starts_with(LOG_TROUBLE));
        assert!(wire.line("GET before").ends_with("1\r\n"));
        assert!(
            wire.command(&["EVAL", "return redis.call('SET', 'a', 'b')", "0"])
                .starts_with(b"-MISCONF Errors writing")
        );
        assert!(
            wire.command(&["EVAL", "#!lua\nreturn 1", "0"])
                .starts_with(b"-MISCONF Valkey is configured to persist data to AOF")
        );
        assert_eq!(
            wire.command(&["EVAL", "return redis.call('GET', 'before')", "0"]),
            b"$1\r\n1\r\n"
        );
        wire.line("MULTI");
        assert!(wire.line("SET a b").starts_with(LOG_TROUBLE));
        assert!(wire.line("EXEC").starts_with("-EXECABORT"));
        let mut memcached = server.connect_memcached();
        memcached.send(b"set a 0 0 1\r\nb\r\nget before\r\n");
        let said = memcached.until(b"END\r\n").expect("an answer");
        assert!(said.starts_with(b"SERVER_ERROR MISCONF Errors writing"));
        assert!(server.log().contains("Error writing to the AOF file"));

        limit_files(&server, None);
        wait_for("writes go on", || wire.line("SET after 1") == "+OK\r\n");
        assert!(status(&mut wire, "aof_last_write_status:ok"));
        assert!(server.log().contains("AOF write error looks solved"));
        wait_for("the log is written", || {
            status(&mut wire, "aof_buffer_length:0")
        });
        drop(server);
        let server = Server::ferrite(&logged);
        let count = format!(":{}\r\n", accepted + 2);
        assert_eq!(server.connect().line("DBSIZE"), count, "{fsync}");
        let _ = fs::remove_dir_all(directory);
    }
}

#[test]
fn a_server_on_a_full_disk_is_killed_and_loads_what_was_whole() {
    let directory = new_directory();
    let logged = options(&directory)
        .set("appendonly", "yes")
        .set("aof-load-truncated", "no");
    let mut server = Server::ferrite(&logged);
    if !limit_files(&server, Some(50_000)) {
        missing("prlimit");
        return;
    }
    let mut wire = server.connect();
    for number in 0..200 {
        wire.line(&format!("SET key:{number} {}", "x".repeat(999)));
    }
    wait_for("the trouble is noticed", || {
        status(&mut wire, "aof_last_write_status:err")
    });
    server.signal("KILL");
    assert!(server.wait(Duration::from_secs(5)).is_some());
    // Half a command was taken back, so that even the strict setting loads what fitted.
    let server = Server::ferrite(&logged);
    let mut wire = server.connect();
    assert!(wire.line("GET key:0").starts_with("$999"));
    let count = wire.line("DBSIZE");
    assert!([":47\r\n", ":48\r\n"].contains(&&*count), "{count}");
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn a_server_on_a_full_disk_can_be_shut_down() {
    let directory = new_directory();
    let mut server = Server::ferrite(&options(&directory).set("appendonly", "yes"));
    if !limit_files(&server, Some(1000)) {
        missing("prlimit");
        return;
    }
    let mut wire = server.connect();
    for number in 0..100 {
        wire.line(&format!("SET key:{number} {}", "x".repeat(100)));
    }
    wait_for("the trouble is noticed", || {
        status(&mut wire, "aof_last_write_status:err")
    });
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(10)).is_some());
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn a_snapshot_that_does_not_fit_leaves_the_old_one_and_stops_writes() {
    let directory = new_directory();
    let saved = options(&directory)
        .set("save", "3600 1000000")
        .set("rdbcompression", "no")
        .set("enable-debug-command", "yes");
    let server = Server::ferrite(&saved);
    let mut wire = server.connect();
    wire.line("SET old 1");
    assert_eq!(wire.line("SAVE"), "+OK\r\n");
    let old = fs::read(directory.join("dump.rdb")).expect("it was saved");
    wire.line("DEBUG POPULATE 1000 key 1000");
    if !limit_files(&server, Some(100_000)) {
        missing("prlimit");
        return;
    }
    let trouble = "-MISCONF Valkey is configured to save RDB snapshots";
    for command in ["SAVE", "BGSAVE"] {
        wire.line(command);
        wait_for("the failure is told", || {
            status(&mut wire, "rdb_last_bgsave_status:err")
        });
        wait_for("writes are refused", || {
            wire.line("SET a b").starts_with(trouble)
        });
        assert!(wire.line("GET old").ends_with("1\r\n"));
        let mut memcached = server.connect_memcached();
        memcached.send(b"set a 0 0 1\r\nb\r\n");
        let said = memcached.until(b"\r\n").expect("an answer");
        assert!(said.starts_with(b"SERVER_ERROR MISCONF Valkey is configured"));
        let now = fs::read(directory.join("dump.rdb")).expect("it is still there");
        assert!(now == old, "{command}");
        let files = fs::read_dir(&directory).expect("it is readable");
        let beside = files.filter(|file| {
            let name = file.as_ref().map(fs::DirEntry::file_name);
            name.is_ok_and(|name| name.to_string_lossy().starts_with("temp-"))
        });
        assert_eq!(beside.count(), 0, "{command}");
        limit_files(&server, None);
        assert_eq!(wire.line("SAVE"), "+OK\r\n");
        assert_eq!(wire.line("SET a b"), "+OK\r\n");
        fs::write(directory.join("dump.rdb"), &old).expect("it is writable");
        limit_files(&server, Some(100_000));
    }
    wire.line("CONFIG SET stop-writes-on-bgsave-error no");
    wire.line("SAVE");
    assert_eq!(wire.line("SET a b"), "+OK\r\n");
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn a_directory_that_is_gone_is_a_state_and_not_an_end() {
    let directory = new_directory();
    let saved = options(&directory).set("save", "3600 1000000");
    let server = Server::ferrite(&saved);
    let mut wire = server.connect();
    wire.line("SET a b");
    // What a directory without write permission is for everybody but root.
    fs::remove_dir_all(&directory).expect("it can be removed");
    assert!(wire.line("SAVE").starts_with("-ERR"));
    assert!(status(&mut wire, "rdb_last_bgsave_status:err"));
    assert!(wire.line("SET a c").starts_with("-MISCONF"));
    fs::create_dir(&directory).expect("it can be made");
    assert_eq!(wire.line("SAVE"), "+OK\r\n");
    assert_eq!(wire.line("SET a c"), "+OK\r\n");
    let _ = fs::remove_dir_all(directory);
}

/// Builds a library whose `fdatasync` and `fsync` are slow or fail as files in a directory say, and otherwise only note there
/// how much of each file is on disk, by the number of its inode: the real disk is as slow as others make it. What a file
/// had gained when one of them failed is noted as lost, whatever succeeds later, until the file is cut before it.
fn unreliable_sync(directory: &Path) -> Option<PathBuf> {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
typedef unsigned long long number;
static int place(char *path, const char *name) {
    const char *directory = getenv("UNRELIABLE_SYNC");
    if (!directory || strlen(directory) > 3000) return 0;
    sprintf(path, "%s/%s", directory, name);
    return 1;
}
static int there(const char *name) {
    char path[4096];
    return place(path, name) && access(path, F_OK) == 0;
}
static void note(const char *kind, number inode, const char *text) {
    char name[64], path[4096];
    sprintf(name, "%s-%llu", kind, inode);
    if (!place(path, name)) return;
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    if (file < 0) return;
    if (pwrite(file, text, strlen(text), 0) != (ssize_t)strlen(text)) abort();
    close(file);
}
static number noted(const char *kind, number inode) {
    char name[64], path[4096], text[64] = "";
    sprintf(name, "%s-%llu", kind, inode);
    if (!place(path, name)) return 0;
    int file = open(path, O_RDONLY);
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) abort();
    close(file);
    return strtoull(text, 0, 10);
}
static int force(int file) {
    struct stat facts;
    char text[64], name[64];
    if (fstat(file, &facts) != 0) return -1;
    if (there("slow")) usleep(700000);
    while (there("stuck")) usleep(1000);
    if (!S_ISREG(facts.st_mode)) return 0;
    number size = facts.st_size, synced = noted("synced", facts.st_ino);
    if (there("failing")) {
        sprintf(name, "lost-%llu", (number)facts.st_ino);
        if (size > synced && !there(name)) {
            sprintf(text, "%020llu %020llu", synced, size);
            note("lost", facts.st_ino, text);
        }
        errno = EIO;
        return -1;
    }
    sprintf(text, "%020llu", size);
    note("synced", facts.st_ino, text);
    return 0;
}
int fdatasync(int file) { return force(file); }
int fsync(int file) { return force(file); }
int ftruncate64(int file, off64_t length) {
    struct stat facts;
    char name[64], path[4096], text[64];
    if (syscall(SYS_ftruncate, file, length) != 0) return -1;
    if (fstat(file, &facts) != 0) return 0;
    sprintf(name, "lost-%llu", (number)facts.st_ino);
    if (there(name) && noted("lost", facts.st_ino) >= (number)length && place(path, name)) unlink(path);
    if (noted("synced", facts.st_ino) > (number)length) {
        sprintf(text, "%020llu", (number)length);
        note("synced", facts.st_ino, text);
    }
    return 0;
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }
"#;
    let (source, library) = (directory.join("sync.c"), directory.join("sync.so"));
    fs::write(&source, SOURCE).expect("the directory is writable");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    built
        .is_ok_and(|status| status.success())
        .then_some(library)
}

/// What a power failure may leave of the files in a directory: only what was forced to disk, and zeros where that failed.
pub(crate) fn cut_power(notes: &Path, directory: &Path) {
    for path in fs::read_dir(directory).expect("it is there").flatten() {
        let facts = path.metadata().expect("it is readable");
        if !facts.is_file() {
            continue;
        }
        let noted = |kind: &str| -> Vec<u64> {
            let note = fs::read_to_string(notes.join(format!("{kind}-{}", facts.ino())));
            let number = |word: &str| word.parse().expect("a number");
            note.map_or(Vec::new(), |text| {
                text.split_whitespace().map(number).collect()
            })
        };
        let file = fs::File::options().write(true).open(path.path());
        let file = file.expect("it is writable");
        if let [from, to] = noted("lost")[..] {
            let zeros = vec![0; (to - from) as usize];
            file.write_all_at(&zeros, from).expect("it is writable");
        }
        let size = noted("synced").first().copied().unwrap_or(0);
        if size < facts.len() {
            file.set_len(size).expect("it is writable");
        }
    }
}

/// A server whose disk is slow while a file `slow` is in its directory, does nothing while `stuck` is, and fails while
/// `failing` is.
pub(crate) fn unreliable_server(directory: &Path, settings: &[(&str, &str)]) -> Option<Server> {
    let Some(library) = unreliable_sync(directory) else {
        missing("cc");
        return None;
    };
    let mut options = options(directory)
        .environment("LD_PRELOAD", &library.display().to_string())
        .environment("UNRELIABLE_SYNC", &directory.display().to_string());
    for (name, value) in settings {
        options = options.set(name, value);
    }
    Some(Server::ferrite(&options))
}

#[test]
fn a_failing_fsync_stops_writes_until_it_succeeds_and_the_log_is_made_anew() {
    let directory = new_directory();
    let settings = [("appendonly", "yes"), ("appendfsync", "everysec")];
    let Some(server) = unreliable_server(&directory, &settings) else {
        return;
    };
    let mut wire = server.connect();
    fs::write(directory.join("failing"), "").expect("the directory is writable");
    let mut accepted = 0;
    wait_for("writes are refused", || {
        let reply = wire.line(&format!("SET key:{accepted} value"));
        accepted += usize::from(reply == "+OK\r\n");
        reply.starts_with("-MISCONF Errors writing to the AOF file: Input/output error")
    });
    assert!(status(&mut wire, "aof_last_write_status:err"));
    assert!(server.log().contains("Error forcing the AOF file to disk"));
    fs::remove_file(directory.join("failing")).expect("it was made above");
    wait_for("writes go on", || wire.line("SET after 1") == "+OK\r\n");
    wait_for("the log is made anew", || {
        status(&mut wire, "aof_rewrites:1")
    });
    drop(server);
    let server = Server::ferrite(&options(&directory).set("appendonly", "yes"));
    let count = format!(":{}\r\n", accepted + 1);
    assert_eq!(server.connect().line("DBSIZE"), count);
    let _ = fs::remove_dir_all(directory);
}

/// The power fails, and another server finds what is left.
fn after_power_failure(mut server: Server, directory: &Path) -> Server {
    server.signal("KILL");
    assert!(server.wait(Duration::from_secs(5)).is_some());
    cut_power(directory, &directory.join("appendonlydir"));
    Server::ferrite(&options(directory).set("appendonly", "yes"))
}

#[test]
fn a_reply_waits_until_what_a_failed_fsync_left_out_is_on_disk() {
    let directory = new_directory();
    let settings = [("appendonly", "yes"), ("appendfsync", "always")];
    let Some(server) = unreliable_server(&directory, &settings) else {
        return;
    };
    let mut wire = server.connect();
    for round in 0..3 {
        assert_eq!(wire.line("SET before 1"), "+OK\r\n");
        fs::write(directory.join("failing"), "").expect("the directory is writable");
        wire.send_command(&["SET", &format!("held:{round}"), "1"]);
        let mut other = server.connect();
        wait_for("the failure is told", || {
            status(&mut other, "aof_last_write_status:err")
        });
        assert!(other.line("SET refused 1").starts_with(LOG_TROUBLE));
        assert_eq!(other.line("GET before"), "$1\r\n1\r\n");
        assert_eq!(wire.within(Duration::from_millis(50)), b"");
        fs::remove_file(directory.join("failing")).expect("it was made above");
        assert_eq!(wire.reply().expect("a reply"), b"+OK\r\n");
        assert!(status(&mut other, "aof_rewrites:0"));
    }
    let server = after_power_failure(server, &directory);
    let mut wire = server.connect();
    assert_eq!(wire.line("EXISTS held:0 held:1 held:2 refused"), ":3\r\n");
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn always_that_follows_a_failed_fsync_waits_for_a_new_log() {
    let directory = new_directory();
    let settings = [("appendonly", "yes"), ("appendfsync", "everysec")];
    let Some(server) = unreliable_server(&directory, &settings) else {
        return;
    };
    let mut wire = server.connect();
    fs::write(directory.join("failing"), "").expect("the directory is writable");
    wait_for("writes are refused", || {
        wire.line("SET before 1").starts_with(LOG_TROUBLE)
    });
    wire.line("CONFIG SET appendfsync always");
    fs::remove_file(directory.join("failing")).expect("it was made above");
    wait_for("writes go on", || wire.line("SET after 1") == "+OK\r\n");
    // It could not be acknowledged before.
    assert!(status(&mut wire, "aof_rewrites:1"));
    let server = after_power_failure(server, &directory);
    assert_eq!(server.connect().line("EXISTS before after"), ":2\r\n");
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn an_end_on_a_failing_disk_acknowledges_nothing() {
    for way in ["SHUTDOWN", "CONFIG"] {
        let directory = new_directory();
        let settings = [("appendonly", "yes"), ("appendfsync", "always")];
        let Some(mut server) = unreliable_server(&directory, &settings) else {
            return;
        };
        let mut wire = server.connect();
        assert_eq!(wire.line("SET before 1"), "+OK\r\n");
        fs::write(directory.join("failing"), "").expect("the directory is writable");
        wire.send_command(&["SET", "lost", "1"]);
        let mut other = server.connect();
        wait_for("the failure is told", || {
            status(&mut other, "aof_last_write_status:err")
        });
        match way {
            "CONFIG" => assert_eq!(other.line("CONFIG SET appendonly no"), "+OK\r\n"),
            _ => {
                server.signal("TERM");
                assert!(server.wait(Duration::from_secs(10)).is_some());
            }
        }
        assert!(wire.reply().is_err(), "{way}: the connection is closed");
        let _ = fs::remove_dir_all(directory);
    }
}

/// The log counts on where it stopped: replies of the second time wait like those of the first.
#[test]
fn a_log_that_is_turned_off_and_on_holds_replies_back_again() {
    let directory = new_directory();
    let settings = [("appendonly", "yes"), ("appendfsync", "always")];
    let Some(server) = unreliable_server(&directory, &settings) else {
        return;
    };
    let mut wire = server.connect();
    wire.line(&format!("SET long {}", "x".repeat(10_000)));
    assert_eq!(wire.line("CONFIG SET appendonly no"), "+OK\r\n");
    assert_eq!(wire.line("CONFIG SET appendonly yes"), "+OK\r\n");
    wait_for("the log goes on", || {
        status(&mut wire, "aof_rewrite_in_progress:0") && status(&mut wire, "aof_enabled:1")
    });
    assert_eq!(wire.line("SET a 1"), "+OK\r\n");
    fs::write(directory.join("slow"), "").expect("the directory is writable");
    let started = Instant::now();
    assert_eq!(wire.line("SET a 2"), "+OK\r\n");
    assert!(started.elapsed() > Duration::from_millis(500));
    let _ = fs::remove_dir_all(directory);
}

#[test]
fn a_slow_disk_holds_up_only_those_who_want_to_wait_for_it() {
    for (fsync, slow_write) in [("everysec", false), ("always", true)] {
        let directory = new_directory();
        let settings = [("appendonly", "yes"), ("appendfsync", fsync)];
        let Some(server) = unreliable_server(&directory, &settings) else {
            return;
        };
        let mut wire = server.connect();
        wire.line("SET a 1");
        fs::write(directory.join("slow"), "").expect("the directory is writable");
        let mut reader = server.connect();
        let (mut slowest_write, mut slowest_read) = (Duration::ZERO, Duration::ZERO);
        let end = Instant::now() + Duration::from_millis(2500);
        thread::scope(|scope| {
            scope.spawn(|| {
                while Instant::now() < end {
                    let started = Instant::now();
                    reader.line("GET a");
                    slowest_read = slowest_read.max(started.elapsed());
                }
            });
            while Instant::now() < end {
                let started = Instant::now();
                wire.line("SET a 2");
                slowest_write = slowest_write.max(started.elapsed());
            }
        });
        let limit = Duration::from_millis(500);
        assert!(slowest_read < limit, "{fsync}: {slowest_read:?}");
        assert_eq!(
            slowest_write > limit,
            slow_write,
            "{fsync}: {slowest_write:?}"
        );
        let _ = fs::remove_dir_all(directory);
    }
}

#[test]
fn a_snapshot_to_a_slow_disk_holds_up_nobody() {
    let directory = new_directory();
    let Some(server) = unreliable_server(&directory, &[("enable-debug-command", "yes")]) else {
        return;
    };
    let mut wire = server.connect();
    wire.line("DEBUG POPULATE 20000 key 500");
    fs::write(directory.join("slow"), "").expect("the directory is writable");
    assert_eq!(wire.line("BGSAVE"), "+Background saving started\r\n");
    let mut slowest = Duration::ZERO;
    let mut rounds = 0;
    while rounds == 0 || status(&mut wire, "rdb_bgsave_in_progress:1") {
        let started = Instant::now();
        wire.line(&format!("SET key:{} changed", rounds % 20_000));
        slowest = slowest.max(started.elapsed());
        rounds += 1;
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(rounds > 100, "{rounds}");
    assert!(status(&mut wire, "rdb_last_bgsave_status:ok"));
    let _ = fs::remove_dir_all(directory);
}

/// What has changed and waits for a slow snapshot stays a small part of the data: those who write wait.
#[test]
fn memory_stays_bounded_during_a_slow_snapshot() {
    const KEYS: usize = 25_000;
    const LIMIT: usize = 16 << 20;
    let server = Server::ferrite(&Options::new().set("enable-debug-command", "yes"));
    let mut wire = server.connect();
    wire.line(&format!("DEBUG POPULATE {KEYS} key 1000"));
    wire.line("CONFIG SET rdb-key-save-delay 10000");
    assert_eq!(wire.line("BGSAVE"), "+Background saving started\r\n");
    let writing = server.connect();
    let peak = thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut wire = writing;
            for start in (0..KEYS).step_by(100) {
                let keys = start..start + 100;
                for key in keys.clone() {
                    wire.send_command(&["SET", &format!("key:{key}"), "changed"]);
                }
                for _ in keys {
                    assert_eq!(wire.reply().expect("a reply"), b"+OK\r\n");
                }
            }
        });
        let mut peak = 0;
        while status(&mut wire, "rdb_bgsave_in_progress:1") {
            let facts = wire.line("INFO persistence");
            let size = facts.split("current_cow_size:").nth(1);
            let size = size.and_then(|rest| rest.lines().next());
            let size = size.and_then(|digits| digits.parse().ok());
            peak = peak.max(size.expect("a number"));
            // Once writers have had to wait, the rest need not take long.
            if peak > LIMIT {
                wire.line("CONFIG SET rdb-key-save-delay 0");
            }
        }
        writer.join().expect("it wrote everything");
        peak
    });
    assert!(peak > LIMIT, "{peak}");
    // One turn of a connection goes beyond the limit at most.
    assert!(peak < LIMIT + (1 << 20), "{peak}");
    assert!(status(&mut wire, "rdb_last_bgsave_status:ok"));
    assert_eq!(wire.line("DBSIZE"), format!(":{KEYS}\r\n"));
}

#[test]
fn a_killed_client_does_not_wait_for_the_disk() {
    let directory = new_directory();
    let settings = [("appendonly", "yes"), ("appendfsync", "always")];
    let Some(server) = unreliable_server(&directory, &settings) else {
        return;
    };
    let (mut victim, mut other) = (server.connect(), server.connect());
    let id = victim.line("CLIENT ID");
    let id = id.trim_matches([':', '\r', '\n']);
    fs::write(directory.join("stuck"), "").expect("the directory is writable");
    victim.send(b"SET a 1\r\n");
    wait_for("the command has run", || {
        other.line("GET a") == "$1\r\n1\r\n"
    });
    assert_eq!(other.line(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    let said = victim.until_closed().expect("the end");
    assert_eq!(said, b"", "nothing was on disk");
    fs::remove_file(directory.join("stuck")).expect("it was made above");
    let _ = fs::remove_dir_all(directory);
}
