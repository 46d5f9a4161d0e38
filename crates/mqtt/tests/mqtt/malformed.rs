//! What a peer may not send, and the reason code that it is refused with.

use bytes::BytesMut;
use evermq_mqtt::codec::{DecodeError, Limits, PropertyId, Sender, check_sender, connect_version, decode};
use evermq_mqtt::{Packet, ReasonCode, Version};

/// Bytes from a string of hexadecimal digits and, within quotes, plain characters: `30 03 0001 'a'`.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            out.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<char> = part.chars().filter(|c| !c.is_whitespace()).collect();
        for pair in digits.chunks(2) {
            let pair: String = pair.iter().collect();
            out.push(u8::from_str_radix(&pair, 16).expect("two hexadecimal digits"));
        }
    }
    out
}

/// A fixed header of `first`, then `body` behind its length.
fn packet(first: u8, body: &str) -> Vec<u8> {
    let body = bytes(body);
    assert!(body.len() < 128, "one byte of remaining length");
    [&[first, body.len() as u8][..], &body].concat()
}

fn decode_one(bytes: &[u8], version: Version) -> Result<Packet, DecodeError> {
    let mut buffer = BytesMut::from(bytes);
    let decoded = decode(&mut buffer, version, &Limits::default())?;
    Ok(decoded.expect("a whole packet"))
}

type Row = (u8, &'static str, Version, Result<(), ReasonCode>);

const OK: Result<(), ReasonCode> = Ok(());
const MALFORMED: Result<(), ReasonCode> = Err(ReasonCode::MalformedPacket);
const PROTOCOL_ERROR: Result<(), ReasonCode> = Err(ReasonCode::ProtocolError);
const TOPIC_ALIAS: Result<(), ReasonCode> = Err(ReasonCode::TopicAliasInvalid);
const UNSUPPORTED: Result<(), ReasonCode> = Err(ReasonCode::UnsupportedProtocolVersion);

fn check(table: &[Row]) {
    for (first, body, version, expected) in table {
        let decoded = decode_one(&packet(*first, body), *version);
        let found = decoded.as_ref().map(|_| ()).map_err(DecodeError::reason);
        assert_eq!(found, *expected, "{first:02x} {body} as {version:?} gave {decoded:?}");
    }
}

use Version::{V3, V4, V5};

#[test]
fn connect() {
    check(&[
        (0x10, "0004'MQTT'04 02 000a 0001'a'", V4, OK),
        (0x10, "0006'MQIsdp'03 02 000a 0001'a'", V4, OK),
        (0x10, "0004'MQTT'05 02 000a 00 0001'a'", V4, OK),
        // [MQTT-3.1.2-1], [MQTT-3.1.2-2]
        (0x10, "0004'MQTX'04 02 000a 0001'a'", V4, UNSUPPORTED),
        (0x10, "0004'mqtt'04 02 000a 0001'a'", V4, UNSUPPORTED),
        (0x10, "0000 04 02 000a 0001'a'", V4, UNSUPPORTED),
        (0x10, "0004'MQTT'06 02 000a 0001'a'", V4, UNSUPPORTED),
        (0x10, "0004'MQTT'03 02 000a 0001'a'", V4, UNSUPPORTED),
        (0x10, "0006'MQIsdp'04 02 000a 0001'a'", V4, UNSUPPORTED),
        // [MQTT-3.1.2-3]
        (0x10, "0004'MQTT'04 03 000a 0001'a'", V4, MALFORMED),
        (0x10, "0004'MQTT'05 03 000a 00 0001'a'", V5, MALFORMED),
        (0x10, "0006'MQIsdp'03 03 000a 0001'a'", V3, OK),
        // [MQTT-3.1.2-11], [MQTT-3.1.2-13]: will QoS and will retain without a will.
        (0x10, "0004'MQTT'04 0a 000a 0001'a'", V4, MALFORMED),
        (0x10, "0004'MQTT'05 22 000a 00 0001'a'", V5, MALFORMED),
        (0x10, "0006'MQIsdp'03 2a 000a 0001'a'", V3, OK),
        // [MQTT-3.1.2-12]: will QoS 3.
        (0x10, "0004'MQTT'04 1e 000a 0001'a' 0001't' 0000", V4, MALFORMED),
        (0x10, "0004'MQTT'05 1e 000a 00 0001'a' 00 0001't' 0000", V5, MALFORMED),
        // 3.1.1 [MQTT-3.1.2-22]: a password alone.
        (0x10, "0004'MQTT'04 42 000a 0001'a' 0001'p'", V4, MALFORMED),
        (0x10, "0006'MQIsdp'03 42 000a 0001'a' 0001'p'", V3, MALFORMED),
        (0x10, "0004'MQTT'05 42 000a 00 0001'a' 0001'p'", V5, OK),
        // Fields that the flags announce and the packet lacks; MQTT 3.1 permits it.
        (0x10, "0004'MQTT'04 82 000a 0001'a'", V4, MALFORMED),
        (0x10, "0006'MQIsdp'03 c2 000a 0001'a'", V3, OK),
        (0x10, "0004'MQTT'04 06 000a 0001'a' 0001't'", V4, MALFORMED),
        // Fields that no flag announces.
        (0x10, "0004'MQTT'04 02 000a 0001'a' 0001'u'", V4, MALFORMED),
        (0x10, "0004'MQTT'04 02 000a", V4, MALFORMED),
        // Will topics: [MQTT-4.7.3-1], [MQTT-4.7.0-1].
        (0x10, "0004'MQTT'04 06 000a 0001'a' 0000 0000", V4, MALFORMED),
        (0x10, "0004'MQTT'04 06 000a 0001'a' 0003'a/#' 0000", V4, MALFORMED),
        // Strings: [MQTT-1.5.4-1], [MQTT-1.5.4-2].
        (0x10, "0004'MQTT'04 02 000a 0001 ff", V4, MALFORMED),
        (0x10, "0004'MQTT'04 02 000a 0003 eda080", V4, MALFORMED),
        (0x10, "0004'MQTT'04 02 000a 0002 'a'00", V4, MALFORMED),
    ]);
}

#[test]
fn connect_properties() {
    let connect = |properties: &str| {
        let section = bytes(properties);
        let body = format!("0004'MQTT'05 02 000a {:02x} {properties} 0001'a'", section.len());
        decode_one(&packet(0x10, &body), V5).map(|_| ()).map_err(|error| error.reason())
    };
    let table: &[(&str, Result<(), ReasonCode>)] = &[
        ("11 00000001 21 0001 27 00000001 22 0000 17 00 19 01", OK),
        // Twice.
        ("11 00000001 11 00000001", PROTOCOL_ERROR),
        ("15 0001'm' 15 0001'm'", PROTOCOL_ERROR),
        ("26 0001'k' 0001'v' 26 0001'k' 0001'v'", OK),
        // §3.1.2.11.3 to §3.1.2.11.7: values.
        ("21 0000", PROTOCOL_ERROR),
        ("27 00000000", PROTOCOL_ERROR),
        ("17 02", PROTOCOL_ERROR),
        ("19 ff", PROTOCOL_ERROR),
        // §3.1.2.11.10
        ("16 0001'd'", PROTOCOL_ERROR),
        ("16 0001'd' 15 0001'm'", OK),
        // §2.2.2.2: not a CONNECT's; unknown; cut short.
        ("01 01", MALFORMED),
        ("24 01", MALFORMED),
        ("00", MALFORMED),
        ("7f 00", MALFORMED),
        ("8001 00", MALFORMED),
        ("11 000000", MALFORMED),
        ("26 0001'k'", MALFORMED),
        ("15 0002'm'", MALFORMED),
        // [MQTT-1.5.5-1]: an identifier in two bytes where one would do.
        ("9100 00000001", MALFORMED),
    ];
    for (properties, expected) in table {
        assert_eq!(connect(properties), *expected, "{properties}");
    }
}

#[test]
fn will_properties() {
    check(&[
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 05 18 00000001 0001't' 0000", V5, OK),
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 02 01 01 0001't' 0000", V5, OK),
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 0a 18 00000001 18 00000001 0001't' 0000", V5, PROTOCOL_ERROR),
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 02 01 02 0001't' 0000", V5, PROTOCOL_ERROR),
        // A will has no topic alias and no subscription identifier (§3.1.3.2).
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 03 23 0001 0001't' 0000", V5, MALFORMED),
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 02 0b 01 0001't' 0000", V5, MALFORMED),
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 04 08 0001'+' 0001't' 0000", V5, MALFORMED),
        // Without properties the will's topic would be read as one.
        (0x10, "0004'MQTT'05 06 000a 00 0001'a' 7f 0001't' 0000", V5, MALFORMED),
    ]);
}

#[test]
fn connack() {
    check(&[
        (0x20, "00 00", V4, OK),
        (0x20, "01 00", V4, OK),
        (0x20, "00 05", V4, OK),
        (0x20, "00 00 00", V5, OK),
        // [MQTT-3.2.2-1]
        (0x20, "02 00", V4, MALFORMED),
        (0x20, "80 00 00", V5, MALFORMED),
        (0x20, "ff 00", V3, OK),
        // [MQTT-3.2.2-6]
        (0x20, "01 05", V4, PROTOCOL_ERROR),
        (0x20, "01 87 00", V5, PROTOCOL_ERROR),
        // [MQTT-3.2.2-8]
        (0x20, "00 06", V4, PROTOCOL_ERROR),
        (0x20, "00 01 00", V5, PROTOCOL_ERROR),
        (0x20, "00 8e 00", V5, PROTOCOL_ERROR),
        (0x20, "00 00", V5, MALFORMED),
        (0x20, "00", V4, MALFORMED),
        (0x20, "00 00 00", V4, MALFORMED),
        // §3.2.2.3
        (0x20, "00 00 02 24 01", V5, OK),
        (0x20, "00 00 02 24 02", V5, PROTOCOL_ERROR),
        (0x20, "00 00 02 25 02", V5, PROTOCOL_ERROR),
        (0x20, "00 00 03 21 0000", V5, PROTOCOL_ERROR),
        (0x20, "00 00 02 17 01", V5, MALFORMED),
    ]);
}

#[test]
fn publish() {
    check(&[
        (0x30, "0001't' 'payload'", V4, OK),
        (0x30, "0001't'", V4, OK),
        (0x3d, "0001't' 0001 00", V5, OK),
        // [MQTT-3.3.1-4]
        (0x36, "0001't' 0001", V4, MALFORMED),
        (0x36, "0001't' 0001 00", V5, MALFORMED),
        // [MQTT-3.3.1-2]
        (0x38, "0001't'", V4, MALFORMED),
        (0x38, "0001't' 00", V5, MALFORMED),
        // [MQTT-2.2.1-3]
        (0x32, "0001't' 0000", V4, PROTOCOL_ERROR),
        (0x34, "0001't' 0000 00", V5, PROTOCOL_ERROR),
        // [MQTT-3.3.2-2]
        (0x30, "0003'a/+'", V4, MALFORMED),
        (0x30, "0003'a/#' 00", V5, MALFORMED),
        // No topic name: [MQTT-4.7.3-1], §3.3.2.1.
        (0x30, "0000", V4, MALFORMED),
        (0x30, "0000 00", V5, PROTOCOL_ERROR),
        (0x30, "0000 03 23 0001", V5, OK),
        // [MQTT-3.3.2-8]
        (0x30, "0000 03 23 0000", V5, TOPIC_ALIAS),
        // [MQTT-3.3.2-14]
        (0x30, "0001't' 06 08 0003'a/#'", V5, MALFORMED),
        (0x30, "0001't' 03 08 0000", V5, MALFORMED),
        // §3.3.2.3
        (0x30, "0001't' 02 01 02", V5, PROTOCOL_ERROR),
        (0x30, "0001't' 02 0b 00", V5, PROTOCOL_ERROR),
        (0x30, "0001't' 04 0b 01 0b 02", V5, OK),
        (0x30, "0001't' 06 23 0001 23 0001", V5, PROTOCOL_ERROR),
        (0x30, "0001't' 05 11 00000001", V5, MALFORMED),
        (0x30, "0001't' 05 02 0000", V5, MALFORMED),
        (0x30, "0001't' 8000", V5, MALFORMED),
        (0x30, "0001't' ffffffff", V5, MALFORMED),
        (0x30, "0001't'", V5, MALFORMED),
        // Cut short.
        (0x30, "00", V4, MALFORMED),
        (0x30, "0002't'", V4, MALFORMED),
        (0x32, "0001't' 00", V4, MALFORMED),
        (0x30, "0001 00", V4, MALFORMED),
    ]);
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        check(&[
            (first, "0001", V4, OK),
            (first, "0001", V5, OK),
            (first, "0001 00", V5, OK),
            (first, "0001 00 00", V5, OK),
            (first, "0001 00 04 1f 0001'r'", V5, OK),
            (first, "0001 00", V4, MALFORMED),
            (first, "00", V4, MALFORMED),
            (first, "0000", V4, PROTOCOL_ERROR),
            (first, "0000", V5, PROTOCOL_ERROR),
            (first, "0001 01", V5, PROTOCOL_ERROR),
            (first, "0001 00 00 00", V5, MALFORMED),
            (first, "0001 00 08 1f 0001'r' 1f 0001'r'", V5, PROTOCOL_ERROR),
            (first, "0001 00 05 11 00000001", V5, MALFORMED),
        ]);
    }
    // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1]
    check(&[
        (0x40, "0001 10", V5, OK),
        (0x50, "0001 97", V5, OK),
        (0x62, "0001 92", V5, OK),
        (0x70, "0001 92", V5, OK),
        (0x40, "0001 92", V5, PROTOCOL_ERROR),
        (0x50, "0001 92", V5, PROTOCOL_ERROR),
        (0x62, "0001 10", V5, PROTOCOL_ERROR),
        (0x70, "0001 97", V5, PROTOCOL_ERROR),
    ]);
}

#[test]
fn subscribe() {
    check(&[
        (0x82, "0001 0001'#' 02", V4, OK),
        (0x82, "0001 00 0001'#' 2e", V5, OK),
        // [MQTT-3.8.3-2]
        (0x82, "0001", V4, PROTOCOL_ERROR),
        (0x82, "0001 00", V5, PROTOCOL_ERROR),
        (0x82, "0000 0001'#' 02", V4, PROTOCOL_ERROR),
        // 3.1.1 [MQTT-3-8.3-4]
        (0x82, "0001 0001'#' 03", V4, MALFORMED),
        (0x82, "0001 0001'#' 04", V4, MALFORMED),
        // [MQTT-3.8.3-5] and the values of §3.8.3.1
        (0x82, "0001 00 0001'#' 40", V5, MALFORMED),
        (0x82, "0001 00 0001'#' 80", V5, MALFORMED),
        (0x82, "0001 00 0001'#' 03", V5, PROTOCOL_ERROR),
        (0x82, "0001 00 0001'#' 30", V5, PROTOCOL_ERROR),
        // [MQTT-3.8.3-4]
        (0x82, "0001 00 000a'$share/g/t' 04", V5, PROTOCOL_ERROR),
        (0x82, "0001 00 000a'$share/g/t' 00", V5, OK),
        // [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1], [MQTT-4.8.2-1], [MQTT-4.8.2-2]
        (0x82, "0001 0003'#/a' 00", V4, MALFORMED),
        (0x82, "0001 0002'a#' 00", V4, MALFORMED),
        (0x82, "0001 0002'a+' 00", V4, MALFORMED),
        (0x82, "0001 0000 00", V4, MALFORMED),
        (0x82, "0001 00 0008'$share/g' 00", V5, MALFORMED),
        (0x82, "0001 00 0009'$share//t' 00", V5, MALFORMED),
        (0x82, "0001 00 000b'$share/g+/t' 00", V5, MALFORMED),
        // §3.8.2.1
        (0x82, "0001 02 0b 01 0001'#' 00", V5, OK),
        (0x82, "0001 02 0b 00 0001'#' 00", V5, PROTOCOL_ERROR),
        (0x82, "0001 04 0b 01 0b 01 0001'#' 00", V5, PROTOCOL_ERROR),
        (0x82, "0001 06 0b ffffffff7f 0001'#' 00", V5, MALFORMED),
        (0x82, "0001 02 01 01 0001'#' 00", V5, MALFORMED),
        // Cut short: a filter without options.
        (0x82, "0001 0001'#'", V4, MALFORMED),
        (0x82, "0001 0001'#' 00 0002'#'", V4, MALFORMED),
    ]);
}

#[test]
fn suback_and_unsuback() {
    check(&[
        (0x90, "0001 00 01 02 80", V4, OK),
        (0x90, "0001 00 00 8f a2", V5, OK),
        // [MQTT-3.9.3-2]
        (0x90, "0001 03", V4, PROTOCOL_ERROR),
        (0x90, "0001 87", V4, PROTOCOL_ERROR),
        (0x90, "0001 00 11", V5, PROTOCOL_ERROR),
        // [MQTT-3.8.4-6]
        (0x90, "0001", V4, PROTOCOL_ERROR),
        (0x90, "0001 00", V5, PROTOCOL_ERROR),
        (0x90, "0000 00", V4, PROTOCOL_ERROR),
        (0xb0, "0001", V4, OK),
        (0xb0, "0001 00", V4, MALFORMED),
        (0xb0, "0001 00 11", V5, OK),
        // [MQTT-3.11.3-1], [MQTT-3.11.3-2]
        (0xb0, "0001 00", V5, PROTOCOL_ERROR),
        (0xb0, "0001 00 01", V5, PROTOCOL_ERROR),
        (0xb0, "0001", V5, MALFORMED),
    ]);
}

#[test]
fn unsubscribe() {
    check(&[
        (0xa2, "0001 0001't'", V4, OK),
        (0xa2, "0001 07 26 0001'k' 0001'v' 0001't'", V5, OK),
        // [MQTT-3.10.3-2]
        (0xa2, "0001", V4, PROTOCOL_ERROR),
        (0xa2, "0001 00", V5, PROTOCOL_ERROR),
        (0xa2, "0000 0001't'", V4, PROTOCOL_ERROR),
        (0xa2, "0001 0003'#/t'", V4, MALFORMED),
        (0xa2, "0001 02 0b 01 0001't'", V5, MALFORMED),
    ]);
}

#[test]
fn ping_disconnect_and_auth() {
    check(&[
        (0xc0, "", V4, OK),
        (0xd0, "", V5, OK),
        (0xc0, "00", V4, MALFORMED),
        (0xd0, "00", V5, MALFORMED),
        (0xe0, "", V4, OK),
        (0xe0, "00", V4, MALFORMED),
        (0xe0, "", V5, OK),
        (0xe0, "04", V5, OK),
        (0xe0, "00 00", V5, OK),
        (0xe0, "00 05 11 00000001", V5, OK),
        // [MQTT-3.14.2-1]
        (0xe0, "01", V5, PROTOCOL_ERROR),
        (0xe0, "84", V5, PROTOCOL_ERROR),
        (0xe0, "00 00 00", V5, MALFORMED),
        (0xe0, "00 02 01 01", V5, MALFORMED),
        (0xe0, "00 0a 11 00000001 11 00000001", V5, PROTOCOL_ERROR),
        (0xf0, "", V5, OK),
        (0xf0, "18 04 15 0001'm'", V5, OK),
        (0xf0, "", V4, MALFORMED),
        // [MQTT-3.15.2-1]
        (0xf0, "01 04 15 0001'm'", V5, PROTOCOL_ERROR),
        // §3.15.2.2.2
        (0xf0, "18 00", V5, PROTOCOL_ERROR),
        (0xf0, "00 04 16 0001'd'", V5, PROTOCOL_ERROR),
        (0xf0, "18 08 15 0001'm' 15 0001'm'", V5, PROTOCOL_ERROR),
        (0xf0, "18", V5, MALFORMED),
        (0xf0, "18 04 15 0001'm' 00", V5, MALFORMED),
    ]);
}

#[test]
fn fixed_headers() {
    check(&[
        // [MQTT-2.1.3-1] and its kin.
        (0x11, "0004'MQTT'04 02 000a 0001'a'", V4, MALFORMED),
        (0x80, "0001 0001'#' 00", V4, MALFORMED),
        (0x60, "0001", V5, MALFORMED),
        (0xa0, "0001 0001't'", V4, MALFORMED),
        (0xe1, "", V5, MALFORMED),
        (0x00, "", V5, MALFORMED),
        // MQTT 3.1 lets them carry DUP.
        (0x8a, "0001 0001'#' 00", V3, OK),
        (0x6a, "0001", V3, OK),
    ]);
    for (header, version, expected) in [
        ("c0 80 80 80 80", V4, MALFORMED),
        ("c0 80 00", V5, MALFORMED),
        ("c0 80 00", V4, OK),
        ("10 8d 00 0004'MQTT'04 02 000a 0001'a'", V5, OK),
        ("10 8e 00 0004'MQTT'05 02 000a 00 0001'a'", V4, MALFORMED),
    ] {
        let found = decode_one(&bytes(header), version).map(|_| ()).map_err(|error| error.reason());
        assert_eq!(found, expected, "{header} as {version:?}");
    }
}

#[test]
fn a_property_that_no_packet_carries_twice_says_which() {
    let error = decode_one(&packet(0x30, "0001't' 04 01 00 01 00"), V5).expect_err("a duplicate");
    assert_eq!(error, DecodeError::DuplicateProperty(PropertyId::PayloadFormatIndicator));
    assert_eq!(error.to_string(), "property Payload Format Indicator appears twice");
}

#[test]
fn a_refused_connect_still_tells_its_version() {
    for (body, version) in [
        ("0004'MQTT'05 03 000a 00 0001'a'", Some(V5)),
        ("0004'MQTT'04 03", Some(V4)),
        ("0006'MQIsdp'03", Some(V3)),
        ("0004'MQTT'09 03", None),
        ("0004'MQTT'", None),
        ("0004'HTTP'05", None),
        ("ffff", None),
        ("", None),
    ] {
        assert_eq!(connect_version(&packet(0x10, body)), version, "{body}");
    }
    assert_eq!(connect_version(&packet(0x30, "0004'MQTT'05 03 000a 00 0001'a'")), None);
    assert_eq!(connect_version(&[]), None);
}

#[test]
fn each_side_keeps_to_its_own_packets() {
    use Sender::{Client, Server};
    let table: &[(u8, &str, Sender)] = &[
        (0x10, "0004'MQTT'05 02 000a 00 0001'a'", Server),
        (0x20, "00 00 00", Client),
        (0x82, "0001 00 0001'#' 00", Server),
        (0x90, "0001 00 00", Client),
        (0xa2, "0001 00 0001'#'", Server),
        (0xb0, "0001 00 00", Client),
        (0xc0, "", Server),
        (0xd0, "", Client),
        // [MQTT-3.3.4-6]
        (0x30, "0001't' 02 0b 01", Client),
        // Tables 3-4 and 3-5
        (0x40, "0001 10", Client),
        (0x50, "0001 10", Client),
        // [MQTT-3.14.2-2], §3.14.2.2.5, table 3-10
        (0xe0, "00 05 11 00000001", Server),
        (0xe0, "00 04 1c 0001's'", Client),
        (0xe0, "04", Server),
        (0xe0, "8e", Client),
        // Table 3-11
        (0xf0, "19 04 15 0001'm'", Server),
        (0xf0, "00 04 15 0001'm'", Client),
    ];
    for (first, body, wrong) in table {
        let packet = decode_one(&packet(*first, body), V5).expect("a well-formed packet");
        let refused = [Client, Server].map(|sender| check_sender(&packet, sender).map_err(|error| error.reason()));
        let expected = [Client, Server].map(|sender| if sender == *wrong { PROTOCOL_ERROR } else { OK });
        assert_eq!(refused, expected, "{first:02x} {body}");
    }
    for (first, body) in [(0x30, "0001't' 00"), (0x40, "0001"), (0x62, "0001 92"), (0xe0, ""), (0xe0, "81")] {
        let packet = decode_one(&packet(first, body), V5).expect("a well-formed packet");
        assert_eq!(check_sender(&packet, Client), Ok(()), "{first:02x} {body}");
        assert_eq!(check_sender(&packet, Server), Ok(()), "{first:02x} {body}");
    }
}
