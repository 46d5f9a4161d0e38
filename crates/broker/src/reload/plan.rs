//! What a new cluster file changes, as data: what is put in force as it is, and what needs a restart. Pure.

use std::net::IpAddr;

use evermq_config::broker::{Admission, Broker, Listener};
use evermq_config::{BrokerConfig, HostName, Peer};

/// The difference between two files, for this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Keys that are put in force, in the file's words.
    pub(super) applied: Vec<&'static str>,
    /// Keys that have changed and stay as they were until a restart, and why.
    pub(super) restart: Vec<(&'static str, &'static str)>,
}

type Differs = fn(&Broker, &Broker) -> bool;

/// What is put in force without a restart.
const APPLIED: [(&str, Differs); 10] = [
    ("[broker.auth]", |old, new| {
        let settings = |broker: &Broker| {
            let auth = broker.auth.clone();
            (auth.identity, auth.anonymous, auth.password_file, auth.acl_file, auth.crl, auth.tell_denied)
        };
        settings(old) != settings(new)
    }),
    ("[[broker.acl]]", |old, new| old.auth.rules != new.auth.rules),
    ("anonymous of [[broker.listeners]]", |old, new| {
        let words = |broker: &Broker| -> Vec<_> {
            broker.listeners.iter().map(|listener| (listener.name.clone(), listener.anonymous)).collect()
        };
        old.listeners.len() == new.listeners.len() && words(old) != words(new)
    }),
    ("what clients are told in CONNACK, and time-outs, for those that connect from now on", |old, new| {
        told(old) != told(new)
    }),
    ("the limits of queues, subscriptions and retained messages", |old, new| limits(old) != limits(new)),
    ("broker.max_connections and those per address and user, and broker.max_handshakes", |old, new| {
        let places = |limits: Admission| (limits.connections, limits.per_address, limits.per_user, limits.handshakes);
        places(old.admission) != places(new.admission)
    }),
    ("broker.max_publish_rate and broker.max_publish_bytes", |old, new| {
        let rates = |limits: Admission| (limits.publish_rate, limits.publish_bytes);
        rates(old.admission) != rates(new.admission)
    }),
    ("broker.drain_timeout", |old, new| old.drain_timeout != new.drain_timeout),
    ("broker.join_timeout, for the next start", |old, new| old.join_timeout != new.join_timeout),
    ("broker.sys_interval", |old, new| old.sys_interval != new.sys_interval),
];

const SOCKETS: &str = "listening sockets are made at the start";
const PEERS: &str = "the port and the queue for the other brokers are made at the start";

/// What stays as it is until a restart, and why.
const RESTART: [(&str, &str, Differs); 9] = [
    ("broker.listen", SOCKETS, |old, new| old.listen != new.listen),
    ("broker.listen_plain", SOCKETS, |old, new| old.listen_plain != new.listen_plain),
    ("broker.listen_proxy", SOCKETS, |old, new| old.listen_proxy != new.listen_proxy),
    ("[[broker.listeners]]", SOCKETS, |old, new| fixed(&old.listeners) != fixed(&new.listeners)),
    ("broker.peer_port", PEERS, |old, new| old.peer_port != new.peer_port),
    ("broker.peer_queue_messages, peer_queue_bytes and peer_queue_age", PEERS, |old, new| {
        let queue = |broker: &Broker| (broker.peer_queue_messages, broker.peer_queue_bytes, broker.peer_queue_age);
        queue(old) != queue(new)
    }),
    ("broker.workers", "a connection stays with the thread that accepted it", |old, new| old.workers != new.workers),
    ("broker.metrics", SOCKETS, |old, new| old.metrics != new.metrics),
    ("[broker.store]", "the store is opened at the start, and what it has is in memory", |old, new| {
        old.store != new.store
    }),
];

/// Compares two files of one host.
pub(super) fn plan(old: &BrokerConfig, new: &BrokerConfig) -> Plan {
    let applied = APPLIED.iter().filter(|(_, differs)| differs(&old.broker, &new.broker)).map(|(key, _)| *key);
    let restart = RESTART.iter().filter(|(.., differs)| differs(&old.broker, &new.broker));
    let mut plan =
        Plan { applied: applied.collect(), restart: restart.map(|(key, reason, _)| (*key, *reason)).collect() };
    if old.tls != new.tls {
        plan.applied.push("tls");
    }
    if places(&old.peers) != places(&new.peers) {
        plan.applied.push("[[hosts]] with role broker");
    }
    if old.bridges != new.bridges {
        plan.applied.push("[[bridges]]");
    }
    let others = [
        ("cluster.name", PEERS, old.cluster != new.cluster),
        ("cluster.run_dir", SOCKETS, old.control_socket != new.control_socket),
        ("this host's address", SOCKETS, old.peer_listen.ip() != new.peer_listen.ip()),
        ("[[hosts]] with role lb", "who may speak for clients is settled at the start", old.lbs != new.lbs),
        ("vip.quorum and its like", "the voter is made at the start", old.quorum != new.quorum),
    ];
    plan.restart.extend(others.into_iter().filter(|(.., changed)| *changed).map(|(key, reason, _)| (key, reason)));
    plan
}

/// The new file, but for what needs a restart: that stays what it is, and is named again at the next reload.
pub(super) fn in_force(old: &BrokerConfig, new: BrokerConfig) -> BrokerConfig {
    let (before, broker) = (&old.broker, new.broker);
    let mut listeners = before.listeners.clone();
    for listener in &mut listeners {
        if let Some(other) = broker.listeners.iter().find(|other| other.name == listener.name) {
            listener.anonymous = other.anonymous;
        }
    }
    BrokerConfig {
        broker: Broker {
            listen: before.listen,
            listen_plain: before.listen_plain,
            listen_proxy: before.listen_proxy,
            listeners,
            peer_port: before.peer_port,
            peer_queue_messages: before.peer_queue_messages,
            peer_queue_bytes: before.peer_queue_bytes,
            peer_queue_age: before.peer_queue_age,
            workers: before.workers,
            metrics: before.metrics,
            store: before.store.clone(),
            ..broker
        },
        tls: new.tls,
        peers: new.peers.into_iter().map(|peer| at_port(peer, before.peer_port)).collect(),
        bridges: new.bridges,
        ..old.clone()
    }
}

/// The other brokers, but for their port: that is the same on all hosts, and another one needs a restart of all of them.
fn places(peers: &[Peer]) -> Vec<(&HostName, IpAddr)> {
    peers.iter().map(|peer| (&peer.name, peer.address.ip())).collect()
}

fn at_port(mut peer: Peer, port: u16) -> Peer {
    peer.address.set_port(port);
    peer
}

impl Plan {
    /// Whether nothing is to be done; files, which the cluster file only names, apart.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What needs a restart.
fn fixed(listeners: &[Listener]) -> Vec<Listener> {
    listeners.iter().map(|listener| Listener { anonymous: None, ..listener.clone() }).collect()
}

fn told(broker: &Broker) -> impl PartialEq {
    (
        (broker.max_packet_size, broker.max_inflight, broker.max_topic_alias),
        (broker.max_session_expiry, broker.max_keep_alive),
        (broker.connect_timeout, broker.tcp_keepalive, broker.tcp_user_timeout),
    )
}

fn limits(broker: &Broker) -> impl PartialEq {
    (
        (broker.max_topic_levels, broker.max_subscriptions, broker.max_sessions),
        (broker.max_queued_messages, broker.max_queued_bytes, broker.max_queued_total),
        (broker.max_retained_messages, broker.max_retained_bytes),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use evermq_config::broker::{Anonymous, CertificateIdentity};

    use super::*;

    const FILE: &str = "[cluster]\nname = \"test\"\n[[broker.listeners]]\nname = \"web\"\nlisten = \"127.0.0.1:8083\"\n\
        [[bridges]]\nname = \"old\"\naddresses = [\"m\"]\ntopics = [\"#\"]\n\
        [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n\
        [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.10\"\nroles = [\"broker\"]\n\
        [[hosts]]\nname = \"broker2\"\naddress = \"127.0.0.11\"\nroles = [\"broker\"]\n";

    fn config() -> BrokerConfig {
        let loaded = evermq_config::parse(Path::new("/test.toml"), FILE).unwrap_or_else(|report| panic!("{report}"));
        loaded.cluster.broker_for("broker1").unwrap()
    }

    #[test]
    fn the_same_file_is_no_plan() {
        assert!(plan(&config(), &config()).is_empty());
    }

    #[test]
    fn what_needs_a_restart_is_named_until_it_is_done() {
        let mut new = config();
        new.broker.workers += 1;
        new.broker.store.path = "/elsewhere".into();
        new.broker.admission.connections = 7;
        new.broker.listeners[0].anonymous = Some(Anonymous::On);
        let plan = super::plan(&config(), &new);
        assert_eq!(plan.restart.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["broker.workers", "[broker.store]"]);
        assert!(plan.restart.iter().all(|(_, reason)| !reason.is_empty()));
        assert_eq!(
            plan.applied,
            [
                "anonymous of [[broker.listeners]]",
                "broker.max_connections and those per address and user, and broker.max_handshakes"
            ]
        );
        let now = in_force(&config(), new.clone());
        assert_eq!(super::plan(&now, &new), Plan { applied: Vec::new(), restart: plan.restart });
        assert_eq!(now.broker.workers, config().broker.workers);
    }

    #[test]
    fn another_peer_port_is_for_all_or_none() {
        let mut new = config();
        new.broker.peer_port += 1;
        new.peers[0].address.set_port(new.broker.peer_port);
        let plan = super::plan(&config(), &new);
        assert_eq!((plan.restart.len(), plan.applied.len()), (1, 0), "{plan:?}");
        assert_eq!(in_force(&config(), new).peers, config().peers);
    }

    /// Whatever differs between two files is either put in force or said to need a restart, and then it is.
    #[test]
    #[expect(clippy::too_many_lines, reason = "every key, and what becomes of it")]
    fn no_key_is_forgotten() {
        let changes: Vec<fn(&mut BrokerConfig)> = vec![
            |c| c.broker.listen.set_port(1),
            |c| c.broker.listen_plain = Some("127.0.0.1:1".parse().unwrap()),
            |c| c.broker.listen_proxy = Some("127.0.0.1:1".parse().unwrap()),
            |c| c.broker.listeners[0].max_connections = Some(9),
            |c| c.broker.listeners[0].anonymous = Some(Anonymous::Off),
            |c| c.broker.listeners.clear(),
            |c| c.broker.peer_port += 1,
            |c| c.broker.connect_timeout += Duration::from_secs(1),
            |c| c.broker.admission.connections += 1,
            |c| c.broker.admission.per_address = Some(9),
            |c| c.broker.admission.per_user = Some(9),
            |c| c.broker.admission.handshakes += 1,
            |c| c.broker.admission.publish_rate = Some(9),
            |c| c.broker.admission.publish_bytes = Some(9),
            |c| c.broker.max_packet_size += 1,
            |c| c.broker.max_inflight += 1,
            |c| c.broker.max_queued_messages += 1,
            |c| c.broker.max_queued_bytes += 1,
            |c| c.broker.max_queued_total += 1,
            |c| c.broker.max_sessions += 1,
            |c| c.broker.max_session_expiry += Duration::from_secs(1),
            |c| c.broker.max_keep_alive += Duration::from_secs(1),
            |c| c.broker.max_subscriptions += 1,
            |c| c.broker.max_topic_levels += 1,
            |c| c.broker.max_topic_alias += 1,
            |c| c.broker.max_retained_messages += 1,
            |c| c.broker.max_retained_bytes += 1,
            |c| c.broker.peer_queue_messages += 1,
            |c| c.broker.peer_queue_bytes += 1,
            |c| c.broker.peer_queue_age += Duration::from_secs(1),
            |c| c.broker.tcp_keepalive += Duration::from_secs(1),
            |c| c.broker.tcp_user_timeout += Duration::from_secs(1),
            |c| c.broker.drain_timeout += Duration::from_secs(1),
            |c| c.broker.join_timeout += Duration::from_secs(1),
            |c| c.broker.workers += 1,
            |c| c.broker.metrics = Some("127.0.0.1:1".parse().unwrap()),
            |c| c.broker.sys_interval = Some(Duration::from_secs(77)),
            |c| c.broker.store.segment_size += 1,
            |c| c.broker.auth.identity = CertificateIdentity::SanUri,
            |c| c.broker.auth.anonymous = Anonymous::On,
            |c| c.broker.auth.password_file = Some("x".into()),
            |c| c.broker.auth.acl_file = Some("x".into()),
            |c| c.broker.auth.crl.push("x".into()),
            |c| c.broker.auth.tell_denied = false,
            |c| {
                c.broker.auth.rules.push(evermq_config::broker::AclRule {
                    users: Vec::new(),
                    clients: Vec::new(),
                    publish: Vec::new(),
                    subscribe: Vec::new(),
                    deny: Vec::new(),
                });
            },
            |c| c.tls.ca = "x".into(),
            |c| c.bridges.clear(),
            |c| c.control_socket = "x".into(),
            |c| c.lbs.clear(),
            |c| c.peers.clear(),
            |c| c.peers.push(Peer { name: HostName::new("broker3").unwrap(), ..c.peers[0].clone() }),
            |c| c.peers[0].address.set_ip([127, 0, 0, 99].into()),
            |c| c.peer_listen.set_ip([127, 0, 0, 3].into()),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut new = config();
            change(&mut new);
            let plan = plan(&config(), &new);
            assert_eq!(plan.applied.len() + plan.restart.len(), 1, "change {index}: {plan:?}");
            let left = super::plan(&in_force(&config(), new.clone()), &new);
            assert_eq!(left, Plan { applied: Vec::new(), restart: plan.restart }, "change {index}");
        }
        // One that is added to `Broker` and to nothing here fails to compile.
        let Broker {
            listen: _,
            listen_plain: _,
            listen_proxy: _,
            listeners: _,
            peer_port: _,
            connect_timeout: _,
            admission:
                Admission { connections: _, per_address: _, per_user: _, handshakes: _, publish_rate: _, publish_bytes: _ },
            max_packet_size: _,
            max_inflight: _,
            max_queued_messages: _,
            max_queued_bytes: _,
            max_queued_total: _,
            max_sessions: _,
            max_session_expiry: _,
            max_keep_alive: _,
            max_subscriptions: _,
            max_topic_levels: _,
            max_topic_alias: _,
            max_retained_messages: _,
            max_retained_bytes: _,
            peer_queue_messages: _,
            peer_queue_bytes: _,
            peer_queue_age: _,
            tcp_keepalive: _,
            tcp_user_timeout: _,
            drain_timeout: _,
            join_timeout: _,
            workers: _,
            metrics: _,
            sys_interval: _,
            store: _,
            auth: _,
        } = config().broker;
    }
}
