//! What others see of a connection: figures, and its packets where somebody follows the client.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use evermq_mqtt::{Packet, Version};
use serde_json::json;

use super::Connection;
use super::buffers::Buffers;
use crate::broker::Broker;
use crate::counters::Tally;
use crate::mailbox::Mailbox;
use crate::presence::{Facts, Presence};
use crate::session::{LinkId, Transmit};
use crate::trace::packet::{self, Direction};

/// A client has got in.
pub(super) fn appear(
    broker: &Broker,
    mailbox: &Mailbox,
    link: LinkId,
    facts: Facts,
    version: Version,
    now: Instant,
) -> Arc<Presence> {
    broker.counters.count_through(&facts.listener);
    broker.counters.clients.fetch_add(1, Ordering::Relaxed);
    let presence = Presence::new(facts, now);
    let mut slot = mailbox.lock();
    // Another connection may have taken the session over already.
    let is_current = slot.session.link() == Some(link);
    let claim = is_current.then(|| broker.stand(mailbox, &mut slot, presence.facts.clean_start)).flatten();
    if is_current {
        slot.presence = Some(Arc::clone(&presence));
    }
    let user = slot.session.user().cloned();
    drop(slot);
    if let Some(claim) = claim {
        broker.backbone.claim(claim);
    }
    // After it can be found: who begins to follow now either finds it, or is found here.
    if broker.tracer.is_followed(mailbox.client_id()) {
        presence.set_traced(true);
        let Facts { address, listener, tls, .. } = &presence.facts;
        let shown = json!({
            "address": address, "listener": &**listener, "user": user.as_deref(), "tls": tls, "version": version.name(),
        });
        broker.tracer.tell(mailbox.client_id(), |_| packet::event("connected", shown.clone()));
    }
    presence
}

impl<S> Connection<S> {
    /// Adds what the last turns have brought.
    pub(super) fn settle(&self, tally: &mut Tally) {
        self.presence.add(tally.traffic());
        self.broker.counters.add(tally);
    }

    /// Shows the packets that came.
    pub(super) fn show_received(&self, buffers: &Buffers) {
        for packet in &buffers.packets {
            self.tell(|payloads| packet::packet(Direction::In, packet, self.version, payloads));
        }
    }

    /// Shows a packet that goes.
    pub(super) fn show_sent(&self, packet: &Packet) {
        self.tell(|payloads| packet::packet(Direction::Out, packet, self.version, payloads));
    }

    /// Shows a message that goes.
    pub(super) fn show_transmitted(&self, transmit: &Transmit, now: Instant) {
        self.tell(|payloads| packet::transmit(transmit, self.version, payloads, now));
    }

    /// The connection is over.
    pub(super) fn disappear(&self) {
        self.broker.counters.clients.fetch_sub(1, Ordering::Relaxed);
        if self.presence.is_traced() {
            self.tell(|_| packet::event("connection ended", json!({})));
        }
    }

    fn tell(&self, line: impl Fn(bool) -> serde_json::Value) {
        self.broker.tracer.tell(self.mailbox.client_id(), line);
    }
}
