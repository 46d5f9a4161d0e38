//! What TLS listeners show, and whom they ask for certificates.

use std::sync::Arc;

use arc_swap::ArcSwap;
use evermq_config::broker::ClientCertificates;
use evermq_daemon::tls::{Material, TlsError};
use rustls::ServerConfig;

use crate::stream::Asked;

/// One for each way of asking for certificates. Listeners look at each accepted connection, so that new certificates need no
/// restart; those who are connected go on with theirs.
#[derive(Debug)]
pub struct Doors(ArcSwap<Configs>);

/// Made of the same certificates.
#[derive(Debug)]
pub struct Configs {
    required: Arc<ServerConfig>,
    optional: Arc<ServerConfig>,
    off: Arc<ServerConfig>,
}

impl Configs {
    /// With these certificates, authorities and revocation lists.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(material: &Material) -> Result<Self, TlsError> {
        Ok(Self {
            required: make(material, ClientCertificates::Required)?,
            optional: make(material, ClientCertificates::Optional)?,
            off: make(material, ClientCertificates::Off)?,
        })
    }
}

impl Doors {
    /// With these certificates.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(material: &Material) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(Configs::new(material)?))))
    }

    /// For the next connection.
    #[must_use]
    pub fn config(&self, clients: ClientCertificates) -> Arc<ServerConfig> {
        let configs = self.0.load();
        Arc::clone(match clients {
            ClientCertificates::Required => &configs.required,
            ClientCertificates::Optional => &configs.optional,
            ClientCertificates::Off => &configs.off,
        })
    }

    /// Who comes from now on is shown these.
    pub fn replace(&self, configs: Configs) {
        self.0.store(Arc::new(configs));
    }
}

fn make(material: &Material, clients: ClientCertificates) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = material.server_config_for(clients)?;
    if let Some(config) = Arc::get_mut(&mut config) {
        config.cert_resolver = Asked::wrap(Arc::clone(&config.cert_resolver));
    }
    Ok(config)
}
