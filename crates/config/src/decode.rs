//! One function for each table of the file. Key, default, bounds and type stand on one line each.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::broker::Broker;
use crate::cluster::{Cluster, Host, Log, LogFormat, LogLevel, Tls};
use crate::consistency::{self, Spans};
use crate::names::{ClusterName, HostName};
use crate::section::{Section, Source};
use crate::value::Network;

mod admin;
mod bridges;
mod broker;
mod lb;
mod vip;

pub(crate) use broker::is_filter;

/// Priority of the first lb host; each further one gets [`PRIORITY_STEP`] less.
const FIRST_PRIORITY: u8 = 200;
const PRIORITY_STEP: u8 = 10;
const LEAST_PRIORITY: u8 = 2;

/// `[cluster]`, of which only a part outlives validation.
pub(crate) struct ClusterTable {
    pub(crate) name: Option<ClusterName>,
    pub(crate) network: Option<Network>,
    run_dir: std::path::PathBuf,
    log: Log,
}

/// The whole file, with the keys that it leaves to their defaults; none where a required value is missing.
pub(crate) fn cluster(source: &Source<'_>) -> (Option<Cluster>, Vec<String>) {
    let (root, syntax_errors) = DeTable::parse_recoverable(source.text);
    if !syntax_errors.is_empty() {
        syntax(source, &syntax_errors);
        return (None, Vec::new());
    }
    let mut top = Section::new(source, "", Some(root.get_ref()), 0..0);
    let mut defaulted = Vec::new();
    let mut spans = Spans::default();

    let table = cluster_table(top.table("cluster", "cluster"), &mut defaulted, &mut spans);
    let has_vip = top.raw("vip").is_some();
    let vip = has_vip.then(|| vip::vip(source, top.table("vip", "vip"), &mut defaulted, &mut spans));
    let lb = lb::lb(source, top.table("lb", "lb"), &mut defaulted, &mut spans);
    let broker = broker::broker(source, top.table("broker", "broker"), &mut defaulted, &mut spans);
    let admin = admin::admin(top.table("admin", "admin"), &mut defaulted, &mut spans);
    let tls = tls(top.table("tls", "tls"), &mut defaulted, source);
    let hosts = hosts(source, &mut top, &mut defaulted, &mut spans);
    let mut bridges = bridges::bridges(source, &mut top, &mut defaulted, &mut spans);
    defaulted.extend(top.finish());

    let ClusterTable { name, network, run_dir, log } = table;
    let cluster = name.map(|name| {
        for bridge in &mut bridges {
            if bridge.hosts.is_empty() {
                bridge.hosts = hosts.iter().filter(|host| host.broker).map(|host| host.name.clone()).collect();
            }
            if bridge.client_id.is_empty() {
                // The same on every host: the remote broker has one session for whoever keeps the bridge.
                bridge.client_id = format!("{}.{}", name.as_str(), bridge.name);
            }
        }
        let (vip, virtual_routers, tracks, quorum) = match vip {
            Some(table) => (Some(table.vip), table.routers, table.tracks, table.quorum),
            None => (None, Vec::new(), Vec::new(), None),
        };
        Cluster { name, run_dir, log, vip, virtual_routers, tracks, quorum, lb, broker, bridges, admin, tls, hosts }
    });
    if let Some(cluster) = &cluster {
        consistency::check(source, cluster, network, &spans);
    }
    (cluster, defaulted)
}

/// Notes what is not TOML. After an unclosed header the parser finds duplicate keys that are none: those are left out.
fn syntax(source: &Source<'_>, errors: &[toml::de::Error]) {
    let is_duplicate = |error: &toml::de::Error| error.message().contains("duplicate key");
    let only_duplicates = errors.iter().all(is_duplicate);
    for error in errors.iter().filter(|error| only_duplicates || !is_duplicate(error)) {
        let span = error.span().unwrap_or(0..0);
        source.error(span, format_args!("not TOML: {}", error.message()), "see https://toml.io for the syntax");
    }
}

/// `[broker]` of a file that has no such section.
pub(crate) fn broker_by_default() -> Broker {
    let source = Source::new(Path::new("/"), "");
    broker::broker(&source, Section::new(&source, "broker", None, 0..0), &mut Vec::new(), &mut Spans::default())
}

fn cluster_table(mut s: Section<'_>, defaulted: &mut Vec<String>, spans: &mut Spans) -> ClusterTable {
    let name = s.parsed("name", "1 to 63 letters, digits and hyphens, such as \"plant-7\"", ClusterName::new);
    let name = s.required("name", name, "\"plant-7\"");
    let network = s.parsed(
        "network",
        "the network of the lb hosts, such as \"192.168.10.0/24\", without host bits",
        Network::parse,
    );
    s.note_if_absent("network");
    spans.network = s.span("network");
    let table = ClusterTable {
        name,
        network,
        run_dir: s.path("run_dir", "/run/evermq"),
        log: Log {
            level: s.choice(
                "log_level",
                &[
                    ("info", LogLevel::Info),
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ],
            ),
            format: s.choice("log_format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        },
    };
    defaulted.extend(s.finish());
    table
}

fn tls(mut s: Section<'_>, defaulted: &mut Vec<String>, source: &Source<'_>) -> Tls {
    let mut tls = Tls {
        ca: s.path("ca", "tls/ca.crt"),
        cert: s.path("cert", "tls/{host}.crt"),
        key: s.path("key", "tls/{host}.key"),
        places: BTreeMap::new(),
        file: source.path.to_owned(),
    };
    for key in ["ca", "cert", "key"] {
        tls.places.insert(key, source.place(&s.span(key)));
    }
    defaulted.extend(s.finish());
    tls
}

fn hosts<'a>(
    source: &'a Source<'a>,
    top: &mut Section<'a>,
    defaulted: &mut Vec<String>,
    spans: &mut Spans,
) -> Vec<Host> {
    let Some(value) = top.raw("hosts") else {
        source.error(
            0..0,
            "the cluster file has no [[hosts]]",
            "add one [[hosts]] table for each host, with name, address and roles",
        );
        return Vec::new();
    };
    let Some(entries) = value.get_ref().as_array() else {
        source.error(
            value.span(),
            "hosts must be a list of tables",
            "write [[hosts]], with two brackets, before each host",
        );
        return Vec::new();
    };
    let mut hosts = Vec::new();
    let mut next_priority = FIRST_PRIORITY;
    for entry in entries.iter() {
        let section = Section::new(source, "hosts", entry.get_ref().as_table(), entry.span());
        if let Some((host, at)) = host(source, section, &mut next_priority, defaulted) {
            hosts.push(host);
            spans.hosts.push(at);
        }
    }
    spans.every_host_is_read = hosts.len() == entries.len();
    hosts
}

/// Where one host's values stand.
pub(crate) struct HostSpans {
    pub(crate) header: Range<usize>,
    pub(crate) name: Range<usize>,
    pub(crate) address: Range<usize>,
    pub(crate) vip_priority: Range<usize>,
}

fn host(
    source: &Source<'_>,
    mut s: Section<'_>,
    next_priority: &mut u8,
    defaulted: &mut Vec<String>,
) -> Option<(Host, HostSpans)> {
    let name = s.parsed("name", "1 to 63 letters, digits and hyphens, not only digits, such as \"lb1\"", HostName::new);
    let name = s.required("name", name, "\"lb1\"");
    let address = s.address("address", "192.168.10.11");
    let address6 = s.optional_address6("address6", "2001:db8:10::11");
    let (lb, broker) = roles(source, &mut s);
    let priority = s.optional_integer("vip_priority", &(LEAST_PRIORITY..=255), FIRST_PRIORITY);
    let interface = vip::interface(&mut s);
    s.note_if_absent("address6");
    for key in ["vip_priority", "interface"] {
        s.note_if_absent(key);
        if s.present(key) && !lb {
            source.error(
                s.span(key),
                format_args!("{key} does nothing on a host without the role \"lb\""),
                "delete the line, or add \"lb\" to roles",
            );
        }
    }
    let vip_priority = priority.unwrap_or(*next_priority);
    if lb {
        *next_priority = next_priority.saturating_sub(PRIORITY_STEP).max(LEAST_PRIORITY);
    }
    let spans = HostSpans {
        header: s.span(""),
        name: s.span("name"),
        address: s.span("address"),
        vip_priority: s.span("vip_priority"),
    };
    defaulted.extend(s.finish());
    Some((Host { name: name?, address: address?, address6, lb, broker, vip_priority, interface }, spans))
}

/// Which of the roles `lb` and `broker` a host has.
fn roles(source: &Source<'_>, s: &mut Section<'_>) -> (bool, bool) {
    const HELP: &str = "write roles = [\"lb\"], [\"broker\"] or [\"lb\", \"broker\"]";
    let (mut lb, mut broker) = (false, false);
    let Some(value) = s.raw("roles") else {
        s.required::<()>("roles", None, "[\"lb\"]");
        return (lb, broker);
    };
    match value.get_ref() {
        DeValue::Array(roles) if !roles.is_empty() => {
            for role in roles.iter() {
                match role.get_ref().as_str() {
                    Some("lb") => lb = true,
                    Some("broker") => broker = true,
                    _ => {
                        source.error(role.span(), "no such role", HELP);
                        // Whichever was meant: a second problem that follows from this one would mislead.
                        (lb, broker) = (true, true);
                    }
                }
            }
        }
        _ => {
            source.error(value.span(), "roles must be a list of one or two", HELP);
            (lb, broker) = (true, true);
        }
    }
    (lb, broker)
}
