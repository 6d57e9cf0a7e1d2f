//! When the disk is full, slow or broken: clients are told, memory stays bounded, the old files stay good, and all goes on
//! once the disk does.

use std::{
    fs,
    os::unix::fs::MetadataExt,
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
/// how much of each file is on disk, by the number of its inode: the real disk is as slow as others make it.
fn unreliable_sync(directory: &Path) -> Option<PathBuf> {
    const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static int there(const char *name) {
    char path[4096];
    const char *directory = getenv("UNRELIABLE_SYNC");
    if (!directory || strlen(directory) + strlen(name) + 2 > sizeof path) return 0;
    strcpy(path, directory);
    strcat(path, name);
    return access(path, F_OK) == 0;
}
static int disturbed(void) {
    if (there("/slow")) usleep(700000);
    if (there("/failing")) { errno = EIO; return 1; }
    return 0;
}
static int force(int file) {
    struct stat facts;
    if (disturbed()) return -1;
    if (fstat(file, &facts) != 0) return -1;
    const char *directory = getenv("UNRELIABLE_SYNC");
    if (S_ISREG(facts.st_mode) && directory && strlen(directory) < 3000) {
        char path[4096], size[21];
        sprintf(path, "%s/synced-%llu", directory, (unsigned long long)facts.st_ino);
        sprintf(size, "%020llu", (unsigned long long)facts.st_size);
        int note = open(path, O_WRONLY | O_CREAT, 0600);
        if (note >= 0) { if (pwrite(note, size, 20, 0) != 20) abort(); close(note); }
    }
    return 0;
}
int fdatasync(int file) { return force(file); }
int fsync(int file) { return force(file); }
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

/// What a power failure may leave of the files in a directory: only what was forced to disk.
pub(crate) fn cut_power(notes: &Path, directory: &Path) {
    for file in fs::read_dir(directory).expect("it is there").flatten() {
        let facts = file.metadata().expect("it is readable");
        if !facts.is_file() {
            continue;
        }
        let note = fs::read_to_string(notes.join(format!("synced-{}", facts.ino())));
        let size: u64 = note.map_or(0, |text| text.trim().parse().expect("a size"));
        if size < facts.len() {
            let file = fs::File::options().write(true).open(file.path());
            file.and_then(|file| file.set_len(size))
                .expect("it is writable");
        }
    }
}

/// A server whose disk is slow while a file `slow` is in its directory, and fails while `failing` is.
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
