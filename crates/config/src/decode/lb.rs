//! `[lb]` and the lists in it.

use std::path::PathBuf;

use crate::consistency::{BackendSpans, Spans};
use crate::lb::{
    AccessLog, BROKERS, Backend, Balance, CertificateFiles, ClientAuth, ClientIdAction, ClientIdRule, Handshakes,
    HealthSettings, Lb, Listener, Mode, Probe, Queue, Rebalance, Route, SourceLimits, Termination, TlsVersion,
};
use crate::section::{Section, Source};

/// Entries of each list; far above any site's.
const MOST_ENTRIES: usize = 256;
const MODES: &[(&str, Mode)] = &[
    ("passthrough", Mode::Passthrough),
    ("terminate", Mode::Terminate),
    ("reencrypt", Mode::Reencrypt),
    ("plain", Mode::Plain),
];
const BALANCES: &[(&str, Balance)] = &[
    ("least_conn", Balance::LeastConn),
    ("round_robin", Balance::RoundRobin),
    ("random_two", Balance::RandomTwo),
    ("source_ip", Balance::SourceIp),
    ("client_id", Balance::ClientId),
];

pub(super) fn lb(source: &Source<'_>, mut s: Section<'_>, defaulted: &mut Vec<String>, spans: &mut Spans) -> Lb {
    let mut listeners = vec![Listener {
        name: "main".to_owned(),
        address: s.socket_address("listen", "0.0.0.0:9000"),
        mode: s.choice("mode", MODES),
        group: BROKERS.to_owned(),
    }];
    spans.listeners.push(s.span("listen"));
    for entry in s.entries("listeners", MOST_ENTRIES) {
        let at = entry.span("");
        if let Some(listener) = listener(entry, defaulted) {
            spans.listeners.push(at);
            listeners.push(listener);
        }
    }
    let mut backends = Vec::new();
    for entry in s.entries("backends", MOST_ENTRIES) {
        if let Some((backend, at)) = backend(entry, defaulted) {
            spans.backends.push(at);
            backends.push(backend);
        }
    }
    let (routes, client_ids) = rules(source, &mut s, spans);
    let lb = Lb {
        listeners,
        balance: s.choice("balance", BALANCES),
        send_proxy: s.boolean("send_proxy", false),
        accept_proxy_from: s.networks("accept_proxy_from", "[\"10.0.0.0/24\"]"),
        max_connections: s.integer("max_connections", 20_000, 1..=1_000_000),
        greeting_timeout: s.duration("greeting_timeout", "10s", "100ms"..="5m"),
        idle_timeout: Some(s.duration("idle_timeout", "28h", "0s"..="3650d")).filter(|timeout| !timeout.is_zero()),
        connect_timeout: s.duration("connect_timeout", "1s", "10ms"..="1m"),
        handshakes: handshakes(&mut s),
        queue: Queue {
            size: s.integer("queue_size", 20_000, 0..=1_000_000),
            timeout: s.duration("queue_timeout", "30s", "10ms"..="10m"),
        },
        source: SourceLimits {
            connections: some(s.integer("max_connections_per_source", 0, 0..=1_000_000)),
            rate: some(s.integer("max_rate_per_source", 0, 0..=1_000_000)),
        },
        health: health(&mut s),
        rebalance: Rebalance {
            rate: some(s.integer("rebalance_rate", 10, 0..=100_000)),
            threshold: s.integer("rebalance_threshold", 20, 1..=255),
            delay: s.duration("rebalance_delay", "1m", "0s"..="1d"),
        },
        tcp_keepalive: s.duration("tcp_keepalive", "30s", "1s"..="2h"),
        tcp_user_timeout: s.duration("tcp_user_timeout", "10s", "1s"..="1h"),
        drain_timeout: s.duration("drain_timeout", "5s", "0ms"..="1h"),
        peer_port: s.integer("peer_port", 9001, 1..=65_535),
        reconnect_rate: s.integer("reconnect_rate", 5_000, 1..=1_000_000),
        access_log: access_log(&mut s),
        metrics: s.optional_socket_address("metrics", "127.0.0.1:9113"),
        workers: s.integer("workers", 0, 0..=256),
        backends,
        routes,
        client_ids,
        tls: termination(&mut s, defaulted, spans),
    };
    s.note_if_absent("metrics");
    spans.lb_peer_port = s.present("peer_port").then(|| s.span("peer_port"));
    spans.lb_balance = s.span("balance");
    spans.health_timeout = s.span("health_timeout");
    defaulted.extend(s.finish());
    lb
}

/// `[[lb.routes]]` and `[[lb.client_ids]]`.
fn rules(source: &Source<'_>, s: &mut Section<'_>, spans: &mut Spans) -> (Vec<Route>, Vec<ClientIdRule>) {
    let mut routes = Vec::new();
    for entry in s.entries("routes", MOST_ENTRIES) {
        if let Some((route, at)) = route(entry) {
            spans.routes.push(at);
            routes.push(route);
        }
    }
    let mut client_ids = Vec::new();
    for entry in s.entries("client_ids", MOST_ENTRIES) {
        if let Some((rule, at)) = client_id_rule(source, entry) {
            spans.client_ids.push(at);
            client_ids.push(rule);
        }
    }
    (routes, client_ids)
}

/// 0 in the file stands for no bound.
fn some<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

fn handshakes(s: &mut Section<'_>) -> Handshakes {
    Handshakes {
        rate: some(s.integer("max_handshake_rate", 0, 0..=1_000_000)),
        rate_per_backend: some(s.integer("max_handshake_rate_per_broker", 1_000, 0..=1_000_000)),
        concurrent: s.integer("max_handshakes", 1_000, 1..=1_000_000),
        concurrent_per_backend: s.integer("max_handshakes_per_broker", 250, 1..=1_000_000),
    }
}

fn health(s: &mut Section<'_>) -> HealthSettings {
    HealthSettings {
        interval: s.duration("health_interval", "250ms", "10ms"..="1m"),
        timeout: s.duration("health_timeout", "750ms", "20ms"..="5m"),
        rise: s.integer("health_rise", 2, 1..=100),
        fall: s.integer("health_fall", 2, 1..=100),
        max_ejected: s.integer("max_ejected", 50, 0..=100),
        slow_start: s.duration("slow_start", "10s", "0s"..="1h"),
    }
}

fn access_log(s: &mut Section<'_>) -> AccessLog {
    let wanted = "\"log\", \"off\" or a path, such as \"/var/log/evermq/access.log\"";
    let text = s.parsed("access_log", wanted, |text| {
        (matches!(text, "log" | "off") || text.contains('/')).then(|| text.to_owned())
    });
    s.note_if_absent("access_log");
    match text.as_deref() {
        None | Some("log") => AccessLog::Log,
        Some("off") => AccessLog::Off,
        Some(path) => AccessLog::File(s.absolute(path)),
    }
}

fn termination(s: &mut Section<'_>, defaulted: &mut Vec<String>, spans: &mut Spans) -> Termination {
    let mut certificates = Vec::new();
    for mut entry in s.entries("certificates", MOST_ENTRIES) {
        let at = entry.span("");
        let cert = entry.optional_path("cert", "tls/mqtt.crt");
        let cert = entry.required("cert", cert, "\"tls/mqtt.crt\"");
        let key = entry.optional_path("key", "tls/mqtt.key");
        let key = entry.required("key", key, "\"tls/mqtt.key\"");
        if let (Some(cert), Some(key)) = (cert, key) {
            spans.certificates.push(at);
            certificates.push(CertificateFiles { cert, key });
        }
        defaulted.extend(entry.finish());
    }
    let termination = Termination {
        certificates,
        client_auth: s.choice(
            "client_certificates",
            &[("required", ClientAuth::Required), ("optional", ClientAuth::Optional), ("off", ClientAuth::Off)],
        ),
        client_ca: s.optional_path("client_ca", "tls/clients-ca.crt"),
        crl: s
            .strings("crl", "a list of paths, such as [\"tls/ca.crl\"]")
            .unwrap_or_default()
            .iter()
            .map(|path| s.absolute(path))
            .collect::<Vec<PathBuf>>(),
        min_version: s.choice("tls_min_version", &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)]),
        ticket_key: s.path("ticket_key", "ticket.key"),
        ticket_rotation: s.duration("ticket_rotation", "6h", "1m"..="7d"),
    };
    for key in ["client_ca", "crl"] {
        s.note_if_absent(key);
    }
    termination
}

fn name(s: &mut Section<'_>, what: &str, example: &str) -> Option<String> {
    let is_good = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let wanted = format!("{what}: 1 to 63 letters, digits, hyphens, dots and underscores, such as {example}");
    s.parsed("name", &wanted, |text| is_good(text).then(|| text.to_owned()))
}

/// `group`, that of the cluster's own brokers where it is left out.
fn group(s: &mut Section<'_>) -> String {
    let group = optional_group(s);
    s.note_if_absent("group");
    group.unwrap_or_else(|| BROKERS.to_owned())
}

fn optional_group(s: &mut Section<'_>) -> Option<String> {
    let is_good = |text: &str| {
        (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    s.parsed("group", "a group's name: 1 to 63 letters, digits, hyphens and underscores, such as \"legacy\"", |text| {
        is_good(text).then(|| text.to_owned())
    })
}

fn listener(mut s: Section<'_>, defaulted: &mut Vec<String>) -> Option<Listener> {
    let listener_name = name(&mut s, "a listener's name", "\"plain\"");
    let listener_name = s.required("name", listener_name, "\"plain\"");
    let address = s.optional_socket_address("listen", "0.0.0.0:1883");
    let address = s.required("listen", address, "\"0.0.0.0:1883\"");
    let (mode, group) = (s.choice("mode", MODES), group(&mut s));
    defaulted.extend(s.finish());
    Some(Listener { name: listener_name?, address: address?, mode, group })
}

fn backend(mut s: Section<'_>, defaulted: &mut Vec<String>) -> Option<(Backend, BackendSpans)> {
    let backend_name = name(&mut s, "a broker's name", "\"legacy1\"");
    let backend_name = s.required("name", backend_name, "\"legacy1\"");
    let address = s.optional_socket_address("address", "192.168.10.41:8883");
    let plain_address = s.optional_socket_address("plain_address", "192.168.10.41:1883");
    let foreign = address.is_some() || plain_address.is_some();
    let probes = [
        ("session", Probe::Session),
        ("mqtt", Probe::Mqtt),
        ("tls", Probe::Tls),
        ("tcp", Probe::Tcp),
        ("none", Probe::None),
    ];
    let group = group(&mut s);
    let (weight, backup) = (s.integer("weight", 1, 0..=1_000), s.boolean("backup", false));
    let max_connections = some(s.integer("max_connections", 0, 0..=1_000_000));
    let chosen = s.choice("probe", &probes);
    let probe = if foreign && !s.present("probe") { Probe::Mqtt } else { chosen };
    let send_proxy = s.boolean("send_proxy", !foreign);
    for key in ["address", "plain_address"] {
        s.note_if_absent(key);
    }
    let spans = BackendSpans { name: s.span("name"), probe: s.span("probe") };
    defaulted.extend(s.finish());
    let backend = Backend {
        name: backend_name?,
        address,
        plain_address,
        group,
        weight,
        backup,
        max_connections,
        probe,
        send_proxy,
    };
    Some((backend, spans))
}

fn route(mut s: Section<'_>) -> Option<(Route, std::ops::Range<usize>)> {
    let sni = s.names("sni", "a list of names, such as [\"legacy.example.org\", \"*.legacy.example.org\"]", is_sni);
    let sni = s.required("sni", sni, "[\"legacy.example.org\"]");
    let group = optional_group(&mut s);
    let group = s.required("group", group, "\"legacy\"");
    let at = s.span("group");
    s.finish();
    let lower = |name: String| name.trim_end_matches('.').to_ascii_lowercase();
    Some((Route { sni: sni?.into_iter().map(lower).collect(), group: group? }, at))
}

/// A name as clients ask for it (RFC 6066 §3), or all below one.
fn is_sni(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
}

fn client_id_rule(source: &Source<'_>, mut s: Section<'_>) -> Option<(ClientIdRule, std::ops::Range<usize>)> {
    let pattern =
        s.parsed("match", "a client identifier in which * stands for any characters, such as \"test-*\"", |text| {
            (!text.is_empty() && text.len() <= 1_024).then(|| text.to_owned())
        });
    let pattern = s.required("match", pattern, "\"test-*\"");
    let group = optional_group(&mut s);
    let action = s.parsed("action", "\"deny\" or \"allow\"", |text| match text {
        "deny" => Some(ClientIdAction::Deny),
        "allow" => Some(ClientIdAction::Allow),
        _ => None,
    });
    let at = s.span(if group.is_some() { "group" } else { "match" });
    let action = match (action, group) {
        (None, Some(group)) => Some(ClientIdAction::Group(group)),
        (Some(action), None) => Some(action),
        // A value that is none has been noted already.
        (None, None) if s.present("action") || s.present("group") => None,
        (None, None) => {
            let help = "add action = \"deny\", action = \"allow\" or group = \"legacy\"";
            source.error(at.clone(), "this rule says not what happens to such clients", help);
            None
        }
        (Some(_), Some(_)) => {
            source.error(at.clone(), "a rule has either an action or a group", "delete one of them");
            None
        }
    };
    s.finish();
    Some((ClientIdRule { pattern: pattern?, action: action? }, at))
}
