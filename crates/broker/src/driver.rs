//! The running broker: threads, addresses, start and stop.
//!
//! | thread | tasks, all of which it owns |
//! |---|---|
//! | `broker-N`, one for each worker | its listeners, its connections |
//! | `bridge` | the links to the other brokers |
//! | `voter` | this host's vote on who holds the VIP, where there is a quorum |
//! | the caller's | session expiry, control socket, waiting for the end |
//!
//! Stopping: the lbs hear that this broker drains; no new connections; every client is told and closed, then the lbs; wills go out; the bridge sends what is left; all of it
//! within `drain_timeout`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use evermq_bridge::Bridge;
use evermq_config::BrokerConfig;
use evermq_daemon::cluster_topics::Readiness;
use evermq_daemon::health::Health;
use evermq_daemon::listen::{self, SocketOptions};
use evermq_daemon::tls::Material;
use evermq_daemon::workers::{self, Workers};
use evermq_daemon::{control, limits, notify};
use evermq_mqtt::ReasonCode;
use evermq_quorum::{StateWatch, VoterThread, voter_thread};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::Broker;
use crate::cluster_topics::ClusterTopics;
use crate::connection::clock;
use crate::counters::Counters;
use crate::expiry;
use crate::listener::{self, Door, Entrance};
use crate::proxy::LoadBalancers;
use crate::router::Router;
use crate::session::Limits;

/// Open files besides connections: listeners, peers, the control socket.
const OTHER_FILES: usize = 256;
/// How often a stopping broker looks whether its peers have everything.
const FLUSH_POLL: Duration = Duration::from_millis(5);
/// How long the lbs have to hear that this broker drains before it begins.
const ANNOUNCEMENT: Duration = Duration::from_millis(100);

/// A broker whose addresses are bound and whose workers serve.
pub struct Driver {
    listen: SocketAddr,
    listen_plain: Option<SocketAddr>,
    listen_proxy: Option<SocketAddr>,
    host: String,
    drain_timeout: Duration,
    started: Instant,
    broker: Arc<Broker>,
    workers: Workers,
    bridge: JoinHandle<anyhow::Result<()>>,
    /// Votes until the last client is gone: who holds the VIP must not depend on a broker's drain.
    voter: Option<VoterThread>,
    control: std::os::unix::net::UnixListener,
    /// Stops the workers.
    stop: CancellationToken,
    /// Stops the bridge, once no client can publish any more.
    stop_bridge: CancellationToken,
}

/// One of a worker's listeners, to be taken by its thread.
struct Listening {
    listener: TcpListener,
    door: Door,
}

impl Driver {
    /// Binds every address and starts to serve.
    ///
    /// # Errors
    /// Certificates cannot be used, an address cannot be bound, a thread cannot be made.
    pub fn start(config: &BrokerConfig) -> anyhow::Result<Self> {
        let broker_config = &config.broker;
        limits::raise_open_files(broker_config.max_connections.saturating_add(OTHER_FILES));
        let material = Material::load(&config.tls)?;
        let tls = Door::Tls(TlsAcceptor::from(material.server_config()?));
        let control = control::bind(&config.control_socket)?;
        let voter = config.quorum.as_ref().map(voter_thread).transpose()?;
        let counters = Arc::new(Counters::default());
        let router = Arc::new(Router::new(broker_config.max_retained_messages, Arc::clone(&counters)));
        let bridge = Bridge::new(config, &material, Arc::<Router>::clone(&router) as _)?;
        let cluster = ClusterTopics::new(&config.lbs);
        let backbone = Arc::<Bridge>::clone(&bridge);
        let broker = Broker::new(Limits::new(broker_config), router, counters, backbone as _, cluster);

        let count = workers::count(broker_config.workers);
        let mut listeners: Vec<Vec<Listening>> = (0..count).map(|_| Vec::new()).collect();
        let listen = bind_all(broker_config.listen, &tls, &mut listeners)?;
        let mut bind = |address: Option<SocketAddr>, door| {
            address.map(|address| bind_all(address, &door, &mut listeners)).transpose()
        };
        let listen_plain = bind(broker_config.listen_plain, Door::Plain)?;
        let listen_proxy = bind(broker_config.listen_proxy, Door::Proxy)?;
        let stop = CancellationToken::new();
        let stop_bridge = CancellationToken::new();
        let bridge = spawn_bridge(bridge, stop_bridge.clone())?;
        let entrance = Entrance {
            broker: Arc::clone(&broker),
            door: Door::Plain,
            lbs: LoadBalancers::new(&config.lbs),
            options: SocketOptions {
                keepalive: broker_config.tcp_keepalive,
                user_timeout: broker_config.tcp_user_timeout,
            },
            connect_timeout: broker_config.connect_timeout,
            max_connections: broker_config.max_connections,
            shutdown: stop.clone(),
        };
        // Half of the time for the clients, so that one which does not listen leaves the other half to the peers.
        let workers = spawn_workers(entrance, listeners, broker_config.drain_timeout / 2)?;
        tracing::info!(%listen, ?listen_plain, ?listen_proxy, peers = %config.peer_listen, workers = count, "broker listens");
        Ok(Self {
            listen,
            listen_plain,
            listen_proxy,
            host: config.host.as_str().to_owned(),
            drain_timeout: broker_config.drain_timeout,
            started: clock(),
            broker,
            workers,
            bridge,
            voter,
            control,
            stop,
            stop_bridge,
        })
    }

    /// Where MQTT over TLS is served.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where MQTT over plain TCP is served.
    #[must_use]
    pub fn listen_plain(&self) -> Option<SocketAddr> {
        self.listen_plain
    }

    /// Where load balancers are served that say who their clients are.
    #[must_use]
    pub fn listen_proxy(&self) -> Option<SocketAddr> {
        self.listen_proxy
    }

    /// Serves until `shutdown`, then stops.
    ///
    /// # Errors
    /// A worker or the bridge failed.
    pub fn run(self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve(shutdown))
    }

    async fn serve(self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let (health, watched) = watch::channel(Health::Up);
        let ended = CancellationToken::new();
        let _end = ended.clone().drop_guard();
        let quorum = self.voter.as_ref().map(VoterThread::watch);
        let state = state_of(&self.host, &self.broker, quorum, self.started, watched.clone());
        let serving = control::Control { state, health: watched, requests: control::no_requests() };
        let control = tokio::spawn(control::serve(self.control, serving, ended.clone()));
        let expiry = tokio::spawn(expiry::run(Arc::clone(&self.broker), ended.clone()));
        notify::ready("serving MQTT clients");

        // A thread that ends before it is told to has failed, and the broker is of no use without it.
        let (workers, bridge) = (self.workers, self.bridge);
        let mut workers = tokio::task::spawn_blocking(|| workers.join());
        let mut bridge = tokio::task::spawn_blocking(|| bridge.join());
        tokio::select! {
            () = shutdown.cancelled() => {}
            result = &mut workers => return result?.and_then(|()| anyhow::bail!("the workers ended by themselves")),
            result = &mut bridge => return joined(result?).and_then(|()| anyhow::bail!("the bridge ended by itself")),
        }

        notify::stopping();
        health.send_replace(Health::Down);
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        announce_drain(&self.broker, self.drain_timeout).await;
        self.stop.cancel();
        self.broker.close_all(ReasonCode::ServerShuttingDown);
        close_lbs(&self.broker, self.drain_timeout).await;
        let drained = workers.await?;
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
        expiry.abort();
        control.abort();
        let connections = self.broker.connections();
        let finished = connections == 0 && unacknowledged == 0 && matches!(flushed, Ok(true));
        tracing::info!(finished, connections, unacknowledged, "broker stopped");
        drained.and(flushed.map(|_| ()))
    }
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

/// One listener more for each worker, all on one address, which the first one finds where the port is 0.
fn bind_all(address: SocketAddr, door: &Door, workers: &mut [Vec<Listening>]) -> anyhow::Result<SocketAddr> {
    let mut bound = address;
    for listeners in workers {
        let listener = listen::tcp(bound, true)?;
        bound = listener.local_addr()?;
        listeners.push(Listening { listener, door: door.clone() });
    }
    Ok(bound)
}

fn spawn_workers(entrance: Entrance, listeners: Vec<Vec<Listening>>, drain_time: Duration) -> std::io::Result<Workers> {
    let count = listeners.len();
    let listeners: Mutex<Vec<Option<Vec<Listening>>>> = Mutex::new(listeners.into_iter().map(Some).collect());
    workers::spawn("broker", count, move |index| {
        let mine = listeners.lock().get_mut(index).and_then(Option::take).unwrap_or_default();
        work(entrance.clone(), mine, drain_time)
    })
}

/// One worker: accepts until shutdown, then waits for its connections, but not for ever.
async fn work(entrance: Entrance, listeners: Vec<Listening>, drain_time: Duration) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    for Listening { listener, door } in listeners {
        let listener = tokio::net::TcpListener::from_std(listener).context("listener")?;
        let entrance = Entrance { door, ..entrance.clone() };
        tasks.spawn(listener::serve(listener, entrance, tasks.clone()));
    }
    entrance.shutdown.cancelled().await;
    tasks.close();
    if tokio::time::timeout(drain_time, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "half of drain_timeout has passed: connections are cut off");
    }
    Ok(())
}

fn spawn_bridge(bridge: Arc<Bridge>, stop: CancellationToken) -> std::io::Result<JoinHandle<anyhow::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name("bridge".to_owned())
        .spawn(move || runtime.block_on(bridge.run(stop)).context("bridge to the other brokers"))
}

fn joined(result: thread::Result<anyhow::Result<()>>) -> anyhow::Result<()> {
    result.unwrap_or_else(|_| Err(anyhow::anyhow!("the bridge's thread panicked")))
}

/// What the control socket answers to `state`.
fn state_of(
    host: &str,
    broker: &Arc<Broker>,
    quorum: Option<StateWatch>,
    started: Instant,
    health: watch::Receiver<Health>,
) -> Arc<dyn Fn() -> Value + Send + Sync> {
    let (host, broker) = (host.to_owned(), Arc::clone(broker));
    Arc::new(move || {
        let (sessions, queued) = broker.sessions();
        json!({
            "program": "evermq-broker",
            "version": env!("CARGO_PKG_VERSION"),
            "host": host,
            "health": *health.borrow(),
            "uptime_seconds": clock().saturating_duration_since(started).as_secs(),
            "readiness": broker.cluster.readiness().word(),
            "connections": broker.connections(),
            "sessions": sessions,
            "queued": queued,
            "subscriptions": broker.router.subscriptions(),
            "retained": broker.router.retained(),
            "messages": broker.counters.to_json(),
            "bridge": broker.backbone.state(),
            "quorum": quorum.as_ref().map(StateWatch::get),
        })
    })
}
