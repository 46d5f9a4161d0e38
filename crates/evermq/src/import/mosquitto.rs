//! mosquitto.conf: what each line is in a cluster file.
//!
//! Every option of mosquitto 2.0 is known here, those of older versions by their newer names too.

use std::path::Path;
use std::rc::Rc;

use super::bridge::Connection;
use super::finding::Place;
use super::listener::{self, Listener};
use super::model::Model;
use crate::init::draft::Value;

/// A line of the file that says something.
#[derive(Debug, Clone)]
pub struct Line {
    /// Where it stands.
    pub place: Place,
    /// Its first word.
    pub key: String,
    /// What follows.
    pub value: String,
}

/// Words that are secrets: their values are not shown.
const SECRETS: [&str; 6] =
    ["remote_password", "password", "bridge_psk", "tls_engine_kpass_sha1", "psk_hint", "bridge_identity"];

impl Line {
    /// As it stands there, but for secrets.
    #[must_use]
    pub fn text(&self) -> String {
        let value = if SECRETS.contains(&self.key.as_str()) { "..." } else { &self.value };
        format!("{} {value}", self.key).trim_end().to_owned()
    }

    /// Whether it says true; mosquitto takes 1 too.
    #[must_use]
    pub fn is_true(&self) -> bool {
        matches!(self.value.as_str(), "true" | "1")
    }
}

/// The lines of a file. A `#` begins a comment at the start of a line only, as there.
#[must_use]
pub fn lines(file: &Rc<Path>, text: &str) -> Vec<Line> {
    let line = |(index, line): (usize, &str)| {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let place = Place { file: Rc::clone(file), line: index + 1 };
        Some(Line { place, key: key.to_owned(), value: value.trim().to_owned() })
    };
    text.lines().enumerate().filter_map(line).collect()
}

/// Settings that hold for the whole file and are put together at its end.
#[derive(Debug, Default)]
struct Gathered {
    log_types: Vec<String>,
    anonymous: Option<bool>,
    expires: bool,
    largest: bool,
    per_listener: bool,
}

/// Takes a file's lines over.
pub fn import(lines: &[Line], model: &mut Model) {
    let mut gathered = Gathered {
        per_listener: lines.iter().any(|line| line.key == "per_listener_settings" && line.is_true()),
        ..Gathered::default()
    };
    let (mut listeners, mut connections): (Vec<Listener>, Vec<Connection>) = (Vec::new(), Vec::new());
    for line in lines {
        match line.key.as_str() {
            "listener" => listeners.push(Listener::new(line)),
            "port" => listeners.insert(0, Listener::new(line)),
            "connection" => connections.push(Connection::new(line)),
            _ if !connections.is_empty() && Connection::has(&line.key) => {
                connections.last_mut().expect("there is one").add(line);
            }
            _ if Listener::has(&line.key, gathered.per_listener) => match listeners.last_mut() {
                Some(listener) => listener.add(line),
                // Before the first `listener` they are the default listener's.
                None => {
                    listeners.push(Listener::usual(line));
                    listeners.last_mut().expect("it was pushed just now").add(line);
                }
            },
            _ => global(line, &mut gathered, model),
        }
    }
    listener::import(&listeners, gathered.anonymous, gathered.per_listener, model);
    for connection in connections {
        connection.import(model);
    }
    finish(&gathered, lines, model);
}

/// The option's first word, the reason, for all that are so in any case.
const USUAL: &[(&str, &str)] = &[
    ("persistence", "a broker always keeps sessions and retained messages on disk ([broker.store])"),
    ("allow_zero_length_clientid", "clients without an identifier get one"),
    ("set_tcp_nodelay", "TCP_NODELAY is always set"),
    ("connection_messages", "connections are logged at debug, refused ones at info"),
    ("retain_available", "retained messages are there"),
    ("max_qos", "all of QoS 0, 1 and 2 are there"),
    ("allow_duplicate_messages", "a client gets a message once for each of its matching subscriptions as MQTT has it"),
];

/// The same for those that have no counterpart.
const LEFT: &[(&str, &str)] = &[
    (
        "persistence_file",
        "the store has files of its own; mosquitto's database is not read: bring retained messages over a bridge (docs/bridges.md)",
    ),
    ("autosave_interval", "what is acknowledged is on the disk already; [broker.store] sync weakens that"),
    ("autosave_on_changes", "what is acknowledged is on the disk already; [broker.store] sync weakens that"),
    ("pid_file", "systemd knows the process: systemctl show -p MainPID evermq-broker"),
    ("user", "each program runs as a user of its own (systemd unit)"),
    (
        "log_dest",
        "the log goes to the journal: journalctl -u evermq-broker; cluster.log_format = \"json\" for a collector",
    ),
    ("log_facility", "the log goes to the journal"),
    ("log_timestamp", "the journal has the time of each line"),
    ("log_timestamp_format", "journalctl -o short-iso and its like show the time as wanted"),
    ("websockets_log_level", "WebSocket is logged like the rest"),
    ("queue_qos0_messages", "QoS 0 waits for clients that are connected only"),
    ("upgrade_outgoing_qos", "a message has the lower QoS of publisher and subscriber ([MQTT-3.8.4-8])"),
    ("auto_id_prefix", "identifiers that the broker gives have no prefix to choose"),
    (
        "check_retain_source",
        "a retained message does not say who published it: delete it with `evermq retained --delete`",
    ),
    ("max_inflight_bytes", "max_inflight counts messages, max_packet_size bounds each"),
    ("memory_limit", "memory is bounded by max_connections, max_queued_total and max_retained_bytes"),
    ("clientid_prefixes", "a rule does it: [[broker.acl]] with clients = [\"PREFIX*\"]"),
    ("psk_file", "there are no pre-shared keys: give clients certificates (`evermq certs issue NAME`) or passwords"),
    ("auth_plugin", "there are no plugins: use certificates, password_file and [[broker.acl]] or acl_file"),
    ("plugin", "there are no plugins: use certificates, password_file and [[broker.acl]] or acl_file"),
    ("include_dir", "it could not be read; name its files on the command line"),
    ("global_max_clients", "broker.max_connections bounds them"),
    ("global_max_connections", "broker.max_connections bounds them: write it there"),
];

fn global(line: &Line, gathered: &mut Gathered, model: &mut Model) {
    let text = line.text();
    let at = (&line.place, text.as_str());
    let number = line.value.parse::<u64>().ok();
    match (line.key.as_str(), number) {
        ("per_listener_settings", _) => model.usual(at, "anonymous stands with each listener; password_file, acl_file and crl are one for the broker"),
        ("allow_anonymous", _) => {
            gathered.anonymous = Some(line.is_true());
            let value = if line.is_true() { "on" } else { "off" };
            model.keep(at, "broker.auth", "anonymous", value);
        }
        ("password_file", _) => model.keep(at, "broker.auth", "password_file", line.value.as_str()),
        ("acl_file", _) => model.keep(at, "broker.auth", "acl_file", line.value.as_str()),
        ("persistence_location", _) => model.differs(
            at,
            "the store's directory is [broker.store] path, by default /var/lib/evermq; mosquitto's database is not read",
        ),
        ("persistence", _) if !line.is_true() => {
            model.alter(at, "broker.store", "sync", "never", "there is always a store; sync = \"never\" writes it without waiting for the disk");
        }
        ("persistent_client_expiration", _) => match expiration(&line.value) {
            Some(days) => {
                gathered.expires = true;
                model.keep(at, "broker", "max_session_expiry", days);
            }
            None => model.leave(at, "not a time as mosquitto writes it: 14d, 3m, 1y; set broker.max_session_expiry"),
        },
        ("max_inflight_messages", Some(0)) => model.alter(at, "broker", "max_inflight", 65_535, "there is always a bound; this is the highest"),
        ("max_inflight_messages", Some(count)) => bounded(at, "max_inflight", count, 65_535, model),
        ("max_queued_messages", Some(0)) => model.alter(at, "broker", "max_queued_messages", 10_000_000, "there is always a bound; this is the highest"),
        ("max_queued_messages", Some(count)) => bounded(at, "max_queued_messages", count, 10_000_000, model),
        ("max_queued_bytes", Some(0)) => model.differs(at, "there is always a bound: broker.max_queued_bytes, by default 16 MiB for each session"),
        ("max_queued_bytes", Some(bytes)) => sized(at, "max_queued_bytes", bytes, 64 << 30, model),
        ("max_packet_size", Some(bytes @ 1..)) => {
            gathered.largest = true;
            sized(at, "max_packet_size", bytes, 268_435_456, model);
        }
        ("max_packet_size" | "message_size_limit", Some(0)) => {
            gathered.largest = true;
            model.alter(at, "broker", "max_packet_size", "256MiB", "there is always a bound; this is the protocol's");
        }
        ("message_size_limit", Some(bytes)) => {
            gathered.largest = true;
            let whole = bytes.saturating_add(65_536).min(268_435_456);
            model.alter(at, "broker", "max_packet_size", format!("{whole}B"), "max_packet_size counts whole packets: topic, properties and payload; 64 KiB were added");
        }
        ("max_keepalive", Some(0 | 65_535)) => model.usual(at, "any keep alive is granted"),
        ("max_keepalive", Some(seconds)) => model.keep(at, "broker", "max_keep_alive", format!("{seconds}s")),
        ("max_topic_alias", Some(count)) => model.keep(at, "broker", "max_topic_alias", count.min(65_535)),
        ("sys_interval", Some(seconds)) => model.keep(at, "broker", "sys_interval", format!("{}s", seconds.min(3600))),
        ("retain_available", _) if !line.is_true() => {
            model.alter(at, "broker", "max_retained_messages", 0, "nothing is retained; clients are not told so");
        }
        ("max_qos", Some(0 | 1)) => model.leave(at, "all of QoS 0, 1 and 2 are there"),
        ("allow_zero_length_clientid", _) if !line.is_true() => model.leave(at, "clients without an identifier get one"),
        ("log_type", _) => {
            gathered.log_types.push(line.value.clone());
            model.note(&line.place, &text, super::finding::Outcome::Kept { key: "cluster.log_level".to_owned() });
        }
        (key, _) => other(key, at, model),
    }
}

fn other(key: &str, at: (&Place, &str), model: &mut Model) {
    let of = |list: &[(&str, &'static str)]| list.iter().find(|(name, _)| *name == key).map(|(_, why)| *why);
    if let Some(why) = of(USUAL) {
        model.usual(at, why);
    } else if let Some(why) = of(LEFT) {
        model.leave(at, why);
    } else if key.starts_with("auth_opt_") || key.starts_with("plugin_") || key.starts_with("auth_plugin") {
        model.leave(at, "there are no plugins: use certificates, password_file and [[broker.acl]] or acl_file");
    } else if Connection::has(key) {
        model.leave(at, "it belongs to a bridge, and no `connection` line stands before it");
    } else {
        model.leave(at, "no option of mosquitto 2.0 that is known here");
    }
}

fn bounded(at: (&Place, &str), key: &'static str, count: u64, most: u64, model: &mut Model) {
    if count > most {
        model.alter(at, "broker", key, most, "this is the highest");
    } else {
        model.keep(at, "broker", key, count);
    }
}

fn sized(at: (&Place, &str), key: &'static str, bytes: u64, most: u64, model: &mut Model) {
    let fitting = bytes.clamp(1024, most);
    let value: Value = format!("{fitting}B").into();
    if fitting == bytes {
        model.keep(at, "broker", key, value);
    } else {
        model.alter(at, "broker", key, value, "it lies between 1 KiB and the highest that there is");
    }
}

/// `14d`, `2w`, `3m` (months), `1y`, `12h` as a duration of the cluster file.
fn expiration(text: &str) -> Option<String> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = count.trim().parse().ok()?;
    let days = match unit {
        "h" => return Some(format!("{}h", count.min(87_600))),
        "d" => count,
        "w" => count.saturating_mul(7),
        "m" => count.saturating_mul(30),
        "y" => count.saturating_mul(365),
        _ => return None,
    };
    Some(format!("{}d", days.min(3650)))
}

/// What the whole file says, and what it leaves to defaults that are others here.
fn finish(gathered: &Gathered, lines: &[Line], model: &mut Model) {
    if !gathered.log_types.is_empty() {
        let has = |names: &[&str]| gathered.log_types.iter().any(|name| names.contains(&name.as_str()));
        let level = if has(&["debug", "all", "subscribe", "unsubscribe", "websockets", "internal"]) {
            "debug"
        } else if has(&["information", "notice"]) {
            "info"
        } else if has(&["warning"]) {
            "warn"
        } else {
            "error"
        };
        model.draft.table("cluster").set("log_level", level, "");
    }
    let Some(last) = lines.last() else { return };
    let end = Place { file: Rc::clone(&last.place.file), line: last.place.line };
    if !gathered.expires {
        model.differs(
            (&end, "(no persistent_client_expiration)"),
            "mosquitto keeps sessions for ever; broker.max_session_expiry is 7d unless set, at most 3650d",
        );
    }
    if !gathered.largest {
        model.differs(
            (&end, "(no max_packet_size)"),
            "mosquitto takes packets of 256 MiB; broker.max_packet_size is 1 MiB unless set",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_durations() {
        let cases = [("14d", "14d"), ("2w", "14d"), ("3m", "90d"), ("1y", "365d"), ("12h", "12h"), ("99y", "3650d")];
        for (text, expected) in cases {
            assert_eq!(expiration(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "d", "12", "1s", "-1d", "ü"] {
            assert_eq!(expiration(text), None, "{text}");
        }
    }
}
