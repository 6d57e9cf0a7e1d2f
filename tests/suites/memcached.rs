//! memcached's protocol, over the same keys.

use tests::{
    server::{Options, Server},
    table::{check_memcached, check_memcached_on},
};

#[test]
fn items_are_stored_and_fetched() {
    check_memcached(&[
        ("set k 5 0 3\r\nabc\r\n", "STORED\r\n"),
        ("get k missing\r\n", "VALUE k 5 3\r\nabc\r\nEND\r\n"),
        ("add k 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("append k 0 0 1\r\nd\r\n", "STORED\r\n"),
        ("get k\r\n", "VALUE k 5 4\r\nabcd\r\nEND\r\n"),
        ("delete k\r\n", "DELETED\r\n"),
        ("delete k\r\n", "NOT_FOUND\r\n"),
        ("set n 0 0 2\r\n10\r\n", "STORED\r\n"),
        ("decr n 1\r\n", "9\r\n"),
        ("get n\r\n", "VALUE n 0 2\r\n9 \r\nEND\r\n"),
        ("incr n 18446744073709551615\r\n", "8\r\n"),
        ("touch n 100\r\n", "TOUCHED\r\n"),
        ("cas missing 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
        ("bogus\r\n", "ERROR\r\n"),
    ]);
}

#[test]
fn meta_commands_answer_what_they_are_asked_for() {
    check_memcached(&[
        ("ms k 3 T0 F7\r\nabc\r\n", "HD\r\n"),
        ("mg k v f s t O1 k\r\n", "VA 3 f7 s3 t-1 O1 kk\r\nabc\r\n"),
        ("mg missing v\r\n", "EN\r\n"),
        ("mg missing v q\r\n", ""),
        ("mg lease v N30 t\r\n", "VA 0 t30 W\r\n\r\n"),
        ("mg lease v N30\r\n", "VA 0 Z\r\n\r\n"),
        ("ma n N0 J13 v\r\n", "VA 2\r\n13\r\n"),
        ("ma n D2 v\r\n", "VA 2\r\n15\r\n"),
        ("md k q\r\n", ""),
        ("md k\r\n", "NF\r\n"),
    ]);
}

#[test]
fn class_24_a_refused_block_is_swallowed_and_never_runs() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    let mut block = "flush_all\r\n".repeat(200_000);
    block.truncate(2_000_000);
    wire.send(
        format!("set kept 0 0 1\r\nx\r\nset k 0 0 2000000\r\n{block}\r\nget k kept\r\n").as_bytes(),
    );
    let answer = wire.until(b"END\r\n").expect("an answer");
    assert_eq!(
        String::from_utf8_lossy(&answer),
        "STORED\r\nSERVER_ERROR object too large for cache\r\nVALUE kept 0 1\r\nx\r\nEND\r\n"
    );
}

#[test]
fn class_32_both_protocols_see_the_same_values() {
    let server = Server::start(&Options::new());
    let mut resp = server.connect();
    let mut memcached = server.connect_memcached();
    check_memcached_on(&mut memcached, &[("set k 9 100 2\r\n41\r\n", "STORED\r\n")]);
    assert_eq!(resp.line("GET k"), "$2\r\n41\r\n");
    assert_eq!(resp.line("TTL k"), ":100\r\n");
    assert_eq!(resp.line("INCR k"), ":42\r\n");
    check_memcached_on(
        &mut memcached,
        &[("get k\r\n", "VALUE k 9 2\r\n42\r\nEND\r\n")],
    );
    assert_eq!(resp.line("SET k plain"), "+OK\r\n");
    check_memcached_on(
        &mut memcached,
        &[("get k\r\n", "VALUE k 0 5\r\nplain\r\nEND\r\n")],
    );
}
