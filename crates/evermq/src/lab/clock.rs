//! The lab's one clock: time on the monotonic clock, which all processes of a lab share.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;
use nix::time::{ClockId, clock_gettime};

/// Now.
#[expect(clippy::disallowed_methods, reason = "the lab drives real processes, it holds no state machine")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass before something is asked again that offers no event to wait for.
#[expect(
    clippy::disallowed_methods,
    reason = "another process's state can only be asked for; every caller has a deadline"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Time on the monotonic clock, comparable between processes of one machine.
pub(super) fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// `timeout` for poll(2), rounded up, so that a wait never ends early and spins.
pub(super) fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    timeout.map_or(PollTimeout::NONE, |timeout| {
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    })
}
