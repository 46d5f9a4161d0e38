//! ◆ Packets of one side of a bridge, and what the other side gets of them.
//!
//! ```text
//!                 Subscribing ── every SUBSCRIBE is answered ──▶ Relaying
//!                      │                                            │
//!                      └── a packet that makes no sense, no answer ─┴──▶ Ended
//! ```
//!
//! While it subscribes nothing of this side is read, so a packet identifier is not in use twice. What the remote broker sends
//! goes on at once.
//!
//! **Identifiers** are those of the sessions on both sides, so an exchange goes on over any number of connections, and after a
//! crash of anybody, without anything being remembered here. Only what an earlier exchange may have left behind is swept away:
//! a message of QoS 2 that is sent for the first time has no past, so if its identifier has one at the receiver, that is of an
//! exchange that the sender has forgotten (its broker lost its store, or another host of the cluster kept the bridge). The
//! receiver would take the new message for the old one and not pass it on. So a PUBREL goes before the first message of each
//! identifier and connection, and its PUBCOMP goes no further.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use evermq_mqtt::codec;
use evermq_mqtt::packet::{Ack, Subscribe, SubscribeFilter};
use evermq_mqtt::properties::SubscribeProperties;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Version};

use super::topics::{Mapped, Topics, Way};

mod action;

pub use action::{Action, Counts, Ended, Terms};

/// Filters of one SUBSCRIBE: some clouds take no more.
const FILTERS: usize = 8;

/// One connection of a bridge, from CONNACK on.
#[derive(Debug)]
pub struct Relay {
    topics: Topics,
    terms: Terms,
    /// For SUBSCRIBE: no exchange has it.
    packet_id: PacketId,
    to_subscribe: VecDeque<SubscribeFilter>,
    /// Those whose SUBACK is awaited.
    subscribing: Vec<SubscribeFilter>,
    is_subscribed: bool,
    is_over: bool,
    swept: [Swept; 2],
    /// Messages of QoS 2 that went with QoS 1.
    lowered: HashSet<PacketId>,
    last_sent: Instant,
    last_received: Instant,
    /// Since when a PINGRESP is awaited.
    pinged: Option<Instant>,
    counts: Counts,
    actions: VecDeque<Action>,
}

/// Identifiers of one direction whose past is swept away.
#[derive(Debug, Default)]
struct Swept {
    clean: HashSet<PacketId>,
    /// Those whose PUBCOMP is still to come.
    pending: HashSet<PacketId>,
}

impl Relay {
    /// Both sides have said CONNACK. `remote` and `local` are the subscriptions that each is to make now.
    #[must_use]
    pub fn new(
        topics: Topics,
        terms: Terms,
        packet_id: PacketId,
        [remote, local]: [Vec<SubscribeFilter>; 2],
        now: Instant,
    ) -> Self {
        let mut relay = Self {
            topics,
            terms,
            packet_id,
            to_subscribe: remote.into(),
            subscribing: Vec::new(),
            is_subscribed: false,
            is_over: false,
            swept: Default::default(),
            lowered: HashSet::new(),
            last_sent: now,
            last_received: now,
            pinged: None,
            counts: Counts::default(),
            actions: VecDeque::new(),
        };
        if !local.is_empty() {
            relay.actions.push_back(Action::Local(subscribe(packet_id, local)));
        }
        relay.subscribe();
        relay
    }

    /// Whether packets of the broker here are to be read.
    #[must_use]
    pub fn reads_local(&self) -> bool {
        self.is_subscribed
    }

    /// A packet of the remote broker.
    pub fn handle_remote(&mut self, packet: Packet, now: Instant) {
        self.last_received = now;
        self.pinged = None;
        match packet {
            Packet::Publish(publish) => self.handle_incoming(publish),
            Packet::PubAck(ack) => self.handle_puback(ack),
            Packet::PubRec(ack) => {
                self.counts.refused_there += u64::from(ack.reason.is_error());
                self.local(Packet::PubRec, ack.packet_id, ack.reason);
            }
            Packet::PubRel(ack) => self.local(Packet::PubRel, ack.packet_id, ReasonCode::Success),
            Packet::PubComp(ack) if self.swept[Way::Out as usize].pending.remove(&ack.packet_id) => {}
            Packet::PubComp(ack) => self.local(Packet::PubComp, ack.packet_id, ReasonCode::Success),
            Packet::SubAck(suback) if suback.packet_id == self.packet_id && !self.is_subscribed => {
                let refused = self.subscribing.drain(..).zip(suback.reasons).filter(|(_, reason)| reason.is_error());
                self.actions.extend(refused.map(|(filter, reason)| Action::Refused(filter, reason)));
                self.subscribe();
            }
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => self.end(Ended::Remote(disconnect.reason.name())),
            Packet::SubAck(_)
            | Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::Auth(_) => self.end(Ended::OutOfTurn(codec::packet_type(&packet))),
        }
    }

    /// A packet of the broker here.
    pub fn handle_local(&mut self, packet: Packet, now: Instant) {
        match packet {
            Packet::Publish(publish) => self.handle_outgoing(publish, now),
            Packet::PubAck(ack) => self.acknowledge(Packet::PubAck, &ack, now),
            Packet::PubRec(ack) => self.acknowledge(Packet::PubRec, &ack, now),
            // What the remote broker never had at QoS 2 need not be released there.
            Packet::PubRel(ack) if self.terms.max_qos < QoS::ExactlyOnce => {
                self.local(Packet::PubComp, ack.packet_id, ReasonCode::Success);
            }
            Packet::PubRel(ack) => self.remote(Packet::PubRel(plain(ack.packet_id)), now),
            Packet::PubComp(ack) if self.swept[Way::In as usize].pending.remove(&ack.packet_id) => {}
            Packet::PubComp(ack) => self.remote(Packet::PubComp(plain(ack.packet_id)), now),
            Packet::Disconnect(disconnect) => self.end(Ended::Local(disconnect.reason.name())),
            // Its own answers to what the driver and this relay asked for; the rest is not sent to a client like this one.
            Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => {}
        }
    }

    /// The time that [`Relay::poll_timeout`] gave has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let keep_alive = self.terms.keep_alive;
        if keep_alive.is_zero() || self.is_over {
            return;
        }
        match self.pinged {
            Some(since) if now >= since + keep_alive => self.end(Ended::Silent),
            Some(_) => {}
            None if now >= self.last_sent.min(self.last_received) + keep_alive => {
                self.pinged = Some(now);
                self.remote(Packet::PingReq, now);
            }
            None => {}
        }
    }

    /// When [`Relay::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let since = self.pinged.unwrap_or_else(|| self.last_sent.min(self.last_received));
        (!self.terms.keep_alive.is_zero() && !self.is_over).then(|| since + self.terms.keep_alive)
    }

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What has gone over it since this was asked last.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    fn subscribe(&mut self) {
        if self.to_subscribe.is_empty() {
            self.is_subscribed = true;
            return self.actions.push_back(Action::Subscribed);
        }
        let count = self.to_subscribe.len().min(FILTERS);
        self.subscribing = self.to_subscribe.drain(..count).collect();
        let packet = subscribe(self.packet_id, self.subscribing.clone());
        self.actions.push_back(Action::Remote(packet));
    }

    /// A message for the remote broker.
    fn handle_outgoing(&mut self, mut publish: Publish, now: Instant) {
        match self.topics.map(Way::Out, &publish.topic) {
            Mapped::Topic(topic) => publish.topic = topic,
            // It waited through a subscription that is gone.
            Mapped::Unwanted => return self.give_up(&publish, |counts| &mut counts.unwanted),
            Mapped::Impossible => return self.give_up(&publish, |counts| &mut counts.refused_there),
        }
        publish.retain &= self.terms.takes_retained;
        let original = (publish.qos, publish.packet_id);
        if publish.qos > self.terms.max_qos {
            publish.qos = self.terms.max_qos;
            publish.packet_id = publish.packet_id.filter(|_| publish.qos > QoS::AtMostOnce);
            publish.dup &= publish.qos > QoS::AtMostOnce;
        }
        let packet = Packet::Publish(publish);
        if codec::encoded_len(&packet, self.terms.version) > self.terms.max_packet_size as usize {
            return self.complete(original, |counts| &mut counts.refused_there);
        }
        let Packet::Publish(publish) = &packet else { return };
        match (original.0, publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, QoS::AtLeastOnce, Some(id)) => {
                self.lowered.insert(id);
            }
            (QoS::ExactlyOnce, QoS::ExactlyOnce, Some(id)) if !publish.dup => self.sweep(Way::Out, id, now),
            (_, QoS::AtMostOnce, _) if original.1.is_some() => {
                self.remote(packet, now);
                return self.complete(original, |counts| &mut counts.sent);
            }
            _ => {}
        }
        self.counts.sent += 1;
        self.remote(packet, now);
    }

    /// A message of the remote broker.
    fn handle_incoming(&mut self, mut publish: Publish) {
        self.counts.received += 1;
        let mapped = self.topics.map(Way::In, &publish.topic);
        let refused: fn(&mut Counts) -> &mut u64 = match mapped {
            Mapped::Topic(topic) => {
                publish.topic = topic;
                if let Some(properties) = &mut publish.properties {
                    // Neither is asked for, and neither is for a client to send.
                    properties.subscription_ids.clear();
                    properties.topic_alias = None;
                }
                let (id, is_new) = (publish.packet_id, publish.qos == QoS::ExactlyOnce && !publish.dup);
                let packet = Packet::Publish(publish);
                let len = codec::encoded_len(&packet, Version::V5);
                if len <= self.terms.max_packet_size_here as usize {
                    if let Some(id) = id.filter(|_| is_new) {
                        self.sweep(Way::In, id, self.last_received);
                    }
                    return self.actions.push_back(Action::Local(packet));
                }
                let Packet::Publish(too_large) = packet else { return };
                publish = too_large;
                |counts| &mut counts.refused_here
            }
            Mapped::Unwanted => |counts| &mut counts.unwanted,
            Mapped::Impossible => |counts| &mut counts.refused_here,
        };
        *refused(&mut self.counts) += 1;
        let now = self.last_received;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.remote(Packet::PubAck(plain(id)), now),
            // Its PUBREL goes to the broker here, which answers one for what it does not know, too.
            (QoS::ExactlyOnce, Some(id)) => self.remote(Packet::PubRec(plain(id)), now),
            (QoS::AtMostOnce, _) | (_, None) => {}
        }
    }

    fn handle_puback(&mut self, ack: Ack) {
        self.counts.refused_there += u64::from(ack.reason.is_error());
        if self.lowered.remove(&ack.packet_id) {
            self.local(Packet::PubRec, ack.packet_id, ReasonCode::UnspecifiedError);
        } else {
            self.local(Packet::PubAck, ack.packet_id, ReasonCode::Success);
        }
    }

    /// The broker here has taken a message of the remote one, or never will.
    fn acknowledge(&mut self, packet: fn(Ack) -> Packet, ack: &Ack, now: Instant) {
        if ack.reason == ReasonCode::QuotaExceeded {
            return self.end(Ended::NoRoom);
        }
        self.counts.refused_here += u64::from(ack.reason.is_error());
        // That nobody has asked for it is for a server to say.
        let reason = if ack.reason.is_error() { ack.reason } else { ReasonCode::Success };
        self.remote(packet(Ack { reason, ..plain(ack.packet_id) }), now);
    }

    /// See the module.
    fn sweep(&mut self, way: Way, id: PacketId, now: Instant) {
        let swept = &mut self.swept[way as usize];
        if !swept.clean.insert(id) {
            return;
        }
        swept.pending.insert(id);
        match way {
            Way::Out => self.remote(Packet::PubRel(plain(id)), now),
            Way::In => self.local(Packet::PubRel, id, ReasonCode::Success),
        }
    }

    /// A message that the remote broker does not get.
    fn give_up(&mut self, publish: &Publish, count: fn(&mut Counts) -> &mut u64) {
        self.complete((publish.qos, publish.packet_id), count);
    }

    /// Ends the exchange here: a PUBREC with an error is the last word (§4.3.3).
    fn complete(&mut self, (qos, id): (QoS, Option<PacketId>), count: fn(&mut Counts) -> &mut u64) {
        *count(&mut self.counts) += 1;
        match (qos, id) {
            (QoS::AtLeastOnce, Some(id)) => self.local(Packet::PubAck, id, ReasonCode::Success),
            (QoS::ExactlyOnce, Some(id)) => self.local(Packet::PubRec, id, ReasonCode::UnspecifiedError),
            (QoS::AtMostOnce, _) | (_, None) => {}
        }
    }

    fn remote(&mut self, packet: Packet, now: Instant) {
        self.last_sent = now;
        self.actions.push_back(Action::Remote(packet));
    }

    /// What the remote broker said in a reason code is for the bridge; the session here only needs to know whether it is over.
    fn local(&mut self, packet: fn(Ack) -> Packet, id: PacketId, reason: ReasonCode) {
        let reason = if reason.is_error() { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        self.actions.push_back(Action::Local(packet(Ack { reason, ..plain(id) })));
    }

    fn end(&mut self, ended: Ended) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.actions.push_back(Action::End(ended));
        }
    }
}

fn plain(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: None }
}

fn subscribe(packet_id: PacketId, filters: Vec<SubscribeFilter>) -> Packet {
    Packet::Subscribe(Subscribe { packet_id, filters, properties: SubscribeProperties::default() })
}

#[cfg(test)]
mod tests;
