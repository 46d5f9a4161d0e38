//! What can go wrong with certificates, and what to do about it.

use std::io;
use std::path::PathBuf;

use rustls_pki_types::pem;
use time::OffsetDateTime;

use super::date;

/// Why certificates were not made or shown. Nothing has been written then.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// Files that would have been overwritten.
    #[error(
        "{} already there and will not be overwritten, so nothing was made:\n{}\nmove {} away, choose another --dir, or \
         make only what is missing (`evermq certs server --host NAME`, `evermq certs client NAME`)",
        if files.len() == 1 { "a file is" } else { "files are" },
        files.iter().map(|file| format!("  {}", file.display())).collect::<Vec<_>>().join("\n"),
        if files.len() == 1 { "it" } else { "them" },
    )]
    InTheWay {
        /// The files that exist.
        files: Vec<PathBuf>,
    },
    /// A key that hosts share, which would have been overwritten.
    #[error(
        "{} is already there and will not be overwritten; a host with another key than the rest {otherwise}. To replace \
         the key on all hosts, move it away or choose another --out", path.display()
    )]
    KeyInTheWay {
        /// The file that exists.
        path: PathBuf,
        /// What becomes of a host that has another.
        otherwise: &'static str,
    },
    /// The target directory cannot be made.
    #[error("cannot make the directory {}; choose another --dir, or check who may write there", path.display())]
    MakeDir {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A new file cannot be written.
    #[error("cannot write {}; check the disk's space and who may write to the directory; nothing was made", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}; check the path and who may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// There is no authority to sign with.
    #[error(
        "there is no {} to sign with; make an authority with `evermq certs ca --dir {}`, or name one that you have with \
         --ca-cert and --ca-key", path.display(), path.parent().unwrap_or(path).display()
    )]
    NoAuthority {
        /// The missing file.
        path: PathBuf,
    },
    /// A file holds no PEM certificate.
    #[error("{} holds no PEM certificate (no \"-----BEGIN CERTIFICATE-----\"){hint}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
        /// What it holds instead, and what to do, if that is known.
        hint: &'static str,
    },
    /// A PEM section that is no X.509 certificate.
    #[error("certificate {number} in {} cannot be read: {reason}; export it again as PEM", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Which certificate in it, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The authority's key is encrypted.
    #[error(
        "{} is encrypted with a pass phrase; decrypt it for this one use into a file that only you can read: \
         (umask 077; openssl pkey -in {} -out ca-plain.key)", path.display(), path.display()
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no PEM private key.
    #[error("{} holds no private key in PEM form (PKCS#8, SEC 1 or PKCS#1)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What the PEM parser said.
        source: pem::Error,
    },
    /// A private key of a kind that cannot sign here.
    #[error("the key in {} cannot sign certificates here; use ECDSA (P-256, P-384, P-521), RSA or Ed25519", path.display())]
    BadKey {
        /// The file.
        path: PathBuf,
        /// What the key parser said.
        source: rcgen::Error,
    },
    /// The authority's key does not belong to its certificate.
    #[error("the key in {} does not belong to a certificate in {}; name the pair that was made together", key.display(), certificate.display())]
    KeyOfAnother {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A certificate that must not sign others.
    #[error("{} is no certificate authority: {reason}; name a CA certificate with --ca-cert", path.display())]
    NotAnAuthority {
        /// The certificate file.
        path: PathBuf,
        /// What is missing.
        reason: &'static str,
    },
    /// The authority is not valid now.
    #[error(
        "the authority in {} is valid from {} to {} only, not now; make a new one with `evermq certs ca`, \
         or set this machine's clock", path.display(), date(*.not_before), date(*.not_after)
    )]
    AuthorityNotValid {
        /// The certificate file.
        path: PathBuf,
        /// Start of its time.
        not_before: OffsetDateTime,
        /// End of its time.
        not_after: OffsetDateTime,
    },
    /// An authority whose name cannot be written into a certificate exactly as it stands.
    #[error(
        "the subject name of the authority in {} has parts that cannot be copied exactly (several values of one kind, or \
         an unusual text encoding), so nobody would accept what it signs; sign with openssl instead (see certs/README.md)",
        path.display()
    )]
    AuthorityName {
        /// The certificate file.
        path: PathBuf,
    },
    /// A host that is not in the cluster file.
    #[error(
        "host \"{host}\" is not in the cluster file (its hosts: {known}); add a [[hosts]] entry, or name one of them"
    )]
    UnknownHost {
        /// The name that was given.
        host: String,
        /// The names that the file has.
        known: String,
    },
    /// A host whose name TLS does not take for a name.
    #[error("host \"{host}\" cannot stand as a DNS name in a certificate; give it a name with a letter in it")]
    HostNotDns {
        /// The name.
        host: String,
    },
    /// A client that has a host's name, and so the same files.
    #[error(
        "client \"{name}\" has the name of a host, so that both would be {name}.crt; choose another name for the client"
    )]
    ClientNamedLikeHost {
        /// The name.
        name: String,
    },
    /// The same name twice.
    #[error("\"{name}\" is named twice; name each once")]
    Twice {
        /// The name.
        name: String,
    },
    /// There is nothing of that name.
    #[error(
        "there is no certificate of \"{name}\" in {}, or none that still counts; choose its --dir, or name its file with --cert \
         or its serial number with --serial (`evermq certs revoke`)", dir.display()
    )]
    NothingOf {
        /// The name.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A certificate of another authority.
    #[error(
        "{} was signed by {issuer}, not by this authority; name the one that signed it with --ca-cert and --ca-key, or make \
         a new certificate with `evermq certs issue` in another --dir", path.display()
    )]
    OtherIssuer {
        /// The certificate's file.
        path: PathBuf,
        /// Who signed it.
        issuer: String,
    },
    /// A certificate that this program would not repeat as it is.
    #[error("{} cannot be renewed here: {reason}; renew it where it was made, or make a new one", path.display())]
    MadeElsewhere {
        /// The certificate's file.
        path: PathBuf,
        /// What it has that is not made here.
        reason: String,
    },
    /// An authority that this program did not make.
    #[error(
        "the authority in {} is not one of those that `evermq certs` makes (a root with a common name only), so it has to be \
         renewed where it was made", path.display()
    )]
    AuthorityMadeElsewhere {
        /// The authority's file.
        path: PathBuf,
    },
    /// A revocation list that cannot be continued.
    #[error("{} cannot be continued: {reason}; move it away, or name another with --crl", path.display())]
    BadList {
        /// The list's file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file that cannot be replaced or moved.
    #[error("cannot replace {}; check the disk's space and who may write to its directory; it is as it was", path.display())]
    Replace {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The validity leaves the calendar.
    #[error("a validity of {days} days ends beyond the year 9999; give fewer --days")]
    TooLong {
        /// What was asked for.
        days: u32,
    },
    /// The cryptographic library failed.
    #[error("cannot make a certificate")]
    Generate(#[from] rcgen::Error),
    /// The system has no randomness.
    #[error("the system gives no random numbers; check that /dev/urandom works")]
    Random,
}

impl CertsError {
    /// Whether the command line has to change, rather than the machine.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::UnknownHost { .. }
                | Self::HostNotDns { .. }
                | Self::ClientNamedLikeHost { .. }
                | Self::Twice { .. }
                | Self::TooLong { .. }
                | Self::NothingOf { .. }
        )
    }
}
