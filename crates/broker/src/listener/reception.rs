//! Every listener's sockets, and the workers that receive their connections.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use evermq_config::BrokerConfig;
use evermq_config::broker::{self, ListenAddress};
use evermq_daemon::kept;
use evermq_daemon::workers::{self, Workers};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{self, Bound};
use super::conditions::{self, Conditions};
use super::{Door, Entrance, Hall, serve};
use crate::auth::tls::Doors;
use crate::broker::Broker;
use crate::places::Places;
use crate::proxy::LoadBalancers;

/// Every listening socket: a list for each worker.
#[derive(Debug)]
pub struct Sockets(Vec<Vec<Listening>>);

/// One of a worker's listeners, to be taken by its thread.
#[derive(Debug)]
struct Listening {
    socket: Bound,
    door: Arc<Door>,
}

/// Where they are.
#[derive(Debug)]
pub struct Addresses {
    /// `listen`.
    pub listen: SocketAddr,
    /// `listen_plain`.
    pub plain: Option<SocketAddr>,
    /// `listen_proxy`.
    pub proxy: Option<SocketAddr>,
    /// `[[broker.listeners]]`, by their names.
    pub further: Vec<(String, ListenAddress)>,
}

/// What every worker receives connections with.
pub struct Reception {
    broker: Arc<Broker>,
    places: Arc<Places>,
    lbs: LoadBalancers,
    conditions: conditions::Shared,
    shutdown: CancellationToken,
}

impl Sockets {
    /// All of them, for so many workers.
    ///
    /// # Errors
    /// An address cannot be had; the text says what to do.
    pub fn open(config: &broker::Broker, doors: &Arc<Doors>, workers: usize) -> anyhow::Result<(Self, Addresses)> {
        let mut sockets = Self((0..workers).map(|_| Vec::new()).collect());
        let listen = sockets.open_tcp(config.listen, Door::listen(doors))?;
        let mut open =
            |address: Option<SocketAddr>, door| address.map(|address| sockets.open_tcp(address, door)).transpose();
        let plain = open(config.listen_plain, Door::plain())?;
        let proxy = open(config.listen_proxy, Door::proxy())?;
        let mut further = Vec::new();
        for listener in &config.listeners {
            let bound = sockets
                .open_one(&listener.address, Door::further(listener, doors))
                .with_context(|| format!("broker.listeners {}", listener.name))?;
            further.push((listener.name.clone(), bound));
        }
        kept::close_unclaimed();
        Ok((sockets, Addresses { listen, plain, proxy, further }))
    }

    /// One listening socket more for each worker; where that is, which the first one finds if the port is 0.
    fn open_one(&mut self, address: &ListenAddress, door: Door) -> anyhow::Result<ListenAddress> {
        let door = Arc::new(door);
        let (sockets, bound) = bind::bind(address, self.0.len())?;
        for (worker, socket) in self.0.iter_mut().zip(sockets) {
            worker.push(Listening { socket, door: Arc::clone(&door) });
        }
        Ok(bound)
    }

    fn open_tcp(&mut self, address: SocketAddr, door: Door) -> anyhow::Result<SocketAddr> {
        match self.open_one(&ListenAddress::Tcp(address), door)? {
            ListenAddress::Tcp(bound) => Ok(bound),
            ListenAddress::Unix(_) => Ok(address),
        }
    }
}

impl Addresses {
    /// One line for each.
    pub fn log(&self) {
        // As clients' lines and the figures call them.
        let keys = [("tls", Some(self.listen)), ("plain", self.plain), ("proxy", self.proxy)];
        for (listener, address) in keys {
            if let Some(address) = address {
                tracing::info!(listener, %address, "broker listens");
            }
        }
        for (listener, address) in &self.further {
            match address {
                ListenAddress::Tcp(address) => tracing::info!(listener, %address, "broker listens"),
                ListenAddress::Unix(path) => tracing::info!(listener, path = %path.display(), "broker listens"),
            }
        }
    }
}

impl Reception {
    /// As the cluster file says, for so many workers.
    #[must_use]
    pub fn new(config: &BrokerConfig, broker: &Arc<Broker>, workers: usize, shutdown: CancellationToken) -> Self {
        let (lbs, config) = (LoadBalancers::new(&config.lbs), &config.broker);
        Self {
            broker: Arc::clone(broker),
            places: Places::new(config.admission, lbs.clone()),
            lbs,
            conditions: Conditions::new(config, workers).shared(),
            shutdown,
        }
    }

    /// Starts the workers, who have half of `drain_timeout` for their connections when they are to end, so that a client which
    /// does not listen leaves the other half to the peers.
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn spawn(self, sockets: Sockets) -> std::io::Result<Workers> {
        let count = sockets.0.len();
        let sockets: Mutex<Vec<Option<Vec<Listening>>>> = Mutex::new(sockets.0.into_iter().map(Some).collect());
        let reception = Arc::new(self);
        workers::spawn("broker", count, move |index| {
            let mine = sockets.lock().get_mut(index).and_then(Option::take).unwrap_or_default();
            work(Arc::clone(&reception), mine)
        })
    }

    /// How many connections there may be; a reload may change that.
    #[must_use]
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// What holds for those who come; a reload may change that.
    #[must_use]
    pub fn conditions(&self) -> &conditions::Shared {
        &self.conditions
    }

    /// One worker's.
    fn entrance(&self, hall: &Arc<Hall>, door: Arc<Door>) -> Entrance {
        Entrance {
            broker: Arc::clone(&self.broker),
            door,
            places: Arc::clone(&self.places),
            hall: Arc::clone(hall),
            lbs: self.lbs.clone(),
            conditions: Arc::clone(&self.conditions),
            shutdown: self.shutdown.clone(),
        }
    }
}

/// One worker: accepts until shutdown, then waits for its connections, but not for ever.
async fn work(reception: Arc<Reception>, sockets: Vec<Listening>) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let hall = Hall::new(Arc::clone(&reception.conditions));
    for Listening { socket, door } in sockets {
        let acceptor = socket.into_acceptor().context("listener")?;
        tasks.spawn(serve(acceptor, reception.entrance(&hall, door), tasks.clone()));
    }
    reception.shutdown.cancelled().await;
    tasks.close();
    let drain_time = reception.conditions.load().drain_timeout / 2;
    if tokio::time::timeout(drain_time, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "half of drain_timeout has passed: connections are cut off");
    }
    Ok(())
}
