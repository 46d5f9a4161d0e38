//! The key that all hosts of a cluster share: it proves that a message is a host's.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Fewer bytes than SHA-256 has would weaken the tag (RFC 2104 §3).
const SHORTEST: usize = 32;
/// No key is longer; a wrong path may name anything.
const LONGEST_FILE: u64 = 4096;
/// Any permission for users who are neither owner nor of the group.
const OTHERS: u32 = 0o007;

/// The tag at the end of each message.
pub type Tag = [u8; 32];

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is missing or may not be read.
    #[error("cannot read the heartbeat key {path}: {source}; make it with `evermq certs heartbeat-key --out {path}` and \
             copy the same file to every host of the cluster (chown root:evermq, chmod 0640)", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Everyone on this machine could vote.
    #[error("the heartbeat key {path} is open to every user of this machine (mode {mode:04o}); chmod 0640 {path}, or make a \
             new key if others have accounts here", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Too little to be a key.
    #[error("the heartbeat key {path} has {length} bytes, but needs {SHORTEST} (64 hexadecimal digits) at least; make it \
             with `evermq certs heartbeat-key`", path = path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// What it has.
        length: usize,
    },
    /// Not a key at all.
    #[error("{path} has more than {LONGEST_FILE} bytes, so it is no heartbeat key; correct the path, or make a key with \
             `evermq certs heartbeat-key`", path = path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
}

/// The cluster's key, ready to use. Its `Debug` says nothing.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// Reads the key file: hexadecimal digits, or raw bytes where it holds anything else.
    ///
    /// # Errors
    /// The file is missing, too short, too long, or open to others.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |source| KeyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        let mut bytes = Vec::new();
        file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if mode & OTHERS != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        if bytes.len() as u64 > LONGEST_FILE {
            return Err(KeyError::Long { path: path.to_owned() });
        }
        let secret = from_hex(&bytes).unwrap_or(bytes);
        Self::new(&secret).ok_or(KeyError::Short { path: path.to_owned(), length: secret.len() })
    }

    /// The key of these bytes, if there are enough.
    #[must_use]
    pub fn new(secret: &[u8]) -> Option<Self> {
        // HMAC itself takes keys of any length.
        (secret.len() >= SHORTEST).then(|| Hmac::new_from_slice(secret).ok().map(Self)).flatten()
    }

    /// The tag of a message. Allocates nothing.
    #[must_use]
    pub fn tag(&self, message: &[u8]) -> Tag {
        self.0.clone().chain_update(message).finalize().into_bytes().into()
    }

    /// Whether the message is by someone who has the key; takes the same time for every wrong tag.
    #[must_use]
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        self.0.clone().chain_update(message).verify_slice(tag).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
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

    fn file(contents: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heartbeat.key");
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn hex_and_raw_bytes_are_the_same_key() {
        let (_raw_dir, raw) = file(&[0xab; 32], 0o600);
        let (_hex_dir, hex) = file(format!("{}\n", "aB".repeat(32)).as_bytes(), 0o640);
        let tags = [raw, hex].map(|path| Key::read(&path).unwrap().tag(b"message"));
        assert_eq!(tags[0], tags[1]);
    }

    /// RFC 4231 §4.4 has a shorter key; this vector is §4.7's: 131 bytes of 0xaa.
    #[test]
    fn the_tag_is_hmac_sha_256() {
        let key = Key::new(&[0xaa; 131]).unwrap();
        let tag = key.tag(b"Test Using Larger Than Block-Size Key - Hash Key First");
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert!(key.verify(b"Test Using Larger Than Block-Size Key - Hash Key First", &tag));
        assert!(!key.verify(b"test Using Larger Than Block-Size Key - Hash Key First", &tag));
    }

    #[test]
    fn bad_files_are_refused_with_what_to_do() {
        let (_dir, short) = file(&[1; 31], 0o600);
        assert!(matches!(Key::read(&short), Err(KeyError::Short { length: 31, .. })));
        let (_dir, short_hex) = file("ab".repeat(31).as_bytes(), 0o600);
        assert!(matches!(Key::read(&short_hex), Err(KeyError::Short { length: 31, .. })));
        let (_dir, open) = file(&[1; 32], 0o644);
        let error = Key::read(&open).unwrap_err();
        assert!(matches!(error, KeyError::Open { mode: 0o644, .. }));
        assert!(error.to_string().contains("chmod 0640"), "{error}");
        let (_dir, long) = file(&[1; 4097], 0o600);
        assert!(matches!(Key::read(&long), Err(KeyError::Long { .. })));
        let missing = Key::read(Path::new("/nonexistent/key")).unwrap_err();
        assert!(missing.to_string().contains("evermq certs heartbeat-key"), "{missing}");
    }

    #[test]
    fn the_key_is_never_shown() {
        assert_eq!(format!("{:?}", Key::new(&[7; 32]).unwrap()), "Key(..)");
    }
}
