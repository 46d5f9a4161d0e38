//! A worker as other threads see it: orders in, counters out. Nobody waits for anybody.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use evermq_config::lb::{IpNetwork, Listener, Mode, Queue};
use evermq_daemon::listen::SocketOptions;
use tokio_util::sync::CancellationToken;

use super::ended::Sink;
use super::figures::Figures;
use super::gate::Gate;
use super::inbox::{Inbox, Order};
use super::threads::Common;
use crate::peers::clients::Clients;
use crate::pool::{AddressKind, GroupId, Pool};
use crate::routes::Routes;
use crate::sources::Sources;
use crate::tls::TlsSet;

/// What connections need to know of the configuration.
#[derive(Debug)]
pub(crate) struct Settings {
    /// For a client to say what it wants.
    pub(crate) greeting_timeout: Duration,
    /// For a connection to one backend.
    pub(crate) connect_timeout: Duration,
    /// Without a byte either way.
    pub(crate) idle_timeout: Option<Duration>,
    /// TLS handshakes with clients at once, of one worker.
    pub(crate) handshakes: usize,
    /// What TLS new connections get, where a listener ends it.
    pub(crate) tls: Option<Arc<TlsSet>>,
    /// For both sides of a connection.
    pub(crate) socket: SocketOptions,
    /// Clients of one worker that may wait for a backend, and for how long.
    pub(crate) queue: Queue,
    /// Balancers before this one, who must say whom they speak for.
    pub(crate) accept_proxy_from: Vec<IpNetwork>,
    /// Where clients go by what they say.
    pub(crate) routes: Routes<GroupId>,
}

impl Settings {
    /// Whether `address` is that of a balancer, and no client's.
    pub(crate) fn is_proxy(&self, address: IpAddr) -> bool {
        self.accept_proxy_from.iter().any(|network| network.contains(address))
    }
}

/// An address that clients connect to.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) mode: Mode,
    /// Where clients go that no route sends elsewhere.
    pub(crate) group: GroupId,
    pub(crate) figures: Arc<Figures>,
}

impl Front {
    /// The address of a listener, as it was bound.
    pub(crate) fn new(listener: &Listener, address: SocketAddr, group: GroupId) -> Self {
        let figures = Arc::default();
        Self { name: listener.name.as_str().into(), address, mode: listener.mode, group, figures }
    }

    /// Which of a backend's addresses its clients go to.
    pub(crate) const fn address_kind(&self) -> AddressKind {
        if self.mode.plain_to_backends() { AddressKind::Plain } else { AddressKind::Tls }
    }
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) sources: Arc<Sources>,
    pub(crate) sink: Arc<dyn Sink>,
    /// A worker does not accept any more, without having been told.
    pub(crate) lost: CancellationToken,
    clients: Option<Clients>,
    traffic: RwLock<Vec<Arc<Traffic>>>,
    beat: AtomicU64,
    total: AtomicU64,
    turned_away: AtomicU64,
    over_source_limit: AtomicU64,
    waiting: AtomicUsize,
}

/// Bytes relayed for one backend by one worker, who alone writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Traffic {
    to_backend: AtomicU64,
    to_clients: AtomicU64,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        inbox: Arc<Inbox>,
        gate: Arc<Gate>,
        common: &Common,
        clients: Option<Clients>,
    ) -> Self {
        let Common { pool, sources, sink, lost, .. } = common.clone();
        Self {
            index,
            inbox,
            gate,
            pool,
            sources,
            sink,
            lost,
            clients,
            traffic: RwLock::default(),
            beat: AtomicU64::new(0),
            total: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            over_source_limit: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Counts up while the worker turns.
    pub(crate) fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Bytes from clients to the backend with this [`Member::id`](crate::pool::Member::id), and back.
    pub(crate) fn traffic(&self, member: u32) -> (u64, u64) {
        let traffic = self.traffic.read().unwrap_or_else(PoisonError::into_inner);
        traffic.get(member as usize).map_or((0, 0), |traffic| {
            (traffic.to_backend.load(Ordering::Relaxed), traffic.to_clients.load(Ordering::Relaxed))
        })
    }

    /// Clients accepted since the start.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Clients closed because no backend was to be had.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Clients closed at once because their address is at one of its limits.
    pub(crate) fn over_source_limit(&self) -> u64 {
        self.over_source_limit.load(Ordering::Relaxed)
    }

    /// Clients that wait for a backend.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Has the worker close the connections of backends that went down. From any thread.
    pub(crate) fn sweep(&self) {
        self.inbox.post(Order::Sweep);
    }

    /// Has the worker tell the other lbs all of its clients. From any thread.
    pub(crate) fn tell_all_clients(&self) {
        if let Some(clients) = &self.clients {
            clients.tell_all();
            self.inbox.wake();
        }
    }

    /// What the other lbs are told of; none where there is no other.
    pub(super) const fn clients(&self) -> Option<&Clients> {
        self.clients.as_ref()
    }

    pub(super) fn count_beat(&self) {
        add_alone(&self.beat, 1);
    }

    pub(super) fn count_accepted(&self) {
        add_alone(&self.total, 1);
    }

    pub(super) fn count_turned_away(&self) {
        add_alone(&self.turned_away, 1);
    }

    pub(super) fn count_over_source_limit(&self) {
        add_alone(&self.over_source_limit, 1);
    }

    pub(super) fn set_waiting(&self, waiting: usize) {
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// The counters up to that of the backend with this [`Member::id`](crate::pool::Member::id): members are numbered as
    /// they come, also with a reload.
    pub(super) fn traffic_up_to(&self, member: u32) -> Vec<Arc<Traffic>> {
        let mut traffic = self.traffic.write().unwrap_or_else(PoisonError::into_inner);
        let wanted = traffic.len().max(member as usize + 1);
        traffic.resize_with(wanted, Arc::default);
        traffic.clone()
    }
}

impl Traffic {
    pub(super) fn count(&self, to_backend: u64, to_clients: u64) {
        add_alone(&self.to_backend, to_backend);
        add_alone(&self.to_clients, to_clients);
    }
}

/// Adds where only one thread writes: no locked instruction needed.
fn add_alone(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}
