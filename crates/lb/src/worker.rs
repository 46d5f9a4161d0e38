//! One thread: its listener, its connections, its beat.
//!
//! | task | owner | ends |
//! |---|---|---|
//! | [`run`]: accepting, then waiting for clients to leave | the worker's thread | when all have left, or were closed |
//! | beat and sweep | [`run`] | with it |
//! | handing on which clients came and went | [`run`] | with it |
//! | one for each connection | the thread's runtime, which drops it | with the connection |
//!
//! Nothing here is shared with another worker but the pool and the gate, and those are only touched when a connection comes
//! or goes. The locks are this worker's own: the control thread reads counters and never takes them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use evermq_daemon::listen::SocketOptions;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Entry, Notice};
use crate::listener;
use crate::peers::clients::Clients;
use crate::pool::Pool;
use crate::pulse::BEAT;
use crate::registry::{Registry, Seat};

/// How long connections that are closed at the end may take to notice.
const LAST_TURNS: Duration = Duration::from_secs(1);

/// What a connection needs to know of the configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// For a connection to one backend.
    pub(crate) connect_timeout: Duration,
    /// For both sides of a connection.
    pub(crate) socket: SocketOptions,
}

/// The limit of connections, and who waits for room under it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) admission: Admission,
    room: Notify,
}

/// One worker, as its connections and the control thread see it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) pool: Arc<Pool>,
    pub(crate) settings: Settings,
    gate: Arc<Gate>,
    /// For the other lbs, if there are any.
    clients: Option<Clients>,
    registry: Mutex<Registry>,
    traffic: Box<[Traffic]>,
    beat: AtomicU64,
    sweep: Notify,
    closing: AtomicBool,
    live: AtomicUsize,
    total: AtomicU64,
    turned_away: AtomicU64,
    shortage: Mutex<Notice>,
}

/// Bytes relayed for one backend by one worker, who alone writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Traffic {
    /// From clients to the backend.
    to_backend: AtomicU64,
    /// From the backend to clients.
    to_clients: AtomicU64,
}

/// A client's place under the limit; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    worker: Arc<Worker>,
    /// The client's number, if the other lbs are told of it.
    number: Option<u32>,
}

/// A connection's entry in its worker's registry.
#[derive(Debug)]
pub(crate) struct Registration {
    worker: Arc<Worker>,
    seat: Seat,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Self {
        Self { admission: Admission::new(limit), room: Notify::new() }
    }

    /// Waits until there is room.
    pub(crate) async fn room(&self) {
        while self.admission.is_full() {
            let mut woken = std::pin::pin!(self.room.notified());
            woken.as_mut().enable();
            self.admission.wait();
            // A leaver between the look above and the request would have woken nobody.
            if self.admission.is_full() {
                woken.await;
            }
        }
    }
}

impl Worker {
    pub(crate) fn new(pool: Arc<Pool>, gate: Arc<Gate>, settings: Settings, clients: Option<Clients>) -> Self {
        let backends = pool.members().len();
        Self {
            pool,
            settings,
            gate,
            clients,
            registry: Mutex::new(Registry::new(backends)),
            traffic: (0..backends).map(|_| Traffic::default()).collect(),
            beat: AtomicU64::new(0),
            sweep: Notify::new(),
            closing: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            shortage: Mutex::default(),
        }
    }

    /// Counts up while the worker turns.
    pub(crate) fn beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Bytes from clients to a backend, and back.
    pub(crate) fn traffic(&self, backend: usize) -> (u64, u64) {
        let traffic = &self.traffic[backend];
        (traffic.to_backend.load(Ordering::Relaxed), traffic.to_clients.load(Ordering::Relaxed))
    }

    /// Clients accepted since the start.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Clients closed because no backend was to be had.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    /// Has the worker look for connections whose backend went down. From any thread.
    pub(crate) fn sweep(&self) {
        self.sweep.notify_one();
    }

    /// What the other lbs are told of; none where there is no other.
    pub(crate) const fn clients(&self) -> Option<&Clients> {
        self.clients.as_ref()
    }

    /// The limit that all workers share.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Takes a place under the limit, once there is one.
    pub(crate) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            match self.try_enter() {
                Some(place) => return place,
                None => self.gate.room().await,
            }
        }
    }

    /// Takes a place under the limit, if there is one.
    pub(crate) fn try_enter(self: &Arc<Self>) -> Option<Place> {
        match self.gate.admission.enter(tokio::time::Instant::now().into_std()) {
            Entry::Admitted { announce_full } => {
                if announce_full {
                    tracing::warn!(
                        max_connections = self.gate.admission.limit(),
                        "connection limit reached: more clients wait in the kernel's queue"
                    );
                }
                self.live.fetch_add(1, Ordering::Relaxed);
                self.total.fetch_add(1, Ordering::Relaxed);
                Some(Place { worker: Arc::clone(self), number: None })
            }
            Entry::Full => None,
        }
    }

    /// A client found no backend.
    pub(crate) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// A client found none because this system lacks something; said once in a while.
    pub(crate) fn say_shortage(&self, error: &std::io::Error, now: Instant) {
        if self.shortage.lock().unwrap_or_else(PoisonError::into_inner).is_due(now) {
            tracing::warn!(%error, "cannot connect to brokers: this system lacks descriptors, ports or memory; clients are closed");
        }
    }

    /// Whether all connections are to end now.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Has `waker` woken when the backend goes down or the lb stops, until the registration is dropped.
    pub(crate) fn register(self: &Arc<Self>, backend: usize, waker: Waker) -> Registration {
        let seat = self.registry().insert(backend, waker);
        Registration { worker: Arc::clone(self), seat }
    }

    /// Counts bytes that went to the backend.
    pub(crate) fn count_to_backend(&self, backend: usize, bytes: usize) {
        add_alone(&self.traffic[backend].to_backend, bytes);
    }

    /// Counts bytes that went to a client.
    pub(crate) fn count_to_client(&self, backend: usize, bytes: usize) {
        add_alone(&self.traffic[backend].to_clients, bytes);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn beat_and_sweep(&self) -> std::convert::Infallible {
        let mut generations = vec![0; self.pool.members().len()];
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => add_alone(&self.beat, 1),
                () = self.sweep.notified() => self.registry().wake(|backend| {
                    let now = self.pool.members()[backend].generation();
                    std::mem::replace(&mut generations[backend], now) != now
                }),
            }
        }
    }

    async fn hand_on_clients(&self) -> std::convert::Infallible {
        match &self.clients {
            Some(clients) => clients.hand_on().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until the clients have left; from `close` on they are made to.
    async fn drain(&self, close: &CancellationToken) {
        tokio::select! {
            () = self.empty() => return,
            () = close.cancelled() => {}
        }
        self.closing.store(true, Ordering::Relaxed);
        self.registry().wake(|_| true);
        if tokio::time::timeout(LAST_TURNS, self.empty()).await.is_err() {
            tracing::debug!(
                connections = self.live.load(Ordering::Relaxed),
                "dropping connections that were being made"
            );
        }
    }

    async fn empty(&self) {
        let mut ticks = tokio::time::interval(BEAT);
        while self.live.load(Ordering::Relaxed) > 0 {
            ticks.tick().await;
        }
    }
}

impl Registration {
    /// The worker.
    pub(crate) const fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.worker.registry().remove(self.seat);
    }
}

impl Place {
    /// Has the other lbs told whose place it is, until it is given back.
    pub(crate) fn note(&mut self, client: SocketAddr, stream: &TcpStream) {
        if let Some(clients) = &self.worker.clients
            && let Ok(local) = stream.local_addr()
        {
            self.number = clients.join(client, local);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some(clients), Some(number)) = (&self.worker.clients, self.number) {
            clients.leave(number);
        }
        self.worker.live.fetch_sub(1, Ordering::Relaxed);
        let exit = self.worker.gate.admission.leave();
        if exit.wake {
            self.worker.gate.room.notify_waiters();
        }
        if exit.announce_calm {
            tracing::info!(connections = self.worker.gate.admission.current(), "below the connection limit again");
        }
    }
}

/// What ends a worker, and what it says when it ends by itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    /// Accept no more, and wait for the clients to leave.
    pub(crate) stop: CancellationToken,
    /// Close what is left.
    pub(crate) close: CancellationToken,
    /// A worker does not accept any more, without having been told.
    pub(crate) lost: CancellationToken,
}

/// Serves `listener` until it is told to stop, and its connections until they have left or it is told to close them.
///
/// # Errors
/// The listener could not be used any more.
pub(crate) async fn run(worker: Arc<Worker>, listener: std::net::TcpListener, orders: Orders) -> anyhow::Result<()> {
    let serve = async {
        let accepted = listener::accept(&worker, listener, &orders.stop).await;
        if let Err(error) = &accepted {
            tracing::error!(%error, "a worker does not accept clients any more");
            orders.lost.cancel();
        }
        worker.drain(&orders.close).await;
        accepted
    };
    tokio::select! {
        accepted = serve => Ok(accepted?),
        never = worker.beat_and_sweep() => match never {},
        never = worker.hand_on_clients() => match never {},
    }
}

/// Adds where only one thread writes: no locked instruction needed.
fn add_alone(counter: &AtomicU64, count: impl TryInto<u64>) {
    let count = count.try_into().unwrap_or_default();
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

#[cfg(test)]
pub(crate) mod tests {
    use evermq_config::cluster::Balance;
    use evermq_config::roles::Peer;

    use super::*;

    /// A worker that no thread drives.
    pub(crate) fn worker(backends: &[Peer]) -> Worker {
        let settings = Settings {
            connect_timeout: Duration::from_secs(1),
            socket: SocketOptions { keepalive: Duration::from_secs(30), user_timeout: Duration::from_secs(30) },
        };
        let pool = Arc::new(Pool::new(backends, Balance::LeastConn));
        Worker::new(pool, Arc::new(Gate::new(100)), settings, None)
    }
}
