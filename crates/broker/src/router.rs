//! Who gets a message: matches it with the subscriptions and puts it into the subscribers' sessions.
//!
//! A publisher's messages go through here one after the other, so their order is the same for every subscriber
//! (`[MQTT-4.6.0-6]`). No lock is shared by all: the subscriptions are a snapshot, each session has a lock of its own, and
//! the retained messages are in shards.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use evermq_bridge::{Local, Message};
use evermq_mqtt::{QoS, TopicFilter};

use crate::counters::Counters;
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::retained::{Kept, Retained};
use crate::session::Subscription;
use crate::subscriptions::{Matches, Subscribers, Subscriptions};

/// Subscriptions, retained messages, and the way from one to the other.
#[derive(Debug)]
pub struct Router {
    subscriptions: Subscriptions<Subscriber>,
    retained: Retained,
    counters: Arc<Counters>,
}

/// What a filter leads to.
#[derive(Debug, Clone)]
struct Subscriber {
    mailbox: Arc<Mailbox>,
    subscription: Subscription,
    ids: Option<Arc<[NonZeroU32]>>,
}

/// A session whose queue a message has filled by more than half.
pub type Congested = Option<Arc<Mailbox>>;

impl Router {
    /// Without subscriptions and retained messages.
    #[must_use]
    pub fn new(max_retained_messages: usize, counters: Arc<Counters>) -> Self {
        Self { subscriptions: Subscriptions::default(), retained: Retained::new(max_retained_messages), counters }
    }

    /// Gives `message` to its subscribers, and to the retained store if it asks for that. `from` is the key of the mailbox
    /// of the client that published it here.
    pub fn route(&self, message: Arc<Message>, from: Option<u64>, wakes: &mut Wakes) -> Congested {
        // The store first: who subscribes meanwhile finds the message there or gets it here, or both, but never neither.
        if message.publish.retain {
            self.keep(&message);
        }
        let snapshot = self.subscriptions.snapshot();
        let matches = snapshot.matches(&message.publish.topic);
        let first = matches.first?;
        let shared = Shared::new(message, first.len() > 1 || !matches.others.is_empty());
        let mut deliveries = Deliveries { counters: &self.counters, shared, wakes, congested: None };
        if matches.others.is_empty() {
            for (key, subscriber) in first.iter() {
                if !(subscriber.subscription.options.no_local && from == Some(key)) {
                    deliveries.deliver(subscriber, subscriber.subscription.options.qos, subscriber.ids.clone());
                }
            }
        } else {
            deliveries.deliver_overlapping(&matches, from);
        }
        deliveries.congested
    }

    /// Enters or replaces a subscription.
    pub fn subscribe(&self, mailbox: &Arc<Mailbox>, filter: &TopicFilter, subscription: Subscription) {
        let ids = subscription.id.map(|id| Arc::from([id]));
        let subscriber = Subscriber { mailbox: Arc::clone(mailbox), subscription, ids };
        self.subscriptions.insert(filter, mailbox.key(), subscriber);
    }

    /// Removes subscriptions.
    pub fn unsubscribe<'a>(&self, mailbox: &Mailbox, filters: impl IntoIterator<Item = &'a TopicFilter>) {
        self.subscriptions.remove(filters, mailbox.key());
    }

    /// Puts the retained messages for a subscription into the session's queue (§3.3.1.3).
    pub fn deliver_retained(
        &self,
        mailbox: &Mailbox,
        filter: &TopicFilter,
        subscription: Subscription,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let ids: Option<Arc<[NonZeroU32]>> = subscription.id.map(|id| Arc::from([id]));
        let delivery = |message: Arc<Message>| Delivery {
            qos: subscription.options.qos.min(message.publish.qos),
            message: Shared::new(message, false),
            retain: true,
            ids: ids.clone(),
        };
        // A wildcard may find very many: nothing is made while the session is locked.
        let found: Vec<_> = self.retained.matching(filter, now).into_iter().map(delivery).collect();
        let mut slot = mailbox.lock();
        for delivery in found {
            let delivered = slot.session.deliver_retained(delivery);
            self.counters.count_drops(mailbox, delivered);
        }
        wakes.add(slot.waker.take());
    }

    /// Forgets retained messages that have expired.
    pub fn sweep(&self, now: Instant) {
        self.retained.sweep(now);
    }

    /// Subscriptions in all.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Retained messages.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.retained.len()
    }

    fn keep(&self, message: &Arc<Message>) {
        if self.retained.keep(message) == Kept::Full
            && self.counters.retained_refused.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(
                topic = %message.publish.topic,
                "the retained store is full; messages still reach their subscribers, but new topics are not retained: raise broker.max_retained_messages"
            );
        }
    }
}

/// One message on its way.
struct Deliveries<'a> {
    counters: &'a Counters,
    shared: Arc<Shared>,
    wakes: &'a mut Wakes,
    congested: Congested,
}

impl Deliveries<'_> {
    fn deliver(&mut self, subscriber: &Subscriber, qos: QoS, ids: Option<Arc<[NonZeroU32]>>) {
        let publish = &self.shared.message().publish;
        let delivery = Delivery {
            qos: qos.min(publish.qos),
            // [MQTT-3.3.1-12], [MQTT-3.3.1-13].
            retain: publish.retain && subscriber.subscription.options.retain_as_published,
            message: Arc::clone(&self.shared),
            ids,
        };
        let delivered = subscriber.mailbox.deliver(delivery, self.wakes);
        self.counters.count_drops(&subscriber.mailbox, delivered);
        if delivered.congested && self.congested.is_none() {
            self.congested = Some(Arc::clone(&subscriber.mailbox));
        }
    }

    /// A client gets one copy, at the highest QoS of its matching subscriptions (`[MQTT-3.3.4-2]`), with the identifiers
    /// of all of them (`[MQTT-3.3.4-4]`).
    fn deliver_overlapping(&mut self, matches: &Matches<'_, Subscriber>, from: Option<u64>) {
        let mut all: Vec<(u64, &Subscriber)> = matches
            .iter()
            .flat_map(Subscribers::iter)
            // [MQTT-3.8.3-3].
            .filter(|(key, subscriber)| !(subscriber.subscription.options.no_local && from == Some(*key)))
            .collect();
        all.sort_by_key(|(key, _)| *key);
        for same in all.chunk_by(|(one, _), (other, _)| one == other) {
            let options = |subscriber: &&(u64, &Subscriber)| subscriber.1.subscription.options;
            let Some((_, first)) = same.iter().max_by_key(|entry| options(entry).retain_as_published) else { continue };
            let qos = same.iter().map(|entry| options(&entry).qos).max().unwrap_or_default();
            let ids = if let [(_, only)] = same {
                only.ids.clone()
            } else {
                let ids: Vec<_> = same.iter().filter_map(|(_, subscriber)| subscriber.subscription.id).collect();
                (!ids.is_empty()).then(|| ids.into())
            };
            self.deliver(first, qos, ids);
        }
    }
}

impl Local for Router {
    fn deliver(&self, message: Arc<Message>) {
        self.counters.from_peers.fetch_add(1, Ordering::Relaxed);
        self.route(message, None, &mut Wakes::default());
    }

    fn retained(&self) -> Vec<Arc<Message>> {
        self.retained.all()
    }

    fn apply_retained(&self, message: Arc<Message>) {
        self.keep(&message);
    }
}
