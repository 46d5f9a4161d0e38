//! What a program says of itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often a healthy program repeats that it is, so that a frozen one is told from a quiet one.
pub const HEALTH_BEAT: Duration = Duration::from_millis(100);

/// How a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Serves.
    Up,
    /// Runs, but cannot do its work: an lb that reaches no broker.
    Degraded,
    /// Does not serve: starting, draining, or stuck.
    Down,
}

/// One line of the health stream of a control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthLine {
    /// How the program is now.
    pub health: Health,
}
