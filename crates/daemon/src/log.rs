//! Log lines on standard error, as the cluster file asks.
//!
//! `EVERMQ_LOG` overrides the level with a filter such as `info,evermq_lb=debug`. Where standard error is the journal's, lines of
//! text go to journald with their fields ([`crate::journal`]); time and level are journald's.

use std::sync::OnceLock;

use evermq_config::cluster::{Log, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::{events, journal};

/// Environment variable that overrides `cluster.log_level`.
pub const FILTER_VARIABLE: &str = "EVERMQ_LOG";

/// As [`init`] was told.
static CURRENT: OnceLock<Log> = OnceLock::new();

/// What this process logs, and how; for a second process that should do the same. None before [`init`].
#[must_use]
pub fn current() -> Option<Log> {
    CURRENT.get().copied()
}

/// Sends all log lines of this process to standard error. Later calls change nothing.
pub fn init(log: Log) {
    CURRENT.get_or_init(|| log);
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(quiet(level)));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    // Where nobody reads standard error any more, a line about that, on standard error, would be a panic of the thread that
    // has something to say: the one that waits for SIGTERM among them.
    let lines = lines.log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text if journal::has_standard_error() => journal::Journal::new().boxed(),
        LogFormat::Text => lines.with_target(false).boxed(),
    };
    // A second call finds a logger in place: the first one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).with(events::layer()).try_init();
}

/// `level`, but for rustls, whose warnings are about what clients send (mosquitto's clients name an address as SNI at each
/// connection) and are nothing to wake anyone for.
fn quiet(level: &str) -> String {
    format!("{level},rustls=error")
}
