//! Reads the cluster file again, with all that it names, and puts it in force.
//!
//! ```text
//!   SIGHUP, a control request
//!        |
//!      read the file, certificates, revocation lists, passwords, rules
//!        |                \__ a mistake: WARN, the old ones stay; the answer has file, line and column
//!      in force for who comes from now on; nothing can fail any more
//!        |
//!      live sessions: rules replaced; who would not get in now is closed
//! ```
//!
//! What cannot change while the program runs stays as it was, and is named in a warning.
//!
//! One task of the caller's runtime, owned by the driver; it ends with its token.

mod plan;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evermq_bridge::{Bridge, PeersChanged};
use evermq_config::broker::Broker;
use evermq_config::{BrokerConfig, Report, Severity};
use evermq_daemon::command::{ConfigError, ConfigSource};
use evermq_daemon::control::{self, Reply, Requests};
use evermq_daemon::tls::Material;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::plan::{Plan, in_force, plan};
use crate::auth;
use crate::auth::access::InForce;
use crate::auth::tls::{Configs, Doors};
use crate::bridges::prepared::{self, Prepared};
use crate::bridges::table::{self, Table};
use crate::broker::{AccessApplied, Broker as Sessions};
use crate::connection::clock;
use crate::listener::conditions::{self, Conditions};
use crate::places::Places;
use crate::rate::Rates;
use crate::retained;
use crate::session::Limits;

/// Requests that wait: a person's and a signal's; more ask for nothing else.
pub const REQUESTS: usize = 16;

/// Asks for a reload; what became of it comes back.
pub type Ask = mpsc::Sender<Option<Reply>>;

/// The other end.
pub type Asked = mpsc::Receiver<Option<Reply>>;

/// Reads the file when it is asked to.
pub struct Reloader {
    /// The file; none where the broker was not made from one.
    pub source: Option<ConfigSource<BrokerConfig>>,
    /// What is in force.
    pub config: BrokerConfig,
    /// Sessions, and who may have one.
    pub broker: Arc<Sessions>,
    /// Certificates of the listeners.
    pub doors: Arc<Doors>,
    /// How many may come.
    pub places: Arc<Places>,
    /// What holds for who comes.
    pub conditions: conditions::Shared,
    /// Threads that receive connections.
    pub workers: usize,
    /// How often `$SYS` topics are published.
    pub sys_interval: watch::Sender<Option<Duration>>,
    /// The other brokers, and certificates towards them.
    pub bridge: Arc<Bridge>,
    /// Bridges to brokers that are not of the cluster.
    pub bridges: Arc<Table>,
    /// What the files held.
    pub files: u64,
}

/// Everything that could fail, done.
struct Read {
    config: BrokerConfig,
    material: Material,
    configs: Configs,
    access: InForce,
    bridges: Vec<Prepared>,
    files: u64,
}

impl Reloader {
    /// Until `end`.
    pub async fn run(mut self, mut requests: Asked, end: CancellationToken) {
        loop {
            let request = tokio::select! {
                () = end.cancelled() => return,
                request = requests.recv() => request,
            };
            let Some(reply) = request else { return };
            let outcome = self.reload().await;
            if let Err(error) = &outcome {
                for line in error.lines() {
                    tracing::warn!(problem = line, "the cluster file is not in force; the one before is");
                }
            }
            if let Some(reply) = reply {
                // Whoever asked may have left.
                let _ = reply.send(outcome);
            }
        }
    }

    async fn reload(&mut self) -> Result<Value, String> {
        let Some(source) = self.source.take() else {
            return Err("this broker was not made from a file".to_owned());
        };
        // Reading blocks.
        let read = tokio::task::spawn_blocking(move || {
            let read = read(&source);
            (source, read)
        });
        let (source, read) = read.await.map_err(|error| format!("the file could not be read: {error}"))?;
        self.source = Some(source);
        let done = self.put_in_force(read?);
        self.bridges.settled().await;
        done
    }

    fn put_in_force(&mut self, read: Read) -> Result<Value, String> {
        let Read { config, material, configs, access, bridges, files } = read;
        let plan = plan(&self.config, &config);
        let next = in_force(&self.config, config.clone());
        let peers = self.bridge.reload(&material, &next.peers).map_err(|error| error.to_string())?;
        self.doors.replace(configs);
        self.put_limits_in_force(&config.broker);
        self.bridges.replace(&self.broker, bridges);
        self.broker.access.replace(access);
        // After that nobody comes in by the old rules, so everybody who did is found.
        let applied = self.broker.apply_access(clock());
        let files_changed = std::mem::replace(&mut self.files, files) != files;
        self.config = next;
        Ok(self.say(&plan, files_changed, applied, &peers))
    }

    fn put_limits_in_force(&self, broker: &Broker) {
        self.places.set_limits(broker.admission);
        self.conditions.store(Arc::new(Conditions::new(broker, self.workers)));
        self.broker.rates.set(Rates::new(&broker.admission));
        self.broker.router.set_retained_bounds(retained::Bounds::new(broker));
        self.broker.set_limits(Limits::new(broker));
        self.sys_interval
            .send_if_modified(|interval| std::mem::replace(interval, broker.sys_interval) != broker.sys_interval);
    }

    fn say(&self, plan: &Plan, files_changed: bool, access: AccessApplied, peers: &PeersChanged) -> Value {
        let AccessApplied { closed, withdrawn } = access;
        for (key, reason) in &plan.restart {
            tracing::warn!(key, reason, "changed in the cluster file, and needs a restart of evermq-broker");
        }
        let keys: Vec<_> = plan.restart.iter().map(|(key, _)| *key).collect();
        let why: serde_json::Map<String, Value> =
            plan.restart.iter().map(|(key, reason)| ((*key).to_owned(), (*reason).into())).collect();
        let changed = !plan.is_empty() || files_changed;
        if changed {
            let applied = plan.applied.join("; ");
            tracing::info!(applied, files = files_changed, closed, withdrawn, "the cluster file is in force");
        } else {
            tracing::info!("the cluster file says nothing else for this host");
        }
        json!({
            "host": self.config.host.as_str(),
            "changed": changed,
            "applied": plan.applied,
            "files": files_changed,
            "closed": closed,
            "withdrawn": withdrawn,
            "peers": { "joined": peers.joined, "left": peers.left, "moved": peers.moved },
            "restart": keys,
            "why": why,
        })
    }
}

/// Answers `reload`, and leaves all else to `others`.
#[must_use]
pub fn requests(ask: Ask, others: Requests) -> Requests {
    Arc::new(move |name, request| match name {
        "reload" => Some(control::pass_on("evermq-broker", &ask, Some)),
        _ => others(name, request),
    })
}

fn read(source: &ConfigSource<BrokerConfig>) -> Result<Read, String> {
    let (config, warnings) = source.load().map_err(|error| match error {
        ConfigError::File(report) => errors(&report),
        error @ ConfigError::Role { .. } => error.to_string(),
    })?;
    let material = auth::material(&config).map_err(|error| error.to_string())?;
    let configs = Configs::new(&material).map_err(|error| error.to_string())?;
    let revocations = Arc::clone(material.revocations());
    let (access, more) = InForce::load(&config.broker, revocations).map_err(|error| error.to_string())?;
    let bridges = table::load(&config.bridges).map_err(|error| error.to_string())?;
    for warning in warnings.problems.iter().chain(&more.problems) {
        tracing::warn!(%warning, "cluster file");
    }
    Ok(Read { files: fingerprint(&config), config, material, configs, access, bridges })
}

/// The errors of a report, each on lines of its own.
fn errors(report: &Report) -> String {
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error).cloned();
    Report { problems: errors.collect() }.to_string()
}

/// What the files hold that the cluster file names, as far as it matters whether they have changed.
#[must_use]
pub fn fingerprint(config: &BrokerConfig) -> u64 {
    let mut hash = DefaultHasher::new();
    let (tls, auth) = (&config.tls, &config.broker.auth);
    let paths = [&tls.ca, &tls.cert, &tls.key].into_iter().chain(&auth.password_file).chain(&auth.acl_file);
    let of_bridges = config.bridges.iter().flat_map(prepared::paths);
    for path in paths.chain(&auth.crl).map(PathBuf::as_path).chain(of_bridges) {
        // One that cannot be read is somebody else's matter.
        path.hash(&mut hash);
        std::fs::read(path).ok().hash(&mut hash);
    }
    hash.finish()
}
