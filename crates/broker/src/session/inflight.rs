//! Messages of QoS 1 and 2 that were sent and are not yet acknowledged, in the order in which they were sent.
//!
//! Packet identifiers are handed out in ascending order, so the position of a message in the ring is its distance from the
//! oldest one: every look-up is one subtraction. An identifier is free again when its message is complete (`[MQTT-2.2.1-4]`,
//! `[MQTT-4.3.2-1]`), even if older ones are not.
//!
//! A client may leave an exchange open for as long as it likes while it completes all others (`[MQTT-4.9.0-1]` counts only open
//! ones). The ring does not reach back to it for ever: what would make it much longer than there are open exchanges is taken
//! out ([`left`]), and its identifier is passed over when its turn comes.

mod left;

use std::collections::VecDeque;
use std::num::NonZeroU16;

use evermq_mqtt::{PacketId, QoS};

use crate::message::Delivery;
use left::Left;

/// Identifiers run from 1 to 65,535.
const IDS: u16 = u16::MAX;
/// The ring may always be this long.
const SHORT: usize = 1024;
/// A longer one has at most so many places for each open exchange.
const STRETCH: usize = 4;

/// Where an exchange stands.
#[derive(Debug)]
pub enum Stage {
    /// PUBLISH is out; PUBACK (QoS 1) or PUBREC (QoS 2) is awaited.
    Published(Delivery),
    /// PUBREL is out (QoS 2); PUBCOMP is awaited. The message itself is the client's now.
    Released,
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    /// Where it stands.
    pub stage: Stage,
    /// Whether the packet went out on the present connection; after a reconnect it is sent again.
    pub sent: bool,
}

/// All open exchanges of one session.
#[derive(Debug)]
pub struct Inflight {
    /// `ring[n]` has the identifier `n` after `oldest`; the first is always open.
    ring: VecDeque<Option<Exchange>>,
    /// Those that are older than all in the ring.
    left: Option<Box<Left>>,
    oldest: PacketId,
    open: usize,
    sent: usize,
    /// Up to where the ring was looked through for what is to be sent again; `None` when all was.
    resend_from: Option<usize>,
}

impl Default for Inflight {
    fn default() -> Self {
        Self {
            ring: VecDeque::new(),
            left: None,
            oldest: PacketId(NonZeroU16::MIN),
            open: 0,
            sent: 0,
            resend_from: None,
        }
    }
}

impl Inflight {
    /// Open exchanges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Exchanges whose packet went out on the present connection: what the client's Receive Maximum bounds (§4.9). A PUBREL
    /// that is sent again counts too: the client still holds the message's place.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Whether another exchange may begin: nothing older waits to be sent again, and an identifier is free.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        !self.is_resending() && self.open < usize::from(IDS)
    }

    /// Begins an exchange. The caller has asked [`Inflight::may_begin`].
    pub fn begin(&mut self, delivery: Delivery) -> PacketId {
        debug_assert!(self.open < usize::from(IDS), "every identifier is in use");
        let id = self.next_free();
        self.ring.push_back(Some(Exchange { stage: Stage::Published(delivery), sent: true }));
        self.open += 1;
        self.sent += 1;
        id
    }

    /// The exchange of `id`, if it is open.
    pub fn get(&mut self, id: PacketId) -> Option<&mut Exchange> {
        let index = self.index_of(id);
        if let Some(Some(exchange)) = self.ring.get_mut(index) {
            return Some(exchange);
        }
        self.left.as_mut()?.get(id)
    }

    /// Ends the exchange of `id`; its identifier is free.
    pub fn end(&mut self, id: PacketId) -> Option<Exchange> {
        let index = self.index_of(id);
        let ended = match self.ring.get_mut(index).and_then(Option::take) {
            Some(ended) => ended,
            None => self.left.as_mut()?.remove(id)?,
        };
        if self.left.as_ref().is_some_and(|left| left.is_empty()) {
            self.left = None;
        }
        self.open -= 1;
        self.sent -= usize::from(ended.sent);
        // Only the front is cleared away: an identifier that has just become free is not handed out again at once, so
        // that an acknowledgement which comes twice cannot be taken for that of another message.
        self.clear_front();
        Some(ended)
    }

    /// A new connection: everything is to be sent again, in its order (`[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`).
    pub fn restart(&mut self) {
        for exchange in self.ring.iter_mut().flatten() {
            exchange.sent = false;
        }
        if let Some(left) = &mut self.left {
            left.restart();
        }
        self.sent = 0;
        self.resend_from = if self.is_empty() { None } else { Some(0) };
    }

    /// The packet of `id` went out on the present connection.
    pub fn resent(&mut self, id: PacketId) {
        if let Some(exchange) = self.get(id)
            && !std::mem::replace(&mut exchange.sent, true)
        {
            self.sent += 1;
        }
    }

    /// The oldest exchange that was not yet sent again on this connection.
    pub fn next_resend(&mut self) -> Option<(PacketId, &mut Exchange)> {
        let from = self.resend_from?;
        if let Some(id) = self.left.as_mut().and_then(|left| left.next_resend()).map(|(id, _)| id) {
            return self.get(id).map(|exchange| (id, exchange));
        }
        let unsent = |exchange: &Option<Exchange>| matches!(exchange, Some(exchange) if !exchange.sent);
        let Some(index) = (from..self.ring.len()).find(|&index| unsent(&self.ring[index])) else {
            self.resend_from = None;
            return None;
        };
        self.resend_from = Some(index);
        let id = self.id_at(index);
        self.ring[index].as_mut().map(|exchange| (id, exchange))
    }

    /// Whether [`Inflight::next_resend`] has something, as far as is known.
    #[must_use]
    pub fn is_resending(&self) -> bool {
        self.resend_from.is_some()
    }

    /// Replaces each message by a copy with bytes of its own.
    pub fn detach(&mut self) {
        for delivery in self.deliveries_mut() {
            delivery.message = delivery.message.detached();
        }
    }

    /// Takes out the messages that are not `wanted` and have not gone out on the present connection. An exchange of QoS 1 is
    /// over with that. One of QoS 2 goes on with PUBREL, as if the client had said PUBREC: if it has the message it releases
    /// the identifier, if not it says that it does not know it, which is no error (§3.7.2.1).
    pub fn withdraw(&mut self, wanted: impl Fn(&Delivery) -> bool) -> Vec<(PacketId, Delivery)> {
        let is_unwanted = |exchange: &Exchange| match &exchange.stage {
            Stage::Published(delivery) => !exchange.sent && !wanted(delivery),
            Stage::Released => false,
        };
        let at = |(index, exchange): (usize, &Option<Exchange>)| {
            exchange.as_ref().is_some_and(is_unwanted).then(|| self.id_at(index))
        };
        let unwanted: Vec<PacketId> = self.ring.iter().enumerate().filter_map(at).collect();
        let mut withdrawn = Vec::new();
        for id in unwanted {
            let is_second =
                |stage: &Stage| matches!(stage, Stage::Published(delivery) if delivery.qos == QoS::ExactlyOnce);
            let stage = match self.get(id) {
                Some(exchange) if is_second(&exchange.stage) => {
                    Some(std::mem::replace(&mut exchange.stage, Stage::Released))
                }
                _ => self.end(id).map(|exchange| exchange.stage),
            };
            if let Some(Stage::Published(delivery)) = stage {
                withdrawn.push((id, delivery));
            }
        }
        withdrawn
    }

    /// Takes out what another member of a shared subscription may have when the session ends, in its order: not what is of
    /// QoS 2, which this client may have (`[MQTT-4.8.2-5]`).
    pub fn take_shared(&mut self) -> Vec<Delivery> {
        let is_shared = |delivery: &Delivery| delivery.qos == QoS::AtLeastOnce && delivery.share.is_some();
        let shared =
            self.iter().filter_map(|(_, delivery)| delivery).filter(|delivery| is_shared(delivery)).cloned().collect();
        *self = Self::default();
        shared
    }

    /// Open exchanges in the order in which they were begun; those without a message are released.
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, Option<&Delivery>)> {
        let ring = self.ring.iter().enumerate();
        let ring = ring.filter_map(|(index, exchange)| Some((self.id_at(index), exchange.as_ref()?)));
        let left = self.left.iter().flat_map(|left| left.iter());
        left.chain(ring).map(|(id, exchange)| match &exchange.stage {
            Stage::Published(delivery) => (id, Some(delivery)),
            Stage::Released => (id, None),
        })
    }

    /// The messages of open exchanges, to be changed in what is neither their message nor their QoS.
    pub fn deliveries_mut(&mut self) -> impl Iterator<Item = &mut Delivery> {
        let left = self.left.iter_mut().flat_map(|left| left.iter_mut());
        left.chain(self.ring.iter_mut().flatten()).filter_map(|exchange| match &mut exchange.stage {
            Stage::Published(delivery) => Some(delivery),
            Stage::Released => None,
        })
    }

    /// The identifier that the next exchange gets, unless it is still in use.
    #[must_use]
    pub fn next_id(&self) -> PacketId {
        self.id_at(self.ring.len())
    }

    /// Exchanges as they were, oldest first; those without a message are released. `next` is the identifier after the last
    /// that was given out.
    #[must_use]
    pub fn recover(exchanges: Vec<(PacketId, Option<Delivery>)>, next: PacketId) -> Self {
        // How far back each is; as long as that grows from the last one on, they are of the same round.
        let mut len = 0;
        let mut in_ring = 0;
        for (id, _) in exchanges.iter().rev() {
            let back = usize::from(distance(*id, next));
            if back <= len || back >= ring_bound(exchanges.len()) {
                break;
            }
            (len, in_ring) = (back, in_ring + 1);
        }
        let mut inflight = Self::default();
        inflight.ring.resize_with(len, || None);
        let older = exchanges.len() - in_ring;
        inflight.oldest = exchanges.get(older).map_or(next, |(id, _)| *id);
        for (number, (id, delivery)) in exchanges.into_iter().enumerate() {
            let exchange = Exchange { stage: delivery.map_or(Stage::Released, Stage::Published), sent: false };
            if number >= older {
                inflight.ring[len - usize::from(distance(id, next))] = Some(exchange);
            } else if inflight.get(id).is_none() {
                inflight.left.get_or_insert_default().push(id, exchange);
            } else {
                continue;
            }
            inflight.open += 1;
        }
        inflight
    }

    /// The identifier of the next exchange, which is the ring's next place afterwards.
    fn next_free(&mut self) -> PacketId {
        loop {
            while self.ring.len() + 1 >= ring_bound(self.open) {
                self.leave_oldest();
            }
            let id = self.next_id();
            if !self.left.as_ref().is_some_and(|left| left.contains(id)) {
                return id;
            }
            self.ring.push_back(None);
            self.clear_front();
        }
    }

    fn leave_oldest(&mut self) {
        let id = self.oldest;
        if let Some(exchange) = self.ring.front_mut().and_then(Option::take) {
            self.left.get_or_insert_default().push(id, exchange);
        }
        self.clear_front();
    }

    fn clear_front(&mut self) {
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.oldest = next(self.oldest);
            self.resend_from = self.resend_from.map(|index| index.saturating_sub(1));
        }
    }

    fn index_of(&self, id: PacketId) -> usize {
        let (id, oldest) = (id.0.get(), self.oldest.0.get());
        usize::from(if id >= oldest { id - oldest } else { id + (IDS - oldest) })
    }

    fn id_at(&self, index: usize) -> PacketId {
        let steps = u32::try_from(index % usize::from(IDS)).unwrap_or(0);
        let number = (u32::from(self.oldest.0.get()) - 1 + steps) % u32::from(IDS) + 1;
        u16::try_from(number).ok().and_then(NonZeroU16::new).map_or(self.oldest, PacketId)
    }
}

/// The ring stays below this length.
fn ring_bound(open: usize) -> usize {
    open.saturating_mul(STRETCH).clamp(SHORT, usize::from(IDS))
}

/// Steps from `id` to `next`, a whole round if they are the same.
fn distance(id: PacketId, next: PacketId) -> u16 {
    let (id, next) = (id.0.get(), next.0.get());
    if id < next { next - id } else { next + (IDS - id) }
}

fn next(id: PacketId) -> PacketId {
    PacketId(id.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
}

#[cfg(test)]
mod tests;
