//! The seeded hash that places every key and member.
//!
//! foldhash's quality variant: all 64 bits are usable, which the tables rely on (shard, directory, home, tag), and the
//! per-process random seed keeps clients from aiming at one bucket. Nothing persistent depends on its values.

use std::{
    hash::{BuildHasher, Hasher},
    sync::LazyLock,
};

use foldhash::quality::SeedableRandomState;

static STATE: LazyLock<SeedableRandomState> = LazyLock::new(|| {
    // std seeds its own hasher from the operating system; one value drawn from it seeds ours.
    let seed = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_random())
});

/// The hash of a key or member: the same for the life of the process, different in the next.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = STATE.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
