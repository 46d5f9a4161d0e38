//! One log line for many of a kind.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long nothing more is said.
const QUIET: Duration = Duration::from_secs(60);

/// When it was said last, and how often it has happened since. Pure but for its lock.
#[derive(Debug, Default)]
pub struct Notice(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    since: u64,
}

impl Notice {
    /// It has happened once more. Gives how often since it was said last, if it is to be said now.
    pub fn count(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.since += 1;
        if state.said.is_some_and(|said| now.saturating_duration_since(said) < QUIET) {
            return None;
        }
        state.said = Some(now);
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::clock;

    #[test]
    fn the_first_and_then_one_a_minute() {
        let (notice, start) = (Notice::default(), clock());
        let at = |seconds| notice.count(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(59), at(60), at(61), at(200)], [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
