//! From a CONNECT to who its client is: the cheap questions first, so that what is dear is done for few.
//!
//! | order | asked | costs |
//! |---|---|---|
//! | 1 | whether the listener serves its version, and whether it could get in whoever it is | nothing |
//! | 2 | its authentication method, if it names one | its mechanism's exchange |
//! | 3 | its certificate; otherwise its password, if it has one | the password some ten milliseconds, see [`verify`](super::verify) |
//!
//! What depends on who it is comes after that: [`Broker::connect_as`].

use bytes::BytesMut;
use evermq_mqtt::ReasonCode;
use evermq_mqtt::packet::Connect;
use tokio::io::{AsyncRead, AsyncWrite};

use super::verify::Turn;
use super::{Client, Login};
use crate::authentication::{self, Authenticated, AuthenticationError};
use crate::broker::Broker;
use crate::listener::door::Versions;
use crate::session::connect;

/// A client that may come in, as far as that depends on who it is.
#[derive(Debug)]
pub struct Introduction {
    /// Who it is.
    pub login: Login,
    /// The mechanism that says so, if one does.
    pub authenticated: Option<Authenticated>,
}

/// Finds out who the client is. What comes after the CONNECT stays in `unread`.
///
/// # Errors
/// The client is not to be let in; [`AuthenticationError::reason`] is for its CONNACK, unless it has left.
pub async fn introduce<S>(
    (stream, unread): (&mut S, &mut BytesMut),
    connect: &Connect,
    client: &Client,
    versions: Versions,
    broker: &Broker,
    turn: &Turn<'_>,
) -> Result<Introduction, AuthenticationError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let refused = |reason| AuthenticationError::Refused(reason, "CONNECT refused");
    if !versions.contains(connect.version) {
        return Err(refused(ReasonCode::UnsupportedProtocolVersion));
    }
    let is_offered = |method| broker.mechanisms.offers(method);
    let is_offered = connect.properties.authentication_method.as_ref().is_some_and(is_offered);
    connect::check(connect, &broker.limits(), is_offered).map_err(refused)?;
    // Before the exchange, as before everything that looks at the rules.
    let epoch = broker.access.epoch();
    let authenticated = authentication::exchange(stream, unread, connect, &broker.mechanisms).await?;
    let login = match &authenticated {
        Some(authenticated) => broker.access.admit_as(client, connect, &authenticated.user, epoch),
        None => broker.access.admit(client, connect, turn).await,
    };
    let login =
        login.map_err(|refusal| AuthenticationError::Refused(refusal.reason(connect.version), refusal.text()))?;
    Ok(Introduction { login, authenticated })
}
