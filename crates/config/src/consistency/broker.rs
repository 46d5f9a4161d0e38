//! `[broker]` in itself.

use std::collections::HashMap;
use std::ops::Range;

use super::Spans;
use crate::broker::{Anonymous, Broker, ListenAddress};
use crate::cluster::Cluster;
use crate::section::Source;

/// Segments that the store needs at least: one that is written, one that is freed, and a reserve.
const LEAST_SEGMENTS: u64 = 4;

/// Where the values of a `[[broker.listeners]]` entry stand.
pub(crate) struct BrokerListenerSpans {
    pub(crate) name: Range<usize>,
    pub(crate) listen: Range<usize>,
    pub(crate) max_packet_size: Range<usize>,
}

pub(super) fn check(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let broker = &cluster.broker;
    open_listener(source, broker, spans);
    listeners(source, broker, spans);
    if broker.store.max_size < broker.store.segment_size * LEAST_SEGMENTS {
        source.error(
            spans.store_max_size.clone(),
            format_args!("max_size has no room for {LEAST_SEGMENTS} files of segment_size"),
            "raise max_size, or lower segment_size",
        );
    }
    if let (Some(at), Some(_)) = (&spans.acl_file, &spans.acl) {
        source.error(
            at.clone(),
            "there are both acl_file and [[broker.acl]]",
            "keep one of them: either all rules are here, or all are in the file",
        );
    }
}

/// What `listen_plain` means for those who can reach it.
fn open_listener(source: &Source<'_>, broker: &Broker, spans: &Spans) {
    let Some(plain) = broker.listen_plain.filter(|plain| !plain.ip().is_loopback()) else { return };
    let at = spans.listen_plain.clone();
    if broker.auth.anonymous == Anonymous::On {
        source.warning(
            at,
            format_args!("listen_plain serves anyone who reaches {plain}, unencrypted and without a certificate"),
            "write \"127.0.0.1:1883\" unless the network is trusted",
        );
    } else if broker.auth.password_file.is_some() {
        source.warning(
            at,
            "at listen_plain passwords cross the network unencrypted",
            "write \"127.0.0.1:1883\" unless the network is trusted, or use a listener with tls",
        );
    } else {
        source.warning(
            at,
            "nobody gets in at listen_plain from another host: there is no password_file, and anonymous is for loopback only",
            "add password_file to [broker.auth], write anonymous = \"on\" there, or write \"127.0.0.1:1883\" here",
        );
    }
}

fn listeners(source: &Source<'_>, broker: &Broker, spans: &Spans) {
    let first = |port: u16, name: &'static str| (port, name.to_owned());
    let mut ports: HashMap<u16, String> =
        HashMap::from([first(broker.listen.port(), "broker.listen"), first(broker.peer_port, "broker.peer_port")]);
    ports.extend(broker.listen_plain.map(|plain| first(plain.port(), "broker.listen_plain")));
    ports.extend(broker.listen_proxy.map(|proxy| first(proxy.port(), "broker.listen_proxy")));
    ports.extend(broker.metrics.map(|metrics| first(metrics.port(), "broker.metrics")));
    let (mut names, mut paths) = (HashMap::new(), HashMap::new());
    for (listener, at) in broker.listeners.iter().zip(&spans.broker_listeners) {
        if names.insert(&listener.name, ()).is_some() {
            source.error(
                at.name.clone(),
                format_args!("two listeners are called \"{}\"", listener.name),
                "give each a name of its own",
            );
        }
        let other = match &listener.address {
            ListenAddress::Tcp(address) => ports.insert(address.port(), listener.name.clone()),
            ListenAddress::Unix(path) => paths.insert(path, listener.name.clone()),
        };
        if let Some(other) = other {
            source.error(
                at.listen.clone(),
                format_args!("\"{}\" and {other} listen at the same place", listener.name),
                "give each its own port or path",
            );
        }
        if listener.max_packet_size.is_some_and(|size| size > broker.max_packet_size) {
            source.error(
                at.max_packet_size.clone(),
                "a listener's max_packet_size is above that of [broker]",
                "lower it, or raise max_packet_size in [broker]",
            );
        }
        let is_near = match &listener.address {
            ListenAddress::Tcp(address) => address.ip().is_loopback(),
            ListenAddress::Unix(_) => true,
        };
        if !listener.tls && !is_near {
            source.warning(
                at.listen.clone(),
                format_args!("the listener \"{}\" is not encrypted", listener.name),
                "write tls = true, or listen on 127.0.0.1, unless the network is trusted",
            );
        }
    }
}
