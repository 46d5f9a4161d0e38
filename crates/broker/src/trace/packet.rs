//! One packet as a line of a trace.
//!
//! Topics, identifiers, sizes and reasons; of user properties only how many there are, of AUTH only the method, and a
//! payload only if it is asked for, up to [`MAX_PAYLOAD`] bytes of it.

use std::time::{SystemTime, UNIX_EPOCH};

use evermq_mqtt::packet::{Ack, RetainHandling, Subscribe};
use evermq_mqtt::properties::AckProperties;
use evermq_mqtt::{Packet, Publish, ReasonCode, Text, Version, codec};
use serde_json::{Map, Value, json};

use crate::session::Transmit;

/// Bytes of a payload that are shown.
pub const MAX_PAYLOAD: usize = 1024;

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    In,
    /// To the client.
    Out,
}

/// What happened to the client's connection.
#[must_use]
pub fn event(what: &str, mut more: Value) -> Value {
    more["at_ms"] = wall_millis().into();
    more["event"] = what.into();
    more
}

/// A packet.
#[must_use]
pub fn packet(direction: Direction, packet: &Packet, version: Version, payloads: bool) -> Value {
    let mut line = begun(direction, name(packet), codec::encoded_len(packet, version));
    match packet {
        Packet::Publish(publish) => add_publish(&mut line, publish, payloads),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            add_ack(&mut line, ack);
        }
        Packet::ConnAck(connack) => {
            line["reason"] = reason(connack.reason);
            line["session_present"] = connack.session_present.into();
        }
        Packet::Subscribe(subscribe) => add_subscribe(&mut line, subscribe),
        Packet::SubAck(suback) => {
            line["packet_id"] = suback.packet_id.0.get().into();
            line["reasons"] = suback.reasons.iter().copied().map(reason).collect();
        }
        Packet::Unsubscribe(unsubscribe) => {
            line["packet_id"] = unsubscribe.packet_id.0.get().into();
            line["filters"] = unsubscribe.filters.iter().map(|filter| json!({ "filter": filter.as_str() })).collect();
        }
        Packet::UnsubAck(unsuback) => {
            line["packet_id"] = unsuback.packet_id.0.get().into();
            line["reasons"] = unsuback.reasons.iter().copied().map(reason).collect();
        }
        Packet::Disconnect(disconnect) => {
            line["reason"] = reason(disconnect.reason);
            let text = disconnect.properties.as_ref().and_then(|properties| properties.reason_string.as_ref());
            line["reason_string"] = text.map(Text::as_str).into();
        }
        Packet::Auth(auth) => {
            line["reason"] = reason(auth.reason);
            line["method"] = auth.properties.authentication_method.as_ref().map(Text::as_str).into();
        }
        Packet::Connect(_) | Packet::PingReq | Packet::PingResp => {}
    }
    without_nulls(line)
}

/// A message to the client, or a PUBREL that is sent again.
#[must_use]
pub fn transmit(transmit: &Transmit, version: Version, payloads: bool, now: std::time::Instant) -> Value {
    match transmit {
        Transmit::Publish { delivery, dup, packet_id } => {
            let message = delivery.message.message();
            let mut line = begun(Direction::Out, "PUBLISH", delivery.encoded_len(version, now).unwrap_or(0));
            let publish = Publish {
                dup: *dup,
                qos: delivery.qos,
                retain: delivery.retain,
                packet_id: *packet_id,
                ..message.publish.clone()
            };
            add_publish(&mut line, &publish, payloads);
            if let Some(ids) = &delivery.ids {
                line["subscription_ids"] = ids.iter().map(|id| id.get()).collect();
            }
            without_nulls(line)
        }
        Transmit::PubRel(packet_id) => {
            let ack = Ack { packet_id: *packet_id, reason: ReasonCode::Success, properties: None };
            packet(Direction::Out, &Packet::PubRel(ack), version, payloads)
        }
    }
}

fn begun(direction: Direction, name: &str, bytes: usize) -> Value {
    let direction = match direction {
        Direction::In => "in",
        Direction::Out => "out",
    };
    json!({ "at_ms": wall_millis(), "direction": direction, "packet": name, "bytes": bytes })
}

fn add_publish(line: &mut Value, publish: &Publish, payloads: bool) {
    line["topic"] = publish.topic.as_str().into();
    line["qos"] = (publish.qos as u8).into();
    line["retain"] = publish.retain.into();
    line["dup"] = publish.dup.into();
    line["packet_id"] = publish.packet_id.map(|id| id.0.get()).into();
    line["payload_bytes"] = publish.payload.len().into();
    if let Some(properties) = &publish.properties {
        line["topic_alias"] = properties.topic_alias.into();
        line["message_expiry"] = properties.message_expiry.into();
        line["content_type"] = properties.content_type.as_ref().map(Text::as_str).into();
        line["response_topic"] = properties.response_topic.as_ref().map(Text::as_str).into();
        line["user_properties"] = Some(properties.user_properties.len()).filter(|count| *count > 0).into();
    }
    if payloads {
        let (shown, truncated) = payload(&publish.payload);
        line["payload"] = shown;
        line["payload_truncated"] = Some(true).filter(|_| truncated).into();
    }
}

/// Text as it is, anything else in hexadecimal digits, and whether it is only the beginning.
#[must_use]
pub fn payload(bytes: &[u8]) -> (Value, bool) {
    let shown = &bytes[..bytes.len().min(MAX_PAYLOAD)];
    let value = match std::str::from_utf8(bytes) {
        // A character that the bound cuts is left out.
        Ok(_) => json!({ "text": String::from_utf8_lossy(shown).trim_end_matches('\u{fffd}') }),
        Err(_) => json!({ "hex": shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    };
    (value, shown.len() < bytes.len())
}

fn add_ack(line: &mut Value, ack: &Ack) {
    line["packet_id"] = ack.packet_id.0.get().into();
    line["reason"] = reason(ack.reason);
    let text = ack.properties.as_deref().and_then(|AckProperties { reason_string, .. }| reason_string.as_ref());
    line["reason_string"] = text.map(Text::as_str).into();
}

fn add_subscribe(line: &mut Value, subscribe: &Subscribe) {
    line["packet_id"] = subscribe.packet_id.0.get().into();
    line["subscription_id"] = subscribe.properties.subscription_id.map(std::num::NonZeroU32::get).into();
    let filters = subscribe.filters.iter().map(|one| {
        let retain_handling = match one.options.retain_handling {
            RetainHandling::Send => 0,
            RetainHandling::SendIfNew => 1,
            RetainHandling::DoNotSend => 2,
        };
        json!({
            "filter": one.filter.as_str(),
            "qos": one.options.qos as u8,
            "no_local": one.options.no_local,
            "retain_as_published": one.options.retain_as_published,
            "retain_handling": retain_handling,
        })
    });
    line["filters"] = filters.collect();
}

fn reason(reason: ReasonCode) -> Value {
    json!({ "code": reason as u8, "name": reason.name() })
}

const fn name(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        Packet::Disconnect(_) => "DISCONNECT",
        Packet::Auth(_) => "AUTH",
    }
}

fn without_nulls(line: Value) -> Value {
    match line {
        Value::Object(fields) => {
            Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        other => other,
    }
}

#[expect(clippy::disallowed_methods, reason = "an operator compares it with logs of other hosts")]
fn wall_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use evermq_mqtt::packet::Auth;
    use evermq_mqtt::properties::{AuthProperties, PublishProperties};
    use evermq_mqtt::{PacketId, QoS, Text, TopicName};

    use super::*;

    fn publish() -> Packet {
        let text = |text: &str| Text::new(text).unwrap();
        let properties = PublishProperties {
            correlation_data: Some(Bytes::from_static(b"correlation")),
            user_properties: vec![(text("token"), text("s3cret"))],
            ..PublishProperties::default()
        };
        Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: TopicName::new(text("a/b")).unwrap(),
            packet_id: Some(PacketId(std::num::NonZeroU16::MIN)),
            properties: Some(Box::new(properties)),
            payload: Bytes::from_static(b"s3cret"),
        })
    }

    #[test]
    fn payloads_are_shown_only_to_those_who_ask() {
        let line = packet(Direction::In, &publish(), Version::V5, false);
        assert!(!line.to_string().contains("s3cret") && !line.to_string().contains("correlation"), "{line}");
        let shown = [&line["direction"], &line["packet"], &line["topic"], &line["qos"], &line["packet_id"]];
        assert_eq!(shown, [&json!("in"), &json!("PUBLISH"), &json!("a/b"), &json!(1), &json!(1)]);
        assert_eq!((&line["payload_bytes"], &line["user_properties"]), (&json!(6), &json!(1)));
        let line = packet(Direction::In, &publish(), Version::V5, true);
        assert_eq!(line["payload"], json!({ "text": "s3cret" }));
    }

    #[test]
    fn what_auth_carries_is_never_shown() {
        let properties = AuthProperties {
            authentication_method: Some(Text::new("SCRAM").unwrap()),
            authentication_data: Some(Bytes::from_static(b"s3cret")),
            ..AuthProperties::default()
        };
        let auth = Packet::Auth(Auth { reason: ReasonCode::ReAuthenticate, properties });
        let line = packet(Direction::In, &auth, Version::V5, true);
        assert_eq!((&line["method"], &line["reason"]["code"]), (&json!("SCRAM"), &json!(0x19)));
        assert!(!line.to_string().contains("s3cret"), "{line}");
    }

    #[test]
    fn long_payloads_are_cut_and_said_to_be() {
        assert_eq!(payload(b"\xff\x00"), (json!({ "hex": "ff00" }), false));
        let (shown, truncated) = payload("ü".repeat(MAX_PAYLOAD).as_bytes());
        assert!(truncated && shown["text"].as_str().unwrap().chars().all(|c| c == 'ü'));
        let odd = format!("a{}", "ü".repeat(MAX_PAYLOAD));
        let (shown, _) = payload(odd.as_bytes());
        assert_eq!(shown["text"].as_str().unwrap().len(), MAX_PAYLOAD - 1);
    }
}
