//! Who gets what, and why nothing goes round in circles.
//!
//! - A message that a client publishes here goes to **every** peer: each broker has every message, so a client finds
//!   everything wherever the load balancer puts it.
//! - A message that a peer sent goes to **no** peer. Its origin has a link to every broker itself (a full mesh), so passing it
//!   on could only make a duplicate. Hence no hub, no hop count, and no mark in the message that a subscriber could see.
//! - A peer is known by its certificate, and what comes over its link is its own: an entry carries no origin of its own, so a
//!   broker cannot even say "this is another's".
//!
//! [`Mesh::is_own`](crate::mesh::Mesh::is_own) is the guard of the second rule: a message with another broker's stamp never
//! enters the log, whatever the broker around the bridge does.
//!
//! Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use evermq_config::{ClusterName, HostName, Peer};

use crate::frame::{Hello, VERSIONS};

/// This broker and all others.
#[derive(Debug, Clone)]
pub(crate) struct Fanout {
    cluster: ClusterName,
    me: Arc<str>,
    peers: Vec<Peer>,
}

/// Why an incoming connection is not a peer's. The texts are for both sides' logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// No common version.
    #[error("speaks versions {0} to {1} of the peer protocol, this broker speaks {first} to {last}", first = VERSIONS.0, last = VERSIONS.1)]
    Version(u8, u8),
    /// Another cluster.
    #[error("belongs to cluster \"{theirs}\", this broker to \"{ours}\"; compare cluster.name on both hosts")]
    Cluster {
        /// What it said.
        theirs: String,
        /// What this broker's file says.
        ours: String,
    },
    /// A host that is no other broker of this cluster.
    #[error(
        "says to be host \"{0}\", which is no other broker in this host's cluster file; compare [[hosts]] on both hosts"
    )]
    Host(String),
    /// The certificate is not that host's.
    #[error("says to be host \"{0}\", but its certificate holds neither that host's name nor its address")]
    Certificate(String),
}

impl Fanout {
    /// `peers` without this broker.
    pub(crate) fn new(cluster: ClusterName, me: &HostName, peers: Vec<Peer>) -> Self {
        Self { cluster, me: Arc::from(me.as_str()), peers }
    }

    /// This broker's name as its stamps carry it.
    pub(crate) fn me(&self) -> &Arc<str> {
        &self.me
    }

    /// This broker's cluster.
    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Those that get every message of our own.
    #[cfg(test)]
    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The same broker among other ones.
    pub(crate) fn with_peers(&self, peers: &[Peer]) -> Self {
        Self { peers: peers.to_vec(), ..self.clone() }
    }

    /// Whether `address` is one that a peer may connect from; no proof, but a reason to serve it before others.
    pub(crate) fn is_peer_address(&self, address: SocketAddr) -> bool {
        self.peers.iter().any(|peer| peer.address.ip() == address.ip())
    }

    /// Which peer says this HELLO; `certified` tells whether the connection's certificate is of a host and its address.
    ///
    /// # Errors
    /// It is none, and why.
    pub(crate) fn admit(
        &self,
        hello: &Hello,
        certified: impl FnOnce(&HostName, IpAddr) -> bool,
    ) -> Result<usize, Refusal> {
        if hello.newest < VERSIONS.0 || hello.oldest > VERSIONS.1 {
            return Err(Refusal::Version(hello.oldest, hello.newest));
        }
        if hello.cluster != self.cluster.as_str() {
            return Err(Refusal::Cluster { theirs: hello.cluster.clone(), ours: self.cluster.as_str().to_owned() });
        }
        let found = self.peers.iter().enumerate().find(|(_, peer)| peer.name.as_str() == hello.host);
        let Some((index, peer)) = found else { return Err(Refusal::Host(hello.host.clone())) };
        if !certified(&peer.name, peer.address.ip()) {
            return Err(Refusal::Certificate(hello.host.clone()));
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn fanout(me: usize, brokers: usize) -> Fanout {
        let name = |index: usize| HostName::new(&format!("broker{index}")).unwrap();
        let peer =
            |index: usize| Peer { name: name(index), address: format!("10.0.0.{}:7000", index + 1).parse().unwrap() };
        let peers = (0..brokers).filter(|index| *index != me).map(peer).collect();
        Fanout::new(ClusterName::new("home").unwrap(), &name(me), peers)
    }

    fn hello(cluster: &str, host: &str) -> Hello {
        Hello { oldest: 1, newest: 1, minor: 0, instance: 1, cluster: cluster.into(), host: host.into(), last: None }
    }

    #[test]
    fn every_message_reaches_every_other_broker_once_and_none_returns() {
        for brokers in 1..=6 {
            let mesh: Vec<_> = (0..brokers).map(|me| fanout(me, brokers)).collect();
            // A broker that wrongly publishes whatever it is given, so that only the rules here keep it from going round.
            let mut copies: BTreeMap<(usize, String), usize> = BTreeMap::new();
            for origin in &mesh {
                let sender = origin.me();
                let mut arrived: Vec<usize> = vec![mesh.iter().position(|b| b.me() == origin.me()).unwrap()];
                while let Some(at) = arrived.pop() {
                    if mesh[at].me() != sender {
                        continue;
                    }
                    for peer in mesh[at].peers() {
                        let to = mesh.iter().position(|b| **b.me() == *peer.name.as_str()).unwrap();
                        *copies.entry((to, sender.to_string())).or_default() += 1;
                        arrived.push(to);
                    }
                }
            }
            assert_eq!(copies.len(), brokers * (brokers - 1), "{brokers} brokers: every other one has each message");
            assert!(copies.values().all(|count| *count == 1), "{brokers} brokers: {copies:?}");
            assert!(copies.keys().all(|(to, origin)| **mesh[*to].me() != **origin), "none comes back to its origin");
        }
    }

    #[test]
    fn a_peer_is_admitted_by_cluster_name_and_certificate() {
        let me = fanout(0, 3);
        let admit = |cluster, host, certified: bool| me.admit(&hello(cluster, host), |_, _| certified);
        assert_eq!(admit("home", "broker1", true), Ok(0));
        assert_eq!(admit("home", "broker2", true), Ok(1));
        assert_eq!(admit("home", "broker2", false), Err(Refusal::Certificate("broker2".into())));
        assert_eq!(admit("home", "broker0", true), Err(Refusal::Host("broker0".into())), "not ourselves");
        assert_eq!(admit("home", "lb1", true), Err(Refusal::Host("lb1".into())), "no broker");
        let refusal = admit("work", "broker1", true).unwrap_err();
        assert!(refusal.to_string().contains("\"work\"") && refusal.to_string().contains("\"home\""), "{refusal}");
    }

    #[test]
    fn the_certificate_is_compared_with_the_host_that_was_named() {
        let me = fanout(0, 3);
        let asked = std::cell::RefCell::new(Vec::new());
        let _ = me.admit(&hello("home", "broker2"), |name, address| {
            asked.borrow_mut().push((name.to_string(), address.to_string()));
            true
        });
        assert_eq!(asked.into_inner(), [("broker2".to_owned(), "10.0.0.3".to_owned())]);
    }

    #[test]
    fn versions_must_overlap() {
        let me = fanout(0, 2);
        for (oldest, newest, good) in [(1, 1, true), (1, 9, true), (0, 1, true), (2, 3, false), (0, 0, false)] {
            let hello = Hello { oldest, newest, ..hello("home", "broker1") };
            assert_eq!(me.admit(&hello, |_, _| true).is_ok(), good, "{oldest} to {newest}");
        }
    }

    #[test]
    fn peers_are_known_by_address_whatever_the_port() {
        let me = fanout(0, 2);
        assert!(me.is_peer_address("10.0.0.2:40000".parse().unwrap()));
        assert!(!me.is_peer_address("10.0.0.9:7000".parse().unwrap()));
    }
}
