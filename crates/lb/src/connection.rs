//! One client: finds a backend for it, then relays.
//!
//! Nothing is read from the client before a backend stands, so a backend that refuses costs the client nothing but time:
//! the next one is tried, each at most once. The task is owned by the worker's runtime and can be dropped at any point;
//! what it holds gives itself back.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use evermq_daemon::listen;
use nix::errno::Errno;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::backend::Refusal;
use crate::pool::Lease;
use crate::relay::Relay;
use crate::worker::{Place, Registration, Worker};

/// How long a client waits until this system has descriptors or ports again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Serves one client to its end.
pub(crate) async fn serve(worker: Arc<Worker>, client: TcpStream, from: SocketAddr, mut place: Place) {
    place.note(from, &client);
    // In a box of its own: what connecting needs would otherwise stay a part of the task for as long as the client does.
    let Some((backend, lease, registration)) = Box::pin(connect(&worker)).await else {
        worker.turn_away();
        tracing::debug!(client = %from, "closing: no broker takes it");
        return;
    };
    let mut relay = Relay::new(client, backend, lease, registration);
    let why = poll_fn(|context| relay.poll(context)).await;
    let (to_backend, to_client) = relay.bytes();
    tracing::debug!(client = %from, backend = %relay.backend_name(), %why, to_backend, to_client, "connection ended");
    drop(relay);
    drop(place);
}

/// A connection to a backend, the best first; `None` once each that may be tried has been.
async fn connect(worker: &Arc<Worker>) -> Option<(TcpStream, Lease, Registration)> {
    let mut tried = Vec::new();
    // Those whose own doing it was; the others are worth another try.
    let mut refused = Vec::new();
    let mut shortage = None;
    let give_up = Instant::now() + worker.settings.connect_timeout;
    loop {
        let Some(lease) = worker.pool.choose(&tried) else {
            let error = shortage.take()?;
            if Instant::now() >= give_up {
                worker.say_shortage(&error, Instant::now().into_std());
                return None;
            }
            tokio::time::sleep(SHORTAGE_PAUSE).await;
            tried.clone_from(&refused);
            continue;
        };
        let member = lease.member();
        match open(&lease, worker).await {
            Ok((backend, registration)) => {
                lease.begin();
                return Some((backend, lease, registration));
            }
            Err(Failure::Backend(refusal)) => {
                tracing::debug!(backend = %member.name(), %refusal, "trying another backend");
                member.refuse(refusal);
                refused.push(lease.index());
            }
            Err(Failure::WentDown) => {
                tracing::debug!(backend = %member.name(), "went down while it was connected to");
                refused.push(lease.index());
            }
            Err(Failure::Local(error)) => shortage = Some(error),
        }
        tried.push(lease.index());
    }
}

/// Why there is no connection.
#[derive(Debug)]
enum Failure {
    /// The backend's doing.
    Backend(Refusal),
    /// Its session ended, or the lb stops: known already.
    WentDown,
    /// This system lacks descriptors, ports or memory.
    Local(io::Error),
}

async fn open(lease: &Lease, worker: &Arc<Worker>) -> Result<(TcpStream, Registration), Failure> {
    let address = lease.member().address();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let connecting = socket.map_err(Failure::Local)?.connect(address);
    let mut connecting = pin!(tokio::time::timeout(worker.settings.connect_timeout, connecting));
    let mut registration = None;
    // A host that died without a word would otherwise keep its clients for all of connect_timeout.
    let stream = poll_fn(|context| {
        if lease.is_stale() || worker.is_closing() {
            return Poll::Ready(Err(Failure::WentDown));
        }
        registration.get_or_insert_with(|| worker.register(lease.index(), context.waker().clone()));
        connecting.as_mut().poll(context).map(|done| match done {
            Ok(connected) => connected.map_err(Failure::of),
            Err(_) => Err(Failure::Backend(Refusal::TimedOut)),
        })
    })
    .await?;
    listen::tune(&stream, worker.settings.socket).map_err(Failure::of)?;
    Ok((stream, registration.ok_or(Failure::WentDown)?))
}

impl Failure {
    fn of(error: io::Error) -> Self {
        match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
            Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOBUFS
            | Errno::ENOMEM
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

    #[tokio::test]
    async fn an_idle_connection_is_small() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let from = listener.local_addr().unwrap();
        let client = TcpStream::connect(from).await.unwrap();
        let worker = Arc::new(crate::worker::tests::worker(&[]));
        let place = worker.enter().await;
        let future = serve(worker, client, from, place);
        // The task itself; two sockets with about 300 bytes each in tokio's driver come on top.
        assert!(size_of_val(&future) <= 400, "{} bytes", size_of_val(&future));
    }
}
