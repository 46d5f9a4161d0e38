//! Transitions out of all that the programs have said, with their cause and, where something is back, how long it was away.
//!
//! Pure. Times of one host are compared with each other; those of several hosts only for the VIP where its holder left it in
//! good order, so that the outage is as exact as the hosts' clocks agree. A holder that fell silent is measured by the one that
//! takes over, from the last advertisement that it heard.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::Said;

/// A change, or an alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transition {
    /// When, in milliseconds since 1970, by the host's clock.
    pub time_ms: u64,
    /// The host.
    pub host: String,
    /// The program.
    pub program: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What has changed.
    pub what: String,
    /// The state before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The state after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How long it was away, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outage_ms: Option<u64>,
}

/// What vip says when a virtual router changes its state.
const VRRP: &str = "VRRP state";
const MASTER: &str = "master";
/// Whose name tells one subject of a message from another.
const NAMES: [&str; 9] = ["backend", "peer", "bridge", "track", "vip", "name", "program", "group", "instance"];
/// States in which nothing is amiss.
const GOOD: [&str; 9] = ["up", "connected", "ready", "written", "good", "master", "linked", "snapshot", "streaming"];
/// Lines of level INFO without two states that tell of a change all the same, by how they begin.
const NOTABLE: [&str; 14] = [
    "started",
    "stopping",
    "draining",
    "drained",
    "broker serves",
    "broker stopped",
    "joined the cluster",
    "a broker has joined",
    "a broker has left",
    "the cluster file is in force",
    "the new process has taken over",
    "told clients that the VIP has moved",
    "interface is",
    "an operator",
];

/// The transitions among these lines, the oldest first.
#[must_use]
pub fn transitions(said: &[Said]) -> Vec<Transition> {
    let mut said: Vec<&Said> = said.iter().collect();
    said.sort_by_key(|said| said.time_ms);
    let mut away = Away::default();
    said.into_iter().filter_map(|said| transition(said, &mut away)).collect()
}

/// What is away, and since when.
#[derive(Default)]
struct Away {
    things: HashMap<(String, String, String), u64>,
    /// Who holds a virtual address, and since when nobody does.
    vips: HashMap<String, (Option<String>, Option<u64>)>,
}

fn transition(said: &Said, away: &mut Away) -> Option<Transition> {
    let text = |key: &str| said.fields.get(key).map(plain);
    // One program writes its states with capitals.
    let state =
        |key| text(key).map(|state| if said.message.starts_with("health") { state.to_lowercase() } else { state });
    let (from, to) = (state("from"), state("to"));
    let is_notable = NOTABLE.iter().any(|begin| said.message.starts_with(begin));
    if to.is_none() && said.level == "info" && !is_notable {
        return None;
    }
    let what = what(said);
    let outage_ms = match &to {
        Some(to) if said.message == VRRP => away.handle_vip(said, from.as_deref(), to),
        Some(to) => away.handle_state(said, &what, to),
        None => None,
    };
    Some(Transition {
        time_ms: said.time_ms,
        host: said.host.clone(),
        program: said.program.clone(),
        level: said.level.clone(),
        cause: text("reason").or_else(|| text("error")).or_else(|| text("problem")).or_else(|| particulars(said)),
        what,
        from,
        to,
        outage_ms,
    })
}

impl Away {
    fn handle_vip(&mut self, said: &Said, from: Option<&str>, to: &str) -> Option<u64> {
        let vip = said.fields.get("vip").map(plain).unwrap_or_default();
        let (holder, free_since) = self.vips.entry(vip).or_default();
        if to == MASTER {
            let silent = said.fields.get("silent_ms").and_then(Value::as_u64);
            let left = free_since.take().map(|since| said.time_ms.saturating_sub(since));
            *holder = Some(said.host.clone());
            return silent.or(left);
        }
        // One that was frozen notices late that another one has it.
        if from == Some(MASTER) && holder.as_ref().is_none_or(|holder| *holder == said.host) {
            (*holder, *free_since) = (None, Some(said.time_ms));
        }
        None
    }

    fn handle_state(&mut self, said: &Said, what: &str, to: &str) -> Option<u64> {
        let thing = (said.host.clone(), said.program.clone(), what.to_owned());
        if GOOD.contains(&to) {
            return self.things.remove(&thing).map(|since| said.time_ms.saturating_sub(since));
        }
        self.things.entry(thing).or_insert(said.time_ms);
        None
    }
}

/// `backend broker1`, `VIP 10.0.0.1`, or the message itself.
fn what(said: &Said) -> String {
    let named = NAMES.iter().find_map(|key| said.fields.get(*key).map(|value| (*key, plain(value))));
    let is_short = said.fields.contains_key("to");
    match (said.message.as_str(), named) {
        (VRRP, Some((_, name))) => format!("VIP {name}"),
        ("program", Some((_, name))) => name,
        ("backend changed", Some((_, name))) => format!("backend {name}"),
        ("administrative state changed", Some((_, name))) => format!("administrative state of {name}"),
        ("told of this lb's clients", Some((_, name))) => format!("list of clients to {name}"),
        ("tells of its clients", Some((_, name))) => format!("list of clients from {name}"),
        ("health" | "health changed", _) => {
            format!("health of {}", said.program.strip_prefix("evermq-").unwrap_or(&said.program))
        }
        (message, Some((_, name))) if is_short && !message.contains(&name) => format!("{message} {name}"),
        (message, _) => message.to_owned(),
    }
}

/// The fields of a line that has no `reason`.
fn particulars(said: &Said) -> Option<String> {
    let told = |key: &str| !["from", "to"].contains(&key);
    let fields: Vec<String> =
        said.fields.iter().filter(|(key, _)| told(key)).map(|(key, value)| format!("{key} {}", plain(value))).collect();
    (!fields.is_empty()).then(|| fields.join(", "))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(time_ms: u64, host: &str, message: &str, fields: Value) -> Said {
        let Value::Object(fields) = fields else { panic!("fields are an object") };
        let (level, program) = ("info".to_owned(), "evermq-vip".to_owned());
        Said { id: 0, host: host.to_owned(), program, time_ms, level, message: message.to_owned(), fields }
    }

    fn vrrp(time_ms: u64, host: &str, from: &str, to: &str, silent_ms: Option<u64>) -> Said {
        let fields = json!({ "vip": "10.0.0.1", "instance": "vip", "from": from, "to": to, "reason": "r" });
        let mut said = said(time_ms, host, VRRP, fields);
        said.fields.extend(silent_ms.map(|silent| ("silent_ms".to_owned(), json!(silent))));
        said
    }

    fn outages(said: &[Said]) -> Vec<(String, Option<u64>)> {
        let shown = |one: &Transition| (format!("{} {}", one.what, one.to.as_deref().unwrap_or("-")), one.outage_ms);
        transitions(said).iter().map(shown).collect()
    }

    #[test]
    fn a_vip_is_away_from_its_holders_last_word_to_the_next_ones_first() {
        let told = [
            vrrp(1000, "lb1", "backup", "master", None),
            vrrp(5020, "lb2", "backup", "master", None),
            vrrp(5000, "lb1", "master", "initialize", None),
            // lb2 freezes; lb1 takes over, and lb2 sees it when it thaws.
            vrrp(9000, "lb1", "backup", "master", Some(66)),
            vrrp(9900, "lb2", "master", "backup", None),
            vrrp(12_000, "lb2", "backup", "master", Some(70)),
        ];
        let vip = |to: &str, outage| (format!("VIP 10.0.0.1 {to}"), outage);
        let expected = [
            vip("master", None),
            vip("initialize", None),
            vip("master", Some(20)),
            vip("master", Some(66)),
            vip("backup", None),
            vip("master", Some(70)),
        ];
        assert_eq!(outages(&told), expected);
    }

    #[test]
    fn what_is_back_says_how_long_it_was_away_on_each_host_by_itself() {
        let backend = |time_ms, host, from, to| {
            said(
                time_ms,
                host,
                "backend changed",
                json!({ "backend": "broker1", "from": from, "to": to, "reason": "r" }),
            )
        };
        let told = [
            backend(100, "lb1", "up", "suspect"),
            backend(150, "lb1", "suspect", "down"),
            backend(160, "lb2", "up", "down"),
            backend(900, "lb1", "down", "up"),
            backend(1000, "lb2", "down", "up"),
            backend(1100, "lb2", "up", "up"),
        ];
        let shown: Vec<_> = outages(&told).into_iter().map(|(_, outage)| outage).collect();
        assert_eq!(shown, [None, None, None, Some(800), Some(840), None]);
        assert_eq!(transitions(&told)[0].what, "backend broker1");
    }

    #[test]
    fn what_changes_nothing_is_left_out_and_alarms_are_not() {
        let mut alarm = said(3, "b", "the store is full", json!({ "error": "no space" }));
        alarm.level = "warn".to_owned();
        let told = [
            said(1, "b", "listening", json!({ "listen": "0.0.0.0:9000" })),
            said(2, "b", "draining", json!({ "connections": 7, "timeout": "5s" })),
            alarm,
            said(4, "b", "link to peer", json!({ "peer": "broker2", "from": "connected", "to": "backoff" })),
            said(5, "b", "health changed", json!({ "from": "Up", "to": "Down", "reason": "draining" })),
        ];
        let transitions = transitions(&told);
        let shown: Vec<_> = transitions.iter().map(|one| (one.what.as_str(), one.cause.as_deref())).collect();
        let expected = [
            ("draining", Some("connections 7, timeout 5s")),
            ("the store is full", Some("no space")),
            ("link to peer broker2", Some("peer broker2")),
            ("health of vip", Some("draining")),
        ];
        assert_eq!(shown, expected);
        assert_eq!(transitions[3].to.as_deref(), Some("down"));
    }
}
