//! A session as it was when the broker stopped, however that came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_mqtt::{PacketId, QoS, TopicFilter};

use super::changes::Change;
use super::inflight::Inflight;
use super::{Limits, Session, State, Subscription, Will};
use crate::message::Delivery;
use crate::share::ShareRef;

/// What the store had of a session.
#[derive(Debug)]
pub struct Saved {
    /// Whose it is.
    pub user: Option<Arc<str>>,
    /// How long it outlives a connection.
    pub expiry: Duration,
    /// The will.
    pub will: Option<Box<Will>>,
    /// When its connection ended; `None` if it had one, which is lost now.
    pub detached_at: Option<Instant>,
    /// Subscriptions.
    pub subscriptions: Vec<(TopicFilter, Subscription)>,
    /// Messages that wait, in their order.
    pub waiting: Vec<Delivery>,
    /// Messages that are out, in the order in which they were sent; those without a message are released.
    pub inflight: Vec<(PacketId, Option<Delivery>)>,
    /// The identifier after that of the message that was sent last.
    pub next_packet_id: PacketId,
    /// Identifiers of QoS 2 messages that the client has not released.
    pub received: Vec<PacketId>,
}

impl Session {
    /// The session out of the store, without a connection. What was lost with the broker's end is noted.
    #[must_use]
    pub fn recover(saved: Saved, limits: Arc<Limits>, now: Instant) -> Self {
        let mut session = Self::new(limits);
        session.fresh = false;
        session.durable = true;
        session.user = saved.user;
        session.expiry = saved.expiry;
        session.place = Some(Arc::new(session.limits.lasting.force()));
        session.subscriptions = saved.subscriptions.into_iter().collect();
        for delivery in saved.waiting.into_iter().filter(|delivery| delivery.qos > QoS::AtMostOnce) {
            session.queue.restore(delivery);
        }
        session.inflight = Inflight::recover(saved.inflight, saved.next_packet_id);
        session.received = saved.received.into_iter().map(|id| (id, true)).collect();
        let since = saved.detached_at.unwrap_or(now);
        // §3.1.3.2.2: when its delay has passed or the session ends, whichever is first. Without a delay that is at once.
        let will_at = saved.will.as_ref().and_then(|will| since.checked_add(will.delay.min(session.expiry)));
        session.will = saved.will;
        session.state = State::Detached { will_at, expires_at: since.checked_add(session.expiry) };
        session
    }

    /// To be recorded: it has had a connection until the broker ended, and none from then on. Otherwise each start would be
    /// the moment from which its expiry counts.
    pub fn record_detached(&mut self) {
        self.note(Change::State);
    }

    /// Ties messages to the groups of its shared subscriptions, which the store does not know: those that no other
    /// subscription of its explains came through them.
    pub fn recover_shares(&mut self, shares: &[(TopicFilter, ShareRef)]) {
        let own: Vec<_> = self.subscriptions.keys().filter(|filter| filter.share().is_none()).cloned().collect();
        let tie = |delivery: &mut Delivery| {
            let topic = &delivery.message.message().publish.topic;
            if own.iter().any(|filter| filter.matches(topic)) {
                return;
            }
            let group = shares.iter().find(|(filter, _)| filter.matches(topic)).map(|(_, share)| share.clone());
            delivery.share = group;
        };
        self.queue.acknowledged_mut().for_each(tie);
        self.inflight.deliveries_mut().for_each(tie);
    }
}
