//! Requests: no panic, and the same result in one piece as byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::resp::request::{RequestParser, Step};
use protocol::{Error, Limits};

fn requests(input: &[u8], limits: &Limits, piece: usize) -> Vec<Result<Vec<Vec<u8>>, Error>> {
    let mut parser = RequestParser::new();
    let (mut start, mut available) = (0, 0);
    let mut found = Vec::new();
    loop {
        let mut spans = Vec::new();
        let window = &input[start..available];
        match parser.parse(window, limits, &mut spans) {
            Ok(Step::Request { consumed }) => {
                found.push(Ok(spans
                    .iter()
                    .map(|span| span.of(window).to_vec())
                    .collect()));
                start += consumed;
            }
            Ok(Step::Inline { consumed, args }) => {
                found.push(Ok(args));
                start += consumed;
            }
            Ok(Step::Incomplete { .. }) if available == input.len() => return found,
            Ok(Step::Incomplete { .. }) => available = (available + piece).min(input.len()),
            Err(error) => {
                found.push(Err(error));
                return found;
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let small = Limits {
        max_bulk_len: 100,
        max_inline_len: 20,
        ..Limits::default()
    };
    for limits in [Limits::authenticated(), Limits::unauthenticated(), small] {
        assert_eq!(
            requests(input, &limits, 1),
            requests(input, &limits, input.len().max(1))
        );
    }
});
