//! Connections whose TLS ends here: the handshake with the client, with the backend where TLS begins anew, and the relay
//! between them.
//!
//! What a socket has is decrypted in the worker's scratch and goes on from there, encrypted again where the other side speaks
//! TLS. Of a connection that is idle only its keys are kept. What TLS itself has to say to one side (alerts, tickets, key
//! updates) goes out at once, or behind what that side has not taken yet.

//!
//! | module | subject |
//! |---|---|
//! | `end` | one side: what is read, decrypted, kept and held |
//! | `greet` | the client's handshake and its first words |
//! | `backend` | TLS that begins anew |
//! | `relay` | both directions |

mod backend;
mod end;
mod greet;
mod relay;

use evermq_daemon::proxy_protocol::{Header, Ssl};

use super::connection::{Connection, Held};
use crate::tls::{ClientSide, Identity, ServerSide, Session, TlsInfo};

pub(super) use backend::{Approach, approach, approach_more, send_opening};
pub(crate) use end::Scratch;
use end::{End, push};
pub(super) use greet::greet;
pub(super) use relay::relay;

/// The TLS of one connection.
pub(crate) struct Secure {
    client: End<ServerSide>,
    backend: Option<Box<End<ClientSide>>>,
    /// The client's first flight is through: it speaks TLS.
    answered: bool,
    /// The client is who it must be.
    handshaken: bool,
}

impl Secure {
    /// What was agreed on with the client, and who it is; none before its handshake is over.
    pub(super) fn summary(&self) -> Option<(TlsInfo<'_>, Option<Identity>)> {
        let session = &self.client.session;
        self.handshaken.then(|| (session.info(), session.identity()))
    }

    /// Says in a PROXY protocol header who the client is by its TLS; its whole certificate too if `certificate`.
    pub(super) fn introduce(&self, header: &mut Header, certificate: bool) {
        let session = &self.client.session;
        let info = session.info();
        let identity = session.identity();
        let (cn, dn) = identity.map_or((None, None), |Identity { cn, dn }| (cn, Some(dn)));
        header.alpn = info.alpn.map(Into::into);
        header.ssl = Some(Box::new(Ssl {
            is_tls: true,
            shown: info.verified && !info.resumed,
            in_session: info.verified,
            verify: 0,
            version: Some(info.version.into()),
            cipher: Some(info.cipher.into()),
            cn: cn.map(Into::into),
            dn: dn.map(Into::into),
            certificate: session.certificate().filter(|_| certificate).map(Into::into),
            ..Ssl::default()
        }));
    }
}

/// Says to both sides that nothing more comes, if there is nothing left before that, as far as they take it at once; to the
/// client after some last words.
pub(super) fn say_goodbye(connection: &mut Connection, scratch: &mut Scratch, words: Option<&[u8]>) {
    let Some(secure) = &mut connection.secure else { return };
    let out = &mut scratch.sealed;
    if matches!(connection.to_client.held, Held::Nothing) && !connection.to_client.flow.is_done() {
        out.clear();
        // Where the handshake is not over, there is nothing to be said.
        let _ = words.map(|words| secure.client.session.send(words, out));
        secure.client.session.close(out);
        push(&mut connection.to_client, &connection.client, out.as_slice());
    }
    if let (Some(end), Some(backend)) = (&mut secure.backend, &connection.backend)
        && matches!(connection.to_backend.held, Held::Nothing)
        && !connection.to_backend.flow.is_done()
    {
        out.clear();
        end.session.close(out);
        push(&mut connection.to_backend, backend, out.as_slice());
    }
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure").field("handshaken", &self.handshaken).finish_non_exhaustive()
    }
}
