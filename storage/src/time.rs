//! Points in time. The engine never reads a clock: `now` is always an argument.

/// Milliseconds since the Unix epoch, the unit of every deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before every deadline: nothing is expired at this time.
    pub const MIN: Timestamp = Timestamp(i64::MIN);

    /// Milliseconds since the epoch.
    #[inline]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[inline]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}
