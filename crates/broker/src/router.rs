//! Who gets a message: matches it with the subscriptions and puts it into the subscribers' sessions.
//!
//! A publisher's messages go through here one after the other, so their order is the same for every subscriber
//! (`[MQTT-4.6.0-6]`). No lock is shared by all: the subscriptions are a snapshot, each session has a lock of its own, and
//! the retained messages are in shards.

mod arrived;
mod deliveries;
mod sharing;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use evermq_bridge::{Directions, Message};
use evermq_mqtt::{Publish, QoS, TopicFilter};
use evermq_store::Handle;

use crate::backbone::Backbone;
use crate::bridges::notices::Notices;
use crate::counters::Counters;
use crate::journal::Journal;
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{self, Body, Delivery, Origin, Shared};
use crate::retained::{self, Kept, Mark, Retained};
use crate::session::Subscription;
use crate::share::{Group, Groups, ShareRef, Tree};
use crate::subscriptions::{Subscribers, Subscriptions};
use crate::sys::Board;
use deliveries::{Deliveries, Sender};
use sharing::Sharing;

/// Subscriptions, retained messages, and the way from one to the other.
#[derive(Debug)]
pub struct Router {
    subscriptions: Subscriptions<Entry>,
    groups: Groups,
    retained: Retained,
    sys: Board,
    counters: Arc<Counters>,
    /// Where retained messages are kept.
    journal: Option<Arc<Journal>>,
    /// What other brokers say of bridges.
    pub notices: Notices,
}

/// What a filter leads to.
#[derive(Debug, Clone)]
enum Entry {
    /// A session.
    One(Subscriber),
    /// One of several sessions.
    Group(Arc<Group>),
}

/// A session's subscription.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The session.
    pub mailbox: Arc<Mailbox>,
    /// As it was granted.
    pub subscription: Subscription,
    /// Its Subscription Identifier, as messages carry it.
    pub ids: Option<Arc<[NonZeroU32]>>,
}

/// A session whose queue a message has filled by more than half.
pub type Congested = Option<Arc<Mailbox>>;

/// What became of a message.
#[derive(Debug, Default)]
pub struct Routed {
    /// A session has asked for it.
    pub is_wanted: bool,
    /// The publisher is to wait for that one.
    pub congested: Congested,
    /// Where the store has it, if it was to be there for other brokers.
    pub stored: Option<Handle>,
    /// Which broker gives each of the messages to the groups that want it; shorter than these where the rest is for none.
    pub directions: Vec<Option<Directions>>,
}

/// What became of messages, and of the groups among those that want them.
struct Spread<'a> {
    is_wanted: bool,
    congested: Congested,
    sharing: Sharing<'a>,
}

impl Router {
    /// Without subscriptions and retained messages.
    #[must_use]
    pub fn new(retained: retained::Bounds, counters: Arc<Counters>, journal: Option<Arc<Journal>>) -> Self {
        Self {
            subscriptions: Subscriptions::default(),
            groups: Groups::default(),
            retained: Retained::new(retained),
            sys: Board::default(),
            counters,
            journal,
            notices: Notices::default(),
        }
    }

    /// There may be other brokers, from now on.
    pub fn join_mesh(self: &Arc<Self>, backbone: &Arc<dyn Backbone>) {
        self.groups.join_mesh(Arc::downgrade(backbone), backbone.next_stamp().origin);
        backbone.set_groups(Arc::<Self>::clone(self));
    }

    /// Other bounds of the retained messages.
    pub fn set_retained_bounds(&self, bounds: retained::Bounds) {
        self.retained.set_bounds(bounds);
    }

    /// Gives `message` to its subscribers, and to the retained store if it asks for that. `from` is the key of the mailbox
    /// of the client that published it here. If it `is_for_peers` too, the store has it whoever else waits for it.
    pub fn route(&self, message: Arc<Message>, from: Option<u64>, is_for_peers: bool, wakes: &mut Wakes) -> Routed {
        // The store first: who subscribes meanwhile finds the message there or gets it here, or both, but never neither.
        let kept = message.publish.retain.then(|| self.keep(&message, wakes)).flatten();
        let mut stored = kept.and_then(|kept| kept.handle().cloned());
        if is_for_peers && stored.is_none() {
            stored = self.store_for_peers(&message, wakes.origin().as_deref());
        }
        let sharing = Sharing::choosing(self.groups.membership());
        let Spread { is_wanted, congested, sharing } =
            self.spread([(message, stored.clone())], Sender::here(from), sharing, wakes);
        Routed { is_wanted, congested, stored, directions: sharing.into_directions() }
    }

    /// The same for messages of one topic that a client has published one after the other, none of which is to be retained, each
    /// with where the store has it already. Each subscriber gets them all at once: its session is locked, and in this processor's
    /// cache, once for all of them.
    pub fn route_run(
        &self,
        messages: impl IntoIterator<Item = (impl Into<Body>, Option<Handle>)>,
        from: Option<u64>,
        wakes: &mut Wakes,
    ) -> Routed {
        let sharing = Sharing::choosing(self.groups.membership());
        let Spread { is_wanted, congested, sharing } = self.spread(messages, Sender::here(from), sharing, wakes);
        Routed { is_wanted, congested, stored: None, directions: sharing.into_directions() }
    }

    /// Puts a message into the store that other brokers wait for. One of QoS 0 they have only as long as this process lives.
    pub fn store_for_peers(&self, message: &Message, origin: Option<&Origin>) -> Option<Handle> {
        let journal = self.journal.as_ref().filter(|_| message.publish.qos > QoS::AtMostOnce)?;
        journal.record_message(message, origin)
    }

    /// Gives a message of the broker's own to its subscribers, and to those who subscribe later.
    pub fn route_sys(&self, message: Arc<Message>, wakes: &mut Wakes) {
        self.sys.keep(&message);
        self.spread([(message, None)], Sender::Nobody, Sharing::Here, wakes);
    }

    /// The messages are of one topic, each with where the store has it already.
    fn spread<'a>(
        &self,
        messages: impl IntoIterator<Item = (impl Into<Body>, Option<Handle>)>,
        from: Sender,
        sharing: Sharing<'a>,
        wakes: &mut Wakes,
    ) -> Spread<'a> {
        let nobody = |sharing| Spread { is_wanted: false, congested: None, sharing };
        let mut messages = messages.into_iter();
        let Some((message, stored)) = messages.next() else { return nobody(sharing) };
        let message: Body = message.into();
        let snapshot = self.subscriptions.snapshot();
        let matches = snapshot.matches(&message.publish.topic);
        let Some(first) = matches.first else { return nobody(sharing) };
        let many = first.len() > 1 || !matches.others.is_empty();
        let mut shared = wakes.take_messages();
        let origin = wakes.origin();
        let share = |(message, stored): (Body, _)| {
            let shared = Shared::with_origin(message, many, origin.clone());
            if let Some(stored) = stored {
                shared.is_stored_at(stored);
            }
            shared
        };
        let messages = messages.map(|(message, stored)| (message.into(), stored));
        shared.extend(std::iter::once((message, stored)).chain(messages).map(share));
        let mut deliveries = Deliveries { counters: &self.counters, shared, wakes, congested: None, sharing };
        if matches.others.is_empty() {
            deliveries.deliver_each(first, from);
        } else {
            deliveries.deliver_overlapping(&matches, from);
        }
        let Deliveries { shared, wakes, congested, sharing, .. } = deliveries;
        wakes.return_messages(shared);
        Spread { is_wanted: true, congested, sharing }
    }

    /// Enters a subscription that the session had before the broker was started.
    pub fn recover(&self, mailbox: &Arc<Mailbox>, filter: &TopicFilter, subscription: Subscription) {
        self.enter(mailbox, [(filter, subscription)], || 0);
    }

    /// Enters or replaces subscriptions, which cost less together.
    pub fn subscribe_all<'a>(
        &self,
        mailbox: &Arc<Mailbox>,
        subscriptions: impl IntoIterator<Item = (&'a TopicFilter, Subscription)>,
    ) {
        let now = || self.groups.membership().get().map_or(0, |(backbone, _)| backbone.next_stamp().time);
        self.enter(mailbox, subscriptions, now);
    }

    fn enter<'a>(
        &self,
        mailbox: &Arc<Mailbox>,
        subscriptions: impl IntoIterator<Item = (&'a TopicFilter, Subscription)>,
        since: impl Fn() -> u64,
    ) {
        let mut own = Vec::new();
        for (filter, subscription) in subscriptions {
            let ids = subscription.id.map(|id| Arc::from([id]));
            let subscriber = Subscriber { mailbox: Arc::clone(mailbox), subscription, ids };
            if filter.share().is_some() {
                self.groups.join(filter, subscriber, since(), |tree| self.change(tree));
            } else {
                own.push((filter, Entry::One(subscriber)));
            }
        }
        if !own.is_empty() {
            self.subscriptions.insert_all(own, mailbox.key());
        }
    }

    /// Removes subscriptions.
    pub fn unsubscribe<'a>(&self, mailbox: &Mailbox, filters: impl IntoIterator<Item = &'a TopicFilter>) {
        let mut own = Vec::new();
        for filter in filters {
            if filter.share().is_some() {
                self.groups.leave(filter, mailbox.key(), |tree| self.change(tree));
            } else {
                own.push(filter);
            }
        }
        if !own.is_empty() {
            self.subscriptions.remove(own, mailbox.key());
        }
    }

    fn change(&self, tree: Tree<'_>) {
        match tree {
            Tree::Found(filter, key, group) => self.subscriptions.insert(filter, key, Entry::Group(group)),
            Tree::Gone(filter, key) => self.subscriptions.remove([filter], key),
        }
    }

    /// The group of a shared subscription that has members.
    #[must_use]
    pub fn share(&self, filter: &TopicFilter) -> Option<ShareRef> {
        self.groups.get(filter).map(|group| Arc::downgrade(&group))
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
        let delivery = |message: Arc<Shared>| Delivery {
            qos: subscription.options.qos.min(message.message().publish.qos),
            message,
            retain: true,
            ids: ids.clone(),
            share: None,
        };
        // A wildcard may find very many: neither they nor the session are locked for all of them at once.
        let mut deliver = |found: &mut Vec<Arc<Shared>>| {
            let count = |delivered| self.counters.count_drops(mailbox, delivered);
            mailbox.deliver_retained(found.drain(..).map(&delivery), wakes, count);
        };
        self.retained.matching(filter, now, &mut deliver);
        deliver(&mut self.sys.matching(filter).into_iter().map(|message| Shared::new(message, false)).collect());
    }

    /// Whether the store would have to keep this message: it is to be retained, or a durable session gets it.
    #[must_use]
    pub fn is_store_needed_for(&self, publish: &Publish) -> bool {
        let keeps = |subscriber: &Subscriber| {
            let qos = subscriber.subscription.options.qos.min(publish.qos);
            qos > QoS::AtMostOnce && subscriber.mailbox.is_durable()
        };
        let snapshot = self.subscriptions.snapshot();
        let matches = snapshot.matches(&publish.topic);
        let needs = |entry: &Entry| match entry {
            Entry::One(subscriber) => keeps(subscriber),
            Entry::Group(group) => group.any(keeps),
        };
        publish.retain || matches.iter().flat_map(Subscribers::iter).any(|(_, entry)| needs(entry))
    }

    /// Forgets retained messages that have expired.
    pub fn sweep(&self, now: Instant) {
        self.retained.sweep(now, |topic| {
            if let Some(journal) = &self.journal {
                journal.record_retained_gone(topic);
            }
        });
    }

    /// Retained messages out of the store.
    pub fn recover_retained(&self, message: &Arc<Shared>) {
        self.retained.keep(message.message(), || Arc::clone(message));
    }

    /// Retained messages, a slice at a time, each with the lock of its topic; `between` without it.
    pub fn visit_retained(&self, visit: impl FnMut(&[&Arc<Shared>]), between: impl FnMut()) {
        self.retained.visit(visit, between);
    }

    /// Subscriptions in all.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        // A group is one of the tree's, however many are in it, and has perhaps nobody here.
        let (groups, members) = self.groups.sizes();
        (self.subscriptions.len() + members).saturating_sub(groups)
    }

    /// Groups of shared subscriptions, and the subscriptions of their members.
    #[must_use]
    pub fn shared(&self) -> (usize, usize) {
        self.groups.count()
    }

    /// Retained messages.
    #[must_use]
    pub fn retained(&self) -> usize {
        self.retained.len()
    }

    /// Bytes of their topics, payloads and properties.
    #[must_use]
    pub fn retained_bytes(&self) -> usize {
        self.retained.bytes()
    }

    /// A part of the retained messages, the broker's own first.
    #[must_use]
    pub fn retained_page(
        &self,
        filter: &TopicFilter,
        from: Mark,
        limit: usize,
        now: Instant,
    ) -> (Vec<Arc<Message>>, Option<Mark>) {
        let mut found = if from == Mark::default() { self.sys.matching(filter) } else { Vec::new() };
        let (kept, next) = self.retained.page(filter, from, limit, now);
        found.extend(kept.iter().map(|kept| kept.to_message()));
        (found, next)
    }

    /// What is kept of `message`, if it is.
    fn keep(&self, message: &Message, wakes: &mut Wakes) -> Option<Arc<Shared>> {
        let publish = &message.publish;
        let is_full = self.journal.as_ref().is_some_and(|journal| journal.is_full());
        // §3.3.1.3: a retained message of QoS 0 may be discarded at any time.
        let mut own = None;
        let kept = if is_full && publish.qos == QoS::AtMostOnce {
            Kept::Full
        } else {
            self.retained.keep(message, || {
                // Topic and payload in bytes of their own: retained messages stay long.
                let kept = Shared::with_origin(message::detach(message), false, wakes.origin());
                if let Some(journal) = &self.journal {
                    wakes.rely_on(journal.record_retained(&kept));
                }
                Arc::clone(own.insert(kept))
            })
        };
        if kept == Kept::Full && self.counters.retained_refused.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                topic = %publish.topic,
                "the retained messages are as many as there may be; new ones still reach their subscribers, but are not retained: raise broker.max_retained_messages or max_retained_bytes"
            );
        }
        own
    }
}
