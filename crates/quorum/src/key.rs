//! The key that all hosts of a cluster share: it proves that a message is a host's.

use std::fmt;
use std::path::Path;

use evermq_daemon::secret::{HEARTBEAT_KEY, SHORTEST, Secret, SecretError};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The tag at the end of each message.
pub type Tag = [u8; 32];

/// The cluster's key, ready to use. Its `Debug` says nothing.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// Reads the key file: hexadecimal digits, or raw bytes where it holds anything else.
    ///
    /// # Errors
    /// The file is missing, too short, too long, or open to others.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let secret = Secret::read(path, HEARTBEAT_KEY)?;
        let short = SecretError::Short { kind: HEARTBEAT_KEY, path: path.to_owned(), length: secret.expose().len() };
        Self::new(secret.expose()).ok_or(short)
    }

    /// The key of these bytes, if there are enough: fewer than SHA-256 has would weaken the tag (RFC 2104 §3).
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_key_is_never_shown() {
        assert_eq!(format!("{:?}", Key::new(&[7; 32]).unwrap()), "Key(..)");
    }
}
