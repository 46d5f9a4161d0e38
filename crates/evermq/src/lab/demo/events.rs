//! What the demo's clients tell the demo: one JSON line each, times on the machine's monotonic clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tally::Messages;

/// One of the two clients that last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Client {
    /// Publishes at QoS 1.
    Publisher,
    /// Subscribes at QoS 1.
    Subscriber,
}

impl Client {
    /// As in a sentence.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Subscriber => "subscriber",
        }
    }
}

/// What happened, and when.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Event {
    /// On the monotonic clock, in microseconds.
    at: u64,
    /// What.
    pub(super) what: What,
}

/// What happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// A new connection got its CONNACK.
    Probe,
    /// A client is connected; the subscriber has its SUBACK, too.
    Connected {
        /// Who.
        client: Client,
        /// Whose certificate it saw.
        broker: String,
    },
    /// A client's connection ended.
    Disconnected {
        /// Who.
        client: Client,
        /// Why, in words.
        reason: String,
    },
    /// The end: what became of the messages.
    Finished(Messages),
}

impl Event {
    /// At `at` on the monotonic clock.
    pub(super) fn new(at: Duration, what: What) -> Self {
        Self { at: u64::try_from(at.as_micros()).unwrap_or(u64::MAX), what }
    }

    /// When, on the monotonic clock.
    pub(super) const fn at(&self) -> Duration {
        Duration::from_micros(self.at)
    }
}
