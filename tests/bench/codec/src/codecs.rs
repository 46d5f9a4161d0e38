//! Each codec behind one trait, used as a server would use it: bytes as they were read in, a packet out, and back.

mod evermq;
mod mqtt_proto_0_4;
mod protocol_core;
mod rmqtt;
mod rumqttc_0_25;

use bytes::BytesMut;

pub use evermq::{EverMq, level};
pub use mqtt_proto_0_4::MqttProto;
pub use protocol_core::ProtocolCore;
pub use rmqtt::RMqtt;
pub use rumqttc_0_25::Rumqttc;

/// The version that both sides speak. None of the others reads MQTT 3.1 throughout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V4,
    /// MQTT 5.0.
    V5,
}

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason code of MQTT 5.0, where the codec names one.
    pub code: Option<u8>,
    /// The codec's own words.
    pub text: String,
}

/// One codec.
pub trait Codec {
    /// Name and version as the registry has them.
    const NAME: &'static str;
    /// What it decodes to, for either version.
    type Packet: Clone;
    /// State between two packets of one connection.
    type Stream;

    /// A connection's decoder that takes packets up to `limit` bytes, as far as the codec can be told.
    fn stream(version: Version, limit: u32) -> Self::Stream;

    /// Takes the first packet out of `input`; `None` while bytes are missing.
    fn decode(stream: &mut Self::Stream, input: &mut BytesMut) -> Result<Option<Self::Packet>, Refusal>;

    /// Appends `packet`, which it may consume.
    fn encode(packet: Self::Packet, version: Version, out: &mut BytesMut) -> Result<(), String>;
}

/// Decodes the one packet that `bytes` are and encodes it again.
///
/// # Errors
/// It was refused, one way or the other.
pub fn round_trip<C: Codec>(bytes: &[u8], version: Version) -> Result<Vec<u8>, String> {
    let packet = decode_whole::<C>(bytes, version).map_err(|refusal| refusal.text)?;
    let mut out = BytesMut::new();
    C::encode(packet, version, &mut out)?;
    Ok(out.to_vec())
}

/// Decodes the one packet that `bytes` are.
///
/// # Errors
/// It was refused, or taken for less than a packet, which a server would wait upon for ever.
pub fn decode_whole<C: Codec>(bytes: &[u8], version: Version) -> Result<C::Packet, Refusal> {
    let mut input = BytesMut::from(bytes);
    let packet = C::decode(&mut C::stream(version, u32::MAX), &mut input)?;
    packet.ok_or_else(|| Refusal { code: None, text: "waits for more".to_owned() })
}
