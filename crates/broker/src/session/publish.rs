//! Messages from the client (§3.3, §4.3).

use std::time::Instant;

use evermq_daemon::cluster_topics;
use evermq_mqtt::packet::Ack;
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, TopicName, Version};

use super::changes::Change;
use super::{Action, Session, State};

/// `$SYS/` is the broker's own, `$EVERMQ/` the cluster's.
pub(crate) fn is_reserved(topic: &TopicName) -> bool {
    topic.as_str().starts_with('$') && matches!(topic.levels().next(), Some("$SYS" | cluster_topics::LEVEL))
}

/// Where a bridge of mosquitto says whether it is connected: `$SYS/broker/connection/NAME/state`. Rules may still deny it.
pub(crate) fn is_bridge_state(topic: &TopicName) -> bool {
    topic.levels().eq(["$SYS", "broker", "connection", topic.levels().nth(3).unwrap_or_default(), "state"])
}

/// Whether the payload is what its Payload Format Indicator says (§3.3.2.3.2).
pub(super) fn has_its_format(payload: &[u8], properties: &PublishProperties) -> bool {
    properties.payload_is_utf8 != Some(true) || std::str::from_utf8(payload).is_ok()
}

impl Session {
    pub(super) fn handle_publish(&mut self, mut publish: Publish, now: Instant) {
        let State::Connected(link) = &mut self.state else { return };
        if let Err((reason, text)) = link.resolve_alias(&mut publish, self.limits.max_topic_alias) {
            return self.fail(reason, text, now);
        }
        let version = link.version;
        let mut refusal = self.refusal(&publish);
        publish.dup = false;
        if refusal.is_none() && self.is_without_room(&publish) {
            if version != Version::V5 {
                // It can only be told by not being answered; it sends the message again.
                return self.fail(ReasonCode::QuotaExceeded, "no room for messages in the store", now);
            }
            refusal = Some(ReasonCode::QuotaExceeded);
        }
        match (publish.qos, publish.packet_id.take()) {
            (QoS::AtMostOnce, _) | (_, None) => self.accept(publish, refusal),
            (QoS::AtLeastOnce, Some(id)) => {
                // The identifier belongs to an exchange of QoS 2 until its PUBREL (`[MQTT-2.2.1-3]`).
                let in_use = (version == Version::V5 && self.received.contains_key(&id))
                    .then_some(ReasonCode::PacketIdentifierInUse);
                let refusal = in_use.or(refusal);
                self.accept(publish, refusal);
                self.send_ack(Packet::PubAck, id, refusal);
            }
            (QoS::ExactlyOnce, Some(id)) => self.handle_qos2(publish, id, refusal, now),
        }
    }

    /// The message is passed on at its first PUBLISH; until PUBREL the identifier marks further ones as the same message
    /// (`[MQTT-4.3.3-10]`).
    fn handle_qos2(&mut self, mut publish: Publish, id: PacketId, refusal: Option<ReasonCode>, now: Instant) {
        let State::Connected(link) = &self.state else { return };
        if self.received.contains_key(&id) {
            return self.send_ack(Packet::PubRec, id, None);
        }
        // Before MQTT 5.0 there is no Receive Maximum that a client could know; the identifiers bound it.
        if link.version == Version::V5 && self.received.len() >= usize::from(self.limits.max_inflight) {
            return self.fail(ReasonCode::ReceiveMaximumExceeded, "more than Receive Maximum messages", now);
        }
        // A PUBREC with an error ends the exchange (§4.3.3); before MQTT 5.0 there is none.
        if refusal.is_none() || link.version != Version::V5 {
            // See `Session::confirm_received`.
            self.received.insert(id, !self.durable);
            publish.packet_id = self.durable.then_some(id);
        }
        self.accept(publish, refusal);
        self.send_ack(Packet::PubRec, id, refusal);
    }

    pub(super) fn handle_pubrel(&mut self, ack: &Ack) {
        // [MQTT-4.3.3-11]: PUBCOMP in any case; §3.7.2.1: an unknown identifier is no error during recovery.
        let was_recorded = self.received.remove(&ack.packet_id);
        if was_recorded == Some(true) {
            self.note(Change::ReceivedDone(ack.packet_id));
        }
        let known = was_recorded.is_some();
        let reason = (!known).then_some(ReasonCode::PacketIdentifierNotFound);
        self.send_ack(Packet::PubComp, ack.packet_id, reason);
    }

    /// Whether the message would have to be stored and cannot. One that comes again is not new.
    fn is_without_room(&self, publish: &Publish) -> bool {
        match (publish.qos, publish.packet_id) {
            (QoS::AtMostOnce, _) | (_, None) => false,
            (QoS::ExactlyOnce, Some(id)) if self.received.contains_key(&id) => false,
            (QoS::AtLeastOnce | QoS::ExactlyOnce, Some(_)) => self.limits.durability.refuses(publish),
        }
    }

    fn accept(&mut self, publish: Publish, refusal: Option<ReasonCode>) {
        self.actions.push_back(match refusal {
            None if publish.topic.as_str() == cluster_topics::DISCONNECT => Action::SendAway(publish.payload),
            None => Action::Publish(publish),
            Some(reason) => Action::Refused(reason),
        });
    }

    fn send_ack(&mut self, packet: impl Fn(Ack) -> Packet, packet_id: PacketId, reason: Option<ReasonCode>) {
        let ack = Ack { packet_id, reason: reason.unwrap_or(ReasonCode::Success), properties: None };
        self.actions.push_back(Action::Send(packet(ack)));
    }

    /// Why a well-formed message is not accepted. Before MQTT 5.0 it is acknowledged all the same (3.1.1 `[MQTT-3.3.5-2]`).
    fn refusal(&self, publish: &Publish) -> Option<ReasonCode> {
        if publish.topic.depth() > self.limits.max_topic_levels {
            return Some(ReasonCode::TopicNameInvalid);
        }
        if publish.properties.as_deref().is_some_and(|properties| !has_its_format(&publish.payload, properties)) {
            return Some(ReasonCode::PayloadFormatInvalid);
        }
        if self.is_lb() && publish.topic.as_str() == cluster_topics::DISCONNECT {
            return None;
        }
        if is_reserved(&publish.topic) && !is_bridge_state(&publish.topic) {
            return Some(ReasonCode::NotAuthorized);
        }
        let may = self.permits.as_ref().is_none_or(|permits| permits.may_publish(&publish.topic));
        (!may).then_some(self.limits.denied)
    }
}
