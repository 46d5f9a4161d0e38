//! The session against every order of acknowledgement, loss and reconnection that matters.

use bytes::Bytes;
use evermq_mqtt::packet::SubAck;
use evermq_mqtt::properties::{ConnAckProperties, PublishProperties};

use super::*;

fn connack(session_present: bool, receive_maximum: Option<u16>) -> ConnAck {
    let properties = ConnAckProperties { receive_maximum, ..ConnAckProperties::default() };
    ConnAck { session_present, reason: ReasonCode::Success, properties }
}

fn message(qos: QoS, payload: &'static str) -> Publish {
    let topic = TopicName::new(Text::new("t").expect("a string")).expect("a topic");
    Publish { dup: false, qos, retain: false, topic, packet_id: None, properties: None, payload: Bytes::from(payload) }
}

fn sent(qos: QoS, payload: &'static str, id: u16, dup: bool) -> Action {
    Action::Send(Packet::Publish(Publish { dup, packet_id: Some(packet_id(id)), ..message(qos, payload) }))
}

fn packet_id(id: u16) -> PacketId {
    PacketId(id.try_into().expect("above 0"))
}

fn ack(id: u16) -> Ack {
    success(packet_id(id))
}

fn acknowledged() -> Action {
    Action::Acknowledged { reason: ReasonCode::Success, text: None }
}

/// A session that is connected.
fn connected(capacity: u16) -> Session {
    let mut session = Session::new(capacity, 0);
    session.handle_connected(&connack(false, None));
    session
}

fn actions(session: &mut Session) -> Vec<Action> {
    std::iter::from_fn(|| session.poll_action()).collect()
}

fn feed(session: &mut Session, packet: Packet) -> Vec<Action> {
    session.handle_packet(packet).expect("a packet that belongs there");
    actions(session)
}

#[test]
fn qos_0_is_done_when_it_is_sent() {
    let mut session = connected(1);
    session.publish(message(QoS::AtMostOnce, "a"));
    let publish = Action::Send(Packet::Publish(message(QoS::AtMostOnce, "a")));
    assert_eq!(actions(&mut session), [publish, acknowledged()]);
    assert_eq!(session.unacknowledged(), 0);
}

#[test]
fn qos_1_is_done_with_its_puback() {
    let mut session = connected(2);
    session.publish(message(QoS::AtLeastOnce, "a"));
    assert_eq!(actions(&mut session), [sent(QoS::AtLeastOnce, "a", 1, false)]);
    assert_eq!(feed(&mut session, Packet::PubAck(ack(2))), [], "an acknowledgement of nothing");
    assert_eq!(feed(&mut session, Packet::PubComp(ack(1))), [], "an acknowledgement of QoS 2");
    assert_eq!(feed(&mut session, Packet::PubAck(ack(1))), [acknowledged()]);
    assert_eq!(session.unacknowledged(), 0);
    assert_eq!(feed(&mut session, Packet::PubAck(ack(1))), [], "the same once more");
}

#[test]
fn qos_2_is_done_with_its_pubcomp() {
    let mut session = connected(1);
    session.publish(message(QoS::ExactlyOnce, "a"));
    assert_eq!(actions(&mut session), [sent(QoS::ExactlyOnce, "a", 1, false)]);
    assert_eq!(feed(&mut session, Packet::PubComp(ack(1))), [], "too early");
    let release = || Action::Send(Packet::PubRel(ack(1)));
    assert_eq!(feed(&mut session, Packet::PubRec(ack(1))), [release()]);
    assert!(!session.has_room());
    assert_eq!(feed(&mut session, Packet::PubComp(ack(1))), [acknowledged()]);
    assert!(session.has_room());
    assert_eq!(feed(&mut session, Packet::PubRec(ack(1))), [release()], "the server still holds it");
}

#[test]
fn a_refusal_ends_a_message_and_says_why() {
    for (qos, refusal) in [
        (QoS::AtLeastOnce, Packet::PubAck as fn(Ack) -> Packet),
        (QoS::ExactlyOnce, Packet::PubRec as fn(Ack) -> Packet),
    ] {
        let mut session = connected(1);
        session.publish(message(qos, "a"));
        actions(&mut session);
        let reason = ReasonCode::NotAuthorized;
        assert_eq!(
            feed(&mut session, refusal(Ack { reason, ..ack(1) })),
            [Action::Acknowledged { reason, text: None }]
        );
        assert_eq!(session.unacknowledged(), 0);
    }
}

#[test]
fn a_known_session_gets_everything_again_with_dup() {
    let mut session = connected(3);
    session.publish(message(QoS::AtLeastOnce, "a"));
    session.publish(message(QoS::ExactlyOnce, "b"));
    session.publish(message(QoS::ExactlyOnce, "c"));
    actions(&mut session);
    assert_eq!(feed(&mut session, Packet::PubRec(ack(2))), [Action::Send(Packet::PubRel(ack(2)))]);

    session.handle_disconnected();
    session.handle_connected(&connack(true, None));
    let again = [
        Action::Send(Packet::PubRel(ack(2))),
        sent(QoS::AtLeastOnce, "a", 1, true),
        sent(QoS::ExactlyOnce, "c", 3, true),
    ];
    assert_eq!(actions(&mut session), again);
    assert_eq!(feed(&mut session, Packet::PubComp(ack(2))), [acknowledged()]);
}

#[test]
fn a_forgotten_session_gets_everything_as_new_and_in_order() {
    let mut session = connected(3);
    session.publish(message(QoS::AtLeastOnce, "a"));
    session.publish(message(QoS::ExactlyOnce, "b"));
    session.publish(message(QoS::ExactlyOnce, "c"));
    actions(&mut session);
    feed(&mut session, Packet::PubRec(ack(2)));

    session.handle_disconnected();
    session.handle_connected(&connack(false, None));
    let again = [
        sent(QoS::AtLeastOnce, "a", 1, false),
        sent(QoS::ExactlyOnce, "b", 2, false),
        sent(QoS::ExactlyOnce, "c", 3, false),
    ];
    assert_eq!(actions(&mut session), again);
}

#[test]
fn a_message_taken_while_disconnected_waits() {
    let mut session = connected(2);
    session.handle_disconnected();
    session.publish(message(QoS::AtLeastOnce, "a"));
    assert_eq!(actions(&mut session), []);
    session.handle_connected(&connack(true, None));
    assert_eq!(actions(&mut session), [sent(QoS::AtLeastOnce, "a", 1, false)]);
}

#[test]
fn the_servers_receive_maximum_is_kept() {
    let mut session = Session::new(4, 0);
    session.handle_connected(&connack(false, Some(1)));
    session.publish(message(QoS::AtLeastOnce, "a"));
    session.publish(message(QoS::AtLeastOnce, "b"));
    assert_eq!(actions(&mut session), [sent(QoS::AtLeastOnce, "a", 1, false)]);
    assert_eq!(feed(&mut session, Packet::PubAck(ack(1))), [acknowledged(), sent(QoS::AtLeastOnce, "b", 2, false)]);

    session.handle_disconnected();
    session.publish(message(QoS::AtLeastOnce, "c"));
    session.handle_connected(&connack(true, Some(1)));
    assert_eq!(actions(&mut session), [sent(QoS::AtLeastOnce, "b", 2, true)], "c waits for its turn");
}

#[test]
fn identifiers_skip_those_in_use_and_zero() {
    let mut session = connected(2);
    session.publish(message(QoS::AtLeastOnce, "slow"));
    actions(&mut session);
    for turn in 0..200_000 {
        let id = session.allocate_id();
        assert_ne!(id, packet_id(1), "turn {turn}");
    }
}

#[test]
fn qos_2_is_delivered_once() {
    let mut session = connected(1);
    let arrives =
        |dup| Packet::Publish(Publish { dup, packet_id: Some(packet_id(9)), ..message(QoS::ExactlyOnce, "in") });
    let Packet::Publish(first) = arrives(false) else { unreachable!("it is a PUBLISH") };
    let received = || Action::Send(Packet::PubRec(ack(9)));
    assert_eq!(feed(&mut session, arrives(false)), [Action::Deliver(first), received()]);
    assert_eq!(feed(&mut session, arrives(true)), [received()]);

    session.handle_disconnected();
    session.handle_connected(&connack(true, None));
    assert_eq!(feed(&mut session, arrives(true)), [received()], "the session goes on");
    assert_eq!(feed(&mut session, Packet::PubRel(ack(9))), [Action::Send(Packet::PubComp(ack(9)))]);
    assert_eq!(feed(&mut session, arrives(false)).len(), 2, "the identifier means a new message now");

    session.handle_disconnected();
    session.handle_connected(&connack(false, None));
    assert_eq!(feed(&mut session, arrives(false)).len(), 2, "a new session knows nothing");
}

#[test]
fn qos_0_and_1_are_delivered_as_they_come() {
    let mut session = connected(1);
    let plain = message(QoS::AtMostOnce, "in");
    assert_eq!(feed(&mut session, Packet::Publish(plain.clone())), [Action::Deliver(plain)]);
    let once = Publish { packet_id: Some(packet_id(4)), ..message(QoS::AtLeastOnce, "in") };
    assert_eq!(
        feed(&mut session, Packet::Publish(once.clone())),
        [Action::Deliver(once), Action::Send(Packet::PubAck(ack(4)))]
    );
}

#[test]
fn topic_aliases_last_as_long_as_the_connection() {
    let aliased = |named: bool, alias| {
        let plain = message(QoS::AtMostOnce, "in");
        let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
        let topic = if named { plain.topic.clone() } else { TopicName::default() };
        Publish { topic, properties: Some(Box::new(properties)), ..plain }
    };
    let mut session = Session::new(1, 2);
    session.handle_connected(&connack(false, None));
    assert!(session.handle_packet(Packet::Publish(aliased(false, 2))).is_err(), "unknown");
    assert!(session.handle_packet(Packet::Publish(aliased(true, 3))).is_err(), "above the maximum");
    feed(&mut session, Packet::Publish(aliased(true, 2)));
    assert_eq!(feed(&mut session, Packet::Publish(aliased(false, 2))), [Action::Deliver(aliased(true, 2))]);

    session.handle_disconnected();
    session.handle_connected(&connack(true, None));
    assert!(session.handle_packet(Packet::Publish(aliased(false, 2))).is_err(), "forgotten");
}

#[test]
fn answers_are_passed_on_and_strays_refused() {
    let mut session = connected(1);
    let reasons = vec![ReasonCode::GrantedQoS1];
    let suback = SubAck { packet_id: packet_id(1), reasons: reasons.clone(), properties: None };
    assert_eq!(feed(&mut session, Packet::SubAck(suback)), [Action::Subscribed(reasons)]);
    let stray = Packet::ConnAck(Box::new(connack(false, None)));
    assert!(session.handle_packet(stray).is_err());
    assert!(session.handle_packet(Packet::PingReq).is_err());
}
