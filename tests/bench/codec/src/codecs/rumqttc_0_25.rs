use bytes::BytesMut;
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes::{Error as Error5, v5};

use super::{Codec, Refusal, Version};

/// rumqttc's mqttbytes: a client's half, which writes and reads every packet but AUTH.
pub struct Rumqttc;

/// A packet of either version.
#[derive(Clone)]
pub enum Packet {
    /// MQTT 3.1.1.
    V4(v4::Packet),
    /// MQTT 5.0.
    V5(v5::Packet),
}

impl Codec for Rumqttc {
    const NAME: &'static str = "rumqttc 0.25.1";
    type Packet = Packet;
    type Stream = (Version, u32);

    fn stream(version: Version, limit: u32) -> Self::Stream {
        (version, limit)
    }

    fn decode((version, limit): &mut Self::Stream, input: &mut BytesMut) -> Result<Option<Packet>, Refusal> {
        match version {
            Version::V4 => match v4::Packet::read(input, *limit as usize) {
                Ok(packet) => Ok(Some(Packet::V4(packet))),
                Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(Refusal { code: None, text: error.to_string() }),
            },
            Version::V5 => match v5::Packet::read(input, Some(*limit)) {
                Ok(packet) => Ok(Some(Packet::V5(packet))),
                Err(Error5::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(Refusal { code: None, text: error.to_string() }),
            },
        }
    }

    fn encode(packet: Packet, _: Version, out: &mut BytesMut) -> Result<(), String> {
        match packet {
            Packet::V4(packet) => packet.write(out, usize::MAX).map_err(|error| error.to_string())?,
            Packet::V5(packet) => packet.write(out, None).map_err(|error| error.to_string())?,
        };
        Ok(())
    }
}
