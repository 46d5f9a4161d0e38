//! What one backend is good for: its session (or its probes) says so, the broker itself says so over that session, and so do
//! connections of clients that fail there.
//!
//! ```text
//!                    session up                          clients fail there
//!   Unproven ───────────────────────────────▶ Up ─────────────────────────▶ Suspect
//!      │                                      ▲ │  ◀───────────────────────── │
//!      │ session failed                       │ │    ejection time is over    │
//!      ▼                           session up │ │ session lost                │ session lost
//!     Down ◀───────────────────────────────── │ ┴──────────────▶ Down ◀───────┘
//!      │ ▲                                    │                   ▲
//!      │ └── gone: refused, silent            │                   │ session lost
//!      ▼                                      │                   │
//!   Rejecting (TCP answers, but our session is refused) ──────────┤
//!                                                                 │
//!   Up, Suspect ── says "draining" ──▶ Draining ──────────────────┤
//!   Up, Suspect ── says "not ready" ─▶ NotReady ──────────────────┘      says "ready" ──▶ Up
//! ```
//!
//! The session is the authority. A connection of a client that fails under a session that stands says something that the
//! session cannot see (the listener is closed or its queue is full, handshakes do not end), so new clients go elsewhere for
//! a growing time, and those that the backend has stay there. How many backends of a group may be left out so at once is
//! bounded: see [`crate::ejection`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evermq_daemon::cluster_topics::Readiness;

use crate::health::Failure;

/// How long new clients keep away after a first refused connect under a standing session.
pub const EJECTION_FIRST: Duration = Duration::from_millis(100);
/// The longest such time; it doubles each time.
pub const EJECTION_LONGEST: Duration = Duration::from_secs(1);
/// Without a refused connect for this long the time starts over.
pub const EJECTION_FORGOTTEN: Duration = Duration::from_secs(10);
/// So many clients in a row must have failed in a way that can also be a client's own doing.
pub const DOUBTFUL_LIMIT: u32 = 5;

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
    /// Its session stands, and it says that it is not ready: no new clients, those that it has stay.
    NotReady = 4,
    /// Its session stands, and it says that it is about to end: no new clients, those that it has stay until it sends them
    /// away.
    Draining = 5,
    /// Gone: it gets nobody, and who was there has been sent away.
    Down = 6,
}

impl Standing {
    /// Every standing, best first.
    pub const ALL: [Self; 7] =
        [Self::Up, Self::Unproven, Self::Suspect, Self::Rejecting, Self::NotReady, Self::Draining, Self::Down];

    /// The order in which backends are tried, lowest first; `None`: it gets no new clients.
    #[must_use]
    pub const fn rank(self) -> Option<u8> {
        match self {
            Self::Up | Self::Unproven | Self::Suspect | Self::Rejecting => Some(self as u8),
            Self::NotReady | Self::Draining | Self::Down => None,
        }
    }

    /// Whether its session stands.
    #[must_use]
    pub const fn has_session(self) -> bool {
        match self {
            Self::Up | Self::Suspect | Self::NotReady | Self::Draining => true,
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
            Self::NotReady => "not ready",
            Self::Draining => "draining",
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
            4 => Some(Self::NotReady),
            5 => Some(Self::Draining),
            6 => Some(Self::Down),
            _ => None,
        }
    }
}

/// Why a client's connection to a backend was of no use, where that is the backend's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum Refusal {
    /// The host answers, nobody listens.
    #[error("refused a client's connection")]
    Refused = 0,
    /// No answer within `connect_timeout`.
    #[error("did not answer a client's connection within connect_timeout")]
    TimedOut = 1,
    /// No way there.
    #[error("unreachable for a client's connection")]
    Unreachable = 2,
    /// The connection stood, and ended before the backend's first byte.
    #[error("closed clients' connections before its first byte")]
    ResetEarly = 3,
    /// The connection stood, and the backend did not answer the client's handshake in time.
    #[error("did not answer clients' handshakes in time")]
    HandshakeTimeout = 4,
}

impl Refusal {
    /// Every refusal.
    pub const ALL: [Self; 5] =
        [Self::Refused, Self::TimedOut, Self::Unreachable, Self::ResetEarly, Self::HandshakeTimeout];

    /// The refusal whose representation is `value`.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Refused),
            1 => Some(Self::TimedOut),
            2 => Some(Self::Unreachable),
            3 => Some(Self::ResetEarly),
            4 => Some(Self::HandshakeTimeout),
            _ => None,
        }
    }

    /// Whether a client can bring it about by what it sends. One such client must not keep the others away from a good
    /// backend, so only [`DOUBTFUL_LIMIT`] of these in a row count.
    #[must_use]
    pub const fn is_doubtful(self) -> bool {
        match self {
            Self::ResetEarly | Self::HandshakeTimeout => true,
            Self::Refused | Self::TimedOut | Self::Unreachable => false,
        }
    }
}

/// A connection of a client that failed, as the machine needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// How.
    pub refusal: Refusal,
    /// Connections that the backend has answered so far: whether there were good ones between two failures.
    pub answered: u64,
    /// Whether the group can do without this backend: see [`crate::ejection`].
    pub may_eject: bool,
}

/// Why a standing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// CONNACK came.
    #[error("its session stands")]
    SessionUp,
    /// Enough probes in a row were good.
    #[error("its probes succeed")]
    ProbesGood,
    /// It is not probed.
    #[error("it is not probed, so it counts as up")]
    NotProbed,
    /// The broker says so.
    #[error("it says \"{}\"", .0.word())]
    Says(Readiness),
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
    /// Doubtful refusals in a row, and what had been answered at the last one.
    doubtful: (u32, u64),
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
            doubtful: (0, 0),
            actions: VecDeque::new(),
        }
    }

    /// One that is known already: its probe begins anew. An ejection ends then, as nobody remembers its time.
    #[must_use]
    pub fn of(standing: Standing) -> Self {
        let standing = if standing == Standing::Suspect { Standing::Up } else { standing };
        Self { standing, ..Self::new() }
    }

    /// What it is good for now.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// It lives, for this reason: its session stands, or its probes are good.
    pub fn handle_alive(&mut self, reason: Reason) {
        match self.standing {
            Standing::Unproven | Standing::Rejecting | Standing::Down => {
                // Its listener has just let us in, whatever it did before.
                self.ejection = EJECTION_FIRST;
                self.doubtful.0 = 0;
                self.change_to(Standing::Up, reason);
            }
            Standing::Up | Standing::Suspect | Standing::NotReady | Standing::Draining => {}
        }
    }

    /// The broker says how it is.
    pub fn handle_readiness(&mut self, readiness: Readiness) {
        match (self.standing, readiness) {
            (Standing::Up | Standing::Suspect, Readiness::Ready) => {}
            (Standing::NotReady | Standing::Draining, Readiness::Ready) => {
                self.change_to(Standing::Up, Reason::Says(readiness));
            }
            (Standing::Up | Standing::Suspect | Standing::NotReady | Standing::Draining, Readiness::NotReady) => {
                self.change_to(Standing::NotReady, Reason::Says(readiness));
            }
            (Standing::Up | Standing::Suspect | Standing::NotReady | Standing::Draining, Readiness::Draining) => {
                self.change_to(Standing::Draining, Reason::Says(readiness));
            }
            // Without a session there is nobody who could have said it.
            (Standing::Unproven | Standing::Rejecting | Standing::Down, _) => {}
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

    /// A client's connection there failed.
    pub fn handle_refusal(&mut self, failed: Failed, now: Instant) {
        if !self.is_telling(failed) {
            return;
        }
        match self.standing {
            Standing::Up if failed.may_eject => {
                self.eject(now);
                self.change_to(Standing::Suspect, Reason::Refusal(failed.refusal));
            }
            // The others are fewer than they have to be: this one goes on.
            Standing::Up => {}
            Standing::Suspect => {
                // Several clients may have been on their way at once: they are one refusal. A later one, tried as a last
                // resort, is not.
                if self.last_refusal.is_some_and(|last| now.duration_since(last) >= EJECTION_FIRST / 2) {
                    self.eject(now);
                }
            }
            Standing::Unproven | Standing::Rejecting if !failed.refusal.is_doubtful() => {
                self.change_to(Standing::Down, Reason::Refusal(failed.refusal));
            }
            Standing::Unproven | Standing::Rejecting => {}
            // It has said already that it wants no more clients.
            Standing::NotReady | Standing::Draining | Standing::Down => {}
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

    /// Whether a failed connection says something of the backend.
    fn is_telling(&mut self, failed: Failed) -> bool {
        if !failed.refusal.is_doubtful() {
            return true;
        }
        let (count, answered) = self.doubtful;
        let count = if answered == failed.answered { count + 1 } else { 1 };
        let is_telling = count >= DOUBTFUL_LIMIT;
        self.doubtful = (if is_telling { 0 } else { count }, failed.answered);
        is_telling
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
