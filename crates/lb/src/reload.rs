//! Reads the cluster file again, and puts what it says in force.
//!
//! ```text
//!   SIGHUP, a control request
//!        |
//!      read the file ------ a mistake: WARN, the old one stays; the answer has line and column
//!        |
//!      read certificates, open the access log, bind what comes ---- the same
//!        |
//!      in force: backends, settings, addresses, probes, metrics; from here on nothing can fail
//!        |
//!      addresses that go: their listeners close, their clients stay
//! ```
//!
//! What cannot change while the program runs stays as it was, and is named in a warning.
//!
//! One task, owned by the control thread's set; it ends with its token.

mod plan;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use evermq_config::lb::{Listener, SourceLimits};
use evermq_config::{LbConfig, Report, Severity};
use evermq_daemon::command::{ConfigError, ConfigSource};
use evermq_daemon::control::Reply;
use evermq_daemon::tls::Material;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::plan::{Plan, in_force, plan};
use crate::access_log::{AccessLog, Target};
use crate::desk::{Desk, InForce, clock};
use crate::driver::{self, Room};
use crate::engine::inbox::Order;
use crate::engine::listener;
use crate::engine::worker::Front;
use crate::metrics;
use crate::pool::{Pool, PoolSettings};
use crate::probe::Probes;
use crate::tls::TlsSet;

/// Requests that wait: a person's and a signal's; more ask for nothing else.
pub(crate) const REQUESTS: usize = 16;

/// SIGHUP asks for a reload; more than a few of them at once ask for no more than one.
pub(crate) async fn hang_ups(ask: mpsc::Sender<Option<Reply>>, end: CancellationToken) {
    evermq_daemon::shutdown::on_hang_up(end, || {
        // Where many wait, one that is to come sees the same file.
        let _ = ask.try_send(None);
    })
    .await;
}

/// Reads the file when it is asked to.
pub(crate) struct Reloader {
    pub(crate) source: Option<ConfigSource<LbConfig>>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) probes: Arc<Mutex<Probes>>,
    pub(crate) log: Arc<AccessLog>,
    pub(crate) metrics: metrics::Server,
    /// What descriptors were set apart for at the start.
    pub(crate) room: Room,
    pub(crate) requests: mpsc::Receiver<Option<Reply>>,
    /// What the certificates' files held.
    pub(crate) certificates: u64,
}

/// Everything that could fail, done.
struct Prepared {
    config: LbConfig,
    plan: Plan,
    material: Material,
    tls: Option<TlsSet>,
    certificates: u64,
    log: Target,
    metrics: Option<Option<TcpListener>>,
    /// The sockets of each address that comes, one for each worker.
    bound: Vec<Bound>,
}

/// An address that is listened on already, by sockets that nobody uses yet.
struct Bound {
    listener: Listener,
    /// With a real port.
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// Sockets, and the place of their address.
type Sockets = Vec<(u16, Vec<TcpListener>)>;

impl Reloader {
    /// Until `end`.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        loop {
            let request = tokio::select! {
                () = end.cancelled() => return self.metrics.stop().await,
                request = self.requests.recv() => request,
            };
            let Some(reply) = request else { return self.metrics.stop().await };
            let outcome = self.reload().await;
            if let Err(error) = &outcome {
                for line in error.lines() {
                    tracing::warn!(problem = line, "the cluster file is not in force; the one before is");
                }
            }
            self.desk.change(|in_force| {
                in_force.refused = outcome.as_ref().err().cloned();
                match &outcome {
                    Ok(_) => in_force.reloads.done += 1,
                    Err(_) => in_force.reloads.refused += 1,
                }
            });
            if let Some(reply) = reply {
                // Whoever asked may have left.
                let _ = reply.send(outcome);
            }
        }
    }

    async fn reload(&mut self) -> Result<Value, String> {
        let prepared = self.prepare().await?;
        let done = self.put_in_force(prepared)?;
        // Orders are taken one after the other, so all are in force once the workers have answered.
        if let Err(error) = self.desk.settled().await {
            tracing::warn!(%error, "the cluster file will be in force there when it does");
        }
        Ok(done)
    }

    /// Does all that may fail. Reading blocks, so it is done elsewhere.
    async fn prepare(&mut self) -> Result<Prepared, String> {
        let Some(source) = self.source.take() else {
            return Err("this lb was not made from a file".to_owned());
        };
        let read = tokio::task::spawn_blocking(move || {
            let read = read(&source);
            (source, read)
        });
        let (source, read) = read.await.map_err(|error| format!("the file could not be read: {error}"))?;
        self.source = Some(source);
        let Read { config, material, tls, certificates, log } = read?;
        let old = self.desk.in_force();
        let plan = plan(&old.config, &config);
        let metrics = if old.config.lb.metrics == config.lb.metrics {
            None
        } else {
            let bound = config.lb.metrics.map(evermq_daemon::metrics::bind).transpose();
            Some(bound.map_err(|error| error.to_string())?)
        };
        let mut bound = Vec::new();
        for listener in &plan.come {
            let options = driver::socket_options(&config);
            let lowest = self.room.listeners_from;
            let sockets = listener::bind(listener.address, self.desk.workers.len(), options, lowest, Vec::new());
            let (address, sockets) =
                sockets.map_err(|error| format!("[[lb.listeners]] \"{}\": {error}", listener.name))?;
            bound.push(Bound { listener: listener.clone(), address, sockets });
        }
        Ok(Prepared { config, plan, material, tls, certificates, log, metrics, bound })
    }

    fn put_in_force(&mut self, prepared: Prepared) -> Result<Value, String> {
        let Prepared { config, mut plan, material, tls, certificates, log, metrics, bound } = prepared;
        let old = self.desk.in_force();
        if let Some(peers) = &self.desk.peers {
            peers.renew(config.lb.reconnect_rate, &material).map_err(|error| error.to_string())?;
        }
        let (pool, gone) = old.pool.renewed(&config.backends, &PoolSettings::of(&config.lb));
        let pool = Arc::new(pool);
        let settings =
            driver::settings(&config, &pool, self.desk.workers.len(), tls).map_err(|error| error.to_string())?;
        self.probes().apply(&pool, &config, &material).map_err(|error| error.to_string())?;

        let limit = self.room.connections.min(config.lb.max_connections);
        let raised = config.lb.max_connections > old.config.lb.max_connections;
        if raised && limit < config.lb.max_connections {
            plan.restart.push("lb.max_connections, above what descriptors were set apart for at the start");
        }
        let (fronts, places, sockets) = fronts(&old, &plan, bound, &pool);
        let source = config.lb.source;
        let config = Arc::new(in_force(&old.config, config));
        self.desk.change(|now| {
            (now.config, now.pool) = (config, Arc::clone(&pool));
            (now.fronts, now.places) = (Arc::clone(&fronts), places);
        });
        self.desk.apply_words();
        let settings = Arc::new(settings);
        self.desk.order(|| Order::Pool(Arc::clone(&pool)));
        self.desk.order(|| Order::Settings(Arc::clone(&settings)));
        self.desk.order(|| Order::Fronts(Arc::clone(&fronts)));
        self.set_limits(limit, source);
        self.listen(&old, &plan, sockets);
        // Their clients find the generation changed, and leave.
        for member in &gone {
            member.set_standing(crate::backend::Standing::Down, clock());
        }
        if !gone.is_empty() {
            self.desk.order(|| Order::Sweep);
        }
        self.log.turn_to(log);
        if let Some(metrics) = metrics {
            self.metrics.turn_to(metrics, &self.desk);
        }
        let certificates_changed = std::mem::replace(&mut self.certificates, certificates) != certificates;
        Ok(self.say(&plan, certificates_changed))
    }

    fn probes(&self) -> std::sync::MutexGuard<'_, Probes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_limits(&self, limit: usize, source: SourceLimits) {
        if let Some(worker) = self.desk.workers.first() {
            worker.sources.set_limits(source);
            worker.gate.admission.set_limit(limit);
            // Whoever waits looks again.
            self.desk.order(|| Order::Room);
        }
    }

    fn listen(&self, old: &InForce, plan: &Plan, sockets: Sockets) {
        for (front, sockets) in sockets {
            for (worker, socket) in self.desk.workers.iter().zip(sockets) {
                worker.inbox.post(Order::Listen(socket, front));
            }
        }
        for listener in &plan.go {
            if let Some(front) = place_of(old, listener).and_then(|place| u16::try_from(place).ok()) {
                self.desk.order(|| Order::Unlisten(front));
            }
        }
    }

    fn say(&self, plan: &Plan, certificates_changed: bool) -> Value {
        for key in &plan.restart {
            tracing::warn!(key, "changed in the cluster file, and needs a restart of evermq-lb");
        }
        let changed = !plan.is_empty() || certificates_changed;
        if changed {
            let applied = plan.applied.join("; ");
            tracing::info!(applied, certificates = certificates_changed, "the cluster file is in force");
        } else {
            tracing::info!("the cluster file says nothing else for this host");
        }
        json!({
            "host": self.desk.host(),
            "changed": changed,
            "applied": plan.applied,
            "certificates": certificates_changed,
            "restart": plan.restart,
        })
    }
}

/// The addresses as they will be: those that stay and those that have gone keep their places, since connections know them
/// by these.
fn fronts(old: &InForce, plan: &Plan, bound: Vec<Bound>, pool: &Pool) -> (Arc<[Front]>, Places, Sockets) {
    let (mut fronts, mut places) = (old.fronts.to_vec(), old.places.to_vec());
    let mut sockets = Vec::new();
    for listener in &plan.go {
        if let Some(place) = place_of(old, listener) {
            places[place] = None;
        }
    }
    for (before, after) in &plan.change {
        if let (Some(place), Some(group)) = (place_of(old, before), pool.group(&after.group)) {
            fronts[place] =
                Front { name: after.name.as_str().into(), mode: after.mode, group, ..fronts[place].clone() };
            places[place] = Some(after.clone());
        }
    }
    for Bound { listener, address, sockets: bound } in bound {
        let (Some(group), Ok(place)) = (pool.group(&listener.group), u16::try_from(fronts.len())) else { continue };
        fronts.push(Front::new(&listener, address, group));
        places.push(Some(listener));
        sockets.push((place, bound));
    }
    (fronts.into(), places.into(), sockets)
}

fn place_of(old: &InForce, listener: &Listener) -> Option<usize> {
    old.places.iter().position(|place| place.as_ref().is_some_and(|place| place.address == listener.address))
}

/// What the file says of each address; see [`InForce`].
type Places = Arc<[Option<Listener>]>;

/// What was read.
struct Read {
    config: LbConfig,
    material: Material,
    tls: Option<TlsSet>,
    certificates: u64,
    log: Target,
}

fn read(source: &ConfigSource<LbConfig>) -> Result<Read, String> {
    let (config, warnings) = source.load().map_err(|error| match error {
        ConfigError::File(report) => errors(&report),
        error @ ConfigError::Role { .. } => error.to_string(),
    })?;
    for warning in &warnings.problems {
        tracing::warn!(%warning, "cluster file");
    }
    let material = Material::load(&config.tls).map_err(|error| error.to_string())?;
    // Whether certificate and key belong together; what is made of them later cannot fail.
    material.server_config().map_err(|error| error.to_string())?;
    let tls = TlsSet::load(&config).map_err(|error| error.to_string())?;
    let log = Target::open(&config.lb.access_log).map_err(|error| error.to_string())?;
    Ok(Read { certificates: fingerprint(&config), material, tls, log, config })
}

/// The errors of a report, each on lines of its own.
fn errors(report: &Report) -> String {
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error).cloned();
    Report { problems: errors.collect() }.to_string()
}

/// What the files of certificates hold, as far as it matters whether they have changed. One that cannot be read is somebody
/// else's matter.
pub(crate) fn fingerprint(config: &LbConfig) -> u64 {
    let mut hash = DefaultHasher::new();
    let tls = &config.lb.tls;
    let own = [&config.tls.ca, &config.tls.cert, &config.tls.key];
    let more = tls.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    for path in own.into_iter().chain(more).chain(&tls.client_ca).chain(&tls.crl) {
        read_into(path, &mut hash);
    }
    if config.lb.listeners.iter().any(|listener| listener.mode.terminates()) {
        read_into(&tls.ticket_key, &mut hash);
    }
    hash.finish()
}

fn read_into(path: &Path, hash: &mut DefaultHasher) {
    std::fs::read(path).ok().hash(hash);
}
