use bytes::BytesMut;
use evermq_mqtt::codec::{Limits, decode, encode};
use evermq_mqtt::{Packet, Version as Level};

use super::{Codec, Refusal, Version};

/// `crates/mqtt`.
pub struct EverMq;

/// The version in the words of `crates/mqtt`.
#[must_use]
pub fn level(version: Version) -> Level {
    match version {
        Version::V4 => Level::V4,
        Version::V5 => Level::V5,
    }
}

impl Codec for EverMq {
    const NAME: &'static str = "crates/mqtt";
    type Packet = Packet;
    type Stream = (Level, Limits);

    fn stream(version: Version, limit: u32) -> Self::Stream {
        (level(version), Limits { max_packet_size: limit })
    }

    fn decode((version, limits): &mut Self::Stream, input: &mut BytesMut) -> Result<Option<Packet>, Refusal> {
        decode(input, *version, limits)
            .map_err(|error| Refusal { code: Some(error.reason() as u8), text: error.to_string() })
    }

    fn encode(packet: Packet, version: Version, out: &mut BytesMut) -> Result<(), String> {
        encode(&packet, level(version), out).map_err(|error| error.to_string())
    }
}
