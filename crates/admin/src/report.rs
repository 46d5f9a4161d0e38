//! What a host says of itself: its programs' health and state, as their control sockets tell it, and what they have said
//! lately.

use std::path::PathBuf;

use evermq_daemon::health::Health;
use evermq_daemon::process::About;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::Said;

/// How a host is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// Its name.
    pub host: String,
    /// When this was so, in milliseconds since 1970, by its own clock.
    pub time_ms: u64,
    /// The worst of its programs.
    pub health: Health,
    /// The programs that its roles call for.
    pub programs: Vec<ProgramReport>,
}

/// How a program is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Its name.
    pub program: String,
    /// Its control socket.
    pub socket: PathBuf,
    /// As it says; down where it does not answer.
    pub health: Health,
    /// What it shows on its control socket; null where it does not answer.
    pub state: Value,
    /// Its process; none where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Of a broker that is asked again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rates: Option<Rates>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Messages in a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// From clients of this broker.
    #[serde(rename = "in")]
    pub received: f64,
    /// To them.
    #[serde(rename = "out")]
    pub sent: f64,
}

/// What a host's endpoint answers: how it is, and what its programs have said since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostAnswer {
    /// How the host is.
    pub report: HostReport,
    /// When the endpoint's process began, in milliseconds since 1970: another one's numbers begin anew.
    pub process: u64,
    /// The number of the last line there is.
    pub last: u64,
    /// Lines after the one that was named, the oldest first.
    pub events: Vec<Said>,
}

impl HostReport {
    /// Of the programs' reports.
    #[must_use]
    pub fn new(host: String, time_ms: u64, programs: Vec<ProgramReport>) -> Self {
        let health = programs.iter().map(|program| program.health).max_by_key(|health| badness(*health));
        Self { host, time_ms, health: health.unwrap_or(Health::Up), programs }
    }

    /// The report of one program.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<&ProgramReport> {
        self.programs.iter().find(|program| program.program == name)
    }
}

/// Which of two is worse.
#[must_use]
pub const fn badness(health: Health) -> u8 {
    match health {
        Health::Up => 0,
        Health::Degraded => 1,
        Health::Down => 2,
    }
}

/// As it is shown.
#[must_use]
pub const fn word(health: Health) -> &'static str {
    match health {
        Health::Up => "up",
        Health::Degraded => "degraded",
        Health::Down => "down",
    }
}
