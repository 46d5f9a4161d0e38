//! Messages of QoS 1 and 2 that were sent and are not yet acknowledged, in the order in which they were sent.
//!
//! Packet identifiers are handed out in ascending order, so the position of a message in the ring is its distance from the
//! oldest one: every look-up is one subtraction. An identifier is free again when its message is complete (`[MQTT-2.2.1-4]`,
//! `[MQTT-4.3.2-1]`), even if older ones are not.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use evermq_mqtt::{PacketId, QoS};

use crate::message::Delivery;

/// Identifiers run from 1 to 65,535.
const IDS: u16 = u16::MAX;

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
    oldest: PacketId,
    open: usize,
    sent: usize,
    /// Up to where the ring was looked through for what is to be sent again; `None` when all was.
    resend_from: Option<usize>,
}

impl Default for Inflight {
    fn default() -> Self {
        Self { ring: VecDeque::new(), oldest: PacketId(NonZeroU16::MIN), open: 0, sent: 0, resend_from: None }
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

    /// Whether another exchange may begin: nothing older waits to be sent again, and the ring has room. A client that leaves one exchange open while it completes all others
    /// stretches the ring, so its length is bounded by a multiple of the client's window.
    #[must_use]
    pub fn may_begin(&self, window: u16) -> bool {
        !self.is_resending() && self.ring.len() < usize::from(window).saturating_mul(8).clamp(1024, usize::from(IDS))
    }

    /// Begins an exchange. The caller has asked [`Inflight::may_begin`].
    pub fn begin(&mut self, delivery: Delivery) -> PacketId {
        debug_assert!(self.ring.len() < usize::from(IDS), "every identifier is in use");
        let id = self.id_at(self.ring.len());
        self.ring.push_back(Some(Exchange { stage: Stage::Published(delivery), sent: true }));
        self.open += 1;
        self.sent += 1;
        id
    }

    /// The exchange of `id`, if it is open.
    pub fn get(&mut self, id: PacketId) -> Option<&mut Exchange> {
        let index = self.index_of(id);
        self.ring.get_mut(index)?.as_mut()
    }

    /// Ends the exchange of `id`; its identifier is free.
    pub fn end(&mut self, id: PacketId) -> Option<Exchange> {
        let index = self.index_of(id);
        let ended = self.ring.get_mut(index)?.take()?;
        self.open -= 1;
        self.sent -= usize::from(ended.sent);
        // Only the front is cleared away: an identifier that has just become free is not handed out again at once, so
        // that an acknowledgement which comes twice cannot be taken for that of another message.
        while let Some(None) = self.ring.front() {
            self.ring.pop_front();
            self.oldest = next(self.oldest);
            self.resend_from = self.resend_from.map(|index| index.saturating_sub(1));
        }
        Some(ended)
    }

    /// A new connection: everything is to be sent again, in its order (`[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`).
    pub fn restart(&mut self) {
        for exchange in self.ring.iter_mut().flatten() {
            exchange.sent = false;
        }
        self.sent = 0;
        self.resend_from = if self.ring.is_empty() { None } else { Some(0) };
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
        for exchange in self.ring.iter_mut().flatten() {
            if let Stage::Published(delivery) = &mut exchange.stage {
                delivery.message = delivery.message.detached();
            }
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
        let ended = std::mem::take(self);
        ended
            .ring
            .into_iter()
            .flatten()
            .filter_map(|exchange| match exchange.stage {
                Stage::Published(delivery) => Some(delivery).filter(is_shared),
                Stage::Released => None,
            })
            .collect()
    }

    /// Open exchanges in the order in which they were begun; those without a message are released.
    pub fn iter(&self) -> impl Iterator<Item = (PacketId, Option<&Delivery>)> {
        self.ring.iter().enumerate().filter_map(|(index, exchange)| match &exchange.as_ref()?.stage {
            Stage::Published(delivery) => Some((self.id_at(index), Some(delivery))),
            Stage::Released => Some((self.id_at(index), None)),
        })
    }

    /// The messages of open exchanges, to be changed in what is neither their message nor their QoS.
    pub fn deliveries_mut(&mut self) -> impl Iterator<Item = &mut Delivery> {
        self.ring.iter_mut().flatten().filter_map(|exchange| match &mut exchange.stage {
            Stage::Published(delivery) => Some(delivery),
            Stage::Released => None,
        })
    }

    /// The identifier that the next exchange gets.
    #[must_use]
    pub fn next_id(&self) -> PacketId {
        self.id_at(self.ring.len())
    }

    /// Exchanges as they were, oldest first; those without a message are released. `next` is the identifier after the last
    /// that was given out.
    #[must_use]
    pub fn recover(exchanges: Vec<(PacketId, Option<Delivery>)>, next: PacketId) -> Self {
        let mut inflight = Self { oldest: exchanges.first().map_or(next, |(id, _)| *id), ..Self::default() };
        for (id, delivery) in exchanges {
            let index = inflight.index_of(id);
            if inflight.ring.len() <= index {
                inflight.ring.resize_with(index + 1, || None);
            }
            let stage = delivery.map_or(Stage::Released, Stage::Published);
            if inflight.ring[index].replace(Exchange { stage, sent: false }).is_none() {
                inflight.open += 1;
            }
        }
        let len = inflight.index_of(next).max(inflight.ring.len());
        inflight.ring.resize_with(len, || None);
        inflight
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

fn next(id: PacketId) -> PacketId {
    PacketId(id.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
}
