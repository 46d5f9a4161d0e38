//! When revocation lists end.

use std::path::Path;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

/// What ends within this many days is warned of.
pub const WARNING_DAYS: i64 = 30;

/// End of the first list of a PEM file that ends.
#[must_use]
pub fn lists_end(path: &Path) -> Option<OffsetDateTime> {
    let ends = CertificateRevocationListDer::pem_file_iter(path).ok()?.filter_map(|der| {
        let der = der.ok()?;
        let (_, parsed) = CertificateRevocationList::from_der(&der).ok()?;
        Some(parsed.next_update()?.to_datetime())
    });
    ends.min()
}
