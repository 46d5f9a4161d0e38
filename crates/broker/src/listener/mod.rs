//! Who may come in, and how: listeners, and what comes before a client's [`Connection`](crate::connection::Connection).
//!
//! | module | subject |
//! |---|---|
//! | [`door`] | one listener's rules |
//! | [`bind`] | its sockets |
//! | [`conditions`] | what holds for those who come, which a reload may change |
//! | [`reception`] | all of them, and the workers |
//! | [`hall`] | where a worker's strangers wait, and whose turn it is |
//! | [`handshake`] | PROXY protocol, TLS, WebSocket, CONNECT |
//!
//! Each worker has listening sockets of its own for the same addresses, and the kernel spreads new connections over them; a Unix
//! socket is one, which all workers accept from. A connection is one task of its worker, owned by the worker's tracker; until
//! its CONNECT it ends at once when the broker stops.

pub mod bind;
pub mod conditions;
pub mod door;
pub mod hall;
mod handshake;
pub mod reception;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evermq_daemon::{kept, listen};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::connection::clock;
use crate::places::Places;
use crate::places::notice::Notice;
use crate::proxy::LoadBalancers;
use crate::stream::Socket;

pub use self::door::Door;
pub use self::hall::{Hall, Stranger};

/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Where the clients of a Unix socket are.
const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What every connection is given.
#[derive(Clone)]
pub struct Entrance {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The listener's rules.
    pub door: Arc<Door>,
    /// How many may be connected.
    pub places: Arc<Places>,
    /// Where the worker's strangers are.
    pub hall: Arc<Hall>,
    /// Whose PROXY protocol headers are believed.
    pub lbs: LoadBalancers,
    /// Time-outs and the like.
    pub conditions: conditions::Shared,
    /// Ends what has not got in.
    pub shutdown: CancellationToken,
}

/// A listening socket that belongs to a worker's runtime.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Acceptor {
    async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, from)| (Socket::Tcp(stream), from)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Socket::Unix(stream), HERE)),
        }
    }
}

/// Accepts connections until shutdown.
pub async fn serve(acceptor: Acceptor, entrance: Entrance, tasks: TaskTracker) {
    tokio::select! {
        () = entrance.shutdown.cancelled() => if let Acceptor::Tcp(listener) = &acceptor { kept::let_go(listener) },
        () = accept_all(&acceptor, &entrance, &tasks) => {}
    }
}

async fn accept_all(acceptor: &Acceptor, entrance: &Entrance, tasks: &TaskTracker) {
    let name = &*entrance.door.name;
    let (notice, mut has_said) = (Notice::default(), false);
    loop {
        let (socket, from) = match acceptor.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // As a rule there are no more open files, and the connection waits in the backlog until there are.
                if let Some(times) = notice.count(clock()) {
                    has_said = true;
                    tracing::warn!(
                        listener = name,
                        %error,
                        times,
                        "cannot accept connections; trying again until it works; said once a minute at most"
                    );
                }
                entrance.broker.counters.accept_failures.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if std::mem::take(&mut has_said) {
            tracing::info!(listener = name, "connections are accepted again");
        }
        let counters = &entrance.broker.counters;
        counters.sockets.fetch_add(1, Ordering::Relaxed);
        // Only this one waits: whoever comes after it does so in the backlog.
        let stranger = entrance.hall.enter(from.ip(), counters).await;
        let held = match entrance.places.take(&entrance.broker, entrance.door.places.as_ref()) {
            Ok(held) => held,
            Err(full) => {
                // §4.13: nothing is known of the other side, so there is nothing to say.
                counters.strangers.fetch_add(1, Ordering::Relaxed);
                entrance.places.refused(full, counters, clock());
                tracing::debug!(address = %from, listener = name, reason = %full, "connection did not get in");
                continue;
            }
        };
        if let Socket::Tcp(stream) = &socket
            && let Err(error) = listen::tune(stream, entrance.conditions.load().options)
        {
            tracing::debug!(%error, "TCP options");
        }
        let spot = stranger.spot();
        let (newcomer, clients) =
            (handshake::Newcomer { entrance: entrance.clone(), stranger, held, from }, tasks.clone());
        let task = tasks.spawn(newcomer.enter(socket, clients));
        entrance.hall.set_task(spot, task.abort_handle());
    }
}
