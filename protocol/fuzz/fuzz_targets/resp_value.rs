//! Replies: no panic, and the same result in one piece as byte by byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::resp::value::{ValueLimits, ValueParser};

fn values(input: &[u8], piece: usize) -> String {
    let limits = ValueLimits {
        max_depth: 8,
        ..ValueLimits::default()
    };
    let mut parser = ValueParser::new(limits);
    let (mut start, mut available) = (0, 0);
    let mut found = Vec::new();
    loop {
        match parser.parse(&input[start..available]) {
            Ok(Some((value, consumed))) => {
                found.push(value);
                start += consumed;
            }
            Ok(None) if available < input.len() => available = (available + piece).min(input.len()),
            // As text, since NaN is not equal to itself.
            end => return format!("{found:?} {end:?}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    assert_eq!(values(input, 1), values(input, input.len().max(1)));
});
