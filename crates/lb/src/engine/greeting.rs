//! What a client says first, before any backend hears of it: perhaps a PROXY protocol header of a balancer before this one,
//! then a ClientHello or a CONNECT.
//!
//! All of it has one deadline, is bounded, and is kept to be sent on. Whoever says something else is closed at once.

use evermq_config::lb::Mode;
use evermq_daemon::proxy_protocol::{self, Addresses, Header, Parsed};
use evermq_mqtt::{ReasonCode, Version};

use super::accepting::enter_source;
use super::connecting;
use super::connection::{Connection, Details, Fate};
use super::core::{BUFFER, Core, Name};
use super::ended::Why;
use super::flow::Outcome;
use super::worker::{Front, Settings};
use super::{secure, socket};
use crate::client_hello;
use crate::connect_packet::{self, Look};
use crate::pool::GroupId;
use crate::routes::Verdict;

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judged {
    /// Not enough yet.
    NeedMore,
    /// A client of that group.
    Good(GroupId),
    /// Something else; a CONNACK says so where there is one.
    Bad(Why, Option<Vec<u8>>),
}

/// Reads what has come.
pub(super) fn advance(connection: &mut Connection, name: Name, core: &mut Core) -> Fate {
    if ends_tls(connection, core) && !connection.awaits_header {
        return secure::greet(connection, name, core);
    }
    while connection.to_backend.flow.is_readable() {
        let outcome = socket::receive(&connection.client, &mut core.buffer);
        // The same flow that relays later: it knows when the socket is empty.
        connection.to_backend.flow.handle_greeting(outcome, BUFFER);
        let read = match outcome {
            Outcome::Moved(count) => &core.buffer[..count],
            Outcome::Blocked => break,
            Outcome::Ended => return Fate::Ends(Why::NoGreeting),
            Outcome::Failed => return Fate::Ends(Why::ClientReset),
        };
        let opening = connection.opening.get_or_insert_default();
        opening.bytes.reserve_exact(read.len());
        opening.bytes.extend_from_slice(read);
        match look(connection, core) {
            Judged::NeedMore if ends_tls(connection, core) && !connection.awaits_header => {
                return secure::greet(connection, name, core);
            }
            Judged::NeedMore => {}
            Judged::Bad(why, answer) => {
                if let Some(answer) = answer {
                    socket::transmit(&connection.client, &answer);
                }
                return Fate::Ends(why);
            }
            Judged::Good(group) => {
                connection.opening().group = Some(group);
                connection.mark_greeted(core.now);
                return connecting::begin(connection, name, core);
            }
        }
    }
    Fate::Waits
}

fn ends_tls(connection: &Connection, core: &Core) -> bool {
    core.fronts[usize::from(connection.listener)].mode.terminates()
}

/// Looks at all that has come so far.
fn look(connection: &mut Connection, core: &Core) -> Judged {
    if connection.awaits_header {
        let Some(bytes) = connection.opening.as_mut().map(|opening| &mut opening.bytes) else {
            return Judged::NeedMore;
        };
        match take_header(bytes) {
            Ok(None) => return Judged::NeedMore,
            Err(why) => return Judged::Bad(why, None),
            Ok(Some(Header { addresses, unique_id, .. })) => {
                connection.awaits_header = false;
                connection.opening().unique_id = unique_id;
                // A balancer's own connections, such as its health checks, count for no client.
                if let Some(Addresses { source, destination }) = addresses {
                    connection.from = source;
                    connection.opening().destination = Some(destination);
                    if let Err(why) = enter_source(connection, core) {
                        return Judged::Bad(why, None);
                    }
                }
            }
        }
    }
    let Some(opening) = connection.opening.as_ref().filter(|_| !ends_tls(connection, core)) else {
        return Judged::NeedMore;
    };
    let front = &core.fronts[usize::from(connection.listener)];
    let (judged, details) = judge(front, &core.settings, &opening.bytes);
    if details != Details::default() {
        connection.details = Some(Box::new(details));
    }
    judged
}

/// Takes the header off. It names no addresses where the balancer before this one speaks for itself.
fn take_header(bytes: &mut Vec<u8>) -> Result<Option<Header>, Why> {
    match proxy_protocol::parse(bytes) {
        Parsed::NeedMore => Ok(None),
        Parsed::Invalid(invalid) => {
            tracing::debug!(%invalid, "a balancer in accept_proxy_from does not say whom it speaks for");
            Err(Why::NoProxyHeader)
        }
        Parsed::Header { header, length } => {
            bytes.drain(..length);
            Ok(Some(header))
        }
    }
}

/// What the client says, and what is known of it by that.
fn judge(front: &Front, settings: &Settings, bytes: &[u8]) -> (Judged, Details) {
    // A balancer's header may have come alone.
    if bytes.is_empty() {
        return (Judged::NeedMore, Details::default());
    }
    match front.mode {
        Mode::Passthrough => judge_hello(front, settings, bytes),
        // Of the latter two, what was within TLS.
        Mode::Plain | Mode::Terminate | Mode::Reencrypt => judge_connect(front.group, settings, bytes),
    }
}

fn judge_hello(front: &Front, settings: &Settings, bytes: &[u8]) -> (Judged, Details) {
    let sni = match client_hello::look(bytes) {
        client_hello::Look::Hello(hello) => hello.sni,
        client_hello::Look::NotTls(why) => {
            tracing::debug!(%why, "not a ClientHello");
            return (Judged::Bad(Why::NotTls, None), Details::default());
        }
        // Also where no route asks for it: half a hello would hold a place among a broker's handshakes.
        client_hello::Look::NeedMore => return (Judged::NeedMore, Details::default()),
    };
    let group = settings.routes.by_sni(sni.as_deref()).unwrap_or(front.group);
    (Judged::Good(group), Details { sni, ..Details::default() })
}

/// `group` is that of clients that no rule sends elsewhere.
pub(super) fn judge_connect(group: GroupId, settings: &Settings, bytes: &[u8]) -> (Judged, Details) {
    let connect = match connect_packet::look(bytes) {
        Look::NeedMore => return (Judged::NeedMore, Details::default()),
        Look::NotConnect(why) => {
            tracing::debug!(%why, "not a CONNECT");
            let answer = why.reason().and_then(|reason| connect_packet::refuse(Version::V4, reason));
            return (Judged::Bad(Why::NotConnect, answer), Details::default());
        }
        Look::Connect(connect) => connect,
    };
    let details =
        Details { client_id: Some(connect.client_id.into()), version: Some(connect.version), ..Details::default() };
    let judged = match settings.routes.by_client_id(connect.client_id) {
        Verdict::Allow => Judged::Good(group),
        Verdict::Group(group) => Judged::Good(group),
        Verdict::Deny => Judged::Bad(Why::Denied, connect_packet::refuse(connect.version, ReasonCode::NotAuthorized)),
    };
    (judged, details)
}

#[cfg(test)]
mod tests;
