//! What admins may have done. Only programs of this host are told: an lb tells the other lbs itself.

use std::path::PathBuf;
use std::sync::Arc;
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
    pub(super) async fn drain(self: Arc<Self>, drain: Drain, operator: &str) -> Result<Value, String> {
        if !self.drains().contains(&drain.broker) {
            let from_here = self.drains().join(", ");
            let known = self.brokers.contains(&drain.broker);
            return Err(match (known, from_here.is_empty()) {
                (false, _) => {
                    format!("there is no broker \"{}\"; there are: {}", drain.broker, self.brokers.join(", "))
                }
                (true, true) => "this host drains nothing: ask an lb host".to_owned(),
                (true, false) => format!("{} drains only {from_here}: ask an lb host for {}", self.host, drain.broker),
            });
        }
        let state = match drain.state {
            State::Drain => "drain",
            State::Ready => "ready",
        };
        tracing::info!(
            operator,
            broker = drain.broker,
            state,
            rate = drain.rate,
            "an operator drains a broker, or ends it"
        );
        let (socket, request) = match (&self.lb, &self.broker) {
            (Some(lb), _) => {
                (lb, json!({ "request": "backend", "name": drain.broker, "state": state, "rate": drain.rate }))
            }
            (None, Some(broker)) => (broker, json!({ "request": "drain", "state": state, "rate": drain.rate })),
            (None, None) => return Err("this host drains nothing: ask an lb host".to_owned()),
        };
        let socket = socket.clone();
        let asked = tokio::task::spawn_blocking(move || control::request(&socket, &request, TIMEOUT));
        match asked.await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("evermq-admin stops".to_owned()),
        }
    }
}
