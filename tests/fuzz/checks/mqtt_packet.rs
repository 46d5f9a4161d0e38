//! Any bytes as packets of MQTT 3.1, 3.1.1 and 5.0, the version by the first byte. What is accepted can be sent again and means the same,
//! a prefix is never taken for something else, and a message is the same to one receiver as to many.

use bytes::BytesMut;
use evermq_mqtt::codec::{
    self, DecodeError, Limits, PublishFrame, Sender, Sent, check_sender, connect_version, decode, encode,
    encode_publish, encoded_len, publish_len,
};
use evermq_mqtt::{Packet, Publish, Version};

const LIMITS: Limits = Limits { max_packet_size: 4096 };

pub(crate) fn run(bytes: &[u8]) {
    let Some((first, stream)) = bytes.split_first() else { return };
    let version = [Version::V3, Version::V4, Version::V5][usize::from(first % 3)];
    let mut input = BytesMut::from(stream);
    let mut at = 0;
    loop {
        let rest = &stream[at..];
        match decode(&mut input, version, &LIMITS) {
            Ok(None) => return,
            Ok(Some(packet)) => {
                at = stream.len() - input.len();
                whole(&packet, rest, rest.len() - input.len(), version);
            }
            Err(error) => return refused(&error, rest, version),
        }
    }
}

fn whole(packet: &Packet, rest: &[u8], size: usize, version: Version) {
    // A CONNECT names its own version.
    let version = match packet {
        Packet::Connect(connect) => {
            assert_eq!(connect_version(rest), Some(connect.version));
            connect.version
        }
        _ => version,
    };
    assert!(size <= LIMITS.max_packet_size as usize);
    for cut in [0, 1, size / 2, size - 1] {
        let mut part = BytesMut::from(&rest[..cut]);
        assert_eq!(decode(&mut part, version, &LIMITS), Ok(None), "{cut} of {size} bytes");
        assert_eq!(&part[..], &rest[..cut]);
    }
    let mut out = BytesMut::new();
    encode(packet, version, &mut out).expect("what was accepted can be sent");
    assert_eq!(out.len(), encoded_len(packet, version));
    assert!(out.len() <= size, "longer than it came: {packet:?}");
    if let Packet::Publish(publish) = packet {
        let frame = PublishFrame::new(publish, version, publish.qos).expect("what was accepted can be sent");
        let mut shared = BytesMut::new();
        frame.write(&mut shared, publish.dup, publish.retain, publish.packet_id);
        assert_eq!(shared, out);
        let Publish { qos, dup, retain, packet_id, .. } = *publish;
        let mut alone = BytesMut::new();
        encode_publish(publish, Sent { version, qos, dup, retain, packet_id }, &mut alone).expect("the same");
        assert_eq!(alone, out);
        assert_eq!(publish_len(publish, version, qos), out.len());
    }
    assert_eq!(decode(&mut out, version, &LIMITS).as_ref(), Ok(&Some(packet.clone())));
    assert!(out.is_empty());
    for sender in [Sender::Client, Sender::Server] {
        if let Err(error) = check_sender(packet, sender) {
            assert!(error.reason().is_error());
        }
    }
    let _ = codec::packet_type(packet);
}

/// A refusal is a reason that a DISCONNECT or CONNACK can carry, and does not come and go with what follows.
fn refused(error: &DecodeError, rest: &[u8], version: Version) {
    assert!(error.reason().is_error() && !error.to_string().is_empty());
    let mut longer = BytesMut::from(rest);
    longer.extend_from_slice(&[0; 8]);
    assert!(decode(&mut longer, version, &LIMITS).is_err());
}
