//! Messages to the client: waiting, sending, resending, acknowledgements (§4.3, §4.4, §4.9).

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use evermq_bridge::Hold;
use evermq_mqtt::codec::{self, Alias, EncodeError};
use evermq_mqtt::packet::Ack;
use evermq_mqtt::{Packet, PacketId, QoS, ReasonCode, Version};

use super::changes::Change;
use super::inflight::Stage;
use super::queue::Pushed;
use super::{Action, Session, State};
use crate::message::Delivery;
use crate::share::Room;

/// Messages beyond this many that are out get bytes of their own: a client that does not acknowledge must not keep the
/// buffers alive that they were read into.
const ATTACHED: usize = 256;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Messages that this client will not get: this one or older ones.
    pub dropped: usize,
    /// This one is among them.
    pub refused: bool,
    /// This is the session's first message that is dropped.
    pub overflowed: bool,
    /// It was refused for lack of room in all sessions together.
    pub exhausted: bool,
    /// The connection has something to send.
    pub ready: bool,
    /// The queue is more than half full, and takes more.
    pub congested: bool,
}

/// A packet that the flow control let go.
#[derive(Debug)]
pub enum Transmit {
    /// PUBLISH.
    Publish {
        /// The message.
        delivery: Delivery,
        /// Sent before.
        dup: bool,
        /// Above QoS 0.
        packet_id: Option<PacketId>,
    },
    /// PUBREL, sent again.
    PubRel(PacketId),
}

impl Transmit {
    /// When the message came to this broker, unless it is one that was retained.
    #[must_use]
    pub fn received(&self) -> Option<Instant> {
        match self {
            Self::Publish { delivery, .. } if !delivery.retain => Some(delivery.message.message().received),
            Self::Publish { .. } | Self::PubRel(_) => None,
        }
    }

    /// The message's QoS.
    #[must_use]
    pub fn qos(&self) -> Option<QoS> {
        match self {
            Self::Publish { delivery, .. } => Some(delivery.qos),
            Self::PubRel(_) => None,
        }
    }

    /// Bytes of the message.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        match self {
            Self::Publish { delivery, .. } => delivery.message.payload_len(),
            Self::PubRel(_) => 0,
        }
    }

    /// Whether it is of an exchange of QoS 2.
    #[must_use]
    pub fn is_exactly_once(&self) -> bool {
        match self {
            Self::Publish { delivery, .. } => delivery.qos == QoS::ExactlyOnce,
            Self::PubRel(_) => true,
        }
    }

    /// Appends the packet to `out`, a PUBLISH with `alias` for or beside its topic name.
    ///
    /// # Errors
    /// The message is too large for MQTT; nothing is appended.
    pub fn write(
        &self,
        version: Version,
        alias: Option<Alias>,
        now: Instant,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Publish { delivery, dup, packet_id } => delivery.write(version, *dup, *packet_id, alias, now, out),
            Self::PubRel(packet_id) => codec::encode(&pubrel(*packet_id, ReasonCode::Success), version, out),
        }
    }
}

impl Session {
    /// A message for this client.
    pub fn deliver(&mut self, delivery: Delivery) -> Delivered {
        self.enqueue(delivery, false)
    }

    /// Whether there is as much room as `wanted` for a message of a shared subscription.
    #[must_use]
    pub fn has_room(&self, delivery: &Delivery, wanted: Room) -> bool {
        let bounds = self.limits.queue();
        match wanted {
            // What this client may not have is another member's.
            _ if self.is_ended() || !self.may_receive(delivery) => false,
            Room::Plenty => !self.queue.is_congested(bounds) && self.queue.has_room(delivery, bounds),
            Room::Some => self.queue.has_room(delivery, bounds),
            Room::Any => true,
        }
    }

    /// A retained message that the client's SUBSCRIBE asked for.
    pub fn deliver_retained(&mut self, delivery: Delivery) -> Delivered {
        self.enqueue(delivery, true)
    }

    /// The next packet for the connection, as far as the client's Receive Maximum allows.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let State::Connected(link) = &mut self.state else { return None };
        let may_send = self.inflight.sent() < usize::from(link.window);
        while let Some((packet_id, exchange)) = self.inflight.next_resend() {
            match &exchange.stage {
                Stage::Released => {
                    self.inflight.resent(packet_id);
                    return Some(Transmit::PubRel(packet_id));
                }
                Stage::Published(delivery) => {
                    if !link.takes(delivery, now) {
                        self.inflight.end(packet_id);
                        if self.durable {
                            self.changes.push(Change::Done(packet_id));
                        }
                        continue;
                    }
                    if !may_send {
                        break;
                    }
                    let delivery = delivery.clone();
                    self.inflight.resent(packet_id);
                    // [MQTT-3.3.1-1].
                    return Some(Transmit::Publish { delivery, dup: true, packet_id: Some(packet_id) });
                }
            }
        }
        loop {
            // What was sent before goes first (`[MQTT-4.6.0-1]`), but holds up QoS 0 as little as a full window does.
            let mut delivery = self.queue.pop(may_send && self.inflight.may_begin())?;
            if delivery.message.is_expired(now) || !link.takes(&delivery, now) {
                if self.durable && delivery.qos > QoS::AtMostOnce {
                    self.changes.push(Change::Dropped(delivery.message));
                }
                continue;
            }
            if delivery.qos == QoS::AtMostOnce {
                return Some(Transmit::Publish { delivery, dup: false, packet_id: None });
            }
            if self.inflight.len() >= ATTACHED {
                delivery.message = delivery.message.detached();
            }
            let packet_id = self.inflight.begin(delivery.clone());
            if self.durable {
                self.changes.push(Change::Sent(Arc::clone(&delivery.message), packet_id));
            }
            return Some(Transmit::Publish { delivery, dup: false, packet_id: Some(packet_id) });
        }
    }

    /// Whether [`Session::poll_transmit`] may have something.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        let State::Connected(link) = &self.state else { return false };
        let may_send = self.inflight.sent() < usize::from(link.window);
        (may_send && self.inflight.is_resending()) || self.queue.has(may_send && self.inflight.may_begin())
    }

    /// The same when the message that is being delivered is complete, which it is before anybody is woken.
    fn will_transmit(&self) -> bool {
        let State::Connected(link) = &self.state else { return false };
        let may_send = self.inflight.sent() < usize::from(link.window);
        self.has_transmit() || self.queue.has_waiting(may_send && self.inflight.may_begin())
    }

    /// What [`Session::poll_transmit`] waits for, if it has given nothing although there is something: whoever delivers a message
    /// wakes only those who sleep already.
    #[must_use]
    pub fn waits_for(&self) -> Option<&Arc<Hold>> {
        self.queue.hold().filter(|_| self.will_transmit())
    }

    /// Whether more than half of the queue is taken.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.queue.is_congested(self.limits.queue())
    }

    pub(super) fn handle_puback(&mut self, ack: &Ack, now: Instant) {
        match self.inflight.get(ack.packet_id).map(|exchange| &exchange.stage) {
            Some(Stage::Published(delivery)) if delivery.qos == QoS::AtLeastOnce => self.complete(ack.packet_id),
            Some(Stage::Published(_) | Stage::Released) => self.out_of_turn("PUBACK for a message of QoS 2", now),
            // It was complete already.
            None => {}
        }
    }

    pub(super) fn handle_pubrec(&mut self, ack: &Ack, now: Instant) {
        let Some(exchange) = self.inflight.get(ack.packet_id) else {
            // §3.6.2.1: the client is to forget it too.
            return self.send_pubrel(ack.packet_id, ReasonCode::PacketIdentifierNotFound);
        };
        match &exchange.stage {
            Stage::Published(delivery) if delivery.qos != QoS::ExactlyOnce => {
                return self.out_of_turn("PUBREC for a message of QoS 1", now);
            }
            Stage::Published(_) | Stage::Released => {}
        }
        // [MQTT-4.3.3-4]: a PUBREC with an error is the end of it.
        if ack.reason.is_error() {
            return self.complete(ack.packet_id);
        }
        let is_new = !matches!(std::mem::replace(&mut exchange.stage, Stage::Released), Stage::Released);
        self.inflight.resent(ack.packet_id);
        if is_new {
            self.note(Change::Released(ack.packet_id));
        }
        self.send_pubrel(ack.packet_id, ReasonCode::Success);
    }

    pub(super) fn handle_pubcomp(&mut self, ack: &Ack, now: Instant) {
        match self.inflight.get(ack.packet_id).map(|exchange| &exchange.stage) {
            Some(Stage::Released) => self.complete(ack.packet_id),
            Some(Stage::Published(_)) => self.out_of_turn("PUBCOMP before PUBREC", now),
            None => {}
        }
    }

    fn complete(&mut self, packet_id: PacketId) {
        self.inflight.end(packet_id);
        self.note(Change::Done(packet_id));
    }

    fn enqueue(&mut self, mut delivery: Delivery, retained: bool) -> Delivered {
        if !self.may_receive(&delivery) || (!retained && self.is_forwarded(&delivery)) {
            return Delivered::default();
        }
        let is_connected = match self.state {
            State::Connected(_) => true,
            // §4.1: messages of QoS 0 need not wait for an absent client.
            State::Detached { .. } if delivery.qos == QoS::AtMostOnce => return Delivered::default(),
            State::Detached { .. } => false,
            State::Ended => return Delivered::default(),
        };
        // Before it gets bytes of its own: the store is to have it once, however many hold it in one form or the other.
        let kept = (self.durable && delivery.qos > QoS::AtMostOnce).then(|| delivery.clone());
        if !is_connected {
            delivery.message = delivery.message.detached();
        }
        let bounds = self.limits.queue();
        let pushed =
            if retained { self.queue.push_retained(delivery, bounds) } else { self.queue.push(delivery, bounds) };
        let (dropped, refused) = match pushed {
            Pushed::Queued => (0, false),
            Pushed::Displaced(older) => (older, false),
            Pushed::Refused | Pushed::Exhausted => (1, true),
        };
        if let Some(kept) = kept.filter(|_| !refused) {
            self.changes.push(Change::Enqueue(kept));
        }
        let overflowed = dropped > 0 && !std::mem::replace(&mut self.overflowed, true);
        let congested = is_connected && dropped == 0 && self.queue.is_congested(bounds);
        let exhausted = pushed == Pushed::Exhausted;
        Delivered { dropped, refused, overflowed, exhausted, ready: self.will_transmit(), congested }
    }

    fn out_of_turn(&mut self, text: &'static str, now: Instant) {
        self.fail(ReasonCode::ProtocolError, text, now);
    }

    fn send_pubrel(&mut self, packet_id: PacketId, reason: ReasonCode) {
        self.actions.push_back(Action::Send(pubrel(packet_id, reason)));
    }
}

fn pubrel(packet_id: PacketId, reason: ReasonCode) -> Packet {
    Packet::PubRel(Ack { packet_id, reason, properties: None })
}
