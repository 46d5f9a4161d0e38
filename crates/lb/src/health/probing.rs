//! Probes of a backend that gets no standing session: again and again a connection, as deep as its kind goes.
//!
//! ```text
//!   Resting ──time──▶ Connecting ──TCP──▶ Securing ──TLS──▶ Introducing ──CONNACK──▶ good
//!      ▲                  │ └─ kind tcp: good │ └─ kind tls: good │
//!      └──────────────────┴── any failure, or the deadline: bad ──┘
//! ```
//!
//! `rise` good ones in a row make a backend live that counted as dead, `fall` bad ones make one dead that counted as alive.
//! The very first one counts by itself: it is all that is known.
//!
//! A CONNACK that refuses us proves that a broker lives and can read: it may well want a password that we do not have. Only
//! "server unavailable" (3.1.1 §3.2.2.3) is a broker's word that it cannot serve.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evermq_mqtt::{Packet, ReasonCode};

use super::Failure;

/// How much earlier or later than after an interval a probe comes, in percent: so that the probes of many lbs and backends
/// that began together do not stay together.
const JITTER_PERCENT: u64 = 10;
/// The shortest time between the end of a probe and the beginning of the next.
const SHORTEST_REST: Duration = Duration::from_millis(10);

/// How deep a probe goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the TCP connection.
    Tcp,
    /// To the end of the TLS handshake.
    Tls,
    /// To the CONNACK.
    Mqtt {
        /// Over TLS.
        tls: bool,
    },
}

/// How a backend is probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How deep.
    pub kind: Kind,
    /// For the TCP connection, within `timeout`.
    pub connect_timeout: Duration,
    /// From the beginning of one probe to that of the next.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Good ones in a row until the backend counts as alive.
    pub rise: u32,
    /// Bad ones in a row until it counts as dead.
    pub fall: u32,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin a TCP connection; then [`Probing::handle_connected`] or [`Probing::handle_failure`].
    Open,
    /// Begin TLS on it; then [`Probing::handle_secured`] or [`Probing::handle_failure`].
    Secure,
    /// Send CONNECT.
    Introduce,
    /// Send DISCONNECT, so that the broker does not count us as lost.
    Farewell,
    /// Drop the connection, in whatever state it is.
    Close,
    /// From now on the backend counts as alive.
    Alive,
    /// This probe was bad.
    Missed(Failure),
    /// From now on the backend counts as dead, for this reason; or it did already, and the reason is another one.
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Resting { until: Instant },
    Connecting { started: Instant },
    Securing { started: Instant },
    Introducing { started: Instant },
}

/// What counts, and the probes in a row that say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Unknown,
    Alive { bad: u32 },
    Dead { good: u32, last: Failure },
}

/// The probes of one backend.
#[derive(Debug)]
pub struct Probing {
    settings: Settings,
    state: State,
    verdict: Verdict,
    /// State of the generator of jitter (SplitMix64).
    random: u64,
    /// How long the last good probe took.
    round_trip: Option<Duration>,
    actions: VecDeque<Action>,
}

impl Probing {
    /// Probes the first of which is due at once. `seed` is random.
    #[must_use]
    pub const fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            state: State::Resting { until: now },
            verdict: Verdict::Unknown,
            random: seed,
            round_trip: None,
            actions: VecDeque::new(),
        }
    }

    /// How long the last probe took, if it was good.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The TCP connection stands.
    pub fn handle_connected(&mut self, now: Instant) {
        match (self.state, self.settings.kind) {
            (State::Connecting { started }, Kind::Tcp) => self.good(started, now),
            (State::Connecting { started }, Kind::Tls | Kind::Mqtt { tls: true }) => {
                self.state = State::Securing { started };
                self.actions.push_back(Action::Secure);
            }
            (State::Connecting { started }, Kind::Mqtt { tls: false }) => {
                self.state = State::Introducing { started };
                self.actions.push_back(Action::Introduce);
            }
            (State::Resting { .. } | State::Securing { .. } | State::Introducing { .. }, _) => {}
        }
    }

    /// TLS stands.
    pub fn handle_secured(&mut self, now: Instant) {
        match (self.state, self.settings.kind) {
            (State::Securing { started }, Kind::Mqtt { .. }) => {
                self.state = State::Introducing { started };
                self.actions.push_back(Action::Introduce);
            }
            (State::Securing { started }, Kind::Tls | Kind::Tcp) => self.good(started, now),
            (State::Resting { .. } | State::Connecting { .. } | State::Introducing { .. }, _) => {}
        }
    }

    /// A packet came.
    pub fn handle_packet(&mut self, packet: &Packet, now: Instant) {
        match (self.state, packet) {
            (State::Introducing { .. }, Packet::ConnAck(answer)) if answer.reason == ReasonCode::ServerUnavailable => {
                self.bad(Failure::Rejected(format!("CONNACK says \"{}\"", answer.reason.name())), now);
            }
            (State::Introducing { started }, Packet::ConnAck(answer)) => {
                if answer.reason == ReasonCode::Success {
                    self.actions.push_back(Action::Farewell);
                }
                self.good(started, now);
            }
            (State::Introducing { .. }, _) => {
                self.bad(Failure::Rejected("its first packet is not CONNACK".to_owned()), now);
            }
            (State::Resting { .. } | State::Connecting { .. } | State::Securing { .. }, _) => {}
        }
    }

    /// The connection, or the attempt, failed.
    pub fn handle_failure(&mut self, failure: Failure, now: Instant) {
        match self.state {
            State::Resting { .. } => {}
            State::Connecting { .. } | State::Securing { .. } | State::Introducing { .. } => self.bad(failure, now),
        }
    }

    /// Time has passed. What has arrived must have been handed in before.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.poll_timeout() {
            return;
        }
        match self.state {
            State::Resting { .. } => {
                self.state = State::Connecting { started: now };
                self.actions.push_back(Action::Open);
            }
            State::Connecting { .. } => self.bad(Failure::ConnectTimeout, now),
            State::Securing { .. } | State::Introducing { .. } => self.bad(Failure::HandshakeTimeout, now),
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        match self.state {
            State::Resting { until } => until,
            State::Connecting { started } => started + self.settings.connect_timeout.min(self.settings.timeout),
            State::Securing { started } | State::Introducing { started } => started + self.settings.timeout,
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn good(&mut self, started: Instant, now: Instant) {
        self.round_trip = Some(now.saturating_duration_since(started));
        self.actions.push_back(Action::Close);
        self.rest(started, now);
        self.verdict = match &self.verdict {
            Verdict::Dead { good, last } if good + 1 < self.settings.rise => {
                Verdict::Dead { good: good + 1, last: last.clone() }
            }
            Verdict::Unknown | Verdict::Dead { .. } => {
                self.actions.push_back(Action::Alive);
                Verdict::Alive { bad: 0 }
            }
            Verdict::Alive { .. } => Verdict::Alive { bad: 0 },
        };
    }

    fn bad(&mut self, failure: Failure, now: Instant) {
        let started = match self.state {
            State::Connecting { started } | State::Securing { started } | State::Introducing { started } => started,
            State::Resting { .. } => return,
        };
        self.round_trip = None;
        self.actions.push_back(Action::Close);
        self.actions.push_back(Action::Missed(failure.clone()));
        self.rest(started, now);
        // This host's own lack says nothing of the backend.
        if matches!(failure, Failure::Local(_)) {
            return;
        }
        self.verdict = match &self.verdict {
            Verdict::Alive { bad } if bad + 1 < self.settings.fall => Verdict::Alive { bad: bad + 1 },
            Verdict::Dead { last, .. } if *last == failure => Verdict::Dead { good: 0, last: failure },
            Verdict::Unknown | Verdict::Alive { .. } | Verdict::Dead { .. } => {
                self.actions.push_back(Action::Failed(failure.clone()));
                Verdict::Dead { good: 0, last: failure }
            }
        };
    }

    fn rest(&mut self, started: Instant, now: Instant) {
        let until = (started + self.jittered()).max(now + SHORTEST_REST);
        self.state = State::Resting { until };
    }

    /// The interval, by chance up to [`JITTER_PERCENT`] longer or shorter.
    fn jittered(&mut self) -> Duration {
        let interval = u64::try_from(self.settings.interval.as_micros()).unwrap_or(u64::MAX / 200);
        let spread = interval / 100 * JITTER_PERCENT;
        Duration::from_micros(interval - spread + self.next_random() % (2 * spread + 1))
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): good enough for spreading, and every seed will do.
    const fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
