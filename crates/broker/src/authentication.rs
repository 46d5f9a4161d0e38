//! Enhanced authentication (§4.12): AUTH packets, whatever the mechanism.
//!
//! ```text
//!  CONNECT with method ──▶ Exchange ──AUTH 0x18──▶ client ──AUTH 0x18──▶ Exchange ──▶ CONNACK
//!  AUTH 0x19 ────────────▶ Exchange ──AUTH 0x18──▶ client ──AUTH 0x18──▶ Exchange ──▶ AUTH 0x00
//! ```
//!
//! A [`Mechanism`] decides about data, and who the client is; [`Authentication`] about packets: which reason code may come when, and that the
//! method stays the one of the CONNECT (`[MQTT-4.12.0-5]`, `[MQTT-4.12.1-1]`). The broker offers no mechanism by itself, so
//! a CONNECT that names one is refused with 0x8C (`[MQTT-4.12.0-1]`), unless whoever builds on it has offered one in
//! [`Broker::mechanisms`](crate::broker::Broker::mechanisms).

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use evermq_mqtt::codec::{self, DecodeError, Sender};
use evermq_mqtt::packet::{Auth, Connect};
use evermq_mqtt::properties::AuthProperties;
use evermq_mqtt::{Packet, ReasonCode, Text, Version};
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of an AUTH before CONNACK.
const MAX_AUTH: u32 = 64 * 1024;

/// A way to authenticate, such as SCRAM-SHA-256.
pub trait Mechanism: fmt::Debug + Send + Sync {
    /// What the client calls it, as Authentication Method.
    fn name(&self) -> &Text;
    /// A client wants to be authenticated.
    fn begin(&self) -> Box<dyn Exchange>;
}

/// One run of a mechanism.
pub trait Exchange: fmt::Debug + Send {
    /// Authentication Data from the client.
    fn handle_data(&mut self, data: Option<&Bytes>) -> Answer;
}

/// What a mechanism says to the client's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The client is to answer this.
    Continue(Option<Bytes>),
    /// The client is this user, and is told this.
    Accept(Arc<str>, Option<Bytes>),
    /// It is not.
    Refuse,
}

/// The mechanisms that are offered. Looked at when a CONNECT names one.
#[derive(Debug, Default)]
pub struct Mechanisms(RwLock<Vec<Arc<dyn Mechanism>>>);

/// A client that a mechanism has let in.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// Asked again when the client wants to authenticate again.
    pub mechanism: Arc<dyn Mechanism>,
    /// Who it is.
    pub user: Arc<str>,
    /// For the CONNACK.
    pub data: Option<Bytes>,
}

/// The authentication of one connection.
#[derive(Debug)]
pub struct Authentication {
    mechanism: Arc<dyn Mechanism>,
    /// Who the client is, once it is known: it does not become another one (§4.12.1).
    user: Option<Arc<str>>,
    exchange: Option<Box<dyn Exchange>>,
}

/// What is to be done about an AUTH packet, or about the CONNECT.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this and wait for the answer (`[MQTT-4.12.0-2]`).
    Continue(Auth),
    /// The client is authenticated: it is to be told in the CONNACK, or with this.
    Done(Auth),
    /// The connection is to be closed (`[MQTT-4.12.0-4]`, `[MQTT-4.12.1-2]`).
    Failed(ReasonCode, &'static str),
}

/// Why a connection that named a mechanism did not get in.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client has ended the exchange.
    #[error("the client left during its authentication")]
    Left,
    /// The client is to be told so in a CONNACK.
    #[error("{1}")]
    Refused(ReasonCode, &'static str),
    /// What came was no packet.
    #[error("during authentication: {0}")]
    Malformed(#[from] DecodeError),
}

impl AuthenticationError {
    /// The reason for the CONNACK, if the client is still there.
    #[must_use]
    pub fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Io(_) | Self::Left => None,
            Self::Refused(reason, _) => Some(*reason),
            Self::Malformed(error) => Some(error.reason()),
        }
    }
}

impl Mechanisms {
    /// Offers one more.
    pub fn offer(&self, mechanism: Arc<dyn Mechanism>) {
        self.0.write().push(mechanism);
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn offers(&self, method: &Text) -> bool {
        self.named(method).is_some()
    }

    fn named(&self, method: &Text) -> Option<Arc<dyn Mechanism>> {
        self.0.read().iter().find(|mechanism| mechanism.name() == method).cloned()
    }
}

impl Authentication {
    /// Of a client that has been let in.
    #[must_use]
    pub fn new(authenticated: &Authenticated) -> Self {
        let Authenticated { mechanism, user, .. } = authenticated;
        Self { mechanism: Arc::clone(mechanism), user: Some(Arc::clone(user)), exchange: None }
    }

    /// An AUTH packet from the client.
    pub fn handle_auth(&mut self, auth: &Auth) -> Step {
        if auth.properties.authentication_method.as_ref() != Some(self.mechanism.name()) {
            return Step::Failed(ReasonCode::ProtocolError, "AUTH with another method than the CONNECT's");
        }
        let data = auth.properties.authentication_data.as_ref();
        match (auth.reason, self.exchange.is_some()) {
            (ReasonCode::ReAuthenticate, false) => self.begin(data),
            (ReasonCode::ContinueAuthentication, true) => self.step(data),
            (ReasonCode::ReAuthenticate, true) => {
                Step::Failed(ReasonCode::ProtocolError, "AUTH begins an exchange within an exchange")
            }
            _ => Step::Failed(ReasonCode::ProtocolError, "AUTH outside of an exchange"),
        }
    }

    fn begin(&mut self, data: Option<&Bytes>) -> Step {
        self.exchange = Some(self.mechanism.begin());
        self.step(data)
    }

    fn step(&mut self, data: Option<&Bytes>) -> Step {
        let Some(exchange) = &mut self.exchange else {
            return Step::Failed(ReasonCode::ProtocolError, "AUTH outside of an exchange");
        };
        let answer = exchange.handle_data(data);
        if !matches!(answer, Answer::Continue(_)) {
            self.exchange = None;
        }
        match answer {
            Answer::Continue(data) => Step::Continue(self.auth(ReasonCode::ContinueAuthentication, data)),
            Answer::Accept(user, _) if self.user.as_ref().is_some_and(|own| *own != user) => {
                Step::Failed(ReasonCode::NotAuthorized, "authenticated again as another user")
            }
            Answer::Accept(user, data) => {
                self.user = Some(user);
                Step::Done(self.auth(ReasonCode::Success, data))
            }
            Answer::Refuse => Step::Failed(ReasonCode::NotAuthorized, "authentication failed"),
        }
    }

    fn auth(&self, reason: ReasonCode, data: Option<Bytes>) -> Auth {
        let properties = AuthProperties {
            authentication_method: Some(self.mechanism.name().clone()),
            authentication_data: data,
            ..AuthProperties::default()
        };
        Auth { reason, properties }
    }
}

/// The exchange between CONNECT and CONNACK; `None` where the CONNECT names no method. What came after it stays in
/// `unread`. Ends with the caller's deadline at the latest: dropping it drops the connection.
///
/// # Errors
/// The client is not to be let in.
pub async fn exchange<S>(
    stream: &mut S,
    unread: &mut BytesMut,
    connect: &Connect,
    mechanisms: &Mechanisms,
) -> Result<Option<Authenticated>, AuthenticationError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Some(method) = &connect.properties.authentication_method else { return Ok(None) };
    let mechanism = mechanisms.named(method).ok_or(AuthenticationError::Refused(
        ReasonCode::BadAuthenticationMethod,
        "no such authentication method is offered",
    ))?;
    let mut authentication = Authentication { mechanism, user: None, exchange: None };
    let mut step = authentication.begin(connect.properties.authentication_data.as_ref());
    loop {
        match step {
            Step::Continue(auth) => {
                let mut out = BytesMut::new();
                codec::encode(&Packet::Auth(auth), Version::V5, &mut out).map_err(|_| {
                    AuthenticationError::Refused(ReasonCode::UnspecifiedError, "AUTH cannot be written")
                })?;
                // [MQTT-3.1.2-24].
                let max = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
                if u32::try_from(out.len()).is_ok_and(|len| len > max) {
                    return Err(AuthenticationError::Refused(
                        ReasonCode::PacketTooLarge,
                        "AUTH is too large for the client",
                    ));
                }
                stream.write_all(&out).await?;
                stream.flush().await?;
            }
            Step::Done(auth) => {
                let data = auth.properties.authentication_data;
                let Authentication { mechanism, user, .. } = authentication;
                return Ok(user.map(|user| Authenticated { mechanism, user, data }));
            }
            Step::Failed(reason, text) => return Err(AuthenticationError::Refused(reason, text)),
        }
        step = match read(stream, unread).await? {
            Packet::Auth(auth) => authentication.handle_auth(&auth),
            Packet::Disconnect(_) => return Err(AuthenticationError::Left),
            // [MQTT-3.1.2-30].
            _ => Step::Failed(ReasonCode::ProtocolError, "a packet other than AUTH before CONNACK"),
        };
    }
}

async fn read<S>(stream: &mut S, unread: &mut BytesMut) -> Result<Packet, AuthenticationError>
where
    S: AsyncRead + Unpin,
{
    let limits = codec::Limits { max_packet_size: MAX_AUTH };
    loop {
        if let Some(packet) = codec::decode(unread, Version::V5, &limits)? {
            codec::check_sender(&packet, Sender::Client)?;
            return Ok(packet);
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(AuthenticationError::Left);
        }
    }
}

#[cfg(test)]
mod tests;
