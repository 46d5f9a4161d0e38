//! The program `evermq admin`: the endpoint of one host.
//!
//! Without `admin.listen` in the cluster file it serves its control socket only, so that its unit may stand enabled everywhere.
//!
//! Tasks, all on one thread, with the pool of the runtime for what blocks: the control socket, [`Sampler::run`],
//! [`endpoint::serve`]; and for each reading of the file [`Mirror::run`]. They end with their tokens.

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
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::endpoint::{self, Access, Host, InForce};
use crate::local;
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
    let listener = cluster.admin.listen.map(|address| listen::tcp(address, false)).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = Service {
            sampler: Sampler::new(host.name.to_string(), local::programs_of(cluster, host)),
            listen: cluster.admin.listen,
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
        match listener {
            Some(listener) => {
                let address = listener.local_addr()?;
                tracing::info!(listen = %address, "listening");
                tasks.spawn(Arc::clone(&service.sampler).run(shutdown.clone()));
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tasks.spawn(endpoint::serve(listener, shown, shutdown.clone()));
                notify::ready(&format!("status and page at https://{address}"));
            }
            None => {
                tracing::info!(
                    "the cluster file has no admin.listen, so nothing is served; a change of it needs a restart"
                );
                notify::ready("nothing is served: no admin.listen");
            }
        }
        service.reload(asked, in_force, mirror, &shutdown).await;
        notify::stopping();
        tasks.shutdown().await;
        Ok(())
    })
}

struct Service {
    sampler: Arc<Sampler>,
    listen: Option<SocketAddr>,
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
        let (host, listen) = (self.source.host.clone(), self.listen);
        Control {
            state: Arc::new(move || json!({ "program": PROGRAM, "host": host, "listen": listen })),
            health,
            requests: Arc::new(move |name, _| (name == "reload").then(|| control::pass_on("evermq-admin", &ask, Some))),
        }
    }

    async fn reload(
        &self,
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
                Ok((new, restart, tasks)) => {
                    let old = in_force.send_replace(Arc::new(new));
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

    fn read_again(&self) -> anyhow::Result<(InForce, Vec<&'static str>, Running)> {
        let (cluster, host) = self.source.load()?;
        let restart = if cluster.admin.listen == self.listen { Vec::new() } else { vec!["admin.listen"] };
        let (in_force, running) = self.put_in_force(&cluster, &host)?;
        Ok((in_force, restart, running))
    }
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
