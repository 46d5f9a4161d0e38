//! The standing MQTT session to one backend, which says whether it lives.
//!
//! ```text
//!   Waiting ──time──▶ Connecting ──TCP──▶ Handshaking ──TLS──▶ Introducing ──CONNACK──▶ Up ─┐
//!      ▲                  │                    │                    │                   │  │ PINGREQ, PINGRESP
//!      └──── any failure, or its deadline ─────┴────────────────────┴───────────────────┘◀─┘
//! ```
//!
//! A process that dies is known at once, by the FIN or RST of its kernel. A host that dies, or a process that is frozen, is
//! known when no answer has come for `health_timeout`. That time runs from the last answer, and an answer is asked for at
//! least twice in it, so it is an upper bound for how long a death stays unknown.
//!
//! A broker of the cluster also says over this session how it is: see [`evermq_daemon::cluster_topics`]. One that refuses
//! that subscription, or has nothing to say, is taken as ready.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use evermq_daemon::cluster_topics::{self, Readiness};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode};

pub mod probing;

/// The first pause after a failure; it doubles up to [`Failure::longest_pause`].
pub const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause after a refused connect: asking a kernel that answers is cheap, and a restarted broker is back soon.
pub const LONGEST_PAUSE_REFUSED: Duration = Duration::from_millis(50);
/// The longest pause after any other failure.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How patient the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For the TCP connection.
    pub connect_timeout: Duration,
    /// Between two PINGREQ; at most half of `timeout` is used.
    pub interval: Duration,
    /// Without an answer for this long the backend is gone; also for TLS and CONNACK together.
    pub timeout: Duration,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The host answers, nobody listens.
    #[error("connection refused: nothing listens there")]
    Refused,
    /// No way to the host.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer to the TCP connection.
    #[error("no answer to the TCP connection within connect_timeout")]
    ConnectTimeout,
    /// TCP answers, but TLS and CONNACK did not come in time.
    #[error("TLS and CONNACK did not come within health_timeout")]
    HandshakeTimeout,
    /// TLS failed, CONNACK refuses, or the backend does not speak MQTT.
    #[error("rejects the lb's session: {0}")]
    Rejected(String),
    /// FIN or RST.
    #[error("closed the session: its process ended, as a rule")]
    Closed,
    /// No PINGRESP.
    #[error("no answer within health_timeout")]
    NoAnswer,
    /// This host's fault, such as too many open files.
    #[error("the lb cannot open its session: {0}")]
    Local(String),
}

impl Failure {
    /// How long at most until the next attempt.
    #[must_use]
    pub const fn longest_pause(&self) -> Duration {
        match self {
            Self::Refused => LONGEST_PAUSE_REFUSED,
            Self::Closed
            | Self::Unreachable(_)
            | Self::ConnectTimeout
            | Self::HandshakeTimeout
            | Self::Rejected(_)
            | Self::NoAnswer
            | Self::Local(_) => LONGEST_PAUSE,
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin a TCP connection; then [`Session::handle_connected`] or [`Session::handle_failure`].
    Open,
    /// Begin TLS on it; then [`Session::handle_secured`] or [`Session::handle_failure`].
    Secure,
    /// Send CONNECT.
    Introduce,
    /// Send PINGREQ.
    Ping,
    /// Drop the connection, in whatever state it is.
    Close,
    /// The session stands.
    Up,
    /// Subscribe to [`cluster_topics::STATE`].
    Subscribe,
    /// The broker says how it is.
    Says(Readiness),
    /// The session ended, or an attempt failed.
    Failed(Failure),
}

/// Where the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    Connecting {
        deadline: Instant,
    },
    Handshaking {
        deadline: Instant,
    },
    Introducing {
        deadline: Instant,
    },
    Up {
        /// When the last answer came.
        heard: Instant,
        /// When the PINGREQ that waits for an answer was sent.
        asked: Option<Instant>,
        /// When the next PINGREQ is due, if none waits for an answer.
        next: Instant,
    },
}

/// The session to one backend.
#[derive(Debug)]
pub struct Session {
    timing: Timing,
    state: State,
    pause: Duration,
    round_trip: Option<Duration>,
    /// Ask the broker how it is.
    asks_state: bool,
    /// It has said so, in this session: an EverMQ broker, and we are one of its lbs.
    told_state: bool,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session whose first attempt is due at once.
    #[must_use]
    pub fn new(timing: Timing, now: Instant) -> Self {
        let timing = Timing { interval: timing.interval.min(timing.timeout / 2), ..timing };
        Self {
            timing,
            state: State::Waiting { until: now },
            pause: FIRST_PAUSE,
            round_trip: None,
            asks_state: false,
            told_state: false,
            actions: VecDeque::new(),
        }
    }

    /// The same, to a broker of the cluster, which is asked how it is. Others are not: some brokers close the connection of
    /// a client that asks for what it may not have.
    #[must_use]
    pub fn asking_for_state(self) -> Self {
        Self { asks_state: true, ..self }
    }

    /// Whether the session stands and the broker has said how it is: then it is an EverMQ broker that takes our word.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.told_state
    }

    /// From PINGREQ to PINGRESP, the last time, while the session stands.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The TCP connection stands.
    pub fn handle_connected(&mut self, now: Instant) {
        match self.state {
            State::Connecting { .. } => {
                self.state = State::Handshaking { deadline: now + self.timing.timeout };
                self.actions.push_back(Action::Secure);
            }
            State::Waiting { .. } | State::Handshaking { .. } | State::Introducing { .. } | State::Up { .. } => {}
        }
    }

    /// TLS stands.
    pub fn handle_secured(&mut self) {
        match self.state {
            State::Handshaking { deadline } => {
                self.state = State::Introducing { deadline };
                self.actions.push_back(Action::Introduce);
            }
            State::Waiting { .. } | State::Connecting { .. } | State::Introducing { .. } | State::Up { .. } => {}
        }
    }

    /// A packet came.
    pub fn handle_packet(&mut self, packet: &Packet, now: Instant) {
        match (self.state, packet) {
            (State::Introducing { .. }, Packet::ConnAck(answer)) if answer.reason == ReasonCode::Success => {
                self.pause = FIRST_PAUSE;
                self.state = State::Up { heard: now, asked: None, next: now + self.timing.interval };
                self.actions.push_back(Action::Up);
                if self.asks_state {
                    self.actions.push_back(Action::Subscribe);
                }
            }
            (State::Introducing { .. }, Packet::ConnAck(answer)) => {
                self.handle_failure(Failure::Rejected(format!("CONNACK says \"{}\"", answer.reason.name())), now);
            }
            (State::Up { asked, .. }, Packet::PingResp) => {
                self.round_trip = asked.map(|asked| now.duration_since(asked)).or(self.round_trip);
                let next = asked.map_or(now, |asked| now.max(asked + self.timing.interval));
                self.state = State::Up { heard: now, asked: None, next };
            }
            // Granted or not: what counts is what it says.
            (State::Up { .. }, Packet::SubAck(_)) if self.asks_state => {}
            (State::Up { .. }, Packet::Publish(publish)) if self.asks_state && is_state(publish) => {
                // A word of a later version changes nothing.
                if let Some(readiness) = Readiness::parse(&publish.payload) {
                    self.told_state = true;
                    self.actions.push_back(Action::Says(readiness));
                }
            }
            // [MQTT-3.1.4-5], [MQTT-3.2.0-2]: CONNACK first and once; beyond that a server may send PINGRESP, and what was
            // subscribed to.
            (State::Introducing { .. } | State::Up { .. }, _) => {
                self.handle_failure(Failure::Rejected("it sent a packet that has no place here".to_owned()), now);
            }
            (State::Waiting { .. } | State::Connecting { .. } | State::Handshaking { .. }, _) => {}
        }
    }

    /// The connection, or the attempt, failed.
    pub fn handle_failure(&mut self, failure: Failure, now: Instant) {
        match self.state {
            State::Waiting { .. } => {}
            State::Connecting { .. } | State::Handshaking { .. } | State::Introducing { .. } | State::Up { .. } => {
                let pause = self.pause.min(failure.longest_pause());
                self.pause = (self.pause * 2).min(failure.longest_pause());
                self.state = State::Waiting { until: now + pause };
                self.round_trip = None;
                self.told_state = false;
                self.actions.push_back(Action::Close);
                self.actions.push_back(Action::Failed(failure));
            }
        }
    }

    /// Time has passed. What has arrived must have been handed in before.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Waiting { until } if until <= now => {
                self.state = State::Connecting { deadline: now + self.timing.connect_timeout };
                self.actions.push_back(Action::Open);
            }
            State::Connecting { deadline } if deadline <= now => self.handle_failure(Failure::ConnectTimeout, now),
            State::Handshaking { deadline } | State::Introducing { deadline } if deadline <= now => {
                self.handle_failure(Failure::HandshakeTimeout, now);
            }
            State::Up { heard, asked: Some(asked), .. } if self.deadline(heard, asked) <= now => {
                self.handle_failure(Failure::NoAnswer, now);
            }
            State::Up { heard, asked: None, next } if next <= now => {
                self.state = State::Up { heard, asked: Some(now), next: now + self.timing.interval };
                self.actions.push_back(Action::Ping);
            }
            State::Waiting { .. }
            | State::Connecting { .. }
            | State::Handshaking { .. }
            | State::Introducing { .. }
            | State::Up { .. } => {}
        }
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        match self.state {
            State::Waiting { until } => until,
            State::Connecting { deadline } | State::Handshaking { deadline } | State::Introducing { deadline } => {
                deadline
            }
            State::Up { heard, asked: Some(asked), .. } => self.deadline(heard, asked),
            State::Up { asked: None, next, .. } => next,
        }
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When silence means death. If this process itself was stopped (a paused machine), the question went out late, and the
    /// backend gets half of the time from then on.
    fn deadline(&self, heard: Instant, asked: Instant) -> Instant {
        (heard + self.timing.timeout).max(asked + self.timing.timeout / 2)
    }
}

fn is_state(publish: &Publish) -> bool {
    publish.qos == QoS::AtMostOnce && publish.topic.as_str() == cluster_topics::STATE
}

#[cfg(test)]
mod tests;
