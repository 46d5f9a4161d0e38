//! When a script runs, and what its runs amount to. Pure: no process, no clock.
//!
//! ```text
//!            due                         exit: count it
//!   Waiting ------> Running(deadline) -----------------> Waiting
//!                        |                                  ^
//!                        | deadline: count a failure        | exit
//!                        +------------> Killed -------------+
//! ```
//!
//! Runs start `interval` apart, from start to start. A script is never run twice at a time: starts that fall due while it
//! still runs are left out. The first run decides; then it takes `fall` failures in a row until it has failed, and `rise` good
//! runs in a row until it is good again. A run that is killed at its timeout is one failure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Verdict;

/// How a script is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// From start to start.
    pub interval: Duration,
    /// A run that takes longer is killed.
    pub timeout: Duration,
    /// Good runs in a row until it is good.
    pub rise: u8,
    /// Failures in a row until it has failed.
    pub fall: u8,
}

/// What the runner has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the script, and call [`Check::handle_exit`] when it has ended or could not start.
    Run,
    /// End it, then call [`Check::handle_exit`].
    Kill,
    /// The verdict has changed.
    Tell(Verdict),
}

/// One script's schedule and counts.
#[derive(Debug)]
pub struct Check {
    settings: Settings,
    phase: Phase,
    /// When the next run is due.
    next: Instant,
    standing: Standing,
    /// Whether the verdict has been told since this check began.
    told: bool,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Waiting,
    Running { deadline: Instant },
    Killed,
}

/// What the runs so far amount to.
#[derive(Debug, Clone, Copy)]
enum Standing {
    Unknown,
    /// With failures since the last good run.
    Good {
        failures: u8,
    },
    /// With good runs since the last failure.
    Failed {
        successes: u8,
    },
}

impl Check {
    /// A check that runs at once, and goes on from the verdict before a reload. The first run that agrees with it tells it
    /// once more, should it have got lost on the way.
    #[must_use]
    pub fn new(settings: Settings, before: Verdict, now: Instant) -> Self {
        let standing = match before {
            Verdict::Pending | Verdict::Value(_) => Standing::Unknown,
            Verdict::Good => Standing::Good { failures: 0 },
            Verdict::Failed => Standing::Failed { successes: 0 },
        };
        let mut check = Self {
            settings,
            phase: Phase::Waiting,
            next: now,
            standing,
            told: false,
            actions: VecDeque::with_capacity(2),
        };
        check.start(now);
        check
    }

    /// The script has ended, or could not be started.
    pub fn handle_exit(&mut self, passed: bool, now: Instant) {
        match self.phase {
            Phase::Running { .. } => self.count(passed),
            // Counted when it was killed.
            Phase::Killed => {}
            Phase::Waiting => return,
        }
        self.phase = Phase::Waiting;
        if self.next <= now {
            self.next = self.following(now);
        }
    }

    /// A deadline of [`Check::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Waiting if self.next <= now => self.start(now),
            Phase::Running { deadline } if deadline <= now => {
                self.phase = Phase::Killed;
                // The verdict first: killing may take its time.
                self.count(false);
                self.actions.push_back(Action::Kill);
            }
            Phase::Waiting | Phase::Running { .. } | Phase::Killed => {}
        }
    }

    /// When [`Check::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting => Some(self.next),
            Phase::Running { deadline } => Some(deadline),
            Phase::Killed => None,
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn start(&mut self, now: Instant) {
        self.phase = Phase::Running { deadline: now + self.settings.timeout };
        self.next = self.following(now);
        self.actions.push_back(Action::Run);
    }

    /// The first start after `now` of the series, so that a late one does not shift those that follow.
    fn following(&self, now: Instant) -> Instant {
        let interval = self.settings.interval.max(Duration::from_millis(1));
        let late = now.saturating_duration_since(self.next);
        let missed = u32::try_from(late.as_nanos() / interval.as_nanos()).unwrap_or(u32::MAX);
        let next = self.next + interval.saturating_mul(missed.saturating_add(1));
        if next > now { next } else { now + interval }
    }

    fn count(&mut self, passed: bool) {
        let (rise, fall) = (self.settings.rise, self.settings.fall);
        let verdict = if passed { Verdict::Good } else { Verdict::Failed };
        let (standing, tell) = match (self.standing, passed) {
            (Standing::Unknown, true) => (Standing::Good { failures: 0 }, true),
            (Standing::Unknown, false) => (Standing::Failed { successes: 0 }, true),
            (Standing::Good { .. }, true) => (Standing::Good { failures: 0 }, !self.told),
            (Standing::Failed { .. }, false) => (Standing::Failed { successes: 0 }, !self.told),
            (Standing::Good { failures }, false) if failures.saturating_add(1) < fall => {
                (Standing::Good { failures: failures + 1 }, false)
            }
            (Standing::Good { .. }, false) => (Standing::Failed { successes: 0 }, true),
            (Standing::Failed { successes }, true) if successes.saturating_add(1) < rise => {
                (Standing::Failed { successes: successes + 1 }, false)
            }
            (Standing::Failed { .. }, true) => (Standing::Good { failures: 0 }, true),
        };
        self.standing = standing;
        if tell {
            self.told = true;
            self.actions.push_back(Action::Tell(verdict));
        }
    }
}

#[cfg(test)]
mod tests;
