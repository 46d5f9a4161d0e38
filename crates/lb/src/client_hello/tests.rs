//! Hellos of real clients out of `tests/captures/tls`, whole, in pieces, in other records, mutated, and hellos that are none.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// File, server name, ALPN offers MQTT, TLS 1.3 is offered.
const CAPTURES: [(&str, Option<&str>, bool, bool); 12] = [
    ("openssl-name-alpn", Some("mqtt.example.org"), true, true),
    ("openssl-plain", None, false, true),
    ("openssl-upper-dot", Some("mqtt.example.org"), false, true),
    ("openssl-tls12", Some("mqtt.example.org"), false, false),
    ("openssl-fragments", Some("mqtt.example.org"), true, true),
    ("mosquitto-pub-alpn", Some("localhost"), true, true),
    ("mosquitto-pub", Some("localhost"), false, true),
    ("curl", Some("mqtt.example.org"), false, true),
    ("wget-gnutls", Some("localhost"), false, true),
    ("python-name", Some("mqtt.example.org"), false, true),
    ("python-address", None, false, true),
    ("python-tls12-alpn", Some("mqtt.example.org"), true, false),
];

fn capture(name: &str) -> Vec<u8> {
    evermq_captures::packet("tls", name)
}

/// The handshake message without records.
fn unpack(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = bytes {
        let (content, tail) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(content);
        bytes = tail;
    }
    message
}

/// A message in records of `size` bytes.
fn pack(message: &[u8], size: usize) -> Vec<u8> {
    let record =
        |content: &[u8]| [&[22, 3, 1][..], &u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat();
    message.chunks(size).flat_map(record).collect()
}

fn prefixed(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &prefixed(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &prefixed(&[&[0][..], &prefixed(name)].concat()))
}

/// A ClientHello with these bytes behind its compression methods.
fn hello_with(tail: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], tail].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1, length[1], length[2], length[3]][..], &body].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    hello_with(&prefixed(&extensions.concat()))
}

fn expected(sni: Option<&str>, alpn_mqtt: bool, tls13: bool) -> Look {
    Look::Hello(Hello { sni: sni.map(Box::from), alpn_mqtt, tls13 })
}

#[test]
fn what_other_programs_send_is_understood() {
    for (name, sni, alpn_mqtt, tls13) in CAPTURES {
        let bytes = capture(name);
        assert_eq!(look(&bytes), expected(sni, alpn_mqtt, tls13), "{name}");
        assert_eq!(bytes.len() - unpack(&bytes).len() > RECORD_HEADER, name == "openssl-fragments", "{name}");
    }
}

#[test]
fn what_rustls_sends_is_understood() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for (versions, tls13) in [(rustls::DEFAULT_VERSIONS, true), (&[&rustls::version::TLS12][..], false)] {
        for name in ["mqtt.example.org", "192.0.2.7"] {
            let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            config.alpn_protocols = vec![b"x".to_vec(), b"mqtt".to_vec()];
            // Cut into records of 64 bytes.
            config.max_fragment_size = Some(64);
            let name = rustls::pki_types::ServerName::try_from(name).unwrap();
            let is_name = matches!(name, rustls::pki_types::ServerName::DnsName(_));
            let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            assert_eq!(look(&bytes), expected(is_name.then_some("mqtt.example.org"), true, tls13));
        }
    }
}

#[test]
fn a_hello_may_come_in_pieces_and_in_records_of_any_size() {
    for (name, sni, alpn_mqtt, tls13) in CAPTURES {
        let bytes = capture(name);
        let message = unpack(&bytes);
        let smallest = message.len().div_ceil(MAX_RECORDS);
        for records in
            [bytes, pack(&message, smallest), pack(&message, message.len() - 1), pack(&message, message.len())]
        {
            for length in 0..records.len() {
                assert_eq!(look(&records[..length]), Look::NeedMore, "{name}, {length} bytes");
                assert_eq!(looks_like_hello(&records[..length]), Ok(length > RECORD_HEADER));
            }
            assert_eq!(look(&records), expected(sni, alpn_mqtt, tls13), "{name}");
            // What comes behind it, such as early data or nonsense, is the broker's.
            for more in [&[23, 3, 3, 0, 1, 0][..], b"\0\0"] {
                assert_eq!(look(&[&records, more].concat()), expected(sni, alpn_mqtt, tls13), "{name}");
            }
        }
        assert_eq!(look(&pack(&message, smallest / 2)), Look::NotTls(NotTls::TooManyRecords));
    }
}

#[test]
fn what_is_no_hello_is_known_by_its_first_wrong_byte() {
    let cases: [(&[u8], NotTls); 17] = [
        (b"GET / HTTP/1.1\r\n", NotTls::Unknown),
        (b"PROXY TCP4 ", NotTls::Unknown),
        (&[0], NotTls::Unknown),
        (&[0x10, 0x20], NotTls::PlainMqtt),
        (b"\r\n\r\n\0\r\nQUIT\n", NotTls::ProxyHeader),
        (&[0x80, 0x2E, 1], NotTls::Ssl2),
        (&[20], NotTls::NotHandshake),
        (&[21, 3, 3], NotTls::NotHandshake),
        (&[23], NotTls::NotHandshake),
        (&[24], NotTls::NotHandshake),
        (&[22, 2], NotTls::Version),
        (&[22, 3, 1, 0, 0], NotTls::EmptyRecord),
        (&[22, 3, 1, 0x40, 1], NotTls::OversizeRecord),
        (&[22, 3, 1, 0x40, 0, 2], NotTls::NotClientHello),
        (&[22, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xFD], NotTls::OversizeHello),
        // In the second record.
        (&[22, 3, 1, 0, 1, 1, 23], NotTls::NotHandshake),
        (&[22, 3, 1, 0, 2, 1, 1, 22, 3, 1, 0, 2, 0, 0], NotTls::OversizeHello),
    ];
    for (bytes, not_tls) in cases {
        assert_eq!(look(bytes), Look::NotTls(not_tls), "{bytes:02x?}");
    }
    for (bytes, not_tls) in &cases[..14] {
        assert_eq!(looks_like_hello(bytes), Err(*not_tls), "{bytes:02x?}");
    }
}

#[test]
fn server_names() {
    let longest = vec!["x".repeat(63); 3].join(".") + "." + &"y".repeat(61);
    assert_eq!(longest.len(), 253);
    let good: [(&[u8], Option<&str>); 7] = [
        (b"Broker_1.Plant-7.EXAMPLE", Some("broker_1.plant-7.example")),
        (b"example.org.", Some("example.org")),
        (b"x", Some("x")),
        (longest.as_bytes(), Some(&longest)),
        (b"192.0.2.7", None),
        (b"2001:db8::7", None),
        (b"192.0.2.7.", None),
    ];
    for (name, sni) in good {
        assert_eq!(look(&pack(&hello(&[server_name(name)]), 1 << 14)), expected(sni, false, false), "{name:?}");
    }
    let long = format!("{longest}z");
    let bad: [&[u8]; 9] = [b"", b".", b"a..b", b".a", b"a..", b"a b", b"a\0b", "gerät".as_bytes(), long.as_bytes()];
    for name in bad {
        let bytes = pack(&hello(&[server_name(name)]), 1 << 14);
        assert_eq!(look(&bytes), Look::NotTls(NotTls::ServerName), "{name:?}");
    }
    // An unknown type of name beside a host name, which RFC 6066 leaves room for.
    let two = [&[9][..], &prefixed(b"?"), &[0], &prefixed(b"a")].concat();
    assert_eq!(look(&pack(&hello(&[extension(0, &prefixed(&two))]), 1 << 14)), expected(Some("a"), false, false));
}

#[test]
fn malformed_hellos() {
    let alpn = |list: &[u8]| hello(&[extension(16, &prefixed(list))]);
    let whole = hello(&[server_name(b"a")]);
    let two_names = [&[0][..], &prefixed(b"a"), &[0], &prefixed(b"b")].concat();
    let changed = |at: usize, byte: u8| {
        let mut message = whole.clone();
        message[at] = byte;
        message
    };
    let cases = [
        vec![1, 0, 0, 0],
        changed(4, 2),
        // Session identifier above 32 bytes, odd cipher suites, none, no compression methods.
        changed(38, 33),
        changed(40, 1),
        changed(40, 0),
        hello_with(&[0]),
        hello_with(&[0, 4, 0]),
        hello_with(&[0, 0, 0]),
        hello(&[vec![0, 0, 0]]),
        hello(&[vec![0, 0, 0, 9]]),
        hello(&[server_name(b"a"), server_name(b"a")]),
        hello(&[extension(0, &prefixed(&two_names))]),
        hello(&[extension(0, &prefixed(&[]))]),
        hello(&[extension(0, &[])]),
        hello(&[extension(0, &[0, 4, 0, 0, 9, b'a'])]),
        alpn(&[5, b'm']),
        hello(&[extension(16, &[0, 0, 0])]),
        hello(&[extension(43, &[4, 3, 4])]),
        hello(&[extension(43, &[2, 3, 4, 0])]),
    ];
    for message in cases {
        assert_eq!(look(&pack(&message, 1 << 14)), Look::NotTls(NotTls::Malformed), "{message:02x?}");
    }
    // TLS 1.2 without any extensions is a hello.
    assert_eq!(look(&pack(&hello_with(&[]), 1 << 14)), expected(None, false, false));
}

#[test]
fn the_longest_hello_in_the_most_records_is_taken() {
    let fill = MAX_HELLO - hello(&[extension(21, &[])]).len();
    let message = hello(&[extension(21, &vec![0; fill])]);
    assert_eq!(message.len(), MAX_HELLO);
    let bytes = pack(&message, MAX_HELLO / MAX_RECORDS);
    assert_eq!(bytes.len(), MAX);
    assert_eq!(look(&bytes), expected(None, false, false));
    assert_eq!(look(&pack(&hello(&[extension(21, &vec![0; fill + 1])]), 1 << 14)), Look::NotTls(NotTls::OversizeHello));
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let mutated = (0..CAPTURES.len(), 1_usize..1000, changes).prop_map(|(index, size, changes)| {
        let mut bytes = pack(&unpack(&capture(CAPTURES[index].0)), size);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    });
    prop_oneof![mutated, proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    /// However the bytes come, the answer is the same, and `MAX` bytes are enough for it.
    #[test]
    fn pieces_do_not_change_the_answer(bytes in any_bytes()) {
        let answers: Vec<Look> = (0..=bytes.len()).map(|length| look(&bytes[..length])).collect();
        let first = answers.iter().find(|answer| **answer != Look::NeedMore);
        prop_assert_eq!(first.unwrap_or(&Look::NeedMore), answers.last().unwrap());
        for filling in [0, 22] {
            let mut more = bytes.clone();
            more.resize(bytes.len().max(MAX), filling);
            prop_assert_ne!(look(&more), Look::NeedMore);
        }
        let glance = looks_like_hello(&bytes);
        if let Some(Look::Hello(hello)) = first {
            prop_assert_eq!(glance, Ok(true));
            if let Some(sni) = &hello.sni {
                prop_assert!(sni.len() <= 253 && !sni.ends_with('.') && !sni.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        } else if let (Err(glance), Some(Look::NotTls(not_tls))) = (glance, first) {
            prop_assert_eq!(glance, *not_tls);
        }
    }
}
