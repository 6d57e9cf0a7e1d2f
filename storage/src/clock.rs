//! The clock that commands are timed by: the processor's time stamp counter where the system itself goes by it, the
//! system's clock elsewhere. Reading the counter takes a few nanoseconds; the system's call costs as much as a lookup.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A moment, in units of this clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

struct Clock {
    counts: bool,
    began: Instant,
    began_at: u64,
    /// Nanoseconds of a unit, times 2^32.
    scale: AtomicU64,
}

/// How long the counter is compared with the system's clock before it is used the first time.
const FIRST_LOOK: Duration = Duration::from_micros(200);
const LOOKS: usize = 5;

static CLOCK: LazyLock<Clock> = LazyLock::new(|| {
    let counts = is_counter_steady();
    let (began_at, began) = both_clocks();
    let clock = Clock {
        counts,
        began,
        began_at,
        scale: AtomicU64::new(1 << 32),
    };
    if clock.counts {
        while began.elapsed() < FIRST_LOOK {
            std::hint::spin_loop();
        }
        clock.compare();
    }
    clock
});

impl Clock {
    /// The longer ago it began, the better the clock knows what a unit of the counter is.
    fn compare(&self) {
        let (at, now) = both_clocks();
        let units = at.wrapping_sub(self.began_at);
        if self.counts && units > 0 {
            let scale = (now.duration_since(self.began).as_nanos() << 32) / u128::from(units);
            self.scale.store(scale as u64, Ordering::Relaxed);
        }
    }
}

/// Both clocks at one moment: the closest of a few looks, as the thread may be interrupted in between.
fn both_clocks() -> (u64, Instant) {
    let look = |_| {
        let before = counter();
        let now = Instant::now();
        (counter().wrapping_sub(before), before, now)
    };
    let (_, counter, now) = (0..LOOKS)
        .map(look)
        .min_by_key(|&(apart, ..)| apart)
        .expect("there are some looks");
    (counter, now)
}

impl Moment {
    #[inline]
    pub fn now() -> Moment {
        let clock = &*CLOCK;
        if clock.counts {
            return Moment(counter());
        }
        Moment(clock.began.elapsed().as_nanos() as u64)
    }

    /// Nanoseconds since the last lap, or since the beginning; the next lap begins.
    #[inline]
    pub fn lap(&mut self) -> u64 {
        let now = Moment::now();
        // Counters of two cores may be a few units apart.
        let units = now.0.saturating_sub(self.0);
        *self = now;
        let scale = CLOCK.scale.load(Ordering::Relaxed);
        ((u128::from(units) * u128::from(scale)) >> 32) as u64
    }
}

/// Compares the counter with the system's clock once more. Called now and then.
pub fn compare() {
    CLOCK.compare();
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction; it only reads.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

/// Linux keeps time by the counter only where it runs at one rate, in step on all cores.
fn is_counter_steady() -> bool {
    const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    cfg!(target_arch = "x86_64")
        && std::fs::read_to_string(SOURCE).is_ok_and(|source| source.trim() == "tsc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_agree_with_the_systems_clock() {
        let before = Instant::now();
        let (mut moment, after) = (Moment::now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let at_least = after.elapsed();
        let lap = moment.lap();
        let at_most = before.elapsed();
        let range = at_least.as_nanos() as f64 * 0.95..at_most.as_nanos() as f64 * 1.05;
        assert!(range.contains(&(lap as f64)), "{lap} not in {range:?}");
    }

    #[test]
    fn laps_add_up() {
        let (mut moment, began) = (Moment::now(), Instant::now());
        let sum: u64 = (0..1000).map(|_| moment.lap()).sum();
        assert!(sum <= began.elapsed().as_nanos() as u64 * 2 + 1_000_000);
    }
}
