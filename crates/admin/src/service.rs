//! The program `evermq admin`: the endpoint of one host.
//!
//! Without `admin.listen` in the cluster file it serves its control socket only, so that its unit may stand enabled everywhere.
//!
//! Tasks, all on one thread, with the pool of the runtime for what blocks: the control socket, [`endpoint::serve`]; as long as
//! it is served [`Sampler::run`]; and for each reading of the file [`Mirror::run`]. They end with their tokens or their sets.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use evermq_config::Cluster;
use evermq_config::broker::ClientCertificates;
use evermq_config::cluster::Host as ConfiguredHost;
use evermq_daemon::control::{self, Control};
use evermq_daemon::health::Health;
use evermq_daemon::tls::Material;
use evermq_daemon::{listen, notify, shutdown};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::endpoint::{self, Access, Host, InForce};
use crate::local::{self, Program};
use crate::mirror::{Mirror, Way};
use crate::overview::Plan;
use crate::remote::Door;
use crate::sampler::Sampler;
use crate::{CONTROL_SOCKET, PROGRAM};

/// Requests to read the file again that may wait.
const RELOADS: usize = 8;

type Reload = Option<control::Reply>;

/// Where the cluster file is, and which host of it this one is.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The host's name.
    pub host: String,
}

impl Source {
    /// Reads the file.
    ///
    /// # Errors
    /// Every mistake of it, or it has no such host.
    pub fn load(&self) -> anyhow::Result<(Cluster, ConfiguredHost)> {
        let cluster = evermq_config::load(&self.path)?.cluster;
        let host = cluster.hosts.iter().find(|host| host.name.as_str() == self.host).cloned();
        let host = host.with_context(|| {
            let known: Vec<_> = cluster.hosts.iter().map(|host| host.name.as_str()).collect();
            format!("host \"{}\" is not in the cluster file (its hosts: {})", self.host, known.join(", "))
        })?;
        Ok((cluster, host))
    }
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// As [`serve`].
pub fn run(source: Source, cluster: &Cluster, host: &ConfiguredHost) -> anyhow::Result<()> {
    serve(source, cluster, host, shutdown::on_signal()?)
}

/// Serves until `shutdown`.
///
/// # Errors
/// A certificate, the control socket or the address cannot be used.
pub fn serve(
    source: Source,
    cluster: &Cluster,
    host: &ConfiguredHost,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let control = control::bind(&cluster.run_dir.join(CONTROL_SOCKET))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (listening, listeners) = watch::channel(bind(cluster.admin.listen)?);
        let programs = programs_of(cluster, host);
        let mut service = Service {
            sampler: Sampler::new(host.name.to_string(), programs.clone()),
            programs,
            listen: cluster.admin.listen,
            listening,
            sampling: JoinSet::new(),
            source,
        };
        let (in_force, mirror) = service.put_in_force(cluster, host)?;
        let (in_force, shown) = watch::channel(Arc::new(in_force));
        let mut tasks = JoinSet::new();
        let (ask, asked) = mpsc::channel(RELOADS);
        tasks.spawn(shutdown::on_hang_up(shutdown.clone(), {
            let ask = ask.clone();
            move || drop(ask.try_send(None))
        }));
        let (_health, health) = watch::channel(Health::Up);
        let served = serve_control(control, service.control(ask, health), shutdown.clone());
        tasks.spawn(served);
        tasks.spawn(endpoint::serve(listeners, shown, shutdown.clone()));
        service.sample(&shutdown);
        service.say_where();
        notify::ready(&service.status());
        service.reload(asked, in_force, mirror, &shutdown).await;
        notify::stopping();
        tasks.shutdown().await;
        Ok(())
    })
}

type Listener = Option<Arc<TcpListener>>;

/// Beside a socket that this process listens with on an address that covers the new one, or is covered by it: the old one is
/// closed after that.
fn bind(address: Option<SocketAddr>) -> anyhow::Result<Listener> {
    let listener = address.map(|address| listen::tcp(address, true)).transpose()?;
    Ok(listener.map(TcpListener::from_std).transpose()?.map(Arc::new))
}

/// The programs that are asked.
fn programs_of(cluster: &Cluster, host: &ConfiguredHost) -> Vec<Program> {
    let programs = local::programs_of(cluster, host);
    programs.into_iter().filter(|program| program.name != PROGRAM).collect()
}

struct Service {
    sampler: Arc<Sampler>,
    programs: Vec<Program>,
    /// As the file in force has it.
    listen: Option<SocketAddr>,
    listening: watch::Sender<Listener>,
    sampling: JoinSet<()>,
    source: Source,
}

/// What runs for one reading of the file.
type Running = JoinSet<()>;

impl Service {
    fn put_in_force(&self, cluster: &Cluster, host: &ConfiguredHost) -> anyhow::Result<(InForce, Running)> {
        let access = Access::new(cluster);
        let mirror = Mirror::new(Plan::new(cluster), Arc::clone(&self.sampler));
        let over = CancellationToken::new();
        let mut running = JoinSet::new();
        let material = Material::load(&cluster.tls.for_host(&host.name))?.revoking(
            "broker.auth.crl",
            &cluster.broker.auth.crl,
            wall_clock(),
        )?;
        let clients =
            if access.needs_certificate() { ClientCertificates::Required } else { ClientCertificates::Optional };
        let acceptor = TlsAcceptor::from(material.server_config_for(clients)?);
        if cluster.admin.listen.is_some() {
            let ways = cluster.hosts.iter().map(|other| way(cluster, host, other, &material));
            let ways = ways.collect::<Result<Vec<_>, _>>()?;
            running.spawn(Arc::clone(&mirror).run(ways, over.clone()));
        }
        let host = Arc::new(Host::new(cluster, host, Arc::clone(&self.sampler), mirror));
        Ok((InForce { access, acceptor, host, over }, running))
    }

    fn control(&self, ask: mpsc::Sender<Reload>, health: watch::Receiver<Health>) -> Control {
        let (host, listening) = (self.source.host.clone(), self.listening.subscribe());
        let sampler = Arc::clone(&self.sampler);
        Control {
            state: Arc::new(move || {
                let listen = address_of(&listening.borrow());
                json!({ "program": PROGRAM, "host": host, "listen": listen, "programs": sampler.conditions() })
            }),
            health,
            requests: Arc::new(move |name, _| (name == "reload").then(|| control::pass_on(PROGRAM, &ask, Some))),
        }
    }

    /// The programs are asked as long as somebody may ask for it here.
    fn sample(&mut self, shutdown: &CancellationToken) {
        match (self.listen, self.sampling.is_empty()) {
            (Some(_), true) => drop(self.sampling.spawn(Arc::clone(&self.sampler).run(shutdown.clone()))),
            (None, false) => self.sampling = JoinSet::new(),
            _ => {}
        }
    }

    fn say_where(&self) {
        match address_of(&self.listening.borrow()) {
            Some(address) => tracing::info!(listen = %address, "listening"),
            None => tracing::info!("the cluster file has no admin.listen, so nothing is served"),
        }
    }

    fn status(&self) -> String {
        let address = address_of(&self.listening.borrow());
        address.map_or_else(
            || "nothing is served: no admin.listen".to_owned(),
            |address| format!("status and page at https://{address}"),
        )
    }

    async fn reload(
        &mut self,
        mut asked: mpsc::Receiver<Reload>,
        in_force: watch::Sender<Arc<InForce>>,
        mut running: Running,
        shutdown: &CancellationToken,
    ) {
        loop {
            let reply = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(reply) = asked.recv() => reply,
            };
            let outcome = match self.read_again() {
                Ok(New { in_force: new, running: tasks, restart, listen, listener }) => {
                    // Who connects from now on comes to the new one, and is judged by the new file.
                    let old = in_force.send_replace(Arc::new(new));
                    if let Some(listener) = listener {
                        self.listen = listen;
                        self.listening.send_replace(listener);
                        self.sample(shutdown);
                        self.say_where();
                        notify::status(&self.status());
                    }
                    old.over.cancel();
                    drop(std::mem::replace(&mut running, tasks));
                    tracing::info!("the cluster file is in force");
                    Ok(json!({ "host": self.source.host, "changed": true, "restart": restart }))
                }
                Err(error) => {
                    let problem = format!("{error:#}");
                    tracing::warn!(problem, "the cluster file is not in force; the one before is");
                    Err(problem)
                }
            };
            // Whoever asked may have gone.
            let _ = reply.map(|reply| reply.send(outcome));
        }
    }

    fn read_again(&self) -> anyhow::Result<New> {
        let (cluster, host) = self.source.load()?;
        let listen = cluster.admin.listen;
        let listener = if listen == self.listen { None } else { Some(bind(listen)?) };
        let (in_force, running) = self.put_in_force(&cluster, &host)?;
        let restart = if programs_of(&cluster, &host) == self.programs {
            Vec::new()
        } else {
            vec!["cluster.run_dir, or the programs of this host"]
        };
        Ok(New { in_force, running, restart, listen, listener })
    }
}

/// What a reload brings.
struct New {
    in_force: InForce,
    running: Running,
    restart: Vec<&'static str>,
    listen: Option<SocketAddr>,
    /// Where another address is listened on, or none any more.
    listener: Option<Listener>,
}

fn address_of(listener: &Listener) -> Option<SocketAddr> {
    listener.as_ref().and_then(|listener| listener.local_addr().ok())
}

fn way(
    cluster: &Cluster,
    own: &ConfiguredHost,
    other: &ConfiguredHost,
    material: &Material,
) -> Result<Way, evermq_daemon::tls::TlsError> {
    match cluster.admin.of_host(other) {
        Some(address) if other.name != own.name => {
            let config = material.client_config_for(&other.name, IpAddr::V4(other.address))?;
            Ok(Way::Door(Door::new(other.name.clone(), address, config)))
        }
        _ => Ok(Way::Own),
    }
}

async fn serve_control(listener: std::os::unix::net::UnixListener, control: Control, shutdown: CancellationToken) {
    if let Err(error) = control::serve(listener, control, shutdown).await {
        tracing::error!(%error, "the control socket does not answer any more");
    }
}

#[expect(clippy::disallowed_methods, reason = "a revocation list is valid by wall time")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
