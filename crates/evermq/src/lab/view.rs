//! What the programs say of themselves on their control sockets, as far as a lab needs it.

use serde_json::Value;

/// An `evermq-vip`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VipView {
    /// Its state, in VRRP's words and lower case: `initialize`, `backup` or `master`.
    pub(super) state: String,
}

/// An `evermq-lb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LbView {
    /// Client connections.
    pub(super) connections: u64,
    /// Each broker, and whether it is up.
    pub(super) backends: Vec<(String, bool)>,
}

/// An `evermq-broker`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokerView {
    /// MQTT connections: clients, and the standing session of each load balancer.
    pub(super) connections: u64,
    /// Each other broker, and whether messages go both ways.
    pub(super) peers: Vec<(String, bool)>,
}

impl VipView {
    /// Out of the program's state.
    pub(super) fn new(state: &Value) -> Self {
        Self { state: state["state"].as_str().unwrap_or_default().to_lowercase() }
    }

    /// Whether it holds the VIP.
    pub(super) fn is_master(&self) -> bool {
        self.state == "master"
    }
}

impl LbView {
    /// Out of the program's state.
    pub(super) fn new(state: &Value) -> Self {
        let backends = named(&state["backends"], |backend| backend["state"] == "up");
        Self { connections: state["connections"]["current"].as_u64().unwrap_or(0), backends }
    }
}

impl BrokerView {
    /// Out of the program's state.
    pub(super) fn new(state: &Value) -> Self {
        let linked = |peer: &Value| peer["connected"] == true && peer["receiving"] == true;
        Self {
            connections: state["connections"].as_u64().unwrap_or(0),
            peers: named(&state["bridge"]["peers"], linked),
        }
    }
}

fn named(list: &Value, is_good: impl Fn(&Value) -> bool) -> Vec<(String, bool)> {
    let name = |entry: &Value| entry["name"].as_str().map(|name| (name.to_owned(), is_good(entry)));
    list.as_array().into_iter().flatten().filter_map(name).collect()
}

/// How many of them are good, as text: `2 of 2`.
pub(super) fn share(list: &[(String, bool)]) -> String {
    format!("{} of {}", list.iter().filter(|(_, good)| *good).count(), list.len())
}

/// Whether there are any and all of them are good.
pub(super) fn all_good(list: &[(String, bool)]) -> bool {
    !list.is_empty() && list.iter().all(|(_, good)| *good)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broker_is_linked_where_messages_go_both_ways() {
        let peer = |name: &str, connected: bool, receiving: bool| json!({ "name": name, "connected": connected, "receiving": receiving });
        let peers = [peer("b2", true, true), peer("b3", true, false), peer("b4", false, true)];
        let broker = BrokerView::new(&json!({ "connections": 7, "bridge": { "peers": peers } }));
        assert_eq!(broker.connections, 7);
        assert_eq!(broker.peers, [("b2".to_owned(), true), ("b3".to_owned(), false), ("b4".to_owned(), false)]);
        assert_eq!(share(&broker.peers), "1 of 3");
        assert!(!all_good(&broker.peers));
    }

    #[test]
    fn a_backend_counts_only_while_it_is_up() {
        let backends = ["up", "unproven", "down"].map(|state| json!({ "name": state, "state": state }));
        let lb = LbView::new(&json!({ "connections": { "current": 3 }, "backends": backends }));
        assert_eq!((lb.connections, share(&lb.backends)), (3, "1 of 3".to_owned()));
    }

    #[test]
    fn a_program_that_says_something_else_has_nothing() {
        assert!(!VipView::new(&Value::Null).is_master());
        assert!(!all_good(&LbView::new(&json!({ "backends": "none" })).backends));
    }
}
