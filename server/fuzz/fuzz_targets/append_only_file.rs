//! Any bytes as an increment of the append-only file: loaded, or refused with a reason.
//!
//! Commands that work on the machine or never end are left out.

#![no_main]

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use server::{
    config::Config,
    persistence::aof,
    server::{Server, now},
};
use storage::db::Db;

/// Parts of names of commands that are no part of a log.
const LEFT_OUT: [&[u8]; 16] = [
    b"acl", b"client", b"config", b"debug", b"eval", b"failover", b"fcall", b"function", b"module",
    b"monitor", b"of", b"rewrite", b"save", b"script", b"shutdown", b"sync",
];

static SERVER: LazyLock<Arc<Server>> = LazyLock::new(|| {
    let directory = directory();
    fs::create_dir_all(directory.join("appendonlydir")).expect("it is writable");
    let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    let path = directory.join("appendonlydir/appendonly.aof.manifest");
    fs::write(path, manifest).expect("it is writable");
    let text = format!(
        "dir {}\nloglevel nothing\nio-threads 1\nappendonly yes\naof-load-truncated no\nproto-max-bulk-len 1mb\n",
        directory.display()
    );
    Server::new(Config::from_text(text.as_bytes()).expect("it is sound"))
});

fn directory() -> PathBuf {
    std::env::temp_dir().join(format!("ferrite-fuzz-{}", std::process::id()))
}

fuzz_target!(|bytes: &[u8]| {
    let lower = bytes.to_ascii_lowercase();
    let is_left_out = |word: &&[u8]| lower.windows(word.len()).any(|window| window == *word);
    if LEFT_OUT.iter().any(is_left_out) {
        return;
    }
    let server = &*SERVER;
    let path = directory().join("appendonlydir/appendonly.aof.1.incr.aof");
    fs::write(path, bytes).expect("it is writable");
    if let Err(reason) = aof::load(server) {
        assert!(!reason.is_empty());
    }
    assert_eq!(
        server.metrics.panics.load(std::sync::atomic::Ordering::Relaxed),
        0,
        "no command panics"
    );
    let mut db = Db::new(&server.keyspace, 0, now());
    db.lock_all();
    db.flush(None);
    db.begin();
    db.unlock();
});
