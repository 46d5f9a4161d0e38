//! SUBSCRIBE and UNSUBSCRIBE.

use std::num::NonZeroU32;

use evermq_mqtt::TopicFilter;
use evermq_mqtt::packet::{
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions, UnsubAck, Unsubscribe,
};
use evermq_mqtt::properties::SubscribeProperties;

use super::*;
use crate::session::{Subscription, Wanted};

fn filter(filter: &str) -> TopicFilter {
    TopicFilter::new(text(filter)).unwrap()
}

fn subscribe(filters: &[(&str, SubscriptionOptions)]) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id: id(5),
        filters: filters
            .iter()
            .map(|(name, options)| SubscribeFilter { filter: filter(name), options: *options })
            .collect(),
        properties: SubscribeProperties { subscription_id: NonZeroU32::new(9), ..SubscribeProperties::default() },
    })
}

fn suback(reasons: &[ReasonCode]) -> Action {
    Action::Send(Packet::SubAck(SubAck { packet_id: id(5), reasons: reasons.to_vec(), properties: None }))
}

fn entered(name: &str, options: SubscriptionOptions, retained: bool) -> Action {
    let subscription = Subscription { options, id: NonZeroU32::new(9) };
    Action::Subscribe(Wanted { filter: filter(name), subscription, retained })
}

fn at(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

#[test]
fn each_filter_gets_its_reason_code() {
    let mut client = Client::connected(connect());
    let actions = client.packet(subscribe(&[
        ("a", at(QoS::AtMostOnce)),
        ("$share/group/a", at(QoS::AtLeastOnce)),
        ("1/2/3/4/5", at(QoS::AtLeastOnce)),
        ("b/+", at(QoS::AtLeastOnce)),
        ("#", at(QoS::ExactlyOnce)),
        ("one/too/many", at(QoS::AtMostOnce)),
        ("a", at(QoS::ExactlyOnce)),
    ]));
    assert_eq!(
        actions,
        [
            suback(&[
                ReasonCode::Success,
                ReasonCode::GrantedQoS1,
                ReasonCode::TopicFilterInvalid,
                ReasonCode::GrantedQoS1,
                ReasonCode::QuotaExceeded,
                ReasonCode::QuotaExceeded,
                ReasonCode::GrantedQoS2,
            ]),
            entered("a", at(QoS::AtMostOnce), true),
            // §4.8.2: nothing retained for a shared subscription.
            entered("$share/group/a", at(QoS::AtLeastOnce), false),
            entered("b/+", at(QoS::AtLeastOnce), true),
            entered("a", at(QoS::ExactlyOnce), true),
        ]
    );
}

#[test]
fn retain_handling() {
    for (handling, first, second) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::SendIfNew, true, false),
        (RetainHandling::DoNotSend, false, false),
    ] {
        let options = SubscriptionOptions { retain_handling: handling, ..at(QoS::AtMostOnce) };
        let mut client = Client::connected(connect());
        for expected in [first, second] {
            let actions = client.packet(subscribe(&[("a", options)]));
            assert_eq!(actions[1], entered("a", options, expected), "{handling:?}");
        }
    }
}

#[test]
fn unsubscribe_says_what_was_there() {
    let mut client = Client::connected(connect());
    client.packet(subscribe(&[("a", at(QoS::AtMostOnce))]));
    let unsubscribe = Packet::Unsubscribe(Unsubscribe {
        packet_id: id(6),
        filters: vec![filter("b"), filter("a")],
        user_properties: Vec::new(),
    });
    let unsuback = |reasons: &[ReasonCode]| {
        Action::Send(Packet::UnsubAck(UnsubAck { packet_id: id(6), reasons: reasons.to_vec(), properties: None }))
    };
    assert_eq!(
        client.packet(unsubscribe.clone()),
        [Action::Unsubscribe(filter("a")), unsuback(&[ReasonCode::NoSubscriptionExisted, ReasonCode::Success])]
    );
    assert_eq!(
        client.packet(unsubscribe),
        [unsuback(&[ReasonCode::NoSubscriptionExisted, ReasonCode::NoSubscriptionExisted])]
    );
}

#[test]
fn the_session_s_end_names_its_subscriptions() {
    let mut client = Client::connected(Connect { properties: ConnectProperties::default(), ..connect() });
    client.packet(subscribe(&[("b", at(QoS::AtMostOnce)), ("a", at(QoS::AtMostOnce))]));
    assert_eq!(client.lose(), [Action::End { filters: vec![filter("a"), filter("b")] }]);
}
