//! What admins may have done. Only programs of this host are told: an lb tells the other lbs itself, and a broker all lbs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use evermq_config::Cluster;
use evermq_config::cluster::Host as ConfiguredHost;
use evermq_daemon::control;
use serde::Deserialize;
use serde_json::{Value, json};

/// For the program's answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What this host can do.
#[derive(Debug, Clone)]
pub(super) struct Hands {
    host: String,
    lb: Option<PathBuf>,
    broker: Option<PathBuf>,
    brokers: Vec<String>,
}

/// The body of `POST /api/drain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    broker: String,
    state: State,
    /// Clients to move in a second.
    #[serde(default)]
    rate: Option<u32>,
    /// It will not be back: only the broker itself can say so.
    #[serde(default)]
    moved: bool,
}

/// The body of `POST /api/rebalance`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rebalance {
    /// Clients to move in a second.
    #[serde(default)]
    rate: Option<u32>,
}

/// The program that drains a broker.
enum Drainer<'a> {
    /// The broker itself.
    Broker(&'a PathBuf),
    /// The lb of this host.
    Lb(&'a PathBuf),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Drain,
    Ready,
}

impl Hands {
    pub(super) fn new(cluster: &Cluster, host: &ConfiguredHost) -> Self {
        Self {
            host: host.name.to_string(),
            lb: host.lb.then(|| cluster.run_dir.join("lb.sock")),
            broker: host.broker.then(|| cluster.run_dir.join("broker.sock")),
            brokers: cluster.brokers().map(|host| host.name.to_string()).collect(),
        }
    }

    /// The brokers that can be drained from here.
    pub(super) fn drains(&self) -> &[String] {
        match (&self.lb, &self.broker) {
            (Some(_), _) => &self.brokers,
            (None, Some(_)) => {
                self.brokers.iter().position(|name| *name == self.host).map_or(&[], |at| &self.brokers[at..=at])
            }
            (None, None) => &[],
        }
    }

    /// Begins or ends a drain.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn drain(&self, drain: Drain, operator: &str) -> Result<Value, String> {
        let Drain { broker, state, rate, moved } = drain;
        let drainer = self.drainer(&broker)?;
        let state = match state {
            State::Drain => "drain",
            State::Ready => "ready",
        };
        tracing::info!(operator, broker, state, rate, moved, "an operator drains a broker, or ends it");
        match drainer {
            Drainer::Broker(socket) => {
                ask(socket, json!({ "request": "drain", "state": state, "rate": rate, "moved": moved })).await
            }
            Drainer::Lb(_) if moved => Err(format!("\"moved\" is for the broker to say: ask the host of {broker}")),
            Drainer::Lb(socket) => {
                ask(socket, json!({ "request": "backend", "name": broker, "state": state, "rate": rate })).await
            }
        }
    }

    /// How far a drain is.
    ///
    /// # Errors
    /// Why that is not known, in words.
    pub(super) async fn drained(&self, broker: &str) -> Result<Value, String> {
        match self.drainer(broker)? {
            Drainer::Broker(socket) => ask(socket, json!({ "request": "drain" })).await,
            Drainer::Lb(socket) => ask(socket, json!({ "request": "backend", "name": broker })).await,
        }
    }

    /// Evens out the clients of this host's lb.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) async fn rebalance(&self, wanted: Rebalance, operator: &str) -> Result<Value, String> {
        let lb = self.lb.as_ref().ok_or("this host has no lb, and only an lb evens out: ask an lb host")?;
        tracing::info!(operator, rate = wanted.rate, "an operator has clients evened out");
        ask(lb, json!({ "request": "rebalance", "rate": wanted.rate })).await
    }

    fn drainer(&self, broker: &str) -> Result<Drainer<'_>, String> {
        let is_known = self.brokers.iter().any(|known| known == broker);
        match (&self.lb, &self.broker) {
            _ if !is_known => Err(format!("there is no broker \"{broker}\"; there are: {}", self.brokers.join(", "))),
            (_, Some(own)) if self.host == broker => Ok(Drainer::Broker(own)),
            (Some(lb), _) => Ok(Drainer::Lb(lb)),
            (None, Some(_)) => Err(format!("{0} drains only {0}: ask an lb host for {broker}, or its own", self.host)),
            (None, None) => Err("this host drains nothing: ask an lb host".to_owned()),
        }
    }
}

async fn ask(socket: &Path, request: Value) -> Result<Value, String> {
    let socket = socket.to_owned();
    let asked = tokio::task::spawn_blocking(move || control::request(&socket, &request, TIMEOUT));
    match asked.await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("evermq-admin stops".to_owned()),
    }
}
