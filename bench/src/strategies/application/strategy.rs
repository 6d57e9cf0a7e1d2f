//! The strategies by name, and what each is for.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    CacheAside,
    ReadThrough,
    WriteThrough,
    WriteBehind,
    WriteAround,
    RefreshAhead,
    TtlJitter,
    NegativeCaching,
    SingleFlight,
    StaleWhileRevalidate,
    EarlyExpiry,
    ClientTracking,
}

pub(crate) const ALL: &[(&str, Strategy, &str)] = &[
    (
        "cache-aside",
        Strategy::CacheAside,
        "the client loads what it misses and stores it after answering; a write deletes the key",
    ),
    (
        "read-through",
        Strategy::ReadThrough,
        "a layer loads what it misses and stores it before it answers; a write deletes the key",
    ),
    (
        "write-through",
        Strategy::WriteThrough,
        "a write goes to the backend and then into the cache",
    ),
    (
        "write-behind",
        Strategy::WriteBehind,
        "a write goes into the cache and to the backend later; what waits when the writer dies is lost",
    ),
    (
        "write-around",
        Strategy::WriteAround,
        "a write goes to the backend only; the cache learns of it when the key expires",
    ),
    (
        "refresh-ahead",
        Strategy::RefreshAhead,
        "a value that is read in the last part of its life is loaded again in the background",
    ),
    (
        "ttl-jitter",
        Strategy::TtlJitter,
        "cache-aside with times to live that differ by chance, so that keys do not expire together",
    ),
    (
        "negative-caching",
        Strategy::NegativeCaching,
        "cache-aside that also remembers which keys do not exist",
    ),
    (
        "single-flight",
        Strategy::SingleFlight,
        "cache-aside in which one load per key is under way and others wait for it",
    ),
    (
        "stale-while-revalidate",
        Strategy::StaleWhileRevalidate,
        "memcached's meta leases: one client loads, all others get the old value meanwhile; a write marks the value stale",
    ),
    (
        "early-expiry",
        Strategy::EarlyExpiry,
        "a reader treats a value as expired before it is, by chance, more likely the nearer the end and the slower the load",
    ),
    (
        "client-tracking",
        Strategy::ClientTracking,
        "cache-aside with a copy in the client, which CLIENT TRACKING invalidates",
    ),
];

impl Strategy {
    pub(crate) fn name(self) -> &'static str {
        ALL.iter()
            .find(|(_, strategy, _)| *strategy == self)
            .map_or("?", |(name, ..)| name)
    }

    pub(crate) fn named(name: &str) -> Result<Self, String> {
        ALL.iter()
            .find(|(known, ..)| *known == name)
            .map(|(_, strategy, _)| *strategy)
            .ok_or_else(|| {
                let names: Vec<&str> = ALL.iter().map(|(name, ..)| *name).collect();
                format!("expected one of {}", names.join(", "))
            })
    }
}
