//! A cluster on loopback: certificates, the endpoints of its hosts, and programs that say what a test wants.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermq_admin::service::{self, Source};
use evermq_config::cluster::Host;
use evermq_config::{Cluster, HostName, TlsFiles};
use evermq_daemon::control::{self, Answer, Control};
use evermq_daemon::health::Health;
use evermq_daemon::tls::{Material, server_name};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What must happen happens before this.
const DEADLINE: Duration = Duration::from_secs(30);

/// An lb host and a broker host, 127.0.0.1 and 127.0.0.2, with certificates.
pub(crate) struct Site {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pub(crate) port: u16,
}

/// Something that runs on a thread of its own until it is dropped.
pub(crate) struct Running {
    shutdown: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A program of a host, which answers as it was told.
pub(crate) struct Program {
    pub(crate) health: watch::Sender<Health>,
    /// Every request but those that all programs answer.
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
    _running: Running,
}

/// Status, head and body of an answer.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Site {
    /// `settings` stand in `[admin]`.
    pub(crate) fn new(settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test CA");
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        let hosts = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)].map(Into::into);
        let site = Self { dir, issuer: Issuer::new(params, key), port: evermq_ports::free_on(hosts)[0].port() };
        site.certificate("lb1", &["lb1"]);
        site.certificate("broker1", &["broker1"]);
        for client in ["admin", "prometheus", "device"] {
            site.certificate(client, &[]);
        }
        site.write(settings);
        site
    }

    /// Writes the cluster file, for each host its own: they are one machine, and listen each on its own address.
    pub(crate) fn write(&self, settings: &str) {
        for host in ["lb1", "broker1"] {
            self.write_for(host, &format!("listen = \"{}\"\n{settings}", self.address(host)));
        }
    }

    /// Writes the cluster file of one host, with all that stands in `[admin]`.
    pub(crate) fn write_for(&self, host: &str, admin: &str) {
        let text = format!(
            "[cluster]\nname = \"c\"\nrun_dir = \"run/{host}\"\nnetwork = \"127.0.0.0/8\"\n[vip]\naddress = \"127.0.0.9\"\n[admin]\n\
             {admin}\n[tls]\nca = \"ca.crt\"\ncert = \"{{host}}.crt\"\nkey = \"{{host}}.key\"\n\
             [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\"]\n\
             [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n"
        );
        std::fs::write(self.file(host), text).unwrap();
    }

    fn file(&self, host: &str) -> PathBuf {
        self.path(&format!("{host}.toml"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn certificate(&self, name: &str, sans: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = sans.iter().map(|san| SanType::DnsName((*san).try_into().unwrap())).collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.dir.path().join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn cluster(&self, host: &str) -> (Cluster, Host) {
        let source = Source { path: self.file(host), host: host.to_owned() };
        source.load().unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn run_dir(&self, host: &str) -> PathBuf {
        self.dir.path().join("run").join(host)
    }

    pub(crate) fn address(&self, host: &str) -> SocketAddr {
        let address = if host == "lb1" { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 0, 0, 2) };
        SocketAddr::from((address, self.port))
    }

    /// Starts a host's endpoint, and waits until it listens.
    pub(crate) fn start(&self, host: &str) -> Running {
        let running = self.start_unheard(host);
        eventually("the endpoint listens", || TcpStream::connect(self.address(host)).ok());
        running
    }

    /// Starts `evermq admin` of a host.
    pub(crate) fn start_unheard(&self, host: &str) -> Running {
        let (cluster, configured) = self.cluster(host);
        let source = Source { path: self.file(host), host: host.to_owned() };
        Running::start(move |shutdown| service::serve(source, &cluster, &configured, shutdown).unwrap())
    }

    /// Starts a program of a host.
    pub(crate) fn program(&self, host: &str, name: &str, state: Value) -> Program {
        let socket = control::bind(&self.run_dir(host).join(format!("{name}.sock"))).unwrap();
        let (health, shown) = watch::channel(Health::Up);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let requests = move |name: &str, request: &Value| match name {
            "metrics" => Some(Answer::Ok(json!({ "host": "x", "text": "up 1\n" }))),
            "backend" | "drain" | "rebalance" => {
                heard.lock().unwrap().push(request.clone());
                Some(Answer::Ok(json!({ "done": true })))
            }
            _ => None,
        };
        let control = Control { state: Arc::new(move || state.clone()), health: shown, requests: Arc::new(requests) };
        let running = Running::start(move |shutdown| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control::serve(socket, control, shutdown)).unwrap();
        });
        Program { health, asked, _running: running }
    }

    /// Has a host's endpoint read the file again.
    pub(crate) fn reload(&self, host: &str) -> Result<Value, String> {
        self.request(host, "reload")
    }

    /// Asks a host's `evermq admin` on its control socket.
    pub(crate) fn request(&self, host: &str, request: &str) -> Result<Value, String> {
        let socket = self.run_dir(host).join("admin.sock");
        control::request(&socket, &json!({ "request": request }), DEADLINE).map_err(|error| error.to_string())
    }

    /// For whoever has this certificate, or none.
    pub(crate) fn config(&self, name: Option<&str>) -> Arc<ClientConfig> {
        let path = |file: String| self.dir.path().join(file);
        let Some(name) = name else { return anonymous(&path("ca.crt".to_owned())) };
        let files = TlsFiles {
            ca: path("ca.crt".to_owned()),
            cert: path(format!("{name}.crt")),
            key: path(format!("{name}.key")),
        };
        Material::load(&files).unwrap().client_config_at(Ipv4Addr::LOCALHOST.into()).unwrap()
    }

    /// Sends a whole request and reads the whole answer; none where TLS does not get so far.
    pub(crate) fn ask(&self, host: &str, who: Option<&str>, request: &str) -> Option<Answered> {
        self.ask_at(self.address(host), host, who, request)
    }

    /// What an admin gets of lb1 where it listens now.
    pub(crate) fn at(&self, address: SocketAddr, path: &str) -> Answered {
        let request = format!("GET {path} HTTP/1.1\r\nhost: lb1\r\nconnection: close\r\n\r\n");
        self.ask_at(address, "lb1", Some("admin"), &request).unwrap()
    }

    fn ask_at(&self, address: SocketAddr, host: &str, who: Option<&str>, request: &str) -> Option<Answered> {
        let mut stream = self.open_at(address, host, who);
        stream.write_all(request.as_bytes()).ok()?;
        let mut text = Vec::new();
        // One that does not say farewell has said all the same.
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answered { status, head: head.to_lowercase(), body: body.to_owned() })
    }

    pub(crate) fn open(&self, host: &str, who: Option<&str>) -> StreamOwned<ClientConnection, TcpStream> {
        self.open_at(self.address(host), host, who)
    }

    fn open_at(&self, address: SocketAddr, host: &str, who: Option<&str>) -> StreamOwned<ClientConnection, TcpStream> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = server_name(&HostName::new(host).unwrap());
        StreamOwned::new(ClientConnection::new(self.config(who), name).unwrap(), stream)
    }

    pub(crate) fn get(&self, host: &str, who: Option<&str>, path: &str) -> Option<Answered> {
        self.ask(host, who, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
    }

    pub(crate) fn post(&self, host: &str, who: &str, path: &str, headers: &str, body: &str) -> Answered {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.ask(host, Some(who), &request).unwrap()
    }
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn anonymous(ca: &Path) -> Arc<ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Running {
    fn start(run: impl FnOnce(CancellationToken) + Send + 'static) -> Self {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        Self { shutdown, thread: Some(std::thread::spawn(move || run(token))) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Asks again and again until there is an answer.
#[expect(clippy::disallowed_methods, reason = "a test waits for what another thread does")]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
