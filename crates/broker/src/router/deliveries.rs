//! Messages on their way into the sessions of those whom they match.

use std::num::NonZeroU32;
use std::sync::Arc;

use evermq_bridge::Publisher;
use evermq_mqtt::QoS;

use super::sharing::Sharing;
use super::{Congested, Entry, Subscriber};
use crate::counters::Counters;
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::session::Delivered;
use crate::share::Group;
use crate::subscriptions::{Matches, Subscribers};

/// Who published messages, for subscribers who do not want their own (`[MQTT-3.8.3-3]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// The broker, or nobody knows.
    Nobody,
    /// The client of the mailbox with this key.
    Here(u64),
    /// A client of another broker.
    There(Publisher),
}

impl Sender {
    /// By the key of its mailbox.
    pub(super) fn here(key: Option<u64>) -> Self {
        key.map_or(Self::Nobody, Self::Here)
    }

    /// Whether the subscriber, whose mailbox has this key, has published it and does not want it.
    fn is_unwanted(self, subscriber: &Subscriber, key: u64) -> bool {
        subscriber.subscription.options.no_local
            && match self {
                Self::Nobody => false,
                Self::Here(from) => from == key,
                Self::There(publisher) => subscriber.mailbox.publisher() == publisher,
            }
    }
}

/// Messages of one topic on their way.
pub(super) struct Deliveries<'a, 's> {
    pub(super) counters: &'a Counters,
    pub(super) shared: Vec<Arc<Shared>>,
    pub(super) wakes: &'a mut Wakes,
    pub(super) congested: Congested,
    pub(super) sharing: Sharing<'s>,
}

impl Deliveries<'_, '_> {
    /// To the subscribers of one filter.
    pub(super) fn deliver_each(&mut self, subscribers: &Subscribers<Entry>, from: Sender) {
        let is_for_groups_only = self.sharing.is_for_groups_only();
        let mut entries = subscribers.iter().peekable();
        while let Some((key, entry)) = entries.next() {
            match entry {
                Entry::One(_) if is_for_groups_only => {}
                Entry::One(subscriber) if from.is_unwanted(subscriber, key) => {}
                Entry::One(subscriber) => {
                    let (qos, ids) = (subscriber.subscription.options.qos, subscriber.ids.clone());
                    // The last one gets the messages themselves: as a rule there is one only.
                    let is_last = entries.peek().is_none();
                    self.deliver(subscriber, qos, ids, is_last);
                }
                Entry::Group(group) => self.deliver_to_group(group),
            }
        }
    }

    fn deliver(&mut self, subscriber: &Subscriber, qos: QoS, ids: Option<Arc<[NonZeroU32]>>, is_last: bool) {
        let Self { counters, shared, wakes, congested, .. } = self;
        let delivery = |message: Arc<Shared>| {
            let publish = &message.message().publish;
            Delivery {
                qos: qos.min(publish.qos),
                // [MQTT-3.3.1-12], [MQTT-3.3.1-13].
                retain: publish.retain && subscriber.subscription.options.retain_as_published,
                message,
                ids: ids.clone(),
                share: None,
            }
        };
        let mailbox = &subscriber.mailbox;
        let each = |delivered| note(counters, congested, mailbox, delivered);
        if is_last {
            mailbox.deliver(shared.drain(..).map(delivery), wakes, each);
        } else {
            mailbox.deliver(shared.iter().cloned().map(delivery), wakes, each);
        }
    }

    fn deliver_to_group(&mut self, group: &Arc<Group>) {
        for message in self.shared.iter().enumerate() {
            if let Some(taken) = self.sharing.deliver(group, message, self.wakes) {
                note(self.counters, &mut self.congested, &taken.mailbox, taken.delivered);
            }
        }
    }

    /// A client gets one copy, at the highest QoS of its matching subscriptions (`[MQTT-3.3.4-2]`), with the identifiers
    /// of all of them (`[MQTT-3.3.4-4]`). What comes to it through a shared subscription is a copy of its own (§4.8.2).
    pub(super) fn deliver_overlapping(&mut self, matches: &Matches<'_, Entry>, from: Sender) {
        let mut all: Vec<(u64, &Subscriber)> = Vec::new();
        let is_for_groups_only = self.sharing.is_for_groups_only();
        for (key, entry) in matches.iter().flat_map(Subscribers::iter) {
            match entry {
                Entry::One(_) if is_for_groups_only => {}
                Entry::One(subscriber) if from.is_unwanted(subscriber, key) => {}
                Entry::One(subscriber) => all.push((key, subscriber)),
                Entry::Group(group) => self.deliver_to_group(group),
            }
        }
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
            self.deliver(first, qos, ids, false);
        }
    }
}

/// What became of a message.
fn note(counters: &Counters, congested: &mut Congested, mailbox: &Arc<Mailbox>, delivered: Delivered) {
    counters.count_drops(mailbox, delivered);
    if delivered.congested && congested.is_none() {
        *congested = Some(Arc::clone(mailbox));
    }
}
