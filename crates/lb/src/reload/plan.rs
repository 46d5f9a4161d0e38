//! What a new cluster file changes, as data: what is put in force as it is, and what needs a restart. Pure.

use evermq_config::LbConfig;
use evermq_config::lb::{Lb, Listener};

/// The difference between two files, for this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Addresses to listen on from now on.
    pub(crate) come: Vec<Listener>,
    /// Addresses to listen on no more; their clients stay.
    pub(crate) go: Vec<Listener>,
    /// Addresses that stay, with another name, mode or group for new clients: as they were, and as they will be.
    pub(crate) change: Vec<(Listener, Listener)>,
    /// Keys that are put in force, in the file's words.
    pub(crate) applied: Vec<&'static str>,
    /// Keys that have changed and stay as they were until a restart.
    pub(crate) restart: Vec<&'static str>,
}

/// Compares two files of one host.
pub(crate) fn plan(old: &LbConfig, new: &LbConfig) -> Plan {
    let mut plan = Plan::default();
    plan.listeners(&old.lb.listeners, &new.lb.listeners);
    let mut note = |key, changed: bool| {
        if changed {
            plan.applied.push(key);
        }
    };
    note("[[lb.backends]] and [[hosts]] with role broker", old.backends != new.backends);
    for (key, differs) in APPLIED {
        note(key, differs(&old.lb, &new.lb));
    }
    note("tls", old.tls != new.tls);
    let restart = [
        ("cluster.name", old.cluster != new.cluster),
        ("cluster.run_dir", old.control_socket != new.control_socket),
        ("lb.workers", old.lb.workers != new.lb.workers),
        ("lb.peer_port, or this host's address", old.peer_listen != new.peer_listen),
        ("[[hosts]] with role lb", old.peers != new.peers || old.lbs != new.lbs),
    ];
    plan.restart.extend(restart.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key));
    plan
}

/// The new file, but for what needs a restart: that stays what it is, and is named again at the next reload.
pub(crate) fn in_force(old: &LbConfig, new: LbConfig) -> LbConfig {
    LbConfig {
        cluster: old.cluster.clone(),
        control_socket: old.control_socket.clone(),
        peer_listen: old.peer_listen,
        peers: old.peers.clone(),
        lbs: old.lbs.clone(),
        lb: Lb { workers: old.lb.workers, peer_port: old.lb.peer_port, ..new.lb },
        ..new
    }
}

type Differs = fn(&Lb, &Lb) -> bool;

/// What is put in force without a restart. What needs one, listeners and backends are apart.
const APPLIED: [(&str, Differs); 23] = [
    ("lb.balance", |old, new| old.balance != new.balance),
    ("lb.send_proxy", |old, new| old.send_proxy != new.send_proxy),
    ("lb.accept_proxy_from", |old, new| old.accept_proxy_from != new.accept_proxy_from),
    ("lb.max_connections", |old, new| old.max_connections != new.max_connections),
    ("lb.greeting_timeout", |old, new| old.greeting_timeout != new.greeting_timeout),
    ("lb.idle_timeout", |old, new| old.idle_timeout != new.idle_timeout),
    ("lb.connect_timeout", |old, new| old.connect_timeout != new.connect_timeout),
    ("lb.max_handshake_rate, lb.max_handshakes and those per broker", |old, new| old.handshakes != new.handshakes),
    ("lb.queue_size, lb.queue_timeout", |old, new| old.queue != new.queue),
    ("lb.max_connections_per_source, lb.max_rate_per_source", |old, new| old.source != new.source),
    ("lb.health_interval and what else is of health", |old, new| {
        (old.health.interval, old.health.timeout, old.health.rise, old.health.fall, old.health.max_ejected)
            != (new.health.interval, new.health.timeout, new.health.rise, new.health.fall, new.health.max_ejected)
    }),
    ("lb.slow_start", |old, new| old.health.slow_start != new.health.slow_start),
    ("lb.rebalance_rate, lb.rebalance_threshold, lb.rebalance_delay", |old, new| old.rebalance != new.rebalance),
    ("lb.tcp_keepalive", |old, new| old.tcp_keepalive != new.tcp_keepalive),
    ("lb.tcp_user_timeout", |old, new| old.tcp_user_timeout != new.tcp_user_timeout),
    ("lb.drain_timeout", |old, new| old.drain_timeout != new.drain_timeout),
    ("lb.reconnect_rate", |old, new| old.reconnect_rate != new.reconnect_rate),
    ("lb.access_log", |old, new| old.access_log != new.access_log),
    ("lb.metrics", |old, new| old.metrics != new.metrics),
    ("[[lb.backends]]", |old, new| old.backends != new.backends),
    ("[[lb.routes]]", |old, new| old.routes != new.routes),
    ("[[lb.client_ids]]", |old, new| old.client_ids != new.client_ids),
    ("[[lb.certificates]] and other TLS settings", |old, new| old.tls != new.tls),
];

impl Plan {
    /// An address that stays is the same listener: it is never bound twice, so nobody who waits there is lost.
    fn listeners(&mut self, old: &[Listener], new: &[Listener]) {
        for listener in old {
            match new.iter().find(|other| other.address == listener.address) {
                None => self.go.push(listener.clone()),
                Some(now) if now != listener => self.change.push((listener.clone(), now.clone())),
                Some(_) => {}
            }
        }
        let is_new = |listener: &&Listener| !old.iter().any(|other| other.address == listener.address);
        self.come.extend(new.iter().filter(is_new).cloned());
        if !(self.come.is_empty() && self.go.is_empty() && self.change.is_empty()) {
            self.applied.push("lb.listen, lb.mode and [[lb.listeners]]");
        }
    }

    /// Whether nothing is to be done; certificates, which the file only names, apart.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    const FILE: &str = "[cluster]\nname = \"test\"\n[lb]\nlisten = \"127.0.0.1:9000\"\n\
        [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n\
        [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.10\"\nroles = [\"broker\"]\n";

    fn config(file: &str) -> LbConfig {
        let loaded = evermq_config::parse(Path::new("/test.toml"), file).unwrap_or_else(|report| panic!("{report}"));
        loaded.cluster.lb_for("lb1").unwrap()
    }

    #[test]
    fn the_same_file_is_no_plan() {
        assert!(plan(&config(FILE), &config(FILE)).is_empty());
    }

    #[test]
    fn an_address_that_stays_is_not_bound_again() {
        let more =
            |text: &str| config(&format!("{FILE}[broker]\nlisten_proxy = \"0.0.0.0:8885\"\n[[lb.listeners]]\n{text}"));
        let old = more("name = \"plain\"\nlisten = \"127.0.0.1:9883\"\nmode = \"plain\"\n");
        let plan_to = |new: &LbConfig| plan(&old, new);
        let renamed = plan_to(&more("name = \"tcp\"\nlisten = \"127.0.0.1:9883\"\nmode = \"plain\"\n"));
        assert_eq!((renamed.come.len(), renamed.go.len(), renamed.change.len()), (0, 0, 1));
        assert_eq!((&*renamed.change[0].0.name, &*renamed.change[0].1.name), ("plain", "tcp"));
        let moved = plan_to(&more("name = \"plain\"\nlisten = \"127.0.0.1:9884\"\nmode = \"plain\"\n"));
        let ports = |listeners: &[Listener]| listeners.iter().map(|one| one.address.port()).collect::<Vec<_>>();
        assert_eq!((ports(&moved.come), ports(&moved.go), moved.change.len()), (vec![9884], vec![9883], 0));
        let gone = plan_to(&config(FILE));
        assert_eq!((ports(&gone.come), ports(&gone.go)), (vec![], vec![9883]));
        assert!(gone.applied.contains(&"lb.listen, lb.mode and [[lb.listeners]]"), "{gone:?}");
    }

    #[test]
    fn what_needs_a_restart_is_named_and_does_not_hide_the_rest() {
        let new = FILE.replace("[lb]\n", "[lb]\nworkers = 3\npeer_port = 9999\nconnect_timeout = \"7s\"\n");
        let plan = plan(&config(FILE), &config(&new));
        assert_eq!(plan.restart, ["lb.workers", "lb.peer_port, or this host's address"]);
        assert_eq!(plan.applied, ["lb.connect_timeout"]);
        let now = in_force(&config(FILE), config(&new));
        assert_eq!((now.lb.workers, now.lb.connect_timeout), (0, Duration::from_secs(7)));
        assert_eq!(super::plan(&now, &config(&new)).restart, plan.restart, "until it is done");
    }

    /// Whatever differs between two files is either put in force or said to need a restart.
    #[test]
    fn no_key_is_forgotten() {
        let base = config(FILE);
        let changes: [fn(&mut LbConfig); 23] = [
            |c| c.lb.balance = evermq_config::lb::Balance::SourceIp,
            |c| c.lb.send_proxy = !c.lb.send_proxy,
            |c| c.lb.accept_proxy_from.push(evermq_config::lb::IpNetwork::parse("10.0.0.0/8").unwrap()),
            |c| c.lb.max_connections += 1,
            |c| c.lb.greeting_timeout += Duration::from_secs(1),
            |c| c.lb.idle_timeout = None,
            |c| c.lb.connect_timeout += Duration::from_secs(1),
            |c| c.lb.handshakes.concurrent += 1,
            |c| c.lb.queue.size += 1,
            |c| c.lb.source.connections = Some(1),
            |c| c.lb.health.rise += 1,
            |c| c.lb.health.slow_start += Duration::from_secs(1),
            |c| c.lb.rebalance.threshold += 1,
            |c| c.lb.tcp_keepalive += Duration::from_secs(1),
            |c| c.lb.tcp_user_timeout += Duration::from_secs(1),
            |c| c.lb.drain_timeout += Duration::from_secs(1),
            |c| c.lb.reconnect_rate += 1,
            |c| c.lb.access_log = evermq_config::lb::AccessLog::Off,
            |c| c.lb.metrics = Some("127.0.0.1:1".parse().unwrap()),
            |c| c.lb.workers += 1,
            |c| c.lb.tls.crl.push("x".into()),
            |c| c.backends[0].weight += 1,
            |c| c.tls.ca = "x".into(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut new = base.clone();
            change(&mut new);
            let plan = plan(&base, &new);
            assert_eq!(plan.applied.len() + plan.restart.len(), 1, "change {index}: {plan:?}");
        }
        // One that is added to `Lb` and to nothing here fails to compile.
        let Lb {
            listeners: _,
            balance: _,
            send_proxy: _,
            accept_proxy_from: _,
            max_connections: _,
            greeting_timeout: _,
            idle_timeout: _,
            connect_timeout: _,
            handshakes: _,
            queue: _,
            source: _,
            health: _,
            rebalance: _,
            tcp_keepalive: _,
            tcp_user_timeout: _,
            drain_timeout: _,
            peer_port: _,
            reconnect_rate: _,
            access_log: _,
            metrics: _,
            workers: _,
            backends: _,
            routes: _,
            client_ids: _,
            tls: _,
        } = base.lb;
    }
}
