//! One broker: sessions, routing and the way to the other brokers, put together. Thread-safe, without I/O of its own.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use evermq_bridge::Pressure;
use evermq_daemon::cluster_topics;
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Packet, ReasonCode, Text, Version, codec};
use evermq_store::Position;

use crate::auth::{Access, Client, Login};
use crate::authentication::{Authenticated, Mechanisms};
use crate::backbone::Backbone;
use crate::cluster_topics::ClusterTopics;
use crate::counters::{Counters, Tally};
use crate::drain::Drain;
use crate::expiry::Expiry;
use crate::gate::Gate;
use crate::journal::Journal;
use crate::mailbox::{Mailbox, Wakes};
use crate::presence::Facts;
use crate::rate::SharedRates;
use crate::registry::Registry;
use crate::router::{Congested, Router};
use crate::session::connect::{self, Granted};
use crate::session::{Action, Durability, Limits, LinkId};
use crate::trace::Tracer;

/// The broker.
pub struct Broker {
    limits: ArcSwap<Limits>,
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
    /// Who gets in, and what they may do.
    pub access: Arc<Access>,
    /// How fast clients may publish.
    pub rates: SharedRates,
    /// Ways to authenticate with AUTH packets; none unless one is offered.
    pub mechanisms: Mechanisms,
    /// Where durable sessions are kept.
    pub journal: Option<Arc<Journal>>,
    /// Whether clients are let in now.
    pub gate: Gate,
    /// Whether an operator has it emptied.
    pub drain: Drain,
    /// Clients that an operator follows.
    pub tracer: Arc<Tracer>,
    /// Sessions by client identifier.
    pub registry: Registry,
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
    /// Where it comes from.
    pub facts: Facts,
    /// Bytes of its CONNECT.
    pub connect_len: usize,
    /// Bytes of a packet that it may send.
    pub max_packet_size: u32,
    /// What the client takes.
    pub client: Takes,
    /// What is to be done first, CONNACK included.
    pub actions: VecDeque<Action>,
    /// How far the store has to be before the client may have its CONNACK.
    pub recorded: Position,
}

/// What a client said of itself that concerns the bytes that it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Takes {
    /// Bytes of a packet.
    pub max_packet_size: u32,
    /// Topic aliases that may be set for it, within what the broker sets for anyone.
    pub topic_aliases: u16,
}

/// How a publisher is to go on.
#[derive(Debug)]
pub struct Published {
    /// A connected peer is behind.
    pub pressure: Pressure,
    /// A subscriber's queue is filling up.
    pub congested: Congested,
    /// Nobody has asked for the message, on any broker.
    pub is_unheard: bool,
}

/// Sessions, and what waits in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Sessions.
    pub sessions: usize,
    /// Those with a connection.
    pub connected: usize,
    /// Messages that wait, in each session counted.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Messages that were sent and are not acknowledged.
    pub inflight: usize,
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
        access: Arc<Access>,
        journal: Option<Arc<Journal>>,
    ) -> Arc<Self> {
        let mut limits = limits;
        if let Some(journal) = &journal {
            limits.durability = Durability::new(Arc::new(Keeper::new(journal, &router, &backbone)));
        }
        let broker = Arc::new(Self {
            limits: ArcSwap::from_pointee(limits),
            router,
            counters,
            expiry: Expiry::default(),
            backbone,
            cluster,
            access,
            rates: SharedRates::default(),
            mechanisms: Mechanisms::default(),
            gate: Gate::default(),
            drain: Drain::default(),
            tracer: Arc::default(),
            journal,
            registry: Registry::default(),
            connections: AtomicUsize::new(0),
            next_link: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        });
        broker.backbone.set_clients(Arc::new(Elsewhere::new(&broker)));
        broker.router.join_mesh(&broker.backbone);
        broker
    }

    /// Bounds of the sessions that begin, or are taken up, now.
    #[must_use]
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
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
        self.connect_as(connect, &Client::local(), Login::anonymous(), None, now)
    }

    /// The same, for what is known of its client besides, and for who it is.
    ///
    /// # Errors
    /// The reason code for the CONNACK.
    pub fn connect_as(
        &self,
        connect: Connect,
        client: &Client,
        login: Login,
        authenticated: Option<Authenticated>,
        now: Instant,
    ) -> Result<Accepted, ReasonCode> {
        if let Some(reason) = self.drain.turns_away().filter(|_| !client.is_lb) {
            return Err(reason);
        }
        self.connect_within(self.limits(), connect, client, login, authenticated, now)
    }

    /// The same with bounds of its own.
    ///
    /// # Errors
    /// The reason code for the CONNACK.
    pub fn connect_within(
        &self,
        limits: Arc<Limits>,
        connect: Connect,
        client: &Client,
        login: Login,
        authenticated: Option<Authenticated>,
        now: Instant,
    ) -> Result<Accepted, ReasonCode> {
        connect::check(&connect, &limits, authenticated.is_some())?;
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        let assigned = connect.client_id.is_empty().then(random_client_id).flatten();
        let client_id = assigned.clone().unwrap_or_else(|| connect.client_id.detached());
        let assigned = assigned.filter(|_| connect.version == Version::V5);
        let (version, clean_start) = (connect.version, connect.clean_start);
        let connect_len = codec::encoded_len(&Packet::Connect(Box::new(connect.clone())), version);
        let permits = self.access.permits(&login, &client_id);
        let granted = Granted::new(connect, link, &limits, assigned).to(client).as_user(login, permits)?;
        let mut granted = Granted { limits: Some(Arc::clone(&limits)), ..granted }.with_authentication(authenticated);
        granted.check_connack()?;
        let max_packet_size = granted.max_packet_size_in;
        let takes = Takes { max_packet_size: granted.max_packet_size, topic_aliases: granted.topic_aliases };
        let mut actions = VecDeque::new();
        let mut recorded = Position::default();
        let (mailbox, replaced) = self.registry.replace(&client_id, |present| {
            // Asked under the registry's lock, so that `close_all` finds every client that got in.
            if self.stopping.load(Ordering::SeqCst) {
                return Err(ReasonCode::ServerUnavailable);
            }
            // Likewise: a reload finds every client that got in by the rules before it, and has given it the new ones.
            if let Some(login) = granted.login.clone().filter(|login| self.access.is_newer_than(login)) {
                if self.access.objection(&login).is_some() {
                    return Err(ReasonCode::NotAuthorized);
                }
                let permits = self.access.permits(&login, &client_id);
                granted = granted.clone().as_user(login, permits)?;
            }
            // The identifier is its user's as long as the session is there: nobody else ends it or reads what waits in it.
            if present.is_some_and(|present| !present.is_of(granted.user.as_deref())) {
                return Err(ReasonCode::ClientIdentifierNotValid);
            }
            let is_lasting = present.is_some_and(|present| present.lock().session.is_lasting());
            if !granted.expiry.is_zero() && (clean_start || !is_lasting) {
                let place = limits.lasting.take(is_lasting).ok_or(ReasonCode::QuotaExceeded)?;
                granted.place = Some(Arc::new(place));
            }
            if let Some(present) = present.filter(|_| !clean_start)
                && let Some(resumed) = present.resume(&granted, now, &mut actions)
            {
                recorded = resumed;
                return Ok((Arc::clone(present), None));
            }
            if !granted.expiry.is_zero() && limits.durability.is_full() {
                return Err(ReasonCode::QuotaExceeded);
            }
            // [MQTT-3.1.2-4]: a clean start ends the session that was there, in the store before the new one begins.
            let replaced = present.map(|present| (Arc::clone(present), self.change_to_end(present, now)));
            let new = Mailbox::new(client_id.detached(), Arc::clone(&limits), self.journal.clone());
            recorded = new.resume(&granted, now, &mut actions).unwrap_or_default();
            Ok((new, replaced))
        })?;
        if let Some((replaced, ended)) = replaced {
            // It must not be there again after a crash.
            recorded = recorded.max(ended.recorded);
            self.finish(&replaced, ended, now);
        }
        self.counters.count_accepted(version);
        let facts = Facts::of(client, clean_start);
        Ok(Accepted { mailbox, link, facts, connect_len, max_packet_size, client: takes, actions, recorded })
    }

    /// Does what a session asks for that does not concern its connection.
    pub fn apply(&self, mailbox: &Arc<Mailbox>, action: Action, now: Instant, wakes: &mut Wakes) {
        match action {
            Action::Publish(publish) => {
                let mut tally = Tally::default();
                tally.accepted();
                self.counters.add(&mut tally);
                self.publish(mailbox, publish, now, wakes);
            }
            Action::SendWill(will) => self.send_will(Some(mailbox), &will, now, wakes),
            Action::Refused(reason) => {
                self.counters.count_refused(reason);
                tracing::debug!(client = %mailbox.client_id(), reason = reason.name(), "message refused");
            }
            Action::Subscribe(wanted) => self.subscribe(mailbox, &[wanted], now, wakes),
            Action::Unsubscribe(filter) => self.router.unsubscribe(mailbox, [&filter]),
            Action::Watch => self.cluster.watch(mailbox, now, wakes),
            Action::SendAway(payload) => self.send_away(mailbox, &payload),
            Action::End { filters } => {
                self.router.unsubscribe(mailbox, &filters);
                self.registry.remove(mailbox);
                self.cluster.forget(mailbox);
                self.expiry.forget(mailbox);
            }
            Action::GiveBack(returned) => self.give_back(mailbox, returned, wakes),
            Action::Withdrawn(messages) => {
                self.counters.withdrawn.fetch_add(u64::try_from(messages).unwrap_or(u64::MAX), Ordering::Relaxed);
                tracing::debug!(client = %mailbox.client_id(), messages, "the rules do not allow these messages any more");
            }
            // Without a connection there is nobody to send to and nothing to close.
            Action::Send(_) | Action::Close { .. } => {}
        }
    }

    /// Every session.
    #[must_use]
    pub fn all_sessions(&self) -> Vec<Arc<Mailbox>> {
        self.registry.all()
    }

    /// Connections, strangers included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts sessions and what waits in them: a look at each, so not for every second.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for mailbox in (0..).map_while(|index| self.registry.shard_at(index)).flatten() {
            let slot = mailbox.lock();
            let Some(view) = slot.session.view() else { continue };
            census.sessions += 1;
            census.connected += usize::from(view.connected.is_some());
            census.queued += view.queued;
            census.queued_bytes += view.queued_bytes;
            census.inflight += view.inflight;
        }
        census
    }

    /// Whether a client of this identifier is connected.
    #[must_use]
    pub fn is_connected(&self, client_id: &Text) -> bool {
        self.registry.get(client_id).is_some_and(|mailbox| mailbox.lock().session.link().is_some())
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
}

/// An identifier that nobody can guess, for a client that brought none (§3.1.3.1).
fn random_client_id() -> Option<Text> {
    // The standard library seeds each `RandomState` from the system's randomness.
    let random = || RandomState::new().hash_one(0);
    Text::new(&format!("evermq-{:016x}{:016x}", random(), random())).ok()
}

mod change;
mod checkpoint;
mod elsewhere;
mod keeper;
mod place;
mod publish;
mod recover;
mod reloaded;
mod stopping;
mod subscribe;

pub use checkpoint::Checkpoint;
use elsewhere::Elsewhere;
use keeper::Keeper;
pub use place::Place;
pub use reloaded::AccessApplied;

#[cfg(test)]
pub(crate) mod tests;
