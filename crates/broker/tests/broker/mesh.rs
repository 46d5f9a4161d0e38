//! Two brokers.

use evermq_mqtt::{Publish, QoS};

use crate::client::message;
use crate::running::start_two;

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
