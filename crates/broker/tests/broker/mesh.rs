//! Two brokers.

use evermq_mqtt::packet::{Connect, SubscriptionOptions};
use evermq_mqtt::{Packet, Publish, QoS, ReasonCode};

use crate::client::{Client, id, message, resume, will};
use crate::running::{Running, Site, start_two, two};
use crate::tls;

#[test]
fn a_message_reaches_both_brokers_once() {
    let (_site, brokers) = start_two();
    let mut subscribers = [brokers[0].client("s0"), brokers[1].client("s1")];
    for subscriber in &mut subscribers {
        subscriber.subscribe_at("t/#", QoS::ExactlyOnce);
    }
    for (index, broker) in brokers.iter().enumerate() {
        let mut publisher = broker.client("p");
        for (number, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
            publisher.publish(message("t/x", &format!("{index} {number}")), qos);
        }
        for subscriber in &mut subscribers {
            let got: Vec<_> = (0..3).map(|_| subscriber.message().1).collect();
            assert_eq!(got, (0..3).map(|number| format!("{index} {number}")).collect::<Vec<_>>());
        }
    }
    for subscriber in &mut subscribers {
        subscriber.expect_nothing();
    }
    for broker in &brokers {
        let state = broker.state();
        assert_eq!(state["messages"]["from_clients"], 3);
        assert_eq!(state["messages"]["from_peers"], 3, "and none came back");
    }
}

#[test]
fn retained_messages_are_the_same_everywhere() {
    let (_site, brokers) = start_two();
    let retained = |payload| Publish { retain: true, ..message("r", payload) };
    brokers[0].client("p").publish(retained("first"), QoS::AtLeastOnce);
    brokers[1].wait_for("the retained message", |state| state["retained"] == 1);
    brokers[1].client("p").publish(retained("second"), QoS::AtLeastOnce);
    brokers[0].wait_for("the second message", |state| state["messages"]["from_peers"] == 1);
    for broker in &brokers {
        let mut subscriber = broker.client("s");
        subscriber.subscribe_at("r", QoS::AtLeastOnce);
        let got = subscriber.receive_message();
        assert!(got.retain);
        assert_eq!(got.payload, "second");
    }
}

/// The durable session `s` of a subscriber to `t/#`.
fn subscriber(broker: &Running) -> Client {
    let mut connect = resume("s");
    connect.properties.session_expiry = Some(3000);
    let (mut client, connack) = Client::open(broker.plain, connect);
    if !connack.session_present {
        client.subscribe_at("t/#", QoS::AtLeastOnce);
    }
    client
}

fn publish(broker: &Running, payloads: std::ops::Range<u32>) {
    let mut publisher = broker.client("p");
    for number in payloads {
        let qos = if number % 2 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        publisher.publish(message("t/1", &number.to_string()), qos);
    }
}

fn expect(subscriber: &mut Client, payloads: std::ops::Range<u32>) {
    let got: Vec<_> = payloads.clone().map(|_| subscriber.message().1).collect();
    assert_eq!(got, payloads.map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_a_peer_has_not_got_is_there_after_a_restart() {
    let site = Site::new();
    let [here, there] = two(&site, |_| {});
    let start = || (Running::start(&here), Running::start(&there));
    let (first, second) = start();
    first.wait_for_peer();
    let mut client = subscriber(&second);
    publish(&first, 0..3);
    expect(&mut client, 0..3);
    client.expect_nothing();
    client.vanish();
    let epoch =
        first.wait_for("acknowledgements", |state| state["bridge"]["peers"][0]["lag"] == 0)["bridge"]["epoch"].as_u64();
    second.stop().unwrap();

    publish(&first, 3..8);
    let mut nobody = first.client("q");
    nobody.publish(message("t/1", "lost with the process"), QoS::AtMostOnce);
    nobody.publish(Publish { retain: true, ..message("r", "kept") }, QoS::AtMostOnce);
    publish(&first, 8..9);
    let waiting = first.wait_for("the last message", |state| state["bridge"]["log_messages"] == 8);
    assert!(waiting["bridge"]["log_oldest_seconds"].as_f64().unwrap() > 0.0);
    first.stop().unwrap();
    for _ in 0..2 {
        // However often it starts.
        let first = Running::start(&here);
        let state = first.state();
        assert_eq!((&state["bridge"]["log_messages"], state["bridge"]["epoch"].as_u64()), (&7.into(), epoch));
        first.stop().unwrap();
    }
    let (first, second) = start();
    first.wait_for_peer();
    publish(&first, 9..10);
    let mut client = subscriber(&second);
    expect(&mut client, 3..10);
    client.subscribe_at("r", QoS::AtLeastOnce);
    assert_eq!(client.message(), ("r".to_owned(), "kept".to_owned()));
    client.expect_nothing();
    let peer =
        &first.wait_for("acknowledgements", |state| state["bridge"]["peers"][0]["lag"] == 0)["bridge"]["peers"][0];
    assert_eq!((&peer["lost"], &peer["gaps"]), (&0.into(), &0.into()), "{peer}");
    second.stop().unwrap();

    // Nothing comes twice to a broker that starts again.
    let second = Running::start(&there);
    first.wait_for_peer();
    publish(&first, 10..11);
    let mut client = subscriber(&second);
    expect(&mut client, 10..11);
    assert_eq!(second.state()["bridge"]["peers"][0]["duplicates"], 0);
}

#[test]
fn a_peer_that_is_away_for_too_long_is_told_what_it_misses() {
    let site = Site::new();
    let [here, there] = two(&site, |broker| broker.peer_queue_messages = 10);
    let (first, second) = (Running::start(&here), Running::start(&there));
    first.wait_for_peer();
    subscriber(&second).vanish();
    second.stop().unwrap();
    publish(&first, 0..30);
    first.client("q").publish(Publish { retain: true, ..message("r", "kept") }, QoS::AtLeastOnce);
    publish(&first, 30..40);
    first.wait_for("the alarm", |state| state["bridge"]["peers"][0]["is_losing"] == true);
    first.stop().unwrap();

    let (first, second) = (Running::start(&here), Running::start(&there));
    first.wait_for_peer();
    let mut client = subscriber(&second);
    expect(&mut client, 30..40);
    client.subscribe_at("r", QoS::AtLeastOnce);
    assert_eq!(client.message(), ("r".to_owned(), "kept".to_owned()), "as it is without the message that told of it");
    let lost = |state: &serde_json::Value, key| state["bridge"]["peers"][0][key].as_u64().unwrap();
    let told = first.wait_for("the gap", |state| lost(state, "gaps") == 1);
    assert_eq!((lost(&told, "lost"), &told["bridge"]["peers"][0]["is_losing"]), (31, &false.into()));
    assert_eq!(lost(&second.state(), "missed"), 31);
}

#[test]
fn a_message_of_qos_2_does_not_wait_for_the_next_one() {
    let (_site, brokers) = start_two();
    let mut subscribers = [brokers[0].client("s0"), brokers[1].client("s1")];
    for subscriber in &mut subscribers {
        subscriber.subscribe_at("t/#", QoS::ExactlyOnce);
    }
    // Of a session that outlives its connection, so that it is complete a moment after it was delivered.
    let mut connect = resume("p");
    connect.properties.session_expiry = Some(3000);
    let mut publisher = Client::open(brokers[0].plain, connect).0;
    publisher.publish(message("t/x", "alone"), QoS::ExactlyOnce);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.message().1, "alone");
    }
}

#[test]
fn a_broker_that_stays_away_is_said_until_it_is_back() {
    let site = Site::new();
    let [one, two] = two(&site, |_| {});
    let broker = Running::start(&one);
    let says =
        |state: &serde_json::Value, start: &str| state["trouble"].as_str().is_some_and(|text| text.starts_with(start));
    let state = broker.wait_for("an alarm", |state| says(state, "broker2 "));
    assert!(says(&state, "broker2 is away for 1"), "{state:#}");
    let _other = Running::start(&two);
    broker.wait_for("no alarm", |state| state["trouble"].is_null());
}

/// A client with a session at both brokers that has subscribed to `t/#` without its own messages.
fn without_its_own(broker: &Running, connect: Connect) -> (Client, bool) {
    let (mut client, connack) = Client::open(broker.plain, connect);
    if !connack.session_present {
        let options = SubscriptionOptions { no_local: true, qos: QoS::ExactlyOnce, ..SubscriptionOptions::default() };
        client.subscribe("t/#", options);
    }
    (client, connack.session_present)
}

#[test]
fn a_client_s_own_messages_do_not_come_from_another_broker() {
    let (_site, brokers) = start_two();
    let (mut other, _) = without_its_own(&brokers[1], resume("other"));
    without_its_own(&brokers[1], resume("c")).0.vanish();
    let (mut here, present) = without_its_own(&brokers[0], resume("c"));
    assert!(!present, "it has a session at each broker");
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for (number, qos) in all.into_iter().enumerate() {
        here.publish(message("t/1", &format!("its own {number}")), qos);
    }
    // Several that come at once, which are routed together.
    for number in 0..20 {
        here.send(&Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id(100 + number)),
            ..message("t/1", "of a run")
        }));
    }
    for _ in 0..20 {
        assert!(matches!(here.receive(), Packet::PubAck(_)));
    }
    brokers[0].client("p").publish(message("t/1", "somebody else's"), QoS::AtLeastOnce);
    assert_eq!(here.message().1, "somebody else's");

    let (mut there, present) = without_its_own(&brokers[1], resume("c"));
    assert!(present);
    assert_eq!(there.message().1, "somebody else's");
    there.expect_nothing();
    let all = other.drain_at_least(24);
    assert_eq!(all.iter().filter(|payload| payload.starts_with("its own")).count(), 3);
    assert_eq!((all.len(), all[23].as_str()), (24, "somebody else's"));
}

#[test]
fn nor_does_its_will() {
    let (_site, brokers) = start_two();
    let dying = Connect { will: Some(will("t/will", 0)), ..resume("c") };
    let (mut here, _) = without_its_own(&brokers[0], dying);
    let mut watcher = brokers[1].client("watcher");
    watcher.subscribe_at("t/#", QoS::AtLeastOnce);
    let (mut there, _) = without_its_own(&brokers[1], resume("c"));
    here.expect_disconnect(ReasonCode::SessionTakenOver);
    assert_eq!(watcher.message(), ("t/will".to_owned(), "gone".to_owned()));
    there.expect_nothing();
}

#[test]
fn whose_they_are_outlives_a_restart() {
    let site = Site::new();
    let [here, there] = two(&site, |_| {});
    let (first, second) = (Running::start(&here), Running::start(&there));
    first.wait_for_peer();
    without_its_own(&second, resume("c")).0.vanish();
    second.stop().unwrap();
    let (mut client, _) = without_its_own(&first, resume("c"));
    client.publish(message("t/1", "its own"), QoS::AtLeastOnce);
    client.publish(Publish { retain: true, ..message("t/1", "its own, retained") }, QoS::ExactlyOnce);
    first.client("p").publish(message("t/1", "somebody else's"), QoS::AtLeastOnce);
    client.vanish();
    first.stop().unwrap();

    let (first, second) = (Running::start(&here), Running::start(&there));
    first.wait_for_peer();
    let (mut client, present) = without_its_own(&second, resume("c"));
    assert!(present);
    assert_eq!(client.message().1, "somebody else's");
    client.expect_nothing();
}

/// Only a connection of the same user is the same client.
#[test]
fn another_user_s_client_of_the_same_name_is_another_client() {
    let (site, brokers) = start_two();
    let certified = |broker: &Running, device: &str| {
        Client::over(tls::connect(broker.tls, &site.ca.issue(device, 1)), resume("c")).0
    };
    let mut here = certified(&brokers[0], "device-1");
    let options = SubscriptionOptions { no_local: true, qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    here.subscribe("t/#", options);
    let mut there = certified(&brokers[1], "device-2");
    there.publish(message("t/1", "of another user"), QoS::AtLeastOnce);
    assert_eq!(here.message().1, "of another user");
}
