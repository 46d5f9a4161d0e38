//! TLS with the backend, where it begins anew.

use super::super::connection::Connection;
use super::super::core::Core;
use super::super::flow::{Outcome, Step};
use super::super::relaying::{Moved, send_held};
use super::end::{End, Read, push};
use crate::backend::Refusal;
use crate::tls::Session;

/// Begins TLS with the backend, which has just been connected to, after `header`.
pub(in crate::engine) fn approach(connection: &mut Connection, core: &mut Core, header: &[u8]) -> Result<(), Refusal> {
    let (Some(secure), Some(backend), Some(lease)) = (&mut connection.secure, &connection.backend, &connection.lease)
    else {
        return Err(Refusal::Refused);
    };
    let session = core.settings.tls.as_ref().and_then(|tls| tls.connect(lease.member().name()));
    let mut session = session.ok_or(Refusal::Refused)?.map_err(|_| Refusal::Refused)?;
    let out = &mut core.scratch.back;
    out.clear();
    out.extend(header);
    session.start(out).map_err(|_| Refusal::Refused)?;
    secure.backend = Some(Box::new(End::new(session)));
    match push(&mut connection.to_backend, backend, out.as_slice()) {
        Outcome::Failed => Err(Refusal::Refused),
        Outcome::Moved(_) | Outcome::Ended | Outcome::Blocked => Ok(()),
    }
}

/// How far TLS with the backend has come.
pub(in crate::engine) enum Approach {
    Goes,
    /// There is more to do, but others come first.
    Again,
    /// The backend is who it must be.
    Through,
    Failed,
}

/// Goes on with TLS with the backend.
pub(in crate::engine) fn approach_more(connection: &mut Connection, core: &mut Core) -> Approach {
    let (Some(secure), Some(backend)) = (&mut connection.secure, &connection.backend) else { return Approach::Failed };
    let Some(end) = &mut secure.backend else { return Approach::Failed };
    if connection.to_backend.flow.step() == Step::Send {
        send_held(&mut connection.to_backend, backend, &mut Moved::default());
    }
    while connection.to_client.flow.is_readable() {
        if !core.handshakes.step() {
            return Approach::Again;
        }
        let scratch = &mut core.scratch;
        let read = end.read(backend, &mut connection.to_client.flow, scratch, |_| {});
        let said = push(&mut connection.to_backend, backend, scratch.back.as_slice());
        match read {
            Read::Nothing(Outcome::Blocked | Outcome::Moved(_)) => break,
            Read::Nothing(Outcome::Ended | Outcome::Failed) => return Approach::Failed,
            Read::Broken(fault) => {
                let backend = connection.lease.as_ref().map(|lease| lease.member().name());
                tracing::debug!(backend, %fault, "TLS handshake with a broker failed");
                return Approach::Failed;
            }
            // Before CONNECT a broker has nothing to say.
            Read::Taken(received) if received.closed || !scratch.plain.is_empty() => return Approach::Failed,
            Read::Taken(received) if received.handshaken => return Approach::Through,
            Read::Taken(_) => {}
        }
        if said == Outcome::Failed {
            return Approach::Failed;
        }
    }
    Approach::Goes
}

/// Sends the backend, with which TLS stands, what the client has said so far. Whether it goes.
pub(in crate::engine) fn send_opening(connection: &mut Connection, core: &mut Core) -> bool {
    let Connection { secure: Some(secure), backend: Some(backend), opening: Some(opening), .. } = connection else {
        return false;
    };
    let Some(end) = &mut secure.backend else { return false };
    let out = &mut core.scratch.sealed;
    out.clear();
    end.session.send(&opening.bytes, out).is_ok()
        && push(&mut connection.to_backend, backend, out.as_slice()) != Outcome::Failed
}
