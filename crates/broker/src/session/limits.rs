//! Bounds of sessions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use evermq_mqtt::{Publish, ReasonCode};

use super::Session;
use super::budget::Budget;
use super::lasting::Lasting;
use super::queue::Bounds;
use crate::bridges::forwarded::Forwarded;

/// Bounds that hold for every session.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a packet from a client.
    pub max_packet_size: u32,
    /// Unacknowledged messages each way.
    pub max_inflight: u16,
    /// Waiting messages.
    pub max_queued_messages: usize,
    /// Bytes of their topics, payloads and properties.
    pub max_queued_bytes: usize,
    /// How long a session may outlive its connection.
    pub max_session_expiry: Duration,
    /// Longest keep alive that is granted; zero for no limit.
    pub max_keep_alive: Duration,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Levels of a topic name or filter.
    pub max_topic_levels: usize,
    /// Topic aliases each way and connection; zero for none.
    pub max_topic_alias: u16,
    /// What a client is told where the rules deny what it asks for.
    pub denied: ReasonCode,
    /// Retained messages in all, and so the most that SUBSCRIBE can make wait for one session.
    pub max_retained_messages: usize,
    /// Room for what waits in all sessions.
    pub budget: Arc<Budget>,
    /// Places of the sessions that outlive their connections.
    pub lasting: Arc<Lasting>,
    /// What outlives the process.
    pub durability: Durability,
    /// What need not wait, because another host has passed it on: of a bridge's session.
    pub forwarded: Option<Arc<Forwarded>>,
}

/// Whether sessions can outlive the process, and whether there is room for more of them and of their messages.
#[derive(Clone, Default)]
pub struct Durability(Option<Arc<dyn Durable>>);

/// What a session asks of the store.
pub trait Durable: Send + Sync {
    /// It takes nothing new.
    fn is_full(&self) -> bool;
    /// It would have to keep this message: a durable session gets it, or it is retained.
    fn is_needed_for(&self, publish: &Publish) -> bool;
}

impl Durability {
    /// Sessions are kept there.
    #[must_use]
    pub fn new(store: Arc<dyn Durable>) -> Self {
        Self(Some(store))
    }

    /// Whether sessions are kept anywhere.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Whether nothing new can be kept.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.as_ref().is_some_and(|store| store.is_full())
    }

    /// Whether this message would have to be kept and cannot.
    #[must_use]
    pub fn refuses(&self, publish: &Publish) -> bool {
        self.0.as_ref().is_some_and(|store| store.is_full() && store.is_needed_for(publish))
    }
}

impl fmt::Debug for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Durability").field(&self.is_there()).finish()
    }
}

impl Limits {
    /// As the cluster file says.
    #[must_use]
    pub fn new(broker: &evermq_config::broker::Broker) -> Self {
        Self {
            max_packet_size: broker.max_packet_size,
            max_inflight: broker.max_inflight,
            max_queued_messages: broker.max_queued_messages,
            max_queued_bytes: broker.max_queued_bytes,
            max_session_expiry: broker.max_session_expiry,
            max_keep_alive: broker.max_keep_alive,
            max_subscriptions: broker.max_subscriptions,
            max_topic_levels: broker.max_topic_levels,
            max_topic_alias: broker.max_topic_alias,
            // Both are allowed: §3.4.2.1, §3.5.2.1 and §3.9.3 have 0x80 for a server that does not wish to reveal the reason.
            denied: if broker.auth.tell_denied { ReasonCode::NotAuthorized } else { ReasonCode::UnspecifiedError },
            max_retained_messages: broker.max_retained_messages,
            budget: Arc::new(Budget::new(broker.max_queued_total)),
            lasting: Arc::new(Lasting::new(broker.max_sessions)),
            durability: Durability::default(),
            forwarded: None,
        }
    }

    /// These for a session whose client was told of `told` in its CONNACK: what it was told stays.
    #[must_use]
    pub fn with_told(&self, told: &Self) -> Self {
        Self {
            max_packet_size: told.max_packet_size,
            max_inflight: told.max_inflight,
            max_session_expiry: told.max_session_expiry,
            max_keep_alive: told.max_keep_alive,
            max_topic_alias: told.max_topic_alias,
            ..self.clone()
        }
    }

    /// Those of a session's queue.
    pub(super) fn queue(&self) -> Bounds {
        Bounds {
            messages: self.max_queued_messages,
            bytes: self.max_queued_bytes,
            retained: self.max_retained_messages,
        }
    }

    /// Whether a topic name or filter is deeper than allowed.
    pub(super) fn has_too_many_levels<'a>(&self, mut levels: impl Iterator<Item = &'a str>) -> bool {
        levels.nth(self.max_topic_levels).is_some()
    }
}

impl Session {
    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Other ones, which say the same of what its client was told ([`Limits::with_told`]).
    pub fn set_limits(&mut self, limits: Arc<Limits>) {
        self.limits = limits;
    }
}
