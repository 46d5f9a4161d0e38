//! Messages from the client.

use super::*;

fn puback(number: u16) -> Action {
    Action::Send(Packet::PubAck(ack(number)))
}

fn pubrec(number: u16) -> Action {
    Action::Send(Packet::PubRec(ack(number)))
}

/// The message as it is passed on.
fn passed_on(qos: QoS) -> Action {
    Action::Publish(Publish { packet_id: None, ..publish(qos, 1) })
}

#[test]
fn each_qos_is_passed_on_before_it_is_acknowledged() {
    let mut client = Client::connected(connect());
    assert_eq!(client.packet(Packet::Publish(publish(QoS::AtMostOnce, 0))), [passed_on(QoS::AtMostOnce)]);
    assert_eq!(client.packet(Packet::Publish(publish(QoS::AtLeastOnce, 7))), [passed_on(QoS::AtLeastOnce), puback(7)]);
    assert_eq!(client.packet(Packet::Publish(publish(QoS::ExactlyOnce, 8))), [passed_on(QoS::ExactlyOnce), pubrec(8)]);
    assert_eq!(client.packet(Packet::PubRel(ack(8))), [Action::Send(Packet::PubComp(ack(8)))]);
}

#[test]
fn qos2_is_passed_on_once_until_its_release() {
    let mut client = Client::connected(connect());
    client.packet(Packet::Publish(publish(QoS::ExactlyOnce, 8)));
    let again = Publish { dup: true, ..publish(QoS::ExactlyOnce, 8) };
    assert_eq!(client.packet(Packet::Publish(again.clone())), [pubrec(8)]);
    client.lose();
    client.connect(connect());
    assert_eq!(client.packet(Packet::Publish(again)), [pubrec(8)], "on the next connection too");
    client.packet(Packet::PubRel(ack(8)));
    assert_eq!(
        client.packet(Packet::Publish(publish(QoS::ExactlyOnce, 8))),
        [passed_on(QoS::ExactlyOnce), pubrec(8)],
        "a new message with the same identifier"
    );
}

#[test]
fn release_of_an_unknown_identifier_is_answered() {
    let mut client = Client::connected(connect());
    let unknown = Ack { reason: ReasonCode::PacketIdentifierNotFound, ..ack(9) };
    assert_eq!(client.packet(Packet::PubRel(ack(9))), [Action::Send(Packet::PubComp(unknown))]);
}

#[test]
fn receive_maximum_counts_what_was_not_released() {
    let mut client = Client::connected(connect());
    for number in 1..=3 {
        client.packet(Packet::Publish(publish(QoS::ExactlyOnce, number)));
    }
    client.packet(Packet::PubRel(ack(1)));
    assert_eq!(client.packet(Packet::Publish(publish(QoS::ExactlyOnce, 4))), [passed_on(QoS::ExactlyOnce), pubrec(4)]);
    let actions = client.packet(Packet::Publish(publish(QoS::ExactlyOnce, 5)));
    assert_eq!(disconnected(&actions), Some(ReasonCode::ReceiveMaximumExceeded));

    let mut old = Client::connected(Connect { version: Version::V4, ..connect() });
    for number in 1..=100 {
        assert_eq!(old.packet(Packet::Publish(publish(QoS::ExactlyOnce, number))).len(), 2);
    }
}

#[test]
fn an_identifier_of_qos2_is_not_free_for_qos1() {
    let mut client = Client::connected(connect());
    client.packet(Packet::Publish(publish(QoS::ExactlyOnce, 8)));
    let refused = Ack { reason: ReasonCode::PacketIdentifierInUse, ..ack(8) };
    assert_eq!(
        client.packet(Packet::Publish(publish(QoS::AtLeastOnce, 8))),
        [Action::Refused(ReasonCode::PacketIdentifierInUse), Action::Send(Packet::PubAck(refused))]
    );
}

#[test]
fn topics_that_are_not_accepted() {
    for (name, reason) in [("1/2/3/4/5", ReasonCode::TopicNameInvalid), ("$SYS/broker", ReasonCode::NotAuthorized)] {
        let at = |qos| Publish { topic: topic(name), ..publish(qos, 1) };
        let mut client = Client::connected(connect());
        let told = Ack { reason, ..ack(1) };
        assert_eq!(client.packet(Packet::Publish(at(QoS::AtMostOnce))), [Action::Refused(reason)]);
        let actions = client.packet(Packet::Publish(at(QoS::AtLeastOnce)));
        assert_eq!(actions, [Action::Refused(reason), Action::Send(Packet::PubAck(told.clone()))]);
        let actions = client.packet(Packet::Publish(at(QoS::ExactlyOnce)));
        assert_eq!(actions, [Action::Refused(reason), Action::Send(Packet::PubRec(told.clone()))]);
        // The exchange is over: its release finds nothing.
        let gone = Ack { reason: ReasonCode::PacketIdentifierNotFound, ..ack(1) };
        assert_eq!(client.packet(Packet::PubRel(ack(1))), [Action::Send(Packet::PubComp(gone))]);

        // An older client is told as little as its PUBACK can say.
        let mut old = Client::connected(Connect { version: Version::V4, ..connect() });
        assert_eq!(
            old.packet(Packet::Publish(at(QoS::AtLeastOnce))),
            [Action::Refused(reason), Action::Send(Packet::PubAck(told))]
        );
    }
    for name in ["1/2/3/4", "$other/x", "$SYSTEM"] {
        let mut client = Client::connected(connect());
        let actions = client.packet(Packet::Publish(Publish { topic: topic(name), ..publish(QoS::AtMostOnce, 0) }));
        assert!(matches!(actions.as_slice(), [Action::Publish(_)]), "{name}: {actions:?}");
    }
}

fn aliased(name: &str, alias: u16) -> Packet {
    let properties = PublishProperties { topic_alias: Some(alias), ..PublishProperties::default() };
    Packet::Publish(Publish {
        topic: topic(name),
        properties: Some(Box::new(properties)),
        ..publish(QoS::AtMostOnce, 0)
    })
}

fn topic_of(actions: &[Action]) -> String {
    match actions {
        [Action::Publish(publish)] => {
            assert_eq!(publish.properties.as_ref().and_then(|properties| properties.topic_alias), None);
            publish.topic.to_string()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn topic_aliases_of_one_connection() {
    let mut client = Client::connected(connect());
    assert_eq!(topic_of(&client.packet(aliased("a", 1))), "a");
    assert_eq!(topic_of(&client.packet(aliased("b", 10))), "b");
    assert_eq!(topic_of(&client.packet(aliased("", 1))), "a");
    assert_eq!(topic_of(&client.packet(aliased("c", 1))), "c");
    assert_eq!(topic_of(&client.packet(aliased("", 1))), "c");
    assert_eq!(topic_of(&client.packet(aliased("", 10))), "b");
    client.connect(connect());
    assert_eq!(disconnected(&client.packet(aliased("", 1))), Some(ReasonCode::ProtocolError));
}

#[test]
fn topic_aliases_out_of_range_or_missing() {
    for (name, alias, reason) in [
        ("a", 0, ReasonCode::TopicAliasInvalid),
        ("a", 11, ReasonCode::TopicAliasInvalid),
        ("", 11, ReasonCode::TopicAliasInvalid),
        ("", 2, ReasonCode::ProtocolError),
    ] {
        let mut client = Client::connected(connect());
        assert_eq!(disconnected(&client.packet(aliased(name, alias))), Some(reason), "{name:?} {alias}");
    }
}

#[test]
fn a_client_sends_no_subscription_identifiers() {
    let properties =
        PublishProperties { subscription_ids: vec![std::num::NonZeroU32::MIN], ..PublishProperties::default() };
    let mut client = Client::connected(connect());
    let publish = Publish { properties: Some(Box::new(properties)), ..publish(QoS::AtMostOnce, 0) };
    assert_eq!(disconnected(&client.packet(Packet::Publish(publish))), Some(ReasonCode::ProtocolError));
}
