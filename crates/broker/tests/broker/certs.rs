//! Certificates made for each run.

use std::path::{Path, PathBuf};

use evermq_config::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType,
};
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
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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
        self.issue_as(name, days, |_| {})
    }

    /// The same with something else in it.
    pub(crate) fn issue_as(&self, name: &str, days: i64, change: impl FnOnce(&mut CertificateParams)) -> TlsFiles {
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
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let write = |suffix: &str, text: String| {
            let path = self.directory.join(format!("{}-{name}.{suffix}", self.name));
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles { ca: self.path("crt"), cert: write("crt", certificate.pem()), key: write("key", key.serialize_pem()) }
    }

    /// A list of revoked certificates, by their serial numbers, valid until `days` from now.
    pub(crate) fn revoke(&self, file: &str, serials: &[u64], days: i64) -> PathBuf {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::days(30),
            next_update: now + Duration::days(days),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.directory.join(file);
        std::fs::write(&path, params.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        path
    }
}
