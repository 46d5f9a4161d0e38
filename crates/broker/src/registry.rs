//! Sessions by client identifier. Used when clients come and go, never for a message.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evermq_mqtt::Text;
use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::Mutex;

use crate::mailbox::Mailbox;

const SHARDS: usize = 64;

/// Every session of this broker.
#[derive(Debug)]
pub struct Registry {
    hasher: DefaultHashBuilder,
    /// By their own identifiers: a key beside each would be a copy.
    shards: [Mutex<HashTable<Arc<Mailbox>>>; SHARDS],
    len: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
            len: AtomicUsize::new(0),
        }
    }
}

impl Registry {
    /// Puts the mailbox that `choose` makes of the client's present one in its place, unless it fails. No other connection
    /// of this client is let in meanwhile.
    ///
    /// # Errors
    /// That of `choose`.
    pub fn replace<R, E>(
        &self,
        client_id: &Text,
        choose: impl FnOnce(Option<&Arc<Mailbox>>) -> Result<(Arc<Mailbox>, R), E>,
    ) -> Result<(Arc<Mailbox>, R), E> {
        let (hash, shard) = self.shard(client_id);
        let mut shard = shard.lock();
        let (mailbox, rest) = choose(shard.find(hash, |held| held.client_id() == client_id))?;
        match shard.find_mut(hash, |held| held.client_id() == client_id) {
            Some(held) => *held = Arc::clone(&mailbox),
            None => {
                shard.insert_unique(hash, Arc::clone(&mailbox), |held| self.hash(held.client_id()));
                self.len.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok((mailbox, rest))
    }

    /// The session of a client.
    #[must_use]
    pub fn get(&self, client_id: &Text) -> Option<Arc<Mailbox>> {
        let (hash, shard) = self.shard(client_id);
        shard.lock().find(hash, |held| held.client_id() == client_id).cloned()
    }

    /// Removes `mailbox`, unless another one has taken its place.
    pub fn remove(&self, mailbox: &Arc<Mailbox>) {
        let (hash, shard) = self.shard(mailbox.client_id());
        if let Ok(entry) = shard.lock().find_entry(hash, |held| Arc::ptr_eq(held, mailbox)) {
            entry.remove();
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Every mailbox.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Mailbox>> {
        self.shards.iter().flat_map(|shard| shard.lock().iter().cloned().collect::<Vec<_>>()).collect()
    }

    /// Every mailbox of one shard; none beyond the last one. For those who look at all, a part at a time.
    #[must_use]
    pub fn shard_at(&self, index: usize) -> Option<Vec<Arc<Mailbox>>> {
        self.shards.get(index).map(|shard| shard.lock().iter().cloned().collect())
    }

    /// Sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn hash(&self, client_id: &Text) -> u64 {
        self.hasher.hash_one(client_id.as_str())
    }

    fn shard(&self, client_id: &Text) -> (u64, &Mutex<HashTable<Arc<Mailbox>>>) {
        let hash = self.hash(client_id);
        // The tables themselves use the lowest and the highest bits.
        let index = usize::try_from(hash >> 32).unwrap_or(0) % SHARDS;
        (hash, &self.shards[index])
    }
}
