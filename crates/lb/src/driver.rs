//! Start, the control thread, drain.
//!
//! | task | owner | ends |
//! |---|---|---|
//! | workers, one thread each | [`LoadBalancer::serve`], which joins them | when drained |
//! | one [`Probe`] for each backend | the control thread's set | with its token, after a farewell |
//! | [`Exchange::run`]: the other lbs | the control thread's set | with its token |
//! | control socket | the control thread's set | with its token |
//! | [`Overseer`] | the control thread | at the end of the drain |
//!
//! The control thread is the one that calls [`LoadBalancer::serve`]. Health is its word, and it samples the workers' beats
//! for it, so what evermq-vip hears is about the threads that carry the clients' bytes.

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use evermq_config::LbConfig;
use evermq_daemon::control::{self, Control, ControlError};
use evermq_daemon::health::Health;
use evermq_daemon::listen::{self, ListenError, SocketOptions};
use evermq_daemon::tls::{Material, TlsError};
use evermq_daemon::{limits, notify, workers};
use evermq_mqtt::Text;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::health::Timing;
use crate::listener;
use crate::peers::{self, Exchange, Peers};
use crate::pool::Pool;
use crate::probe::{self, Probe};
use crate::pulse::{BEAT, Condition, Pulse};
use crate::state::{Identity, State};
use crate::worker::{self, Gate, Orders, Settings, Worker};

/// Clients are still accepted for this long after evermq-vip was told to hand the VIP over: it knows at once, and the other
/// host has the VIP some milliseconds later.
const HANDOVER: Duration = Duration::from_millis(100);
/// How long workers may take to end after they were told to close what they have.
const LAST_WORD: Duration = Duration::from_secs(3);
/// Descriptors for everything but clients: listeners, epoll, control socket, sessions to brokers, logs.
const OTHER_DESCRIPTORS: usize = 128;

/// Why the load balancer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Clients' address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The host's name.
    #[error("the host's name makes no MQTT client identifier: {0}")]
    ClientId(#[from] evermq_mqtt::text::TextError),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every client had left.
    Finished,
    /// `drain_timeout` was over, and that many connections were closed.
    Closed(usize),
}

/// A load balancer whose sockets are bound.
pub struct LoadBalancer {
    config: LbConfig,
    address: SocketAddr,
    listeners: Vec<std::net::TcpListener>,
    control: UnixListener,
    pool: Arc<Pool>,
    workers: Arc<[Arc<Worker>]>,
    tls: Vec<TlsConnector>,
    exchange: Option<Exchange>,
    client_id: Text,
}

impl std::fmt::Debug for LoadBalancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadBalancer")
            .field("address", &self.address)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl LoadBalancer {
    /// Reads certificates and binds the control socket, then the clients' address.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn bind(config: LbConfig) -> Result<Self, StartError> {
        let material = Material::load(&config.tls)?;
        let tls = config
            .backends
            .iter()
            .map(|backend| Ok(material.client_config_for(&backend.name, backend.address.ip())?.into()))
            .collect::<Result<_, TlsError>>()?;
        // Two lbs of one host, one of which drains, must not end each other's sessions: hence the process in the name.
        let client_id = Text::new(&format!("evermq-lb-{}-{}", config.host, std::process::id()))?;
        // First of all sockets: with SO_REUSEPORT a second lb would get half of this one's clients instead of an error.
        let control = control::bind(&config.control_socket)?;
        let count = workers::count(config.lb.workers);
        let (address, listeners) = listener::bind(config.lb.listen, count, socket_options(&config))?;
        let (exchange, news) = bind_exchange(&config, &material)?.unzip();

        let gate = Arc::new(Gate::new(connection_limit(config.lb.max_connections)));
        let pool = Arc::new(Pool::new(&config.backends, config.lb.balance));
        let settings = Settings { connect_timeout: config.lb.connect_timeout, socket: socket_options(&config) };
        let workers = (0..count)
            .map(|index| {
                let clients = peers::clients(news.as_ref(), index);
                Arc::new(Worker::new(Arc::clone(&pool), Arc::clone(&gate), settings, clients))
            })
            .collect();
        tracing::info!(listen = %address, workers = count, max_connections = gate.admission.limit(), "listening");
        Ok(Self { config, address, listeners, control, pool, workers, tls, exchange, client_id })
    }

    /// Where clients connect; its port is a real one, also if the file says 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// A thread cannot be made, or a worker failed; in the latter case those that were left have been drained.
    pub fn serve(self, shutdown: &CancellationToken) -> anyhow::Result<Drained> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let orders = Orders::default();
        let end = CancellationToken::new();
        let (alive, mut ended) = mpsc::channel(1);
        let threads =
            spawn_workers(&self.workers, self.listeners, &orders, alive).context("cannot start the worker threads")?;

        let (health, shown) = watch::channel(Health::Down);
        let identity = Identity { host: self.config.host.clone(), listen: self.address, started: clock() };
        let peers = self.exchange.as_ref().map(Exchange::peers);
        let control = control(identity, &self.workers, shown, peers);
        let settings = probe::Settings {
            client_id: self.client_id,
            timing: Timing {
                connect_timeout: self.config.lb.connect_timeout,
                interval: self.config.lb.health_interval,
                timeout: self.config.lb.health_timeout,
            },
            socket: socket_options(&self.config),
        };
        let overseer = Overseer {
            pool: Arc::clone(&self.pool),
            pulse: Pulse::new(self.workers.len()),
            workers: Arc::clone(&self.workers),
            condition: Condition { draining: false, worker_lost: false, worker_stalled: true, any_backend: false },
            health,
            orders,
        };
        let drained = runtime.block_on(async {
            let mut tasks = JoinSet::new();
            tasks.spawn(serve_control(self.control, control, end.clone()));
            if let Some(exchange) = self.exchange {
                tasks.spawn(exchange.run(Arc::clone(&self.workers), end.clone()));
            }
            for (index, tls) in self.tls.into_iter().enumerate() {
                let workers = Arc::clone(&self.workers);
                let probe = Probe::new(index, Arc::clone(&self.pool), workers, tls, settings.clone());
                tasks.spawn(probe.run(end.clone()));
            }
            let drained = overseer.run(shutdown, self.config.lb.drain_timeout).await;
            end.cancel();
            while tasks.join_next().await.is_some() {}
            drained
        });
        // All senders are gone once all workers have ended. One that hangs is left to the end of the process.
        let ended = async { tokio::time::timeout(LAST_WORD, ended.recv()).await };
        anyhow::ensure!(runtime.block_on(ended).is_ok(), "a worker thread hangs: leaving without it");
        threads.join()?;
        Ok(drained)
    }
}

/// Watches the workers, tells evermq-vip, and drains at the end.
struct Overseer {
    pool: Arc<Pool>,
    workers: Arc<[Arc<Worker>]>,
    pulse: Pulse,
    condition: Condition,
    health: watch::Sender<Health>,
    orders: Orders,
}

impl Overseer {
    async fn run(mut self, shutdown: &CancellationToken, drain_timeout: Duration) -> Drained {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        notify::ready("serving");
        while !self.condition.draining {
            let (pool, lost) = (Arc::clone(&self.pool), self.orders.lost.clone());
            tokio::select! {
                _ = ticks.tick() => self.pulse.handle_sample(self.workers.iter().map(|worker| worker.beat())),
                () = pool.changed() => {}
                () = lost.cancelled(), if !self.condition.worker_lost => {
                                        self.condition.worker_lost = true;
                    self.condition.draining = true;
                }
                () = shutdown.cancelled() => self.condition.draining = true,
            }
            self.judge();
        }
        self.drain(drain_timeout).await
    }

    /// Says how the lb is, if that has changed.
    fn judge(&mut self) {
        let stalled = self.pulse.stalled();
        self.condition.worker_stalled = stalled.is_some();
        self.condition.any_backend = self.pool.any_up();
        let (to, reason) = self.condition.health();
        let from = self.health.send_replace(to);
        if from != to {
            tracing::info!(?from, ?to, reason, stalled_worker = stalled, "health changed");
            notify::status(reason);
        }
    }

    async fn drain(self, drain_timeout: Duration) -> Drained {
        notify::stopping();
        let deadline = tokio::time::Instant::now() + drain_timeout;
        tokio::time::sleep(HANDOVER.min(drain_timeout)).await;
        self.orders.stop.cancel();
        let Some(admission) = self.workers.first().map(|worker| &worker.gate().admission) else {
            return Drained::Finished;
        };
        tracing::info!(connections = admission.current(), timeout = ?drain_timeout, "draining");
        let mut ticks = tokio::time::interval(BEAT);
        while admission.current() > 0 && tokio::time::Instant::now() < deadline {
            tokio::select! {
                _ = ticks.tick() => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        let left = admission.current();
        self.orders.close.cancel();
        if left == 0 {
            tracing::info!("drained: every client has left");
            Drained::Finished
        } else {
            tracing::warn!(connections = left, "drain_timeout is over: closing the connections that are left");
            Drained::Closed(left)
        }
    }
}

fn spawn_workers(
    workers: &Arc<[Arc<Worker>]>,
    listeners: Vec<std::net::TcpListener>,
    orders: &Orders,
    alive: mpsc::Sender<()>,
) -> std::io::Result<workers::Workers> {
    let count = workers.len();
    let starts = listeners.into_iter().map(|listener| Some((listener, alive.clone()))).collect::<Vec<_>>();
    let starts = Mutex::new(starts);
    let (workers, orders) = (Arc::clone(workers), orders.clone());
    workers::spawn("lb", count, move |index| {
        let start = starts.lock().unwrap_or_else(PoisonError::into_inner)[index].take();
        let (worker, orders) = (Arc::clone(&workers[index]), orders.clone());
        async move {
            // Also where it panics.
            let _lost = orders.lost.clone().drop_guard();
            let (listener, _alive) = start.context("a worker was started twice")?;
            worker::run(worker, listener, orders).await
        }
    })
}

/// What the control socket answers.
fn control(
    identity: Identity,
    workers: &Arc<[Arc<Worker>]>,
    health: watch::Receiver<Health>,
    peers: Option<Arc<Peers>>,
) -> Control {
    let (workers, shown, known) = (Arc::clone(workers), health.clone(), peers.clone());
    Control {
        state: Arc::new(move || {
            let health = *shown.borrow();
            let state = State::new(&identity, health, &workers, known.as_deref(), clock());
            serde_json::to_value(state).unwrap_or_default()
        }),
        health,
        requests: Arc::new(move |name, _| match name {
            "clients" => Some(peers.as_deref().map_or_else(peers::no_clients, Peers::answer_clients)),
            _ => None,
        }),
    }
}

async fn serve_control(listener: UnixListener, control: Control, end: CancellationToken) {
    if let Err(error) = control::serve(listener, control, end).await {
        tracing::error!(%error, "the control socket does not answer any more");
    }
}

/// The exchange with the other lbs, if there are any.
fn bind_exchange(
    config: &LbConfig,
    material: &Material,
) -> Result<Option<(Exchange, mpsc::Sender<peers::clients::News>)>, StartError> {
    if config.peers.is_empty() {
        return Ok(None);
    }
    let listener = listen::tcp(config.peer_listen, false)?;
    Ok(Some(Exchange::new(config, material, socket_options(config), listener)?))
}

fn socket_options(config: &LbConfig) -> SocketOptions {
    SocketOptions { keepalive: config.lb.tcp_keepalive, user_timeout: config.lb.tcp_user_timeout }
}

/// `max_connections`, or as many as there are descriptors for: two each. Above that accepting rests, instead of clients being
/// accepted for whom no connection to a broker can be made.
fn connection_limit(max_connections: usize) -> usize {
    limits::raise_open_files(max_connections.saturating_mul(2).saturating_add(OTHER_DESCRIPTORS));
    let Ok((files, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return max_connections };
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    max_connections.min(files.saturating_sub(OTHER_DESCRIPTORS) / 2).max(1)
}

#[expect(clippy::disallowed_methods, reason = "the control thread's clock, also outside of a runtime")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
