//! Whether clients must have a certificate, and which ones are good.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use evermq_config::LbConfig;
use evermq_config::lb::ClientAuth;
use evermq_daemon::tls::Revocations;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::certificates;
use super::error::TerminationError;

/// Who may connect.
pub(super) struct Clients {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) revocations: Arc<Revocations>,
    /// Digest of the authorities and of whether a certificate is asked for: tickets are good for these only.
    pub(super) digest: [u8; 32],
}

impl Clients {
    pub(super) fn load(
        config: &LbConfig,
        provider: &Arc<CryptoProvider>,
        wall: Duration,
    ) -> Result<Self, TerminationError> {
        let settings = &config.lb.tls;
        if settings.client_auth == ClientAuth::Off {
            let verifier = WebPkiClientVerifier::no_client_auth();
            return Ok(Self { verifier, revocations: Arc::default(), digest: digest(ClientAuth::Off, Vec::new()) });
        }
        let path = settings.client_ca.as_ref().unwrap_or(&config.tls.ca);
        let authorities = certificates::read(path, "the CA certificates of clients")?;
        let revocations = Revocations::load("lb.crl", &settings.crl, wall)?;
        revocations.check_covered(&authorities, path)?;
        let digest = digest(settings.client_auth, authorities.clone());
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|source| TerminationError::BadCa { path: path.clone(), source })?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(revocations.lists().iter().cloned());
        let builder = match settings.client_auth {
            ClientAuth::Required => builder,
            ClientAuth::Optional | ClientAuth::Off => builder.allow_unauthenticated(),
        };
        Ok(Self { verifier: builder.build()?, revocations: Arc::new(revocations), digest })
    }
}

/// The same for the same certificates in any order.
fn digest(auth: ClientAuth, mut authorities: Vec<CertificateDer<'_>>) -> [u8; 32] {
    authorities.sort_by(|one, other| one.as_ref().cmp(other.as_ref()));
    authorities.dedup();
    let mut context = Context::new(&SHA256);
    context.update(match auth {
        ClientAuth::Required => b"required",
        ClientAuth::Optional => b"optional",
        ClientAuth::Off => b"off",
    });
    for authority in authorities {
        context.update(&(authority.len() as u64).to_be_bytes());
        context.update(&authority);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
