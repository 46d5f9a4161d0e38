//! The origin's side with a disk, and a client that publishes what was not acknowledged again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evermq_mqtt::{Publish, QoS, Text, TopicName};
use evermq_store::Position;

use super::super::end::{End, directions, receiver, tell};
use super::super::network::Network;
use super::super::origin::link;
use super::super::random::Random;
use super::disk::Disk;
use crate::batch;
use crate::frame::{self, Frame};
use crate::hold::Hold;
use crate::link::{Action, Link};
use crate::log::{Bounds, Entry, OriginLog, Read, Saved};
use crate::message::{Message, Stamp};

/// Numbers that are set aside at one time: few, so that they run out.
const RESERVE: u64 = 12;

/// What the disk is told.
#[derive(Clone)]
enum Said {
    Log {
        epoch: u64,
        reserved: u64,
        first: u64,
        kept: u64,
    },
    Forward {
        seq: u64,
        id: u64,
        message: Arc<Message>,
    },
    /// The client's message of QoS 2 was taken.
    Received {
        id: u64,
    },
    Cursor {
        seq: u64,
    },
}

/// What the client knows.
#[derive(Default)]
pub(super) struct Client {
    last_id: u64,
    /// Published and not acknowledged, with its QoS.
    open: BTreeMap<u64, QoS>,
    pub(super) acknowledged: BTreeMap<u64, QoS>,
}

pub(super) struct Origin {
    epoch: u64,
    bounds: Bounds,
    link: Link,
    log: OriginLog,
    disk: Disk<Said>,
    reserved: u64,
    reserving: Option<(u64, u64)>,
    end: End,
    /// Acknowledgements that wait for the disk.
    promises: Vec<(u64, u64)>,
    /// Messages of QoS 2 whose client's session does not know of them yet.
    incomplete: Vec<(u64, Arc<Hold>)>,
    pub(super) client: Client,
    pub(super) lost: u64,
    pub(super) recovered: u64,
    pub(super) held: u64,
}

impl Origin {
    pub(super) fn new(log_messages: usize, is_lazy: bool, seed: u64, now: Instant) -> Self {
        let bounds = Bounds { messages: log_messages, bytes: 1 << 30, age: Duration::MAX };
        let mut origin = Self {
            epoch: 1,
            bounds,
            link: link(1, seed, now),
            log: OriginLog::new(bounds, 1),
            disk: Disk::new(is_lazy),
            reserved: 0,
            reserving: None,
            end: End::default(),
            promises: Vec::new(),
            incomplete: Vec::new(),
            client: Client::default(),
            lost: 0,
            recovered: 0,
            held: 0,
        };
        origin.set_aside();
        origin
    }

    pub(super) fn is_done(&self) -> bool {
        self.log.acknowledged(0) == self.log.last() && self.client.open.is_empty()
    }

    pub(super) fn describe(&self) -> String {
        let Self { link, log, client, .. } = self;
        format!("{:?}, acknowledged {} of {}, open {:?}", link.state(), log.acknowledged(0), log.last(), client.open)
    }

    /// A new message of the client.
    pub(super) fn publish(&mut self, random: &mut Random, now: Instant) {
        self.client.last_id += 1;
        let id = self.client.last_id;
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce];
        let qos = qos[usize::try_from(random.below(4)).unwrap()];
        if qos > QoS::AtMostOnce {
            self.client.open.insert(id, qos);
        }
        self.take(id, qos, now);
    }

    fn take(&mut self, id: u64, qos: QoS, now: Instant) {
        let message = Arc::new(Message {
            publish: Publish {
                dup: false,
                qos,
                retain: false,
                topic: TopicName::new(Text::new("t").unwrap()).unwrap(),
                packet_id: None,
                properties: None,
                payload: Bytes::copy_from_slice(&id.to_be_bytes()),
            },
            stamp: Stamp { time: id, origin: Arc::from("origin") },
            received: now,
            publisher: super::super::end::publisher(id),
        });
        let hold = (qos == QoS::ExactlyOnce).then(Hold::new);
        let appended =
            self.log.append(Entry::new(Arc::clone(&message), None, hold.clone(), directions(id)), &mut Vec::new());
        if appended.seq + RESERVE / 2 > self.reserving.map_or(self.reserved, |(upto, _)| upto) {
            self.set_aside();
        }
        if qos > QoS::AtMostOnce {
            let at = self.disk.append(Said::Forward { seq: appended.seq, id, message });
            match hold {
                Some(hold) => self.incomplete.push((id, hold)),
                None => self.promises.push((id, at)),
            }
        }
        if appended.wake {
            self.log.take_waiting(|_| {});
            self.link.handle_news();
        }
    }

    fn log_at(&self, reserved: u64) -> Said {
        Said::Log { epoch: self.epoch, reserved, first: self.log.first(), kept: self.log.kept_left() }
    }

    fn set_aside(&mut self) {
        let upto = self.log.last() + RESERVE;
        self.disk.append(Said::Cursor { seq: self.log.settled(0) });
        let at = self.disk.append(self.log_at(upto));
        self.disk.sync();
        self.reserving = Some((upto, at));
    }

    pub(super) fn advance(&mut self, network: &mut Network, random: &mut Random, now: Instant) {
        self.disk.advance(random);
        if let Some((upto, _)) = self.reserving.filter(|(_, at)| self.disk.is_synced(*at)) {
            self.reserved = upto;
            self.reserving = None;
        }
        // The session's own word comes a moment after the message.
        while !self.incomplete.is_empty() && random.one_in(2) {
            let (id, hold) = self.incomplete.remove(0);
            let at = self.disk.append(Said::Received { id });
            hold.release(Position(at));
            self.promises.push((id, at));
        }
        let (client, disk) = (&mut self.client, &self.disk);
        self.promises.retain(|(id, at)| {
            let is_kept = disk.is_durable(*at);
            if is_kept && let Some(qos) = client.open.remove(id) {
                client.acknowledged.insert(*id, qos);
            }
            !is_kept
        });
        if random.one_in(20) {
            self.disk.append(Said::Cursor { seq: self.log.settled(0) });
            let reserved = self.reserving.map_or(self.reserved, |(upto, _)| upto);
            self.disk.append(self.log_at(reserved));
        }
        if self.link.poll_timeout().is_some_and(|at| at <= now) {
            self.link.handle_log_start(self.log.first());
            self.link.handle_timeout(now);
        }
        // What was held may go now.
        self.link.handle_news();
        self.end.receive(&mut self.link, network, random, now);
        self.perform(network, random, now);
        self.link.handle_writable();
        self.perform(network, random, now);
    }

    /// The process ends and another one begins with what the disk has.
    pub(super) fn crash(&mut self, is_power: bool, random: &mut Random, now: Instant) {
        let records = self.disk.crash(is_power, random).to_vec();
        let (mut log, mut cursor) = (None, 0);
        let (mut forwards, mut received) = (BTreeMap::new(), BTreeSet::new());
        for said in records {
            match said {
                Said::Log { epoch, reserved, first, kept } => {
                    forwards = forwards.split_off(&first);
                    log = Some((epoch, reserved, first, kept));
                }
                Said::Forward { seq, id, message } => {
                    if message.publish.qos == QoS::ExactlyOnce {
                        // It came again: the one before was never complete (see `Replay` of the store).
                        forwards.retain(|_, (earlier, _)| *earlier != id);
                    }
                    forwards.insert(seq, (id, message));
                }
                Said::Received { id } => drop(received.insert(id)),
                Said::Cursor { seq } => cursor = seq,
            }
        }
        let (epoch, reserved, first, kept) = log.unwrap_or((self.epoch + 1, 0, 1, 0));
        let last = forwards.keys().last().copied().unwrap_or(0).max(reserved);
        let is_complete = |id: &u64, message: &Message| message.publish.qos < QoS::ExactlyOnce || received.contains(id);
        let entries: Vec<_> = forwards
            .into_iter()
            .filter(|(_, (id, message))| is_complete(id, message))
            .map(|(seq, (id, message))| (seq, Entry::new(message, None, None, directions(id))))
            .collect();
        self.recovered += entries.len() as u64;
        self.epoch = epoch;
        let saved = Saved { first, kept, last, entries, acknowledged: vec![cursor] };
        self.log = OriginLog::recovered(self.bounds, saved, &mut Vec::new());
        self.link = link(epoch, random.next(), now);
        self.link.resume(self.log.acknowledged(0), last);
        self.reserved = 0;
        self.end = End::default();
        self.promises.clear();
        self.incomplete.clear();
        self.set_aside();
        // The client sends again what was not acknowledged; the session knows what of QoS 2 it has.
        for (id, qos) in self.client.open.clone() {
            if received.contains(&id) {
                self.client.open.remove(&id);
                self.client.acknowledged.insert(id, qos);
            } else {
                self.take(id, qos, now);
            }
        }
    }

    fn perform(&mut self, network: &mut Network, random: &mut Random, now: Instant) {
        let mut output = BytesMut::new();
        while let Some(action) = self.link.poll_action() {
            match action {
                Action::Connect => self.end.connect(&mut self.link, network, now),
                Action::Send(frame) => frame::encode(&frame, &mut output),
                Action::Snapshot { base } => {
                    frame::encode(&Frame::SnapshotEnd { base }, &mut output);
                    self.link.handle_snapshot_sent();
                }
                Action::Read(room) => {
                    let (disk, limit) = (&self.disk, self.reserved);
                    let is_free = |hold: &Arc<Hold>| hold.until().is_some_and(|until| disk.is_durable(until.0));
                    match self.log.read(0, room, |seq, entry| seq <= limit && entry.hold().is_none_or(is_free)) {
                        Read::Items(items) => {
                            let batch =
                                batch::write(room.from, &items, receiver(self.link.max_body()), now, &mut output);
                            self.link.handle_batch(&batch);
                        }
                        Read::Held { .. } => {
                            self.held += 1;
                            self.link.handle_held();
                        }
                        Read::Gone { first } => self.link.handle_gone(first),
                        Read::End => self.link.handle_end(now),
                    }
                }
                Action::Attach(seq) => drop(self.log.attach(0, seq, &mut Vec::new())),
                Action::Acknowledged(seq) => drop(self.log.acknowledge(0, seq, &mut Vec::new())),
                Action::Detach => drop(self.log.detach(0)),
                Action::Lost(range) => self.lost += range.to - range.from + 1,
                Action::LogWasSetBack => panic!("a number was sent that was not set aside: {}", self.describe()),
                Action::Close { .. } => self.end.close(&mut output, network, random, now),
                Action::Changed(change) => assert!(!change.refused, "{change:?}"),
                Action::Tell(_) => tell(&mut output),
                Action::Losing(_) => {}
            }
        }
        self.end.send(&output, network, random, now);
    }
}
