//! Brokers that run inside the test, on ports that the system chooses.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use evermq_broker::Driver;
use evermq_config::broker::ListenAddress;
use evermq_config::broker::{Broker, Store, Sync};
use evermq_config::{BrokerConfig, ClusterName, HostName, Peer};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::certs::Ca;
use crate::client::{Client, connect};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a CA, and brokers that trust it.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
    pub(crate) ca: Ca,
}

pub(crate) struct Running {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) proxy: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    listeners: Vec<(String, ListenAddress)>,
    pub(crate) control: PathBuf,
    stop: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ca = Ca::new(directory.path(), "ca");
        Self { directory, ca }
    }

    /// The config of one broker of a cluster.
    pub(crate) fn config(&self, name: &str, peer_listen: SocketAddr, peers: &[(&str, SocketAddr)]) -> BrokerConfig {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let host = |name| HostName::new(name).unwrap();
        BrokerConfig {
            host: host(name),
            cluster: ClusterName::new("test").unwrap(),
            broker: Broker {
                listen: any,
                listen_plain: Some(any),
                peer_port: peer_listen.port(),
                connect_timeout: Duration::from_secs(5),
                max_packet_size: 100_000,
                max_inflight: 20,
                max_queued_messages: 1000,
                max_queued_bytes: 1_000_000,
                max_session_expiry: Duration::from_secs(3600),
                max_subscriptions: 50,
                max_topic_levels: 8,
                max_retained_messages: 100,
                peer_queue_messages: 1000,
                peer_queue_bytes: 1_000_000,
                drain_timeout: Duration::from_secs(3),
                workers: 2,
                store: Store {
                    path: self.directory.path().join(format!("{name}-store")),
                    segment_size: 1 << 20,
                    max_size: 64 << 20,
                    sync: Sync::Always,
                },
                ..Broker::default()
            },
            bridges: Vec::new(),
            lbs: Vec::new(),
            quorum: None,
            peer_listen,
            peers: peers.iter().map(|(name, address)| Peer { name: host(name), address: *address }).collect(),
            tls: self.ca.issue(name, 1),
            control_socket: self.directory.path().join(format!("{name}.sock")),
        }
    }
}

/// A lone broker.
pub(crate) fn start() -> (Site, Running) {
    start_with(|_| {})
}

/// A lone broker with other limits.
pub(crate) fn start_with(change: impl FnOnce(&mut Broker)) -> (Site, Running) {
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    change(&mut config.broker);
    let running = Running::start(&config);
    (site, running)
}

/// Two brokers that know each other. Their peer ports must be known beforehand.
pub(crate) fn start_two() -> (Site, [Running; 2]) {
    start_two_with(|_| {})
}

/// The same with other limits.
pub(crate) fn start_two_with(change: impl Fn(&mut Broker)) -> (Site, [Running; 2]) {
    let site = Site::new();
    let configs = two(&site, change);
    let brokers = [Running::start(&configs[0]), Running::start(&configs[1])];
    brokers.iter().for_each(Running::wait_for_peer);
    (site, brokers)
}

/// Their configs, for tests that start them again.
pub(crate) fn two(site: &Site, change: impl Fn(&mut Broker)) -> [BrokerConfig; 2] {
    let addresses: [_; 2] = std::array::from_fn(|_| evermq_ports::free_address());
    let mut one = site.config("broker1", addresses[0], &[("broker2", addresses[1])]);
    let mut two = site.config("broker2", addresses[1], &[("broker1", addresses[0])]);
    change(&mut one.broker);
    change(&mut two.broker);
    [one, two]
}

/// The configs of `count` brokers that know each other: broker1, broker2, ...
pub(crate) fn several(site: &Site, count: usize, change: impl Fn(&mut Broker)) -> Vec<BrokerConfig> {
    let names: Vec<_> = (1..=count).map(|number| format!("broker{number}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), evermq_ports::free_address())).collect();
    let config = |&(name, address): &(&str, SocketAddr)| {
        let peers: Vec<_> = all.iter().filter(|(peer, _)| *peer != name).copied().collect();
        let mut config = site.config(name, address, &peers);
        change(&mut config.broker);
        config
    };
    all.iter().map(config).collect()
}

/// A program that another test is just starting holds the sockets of the broker before until its exec.
pub(crate) fn driver(config: &BrokerConfig) -> Driver {
    let deadline = evermq_broker::connection::clock() + PATIENCE;
    loop {
        match Driver::start(config) {
            Err(error) if is_in_use(&error) && evermq_broker::connection::clock() < deadline => {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            started => return started.unwrap(),
        }
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["runs already", "in use"].iter().any(|words| text.contains(words))
}

impl Running {
    pub(crate) fn start(config: &BrokerConfig) -> Self {
        Self::of(driver(config), config)
    }

    /// A broker that was made, and perhaps given something more.
    pub(crate) fn of(driver: Driver, config: &BrokerConfig) -> Self {
        let stop = CancellationToken::new();
        let (plain, tls, proxy) = (driver.listen_plain().unwrap(), driver.listen(), driver.listen_proxy());
        let bound = |name: &str| (name.to_owned(), driver.listener(name).unwrap().clone());
        let listeners = config.broker.listeners.iter().map(|listener| bound(&listener.name)).collect();
        let metrics = driver.metrics();
        let token = stop.clone();
        let thread = Some(std::thread::spawn(move || driver.run(&token)));
        Self { plain, tls, proxy, metrics, listeners, control: config.control_socket.clone(), stop, thread }
    }

    /// Until it is linked with all its peers, both ways.
    pub(crate) fn wait_for_peer(&self) {
        self.wait_for("its peers", |state| {
            let is_linked = |peer: &Value| peer["connected"] == true && peer["receiving"] == true;
            state["bridge"]["peers"].as_array().unwrap().iter().all(is_linked)
        });
    }

    /// Until it knows of so many connected members of shared subscriptions at each of its peers, in their order.
    pub(crate) fn wait_for_members(&self, wanted: &[u64]) {
        self.wait_for("members at its peers", |state| {
            let peers = state["bridge"]["peers"].as_array().unwrap();
            peers.iter().map(|peer| peer["shared_members"].as_u64().unwrap()).eq(wanted.iter().copied())
        });
    }

    /// Where the TCP listener of this name is.
    pub(crate) fn at(&self, name: &str) -> SocketAddr {
        match self.listeners.iter().find(|(own, _)| own == name) {
            Some((_, ListenAddress::Tcp(address))) => *address,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// A connected client of MQTT 5.0 with a clean start.
    pub(crate) fn client(&self, id: &str) -> Client {
        Client::open(self.plain, connect(id)).0
    }

    pub(crate) fn state(&self) -> Value {
        self.ask(&serde_json::json!({"request": "state"}))
    }

    /// What the control socket answers.
    pub(crate) fn ask(&self, request: &Value) -> Value {
        evermq_daemon::control::request(&self.control, request, PATIENCE).unwrap()
    }

    /// Waits until it answers as `wanted`.
    pub(crate) fn ask_until(&self, what: &str, request: &Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        loop {
            let answer = self.ask(request);
            if wanted(&answer) {
                return answer;
            }
            assert!(evermq_broker::connection::clock() < deadline, "waited in vain for {what}: {answer:#}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Waits until the broker's state is as `wanted`.
    pub(crate) fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = evermq_broker::connection::clock() + PATIENCE;
        loop {
            let state = self.state();
            if wanted(&state) {
                return state;
            }
            assert!(evermq_broker::connection::clock() < deadline, "waited in vain for {what}: {state:#}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Says that it is to stop, as SIGTERM would.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.begin_stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}
