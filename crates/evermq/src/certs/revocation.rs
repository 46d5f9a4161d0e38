//! The authority's list of certificates that do not count any more (RFC 5280 §5), as the keys `crl` of the cluster file name it.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::CertsError;
use super::authority::Authority;

/// What a list says, to be continued.
#[derive(Debug, Default)]
pub struct List {
    revoked: Vec<Revoked>,
    number: u64,
    next_update: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
struct Revoked {
    serial: Vec<u8>,
    time: OffsetDateTime,
    reason: Option<RevocationReason>,
}

/// Hosts whose clocks are behind by less than this take a new list at once.
const CLOCK_DIFFERENCE: Duration = Duration::hours(1);

impl List {
    /// The list in a PEM file; an empty one where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else than one list of this authority.
    pub fn load(path: &Path, authority: &Authority) -> Result<Self, CertsError> {
        let pem = match fs::read(path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(CertsError::Read { path: path.into(), source }),
        };
        let bad = |reason: String| CertsError::BadList { path: path.into(), reason };
        let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(error.to_string()))?;
        let [list] = lists.as_slice() else {
            return Err(bad(format!("it holds {} lists, not one", lists.len())));
        };
        let (_, parsed) = CertificateRevocationList::from_der(list).map_err(|error| bad(error.to_string()))?;
        if !authority.is_called(parsed.issuer().as_raw()) {
            return Err(bad(format!("it is a list of {}, not of this authority", parsed.issuer())));
        }
        let revoked = parsed.iter_revoked_certificates().map(|entry| Revoked {
            serial: entry.raw_serial().to_vec(),
            time: entry.revocation_date.to_datetime(),
            reason: entry.reason_code().and_then(|(_, reason)| reason_of(reason.0)),
        });
        let number = parsed.crl_number().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        Ok(Self { revoked: revoked.collect(), number, next_update: parsed.next_update().map(|end| end.to_datetime()) })
    }

    /// Adds a certificate; whether it was not there yet.
    pub fn add(&mut self, serial: &[u8], reason: Option<RevocationReason>, now: OffsetDateTime) -> bool {
        let is_new = !self.revoked.iter().any(|revoked| revoked.serial == serial);
        if is_new {
            self.revoked.push(Revoked { serial: serial.to_vec(), time: now, reason });
        }
        is_new
    }

    /// How many certificates it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.revoked.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty()
    }

    /// Until when programs take it; none for a list that is not there yet.
    #[must_use]
    pub fn next_update(&self) -> Option<OffsetDateTime> {
        self.next_update
    }

    /// The next list of this authority, as PEM, and the end of its time.
    ///
    /// # Errors
    /// The authority must not sign lists, or `days` end beyond the calendar.
    pub fn sign(
        &self,
        authority: &Authority,
        now: OffsetDateTime,
        days: u32,
    ) -> Result<(String, OffsetDateTime), CertsError> {
        let next_update = now.checked_add(Duration::days(days.into())).ok_or(CertsError::TooLong { days })?;
        let entry = |revoked: &Revoked| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&revoked.serial),
            revocation_time: revoked.time,
            reason_code: revoked.reason,
            invalidity_date: None,
        };
        let pem = authority.sign_list(&CertificateRevocationListParams {
            this_update: now - CLOCK_DIFFERENCE,
            next_update,
            // RFC 5280 §5.2.3: increases from list to list.
            crl_number: SerialNumber::from(self.number + 1),
            issuing_distribution_point: None,
            revoked_certs: self.revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        })?;
        Ok((pem, next_update))
    }
}

/// RFC 5280 §5.3.1; what a complete list cannot hold is left out.
const fn reason_of(code: u8) -> Option<RevocationReason> {
    Some(match code {
        1 => RevocationReason::KeyCompromise,
        2 => RevocationReason::CaCompromise,
        3 => RevocationReason::AffiliationChanged,
        4 => RevocationReason::Superseded,
        5 => RevocationReason::CessationOfOperation,
        6 => RevocationReason::CertificateHold,
        9 => RevocationReason::PrivilegeWithdrawn,
        10 => RevocationReason::AaCompromise,
        _ => return None,
    })
}
