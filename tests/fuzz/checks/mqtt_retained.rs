//! Retained messages that come, are replaced and go, and filters: the store finds what a matcher finds that looks at each topic by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_bridge::{Message, Stamp};
use evermq_broker::message::Shared;
use evermq_broker::retained::{Bounds, DELETION_LIFE, Kept, Retained};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Publish, QoS, Text, TopicFilter, TopicName};

const MESSAGES: usize = 30;

struct Held {
    stamp: u64,
    payload: usize,
    received: Instant,
    expires: Option<Instant>,
}

impl Held {
    /// Whether the store may forget it.
    fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now) || (self.payload == 0 && now - self.received >= DELETION_LIFE)
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let store = Retained::new(Bounds { messages: MESSAGES, bytes: 3_000 });
    let mut plain: BTreeMap<TopicName, Held> = BTreeMap::new();
    let mut now = Instant::now();
    for (number, step) in (0_u64..).zip(bytes.split(|byte| *byte == b'\n')) {
        let [kind, size, name @ ..] = step else { continue };
        let Ok(name) = Text::from_bytes(name.to_vec().into()) else { continue };
        match kind % 5 {
            0..=2 => {
                let Ok(topic) = TopicName::new(name) else { continue };
                if topic.as_str().is_empty() {
                    continue;
                }
                // Older than some that are there, now and then.
                let stamp = if kind & 0x40 == 0 { number * 2 + 1 } else { number };
                let expiry = (kind & 0x20 != 0).then_some(u32::from(size % 8));
                let message = message(&topic, stamp, usize::from(*size % 60), expiry, now);
                let kept = store.keep(&message, || Shared::new(Arc::new(copy(&message)), false));
                let held = Held {
                    stamp,
                    payload: message.publish.payload.len(),
                    received: now,
                    expires: expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
                };
                match kept {
                    Kept::Kept => drop(plain.insert(topic, held)),
                    Kept::Older => assert!(plain.get(&topic).is_some_and(|before| before.stamp >= stamp)),
                    Kept::Full => {
                        assert!(plain.len() >= MESSAGES || store.bytes() + 100 + topic.as_str().len() > 3_000);
                    }
                }
            }
            3 => {
                let Ok(filter) = TopicFilter::new(name) else { continue };
                let mut found = Vec::new();
                store.matching(&filter, now, |slice| {
                    found.extend(slice.drain(..).map(|shared| shared.message().publish.topic.clone()));
                });
                let as_set: BTreeSet<_> = found.iter().cloned().collect();
                assert_eq!(as_set.len(), found.len(), "found twice");
                let is_there = |held: &Held| held.payload > 0 && held.expires.is_none_or(|at| at > now);
                let expected: BTreeSet<_> = plain
                    .iter()
                    .filter(|(topic, held)| is_there(held) && filter.matches(topic))
                    .map(|(topic, _)| topic.clone())
                    .collect();
                assert_eq!(as_set, expected, "{filter}");
            }
            _ => {
                now += Duration::from_secs(u64::from(*size % 4));
                store.sweep(now, |gone| {
                    let held = plain.iter().find(|(topic, _)| topic.as_str() == gone).expect("one that was there").1;
                    assert!(held.is_over(now));
                });
                plain.retain(|_, held| !held.is_over(now));
            }
        }
        assert_eq!(store.len(), plain.values().filter(|held| held.payload > 0).count());
        let bytes: usize = plain.iter().map(|(topic, held)| topic.as_str().len() + held.payload).sum();
        assert!(store.bytes() >= bytes && store.bytes() <= 3_100);
    }
}

fn message(topic: &TopicName, stamp: u64, size: usize, expiry: Option<u32>, now: Instant) -> Message {
    let properties = expiry.map(|seconds| PublishProperties { message_expiry: Some(seconds), ..Default::default() });
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: topic.clone(),
        packet_id: None,
        properties: properties.map(Box::new),
        payload: Bytes::from(vec![b'x'; size]),
    };
    Message { publish, stamp: Stamp { time: stamp, origin: Arc::from("fuzz") }, received: now, publisher: None }
}

fn copy(message: &Message) -> Message {
    Message { publish: message.publish.clone(), stamp: message.stamp.clone(), ..*message }
}
