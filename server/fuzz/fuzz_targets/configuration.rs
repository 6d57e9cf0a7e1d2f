//! Any bytes as a configuration: they load or are refused. What loads can be shown, and single words of it set.
//!
//! `include` lines are left out, so that the target reads no files of the machine it runs on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use server::config::{Config, Peer};

fuzz_target!(|text: &[u8]| {
    if text
        .windows(7)
        .any(|word| word.eq_ignore_ascii_case(b"include"))
    {
        return;
    }
    let Ok(config) = Config::from_text(text) else {
        return;
    };
    let shown = config.get(&[b"*"]);
    for (name, value) in &shown {
        // Values are refused or accepted as they were shown; either way nothing panics.
        let _ = config.set(&[(name.as_bytes(), value)], Peer::ThisMachine);
    }
    for word in text.split(|byte| byte.is_ascii_whitespace()).take(64) {
        let _ = config.get(&[word]);
        let _ = config.set(&[(word, text)], Peer::Elsewhere);
    }
});
