//! Whether the workers still turn, and what evermq-vip is told.
//!
//! Each worker counts up a beat of its own. The control thread samples all beats at the same interval; a worker whose beat
//! stays the same for [`MISSED_SAMPLES`] samples is stalled. Counting samples rather than time, a pause of the whole
//! machine, in which the control thread stood still as well, stalls nobody.

use std::time::Duration;

use evermq_daemon::health::Health;

/// Between two beats, and between two samples.
pub const BEAT: Duration = Duration::from_millis(50);
/// Samples without a beat after which a worker is stalled: half a second, far longer than any turn of a busy worker.
pub const MISSED_SAMPLES: u32 = 10;

/// What is known of one worker.
#[derive(Debug, Clone, Copy)]
struct Beat {
    last: u64,
    missed: u32,
}

/// The workers' beats.
#[derive(Debug)]
pub struct Pulse {
    beats: Vec<Beat>,
}

impl Pulse {
    /// Workers that have not begun: stalled until their first beat.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { beats: vec![Beat { last: 0, missed: MISSED_SAMPLES }; workers] }
    }

    /// A sample of all workers' beats, in the workers' order.
    pub fn handle_sample(&mut self, sample: impl IntoIterator<Item = u64>) {
        for (beat, now) in self.beats.iter_mut().zip(sample) {
            if now == beat.last {
                beat.missed = beat.missed.saturating_add(1);
            } else {
                *beat = Beat { last: now, missed: 0 };
            }
        }
    }

    /// The first worker that is stalled.
    #[must_use]
    pub fn stalled(&self) -> Option<usize> {
        self.beats.iter().position(|beat| beat.missed >= MISSED_SAMPLES)
    }
}

/// What counts for the health towards evermq-vip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// The program is on its way out.
    pub draining: bool,
    /// A worker has lost its listener or ended.
    pub worker_lost: bool,
    /// A worker does not turn.
    pub worker_stalled: bool,
    /// A session to some backend stands.
    pub any_backend: bool,
}

impl Condition {
    /// The health, and why.
    #[must_use]
    pub const fn health(self) -> (Health, &'static str) {
        if self.draining {
            (Health::Down, "draining")
        } else if self.worker_lost {
            (Health::Down, "a worker has lost its listener")
        } else if self.worker_stalled {
            (Health::Down, "a worker does not turn")
        } else if self.any_backend {
            (Health::Up, "serving")
        } else {
            (Health::Degraded, "no broker is up")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_stalled_until_its_first_beat() {
        let mut pulse = Pulse::new(2);
        assert_eq!(pulse.stalled(), Some(0));
        pulse.handle_sample([1, 0]);
        assert_eq!(pulse.stalled(), Some(1));
        pulse.handle_sample([1, 1]);
        assert_eq!(pulse.stalled(), None);
    }

    #[test]
    fn a_worker_is_stalled_after_the_stated_number_of_samples_and_recovers_at_once() {
        let mut pulse = Pulse::new(2);
        pulse.handle_sample([1, 1]);
        for sample in 1..MISSED_SAMPLES {
            pulse.handle_sample([u64::from(sample) + 1, 1]);
            assert_eq!(pulse.stalled(), None, "after {sample}");
        }
        pulse.handle_sample([100, 1]);
        assert_eq!(pulse.stalled(), Some(1));
        pulse.handle_sample([101, 2]);
        assert_eq!(pulse.stalled(), None);
    }

    #[test]
    fn health_of_every_condition() {
        let any = [false, true];
        for draining in any {
            for worker_lost in any {
                for worker_stalled in any {
                    for any_backend in any {
                        let condition = Condition { draining, worker_lost, worker_stalled, any_backend };
                        let expected = match (draining || worker_lost || worker_stalled, any_backend) {
                            (true, _) => Health::Down,
                            (false, true) => Health::Up,
                            (false, false) => Health::Degraded,
                        };
                        assert_eq!(condition.health().0, expected, "{condition:?}");
                    }
                }
            }
        }
    }
}
