//! Whose message it is, where that matters.

use std::sync::Arc;

use evermq_bridge::Hold;
use evermq_mqtt::PacketId;
use evermq_store::{Position, SessionId, Source};

/// Who brings a message again if the broker stops: a durable session at QoS 2, its will, or another broker. Until the store has
/// heard that it was taken, or has gone out, nobody is sent it at QoS 2: should the broker stop before that, the store forgets
/// this one.
#[derive(Debug)]
pub struct Origin {
    /// Who.
    pub source: Source,
    hold: Arc<Hold>,
}

impl Origin {
    /// A message that this session has just taken, by the key of its mailbox.
    #[must_use]
    pub fn client(session: u64, packet_id: PacketId) -> Arc<Self> {
        Self::of(Source::Client { session: SessionId(session), packet_id: packet_id.0.get() })
    }

    /// The will that the store has under this number.
    #[must_use]
    pub fn of_will(number: u64) -> Arc<Self> {
        Self::of(Source::Will { will: SessionId(number) })
    }

    fn of(source: Source) -> Arc<Self> {
        Arc::new(Self { source, hold: Hold::new() })
    }

    /// A message of another broker; `hold` is the same for all that are taken together.
    #[must_use]
    pub fn peer(epoch: u64, seq: u64, hold: &Arc<Hold>) -> Arc<Self> {
        Arc::new(Self { source: Source::Peer { epoch, seq }, hold: Arc::clone(hold) })
    }

    /// The store has heard that it was taken, and has that when it is at `at`. What comes from another broker is complete
    /// together with what came with it.
    pub fn complete(&self, at: Position) {
        match self.source {
            Source::Client { .. } | Source::Will { .. } => self.hold.release(at),
            Source::Peer { .. } => {}
        }
    }

    /// What keeps it from those who may have it only once.
    #[must_use]
    pub fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }
}
