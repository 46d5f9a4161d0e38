//! What a client remembers beyond a connection (MQTT 5.0 §4.1, §4.3, §4.4): messages on their way out, QoS 2 messages on
//! their way in. Pure: no I/O, no clock.
//!
//! ```text
//! out, QoS 1   waiting --PUBLISH--> published --PUBACK--> done
//! out, QoS 2   waiting --PUBLISH--> published --PUBREC, PUBREL--> released --PUBCOMP--> done
//! in,  QoS 2   PUBLISH (delivered, PUBREC) --PUBREL, PUBCOMP--> forgotten; PUBLISH again: PUBREC only
//! ```
//!
//! After a loss all that is published or released is sent again, with DUP if the server still knows the session. If it
//! does not, every message that lacks its last acknowledgement is sent as a new one: rather twice than not at all.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU16;

use evermq_mqtt::packet::{Ack, ConnAck};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicName};

use super::failure::Failure;

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Send(Packet),
    /// A message for the user.
    Deliver(Publish),
    /// A message of the user's is done; `reason` says how.
    Acknowledged {
        reason: ReasonCode,
        text: Option<Text>,
    },
    /// The answer to a SUBSCRIBE.
    Subscribed(Vec<ReasonCode>),
    /// The answer to an UNSUBSCRIBE.
    Unsubscribed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Published,
    Released,
}

#[derive(Debug)]
struct Outbound {
    publish: Publish,
    id: PacketId,
    stage: Stage,
    /// Sent before, in this session.
    is_repeated: bool,
}

/// The client's side of a session.
#[derive(Debug)]
pub(super) struct Session {
    /// Messages above QoS 0 that may be held at once.
    capacity: usize,
    /// How many of them may be on their way: the server's Receive Maximum.
    window: usize,
    next_id: NonZeroU16,
    outbound: VecDeque<Outbound>,
    inbound: BTreeSet<PacketId>,
    /// Topic aliases of the server, at most as many as we allow.
    aliases: HashMap<u16, TopicName>,
    maximum_alias: u16,
    actions: VecDeque<Action>,
}

impl Session {
    /// `capacity` messages above QoS 0 at once; the server may use topic aliases up to `maximum_alias`.
    pub(super) fn new(capacity: u16, maximum_alias: u16) -> Self {
        Self {
            capacity: usize::from(capacity.max(1)),
            window: 0,
            next_id: NonZeroU16::MIN,
            outbound: VecDeque::new(),
            inbound: BTreeSet::new(),
            aliases: HashMap::new(),
            maximum_alias,
            actions: VecDeque::new(),
        }
    }

    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether [`Session::publish`] may be called.
    pub(super) fn has_room(&self) -> bool {
        self.outbound.len() < self.capacity
    }

    /// Messages that lack their last acknowledgement.
    pub(super) fn unacknowledged(&self) -> usize {
        self.outbound.len()
    }

    /// The next free packet identifier (`[MQTT-2.2.1-3]`).
    pub(super) fn allocate_id(&mut self) -> PacketId {
        // There are fewer messages than identifiers, so one is free.
        loop {
            let id = PacketId(self.next_id);
            self.next_id = self.next_id.checked_add(1).unwrap_or(NonZeroU16::MIN);
            if self.outbound.iter().all(|outbound| outbound.id != id) {
                return id;
            }
        }
    }

    /// Takes a message of the user's; its DUP and packet identifier are set here.
    pub(super) fn publish(&mut self, publish: Publish) {
        if publish.qos == QoS::AtMostOnce {
            self.actions.push_back(Action::Send(Packet::Publish(publish)));
            self.actions.push_back(Action::Acknowledged { reason: ReasonCode::Success, text: None });
            return;
        }
        let id = self.allocate_id();
        self.outbound.push_back(Outbound { publish, id, stage: Stage::Waiting, is_repeated: false });
        self.fill_window();
    }

    /// A connection begins.
    pub(super) fn handle_connected(&mut self, connack: &ConnAck) {
        self.window = connack.properties.receive_maximum.unwrap_or(u16::MAX).into();
        self.aliases.clear();
        self.actions.clear();
        if !connack.session_present {
            self.inbound.clear();
        }
        for outbound in &mut self.outbound {
            match (connack.session_present, outbound.stage) {
                // [MQTT-4.4.0-1]: PUBLISH again with DUP, PUBREL again.
                (true, Stage::Published) => {
                    outbound.stage = Stage::Waiting;
                    outbound.is_repeated = true;
                }
                (true, Stage::Released) => {
                    self.actions.push_back(Action::Send(Packet::PubRel(success(outbound.id))));
                }
                (true, Stage::Waiting) => {}
                (false, _) => {
                    outbound.stage = Stage::Waiting;
                    outbound.is_repeated = false;
                }
            }
        }
        self.fill_window();
    }

    /// A connection is over.
    pub(super) fn handle_disconnected(&mut self) {
        self.window = 0;
    }

    /// A packet from the server.
    pub(super) fn handle_packet(&mut self, packet: Packet) -> Result<(), Failure> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => {
                self.finish(&ack, QoS::AtLeastOnce, Stage::Published);
                Ok(())
            }
            Packet::PubRec(ack) => {
                self.handle_pubrec(&ack);
                Ok(())
            }
            Packet::PubComp(ack) => {
                self.finish(&ack, QoS::ExactlyOnce, Stage::Released);
                Ok(())
            }
            Packet::PubRel(ack) => {
                self.inbound.remove(&ack.packet_id);
                self.actions.push_back(Action::Send(Packet::PubComp(success(ack.packet_id))));
                Ok(())
            }
            Packet::SubAck(suback) => {
                self.actions.push_back(Action::Subscribed(suback.reasons));
                Ok(())
            }
            Packet::UnsubAck(_) => {
                self.actions.push_back(Action::Unsubscribed);
                Ok(())
            }
            Packet::ConnAck(_) => Err(Failure::Unexpected("a second CONNACK")),
            Packet::Auth(_) => Err(Failure::Unexpected("AUTH")),
            // The connection takes these, and a server never sends them.
            Packet::PingResp | Packet::Disconnect(_) => Ok(()),
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq => {
                Err(Failure::Unexpected("a client's packet"))
            }
        }
    }

    fn handle_publish(&mut self, mut publish: Publish) -> Result<(), Failure> {
        self.resolve_alias(&mut publish)?;
        let (qos, id) = (publish.qos, publish.packet_id);
        // [MQTT-4.3.3-10]: a QoS 2 message that is known already is not delivered again.
        let is_new = match (qos, id) {
            (QoS::ExactlyOnce, Some(id)) => self.inbound.insert(id),
            _ => true,
        };
        if is_new {
            self.actions.push_back(Action::Deliver(publish));
        }
        match (qos, id) {
            (QoS::AtLeastOnce, Some(id)) => self.actions.push_back(Action::Send(Packet::PubAck(success(id)))),
            (QoS::ExactlyOnce, Some(id)) => self.actions.push_back(Action::Send(Packet::PubRec(success(id)))),
            _ => {}
        }
        Ok(())
    }

    /// §3.3.2.3.4
    fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), Failure> {
        let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
        let Some(alias) = alias else { return Ok(()) };
        // [MQTT-3.1.2-26]
        if alias > self.maximum_alias {
            return Err(Failure::Unexpected("a topic alias above the maximum"));
        }
        if publish.topic.as_str().is_empty() {
            publish.topic = self.aliases.get(&alias).ok_or(Failure::Unexpected("an unknown topic alias"))?.clone();
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    fn handle_pubrec(&mut self, ack: &Ack) {
        let Some(at) = self.position(ack.packet_id, QoS::ExactlyOnce) else {
            // A PUBREC for what is done: the server has to forget it (§4.3.3).
            self.actions.push_back(Action::Send(Packet::PubRel(success(ack.packet_id))));
            return;
        };
        if ack.reason.is_error() {
            self.remove(at, ack);
            return;
        }
        self.outbound[at].stage = Stage::Released;
        self.actions.push_back(Action::Send(Packet::PubRel(success(ack.packet_id))));
    }

    /// The last acknowledgement of a message; one that fits nothing is left aside.
    fn finish(&mut self, ack: &Ack, qos: QoS, stage: Stage) {
        if let Some(at) = self.position(ack.packet_id, qos).filter(|at| self.outbound[*at].stage == stage) {
            self.remove(at, ack);
        }
    }

    fn position(&self, id: PacketId, qos: QoS) -> Option<usize> {
        let is_it =
            |outbound: &Outbound| outbound.id == id && outbound.publish.qos == qos && outbound.stage != Stage::Waiting;
        self.outbound.iter().position(is_it)
    }

    fn remove(&mut self, at: usize, ack: &Ack) {
        self.outbound.remove(at);
        let text = ack.properties.as_ref().and_then(|properties| properties.reason_string.clone());
        // A PUBCOMP for an unknown identifier ends the exchange as well (table 3-7).
        let reason = if ack.reason == ReasonCode::PacketIdentifierNotFound { ReasonCode::Success } else { ack.reason };
        self.actions.push_back(Action::Acknowledged { reason, text });
        self.fill_window();
    }

    /// Sends waiting messages, in order, as far as the server's Receive Maximum goes (`[MQTT-3.3.4-7]`).
    fn fill_window(&mut self) {
        let on_their_way = self.outbound.iter().filter(|outbound| outbound.stage != Stage::Waiting).count();
        let room = self.window.saturating_sub(on_their_way);
        for outbound in self.outbound.iter_mut().filter(|outbound| outbound.stage == Stage::Waiting).take(room) {
            outbound.stage = Stage::Published;
            let publish =
                Publish { dup: outbound.is_repeated, packet_id: Some(outbound.id), ..outbound.publish.clone() };
            self.actions.push_back(Action::Send(Packet::Publish(publish)));
        }
    }
}

fn success(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: None }
}

#[cfg(test)]
mod tests;
