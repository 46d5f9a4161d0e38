//! What the tests of this crate stand on: certificates, brokers that obey, a load balancer in this process.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "each test program uses its part of it"
)]

pub mod broker;
pub mod certs;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermq_config::cluster::{Balance, Lb};
use evermq_config::roles::Peer;
use evermq_config::{ClusterName, HostName, LbConfig};
use evermq_daemon::health::{Health, HealthLine};
use evermq_lb::state::State;
use evermq_lb::{Drained, LoadBalancer};
use tokio_util::sync::CancellationToken;

/// How long anything may take that is not measured.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration for tests: quick, on a port of the kernel's choice.
pub fn config(backends: &[SocketAddr]) -> LbConfig {
    let names = ["broker1", "broker2", "broker3"];
    LbConfig {
        host: HostName::new("lb1").unwrap(),
        lb: Lb {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            balance: Balance::LeastConn,
            max_connections: 1000,
            connect_timeout: Duration::from_millis(300),
            health_interval: Duration::from_millis(100),
            health_timeout: Duration::from_millis(400),
            tcp_keepalive: Duration::from_secs(30),
            tcp_user_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            peer_port: 0,
            reconnect_rate: 5_000,
            workers: 2,
        },
        cluster: ClusterName::new("test").unwrap(),
        peer_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        peers: Vec::new(),
        backends: backends
            .iter()
            .zip(names)
            .map(|(&address, name)| Peer { name: HostName::new(name).unwrap(), address })
            .collect(),
        tls: certs::files("lb1"),
        control_socket: socket_path(),
    }
}

fn socket_path() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    certs::directory().join(format!("lb-{number}.sock"))
}

/// A load balancer that serves in a thread of this process; drained at once when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub control: PathBuf,
    pub shutdown: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<Drained>>>,
}

impl Running {
    pub fn start(config: LbConfig) -> Self {
        let control = config.control_socket.clone();
        let balancer = LoadBalancer::bind(config).unwrap();
        let address = balancer.address();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || balancer.serve(&token));
        Self { address, control, shutdown, thread: Some(thread) }
    }

    /// Starts and waits until every backend is up.
    pub fn start_up(config: LbConfig) -> Self {
        let running = Self::start(config);
        running.until("all up", |now| {
            now.health == Health::Up && now.backends.iter().all(|backend| backend.state == "up")
        });
        running
    }

    /// A client connection; reads fail after [`PATIENCE`].
    pub fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A client whose first byte has come back, so that its backend is an echoing one.
    pub fn echoing_client(&self) -> TcpStream {
        let mut client = self.client();
        ping(&mut client);
        client
    }

    pub fn state(&self) -> State {
        let answer = evermq_daemon::control::request(&self.control, &serde_json::json!({"request": "state"}), PATIENCE);
        serde_json::from_value(answer.unwrap()).unwrap()
    }

    /// Waits until `condition` holds.
    pub fn until(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        eventually(what, || Some(self.state()).filter(&condition))
    }

    /// The health lines, as evermq-vip reads them.
    pub fn health(&self) -> impl Iterator<Item = Health> + use<> {
        let mut stream = UnixStream::connect(&self.control).unwrap();
        stream.write_all(b"{\"request\":\"health\"}\n").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
            .lines()
            .map_while(Result::ok)
            .map(|line| serde_json::from_str::<HealthLine>(&line).unwrap().health)
    }

    /// Waits for the end after `shutdown`.
    pub fn join(mut self) -> anyhow::Result<Drained> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits for a condition, and fails loudly if it does not come true.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One byte there and back.
pub fn ping(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"x");
}

/// Waits until the connection is closed by the other side, by end of file or reset.
pub fn wait_closed(client: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut sink = [0; 4096];
    loop {
        match client.read(&mut sink) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return start.elapsed(),
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// A port on loopback that nobody listens on.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Bytes that do not repeat in any short period.
pub fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count).map(|_| random.next() as u8).collect()
}

/// A small generator of numbers (xorshift64*), the same in each run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}
