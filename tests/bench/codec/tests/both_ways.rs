//! Packets both ways: what ours writes, theirs reads and writes again, and ours reads that as what it was; what theirs makes up, ours reads
//! and writes again, and theirs reads that as what it was. Where another codec fails the standard, the table says so and why.

#[path = "../../../../crates/mqtt/tests/mqtt/strategy/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of crates/mqtt, which use all of it")]
mod strategy;

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use arbitrary::{Arbitrary as _, Unstructured};
use bytes::BytesMut;
use evermq_codec_bench::codecs::{
    Codec, EverMq, MqttProto, ProtocolCore, RMqtt, Rumqttc, Version, decode_whole, level, round_trip,
};
use evermq_mqtt::codec::{PacketType, packet_type};
use evermq_mqtt::{Packet, ReasonCode};
use mqtt_proto::{v3, v5};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

const PACKETS: usize = 6_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Deviation {
    Refuses,
    Changes,
    Panics,
}

/// Codec, packet, version, what it does with one that the standard allows, and why.
type Known = (&'static str, PacketType, Version, Deviation, &'static str);

const PROTO: &str = MqttProto::NAME;
const CORE: &str = ProtocolCore::NAME;
const RMQTT: &str = RMqtt::NAME;
const RUMQTTC: &str = Rumqttc::NAME;

#[rustfmt::skip]
const KNOWN: &[Known] = &[
    (PROTO, PacketType::Connect, Version::V5, Deviation::Refuses, "a will whose payload is not the UTF-8 that it says, which the standard allows it to"),
    (PROTO, PacketType::Publish, Version::V5, Deviation::Refuses, "several subscription identifiers (§3.3.4); the same of payloads"),
    (PROTO, PacketType::SubAck, Version::V4, Deviation::Changes, "writes a failure as 0x03, which 3.1.1 [MQTT-3.9.3-2] reserves"),
    (PROTO, PacketType::Disconnect, Version::V5, Deviation::Refuses, "0x8C, which table 2-6 allows and table 3-10 leaves out"),
    (CORE, PacketType::Connect, Version::V5, Deviation::Refuses, "a password without a user name, which only 3.1.1 forbids"),
    (CORE, PacketType::Disconnect, Version::V5, Deviation::Refuses, "0x8C, as above"),
    (RMQTT, PacketType::Connect, Version::V5, Deviation::Refuses, "an empty client identifier without Clean Start, which only 3.1.1 forbids"),
    (RMQTT, PacketType::Connect, Version::V5, Deviation::Changes, "leaves out properties that have their default value"),
    (RMQTT, PacketType::ConnAck, Version::V5, Deviation::Changes, "leaves out properties that have their default value"),
    (RMQTT, PacketType::Publish, Version::V5, Deviation::Changes, "leaves out properties that have their default value"),
    (RUMQTTC, PacketType::Connect, Version::V5, Deviation::Refuses, "a password without a user name, which only 3.1.1 forbids"),
    (RUMQTTC, PacketType::Connect, Version::V5, Deviation::Changes, "a user name or password that is there and empty"),
    (RUMQTTC, PacketType::Disconnect, Version::V5, Deviation::Refuses, "a reason code without properties (§3.14.2.2.1)"),
    (RUMQTTC, PacketType::Auth, Version::V5, Deviation::Refuses, "AUTH"),
];

/// Runs the same packets through `C` and returns each way in which it deviates, with how often and one example.
fn deviations<C: Codec>() -> BTreeMap<(u8, bool, Deviation), (usize, String)> {
    let mut runner = TestRunner::deterministic();
    let packets = strategy::packet();
    let mut found = BTreeMap::new();
    for _ in 0..PACKETS {
        let packet = packets.new_tree(&mut runner).expect("a packet").current();
        for version in [Version::V4, Version::V5] {
            // A CONNECT names its own version.
            if matches!(&packet, Packet::Connect(connect) if connect.version != level(version)) {
                continue;
            }
            let mut bytes = BytesMut::new();
            if EverMq::encode(packet.clone(), version, &mut bytes).is_err() {
                // What MQTT 3.1.1 cannot say.
                assert_eq!(version, Version::V4, "{packet:?}");
                continue;
            }
            let Ok(meant) = decode_whole::<EverMq>(&bytes, version) else { continue };
            let (deviation, said) = match catch_unwind(|| round_trip::<C>(&bytes, version)) {
                Err(_) => (Deviation::Panics, String::new()),
                Ok(Err(text)) => (Deviation::Refuses, text),
                Ok(Ok(theirs)) => match decode_whole::<EverMq>(&theirs, version) {
                    Ok(read) if read == meant => continue,
                    Ok(read) => (Deviation::Changes, format!("{read:?}")),
                    Err(refusal) => (Deviation::Changes, format!("{}: {theirs:02x?}", refusal.text)),
                },
            };
            let key = (packet_type(&meant) as u8, version == Version::V5, deviation);
            let example = || {
                let mut text = format!("{said} <- {meant:?}");
                text.truncate(text.floor_char_boundary(1500));
                text
            };
            found.entry(key).or_insert_with(|| (0, example())).0 += 1;
        }
    }
    found
}

fn check<C: Codec>() {
    std::panic::set_hook(Box::new(|_| {}));
    let found = deviations::<C>();
    let _ = std::panic::take_hook();
    let mut unknown = Vec::new();
    for (&(kind, is_v5, deviation), (count, example)) in &found {
        let version = if is_v5 { Version::V5 } else { Version::V4 };
        println!("{} {kind} {version:?} {deviation:?}: {count} of {PACKETS}, {example}", C::NAME);
        let is_known =
            KNOWN.iter().any(|known| (known.0, known.1 as u8, known.2, known.3) == (C::NAME, kind, version, deviation));
        if !is_known {
            unknown.push(format!("{kind} {version:?} {deviation:?}: {example}"));
        }
    }
    assert!(unknown.is_empty(), "{} deviates where it did not:\n{}", C::NAME, unknown.join("\n"));
}

#[test]
fn ours() {
    assert_eq!(deviations::<EverMq>(), BTreeMap::new());
}

#[test]
fn mqtt_protocol_core() {
    check::<ProtocolCore>();
}

#[test]
fn rmqtt_codec() {
    check::<RMqtt>();
}

#[test]
fn mqtt_proto() {
    check::<MqttProto>();
}

#[test]
fn rumqttc() {
    check::<Rumqttc>();
}

/// Bytes that mean nothing, for making packets up; the same in each run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Small numbers often: lengths and counts that leave something for the rest.
            let byte = (state >> 32) as u8;
            if state & 3 == 0 { byte % 6 } else { byte }
        })
        .collect()
}

/// mqtt-proto can make its packets up; those that the standard allows come back as they were.
#[test]
fn packets_that_mqtt_proto_makes_up() {
    let (mut read, mut refused) = (0, BTreeMap::<String, usize>::new());
    for seed in 0..20_000 {
        let noise = noise(seed, 400);
        let mut source = Unstructured::new(&noise);
        let (bytes, version) = if seed % 2 == 0 {
            let Ok(packet) = v5::Packet::arbitrary(&mut source) else { continue };
            let Ok(bytes) = packet.encode() else { continue };
            // What it would not read itself is nobody's packet.
            if v5::Packet::decode(bytes.as_ref()).ok().flatten().as_ref() != Some(&packet) {
                continue;
            }
            (bytes, Version::V5)
        } else {
            let Ok(packet) = v3::Packet::arbitrary(&mut source) else { continue };
            let Ok(bytes) = packet.encode() else { continue };
            if v3::Packet::decode(bytes.as_ref()).ok().flatten().as_ref() != Some(&packet) {
                continue;
            }
            (bytes, Version::V4)
        };
        match decode_whole::<EverMq>(bytes.as_ref(), version) {
            Err(refusal) => {
                assert!(refusal.code.is_some_and(|code| ReasonCode::from_u8(code).is_some_and(ReasonCode::is_error)));
                *refused.entry(refusal.text).or_default() += 1;
            }
            Ok(packet) => {
                read += 1;
                // A CONNECT names its version; mqtt-proto makes up MQTT 3.1 too.
                if matches!(&packet, Packet::Connect(connect) if connect.version == evermq_mqtt::Version::V3) {
                    continue;
                }
                let mut ours = BytesMut::new();
                EverMq::encode(packet.clone(), version, &mut ours).expect("what was read can be written");
                let again = round_trip::<MqttProto>(&ours, version).unwrap_or_else(|text| panic!("{packet:?}: {text}"));
                assert_eq!(decode_whole::<EverMq>(&again, version), Ok(packet));
            }
        }
    }
    println!("{read} read, refused: {refused:#?}");
    assert!(read > 2_000, "{read} packets read; refused: {refused:?}");
}
