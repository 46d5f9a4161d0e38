//! Messages as they cross the mesh: the MQTT 5.0 PUBLISH packet that says it, with every property unchanged.
//!
//! The packet is the same for every peer and at every time: how old the message is stands beside it, in the frame. The
//! receiver dates its `received` back by that age, so what is left of a message expiry interval is the same on every broker.
//!
//! Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_mqtt::codec::{self, DecodeError, Limits, PublishFrame};
use evermq_mqtt::{Packet, PacketId, Publish, Version};

use crate::message::{Message, Publisher, Stamp};

/// Stands in a packet above QoS 0, which MQTT does not allow without one. It means nothing: `seq` numbers the messages.
const PACKET_ID: PacketId = PacketId(std::num::NonZeroU16::MIN);

/// Why a peer's message cannot be delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// The packet is malformed.
    #[error(transparent)]
    Packet(#[from] DecodeError),
    /// The packet is incomplete, something follows it, or it is no PUBLISH with a topic name.
    #[error("it is not exactly one PUBLISH with a topic name")]
    NotOnePublish,
}

/// The packet that says `publish`; `None` if there is none, because a field is too long for MQTT.
pub(crate) fn encode(publish: &Publish) -> Option<PublishFrame> {
    PublishFrame::new(publish, Version::V5, publish.qos).ok()
}

/// Appends the packet.
pub(crate) fn write(packet: &PublishFrame, retain: bool, out: &mut BytesMut) {
    packet.write(out, false, retain, Some(PACKET_ID));
}

/// How old a message is, in milliseconds.
pub(crate) fn age(message: &Message, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(message.received).as_millis()).unwrap_or(u64::MAX)
}

/// Whether the message expiry interval has passed (MQTT 5.0 §3.3.2.3.3), so that no subscriber may get it.
pub(crate) fn has_expired(message: &Message, now: Instant) -> bool {
    let expiry = message.publish.properties.as_ref().and_then(|properties| properties.message_expiry);
    expiry.is_some_and(|seconds| {
        now.saturating_duration_since(message.received) >= Duration::from_secs(u64::from(seconds))
    })
}

/// Reads a message out of the packet of a frame.
///
/// # Errors
/// It is not one PUBLISH with a topic name.
pub(crate) fn decode(
    mut packet: BytesMut,
    stamp: Stamp,
    age: u64,
    publisher: Option<Publisher>,
    now: Instant,
) -> Result<Arc<Message>, MessageError> {
    // The frame was within the limits; within it the packet may have any size.
    let decoded = codec::decode(&mut packet, Version::V5, &Limits::default())?;
    let Some(Packet::Publish(mut publish)) = decoded else { return Err(MessageError::NotOnePublish) };
    if !packet.is_empty() || publish.topic.as_str().is_empty() {
        return Err(MessageError::NotOnePublish);
    }
    publish.packet_id = None;
    // The clock begins at some time in the past: a message older than that keeps its age only as far as that goes.
    let received = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
    Ok(Arc::new(Message { publish, stamp, received, publisher }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evermq_mqtt::properties::PublishProperties;
    use evermq_mqtt::{QoS, Text, TopicName};
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Text {
        Text::new(text).unwrap()
    }

    fn message(qos: QoS, retain: bool, properties: Option<PublishProperties>, received: Instant) -> Message {
        Message {
            publish: Publish {
                dup: false,
                qos,
                retain,
                topic: TopicName::new(text("a/b")).unwrap(),
                packet_id: None,
                properties: properties.map(Box::new),
                payload: Bytes::from_static(b"payload"),
            },
            stamp: Stamp { time: 77, origin: Arc::from("broker1") },
            received,
            publisher: std::num::NonZeroU64::new(5).map(Publisher),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
    fn start() -> Instant {
        // Well behind the clock's beginning, so that messages can be older.
        Instant::now() + Duration::from_secs(1_000_000)
    }

    fn packet(message: &Message) -> BytesMut {
        let mut out = BytesMut::new();
        write(&encode(&message.publish).unwrap(), message.publish.retain, &mut out);
        out
    }

    #[test]
    fn every_property_crosses_unchanged() {
        let now = start();
        let properties = PublishProperties {
            payload_is_utf8: Some(true),
            message_expiry: Some(3600),
            topic_alias: None,
            response_topic: Some(text("answers/here")),
            correlation_data: Some(Bytes::from_static(b"\0\x01")),
            user_properties: vec![(text("k"), text("v")), (text("k"), text("w"))],
            subscription_ids: Vec::new(),
            content_type: Some(text("text/plain")),
        };
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for retain in [false, true] {
                for properties in [None, Some(properties.clone())] {
                    let sent = message(qos, retain, properties, now);
                    let later = now + Duration::from_millis(1500);
                    let arrived =
                        decode(packet(&sent), sent.stamp.clone(), age(&sent, later), sent.publisher, later).unwrap();
                    assert_eq!(*arrived, sent);
                }
            }
        }
    }

    #[test]
    fn expiry_counts_from_the_publishers_broker() {
        let now = start();
        let properties = PublishProperties { message_expiry: Some(10), ..PublishProperties::default() };
        let sent = message(QoS::AtLeastOnce, false, Some(properties), now);
        assert!(!has_expired(&sent, now + Duration::from_millis(9_999)));
        assert!(has_expired(&sent, now + Duration::from_secs(10)));
        assert!(!has_expired(&message(QoS::AtLeastOnce, false, None, now), now + Duration::from_secs(1 << 30)));

        let (theirs, ours) = (now + Duration::from_secs(4), now - Duration::from_secs(500_000));
        let arrived = decode(packet(&sent), sent.stamp.clone(), age(&sent, theirs), None, ours).unwrap();
        assert!(!has_expired(&arrived, ours + Duration::from_millis(5_999)));
        assert!(has_expired(&arrived, ours + Duration::from_secs(6)));
    }

    #[test]
    fn only_one_whole_publish_is_taken() {
        let now = start();
        let stamp = Stamp { time: 1, origin: Arc::from("x") };
        let good = packet(&message(QoS::AtLeastOnce, false, None, now));
        let two: BytesMut = [&good[..], &good[..]].concat().as_slice().into();
        let short = BytesMut::from(&good[..good.len() - 1]);
        let ping = BytesMut::from(&b"\xc0\0"[..]);
        let alias_only = BytesMut::from(&b"\x30\x06\0\0\x03\x23\0\x01"[..]);
        for bad in [two, short, ping, alias_only, BytesMut::new()] {
            assert!(decode(bad.clone(), stamp.clone(), 0, None, now).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), age: u64) {
            let _ = decode(BytesMut::from(&bytes[..]), Stamp { time: 1, origin: Arc::from("x") }, age, None, start());
        }
    }
}
