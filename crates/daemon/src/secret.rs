//! Files that hold a secret which several hosts share.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What 64 hexadecimal digits are, and as much as SHA-256 has.
pub const SHORTEST: usize = 32;
/// No secret is longer; a wrong path may name anything.
const LONGEST_FILE: u64 = 4096;
/// Any permission for users who are neither owner nor of the group.
const OTHERS: u32 = 0o007;

/// What a secret is called, and how one is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Such as "ticket key".
    pub name: &'static str,
    /// The command that makes one, without its options.
    pub maker: &'static str,
    /// Who has to have the same file.
    pub holders: &'static str,
}

/// The key of session tickets.
pub const TICKET_KEY: Kind =
    Kind { name: "ticket key", maker: "evermq certs ticket-key", holders: "every lb host of the cluster" };

/// What proves that a vote is a host's.
pub const HEARTBEAT_KEY: Kind =
    Kind { name: "heartbeat key", maker: "evermq certs heartbeat-key", holders: "every host of the cluster" };

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file is missing or may not be read.
    #[error("cannot read the {} {path}: {source}; make it with `{} --out {path}` and copy the same file to {} \
             (chown root:evermq, chmod 0640)", kind.name, kind.maker, kind.holders, path = path.display())]
    Read {
        /// What was wanted.
        kind: Kind,
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// It is everyone's who is on this machine.
    #[error("the {} {path} is open to every user of this machine (mode {mode:04o}); chmod 0640 {path}, or make a new one \
             if others have accounts here", kind.name, path = path.display())]
    Open {
        /// What was wanted.
        kind: Kind,
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Too little to be a secret.
    #[error("the {} {path} has {length} bytes, but needs {SHORTEST} (64 hexadecimal digits) at least; make it with `{}`",
            kind.name, kind.maker, path = path.display())]
    Short {
        /// What was wanted.
        kind: Kind,
        /// The file.
        path: PathBuf,
        /// What it has.
        length: usize,
    },
    /// Something else.
    #[error("{path} has more than {LONGEST_FILE} bytes, so it is no {}; correct the path, or make one with `{}`",
            kind.name, kind.maker, path = path.display())]
    Long {
        /// What was wanted.
        kind: Kind,
        /// The file.
        path: PathBuf,
    },
}

/// At least 32 bytes. Its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads the file: hexadecimal digits, or raw bytes where it holds anything else.
    ///
    /// # Errors
    /// The file is missing, too short, too long, or open to others.
    pub fn read(path: &Path, kind: Kind) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Read { kind, path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        let mut bytes = Vec::new();
        file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if mode & OTHERS != 0 {
            return Err(SecretError::Open { kind, path: path.to_owned(), mode });
        }
        if bytes.len() as u64 > LONGEST_FILE {
            return Err(SecretError::Long { kind, path: path.to_owned() });
        }
        let secret = from_hex(&bytes).unwrap_or(bytes);
        let length = secret.len();
        Self::new(secret).ok_or(SecretError::Short { kind, path: path.to_owned(), length })
    }

    /// These bytes, if there are enough.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() >= SHORTEST).then_some(Self(bytes))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Digits in pairs, perhaps with white space around all of them; none if it is anything else.
fn from_hex(bytes: &[u8]) -> Option<Vec<u8>> {
    let digits = bytes.trim_ascii();
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(contents: &[u8], mode: u32) -> Result<Secret, SecretError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ticket.key");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Secret::read(&path, TICKET_KEY)
    }

    #[test]
    fn hex_and_raw_bytes_are_the_same_secret() {
        let hex = read(format!("{}\n", "aB".repeat(32)).as_bytes(), 0o640).unwrap();
        assert_eq!(hex, read(&[0xab; 32], 0o600).unwrap());
        assert_eq!(format!("{hex:?}"), "Secret(..)");
    }

    #[test]
    fn what_is_no_secret_is_refused_with_advice() {
        let cases: [(&[u8], u32, &str); 4] = [
            (b"0123", 0o600, "has 2 bytes, but needs 32"),
            (&[0xab; 31], 0o600, "has 31 bytes, but needs 32"),
            (&[0xab; 4097], 0o600, "more than 4096 bytes, so it is no ticket key"),
            (&[0xab; 32], 0o644, "open to every user of this machine (mode 0644)"),
        ];
        for (contents, mode, expected) in cases {
            let error = read(contents, mode).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = Secret::read(Path::new("/nowhere/ticket.key"), TICKET_KEY).unwrap_err().to_string();
        assert!(error.contains("`evermq certs ticket-key --out /nowhere/ticket.key`"), "{error}");
    }
}
