//! What the tests of this crate stand on: certificates, brokers that obey, a load balancer in this process.

pub(crate) mod broker;
pub(crate) mod certs;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermq_config::{HostName, LbConfig};
use evermq_daemon::health::{Health, HealthLine};
use evermq_daemon::tls::{Material, server_name};
use evermq_lb::state::State;
use evermq_lb::{Drained, LoadBalancer};
use tokio_util::sync::CancellationToken;

/// How long anything may take that is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What no timeout has to bring about takes milliseconds. On a very busy machine it may take longer, and yet less than
/// any timeout of [`config`] would.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(4);

/// A configuration for tests: quick, on a port of the kernel's choice.
pub(crate) fn config(backends: &[SocketAddr]) -> LbConfig {
    let names = ["broker1", "broker2", "broker3"];
    let file = backends.iter().zip(names).fold(MINIMAL.to_owned(), |file, (address, name)| {
        // The address is replaced below: brokers of a test share one host.
        let host = address.port() % 250 + 1;
        format!(
            "{file}[[hosts]]\nname = \"{name}\"\naddress = \"127.0.{}.{host}\"\nroles = [\"broker\"]\n",
            address.port() / 250
        )
    });
    let loaded =
        evermq_config::parse(std::path::Path::new("/test.toml"), &file).unwrap_or_else(|report| panic!("{report}"));
    let mut config = loaded.cluster.lb_for("lb1").unwrap();
    for (backend, &address) in config.backends.iter_mut().zip(backends) {
        backend.address = Some(address);
    }
    config.lb.listeners[0].address = SocketAddr::from(([127, 0, 0, 1], 0));
    // Brokers of the tests are threads of the same process: on a busy machine they answer late.
    config.lb.connect_timeout = 2 * AT_ONCE;
    config.lb.health.interval = Duration::from_millis(100);
    config.lb.health.timeout = 2 * AT_ONCE;
    config.lb.health.slow_start = Duration::ZERO;
    config.lb.tcp_user_timeout = Duration::from_secs(30);
    config.lb.workers = 2;
    config.peer_listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.tls = certs::files("lb1");
    config.control_socket = socket_path();
    config
}

const MINIMAL: &str = "[cluster]\nname = \"test\"\n[lb]\nlisten = \"127.0.0.1:9000\"\nmax_connections = 1000\n\
    [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.9\"\nroles = [\"lb\"]\n";

fn socket_path() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    certs::directory().join(format!("lb-{number}.sock"))
}

/// A load balancer that serves in a thread of this process; drained at once when dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) control: PathBuf,
    pub(crate) shutdown: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<Drained>>>,
}

impl Running {
    pub(crate) fn start(config: LbConfig) -> Self {
        let control = config.control_socket.clone();
        let balancer = LoadBalancer::bind(config).unwrap();
        let address = balancer.address();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let thread = std::thread::spawn(move || balancer.serve(&token));
        Self { address, control, shutdown, thread: Some(thread) }
    }

    /// Starts and waits until every backend is up.
    pub(crate) fn start_up(config: LbConfig) -> Self {
        let running = Self::start(config);
        running.until("all up", |now| {
            now.health == Health::Up && now.backends.iter().all(|backend| backend.state == "up")
        });
        running
    }

    /// A client connection that has sent its [`hello`]; reads fail after [`PATIENCE`].
    pub(crate) fn client(&self) -> TcpStream {
        connect(self.address).unwrap()
    }

    /// A connection that has said nothing.
    pub(crate) fn stranger(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A client whose first byte has come back, so that its backend is an echoing one.
    pub(crate) fn echoing_client(&self) -> TcpStream {
        let mut client = self.client();
        ping(&mut client);
        client
    }

    pub(crate) fn state(&self) -> State {
        let answer = evermq_daemon::control::request(&self.control, &serde_json::json!({"request": "state"}), PATIENCE);
        serde_json::from_value(answer.unwrap()).unwrap()
    }

    /// Waits until `condition` holds.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state();
            if condition(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}: {state:#?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The health lines, as evermq-vip reads them.
    pub(crate) fn health(&self) -> impl Iterator<Item = Health> + use<> {
        let mut stream = UnixStream::connect(&self.control).unwrap();
        stream.write_all(b"{\"request\":\"health\"}\n").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
            .lines()
            .map_while(Result::ok)
            .map(|line| serde_json::from_str::<HealthLine>(&line).unwrap().health)
    }

    /// Waits for the end after `shutdown`.
    pub(crate) fn join(mut self) -> anyhow::Result<Drained> {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// What a TLS client says first: the ClientHello that rustls makes. The brokers of these tests take it off, so that what
/// follows may be anything.
pub(crate) fn hello() -> &'static [u8] {
    static HELLO: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    HELLO.get_or_init(|| {
        let name = HostName::new("anybody").unwrap();
        let material = Material::load(&certs::files("client")).unwrap();
        let tls = material.client_config_for(&name, [127, 0, 0, 1].into()).unwrap();
        let mut connection = rustls::ClientConnection::new(tls, server_name(&name)).unwrap();
        let mut hello = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut hello).unwrap();
        }
        hello
    })
}

/// A client connection that has sent its [`hello`]; reads fail after [`PATIENCE`].
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(hello())?;
    Ok(stream)
}

/// Waits for a condition, and fails loudly if it does not come true.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
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
pub(crate) fn ping(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"x");
}

/// Whether this process runs nothing but the test of this name: one that measures the whole process starts it again, and
/// has passed if that one has.
pub(crate) fn alone(test: &str, environment: &[(&str, &str)]) -> bool {
    const ALONE: &str = "EVERMQ_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let itself = std::env::current_exe().unwrap();
    let status = std::process::Command::new(itself)
        .args([test, "--exact", "--nocapture"])
        .envs(environment.iter().copied())
        .env(ALONE, test)
        .status()
        .unwrap();
    assert!(status.success());
    false
}

/// One read, begun again where the process stood still meanwhile: signal(7) has EINTR for a socket with a timeout then.
pub(crate) fn read(stream: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Waits until the connection is closed by the other side, by end of file or reset.
pub(crate) fn wait_closed(client: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut sink = [0; 4096];
    loop {
        match read(client, &mut sink) {
            Ok(0) => return start.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return start.elapsed(),
            Err(error) => panic!("not closed: {error}"),
        }
    }
}

/// Bytes that do not repeat in any short period.
pub(crate) fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count).map(|_| random.next() as u8).collect()
}

/// A small generator of numbers (xorshift64*), the same in each run.
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }
}
