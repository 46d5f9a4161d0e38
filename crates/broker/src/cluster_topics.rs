//! What the lbs of the cluster hear from this broker, and what they may ask of it: [`evermq_daemon::cluster_topics`].
//!
//! An lb is known by its certificate, which must be that of a host with role `lb`, and by what it asks for in the TLS
//! handshake. The session itself decides what its
//! client may say and hear; here is what that leads to. Clients are found by the lb's end of their connection, so only those
//! that come from an lb's address are remembered.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use evermq_bridge::{Message, Stamp};
use evermq_config::LbHost;
use evermq_daemon::cluster_topics::{self, Readiness};
use evermq_daemon::tls;
use evermq_mqtt::{Publish, QoS, ReasonCode, Text, TopicName};
use hashbrown::HashMap;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;

use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::session::LinkId;

/// The cluster's lbs, as one broker knows them.
#[derive(Debug)]
pub struct ClusterTopics {
    lbs: Box<[LbHost]>,
    watch: Mutex<Watch>,
    /// Clients by the lb's end of their connection.
    seats: Mutex<HashMap<SocketAddrV4, (Arc<Mailbox>, LinkId)>>,
}

/// What is said, and to whom; by the keys of their mailboxes.
#[derive(Debug)]
struct Watch {
    readiness: Readiness,
    sessions: BTreeMap<u64, Arc<Mailbox>>,
}

/// A client's place in the list of those that an lb may send away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    address: SocketAddrV4,
    link: LinkId,
}

impl ClusterTopics {
    /// A broker that serves, and these lbs.
    #[must_use]
    pub fn new(lbs: &[LbHost]) -> Self {
        Self {
            lbs: lbs.into(),
            watch: Mutex::new(Watch { readiness: Readiness::Ready, sessions: BTreeMap::new() }),
            seats: Mutex::default(),
        }
    }

    /// Whether the certificate that the other side showed, which the handshake has checked, is that of an lb.
    #[must_use]
    pub fn is_lb(&self, chain: Option<&[CertificateDer<'_>]>) -> bool {
        let Some(own) = chain.and_then(|chain| chain.first()) else { return false };
        self.lbs.iter().any(|lb| tls::is_certificate_of(own, &lb.name, lb.address.into()))
    }

    /// Remembers a client that came from an lb's address.
    pub fn seat(&self, peer: SocketAddr, mailbox: &Arc<Mailbox>, link: LinkId) -> Option<Seat> {
        let address = ipv4(peer).filter(|address| self.lbs.iter().any(|lb| lb.address == *address.ip()))?;
        self.seats.lock().insert(address, (Arc::clone(mailbox), link));
        Some(Seat { address, link })
    }

    /// Forgets it. The lb may have used the same port again meanwhile.
    pub fn leave(&self, seat: Seat) {
        let mut seats = self.seats.lock();
        if seats.get(&seat.address).is_some_and(|(_, link)| *link == seat.link) {
            seats.remove(&seat.address);
        }
    }

    /// Tells the clients at these ends that they are to use another server; how many of them there were.
    pub fn send_away(&self, addresses: &[SocketAddr]) -> usize {
        let found: Vec<_> = {
            let seats = self.seats.lock();
            addresses.iter().filter_map(|&address| seats.get(&ipv4(address)?).cloned()).collect()
        };
        found.iter().filter(|(mailbox, link)| mailbox.close_link(*link, ReasonCode::UseAnotherServer)).count()
    }

    /// An lb asks how this broker is: it is told now, and at each change.
    pub fn watch(&self, mailbox: &Arc<Mailbox>, now: Instant, wakes: &mut Wakes) {
        // Under the lock, so that no change comes between, and none comes twice or in the wrong order.
        let mut watch = self.watch.lock();
        watch.sessions.insert(mailbox.key(), Arc::clone(mailbox));
        tell(mailbox, watch.readiness, now, wakes);
    }

    /// An lb's session has ended, if it was one.
    pub fn forget(&self, mailbox: &Mailbox) {
        self.watch.lock().sessions.remove(&mailbox.key());
    }

    /// Tells every lb how this broker is from now on.
    pub fn announce(&self, to: Readiness, reason: &'static str, now: Instant) {
        let mut wakes = Wakes::default();
        let mut watch = self.watch.lock();
        let from = std::mem::replace(&mut watch.readiness, to);
        if from == to {
            return;
        }
        for mailbox in watch.sessions.values() {
            tell(mailbox, to, now, &mut wakes);
        }
        tracing::info!(from = from.word(), to = to.word(), reason, lbs = watch.sessions.len(), "readiness changed");
    }

    /// How many lbs have their standing session here.
    #[must_use]
    pub fn lbs(&self) -> usize {
        self.watch.lock().sessions.len()
    }

    /// What this broker says of itself.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.watch.lock().readiness
    }

    /// Whether this is an lb's session that hears how this broker is.
    #[must_use]
    pub fn is_watching(&self, mailbox: &Mailbox) -> bool {
        self.watch.lock().sessions.contains_key(&mailbox.key())
    }

    /// The lbs' sessions.
    #[must_use]
    pub fn watching(&self) -> Vec<Arc<Mailbox>> {
        self.watch.lock().sessions.values().cloned().collect()
    }
}

/// The address in the family in which lbs are known.
fn ipv4(address: SocketAddr) -> Option<SocketAddrV4> {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => Some(SocketAddrV4::new(ip, address.port())),
        IpAddr::V6(_) => None,
    }
}

fn tell(mailbox: &Mailbox, readiness: Readiness, now: Instant, wakes: &mut Wakes) {
    // Another client may have taken the session over.
    if mailbox.lock().session.is_lb() {
        mailbox.deliver([delivery(readiness, now)], wakes, drop);
    }
}

fn delivery(readiness: Readiness, now: Instant) -> Delivery {
    let topic = Text::new(cluster_topics::STATE).ok().and_then(|topic| TopicName::new(topic).ok());
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: topic.expect("the topic's name is one"),
        packet_id: None,
        properties: None,
        payload: Bytes::from_static(readiness.word().as_bytes()),
    };
    // The stamp orders what brokers exchange; this goes to no other broker.
    let message = Message { publish, stamp: Stamp { time: 0, origin: Arc::from("") }, received: now, publisher: None };
    Delivery { message: Shared::new(message, false), qos: QoS::AtMostOnce, retain: false, ids: None, share: None }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use evermq_config::HostName;

    use super::*;
    use crate::broker::tests::{broker, connect};
    use crate::connection::clock;

    const LB: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 11);

    fn cluster() -> ClusterTopics {
        ClusterTopics::new(&[LbHost { name: HostName::new("lb1").unwrap(), address: LB }])
    }

    #[test]
    fn a_port_that_was_used_again_is_the_newer_clients() {
        let (broker, _) = broker();
        let cluster = cluster();
        let at = SocketAddr::from((LB, 40_000));
        let accept = |id: &str| broker.connect(connect(id), clock()).unwrap();
        let (old, new) = (accept("old"), accept("new"));
        let old_seat = cluster.seat(at, &old.mailbox, old.link).unwrap();
        let new_seat = cluster.seat(at, &new.mailbox, new.link).unwrap();
        // The old connection's end comes late.
        cluster.leave(old_seat);
        assert_eq!(cluster.send_away(&[at]), 1);
        assert_eq!(old.mailbox.lock().close, None);
        assert_eq!(new.mailbox.lock().close, Some(Box::new(ReasonCode::UseAnotherServer.into())));
        cluster.leave(new_seat);
        assert_eq!(cluster.send_away(&[at]), 0);
    }

    #[test]
    fn a_client_that_has_come_back_by_another_way_stays() {
        let (broker, _) = broker();
        let cluster = cluster();
        let at = SocketAddr::from((LB, 40_000));
        let first = broker.connect(connect("c"), clock()).unwrap();
        let _seat = cluster.seat(at, &first.mailbox, first.link).unwrap();
        let second = broker.connect(connect("c"), clock()).unwrap();
        assert!(Arc::ptr_eq(&first.mailbox, &second.mailbox));
        assert_eq!(cluster.send_away(&[at]), 0);
        assert_eq!(second.mailbox.lock().close, None);
    }

    #[test]
    fn only_connections_from_an_lbs_address_are_remembered() {
        let (broker, _) = broker();
        let cluster = cluster();
        let client = broker.connect(connect("c"), clock()).unwrap();
        let mapped = SocketAddr::from((LB.to_ipv6_mapped(), 1));
        assert!(cluster.seat(mapped, &client.mailbox, client.link).is_some());
        for other in [SocketAddr::from(([192, 168, 10, 12], 1)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1))] {
            assert_eq!(cluster.seat(other, &client.mailbox, client.link), None);
        }
    }
}
