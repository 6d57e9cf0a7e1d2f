//! WAITAOF: what replicas have on their disks.

use tests::server::{Options, Program, missing};

use super::{PROGRAMS, follow, in_step, options, start};

fn logged(fsync: &str) -> Options {
    options()
        .set("appendonly", "yes")
        .set("appendfsync", fsync)
        .set("auto-aof-rewrite-percentage", "0")
}

fn check(first: Program, second: Program, fsync: &str) {
    let Some(primary) = start(first, &options()) else {
        missing("a server");
        return;
    };
    let Some(replica) = start(second, &logged(fsync)) else {
        missing("a server");
        return;
    };
    follow(&replica, &primary);
    in_step(&primary, &replica);
    let mut client = primary.connect();
    for round in 0..3 {
        client.line(&format!("SET a {round}"));
        let answer = client.line("WAITAOF 0 1 15000");
        assert_eq!(
            answer, "*2\r\n:0\r\n:1\r\n",
            "{first:?} to {second:?}, {fsync}"
        );
    }
}

#[test]
fn replicas_tell_what_they_have_on_disk() {
    for fsync in ["always", "everysec"] {
        check(Program::Ferrite, Program::Ferrite, fsync);
        for &other in &PROGRAMS[1..] {
            check(Program::Ferrite, other, fsync);
            check(other, Program::Ferrite, fsync);
        }
    }
}

#[test]
fn replicas_without_an_append_only_file_have_nothing_on_disk() {
    let primary = start(Program::Ferrite, &logged("everysec")).expect("ferrite is built on demand");
    for &program in PROGRAMS {
        let Some(replica) = start(program, &options()) else {
            missing("a server");
            continue;
        };
        follow(&replica, &primary);
        in_step(&primary, &replica);
        let mut client = primary.connect();
        client.line("SET a 1");
        assert_eq!(client.line("WAIT 1 15000"), ":1\r\n");
        assert!(client.line("WAITAOF 0 1 300").ends_with("\r\n:0\r\n"));
        client.line("SET a 2");
        assert_eq!(client.line("WAITAOF 1 0 15000"), "*2\r\n:1\r\n:0\r\n");
    }
}
