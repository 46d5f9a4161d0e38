//! One broker: sessions, routing and the way to the other brokers, put together. Thread-safe, without I/O of its own.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use evermq_bridge::{Message, Pressure};
use evermq_daemon::cluster_topics;
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Publish, ReasonCode, Text, Version};

use crate::backbone::Backbone;
use crate::cluster_topics::{ClusterTopics, Seat};
use crate::counters::Counters;
use crate::expiry::Expiry;
use crate::mailbox::{Mailbox, Wakes};
use crate::registry::Registry;
use crate::router::{Congested, Router};
use crate::session::connect::{self, Granted};
use crate::session::{Action, Limits, LinkId, Session};

/// The broker.
pub struct Broker {
    /// Bounds of each session.
    pub limits: Arc<Limits>,
    /// Subscriptions and retained messages.
    pub router: Arc<Router>,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Sessions without a connection, by their next deadline.
    pub expiry: Expiry,
    /// The way to the other brokers.
    pub backbone: Arc<dyn Backbone>,
    /// The cluster's lbs.
    pub cluster: ClusterTopics,
    registry: Registry,
    connections: AtomicUsize,
    next_link: AtomicU64,
    stopping: AtomicBool,
}

/// An accepted client.
#[derive(Debug)]
pub struct Accepted {
    /// Its session.
    pub mailbox: Arc<Mailbox>,
    /// Its connection.
    pub link: LinkId,
    /// What is to be done first, CONNACK included.
    pub actions: VecDeque<Action>,
}

/// How a publisher is to go on.
#[derive(Debug)]
pub struct Published {
    /// A connected peer is behind.
    pub pressure: Pressure,
    /// A subscriber's queue is filling up.
    pub congested: Congested,
}

/// A place among the connections that the broker serves; given back when dropped.
pub struct Place {
    broker: Arc<Broker>,
    seat: Option<Seat>,
}

impl Broker {
    /// A broker without clients.
    #[must_use]
    pub fn new(
        limits: Limits,
        router: Arc<Router>,
        counters: Arc<Counters>,
        backbone: Arc<dyn Backbone>,
        cluster: ClusterTopics,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits: Arc::new(limits),
            router,
            counters,
            expiry: Expiry::default(),
            backbone,
            cluster,
            registry: Registry::default(),
            connections: AtomicUsize::new(0),
            next_link: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        })
    }

    /// A place for one more connection, unless there are `max` already.
    #[must_use]
    pub fn place(self: &Arc<Self>, max: usize) -> Option<Place> {
        let place = Place { broker: Arc::clone(self), seat: None };
        (self.connections.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }

    /// A client's CONNECT: makes or resumes its session (§3.1.4).
    ///
    /// # Errors
    /// The reason code for the CONNACK.
    pub fn connect(&self, connect: Connect, now: Instant) -> Result<Accepted, ReasonCode> {
        self.connect_as(connect, false, now)
    }

    /// The same, for an lb of the cluster if `is_lb`.
    ///
    /// # Errors
    /// The reason code for the CONNACK.
    pub fn connect_as(&self, connect: Connect, is_lb: bool, now: Instant) -> Result<Accepted, ReasonCode> {
        connect::check(&connect, &self.limits)?;
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let assigned = connect.client_id.is_empty().then(random_client_id).flatten();
        let client_id = assigned.clone().unwrap_or_else(|| connect.client_id.detached());
        let assigned = assigned.filter(|_| connect.version == Version::V5);
        let clean_start = connect.clean_start;
        let granted = Granted { is_lb, ..Granted::new(connect, link, &self.limits, assigned) };
        let mut actions = VecDeque::new();
        let (mailbox, replaced) = self.registry.replace(&client_id, |present| {
            // Asked under the registry's lock, so that `close_all` finds every client that got in.
            if self.stopping.load(Ordering::SeqCst) {
                return Err(ReasonCode::ServerUnavailable);
            }
            if let Some(present) = present.filter(|_| !clean_start)
                && present.resume(&granted, now, &mut actions)
            {
                return Ok((Arc::clone(present), None));
            }
            let new = Mailbox::new(client_id.clone(), Arc::clone(&self.limits));
            new.resume(&granted, now, &mut actions);
            Ok((new, present.cloned()))
        })?;
        // [MQTT-3.1.2-4]: a clean start ends the session that was there.
        if let Some(replaced) = replaced {
            self.end(&replaced, now);
        }
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(Accepted { mailbox, link, actions })
    }

    /// A message of a client of this broker: to the subscribers here and to the other brokers, before it is acknowledged.
    pub fn publish(&self, mailbox: &Mailbox, publish: Publish, now: Instant, wakes: &mut Wakes) -> Published {
        let message = Arc::new(Message { publish, stamp: self.backbone.next_stamp(), received: now });
        let congested = self.router.route(Arc::clone(&message), Some(mailbox.key()), wakes);
        Published { pressure: self.backbone.publish(message), congested }
    }

    /// Does what a session asks for that does not concern its connection.
    pub fn apply(&self, mailbox: &Arc<Mailbox>, action: Action, now: Instant, wakes: &mut Wakes) {
        match action {
            Action::Publish(publish) => {
                self.counters.from_clients.fetch_add(1, Ordering::Relaxed);
                self.publish(mailbox, publish, now, wakes);
            }
            Action::Refused(reason) => {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(client = %mailbox.client_id(), reason = reason.name(), "message refused");
            }
            Action::Subscribe { filter, subscription, retained } => {
                self.router.subscribe(mailbox, &filter, subscription);
                if retained {
                    self.router.deliver_retained(mailbox, &filter, subscription, now, wakes);
                }
            }
            Action::Unsubscribe(filter) => self.router.unsubscribe(mailbox, [&filter]),
            Action::Watch => self.cluster.watch(mailbox, now, wakes),
            Action::SendAway(payload) => self.send_away(mailbox, &payload),
            Action::End { filters } => {
                self.router.unsubscribe(mailbox, &filters);
                self.registry.remove(mailbox);
                self.cluster.forget(mailbox);
                self.expiry.forget(mailbox);
            }
            // Without a connection there is nobody to send to and nothing to close.
            Action::Send(_) | Action::Close { .. } => {}
        }
    }

    /// Changes a session that has no connection, or is to lose it, does what it asks for, and remembers when it is due.
    pub fn update(&self, mailbox: &Arc<Mailbox>, now: Instant, change: impl FnOnce(&mut Session)) {
        let mut slot = mailbox.lock();
        // Taken before the lock is given back, as everywhere: actions never wait for whoever comes next.
        let mut actions = VecDeque::new();
        slot.session.swap_actions(&mut actions);
        change(&mut slot.session);
        slot.session.swap_actions(&mut actions);
        let waker = if slot.session.link().is_none() { slot.waker.take() } else { None };
        drop(slot);
        let mut wakes = Wakes::default();
        wakes.add(waker);
        for action in actions {
            self.apply(mailbox, action, now, &mut wakes);
        }
        self.watch(mailbox);
    }

    /// Remembers when a session without a connection is due.
    pub fn watch(&self, mailbox: &Arc<Mailbox>) {
        if let Some(deadline) = mailbox.deadline() {
            self.expiry.watch(mailbox, deadline);
        }
    }

    /// Sessions whose will is due or that have expired.
    pub fn expire(&self, now: Instant) {
        for mailbox in self.expiry.due(now) {
            self.update(&mailbox, now, |session| {
                // It may have come back meanwhile; then its connection keeps its time.
                if session.link().is_none() {
                    session.handle_timeout(now);
                }
            });
        }
    }

    /// Lets nobody in any more and tells every connection to close, but those of lbs: what the clients still send and get
    /// goes through them, and an lb closes all of it when its own session ends.
    pub fn close_all(&self, reason: ReasonCode) {
        self.stopping.store(true, Ordering::SeqCst);
        for mailbox in self.registry.all() {
            if !self.cluster.is_watching(&mailbox) {
                mailbox.close(reason);
            }
        }
    }

    /// Tells the lbs' connections to close.
    pub fn close_lbs(&self, reason: ReasonCode) {
        for mailbox in self.cluster.watching() {
            mailbox.close(reason);
        }
    }

    /// Ends every session. They are in memory, so they end with the broker, and their wills are due (§3.1.2.5).
    pub fn end_all(&self, now: Instant) {
        for mailbox in self.registry.all() {
            self.end(&mailbox, now);
        }
    }

    /// Connections, strangers included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Sessions and the messages that wait in them.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        let all = self.registry.all();
        (all.len(), all.iter().map(|mailbox| mailbox.lock().session.queued()).sum())
    }

    /// What an lb asks for with [`evermq_daemon::cluster_topics::DISCONNECT`].
    fn send_away(&self, mailbox: &Mailbox, payload: &[u8]) {
        let Some(addresses) = cluster_topics::parse_disconnect(payload) else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(lb = %mailbox.client_id(), "an lb wants clients sent away, but its list of them is none");
            return;
        };
        let found = self.cluster.send_away(&addresses);
        self.counters.sent_away.fetch_add(u64::try_from(found).unwrap_or(u64::MAX), Ordering::Relaxed);
        tracing::debug!(lb = %mailbox.client_id(), asked = addresses.len(), found, "clients are to use another server");
    }

    fn end(&self, mailbox: &Arc<Mailbox>, now: Instant) {
        self.update(mailbox, now, |session| session.handle_end(now));
    }
}

impl Place {
    /// The client that has it, and the other end of its connection.
    pub fn seat(&mut self, peer: SocketAddr, client: &Accepted) {
        self.seat = self.broker.cluster.seat(peer, &client.mailbox, client.link);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.broker.cluster.leave(seat);
        }
        self.broker.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An identifier that nobody can guess, for a client that brought none (§3.1.3.1).
fn random_client_id() -> Option<Text> {
    // The standard library seeds each `RandomState` from the system's randomness.
    let random = || RandomState::new().hash_one(0);
    Text::new(&format!("evermq-{:016x}{:016x}", random(), random())).ok()
}

#[cfg(test)]
pub(crate) mod tests;
