use std::time::Instant;

use bytes::Bytes;
use evermq_mqtt::packet::{Ack, Connect, Disconnect, Subscribe, SubscribeFilter, SubscriptionOptions, Unsubscribe};
use evermq_mqtt::properties::{ConnectProperties, SubscribeProperties};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, TopicName};

use super::*;
use crate::broker::Broker;
use crate::broker::tests::{broker, connect};
use crate::mailbox::{Mailbox, Wakes};
use crate::message::{Delivery, Shared};
use crate::session::recover::Saved;
use crate::session::{Action, Session, Transmit};

mod mesh;

const FILTER: &str = "$share/g/t/+";

struct Scene {
    broker: Arc<Broker>,
    publisher: Arc<Mailbox>,
    now: Instant,
}

/// Number, QoS and packet identifier of a message that went out.
type Sent = (String, QoS, Option<PacketId>);

impl Scene {
    fn new() -> Self {
        let (broker, _) = broker();
        let now = crate::connection::clock();
        let publisher = broker.connect(connect("publisher"), now).unwrap().mailbox;
        Self { broker, publisher, now }
    }

    /// A client with a session of 100 s.
    fn client(&self, id: &str) -> Arc<Mailbox> {
        self.broker.connect(connect(id), self.now).unwrap().mailbox
    }

    fn subscribe(&self, mailbox: &Arc<Mailbox>, filter: &str, qos: QoS) {
        let filter = TopicFilter::new(Text::new(filter).unwrap()).unwrap();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        self.packet(
            mailbox,
            Packet::Subscribe(Subscribe {
                packet_id: PacketId(std::num::NonZeroU16::MIN),
                filters: vec![SubscribeFilter { filter, options }],
                properties: SubscribeProperties::default(),
            }),
        );
    }

    fn member(&self, id: &str, qos: QoS) -> Arc<Mailbox> {
        let member = self.client(id);
        self.subscribe(&member, FILTER, qos);
        member
    }

    fn packet(&self, mailbox: &Arc<Mailbox>, packet: Packet) {
        self.broker.update(mailbox, self.now, |session| session.handle_packet(packet, self.now));
    }

    fn lose(&self, mailbox: &Arc<Mailbox>) {
        self.broker.update(mailbox, self.now, |session| session.handle_lost(self.now));
    }

    fn end(&self, mailbox: &Arc<Mailbox>) {
        self.broker.update(mailbox, self.now, |session| session.handle_end(self.now));
    }

    fn publish(&self, payload: &str, qos: QoS) {
        self.broker.publish(&self.publisher, of(payload, qos), self.now, &mut Wakes::default());
    }

    fn sent(&self, mailbox: &Mailbox) -> Vec<Sent> {
        let mut slot = mailbox.lock();
        std::iter::from_fn(|| slot.session.poll_transmit(self.now))
            .filter_map(|transmit| match transmit {
                Transmit::Publish { delivery, packet_id, .. } => {
                    let payload = &delivery.message.message().publish.payload;
                    Some((String::from_utf8(payload.to_vec()).unwrap(), delivery.qos, packet_id))
                }
                Transmit::PubRel(_) => None,
            })
            .collect()
    }

    fn payloads(&self, mailbox: &Mailbox) -> Vec<String> {
        self.sent(mailbox).into_iter().map(|(payload, _, _)| payload).collect()
    }
}

/// A message that the group gets.
fn of(payload: &str, qos: QoS) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: TopicName::new(Text::new("t/x").unwrap()).unwrap(),
        packet_id: None,
        properties: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    }
}

#[test]
fn each_message_goes_to_one_member_in_turn() {
    let scene = Scene::new();
    let members = ["a", "b", "c"].map(|id| scene.member(id, QoS::AtMostOnce));
    for number in 0..9 {
        scene.publish(&number.to_string(), QoS::AtMostOnce);
    }
    let mut all: Vec<_> = members.iter().map(|member| scene.payloads(member)).collect();
    assert!(all.iter().all(|got| got.len() == 3), "{all:?}");
    all.sort();
    assert_eq!(all, [["0", "3", "6"], ["1", "4", "7"], ["2", "5", "8"]]);
}

#[test]
fn groups_and_plain_subscriptions_have_a_copy_each() {
    let scene = Scene::new();
    let member = scene.member("m", QoS::AtMostOnce);
    scene.subscribe(&member, "t/x", QoS::AtMostOnce);
    let other = scene.client("o");
    scene.subscribe(&other, "$share/other/t/#", QoS::AtMostOnce);
    scene.subscribe(&other, "$share/g/t/x", QoS::AtMostOnce);
    scene.publish("1", QoS::AtMostOnce);
    assert_eq!(scene.payloads(&member), ["1", "1"]);
    assert_eq!(scene.payloads(&other), ["1", "1"], "the same group name with another filter is another group");
    assert_eq!(scene.broker.router.subscriptions(), 4);
}

#[test]
fn members_with_a_connection_and_room_come_first() {
    let scene = Scene::new();
    let (away, slow, ready) = (
        scene.member("away", QoS::AtLeastOnce),
        scene.member("slow", QoS::AtLeastOnce),
        scene.member("ready", QoS::AtLeastOnce),
    );
    scene.lose(&away);
    // More than half of what its queue may hold.
    scene.subscribe(&slow, "fill", QoS::AtLeastOnce);
    for _ in 0..6 {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: TopicName::new(Text::new("fill").unwrap()).unwrap(),
            packet_id: None,
            properties: None,
            payload: Bytes::from(vec![0; 9000]),
        };
        scene.broker.publish(&scene.publisher, publish, scene.now, &mut Wakes::default());
    }
    assert!(slow.lock().session.is_congested());
    (0..6).for_each(|number| scene.publish(&number.to_string(), QoS::AtLeastOnce));
    assert_eq!(scene.payloads(&ready).len(), 6);
    scene.lose(&ready);
    scene.publish("slow", QoS::AtLeastOnce);
    assert_eq!(slow.lock().session.queued(), 7, "better than nobody");
    scene.lose(&slow);
    scene.publish("absent", QoS::AtLeastOnce);
    scene.publish("dropped", QoS::AtMostOnce);
    let queued: usize = [&away, &slow, &ready].iter().map(|mailbox| mailbox.lock().session.queued()).sum();
    assert_eq!(queued, 8, "an absent member keeps QoS 1, and nobody keeps QoS 0");
}

#[test]
fn each_member_has_the_qos_that_it_was_granted() {
    let scene = Scene::new();
    let members =
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| scene.member(&format!("{qos:?}"), qos));
    (0..3).for_each(|number| scene.publish(&number.to_string(), QoS::ExactlyOnce));
    let got: Vec<_> = members.iter().flat_map(|member| scene.sent(member)).map(|(_, qos, _)| qos).collect();
    assert_eq!(got, [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
}

#[test]
fn what_an_ended_session_leaves_goes_to_another_but_for_qos_2_that_was_sent() {
    let scene = Scene::new();
    let first = scene.member("first", QoS::ExactlyOnce);
    scene.publish("qos 1, sent", QoS::AtLeastOnce);
    scene.publish("qos 2, sent", QoS::ExactlyOnce);
    assert_eq!(scene.payloads(&first).len(), 2);
    scene.publish("qos 2, waiting", QoS::ExactlyOnce);
    scene.publish("qos 1, waiting", QoS::AtLeastOnce);
    scene.publish("qos 0", QoS::AtMostOnce);
    let second = scene.member("second", QoS::ExactlyOnce);
    scene.lose(&first);
    assert!(scene.payloads(&second).is_empty(), "the session may come back");
    scene.end(&first);
    let got = scene.sent(&second);
    assert_eq!(
        got.iter().map(|(payload, qos, _)| (payload.as_str(), *qos)).collect::<Vec<_>>(),
        [("qos 1, sent", QoS::AtLeastOnce), ("qos 2, waiting", QoS::ExactlyOnce), ("qos 1, waiting", QoS::AtLeastOnce)]
    );
    scene.end(&second);
    assert_eq!(scene.broker.router.subscriptions(), 0);
    assert_eq!(scene.broker.counters.to_json()["dropped"], 2, "QoS 1 and what QoS 2 was not sent; nobody is left");
}

#[test]
fn a_session_that_ends_with_its_connection_gives_back_at_once() {
    let scene = Scene::new();
    let properties = ConnectProperties { session_expiry: Some(0), ..ConnectProperties::default() };
    let first = scene.broker.connect(Connect { properties, ..connect("first") }, scene.now).unwrap().mailbox;
    scene.subscribe(&first, FILTER, QoS::AtLeastOnce);
    scene.publish("1", QoS::AtLeastOnce);
    let second = scene.member("second", QoS::AtLeastOnce);
    scene.packet(&first, Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None }));
    assert_eq!(scene.payloads(&second), ["1"]);
}

#[test]
fn an_acknowledgement_with_an_error_is_the_end_of_the_message() {
    let scene = Scene::new();
    let (first, second) = (scene.member("first", QoS::ExactlyOnce), scene.member("second", QoS::ExactlyOnce));
    for qos in [QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce] {
        scene.publish("x", qos);
    }
    for member in [&first, &second] {
        for (_, qos, packet_id) in scene.sent(member) {
            let ack = Ack { packet_id: packet_id.unwrap(), reason: ReasonCode::NotAuthorized, properties: None };
            scene.packet(member, if qos == QoS::AtLeastOnce { Packet::PubAck(ack) } else { Packet::PubRec(ack) });
        }
    }
    scene.end(&first);
    assert!(scene.payloads(&second).is_empty());
}

#[test]
fn members_come_and_go() {
    let scene = Scene::new();
    let members: Vec<_> = (0..50).map(|number| scene.member(&number.to_string(), QoS::AtMostOnce)).collect();
    // A second time replaces the subscription.
    members.iter().for_each(|member| scene.subscribe(member, FILTER, QoS::AtMostOnce));
    assert_eq!(scene.broker.router.subscriptions(), 50);
    let filter = TopicFilter::new(Text::new(FILTER).unwrap()).unwrap();
    for (left, member) in (0..50).rev().zip(&members) {
        scene.packet(
            member,
            Packet::Unsubscribe(Unsubscribe {
                packet_id: PacketId(std::num::NonZeroU16::MIN),
                filters: vec![filter.clone()],
                user_properties: Vec::new(),
            }),
        );
        assert_eq!(scene.broker.router.subscriptions(), left);
        scene.publish("x", QoS::AtMostOnce);
        let got: usize = members.iter().map(|member| scene.payloads(member).len()).sum();
        assert_eq!(got, usize::from(left > 0));
    }
}

/// Everything published while members come, go and are lost arrives once, as long as one member stays.
#[test]
fn nothing_is_lost_or_doubled_while_members_change() {
    let scene = Scene::new();
    let stays = scene.member("stays", QoS::AtLeastOnce);
    let mut got = Vec::new();
    for round in 0..20 {
        let comes = scene.member(&format!("comes {round}"), QoS::AtLeastOnce);
        (0..4).for_each(|number| scene.publish(&format!("{round}.{number}"), QoS::AtLeastOnce));
        // One of two is taken and acknowledged; the other goes back.
        let taken = scene.sent(&comes).into_iter().next().unwrap();
        scene.packet(
            &comes,
            Packet::PubAck(Ack { packet_id: taken.2.unwrap(), reason: ReasonCode::Success, properties: None }),
        );
        got.push(taken.0);
        scene.lose(&comes);
        scene.end(&comes);
        for (payload, _, packet_id) in scene.sent(&stays) {
            got.push(payload);
            let ack = Ack { packet_id: packet_id.unwrap(), reason: ReasonCode::Success, properties: None };
            scene.packet(&stays, Packet::PubAck(ack));
        }
    }
    got.sort();
    let mut expected: Vec<_> =
        (0..20).flat_map(|round| (0..4).map(move |number| format!("{round}.{number}"))).collect();
    expected.sort();
    assert_eq!(got, expected);
}

#[test]
fn a_session_out_of_the_store_gives_back_what_came_through_its_groups() {
    let scene = Scene::new();
    let other = scene.member("other", QoS::AtLeastOnce);
    let filter = |name: &str| TopicFilter::new(Text::new(name).unwrap()).unwrap();
    let delivery = |topic: &str, payload: &'static str, qos| {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
            packet_id: None,
            properties: None,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let stamp = evermq_bridge::Stamp { time: 1, origin: "here".into() };
        let message = Arc::new(evermq_bridge::Message { publish, stamp, received: scene.now, publisher: None });
        Delivery { message: Shared::new(message, false), qos, retain: false, ids: None, share: None }
    };
    let id = |number| PacketId(std::num::NonZeroU16::new(number).unwrap());
    let subscription = crate::session::Subscription { options: SubscriptionOptions::default(), id: None };
    let saved = Saved {
        user: None,
        expiry: std::time::Duration::from_secs(100),
        will: None,
        detached_at: Some(scene.now),
        subscriptions: vec![(filter(FILTER), subscription), (filter("t/own"), subscription)],
        waiting: vec![delivery("t/x", "waiting", QoS::ExactlyOnce), delivery("t/own", "own", QoS::AtLeastOnce)],
        inflight: vec![
            (id(1), Some(delivery("t/x", "sent", QoS::AtLeastOnce))),
            (id(2), Some(delivery("t/x", "sent, QoS 2", QoS::ExactlyOnce))),
        ],
        next_packet_id: id(3),
        received: Vec::new(),
    };
    let mut session = Session::recover(saved, scene.broker.limits(), scene.now);
    session.recover_shares(&[(filter(FILTER), scene.broker.router.share(&filter(FILTER)).unwrap())]);
    session.handle_end(scene.now);
    let returned = std::iter::from_fn(|| session.poll_action()).find_map(|action| match action {
        Action::GiveBack(returned) => Some(returned.0),
        _ => None,
    });
    scene.broker.router.give_back(&scene.publisher, returned.unwrap(), &mut Wakes::default());
    assert_eq!(scene.payloads(&other), ["sent", "waiting"]);
}

#[test]
fn what_a_member_may_not_have_any_more_goes_to_another() {
    let scene = Scene::new();
    let members = ["a", "b"].map(|id| scene.member(id, QoS::AtLeastOnce));
    for number in 0..4 {
        scene.publish(&number.to_string(), QoS::AtLeastOnce);
    }
    let rule = evermq_config::broker::AclRule {
        users: Vec::new(),
        clients: Vec::new(),
        publish: Vec::new(),
        subscribe: vec!["other".to_owned()],
        deny: Vec::new(),
    };
    let rules = evermq_access::Rules::of_entries(&[rule]).unwrap().unwrap();
    let permits = rules.of(evermq_access::substitution::Subject { user: None, client_id: "a" });
    scene.broker.update(&members[0], scene.now, |session| {
        assert_eq!(session.set_permits(Some(Arc::new(permits))), 2);
    });
    assert_eq!(scene.payloads(&members[0]), [""; 0]);
    let mut all = scene.payloads(&members[1]);
    all.sort();
    assert_eq!(all, ["0", "1", "2", "3"]);
    // It is passed over from now on.
    scene.publish("4", QoS::AtLeastOnce);
    assert_eq!(scene.payloads(&members[1]), ["4"]);
}
