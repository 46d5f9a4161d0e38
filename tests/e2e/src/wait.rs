//! Conditions with a deadline: no test sleeps for a time and hopes.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Asks `condition` until it gives something, and gives that with the time it took. Panics, saying `what`, after `limit`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> (T, Duration) {
    let begin = now();
    loop {
        if let Some(value) = condition() {
            return (value, begin.elapsed());
        }
        assert!(begin.elapsed() < limit, "not within {limit:?}: {what}");
        pause(STEP);
    }
}

/// The time now.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a test measures real time")]
    Instant::now()
}

/// Lets real time pass: between two looks at a condition, or where the passing of time is what is tested.
pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "programs under test run in real time")]
    std::thread::sleep(time);
}
