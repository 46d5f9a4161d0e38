//! A client that keeps to the standard: what it remembers, what it answers, what it must not be sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use evermq_mqtt::packet::Ack;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode};

use super::model::{Model, number};

/// Messages of a client's own that may be under way, which is what the broker grants.
pub(super) const WINDOW: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Client {
    /// Messages of QoS 1 that it has and has not acknowledged.
    had: BTreeMap<PacketId, u64>,
    /// Messages of QoS 2 that it has and whose identifier is not released.
    taken: BTreeMap<PacketId, u64>,
    /// Those that it refused.
    refused: BTreeSet<u64>,
    /// Its own, in their order, and whether they are released.
    sent: Vec<(PacketId, Publish, bool)>,
    /// What it asked for: SUBSCRIBE, UNSUBSCRIBE.
    asked: BTreeMap<PacketId, Vec<ReasonCode>>,
    /// What it has to answer.
    pub(super) answers: VecDeque<Packet>,
    /// Identifiers of the broker that were used on this connection and are not acknowledged.
    open: BTreeSet<PacketId>,
    pub(super) receive_maximum: usize,
}

pub(super) fn id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN))
}

fn ack(packet_id: PacketId, reason: ReasonCode) -> Ack {
    Ack { packet_id, reason, properties: None }
}

impl Client {
    /// The connection is gone, and the session with it unless it is `present`. What is to be sent again.
    pub(super) fn connected(&mut self, is_present: bool) -> Vec<Packet> {
        self.lost();
        if !is_present {
            let receive_maximum = self.receive_maximum;
            *self = Self { receive_maximum, ..Self::default() };
        }
        let again = |(id, publish, is_released): &(PacketId, Publish, bool)| match is_released {
            true => Packet::PubRel(ack(*id, ReasonCode::Success)),
            false => Packet::Publish(Publish { dup: true, packet_id: Some(*id), ..publish.clone() }),
        };
        self.sent.iter().map(again).collect()
    }

    pub(super) fn lost(&mut self) {
        self.answers.clear();
        self.open.clear();
        self.asked.clear();
    }

    /// An identifier for a message or a question of its own.
    pub(super) fn free_id(&self) -> Option<PacketId> {
        let is_free = |id: &PacketId| !self.asked.contains_key(id) && self.sent.iter().all(|(sent, ..)| sent != id);
        (self.sent.len() < WINDOW).then(|| (1..).map(id).find(is_free)).flatten()
    }

    pub(super) fn sends(&mut self, publish: &Publish) {
        if let Some(id) = publish.packet_id {
            self.sent.push((id, publish.clone(), false));
        }
    }

    pub(super) fn asks(&mut self, id: PacketId, answers: Vec<ReasonCode>) {
        self.asked.insert(id, answers);
    }

    pub(super) fn receive(&mut self, who: usize, packet: Packet, model: &mut Model) {
        match packet {
            Packet::Publish(publish) => self.take(who, &publish, model),
            Packet::PubRel(ack_of) => {
                self.taken.remove(&ack_of.packet_id);
                // It holds a place, and yet waits for none (`[MQTT-3.3.4-10]`): after a connection that took more there may be
                // more of them than Receive Maximum. One that says that it is of nothing holds none.
                if !ack_of.reason.is_error() {
                    self.open.insert(ack_of.packet_id);
                }
                self.answers.push_back(Packet::PubComp(ack(ack_of.packet_id, ReasonCode::Success)));
            }
            Packet::PubAck(ack) => {
                let (publish, _) = self.own(ack.packet_id).expect("PUBACK of nothing");
                assert_eq!(publish.qos, QoS::AtLeastOnce);
                assert!(model.was_routed(number(&publish)), "acknowledged and not passed on");
                self.sent.retain(|(id, ..)| *id != ack.packet_id);
            }
            Packet::PubRec(rec) => {
                let (publish, _) = self.own(rec.packet_id).expect("PUBREC of nothing");
                assert_eq!(publish.qos, QoS::ExactlyOnce);
                assert!(!rec.reason.is_error() && model.was_routed(number(&publish)), "acknowledged and not passed on");
                self.sent.iter_mut().filter(|(id, ..)| *id == rec.packet_id).for_each(|sent| sent.2 = true);
                self.answers.push_back(Packet::PubRel(ack(rec.packet_id, ReasonCode::Success)));
            }
            Packet::PubComp(comp) => match self.own(comp.packet_id) {
                Some((_, is_released)) => {
                    assert!(is_released, "PUBCOMP before PUBREL");
                    self.sent.retain(|(id, ..)| *id != comp.packet_id);
                }
                // For one that it made up; before MQTT 5.0 there is no reason beside it.
                None => assert!(matches!(comp.reason, ReasonCode::PacketIdentifierNotFound | ReasonCode::Success)),
            },
            Packet::SubAck(suback) => assert_eq!(self.asked.remove(&suback.packet_id), Some(suback.reasons)),
            Packet::UnsubAck(unsuback) => {
                let expected = self.asked.remove(&unsuback.packet_id).expect("an answer to a question");
                assert!(unsuback.reasons.is_empty() || unsuback.reasons == expected);
            }
            Packet::Disconnect(_) => {}
            other => panic!("not for a client: {other:?}"),
        }
    }

    /// Has an answer ready; what that means to the client.
    pub(super) fn answer(&mut self, refuses: bool) -> Option<Packet> {
        let mut packet = self.answers.pop_front()?;
        match &mut packet {
            Packet::PubAck(ack) => {
                self.open.remove(&ack.packet_id);
                self.had.remove(&ack.packet_id);
            }
            Packet::PubComp(ack) => drop(self.open.remove(&ack.packet_id)),
            Packet::PubRec(rec) if refuses => {
                rec.reason = ReasonCode::UnspecifiedError;
                self.open.remove(&rec.packet_id);
                self.refused.extend(self.taken.remove(&rec.packet_id));
            }
            _ => {}
        }
        Some(packet)
    }

    /// Nothing is under way either way.
    pub(super) fn is_quits(&self) -> bool {
        self.taken.is_empty() && self.sent.is_empty() && self.answers.is_empty()
    }

    fn own(&self, id: PacketId) -> Option<(Publish, bool)> {
        let (_, publish, is_released) = self.sent.iter().find(|(sent, ..)| *sent == id)?;
        Some((publish.clone(), *is_released))
    }

    fn opens(&mut self, id: PacketId) {
        self.open.insert(id);
        assert!(self.open.len() <= self.receive_maximum, "more than Receive Maximum");
    }

    fn take(&mut self, who: usize, publish: &Publish, model: &mut Model) {
        let Some(id) = publish.packet_id else {
            assert!(publish.qos == QoS::AtMostOnce && !publish.dup);
            return model.give(who, publish);
        };
        assert!(!self.open.contains(&id), "the identifier is in use on this connection");
        self.opens(id);
        if publish.qos == QoS::AtLeastOnce {
            assert!(!self.taken.contains_key(&id), "the identifier is in use for a message of QoS 2");
            let number = number(publish);
            if !(publish.dup && self.had.insert(id, number) == Some(number)) {
                model.give(who, publish);
            }
            self.had.insert(id, number);
            return self.answers.push_back(Packet::PubAck(ack(id, ReasonCode::Success)));
        }
        match self.taken.get(&id) {
            Some(before) => assert!(publish.dup && *before == number(publish), "the identifier is in use"),
            None => {
                if !(publish.dup && self.refused.contains(&number(publish))) {
                    model.give(who, publish);
                }
                self.taken.insert(id, number(publish));
            }
        }
        self.answers.push_back(Packet::PubRec(ack(id, ReasonCode::Success)));
    }
}
