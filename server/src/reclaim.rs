//! Keeps the memory that the process really takes near `maxmemory`.
//!
//! The allocator gives a page back when all in it is freed. After the sizes of values have shifted, or where popular keys
//! stay and others go, survivors are spread over pages that are mostly empty, and the process takes much more than is
//! allocated. So while it takes too much, maintenance moves keys out of sparse pages, and workers take back what others
//! have freed of their memory. What that does not achieve, eviction does: it goes by a limit that is lowered as long as
//! too much is taken, and raised again slowly.

use std::time::{Duration, Instant};

use storage::{alloc, eviction::reclaim::Walk};

use crate::{metrics::process, server::Server};

/// What the process may take beyond the limit: a part of it, some for buffers that come and go, and what it took beyond
/// what was allocated when the limit was set, up to so much.
const TOLERATED_PART: u64 = 40;
const TOLERATED_BYTES: u64 = 6 << 20;
const BASE_MAX: u64 = 16 << 20;
/// How long keys are moved at a time, and how many between two looks at the clock.
const MOVE_TIME: Duration = Duration::from_millis(5);
const MOVE_BATCH: usize = 1000;
/// Pages this much fuller than the average, in percent, are emptied too; at most up to [`FULL`].
const ABOVE_AVERAGE: usize = 15;
const FULL: usize = 90;
/// Parts of the limit by which eviction's limit is lowered and raised at a time, and how low it may get.
const LOWER_PART: u64 = 64;
const RAISE_PART: u64 = 100;
const WITHHELD_MAX_PART: f64 = 0.75;
/// Between two collections of the workers' pages, and for each GiB of the limit, since they look at every page.
const COLLECT_PERIOD: Duration = Duration::from_millis(100);
const COLLECT_PERIOD_PER_GIB: Duration = Duration::from_millis(500);
/// Between two steps while too much is taken.
pub const HASTE: Duration = Duration::from_millis(25);

#[derive(Default)]
pub struct Reclaim {
    walk: Walk,
    collected: Option<Instant>,
    /// Bytes that the process took beyond what was allocated when there came to be a limit.
    base: Option<u64>,
    /// Whether too much is taken.
    pub is_pressed: bool,
}

impl Reclaim {
    /// One step, some of which are to be taken every second.
    pub fn step(&mut self, server: &Server) {
        let eviction = &server.keyspace.eviction;
        let limit = eviction.limit_bytes();
        if limit == 0 {
            eviction.withhold(0);
            self.is_pressed = false;
            self.base = None;
            return;
        }
        let taken = process::private_bytes() as u64;
        let beyond = taken.saturating_sub(alloc::allocated_bytes() as u64);
        let base = *self.base.get_or_insert(beyond.min(BASE_MAX));
        let tolerated = limit + limit / TOLERATED_PART + TOLERATED_BYTES + base;
        if taken > tolerated {
            self.gather(server, taken);
        }
        let withheld = eviction.withheld_bytes();
        // Looked at again, for moving may have sufficed.
        let taken = process::private_bytes() as u64;
        self.is_pressed = taken > tolerated;
        if self.is_pressed {
            let most = (limit as f64 * WITHHELD_MAX_PART) as u64;
            let more = ((taken - tolerated) / 4).min(limit / LOWER_PART);
            eviction.withhold((withheld + more).min(most));
        } else {
            let less = (tolerated - taken).min(limit / RAISE_PART);
            eviction.withhold(withheld.saturating_sub(less));
        }
    }

    /// Moves keys out of sparse pages, for a while, and gives back what is free then.
    fn gather(&mut self, server: &Server, taken: u64) {
        let started = Instant::now();
        let average = alloc::allocated_bytes() as u64 * 100 / taken.max(1);
        let percent = (average as usize + ABOVE_AVERAGE).min(FULL);
        let mut moved = 0;
        while started.elapsed() < MOVE_TIME {
            moved += self.walk.step(&server.keyspace, MOVE_BATCH, percent);
        }
        server
            .metrics
            .relocated
            .fetch_add(moved as u64, std::sync::atomic::Ordering::Relaxed);
        let gib = server.keyspace.eviction.limit_bytes() as f64 / f64::from(1 << 30);
        let period = COLLECT_PERIOD + COLLECT_PERIOD_PER_GIB.mul_f64(gib.min(100.0));
        if self.collected.is_none_or(|at| at.elapsed() > period) {
            self.collected = Some(Instant::now());
            server.collect.notify_waiters();
        }
        alloc::purge();
    }
}
