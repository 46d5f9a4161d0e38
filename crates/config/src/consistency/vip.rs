//! What only shows when `[vip]` is held against itself and the hosts.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;

use super::{Spans, USUAL_PREFIX_LENGTH};
use crate::cluster::Cluster;
use crate::names::HostName;
use crate::section::{Section, Source};
use crate::value::Network;
use crate::vip::{Adverts, Vip, VipMode, VirtualRouter, VrrpVersion};

/// Longest interval that version 3 can say: 12 bits of centiseconds (RFC 9568 §5.2.7).
const LONGEST_V3: Duration = Duration::from_millis(40_950);

/// Where one virtual router's values stand.
pub(crate) struct RouterSpans {
    pub(crate) name: Range<usize>,
    pub(crate) address: Range<usize>,
    pub(crate) vrid: Range<usize>,
    pub(crate) priorities: BTreeMap<HostName, Range<usize>>,
}

impl RouterSpans {
    pub(crate) fn of(section: &Section<'_>, priorities: BTreeMap<HostName, Range<usize>>) -> Self {
        let span = |key| section.span(key);
        Self { name: span("name"), address: span("address"), vrid: span("vrid"), priorities }
    }
}

pub(super) fn check(source: &Source<'_>, cluster: &Cluster, network: Option<Network>, spans: &Spans) {
    let Some(vip) = &cluster.vip else { return };
    timing(source, vip, cluster, spans);
    versions(source, vip, cluster, spans);
    unique(source, cluster, spans);
    known_hosts(source, cluster, spans);
    reachable_by_unicast(source, vip, cluster, spans);
    in_network(source, cluster, network, spans);
    listened_on(source, cluster, spans);
    quorum(source, vip, cluster, spans);
}

fn timing(source: &Source<'_>, vip: &Vip, cluster: &Cluster, spans: &Spans) {
    let at = spans.advert_interval.clone();
    let interval = vip.advert_interval;
    let v2 = cluster.virtual_routers.iter().any(|router| router.version == VrrpVersion::V2);
    if v2 && !interval.as_millis().is_multiple_of(1_000) {
        source.error(
            at,
            "VRRP version 2 sends advert_interval in whole seconds (RFC 3768 §5.3.7)",
            "write \"1s\", or version = 3",
        );
    } else if !interval.as_millis().is_multiple_of(10) {
        source.error(
            at,
            "advert_interval is sent in centiseconds (RFC 9568 §5.2.7)",
            format_args!("write a multiple of 10ms, such as \"{}ms\"", interval.as_millis() / 10 * 10),
        );
    } else if !v2 && interval > LONGEST_V3 {
        source.error(at, "VRRP version 3 cannot say more than 40950ms (RFC 9568 §5.2.7)", "write \"20ms\" to \"1s\"");
    } else if !v2 && interval > Duration::from_secs(1) {
        source.warning(
            at,
            "a takeover lasts more than three advert_intervals",
            "write \"20ms\" to \"1s\" unless the network cannot bear it",
        );
    }
}

fn versions(source: &Source<'_>, vip: &Vip, cluster: &Cluster, spans: &Spans) {
    let v2 = cluster.virtual_routers.iter().any(|router| router.version == VrrpVersion::V2);
    if v2 && let Some((_, at)) = routers(cluster, spans).find(|(router, _)| router.is_ipv6()) {
        source.error(at.address.clone(), "VRRP version 2 has no IPv6 (RFC 3768 §1)", "write version = 3 in [vip]");
    }
    if vip.auth_pass.is_some() && !v2 {
        source.error(
            spans.auth_pass.clone(),
            "auth_pass does nothing with version 3, which has no authentication (RFC 9568 §9)",
            "delete the line; if hosts must prove who they are, set quorum = true",
        );
    }
}

fn unique(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let mut names = HashMap::new();
    let mut ids = HashMap::new();
    let mut addresses: HashMap<IpAddr, &str> = HashMap::new();
    for (router, at) in routers(cluster, spans) {
        if names.insert(&router.name, ()).is_some() {
            source.error(
                at.name.clone(),
                format_args!("two virtual routers are called \"{}\"", router.name),
                "give each a name of its own; the one of [vip] is called \"vip\"",
            );
        }
        if let Some(other) = ids.insert((router.vrid, router.is_ipv6(), &router.interface), &router.name) {
            source.error(
                at.vrid.clone(),
                format_args!("virtual router \"{other}\" has vrid {} on this interface too", router.vrid),
                "give each its own vrid; only an IPv4 and an IPv6 one may share it",
            );
        }
        for address in &router.addresses {
            if let Some(other) = addresses.insert(*address, &router.name) {
                source.error(
                    at.address.clone(),
                    format_args!("{address} is an address of virtual router \"{other}\" too"),
                    "an address belongs to one virtual router; delete it from the other",
                );
            }
            if let Some(host) = cluster.hosts.iter().find(|host| IpAddr::V4(host.address) == *address) {
                source.error(
                    at.address.clone(),
                    format_args!("the VIP {address} is the address of host \"{}\"", host.name),
                    "choose an address of the same network that no host has",
                );
            }
        }
    }
}

fn known_hosts(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    if !spans.every_host_is_read {
        return;
    }
    for (_, at) in routers(cluster, spans) {
        for (host, at) in &at.priorities {
            if !cluster.lbs().any(|lb| lb.name == *host) {
                source.error(
                    at.clone(),
                    format_args!("there is no lb host \"{host}\""),
                    format_args!("the lb hosts are: {}", names(cluster.lbs().map(|lb| &lb.name))),
                );
            }
        }
    }
}

fn reachable_by_unicast(source: &Source<'_>, vip: &Vip, cluster: &Cluster, spans: &Spans) {
    if vip.adverts == Adverts::Multicast || cluster.lbs().count() < 2 {
        return;
    }
    let Some(host) = cluster.lbs().find(|host| host.address6.is_none()) else { return };
    for (_, at) in routers(cluster, spans).filter(|(router, _)| router.is_ipv6()) {
        source.error(
            at.address.clone(),
            format_args!("host \"{}\" has no address6 to which advertisements over IPv6 could be sent", host.name),
            "add address6 to each lb host, or set adverts = \"multicast\"",
        );
    }
}

fn in_network(source: &Source<'_>, cluster: &Cluster, network: Option<Network>, spans: &Spans) {
    let Some(first) = cluster.lbs().next() else { return };
    let assumed = network.is_none();
    let network = network.unwrap_or_else(|| Network::around(first.address, USUAL_PREFIX_LENGTH));
    let source_of_network = if assumed {
        format!("{network}, as no cluster.network is given; if it is another, set cluster.network")
    } else {
        format!("{network} (cluster.network)")
    };
    // An instance with an interface of its own is in that interface's network.
    let ours = routers(cluster, spans).filter(|(router, _)| router.interface.is_none() && !router.is_ipv6());
    let mut any = false;
    for (router, at) in ours {
        any = true;
        for address in &router.addresses {
            let IpAddr::V4(four) = address else { continue };
            let is_a_hosts = cluster.hosts.iter().any(|host| host.address == *four);
            if !is_a_hosts && !network.has_host(*four) {
                source.error(
                    at.address.clone(),
                    format_args!("the VIP {four} is outside the lb hosts' network"),
                    format_args!("choose a free address in {source_of_network}"),
                );
            }
        }
    }
    for (host, at) in cluster.hosts.iter().zip(&spans.hosts).filter(|(host, _)| host.lb && any) {
        if !network.has_host(host.address) {
            let at = if assumed { at.address.clone() } else { spans.network.clone() };
            source.error(
                at,
                format_args!(
                    "host \"{}\" ({}) could not hold the VIP: it is outside the lb hosts' network",
                    host.name, host.address
                ),
                format_args!("all lb hosts must have addresses in {source_of_network}"),
            );
        }
    }
}

/// The lb takes what comes to the VIP, of either family.
fn listened_on(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let listens = cluster.lb.listen().ip();
    for (router, at) in routers(cluster, spans) {
        let reached = match listens {
            IpAddr::V4(four) => !router.is_ipv6() && (four.is_unspecified() || router.addresses.contains(&listens)),
            IpAddr::V6(six) => six.is_unspecified() || router.addresses.contains(&listens),
        };
        if !reached {
            source.error(
                at.address.clone(),
                format_args!("evermq-lb does not listen on this address, but on {}", cluster.lb.listen()),
                format_args!(
                    "write listen = \"[::]:{port}\" in [lb] for IPv4 and IPv6, \"0.0.0.0:{port}\" for IPv4 alone",
                    port = cluster.lb.listen().port()
                ),
            );
        }
    }
}

fn quorum(source: &Source<'_>, vip: &Vip, cluster: &Cluster, spans: &Spans) {
    let Some(quorum) = &cluster.quorum else { return };
    if vip.mode == VipMode::None {
        source.error(spans.quorum.clone(), "quorum does nothing with mode = \"none\"", "delete the line");
    }
    if spans.every_host_is_read && cluster.hosts.len() < 3 && quorum.gateway.is_none() {
        source.warning(
            spans.quorum.clone(),
            format_args!(
                "the majority of {} hosts is all of them, so the VIP vanishes when any host dies",
                cluster.hosts.len()
            ),
            "set quorum_gateway to the router's address, or add a host",
        );
    }
}

fn routers<'a>(cluster: &'a Cluster, spans: &'a Spans) -> impl Iterator<Item = (&'a VirtualRouter, &'a RouterSpans)> {
    cluster.virtual_routers.iter().zip(&spans.routers)
}

fn names<'a>(names: impl Iterator<Item = &'a HostName>) -> String {
    names.map(HostName::as_str).collect::<Vec<_>>().join(", ")
}
