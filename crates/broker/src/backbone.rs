//! The way to the other brokers, as the message path sees it.

use std::pin::Pin;
use std::sync::Arc;

use evermq_bridge::{Bridge, Claim, Clients, Hold, Keeper, Message, Pressure, Recovered, Stamp};
use evermq_mqtt::Publish;
use evermq_store::{Handle, Position, SegmentId};
use serde_json::Value;

/// A wait for [`Backbone::relieved`].
pub type Relief = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the broker asks of the brokers' mesh.
pub trait Backbone: Send + Sync + 'static {
    /// The time and origin of a message that a client publishes now.
    fn next_stamp(&self) -> Stamp;
    /// The stamps of `count` messages: the first one's; the time of each other one is one more.
    fn next_stamps(&self, count: u64) -> Stamp;
    /// Goes on where the broker was when its process ended, before anything is published.
    fn recover(&self, keeper: Arc<dyn Keeper>, recovered: Recovered);
    /// Whether a message is to be in the store before [`Backbone::publish`].
    fn keeps(&self, publish: &Publish) -> bool;
    /// Sends a client's message to every other broker. The order of calls is the order there. `stored` is where the store
    /// has it, `hold` what has to be written down before anybody may have it at QoS 2. Gives how far the store has to be before
    /// its publisher may be told that it was taken.
    fn publish(&self, message: Arc<Message>, stored: Option<Handle>, hold: Option<Arc<Hold>>) -> (Pressure, Position);
    /// Who knows of this broker's clients. Where there is no other broker, nobody asks.
    fn set_clients(&self, _clients: Arc<dyn Clients>) {}
    /// Tells every other broker, if there is one, that a client has connected to this one.
    fn claim(&self, _claim: Claim) {}
    /// Writes down again what the store has of the mesh in segments before `before`.
    fn checkpoint(&self, before: SegmentId);
    /// There is no other broker, so nobody hears a message whom this one does not know.
    fn is_alone(&self) -> bool;
    /// Ends when publishers may go on.
    fn relieved(self: Arc<Self>) -> Relief;
    /// Messages that connected peers have not acknowledged yet.
    fn unacknowledged(&self) -> u64;
    /// What the control socket shows.
    fn state(&self) -> Value;
    /// What an operator is to know of the other brokers at once.
    fn alarm(&self) -> Option<String> {
        None
    }
}

impl Backbone for Bridge {
    fn next_stamp(&self) -> Stamp {
        Self::next_stamp(self)
    }

    fn next_stamps(&self, count: u64) -> Stamp {
        Self::next_stamps(self, count)
    }

    fn recover(&self, keeper: Arc<dyn Keeper>, recovered: Recovered) {
        Self::recover(self, keeper, recovered);
    }

    fn keeps(&self, publish: &Publish) -> bool {
        Self::keeps(self, publish)
    }

    fn publish(&self, message: Arc<Message>, stored: Option<Handle>, hold: Option<Arc<Hold>>) -> (Pressure, Position) {
        Self::publish(self, message, stored, hold)
    }

    fn set_clients(&self, clients: Arc<dyn Clients>) {
        Self::set_clients(self, clients);
    }

    fn claim(&self, claim: Claim) {
        Self::claim(self, claim);
    }

    fn checkpoint(&self, before: SegmentId) {
        Self::checkpoint(self, before);
    }

    fn is_alone(&self) -> bool {
        Self::is_alone(self)
    }

    fn relieved(self: Arc<Self>) -> Relief {
        Box::pin(async move { Self::relieved(&self).await })
    }

    fn unacknowledged(&self) -> u64 {
        Self::state(self).peers.iter().filter(|peer| peer.connected).map(|peer| peer.lag).sum()
    }

    fn state(&self) -> Value {
        serde_json::to_value(Self::state(self)).unwrap_or_default()
    }

    fn alarm(&self) -> Option<String> {
        Self::alarm(self)
    }
}
