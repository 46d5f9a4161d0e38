//! The states of a link, and what it asks of its driver.

use std::time::Instant;

use crate::cursor::Room;
use crate::frame::{Frame, Range};
#[cfg(doc)]
use crate::link::Link;

/// Where the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started.
    Idle,
    /// TCP and TLS are being set up.
    Connecting {
        /// The latest end of it.
        until: Instant,
    },
    /// HELLO was sent.
    Greeting {
        /// The latest time for WELCOME.
        until: Instant,
    },
    /// Retained messages are being sent.
    Snapshot {
        /// Entries that are missing after it.
        gap: Option<Range>,
    },
    /// The log is being sent.
    Streaming,
    /// Waiting before the next attempt.
    Backoff {
        /// The time for it.
        until: Instant,
    },
    /// At an end.
    Stopped,
}

impl State {
    /// The name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting { .. } => "connecting",
            Self::Greeting { .. } => "greeting",
            Self::Snapshot { .. } => "snapshot",
            Self::Streaming => "streaming",
            Self::Backoff { .. } => "backoff",
            Self::Stopped => "stopped",
        }
    }

    /// Whether messages reach the peer.
    pub(crate) fn is_up(self) -> bool {
        match self {
            Self::Snapshot { .. } | Self::Streaming => true,
            Self::Idle | Self::Connecting { .. } | Self::Greeting { .. } | Self::Backoff { .. } | Self::Stopped => {
                false
            }
        }
    }
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open a connection, then call [`Link::handle_opened`] or [`Link::handle_lost`].
    Connect,
    /// Send a frame.
    Send(Frame),
    /// Send every retained message and SNAPSHOT_END with this base, then call [`Link::handle_snapshot_sent`].
    Snapshot {
        /// The entry behind which entries go on.
        base: u64,
    },
    /// Read the log and send what it gives, then call [`Link::handle_batch`], [`Link::handle_gone`],
    /// [`Link::handle_held`] or [`Link::handle_end`].
    Read(Room),
    /// The peer is there and has everything up to here.
    Attach(u64),
    /// The peer, which speaks that minor of the protocol, is to be told what is not in the log, from now on.
    Tell(u8),
    /// The peer has everything up to here.
    Acknowledged(u64),
    /// The peer is away.
    Detach,
    /// The peer has more of this log than was ever sent to it: an old copy of the store was brought back. Begin another epoch,
    /// and give it to [`Link::set_hello`].
    LogWasSetBack,
    /// The peer begins to lose messages: say so, once.
    Losing(Loss),
    /// The peer has taken note that it will never get these entries: count them.
    Lost(Range),
    /// Close the connection; if there is a last word (ERROR, BYE), after it is on its way.
    Close {
        /// Whether the last frame sent was a last word.
        last_word: bool,
    },
    /// The state has changed.
    Changed(Change),
}

/// Why a peer does not get messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The log is full, and the oldest messages had to go.
    LogFull,
    /// It takes smaller messages only than this broker.
    TooLarge,
}

/// From one state to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The state before.
    pub(crate) from: State,
    /// The state after.
    pub(crate) to: State,
    /// Why.
    pub(crate) reason: String,
    /// Whether somebody must put something right: the two sides do not accept each other.
    pub(crate) refused: bool,
}
