//! `evermq certs show`: what certificates say, in a line each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{CertsError, date, pem_file};
use crate::table::Table;

/// What one certificate says.
#[derive(Debug, Serialize)]
pub struct Description {
    /// The file that it is in.
    pub file: PathBuf,
    /// Its subject.
    pub subject: String,
    /// Its subject alternative names.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub authority: bool,
    /// Its extended key usages; empty where it has no such extension, which allows every use.
    pub usages: Vec<String>,
    /// Kind of its public key.
    pub key: String,
    /// Subject of the authority that signed it.
    pub issuer: String,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// Start of its validity, RFC 3339.
    pub not_before: String,
    /// End of its validity, RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative when it is over.
    pub days_left: i64,
    #[serde(skip)]
    validity: Validity,
}

#[derive(Debug)]
struct Validity {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    now: OffsetDateTime,
}

/// Describes every certificate in `files`.
///
/// # Errors
/// A file cannot be read or holds no certificate.
pub fn describe(files: &[PathBuf], now: OffsetDateTime) -> Result<Vec<Description>, CertsError> {
    let mut all = Vec::new();
    for file in files {
        for section in pem_file::read(file)? {
            all.push(Description::new(file, &section.parse(file)?, now));
        }
    }
    Ok(all)
}

/// A line for each certificate.
#[must_use]
pub fn table(certificates: &[Description]) -> Table {
    let mut table = Table::titled(&["FILE", "SUBJECT", "NAMES", "USE", "VALID", "KEY", "ISSUER"]);
    for certificate in certificates {
        let names = if certificate.names.is_empty() { "-".to_owned() } else { certificate.names.join(", ") };
        table.row([
            &certificate.file.display().to_string(),
            &certificate.subject,
            &names,
            &certificate.uses(),
            &certificate.validity.to_string(),
            &certificate.key,
            &certificate.issuer,
        ]);
    }
    table
}

impl Description {
    fn new(file: &Path, parsed: &X509Certificate<'_>, now: OffsetDateTime) -> Self {
        let (not_before, not_after) = (parsed.validity().not_before, parsed.validity().not_after);
        Self {
            file: file.to_owned(),
            subject: parsed.subject().to_string(),
            names: alt_names(parsed),
            authority: parsed.is_ca(),
            usages: usages(parsed),
            key: key_kind(parsed.public_key()),
            issuer: parsed.issuer().to_string(),
            serial: parsed.raw_serial_as_string(),
            not_before: rfc3339(not_before),
            not_after: rfc3339(not_after),
            days_left: (not_after.to_datetime() - now).whole_days(),
            validity: Validity { not_before: not_before.to_datetime(), not_after: not_after.to_datetime(), now },
        }
    }

    fn uses(&self) -> String {
        if self.authority {
            "authority".to_owned()
        } else if self.usages.is_empty() {
            "any".to_owned()
        } else {
            self.usages.join(", ")
        }
    }
}

impl std::fmt::Display for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (now, end) = (self.now, date(self.not_after));
        if now < self.not_before {
            write!(f, "NOT YET, from {}", date(self.not_before))
        } else if now >= self.not_after {
            write!(f, "EXPIRED {} ago, on {end}", days((now - self.not_after).whole_days()))
        } else {
            write!(f, "{} left, until {end}", days((self.not_after - now).whole_days()))
        }
    }
}

fn days(count: i64) -> String {
    if count == 1 { "1 day".to_owned() } else { format!("{count} days") }
}

fn rfc3339(time: ASN1Time) -> String {
    let time = time.to_datetime();
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_else(|_| date(time))
}

fn alt_names(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => (*name).to_owned(),
        GeneralName::IPAddress(octets) => address(octets),
        GeneralName::DirectoryName(name) => name.to_string(),
        other => other.to_string(),
    };
    extension.value.general_names.iter().map(name).collect()
}

fn address(octets: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        IpAddr::from(octets).to_string()
    } else if let Ok(octets) = <[u8; 16]>::try_from(octets) {
        IpAddr::from(octets).to_string()
    } else {
        format!("malformed address of {} bytes", octets.len())
    }
}

fn usages(parsed: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = parsed.extended_key_usage() else { return Vec::new() };
    let usage = extension.value;
    let known = [
        (usage.any, "any"),
        (usage.server_auth, "server"),
        (usage.client_auth, "client"),
        (usage.code_signing, "code signing"),
        (usage.email_protection, "email"),
        (usage.time_stamping, "time stamping"),
        (usage.ocsp_signing, "OCSP signing"),
    ];
    let known = known.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned());
    known.chain(usage.other.iter().map(Oid::to_id_string)).collect()
}

fn key_kind(key: &SubjectPublicKeyInfo<'_>) -> String {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => format!("RSA {}", rsa.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => "ECDSA P-256".to_owned(),
                Some("1.3.132.0.34") => "ECDSA P-384".to_owned(),
                Some("1.3.132.0.35") => "ECDSA P-521".to_owned(),
                Some(other) => format!("EC on curve {other}"),
                None => "EC".to_owned(),
            }
        }
        _ => match key.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".to_owned(),
            "1.3.101.113" => "Ed448".to_owned(),
            other => other.to_owned(),
        },
    }
}
