//! Messages that come from other brokers, and those that go to them because the members of a group have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use evermq_bridge::{Arrived, Directions, Groups, Heard, Hold, Local, Members, Message, is_kept};
use evermq_mqtt::{QoS, Text};
use evermq_store::{Position, SessionId};

use super::deliveries::Sender;
use super::sharing::Sharing;
use super::{Router, Spread};
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Origin, Shared};
use crate::session::Delivered;
use crate::share::cluster::Choice;

impl Router {
    /// Messages of shared subscriptions that a session has not acknowledged go to other members (§4.8.2), here if there are
    /// any.
    pub fn give_back(&self, mailbox: &Mailbox, deliveries: Vec<Delivery>, wakes: &mut Wakes) {
        for delivery in deliveries {
            let shared = &delivery.message;
            let group = delivery.share.and_then(|share| share.upgrade());
            let taken = group.as_ref().and_then(|group| group.deliver(shared, Some(mailbox.key()), wakes));
            if let Some(taken) = taken {
                self.counters.count_drops(&taken.mailbox, taken.delivered);
                continue;
            }
            match group.and_then(|group| group.choose(shared.message().publish.qos, false)) {
                Some(Choice::There(to)) => {
                    // Its publisher may have to be told first that it was taken.
                    let hold = shared.origin().filter(|_| !shared.is_complete()).map(Origin::hold).cloned();
                    let recorded = self.hand_over(shared, &to, None, hold, wakes.giver());
                    wakes.rely_on(recorded);
                }
                Some(Choice::Here) | None => {
                    self.counters.count_drops(mailbox, Delivered { dropped: 1, ..Delivered::default() });
                }
            }
        }
    }

    /// Sends a message, which came here as `before` says, to the members of a group at another broker.
    fn hand_over(
        &self,
        shared: &Shared,
        to: &Directions,
        before: Option<&Directions>,
        hold: Option<Arc<Hold>>,
        giver: Option<u64>,
    ) -> Position {
        let Some((backbone, _)) = self.groups.membership().get() else { return Position::default() };
        let message = shared.to_message();
        let Some(directions) = to.handed_over(before) else {
            if self.counters.without_member.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(
                    topic = %message.publish.topic, origin = &*message.stamp.origin,
                    "a message of a shared subscription has been to three brokers whose members had just gone, and is given up; this is said once, dropped_without_member counts them"
                );
            }
            return Position::default();
        };
        let is_stored = message.publish.qos > QoS::AtMostOnce;
        let stored =
            shared.handle().cloned().or_else(|| self.store_for_peers(&message, shared.origin())).filter(|_| is_stored);
        backbone.hand_over(message, stored, hold, directions, giver.map(SessionId))
    }

    /// Gives a message of another broker to its subscribers. What goes on to another one may not do so before `hold` lets it.
    fn route_arrived(
        &self,
        message: Arc<Message>,
        directions: Option<&Directions>,
        hold: &mut Option<Arc<Hold>>,
        wakes: &mut Wakes,
    ) {
        let is_handed_over = directions.is_some_and(Directions::is_handed_over);
        let kept = (message.publish.retain && !is_handed_over).then(|| self.keep(&message, wakes)).flatten();
        let stored = kept.and_then(|kept| kept.handle().cloned());
        let membership = self.groups.membership().get();
        let me = membership.as_ref().map_or("", |(_, me)| me);
        let sharing = Sharing::Told { me, directions, met: Vec::new(), onward: Vec::new() };
        let sender = message.publisher.map_or(Sender::Nobody, Sender::There);
        let spread = self.spread([(Arc::clone(&message), stored.clone())], sender, sharing, wakes);
        let Spread { sharing: Sharing::Told { met, mut onward, .. }, .. } = spread else { return };
        // Those of which nothing is known here, not even their filter: this broker was away.
        let unmet =
            directions.into_iter().flat_map(|directions| directions.of(me)).filter(|group| !met.contains(group));
        onward.extend(unmet.map(|group| Directions::new(group, &message.stamp.origin)));
        if onward.is_empty() {
            return;
        }
        let shared = Shared::with_origin(message, false, wakes.origin());
        if let Some(stored) = stored {
            shared.is_stored_at(stored);
        }
        for to in onward {
            let hold = Arc::clone(hold.get_or_insert_with(Hold::new));
            self.hand_over(&shared, &to, directions, Some(hold), None);
        }
    }
}

impl Local for Router {
    fn deliver(&self, messages: &mut Vec<Arrived>, applied: &mut dyn FnMut() -> Position) {
        self.counters.from_peers.fetch_add(messages.len() as u64, Ordering::Relaxed);
        self.notices.note(messages);
        let mut wakes = Wakes::default();
        let (hold, mut going_on) = (Hold::new(), None);
        for Arrived { message, epoch, seq, directions } in messages.drain(..) {
            wakes.begin(is_kept(&message.publish).then(|| Origin::peer(epoch, seq, &hold)));
            self.route_arrived(message, directions.as_ref(), &mut going_on, &mut wakes);
        }
        let at = applied();
        // What is sent of them is written down behind that.
        hold.release(Position::default());
        // What was sent on must not come here once more, or it would be sent on once more.
        if let Some(going_on) = going_on {
            going_on.release(at);
        }
        wakes.wake();
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.journal.as_ref().map_or(Poll::Ready(()), |journal| journal.poll_room(cx))
    }

    fn retained(&self) -> Vec<Arc<Message>> {
        self.retained.all()
    }

    fn apply_retained(&self, message: Arc<Message>) {
        self.keep(&message, &mut Wakes::default());
    }
}

impl Groups for Router {
    fn filters(&self) -> Vec<Text> {
        self.groups.filters()
    }

    fn members(&self, filter: &Text) -> Members {
        self.groups.members(filter)
    }

    fn connected_at(&self, broker: &str) -> u64 {
        self.groups.connected_at(broker)
    }

    fn heard(&self, broker: &Arc<str>, heard: Heard) {
        self.groups.heard(broker, heard, |tree| self.change(tree));
    }
}
