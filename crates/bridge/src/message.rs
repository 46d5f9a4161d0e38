//! What crosses the mesh, and what the bridge asks of the broker that it lives in.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use evermq_mqtt::Publish;
use evermq_store::{Handle, Position, Store};

use crate::directions::Directions;
pub use crate::log::is_kept;

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
    /// Who published it, where other brokers may have that client's session too; see [`Publisher`].
    pub publisher: Option<Publisher>,
}

/// A client in few bytes, the same on every broker, so that none gives it its own messages where it does not want them
/// (No Local, MQTT 5.0 §3.8.3.1): a hash of its identifier and user that nobody can make two clients for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Publisher(pub NonZeroU64);

/// Hybrid logical clock time and origin: a total order, the same on every broker (last writer wins).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Nanoseconds since 1970, by a clock that never repeats, never goes back and is later than every stamp it has seen.
    pub time: u64,
    /// Name of the broker that received the message from its publisher.
    pub origin: Arc<str>,
}

/// A peer's message, and where it stands in that peer's log.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The message.
    pub message: Arc<Message>,
    /// Which log.
    pub epoch: u64,
    /// The place in it.
    pub seq: u64,
    /// Where it is to go, if not just to everyone.
    pub directions: Option<Directions>,
}

/// Where the bridge keeps what is to outlive the process.
pub trait Keeper: Send + Sync + 'static {
    /// The broker's store.
    fn store(&self) -> &Store;

    /// [`Store::refresh`] of a message that the store has as `handle`.
    fn refresh(&self, message: &Message, handle: &Handle);
}

/// What the store had when the process began.
#[derive(Debug, Default)]
pub struct Recovered {
    /// This broker's log, if there was one.
    pub log: Option<evermq_store::OriginLog>,
    /// More of it may have been sent than is known.
    pub is_log_doubtful: bool,
    /// The messages in the log by their places, in order, each with where it is to go, if not just to everyone.
    pub messages: Vec<(u64, Arc<Message>, Handle, Option<Directions>)>,
    /// Up to where other brokers have it, at least.
    pub cursors: Vec<(String, u64)>,
    /// How far this broker is with the others' logs.
    pub applied: Vec<evermq_store::Applied>,
}

/// What the bridge asks of the broker it lives in.
///
/// Every call comes from the bridge's own runtime thread and must not block. None of them may call
/// [`Bridge::publish`](crate::Bridge::publish) with what it was given: only the origin of a message sends it. What is for the members
/// of a group that have gone to another broker is for [`Bridge::hand_over`](crate::Bridge::hand_over).
pub trait Local: Send + Sync + 'static {
    /// Gives one peer's messages to this broker's subscribers, always, and to the retained store if they have the retain
    /// flag and their stamp is newer than what is held there. Called in the origin's order, one origin at a time, once.
    /// `applied` writes down that all of them have come, and says where: to be called behind all that is written down of them.
    /// Until then nobody may be sent one at QoS 2. One that is handed over is for the groups that are named, and for nobody else.
    fn deliver(&self, messages: &mut Vec<Arrived>, applied: &mut dyn FnMut() -> Position);

    /// Whether what peers send can be taken: the store keeps up. Otherwise the task is woken when it is time.
    fn poll_ready(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// The retained messages, and deletions that are still remembered (retained messages without payload), of whatever
    /// origin: for a peer that starts empty or has missed messages.
    fn retained(&self) -> Vec<Arc<Message>>;

    /// A retained message out of a peer's snapshot: kept if its stamp is newer than what is held, not given to subscribers.
    fn apply_retained(&self, message: Arc<Message>);
}
