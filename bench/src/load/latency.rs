//! Latencies: recorded in nanoseconds with three significant digits, reported in microseconds.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longer ones are recorded as this.
const LONGEST_NS: u64 = 100_000_000_000;

#[derive(Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, LONGEST_NS, 3)
                .expect("the bounds and the precision are constants in range"),
        )
    }

    pub(crate) fn record(&mut self, nanoseconds: u64, times: u64) {
        self.0.saturating_record_n(nanoseconds.max(1), times);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0
            .add(&other.0)
            .expect("all histograms here have the same bounds");
    }

    /// Drops what was recorded.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn summary(&self) -> Summary {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Summary {
            samples: self.0.len(),
            mean_us: self.0.mean() / 1000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: self.0.max() as f64 / 1000.0,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub(crate) samples: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) p9999_us: f64,
    pub(crate) max_us: f64,
}

impl Summary {
    pub(crate) fn json(&self) -> Value {
        json!({
            "samples": self.samples, "mean_us": self.mean_us, "p50_us": self.p50_us, "p90_us": self.p90_us,
            "p99_us": self.p99_us, "p999_us": self.p999_us, "p9999_us": self.p9999_us, "max_us": self.max_us,
        })
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  p99.99 {:.0}  max {:.0} us",
            self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.p9999_us, self.max_us
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded_values() {
        let mut latencies = Latencies::new();
        for us in 1..=1000 {
            latencies.record(us * 1000, 1);
        }
        let summary = latencies.summary();
        let near = |value: f64, expected: f64| (value - expected).abs() <= expected * 0.002;
        assert!(
            near(summary.p50_us, 500.0)
                && near(summary.p99_us, 990.0)
                && near(summary.max_us, 1000.0),
            "{summary:?}"
        );
        assert_eq!(summary.samples, 1000);
    }

    #[test]
    fn extremes_are_recorded_at_the_bounds() {
        let mut latencies = Latencies::new();
        latencies.record(0, 2);
        latencies.record(u64::MAX, 1);
        assert_eq!(latencies.summary().samples, 3);
        assert!(latencies.summary().max_us >= 99_000_000.0);
    }

    #[test]
    fn an_empty_histogram_has_a_summary() {
        assert_eq!(Latencies::new().summary().samples, 0);
    }
}
