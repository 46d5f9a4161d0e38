//! Revocation lists: read at load, and asked again when a session is resumed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::error::TerminationError;
use super::fault::TlsFault;

/// Every certificate that a list names.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    lists: Vec<CertificateRevocationListDer<'static>>,
    issuers: HashSet<Vec<u8>>,
    revoked: HashSet<Name>,
}

/// What a list calls a certificate: its issuer's subject (DER), its serial number.
type Name = (Box<[u8]>, Box<[u8]>);

impl Revocations {
    /// Reads PEM files with one list each, or several.
    pub(super) fn load(files: &[PathBuf], wall: Duration) -> Result<Self, TerminationError> {
        let mut all = Self::default();
        for path in files {
            let unreadable = |source| TerminationError::CrlFile { path: path.clone(), source };
            let before = all.lists.len();
            for list in CertificateRevocationListDer::pem_file_iter(path).map_err(unreadable)? {
                all.add(list.map_err(unreadable)?, path, wall)?;
            }
            if all.lists.len() == before {
                return Err(TerminationError::NoCrl { path: path.clone() });
            }
        }
        Ok(all)
    }

    fn add(
        &mut self,
        list: CertificateRevocationListDer<'static>,
        path: &Path,
        wall: Duration,
    ) -> Result<(), TerminationError> {
        let bad = |reason: String| TerminationError::BadCrl { path: path.to_owned(), reason };
        let (_, parsed) = CertificateRevocationList::from_der(&list).map_err(|error| bad(error.to_string()))?;
        // What the handshake's verifier cannot use (indirect lists, delta lists) must not pass for a list here.
        webpki::BorrowedCertRevocationList::from_der(&list).map_err(|error| bad(error.to_string()))?;
        let issuer = parsed.issuer().as_raw().to_vec();
        if let Some(until) = parsed.next_update()
            && until.timestamp() <= seconds(wall)
        {
            return Err(TerminationError::ExpiredCrl {
                path: path.to_owned(),
                issuer: parsed.issuer().to_string(),
                until: until.to_string(),
            });
        }
        for entry in parsed.iter_revoked_certificates() {
            self.revoked.insert((issuer.clone().into(), entry.raw_serial().into()));
        }
        self.issuers.insert(issuer);
        self.lists.push(list);
        Ok(())
    }

    /// The lists, for the verifier of full handshakes.
    pub(super) fn lists(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.lists
    }

    /// Whether there is a list of the authority with this subject (DER).
    pub(super) fn covers(&self, subject: &[u8]) -> bool {
        self.issuers.contains(subject)
    }

    /// Whether a chain that was good once still is.
    pub(super) fn check(&self, chain: &[CertificateDer<'_>], wall: Duration) -> Result<(), TlsFault> {
        for certificate in chain {
            let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
                return Err(TlsFault::Revoked);
            };
            if parsed.validity().not_after.timestamp() < seconds(wall) {
                return Err(TlsFault::Expired);
            }
            let name: Name = (parsed.issuer().as_raw().into(), parsed.raw_serial().into());
            if self.revoked.contains(&name) {
                return Err(TlsFault::Revoked);
            }
        }
        Ok(())
    }
}

fn seconds(wall: Duration) -> i64 {
    i64::try_from(wall.as_secs()).unwrap_or(i64::MAX)
}
