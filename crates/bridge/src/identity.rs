//! What this broker shows its peers, and which of theirs it believes; another one may take its place at any time.

use std::sync::Arc;

use evermq_config::{HostName, Peer};
use evermq_daemon::tls::{Material, TlsError};
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// For the links that are made from now on; those that stand go on with theirs.
pub(crate) struct Identity(Mutex<Arc<Present>>);

struct Present {
    acceptor: TlsAcceptor,
    /// For each peer, one that accepts that peer's certificate only.
    connectors: Vec<(HostName, TlsConnector)>,
}

impl Identity {
    pub(crate) fn new(material: &Material, peers: &[Peer]) -> Result<Self, TlsError> {
        Present::new(material, peers).map(|present| Self(Mutex::new(Arc::new(present))))
    }

    pub(crate) fn renew(&self, material: &Material, peers: &[Peer]) -> Result<(), TlsError> {
        let present = Present::new(material, peers)?;
        *self.0.lock() = Arc::new(present);
        Ok(())
    }

    /// For a peer that connects.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.lock().acceptor.clone()
    }

    /// For the peer of that name, as long as it is one.
    pub(crate) fn connector(&self, peer: &HostName) -> Option<TlsConnector> {
        let present = Arc::clone(&self.0.lock());
        present.connectors.iter().find(|(name, _)| name == peer).map(|(_, connector)| connector.clone())
    }
}

impl Present {
    fn new(material: &Material, peers: &[Peer]) -> Result<Self, TlsError> {
        let connector = |peer: &Peer| {
            let config: Arc<ClientConfig> = material.client_config_for(&peer.name, peer.address.ip())?;
            Ok((peer.name.clone(), TlsConnector::from(config)))
        };
        let connectors = peers.iter().map(connector).collect::<Result<_, TlsError>>()?;
        Ok(Self { acceptor: TlsAcceptor::from(material.server_config()?), connectors })
    }
}
