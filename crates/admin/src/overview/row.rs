//! One host in a row.

use evermq_daemon::health::Health;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{CERTIFICATE_SOON, Look, PlannedHost};
use crate::report::{HostReport, ProgramReport, Rates};

/// What is shown of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name.
    pub host: String,
    /// Its address.
    pub address: String,
    /// `lb`, `broker`.
    pub roles: Vec<String>,
    /// `up`, `degraded`, `down`, `silent` or `not asked`.
    pub state: String,
    /// Clients at its lb.
    pub lb_connections: Option<u64>,
    /// Clients at its broker.
    pub broker_connections: Option<u64>,
    /// Messages in a second, of its broker.
    pub rates: Option<Rates>,
    /// What other brokers have not got of it.
    pub lag: Option<Lag>,
    /// What its lb knows of the brokers.
    pub backends: Vec<Backend>,
    /// What its broker knows of the others.
    pub peers: Vec<Peer>,
    /// What its broker says of itself: `ready`, `not ready`, `draining`.
    pub readiness: Option<String>,
    /// Every version that its programs have: one, if all is well.
    pub versions: Vec<String>,
    /// Days until its certificate ends.
    pub certificate_days: Option<i64>,
    /// What needs a hand, the worst first.
    pub notes: Vec<String>,
}

/// What other brokers have not got of one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Messages, to the broker that is furthest behind.
    pub messages: u64,
    /// Age in seconds of the oldest of them.
    pub seconds: f64,
    /// Brokers that are linked both ways.
    pub linked: usize,
    /// Brokers that there are besides.
    pub peers: usize,
}

/// A broker, as an lb sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name.
    pub name: String,
    /// `up`, `down` and others.
    pub state: String,
    /// What operators say of it: `ready`, `drain`, `maint`.
    pub admin: String,
    /// Clients that this lb has given it.
    pub connections: u64,
}

/// A broker, as another one sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Whether messages go both ways.
    pub linked: bool,
    /// Messages that it has not got.
    pub lag: u64,
    /// Age in seconds of the oldest of them.
    pub lag_seconds: f64,
}

impl Row {
    pub(super) fn new(plan: &PlannedHost, look: &Look, now_ms: u64) -> Self {
        let mut row = Self {
            host: plan.name.clone(),
            address: plan.address.clone(),
            roles: [(plan.lb, "lb"), (plan.broker, "broker")]
                .into_iter()
                .filter(|(has, _)| *has)
                .map(|(_, role)| role.to_owned())
                .collect(),
            state: String::new(),
            lb_connections: None,
            broker_connections: None,
            rates: None,
            lag: None,
            backends: Vec::new(),
            peers: Vec::new(),
            readiness: None,
            versions: Vec::new(),
            certificate_days: None,
            notes: Vec::new(),
        };
        match look {
            Look::Said(report) => row.fill(report, now_ms),
            Look::Silent(why) => {
                row.state = "silent".to_owned();
                row.notes.push(why.clone());
            }
            Look::NotAsked(why) => {
                row.state = "not asked".to_owned();
                row.notes.push(why.clone());
            }
        }
        row
    }

    fn fill(&mut self, report: &HostReport, now_ms: u64) {
        self.state = crate::report::word(report.health).to_owned();
        for program in &report.programs {
            if let Some(error) = &program.error {
                self.notes.push(format!("{}: {error}", program.program));
            }
            if let Some(about) = &program.about {
                if !self.versions.contains(&about.version) {
                    self.versions.push(about.version.clone());
                }
                let days = about.certificate_until.map(|until| days_until(until, now_ms));
                self.certificate_days = [self.certificate_days, days].into_iter().flatten().min();
            }
            match program.program.as_str() {
                "evermq-vip" => self.vip(program),
                "evermq-lb" => self.lb(program),
                "evermq-broker" => self.broker(program),
                _ => {}
            }
            if let Some(text) = program.state["not_in_force"].as_str().or(program.state["config"]["error"].as_str()) {
                self.notes.push(format!("{}: the cluster file is not in force: {text}", program.program));
            }
        }
        if let Some(days) = self.certificate_days.filter(|days| *days < CERTIFICATE_SOON) {
            self.notes.push(match days {
                ..0 => "its certificate has ended".to_owned(),
                days => format!("its certificate ends in {days} days"),
            });
        }
    }

    fn vip(&mut self, program: &ProgramReport) {
        let state = &program.state;
        if program.error.is_none() && program.health != Health::Up {
            let reason = state["reason"].as_str().unwrap_or("it does not say why");
            self.notes.push(format!("may not hold the VIP, or only as the last: {reason}"));
        }
    }

    fn lb(&mut self, program: &ProgramReport) {
        let state = &program.state;
        self.lb_connections = state["connections"]["current"].as_u64();
        let Some(backends) = state["backends"].as_array() else { return };
        for backend in backends {
            let [name, state, admin] = ["name", "state", "admin"].map(|key| text(&backend[key]));
            match (admin.as_str(), state.as_str()) {
                ("ready", "up" | "unproven") => {}
                ("ready", _) => {
                    let why = backend["last_error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
                    self.notes.push(format!("{name} is {state}{why}"));
                }
                ("drain", _) => self.notes.push(format!("drains {name}")),
                _ => self.notes.push(format!("{name} is in state {admin}")),
            }
            let connections = backend["connections"].as_u64().unwrap_or(0);
            self.backends.push(Backend { name, state, admin, connections });
        }
    }

    fn broker(&mut self, program: &ProgramReport) {
        let state = &program.state;
        // The lbs' standing sessions are no clients.
        let lbs = state["lbs"].as_u64().unwrap_or(0);
        self.broker_connections = state["connections"].as_u64().map(|connections| connections.saturating_sub(lbs));
        self.rates = program.rates;
        if let Some(trouble) = state["trouble"].as_str() {
            self.notes.push(trouble.to_owned());
        } else if let Some(readiness) = state["readiness"].as_str().filter(|word| *word != "ready") {
            self.notes.push(format!("is {readiness}"));
        }
        self.readiness = state["readiness"].as_str().map(str::to_owned);
        let Some(peers) = state["bridge"]["peers"].as_array() else { return };
        for peer in peers {
            let name = text(&peer["name"]);
            let linked = peer["connected"] == true && peer["receiving"] == true;
            if !linked {
                self.notes.push(format!("not linked with {name}"));
            }
            let (lag, lag_seconds) = (peer["lag"].as_u64().unwrap_or(0), peer["lag_seconds"].as_f64().unwrap_or(0.0));
            self.peers.push(Peer { name, linked, lag, lag_seconds });
        }
        self.lag = Some(Lag {
            messages: self.peers.iter().map(|peer| peer.lag).max().unwrap_or(0),
            seconds: self.peers.iter().map(|peer| peer.lag_seconds).fold(0.0, f64::max),
            linked: self.peers.iter().filter(|peer| peer.linked).count(),
            peers: self.peers.len(),
        });
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn days_until(until: i64, now_ms: u64) -> i64 {
    (until - i64::try_from(now_ms / 1000).unwrap_or(i64::MAX)).div_euclid(86_400)
}
