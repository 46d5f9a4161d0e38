//! The machine of a backend's kind of probe, and what its actions have in common.

use std::time::{Duration, Instant};

use evermq_config::lb::{HealthSettings, Probe as Kind};
use evermq_config::{BackendConfig, LbConfig};
use evermq_daemon::cluster_topics::Readiness;
use evermq_mqtt::Packet;

use crate::backend::Reason;
use crate::health::probing::{self, Probing};
use crate::health::{self, Failure, Session, Timing};

/// How a backend is probed; a change of it makes another probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    /// The backend has an address for TLS.
    pub(super) tls: bool,
    /// It is a host of the cluster, and can say how it is.
    pub(super) own: bool,
    /// It expects a PROXY protocol header.
    pub(super) proxy: bool,
    pub(super) connect_timeout: Duration,
    pub(super) health: HealthSettings,
}

impl Plan {
    /// As the file says.
    pub(super) fn of(backend: &BackendConfig, config: &LbConfig) -> Self {
        Self {
            kind: backend.probe,
            tls: backend.address.is_some(),
            own: backend.host.is_some(),
            proxy: if backend.address.is_some() { backend.send_proxy } else { backend.send_proxy_plain },
            connect_timeout: config.lb.connect_timeout,
            health: config.lb.health,
        }
    }
}

/// What the driver is to do.
#[derive(Debug)]
pub(super) enum Step {
    Open,
    Secure,
    Introduce,
    Ping,
    Subscribe,
    Farewell,
    Close,
    Alive(Reason),
    Says(Readiness),
    Missed(Failure),
    Failed(Failure),
}

/// One of them.
#[derive(Debug)]
pub(super) enum Machine {
    Session(Session),
    Probing(Probing),
    /// Nothing to do, once it has been said that the backend counts as up.
    Unprobed {
        said: bool,
    },
}

impl Machine {
    pub(super) fn new(plan: Plan, seed: u64, now: Instant) -> Self {
        let kind = match plan.kind {
            Kind::None => return Self::Unprobed { said: false },
            Kind::Session => {
                let timing = Timing {
                    connect_timeout: plan.connect_timeout,
                    interval: plan.health.interval,
                    timeout: plan.health.timeout,
                };
                let session = Session::new(timing, now);
                return Self::Session(if plan.own { session.asking_for_state() } else { session });
            }
            Kind::Mqtt => probing::Kind::Mqtt { tls: plan.tls },
            Kind::Tls => probing::Kind::Tls,
            Kind::Tcp => probing::Kind::Tcp,
        };
        let settings = probing::Settings {
            kind,
            connect_timeout: plan.connect_timeout,
            interval: plan.health.interval,
            timeout: plan.health.timeout,
            rise: plan.health.rise,
            fall: plan.health.fall,
        };
        Self::Probing(Probing::new(settings, seed, now))
    }

    pub(super) fn handle_connected(&mut self, now: Instant) {
        match self {
            Self::Session(session) => session.handle_connected(now),
            Self::Probing(probing) => probing.handle_connected(now),
            Self::Unprobed { .. } => {}
        }
    }

    pub(super) fn handle_secured(&mut self, now: Instant) {
        match self {
            Self::Session(session) => session.handle_secured(),
            Self::Probing(probing) => probing.handle_secured(now),
            Self::Unprobed { .. } => {}
        }
    }

    pub(super) fn handle_packet(&mut self, packet: &Packet, now: Instant) {
        match self {
            Self::Session(session) => session.handle_packet(packet, now),
            Self::Probing(probing) => probing.handle_packet(packet, now),
            Self::Unprobed { .. } => {}
        }
    }

    pub(super) fn handle_failure(&mut self, failure: Failure, now: Instant) {
        match self {
            Self::Session(session) => session.handle_failure(failure, now),
            Self::Probing(probing) => probing.handle_failure(failure, now),
            Self::Unprobed { .. } => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Session(session) => session.handle_timeout(now),
            Self::Probing(probing) => probing.handle_timeout(now),
            Self::Unprobed { .. } => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Session(session) => Some(session.poll_timeout()),
            Self::Probing(probing) => Some(probing.poll_timeout()),
            Self::Unprobed { .. } => None,
        }
    }

    pub(super) fn poll_step(&mut self) -> Option<Step> {
        match self {
            Self::Session(session) => session.poll_action().map(Step::from),
            Self::Probing(probing) => probing.poll_action().map(Step::from),
            Self::Unprobed { said } => (!std::mem::replace(said, true)).then_some(Step::Alive(Reason::NotProbed)),
        }
    }

    /// How long the last answer took, while there is one.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        match self {
            Self::Session(session) => session.round_trip(),
            Self::Probing(probing) => probing.round_trip(),
            Self::Unprobed { .. } => None,
        }
    }

    /// Whether an EverMQ broker of the cluster listens to us.
    pub(super) const fn is_heard(&self) -> bool {
        match self {
            Self::Session(session) => session.is_heard(),
            Self::Probing(_) | Self::Unprobed { .. } => false,
        }
    }
}

impl From<health::Action> for Step {
    fn from(action: health::Action) -> Self {
        match action {
            health::Action::Open => Self::Open,
            health::Action::Secure => Self::Secure,
            health::Action::Introduce => Self::Introduce,
            health::Action::Ping => Self::Ping,
            health::Action::Subscribe => Self::Subscribe,
            health::Action::Close => Self::Close,
            health::Action::Up => Self::Alive(Reason::SessionUp),
            health::Action::Says(readiness) => Self::Says(readiness),
            health::Action::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl From<probing::Action> for Step {
    fn from(action: probing::Action) -> Self {
        match action {
            probing::Action::Open => Self::Open,
            probing::Action::Secure => Self::Secure,
            probing::Action::Introduce => Self::Introduce,
            probing::Action::Farewell => Self::Farewell,
            probing::Action::Close => Self::Close,
            probing::Action::Alive => Self::Alive(Reason::ProbesGood),
            probing::Action::Missed(failure) => Self::Missed(failure),
            probing::Action::Failed(failure) => Self::Failed(failure),
        }
    }
}
