//! Entries of the log as frames in one write.
//!
//! Pure.

use std::time::Instant;

use bytes::BytesMut;

use crate::frame::{self, Directed, Frame, Head, Range};
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

/// Who gets them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receiver<'a> {
    /// The peer's name.
    pub(crate) name: &'a str,
    /// The largest body that it takes.
    pub(crate) max_body: u32,
    /// Whether it understands DIRECTIONS.
    pub(crate) is_directed: bool,
    /// Whether it understands who published a message.
    pub(crate) knows_publishers: bool,
}

/// Appends `items`, which begin with number `from`, to `out`. Each number is accounted for: by ENTRY, or by a SKIP if it has
/// expired, is in a hole or was handed over to another peer, or by a GAP if its body would be longer than the peer takes, which
/// would refuse it again and again.
pub(crate) fn write(from: u64, items: &[Item], to: Receiver<'_>, now: Instant, out: &mut BytesMut) -> Batch {
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
        let directions = entry.directions();
        if directions.is_some_and(|directions| directions.is_handed_over() && !directions.has(to.name)) {
            skipped.get_or_insert(Range { from: seq, to: seq }).to = seq;
            continue;
        }
        let message = entry.message();
        if wire_message::has_expired(message, now) {
            skipped.get_or_insert(Range { from: seq, to: seq }).to = seq;
            batch.expired += 1;
            continue;
        }
        end_skip(&mut skipped, out);
        let publisher = message.publisher.filter(|_| to.knows_publishers);
        match entry.packet().filter(|packet| frame::entry_body(publisher, packet.len()) <= to.max_body as usize) {
            Some(packet) => {
                if let Some(directions) = directions.filter(|_| to.is_directed).cloned() {
                    frame::encode(&Frame::Directed(Directed { seq, directions }), out);
                }
                let head = Head { seq, age: wire_message::age(message, now), time: message.stamp.time, publisher };
                frame::entry_head(head, packet.len(), out);
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
    use crate::directions::{Directions, GroupId};
    use crate::log::Entry;
    use crate::message::{Message, Publisher, Stamp};

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
                publisher: None,
            }),
            None,
            None,
            None,
        )
    }

    fn to(name: &str) -> Receiver<'_> {
        Receiver { name, max_body: 500, is_directed: true, knows_publishers: true }
    }

    fn kinds(mut out: BytesMut) -> Vec<String> {
        let mut kinds = Vec::new();
        while let Some(frame) = frame::decode(&mut out, u32::MAX).unwrap() {
            kinds.push(match frame {
                Frame::Entry(entry) => {
                    let by = entry.head.publisher.map(|publisher| format!(" by {}", publisher.0)).unwrap_or_default();
                    format!("entry {} age {}{by}", entry.head.seq, entry.head.age)
                }
                Frame::Skip(range) => format!("skip {}-{}", range.from, range.to),
                Frame::Gap(range) => format!("gap {}-{}", range.from, range.to),
                Frame::Directed(directed) => format!("directions of {}", directed.seq),
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
        let batch = write(41, &items, to("b"), now, &mut out);
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

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn what_is_handed_over_goes_to_one_peer_and_what_is_directed_to_all() {
        let now = Instant::now();
        let directed =
            |directions| Entry::new(Arc::new(entry(10, None, now).message().clone()), None, None, Some(directions));
        let to_b = Directions::new(GroupId([1; 16]), "b");
        let items = [entry(10, None, now), directed(to_b.clone()), directed(to_b.handed_over(None).unwrap())];
        let items: Vec<_> = (1..).zip(items).map(|(last, entry)| Item { last, entry: Some(entry) }).collect();
        let sent = |to| {
            let mut out = BytesMut::new();
            let batch = write(1, &items, to, now, &mut out);
            assert_eq!(batch.last, 3);
            kinds(out)
        };
        let [one, two, three] = ["entry 1 age 0", "entry 2 age 0", "entry 3 age 0"];
        assert_eq!(sent(to("b")), [one, "directions of 2", two, "directions of 3", three]);
        assert_eq!(sent(to("c")), [one, "directions of 2", two, "skip 3-3"]);
        assert_eq!(sent(Receiver { is_directed: false, ..to("c") }), [one, two, "skip 3-3"]);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn who_published_it_is_told_to_those_who_understand() {
        let now = Instant::now();
        let publisher = Some(Publisher(std::num::NonZeroU64::new(77).unwrap()));
        let message = Message { publisher, ..entry(10, None, now).message().clone() };
        let body = frame::entry_body(publisher, wire_message::encode(&message.publish).unwrap().len());
        let items = [Item { last: 1, entry: Some(Entry::new(Arc::new(message), None, None, None)) }];
        let sent = |to| {
            let mut out = BytesMut::new();
            write(1, &items, to, now, &mut out);
            kinds(out)
        };
        assert_eq!(sent(to("b")), ["entry 1 age 0 by 77"]);
        assert_eq!(sent(Receiver { knows_publishers: false, ..to("b") }), ["entry 1 age 0"]);
        let max_body = u32::try_from(body).unwrap();
        assert_eq!(sent(Receiver { max_body, ..to("b") }), ["entry 1 age 0 by 77"]);
        assert_eq!(sent(Receiver { max_body: max_body - 1, ..to("b") }), ["gap 1-1"], "it counts like the rest");
    }
}
