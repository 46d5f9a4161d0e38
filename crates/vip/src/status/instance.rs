//! One virtual router, as the state shows it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use evermq_config::roles::VipInstance;
use evermq_config::vip::VrrpVersion;
use evermq_daemon::health::Health;
use serde::Serialize;
use serde_json::{Value, json};

use super::written;
use crate::counters::Counters;
use crate::driver::Instance;
use crate::fsm::State;
use crate::report::{Event, What};
use crate::track::names::Names;
use crate::track::{Cause, Effective, LAST_RESORT};

/// Transitions that are remembered.
pub const HISTORY: usize = 16;

/// What is known of one virtual router.
#[derive(Debug)]
pub struct InstanceStatus {
    /// Its name.
    pub name: String,
    /// As configured.
    pub router: VipInstance,
    /// The interface that carries its addresses.
    pub interface: String,
    /// The source of its advertisements.
    pub source: IpAddr,
    /// Since the program started.
    pub counters: Arc<Counters>,
    /// Where it stands.
    pub state: State,
    /// As advertised; none where this host must not hold the VIP.
    pub effective: Effective,
    /// The configuration has it no more; it only hands over.
    pub leaving: bool,
    /// When the state changed last, in seconds since 1970; 0 where it has not.
    pub moved: f64,
    reason: String,
    master: Option<IpAddr>,
    since: String,
    transitions: VecDeque<Moved>,
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

impl InstanceStatus {
    /// The status of a virtual router that begins.
    #[must_use]
    pub fn new(instance: &Instance, now: SystemTime) -> Self {
        let (router, counters) = (instance.router.clone(), instance.counters.clone());
        Self::begin(router, instance.interface.name.clone(), instance.settings.address, counters, now)
    }

    /// The same of its parts.
    #[must_use]
    pub fn begin(
        router: VipInstance,
        interface: String,
        source: IpAddr,
        counters: Arc<Counters>,
        now: SystemTime,
    ) -> Self {
        Self {
            name: router.name.clone(),
            router,
            interface,
            source,
            counters,
            state: State::Initialize,
            effective: Effective { priority: None, cause: Cause::LbNotSeen },
            leaving: false,
            moved: 0.0,
            reason: Cause::LbNotSeen.to_string(),
            master: None,
            since: written(now),
            transitions: VecDeque::with_capacity(HISTORY),
        }
    }

    /// The configuration changed: what happened before stays.
    pub(super) fn take_over(&mut self, new: Self) {
        (self.router, self.interface, self.source) = (new.router, new.interface, new.source);
        self.counters = new.counters;
        self.leaving = new.leaving;
    }

    pub(super) fn apply(&mut self, event: &Event, names: &Names, time: &str) {
        match &event.what {
            What::Moved(transition) => {
                self.state = transition.to;
                self.moved = event.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                time.clone_into(&mut self.since);
                self.master = match transition.to {
                    State::Master => Some(self.source),
                    State::Initialize | State::Backup => None,
                };
                if self.transitions.len() == HISTORY {
                    self.transitions.pop_front();
                }
                let (from, to) = (name(transition.from), name(transition.to));
                let reason = names.reason(transition.reason);
                self.transitions.push_back(Moved { time: time.to_owned(), from, to, reason });
            }
            What::Effective(effective) => {
                self.effective = *effective;
                self.reason = names.cause(effective.cause);
            }
            What::Follows(master) => self.master = Some(*master),
            What::Part(_)
            | What::AddressRestored
            | What::Link(_)
            | What::ReloadAsked
            | What::InForce(_)
            | What::Superseded(_)
            | What::Freed(_)
            | What::Retired(_)
            | What::GuardLost
            | What::GuardReplaced(_)
            | What::Trouble(_) => {}
        }
    }

    /// How this virtual router is.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.effective.priority {
            None => Health::Down,
            Some(LAST_RESORT) => Health::Degraded,
            Some(_) => Health::Up,
        }
    }

    pub(super) fn vip(&self) -> Value {
        json!(self.router.addresses.first())
    }

    pub(super) fn to_json(&self, reasons: &[String]) -> Value {
        json!({
            "name": self.name,
            "state": name(self.state),
            "vrid": self.router.vrid.get(),
            "version": match self.router.version { VrrpVersion::V2 => 2, VrrpVersion::V3 => 3 },
            "family": if self.source.is_ipv4() { "ipv4" } else { "ipv6" },
            "vips": self.router.addresses,
            "interface": self.interface,
            "priority": self.router.priority,
            "effective_priority": self.effective.priority,
            "reason": self.reason,
            "reasons": if self.reason == reasons.first().map_or("", String::as_str) { reasons.to_vec() } else {
                std::iter::once(self.reason.clone()).chain(reasons.iter().cloned()).collect()
            },
            "master": self.master,
            "since": self.since,
            "transitions": self.transitions,
            "counters": *self.counters,
        })
    }
}

/// A state, as it is shown.
pub(super) fn name(state: State) -> &'static str {
    match state {
        State::Initialize => "initialize",
        State::Backup => "backup",
        State::Master => "master",
    }
}
