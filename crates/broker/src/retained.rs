//! Retained messages (§3.3.1.3): the last one of each topic, by stamp, so that brokers that were apart converge.
//!
//! A message without payload deletes; the deletion is remembered for [`DELETION_LIFE`], so that a peer's older message does
//! not come back. In shards by topic: publishers of different topics rarely meet.
//!
//! Topics are in order, so all below one level stand together, and a wildcard's search leaps from one place that can match
//! to the next ([`seek`]). A shard is locked for a slice of a search at a time.

mod seek;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use evermq_bridge::Message;
use evermq_mqtt::TopicFilter;
use parking_lot::Mutex;

use crate::message::{self, Shared};
use seek::{Place, Seek};

/// How long a deletion is remembered: longer than a peer with an older message may take to say so after a reconnect.
pub const DELETION_LIFE: Duration = Duration::from_secs(3600);

/// Fixed, so that the order of a wildcard's messages is the same each time. A wildcard looks into each, so they are few.
const SHARDS: usize = 8;
/// Messages that are looked at under one lock: far less than a millisecond.
const SLICE: usize = 256;

/// Such slices for one page.
const PAGE_SLICES: usize = 64;

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

/// Where a page of messages begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// A part of the store.
    pub shard: usize,
    /// A topic of it; at its beginning if there is none.
    pub topic: Option<String>,
    /// Behind that topic, or with it.
    pub after: bool,
}

/// Bounds of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Messages, and as many deletions.
    pub messages: usize,
    /// Bytes of their topics, payloads and properties, deletions included.
    pub bytes: usize,
}

impl Bounds {
    /// As the cluster file says.
    #[must_use]
    pub const fn new(config: &evermq_config::broker::Broker) -> Self {
        Self { messages: config.max_retained_messages, bytes: config.max_retained_bytes }
    }
}

/// The store.
#[derive(Debug)]
pub struct Retained {
    shards: [Mutex<BTreeSet<Entry>>; SHARDS],
    /// Messages, without deletions.
    messages: AtomicUsize,
    deletions: AtomicUsize,
    bytes: AtomicUsize,
    most_messages: AtomicUsize,
    most_bytes: AtomicUsize,
    hasher: BuildHasherDefault<DefaultHasher>,
}

/// A message in the order of topics.
#[derive(Debug)]
struct Entry(Arc<Shared>);

impl Retained {
    /// An empty store.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            messages: AtomicUsize::new(0),
            deletions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            most_messages: AtomicUsize::new(bounds.messages),
            most_bytes: AtomicUsize::new(bounds.bytes),
            hasher: BuildHasherDefault::default(),
        }
    }

    /// Other bounds. What is there stays; nothing is added until there is room.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.most_messages.store(bounds.messages, Relaxed);
        self.most_bytes.store(bounds.bytes, Relaxed);
    }

    /// Keeps `new` as the last one of its topic, unless a newer one is there. If it is to be kept, `own` makes it what
    /// stays here, with bytes of its own, before another message of the topic can come.
    pub fn keep(&self, new: &Message, own: impl FnOnce() -> Arc<Shared>) -> Kept {
        let topic = new.publish.topic.as_str();
        let mut shard = self.shard(topic).lock();
        let held = shard.get(topic).map(|held| held.0.message());
        if held.is_some_and(|held| held.stamp >= new.stamp) {
            return Kept::Older;
        }
        let replaces = held.is_some_and(|held| is_deletion(held) == is_deletion(new));
        let held_bytes = held.map_or(0, size);
        if !replaces && self.count(new).load(Relaxed) >= self.most_messages.load(Relaxed) {
            return Kept::Full;
        }
        // A deletion makes room; what replaces a smaller message needs some.
        let grown = (self.bytes.load(Relaxed) - held_bytes).saturating_add(size(new));
        if size(new) > held_bytes && grown > self.most_bytes.load(Relaxed) {
            return Kept::Full;
        }
        if let Some(held) = held {
            self.forget(held);
        }
        self.count(new).fetch_add(1, Relaxed);
        self.bytes.fetch_add(size(new), Relaxed);
        let replaced = shard.replace(Entry(own()));
        drop(shard);
        if let Some(replaced) = replaced {
            replaced.0.is_not_retained();
        }
        Kept::Kept
    }

    /// The messages whose topics match `filter` and that have not expired, a slice at a time.
    pub fn matching(&self, filter: &TopicFilter, now: Instant, mut found: impl FnMut(&mut Vec<Arc<Shared>>)) {
        let seek = Seek::new(filter);
        let wanted = |message: &Message| !is_deletion(message) && !is_expired(message, now);
        let mut slice = Vec::new();
        if let Some(topic) = seek.only() {
            let shard = self.shard(topic).lock();
            slice.extend(shard.get(topic).filter(|held| wanted(held.0.message())).map(|held| Arc::clone(&held.0)));
            drop(shard);
            found(&mut slice);
            return;
        }
        for shard in &self.shards {
            let mut next = Some(seek.first());
            while let Some(place) = next.take() {
                next = collect(&shard.lock(), &seek, place, wanted, &mut slice);
                found(&mut slice);
                slice.clear();
            }
        }
    }

    /// A part of the messages whose topics match `filter`: from there on, about `limit` of them, and where to go on if there
    /// may be more. It looks at a bounded number, so there may be few where few match.
    #[must_use]
    pub fn page(
        &self,
        filter: &TopicFilter,
        from: Mark,
        limit: usize,
        now: Instant,
    ) -> (Vec<Arc<Shared>>, Option<Mark>) {
        let seek = Seek::new(filter);
        let mut found = Vec::new();
        if seek.only().is_some() {
            self.matching(filter, now, |slice| found.append(slice));
            return (found, None);
        }
        let wanted = |message: &Message| !is_deletion(message) && !is_expired(message, now);
        let mut place = from.topic.map(|topic| Place { topic, after: from.after });
        let mut slices = 0;
        for (shard, entries) in self.shards.iter().enumerate().skip(from.shard) {
            let mut next = Some(place.take().unwrap_or_else(|| seek.first()));
            while let Some(place) = next.take() {
                if found.len() >= limit || slices >= PAGE_SLICES {
                    return (found, Some(Mark { shard, topic: Some(place.topic), after: place.after }));
                }
                slices += 1;
                next = collect(&entries.lock(), &seek, place, wanted, &mut found);
            }
        }
        (found, None)
    }

    /// Everything, deletions too, for a peer that starts empty.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Message>> {
        let mut all = Vec::new();
        self.visit(|slice| all.extend(slice.iter().map(|entry| entry.to_message())), || {});
        all
    }

    /// Everything, deletions too, a slice at a time under the lock that no other message of these topics can pass; `between`
    /// without it.
    pub fn visit(&self, mut visit: impl FnMut(&[&Arc<Shared>]), mut between: impl FnMut()) {
        for shard in &self.shards {
            let mut after: Option<Arc<Shared>> = None;
            loop {
                let shard = shard.lock();
                let from = after.as_deref().map_or(Bound::Unbounded, |last| Bound::Excluded(topic_of(last)));
                let slice: Vec<_> =
                    shard.range::<str, _>((from, Bound::Unbounded)).take(SLICE).map(|entry| &entry.0).collect();
                visit(&slice);
                let Some(last) = slice.last().map(|last| Arc::clone(last)) else { break };
                drop(slice);
                drop(shard);
                after = Some(last);
                between();
            }
        }
    }

    /// Forgets expired messages and old deletions. `gone` writes it down.
    pub fn sweep(&self, now: Instant, mut gone: impl FnMut(&str)) {
        let goes = |message: &Message| {
            let is_old = now.saturating_duration_since(message.received) >= DELETION_LIFE;
            is_expired(message, now) || (is_deletion(message) && is_old)
        };
        let mut going = Vec::new();
        let mut look = |slice: &[&Arc<Shared>]| {
            going.extend(slice.iter().filter(|entry| goes(entry.message())).map(|entry| Arc::clone(entry)));
        };
        self.visit(&mut look, || {});
        for entry in going {
            let topic = topic_of(&entry);
            let mut shard = self.shard(topic).lock();
            // Another one may have taken its place meanwhile.
            if shard.get(topic).is_some_and(|held| Arc::ptr_eq(&held.0, &entry)) {
                gone(topic);
                self.forget(entry.message());
                shard.remove(topic);
                entry.is_not_retained();
            }
        }
    }

    /// Bytes of topics, payloads and properties.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Messages, without deletions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.load(Relaxed)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, topic: &str) -> &Mutex<BTreeSet<Entry>> {
        let index = self.hasher.hash_one(topic) % u64::try_from(SHARDS).unwrap_or(1);
        &self.shards[usize::try_from(index).unwrap_or(0)]
    }

    fn count(&self, message: &Message) -> &AtomicUsize {
        if is_deletion(message) { &self.deletions } else { &self.messages }
    }

    fn forget(&self, message: &Message) {
        self.count(message).fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(size(message), Relaxed);
    }
}

/// Takes what matches from `place` on into `slice`; where to go on, if there may be more.
#[expect(clippy::mutable_key_type, reason = "an entry's order is that of its topic, which never changes")]
fn collect(
    shard: &BTreeSet<Entry>,
    seek: &Seek<'_>,
    mut place: Place,
    wanted: impl Fn(&Message) -> bool,
    slice: &mut Vec<Arc<Shared>>,
) -> Option<Place> {
    let mut steps = 0;
    loop {
        // Neighbours often match one after the other, so each leap is followed by a walk.
        let mut walk = shard.range::<str, _>((place.bound(), Bound::Unbounded));
        loop {
            let entry = walk.next()?;
            steps += 1;
            let topic = topic_of(&entry.0);
            match seek.judge(topic) {
                seek::Verdict::Matches => {
                    if wanted(entry.0.message()) {
                        slice.push(Arc::clone(&entry.0));
                    }
                    if steps >= SLICE {
                        return Some(Place::after(topic));
                    }
                }
                seek::Verdict::Fails if steps >= SLICE => return Some(Place::after(topic)),
                seek::Verdict::Fails => {}
                seek::Verdict::Leap(to) => {
                    place = to;
                    break;
                }
                seek::Verdict::Over => return None,
            }
        }
        if steps >= SLICE {
            return Some(place);
        }
    }
}

impl Borrow<str> for Entry {
    fn borrow(&self) -> &str {
        topic_of(&self.0)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        topic_of(&self.0) == topic_of(&other.0)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        topic_of(&self.0).cmp(topic_of(&other.0))
    }
}

fn topic_of(shared: &Shared) -> &str {
    shared.message().publish.topic.as_str()
}

fn size(message: &Message) -> usize {
    message.publish.weight()
}

/// [MQTT-3.3.1-6].
fn is_deletion(message: &Message) -> bool {
    message.publish.payload.is_empty()
}

fn is_expired(message: &Message, now: Instant) -> bool {
    message::expiry(message).is_some_and(|interval| now.saturating_duration_since(message.received) >= interval)
}

#[cfg(test)]
mod tests;
