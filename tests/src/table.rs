//! Tables of request and expected reply, byte for byte.

use crate::server::{Options, Server};
use crate::wire::{Wire, encode, show, split_line};

/// Ends every memcached exchange: the reply to `mn` shows that the reply before it is complete.
const MEMCACHED_END: &[u8] = b"MN\r\n";

/// Starts a server and checks each command's reply in turn, over RESP2. Commands are lines as in [`split_line`].
#[track_caller]
pub fn check(rows: &[(&str, &str)]) {
    let server = Server::start(&Options::new());
    check_on(&mut server.connect(), rows);
}

/// [`check`] over RESP3.
#[track_caller]
pub fn check_resp3(rows: &[(&str, &str)]) {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    wire.command(&["HELLO", "3"]);
    check_on(&mut wire, rows);
}

/// [`check`] on a connection of one's own.
#[track_caller]
pub fn check_on(wire: &mut Wire, rows: &[(&str, &str)]) {
    for (row, &(line, expected)) in rows.iter().enumerate() {
        let mut request = Vec::new();
        encode(&split_line(line), &mut request);
        check_bytes(wire, row, line, &request, expected.as_bytes());
    }
}

/// Sends raw bytes and checks the raw answer; the answer's length says how long to wait.
#[track_caller]
pub fn check_raw(wire: &mut Wire, rows: &[(&[u8], &[u8])]) {
    for (row, &(request, expected)) in rows.iter().enumerate() {
        check_bytes(wire, row, &show(request), request, expected);
    }
}

/// Starts a server and checks each memcached request's whole reply in turn. An empty expectation means silence.
#[track_caller]
pub fn check_memcached(rows: &[(&str, &str)]) {
    let server = Server::start(&Options::new());
    check_memcached_on(&mut server.connect_memcached(), rows);
}

/// [`check_memcached`] on a connection of one's own.
#[track_caller]
pub fn check_memcached_on(wire: &mut Wire, rows: &[(&str, &str)]) {
    for (row, &(request, expected)) in rows.iter().enumerate() {
        let got = memcached(wire, request.as_bytes());
        assert!(
            got == expected.as_bytes(),
            "row {row}: {}\nexpected {}\n     got {}",
            show(request.as_bytes()),
            show(expected.as_bytes()),
            show(&got)
        );
    }
}

/// Sends a memcached request and returns everything said in answer to it.
#[track_caller]
pub fn memcached(wire: &mut Wire, request: &[u8]) -> Vec<u8> {
    let mut bytes = request.to_vec();
    bytes.extend_from_slice(b"mn\r\n");
    wire.send(&bytes);
    match wire.until(MEMCACHED_END) {
        Ok(mut reply) => {
            reply.truncate(reply.len() - MEMCACHED_END.len());
            reply
        }
        Err(failure) => panic!("{}: {failure}", show(request)),
    }
}

#[track_caller]
fn check_bytes(wire: &mut Wire, row: usize, request_text: &str, request: &[u8], expected: &[u8]) {
    wire.send(request);
    // A reply that is longer than expected shows as a wrong start of the next; a whole reply makes the better message.
    let got = match wire.exactly(expected.len()) {
        Ok(bytes) if bytes == expected => return,
        Ok(mut bytes) => {
            bytes.extend_from_slice(&wire.within(std::time::Duration::from_millis(50)));
            show(&bytes)
        }
        Err(failure) => failure.to_string(),
    };
    panic!(
        "row {row}: {request_text}\nexpected {}\n     got {got}",
        show(expected)
    );
}
