//! `[admin]` against the other sections.

use super::Spans;
use crate::broker::ListenAddress;
use crate::cluster::Cluster;
use crate::section::Source;

pub(super) fn check(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let Some(listen) = cluster.admin.listen else { return };
    let (lb, broker) = (&cluster.lb, &cluster.broker);
    let mut taken = vec![
        ("lb.peer_port", lb.peer_port),
        ("broker.listen", broker.listen.port()),
        ("broker.peer_port", broker.peer_port),
    ];
    taken.extend(lb.listeners.iter().map(|listener| ("a listener of the lb", listener.address.port())));
    taken.extend(lb.metrics.map(|metrics| ("lb.metrics", metrics.port())));
    taken.extend(cluster.vip.iter().filter_map(|vip| vip.metrics).map(|metrics| ("vip.metrics", metrics.port())));
    taken.extend(broker.metrics.map(|metrics| ("broker.metrics", metrics.port())));
    let plain = [broker.listen_plain, broker.listen_proxy].into_iter().flatten().map(|address| address.port());
    let named = broker.listeners.iter().filter_map(|listener| match &listener.address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    });
    taken.extend(plain.chain(named).map(|port| ("a listener of the broker", port)));
    if let Some((other, port)) = taken.into_iter().find(|(_, port)| *port == listen.port()) {
        source.error(
            spans.admin_listen.clone(),
            format_args!("admin.listen and {other} have the same port {port}"),
            "give each its own port, such as 9003 for admin.listen",
        );
    }
}
