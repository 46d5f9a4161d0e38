//! The lb as a client of brokers that speak TLS, for mode `reencrypt`.

use std::net::SocketAddr;
use std::sync::Arc;

use evermq_daemon::tls::{Material, TlsError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::session::ClientSide;
use evermq_daemon::tls::TlsFault;

/// Connects to one broker, which must have a certificate of `[tls]`'s CA for its name or its address. Sessions are resumed:
/// keep it as long as the broker.
#[derive(Clone)]
pub struct Reencryption {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Reencryption {
    /// For the broker called `name`, which speaks TLS on `address`.
    ///
    /// # Errors
    /// The host's certificates cannot be used.
    pub fn new(material: &Material, name: &str, address: SocketAddr) -> Result<Self, TlsError> {
        let config = material.client_config_at(address.ip())?;
        // A name that is none for DNS: the address has to do.
        let by_address = |_| ServerName::IpAddress(address.ip().into());
        Ok(Self { config, name: ServerName::try_from(name.to_owned()).unwrap_or_else(by_address) })
    }

    /// The client's side of a new connection.
    ///
    /// # Errors
    /// Never for a configuration that was loaded; rustls says so only by its type.
    pub fn connect(&self) -> Result<ClientSide, TlsFault> {
        ClientSide::new(Arc::clone(&self.config), self.name.clone())
    }
}

impl std::fmt::Debug for Reencryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reencryption").field("name", &self.name).finish_non_exhaustive()
    }
}
