//! Session tickets whose keys every lb of the cluster derives by itself, so that a client resumes at any of them.
//!
//! Wall time is cut into epochs of `ticket_rotation`. The current epoch's key encrypts; those of the epochs before and after
//! decrypt too: a ticket is good for one rotation at least, two at most, and hosts' clocks may differ by up to one.
//!
//! ```text
//!  0       8            20                      n-16        n     key   HKDF-SHA256(secret, epoch, digest of whom clients
//!  | epoch | nonce      | AES-256-GCM(session)  | tag       |           are and must be)
//!  | big   | random     |                       |           |     AAD   the epoch
//! ```

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use evermq_daemon::secret::Secret;
use rustls::server::ProducesTickets;

const EPOCH_LEN: usize = size_of::<u64>();
const HEADER_LEN: usize = EPOCH_LEN + NONCE_LEN;
/// No ticket may be used for longer (RFC 8446 §4.6.1).
const LONGEST_LIFETIME: u64 = 7 * 24 * 60 * 60;

/// Makes and reads tickets.
pub(super) struct Tickets {
    keys: Derivation,
    rotation: u64,
    window: RwLock<Window>,
}

/// From an epoch to its key.
struct Derivation {
    secret: Prk,
    /// Digest of what a session must have been checked against. Tickets carry the client's certificate, and a resumption
    /// does not look at it again: those of other authorities, or of a time when none was asked for, must not count.
    context: [u8; 32],
}

/// The keys around one epoch, ready to use.
struct Window {
    epoch: u64,
    previous: LessSafeKey,
    current: LessSafeKey,
    next: LessSafeKey,
}

impl Tickets {
    /// Tickets of those who share `secret`, `context` and `rotation`; `wall` is the time since 1970.
    #[must_use]
    pub(super) fn new(secret: &Secret, context: [u8; 32], rotation: Duration, wall: Duration) -> Self {
        let rotation = rotation.as_secs().max(1);
        let keys = Derivation { secret: Salt::new(HKDF_SHA256, b"evermq ticket").extract(secret.expose()), context };
        let window = RwLock::new(keys.window(wall.as_secs() / rotation));
        Self { keys, rotation, window }
    }

    /// A ticket that holds `session`.
    fn seal(&self, session: &[u8], nonce: [u8; NONCE_LEN], wall: Duration) -> Option<Vec<u8>> {
        self.at(wall, |window| {
            let epoch = window.epoch.to_be_bytes();
            let mut ticket = Vec::with_capacity(HEADER_LEN + session.len() + MAX_TAG_LEN);
            ticket.extend_from_slice(&epoch);
            ticket.extend_from_slice(&nonce);
            ticket.extend_from_slice(session);
            let nonce = Nonce::assume_unique_for_key(nonce);
            let sealed = ticket.get_mut(HEADER_LEN..)?;
            let tag = window.current.seal_in_place_separate_tag(nonce, Aad::from(epoch), sealed).ok()?;
            ticket.extend_from_slice(tag.as_ref());
            Some(ticket)
        })
    }

    /// What is in a ticket, if it is one of ours and not too old.
    fn open(&self, ticket: &[u8], wall: Duration) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_LEN>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        self.at(wall, |window| {
            let key = window.key_of(u64::from_be_bytes(*epoch))?;
            let mut session = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(nonce, Aad::from(*epoch), &mut session).ok()?.len();
            session.truncate(length);
            Some(session)
        })
    }

    fn at<T>(&self, wall: Duration, use_keys: impl FnOnce(&Window) -> T) -> T {
        let epoch = wall.as_secs() / self.rotation;
        {
            let window = self.window.read().unwrap_or_else(PoisonError::into_inner);
            if window.epoch == epoch {
                return use_keys(&window);
            }
        }
        let mut window = self.window.write().unwrap_or_else(PoisonError::into_inner);
        if window.epoch != epoch {
            *window = self.keys.window(epoch);
        }
        use_keys(&window)
    }
}

impl Derivation {
    fn window(&self, epoch: u64) -> Window {
        Window {
            epoch,
            previous: self.key(epoch.wrapping_sub(1)),
            current: self.key(epoch),
            next: self.key(epoch.wrapping_add(1)),
        }
    }

    fn key(&self, epoch: u64) -> LessSafeKey {
        let info = [&epoch.to_be_bytes()[..], &self.context];
        let key = self.secret.expand(&info, &AES_256_GCM).expect("32 bytes are within what HKDF-SHA256 gives");
        LessSafeKey::new(UnboundKey::from(key))
    }
}

impl Window {
    fn key_of(&self, epoch: u64) -> Option<&LessSafeKey> {
        if epoch == self.epoch {
            Some(&self.current)
        } else if epoch.checked_add(1) == Some(self.epoch) {
            Some(&self.previous)
        } else if self.epoch.checked_add(1) == Some(epoch) {
            Some(&self.next)
        } else {
            None
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("rotation", &self.rotation).finish_non_exhaustive()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// What every ticket lives for; one that is made early in an epoch is taken for longer.
    fn lifetime(&self) -> u32 {
        u32::try_from(self.rotation.min(LONGEST_LIFETIME)).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        self.seal(plain, nonce, wall())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, wall())
    }
}

/// Wall time, by which tickets' keys change on all hosts alike.
#[expect(clippy::disallowed_methods, reason = "tickets' keys change by wall time")]
pub(super) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn tickets(secret: u8, context: u8, wall: Duration) -> Tickets {
        Tickets::new(&Secret::new(vec![secret; 32]).unwrap(), [context; 32], HOUR, wall)
    }

    fn seal(tickets: &Tickets, wall: Duration) -> Vec<u8> {
        tickets.seal(b"session", [7; NONCE_LEN], wall).unwrap()
    }

    #[test]
    fn another_lb_reads_the_ticket() {
        let now = HOUR * 1000;
        let (one, other) = (tickets(1, 1, now), tickets(1, 1, Duration::ZERO));
        assert_eq!(other.open(&seal(&one, now), now).unwrap(), b"session");
        assert_eq!(one.open(&seal(&other, now), now).unwrap(), b"session");
    }

    #[test]
    fn a_ticket_lives_for_one_rotation_at_least_and_two_at_most() {
        let begin = HOUR * 1000;
        let ticket = seal(&tickets(1, 1, begin), begin + HOUR / 2);
        let reader = tickets(1, 1, begin);
        let readable = |wall: Duration| reader.open(&ticket, wall).is_some();
        assert!(!readable(begin - HOUR * 2), "a clock too far behind");
        assert!(readable(begin - HOUR), "a clock that is behind");
        assert!(readable(begin + HOUR / 2));
        assert!(readable(begin + HOUR + HOUR / 2));
        assert!(readable(begin + HOUR * 2 - Duration::from_secs(1)));
        assert!(!readable(begin + HOUR * 2));
    }

    #[test]
    fn other_secrets_and_other_authorities_do_not_count() {
        let now = HOUR * 1000;
        let ticket = seal(&tickets(1, 1, now), now);
        assert!(tickets(2, 1, now).open(&ticket, now).is_none());
        assert!(tickets(1, 2, now).open(&ticket, now).is_none());
    }

    #[test]
    fn keys_and_nonces_are_used_once() {
        let tickets = tickets(1, 1, Duration::ZERO);
        let [one, other] = [0, 1].map(|_| tickets.encrypt(b"session").unwrap());
        assert_ne!(one[EPOCH_LEN..HEADER_LEN], other[EPOCH_LEN..HEADER_LEN]);
        assert_eq!(tickets.decrypt(&one).unwrap(), b"session");
        let [now, later] = [HOUR, HOUR * 2].map(|wall| seal(&tickets, wall));
        assert_ne!(now[HEADER_LEN..], later[HEADER_LEN..]);
    }

    proptest! {
        #[test]
        fn no_bytes_are_taken_for_a_ticket(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(tickets(1, 1, Duration::ZERO).open(&bytes, Duration::ZERO), None);
        }

        #[test]
        fn a_changed_ticket_is_none(at in 0usize..43, bit in 0u8..8) {
            let tickets = tickets(1, 1, HOUR);
            let mut ticket = seal(&tickets, HOUR);
            prop_assert_eq!(ticket.len(), 43);
            ticket[at] ^= 1 << bit;
            prop_assert_eq!(tickets.open(&ticket, HOUR), None);
        }
    }
}
