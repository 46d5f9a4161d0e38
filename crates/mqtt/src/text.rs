//! UTF-8 strings that share the bytes they were read from (MQTT 5.0 §1.5.4).

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// A UTF-8 string, at most 65,535 bytes, without U+0000 (`[MQTT-1.5.4-1]`, `[MQTT-1.5.4-2]`).
///
/// A clone shares the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Text(Bytes);

/// Why bytes are no MQTT string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Ill-formed UTF-8, or a surrogate.
    #[error("string is not valid UTF-8")]
    NotUtf8,
    /// U+0000.
    #[error("string contains U+0000")]
    Null,
    /// Longer than a two-byte length can say.
    #[error("string of {0} bytes is longer than 65,535")]
    TooLong(usize),
}

impl Text {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::new());

    /// Checks `bytes` and takes them without a copy.
    ///
    /// # Errors
    /// Ill-formed UTF-8, U+0000, more than 65,535 bytes.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, TextError> {
        if bytes.len() > usize::from(u16::MAX) {
            return Err(TextError::TooLong(bytes.len()));
        }
        check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Takes bytes that [`check`] has passed and that are not too many.
    pub(crate) fn of_checked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Copies `text`.
    ///
    /// # Errors
    /// U+0000, more than 65,535 bytes.
    pub fn new(text: &str) -> Result<Self, TextError> {
        Self::from_bytes(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor has checked that the bytes are UTF-8, and `Bytes` does not change.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The bytes, shared.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// A copy with bytes of its own, so that a small string does not keep a large read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

/// Whether `bytes` are UTF-8 without U+0000.
pub(crate) fn check(bytes: &[u8]) -> Result<(), TextError> {
    // Nearly all strings are ASCII: one pass without a branch, which compiles to a few vector instructions.
    let (all, has_null) = bytes.iter().fold((0, false), |(all, has_null), &byte| (all | byte, has_null | (byte == 0)));
    if all >= 0x80 {
        std::str::from_utf8(bytes).map_err(|_| TextError::NotUtf8)?;
    }
    if has_null { Err(TextError::Null) } else { Ok(()) }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
