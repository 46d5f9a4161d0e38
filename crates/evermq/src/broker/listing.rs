//! Lists of any length: asked for and printed a page at a time, so that neither this program nor the broker holds all of it.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::BROKER;
use crate::asking::ProgramArgs;
use crate::cells::word;
use crate::command::CommandError;
use crate::output;
use crate::table::Table;

/// Rows of one page, and of a sorted list at most.
pub(super) const PAGE: u64 = 1000;

/// How much to show, and of which broker.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) broker: ProgramArgs,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: u64,
    /// Show all, however many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// How a list is shown.
pub(super) struct Listing {
    /// The request, and what its answer has the rows under.
    pub(super) name: &'static str,
    /// What the rows are.
    pub(super) what: &'static str,
    /// Of the table.
    pub(super) titles: &'static [&'static str],
    /// One row of it.
    pub(super) row: fn(&Value) -> Vec<String>,
}

impl Listing {
    /// Prints what `request` (without its name) finds.
    ///
    /// # Errors
    /// The cluster file is wrong, the host is none of its brokers, its broker does not answer, or standard output cannot be
    /// written.
    pub(super) fn print(&self, args: &ListArgs, mut request: Value) -> Result<(), CommandError> {
        let broker = BROKER.find(&args.broker)?;
        let limit = if args.all { u64::MAX } else { args.limit };
        request["request"] = self.name.into();
        let mut shown = 0;
        let more = loop {
            request["limit"] = PAGE.min(limit - shown).into();
            let answer = broker.ask(&request, Duration::ZERO)?;
            let rows = answer[self.name].as_array().map(Vec::as_slice).unwrap_or_default();
            let text = if args.broker.json {
                self.json(broker.host(), rows, shown)
            } else if rows.is_empty() && (shown > 0 || !answer["next"].is_null()) {
                String::new()
            } else {
                self.table(rows, shown == 0)
            };
            if !output::offer(&text)? {
                return Ok(());
            }
            shown += rows.len() as u64;
            if answer["next"].is_null() || shown >= limit {
                break !answer["next"].is_null();
            }
            request["from"] = answer["next"].clone();
        };
        let end = match (args.broker.json, more) {
            (true, _) if shown == 0 => format!("{}],\"more\":{more}}}\n", self.begin(broker.host())),
            (true, _) => format!("],\n\"more\":{more}}}\n"),
            (false, true) => format!("\n{}: {shown} shown, and there are more: --limit N or --all\n", broker.host()),
            (false, false) => format!("\n{}: {shown} {}\n", broker.host(), self.what),
        };
        output::print(&end)?;
        Ok(())
    }

    /// Prints the first ones by `request["sort"]`, which takes the broker `over`; at most as many as one answer has.
    pub(super) fn print_sorted(&self, args: &ListArgs, request: &Value, over: Duration) -> Result<(), CommandError> {
        let answer = BROKER.find(&args.broker)?.ask(request, over)?;
        if args.broker.json {
            output::print_json(&answer)?;
        } else {
            output::print(&self.sorted(&answer))?;
        }
        Ok(())
    }

    /// The first ones as a table, and how many there are in all.
    pub(super) fn sorted(&self, answer: &Value) -> String {
        let rows = answer[self.name].as_array().map(Vec::as_slice).unwrap_or_default();
        let total = answer["total"].as_u64().unwrap_or(0);
        format!("{}\n{}: {} of {total} shown\n", self.table(rows, true), word(&answer["host"]), rows.len())
    }

    /// Rows as a table.
    pub(super) fn table(&self, rows: &[Value], titled: bool) -> String {
        let mut table = if titled { Table::titled(self.titles) } else { Table::default() };
        for row in rows {
            table.row((self.row)(row));
        }
        table.to_string()
    }

    /// One row in each line, of one JSON object.
    fn json(&self, host: &str, rows: &[Value], shown: u64) -> String {
        let mut text = String::new();
        for (index, row) in rows.iter().enumerate() {
            text.push_str(&if shown == 0 && index == 0 { self.begin(host) } else { ",".to_owned() });
            text.push_str(&format!("\n{row}"));
        }
        text
    }

    fn begin(&self, host: &str) -> String {
        format!("{{\"host\":{},\"{}\":[", json!(host), self.name)
    }
}
