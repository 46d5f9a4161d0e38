//! Revocation lists: read at load, and asked again when a session is resumed.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::TlsFault;

/// Why revocation lists cannot be used. `key` is where the cluster file names them.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Missing or unreadable.
    #[error("cannot read revocation lists from {path}: {source}; put the CA's current list there in PEM, or take the file \
             out of {key}", path = path.display())]
    File {
        /// Which setting.
        key: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A file without a revocation list.
    #[error("{path} holds no revocation list (\"-----BEGIN X509 CRL-----\"); convert it with `openssl crl -inform DER`, or \
             take the file out of {key}", path = path.display())]
    None {
        /// Which setting.
        key: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Something that is no usable list.
    #[error("a revocation list in {path} cannot be used: {reason}; it must be a complete list (version 2) of the CA itself",
            path = path.display())]
    Bad {
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A list that the CA should have replaced.
    #[error("the revocation list of \"{issuer}\" in {path} has expired on {until}; fetch the CA's current list",
            path = path.display())]
    Expired {
        /// Where.
        path: PathBuf,
        /// Whose list.
        issuer: String,
        /// Since when.
        until: String,
    },
    /// A CA whose certificates cannot be checked.
    #[error("{key} has no list of \"{subject}\", a CA that clients' certificates may chain to ({ca}), so nobody of it could \
             connect; add its list, or take the CA out", ca = ca.display())]
    Uncovered {
        /// Which setting.
        key: &'static str,
        /// Where the CA stands.
        ca: PathBuf,
        /// Which CA.
        subject: String,
    },
}

/// Every certificate that a list names.
#[derive(Debug, Default)]
pub struct Revocations {
    /// The setting that names them.
    key: &'static str,
    lists: Vec<CertificateRevocationListDer<'static>>,
    issuers: HashSet<Vec<u8>>,
    revoked: HashSet<CertificateId>,
}

/// What a list calls a certificate: its issuer's subject and its serial number, as a number that is unique in this process.
/// A connection may keep it at little cost, to be asked about when the lists change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateId(u128);

impl CertificateId {
    /// The certificate's; none where it is not one.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(Self::new(parsed.issuer().as_raw(), parsed.raw_serial()))
    }

    fn new(issuer: &[u8], serial: &[u8]) -> Self {
        static RANDOM: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        let [high, low] = RANDOM.each_ref().map(|random| u128::from(random.hash_one((issuer, serial))));
        Self(high << 64 | low)
    }
}

impl Revocations {
    /// Reads PEM files with one list each, or several. `key` is the setting that names them, `wall` the time since 1970.
    ///
    /// A list that has expired is refused here. One that expires later goes on to count: locking everyone out because the CA
    /// is late would be worse than not knowing what it revoked last.
    ///
    /// # Errors
    /// A file is missing, holds no list, or one that cannot be used or has expired.
    pub fn load(key: &'static str, files: &[PathBuf], wall: Duration) -> Result<Self, RevocationError> {
        let mut all = Self { key, ..Self::default() };
        for path in files {
            let unreadable = |source| RevocationError::File { key, path: path.clone(), source };
            let before = all.lists.len();
            for list in CertificateRevocationListDer::pem_file_iter(path).map_err(unreadable)? {
                all.add(list.map_err(unreadable)?, path, wall)?;
            }
            if all.lists.len() == before {
                return Err(RevocationError::None { key, path: path.clone() });
            }
        }
        Ok(all)
    }

    fn add(
        &mut self,
        list: CertificateRevocationListDer<'static>,
        path: &Path,
        wall: Duration,
    ) -> Result<(), RevocationError> {
        let bad = |reason: String| RevocationError::Bad { path: path.to_owned(), reason };
        let (_, parsed) = CertificateRevocationList::from_der(&list).map_err(|error| bad(error.to_string()))?;
        // What the handshake's verifier cannot use (indirect lists, delta lists) must not pass for a list here.
        webpki::BorrowedCertRevocationList::from_der(&list).map_err(|error| bad(error.to_string()))?;
        let issuer = parsed.issuer().as_raw().to_vec();
        if let Some(until) = parsed.next_update()
            && until.timestamp() <= seconds(wall)
        {
            return Err(RevocationError::Expired {
                path: path.to_owned(),
                issuer: parsed.issuer().to_string(),
                until: until.to_string(),
            });
        }
        for entry in parsed.iter_revoked_certificates() {
            self.revoked.insert(CertificateId::new(&issuer, entry.raw_serial()));
        }
        self.issuers.insert(issuer);
        self.lists.push(list);
        Ok(())
    }

    /// Whether a list names the certificate.
    #[must_use]
    pub fn is_revoked(&self, certificate: CertificateId) -> bool {
        self.revoked.contains(&certificate)
    }

    /// The lists, for the verifier of full handshakes.
    #[must_use]
    pub fn lists(&self) -> &[CertificateRevocationListDer<'static>] {
        &self.lists
    }

    /// With revocation lists, a certificate of a CA without one is refused: better said now than by every client. `ca` is
    /// the file of the authorities.
    ///
    /// # Errors
    /// The first authority without a list.
    pub fn check_covered(&self, authorities: &[CertificateDer<'_>], ca: &Path) -> Result<(), RevocationError> {
        if self.lists.is_empty() {
            return Ok(());
        }
        for authority in authorities {
            let Ok((_, parsed)) = x509_parser::parse_x509_certificate(authority) else { continue };
            if !self.issuers.contains(parsed.subject().as_raw()) {
                let subject = parsed.subject().to_string();
                return Err(RevocationError::Uncovered { key: self.key, ca: ca.to_owned(), subject });
            }
        }
        Ok(())
    }

    /// Whether a chain that was good once still is.
    ///
    /// # Errors
    /// It has expired, or is revoked.
    pub fn check(&self, chain: &[CertificateDer<'_>], wall: Duration) -> Result<(), TlsFault> {
        for certificate in chain {
            let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
                return Err(TlsFault::Revoked);
            };
            if parsed.validity().not_after.timestamp() < seconds(wall) {
                return Err(TlsFault::Expired);
            }
            if self.is_revoked(CertificateId::new(parsed.issuer().as_raw(), parsed.raw_serial())) {
                return Err(TlsFault::Revoked);
            }
        }
        Ok(())
    }
}

fn seconds(wall: Duration) -> i64 {
    i64::try_from(wall.as_secs()).unwrap_or(i64::MAX)
}
