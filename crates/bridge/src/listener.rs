//! The peer port: lets the cluster's other brokers in, nobody else, and keeps strangers few and short.
//!
//! Tasks: [`serve`] accepts; each connection is one task in its `JoinSet`, first as a stranger (TLS, HELLO, under a deadline and
//! one of a few places), then, once proven a peer, as that peer's [`Incoming`] link. Dropping `serve` ends them all.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evermq_daemon::{listen, tls};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::admission::{Admission, StrangerId};
use crate::fanout::Refusal;
use crate::frame::{self, Frame, FrameError, Hello, MAX_GREETING};
use crate::identity::Identity;
use crate::incoming::Incoming;
use crate::link::OPEN_TIMEOUT;
use crate::mesh::{Mesh, add, now};
use crate::roster::PeerSlot;
use crate::wire::{Progress, Wire};

/// Answers that wait to be sent before reading pauses.
const OUTPUT_LIMIT: usize = 64 * 1024;
/// Before the next accept after one that failed, as a rule for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The same refusal is worth a warning again after this.
const REPEAT_AFTER: Duration = Duration::from_secs(60);

/// Different refusals within that time, after which there are no more warnings.
const MAX_REFUSALS: usize = 16;

type Connection = TlsStream<TcpStream>;

/// How a stranger's handshake ended.
struct Met {
    id: StrangerId,
    address: SocketAddr,
    outcome: Result<(Arc<PeerSlot>, Hello, Wire<Connection>), Stranger>,
}

/// Why a connection is not a peer's.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("it has not proven to be a peer within {} s", OPEN_TIMEOUT.as_secs())]
    Slow,
    #[error("more recent connections took its place")]
    Evicted,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("it did not begin with HELLO")]
    NoHello,
    /// It has a certificate of the cluster's CA, so it is worth a warning.
    #[error("it {0}")]
    Refused(#[from] Refusal),
}

/// What a task of the listener was for.
enum Ended {
    Met(Box<Met>),
    Link,
}

/// Accepts until `shutdown`.
///
/// # Errors
/// A task has panicked.
pub(crate) async fn serve(
    mesh: Arc<Mesh>,
    listener: TcpListener,
    identity: Arc<Identity>,
    shutdown: CancellationToken,
) -> Result<(), JoinError> {
    let mut tasks: JoinSet<Ended> = JoinSet::new();
    let mut strangers = Strangers::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let (id, evicted) = strangers.enter(mesh.roster().fanout.is_peer_address(address));
                    tasks.spawn(meet(Arc::clone(&mesh), stream, address, identity.acceptor(), id, evicted));
                }
                Err(error) => {
                    warn!(%error, "cannot accept connections of peers for the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = tasks.join_next() => if let Ended::Met(met) = ended? {
                strangers.leave(met.id);
                match met.outcome {
                    Ok((slot, hello, wire)) => {
                        let incoming = Incoming::begin(Arc::clone(&mesh), slot, &hello, wire);
                        let shutdown = shutdown.clone();
                        tasks.spawn(async move { incoming.run(shutdown).await; Ended::Link });
                    }
                    Err(why) => strangers.report(&mesh, met.address, &why, now()),
                }
            },
        }
    }
    strangers.evict_all();
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// Takes a connection through its handshake.
async fn meet(
    mesh: Arc<Mesh>,
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    id: StrangerId,
    evicted: CancellationToken,
) -> Ended {
    let handshake = async {
        listen::tune(&stream, mesh.socket)?;
        let stream = tls.accept(stream).await?;
        identify(&mesh, stream).await
    };
    let outcome = tokio::select! {
        () = evicted.cancelled() => Err(Stranger::Evicted),
        outcome = tokio::time::timeout(OPEN_TIMEOUT, handshake) => outcome.unwrap_or(Err(Stranger::Slow)),
    };
    Ended::Met(Box::new(Met { id, address, outcome }))
}

/// Reads HELLO and holds it against the certificate; says why, if they are no peer's.
async fn identify(mesh: &Mesh, stream: Connection) -> Result<(Arc<PeerSlot>, Hello, Wire<Connection>), Stranger> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let mut wire = Wire::new(stream, OUTPUT_LIMIT);
    let hello = loop {
        match wire.progress().await {
            Progress::Ended(error) => return Err(error.into()),
            Progress::Sent => {}
            Progress::Received => match wire.next_frame(MAX_GREETING)? {
                Some(Frame::Hello(hello)) => break hello,
                Some(_) => return Err(Stranger::NoHello),
                None => {}
            },
        }
    };
    let roster = mesh.roster();
    let admitted = roster.fanout.admit(&hello, |host, address| {
        certificate.is_some_and(|certificate| tls::is_certificate_of(&certificate, host, address))
    });
    match admitted {
        Ok(index) => Ok((Arc::clone(&roster.slots[index]), hello, wire)),
        Err(refusal) => {
            frame::encode(&Frame::Error { text: refusal.to_string() }, wire.output());
            wire.finish().await;
            Err(refusal.into())
        }
    }
}

/// Connections in their handshake, and what was last said of them.
#[derive(Default)]
struct Strangers {
    admission: Admission,
    tokens: HashMap<StrangerId, CancellationToken>,
    /// Refusals by their text, and when they were last a warning.
    refusals: HashMap<String, Instant>,
}

impl Strangers {
    /// Gives a place, and what tells the connection that it has lost it.
    fn enter(&mut self, from_peer_address: bool) -> (StrangerId, CancellationToken) {
        let (id, evicted) = self.admission.enter(from_peer_address);
        if let Some(token) = evicted.and_then(|id| self.tokens.remove(&id)) {
            token.cancel();
        }
        let token = CancellationToken::new();
        self.tokens.insert(id, token.clone());
        (id, token)
    }

    fn leave(&mut self, id: StrangerId) {
        self.admission.leave(id);
        self.tokens.remove(&id);
    }

    fn evict_all(&mut self) {
        self.tokens.drain().for_each(|(_, token)| token.cancel());
    }

    /// Anybody can be a stranger, so a line for each is too much; but one of the cluster's own that is refused is not as it
    /// should be, and a warning tells, once a minute.
    fn report(&mut self, mesh: &Mesh, address: SocketAddr, why: &Stranger, now: Instant) {
        add(&mesh.strangers, 1);
        let reason = why.to_string();
        self.refusals.retain(|_, at| now < *at + REPEAT_AFTER);
        let is_news = matches!(why, Stranger::Refused(_))
            && self.refusals.len() < MAX_REFUSALS
            && !self.refusals.contains_key(&reason);
        if is_news {
            warn!(%address, reason, "connection to the peer port is refused");
            self.refusals.insert(reason, now);
        } else {
            debug!(%address, reason, "connection to the peer port is refused");
        }
    }
}
