//! The origin's side: [`Link`] and [`OriginLog`] with a driver that writes into the simulated network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Publish, QoS, Text, TopicName};

use super::end::{End, directions, receiver, tell};
use super::network::Network;
use super::random::Random;
use crate::batch;
use crate::frame::{self, Frame, Hello};
use crate::link::{Action, Link, State};
use crate::log::{Bounds, Entry, OriginLog, Read};
use crate::message::{Message, Stamp};
use crate::wire_message;

/// What an origin has published.
pub(super) struct Published {
    pub(super) epoch: u64,
    pub(super) last: u64,
    /// Numbers of messages with an expiry interval: they may be left out.
    pub(super) may_expire: BTreeSet<u64>,
}

pub(super) struct Origin {
    epoch: u64,
    link: Link,
    log: OriginLog,
    end: End,
    retained: BTreeMap<String, Arc<Message>>,
    may_expire: BTreeSet<u64>,
    lost: u64,
    resent: u64,
    snapshots: u64,
}

impl Origin {
    pub(super) fn new(epoch: u64, log_messages: usize, seed: u64, now: Instant) -> Self {
        Self {
            epoch,
            link: link(epoch, seed, now),
            log: OriginLog::new(Bounds { messages: log_messages, bytes: 1 << 30, age: Duration::MAX }, 1),
            end: End::default(),
            retained: BTreeMap::new(),
            may_expire: BTreeSet::new(),
            lost: 0,
            resent: 0,
            snapshots: 0,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn resent(&self) -> u64 {
        self.resent
    }

    pub(super) fn snapshots(&self) -> u64 {
        self.snapshots
    }

    pub(super) fn retained(&self) -> &BTreeMap<String, Arc<Message>> {
        &self.retained
    }

    pub(super) fn is_under_pressure(&self) -> bool {
        self.log.is_high()
    }

    pub(super) fn published(&self) -> Published {
        Published { epoch: self.epoch, last: self.log.last(), may_expire: self.may_expire.clone() }
    }

    pub(super) fn has_sent_everything(&self) -> bool {
        self.link.state() == State::Streaming && self.log.acknowledged(0) == self.log.last()
    }

    pub(super) fn describe(&self) -> String {
        format!("{:?}, acknowledged {} of {}", self.link.state(), self.log.acknowledged(0), self.log.last())
    }

    /// A message whose payload begins with its number; sometimes retained, large, or about to expire.
    pub(super) fn publish(&mut self, random: &mut Random, expiry: bool, now: Instant) {
        let seq = self.log.last() + 1;
        let retain = random.one_in(4);
        let large = if random.one_in(10) { 200 } else { 0 };
        let topic = format!("t/{}", random.below(6));
        let mut payload = BytesMut::from(&seq.to_be_bytes()[..]);
        payload.resize(8 + large, 0);
        let expires = expiry && !retain && random.one_in(8);
        if expires {
            self.may_expire.insert(seq);
        }
        let properties = PublishProperties { message_expiry: Some(2), ..PublishProperties::default() };
        let message = Arc::new(Message {
            publish: Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain,
                topic: TopicName::new(Text::new(&topic).unwrap()).unwrap(),
                packet_id: None,
                properties: expires.then(|| Box::new(properties)),
                payload: Bytes::from(payload),
            },
            stamp: Stamp { time: self.epoch * 1_000_000 + seq, origin: Arc::from("origin") },
            received: now,
            publisher: super::end::publisher(seq),
        });
        if retain {
            self.retained.insert(topic, Arc::clone(&message));
        }
        let appended = self.log.append(Entry::new(message, None, None, directions(seq)), &mut Vec::new());
        if appended.wake {
            self.log.take_waiting(|reader| assert_eq!(reader, 0));
            self.link.handle_news();
        }
    }

    pub(super) fn advance(&mut self, network: &mut Network, random: &mut Random, now: Instant) {
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_log_start(self.log.first());
            self.link.handle_timeout(now);
        }
        self.end.receive(&mut self.link, network, random, now);
        self.perform(network, random, now);
        self.link.handle_writable();
        self.perform(network, random, now);
    }

    fn perform(&mut self, network: &mut Network, random: &mut Random, now: Instant) {
        let mut output = BytesMut::new();
        while let Some(action) = self.link.poll_action() {
            match action {
                Action::Connect => self.end.connect(&mut self.link, network, now),
                Action::Send(frame) => frame::encode(&frame, &mut output),
                Action::Snapshot { base } => {
                    self.snapshots += 1;
                    self.write_snapshot(base, &mut output);
                    self.link.handle_snapshot_sent();
                }
                Action::Read(room) => match self.log.read(0, room, |_, _| true) {
                    Read::Items(items) => {
                        let batch = batch::write(room.from, &items, receiver(self.link.max_body()), now, &mut output);
                        self.resent += self.link.handle_batch(&batch);
                    }
                    Read::Held { .. } => self.link.handle_held(),
                    Read::Gone { first } => self.link.handle_gone(first),
                    Read::End => self.link.handle_end(now),
                },
                Action::Attach(seq) => drop(self.log.attach(0, seq, &mut Vec::new())),
                Action::Acknowledged(seq) => drop(self.log.acknowledge(0, seq, &mut Vec::new())),
                Action::Detach => drop(self.log.detach(0)),
                Action::Lost(range) => self.lost += range.to - range.from + 1,
                Action::Close { .. } => self.end.close(&mut output, network, random, now),
                Action::Changed(change) => assert!(!change.refused, "{change:?}"),
                Action::LogWasSetBack => panic!("{}", self.describe()),
                Action::Tell(_) => tell(&mut output),
                Action::Losing(_) => {}
            }
        }
        self.end.send(&output, network, random, now);
    }

    fn write_snapshot(&self, base: u64, output: &mut BytesMut) {
        for message in self.retained.values() {
            let packet = wire_message::encode(&message.publish).unwrap();
            if frame::retained_body("origin", packet.len()) <= self.link.max_body() as usize {
                frame::retained_head(0, message.stamp.time, "origin", packet.len(), output);
                wire_message::write(&packet, true, output);
            }
        }
        frame::encode(&Frame::SnapshotEnd { base }, output);
    }
}

/// An origin's link, which begins to connect.
pub(super) fn link(epoch: u64, seed: u64, now: Instant) -> Link {
    let hello = Hello {
        oldest: 1,
        newest: 1,
        minor: 0,
        instance: epoch,
        cluster: "c".into(),
        host: "origin".into(),
        last: None,
    };
    let mut link = Link::new(hello, seed, now);
    link.handle_start(now);
    link
}
