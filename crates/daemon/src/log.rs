//! Log lines on standard error, as the cluster file asks.
//!
//! `EVERMQ_LOG` overrides the level with a filter such as `info,evermq_lb=debug`. Under journald the time and the level are
//! journald's: lines carry its priority prefix instead.

use std::fmt;
use std::sync::OnceLock;

use evermq_config::cluster::{Log, LogFormat, LogLevel};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::events;

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
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => lines.event_format(Journal::new()).boxed(),
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

/// A text line that begins with its priority in the form that journald reads (sd-daemon(3)).
struct Journal {
    line: Format<tracing_subscriber::fmt::format::Full, ()>,
}

impl Journal {
    fn new() -> Self {
        Self { line: tracing_subscriber::fmt::format().without_time().with_level(false).with_target(false) }
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.line.format_event(context, writer, event)
    }
}
