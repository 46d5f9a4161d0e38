//! What a client's certificate says of it.

use evermq_config::broker::CertificateIdentity;
use evermq_daemon::proxy_protocol::Ssl;
use evermq_daemon::tls::{self, CertificateId, Revocations};
use rustls::pki_types::CertificateDer;

/// A certificate that was found good, here or at a load balancer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificate {
    /// The subject's common name.
    common_name: Option<Box<str>>,
    /// The whole subject (RFC 4514).
    subject: Option<Box<str>>,
    /// The first subjectAltName that is a URI.
    uri: Option<Box<str>>,
    /// The first one that is a DNS name.
    dns: Option<Box<str>>,
    /// What revocation lists call it and those that it chains to; where TLS ended at a load balancer, it alone, or nothing.
    chain: Box<[CertificateId]>,
    /// TLS ended at a load balancer, whose header has the common name and the subject, and not the certificate.
    is_told: bool,
}

/// Why a certificate is no user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nameless {
    /// It has no name of the wanted kind, or one that is no user name.
    Missing,
    /// Nobody says whether it has: TLS ended at a load balancer.
    Untold,
}

impl Certificate {
    /// Of a handshake that ended here; `chain` is what the client showed, its own certificate first.
    #[must_use]
    pub fn shown(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let own = chain.first()?;
        let boxed = |name: Option<String>| name.map(String::into_boxed_str);
        Some(Self {
            common_name: boxed(tls::common_name(own)),
            subject: boxed(tls::distinguished_name(own)),
            uri: boxed(tls::first_uri(own)),
            dns: boxed(tls::first_dns_name(own)),
            chain: chain.iter().filter_map(CertificateId::of).collect(),
            is_told: false,
        })
    }

    /// As a load balancer's header tells: by the certificate itself (`PP2_SUBTYPE_SSL_CLIENT_CERT`), else by its names.
    #[must_use]
    pub fn told(ssl: &Ssl) -> Self {
        let certificate = ssl.certificate.as_deref().map(CertificateDer::from);
        if let Some(certificate) = certificate.filter(|certificate| tls::distinguished_name(certificate).is_some())
            && let Some(shown) = Self::shown(&[certificate])
        {
            return shown;
        }
        Self { common_name: ssl.cn.clone(), subject: ssl.dn.clone(), is_told: true, ..Self::default() }
    }

    /// The user name that it stands for.
    ///
    /// # Errors
    /// It stands for none.
    pub fn user(&self, identity: CertificateIdentity) -> Result<&str, Nameless> {
        let (name, is_carried) = match identity {
            CertificateIdentity::CommonName => (&self.common_name, true),
            CertificateIdentity::Subject => (&self.subject, true),
            CertificateIdentity::SanUri => (&self.uri, false),
            CertificateIdentity::SanDns => (&self.dns, false),
        };
        match name.as_deref() {
            // A name that cannot stand in a packet or a line of a log is nobody's.
            Some(name) if !name.is_empty() && !name.chars().any(char::is_control) => Ok(name),
            _ if self.is_told && !is_carried => Err(Nameless::Untold),
            _ => Err(Nameless::Missing),
        }
    }

    /// The common name, for logs.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The whole subject, for logs.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Whether a list names it, or one that it chains to.
    #[must_use]
    pub fn is_revoked(&self, revocations: &Revocations) -> bool {
        self.chain.iter().any(|certificate| revocations.is_revoked(*certificate))
    }
}

/// What the cluster file calls it.
#[must_use]
pub const fn name_of(identity: CertificateIdentity) -> &'static str {
    match identity {
        CertificateIdentity::CommonName => "cn",
        CertificateIdentity::SanUri => "san_uri",
        CertificateIdentity::SanDns => "san_dns",
        CertificateIdentity::Subject => "subject",
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: Option<&str>, names: Vec<SanType>) -> Certificate {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names;
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::shown(&[der.der().clone()]).unwrap()
    }

    #[test]
    fn each_kind_of_name() {
        let names = vec![
            SanType::IpAddress([127, 0, 0, 1].into()),
            SanType::DnsName("d1.example".try_into().unwrap()),
            SanType::URI("urn:dev:1".try_into().unwrap()),
            SanType::URI("urn:dev:2".try_into().unwrap()),
        ];
        let full = certificate(Some("device 1"), names);
        for (identity, name) in [
            (CertificateIdentity::CommonName, "device 1"),
            (CertificateIdentity::SanUri, "urn:dev:1"),
            (CertificateIdentity::SanDns, "d1.example"),
            (CertificateIdentity::Subject, "CN=device 1"),
        ] {
            assert_eq!(full.user(identity), Ok(name), "{}", name_of(identity));
            assert_eq!(certificate(None, Vec::new()).user(identity), Err(Nameless::Missing), "{identity:?}");
        }
        assert_eq!(certificate(Some("a\nb"), Vec::new()).user(CertificateIdentity::CommonName), Err(Nameless::Missing));
    }

    #[test]
    fn a_load_balancer_tells_only_the_subject() {
        let ssl = Ssl { cn: Some("d".into()), dn: Some("CN=d,O=x".into()), ..Ssl::default() };
        let told = Certificate::told(&ssl);
        assert_eq!(told.user(CertificateIdentity::CommonName), Ok("d"));
        assert_eq!(told.user(CertificateIdentity::Subject), Ok("CN=d,O=x"));
        assert_eq!(told.user(CertificateIdentity::SanUri), Err(Nameless::Untold));
        assert_eq!(told.user(CertificateIdentity::SanDns), Err(Nameless::Untold));
        assert_eq!(Certificate::told(&Ssl::default()).user(CertificateIdentity::CommonName), Err(Nameless::Missing));
        // What is no certificate says nothing; its names do.
        let broken = Ssl { certificate: Some(Box::from(&b"0\x82\xFF"[..])), ..ssl };
        assert_eq!(Certificate::told(&broken), told);
    }

    #[test]
    fn a_load_balancer_that_tells_the_certificate_tells_everything() {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "real");
        params.subject_alt_names = vec![SanType::URI("urn:dev:7".try_into().unwrap())];
        let own = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let ssl = Ssl { cn: Some("other".into()), certificate: Some(own.der()[..].into()), ..Ssl::default() };
        let told = Certificate::told(&ssl);
        assert_eq!(told, Certificate::shown(&[own.der().clone()]).unwrap());
        assert_eq!(told.user(CertificateIdentity::SanUri), Ok("urn:dev:7"));
        assert_eq!(told.user(CertificateIdentity::SanDns), Err(Nameless::Missing), "it is known that there is none");
        assert_eq!(told.user(CertificateIdentity::CommonName), Ok("real"));
    }
}
