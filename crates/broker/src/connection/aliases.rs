//! Topic aliases for a client (§3.3.2.3.4): which of the topics that it gets have one.
//!
//! An alias costs three bytes in its first packet and saves the topic name in each later one. The first topics get one at
//! once, as long as there are any. From then on a topic asks for one when it comes the second time within a while, and a
//! hand goes round over those that have one: a topic that came since it was last there keeps its alias and loses half of
//! its hits, another one gives it up. Topics that come often so keep theirs.
//!
//! A client that takes no aliases, and one that has got no message yet, costs two numbers.

use std::hash::BuildHasher as _;
use std::num::NonZeroU16;
use std::time::Instant;

use evermq_mqtt::codec::Alias;
use evermq_mqtt::{Text, Version};
use hashbrown::{DefaultHashBuilder, HashMap};

use crate::message::Delivery;
use crate::session::Transmit;

/// Topics that came once are remembered by their hash in this many places.
const SEEN: usize = 64;
/// A topic name must be longer than what takes its place, whatever becomes of the property length.
const MIN_TOPIC: usize = 5;
/// What the property adds to the packet that sets the alias, at most: itself, and lengths that take one byte more.
const MAX_ADDED: usize = 5;

/// The aliases of one connection.
#[derive(Debug)]
pub(super) struct Aliases {
    /// How many there may be.
    maximum: u16,
    max_packet_size: u32,
    table: Option<Box<Table>>,
}

#[derive(Debug)]
struct Table {
    by_topic: HashMap<Text, NonZeroU16>,
    /// Alias 1 first.
    given: Vec<Given>,
    hand: usize,
    hasher: DefaultHashBuilder,
    seen: [u32; SEEN],
}

#[derive(Debug)]
struct Given {
    topic: Text,
    hits: u8,
}

impl Aliases {
    /// None so far, and at most `maximum`.
    pub(super) fn new(maximum: u16, max_packet_size: u32) -> Self {
        Self { maximum, max_packet_size, table: None }
    }

    /// Bytes of a packet that the client takes (`[MQTT-3.1.2-24]`).
    pub(super) fn max_packet_size(&self) -> usize {
        usize::try_from(self.max_packet_size).unwrap_or(usize::MAX)
    }

    /// The alias for a packet that is written next.
    pub(super) fn choose(&mut self, transmit: &Transmit, version: Version, now: Instant) -> Option<Alias> {
        if self.maximum == 0 {
            return None;
        }
        let Transmit::Publish { delivery, .. } = transmit else { return None };
        let topic = delivery.message.message().publish.topic.text();
        if topic.len() < MIN_TOPIC {
            return None;
        }
        let table = self.table.get_or_insert_with(|| Box::new(Table::new()));
        if let Some(alias) = table.known(topic) {
            return Some(alias);
        }
        let is_free = table.given.len() < usize::from(self.maximum);
        if !(is_free || table.came_before(topic)) || !fits(delivery, self.max_packet_size, version, now) {
            return None;
        }
        table.give(topic, self.maximum)
    }

    /// The packet was not written, so an alias that it would have set is not set.
    pub(super) fn withdraw(&mut self, alias: Option<Alias>) {
        let (Some(table), Some(Alias { number, is_new: true })) = (&mut self.table, alias) else { return };
        if let Some(given) = table.given.get_mut(usize::from(number.get()) - 1) {
            let topic = std::mem::replace(given, Given { topic: Text::EMPTY, hits: 0 }).topic;
            table.by_topic.remove(&topic);
        }
    }
}

/// Whether the client takes the packet also with its alias beside its topic name (`[MQTT-3.1.2-24]`).
fn fits(delivery: &Delivery, max_packet_size: u32, version: Version, now: Instant) -> bool {
    let max = usize::try_from(max_packet_size).unwrap_or(usize::MAX);
    max_packet_size == u32::MAX || delivery.encoded_len(version, now).is_ok_and(|len| len + MAX_ADDED <= max)
}

impl Table {
    fn new() -> Self {
        Self {
            by_topic: HashMap::new(),
            given: Vec::new(),
            hand: 0,
            hasher: DefaultHashBuilder::default(),
            seen: [0; SEEN],
        }
    }

    fn known(&mut self, topic: &Text) -> Option<Alias> {
        let number = *self.by_topic.get(topic)?;
        let given = &mut self.given[usize::from(number.get()) - 1];
        given.hits = given.hits.saturating_add(1);
        Some(Alias { number, is_new: false })
    }

    /// Whether the topic came before, and as it has come now.
    fn came_before(&mut self, topic: &Text) -> bool {
        // Two topics with one hash: one gets its alias too early, which costs three bytes.
        let hash = self.hasher.hash_one(topic.as_str()).to_le_bytes();
        let place = usize::from(hash[0]) % SEEN;
        let mark = u32::from_le_bytes([hash[1], hash[2], hash[3], hash[4]]) | 1;
        std::mem::replace(&mut self.seen[place], mark) == mark
    }

    fn give(&mut self, topic: &Text, maximum: u16) -> Option<Alias> {
        // The alias outlives the buffer that the topic was read into.
        let new = Given { topic: topic.detached(), hits: 1 };
        let index = if self.given.len() < usize::from(maximum) {
            self.given.push(new);
            self.given.len() - 1
        } else {
            self.hand = (self.hand + 1) % self.given.len();
            let present = &mut self.given[self.hand];
            if present.hits > 0 {
                present.hits /= 2;
                return None;
            }
            let old = std::mem::replace(present, new);
            self.by_topic.remove(&old.topic);
            self.hand
        };
        let number = NonZeroU16::new(u16::try_from(index + 1).ok()?)?;
        self.by_topic.insert(self.given[index].topic.clone(), number);
        Some(Alias { number, is_new: true })
    }
}

#[cfg(test)]
mod tests;
