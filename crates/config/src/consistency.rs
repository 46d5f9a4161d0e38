//! What only shows when sections are held against each other.

use std::collections::HashMap;
use std::ops::Range;

use crate::broker::ListenAddress;
use crate::cluster::{Cluster, Host};
use crate::decode::HostSpans;
use crate::section::Source;
use crate::value::Network;

mod admin;
mod bridges;
mod broker;
mod lb;
mod vip;

pub(crate) use self::bridges::BridgeSpans;
pub(crate) use self::broker::BrokerListenerSpans;
pub(crate) use self::lb::BackendSpans;
pub(crate) use self::vip::RouterSpans;

/// Length of the network's prefix that is assumed where `cluster.network` is not given.
const USUAL_PREFIX_LENGTH: u8 = 24;

/// Where the values stand that this module speaks of.
#[derive(Default)]
pub(crate) struct Spans {
    pub(crate) network: Range<usize>,
    pub(crate) routers: Vec<RouterSpans>,
    pub(crate) auth_pass: Range<usize>,
    pub(crate) quorum: Range<usize>,
    pub(crate) advert_interval: Range<usize>,
    /// That of `[lb]`, then those of `[[lb.listeners]]`.
    pub(crate) listeners: Vec<Range<usize>>,
    pub(crate) backends: Vec<BackendSpans>,
    pub(crate) routes: Vec<Range<usize>>,
    pub(crate) client_ids: Vec<Range<usize>>,
    pub(crate) lb_balance: Range<usize>,
    /// None where it is left to its default.
    pub(crate) lb_peer_port: Option<Range<usize>>,
    pub(crate) certificates: Vec<Range<usize>>,
    pub(crate) health_timeout: Range<usize>,
    pub(crate) broker_listen: Range<usize>,
    pub(crate) listen_plain: Range<usize>,
    pub(crate) listen_proxy: Range<usize>,
    pub(crate) peer_port: Range<usize>,
    pub(crate) max_packet_size: Range<usize>,
    pub(crate) broker_listeners: Vec<BrokerListenerSpans>,
    pub(crate) store_max_size: Range<usize>,
    /// None where it is not given.
    pub(crate) acl_file: Option<Range<usize>>,
    /// The first entry, if there is one.
    pub(crate) acl: Option<Range<usize>>,
    pub(crate) bridges: Vec<BridgeSpans>,
    pub(crate) admin_listen: Range<usize>,
    pub(crate) hosts: Vec<HostSpans>,
    /// No `[[hosts]]` entry had to be left out: what is missing is missing in the file.
    pub(crate) every_host_is_read: bool,
}

/// Notes every contradiction between sections.
pub(crate) fn check(source: &Source<'_>, cluster: &Cluster, network: Option<Network>, spans: &Spans) {
    unique_hosts(source, cluster, spans);
    if spans.every_host_is_read {
        enough_hosts(source, cluster, spans);
    }
    vip::check(source, cluster, network, spans);
    lb::check(source, cluster, spans);
    broker::check(source, cluster, spans);
    bridges::check(source, cluster, spans);
    ports(source, cluster, spans);
    admin::check(source, cluster, spans);
}

fn unique_hosts(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let mut names = HashMap::new();
    let mut addresses = HashMap::new();
    let mut priorities = HashMap::new();
    for (host, at) in cluster.hosts.iter().zip(&spans.hosts) {
        // DNS names compare without regard to case (RFC 4343).
        if names.insert(host.name.as_str().to_ascii_lowercase(), ()).is_some() {
            source.error(
                at.name.clone(),
                format_args!("two hosts are called \"{}\"", host.name),
                "give each host a name of its own",
            );
        }
        if let Some(other) = addresses.insert(host.address, &host.name) {
            source.error(
                at.address.clone(),
                format_args!("{} is the address of host \"{other}\" too", host.address),
                format_args!("write the address that only \"{}\" has", host.name),
            );
        }
        if host.lb
            && let Some(other) = priorities.insert(host.vip_priority, &host.name)
        {
            source.warning(
                at.vip_priority.clone(),
                format_args!("\"{}\" and \"{other}\" have the same vip_priority {}", host.name, host.vip_priority),
                "the higher address wins a tie; give each lb host its own priority to choose yourself",
            );
        }
    }
}

fn enough_hosts(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let at = spans.hosts.first().map_or(0..0, |host| host.header.clone());
    if cluster.hosts.is_empty() {
        return;
    }
    let count = |role: fn(&Host) -> bool| cluster.hosts.iter().filter(|host| role(host)).count();
    match count(|host| host.broker) {
        0 => source.error(
            at.clone(),
            "no host has the role \"broker\"",
            "add roles = [\"broker\"] to at least one host, better to two",
        ),
        1 => source.warning(
            at.clone(),
            "only one host has the role \"broker\"",
            "when it dies, there is no MQTT; add a second broker",
        ),
        _ => {}
    }
    match count(|host| host.lb) {
        0 => {
            source.error(at, "no host has the role \"lb\"", "add roles = [\"lb\"] to at least one host, better to two");
        }
        1 => source.warning(
            at,
            "only one host has the role \"lb\"",
            "when it dies, nobody reaches the VIP; add a second lb",
        ),
        _ => {}
    }
}

fn ports(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let broker = &cluster.broker;
    let clash = |span: &Range<usize>, key: &str, port: u16, other: &str| {
        source.error(
            span.clone(),
            format_args!("{key} and {other} have the same port {port} on one host"),
            "give each its own port",
        );
    };
    if broker.peer_port == broker.listen.port() {
        clash(&spans.peer_port, "broker.peer_port", broker.peer_port, "broker.listen");
    }
    if let Some(plain) = broker.listen_plain
        && (plain.port() == broker.listen.port() || plain.port() == broker.peer_port)
    {
        clash(&spans.listen_plain, "broker.listen_plain", plain.port(), "another listener of the broker");
    }
    if let Some(proxy) = broker.listen_proxy {
        let others =
            [Some(broker.listen.port()), Some(broker.peer_port), broker.listen_plain.map(|plain| plain.port())];
        if others.contains(&Some(proxy.port())) {
            clash(&spans.listen_proxy, "broker.listen_proxy", proxy.port(), "another listener of the broker");
        }
    }
    let listeners = cluster.lb.listeners.iter().zip(&spans.listeners);
    let mut lb: Vec<_> = listeners.map(|(listener, at)| (at, "lb.listen", listener.address.port())).collect();
    // A default gives no cause for complaint: what clashes with it does.
    match &spans.lb_peer_port {
        Some(at) => lb.push((at, "lb.peer_port", cluster.lb.peer_port)),
        None => lb.insert(0, (&spans.listeners[0], "lb.peer_port", cluster.lb.peer_port)),
    }
    for (index, (at, key, port)) in lb.iter().enumerate() {
        if lb[..index].iter().any(|(_, _, other)| other == port) {
            clash(at, key, *port, "another listener of the lb");
        }
    }
    if cluster.hosts.iter().any(|host| host.lb && host.broker) {
        for (span, key, port) in lb {
            let tcp = broker.listeners.iter().filter_map(|listener| match &listener.address {
                ListenAddress::Tcp(address) => Some(address.port()),
                ListenAddress::Unix(_) => None,
            });
            let others = [broker.listen_plain, broker.listen_proxy, broker.metrics].into_iter().flatten();
            let own = [broker.listen.port(), broker.peer_port].into_iter();
            if own.chain(others.map(|other| other.port())).chain(tcp).any(|other| other == port) {
                clash(span, key, port, "a listener of the broker");
            }
        }
    }
}
