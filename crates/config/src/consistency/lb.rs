//! `[lb]` in itself, and beside hosts and brokers.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Spans;
use crate::cluster::Cluster;
use crate::lb::{BROKERS, Backend, Balance, ClientIdAction, Mode};
use crate::section::Source;

/// Where a `[[lb.backends]]` entry's values stand.
pub(crate) struct BackendSpans {
    pub(crate) name: Range<usize>,
    pub(crate) probe: Range<usize>,
}

pub(super) fn check(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    timing(source, cluster, spans);
    listeners(source, cluster, spans);
    backends(source, cluster, spans);
    groups(source, cluster, spans);
    addresses(source, cluster, spans);
    let sees_mqtt = cluster.lb.listeners.iter().any(|listener| listener.mode.sees_mqtt());
    if cluster.lb.balance == Balance::ClientId && !sees_mqtt {
        source.warning(
            spans.lb_balance.clone(),
            "client_id needs a listener that sees MQTT; with mode \"passthrough\" the client's address counts instead",
            "write mode = \"terminate\", \"reencrypt\" or \"plain\", or balance = \"source_ip\"",
        );
    }
    idle(source, cluster, spans, sees_mqtt);
}

/// Lists that no listener has a use for.
fn idle(source: &Source<'_>, cluster: &Cluster, spans: &Spans, sees_mqtt: bool) {
    if let Some(at) = spans.client_ids.first().filter(|_| !sees_mqtt) {
        source.warning(
            at.clone(),
            "no listener sees MQTT, so rules for client identifiers do nothing",
            "write mode = \"terminate\", \"reencrypt\" or \"plain\", or delete [[lb.client_ids]]",
        );
    }
    let ends_tls = cluster.lb.listeners.iter().any(|listener| listener.mode.terminates());
    if let Some(at) = spans.certificates.first().filter(|_| !ends_tls) {
        source.warning(
            at.clone(),
            "no listener ends TLS, so its certificates do nothing",
            "write mode = \"terminate\" or \"reencrypt\", or delete [[lb.certificates]]",
        );
    }
    let sees_names = cluster.lb.listeners.iter().any(|listener| listener.mode != Mode::Plain);
    if let Some(at) = spans.routes.first().filter(|_| !sees_names) {
        source.warning(
            at.clone(),
            "no listener has TLS, so routes by the name that clients ask for do nothing",
            "write another mode than \"plain\", or delete [[lb.routes]]",
        );
    }
}

fn timing(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    if cluster.lb.health.timeout <= cluster.lb.health.interval {
        source.error(
            spans.health_timeout.clone(),
            "health_timeout is not longer than health_interval, so every broker would count as down",
            "write a health_timeout of at least three times health_interval",
        );
    }
}

fn listeners(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let mut names = BTreeSet::new();
    for (listener, at) in cluster.lb.listeners.iter().zip(&spans.listeners) {
        if !names.insert(&listener.name) {
            source.error(
                at.clone(),
                format_args!("two listeners are called \"{}\"", listener.name),
                "give each its own name; \"main\" is that of [lb]",
            );
        }
        if listener.mode == Mode::Plain && !listener.address.ip().is_loopback() {
            source.warning(
                at.clone(),
                format_args!(
                    "listener \"{}\" serves anyone who reaches it, unencrypted and without a certificate",
                    listener.name
                ),
                "write a mode with TLS unless the network is trusted",
            );
        }
    }
}

fn backends(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let mut names = BTreeSet::new();
    for (backend, at) in cluster.lb.backends.iter().zip(&spans.backends) {
        let own = cluster.brokers().any(|host| host.name.as_str() == backend.name);
        let foreign = backend.address.is_some() || backend.plain_address.is_some();
        if !names.insert(&backend.name) {
            source.error(
                at.name.clone(),
                format_args!("two [[lb.backends]] entries are called \"{}\"", backend.name),
                "give each its own name",
            );
        }
        if own && foreign {
            source.error(
                at.name.clone(),
                format_args!("\"{}\" is a host of this cluster and has its address from [[hosts]]", backend.name),
                "delete address and plain_address here, or choose another name for another broker",
            );
        }
        if !own && !foreign {
            let brokers: Vec<_> = cluster.brokers().map(|host| host.name.as_str()).collect();
            source.error(
                at.name.clone(),
                format_args!("\"{}\" is no broker of this cluster and has no address", backend.name),
                format_args!("add address = \"192.168.10.41:8883\", or name one of: {}", brokers.join(", ")),
            );
        }
        if needs_tls(backend) && !own && backend.address.is_none() && foreign {
            source.error(
                at.probe.clone(),
                format_args!("this probe of \"{}\" needs TLS, and the entry has no address with TLS", backend.name),
                "add address, or write probe = \"mqtt\" or \"tcp\"",
            );
        }
    }
}

fn needs_tls(backend: &Backend) -> bool {
    matches!(backend.probe, crate::lb::Probe::Session | crate::lb::Probe::Tls)
}

/// The group of every backend: the cluster's own, then the others.
fn members(cluster: &Cluster) -> impl Iterator<Item = (&str, Option<&Backend>)> {
    let settings = |name: &str| cluster.lb.backends.iter().find(|backend| backend.name == name);
    let own = cluster
        .brokers()
        .map(move |host| (settings(host.name.as_str()).map_or(BROKERS, |backend| backend.group.as_str()), None));
    let foreign =
        cluster.lb.backends.iter().filter(|backend| backend.address.is_some() || backend.plain_address.is_some());
    own.chain(foreign.map(|backend| (backend.group.as_str(), Some(backend))))
}

fn groups(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let known: BTreeSet<&str> = members(cluster).map(|(group, _)| group).collect();
    let check = |group: &str, at: &Range<usize>| {
        if !known.contains(group) && cluster.brokers().next().is_some() {
            source.error(
                at.clone(),
                format_args!("no broker is in the group \"{group}\""),
                format_args!(
                    "write one of {}, or add group = \"{group}\" to a [[lb.backends]] entry",
                    known.iter().map(|group| format!("\"{group}\"")).collect::<Vec<_>>().join(", ")
                ),
            );
        }
    };
    for (listener, at) in cluster.lb.listeners.iter().zip(&spans.listeners) {
        check(&listener.group, at);
    }
    for (route, at) in cluster.lb.routes.iter().zip(&spans.routes) {
        check(&route.group, at);
    }
    for (rule, at) in cluster.lb.client_ids.iter().zip(&spans.client_ids) {
        if let ClientIdAction::Group(group) = &rule.action {
            check(group, at);
        }
    }
}

/// Each listener's backends must have the kind of address that its mode speaks to.
fn addresses(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    for (listener, at) in cluster.lb.listeners.iter().zip(&spans.listeners) {
        let mut groups: BTreeSet<&str> = BTreeSet::from([listener.group.as_str()]);
        if listener.mode != Mode::Plain {
            groups.extend(cluster.lb.routes.iter().map(|route| route.group.as_str()));
        }
        if listener.mode.sees_mqtt() {
            groups.extend(cluster.lb.client_ids.iter().filter_map(|rule| match &rule.action {
                ClientIdAction::Group(group) => Some(group.as_str()),
                ClientIdAction::Allow | ClientIdAction::Deny => None,
            }));
        }
        for (group, foreign) in members(cluster).filter(|(group, _)| groups.contains(group)) {
            let mode = listener.mode.name();
            match (listener.mode.plain_to_backends(), foreign) {
                (true, None) if cluster.broker.listen_proxy.is_none() => {
                    source.error(
                        at.clone(),
                        format_args!("mode \"{mode}\" speaks plain MQTT to the brokers, and they do not listen for it"),
                        "add listen_proxy = \"0.0.0.0:8885\" to [broker], or write mode = \"reencrypt\"",
                    );
                    break;
                }
                (true, Some(backend)) if backend.plain_address.is_none() => source.error(
                    at.clone(),
                    format_args!(
                        "mode \"{mode}\" needs the plain_address of \"{}\" in group \"{group}\"",
                        backend.name
                    ),
                    "add it to its [[lb.backends]] entry",
                ),
                (false, Some(backend)) if backend.address.is_none() => source.error(
                    at.clone(),
                    format_args!("mode \"{mode}\" needs the address of \"{}\" in group \"{group}\"", backend.name),
                    "add it to its [[lb.backends]] entry",
                ),
                (true | false, _) => {}
            }
        }
    }
}
