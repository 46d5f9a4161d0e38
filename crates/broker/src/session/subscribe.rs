//! SUBSCRIBE and UNSUBSCRIBE (§3.8, §3.10).

use std::num::NonZeroU32;

use evermq_daemon::cluster_topics;
use evermq_mqtt::packet::{
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, UnsubAck, Unsubscribe,
};
use evermq_mqtt::{Packet, QoS, ReasonCode, TopicFilter};

use super::changes::Change;
use super::{Action, Session, State};

/// A subscription as it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Options.
    pub options: SubscriptionOptions,
    /// Subscription Identifier.
    pub id: Option<NonZeroU32>,
}

/// A subscription to be entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The filter.
    pub filter: TopicFilter,
    /// What was granted.
    pub subscription: Subscription,
    /// Whether retained messages are to be sent.
    pub retained: bool,
}

impl Session {
    pub(super) fn handle_subscribe(&mut self, subscribe: Subscribe) {
        let id = subscribe.properties.subscription_id;
        let mut actions = Vec::new();
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let is_bridge = matches!(&self.state, State::Connected(link) if link.is_bridge);
        for SubscribeFilter { filter, options } in subscribe.filters {
            let options = if is_bridge { of_bridge(&filter, options) } else { options };
            if let Some(refusal) = self.subscribe_refusal(&filter) {
                reasons.push(refusal);
                continue;
            }
            if filter.as_str() == cluster_topics::STATE {
                // QoS 0 whatever is asked for: the last word counts, and a new session asks again.
                reasons.push(ReasonCode::Success);
                actions.push(Action::Watch);
                continue;
            }
            // The filter outlives the buffer that this packet was read into.
            let filter = TopicFilter::new(filter.text().detached()).unwrap_or(filter);
            let subscription = Subscription { options, id };
            let is_new = self.subscriptions.insert(filter.clone(), subscription).is_none();
            if self.durable {
                self.changes.push(Change::Subscribe(filter.clone(), subscription));
            }
            // [MQTT-3.3.1-9] to [MQTT-3.3.1-11].
            let retained = match options.retain_handling {
                // §4.8.2: none at the time of a shared subscription, whatever the option says.
                _ if filter.share().is_some() => false,
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => is_new,
                RetainHandling::DoNotSend => false,
            };
            reasons.push(granted(options.qos));
            actions.push(Action::Subscribe(Wanted { filter, subscription, retained }));
        }
        // SUBACK before the retained messages, as most clients expect it; the standard leaves it open (§3.8.4).
        let suback = SubAck { packet_id: subscribe.packet_id, reasons, properties: None };
        self.actions.push_back(Action::Send(Packet::SubAck(suback)));
        self.actions.extend(actions);
    }

    pub(super) fn handle_unsubscribe(&mut self, unsubscribe: Unsubscribe) {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        for filter in unsubscribe.filters {
            if self.subscriptions.remove(&filter).is_some() {
                if self.durable {
                    self.changes.push(Change::Unsubscribe(filter.clone()));
                }
                self.actions.push_back(Action::Unsubscribe(filter));
                reasons.push(ReasonCode::Success);
            } else {
                reasons.push(ReasonCode::NoSubscriptionExisted);
            }
        }
        let unsuback = UnsubAck { packet_id: unsubscribe.packet_id, reasons, properties: None };
        self.actions.push_back(Action::Send(Packet::UnsubAck(unsuback)));
    }

    fn subscribe_refusal(&self, filter: &TopicFilter) -> Option<ReasonCode> {
        if filter.levels().next() == Some(cluster_topics::LEVEL) {
            let is_open = self.is_lb() && filter.as_str() == cluster_topics::STATE;
            return (!is_open).then_some(ReasonCode::NotAuthorized);
        }
        if self.limits.has_too_many_levels(filter.levels()) {
            return Some(ReasonCode::TopicFilterInvalid);
        }
        if self.permits.as_ref().is_some_and(|permits| !permits.may_subscribe(filter)) {
            return Some(self.limits.denied);
        }
        if self.durable && self.limits.durability.is_full() {
            return Some(ReasonCode::QuotaExceeded);
        }
        let is_full = self.subscriptions.len() >= self.limits.max_subscriptions;
        (is_full && !self.subscriptions.contains_key(filter)).then_some(ReasonCode::QuotaExceeded)
    }
}

/// What a bridge means that cannot say so: its own messages do not come back, and retained ones stay so (MQTT 5.0 §3.8.3.1 has these options for
/// that).
fn of_bridge(filter: &TopicFilter, options: SubscriptionOptions) -> SubscriptionOptions {
    // A shared subscription may not leave out anybody's ([MQTT-3.8.3-4]).
    SubscriptionOptions { no_local: filter.share().is_none(), retain_as_published: true, ..options }
}

const fn granted(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}
