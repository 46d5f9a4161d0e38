//! Tells one peer this lb's list: connects, tells everything, then what is new.
//!
//! One task; it spawns nothing, and each input of its `select!` is cancel-safe. A peer that is behind has missed something
//! and is told everything anew; one that is away is tried again all the time, ever more seldom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_daemon::{listen, tls};
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::frame::{self, Frame, Hello, VERSION};
use super::wire::{Wire, WireError};
use super::{DEAD_AFTER, Link, OPEN_TIMEOUT, Outgoing, PING_INTERVAL, Peers, clock};
use crate::engine::worker::Worker;

/// The first wait after an attempt that failed.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest. A peer that is back should know of this lb's clients before it is away again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// For TCP alone: the lbs are in one network, and a SYN that was lost is repeated ever more seldom.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The sender to one peer.
pub(super) struct Sender {
    peers: Arc<Peers>,
    index: usize,
    workers: Arc<[Arc<Worker>]>,
    outgoing: broadcast::Sender<Outgoing>,
}

/// Why the peer is not told, or not any more.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("no connection within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("it refuses: {0}")]
    Refused(String),
    #[error("it answers something else than a load balancer does")]
    Answer,
}

impl From<std::io::Error> for SendError {
    fn from(error: std::io::Error) -> Self {
        WireError::from(error).into()
    }
}

impl Sender {
    pub(super) fn new(
        peers: Arc<Peers>,
        index: usize,
        workers: Arc<[Arc<Worker>]>,
        outgoing: broadcast::Sender<Outgoing>,
    ) -> Self {
        Self { peers, index, workers, outgoing }
    }

    /// Until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        let mut wait = FIRST_WAIT;
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = self.serve(&mut wait) => ended,
            };
            let Err(error) = ended;
            self.lost(&error);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            }
        }
    }

    /// One connection, to its end.
    async fn serve(&self, wait: &mut Duration) -> Result<std::convert::Infallible, SendError> {
        let mut wire =
            tokio::time::timeout(OPEN_TIMEOUT, self.open()).await.map_err(|_| SendError::Slow(OPEN_TIMEOUT))??;
        *wait = FIRST_WAIT;
        self.reached();
        // Before everybody is asked for everything, so that nothing comes between.
        let mut news = self.outgoing.subscribe();
        let mut told = self.begin_anew();
        let mut words = self.peers.board.changes();
        words.mark_changed();
        let mut pings = tokio::time::interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = clock();
        loop {
            tokio::select! {
                news = news.recv() => match news {
                    Ok(Outgoing { worker, anew, frames }) => {
                        told[worker] |= anew;
                        if told[worker] {
                            wire.send(&frames).await?;
                        }
                    }
                    Err(RecvError::Lagged(_)) => told = self.begin_anew(),
                    // The exchange ends; the token says so as well.
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                Ok(()) = words.changed() => wire.send(&self.words()).await?,
                frame = wire.receive() => match frame? {
                    Frame::Pong => seen = clock(),
                    Frame::Refused(text) => return Err(SendError::Refused(text)),
                    _ => return Err(SendError::Answer),
                },
                _ = pings.tick() => {
                    alive(seen, clock())?;
                    wire.send_frame(&Frame::Ping).await?;
                }
            }
        }
    }

    async fn open(&self) -> Result<Wire<TlsStream<TcpStream>>, SendError> {
        let peer = &self.link().peer;
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(peer.address));
        let stream = connecting.await.map_err(|_| SendError::Slow(CONNECT_TIMEOUT))??;
        listen::tune(&stream, self.peers.socket)?;
        let mut wire = Wire::new(self.connector().connect(tls::server_name(&peer.name), stream).await?);
        let hello = Hello {
            version: VERSION,
            workers: u16::try_from(self.workers.len()).unwrap_or(u16::MAX),
            cluster: self.peers.cluster.as_str().to_owned(),
            host: self.peers.host.as_str().to_owned(),
        };
        wire.send_frame(&Frame::Hello(hello)).await?;
        match wire.receive().await? {
            Frame::Welcome { version: VERSION } => Ok(wire),
            Frame::Refused(text) => Err(SendError::Refused(text)),
            _ => Err(SendError::Answer),
        }
    }

    /// Has every worker tell its whole list. Gives whose was told since: nobody's.
    fn begin_anew(&self) -> Vec<bool> {
        self.workers.iter().for_each(|worker| worker.tell_all_clients());
        vec![false; self.workers.len()]
    }

    /// All that operators have said: little, and said seldom. The peer keeps what is news to it.
    fn words(&self) -> BytesMut {
        let mut frames = BytesMut::new();
        for (name, word) in self.peers.board.words().iter() {
            frame::encode(&Frame::Backend { name: name.to_owned(), word: word.clone() }, &mut frames);
        }
        frames
    }

    fn connector(&self) -> TlsConnector {
        Arc::clone(&self.peers.tls().dial[self.index]).into()
    }

    fn link(&self) -> &Link {
        &self.peers.links[self.index]
    }

    fn reached(&self) {
        self.link().sending().connected = true;
        let peer = &self.link().peer;
        tracing::info!(
            peer = %peer.name,
            address = %peer.address,
            from = "away",
            to = "connected",
            reason = "it let this lb in",
            "told of this lb's clients"
        );
    }

    /// One line for each peer that was there; one that stays away is the same story.
    fn lost(&self, error: &SendError) {
        let peer = &self.link().peer;
        let text = error.to_string();
        let mut sending = self.link().sending();
        if std::mem::take(&mut sending.connected) {
            tracing::info!(
                peer = %peer.name,
                address = %peer.address,
                from = "connected",
                to = "away",
                reason = text,
                "told of this lb's clients"
            );
        } else if matches!(error, SendError::Refused(_)) && sending.last_error.as_ref() != Some(&text) {
            tracing::warn!(
                peer = %peer.name,
                address = %peer.address,
                reason = text,
                "cannot tell another lb of this lb's clients"
            );
        } else {
            tracing::debug!(peer = %peer.name, address = %peer.address, reason = text, "not connected");
        }
        sending.last_error = Some(text);
    }
}

/// # Errors
/// There was no sign of life for too long.
pub(super) fn alive(seen: Instant, now: Instant) -> Result<(), WireError> {
    if now.saturating_duration_since(seen) < DEAD_AFTER { Ok(()) } else { Err(WireError::Silent) }
}
