//! Messages from the client (§3.3, §4.3).

use std::time::Instant;

use evermq_daemon::cluster_topics;
use evermq_mqtt::packet::Ack;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, TopicName, Version};

use super::{Action, Session, State};

/// `$SYS/` is the broker's own, `$EVERMQ/` the cluster's.
pub(super) fn is_reserved(topic: &TopicName) -> bool {
    matches!(topic.levels().next(), Some("$SYS" | cluster_topics::LEVEL))
}

impl Session {
    pub(super) fn handle_publish(&mut self, mut publish: Publish, now: Instant) {
        let State::Connected(link) = &mut self.state else { return };
        if let Err((reason, text)) = link.resolve_alias(&mut publish) {
            return self.fail(reason, text, now);
        }
        let version = link.version;
        let refusal = self.refusal(&publish);
        publish.dup = false;
        match (publish.qos, publish.packet_id.take()) {
            (QoS::AtMostOnce, _) | (_, None) => self.accept(publish, refusal),
            (QoS::AtLeastOnce, Some(id)) => {
                // The identifier belongs to an exchange of QoS 2 until its PUBREL (`[MQTT-2.2.1-3]`).
                let in_use = (version == Version::V5 && self.received.contains(&id))
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
    fn handle_qos2(&mut self, publish: Publish, id: PacketId, refusal: Option<ReasonCode>, now: Instant) {
        let State::Connected(link) = &self.state else { return };
        if self.received.contains(&id) {
            return self.send_ack(Packet::PubRec, id, None);
        }
        // Before MQTT 5.0 there is no Receive Maximum that a client could know; the identifiers bound it.
        if link.version == Version::V5 && self.received.len() >= usize::from(self.limits.max_inflight) {
            return self.fail(ReasonCode::ReceiveMaximumExceeded, "more than Receive Maximum messages", now);
        }
        // A PUBREC with an error ends the exchange (§4.3.3); before MQTT 5.0 there is none.
        if refusal.is_none() || link.version != Version::V5 {
            self.received.insert(id);
        }
        self.accept(publish, refusal);
        self.send_ack(Packet::PubRec, id, refusal);
    }

    pub(super) fn handle_pubrel(&mut self, ack: &Ack) {
        // [MQTT-4.3.3-11]: PUBCOMP in any case; §3.7.2.1: an unknown identifier is no error during recovery.
        let known = self.received.remove(&ack.packet_id);
        let reason = (!known).then_some(ReasonCode::PacketIdentifierNotFound);
        self.send_ack(Packet::PubComp, ack.packet_id, reason);
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
        if self.limits.has_too_many_levels(publish.topic.levels()) {
            return Some(ReasonCode::TopicNameInvalid);
        }
        if self.is_lb() && publish.topic.as_str() == cluster_topics::DISCONNECT {
            return None;
        }
        is_reserved(&publish.topic).then_some(ReasonCode::NotAuthorized)
    }
}
