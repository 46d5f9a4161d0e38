//! One listener's rules.

use std::sync::Arc;

use evermq_config::broker::{ClientCertificates, Listener, Protocol};
use evermq_mqtt::Version;

use crate::auth::tls::Doors;
use crate::places::ListenerPlaces;

/// What comes first on a listener's connections, and what they may do.
#[derive(Debug)]
pub struct Door {
    /// As the cluster file calls it, for logs.
    pub name: Arc<str>,
    /// What comes before everything else.
    pub proxy: Proxy,
    /// Whether there is TLS, and which.
    pub tls: Option<Tls>,
    /// What carries MQTT.
    pub protocol: Protocol,
    /// Through this listener, if it has a limit of its own.
    pub places: Option<ListenerPlaces>,
    /// Bytes of a packet from a client, if it has a limit of its own.
    pub max_packet_size: Option<u32>,
    /// MQTT versions that are served.
    pub versions: Versions,
}

/// Whether a PROXY protocol header comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    /// None.
    No,
    /// Perhaps, before TLS, from the cluster's lb hosts.
    Maybe,
    /// Always; nobody but the cluster's lb hosts gets in.
    Always,
}

/// TLS with what the reload last found.
#[derive(Debug)]
pub struct Tls {
    /// The certificates.
    pub configs: Arc<Doors>,
    /// What clients show.
    pub clients: ClientCertificates,
}

/// Which MQTT versions are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    v3: bool,
    v4: bool,
    v5: bool,
}

impl Versions {
    /// All of them.
    pub const ALL: Self = Self { v3: true, v4: true, v5: true };

    /// Those of these protocol levels.
    #[must_use]
    pub fn of(levels: &[u8]) -> Self {
        Self { v3: levels.contains(&3), v4: levels.contains(&4), v5: levels.contains(&5) }
    }

    /// Whether `version` is one of them.
    #[must_use]
    pub fn contains(self, version: Version) -> bool {
        match version {
            Version::V3 => self.v3,
            Version::V4 => self.v4,
            Version::V5 => self.v5,
        }
    }
}

impl Door {
    fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            proxy: Proxy::No,
            tls: None,
            protocol: Protocol::Mqtt,
            places: None,
            max_packet_size: None,
            versions: Versions::ALL,
        }
    }

    /// `listen`: TLS with client certificates, from load balancers perhaps behind a PROXY protocol header.
    #[must_use]
    pub fn listen(configs: &Arc<Doors>) -> Self {
        let tls = Tls { configs: Arc::clone(configs), clients: ClientCertificates::Required };
        Self { proxy: Proxy::Maybe, tls: Some(tls), ..Self::new("tls") }
    }

    /// `listen_plain`: CONNECT comes first.
    #[must_use]
    pub fn plain() -> Self {
        Self::new("plain")
    }

    /// `listen_proxy`: a PROXY protocol header, then CONNECT.
    #[must_use]
    pub fn proxy() -> Self {
        Self { proxy: Proxy::Always, ..Self::new("proxy") }
    }

    /// One of `[[broker.listeners]]`.
    #[must_use]
    pub fn further(listener: &Listener, configs: &Arc<Doors>) -> Self {
        let tls = || Tls { configs: Arc::clone(configs), clients: listener.client_certificates };
        Self {
            tls: listener.tls.then(tls),
            protocol: listener.protocol,
            places: listener.max_connections.map(ListenerPlaces::new),
            max_packet_size: listener.max_packet_size,
            versions: Versions::of(&listener.protocol_versions),
            ..Self::new(&listener.name)
        }
    }
}
