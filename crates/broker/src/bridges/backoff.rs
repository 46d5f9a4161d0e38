//! ◆ How long to wait before the next attempt to reach a remote broker: twice as long each time, with jitter.

use std::time::Duration;

/// Waits between attempts.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed` should differ from bridge to bridge and from start to start.
    #[must_use]
    pub fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        // xorshift stands still at 0.
        Self { first, longest, failures: 0, random: seed | 1 }
    }

    /// The next wait: between a half and the whole of `first`, twice that, and so on up to `longest`.
    pub fn handle_failure(&mut self) -> Duration {
        let wait = self.first.saturating_mul(1 << self.failures.min(20)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        // Marsaglia's xorshift64: jitter needs no more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        wait / 2 + (wait / 2).mul_f64((self.random >> 32) as f64 / f64::from(u32::MAX))
    }

    /// A connection has lasted: the next wait is a short one.
    pub fn handle_success(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_over() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, longest, 0);
        for _ in 0..2 {
            for attempt in 0..40 {
                let most = first.saturating_mul(1 << attempt.min(20)).min(longest);
                let wait = backoff.handle_failure();
                assert!(wait >= most / 2 && wait <= most, "attempt {attempt}: {wait:?}");
            }
            backoff.handle_success();
        }
    }
}
