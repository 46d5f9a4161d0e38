//! One password's hash, as a file holds it.
//!
//! ```text
//! $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH    PHC string (RFC 9106), base64 without padding; `evermq passwd` makes these
//! $7$ITERATIONS$SALT$HASH                     mosquitto 2.0: PBKDF2 with HMAC-SHA-512, base64 with padding
//! $6$SALT$HASH                                mosquitto 1.x: SHA-512 of the password and the salt
//! ```

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::{constant_time, digest, pbkdf2, rand};
use base64ct::{Base64, Base64Unpadded, Encoding as _};

/// Memory of a new hash in KiB, passes over it, lanes: what OWASP's password storage cheat sheet asks for first.
const NEW: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Bytes of a new salt and a new hash (RFC 9106 §4).
const NEW_SALT: usize = 16;
const NEW_HASH: usize = 32;
/// What a login may cost at most, so that a line of the file cannot stall the broker: 256 MiB.
const MOST_MEMORY: u32 = 256 * 1024;
const MOST_PASSES: u32 = 64;
const MOST_ITERATIONS: u32 = 10_000_000;
/// Bytes of a salt or a hash.
const LONGEST: usize = 128;
/// A shorter hash would be guessed.
const SHORTEST_HASH: usize = 16;
const SHORTEST_SALT: usize = 8;

/// A hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Hash {
    scheme: Scheme,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq)]
enum Scheme {
    Argon2id(Params),
    Pbkdf2Sha512(NonZeroU32),
    Sha512,
}

/// What a check writes on: 19 MiB for a hash of [`Hash::make`]. Whoever makes many checks keeps it from one to the next: given
/// back each time, the allocator keeps some of it for each thread that has ever made one.
#[derive(Default)]
pub struct Memory(Vec<Block>);

impl Memory {
    fn blocks(&mut self, count: usize) -> &mut [Block] {
        if self.0.len() < count {
            self.0.resize(count, Block::new());
        }
        &mut self.0[..count]
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} KiB)", self.0.len())
    }
}

/// Why a text is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashError {
    /// It does not begin as one.
    Unknown,
    /// Its parts are not as they should be.
    Malformed,
    /// It would cost too much to check.
    TooCostly,
    /// It would be too easy to guess.
    TooShort,
}

impl HashError {
    /// What is wrong, and what to do.
    #[must_use]
    pub const fn text(self) -> (&'static str, &'static str) {
        const AGAIN: &str = "set the password again with `evermq passwd FILE USER`";
        match self {
            Self::Unknown => (
                "this is no hash that is known here: argon2id, or mosquitto_passwd's $7$ and $6$",
                "a password does not stand in the file itself: set it with `evermq passwd FILE USER`",
            ),
            Self::Malformed => ("the hash is damaged", AGAIN),
            Self::TooCostly => {
                ("checking this hash would take too long: at most 256 MiB, 64 passes, 10 million iterations", AGAIN)
            }
            Self::TooShort => ("the salt or the hash is too short to be safe", AGAIN),
        }
    }
}

impl Hash {
    /// Reads a hash as it stands in a file.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let mut parts = text.split('$');
        if parts.next() != Some("") {
            return Err(HashError::Unknown);
        }
        let kind = parts.next();
        let parts: Vec<&str> = parts.take(5).collect();
        let parsed = match (kind, &*parts) {
            (Some("argon2id"), ["v=19", params, salt, hash]) => Self {
                scheme: Scheme::Argon2id(argon2_params(params)?),
                salt: decode::<Base64Unpadded>(salt)?,
                hash: decode::<Base64Unpadded>(hash)?,
            },
            (Some("7"), [iterations, salt, hash]) => Self {
                scheme: Scheme::Pbkdf2Sha512(pbkdf2_iterations(iterations)?),
                salt: decode::<Base64>(salt)?,
                hash: decode::<Base64>(hash)?,
            },
            (Some("6"), [salt, hash]) => {
                Self { scheme: Scheme::Sha512, salt: decode::<Base64>(salt)?, hash: decode::<Base64>(hash)? }
            }
            (Some("argon2id" | "7" | "6"), _) => return Err(HashError::Malformed),
            _ => return Err(HashError::Unknown),
        };
        let right_length = match parsed.scheme {
            Scheme::Argon2id(_) => parsed.hash.len() >= SHORTEST_HASH,
            Scheme::Pbkdf2Sha512(_) | Scheme::Sha512 => parsed.hash.len() == digest::SHA512_OUTPUT_LEN,
        };
        if right_length && parsed.salt.len() >= SHORTEST_SALT { Ok(parsed) } else { Err(HashError::TooShort) }
    }

    /// A new hash of the password, as it is to stand in a file.
    #[must_use]
    pub fn make(password: &[u8]) -> String {
        let mut salt = [0; NEW_SALT];
        rand::fill(&mut salt).expect("the system gives random numbers");
        let (memory, passes, lanes) = NEW;
        let params = Params::new(memory, passes, lanes, Some(NEW_HASH)).expect("good parameters");
        let mut hash = [0; NEW_HASH];
        argon2id(params).hash_password_into(password, &salt, &mut hash).expect("the password is not 4 GiB long");
        let encode = |bytes: &[u8]| Base64Unpadded::encode_string(bytes);
        format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${}${}", encode(&salt), encode(&hash))
    }

    /// Whether this is the password's hash. Takes its time, and as long for a wrong password as for the right one.
    #[must_use]
    pub fn is_of(&self, password: &[u8], memory: &mut Memory) -> bool {
        match &self.scheme {
            Scheme::Argon2id(params) => {
                let mut hash = vec![0; self.hash.len()];
                let blocks = memory.blocks(params.block_count());
                let made =
                    argon2id(params.clone()).hash_password_into_with_memory(password, &self.salt, &mut hash, blocks);
                made.is_ok() && is_same(&hash, &self.hash)
            }
            Scheme::Pbkdf2Sha512(iterations) => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, &self.salt, password, &self.hash).is_ok()
            }
            Scheme::Sha512 => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(&self.salt);
                is_same(context.finish().as_ref(), &self.hash)
            }
        }
    }

    /// About how long [`Hash::is_of`] takes: within a factor of a few, on a processor of these years.
    #[must_use]
    pub fn cost(&self) -> Duration {
        let nanos = match &self.scheme {
            Scheme::Argon2id(params) => u64::from(params.m_cost()) * u64::from(params.t_cost()) * 500,
            Scheme::Pbkdf2Sha512(iterations) => u64::from(iterations.get()) * 1000,
            Scheme::Sha512 => 1000,
        };
        Duration::from_nanos(nanos)
    }

    /// Whether the hash is of a kind that can be tried out quickly by whoever gets the file.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        matches!(self.scheme, Scheme::Sha512)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Scheme::Argon2id(_) => "Hash(argon2id)",
            Scheme::Pbkdf2Sha512(_) => "Hash(PBKDF2-SHA512)",
            Scheme::Sha512 => "Hash(SHA512)",
        })
    }
}

fn argon2id(params: Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// `m=MEMORY,t=PASSES,p=LANES`, in this order.
fn argon2_params(text: &str) -> Result<Params, HashError> {
    let mut parts = text.split(',');
    let mut number = |name: &str| {
        let text = parts.next().and_then(|part| part.strip_prefix(name)).ok_or(HashError::Malformed)?;
        decimal(text)
    };
    let (memory, passes, lanes) = (number("m=")?, number("t=")?, number("p=")?);
    if parts.next().is_some() {
        return Err(HashError::Malformed);
    }
    if memory > MOST_MEMORY || passes > MOST_PASSES {
        return Err(HashError::TooCostly);
    }
    Params::new(memory, passes, lanes, None).map_err(|_| HashError::Malformed)
}

fn pbkdf2_iterations(text: &str) -> Result<NonZeroU32, HashError> {
    let iterations = NonZeroU32::new(decimal(text)?).ok_or(HashError::Malformed)?;
    if iterations.get() > MOST_ITERATIONS { Err(HashError::TooCostly) } else { Ok(iterations) }
}

/// Digits and nothing else.
fn decimal(text: &str) -> Result<u32, HashError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(HashError::Malformed);
    }
    text.parse().map_err(|_| HashError::TooCostly)
}

fn decode<E: base64ct::Encoding>(text: &str) -> Result<Vec<u8>, HashError> {
    let bytes = E::decode_vec(text).map_err(|_| HashError::Malformed)?;
    if bytes.len() > LONGEST { Err(HashError::Malformed) } else { Ok(bytes) }
}

#[cfg(test)]
pub(crate) const REFERENCE: &str =
    "$argon2id$v=19$m=1024,t=2,p=2$c29tZXNhbHRzb21lc2FsdA$E2UjtrDTCgIx4mfpqQ9GwLzvabuQuVCcwisqBRbSI+4";
#[cfg(test)]
pub(crate) const MOSQUITTO_7: &str =
    "$7$101$QABwna4w0lUwpgg6$g2P5L8mzbftMXfogTcEHUm6AxKq5Mv7WfoU3AG/PoM0OrRwV/S0rdjJDJhJBCV+1fraYQrWLy9axq/HrluY8sA==";
#[cfg(test)]
pub(crate) const MOSQUITTO_6: &str =
    "$6$RQif0bEzjUgIApln$MslskzL1KzndZSWbcYqufvRiNLMdDL1grI5X3Xdp3xKfnl0czCR80RnrYVhYZDo+F23WMW/i0lzY6gC4Xm9cwg==";

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of(hash: &Hash, password: &[u8]) -> bool {
        hash.is_of(password, &mut Memory::default())
    }

    fn error(text: &str) -> HashError {
        Hash::parse(text).expect_err(text)
    }

    #[test]
    fn a_new_hash_is_of_its_password_only() {
        let text = Hash::make("pässword".as_bytes());
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert_ne!(text, Hash::make("pässword".as_bytes()), "each has a salt of its own");
        let hash = Hash::parse(&text).expect("a good hash");
        assert!(is_of(&hash, "pässword".as_bytes()));
        assert!(!is_of(&hash, b"password") && !is_of(&hash, b""));
        assert_eq!(format!("{hash:?}"), "Hash(argon2id)");
    }

    /// Made with Python's argon2-cffi, which wraps the reference implementation:
    /// `PasswordHasher(time_cost=2, memory_cost=1024, parallelism=2).hash("password", salt=b"somesaltsomesalt")`.
    #[test]
    fn argon2id_of_others() {
        let hash = Hash::parse(REFERENCE).expect("a good hash");
        assert!(is_of(&hash, b"password") && !is_of(&hash, b"Password"));
    }

    /// Made by mosquitto_passwd 2.0.11, `-b FILE USER secret`, and with `-H sha512`.
    #[test]
    fn hashes_of_mosquitto() {
        for text in [MOSQUITTO_7, MOSQUITTO_6] {
            let hash = Hash::parse(text).expect("a good hash");
            assert!(is_of(&hash, b"secret"), "{text}");
            assert!(!is_of(&hash, b"Secret") && !is_of(&hash, b""), "{text}");
            assert_eq!(hash.is_weak(), text == MOSQUITTO_6);
        }
    }

    #[test]
    fn memory_serves_one_check_after_the_other() {
        let mut memory = Memory::default();
        let text = Hash::make(b"secret");
        for (text, right, blocks) in
            [(REFERENCE, &b"password"[..], 1024), (&text, b"secret", 19 * 1024), (REFERENCE, b"password", 19 * 1024)]
        {
            let hash = Hash::parse(text).expect("a good hash");
            assert!(hash.is_of(right, &mut memory) && !hash.is_of(b"another", &mut memory), "{text}");
            assert_eq!(memory.0.len(), blocks, "as much as the largest has needed");
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "secret", "$", "$$", "$5$x", "$2b$10$abc", "argon2id$v=19"] {
            assert_eq!(error(text), HashError::Unknown, "{text}");
        }
        for text in [
            "$argon2id",
            "$argon2id$v=16$m=1024,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1024,t=2$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1024,t=2,p=1,x=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=+1024,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1024,t=0,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ=$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA$more",
            "$7$101$!$x",
            "$7$0$c29tZXNhbHQ=$x",
            "$6$c29tZXNhbHQ=",
        ] {
            assert_eq!(error(text), HashError::Malformed, "{text}");
        }
        for text in [
            "$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=1024,t=65,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
            "$7$99999999999$c29tZXNhbHQ=$c29t",
            "$7$10000001$c29tZXNhbHQ=$c29t",
        ] {
            assert_eq!(error(text), HashError::TooCostly, "{text}");
        }
        for text in [
            "$argon2id$v=19$m=1024,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHQ",
            "$argon2id$v=19$m=1024,t=2,p=1$c29t$c29tZXNhbHRzb21lc2FsdA",
            "$7$101$c29tZXNhbHQ=$c29t",
            "$6$c29tZXNhbHQ=$c29t",
        ] {
            assert_eq!(error(text), HashError::TooShort, "{text}");
        }
        for error in [HashError::Unknown, HashError::Malformed, HashError::TooCostly, HashError::TooShort] {
            assert!(!error.text().0.is_empty());
        }
    }
}
