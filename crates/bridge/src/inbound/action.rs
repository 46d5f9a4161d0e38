//! What the receiving side asks of its driver.

use crate::directions::Directions;
use crate::frame::{Claim, Entry, Frame, Range, Retained};
use crate::groups::Heard;
#[cfg(doc)]
use crate::inbound::Inbound;

/// What the driver of the current link shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send a frame.
    Send(Frame),
    /// Give a message to the broker, of this log of the origin.
    Deliver {
        /// Epoch of the log.
        epoch: u64,
        /// The message.
        entry: Entry,
        /// Where it is to go, if not just to everyone.
        directions: Option<Directions>,
    },
    /// Write down that everything up to here was applied, behind all that is written down of it; then, when that is on the
    /// disk as far as the settings ask for it, call [`Inbound::handle_recorded`].
    Record {
        /// Epoch of the log.
        epoch: u64,
        /// The newest entry that was applied.
        seq: u64,
    },
    /// A client has connected to the origin: tell the broker.
    Claimed(Claim),
    /// Something of the origin's groups: tell the broker.
    Heard(Heard),
    /// Give a retained message of a snapshot to the broker.
    ApplyRetained(Retained),
    /// This broker will never get these messages: count them.
    Missed(Range),
    /// A message came again and was dropped: count it.
    Duplicate,
    /// Close the connection, after what was sent.
    Close,
    /// The link has changed.
    Changed(Change),
}

/// From one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The state before, for logs.
    pub(crate) from: &'static str,
    /// The state after.
    pub(crate) to: &'static str,
    /// Why.
    pub(crate) reason: String,
    /// Whether the origin does not keep to the protocol.
    pub(crate) violated: bool,
}
