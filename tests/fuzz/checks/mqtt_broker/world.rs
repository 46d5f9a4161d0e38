//! The broker, driven as its connections drive it, but by a clock and a network of the story's.

use std::collections::VecDeque;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evermq_broker::broker::Broker;
use evermq_broker::mailbox::{Mailbox, Wakes};
use evermq_broker::session::{Action, LinkId};
use evermq_mqtt::packet::{
    Ack, Connect, Disconnect, RetainHandling, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe, Will,
};
use evermq_mqtt::properties::{
    ConnectProperties, DisconnectProperties, PublishProperties, SubscribeProperties, WillProperties,
};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version, codec};

use super::client::{Client, id};
use super::mesh::Mesh;
use super::model::{Asked, CLIENTS, Model, Wanted};
use super::site::{BUDGET, MAX_EXPIRY, received, sent, start};

const NAMES: [&str; CLIENTS] = ["a", "b", "c", "d"];
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "b/b", "s/x", "s/y"];
const FILTERS: [&str; 10] =
    ["a", "a/#", "a/+", "+/b", "a/b/c", "+/+/c", "$share/g/s/#", "$share/h/s/x", "$share/g/s/x", "+/b/#"];
const EXPIRIES: [u64; 4] = [0, 10, 100, 5000];

pub(super) struct World {
    broker: Arc<Broker>,
    mesh: Arc<Mesh>,
    model: Model,
    clients: [Client; CLIENTS],
    connections: [Option<Connection>; CLIENTS],
    now: Instant,
    started: Instant,
    /// Where the store is, if there is one.
    directory: Option<PathBuf>,
    was_restarted: bool,
}

struct Connection {
    link: LinkId,
    mailbox: Arc<Mailbox>,
    version: Version,
    /// The CONNECT asked for an expiry of 0.
    is_short: bool,
}

fn text(text: &str) -> Text {
    Text::new(text).expect("a string without U+0000")
}

fn topic(name: &str) -> TopicName {
    TopicName::new(text(name)).expect("a topic name")
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits % 3).expect("below 3")
}

/// A directory in memory, one for each process.
fn fresh() -> PathBuf {
    let directory = Path::new("/dev/shm").join(format!("evermq-fuzz-broker-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).expect("memory to write to");
    directory
}

impl World {
    pub(super) fn new(is_tight: bool, has_store: bool) -> Self {
        let now = Instant::now();
        let directory = has_store.then(fresh);
        let mesh = Arc::new(Mesh::default());
        let broker = start(is_tight, directory.as_deref(), &mesh, now, now);
        Self {
            broker,
            mesh,
            model: Model::new(is_tight),
            clients: Default::default(),
            connections: Default::default(),
            now,
            started: now,
            directory,
            was_restarted: false,
        }
    }

    pub(super) fn step(&mut self, kind: u8, who: usize, a: u8, b: u8) {
        let who = who % CLIENTS;
        match kind % 16 {
            0 | 1 => self.connect(who, a, b),
            2 => self.subscribe(who, a, b),
            3 => self.unsubscribe(who, a),
            4..=6 => self.publish(who, a, b, false),
            7 | 8 => self.turn(who, None, usize::from(a % 8) + 1, false),
            9 | 10 => {
                for _ in 0..=a % 4 {
                    self.answer(who, b & 0x80 != 0);
                }
            }
            11 => {
                if b & 1 != 0 {
                    self.turn(who, None, usize::from(a % 4), true);
                }
                if b & 2 != 0 {
                    // It is lost, and the client has not forgotten what it was for.
                    self.clients[who].answers.pop_front();
                }
                self.lose(who);
            }
            12 => self.disconnect(who, a, b),
            13 => self.pass(Duration::from_secs(u64::from(a % 64))),
            14 => self.publish(who, a, b, true),
            _ if a & 1 == 0 && self.directory.is_some() => self.restart(),
            _ => self.lie(who, a, b),
        }
        self.check();
    }

    /// Everybody comes back and takes all that there is; then all ends.
    pub(super) fn end(&mut self) {
        for who in 0..CLIENTS {
            if self.model.sessions[who].is_none() {
                continue;
            }
            self.connect(who, 0, 2);
            for _ in 0..1000 {
                self.turn(who, None, 100, false);
                // More may wait than one turn takes.
                if self.clients[who].answers.is_empty() && self.model.owed(who).is_empty() {
                    break;
                }
                while !self.clients[who].answers.is_empty() {
                    self.answer(who, false);
                }
            }
            let owed = self.model.owed(who);
            assert!(
                self.clients[who].is_quits() && owed.is_empty(),
                "never delivered: {owed:?}, {:?}",
                self.clients[who]
            );
        }
        self.check();
        for who in 0..CLIENTS {
            self.model.end(who);
        }
        for mailbox in self.broker.all_sessions() {
            self.broker.update(&mailbox, self.now, |session| session.handle_end(self.now));
        }
        self.check();
        assert_eq!(self.broker.sessions(), (0, 0));
        assert_eq!(self.broker.limits().budget.taken(), 0, "what sessions held is free again");
        if let Some(journal) = &self.broker.journal {
            journal.store().close();
        }
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }

    fn check(&mut self) {
        self.drain();
        self.model.check();
        assert_eq!(self.broker.sessions().0, self.model.sessions.iter().flatten().count(), "sessions");
        assert_eq!(self.broker.router.subscriptions(), self.model.subscriptions(), "subscriptions");
        let budget = &self.broker.limits().budget;
        assert!(self.was_restarted || budget.taken() <= BUDGET[usize::from(self.model.is_tight)]);
    }

    /// What was published meanwhile.
    fn drain(&mut self) {
        for message in self.mesh.take() {
            self.model.route(&message.publish);
        }
    }

    fn connect(&mut self, who: usize, a: u8, b: u8) {
        let version = [Version::V5, Version::V4, Version::V5, Version::V3][usize::from(a % 4)];
        let (is_v5, clean) = (version == Version::V5, a & 0x10 != 0);
        let asked = EXPIRIES[usize::from(b % 4)];
        let expiry = match version {
            Version::V5 => Duration::from_secs(asked).min(MAX_EXPIRY),
            _ if clean => Duration::ZERO,
            _ => MAX_EXPIRY,
        };
        let receive_maximum = [None, Some(1), Some(2), Some(3)][usize::from(b >> 2 & 3)].filter(|_| is_v5);
        let delay = [0, 0, 5, 50][usize::from(a >> 6)];
        let number = (a & 0x20 != 0).then(|| self.model.will_number(who));
        let will = number.map(|number| Will {
            topic: topic(TOPICS[1]),
            payload: Bytes::copy_from_slice(&number.to_be_bytes()),
            qos: qos(b >> 4),
            retain: b & 0x40 != 0,
            properties: WillProperties { delay: is_v5.then_some(delay), publish: PublishProperties::default() },
        });
        let connect = Connect {
            version,
            clean_start: clean,
            keep_alive: 0,
            client_id: text(NAMES[who]),
            will,
            username: None,
            password: None,
            properties: if is_v5 {
                ConnectProperties {
                    session_expiry: Some(u32::try_from(asked).expect("small")),
                    receive_maximum,
                    ..ConnectProperties::default()
                }
            } else {
                ConnectProperties::default()
            },
            is_bridge: false,
        };
        let delay = Duration::from_secs(if is_v5 { delay.into() } else { 0 });
        let will = number.map(|number| (number, delay));
        let is_present = self.model.connect(who, Asked { clean, expiry, will }, self.now);
        let accepted = self.broker.connect(connect, self.now).expect("nobody is refused");
        self.drain();
        let is_short = expiry.is_zero();
        let connection = Connection { link: accepted.link, mailbox: accepted.mailbox, version, is_short };
        let mailbox = Arc::clone(&connection.mailbox);
        self.connections[who] = Some(connection);
        self.clients[who].receive_maximum = receive_maximum.map_or(usize::from(u16::MAX), usize::from);
        let again = self.clients[who].connected(is_present);
        let says_present = is_present && version != Version::V3;
        let mut actions = accepted.actions;
        let is_connack = |action: &Action| matches!(action, Action::Send(Packet::ConnAck(connack)) if connack.reason == ReasonCode::Success);
        let at = actions.iter().position(is_connack).expect("a CONNACK");
        if let Some(Action::Send(packet)) = actions.remove(at) {
            let Packet::ConnAck(connack) = sent(&packet, version) else { panic!("another packet") };
            assert_eq!(connack.session_present, says_present);
        }
        self.perform(who, &mailbox, version, actions, false);
        for packet in again {
            self.turn(who, Some(packet), 0, false);
        }
    }

    fn subscribe(&mut self, who: usize, a: u8, b: u8) {
        let Some(connection) = &self.connections[who] else { return };
        let Some(packet_id) = self.clients[who].free_id() else { return };
        let is_v5 = connection.version == Version::V5;
        let filter = TopicFilter::new(text(FILTERS[usize::from(a) % FILTERS.len()])).expect("a filter");
        let options = SubscriptionOptions {
            qos: qos(b),
            no_local: is_v5 && b & 8 != 0 && filter.share().is_none(),
            retain_as_published: false,
            retain_handling: match b >> 4 & 3 {
                1 if is_v5 => RetainHandling::SendIfNew,
                2 if is_v5 => RetainHandling::DoNotSend,
                _ => RetainHandling::Send,
            },
        };
        let granted = [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2][options.qos as usize];
        self.clients[who].asks(packet_id, vec![granted]);
        let wanted = Wanted { qos: options.qos, no_local: options.no_local, handling: options.retain_handling };
        self.model.subscribe(who, &filter, wanted);
        let properties = SubscribeProperties {
            subscription_id: NonZeroU32::new(u32::from(a)).filter(|_| is_v5 && b & 0x80 != 0),
            ..SubscribeProperties::default()
        };
        let filters = vec![SubscribeFilter { filter, options }];
        self.turn(who, Some(Packet::Subscribe(Subscribe { packet_id, filters, properties })), 0, false);
    }

    fn unsubscribe(&mut self, who: usize, a: u8) {
        if self.connections[who].is_none() {
            return;
        }
        let Some(packet_id) = self.clients[who].free_id() else { return };
        let filter = TopicFilter::new(text(FILTERS[usize::from(a) % FILTERS.len()])).expect("a filter");
        let was_there = self.model.unsubscribe(who, &filter);
        let reason = if was_there { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
        self.clients[who].asks(packet_id, vec![reason]);
        let unsubscribe = Unsubscribe { packet_id, filters: vec![filter], user_properties: Vec::new() };
        self.turn(who, Some(Packet::Unsubscribe(unsubscribe)), 0, false);
    }

    fn publish(&mut self, who: usize, a: u8, b: u8, is_lost: bool) {
        if self.connections[who].is_none() {
            return;
        }
        let qos = qos(b);
        let packet_id = if qos == QoS::AtMostOnce { None } else { self.clients[who].free_id() };
        if qos > QoS::AtMostOnce && packet_id.is_none() {
            return;
        }
        let mut payload = self.model.number(who).to_be_bytes().to_vec();
        payload.resize(8 + usize::from(b >> 5) * 100, b'x');
        let publish = Publish {
            dup: false,
            qos,
            retain: b & 0x10 != 0,
            topic: topic(TOPICS[usize::from(a) % TOPICS.len()]),
            packet_id,
            properties: None,
            payload: payload.into(),
        };
        self.clients[who].sends(&publish);
        if is_lost {
            self.lose(who);
        } else {
            self.turn(who, Some(Packet::Publish(publish)), 0, false);
        }
    }

    fn answer(&mut self, who: usize, refuses: bool) {
        let Some(connection) = &self.connections[who] else { return };
        let refuses = refuses && connection.version == Version::V5;
        if let Some(packet) = self.clients[who].answer(refuses) {
            self.turn(who, Some(packet), 0, false);
        }
    }

    fn disconnect(&mut self, who: usize, a: u8, b: u8) {
        let Some(connection) = &self.connections[who] else { return };
        let is_v5 = connection.version == Version::V5;
        let with_will = is_v5 && a & 1 != 0;
        let expiry = (is_v5 && b & 4 != 0).then(|| EXPIRIES[usize::from(b % 4)]);
        let mut packet = Disconnect {
            reason: if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success },
            properties: None,
        };
        if let Some(expiry) = expiry {
            let session_expiry = Some(u32::try_from(expiry).expect("small"));
            packet.properties =
                Some(Box::new(DisconnectProperties { session_expiry, ..DisconnectProperties::default() }));
        }
        // An expiry of 0 cannot be raised; otherwise it is as the client says now.
        let is_wrong = connection.is_short && expiry.is_some_and(|expiry| expiry > 0);
        if let (Some(expiry), false, Some(held)) = (expiry, is_wrong, &mut self.model.sessions[who]) {
            held.expiry = Duration::from_secs(expiry).min(MAX_EXPIRY);
        }
        self.model.detach(who, with_will || is_wrong, self.now);
        self.turn(who, Some(Packet::Disconnect(packet)), 0, false);
        assert!(self.connections[who].is_none());
    }

    /// An acknowledgement of what never was.
    fn lie(&mut self, who: usize, a: u8, b: u8) {
        let ack = Ack { packet_id: id(1000 + u16::from(b)), reason: ReasonCode::Success, properties: None };
        let packet = match a >> 1 & 3 {
            0 => Packet::PubAck(ack),
            1 => Packet::PubRec(ack),
            2 => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        };
        self.turn(who, Some(packet), 0, false);
    }

    fn lose(&mut self, who: usize) {
        let Some(connection) = self.connections[who].take() else { return };
        self.clients[who].lost();
        self.model.detach(who, true, self.now);
        self.broker.update(&connection.mailbox, self.now, |session| {
            if session.link() == Some(connection.link) {
                session.handle_lost(self.now);
            }
        });
        self.drain();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.model.expire(self.now);
        self.broker.expire(self.now);
        self.broker.router.sweep(self.now);
    }

    /// The broker is killed, and another one goes on with its files.
    fn restart(&mut self) {
        self.drain();
        if let Some(journal) = &self.broker.journal {
            journal.store().close();
        }
        self.connections = Default::default();
        self.clients.iter_mut().for_each(Client::lost);
        self.model.restart(self.now);
        self.broker = start(self.model.is_tight, self.directory.as_deref(), &self.mesh, self.started, self.now);
        self.was_restarted = true;
        self.pass(Duration::ZERO);
    }

    /// One turn of a connection: a packet from the client, and up to `count` messages to it, which are lost on the way if `is_lost`.
    fn turn(&mut self, who: usize, packet: Option<Packet>, count: usize, is_lost: bool) {
        let Some(connection) = &self.connections[who] else { return };
        let (mailbox, version, now) = (Arc::clone(&connection.mailbox), connection.version, self.now);
        let (mut actions, mut transmits, mut wakes) = (VecDeque::new(), Vec::new(), Wakes::default());
        let mut slot = mailbox.lock();
        assert_eq!(slot.session.link(), Some(connection.link), "the connection was taken over");
        let packet = packet.map(|packet| received(&packet, version));
        mailbox.change(&mut slot, wakes.changes(), |session| {
            session.swap_actions(&mut actions);
            if let Some(packet) = packet {
                session.handle_packet(packet, now);
            }
            session.swap_actions(&mut actions);
            transmits.extend((0..count).map_while(|_| session.poll_transmit(now)));
        });
        let is_connected = slot.session.link().is_some();
        drop(slot);
        if !is_connected {
            self.connections[who] = None;
        }
        self.perform(who, &mailbox, version, actions, is_lost);
        for transmit in transmits {
            let mut out = BytesMut::new();
            transmit.write(version, None, now, &mut out).expect("what is sent can be written");
            let packet = codec::decode(&mut out, version, &codec::Limits::default()).expect("valid").expect("whole");
            if !is_lost {
                self.clients[who].receive(who, packet, &mut self.model);
            }
        }
        if !is_connected {
            self.clients[who].lost();
            self.broker.watch(&mailbox);
        }
    }

    fn perform(
        &mut self,
        who: usize,
        mailbox: &Arc<Mailbox>,
        version: Version,
        actions: VecDeque<Action>,
        is_lost: bool,
    ) {
        let mut wakes = Wakes::default();
        for action in actions {
            match action {
                Action::Send(packet) => {
                    if let Packet::PubRec(rec) = &packet
                        && mailbox.is_durable()
                    {
                        let mut slot = mailbox.lock();
                        mailbox.change(&mut slot, wakes.changes(), |session| session.confirm_received(rec.packet_id));
                        wakes.complete_at(slot.recorded);
                    }
                    let packet = sent(&packet, version);
                    if !is_lost {
                        self.clients[who].receive(who, packet, &mut self.model);
                    }
                }
                Action::Publish(publish) => drop(self.broker.publish(mailbox, publish, self.now, &mut wakes)),
                Action::Close { .. } => {}
                other => self.broker.apply(mailbox, other, self.now, &mut wakes),
            }
            self.drain();
        }
        wakes.wake();
    }
}
