//! Bytes that other codecs wrote for the packets of `other_codecs/packets.rs`, from `tests/captures/mqtt-codecs`: read as those packets.

mod packets;

use std::collections::BTreeMap;

use bytes::BytesMut;
use evermq_mqtt::codec::{Limits, decode, encode};
use evermq_mqtt::{Packet, Version};

/// Each file and how many vectors it holds: what a codec refuses of the list, or writes wrong, is said in its comments.
const FILES: [(&str, usize); 4] =
    [("mqtt-proto", 48), ("mqtt-protocol-core", 50), ("rmqtt-codec", 50), ("rumqttc", 46)];

type Vectors = Vec<(String, Version, Vec<u8>)>;

fn vectors(file: &str) -> Vectors {
    let vector = |line: &String| {
        let [version, name, hex] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{file}: {line}") };
        let version = match version {
            "4" => Version::V4,
            "5" => Version::V5,
            other => panic!("{file}: version {other}"),
        };
        (name.to_owned(), version, evermq_captures::bytes(hex))
    };
    evermq_captures::lines("mqtt-codecs", file).iter().map(vector).collect()
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
