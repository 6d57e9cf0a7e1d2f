//! LFU: how often a key is used, as a logarithmic counter that decays.
//!
//! ```text
//! bits 15-8   the decay period (minutes / lfu-decay-time), modulo 256, up to which the counter has decayed
//! bits  7-0   the counter: raised by chance, ever less likely, so that 255 stands for about a million uses
//! ```

use crate::time::Timestamp;

/// The counter of a new key: not the first to go before it had a chance to be used.
const INITIAL: u8 = 5;

/// How fast counters rise and fall.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) log_factor: u32,
    pub(super) decay_minutes: u32,
}

pub(super) fn frequency(bits: u16) -> u8 {
    bits as u8
}

/// The bits of a counter that was decayed in the minute `now`, for restored keys.
pub(super) fn with_frequency(frequency: u8, now: Timestamp) -> u16 {
    Pace {
        log_factor: 0,
        decay_minutes: 1,
    }
    .bits(frequency, now)
}

impl Pace {
    pub(super) fn fresh(self, now: Timestamp) -> u16 {
        self.bits(INITIAL, now)
    }

    /// The bits with as much taken from the counter as periods have passed.
    pub(super) fn decayed(self, bits: u16, now: Timestamp) -> u16 {
        if self.decay_minutes == 0 {
            return bits;
        }
        let passed = self.period(now).wrapping_sub((bits >> 8) as u8);
        self.bits(frequency(bits).saturating_sub(passed), now)
    }

    /// The bits after a use; `random` decides whether the counter rises.
    pub(super) fn used(self, bits: u16, now: Timestamp, random: u64) -> u16 {
        let frequency = frequency(self.decayed(bits, now));
        let above = u64::from(frequency.saturating_sub(INITIAL));
        // Rises once in so many uses.
        let uses = above * u64::from(self.log_factor) + 1;
        let rises = random.is_multiple_of(uses);
        self.bits(frequency.saturating_add(u8::from(rises)), now)
    }

    fn bits(self, frequency: u8, now: Timestamp) -> u16 {
        u16::from(self.period(now)) << 8 | u16::from(frequency)
    }

    fn period(self, now: Timestamp) -> u8 {
        (now.seconds() / 60 / i64::from(self.decay_minutes.max(1))) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        log_factor: 10,
        decay_minutes: 1,
    };

    fn minute(minute: i64) -> Timestamp {
        Timestamp(minute * 60_000)
    }

    #[test]
    fn counters_fall_by_one_a_minute() {
        let bits = with_frequency(100, minute(1000));
        assert_eq!(frequency(PACE.decayed(bits, minute(1000))), 100);
        assert_eq!(frequency(PACE.decayed(bits, minute(1030))), 70);
        assert_eq!(frequency(PACE.decayed(bits, minute(1200))), 0);
        let still = Pace {
            decay_minutes: 0,
            ..PACE
        };
        assert_eq!(frequency(still.decayed(bits, minute(1200))), 100);
    }

    #[test]
    fn counters_rise_surely_at_first_and_never_beyond_the_top() {
        let now = minute(5);
        let mut bits = PACE.fresh(now);
        bits = PACE.used(bits, now, 7);
        assert_eq!(frequency(bits), INITIAL + 1);
        // From here on only once in eleven times.
        assert_eq!(frequency(PACE.used(bits, now, 7)), INITIAL + 1);
        assert_eq!(frequency(PACE.used(bits, now, 22)), INITIAL + 2);
        let top = with_frequency(255, now);
        assert_eq!(frequency(PACE.used(top, now, 0)), 255);
    }
}
