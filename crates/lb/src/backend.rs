//! What one backend is good for: its standing session says so, and so do refused connects of clients.
//!
//! ```text
//!                    session up                          connect refused
//!   Unproven ───────────────────────────────▶ Up ─────────────────────────▶ Suspect
//!      │                                      ▲ │  ◀───────────────────────── │
//!      │ session failed                       │ │    ejection time is over    │
//!      ▼                           session up │ │ session lost                │ session lost
//!     Down ◀───────────────────────────────── │ ┴──────────────▶ Down ◀───────┘
//!      │ ▲                                    │
//!      │ └── gone: refused, silent            │
//!      ▼                                      │
//!   Rejecting (TCP answers, but our session is refused) ───────┘
//! ```
//!
//! The session is the authority. A refused connect under a session that stands says something that the session cannot
//! see (the listener is closed or its queue is full), so new clients go elsewhere for a growing time, and those that the
//! backend has stay there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::health::Failure;

/// How long new clients keep away after a first refused connect under a standing session.
pub const EJECTION_FIRST: Duration = Duration::from_millis(100);
/// The longest such time; it doubles each time.
pub const EJECTION_LONGEST: Duration = Duration::from_secs(1);
/// Without a refused connect for this long the time starts over.
pub const EJECTION_FORGOTTEN: Duration = Duration::from_secs(10);

/// What a backend is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Standing {
    /// Its session stands: it gets clients.
    Up = 0,
    /// Nothing is known yet: it gets clients if none is up.
    Unproven = 1,
    /// Its session stands, but it refused a client: it gets more only if nobody else is left.
    Suspect = 2,
    /// It answers, but refuses our session (certificate, CONNACK): a last resort, for its clients may fare better.
    Rejecting = 3,
    /// Gone: it gets nobody, and who was there has been sent away.
    Down = 4,
}

impl Standing {
    /// Every standing, best first.
    pub const ALL: [Self; 5] = [Self::Up, Self::Unproven, Self::Suspect, Self::Rejecting, Self::Down];

    /// The order in which backends are tried, lowest first; `None`: not at all.
    #[must_use]
    pub const fn rank(self) -> Option<u8> {
        match self {
            Self::Up | Self::Unproven | Self::Suspect | Self::Rejecting => Some(self as u8),
            Self::Down => None,
        }
    }

    /// Whether its session stands.
    #[must_use]
    pub const fn has_session(self) -> bool {
        match self {
            Self::Up | Self::Suspect => true,
            Self::Unproven | Self::Rejecting | Self::Down => false,
        }
    }

    /// Its name in logs and in the control socket's answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unproven => "unproven",
            Self::Suspect => "suspect",
            Self::Rejecting => "rejecting",
            Self::Down => "down",
        }
    }

    /// The standing whose representation is `value`.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Up),
            1 => Some(Self::Unproven),
            2 => Some(Self::Suspect),
            3 => Some(Self::Rejecting),
            4 => Some(Self::Down),
            _ => None,
        }
    }
}

/// Why a client's connection to a backend was not made, where that is the backend's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// It answered with a reset.
    #[error("refused a client's connection")]
    Refused = 0,
    /// It did not answer in time.
    #[error("did not answer a client's connection in time")]
    TimedOut = 1,
    /// No way there.
    #[error("unreachable for a client's connection")]
    Unreachable = 2,
}

impl Refusal {
    /// The refusal whose representation is `value`.
    #[must_use]
    pub const fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Refused,
            1 => Self::TimedOut,
            _ => Self::Unreachable,
        }
    }
}

/// Why a standing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// CONNACK came.
    #[error("its session stands")]
    SessionUp,
    /// The session or the attempt to make it failed.
    #[error("{0}")]
    Session(#[from] Failure),
    /// A client was not let in.
    #[error("{0}")]
    Refusal(#[from] Refusal),
    /// Time to try it with a client again.
    #[error("its session stands and the ejection time is over")]
    EjectionOver,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this known to the workers and to the log.
    Change {
        /// The standing until now.
        from: Standing,
        /// The standing from now on.
        to: Standing,
        /// Why.
        reason: Reason,
    },
    /// Close all its clients' connections.
    CloseClients,
}

/// One backend.
#[derive(Debug)]
pub struct Backend {
    standing: Standing,
    /// While suspect: when it is tried again.
    ejected_until: Option<Instant>,
    /// How long the next ejection lasts.
    ejection: Duration,
    last_refusal: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Default for Backend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend {
    /// A backend of which nothing is known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            standing: Standing::Unproven,
            ejected_until: None,
            ejection: EJECTION_FIRST,
            last_refusal: None,
            actions: VecDeque::new(),
        }
    }

    /// What it is good for now.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// Its session stands.
    pub fn handle_session_up(&mut self) {
        match self.standing {
            Standing::Unproven | Standing::Rejecting | Standing::Down => {
                // Its listener has just let us in, whatever it did before.
                self.ejection = EJECTION_FIRST;
                self.change_to(Standing::Up, Reason::SessionUp);
            }
            Standing::Up | Standing::Suspect => {}
        }
    }

    /// Its session ended, or could not be made.
    pub fn handle_session_failed(&mut self, failure: Failure) {
        let to = match &failure {
            // Our own lack of descriptors says nothing about the backend, unless it has cost us the session.
            Failure::Local(_) if !self.standing.has_session() => return,
            Failure::Rejected(_) => Standing::Rejecting,
            Failure::Refused
            | Failure::Unreachable(_)
            | Failure::ConnectTimeout
            | Failure::HandshakeTimeout
            | Failure::Closed
            | Failure::NoAnswer
            | Failure::Local(_) => Standing::Down,
        };
        self.change_to(to, Reason::Session(failure));
    }

    /// A client's connect was refused, timed out or found no way.
    pub fn handle_refusal(&mut self, refusal: Refusal, now: Instant) {
        match self.standing {
            Standing::Up => {
                self.eject(now);
                self.change_to(Standing::Suspect, Reason::Refusal(refusal));
            }
            Standing::Suspect => {
                // Several clients may have been on their way at once: they are one refusal. A later one, tried as a last
                // resort, is not.
                if self.last_refusal.is_some_and(|last| now.duration_since(last) >= EJECTION_FIRST / 2) {
                    self.eject(now);
                }
            }
            Standing::Unproven | Standing::Rejecting => self.change_to(Standing::Down, Reason::Refusal(refusal)),
            Standing::Down => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ejected_until.is_some_and(|until| until <= now) {
            self.change_to(Standing::Up, Reason::EjectionOver);
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.ejected_until
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn eject(&mut self, now: Instant) {
        if self.last_refusal.is_none_or(|last| now.duration_since(last) >= EJECTION_FORGOTTEN) {
            self.ejection = EJECTION_FIRST;
        }
        self.last_refusal = Some(now);
        self.ejected_until = Some(now + self.ejection);
        self.ejection = (self.ejection * 2).min(EJECTION_LONGEST);
    }

    fn change_to(&mut self, to: Standing, reason: Reason) {
        let from = self.standing;
        if to != Standing::Suspect {
            self.ejected_until = None;
        }
        if from == to {
            return;
        }
        self.standing = to;
        self.actions.push_back(Action::Change { from, to, reason });
        if to == Standing::Down {
            self.actions.push_back(Action::CloseClients);
        }
    }
}

#[cfg(test)]
mod tests;
