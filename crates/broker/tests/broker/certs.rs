//! Certificates made for each run.

use std::path::{Path, PathBuf};

use evermq_config::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use time::{Duration, OffsetDateTime};

/// A certificate authority and its files.
pub(crate) struct Ca {
    directory: PathBuf,
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new(directory: &Path, name: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let ca = Self { directory: directory.to_owned(), name, issuer: Issuer::new(params.clone(), key) };
        std::fs::write(ca.path("crt"), params.self_signed(ca.issuer.key()).unwrap().pem()).unwrap();
        ca
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.name))
    }

    /// A certificate for `name`, valid until `days` from now.
    pub(crate) fn issue(&self, name: &str, days: i64) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![
            SanType::DnsName(name.try_into().unwrap()),
            SanType::DnsName("localhost".try_into().unwrap()),
            SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()),
        ];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - Duration::days(30);
        params.not_after = now + Duration::days(days);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |suffix: &str, text: String| {
            let path = self.directory.join(format!("{}-{name}.{suffix}", self.name));
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles { ca: self.path("crt"), cert: write("crt", certificate.pem()), key: write("key", key.serialize_pem()) }
    }
}
