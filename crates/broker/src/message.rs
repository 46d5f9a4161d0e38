//! A message on its way to its receivers: encoded at most once for each version and QoS, however many they are.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evermq_bridge::Message;
use evermq_mqtt::codec::{self, EncodeError, PublishFrame};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, Text, TopicName, Version};

/// A message that several sessions hold.
#[derive(Debug)]
pub struct Shared {
    message: Arc<Message>,
    /// `None` for a message with one receiver: to keep what it is encoded to would cost more than it saves.
    frames: Option<Box<Frames>>,
    detached: OnceLock<Arc<Shared>>,
}

/// The forms of a PUBLISH: 3.1.1 (and 3.1) or 5.0, each with one of three QoS.
type Frames = [OnceLock<PublishFrame>; 6];

/// One session's copy of a message.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Shared>,
    /// The lower of the publisher's QoS and the subscription's (`[MQTT-3.8.4-8]`).
    pub qos: QoS,
    /// The RETAIN flag as this subscriber sees it (§3.3.1.3).
    pub retain: bool,
    /// Identifiers of the subscriptions that match (`[MQTT-3.3.4-3]`); `None` where there are none.
    pub ids: Option<Arc<[NonZeroU32]>>,
}

impl Shared {
    /// Wraps `message` for its receivers. It makes a difference in speed only whether they are `many`.
    #[must_use]
    pub fn new(message: Arc<Message>, many: bool) -> Arc<Self> {
        Arc::new(Self { message, frames: many.then(Box::default), detached: OnceLock::new() })
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.message.publish.payload.len()
    }

    /// Where its bytes are, for telling which messages share a buffer.
    #[must_use]
    pub fn address(&self) -> usize {
        let Publish { payload, topic, .. } = &self.message.publish;
        if payload.is_empty() { topic.as_str().as_ptr().addr() } else { payload.as_ptr().addr() }
    }

    /// The same message with bytes of its own, so that a small message which waits does not keep the large buffer alive
    /// that it was read into. Made once, shared by all who wait.
    #[must_use]
    pub fn detached(&self) -> Arc<Self> {
        Arc::clone(self.detached.get_or_init(|| Self::new(Arc::new(detach(&self.message)), self.frames.is_some())))
    }

    /// Whether the message expiry interval has passed (§3.3.2.3.3).
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        expiry(&self.message).is_some_and(|interval| now.saturating_duration_since(self.message.received) >= interval)
    }

    /// The PUBLISH for every receiver of that version and QoS, if there are several.
    fn frame(&self, version: Version, qos: QoS) -> Option<Result<&PublishFrame, EncodeError>> {
        let frame = &self.frames.as_ref()?[usize::from(version == Version::V5) * 3 + qos as usize];
        if let Some(made) = frame.get() {
            return Some(Ok(made));
        }
        let made = PublishFrame::new(&self.message.publish, version, qos);
        Some(made.map(|made| frame.get_or_init(|| made)))
    }
}

impl Delivery {
    /// Bytes of the PUBLISH that [`Delivery::write`] makes, at most.
    ///
    /// # Errors
    /// The message is too large for MQTT.
    pub fn encoded_len(&self, version: Version, now: Instant) -> Result<usize, EncodeError> {
        if let Some(frame) = self.common(version) {
            return Ok(frame?.len());
        }
        let id = (self.qos > QoS::AtMostOnce).then_some(PacketId(std::num::NonZeroU16::MIN));
        Ok(codec::encoded_len(&self.own_packet(version, false, id, now), version))
    }

    /// Appends the PUBLISH to `out`.
    ///
    /// # Errors
    /// The message is too large for MQTT; nothing is appended.
    pub fn write(
        &self,
        version: Version,
        dup: bool,
        packet_id: Option<PacketId>,
        now: Instant,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        if let Some(frame) = self.common(version) {
            frame?.write(out, dup, self.retain, packet_id);
            return Ok(());
        }
        codec::encode(&self.own_packet(version, dup, packet_id, now), version, out)
    }

    /// The PUBLISH that this receiver shares with others.
    fn common(&self, version: Version) -> Option<Result<&PublishFrame, EncodeError>> {
        let is_own = version == Version::V5 && (self.ids.is_some() || expiry(&self.message.message).is_some());
        if is_own { None } else { self.message.frame(version, self.qos) }
    }

    fn own_packet(&self, version: Version, dup: bool, packet_id: Option<PacketId>, now: Instant) -> Packet {
        let message = &self.message.message;
        let Publish { topic, properties, payload, .. } = &message.publish;
        let mut publish = Publish {
            dup,
            qos: self.qos,
            retain: self.retain,
            topic: topic.clone(),
            packet_id,
            properties: if version == Version::V5 { properties.clone() } else { None },
            payload: payload.clone(),
        };
        if version != Version::V5 {
            return Packet::Publish(publish);
        }
        if let Some(ids) = &self.ids {
            publish.properties.get_or_insert_default().subscription_ids = ids.to_vec();
        }
        // [MQTT-3.3.2-6]: the interval that is left. A message that is sent again may have none left.
        if let Some(interval) = expiry(message) {
            let left = interval.saturating_sub(now.saturating_duration_since(message.received));
            publish.properties.get_or_insert_default().message_expiry =
                Some(u32::try_from(left.as_secs()).unwrap_or(u32::MAX));
        }
        Packet::Publish(publish)
    }
}

/// How long the message may wait for a receiver, from [`Message::received`] on.
#[must_use]
pub fn expiry(message: &Message) -> Option<Duration> {
    let seconds = message.publish.properties.as_ref()?.message_expiry?;
    Some(Duration::from_secs(seconds.into()))
}

/// A copy of `message` that shares no bytes with it.
#[must_use]
pub fn detach(message: &Message) -> Message {
    Message { publish: detach_publish(&message.publish), stamp: message.stamp.clone(), received: message.received }
}

/// A copy of `publish` that shares no bytes with it.
#[must_use]
pub fn detach_publish(publish: &Publish) -> Publish {
    Publish {
        topic: TopicName::new(publish.topic.text().detached()).expect("a copy of a topic name is one"),
        payload: Bytes::copy_from_slice(&publish.payload),
        properties: publish.properties.as_deref().map(|properties| Box::new(detach_properties(properties))),
        ..*publish
    }
}

fn detach_properties(properties: &PublishProperties) -> PublishProperties {
    PublishProperties {
        payload_is_utf8: properties.payload_is_utf8,
        message_expiry: properties.message_expiry,
        topic_alias: properties.topic_alias,
        response_topic: properties.response_topic.as_ref().map(Text::detached),
        correlation_data: properties.correlation_data.as_ref().map(|data| Bytes::copy_from_slice(data)),
        user_properties: properties
            .user_properties
            .iter()
            .map(|(name, value)| (name.detached(), value.detached()))
            .collect(),
        subscription_ids: properties.subscription_ids.clone(),
        content_type: properties.content_type.as_ref().map(Text::detached),
    }
}
