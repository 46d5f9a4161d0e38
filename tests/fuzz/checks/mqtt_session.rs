//! A session under any sequence of connections, packets, messages, losses and time. No panic; bounds hold; the client is told at most once that
//! its connection ends; what the store is told of a durable session is what the session is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use evermq_bridge::{Message, Stamp};
use evermq_broker::message::{Delivery, Shared};
use evermq_broker::session::budget::Budget;
use evermq_broker::session::changes::Change;
use evermq_broker::session::connect::{self, Granted};
use evermq_broker::session::lasting::Lasting;
use evermq_broker::session::{Action, Durability, Durable, Limits, LinkId, Session, Subscription, Transmit};
use evermq_mqtt::codec::{self, DecodeError};
use evermq_mqtt::packet::{Ack, Connect, Will};
use evermq_mqtt::properties::{ConnectProperties, PublishProperties, WillProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};

const BUDGET: usize = 4_000;

struct Store;

impl Durable for Store {
    fn is_full(&self) -> bool {
        false
    }
    fn is_needed_for(&self, _: &Publish) -> bool {
        true
    }
}

/// What recovery would make of the changes.
#[derive(Default)]
struct Kept {
    subscriptions: BTreeMap<TopicFilter, Subscription>,
    waiting: VecDeque<usize>,
    inflight: BTreeMap<PacketId, Option<usize>>,
    received: BTreeSet<PacketId>,
}

struct World {
    session: Session,
    limits: Arc<Limits>,
    version: Version,
    now: Instant,
    links: u64,
    kept: Option<Kept>,
    number: u64,
    window: usize,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut input = bytes;
    let mut world = World::new();
    while let Some(step) = byte(&mut input) {
        world.step(step, &mut input);
        world.settle();
    }
    world.session.handle_end(world.now);
    world.settle();
    assert!(world.session.is_ended());
    let World { session, limits, .. } = world;
    drop(session);
    assert_eq!(limits.budget.taken(), 0, "what a session held is free again");
}

fn byte(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (head, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    head
}

fn text(text: &str) -> Text {
    Text::new(text).expect("a string without U+0000")
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits % 3).expect("below 3")
}

fn number(shared: &Shared) -> usize {
    let digits = &shared.message().publish.payload[..8];
    u64::from_be_bytes(digits.try_into().expect("eight bytes")) as usize
}

impl World {
    fn new() -> Self {
        let limits = Arc::new(Limits {
            forwarded: None,
            max_packet_size: 512,
            max_inflight: 3,
            max_queued_messages: 6,
            max_queued_bytes: 2_000,
            max_session_expiry: Duration::from_secs(600),
            max_keep_alive: Duration::from_secs(100),
            max_subscriptions: 4,
            max_topic_levels: 4,
            max_topic_alias: 3,
            denied: ReasonCode::NotAuthorized,
            max_retained_messages: 5,
            budget: Arc::new(Budget::new(BUDGET)),
            lasting: Arc::new(Lasting::new(1)),
            durability: Durability::new(Arc::new(Store)),
        });
        let session = Session::new(Arc::clone(&limits));
        Self { session, limits, version: Version::V5, now: Instant::now(), links: 0, kept: None, number: 0, window: 0 }
    }

    fn step(&mut self, step: u8, input: &mut &[u8]) {
        match step % 12 {
            0 => {
                let [flags, expiry, window] = [(); 3].map(|()| byte(input).unwrap_or(1));
                self.connect(made_up(flags, expiry, window));
            }
            1 => {
                let len = usize::from(byte(input).unwrap_or(0));
                let mut packet = BytesMut::from(take(input, len));
                if let Ok(Some(Packet::Connect(connect))) = self.decode(&mut packet) {
                    self.connect(*connect);
                }
            }
            2 | 3 => {
                let len = usize::from(byte(input).unwrap_or(0));
                let mut packets = BytesMut::from(take(input, len));
                while self.session.link().is_some() {
                    match self.decode(&mut packets) {
                        Ok(Some(packet)) => self.session.handle_packet(packet, self.now),
                        Ok(None) => break,
                        Err(error) => self.session.handle_malformed(&error, self.now),
                    }
                    self.settle();
                }
            }
            4 | 5 => {
                let (kind, id) = (byte(input).unwrap_or(0), byte(input).unwrap_or(1));
                let packet_id = PacketId(NonZeroU16::new(u16::from(id % 5) + 1).expect("above 0"));
                let reason = if kind & 0x80 == 0 { ReasonCode::Success } else { ReasonCode::UnspecifiedError };
                let ack = Ack { packet_id, reason, properties: None };
                let packet = match kind % 4 {
                    0 => Packet::PubAck(ack),
                    1 => Packet::PubRec(ack),
                    2 => Packet::PubRel(Ack { reason: ReasonCode::Success, ..ack }),
                    _ => Packet::PubComp(Ack { reason: ReasonCode::Success, ..ack }),
                };
                self.session.handle_packet(packet, self.now);
            }
            6 | 7 => {
                let (kind, len) = (byte(input).unwrap_or(0), byte(input).unwrap_or(0));
                let delivery = self.delivery(kind, len);
                let is_retained = kind & 0x40 != 0;
                let delivered =
                    if is_retained { self.session.deliver_retained(delivery) } else { self.session.deliver(delivery) };
                let _ = delivered;
            }
            8 | 9 => self.transmit(),
            10 => {
                let millis = u64::from(byte(input).unwrap_or(0)) * 997;
                self.now += Duration::from_millis(millis);
                for _ in 0..4 {
                    match self.session.poll_timeout() {
                        Some(at) if at <= self.now => self.session.handle_timeout(self.now),
                        _ => break,
                    }
                    self.settle();
                }
                assert!(self.session.poll_timeout().is_none_or(|at| at > self.now), "a timer that never ends");
            }
            _ => match byte(input).unwrap_or(0) % 4 {
                0 | 1 => self.session.handle_lost(self.now),
                2 => self.session.handle_close(ReasonCode::ServerShuttingDown, self.now),
                _ => self.session.handle_close(ReasonCode::UseAnotherServer, self.now),
            },
        }
    }

    fn decode(&self, bytes: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let limits = codec::Limits { max_packet_size: self.limits.max_packet_size };
        codec::decode(bytes, self.version, &limits)
    }

    fn connect(&mut self, connect: Connect) {
        if connect::check(&connect, &self.limits, false).is_err() {
            return;
        }
        if self.session.is_ended() {
            self.session = Session::new(Arc::clone(&self.limits));
            self.kept = None;
        }
        self.links += 1;
        let version = connect.version;
        let granted = Granted::new(connect, LinkId(self.links), &self.limits, None);
        self.window = usize::from(granted.receive_maximum);
        self.session.handle_connect(granted, self.now);
        self.version = version;
        assert_eq!(self.session.link(), Some(LinkId(self.links)));
    }

    fn delivery(&mut self, kind: u8, len: u8) -> Delivery {
        self.number += 1;
        let mut payload = self.number.to_be_bytes().to_vec();
        payload.resize(8 + usize::from(len), b'x');
        let expiry = (kind & 0x20 != 0).then(|| u32::from(kind >> 2 & 7));
        let publish = Publish {
            dup: false,
            qos: qos(kind),
            retain: false,
            topic: TopicName::new(text("a/b")).expect("a topic name"),
            packet_id: None,
            properties: expiry.map(|message_expiry| {
                Box::new(PublishProperties { message_expiry: Some(message_expiry), ..Default::default() })
            }),
            payload: Bytes::from(payload),
        };
        let stamp = Stamp { time: self.number, origin: Arc::from("fuzz") };
        let message = Arc::new(Message { publish, stamp, received: self.now, publisher: None });
        Delivery {
            message: Shared::new(message, kind & 0x10 != 0),
            qos: qos(kind),
            retain: kind & 0x40 != 0,
            ids: None,
            share: None,
        }
    }

    fn transmit(&mut self) {
        let is_connected = self.session.link().is_some();
        let mut out = BytesMut::new();
        for _ in 0..3 {
            let Some(transmit) = self.session.poll_transmit(self.now) else { break };
            assert!(is_connected, "sent without a connection");
            transmit.write(self.version, None, self.now, &mut out).expect("what is sent can be written");
            if let Transmit::Publish { delivery, dup, packet_id } = &transmit {
                assert_eq!(packet_id.is_some(), delivery.qos > QoS::AtMostOnce);
                assert!(!dup || packet_id.is_some());
            }
            let limits = codec::Limits::default();
            let packet = codec::decode(&mut out, self.version, &limits).expect("a valid packet").expect("a whole one");
            assert_eq!(codec::check_sender(&packet, codec::Sender::Server), Ok(()));
        }
    }

    /// Takes what the session wants done, and checks it and the session.
    fn settle(&mut self) {
        let (mut closed, mut told) = (0, 0);
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Send(packet) => {
                    assert_eq!(closed, 0, "sent after the end: {packet:?}");
                    told += usize::from(matches!(packet, Packet::Disconnect(_)));
                    if let Packet::PubRec(ack) = &packet
                        && !ack.reason.is_error()
                    {
                        self.session.confirm_received(ack.packet_id);
                    }
                    let mut out = BytesMut::new();
                    codec::encode(&packet, self.version, &mut out).expect("what is sent can be written");
                }
                Action::Publish(publish) => {
                    assert!(!publish.topic.as_str().is_empty() && !publish.dup);
                    // Of QoS 2 and from a durable session it has its identifier until it is confirmed.
                    assert!(publish.packet_id.is_none() || publish.qos == QoS::ExactlyOnce);
                }
                Action::Close { .. } => closed += 1,
                _ => {}
            }
        }
        assert!(closed <= 1 && told <= 1);
        let mut changes = Vec::new();
        self.session.swap_changes(&mut changes);
        for change in changes {
            self.apply(change);
        }
        self.check();
    }

    fn apply(&mut self, change: Change) {
        if let Change::Begin = change {
            let mut kept = Kept::default();
            kept.subscriptions.extend(self.session.subscriptions().map(|(filter, held)| (filter.clone(), *held)));
            kept.waiting.extend(self.session.queue().acknowledged().map(|delivery| number(&delivery.message)));
            let exchanges = self.session.inflight().iter();
            kept.inflight.extend(exchanges.map(|(id, held)| (id, held.map(|delivery| number(&delivery.message)))));
            kept.received.extend(self.session.received());
            self.kept = Some(kept);
            return;
        }
        let kept = self.kept.as_mut().expect("changes of a session that the store knows");
        match change {
            // A will that is due is its own no longer.
            Change::Begin | Change::State | Change::WillDue(_) => {}
            Change::End | Change::Leaving => self.kept = None,
            Change::Subscribe(filter, subscription) => drop(kept.subscriptions.insert(filter, subscription)),
            Change::Unsubscribe(filter) => drop(kept.subscriptions.remove(&filter)),
            Change::Enqueue(delivery) | Change::Moved(delivery, _) => kept.waiting.push_back(number(&delivery.message)),
            Change::Sent(message, id) => {
                kept.leave(&message);
                kept.inflight.insert(id, Some(number(&message)));
            }
            Change::Dropped(message) => kept.leave(&message),
            Change::Released(id) => *kept.inflight.get_mut(&id).expect("an exchange") = None,
            Change::Done(id) => drop(kept.inflight.remove(&id).expect("an exchange")),
            Change::Received(id) => assert!(kept.received.insert(id)),
            Change::ReceivedDone(id) => assert!(kept.received.remove(&id)),
        }
    }

    fn check(&self) {
        let session = &self.session;
        assert!(session.inflight().len() <= usize::from(self.limits.max_inflight));
        assert!(session.subscriptions().count() <= self.limits.max_subscriptions);
        assert!(session.queued() <= self.limits.max_queued_messages + self.limits.max_retained_messages);
        assert!(self.limits.budget.taken() <= BUDGET + 2_000, "{} bytes", self.limits.budget.taken());
        assert_eq!(session.is_durable(), self.kept.is_some());
        let Some(kept) = &self.kept else { return };
        let subscriptions: BTreeMap<_, _> =
            session.subscriptions().map(|(filter, held)| (filter.clone(), *held)).collect();
        assert_eq!(subscriptions, kept.subscriptions);
        let waiting: Vec<_> = session.queue().acknowledged().map(|delivery| number(&delivery.message)).collect();
        assert_eq!(waiting, Vec::from_iter(kept.waiting.iter().copied()));
        let exchanges: BTreeMap<_, _> =
            session.inflight().iter().map(|(id, held)| (id, held.map(|delivery| number(&delivery.message)))).collect();
        assert_eq!(exchanges, kept.inflight);
        assert_eq!(session.received().collect::<BTreeSet<_>>(), kept.received);
    }
}

impl Kept {
    fn leave(&mut self, message: &Shared) {
        let number = number(message);
        let at = self.waiting.iter().position(|waiting| *waiting == number).expect("a message that waits");
        self.waiting.remove(at);
    }
}

fn made_up(flags: u8, expiry: u8, window: u8) -> Connect {
    let version = [Version::V5, Version::V4, Version::V5, Version::V3][usize::from(flags % 4)];
    let will = (flags & 0x08 != 0).then(|| evermq_mqtt::packet::Will {
        topic: TopicName::new(text("will/topic")).expect("a topic name"),
        payload: Bytes::from_static(b"gone"),
        qos: qos(flags >> 4),
        retain: false,
        properties: WillProperties { delay: Some(u32::from(flags >> 6) * 10), publish: PublishProperties::default() },
    });
    let properties = ConnectProperties {
        session_expiry: [None, Some(0), Some(30), Some(u32::MAX)][usize::from(expiry % 4)],
        receive_maximum: NonZeroU16::new(u16::from(window % 6)).map(NonZeroU16::get),
        maximum_packet_size: (window & 0x80 != 0).then_some(40),
        request_problem_information: Some(window & 0x40 != 0),
        topic_alias_maximum: (window & 0x20 != 0).then_some(3),
        ..ConnectProperties::default()
    };
    Connect {
        version,
        clean_start: expiry & 0x80 != 0,
        keep_alive: u16::from(expiry >> 2 & 7),
        client_id: text("fuzz"),
        will: will.map(|will| Will { ..will }),
        username: None,
        password: None,
        properties: if version == Version::V5 { properties } else { ConnectProperties::default() },
        is_bridge: false,
    }
}
