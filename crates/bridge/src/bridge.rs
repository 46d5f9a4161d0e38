//! What the broker sees of the bridge.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use evermq_config::{BrokerConfig, Peer};
use evermq_daemon::listen::{self, ListenError};
use evermq_daemon::tls::{Material, TlsError};
use evermq_mqtt::{Publish, Text};
use evermq_store::{Handle, Position, SegmentId, SessionId};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::alarm;
use crate::claim::{Claim, Clients};
use crate::directions::Directions;
use crate::driver;
use crate::groups::Groups;
use crate::hold::Hold;
use crate::identity::Identity;
use crate::mesh::{self, Mesh, PeersChanged, wall_clock};
use crate::message::{Keeper, Local, Message, Recovered, Stamp, is_kept};
use crate::state::{BridgeState, Filling};

/// One broker's place in the mesh.
pub struct Bridge {
    mesh: Arc<Mesh>,
    address: SocketAddr,
    /// Until [`Bridge::run`] takes it.
    listener: Mutex<Option<TcpListener>>,
    identity: Arc<Identity>,
}

/// Whether publishers should wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// Go on.
    Clear,
    /// A connected peer is behind: stop reading from the publishing client until [`Bridge::relieved`] returns. Otherwise
    /// the queue fills up and its oldest messages are lost for that peer.
    High,
}

/// Why the bridge cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The peer port is not to be had.
    #[error("cannot receive from other brokers")]
    Listen(#[from] ListenError),
    /// The listening socket cannot be used.
    #[error("cannot use the listening socket for other brokers")]
    Socket(#[source] io::Error),
    /// Certificate and key do not belong together, or the like.
    #[error("cannot prove this broker's identity to the others")]
    Tls(#[from] TlsError),
    /// [`Bridge::run`] was called before.
    #[error("the bridge runs already, and runs only once")]
    RunsAlready,
    /// A defect of the program; the broker should stop, and be started again.
    #[error("a task of the bridge has panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Bridge {
    /// Binds `config.peer_listen`, so that peers that come early wait instead of being refused. Needs no runtime.
    ///
    /// # Errors
    /// The address or the certificates cannot be used.
    pub fn new(config: &BrokerConfig, material: &Material, local: Arc<dyn Local>) -> Result<Arc<Self>, BridgeError> {
        Self::on_listener(listen::tcp(config.peer_listen, false)?, config, material, local)
    }

    /// Takes a socket that listens already, in place of `config.peer_listen`.
    ///
    /// # Errors
    /// The socket or the certificates cannot be used.
    pub fn on_listener(
        listener: TcpListener,
        config: &BrokerConfig,
        material: &Material,
        local: Arc<dyn Local>,
    ) -> Result<Arc<Self>, BridgeError> {
        listener.set_nonblocking(true).map_err(BridgeError::Socket)?;
        let address = listener.local_addr().map_err(BridgeError::Socket)?;
        Ok(Arc::new(Self {
            identity: Arc::new(Identity::new(material, &config.peers)?),
            mesh: Arc::new(Mesh::new(config, local, wall_clock())),
            address,
            listener: Mutex::new(Some(listener)),
        }))
    }

    /// Goes on where the broker was when its process ended, and keeps its log in the store from now on. To be called before
    /// [`Bridge::run`] and before anything is published; without it the log ends with the process.
    pub fn recover(&self, keeper: Arc<dyn Keeper>, recovered: Recovered) {
        self.mesh.recover(keeper, recovered);
    }

    /// Who knows of this broker's clients; what peers say of theirs is not heard before. Called once.
    pub fn set_clients(&self, clients: Arc<dyn Clients>) {
        // A second call would be a defect of the broker; the first one stays.
        let _ = self.mesh.clients.set(clients);
    }

    /// A client has connected to this broker, and [`Clients::connected`] has it: where it was connected before, it is to be
    /// no longer. Never blocks; callable from any thread. The claim's stamp is one of [`Bridge::next_stamp`].
    pub fn claim(&self, claim: Claim) {
        self.mesh.claim(claim);
    }

    /// Who knows of this broker's groups of shared subscriptions; what peers say of theirs is not heard before. Called once.
    pub fn set_groups(&self, groups: Arc<dyn Groups>) {
        // Likewise.
        let _ = self.mesh.groups.set(groups);
    }

    /// The members of the group with this topic filter have changed, and [`Groups::members`] says so. Never blocks; callable
    /// from any thread.
    pub fn group_changed(&self, filter: &Text) {
        self.mesh.group_changed(filter);
    }

    /// Whether a message is to be in the store when it is published: there are peers, and it is more than QoS 0.
    #[must_use]
    pub fn keeps(&self, publish: &Publish) -> bool {
        self.mesh.has_peers() && is_kept(publish)
    }

    /// For [`evermq_store::Live::checkpoint`]: writes down again what the store has of the mesh in segments before `before`.
    pub fn checkpoint(&self, before: SegmentId) {
        self.mesh.checkpoint(before);
    }

    /// Takes other certificates and revocation lists, for links that are made from now on, and these other brokers: links to
    /// those that are new are made, links to those that have left end, and links to those that are elsewhere now are made anew.
    ///
    /// # Errors
    /// The certificates cannot be used; nothing has changed then.
    pub fn reload(&self, material: &Material, peers: &[Peer]) -> Result<PeersChanged, BridgeError> {
        self.identity.renew(material, peers)?;
        Ok(self.mesh.set_peers(peers))
    }

    /// How far this broker is with what each peer had when it connected.
    #[must_use]
    pub fn filling(&self) -> Vec<Filling> {
        self.mesh.filling()
    }

    /// There are no peers.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        !self.mesh.has_peers()
    }

    /// Where peers connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Appends a message that one of this broker's own clients published to the origin log, for every peer. Never blocks;
    /// callable from any thread. The order of calls is the order at every peer.
    ///
    /// A retained message must have been stored before, so that a snapshot holds it. A message with another broker's stamp is
    /// not taken: its origin sends it to everyone itself.
    ///
    /// `stored` is where the store has it; what is not there is in memory only. `hold` is for one of QoS 2 whose publisher
    /// has more to be written down. `directions` say who gives it to which group. Gives how far the store has to be before the
    /// publisher may be told that it was taken.
    pub fn publish(
        &self,
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Option<Directions>,
    ) -> (Pressure, Position) {
        if !self.mesh.has_peers() {
            return (Pressure::Clear, Position::default());
        }
        if !self.mesh.is_own(&message.stamp) {
            error!(origin = &*message.stamp.origin, "a message of another broker was to be sent to peers, and is not");
            return (Pressure::Clear, Position::default());
        }
        self.mesh.spool.append(message, stored, hold, directions, None)
    }

    /// Sends a message, of whatever origin, to one peer for one group and for nobody else: the group's members here have gone. In
    /// the same order and as safely as what is published here; `giver` is the session that had it until now, which the store is
    /// told of in the same record. `directions` are those of a message that is handed over. `stored` and `hold` as with
    /// [`Bridge::publish`]. Gives how far the store has to be before it may
    /// be forgotten here.
    pub fn hand_over(
        &self,
        message: Arc<Message>,
        stored: Option<Handle>,
        hold: Option<Arc<Hold>>,
        directions: Directions,
        giver: Option<SessionId>,
    ) -> Position {
        mesh::add(&self.mesh.handed_over, 1);
        self.mesh.spool.append(message, stored, hold, Some(directions), giver).1
    }

    /// Waits while the pressure is high. Cancel-safe.
    pub async fn relieved(&self) {
        self.mesh.spool.relieved().await;
    }

    /// The time and origin for a message that was just published here: later than all before it, whatever their origin.
    #[must_use]
    pub fn next_stamp(&self) -> Stamp {
        self.mesh.next_stamp()
    }

    /// The same for `count` messages, at least one: this is the first one's, and the time of each other one is one more.
    #[must_use]
    pub fn next_stamps(&self, count: u64) -> Stamp {
        self.mesh.next_stamps(count)
    }

    /// Stamps from now on are later than `time`: the newest that this broker gave out or saw before it was started again.
    pub fn continue_after(&self, time: u64) {
        self.mesh.clock.observe(time);
    }

    /// Serves the links until `shutdown`. Then it first sends to connected peers what they do not have yet, for at most two
    /// seconds; clients should have been disconnected before. Meant for a current-thread runtime of its own: it is one task
    /// for each connection, and what it delivers is delivered in its thread.
    ///
    /// # Errors
    /// It runs already, or a task has panicked, [`Local`]'s methods included.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), BridgeError> {
        let listener = self.listener.lock().take().ok_or(BridgeError::RunsAlready)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(BridgeError::Socket)?;
        info!(address = %self.address, peers = self.mesh.roster().slots.len(), epoch = self.mesh.epoch(), "bridge is up");
        Ok(driver::run(Arc::clone(&self.mesh), listener, Arc::clone(&self.identity), shutdown).await?)
    }

    /// What can be seen from outside.
    #[must_use]
    pub fn state(&self) -> BridgeState {
        self.mesh.state()
    }

    /// What an operator is to know of the other brokers at once, and what to do: one is away, or loses messages.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        alarm::of(&self.mesh.state())
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("address", &self.address).finish_non_exhaustive()
    }
}
