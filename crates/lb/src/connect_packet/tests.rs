//! CONNECTs of real clients out of `tests/captures/mqtt`, of our own codec, in pieces, mutated, and packets that are none.

use bytes::Bytes;
use evermq_mqtt::codec::Limits;
use evermq_mqtt::packet::Connect as Packet5;
use evermq_mqtt::packet::Will;
use evermq_mqtt::properties::{ConnectProperties, WillProperties};
use evermq_mqtt::{QoS, Text, TopicName};
use proptest::prelude::*;

use super::*;

/// The first packet of each recorded session.
fn captures() -> Vec<(String, Vec<u8>)> {
    let first = |name: String| {
        let lines = evermq_captures::lines("mqtt", &name);
        let line = lines.iter().find_map(|line| line.strip_prefix("C ")).unwrap();
        (name, evermq_captures::bytes(line))
    };
    evermq_captures::names("mqtt").into_iter().map(first).collect()
}

fn decoded(bytes: &[u8]) -> Packet5 {
    match codec::decode(&mut BytesMut::from(bytes), Version::V5, &Limits::default()) {
        Ok(Some(Packet::Connect(connect))) => *connect,
        other => panic!("{other:?}"),
    }
}

/// What the look must say of a packet that our codec reads.
fn of(packet: &Packet5, length: usize) -> Connect<'_> {
    Connect {
        version: packet.version,
        client_id: packet.client_id.as_str().as_bytes(),
        has_user_name: packet.username.is_some(),
        has_password: packet.password.is_some(),
        keep_alive: packet.keep_alive,
        clean_start: packet.clean_start,
        length,
    }
}

fn encoded(packet: &Packet5) -> Vec<u8> {
    let mut out = BytesMut::new();
    codec::encode(&Packet::Connect(Box::new(packet.clone())), packet.version, &mut out).unwrap();
    out.into()
}

fn packet(client_id: &str) -> Packet5 {
    Packet5 {
        version: Version::V5,
        clean_start: true,
        keep_alive: 60,
        client_id: Text::new(client_id).unwrap(),
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
        is_bridge: false,
    }
}

/// A CONNECT out of what stands behind its fixed header.
fn raw(body: &[u8]) -> Vec<u8> {
    [&[0x10, u8::try_from(body.len()).unwrap()], body].concat()
}

#[test]
fn what_other_programs_send_is_understood() {
    for (name, bytes) in captures() {
        let packet = decoded(&bytes);
        let expected = Look::Connect(of(&packet, bytes.len()));
        // It is enough that the client identifier is there, which is the first of the payload.
        let id = packet.client_id.as_str().as_bytes();
        let end = bytes.windows(id.len() + 2).position(|window| window == [&[0, id.len() as u8], id].concat()).unwrap();
        let end = end + 2 + id.len();
        for length in 0..=bytes.len() {
            let expected = if length < end { Look::NeedMore } else { expected };
            assert_eq!(look(&bytes[..length]), expected, "{name}, {length} bytes");
        }
        assert_eq!(look(&[&bytes[..], &[0xC0, 0]].concat()), expected, "{name}");
    }
}

#[test]
fn a_large_will_need_not_be_there() {
    let will = Will {
        topic: TopicName::new(Text::new("t").unwrap()).unwrap(),
        payload: Bytes::from(vec![7; 65_535]),
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: WillProperties::default(),
    };
    let packet = Packet5 { will: Some(will), username: Some(Text::new("u").unwrap()), ..packet("c") };
    let bytes = encoded(&packet);
    assert_eq!(look(&bytes[..40]), Look::Connect(of(&packet, bytes.len())));
}

#[test]
fn the_bound_holds_for_what_comes_before_the_identifier_ends() {
    let fill = |token: usize| {
        let properties = ConnectProperties {
            authentication_method: Some(Text::new("m").unwrap()),
            authentication_data: Some(Bytes::from(vec![7; token])),
            ..ConnectProperties::default()
        };
        encoded(&Packet5 { properties, ..packet("c") })
    };
    let spare = MAX - fill(MAX - 100).len();
    let longest = fill(MAX - 100 + spare);
    assert_eq!(longest.len(), MAX);
    assert!(matches!(look(&longest), Look::Connect(connect) if connect.client_id == b"c" && connect.length == MAX));
    let longer = fill(MAX - 100 + spare + 1);
    assert_eq!(look(&longer), Look::NotConnect(NotConnect::TooLong));
    let id = encoded(&packet(&"x".repeat(65_535)));
    // Known from its length, long before it is there.
    assert_eq!(look(&id[..40]), Look::NotConnect(NotConnect::TooLong));
}

#[test]
fn what_is_no_connect_is_known_by_its_first_wrong_byte() {
    let cases: [(&[u8], NotConnect); 18] = [
        (&[22, 3, 1], NotConnect::Tls),
        (b"\r\n\r\n\0\r\nQUIT\n", NotConnect::ProxyHeader),
        (b"GET / HTTP/1.1\r\n", NotConnect::OtherPacket),
        (&[0x11], NotConnect::OtherPacket),
        (&[0xC0, 0], NotConnect::OtherPacket),
        (&[0x10, 0x80, 0x80, 0x80, 0x80], NotConnect::Length),
        (&[0x10, 0], NotConnect::Truncated),
        (&[0x10, 5, 0, 4, b'M', b'Q', b'T', b'T'], NotConnect::Truncated),
        (&[0x10, 20, 0, 5], NotConnect::ProtocolName),
        (&[0x10, 20, 0, 4, b'M', b'Q', b'I'], NotConnect::ProtocolName),
        (&[0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 6], NotConnect::ProtocolLevel),
        (&[0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 3], NotConnect::ProtocolLevel),
        (&[0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 0x85], NotConnect::ProtocolLevel),
        (&[0x10, 20, 0, 4, b'M', b'Q', b'T', b'T', 4, 1], NotConnect::ReservedFlag),
        (&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 9, 0, 2], NotConnect::Truncated),
        (&[0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 9, 99], NotConnect::Truncated),
        (&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 9, 0, 1, 0], NotConnect::ClientId),
        (&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 9, 0, 1, 0xFF], NotConnect::ClientId),
    ];
    for (bytes, not_connect) in cases {
        assert_eq!(look(bytes), Look::NotConnect(not_connect), "{bytes:02x?}");
        let told = matches!(not_connect, NotConnect::ProtocolLevel).then_some(ReasonCode::UnsupportedProtocolVersion);
        assert_eq!(not_connect.reason(), told);
    }
}

#[test]
fn versions_and_flags() {
    let old = |level, flags| raw(&[&[0, 6][..], b"MQIsdp", &[level, flags, 0, 30, 0, 1, b'c']].concat());
    let new = |level, flags| raw(&[&[0, 4][..], b"MQTT", &[level, flags, 0, 30, 0, 1, b'c']].concat());
    for (bytes, version, flags) in [
        (old(3, 0x01), Version::V3, (false, false, false)),
        (new(4, 0x82), Version::V4, (true, false, true)),
        (new(4, 0xC0), Version::V4, (true, true, false)),
        // Bridges of mosquitto.
        (old(0x83, 2), Version::V3, (false, false, true)),
        (new(0x84, 2), Version::V4, (false, false, true)),
    ] {
        let Look::Connect(found) = look(&bytes) else { panic!("{bytes:02x?}") };
        assert_eq!((found.version, found.client_id, found.keep_alive), (version, &b"c"[..], 30));
        assert_eq!((found.has_user_name, found.has_password, found.clean_start), flags);
    }
}

#[test]
fn refusals_are_what_a_client_understands() {
    let not_authorized = ReasonCode::NotAuthorized;
    assert_eq!(refuse(Version::V3, not_authorized).unwrap(), [0x20, 2, 0, 5]);
    assert_eq!(refuse(Version::V4, not_authorized).unwrap(), [0x20, 2, 0, 5]);
    assert_eq!(refuse(Version::V5, not_authorized).unwrap(), [0x20, 3, 0, 0x87, 0]);
    // MQTT 3.1.1 knows one word for both.
    assert_eq!(refuse(Version::V4, ReasonCode::ServerUnavailable).unwrap(), [0x20, 2, 0, 3]);
    assert_eq!(refuse(Version::V4, ReasonCode::ServerBusy).unwrap(), [0x20, 2, 0, 3]);
    assert_eq!(refuse(Version::V5, ReasonCode::ServerBusy).unwrap(), [0x20, 3, 0, 0x89, 0]);
    assert_eq!(refuse(Version::V4, ReasonCode::UnsupportedProtocolVersion).unwrap(), [0x20, 2, 0, 1]);
    assert_eq!(refuse(Version::V5, ReasonCode::GrantedQoS1), None);
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let mutated = (prop::sample::select(captures()), changes).prop_map(|((_, mut bytes), changes)| {
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![mutated, proptest::collection::vec(any::<u8>(), 0..100)]
}

proptest! {
    /// However the bytes come, the answer is the same, `MAX` bytes are enough for it, and it is that of our codec.
    #[test]
    fn pieces_do_not_change_the_answer(bytes in any_bytes()) {
        let answers: Vec<Look<'_>> = (0..=bytes.len()).map(|length| look(&bytes[..length])).collect();
        let first = answers.iter().find(|answer| **answer != Look::NeedMore).copied();
        prop_assert_eq!(first.unwrap_or(Look::NeedMore), look(&bytes));
        let mut more = bytes.clone();
        more.resize(bytes.len().max(MAX), 0);
        prop_assert_ne!(look(&more), Look::NeedMore);
        match codec::decode(&mut BytesMut::from(&bytes[..]), Version::V5, &Limits::default()) {
            Ok(Some(Packet::Connect(packet))) => {
                let Some(Look::Connect(found)) = first else { return Err(TestCaseError::fail("the codec reads it")) };
                // MQTT 3.1 allows flags for what is not there.
                let expected = of(&packet, found.length);
                prop_assert_eq!((found.version, found.client_id), (expected.version, expected.client_id));
                prop_assert_eq!((found.keep_alive, found.clean_start), (expected.keep_alive, expected.clean_start));
                prop_assert!(packet.version == Version::V3 || found == expected);
            }
            Ok(Some(_)) => prop_assert!(matches!(first, Some(Look::NotConnect(_)))),
            // Missing bytes may be behind what is looked at, and what is wrong may be there too.
            Ok(None) | Err(_) => {}
        }
    }
}
