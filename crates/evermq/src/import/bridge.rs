//! mosquitto's bridges: `connection` and what belongs to it, as `[[bridges]]`.

use super::finding::{Outcome, Place};
use super::model::Model;
use super::mosquitto::Line;
use crate::init::draft::Value;

/// A `connection`, and the lines that belong to it.
#[derive(Debug)]
pub struct Connection {
    place: Place,
    text: String,
    name: String,
    lines: Vec<Line>,
}

/// What belongs to the connection before it.
const OF_CONNECTION: [&str; 49] = [
    "address",
    "addresses",
    "topic",
    "bridge_alpn",
    "bridge_attempt_unsubscribe",
    "bridge_bind_address",
    "bridge_cafile",
    "bridge_capath",
    "bridge_certfile",
    "bridge_ciphers",
    "bridge_ciphers_tls1.3",
    "bridge_clean_start",
    "bridge_identity",
    "bridge_insecure",
    "bridge_keyfile",
    "bridge_max_packet_size",
    "bridge_max_topic_alias",
    "bridge_outgoing_retain",
    "bridge_protocol_version",
    "bridge_psk",
    "bridge_receive_maximum",
    "bridge_reload_type",
    "bridge_require_ocsp",
    "bridge_session_expiry_interval",
    "bridge_tcp_keepalive",
    "bridge_tcp_user_timeout",
    "bridge_tls_use_os_certs",
    "bridge_tls_version",
    "cleansession",
    "clientid",
    "idle_timeout",
    "keepalive_interval",
    "local_clientid",
    "local_cleansession",
    "local_password",
    "local_username",
    "notification_topic",
    "notifications",
    "notifications_local_only",
    "password",
    "remote_clientid",
    "remote_password",
    "remote_username",
    "restart_timeout",
    "round_robin",
    "start_type",
    "threshold",
    "try_private",
    "username",
];

impl Connection {
    /// Of its line.
    #[must_use]
    pub fn new(line: &Line) -> Self {
        Self { place: line.place.clone(), text: line.text(), name: line.value.clone(), lines: Vec::new() }
    }

    /// Whether an option belongs to a connection.
    #[must_use]
    pub fn has(key: &str) -> bool {
        OF_CONNECTION.contains(&key)
    }

    /// Adds a line that belongs to it.
    pub fn add(&mut self, line: &Line) {
        self.lines.push(line.clone());
    }

    /// Takes it over.
    pub fn import(self, model: &mut Model) {
        let addresses: Vec<String> = self.addresses().collect();
        let of_cluster = |address: &String| {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            model
                .address_of(host)
                .is_some_and(|address| model.hosts.iter().any(|known| known.address == address && known.broker))
        };
        if !addresses.is_empty() && addresses.iter().all(of_cluster) {
            let why = "the brokers of a cluster are connected to each other without a bridge (docs/mesh.md)";
            model.leave((&self.place, &self.text), why);
            for line in &self.lines {
                model.leave((&line.place, &line.text()), why);
            }
            return;
        }
        let name: String = self
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
            .take(63)
            .collect();
        let name = if name.is_empty() { "bridge".to_owned() } else { name };
        let topics: Vec<&str> =
            self.lines.iter().filter(|line| line.key == "topic").map(|line| line.value.as_str()).collect();
        let table = model.draft.entry("bridges");
        table.set("name", name.as_str(), "").set("addresses", Value::list(&addresses), "");
        if !topics.is_empty() {
            table.set("topics", Value::lines(&topics), "");
        }
        let renamed = name != self.name;
        let place = &self.place;
        if topics.is_empty() || addresses.is_empty() {
            model.leave((place, &self.text), "it has no address or no topic: mosquitto would not start with it either");
        } else if renamed {
            model.differs(
                (place, &self.text),
                "the name of [[bridges]] has letters, digits, hyphens, dots and underscores",
            );
        } else {
            model.note(place, &self.text, Outcome::Kept { key: "[[bridges]]".to_owned() });
        }
        for line in &self.lines {
            of_connection(line, &name, model);
        }
    }

    fn addresses(&self) -> impl Iterator<Item = String> {
        let lines = self.lines.iter().filter(|line| matches!(line.key.as_str(), "address" | "addresses"));
        lines.flat_map(|line| line.value.split_whitespace()).map(str::to_owned)
    }
}

fn of_connection(line: &Line, name: &str, model: &mut Model) {
    let text = line.text();
    let at = (&line.place, text.as_str());
    let value = line.value.as_str();
    let mut set = |key: &'static str, value: Value| {
        let bridge = model.draft.last("bridges").expect("its entry was added just now");
        bridge.set(key, value, "");
        model.note(at.0, at.1, Outcome::Kept { key: format!("[[bridges]] {key}") });
    };
    match line.key.as_str() {
        "address" | "addresses" => model.note(at.0, at.1, Outcome::Kept { key: "[[bridges]] addresses".to_owned() }),
        "topic" => model.note(at.0, at.1, Outcome::Kept { key: "[[bridges]] topics".to_owned() }),
        "bridge_protocol_version" => match value {
            "mqttv50" => set("protocol_version", "5.0".into()),
            "mqttv311" => set("protocol_version", "3.1.1".into()),
            _ => model.leave(at, "bridges speak MQTT 3.1.1 and 5.0"),
        },
        "remote_clientid" | "clientid" => set("client_id", value.into()),
        "remote_username" | "username" => set("username", value.into()),
        "remote_password" | "password" => {
            let file = format!("{name}.password");
            set("password_file", file.as_str().into());
            model.findings.pop();
            model.differs(at, &format!("write the password into the file {file} beside the cluster file, readable for the programs' user only"));
        }
        "bridge_cafile" => set("ca", value.into()),
        "bridge_certfile" => set("cert", value.into()),
        "bridge_keyfile" => set("key", value.into()),
        "try_private" => set("try_private", line.is_true().into()),
        "keepalive_interval" => match value.parse::<u64>() {
            Ok(seconds @ 5..=65_535) => set("keep_alive", format!("{seconds}s").into()),
            _ => model.leave(at, "keep_alive is 5s to 65535s"),
        },
        "restart_timeout" => {
            let mut numbers = value.split_whitespace().map_while(|word| word.parse::<u64>().ok());
            match (numbers.next(), numbers.next()) {
                (Some(least @ 1..), Some(most)) if most >= least => {
                    set("reconnect_min", format!("{}s", least.min(3600)).into());
                    set("reconnect_max", format!("{}s", most.min(3600)).into());
                    model.findings.pop();
                }
                (Some(one @ 1..), None) => {
                    set("reconnect_min", format!("{}s", one.min(3600)).into());
                    set("reconnect_max", format!("{}s", one.min(3600)).into());
                    model.findings.pop();
                }
                _ => model.leave(at, "reconnect_min and reconnect_max are 10ms to 1h"),
            }
        }
        "start_type" if value == "automatic" => model.usual(at, "a bridge connects by itself"),
        "cleansession"
        | "bridge_clean_start"
        | "round_robin"
        | "bridge_insecure"
        | "notifications"
        | "bridge_require_ocsp"
            if !line.is_true() =>
        {
            model.usual(at, "it is not done");
        }
        "bridge_outgoing_retain" | "bridge_attempt_unsubscribe" | "notifications_local_only" if line.is_true() => {
            model.usual(at, "it is so");
        }
        key => model.leave(at, why_left(key)),
    }
}

fn why_left(key: &str) -> &'static str {
    match key {
        "cleansession" | "bridge_clean_start" | "local_cleansession" => {
            "a bridge always has a session on both sides, so that nothing is lost while it is away"
        }
        "notifications" | "notification_topic" | "notifications_local_only" => {
            "bridges publish no notifications: `evermq status` and evermq_broker_bridge_* tell how they are"
        }
        "round_robin" => "addresses are tried in their order, and a connection to a later one stays until it ends",
        "start_type" | "idle_timeout" | "threshold" => "a bridge is always connected",
        "bridge_insecure" => "the remote broker must show a certificate for its name: server_name says another one",
        "bridge_capath" => "name one file: ca",
        "bridge_identity" | "bridge_psk" => "there are no pre-shared keys: cert and key",
        "local_clientid" | "local_username" | "local_password" => {
            "a bridge's session here is $bridge/NAME and needs no user"
        }
        "bridge_outgoing_retain" => "the retain flag crosses as it was published",
        "bridge_bind_address" => "the system chooses the source address",
        "bridge_max_packet_size" => {
            "broker.max_packet_size bounds what comes in; what goes out is bounded by the remote broker"
        }
        "bridge_tls_version" | "bridge_ciphers" | "bridge_ciphers_tls1.3" => {
            "TLS 1.2 and 1.3 with suites that are safe today"
        }
        "bridge_tls_use_os_certs" => "write ca = \"/etc/ssl/certs/ca-certificates.crt\"",
        _ => "nothing here depends on it",
    }
}
