//! Start, the control thread, drain.
//!
//! | task | owner | ends |
//! |---|---|---|
//! | workers, one thread each | [`LoadBalancer::serve`], which joins them | when drained |
//! | [`Probes`], a task for each backend | the control thread | at the end, after a farewell |
//! | [`Mover`], [`Reloader`], SIGHUP, metrics | the control thread's set | with its token |
//! | [`AccessLog`]'s thread | [`LoadBalancer::serve`] | last, when all is written |
//! | [`Exchange::run`]: the other lbs | the control thread's set | with its token |
//! | control socket | the control thread's set | with its token |
//! | [`Overseer`] | the control thread | at the end of the drain |
//!
//! The control thread is the one that calls [`LoadBalancer::serve`]. Health is its word, and it samples the workers' beats
//! for it, so what evermq-vip hears is about the threads that carry the clients' bytes.

mod binding;
pub(crate) mod giving;
mod overseer;
mod room;
mod taking;

use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use evermq_config::LbConfig;
use evermq_config::cluster::LogFormat;
use evermq_daemon::command::ConfigSource;
use evermq_daemon::control::{self, Control, ControlError, Estate, Lending, Placement};
use evermq_daemon::health::Health;
use evermq_daemon::listen::ListenError;
use evermq_daemon::metrics::MetricsError;
use evermq_daemon::tls::{Material, TlsError};
use evermq_daemon::workers;
use evermq_mqtt::Text;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::binding::{bind_fronts, bind_peers, make_exchange};
pub(crate) use self::binding::{settings, socket_options};
use self::giving::{Belongings, Upgrades};
use self::overseer::Overseer;
pub(crate) use self::room::Room;
use self::taking::{ControlSocket, Successor};

use crate::access_log::{AccessLog, AccessLogError, Target};
use crate::admin::Board;
use crate::desk::{Desk, Parts};
use crate::engine::inbox::Order;
use crate::engine::threads::{self, Common, Made};
use crate::metrics;
use crate::mover::{Mover, WISHES};
use crate::peers::{self, Exchange};
use crate::pool::{Pool, PoolSettings};
use crate::probe::Probes;
use crate::pulse::{Condition, Pulse};
use crate::reload::{self, Reloader};
use crate::sources::Sources;
use crate::tally::{Books, Recorder};
use crate::tls::{TlsSet, TlsSetError};
use crate::upgrade::program::Program;
use crate::upgrade::taker::{Predecessor, Sockets};

/// How long workers may take to end after they were told to close what they have.
const LAST_WORD: Duration = Duration::from_secs(3);

/// Why the load balancer does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What is needed to end TLS.
    #[error(transparent)]
    Termination(#[from] TlsSetError),
    /// Control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Clients' address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A route or a listener leads nowhere.
    #[error("no backend is in the group \"{0}\"")]
    Group(String),
    /// Event loops.
    #[error("cannot make the workers' event loops: {0}")]
    Workers(#[source] std::io::Error),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The address for metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
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
    /// Another process serves on.
    Succeeded,
}

/// How far this process has taken over from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The other one serves.
    Preparing,
    /// This one accepts, and connections come.
    InCharge,
    /// The other one has only what it cannot hand over.
    Settled,
    /// There is no other one.
    Alone,
}

/// A load balancer whose sockets are bound.
pub struct LoadBalancer {
    config: LbConfig,
    address: SocketAddr,
    control: UnixListener,
    placement: Placement,
    pool: Arc<Pool>,
    made: Made,
    lost: CancellationToken,
    material: Material,
    exchange: Option<Exchange>,
    client_id: Text,
    source: Option<ConfigSource<LbConfig>>,
    room: Room,
    board: Arc<Board>,
    books: Arc<Books>,
    log: AccessLog,
    metrics: Option<std::net::TcpListener>,
    /// Where the other lbs connect, once more.
    peers: Option<(SocketAddr, Arc<std::net::TcpListener>)>,
    program: Option<Program>,
    predecessor: Option<Predecessor>,
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
        let metrics = config.lb.metrics.map(evermq_daemon::metrics::bind).transpose()?;
        Ok(Self { metrics, ..Self::bind_with(config, &mut Sockets::default())? })
    }

    /// The same with what another process has bound, but for the address for metrics, which it still has.
    pub(crate) fn bind_with(config: LbConfig, given: &mut Sockets) -> Result<Self, StartError> {
        let material = Material::load(&config.tls)?;
        // Two lbs of one host, one of which drains, must not end each other's sessions: hence the process in the name.
        let client_id = Text::new(&format!("evermq-lb-{}-{}", config.host, std::process::id()))?;
        // First of all sockets: with SO_REUSEPORT a second lb would get half of this one's clients instead of an error.
        let control = match given.control(&config.control_socket) {
            Some(control) => control,
            None => control::bind(&config.control_socket)?,
        };
        let count = workers::count(config.lb.workers);
        let board = Arc::new(Board::default());
        let room = Room::new(config.lb.max_connections, count, config.lb.listeners.len());
        let pool = Arc::new(Pool::new(&config.backends, &PoolSettings::of(&config.lb), clock()));
        let (fronts, listeners) = bind_fronts(&config, &pool, count, room.listeners_from, given)?;
        let address = fronts.first().map_or_else(|| config.lb.listen(), |front| front.address);
        let peers = bind_peers(&config, given)?;
        let (exchange, news) = make_exchange(&config, &material, &board, peers.as_ref())?.unzip();
        let format = evermq_daemon::log::current().map_or(LogFormat::Text, |log| log.format);
        let log = AccessLog::start(Target::open(&config.lb.access_log)?, format).map_err(StartError::Workers)?;
        let books = Arc::new(Books::new());

        let lost = CancellationToken::new();
        let common = Common {
            limit: room.connections,
            pool: Arc::clone(&pool),
            sources: Arc::new(Sources::new(config.lb.source, clock())),
            settings: Arc::new(settings(&config, &pool, count, TlsSet::load(&config)?)?),
            fronts,
            sink: Arc::new(Recorder::new(Arc::clone(&books), log.hand())),
            lost: lost.clone(),
        };
        let made = threads::make(&common, listeners, |index| peers::clients(news.as_ref(), index));
        let made = made.map_err(StartError::Workers)?;
        for front in &*common.fronts {
            tracing::info!(
                name = %front.name,
                listen = %front.address,
                mode = front.mode.name(),
                workers = count,
                max_connections = room.connections,
                "listening"
            );
        }
        let placement = Placement { health_from: Some(room.health_from) };
        Ok(Self {
            config,
            address,
            control,
            placement,
            pool,
            made,
            lost,
            material,
            exchange,
            client_id,
            source: None,
            room,
            board,
            books,
            log,
            metrics: None,
            peers,
            program: None,
            predecessor: None,
        })
    }

    /// Where the configuration comes from, so that it can be read again.
    #[must_use]
    pub fn reloading(self, source: ConfigSource<LbConfig>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// Can be succeeded by a new process of that program.
    #[must_use]
    pub fn upgradable(self, program: Program) -> Self {
        Self { program: Some(program), ..self }
    }

    /// Succeeds that process.
    pub(crate) fn succeeding(self, predecessor: Predecessor) -> Self {
        Self { predecessor: Some(predecessor), ..self }
    }

    /// Where clients connect; its port is a real one, also if the file says 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect, for each listener in the file's order.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.made.addresses()
    }

    /// Serves until `shutdown`, then drains.
    ///
    /// # Errors
    /// A thread cannot be made, or a worker failed; in the latter case those that were left have been drained.
    #[expect(clippy::too_many_lines, reason = "what starts in which order, in one place")]
    pub fn serve(self, shutdown: &CancellationToken) -> anyhow::Result<Drained> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let end = CancellationToken::new();
        let (alive, mut ended) = mpsc::channel(1);
        let workers = Arc::clone(&self.made.workers);
        let fronts = Arc::clone(&self.made.fronts);
        if self.predecessor.is_some() {
            // Before they turn for the first time: clients are the other process's still.
            for worker in &*workers {
                worker.inbox.post(Order::Hold(oneshot::channel().0));
            }
        }
        let threads = self.made.start(&alive).context("cannot start the worker threads")?;
        drop(alive);

        let (health, shown) = watch::channel(Health::Down);
        let certificates = reload::fingerprint(&self.config);
        let drain_timeout = self.config.lb.drain_timeout;
        let control_path = self.config.control_socket.clone();
        let metrics_address = self.predecessor.as_ref().and(self.config.lb.metrics);
        let desk = Arc::new(Desk::new(Parts {
            config: self.config,
            pool: Arc::clone(&self.pool),
            fronts: Arc::clone(&fronts),
            workers: Arc::clone(&workers),
            board: self.board,
            books: self.books,
            log: self.log.hand(),
            peers: self.exchange.as_ref().map(Exchange::peers),
            health: shown.clone(),
        }));
        let log = Arc::new(self.log);
        let (stage, stages) = watch::channel(if self.predecessor.is_some() { Stage::Preparing } else { Stage::Alone });
        let (asking, asked) = mpsc::channel(giving::REQUESTS);
        let (lender, lending) = control::lending();
        let belongings = Belongings {
            desk: Arc::clone(&desk),
            lender,
            control_path,
            peers: self.peers,
            singular: end.child_token(),
            settled: CancellationToken::new(),
        };
        let singular = belongings.singular.clone();
        let overseer = Overseer {
            desk: Arc::clone(&desk),
            pulse: Pulse::new(workers.len()),
            condition: Condition { draining: false, worker_lost: false, worker_stalled: true, any_backend: false },
            health,
            lost: self.lost,
            upgrades: Upgrades { program: self.program, belongings, requests: asked, running: None },
            stages,
        };
        let swept = Arc::clone(&workers);
        let probes = Probes::new(self.client_id, Arc::new(move || swept.iter().for_each(|worker| worker.sweep())));
        let probes = Arc::new(Mutex::new(probes));
        let drained = runtime.block_on(async {
            let tasks = TaskTracker::new();
            let (ask, requests) = mpsc::channel(reload::REQUESTS);
            tasks.spawn(reload::hang_ups(ask.clone(), end.clone()));
            let (wish, wishes) = mpsc::channel(WISHES);
            let control = crate::control::control(&desk, ask, asking, wish);
            let control = ControlSocket { listener: self.control, control, placement: self.placement, lending };
            lock(&probes).apply(&self.pool, &desk.in_force().config, &self.material)?;
            tasks.spawn(Mover::new(Arc::clone(&desk), Arc::clone(&probes)).run(wishes, end.clone()));
            let reloader = Reloader {
                source: self.source,
                desk: Arc::clone(&desk),
                probes: Arc::clone(&probes),
                log: Arc::clone(&log),
                metrics: metrics::Server::new(singular.clone()),
                room: self.room,
                requests,
                certificates,
            };
            let mut successor = Successor {
                desk: Arc::clone(&desk),
                health: shown,
                stage,
                control: Some(control),
                exchange: self.exchange,
                reloader: Some(reloader),
                metrics: metrics_address,
                tasks: tasks.clone(),
                singular,
                end: end.clone(),
            };
            let ended = match self.predecessor {
                None => {
                    successor.begin(self.metrics);
                    Ok(overseer.run(shutdown, drain_timeout).await)
                }
                Some(predecessor) => overseer.succeed(successor, predecessor, shutdown, drain_timeout).await,
            };
            end.cancel();
            tasks.close();
            tasks.wait().await;
            // Nobody else has them any more.
            if let Some(probes) = Arc::into_inner(probes) {
                probes.into_inner().unwrap_or_else(PoisonError::into_inner).stop().await;
            }
            ended
        });
        // All senders are gone once all workers have ended. One that hangs is left to the end of the process.
        let ended = async { tokio::time::timeout(LAST_WORD, ended.recv()).await };
        anyhow::ensure!(runtime.block_on(ended).is_ok(), "a worker thread hangs: leaving without it");
        threads.join()?;
        if let Some(log) = Arc::into_inner(log) {
            log.finish();
        }
        drained
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_control(
    estate: Estate,
    control: Control,
    placement: Placement,
    lending: Lending,
    end: CancellationToken,
) {
    if let Err(error) = control::serve_estate(estate, control, placement, lending, end).await {
        tracing::error!(%error, "the control socket does not answer any more");
    }
}

#[expect(clippy::disallowed_methods, reason = "the control thread's clock, also outside of a runtime")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
