//! The same certificates for a longer time: same names, same uses, and a new key unless the old one is to stay.

use std::fs;
use std::path::{Path, PathBuf};

use evermq_config::Cluster;
use rcgen::SubjectPublicKeyInfo;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::authority::{Authority, Leaf, Validity};
use super::make::Hosts;
use super::pem_file;
use super::replace::{Replacement, put_away};
use super::{AltName, CertsError, ClientName};

/// Where certificates go that others have taken the place of: they still count, and are found there to be revoked.
pub const REPLACED: &str = "replaced";

/// What to renew, and how.
pub struct Renewal<'a> {
    /// Where the certificates are.
    pub dir: &'a Path,
    /// The authority's certificate, which is not one of them.
    pub ca_cert: &'a Path,
    /// Who signs.
    pub authority: &'a Authority,
    /// From when to when.
    pub validity: Validity,
    /// Whose hosts' names and addresses, as they are now, go in beside those that were there.
    pub cluster: Option<&'a Cluster>,
    /// Whether keys stay, of those too whose key is here.
    pub keep_keys: bool,
    /// The wall clock.
    pub now: OffsetDateTime,
}

/// A certificate that was renewed.
#[derive(Debug)]
pub struct Renewed {
    /// Its file.
    pub certificate: PathBuf,
    /// End of the old one's time.
    pub ended: OffsetDateTime,
    /// End of the new one's.
    pub not_after: OffsetDateTime,
    /// Whether that is earlier than asked for, because the authority ends then.
    pub shortened: bool,
    /// Whether it has a new key.
    pub new_key: bool,
}

/// A certificate that was looked at and stays.
#[derive(Debug)]
pub struct Left {
    /// Its file.
    pub certificate: PathBuf,
    /// End of its time.
    pub not_after: OffsetDateTime,
    /// Why, where that is not because there is time.
    pub reason: Option<CertsError>,
}

impl Renewal<'_> {
    /// Renews those that are named.
    ///
    /// # Errors
    /// One of them is not there or was not made here, or the disk refuses. Those before it are renewed.
    pub fn named(&self, names: &[ClientName]) -> Result<Vec<Renewed>, CertsError> {
        names.iter().map(|name| self.renew(&self.dir.join(format!("{name}.crt")))).collect()
    }

    /// Renews every certificate of the directory that ends before `until`, and says which ones stay.
    ///
    /// # Errors
    /// A certificate cannot be read, or the disk refuses. Those before it are renewed.
    pub fn ending(&self, until: OffsetDateTime) -> Result<(Vec<Renewed>, Vec<Left>), CertsError> {
        let (mut renewed, mut left) = (Vec::new(), Vec::new());
        for certificate in self.certificates()? {
            let not_after = pem_file::read(&certificate)?[0].parse(&certificate)?.validity().not_after.to_datetime();
            if not_after >= until {
                left.push(Left { certificate, not_after, reason: None });
                continue;
            }
            match self.renew(&certificate) {
                Ok(done) => renewed.push(done),
                Err(reason @ (CertsError::OtherIssuer { .. } | CertsError::MadeElsewhere { .. })) => {
                    left.push(Left { certificate, not_after, reason: Some(reason) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok((renewed, left))
    }

    /// `*.crt` but for the authority's, in the order of their names.
    fn certificates(&self) -> Result<Vec<PathBuf>, CertsError> {
        let unreadable = |source| CertsError::Read { path: self.dir.to_owned(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let is_authority = path.file_name() == Some("ca.crt".as_ref()) || path == self.ca_cert;
            if !hidden && !is_authority && path.extension() == Some("crt".as_ref()) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn renew(&self, path: &Path) -> Result<Renewed, CertsError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.symlink_metadata().is_err() {
            return Err(CertsError::NothingOf { name, dir: self.dir.to_owned() });
        }
        let old = &pem_file::read(path)?[0];
        let parsed = old.parse(path)?;
        let old_names = Names::of(&parsed, path, self.authority)?;
        let names = self.names(old_names)?;
        let key = path.with_extension("key");
        let new_key = !self.keep_keys && key.exists();
        let mut files = Replacement::default();
        let (certificate, not_after, shortened) = if new_key {
            let issued = self.authority.issue(&names.leaf(), self.validity)?;
            // The key first: a program that reads the pair in between refuses it and goes on with what it has.
            files.key(key, issued.key);
            (issued.certificate, issued.not_after, issued.shortened)
        } else {
            let public_key = SubjectPublicKeyInfo::from_der(parsed.public_key().raw)?;
            let signed = self.authority.sign(&names.leaf(), self.validity, &public_key)?;
            (signed.certificate, signed.not_after, signed.shortened)
        };
        let replaced = self.dir.join(REPLACED);
        super::files::make_dir(&replaced)?;
        files.public(replaced.join(format!("{name}-{}.crt", serial_text(parsed.raw_serial()))), old.pem.clone());
        files.public(path.to_owned(), certificate);
        files.write()?;
        let ended = parsed.validity().not_after.to_datetime();
        Ok(Renewed { certificate: path.to_owned(), ended, not_after, shortened, new_key })
    }

    fn names(&self, mut old: Names) -> Result<Names, CertsError> {
        let Names::Host { name, alt_names } = &mut old else { return Ok(old) };
        let named = |host: &&evermq_config::cluster::Host| host.name.as_str() == name;
        if let Some((cluster, host)) =
            self.cluster.and_then(|cluster| Some((cluster, cluster.hosts.iter().find(named)?)))
        {
            for wanted in (Hosts { cluster, only: &[], alt_names: &[] }).alt_names_of(host)? {
                if !alt_names.contains(&wanted) {
                    alt_names.push(wanted);
                }
            }
        }
        Ok(old)
    }
}

/// Prolongs the authority itself.
///
/// # Errors
/// It was not made here, or the disk refuses.
pub fn authority(ca_cert: &Path, authority: &Authority, validity: Validity) -> Result<Renewed, CertsError> {
    let signed = authority.prolong(validity)?;
    let mut files = Replacement::default();
    files.public(ca_cert.to_owned(), signed.certificate);
    files.write()?;
    Ok(Renewed {
        certificate: ca_cert.to_owned(),
        ended: authority.not_after(),
        not_after: signed.not_after,
        shortened: false,
        new_key: false,
    })
}

/// Moves a revoked certificate, and its key, out of the way of a new one of the same name.
///
/// # Errors
/// The file system refuses.
pub fn retire(dir: &Path, name: &str, serial: &[u8]) -> Result<(), CertsError> {
    for extension in ["crt", "key"] {
        let path = dir.join(format!("{name}.{extension}"));
        if path.symlink_metadata().is_ok() {
            put_away(&path, &dir.join("revoked"), &format!("{name}-{}.{extension}", serial_text(serial)))?;
        }
    }
    Ok(())
}

/// A serial number as `evermq certs show` and openssl have it, without colons.
#[must_use]
pub fn serial_text(serial: &[u8]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whom a certificate is for, in the way in which this program makes them.
enum Names {
    Host { name: String, alt_names: Vec<AltName> },
    Client(ClientName),
}

impl Names {
    fn of(parsed: &X509Certificate<'_>, path: &Path, authority: &Authority) -> Result<Self, CertsError> {
        if !authority.is_called(parsed.issuer().as_raw()) {
            return Err(CertsError::OtherIssuer { path: path.to_owned(), issuer: parsed.issuer().to_string() });
        }
        let elsewhere = |reason: String| CertsError::MadeElsewhere { path: path.to_owned(), reason };
        let mut parts = parsed.subject().iter_attributes();
        let name = match (parts.next(), parts.next(), parsed.subject().iter_common_name().count()) {
            (Some(name), None, 1) => name.as_str().ok().map(str::to_owned),
            _ => None,
        };
        let name = name.ok_or_else(|| elsewhere(format!("its subject is {}, not a common name", parsed.subject())))?;
        let serves = parsed.extended_key_usage().ok().flatten().is_none_or(|usage| usage.value.server_auth);
        let alt_names = alt_names(parsed).map_err(elsewhere)?;
        if serves {
            return Ok(Self::Host { name, alt_names });
        }
        if !alt_names.is_empty() {
            return Err(elsewhere("a client's certificate with subject alternative names is not made here".to_owned()));
        }
        Ok(Self::Client(name.parse().map_err(elsewhere)?))
    }

    fn leaf(&self) -> Leaf<'_> {
        match self {
            Self::Host { name, alt_names } => Leaf::Host { name, alt_names },
            Self::Client(name) => Leaf::Client { name },
        }
    }
}

fn alt_names(parsed: &X509Certificate<'_>) -> Result<Vec<AltName>, String> {
    let Some(extension) = parsed.subject_alternative_name().map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let address = |octets: &[u8]| match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(|octets| AltName::from(std::net::IpAddr::from(octets))),
        _ => <[u8; 16]>::try_from(octets).ok().map(|octets| AltName::from(std::net::IpAddr::from(octets))),
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => name.parse().ok(),
        GeneralName::IPAddress(octets) => address(octets),
        _ => None,
    };
    let other = |other: &GeneralName<'_>| format!("its subject alternative name {other} is of a kind not made here");
    extension.value.general_names.iter().map(|general| name(general).ok_or_else(|| other(general))).collect()
}
