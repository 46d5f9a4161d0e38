//! Entries of the log as frames in one write.
//!
//! Pure.

use std::time::Instant;

use bytes::BytesMut;

use crate::frame::{self, Frame, Range};
use crate::log::Item;
use crate::wire_message;

/// What was written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The newest entry that is accounted for.
    pub(crate) last: u64,
    /// Bytes of the frames.
    pub(crate) bytes: u64,
    /// Messages among the entries.
    pub(crate) messages: u64,
    /// Entries that had expired.
    pub(crate) expired: u64,
    /// Entries that the peer cannot take, because they are larger than it allows.
    pub(crate) too_large: Vec<Range>,
}

/// Appends `items`, which begin with number `from`, to `out`. Each number is accounted for: by ENTRY, or by a SKIP if it has
/// expired or is in a hole, or by a GAP if its body would be longer than `max_body`, which the peer would refuse again and again.
pub(crate) fn write(from: u64, items: &[Item], max_body: u32, now: Instant, out: &mut BytesMut) -> Batch {
    let start = out.len();
    let mut batch = Batch { last: from - 1, ..Batch::default() };
    let mut skipped: Option<Range> = None;
    for item in items {
        let seq = batch.last + 1;
        batch.last = item.last;
        let Some(entry) = &item.entry else {
            skipped.get_or_insert(Range { from: seq, to: seq }).to = item.last;
            continue;
        };
        let message = entry.message();
        if wire_message::has_expired(message, now) {
            skipped.get_or_insert(Range { from: seq, to: seq }).to = seq;
            batch.expired += 1;
            continue;
        }
        end_skip(&mut skipped, out);
        match entry.packet().filter(|packet| frame::entry_body(packet.len()) <= max_body as usize) {
            Some(packet) => {
                let age = wire_message::age(message, now);
                frame::entry_head(seq, age, message.stamp.time, packet.len(), out);
                wire_message::write(packet, message.publish.retain, out);
                batch.messages += 1;
            }
            None => {
                let range = Range { from: seq, to: seq };
                frame::encode(&Frame::Gap(range), out);
                batch.too_large.push(range);
            }
        }
    }
    end_skip(&mut skipped, out);
    batch.bytes = (out.len() - start) as u64;
    batch
}

fn end_skip(skipped: &mut Option<Range>, out: &mut BytesMut) {
    if let Some(range) = skipped.take() {
        frame::encode(&Frame::Skip(range), out);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use evermq_mqtt::properties::PublishProperties;
    use evermq_mqtt::{Publish, QoS, Text, TopicName};

    use std::sync::Arc;

    use super::*;
    use crate::log::Entry;
    use crate::message::{Message, Stamp};

    fn entry(payload: usize, expiry: Option<u32>, received: Instant) -> Arc<Entry> {
        let properties =
            expiry.map(|expiry| PublishProperties { message_expiry: Some(expiry), ..PublishProperties::default() });
        Entry::new(
            Arc::new(Message {
                publish: Publish {
                    dup: false,
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    topic: TopicName::new(Text::new("t").unwrap()).unwrap(),
                    packet_id: None,
                    properties: properties.map(Box::new),
                    payload: Bytes::from(vec![7; payload]),
                },
                stamp: Stamp { time: 9, origin: Arc::from("a") },
                received,
            }),
            None,
            None,
        )
    }

    fn kinds(mut out: BytesMut) -> Vec<String> {
        let mut kinds = Vec::new();
        while let Some(frame) = frame::decode(&mut out, u32::MAX).unwrap() {
            kinds.push(match frame {
                Frame::Entry(entry) => format!("entry {} age {}", entry.seq, entry.age),
                Frame::Skip(range) => format!("skip {}-{}", range.from, range.to),
                Frame::Gap(range) => format!("gap {}-{}", range.from, range.to),
                other => format!("{other:?}"),
            });
        }
        kinds
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn every_entry_is_accounted_for() {
        let start = Instant::now();
        let now = start + Duration::from_secs(5);
        let entries = [
            entry(10, None, start),
            entry(10, Some(5), start),
            entry(10, Some(4), start),
            entry(10, Some(6), start),
            entry(1000, None, now),
            entry(10, Some(1), start),
        ];
        let mut items: Vec<_> = (41..).zip(entries).map(|(last, entry)| Item { last, entry: Some(entry) }).collect();
        items.push(Item { last: 50, entry: None });
        let mut out = BytesMut::new();
        let batch = write(41, &items, 500, now, &mut out);
        assert_eq!(
            batch,
            Batch {
                last: 50,
                bytes: out.len() as u64,
                messages: 2,
                expired: 3,
                too_large: vec![Range { from: 45, to: 45 }]
            }
        );
        assert_eq!(kinds(out), ["entry 41 age 5000", "skip 42-43", "entry 44 age 5000", "gap 45-45", "skip 46-50"]);
    }
}
