//! Bridges as Prometheus gets them.

use evermq_daemon::metrics::{Exposition, Kind as Is};
use serde_json::Value;

use super::status::State;
use crate::metrics::{OfEach, name_of, of_each};

const STATES: [State; 3] = [State::Standby, State::Connecting, State::Connected];

const FAMILIES: [OfEach; 11] = [
    ("evermq_broker_bridge_queued_messages", Is::Gauge, "Messages that wait for the remote broker.", "queued"),
    ("evermq_broker_bridge_queued_bytes", Is::Gauge, "Their bytes.", "queued_bytes"),
    ("evermq_broker_bridge_inflight_messages", Is::Gauge, "Messages that it has not acknowledged.", "inflight"),
    ("evermq_broker_bridge_sent_total", Is::Counter, "Messages sent to it, those sent again included.", "sent"),
    ("evermq_broker_bridge_received_total", Is::Counter, "Messages that came from it, likewise.", "received"),
    ("evermq_broker_bridge_refused_there_total", Is::Counter, "Messages that it does not take.", "refused_there"),
    (
        "evermq_broker_bridge_refused_here_total",
        Is::Counter,
        "Messages of its that are not taken here.",
        "refused_here",
    ),
    (
        "evermq_broker_bridge_unwanted_total",
        Is::Counter,
        "Messages that came through subscriptions which the bridge does not have any more.",
        "unwanted",
    ),
    ("evermq_broker_bridge_connections_total", Is::Counter, "Connections that came about.", "connections"),
    ("evermq_broker_bridge_failures_total", Is::Counter, "Connections that ended or did not come about.", "failures"),
    ("evermq_broker_bridge_state_seconds", Is::Gauge, "How long its state has been what it is.", "seconds"),
];

/// Appends them.
pub(crate) fn write(text: &mut Exposition, bridges: &[Value]) {
    if bridges.is_empty() {
        return;
    }
    let mut family = text.family("evermq_broker_bridge_state", Is::Gauge, "What the bridge does: 1 for its state.");
    for bridge in bridges {
        for state in STATES {
            let is_it = bridge["state"] == state.word();
            family.sample(&[("bridge", name_of(bridge)), ("state", state.word())], u8::from(is_it));
        }
    }
    of_each(text, "bridge", bridges, &FAMILIES);
}
