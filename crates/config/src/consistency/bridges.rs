//! `[[bridges]]` beside each other and beside `[[hosts]]`.

use std::collections::HashMap;
use std::ops::Range;

use super::Spans;
use crate::cluster::Cluster;
use crate::section::Source;

/// Where the values of a `[[bridges]]` entry stand.
pub(crate) struct BridgeSpans {
    pub(crate) name: Range<usize>,
    pub(crate) hosts: Range<usize>,
    pub(crate) client_id: Range<usize>,
    /// The entry has `hosts`.
    pub(crate) names_hosts: bool,
}

pub(super) fn check(source: &Source<'_>, cluster: &Cluster, spans: &Spans) {
    let mut names = HashMap::new();
    let mut clients = HashMap::new();
    for (bridge, at) in cluster.bridges.iter().zip(&spans.bridges) {
        if names.insert(&bridge.name, ()).is_some() {
            source.error(
                at.name.clone(),
                format_args!("two bridges are called \"{}\"", bridge.name),
                "give each a name of its own",
            );
        }
        if let Some(other) = clients.insert((&bridge.client_id, &bridge.addresses), &bridge.name)
            && *other != bridge.name
        {
            source.error(
                at.client_id.clone(),
                format_args!("\"{}\" and \"{other}\" are the same client of the same broker", bridge.name),
                "give each a client_id of its own, or put the topics of both into one",
            );
        }
        if !at.names_hosts || !spans.every_host_is_read {
            continue;
        }
        for (index, host) in bridge.hosts.iter().enumerate() {
            if !cluster.brokers().any(|broker| broker.name == *host) {
                source.error(
                    at.hosts.clone(),
                    format_args!("\"{host}\" is no host with the role \"broker\""),
                    "name hosts of [[hosts]] that have it, or delete the line: then all of them keep the bridge",
                );
            } else if bridge.hosts[..index].contains(host) {
                source.error(at.hosts.clone(), format_args!("\"{host}\" stands there twice"), "name it once");
            }
        }
    }
}
