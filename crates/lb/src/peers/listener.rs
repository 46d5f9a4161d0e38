//! The peer port: lets the cluster's other lbs in, nobody else, and keeps what they tell.
//!
//! Each connection is one task in the `JoinSet` of [`run`], first as a stranger (TLS and HELLO, under a deadline and one of a
//! few places), then as that peer's link. A peer that comes again takes the place of its older link.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_config::Peer;
use evermq_daemon::{listen, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, Hello, VERSION};
use super::sender::alive;
use super::strangers::Strangers;
use super::wire::{Wire, WireError};
use super::{OPEN_TIMEOUT, PING_INTERVAL, Peers, clock};
use crate::admin::{self, Word};
use crate::roster::OutOfTurn;

/// Before the next accept after one that failed, as a rule for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same refusal is worth a warning again after this.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Different refusals within that time, after which there are no more warnings.
const MAX_REFUSALS: usize = 16;

type Connection = Wire<TlsStream<TcpStream>>;

/// Why a connection is no peer's.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("it has not proven to be a peer within {} s", OPEN_TIMEOUT.as_secs())]
    Slow,
    #[error("more recent connections took its place")]
    Evicted,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("it did not begin with HELLO")]
    NoHello,
    /// It has a certificate of the cluster's CA, so it is worth a warning.
    #[error("it {0}")]
    Refused(#[from] Refusal),
}

/// Why one that the cluster's CA vouches for is no peer. The texts are for both sides' logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("speaks version {0} of the peer protocol, this lb speaks {VERSION}; bring both to the same release")]
    Version(u8),
    #[error("belongs to cluster \"{theirs}\", this lb to \"{ours}\"; compare cluster.name on both hosts")]
    Cluster { theirs: String, ours: String },
    #[error(
        "says to be host \"{0}\", which is no other lb in this host's cluster file; compare [[hosts]] on both hosts"
    )]
    Host(String),
    #[error("says to be host \"{0}\", but its certificate holds neither that host's name nor its address")]
    Certificate(String),
}

/// Why a link is at an end.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    OutOfTurn(#[from] OutOfTurn),
    #[error("it sends what only the other side may send")]
    Side,
    #[error("it has connected once more")]
    Replaced,
}

/// What a task was for.
enum Ended {
    /// A handshake.
    Met { number: u64, address: SocketAddr, outcome: Box<Result<(usize, Hello, Connection), Stranger>> },
    /// A link, by its peer's index and its own number.
    Link { peer: usize, number: u64, error: LinkError },
}

/// The link of one peer that counts.
#[derive(Debug, Clone, Default)]
struct Current {
    number: u64,
    replaced: CancellationToken,
}

/// Everything that [`run`] works with.
struct Port {
    peers: Arc<Peers>,
    tasks: JoinSet<Ended>,
    strangers: Strangers,
    links: Vec<Current>,
    last_link: u64,
    /// Refusals by their text, and when they were last a warning.
    refusals: HashMap<String, Instant>,
}

/// Accepts until `shutdown`.
pub(super) async fn run(peers: Arc<Peers>, listener: std::net::TcpListener, shutdown: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "other lbs cannot tell this one of their clients"),
    };
    let mut port = Port::new(peers);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = expiry(port.poll_timeout()) => port.handle_timeout(),
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => port.meet(stream, address),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections of other lbs for the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = port.tasks.join_next() => match ended {
                Ok(Ended::Met { number, address, outcome }) => port.handle_met(number, address, *outcome),
                Ok(Ended::Link { peer, number, error }) => port.handle_ended(peer, number, &error),
                Err(error) => tracing::error!(%error, "a link to another lb has failed"),
            },
        }
    }
    // Dropping the set ends all of its tasks.
}

async fn expiry(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

impl Port {
    fn new(peers: Arc<Peers>) -> Self {
        let links = peers.links.iter().map(|_| Current::default()).collect();
        Self {
            peers,
            tasks: JoinSet::new(),
            strangers: Strangers::default(),
            links,
            last_link: 0,
            refusals: HashMap::new(),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.peers.links.iter().filter_map(|link| link.mirror().poll_timeout()).min()
    }

    fn handle_timeout(&self) {
        self.peers.links.iter().for_each(|link| link.mirror().handle_timeout(clock()));
    }

    /// Begins a handshake.
    fn meet(&mut self, stream: TcpStream, address: SocketAddr) {
        let tls = self.peers.tls().acceptor;
        let from_peer = self.peers.links.iter().any(|link| link.peer.address.ip() == address.ip());
        let (number, evicted) = self.strangers.enter(from_peer);
        let peers = Arc::clone(&self.peers);
        self.tasks.spawn(async move {
            let handshake = async {
                listen::tune(&stream, peers.socket).map_err(WireError::from)?;
                let stream = tls.accept(stream).await.map_err(WireError::from)?;
                identify(&peers, stream).await
            };
            let outcome = tokio::select! {
                () = evicted.cancelled() => Err(Stranger::Evicted),
                outcome = tokio::time::timeout(OPEN_TIMEOUT, handshake) => outcome.unwrap_or(Err(Stranger::Slow)),
            };
            Ended::Met { number, address, outcome: Box::new(outcome) }
        });
    }

    /// A handshake is over.
    fn handle_met(&mut self, number: u64, address: SocketAddr, outcome: Result<(usize, Hello, Connection), Stranger>) {
        self.strangers.leave(number);
        match outcome {
            Ok((peer, hello, wire)) => self.begin(peer, &hello, wire),
            Err(why) => self.report(address, &why, clock()),
        }
    }

    fn begin(&mut self, peer: usize, hello: &Hello, wire: Connection) {
        self.last_link += 1;
        let current = Current { number: self.last_link, replaced: CancellationToken::new() };
        let (number, replaced) = (current.number, current.replaced.clone());
        std::mem::replace(&mut self.links[peer], current).replaced.cancel();
        let peers = Arc::clone(&self.peers);
        let link = &peers.links[peer];
        link.mirror().handle_connected(hello.workers);
        tracing::info!(
            peer = %link.peer.name,
            from = "away",
            to = "connected",
            reason = "it has connected",
            "tells of its clients"
        );
        self.tasks.spawn(async move {
            let Err(error) = tokio::select! {
                () = replaced.cancelled() => Err(LinkError::Replaced),
                ended = serve(&peers, peer, wire) => ended,
            };
            Ended::Link { peer, number, error }
        });
    }

    /// A link is over. Its peer's list stays: this is when it may be needed.
    fn handle_ended(&self, peer: usize, number: u64, error: &LinkError) {
        if self.links[peer].number == number {
            let link = &self.peers.links[peer];
            link.mirror().handle_lost(clock());
            let clients = link.mirror().len();
            tracing::info!(
                peer = %link.peer.name,
                from = "connected",
                to = "away",
                reason = %error,
                clients,
                "tells of its clients"
            );
        }
    }

    /// Anybody can be a stranger, so a line for each is too much; but one of the cluster's own that is refused is not as it
    /// should be, and a warning tells, once a minute.
    fn report(&mut self, address: SocketAddr, why: &Stranger, now: Instant) {
        let reason = why.to_string();
        self.refusals.retain(|_, at| now < *at + REPEAT_AFTER);
        let is_news = matches!(why, Stranger::Refused(_))
            && self.refusals.len() < MAX_REFUSALS
            && !self.refusals.contains_key(&reason);
        if is_news {
            tracing::warn!(%address, reason, "connection to the peer port is refused");
            self.refusals.insert(reason, now);
        } else {
            tracing::debug!(%address, reason, "connection to the peer port is refused");
        }
    }
}

/// Reads HELLO and holds it against the certificate; says why, if they are no peer's.
async fn identify(peers: &Peers, stream: TlsStream<TcpStream>) -> Result<(usize, Hello, Connection), Stranger> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let mut wire = Wire::new(stream);
    let Frame::Hello(hello) = wire.receive().await? else { return Err(Stranger::NoHello) };
    let certified = |peer: &Peer| {
        certificate.as_ref().is_some_and(|shown| tls::is_certificate_of(shown, &peer.name, peer.address.ip()))
    };
    match admit(peers, &hello, certified) {
        Ok(peer) => {
            wire.send_frame(&Frame::Welcome { version: VERSION }).await?;
            Ok((peer, hello, wire))
        }
        Err(refusal) => {
            wire.send_frame(&Frame::Refused(refusal.to_string())).await?;
            wire.finish().await;
            Err(refusal.into())
        }
    }
}

/// Which peer says this HELLO; `certified` tells whether the connection's certificate is that peer's.
fn admit(peers: &Peers, hello: &Hello, certified: impl FnOnce(&Peer) -> bool) -> Result<usize, Refusal> {
    if hello.version != VERSION {
        return Err(Refusal::Version(hello.version));
    }
    if hello.cluster != peers.cluster.as_str() {
        return Err(Refusal::Cluster { theirs: hello.cluster.clone(), ours: peers.cluster.as_str().to_owned() });
    }
    let found = peers.links.iter().position(|link| link.peer.name.as_str() == hello.host);
    let index = found.ok_or_else(|| Refusal::Host(hello.host.clone()))?;
    if certified(&peers.links[index].peer) { Ok(index) } else { Err(Refusal::Certificate(hello.host.clone())) }
}

/// Keeps what a peer tells, until it tells no more.
async fn serve(peers: &Peers, peer: usize, mut wire: Connection) -> Result<Infallible, LinkError> {
    let link = &peers.links[peer];
    let mut checks = tokio::time::interval(PING_INTERVAL);
    let mut seen = clock();
    loop {
        let frame = tokio::select! {
            frame = wire.receive() => frame?,
            _ = checks.tick() => {
                alive(seen, clock())?;
                continue;
            }
        };
        seen = clock();
        match frame {
            Frame::Begin { worker } => link.mirror().handle_begin(worker)?,
            Frame::Changes { worker, changes } => link.mirror().handle_changes(worker, &changes)?,
            Frame::End { worker } => link.mirror().handle_end(worker)?,
            Frame::Ping => wire.send_frame(&Frame::Pong).await?,
            Frame::Backend { name, word } => hear(peers, &link.peer, &name, word),
            Frame::Hello(_) | Frame::Welcome { .. } | Frame::Refused(_) | Frame::Pong => return Err(LinkError::Side),
        }
    }
}

/// An operator has said something of a backend on another lb.
fn hear(peers: &Peers, from: &Peer, backend: &str, word: Word) {
    let before = peers.board.words().of(backend);
    if peers.board.hear(backend, word.clone()) {
        admin::log(backend, &before, &word, from.name.as_str());
    }
}
