//! What the demo prints: lines as things happen, the tables at the end.

use std::time::Duration;

use serde::Serialize;

use super::observer::Felt;
use super::tally::Messages;
use crate::lab::clock;
use crate::lab::error::LabError;
use crate::output;
use crate::table::Table;

/// Where lines go, and when the demo began.
pub(super) struct Voice {
    started: Duration,
    /// Lines go to standard error, because standard output is for JSON.
    is_json: bool,
    is_coloured: bool,
}

/// The account of a demo.
#[derive(Debug, Serialize)]
pub(super) struct Account {
    /// Each fault in its turn.
    pub(super) faults: Vec<FaultAccount>,
    /// What became of the messages.
    pub(super) messages: Messages,
    /// Messages per second.
    pub(super) rate: u32,
    /// Milliseconds between two new connections.
    pub(super) probe_interval_ms: u64,
}

/// What one fault cost, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct FaultAccount {
    /// What was done.
    pub(super) fault: String,
    /// The longest time without a new connection; null where nobody could connect any more.
    pub(super) new_connections_ms: Option<f64>,
    /// From the fault until the publisher was connected again.
    pub(super) publisher: Cost,
    /// From the fault until the subscriber was.
    pub(super) subscriber: Cost,
}

/// What one fault cost one client.
#[derive(Debug, Serialize)]
#[serde(tag = "felt", rename_all = "snake_case")]
pub(super) enum Cost {
    /// Its connection went on.
    Not,
    /// It was connected again after this.
    For {
        /// Milliseconds.
        ms: f64,
    },
    /// It was not connected again.
    Still,
}

impl From<Felt> for Cost {
    fn from(felt: Felt) -> Self {
        match felt {
            Felt::Not => Self::Not,
            Felt::For(time) => Self::For { ms: millis(time) },
            Felt::Still => Self::Still,
        }
    }
}

impl Voice {
    /// From now on.
    pub(super) fn new(is_json: bool) -> Self {
        let is_terminal = nix::unistd::isatty(std::io::stdout()).unwrap_or(false);
        let is_coloured = is_terminal && !is_json && std::env::var_os("NO_COLOR").is_none();
        Self { started: clock::monotonic(), is_json, is_coloured }
    }

    /// Something happens now.
    pub(super) fn say(&self, text: &str) {
        self.line(clock::monotonic(), &format!("  {text}"));
    }

    /// Something happened at that time.
    pub(super) fn say_at(&self, at: Duration, text: &str) {
        self.line(at, &format!("  {text}"));
    }

    /// The demo does something now.
    pub(super) fn act(&self, text: &str) {
        self.write("\n");
        let text = self.bold(text);
        self.line(clock::monotonic(), &text);
    }

    /// The account at the end.
    pub(super) fn account(&self, account: &Account) -> Result<(), LabError> {
        let printed = if self.is_json {
            output::print_json(account)
        } else {
            output::print(&format!(
                "\n{}\n{}\n{}",
                self.outages(account),
                self.messages(account),
                self.verdict(account)
            ))
        };
        printed.map_err(LabError::io("cannot write the output"))
    }

    fn outages(&self, account: &Account) -> String {
        let mut table =
            Table::titled(&["FAULT", "NO NEW CONNECTIONS FOR", "PUBLISHER BACK AFTER", "SUBSCRIBER BACK AFTER"]);
        for fault in &account.faults {
            let gap = fault.new_connections_ms.map_or_else(|| "no end seen".to_owned(), |gap| format!("{gap:.0} ms"));
            table.row([&fault.fault, &gap, &cost(&fault.publisher), &cost(&fault.subscriber)]);
        }
        let every = account.probe_interval_ms;
        format!(
            "{table}\nThe first figure is the longest time between two CONNACKs, with a new connection (TCP, TLS, CONNECT) \
             every {every} ms.\n"
        )
    }

    fn messages(&self, account: &Account) -> String {
        let messages = &account.messages;
        let mut table = Table::titled(&["MESSAGES", "", ""]);
        for (name, count, meaning) in [
            ("sent", messages.sent, format!("QoS 1, {} a second", account.rate)),
            ("acknowledged", messages.acknowledged, String::new()),
            ("received", messages.received, String::new()),
            ("lost", messages.lost, "acknowledged while the subscriber was connected, and never received".to_owned()),
            (
                "missed",
                messages.missed,
                "published while the subscriber was connecting again: brokers keep sessions in their own memory"
                    .to_owned(),
            ),
            ("twice", messages.twice, "received more than once, as QoS 1 allows".to_owned()),
        ] {
            table.row([name, &format!("{count:>8}"), &meaning]);
        }
        table.to_string()
    }

    fn verdict(&self, account: &Account) -> String {
        match account.messages.lost {
            0 => format!("{}\n", self.coloured("32", "Nothing that was acknowledged was lost.")),
            lost => format!("{}\n", self.coloured("31", &format!("{lost} acknowledged messages were lost."))),
        }
    }

    fn line(&self, at: Duration, text: &str) {
        let elapsed = at.saturating_sub(self.started).as_secs_f64();
        self.write(&format!("{elapsed:7.3} s  {text}\n"));
    }

    fn write(&self, text: &str) {
        if self.is_json {
            output::complain(text);
        } else {
            // Whoever read this may have left; the end of the demo is what counts.
            let _ = output::print(text);
        }
    }

    fn bold(&self, text: &str) -> String {
        self.coloured("1", text)
    }

    fn coloured(&self, code: &str, text: &str) -> String {
        if self.is_coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn cost(cost: &Cost) -> String {
    match cost {
        Cost::Not => "not interrupted".to_owned(),
        Cost::For { ms } => format!("{ms:.0} ms"),
        Cost::Still => "no end seen".to_owned(),
    }
}

/// In milliseconds, with one decimal place.
pub(super) fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
