//! What the lbs tell each other: every lb connects to every other one and tells the list of its own clients, as they come
//! and go, and what operators have said of backends. See [`crate::roster`] and [`crate::admin`] for what that is good for.
//!
//! | module | subject | |
//! |---|---|---|
//! | [`frame`] | what goes over the wire | pure |
//! | [`strangers`] | connections that have not yet proven to be a peer's | |
//! | [`clients`] | a worker's end: notes clients, hands on what is new | |
//! | [`wire`] | one connection: frames in and out | I/O |
//! | [`sender`] | tells one peer this lb's list | I/O |
//! | [`listener`] | lets peers in, and keeps what they tell | I/O |
//!
//! | task | owner | ends |
//! |---|---|---|
//! | [`run`]: makes frames out of what the workers hand on | the control thread's set | with its token |
//! | one sender for each peer; the listener, with a task for each connection | [`run`] | with it |
//!
//! Nothing here runs on a worker's thread but [`clients`]. A peer that is slow or away holds nobody up: what it has missed is
//! made good by telling it everything anew.

pub(crate) mod clients;
pub mod frame;
pub(crate) mod listener;
pub(crate) mod sender;
mod strangers;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_config::{ClusterName, HostName, LbConfig, Peer};
use evermq_daemon::control::Answer;
use evermq_daemon::listen::SocketOptions;
use evermq_daemon::tls::{Material, TlsError};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admin::Board;
use crate::engine::worker::Worker;
use crate::roster::{Connection, Mirror};
use clients::{Clients, News};

/// Batches that wait for a peer that does not take them at once; after that it is told everything anew.
const BEHIND: usize = 64;
/// Batches that the workers have handed on and the control thread has not taken; a worker whose batch does not fit keeps it.
const HANDED_ON: usize = 16;
/// Connections in one line of the answer to `clients`.
const LINE: usize = 256;
/// TCP, TLS and the greeting together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two signs of life of one side.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Without a sign of life for this long the other side is gone.
const DEAD_AFTER: Duration = Duration::from_secs(3);

/// This lb among the others: shared by the tasks of the control thread.
#[derive(Debug)]
pub(crate) struct Peers {
    cluster: ClusterName,
    host: HostName,
    rate: AtomicU32,
    /// For connections from now on.
    tls: Mutex<PeerTls>,
    socket: SocketOptions,
    /// What operators have said, here and there.
    board: Arc<Board>,
    links: Box<[Link]>,
}

/// This host's certificates, towards the other lbs.
#[derive(Clone)]
struct PeerTls {
    acceptor: TlsAcceptor,
    dial: Arc<[Arc<ClientConfig>]>,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTls").finish_non_exhaustive()
    }
}

/// One other lb.
#[derive(Debug)]
struct Link {
    peer: Peer,
    /// What it tells.
    mirror: Mutex<Mirror>,
    /// What this lb tells it.
    sending: Mutex<Sending>,
}

#[derive(Debug, Default)]
struct Sending {
    connected: bool,
    last_error: Option<String>,
}

/// What is bound and made before anything runs.
pub(crate) struct Exchange {
    peers: Arc<Peers>,
    listener: std::net::TcpListener,
    news: mpsc::Receiver<News>,
}

/// What every sender sends.
#[derive(Debug, Clone)]
struct Outgoing {
    worker: usize,
    /// This is the worker's whole list.
    anew: bool,
    frames: Bytes,
}

/// One other lb, for the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// Its host's name.
    pub name: String,
    /// Where it listens for other lbs.
    pub address: SocketAddr,
    /// Whether it tells this lb of its clients.
    pub receiving: bool,
    /// Whether this lb tells it of its own.
    pub sending: bool,
    /// Its client connections, as far as they are known here.
    pub clients: usize,
    /// Its client connections that were too many to be kept, since the start.
    pub not_kept: u64,
    /// Why it could not be told, the last time that it could not.
    pub last_error: Option<String>,
}

impl Exchange {
    /// Makes an exchange with `config.peers`, which are not none, on a socket that listens.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub(crate) fn new(
        config: &LbConfig,
        material: &Material,
        socket: SocketOptions,
        listener: std::net::TcpListener,
        board: Arc<Board>,
    ) -> Result<(Self, mpsc::Sender<News>), TlsError> {
        let (sender, news) = mpsc::channel(HANDED_ON);
        let link = |peer: &Peer| Link {
            peer: peer.clone(),
            mirror: Mutex::new(Mirror::new(config.lb.max_connections)),
            sending: Mutex::default(),
        };
        let exchange = Self {
            peers: Arc::new(Peers {
                cluster: config.cluster.clone(),
                host: config.host.clone(),
                rate: AtomicU32::new(config.lb.reconnect_rate),
                tls: Mutex::new(PeerTls::new(&config.peers, material)?),
                socket,
                board,
                links: config.peers.iter().map(link).collect(),
            }),
            listener,
            news,
        };
        Ok((exchange, sender))
    }

    /// What the control socket shows.
    pub(crate) fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers)
    }

    /// Tells and listens until `shutdown`.
    pub(crate) async fn run(self, workers: Arc<[Arc<Worker>]>, shutdown: CancellationToken) {
        let Self { peers, listener, mut news } = self;
        let (outgoing, _) = broadcast::channel(BEHIND);
        let mut tasks = JoinSet::new();
        for index in 0..peers.links.len() {
            let sender = sender::Sender::new(Arc::clone(&peers), index, Arc::clone(&workers), outgoing.clone());
            tasks.spawn(sender.run(shutdown.clone()));
        }
        tasks.spawn(listener::run(Arc::clone(&peers), listener, shutdown.clone()));
        loop {
            let news = tokio::select! {
                () = shutdown.cancelled() => break,
                news = news.recv() => news,
            };
            // Senders of the channel live as long as the workers, which this task's owner ends after this task.
            let Some(News { worker, batch }) = news else { break };
            if outgoing.receiver_count() > 0 {
                let frames = frame::encode_batch(worker, &batch);
                // Nobody listens any more: they get everything when they are back.
                let _ = outgoing.send(Outgoing { worker, anew: batch.anew, frames });
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl PeerTls {
    fn new(peers: &[Peer], material: &Material) -> Result<Self, TlsError> {
        let dial = peers.iter().map(|peer| material.client_config_for(&peer.name, peer.address.ip()));
        Ok(Self { acceptor: TlsAcceptor::from(material.server_config()?), dial: dial.collect::<Result<_, _>>()? })
    }
}

impl Peers {
    /// The cluster file and the certificates were read again. Connections that stand go on as they are.
    ///
    /// # Errors
    /// Certificate and key do not belong together; nothing has changed then.
    pub(crate) fn renew(&self, reconnect_rate: u32, material: &Material) -> Result<(), TlsError> {
        let peers: Vec<Peer> = self.links.iter().map(|link| link.peer.clone()).collect();
        let tls = PeerTls::new(&peers, material)?;
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
        self.rate.store(reconnect_rate, Ordering::Relaxed);
        Ok(())
    }

    fn tls(&self) -> PeerTls {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer to `{"request":"clients"}`: whom to tell that the VIP has moved here.
    pub(crate) fn answer_clients(&self) -> Answer {
        let mut lines = vec![json!({ "rate": self.rate.load(Ordering::Relaxed), "peers": self.state() })];
        for link in &self.links {
            let mirror = link.mirror();
            let mut connections = mirror.connections().map(entry).peekable();
            while connections.peek().is_some() {
                lines.push(Value::Array(connections.by_ref().take(LINE).collect()));
            }
        }
        lines.push(json!({ "end": true }));
        Answer::Lines(lines)
    }

    /// Every other lb, in the file's order.
    pub(crate) fn state(&self) -> Vec<PeerState> {
        self.links.iter().map(Link::state).collect()
    }
}

impl Link {
    fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> PeerState {
        let (mirror, sending) = (self.mirror(), self.sending());
        PeerState {
            name: self.peer.name.as_str().to_owned(),
            address: self.peer.address,
            receiving: mirror.is_connected(),
            sending: sending.connected,
            clients: mirror.len(),
            not_kept: mirror.not_kept(),
            last_error: sending.last_error.clone(),
        }
    }
}

/// The same where there is no other lb.
pub(crate) fn no_clients() -> Answer {
    Answer::Lines(vec![json!({ "rate": 1, "peers": [] }), json!({ "end": true })])
}

fn entry(connection: Connection) -> Value {
    let Connection { client, local } = connection;
    json!([client.ip(), client.port(), local.ip(), local.port()])
}

/// Each worker's end of the exchange.
pub(crate) fn clients(news: Option<&mpsc::Sender<News>>, worker: usize) -> Option<Clients> {
    news.map(|news| Clients::new(worker, news.clone()))
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}
