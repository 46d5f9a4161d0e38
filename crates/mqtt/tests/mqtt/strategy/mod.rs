//! Arbitrary packets that MQTT 5.0 allows, in the form that decode returns: no property section that is there and empty.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use evermq_mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions,
    UnsubAck, Unsubscribe, Will,
};
use evermq_mqtt::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    SubscribeProperties, UserProperties, WillProperties,
};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        connect().prop_map(|connect| Packet::Connect(Box::new(connect))),
        connack().prop_map(|connack| Packet::ConnAck(Box::new(connack))),
        publish().prop_map(Packet::Publish),
        ack(RECEIVED).prop_map(Packet::PubAck),
        ack(RECEIVED).prop_map(Packet::PubRec),
        ack(RELEASED).prop_map(Packet::PubRel),
        ack(RELEASED).prop_map(Packet::PubComp),
        subscribe().prop_map(Packet::Subscribe),
        suback().prop_map(Packet::SubAck),
        unsubscribe().prop_map(Packet::Unsubscribe),
        unsuback().prop_map(Packet::UnsubAck),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        disconnect().prop_map(Packet::Disconnect),
        auth().prop_map(Packet::Auth),
    ]
}

/// Codes by the standard's tables, written here a second time and as numbers.
const RECEIVED: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const RELEASED: &[u8] = &[0x00, 0x92];
const CONNACK: &[u8] = &[
    0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C,
    0x9D, 0x9F,
];
const SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const DISCONNECT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

fn reason(codes: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    select(codes).prop_map(|code| ReasonCode::from_u8(code).expect("a code of the standard"))
}

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::new(text_of(name)).expect("a topic name")
}

fn text_of(string: &str) -> Text {
    Text::new(string).expect("a string without U+0000")
}

fn string(max: usize, without: &'static [char]) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..max)
        .prop_map(move |chars| chars.into_iter().filter(|c| *c != '\0' && !without.contains(c)).collect())
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        8 => string(12, &[]).prop_map(|string| text_of(&string)),
        // Longer than one byte of a property length, and than two.
        1 => (100_usize..300).prop_map(|len| text_of(&"é".repeat(len))),
        1 => Just(text_of(&"x".repeat(65_535))),
    ]
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn topic_name() -> impl Strategy<Value = TopicName> {
    string(20, &['+', '#']).prop_map(|name| topic(if name.is_empty() { "/" } else { &name }))
}

fn topic_filter() -> impl Strategy<Value = TopicFilter> {
    let level = prop_oneof![3 => string(5, &['+', '#', '/']), 1 => Just("+".to_owned())];
    let share = of(string(4, &['+', '#', '/']).prop_map(|group| format!("$share/g{group}/")));
    (share, vec(level, 1..5), any::<bool>()).prop_map(|(share, levels, multi)| {
        let tail = if multi { "/#" } else { "/x" };
        let filter = format!("{}{}{tail}", share.unwrap_or_default(), levels.join("/"));
        TopicFilter::new(text_of(&filter)).expect("a topic filter")
    })
}

pub(crate) fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>().prop_map(PacketId)
}

pub(crate) fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

fn pairs() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..3)
}

fn subscription_id() -> impl Strategy<Value = NonZeroU32> {
    prop_oneof![1..=127_u32, 128..=16_383_u32, 16_384..=268_435_455_u32].prop_map(|id| id.try_into().expect("above 0"))
}

fn positive_u16() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

fn positive_u32() -> impl Strategy<Value = u32> {
    1..=u32::MAX
}

prop_compose! {
    fn connect_properties()(
        session_expiry in any::<Option<u32>>(),
        receive_maximum in of(positive_u16()),
        maximum_packet_size in of(positive_u32()),
        topic_alias_maximum in any::<Option<u16>>(),
        request_response_information in any::<Option<bool>>(),
        request_problem_information in any::<Option<bool>>(),
        user_properties in pairs(),
        authentication in of((text(), of(bytes()))),
    ) -> ConnectProperties {
        let (authentication_method, authentication_data) = authentication.unzip();
        ConnectProperties {
            session_expiry, receive_maximum, maximum_packet_size, topic_alias_maximum, request_response_information,
            request_problem_information, user_properties, authentication_method,
            authentication_data: authentication_data.flatten(),
        }
    }
}

prop_compose! {
    /// What a will can carry too.
    fn shared_publish_properties()(
        payload_is_utf8 in any::<Option<bool>>(),
        message_expiry in any::<Option<u32>>(),
        response_topic in of(topic_name()),
        correlation_data in of(bytes()),
        user_properties in pairs(),
        content_type in of(text()),
    ) -> PublishProperties {
        PublishProperties {
            payload_is_utf8, message_expiry, response_topic: response_topic.map(|name| name.text().clone()),
            correlation_data, user_properties, content_type, ..PublishProperties::default()
        }
    }
}

prop_compose! {
    fn will()(
        topic in topic_name(),
        payload in bytes(),
        qos in qos(),
        retain: bool,
        delay in any::<Option<u32>>(),
        publish in shared_publish_properties(),
    ) -> Will {
        Will { topic, payload, qos, retain, properties: WillProperties { delay, publish } }
    }
}

prop_compose! {
    fn connect()(
        clean_start: bool,
        keep_alive: u16,
        client_id in text(),
        will in of(will()),
        username in of(text()),
        password in of(bytes()),
        properties in connect_properties(),
    ) -> Connect {
        Connect { version: Version::V5, clean_start, keep_alive, client_id, will, username, password, properties, is_bridge: false }
    }
}

prop_compose! {
    fn connack_limits()(
        session_expiry in any::<Option<u32>>(),
        receive_maximum in of(positive_u16()),
        maximum_qos in of(select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..])),
        retain_available in any::<Option<bool>>(),
        maximum_packet_size in of(positive_u32()),
        topic_alias_maximum in any::<Option<u16>>(),
        wildcard_subscription_available in any::<Option<bool>>(),
        subscription_identifiers_available in any::<Option<bool>>(),
        shared_subscription_available in any::<Option<bool>>(),
        server_keep_alive in any::<Option<u16>>(),
    ) -> ConnAckProperties {
        ConnAckProperties {
            session_expiry, receive_maximum, maximum_qos, retain_available, maximum_packet_size, topic_alias_maximum,
            wildcard_subscription_available, subscription_identifiers_available, shared_subscription_available,
            server_keep_alive, ..ConnAckProperties::default()
        }
    }
}

prop_compose! {
    fn connack()(
        session_present: bool,
        error in of(reason(CONNACK)),
        limits in connack_limits(),
        assigned_client_id in of(text()),
        reason_string in of(text()),
        user_properties in pairs(),
        response_information in of(text()),
        server_reference in of(text()),
        authentication_method in of(text()),
        authentication_data in of(bytes()),
    ) -> ConnAck {
        ConnAck {
            session_present: session_present && error.is_none(),
            reason: error.unwrap_or(ReasonCode::Success),
            properties: ConnAckProperties {
                assigned_client_id, reason_string, user_properties, response_information, server_reference,
                authentication_method, authentication_data, ..limits
            },
        }
    }
}

prop_compose! {
    pub(crate) fn publish()(
        dup: bool,
        qos in qos(),
        retain: bool,
        topic in topic_name(),
        id in packet_id(),
        topic_alias in of(positive_u16()),
        subscription_ids in vec(subscription_id(), 0..3),
        shared in shared_publish_properties(),
        payload in bytes(),
    ) -> Publish {
        let is_acknowledged = qos != QoS::AtMostOnce;
        let properties = PublishProperties { topic_alias, subscription_ids, ..shared };
        Publish {
            dup: dup && is_acknowledged,
            qos,
            retain,
            topic,
            packet_id: is_acknowledged.then_some(id),
            properties: (properties != PublishProperties::default()).then(|| Box::new(properties)),
            payload,
        }
    }
}

prop_compose! {
    fn ack_properties()(reason_string in of(text()), user_properties in pairs()) -> Option<Box<AckProperties>> {
        let properties = AckProperties { reason_string, user_properties };
        (properties != AckProperties::default()).then(|| Box::new(properties))
    }
}

prop_compose! {
    fn ack(codes: &'static [u8])(
        packet_id in packet_id(), reason in reason(codes), properties in ack_properties(),
    ) -> Ack {
        Ack { packet_id, reason, properties }
    }
}

prop_compose! {
    fn options()(
        qos in qos(),
        no_local: bool,
        retain_as_published: bool,
        retain_handling in select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]),
    ) -> SubscriptionOptions {
        SubscriptionOptions { qos, no_local, retain_as_published, retain_handling }
    }
}

prop_compose! {
    fn subscribe_filter()(filter in topic_filter(), options in options()) -> SubscribeFilter {
        let no_local = options.no_local && filter.share().is_none();
        SubscribeFilter { filter, options: SubscriptionOptions { no_local, ..options } }
    }
}

prop_compose! {
    fn subscribe()(
        packet_id in packet_id(),
        filters in vec(subscribe_filter(), 1..4),
        subscription_id in of(subscription_id()),
        user_properties in pairs(),
    ) -> Subscribe {
        Subscribe { packet_id, filters, properties: SubscribeProperties { subscription_id, user_properties } }
    }
}

prop_compose! {
    fn suback()(
        packet_id in packet_id(), reasons in vec(reason(SUBACK), 1..5), properties in ack_properties(),
    ) -> SubAck {
        SubAck { packet_id, reasons, properties }
    }
}

prop_compose! {
    fn unsubscribe()(
        packet_id in packet_id(), filters in vec(topic_filter(), 1..4), user_properties in pairs(),
    ) -> Unsubscribe {
        Unsubscribe { packet_id, filters, user_properties }
    }
}

prop_compose! {
    fn unsuback()(
        packet_id in packet_id(), reasons in vec(reason(UNSUBACK), 1..5), properties in ack_properties(),
    ) -> UnsubAck {
        UnsubAck { packet_id, reasons, properties }
    }
}

prop_compose! {
    fn disconnect()(
        reason in reason(DISCONNECT),
        session_expiry in any::<Option<u32>>(),
        reason_string in of(text()),
        user_properties in pairs(),
        server_reference in of(text()),
    ) -> Disconnect {
        let properties = DisconnectProperties { session_expiry, reason_string, user_properties, server_reference };
        Disconnect { reason, properties: (properties != DisconnectProperties::default()).then(|| Box::new(properties)) }
    }
}

prop_compose! {
    fn auth()(
        bare in prop::bool::weighted(0.1),
        reason in reason(&[0x00, 0x18, 0x19]),
        method in text(),
        authentication_data in of(bytes()),
        reason_string in of(text()),
        user_properties in pairs(),
    ) -> Auth {
        if bare {
            return Auth { reason: ReasonCode::Success, properties: AuthProperties::default() };
        }
        let authentication_method = Some(method);
        Auth { reason, properties: AuthProperties { authentication_method, authentication_data, reason_string, user_properties } }
    }
}
