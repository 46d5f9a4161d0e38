//! Random inputs, with what must always hold checked after each.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Reconnect {
        window: u16,
    },
    Lose,
    Wait(u64),
    Deliver(QoS),
    Transmit(usize),
    /// The n-th of the packets that the client has not answered yet.
    Answer(usize),
    AnswerAgain(usize),
    Publish {
        qos: QoS,
        number: u16,
        dup: bool,
    },
    Release(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let qos = || prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        2 => (1..5_u16).prop_map(|window| Step::Reconnect { window }),
        1 => Just(Step::Lose),
        1 => (1..40_u64).prop_map(Step::Wait),
        6 => qos().prop_map(Step::Deliver),
        6 => (1..4_usize).prop_map(Step::Transmit),
        8 => (0..4_usize).prop_map(Step::Answer),
        1 => (0..4_usize).prop_map(Step::AnswerAgain),
        4 => (qos(), 1..5_u16, any::<bool>()).prop_map(|(qos, number, dup)| Step::Publish { qos, number, dup }),
        3 => (1..5_u16).prop_map(Step::Release),
    ]
}

/// What an honest client knows.
#[derive(Default)]
struct Peer {
    /// PUBLISH and PUBREL that it has not answered, as packet identifier and whether it is a PUBREL.
    unanswered: Vec<(u16, QoS, bool)>,
    answered: Vec<(u16, QoS, bool)>,
    /// Identifiers of QoS 2 messages that it has and that were not released: it passes them on once.
    holding: BTreeSet<u16>,
    /// Messages that it passed on, by QoS.
    got: BTreeMap<u8, Vec<u32>>,
    /// Identifiers of QoS 1 and 2 that are out on this connection.
    out: BTreeSet<u16>,
    window: usize,
    /// The packet identifiers that it uses for its own QoS 2 messages.
    sending: BTreeSet<u16>,
}

struct World {
    client: Client,
    peer: Peer,
    number: u32,
    /// Messages that the session took, by QoS, in order.
    accepted: BTreeMap<u8, Vec<u32>>,
}

impl World {
    fn new() -> Self {
        let limits = Limits { max_session_expiry: Duration::from_secs(100_000), ..limits() };
        let mut world =
            Self { client: Client::new(limits), peer: Peer::default(), number: 0, accepted: BTreeMap::new() };
        world.reconnect(3);
        world
    }

    fn reconnect(&mut self, window: u16) {
        let mut asked = connect();
        asked.properties.session_expiry = Some(100_000);
        asked.properties.receive_maximum = Some(window);
        self.client.connect(asked);
        self.peer.window = usize::from(window.min(3));
        self.peer.out.clear();
        self.peer.unanswered.clear();
        self.peer.answered.clear();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Reconnect { window } => self.reconnect(window),
            Step::Lose => {
                self.client.lose();
            }
            Step::Wait(seconds) => {
                self.client.after(Duration::from_secs(seconds));
            }
            Step::Deliver(qos) => {
                self.number += 1;
                let delivered = self.client.session.deliver(delivery(qos, self.number, self.client.now));
                let is_kept = self.client.session.link().is_some() || qos > QoS::AtMostOnce;
                if is_kept && !delivered.refused {
                    self.accepted.entry(qos as u8).or_default().push(self.number);
                }
            }
            Step::Transmit(count) => (0..count).for_each(|_| self.transmit()),
            Step::Answer(index) => self.answer(index),
            Step::AnswerAgain(index) => {
                if let Some(&(number, qos, released)) = self.peer.answered.get(index) {
                    // Only what is complete at both ends, or PUBREC, can be said twice without harm.
                    if qos == QoS::ExactlyOnce && !released && self.client.session.inflight.get(id(number)).is_some() {
                        self.client.packet(Packet::PubRec(ack(number)));
                    }
                }
            }
            Step::Publish { qos, number, dup } => self.publish(qos, number, dup),
            Step::Release(number) => {
                let actions = self.client.packet(Packet::PubRel(ack(number)));
                if self.client.session.link().is_some() {
                    self.peer.sending.remove(&number);
                    assert!(matches!(actions.as_slice(), [Action::Send(Packet::PubComp(_))]), "{actions:?}");
                }
            }
        }
    }

    fn transmit(&mut self) {
        match self.client.session.poll_transmit(self.client.now) {
            None => {}
            Some(Transmit::PubRel(id)) => {
                self.peer.out.insert(id.0.get());
                self.peer.unanswered.push((id.0.get(), QoS::ExactlyOnce, true));
            }
            Some(Transmit::Publish { delivery, dup, packet_id }) => {
                let number = number_of(&delivery);
                let got = self.peer.got.entry(delivery.qos as u8).or_default();
                let Some(id) = packet_id.map(|id| id.0.get()) else {
                    assert_eq!(delivery.qos, QoS::AtMostOnce);
                    assert!(!dup);
                    got.push(number);
                    return;
                };
                // Never two open exchanges with one identifier.
                assert!(self.peer.unanswered.iter().all(|(other, _, _)| *other != id), "identifier {id} is out twice");
                self.peer.out.insert(id);
                assert!(self.peer.out.len() <= self.peer.window, "more than Receive Maximum");
                if delivery.qos == QoS::ExactlyOnce {
                    if self.peer.holding.insert(id) {
                        got.push(number);
                    } else {
                        assert!(dup, "identifier {id} is used again before its release");
                    }
                } else if got.last() != Some(&number) && !got.contains(&number) {
                    got.push(number);
                } else {
                    assert!(dup, "message {number} again without DUP");
                }
                self.peer.unanswered.push((id, delivery.qos, false));
            }
        }
    }

    /// Answers in order, as `[MQTT-4.6.0-2]` ff. ask: the index only says whether.
    fn answer(&mut self, index: usize) {
        if index == 3 || self.peer.unanswered.is_empty() || self.client.session.link().is_none() {
            return;
        }
        let (number, qos, released) = self.peer.unanswered.remove(0);
        self.peer.answered.insert(0, (number, qos, released));
        self.peer.answered.truncate(4);
        let actions = match (qos, released) {
            (QoS::ExactlyOnce, true) => {
                self.peer.holding.remove(&number);
                self.peer.out.remove(&number);
                self.client.packet(Packet::PubComp(ack(number)))
            }
            (QoS::ExactlyOnce, false) => self.client.packet(Packet::PubRec(ack(number))),
            (QoS::AtMostOnce | QoS::AtLeastOnce, _) => {
                self.peer.out.remove(&number);
                self.client.packet(Packet::PubAck(ack(number)))
            }
        };
        for action in actions {
            match action {
                Action::Send(Packet::PubRel(ack)) => {
                    self.peer.unanswered.push((ack.packet_id.0.get(), QoS::ExactlyOnce, true));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn publish(&mut self, qos: QoS, number: u16, dup: bool) {
        let publish = Publish { dup: dup && qos > QoS::AtMostOnce, ..publish(qos, number) };
        let before = self.peer.sending.clone();
        let actions = self.client.packet(Packet::Publish(publish));
        if self.client.session.link().is_none() {
            // Absent, or disconnected for more than Receive Maximum.
            return;
        }
        let passed_on = actions.iter().filter(|action| matches!(action, Action::Publish(_))).count();
        let expected = match qos {
            QoS::AtMostOnce => 1,
            QoS::AtLeastOnce => usize::from(!before.contains(&number)),
            QoS::ExactlyOnce => {
                self.peer.sending.insert(number);
                usize::from(!before.contains(&number))
            }
        };
        assert_eq!(passed_on, expected, "{qos:?} {number}: {actions:?}");
    }

    fn check(&self) {
        let session = &self.client.session;
        assert!(session.inflight.len() <= 3, "more open exchanges than the widest window");
        assert!(session.queued() <= 5);
        for (qos, got) in &self.peer.got {
            let in_order = got.windows(2).all(|pair| pair[0] < pair[1]);
            assert!(in_order, "QoS {qos} out of order: {got:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_whatever_comes(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        // In the end an honest client gets all that was accepted for it, once.
        world.reconnect(3);
        for _ in 0..100 {
            world.transmit();
            world.answer(0);
            world.check();
        }
        prop_assert!(world.client.session.inflight.is_empty());
        prop_assert_eq!(world.client.session.queued(), 0);
        for qos in [1, 2] {
            prop_assert_eq!(world.peer.got.get(&qos), world.accepted.get(&qos), "QoS {}", qos);
        }
    }
}

/// Any packet that a client could send, sensible or not.
fn any_packet() -> impl Strategy<Value = Packet> {
    let qos = || prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    let any_ack = (1..6_u16, any::<bool>()).prop_map(|(number, failed)| {
        let reason = if failed { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        Ack { reason, ..ack(number) }
    });
    let names = prop::sample::select(vec!["", "a", "a/b", "$SYS/x", "$share", "1/2/3/4/5"]);
    let filters = prop::sample::select(vec!["#", "+", "a/+", "$share/g/a", "$SYS/#", "1/2/3/4/5"]);
    prop_oneof![
        (qos(), 1..6_u16, names, prop::option::of(0..12_u16)).prop_map(|(qos, number, name, topic_alias)| {
            let properties = PublishProperties { topic_alias, ..PublishProperties::default() };
            Packet::Publish(Publish {
                topic: topic(name),
                properties: topic_alias.map(|_| Box::new(properties)),
                ..publish(qos, number)
            })
        }),
        any_ack.clone().prop_map(Packet::PubAck),
        any_ack.clone().prop_map(Packet::PubRec),
        any_ack.clone().prop_map(Packet::PubRel),
        any_ack.prop_map(Packet::PubComp),
        (filters, qos()).prop_map(|(filter, qos)| {
            let filter = evermq_mqtt::TopicFilter::new(text(filter)).unwrap();
            let options = evermq_mqtt::packet::SubscriptionOptions { qos, ..Default::default() };
            let filters = vec![evermq_mqtt::packet::SubscribeFilter { filter, options }];
            Packet::Subscribe(evermq_mqtt::packet::Subscribe {
                packet_id: id(1),
                filters,
                properties: Default::default(),
            })
        }),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        Just(Packet::Connect(Box::new(connect()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nonsense_ends_the_connection_and_nothing_else(
        packets in prop::collection::vec(any_packet(), 1..60),
        old in any::<bool>(),
    ) {
        let asked = || Connect { version: if old { Version::V4 } else { Version::V5 }, ..connect() };
        let mut client = Client::connected(asked());
        for (number, packet) in (0..).zip(packets) {
            client.session.deliver(delivery(QoS::ExactlyOnce, number, client.now));
            client.transmits();
            let actions = client.packet(packet);
            let closes = actions.iter().filter(|action| matches!(action, Action::Close { .. })).count();
            // Closed exactly when the session has let go of the connection, and then nothing follows.
            prop_assert_eq!(closes == 1, client.session.link().is_none());
            let told = actions
                .iter()
                .filter(|action| matches!(action, Action::Send(Packet::Disconnect(_))))
                .count();
            prop_assert_eq!(told, if old { 0 } else { closes });
            for action in &actions {
                if let Action::Publish(publish) = action {
                    prop_assert!(!publish.topic.as_str().is_empty() && !publish.dup && publish.packet_id.is_none());
                }
            }
            prop_assert!(client.session.received.len() <= 6 && client.session.subscriptions.len() <= 3);
            if closes == 1 {
                prop_assert_eq!(client.packet(Packet::PingReq), []);
                client.connect(asked());
            }
        }
    }
}
