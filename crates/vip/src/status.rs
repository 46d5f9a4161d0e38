//! The state as the control socket shows it, kept up by the events of the real-time thread.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use evermq_daemon::health::Health;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::counters::Counters;
use crate::fsm::State;
use crate::report::{Event, What};
use crate::track::{Cause, Effective, LAST_RESORT};

/// Transitions that are remembered.
pub const HISTORY: usize = 16;

/// The answer to the control request `state`.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// `initialize`, `backup` or `master`.
    pub state: &'static str,
    /// This host.
    pub host: String,
    /// The virtual address.
    pub vip: Ipv4Addr,
    /// The interface that carries it.
    pub interface: String,
    /// As configured.
    pub priority: u8,
    /// As advertised; none where this host must not hold the VIP.
    pub effective_priority: Option<u8>,
    /// Why that priority.
    pub reason: String,
    /// Address of the host that holds the VIP, as far as this one knows.
    pub master: Option<Ipv4Addr>,
    /// When the state was entered (RFC 3339).
    pub since: String,
    /// The last changes of state, oldest first.
    pub transitions: VecDeque<Moved>,
    /// Since the program started.
    #[serde(serialize_with = "numbers")]
    pub counters: Arc<Counters>,
    #[serde(skip)]
    address: Ipv4Addr,
}

/// One change of state.
#[derive(Debug, Clone, Serialize)]
pub struct Moved {
    /// When (RFC 3339).
    pub time: String,
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
    /// Why.
    pub reason: String,
}

/// What does not change while the program runs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// This host's name.
    pub host: String,
    /// This host's address.
    pub address: Ipv4Addr,
    /// The virtual address.
    pub vip: Ipv4Addr,
    /// The interface that carries it.
    pub interface: String,
    /// The configured priority.
    pub priority: u8,
}

impl Status {
    /// The status of a program that has just started.
    #[must_use]
    pub fn new(identity: Identity, counters: Arc<Counters>, now: SystemTime) -> Self {
        Self {
            state: name(State::Initialize),
            host: identity.host,
            vip: identity.vip,
            interface: identity.interface,
            priority: identity.priority,
            effective_priority: None,
            reason: Cause::LbNotSeen.to_string(),
            master: None,
            since: written(now),
            transitions: VecDeque::with_capacity(HISTORY),
            counters,
            address: identity.address,
        }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, event: &Event) {
        match event.what {
            What::Moved(transition) => {
                let time = written(event.time);
                self.state = name(transition.to);
                self.since.clone_from(&time);
                self.master = match transition.to {
                    State::Master => Some(self.address),
                    State::Initialize | State::Backup => None,
                };
                if self.transitions.len() == HISTORY {
                    self.transitions.pop_front();
                }
                let (from, to) = (name(transition.from), name(transition.to));
                self.transitions.push_back(Moved { time, from, to, reason: transition.reason.to_string() });
            }
            What::Effective(Effective { priority, cause }) => {
                self.effective_priority = priority;
                self.reason = cause.to_string();
            }
            What::Follows(master) => self.master = Some(master),
            What::AddressRestored | What::Trouble(_) => {}
        }
    }

    /// How this program is, for whoever asks its control socket.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.effective_priority {
            None => Health::Down,
            Some(LAST_RESORT) => Health::Degraded,
            Some(_) => Health::Up,
        }
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Initialize => "initialize",
        State::Backup => "backup",
        State::Master => "master",
    }
}

fn numbers<S: serde::Serializer>(counters: &Arc<Counters>, serializer: S) -> Result<S::Ok, S::Error> {
    counters.as_ref().serialize(serializer)
}

/// RFC 3339, UTC, to the millisecond.
fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fsm::{Reason, Transition};

    fn status() -> Status {
        let identity = Identity {
            host: "lb1".to_owned(),
            address: Ipv4Addr::new(10, 0, 0, 1),
            vip: Ipv4Addr::new(10, 0, 0, 100),
            interface: "eth0".to_owned(),
            priority: 200,
        };
        Status::new(identity, Arc::default(), SystemTime::UNIX_EPOCH)
    }

    fn event(millis: u64, what: What) -> Event {
        Event { time: SystemTime::UNIX_EPOCH + Duration::from_micros(millis * 1000 + 7), what }
    }

    #[test]
    fn the_json_says_what_an_operator_asks() {
        let mut status = status();
        assert_eq!(status.health(), Health::Down);
        let up = Effective { priority: Some(200), cause: Cause::LbUp };
        status.apply(&event(1, What::Effective(up)));
        let reason = Reason::MasterSilent { master: Ipv4Addr::new(10, 0, 0, 2) };
        let moved = Transition { from: State::Backup, to: State::Master, reason };
        status.apply(&event(1250, What::Moved(moved)));
        status.counters.master_transitions.count();
        assert_eq!(status.health(), Health::Up);
        let json = serde_json::to_value(&status).expect("a status is JSON");
        assert_eq!(json["state"], "master");
        assert_eq!(json["effective_priority"], 200);
        assert_eq!(json["reason"], "the local lb is up");
        assert_eq!(json["master"], "10.0.0.1");
        assert_eq!(json["since"], "1970-01-01T00:00:01.25Z");
        assert_eq!(json["transitions"][0]["reason"], "master 10.0.0.2 fell silent");
        assert_eq!(json["counters"]["master_transitions"], 1);
        assert!(json.get("address").is_none());
    }

    #[test]
    fn a_backup_shows_whom_it_follows_and_only_sixteen_transitions_are_kept() {
        let mut status = status();
        for n in 0..20 {
            let reason = Reason::Health(Cause::LbUp);
            status.apply(&event(n, What::Moved(Transition { from: State::Initialize, to: State::Backup, reason })));
        }
        assert_eq!(status.transitions.len(), HISTORY);
        assert_eq!(status.transitions[0].time, "1970-01-01T00:00:00.004Z");
        assert_eq!(status.master, None);
        status.apply(&event(21, What::Follows(Ipv4Addr::new(10, 0, 0, 2))));
        assert_eq!(status.master, Some(Ipv4Addr::new(10, 0, 0, 2)));
        status.apply(&event(22, What::Effective(Effective { priority: Some(LAST_RESORT), cause: Cause::LbDegraded })));
        assert_eq!(status.health(), Health::Degraded);
    }
}
