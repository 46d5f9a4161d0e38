//! Passwords are checked off the event loop, few at once.
//!
//! A check costs some ten milliseconds by design. Half of the processors at most are busy with it; who comes meanwhile waits,
//! within `connect_timeout`, and so many of one address ([`Attempts`]). What was right once is remembered as a keyed digest, so that a fleet that comes back after an
//! outage gets in at once; a wrong password always takes the long way.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use evermq_access::{Hash, Memory, PasswordFile};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::attempts::{Attempts, TooOften};
use crate::connection::clock;
use crate::places::Source;

/// Checks passwords.
#[derive(Debug)]
pub struct Verifier {
    places: Arc<Semaphore>,
    /// Of the places that nobody has. As much as was needed at once is kept.
    memories: Arc<Mutex<Vec<Memory>>>,
    key: hmac::Key,
    /// By user name; never more than there were users.
    known: Mutex<HashMap<Box<str>, Known>>,
    attempts: Mutex<Attempts>,
}

/// What a client that waits for its check has to do with those around it.
pub struct Turn<'a> {
    /// Whose tries count together; none for who stands for many clients.
    pub source: Option<Source>,
    /// Told when the broker begins to work for the client, and when it is done.
    pub works: &'a (dyn Fn(bool) + Sync),
}

impl Turn<'_> {
    /// Of a client that is alone.
    pub const FREE: Turn<'static> = Turn { source: None, works: &|_| {} };
}

/// Why a password was not found right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is not, or there is no such user.
    Password,
    /// Its address has tried too often.
    TooOften,
}

impl From<TooOften> for Wrong {
    fn from(_: TooOften) -> Self {
        Self::TooOften
    }
}

/// A password that was right.
#[derive(Debug)]
struct Known {
    /// For this hash: a changed line of the file makes it nothing.
    hash: Arc<Hash>,
    tag: hmac::Tag,
}

impl Verifier {
    /// One that uses half of the processors at most.
    #[must_use]
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).expect("the system gives random numbers");
        Self {
            places: Arc::new(Semaphore::new((processors / 2).max(1))),
            memories: Arc::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            known: Mutex::default(),
            attempts: Mutex::default(),
        }
    }

    /// The user's hash, if the password is right.
    ///
    /// # Errors
    /// It is not, or it was not even looked at.
    pub async fn check(
        &self,
        file: &Arc<PasswordFile>,
        user: &str,
        password: &[u8],
        turn: &Turn<'_>,
    ) -> Result<Arc<Hash>, Wrong> {
        let tag = hmac::sign(&self.key, password);
        if let Some(hash) = self.recall(file, user, &tag) {
            return Ok(hash);
        }
        let _pending = turn.source.map(|source| Pending::begin(&self.attempts, source)).transpose()?;
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| Wrong::Password)?;
        if let Some(source) = turn.source {
            self.attempts.lock().may_try(source, clock())?;
        }
        (turn.works)(true);
        let hash = self.try_out(file, user, password, place).await;
        (turn.works)(false);
        let Some(hash) = hash else {
            if let Some(source) = turn.source {
                self.attempts.lock().was_wrong(source, clock());
            }
            return Err(Wrong::Password);
        };
        self.known.lock().insert(user.into(), Known { hash: Arc::clone(&hash), tag });
        Ok(hash)
    }

    async fn try_out(
        &self,
        file: &Arc<PasswordFile>,
        user: &str,
        password: &[u8],
        place: OwnedSemaphorePermit,
    ) -> Option<Arc<Hash>> {
        let (file, name, password) = (Arc::clone(file), Box::<str>::from(user), Box::<[u8]>::from(password));
        let memories = Arc::clone(&self.memories);
        let checked = tokio::task::spawn_blocking(move || {
            // Held here: who leaves meanwhile does not make room for more than may be checked at once.
            let _place = place;
            let mut memory = memories.lock().pop().unwrap_or_default();
            let hash = file.check(&name, &password, &mut memory).cloned();
            memories.lock().push(memory);
            hash
        });
        checked.await.ok()?
    }

    /// Forgets who is not in the file any more.
    pub fn forget_but(&self, file: Option<&PasswordFile>) {
        self.known.lock().retain(|user, _| file.is_some_and(|file| file.get(user).is_some()));
    }

    fn recall(&self, file: &PasswordFile, user: &str, tag: &hmac::Tag) -> Option<Arc<Hash>> {
        let hash = file.get(user)?;
        let known = self.known.lock();
        let known = known.get(user)?;
        let is_same = constant_time::verify_slices_are_equal(known.tag.as_ref(), tag.as_ref()).is_ok();
        (known.hash == *hash && is_same).then(|| Arc::clone(hash))
    }
}

/// A try of an address, until it is over or its client has left.
struct Pending<'a> {
    attempts: &'a Mutex<Attempts>,
    source: Source,
}

impl<'a> Pending<'a> {
    fn begin(attempts: &'a Mutex<Attempts>, source: Source) -> Result<Self, TooOften> {
        attempts.lock().enter(source, clock())?;
        Ok(Self { attempts, source })
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.attempts.lock().leave(self.source, clock());
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(users: &[(&str, &[u8])]) -> Arc<PasswordFile> {
        let text: String = users.iter().map(|(user, password)| format!("{user}:{}\n", Hash::make(password))).collect();
        Arc::new(PasswordFile::parse(Path::new("p"), text.as_bytes(), evermq_access::Effort::None).unwrap().0)
    }

    #[tokio::test]
    async fn what_was_right_is_remembered_for_that_hash_only() {
        let (first, changed) = (file(&[("anna", b"one")]), file(&[("anna", b"two")]));
        let verifier = Verifier::new();
        let tag = |password: &[u8]| hmac::sign(&verifier.key, password);
        let check = async |file, user, password| verifier.check(file, user, password, &Turn::FREE).await;
        assert_eq!(check(&first, "anna", b"two").await, Err(Wrong::Password));
        assert!(verifier.recall(&first, "anna", &tag(b"two")).is_none());
        assert!(check(&first, "anna", b"one").await.is_ok());
        assert!(verifier.recall(&first, "anna", &tag(b"one")).is_some());
        assert!(verifier.recall(&first, "anna", &tag(b"two")).is_none());
        assert!(verifier.recall(&changed, "anna", &tag(b"one")).is_none());
        assert!(check(&changed, "anna", b"one").await.is_err());
        assert!(check(&changed, "anna", b"two").await.is_ok());
        assert!(check(&changed, "nobody", b"two").await.is_err());
        verifier.forget_but(Some(&file(&[("bob", b"x")])));
        assert!(verifier.known.lock().is_empty());
    }

    #[tokio::test]
    async fn an_address_that_tries_too_often_is_not_even_looked_at() {
        let users = file(&[("anna", b"one")]);
        let verifier = Verifier::new();
        let source = Source::of(std::net::Ipv4Addr::LOCALHOST.into());
        let turn = Turn { source: Some(source), works: &|_| {} };
        for _ in 0..20 {
            verifier.attempts.lock().enter(source, clock()).unwrap();
            verifier.attempts.lock().was_wrong(source, clock());
        }
        assert_eq!(verifier.check(&users, "anna", b"one", &turn).await, Err(Wrong::TooOften));
        let other = Turn { source: Some(Source::of(std::net::Ipv4Addr::BROADCAST.into())), works: &|_| {} };
        assert!(verifier.check(&users, "anna", b"one", &other).await.is_ok());
        assert!(verifier.check(&users, "anna", b"one", &turn).await.is_ok(), "it is known to be right now");
    }
}
