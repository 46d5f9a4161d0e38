//! The receiver's side: [`Inbound`] with a driver that reads all connections that were ever made to it, newest last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;

use super::network::{Arrival, ConnectionId, Network};
use super::random::Random;
use crate::frame::{self, Frame, Head};
use crate::groups::Heard;
use crate::inbound::{Action, Inbound, LinkId};
use crate::message::{Message, Stamp};
use crate::wire_message;

/// What one start of the receiver got, in order.
#[derive(Default)]
pub(super) struct Record {
    events: Vec<(u64, Event)>,
}

#[derive(Clone, Copy)]
enum Event {
    Delivered(u64),
    Missed(frame::Range),
}

pub(super) struct Receiver {
    instance: u64,
    max_body: u32,
    machine: Inbound,
    connections: BTreeMap<ConnectionId, Served>,
    retained: BTreeMap<String, Stamp>,
    record: Record,
    duplicates: u64,
    replaced: u64,
}

/// A connection as the receiver holds it.
#[derive(Default)]
struct Served {
    input: BytesMut,
    output: BytesMut,
    /// Once HELLO came: the link, and the origin's epoch.
    link: Option<(LinkId, u64)>,
    ended: bool,
}

impl Receiver {
    pub(super) fn new(instance: u64, max_body: u32) -> Self {
        Self {
            instance,
            max_body,
            machine: Inbound::new(instance, max_body),
            connections: BTreeMap::new(),
            retained: BTreeMap::new(),
            record: Record::default(),
            duplicates: 0,
            replaced: 0,
        }
    }

    pub(super) fn instance(&self) -> u64 {
        self.instance
    }

    pub(super) fn delivered(&self) -> u64 {
        self.record.events.iter().filter(|(_, event)| matches!(event, Event::Delivered(_))).count() as u64
    }

    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    pub(super) fn record(self) -> Record {
        self.record
    }

    /// Everything that the origin holds, but for what is too large for us, is held here, or something newer.
    pub(super) fn check_retained(&self, theirs: &BTreeMap<String, Arc<Message>>) {
        for (topic, message) in theirs {
            let packet = wire_message::encode(&message.publish).unwrap();
            if frame::retained_body("origin", packet.len()) <= self.max_body as usize {
                let held = self.retained.get(topic);
                assert_eq!(held, Some(&message.stamp), "retained message of {topic}");
            }
        }
    }

    pub(super) fn advance(&mut self, network: &mut Network, random: &mut Random, now: Instant) {
        for id in network.ids() {
            let mut served = self.connections.remove(&id).unwrap_or_default();
            if served.ended {
                self.connections.insert(id, served);
                continue;
            }
            self.serve(id, &mut served, network, random, now);
            network.send_to_origin(id, &served.output, random, now);
            served.output.clear();
            if served.ended {
                network.receiver_closes(id);
            }
            self.connections.insert(id, served);
        }
    }

    fn serve(
        &mut self,
        id: ConnectionId,
        served: &mut Served,
        network: &mut Network,
        random: &mut Random,
        now: Instant,
    ) {
        match network.receive_at_receiver(id, random, now) {
            Arrival::Nothing => self.with_link(served, now, |machine| {
                if machine.poll_timeout().is_some_and(|at| at <= now) {
                    machine.handle_timeout(now);
                }
            }),
            Arrival::End if served.link.is_none() => served.ended = true,
            Arrival::End => self.with_link(served, now, |machine| machine.handle_lost("ended".into(), false)),
            Arrival::Bytes(bytes) => {
                served.input.extend_from_slice(&bytes);
                self.with_link(served, now, |machine| machine.handle_bytes(now));
                while !served.ended {
                    let Some(frame) = frame::decode(&mut served.input, self.max_body.max(1024)).unwrap() else { break };
                    match (served.link, frame) {
                        (None, Frame::Hello(hello)) => {
                            self.replaced += u64::from(self.machine.is_linked());
                            let link = self.machine.handle_hello(&hello, now);
                            served.link = Some((link, hello.instance));
                            self.perform(served, now);
                        }
                        (None, frame) => panic!("{frame:?} before HELLO"),
                        (Some(_), frame) => self.with_link(served, now, |machine| machine.handle_frame(frame)),
                    }
                }
                self.with_link(served, now, Inbound::handle_read_end);
            }
        }
    }

    /// As the driver does it: who is not the current link ends without a word.
    fn with_link(&mut self, served: &mut Served, now: Instant, feed: impl FnOnce(&mut Inbound)) {
        let Some((link, _)) = served.link else { return };
        if !self.machine.is_current(link) {
            served.ended = true;
            return;
        }
        feed(&mut self.machine);
        self.perform(served, now);
    }

    fn perform(&mut self, served: &mut Served, now: Instant) {
        let epoch = served.link.map_or(0, |(_, epoch)| epoch);
        let stamp = |time| Stamp { time, origin: Arc::from("origin") };
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Send(frame) => frame::encode(&frame, &mut served.output),
                Action::Record { epoch, seq } => self.machine.handle_recorded(epoch, seq),
                Action::Deliver { entry, directions, .. } => {
                    let Head { seq, age, time, publisher } = entry.head;
                    let message = wire_message::decode(entry.packet, stamp(time), age, publisher, now).unwrap();
                    let number = u64::from_be_bytes(message.publish.payload[..8].try_into().unwrap());
                    assert_eq!(number, seq, "a number always means the same message");
                    assert_eq!(directions, super::end::directions(number), "it goes elsewhere than it was to go");
                    assert_eq!(message.publisher, super::end::publisher(number), "it is somebody else's");
                    self.record.events.push((epoch, Event::Delivered(seq)));
                    self.keep(&message);
                }
                Action::ApplyRetained(retained) => {
                    let message = wire_message::decode(retained.packet, stamp(retained.time), 0, None, now).unwrap();
                    self.keep(&message);
                }
                Action::Missed(range) => self.record.events.push((epoch, Event::Missed(range))),
                Action::Claimed(claim) => assert_eq!(claim, super::end::claim()),
                Action::Heard(heard) => assert_eq!(heard, Heard::Complete),
                Action::Duplicate => self.duplicates += 1,
                Action::Close => served.ended = true,
                Action::Changed(change) => assert!(!change.violated, "{change:?}"),
            }
        }
    }

    fn keep(&mut self, message: &Message) {
        if message.publish.retain {
            let held = self.retained.entry(message.publish.topic.as_str().to_owned());
            let held = held.or_insert_with(|| message.stamp.clone());
            *held = message.stamp.clone().max(held.clone());
        }
    }
}

impl Record {
    pub(super) fn epochs(&self) -> impl Iterator<Item = u64> {
        self.events.iter().map(|(epoch, _)| *epoch)
    }

    fn of(&self, epoch: u64) -> impl Iterator<Item = Event> {
        self.events.iter().filter(move |(of, _)| *of == epoch).map(|(_, event)| *event)
    }

    pub(super) fn delivered(&self, epoch: u64) -> BTreeSet<u64> {
        self.of(epoch)
            .filter_map(|event| match event {
                Event::Delivered(seq) => Some(seq),
                Event::Missed(_) => None,
            })
            .collect()
    }

    pub(super) fn missed(&self, epoch: u64) -> BTreeSet<u64> {
        self.of(epoch)
            .filter_map(|event| match event {
                Event::Delivered(_) => None,
                Event::Missed(range) => Some(range.from..=range.to),
            })
            .flatten()
            .collect()
    }

    /// Each number at most once, and going up, whether the message came or is missing.
    pub(super) fn check_order(&self) {
        for epoch in self.epochs().collect::<BTreeSet<_>>() {
            let mut last = 0;
            for event in self.of(epoch) {
                let (from, to) = match event {
                    Event::Delivered(seq) => (seq, seq),
                    Event::Missed(range) => (range.from, range.to),
                };
                assert!(from > last, "{from} after {last} of epoch {epoch}");
                last = to;
            }
        }
    }
}
