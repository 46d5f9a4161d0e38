//! Certificate chains, chosen by the name that a client asks for and by what it can verify.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evermq_config::TlsFiles;
use evermq_config::lb::CertificateFiles;
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, SignatureAlgorithm};
use x509_parser::extensions::GeneralName;

use super::error::TerminationError;

/// What a server can show.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    /// By name in lower case, the cheapest to sign with first.
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// `*.example.org` by `example.org`: one label more (RFC 9525 §6.3).
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// The host's own, for clients that ask for none of these names, or for no name.
    own: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    pub(super) fn load(
        own: &TlsFiles,
        more: &[CertificateFiles],
        provider: &CryptoProvider,
        wall: Duration,
    ) -> Result<Self, TerminationError> {
        let mut all = Self { own: vec![pair(&own.cert, &own.key, provider, wall)?], ..Self::default() };
        for files in more {
            let pair = pair(&files.cert, &files.key, provider, wall)?;
            let names = dns_names(&pair);
            if names.is_empty() {
                return Err(TerminationError::Nameless { cert: files.cert.clone() });
            }
            for name in names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(domain) => (&mut all.wildcard, domain),
                    None => (&mut all.exact, name.as_str()),
                };
                map.entry(name.into()).or_default().push(Arc::clone(&pair));
            }
        }
        // Stable: of two of one kind, the one that stands first in the file wins.
        for pairs in all.exact.values_mut().chain(all.wildcard.values_mut()) {
            pairs.sort_by_key(|pair| u8::from(pair.key.algorithm() == SignatureAlgorithm::RSA));
        }
        Ok(all)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_deref().and_then(|name| self.exact.get(name));
        let domain = name.as_deref().and_then(|name| name.split_once('.')).map(|(_, domain)| domain);
        let wildcard = domain.and_then(|domain| self.wildcard.get(domain));
        exact
            .into_iter()
            .chain(wildcard)
            .chain([&self.own])
            .flatten()
            .find(|pair| pair.key.choose_scheme(schemes).is_some())
    }
}

thread_local! {
    /// The name that the last ClientHello of this thread asked for: the one place where rustls tells it, in the midst of
    /// taking in the client's bytes.
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The name that the ClientHello asked for which was taken in just now, if there was one.
pub(super) fn take_asked() -> Option<Box<str>> {
    ASKED.take()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(Into::into));
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

/// Every certificate of a PEM file.
pub(super) fn read(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TerminationError> {
    let error = |source| TerminationError::File { what, path: path.to_owned(), source };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path).map_err(error)?.collect::<Result<_, _>>().map_err(error)?;
    if chain.is_empty() {
        return Err(TerminationError::NoCertificate { what, path: path.to_owned() });
    }
    Ok(chain)
}

fn pair(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
    wall: Duration,
) -> Result<Arc<CertifiedKey>, TerminationError> {
    let chain = read(cert, "the certificate chain")?;
    let refused = |source| TerminationError::Pair { cert: cert.to_owned(), key: key.to_owned(), source };
    let der = PrivateKeyDer::from_pem_file(key).map_err(|source| TerminationError::File {
        what: "the private key",
        path: key.to_owned(),
        source,
    })?;
    let key = provider.key_provider.load_private_key(der).map_err(refused)?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // A key that does not tell its public half cannot be compared.
        Ok(()) | Err(Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(error) => return Err(refused(error)),
    }
    warn_of_end(&pair, cert, wall);
    Ok(Arc::new(pair))
}

/// Clients refuse an expired certificate by themselves; those with another name are not to suffer from it.
fn warn_of_end(pair: &CertifiedKey, cert: &Path, wall: Duration) {
    let Some((_, parsed)) = pair.cert.first().and_then(|first| x509_parser::parse_x509_certificate(first).ok()) else {
        return;
    };
    let until = parsed.validity().not_after;
    if u64::try_from(until.timestamp()).unwrap_or(0) < wall.as_secs() {
        tracing::warn!(cert = %cert.display(), %until, "certificate has expired; clients will refuse it");
    }
}

fn dns_names(pair: &CertifiedKey) -> Vec<String> {
    let Some((_, parsed)) = pair.cert.first().and_then(|first| x509_parser::parse_x509_certificate(first).ok()) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Vec::new() };
    names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}
