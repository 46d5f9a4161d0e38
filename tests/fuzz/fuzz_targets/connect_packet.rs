//! Any bytes as what a client says first where the lb sees MQTT. What the codec takes for a CONNECT is one here too.

#![no_main]

use bytes::BytesMut;
use evermq_lb::connect_packet::{Look, MAX, look};
use evermq_mqtt::codec::{self, Limits};
use evermq_mqtt::{Packet, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = look(bytes);
    assert!(whole != Look::NeedMore || bytes.len() < MAX);
    let half = look(&bytes[..bytes.len() / 2]);
    assert!(half == Look::NeedMore || half == whole);
    let limits = Limits { max_packet_size: MAX as u32 };
    if let Ok(Some(Packet::Connect(packet))) = codec::decode(&mut BytesMut::from(bytes), Version::V5, &limits) {
        let Look::Connect(found) = whole else { panic!("{whole:?}") };
        assert_eq!((found.version, found.client_id), (packet.version, packet.client_id.as_str().as_bytes()));
    }
});
