//! What the stream of the local lb's health lines amounts to.
//!
//! ```text
//!   lb says       level
//!   up            Full
//!   degraded      Degraded
//!   down, gone,   Fault
//!   silent
//! ```

use std::time::{Duration, Instant};

use evermq_daemon::health::Health;

use super::steady::Steady;
use super::{Cause, Level, RECONNECT, Settings};

/// The local lb as this host hears it.
#[derive(Debug)]
pub(super) struct Lb {
    link: Link,
    steady: Steady,
}

/// What is known of the lb.
#[derive(Debug, Clone, Copy)]
enum Link {
    Absent { cause: Cause, retry: Instant },
    Connected { before: Cause, patience: Instant },
    Speaking { health: Health, patience: Instant },
    Silent,
}

impl Lb {
    /// An lb that has not been seen.
    pub(super) fn new(now: Instant) -> Self {
        Self { link: Link::Absent { cause: Cause::LbNotSeen, retry: now }, steady: Steady::new(Level::Fault) }
    }

    /// The level that counts, and why.
    pub(super) fn standing(&self) -> (Level, Cause) {
        let level = self.steady.level();
        let cause = match (self.steady.on_trial(), level) {
            (true, Level::Fault) => Cause::LbHeldDown,
            (true, Level::Degraded | Level::Full) => Cause::LbUnsteady,
            (false, Level::Fault | Level::Degraded | Level::Full) => self.heard().1,
        };
        (level, cause)
    }

    pub(super) fn handle_connected(&mut self, settings: &Settings, now: Instant) {
        let before = match self.link {
            Link::Absent { cause, .. } | Link::Connected { before: cause, .. } => cause,
            Link::Speaking { .. } | Link::Silent => Cause::LbGone,
        };
        self.link = Link::Connected { before, patience: now + settings.lb_timeout };
        self.judge(settings.hold_down, now);
    }

    pub(super) fn handle_lost(&mut self, settings: &Settings, now: Instant) {
        let cause = match self.link {
            Link::Absent { cause, .. } => cause,
            Link::Connected { .. } | Link::Speaking { .. } | Link::Silent => Cause::LbGone,
        };
        self.link = Link::Absent { cause, retry: now + RECONNECT };
        self.judge(settings.hold_down, now);
    }

    pub(super) fn handle_health(&mut self, health: Health, settings: &Settings, now: Instant) {
        self.link = Link::Speaking { health, patience: now + settings.lb_timeout };
        self.judge(settings.hold_down, now);
    }

    /// Whether it is time to connect.
    #[must_use]
    pub(super) fn handle_timeout(&mut self, settings: &Settings, now: Instant) -> bool {
        let lb_timeout = settings.lb_timeout;
        let mut connect = false;
        match &mut self.link {
            Link::Absent { retry, .. } if *retry <= now => {
                *retry = now + RECONNECT;
                connect = true;
            }
            // Twice as late as the lb could make us: it is we who were stopped, so the lb gets a fresh chance to speak.
            Link::Connected { patience, .. } | Link::Speaking { patience, .. } if *patience + lb_timeout < now => {
                *patience = now + lb_timeout;
            }
            Link::Connected { patience, .. } | Link::Speaking { patience, .. } if *patience <= now => {
                self.link = Link::Silent;
            }
            Link::Absent { .. } | Link::Connected { .. } | Link::Speaking { .. } | Link::Silent => {}
        }
        self.judge(settings.hold_down, now);
        self.steady.handle_timeout(settings.hold_down, now);
        connect
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Absent { retry, .. } => Some(retry),
            Link::Connected { patience, .. } | Link::Speaking { patience, .. } => Some(patience),
            Link::Silent => None,
        };
        [link, self.steady.poll_timeout()].into_iter().flatten().min()
    }

    /// The level that the lb's last word stands for.
    fn heard(&self) -> (Level, Cause) {
        match self.link {
            Link::Absent { cause, .. } | Link::Connected { before: cause, .. } => (Level::Fault, cause),
            Link::Silent => (Level::Fault, Cause::LbSilent),
            Link::Speaking { health: Health::Down, .. } => (Level::Fault, Cause::LbDown),
            Link::Speaking { health: Health::Degraded, .. } => (Level::Degraded, Cause::LbDegraded),
            Link::Speaking { health: Health::Up, .. } => (Level::Full, Cause::LbUp),
        }
    }

    fn judge(&mut self, hold_down: Duration, now: Instant) {
        let (heard, _) = self.heard();
        self.steady.hear(heard, hold_down, now);
    }
}

#[cfg(test)]
mod tests;
