//! The running broker: threads, addresses, start and stop.
//!
//! | thread | tasks, all of which it owns |
//! |---|---|
//! | `broker-N`, one for each worker | its listeners, its connections |
//! | `bridge` | the links to the other brokers |
//! | `voter` | this host's vote on who holds the VIP, where there is a quorum |
//! | `bridges` | the bridges to brokers that are not of the cluster |
//! | the caller's | joining the cluster, drain, session expiry, `$SYS`, Prometheus, control socket, reload, waiting for the end |
//!
//! Stopping: the lbs hear that this broker drains; no new connections; every client is told and closed, then the lbs; wills of sessions that end go out; the bridge sends what is left; all of it
//! within `drain_timeout`.

mod opening;
mod showing;

use opening::{access, open_store};

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use evermq_bridge::Bridge;
use evermq_config::BrokerConfig;
use evermq_config::broker::ListenAddress;
use evermq_daemon::cluster_topics::Readiness;
use evermq_daemon::command::ConfigSource;
use evermq_daemon::health::Health;
use evermq_daemon::pulse::{self, Beat};
use evermq_daemon::workers::{self, Workers};
use evermq_daemon::{control, limits, metrics, notify, shutdown};
use evermq_mqtt::ReasonCode;
use evermq_quorum::{VoterThread, voter_thread};
use evermq_store::{Recovered, Settings, Store, StoreError, WallTime};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::auth;
use crate::auth::tls::Doors;
use crate::authentication::Mechanisms;
use crate::bridges::table as bridges;
use crate::broker::{Broker, Checkpoint};
use crate::cluster_topics::ClusterTopics;
use crate::connection::clock;
use crate::control::requests;
use crate::counters::Counters;
use crate::drain;
use crate::expiry;
use crate::join;
use crate::listener::conditions;
use crate::listener::reception::{Addresses, Reception, Sockets};
use crate::metrics::Desk;
use crate::rate::Rates;
use crate::reload::{self, Reloader};
use crate::retained;
use crate::router::Router;
use crate::session::Limits;
use crate::trouble;

/// Open files besides connections: listeners, peers, the control socket.
const OTHER_FILES: usize = 256;
/// How often a stopping broker looks whether its peers have everything.
const FLUSH_POLL: Duration = Duration::from_millis(5);
/// How long the lbs have to hear that this broker drains before it begins.
const ANNOUNCEMENT: Duration = Duration::from_millis(100);

/// A store, and what is in it.
pub type Opened = Result<(Arc<Store>, Recovered), StoreError>;

/// A broker whose addresses are bound and whose workers serve.
pub struct Driver {
    addresses: Addresses,
    conditions: conditions::Shared,
    /// How long this broker waits for what the others have, if it is new to its cluster.
    joins: Option<Duration>,
    desk: Arc<Desk>,
    /// Where Prometheus asks.
    metrics: Option<TcpListener>,
    sys_interval: watch::Receiver<Option<Duration>>,
    broker: Arc<Broker>,
    workers: Workers,
    bridges: bridges::Running,
    bridge: BridgeThread,
    /// Votes until the last client is gone: who holds the VIP must not depend on a broker's drain.
    voter: Option<VoterThread>,
    control: std::os::unix::net::UnixListener,
    /// The caller's thread's. It is made before anybody is accepted: clients must not get the descriptors that it needs.
    runtime: Arc<Runtime>,
    reloader: Reloader,
    /// Stops the workers.
    stop: CancellationToken,
    /// Stops the bridge, once no client can publish any more.
    stop_bridge: CancellationToken,
}

impl Driver {
    /// Binds every address and starts to serve.
    ///
    /// # Errors
    /// Certificates cannot be used, an address cannot be bound, a thread cannot be made.
    pub fn start(config: &BrokerConfig) -> anyhow::Result<Self> {
        Self::start_on(config, evermq_store::open)
    }

    /// The same with a store that `open` opens.
    ///
    /// # Errors
    /// As [`Driver::start`].
    pub fn start_on(config: &BrokerConfig, open: impl FnOnce(&Settings, WallTime) -> Opened) -> anyhow::Result<Self> {
        let broker_config = &config.broker;
        limits::raise_open_files(broker_config.admission.connections.saturating_add(OTHER_FILES));
        // Before they are read: what changes meanwhile has changed for the first reload.
        let files = reload::fingerprint(config);
        let material = auth::material(config)?;
        let doors = Doors::new(&material)?;
        let access = access(broker_config, &material)?;
        let prepared = bridges::load(&config.bridges)?;
        let (control, runtime) = (control::bind(&config.control_socket)?, Arc::new(runtime()?));
        let metrics = broker_config.metrics.map(metrics::bind).transpose()?;
        let voter = config.quorum.as_ref().map(voter_thread).transpose()?;
        let counters = Arc::new(Counters::default());
        let (journal, recovered) = open_store(&broker_config.store, open)?;
        let retained = retained::Bounds::new(broker_config);
        let router = Arc::new(Router::new(retained, Arc::clone(&counters), Some(Arc::clone(&journal))));
        let bridge = Bridge::new(config, &material, Arc::<Router>::clone(&router) as _)?;
        let cluster = ClusterTopics::new(&config.lbs);
        let backbone = Arc::<Bridge>::clone(&bridge);
        let limits = Limits::new(broker_config);
        let broker = Broker::new(limits, router, counters, backbone as _, cluster, access, Some(Arc::clone(&journal)));
        broker.rates.set(Rates::new(&broker_config.admission));
        let joins = join::limit(config, &recovered);
        // Before the first client and the first peer: their messages are newer than all that is taken up.
        bridge.continue_after(recovered.last_stamp);
        broker.recover(recovered, clock());
        join::begin(&broker, joins);
        journal.store().set_live(Arc::new(Checkpoint::new(&broker)));

        let count = workers::count(broker_config.workers);
        let (sockets, addresses) = Sockets::open(broker_config, &doors, count)?;
        let [stop, stop_bridge] = [(); 2].map(|()| CancellationToken::new());
        let reception = Reception::new(config, &broker, count, stop.clone());
        let conditions = Arc::clone(reception.conditions());
        let bridges = bridges::start(&broker, &config.host, prepared, &conditions)?;
        let (sys, sys_interval) = watch::channel(broker_config.sys_interval);
        let reloader = Reloader {
            source: None,
            config: config.clone(),
            broker: Arc::clone(&broker),
            doors,
            places: Arc::clone(reception.places()),
            conditions: Arc::clone(&conditions),
            workers: count,
            sys_interval: sys,
            bridge: Arc::clone(&bridge),
            bridges: Arc::clone(&bridges.table),
            files,
        };
        let bridge = BridgeThread::spawn(bridge, stop_bridge.clone())?;
        let (places, table) = (Arc::clone(reception.places()), Arc::clone(&bridges.table));
        let host = config.host.as_str().to_owned();
        let desk = Desk { broker: Arc::clone(&broker), host, started: clock(), places, bridges: table };
        let workers = reception.spawn(sockets)?;
        addresses.log();
        tracing::info!(peers = %config.peer_listen, workers = count, "broker serves");
        Ok(Self {
            addresses,
            conditions,
            joins,
            desk: Arc::new(desk),
            metrics,
            sys_interval,
            broker,
            workers,
            bridges,
            bridge,
            voter,
            control,
            runtime,
            reloader,
            stop,
            stop_bridge,
        })
    }

    /// The same, and reads that file again when it is asked to.
    #[must_use]
    pub fn reloading(mut self, source: ConfigSource<BrokerConfig>) -> Self {
        self.reloader.source = Some(source);
        self
    }

    /// Where MQTT over TLS is served.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.addresses.listen
    }

    /// Where MQTT over plain TCP is served.
    #[must_use]
    pub fn listen_plain(&self) -> Option<SocketAddr> {
        self.addresses.plain
    }

    /// Where load balancers are served that say who their clients are.
    #[must_use]
    pub fn listen_proxy(&self) -> Option<SocketAddr> {
        self.addresses.proxy
    }

    /// Where the listener of this name of `[[broker.listeners]]` serves.
    #[must_use]
    pub fn listener(&self, name: &str) -> Option<&ListenAddress> {
        self.addresses.further.iter().find(|(own, _)| own == name).map(|(_, address)| address)
    }

    /// Ways to authenticate with AUTH packets; there is none unless one is offered here.
    #[must_use]
    pub fn mechanisms(&self) -> &Mechanisms {
        &self.broker.mechanisms
    }

    /// Where Prometheus asks.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until `shutdown`, then stops.
    ///
    /// # Errors
    /// A worker or the bridge failed.
    pub fn run(self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let runtime = Arc::clone(&self.runtime);
        runtime.block_on(self.serve(shutdown))
    }

    async fn serve(self, end: &CancellationToken) -> anyhow::Result<()> {
        let first = if trouble::of(&self.broker).is_some() { Health::Degraded } else { Health::Up };
        let (health, watched) = watch::channel(first);
        let ended = CancellationToken::new();
        let _end = ended.clone().drop_guard();
        let quorum = self.voter.as_ref().map(VoterThread::watch);
        let state = showing::state(&self.desk, quorum, watched.clone());
        let (ask, asked) = mpsc::channel(reload::REQUESTS);
        let requests = reload::requests(ask.clone(), requests(Arc::clone(&self.desk)));
        let serving = control::Control { state, health: watched, requests };
        let control = tokio::spawn(control::serve(self.control, serving, ended.clone()));
        let expiry = tokio::spawn(expiry::run(Arc::clone(&self.broker), ended.clone()));
        let mut coming_and_going = join::spawn(&self.broker, &self.reloader.bridge, self.joins);
        coming_and_going.spawn(drain::run(Arc::clone(&self.broker), Arc::clone(&self.reloader.bridge)));
        let reloader = tokio::spawn(self.reloader.run(asked, ended.clone()));
        let hang_ups = tokio::spawn(shutdown::on_hang_up(ended.clone(), move || {
            // Where many wait, one that is to come sees the same file.
            let _ = ask.try_send(None);
        }));
        let watching = tokio::spawn(trouble::watch(Arc::clone(&self.broker), health.clone(), ended.clone()));
        let _shown = showing::show(&self.desk, self.metrics, self.sys_interval, &ended);

        // A thread that ends before it is told to has failed, and the broker is of no use without it: the others end too.
        let _stop = (self.stop.clone().drop_guard(), self.stop_bridge.clone().drop_guard());
        let (workers, bridge, bridges) = (self.workers, self.bridge, self.bridges);
        tokio::spawn(pulse::watch_over(bridge.beats_with(&workers), ended.clone()));
        let mut workers = tokio::task::spawn_blocking(|| workers.join());
        let mut bridge = tokio::task::spawn_blocking(|| bridge.thread.join());
        tokio::select! {
            () = end.cancelled() => {}
            result = &mut workers => return result?.and_then(|()| anyhow::bail!("the workers ended by themselves")),
            text = store_failure(&self.broker) => anyhow::bail!("{text}"),
            result = &mut bridge => return joined(result?).and_then(|()| anyhow::bail!("the bridge ended by itself")),
        }

        coming_and_going.shutdown().await;
        notify::stopping();
        health.send_replace(Health::Down);
        let drain_timeout = self.conditions.load().drain_timeout;
        let deadline = tokio::time::Instant::now() + drain_timeout;
        announce_drain(&self.broker, drain_timeout).await;
        self.stop.cancel();
        bridges.begin_stop();
        self.broker.close_all(ReasonCode::ServerShuttingDown);
        close_lbs(&self.broker, drain_timeout).await;
        let drained = workers.await?;
        tokio::task::spawn_blocking(|| bridges.join()).await?;
        self.broker.end_all(clock());
        // The bridge is told to stop when every connected peer has what was published, or time is up.
        while self.broker.backbone.unacknowledged() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(FLUSH_POLL).await;
        }
        let unacknowledged = self.broker.backbone.unacknowledged();
        self.stop_bridge.cancel();
        let flushed = match tokio::time::timeout_at(deadline, bridge).await {
            Ok(result) => joined(result?).map(|()| true),
            Err(_) => Ok(false),
        };
        if let Some(voter) = self.voter {
            voter.stop();
        }
        watching.abort();
        expiry.abort();
        control.abort();
        reloader.abort();
        hang_ups.abort();
        if let Some(journal) = &self.broker.journal {
            journal.store().close();
        }
        let connections = self.broker.connections();
        let finished = connections == 0 && unacknowledged == 0 && matches!(flushed, Ok(true));
        tracing::info!(finished, connections, unacknowledged, "broker stopped");
        drained.and(flushed.map(|_| ()))
    }
}

/// Ends when nothing can be kept any more: nothing that relies on the store would ever be acknowledged.
async fn store_failure(broker: &Broker) -> String {
    let Some(journal) = &broker.journal else { return std::future::pending().await };
    std::future::poll_fn(|cx| journal.poll_failure(cx)).await
}

/// The lbs first: clients that come while this broker closes those that it has go elsewhere then.
async fn announce_drain(broker: &Broker, drain_timeout: Duration) {
    broker.cluster.announce(Readiness::Draining, "the broker stops", clock());
    if !broker.cluster.watching().is_empty() {
        tokio::time::sleep(ANNOUNCEMENT.min(drain_timeout / 10)).await;
    }
}

/// The lbs last, when their clients have had their DISCONNECT, but within the workers' time.
async fn close_lbs(broker: &Broker, drain_timeout: Duration) {
    let until = tokio::time::Instant::now() + drain_timeout / 4;
    loop {
        let lbs = broker.cluster.watching().len();
        if lbs == 0 || broker.connections() <= lbs || tokio::time::Instant::now() >= until {
            break;
        }
        tokio::time::sleep(FLUSH_POLL).await;
    }
    broker.close_lbs(ReasonCode::ServerShuttingDown);
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The thread of the links to the other brokers.
struct BridgeThread {
    thread: JoinHandle<anyhow::Result<()>>,
    beat: Beat,
}

impl BridgeThread {
    fn spawn(bridge: Arc<Bridge>, stop: CancellationToken) -> std::io::Result<Self> {
        let runtime = runtime()?;
        let beat = Beat::default();
        let own = beat.clone();
        let run = async move {
            let ended = tokio::select! {
                ended = bridge.run(stop) => ended,
                never = own.run() => match never {},
            };
            ended.context("bridge to the other brokers")
        };
        let thread = thread::Builder::new().name("bridge".to_owned()).spawn(move || runtime.block_on(run))?;
        Ok(Self { thread, beat })
    }

    /// Its own and those of the workers: without any of them the broker is of no use.
    fn beats_with(&self, workers: &Workers) -> Vec<Beat> {
        workers.beats().into_iter().chain([self.beat.clone()]).collect()
    }
}

fn joined(result: thread::Result<anyhow::Result<()>>) -> anyhow::Result<()> {
    result.unwrap_or_else(|_| Err(anyhow::anyhow!("the bridge's thread panicked")))
}
