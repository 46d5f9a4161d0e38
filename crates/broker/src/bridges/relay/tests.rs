use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use evermq_config::bridges::{BridgeTopic, Direction};
use evermq_mqtt::packet::{Disconnect, RetainHandling, SubAck};
use evermq_mqtt::properties::PublishProperties;
use evermq_mqtt::{Text, TopicName};

use super::*;

const KEEP_ALIVE: Duration = Duration::from_secs(60);

fn start() -> Instant {
    crate::connection::clock()
}

fn id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).unwrap())
}

fn terms() -> Terms {
    Terms {
        version: Version::V4,
        max_packet_size: 1000,
        max_packet_size_here: 1000,
        max_qos: QoS::ExactlyOnce,
        takes_retained: true,
        keep_alive: KEEP_ALIVE,
    }
}

fn topics() -> Topics {
    let [pattern, local_prefix, remote_prefix] = ["#", "l/", "r/"].map(str::to_owned);
    Topics::new(&[BridgeTopic { pattern, direction: Direction::Both, qos: 2, local_prefix, remote_prefix }])
}

/// A relay that has subscribed.
fn relay(terms: Terms) -> Relay {
    let topics = topics();
    let filters = topics.subscriptions(Way::In, RetainHandling::Send);
    let mut relay = Relay::new(topics, terms, id(9), [filters.clone(), Vec::new()], start());
    assert_eq!(relay.poll_action(), Some(Action::Remote(subscribe(id(9), filters))));
    assert!(!relay.reads_local());
    let suback = SubAck { packet_id: id(9), reasons: vec![ReasonCode::GrantedQoS2], properties: None };
    relay.handle_remote(Packet::SubAck(suback), start());
    assert_eq!(actions(&mut relay), [Action::Subscribed]);
    assert!(relay.reads_local());
    relay
}

fn actions(relay: &mut Relay) -> Vec<Action> {
    std::iter::from_fn(|| relay.poll_action()).collect()
}

fn publish(topic: &str, qos: QoS, packet_id: u16) -> Publish {
    Publish {
        dup: false,
        qos,
        retain: true,
        topic: TopicName::new(Text::new(topic).unwrap()).unwrap(),
        packet_id: (qos > QoS::AtMostOnce).then(|| id(packet_id)),
        properties: None,
        payload: Bytes::from_static(b"payload"),
    }
}

fn failed(packet_id: u16) -> Ack {
    Ack { reason: ReasonCode::UnspecifiedError, ..plain(id(packet_id)) }
}

fn remote(packet: Packet) -> Action {
    Action::Remote(packet)
}

fn local(packet: Packet) -> Action {
    Action::Local(packet)
}

#[test]
fn messages_keep_their_identifiers_and_acknowledgements_go_through() {
    let mut relay = relay(terms());
    for (qos, number) in [(QoS::AtMostOnce, 1), (QoS::AtLeastOnce, 2)] {
        relay.handle_local(Packet::Publish(publish("l/a", qos, number)), start());
        assert_eq!(actions(&mut relay), [remote(Packet::Publish(publish("r/a", qos, number)))]);
        relay.handle_remote(Packet::Publish(publish("r/a", qos, number)), start());
        assert_eq!(actions(&mut relay), [local(Packet::Publish(publish("l/a", qos, number)))]);
    }
    for packet in [Packet::PubAck, Packet::PubRec, Packet::PubRel, Packet::PubComp] {
        relay.handle_remote(packet(plain(id(2))), start());
        assert_eq!(actions(&mut relay), [local(packet(plain(id(2))))]);
        relay.handle_local(packet(plain(id(3))), start());
        assert_eq!(actions(&mut relay), [remote(packet(plain(id(3))))]);
    }
    assert_eq!(relay.take_counts(), Counts { sent: 2, received: 2, ..Counts::default() });
    assert_eq!(relay.take_counts(), Counts::default());
}

#[test]
fn the_past_of_an_identifier_is_swept_away_once() {
    let mut relay = relay(terms());
    let message = |topic| Packet::Publish(publish(topic, QoS::ExactlyOnce, 5));
    relay.handle_local(message("l/a"), start());
    assert_eq!(actions(&mut relay), [remote(Packet::PubRel(plain(id(5)))), remote(message("r/a"))]);
    relay.handle_remote(message("r/a"), start());
    assert_eq!(actions(&mut relay), [local(Packet::PubRel(plain(id(5)))), local(message("l/a"))]);
    let comp = || Packet::PubComp(plain(id(5)));
    for _ in 0..2 {
        // The first answers the sweep, the second the message.
        relay.handle_remote(comp(), start());
        relay.handle_local(comp(), start());
    }
    assert_eq!(actions(&mut relay), [local(comp()), remote(comp())]);
    relay.handle_local(message("l/b"), start());
    assert_eq!(actions(&mut relay), [remote(message("r/b"))]);
    // One that is sent again is what the receiver may have.
    let again = |topic| Packet::Publish(Publish { dup: true, ..publish(topic, QoS::ExactlyOnce, 6) });
    relay.handle_local(again("l/a"), start());
    relay.handle_remote(again("r/a"), start());
    assert_eq!(actions(&mut relay), [remote(again("r/a")), local(again("l/a"))]);
}

#[test]
fn what_cannot_go_on_is_answered_and_counted() {
    let mut relay = relay(terms());
    let large = |topic, qos| Packet::Publish(Publish { payload: vec![0; 1000].into(), ..publish(topic, qos, 7) });
    relay.handle_local(large("l/a", QoS::AtLeastOnce), start());
    relay.handle_local(large("l/a", QoS::ExactlyOnce), start());
    relay.handle_local(large("l/a", QoS::AtMostOnce), start());
    assert_eq!(actions(&mut relay), [local(Packet::PubAck(plain(id(7)))), local(Packet::PubRec(failed(7)))]);
    relay.handle_remote(large("r/a", QoS::AtLeastOnce), start());
    relay.handle_remote(large("r/a", QoS::ExactlyOnce), start());
    relay.handle_remote(Packet::Publish(publish("other", QoS::AtLeastOnce, 8)), start());
    let answers = [Packet::PubAck(plain(id(7))), Packet::PubRec(plain(id(7))), Packet::PubAck(plain(id(8)))];
    assert_eq!(actions(&mut relay), answers.map(remote));
    relay.handle_local(Packet::Publish(publish("other", QoS::AtLeastOnce, 8)), start());
    assert_eq!(actions(&mut relay), [local(Packet::PubAck(plain(id(8))))]);
    let counts = Counts { received: 3, refused_there: 3, refused_here: 2, unwanted: 2, ..Counts::default() };
    assert_eq!(relay.take_counts(), counts);
}

#[test]
fn a_remote_broker_gets_what_it_takes() {
    let at = |max_qos| Terms { max_qos, takes_retained: false, ..terms() };
    let unretained = |topic, qos| Publish { retain: false, ..publish(topic, qos, 4) };
    let mut once = relay(at(QoS::AtLeastOnce));
    once.handle_local(Packet::Publish(publish("l/a", QoS::ExactlyOnce, 4)), start());
    assert_eq!(actions(&mut once), [remote(Packet::Publish(unretained("r/a", QoS::AtLeastOnce)))]);
    once.handle_remote(Packet::PubAck(plain(id(4))), start());
    once.handle_local(Packet::PubRel(plain(id(4))), start());
    assert_eq!(actions(&mut once), [local(Packet::PubRec(failed(4))), local(Packet::PubComp(plain(id(4))))]);
    let mut never = relay(at(QoS::AtMostOnce));
    never.handle_local(Packet::Publish(publish("l/a", QoS::AtLeastOnce, 4)), start());
    let sent = remote(Packet::Publish(unretained("r/a", QoS::AtMostOnce)));
    assert_eq!(actions(&mut never), [sent, local(Packet::PubAck(plain(id(4))))]);
}

#[test]
fn what_only_one_side_may_say_goes_no_further() {
    let mut relay = relay(Terms { version: Version::V5, ..terms() });
    let unheard = || Ack { reason: ReasonCode::NoMatchingSubscribers, ..plain(id(1)) };
    relay.handle_remote(Packet::PubAck(unheard()), start());
    relay.handle_local(Packet::PubAck(unheard()), start());
    assert_eq!(actions(&mut relay), [local(Packet::PubAck(plain(id(1)))), remote(Packet::PubAck(plain(id(1))))]);
    let denied = || Ack { reason: ReasonCode::NotAuthorized, ..plain(id(1)) };
    relay.handle_remote(Packet::PubRec(denied()), start());
    relay.handle_local(Packet::PubRec(denied()), start());
    assert_eq!(actions(&mut relay), [local(Packet::PubRec(failed(1))), remote(Packet::PubRec(denied()))]);
    assert_eq!(relay.take_counts(), Counts { refused_here: 1, refused_there: 1, ..Counts::default() });
    let properties = PublishProperties { subscription_ids: vec![1.try_into().unwrap()], ..Default::default() };
    let message = Publish { properties: Some(properties.into()), ..publish("r/a", QoS::AtMostOnce, 1) };
    relay.handle_remote(Packet::Publish(message), start());
    let passed = Publish { properties: Some(Box::default()), ..publish("l/a", QoS::AtMostOnce, 1) };
    assert_eq!(actions(&mut relay), [local(Packet::Publish(passed))]);
}

#[test]
fn filters_go_in_packets_that_every_broker_takes() {
    let topics = topics();
    let one = topics.subscriptions(Way::In, RetainHandling::Send).remove(0);
    let many = vec![one.clone(); FILTERS + 1];
    let mut relay = Relay::new(topics, terms(), id(9), [many, vec![one.clone()]], start());
    let first = remote(subscribe(id(9), vec![one.clone(); FILTERS]));
    assert_eq!(actions(&mut relay), [local(subscribe(id(9), vec![one.clone()])), first]);
    let suback = |reasons| Packet::SubAck(SubAck { packet_id: id(9), reasons, properties: None });
    relay.handle_remote(suback(vec![ReasonCode::Success; FILTERS]), start());
    assert_eq!(actions(&mut relay), [remote(subscribe(id(9), vec![one.clone()]))]);
    relay.handle_remote(suback(vec![ReasonCode::NotAuthorized]), start());
    assert_eq!(actions(&mut relay), [Action::Refused(one, ReasonCode::NotAuthorized), Action::Subscribed]);
    relay.handle_remote(suback(vec![ReasonCode::Success]), start());
    assert_eq!(actions(&mut relay), [Action::End(Ended::OutOfTurn(codec::PacketType::SubAck))]);
}

#[test]
fn silence_ends_it() {
    let mut relay = relay(terms());
    let begun = start();
    let due = relay.poll_timeout().unwrap();
    assert!(due <= begun + KEEP_ALIVE);
    relay.handle_timeout(due);
    assert_eq!(actions(&mut relay), [remote(Packet::PingReq)]);
    relay.handle_remote(Packet::PingResp, due);
    assert_eq!(relay.poll_timeout(), Some(due + KEEP_ALIVE));
    relay.handle_timeout(due + KEEP_ALIVE);
    assert_eq!(relay.poll_timeout(), Some(due + 2 * KEEP_ALIVE));
    relay.handle_timeout(due + 2 * KEEP_ALIVE);
    assert_eq!(actions(&mut relay), [remote(Packet::PingReq), Action::End(Ended::Silent)]);
    assert_eq!(relay.poll_timeout(), None);
}

#[test]
fn whoever_closes_is_named_once() {
    let goodbye = || Packet::Disconnect(Disconnect { reason: ReasonCode::SessionTakenOver, properties: None });
    let mut relay = relay(terms());
    relay.handle_remote(goodbye(), start());
    relay.handle_local(goodbye(), start());
    assert_eq!(actions(&mut relay), [Action::End(Ended::Remote(ReasonCode::SessionTakenOver.name()))]);
    let mut full = self::relay(terms());
    full.handle_local(Packet::PubAck(Ack { reason: ReasonCode::QuotaExceeded, ..plain(id(1)) }), start());
    assert_eq!(actions(&mut full), [Action::End(Ended::NoRoom)], "it is to come again");
    let mut odd = self::relay(terms());
    odd.handle_remote(Packet::PingReq, start());
    assert_eq!(actions(&mut odd), [Action::End(Ended::OutOfTurn(codec::PacketType::PingReq))]);
}
