//! The client's handshake, and the beginning of what it says within.

use super::super::connecting;
use super::super::connection::{Connection, Details, Fate, Held};
use super::super::core::{Core, Name};
use super::super::ended::Why;
use super::super::flow::{Outcome, Step};
use super::super::greeting::{self, Judged};
use super::super::relaying::{Moved, send_held};
use super::Secure;
use super::end::{End, Read, push};
use crate::client_hello;
use crate::tls::{Received, Session};

/// The client's handshake, and the beginning of what it says within.
pub(in crate::engine) fn greet(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    if !flush(connection, name, core) {
        return Fate::Ends(Why::ClientReset);
    }
    while has_more(connection) && matches!(connection.to_client.held, Held::Nothing) {
        match begin(connection, name, core) {
            Ok(true) => {}
            Ok(false) => return Fate::Waits,
            Err(why) => return Fate::Ends(why),
        }
        let Some(secure) = &mut connection.secure else { return Fate::Ends(Why::Shortage) };
        if !secure.handshaken && !core.handshakes.step() {
            return Fate::Again;
        }
        let mut is_tls = true;
        let answered = secure.answered;
        let look = |records: &[u8]| is_tls = answered || looks_like_tls(records);
        let scratch = &mut core.scratch;
        let read = secure.client.read(&connection.client, &mut connection.to_backend.flow, scratch, look);
        secure.answered |= !scratch.back.is_empty();
        let said = push(&mut connection.to_client, &connection.client, scratch.back.as_slice());
        let received = match read {
            Read::Nothing(Outcome::Ended) => return Fate::Ends(Why::NoGreeting),
            Read::Nothing(Outcome::Failed) => return Fate::Ends(Why::ClientReset),
            Read::Nothing(Outcome::Blocked | Outcome::Moved(_)) => break,
            Read::Broken(_) if !is_tls => return Fate::Ends(Why::NotTls),
            Read::Broken(fault) => {
                tracing::debug!(client = %connection.from, %fault, "TLS handshake failed");
                return Fate::Ends(Why::TlsFailed);
            }
            Read::Taken(_) if !is_tls => return Fate::Ends(Why::NotTls),
            Read::Taken(received) => received,
        };
        if said == Outcome::Failed {
            return Fate::Ends(Why::ClientReset);
        }
        ask_if_blocked(connection, name, core);
        if let Some(fate) = take_greeting(connection, name, core, received) {
            return fate;
        }
    }
    Fate::Waits
}

/// Whether the first bytes may be a ClientHello's.
fn looks_like_tls(bytes: &[u8]) -> bool {
    client_hello::looks_like_hello(bytes).is_ok()
}

/// Whether there is something to be read: in the socket, or behind a balancer's header.
fn has_more(connection: &Connection) -> bool {
    let unread = match (&connection.secure, &connection.opening) {
        (Some(secure), _) => secure.client.unread,
        (None, opening) => opening.as_ref().is_some_and(|opening| !opening.bytes.is_empty()),
    };
    unread || connection.to_backend.flow.is_readable()
}

/// Has a place and an end of TLS for the client. `false`: it waits for a place.
fn begin(connection: &mut Connection, name: Name, core: &mut Core) -> Result<bool, Why> {
    if connection.secure.is_some() {
        return Ok(true);
    }
    let opening = connection.opening.get_or_insert_default();
    let spot = *opening.spot.get_or_insert_with(|| core.handshakes.enter(name, core.now));
    if core.handshakes.waits(spot) {
        return Ok(false);
    }
    let tls = core.settings.tls.as_ref().ok_or(Why::Shortage)?;
    let mut client = End::new(tls.accept().map_err(|_| Why::Shortage)?);
    // What came behind a balancer's header.
    client.kept = std::mem::take(&mut opening.bytes).into();
    client.unread = !client.kept.is_empty();
    connection.secure = Some(Box::new(Secure { client, backend: None, answered: false, handshaken: false }));
    Ok(true)
}

/// Takes what the client has said within TLS; what becomes of it where it has said enough.
fn take_greeting(connection: &mut Connection, name: Name, core: &mut Core, received: Received) -> Option<Fate> {
    let (secure, opening) = (connection.secure.as_mut()?, connection.opening.get_or_insert_default());
    if received.handshaken && !secure.handshaken {
        secure.handshaken = true;
        if let Some(spot) = opening.spot.take() {
            core.handshakes.leave(spot);
        }
    }
    opening.bytes.extend_from_slice(core.scratch.plain.as_slice());
    if received.closed {
        return Some(Fate::Ends(Why::NoGreeting));
    }
    if opening.bytes.is_empty() {
        return None;
    }
    let sni = secure.client.session.take_sni();
    let sni = sni.or_else(|| connection.details.take().and_then(|details| details.sni));
    let front = &core.fronts[usize::from(connection.listener)];
    let group = core.settings.routes.by_sni(sni.as_deref()).unwrap_or(front.group);
    let (judged, details) = greeting::judge_connect(group, &core.settings, &opening.bytes);
    connection.details = Some(Box::new(Details { sni, ..details }));
    match judged {
        Judged::NeedMore => None,
        Judged::Bad(why, answer) => {
            let out = &mut core.scratch.sealed;
            out.clear();
            if answer.is_some_and(|answer| secure.client.session.send(&answer, out).is_ok()) {
                push(&mut connection.to_client, &connection.client, out.as_slice());
            }
            Some(Fate::Ends(why))
        }
        Judged::Good(group) => {
            opening.group = Some(group);
            connection.mark_greeted(core.now);
            Some(connecting::begin(connection, name, core))
        }
    }
}

/// Sends what the client has not taken yet. Whether the client is still there.
fn flush(connection: &mut Connection, name: Name, core: &mut Core) -> bool {
    let mut moved = Moved::default();
    if connection.to_client.flow.step() == Step::Send {
        send_held(&mut connection.to_client, &connection.client, &mut moved);
    }
    ask_if_blocked(connection, name, core);
    !moved.sink_failed
}

fn ask_if_blocked(connection: &mut Connection, name: Name, core: &Core) {
    if connection.to_client.flow.is_blocked() && !connection.client_asked {
        connection.client_asked = true;
        // Where epoll does not take it, its timer ends it.
        let _ = core.ask_client(&connection.client, name);
    }
}
