//! A cluster of brokers on loopback: certificates, configuration, one listening socket for each.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use evermq_config::broker::Broker;
use evermq_config::{BrokerConfig, ClusterName, HostName, Peer, TlsFiles};
use evermq_daemon::listen;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

/// Certificates, and who the brokers are.
pub struct Cluster {
    directory: tempfile::TempDir,
    authority: Authority,
    members: Vec<Peer>,
}

/// A CA.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Files of a certificate with these names, and of this CA.
    pub fn issue(&self, directory: &Path, file: &str, names: Vec<SanType>) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |suffix: &str, text: &str| {
            let path = directory.join(format!("{file}.{suffix}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            ca: write("ca", &self.pem),
            cert: write("crt", &certificate.pem()),
            key: write("key", &key.serialize_pem()),
        }
    }
}

impl Cluster {
    /// broker1, broker2, ... each with an address of its own and a free port.
    pub fn new(brokers: u8) -> (Self, Vec<TcpListener>) {
        let listeners: Vec<_> = (1..=brokers)
            .map(|number| evermq_ports::free_on([Ipv4Addr::new(127, 0, 0, number).into()])[0])
            .map(|address| listen::tcp(address, false).unwrap())
            .collect();
        let members = listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| Peer {
                name: HostName::new(&format!("broker{}", index + 1)).unwrap(),
                address: listener.local_addr().unwrap(),
            })
            .collect();
        (Self { directory: tempfile::tempdir().unwrap(), authority: Authority::new(), members }, listeners)
    }

    /// What the broker at `index` takes from the cluster file.
    pub fn config(&self, index: usize) -> BrokerConfig {
        let me = &self.members[index];
        let names = vec![dns(me.name.as_str()), SanType::IpAddress(me.address.ip())];
        BrokerConfig {
            bridges: Vec::new(),
            lbs: Vec::new(),
            host: me.name.clone(),
            cluster: ClusterName::new("home").unwrap(),
            broker: settings(),
            quorum: None,
            peer_listen: me.address,
            peers: self.members.iter().filter(|peer| peer.name != me.name).cloned().collect(),
            tls: self.authority.issue(self.directory.path(), me.name.as_str(), names),
            control_socket: self.directory.path().join("broker.sock"),
        }
    }

    /// A certificate of this cluster's CA for somebody else.
    pub fn certificate_of(&self, name: &str) -> TlsFiles {
        self.authority.issue(self.directory.path(), name, vec![dns(name)])
    }

    /// A certificate for a member, of another CA, which also trusts that one only.
    pub fn certificate_of_another_ca(&self, index: usize) -> TlsFiles {
        let me = &self.members[index];
        let names = vec![dns(me.name.as_str()), SanType::IpAddress(me.address.ip())];
        Authority::new().issue(self.directory.path(), &format!("{}-other", me.name), names)
    }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn settings() -> Broker {
    Broker { peer_queue_messages: 100_000, peer_queue_bytes: 256 << 20, workers: 1, ..Broker::default() }
}
