//! Sessions by client identifier. Used when clients come and go, never for a message.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evermq_mqtt::Text;
use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::Mutex;

use crate::mailbox::Mailbox;

const SHARDS: usize = 64;

/// Every session of this broker.
#[derive(Debug)]
pub struct Registry {
    hasher: DefaultHashBuilder,
    shards: [Mutex<HashMap<Text, Arc<Mailbox>>>; SHARDS],
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
        let mut shard = self.shard(client_id).lock();
        let (mailbox, rest) = choose(shard.get(client_id))?;
        // The mailbox's own identifier as the key: it shares no bytes with the packet that it came in.
        if shard.insert(mailbox.client_id().clone(), Arc::clone(&mailbox)).is_none() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        Ok((mailbox, rest))
    }

    /// Removes `mailbox`, unless another one has taken its place.
    pub fn remove(&self, mailbox: &Arc<Mailbox>) {
        let mut shard = self.shard(mailbox.client_id()).lock();
        if shard.get(mailbox.client_id()).is_some_and(|held| Arc::ptr_eq(held, mailbox)) {
            shard.remove(mailbox.client_id());
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Every mailbox.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Mailbox>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
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

    fn shard(&self, client_id: &Text) -> &Mutex<HashMap<Text, Arc<Mailbox>>> {
        let index = self.hasher.hash_one(client_id.as_str()) % u64::try_from(SHARDS).unwrap_or(1);
        &self.shards[usize::try_from(index).unwrap_or(0)]
    }
}
