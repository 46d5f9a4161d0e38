//! A message in the log.

use std::sync::{Arc, OnceLock};

use evermq_mqtt::codec::PublishFrame;
use evermq_mqtt::{Publish, QoS};
use evermq_store::Handle;

use crate::directions::Directions;
use crate::hold::Hold;
use crate::message::Message;
use crate::wire_message;

/// A message in the log.
#[derive(Debug)]
pub(crate) struct Entry {
    message: Arc<Message>,
    bytes: usize,
    packet: OnceLock<Option<PublishFrame>>,
    /// Where the store has the message, which keeps it there.
    stored: Option<Handle>,
    hold: Option<Arc<Hold>>,
    directions: Option<Directions>,
}

impl Entry {
    /// Puts a message into the form in which the log holds it.
    pub(crate) fn new(
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Option<Directions>,
    ) -> Arc<Self> {
        let bytes = message.publish.weight() + directions.as_ref().map_or(0, |directions| directions.as_bytes().len());
        Arc::new(Self { message, bytes, packet: OnceLock::new(), stored, hold, directions })
    }

    /// The message.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// What it counts for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the store has it.
    pub(crate) fn stored(&self) -> Option<&Handle> {
        self.stored.as_ref()
    }

    /// What keeps it from the peers.
    pub(crate) fn hold(&self) -> Option<&Arc<Hold>> {
        self.hold.as_ref()
    }

    /// Where it is to go, if not just to everyone.
    pub(crate) fn directions(&self) -> Option<&Directions> {
        self.directions.as_ref()
    }

    /// Whether peers miss it if it is lost; see [`is_kept`].
    pub(crate) fn is_kept(&self) -> bool {
        is_kept(&self.message.publish)
    }

    /// The message's PUBLISH packet, encoded once for all peers by the first that sends it; `None` if it has none (which
    /// no client can bring about).
    pub(crate) fn packet(&self) -> Option<&PublishFrame> {
        self.packet.get_or_init(|| wire_message::encode(&self.message.publish)).as_ref()
    }
}

/// Whether a message is more than QoS 0: its publisher was promised something, or brokers have to agree on it. What is not is in the log's memory only.
#[must_use]
pub fn is_kept(publish: &Publish) -> bool {
    publish.qos > QoS::AtMostOnce || publish.retain
}
