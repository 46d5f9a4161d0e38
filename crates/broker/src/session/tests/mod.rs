mod connect;
mod crash;
mod deliver;
mod permits;
mod publish;
mod random;
mod subscribe;
mod transitions;
mod wills;

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_bridge::{Message, Stamp};
use evermq_mqtt::packet::{Ack, Connect};
use evermq_mqtt::properties::{ConnectProperties, PublishProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicName, Version};

use super::connect::Granted;
use super::{Action, Limits, LinkId, Session, Transmit};
use crate::message::{Delivery, Shared};

pub(super) fn start() -> Instant {
    crate::connection::clock()
}

pub(super) fn limits() -> Limits {
    Limits {
        forwarded: None,
        max_packet_size: 1024,
        max_inflight: 3,
        max_queued_messages: 5,
        max_queued_bytes: 1000,
        max_session_expiry: Duration::from_secs(600),
        max_keep_alive: Duration::ZERO,
        max_subscriptions: 3,
        max_topic_levels: 4,
        max_topic_alias: 10,
        denied: ReasonCode::NotAuthorized,
        max_retained_messages: 10,
        budget: Arc::new(crate::session::budget::Budget::new(1 << 20)),
        lasting: Arc::new(crate::session::lasting::Lasting::new(1000)),
        durability: crate::session::Durability::default(),
    }
}

pub(super) fn text(text: &str) -> Text {
    Text::new(text).unwrap()
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName::new(text(name)).unwrap()
}

pub(super) fn id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).unwrap())
}

pub(super) fn ack(number: u16) -> Ack {
    Ack { packet_id: id(number), reason: ReasonCode::Success, properties: None }
}

/// A CONNECT of version 5 for a session of 100 s without keep alive.
pub(super) fn connect() -> Connect {
    Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 0,
        client_id: text("client"),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties { session_expiry: Some(100), ..ConnectProperties::default() },
        is_bridge: false,
    }
}

pub(super) fn publish(qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: topic("a/b"),
        packet_id: (qos > QoS::AtMostOnce).then(|| id(packet_id)),
        properties: None,
        payload: Bytes::from_static(b"payload"),
    }
}

/// A message of another client, with `number` as its payload.
pub(super) fn delivery(qos: QoS, number: u32, received: Instant) -> Delivery {
    with_expiry(qos, number, received, None)
}

pub(super) fn with_expiry(qos: QoS, number: u32, received: Instant, expiry: Option<u32>) -> Delivery {
    let properties =
        expiry.map(|_| Box::new(PublishProperties { message_expiry: expiry, ..PublishProperties::default() }));
    let publish = Publish {
        packet_id: None,
        payload: Bytes::copy_from_slice(&number.to_be_bytes()),
        properties,
        ..publish(qos, 1)
    };
    let stamp = Stamp { time: number.into(), origin: "test".into() };
    Delivery {
        message: Shared::new(Arc::new(Message { publish, stamp, received, publisher: None }), true),
        qos,
        retain: false,
        ids: None,
        share: None,
    }
}

/// A session with its connection, on a clock that the test moves.
pub(super) struct Client {
    pub(super) session: Session,
    pub(super) now: Instant,
    links: u64,
}

impl Client {
    pub(super) fn new(limits: Limits) -> Self {
        Self { session: Session::new(Arc::new(limits)), now: start(), links: 0 }
    }

    /// Connected as `connect` asks, CONNACK taken away.
    pub(super) fn connected(connect: Connect) -> Self {
        let mut client = Self::new(limits());
        let actions = client.connect(connect);
        assert!(matches!(actions.as_slice(), [Action::Send(Packet::ConnAck(_))]), "{actions:?}");
        client
    }

    pub(super) fn connect(&mut self, connect: Connect) -> Vec<Action> {
        self.links += 1;
        let granted = Granted::new(connect, LinkId(self.links), &self.session.limits, None);
        self.session.handle_connect(granted, self.now);
        self.actions()
    }

    pub(super) fn packet(&mut self, packet: Packet) -> Vec<Action> {
        self.session.handle_packet(packet, self.now);
        self.actions()
    }

    pub(super) fn lose(&mut self) -> Vec<Action> {
        self.session.handle_lost(self.now);
        self.actions()
    }

    pub(super) fn after(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.actions()
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.session.poll_action()).collect()
    }

    /// Every packet that may go out now: number, DUP, packet identifier; PUBREL has no number.
    pub(super) fn transmits(&mut self) -> Vec<(Option<u32>, bool, u16)> {
        let now = self.now;
        std::iter::from_fn(|| self.session.poll_transmit(now))
            .map(|transmit| match transmit {
                Transmit::Publish { delivery, dup, packet_id } => {
                    (Some(number_of(&delivery)), dup, packet_id.map_or(0, |id| id.0.get()))
                }
                Transmit::PubRel(id) => (None, true, id.0.get()),
            })
            .collect()
    }
}

pub(super) fn number_of(delivery: &Delivery) -> u32 {
    u32::from_be_bytes(delivery.message.message().publish.payload[..].try_into().unwrap())
}

/// The reason of the DISCONNECT and of the close that follows it, if that is how `actions` begin.
pub(super) fn disconnected(actions: &[Action]) -> Option<ReasonCode> {
    match actions {
        [Action::Send(Packet::Disconnect(disconnect)), Action::Close { reason, .. }, ..]
            if disconnect.reason == *reason =>
        {
            Some(*reason)
        }
        _ => None,
    }
}
