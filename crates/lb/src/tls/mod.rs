//! TLS that ends at the lb: with clients ([`Terminator`]), and towards brokers ([`Reencryption`]).
//!
//! | module | subject | |
//! |---|---|---|
//! | [`certificates`] | chains by server name and by what the client can verify | |
//! | [`clients`] | whether clients must have a certificate, and which | |
//! | [`tickets`] | session tickets that every lb of the cluster can read | pure |
//! | [`session`] | one connection without its socket | pure |
//! | [`backends`] | the lb as a broker's client | |
//! | [`set`] | both, as workers have them | |
//! | [`info`] | what a connection is, who its client is | |

mod backends;
mod certificates;
mod clients;
mod error;
mod info;
mod session;
mod set;
mod tickets;

use std::sync::Arc;

use evermq_config::LbConfig;
use evermq_config::lb::TlsVersion;
use evermq_daemon::secret::{Secret, TICKET_KEY};
use evermq_daemon::tls::Revocations;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use self::certificates::Certificates;
use self::clients::Clients;
use self::tickets::Tickets;

pub use evermq_daemon::tls::{MAX_HANDSHAKE, Output, Received, TlsFault};

pub use self::backends::Reencryption;
pub use self::error::TerminationError;
pub use self::info::{Identity, TlsInfo};
pub use self::session::{ClientSide, ServerSide, Session};
pub use self::set::{TlsSet, TlsSetError};

/// What MQTT is called within TLS (RFC 7301; IANA's registry of ALPN protocol IDs).
const ALPN: &[u8] = b"mqtt";

/// Everything that a listener needs to end TLS. A reload makes a new one; connections go on with theirs.
pub struct Terminator {
    config: Arc<ServerConfig>,
    revocations: Arc<Revocations>,
}

impl Terminator {
    /// Reads certificates, authorities, revocation lists and the ticket key.
    ///
    /// # Errors
    /// A file is missing, is not what it should be, or is out of date.
    pub fn load(config: &LbConfig) -> Result<Self, TerminationError> {
        let wall = tickets::wall();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let settings = &config.lb.tls;
        let secret = Secret::read(&settings.ticket_key, TICKET_KEY)?;
        let certificates = Certificates::load(&config.tls, &settings.certificates, &provider, wall)?;
        let clients = Clients::load(config, &provider, wall)?;
        let versions: &[&'static SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::V1_2 => &[&TLS13, &TLS12],
            TlsVersion::V1_3 => &[&TLS13],
        };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(TerminationError::Setup)?
            .with_client_cert_verifier(clients.verifier)
            .with_cert_resolver(Arc::new(certificates));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.ticketer = Arc::new(Tickets::new(&secret, clients.digest, settings.ticket_rotation, wall));
        // One is enough: a client comes back once at a time, and each costs an encryption and a packet's worth of bytes.
        server.send_tls13_tickets = 1;
        // Sessions that only this host knows would be lost with it.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(server), revocations: clients.revocations })
    }

    /// The server's side of a new connection.
    ///
    /// # Errors
    /// Never for a configuration that was loaded; rustls says so only by its type.
    pub fn accept(&self) -> Result<ServerSide, TlsFault> {
        ServerSide::new(Arc::clone(&self.config), Arc::clone(&self.revocations))
    }
}

impl std::fmt::Debug for Terminator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Terminator").finish_non_exhaustive()
    }
}
