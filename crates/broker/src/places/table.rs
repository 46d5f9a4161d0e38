//! Counts by key.

use std::fmt::Debug;
use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// How many of each key there are. Touched when a connection comes and when it goes, by all workers, so it is in shards with a
/// lock each. A key of which there are none takes no room.
#[derive(Debug)]
pub struct Table<K>(Arc<Shards<K>>);

#[derive(Debug)]
struct Shards<K> {
    hasher: DefaultHashBuilder,
    shards: [Mutex<HashMap<K, usize>>; SHARDS],
}

/// One of a key; given back when dropped.
#[derive(Debug)]
pub struct Quota<K: Eq + Hash> {
    table: Arc<Shards<K>>,
    key: K,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Shards { hasher: DefaultHashBuilder::default(), shards }))
    }
}

impl<K: Eq + Hash + Clone> Table<K> {
    /// One more, unless there are `most`.
    #[must_use]
    pub fn take(&self, key: K, most: usize) -> Option<Quota<K>> {
        let mut shard = self.0.shard(&key).lock();
        let count = shard.entry(key.clone()).or_insert(0);
        if *count >= most {
            if *count == 0 {
                shard.remove(&key);
            }
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Quota { table: Arc::clone(&self.0), key })
    }
}

impl<K: Hash> Shards<K> {
    fn shard(&self, key: &K) -> &Mutex<HashMap<K, usize>> {
        let hash = self.hasher.hash_one(key);
        // The table within uses the highest and the lowest bits.
        &self.shards[usize::try_from(hash >> 32).unwrap_or(0) % SHARDS]
    }
}

impl<K: Eq + Hash> Drop for Quota<K> {
    fn drop(&mut self) {
        let mut shard = self.table.shard(&self.key).lock();
        if let Some(count) = shard.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_own_and_gives_it_back() {
        let table = Table::default();
        let one = table.take("a", 2).unwrap();
        let two = table.take("a", 2).unwrap();
        assert!(table.take("a", 2).is_none());
        let other = table.take("b", 2).unwrap();
        drop(one);
        let three = table.take("a", 2).unwrap();
        assert!(table.take("a", 2).is_none());
        assert!(table.take("c", 0).is_none());
        drop((two, three, other));
        assert!(table.0.shards.iter().all(|shard| shard.lock().is_empty()), "who is gone takes no room");
    }
}
