//! memcached's flags and CAS: they travel between Ferrites and to disk, and other servers see plain strings.

use tests::{
    server::{Options, Server, missing},
    wire::Wire,
};

use super::{PROGRAMS, ask, follow, in_step, options, start};

fn memcached(wire: &mut Wire, request: &str) -> String {
    String::from_utf8_lossy(&tests::table::memcached(wire, request.as_bytes())).into_owned()
}

/// What memcached clients see of some items, CAS included.
fn seen(server: &Server) -> String {
    let mut wire = server.connect_memcached();
    memcached(&mut wire, "gets a b c n old long\r\n")
}

/// Items in all the ways that clients make and change them.
fn make_items(server: &Server) {
    let long = "x".repeat(10_000);
    let mut wire = server.connect_memcached();
    for request in [
        "set a 5 0 1\r\n1\r\n",
        "set b 0 0 1\r\n2\r\n",
        "set c 4294967295 1000 1\r\n3\r\n",
        "set n 7 0 2\r\n10\r\n",
        "append a 0 0 2\r\nxy\r\n",
        "incr n 5\r\n",
        "ms old 3 F9 T300\r\nold\r\n",
        "touch a 500\r\n",
        &format!("set long 77 0 10000\r\n{long}\r\n"),
    ] {
        memcached(&mut wire, request);
    }
    // Seen, so that all have a CAS; then some are changed by others.
    seen(server);
    let mut client = server.connect();
    for line in [
        "APPEND a z",
        "INCR n",
        "SETRANGE c 3 abc",
        "MULTI",
        "INCR n",
        "APPEND b y",
        "EXEC",
        "RENAME old older",
        "RENAME older old",
    ] {
        client.line(line);
    }
}

#[test]
fn flags_and_cas_are_the_same_at_ferrites_and_chains_of_them() {
    let servers: Vec<Server> = (0..3).map(|_| Server::ferrite(&options())).collect();
    follow(&servers[1], &servers[0]);
    in_step(&servers[0], &servers[1]);
    follow(&servers[2], &servers[1]);
    in_step(&servers[0], &servers[2]);
    make_items(&servers[0]);
    let before = seen(&servers[0]);
    for part in [
        "VALUE a 5 4 ",
        "VALUE b 0 2 ",
        "VALUE c 4294967295 ",
        "VALUE n 7 ",
        "VALUE long 77 ",
    ] {
        assert!(before.contains(part), "{part}: {before}");
    }
    for replica in &servers[1..] {
        in_step(&servers[0], replica);
        assert_eq!(seen(replica), before);
    }
    // A client that has read at the primary goes on at the replica that takes its place, and no change goes unseen.
    let mut wire = servers[0].connect_memcached();
    let cas_of = |text: &str| {
        let line = text.lines().next().expect("an item").to_owned();
        line.split(' ').nth(4).expect("gets tells it").to_owned()
    };
    let cas = cas_of(&memcached(&mut wire, "gets a\r\n"));
    let stale = cas_of(&memcached(&mut wire, "gets b\r\n"));
    ask(&servers[0], "APPEND b more");
    in_step(&servers[0], &servers[1]);
    ask(&servers[1], "REPLICAOF NO ONE");
    let mut wire = servers[1].connect_memcached();
    assert_eq!(
        memcached(&mut wire, &format!("cas a 1 0 1 {cas}\r\n9\r\n")),
        "STORED\r\n"
    );
    assert_eq!(
        memcached(&mut wire, &format!("cas b 1 0 1 {stale}\r\n9\r\n")),
        "EXISTS\r\n"
    );
}

#[test]
fn other_servers_have_plain_strings_and_no_trouble() {
    for &program in &PROGRAMS[1..] {
        let primary = Server::ferrite(&options());
        let Some(replica) = start(program, &options()) else {
            missing("a server");
            continue;
        };
        follow(&replica, &primary);
        in_step(&primary, &replica);
        make_items(&primary);
        in_step(&primary, &replica);
        assert_eq!(ask(&replica, "GET a"), "$4\r\n1xyz\r\n");
        assert!(!replica.log().contains("CRITICAL"));
    }
}

#[test]
fn the_append_only_file_keeps_flags_and_cas() {
    let mut server = Server::ferrite(
        &Options::new()
            .set("appendonly", "yes")
            .set("appendfsync", "always"),
    );
    make_items(&server);
    let before = seen(&server);
    server.restart();
    assert_eq!(seen(&server), before);
}

/// Clients may say what they like.
#[test]
fn a_client_s_ping_is_no_note() {
    let server = Server::ferrite(&options());
    let mut client = server.connect();
    client.line("SET a 1");
    assert_eq!(
        client.line("PING \"memcached-item 5 6 a\""),
        "$20\r\nmemcached-item 5 6 a\r\n"
    );
    for line in ["MULTI", "PING \"memcached-item 5 6 a\"", "GET a", "EXEC"] {
        client.line(line);
    }
    let mut wire = server.connect_memcached();
    assert_eq!(
        memcached(&mut wire, "get a\r\n"),
        "VALUE a 0 1\r\n1\r\nEND\r\n"
    );
}
