//! The files that `[tls]` names: there, readable, belonging together, made for the host, signed by the CA, in their time.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use crate::cluster::{Cluster, Host, Tls};
use crate::report::{Problem, Severity};

/// A certificate that ends within this is warned of.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Every problem of the certificate files of `hosts`, as `now` finds them.
#[must_use]
pub fn check(cluster: &Cluster, hosts: &[&Host], now: SystemTime) -> Vec<Problem> {
    let mut found = Found { tls: &cluster.tls, problems: Vec::new() };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ca = read_ca(&mut found, now);
    for host in hosts {
        check_host(&mut found, host, ca.as_ref(), now);
    }
    found.problems.dedup();
    found.problems
}

struct Found<'a> {
    tls: &'a Tls,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, severity: Severity, key: &str, path: &Path, message: String, help: String) {
        self.problems.push(Problem {
            severity,
            file: self.tls.file.clone(),
            place: self.tls.places.get(key).cloned(),
            text: path.display().to_string(),
            message,
            help,
        });
    }

    fn error(&mut self, key: &str, path: &Path, message: String, help: &str) {
        self.add(Severity::Error, key, path, message, help.to_owned());
    }

    /// All certificates of a file; none, with a problem noted, where there is no usable one.
    fn certificates(&mut self, key: &str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(certificates) if !certificates.is_empty() => Some(certificates),
            Ok(_) => {
                self.error(
                    key,
                    path,
                    format!("{} holds no certificate", path.display()),
                    "put a PEM file there (-----BEGIN CERTIFICATE-----)",
                );
                None
            }
            Err(error) => {
                self.error(
                    key,
                    path,
                    format!("cannot read {}: {}", path.display(), unreadable(&error)),
                    unreadable_help(&error),
                );
                None
            }
        }
    }

    /// Notes a certificate that is not in its time, or not for long.
    fn validity(&mut self, key: &str, path: &Path, certificate: &CertificateDer<'_>, now: Duration) {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            self.error(
                key,
                path,
                format!("{} holds a certificate that is not X.509", path.display()),
                "make it anew with `evermq certs`",
            );
            return;
        };
        let validity = parsed.validity();
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        let (begin, end) = (seconds(validity.not_before), seconds(validity.not_after));
        let now = now.as_secs();
        if now > end {
            self.error(
                key,
                path,
                format!("{} expired on {}", path.display(), validity.not_after),
                "make a new one with `evermq certs`, or let your CA renew it",
            );
        } else if now < begin {
            self.error(
                key,
                path,
                format!("{} is valid only from {}", path.display(), validity.not_before),
                "check this machine's clock, then the certificate",
            );
        } else if end - now < SOON.as_secs() {
            self.add(
                Severity::Warning,
                key,
                path,
                format!("{} expires in {} days, on {}", path.display(), (end - now) / 86_400, validity.not_after),
                "renew it now".to_owned(),
            );
        }
    }
}

fn unreadable(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn unreadable_help(error: &rustls::pki_types::pem::Error) -> &'static str {
    match error {
        rustls::pki_types::pem::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "make it with `evermq certs`, or correct the path ({host} stands for the host's name)"
        }
        rustls::pki_types::pem::Error::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            "let this user read it: chown root:evermq and chmod 0640, as a rule"
        }
        _ => "it must be a PEM file",
    }
}

/// The CA: both verifiers, for the host's certificate serves in both directions.
struct Ca {
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
}

fn read_ca(found: &mut Found<'_>, now: Duration) -> Option<Ca> {
    let path = found.tls.ca.clone();
    let certificates = found.certificates("ca", &path)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        found.validity("ca", &path, &certificate, now);
        if let Err(error) = roots.add(certificate) {
            found.error(
                "ca",
                &path,
                format!("{} cannot serve as CA: {error}", path.display()),
                "put the CA's own certificate there",
            );
            return None;
        }
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
    let server = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build().ok()?;
    let client = WebPkiClientVerifier::builder_with_provider(roots, provider).build().ok()?;
    Some(Ca { server, client })
}

fn check_host(found: &mut Found<'_>, host: &Host, ca: Option<&Ca>, now: Duration) {
    let files = found.tls.for_host(&host.name);
    let chain = found.certificates("cert", &files.cert);
    let key = read_key(found, &files.key);
    let Some(chain) = chain else { return };
    found.validity("cert", &files.cert, &chain[0], now);
    if let Some(key) = key {
        let provider = aws_lc_rs::default_provider();
        if let Err(error) = CertifiedKey::from_der(chain.clone(), key, &provider) {
            let message = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("{} is not the key of {}", files.key.display(), files.cert.display())
                }
                other => format!("{} cannot be used: {other}", files.key.display()),
            };
            found.error("key", &files.key, message, "put certificate and key of one and the same pair there");
        }
    }
    if let Some(ca) = ca {
        check_trust(found, host, &files.cert, &chain, ca, now);
    }
}

fn read_key(found: &mut Found<'_>, path: &Path) -> Option<PrivateKeyDer<'static>> {
    match PrivateKeyDer::from_pem_file(path) {
        Ok(key) => {
            let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
            if mode & 0o007 != 0 {
                found.add(
                    Severity::Warning,
                    "key",
                    path,
                    format!(
                        "{} can be read by every user of this machine (mode {:04o})",
                        path.display(),
                        mode & 0o7777
                    ),
                    format!("chmod 0600 {}", path.display()),
                );
            }
            Some(key)
        }
        Err(error) => {
            found.error(
                "key",
                path,
                format!("cannot read {}: {}", path.display(), unreadable(&error)),
                unreadable_help(&error),
            );
            None
        }
    }
}

/// Signed by the CA, for this host's name or address, usable as server and as client.
fn check_trust(found: &mut Found<'_>, host: &Host, path: &Path, chain: &[CertificateDer<'_>], ca: &Ca, now: Duration) {
    let now = UnixTime::since_unix_epoch(now);
    let (leaf, rest) = (&chain[0], &chain[1..]);
    let address = ServerName::IpAddress(IpAddr::V4(host.address).into());
    let name = ServerName::try_from(host.name.as_str()).expect("a host name is a DNS label");
    let by_name = ca.server.verify_server_cert(leaf, rest, &name, &[], now);
    let verdict = by_name.or_else(|_| ca.server.verify_server_cert(leaf, rest, &address, &[], now)).map(|_| ());
    let verdict = verdict.and_then(|()| ca.client.verify_client_cert(leaf, rest, now).map(|_| ()));
    let show = path.display();
    let (message, help) = match verdict {
        // Validity in time has a message of its own.
        Ok(())
        | Err(rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => return,
        Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => (
            format!("{show} is not a certificate of host \"{}\" ({})", host.name, host.address),
            "its subject alternative names must hold the host's name or its address",
        ),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        )) => (
            format!("{show} lacks a key usage"),
            "a host's certificate needs serverAuth and clientAuth in its extended key usage, or no such extension",
        ),
        Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => (
            format!("{show} is not signed by the CA in {}", found.tls.ca.display()),
            "put the CA there that signed it, with intermediates in the host's file",
        ),
        Err(error) => (format!("{show} is refused: {error}"), "make it anew with `evermq certs`"),
    };
    found.error("cert", path, message, help);
}
