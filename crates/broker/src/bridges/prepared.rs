//! A bridge with all that its entry in the cluster file names.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use evermq_config::BridgeConfig;
use evermq_config::bridges::{Bridge, BridgeTls};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::forwarded::Forwarded;
use super::topics::Topics;

/// Everything that a bridge needs.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its entry.
    pub config: BridgeConfig,
    /// Its topics.
    pub topics: Topics,
    /// None for plain TCP.
    pub tls: Option<Arc<ClientConfig>>,
    /// What its other hosts have passed on.
    pub(super) forwarded: Arc<Forwarded>,
    /// Never shown.
    pub(super) password: Option<Secret>,
    /// What its files hold, as far as it matters whether they have changed.
    files: u64,
}

/// A password.
#[derive(Clone)]
pub(super) struct Secret(pub(super) Bytes);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Why a bridge's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A file is missing, unreadable, or holds no PEM of the wanted kind.
    #[error("bridge \"{bridge}\": cannot read {what} from {path}: {reason}; put it there in PEM", path = path.display())]
    Pem {
        /// The bridge.
        bridge: String,
        /// What was wanted.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The password file.
    #[error("bridge \"{bridge}\": cannot read the password from {path}: {reason}; put it there, alone, readable for the broker's user", path = path.display())]
    Password {
        /// The bridge.
        bridge: String,
        /// Where.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Certificate and key, or the CA.
    #[error(
        "bridge \"{bridge}\": its certificates cannot be used: {source}; `openssl x509 -in FILE -text` shows what they are"
    )]
    Tls {
        /// The bridge.
        bridge: String,
        /// Why not.
        source: rustls::Error,
    },
}

impl Prepared {
    /// Reads the files that the entry names.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub fn load(config: &BridgeConfig) -> Result<Self, PrepareError> {
        let bridge = &config.bridge;
        let tls = bridge.tls.as_ref().map(|tls| client_config(&bridge.name, tls)).transpose()?;
        let password = bridge.password_file.as_deref().map(|path| password(&bridge.name, path)).transpose()?;
        let mut files = DefaultHasher::new();
        for path in paths(config) {
            std::fs::read(path).ok().hash(&mut files);
        }
        Ok(Self {
            topics: Topics::new(&bridge.topics),
            config: config.clone(),
            tls,
            forwarded: Arc::default(),
            password,
            files: files.finish(),
        })
    }

    /// In the place of those that were there before: what their other hosts have passed on stays known.
    #[must_use]
    pub fn after(mut self, before: &[Self]) -> Self {
        if let Some(old) = before.iter().find(|old| old.config.bridge.name == self.config.bridge.name) {
            self.forwarded = Arc::clone(&old.forwarded);
        }
        self
    }

    /// Whether a connection by one is as good as one by the other, whichever hosts the bridge has.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let [own, others] =
            [self, other].map(|prepared| Bridge { hosts: Vec::new(), ..prepared.config.bridge.clone() });
        (own, self.files) == (others, other.files)
    }
}

/// The files that an entry names.
pub fn paths(config: &BridgeConfig) -> impl Iterator<Item = &Path> {
    let bridge = &config.bridge;
    let of_tls = bridge.tls.iter().flat_map(|tls| {
        let identity = tls.identity.iter().flat_map(|(cert, key)| [cert, key]);
        std::iter::once(&tls.ca).chain(identity)
    });
    bridge.password_file.iter().chain(of_tls).map(PathBuf::as_path)
}

fn password(bridge: &str, path: &Path) -> Result<Secret, PrepareError> {
    let bad = |reason: String| PrepareError::Password { bridge: bridge.to_owned(), path: path.to_owned(), reason };
    let text = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let text = text.strip_suffix(b"\n").map_or(&*text, |text| text.strip_suffix(b"\r").unwrap_or(text));
    if text.is_empty() || text.len() > usize::from(u16::MAX) || text.contains(&b'\n') {
        return Err(bad("it must be one line that is not empty".to_owned()));
    }
    Ok(Secret(Bytes::copy_from_slice(text)))
}

fn client_config(bridge: &str, tls: &BridgeTls) -> Result<Arc<ClientConfig>, PrepareError> {
    let bad = |source| PrepareError::Tls { bridge: bridge.to_owned(), source };
    let pem = |what, path: &Path, reason: String| PrepareError::Pem {
        bridge: bridge.to_owned(),
        what,
        path: path.to_owned(),
        reason,
    };
    let certificates = |what, path: &Path| -> Result<Vec<CertificateDer<'static>>, PrepareError> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let read = read.map_err(|error| pem(what, path, error.to_string()))?;
        if read.is_empty() { Err(pem(what, path, "it holds no certificate".to_owned())) } else { Ok(read) }
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the CA certificates", &tls.ca)? {
        roots.add(certificate).map_err(bad)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        Some((cert, key)) => {
            let what = "the private key";
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(what, key, error.to_string()))?;
            builder.with_client_auth_cert(certificates("the certificate", cert)?, key).map_err(bad)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}
