//! One packet of each kind with all that it can carry, and a plain one, for both versions. `tests/bench/codec` gives the same list to the
//! other codecs, whose bytes are the vectors.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use evermq_mqtt::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscriptionOptions,
    UnsubAck, Unsubscribe, Will,
};
use evermq_mqtt::properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties, PublishProperties,
    SubscribeProperties, WillProperties,
};
use evermq_mqtt::{Packet, PacketId, Publish, QoS, ReasonCode, Text, TopicFilter, TopicName, Version};

/// Name, version, packet.
pub(crate) type Named = (&'static str, Version, Packet);

/// The list.
pub(crate) fn packets() -> Vec<Named> {
    let mut all = plain(Version::V4);
    all.extend(plain(Version::V5));
    all.extend(full());
    all
}

/// What both versions say.
fn plain(version: Version) -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |name, packet| all.push((name, version, packet));
    let connect = |will, username: Option<&str>, password| {
        Packet::Connect(Box::new(Connect {
            version,
            clean_start: true,
            keep_alive: 60,
            client_id: text("plant-7"),
            will,
            username: username.map(text),
            password,
            properties: ConnectProperties::default(),
            is_bridge: false,
        }))
    };
    add("connect", connect(None, None, None));
    let will = Will {
        topic: topic("plant/7/status"),
        payload: Bytes::from("offline"),
        qos: QoS::AtLeastOnce,
        retain: true,
        properties: WillProperties::default(),
    };
    add("connect-will", connect(Some(will), Some("ü-user"), Some(Bytes::from_static(b"\x00\xffsecret"))));
    let connack = |session_present, reason| {
        Packet::ConnAck(Box::new(ConnAck { session_present, reason, properties: ConnAckProperties::default() }))
    };
    add("connack", connack(true, ReasonCode::Success));
    add("connack-refused", connack(false, ReasonCode::NotAuthorized));
    add("publish-0", publish(QoS::AtMostOnce, false, None, None));
    add("publish-1", publish(QoS::AtLeastOnce, true, Some(1), None));
    add("publish-2", publish(QoS::ExactlyOnce, false, Some(65_535), None));
    add("puback", Packet::PubAck(ack(ReasonCode::Success, false)));
    add("pubrec", Packet::PubRec(ack(ReasonCode::Success, false)));
    add("pubrel", Packet::PubRel(ack(ReasonCode::Success, false)));
    add("pubcomp", Packet::PubComp(ack(ReasonCode::Success, false)));
    let filters = [("plant/+/#", QoS::ExactlyOnce), ("$SYS/broker/uptime", QoS::AtMostOnce)];
    let filters = filters.map(|(name, qos)| SubscribeFilter {
        filter: filter(name),
        options: SubscriptionOptions { qos, ..SubscriptionOptions::default() },
    });
    let properties = SubscribeProperties::default();
    add("subscribe", Packet::Subscribe(Subscribe { packet_id: id(2), filters: filters.to_vec(), properties }));
    let reasons = vec![ReasonCode::GrantedQoS2, ReasonCode::Success, ReasonCode::UnspecifiedError];
    add("suback", Packet::SubAck(SubAck { packet_id: id(2), reasons, properties: None }));
    let filters = vec![filter("plant/+/#"), filter("/")];
    add("unsubscribe", Packet::Unsubscribe(Unsubscribe { packet_id: id(3), filters, user_properties: Vec::new() }));
    let reasons = if version == Version::V5 { vec![ReasonCode::Success] } else { Vec::new() };
    add("unsuback", Packet::UnsubAck(UnsubAck { packet_id: id(3), reasons, properties: None }));
    add("pingreq", Packet::PingReq);
    add("pingresp", Packet::PingResp);
    add("disconnect", Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: None }));
    all
}

/// What only MQTT 5.0 says, all properties at once.
#[expect(clippy::too_many_lines, reason = "one packet after the other")]
fn full() -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |name, packet| all.push((name, Version::V5, packet));
    let properties = ConnectProperties {
        session_expiry: Some(u32::MAX),
        receive_maximum: Some(100),
        maximum_packet_size: Some(1_048_576),
        topic_alias_maximum: Some(10),
        request_response_information: Some(true),
        request_problem_information: Some(false),
        user_properties: pairs(),
        authentication_method: Some(text("SCRAM-SHA-256")),
        authentication_data: Some(Bytes::from_static(b"\x00\x01\xfe\xff")),
    };
    let will = Will {
        topic: topic("plant/7/status"),
        payload: Bytes::from("offline"),
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: WillProperties { delay: Some(30), publish: message() },
    };
    add(
        "connect-full",
        Packet::Connect(Box::new(Connect {
            version: Version::V5,
            clean_start: false,
            keep_alive: u16::MAX,
            client_id: text("plant-7"),
            will: Some(will),
            username: Some(text("user")),
            password: Some(Bytes::from("secret")),
            properties,
            is_bridge: false,
        })),
    );
    let properties = ConnAckProperties {
        session_expiry: Some(3600),
        receive_maximum: Some(100),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(1_048_576),
        assigned_client_id: Some(text("auto-1")),
        topic_alias_maximum: Some(10),
        reason_string: Some(text("välkommen")),
        user_properties: pairs(),
        wildcard_subscription_available: Some(false),
        subscription_identifiers_available: Some(false),
        shared_subscription_available: Some(false),
        server_keep_alive: Some(30),
        response_information: Some(text("answers/7")),
        server_reference: Some(text("broker2:8883")),
        authentication_method: Some(text("SCRAM-SHA-256")),
        authentication_data: Some(Bytes::from_static(b"\x00\x01")),
    };
    let connack = ConnAck { session_present: false, reason: ReasonCode::Success, properties };
    add("connack-full", Packet::ConnAck(Box::new(connack)));
    let properties = PublishProperties { topic_alias: Some(7), ..message() };
    add("publish-full", publish(QoS::AtLeastOnce, true, Some(1), Some(properties)));
    let ids = [1, 127, 128, 268_435_455].map(|id| NonZeroU32::new(id).expect("above 0"));
    let properties = PublishProperties { subscription_ids: ids.to_vec(), ..PublishProperties::default() };
    add("publish-subscription-ids", publish(QoS::AtMostOnce, false, None, Some(properties)));
    add("puback-full", Packet::PubAck(ack(ReasonCode::QuotaExceeded, true)));
    add("pubrec-full", Packet::PubRec(ack(ReasonCode::NoMatchingSubscribers, true)));
    add("pubrel-full", Packet::PubRel(ack(ReasonCode::PacketIdentifierNotFound, true)));
    add("pubcomp-full", Packet::PubComp(ack(ReasonCode::PacketIdentifierNotFound, true)));
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let share = SubscriptionOptions { no_local: false, retain_handling: RetainHandling::SendIfNew, ..options };
    let filters = vec![
        SubscribeFilter { filter: filter("plant/+/#"), options },
        SubscribeFilter { filter: filter("$share/workers/plant/#"), options: share },
    ];
    let properties = SubscribeProperties { subscription_id: NonZeroU32::new(300), user_properties: pairs() };
    add("subscribe-full", Packet::Subscribe(Subscribe { packet_id: id(2), filters, properties }));
    let reasons = vec![ReasonCode::GrantedQoS1, ReasonCode::NotAuthorized, ReasonCode::TopicFilterInvalid];
    add("suback-full", Packet::SubAck(SubAck { packet_id: id(2), reasons, properties: said() }));
    let unsubscribe = Unsubscribe { packet_id: id(3), filters: vec![filter("#")], user_properties: pairs() };
    add("unsubscribe-full", Packet::Unsubscribe(unsubscribe));
    let reasons = vec![ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    add("unsuback-full", Packet::UnsubAck(UnsubAck { packet_id: id(3), reasons, properties: said() }));
    let properties = DisconnectProperties {
        session_expiry: Some(60),
        reason_string: Some(text("going down")),
        user_properties: pairs(),
        server_reference: Some(text("broker2:8883")),
    };
    let reason = ReasonCode::UseAnotherServer;
    add("disconnect-full", Packet::Disconnect(Disconnect { reason, properties: Some(Box::new(properties)) }));
    let properties = AuthProperties {
        authentication_method: Some(text("SCRAM-SHA-256")),
        authentication_data: Some(Bytes::from_static(b"\x00\x01")),
        reason_string: Some(text("more")),
        user_properties: pairs(),
    };
    add("auth-full", Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties }));
    all
}

fn publish(qos: QoS, retain: bool, packet_id: Option<u16>, properties: Option<PublishProperties>) -> Packet {
    Packet::Publish(Publish {
        dup: packet_id == Some(65_535),
        qos,
        retain,
        topic: topic("plant/7/température"),
        packet_id: packet_id.map(id),
        properties: properties.map(Box::new),
        payload: Bytes::from("21.5"),
    })
}

fn message() -> PublishProperties {
    PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry: Some(3600),
        response_topic: Some(text("answers/7")),
        correlation_data: Some(Bytes::from_static(b"\x00\x01\xfe\xff")),
        user_properties: pairs(),
        content_type: Some(text("text/plain")),
        ..PublishProperties::default()
    }
}

fn ack(reason: ReasonCode, full: bool) -> Ack {
    Ack { packet_id: id(0x1234), reason, properties: if full { said() } else { None } }
}

fn said() -> Option<Box<AckProperties>> {
    Some(Box::new(AckProperties { reason_string: Some(text("so it is")), user_properties: pairs() }))
}

/// One name twice: the order counts.
fn pairs() -> Vec<(Text, Text)> {
    vec![(text("k"), text("1")), (text("k"), text("2")), (text(""), text("é"))]
}

fn id(number: u16) -> PacketId {
    PacketId(NonZeroU16::new(number).expect("above 0"))
}

fn text(text: &str) -> Text {
    Text::new(text).expect("a string without U+0000")
}

fn topic(name: &str) -> TopicName {
    TopicName::new(text(name)).expect("a topic name")
}

fn filter(filter: &str) -> TopicFilter {
    TopicFilter::new(text(filter)).expect("a topic filter")
}
