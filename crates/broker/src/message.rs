//! A message on its way to its receivers: encoded at most once for each version and QoS, however many they are.

mod body;
mod origin;

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evermq_bridge::Message;
use evermq_mqtt::codec::{self, Alias, EncodeError, PublishFrame, Sent};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, Text, TopicName, Version};
use evermq_store::Handle;

use crate::share::ShareRef;
pub use body::Body;
pub use origin::Origin;

/// A message that several sessions hold.
#[derive(Debug)]
pub struct Shared {
    body: Body,
    /// `None` for a message with one receiver: to keep what it is encoded to would cost more than it saves.
    frames: Option<Box<Frames>>,
    detached: OnceLock<Arc<Shared>>,
    /// Whose it is, if that matters.
    origin: Option<Arc<Origin>>,
    /// Where the store has it, if it does: at most once, however many wait for it.
    stored: OnceLock<Handle>,
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
    /// The group that it came through, which gets it back if the session ends before it is acknowledged (§4.8.2).
    pub share: Option<ShareRef>,
}

impl Shared {
    /// Wraps `message` for its receivers. It makes a difference in speed only whether they are `many`.
    #[must_use]
    pub fn new(message: impl Into<Body>, many: bool) -> Arc<Self> {
        Self::with_origin(message, many, None)
    }

    /// The same of a message whose origin matters.
    #[must_use]
    pub fn with_origin(message: impl Into<Body>, many: bool, origin: Option<Arc<Origin>>) -> Arc<Self> {
        Arc::new(Self {
            origin,
            body: message.into(),
            frames: many.then(Box::default),
            detached: OnceLock::new(),
            stored: OnceLock::new(),
        })
    }

    /// A message out of the store.
    #[must_use]
    pub fn recovered(message: impl Into<Body>, many: bool, stored: Handle) -> Arc<Self> {
        let frames = many.then(Box::default);
        Arc::new(Self {
            body: message.into(),
            frames,
            detached: OnceLock::new(),
            origin: None,
            stored: OnceLock::from(stored),
        })
    }

    /// Where the store has it; `store` puts it there if nobody has so far, unless it has no room.
    pub fn stored(&self, store: &mut dyn FnMut(&Self) -> Option<Handle>) -> Option<&Handle> {
        if self.stored.get().is_none() {
            // A copy with bytes of its own is the same message.
            let handle = match self.detached.get() {
                Some(detached) => detached.stored(store)?.clone(),
                None => store(self)?,
            };
            // Where two threads have come here at once, the store has it twice.
            let _ = self.stored.set(handle);
        }
        if let Some(detached) = self.detached.get() {
            detached.is_stored_as(self);
        }
        self.stored.get()
    }

    /// Whose it is, if that matters.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// Whether nothing keeps it from being sent at QoS 2.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.hold().is_released())
    }

    /// It is its topic's retained message no longer.
    pub fn is_not_retained(&self) {
        if let Some(handle) = self.stored.get() {
            handle.not_retained();
        }
    }

    /// Where the store has it, if another holder of the same message has put it there.
    pub fn is_stored_at(&self, handle: Handle) {
        let _ = self.stored.set(handle);
    }

    /// `other` is the same message, with bytes of its own.
    pub fn is_stored_as(&self, other: &Self) {
        if let Some(handle) = other.stored.get() {
            // If it has a place already, that one is as good.
            let _ = self.stored.set(handle.clone());
        }
    }

    /// Where the store has it, if it does.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle> {
        self.stored.get()
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.body
    }

    /// The message for others to hold: a copy of what is the sessions' alone, without its bytes.
    #[must_use]
    pub fn to_message(&self) -> Arc<Message> {
        match &self.body {
            Body::Own(message) => Arc::new(message.clone()),
            Body::Shared(message) => Arc::clone(message),
        }
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.body.publish.payload.len()
    }

    /// Reads a little of all that sending it needs; what comes out means nothing.
    pub(crate) fn touch(self: &Arc<Self>) -> usize {
        let Publish { topic, payload, properties, .. } = &self.body.publish;
        Arc::strong_count(self)
            ^ usize::from(properties.is_some())
            ^ topic.as_str().len()
            ^ payload.first().copied().map_or(0, usize::from)
    }

    /// Bytes that it keeps in memory, which is more than it has on the wire where it has many properties.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.body.publish.weight()
    }

    /// Where its bytes are, for telling which messages share a buffer.
    #[must_use]
    pub fn address(&self) -> usize {
        let Publish { payload, topic, .. } = &self.body.publish;
        if payload.is_empty() { topic.as_str().as_ptr().addr() } else { payload.as_ptr().addr() }
    }

    /// The same message with bytes of its own, so that a small message which waits does not keep the large buffer alive
    /// that it was read into. Made once, shared by all who wait.
    #[must_use]
    pub fn detached(&self) -> Arc<Self> {
        Arc::clone(self.detached.get_or_init(|| {
            let own = Self::with_origin(detach(&self.body), self.frames.is_some(), self.origin.clone());
            own.is_stored_as(self);
            own
        }))
    }

    /// Whether the message expiry interval has passed (§3.3.2.3.3).
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        expiry(&self.body).is_some_and(|interval| now.saturating_duration_since(self.body.received) >= interval)
    }

    /// The PUBLISH for every receiver of that version and QoS, if there are several.
    fn frame(&self, version: Version, qos: QoS) -> Option<Result<&PublishFrame, EncodeError>> {
        let frame = &self.frames.as_ref()?[usize::from(version == Version::V5) * 3 + qos as usize];
        if let Some(made) = frame.get() {
            return Some(Ok(made));
        }
        let made = PublishFrame::new(&self.body.publish, version, qos);
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
        if !self.is_own(version) {
            return Ok(codec::publish_len(&self.message.body.publish, version, self.qos));
        }
        let id = (self.qos > QoS::AtMostOnce).then_some(PacketId(std::num::NonZeroU16::MIN));
        Ok(codec::encoded_len(&self.own_packet(version, false, id, None, now), version))
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
        alias: Option<Alias>,
        now: Instant,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match (self.common(version), alias) {
            (Some(frame), None) => {
                frame?.write(out, dup, self.retain, packet_id);
                Ok(())
            }
            (Some(frame), Some(alias)) => frame?.write_aliased(out, dup, self.retain, packet_id, alias),
            (None, None) if !self.is_own(version) => {
                let sent = Sent { version, qos: self.qos, dup, retain: self.retain, packet_id };
                codec::encode_publish(&self.message.body.publish, sent, out)
            }
            (None, _) => codec::encode(&self.own_packet(version, dup, packet_id, alias, now), version, out),
        }
    }

    /// The PUBLISH that this receiver shares with others.
    fn common(&self, version: Version) -> Option<Result<&PublishFrame, EncodeError>> {
        if self.is_own(version) { None } else { self.message.frame(version, self.qos) }
    }

    /// Whether this receiver's PUBLISH says what no other's does.
    fn is_own(&self, version: Version) -> bool {
        version == Version::V5 && (self.ids.is_some() || expiry(&self.message.body).is_some())
    }

    fn own_packet(
        &self,
        version: Version,
        dup: bool,
        packet_id: Option<PacketId>,
        alias: Option<Alias>,
        now: Instant,
    ) -> Packet {
        let message = &self.message.body;
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
        if let Some(Alias { number, is_new }) = alias {
            publish.properties.get_or_insert_default().topic_alias = Some(number.get());
            if !is_new {
                publish.topic = TopicName::default();
            }
        }
        if let Some(ids) = &self.ids {
            publish.properties.get_or_insert_default().subscription_ids = ids.to_vec();
        }
        // [MQTT-3.3.2-6]: the interval that is left, less whole seconds, so that one which is passed on at once keeps all of
        // it. A message that is sent again may have none left.
        if let Some(interval) = publish.properties.as_mut().and_then(|properties| properties.message_expiry.as_mut()) {
            let waited = now.saturating_duration_since(message.received).as_secs();
            *interval = interval.saturating_sub(u32::try_from(waited).unwrap_or(u32::MAX));
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
    Message { publish: detach_publish(&message.publish), stamp: message.stamp.clone(), ..*message }
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
