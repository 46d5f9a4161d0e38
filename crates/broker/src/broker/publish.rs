//! Messages of this broker's clients: to the subscribers here and to the other brokers.

use std::sync::Arc;
use std::time::Instant;

use evermq_bridge::{Message, Pressure, Publisher, Stamp};
use evermq_mqtt::Publish;

use super::{Broker, Published};
use crate::counters::Tally;
use crate::mailbox::{Mailbox, Wakes};
use crate::message::Origin;
use crate::router::Routed;
use crate::session::DueWill;

impl Broker {
    /// A message of a client of this broker: to the subscribers here and to the other brokers, before it is acknowledged.
    pub fn publish(&self, mailbox: &Mailbox, mut publish: Publish, now: Instant, wakes: &mut Wakes) -> Published {
        wakes.begin(publish.packet_id.take().map(|packet_id| Origin::client(mailbox.key(), packet_id)));
        let (stamp, publisher) = (self.backbone.next_stamp(), self.publisher(mailbox));
        let message = Arc::new(Message { publish, stamp, received: now, publisher });
        self.send(message, Some(mailbox.key()), wakes)
    }

    /// The same for messages of one topic that the client has published one after the other, none of which is to be retained
    /// or has an origin that matters. Whether nobody has asked for them is so for all or for none.
    pub fn publish_run(&self, mailbox: &Mailbox, run: &mut Vec<Publish>, now: Instant, wakes: &mut Wakes) -> Published {
        wakes.begin(None);
        let (from, publisher) = (Some(mailbox.key()), self.publisher(mailbox));
        let Stamp { time, origin } = self.backbone.next_stamps(run.len() as u64);
        // Of its own: all threads would count the holders of a common one in the same place, for each message twice.
        let origin: Arc<str> = Arc::from(&*origin);
        let message = |(time, publish)| {
            let stamp = Stamp { time, origin: Arc::clone(&origin) };
            Message { publish, stamp, received: now, publisher }
        };
        let messages = (time..).zip(run.drain(..)).map(message);
        if self.backbone.is_alone() {
            let messages = messages.map(|message| (message, None));
            let Routed { is_wanted, congested, .. } = self.router.route_run(messages, from, wakes);
            return Published { pressure: Pressure::Clear, congested, is_unheard: !is_wanted };
        }
        let store = |message| (Arc::clone(&message), self.router.store_for_peers(&message, None));
        let messages: Vec<_> = messages.map(Arc::new).map(store).collect();
        let Routed { congested, directions, .. } = self.router.route_run(messages.iter().cloned(), from, wakes);
        let directions = directions.into_iter().chain(std::iter::repeat(None));
        let mut pressure = Pressure::Clear;
        for ((message, stored), directions) in messages.into_iter().zip(directions) {
            let (own, recorded) = self.backbone.publish(message, stored, None, directions);
            wakes.rely_on(recorded);
            if own == Pressure::High {
                pressure = Pressure::High;
            }
        }
        Published { pressure, congested, is_unheard: false }
    }

    /// The will of a durable session. That it has gone out is written down when all who get it have it in their queues: until
    /// then it goes out again if the broker starts anew, and what is in their queues of it is no message.
    pub(super) fn send_will(&self, mailbox: Option<&Mailbox>, will: &DueWill, now: Instant, wakes: &mut Wakes) {
        let mut tally = Tally::default();
        tally.accepted();
        self.counters.add(&mut tally);
        wakes.begin(will.number().map(Origin::of_will));
        let publisher = mailbox.and_then(|mailbox| self.publisher(mailbox));
        let stamp = self.backbone.next_stamp();
        let message = Arc::new(Message { publish: will.publish.clone(), stamp, received: now, publisher });
        self.send(message, mailbox.map(Mailbox::key), wakes);
        let sent = self.journal.as_ref().map(|journal| journal.record_will_sent(will));
        wakes.complete_at(sent.unwrap_or_default());
    }

    /// A message of the broker's own that the cluster is to have as well.
    pub fn publish_own(&self, publish: Publish, now: Instant, wakes: &mut Wakes) {
        let stamp = self.backbone.next_stamp();
        let message = Arc::new(Message { publish, stamp, received: now, publisher: None });
        self.send(message, None, wakes);
    }

    /// Who publishes, for the other brokers.
    fn publisher(&self, mailbox: &Mailbox) -> Option<Publisher> {
        (!self.backbone.is_alone()).then(|| mailbox.publisher())
    }

    fn send(&self, message: Arc<Message>, from: Option<u64>, wakes: &mut Wakes) -> Published {
        let is_for_peers = self.backbone.keeps(&message.publish);
        let routed = self.router.route(Arc::clone(&message), from, is_for_peers, wakes);
        let Routed { is_wanted, congested, stored, directions } = routed;
        let is_unheard = !is_wanted && self.backbone.is_alone();
        let hold = wakes.origin().map(|origin| Arc::clone(origin.hold()));
        let (pressure, recorded) =
            self.backbone.publish(message, stored, hold, directions.into_iter().next().flatten());
        wakes.rely_on(recorded);
        Published { pressure, congested, is_unheard }
    }
}
