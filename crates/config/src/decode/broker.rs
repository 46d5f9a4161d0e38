//! `[broker]`, the tables and the lists in it.

use std::path::PathBuf;

use crate::broker::{
    AclRule, Admission, Anonymous, Auth, Broker, CertificateIdentity, ClientCertificates, ListenAddress, Listener,
    Protocol, Store, Sync,
};
use crate::consistency::{BrokerListenerSpans, Spans};
use crate::section::{Section, Source};

/// Entries of each list; far above any site's.
const MOST_ENTRIES: usize = 1_024;
const ANONYMOUS: &[(&str, Anonymous)] =
    &[("loopback", Anonymous::Loopback), ("off", Anonymous::Off), ("on", Anonymous::On)];
const MQTT_VERSIONS: &[(&str, u8)] = &[("3.1", 3), ("3.1.1", 4), ("5.0", 5)];

pub(super) fn broker(
    source: &Source<'_>,
    mut s: Section<'_>,
    defaulted: &mut Vec<String>,
    spans: &mut Spans,
) -> Broker {
    let mut listeners = Vec::new();
    for entry in s.entries("listeners", MOST_ENTRIES) {
        if let Some((listener, at)) = listener(source, entry, defaulted) {
            spans.broker_listeners.push(at);
            listeners.push(listener);
        }
    }
    let broker = Broker {
        listen: s.socket_address("listen", "0.0.0.0:8883"),
        listen_plain: s.optional_socket_address("listen_plain", "127.0.0.1:1883"),
        listen_proxy: s.optional_socket_address("listen_proxy", "0.0.0.0:8885"),
        listeners,
        peer_port: s.integer("peer_port", 8884, 1..=65_535),
        connect_timeout: s.duration("connect_timeout", "10s", "100ms"..="5m"),
        admission: admission(&mut s),
        max_packet_size: packet_size(s.size("max_packet_size", 1 << 20, 1 << 10..=268_435_456)),
        max_inflight: s.integer("max_inflight", 100, 1..=65_535),
        max_queued_messages: s.integer("max_queued_messages", 10_000, 1..=10_000_000),
        max_queued_bytes: size(s.size("max_queued_bytes", 16 << 20, 1 << 10..=64 << 30)),
        max_queued_total: size(s.size("max_queued_total", 4 << 30, 1 << 20..=1 << 40)),
        max_sessions: s.integer("max_sessions", 100_000, 1..=10_000_000),
        max_session_expiry: s.duration("max_session_expiry", "7d", "0ms"..="3650d"),
        max_keep_alive: s.duration("max_keep_alive", "0s", "0s"..="65535s"),
        max_subscriptions: s.integer("max_subscriptions", 1_000, 1..=10_000_000),
        max_topic_levels: s.integer("max_topic_levels", 32, 1..=1_000),
        max_topic_alias: s.integer("max_topic_alias", 10, 0..=65_535),
        max_retained_messages: s.integer("max_retained_messages", 1_000_000, 0..=100_000_000),
        max_retained_bytes: size(s.size("max_retained_bytes", 4 << 30, 0..=1 << 40)),
        peer_queue_messages: s.integer("peer_queue_messages", 1_000_000, 1_000..=100_000_000),
        peer_queue_bytes: size(s.size("peer_queue_bytes", 256 << 20, 1 << 20..=64 << 30)),
        peer_queue_age: s.duration("peer_queue_age", "1d", "1s"..="365d"),
        join_timeout: s.duration("join_timeout", "60s", "0ms"..="1h"),
        tcp_keepalive: s.duration("tcp_keepalive", "30s", "1s"..="2h"),
        tcp_user_timeout: s.duration("tcp_user_timeout", "10s", "1s"..="1h"),
        drain_timeout: s.duration("drain_timeout", "5s", "0ms"..="1h"),
        workers: s.integer("workers", 0, 0..=256),
        metrics: s.optional_socket_address("metrics", "127.0.0.1:9114"),
        sys_interval: Some(s.duration("sys_interval", "10s", "0s"..="1h")).filter(|interval| !interval.is_zero()),
        store: store(s.table("store", "broker.store"), defaulted, spans),
        auth: auth(source, &mut s, defaulted, spans),
    };
    for key in ["listen_plain", "listen_proxy", "metrics"] {
        s.note_if_absent(key);
    }
    spans.broker_listen = s.span("listen");
    spans.listen_plain = s.span("listen_plain");
    spans.listen_proxy = s.span("listen_proxy");
    spans.peer_port = s.span("peer_port");
    spans.max_packet_size = s.span("max_packet_size");
    defaulted.extend(s.finish());
    broker
}

pub(super) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn packet_size(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// 0 in the file stands for no bound.
fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn admission(s: &mut Section<'_>) -> Admission {
    Admission {
        connections: s.integer("max_connections", 20_000, 1..=1_000_000),
        per_address: some(s.integer("max_connections_per_address", 0, 0..=1_000_000)),
        per_user: some(s.integer("max_connections_per_user", 0, 0..=1_000_000)),
        handshakes: s.integer("max_handshakes", 1_000, 1..=1_000_000),
        publish_rate: some(s.integer("max_publish_rate", 0, 0..=10_000_000)),
        publish_bytes: some(s.size("max_publish_bytes", 0, 0..=64 << 30)),
    }
}

fn store(mut s: Section<'_>, defaulted: &mut Vec<String>, spans: &mut Spans) -> Store {
    let interval = s.duration("sync_interval", "1s", "10ms"..="1h");
    let store = Store {
        path: s.path("path", "/var/lib/evermq"),
        sync: s.choice(
            "sync",
            &[("always", Sync::Always), ("interval", Sync::Interval(interval)), ("never", Sync::Never)],
        ),
        segment_size: s.size("segment_size", 64 << 20, 1 << 20..=1 << 30),
        max_size: s.size("max_size", 16 << 30, 16 << 20..=1 << 44),
    };
    spans.store_max_size = s.span("max_size");
    defaulted.extend(s.finish());
    store
}

fn auth(source: &Source<'_>, s: &mut Section<'_>, defaulted: &mut Vec<String>, spans: &mut Spans) -> Auth {
    let mut rules = Vec::new();
    for entry in s.entries("acl", MOST_ENTRIES) {
        spans.acl.get_or_insert(entry.span(""));
        rules.extend(rule(source, entry));
    }
    let mut s = s.table("auth", "broker.auth");
    let auth = Auth {
        identity: s.choice(
            "identity",
            &[
                ("cn", CertificateIdentity::CommonName),
                ("san_uri", CertificateIdentity::SanUri),
                ("san_dns", CertificateIdentity::SanDns),
                ("subject", CertificateIdentity::Subject),
            ],
        ),
        anonymous: s.choice("anonymous", ANONYMOUS),
        password_file: s.optional_path("password_file", "passwords"),
        acl_file: s.optional_path("acl_file", "acl"),
        tell_denied: s.boolean("tell_denied", true),
        rules,
        crl: s
            .strings("crl", "a list of paths, such as [\"tls/ca.crl\"]")
            .unwrap_or_default()
            .iter()
            .map(|path| s.absolute(path))
            .collect(),
    };
    for key in ["password_file", "acl_file", "crl"] {
        s.note_if_absent(key);
    }
    spans.acl_file = s.present("acl_file").then(|| s.span("acl_file"));
    defaulted.extend(s.finish());
    auth
}

fn rule(source: &Source<'_>, mut s: Section<'_>) -> Option<AclRule> {
    let names = "a list of names in which * stands for any characters, such as [\"sensor-*\"]";
    let filters = "a list of topic filters, such as [\"plant/%u/#\"]";
    let name = |text: &str| !text.is_empty() && text.len() <= 65_535;
    let users = s.names("users", names, name);
    let clients = s.names("clients", names, name);
    let [publish, subscribe, deny] = ["publish", "subscribe", "deny"].map(|key| s.names(key, filters, is_filter));
    if !["publish", "subscribe", "deny"].iter().any(|key| s.present(key)) {
        source.error(
            s.span(""),
            "this rule says not what is allowed or denied",
            "add publish, subscribe or deny, such as: publish = [\"plant/%u/#\"]",
        );
    }
    s.finish();
    Some(AclRule {
        users: users.unwrap_or_default(),
        clients: clients.unwrap_or_default(),
        publish: publish.unwrap_or_default(),
        subscribe: subscribe.unwrap_or_default(),
        deny: deny.unwrap_or_default(),
    })
}

/// §4.7.1: `+` and `#` take a whole level, `#` the last one.
pub(crate) fn is_filter(text: &str) -> bool {
    let levels: Vec<_> = text.split('/').collect();
    let is_good = |(index, level): (usize, &&str)| match *level {
        "#" => index + 1 == levels.len(),
        "+" => true,
        level => !level.contains(['+', '#', '\0']),
    };
    !text.is_empty() && text.len() <= 65_535 && levels.iter().enumerate().all(is_good)
}

fn listener(
    source: &Source<'_>,
    mut s: Section<'_>,
    defaulted: &mut Vec<String>,
) -> Option<(Listener, BrokerListenerSpans)> {
    let is_name = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let wanted = "a listener's name: 1 to 63 letters, digits, hyphens, dots and underscores, such as \"web\"";
    let name = s.parsed("name", wanted, |text| is_name(text).then(|| text.to_owned()));
    let name = s.required("name", name, "\"web\"");
    let address = listen_address(source, &mut s);
    let tls = s.boolean("tls", matches!(address, Some(ListenAddress::Tcp(_))));
    let listener = Listener {
        name: name.unwrap_or_default(),
        protocol: s.choice("protocol", &[("mqtt", Protocol::Mqtt), ("websocket", Protocol::WebSocket)]),
        tls,
        client_certificates: s.choice(
            "client_certificates",
            &[
                ("required", ClientCertificates::Required),
                ("optional", ClientCertificates::Optional),
                ("off", ClientCertificates::Off),
            ],
        ),
        anonymous: s.optional_choice("anonymous", ANONYMOUS),
        max_connections: some(s.integer("max_connections", 0, 0..=1_000_000)),
        max_packet_size: some(s.size("max_packet_size", 0, 0..=268_435_456)).map(packet_size),
        protocol_versions: versions(&mut s),
        // Without one there is no listener, but what else is wrong with it is told too.
        address: address.clone().unwrap_or_else(|| ListenAddress::Unix(PathBuf::new())),
    };
    if s.present("client_certificates") && !tls {
        source.error(
            s.span("client_certificates"),
            "client_certificates does nothing without TLS",
            "delete the line, or write tls = true",
        );
    }
    for key in ["listen", "path", "anonymous", "protocol_versions"] {
        s.note_if_absent(key);
    }
    let spans = BrokerListenerSpans {
        name: s.span("name"),
        listen: s.span(if s.present("path") { "path" } else { "listen" }),
        max_packet_size: s.span("max_packet_size"),
    };
    defaulted.extend(s.finish());
    (address.is_some() && !listener.name.is_empty()).then_some((listener, spans))
}

fn listen_address(source: &Source<'_>, s: &mut Section<'_>) -> Option<ListenAddress> {
    let tcp = s.optional_socket_address("listen", "0.0.0.0:8083").map(ListenAddress::Tcp);
    let unix = s.optional_path("path", "/run/evermq/mqtt.sock").map(ListenAddress::Unix);
    match (tcp, unix) {
        (Some(_), Some(_)) => {
            source.error(s.span("path"), "a listener has either listen or path", "delete one of them");
            None
        }
        (None, None) if s.present("listen") || s.present("path") => None,
        (None, None) => s.required("listen", None, "\"0.0.0.0:8083\""),
        (tcp, unix) => tcp.or(unix),
    }
}

fn versions(s: &mut Section<'_>) -> Vec<u8> {
    let number = |text: &str| MQTT_VERSIONS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    let wanted = "a list of \"3.1\", \"3.1.1\" and \"5.0\"";
    let names = s.names("protocol_versions", wanted, |text| MQTT_VERSIONS.iter().any(|(name, _)| *name == text));
    match names {
        Some(names) => names.iter().filter_map(|name| number(name)).collect(),
        None => MQTT_VERSIONS.iter().map(|(_, number)| *number).collect(),
    }
}
