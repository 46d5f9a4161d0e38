//! What the client may do and have, where that changes while messages wait for it.
//!
//! A message is asked about when it comes, and is not asked about again while the rules stay as they are. When they change,
//! everything that has not gone out is asked about once more: at once for what waits, with the next connection for what was
//! sent on an earlier one.

use std::sync::Arc;

use evermq_access::Permits;
use evermq_mqtt::QoS;

use super::changes::Change;
use super::{Action, Returned, Session, Will};
use crate::message::Delivery;

/// Messages that the client does not get any more.
#[derive(Debug, Default)]
pub(super) struct Withdrawn {
    messages: usize,
    /// Those that other members of a shared subscription may have.
    returned: Vec<Delivery>,
}

impl Session {
    /// What its client may do from now on. Messages that wait and that it may not have any more go, those of a shared
    /// subscription to other members; so does a will that it may not publish any more. Subscriptions stay: what comes through
    /// them is asked about. How many messages went.
    pub fn set_permits(&mut self, permits: Option<Arc<Permits>>) -> usize {
        let may_not = |will: &Will| permits.as_ref().is_some_and(|permits| !permits.may_publish(&will.publish.topic));
        if self.will.as_deref().is_some_and(may_not) {
            self.will = None;
            self.note(Change::State);
        }
        self.permits = permits;
        let withdrawn = self.withdraw(true);
        let messages = withdrawn.messages;
        self.report(withdrawn);
        messages
    }

    /// Whether these are the rules that all that waits was asked about with.
    pub(super) fn has_permits(&self, permits: Option<&Arc<Permits>>) -> bool {
        match (&self.permits, permits) {
            (None, None) => true,
            (Some(own), Some(other)) => own.is_same(other),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// Whether the client may have the message.
    pub(super) fn may_receive(&self, delivery: &Delivery) -> bool {
        is_allowed(self.permits.as_deref(), delivery)
    }

    /// Takes out what was sent on an earlier connection and may not be sent on this one, and, if `waiting`, what has never
    /// been sent.
    pub(super) fn withdraw(&mut self, waiting: bool) -> Withdrawn {
        let Some(permits) = self.permits.clone() else { return Withdrawn::default() };
        self.withdraw_but(waiting, |delivery| is_allowed(Some(&permits), delivery))
    }

    /// Whether another host has passed the message on already.
    pub(super) fn is_forwarded(&self, delivery: &Delivery) -> bool {
        let forwarded = self.limits.forwarded.as_ref();
        forwarded.is_some_and(|forwarded| forwarded.covers(&delivery.message.message().stamp))
    }

    /// Takes out what another host has passed on meanwhile; how many messages.
    pub fn drop_forwarded(&mut self) -> usize {
        let Some(forwarded) = self.limits.forwarded.clone() else { return 0 };
        self.withdraw_but(true, |delivery| !forwarded.covers(&delivery.message.message().stamp)).messages
    }

    fn withdraw_but(&mut self, waiting: bool, may_have: impl Fn(&Delivery) -> bool) -> Withdrawn {
        let mut withdrawn = Withdrawn::default();
        for (packet_id, delivery) in self.inflight.withdraw(&may_have) {
            // The client may have a message of QoS 2; so the exchange is ended as the protocol wants it.
            let is_released = delivery.qos == QoS::ExactlyOnce;
            self.note(if is_released { Change::Released(packet_id) } else { Change::Done(packet_id) });
            // [MQTT-4.8.2-5]: not what is of QoS 2.
            withdrawn.add(delivery, !is_released);
        }
        if waiting {
            for delivery in self.queue.take_unwanted(&may_have) {
                if delivery.qos > QoS::AtMostOnce {
                    self.note(Change::Dropped(Arc::clone(&delivery.message)));
                }
                withdrawn.add(delivery, true);
            }
        }
        withdrawn
    }

    /// Has others told what went.
    pub(super) fn report(&mut self, withdrawn: Withdrawn) {
        if withdrawn.messages > 0 {
            self.actions.push_back(Action::Withdrawn(withdrawn.messages));
        }
        if !withdrawn.returned.is_empty() {
            self.actions.push_back(Action::GiveBack(Returned(withdrawn.returned)));
        }
    }
}

impl Withdrawn {
    fn add(&mut self, delivery: Delivery, may_be_others: bool) {
        self.messages += 1;
        if may_be_others && delivery.share.is_some() {
            self.returned.push(delivery);
        }
    }
}

fn is_allowed(permits: Option<&Permits>, delivery: &Delivery) -> bool {
    let topic = &delivery.message.message().publish.topic;
    permits.is_none_or(|permits| permits.may_receive(topic))
}
