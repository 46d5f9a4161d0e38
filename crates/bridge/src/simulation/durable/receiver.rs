//! The receiver's side with a disk, and a client with a durable session that takes what comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use evermq_mqtt::QoS;

use super::super::network::{Arrival, ConnectionId, Network};
use super::super::random::Random;
use super::disk::Disk;
use crate::frame::{self, Frame, Head};
use crate::groups::Heard;
use crate::inbound::{Action, Inbound, LinkId};
use crate::message::Stamp;
use crate::wire_message;

const MAX_BODY: u32 = 100_000;

/// A message in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiting {
    /// Its number in the session, which no other message has.
    number: u64,
    place: (u64, u64),
    id: u64,
    qos: QoS,
}

/// What the disk is told.
#[derive(Clone)]
enum Said {
    Enqueue(Waiting),
    Applied { epoch: u64, seq: u64 },
    Sent { number: u64 },
    Dropped { number: u64 },
}

/// What the client has got.
#[derive(Default)]
pub(super) struct Client {
    pub(super) got: Vec<((u64, u64), u64, QoS)>,
    /// Packet identifiers that it knows: what is sent again is not another message.
    known: BTreeSet<u64>,
}

pub(super) struct Receiver {
    machine: Inbound,
    disk: Disk<Said>,
    connections: BTreeMap<ConnectionId, Served>,
    recorded: VecDeque<(u64, u64, u64)>,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    /// Sent to the client as far as the session is concerned, and held until the disk has that.
    sent: VecDeque<(u64, Waiting)>,
    /// What was applied, and will not come again unless the disk forgets it.
    applied: BTreeMap<u64, u64>,
    pub(super) client: Client,
    /// Which message a number was, whenever it came.
    identities: BTreeMap<(u64, u64), u64>,
    pub(super) missed: u64,
    pub(super) duplicates: u64,
    pub(super) forgotten: u64,
}

/// A connection as the receiver holds it.
#[derive(Default)]
struct Served {
    input: BytesMut,
    output: BytesMut,
    link: Option<LinkId>,
    ended: bool,
}

impl Receiver {
    pub(super) fn new(is_lazy: bool) -> Self {
        Self {
            machine: Inbound::new(1, MAX_BODY),
            disk: Disk::new(is_lazy),
            connections: BTreeMap::new(),
            recorded: VecDeque::new(),
            next_number: 0,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            applied: BTreeMap::new(),
            client: Client::default(),
            identities: BTreeMap::new(),
            missed: 0,
            duplicates: 0,
            forgotten: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.sent.is_empty()
    }

    pub(super) fn advance(&mut self, network: &mut Network, random: &mut Random, now: Instant) {
        self.disk.advance(random);
        for id in network.ids() {
            let mut served = self.connections.remove(&id).unwrap_or_default();
            if !served.ended {
                self.serve(id, &mut served, network, random, now);
                network.send_to_origin(id, &served.output, random, now);
                served.output.clear();
                if served.ended {
                    network.receiver_closes(id);
                }
            }
            self.connections.insert(id, served);
        }
        self.consume(random);
    }

    /// The session sends what it may, and the client takes what has left.
    fn consume(&mut self, random: &mut Random) {
        while let Some(next) = self.waiting.front().copied() {
            let is_complete = self.applied.get(&next.place.0).is_some_and(|seq| *seq >= next.place.1);
            if random.one_in(4) || (next.qos == QoS::ExactlyOnce && !is_complete) {
                break;
            }
            self.waiting.pop_front();
            let at = self.disk.append(Said::Sent { number: next.number });
            if next.qos == QoS::ExactlyOnce {
                self.sent.push_back((at, next));
            } else {
                self.client.take(next);
            }
        }
        while let Some((_, next)) = self.sent.front().copied().filter(|(at, _)| self.disk.is_durable(*at)) {
            self.sent.pop_front();
            self.client.take(next);
        }
    }

    /// The process ends and another one begins with what the disk has.
    pub(super) fn crash(&mut self, is_power: bool, random: &mut Random) {
        let records = self.disk.crash(is_power, random).to_vec();
        let mut applied: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut waiting, mut inflight) = (Vec::<Waiting>::new(), Vec::new());
        for said in records {
            match said {
                Said::Enqueue(message) => waiting.push(message),
                Said::Applied { epoch, seq } => drop(applied.insert(epoch, seq)),
                Said::Dropped { number } => waiting.retain(|message| message.number != number),
                Said::Sent { number } => {
                    if let Some(index) = waiting.iter().position(|message| message.number == number) {
                        inflight.push(waiting.remove(index));
                    }
                }
            }
        }
        let (kept, gone): (Vec<Waiting>, Vec<Waiting>) = waiting
            .into_iter()
            .partition(|message| applied.get(&message.place.0).is_some_and(|seq| *seq >= message.place.1));
        self.forgotten += gone.len() as u64;
        for message in gone {
            self.disk.append(Said::Dropped { number: message.number });
        }
        // With the same packet identifiers, which the client knows if it has had them.
        inflight.into_iter().for_each(|message| self.client.take(message));
        self.waiting = kept.into();
        self.sent.clear();
        self.recorded.clear();
        self.connections.clear();
        self.machine = Inbound::new(1, MAX_BODY);
        self.machine.recover(1, applied.iter().map(|(epoch, seq)| (*epoch, *seq)));
        self.applied = applied;
    }

    fn serve(
        &mut self,
        id: ConnectionId,
        served: &mut Served,
        network: &mut Network,
        random: &mut Random,
        now: Instant,
    ) {
        self.with_link(served, now, |_| {});
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
                    let Some(frame) = frame::decode(&mut served.input, MAX_BODY).unwrap() else { break };
                    match (served.link, frame) {
                        (None, Frame::Hello(hello)) => {
                            self.settle();
                            served.link = Some(self.machine.handle_hello(&hello, now));
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

    fn with_link(&mut self, served: &mut Served, now: Instant, feed: impl FnOnce(&mut Inbound)) {
        let Some(link) = served.link else { return };
        if !self.machine.is_current(link) {
            served.ended = true;
            return;
        }
        self.settle();
        feed(&mut self.machine);
        self.perform(served, now);
    }

    fn settle(&mut self) {
        while let Some((_, epoch, seq)) = self.recorded.front().copied().filter(|(at, ..)| self.disk.is_durable(*at)) {
            self.recorded.pop_front();
            self.machine.handle_recorded(epoch, seq);
        }
    }

    fn perform(&mut self, served: &mut Served, now: Instant) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Send(frame) => frame::encode(&frame, &mut served.output),
                Action::Deliver { epoch, entry, directions } => {
                    let Head { seq, age, time, publisher } = entry.head;
                    let stamp = Stamp { time, origin: Arc::from("origin") };
                    let message = wire_message::decode(entry.packet, stamp, age, publisher, now).unwrap();
                    let id = u64::from_be_bytes(message.publish.payload[..8].try_into().unwrap());
                    assert_eq!(directions, super::super::end::directions(id), "it goes elsewhere than it was to go");
                    assert_eq!(publisher, super::super::end::publisher(id), "it is somebody else's");
                    let place = (epoch, seq);
                    let known = *self.identities.entry(place).or_insert(id);
                    assert_eq!(known, id, "{place:?} means two messages");
                    if message.publish.qos > QoS::AtMostOnce {
                        self.next_number += 1;
                        let waiting = Waiting { number: self.next_number, place, id, qos: message.publish.qos };
                        self.disk.append(Said::Enqueue(waiting));
                        self.waiting.push_back(waiting);
                    }
                }
                Action::Record { epoch, seq } => {
                    let at = self.disk.append(Said::Applied { epoch, seq });
                    self.applied.insert(epoch, seq);
                    self.recorded.push_back((at, epoch, seq));
                    self.settle();
                }
                Action::ApplyRetained(_) => {}
                Action::Missed(range) => self.missed += range.to - range.from + 1,
                Action::Claimed(claim) => assert_eq!(claim, super::super::end::claim()),
                Action::Heard(heard) => assert_eq!(heard, Heard::Complete),
                Action::Duplicate => self.duplicates += 1,
                Action::Close => served.ended = true,
                Action::Changed(change) => assert!(!change.violated, "{change:?}"),
            }
        }
    }
}

impl Client {
    fn take(&mut self, message: Waiting) {
        if self.known.insert(message.number) {
            self.got.push((message.place, message.id, message.qos));
        }
    }
}
