//! Memcached requests: no panic, and the same result in one piece as byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::memcache::{Limits, Parser, Step, Then};

fn steps(input: &[u8], limits: &Limits, piece: usize) -> Vec<String> {
    let mut parser = Parser::new();
    let (mut start, mut available) = (0, 0);
    let mut found = Vec::new();
    loop {
        match parser.parse(&input[start..available], limits) {
            Step::Request { consumed, request } => {
                found.push(format!("{request:?}"));
                start += consumed;
            }
            Step::Reject {
                consumed,
                rejection,
            } => {
                found.push(format!("{rejection:?}"));
                start += consumed;
                if rejection.then == Then::Close {
                    return found;
                }
            }
            Step::Skip { consumed } => start += consumed,
            Step::Incomplete { .. } if available == input.len() => return found,
            Step::Incomplete { .. } => available = (available + piece).min(input.len()),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let small = Limits {
        max_item_size: 80,
        max_line_len: 24,
        max_get_line_len: 40,
    };
    for limits in [Limits::default(), small] {
        assert_eq!(
            steps(input, &limits, 1),
            steps(input, &limits, input.len().max(1))
        );
    }
});
