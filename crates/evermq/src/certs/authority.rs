//! The certificate authority: made here or elsewhere, it signs the certificates of hosts and clients.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;

use super::pem_file::{self, PemCertificate};
use super::{AltName, CertsError, ClientName};

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its subject as it stands in its certificate, which has to be each leaf's issuer byte for byte (RFC 5280 §7.1).
    subject: Vec<u8>,
    certificate: Box<Path>,
    not_after: OffsetDateTime,
    /// What follows each leaf in its file: nothing below a root, the authority's own certificate if it is an intermediate.
    chain: String,
    /// Its common name, where it is a root as this program makes them.
    own_make: Option<String>,
}

/// A new certificate and its private key, both as PEM.
pub struct Issued {
    /// The certificate, with the authority's behind it where that is an intermediate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// Whether that is earlier than asked for, because the authority ends then.
    pub shortened: bool,
}

/// A new certificate for a key that was there before.
pub struct Signed {
    /// As in [`Issued`].
    pub certificate: String,
    /// End of its validity.
    pub not_after: OffsetDateTime,
    /// Whether that is earlier than asked for, because the authority ends then.
    pub shortened: bool,
}

/// Whom a certificate is for.
pub enum Leaf<'a> {
    /// A host: other hosts and clients connect to it, and it connects to other hosts.
    Host {
        /// Its name, which becomes the common name.
        name: &'a str,
        /// Every name and address that it may be reached by.
        alt_names: &'a [AltName],
    },
    /// A client. It has no subject alternative name, because those are what a cluster host is known by.
    Client {
        /// Its name, which becomes the common name.
        name: &'a ClientName,
    },
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// Hosts whose clocks are behind by less than this accept a certificate at once.
const CLOCK_DIFFERENCE: Duration = Duration::hours(1);

impl Validity {
    /// `days` from `now` on.
    ///
    /// # Errors
    /// The end is beyond the year 9999, the last that a certificate can name.
    pub fn days(now: OffsetDateTime, days: u32) -> Result<Self, CertsError> {
        let not_after = now.checked_add(Duration::days(days.into())).ok_or(CertsError::TooLong { days })?;
        Ok(Self { not_before: now - CLOCK_DIFFERENCE, not_after })
    }
}

impl Authority {
    /// Makes a new root of that name. `certificate` is the file that it is going to be in, for messages.
    ///
    /// # Errors
    /// The cryptographic library or the system's randomness fails.
    pub fn generate(name: &str, validity: Validity, certificate: &Path) -> Result<(Self, Issued), CertsError> {
        let params = root_params(name, validity)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let root = params.self_signed(&key)?;
        let issued = Issued {
            certificate: root.pem(),
            key: key.serialize_pem(),
            not_after: validity.not_after,
            shortened: false,
        };
        let authority = Self {
            subject: issuer_of(root.der())?,
            certificate: certificate.into(),
            not_after: validity.not_after,
            chain: String::new(),
            own_make: Some(name.to_owned()),
            issuer: Issuer::new(params, key),
        };
        Ok((authority, issued))
    }

    /// Reads an authority, made here or elsewhere, from its PEM files.
    ///
    /// # Errors
    /// A file is missing or unreadable, they do not belong together, or the certificate must not sign others now.
    pub fn load(certificate: &Path, key: &Path, now: OffsetDateTime) -> Result<Self, CertsError> {
        let sections = pem_file::read(certificate).map_err(|error| missing_authority(error, certificate))?;
        let pair = load_key(key)?;
        let own = find_certificate_of(&pair, &sections, certificate)?
            .ok_or_else(|| CertsError::KeyOfAnother { certificate: certificate.into(), key: key.into() })?;
        let parsed = own.parse(certificate)?;
        let not_after = check_authority(&parsed, certificate, now)?;
        let chain = if parsed.subject().as_raw() == parsed.issuer().as_raw() { "" } else { own.pem.as_str() };
        let issuer = Issuer::from_ca_cert_der(&own.der, pair)
            .map_err(|_| CertsError::AuthorityName { path: certificate.into() })?;
        let subject = parsed.subject().as_raw().to_vec();
        let own_make = chain.is_empty().then(|| own_make(&parsed)).flatten();
        Ok(Self { issuer, subject, certificate: certificate.into(), not_after, chain: chain.to_owned(), own_make })
    }

    /// End of its own validity.
    #[must_use]
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether a certificate or a list, whose issuer's name this is, was signed by this authority.
    #[must_use]
    pub fn is_called(&self, issuer: &[u8]) -> bool {
        self.subject == issuer
    }

    /// The authority itself for a longer time: the same name and the same key, so that what it signed goes on to chain to it.
    ///
    /// # Errors
    /// It was not made by this program, whose parts only their maker knows to repeat.
    pub fn prolong(&self, validity: Validity) -> Result<Signed, CertsError> {
        let elsewhere = || CertsError::AuthorityMadeElsewhere { path: self.certificate.to_path_buf() };
        let name = self.own_make.as_deref().ok_or_else(elsewhere)?;
        let root = root_params(name, validity)?.self_signed(self.issuer.key())?;
        if issuer_of(root.der())? != self.subject {
            return Err(elsewhere());
        }
        Ok(Signed { certificate: root.pem(), not_after: validity.not_after, shortened: false })
    }

    /// Signs a revocation list.
    ///
    /// # Errors
    /// The authority must not sign lists, or the cryptographic library fails.
    pub fn sign_list(&self, list: &CertificateRevocationListParams) -> Result<String, CertsError> {
        match list.signed_by(&self.issuer).and_then(|list| list.pem()) {
            Ok(pem) => Ok(pem),
            Err(rcgen::Error::IssuerNotCrlSigner) => Err(CertsError::NotAnAuthority {
                path: self.certificate.to_path_buf(),
                reason: "its key usage lacks cRLSign, so nobody would believe its revocation list",
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a key and a certificate for it. It does not outlive the authority.
    ///
    /// # Errors
    /// The cryptographic library or the system's randomness fails, or the authority's name cannot be copied exactly.
    pub fn issue(&self, leaf: &Leaf<'_>, validity: Validity) -> Result<Issued, CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let Signed { certificate, not_after, shortened } = self.sign(leaf, validity, &key)?;
        Ok(Issued { certificate, key: key.serialize_pem(), not_after, shortened })
    }

    /// Makes a certificate for a public key. It does not outlive the authority.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn sign(
        &self,
        leaf: &Leaf<'_>,
        validity: Validity,
        public_key: &impl PublicKeyData,
    ) -> Result<Signed, CertsError> {
        let shortened = validity.not_after > self.not_after;
        let validity = Validity { not_after: validity.not_after.min(self.not_after), ..validity };
        let mut params = params(leaf.name(), validity)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match leaf {
            Leaf::Host { alt_names, .. } => {
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
                params.subject_alt_names = alt_names.iter().map(san).collect::<Result<_, _>>()?;
            }
            Leaf::Client { .. } => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        }
        let certificate = params.signed_by(public_key, &self.issuer)?;
        if issuer_of(certificate.der())? != self.subject {
            return Err(CertsError::AuthorityName { path: self.certificate.to_path_buf() });
        }
        Ok(Signed { certificate: certificate.pem() + &self.chain, not_after: validity.not_after, shortened })
    }
}

impl Leaf<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Host { name, .. } => name,
            Self::Client { name } => name.as_str(),
        }
    }
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

fn root_params(name: &str, validity: Validity) -> Result<CertificateParams, CertsError> {
    let mut params = params(name, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The common name of a root that is as [`root_params`] makes it.
fn own_make(parsed: &X509Certificate<'_>) -> Option<String> {
    let constraints = parsed.basic_constraints().ok()??.value;
    let mut parts = parsed.subject().iter_attributes();
    let name = parts.next()?;
    let only_name = parts.next().is_none() && parsed.subject().iter_common_name().count() == 1;
    (only_name && constraints.path_len_constraint == Some(0)).then(|| name.as_str().ok().map(str::to_owned)).flatten()
}

/// 126 random bits: positive, never zero, well under 20 bytes (RFC 5280 §4.1.2.2).
fn random_serial() -> Result<SerialNumber, CertsError> {
    let mut serial = [0; 16];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut serial).map_err(|_| CertsError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

fn san(name: &AltName) -> Result<SanType, CertsError> {
    Ok(match name.as_server_name() {
        ServerName::IpAddress(address) => SanType::IpAddress(IpAddr::from(*address)),
        other => SanType::DnsName(other.to_str().as_ref().try_into()?),
    })
}

fn issuer_of(der: &[u8]) -> Result<Vec<u8>, CertsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
    Ok(parsed.issuer().as_raw().to_vec())
}

fn load_key(path: &Path) -> Result<KeyPair, CertsError> {
    let pem =
        fs::read(path).map_err(|source| missing_authority(CertsError::Read { path: path.into(), source }, path))?;
    let key = match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => key,
        Err(_) if is_encrypted(&pem) => return Err(CertsError::EncryptedKey { path: path.into() }),
        Err(source) => return Err(CertsError::NoKey { path: path.into(), source }),
    };
    // Traditional encryption (RFC 1421 headers inside "EC PRIVATE KEY") parses as PEM, but its bytes are no key.
    KeyPair::try_from(&key).map_err(|source| {
        if is_encrypted(&pem) {
            CertsError::EncryptedKey { path: path.into() }
        } else {
            CertsError::BadKey { path: path.into(), source }
        }
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

fn missing_authority(error: CertsError, path: &Path) -> CertsError {
    match error {
        CertsError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            CertsError::NoAuthority { path: path.into() }
        }
        other => other,
    }
}

/// A file may hold several authorities, as trust stores do: the key says which one signs.
fn find_certificate_of<'a>(
    key: &KeyPair,
    sections: &'a [PemCertificate],
    path: &Path,
) -> Result<Option<&'a PemCertificate>, CertsError> {
    for section in sections {
        if *section.parse(path)?.public_key().subject_public_key.data == *key.public_key_raw() {
            return Ok(Some(section));
        }
    }
    Ok(None)
}

/// RFC 5280 §6.1.4 (k), (n): what a certificate needs to sign others. Gives the end of its validity.
fn check_authority(
    parsed: &X509Certificate<'_>,
    path: &Path,
    now: OffsetDateTime,
) -> Result<OffsetDateTime, CertsError> {
    let refuse = |reason| Err(CertsError::NotAnAuthority { path: path.into(), reason });
    if !parsed.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca) {
        return refuse("its basic constraints do not say CA:TRUE");
    }
    match parsed.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => return refuse("its key usage lacks keyCertSign"),
        Err(_) => return refuse("its key usage stands twice or cannot be read"),
        Ok(_) => {}
    }
    let (not_before, not_after) =
        (parsed.validity().not_before.to_datetime(), parsed.validity().not_after.to_datetime());
    if now < not_before || now >= not_after {
        return Err(CertsError::AuthorityNotValid { path: path.into(), not_before, not_after });
    }
    Ok(not_after)
}
