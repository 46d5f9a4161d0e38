//! The way to the other brokers, as the message path sees it.

use std::pin::Pin;
use std::sync::Arc;

use evermq_bridge::{Bridge, Claim, Clients, Directions, Groups, Hold, Keeper, Message, Pressure, Recovered, Stamp};
use evermq_mqtt::{Publish, Text};
use evermq_store::{Handle, Position, SegmentId, SessionId};
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
    /// has it, `hold` what has to be written down before anybody may have it at QoS 2, `directions` which broker gives it to which
    /// group. Gives how far the store has to be before its publisher may be told that it was taken.
    fn publish(
        &self,
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Option<Directions>,
    ) -> (Pressure, Position);
    /// Sends a message to another broker for the members of a group there, and for nobody else. The session `giver` had it until
    /// now. Gives how far the store has to be before that one may be told that it has it no longer.
    fn hand_over(
        &self,
        _message: Arc<Message>,
        _stored: Option<Handle>,
        _hold: Option<Arc<Hold>>,
        _directions: Directions,
        _giver: Option<SessionId>,
    ) -> Position {
        Position::default()
    }
    /// Who knows of this broker's groups. Where there is no other broker, nobody asks.
    fn set_groups(&self, _groups: Arc<dyn Groups>) {}
    /// Tells every other broker, if there is one, that the members of a group here have changed. Must not block.
    fn group_changed(&self, _filter: &Text) {}
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

    fn publish(
        &self,
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Option<Directions>,
    ) -> (Pressure, Position) {
        Self::publish(self, message, stored, hold, directions)
    }

    fn hand_over(
        &self,
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Directions,
        giver: Option<SessionId>,
    ) -> Position {
        Self::hand_over(self, message, stored, hold, directions, giver)
    }

    fn set_groups(&self, groups: Arc<dyn Groups>) {
        Self::set_groups(self, groups);
    }

    fn group_changed(&self, filter: &Text) {
        Self::group_changed(self, filter);
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
