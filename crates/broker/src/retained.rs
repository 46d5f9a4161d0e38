//! Retained messages (§3.3.1.3): the last one of each topic, by stamp, so that brokers that were apart converge.
//!
//! A message without payload deletes; the deletion is remembered for [`DELETION_LIFE`], so that a peer's older message does
//! not come back. In shards by topic: publishers of different topics rarely meet.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evermq_bridge::Message;
use evermq_mqtt::{Text, TopicFilter, TopicName};
use parking_lot::Mutex;

use crate::message;

/// How long a deletion is remembered: longer than a peer with an older message may take to say so after a reconnect.
pub const DELETION_LIFE: Duration = Duration::from_secs(3600);

/// Fixed, so that the order of a wildcard's messages is the same each time.
const SHARDS: usize = 16;

/// What became of a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is the topic's message now, or the topic has none now.
    Kept,
    /// A newer one is there.
    Older,
    /// There is no room.
    Full,
}

/// The store.
#[derive(Debug)]
pub struct Retained {
    shards: [Mutex<BTreeMap<Text, Arc<Message>>>; SHARDS],
    /// Messages, without deletions.
    messages: AtomicUsize,
    deletions: AtomicUsize,
    max_messages: usize,
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Retained {
    /// An empty store for `max_messages`, and as many deletions.
    #[must_use]
    pub fn new(max_messages: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            messages: AtomicUsize::new(0),
            deletions: AtomicUsize::new(0),
            max_messages,
            hasher: BuildHasherDefault::default(),
        }
    }

    /// Keeps `message` as the last one of its topic, unless a newer one is there.
    pub fn keep(&self, message: &Arc<Message>) -> Kept {
        let topic = &message.publish.topic;
        let mut shard = self.shard(topic.as_str()).lock();
        let held = shard.get_mut(topic.as_str());
        if held.as_deref().is_some_and(|held| held.stamp >= message.stamp) {
            return Kept::Older;
        }
        let count = self.count(message);
        match held {
            Some(held) if is_deletion(held) == is_deletion(message) => *held = Arc::new(message::detach(message)),
            _ if count.load(Ordering::Relaxed) >= self.max_messages => return Kept::Full,
            held => {
                if let Some(held) = held {
                    self.count(held).fetch_sub(1, Ordering::Relaxed);
                }
                count.fetch_add(1, Ordering::Relaxed);
                // Topic and payload in bytes of their own: retained messages stay long.
                let own = Arc::new(message::detach(message));
                shard.insert(own.publish.topic.text().clone(), own);
            }
        }
        Kept::Kept
    }

    /// The messages whose topics match `filter` and that have not expired.
    #[must_use]
    pub fn matching(&self, filter: &TopicFilter, now: Instant) -> Vec<Arc<Message>> {
        let wanted = |message: &Message| !is_deletion(message) && !is_expired(message, now);
        let prefix = literal_prefix(filter);
        if prefix.len() == filter.as_str().len() {
            let shard = self.shard(prefix).lock();
            return shard.get(prefix).filter(|message| wanted(message)).cloned().into_iter().collect();
        }
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let in_range = shard.range::<str, _>(from).take_while(|(topic, _)| topic.starts_with(prefix));
            let matches = |topic: &TopicName| filter.matches(topic);
            found.extend(
                in_range
                    .filter(|(_, message)| matches(&message.publish.topic) && wanted(message))
                    .map(|(_, message)| Arc::clone(message)),
            );
        }
        found
    }

    /// Everything, deletions too, for a peer that starts empty.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Message>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// Forgets expired messages and old deletions.
    pub fn sweep(&self, now: Instant) {
        for shard in &self.shards {
            shard.lock().retain(|_, message| {
                let is_old = now.saturating_duration_since(message.received) >= DELETION_LIFE;
                let goes = is_expired(message, now) || (is_deletion(message) && is_old);
                if goes {
                    self.count(message).fetch_sub(1, Ordering::Relaxed);
                }
                !goes
            });
        }
    }

    /// Messages, without deletions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, topic: &str) -> &Mutex<BTreeMap<Text, Arc<Message>>> {
        let index = self.hasher.hash_one(topic) % u64::try_from(SHARDS).unwrap_or(1);
        &self.shards[usize::try_from(index).unwrap_or(0)]
    }

    fn count(&self, message: &Message) -> &AtomicUsize {
        if is_deletion(message) { &self.deletions } else { &self.messages }
    }
}

/// [MQTT-3.3.1-6].
fn is_deletion(message: &Message) -> bool {
    message.publish.payload.is_empty()
}

fn is_expired(message: &Message, now: Instant) -> bool {
    message::expiry(message).is_some_and(|interval| now.saturating_duration_since(message.received) >= interval)
}

/// The filter up to its first wildcard, without the slash before it: "a/b" of "a/b/#", which matches "a/b" too.
fn literal_prefix(filter: &TopicFilter) -> &str {
    let filter = filter.as_str();
    let Some(wildcard) = filter.find(['+', '#']) else { return filter };
    filter[..wildcard].strip_suffix('/').unwrap_or("")
}

#[cfg(test)]
mod tests;
