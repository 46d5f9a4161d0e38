//! A backend for a client that has said what it wants: the best first, each at most once.
//!
//! What the client has said is kept until a backend has taken it, so a backend that refuses, or resets the connection at
//! once, costs the client nothing but time.

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use evermq_daemon::proxy_protocol::Header;
use nix::errno::Errno;

use super::connection::{Bytes, Connection, Fate, Held, Mark, Opening, Phase, Side};
use super::core::{Core, Name};
use super::ended::Why;
use super::flow::Outcome;
use super::secure::{self, Approach};
use super::worker::Front;
use super::{relaying, socket};
use crate::backend::Refusal;
use crate::pool::{AddressKind, Choice, Lane, Lease, Wanted};

/// How long a client waits until this system has descriptors or ports again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Looks for a backend.
pub(super) fn begin(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    connection.opening();
    loop {
        let Some(wanted) = wanted(connection, &core.fronts) else { return Fate::Ends(Why::NoBackend) };
        let choice = core.pool.choose_behind(&wanted, core.now, |lane| core.lobby.has_waiters(lane));
        let lease = match choice {
            Choice::Go(lease) => lease,
            Choice::Wait(lane) => return wait(connection, name, core, lane),
            Choice::Nobody => return nobody(connection, name, core),
        };
        if let Some(fate) = connect(connection, name, core, lease) {
            return fate;
        }
    }
}

/// It has waited, and its turn has come.
pub(super) fn place(connection: &mut Connection, name: Name, core: &mut Core, lease: Lease) -> Fate {
    connection.opening().ticket = None;
    match connect(connection, name, core, lease) {
        Some(fate) => fate,
        None => begin(connection, name, core),
    }
}

/// What the client wants of the pool; none for one that has not said it.
pub(super) fn wanted<'a>(connection: &'a Connection, fronts: &[Front]) -> Option<Wanted<'a>> {
    let opening = connection.opening.as_deref()?;
    Some(Wanted {
        group: opening.group?,
        source: connection.from.ip(),
        // Those whose identifier the broker will choose are not one client.
        client_id: connection
            .details
            .as_ref()
            .and_then(|details| details.client_id.as_deref().filter(|id| !id.is_empty())),
        tried: &opening.tried,
        kind: fronts[usize::from(connection.listener)].address_kind(),
    })
}

fn wait(connection: &mut Connection, name: Name, core: &mut Core, lane: Lane) -> Fate {
    let retry_at = core.pool.retry_at(lane, core.now);
    let ticket = core.lobby.enter(connection.from.ip(), lane, name, retry_at, core.now);
    if ticket.is_none() {
        return Fate::Ends(Why::QueueFull);
    }
    connection.opening().ticket = ticket;
    connection.phase = Phase::Waiting;
    core.timers.clear(name.key);
    Fate::Waits
}

/// Begins to connect; none if that cannot be, which is noted.
fn connect(connection: &mut Connection, name: Name, core: &mut Core, lease: Lease) -> Option<Fate> {
    let kind = core.fronts[usize::from(connection.listener)].address_kind();
    match open(&lease, kind, name, core) {
        Ok(socket) => {
            connection.backend = Some(socket);
            connection.lease = Some(lease);
            connection.placed = Mark::at(connection.accepted, core.now);
            connection.phase = Phase::Connecting;
            core.set_timer(name, core.settings.connect_timeout);
            Some(Fate::Waits)
        }
        Err(failure) => {
            note(connection, &lease, failure, core);
            None
        }
    }
}

fn open(lease: &Lease, kind: AddressKind, name: Name, core: &Core) -> Result<OwnedFd, Failure> {
    let address = lease.member().address_for(kind).expect("chosen for having one");
    let socket = socket::connect(address, core.settings.socket).map_err(Failure::of)?;
    core.watch_backend(&socket, name).map_err(Failure::of)?;
    Ok(socket)
}

/// What goes to a backend first: what the client has said, after who it is where the backend wants to know.
fn first_bytes<'a>(connection: &Connection, opening: &'a Opening, kind: AddressKind) -> Cow<'a, [u8]> {
    match header(connection, opening, kind) {
        None => Cow::Borrowed(&opening.bytes),
        Some(header) => Cow::Owned([header.as_slice(), &opening.bytes].concat()),
    }
}

/// Who the client is, where the backend wants to know.
fn header(connection: &Connection, opening: &Opening, kind: AddressKind) -> Option<Vec<u8>> {
    // Where the client's TLS ended here, a broker knows no more of it behind another TLS than behind none.
    let kind = if connection.secure.is_some() { AddressKind::Plain } else { kind };
    if !connection.lease.as_ref().is_some_and(|lease| lease.member().sends_proxy(kind)) {
        return None;
    }
    let destination = opening.destination.or_else(|| socket::local_address(&connection.client));
    let mut header = destination.map_or(Header::LOCAL, |destination| Header::proxy(connection.from, destination));
    // As the log writes it; but one connection has one name all the way, so that a balancer's before this one stays.
    let unique_id = opening.unique_id.clone().unwrap_or_else(|| connection.id.to_string().into_bytes().into());
    header.unique_id = Some(unique_id);
    header.authority = connection.details.as_ref().and_then(|details| details.sni.clone());
    if let Some(secure) = &connection.secure {
        // Others may have a short buffer for the header: nginx before 1.23.2 takes 1 kB.
        let is_ours = connection.lease.as_ref().is_some_and(|lease| lease.member().host().is_some());
        secure.introduce(&mut header, is_ours);
    }
    let mut bytes = Vec::with_capacity(256);
    header.encode_v2(&mut bytes);
    Some(bytes)
}

/// Epoll says something of the backend's socket, which is `failed` or connected.
pub(super) fn advance(connection: &mut Connection, name: Name, core: &mut Core, failed: bool) -> Fate {
    let (Some(backend), Some(opening)) = (&connection.backend, &connection.opening) else {
        return Fate::Ends(Why::NoBackend);
    };
    if failed {
        let error = socket::error_of(backend);
        return fail(connection, name, core, Failure::of(error));
    }
    let kind = core.fronts[usize::from(connection.listener)].address_kind();
    if connection.secure.is_some() && kind == AddressKind::Tls {
        if !socket::is_connected(backend) {
            return Fate::Waits;
        }
        let header = header(connection, opening, kind).unwrap_or_default();
        return approach(connection, name, core, &header);
    }
    let first = first_bytes(connection, opening, kind);
    match socket::transmit(backend, &first) {
        Outcome::Moved(count) => {
            let rest = Box::from(&first[count..]);
            establish(connection, name, core, count, rest)
        }
        Outcome::Blocked | Outcome::Ended => Fate::Waits,
        // Reset as soon as it was made: nobody there has understood anything.
        Outcome::Failed => fail(connection, name, core, Failure::Backend(Refusal::Refused)),
    }
}

/// The backend has taken the first `sent` bytes, and `rest` is left.
fn establish(connection: &mut Connection, name: Name, core: &mut Core, sent: usize, rest: Box<[u8]>) -> Fate {
    let way = &mut connection.to_backend;
    way.flow.hold();
    way.flow.handle_sent(Outcome::Moved(sent), sent + rest.len());
    if !rest.is_empty() {
        way.held = Held::Bytes(Box::new(Bytes { bytes: rest, gone: 0 }));
    }
    stand(connection, name, core)
}

/// The backend is connected; TLS with it begins, after `header`.
fn approach(connection: &mut Connection, name: Name, core: &mut Core, header: &[u8]) -> Fate {
    connection.phase = Phase::Securing;
    match secure::approach(connection, core, header) {
        Ok(()) => secure(connection, name, core),
        Err(refusal) => fail(connection, name, core, Failure::Backend(refusal)),
    }
}

/// Goes on with TLS with the backend.
pub(super) fn secure(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    match secure::approach_more(connection, core) {
        Approach::Goes => Fate::Waits,
        Approach::Again => Fate::Again,
        Approach::Failed => fail(connection, name, core, Failure::Backend(Refusal::Refused)),
        Approach::Through if secure::send_opening(connection, core) => stand(connection, name, core),
        Approach::Through => fail(connection, name, core, Failure::Backend(Refusal::Refused)),
    }
}

/// Bytes go both ways from now on; the first have gone to the backend.
fn stand(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    connection.opening = None;
    let Some(lease) = &connection.lease else { return Fate::Ends(Why::NoBackend) };
    lease.begin();
    connection.phase = Phase::Relaying;
    connection.connected = Mark::at(connection.accepted, core.now);
    connection.turns.handle_moved(Side::Backend);
    connection.active = core.tick();
    core.count(lease.member().id(), connection.listener, connection.to_backend.flow.bytes(), 0);
    // The handshake's time goes first: see there.
    let handshake = core.settings.greeting_timeout.min(relaying::SLOW_CLIENT);
    core.set_timer(name, core.settings.idle_timeout.map_or(handshake, |idle| idle.min(handshake)));
    relaying::advance(connection, name, core)
}

/// `connect_timeout` is over.
pub(super) fn time_out(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    let refusal = if connection.phase == Phase::Securing { Refusal::HandshakeTimeout } else { Refusal::TimedOut };
    fail(connection, name, core, Failure::Backend(refusal))
}

/// The backend went down while it was connected to: known already.
pub(super) fn lose(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    fail(connection, name, core, Failure::WentDown)
}

fn fail(connection: &mut Connection, name: Name, core: &mut Core, failure: Failure) -> Fate {
    connection.backend = None;
    if connection.phase == Phase::Securing {
        connection.to_backend.held = Held::Nothing;
        connection.to_backend.flow.handle_new_sink();
        connection.to_client.flow.handle_new_source();
    }
    if let Some(lease) = connection.lease.take() {
        note(connection, &lease, failure, core);
    }
    begin(connection, name, core)
}

fn note(connection: &mut Connection, lease: &Lease, failure: Failure, core: &Core) {
    let (member, index) = (lease.member(), lease.index());
    let opening = connection.opening();
    match failure {
        Failure::Backend(refusal) => {
            tracing::debug!(backend = %member.name(), %refusal, "trying another backend");
            member.refuse(refusal);
            opening.refused.push(index);
        }
        Failure::WentDown => {
            tracing::debug!(backend = %member.name(), "went down while it was connected to");
            opening.refused.push(index);
        }
        Failure::Local(error) => {
            let until = opening.shortage.take().map_or(core.now + core.settings.connect_timeout, |(_, until)| until);
            opening.shortage = Some((error, until));
        }
    }
    opening.tried.push(index);
}

/// Each that may be tried has been.
pub(super) fn nobody(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    let opening = connection.opening();
    let Some((error, until)) = &opening.shortage else { return Fate::Ends(Why::NoBackend) };
    if core.now >= *until {
        core.say_shortage(error);
        return Fate::Ends(Why::Shortage);
    }
    opening.tried.clone_from(&opening.refused);
    connection.phase = Phase::Pausing;
    core.set_timer(name, SHORTAGE_PAUSE);
    Fate::Waits
}

/// Why there is no connection.
#[derive(Debug)]
enum Failure {
    /// The backend's doing.
    Backend(Refusal),
    /// Its session ended: known already.
    WentDown,
    /// This system lacks descriptors, ports or memory.
    Local(io::Error),
}

impl Failure {
    fn of(error: io::Error) -> Self {
        match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOBUFS
            | Errno::ENOMEM
            | Errno::ENOSPC
            | Errno::EADDRNOTAVAIL
            | Errno::EADDRINUSE
            | Errno::EAGAIN => Self::Local(error),
            Errno::ETIMEDOUT => Self::Backend(Refusal::TimedOut),
            // The last two: a packet filter of this host.
            Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETDOWN
            | Errno::ENONET
            | Errno::EACCES
            | Errno::EPERM => Self::Backend(Refusal::Unreachable),
            _ => Self::Backend(Refusal::Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_system_lacks_is_not_held_against_the_backend() {
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EADDRNOTAVAIL] {
            assert!(matches!(Failure::of(errno.into()), Failure::Local(_)), "{errno}");
        }
        let cases = [
            (Errno::ECONNREFUSED, Refusal::Refused),
            (Errno::ECONNRESET, Refusal::Refused),
            (Errno::ETIMEDOUT, Refusal::TimedOut),
            (Errno::EHOSTUNREACH, Refusal::Unreachable),
            (Errno::ENETUNREACH, Refusal::Unreachable),
        ];
        for (errno, expected) in cases {
            assert!(matches!(Failure::of(errno.into()), Failure::Backend(refusal) if refusal == expected), "{errno}");
        }
    }
}
