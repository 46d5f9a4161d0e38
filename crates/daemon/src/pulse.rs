//! Whether the threads of a program still turn: each counts, and whoever tells systemd that the program lives looks at the counts.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::notify::{self, Watchdog};

/// Between two beats of a thread that has nothing else to do.
const BEAT: Duration = Duration::from_millis(250);

/// What one thread counts up while it turns.
#[derive(Debug, Clone, Default)]
pub struct Beat(Arc<AtomicU64>);

impl Beat {
    /// The thread turns.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts as long as the runtime that drives this turns.
    pub async fn run(&self) -> Infallible {
        loop {
            self.count();
            tokio::time::sleep(BEAT).await;
        }
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Several threads' beats, since they were looked at last. Pure.
#[derive(Debug)]
pub struct Pulse {
    seen: Vec<u64>,
}

impl Pulse {
    /// Of so many threads, which have not begun.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { seen: vec![0; threads] }
    }

    /// Whether every thread has turned since this was true last.
    pub fn handle_sample(&mut self, beats: &[u64]) -> bool {
        let all = self.seen.len() == beats.len() && self.seen.iter().zip(beats).all(|(seen, beat)| seen != beat);
        if all {
            self.seen.copy_from_slice(beats);
        }
        all
    }
}

/// Tells systemd that the program lives, while all of its threads turn, and the one that drives this. Until `end`.
pub async fn watch_over(beats: Vec<Beat>, end: CancellationToken) {
    let Some(every) = Watchdog::from_environment().every() else { return end.cancelled().await };
    let mut pulse = Pulse::new(beats.len());
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let values: Vec<u64> = beats.iter().map(Beat::value).collect();
        if pulse.handle_sample(&values) {
            notify::alive();
        } else {
            tracing::warn!("a thread does not turn: systemd restarts the program if that goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_that_stands_still_is_enough() {
        let mut pulse = Pulse::new(2);
        assert!(!pulse.handle_sample(&[0, 0]), "none has begun");
        assert!(!pulse.handle_sample(&[1, 0]));
        assert!(pulse.handle_sample(&[1, 1]), "one turns less often");
        assert!(!pulse.handle_sample(&[9, 1]));
        assert!(pulse.handle_sample(&[9, 2]));
    }
}
