//! How long things took, counted in fixed buckets: any number of writers and readers, no lock.
//!
//! A worker has histograms of its own, so that writers do not share cache lines; whoever shows them adds those of all up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds; one more bucket has what is longer.
pub const BOUNDS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Buckets, the one without a bound included.
const BUCKETS: usize = BOUNDS.len() + 1;

/// Counts, as a rule of one worker.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

/// Counts of one or more histograms at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// What was counted until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let buckets = std::array::from_fn(|index| self.buckets[index].load(Ordering::Relaxed));
        Counts { buckets, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (mine, others) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.wrapping_add(others);
        }
        self.sum = self.sum.wrapping_add(other.sum);
        self
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// For each bound, how many took at most that long.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        BOUNDS.iter().zip(&self.buckets).scan(0, |seen, (bound, count)| {
            *seen += count;
            Some((Duration::from_micros(*bound), *seen))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_of_its_own_bucket() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 1_000, 30_000_000, 30_000_001, u64::MAX] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts = histogram.counts();
        let cumulative: Vec<(Duration, u64)> = counts.cumulative().collect();
        assert_eq!(cumulative[0], (Duration::from_micros(50), 1));
        assert_eq!(cumulative[3], (Duration::from_micros(500), 2));
        assert_eq!(cumulative[4], (Duration::from_millis(1), 4));
        assert_eq!(cumulative.last().copied(), Some((Duration::from_secs(30), 5)));
        assert_eq!(counts.total(), 7);
    }

    #[test]
    fn workers_add_up() {
        let (one, two) = (Histogram::default(), Histogram::default());
        one.observe(Duration::from_millis(3));
        two.observe(Duration::from_millis(4));
        two.observe(Duration::from_secs(1));
        let both = one.counts().plus(two.counts());
        assert_eq!((both.total(), both.sum()), (3, Duration::from_millis(1007)));
    }

    #[test]
    fn bounds_rise() {
        assert!(BOUNDS.is_sorted_by(|one, next| one < next));
    }
}
