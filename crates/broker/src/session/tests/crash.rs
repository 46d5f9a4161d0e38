//! A session whose broker stops at any moment and comes back with what its store has: any of the states since the last one
//! that was on the disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::session::Change;
use crate::session::recover::Saved;

#[derive(Debug, Clone)]
enum Step {
    Reconnect,
    Lose,
    Deliver(QoS),
    Transmit,
    /// The client reads and answers.
    Read,
    /// The client publishes, at QoS 1 or 2, or goes on with what it has begun.
    Publish(QoS),
    Release,
    /// So many records more are on the disk.
    Sync(usize),
    /// The broker stops; so many of the records that were not yet acknowledged are on the disk all the same.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let qos = || prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        2 => Just(Step::Reconnect),
        1 => Just(Step::Lose),
        6 => qos().prop_map(Step::Deliver),
        6 => Just(Step::Transmit),
        8 => Just(Step::Read),
        4 => qos().prop_map(Step::Publish),
        3 => Just(Step::Release),
        6 => (0..12_usize).prop_map(Step::Sync),
        2 => (0..12_usize).prop_map(Step::Crash),
    ]
}

/// A record, in bytes of its own as the store has it.
#[derive(Debug)]
enum Record {
    Session {
        connected: bool,
    },
    Enqueue(Delivery),
    Sent(u32, PacketId),
    Released(PacketId),
    Done(PacketId),
    Received(PacketId),
    ReceivedDone(PacketId),
    /// A message that the client published is with those who get it.
    Taken(u32, QoS),
}

/// What the client hears.
#[derive(Debug)]
enum Heard {
    Publish { number: u32, qos: QoS, dup: bool, id: PacketId },
    PubRel(PacketId),
    PubAck(PacketId),
    PubRec(PacketId),
    PubComp(PacketId),
}

/// An honest client.
#[derive(Default)]
struct Peer {
    inbox: VecDeque<Heard>,
    /// Identifiers of QoS 2 messages that it has passed on.
    holding: BTreeSet<PacketId>,
    got: BTreeMap<u8, Vec<u32>>,
    /// What it publishes: number, QoS, identifier, whether PUBREC came.
    sending: Option<(u32, QoS, PacketId, bool)>,
    next: u32,
    /// Numbers for which it has PUBACK or PUBREC.
    acknowledged: Vec<u32>,
}

struct World {
    client: Client,
    peer: Peer,
    log: Vec<Record>,
    durable: usize,
    held: VecDeque<(usize, Heard)>,
    number: u32,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            client: Client::new(durable_limits()),
            peer: Peer::default(),
            log: Vec::new(),
            durable: 0,
            held: VecDeque::new(),
            number: 0,
        };
        world.reconnect();
        world
    }

    fn is_connected(&self) -> bool {
        self.client.session.link().is_some()
    }

    fn reconnect(&mut self) {
        let mut asked = connect();
        asked.properties.session_expiry = Some(100_000);
        asked.properties.receive_maximum = Some(3);
        self.held.clear();
        self.peer.inbox.clear();
        self.client.connect(asked);
        self.record();
        // [MQTT-4.4.0-1].
        match self.peer.sending {
            None => {}
            Some((_, _, id, true)) => self.say(Packet::PubRel(Ack { packet_id: id, ..ack(1) })),
            Some((number, qos, id, false)) => self.say_publish(number, qos, id, true),
        }
    }

    /// Takes the session's changes into the log.
    fn record(&mut self) {
        let mut changes = Vec::new();
        self.client.session.swap_changes(&mut changes);
        for change in changes {
            self.log.push(match change {
                Change::Begin | Change::State => Record::Session { connected: self.is_connected() },
                Change::Enqueue(delivery) => Record::Enqueue(delivery),
                Change::Sent(shared, id) => Record::Sent(number_of_shared(&shared), id),
                Change::Released(id) => Record::Released(id),
                Change::Done(id) => Record::Done(id),
                Change::Received(id) => Record::Received(id),
                Change::ReceivedDone(id) => Record::ReceivedDone(id),
                other @ (Change::End
                | Change::Leaving
                | Change::Moved(..)
                | Change::WillDue(_)
                | Change::Subscribe(..)
                | Change::Unsubscribe(_)
                | Change::Dropped(_)) => panic!("{other:?}"),
            });
        }
    }

    /// As the connection does it: what promises something waits for all that was recorded.
    fn send(&mut self, heard: Heard) {
        let waits = !matches!(heard, Heard::Publish { qos: QoS::AtLeastOnce, .. });
        if waits && (self.durable < self.log.len() || !self.held.is_empty()) {
            self.held.push_back((self.log.len(), heard));
        } else {
            self.peer.inbox.push_back(heard);
        }
    }

    fn say(&mut self, packet: Packet) {
        let actions = self.client.packet(packet);
        self.record();
        for action in actions {
            match action {
                Action::Publish(publish) => {
                    let number = u32::from_be_bytes(publish.payload[..].try_into().unwrap());
                    self.log.push(Record::Taken(number, publish.qos));
                }
                Action::Send(Packet::PubAck(ack)) => self.send(Heard::PubAck(ack.packet_id)),
                Action::Send(Packet::PubRec(ack)) => {
                    self.client.session.confirm_received(ack.packet_id);
                    self.record();
                    self.send(Heard::PubRec(ack.packet_id));
                }
                Action::Send(Packet::PubRel(ack)) => self.send(Heard::PubRel(ack.packet_id)),
                Action::Send(Packet::PubComp(ack)) => self.send(Heard::PubComp(ack.packet_id)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn say_publish(&mut self, number: u32, qos: QoS, id: PacketId, dup: bool) {
        let payload = Bytes::copy_from_slice(&number.to_be_bytes());
        self.say(Packet::Publish(Publish { dup, payload, packet_id: Some(id), ..publish(qos, 1) }));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Reconnect => self.reconnect(),
            Step::Lose => {
                self.client.lose();
                self.held.clear();
                self.peer.inbox.clear();
                self.record();
            }
            Step::Deliver(qos) => {
                self.number += 1;
                self.client.session.deliver(delivery(qos, self.number, self.client.now));
                self.record();
            }
            Step::Transmit => self.transmit(),
            Step::Read => self.read(),
            Step::Publish(qos) if self.is_connected() && self.peer.sending.is_none() => {
                self.peer.next += 1;
                let number = self.peer.next;
                // The same few identifiers again and again.
                let id = id(u16::try_from(number % 2 + 1).unwrap());
                self.peer.sending = Some((number, qos, id, false));
                self.say_publish(number, qos, id, false);
            }
            Step::Release => {
                if let Some((_, _, id, true)) = self.peer.sending
                    && self.is_connected()
                {
                    self.say(Packet::PubRel(Ack { packet_id: id, ..ack(1) }));
                }
            }
            Step::Publish(_) => {}
            Step::Sync(records) => self.sync(records),
            Step::Crash(records) => self.crash(records),
        }
    }

    fn sync(&mut self, records: usize) {
        self.durable = (self.durable + records).min(self.log.len());
        while let Some((at, heard)) = self.held.pop_front() {
            if at > self.durable {
                self.held.push_front((at, heard));
                break;
            }
            self.peer.inbox.push_back(heard);
        }
    }

    fn transmit(&mut self) {
        let transmit = self.client.session.poll_transmit(self.client.now);
        self.record();
        match transmit {
            None => {}
            Some(Transmit::PubRel(id)) => self.send(Heard::PubRel(id)),
            Some(Transmit::Publish { delivery, dup, packet_id }) => {
                let (number, id) = (number_of(&delivery), packet_id.unwrap());
                self.send(Heard::Publish { number, qos: delivery.qos, dup, id });
            }
        }
    }

    fn read(&mut self) {
        let Some(heard) = self.peer.inbox.pop_front() else { return };
        match heard {
            Heard::Publish { number, qos, dup, id } => {
                let got = self.peer.got.entry(qos as u8).or_default();
                if qos == QoS::AtLeastOnce {
                    if !got.contains(&number) {
                        got.push(number);
                    }
                    return self.say(Packet::PubAck(Ack { packet_id: id, ..ack(1) }));
                }
                if self.peer.holding.insert(id) {
                    assert!(!got.contains(&number), "message {number} of QoS 2 came twice");
                    got.push(number);
                } else {
                    assert!(dup && got.contains(&number), "{id:?} is another message's");
                }
                self.say(Packet::PubRec(Ack { packet_id: id, ..ack(1) }));
            }
            Heard::PubRel(id) => {
                self.peer.holding.remove(&id);
                self.say(Packet::PubComp(Ack { packet_id: id, ..ack(1) }));
            }
            Heard::PubAck(id) => match self.peer.sending {
                Some((number, QoS::AtLeastOnce, sending, _)) if sending == id => {
                    self.peer.sending = None;
                    self.peer.acknowledged.push(number);
                }
                _ => {}
            },
            Heard::PubRec(id) => match &mut self.peer.sending {
                Some((number, QoS::ExactlyOnce, sending, has_pubrec @ false)) if *sending == id => {
                    *has_pubrec = true;
                    self.peer.acknowledged.push(*number);
                }
                _ => {}
            },
            Heard::PubComp(id) => {
                // An answer to a PUBREL that was sent twice may come when the next message is on its way.
                if matches!(self.peer.sending, Some((_, QoS::ExactlyOnce, sending, true)) if sending == id) {
                    self.peer.sending = None;
                }
            }
        }
    }

    fn crash(&mut self, records: usize) {
        self.log.truncate(self.durable + records);
        self.durable = self.log.len();
        // The store forgets a message of QoS 2 whose sender's session has not said that it was taken.
        if matches!(self.log.last(), Some(Record::Taken(_, QoS::ExactlyOnce))) {
            self.log.pop();
        }
        self.held.clear();
        self.peer.inbox.clear();
        let saved = self.replay();
        let was_connected = saved.detached_at.is_none();
        self.client.session = Session::recover(saved, Arc::new(durable_limits()), self.client.now);
        if was_connected {
            self.client.session.record_detached();
        }
        self.record();
    }

    /// What a store makes of its records.
    fn replay(&self) -> Saved {
        let mut saved = Saved {
            user: None,
            expiry: Duration::from_secs(100_000),
            will: None,
            detached_at: Some(self.client.now),
            subscriptions: Vec::new(),
            waiting: Vec::new(),
            inflight: Vec::new(),
            next_packet_id: id(1),
            received: Vec::new(),
        };
        for record in &self.log {
            match record {
                Record::Session { connected } => saved.detached_at = (!connected).then_some(self.client.now),
                Record::Enqueue(delivery) => saved.waiting.push(delivery.clone()),
                Record::Sent(number, id) => {
                    let index = saved.waiting.iter().position(|waiting| number_of(waiting) == *number).unwrap();
                    let delivery = saved.waiting.remove(index);
                    saved.inflight.push((*id, Some(delivery)));
                    saved.next_packet_id = PacketId(id.0.checked_add(1).unwrap_or(NonZeroU16::MIN));
                }
                Record::Released(id) => {
                    let exchange = saved.inflight.iter_mut().find(|(open, _)| open == id).unwrap();
                    exchange.1 = None;
                }
                Record::Done(id) => {
                    let index = saved.inflight.iter().position(|(open, _)| open == id).unwrap();
                    saved.inflight.remove(index);
                }
                Record::Received(id) => {
                    assert!(!saved.received.contains(id), "{id:?} was taken twice");
                    saved.received.push(*id);
                }
                Record::ReceivedDone(id) => {
                    let index = saved.received.iter().position(|taken| taken == id).unwrap();
                    saved.received.remove(index);
                }
                Record::Taken(..) => {}
            }
        }
        saved
    }

    /// Numbers that are in the log, by QoS.
    fn kept(&self, qos: QoS) -> Vec<u32> {
        let kept = self.log.iter().filter_map(|record| match record {
            Record::Enqueue(delivery) if delivery.qos == qos => Some(number_of(delivery)),
            _ => None,
        });
        kept.collect()
    }
}

fn durable_limits() -> Limits {
    struct Roomy;
    impl crate::session::Durable for Roomy {
        fn is_full(&self) -> bool {
            false
        }
        fn is_needed_for(&self, _publish: &Publish) -> bool {
            true
        }
    }
    let durability = crate::session::Durability::new(Arc::new(Roomy));
    Limits { max_session_expiry: Duration::from_secs(100_000), durability, ..limits() }
}

fn number_of_shared(shared: &Shared) -> u32 {
    u32::from_be_bytes(shared.message().publish.payload[..].try_into().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_is_there_after_any_crash(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.reconnect();
        for _ in 0..60 {
            world.transmit();
            world.sync(usize::MAX / 2);
            world.read();
            world.step(&Step::Release);
            world.sync(usize::MAX / 2);
            world.read();
        }
        prop_assert!(world.client.session.inflight.is_empty());
        prop_assert_eq!(world.client.session.queued(), 0);
        let got = |qos: QoS| world.peer.got.get(&(qos as u8)).cloned().unwrap_or_default();
        // At QoS 1 it may have got some that were not recorded yet.
        let first = got(QoS::AtLeastOnce);
        prop_assert!(world.kept(QoS::AtLeastOnce).iter().all(|number| first.contains(number)));
        prop_assert_eq!(got(QoS::ExactlyOnce), world.kept(QoS::ExactlyOnce));
        // The other way.
        let taken = |wanted: QoS| -> Vec<u32> {
            let taken = world.log.iter().filter_map(|record| match record {
                Record::Taken(number, qos) if *qos == wanted => Some(*number),
                _ => None,
            });
            taken.collect()
        };
        let all = [taken(QoS::AtLeastOnce), taken(QoS::ExactlyOnce)].concat();
        prop_assert!(world.peer.acknowledged.iter().all(|number| all.contains(number)));
        prop_assert!(taken(QoS::ExactlyOnce).windows(2).all(|pair| pair[0] < pair[1]), "none twice");
    }
}
