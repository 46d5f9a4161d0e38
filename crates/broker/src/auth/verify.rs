//! Passwords are checked off the event loop, few at once.
//!
//! A check costs some ten milliseconds by design. Half of the processors at most are busy with it; who comes meanwhile waits,
//! within `connect_timeout`. What was right once is remembered as a keyed digest, so that a fleet that comes back after an
//! outage gets in at once; a wrong password always takes the long way.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use evermq_access::{Hash, PasswordFile};
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Checks passwords.
#[derive(Debug)]
pub struct Verifier {
    places: Arc<Semaphore>,
    key: hmac::Key,
    /// By user name; never more than there were users.
    known: Mutex<HashMap<Box<str>, Known>>,
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
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            known: Mutex::default(),
        }
    }

    /// The user's hash, if the password is right.
    pub async fn check(&self, file: &Arc<PasswordFile>, user: &str, password: &[u8]) -> Option<Arc<Hash>> {
        let tag = hmac::sign(&self.key, password);
        if let Some(hash) = self.recall(file, user, &tag) {
            return Some(hash);
        }
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let (file, name, password) = (Arc::clone(file), Box::<str>::from(user), Box::<[u8]>::from(password));
        let checked = tokio::task::spawn_blocking(move || {
            // Held here: who leaves meanwhile does not make room for more than may be checked at once.
            let _place = place;
            file.check(&name, &password).cloned()
        });
        let hash = checked.await.ok()??;
        self.known.lock().insert(user.into(), Known { hash: Arc::clone(&hash), tag });
        Some(hash)
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
        Arc::new(PasswordFile::parse(Path::new("p"), text.as_bytes()).unwrap().0)
    }

    #[tokio::test]
    async fn what_was_right_is_remembered_for_that_hash_only() {
        let (first, changed) = (file(&[("anna", b"one")]), file(&[("anna", b"two")]));
        let verifier = Verifier::new();
        let tag = |password: &[u8]| hmac::sign(&verifier.key, password);
        assert!(verifier.check(&first, "anna", b"two").await.is_none());
        assert!(verifier.recall(&first, "anna", &tag(b"two")).is_none());
        assert!(verifier.check(&first, "anna", b"one").await.is_some());
        assert!(verifier.recall(&first, "anna", &tag(b"one")).is_some());
        assert!(verifier.recall(&first, "anna", &tag(b"two")).is_none());
        assert!(verifier.recall(&changed, "anna", &tag(b"one")).is_none());
        assert!(verifier.check(&changed, "anna", b"one").await.is_none());
        assert!(verifier.check(&changed, "anna", b"two").await.is_some());
        assert!(verifier.check(&changed, "nobody", b"two").await.is_none());
        verifier.forget_but(Some(&file(&[("bob", b"x")])));
        assert!(verifier.known.lock().is_empty());
    }
}
