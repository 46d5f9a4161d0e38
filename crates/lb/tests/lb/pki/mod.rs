//! Certificates of every kind that a listener which ends TLS may meet, and both ends of a connection in memory.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evermq_config::LbConfig;
use evermq_lb::tls::{Output, ServerSide, Session as _, Terminator, TlsFault};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// An authority and what it has signed, in a directory of its own.
pub(crate) struct Pki {
    directory: tempfile::TempDir,
    ca: Issuer<'static, KeyPair>,
}

/// How a certificate differs from the usual.
#[derive(Default, Clone, Copy)]
pub(crate) struct Odd {
    pub(crate) rsa: bool,
    pub(crate) expired: bool,
    /// Its serial number, where the test has to know it.
    pub(crate) serial: Option<u64>,
}

impl Pki {
    /// `ca.crt`, certificates of `lb1` and `client`, `ticket.key`.
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("evermq-lb-pki").tempdir().unwrap();
        let (ca, pem) = authority("test CA");
        let pki = Self { directory, ca };
        pki.write("ca.crt", &pem);
        pki.issue("lb1", &["lb1", "127.0.0.1"], Odd::default());
        pki.issue("client", &[], Odd::default());
        pki.write("ticket.key", &"5a".repeat(32));
        pki
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn write(&self, file: &str, contents: &str) {
        fs::write(self.path(file), contents).unwrap();
        fs::set_permissions(self.path(file), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// `NAME.crt` and `NAME.key`.
    pub(crate) fn issue(&self, name: &str, names: &[&str], odd: Odd) {
        self.issue_by(&self.ca, name, names, odd);
    }

    /// The same by an authority that nobody knows.
    pub(crate) fn issue_by_a_stranger(&self, name: &str) {
        self.issue_by(&authority("test CA").0, name, &[], Odd::default());
    }

    fn issue_by(&self, ca: &Issuer<'static, KeyPair>, name: &str, names: &[&str], odd: Odd) {
        let key = KeyPair::generate_for(if odd.rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 }).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "plant");
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = odd.serial.map(SerialNumber::from);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(4000, 1, 1));
        if odd.expired {
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        self.write(&format!("{name}.crt"), &params.signed_by(&key, ca).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// `ca.crl`, which revokes these serial numbers.
    pub(crate) fn revoke(&self, serials: &[u64], next_update: (i32, u8, u8)) {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2021, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2021, 1, 1),
            next_update: date_time_ymd(next_update.0, next_update.1, next_update.2),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write("ca.crl", &params.signed_by(&self.ca).unwrap().pem().unwrap());
    }

    /// A cluster file, with more lines for `[lb]` and more sections. `PKI` stands for the directory.
    pub(crate) fn file(&self, lb: &str, sections: &str) -> String {
        let mut file = "[cluster]\nname = \"test\"\nrun_dir = \"PKI\"\n\
             [tls]\nca = \"PKI/ca.crt\"\ncert = \"PKI/{host}.crt\"\nkey = \"PKI/{host}.key\"\n\
             [broker]\nlisten_proxy = \"0.0.0.0:8885\"\n[lb]\nticket_key = \"PKI/ticket.key\"\n"
            .to_owned();
        for (key, usual) in [("listen =", "127.0.0.1:9000"), ("mode =", "terminate")] {
            if !lb.contains(key) {
                let _ = writeln!(file, "{key} \"{usual}\"");
            }
        }
        let _ = write!(
            file,
            "{lb}\n{sections}\n[[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n\
             [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.10\"\nroles = [\"broker\"]\n"
        );
        file.replace("PKI", self.directory.path().to_str().unwrap())
    }

    /// The configuration of `lb1` by such a file.
    pub(crate) fn config(&self, lb: &str, sections: &str) -> LbConfig {
        let loaded = evermq_config::parse(Path::new("/test.toml"), &self.file(lb, sections))
            .unwrap_or_else(|report| panic!("{report}"));
        loaded.cluster.lb_for("lb1").unwrap()
    }

    pub(crate) fn terminator(&self, lb: &str) -> Terminator {
        Terminator::load(&self.config(lb, "")).unwrap()
    }

    /// A client with the certificate of that name, or none; of both versions.
    pub(crate) fn client(&self, certificate: Option<&str>) -> ClientConfig {
        self.client_of(certificate, rustls::ALL_VERSIONS)
    }

    pub(crate) fn client_of(
        &self,
        certificate: Option<&str>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.crt")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        }
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn san(name: &str) -> SanType {
    name.parse().map_or_else(|_| SanType::DnsName(name.try_into().unwrap()), SanType::IpAddress)
}

/// A client and the lb, with the wire between them.
pub(crate) struct Wire {
    pub(crate) client: ClientConnection,
    pub(crate) server: ServerSide,
    /// What has been presented to the server and is not done with.
    pub(crate) kept: Vec<u8>,
    pub(crate) plain: Output,
    pub(crate) out: Output,
    /// The greatest piece that the server gets at once.
    pub(crate) piece: usize,
    pub(crate) handshaken: bool,
    pub(crate) closed: bool,
}

impl Wire {
    pub(crate) fn new(client: &ClientConfig, name: &str, terminator: &Terminator) -> Self {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self {
            client: ClientConnection::new(Arc::new(client.clone()), name).unwrap(),
            server: terminator.accept().unwrap(),
            kept: Vec::new(),
            plain: Output::default(),
            out: Output::default(),
            piece: usize::MAX,
            handshaken: false,
            closed: false,
        }
    }

    /// Carries everything both ways until nobody has anything to say.
    pub(crate) fn pump(&mut self) -> Result<(), TlsFault> {
        loop {
            let mut sent = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut sent).unwrap();
            }
            let idle = sent.is_empty() && self.out.is_empty();
            let result = self.carry(&sent);
            let mut answer = self.out.as_slice();
            while !answer.is_empty() {
                self.client.read_tls(&mut answer).unwrap();
                // What the client thinks of it shows on its side.
                let _ = self.client.process_new_packets();
            }
            self.out.clear();
            result?;
            if idle {
                return Ok(());
            }
        }
    }

    /// In pieces.
    pub(crate) fn carry(&mut self, bytes: &[u8]) -> Result<(), TlsFault> {
        for piece in bytes.chunks(self.piece) {
            self.kept.extend_from_slice(piece);
            let received = self.server.receive(&mut self.kept, &mut self.plain, &mut self.out)?;
            self.handshaken |= received.handshaken;
            self.closed |= received.closed;
            self.kept.drain(..received.consumed);
        }
        Ok(())
    }

    pub(crate) fn handshake(&mut self) -> Result<(), TlsFault> {
        self.pump()?;
        assert!(self.handshaken && !self.client.is_handshaking(), "the handshake is stuck");
        Ok(())
    }

    pub(crate) fn resumed(&self) -> bool {
        self.client.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}
