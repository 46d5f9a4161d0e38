use bytes::{Buf as _, BytesMut};
use mqtt_proto::{Error, PollHeader, v3, v5};

use super::{Codec, Refusal, Version};

/// mqtt-proto: its header, then its decoder of whole buffers. It takes no limit: a caller that wants one looks at the header
/// itself, as is done here.
pub struct MqttProto;

/// A packet of either version.
#[derive(Clone)]
pub enum Packet {
    /// MQTT 3.1.1.
    V4(v3::Packet),
    /// MQTT 5.0.
    V5(v5::Packet),
}

/// The causes of its own that have one code only in the standard; the crate itself names none.
fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal { code: None, text: error.to_string() }
}

fn decode_as<H: PollHeader>(input: &mut BytesMut, header: H) -> Result<Option<H::Packet>, Refusal>
where
    H::Error: std::fmt::Display,
{
    // Where the body begins is for the caller to find: a header that was decoded by itself does not say.
    let head = 2 + input[1..].iter().take_while(|byte| **byte & 0x80 != 0).count();
    let total = head + header.remaining_len();
    if input.len() < total {
        return Ok(None);
    }
    let packet = match header.build_empty_packet() {
        Some(packet) => packet,
        None => header.decode_buffer(&input[head..total], &mut 0).map_err(refusal)?,
    };
    input.advance(total);
    Ok(Some(packet))
}

impl Codec for MqttProto {
    const NAME: &'static str = "mqtt-proto 0.4.0";
    type Packet = Packet;
    type Stream = (Version, u32);

    fn stream(version: Version, limit: u32) -> Self::Stream {
        (version, limit)
    }

    fn decode((version, limit): &mut Self::Stream, input: &mut BytesMut) -> Result<Option<Packet>, Refusal> {
        let too_large = |remaining: u32| remaining > *limit;
        let large = || Refusal { code: None, text: "too large".to_owned() };
        match version {
            Version::V4 => match v3::Header::decode(input) {
                Ok(header) if too_large(header.remaining_len) => Err(large()),
                Ok(header) => Ok(decode_as(input, header)?.map(Packet::V4)),
                Err(Error::IoError(_)) => Ok(None),
                Err(error) => Err(refusal(error)),
            },
            Version::V5 => match v5::Header::decode(input) {
                Ok(header) if too_large(header.remaining_len) => Err(large()),
                Ok(header) => Ok(decode_as(input, header)?.map(Packet::V5)),
                Err(error) if error.is_eof() => Ok(None),
                Err(error) => Err(refusal(error)),
            },
        }
    }

    fn encode(packet: Packet, _: Version, out: &mut BytesMut) -> Result<(), String> {
        let bytes = match packet {
            Packet::V4(packet) => packet.encode().map_err(|error| error.to_string())?,
            Packet::V5(packet) => packet.encode().map_err(|error| error.to_string())?,
        };
        out.extend_from_slice(bytes.as_ref());
        Ok(())
    }
}
