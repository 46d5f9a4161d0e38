//! All that workers need for TLS, as one: a reload makes another, and connections go on with what they have.

use std::collections::HashMap;

use evermq_config::LbConfig;
use evermq_config::lb::Mode;
use evermq_daemon::tls::{Material, TlsError};

use super::Terminator;
use super::backends::Reencryption;
use super::error::TerminationError;
use super::session::{ClientSide, ServerSide};
use evermq_daemon::tls::TlsFault;

/// TLS with clients, and with brokers.
#[derive(Debug)]
pub struct TlsSet {
    terminator: Terminator,
    /// By the broker's name.
    backends: HashMap<String, Reencryption>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetError {
    /// With clients.
    #[error(transparent)]
    Clients(#[from] TerminationError),
    /// With brokers.
    #[error(transparent)]
    Brokers(#[from] TlsError),
}

impl TlsSet {
    /// Reads every file that the listeners need; none where none of them ends TLS.
    ///
    /// # Errors
    /// A file is missing, is not what it should be, or is out of date.
    pub fn load(config: &LbConfig) -> Result<Option<Self>, TlsSetError> {
        let listeners = &config.lb.listeners;
        if !listeners.iter().any(|listener| listener.mode.terminates()) {
            return Ok(None);
        }
        let terminator = Terminator::load(config)?;
        let mut backends = HashMap::new();
        if listeners.iter().any(|listener| listener.mode == Mode::Reencrypt) {
            let material = Material::load(&config.tls)?;
            for backend in &config.backends {
                if let Some(address) = backend.address {
                    backends.insert(backend.name.clone(), Reencryption::new(&material, &backend.name, address)?);
                }
            }
        }
        Ok(Some(Self { terminator, backends }))
    }

    /// The server's side of a client's connection.
    ///
    /// # Errors
    /// See [`Terminator::accept`].
    pub fn accept(&self) -> Result<ServerSide, TlsFault> {
        self.terminator.accept()
    }

    /// The client's side of a connection to the broker of that name, if it speaks TLS.
    #[must_use]
    pub fn connect(&self, broker: &str) -> Option<Result<ClientSide, TlsFault>> {
        self.backends.get(broker).map(Reencryption::connect)
    }
}
