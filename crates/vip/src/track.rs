//! What the local load balancer's health makes of this host's priority. Pure: no socket, no clock.
//!
//! ```text
//!   lb says       level      effective priority
//!   up            Full       as configured
//!   degraded      Degraded   1: last resort, so the VIP does not vanish when brokers are away everywhere
//!   down, gone,   Fault      none: this host must not hold the VIP
//!   silent
//! ```
//!
//! A level falls at once. It rises only after the lb has kept it for [`hold_down`], and while the lb has been unsteady it
//! rises by way of the last resort: flapping health costs this host its rank, not the network its VIP. The hold for full
//! rank doubles with every fall that comes within [`FLAP_MEMORY`] of the rise before it, up to [`LONGEST_HOLD`].

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use evermq_daemon::health::Health;

/// Priority of a host whose lb reaches no broker. Configured priorities start at 2.
pub const LAST_RESORT: u8 = 1;

/// Between two attempts to connect to an lb that is absent.
pub const RECONNECT: Duration = Duration::from_millis(20);

/// A fall this soon after a rise counts as flapping.
pub const FLAP_MEMORY: Duration = Duration::from_secs(10);

/// Longest hold before an unsteady host gets its configured priority back.
pub const LONGEST_HOLD: Duration = Duration::from_secs(5);

/// How long an lb must keep a better level before it counts: three advertisements, the time in which peers notice as well.
#[must_use]
pub fn hold_down(advert_interval: Duration) -> Duration {
    advert_interval * 3
}

/// What does not change while the program runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The configured priority, 2 to 254.
    pub priority: u8,
    /// An lb that says nothing for this long is taken for dead.
    pub lb_timeout: Duration,
    /// See [`hold_down`].
    pub hold_down: Duration,
}

/// This host's standing in elections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// Priority to advertise; none where this host must not hold the VIP.
    pub priority: Option<u8>,
    /// Why.
    pub cause: Cause,
}

/// Why a host has the effective priority that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The lb has not been reached since this program started.
    LbNotSeen,
    /// The lb's socket refuses, is missing, or has ended.
    LbGone,
    /// The lb is connected and says nothing.
    LbSilent,
    /// The lb says that it is down.
    LbDown,
    /// The lb is back; the hold-down runs.
    LbHeldDown,
    /// The lb reaches no broker.
    LbDegraded,
    /// The lb is up and was unsteady before; a longer hold-down runs.
    LbUnsteady,
    /// The lb is up.
    LbUp,
}

/// What the driver has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to the lb, then call [`Tracker::handle_connected`] or [`Tracker::handle_lost`].
    Connect,
    /// The effective priority, or its cause, is now this.
    Effective(Effective),
}

/// Follows the lb's stream of health lines.
#[derive(Debug)]
pub struct Tracker {
    settings: Settings,
    lb: Lb,
    level: Level,
    effective: Effective,
    rise: Option<Rise>,
    rose_at: Option<Instant>,
    flaps: u32,
    actions: VecDeque<Action>,
}

/// What is known of the lb.
#[derive(Debug, Clone, Copy)]
enum Lb {
    Absent { cause: Cause, retry: Instant },
    Connected { before: Cause, patience: Instant },
    Speaking { health: Health, patience: Instant },
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Fault,
    Degraded,
    Full,
}

/// A better level on trial.
#[derive(Debug, Clone, Copy)]
struct Rise {
    to: Level,
    at: Instant,
}

impl Tracker {
    /// A tracker that has not seen its lb; the first action is to connect.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            lb: Lb::Absent { cause: Cause::LbNotSeen, retry: now },
            level: Level::Fault,
            effective: Effective { priority: None, cause: Cause::LbNotSeen },
            rise: None,
            rose_at: None,
            flaps: 0,
            actions: VecDeque::from([Action::Connect]),
        }
    }

    /// The effective priority as last given out.
    #[must_use]
    pub fn effective(&self) -> Effective {
        self.effective
    }

    /// The lb accepted the connection.
    pub fn handle_connected(&mut self, now: Instant) {
        let before = match self.lb {
            Lb::Absent { cause, .. } | Lb::Connected { before: cause, .. } => cause,
            Lb::Speaking { .. } | Lb::Silent => Cause::LbGone,
        };
        self.lb = Lb::Connected { before, patience: now + self.settings.lb_timeout };
        self.judge(now);
    }

    /// The lb refused, ended the stream, or broke the protocol.
    pub fn handle_lost(&mut self, now: Instant) {
        let cause = match self.lb {
            Lb::Absent { cause, .. } => cause,
            Lb::Connected { .. } | Lb::Speaking { .. } | Lb::Silent => Cause::LbGone,
        };
        self.lb = Lb::Absent { cause, retry: now + RECONNECT };
        self.judge(now);
    }

    /// The lb said how it is.
    pub fn handle_health(&mut self, health: Health, now: Instant) {
        self.lb = Lb::Speaking { health, patience: now + self.settings.lb_timeout };
        self.judge(now);
    }

    /// A deadline of [`Tracker::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let lb_timeout = self.settings.lb_timeout;
        match &mut self.lb {
            Lb::Absent { retry, .. } if *retry <= now => {
                *retry = now + RECONNECT;
                self.actions.push_back(Action::Connect);
            }
            // Twice as late as the lb could make us: it is we who were stopped, so the lb gets a fresh chance to speak.
            Lb::Connected { patience, .. } | Lb::Speaking { patience, .. } if *patience + lb_timeout < now => {
                *patience = now + lb_timeout;
            }
            Lb::Connected { patience, .. } | Lb::Speaking { patience, .. } if *patience <= now => self.lb = Lb::Silent,
            Lb::Absent { .. } | Lb::Connected { .. } | Lb::Speaking { .. } | Lb::Silent => {}
        }
        self.judge(now);
        if let Some(Rise { to, at }) = self.rise
            && at <= now
        {
            self.rise(to, now);
        }
    }

    /// When [`Tracker::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lb = match self.lb {
            Lb::Absent { retry, .. } => Some(retry),
            Lb::Connected { patience, .. } | Lb::Speaking { patience, .. } => Some(patience),
            Lb::Silent => None,
        };
        [lb, self.rise.map(|rise| rise.at)].into_iter().flatten().min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The level that the lb's last word stands for.
    fn heard(&self) -> (Level, Cause) {
        match self.lb {
            Lb::Absent { cause, .. } | Lb::Connected { before: cause, .. } => (Level::Fault, cause),
            Lb::Silent => (Level::Fault, Cause::LbSilent),
            Lb::Speaking { health: Health::Down, .. } => (Level::Fault, Cause::LbDown),
            Lb::Speaking { health: Health::Degraded, .. } => (Level::Degraded, Cause::LbDegraded),
            Lb::Speaking { health: Health::Up, .. } => (Level::Full, Cause::LbUp),
        }
    }

    /// Falls at once, starts to rise, or keeps rising.
    fn judge(&mut self, now: Instant) {
        let (heard, cause) = self.heard();
        match heard.cmp(&self.level) {
            std::cmp::Ordering::Less => {
                if self.level == Level::Full {
                    let flapping = self.rose_at.is_some_and(|rose| now.saturating_duration_since(rose) < FLAP_MEMORY);
                    self.flaps = if flapping { self.flaps.saturating_add(1) } else { 0 };
                }
                self.rise = None;
                self.level = heard;
                self.give(cause);
            }
            std::cmp::Ordering::Equal => {
                self.rise = None;
                self.give(cause);
            }
            std::cmp::Ordering::Greater => {
                if self.rise.is_none_or(|rise| rise.to != heard) {
                    self.rise = Some(Rise { to: heard, at: now + self.hold(heard) });
                    self.give(if self.level == Level::Fault { Cause::LbHeldDown } else { Cause::LbUnsteady });
                }
            }
        }
    }

    /// The trial is over.
    fn rise(&mut self, to: Level, now: Instant) {
        if self.level == Level::Fault && to == Level::Full && self.flaps > 0 {
            self.level = Level::Degraded;
            self.rise = Some(Rise { to, at: now + self.hold(to) });
            self.give(Cause::LbUnsteady);
            return;
        }
        self.level = to;
        self.rise = None;
        if to == Level::Full {
            self.rose_at = Some(now);
        }
        let (_, cause) = self.heard();
        self.give(cause);
    }

    fn hold(&self, to: Level) -> Duration {
        let shortest = self.settings.hold_down;
        if self.level == Level::Fault || to == Level::Degraded {
            return shortest;
        }
        let doubled = shortest.saturating_mul(1_u32.checked_shl(self.flaps).unwrap_or(u32::MAX));
        doubled.min(LONGEST_HOLD).max(shortest)
    }

    fn give(&mut self, cause: Cause) {
        let priority = match self.level {
            Level::Fault => None,
            Level::Degraded => Some(LAST_RESORT),
            Level::Full => Some(self.settings.priority),
        };
        let effective = Effective { priority, cause };
        if effective != self.effective {
            self.effective = effective;
            self.actions.push_back(Action::Effective(effective));
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LbNotSeen => "the local lb has not been reached yet",
            Self::LbGone => "the local lb is gone",
            Self::LbSilent => "the local lb is silent",
            Self::LbDown => "the local lb reports that it is down",
            Self::LbHeldDown => "the local lb is back, hold-down",
            Self::LbDegraded => "the local lb reaches no broker",
            Self::LbUnsteady => "the local lb is up and was not before, hold-down",
            Self::LbUp => "the local lb is up",
        })
    }
}

#[cfg(test)]
mod tests;
