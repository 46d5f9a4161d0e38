//! The first packet of a connection: a CONNECT, or nothing (`[MQTT-3.1.0-1]`).
//!
//! A stranger may hold a place, a small buffer and its own task until `connect_timeout`, and nothing else.

use std::io;

use bytes::{Buf as _, BytesMut};
use evermq_mqtt::codec::{self, DecodeError};
use evermq_mqtt::packet::{ConnAck, Connect};
use evermq_mqtt::properties::ConnAckProperties;
use evermq_mqtt::{Packet, ReasonCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a CONNECT: client identifier, will, user name, password and properties of a sane client fit many times over.
const MAX_CONNECT: u32 = 64 * 1024;
/// What is reserved for it at first.
const FIRST_READ: usize = 1024;

/// Why a connection is not a client's.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended without a CONNECT.
    #[error("connection ended before a CONNECT")]
    Ended,
    /// The first packet is another one.
    #[error("first packet is not CONNECT")]
    NotConnect,
    /// The CONNECT is none.
    #[error("CONNECT: {0}")]
    Malformed(#[from] DecodeError),
}

/// Reads the CONNECT. What came after it is left in the returned buffer.
///
/// # Errors
/// There is none; the other side has been told why as far as the standard lets it be told.
pub async fn read_connect<S>(stream: &mut S, max_packet_size: u32) -> Result<(Connect, BytesMut), AdmissionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = codec::Limits { max_packet_size: max_packet_size.min(MAX_CONNECT) };
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    loop {
        if buffer.first().is_some_and(|first| first >> 4 != 1) {
            return Err(AdmissionError::NotConnect);
        }
        let version = codec::connect_version(&buffer);
        match codec::decode(&mut buffer, Version::V5, &limits) {
            Ok(None) => {}
            Ok(Some(Packet::Connect(connect))) => return Ok((*connect, buffer)),
            Ok(Some(_)) => return Err(AdmissionError::NotConnect),
            Err(error) => {
                explain(stream, &error, version).await?;
                return Err(error.into());
            }
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(if buffer.has_remaining() { DecodeError::Truncated.into() } else { AdmissionError::Ended });
        }
    }
}

/// Refuses a CONNECT (§3.2.2.2), in silence if the client takes no packet as large as the answer (`[MQTT-3.1.2-24]`).
///
/// # Errors
/// Writing failed.
pub async fn refuse<S: AsyncWrite + Unpin>(
    stream: &mut S,
    version: Version,
    max_packet_size: Option<u32>,
    reason: ReasonCode,
) -> io::Result<()> {
    let connack = ConnAck { session_present: false, reason, properties: ConnAckProperties::default() };
    let mut out = BytesMut::new();
    let is_written = codec::encode(&Packet::ConnAck(Box::new(connack)), version, &mut out).is_ok();
    let max_len = max_packet_size.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    if is_written && out.len() <= max_len {
        stream.write_all(&out).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

/// [MQTT-3.1.4-1]: an MQTT 5.0 client may be told what is wrong. Older ones only that their version is not served
/// (3.1.1 `[MQTT-3.1.2-2]`); who asks for an unknown version understands that answer too, if any.
async fn explain<S>(stream: &mut S, error: &DecodeError, version: Option<Version>) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    match (error, version) {
        (DecodeError::ProtocolLevel(_), _) => {
            refuse(stream, Version::V4, None, ReasonCode::UnsupportedProtocolVersion).await
        }
        (_, Some(Version::V5)) => refuse(stream, Version::V5, None, error.reason()).await,
        (_, Some(Version::V3 | Version::V4) | None) => Ok(()),
    }
}
