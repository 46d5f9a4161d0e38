//! Bytes that other codecs wrote for the packets of `other_codecs/packets.rs`, from `tests/captures/mqtt-codecs`: read as those packets.

mod packets;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::BytesMut;
use evermq_mqtt::codec::{Limits, decode, encode};
use evermq_mqtt::{Packet, Version};

/// Each file and how many vectors it holds: what a codec refuses of the list, or writes wrong, is said in its comments.
const FILES: [(&str, usize); 4] =
    [("mqtt-proto", 48), ("mqtt-protocol-core", 50), ("rmqtt-codec", 50), ("rumqttc", 46)];

type Vectors = Vec<(String, Version, Vec<u8>)>;

fn vectors(file: &str) -> Vectors {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/captures/mqtt-codecs/{file}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vector = |line: &str| {
        let mut words = line.split(' ');
        let version = match words.next() {
            Some("4") => Version::V4,
            Some("5") => Version::V5,
            other => panic!("{file}: version {other:?}"),
        };
        let name = words.next().expect("a name").to_owned();
        (name, version, words.map(|byte| u8::from_str_radix(byte, 16).expect("two digits")).collect())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(vector).collect()
}

#[test]
fn others_bytes_mean_what_was_meant() {
    let meant: BTreeMap<_, Packet> =
        packets::packets().into_iter().map(|(name, version, packet)| ((name.to_owned(), version), packet)).collect();
    for (file, count) in FILES {
        let found = vectors(file);
        assert_eq!(found.len(), count, "{file}");
        for (name, version, bytes) in found {
            let expected = &meant[&(name.clone(), version)];
            let mut buffer = BytesMut::from(&bytes[..]);
            let packet = decode(&mut buffer, version, &Limits::default());
            assert_eq!(packet.as_ref(), Ok(&Some(expected.clone())), "{file} {name} {version:?}");
            assert!(buffer.is_empty(), "{file} {name}");
            let mut out = BytesMut::new();
            encode(expected, version, &mut out).expect("a valid packet");
            assert_eq!(decode(&mut out, version, &Limits::default()).as_ref(), Ok(&Some(expected.clone())));
        }
    }
}
