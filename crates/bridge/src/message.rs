//! What crosses the mesh, and what the bridge asks of the broker that it lives in.

use std::sync::Arc;
use std::time::Instant;

use evermq_mqtt::Publish;

/// A message as brokers hold it and pass it to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// As the client published it, but `dup` is false, `packet_id` is `None` at every QoS, the topic is never empty,
    /// and there is neither a topic alias nor a subscription identifier. A message expiry interval counts from `received`.
    pub publish: Publish,
    /// When and where it was published.
    pub stamp: Stamp,
    /// When its publisher's broker received it, on this host's monotonic clock.
    pub received: Instant,
}

/// Hybrid logical clock time and origin: a total order, the same on every broker (last writer wins).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Nanoseconds since 1970, by a clock that never repeats, never goes back and is later than every stamp it has seen.
    pub time: u64,
    /// Name of the broker that received the message from its publisher.
    pub origin: Arc<str>,
}

/// What the bridge asks of the broker it lives in.
///
/// Every call comes from the bridge's own runtime thread and must not block. None of them may call
/// [`Bridge::publish`](crate::Bridge::publish) with what it was given: only the origin of a message sends it.
pub trait Local: Send + Sync + 'static {
    /// Gives a peer's message to this broker's subscribers, always, and to the retained store if it has the retain flag
    /// and its stamp is newer than what is held there. Called in the origin's order, one origin at a time, once.
    fn deliver(&self, message: Arc<Message>);

    /// The retained messages, and deletions that are still remembered (retained messages without payload), of whatever
    /// origin: for a peer that starts empty or has missed messages.
    fn retained(&self) -> Vec<Arc<Message>>;

    /// A retained message out of a peer's snapshot: kept if its stamp is newer than what is held, not given to subscribers.
    fn apply_retained(&self, message: Arc<Message>);
}
