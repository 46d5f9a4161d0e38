use bytes::{Buf as _, BytesMut};
use mqtt_protocol_core::mqtt::common::Cursor;
use mqtt_protocol_core::mqtt::connection::{PacketBuildResult, PacketBuilder, PacketData, RawPacket};
use mqtt_protocol_core::mqtt::packet::{GenericPacketTrait as _, Packet, v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;

use super::{Codec, Refusal, Version};

/// mqtt-protocol-core: the builder and the parsers that its connection uses.
pub struct ProtocolCore;

/// Codes from 0x100 on are the library's own.
fn refusal(error: MqttError) -> Refusal {
    Refusal { code: u8::try_from(error as u16).ok(), text: format!("{error:?}") }
}

fn parse_v4(raw: &RawPacket) -> Result<Packet, MqttError> {
    Ok(match (raw.packet_type(), &raw.data) {
        (3, PacketData::Publish(bytes)) => v3_1_1::Publish::parse(raw.flags(), bytes.clone())?.0.into(),
        (1, _) => raw.parse_exact(v3_1_1::Connect::parse)?.into(),
        (2, _) => raw.parse_exact(v3_1_1::Connack::parse)?.into(),
        (4, _) => raw.parse_exact(v3_1_1::Puback::parse)?.into(),
        (5, _) => raw.parse_exact(v3_1_1::Pubrec::parse)?.into(),
        (6, _) => raw.parse_exact(v3_1_1::Pubrel::parse)?.into(),
        (7, _) => raw.parse_exact(v3_1_1::Pubcomp::parse)?.into(),
        (8, _) => raw.parse_exact(v3_1_1::Subscribe::parse)?.into(),
        (9, _) => raw.parse_exact(v3_1_1::Suback::parse)?.into(),
        (10, _) => raw.parse_exact(v3_1_1::Unsubscribe::parse)?.into(),
        (11, _) => raw.parse_exact(v3_1_1::Unsuback::parse)?.into(),
        (12, _) => raw.parse_exact(v3_1_1::Pingreq::parse)?.into(),
        (13, _) => raw.parse_exact(v3_1_1::Pingresp::parse)?.into(),
        (14, _) => raw.parse_exact(v3_1_1::Disconnect::parse)?.into(),
        _ => return Err(MqttError::MalformedPacket),
    })
}

fn parse_v5(raw: &RawPacket) -> Result<Packet, MqttError> {
    Ok(match (raw.packet_type(), &raw.data) {
        (3, PacketData::Publish(bytes)) => v5_0::Publish::parse(raw.flags(), bytes.clone())?.0.into(),
        (1, _) => raw.parse_exact(v5_0::Connect::parse)?.into(),
        (2, _) => raw.parse_exact(v5_0::Connack::parse)?.into(),
        (4, _) => raw.parse_exact(v5_0::Puback::parse)?.into(),
        (5, _) => raw.parse_exact(v5_0::Pubrec::parse)?.into(),
        (6, _) => raw.parse_exact(v5_0::Pubrel::parse)?.into(),
        (7, _) => raw.parse_exact(v5_0::Pubcomp::parse)?.into(),
        (8, _) => raw.parse_exact(v5_0::Subscribe::parse)?.into(),
        (9, _) => raw.parse_exact(v5_0::Suback::parse)?.into(),
        (10, _) => raw.parse_exact(v5_0::Unsubscribe::parse)?.into(),
        (11, _) => raw.parse_exact(v5_0::Unsuback::parse)?.into(),
        (12, _) => raw.parse_exact(v5_0::Pingreq::parse)?.into(),
        (13, _) => raw.parse_exact(v5_0::Pingresp::parse)?.into(),
        (14, _) => raw.parse_exact(v5_0::Disconnect::parse)?.into(),
        (15, _) => raw.parse_exact(v5_0::Auth::parse)?.into(),
        _ => return Err(MqttError::MalformedPacket),
    })
}

impl Codec for ProtocolCore {
    const NAME: &'static str = "mqtt-protocol-core 0.7.9";
    type Packet = Packet;
    type Stream = (Version, PacketBuilder);

    fn stream(version: Version, limit: u32) -> Self::Stream {
        (version, PacketBuilder::with_maximum_packet_size(limit))
    }

    fn decode((version, builder): &mut Self::Stream, input: &mut BytesMut) -> Result<Option<Packet>, Refusal> {
        let mut cursor = Cursor::new(&input[..]);
        let built = builder.feed(&mut cursor);
        let taken = usize::try_from(cursor.position()).expect("within the input");
        input.advance(taken);
        match built {
            PacketBuildResult::Incomplete => Ok(None),
            PacketBuildResult::Error(error) => Err(refusal(error)),
            PacketBuildResult::Complete(raw) => match version {
                Version::V4 => parse_v4(&raw),
                Version::V5 => parse_v5(&raw),
            }
            .map(Some)
            .map_err(refusal),
        }
    }

    fn encode(packet: Packet, _: Version, out: &mut BytesMut) -> Result<(), String> {
        out.extend_from_slice(&packet.to_continuous_buffer());
        Ok(())
    }
}
