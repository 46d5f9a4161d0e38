//! mosquitto's listeners: one of mutual TLS and one of plain TCP have keys of their own in `[broker]`, the others are
//! `[[broker.listeners]]`.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::finding::{Outcome, Place};
use super::model::Model;
use super::mosquitto::Line;
use crate::init::draft::Value;

/// A `listener`, and the lines that belong to it.
#[derive(Debug)]
pub struct Listener {
    place: Place,
    text: String,
    port: u16,
    address: String,
    lines: Vec<Line>,
}

/// What belongs to the listener before it.
const OF_LISTENER: [&str; 34] = [
    "bind_address",
    "bind_interface",
    "socket_domain",
    "http_dir",
    "max_connections",
    "mount_point",
    "protocol",
    "use_username_as_clientid",
    "websockets_headers_size",
    "websockets_origin",
    "certfile",
    "keyfile",
    "cafile",
    "capath",
    "ciphers",
    "ciphers_tls1.3",
    "crlfile",
    "dhparamfile",
    "require_certificate",
    "use_identity_as_username",
    "use_subject_as_username",
    "psk_hint",
    "tls_version",
    "tls_engine",
    "tls_engine_kpass_sha1",
    "tls_keyform",
    "accept_protocol_versions",
    "enable_proxy_protocol",
    "proxy_protocol_v2_require_tls",
    "disable_client_cert_date_checks",
    "max_topic_alias_broker",
    "global_plugin",
    "listener_allow_anonymous",
    "listener_auto_id_prefix",
];
/// What belongs to it where `per_listener_settings` says so.
const PER_LISTENER: [&str; 5] =
    ["allow_anonymous", "password_file", "acl_file", "psk_file", "allow_zero_length_clientid"];

impl Listener {
    /// Of its line, `listener PORT [ADDRESS]` or `port PORT`.
    #[must_use]
    pub fn new(line: &Line) -> Self {
        let (port, address) = line.value.split_once(char::is_whitespace).unwrap_or((&line.value, ""));
        Self {
            place: line.place.clone(),
            text: line.text(),
            port: port.parse().unwrap_or(0),
            address: address.trim().to_owned(),
            lines: Vec::new(),
        }
    }

    /// The one that is there without being said.
    #[must_use]
    pub fn usual(line: &Line) -> Self {
        let place = Place { file: Rc::clone(&line.place.file), line: line.place.line };
        Self { place, text: "(the default listener)".to_owned(), port: 1883, address: String::new(), lines: Vec::new() }
    }

    /// Whether an option belongs to a listener.
    #[must_use]
    pub fn has(key: &str, per_listener: bool) -> bool {
        OF_LISTENER.contains(&key) || per_listener && PER_LISTENER.contains(&key)
    }

    /// Adds a line that belongs to it.
    pub fn add(&mut self, line: &Line) {
        if line.key == "bind_address" && self.address.is_empty() {
            self.address.clone_from(&line.value);
        }
        self.lines.push(line.clone());
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().rev().find(|line| line.key == key).map(|line| line.value.as_str())
    }

    fn says(&self, key: &str) -> bool {
        self.lines.iter().rev().find(|line| line.key == key).is_some_and(Line::is_true)
    }

    fn is_tls(&self) -> bool {
        self.value("certfile").is_some()
    }

    /// Only with a certificate of the CA.
    fn is_mutual(&self) -> bool {
        self.is_tls() && self.says("require_certificate") && self.protocol() == "mqtt"
    }

    fn protocol(&self) -> &str {
        match self.value("protocol") {
            Some("websockets") => "websocket",
            _ => "mqtt",
        }
    }

    fn is_unix(&self) -> bool {
        self.address.starts_with('/')
    }

    fn socket(&self) -> String {
        let address = match self.address.as_str() {
            "" | "0.0.0.0" => "0.0.0.0".parse().ok(),
            "localhost" => "127.0.0.1".parse().ok(),
            address => address.parse::<IpAddr>().ok(),
        };
        address
            .map_or_else(|| format!("0.0.0.0:{}", self.port), |address| SocketAddr::new(address, self.port).to_string())
    }
}

/// Takes the listeners over.
pub fn import(listeners: &[Listener], anonymous: Option<bool>, per_listener: bool, model: &mut Model) {
    let mutual = listeners.iter().position(Listener::is_mutual);
    let plain = listeners
        .iter()
        .position(|listener| !listener.is_tls() && !listener.is_unix() && listener.protocol() == "mqtt");
    for (index, listener) in listeners.iter().enumerate() {
        let at = (&listener.place, listener.text.as_str());
        let role = match index {
            _ if Some(index) == mutual => Role::Mutual,
            _ if Some(index) == plain && listener.value("max_connections").is_none_or(|most| most == "-1") => {
                Role::Plain
            }
            _ => Role::Further,
        };
        match role {
            Role::Mutual => model.keep(at, "broker", "listen", listener.socket()),
            Role::Plain => model.keep(at, "broker", "listen_plain", listener.socket()),
            Role::Further => further(listener, index, per_listener, model),
        }
        for line in &listener.lines {
            of_listener(line, listener, &role, model);
        }
    }
    move_out_of_the_way(listeners, mutual.is_some(), model);
    if anonymous.is_none() && !per_listener {
        // mosquitto 2: nobody without an identity as soon as there is a listener.
        let value = if listeners.is_empty() { "loopback" } else { "off" };
        model.draft.table("broker.auth").set("anonymous", value, "mosquitto's default");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Mutual,
    Plain,
    Further,
}

/// The listener of mutual TLS is always there, on 8883 unless told otherwise: it must not take another one's port.
fn move_out_of_the_way(listeners: &[Listener], has_mutual: bool, model: &mut Model) {
    if has_mutual || listeners.is_empty() {
        return;
    }
    let taken = |port: u16| listeners.iter().any(|listener| listener.port == port);
    let first = &listeners[0];
    let at = (&first.place, "(no listener with require_certificate true)");
    if taken(8883) {
        let free = (8886..=8999).find(|port| !taken(*port)).unwrap_or(8886);
        model.alter(
            at,
            "broker",
            "listen",
            format!("0.0.0.0:{free}"),
            "a broker always has one listener of mutual TLS, for the load balancers at least",
        );
    } else {
        model
            .differs(at, "a broker always has one listener of mutual TLS, on 8883 unless broker.listen says otherwise");
    }
}

fn further(listener: &Listener, index: usize, per_listener: bool, model: &mut Model) {
    let name = format!(
        "{}-{}",
        listener.protocol(),
        if listener.is_unix() { index.to_string() } else { listener.port.to_string() }
    );
    let table = model.draft.entry("broker.listeners");
    table.set("name", name, "");
    if listener.is_unix() {
        table.set("path", listener.address.as_str(), "");
    } else {
        table.set("listen", listener.socket(), "").set("tls", listener.is_tls(), "");
    }
    table.set("protocol", listener.protocol(), "");
    if listener.is_tls() {
        let asked = match (listener.says("require_certificate"), listener.value("cafile").or(listener.value("capath")))
        {
            (true, _) => "required",
            (false, Some(_)) => "optional",
            (false, None) => "off",
        };
        table.set("client_certificates", asked, "");
    }
    if let (true, Some(anonymous)) =
        (per_listener, listener.lines.iter().rev().find(|line| line.key == "allow_anonymous"))
    {
        table.set("anonymous", if anonymous.is_true() { "on" } else { "off" }, "");
    }
    if let Some(most) = listener.value("max_connections").and_then(|most| most.parse::<u64>().ok()) {
        table.set("max_connections", most, "");
    }
    model.note(&listener.place, &listener.text, Outcome::Kept { key: "[[broker.listeners]]".to_owned() });
}

fn of_listener(line: &Line, listener: &Listener, role: &Role, model: &mut Model) {
    let text = line.text();
    let at = (&line.place, text.as_str());
    let kept = |model: &mut Model, key: &str| model.note(at.0, at.1, Outcome::Kept { key: key.to_owned() });
    match line.key.as_str() {
        "certfile" => certificate(at, "cert", line, model),
        "keyfile" => certificate(at, "key", line, model),
        "cafile" => certificate(at, "ca", line, model),
        "crlfile" => model.keep(at, "broker.auth", "crl", Value::list([&line.value])),
        "require_certificate" | "protocol" if matches!(line.value.as_str(), "true" | "false" | "mqtt" | "websockets") => {
            kept(model, if *role == Role::Further { "[[broker.listeners]]" } else { "broker.listen" });
        }
        "protocol" => model.leave(at, "MQTT and WebSocket are there"),
        "bind_address" => kept(model, "listen"),
        "use_identity_as_username" if line.is_true() => model.usual(at, "broker.auth.identity is \"cn\""),
        "use_identity_as_username" if listener.says("require_certificate") => model.differs(
            at,
            "a certificate's name is the user name here, and wins over a user name in CONNECT: look at the rules of acl_file",
        ),
        "use_subject_as_username" if line.is_true() => {
            model.alter(at, "broker.auth", "identity", "subject", "written as RFC 4514 has it, such as CN=x,O=y: look at the rules of acl_file");
        }
        "max_connections" => match (line.value.parse::<u64>(), role) {
            (Ok(_), Role::Further) => kept(model, "[[broker.listeners]] max_connections"),
            (Ok(most), _) => model.alter(at, "broker", "max_connections", most.clamp(1, 1_000_000), "it counts the clients of all of the broker's listeners"),
            (Err(_), _) => model.differs(at, "there is always a bound: broker.max_connections, by default 20000"),
        },
        "allow_anonymous" if *role == Role::Further => kept(model, "[[broker.listeners]] anonymous"),
        "allow_anonymous" => {
            model.alter(at, "broker.auth", "anonymous", if line.is_true() { "on" } else { "off" }, "it holds for broker.listen, listen_plain and all listeners that do not say otherwise");
        }
        key @ ("password_file" | "acl_file") => {
            let key = if key == "acl_file" { "acl_file" } else { "password_file" };
            if model.draft.table("broker.auth").has(key) {
                model.leave(at, "there is one for all listeners of a broker, and another one has been taken: put them into one file");
            } else {
                model.alter(at, "broker.auth", key, line.value.as_str(), "it holds for all listeners");
            }
        }
        "tls_version" if line.value == "tlsv1.2" => model.usual(at, "TLS 1.2 and 1.3"),
        "accept_protocol_versions" => model.leave(at, "write it by hand: protocol_versions = [\"3.1.1\", \"5.0\"] in [[broker.listeners]]"),
        "use_identity_as_username" | "use_subject_as_username" | "use_username_as_clientid" if !line.is_true() => {
            model.usual(at, "it is not done");
        }
        key => model.leave(at, why_left(key)),
    }
}

fn why_left(key: &str) -> &'static str {
    match key {
        "capath" => "name one file with all of its certificates: tls.ca",
        "ciphers" | "ciphers_tls1.3" | "dhparamfile" => {
            "the suites are those of TLS 1.2 and 1.3 that are safe today, and need no parameters"
        }
        "tls_version" => "a broker speaks TLS 1.2 and 1.3; older versions are not there",
        "mount_point" => "listeners have no prefix for topics: rules ([[broker.acl]]) keep clients apart",
        "bind_interface" => "name the interface's address: listen = \"ADDRESS:PORT\"",
        "socket_domain" => "the address says it: 0.0.0.0 is IPv4, [::] both",
        "http_dir" => "a broker serves no files over HTTP",
        "use_username_as_clientid" => {
            "a client identifier belongs to the user whose session it is, so nobody takes over another user's"
        }
        "psk_hint" | "psk_file" => {
            "there are no pre-shared keys: give clients certificates (`evermq certs issue NAME`) or passwords"
        }
        "tls_engine" | "tls_engine_kpass_sha1" | "tls_keyform" => "keys are PEM files; there are no engines",
        "enable_proxy_protocol" | "proxy_protocol_v2_require_tls" => {
            "headers of the cluster's lb hosts are believed, of nobody else: broker.listen_proxy"
        }
        "disable_client_cert_date_checks" => "a certificate that has ended does not count: `evermq certs renew`",
        _ => "nothing here depends on it",
    }
}

/// Certificates stay where they are. There is one pair for each host, for all of its listeners.
fn certificate(at: (&Place, &str), key: &'static str, line: &Line, model: &mut Model) {
    let wanted: Value = line.value.as_str().into();
    if model.draft.table("tls").has(key) && !model.draft.table("tls").is(key, &wanted) {
        model.leave(
            at,
            "a host has one certificate, one key and one CA for all of its listeners, and another one has been taken",
        );
        return;
    }
    match key {
        "cert" => model.alter(at, "tls", key, wanted, "it must be the host's own, for its name or address and for the VIP, for server and client: `evermq check` looks"),
        _ => model.keep(at, "tls", key, wanted),
    }
}
