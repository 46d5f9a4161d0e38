//! What is so of a session now, for those who hold it.

use std::sync::Arc;
use std::time::Duration;

use evermq_mqtt::{PacketId, TopicFilter};

use super::inflight::Inflight;
use super::queue::Queue;
use super::{LinkId, Session, State, Subscription};
use crate::auth::Login;

impl Session {
    /// Whose it is, where that is known.
    #[must_use]
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// How long it outlives its connection.
    #[must_use]
    pub fn expiry(&self) -> Duration {
        self.expiry
    }

    /// Whether it has a place among those that outlive their connections.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.place.is_some()
    }

    /// What it is subscribed to.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&TopicFilter, &Subscription)> {
        self.subscriptions.iter()
    }

    /// Messages that wait.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Messages that are out.
    #[must_use]
    pub fn inflight(&self) -> &Inflight {
        &self.inflight
    }

    /// Identifiers of QoS 2 messages that the client has not released, as far as they are recorded.
    pub fn received(&self) -> impl Iterator<Item = PacketId> {
        self.received.iter().filter(|(_, is_recorded)| **is_recorded).map(|(id, _)| *id)
    }

    /// The present connection.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        match &self.state {
            State::Connected(link) => Some(link.id),
            State::Detached { .. } | State::Ended => None,
        }
    }

    /// Whether the present connection is that of an lb of the cluster.
    #[must_use]
    pub fn is_lb(&self) -> bool {
        match &self.state {
            State::Connected(link) => link.is_lb,
            State::Detached { .. } | State::Ended => false,
        }
    }

    /// How the present connection's client is known.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        match &self.state {
            State::Connected(link) => link.login.as_ref(),
            State::Detached { .. } | State::Ended => None,
        }
    }

    /// Whether it has a connection that it does not outlive (§3.1.2.11.2; 3.1.1 `[MQTT-3.1.2-6]`).
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::Connected(_)) && self.expiry.is_zero()
    }

    /// Whether the session is over: it takes neither connections nor messages.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Waiting messages.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }
}
