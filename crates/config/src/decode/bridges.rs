//! `[[bridges]]`.

use crate::bridges::{Bridge, BridgeTls, BridgeTopic, BridgeVersion};
use crate::consistency::{BridgeSpans, Spans};
use crate::names::HostName;
use crate::section::{Section, Source};

/// Far above any site's.
const MOST_BRIDGES: usize = 256;
/// Topics of one bridge, likewise.
const MOST_TOPICS: usize = 1_024;
const PORT: &str = "1883";
const TLS_PORT: &str = "8883";

pub(super) fn bridges(
    source: &Source<'_>,
    top: &mut Section<'_>,
    defaulted: &mut Vec<String>,
    spans: &mut Spans,
) -> Vec<Bridge> {
    let mut bridges = Vec::new();
    for entry in top.entries("bridges", MOST_BRIDGES) {
        if let Some((bridge, at)) = bridge(source, entry, defaulted) {
            bridges.push(bridge);
            spans.bridges.push(at);
        }
    }
    bridges
}

fn bridge(source: &Source<'_>, mut s: Section<'_>, defaulted: &mut Vec<String>) -> Option<(Bridge, BridgeSpans)> {
    let is_name = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let wanted = "a bridge's name: 1 to 63 letters, digits, hyphens, dots and underscores, such as \"old-site\"";
    let name = s.parsed("name", wanted, |text| is_name(text).then(|| text.to_owned()));
    let name = s.required("name", name, "\"old-site\"");
    let tls = tls(source, &mut s);
    let addresses = addresses(&mut s, if tls.is_some() { TLS_PORT } else { PORT });
    let topics = topics(source, &mut s);
    let hosts = s.names("hosts", "a list of host names, such as [\"broker1\", \"broker2\"]", |text| {
        HostName::new(text).is_some()
    });
    let versions = &[("3.1.1", BridgeVersion::V311), ("5.0", BridgeVersion::V50)];
    let text = |text: &str| (!text.is_empty() && text.len() <= 65_535 && !text.contains('\0')).then(|| text.to_owned());
    let bridge = Bridge {
        hosts: hosts.unwrap_or_default().iter().filter_map(|host| HostName::new(host)).collect(),
        version: s.choice("protocol_version", versions),
        try_private: s.boolean("try_private", true),
        client_id: s.parsed("client_id", "a client identifier, such as \"plant-7.old-site\"", text).unwrap_or_default(),
        username: s.parsed("username", "a user name, such as \"bridge\"", text),
        password_file: s.optional_path("password_file", "old-site.password"),
        keep_alive: s.duration("keep_alive", "60s", "5s"..="65535s"),
        reconnect_min: s.duration("reconnect_min", "500ms", "10ms"..="1h"),
        reconnect_max: s.duration("reconnect_max", "30s", "10ms"..="1h"),
        takeover_delay: s.duration("takeover_delay", "3s", "100ms"..="1h"),
        max_queued_messages: s.integer("max_queued_messages", 100_000, 1..=10_000_000),
        max_queued_bytes: super::broker::size(s.size("max_queued_bytes", 256 << 20, 1 << 10..=64 << 30)),
        name: name.clone().unwrap_or_default(),
        addresses: addresses.clone().unwrap_or_default(),
        topics: topics.clone().unwrap_or_default(),
        tls,
    };
    if s.present("try_private") && bridge.version == BridgeVersion::V50 {
        source.error(
            s.span("try_private"),
            "try_private does nothing with MQTT 5.0, which says for each subscription what a bridge needs",
            "delete the line",
        );
    }
    if bridge.reconnect_min > bridge.reconnect_max {
        source.error(
            s.span("reconnect_min"),
            "reconnect_min is above reconnect_max",
            "lower it, or raise reconnect_max",
        );
    }
    if bridge.password_file.is_some() && bridge.username.is_none() && !s.present("username") {
        source.error(s.span("password_file"), "there is a password but no user name", "add username = \"...\"");
    }
    for key in ["hosts", "client_id", "username", "password_file", "ca", "cert", "key", "server_name"] {
        s.note_if_absent(key);
    }
    let spans = BridgeSpans {
        name: s.span("name"),
        hosts: s.span("hosts"),
        client_id: s.span("client_id"),
        names_hosts: s.present("hosts"),
    };
    defaulted.extend(s.finish());
    (name.is_some() && addresses.is_some() && topics.is_some()).then_some((bridge, spans))
}

/// TLS is on where there is a `ca`.
fn tls(source: &Source<'_>, s: &mut Section<'_>) -> Option<BridgeTls> {
    let ca = s.optional_path("ca", "tls/old-site-ca.crt");
    let cert = s.optional_path("cert", "tls/{host}.crt");
    let key = s.optional_path("key", "tls/{host}.key");
    let is_host = |text: &str| (!text.is_empty() && text.len() <= 253).then(|| text.to_owned());
    let server_name = s.parsed("server_name", "a host's name or address, such as \"mqtt.example.com\"", is_host);
    if !s.present("ca") {
        for key in ["cert", "key", "server_name"] {
            if s.present(key) {
                source.error(
                    s.span(key),
                    format_args!("{key} does nothing without TLS"),
                    "delete the line, or add ca = \"...\", which turns TLS on",
                );
            }
        }
        return None;
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if s.present(one) && !s.present(other) {
            source.error(
                s.span(one),
                format_args!("{one} is there without {other}"),
                format_args!("add {other} = \"...\", or delete {one}"),
            );
        }
    }
    Some(BridgeTls { ca: ca?, identity: cert.zip(key), server_name })
}

fn addresses(s: &mut Section<'_>, port: &str) -> Option<Vec<String>> {
    let wanted = "a list of HOST or HOST:PORT, such as [\"mosquitto1:1883\", \"192.168.10.9\"]";
    let addresses = s.names("addresses", wanted, |text| with_port(text, PORT).is_some());
    let addresses = s.required("addresses", addresses, "[\"mosquitto1:1883\"]");
    addresses?.iter().map(|address| with_port(address, port)).collect()
}

/// `HOST:PORT` out of that or `HOST`; an IPv6 address with a port stands in brackets.
fn with_port(text: &str, port: &str) -> Option<String> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(format!("[{text}]:{port}"));
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return (address.port() != 0).then(|| text.to_owned());
    }
    let (host, given) = text.rsplit_once(':').unwrap_or((text, port));
    let is_host = (1..=253).contains(&host.len())
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    let is_port = given.bytes().all(|b| b.is_ascii_digit()) && given.parse::<u16>().is_ok_and(|port| port != 0);
    (is_host && is_port).then(|| format!("{host}:{given}"))
}

fn topics(source: &Source<'_>, s: &mut Section<'_>) -> Option<Vec<BridgeTopic>> {
    const HELP: &str = "write a list of mosquitto's topic lines, such as ['sensors/# out 1 \"\" plant-7/', '# in 2']";
    let Some(value) = s.raw("topics") else {
        return s.required("topics", None, "['sensors/# out 1 \"\" plant-7/']");
    };
    let lines = value.get_ref().as_array().map(|array| &array[..]).unwrap_or_default();
    if lines.is_empty() || lines.len() > MOST_TOPICS {
        source.error(value.span(), format_args!("topics must be a list of 1 to {MOST_TOPICS} lines"), HELP);
        return None;
    }
    let topics = lines.iter().map(|line| {
        let Some(text) = line.get_ref().as_str() else {
            source.error(line.span(), "a topic of a bridge must be a string", HELP);
            return None;
        };
        BridgeTopic::parse(text).map_err(|bad| source.error(line.span(), bad.message, bad.help)).ok()
    });
    // Every one of them, so that all mistakes are shown.
    topics.collect::<Vec<_>>().into_iter().collect()
}
