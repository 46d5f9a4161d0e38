use bytes::BytesMut;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::v5::ToReasonCode as _;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder as _, Encoder as _};

use super::{Codec, Refusal, Version};

/// rmqtt-codec: a tokio codec for each version.
pub struct RMqtt;

/// A packet of either version.
#[derive(Clone)]
pub enum Packet {
    /// MQTT 3.1.1.
    V4(v3::Packet),
    /// MQTT 5.0.
    V5(v5::Packet),
}

/// The decoder of either version.
pub enum Stream {
    /// MQTT 3.1.1.
    V4(v3::Codec),
    /// MQTT 5.0.
    V5(v5::Codec),
}

fn refusal(error: &DecodeError) -> Refusal {
    Refusal { code: Some(error.to_reason_code().into()), text: error.to_string() }
}

impl Codec for RMqtt {
    const NAME: &'static str = "rmqtt-codec 0.3.1";
    type Packet = Packet;
    type Stream = Stream;

    fn stream(version: Version, limit: u32) -> Stream {
        match version {
            Version::V4 => Stream::V4(v3::Codec::new(limit)),
            Version::V5 => Stream::V5(v5::Codec::new(limit, 0)),
        }
    }

    fn decode(stream: &mut Stream, input: &mut BytesMut) -> Result<Option<Packet>, Refusal> {
        match stream {
            Stream::V4(codec) => codec.decode(input).map(|found| found.map(|(packet, _)| Packet::V4(packet))),
            Stream::V5(codec) => codec.decode(input).map(|found| found.map(|(packet, _)| Packet::V5(packet))),
        }
        .map_err(|error| refusal(&error))
    }

    fn encode(packet: Packet, _: Version, out: &mut BytesMut) -> Result<(), String> {
        match packet {
            Packet::V4(packet) => v3::Codec::new(0).encode(packet, out),
            Packet::V5(packet) => v5::Codec::new(0, 0).encode(packet, out),
        }
        .map_err(|error| error.to_string())
    }
}
