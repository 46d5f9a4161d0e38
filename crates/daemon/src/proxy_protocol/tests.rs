//! Headers of HAProxy and nginx out of `tests/captures/proxy`, in pieces, mutated, and our own.

use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

use super::*;

const CAPTURES: [&str; 12] = [
    "haproxy-v1",
    "haproxy-v1-ipv6",
    "haproxy-v2",
    "haproxy-v2-ipv6",
    "haproxy-v2-crc32c-unique-id",
    "haproxy-v2-ssl-cn",
    "haproxy-v2-ssl-all",
    "haproxy-v2-ssl-no-certificate",
    "haproxy-v2-check",
    "nginx-v1",
    "nginx-v1-ipv6",
    "python-v2-ssl-client-cert",
];
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn capture(name: &str) -> Vec<u8> {
    evermq_captures::packet("proxy", name)
}

fn header(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Parsed::Header { header, length } if length == bytes.len() => header,
        other => panic!("{other:?}"),
    }
}

fn v2(what: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[what, family], &length, rest].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

fn whole() -> Header {
    Header {
        alpn: Some(Box::from(&b"mqtt"[..])),
        authority: Some("mqtt.example.org".into()),
        unique_id: Some(Box::from(&b"lb1-1234"[..])),
        ssl: Some(Box::new(Ssl {
            is_tls: true,
            shown: true,
            in_session: true,
            verify: 0,
            version: Some("TLSv1.3".into()),
            cipher: Some("TLS_AES_256_GCM_SHA384".into()),
            cn: Some("Gerät 17".into()),
            dn: Some("CN=Gerät 17,O=Plant 7,C=DE".into()),
            sig_alg: Some("ecdsa-with-SHA256".into()),
            key_alg: Some("EC256".into()),
            certificate: Some(Box::from(&[0x30, 0x82, 0xFF, 0x00][..])),
        })),
        ..Header::proxy("192.0.2.7:40000".parse().unwrap(), "192.0.2.1:8883".parse().unwrap())
    }
}

#[test]
fn what_other_programs_send_is_understood() {
    for name in CAPTURES {
        let header = header(&capture(name));
        if name == "haproxy-v2-check" {
            assert_eq!(header, Header::LOCAL);
            continue;
        }
        let addresses = header.addresses.unwrap();
        let host: IpAddr = if header.source().unwrap().is_ipv6() { "::1" } else { "127.0.0.1" }.parse().unwrap();
        assert_eq!(addresses.source.is_ipv6(), name.ends_with("ipv6") || name == "haproxy-v2-ssl-all", "{name}");
        assert_eq!((addresses.source.ip(), addresses.destination.ip()), (host, host));
        assert!(addresses.source.port() >= 1024 && addresses.destination.port() >= 1024);
        if !name.contains("ssl") {
            let unique_id = name.ends_with("unique-id").then(|| Box::from(&b"connection-1"[..]));
            let plain = Header { unique_id, ..Header::proxy(addresses.source, addresses.destination) };
            assert_eq!(header, plain, "{name}");
        }
    }
}

#[test]
fn the_certificate_that_haproxy_saw_is_understood() {
    let found = header(&capture("haproxy-v2-ssl-cn"));
    let ssl = found.ssl.unwrap();
    assert!(ssl.is_tls && ssl.shown && ssl.in_session && ssl.is_verified());
    assert_eq!((ssl.version.as_deref(), ssl.cn.as_deref()), (Some("TLSv1.3"), Some("device-17")));
    assert_eq!(found.alpn.as_deref(), Some(&b"mqtt"[..]));

    let all = header(&capture("haproxy-v2-ssl-all"));
    let ssl = all.ssl.unwrap();
    assert!(ssl.is_verified());
    assert_eq!(all.authority.as_deref(), Some("mqtt.example.org"));
    assert_eq!(all.unique_id.as_deref(), Some(&b"connection-1"[..]));
    assert_eq!(ssl.cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
    assert_eq!(ssl.sig_alg.as_deref(), Some("ecdsa-with-SHA256"));
    assert_eq!(ssl.key_alg.as_deref(), Some("EC256"));

    let sent = header(&capture("python-v2-ssl-client-cert")).ssl.unwrap();
    assert!(sent.is_verified() && sent.cn.as_deref() == Some("device-17"));
    let certificate = CertificateDer::from(sent.certificate.as_deref().unwrap());
    assert_eq!(crate::tls::common_name(&certificate).as_deref(), Some("device-17"));
    assert_eq!(crate::tls::first_uri(&certificate).as_deref(), Some("urn:device:17"));
    assert_eq!(crate::tls::first_dns_name(&certificate).as_deref(), Some("device-17.example"));

    // OpenSSL's result is 0 here too, and must not pass for a certificate.
    let none = header(&capture("haproxy-v2-ssl-no-certificate")).ssl.unwrap();
    assert!(none.is_tls && none.verify == 0 && none.cn.is_none() && !none.is_verified());
}

#[test]
fn headers_may_come_in_pieces() {
    for name in CAPTURES {
        let bytes = capture(name);
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Parsed::NeedMore, "{name}, {length} bytes");
        }
        // Who reads no further than the header says reads the header.
        if name.contains("v2") {
            assert_eq!(length_v2(&bytes[..15]), 16);
            assert_eq!(length_v2(&bytes[..16]), bytes.len());
            assert_eq!(parse_v2(&bytes), parse(&bytes));
        } else {
            assert_eq!(parse_v2(&bytes), Parsed::Invalid(Invalid::NotProxy));
        }
        // What comes behind it is the client's.
        let more = [&bytes[..], b"\x16\x03\x01"].concat();
        assert_eq!(parse(&more), Parsed::Header { header: header(&bytes), length: bytes.len() });
    }
}

#[test]
fn a_flipped_bit_is_found_by_the_checksum() {
    for name in ["haproxy-v2-crc32c-unique-id", "haproxy-v2-ssl-all"] {
        let bytes = capture(name);
        // Before byte 16 a header may become LOCAL, whose content does not count.
        for bit in 16 * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Parsed::Invalid(invalid) = parse(&flipped) else {
                // The type of the checksum's own TLV has become one that is not looked at.
                assert_eq!(bytes[bit / 8], 3, "{name}, bit {bit}");
                continue;
            };
            assert!(matches!(invalid, Invalid::Checksum | Invalid::Truncated | Invalid::Duplicate | Invalid::Value));
        }
    }
}

#[test]
fn lines_of_version_1() {
    let good = [
        ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", "0.0.0.0:0", "255.255.255.255:65535"),
        ("PROXY TCP6 2001:db8::7 ::ffff:192.0.2.1 1 2\r\n", "[2001:db8::7]:1", "[::ffff:192.0.2.1]:2"),
    ];
    for (line, source, destination) in good {
        assert_eq!(header(line.as_bytes()), Header::proxy(source.parse().unwrap(), destination.parse().unwrap()));
    }
    let widest = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(widest.len(), MAX_V1);
    for line in [&widest[..], "PROXY UNKNOWN\r\n", "PROXY UNKNOWN \x01\x02\n?\r\n"] {
        assert_eq!(header(line.as_bytes()), Header { command: Command::Proxy, ..Header::LOCAL });
    }
    for line in [
        "PROXY TCP4 192.0.2.7 192.0.2.1 40000\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883 \r\n",
        "PROXY TCP4  192.0.2.7 192.0.2.1 40000 8883\r\n",
        "PROXY TCP4 192.0.2.07 192.0.2.1 40000 8883\r\n",
        "PROXY TCP4 ::1 ::1 40000 8883\r\n",
        "PROXY TCP6 192.0.2.7 192.0.2.1 40000 8883\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 040000 8883\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 +4000 8883\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 65536 8883\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1  8883\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\n\r\n",
        "PROXY TCP4 192.0.2.7\t192.0.2.1 40000 8883\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Parsed::Invalid(Invalid::Line), "{line:?}");
    }
    assert_eq!(parse(b"PROXX"), Parsed::Invalid(Invalid::NotProxy));
    assert_eq!(parse(b"PUBLISH"), Parsed::Invalid(Invalid::NotProxy));
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(&endless.as_bytes()[..MAX_V1 - 1]), Parsed::NeedMore);
    assert_eq!(parse(&endless.as_bytes()[..MAX_V1]), Parsed::Invalid(Invalid::Endless));
}

#[test]
fn headers_of_version_2_that_are_refused() {
    let four = [192, 0, 2, 7, 192, 0, 2, 1, 0x9C, 0x40, 0x22, 0xB3];
    let with = |tlvs: &[Vec<u8>]| v2(0x21, 0x11, &[&four[..], &tlvs.concat()].concat());
    let ssl = |subs: &[Vec<u8>]| tlv(0x20, &[&[1, 0, 0, 0, 0][..], &subs.concat()].concat());
    let cases = [
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), Invalid::NotProxy),
        (b"\r\nGET".to_vec(), Invalid::NotProxy),
        (v2(0x11, 0x11, &four), Invalid::Version),
        (v2(0x31, 0x11, &four), Invalid::Version),
        (v2(0x22, 0x11, &four), Invalid::Command),
        (v2(0x21, 0x41, &four), Invalid::Family),
        (v2(0x21, 0x13, &four), Invalid::Family),
        (v2(0x21, 0x11, &[0; MAX - 15]), Invalid::TooLong),
        (v2(0x21, 0x11, &four[..11]), Invalid::Truncated),
        (v2(0x21, 0x21, &four), Invalid::Truncated),
        (with(&[vec![4, 0]]), Invalid::Truncated),
        (with(&[vec![4, 0, 2, 0]]), Invalid::Truncated),
        (with(&[tlv(0x20, &[1, 0, 0, 0])]), Invalid::Truncated),
        (with(&[tlv(0x20, &[1, 0, 0, 0, 0, 0x22, 0, 9, b'x'])]), Invalid::Truncated),
        (with(&[tlv(2, b"a"), tlv(2, b"a")]), Invalid::Duplicate),
        (with(&[tlv(TYPE_CLIENT_DN, b"a"), tlv(TYPE_CLIENT_DN, b"a")]), Invalid::Duplicate),
        (with(&[ssl(&[]), ssl(&[])]), Invalid::Duplicate),
        (with(&[ssl(&[tlv(0x22, b"a"), tlv(0x22, b"b")])]), Invalid::Duplicate),
        (with(&[ssl(&[tlv(0x28, b"a"), tlv(0x28, b"b")])]), Invalid::Duplicate),
        (with(&[tlv(3, &[0; 4])]), Invalid::Checksum),
        (with(&[tlv(3, &[0; 3])]), Invalid::Value),
        (with(&[tlv(5, &[0; 129])]), Invalid::Value),
        (with(&[tlv(2, b"\xFF")]), Invalid::Value),
    ];
    for (bytes, invalid) in cases {
        assert_eq!(parse(&bytes), Parsed::Invalid(invalid), "{bytes:02x?}");
    }
}

#[test]
fn what_is_not_known_is_passed_over() {
    let unknown = Header { command: Command::Proxy, ..Header::LOCAL };
    // UDP, Unix sockets and nothing at all are valid; who the client is stays unknown then.
    assert_eq!(header(&v2(0x21, 0x12, &[7; 12])), unknown);
    assert_eq!(header(&v2(0x21, 0x31, &[7; 216])), unknown);
    assert_eq!(header(&v2(0x21, 0x00, &[])), unknown);
    let id = Some(Box::from(&b"id"[..]));
    assert_eq!(header(&v2(0x21, 0x00, &tlv(5, b"id"))), Header { unique_id: id, ..unknown.clone() });
    // NOOP, NETNS, others' own, the future.
    let tlvs = [4, 0x30, 0xE7, 0xFF].map(|kind| tlv(kind, b"\xFF\xFF\xFF")).concat();
    assert_eq!(header(&v2(0x21, 0x00, &tlvs)), unknown);
    // A name of a certificate without TLS means nothing.
    assert_eq!(header(&v2(0x21, 0x00, &tlv(TYPE_CLIENT_DN, b"CN=root"))), unknown);
    // LOCAL: whatever is in it, be it nonsense.
    assert_eq!(header(&v2(0x20, 0xFF, &[9; 50])), Header::LOCAL);
    assert_eq!(header(&v2(0x21, 0x00, &tlv(4, &[0; MAX - 19]))), unknown);
}

#[test]
fn what_we_send_comes_back() {
    let mut out = b"before".to_vec();
    whole().encode_v2(&mut out);
    assert_eq!(header(&out[6..]), whole());
    let mut local = Vec::new();
    Header::LOCAL.encode_v2(&mut local);
    assert_eq!(local, v2(0x20, 0, &[]));
}

#[test]
fn addresses_of_two_families_become_one() {
    let cases = [
        ("[::ffff:192.0.2.7]:1", "[::ffff:192.0.2.1]:2", "192.0.2.7:1", "192.0.2.1:2"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.1:2", "192.0.2.7:1", "192.0.2.1:2"),
        ("192.0.2.7:1", "[2001:db8::1]:2", "[::ffff:192.0.2.7]:1", "[2001:db8::1]:2"),
        ("[2001:db8::7]:1", "[2001:db8::1]:2", "[2001:db8::7]:1", "[2001:db8::1]:2"),
    ];
    for (source, destination, source_sent, destination_sent) in cases {
        let mut out = Vec::new();
        Header::proxy(source.parse().unwrap(), destination.parse().unwrap()).encode_v2(&mut out);
        let expected = Header::proxy(source_sent.parse().unwrap(), destination_sent.parse().unwrap());
        assert_eq!(header(&out), expected, "{source} {destination}");
    }
}

#[test]
fn what_is_too_long_is_left_out_and_never_cut() {
    let huge = |length: usize| Some(Box::from("x".repeat(length)));
    let bytes = |length: usize| Some(vec![b'x'; length].into_boxed_slice());
    let at = |short, name, id| Header {
        alpn: bytes(short),
        authority: huge(short),
        unique_id: bytes(id),
        ssl: Some(Box::new(Ssl {
            version: huge(short),
            cipher: huge(short),
            cn: huge(name),
            dn: huge(name),
            sig_alg: huge(short),
            key_alg: huge(short),
            ..Ssl::default()
        })),
        ..whole()
    };
    let mut out = Vec::new();
    at(255, 1024, 128).encode_v2(&mut out);
    assert!(out.len() <= MAX, "{}", out.len());
    assert_eq!(header(&out), at(255, 1024, 128));
    out.clear();
    at(256, 1025, 129).encode_v2(&mut out);
    let nothing = Header { alpn: None, authority: None, unique_id: None, ssl: Some(Box::default()), ..whole() };
    assert_eq!(header(&out), nothing);
}

#[test]
fn a_certificate_has_what_room_is_left() {
    let with = |certificate: usize, name: usize| {
        let mut header = whole();
        let ssl = header.ssl.as_mut().unwrap();
        ssl.certificate = Some(vec![0x30; certificate].into());
        ssl.dn = Some("x".repeat(name).into());
        header
    };
    let encoded = |header: &Header| {
        let mut out = b"before".to_vec();
        header.encode_v2(&mut out);
        out.split_off(6)
    };
    let others = encoded(&with(0, 100)).len();
    let most = MAX - others;
    let full = encoded(&with(most, 100));
    assert_eq!((full.len(), header(&full)), (MAX, with(most, 100)));
    // One byte more, of the certificate or of a name that everybody can read: then without it.
    for beyond in [with(most + 1, 100), with(most, 101)] {
        let found = header(&encoded(&beyond));
        let without = Ssl { certificate: None, ..*beyond.ssl.clone().unwrap() };
        assert_eq!(found.ssl.as_deref(), Some(&without));
    }
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    (0..CAPTURES.len(), proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)).prop_map(
        |(index, changes)| {
            let mut bytes = capture(CAPTURES[index]);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        },
    )
}

proptest! {
    /// However the bytes come, the answer is the same, and it comes before `MAX` bytes have.
    #[test]
    fn pieces_do_not_change_the_answer(bytes in prop_oneof![any_header(), proptest::collection::vec(any::<u8>(), 0..300)]) {
        let answers: Vec<Parsed> = (0..=bytes.len()).map(|length| parse(&bytes[..length])).collect();
        let first = answers.iter().find(|answer| **answer != Parsed::NeedMore);
        let last = answers.last().unwrap();
        prop_assert_eq!(first.unwrap_or(&Parsed::NeedMore), last);
        let more = [&bytes[..], &[0; MAX]].concat();
        prop_assert_ne!(parse(&more), Parsed::NeedMore);
        if let Parsed::Header { header: found, .. } = last {
            let mut out = Vec::new();
            found.encode_v2(&mut out);
            // An IPv4 address written as IPv6 is sent as IPv4; then nothing changes any more.
            let sent = header(&out);
            out.clear();
            sent.encode_v2(&mut out);
            prop_assert_eq!(header(&out), sent);
        }
    }
}
