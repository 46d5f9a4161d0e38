//! Bounds of sessions.

use std::time::Duration;

use super::queue::Bounds;

/// Bounds that hold for every session.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a packet from a client.
    pub max_packet_size: u32,
    /// Unacknowledged messages each way.
    pub max_inflight: u16,
    /// Waiting messages.
    pub max_queued_messages: usize,
    /// Their payload bytes.
    pub max_queued_bytes: usize,
    /// How long a session may outlive its connection.
    pub max_session_expiry: Duration,
    /// Longest keep alive that is granted; zero for no limit.
    pub max_keep_alive: Duration,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Levels of a topic name or filter.
    pub max_topic_levels: usize,
    /// Retained messages in all, and so the most that SUBSCRIBE can make wait for one session.
    pub max_retained_messages: usize,
}

impl Limits {
    /// As the cluster file says.
    #[must_use]
    pub fn new(broker: &evermq_config::cluster::Broker) -> Self {
        Self {
            max_packet_size: broker.max_packet_size,
            max_inflight: broker.max_inflight,
            max_queued_messages: broker.max_queued_messages,
            max_queued_bytes: broker.max_queued_bytes,
            max_session_expiry: broker.max_session_expiry,
            max_keep_alive: broker.max_keep_alive,
            max_subscriptions: broker.max_subscriptions,
            max_topic_levels: broker.max_topic_levels,
            max_retained_messages: broker.max_retained_messages,
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
