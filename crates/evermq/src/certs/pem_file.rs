//! Certificates in a PEM file, each with the text that it stands in.

use std::fs;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;

use super::CertsError;

/// One certificate of a file.
pub struct PemCertificate {
    /// Its place in the file, from 1.
    number: usize,
    /// Its PEM section, from BEGIN to END, with a newline.
    pub pem: String,
    /// Its bytes.
    pub der: CertificateDer<'static>,
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Reads every certificate of a PEM file; what stands between them is skipped.
///
/// # Errors
/// The file cannot be read, has no certificate, or has one that is not PEM.
pub fn read(path: &Path) -> Result<Vec<PemCertificate>, CertsError> {
    let bytes = fs::read(path).map_err(|source| CertsError::Read { path: path.into(), source })?;
    // Comments around the sections may be in any encoding; the sections themselves are ASCII.
    let text = String::from_utf8_lossy(&bytes);
    let mut certificates = Vec::new();
    let mut rest = text.as_ref();
    while let Some(start) = rest.find(BEGIN) {
        let number = certificates.len() + 1;
        let bad = |reason: String| CertsError::BadCertificate { path: path.into(), number, reason };
        let end = rest[start..].find(END).ok_or_else(|| bad(format!("\"{END}\" is missing")))? + start + END.len();
        let pem = format!("{}\n", &rest[start..end]);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad(error.to_string()))?;
        certificates.push(PemCertificate { number, pem, der });
        rest = &rest[end..];
    }
    if certificates.is_empty() {
        return Err(CertsError::NoCertificate { path: path.into(), hint: hint(&text, &bytes) });
    }
    Ok(certificates)
}

impl PemCertificate {
    /// The certificate's fields. `path` is for the message.
    ///
    /// # Errors
    /// It is no X.509 certificate.
    pub fn parse(&self, path: &Path) -> Result<X509Certificate<'_>, CertsError> {
        let bad = |reason| CertsError::BadCertificate { path: path.into(), number: self.number, reason };
        match x509_parser::parse_x509_certificate(&self.der) {
            Ok(([], certificate)) => Ok(certificate),
            Ok(_) => Err(bad("bytes follow its end".to_owned())),
            Err(error) => Err(bad(error.to_string())),
        }
    }
}

fn hint(text: &str, bytes: &[u8]) -> &'static str {
    if text.contains("PRIVATE KEY-----") {
        "; it holds a private key: name the certificate that belongs to it"
    } else if text.contains("-----BEGIN CERTIFICATE REQUEST-----") {
        "; it holds a certificate request, which an authority has yet to sign"
    } else if text.contains("-----BEGIN TRUSTED CERTIFICATE-----") {
        "; convert it: openssl x509 -in FILE -out FILE.crt"
    } else if bytes.starts_with(&[0x30, 0x82]) {
        "; it looks like DER: convert it: openssl x509 -inform DER -in FILE -out FILE.crt"
    } else {
        ""
    }
}
