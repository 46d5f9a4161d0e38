//! A persistent subscriber of everything, which acknowledges what it gets and forgets nothing.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evermq_mqtt::packet::{Ack, Subscribe, SubscribeFilter, SubscriptionOptions};
use evermq_mqtt::properties::SubscribeProperties;
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, TopicFilter, Version};
use evermq_store::simulated::Chance;

use super::answer;
use crate::client::{id, text};
use crate::history::wire::{Came, Line, lasting};
use crate::history::{Alarm, Site};

/// When it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::history) enum Manner {
    Online,
    /// It leaves, without a word or with one, and comes back.
    Restless,
    /// Only at the beginning and at the end.
    Away,
}

/// A message as it came for the first time.
#[derive(Debug)]
pub(in crate::history) struct Message {
    pub(in crate::history) topic: String,
    /// Up to the padding.
    pub(in crate::history) payload: String,
    pub(in crate::history) qos: QoS,
    pub(in crate::history) dup: bool,
    pub(in crate::history) at: Duration,
}

/// What a subscriber got.
#[derive(Debug)]
pub(in crate::history) struct Got {
    pub(in crate::history) name: &'static str,
    pub(in crate::history) messages: Vec<Message>,
}

struct Subscriber<'a> {
    site: &'a Site,
    manner: Manner,
    chance: Chance,
    got: Got,
    /// Identifiers of QoS 2 messages that it has and of which it has not seen PUBREL.
    holding: BTreeSet<PacketId>,
    is_done: bool,
    /// Since when the last message is on its way.
    waits_since: Option<Duration>,
}

/// Until the last message has come, see [`crate::history::check::say_that_all_is_sent`].
pub(in crate::history) fn subscriber(site: &Site, name: &'static str, manner: Manner, chance: Chance) -> Got {
    let _alarm = Alarm(site);
    let got = Got { name, messages: Vec::new() };
    let mut subscriber =
        Subscriber { site, manner, chance, got, holding: BTreeSet::new(), is_done: false, waits_since: None };
    subscriber.subscribe();
    if manner == Manner::Away {
        site.until("the end", || site.is_winding_down());
    }
    while !subscriber.is_done {
        let (line, connack) = Line::open(site, &lasting(name, Version::V5));
        assert!(connack.session_present, "the session of {name} was forgotten");
        subscriber.listen(line);
    }
    subscriber.got
}

impl Subscriber<'_> {
    fn subscribe(&mut self) {
        let since = self.site.now();
        loop {
            self.site.go_on("a SUBACK", since);
            let (mut line, _) = Line::open(self.site, &lasting(self.got.name, Version::V5));
            let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..SubscriptionOptions::default() };
            let filter = |filter: &str| SubscribeFilter { filter: TopicFilter::new(text(filter)).unwrap(), options };
            let filters = ["h/#", "w/#", "x/#"].map(filter).into();
            let properties = SubscribeProperties::default();
            line.send(&Packet::Subscribe(Subscribe { packet_id: id(1), filters, properties }));
            if let Some(Packet::SubAck(suback)) = answer(self.site, &mut line) {
                assert!(suback.reasons.iter().all(|reason| !reason.is_error()), "{suback:?}");
                break;
            }
        }
        self.site.subscribed.fetch_add(1, Ordering::SeqCst);
    }

    /// Until the connection ends, by whomever.
    fn listen(&mut self, mut line: Line) {
        loop {
            let packet = match line.look() {
                Came::End => return,
                Came::Nothing if self.is_done => return,
                Came::Nothing => {
                    self.be_patient();
                    continue;
                }
                Came::Packet(packet) => packet,
            };
            if self.manner == Manner::Restless && self.chance.one_in(50) {
                // What it has just got it has not read.
                return std::thread::park_timeout(Duration::from_millis(self.chance.below(20) as u64));
            }
            let answer = match packet {
                Packet::Publish(publish) => self.handle_publish(&publish),
                Packet::PubRel(got) => {
                    self.holding.remove(&got.packet_id);
                    Some(Packet::PubComp(ack(got.packet_id)))
                }
                other => panic!("{}: {other:?}", self.got.name),
            };
            if answer.is_some_and(|answer| !line.send(&answer)) {
                return;
            }
        }
    }

    fn be_patient(&mut self) {
        if self.site.published.load(Ordering::SeqCst) {
            let since = *self.waits_since.get_or_insert_with(|| self.site.now());
            self.site.go_on("the last message", since);
        }
    }

    fn handle_publish(&mut self, publish: &Publish) -> Option<Packet> {
        let packet_id = publish.packet_id?;
        let is_new = publish.qos < QoS::ExactlyOnce || self.holding.insert(packet_id);
        if is_new {
            let payload = String::from_utf8_lossy(&publish.payload);
            let payload = payload.split(':').next().unwrap_or_default().to_owned();
            let (topic, at) = (publish.topic.to_string(), self.site.now());
            self.is_done |= topic == super::super::check::LAST;
            self.got.messages.push(Message { topic, payload, qos: publish.qos, dup: publish.dup, at });
        } else {
            assert!(publish.dup, "{}: {packet_id:?} is another message's", self.got.name);
        }
        Some(match publish.qos {
            QoS::ExactlyOnce => Packet::PubRec(ack(packet_id)),
            QoS::AtMostOnce | QoS::AtLeastOnce => Packet::PubAck(ack(packet_id)),
        })
    }
}

fn ack(packet_id: PacketId) -> Ack {
    Ack { packet_id, reason: ReasonCode::Success, properties: None }
}
